//! Full syncs to the letter, on the side that gives, with every peer played by the test.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::frame_of;
use crate::common::maps::{NOW, addr, drain};
use crate::common::stages::*;
use brickwork_core::NodeId;
use brickwork_core::map::{Config, Map};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

fn given(map: &mut Map, to: u64) -> Vec<Head> {
    sent(map, STAGE, to).iter().map(|body| Head::read(body)).collect()
}

/// Goal: a peer is given all units in order, and of what it asks for again just that. Method: a pull, and requests
/// for ranges within, across and beyond the end.
#[test]
fn units_are_given_as_they_are_asked_for() {
    let mut map = giver(1, &Config::lan(), [2, 3]);
    tell(&mut map, NOW, 2, &pull(77, 1 << 20));
    let heads = given(&mut map, 2);
    let mut next = 0;
    for head in &heads {
        let end = head.first + u64::from(head.covered);
        assert_eq!((head.nonce, head.contexts, head.total, head.first), (77, 1, KEYS + 1, next));
        assert_eq!((head.session, head.last), (heads[0].session, end == KEYS + 1));
        next = end;
    }
    assert_eq!(next, KEYS + 1);
    tell(&mut map, NOW, 2, &pull(77, 1 << 20));
    assert_eq!(given(&mut map, 2), [], "a second copy of the same question");

    let session = heads[0].session;
    for (number, (ranges, covered)) in (1..).zip([
        (vec![(0, 1)], vec![(0, 1)]),
        (vec![(3, 5), (10, 12), (299, 301)], vec![(3, 2), (10, 2), (299, 2)]),
        (vec![(300, 400)], vec![(300, 1)]),
        (vec![(4, 5), (301, 400)], vec![(4, 1)]),
        (vec![(301, 400)], vec![(301, 0)]),
    ]) {
        let asked = fetch(session, (number, false), 1 << 20, &ranges);
        tell(&mut map, NOW, 2, &asked);
        let heads = given(&mut map, 2);
        let found: Vec<_> = heads.iter().map(|head| (head.first, head.covered)).collect();
        assert_eq!(found, covered);
        let last: Vec<_> = heads.iter().map(|head| head.last).collect();
        assert_eq!(last.iter().filter(|last| **last).count(), 1);
        assert!(heads.last().unwrap().last && heads.iter().all(|head| head.nonce == number));
        tell(&mut map, NOW, 2, &asked);
        assert_eq!(given(&mut map, 2), [], "it was asked for twice");
    }
    tell(&mut map, NOW, 3, &fetch(session, (6, false), 1 << 20, &[(0, 1)]));
    assert_eq!(sent(&mut map, GONE, 3).len(), 1, "it is somebody else's");
    tell(&mut map, NOW, 2, &fetch(session, (0, false), 0, &[]));
    assert_eq!(given(&mut map, 2), []);
    tell(&mut map, NOW, 2, &fetch(session, (6, false), 1 << 20, &[(0, 1)]));
    let gone = sent(&mut map, GONE, 2);
    assert_eq!(gone.len(), 1, "it was over when nothing more was asked for");
    assert_eq!(gone[0][8..], session.to_le_bytes());
    tell(&mut map, NOW, 2, &fetch(session, (7, false), 1 << 20, &[]));
    assert!(drain(&mut map).is_empty(), "they agree that it is over");
}

/// Goal: who is asked ahead goes on from where the answers have got to, gives what was lost once more, and says so if
/// that was all. Method: an answer that ends with its budget, and the next asked for from before its end.
#[test]
fn an_answer_asked_for_ahead_goes_on() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 3000));
    let heads = given(&mut map, 2);
    let (session, end) = (heads[0].session, |head: &Head| head.first + u64::from(head.covered));
    let got_to = end(heads.last().unwrap());
    let ask = |map: &mut Map, number, ahead, budget, ranges: &[(u64, u64)]| {
        tell(map, NOW, 2, &fetch(session, (number, ahead), budget, ranges));
        given(map, 2)
    };
    let lost = (heads[1].first, heads[1].first + 2);
    let heads = ask(&mut map, 1, true, 3000, &[lost, (heads[2].first, KEYS + 1)]);
    assert_eq!((heads[0].first, heads[0].covered, heads[0].last), (lost.0, 2, false));
    assert_eq!((heads[1].first, heads[1].nonce), (got_to, 1));
    let further = end(heads.last().unwrap());
    assert!(further < KEYS + 1);
    // What did not arrive is begun from again, and gone on with from there.
    let heads = ask(&mut map, 2, false, 1000, &[(got_to, KEYS + 1)]);
    assert_eq!((heads[0].first, heads.len()), (got_to, 1));
    let heads = ask(&mut map, 3, true, 1 << 20, &[(got_to + 1, KEYS + 1)]);
    assert_eq!(
        (heads[0].first, end(heads.last().unwrap())),
        (end(&heads[0]) - u64::from(heads[0].covered), KEYS + 1)
    );
    assert!(heads[0].first > got_to + 1 && heads[0].first < further);
    // What is given once more is not where it goes on.
    let heads = ask(&mut map, 4, false, 1 << 20, &[(5, 7)]);
    assert_eq!((heads.len(), heads[0].first), (1, 5));
    let heads = ask(&mut map, 5, true, 1 << 20, &[(further, KEYS + 1)]);
    let told: Vec<_> = heads.iter().map(|head| (head.first, head.covered, head.last)).collect();
    assert_eq!(told, [(KEYS + 1, 0, true)], "there is nothing further");
}

/// Goal: an answer ends where the peer's budget does, or this map's own. Method: budgets around the sizes of frames.
#[test]
fn an_answer_ends_with_the_budget() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 1 << 20));
    let mut spent = 0;
    for (n, body) in (1..4).zip(sent(&mut map, STAGE, 2)) {
        // With a tag and a length of two bytes, and a few bytes less where no number is echoed.
        spent += body.len() as u64 + 3;
        for (budget, frames) in [(spent - 20, n), (spent + 20, n + 1)] {
            let mut map = giver(1, &Config::lan(), [2]);
            tell(&mut map, NOW, 2, &pull(1, budget));
            let first = given(&mut map, 2);
            tell(&mut map, NOW, 2, &fetch(first[0].session, (1, false), budget, &[(0, KEYS + 1)]));
            for heads in [first, given(&mut map, 2)] {
                assert_eq!(heads.len(), frames, "with a budget of {budget}");
                let last: Vec<_> = heads.iter().map(|head| head.last).collect();
                assert!(last[frames - 1] && !last[..frames - 1].contains(&true));
            }
        }
    }
    let mut small = Config::lan();
    small.pull_budget = 3000;
    let mut narrow = giver(1, &small, [2]);
    tell(&mut narrow, NOW, 2, &pull(5, 1 << 20));
    let heads = given(&mut narrow, 2);
    assert_eq!((heads.len(), heads[2].last), (3, true));
    tell(&mut narrow, NOW, 2, &fetch(heads[0].session, (1, false), 1 << 20, &[(0, KEYS + 1)]));
    assert_eq!(given(&mut narrow, 2).len(), 3);
}

/// Goal: a peer that is silent for thirty seconds is given up. Method: it asks as late as possible, twice, and once
/// too late.
#[test]
fn a_session_lasts_while_its_peer_speaks() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 1 << 20));
    let session = given(&mut map, 2)[0].session;
    let mut now = NOW;
    for (number, silence, there) in
        [(1, SECOND * 30 - NANO, true), (2, SECOND * 30 - NANO, true), (3, SECOND * 30, false)]
    {
        now += silence;
        map.handle_timeout(now);
        drain(&mut map);
        tell(&mut map, now, 2, &fetch(session, (number, false), 1000, &[(0, 1)]));
        let frames = drain(&mut map);
        let has = |tag| frames.iter().any(|(_, bytes)| frame_of(bytes, tag).is_some());
        assert_eq!((has(STAGE), has(GONE)), (there, !there));
    }
}

/// Goal: nobody keeps what is collected waiting for ever. Method: a peer that asks for the same unit every twenty
/// seconds, for ten minutes.
#[test]
fn a_session_lasts_ten_minutes_at_most() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 1 << 20));
    let session = given(&mut map, 2)[0].session;
    for time in (20..=620_u32).step_by(20) {
        let now = NOW + SECOND * time;
        map.handle_timeout(now);
        tell(&mut map, now, 2, &fetch(session, (time.into(), false), 1000, &[(0, 1)]));
        let gone = sent(&mut map, GONE, 2);
        // And a millisecond for each key.
        assert_eq!(gone.len(), usize::from(time > 600), "after {time} s");
    }
}

/// Goal: sessions that follow each other keep nothing waiting for ever either. Method: two peers in turn that each begin
/// anew before the other is through; after ten minutes they are sent away until none is left.
#[test]
fn sessions_do_not_follow_each_other_for_ever() {
    let mut map = giver(1, &Config::lan(), [2, 3]);
    let mut away = Vec::new();
    for turn in 0..50_u32 {
        let now = NOW + SECOND * 20 * turn;
        map.handle_timeout(now);
        let peer = 2 + u64::from(turn % 2);
        tell(&mut map, now, peer, &pull(u64::from(turn) + 1, 1000));
        if !sent(&mut map, GONE, peer).is_empty() {
            away.push(turn * 20);
        }
    }
    assert_eq!(away, [620], "and from the next on it is another time");
}

/// Goal: so many peers are served at a time, and others are sent away until one is done; who is served may begin anew.
/// Method: ten peers.
#[test]
fn so_many_peers_are_served_at_a_time() {
    let mut map = giver(1, &Config::lan(), 2..=11);
    let mut sessions = Vec::new();
    for peer in 2..=9 {
        tell(&mut map, NOW, peer, &pull(peer, 2000));
        sessions.push(given(&mut map, peer)[0].session);
    }
    for peer in 10..=11 {
        tell(&mut map, NOW, peer, &pull(peer, 2000));
    }
    let gone = drain(&mut map);
    for peer in 10..=11_u64 {
        let told = gone
            .iter()
            .filter(|(to, _)| *to == peer)
            .filter_map(|(_, bytes)| frame_of(bytes, GONE));
        let expected = [addressee(peer, 1, 1).to_le_bytes(), peer.to_le_bytes()].concat();
        assert_eq!(told.collect::<Vec<_>>(), [&expected[..]]);
    }
    assert!(gone.iter().all(|(_, bytes)| frame_of(bytes, STAGE).is_none()));
    tell(&mut map, NOW, 3, &pull(99, 2000));
    let again = given(&mut map, 3);
    assert!(again[0].session != sessions[1] && again[0].nonce == 99);
    tell(&mut map, NOW, 4, &fetch(sessions[2], (1, false), 2000, &[]));
    tell(&mut map, NOW, 10, &pull(12, 2000));
    assert!(!given(&mut map, 10).is_empty());
    tell(&mut map, NOW, 5, &fetch(sessions[3], (1, false), 2000, &[(7, 8)]));
    let heads = given(&mut map, 5);
    assert_eq!((heads.len(), heads[0].first), (1, 7), "the others go on");
}

/// Goal: who is sent away hears of it, whoever else goes meanwhile, and nobody else does. Method: two are sent away,
/// one of them goes, and another one takes its place.
#[test]
fn a_refusal_is_for_whom_it_was() {
    for goes in [10, 11] {
        let mut map = giver(1, &Config::lan(), 2..=11);
        (2..=11).for_each(|peer| tell(&mut map, NOW, peer, &pull(peer, 2000)));
        map.peer_down(NOW, NodeId(goes));
        map.peer_up(NOW, NodeId(12), 1, addr(12));
        let sent = drain(&mut map);
        let told = sent.iter().filter(|(_, bytes)| frame_of(bytes, GONE).is_some());
        assert_eq!(told.map(|(to, _)| *to).collect::<Vec<_>>(), [21 - goes]);
    }
}
