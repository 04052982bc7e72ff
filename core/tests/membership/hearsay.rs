//! What others say of a member that does not answer them: when it is believed, and when it is not.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::addr;
use crate::common::bare::{
    ALIVE, Bare, DEAD, NUMBERS, PING, PUSH_PULL, SUSPECT, UPDATES, accused, ack, alive, alive_with,
    frame, id, left, millis, places,
};
use brickwork_core::Event;
use brickwork_core::swim::{Accusation, Config, State};

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
        bare.run(millis(299));
        assert_eq!(state(&bare, 5), State::Suspect, "it has as long as a probe to answer");
        bare.run(millis(1));
        let is_failed = |event: &Event| *event == Event::Failed { id: id(5) };
        assert_eq!(bare.events().iter().any(is_failed), failed, "{said_by:?}");
    }
    // One who is here but was not heard of is told, and answers.
    let mut bare = cluster();
    (1..=3).for_each(|by| accuse(&mut bare, DEAD, 5, by));
    assert!(places(&bare.sent(), UPDATES).contains(&5));
    bare.tell(5, &frame(UPDATES, &alive(5, 1, 1)));
    bare.run(Duration::from_secs(2));
    assert_eq!(state(&bare, 5), State::Alive);
    // Those who are suspect here themselves do not count.
    let mut bare = cluster();
    bare.answering.retain(|place| *place != 5);
    (1..=3).for_each(|of| accuse(&mut bare, SUSPECT, of, 9));
    (1..=3).for_each(|by| accuse(&mut bare, DEAD, 5, by));
    bare.run(millis(600));
    assert_eq!(state(&bare, 5), State::Suspect);
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

/// Goal: a probe that may have failed by chance is repeated before one's word is believed. Method: members answer the first
/// ping or the fourth alone; then one that is gone is accused by another, or by this node itself.
#[test]
fn where_losses_are_many_a_member_is_looked_for_twice() {
    for (answered, accused, looks) in [(1, true, 1), (4, true, 2), (1, false, 1), (4, false, 2)] {
        let mut bare = Bare::among(Config::lan(), 1..NODES);
        let (mut probes, mut failed, mut told) = (BTreeMap::new(), BTreeSet::new(), !accused);
        let start = bare.now;
        while state(&bare, 5) != State::Dead {
            assert!(bare.now < start + Duration::from_secs(200), "{answered} {accused}");
            let gone = bare.now >= start + Duration::from_secs(60);
            if gone && !std::mem::replace(&mut told, true) {
                accuse(&mut bare, SUSPECT, 5, 1);
            }
            for sent in bare.run(millis(1)).iter().filter(|sent| sent.frame(PING).is_some()) {
                let (place, seq) = (usize::from(sent.to.port()) - 1000, sent.seq(PING));
                let (first, count) = probes.entry(place).or_insert((seq, 0));
                if seq >= *first + NUMBERS {
                    (*first, *count) = (seq, 0);
                }
                *count += 1;
                if *count == answered && !(gone && place == 5) {
                    bare.tell(place, &ack(seq));
                }
                if gone && place == 5 {
                    failed.insert(*first);
                }
            }
        }
        assert_eq!(failed.len(), looks, "{answered} {accused}");
    }
}

/// Goal: a look is not cut short. Method: a member is accused by one again and again, and answers pings, but its
/// refutations are lost; then one comes.
#[test]
fn who_answers_is_not_given_up_however_often_it_is_accused() {
    let mut bare = cluster();
    let start = bare.now;
    while bare.now < start + Duration::from_secs(120) {
        accuse(&mut bare, SUSPECT, 5, 1);
        bare.run(millis(100));
        assert_eq!(state(&bare, 5), State::Suspect);
    }
    bare.tell(5, &frame(UPDATES, &alive(5, 1, 1)));
    assert_eq!(state(&bare, 5), State::Alive);
}

/// Goal: nobody counts as an accuser who is none. Method: one member names four, who are not known, or this node, which
/// has seen nothing; another one repeats it.
#[test]
fn made_up_accusers_hurry_nothing() {
    for named in [&[20, 21, 22, 23][..], &[0, 20, 21, 22]] {
        let mut bare = cluster();
        let row = frame(UPDATES, &accused(SUSPECT, 5, 0, named));
        [1, 2].into_iter().for_each(|by| bare.tell(by, &row));
        bare.run(Duration::from_secs(3));
        assert_eq!(state(&bare, 5), State::Suspect, "{named:?}");
    }
    // Four that are known are enough, though.
    let mut bare = cluster();
    bare.answering.retain(|place| *place != 5);
    let row = frame(UPDATES, &accused(SUSPECT, 5, 0, &[6, 7, 8, 9]));
    [1, 2].into_iter().for_each(|by| bare.tell(by, &row));
    bare.run(Duration::from_secs(3));
    assert_eq!(state(&bare, 5), State::Dead);
}

/// Goal: accusers that do not exist are not told again and again, and real ones take their place. Method: a row with as many
/// as are kept is repeated, between two rounds of gossip each time; then two members accuse by themselves.
#[test]
fn made_up_accusers_are_no_news_twice() {
    let mut bare = cluster();
    let row = frame(UPDATES, &accused(SUSPECT, 5, 0, &[20, 21, 22, 23]));
    let told = |sent: &[crate::common::bare::Sent]| {
        let of = [&[SUSPECT][..], &id(5).0.to_le_bytes()].concat();
        let row = |sent: &&crate::common::bare::Sent| {
            let body = sent.frame(UPDATES).unwrap_or_default();
            sent.to != addr(5) && body.windows(9).any(|bytes| bytes == of)
        };
        sent.iter().filter(row).count()
    };
    bare.tell(1, &row);
    bare.run(Duration::from_secs(4));
    let mut again = 0;
    for by in [1, 2, 3, 4, 1, 2] {
        bare.tell(by, &row);
        again += told(&bare.run(millis(250)));
    }
    assert_eq!(again, 0, "it is news no more");
    [6, 7].into_iter().for_each(|by| accuse(&mut bare, SUSPECT, 5, by));
    assert_eq!(bare.swim.why(id(5)).unwrap().accusers, [id(6), id(7)]);
}

/// Goal: tables as memberlist exchanges them say nothing by other rules. Method: a stranger and a member send one with an
/// accusation at a number that nobody can exceed, and ask for an answer.
#[test]
fn a_table_that_nobody_asked_for_is_not_believed() {
    let mut bare = cluster();
    let table = frame(PUSH_PULL, &[&[1], &accused(SUSPECT, 5, u32::MAX, &[1])[..]].concat());
    for by in [1, 20] {
        bare.tell(by, &table);
        assert_eq!((state(&bare, 5), bare.sent().len()), (State::Alive, 0));
        assert_eq!(bare.swim.member(id(5)).unwrap().incarnation(), 0);
    }
    assert_eq!(bare.swim.stats().misaddressed, 2);
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
        bare.meet(20);
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
    // Several at a time, as a packet may tell them, raise it no further than one.
    let steps = [
        (3, &[8][..], 8),
        (3, &[12, 20, 28], 16),
        (3, &[u32::MAX / 2], 24),
        (5, &[1_000], 1_000),
        (3, &[1_008], 1_008),
        (3, &[1_009], 1_009),
    ];
    // The same holds for who is heard of for the first time.
    for (by, believed) in [(3, 1_024), (20, 9_000)] {
        bare.tell(by, &frame(UPDATES, &alive(20, 1, 9_000)));
        assert_eq!(bare.swim.member(id(20)).unwrap().incarnation(), believed);
    }
    bare.sent();
    for (by, said, believed) in steps {
        bare.run(millis(50));
        for said in said {
            bare.tell(by, &frame(UPDATES, &alive(5, 1, *said)));
        }
        assert_eq!(known(&bare), believed, "{by} said {said:?}");
    }
    assert_eq!(bare.swim.stats().jumps_cut, 4);
    // What it says itself counts, and what others say of what they saw of it.
    accuse(&mut bare, SUSPECT, 6, 1);
    bare.tell(3, &frame(UPDATES, &alive(6, 1, 2_000)));
    assert_eq!(
        state(&bare, 6),
        State::Alive,
        "a refutation is one, however far it has come meanwhile"
    );
    for (said, own) in [(0, 1), (5, 6), (1_000, 14), (14, 15)] {
        bare.tell(3, &frame(UPDATES, &accused(SUSPECT, 0, said, &[3])));
        bare.run(millis(60));
        assert_eq!(bare.swim.me().incarnation(), own, "accused at {said}");
    }
}

/// Goal: a row that was told before refutes nothing, although others have told of the member alone. Method: one is
/// heard of at an incarnation to which it came long ago, fails, and is told of again, also by itself, in datagrams that were
/// late; then it refutes.
#[test]
fn an_old_row_refutes_nothing() {
    for dead in [false, true] {
        let mut bare = cluster();
        let told = frame(UPDATES, &alive(20, 1, 100));
        bare.tell(1, &told);
        while state(&bare, 20) == State::Alive || dead && state(&bare, 20) == State::Suspect {
            bare.run(millis(100));
        }
        let was = state(&bare, 20);
        bare.events();
        for _ in 0..20 {
            bare.run(millis(55));
            bare.tell(2, &told);
        }
        let of_it = |event: &Event| {
            matches!(event, Event::Joined { identity } if identity.id() == id(20))
                || *event == Event::Recovered { id: id(20) }
        };
        assert_eq!(bare.events().iter().filter(|event| of_it(event)).count(), 0);
        assert!(state(&bare, 20) == was || was == State::Suspect);
        // One that is higher does, whoever tells it, and so does its own word.
        bare.tell(20, &told);
        assert!(!bare.events().iter().any(of_it));
        bare.tell(if dead { 2 } else { 20 }, &frame(UPDATES, &alive(20, 1, 101)));
        assert_eq!(state(&bare, 20), State::Alive);
    }
}

/// Goal: metadata never go back to what they were, in whichever order others tell of them. Method: three versions, far beyond
/// what is believed, in each order.
#[test]
fn metadata_told_by_others_do_not_go_back() {
    let port = addr(20).port();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut bare = cluster();
        for version in order {
            let row = alive_with(20, 1, 0, 9_000 + version, port, &[version as u8]);
            bare.tell(1, &frame(UPDATES, &row));
        }
        assert_eq!(bare.swim.member(id(20)).unwrap().identity().meta(), [2], "{order:?}");
        // And no more often than there was news.
        let highest = order.iter().scan(-1, |most, &version| {
            let news = version as i32 > *most;
            *most = (*most).max(version as i32);
            Some(news)
        });
        let updated = |event: &&Event| matches!(event, Event::Updated { .. });
        let news = highest.filter(|news| *news).count() - 1;
        assert_eq!(bare.events().iter().filter(updated).count(), news, "{order:?}");
    }
}

/// Goal: an application is told how a suspicion began. Method: a probe that fails, a word, a verdict, and a leave that was made up.
#[test]
fn a_suspicion_tells_how_it_began() {
    let why = |bare: &mut Bare| {
        bare.events().into_iter().find_map(|event| {
            let Event::Suspected { id: of, by, why } = event else { return None };
            (of == id(5)).then_some((by, why))
        })
    };
    let mut forged = left(5);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (row, expected) in [
        (accused(SUSPECT, 5, 0, &[7, 8]), Accusation::Word),
        (accused(DEAD, 5, 0, &[7]), Accusation::Verdict),
    ] {
        let mut bare = cluster();
        bare.tell(6, &frame(UPDATES, &row));
        assert_eq!(why(&mut bare), Some((id(7), expected)));
    }
    let mut bare = cluster();
    bare.tell(6, &frame(UPDATES, &forged));
    assert_eq!(why(&mut bare), Some((id(6), Accusation::Leave)));
    let mut bare = cluster();
    bare.answering.retain(|place| *place != 5);
    bare.run(Duration::from_secs(2 * NODES as u64));
    assert_eq!(why(&mut bare), Some((id(0), Accusation::Probe)));
}

/// Goal: those that accuse a node have its answer from itself, and not only the one who told so. Method: one member tells of three
/// accusers, of one that has left and of one that nobody knows.
#[test]
fn all_accusers_are_answered() {
    let mut bare = cluster();
    bare.tell(10, &frame(UPDATES, &left(10)));
    bare.sent();
    bare.tell(6, &frame(UPDATES, &accused(SUSPECT, 0, 0, &[7, 8, 9, 10, 99])));
    let refutation = alive(0, 1, 1);
    let told = bare.sent().into_iter().filter(|sent| {
        sent.frames(UPDATES).iter().any(|rows| rows.windows(18).any(|row| row == &refutation[..18]))
    });
    let mut told: Vec<_> = told.map(|sent| sent.to).collect();
    told.sort();
    assert_eq!(told, [6, 7, 8, 9].map(addr));
}
