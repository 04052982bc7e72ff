#![allow(clippy::unwrap_used)]

mod heirs;
mod numbers;
mod others;

use super::*;
use crate::map::dot::Runs;
use crate::map::replica::Replicas;
use crate::map::seal_wire;
use crate::map::skim::Skim;
use crate::map::store::Told;
use crate::map::wire::{self, FLAG_LAST, Frame};
use crate::map::{Config, Policy};
use crate::wire::{PacketError, Writer};
use alloc::vec;
use proptest::prelude::*;

const NOW: Instant = Instant::ZERO;

fn life(node: u64, epoch: u64) -> ReplicaId {
    ReplicaId::new(NodeId(node), epoch)
}

fn map(id: u64) -> Map {
    let config = Config { max_past_lives: 0, collect_interval: PAUSE, ..Config::lan() };
    let mut map = Map::new(NOW, life(id, 1), "test", config, 1400, [id as u8; 32]).unwrap();
    let other = if id == 1 { 2 } else { 1 };
    map.peer_up(NOW, NodeId(other), 1, ([10, 0, 0, 1], 1).into());
    map
}

/// Lets a map know so many writes of a life, which every peer has.
fn settle(map: &mut Map, id: ReplicaId, writes: u64) -> u16 {
    let number = map.replicas.intern(id).unwrap();
    map.replicas.adopt(number, 1, writes);
    map.replicas.raise_floor(number, writes);
    number
}

/// The same, and that no other write of it counts.
fn settle_sealed(map: &mut Map, id: ReplicaId, writes: u64) -> u16 {
    let number = settle(map, id, writes);
    let seal = map.replicas.seal_as_known(number);
    map.take_seals(NOW, vec![(number, seal)]);
    number
}

/// The peer in `slot` tells that it has all that is known here.
fn hear_all(map: &mut Map, slot: u32) {
    for number in map.replicas.numbers() {
        let base = map.replicas.base(number);
        map.peers.get_mut(slot).unwrap().known.runs_mut(number).add(1, base);
    }
    map.heard_context(NOW, slot, false);
}

/// Counts the entries to the end, twice: what was sealed first is retired then, for all have taken it meanwhile.
fn count(map: &mut Map) {
    count_at(map, NOW);
}

fn count_at(map: &mut Map, now: Instant) {
    walk_at(map, now);
    map.garbage.settle(map.replicas.seals());
    walk_at(map, now);
}

fn walk_at(map: &mut Map, now: Instant) {
    map.retiring.again = now;
    map.consider_census(now);
    for at in 0..100 {
        map.fire_retiring(now + PAUSE * at);
    }
}

/// More keys than one step of a walk looks at.
fn fill(map: &mut Map) {
    for key in 0..u64::from(STEP) + 10 {
        map.insert(NOW, &key.to_le_bytes(), b"v").unwrap();
    }
}

/// Begins a walk, and takes its first step.
fn step(map: &mut Map) {
    map.retiring.again = NOW;
    map.consider_census(NOW);
    map.fire_retiring(NOW);
    assert_eq!(map.retiring.census.as_ref().unwrap().next, STEP, "it goes by steps");
}

/// All datagrams that a map has to send now.
fn sent(map: &mut Map) -> Vec<Vec<u8>> {
    let mut buf = [0; 1_400];
    let mut all = Vec::new();
    while let Some(datagram) = map.poll_transmit(&mut buf) {
        all.push(datagram.payload.to_vec());
    }
    all
}

fn carry(datagrams: Vec<Vec<u8>>, to: &mut Map) {
    for mut bytes in datagrams {
        to.handle_packet(NOW, ([10, 0, 0, 1], 1).into(), &mut bytes).unwrap();
    }
}

/// The first peer of a map.
fn peer(map: &Map) -> u32 {
    map.peers.slots().next().unwrap()
}

/// A frame of merged lives.
fn told(merged: &[(u64, Merged)]) -> Vec<u8> {
    let mut bytes = vec![0; 60_000];
    let mut w = Writer::new(&mut bytes);
    w.u8(FLAG_LAST | seal_wire::FLAG_MERGED).unwrap();
    let pasts = merged.iter().map(|(node, merged)| (NodeId(*node), *merged));
    seal_wire::write_merged(&mut w, pasts, &mut 0).unwrap();
    let len = w.len();
    bytes.truncate(len);
    bytes
}

fn hear(map: &mut Map, bytes: &[u8]) {
    let Ok(Frame::Seals(told)) = wire::parse(wire::SEALS, bytes) else { panic!() };
    let slot = map.peers.slots().next().unwrap();
    map.on_seals(NOW, slot, told);
}

/// Goal: a new key may get a slot that the walk has passed, and names its writer's life all the same.
#[test]
fn a_key_that_comes_during_the_walk_names_its_life() {
    let mut one = map(1);
    let number = settle(&mut one, life(3, 1), 5);
    one.retiring.census = Some(Census { next: 9, at: NOW, named: vec![false; 10] });
    let me = one.replicas.own();
    let addressee = one.under_seals(wire::addressee(me.node, 1, me.epoch)).to_le_bytes();
    let id = [3_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    // A push of its sixth write, the only value of a key.
    let body =
        [&addressee[..], &[0, 0, 0], &id, &[6, 1, wire::ITEM_OWN, 1, b'k', 1, b'v']].concat();
    let Ok(Frame::Chunk(chunk)) = wire::parse(wire::CHUNK, &body) else { panic!() };
    let peer = one.peers.slots().next().unwrap();
    one.on_chunk(NOW, peer, &chunk, &Skim::of(chunk.items));
    assert_eq!(one.get(b"k"), Some(&b"v"[..]));
    assert!(one.retiring.census.as_ref().unwrap().named[usize::from(number)]);
}

/// Goal: a life that an entry names is not retired, wherever the walk is when that begins.
#[test]
fn what_is_named_during_the_walk_is_not_retired() {
    for named in [false, true] {
        let mut one = map(1);
        fill(&mut one);
        let past = settle_sealed(&mut one, life(3, 1), 5);
        settle(&mut one, life(3, 2), 1);
        one.garbage.settle(one.replicas.seals());
        one.retiring.census = Some(Census { next: 0, at: NOW, named: vec![false; 10] });
        one.fire_retiring(NOW);
        assert_eq!(one.retiring.census.as_ref().unwrap().next, STEP, "it goes by steps");
        if named {
            one.retiring.note_named(&[Packed::new(past, 3)]);
        }
        one.fire_retiring(NOW + PAUSE);
        assert!(one.retiring.census.is_none());
        assert_eq!(one.replicas.fate(life(3, 1)).is_some(), !named);
    }
}

/// Goal: whoever is alone retires nothing, for it knows least of what others have.
#[test]
fn one_without_peers_retires_nothing() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    one.peer_down(NOW, NodeId(2));
    count(&mut one);
    assert_eq!((one.stats.retired, one.replicas.seals()), (0, 0));
    one.peer_up(NOW, NodeId(2), 1, ([10, 0, 0, 1], 1).into());
    let slot = peer(&one);
    hear_all(&mut one, slot);
    count(&mut one);
    assert_eq!(one.stats.retired, 1);
}

/// Goal: a life is retired only once all members have taken its seal, and have nothing left to write anew for it. Method:
/// one member hears of it late; then it tells that it waits; then it does not.
#[test]
fn lives_are_retired_when_all_have_taken_their_seals() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    let (slot, mut now) = (peer(&one), NOW);
    let mut turn = |one: &mut Map, heard: Option<bool>| {
        now += one.config.collect_interval + Duration::from_secs(1);
        one.fire_garbage(now);
        if let Some(waits) = heard {
            for number in one.replicas.numbers() {
                let base = one.replicas.base(number);
                one.peers.get_mut(slot).unwrap().known.runs_mut(number).add(1, base);
            }
            one.heard_context(now, slot, waits);
        }
        walk_at(one, now);
        one.replicas.fate(life(3, 1)).is_some()
    };
    assert!(!turn(&mut one, Some(false)), "it is sealed first");
    assert!(one.replicas.seals() != 0);
    assert!(!turn(&mut one, None), "the peer has not been heard since");
    assert!(!turn(&mut one, Some(true)), "it has something to write anew");
    assert!(turn(&mut one, Some(false)));
}

/// Goal: the same of what no chunk brings: a value of a life that is given a free number meanwhile, and a mark of a full
/// sync.
#[test]
fn what_comes_in_other_ways_during_the_walk_is_not_retired() {
    for synced in [false, true] {
        let mut one = map(1);
        for epoch in 1..4 {
            settle(&mut one, life(9, epoch), 2);
        }
        count(&mut one);
        assert_eq!(one.stats.retired, 2, "one number is free, the other stands for both");
        fill(&mut one);
        let early = synced.then(|| settle(&mut one, life(3, 1), 5));
        settle(&mut one, life(4, 1), 1);
        settle(&mut one, life(4, 2), 1);
        one.retiring.again = NOW;
        one.consider_census(NOW);
        one.fire_retiring(NOW);
        assert_eq!(one.retiring.census.as_ref().unwrap().next, STEP);
        let past = early.unwrap_or_else(|| settle(&mut one, life(3, 1), 5));
        settle(&mut one, life(3, 2), 1);
        let slot = one.store.slot(&0_u64.to_le_bytes()).unwrap();
        if synced {
            let told = Told { siblings: &[], superseded: &[Packed::new(past, 3)] };
            one.store.join(&one.replicas, slot, told, |dot| told.reflects(dot));
            one.retiring.stop_counting(); // as whoever takes a full sync does
        } else {
            one.store.add_sibling(&one.replicas, slot, Packed::new(past, 5), b"v");
        }
        for at in 1..50 {
            one.fire_retiring(NOW + PAUSE * at);
        }
        assert!(one.replicas.fate(life(3, 1)).is_none(), "{synced}");
    }
}

/// Goal: no setting and no epoch is too large.
#[test]
fn the_greatest_numbers_do_no_harm() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 1);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    assert!(one.replicas.fate(life(3, 1)).is_some());
    settle(&mut one, life(3, u64::MAX), 1);
    one.config.max_past_lives = usize::MAX;
    one.consider_census(NOW);
    assert!(one.retiring.census.is_none());
}

/// Goal: what is left of a life is written again by one of those who have it, and it is retired only after that.
#[test]
fn nothing_is_retired_while_a_value_names_it() {
    let mut one = map(1);
    let node = (3..).find(|node| one.is_heir(life(*node, 1))).unwrap();
    let past = settle(&mut one, life(node, 1), 5);
    settle(&mut one, life(node, 2), 1);
    let slot = one.store.slot_or_insert(b"key");
    one.store.add_sibling(&one.replicas, slot, Packed::new(past, 5), b"v");
    count(&mut one);
    assert!(one.replicas.fate(life(node, 1)).is_none());
    assert_eq!(one.retiring.adopting, [past], "that node is away, and this one its heir");
    count(&mut one);
    let left: Vec<_> = one.store.entry(slot).siblings().map(|own| own.dot).collect();
    assert_eq!(left, [Packed::new(one.replicas.me(), 1)]);
}

/// Goal: what is written again is no younger than it was. Method: beside it is a value that is.
#[test]
fn a_value_that_is_written_again_keeps_its_time() {
    let mut one = map(1);
    one.config.policy = Policy::Lamport;
    one.replicas = one.replicas.reborn(life(1, 1)).with_policy(Policy::Lamport);
    let node = (3..).find(|node| one.is_heir(life(*node, 1))).unwrap();
    let past = settle(&mut one, life(node, 1), 5);
    let other = settle(&mut one, life(node, 2), 1);
    let slot = one.store.slot_or_insert(b"key");
    let stored = |time: u64, value: &[u8]| [&time.to_be_bytes(), value].concat();
    one.store.add_sibling(&one.replicas, slot, Packed::new(past, 5), &stored(7, b"old"));
    one.store.add_sibling(&one.replicas, slot, Packed::new(other, 1), &stored(9, b"young"));
    one.hear_times(slot);
    assert_eq!(one.get(b"key"), Some(&b"young"[..]));
    count(&mut one);
    count(&mut one);
    assert!(one.store.entry(slot).siblings().any(|own| own.dot.replica() == one.replicas.me()));
    assert_eq!(one.get(b"key"), Some(&b"young"[..]));
}

/// Goal: a snapshot fits the limits of the map that it was taken of, though many lives are retired; and who was behind
/// when it was taken is so again.
#[test]
fn a_snapshot_of_retired_lives_needs_no_numbers() {
    for behind in [false, true] {
        let mut one = map(1);
        for epoch in 1..40 {
            settle(&mut one, life(3 + epoch % 2, epoch), epoch);
            count(&mut one);
        }
        assert!(one.replicas.retired().count() >= 16 && one.replicas.merged().count() == 2);
        if behind {
            one.fall_behind(NOW);
        }
        let config =
            Config { max_replicas: one.replicas.retired().count() + 1, ..one.config.clone() };
        let mut again = Map::new(NOW, life(1, 1), "test", config, 1400, [1; 32]).unwrap();
        again.resume(NOW, one.snapshot()).unwrap();
        assert_eq!(again.digest(), one.digest());
        assert_eq!(again.replicas.seals(), one.replicas.seals());
        assert!(again.replicas.retired().eq(one.replicas.retired()));
        assert_eq!(again.retiring.is_behind(), behind);
    }
}

/// Goal: what is kept of lives that are never merged has a limit. Method: a node whose epochs are drawn by lot, mostly.
#[test]
fn no_more_lives_are_kept_than_there_may_be_replicas() {
    let mut one = map(1);
    one.replicas = Replicas::new(life(1, 1), 20, 64);
    for epoch in 0..60 {
        if one.replicas.intern(life(3, LAST + epoch)).is_some() {
            settle(&mut one, life(3, LAST + epoch), 1);
        }
        count(&mut one);
    }
    assert_eq!((one.replicas.retired().count(), one.replicas.in_use()), (20, 20));
}

/// Goal: numbers are used again, and what was known by them is not.
#[test]
fn a_number_goes_to_another_life_as_new() {
    let mut one = map(1);
    let peer = one.peers.slots().next().unwrap();
    let numbers: Vec<u16> = (1..4).map(|epoch| settle(&mut one, life(3, epoch), 7)).collect();
    for number in &numbers {
        one.peers.get_mut(peer).unwrap().known.runs_mut(*number).add(1, 7);
    }
    let digest = one.replicas.digest();
    count(&mut one);
    assert_eq!(one.stats.retired, 2, "the last one may come back");
    assert_eq!(one.replicas.in_use(), 3, "this one, the last, and the number of all retired");
    let seals = one.replicas.seals();
    assert_eq!(one.replicas.digest(), digest.wrapping_add(seals), "what it reflects is the same");
    let again: Vec<u16> = (5..6).map(|node| one.replicas.intern(life(node, 1)).unwrap()).collect();
    for number in again {
        assert!(numbers.contains(&number));
        assert!(!one.replicas.contains(Packed::new(number, 1)));
        assert_eq!(one.peers.get(peer).unwrap().known.runs(number), &Runs::default());
        assert_eq!((one.replicas.base(number), one.replicas.floor(number)), (0, 0));
    }
}

/// Goal: dots of retired lives are old news, whoever tells of them.
#[test]
fn a_retired_life_is_known_to_its_end_and_beyond() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 7);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    let number = one.replicas.intern(life(3, 1)).unwrap();
    assert!(one.replicas.is_nobody(number));
    let dot = Packed::new(number, 9);
    let before = one.replicas.digest();
    assert!(one.replicas.contains(dot) && one.replicas.is_settled(dot));
    assert!(!one.claim(dot, 0));
    assert_eq!(one.replicas.digest(), before);
    let reflects = |counter| one.reflects(crate::map::Dot::new(life(3, 1), counter));
    assert!(reflects(7) && !reflects(8) && !reflects(0));
    assert!(one.is_void(crate::map::Dot::new(life(3, 1), 8)));
}

/// Two maps that retired the same lives of node 3, one of them one by one.
fn apart(lives: u64) -> (Map, Map) {
    let (mut one, mut two) = (map(1), map(2));
    for epoch in 1..=lives {
        settle(&mut one, life(3, epoch), epoch);
        settle(&mut two, life(3, epoch), epoch);
        count(&mut one);
    }
    assert!(one.replicas.merged().next().is_some());
    (one, two)
}

/// Takes in the seals of retired lives that the other one keeps.
fn hear_seals(map: &mut Map, from: &Map) {
    let retired = from.replicas.retired();
    let seals = retired.map(|(id, seal)| (map.replicas.intern(id).unwrap(), seal.clone()));
    let seals = seals.collect();
    map.take_seals(NOW, seals);
}

/// Goal: who knows the same of lives that a peer has merged takes nothing from it.
#[test]
fn merged_lives_are_compared_by_their_sums() {
    let (one, mut two) = apart(20);
    let (node, merged) = one.replicas.merged().next().unwrap();
    assert!(
        matches!(two.replicas.compare_past(node, merged), Verdict::Sealed(seals) if seals.len() == 11)
    );
    hear_seals(&mut two, &one);
    two.hear_pasts(NOW, &[(node, merged)]);
    assert!(!two.retiring.is_behind());
    assert_eq!(two.replicas.compare_past(node, merged), Verdict::Known);
    count(&mut two);
    assert_eq!(two.replicas.seals(), one.replicas.seals());
    let me = |map: &Map| map.replicas.digest();
    assert_eq!(me(&one), me(&two), "neither has written anything");
    assert_eq!(one.replicas.compare_past(node, Merged::default()), Verdict::Known);
}

/// Goal: who does not know the same gives up its own view of those lives, but not its values, and asks for all.
#[test]
fn who_knows_other_lives_takes_the_word_of_others_and_all_of_the_map() {
    let (one, mut two) = apart(20);
    let strange = two.replicas.intern(life(3, 4)).unwrap();
    assert!(two.claim(Packed::new(strange, 5), 0), "a write that the other one never heard of");
    let slot = two.store.slot_or_insert(b"key");
    two.store.add_sibling(&two.replicas, slot, Packed::new(strange, 5), b"alone");
    let (node, merged) = one.replicas.merged().next().unwrap();
    assert_eq!(two.replicas.compare_past(node, merged), Verdict::Other);
    hear_seals(&mut two, &one);
    two.hear_pasts(NOW, &[(node, merged)]);
    assert!(two.retiring.is_behind());
    assert_eq!(two.get(b"key"), Some(&b"alone"[..]));
    let sibling = two.store.entry(slot).siblings().next().unwrap();
    assert_eq!(sibling.dot.replica(), two.replicas.me());
    assert_eq!(two.replicas.compare_past(node, merged), Verdict::Known);
    assert!(two.yields_to(0), "it gives nobody what it lacks");
    let end = NOW + two.config.keep_for.max(PIN);
    two.fire_retiring(end);
    assert!(!two.retiring.is_behind(), "whoever knew is gone");
}

/// What a hostile peer may say.
#[test]
fn merged_lives_that_nobody_vouches_for_are_not_taken() {
    let mut one = map(1);
    settle(&mut one, life(3, 9), 4);
    let before = (one.replicas.digest(), one.replicas.seals());
    let lie = |below| Merged { below, seals: 1, bases: 2 };
    let many: Vec<_> = (100..1_000).map(|node| (node, lie(5))).collect();
    hear(&mut one, &told(&many));
    hear(&mut one, &told(&[(1, lie(2)), (3, lie(10))]));
    hear(&mut one, &told(&[(3, lie(u64::MAX))]));
    for nodes in [[3, 3], [4, 3]] {
        let twice = told(&nodes.map(|node| (node, lie(10))));
        assert_eq!(wire::parse(wire::SEALS, &twice).err(), Some(PacketError::Malformed));
    }
    assert_eq!((one.replicas.digest(), one.replicas.seals()), before);
    // With later lives made up as well, and of this node itself: it goes on as another life.
    hear(&mut one, &told(&[(1, lie(2))]));
    assert_eq!(one.replica().epoch, 1, "a life that is not sealed vouches for nothing");
    let later = one.replicas.intern(life(1, LAST + 5)).unwrap();
    one.replicas.set_seal(later, Seal::default());
    one.insert(NOW, b"key", b"v").unwrap();
    hear(&mut one, &told(&[(1, lie(LAST))]));
    assert!(one.replica().epoch >= LAST && one.get(b"key") == Some(b"v"));
    let none = told(&[(3, lie(0))]);
    assert_eq!(wire::parse(wire::SEALS, &none).err(), Some(PacketError::Malformed));
    for len in 2..none.len() {
        let cut = wire::parse(wire::SEALS, &told(&[(3, lie(7))])[..len]).is_err();
        assert!(cut, "{len} bytes of one are none");
    }
}

/// What may happen to lives of two nodes.
#[derive(Debug, Clone)]
enum Act {
    Write(u64, u64),
    Seal(u64, u64, u64),
    Retire,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (3..5_u64, 1..16_u64).prop_map(|(node, epoch)| Act::Write(node, epoch)),
        1 => (3..5_u64, 1..16_u64, 0..4_u64).prop_map(|(node, epoch, end)| Act::Seal(node, epoch, end)),
        2 => Just(Act::Retire),
    ]
}

proptest! {
    /// Goal: to retire a life changes nothing that is told of it. Method: one map retires whatever it may, the other
    /// nothing; both hear the same.
    #[test]
    fn retired_lives_count_as_before(acts in proptest::collection::vec(act(), 0..120)) {
        let (mut one, mut two) = (map(1), map(1));
        for act in acts {
            match act {
                Act::Write(node, epoch) => {
                    let id = life(node, epoch);
                    // A life that was retired is over.
                    if one.replicas.fate(id).is_none() {
                        for map in [&mut one, &mut two] {
                            let number = map.replicas.intern(id).unwrap();
                            let next = map.replicas.base(number) + 1;
                            map.replicas.adopt(number, next, next);
                            map.replicas.raise_floor(number, next);
                        }
                    }
                }
                Act::Seal(node, epoch, end) => {
                    let id = life(node, epoch);
                    let seal = || Seal { end, void: Runs::default() };
                    if !matches!(one.replicas.fate(id), Some(crate::map::replica::Fate::Merged)) {
                        one.replicas.take_retired_seal(id, end, &seal().void);
                        if one.replicas.fate(id).is_none() {
                            let number = one.replicas.intern(id).unwrap();
                            one.take_seals(NOW, vec![(number, seal())]);
                        }
                        let number = two.replicas.intern(id).unwrap();
                        two.take_seals(NOW, vec![(number, seal())]);
                    }
                }
                Act::Retire => {
                    let numbers: Vec<u16> = one.replicas.numbers().skip(1).collect();
                    for number in numbers {
                        let spent = one.replicas.is_spent(number);
                        if spent && one.replicas.seal(number).is_some() {
                            prop_assert!(one.replicas.retire(number));
                            one.forget_number(number);
                        }
                    }
                }
            }
            // Their own writes are those that tell of effects of what became void.
            let own = |map: &Map| map.replicas.base(map.replicas.me());
            prop_assert_eq!(one.replicas.seals(), two.replicas.seals());
            if own(&one) == own(&two) {
                prop_assert_eq!(one.replicas.digest(), two.replicas.digest());
            }
        }
    }
}
