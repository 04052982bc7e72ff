//! The map at the sizes of rows C1 to C4.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId};
use hashbrown::HashMap;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use crate::alloc;
use crate::measure::{Entrant, Outcome, Stopwatch};

/// Bytes of a key in C1 to C3: that of an origin behind a number.
pub const KEY: usize = 21;
/// Bytes of a value in all rows.
pub const VALUE: usize = 32;
/// Bytes of a key in C4.
pub const SHORT_KEY: usize = 16;
/// Largest datagram that is sent.
pub const MAX_DATAGRAM: usize = 1400;
/// Entries of a delta in C2.
pub const DELTA: usize = 10;
/// Deltas that are merged one after another in C2. The first is not timed: what it needs has left the
/// caches while the others were made.
pub const BATCH: usize = 32;

/// The `at`-th key, the last `LEN` bytes of at most 21.
#[must_use]
pub fn key<const LEN: usize>(at: u32) -> [u8; LEN] {
    // By hand: what is measured makes a key for each of its writes.
    let mut text = *b"origin-00000000000000";
    let mut left = at;
    for digit in text.iter_mut().rev() {
        if left == 0 {
            break;
        }
        *digit += (left % 10) as u8;
        left /= 10;
    }
    *text.last_chunk().expect("keys are no longer")
}

/// A value that follows from the key's number and a version.
#[must_use]
pub fn value(at: u32, version: u32) -> [u8; VALUE] {
    let mut value = [0x55; VALUE];
    value[..4].copy_from_slice(&at.to_le_bytes());
    value[4..8].copy_from_slice(&version.to_le_bytes());
    value
}

/// A map of `n` keys, without peers.
#[must_use]
pub fn filled<const LEN: usize>(id: u64, n: u32) -> Map {
    let mut map = replica(id);
    for at in 0..n {
        insert::<LEN>(&mut map, Instant::ZERO, at, 0);
        // Whoever has events waiting for it pays for them by itself.
        while map.poll_event().is_some() {}
    }
    map
}

fn replica(id: u64) -> Map {
    let replica = ReplicaId::new(NodeId(id), 1);
    let map = Map::new(Instant::ZERO, replica, "bench", Config::lan(), MAX_DATAGRAM, [7; 32]);
    map.expect("the preset is accepted")
}

fn insert<const LEN: usize>(map: &mut Map, now: Instant, at: u32, version: u32) {
    map.insert(now, &key::<LEN>(at), &value(at, version)).expect("within the limits");
}

/// Two replicas with the same `n` keys, and the datagrams between them.
#[derive(Debug)]
pub struct Pair {
    writer: Map,
    reader: Map,
    now: Instant,
    keys: u32,
    version: u32,
    dice: Xoshiro256PlusPlus,
    /// The writer first.
    addrs: [SocketAddr; 2],
}

/// Where the two live.
fn addr(id: u16) -> SocketAddr {
    ([10, 0, 0, 1], id).into()
}

impl Pair {
    /// Two replicas in step.
    #[must_use]
    pub fn of(keys: u32) -> Self {
        let (writer, reader) = (filled::<KEY>(1, keys), replica(2));
        let dice = Xoshiro256PlusPlus::seed_from_u64(7);
        let (now, version, addrs) = (Instant::ZERO, 0, [addr(1), addr(2)]);
        let mut pair = Self { writer, reader, now, keys, version, dice, addrs };
        pair.writer.peer_up(pair.now, NodeId(2), 1, addr(2));
        pair.reader.peer_up(pair.now, NodeId(1), 1, addr(1));
        pair.settle();
        pair
    }

    /// Lets time pass until both are in step and silent.
    fn settle(&mut self) {
        let mut buf = [0; MAX_DATAGRAM];
        for _ in 0..100_000 {
            let mut quiet = true;
            while let Some(len) = self.writer.poll_transmit(&mut buf).map(|sent| sent.payload.len())
            {
                let from = self.addrs[0];
                self.reader.handle_packet(self.now, from, &mut buf[..len]).expect("correct");
                quiet = false;
            }
            while let Some(len) = self.reader.poll_transmit(&mut buf).map(|sent| sent.payload.len())
            {
                let from = self.addrs[1];
                self.writer.handle_packet(self.now, from, &mut buf[..len]).expect("correct");
                quiet = false;
            }
            while self.reader.poll_event().is_some() || self.writer.poll_event().is_some() {}
            if quiet && self.writer.digest() == self.reader.digest() {
                return;
            }
            if quiet {
                let due = self.writer.poll_timeout().into_iter().chain(self.reader.poll_timeout());
                self.now = self.now.max(due.min().expect("replicas that differ have a timer"));
                self.writer.handle_timeout(self.now);
                self.reader.handle_timeout(self.now);
            }
        }
        panic!("the replicas do not come into step");
    }

    /// Keys at random.
    fn draw(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.dice.next_u64() % u64::from(self.keys)) as u32).collect()
    }

    /// The writer overwrites `count` keys at random, all at the present instant.
    fn overwrite(&mut self, count: usize) {
        let keys = self.draw(count);
        self.write(&keys);
    }

    fn write(&mut self, keys: &[u32]) {
        self.version += 1;
        for &at in keys {
            insert::<KEY>(&mut self.writer, self.now, at, self.version);
        }
    }

    /// From now on the other one writes.
    fn swap(&mut self) {
        std::mem::swap(&mut self.writer, &mut self.reader);
        self.addrs.reverse();
    }

    /// Long enough for the push of the next write to leave at once.
    fn wait(&mut self) {
        self.settle();
        self.now += Duration::from_millis(100);
        self.settle();
    }
}

/// C1: fill a map with `n` keys; per insert.
#[must_use]
pub fn insertion(n: u32) -> Entrant {
    Entrant::new("brickwork", move |watch| {
        let mut map = replica(1);
        watch.time(u64::from(n), || {
            for at in 0..n {
                insert::<KEY>(&mut map, Instant::ZERO, at, 0);
            }
        });
    })
}

/// The `at`-th key and its first value, each in a box of its own.
fn owned<const LEN: usize>(at: u32) -> (Box<[u8]>, Box<[u8]>) {
    (Box::new(key::<LEN>(at)), Box::new(value(at, 0)))
}

/// The limit for C1: a hash map of owned keys and values that promises nothing more.
#[must_use]
pub fn hash_map_insertion(n: u32) -> Entrant {
    Entrant::new("limit: hashbrown, owned", move |watch| {
        let mut map = HashMap::new();
        watch.time(u64::from(n), || {
            for at in 0..n {
                let (key, value) = owned::<KEY>(at);
                map.insert(key, value);
            }
        });
    })
}

/// C1 again, for keys that exist: the case of a health check.
#[must_use]
pub fn overwriting(n: u32) -> Entrant {
    const BATCH: u32 = 1_000;
    let (mut map, mut at, mut version) = (filled::<KEY>(1, n), 0_u32, 0);
    Entrant::new("brickwork, overwrite", move |watch| {
        version += 1;
        let keys: Vec<u32> = (0..BATCH).map(|step| (at + step * 7_919) % n).collect();
        at = keys[keys.len() - 1];
        watch.time(u64::from(BATCH), || {
            for &at in &keys {
                insert::<KEY>(&mut map, Instant::ZERO, at, version);
            }
        });
        while map.poll_event().is_some() {}
    })
}

/// What the entries of a delta meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Met {
    /// A value of the same writer: the case of a health check.
    Own,
    /// A value of the one that merges, which the writer has seen.
    Other,
    /// A value of the one that merges, which the writer has not seen.
    Concurrent,
    /// Nothing: the keys are new.
    Nothing,
}

/// C2, first half: merge a packet with a delta of ten entries.
#[must_use]
pub fn merging(n: u32, met: Met) -> Entrant {
    let mut pair = Pair::of(n);
    let name = match met {
        Met::Own => "brickwork",
        Met::Other => "brickwork, over its own",
        Met::Concurrent => "brickwork, beside its own",
        Met::Nothing => "brickwork, new keys",
    };
    let mut last = pair.draw(BATCH * DELTA);
    if met == Met::Other {
        // It is the reader's turn next.
        pair.write(&last);
        pair.wait();
    }
    Entrant::new(name, move |watch| {
        let keys = match met {
            Met::Own | Met::Concurrent => pair.draw(BATCH * DELTA),
            Met::Other => {
                pair.swap();
                std::mem::take(&mut last)
            }
            Met::Nothing => {
                // The map stays about as large as the row says, and far from its limit, however fast the machine is.
                if pair.keys > n.saturating_mul(2) {
                    pair = Pair::of(n);
                }
                (pair.keys..).take(BATCH * DELTA).collect()
            }
        };
        let mut packets = VecDeque::new();
        for some in keys.chunks(DELTA) {
            pair.now += Duration::from_millis(100);
            pair.writer.handle_timeout(pair.now);
            pair.write(some);
            push(&mut pair.writer, &mut packets);
            if met == Met::Concurrent {
                for &at in some {
                    insert::<KEY>(&mut pair.reader, pair.now, at, pair.version);
                }
            }
        }
        let count = packets.len() as u64 - 1;
        let (now, from, reader) = (pair.now, pair.addrs[0], &mut pair.reader);
        let mut take = |packet: &mut Vec<u8>| {
            reader.handle_packet(now, from, packet).expect("correct");
        };
        take(&mut packets.pop_front().expect("there is a packet"));
        watch.time(count, || packets.iter_mut().for_each(take));
        pair.wait();
        if met == Met::Nothing {
            pair.keys += keys.len() as u32;
        }
        last = keys;
    })
}

/// The limit for merging: ten keys of a packet are looked up in a hash map of owned keys, and their values
/// are written over. It checks nothing, tells nobody, and cannot pass on what it learnt.
#[must_use]
pub fn hash_map_merging(n: u32) -> Entrant {
    let mut map: HashMap<_, _> = (0..n).map(owned::<KEY>).collect();
    let (mut dice, mut version) = (Xoshiro256PlusPlus::seed_from_u64(7), 0);
    Entrant::new("limit: hashbrown, overwrite", move |watch| {
        version += 1;
        let mut packet = || -> Vec<u8> {
            let keys = (0..DELTA).map(|_| (dice.next_u64() % u64::from(n)) as u32);
            keys.flat_map(|at| key::<KEY>(at).into_iter().chain(value(at, version))).collect()
        };
        let packets: Vec<Vec<u8>> = (1..BATCH).map(|_| packet()).collect();
        watch.time(packets.len() as u64, || {
            for entry in packets.iter().flat_map(|packet| packet.chunks_exact(KEY + VALUE)) {
                let (key, value) = entry.split_at(KEY);
                map.get_mut(key).expect("all are there").copy_from_slice(value);
            }
        });
    })
}

/// C2, second half: extract ten dots into a datagram.
#[must_use]
pub fn extraction(n: u32) -> Entrant {
    let mut pair = Pair::of(n);
    Entrant::new("brickwork", move |watch| {
        for _ in 0..64 {
            pair.now += Duration::from_millis(100);
            pair.writer.handle_timeout(pair.now);
            pair.overwrite(DELTA);
            let mut buf = [0; MAX_DATAGRAM];
            let len = watch
                .time(1, || pair.writer.poll_transmit(&mut buf).map(|sent| sent.payload.len()));
            let len = len.expect("a write is pushed");
            pair.reader.handle_packet(pair.now, addr(1), &mut buf[..len]).expect("correct");
        }
        pair.wait();
    })
}

fn push(writer: &mut Map, packets: &mut VecDeque<Vec<u8>>) {
    let mut buf = [0; MAX_DATAGRAM];
    while let Some(sent) = writer.poll_transmit(&mut buf) {
        packets.push_back(sent.payload.to_vec());
    }
}

/// C3: `changed` of `n` keys change at once; the whole of extracting and encoding, or of decoding and
/// merging, as one operation.
#[must_use]
pub fn batch(n: u32, changed: usize, side: Side) -> Entrant {
    let mut pair = Pair::of(n);
    Entrant::new("brickwork", move |watch| {
        batch_once(&mut pair, changed, watch, side);
    })
}

/// Which half of C3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Side {
    /// Extract and encode.
    Encode,
    /// Decode and merge.
    Merge,
}

fn batch_once(pair: &mut Pair, changed: usize, watch: &mut Stopwatch, side: Side) -> usize {
    pair.now += Duration::from_millis(100);
    pair.writer.handle_timeout(pair.now);
    pair.overwrite(changed);
    let mut arena = vec![0; changed * 200 + MAX_DATAGRAM];
    let mut ends = Vec::with_capacity(changed);
    let mut extract = || {
        let mut at = 0;
        while let Some(sent) = pair.writer.poll_transmit(&mut arena[at..]) {
            at += sent.payload.len();
            ends.push(at);
        }
        at
    };
    let bytes = if side == Side::Encode { watch.time(1, extract) } else { extract() };
    let mut merge = || {
        let mut start = 0;
        for &end in &ends {
            let packet = &mut arena[start..end];
            pair.reader.handle_packet(pair.now, addr(1), packet).expect("correct");
            start = end;
        }
    };
    if side == Side::Merge {
        watch.time(1, merge);
    } else {
        merge();
    }
    pair.wait();
    bytes
}

/// The limit for C3: entries of a hash map of owned keys are copied into one buffer, or written over from it.
#[must_use]
pub fn hash_map_batch(n: u32, changed: usize, side: Side) -> Entrant {
    let mut map: HashMap<_, _> = (0..n).map(owned::<KEY>).collect();
    let (mut dice, mut version) = (Xoshiro256PlusPlus::seed_from_u64(7), 0);
    let mut arena = Vec::with_capacity(changed * (KEY + VALUE));
    Entrant::new("limit: hashbrown, copies", move |watch| {
        version += 1;
        let keys: Vec<u32> =
            (0..changed).map(|_| (dice.next_u64() % u64::from(n)) as u32).collect();
        arena.clear();
        if side == Side::Encode {
            watch.time(1, || {
                for &at in &keys {
                    let key = key::<KEY>(at);
                    arena.extend_from_slice(&key);
                    arena.extend_from_slice(&map[&key[..]]);
                }
            });
            return;
        }
        arena.extend(
            keys.iter().flat_map(|&at| [&key::<KEY>(at)[..], &value(at, version)].concat()),
        );
        watch.time(1, || {
            for entry in arena.chunks_exact(KEY + VALUE) {
                let (key, value) = entry.split_at(KEY);
                map.get_mut(key).expect("all are there").copy_from_slice(value);
            }
        });
    })
}

/// C3: bytes of the datagrams that carry `changed` of `n` keys, headers included.
#[must_use]
pub fn batch_bytes(n: u32, changed: usize) -> Outcome {
    let mut pair = Pair::of(n);
    let bytes = batch_once(&mut pair, changed, &mut Stopwatch::default(), Side::Encode);
    Outcome::counted("brickwork", bytes as f64)
}

/// C4: live heap per entry, over key and value, of a map of `n` entries.
#[must_use]
pub fn heap(n: u32) -> Outcome {
    Outcome::counted("brickwork", overhead(n, || filled::<SHORT_KEY>(1, n)))
}

/// The limit for C4: a hash map of owned keys and values.
#[must_use]
pub fn hash_map_heap(n: u32) -> Outcome {
    let filled = || -> HashMap<_, _> { (0..n).map(owned::<SHORT_KEY>).collect() };
    Outcome::counted("limit: hashbrown, owned", overhead(n, filled))
}

/// Bytes per entry that `fill` keeps, beyond those of the keys and values.
pub fn overhead<M>(n: u32, fill: impl FnOnce() -> M) -> f64 {
    let before = alloc::live_bytes();
    let map = fill();
    let bytes = alloc::live_bytes() - before;
    drop(map);
    bytes as f64 / f64::from(n) - (SHORT_KEY + VALUE) as f64
}
