//! Keys whose owners a node follows: what it is told adds up to who owns them.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use brickwork_core::sim::{Fault, Nodes, Sim, Trouble};
use brickwork_core::swim::{Member, State};
use brickwork_core::{Config, ConfigError, Event, Identity, Instant, Node, NodeId};

const SECOND: Duration = Duration::from_secs(1);
const KEYS: u32 = 120;

fn key(number: u32) -> Vec<u8> {
    format!("origin-{number}").into_bytes()
}

/// What a node owns by what it was told, and that none of it was told twice.
#[derive(Debug, Default)]
struct Told {
    mine: BTreeSet<Vec<u8>>,
}

impl Told {
    fn hear(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Gained { key } => assert!(self.mine.insert(key.to_vec()), "{key:?} twice"),
                Event::Lost { key } => assert!(self.mine.remove(&key[..]), "{key:?} was not here"),
                _ => {}
            }
        }
    }
}

struct Cluster {
    sim: Sim,
    told: Vec<Told>,
}

impl Cluster {
    fn new(n: usize, config: Config) -> Self {
        let mut sim = Sim::new(7, config);
        for place in 0..n {
            sim.start(place, &[0]);
            sim.with(place, |node, now| {
                assert!((0..KEYS).all(|number| node.track(now, &key(number))));
                assert!(!node.track(now, &key(0)), "it is tracked already");
            });
        }
        Self { sim, told: (0..n).map(|_| Told::default()).collect() }
    }

    fn node(&self, place: usize) -> &Node {
        self.sim.node(place).unwrap()
    }

    fn owners(&self, number: u32) -> Vec<NodeId> {
        let mine = |place: &usize| self.node(*place).is_mine(&key(number));
        self.sim.up().filter(mine).map(|place| self.sim.id(place)).collect()
    }

    /// Whether every key has just the owner that all who are up see.
    fn agrees(&self) -> bool {
        (0..KEYS).all(|number| {
            let owners = self.owners(number);
            owners.len() == 1
                && self
                    .sim
                    .up()
                    .all(|place| self.node(place).owner(&key(number)) == Some(owners[0]))
        })
    }

    /// What was told is what the views say.
    fn check(&mut self) {
        for place in 0..self.told.len() {
            if self.sim.node(place).is_none() {
                continue;
            }
            self.told[place].hear(self.sim.events(place));
            let node = self.sim.node(place).unwrap();
            let mine: BTreeSet<Vec<u8>> = node.mine().map(<[u8]>::to_vec).collect();
            assert_eq!(self.told[place].mine, mine, "node {place}");
            let owned = (0..KEYS).map(key).filter(|key| node.is_mine(key)).collect();
            assert_eq!(mine, owned, "node {place}");
        }
    }

    fn settle(&mut self) {
        for _ in 0..300 {
            self.sim.run(SECOND / 5);
            self.check();
            if self.agrees() {
                return;
            }
        }
        panic!("some key has not just one owner");
    }
}

#[test]
fn what_is_told_adds_up_to_who_owns_what() {
    let mut cluster = Cluster::new(5, Config::local());
    cluster.settle();
    let before: Vec<Vec<NodeId>> = (0..KEYS).map(|number| cluster.owners(number)).collect();

    let dead = cluster.sim.id(1);
    cluster.sim.crash(1);
    cluster.settle();
    for number in 0..KEYS {
        let (was, is) = (&before[number as usize], cluster.owners(number));
        assert!(*was == is || *was == [dead], "only what the dead one owned moves");
    }

    // One that leaves owns nothing from then on, though it answers yet.
    cluster.sim.with(2, |node, now| node.leave(now));
    assert_eq!(cluster.node(2).mine().count(), 0);
    cluster.told[2].hear(cluster.sim.events(2));
    assert!(cluster.told[2].mine.is_empty());
}

#[test]
fn a_gain_is_told_after_the_grace_and_not_if_it_is_over_by_then() {
    let mut config = Config::local();
    config.ownership.grace = 5 * SECOND;
    let now = Instant::from_nanos(1_000_000_000);
    let me = Identity::new("a", ([127, 0, 0, 1], 7000).into());
    let mut node = Node::new(now, me, config, [7; 32]).unwrap();
    assert!(node.track(now, b"key") && node.track(now, b"other"));
    assert_eq!((node.poll_event(), node.is_mine(b"key")), (None, false));
    assert!(node.poll_timeout().is_some_and(|due| due <= now + 5 * SECOND));
    assert!(node.untrack(now, b"other") && !node.untrack(now, b"other"));
    node.handle_timeout(now + 4 * SECOND);
    assert_eq!(node.poll_event(), None);
    node.handle_timeout(now + 5 * SECOND);
    let gained = node.poll_event();
    assert!(matches!(&gained, Some(Event::Gained { key }) if key[..] == *b"key"), "{gained:?}");
    assert_eq!((node.poll_event(), node.is_mine(b"key")), (None, true));

    // Tracked again, and lost before it was told.
    assert!(node.track(now + 6 * SECOND, b"other"));
    node.leave(now + 7 * SECOND);
    let told: Vec<Event> = std::iter::from_fn(|| node.poll_event()).collect();
    let of = |name: &[u8]| {
        told.iter().filter(|event| matches!(event, Event::Gained { key } | Event::Lost { key } if key[..] == *name)).count()
    };
    assert_eq!((of(b"key"), of(b"other")), (1, 0), "{told:?}");
}

#[test]
fn a_suspected_member_owns_nothing_if_so_configured() {
    for suspects_own in [true, false] {
        let mut config = Config::local();
        config.ownership.suspects_own = suspects_own;
        let mut cluster = Cluster::new(4, config);
        cluster.settle();
        let crashed = cluster.sim.id(3);
        cluster.sim.crash(3);
        let suspected = cluster.sim.run_until(30 * SECOND, |sim| {
            let state = sim.node(0).and_then(|node| node.member(crashed)).map(Member::state);
            state == Some(State::Suspect)
        });
        assert!(suspected);
        assert_eq!(cluster.node(0).view().nodes().contains(&crashed), suspects_own);
        cluster.settle();
        assert!(!cluster.node(0).view().nodes().contains(&crashed));
    }
}

/// Who was suspected and is well has its keys again, where the suspected own nothing.
#[test]
fn who_recovers_owns_again() {
    let mut config = Config::local();
    config.ownership.suspects_own = false;
    let mut cluster = Cluster::new(4, config);
    cluster.settle();
    let subject = cluster.sim.id(3);
    let before: Vec<Vec<NodeId>> = (0..KEYS).map(|number| cluster.owners(number)).collect();
    let pause = cluster.sim.begin(Fault::Node(Nodes::one(3), Trouble::Pause));
    let suspected = cluster.sim.run_until(30 * SECOND, |sim| {
        sim.node(0).is_some_and(|node| !node.view().nodes().contains(&subject))
    });
    cluster.sim.end(pause);
    let of = |cluster: &Cluster| cluster.node(0).member(subject).map(Member::state);
    assert_eq!((suspected, of(&cluster)), (true, Some(State::Suspect)));
    cluster.settle();
    assert_eq!(of(&cluster), Some(State::Alive));
    let after: Vec<Vec<NodeId>> = (0..KEYS).map(|number| cluster.owners(number)).collect();
    assert_eq!(before, after);
}

/// An event queue that overflows loses what it tells of gains, and what is owned is right all the same.
#[test]
fn what_is_owned_outlives_events_that_were_dropped() {
    let now = Instant::from_nanos(1_000_000_000);
    let me = Identity::new("a", ([127, 0, 0, 1], 7000).into());
    let mut config = Config::local();
    config.max_events = 2;
    let mut node = Node::new(now, me, config, [7; 32]).unwrap();
    assert!((0..5).all(|number| node.track(now, &key(number))));
    assert_eq!(node.poll_event(), Some(Event::Missed { events: 3 }));
    assert_eq!(node.mine().count(), 5);
    // Untracked and tracked again under the number that it had.
    assert!(node.untrack(now, &key(1)) && !node.is_mine(&key(1)) && node.mine().count() == 4);
    while node.poll_event().is_some() {}
    assert!(node.track(now, &key(9)) && node.is_mine(&key(9)));
    let gained = node.poll_event();
    assert!(
        matches!(&gained, Some(Event::Gained { key: told }) if told[..] == key(9)),
        "{gained:?}"
    );
    assert_eq!(node.poll_event(), None, "nothing is told of what is untracked");
}

#[test]
fn settings_of_ownership_are_checked() {
    let me = || Identity::new("a", ([127, 0, 0, 1], 7000).into());
    for (owners, grace) in [(0, 0), (65, 0), (1, 90_000)] {
        let mut config = Config::lan();
        (config.ownership.owners, config.ownership.grace) = (owners, Duration::from_secs(grace));
        let refused = Node::new(Instant::ZERO, me(), config, [7; 32]).map(drop);
        assert!(
            matches!(refused, Err(ConfigError::Refused(text)) if text.starts_with("ownership."))
        );
    }
}

/// Goal: members own by their weights, and all agree; one that is drained owns nothing and serves on, and takes back what it had.
/// Method: weights that change while the cluster runs.
#[test]
fn members_own_by_their_weights() {
    let mut cluster = Cluster::new(4, Config::local());
    cluster.settle();
    let owned = |cluster: &Cluster, place: usize| -> Vec<u32> {
        (0..KEYS).filter(|number| cluster.node(place).is_mine(&key(*number))).collect()
    };
    let even: Vec<_> = (0..4).map(|place| owned(&cluster, place)).collect();

    cluster.sim.with(1, |node, now| node.set_weight(now, 0));
    assert_eq!(cluster.node(1).mine().count(), 0, "it owns nothing at once");
    cluster.settle();
    let drained = cluster.sim.id(1);
    for (place, even) in even.iter().enumerate() {
        let node = cluster.node(place);
        assert_eq!(node.members().count(), 4, "it is a member as before");
        assert!(!node.view().nodes().contains(&drained));
        let kept = even.iter().all(|number| node.is_mine(&key(*number)));
        assert_eq!(kept, place != 1, "nothing moves that need not");
    }

    cluster.sim.with(1, |node, now| node.set_weight(now, 1));
    cluster.settle();
    assert!((0..4).all(|place| owned(&cluster, place) == even[place]));

    cluster.sim.with(2, |node, now| node.set_weight(now, 6));
    cluster.settle();
    let weights: Vec<_> =
        (0..4).map(|place| cluster.node(3).view().weight(cluster.sim.id(place))).collect();
    assert_eq!(weights, [1, 1, 6, 1].map(NonZeroU32::new));
    // Six of nine parts of 120 keys: 80, and a standard deviation of five.
    assert!((60..100).contains(&owned(&cluster, 2).len()));
    assert!(even[2].iter().all(|number| owned(&cluster, 2).contains(number)));

    // It starts anew with the weight that its program says, which is one.
    cluster.sim.crash(2);
    cluster.told[2] = Told::default();
    cluster.settle();
    cluster.sim.restart(2);
    cluster.sim.with(2, |node, now| (0..KEYS).all(|number| node.track(now, &key(number))));
    cluster.settle();
    assert!((0..4).all(|place| owned(&cluster, place) == even[place]));
}

/// Goal: a node that begins drained owns nothing, even alone, until it is given a weight; and not while it leaves.
#[test]
fn a_node_without_weight_owns_nothing() {
    let now = Instant::ZERO;
    let me = Identity::new("a", ([10, 0, 0, 1], 7000).into()).with_weight(0);
    let mut node = Node::new(now, me, Config::lan(), [7; 32]).unwrap();
    node.track(now, b"key");
    assert_eq!((node.owner(b"key"), node.poll_event()), (None, None));
    node.set_weight(now, 3);
    assert!(matches!(node.poll_event(), Some(Event::Gained { .. })));
    assert_eq!(node.owner(b"key"), Some(node.id()));
    node.set_weight(now, 2);
    assert_eq!(node.poll_event(), None, "it is the only one");
    node.leave(now);
    let lost = std::iter::from_fn(|| node.poll_event())
        .filter(|event| matches!(event, Event::Lost { .. }));
    assert_eq!(lost.count(), 1);
    node.set_weight(now, 5);
    assert_eq!(node.owner(b"key"), None);
}
