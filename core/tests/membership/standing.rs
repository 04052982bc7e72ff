//! Members that answer far worse than others: who says so, who is believed, and what follows.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use brickwork_core::swim::{Config, State};
use brickwork_core::{Event, PacketError};

use crate::common::addr;
use crate::common::bare::{
    Bare, COOKIE, LEFT, PING, STANDING, Sent, UPDATES, ack, alive, frame, id, join, left, packet,
    standing,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn state(bare: &Bare, place: usize) -> State {
    bare.swim.member(id(place)).unwrap().state()
}

/// What a member at `place` tells this node of the one at 6.
fn tell(bare: &mut Bare, place: usize, poor: &[(usize, u64)], well: &[(usize, u64)]) {
    bare.tell(place, &frame(UPDATES, &standing(6, 0, poor, well)));
}

/// One of many, where no more than a few measure whom others found poor: this one does not, by the luck of its entropy.
fn bystander() -> Bare {
    let mut bare = Bare::among(Config::lan(), 1..400);
    bare.answering = (1..400).collect();
    bare.run(5 * SECOND);
    bare.events();
    bare
}

/// Goal: enough observers have a member held out everywhere, once others had the time to find otherwise; it stays out
/// whatever it says, and comes back when the time is over.
#[test]
fn a_member_found_poor_by_enough_is_held_out_for_a_time() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[(1, 20), (2, 15), (3, 0)], &[]);
    bare.run(5 * SECOND);
    tell(&mut bare, 2, &[(4, 0)], &[]);
    // Twelve seconds after it was heard of, and one to ask others.
    bare.run(SECOND * 79 / 10);
    assert_eq!(state(&bare, 6), State::Alive, "others may find otherwise");
    bare.run(SECOND / 5);
    assert_eq!(state(&bare, 6), State::Dead);
    assert_eq!(bare.swim.stats().held_out, 1);
    let why = bare.swim.why(id(6)).unwrap().held.unwrap();
    assert_eq!(why.poor, [1, 2, 3, 4].map(id));
    let failed = |event: &Event| *event == Event::Failed { id: id(6) };
    assert_eq!(bare.events().iter().filter(|event| failed(event)).count(), 1);
    // It is told so, and not that it failed: it would refute that.
    for incarnation in [1, 5] {
        bare.tell(6, &frame(UPDATES, &alive(6, 1, incarnation)));
        let sent = bare.sent();
        let told = sent.iter().find(|sent| sent.to == addr(6)).unwrap().frame(UPDATES).unwrap();
        assert_eq!(told[0], STANDING, "{told:?}");
        assert_eq!(state(&bare, 6), State::Dead);
    }
    assert_eq!(bare.swim.stats().returns_refused, 2);
    bare.answering.retain(|place| *place != 6);
    bare.run(9 * MINUTE + 56 * SECOND);
    bare.tell(6, &frame(UPDATES, &alive(6, 1, 7)));
    assert_eq!(state(&bare, 6), State::Dead);
    bare.run(2 * SECOND);
    bare.tell(6, &frame(UPDATES, &alive(6, 1, 8)));
    assert_eq!(state(&bare, 6), State::Alive);
    // The next time it takes twice as long.
    bare.answering.push(6);
    tell(&mut bare, 1, &[(1, 0), (2, 0), (3, 0), (4, 0)], &[]);
    bare.run(13 * SECOND);
    bare.answering.retain(|place| *place != 6);
    for (time, held) in [(19 * MINUTE, State::Dead), (MINUTE, State::Alive)] {
        bare.run(time);
        bare.tell(6, &frame(UPDATES, &alive(6, 1, 9)));
        assert_eq!(state(&bare, 6), held);
    }
}

/// Goal: too few hold nobody out, and what comes of nothing is forgotten: the next inquiry begins anew.
#[test]
fn too_few_hold_nobody_out() {
    let mut bare = bystander();
    for _ in 0..2 {
        tell(&mut bare, 1, &[(1, 20), (2, 15), (3, 0)], &[]);
        bare.run(15 * SECOND);
        // One who found it later is none of it.
        tell(&mut bare, 2, &[(4, 0)], &[]);
        bare.run(10 * SECOND);
        assert_eq!(state(&bare, 6), State::Alive);
        assert!(bare.swim.why(id(6)).unwrap().held.is_some());
        bare.run(MINUTE);
        assert_eq!(bare.swim.why(id(6)).unwrap().held, None);
    }
}

/// Goal: whoever lies alone evicts nobody, whoever he names and however long ago: two who found the member well outweigh all
/// of it, before the hold and after, and that stays so.
#[test]
fn two_who_find_a_member_well_outweigh_all_others() {
    for (tenths, wait, was) in [
        (0, 1, State::Alive),
        (0, 13, State::Dead),
        (2_000, 11, State::Alive),
        (2_000, 13, State::Dead),
    ] {
        let mut bare = bystander();
        let mut lie = [1, 2, 3, 4].map(|place| (place, tenths));
        tell(&mut bare, 9, &lie, &[]);
        bare.run(wait * SECOND);
        assert_eq!(state(&bare, 6), was, "{tenths}, {wait}");
        lie.iter_mut().for_each(|(_, tenths)| *tenths += u64::from(wait) * 10);
        tell(&mut bare, 8, &lie[..1], &[(8, 0)]);
        bare.run(SECOND / 10);
        assert_eq!(state(&bare, 6), was, "one alone outweighs nothing");
        tell(&mut bare, 7, &lie[..1], &[(7, 0)]);
        bare.tell(6, &frame(UPDATES, &alive(6, 1, 1)));
        assert_eq!(state(&bare, 6), State::Alive);
        let lifted = u64::from(was == State::Dead);
        let stats = bare.swim.stats();
        assert_eq!((stats.held_out, stats.holds_lifted), (lifted, lifted));
        // Whoever has not heard of it tells of it again, is told, and moves nobody.
        for _ in 0..5 {
            bare.run(MINUTE);
            bare.sent();
            lie.iter_mut().for_each(|(_, tenths)| *tenths += 600);
            tell(&mut bare, 9, &lie, &[]);
            let sent = bare.sent();
            let told = sent.iter().find(|sent| sent.to == addr(9)).unwrap().frame(UPDATES).unwrap();
            assert!(
                told.windows(9).any(|row| row[0] == STANDING && row[1..] == id(6).0.to_le_bytes())
            );
            assert_eq!(state(&bare, 6), State::Alive);
        }
    }
}

/// Goal: what does not count is not counted. Method: the member itself and one who is named twice as observers;
/// a hold that is nearly over.
#[test]
fn findings_that_do_not_count() {
    let rows = [
        vec![(1, 0), (2, 0), (3, 0), (6, 0)],
        vec![(1, 0), (2, 0), (3, 0), (3, 0)],
        vec![(1, 6_021), (2, 6_021), (3, 6_021), (4, 6_021)],
    ];
    for row in rows {
        let mut bare = bystander();
        tell(&mut bare, 1, &row, &[]);
        bare.run(30 * SECOND);
        assert_eq!(state(&bare, 6), State::Alive, "{row:?}");
    }
}

/// Goal: whoever hears of a hold late joins it, for as long as it lasts, though those who found it so have left since, and gives
/// others the time to find otherwise. Method: a row that is minutes old.
#[test]
fn a_hold_that_is_heard_of_late_ends_with_the_others() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[(901, 3_120), (902, 3_120), (903, 3_120), (904, 3_120)], &[]);
    bare.run(11 * SECOND);
    assert_eq!(state(&bare, 6), State::Alive);
    bare.run(2 * SECOND);
    assert_eq!(state(&bare, 6), State::Dead);
    bare.run(4 * MINUTE + 44 * SECOND);
    bare.tell(6, &frame(UPDATES, &alive(6, 1, 1)));
    assert_eq!(state(&bare, 6), State::Dead);
    bare.run(10 * SECOND);
    bare.tell(6, &frame(UPDATES, &alive(6, 1, 2)));
    assert_eq!(state(&bare, 6), State::Alive);
}

/// A member that is held out may leave, and is told of as one that left.
#[test]
fn who_is_held_out_may_leave() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[(1, 0), (2, 0), (3, 0), (4, 0)], &[]);
    bare.run(13 * SECOND);
    assert_eq!(state(&bare, 6), State::Dead);
    bare.tell(6, &frame(UPDATES, &left(6)));
    assert_eq!(state(&bare, 6), State::Left);
    let told = |sent: &Sent| {
        let rows = sent.frames(UPDATES).concat();
        rows.windows(9).any(|row| row[0] == LEFT && row[1..] == id(6).0.to_le_bytes())
    };
    assert!(bare.run(5 * SECOND).iter().any(told));
    bare.run(20 * MINUTE);
    assert_eq!(state(&bare, 6), State::Left);
}

/// A member that starts anew is another one: nothing is known of how it answers.
#[test]
fn a_new_boot_has_no_standing() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[(1, 0), (2, 0), (3, 0), (4, 0)], &[]);
    bare.run(13 * SECOND);
    bare.meet_as(6, &alive(6, 2, 0));
    assert_eq!(state(&bare, 6), State::Alive);
    assert_eq!(bare.swim.why(id(6)).unwrap().held, None);
}

/// Goal: a node that others hold out is told, and tells its application, once; a finding of a few says nothing to it.
#[test]
fn who_is_held_out_hears_of_it() {
    let mut bare = bystander();
    let mine = |poor: &[(usize, u64)]| frame(UPDATES, &standing(0, 0, poor, &[]));
    bare.tell(1, &mine(&[(1, 0), (2, 0)]));
    assert_eq!(bare.events(), []);
    for _ in 0..3 {
        bare.tell(1, &mine(&[(1, 20), (2, 20), (3, 20), (4, 10)]));
    }
    assert_eq!(bare.events(), [Event::HeldOut { remaining: 610 * SECOND }]);
    assert_eq!(bare.swim.me().incarnation(), 0, "there is nothing to refute");
}

/// Goal: what is no such row is refused whole. Method: counts and times beyond their limits, and an end too soon.
#[test]
fn rows_that_are_none_are_refused() {
    let nobody: &[(usize, u64)] = &[];
    let many: Vec<_> = (1..10).map(|place| (place, 0)).collect();
    let mut short = standing(6, 0, &[(1, 0)], &[]);
    short.pop();
    let rows = [
        standing(6, 4, &[(1, 0)], &[]),
        standing(6, 0, nobody, &[]),
        standing(6, 0, &many, &[]),
        standing(6, 0, &[(1, 0)], &many[..3]),
        standing(6, 0, &[(1, 1 << 28)], &[]),
        short,
    ];
    let mut bare = bystander();
    for row in rows {
        let mut bytes = packet("test", id(1), 1, &frame(UPDATES, &row));
        let refused = bare.swim.handle_packet(bare.now, addr(1), &mut bytes).unwrap_err();
        assert!(
            matches!(
                refused,
                PacketError::LimitExceeded | PacketError::Truncated | PacketError::Malformed
            ),
            "{row:?}: {refused:?}"
        );
    }
}

/// Goal: who needs many tries for a member measures it, next to others, sends no more than it says, and tells what it found.
/// Method: a member that answers every fifth ping.
#[test]
fn a_member_that_answers_by_chance_is_measured() {
    let mut bare = Bare::among(Config::lan(), 1..8);
    bare.answering = (1..8).collect();
    bare.run(5 * SECOND);
    bare.answering.retain(|place| *place != 6);
    let (mut pings, mut told) = (0, None);
    let end = bare.now + MINUTE;
    while bare.now < end && told.is_none() {
        for sent in bare.run(SECOND / 100) {
            if sent.is(PING, 6) {
                pings += 1;
                if pings % 5 == 0 {
                    bare.tell(6, &ack(sent.seq(PING)));
                }
            }
            let rows = sent.frames(UPDATES).concat();
            told = told.or_else(|| {
                rows.windows(9).position(|row| row[0] == 4 && row[1..] == id(6).0.to_le_bytes())
            });
        }
    }
    assert!(told.is_some(), "after {pings} pings");
    let why = bare.swim.why(id(6)).unwrap().held.unwrap();
    assert_eq!((why.poor, why.until), (vec![id(0)], None), "one alone holds nobody out");
    assert_eq!(bare.swim.stats().assays, 1);
}

/// Goal: two whose sets differ for good do not answer each other at the speed of the network. Method: one that tells again and again
/// of a hold to a node that knows otherwise.
#[test]
fn who_does_not_take_a_correction_is_told_once_in_an_interval() {
    let mut bare = bystander();
    let poor = [(1, 0), (2, 0), (3, 0), (4, 0)];
    tell(&mut bare, 1, &poor, &[(7, 0), (8, 0)]);
    bare.run(SECOND * 2);
    bare.sent();
    let mut told = 0;
    for _ in 0..100 {
        bare.now += SECOND / 100;
        tell(&mut bare, 9, &poor.map(|(by, _)| (by, 30)), &[]);
        let sent = bare.sent();
        let to = sent.iter().filter(|sent| sent.to == addr(9));
        told += to.filter(|sent| sent.frame(UPDATES).is_some()).count();
    }
    assert!((1..=3).contains(&told), "{told}");
    assert_eq!(state(&bare, 6), State::Alive);
}

/// Goal: a name counts whoever bears it, this node too: it may have found so before it started anew. Method: its own name among
/// those who found the member well.
#[test]
fn its_own_name_counts_for_a_node_as_for_others() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[(1, 20), (2, 20), (3, 20), (4, 20)], &[(0, 10), (8, 10)]);
    bare.run(20 * SECOND);
    assert_eq!(state(&bare, 6), State::Alive);
}

/// Goal: who found a member well counts for what was opened before that, though it was known as opened later at first. Method: an
/// inquiry that came to nothing, one that is opened after it, and word that the latter is older than the former's end.
#[test]
fn what_turns_out_older_than_findings_is_outweighed_by_them() {
    let mut bare = bystander();
    tell(&mut bare, 1, &[1, 2, 3, 4].map(|by| (by, 0)), &[]);
    bare.run(3 * SECOND);
    tell(&mut bare, 1, &[(1, 30)], &[(7, 0), (8, 0)]);
    bare.run(11 * SECOND);
    tell(&mut bare, 2, &[11, 12, 13, 14].map(|by| (by, 0)), &[]);
    bare.run(SECOND / 10);
    tell(&mut bare, 3, &[(15, 116)], &[]);
    bare.run(20 * SECOND);
    assert_eq!((state(&bare, 6), bare.swim.stats().held_out), (State::Alive, 0));
}

/// A node that holds the member at 6 failed, as one did who lost sight of it.
fn parted(places: core::ops::Range<usize>) -> Bare {
    let mut bare = Bare::among(Config::lan(), places.clone());
    bare.answering = places.filter(|place| *place != 6).collect();
    while state(&bare, 6) != State::Dead {
        bare.run(SECOND);
    }
    bare.answering.push(6);
    bare
}

/// Goal: a member that failed but for a moment is not kept out by word of a hold that fell before; by what is found now it is held
/// at once, before it comes back. Method: the same findings, fresh and old, and the member's answer right after them.
#[test]
fn an_old_hold_does_not_take_the_word_of_who_failed_for_a_moment() {
    for (tenths, after) in [(0, State::Dead), (110, State::Dead), (130, State::Alive)] {
        let mut bare = parted(1..40);
        tell(&mut bare, 9, &[1, 2, 3, 4].map(|by| (by, tenths)), &[]);
        bare.tell(6, &frame(UPDATES, &alive(6, 1, 1)));
        assert_eq!(state(&bare, 6), after, "{tenths}");
    }
}

/// Goal: whoever hears of a hold of a member that is failed here measures it as well, if few others do. Method: word of an old hold,
/// in a cluster so small that each measures.
#[test]
fn a_failed_member_is_measured_whenever_it_is_said_to_be_held() {
    for tenths in [0, 130] {
        let mut bare = parted(1..12);
        let before = bare.swim.stats().assays;
        tell(&mut bare, 9, &[1, 2, 3, 4].map(|by| (by, tenths)), &[]);
        let sent = bare.run(3 * SECOND);
        assert_eq!(bare.swim.stats().assays, before + 1, "{tenths}");
        assert!(sent.iter().filter(|sent| sent.is(PING, 6)).count() >= 5);
        let why = bare.swim.why(id(6)).unwrap().held.unwrap();
        assert_eq!(why.well, [id(0)]);
    }
}

/// Goal: that others tell what this node tells of findings does not end its telling of other news. Method: three who tell the same
/// findings of a member that has just come back, and of one that is held out.
#[test]
fn who_tells_the_same_findings_may_lack_other_news() {
    let of = |kind: u8, sent: &[Sent]| {
        let head = [&[kind][..], &id(6).0.to_le_bytes()].concat();
        let told = |sent: &&Sent| sent.frames(UPDATES).concat().windows(9).any(|row| row == head);
        sent.iter().filter(told).count()
    };
    for (poor, kind, goes_on) in [(3, 0, true), (4, STANDING, false)] {
        let mut bare = bystander();
        let row: Vec<_> = (1..=poor).map(|by| (by, 0)).collect();
        tell(&mut bare, 1, &row, &[]);
        // Told until all know it, and held out if they are enough.
        bare.run(if goes_on { 5 } else { 14 } * SECOND);
        if goes_on {
            bare.tell(6, &frame(UPDATES, &alive(6, 1, 1)));
        }
        let tenths = if goes_on { 50 } else { 140 };
        let row: Vec<_> = (1..=poor).map(|by| (by, tenths)).collect();
        (11..14).for_each(|place| tell(&mut bare, place, &row, &[]));
        let told = of(kind, &bare.run(3 * SECOND));
        assert_eq!(told > 0, goes_on, "{told}");
    }
}

/// Goal: what was enough to hold a member out stays enough when the cluster grows. Method: three of five, and members that
/// join after, when this node measures the member anew.
#[test]
fn a_cluster_that_grows_lifts_no_hold() {
    let mut bare = Bare::among(Config::lan(), 1..7);
    bare.answering = (1..7).collect();
    bare.run(5 * SECOND);
    bare.answering.retain(|place| *place != 6);
    let mut row = standing(6, 0, &[(1, 0), (2, 0)], &[]);
    row[18 + 1] = 2; // the quorum
    bare.tell(1, &frame(UPDATES, &row));
    (7..40).for_each(|place| bare.meet(place));
    let (mut pings, end) = (0, bare.now + 20 * SECOND);
    while bare.now < end {
        for sent in bare.run(SECOND / 100) {
            if sent.is(PING, 6) {
                pings += 1;
                if pings % 5 == 0 {
                    bare.tell(6, &ack(sent.seq(PING)));
                }
            }
        }
    }
    assert_eq!(state(&bare, 6), State::Dead);
    let why = bare.swim.why(id(6)).unwrap().held.unwrap();
    assert_eq!(why.poor, [1, 2, 0].map(id));
}

/// Goal: nobody hears of a member that is held out that it is there alone. Method: newcomers that are told the whole table, of any
/// number of members, in datagrams that end anywhere.
#[test]
fn a_newcomer_hears_of_a_hold_with_the_member() {
    let mut wholes = 0;
    for members in 8..160 {
        let mut bare = Bare::among(Config::lan(), 1..members);
        bare.answering = (1..members).filter(|place| *place != 6).collect();
        tell(&mut bare, 1, &(1..=4).map(|by| (by, 130)).collect::<Vec<_>>(), &[]);
        // Until it is told no more by gossip.
        bare.run(MINUTE);
        assert_eq!(state(&bare, 6), State::Dead);
        let asks = members + 1;
        let mut told = Vec::new();
        bare.tell(asks, &join(0, asks, 1, addr(asks).port()));
        while let Some(body) = bare.sent().iter().find_map(|sent| sent.frame(COOKIE)) {
            let cookie = u64::from_le_bytes(body.try_into().unwrap());
            bare.tell(asks, &join(cookie, asks, 1, addr(asks).port()));
            told.extend(bare.sent().into_iter().filter(|sent| sent.to == addr(asks)));
        }
        for sent in told {
            let rows = sent.frames(UPDATES).concat();
            let head = |kind: u8| [&[kind][..], &id(6).0.to_le_bytes()].concat();
            let has = |kind| rows.windows(9).any(|row| row == head(kind));
            assert!(!has(0) || has(STANDING), "{members} members");
            wholes += usize::from(has(0));
        }
    }
    assert!(wholes >= 150, "{wholes}");
}
