//! What a node does while many members are suspected at once, as when a rack fails: it looks for more of them, at less cost each.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use brickwork_core::swim::Config;

use crate::common::bare::{
    BUCKETS, Bare, DEAD, PING, SUSPECT, Sent, TABLE_DIGEST, UPDATES, VERIFY, accused, ack, alive,
    frame, id, millis, times,
};

const SECOND: Duration = Duration::from_secs(1);

/// A node among many that it has met, all of which answer but those at these places.
fn among(silent: core::ops::Range<usize>) -> Bare {
    let mut bare = Bare::among(Config::lan(), 1..100);
    bare.answering = (1..100).filter(|place| !silent.contains(place)).collect();
    bare
}

fn accuse(bare: &mut Bare, kind: u8, places: core::ops::Range<usize>, by: usize) {
    let rows: Vec<_> = places.flat_map(|place| accused(kind, place, 0, &[by])).collect();
    bare.tell(by, &frame(UPDATES, &rows));
}

/// Goal: one member is probed per interval, four while many are suspected, of whom not those again of whom enough is known.
/// Method: three accused ones, and one more.
#[test]
fn more_are_probed_while_many_are_suspected() {
    for (suspects, least, most) in [(3, 9, 11), (4, 36, 42)] {
        let mut bare = among(0..0);
        bare.run(10 * SECOND);
        accuse(&mut bare, SUSPECT, 1..1 + suspects, 50);
        let before = bare.swim.stats().probes;
        // Told again and again, they stay suspected.
        bare.run(10 * SECOND);
        let probes = bare.swim.stats().probes - before;
        assert!((least..=most).contains(&probes), "{probes} probes with {suspects} suspects");
    }
}

/// Goal: a probe takes less time and fewer pings then, and as many as ever where losses are many. Method: a member that is silent, with
/// and without others suspected; one node whose probes are answered at the third ping.
#[test]
fn a_probe_costs_less_while_many_are_suspected() {
    let probe = |bare: &mut Bare| {
        let first = bare.next(|sent| sent.is(PING, 90));
        let sent = bare.run(millis(1_100));
        (times(&sent, PING, 90, first.at), bare.suspected(90))
    };
    for (suspects, loss, pings) in [(0, false, 9), (4, false, 1), (4, true, 9)] {
        let mut bare = among(90..91);
        if loss {
            // Each is answered at the third ping.
            bare.answering.clear();
            let mut pings = [0; 100];
            while bare.swim.stats().probes < 30 {
                for sent in bare.run(millis(5)) {
                    if sent.frame(PING).is_some() {
                        let place = usize::from(sent.to.port()) - 1000;
                        pings[place] += 1;
                        if place < 90 && pings[place] % 3 == 0 {
                            bare.tell(place, &ack(sent.seq(PING)));
                        }
                    }
                }
            }
            bare.answering = (1..90).collect();
        }
        accuse(&mut bare, SUSPECT, 1..1 + suspects, 50);
        let (times, suspected) = probe(&mut bare);
        assert!(suspected);
        assert_eq!(times.len(), pings, "{suspects}, {loss}: {times:?}");
    }
}

/// Goal: tables that differ are compared each interval, and while many members are suspected once in eight, however often that
/// begins and ends. Method: a peer whose digest is another one, at every moment.
#[test]
fn tables_are_compared_seldom_while_many_are_suspected() {
    for (suspects, compared) in [(0, 59..=60), (4, 6..=8)] {
        let mut bare = among(0..0);
        bare.run(5 * SECOND);
        let mut asked = 0;
        for round in 0..60 {
            // They refute every ten seconds, and are suspected again.
            let incarnation = round / 10;
            let rows: Vec<_> = (1..1 + suspects)
                .flat_map(|place| accused(SUSPECT, place, incarnation, &[50]))
                .collect();
            let there: Vec<_> =
                (1..1 + suspects).flat_map(|place| alive(place, 1, incarnation)).collect();
            if suspects > 0 {
                bare.tell(50, &frame(UPDATES, &[there, rows].concat()));
            }
            for _ in 0..10 {
                bare.tell(60, &frame(TABLE_DIGEST, &7_u64.to_le_bytes()));
                let sent = bare.run(SECOND / 10);
                asked += sent.iter().filter(|sent| sent.frame(BUCKETS).is_some()).count();
            }
        }
        assert!(compared.contains(&asked), "{asked} with {suspects} suspects");
    }
}

/// Goal: while there is more to tell than room for it, a member that failed is told with one name, and with all its accusers
/// otherwise. Method: members that others hold failed.
#[test]
fn of_a_failed_member_little_is_told_while_many_are_suspected() {
    for (suspects, names) in [(0, 4), (6, 1)] {
        let mut bare = among(0..0);
        bare.run(5 * SECOND);
        (50..54).for_each(|by| accuse(&mut bare, SUSPECT, 90..91, by));
        bare.run(SECOND);
        accuse(&mut bare, SUSPECT, 1..1 + suspects, 60);
        (50..54).for_each(|by| accuse(&mut bare, DEAD, 90..91, by));
        let sent = bare.run(SECOND);
        let head = [&[DEAD][..], &id(90).0.to_le_bytes()].concat();
        let row = |sent: &Sent| {
            let rows = sent.frames(UPDATES).concat();
            let at = rows.windows(9).position(|row| row == head)?;
            Some(rows[at + 9 + 8 + 1])
        };
        let told = sent.iter().rev().find_map(row);
        assert_eq!(told, Some(names), "{suspects} suspects");
    }
}

/// Goal: who is far away has the time that it needs. Method: members that are asked for the first time, all of which answer after 700 ms.
#[test]
fn who_is_far_away_has_its_time_while_many_are_suspected() {
    let mut bare = among(1..100);
    let mut late = Vec::new();
    let mut pass = |bare: &mut Bare, time: Duration| {
        let end = bare.now + time;
        while bare.now < end {
            let sent = bare.run(millis(10));
            late.extend(sent.into_iter().filter(|sent| sent.frame(PING).is_some()));
            while late.first().is_some_and(|ping| bare.now - ping.at >= millis(700)) {
                let ping = late.remove(0);
                bare.tell(usize::from(ping.to.port()) - 1000, &ack(ping.seq(PING)));
            }
        }
    };
    pass(&mut bare, 10 * SECOND);
    accuse(&mut bare, SUSPECT, 1..5, 50);
    let before = bare.swim.stats().probes;
    pass(&mut bare, 10 * SECOND);
    let stats = bare.swim.stats();
    assert!(stats.probes > before + 30, "{stats:?}");
    assert_eq!(stats.probes_failed, 0);
}

/// Goal: nobody is judged while its answer may be waiting to be read. Method: a node that comes to read its packets some time after its
/// probes were over, when members wait to be probed.
#[test]
fn an_answer_has_nobody_else_judged() {
    let mut bare = among(0..0);
    bare.run(SECOND);
    accuse(&mut bare, SUSPECT, 1..5, 50);
    bare.answering.clear();
    let first = |sent: &Sent| sent.frame(PING).is_some();
    let one = bare.next(first);
    let other = bare.next(|sent| first(sent) && sent.to != one.to);
    assert!(other.at - one.at < millis(500), "they are in flight together");
    let failed = bare.swim.stats().probes_failed;
    bare.now = one.at + millis(650);
    for place in 60..64 {
        bare.tell(55, &frame(VERIFY, &id(place).0.to_le_bytes()));
    }
    for ping in [other, one] {
        bare.tell(usize::from(ping.to.port()) - 1000, &ack(ping.seq(PING)));
    }
    assert_eq!(bare.swim.stats().probes_failed, failed);
}

/// The probes that a node starts in five seconds.
fn probes_in_five_seconds(bare: &mut Bare) -> u64 {
    let before = bare.swim.stats().probes;
    bare.run(5 * SECOND);
    bare.swim.stats().probes - before
}

/// Goal: where losses are so many that probes fail by chance no more are probed at once, for that would keep many suspected. Method:
/// members that answer the fourth ping alone, until this node knows; all answer then.
#[test]
fn who_loses_much_does_not_hurry() {
    for (needed, least, most) in [(1, 16, 22), (4, 5, 6)] {
        let mut bare = among(1..100);
        let mut pings = [0; 100];
        while bare.swim.stats().probes < 40 {
            for sent in bare.run(millis(5)) {
                let place = usize::from(sent.to.port()) - 1000;
                pings[place] += u32::from(sent.frame(PING).is_some());
                if sent.frame(PING).is_some() && pings[place].is_multiple_of(needed) {
                    bare.tell(place, &ack(sent.seq(PING)));
                }
            }
        }
        bare.answering = (1..100).collect();
        accuse(&mut bare, SUSPECT, 1..5, 50);
        let probes = probes_in_five_seconds(&mut bare);
        assert!((least..=most).contains(&probes), "{probes} probes, answered at ping {needed}");
    }
}

/// Goal: who hears nobody does not hurry, for it is the one that is cut off. Method: probes that fail without a helper's word.
#[test]
fn who_is_cut_off_does_not_hurry() {
    let mut bare = among(0..0);
    bare.run(SECOND);
    bare.answering.clear();
    while bare.swim.local_health() < 3 {
        bare.run(millis(100));
    }
    accuse(&mut bare, SUSPECT, 1..8, 50);
    let before = bare.swim.stats().probes;
    bare.run(12 * SECOND);
    let probes = bare.swim.stats().probes - before;
    assert!(probes <= 3, "{probes} probes");
}

/// Goal: of the schedule those are passed over of whom enough is known. Method: forty members with as many accusers as count.
#[test]
fn who_is_accused_enough_is_not_probed_again() {
    let mut bare = among(0..0);
    bare.run(5 * SECOND);
    (50..54).for_each(|by| accuse(&mut bare, SUSPECT, 1..41, by));
    let before = bare.swim.stats().probes;
    let sent = bare.run(millis(1_900));
    assert!(bare.swim.stats().probes >= before + 5);
    let pinged = sent.iter().filter(|sent| sent.frame(PING).is_some());
    let accused = pinged.filter(|sent| (1001..1041).contains(&sent.to.port())).count();
    assert_eq!(accused, 0);
}

/// Goal: a stall ends all probes in flight, those too that are not over: their answers may be lost. Method: three that began a quarter
/// of a second after each other, and a node that wakes when two of them are over.
#[test]
fn a_stall_ends_all_probes_in_flight() {
    let mut bare = among(0..0);
    bare.run(SECOND);
    accuse(&mut bare, SUSPECT, 1..5, 50);
    bare.answering.clear();
    let mut seen: Vec<Sent> = Vec::new();
    while seen.len() < 3 {
        let known: Vec<_> = seen.iter().map(|sent| sent.to).collect();
        seen.push(bare.next(|sent| sent.frame(PING).is_some() && !known.contains(&sent.to)));
    }
    assert_eq!(bare.swim.stats().probes_void, 0);
    bare.now = seen[0].at + millis(950);
    bare.swim.handle_timeout(bare.now);
    let stats = bare.swim.stats();
    assert_eq!((stats.probes_void, stats.probes_failed), (3, 0));
}
