//! Contexts of many replicas are compared before they are listed: what that saves, and that nothing which is lost,
//! late or made up does harm.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::common::bare::{frame, millis, packet, read_varint, varint};
use crate::common::maps::{NOW, addr, deliver, drain};
use crate::common::played::{
    BARE, CHUNK, Frame, PULL, addressee, among, chunk, chunk_to, mix2, run, state, tell, times,
    write,
};
use crate::common::{Dice, frame_of};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId, PacketError};

const STAGE: u8 = 0xa5;
const SEALS: u8 = 0xa9;
const BUCKETS: u8 = 0xaa;
const DIFFER: u8 = 0xab;

const LAST: u8 = 1;

/// The node of the first of the lives that are told of.
const FIRST: u64 = 1_000;

/// Tells a map of one write of each of so many lives.
fn crowd(map: &mut Map, from: u64, lives: u64) {
    let me = map.replica().node.0;
    for node in FIRST..FIRST + lives {
        let key = node.to_le_bytes();
        tell(map, NOW, from, &chunk_to(me, 0, 0, 0, &write(node, 1, BARE, &key[..2], b"")));
    }
    drain(map);
}

/// Tells a map of a write that no peer of it knows of.
fn inform(map: &mut Map, node: u64, counter: u64, key: &[u8]) {
    let me = map.replica().node.0;
    map.peer_up(NOW, NodeId(9), 1, addr(9));
    tell(map, NOW, 9, &chunk_to(me, 0, 0, 0, &write(node, counter, BARE, key, b"value")));
    drain(map);
    map.peer_down(NOW, NodeId(9));
}

/// Map 1, which knows of so many replicas, itself among them.
fn knowing(config: &Config, replicas: u64) -> Map {
    let mut map = among(config, [2, 3]);
    crowd(&mut map, 2, replicas - 1);
    map
}

/// Maps with these settings that are peers of each other.
fn maps(config: &Config, max_datagram: usize, ids: &[u64]) -> Vec<Map> {
    let mut maps = Vec::new();
    for &id in ids {
        let life = ReplicaId::new(NodeId(id), 1);
        let mut map = Map::new(NOW, life, "test", config.clone(), max_datagram, [7; 32]).unwrap();
        let others = ids.iter().filter(|other| **other != id);
        others.for_each(|other| map.peer_up(NOW, NodeId(*other), 1, addr(*other)));
        maps.push(map);
    }
    maps
}

/// Bytes of frames that were sent, by their tags.
type Sent = BTreeMap<u8, usize>;

/// Carries datagrams and fires timers for so long, or until all are equal. Returns when it was.
fn carry(maps: &mut [Map], from: Instant, time: Duration, loss: u32, sent: &mut Sent) -> Instant {
    let (mut now, mut dice) = (from, Dice(7));
    while now < from + time && !equal(maps) {
        for at in 0..maps.len() {
            let id = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                for tag in [PULL, CHUNK, STAGE, BUCKETS, DIFFER] {
                    let len = frame_of(&bytes, tag).map_or(0, <[u8]>::len);
                    *sent.entry(tag).or_default() += len;
                }
                let receiver = maps.iter_mut().find(|map| map.replica().node.0 == to);
                if let Some(receiver) = receiver.filter(|_| !dice.percent(loss)) {
                    deliver(receiver, now, id, &bytes);
                }
            }
        }
        now += millis(5);
        maps.iter_mut().for_each(|map| map.handle_timeout(now));
    }
    now
}

fn equal(maps: &[Map]) -> bool {
    maps.iter().all(|map| map.digest() == maps[0].digest())
}

/// Lets the maps talk without loss, whether or not they are equal.
fn rest(maps: &mut [Map], mut now: Instant, time: Duration) -> Instant {
    let end = now + time;
    while now < end {
        carry(maps, now, millis(5), 0, &mut Sent::new());
        for at in 0..maps.len() {
            let id = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                if let Some(map) = maps.iter_mut().find(|map| map.replica().node.0 == to) {
                    deliver(map, now, id, &bytes);
                }
            }
        }
        now += millis(5);
        maps.iter_mut().for_each(|map| map.handle_timeout(now));
    }
    now
}

/// The map hears that a peer is different, and asks it. Returns the nonce of the sums.
fn ask(map: &mut Map, now: Instant, peer: u64) -> u64 {
    tell(map, now, peer, &state(9));
    let asked = run(map, BUCKETS, now, now);
    assert_eq!((asked.len(), asked[0].1), (1, peer));
    read_varint(&asked[0].2)
}

fn differ(to: u64, nonce: u64, buckets: u64) -> Vec<u8> {
    let body = [addressee(to).to_le_bytes().to_vec(), varint(nonce)].concat();
    frame(DIFFER, &[body, buckets.to_le_bytes().to_vec()].concat())
}

/// The frame by which life 1 of a node compares, with these sums.
fn sums(nonce: u64, seals: u64, sums: &[u64]) -> Vec<u8> {
    let mut body = [varint(nonce), 1_u64.to_le_bytes().to_vec()].concat();
    body.push(u8::from(seals != 0));
    if seals != 0 {
        body.extend(seals.to_le_bytes());
    }
    body.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
    frame(BUCKETS, &body)
}

/// The bucket of life 1 of a node.
fn bucket(node: u64) -> u64 {
    mix2(node, 1) >> 58
}

/// The nodes of the replicas that a pull lists, and whether there is an upper bound.
fn listed(pull: &Frame) -> (Vec<u64>, bool) {
    let body = &pull.2;
    let nonce = varint(read_varint(body)).len();
    let budget = varint(read_varint(&body[nonce..])).len();
    let flags = body[nonce + budget + 8];
    assert_eq!(flags & !35, 0);
    let bounds = (flags & 3).count_ones() as usize * 16 + usize::from(flags & 32) / 4;
    let mut rest = &body[nonce + budget + 9 + bounds..];
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        nodes.push(u64::from_le_bytes(rest[..8].try_into().unwrap()));
        // One base below 128, and no runs.
        rest = &rest[18..];
    }
    (nodes, flags & 2 != 0)
}

/// Goal: two contexts of a thousand replicas that differ in one cost a small share of what it takes to list them.
/// Method: bytes of the frames that ask, with and without sums.
#[test]
fn a_thousand_replicas_that_differ_in_one_are_not_all_listed() {
    let cost = |max_listed| {
        let mut config = Config::lan();
        config.max_listed = max_listed;
        let mut maps = maps(&config, 1_400, &[1, 2]);
        crowd(&mut maps[0], 2, 1_000);
        crowd(&mut maps[1], 1, 1_000);
        inform(&mut maps[1], FIRST + 500, 2, b"news");
        let mut sent = Sent::new();
        carry(&mut maps, NOW, millis(20_000), 0, &mut sent);
        assert!(equal(&maps));
        assert_eq!(maps[0].get(b"news"), Some(&b"value"[..]));
        (sent[&PULL], sent[&BUCKETS], sent[&DIFFER])
    };
    let (all, none, _) = cost(65_535);
    let (some, sums, differ) = cost(300);
    assert_eq!(none, 0);
    assert!(all > 18 * 1_000, "{all} bytes to list all");
    let compared = some + sums + differ;
    println!("{all} bytes to list all; {some} + {sums} + {differ} to compare");
    assert!(compared * 10 < all, "{compared} bytes to compare, {all} to list all");
}

/// Goal: as many replicas as may be listed are listed, and for one more sums are compared. Method: both sides of the
/// limit.
#[test]
fn contexts_are_compared_beyond_the_limit_alone() {
    for (replicas, tag, other) in [(300, PULL, BUCKETS), (301, BUCKETS, PULL)] {
        let mut map = knowing(&Config::lan(), replicas);
        tell(&mut map, NOW, 2, &state(9));
        assert_eq!(run(&mut map, tag, NOW, NOW).len(), 1);
        let mut map = knowing(&Config::lan(), replicas);
        tell(&mut map, NOW, 2, &state(9));
        assert_eq!(run(&mut map, other, NOW, NOW).len(), 0);
    }
}

/// Goal: the replicas of the buckets that differ are listed, and no others; all of them if all differ, over as many
/// pages as it takes, without comparing again.
#[test]
fn what_differs_is_listed() {
    let mut map = knowing(&Config::lan(), 400);
    let nonce = ask(&mut map, NOW, 2);
    let mask = 1 << 5 | 1 << 63;
    tell(&mut map, NOW, 2, &differ(1, nonce, mask));
    let pulls = run(&mut map, PULL, NOW, NOW);
    let nodes = (FIRST..FIRST + 399).chain([1]).filter(|node| mask >> bucket(*node) & 1 == 1);
    let mut nodes: Vec<u64> = nodes.collect();
    nodes.sort_unstable();
    assert_eq!(listed(&pulls[0]), (nodes, false));
    assert_eq!(read_varint(&pulls[0].2), nonce);

    let mut map = knowing(&Config::lan(), 400);
    let nonce = ask(&mut map, NOW, 2);
    tell(&mut map, NOW, 2, &differ(1, nonce, u64::MAX));
    let (mut nodes, mut pages) = (Vec::new(), 0);
    loop {
        let pulls = run(&mut map, PULL, NOW, NOW);
        let (page, bound) = listed(&pulls[0]);
        nodes.extend(page);
        pages += 1;
        tell(&mut map, NOW, 2, &chunk(read_varint(&pulls[0].2), 0, LAST, &[]));
        if !bound {
            break;
        }
    }
    assert_eq!(nodes, [1].into_iter().chain(FIRST..FIRST + 399).collect::<Vec<_>>());
    assert!(pages > 4, "{pages}");
}

/// Goal: a peer with an equal context is left alone after it said so. Method: no bucket differs; the pull lists nothing.
#[test]
fn a_peer_in_which_nothing_differs_is_left_alone() {
    let mut map = knowing(&Config::lan(), 400);
    let nonce = ask(&mut map, NOW, 2);
    tell(&mut map, NOW, 2, &differ(1, nonce, 0));
    let pulls = run(&mut map, PULL, NOW, NOW);
    assert_eq!(listed(&pulls[0]), (vec![], false));
    tell(&mut map, NOW, 2, &chunk(nonce, 0, LAST, &[]));
    tell(&mut map, NOW + millis(150), 2, &state(9));
    assert_eq!(run(&mut map, BUCKETS, NOW + millis(150), NOW + millis(150)).len(), 0);
}

/// Goal: where the comparison is not answered, all is listed: a loss costs time once, and a peer that does not know
/// these frames is pulled from. Then sums are compared again. Method: silence, and a peer that answers PULL alone.
#[test]
fn after_silence_all_is_listed() {
    let mut map = knowing(&Config::lan(), 400);
    ask(&mut map, NOW, 2);
    let pulls = run(&mut map, PULL, NOW, NOW + millis(300));
    assert_eq!(times(&pulls), [300]);
    let (nodes, bound) = listed(&pulls[0]);
    assert!(nodes.len() > 70 && bound, "the first page of all");
    let mut now = NOW + millis(300);
    let mut nonce = read_varint(&pulls[0].2);
    loop {
        tell(&mut map, now, pulls[0].1, &chunk(nonce, 0, LAST, &[]));
        let pulls = run(&mut map, PULL, now, now);
        let Some(pull) = pulls.first() else { break };
        nonce = read_varint(&pull.2);
    }
    now += millis(150);
    ask(&mut map, now, 2);
}

/// Goal: a DIFFER that answers no comparison under way changes nothing. Method: another nonce, another sender, another
/// addressee, one that comes twice, and one after the pull was given up.
#[test]
fn answers_that_belong_to_nothing_are_ignored() {
    let mut map = knowing(&Config::lan(), 400);
    let nonce = ask(&mut map, NOW, 2);
    let refused = map.stats().misaddressed;
    tell(&mut map, NOW, 2, &differ(1, nonce + 1, 1));
    tell(&mut map, NOW, 3, &differ(1, nonce, 1));
    assert_eq!(map.stats().misaddressed, refused);
    tell(&mut map, NOW, 2, &differ(2, nonce, 1));
    assert_eq!(map.stats().misaddressed, refused + 1);
    assert_eq!(run(&mut map, PULL, NOW, NOW).len(), 0);
    tell(&mut map, NOW, 2, &differ(1, nonce, 1));
    tell(&mut map, NOW, 2, &differ(1, nonce, 2));
    let pulls = run(&mut map, PULL, NOW, NOW);
    assert_eq!(pulls.len(), 1);
    assert!(listed(&pulls[0]).0.iter().all(|node| bucket(*node) == 0), "the first counts");
    tell(&mut map, NOW, 2, &differ(1, nonce, 4));
    assert_eq!(run(&mut map, PULL, NOW, NOW).len(), 0);

    let mut map = knowing(&Config::lan(), 400);
    let nonce = ask(&mut map, NOW, 2);
    let now = NOW + millis(300);
    assert_eq!(run(&mut map, PULL, NOW, now).len(), 1, "another pull is under way");
    tell(&mut map, now, 2, &differ(1, nonce, 1));
    assert_eq!(run(&mut map, PULL, now, now).len(), 0);
}

/// Goal: sums are compared bucket by bucket, also in pairs, and the asked one notes what is equal: it sends that to
/// nobody. Method: hand-made sums of a map with writes in two buckets.
#[test]
fn equal_buckets_are_known_to_be_there() {
    for pairs in [false, true] {
        let mut map = among(&Config::lan(), [2]);
        let one = (FIRST..).find(|node| bucket(*node) == 10).unwrap();
        let two = (FIRST..).find(|node| bucket(*node) == 13).unwrap();
        for node in [one, two] {
            inform(&mut map, node, 1, &node.to_le_bytes());
        }
        let mut told = vec![0; 64];
        // A base of one dot of the first.
        told[10] = mix2(!mix2(one, 1), 1);
        if pairs {
            told = told.chunks(2).map(|two| two[0] + two[1]).collect();
        }
        tell(&mut map, NOW, 2, &sums(5, 0, &told));
        let answer = run(&mut map, DIFFER, NOW, NOW);
        let mask: u64 = if pairs { 3 << 12 } else { 1 << 13 };
        let [_, rest] = [&answer[0].2[..8], &answer[0].2[8..]];
        assert_eq!(rest, [varint(5), mask.to_le_bytes().to_vec()].concat());
        // Nothing is listed.
        let pull = [varint(5), varint(9_999), 1_u64.to_le_bytes().to_vec(), vec![0]].concat();
        tell(&mut map, NOW, 2, &frame(PULL, &pull));
        let chunks = run(&mut map, CHUNK, NOW, NOW);
        assert_eq!(chunks.len(), 1);
        let has = |node: u64| chunks[0].2.windows(8).any(|bytes| bytes == node.to_le_bytes());
        assert_eq!((has(one), has(two)), (false, true));
    }
}

/// Goal: between two who have other seals nothing is compared: the asked one tells its own, and asks in its turn.
#[test]
fn other_seals_are_told_first() {
    let mut map = knowing(&Config::lan(), 400);
    tell(&mut map, NOW, 2, &sums(5, 77, &[0; 64]));
    let mut sent = drain(&mut map);
    sent.retain(|(to, _)| *to == 2);
    let has = |tag| sent.iter().any(|(_, bytes)| frame_of(bytes, tag).is_some());
    assert_eq!((has(SEALS), has(DIFFER), has(BUCKETS)), (true, false, true));
    // The peer has none either: there is nothing to ask it again for.
    tell(&mut map, NOW, 2, &frame(SEALS, &[1]));
    assert_eq!(run(&mut map, PULL, NOW, NOW + millis(140)).len(), 0);
}

/// Goal: frames that are not as they should be are refused whole.
#[test]
fn malformed_frames_are_refused() {
    let good = sums(5, 0, &[0; 64]);
    let body = |sums: Vec<u8>| sums[3..].to_vec();
    let mut flags = body(good.clone());
    flags[9] = 2;
    let mut nonce = body(good.clone());
    nonce[0] = 0;
    let cases = [
        (good.clone(), Ok(())),
        (sums(5, 1, &[0; 32]), Ok(())),
        (frame(BUCKETS, &flags), Err(PacketError::Malformed)),
        (frame(BUCKETS, &nonce), Err(PacketError::Malformed)),
        (sums(5, 0, &[0; 63]), Err(PacketError::Malformed)),
        (sums(5, 0, &[0; 65]), Err(PacketError::Malformed)),
        (sums(5, 0, &[0; 16]), Err(PacketError::Malformed)),
        (sums(5, 0, &[]), Err(PacketError::Malformed)),
        (frame(BUCKETS, &body(good)[..200]), Err(PacketError::Malformed)),
        (frame(BUCKETS, &[5]), Err(PacketError::Truncated)),
        (differ(1, 5, 1), Ok(())),
        (frame(DIFFER, &[0; 16]), Err(PacketError::Truncated)),
        (frame(DIFFER, &[0; 18]), Err(PacketError::Malformed)),
    ];
    for (at, (frames, expected)) in cases.into_iter().enumerate() {
        let mut map = knowing(&Config::lan(), 10);
        let mut bytes = packet("test", NodeId(2), 1, &frames);
        assert_eq!(map.handle_packet(NOW, addr(2), &mut bytes), expected, "case {at}");
        assert_eq!(drain(&mut map).is_empty(), expected.is_err() || at == 10, "case {at}");
    }
}

/// Goal: maps with hundreds of replicas become equal whatever is lost, in the shortest datagrams and with the smallest
/// answers. Method: three maps that know of other thirds, and seeds of loss up to half of all datagrams.
#[test]
fn maps_of_many_replicas_become_equal_under_loss() {
    for loss in [0, 5, 20, 50] {
        let mut config = Config::lan();
        (config.pull_budget, config.max_key) = (512, 100);
        let mut maps = maps(&config, 512, &[1, 2, 3]);
        for node in FIRST..FIRST + 600 {
            // Some are known to all.
            for at in (0..3).filter(|at| node % 3 == *at || node % 4 == 0) {
                inform(&mut maps[usize::try_from(at).unwrap()], node, 1, &node.to_le_bytes());
            }
        }
        let mut sent = Sent::new();
        let now = carry(&mut maps, NOW, millis(600_000), loss, &mut sent);
        println!("{loss} %: {:?}, {sent:?}", now - NOW);
        assert!(equal(&maps), "{loss} % loss");
        assert!(maps.iter().all(|map| map.len() == 600));
        assert!(sent[&BUCKETS] > 0 && sent[&DIFFER] > 0);
        assert_eq!(maps.iter().map(|map| map.stats().full_syncs).sum::<u64>(), 0);
    }
}

/// A hundred lives and two maps that have forgotten what they need not know any more.
fn at_rest(config: &Config) -> (Vec<Map>, Instant) {
    let mut maps = maps(config, 1_400, &[1, 2]);
    crowd(&mut maps[0], 2, 400);
    crowd(&mut maps[1], 1, 400);
    let now = rest(&mut maps, NOW, millis(30_000));
    assert!(equal(&maps));
    assert!(maps.iter().all(|map| map.metadata() == maps[0].metadata()));
    (maps, now)
}

/// Goal: what members have is forgotten at rest, and a comparison tells it again: they need no full sync, and are sent
/// what is new alone. Method: a write whose push is lost.
#[test]
fn after_a_rest_only_what_is_new_is_sent() {
    let (mut maps, now) = at_rest(&Config::lan());
    maps[0].insert(now, b"new", b"value").unwrap();
    drain(&mut maps[0]);
    let mut sent = Sent::new();
    carry(&mut maps, now, millis(20_000), 0, &mut sent);
    assert_eq!(maps[1].get(b"new"), Some(&b"value"[..]));
    assert!(sent[&BUCKETS] > 0 && sent[&CHUNK] < 200 && sent[&STAGE] == 0, "{sent:?}");
}

/// Goal: a peer that was forgotten and has all that was dropped is a member again by what it has in equal buckets.
/// Method: both lose sight of each other; then one writes.
#[test]
fn equal_buckets_make_a_member_of_whoever_comes_back() {
    let mut config = Config::lan();
    config.keep_for = Duration::ZERO;
    let (mut maps, now) = at_rest(&config);
    for (at, other) in [(0, 2), (1, 1)] {
        maps[at].peer_down(now, NodeId(other));
        maps[at].peer_up(now, NodeId(other), 1, addr(other));
    }
    maps[0].insert(now, b"new", b"value").unwrap();
    let mut sent = Sent::new();
    carry(&mut maps, now, millis(20_000), 0, &mut sent);
    assert_eq!(maps[1].get(b"new"), Some(&b"value"[..]));
    assert!(sent[&BUCKETS] > 0 && sent[&CHUNK] < 200 && sent[&STAGE] == 0, "{sent:?}");
    assert_eq!(maps[1].stats().full_syncs, 0);
}

/// Goal: whoever lacks what was dropped is given a full sync. Method: the same, with a write that is forgotten before
/// they meet again.
#[test]
fn whoever_lacks_what_was_dropped_still_gets_a_full_sync() {
    let mut config = Config::lan();
    config.keep_for = Duration::ZERO;
    let (mut maps, mut now) = at_rest(&config);
    maps[0].peer_down(now, NodeId(2));
    maps[1].peer_down(now, NodeId(1));
    maps[0].insert(now, b"new", b"value").unwrap();
    now = rest(&mut maps, now, millis(20_000));
    maps[0].peer_up(now, NodeId(2), 1, addr(2));
    maps[1].peer_up(now, NodeId(1), 1, addr(1));
    let mut sent = Sent::new();
    carry(&mut maps, now, millis(20_000), 0, &mut sent);
    assert_eq!(maps[1].get(b"new"), Some(&b"value"[..]));
    assert!(sent[&BUCKETS] > 0, "{sent:?}");
    assert_eq!(maps[1].stats().full_syncs, 1);
}
