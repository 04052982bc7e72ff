//! Whom a map asks for what it misses, and how long it waits, with every peer played by the test.

#![allow(clippy::unwrap_used)]

use crate::common::bare::{millis, read_varint};
use crate::common::maps::NOW;
use crate::common::played::{
    OWN, PULL, among, among_seeded, chunk, run, state, tell, times, write,
};
use brickwork_core::map::Config;

const LAST: u8 = 1;
const MORE: u8 = 2;

/// Goal: the only peer that has told of anything is asked again, however many others there are. Method: it does not answer,
/// and forty others have told nothing.
#[test]
fn the_only_one_to_have_told_of_anything_is_asked_again() {
    let mut map = among(&Config::lan(), 2..42);
    tell(&mut map, NOW, 7, &state(9));
    let pulls = run(&mut map, PULL, NOW, NOW + millis(3000));
    assert_eq!(times(&pulls), [0, 300, 600, 900, 1200, 1500, 2100]);
    assert!(pulls.iter().all(|(_, to, _)| *to == 7));
}

/// Goal: who tells something is asked before those who may be gone. Method: of seven peers six fall silent after they have told
/// of a change; the last one repeats its own.
#[test]
fn who_speaks_is_asked_before_the_silent() {
    for seed in 0..20 {
        let mut map = among_seeded(&Config::lan(), 2..9, seed);
        for peer in 2..9 {
            tell(&mut map, NOW, peer, &state(peer));
        }
        // Each leaves more than three pulls unanswered, and so its last one is waited for long.
        let late = NOW + millis(300_000);
        let before = run(&mut map, PULL, NOW, late);
        tell(&mut map, late, 5, &state(99));
        let pulls = run(&mut map, PULL, late, late + millis(2_000));
        let (at, asked) = (pulls[0].0 - late, pulls[0].1);
        // If it is itself that was asked last, its answer may be under way.
        if before[before.len() - 1].1 == 5 {
            assert_eq!(at, millis(1_200), "seed {seed}");
        } else {
            assert!(at <= millis(150) && asked == 5, "seed {seed}: {asked} after {at:?}");
        }
    }
}

/// Goal: who spoke while another one was asked is asked next, before that one is again. Method: of forty peers one tells
/// of something and answers nothing, or once, and another one speaks a while later, whenever that is.
#[test]
fn who_spoke_meanwhile_is_asked_next() {
    let moments = (0..1_200).step_by(20).map(|at| (at, false));
    for (at, answers) in moments.chain((200..1_200).step_by(20).map(|at| (at, true))) {
        let mut map = among(&Config::lan(), 2..42);
        tell(&mut map, NOW, 7, &state(9));
        let pulls = run(&mut map, PULL, NOW, NOW + millis(1));
        if answers {
            // So fast, so that it is soon given up, and often.
            let news = write(3, 1, OWN, b"key", b"value");
            let nonce = read_varint(&pulls[0].2);
            tell(&mut map, NOW + millis(1), 7, &chunk(nonce, 0, LAST | MORE, &news));
        }
        let later = NOW + millis(1 + at);
        run(&mut map, PULL, NOW, later);
        tell(&mut map, later, 8, &state(10));
        let pulls = run(&mut map, PULL, later, later + millis(1_000));
        assert_eq!(pulls[0].1, 8, "{at} ms, {answers}");
        let within = if answers { 150 } else { 300 };
        assert!(
            pulls[0].0 - later <= millis(within),
            "{at} ms, {answers}: {:?}",
            pulls[0].0 - later
        );
    }
}

/// Goal: who speaks and never answers, for it does not hear, is asked once for each of its words at most, and nobody is
/// more often than once per interval. Method: such peers, one of which speaks so often.
#[test]
fn the_deaf_are_not_asked_for_ever_faster() {
    for (peers, every, most) in [(1, 700, 120), (1, 2_000, 120), (5, 400, 400), (20, 50, 450)] {
        let mut map = among(&Config::lan(), 2..2 + peers);
        tell(&mut map, NOW, 2, &state(9));
        let pulls = run(&mut map, PULL, NOW, NOW + millis(1));
        let news = write(30, 1, OWN, b"key", b"value");
        tell(&mut map, NOW + millis(1), 2, &chunk(read_varint(&pulls[0].2), 0, LAST | MORE, &news));
        let mut asked = 0;
        for word in 0..60_000 / every {
            let now = NOW + millis(200 + word * every);
            tell(&mut map, now, 2 + word % peers, &state(10));
            asked += run(&mut map, PULL, now, now + millis(every)).len();
        }
        assert!((20..most).contains(&asked), "{peers} peers, each {every} ms: {asked}");
        println!("{peers} peers, a word each {every} ms: {asked}");
    }
}

/// Goal: who speaks again is waited for, as long as the answer may take. Method: another one speaks right after it.
#[test]
fn who_is_there_again_is_waited_for() {
    let mut map = among(&Config::lan(), [2, 3]);
    tell(&mut map, NOW, 2, &state(9));
    let late = NOW + millis(45_000);
    run(&mut map, PULL, NOW, late);
    tell(&mut map, late, 2, &state(10));
    tell(&mut map, late, 3, &state(11));
    let pulls = run(&mut map, PULL, late, late + millis(1_200));
    assert_eq!((times(&pulls), pulls[0].1), (vec![46_200], 3));
}

/// Goal: a pull that is answered is not given up, whoever speaks. Method: a peer that fell silent comes back with
/// a part of an answer while another one speaks.
#[test]
fn who_answers_is_silent_no_more() {
    let mut map = among(&Config::lan(), [2, 3]);
    tell(&mut map, NOW, 2, &state(9));
    let late = NOW + millis(45_000);
    let pulls = run(&mut map, PULL, NOW, late);
    let nonce = read_varint(&pulls[pulls.len() - 1].2);
    tell(&mut map, late, 2, &chunk(nonce, 0, 0, &write(4, 1, OWN, b"key", b"value")));
    tell(&mut map, late, 3, &state(10));
    assert_eq!(run(&mut map, PULL, late, late + millis(20)).len(), 0);
    tell(&mut map, late + millis(20), 2, &chunk(nonce, 1, LAST, &[]));
    let pulls = run(&mut map, PULL, late + millis(20), late + millis(170));
    assert_eq!(pulls.iter().map(|(_, to, _)| *to).collect::<Vec<_>>(), [3]);
}
