//! The promises of the core, as properties of whole nodes under hostile use. Promise 4 (no allocation)
//! is in `no_alloc.rs`, promise 5 (determinism) in `determinism.rs`.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::cell::Cell;
use std::time::Duration;

use crate::common::{self, Dice, Net, Weather, addr};
use brickwork_core::sim::{Fault, Nodes, Sim, Trouble};
use brickwork_core::{Config, Event, Identity, Instant, MIN_DATAGRAM, Node, PacketError};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn node(place: usize) -> Node {
    let identity = Identity::new(common::name(place), addr(place));
    Node::new(Instant::ZERO, identity, Config::local(), [7; 32]).unwrap()
}

/// One thing that a careless driver or user does.
#[derive(Debug, Clone)]
enum Step {
    Timeout,
    /// Time passes, up to a day at once.
    Forward(u64),
    /// The clock steps back.
    Back(u64),
    Insert(u8, u8),
    Remove(u8),
    Join(usize),
    Leave,
    /// A datagram of the other node is handed in.
    Packet,
    /// Nothing is collected this time.
    Stall,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Timeout),
        4 => (0..50_000_000_u64).prop_map(Step::Forward),
        1 => (0..86_400_000_000_000_u64).prop_map(Step::Forward),
        1 => (0..10_000_000_000_u64).prop_map(Step::Back),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => (0..4_usize).prop_map(Step::Join),
        8 => Just(Step::Packet),
        2 => Just(Step::Stall),
    ];
    let leave = prop_oneof![9 => Just(None), 1 => Just(Some(Step::Leave))];
    (proptest::collection::vec(step, 0..120), leave).prop_map(|(mut steps, leave)| {
        steps.extend(leave);
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Promises 1 and 2: after a timeout the next one is later, however late, early or repeated the
    /// call and wherever the clock went; asking for the deadline and sending change nothing.
    #[test]
    fn time_always_gets_on_and_sending_moves_no_timer(steps in steps()) {
        let (mut a, mut b) = (node(0), node(1));
        b.join(Instant::ZERO, &[addr(0)]);
        let mut now = Instant::from_nanos(20_000_000_000);
        let mut buf = [0; 1400];
        for step in steps {
            match step {
                Step::Timeout | Step::Stall => {}
                Step::Forward(nanos) => now += Duration::from_nanos(nanos),
                Step::Back(nanos) => now = Instant::from_nanos(now.as_nanos().saturating_sub(nanos)),
                Step::Insert(key, value) => drop(a.insert(now, &[key], &[value]).unwrap()),
                Step::Remove(key) => drop(a.remove(now, &[key]).unwrap()),
                Step::Join(place) => a.join(now, &[addr(place)]),
                Step::Leave => a.leave(now),
                Step::Packet => {
                    if let Some(sent) = b.poll_transmit(&mut buf) {
                        let len = sent.payload.len();
                        a.handle_packet(now, addr(1), &mut buf[..len]).unwrap();
                    }
                }
            }
            for _ in 0..2 {
                a.handle_timeout(now);
                let next = a.poll_timeout();
                prop_assert!(next.is_none_or(|next| next > now), "{:?} at {:?}", next, now);
            }
            b.handle_timeout(now);
            if matches!(step, Step::Stall) {
                continue;
            }
            loop {
                let due = a.poll_timeout();
                let Some(sent) = a.poll_transmit(&mut buf) else { break };
                let (to, len) = (sent.to, sent.payload.len());
                prop_assert_eq!(due, a.poll_timeout(), "sending moved a timer");
                if to == addr(1) {
                    b.handle_packet(now, addr(0), &mut buf[..len]).unwrap();
                }
            }
            let due = a.poll_timeout();
            while a.poll_event().is_some() {}
            prop_assert_eq!(due, a.poll_timeout(), "taking events moved a timer");
        }
    }
}

/// Promise 6: a damaged packet whose checksum was made good again is refused without a trace, or
/// taken without a panic. Both happen.
#[test]
fn a_refused_packet_leaves_no_trace() {
    let config =
        ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let (refused, taken) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(config);
    let outcome =
        runner.run(&(any::<u64>(), damage, any::<prop::sample::Index>()), |(seed, damage, cut)| {
            let mut net = Net::cluster(seed, Config::local(), 3);
            net.tap = Some(Vec::new());
            let mut dice = Dice(seed);
            for step in 0..10_u8 {
                let place = dice.below(3);
                net.with(place, |node, now| node.insert(now, &[step % 4], &[step; 20]))
                    .unwrap()
                    .unwrap();
                net.run(Duration::from_millis(300));
            }
            let recorded = net.tap.take().unwrap();
            let refused_before = net.node(0).stats().refused.total();
            let mut refused_here = 0;
            for (from, to, mut bytes) in recorded {
                if to != addr(0) {
                    continue;
                }
                let frames = 24..bytes.len() - 4;
                for (at, value) in &damage {
                    bytes[24 + at.index(frames.len())] ^= value;
                }
                if cut.index(3) == 0 {
                    bytes.truncate(24 + cut.index(frames.len()));
                    bytes.extend([0; 4]);
                }
                let end = bytes.len() - 4;
                let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
                bytes[end..].copy_from_slice(&crc);
                let state = |net: &Net| {
                    format!("{:?} {:?}", net.node(0).swim(), net.node(0).map().digest())
                };
                let before = state(&net);
                let node = net.nodes[0].as_mut().unwrap();
                match node.handle_packet(net.now, addr(from), &mut bytes) {
                    Err(error) => {
                        prop_assert_ne!(error, PacketError::BadChecksum);
                        refused_here += 1;
                        prop_assert_eq!(&before, &state(&net), "{:?}", error);
                    }
                    Ok(()) => taken.set(taken.get() + 1),
                }
            }
            let counted = net.node(0).stats().refused.total() - refused_before;
            prop_assert_eq!(counted, refused_here, "all are counted");
            refused.set(refused.get() + refused_here);
            Ok(())
        });
    outcome.unwrap();
    assert!(refused.get() > 1_000 && taken.get() > 1_000, "{refused:?} refused, {taken:?} taken");
}

/// Promise 3: a slow consumer loses the oldest events, is told how many, and the views are the truth.
#[test]
fn a_full_event_queue_says_what_is_missing() {
    let mut config = Config::local();
    config.max_events = 10;
    let identity = Identity::new("a", addr(0));
    let mut node = Node::new(Instant::ZERO, identity, config, [7; 32]).unwrap();
    for key in 0..25_u8 {
        node.insert(Instant::ZERO, &[key], b"v").unwrap();
    }
    assert_eq!(node.poll_event(), Some(Event::Missed { events: 15 }));
    let rest: Vec<_> = std::iter::from_fn(|| node.poll_event()).collect();
    assert_eq!(rest.len(), 10);
    assert_eq!(node.iter().count(), 25);
}

/// Promise 3: members beyond the limit are refused and counted, and the others go on.
#[test]
fn a_full_member_table_refuses_newcomers() {
    let mut config = Config::local();
    config.swim.max_members = 4;
    let mut net = Net::new(1, config);
    for place in 0..6 {
        net.start(place, &[0]);
    }
    net.run(Duration::from_secs(10));
    for place in 0..4 {
        assert!(net.node(place).members().count() <= 4);
    }
    assert_eq!(net.node(0).members().count(), 4);
    assert!(net.node(0).stats().swim.members_refused > 0);
}

/// Promise 7: a node that was stopped blames itself and not the others, however long it was away.
#[test]
fn a_stall_is_charged_to_the_one_that_stalled() {
    for away in [1, 5, 60, 3_600] {
        let mut net = Net::cluster(2, Config::lan(), 4);
        let mut stalled = net.nodes[3].take();
        net.run(Duration::from_secs(away));
        let before = net.events[3].len();
        std::mem::swap(&mut net.nodes[3], &mut stalled);
        net.with(3, |node, now| node.handle_timeout(now));
        let accused =
            |event: &Event| matches!(event, Event::Failed { .. } | Event::Suspected { .. });
        assert!(!net.events[3][before..].iter().any(accused), "after {away} s");
    }
}

/// Promise 8: a shorter buffer gives smaller datagrams and the same outcome.
#[test]
fn a_short_buffer_only_makes_smaller_datagrams() {
    let (mut a, mut b) = (node(0), node(1));
    let mut now = Instant::ZERO;
    b.join(now, &[addr(0)]);
    for key in 0..100_u8 {
        a.insert(now, &[key], &[7; 100]).unwrap();
    }
    let mut buf = [0; MIN_DATAGRAM];
    while b.map().len() < 100 {
        let mut quiet = true;
        while let Some(sent) = a.poll_transmit(&mut buf) {
            let len = sent.payload.len();
            b.handle_packet(now, addr(0), &mut buf[..len]).unwrap();
            quiet = false;
        }
        while let Some(sent) = b.poll_transmit(&mut buf) {
            let len = sent.payload.len();
            a.handle_packet(now, addr(1), &mut buf[..len]).unwrap();
            quiet = false;
        }
        if quiet {
            now = a.poll_timeout().into_iter().chain(b.poll_timeout()).min().unwrap();
            assert!(now < Instant::ZERO + Duration::from_secs(60), "{} keys", b.map().len());
            a.handle_timeout(now);
            b.handle_timeout(now);
        }
    }
}

#[test]
#[should_panic(expected = "buffer of 511 bytes")]
fn a_buffer_below_the_minimum_is_a_documented_panic() {
    node(0).poll_transmit(&mut [0; MIN_DATAGRAM - 1]);
}

/// The weather of the common harness is used by other tests; here it must stay calm.
#[test]
fn calm_weather_loses_nothing() {
    let mut net = Net::cluster(3, Config::lan(), 8);
    net.weather = Weather::CALM;
    net.run(Duration::from_secs(60));
    let stats = (0..8).map(|place| net.node(place).stats());
    assert!(stats.into_iter().all(|stats| stats.swim.probes_failed == 0));
}

/// Promise 1, found by a plan that watched who probes whom: timers used to wait until the clock had
/// caught up, so a node whose clock stepped back an hour noticed no failure for an hour.
#[test]
fn a_clock_that_stepped_back_an_hour_delays_no_probe() {
    let mut sim = Sim::new(1, Config::local());
    for place in 0..3 {
        sim.start(place, &[0]);
    }
    assert!(sim.run_until(Duration::from_secs(10), |sim| sim.differences().is_empty()));
    sim.run(Duration::from_secs(7_200));
    let back = Trouble::ClockBack(Duration::from_secs(3_600));
    sim.begin(Fault::Node(Nodes::one(1), back));
    sim.run(Duration::from_secs(1));
    sim.crash(2);
    let noticed = |sim: &Sim| sim.node(1).unwrap().members().count() == 2;
    assert!(sim.run_until(Duration::from_secs(10), noticed));
}
