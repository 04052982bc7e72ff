//! Goal: `Checked` holds nodes and lone bricks to their promises, and sees each that is broken.
//! Method: lone maps on a network with faults; and a machine that lies, once in each way.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::cell::Cell;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use brickwork_core::map::{self, Map, ReplicaId};
use brickwork_core::sim::{Checked, Condition, Fault, Links, Machine, Network, Nodes};
use brickwork_core::swim::{self, Swim};
use brickwork_core::{
    Config, Event, Identity, Instant, Node, NodeId, PacketError, Stats, Transmit,
};

const SECOND: Duration = Duration::from_secs(1);

fn addr(place: usize) -> SocketAddr {
    ([10, 0, 0, 1], 7_000 + u16::try_from(place).unwrap()).into()
}

fn run(net: &mut Network, maps: &mut [Checked<Map>], time: Duration) {
    let end = net.now() + time;
    while let Some(input) = net.next(end) {
        let place = input.place;
        input.hand_to(&mut maps[place]).unwrap();
        while maps[place].poll_event().is_some() {}
        net.serve(place, &mut maps[place]);
    }
}

#[test]
fn lone_maps_converge_on_a_network_with_faults() {
    for seed in 0..20 {
        let mut net = Network::new(seed);
        let id = |place: usize| NodeId(1 + place as u64);
        let mut maps: Vec<_> = (0..3)
            .map(|place| {
                let place = net.bind(addr(place));
                let replica = ReplicaId::new(id(place), 1);
                let config = map::Config::local();
                let mut map =
                    Map::new(Instant::ZERO, replica, "maps", config, 1400, [7; 32]).unwrap();
                for other in (0..3).filter(|other| *other != place) {
                    map.peer_up(Instant::ZERO, id(other), 1, addr(other));
                }
                Checked::of(map)
            })
            .collect();
        net.begin(Fault::Link(Links::all(), Condition::Loss(200)));
        let repeat = Condition::Duplicate { permille: 200, within: SECOND };
        net.begin(Fault::Link(Links::all(), repeat));
        let cut = Links::around(&Nodes::one(2));
        let cut = net.begin(Fault::Link(cut, Condition::Cut));
        for round in 0..30_usize {
            if round == 20 {
                net.end(cut);
            }
            for (place, map) in maps.iter_mut().enumerate() {
                let (now, key) = (net.clock(place), [u8::try_from(round * 7 % 5).unwrap()]);
                if (round + place) % 4 == 3 {
                    map.remove(now, &key).unwrap();
                } else {
                    map.insert(now, &key, &[u8::try_from(place).unwrap()]).unwrap();
                }
                net.serve(place, map);
            }
            run(&mut net, &mut maps, SECOND / 10);
        }
        net.calm();
        run(&mut net, &mut maps, 10 * SECOND);
        let digests: Vec<_> = maps.iter().map(|map| map.machine().digest()).collect();
        assert_eq!(digests, [digests[0]; 3], "seed {seed}");
        assert!(net.met().len() == 3 && net.traffic().lost > 0, "{:?}", net.traffic());
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    StandsStill,
    AnswersDifferently,
    SendingMovesTheTimer,
    SendsTooMuch,
    KeepsEventsBack,
    KeepsChangesBack,
    RefusesAndActs,
    CountsNoRefusal,
}

/// A node that does not keep its word.
#[derive(Debug)]
struct Liar {
    node: Node,
    lie: Lie,
    asked: Cell<u64>,
    sent: u64,
}

static LONG: [u8; 4_000] = [0; 4_000];

impl Machine for Liar {
    fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        let result = self.node.handle_packet(now, from, packet);
        if result.is_err() && self.lie == Lie::RefusesAndActs {
            self.node.insert(now, b"trace", b"").unwrap();
        }
        result
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
    }

    fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        self.sent += 1;
        let mut sent = self.node.poll_transmit(buf)?;
        if self.lie == Lie::SendsTooMuch {
            sent.payload = &LONG;
        }
        Some(sent)
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.node.poll_event();
        let kept = match event {
            Some(Event::Joined { .. }) => self.lie == Lie::KeepsEventsBack,
            Some(Event::Changed { .. }) => self.lie == Lie::KeepsChangesBack,
            _ => false,
        };
        event.filter(|_| !kept)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.asked.set(self.asked.get() + 1);
        match self.lie {
            Lie::StandsStill => Some(Instant::ZERO),
            Lie::AnswersDifferently => Some(Instant::from_nanos(u64::MAX - self.asked.get())),
            Lie::SendingMovesTheTimer => Some(Instant::from_nanos(u64::MAX - self.sent)),
            _ => self.node.poll_timeout(),
        }
    }

    fn membership(&self) -> Option<&Swim> {
        Some(self.node.swim())
    }

    fn contents(&self) -> Option<&Map> {
        Some(self.node.map())
    }

    fn counts(&self) -> Option<(u64, u64)> {
        let Stats { datagrams_received, refused, .. } = self.node.stats();
        let refused = if self.lie == Lie::CountsNoRefusal { 0 } else { refused.total() };
        Some((datagrams_received, refused))
    }
}

/// What `Checked` says of a node with this lie that meets another and is sent garbage.
fn verdict(lie: Lie) -> Option<String> {
    let node = |place| {
        let identity = Identity::new(format!("node-{place}"), addr(place));
        Node::new(Instant::ZERO, identity, Config::local(), [7; 32]).unwrap()
    };
    let liar = Liar { node: node(0), lie, asked: Cell::new(0), sent: 0 };
    let meet = AssertUnwindSafe(|| {
        let mut net = Network::new(7);
        let (mut liar, mut other) = (Checked::of(liar), Checked::of(node(1)));
        for place in 0..2 {
            net.bind(addr(place));
        }
        liar.with(|liar| liar.node.insert(Instant::ZERO, b"key", b"").unwrap());
        other.join(Instant::ZERO, &[addr(0)]);
        net.serve(0, &mut liar);
        net.serve(1, &mut other);
        let end = net.now() + SECOND;
        while let Some(input) = net.next(end) {
            if input.place == 0 {
                input.hand_to(&mut liar).unwrap();
                net.serve(0, &mut liar);
                while liar.poll_event().is_some() {}
            } else {
                input.hand_to(&mut other).unwrap();
                net.serve(1, &mut other);
                while other.poll_event().is_some() {}
            }
        }
        assert!(liar.handle_packet(net.clock(0), addr(9), &mut [7; 40]).is_err());
    });
    let panic = catch_unwind(meet).err()?;
    Some(panic.downcast_ref::<String>().unwrap().clone())
}

#[test]
fn each_broken_promise_is_seen() {
    assert_eq!(verdict(Lie::None), None);
    for (lie, said) in [
        (Lie::StandsStill, "no progress"),
        (Lie::AnswersDifferently, ""),
        (Lie::SendingMovesTheTimer, "sending moves no deadline"),
        (Lie::SendsTooMuch, "4000 bytes into 1400"),
        (Lie::KeepsEventsBack, "add up to the list"),
        (Lie::KeepsChangesBack, "add up to the keys"),
        (Lie::RefusesAndActs, "left a trace"),
        (Lie::CountsNoRefusal, "a refusal is counted once"),
    ] {
        let verdict = verdict(lie).unwrap_or_else(|| panic!("{lie:?} is not seen"));
        assert!(verdict.contains(said), "{lie:?}: {verdict}");
    }
}

/// A node takes another boot epoch in the join handshake, and leaves, without an event to itself.
#[test]
fn what_a_node_does_itself_needs_no_event() {
    let swim = |place: usize, boot: u64| {
        let identity = Identity::new(format!("{place}"), addr(place)).with_boot_epoch(boot);
        let config = swim::Config::local();
        Checked::of(Swim::new(Instant::ZERO, identity, "me", config, 1400, [7; 32]).unwrap())
    };
    // The same member from the same address, first in boot 9 and then, its clock stepped back, in 5.
    let (mut host, mut net) = (swim(0, 1), Network::new(3));
    net.bind(addr(0));
    net.bind(addr(1));
    for boot in [9, 5] {
        let mut guest = swim(1, boot);
        guest.with(|guest| guest.join(net.clock(1), &[addr(0)]));
        net.serve(0, &mut host);
        net.serve(1, &mut guest);
        let end = net.now() + SECOND;
        while let Some(input) = net.next(end) {
            let (place, swims) = (input.place, [&mut host, &mut guest]);
            let swim = swims.into_iter().nth(place).unwrap();
            input.hand_to(swim).unwrap();
            while swim.poll_event().is_some() {}
            net.serve(place, swim);
        }
        assert_eq!(guest.machine().me().identity().boot_epoch(), if boot == 9 { 9 } else { 10 });
        assert_eq!(guest.machine().members().count(), 2);
    }
    host.with(|host| host.leave(net.clock(0)));
    while host.poll_event().is_some() {}
    assert!(!host.machine().me().is_live());
    assert_eq!(host.machine().members().count(), 1);
}
