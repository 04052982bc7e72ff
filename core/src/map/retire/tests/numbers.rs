//! What goes by the numbers of lives, when these are given up and given to others.

use super::*;
use crate::map::Dot;
use crate::map::Skim;
use crate::map::introduced::Introduced;
use crate::map::peer::{Cursor, Serve};
use crate::map::wire::ReplicaRef;
use smallvec::SmallVec;

/// Goal: what is said to be superseded of retired lives is neither kept nor told. Method: an entry that is told with a
/// mark of such a life beside one that others lack.
#[test]
fn marks_of_retired_lives_are_not_kept() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    let nobody = one.replicas.intern(life(3, 1)).unwrap();
    assert!(one.replicas.is_nobody(nobody));
    let open = one.replicas.intern(life(4, 1)).unwrap();
    let slot = one.store.slot_or_insert(b"key");
    let told = Told { siblings: &[], superseded: &[Packed::new(nobody, 5), Packed::new(open, 1)] };
    one.store.join(&one.replicas, slot, told, |_| false);
    let marks: Vec<_> = one.store.entry(slot).superseded().collect();
    assert_eq!(marks, [Packed::new(open, 1)]);
}

/// Goal: but those of void writes are, for somebody who was away may wait to write such a value anew: the life gets a
/// number again, and is what it was, until all have heard. Method: a mark of each kind, in one datagram.
#[test]
fn marks_of_void_writes_of_retired_lives_are_kept() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    let sums = |map: &Map| (map.replicas.digest(), map.replicas.seals());
    let (before, mut introduced) = (sums(&one), Introduced::default());
    let mut resolve = |one: &mut Map, reference, counter| {
        introduced.resolve_mark(&mut one.replicas, reference, counter).unwrap()
    };
    resolve(&mut one, ReplicaRef::New(life(3, 2)), 1);
    let counts = resolve(&mut one, ReplicaRef::New(life(3, 1)), 5);
    assert!(one.replicas.is_nobody(counts));
    let number = resolve(&mut one, ReplicaRef::Known(1), 6);
    assert!(!one.replicas.is_nobody(number) && one.replicas.id(number) == life(3, 1));
    assert_eq!(resolve(&mut one, ReplicaRef::Known(1), 7), number);
    assert_eq!(sums(&one), before);
    let dot = |counter| Packed::new(number, counter);
    let (known, void) = (one.replicas.contains(dot(5)), one.replicas.is_void(dot(6)));
    assert!(known && void && !one.replicas.is_void(dot(5)));
    let slot = one.store.slot_or_insert(b"key");
    one.store.join(&one.replicas, slot, Told { siblings: &[], superseded: &[dot(6)] }, |_| false);
    assert_eq!(one.store.entry(slot).superseded().collect::<Vec<_>>(), [dot(6)]);
    let retired = one.stats.retired;
    count(&mut one);
    assert_eq!(one.stats.retired, retired, "it is named");
    one.store.tidy(&one.replicas, slot);
    count(&mut one);
    assert_eq!((one.stats.retired, sums(&one)), (retired + 1, before));
    assert_eq!(one.replicas.number(life(3, 1)), Some(counts));
}

/// Goal: a life that is named again takes no number from those that a chunk brings. Method: a chunk for which there is
/// just room, with a mark of a void write of a retired life and a life that is new.
#[test]
fn a_chunk_that_names_a_retired_life_is_taken_whole() {
    let make = |max_replicas| {
        let config = Config { max_past_lives: 0, collect_interval: PAUSE, ..Config::lan() };
        let config = Config { max_replicas, ..config };
        let mut map = Map::new(NOW, life(1, 1), "test", config, 1400, [1; 32]).unwrap();
        map.peer_up(NOW, NodeId(2), 1, ([10, 0, 0, 1], 1).into());
        settle(&mut map, life(3, 1), 5);
        settle(&mut map, life(3, 2), 1);
        count(&mut map);
        assert!(map.replicas.fate(life(3, 1)).is_some());
        map.replicas.intern(life(6, 1)).unwrap();
        map
    };
    let in_use = make(100).replicas.in_use();
    for (max_replicas, revived) in [(in_use + 1, false), (in_use + 2, true)] {
        let mut one = make(max_replicas);
        let id = |node: u64, epoch: u64| [node.to_le_bytes(), epoch.to_le_bytes()].concat();
        let me = one.replicas.own();
        let addressee = one.under_seals(wire::addressee(me.node, 1, me.epoch));
        let head = [&addressee.to_le_bytes()[..], &[0, 0]].concat();
        // The first write of 6@1, "a" = "v", over the sixth of 3@1; and that of 7@1, "b" = "w".
        let first = [&[0][..], &id(6, 1), &[1, 1, 3, 1, b'a', 1, 1, 1, 1, b'v', 1, 0], &id(3, 1)];
        let second = [&[6, 0][..], &id(7, 1), &[1, 1, 3, 1, b'b', 1, 3, 1, 1, b'w', 0]];
        let body = [head, first.concat(), second.concat()].concat();
        let Ok(Frame::Chunk(chunk)) = wire::parse(wire::CHUNK, &body) else { panic!() };
        one.on_chunk(NOW, peer(&one), &chunk, &Skim::of(chunk.items));
        let got = (one.get(b"a").is_some(), one.get(b"b").is_some(), one.stats.dots_received);
        assert_eq!(got, (true, true, 2));
        assert_eq!(one.replicas.fate(life(3, 1)).is_none(), revived);
    }
}

/// Goal: how often a life is named again says nothing of how many are kept.
#[test]
fn lives_that_are_named_again_and_again_are_retired_each_time() {
    let config = Config { max_past_lives: 0, collect_interval: PAUSE, ..Config::lan() };
    let config = Config { max_replicas: 10, ..config };
    let mut one = Map::new(NOW, life(1, 1), "test", config, 1400, [1; 32]).unwrap();
    one.peer_up(NOW, NodeId(2), 1, ([10, 0, 0, 1], 1).into());
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    for round in 1..=20 {
        count(&mut one);
        assert_eq!(one.stats.retired, round);
        assert!(one.replicas.revive(life(3, 1), 6).is_some());
    }
}

/// Goal: no value of a retired life is brought back, for nothing here may name it.
#[test]
fn values_of_retired_lives_are_not_brought_back() {
    let mut one = map(1);
    let number = settle(&mut one, life(4, 1), 5);
    settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    let nobody = one.replicas.intern(life(3, 1)).unwrap();
    let slot = one.store.slot_or_insert(b"key");
    let siblings = [(Packed::new(nobody, 5), &b"gone"[..]), (Packed::new(number, 5), &b"lost"[..])];
    one.store.bring_back(&one.replicas, slot, Told { siblings: &siblings, superseded: &[] });
    let left: Vec<_> = one.store.entry(slot).siblings().map(|own| own.dot).collect();
    assert_eq!(left, [Packed::new(number, 5)]);
}

/// Goal: an answer under way is broken off when numbers are given up, for it goes by them. Method: lives that were
/// sealed long before, so that no seal breaks it off.
#[test]
fn answers_are_broken_off_when_lives_are_retired() {
    let mut one = map(1);
    settle_sealed(&mut one, life(3, 1), 5);
    let peer = peer(&one);
    let serve = Serve::new(1, Cursor::over(None, None), 1_000, SmallVec::new());
    one.peers.serve(peer, serve);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    assert_eq!(one.stats.retired, 1);
    assert!(one.peers.stop_serving(peer).is_none());
}

/// Goal: a round that began under another life of a number collects nothing of the new one. Method: one member confirms
/// the round before the number is given up, the other one after, when it has as much of the new life.
#[test]
fn a_round_wants_nothing_of_a_life_that_came_later() {
    let mut one = map(1);
    one.peer_up(NOW, NodeId(5), 1, ([10, 0, 0, 1], 1).into());
    let slots: Vec<u32> = one.peers.slots().collect();
    let numbers: Vec<u16> =
        (1..4).map(|epoch| settle_sealed(&mut one, life(3, epoch), 7)).collect();
    let old = one.replicas.intern(life(4, 1)).unwrap();
    one.replicas.adopt(old, 1, 1);
    one.expect_garbage(NOW);
    one.fire_garbage(NOW + one.config.collect_interval);
    hear_all(&mut one, slots[0]);
    count(&mut one);
    assert_eq!(one.stats.retired, 2);
    let new = one.replicas.intern(life(6, 1)).unwrap();
    assert!(numbers.contains(&new));
    one.replicas.adopt(new, 1, 7);
    assert_eq!(one.replicas.floor(old), 0);
    hear_all(&mut one, slots[1]);
    assert_eq!((one.replicas.floor(old), one.replicas.floor(new)), (1, 0));
}

/// Goal: how long a node has been away is not taken for how long another has. Method: the number of a life of a node that
/// is gone goes to one of a node that nobody has missed yet.
#[test]
fn a_node_is_not_gone_because_another_one_was() {
    let mut one = map(1);
    let numbers = [3, 4].map(|node| settle(&mut one, life(node, 1), 1));
    assert!(one.lives_over(NOW).is_empty());
    let end = NOW + one.config.keep_for;
    assert_eq!(one.lives_over(end), numbers);
    count_at(&mut one, end);
    assert_eq!(one.stats.retired, 2);
    let new = settle(&mut one, life(5, 1), 1);
    assert!(numbers.contains(&new));
    assert!(one.lives_over(end).is_empty());
}

/// Goal: a map does not take writes of others for its own, because a life of it had that number.
#[test]
fn the_number_of_a_life_of_its_own_goes_to_others() {
    let mut one = map(1);
    settle(&mut one, life(3, 1), 1);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    let own = one.insert(NOW, b"key", b"v").unwrap();
    let former = one.replicas.me();
    assert!(one.begin_life());
    one.insert(NOW, b"key", b"v").unwrap();
    assert!(one.is_own(own));
    one.replicas.raise_floor(former, 1);
    while one.replicas.unlog_one(former).is_some() {}
    let slot = one.store.slot(b"key").unwrap();
    one.replicas.raise_floor(one.replicas.me(), 1);
    one.store.tidy(&one.replicas, slot);
    count(&mut one);
    assert!(one.replicas.fate(life(1, 1)).is_some());
    assert_eq!(settle(&mut one, life(5, 1), 1), former);
    assert!(!one.is_own(Dot::new(life(5, 1), 1)));
}

/// Goal: a walk goes by numbers, so it ends when some are given up. Method: another's word frees one while a walk is
/// under way, and the life that gets it leaves a value where was looked already.
#[test]
fn a_walk_ends_when_another_s_word_is_taken() {
    let mut one = map(1);
    settle(&mut one, life(9, 1), 1);
    settle(&mut one, life(9, 2), 1);
    count(&mut one);
    fill(&mut one);
    let old = settle(&mut one, life(3, 4), 5);
    let later = one.replicas.intern(life(3, 100)).unwrap();
    one.take_seals(NOW, vec![(later, Seal::default())]);
    step(&mut one);
    one.hear_pasts(NOW, &[(NodeId(3), Merged { below: 50, seals: 1, bases: 2 })]);
    assert!(one.retiring.is_behind());
    assert_eq!(settle(&mut one, life(4, 1), 5), old);
    settle(&mut one, life(4, 2), 1);
    let slot = one.store.slot(&0_u64.to_le_bytes()).unwrap();
    one.store.add_sibling(&one.replicas, slot, Packed::new(old, 5), b"v");
    for at in 1..50 {
        one.fire_retiring(NOW + PAUSE * at);
    }
    assert!(one.replicas.fate(life(4, 1)).is_none());
}

/// Goal: slots are not numbered anew while a walk goes by their numbers. Method: most keys are removed and forgotten
/// meanwhile; one that has a value of a life that is over would come to where was looked already.
#[test]
fn slots_are_not_numbered_anew_during_a_walk() {
    let mut one = map(1);
    fill(&mut one);
    let past = settle(&mut one, life(3, 1), 5);
    settle(&mut one, life(3, 2), 1);
    let slot = one.store.slot_or_insert(b"key");
    one.store.add_sibling(&one.replicas, slot, Packed::new(past, 5), b"v");
    step(&mut one);
    for key in 0..u64::from(STEP) + 10 {
        one.remove(NOW, &key.to_le_bytes()).unwrap();
    }
    let slots = one.store.slots();
    let mut now = NOW + PAUSE;
    let mut sweep = |one: &mut Map| {
        for _ in 0..20 {
            one.fire_garbage(now);
            hear_all(one, peer(one));
            now += PAUSE;
        }
    };
    sweep(&mut one);
    assert_eq!((one.store.keys(), one.store.slots()), (1, slots));
    for at in 1..50 {
        one.fire_retiring(NOW + PAUSE * at);
    }
    assert!(one.retiring.census.is_none() && one.replicas.fate(life(3, 1)).is_none());
    // After that they are.
    one.expect_garbage(NOW);
    sweep(&mut one);
    one.insert(NOW, b"other", b"v").unwrap();
    sweep(&mut one);
    assert!(one.store.slots() < slots);
}

/// Two maps with the same seals. The first gives the other a full sync of many keys.
fn giver_and_taker() -> (Map, Map) {
    let (mut one, mut two) = (map(1), map(2));
    for map in [&mut one, &mut two] {
        settle_sealed(map, life(3, 1), 5);
        settle_sealed(map, life(3, 2), 5);
    }
    for key in 0..100_u64 {
        one.insert(NOW, &[&[b'k'; 20][..], &key.to_le_bytes()].concat(), b"v").unwrap();
    }
    one.replicas.raise_floor(one.replicas.me(), 100);
    one.lose_member(None, peer(&one));
    sent(&mut one);
    fill(&mut two);
    sent(&mut two);
    two.start_pull(NOW, peer(&two));
    carry(sent(&mut two), &mut one);
    assert!(one.is_pinned());
    (one, two)
}

/// Goal: nothing is retired while a full sync comes, for what is put aside goes by numbers; and a walk that is under way
/// when it is taken ends, for it may bring anything where was looked already.
#[test]
fn whoever_takes_a_full_sync_retires_nothing_meanwhile() {
    let (mut one, mut two) = giver_and_taker();
    let mut stages = sent(&mut one);
    let rest = stages.split_off(1);
    carry(stages, &mut two);
    assert!(two.staging.is_some() && !rest.is_empty());
    count(&mut two);
    assert_eq!(two.stats.retired, 0);
    step(&mut two);
    carry(rest, &mut two);
    assert_eq!((two.stats.full_syncs, two.store.keys()), (1, 100 + STEP as usize + 10));
    assert!(two.retiring.census.is_none());
    let slot = peer(&two);
    hear_all(&mut two, slot);
    count(&mut two);
    assert_eq!(two.stats.retired, 1);
}

/// Goal: no full sync is broken off by the seals of lives that are retired. Method: some that have none yet are over
/// while one is given.
#[test]
fn whoever_gives_a_full_sync_retires_nothing_meanwhile() {
    let (mut one, _) = giver_and_taker();
    settle(&mut one, life(4, 1), 1);
    settle(&mut one, life(4, 2), 1);
    let slot = peer(&one);
    hear_all(&mut one, slot);
    count(&mut one);
    assert_eq!((one.stats.retired, one.is_pinned()), (0, true));
    one.fire_sessions(NOW + PIN);
    count(&mut one);
    count(&mut one);
    assert_eq!((one.stats.retired, one.is_pinned()), (2, false));
}
