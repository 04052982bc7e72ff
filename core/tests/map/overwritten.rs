//! Keys that were written again and again: an answer tells what came of it, and not how.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::maps::{NOW, addr, deliver, drain};
use crate::common::played::CHUNK;
use crate::common::{Dice, bare::millis, frame_of};
use brickwork_core::map::{Config, LogKind, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

/// A replica beside others, whose rate of answers is bounded by nothing.
fn eager(id: u64, others: &[u64]) -> Map {
    with(id, others, |_| ())
}

fn with(id: u64, others: &[u64], change: impl Fn(&mut Config)) -> Map {
    let mut config = Config::lan();
    config.pull_rate = 1 << 30;
    change(&mut config);
    let life = ReplicaId::new(NodeId(id), 1);
    let mut map = Map::new(NOW, life, "test", config, 1_400, [id as u8; 32]).unwrap();
    for &other in others {
        map.peer_up(NOW, NodeId(other), 1, addr(other));
    }
    map
}

/// Writes each of so many keys so often, one after the other or in no order.
fn write(map: &mut Map, now: Instant, keys: u64, times: u64, dice: Option<&mut Dice>) {
    let mut order: Vec<u64> = (0..times).flat_map(|_| 0..keys).collect();
    if let Some(dice) = dice {
        for at in (1..order.len()).rev() {
            order.swap(at, dice.below(at + 1));
        }
    }
    for (n, key) in (0_u64..).zip(order) {
        map.insert(now, &key.to_le_bytes(), &[&n.to_le_bytes()[..], &[7; 24]].concat()).unwrap();
    }
    while map.poll_event().is_some() {}
}

/// Lets two replicas speak from `now` on until they agree. Returns when that was, and how many bytes of answers that took.
fn agree(
    one: &mut Map,
    other: &mut Map,
    mut now: Instant,
    mut lost: impl FnMut(&[u8]) -> bool,
) -> (Instant, usize) {
    let mut bytes = 0;
    let end = now + millis(120_000);
    loop {
        loop {
            let (mut from_one, mut from_other) = (drain(one), drain(other));
            if from_one.is_empty() && from_other.is_empty() {
                break;
            }
            let (a, b) = (one.replica().node.0, other.replica().node.0);
            for (from, id, to, sent) in
                [(a, b, &mut *other, &mut from_one), (b, a, &mut *one, &mut from_other)]
            {
                for (_, datagram) in sent.drain(..).filter(|(whom, _)| *whom == id) {
                    bytes += frame_of(&datagram, CHUNK).map_or(0, |_| datagram.len());
                    if !lost(&datagram) {
                        deliver(to, now, from, &datagram);
                    }
                }
                while to.poll_event().is_some() {}
            }
        }
        if one.digest() == other.digest() {
            return (now, bytes);
        }
        now = [one.poll_timeout(), other.poll_timeout()].into_iter().flatten().min().unwrap();
        assert!(now < end, "they agree");
        one.handle_timeout(now);
        other.handle_timeout(now);
    }
}

/// One who has written each of so many keys so often while the other did not hear of it; that other.
fn apart(keys: u64, times: u64, dice: Option<&mut Dice>) -> (Map, Map) {
    let (mut one, other) = (eager(1, &[2]), eager(2, &[1]));
    write(&mut one, NOW, keys, times, dice);
    forget_pushes(&mut one, NOW);
    (one, other)
}

/// What is pushed in the next five seconds meets nobody.
fn forget_pushes(map: &mut Map, now: Instant) {
    for n in 0..50 {
        map.handle_timeout(now + millis(100 * n));
        drain(map);
    }
}

const LATER: Instant = Instant::from_nanos(10_000_000_000);

/// All keys and values of a map.
fn content(map: &Map) -> BTreeMap<Vec<u8>, Vec<u8>> {
    map.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// Goal: what an answer costs follows the keys, and not how often they were written. Method: the same keys written once
/// and up to a hundred times, in turn and in no order.
#[test]
fn each_entry_is_told_once() {
    let once = {
        let (mut one, mut other) = apart(1_000, 1, None);
        agree(&mut one, &mut other, LATER, |_| false).1
    };
    for times in [2, 8, 40, 100] {
        let mut dice = Dice(times);
        for dice in [None, Some(&mut dice)] {
            let (mut one, mut other) = apart(1_000, times, dice);
            let (_, bytes) = agree(&mut one, &mut other, LATER, |_| false);
            println!("1,000 keys x {times}: {bytes} bytes, once {once}");
            assert!(bytes < once * 5 / 4, "{times} times: {bytes} bytes, once {once}");
        }
    }
}

/// A key that was written a thousand times is one datagram.
#[test]
fn a_key_written_a_thousand_times_costs_one_entry() {
    let (mut one, mut other) = apart(1, 1_000, None);
    let (_, bytes) = agree(&mut one, &mut other, LATER, |_| false);
    assert!(bytes < 200, "{bytes} bytes");
}

/// Goal: what is lost is told again, and not all of it. Method: every tenth datagram is lost, of either side.
#[test]
fn what_was_lost_is_told_again_and_little_else() {
    for seed in 0..8 {
        let mut order = Dice(seed);
        let (mut one, mut other) = apart(2_000, 20, Some(&mut order));
        let mut dice = Dice(100 + seed);
        let (_, bytes) = agree(&mut one, &mut other, LATER, |_| dice.percent(10));
        println!("seed {seed}: {bytes} bytes");
        assert!(bytes < 2_000 * 100, "{bytes} bytes");
    }
}

/// Goal: where there are too many keys for one window, each is told once for each that it was written in. Method: more
/// keys than a window has, thrice in turn.
#[test]
fn many_keys_are_told_window_by_window() {
    let (mut one, mut other) = apart(70_000, 3, None);
    let (_, bytes) = agree(&mut one, &mut other, LATER, |_| false);
    assert_eq!(content(&one), content(&other));
    // In turn a window that is as long as there is room for has each of its keys once.
    assert!(bytes < 70_000 * 3 * 60, "{bytes} bytes");
}

/// Goal: who was told so tells others so. Method: three replicas, of which the third hears of the writes by the second
/// alone, when the writer is gone; directly, from a snapshot of it, and from its log.
#[test]
fn what_was_overwritten_is_passed_on() {
    for way in ["as it is", "from a snapshot", "from its log"] {
        let (mut one, mut two, mut three) =
            (eager(1, &[2, 3]), eager(2, &[1, 3]), eager(3, &[1, 2]));
        two.start_log();
        let mut file = Vec::new();
        write(&mut one, NOW, 1_000, 20, Some(&mut Dice(7)));
        forget_pushes(&mut one, NOW);
        let mut logged = |two: &mut Map| {
            while let Some(write) = two.poll_log() {
                if write.kind != LogKind::Append {
                    file.clear();
                }
                file.extend(write.chunks);
                two.log_synced(NOW, write.ticket);
            }
        };
        logged(&mut two);
        agree(&mut one, &mut two, LATER, |_| false);
        logged(&mut two);
        assert!(two.stats().dots_overwritten > 15_000, "{:?}", two.stats());
        let mut now = LATER + millis(1_000);
        if way != "as it is" {
            let chunks: Vec<_> =
                if way == "from its log" { file } else { two.snapshot().collect() };
            let mut again = eager(2, &[]);
            if way == "from its log" {
                again.resume(now, &chunks).unwrap();
            } else {
                again.restore(now, &chunks).unwrap();
            }
            assert_eq!(again.digest(), two.digest(), "{way}");
            again.peer_up(now, NodeId(3), 1, addr(3));
            two = again;
        }
        two.peer_down(now, NodeId(1));
        three.peer_down(now, NodeId(1));
        now += millis(100);
        let (_, bytes) = agree(&mut two, &mut three, now, |_| false);
        assert_eq!(content(&three), content(&one), "{way}");
        assert!(three.stats().dots_overwritten > 15_000, "{way}: {:?}", three.stats());
        assert!(bytes < 1_000 * 60, "{way}: {bytes} bytes");
        assert_eq!(two.stats().full_syncs + three.stats().full_syncs, 0, "{way}");
    }
}

/// Goal: what was set aside is worth nothing if nobody has what it waits for, and does no harm. Method: a writer that
/// fails while it answers, some of whose writes others have: all of some, a part of others.
#[test]
fn a_writer_that_goes_while_it_answers_leaves_nothing_undone() {
    for heard in [0, 1, 2, 5, 20, 60] {
        for dice in [None, Some(&mut Dice(heard))] {
            let (mut one, mut two, mut three) =
                (eager(1, &[2, 3]), eager(2, &[1, 3]), eager(3, &[1, 2]));
            let mut dice = dice;
            write(&mut one, NOW, 500, 10, dice.as_deref_mut());
            forget_pushes(&mut one, NOW);
            agree(&mut one, &mut three, LATER, |_| false);
            write(&mut one, LATER + millis(9_000), 500, 10, dice);
            forget_pushes(&mut one, LATER + millis(9_000));
            // Of the answer to the other some datagrams arrive.
            let mut now = LATER + millis(20_000);
            let mut left = heard;
            for _ in 0..200 {
                for (to, bytes) in drain(&mut two) {
                    if to == 1 {
                        deliver(&mut one, now, 2, &bytes);
                    }
                }
                for (to, bytes) in drain(&mut one) {
                    let chunk = frame_of(&bytes, CHUNK).is_some();
                    if to == 2 && (!chunk || left > 0) {
                        left -= u64::from(chunk);
                        deliver(&mut two, now, 1, &bytes);
                    }
                }
                now += millis(20);
                one.handle_timeout(now);
                two.handle_timeout(now);
            }
            two.peer_down(now, NodeId(1));
            three.peer_down(now, NodeId(1));
            agree(&mut two, &mut three, now, |_| false);
            assert_eq!(content(&two), content(&three));
            let behind = content(&one).into_iter().filter(|(key, _)| two.get(key).is_none());
            assert_eq!(behind.count(), 0, "all keys were known to one of them");
        }
    }
}

/// Goal: who begins elsewhere than those before is told all the same. Method: a window is as long as it may be, and the
/// third and the fourth replica each hear of the writes by the one before alone, from other dots on.
#[test]
fn windows_that_begin_elsewhere_are_passed_on() {
    const WINDOW: u64 = 1 << 18;
    let keep = |config: &mut Config| config.keep_for = Duration::from_secs(80_000);
    let others = |me: u64| -> Vec<u64> { (1..=4).filter(|id| *id != me).collect() };
    let [mut a, mut b, mut c, mut d] = [1, 2, 3, 4].map(|id| with(id, &others(id), keep));
    let mut now = NOW;
    let writes = |a: &mut Map, now: &mut Instant, count: u64| {
        for n in 0..count {
            a.insert(*now, &(n % 10).to_le_bytes(), &n.to_le_bytes()).unwrap();
        }
        while a.poll_event().is_some() {}
        forget_pushes(a, *now);
        *now += millis(5_000);
    };
    let met = |one: &mut Map, other: &mut Map, now: &mut Instant| {
        *now = agree(one, other, *now, |_| false).0;
    };
    writes(&mut a, &mut now, 10);
    met(&mut a, &mut d, &mut now);
    writes(&mut a, &mut now, WINDOW - 10);
    met(&mut a, &mut b, &mut now);
    met(&mut a, &mut c, &mut now);
    writes(&mut a, &mut now, 5);
    met(&mut a, &mut c, &mut now);
    writes(&mut a, &mut now, 2 * WINDOW - 5);
    met(&mut a, &mut b, &mut now);
    [&mut b, &mut c, &mut d].into_iter().for_each(|map| map.peer_down(now, NodeId(1)));
    met(&mut b, &mut c, &mut now);
    [&mut c, &mut d].into_iter().for_each(|map| map.peer_down(now, NodeId(2)));
    met(&mut c, &mut d, &mut now);
    assert_eq!(content(&a), content(&d));
    assert!(d.stats().dots_overwritten > 2 * WINDOW, "{:?}", d.stats());
}

/// Goal: what was waited for is not on disk, and is not needed to read the log. Method: more writes come ahead of some
/// that are set aside than may be ahead of a gap, and a crash before those are complete, and after.
#[test]
fn a_log_is_read_back_whatever_lay_ahead() {
    for complete in [false, true] {
        let few = |config: &mut Config| config.max_gap_dots = 100;
        let (mut one, mut two) = (with(1, &[2], few), with(2, &[1], few));
        two.start_log();
        let mut file: Vec<Vec<u8>> = Vec::new();
        // The first half twice, and the second once, so that all of the second waits for the end.
        let second = (0..1_000_u64).chain(0..1_000).chain(1_000..2_000);
        for key in second {
            one.insert(NOW, &key.to_le_bytes(), &[7; 40]).unwrap();
        }
        while one.poll_event().is_some() {}
        forget_pushes(&mut one, NOW);
        let mut now = LATER;
        while two.digest() != one.digest() && (complete || two.stats().dots_received < 1_500) {
            for (_, bytes) in drain(&mut two) {
                deliver(&mut one, now, 2, &bytes);
            }
            for (_, bytes) in drain(&mut one) {
                if complete || two.stats().dots_received < 1_500 {
                    deliver(&mut two, now, 1, &bytes);
                }
            }
            while let Some(write) = two.poll_log() {
                if write.kind != LogKind::Append {
                    file.clear();
                }
                file.extend(write.chunks);
                two.log_synced(now, write.ticket);
            }
            now += millis(1);
            one.handle_timeout(now);
            two.handle_timeout(now);
        }
        // A write of its own makes a record of all that came.
        two.insert(now, b"own", b"value").unwrap();
        file.extend(two.poll_log().unwrap().chunks);
        let before = if complete { 1_000 } else { 0 };
        assert_eq!(two.stats().dots_overwritten, before, "{:?}", two.stats());
        let mut again = with(2, &[], few);
        assert_eq!(again.resume(now, &file), Ok(()));
        assert_eq!(again.digest(), two.digest());
    }
}
