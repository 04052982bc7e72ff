//! What is wrong in membership libraries that are in use, one test each.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::time::Duration;

use brickwork_core::swim::{Config, State, Swim};
use brickwork_core::{ConfigError, Event, Identity, Instant, PacketError};
use proptest::prelude::*;

use crate::common::bare::{
    ACK, Bare, DEAD, PING, SUSPECT, TABLE_DIGEST, UPDATES, accused, alive, frame, id, join, left,
    millis, packet, places, varint,
};
use crate::common::{addr, name};
use crate::counted::most_bytes;

const SECOND: Duration = Duration::from_secs(1);

fn state(bare: &Bare, place: usize) -> State {
    bare.swim.member(id(place)).unwrap().state()
}

fn about(events: &[Event], place: usize) -> Vec<&'static str> {
    let kinds = events.iter().filter_map(|event| match event {
        Event::Suspected { id: of, .. } if *of == id(place) => Some("suspected"),
        Event::Recovered { id: of } if *of == id(place) => Some("recovered"),
        Event::Failed { id: of } if *of == id(place) => Some("failed"),
        Event::Left { id: of } if *of == id(place) => Some("left"),
        _ => None,
    });
    kinds.collect()
}

fn ping(seq: u64) -> Vec<u8> {
    frame(PING, &[varint(seq), id(0).0.to_le_bytes().to_vec()].concat())
}

/// A member that took the place of one that was removed was looked up where it had been before.
#[test]
fn stale_index_after_swap_remove() {
    let mut config = Config::lan();
    config.tombstone_age = SECOND;
    let mut bare = Bare::among(config, 1..40);
    let mut live: Vec<usize> = (1..40).collect();
    for round in 0..39 {
        bare.answering.clone_from(&live);
        let gone = live.swap_remove(round * 7 % live.len());
        bare.tell(gone, &frame(UPDATES, &left(gone)));
        bare.run(3 * SECOND);
        assert!(bare.swim.member(id(gone)).is_none(), "it is forgotten");
        for place in &live {
            let member = bare.swim.member(id(*place)).unwrap();
            assert_eq!((member.id(), member.addr()), (id(*place), addr(*place)));
        }
        assert_eq!(bare.swim.members().count(), live.len() + 1);
    }
}

/// To remove many members took the square of their number: seven seconds for 5,000 of 100,000. By that this would take
/// a quarter of an hour; the time of 5,000 is row P4 of the benchmarks.
#[test]
fn quadratic_bulk_removal() {
    const ALL: usize = 60_000;
    let mut config = Config::lan();
    (config.max_members, config.max_events) = (ALL + 2, 4 * ALL);
    config.tombstone_age = SECOND;
    let mut bare = Bare::new(config);
    let place = |at: usize| 1 + at;
    for first in (0..ALL).step_by(10) {
        let rows: Vec<u8> = (first..first + 10).flat_map(|at| alive(place(at), 1, 0)).collect();
        if first == 0 {
            bare.meet(1);
        }
        bare.tell(1, &frame(UPDATES, &rows));
    }
    assert_eq!(bare.swim.len(), ALL + 1);
    for at in 1..ALL {
        bare.tell(1, &frame(UPDATES, &left(place(at))));
    }
    assert_eq!(bare.swim.len(), 2);
    bare.now += 2 * SECOND;
    bare.swim.handle_timeout(bare.now);
    assert_eq!(bare.swim.former_members().count(), 0);
}

/// When the last peer was gone no timer was set any more, and the node stayed alone for ever.
#[test]
fn timers_that_die_with_the_last_peer() {
    let mut bare = Bare::among(Config::lan(), [1]);
    bare.run(60 * SECOND);
    assert_eq!((state(&bare, 1), bare.swim.len()), (State::Dead, 1));
    for _ in 0..10 {
        assert!(places(&bare.run(60 * SECOND), PING).contains(&1), "it is looked for");
    }
    bare.tell(1, &frame(UPDATES, &alive(1, 1, 1)));
    assert_eq!(state(&bare, 1), State::Alive);
    assert!(places(&bare.run(3 * SECOND), PING).contains(&1), "it is watched");
}

/// Only who had failed to reach a member waited for its end; if that one died as well nobody ever held it dead.
#[test]
fn only_the_accuser_arms_the_suspicion() {
    let mut bare = Bare::among(Config::lan(), 1..20);
    bare.answering = (3..20).collect();
    let told = [3, 4, 5].map(|place| accused(SUSPECT, 1, 0, &[2, place]));
    for (place, row) in [3, 4, 5].into_iter().zip(&told) {
        bare.tell(place, &frame(UPDATES, row));
    }
    // This node itself has never asked who is accused, nor who accuses it, until its verdict is due.
    let why = |bare: &Bare| bare.swim.why(id(1)).unwrap();
    assert!(!why(&bare).own_probe && why(&bare).due.is_some());
    while state(&bare, 1) == State::Suspect && !why(&bare).own_probe {
        bare.run(SECOND / 100);
    }
    assert_eq!(state(&bare, 1), State::Dead);
    assert!(!why(&bare).own_probe, "by the word of others");
    bare.run(60 * SECOND);
    assert_eq!(state(&bare, 2), State::Dead, "who accused it died as well");
}

/// News rode on pings and never on what answers them, which is half of all datagrams.
#[test]
fn acks_without_piggyback() {
    let mut bare = Bare::among(Config::lan(), 1..4);
    bare.run(SECOND / 2);
    bare.sent();
    bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 3, 0, &[2])));
    bare.sent();
    bare.tell(1, &ping(9));
    let sent = bare.sent();
    let answer = sent.iter().find(|sent| sent.is(ACK, 1)).unwrap();
    assert!(answer.frame(UPDATES).is_some(), "{answer:?}");
}

/// By default a probe waited longer than until the next one, which took its place.
#[test]
fn default_timeout_larger_than_the_interval() {
    for config in [Config::lan(), Config::local(), Config::memberlist_lan(), Config::default()] {
        assert!(config.probe_timeout < config.probe_interval);
        for timeout in [config.probe_interval, config.probe_interval * 2] {
            let mut config = config.clone();
            config.probe_timeout = timeout;
            let me = Identity::new(name(0), addr(0));
            let refused = Swim::new(Instant::ZERO, me, "test", config, 1400, [7; 32]);
            assert!(matches!(refused, Err(ConfigError::Refused(_))));
        }
    }
}

/// Nobody else was probed while one host did not answer.
#[test]
fn one_blocked_host_stalls_all_probing() {
    let mut bare = Bare::among(Config::lan(), 1..11);
    bare.answering = (2..11).collect();
    let mut probes = BTreeMap::new();
    for incarnation in 1..=30 {
        for sent in bare.run(10 * SECOND).iter().filter(|sent| sent.frame(PING).is_some()) {
            *probes.entry(sent.to).or_insert(0) += 1;
        }
        // It is there after all, for a moment.
        bare.tell(1, &frame(UPDATES, &alive(1, 1, incarnation)));
    }
    assert!((2..11).all(|place| probes[&addr(place)] >= 20), "{probes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A datagram of 73 bytes that no correct sender makes ended the program, by an assertion.
    #[test]
    fn assert_on_wire_data(body in proptest::collection::vec(any::<u8>(), 45..=45), known in any::<bool>()) {
        let mut bare = Bare::among(Config::lan(), 1..4);
        let sender = if known { id(1) } else { id(9) };
        let mut bytes = packet("test", sender, 1, &body);
        prop_assert_eq!(bytes.len(), 73);
        let _ = bare.swim.handle_packet(bare.now, addr(1), &mut bytes);
        bare.run(SECOND);
        prop_assert!(bare.swim.len() <= 5);
    }
}

/// 65 kilobytes were unpacked to 183 megabytes. Nothing is packed here, and no datagram, of whatever length, takes more room
/// than some times its own.
#[test]
fn decompression_without_a_total_bound() {
    let row = accused(SUSPECT, 1, 0, &[2; 17]);
    let rows: Vec<u8> = (0..65_000 / row.len()).flat_map(|_| row.clone()).collect();
    let members: Vec<u8> = (10..1_000).flat_map(|place| alive(place, 1, 0)).collect();
    for body in [rows, members, vec![0xff; 65_000], vec![0; 65_000]] {
        for tag in [UPDATES, 0x0f, 0x10, 0x11, 0x12, TABLE_DIGEST] {
            let mut bare = Bare::among(Config::lan(), 1..4);
            let most = most_bytes(|| {
                let body = &body[..body.len().min(65_400)];
                let mut bytes = packet("test", id(1), 1, &frame(tag, body));
                let _ = bare.swim.handle_packet(bare.now, addr(1), &mut bytes);
            });
            assert!(most < 16 * 65_536, "{most} bytes by {tag:#x}");
        }
    }
}

/// The name of the cluster was looked at in some kinds of messages, and others went through.
#[test]
fn cluster_id_checked_on_some_message_kinds_only() {
    let mut bare = Bare::among(Config::lan(), 1..4);
    bare.sent();
    let news = frame(UPDATES, &[accused(SUSPECT, 2, 0, &[1]), alive(9, 1, 0)].concat());
    let mut bodies: Vec<Vec<u8>> = (0..=0xff).map(|tag| frame(tag, &[1; 8])).collect();
    bodies.extend([ping(1), news.clone(), join(0, 9, 1, 1009), Vec::new()]);
    for frames in bodies {
        let mut bytes = packet("other", id(1), 1, &frames);
        let refused = bare.swim.handle_packet(bare.now, addr(1), &mut bytes);
        assert_eq!(refused, Err(PacketError::WrongCluster));
    }
    assert!(bare.sent().is_empty() && bare.swim.len() == 4);
    bare.tell(1, &news);
    assert_eq!(bare.swim.len(), 5);
}

/// Who left and who failed were told by the same event.
#[test]
fn leave_and_failure_in_one_event() {
    let mut bare = Bare::among(Config::lan(), 1..8);
    bare.answering = (3..8).collect();
    bare.events();
    bare.tell(1, &frame(UPDATES, &left(1)));
    bare.run(60 * SECOND);
    let events = bare.events();
    assert_eq!((about(&events, 1), about(&events, 2)), (vec!["left"], vec!["suspected", "failed"]));
}

/// Anybody could say of a member that it leaves.
#[test]
fn leave_forged_by_a_third_party() {
    let mut bare = Bare::among(Config::lan(), 1..8);
    bare.answering = (1..8).collect();
    bare.events();
    let mut forged = left(1);
    let secret = forged.len() - 16;
    forged[secret..].fill(0xee);
    for teller in [2, 1] {
        bare.tell(teller, &frame(UPDATES, &forged));
        assert_eq!(state(&bare, 1), State::Suspect, "no more than an accusation");
    }
    bare.tell(1, &frame(UPDATES, &alive(1, 1, 1)));
    assert_eq!(about(&bare.events(), 1), ["suspected", "recovered"]);
    // Who knows the secret heard it from the leaver.
    bare.tell(2, &frame(UPDATES, &left(1)));
    assert_eq!(about(&bare.events(), 1), ["left"]);
}

/// Among ten, news were told four times where eight were meant: the logarithm was rounded down.
#[test]
fn retransmit_limit_rounded_down() {
    for (members, sends) in [(9, 4), (10, 8), (99, 8), (100, 12)] {
        let mut bare = Bare::among(Config::lan(), 1..members);
        bare.answering = (1..members).collect();
        bare.run(40 * SECOND);
        bare.tell(1, &frame(UPDATES, &alive(2, 1, 1)));
        let sent = bare.run(20 * SECOND);
        let row = alive(2, 1, 1);
        let told = sent
            .iter()
            .flat_map(|sent| sent.frames(UPDATES))
            .filter(|rows| rows.windows(row.len()).any(|part| part == row));
        assert_eq!(told.count(), sends, "of {members}");
    }
}

/// A number of 16 bits was driven to its end by one accusation, and its member could never refute again.
#[test]
fn incarnation_of_16_bits_driven_to_its_end() {
    let mut bare = Bare::among(Config::lan(), 1..4);
    bare.answering = (1..4).collect();
    let me = |bare: &Bare| bare.swim.me().incarnation();
    for accused_at in [u32::from(u16::MAX), u32::MAX / 2, u32::MAX] {
        let before = me(&bare);
        bare.tell(1, &frame(UPDATES, &accused(DEAD, 0, accused_at, &[1])));
        bare.run(SECOND);
        assert!(me(&bare) > before && me(&bare) <= before + 8, "{before} to {}", me(&bare));
    }
    // It goes on, beyond 16 bits.
    for _ in 0..10_000 {
        let before = me(&bare);
        bare.tell(1, &frame(UPDATES, &accused(DEAD, 0, before + 7, &[1])));
        bare.run(millis(60));
        assert!(me(&bare) > before);
    }
    assert!(me(&bare) > u32::from(u16::MAX));
}

/// A member whose identity did not fit a datagram was accepted, never told of, and then suspected.
#[test]
fn over_mtu_member_turned_into_a_suspicion() {
    let now = Instant::ZERO;
    let long = |meta| Identity::new("n".repeat(64), addr(0)).with_meta(vec![7; meta]);
    let make = |meta, mtu| Swim::new(now, long(meta), "test", Config::lan(), mtu, [7; 32]);
    // What is accepted fits the smallest datagram that is.
    let smallest = (1..1_400).find(|mtu| make(0, *mtu).is_ok()).unwrap();
    let most = (0..2_000).rev().find(|meta| make(*meta, smallest).is_ok()).unwrap();
    assert!(matches!(make(most + 1, smallest), Err(ConfigError::TooLong { .. })));
    let mut swim = make(most, smallest).unwrap();
    swim.join(now, &[addr(1)]);
    let mut buf = vec![0; smallest];
    let sent = swim.poll_transmit(&mut buf).unwrap();
    let told = sent.payload.windows(most).any(|part| part == vec![7; most]);
    assert!(told && most > 0, "the join carries all of {most} bytes");
    assert!(matches!(swim.set_meta(now, vec![7; most + 1]), Err(ConfigError::TooLong { .. })));
}
