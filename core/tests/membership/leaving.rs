//! Leaving to the letter, and what is believed of others at the edges of what can be, with every peer played by
//! the test.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use crate::common::addr;
use crate::common::bare::*;
use brickwork_core::Event;
use brickwork_core::swim::{Config, Member, State};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// To how many members each moment's datagrams carry the word that this node leaves, in milliseconds after `start`.
fn goodbyes(bare: &Bare, sent: &[Sent], start: brickwork_core::Instant) -> Vec<(u128, usize)> {
    let row = [&[LEFT][..], &bare.swim.me().id().0.to_le_bytes()].concat();
    let mut found: Vec<(u128, usize)> = Vec::new();
    for sent in
        sent.iter().filter(|sent| sent.frames(UPDATES).concat().windows(9).any(|part| part == row))
    {
        let at = (sent.at - start).as_millis();
        match found.last_mut().filter(|(last, _)| *last == at) {
            Some((_, count)) => *count += 1,
            None => found.push((at, 1)),
        }
    }
    found
}

fn left_ack() -> Vec<u8> {
    frame(LEFT_ACK, &[])
}

fn finished(bare: &mut Bare) -> Option<usize> {
    bare.events().into_iter().find_map(|event| match event {
        Event::LeaveFinished { acknowledged } => Some(acknowledged),
        _ => None,
    })
}

/// A node that has told its news, so that nothing but what a test looks at is sent.
fn calm(members: usize) -> Bare {
    let mut config = Config::lan();
    config.probe_interval = SECOND * 3600 * 24;
    config.gossip_interval = SECOND * 3600 * 24;
    let mut bare = Bare::among(config, 1..=members);
    bare.sent();
    bare
}

/// Goal: who leaves tells as many members as shall know, again until they do, and gives up in the end.
/// Method: nobody answers; among more members, and fewer.
#[test]
fn a_goodbye_is_repeated_until_the_timeout() {
    for (members, told) in [(5, 3), (2, 2)] {
        let mut bare = calm(members);
        let start = bare.now;
        bare.swim.leave(start);
        let sent = bare.run(SECOND * 5 - NANO);
        let expected: Vec<_> = (0..50).map(|n| (n * 100, told)).collect();
        assert_eq!(goodbyes(&bare, &sent, start), expected);
        assert_eq!(finished(&mut bare), None);
        bare.swim.leave(bare.now); // does not begin anew
        bare.run(NANO);
        assert_eq!(finished(&mut bare), Some(0));
        assert!(bare.run(SECOND * 60).is_empty());
        assert_eq!(bare.swim.poll_timeout(), None);
    }
}

/// Goal: a leave is over when enough members know. Method: answers of some, twice, and of strangers; those who
/// answered are not told again.
#[test]
fn a_leave_ends_with_enough_answers() {
    let mut bare = calm(5);
    bare.tell(1, &left_ack()); // before there is anything to answer
    let start = bare.now;
    bare.swim.leave(start);
    bare.sent();
    for place in [1, 1, 2, 9] {
        bare.tell(place, &left_ack());
        assert_eq!(finished(&mut bare), None);
    }
    let sent = bare.run(millis(100));
    assert_eq!(goodbyes(&bare, &sent, start), [(100, 3)]);
    assert_eq!(places(&sent, UPDATES), [3, 4, 5], "not those who know");
    bare.tell(3, &left_ack());
    assert_eq!(finished(&mut bare), Some(3));
    bare.tell(4, &left_ack());
    assert_eq!((finished(&mut bare), bare.sent().len()), (None, 0));

    let mut bare = calm(2);
    bare.swim.leave(bare.now);
    bare.tell(1, &left_ack());
    assert_eq!(finished(&mut bare), None);
    bare.tell(2, &left_ack());
    assert_eq!(finished(&mut bare), Some(2), "there are no more");

    let mut bare = calm(0);
    bare.swim.leave(bare.now);
    assert_eq!(finished(&mut bare), Some(0), "nobody is there");
}

/// Goal: a leaver is believed by its secret, and told so by those whom it tells itself, each time.
/// Method: its word, by itself and by another, and the word of somebody who does not know the secret.
#[test]
fn a_goodbye_is_acknowledged_to_who_leaves() {
    for (teller, told) in [(1, &[1, 1][..]), (2, &[])] {
        let mut bare = calm(3);
        for _ in 0..2 {
            bare.tell(teller, &frame(UPDATES, &left(1)));
        }
        assert_eq!(bare.swim.member(id(1)).unwrap().state(), State::Left);
        bare.tell(teller, &frame(UPDATES, &left(1)));
        assert_eq!(places(&bare.sent(), LEFT_ACK), &told[..told.len().min(1)]);
        let gone = bare.events().into_iter().filter(|event| *event == Event::Left { id: id(1) });
        assert_eq!(gone.count(), 1);
    }
    let mut bare = calm(3);
    let mut wrong = left(1);
    wrong[25] ^= 1;
    bare.tell(2, &frame(UPDATES, &wrong));
    assert_eq!(bare.swim.member(id(1)).unwrap().state(), State::Suspect);
    assert_eq!(places(&bare.sent(), LEFT_ACK), []);
}

/// Goal: numbers at the end of their range are believed of nobody, and those before it are.
/// Method: rows of a member at both sides of each bound.
#[test]
fn numbers_near_the_end_of_their_range_are_not_believed() {
    let (last_boot, last_incarnation) = (u64::MAX - (1 << 32) - 1, u32::MAX / 2);
    let mut bare = calm(1);
    let mut refused = 0;
    for (boot, incarnation, good) in [
        (1, last_incarnation, true),
        (1, last_incarnation + 1, false),
        (last_boot, last_incarnation, true),
        (last_boot + 1, 0, false),
        (last_boot, u32::MAX, false),
        (u64::MAX, u32::MAX, false),
    ] {
        let boot_told = bare.swim.member(id(1)).unwrap().identity().boot_epoch();
        let row = alive(1, boot, incarnation);
        if good && boot != boot_told {
            bare.meet_as(1, &row);
        } else {
            bare.tell_as(1, boot_told, addr(1), &frame(UPDATES, &row));
        }
        refused += u64::from(!good);
        assert_eq!(bare.swim.stats().misaddressed, refused);
        let known = bare.swim.member(id(1)).unwrap();
        let believed = (known.identity().boot_epoch(), known.incarnation()) == (boot, incarnation);
        assert_eq!(believed, good, "{boot} {incarnation}");
    }
}

/// Goal: a full member table refuses newcomers, and counts them, while all in it live; those who are gone make room, the first
/// to go first. Method: one more than there is room for, before and after two others left and failed.
#[test]
fn a_full_table_refuses_newcomers() {
    let mut config = Config::lan();
    config.max_members = 4;
    config.tombstone_age = SECOND * 60;
    let mut bare = Bare::among(config, 1..=3);
    bare.answering = vec![1, 2];
    for refused in 1..=2 {
        bare.meet(4);
        assert_eq!((bare.swim.len(), bare.swim.stats().members_refused), (4, refused));
    }
    while bare.swim.member(id(3)).unwrap().is_live() {
        bare.meet(4);
        assert_eq!(bare.swim.member(id(4)).map(|member| member.id()), None);
        bare.run(SECOND);
    }
    bare.tell(2, &frame(UPDATES, &left(2)));
    for (newcomer, gone) in [(4, 3), (5, 2)] {
        bare.meet(newcomer);
        assert!(bare.swim.member(id(newcomer)).is_some_and(Member::is_live));
        assert_eq!(bare.swim.member(id(gone)).map(|member| member.id()), None);
    }
    let refused = bare.swim.stats().members_refused;
    bare.meet(6);
    assert_eq!(bare.swim.stats().members_refused, refused + 1);
    // What is left of the tombstones is void.
    bare.answering = vec![1, 4, 5];
    bare.run(SECOND * 200);
    assert_eq!((bare.swim.len(), bare.swim.former_members().count()), (4, 0));
}

/// Goal: a tombstone lasts as long as it shall, and no longer. Method: a death and a goodbye.
#[test]
fn the_gone_are_remembered_for_their_time() {
    let mut config = Config::lan();
    config.tombstone_age = SECOND * 100;
    let mut bare = Bare::among(config, 1..=3);
    bare.answering = vec![2, 3];
    bare.run(SECOND * 2);
    bare.tell(2, &frame(UPDATES, &left(2)));
    let left_at = bare.now;
    while bare.swim.member(id(1)).unwrap().is_live() {
        let due = bare.swim.poll_timeout().unwrap();
        bare.run_to(due);
    }
    let died_at = bare.now;
    for (place, start) in [(2, left_at), (1, died_at)] {
        bare.run_to(start + (SECOND * 100 - NANO));
        assert!(bare.swim.member(id(place)).is_some());
        bare.run(NANO);
        assert!(bare.swim.member(id(place)).is_none());
    }
}

/// Goal: rows about others are believed of members, and of whom this node asked, alone. Method: news of a third by
/// each; a stranger is believed about itself.
#[test]
fn strangers_are_believed_about_themselves_alone() {
    for (teller, asked, believed) in [(1, false, true), (9, false, false), (9, true, true)] {
        let mut bare = calm(1);
        if asked {
            bare.swim.join(bare.now, &[addr(9)]);
        }
        bare.tell(teller, &frame(UPDATES, &alive(5, 1, 0)));
        assert_eq!(bare.swim.member(id(5)).is_some(), believed, "told by {teller}");
        assert_eq!(bare.swim.stats().misaddressed, u64::from(!believed));
        bare.tell(teller, &frame(UPDATES, &accused(SUSPECT, 1, 0, &[9])));
        assert_eq!(bare.suspected(1), believed);
        assert_eq!(bare.swim.stats().misaddressed, 2 * u64::from(!believed));
    }
    let mut bare = calm(1);
    bare.meet(9);
    assert!(bare.swim.member(id(9)).is_some());
}

/// Goal: who tells what is out of date is told better, at once, and nobody else is: the two would go on for ever.
/// Method: a member that is known in boot 1 with incarnation 5, in each state, and all kinds of news of it.
#[test]
fn who_tells_old_news_is_corrected() {
    let known: [(State, Option<Vec<u8>>); 4] = [
        (State::Alive, None),
        (State::Suspect, Some(accused(SUSPECT, 1, 5, &[3]))),
        (State::Dead, Some(accused(SUSPECT, 1, 5, &[3]))),
        (State::Left, Some(left(1))),
    ];
    // The news, and whether it is corrected where the member is alive, suspect, dead or left.
    let news: [(&str, Vec<u8>, [bool; 4]); 13] = [
        ("alive in the boot before", alive(1, 0, 9), [true; 4]),
        ("alive, an incarnation ago", alive(1, 1, 4), [false, true, true, true]),
        ("alive as known", alive(1, 1, 5), [false, true, true, true]),
        ("alive, an incarnation later", alive(1, 1, 6), [false, false, false, true]),
        ("suspect in the boot before", accused_in(0, SUSPECT, 1, 9, &[3]), [true; 4]),
        ("suspect in the boot after", accused_in(2, SUSPECT, 1, 0, &[3]), [false; 4]),
        ("suspect, an incarnation ago", accused(SUSPECT, 1, 4, &[3]), [true; 4]),
        ("suspect as known", accused(SUSPECT, 1, 5, &[3]), [false, false, true, true]),
        (
            "suspect, an incarnation later",
            accused(SUSPECT, 1, 6, &[3]),
            [false, false, false, true],
        ),
        ("dead, an incarnation ago", accused(DEAD, 1, 4, &[3]), [true; 4]),
        ("dead as known", accused(DEAD, 1, 5, &[3]), [false; 4]),
        ("left in the boot before", left_in(0, 1), [true; 4]),
        ("left in the boot after", left_in(2, 1), [false; 4]),
    ];
    for (at, (state, how)) in known.into_iter().enumerate() {
        for (what, row, corrected) in &news {
            let mut config = Config::lan();
            config.gossip_interval = SECOND * 3600 * 24;
            config.suspicion_min = if state == State::Dead { 1 } else { 1_000 };
            let mut bare = Bare::among(config, 2..=3);
            bare.tell(2, &frame(UPDATES, &alive(1, 1, 5)));
            // One that answers is not held dead.
            bare.answering = if state == State::Dead { vec![2, 3] } else { vec![1, 2, 3] };
            if let Some(row) = &how {
                bare.tell(3, &frame(UPDATES, row));
            }
            if state == State::Dead {
                bare.run(SECOND * 10);
            }
            bare.sent();
            assert_eq!(bare.swim.member(id(1)).unwrap().state(), state);
            bare.tell(2, &frame(UPDATES, row));
            let sent = bare.sent();
            assert_eq!(places(&sent, UPDATES).contains(&2), corrected[at], "{what} of {state:?}");
            // One of whom a verdict is the first word is told, for it may have little time.
            let warned = *what == "dead as known" && state == State::Alive;
            let about = |sent: &Sent| sent.to == addr(2) || warned && sent.to == addr(1);
            assert!(sent.iter().all(about), "{what} of {state:?}");
            let row = id(1).0.to_le_bytes();
            assert!(sent.iter().all(|sent| sent.bytes.windows(8).any(|part| part == row)));
        }
    }
}

/// Goal: the last frame that a node hears before it is silent is the last that it answers. Method: the acknowledgement that ends
/// its leave, and a ping, in one datagram; and a timer that is late.
#[test]
fn who_is_silent_says_nothing_more() {
    for late in [false, true] {
        let mut config = Config::lan();
        config.leave_acks = 1;
        let mut bare = Bare::among(config, 1..=3);
        bare.swim.leave(bare.now);
        bare.sent();
        if late {
            bare.now += SECOND * 60;
            bare.swim.handle_timeout(bare.now);
        } else {
            let ping = frame(PING, &[&varint(9)[..], &id(0).0.to_le_bytes()].concat());
            bare.tell(1, &[frame(LEFT_ACK, &[]), ping].concat());
        }
        assert!(bare.events().iter().any(|event| matches!(event, Event::LeaveFinished { .. })));
        assert!(bare.sent().is_empty());
    }
}

/// Goal: a node that stood still for longer than the gone are remembered tells nobody of members that may be gone, but of those
/// of whom it has heard since. Method: it wakes up after a day, by a timer or a packet, and a newcomer asks it for all; then
/// some answer its probes, and of one another tells.
#[test]
fn who_stood_still_for_too_long_tells_of_nobody_that_may_be_gone() {
    for woken_by_packet in [false, true] {
        let mut bare = Bare::among(Config::lan(), 1..=9);
        bare.answering = (1..=9).collect();
        bare.run(SECOND * 5);
        bare.answering.retain(|place| *place != 4);
        let asked = bare.next_probe(4);
        bare.now += Config::lan().tombstone_age;
        if woken_by_packet {
            bare.tell(1, &frame(PING, &[&varint(9)[..], &id(0).0.to_le_bytes()].concat()));
        } else {
            bare.swim.handle_timeout(bare.now);
        }
        bare.answering.clear();
        let mut told = Vec::new();
        for newcomer in 20..=22 {
            bare.sent();
            bare.tell(newcomer, &join(0, newcomer, 1, addr(newcomer).port()));
            let sent = bare.sent();
            let cookie = sent.iter().find_map(|sent| sent.frame(COOKIE)).unwrap();
            let cookie = u64::from_le_bytes(cookie.try_into().unwrap());
            bare.tell(newcomer, &join(cookie, newcomer, 1, addr(newcomer).port()));
            let sent = bare.sent();
            let to = |sent: &&Sent| sent.to == addr(newcomer);
            let about = |place: &usize| {
                let head = [&[ALIVE][..], &id(*place).0.to_le_bytes()].concat();
                let rows = |sent: &Sent| {
                    sent.frames(UPDATES).iter().any(|rows| rows.windows(9).any(|part| part == head))
                };
                sent.iter().filter(to).any(rows)
            };
            told.push((0..=9).filter(about).collect::<Vec<_>>());
            if newcomer == 20 {
                // What was sent long ago is heard now.
                bare.tell(4, &[frame(UPDATES, &alive(4, 1, 0)), ack(asked.seq(PING))].concat());
                bare.tell(2, &frame(UPDATES, &alive(5, 1, 1)));
            } else {
                // All are probed meanwhile.
                bare.answering = vec![2, 3];
                bare.run(SECOND * 60);
            }
        }
        assert_eq!(told, [vec![0], vec![0, 5], vec![0, 2, 3]]);
    }
}

/// Goal: who came back does not keep those who are gone in a full table. Method: a hundred fail, two thirds of them come back, and
/// a newcomer asks.
#[test]
fn who_came_back_does_not_keep_the_gone() {
    let mut config = Config::lan();
    config.max_members = 201;
    let mut bare = Bare::among(config, 1..=200);
    bare.answering = (101..=200).collect();
    while (1..=100).any(|place| bare.swim.member(id(place)).unwrap().is_live()) {
        bare.run(SECOND);
    }
    for place in 1..=64 {
        bare.tell(place, &frame(UPDATES, &alive(place, 1, 1)));
    }
    bare.meet(300);
    assert!(bare.swim.member(id(300)).is_some_and(Member::is_live));
}
