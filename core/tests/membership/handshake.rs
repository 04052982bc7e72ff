//! The join handshake to the letter, on both sides, with every peer played by the test.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use crate::common::addr;
use crate::common::bare::*;
use brickwork_core::swim::Config;
use brickwork_core::{Event, Instant};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// Boot epochs from here on are nobody's.
const LAST_BOOT: u64 = u64::MAX - (1 << 32);

fn port(place: usize) -> u16 {
    addr(place).port()
}

fn u64_of(body: &[u8]) -> u64 {
    u64::from_le_bytes(body[..8].try_into().unwrap())
}

/// The cookie that whoever asks from there is given.
fn cookie(bare: &mut Bare, place: usize, boot: u64, from: usize) -> u64 {
    bare.sent();
    bare.tell_as(place, boot, addr(from), &join(0, place, boot, port(from)));
    let sent = bare.sent();
    assert_eq!(places(&sent, COOKIE), [from]);
    u64_of(sent.iter().find_map(|sent| sent.frame(COOKIE)).unwrap())
}

/// Boot `boot` of the member at `place` asks from another place, with a cookie, to live there.
fn ask(bare: &mut Bare, place: usize, boot: u64, from: usize) {
    let cookie = cookie(bare, place, boot, from);
    bare.tell_as(place, boot, addr(from), &join(cookie, place, boot, port(from)));
}

fn members(bare: &Bare) -> usize {
    bare.swim.members().count()
}

/// Goal: a cookie is good for the rest of its period of ten seconds and for the next, and only for who got it.
/// Method: it is used as late as possible, and a moment later, and by others.
#[test]
fn a_cookie_is_good_for_a_while() {
    let at = |seconds: u64| Instant::ZERO + SECOND * u32::try_from(seconds).unwrap();
    for (given, end) in
        [(at(0), at(20)), (at(1), at(20)), (at(10), at(30)), (at(19) + (SECOND - NANO), at(30))]
    {
        for (used, good) in [(given, true), (at(0) + ((end - at(0)) - NANO), true), (end, false)] {
            let mut bare = Bare::new(Config::lan());
            bare.now = given;
            let cookie = cookie(&mut bare, 5, 1, 5);
            bare.now = used;
            bare.tell_as(6, 1, addr(5), &join(cookie, 6, 1, port(5)));
            bare.tell_as(5, 2, addr(5), &join(cookie, 5, 2, port(5)));
            bare.tell_as(5, 1, addr(6), &join(cookie, 5, 1, port(6)));
            bare.tell(5, &join(cookie.wrapping_add(1), 5, 1, port(5)));
            assert_eq!(members(&bare), 1, "given to another, or to nobody");
            bare.sent();
            bare.tell(5, &join(cookie, 5, 1, port(5)));
            assert_eq!(
                members(&bare),
                1 + usize::from(good),
                "given at {given:?}, used at {used:?}"
            );
            let sent = bare.sent();
            assert_eq!(places(&sent, COOKIE), if good { &[][..] } else { &[5] });
            assert_eq!(places(&sent, UPDATES), if good { &[5][..] } else { &[] });
        }
    }
}

/// Goal: nobody joins on behalf of another, or of another boot, and nobody is let in by who is about to go.
/// Method: such joins are counted and left without an answer.
#[test]
fn a_join_is_about_its_sender() {
    let mut bare = Bare::among(Config::lan(), [1]);
    bare.sent();
    for (n, frames) in (1..).zip([join(0, 6, 1, 1005), join(0, 5, 2, 1005), join(0, 6, 2, 1005)]) {
        bare.tell(5, &frames);
        assert_eq!(bare.swim.stats().misaddressed, n);
        assert!(bare.sent().is_empty());
    }
    bare.swim.leave(bare.now);
    bare.sent();
    bare.tell(5, &join(0, 5, 1, 1005));
    assert_eq!(bare.swim.stats().misaddressed, 4);
    assert!(bare.sent().is_empty());
}

/// Goal: a name that is asked for from elsewhere stays with its holder if that answers, and goes to the newcomer if
/// not. Method: the holder is asked every longest retry until an interval is over; it answers, or others do in its
/// place, or nobody.
#[test]
fn a_name_is_taken_over_when_its_holder_is_silent() {
    let mut config = Config::lan();
    config.probe_interval = SECOND * 3;
    let answers: [(&str, usize, u64, u64); 5] = [
        ("nobody", 0, 0, 0),
        ("the holder", 1, 1, 0),
        ("the holder, to something else", 1, 1, 1),
        ("another boot", 1, 2, 0),
        ("another member", 2, 1, 0),
    ];
    for (who, place, boot, off) in answers {
        let mut bare = Bare::among(config.clone(), 1..=2);
        let start = bare.now;
        ask(&mut bare, 1, 2, 8);
        let sent = bare.sent();
        let challenge = sent.iter().find(|sent| sent.is(PING, 1)).expect("the holder is asked");
        let body = challenge.frame(PING).unwrap().to_vec();
        let seq = read_varint(&body);
        let asked = |sent: &[Sent]| -> Vec<_> {
            let to_holder = sent.iter().filter(|sent| sent.frames(PING).contains(&&body[..]));
            to_holder.map(|sent| (sent.at - start).as_millis()).collect()
        };
        let mut sent = bare.run(millis(450));
        ask(&mut bare, 1, 2, 8);
        if place != 0 {
            bare.tell_as(place, boot, addr(place), &ack(seq + off));
        }
        let stays = (place, boot, off) == (1, 1, 0);
        let conflict = Event::Conflict { id: id(1), holder: addr(1), newcomer: addr(8) };
        assert_eq!(bare.events().contains(&conflict), stays, "{who} answers");
        sent.extend(bare.run_to(start + (SECOND * 3 - NANO)));
        assert_eq!(places(&sent, CONFLICT), if stays { &[8][..] } else { &[] });
        let told = sent.iter().find_map(|sent| sent.frame(CONFLICT));
        let expected =
            [&id(1).0.to_le_bytes()[..], &2_u64.to_le_bytes(), &[4, 10, 0, 0, 1, 0xe9, 3]].concat();
        assert!(told.is_none_or(|told| *told == expected));
        let until = if stays { 450 } else { 3000 };
        let repeated: Vec<_> = (1..).map(|n| n * 100).take_while(|at| *at < until).collect();
        assert_eq!(asked(&sent), repeated, "{who} answers");
        if stays {
            continue;
        }
        assert!(!bare.events().iter().any(|event| matches!(event, Event::Restarted { .. })));
        ask(&mut bare, 1, 2, 8);
        assert_eq!(bare.swim.member(id(1)).unwrap().addr(), addr(1), "not yet");
        bare.run(NANO);
        ask(&mut bare, 1, 2, 8);
        assert_eq!(bare.swim.member(id(1)).unwrap().addr(), addr(8), "{who} answers");
    }
}

/// Goal: who is no member, or not in that boot, is one by a join alone, whatever it tells of itself, and gets less than it
/// sent until then. Method: it tells of itself beside a ping, and asks as it is told to.
#[test]
fn who_tells_of_itself_is_asked_to_join() {
    for (place, boot) in [(8, 1), (1, 2)] {
        let mut bare = Bare::among(Config::lan(), 1..=3);
        bare.answering = vec![2, 3];
        bare.run(SECOND);
        bare.events();
        let ping = frame(PING, &[&[9][..], &id(0).0.to_le_bytes()].concat());
        let told = [frame(UPDATES, &alive(place, boot, 0)), ping].concat();
        bare.tell_as(place, boot, addr(8), &told);
        let sent: Vec<_> = bare.sent().into_iter().filter(|sent| sent.to == addr(8)).collect();
        assert_eq!((places(&sent, STRANGER), sent.len()), (vec![8], 1));
        assert!(sent[0].bytes.len() < 28 + told.len());
        assert_eq!((members(&bare), bare.events().len()), (4, 0));
        assert!(bare.run(SECOND * 60).iter().all(|sent| sent.to != addr(8)));
        bare.meet_as(8, &alive(8, 1, 0));
        assert!(bare.swim.member(id(8)).is_some());
    }
}

/// Goal: of a name that is known, a newcomer in its place or after its death gets in with a higher boot epoch, at
/// once, and is told the known one otherwise. Method: each case of place, state and epoch.
#[test]
fn a_restart_is_let_in_by_its_boot_epoch() {
    for (from, boot, dead) in [
        (1, 1, false),
        (1, 2, false),
        (1, 4, false),
        (1, 2, true),
        (8, 2, true),
        (8, 3, true),
        (8, 4, true),
        (1, 4, true),
    ] {
        let mut bare = Bare::among(Config::lan(), 2..=3);
        bare.meet_as(1, &alive(1, 3, 0));
        if dead {
            bare.answering = vec![2, 3];
            bare.run(SECOND * 20);
            assert!(!bare.swim.member(id(1)).unwrap().is_live());
        }
        ask(&mut bare, 1, boot, from);
        let known = bare.swim.member(id(1)).unwrap();
        let let_in = boot > 3;
        let expected = if let_in { (boot, addr(from)) } else { (3, addr(1)) };
        assert_eq!((known.identity().boot_epoch(), known.addr()), expected);
        let sent = bare.sent();
        let told = sent.iter().find_map(|sent| sent.frame(BOOT_TOO_OLD));
        let too_old = [boot.to_le_bytes(), 3_u64.to_le_bytes()].concat();
        assert_eq!(told, (!let_in).then_some(&too_old[..]), "boot {boot} at {from}, dead: {dead}");
    }
}

/// Goal: who asks once more, because the answer was lost, is told everybody again.
/// Method: the same boot from the same place.
#[test]
fn who_was_let_in_may_ask_again() {
    let mut bare = Bare::among(Config::lan(), 1..=3);
    ask(&mut bare, 1, 1, 1);
    let sent = bare.sent();
    let rows = sent.iter().find(|sent| sent.to == addr(1)).unwrap().frames(UPDATES).concat();
    for place in [0, 2, 3] {
        let row = id(place).0.to_le_bytes();
        assert!(rows.windows(8).any(|part| part == row), "of {place}");
    }
    assert_eq!((places(&sent, BOOT_TOO_OLD), places(&sent, PING)), (vec![], vec![]));
}

/// Goal: contests cost no more than so many challenges at a time, and are remembered for as many names.
/// Method: twenty names are asked for at once, and then those one by one that were left out.
#[test]
fn so_many_names_are_contested_at_a_time() {
    let mut config = Config::lan();
    config.probe_interval = SECOND * 3;
    let mut bare = Bare::among(config, 1..=20);
    let challenged = |bare: &mut Bare, place: usize| {
        ask(bare, place, 2, 50 + place);
        bare.sent().iter().any(|sent| sent.is(PING, place))
    };
    let asked: Vec<_> = (1..=20).filter(|place| challenged(&mut bare, *place)).collect();
    assert_eq!(asked, (1..=16).collect::<Vec<_>>());
    bare.run(SECOND * 3);
    assert!(challenged(&mut bare, 17));
    bare.run(SECOND * 3);
    let moved = |bare: &mut Bare, place: usize| {
        ask(bare, place, 2, 50 + place);
        bare.swim.member(id(place)).unwrap().addr() == addr(50 + place)
    };
    assert!((1..=17).all(|place| bare.swim.member(id(place)).unwrap().is_live()));
    assert!(!moved(&mut bare, 1), "forgotten for the seventeenth");
    assert!((2..=17).all(|place| moved(&mut bare, place)));
}

/// Goal: a node does not give its own name away. Method: somebody asks for it from elsewhere, with any epoch.
#[test]
fn ones_own_name_is_a_conflict() {
    for boot in [2, 9] {
        let mut bare = Bare::among(Config::lan(), [1]);
        ask(&mut bare, 0, boot, 8);
        let conflict = Event::Conflict { id: id(0), holder: addr(0), newcomer: addr(8) };
        assert!(bare.events().contains(&conflict));
        assert_eq!(places(&bare.sent(), CONFLICT), [8]);
    }
}

/// Goal: a newcomer whose epoch is known or behind takes the next one, if the answer is to its question.
/// Method: answers with each kind of epoch, also at the end of their range.
#[test]
fn a_newcomer_takes_the_epoch_after_the_known() {
    let cases = [
        (5, 1, 1, Some(2)),
        (5, 1, 7, Some(8)),
        (5, 1, LAST_BOOT - 2, Some(LAST_BOOT - 1)),
        (5, 1, LAST_BOOT - 1, None),
        (5, 1, 0, None),
        (5, 2, 7, None),
        (5, 0, 7, None),
        (6, 1, 7, None),
    ];
    for (from, asked, boot, adopted) in cases {
        let mut bare = Bare::new(Config::lan());
        bare.swim.join(bare.now, &[addr(5)]);
        assert_eq!(places(&bare.sent(), JOIN), [5]);
        let told = frame(BOOT_TOO_OLD, &[u64::to_le_bytes(asked), u64::to_le_bytes(boot)].concat());
        bare.tell(from, &told);
        assert_eq!(bare.swim.me().identity().boot_epoch(), adopted.unwrap_or(1), "{asked} {boot}");
        let sent = bare.sent();
        assert_eq!(places(&sent, JOIN), if adopted.is_some() { &[5][..] } else { &[] });
    }
}

/// Goal: a node stays out if it is told by whom it asked that another one lives under its name, and only then.
/// Method: words that are off by one thing each, and the right one; also while it leaves.
#[test]
fn a_conflict_concerns_who_asked() {
    let words = [
        (5, 0, 1, 8, true),
        (6, 0, 1, 8, false),
        (5, 1, 1, 8, false),
        (5, 0, 2, 8, false),
        (5, 0, 1, 0, false),
    ];
    for (from, name, asked, holder, out) in words {
        for leaves in [false, true] {
            let mut bare = Bare::among(Config::lan(), [1]);
            bare.swim.join(bare.now, &[addr(5)]);
            if leaves {
                bare.swim.leave(bare.now);
            }
            bare.sent();
            bare.events();
            let [low, high] = port(holder).to_le_bytes();
            let body = [
                &id(name).0.to_le_bytes()[..],
                &u64::to_le_bytes(asked),
                &[4, 10, 0, 0, 1, low, high],
            ];
            bare.tell(from, &frame(CONFLICT, &body.concat()));
            let events = bare.events();
            let told = Event::Conflict { id: id(0), holder: addr(8), newcomer: addr(0) };
            assert_eq!(events.contains(&told), out, "{from} {name} {asked} {holder}");
            let finished = Event::LeaveFinished { acknowledged: 0 };
            assert_eq!(events.contains(&finished), out && leaves);
            assert_eq!(bare.swim.poll_timeout().is_none(), out, "who is out has no timers");
            assert_eq!(bare.run(SECOND).is_empty(), out);
        }
    }
}

/// Goal: a cookie is taken from whom it was asked, and not by who leaves. Method: one of each.
#[test]
fn a_cookie_is_taken_from_whom_it_was_asked() {
    for (from, leaves, taken) in [(5, false, true), (6, false, false), (5, true, false)] {
        let mut bare = Bare::among(Config::lan(), [1]);
        bare.swim.join(bare.now, &[addr(5)]);
        bare.sent();
        if leaves {
            bare.swim.leave(bare.now);
        }
        bare.sent();
        bare.tell(from, &frame(COOKIE, &77_u64.to_le_bytes()));
        let sent = bare.sent();
        assert_eq!(places(&sent, JOIN), if taken { &[5][..] } else { &[] });
        let body = sent.iter().find_map(|sent| sent.frame(JOIN));
        assert!(body.is_none_or(|body| u64_of(body) == 77));
    }
}

/// Goal: once a seed has shown that it is there, what is lost is asked for soon again. Method: a seed that answers at
/// last, and says nothing more.
#[test]
fn after_a_cookie_the_next_join_is_soon() {
    let mut bare = Bare::new(Config::lan());
    bare.swim.join(bare.now, &[addr(5)]);
    bare.run(Duration::from_secs(20));
    let answered = bare.now;
    bare.tell(5, &frame(COOKIE, &77_u64.to_le_bytes()));
    assert_eq!(places(&bare.sent(), JOIN), [5]);
    let sent = bare.run(Duration::from_secs(1));
    let first = sent.iter().find(|sent| sent.is(JOIN, 5)).unwrap();
    let retry = Config::lan().join_retry;
    assert!((retry * 3 / 4..retry * 5 / 4).contains(&(first.at - answered)));
    assert_eq!(places(&sent, JOIN).len(), 3, "after 100, 200 and 400 ms");
    assert_eq!(
        first.frame(JOIN).map(u64_of),
        Some(0),
        "another cookie may be the good one by then"
    );
}

/// Goal: a seed that sends cookies and lets nobody in has nobody asked more often than one that says nothing, but for the
/// first time; and a cookie puts no join off. Method: it answers every join right before the next one is due.
#[test]
fn cookies_alone_do_not_keep_joins_coming() {
    let mut bare = Bare::new(Config::lan());
    bare.swim.join(bare.now, &[addr(5), addr(6)]);
    let (mut others, start) = (0, bare.now);
    while bare.now - start < Duration::from_secs(60) {
        others += places(&bare.sent(), JOIN).iter().filter(|place| **place == 6).count();
        let due = bare.swim.poll_timeout().unwrap();
        bare.now = Instant::from_nanos(due.as_nanos() - 1_000);
        bare.tell(5, &frame(COOKIE, &77_u64.to_le_bytes()));
        assert_eq!(places(&bare.sent(), JOIN), [5]);
        assert!(bare.swim.poll_timeout().unwrap() <= due);
        bare.now = due;
        bare.swim.handle_timeout(due);
    }
    assert!((8..15).contains(&others), "{others}");
    // Whoever is told to join again begins anew.
    bare.swim.join(bare.now, &[]);
    bare.run(Duration::from_secs(20));
    bare.tell(5, &frame(COOKIE, &77_u64.to_le_bytes()));
    assert!(bare.swim.poll_timeout().unwrap() - bare.now < Config::lan().join_retry * 5 / 4);
}

/// Goal: who says that it knows nobody is asked in, at its own address, and not again until a retry is over.
/// Method: a member that says so again and again, in its boot or the next, from its address or another one.
#[test]
fn a_member_that_knows_nobody_is_asked() {
    let stranger = frame(STRANGER, &[]);
    for (boot, from) in [(1, 1), (2, 1), (1, 8)] {
        let mut bare = Bare::among(Config::lan(), 1..=2);
        bare.sent();
        bare.tell(9, &stranger);
        assert_eq!(places(&bare.sent(), JOIN), [], "nobody known");
        let retry = Config::lan().join_retry;
        for (later, again) in
            [(Duration::ZERO, true), (Duration::ZERO, false), (retry - NANO, false), (NANO, true)]
        {
            bare.now += later;
            bare.tell_as(1, boot, addr(from), &stranger);
            assert_eq!(places(&bare.sent(), JOIN), if again { &[1][..] } else { &[] });
        }
        bare.tell(2, &stranger);
        assert_eq!(places(&bare.sent(), JOIN), [2], "another one is asked for itself");
        bare.swim.leave(bare.now);
        bare.now += retry;
        bare.tell(2, &stranger);
        assert_eq!(places(&bare.sent(), JOIN), [], "it is about to go");
    }
}

/// The word that another node at `holder` bears the name of node 0.
fn conflict(holder: usize) -> Vec<u8> {
    let [low, high] = port(holder).to_le_bytes();
    let numbers = [id(0).0.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    frame(CONFLICT, &[&numbers[..], &[4, 10, 0, 0, 1, low, high]].concat())
}

fn boot_too_old(boot: u64) -> Vec<u8> {
    frame(BOOT_TOO_OLD, &[1_u64.to_le_bytes(), boot.to_le_bytes()].concat())
}

/// Goal: no single member talks a node out of the cluster, or far out of its boot epoch. Method: one has itself asked by saying
/// that it does not know the node, and says that the name is another's, again and again; then a second one does.
#[test]
fn who_has_members_takes_the_word_of_two() {
    let far = 1 << 46;
    for word in [conflict(8), boot_too_old(far)] {
        let mut bare = Bare::among(Config::lan(), 1..=4);
        bare.answering = (1..=4).collect();
        for _ in 0..3 {
            bare.tell(1, &[frame(STRANGER, &[]), word.clone()].concat());
            assert!(bare.swim.poll_timeout().is_some(), "by the word of one");
            assert_eq!(bare.swim.me().identity().boot_epoch(), 1, "by the word of one");
        }
        let asked = places(&bare.sent(), JOIN);
        let second = asked.into_iter().find(|place| *place != 1).expect("a second one is asked");
        bare.tell(second, &word);
        let out = bare.swim.poll_timeout().is_none();
        assert!(out || bare.swim.me().identity().boot_epoch() == far + 1, "by the word of two");
        // Nor by the word of one that speaks under names that are not its own, or from two addresses.
        let mut bare = Bare::among(Config::lan(), 1..=4);
        for place in [1, 2, 9] {
            let frames = [frame(STRANGER, &[]), word.clone()].concat();
            bare.tell(1, &frame(STRANGER, &[]));
            bare.tell_as(place, 1, addr(1), &frames);
        }
        assert!(bare.swim.poll_timeout().is_some(), "by the word of one");
        assert_eq!(bare.swim.me().identity().boot_epoch(), 1, "by the word of one");
        let mut bare = Bare::among(Config::lan(), 1..=4);
        bare.tell(1, &[frame(STRANGER, &[]), word.clone()].concat());
        bare.sent();
        bare.tell(1, &frame(UPDATES, &alive_at(1, 1, 0, 1, port(9))));
        let asked = bare.next(|sent| sent.to == addr(9) && sent.frame(PING).is_some());
        bare.tell_as(1, 1, addr(9), &ack(asked.seq(PING)));
        assert_eq!(bare.swim.member(id(1)).unwrap().addr(), addr(9));
        bare.tell_as(1, 1, addr(9), &[frame(STRANGER, &[]), word.clone()].concat());
        assert!(bare.swim.poll_timeout().is_some(), "by the word of one");
        assert_eq!(bare.swim.me().identity().boot_epoch(), 1, "by the word of one");
        // Words of long ago do not count together.
        let mut bare = Bare::among(Config::lan(), 1..=4);
        bare.answering = (1..=4).collect();
        for place in [1, 2] {
            bare.tell(place, &[frame(STRANGER, &[]), word.clone()].concat());
            bare.run(SECOND * 600);
            assert!(bare.swim.poll_timeout().is_some());
            assert_eq!(bare.swim.me().identity().boot_epoch(), 1);
        }
    }
}

/// Goal: a boot epoch that is adopted is believed by others. Method: the greatest that is adopted, told to a second node.
#[test]
fn the_last_epoch_that_is_adopted_is_believed() {
    let mut bare = Bare::new(Config::lan());
    bare.swim.join(bare.now, &[addr(5)]);
    bare.sent();
    bare.tell(5, &boot_too_old(LAST_BOOT - 2));
    let adopted = bare.swim.me().identity().boot_epoch();
    let mut other = Bare::among(Config::lan(), [5]);
    other.meet_as(5, &alive(5, adopted, 0));
    assert_eq!(other.swim.member(id(5)).unwrap().identity().boot_epoch(), adopted);
}

/// Goal: who left and comes back in the same boot, or in one that was given the same number, is told to take the next one; it
/// would be held gone for as long as it is remembered. Method: one leaves and asks again; one is known with another secret;
/// one that left pings.
#[test]
fn a_boot_that_is_over_is_not_let_in_again() {
    let mut bare = Bare::among(Config::lan(), 1..=2);
    bare.tell(1, &frame(UPDATES, &left(1)));
    let mut row = alive(5, 1, 0);
    let secret = row.len() - 1;
    row[secret] ^= 1;
    bare.tell(2, &frame(UPDATES, &row));
    for place in [1, 5] {
        ask(&mut bare, place, 1, place);
        let sent = bare.sent();
        assert_eq!(places(&sent, BOOT_TOO_OLD), [place]);
        ask(&mut bare, place, 2, place);
        assert!(bare.swim.member(id(place)).unwrap().is_live());
    }
    bare.tell(2, &frame(UPDATES, &left(2)));
    bare.sent();
    bare.tell(2, &frame(PING, &[&varint(9)[..], &id(0).0.to_le_bytes()].concat()));
    assert_eq!(places(&bare.sent(), STRANGER), [2]);
}

/// Goal: a node with members that finds one elsewhere compares tables with it at once, for two clusters have met; with one that finds
/// it, it waits until a ping shows that tables differ. Method: one is asked and answers; another one asks.
#[test]
fn tables_are_compared_with_one_that_was_sought() {
    let mut bare = Bare::among(Config::lan(), 1..=3);
    bare.swim.join(bare.now, &[addr(9)]);
    assert_eq!(places(&bare.sent(), JOIN), [9]);
    bare.tell(9, &frame(UPDATES, &alive(9, 1, 0)));
    assert_eq!(places(&bare.sent(), BUCKETS), [9]);
    let cookie = cookie(&mut bare, 8, 1, 8);
    bare.tell(8, &join_with(cookie, &alive(8, 1, 0), false));
    assert_eq!((places(&bare.sent(), BUCKETS), members(&bare)), (vec![], 6));
}

/// Goal: those who say that they do not know this node are asked to let it in, as far as that leaves room for those whom it looks for of
/// its own accord. Method: a hundred members say so, and it is told to join another one.
#[test]
fn strangers_leave_room_for_a_join() {
    let mut bare = Bare::among(Config::lan(), 1..=100);
    bare.sent();
    (1..=100).for_each(|place| bare.tell(place, &frame(STRANGER, &[])));
    let asked = places(&bare.sent(), JOIN).len();
    assert!((16..64).contains(&asked), "{asked}");
    bare.swim.join(bare.now, &[addr(200)]);
    assert!(bare.sent().iter().any(|sent| sent.is(JOIN, 200)));
}
