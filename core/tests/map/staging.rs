//! Full syncs to the letter, on the side that takes, with every peer played by the test.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::bare::{frame, varint};
use crate::common::frame_of;
use crate::common::maps::{NOW, addr, drain};
use crate::common::stages::*;
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Event, NodeId};

const SESSION: u64 = 0x55;

/// A map that has heard from its peer 2 that there is more, and what it asked with.
fn taker(id: u64, config: &Config) -> (Map, u64) {
    let mut map = map(id, config);
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    map.peer_up(NOW, NodeId(3), 1, addr(3));
    drain(&mut map);
    let nonce = hear(&mut map);
    (map, nonce)
}

/// Peer 2 tells a digest that differs. Returns the number of the pull that follows.
fn hear(map: &mut Map) -> u64 {
    tell(map, NOW, 2, &frame(STATE, &[9; 16]));
    Parts(&sent(map, PULL, 2)[0]).varint()
}

/// The unit of the writes of life 1 of a node: all up to the base, and a run after it.
fn context(node: u64, base: u64, run: Option<(u64, u64)>) -> Vec<u8> {
    let mut unit = [&[0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [base, 0, base].into_iter().for_each(|number| unit.extend(varint(number)));
    unit.push(u8::from(run.is_some()));
    if let Some((from, to)) = run {
        unit.extend([varint(from - base - 2), varint(to - from)].concat());
    }
    unit
}

/// The unit of a lone value that life 1 of a node wrote under `key`.
fn lone(node: u64, counter: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| varint(bytes.len() as u64);
    let replica = [&[0, 0, 0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [replica, varint(counter), len(key), key.to_vec(), len(value), value.to_vec()].concat()
}

/// The unit of a key whose values are gone, with the last write of life 1 of a node.
fn removed(node: u64, counter: u64, key: &[u8]) -> Vec<u8> {
    let len = varint(key.len() as u64);
    let head =
        [&[0, 1][..], &len, key, &[0, 1, 0], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [head, varint(counter)].concat()
}

/// Five keys that node 2 wrote, as unit 1 to 5.
fn key(at: u64) -> Vec<u8> {
    lone(2, at, format!("key-{at}").as_bytes(), b"value")
}

const ALL: Head =
    Head { session: SESSION, nonce: 0, contexts: 1, total: 6, first: 0, covered: 1, last: false };

fn part(first: u64, units: &[Vec<u8>], last: bool) -> Vec<u8> {
    let covered = u32::try_from(units.len()).unwrap();
    Head { first, covered, last, ..ALL }.frame(1, &units.concat())
}

/// All of it in one frame.
fn whole(to: u64, nonce: u64, units: &[Vec<u8>]) -> Vec<u8> {
    let (covered, total) = (u32::try_from(units.len()).unwrap(), units.len() as u64);
    Head { nonce, covered, total, last: true, ..ALL }.frame(to, &units.concat())
}

/// Goal: what was lost of a full sync is asked for, and nothing else. Method: frames out of order, twice, and not at
/// all.
#[test]
fn missing_units_are_asked_for() {
    let (mut map, nonce) = taker(1, &Config::lan());
    let head = Head { nonce, ..ALL };
    tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
    for _ in 0..2 {
        tell(&mut map, NOW, 2, &part(3, &[key(3)], false));
    }
    assert_eq!(sent(&mut map, FETCH, 2).len(), 0, "there may be more under way");
    tell(&mut map, NOW, 2, &part(5, &[key(5)], true));
    let fetches = sent(&mut map, FETCH, 2);
    assert_eq!(asked(&fetches[0]), (SESSION, vec![(1, 3), (4, 5)]));
    assert_eq!(map.len(), 0, "all at once, or nothing");
    tell(&mut map, NOW, 2, &part(4, &[key(4)], true));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![(1, 3)]));
    assert_eq!(map.stats().full_syncs, 0);
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2)], true));
    assert_eq!((map.len(), map.stats().full_syncs), (5, 1));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "it is over");
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2)], true));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "as was said before");
}

/// Goal: more is asked for once half of an answer is here, with what was lost a while before; the end of the answer
/// asks for the same again, unless the next one comes already, which is asked ahead for in its turn. Method: answers of
/// units of 5,000 bytes, some of which are lost, with a budget of 20,000.
#[test]
fn more_is_asked_for_while_an_answer_comes() {
    let mut config = Config::lan();
    config.pull_budget = 20_000;
    let (mut map, nonce) = taker(1, &config);
    let unit = |at: u64| lone(2, at, format!("key-{at}").as_bytes(), &[7; 5000]);
    let tell_unit = |map: &mut Map, number: u64, at: u64, last: bool| {
        let head = Head { nonce: number, total: 30, first: at, covered: 1, last, ..ALL };
        let units = if at == 0 { context(2, 40, None) } else { unit(at) };
        tell(map, NOW, 2, &head.frame(1, &units));
        sent(map, FETCH, 2).iter().map(|body| numbered_ask(body)).collect::<Vec<_>>()
    };
    assert_eq!(tell_unit(&mut map, nonce, 0, false), []);
    assert_eq!(tell_unit(&mut map, nonce, 1, false), []);
    // Unit 2 is lost, or late.
    assert_eq!(tell_unit(&mut map, nonce, 3, false), [(1, true, vec![(4, 30)])]);
    assert_eq!(tell_unit(&mut map, nonce, 5, false), [], "once is enough");
    assert_eq!(tell_unit(&mut map, nonce, 6, true), [(1, true, vec![(2, 3), (7, 30)])]);
    assert_eq!(tell_unit(&mut map, 1, 7, false), []);
    assert_eq!(tell_unit(&mut map, 1, 8, false), [(2, true, vec![(2, 3), (9, 30)])]);
    assert_eq!(tell_unit(&mut map, 2, 2, false), [], "the next answer has begun");
    assert_eq!(tell_unit(&mut map, 1, 9, true), [], "so that its question came is known");
    assert_eq!(tell_unit(&mut map, 2, 12, false), [(3, true, vec![(4, 5), (13, 30)])]);
    // An answer that ends without a half of it being here.
    assert_eq!(tell_unit(&mut map, 3, 13, true), [(4, false, vec![(4, 5), (10, 12), (14, 30)])]);
    // The last unit came: what is missing is asked for when that answer is over.
    for at in [14, 29] {
        assert_eq!(tell_unit(&mut map, 4, at, false), []);
    }
    assert_eq!(
        tell_unit(&mut map, 4, 4, true),
        [(5, false, vec![(10, 12), (15, 29)])],
        "whatever is missing"
    );
    assert!(map.is_empty());
    for at in (10..12).chain(15..29) {
        tell_unit(&mut map, 5, at, false);
    }
    assert_eq!(map.len(), 29);
}

/// Goal: a FETCH that asks ahead names units, whatever came: without any the session would be over. Method: frames of a
/// late answer and of the one that was asked for instead, which are cut elsewhere.
#[test]
fn whoever_asks_ahead_asks_for_something() {
    let mut config = Config::lan();
    config.pull_budget = 20_000;
    let (mut map, nonce) = taker(1, &config);
    let unit = |at: u64| lone(2, at, format!("key-{at}").as_bytes(), &[7; 5000]);
    let tell_units = |map: &mut Map, number: u64, first: u64, covered: u32| {
        let head = Head { nonce: number, total: 30, first, covered, ..ALL };
        let units = (first..).take(covered as usize);
        let units = units.map(|at| if at == 0 { context(2, 40, None) } else { unit(at) });
        tell(map, NOW, 2, &head.frame(1, &units.collect::<Vec<_>>().concat()));
        sent(map, FETCH, 2).iter().map(|body| numbered_ask(body)).collect::<Vec<_>>()
    };
    assert_eq!(tell_units(&mut map, nonce, 0, 1), []);
    map.handle_timeout(NOW + Duration::from_secs(1));
    let again = sent(&mut map, FETCH, 2);
    assert_eq!(numbered_ask(&again[0]), (1, false, vec![(1, 30)]));
    assert_eq!(tell_units(&mut map, nonce, 1, 2), [], "late");
    assert_eq!(tell_units(&mut map, 1, 1, 1), []);
    assert_eq!(tell_units(&mut map, 1, 2, 2), [(2, true, vec![(3, 30)])], "half of it is known");
}

/// Goal: where more is lost than a FETCH has room for, the answer still goes on behind it. Method: every second unit
/// is lost.
#[test]
fn what_lies_ahead_is_asked_for_however_much_was_lost() {
    let mut config = Config::lan();
    config.pull_budget = 40_000;
    let (mut map, nonce) = taker(1, &config);
    let mut asked = Vec::new();
    let mut number = nonce;
    for at in (0..200).step_by(2) {
        let head = Head { nonce: number, total: 1_000, first: at, covered: 1, ..ALL };
        let value = lone(2, at, format!("key-{at}").as_bytes(), &[7; 1000]);
        let unit = if at == 0 { context(2, 2_000, None) } else { value };
        tell(&mut map, NOW, 2, &head.frame(1, &unit));
        for body in sent(&mut map, FETCH, 2) {
            asked.push(numbered_ask(&body));
            number = asked.len() as u64;
        }
    }
    assert!(asked.len() > 3, "{asked:?}");
    for (_, ahead, ranges) in &asked {
        assert!(*ahead && ranges.last().unwrap().1 == 1_000, "{ranges:?}");
    }
    assert_eq!(asked[3].2.len(), 16);
}

/// Goal: a key that is new has the marks that come with its value, and the application hears of it, whether it has
/// marks or not.
#[test]
fn new_keys_come_with_their_marks_and_are_told() {
    let (mut map, nonce) = taker(1, &Config::lan());
    // As a lone value with a mark of a write of node 4.
    let writer = |node: u64| [&[0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    let sibling = [&[1][..], &writer(2), &[2, 1, b'v']].concat();
    let marked = [&[0, 1, 6][..], b"marked", &sibling, &[1], &writer(4), &[3]].concat();
    let units = [context(2, 2, None), context(4, 3, None), lone(2, 1, b"lone", b"v"), marked];
    let head = Head { nonce, contexts: 2, covered: 4, total: 4, last: true, ..ALL };
    tell(&mut map, NOW, 2, &head.frame(1, &units.concat()));
    // And with that of its own writer beside it.
    assert_eq!((map.len(), map.metadata().0), (2, 2));
    let mut told = Vec::new();
    while let Some(event) = map.poll_event() {
        if let Event::Changed { key, old: None, new: Some(new) } = event {
            told.push((key.to_vec(), new.counter));
        }
    }
    assert_eq!(told, [(b"lone".to_vec(), 1), (b"marked".to_vec(), 2)]);
}

/// Goal: a giver that falls silent is asked five times, less and less often, and then given up. Method: the first part,
/// and nothing more; or one part more in the middle, after which it begins anew.
#[test]
fn a_silent_giver_is_asked_for_a_while() {
    for progress in [false, true] {
        let (mut map, nonce) = taker(1, &Config::lan());
        let head = Head { nonce, ..ALL };
        tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
        let (mut now, mut start, mut more) = (NOW, NOW, progress);
        let mut times = Vec::new();
        while times.len() < 8 {
            now = map.poll_timeout().unwrap();
            map.handle_timeout(now);
            for body in sent(&mut map, FETCH, 2) {
                let over = asked(&body).1.is_empty();
                times.push((now - start).as_millis());
                assert_eq!(over, times.len() == 8);
            }
            if more && times.len() == 3 {
                tell(&mut map, now, 2, &part(3, &[key(3)], false));
                tell(&mut map, now, 2, &part(3, &[key(3)], false));
                (start, more) = (now, false);
                times.clear();
            }
        }
        assert_eq!(times, [25, 75, 175, 375, 775, 1575, 3175, 4775]);
        tell(&mut map, now, 2, &part(1, &[key(1)], false));
        assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "nobody waits for it");
    }
}

/// Goal: a full sync is taken as long as what is new of it fits, to the last byte and key. Method: five keys of ten
/// bytes, of which one is here already, and limits at which they just fit, and do not.
#[test]
fn a_full_sync_is_refused_if_it_does_not_fit() {
    let units: Vec<_> = [context(2, 5, None)].into_iter().chain((1..=5).map(key)).collect();
    for own in [false, true] {
        for (keys, bytes, fits) in [(5, 50, true), (4, 50, false), (5, 49, false), (6, 60, true)] {
            let mut config = Config::lan();
            (config.max_keys, config.max_bytes) = (keys, bytes);
            let mut map = map(1, &config);
            map.peer_up(NOW, NodeId(2), 1, addr(2));
            if own {
                map.insert(NOW, b"key-4", b"mines").unwrap();
            }
            drain(&mut map);
            let nonce = hear(&mut map);
            tell(&mut map, NOW, 2, &whole(1, nonce, &units));
            assert_eq!(map.len(), if fits { 5 } else { usize::from(own) }, "{own} {keys} {bytes}");
            let stats = map.stats();
            assert_eq!(
                (stats.full_syncs, stats.chunks_refused),
                if fits { (1, 0) } else { (0, 1) }
            );
            let full =
                std::iter::from_fn(|| map.poll_event()).filter(|event| *event == Event::Full);
            assert_eq!(full.count(), usize::from(!fits));
            assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "it is over");
        }
    }
}

/// Goal: a giver that names more than there can be room for is stopped before it has told all. Method: the first five
/// of a thousand units, and then one more than there may be keys, or bytes.
#[test]
fn what_is_put_aside_is_bounded() {
    for (keys, bytes, sixth) in
        [(5, 1000, false), (1000, 50, false), (1000, 59, false), (6, 60, true)]
    {
        let mut config = Config::lan();
        (config.max_keys, config.max_bytes) = (keys, bytes);
        let (mut map, nonce) = taker(1, &config);
        let head = Head { nonce, total: 1000, ..ALL };
        tell(&mut map, NOW, 2, &head.frame(1, &context(2, 999, None)));
        for at in 1..=6 {
            tell(&mut map, NOW, 2, &Head { nonce: 0, first: at, ..head }.frame(1, &key(at)));
            let refused = at == 6 && !sixth;
            assert_eq!(map.stats().chunks_refused, u64::from(refused), "{keys} {bytes}: {at}");
            assert_eq!(sent(&mut map, FETCH, 2).len(), usize::from(refused));
        }
    }
}

/// Goal: so many writes ahead of a gap are taken of a replica, as everywhere: ten, and what an answer may have come to that
/// tells of overwritten keys. Method: runs of so many, and one more.
#[test]
fn a_context_with_too_much_ahead_of_a_gap_is_refused() {
    let mut config = Config::lan();
    config.max_gap_dots = 10;
    const SPAN: u64 = 1 << 19;
    for (base, from, to, fits) in [
        (0, 3, SPAN + 12, true),
        (0, 3, SPAN + 13, false),
        (7, 20, SPAN + 29, true),
        (7, 20, SPAN + 30, false),
    ] {
        let (mut map, nonce) = taker(1, &config);
        tell(&mut map, NOW, 2, &whole(1, nonce, &[context(2, base, Some((from, to)))]));
        assert_eq!(map.stats().full_syncs, u64::from(fits), "{from} to {to}");
        let dot = |counter| brickwork_core::map::Dot::new(ReplicaId::new(NodeId(2), 1), counter);
        let known: Vec<_> = (1..to + 9).filter(|counter| map.reflects(dot(*counter))).collect();
        let expected: Vec<_> = (1..=base).chain(from..=to).filter(|_| fits).collect();
        assert_eq!(known, expected);
    }
}

/// Goal: nobody tells a replica of writes of its own that it never made. Method: the last one that it made, and the
/// next, in each place where a write can be named; of others it may be any.
#[test]
fn a_full_sync_with_forged_writes_is_refused() {
    let unit = |kind: usize, node, counter| match kind {
        0 => vec![context(node, counter, None)],
        1 => vec![context(node, 0, Some((counter, counter)))],
        2 => vec![context(2, 5, None), lone(node, counter, b"new", b"value")],
        _ => vec![context(2, 5, None), removed(node, counter, b"new")],
    };
    for kind in 0..4 {
        for (node, counter, forged) in [(1, 3, false), (1, 4, true), (1, 9, true), (2, 9, false)] {
            let mut map = map(1, &Config::lan());
            map.peer_up(NOW, NodeId(2), 1, addr(2));
            for key in 0..3_u8 {
                map.insert(NOW, &[key], b"mine").unwrap();
            }
            drain(&mut map);
            let nonce = hear(&mut map);
            tell(&mut map, NOW, 2, &whole(1, nonce, &unit(kind, node, counter)));
            let stats = map.stats();
            assert_eq!(stats.chunks_forged, u64::from(forged), "{kind}: {counter} of {node}");
            assert_eq!(stats.full_syncs, u64::from(!forged));
            assert!(!forged || map.len() == 3);
            let full = std::iter::from_fn(|| map.poll_event()).any(|event| event == Event::Full);
            assert!(!full, "there is room");
        }
    }
}

/// Goal: parts that were meant for another life or session are told apart. Method: one of each, amid a full sync that
/// goes on.
#[test]
fn parts_of_something_else_do_no_harm() {
    let (mut map, nonce) = taker(1, &Config::lan());
    let head = Head { nonce, ..ALL };
    tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
    tell(&mut map, NOW, 2, &Head { first: 1, ..ALL }.frame(7, &key(1)));
    assert_eq!(map.stats().misaddressed, 1);
    assert_eq!(sent(&mut map, FETCH, 2).len(), 0);
    let others = [Head { session: 8, first: 1, ..ALL }, Head { total: 7, first: 1, ..ALL }];
    for other in others {
        tell(&mut map, NOW, 2, &other.frame(1, &key(1)));
        assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (other.session, vec![]));
    }
    tell(&mut map, NOW, 3, &Head { first: 1, ..ALL }.frame(1, &key(1)));
    assert_eq!(asked(&sent(&mut map, FETCH, 3)[0]), (SESSION, vec![]), "of another peer");
    for (at, misaddressed) in [(9, 1), (SESSION, 2)] {
        let wrong = [addressee(7, 1, 1).to_le_bytes(), SESSION.to_le_bytes()].concat();
        let body = if misaddressed == 2 { wrong } else { numbered(at) };
        tell(&mut map, NOW, 2, &frame(GONE, &body));
        assert_eq!(map.stats().misaddressed, misaddressed);
    }
    tell(&mut map, NOW, 3, &frame(GONE, &numbered(SESSION)));
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2), key(3), key(4), key(5)], true));
    assert_eq!((map.len(), map.stats().full_syncs), (5, 1), "nothing of all that ended it");
}

/// Goal: who gives no full sync, or none any more, is not waited for, and somebody else is asked. Method: it says so to
/// the pull, or in the middle.
#[test]
fn another_peer_is_asked_when_there_is_no_full_sync() {
    for amid in [false, true] {
        let (mut map, nonce) = taker(1, &Config::lan());
        tell(&mut map, NOW, 3, &frame(STATE, &[9; 16]));
        if amid {
            tell(&mut map, NOW, 2, &Head { nonce, ..ALL }.frame(1, &context(2, 5, None)));
        }
        let number = if amid { SESSION } else { nonce };
        tell(&mut map, NOW, 2, &frame(GONE, &numbered(number)));
        let (now, pulls) = loop {
            let now = map.poll_timeout().unwrap();
            map.handle_timeout(now);
            let sent = drain(&mut map).into_iter();
            let pulls = sent.filter(|(_, bytes)| frame_of(bytes, PULL).is_some()).count();
            if pulls > 0 {
                break (now, pulls);
            }
        };
        assert_eq!(pulls, 1);
        assert_eq!((now - NOW).as_millis(), 150, "the pull interval");
        assert_eq!(map.stats().pulls_timed_out, 0);
    }
}

/// Goal: of two that need each other's maps the one with the lower id gives; others are sent away by who takes.
/// Method: a giver that takes itself, from a peer with a higher or a lower id, is asked by it and by another.
#[test]
fn of_two_that_take_the_lower_gives() {
    for (own, asks, gives) in [(1, 2, true), (5, 2, false), (1, 3, false), (5, 3, false)] {
        let mut map = giver(own, &Config::lan(), [2, 3]);
        let nonce = hear(&mut map);
        let head = Head { nonce, ..ALL };
        tell(&mut map, NOW, 2, &head.frame(own, &context(2, 5, None)));
        drain(&mut map);
        tell(&mut map, NOW, asks, &pull(4, 2000));
        let frames = drain(&mut map);
        let has = |tag| frames.iter().any(|(_, bytes)| frame_of(bytes, tag).is_some());
        assert_eq!((has(STAGE), has(GONE)), (gives, !gives), "{own} is asked by {asks}");
    }
}
