//! What is told of a member to whoever asks why it is held to be what it is, and what is counted by cause.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::addr;
use crate::common::bare::{
    Bare, DEAD, PING, SUSPECT, UPDATES, accused, ack, alive, frame, id, millis,
};
use brickwork_core::swim::{Config, State};

fn accuse(bare: &mut Bare, kind: u8, of: usize, by: usize) {
    bare.tell(by, &frame(UPDATES, &accused(kind, of, 0, &[by])));
}

/// Goal: who asks about a member learns who accuses it, since when, and until when it may refute. Method: two accuse one,
/// which refutes, and another one, which does not answer.
#[test]
fn why_tells_who_accuses_and_since_when() {
    let mut bare = Bare::among(Config::lan(), 1..12);
    bare.answering = (1..12).collect();
    bare.run(Duration::from_secs(2));
    let since = bare.now;
    accuse(&mut bare, SUSPECT, 5, 1);
    bare.run(millis(100));
    accuse(&mut bare, SUSPECT, 5, 3);
    let why = bare.swim.why(id(5)).unwrap();
    assert_eq!((why.state, why.since, why.own_probe), (State::Suspect, since, false));
    assert_eq!((why.accusers, why.verdicts), (vec![id(1), id(3)], vec![]));
    let due = why.due.unwrap();
    assert!(due > since + Duration::from_secs(1) && due < since + Duration::from_secs(7));
    bare.tell(5, &frame(UPDATES, &alive(5, 1, 1)));
    let why = bare.swim.why(id(5)).unwrap();
    assert_eq!((why.state, why.since, why.due), (State::Alive, bare.now, None));
    assert!(why.accusers.is_empty());

    bare.answering.retain(|place| *place != 6);
    let since = bare.now;
    [1, 2, 3].into_iter().for_each(|by| accuse(&mut bare, DEAD, 6, by));
    bare.run(millis(400));
    let why = bare.swim.why(id(6)).unwrap();
    assert_eq!(why.state, State::Dead);
    assert!(why.since > since && why.since <= bare.now && why.due.is_none());
    assert_eq!(
        (why.accusers, why.verdicts),
        (vec![id(1), id(2), id(3)], vec![id(1), id(2), id(3)])
    );
    assert!(bare.swim.why(id(99)).is_none());
    let stats = bare.swim.stats();
    assert_eq!((stats.suspicions_by_word, stats.suspicions_by_probe), (2, 0));
    let failures = (stats.failures_by_verdicts, stats.failures_by_word, stats.failures_by_probe);
    assert_eq!((failures, stats.recoveries, stats.returns), ((1, 0, 0), 1, 0));
    bare.tell(6, &frame(UPDATES, &alive(6, 1, 1)));
    assert_eq!(bare.swim.stats().returns, 1);
}

/// Goal: it tells how the member answered. Method: one that answers after a while, and then no more.
#[test]
fn why_tells_how_it_answered() {
    let mut bare = Bare::among(Config::lan(), [1]);
    let ping = bare.next_probe(1);
    bare.now += millis(7);
    bare.tell(1, &ack(ping.seq(PING)));
    let first = bare.now;
    // The next is answered only when it is asked again.
    bare.next_probe(1);
    let again = bare.next(|sent| sent.is(PING, 1));
    bare.now += millis(9);
    bare.tell(1, &ack(again.seq(PING)));
    let second = bare.now;
    bare.run(Duration::from_secs(10));
    let why = bare.swim.why(id(1)).unwrap();
    assert_eq!(why.rtt, Some(Duration::from_micros(7_250)));
    let probes: Vec<_> = why.probes.iter().map(|probed| (probed.answered, probed.rtt)).collect();
    assert_eq!(probes[probes.len() - 2..], [(true, Some(millis(9))), (true, Some(millis(7)))]);
    assert!(probes[..probes.len() - 2].iter().all(|probe| *probe == (false, None)));
    assert!(probes.len() > 2 && why.own_probe);
    assert_eq!([why.probes[probes.len() - 1].at, why.probes[probes.len() - 2].at], [first, second]);
    assert!(why.probes.is_sorted_by_key(|probed| std::cmp::Reverse(probed.at)));
    let stats = bare.swim.stats();
    assert_eq!((stats.suspicions_by_probe, stats.failures_by_probe), (1, 1));
    assert_eq!(bare.swim.member(id(1)).unwrap().addr(), addr(1));
}
