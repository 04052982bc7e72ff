//! Goal: the network does to any program what its faults say.
//! Method: two programs that send bytes and note what they are given.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::sim::{
    Condition, Damage, Delay, Expect, Fault, Happening, Input, Links, Network, Nodes, Sim, Trouble,
};
use brickwork_core::{Config, Instant};

const MS: Duration = Duration::from_millis(1);

/// Two places, a millisecond apart.
fn network() -> Network {
    let mut net = Network::with_delay(1, Delay::Constant(MS));
    assert_eq!(net.bind(([10, 0, 0, 1], 1).into()), 0);
    assert_eq!(net.bind(([10, 0, 0, 2], 1).into()), 1);
    net
}

fn send(net: &mut Network, from: usize, bytes: &[u8]) {
    let to = net.addr(1 - from);
    net.send(from, to, bytes);
}

/// All inputs of a second, as (place, milliseconds on the clock there, byte sent or what else).
fn second(net: &mut Network) -> Vec<(usize, u128, String)> {
    let end = net.now() + 1_000 * MS;
    let mut inputs = Vec::new();
    while let Some(Input { place, now, what, .. }) = net.next(end) {
        let what = match what {
            Happening::Datagram { bytes, .. } => format!("{bytes:?}"),
            other => {
                net.arm(place, None);
                format!("{other:?}")
            }
        };
        inputs.push((place, (now - Instant::ZERO).as_millis(), what));
    }
    assert_eq!(net.now(), end, "time has passed");
    inputs
}

fn list(inputs: &[(usize, u128, &str)]) -> Vec<(usize, u128, String)> {
    inputs.iter().map(|&(place, ms, what)| (place, ms, what.into())).collect()
}

#[test]
fn datagrams_and_timers_come_when_they_are_due() {
    let mut net = network();
    send(&mut net, 0, &[7]);
    net.arm(1, Some(Instant::ZERO + 5 * MS));
    net.arm(0, Some(Instant::ZERO + 9 * MS));
    net.arm(0, Some(Instant::ZERO + 3 * MS));
    assert_eq!(second(&mut net), list(&[(1, 1, "[7]"), (0, 3, "Timer"), (1, 5, "Timer")]));
    net.send(0, ([10, 9, 9, 9], 1).into(), &[7]);
    assert_eq!(second(&mut net), []);
    assert_eq!((net.traffic().delivered, net.traffic().nowhere), (1, 1));
}

#[test]
fn a_paused_program_takes_what_arrived_before_its_timer() {
    let mut net = network();
    net.arm(1, Some(Instant::ZERO + 5 * MS));
    let pause = net.begin(Fault::Node(Nodes::one(1), Trouble::Pause));
    let room = net.begin(Fault::Node(Nodes::one(1), Trouble::Inbox(2)));
    for byte in 0..3 {
        send(&mut net, 0, &[byte]);
    }
    assert!(net.is_paused(1));
    assert_eq!(second(&mut net), []);
    net.end(pause);
    net.end(room);
    assert_eq!(
        second(&mut net),
        list(&[(1, 1_000, "[0]"), (1, 1_000, "[1]"), (1, 1_000, "Timer")])
    );
    assert_eq!(net.traffic().overflowed, 1);
}

#[test]
fn a_slow_program_is_given_one_thing_at_a_time() {
    let mut net = network();
    net.begin(Fault::Node(Nodes::one(1), Trouble::Slow(10 * MS)));
    net.arm(1, Some(Instant::ZERO + 2 * MS));
    for byte in 0..3 {
        send(&mut net, 0, &[byte]);
    }
    let wanted = [(1, 1, "[0]"), (1, 11, "[1]"), (1, 21, "[2]"), (1, 31, "Timer")];
    assert_eq!(second(&mut net), list(&wanted));
}

#[test]
fn a_blocked_socket_says_when_it_takes_datagrams_again() {
    let mut net = network();
    assert_eq!(net.room(0, 1_400), Some(1_400));
    let blocked = net.begin(Fault::Node(Nodes::one(0), Trouble::Blocked));
    assert_eq!(net.room(0, 1_400), None);
    net.end(blocked);
    net.begin(Fault::Node(Nodes::All, Trouble::ShortBuffer(600)));
    assert_eq!((net.room(0, 1_400), net.room(1, 400)), (Some(600), Some(400)));
    assert_eq!(second(&mut net), list(&[(0, 0, "Writable")]));
}

#[test]
fn a_paused_program_is_told_last_that_its_socket_has_room() {
    let mut net = network();
    let pause = net.begin(Fault::Node(Nodes::one(1), Trouble::Pause));
    let blocked = net.begin(Fault::Node(Nodes::one(1), Trouble::Blocked));
    send(&mut net, 0, &[7]);
    net.end(blocked);
    assert_eq!(second(&mut net), []);
    net.end(pause);
    assert_eq!(second(&mut net), list(&[(1, 1_000, "[7]"), (1, 1_000, "Writable")]));
}

/// A node that stands still does not send because its socket would take datagrams again.
#[test]
fn a_paused_node_sends_nothing() {
    let mut sim = Sim::with_delay(1, Config::local(), Delay::Constant(10 * MS));
    let only = |trouble| Fault::Node(Nodes::one(1), trouble);
    sim.set_meta(1, 0); // the place is there before its node
    let blocked = sim.begin(only(Trouble::Blocked));
    (0..2).for_each(|place| sim.start(place, &[0]));
    let sent = |sim: &mut Sim| {
        let before = sim.traffic().sent;
        sim.run(MS);
        sim.traffic().sent - before
    };
    assert_eq!(sent(&mut sim), 0);
    let pause = sim.begin(only(Trouble::Pause));
    sim.end(blocked);
    assert_eq!(sent(&mut sim), 0, "it stands still");
    sim.end(pause);
    assert_eq!(sent(&mut sim), 1, "it asks to join");
}

#[test]
fn a_small_socket_takes_no_more_than_it_holds() {
    let mut net = network();
    net.begin(Fault::Node(Nodes::one(0), Trouble::SmallOutbox(2)));
    let to = net.addr(1);
    let taken: Vec<bool> = (0..4).map(|byte| net.send(0, to, &[byte])).collect();
    assert_eq!(taken, [true, true, false, false]);
    assert_eq!(net.room(0, 1_400), None);
    let wanted = [(1, 1, "[0]"), (1, 1, "[1]"), (0, 10, "Writable")];
    assert_eq!(second(&mut net), list(&wanted));
    assert!(net.send(0, to, &[4]));
    net.arm(0, None);
    assert!(net.send(0, to, &[5]), "one at a time it is never full");
    assert_eq!(net.traffic().sent, 4, "what the socket refused was not sent");
}

/// Whom the next datagram for `to` seems to come from, and where it arrives.
fn heard(net: &mut Network, from: usize, to: SocketAddr) -> Option<(usize, SocketAddr)> {
    net.send(from, to, &[1]);
    let input = net.next(net.now() + 2 * MS)?;
    match input.what {
        Happening::Datagram { from, .. } => Some((input.place, from)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rebinding_changes_the_source_that_others_see() {
    let mut net = network();
    let (one, other) = (net.addr(0), net.addr(1));
    let hidden =
        net.begin(Fault::Node(Nodes::one(1), Trouble::Rebind { hidden: true, lasting: false }));
    let (place, outside) = heard(&mut net, 1, one).unwrap();
    assert!(place == 0 && outside != other && outside.ip() == other.ip());
    assert_eq!(heard(&mut net, 0, other), None, "its own address leads nowhere");
    assert_eq!(heard(&mut net, 0, outside), Some((1, one)));
    net.end(hidden);
    assert_eq!(heard(&mut net, 1, one), Some((0, other)));
    assert_eq!(heard(&mut net, 0, outside), None);
    let lasting =
        net.begin(Fault::Node(Nodes::one(1), Trouble::Rebind { hidden: false, lasting: true }));
    let (_, later) = heard(&mut net, 1, one).unwrap();
    assert!(later != outside && later != other, "each time another");
    net.end(lasting);
    assert_eq!(heard(&mut net, 1, one), Some((0, later)), "for ever");
    assert_eq!(heard(&mut net, 0, other), Some((1, one)), "and the address leads there as well");
}

#[test]
fn what_was_recorded_arrives_again_also_under_false_sources() {
    let mut net = network();
    net.record();
    send(&mut net, 0, &[9]);
    assert_eq!(second(&mut net).len(), 1);
    net.close(1);
    net.open(1);
    let replay = net.begin(Fault::Node(Nodes::one(1), Trouble::Replay(10)));
    let again = second(&mut net);
    assert!((10..=11).contains(&again.len()), "{again:?}");
    assert!(again.iter().all(|(place, _, what)| *place == 1 && what == "[9]"));
    assert!(net.met()["replayed across a restart"] >= 10);
    net.end(replay);
    net.begin(Fault::Node(Nodes::one(0), Trouble::Spoof(100)));
    let (places, end) = ([net.addr(0), net.addr(1)], net.now() + 1_000 * MS);
    let (mut of_places, mut of_strangers) = (0_u64, 0_u64);
    while let Some(input) = net.next(end) {
        let Happening::Datagram { from, bytes, expect } = input.what else { panic!("no timer") };
        assert_eq!((input.place, bytes, expect), (0, vec![9], Expect::Whole));
        if places.contains(&from) {
            of_places += 1;
        } else {
            of_strangers += 1;
            // A program that answers whoever asks is seen to do so.
            net.send(0, from, &[0; 3]);
        }
    }
    assert!(of_places > 10 && of_strangers > 10, "{of_places} and {of_strangers}");
    let exchanges = net.strangers().values();
    let sums = exchanges.fold((0, 0), |sum, one| (sum.0 + one.received, sum.1 + one.sent));
    assert_eq!(sums, (of_strangers, 3 * of_strangers));
}

#[test]
fn clocks_deviate_and_timers_follow_them() {
    let mut net = network();
    let fast = net.begin(Fault::Node(Nodes::one(1), Trouble::ClockRate(100_000)));
    let due = Instant::ZERO + 550 * MS;
    (0..2).for_each(|place| net.arm(place, Some(due)));
    assert_eq!(net.next(due).map(|input| input.place), Some(1), "the fast one is first");
    assert_eq!(net.now(), Instant::ZERO + 500 * MS);
    net.end(fast);
    net.begin(Fault::Node(Nodes::one(0), Trouble::ClockLeap(3_600_000 * MS)));
    let input = net.next(due).unwrap();
    assert_eq!((input.place, input.what), (0, Happening::Timer));
    assert_eq!(net.now(), Instant::ZERO + 500 * MS, "a leap makes it due at once");
    assert_eq!(net.clock(0) - Instant::ZERO, 3_600_500 * MS);
}

/// Goal: a clock goes wrong for as long as anything says so.
/// Method: two rates that overlap at one place, ended in either order, and how far it went in each second.
#[test]
fn the_end_of_one_rate_leaves_the_other() {
    let seconds = |first_ends_first: bool| {
        let mut net = network();
        let mut passed = Vec::new();
        let mut second = |net: &mut Network| {
            let before = net.clock(0);
            let end = net.now() + 1_000 * MS;
            assert!(net.next(end).is_none());
            passed.push((net.clock(0) - before).as_millis());
        };
        let mut begin = |net: &mut Network, ppm| {
            let number = net.begin(Fault::Node(Nodes::one(0), Trouble::ClockRate(ppm)));
            second(net);
            number
        };
        let (slow, fast) = (begin(&mut net, -100_000), begin(&mut net, 50_000));
        let ends = if first_ends_first { [slow, fast] } else { [fast, slow] };
        for number in ends {
            net.end(number);
            second(&mut net);
        }
        passed
    };
    assert_eq!(seconds(true), [900, 1_050, 1_050, 1_000]);
    assert_eq!(seconds(false), [900, 1_050, 900, 1_000]);
}

#[test]
fn a_program_that_is_gone_is_given_nothing() {
    let mut net = network();
    net.arm(1, Some(Instant::ZERO + 5 * MS));
    send(&mut net, 0, &[1]);
    net.close(1);
    assert_eq!(second(&mut net), []);
    net.open(1);
    assert_eq!(second(&mut net), [], "nor what it was owed in its last life");
    net.move_to(1, ([10, 0, 0, 3], 1).into());
    send(&mut net, 0, &[2]);
    assert_eq!(second(&mut net), list(&[(1, 2_001, "[2]")]));
}

#[test]
fn links_and_floods_do_what_they_say() {
    let mut net = network();
    let cut = net.begin(Fault::Link(Links::around(&Nodes::one(1)), Condition::Cut));
    send(&mut net, 0, &[1]);
    assert_eq!(second(&mut net), []);
    net.end(cut);
    net.begin(Fault::Link(Links::all(), Condition::Clog));
    send(&mut net, 0, &[2]);
    assert_eq!(second(&mut net), []);
    net.calm();
    assert_eq!(second(&mut net), list(&[(1, 2_000, "[2]")]));
    // Damage is told, so that a program under test may refuse it, and nothing else.
    let flip = Condition::Damage { permille: 1_000, how: Damage::Flip };
    net.begin(Fault::Link(Links::all(), flip));
    send(&mut net, 0, &[3; 30]);
    let end = net.now() + 1_000 * MS;
    let Happening::Datagram { expect, bytes, .. } = net.next(end).unwrap().what else {
        panic!("a datagram is due");
    };
    assert_eq!(expect, Expect::Damaged);
    assert!(bytes.len() == 30 && bytes != [3; 30]);
    net.calm();
    net.begin(Fault::Node(Nodes::one(1), Trouble::Flood(100)));
    let noise = second(&mut net);
    assert!((99..=102).contains(&noise.len()), "{} datagrams of noise", noise.len());
}

/// Goal: whatever a program sends can be damaged.
/// Method: all kinds of damage to datagrams that are not the core's, down to the empty one.
#[test]
fn damage_befalls_any_bytes() {
    let kinds = [Damage::Flip, Damage::Cut, Damage::Extend, Damage::Splice, Damage::Lie];
    for how in kinds {
        let mut net = network();
        net.begin(Fault::Link(Links::all(), Condition::Damage { permille: 1_000, how }));
        let payloads = (0..40_u8).map(|len| vec![len; usize::from(len)]);
        for payload in payloads.clone() {
            send(&mut net, 0, &payload);
        }
        let mut arrived = Vec::new();
        while let Some(input) = net.next(Instant::ZERO + 1_000 * MS) {
            let Happening::Datagram { bytes, expect, .. } = input.what else { panic!("no timer") };
            assert_eq!(expect, Expect::Damaged, "{how:?}");
            arrived.push(bytes);
        }
        assert_eq!((arrived.len(), net.traffic().damaged), (40, 40));
        let changed = payloads.zip(&arrived).filter(|(sent, bytes)| sent != *bytes).count();
        assert!(changed > 30, "{how:?} changes {changed} of 40");
    }
}

#[test]
#[should_panic(expected = "cannot bring about: crash")]
fn what_lies_in_the_program_is_left_to_it() {
    network().begin(Fault::Node(Nodes::All, Trouble::Crash));
}
