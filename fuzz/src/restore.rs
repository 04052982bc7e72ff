//! Snapshots and logs that are not what a replica wrote.

use std::sync::LazyLock;

use brickwork_core::map::{Config, LogKind, Map, Policy, ReplicaId};
use brickwork_core::{Instant, NodeId};

use crate::input::Input;
use crate::net::addr;

const NOW: Instant = Instant::ZERO;
/// Most edits of one input.
const MAX_EDITS: usize = 40;

fn new(id: u64, epoch: u64, lamport: bool) -> Map {
    let mut config = Config::local();
    (config.max_keys, config.max_bytes, config.max_replicas) = (60, 20_000, 12);
    (config.max_gap_dots, config.max_key) = (40, 64);
    config.ordered = true;
    if lamport {
        config.policy = Policy::Lamport;
    }
    let life = ReplicaId::new(NodeId(id), epoch);
    Map::new(NOW, life, "fuzz", config, 1_400, [7; 32]).expect("settings in range")
}

/// The chunks of a replica that wrote, removed, and heard of another's writes, before its log began and after.
static SOUND: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (mut map, mut other) = (new(1, 1, false), new(2, 1, false));
    let mut file = Vec::new();
    for round in 0..4_u8 {
        if round == 1 {
            map.start_log();
        }
        map.peer_up(NOW, NodeId(2), 1, addr(2));
        other.peer_up(NOW, NodeId(1), 1, addr(1));
        for key in 0..4_u8 {
            // Each is written by both, or by one, or removed.
            let _ = map.insert(NOW, &[key], &[round; 5]);
            if key % 2 == 0 {
                let _ = other.insert(NOW, &[key], &[round; 7]);
            } else if round == 2 {
                let _ = map.remove(NOW, &[key]);
            }
        }
        while let Some(write) = map.poll_log() {
            if write.kind != LogKind::Append {
                file.clear();
            }
            file.extend(write.chunks);
            map.log_synced(NOW, write.ticket);
        }
        let mut buf = [0; 1_400];
        // The first push of all is lost, so dots come ahead of a gap.
        let mut lost = round == 0;
        for _ in 0..8 {
            while let Some(sent) = other.poll_transmit(&mut buf) {
                let len = sent.payload.len();
                if !std::mem::take(&mut lost) {
                    let _ = map.handle_packet(NOW, addr(2), &mut buf[..len]);
                }
            }
            while let Some(sent) = map.poll_transmit(&mut buf) {
                let len = sent.payload.len();
                let _ = other.handle_packet(NOW, addr(1), &mut buf[..len]);
            }
        }
    }
    file
});

/// Chunks with bytes set, cut, put in, taken out of another, left out or doubled, most of them with a checksum that is
/// right again. What is refused leaves the map empty; what is taken makes a map that works, and that a snapshot can
/// be taken of.
///
/// # Panics
///
/// If one of these does not hold.
pub fn restore(data: &[u8]) {
    let mut input = Input::new(data);
    let mut file = SOUND.clone();
    let first = input.byte();
    for _ in 0..MAX_EDITS {
        let Some(edit) = input.next() else { break };
        if file.is_empty() {
            break;
        }
        let at = input.below(file.len());
        let place = usize::from(input.u16()) % file[at].len().max(1);
        match edit % 8 {
            0 => drop(file.remove(at)),
            1 => file.insert(at, file[at].clone()),
            2 => file[at].truncate(place),
            3 => {
                let with = input.below(256);
                let bytes = input.take(with).to_vec();
                let tail = file[at].split_off(place);
                file[at].extend(bytes);
                file[at].extend(tail);
            }
            4 => {
                let from = input.below(file.len());
                file[at] = file[from].clone();
            }
            _ => {
                let byte = input.byte();
                if let Some(old) = file[at].get_mut(place) {
                    *old = byte;
                }
            }
        }
        // Damage is found by the checksum; here it is of interest what comes after that.
        if edit < 224
            && let Some(chunk) = file.get_mut(at)
            && let Some(len) = chunk.len().checked_sub(8)
        {
            chunk.truncate(len);
            let checksum = xxhash_rust::xxh3::xxh3_64(chunk);
            chunk.extend(checksum.to_le_bytes());
        }
    }
    let mut map = new(1 + u64::from(first & 1), 9, first & 2 > 0);
    let done = if first & 4 == 0 { map.resume(NOW, &file) } else { map.restore(NOW, &file) };
    assert!(map.poll_event().is_none(), "nothing of it is news");
    if done.is_err() {
        assert_eq!((map.digest(), map.len(), map.bytes()), ((0, 0), 0, 0), "{done:?}");
        assert_eq!(map.replica().epoch, 9);
    }
    let before: Vec<_> = map.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let mut again = new(map.replica().node.0, 10, first & 2 > 0);
    if let Err(error) = again.resume(NOW, map.snapshot()) {
        panic!("a snapshot of what was taken is refused: {error}");
    }
    assert_eq!(again.digest(), map.digest());
    let mut after: Vec<_> =
        again.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let mut sorted = before;
    sorted.sort();
    after.sort();
    assert_eq!(sorted, after);
    // It goes on: with writes, peers and time.
    again.start_log();
    again.peer_up(NOW, NodeId(3), 1, addr(3));
    let _ = again.insert(NOW, b"on", b"it goes");
    while let Some(write) = again.poll_log() {
        again.log_synced(NOW, write.ticket);
    }
    let mut now = NOW;
    for _ in 0..20 {
        now = again.poll_timeout().unwrap_or(now).max(now);
        again.handle_timeout(now);
        let mut buf = [0; 1_400];
        while again.poll_transmit(&mut buf).is_some() {}
    }
}
