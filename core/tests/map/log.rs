//! The write-ahead log: what leaves is on disk, and what is on disk comes back whole or as another life.
//!
//! Crashes in the midst of random histories are in `model_random.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::bare::{frame, packet};
use crate::common::frame_of;
use crate::common::maps::{NOW, addr, config, deliver, drain, replica, settle};
use brickwork_core::map::{Config, LogKind, LogWrite, Map, ReplicaId, RestoreError};
use brickwork_core::{Identity, Instant, Node, NodeId};
use proptest::prelude::*;

const HAVE: u8 = 0xa7;
const PULL: u8 = 0xa1;
const STATE: u8 = 0xa2;
const CHUNK: u8 = 0xa3;

fn empty(epoch: u64) -> Map {
    let life = ReplicaId::new(NodeId(1), epoch);
    Map::new(NOW, life, "test", config(), 1400, [9; 32]).unwrap()
}

/// A map with a log, and that as far as it is durable.
struct Kept {
    map: Map,
    file: Vec<Vec<u8>>,
}

impl Kept {
    fn new(mut map: Map) -> Self {
        map.start_log();
        let mut kept = Self { map, file: Vec::new() };
        kept.sync();
        kept
    }

    /// Returns how many writes that took.
    fn sync(&mut self) -> usize {
        let mut writes = 0;
        while let Some(LogWrite { kind, ticket, chunks, .. }) = self.map.poll_log() {
            if kind != LogKind::Append {
                self.file.clear();
            }
            self.file.extend(chunks);
            self.map.log_synced(NOW, ticket);
            writes += 1;
        }
        writes
    }
}

/// Some writes, removals and siblings, each a record; the newest twice in one.
fn some(keys: u8) -> Kept {
    some_of(replica(1, &[2]), keys)
}

fn some_of(map: Map, keys: u8) -> Kept {
    let mut kept = Kept::new(map);
    for key in 0..keys {
        kept.map.insert(NOW, &[key], &[key; 9]).unwrap();
        assert_eq!(kept.sync(), 1);
    }
    kept.map.remove(NOW, &[0]).unwrap();
    kept.map.insert(NOW, &[1], b"old").unwrap();
    kept.map.insert(NOW, &[1], b"new").unwrap();
    assert_eq!(kept.sync(), 1);
    kept
}

/// Goal: a record says what the replica knew after it, so none that lacks a write is taken for whole.
#[test]
fn a_record_after_which_something_else_was_known_is_refused() {
    let mut kept = some(3);
    let last = kept.file.len() - 1;
    // Magic, cluster, chain, number, kind.
    let context = 4 + 4 + 8 + 1 + 1;
    let (body, _) = kept.file[last].split_last_chunk::<8>().unwrap();
    let mut body = body.to_vec();
    body[context] ^= 1;
    let checksum = xxhash_rust::xxh3::xxh3_64(&body);
    body.extend(checksum.to_le_bytes());
    kept.file[last] = body;
    let corrupt = RestoreError::Corrupt { chunk: last as u64 };
    assert_eq!(empty(9).resume(NOW, &kept.file), Err(corrupt));
}

#[test]
fn what_is_not_durable_does_not_leave() {
    let mut maps = [replica(1, &[2]), replica(2, &[1])];
    maps[0].start_log();
    let mut now = settle(&mut maps, NOW);
    let begin = maps[0].poll_log().unwrap();
    assert_eq!((begin.kind, maps[0].poll_log()), (LogKind::Begin, None));
    let dot = maps[0].insert(now, b"key", b"value").unwrap();
    let first = maps[0].poll_log().unwrap();
    let second_dot = maps[0].insert(now, b"key", b"other").unwrap();
    let second = maps[0].poll_log().unwrap();
    for ticket in [None, Some(begin.ticket), Some(first.ticket)] {
        if let Some(ticket) = ticket {
            maps[0].log_synced(now, ticket);
        }
        now += Duration::from_secs(10);
        maps[0].handle_timeout(now);
        assert_eq!(drain(&mut maps[0]), []);
    }
    assert!(maps[0].is_durable(dot) && !maps[0].is_durable(second_dot));
    maps[0].log_synced(now, second.ticket);
    assert!(maps[0].is_durable(second_dot));
    settle(&mut maps, now);
    assert_eq!(maps[1].get(b"key"), Some(&b"other"[..]));
    assert!(!maps[1].is_durable(second_dot), "it keeps no log");
}

/// Goal: while a write waits for the disk, probes go on, and carry nothing of the map.
#[test]
fn membership_does_not_wait_for_the_disk() {
    let addr = |port| ([127, 0, 0, 1], port).into();
    let node = |name: &str, port| {
        let config = brickwork_core::Config::local();
        Node::new(NOW, Identity::new(name, addr(port)), config, [port as u8; 32]).unwrap()
    };
    let mut nodes = [node("a", 1), node("b", 2)];
    nodes[0].start_log();
    nodes[0].join(NOW, &[addr(2)]);
    nodes[1].join(NOW, &[addr(1)]);
    let run = |nodes: &mut [Node; 2], from: Instant, millis: u64, dry: bool| {
        let (mut now, mut buf, mut sent) = (from, [0; 1400], 0);
        while now < from + Duration::from_millis(millis) {
            for at in 0..2 {
                nodes[at].handle_timeout(now);
                while let Some(out) = nodes[at].poll_transmit(&mut buf) {
                    let mut bytes = out.payload.to_vec();
                    let of_map = [PULL, STATE, CHUNK, HAVE].map(|tag| frame_of(&bytes, tag));
                    assert!(!dry || at == 1 || of_map == [None; 4]);
                    sent += u64::from(at == 0);
                    nodes[1 - at].handle_packet(now, addr(1 + at as u16), &mut bytes).unwrap();
                }
            }
            now += Duration::from_millis(10);
        }
        (now, sent)
    };
    let begin = nodes[0].poll_log().unwrap();
    let (now, _) = run(&mut nodes, NOW, 5_000, false);
    assert_eq!(nodes[1].members().count(), 2);
    nodes[0].insert(now, b"key", b"value").unwrap();
    let write = nodes[0].poll_log().unwrap();
    let (now, sent) = run(&mut nodes, now, 5_000, true);
    assert!(sent > 10, "{sent} datagrams in five seconds");
    assert_eq!((nodes[1].members().count(), nodes[1].get(b"key")), (2, None));
    nodes[0].log_synced(now, begin.ticket);
    nodes[0].log_synced(now, write.ticket);
    run(&mut nodes, now, 2_000, false);
    assert_eq!(nodes[1].get(b"key"), Some(&b"value"[..]));
}

/// Goal: what comes from others is not worth a write each, but garbage is not kept for that.
#[test]
fn writes_of_others_are_written_when_garbage_waits_for_them() {
    let mut maps = [replica(1, &[2]), replica(2, &[1])];
    maps[0].start_log();
    let begin = maps[0].poll_log().unwrap();
    maps[0].log_synced(NOW, begin.ticket);
    maps[1].insert(NOW, b"key", b"1").unwrap();
    maps[1].remove(NOW, b"key").unwrap();
    let mut now = settle(&mut maps, NOW);
    assert_eq!(maps[0].digest(), maps[1].digest());
    for _ in 0..6 {
        now = settle(&mut maps, now);
    }
    assert_eq!(maps[1].metadata(), (0, 0));
    assert_ne!(maps[0].metadata(), (0, 0), "the disk is not beyond it");
    let write = maps[0].poll_log().expect("garbage waits for it");
    maps[0].log_synced(now, write.ticket);
    for _ in 0..3 {
        now = settle(&mut maps, now);
    }
    assert_eq!((maps[0].metadata(), maps[0].bytes()), ((0, 0), 0));
    assert_eq!(maps[0].poll_log(), None);
}

/// Goal: many at once are worth a write. Method: more than that from a peer.
#[test]
fn many_writes_of_others_are_written_at_once() {
    let mut maps = [replica(1, &[2]), replica(2, &[1])];
    maps[0].start_log();
    let begin = maps[0].poll_log().unwrap();
    maps[0].log_synced(NOW, begin.ticket);
    for n in 0..5_000_u32 {
        maps[1].insert(NOW, &n.to_be_bytes(), b"value").unwrap();
    }
    let mut now = NOW;
    let write = loop {
        now += Duration::from_millis(10);
        maps[1].handle_timeout(now);
        maps[0].handle_timeout(now);
        for at in 0..2 {
            for (_, bytes) in drain(&mut maps[at]) {
                deliver(&mut maps[1 - at], now, at as u64 + 1, &bytes);
            }
        }
        if let Some(write) = maps[0].poll_log() {
            break write;
        }
        assert!(now < NOW + Duration::from_secs(4), "{} keys", maps[0].len());
    };
    assert_eq!((write.kind, write.chunks.len()), (LogKind::Append, 1));
    let file: Vec<_> = begin.chunks.into_iter().chain(write.chunks).collect();
    let mut again = empty(2);
    again.resume(NOW, &file).unwrap();
    assert!(again.len() >= 4_096);
}

#[test]
fn more_writes_than_a_record_holds_begin_the_log_anew() {
    let mut kept = some(3);
    for n in 0..40_000_u32 {
        kept.map.insert(NOW, &n.to_be_bytes(), b"value").unwrap();
    }
    let write = kept.map.poll_log().unwrap();
    assert_eq!((write.kind, kept.map.poll_log()), (LogKind::Begin, None));
    let mut again = empty(2);
    again.resume(NOW, &write.chunks).unwrap();
    assert_eq!(again.digest(), kept.map.digest());
    kept.map.log_synced(NOW, write.ticket);
    kept.file = write.chunks;
    let dot = kept.map.insert(NOW, b"more", b"value").unwrap();
    assert_eq!(kept.sync(), 1);
    assert!(kept.map.is_durable(dot));
}

/// Goal: the log stays within some multiple of the map. Method: one key written for ever.
#[test]
fn a_log_that_has_grown_is_written_anew() {
    let mut config: Config = config();
    config.compact_log_from = 10_000;
    let life = ReplicaId::new(NodeId(1), 1);
    let mut kept = Kept::new(Map::new(NOW, life, "test", config, 1400, [9; 32]).unwrap());
    let mut most = 0;
    for n in 0..2_000_u32 {
        kept.map.insert(NOW, b"key", &n.to_be_bytes()).unwrap();
        kept.sync();
        most = most.max(kept.file.iter().map(Vec::len).sum());
    }
    // Without peers it forgets nothing that it could tell: 4 bytes or less of log for each write.
    assert!(most < 30_000, "{most} bytes");
    let mut again = empty(2);
    again.resume(NOW, &kept.file).unwrap();
    assert_eq!(again.get(b"key"), Some(&1_999_u32.to_be_bytes()[..]));
    assert_eq!(again.digest(), kept.map.digest());
}

#[test]
fn entries_that_can_be_told_to_nobody_are_kept() {
    let mut kept = Kept::new(replica(1, &[]));
    let mut now = NOW;
    // Writers who do not hear of each other, each with as many concurrent values as it may have.
    for writer in 2..7 {
        // With no room for those of the others: it would be told them first, and could tell its own to nobody then.
        let mut limits = config();
        limits.max_bytes = 1_100;
        let life = ReplicaId::new(NodeId(writer), 1);
        let mut other = Map::new(NOW, life, "test", limits, 1400, [9; 32]).unwrap();
        other.peer_up(now, NodeId(1), 1, addr(1));
        kept.map.peer_up(now, NodeId(writer), 1, addr(writer));
        let nothing = other.context(b"key");
        while other.resolve(NOW, b"key", &nothing, Some(&[7])).is_ok() {}
        let mut maps = [kept.map, other];
        now = settle(&mut maps, now);
        [kept.map, _] = maps;
        kept.map.peer_down(now, NodeId(writer));
    }
    assert_eq!(kept.map.siblings(b"key").count(), 5 * 1_024);
    kept.map.insert(NOW, b"other", b"value").unwrap();
    let write = kept.map.poll_log().unwrap();
    assert_eq!(write.kind, LogKind::Begin, "no record tells of it");
    let mut again = empty(2);
    again.resume(NOW, &write.chunks).unwrap();
    assert_eq!((again.digest(), again.siblings(b"key").count()), (kept.map.digest(), 5 * 1_024));
}

/// Goal: whatever happens to a log is noticed, and nothing is made of what is wrong. Method: every bit of every byte;
/// every chunk missing, doubled, swapped with the next, cut short, and from another log.
#[test]
fn damage_to_a_log_is_noticed() {
    // Of the same writes, at other random choices.
    let (kept, other) = (some(4), some_of(empty(1), 4));
    let mut target = empty(7);
    let mut refused = |chunks: &[Vec<u8>], place: usize| {
        let error = target.resume(NOW, chunks).unwrap_err();
        assert_eq!((target.len(), target.digest()), (0, (0, 0)));
        assert_eq!(target.replica(), ReplicaId::new(NodeId(1), 7));
        assert!(target.poll_event().is_none());
        if let RestoreError::Corrupt { chunk } | RestoreError::Misplaced { chunk } = error {
            assert_eq!(chunk, place as u64);
        } else {
            assert!(place < 4, "{error}");
        }
    };
    let (chunks, parts) = (&kept.file, kept.file.len());
    assert_eq!(parts, 4 + 5);
    for place in 0..parts {
        for at in 0..chunks[place].len() {
            for bit in 0..8 {
                let mut damaged = chunks.clone();
                damaged[place][at] ^= 1 << bit;
                refused(&damaged, place);
            }
            let mut short = chunks.clone();
            short[place].truncate(at);
            refused(&short, place);
        }
        let mut foreign = chunks.clone();
        foreign[place] = other.file[place].clone();
        // Both begin with the snapshot of an empty map.
        if place > 3 {
            refused(&foreign, place);
        }
        let mut doubled = chunks.clone();
        doubled.insert(place, chunks[place].clone());
        refused(&doubled, place + 1);
        if place + 1 < parts {
            let mut swapped = chunks.clone();
            swapped.swap(place, place + 1);
            refused(&swapped, place);
            let mut missing = chunks.clone();
            missing.remove(place);
            refused(&missing, place);
        }
    }
    target.resume(NOW, chunks).unwrap();
    assert_eq!(target.digest(), kept.map.digest());
}

/// Goal: what came before the damage is not lost, but the node is another one then.
#[test]
fn what_came_before_the_damage_is_restored_under_a_new_life() {
    let kept = some(4);
    for whole in 4..=kept.file.len() {
        let mut again = empty(7);
        again.restore(NOW, &kept.file[..whole]).unwrap();
        assert_eq!(again.replica(), ReplicaId::new(NodeId(1), 7));
        assert_eq!(again.len(), [0, 1, 2, 3, 4, 3][whole - 4]);
        let dot = again.insert(NOW, b"mine", b"1").unwrap();
        assert_eq!((dot.replica.epoch, dot.counter), (7, 1));
    }
    let mut again = empty(7);
    assert_eq!(again.restore(NOW, &kept.file[..3]), Err(RestoreError::Incomplete));
}

#[test]
fn nobody_resumes_the_life_of_another() {
    let kept = some(2);
    let new = |id, cluster| {
        Map::new(NOW, ReplicaId::new(NodeId(id), 3), cluster, config(), 1400, [9; 32]).unwrap()
    };
    assert_eq!(new(2, "test").resume(NOW, &kept.file), Err(RestoreError::OtherNode));
    assert_eq!(new(1, "other").resume(NOW, &kept.file), Err(RestoreError::WrongCluster));
    let mut seeded = new(2, "test");
    seeded.restore(NOW, &kept.file).unwrap();
    assert_eq!(seeded.len(), kept.map.len());
    let mut small = config();
    small.max_keys = 1;
    let mut small =
        Map::new(NOW, ReplicaId::new(NodeId(1), 3), "test", small, 1400, [9; 32]).unwrap();
    let error = small.resume(NOW, &kept.file).unwrap_err();
    assert_eq!(error, RestoreError::TooLarge { limit: "max_keys" });
    assert_eq!(small.digest(), (0, 0));
}

/// Goal: a node that starts again goes on under its old name in the map, with another boot. Method: it wrote and
/// missed writes before; its peer takes it for the one it was, and all are equal in the end.
#[test]
fn a_node_goes_on_in_another_boot() {
    let mut maps = [replica(1, &[2]), replica(2, &[1])];
    maps[0].start_log();
    let mut file = Vec::new();
    let mut now = NOW;
    for round in 0..5_u8 {
        maps[0].insert(now, &[round], b"mine").unwrap();
        maps[1].insert(now, b"shared", &[round]).unwrap();
        while let Some(write) = maps[0].poll_log() {
            file.extend(write.chunks);
            maps[0].log_synced(now, write.ticket);
        }
        now = settle(&mut maps, now);
    }
    let mut again = empty(99);
    again.resume(now, &file).unwrap();
    assert_eq!(again.replica(), maps[0].replica());
    again.start_log();
    again.peer_up(now, NodeId(2), 1, addr(2));
    let next = again.insert(now, b"next", b"6").unwrap();
    assert_eq!(next.counter, 6);
    while let Some(write) = again.poll_log() {
        again.log_synced(now, write.ticket);
    }
    maps[1].peer_up(now, NodeId(1), 99, addr(1));
    maps[0] = again;
    for _ in 0..3 {
        now = settle(&mut maps, now);
    }
    assert_eq!(maps[0].digest(), maps[1].digest());
    assert_eq!(maps[1].get(b"next"), Some(&b"6"[..]));
    assert_eq!(maps[0].get(b"shared"), Some(&[4][..]));
    assert_eq!((maps[0].stats().chunks_forged, maps[1].stats().chunks_forged), (0, 0));
}

/// Goal: a disk that loses what it had synced costs a life, and no write of anybody. Method: a node takes up a life whose
/// last two writes only its peer has, and writes or removes before it hears of that, or not; then a forger tells the same of
/// the next life.
#[test]
fn own_writes_that_the_disk_lost_end_the_life() {
    for early in
        [None, Some((&b"early"[..], true)), Some((&[2][..], true)), Some((&[0][..], false))]
    {
        let mut maps = [replica(1, &[2]), replica(2, &[1])];
        maps[0].start_log();
        let (mut file, mut now) = (Vec::new(), NOW);
        for n in 0..3_u8 {
            maps[0].insert(now, &[n], b"mine").unwrap();
            while let Some(write) = maps[0].poll_log() {
                file.extend((n == 0).then_some(write.chunks).into_iter().flatten());
                maps[0].log_synced(now, write.ticket);
            }
            now = settle(&mut maps, now);
        }
        let mut again = empty(99);
        again.resume(now, &file).unwrap();
        assert_eq!((again.replica().epoch, again.len()), (1, 1));
        again.start_log();
        let sync = |map: &mut Map, now| {
            while let Some(write) = map.poll_log() {
                map.log_synced(now, write.ticket);
            }
        };
        sync(&mut again, now);
        again.peer_up(now, NodeId(2), 1, addr(2));
        maps[1].peer_up(now, NodeId(1), 99, addr(1));
        match early {
            None => {}
            Some((key, true)) => drop(again.insert(now, key, b"5").unwrap()),
            Some((key, false)) => assert_eq!(again.remove(now, key), Ok(true)),
        }
        sync(&mut again, now);
        maps[0] = again;
        let run = |maps: &mut [Map; 2], mut now| {
            for _ in 0..6 {
                sync(&mut maps[0], now);
                now = settle(maps, now);
            }
            now
        };
        now = run(&mut maps, now);
        let life = maps[0].replica();
        assert!(life.epoch > 1);
        maps[0].insert(now, b"late", b"6").unwrap();
        now = run(&mut maps, now);
        let stats = maps[0].stats();
        assert_eq!((stats.lives_lost, stats.chunks_forged, stats.diverged), (1, 0, 0));
        assert_eq!(maps[0].digest(), maps[1].digest());
        for map in &maps {
            let values = |key: &[u8]| -> BTreeSet<Vec<u8>> {
                map.siblings(key).map(|own| own.value.to_vec()).collect()
            };
            let set = |values: &[&[u8]]| values.iter().map(|value| value.to_vec()).collect();
            assert_eq!(values(b"late"), set(&[b"6"]));
            assert_eq!(values(&[1]), set(&[b"mine"]));
            for key in [&[0][..], &[2], b"early"] {
                let before: &[&[u8]] = if key == b"early" { &[] } else { &[b"mine"] };
                let wanted = match early {
                    // It had not seen what it wrote beside.
                    Some((early, true)) if early == key => set(&[before, &[b"5"]].concat()),
                    Some((early, false)) if early == key => set(&[]),
                    _ => set(before),
                };
                assert_eq!(values(key), wanted, "{key:?} of {early:?}");
            }
        }
        maps[1].insert(now, b"honest", b"7").unwrap();
        let sent = drain(&mut maps[1]);
        let addressee = &sent.iter().find_map(|(_, bytes)| frame_of(bytes, CHUNK)).unwrap()[..8];
        let named = [life.node.0.to_le_bytes(), life.epoch.to_le_bytes()].concat();
        // A replica, its dot 99, one dot: a value that supersedes nothing.
        let forged = [addressee, &[0, 0, 0], &named, &[99, 1, 2, 1, b'k', 1, b'v']].concat();
        let forged = packet("test", NodeId(2), 1, &frame(CHUNK, &forged));
        deliver(&mut maps[0], now, 2, &forged);
        let stats = maps[0].stats();
        assert_eq!((maps[0].replica(), stats.lives_lost, stats.chunks_forged), (life, 1, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Goal: bytes that pass the checksum and are no record harm nothing. Method: records with other items, and the
    /// checksum made right.
    #[test]
    fn records_of_anything_are_refused_or_taken(
        place in 4..9_usize, at in 0..60_usize, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let kept = some(4);
        let mut file = kept.file;
        let record = &mut file[place];
        record.truncate(record.len() - 8);
        let at = at % record.len();
        if cut { record.truncate(at) } else { record[at] = byte }
        let checksum = xxhash_rust::xxh3::xxh3_64(record);
        record.extend(checksum.to_le_bytes());
        let mut target = empty(3);
        if target.resume(NOW, &file).is_err() {
            prop_assert_eq!(target.digest(), (0, 0));
        } else {
            prop_assert!(target.digest() == kept.map.digest() || place == 8 || !cut);
        }
        target.insert(NOW, b"on", b"it goes").unwrap();
    }
}
