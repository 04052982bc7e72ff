//! Pushes, digests and pulls to the letter: when each leaves, and what ends it, with every peer played by the test.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::bare::{frame, millis, read_varint, varint};
use crate::common::maps::{NOW, addr, drain};
use crate::common::played::{
    BARE, CHUNK, Frame, OWN, PULL, STATE, among, chunk, run, state, tell, times, write,
};
use brickwork_core::map::{Config, Dot, Map, ReplicaId};
use brickwork_core::{Event, NodeId};
use proptest::prelude::*;

const LAST: u8 = 1;
const MORE: u8 = 2;

/// Goal: writes are pushed at once, but at most once per interval. Method: writes in quick succession, and later ones.
#[test]
fn writes_are_pushed_at_most_once_per_interval() {
    let mut map = among(&Config::lan(), [2]);
    let mut pushed = Vec::new();
    let writes = [0, 5, 7, 26, 60, 61, 500];
    for (at, next) in writes.into_iter().zip(writes.into_iter().skip(1).chain([1000])) {
        map.insert(NOW + millis(at), b"key", b"value").unwrap();
        let until = NOW + (millis(next) - Duration::from_nanos(1));
        pushed.extend(run(&mut map, CHUNK, NOW + millis(at), until));
    }
    assert_eq!(times(&pushed), [0, 20, 40, 60, 80, 500]);
}

/// Goal: in quiet times a peer is told the state once per interval, each in its turn; after a change somebody hears
/// of it within the shorter one. Method: counts over a minute, and a write of another replica.
#[test]
fn states_are_told_at_their_pace() {
    let mut map = among(&Config::lan(), 2..=4);
    let told = run(&mut map, STATE, NOW, NOW + millis(60_000));
    let at = times(&told);
    assert!((1500..2500).contains(&at[0]));
    assert!(at.windows(2).all(|pair| (1500..2500).contains(&(pair[1] - pair[0]))), "{at:?}");
    assert!(told.windows(3).all(|three| three[0].1 + three[1].1 + three[2].1 == 9), "by turns");
    let now = NOW + millis(60_000);
    tell(&mut map, now, 2, &chunk(0, 0, 0, &write(2, 1, OWN, b"key", b"value")));
    let told = run(&mut map, STATE, now, now + millis(10_000));
    let first = (told[0].0 - now).as_millis();
    assert!((112..188).contains(&first), "{first} ms");
    // What everybody must hear of before it is forgotten is told four times as often.
    let pace = (told[told.len() - 1].0 - told[0].0).as_millis() / (told.len() as u128 - 1);
    assert!((375..625).contains(&pace), "{pace} ms");
}

/// Goal: a peer that does not answer is asked again, some times at once and then less and less often, until it says
/// something. Method: one that never answers, and tells its state at last.
#[test]
fn pulls_that_nobody_answers_become_rare() {
    let mut map = among(&Config::lan(), [2]);
    tell(&mut map, NOW, 2, &state(9));
    let pulls = run(&mut map, PULL, NOW, NOW + millis(45_000));
    let expected = [0, 300, 600, 900, 1200, 1500, 2100, 3300, 5700, 10_500, 20_100, 29_700, 39_300];
    assert_eq!(times(&pulls), expected);
    assert_eq!((map.stats().pulls_sent, map.stats().pulls_timed_out), (13, 12));
    let late = NOW + millis(45_000);
    tell(&mut map, late, 2, &state(10));
    let pulls = run(&mut map, PULL, late, late + millis(1_300));
    assert_eq!(times(&pulls), [46_200], "the answer would be here by now");
}

/// Goal: a pull is given up after four usual answer times, within bounds. Method: answers that take their time, and
/// then none; how long the map waits tells what it takes for usual.
#[test]
fn the_usual_time_of_answers_is_measured() {
    let cases: [(&[u64], u128); 7] = [
        (&[], 300_000),
        (&[50_000], 200_000),
        (&[50_000, 30_000], 190_000),
        (&[50_000, 30_000, 80_000], 255_000),
        (&[50_000, 50_000], 200_000),
        (&[1_000], 25_000),
        (&[100_000], 300_000),
    ];
    for (answers, patience) in cases {
        let (mut map, mut now) = (among(&Config::lan(), [2]), NOW);
        for (digest, took) in (10..).zip(answers) {
            tell(&mut map, now, 2, &state(digest));
            let pulls = run(&mut map, PULL, now, now);
            now += Duration::from_micros(*took);
            tell(&mut map, now, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &[]));
            now += millis(1000);
            run(&mut map, PULL, now, now);
        }
        tell(&mut map, now, 2, &state(99));
        let pulls = run(&mut map, PULL, now, now + millis(310));
        assert_eq!((pulls[1].0 - pulls[0].0).as_micros(), patience, "after {answers:?}");
    }
}

/// Goal: a peer that has nothing new is not asked again until it says that it changed. Method: whole answers, answers
/// with a part missing, and with news.
#[test]
fn a_peer_without_news_is_left_alone() {
    let news = write(3, 1, OWN, b"key", b"value");
    // Numbers and contents of the chunks, whether there is more, and whether the same state is asked about again.
    type Case<'a> = (&'a [(u64, bool)], u8, bool, bool);
    let cases: [Case<'_>; 7] = [
        (&[(0, false)], 0, false, false),
        (&[(0, true)], 0, false, true),
        (&[(0, false), (1, false)], 0, false, false),
        (&[(1, false)], 0, false, true),
        (&[(0, false), (2, false)], 0, false, true),
        (&[(0, true)], MORE, true, true),
        (&[(0, false)], MORE, false, true),
    ];
    for (chunks, flags, at_once, again) in cases {
        let mut map = among(&Config::lan(), [2]);
        tell(&mut map, NOW, 2, &state(9));
        let pulls = run(&mut map, PULL, NOW, NOW);
        let nonce = read_varint(&pulls[0].2);
        for (at, &(number, new)) in (1..).zip(chunks) {
            let flags = if at == chunks.len() { LAST | flags } else { 0 };
            tell(&mut map, NOW, 2, &chunk(nonce, number, flags, if new { &news } else { &[] }));
        }
        assert_eq!(run(&mut map, PULL, NOW, NOW).len(), usize::from(at_once), "{chunks:?}");
        if at_once {
            continue;
        }
        let now = NOW + millis(150);
        tell(&mut map, now, 2, &state(9));
        assert_eq!(run(&mut map, PULL, now, now).len(), usize::from(again), "{chunks:?}");
        let now = NOW + millis(1000);
        run(&mut map, PULL, now, now);
        let mut map = among(&Config::lan(), [2]);
        tell(&mut map, now, 2, &state(10));
        assert_eq!(run(&mut map, PULL, now, now).len(), 1, "it changed");
    }
}

/// Goal: less is asked for after an answer broke off, and a datagram more after each that came whole; never less than
/// a datagram, nor more than the limit. Silence says nothing of the way. Method: the budgets of pulls in a row.
#[test]
fn the_window_follows_what_the_way_carries() {
    let budget = |pull: &Frame| read_varint(&pull.2[varint(read_varint(&pull.2)).len()..]);
    let mut config = Config::lan();
    config.pull_budget = 8_000;
    config.pull_timeout_min = config.pull_timeout;
    let mut map = among(&config, [2]);
    let (mut now, mut counter) = (NOW, 0);
    let mut news = || {
        counter += 1;
        write(3, counter, OWN, &[counter as u8], b"value")
    };
    tell(&mut map, now, 2, &state(9));
    let mut pull = run(&mut map, PULL, now, now).remove(0);
    let mut budgets = vec![budget(&pull)];
    // Whether chunk 0 comes, and with what number the last one does, if at all.
    let answers = [
        (true, None),
        (false, None),
        (true, None),
        (true, Some(1)),
        (true, Some(2)),
        (true, None),
        (true, None),
        (true, Some(1)),
        (true, Some(1)),
        (true, Some(1)),
        (true, Some(1)),
        (true, Some(1)),
        (true, Some(1)),
    ];
    for (begins, ends) in answers {
        let nonce = read_varint(&pull.2);
        if begins {
            tell(&mut map, now, 2, &chunk(nonce, 0, 0, &news()));
        }
        if let Some(number) = ends {
            tell(&mut map, now, 2, &chunk(nonce, number, LAST | MORE, &news()));
        }
        let wait = if ends.is_some() { millis(0) } else { config.pull_timeout };
        pull = run(&mut map, PULL, now, now + wait).remove(0);
        now = pull.0;
        budgets.push(budget(&pull));
    }
    let expected = [
        8_000, 4_000, 4_000, 2_000, 3_400, 3_400, 1_700, 1_400, 2_800, 4_200, 5_600, 7_000, 8_000,
        8_000,
    ];
    assert_eq!(budgets, expected);
}

/// Goal: no more is asked for than so many bytes per second, and as much. Method: a peer whose answers are four
/// kilobytes and never end.
#[test]
fn what_is_asked_for_keeps_its_rate() {
    for (rate, least, most) in [(16_000, 40, 45), (32_000, 84, 89)] {
        let mut config = Config::lan();
        (config.pull_budget, config.pull_rate) = (8_000, rate);
        let mut map = among(&config, [2]);
        let (mut now, mut answers) = (NOW, 0);
        tell(&mut map, now, 2, &state(9));
        while now < NOW + millis(10_000) {
            let pulls = run(&mut map, PULL, now, now);
            let Some(pull) = pulls.first() else {
                now += millis(10);
                continue;
            };
            answers += 1;
            let news = write(3, answers, OWN, b"key", &[7; 4_000]);
            tell(&mut map, now, 2, &chunk(read_varint(&pull.2), 0, LAST | MORE, &news));
        }
        assert!((least..=most).contains(&answers), "{answers} answers at {rate} bytes a second");
    }
}

/// Goal: no more is given than so many bytes per second, and everybody who asks a datagram. Method: one who asks four
/// times a second for eight kilobytes.
#[test]
fn what_is_given_keeps_its_rate() {
    let mut config = Config::lan();
    config.pull_budget = 8_000;
    for (rate, least, most) in [(16_000, 160_000, 190_000), (64_000, 300_000, 340_000)] {
        config.pull_rate = rate;
        let mut map = among(&config, []);
        for key in 0..200 {
            map.insert(NOW, format!("{key:04}").as_bytes(), &[7; 50]).unwrap();
        }
        map.peer_up(NOW, NodeId(2), 1, addr(2));
        drain(&mut map);
        let mut given = 0;
        for at in 0..40 {
            let now = NOW + millis(250 * at);
            run(&mut map, PULL, now, now);
            tell(&mut map, now, 2, &pull(8_000));
            let chunks = run(&mut map, CHUNK, now, now);
            assert!(chunks.iter().map(|(_, _, body)| body.len()).sum::<usize>() > 1_000);
            given += chunks.iter().map(|(_, _, body)| body.len()).sum::<usize>();
        }
        assert!((least..=most).contains(&given), "{given} bytes at {rate} a second");
    }
}

/// Goal: peers are asked at most once per interval, the next in line as soon as it is over. Method: two that tell of
/// something new at the same time; one whose states are equal is not asked.
#[test]
fn pulls_keep_their_interval() {
    let mut map = among(&Config::lan(), [2, 3, 4]);
    tell(&mut map, NOW, 2, &state(9));
    tell(&mut map, NOW, 3, &state(8));
    let (context, _) = map.digest();
    tell(&mut map, NOW, 4, &state(context));
    let pulls = run(&mut map, PULL, NOW, NOW + millis(20));
    assert_eq!(pulls.iter().map(|(_, to, _)| *to).collect::<Vec<_>>(), [2]);
    let now = NOW + millis(20);
    tell(&mut map, now, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &[]));
    let pulls = run(&mut map, PULL, now, NOW + millis(160));
    assert_eq!((times(&pulls), pulls[0].1), (vec![150], 3));
}

/// Goal: an answer that comes after it was given up is used all the same, and teaches how long answers take. Method: an
/// answer after 400 ms, with news.
#[test]
fn a_late_answer_counts() {
    let mut map = among(&Config::lan(), [2]);
    tell(&mut map, NOW, 2, &state(9));
    let pulls = run(&mut map, PULL, NOW, NOW + millis(70 * 1000));
    let nonce = read_varint(&pulls[pulls.len() - 2].2);
    let (asked, now) = (pulls[pulls.len() - 2].0, pulls[pulls.len() - 1].0 + millis(1));
    assert!(now - asked > millis(9000));
    tell(&mut map, now, 2, &chunk(nonce, 0, LAST, &write(3, 1, OWN, b"key", b"value")));
    assert_eq!(map.get(b"key"), Some(&b"value"[..]));
    // The pull under way goes on; after it the patience is the longest again, and not doubled.
    let pulls = run(&mut map, PULL, now, now + millis(11_000));
    let gaps: Vec<_> = pulls.windows(2).map(|two| (two[1].0 - two[0].0).as_millis()).collect();
    assert!(gaps.first().is_some_and(|gap| *gap == 300), "{gaps:?}");
}

/// Goal: after data was refused for its size, nobody is asked for much longer than an interval; the time in which the
/// map is full ends with the last page of a whole answer alone. Method: more replicas than one digest has room for, and
/// a value that does not fit.
#[test]
fn a_page_does_not_end_a_full_time() {
    let mut config = Config::lan();
    config.max_bytes = 1000;
    for (flags, number, ends) in [(0, 0, true), (MORE, 0, false), (0, 1, false)] {
        let mut map = among(&config, [2]);
        for node in 0..100 {
            tell(&mut map, NOW, 2, &chunk(0, 0, 0, &write(10 + node, 1, BARE, &[1], b"")));
        }
        let large = chunk(0, 0, 0, &write(2, 1, BARE, b"large", &[7; 512]));
        tell(&mut map, NOW, 2, &chunk(0, 0, 0, &write(3, 1, BARE, b"medium", &[7; 512])));
        let full = |map: &mut Map| {
            let events = std::iter::from_fn(|| map.poll_event());
            events.filter(|event| *event == Event::Full).count()
        };
        assert_eq!(full(&mut map), 0);
        drain(&mut map);
        tell(&mut map, NOW, 2, &large);
        assert_eq!((full(&mut map), map.stats().chunks_refused), (1, 1));
        tell(&mut map, NOW, 2, &state(9));
        let end = NOW + millis(32 * 150);
        let pulls = run(&mut map, PULL, NOW, end);
        assert_eq!(times(&pulls), [32 * 150]);
        let bounds = |pull: &Frame| {
            let nonce = varint(read_varint(&pull.2)).len();
            pull.2[nonce + varint(read_varint(&pull.2[nonce..])).len() + 8]
        };
        assert_eq!(bounds(&pulls[0]), 2, "up to some replica");
        tell(&mut map, end, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &[]));
        let pulls = run(&mut map, PULL, end, end);
        assert_eq!(bounds(&pulls[0]), 1, "the rest");
        tell(&mut map, end, 2, &chunk(read_varint(&pulls[0].2), number, LAST | flags, &[]));
        tell(&mut map, end, 2, &large);
        assert_eq!(full(&mut map), usize::from(ends));

        let mut map = among(&config, [2]);
        for node in 0..100 {
            tell(&mut map, NOW, 2, &chunk(0, 0, 0, &write(10 + node, 1, BARE, &[1], b"")));
        }
        tell(&mut map, NOW, 2, &chunk(0, 0, 0, &write(3, 1, BARE, b"medium", &[7; 512])));
        tell(&mut map, NOW, 2, &large);
        assert_eq!(full(&mut map), 1);
        tell(&mut map, NOW, 2, &state(9));
        let pulls = run(&mut map, PULL, NOW, end);
        tell(&mut map, end, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &[]));
        tell(&mut map, end, 2, &large);
        assert_eq!(full(&mut map), 0, "it was a page");
    }
}

/// Goal: so many writes ahead of a gap are kept, and the one that is next in any case. Method: the first of five comes
/// last, with room for three.
#[test]
fn so_many_writes_ahead_of_a_gap_are_kept() {
    let mut config = Config::lan();
    config.max_gap_dots = 3;
    let mut map = among(&config, [2]);
    let known = |map: &Map| -> Vec<u64> {
        let dot = |counter| Dot::new(ReplicaId::new(NodeId(2), 1), counter);
        (1..9).filter(|counter| map.reflects(dot(*counter))).collect()
    };
    for (counter, full) in
        [(2, false), (3, false), (4, false), (3, false), (5, true), (1, true), (6, true)]
    {
        let key = [u8::try_from(counter).unwrap()];
        tell(&mut map, NOW, 2, &chunk(0, 0, 0, &write(2, counter, BARE, &key, b"value")));
        assert_eq!(map.stats().dots_refused > 0, full, "after write {counter}");
    }
    assert_eq!(known(&map), [1, 2, 3, 4, 6]);
    assert_eq!(map.stats().dots_received, 5);
}

/// Goal: a map that knows as much ahead of a gap as it may is told it again without counting it as refused, and the
/// peer that has nothing else is left alone. Method: a whole answer with a write that is known.
#[test]
fn a_known_write_needs_no_room_ahead_of_a_gap() {
    let mut config = Config::lan();
    config.max_gap_dots = 1;
    let mut map = among(&config, [2]);
    let known = write(3, 2, BARE, b"key", b"value");
    tell(&mut map, NOW, 2, &chunk(0, 0, 0, &known));
    tell(&mut map, NOW, 2, &state(9));
    let now = NOW + millis(150);
    let pulls = run(&mut map, PULL, NOW, NOW);
    tell(&mut map, now, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &known));
    assert_eq!(map.stats().dots_refused, 0);
    tell(&mut map, now, 2, &state(9));
    assert_eq!(run(&mut map, PULL, now, now).len(), 0, "it has nothing new");
}

/// The flags of a chunk that answers pull 5, and its first run: the write that it begins with and how many they are.
fn answer(body: &[u8]) -> (u8, u64, u8) {
    let flags = 8 + 1 + varint(read_varint(&body[9..])).len();
    // A replica that is new to the chunk, or the one that was its first.
    let counter = flags + 1 + if body[flags + 1] == 0 { 17 } else { 1 };
    let first = read_varint(&body[counter..]);
    (body[flags], first, body[counter + varint(first).len()])
}

fn pull(budget: u64) -> Vec<u8> {
    frame(PULL, &[varint(5), varint(budget), 1_u64.to_le_bytes().to_vec(), vec![0]].concat())
}

/// Goal: an answer goes on until the budget of the pull, or of the one who answers, is used up, says then that there is
/// more, and says at the end that there is none. Method: budgets below and above what there is.
#[test]
fn an_answer_ends_with_the_budget() {
    let mut config = Config::lan();
    config.pull_budget = 6000;
    for (asked, budget, more) in [
        (1, 1, true),
        (500, 500, true),
        (3000, 3000, true),
        (6000, 6000, true),
        (50_000, 6000, true),
    ] {
        let mut map = among(&config, []);
        for key in 0..200 {
            map.insert(NOW, format!("{key:04}").as_bytes(), &[7; 50]).unwrap();
        }
        map.peer_up(NOW, NodeId(2), 1, addr(2));
        drain(&mut map);
        tell(&mut map, NOW, 2, &pull(asked));
        let chunks = run(&mut map, CHUNK, NOW, NOW);
        let bytes: usize = chunks.iter().map(|(_, _, body)| body.len()).sum();
        let bytes = bytes as u64;
        // Heads do not count, and what is begun is finished.
        assert!((bytes.saturating_sub(150)..bytes + 50).contains(&budget), "{bytes} for {budget}");
        let flags: Vec<_> = chunks.iter().map(|(_, _, body)| answer(body).0).collect();
        let (last, others) = flags.split_last().unwrap();
        assert_eq!(*last, if more { LAST | MORE } else { LAST });
        assert!(others.iter().all(|flags| *flags == 0));
    }
    let mut map = among(&config, []);
    map.insert(NOW, b"key", b"value").unwrap();
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    drain(&mut map);
    tell(&mut map, NOW, 2, &pull(1000));
    let chunks = run(&mut map, CHUNK, NOW, NOW);
    assert_eq!(chunks.iter().map(|(_, _, body)| answer(body)).collect::<Vec<_>>(), [(LAST, 1, 1)]);
}

/// Goal: writes in a row are told as one run, at no more than a byte each for that. Method: more than one run may have.
#[test]
fn writes_in_a_row_are_one_run() {
    let mut map = among(&Config::lan(), []);
    for key in 0..200_u8 {
        map.insert(NOW, &[key], b"").unwrap();
    }
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    drain(&mut map);
    tell(&mut map, NOW, 2, &pull(50_000));
    let chunks = run(&mut map, CHUNK, NOW, NOW);
    assert_eq!(chunks.len(), 1);
    let body = &chunks[0].2;
    assert_eq!(answer(body), (LAST, 1, 127));
    let item = 4; // kind, length, key, length
    let second = 8 + 3 + 17 + 2 + 127 * item;
    assert_eq!(body[second..second + 4], [1, 128, 1, 73]);
    assert_eq!(body.len(), second + 4 + 73 * item);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A chunk about some keys is taken exactly if there is room for what each of them grows by; what one of them
    /// shrinks by is no room for another one.
    #[test]
    fn a_chunk_is_taken_if_the_outcome_fits(
        before in proptest::collection::btree_map(0..6_u8, (0..40_usize, any::<bool>()), 0..5),
        told in proptest::collection::btree_map(0..6_u8, (0..40_usize, any::<bool>(), any::<bool>()), 1..5),
        keys in -1..2_isize,
        bytes in -2..3_isize,
    ) {
        let key = |key: u8| vec![key; 1 + usize::from(key)];
        let kind = |own| if own { OWN } else { BARE };
        let first = |map: &mut Map| {
            for (at, (&number, &(len, own))) in (1..).zip(&before) {
                tell(map, NOW, 2, &chunk(0, 0, 0, &write(2, at, kind(own), &key(number), &vec![1; len])));
            }
        };
        // Writes of the same replica over its values, or of another one beside them.
        let mut runs = Vec::new();
        for (at, (&number, &(len, own, same))) in (10..).zip(&told) {
            let node = if same { 2 } else { 3 };
            runs.push(write(node, at, kind(own), &key(number), &vec![2; len]));
        }
        let sizes = |runs: &[Vec<u8>]| {
            let mut free = among(&Config::lan(), [2]);
            first(&mut free);
            runs.iter().for_each(|run| tell(&mut free, NOW, 2, &chunk(0, 0, 0, run)));
            (free.len(), free.bytes(), free.digest())
        };
        let (keys_before, bytes_before, digest) = sizes(&[]);
        let (keys_after, _, expected) = sizes(&runs);
        let growth = runs.iter().map(|run| sizes(std::slice::from_ref(run)).1.saturating_sub(bytes_before));
        let bytes_wanted = bytes_before + growth.sum::<usize>();
        let mut config = Config::lan();
        config.max_keys = keys_after.saturating_add_signed(keys);
        config.max_bytes = bytes_wanted.saturating_add_signed(bytes);
        prop_assume!(config.max_keys >= keys_before.max(1) && config.max_bytes >= bytes_before.max(1));
        let fits = keys >= 0 && bytes >= 0;
        // A replica is introduced once.
        let mut seen = Vec::new();
        for run in &mut runs {
            let id = run[1..17].to_vec();
            match seen.iter().position(|other| *other == id) {
                Some(at) => drop(run.splice(..17, varint(at as u64 + 1))),
                None => seen.push(id),
            }
        }
        let mut map = among(&config, [2]);
        first(&mut map);
        prop_assert_eq!(map.stats().chunks_refused, 0);
        tell(&mut map, NOW, 2, &chunk(0, 0, 0, &runs.concat()));
        prop_assert_eq!(map.stats().chunks_refused, u64::from(!fits));
        prop_assert_eq!(map.digest(), if fits { expected } else { digest });
    }
}
