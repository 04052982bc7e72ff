//! What others say of a member that does not answer them: when it is believed, and when it is not.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::bare::{
    ALIVE, Bare, DEAD, PING, SUSPECT, UPDATES, accused, ack, alive, frame, id, millis, places,
};
use brickwork_core::Event;
use brickwork_core::swim::{Config, State};

const NODES: usize = 12;

fn cluster() -> Bare {
    let mut bare = Bare::among(Config::lan(), 1..NODES);
    bare.answering = (1..NODES).collect();
    bare.run(Duration::from_secs(2));
    bare.events();
    bare
}

/// The member at `by` says that the one at `of` is suspect or dead.
fn accuse(bare: &mut Bare, kind: u8, of: usize, by: usize) {
    bare.tell(by, &frame(UPDATES, &accused(kind, of, 0, &[by])));
}

fn state(bare: &Bare, place: usize) -> State {
    bare.swim.member(id(place)).unwrap().state()
}

/// Goal: nobody is held dead by the word of one who was apart from all. Method: members that were held dead come back,
/// and say of others what they believed meanwhile.
#[test]
fn who_comes_back_does_not_take_others_along() {
    let mut bare = cluster();
    bare.answering.retain(|place| *place > 3);
    (1..=3).for_each(|of| (4..8).for_each(|by| accuse(&mut bare, DEAD, of, by)));
    bare.run(Duration::from_secs(1));
    assert!((1..=3).all(|place| state(&bare, place) == State::Dead));
    bare.answering = (1..NODES).collect();
    // They do not know yet that they were, and then they do.
    for incarnation in [0, 1] {
        (1..=3).for_each(|place| bare.tell(place, &frame(UPDATES, &alive(place, 1, incarnation))));
        (1..=3).for_each(|by| (4..NODES).for_each(|of| accuse(&mut bare, DEAD, of, by)));
        let warned = places(&bare.sent(), UPDATES);
        assert!((4..NODES).all(|of| warned.contains(&of)), "{warned:?} were told to refute");
        assert!((4..NODES).all(|of| state(&bare, of) == State::Alive));
    }
    assert!((1..=3).all(|place| state(&bare, place) == State::Alive));
    bare.run(Duration::from_secs(60));
    // From then on it counts again.
    accuse(&mut bare, SUSPECT, 4, 1);
    assert_eq!(state(&bare, 4), State::Suspect);
}

/// Goal: once three have waited for a refutation in vain, nobody else has to. Method: so many members say of another that
/// it is dead, one of them again and again.
#[test]
fn the_verdicts_of_three_are_enough() {
    for (said_by, failed) in [(&[1, 2, 1, 1, 1][..], false), (&[1, 2, 3], true)] {
        let mut bare = cluster();
        bare.answering.retain(|place| *place != 5);
        said_by.iter().for_each(|by| accuse(&mut bare, DEAD, 5, *by));
        bare.run(millis(1));
        let is_failed = |event: &Event| *event == Event::Failed { id: id(5) };
        assert_eq!(bare.events().iter().any(is_failed), failed, "{said_by:?}");
    }
    // Suspicion is no verdict, whoever shares it.
    let mut bare = cluster();
    (1..=4).for_each(|by| accuse(&mut bare, SUSPECT, 5, by));
    bare.run(millis(900));
    assert_eq!(state(&bare, 5), State::Suspect);
}

/// Goal: nobody is given up by the word of one peer before it was looked for. Method: one member accuses another, which
/// answers but has not heard of it, or is really gone.
#[test]
fn what_one_alone_says_is_looked_into() {
    for gone in [false, true] {
        let mut bare = cluster();
        let start = bare.now;
        accuse(&mut bare, SUSPECT, 5, 1);
        bare.answering.retain(|place| !gone || *place != 5);
        let mut asked = 0;
        while bare.now < start + Duration::from_secs(40) && state(&bare, 5) == State::Suspect {
            let sent = bare.run(millis(10));
            let pings: Vec<_> = sent.iter().filter(|sent| sent.is(PING, 5)).collect();
            asked += pings.len();
            // It hears of its accusation from the ping alone, and late.
            let told = pings.first().filter(|_| !gone && bare.now > start + Duration::from_secs(6));
            if let Some(ping) = told {
                let refutation = frame(UPDATES, &alive(5, 1, 1));
                bare.tell(5, &[ack(ping.seq(PING)), refutation].concat());
            }
        }
        assert_eq!(state(&bare, 5), if gone { State::Dead } else { State::Alive });
        assert!(asked > 0);
    }
}

/// Goal: what all know is told no more. Method: so many members tell what this node has to tell itself.
#[test]
fn what_three_packets_tell_is_told_no_more() {
    let rows = |sent: &[crate::common::bare::Sent]| {
        let of = id(20).0.to_le_bytes();
        let row = |sent: &&crate::common::bare::Sent| {
            let body = sent.frame(UPDATES).unwrap_or_default();
            body.windows(9).any(|bytes| bytes[0] == ALIVE && bytes[1..] == of)
        };
        sent.iter().filter(row).count()
    };
    for (told, silent) in [(2, false), (3, true)] {
        let mut bare = cluster();
        bare.run(Duration::from_secs(20));
        let news = frame(UPDATES, &alive(20, 1, 0));
        bare.tell(20, &news);
        (1..=told).for_each(|place| bare.tell(place, &news));
        let sent = bare.run(Duration::from_secs(5));
        assert_eq!(rows(&sent) == 0, silent, "{told}: {}", rows(&sent));
    }
}

/// Goal: nobody's numbers are put where it cannot follow. Method: others say of a member, and of this node, that it has
/// raised its incarnation, by as much as may have been missed, and by more.
#[test]
fn numbers_are_raised_by_others_in_steps_alone() {
    let mut bare = cluster();
    let known = |bare: &Bare| bare.swim.member(id(5)).unwrap().incarnation();
    let steps = [(3, 8, 8), (3, 17, 8), (3, u32::MAX / 2, 8), (5, 1_000, 1_000), (3, 1_008, 1_008)];
    for (by, said, believed) in steps {
        bare.tell(by, &frame(UPDATES, &alive(5, 1, said)));
        assert_eq!(known(&bare), believed, "{by} said {said}");
        // It is asked, by an accusation of the numbers that are known, so that it has to show its own.
        assert_eq!(places(&bare.sent(), UPDATES).contains(&5), believed < said);
    }
    for (said, own) in [(0, 1), (5, 6), (1_000, 15)] {
        bare.tell(3, &frame(UPDATES, &accused(SUSPECT, 0, said, &[3])));
        bare.run(millis(60));
        assert_eq!(bare.swim.me().incarnation(), own, "accused at {said}");
    }
}
