//! Bugs that other systems met in public, as far as they concern membership.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use brickwork_core::sim::{Condition, Fault, Links, Nodes, Sim};
use brickwork_core::swim::{Config, State, Swim};
use brickwork_core::{Config as NodeConfig, Event, Identity, Instant, MIN_DATAGRAM, PacketError};

use crate::common::bare::{
    ACK, Bare, COOKIE, DEAD, JOIN, NUMBERS, PING, PING_REQ, SUSPECT, UPDATES, accused, ack, alive,
    alive_at, frame, id, introduce_to, left, millis, packet, places, seal, varint,
};
use crate::common::{Net, addr, frame_of, name};
use crate::counted::most_bytes;

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

fn state(bare: &Bare, place: usize) -> State {
    bare.swim.member(id(place)).unwrap().state()
}

/// Thousands of nodes that started again at once stayed dead for others: who did not know them swallowed what was said of
/// their earlier lives, and what they said of their new ones came too late.
#[test]
fn memberlist_311_mass_restart() {
    for (seed, survivors) in (0..10).flat_map(|seed| [(seed, 0), (seed, 1), (seed, 8)]) {
        let mut net = Net::cluster(seed, NodeConfig::local(), 24);
        (survivors..24).for_each(|place| net.start(place, &[0]));
        let boots = |net: &Net, place: usize| {
            let members = net.node(place).members();
            let mut boots: Vec<_> = members.map(|one| one.identity().boot_epoch()).collect();
            boots.sort_unstable();
            boots
        };
        // Each is known in the life that it has now, and in no other.
        let settled = |net: &Net| {
            let first = boots(net, 0);
            net.differences(&[]).is_empty() && (1..24).all(|place| boots(net, place) == first)
        };
        assert!(net.run_until(10 * SECOND, settled), "seed {seed}, {survivors} survive");
        net.events.iter_mut().for_each(Vec::clear);
        net.run(60 * SECOND);
        let changes: Vec<_> = net.events.iter().flatten().collect();
        assert!(changes.is_empty(), "{changes:?}");
    }
}

/// In a cluster of three the helper of a probe was drawn at random among all, the prober and the member itself included,
/// so that now and then the only one who could help was not asked.
#[test]
fn memberlist_350_tiny_cluster_probe() {
    let mut bare = Bare::among(Config::lan(), [1, 2]);
    bare.answering = vec![2];
    for incarnation in 1..=200 {
        let probe = bare.next_probe(1);
        let sent = bare.run_to(probe.at + SECOND);
        let asked = sent.iter().find(|sent| sent.is(PING_REQ, 2)).expect("the only other is asked");
        assert!(probe.seq(PING) - asked.seq(PING_REQ) < NUMBERS);
        bare.tell(1, &frame(UPDATES, &alive(1, 1, incarnation)));
    }
}

/// Lengths and counts in a message decided how much was allocated, before it was known that so much was there; and what
/// was packed small was unpacked without a bound.
#[test]
fn memberlist_357_361_363_alloc_bomb() {
    let mut bare = Bare::among(Config::lan(), 1..9);
    bare.sent();
    let members = bare.swim.len();
    let lies: Vec<Vec<u8>> = vec![
        vec![0xff; 1_300],
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        [varint(u64::from(u32::MAX)), vec![0; 1_200]].concat(),
        [vec![1], vec![0xff; 60]].concat(),
        accused(SUSPECT, 1, 0, &[2; 255]),
        [&alive(20, 1, 0)[..27], &[0xff; 300]].concat(),
    ];
    let most = most_bytes(|| {
        for tag in 0..=0xff {
            for lie in &lies {
                for (from, sender) in [(1, id(1)), (77, id(77))] {
                    let mut bytes = packet("test", sender, 1, &frame(tag, lie));
                    // What is no frame of an optional kind is refused, and costs nothing.
                    let _ = bare.swim.handle_packet(bare.now, addr(from), &mut bytes);
                }
            }
        }
        bare.sent();
    });
    assert!(most < 64 * 1_024, "{most} bytes");
    assert_eq!(bare.swim.len(), members);
}

/// Answers went to an address in the payload, and one message could hold 255 pings.
#[test]
fn memberlist_371_reflect255() {
    let pings: Vec<u8> = (0..110)
        .flat_map(|seq| frame(PING, &[varint(seq), id(0).0.to_le_bytes().to_vec()].concat()))
        .collect();
    let elsewhere = frame(UPDATES, &alive(66, 1, 0));
    for (sender, from) in [(id(99), addr(50)), (id(2), addr(2)), (id(2), addr(50))] {
        let mut bare = Bare::among(Config::lan(), 1..4);
        bare.sent();
        let mut bytes = packet("test", sender, 1, &[pings.clone(), elsewhere.clone()].concat());
        let received = bytes.len();
        bare.swim.handle_packet(bare.now, from, &mut bytes).unwrap();
        let sent = bare.sent();
        assert!(sent.iter().all(|sent| sent.to == from || sent.frame(ACK).is_none()), "{sent:?}");
        assert!(sent.iter().all(|sent| sent.to != addr(66)));
        let answers = sent.iter().filter(|sent| sent.to == from);
        let answered: usize = answers.map(|sent| sent.bytes.len()).sum();
        assert!(answered > 0 && answered <= received, "{answered} for {received}");
    }
}

/// An accusation at a higher number that changed nothing visible was forgotten, and an older word of the member itself,
/// which came late, brought it back from the dead.
#[test]
fn al8n_197_stale_alive() {
    let mut bare = Bare::among(Config::lan(), 1..6);
    bare.answering = (2..6).collect();
    bare.tell(1, &frame(UPDATES, &alive(1, 1, 3)));
    bare.run(40 * SECOND);
    assert_eq!(state(&bare, 1), State::Dead);
    bare.events();
    for incarnation in [10, 4, 3] {
        bare.tell(2, &frame(UPDATES, &accused(DEAD, 1, incarnation, &[2, 3])));
    }
    for incarnation in 0..=3 {
        bare.tell(3, &frame(UPDATES, &alive(1, 1, incarnation)));
        bare.tell(1, &frame(UPDATES, &alive(1, 1, incarnation)));
        assert_eq!(state(&bare, 1), State::Dead);
    }
    assert_eq!(bare.events(), []);
    // What others say beyond what is known may be true; who is gone does not stay.
    bare.tell(3, &frame(UPDATES, &alive(1, 1, 4)));
    bare.run(40 * SECOND);
    assert_eq!(state(&bare, 1), State::Dead);
}

/// Two that left at once were told of for ever: each word of one was taken for news of the other.
#[test]
fn serf_606_leave_echo() {
    let mut net = Net::cluster(606, NodeConfig::local(), 12);
    net.run(10 * SECOND);
    for place in [4, 7] {
        net.with(place, |node, now| node.leave(now));
    }
    net.run(3 * SECOND);
    net.crash(4);
    net.crash(7);
    for place in net.up() {
        let left = |event: &&Event| matches!(event, Event::Left { .. });
        assert_eq!(net.events[place].iter().filter(left).count(), 2, "at {place}");
    }
    net.run(20 * SECOND);
    net.tap = Some(Vec::new());
    net.run(20 * SECOND);
    let sent = net.tap.take().unwrap();
    let told = sent.iter().filter(|(_, _, bytes)| frame_of(bytes, UPDATES).is_some()).count();
    assert!(sent.len() > 1_000 && told == 0, "{told} of {} datagrams", sent.len());
}

/// A dead node that one had not heard of came back to those who had forgotten it, and so on, for ever.
#[test]
fn piko_314_ghosts() {
    let mut config = NodeConfig::local();
    config.swim.tombstone_age = 10 * SECOND;
    for seed in 0..8 {
        let mut net = Net::cluster(seed, config.clone(), 8);
        let ghost = net.node(3).id();
        // One is stopped while another dies, and all others forget both.
        let stopped = net.nodes[7].take();
        net.crash(3);
        net.run(60 * SECOND);
        let listed = |net: &Net| {
            net.up()
                .iter()
                .filter(|place| net.node(**place).members().any(|m| m.id() == ghost))
                .count()
        };
        assert_eq!(listed(&net), 0);
        net.nodes[7] = stopped;
        net.events.iter_mut().for_each(Vec::clear);
        assert!(net.run_until(60 * SECOND, |net| net.differences(&[]).is_empty()), "seed {seed}");
        assert_eq!(listed(&net), 0);
        let back =
            |event: &Event| matches!(event, Event::Joined { identity } if identity.id() == ghost);
        assert!(!net.events.iter().flatten().any(back), "seed {seed}");
        // Suspicions of the one that was stopped are over by then.
        net.run(20 * SECOND);
        net.events.iter_mut().for_each(Vec::clear);
        net.run(60 * SECOND);
        assert!(net.events.iter().flatten().next().is_none(), "{:?}", net.events);
    }
}

/// A node that was started anew was listed twice, as its old generation and the new one.
#[test]
fn chitchat_94_generation() {
    let mut bare = Bare::among(Config::lan(), 1..=3);
    bare.answering = (1..=3).collect();
    bare.run(SECOND);
    bare.meet_as(1, &alive(1, 2, 0));
    bare.events();
    // What was said of the old one, and by it, arrives after all.
    let late = [
        alive(1, 1, 5),
        accused(DEAD, 1, 5, &[2, 3]),
        [&left(1)[..], &alive(1, 1, 6)].concat(),
        alive_at(1, 1, 7, 9, 9),
    ];
    for rows in &late {
        bare.tell(2, &frame(UPDATES, rows));
        bare.tell_as(1, 1, addr(1), &frame(UPDATES, rows));
    }
    let members = bare.swim.members().chain(bare.swim.former_members());
    let of_it: Vec<_> = members.filter(|member| member.id() == id(1)).collect();
    assert_eq!(of_it.len(), 1);
    assert_eq!((of_it[0].identity().boot_epoch(), of_it[0].state()), (2, State::Alive));
    assert_eq!((of_it[0].incarnation(), of_it[0].addr()), (0, addr(1)));
    assert!(bare.events().is_empty());
}

/// What was told late of a dead node that all had forgotten brought it back, and one told the other of it for ever.
#[test]
fn chitchat_155_dead_escape() {
    let mut config = NodeConfig::local();
    config.swim.tombstone_age = 10 * SECOND;
    for seed in 0..4 {
        let mut net = Net::new(seed, config.clone());
        net.tap = Some(Vec::new());
        (0..8).for_each(|place| net.start(place, &[0]));
        net.run(20 * SECOND);
        let ghost = net.node(3).id();
        let told = net.tap.take().unwrap();
        net.crash(3);
        net.run(60 * SECOND);
        let known = |net: &Net| {
            net.up().iter().filter(|place| net.node(**place).member(ghost).is_some()).count()
        };
        assert_eq!(known(&net), 0, "all have forgotten it");
        net.events.iter_mut().for_each(Vec::clear);
        for (from, to, mut bytes) in told {
            let place = (0..8).find(|place| *place != 3 && addr(*place) == to);
            if let Some(place) = place.filter(|_| from != 3 && frame_of(&bytes, UPDATES).is_some())
            {
                net.with(place, |node, now| {
                    node.handle_packet(now, addr(from), &mut bytes).unwrap();
                });
            }
        }
        assert!(known(&net) > 0, "seed {seed}");
        net.run(60 * SECOND);
        assert_eq!(known(&net), 0, "seed {seed}");
        net.events.iter_mut().for_each(Vec::clear);
        net.run(300 * SECOND);
        assert!(net.events.iter().flatten().next().is_none(), "{:?}", net.events);
    }
}

/// With over 500 nodes the digest of them did not fit a datagram any more, and nothing was told.
#[test]
fn quickwit_6653_digest_overflow() {
    let node = |place: usize| {
        let identity = Identity::new(name(place), addr(place)).with_boot_epoch(1);
        let entropy = [u8::try_from(place).unwrap(); 32];
        Swim::new(Instant::ZERO, identity, "test", Config::lan(), MIN_DATAGRAM, entropy).unwrap()
    };
    let (mut nodes, mut now) = ([node(0), node(1)], Instant::ZERO);
    // Each has met nine hundred that the other has not.
    for place in 2..1_802 {
        introduce_to(&mut nodes[place % 2], now, place, &alive(place, 1, 0));
    }
    // Nobody is there but these two, so the others come to be held dead.
    let listed = |nodes: &[Swim; 2]| {
        [0, 1].map(|at| nodes[at].members().chain(nodes[at].former_members()).count())
    };
    assert_eq!(listed(&nodes), [901; 2]);
    nodes[1].join(now, &[addr(0)]);
    let (mut buf, end) = ([0; 1_400], now + 20 * SECOND);
    while now < end && listed(&nodes) != [1_802; 2] {
        for from in [0, 1] {
            while let Some(sent) = nodes[from].poll_transmit(&mut buf) {
                let (to, len) = (sent.to, sent.payload.len());
                assert!(len <= MIN_DATAGRAM);
                if to == addr(1 - from) {
                    nodes[1 - from].handle_packet(now, addr(from), &mut buf[..len]).unwrap();
                }
            }
        }
        now += millis(10);
        nodes.iter_mut().for_each(|node| node.handle_timeout(now));
    }
    assert_eq!(listed(&nodes), [1_802; 2]);
}

/// A small question under another's address made the answer to it 34 times as large.
#[test]
fn solana_991106_34x() {
    let mut net = Net::new(34, NodeConfig::local());
    net.tap = Some(Vec::new());
    (0..6).for_each(|place| net.start(place, &[0]));
    for key in 0..300_u32 {
        net.with(0, |node, now| node.insert(now, &key.to_le_bytes(), &[7; 64]).unwrap());
    }
    net.run(5 * SECOND);
    net.start(6, &[0]);
    net.run(5 * SECOND);
    // All that was said, from others' addresses, under names that are not members'.
    let said = net.tap.take().unwrap();
    assert!(said.len() > 500);
    for (at, (_, _, bytes)) in said.into_iter().enumerate() {
        let mut forged = bytes[..bytes.len() - 4].to_vec();
        forged[8..16].copy_from_slice(&(1_000 + at as u64).to_le_bytes());
        let (received, victim) = (forged.len() + 4, addr(100 + at % 1_000));
        net.tap = Some(Vec::new());
        let mut forged = seal(forged);
        net.with(0, |node, now| node.handle_packet(now, victim, &mut forged)).unwrap().unwrap();
        let answers = net.tap.take().unwrap().into_iter().filter(|(_, to, _)| *to == victim);
        let answered: usize = answers.map(|(_, _, bytes)| bytes.len()).sum();
        assert!(answered <= 3 * received, "{answered} for {received}");
    }
}

/// Boots are numbered by the clock, and who had been up for a year took the next boot of others for nonsense.
#[test]
fn scylla_year_uptime() {
    for years in [1, 2, 20, 60] {
        let mut bare = Bare::new(Config::lan());
        (1..4).for_each(|place| bare.meet(place));
        bare.answering = (1..4).collect();
        bare.run(SECOND);
        let age = YEAR * years;
        let boot = 1 + u64::try_from(age.as_nanos()).unwrap();
        // As if nothing had been due meanwhile: a node that sleeps.
        bare.now += age;
        bare.swim.handle_timeout(bare.now);
        bare.answering.clear();
        bare.events();
        bare.meet_as(1, &alive(1, boot, 0));
        // So far ahead it is asked itself.
        bare.sent();
        bare.tell(3, &frame(UPDATES, &alive(2, boot, 0)));
        let asked = bare.next(|sent| sent.is(PING, 2));
        bare.tell_as(2, boot, addr(2), &ack(asked.seq(PING)));
        for place in [1, 2] {
            let member = bare.swim.member(id(place)).unwrap();
            assert_eq!((member.state(), member.identity().boot_epoch()), (State::Alive, boot));
        }
    }
}

/// Whoever started waited to learn the least version in the cluster from all, and all waited for it.
#[test]
fn cassandra_21132_version_deadlock() {
    let mut bare = Bare::new(Config::lan());
    bare.swim.join(bare.now, &[addr(1), addr(2)]);
    assert_eq!(places(&bare.sent(), JOIN), [1, 2]);
    let answer = |place| {
        let cookie = frame(COOKIE, &7_u64.to_le_bytes());
        // From a later minor version: frames that may be skipped, before and after.
        let later = frame(0xff, b"what is to come");
        packet("test", id(place), 1, &[later.clone(), cookie, later].concat())
    };
    let mut other = answer(1)[..].to_vec();
    other.truncate(other.len() - 4);
    other[1] = 2;
    let refused = bare.swim.handle_packet(bare.now, addr(1), &mut seal(other));
    assert_eq!(refused, Err(PacketError::UnsupportedVersion));
    bare.swim.handle_packet(bare.now, addr(2), &mut answer(2)).unwrap();
    let again = bare.next(|sent| sent.is(JOIN, 2));
    assert_eq!(again.frame(JOIN).unwrap()[..8], 7_u64.to_le_bytes());
    bare.tell(2, &frame(UPDATES, &[alive(2, 1, 0), alive(3, 1, 0)].concat()));
    assert_eq!(bare.swim.len(), 3);
}

/// A node that is stopped again and again, by a hypervisor or by its own load, finds its probes late and blames others.
/// Lifeguard's subject; here the datagrams that came meanwhile are handed in before the timers, or behind them.
#[test]
fn lifeguard_slow_observer() {
    for timers_first in [false, true] {
        let mut bare = Bare::among(Config::lan(), 1..32);
        let start = bare.now;
        let (mut acks, mut late): (Vec<(Instant, usize, u64)>, u32) = (Vec::new(), 0);
        while bare.now < start + Duration::from_secs(1_200) {
            let arrives = acks.iter().map(|(at, _, _)| *at);
            let due = bare.swim.poll_timeout().into_iter().chain(arrives).min().unwrap();
            // Of each five seconds it sleeps through the last four.
            let (round, into) =
                ((due - start).as_millis() / 5_000, (due - start).as_millis() % 5_000);
            let awake = u64::try_from((round + 1) * 5_000).unwrap();
            let wakes = if into < 1_000 { due } else { start + millis(awake) };
            late += u32::from(wakes > due);
            bare.now = bare.now.max(wakes);
            if timers_first {
                bare.swim.handle_timeout(bare.now);
            }
            let now = bare.now;
            let (come, rest) = acks.into_iter().partition(|(at, _, _)| *at <= now);
            acks = rest;
            for (_, place, seq) in come {
                bare.tell(place, &ack(seq));
            }
            bare.swim.handle_timeout(bare.now);
            for sent in bare.sent().iter().filter(|sent| sent.frame(PING).is_some()) {
                acks.push((now + millis(1), usize::from(sent.to.port()) - 1000, sent.seq(PING)));
            }
        }
        let blamed =
            bare.events().into_iter().filter(|event| !matches!(event, Event::Joined { .. }));
        assert_eq!(blamed.collect::<Vec<_>>(), [], "timers first: {timers_first}");
        assert!(late > 200, "{late} wakes were late");
    }
}

/// All but one of these have to agree on it, and to do without it for as long as others would hold it out.
fn agree_on_a_faulty_one(seed: u64, fault: &dyn Fn(&mut Sim, usize, bool), turn: Duration) {
    const NODES: usize = 24;
    let (config, faulty) = (NodeConfig::local(), NODES - 1);
    let interval = config.swim.probe_interval;
    let mut sim = Sim::new(seed, config.clone());
    (0..NODES).for_each(|place| sim.start(place, &[0]));
    assert!(sim.run_until(10 * SECOND, |sim| sim.differences().is_empty()));
    sim.run(5 * SECOND);
    (0..NODES).for_each(|place| drop(sim.events(place)));
    let began = sim.now();
    let mut changes = vec![Vec::new(); NODES];
    let mut bad = false;
    while sim.now() - began < config.swim.hold_out {
        bad = !bad;
        fault(&mut sim, faulty, bad);
        let end = sim.now() + turn;
        while sim.now() < end {
            sim.run(interval);
            for (place, changes) in changes.iter_mut().enumerate().take(faulty) {
                let (at, told) = (sim.now() - began, sim.events(place));
                for event in told {
                    if let Event::Failed { id } = event {
                        changes.push((at, id, false));
                    } else if let Event::Joined { identity } = event {
                        changes.push((at, identity.id(), true));
                    }
                }
            }
        }
    }
    for (place, changes) in changes.iter().enumerate().take(faulty) {
        let [(at, id, false)] = changes[..] else { panic!("seed {seed}: at {place}: {changes:?}") };
        assert!(
            id == sim.id(faulty) && at <= 45 * interval,
            "seed {seed}: at {place}: {changes:?}"
        );
    }
    if bad {
        fault(&mut sim, faulty, false);
    }
    let all = sim.run_until(2 * config.swim.hold_out, |sim| sim.differences().is_empty());
    assert!(all, "seed {seed}: it does not come back");
}

/// Four of five datagrams that some nodes send, or are sent, are lost: probes went well and badly, all views changed for as long as
/// it lasted, and well nodes were taken for dead.
#[test]
fn rapid_one_way_loss() {
    for seed in 0..4 {
        let outward = seed % 2 == 0;
        let faults = std::cell::Cell::new(None);
        let fault = |sim: &mut Sim, place: usize, bad: bool| {
            let (one, others) = (Nodes::one(place), Nodes::one(place).others());
            let links =
                if outward { Links::one_way(one, others) } else { Links::one_way(others, one) };
            match faults.take() {
                Some(fault) => sim.end(fault),
                None if bad => {
                    faults.set(Some(sim.begin(Fault::Link(links, Condition::Loss(800)))));
                }
                None => {}
            }
        };
        agree_on_a_faulty_one(seed, &fault, NodeConfig::local().swim.hold_out);
    }
}

/// Some nodes hear nothing for twenty seconds, and all for twenty: they were dead and alive by turns.
#[test]
fn rapid_flip_flop() {
    for seed in 0..4 {
        let faults = std::cell::Cell::new(None);
        let fault = |sim: &mut Sim, place: usize, bad: bool| {
            let links = Links::one_way(Nodes::one(place).others(), Nodes::one(place));
            if let Some(fault) = faults.take() {
                sim.end(fault);
            }
            if bad {
                faults.set(Some(sim.begin(Fault::Link(links, Condition::Cut))));
            }
        };
        agree_on_a_faulty_one(seed, &fault, 20 * NodeConfig::local().swim.probe_interval);
    }
}
