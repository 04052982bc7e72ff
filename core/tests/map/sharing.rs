//! Pulls from several sources at once: who is asked for which share, and what ends that, with every peer played by the
//! test.

#![allow(clippy::unwrap_used)]

use crate::common::frame_of;
use crate::common::maps::{NOW, addr, drain};
use crate::common::played::{
    CHUNK, Frame, OWN, PULL, among, chunk, chunk_to, run, state, tell, write,
};
use crate::common::{
    self,
    bare::{frame, millis, packet, read_varint, varint},
};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};

const LAST: u8 = 1;
const MORE: u8 = 2;

const GONE: u8 = 0xa6;
const SEALS: u8 = 0xa9;

/// The number of the share that a pull asks for, and how many there are.
fn share(pull: &[u8]) -> Option<(u8, u8)> {
    let varint =
        |from: usize| from + pull[from..].iter().take_while(|byte| **byte > 127).count() + 1;
    let flags = varint(varint(0)) + 8;
    let seals = if pull[flags] & 16 == 0 { 0 } else { 8 };
    let byte = pull[flags + 1 + seals];
    (pull[flags] & 64 != 0).then_some((byte & 15, byte >> 4))
}

/// The news number `counter`.
fn news(counter: u64) -> Vec<u8> {
    write(50, counter, OWN, &counter.to_le_bytes(), b"value")
}

/// A map that was told by peer 2 that there is more, after `took`; whom it asks for shares then.
fn shared(peers: &[u64], took: u64) -> (Map, Instant, Vec<Frame>) {
    let mut map = among(&Config::lan(), peers.iter().copied());
    for &peer in peers {
        tell(&mut map, NOW, peer, &state(9 + peer));
    }
    let pulls = run(&mut map, PULL, NOW, NOW);
    assert_eq!((pulls.len(), pulls[0].1, share(&pulls[0].2)), (1, 2, None));
    let now = NOW + millis(took);
    tell(&mut map, now, 2, &chunk(read_varint(&pulls[0].2), 0, LAST | MORE, &news(1)));
    let pulls = run(&mut map, PULL, now, now);
    (map, now, pulls)
}

/// Answers a pull with one chunk.
fn answer(map: &mut Map, now: Instant, pull: &Frame, flags: u8, runs: &[u8]) {
    tell(map, now, pull.1, &chunk(read_varint(&pull.2), 0, flags, runs));
}

fn nobody(map: &mut Map, now: Instant) {
    assert_eq!(run(map, PULL, now, now).len(), 0);
}

/// The one pull that is sent now: for all, and from whom.
fn ordinary(map: &mut Map, now: Instant, until: Instant) -> Frame {
    let mut pulls = run(map, PULL, now, until);
    assert_eq!(pulls.len(), 1, "{pulls:?}");
    assert_eq!(share(&pulls[0].2), None);
    pulls.remove(0)
}

/// Goal: as many as three are asked for as many shares when one has more than it told; with nobody else to ask, all is
/// asked for as before. Method: one to five peers.
#[test]
fn up_to_three_are_asked_for_a_share_each() {
    for (peers, shares) in [(1, 0), (2, 2), (3, 3), (5, 3)] {
        let peers: Vec<u64> = (2..2 + peers).collect();
        let (mut map, now, pulls) = shared(&peers, 20);
        let told: Vec<_> = pulls.iter().map(|(.., pull)| share(pull)).collect();
        if shares == 0 {
            assert_eq!(told, [None]);
            continue;
        }
        let expected: Vec<_> = (0..shares).map(|index| Some((index, shares))).collect();
        assert_eq!(told, expected);
        assert_eq!(pulls[0].1, 2, "who gave some gives more");
        let mut asked: Vec<u64> = pulls.iter().map(|(_, peer, _)| *peer).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), usize::from(shares), "each another");
        // Each goes on by itself, and then all is asked for.
        answer(&mut map, now + millis(20), &pulls[1], LAST | MORE, &news(70));
        let next = run(&mut map, PULL, now + millis(20), now + millis(20)).remove(0);
        assert_eq!((next.1, share(&next.2)), (pulls[1].1, share(&pulls[1].2)));
        let mut open: Vec<Frame> = pulls.iter().skip(2).cloned().collect();
        open.extend([next, pulls[0].clone()]);
        for (at, pull) in open.iter().enumerate() {
            nobody(&mut map, now + millis(25));
            answer(&mut map, now + millis(25), pull, LAST, &news(200 + at as u64));
        }
        ordinary(&mut map, now + millis(25), now + millis(25));
    }
}

/// Goal: an answer that is lost costs no more than twice the time of the others, and all that it would have told is
/// asked for again. Method: of three only two answer.
#[test]
fn what_a_lost_answer_would_have_told_is_asked_for_with_the_rest() {
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    answer(&mut map, now + millis(20), &pulls[0], LAST, &news(2));
    answer(&mut map, now + millis(30), &pulls[1], LAST, &news(3));
    let pull = ordinary(&mut map, now + millis(30), now + millis(61));
    assert_eq!(pull.0, now + millis(60), "twice as long as the first took");
    assert_eq!(pull.1, 2, "whose answer came soonest");
    // Only this one says that there is nothing more.
    answer(&mut map, now + millis(80), &pull, LAST, &[]);
    tell(&mut map, now + millis(80), 2, &state(11));
    let next = run(&mut map, PULL, now + millis(80), now + millis(1000));
    assert!(!next.is_empty() && next.iter().all(|(_, peer, _)| *peer != 2), "{next:?}");
}

/// Goal: peers that fall silent are asked twice, and then somebody for all, less and less often. Method: three who
/// never answer again.
#[test]
fn sources_that_fall_silent_are_given_up() {
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    assert_eq!(pulls.len(), 3);
    let again = run(&mut map, PULL, now + millis(1), now + millis(80));
    assert_eq!(again.len(), 3, "after four usual times: {again:?}");
    assert!(again.iter().all(|(at, _, pull)| *at == now + millis(80) && share(pull).is_some()));
    let rest = run(&mut map, PULL, now + millis(81), now + millis(20_000));
    assert!(rest.iter().all(|(.., pull)| share(pull).is_none()), "{rest:?}");
    assert!((8..20).contains(&rest.len()), "{rest:?}");
    let waits: Vec<_> = rest.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(waits.last() > waits.first(), "{waits:?}");
}

/// Goal: a peer that goes down is waited for no longer, and neither are all of them. Method: one of three, and then
/// the others.
#[test]
fn a_source_that_goes_down_is_waited_for_no_longer() {
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    map.peer_down(now, NodeId(pulls[1].1));
    nobody(&mut map, now);
    answer(&mut map, now + millis(20), &pulls[2], LAST, &news(2));
    nobody(&mut map, now + millis(20));
    answer(&mut map, now + millis(20), &pulls[0], LAST, &news(3));
    ordinary(&mut map, now + millis(20), now + millis(20));
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    answer(&mut map, now, &pulls[0], LAST, &news(2));
    for (_, peer, _) in &pulls {
        map.peer_down(now, NodeId(*peer));
    }
    assert_eq!(run(&mut map, PULL, now, now + millis(1000)), [], "there is nobody");
}

/// Goal: one that has other seals gives no share; if they are new here, all is asked for under them. Method: seals that
/// are known, which are none, and a new one.
#[test]
fn a_source_with_other_seals_gives_no_share() {
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    tell(&mut map, now, pulls[1].1, &frame(SEALS, &[LAST]));
    nobody(&mut map, now);
    answer(&mut map, now + millis(20), &pulls[0], LAST, &news(2));
    answer(&mut map, now + millis(20), &pulls[2], LAST, &news(3));
    ordinary(&mut map, now + millis(20), now + millis(20));
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    let life = [70_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    let seal = [&[LAST][..], &life, &varint(5), &[0]].concat();
    tell(&mut map, now, pulls[1].1, &frame(SEALS, &seal));
    let pull = ordinary(&mut map, now, now);
    assert_eq!(pull.1, pulls[1].1);
}

/// Goal: an answer for a share that comes when nobody waits for it brings what it tells, and ends nothing. Method: one
/// that comes while all is asked for, and the answer to that.
#[test]
fn a_late_answer_for_a_share_is_taken_and_ends_nothing() {
    let (mut map, now, pulls) = shared(&[2, 3, 4], 20);
    answer(&mut map, now + millis(20), &pulls[0], LAST, &news(2));
    answer(&mut map, now + millis(20), &pulls[1], LAST, &news(3));
    let pull = ordinary(&mut map, now + millis(20), now + millis(60));
    let known = map.stats().dots_received;
    answer(&mut map, now + millis(70), &pulls[2], LAST, &news(4));
    assert_eq!(map.stats().dots_received, known + 1);
    nobody(&mut map, now + millis(70));
    // More than one was too slow for is shared among the others.
    answer(&mut map, now + millis(75), &pull, LAST | MORE, &news(5));
    let next = run(&mut map, PULL, now + millis(75), now + millis(75));
    assert_eq!(
        next.iter().map(|(.., pull)| share(pull)).collect::<Vec<_>>(),
        [Some((0, 2)), Some((1, 2))]
    );
    assert!(next.iter().all(|(_, peer, _)| *peer != pulls[2].1));
}

/// Goal: one that says it gives nothing is not waited for. Method: GONE in place of an answer.
#[test]
fn a_source_that_gives_nothing_is_not_waited_for() {
    let (mut map, now, pulls) = shared(&[2, 3], 20);
    let nonce = read_varint(&pulls[1].2).to_le_bytes();
    let gone = [common::played::addressee(1).to_le_bytes(), nonce].concat();
    tell(&mut map, now, 3, &frame(GONE, &gone));
    nobody(&mut map, now);
    answer(&mut map, now + millis(20), &pulls[0], LAST, &news(2));
    assert_eq!(ordinary(&mut map, now + millis(20), now + millis(20)).1, 2);
}

fn pull_for(byte: Option<u8>, nonce: u64) -> Vec<u8> {
    let flags = if byte.is_some() { 64 } else { 0 };
    let head = [varint(nonce), varint(1 << 20), 1_u64.to_le_bytes().to_vec(), vec![flags]].concat();
    frame(PULL, &[head, byte.into_iter().collect()].concat())
}

/// Goal: three shares are all that is missing, each told once; entries of several datagrams are left to a pull for all,
/// and each answer says so. Method: a thousand writes, two large ones, a peer that lacks them, and a third replica that
/// counts.
#[test]
fn answers_for_all_shares_tell_everything_once() {
    let mut config = Config::lan();
    config.pull_budget = 1 << 20;
    let mut map = among(&config, [2]);
    map.peer_down(NOW, NodeId(2));
    for key in 0..1_000_u64 {
        map.insert(NOW, &key.to_le_bytes(), &[7; 40]).unwrap();
    }
    map.insert(NOW, b"large", &[7; 5_000]).unwrap();
    map.insert(NOW, b"also", &[8; 5_000]).unwrap();
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    drain(&mut map);
    let life = ReplicaId::new(NodeId(2), 1);
    let mut taker = Map::new(NOW, life, "test", config, 1_400, [8; 32]).unwrap();
    taker.peer_up(NOW, NodeId(1), 1, addr(1));
    let (mut told, mut flags) = (0, Vec::new());
    for (nonce, byte) in (5..).zip([0x30, 0x31, 0x32]) {
        tell(&mut map, NOW, 2, &pull_for(Some(byte), nonce));
        let answers = drain(&mut map);
        let last = frame_of(&answers[answers.len() - 1].1, CHUNK).unwrap();
        // After the addressee, the nonce and the number.
        flags.push(last[10]);
        for (_, bytes) in answers {
            taker.handle_packet(NOW, addr(1), &mut bytes.clone()).unwrap();
        }
        let now_told = taker.stats().dots_received;
        assert!((250..420).contains(&(now_told - told)), "{byte:x}: {now_told} after {told}");
        told = now_told;
    }
    assert_eq!((told, taker.len()), (1_000, 1_000));
    flags.sort_unstable();
    assert_eq!(flags, [LAST, LAST, LAST | MORE], "the large ones are in the same block");
}

/// Goal: what no node sends is refused whole. Method: all bytes for a share, in a datagram with a write.
#[test]
fn a_share_that_there_is_not_is_refused() {
    for byte in 0..=255 {
        let mut map = among(&Config::lan(), [2]);
        let frames = [chunk_to(1, 0, 0, 0, &news(1)), pull_for(Some(byte), 5)].concat();
        let mut bytes = packet("test", NodeId(2), 1, &frames);
        let taken = map.handle_packet(NOW, addr(2), &mut bytes).is_ok();
        assert_eq!(taken, matches!(byte, 0x20 | 0x21 | 0x30..=0x32), "{byte:x}");
        assert_eq!(map.len(), usize::from(taken));
        drain(&mut map);
    }
    let mut bytes =
        packet("test", NodeId(2), 1, &frame(PULL, &[&pull_for(None, 5)[2..13], &[64]].concat()));
    assert!(among(&Config::lan(), [2]).handle_packet(NOW, addr(2), &mut bytes).is_err(), "none");
}
