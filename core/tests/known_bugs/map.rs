//! Bugs that other systems met in public, one test each under the name of the report, as far as they concern the map.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::Dice;
use crate::common::bare::seal;
use crate::common::maps::{NOW, addr, deliver, drain, settle};
use crate::common::stages::{fragment, item, of_pull, pulled};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId, PacketError};
use proptest::prelude::*;

/// A replica that forgets soon.
fn life(id: u64, epoch: u64, max_datagram: usize) -> Map {
    let mut config = Config::local();
    config.collect_interval = Duration::from_millis(100);
    config.keep_for = Duration::from_secs(1);
    (config.pull_budget, config.max_key) = (max_datagram, 100);
    let life = ReplicaId::new(NodeId(id), epoch);
    Map::new(NOW, life, "test", config, max_datagram, [(id as u8).wrapping_add(epoch as u8); 32])
        .unwrap()
}

fn meet(maps: &mut [Map], now: Instant) {
    let lives: Vec<ReplicaId> = maps.iter().map(Map::replica).collect();
    for map in maps {
        let me = map.replica().node;
        for other in lives.iter().filter(|other| other.node != me) {
            map.peer_up(now, other.node, other.epoch, addr(other.node.0));
        }
    }
}

fn cluster(count: u64, max_datagram: usize) -> Vec<Map> {
    let mut maps: Vec<Map> = (1..=count).map(|id| life(id, 1, max_datagram)).collect();
    meet(&mut maps, NOW);
    maps
}

/// Carries what is sent, but for what is lost, for so long.
fn run(maps: &mut [Map], now: Instant, millis: u64, loss: u32, dice: &mut Dice) -> Instant {
    let end = now + Duration::from_millis(millis);
    let mut now = now;
    while now < end {
        for at in 0..maps.len() {
            maps[at].handle_timeout(now);
            let from = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                let to = maps.iter_mut().find(|map| map.replica().node.0 == to);
                if let Some(to) = to.filter(|_| !dice.percent(loss)) {
                    deliver(to, now, from, &bytes);
                }
            }
        }
        now += Duration::from_millis(5);
    }
    now
}

fn keys(map: &Map) -> Vec<Vec<u8>> {
    map.prefix(b"").map(|(key, _)| key.to_vec()).collect()
}

/// A part of the difference was sent with the whole of what the sender had seen, so what was not in it was taken for
/// removed: a thousand additions ended as two hundred.
#[test]
fn delta_crdt_ex_65_context_overclaim() {
    let (mut maps, mut dice) = (cluster(2, 512), Dice(65));
    let mut now = NOW;
    for n in 0..1_000_u32 {
        maps[0].insert(now, &n.to_be_bytes(), b"value").unwrap();
        if n % 100 == 0 {
            now = run(&mut maps, now, 20, 50, &mut dice);
        }
    }
    run(&mut maps, now, 30_000, 20, &mut dice);
    assert_eq!((maps[0].len(), maps[1].len()), (1_000, 1_000));
    assert_eq!(maps[0].digest(), maps[1].digest());
}

/// A node that was started anew stayed in the state twice, as its old generation and the new.
#[test]
fn chitchat_94_generation() {
    let mut maps = cluster(2, 1_400);
    maps[1].insert(NOW, b"service", b"old").unwrap();
    let late = drain(&mut maps[1]);
    let mut now = settle(&mut maps, NOW);
    maps[0].insert(now, b"ask", b"1").unwrap();
    now = settle(&mut maps, now);
    maps[0].peer_down(now, NodeId(2));
    maps[1] = life(2, 2, 1_400);
    meet(&mut maps, now);
    now = settle(&mut maps, now);
    maps[1].insert(now, b"service", b"new").unwrap();
    now = settle(&mut maps, now);
    // What the old generation had sent arrives after all.
    late.iter().for_each(|(_, bytes)| deliver(&mut maps[0], now, 2, bytes));
    settle(&mut maps, now);
    for map in &maps {
        let values: Vec<_> = map.siblings(b"service").map(|one| one.value.to_vec()).collect();
        assert_eq!(values, [b"new"]);
    }
    assert_eq!(maps[0].digest(), maps[1].digest());
}

/// After a partition a node was reset by one peer in parts, and took from another what had been removed meanwhile.
#[test]
fn chitchat_110_partition_reset() {
    for seed in 0..20 {
        let (mut maps, mut dice) = (cluster(3, 512), Dice(seed));
        for n in 0..60_u8 {
            maps[0].insert(NOW, &[n], &[n; 30]).unwrap();
        }
        let mut now = run(&mut maps, NOW, 3_000, 0, &mut dice);
        let mut away = maps.remove(2);
        maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(3)));
        // Late: the second had told all that there is, before it was removed.
        maps[1].peer_up(now, NodeId(3), 1, addr(3));
        let late = drain(&mut maps[1]);
        maps[1].peer_down(now, NodeId(3));
        for n in 0..60_u8 {
            maps[usize::from(n % 2)].remove(now, &[n]).unwrap();
        }
        away.insert(now, b"mine", b"written alone").unwrap();
        now = run(&mut maps, now, 5_000, 0, &mut dice);
        assert_eq!((maps[0].bytes(), maps[1].bytes()), (0, 0), "nothing is left of them");
        maps.push(away);
        meet(&mut maps, now);
        for _ in 0..10 {
            late.iter().for_each(|(_, bytes)| deliver(&mut maps[2], now, 2, bytes));
            now = run(&mut maps, now, 50, 20, &mut dice);
        }
        now = run(&mut maps, now, 10_000, 0, &mut dice);
        for map in &maps {
            assert_eq!(keys(map), [b"mine"], "seed {seed}");
        }
        assert!(maps[2].stats().full_syncs > 0 && now > NOW);
    }
}

/// A part of a difference raised a number that said that all of it had come; the mark of a removal was collected
/// before it had been told to all, and the key came back.
#[test]
fn chitchat_121_partial_delta_gc() {
    for seed in 0..20 {
        let (mut maps, mut dice) = (cluster(2, 512), Dice(seed));
        maps[0].insert(NOW, b"K", b"value").unwrap();
        let mut now = run(&mut maps, NOW, 2_000, 0, &mut dice);
        maps[0].remove(now, b"K").unwrap();
        // The push with the removal is lost; what is written after it comes.
        drain(&mut maps[0]);
        for n in 0..40_u8 {
            maps[0].insert(now, &[n], &[n; 100]).unwrap();
        }
        now = run(&mut maps, now, 400, 70, &mut dice);
        let knows = maps[1].get(b"K").is_none();
        assert!(knows || maps[0].metadata() != (0, 0), "collected before it was told");
        run(&mut maps, now, 20_000, 0, &mut dice);
        assert_eq!((maps[0].get(b"K"), maps[1].get(b"K")), (None, None), "seed {seed}");
        assert_eq!((maps[0].metadata(), maps[1].metadata()), ((0, 0), (0, 0)));
    }
}

/// One node had forgotten what another still told of, so that it came back again and again: members there, keys here.
#[test]
fn chitchat_155_dead_escape() {
    let (mut maps, mut dice) = (cluster(3, 1_400), Dice(155));
    maps[2].insert(NOW, b"key", b"value").unwrap();
    let mut now = run(&mut maps, NOW, 3_000, 0, &mut dice);
    let mut away = maps.remove(2);
    maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(3)));
    maps[0].remove(now, b"key").unwrap();
    // Not at the same time: one of them is late with all.
    let mut late = maps.remove(1);
    now = run(&mut maps, now, 300, 0, &mut dice);
    late.handle_timeout(now);
    maps.push(late);
    now = run(&mut maps, now, 5_000, 0, &mut dice);
    // The writer comes back for a moment, to one of them only.
    away.peer_up(now, NodeId(1), 1, addr(1));
    maps[0].peer_up(now, NodeId(3), 1, addr(3));
    maps.push(away);
    now = run(&mut maps, now, 5_000, 0, &mut dice);
    maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(3)));
    maps.pop();
    now = run(&mut maps, now, 5_000, 0, &mut dice);
    for map in &maps {
        assert_eq!((map.len(), map.bytes()), (0, 0));
    }
    assert!(now > NOW);
}

/// With over 500 nodes, dead ones included, the digest did not fit a datagram any more, and nothing was told.
#[test]
fn quickwit_6653_digest_overflow() {
    let mut maps = cluster(2, 512);
    for past in 0..600_u64 {
        let mut gone = life(100 + past, 1, 512);
        gone.peer_up(NOW, NodeId(1), 1, addr(1));
        maps[0].peer_up(NOW, NodeId(100 + past), 1, addr(100 + past));
        gone.insert(NOW, &past.to_be_bytes(), b"value").unwrap();
        for (_, bytes) in drain(&mut gone) {
            deliver(&mut maps[0], NOW, 100 + past, &bytes);
        }
        maps[0].peer_down(NOW, NodeId(100 + past));
    }
    drain(&mut maps[0]);
    run(&mut maps, NOW, 20_000, 10, &mut Dice(6_653));
    assert_eq!((maps[0].len(), maps[1].len()), (600, 600));
    assert_eq!(maps[0].digest(), maps[1].digest());
}

/// A node started again under its old name and counted from one: the others took its writes for ones that they had
/// seen.
#[test]
fn actor_ts_955_replica_reuse() {
    let mut maps = cluster(2, 1_400);
    for n in 0..5_u8 {
        maps[0].insert(NOW, b"counter", &[n]).unwrap();
    }
    let mut now = settle(&mut maps, NOW);
    maps[1].peer_down(now, NodeId(1));
    maps[0] = life(1, 2, 1_400);
    let dot = maps[0].insert(now, b"counter", b"fresh").unwrap();
    assert_eq!(dot.counter, 1);
    meet(&mut maps, now);
    now = settle(&mut maps, now);
    let values =
        |map: &Map| -> Vec<_> { map.siblings(b"counter").map(|one| one.value.to_vec()).collect() };
    assert_eq!(values(&maps[1]), [vec![4], b"fresh".to_vec()], "neither had seen the other");
    maps[0].insert(now, b"counter", b"merged").unwrap();
    settle(&mut maps, now);
    assert_eq!(values(&maps[1]), [b"merged"]);
}

/// What had changed since the last round was forgotten when the round was over, and not when it had come: a peer that
/// missed the round never heard of it.
///
/// Goal: a write is kept until each member has shown to have it, or can only be given the whole map. Method: the pushes
/// of some writes are lost, and one of three hears nothing, for a moment or for longer than writes are kept: as one that
/// is taken to be there, and as one that went down.
#[test]
fn swift_210_early_reset() {
    const WRITES: usize = 40;
    for (gone, away) in [(false, 500), (false, 5_000), (true, 500), (true, 5_000)] {
        let kept = away == 500;
        let (mut maps, mut dice) = (cluster(3, 512), Dice(210));
        maps[0].insert(NOW, b"first", b"value").unwrap();
        let mut now = run(&mut maps, NOW, 2_000, 0, &mut dice);
        assert_eq!(maps[0].metadata(), (0, 0), "all have shown to have it");
        let mut third = maps.pop().unwrap();
        if gone {
            maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(3)));
        }
        for n in 0..WRITES {
            maps[0].insert(now, &[n as u8], &[7; 30]).unwrap();
        }
        let end = now + Duration::from_millis(20);
        while now < end {
            maps[0].handle_timeout(now);
            drain(&mut maps[0]);
            now += Duration::from_millis(1);
        }
        assert_eq!(maps[1].len(), 1, "the pushes are lost");
        for _ in 0..away / 100 {
            now = run(&mut maps, now, 100, 20, &mut dice);
            assert!(!kept || maps[0].metadata().1 == WRITES, "{:?}", maps[0].metadata());
        }
        assert_eq!(maps[1].len(), 1 + WRITES, "who hears of it pulls it");
        assert!(kept || maps[0].metadata() == (0, 0), "kept for too long");
        third.handle_timeout(now);
        maps.push(third);
        meet(&mut maps, now);
        run(&mut maps, now, 5_000, 20, &mut dice);
        assert_eq!(maps[2].len(), 1 + WRITES);
        assert_eq!(maps[2].digest(), maps[0].digest());
        assert_eq!(maps[2].stats().full_syncs == 0, kept, "gone: {gone}, for {away} ms");
        assert_eq!(maps[0].metadata(), (0, 0), "nothing is kept for good");
    }
}

/// A map that has asked peer 2 for what it has, and what fragments of the answer are of.
fn asking() -> (Map, Vec<u8>) {
    let life = ReplicaId::new(NodeId(1), 1);
    let mut map = Map::new(NOW, life, "test", Config::local(), 1_400, [1; 32]).unwrap();
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    drain(&mut map);
    let nonce = pulled(&mut map, NOW);
    (map, of_pull(nonce))
}

/// What is said of a whole in a fragment: its name and length, where the bytes begin, and the bytes.
type Piece = (u64, u64, u64, Vec<u8>);

/// Longest whole that there may be.
const MOST: u64 = 32 << 20;

fn cut(whole: &[u8], dice: &mut Dice) -> Vec<Piece> {
    let (id, len) = (xxhash_rust::xxh3::xxh3_64(whole), whole.len());
    let (mut pieces, mut from) = (Vec::new(), 0);
    while from < len {
        let to = len.min(from + 1 + dice.below(1_200));
        pieces.push((id, len as u64, from as u64, whole[from..to].to_vec()));
        from = to;
    }
    pieces
}

/// A piece of a whole as no honest peer cuts it: with another length, place, name or bytes, or some of each.
fn twisted(whole: &[u8], other: &Piece, dice: &mut Dice) -> Piece {
    let (id, len) = (xxhash_rust::xxh3::xxh3_64(whole), whole.len() as u64);
    let from = dice.below(whole.len());
    let to = whole.len().min(from + 1 + dice.below(1_200));
    let (from, bytes) = (from as u64, whole[from..to].to_vec());
    let odd = [0, 1, len - 1, len + 1, 2 * len, MOST - 1, MOST, MOST + 1, u64::MAX];
    let odd = odd[dice.below(odd.len())];
    match dice.below(8) {
        0 => (id, odd, from, bytes),
        1 => (id, len, odd, bytes),
        2 => (id, odd, odd.saturating_sub(1), bytes),
        3 => (id, len, from, other.3.clone()),
        4 => (other.0, other.1, from, bytes),
        5 => (id, other.1, other.2, other.3.clone()),
        6 => (id, len, from, Vec::new()),
        // It overlaps others, and is right.
        _ => (id, len, from, bytes),
    }
}

/// A node panicked where it put fragments together, for they had come as nobody cuts a message.
///
/// Goal: whatever fragments say, a map takes what is whole and right, and nothing else. Method: those of some entries,
/// and of bytes that are none, in every order, repeated, overlapping, of another length than before, beyond the end,
/// and with the bytes of others; then all of them as they should be.
#[test]
fn solana_defrag_panic() {
    for seed in 0..200 {
        let ((mut map, of), mut dice) = (asking(), Dice(seed));
        let value = |key: u8| vec![key; 1_500 + 700 * usize::from(key)];
        let mut wholes: Vec<_> =
            (0..3).map(|key| item(1 + u64::from(key), &[key], &value(key))).collect();
        wholes.push([&wholes[0][..], &[0]].concat());
        wholes.push((0..3_000).map(|_| dice.next() as u8).collect());
        let honest: Vec<_> = wholes.iter().flat_map(|whole| cut(whole, &mut dice)).collect();
        let mut pieces = [honest.clone(), honest.clone()].concat();
        for _ in 0..60 {
            let other = honest[dice.below(honest.len())].clone();
            pieces.push(twisted(&wholes[dice.below(wholes.len())], &other, &mut dice));
        }
        let mut order = Vec::new();
        while !pieces.is_empty() {
            order.push(pieces.swap_remove(dice.below(pieces.len())));
        }
        // Twice, for with the first bytes that were wrong the whole is thrown away.
        for (id, len, offset, bytes) in order.iter().chain(&honest).chain(&honest) {
            let unit = [&[1][..], &7_u64.to_le_bytes(), &[0]].concat();
            let of = if dice.percent(5) { [&unit, &of] } else { [&of, &of] };
            for of in of {
                let mut bytes = fragment(of, *id, *len, *offset, bytes);
                let taken = map.handle_packet(NOW, addr(2), &mut bytes);
                let refused = [PacketError::LimitExceeded, PacketError::Malformed];
                assert!(taken.is_ok() || refused.map(Err).contains(&taken), "{taken:?}");
            }
            let right = |(key, told): (&[u8], &[u8])| key[0] < 3 && told == value(key[0]);
            assert!(map.prefix(b"").all(right), "seed {seed}");
        }
        assert_eq!(map.len(), 3, "seed {seed}");
    }
}

/// The same, of the room that it takes.
///
/// Goal: what is put together has its bounds. Method: fragments of many wholes of the greatest length, none of which is
/// ever complete, a few of them growing and others new, with gaps.
#[test]
fn solana_defrag_room() {
    let ((mut map, of), mut dice) = (asking(), Dice(3_014));
    let mut ends = [0_u64; 6];
    let bytes = crate::counted::most_bytes(|| {
        for n in 0..40_000 {
            let at = dice.below(ends.len());
            let (mut id, mut offset) = (at as u64, ends[at]);
            match dice.below(1_000) {
                // Another whole, of which most is missing.
                0..=9 => (id, offset) = (100 + n, dice.below(200_000) as u64),
                // If it was given up, it can begin anew.
                10 => ends[at] = 0,
                _ => ends[at] = (offset + 600 + dice.below(600) as u64).min(MOST - 1_200),
            }
            let mut bytes = fragment(&of, id, MOST, offset, &[7; 1_200]);
            map.handle_packet(NOW, addr(2), &mut bytes).unwrap();
        }
    });
    // Buffers have twice the room that they need, and one of them grows.
    assert!(bytes < 3 * MOST as i64, "{bytes} bytes");
    assert!(map.is_empty());
}

/// One bit that flipped in a message on its way was believed, and told to all.
#[test]
fn s3_2008_bitflip() {
    let mut maps = cluster(2, 1_400);
    drain(&mut maps[0]);
    for n in 0..3_u8 {
        maps[0].insert(NOW, &[n], b"value").unwrap();
    }
    maps[0].handle_timeout(NOW + Duration::from_secs(1));
    let sent = drain(&mut maps[0]);
    let (_, push) = sent.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let digest = maps[1].digest();
    for at in 0..push.len() {
        for bit in 0..8 {
            let mut damaged = push.clone();
            damaged[at] ^= 1 << bit;
            let refused = maps[1].handle_packet(NOW, addr(1), &mut damaged);
            assert!(refused.is_err(), "bit {bit} of byte {at}");
            assert_eq!(maps[1].digest(), digest);
        }
    }
    deliver(&mut maps[1], NOW, 1, push);
    assert_eq!(maps[1].len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A length in an extension of a message was believed, and read beyond its end. Here: any bytes in the place of
    /// others, with a checksum that is right.
    #[test]
    fn valkey_21863_ext_oob(
        changes in proptest::collection::vec((24..600_usize, any::<u8>()), 1..6),
        cut in 28..600_usize,
    ) {
        let mut maps = cluster(2, 1_400);
        for n in 0..4_u8 {
            maps[0].insert(NOW, &[n], &[n; 40]).unwrap();
        }
        maps[0].remove(NOW, &[0]).unwrap();
        maps[0].handle_timeout(NOW + Duration::from_secs(1));
        for (to, bytes) in drain(&mut maps[0]) {
            prop_assert_eq!(to, 2);
            let mut bytes = bytes[..bytes.len() - 4].to_vec();
            for &(at, byte) in &changes {
                let len = bytes.len();
                bytes[24 + (at - 24) % (len - 24)] = byte;
            }
            bytes.truncate(cut);
            let digest = maps[1].digest();
            let taken = maps[1].handle_packet(NOW, addr(1), &mut seal(bytes));
            prop_assert!(taken.is_ok() || maps[1].digest() == digest);
            prop_assert!(taken != Err(PacketError::BadChecksum));
        }
        // It goes on, with who does not lie.
        let mut own = maps.remove(1);
        own.insert(NOW, b"on", b"it goes").unwrap();
    }
}
