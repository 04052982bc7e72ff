//! What is told of a member that only the member can show: another address, a boot far ahead.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::addr;
use crate::common::bare::{
    BOOT_TOO_OLD, Bare, JOIN, PING, Sent, UPDATES, ack, alive, alive_at, cookie_in, frame, id,
    introduce_to, join_with, left, places,
};
use brickwork_core::Event;
use brickwork_core::swim::{Config, State};

const SECOND: Duration = Duration::from_secs(1);
const FAR: u64 = 1 << 45;

/// Node 0 among the first four; member 2 at place 9 where it is said to have moved there.
fn cluster() -> Bare {
    let mut bare = Bare::among(Config::lan(), 1..=4);
    bare.answering = (1..=4).collect();
    bare.run(2 * SECOND);
    bare.events();
    bare
}

fn known(bare: &Bare) -> (u64, usize, State) {
    let member = bare.swim.member(id(2)).unwrap();
    let place = (0..20).find(|place| addr(*place) == member.addr()).unwrap();
    (member.identity().boot_epoch(), place, member.state())
}

/// What was asked of member 2 at that place.
fn asked(sent: &[Sent], place: usize) -> Vec<u64> {
    let there = |sent: &&Sent| sent.to == addr(place) && sent.frame(PING).is_some();
    sent.iter().filter(there).map(|sent| sent.seq(PING)).collect()
}

/// Goal: what another one tells of a member's address, or of a boot far ahead, moves nobody and is told to nobody until the
/// member has shown it; a boot that is near, at the known address, needs no proof. Method: each of them, told by one who is well
/// known; nobody answers; then the member does.
#[test]
fn a_claim_counts_when_it_was_shown() {
    let port = |place| addr(place).port();
    let cases = [
        ("near", 2, 0, 2, false),
        ("a year ahead", 1 + FAR, 0, 2, false),
        ("further", 2 + FAR, 0, 2, true),
        ("the last", u64::MAX - (1 << 32) - 1, 0, 2, true),
        ("elsewhere", 2, 0, 9, true),
        ("moved", 1, 8, 9, true),
        ("nowhere new", 1, 0, 9, false),
    ];
    for (what, boot, version, place, proven) in cases {
        let mut bare = cluster();
        bare.answering.retain(|other| *other != 2);
        let row = frame(UPDATES, &alive_at(2, boot, 0, version, port(place)));
        bare.tell(1, &row);
        let at_once = known(&bare);
        let news = what != "nowhere new";
        assert_eq!(at_once != (1, 2, State::Alive), news && !proven, "{what}");
        let claims = u64::from(proven);
        assert_eq!(bare.swim.stats().claims, claims, "{what}");
        if !proven {
            continue;
        }
        let seqs = asked(&bare.sent(), place);
        assert_eq!(seqs.len(), 1, "{what}");
        // Told again while it is asked, and by others.
        bare.tell(3, &row);
        // Not by another one, not under another number, and not in another boot.
        let answer = ack(seqs[0]);
        bare.tell_as(3, 1, addr(place), &answer);
        bare.tell_as(2, boot, addr(place), &ack(seqs[0] ^ 1));
        bare.tell_as(2, boot ^ 1, addr(place), &answer);
        assert_eq!(known(&bare), (1, 2, State::Alive), "{what}");
        // The answer is not the first, and counts once.
        let sent = bare.run(SECOND / 2);
        assert_eq!(asked(&sent, place).first(), Some(&seqs[0]), "{what}");
        bare.tell_as(2, boot, addr(place), &answer);
        assert_eq!(known(&bare), (boot, place, State::Alive), "{what}");
        let events = bare.events();
        let told = |event: &&Event| {
            matches!(event, Event::Restarted { old_epoch: 1, identity } if identity.id() == id(2))
                || matches!(event, Event::Updated { identity } if identity.id() == id(2))
        };
        assert_eq!(events.iter().filter(told).count(), 1, "{what}: {events:?}");
        assert_eq!((bare.swim.stats().claims, bare.swim.stats().claims_dropped), (1, 0));
        let rows = bare.run(SECOND).iter().any(|sent| sent.frame(UPDATES).is_some());
        assert!(rows, "{what}: others are told");
    }
}

/// Goal: what nobody shows is forgotten, and costs the address that was made up three pings. Method: a claim in vain.
#[test]
fn a_claim_in_vain_is_dropped() {
    let mut bare = cluster();
    bare.tell(1, &frame(UPDATES, &alive_at(2, 2, 0, 0, addr(9).port())));
    let mut sent = bare.sent();
    sent.extend(bare.run(5 * SECOND));
    let seqs = asked(&sent, 9);
    assert_eq!(seqs.len(), 3);
    bare.tell_as(2, 2, addr(9), &ack(seqs[0]));
    assert_eq!(known(&bare), (1, 2, State::Alive));
    assert_eq!((bare.swim.stats().claims, bare.swim.stats().claims_dropped), (1, 1));
    assert!(sent.iter().all(|sent| sent.to != addr(9) || sent.frame(UPDATES).is_none()));
    assert!(bare.events().is_empty());
}

/// Goal: at most 64 are asked at a time, and the sixty-fifth when there is room. Method: hundred that moved.
#[test]
fn few_are_asked_at_a_time() {
    let mut bare = Bare::among(Config::lan(), 1..=100);
    bare.answering = (1..=100).collect();
    bare.run(SECOND);
    let tell = |bare: &mut Bare, places: std::ops::RangeInclusive<usize>| {
        for place in places {
            bare.tell(1, &frame(UPDATES, &alive_at(place, 2, 0, 0, addr(200 + place).port())));
        }
    };
    tell(&mut bare, 2..=100);
    assert_eq!(bare.swim.stats().claims, 64);
    bare.run(2 * SECOND);
    tell(&mut bare, 66..=100);
    assert_eq!((bare.swim.stats().claims, bare.swim.stats().claims_dropped), (99, 64));
}

/// Goal: the first word of a member is believed up to a year beyond the boots of who hears it and of who tells it. Method: an
/// unknown one in such boots, told by members in boot 1 and in a later one.
#[test]
fn a_newcomer_far_ahead_is_asked() {
    for (teller, boot, believed) in
        [(1, FAR + 1, true), (1, FAR + 2, false), (FAR, 2 * FAR, true), (FAR, 2 * FAR + 1, false)]
    {
        let mut bare = Bare::new(Config::lan());
        bare.meet_as(1, &alive(1, teller, 0));
        bare.tell_as(1, teller, addr(1), &frame(UPDATES, &alive(7, boot, 0)));
        assert_eq!(bare.swim.member(id(7)).is_some(), believed, "{teller} {boot}");
        if !believed {
            let seq = asked(&bare.sent(), 7)[0];
            bare.tell_as(7, boot, addr(7), &ack(seq));
            assert_eq!(bare.swim.member(id(7)).unwrap().identity().boot_epoch(), boot);
        }
    }
}

/// Goal: no boot that is made up keeps a member out. Method: the last one is told, of one that is known, of one that has failed and of one that
/// nobody knows; then that is started anew and asks to be let in.
#[test]
fn a_boot_that_is_made_up_keeps_nobody_out() {
    for place in [2, 7] {
        for dead in [false, true] {
            let mut bare = cluster();
            if dead && place == 2 {
                bare.tell(2, &frame(UPDATES, &left(2)));
            }
            let last = u64::MAX - (1 << 32) - 1;
            bare.tell(1, &frame(UPDATES, &alive(place, last, 0)));
            bare.run(2 * SECOND);
            let others = introduce_to(&mut bare.swim, bare.now, place, &alive(place, 2, 0));
            let refused = others.iter().any(|(_, bytes)| {
                Sent { at: bare.now, to: addr(place), bytes: bytes.clone() }.is(BOOT_TOO_OLD, place)
            });
            assert!(!refused);
            let member = bare.swim.member(id(place)).unwrap();
            assert_eq!((member.identity().boot_epoch(), member.state()), (2, State::Alive));
        }
    }
}

/// Goal: who leaves, or is told that its name is another's, asks nobody any more. Method: a claim, and a leave.
#[test]
fn who_leaves_asks_nobody() {
    let mut bare = cluster();
    let row = frame(UPDATES, &alive_at(2, 2, 0, 0, addr(9).port()));
    bare.tell(1, &row);
    assert_eq!(asked(&bare.sent(), 9).len(), 1);
    bare.swim.leave(bare.now);
    bare.tell(1, &row);
    let sent = bare.run(SECOND);
    assert!(!sent.is_empty() && asked(&sent, 9).is_empty());
    assert!(places(&sent, JOIN).is_empty());
}

/// Goal: nobody speaks for a later boot under the name of an earlier one. Method: rows of later boots, and of another address, by one
/// who bears the id and the boot that are known.
#[test]
fn an_earlier_boot_does_not_tell_of_a_later_one() {
    for row in [alive(2, u64::MAX - (1 << 32) - 1, 0), alive_at(2, 2, 0, 0, addr(9).port())] {
        for from in [2, 8] {
            let mut bare = cluster();
            bare.tell_as(2, 1, addr(from), &frame(UPDATES, &row));
            assert_eq!((known(&bare), bare.swim.stats().claims), ((1, 2, State::Alive), 1));
        }
    }
}

/// Goal: the cookie of a join shows where it comes from, and the address in its row is asked if that is another one. Method: one who knows
/// others joins under a member's name, from one address and with a row of another; then that answers.
#[test]
fn a_join_does_not_show_another_address() {
    for boot in [2, FAR + 2] {
        let mut bare = cluster();
        let row = alive_at(2, boot, 0, 0, addr(9).port());
        bare.sent();
        bare.tell_as(2, boot, addr(8), &join_with(0, &row, false));
        let answers = bare.sent();
        let cookie = answers.iter().find_map(|sent| cookie_in(&sent.bytes)).unwrap();
        bare.tell_as(2, boot, addr(8), &join_with(cookie, &row, false));
        assert_eq!((known(&bare), bare.swim.stats().claims), ((1, 2, State::Alive), 1));
        let seq = asked(&bare.sent(), 9)[0];
        bare.tell_as(2, boot, addr(8), &ack(seq));
        assert_eq!(known(&bare), (boot, 9, State::Alive), "it may speak through another address");
    }
}

/// Goal: who is held failed is looked for where it lives: within a boot nobody moves; but it may have come back elsewhere. Method: both are told.
#[test]
fn one_that_failed_does_not_move_within_its_boot() {
    let mut bare = cluster();
    bare.answering.retain(|place| *place != 2);
    bare.run(30 * SECOND);
    assert_eq!(known(&bare), (1, 2, State::Dead));
    bare.tell(1, &frame(UPDATES, &alive_at(2, 1, 0, 8, addr(9).port())));
    assert_eq!((known(&bare), bare.swim.stats().claims), ((1, 2, State::Dead), 1));
    bare.tell(1, &frame(UPDATES, &alive_at(2, 2, 0, 0, addr(9).port())));
    assert_eq!(known(&bare), (2, 9, State::Alive));
}

/// Goal: a node asks nobody about itself. Method: rows of this node, of another boot and address.
#[test]
fn nobody_is_asked_about_this_node() {
    let mut bare = cluster();
    for row in [alive(0, FAR + 9, 0), alive_at(0, 1, 0, 5, addr(9).port())] {
        bare.tell(1, &frame(UPDATES, &row));
    }
    assert_eq!(bare.swim.stats().claims, 0);
    assert_eq!(bare.swim.me().addr(), addr(0));
}
