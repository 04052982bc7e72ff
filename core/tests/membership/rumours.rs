//! The rules of HashiCorp memberlist, to be compared with: its figures are worth something only as far as these hold.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::bare::{
    Bare, DEAD, JOIN, PING, PING_REQ, PUSH_PULL, SUSPECT, Sent, UPDATES, accused, alive, frame, id,
    millis, places, times,
};
use brickwork_core::Event;
use brickwork_core::swim::{Accusation, Config, State};

const SECOND: Duration = Duration::from_secs(1);

/// A node among so many, itself included, who all answer pings.
fn cluster(members: usize) -> Bare {
    let mut bare = Bare::among(Config::memberlist_lan(), 1..members);
    bare.answering = (1..members).collect();
    bare.run(SECOND / 10);
    bare.events();
    bare
}

fn state(bare: &Bare, place: usize) -> State {
    bare.swim.member(id(place)).unwrap().state()
}

fn told(sent: &[Sent], to: usize) -> usize {
    sent.iter().filter(|sent| sent.is(UPDATES, to)).count()
}

/// Goal: a probe is one ping, then at half a second one more, in the place of TCP, and three helpers, and nothing else. Method: a
/// member that does not answer, and helpers that do not.
#[test]
fn a_probe_is_a_ping_and_three_helpers() {
    let mut bare = cluster(12);
    bare.answering.retain(|place| *place != 5);
    let probe = bare.next_probe(5);
    let sent = bare.run_to(probe.at + millis(999));
    assert_eq!(times(&sent, PING, 5, probe.at), [500]);
    let helpers = places(&sent, PING_REQ);
    assert_eq!(helpers.len(), 3);
    assert!(helpers.iter().all(|helper| times(&sent, PING_REQ, *helper, probe.at) == [500]));
    assert_eq!(state(&bare, 5), State::Alive);
    bare.run(millis(1));
    assert_eq!(state(&bare, 5), State::Suspect);
}

/// Goal: the timeout after so many confirmations is that of its formula. Method: accusers of a member that answers pings and does
/// not refute, among 100: 48 s, 22.8 s, 8 s; and among three, where nobody is left to confirm: four probe intervals.
#[test]
fn a_suspicion_lasts_as_its_formula_says() {
    for (members, accusers, seconds) in
        [(100, 1, 48.0), (100, 2, 22.763), (100, 3, 8.0), (100, 4, 8.0), (3, 1, 4.0)]
    {
        let mut bare = cluster(members);
        let start = bare.now;
        let by = |accuser: usize| if members == 3 { 2 } else { 10 + accuser };
        for accuser in 0..accusers {
            // Twice by each: it counts once.
            for _ in 0..2 {
                bare.tell(by(accuser), &frame(UPDATES, &accused(SUSPECT, 1, 0, &[by(accuser)])));
            }
        }
        while state(&bare, 1) == State::Suspect {
            bare.run(millis(1));
        }
        let took = (bare.now - start).as_secs_f64();
        assert!((took - seconds).abs() < 0.01, "{took} s by {accusers} of {members}");
        assert!(bare.events().contains(&Event::Failed { id: id(1) }));
    }
}

/// Goal: who is told of a death believes it, and who hears what is no news says nothing. Method: a verdict, and older news.
#[test]
fn deaths_are_believed_and_nobody_is_corrected() {
    let mut bare = cluster(12);
    bare.tell(2, &frame(UPDATES, &accused(DEAD, 1, 0, &[2])));
    assert_eq!(state(&bare, 1), State::Dead);
    bare.tell(3, &frame(UPDATES, &alive(3, 1, 5)));
    // The dead are forgotten after half a minute.
    bare.run(20 * SECOND);
    bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 3, 4, &[2])));
    bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 1, 0, &[2])));
    bare.tell(2, &frame(UPDATES, &alive(1, 1, 0)));
    assert_eq!((state(&bare, 1), state(&bare, 3)), (State::Dead, State::Alive));
    assert_eq!(told(&bare.sent(), 2), 0);
    // What is newer brings it back, whoever tells it.
    bare.tell(2, &frame(UPDATES, &alive(1, 1, 1)));
    assert_eq!(state(&bare, 1), State::Alive);
}

/// Goal: a refutation goes beyond what it is accused at, however far. Method: that.
#[test]
fn a_refutation_jumps() {
    let mut bare = cluster(12);
    for (accused_at, then) in [(0, 1), (1_000, 1_001), (7, 1_001), (1_001, 1_002)] {
        bare.tell(2, &frame(UPDATES, &accused(SUSPECT, 0, accused_at, &[2])));
        assert_eq!(bare.swim.me().incarnation(), then);
    }
}

/// Goal: tables are exchanged each half minute among up to 32, each minute and a half among 100, and what the other holds dead
/// is suspected. Method: an hour without news, and a table with a dead member.
#[test]
fn tables_are_exchanged() {
    for (members, interval) in [(12, 30), (32, 30), (100, 90)] {
        let mut bare = cluster(members);
        let mut begun = 0;
        for _ in 0..60 {
            let sent = bare.run(60 * SECOND);
            // A large table takes several datagrams, at one moment.
            let mut moments: Vec<_> = sent
                .iter()
                .filter(|sent| sent.frame(PUSH_PULL).is_some())
                .map(|sent| sent.at)
                .collect();
            moments.dedup();
            begun += moments.len();
        }
        assert!(begun.abs_diff(3_600 / interval) <= 1, "{begun} among {members}");
    }
    let mut bare = cluster(12);
    let table = [&[0][..], &accused(DEAD, 1, 0, &[2]), &alive(2, 1, 0)].concat();
    bare.tell(2, &frame(PUSH_PULL, &table));
    assert_eq!(state(&bare, 1), State::Suspect);
    let suspected = |event: &Event| matches!(event, Event::Suspected { id: of, by, why: Accusation::Word } if *of == id(1) && *by == id(0));
    assert!(bare.events().iter().any(suspected), "by this node itself");
}

/// Goal: a suspicion is told with its last accuser alone. Method: three accusers.
#[test]
fn one_accuser_is_told() {
    let mut bare = cluster(12);
    for accuser in [2, 3, 4] {
        bare.tell(accuser, &frame(UPDATES, &accused(SUSPECT, 1, 0, &[accuser])));
    }
    let sent = bare.run(SECOND);
    let row = accused(SUSPECT, 1, 0, &[4]);
    let rows: Vec<_> = sent.iter().flat_map(|sent| sent.frames(UPDATES)).collect();
    let head = &row[..18];
    let about: Vec<_> = rows
        .iter()
        .filter_map(|rows| {
            rows.windows(head.len())
                .position(|part| part == head)
                .map(|at| &rows[at..at + row.len()])
        })
        .collect();
    assert!(about.len() > 3 && about.iter().all(|told| *told == row), "{about:?}");
}

/// Goal: who has members looks for nobody. Method: one dies among many, and an hour.
#[test]
fn nobody_knocks_at_the_lost() {
    let mut bare = cluster(12);
    bare.answering.retain(|place| *place != 1);
    while state(&bare, 1) != State::Dead {
        bare.run(SECOND);
    }
    // Gossip still goes to who died lately, pings and joins do not.
    let sent = bare.run(3_600 * SECOND);
    assert_eq!((times(&sent, PING, 1, bare.now).len(), places(&sent, JOIN).len()), (0, 0));
}
