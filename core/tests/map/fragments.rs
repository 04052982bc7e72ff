//! Entries that fit no datagram: told whole or not at all, at about the cost of their bytes.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::maps::{NOW, addr, deliver};
use crate::common::stages::{FRAGMENT, fragment, item, of_pull, pull, pulled};
use crate::common::{
    self,
    bare::{packet, varint},
};
use crate::common::{Dice, frame_of};
use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Instant, NodeId, PacketError};
use proptest::prelude::*;

const STEP: Duration = Duration::from_millis(1);

fn replica(id: u64, max_datagram: usize, config: &Config) -> Map {
    let me = ReplicaId::new(NodeId(id), 1);
    Map::new(NOW, me, "test", config.clone(), max_datagram, [id as u8; 32]).unwrap()
}

fn config() -> Config {
    let mut config = Config::local();
    (config.max_key, config.max_value) = (100, 65_536);
    config
}

/// Replicas whose datagrams arrive at once, or never.
struct Net {
    maps: Vec<Map>,
    now: Instant,
    /// Percent that is lost.
    loss: u32,
    dice: Dice,
    /// Bytes of fragments that were sent.
    sent: usize,
}

impl Net {
    fn new(replicas: u64, max_datagram: usize, config: &Config) -> Self {
        let maps = (1..=replicas).map(|id| replica(id, max_datagram, config)).collect();
        let mut net = Self { maps, now: NOW, loss: 0, dice: Dice(7), sent: 0 };
        (0..net.maps.len()).for_each(|at| net.meet(at));
        net
    }

    /// The replica in this place and all others are peers.
    fn meet(&mut self, at: usize) {
        let ids: Vec<ReplicaId> = self.maps.iter().map(Map::replica).collect();
        for (other, id) in ids.iter().enumerate().filter(|(other, _)| *other != at) {
            self.maps[at].peer_up(self.now, id.node, id.epoch, addr(id.node.0));
            let me = ids[at];
            self.maps[other].peer_up(self.now, me.node, me.epoch, addr(me.node.0));
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let mut buf = [0; 1_400];
        for at in 0..self.maps.len() {
            self.maps[at].handle_timeout(self.now);
            let from = self.maps[at].replica().node.0;
            while let Some(sent) = self.maps[at].poll_transmit(&mut buf) {
                let (to, mut bytes) = (u64::from(sent.to.port()), sent.payload.to_vec());
                self.sent += frame_of(&bytes, FRAGMENT).map_or(0, <[u8]>::len);
                let to = self.maps.iter().position(|map| map.replica().node.0 == to);
                if let Some(to) = to.filter(|_| !self.dice.percent(self.loss)) {
                    self.maps[to].handle_packet(self.now, addr(from), &mut bytes).unwrap();
                }
            }
        }
    }

    /// Until all are equal; returns how many steps it took.
    fn agree(&mut self, most: u32) -> u32 {
        let equal = |maps: &[Map]| maps.iter().all(|map| map.digest() == maps[0].digest());
        (0..most)
            .find(|_| {
                self.step();
                equal(&self.maps)
            })
            .unwrap_or_else(|| {
                panic!("no agreement: {:?}", self.maps.iter().map(Map::stats).collect::<Vec<_>>())
            })
    }
}

fn value(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len).map(|_| dice.next() as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: values of any length reach everybody, whatever is lost and however small the datagrams and the budgets
    /// are. Method: concurrent writes of random lengths at three replicas.
    #[test]
    fn values_of_any_length_reach_everybody(
        lens in proptest::collection::vec((0..3_usize, 0..4_u8, 0..9_000_usize), 1..12),
        longest in prop_oneof![Just(0_usize), Just(65_536)],
        room in 512..1_400_usize,
        loss in prop_oneof![Just(0_u32), Just(20), Just(40)],
        small in any::<bool>(),
    ) {
        let mut config = config();
        if small { config.pull_budget = 1_400; }
        let mut net = Net::new(3, room, &config);
        net.loss = loss;
        let all = lens.iter().copied().chain([(0, 9, longest)]);
        for (n, (at, key, len)) in (0..).zip(all) {
            net.maps[at].insert(net.now, &[key], &value(len, n)).unwrap();
            if n % 3 == 0 { net.step(); }
        }
        net.agree(30_000);
        for key in 0..10_u8 {
            let of = |map: &Map| -> Vec<_> {
                map.siblings(&[key]).map(|one| (one.dot, one.value.to_vec())).collect()
            };
            prop_assert_eq!(of(&net.maps[1]), of(&net.maps[0]));
            prop_assert_eq!(of(&net.maps[2]), of(&net.maps[0]));
        }
        prop_assert_eq!(net.maps[2].get(&[9]).map(<[u8]>::len), Some(longest));
    }

    /// Goal: a newcomer is given entries that fit no datagram too. Method: a full sync with loss.
    #[test]
    fn a_full_sync_has_entries_of_any_length(
        lens in proptest::collection::vec(0..9_000_usize, 1..12),
        loss in prop_oneof![Just(0_u32), Just(20)],
        small in any::<bool>(),
    ) {
        let mut config = config();
        config.keep_for = Duration::ZERO;
        if small { config.pull_budget = 1_400; }
        let mut net = Net::new(2, 1_400, &config);
        for (key, &len) in lens.iter().enumerate() {
            net.maps[0].insert(net.now, &[key as u8], &value(len, len as u64)).unwrap();
        }
        net.agree(30_000);
        for _ in 0..20_000 { net.step(); }
        prop_assert_eq!(net.maps[0].metadata(), (0, 0), "logs are forgotten, large entries or not");
        net.maps.push(replica(3, 1_400, &config));
        net.loss = loss;
        net.meet(2);
        net.agree(60_000);
        prop_assert!(net.maps[2].stats().full_syncs > 0);
        for (key, &len) in lens.iter().enumerate() {
            prop_assert_eq!(net.maps[2].get(&[key as u8]), Some(&*value(len, len as u64)));
        }
    }
}

/// Goal: a loss costs what was lost. Method: the bytes of fragments that are sent for an entry of 64 KiB.
#[test]
fn what_is_held_is_not_sent_again() {
    for (loss, most) in [(0, 1.05), (5, 3.0)] {
        let mut config = config();
        config.pull_budget = 8_192;
        let mut net = Net::new(2, 1_400, &config);
        net.agree(1_000);
        net.loss = loss;
        net.maps[0].insert(net.now, b"large", &value(65_536, 1)).unwrap();
        net.agree(30_000);
        let cost = net.sent as f64 / 65_536.0;
        assert!(cost < most, "{cost} times the entry at {loss} % loss");
    }
}

/// Goal: a key that many lives have written is told, with a mark of each. Method: two nodes that start over in turns,
/// a silent peer for whose sake nothing is forgotten, and marks of more bytes than a datagram has.
#[test]
fn a_key_that_many_lives_have_written_is_told() {
    let mut config = config();
    config.keep_for = Duration::from_secs(3_600);
    let mut net = Net::new(2, 512, &config);
    let silent = NodeId(1_000);
    net.maps.iter_mut().for_each(|map| map.peer_up(NOW, silent, 1, addr(silent.0)));
    for life in 3..60 {
        net.maps[0].insert(net.now, b"k", &value(20, life)).unwrap();
        net.agree(20_000);
        let gone = net.maps.remove(1).replica().node;
        let now = net.now;
        net.maps[0].peer_down(now, gone);
        let mut next = replica(life, 512, &config);
        next.peer_up(now, silent, 1, addr(silent.0));
        net.maps.insert(0, next);
        net.meet(0);
        net.agree(20_000);
        assert_eq!(net.maps[0].get(b"k"), Some(&*value(20, life)), "life {life}");
    }
    assert!(net.maps[0].metadata().0 * 17 > 512, "marks: {}", net.maps[0].metadata().0);
    assert!(net.sent > 0);
}

/// Goal: what is held survives the answers of those who have nothing of it. Method: one who asks both in turn, and gets
/// a fragment at a time.
#[test]
fn what_is_held_survives_answers_without_it() {
    let mut config = config();
    config.pull_budget = 1_400;
    let mut net = Net::new(3, 1_400, &config);
    net.loss = 40;
    net.maps[0].insert(net.now, b"large", &value(65_536, 1)).unwrap();
    let mut round = 0;
    while net.maps[1].is_empty() || net.maps[1].get(b"large").is_none() {
        // It has something to ask the third for, too.
        if round % 50 == 0 {
            net.maps[2].insert(net.now, b"small", &[7]).unwrap();
        }
        round += 1;
        assert!(round < 30_000);
        net.step();
    }
}

/// Goal: another peer goes on where one stopped. Method: two that have an entry, of which the first goes when half of
/// it was sent.
#[test]
fn another_peer_goes_on_where_one_stopped() {
    let mut config = config();
    config.pull_budget = 4_096;
    let mut net = Net::new(2, 1_400, &config);
    net.maps[0].insert(net.now, b"large", &value(65_536, 1)).unwrap();
    net.agree(10_000);
    net.maps.push(replica(3, 1_400, &config));
    net.meet(2);
    net.sent = 0;
    while net.sent < 32_768 {
        net.step();
    }
    let gone = net.maps.remove(0).replica().node;
    let now = net.now;
    net.maps.iter_mut().for_each(|map| map.peer_down(now, gone));
    net.agree(30_000);
    let cost = net.sent as f64 / 65_536.0;
    assert!(cost < 1.3, "{cost} times the entry");
}

/// Goal: nobody is made to keep what was not asked for, or to take what is not what its name says. Method: fragments
/// by hand.
#[test]
fn only_what_was_asked_for_is_put_together() {
    let whole = item(1, b"k", &[7; 3_000]);
    let (head, tail) = whole.split_at(1_000);
    let (id, len) = (xxhash_rust::xxh3::xxh3_64(&whole), whole.len() as u64);
    let mut map = replica(1, 1_400, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    common::maps::drain(&mut map);
    let give = |map: &mut Map, nonce, id, name: &[u8], offset| {
        deliver(map, NOW, 2, &fragment(&of_pull(nonce), id, len, offset, name));
    };
    give(&mut map, 1, id, &whole, 0);
    assert!(map.is_empty(), "nobody asked");
    let nonce = pulled(&mut map, NOW);
    give(&mut map, nonce, id + 1, &whole, 0);
    assert!(map.is_empty(), "that is not its name");
    give(&mut map, nonce, id, tail, 1_000);
    assert!(map.is_empty(), "the first half is missing");
    give(&mut map, nonce, id + 1, head, 0);
    assert!(map.is_empty(), "of another");
    give(&mut map, nonce, id, head, 0);
    assert_eq!(map.get(b"k"), Some(&[7; 3_000][..]));
}

/// Goal: no fragment makes a map reserve more than the longest entry, or write beyond it. Method: lengths and offsets
/// at the limits.
#[test]
fn fragments_beyond_the_limits_are_refused() {
    const MOST: u64 = 32 << 20;
    let mut map = replica(1, 1_400, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    let nonce = pulled(&mut map, NOW);
    let mut take = |of: &[u8], len, offset, bytes: &[u8]| {
        map.handle_packet(NOW, addr(2), &mut fragment(of, 7, len, offset, bytes))
    };
    let of = of_pull(nonce);
    assert_eq!(take(&of, MOST, MOST - 1, b"x"), Ok(()));
    for (len, offset, bytes, error) in [
        (MOST + 1, 0, &b"x"[..], PacketError::LimitExceeded),
        (MOST, MOST, b"x", PacketError::LimitExceeded),
        (1, 0, b"xx", PacketError::LimitExceeded),
        (1, u64::MAX, b"x", PacketError::LimitExceeded),
        (1, 0, b"", PacketError::Malformed),
    ] {
        assert_eq!(take(&of, len, offset, bytes), Err(error), "{len} {offset}");
    }
    let mut flags = of_pull(nonce);
    flags[0] = 4;
    assert_eq!(take(&flags, 1, 0, b"x"), Err(PacketError::Malformed));
    let unit = [&[1][..], &7_u64.to_le_bytes(), &varint(u64::MAX)].concat();
    assert_eq!(take(&unit, 1, 0, b"x"), Ok(()), "of a full sync that nobody takes");
}

/// Goal: an answer with an entry in fragments ends with the budget. Method: a pull by hand.
#[test]
fn fragments_keep_to_the_budget() {
    let mut map = replica(1, 1_400, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    map.insert(NOW, b"large", &value(20_000, 1)).unwrap();
    common::maps::drain(&mut map);
    for (budget, fragments) in [(1, 1), (1_400, 2), (5_000, 4), (1 << 20, 15)] {
        let mut bytes = packet("test", NodeId(2), 1, &pull(77, budget));
        map.handle_packet(NOW, addr(2), &mut bytes).unwrap();
        let sent = common::maps::drain(&mut map);
        let of = |tag| sent.iter().filter(|(_, bytes)| frame_of(bytes, tag).is_some()).count();
        assert_eq!((of(FRAGMENT), of(0xa3)), (fragments, 1), "{budget}");
        let end = sent.iter().find_map(|(_, bytes)| frame_of(bytes, 0xa3)).unwrap();
        let more = if fragments < 15 { 2 } else { 0 };
        assert_eq!(end.last(), Some(&(1 | more)), "the last, and whether there is more");
    }
}

/// Goal: nothing waits for an entry that takes long. Method: an answer with small ones before and after it.
#[test]
fn small_entries_come_before_large_ones() {
    let mut map = replica(1, 1_400, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    for (key, len) in [(b"a", 10), (b"b", 20_000), (b"c", 10), (b"d", 3_000), (b"e", 10)] {
        map.insert(NOW, key, &value(len, 1)).unwrap();
    }
    common::maps::drain(&mut map);
    let mut bytes = packet("test", NodeId(2), 1, &pull(77, 1 << 20));
    map.handle_packet(NOW, addr(2), &mut bytes).unwrap();
    let sent = common::maps::drain(&mut map);
    let tags = sent.iter().map(|(_, bytes)| bytes[24]).collect::<Vec<_>>();
    let first = tags.iter().position(|tag| *tag == FRAGMENT).unwrap();
    assert!(tags[..first].iter().all(|tag| *tag == 0xa3));
    assert!(tags[first..tags.len() - 1].iter().all(|tag| *tag == FRAGMENT), "{tags:x?}");
    assert_eq!(tags.len() - 1 - first, 15 + 3, "all of both");
}

/// Goal: every answer ends. Method: pulls with each budget from a byte on, of small entries and large ones.
#[test]
fn an_answer_ends_whatever_the_budget() {
    let mut map = replica(1, 512, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    for key in 0..40_u8 {
        let len = if key % 8 == 0 { 700 } else { 40 };
        map.insert(NOW, &[key], &value(len, 1)).unwrap();
    }
    common::maps::drain(&mut map);
    for budget in 1..8_000 {
        let mut bytes = packet("test", NodeId(2), 1, &pull(budget, budget));
        map.handle_packet(NOW, addr(2), &mut bytes).unwrap();
        let sent = common::maps::drain(&mut map);
        let ends = sent.iter().filter_map(|(_, bytes)| frame_of(bytes, 0xa3));
        let last = |body: &&[u8]| body[8 + varint(budget).len() + 1] & 1 == 1;
        assert_eq!(ends.filter(last).count(), 1, "{budget}");
    }
}

/// Goal: limits that are judged for one entry are not gone round. Method: two items under one name.
#[test]
fn a_whole_is_one_entry() {
    let whole = [item(1, b"k", &[7; 700]), item(1, b"l", &[7; 700])].concat();
    let id = xxhash_rust::xxh3::xxh3_64(&whole);
    let mut map = replica(1, 1_400, &config());
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    common::maps::drain(&mut map);
    let nonce = pulled(&mut map, NOW);
    let (head, tail) = whole.split_at(1_000);
    for (offset, part) in [(0, head), (1_000, tail)] {
        let len = whole.len() as u64;
        deliver(&mut map, NOW, 2, &fragment(&of_pull(nonce), id, len, offset, part));
    }
    assert!(map.is_empty());
}

/// Goal: large entries are told one after the other, not one in a round trip. Method: how many pulls fifty take.
#[test]
fn one_answer_brings_several_large_entries() {
    let mut net = Net::new(2, 1_400, &config());
    net.agree(1_000);
    let before = net.maps[1].stats().pulls_sent;
    for key in 0..50_u8 {
        net.maps[0].insert(net.now, &[key], &value(2_000, 1)).unwrap();
    }
    net.agree(10_000);
    let pulls = net.maps[1].stats().pulls_sent - before;
    assert!(pulls <= 4, "{pulls} pulls");
}

/// Goal: many large entries between many small ones all come. Method: more of both than a digest has runs, and than a
/// budget has bytes.
#[test]
fn large_entries_between_small_ones_all_come() {
    let mut config = config();
    config.pull_budget = 16 * 1024;
    for loss in [0, 10] {
        let mut net = Net::new(2, 1_400, &config);
        net.agree(1_000);
        net.loss = loss;
        for key in 0..2_000_u16 {
            let len = if key % 10 == 0 { 2_000 } else { 300 };
            net.maps[0].insert(net.now, &key.to_le_bytes(), &value(len, 1)).unwrap();
            if key % 500 == 0 {
                net.step();
            }
        }
        net.agree(60_000);
        let cost = net.sent as f64 / (200.0 * 2_000.0);
        assert!(cost < 2.0, "{cost} times the bytes at {loss} % loss");
    }
}

/// Goal: a key that is written all the time is heard of all the same. Method: a value of many datagrams, loss, and a
/// write every ten milliseconds.
#[test]
fn a_large_value_that_changes_all_the_time_is_heard_of() {
    let mut net = Net::new(2, 1_400, &config());
    net.loss = 2;
    net.agree(1_000);
    let mut heard = std::collections::BTreeSet::new();
    for round in 0..3_000_u64 {
        if round % 10 == 0 {
            net.maps[0].insert(net.now, b"hot", &value(20_000, round)).unwrap();
        }
        net.step();
        heard.extend(net.maps[1].get(b"hot").map(|value| value[..8].to_vec()));
    }
    assert!(heard.len() > 10, "{} versions", heard.len());
    let pulls = net.maps[1].stats().pulls_sent;
    assert!(pulls < 600, "{pulls} pulls");
}

/// Goal: what those who could not hear of each other wrote of one key meets in one entry, which is told to everybody
/// still. Method: two sides that write until they are refused meet, and once nobody has a log a third one comes.
#[test]
fn what_two_sides_wrote_to_their_limits_is_told() {
    let mut maps = vec![replica(1, 1_400, &config()), replica(2, 1_400, &config())];
    for (map, byte) in maps.iter_mut().zip(1..) {
        let nothing = map.context(b"another");
        while map.resolve(NOW, b"k", &nothing, Some(&value(65_536, byte))).is_ok() {}
    }
    let concurrent = |map: &Map| map.siblings(b"k").count();
    let all = maps.iter().map(concurrent).sum::<usize>();
    assert_eq!(all, 2 * 63);
    let until = |maps: &mut [Map], mut now: Instant, done: &dyn Fn(&[Map]) -> bool| {
        let end = now + Duration::from_secs(120);
        while !done(maps) {
            assert!(now < end);
            now = common::maps::settle(maps, now);
        }
        now
    };
    let met =
        |maps: &[Map]| maps.iter().all(|map| concurrent(map) == all && map.metadata() == (0, 0));
    maps[0].peer_up(NOW, NodeId(2), 1, addr(2));
    maps[1].peer_up(NOW, NodeId(1), 1, addr(1));
    let now = until(&mut maps, NOW, &met);
    let mut third = replica(3, 1_400, &config());
    for (at, id) in [(0, 1), (1, 2)] {
        maps[at].peer_up(now, NodeId(3), 1, addr(3));
        third.peer_up(now, NodeId(id), 1, addr(id));
    }
    maps.push(third);
    until(&mut maps, now, &met);
    assert!(maps.iter().all(|map| map.stats().oversize == 0));
}
