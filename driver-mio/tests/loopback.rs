//! Real nodes on loopback sockets, all in one poll.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brickwork_mio::{BUDGET, BindError, Config, Driver, Event, Node, Options, Recovery};
use mio::{Events, Poll, Token};

/// Far beyond what anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Settings under which a lone node has no timer that a test could meet.
fn quiet() -> Config {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut config = Config::local();
    config.swim.probe_interval = HOUR;
    config.swim.gossip_interval = HOUR;
    config.map.sync_interval = HOUR;
    config
}

/// Several drivers in one poll, told apart by their tokens.
struct Loop {
    poll: Poll,
    ready: Events,
    drivers: Vec<Driver>,
    events: Vec<Vec<Event>>,
}

impl Loop {
    fn new() -> Self {
        Self {
            poll: Poll::new().unwrap(),
            ready: Events::with_capacity(16),
            drivers: Vec::new(),
            events: Vec::new(),
        }
    }

    fn start(&mut self, name: &str, seed: Option<SocketAddr>) -> usize {
        let mut options = Options::new(name, any_port()).config(Config::local());
        options.seeds.extend(seed);
        self.add(options)
    }

    fn add(&mut self, options: Options) -> usize {
        let mut driver = Driver::bind(options).unwrap();
        let token = self.drivers.len();
        driver.register(self.poll.registry(), Token(token)).unwrap();
        self.drivers.push(driver);
        self.events.push(Vec::new());
        token
    }

    fn node(&self, token: usize) -> &Node {
        self.drivers[token].node()
    }

    fn turn(&mut self) {
        let timeout = self.drivers.iter().filter_map(Driver::timeout).min();
        let timeout = timeout.unwrap_or(PATIENCE).min(PATIENCE);
        self.poll.poll(&mut self.ready, Some(timeout)).unwrap();
        for (token, driver) in self.drivers.iter_mut().enumerate() {
            let event = self.ready.iter().find(|event| event.token() == Token(token));
            driver.drive(self.poll.registry(), event).unwrap();
            self.events[token].extend(std::iter::from_fn(|| driver.poll_event()));
        }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "it never came about");
            self.turn();
        }
    }
}

#[test]
fn two_nodes_meet_share_a_value_and_one_leaves() {
    let mut cluster = Loop::new();
    let a = cluster.start("a", None);
    let seed = cluster.drivers[a].local_addr();
    let b = cluster.start("b", Some(seed));
    cluster.until(|cluster| [a, b].iter().all(|&at| cluster.node(at).members().count() == 2));
    assert!(cluster.events[a].iter().any(|event| matches!(event, Event::Joined { .. })));

    cluster.drivers[b].with(|node, now| node.insert(now, b"k", b"v")).unwrap();
    cluster.until(|cluster| cluster.node(a).get(b"k") == Some(b"v"));
    assert_eq!(cluster.node(a).owner(b"k"), cluster.node(b).owner(b"k"));

    let leaver = cluster.node(b).id();
    cluster.drivers[b].with(|node, now| node.leave(now));
    let finished = Event::LeaveFinished { acknowledged: 1 };
    cluster.until(|cluster| cluster.events[b].contains(&finished));
    cluster.until(|cluster| cluster.events[a].contains(&Event::Left { id: leaver }));
    assert_eq!(cluster.node(a).members().count(), 1);
    assert_ne!(cluster.node(a).owner(b"k"), Some(leaver));
    assert_eq!(cluster.drivers[b].timeout(), None, "a node that has left asks for no wake-up");
}

#[test]
fn a_burst_beyond_the_budget_is_read_though_reported_once() {
    const BURST: usize = 3 * BUDGET;
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let mut options = Options::new("a", any_port()).config(quiet());
    options.ingress = Some(Box::new(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    }));
    let mut driver = Driver::bind(options).unwrap();
    let mut poll = Poll::new().unwrap();
    let mut ready = Events::with_capacity(16);
    driver.register(poll.registry(), Token(7)).unwrap();
    // With the start behind it, only the report below can set the driver going.
    driver.drive(poll.registry(), None).unwrap();
    assert!(driver.timeout().is_none_or(|wait| wait > PATIENCE), "{:?}", driver.timeout());

    let flood = UdpSocket::bind(any_port()).unwrap();
    for _ in 0..BURST {
        flood.send_to(b"x", driver.local_addr()).unwrap();
    }
    poll.poll(&mut ready, Some(PATIENCE)).unwrap();
    let event = ready.iter().next().expect("the one report");
    let progress = driver.drive(poll.registry(), Some(event)).unwrap();
    assert_eq!((progress.received, progress.more), (BUDGET, true));
    // No further event is handed in: the driver itself remembers that it has not seen the end.
    while driver.timeout() == Some(Duration::ZERO) {
        driver.drive(poll.registry(), None).unwrap();
    }
    assert_eq!(seen.load(Ordering::Relaxed), BURST);
    assert_eq!(driver.stats().dropped_by_ingress, BURST as u64);
    assert_eq!(driver.node().stats().bytes_received, 0, "the node saw none of it");
}

#[test]
fn an_event_of_another_source_is_no_report() {
    let mut cluster = Loop::new();
    let [a, b] = ["a", "b"].map(|name| cluster.add(Options::new(name, any_port()).config(quiet())));
    cluster.drivers.iter_mut().for_each(|driver| {
        driver.drive(cluster.poll.registry(), None).unwrap();
    });
    let peer = UdpSocket::bind(any_port()).unwrap();
    for at in [b, a] {
        peer.send_to(b"x", cluster.drivers[at].local_addr()).unwrap();
    }
    cluster.poll.poll(&mut cluster.ready, Some(PATIENCE)).unwrap();
    let event = cluster.ready.iter().find(|event| event.token() == Token(a)).expect("a's report");
    let registry = cluster.poll.registry();
    assert_eq!(cluster.drivers[b].drive(registry, Some(event)).unwrap().received, 0);
    assert_eq!(cluster.drivers[a].drive(registry, Some(event)).unwrap().received, 1);
    assert_eq!(cluster.drivers[a].node().stats().refused.total(), 1, "counted, not fatal");
}

#[test]
fn what_has_arrived_is_read_before_a_timer_fires_though_not_reported() {
    let mut cluster = Loop::new();
    let a = cluster.start("a", None);
    let (registry, driver) = (cluster.poll.registry(), &mut cluster.drivers[a]);
    driver.drive(registry, None).unwrap();
    UdpSocket::bind(any_port()).unwrap().send_to(b"x", driver.local_addr()).unwrap();
    // The report is kept from the driver; the timer of a lone node comes all the same.
    let deadline = Instant::now() + PATIENCE;
    while driver.drive(registry, None).unwrap().received == 0 {
        assert!(Instant::now() < deadline, "it never came about");
        std::thread::yield_now();
    }
}

#[test]
fn a_driver_moves_to_another_poll() {
    let mut cluster = Loop::new();
    let a = cluster.start("a", None);
    let seed = cluster.drivers[a].local_addr();
    let b = cluster.start("b", Some(seed));
    let other = Poll::new().unwrap();
    for driver in &mut cluster.drivers {
        driver.deregister(cluster.poll.registry()).unwrap();
    }
    cluster.poll = other;
    for (token, driver) in cluster.drivers.iter_mut().enumerate() {
        driver.register(cluster.poll.registry(), Token(token)).unwrap();
    }
    cluster.until(|cluster| [a, b].iter().all(|&at| cluster.node(at).members().count() == 2));
}

#[test]
fn a_dead_seed_is_no_error() {
    let gone = UdpSocket::bind(any_port()).unwrap().local_addr().unwrap();
    let mut cluster = Loop::new();
    let a = cluster.start("a", Some(gone));
    cluster.until(|cluster| cluster.node(a).stats().datagrams_sent >= 3);
    assert_eq!(cluster.node(a).members().count(), 1);
}

#[test]
fn a_port_in_use_and_a_bad_address_are_errors() {
    let taken = UdpSocket::bind(any_port()).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = Driver::bind(Options::new("a", addr)).unwrap_err();
    assert!(matches!(error, BindError::Socket(at, _) if at == addr), "{error}");

    let unspecified = ([0, 0, 0, 0], 0).into();
    let error = Driver::bind(Options::new("a", unspecified)).unwrap_err();
    assert!(matches!(error, BindError::Config(_)), "{error}");
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

/// Goal: with a store a node goes on after a sudden death, and what it writes without a pause is heard. Method: the
/// driver is dropped between two writes.
#[test]
fn a_node_with_a_store_goes_on_after_a_sudden_death() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("map.log");
    let mut turns = Loop::new();
    let other = turns.start("b", None);
    let seed = turns.drivers[other].local_addr();
    let options = || {
        let mut options = Options::new("a", any_port()).config(Config::local()).store(&path);
        options.seeds.push(seed);
        options
    };
    let mut written = 0_u64;
    let mut life = None;
    for round in 0..3 {
        let first = turns.drivers.len() == 1;
        let at = if first {
            turns.add(options())
        } else {
            turns.drivers[1] = Driver::bind(options()).unwrap();
            turns.drivers[1].register(turns.poll.registry(), Token(1)).unwrap();
            1
        };
        let expected = if first { Recovery::New } else { Recovery::Resumed };
        assert_eq!(turns.drivers[at].recovery(), Some(expected));
        let node = turns.drivers[at].node();
        let before = *life.get_or_insert_with(|| node.map().replica());
        assert_eq!(before, node.map().replica());
        assert_eq!(node.get(b"key").map_or(0, number), written);
        // Written in every turn of the loop, so there is always one that is not durable.
        let started = written;
        let deadline = Instant::now() + PATIENCE;
        while turns.node(other).get(b"key").map_or(0, number) <= started {
            assert!(Instant::now() < deadline, "nothing is told of {written} writes");
            written += 1;
            let value = written.to_be_bytes();
            turns.drivers[at].with(|node, now| node.insert(now, b"key", &value)).unwrap();
            turns.turn();
        }
        let dot = turns.drivers[at].with(|node, now| node.insert(now, b"last", &[round]));
        let dot = dot.unwrap();
        turns.until(|turns| turns.node(at).map().is_durable(dot));
        // Dropped in the place of the next one, which needs the file.
        turns.drivers[at] = Driver::bind(Options::new("nobody", any_port())).unwrap();
    }
    let error = Driver::bind(Options::new("c", any_port()).store(folder.path())).unwrap_err();
    assert!(matches!(error, BindError::Store(_)), "{error}");
}
