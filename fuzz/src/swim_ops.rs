//! Members under loss, partitions, crashes and bad clocks; after calm they agree.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::swim::{Config, State, Swim};
use brickwork_core::{Identity, NodeId};

use crate::input::Input;
use crate::net::{Net, addr};
use crate::roll::Roll;

const PLACES: usize = 5;
const MAX_OPS: usize = 48;
const MAX_MEMBERS: usize = 8;
/// Virtual time within which a calm network must heal, besides what clocks were set back.
const HEAL: Duration = Duration::from_secs(120);
/// Boot epochs of starts in order lie this far apart, so that none is used twice.
const EPOCH_STEP: u64 = 1_000_000;

/// Runs members as the input says, then checks that those that are live agree on who is.
///
/// # Panics
///
/// If they do not, or if an invariant breaks on the way.
pub fn swim_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_OPS {
        let Some(op) = input.next() else { break };
        world.act(op, &mut input);
    }
    world.calm_down();
}

struct World {
    net: Net<Swim>,
    starts: u64,
    /// Places whose node left, or is about to.
    left: BTreeSet<usize>,
    set_back: Duration,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let seed = u64::from(input.byte());
        let net = Net::new(PLACES, seed);
        let mut world = Self { net, starts: 0, left: BTreeSet::new(), set_back: Duration::ZERO };
        for place in 0..=input.below(PLACES) {
            world.start(place, false);
        }
        world
    }

    fn act(&mut self, op: u8, input: &mut Input<'_>) {
        let place = input.below(PLACES);
        match op % 16 {
            0 => self.start(place, false),
            // Its clock stepped back between two starts.
            1 => self.start(place, true),
            2 => drop(self.net.stop(place)),
            3 => {
                if self.net.with(place, |swim, now| swim.leave(now)).is_some() {
                    self.left.insert(place);
                }
            }
            4 => self.net.split(input.byte()),
            5 => self.net.split(0),
            6 => self.net.loss = input.byte() % 100,
            7 => self.net.repeats = input.byte() % 100,
            8 => self.net.delay = Duration::from_micros(1 + u64::from(input.u16())),
            9 => self.net.freeze(place),
            10 => self.net.thaw(place),
            11 => self.net.shift_clock(place, leap(input), false),
            12 => {
                let by = Duration::from_millis(10) * u32::from(input.byte());
                self.net.shift_clock(place, by, true);
                self.set_back += by;
            }
            13 => {
                let meta = input.take(4).to_vec();
                let told = self.net.with(place, |swim, now| swim.set_meta(now, meta));
                assert!(!matches!(told, Some(Err(_))), "short metadata is refused");
            }
            // Called early, a timer does no harm.
            14 => drop(self.net.with(place, |swim, now| swim.handle_timeout(now))),
            _ => self.net.run(Duration::from_millis(8) * u32::from(input.byte())),
        }
    }

    /// Starts a node without memory where none runs.
    fn start(&mut self, place: usize, rewound: bool) {
        if self.net.machine(place).is_some() && !self.left.contains(&place) {
            return;
        }
        self.left.remove(&place);
        self.starts += 1;
        let mut epoch = (self.starts + 10) * EPOCH_STEP;
        if rewound {
            epoch -= 2 * EPOCH_STEP - EPOCH_STEP / 2;
        }
        let identity = Identity::new(format!("node-{place}"), addr(place))
            .with_id(id(place))
            .with_boot_epoch(epoch);
        let mut config = Config::local();
        config.max_members = MAX_MEMBERS;
        config.max_events = 32;
        let mut entropy = [u8::try_from(place).unwrap_or(0); 32];
        entropy[..8].copy_from_slice(&epoch.to_le_bytes());
        let now = self.net.clock(place);
        let swim = Swim::new(now, identity, "fuzz", config, 1400, entropy);
        let mut swim = swim.unwrap_or_else(|error| panic!("a sound configuration: {error}"));
        let roll = Roll::new(swim.me(), MAX_MEMBERS);
        let seeds: Vec<SocketAddr> = (0..PLACES).map(addr).collect();
        swim.join(now, &seeds);
        self.net.start(place, swim, roll);
    }

    /// Ends all trouble; those that are live must come to agree, and go on agreeing.
    fn calm_down(&mut self) {
        (self.net.loss, self.net.repeats) = (0, 0);
        self.net.delay = Duration::from_micros(500);
        self.net.split(0);
        for place in 0..PLACES {
            self.net.thaw(place);
        }
        // What is under way arrives first: the join of a node that is gone by now, say. And who is
        // leaving still tells what it knows, a newer incarnation of the dead among it.
        self.net.run(Config::local().leave_timeout + Duration::from_secs(1));
        let up = self.net.up().map(|(place, _)| place);
        let live: BTreeSet<_> = up.filter(|place| !self.left.contains(place)).collect();
        let expected: BTreeSet<_> = live.iter().map(|&place| id(place)).collect();
        let agree = |net: &Net<Swim>| live.iter().all(|&place| agrees(net, place, &expected));
        let healed = self.net.run_until(HEAL + self.set_back, agree);
        assert!(healed, "not all list {expected:?}: {}", self.tell(&live));
        self.net.run(Duration::from_secs(2));
        assert!(agree(&self.net), "agreement on {expected:?} did not last: {}", self.tell(&live));
    }

    fn tell(&self, live: &BTreeSet<usize>) -> String {
        let lists = live.iter().map(|&place| {
            let swim = self.net.machine(place);
            let members = swim.into_iter().flat_map(Swim::members);
            let list: Vec<_> = members.map(|member| (member.id(), member.state())).collect();
            format!("{:?} lists {list:?}; ", id(place))
        });
        lists.collect()
    }
}

/// Forward by milliseconds, seconds or minutes, at most some hours.
fn leap(input: &mut Input<'_>) -> Duration {
    let units = [Duration::from_millis(10), Duration::from_secs(1), Duration::from_secs(60)];
    let unit = units[input.below(units.len())];
    unit * u32::from(input.byte())
}

fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

fn agrees(net: &Net<Swim>, place: usize, expected: &BTreeSet<NodeId>) -> bool {
    net.machine(place).is_some_and(|swim| {
        swim.len() == expected.len()
            && swim.members().all(|member| member.state() == State::Alive)
            && net.roll(place).ids() == *expected
    })
}
