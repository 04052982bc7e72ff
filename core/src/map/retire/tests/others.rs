//! What others are told of lives that are over, and what they tell.

use super::*;
use crate::event::Event;
use crate::map::Dot;
use crate::map::ask::Listing;
use crate::map::log::LogKind;

/// A life of which only its first dots are known, with a seal that makes none void that was known.
fn begin_sealed(map: &mut Map, id: ReplicaId, known: u64, end: u64) -> u16 {
    let number = map.replicas.intern(id).unwrap();
    map.replicas.adopt(number, 1, known);
    map.take_seals(NOW, vec![(number, Seal { end, void: Runs::default() })]);
    number
}

/// Goal: who has nothing of a life but its seal is told of it, though a life that is known to its end is not listed and
/// adds nothing to the sums. Method: the sums with so many of its writes, and after it was retired.
#[test]
fn sums_tell_how_much_of_a_sealed_life_is_known() {
    let sums = |known| {
        let mut one = map(1);
        begin_sealed(&mut one, life(3, 1), known, 3);
        one.replicas.sums()
    };
    let mut retired = map(1);
    settle_sealed(&mut retired, life(3, 1), 3);
    retired.replicas.intern(life(3, 2)).unwrap();
    count(&mut retired);
    assert_eq!(retired.stats.retired, 1);
    assert_eq!(sums(3), retired.replicas.sums());
    for known in 0..3 {
        assert!((known + 1..=3).all(|more| sums(known) != sums(more)), "{known}");
    }
}

proptest! {
    /// Goal: under equal seals sums are equal if and only if the same is known. Method: two maps with any dots of some
    /// lives, and the same seals of these.
    #[test]
    fn sums_are_equal_if_the_same_is_known(
        dots in proptest::collection::vec((3..6_u64, 1..8_u64, 1..4_u8), 0..24),
        ends in proptest::collection::vec(proptest::option::of(0..8_u64), 3),
    ) {
        let known = [1, 2].map(|side| {
            let mut one = map(1);
            for (node, counter, sides) in &dots {
                let number = one.replicas.intern(life(*node, 1)).unwrap();
                if sides & side != 0 {
                    one.replicas.adopt(number, *counter, *counter);
                }
            }
            for (node, end) in (3..).zip(&ends) {
                let number = one.replicas.intern(life(node, 1)).unwrap();
                if let Some(end) = *end {
                    let seal = Seal { end, void: Runs::default() };
                    one.replicas.take_seal(number, seal.end, &seal.void);
                }
            }
            let lives = (3..6_u64).map(|node| one.replicas.number(life(node, 1)).unwrap());
            let all = lives.map(|life| (1..8).map(move |counter| Packed::new(life, counter)));
            let all = all.flatten().filter(|dot| one.replicas.contains(*dot));
            let all: Vec<Dot> = all.map(|dot| one.replicas.dot(dot)).collect();
            (all, one.replicas.sums())
        });
        prop_assert_eq!(known[0].0 == known[1].0, known[0].1 == known[1].1);
    }
}

/// Goal: a bucket that was equal says what both knew then, not what its lives are sealed with. Method: more of a sealed
/// life comes to the asked one between the sums and the pull of what differs, which is of another bucket.
#[test]
fn what_came_after_the_comparison_is_told() {
    let (mut one, mut two) = (map(1), map(2));
    let lives = [&mut one, &mut two].map(|map| {
        map.config.max_listed = 0;
        begin_sealed(map, life(3, 1), 1, 3)
    });
    let other = one.replicas.intern(life(4, 1)).unwrap();
    assert_ne!(one.replicas.bucket(lives[0]), one.replicas.bucket(other));
    let slot = one.store.slot_or_insert(b"other");
    one.store.add_sibling(&one.replicas, slot, Packed::new(other, 1), b"v");
    assert!(one.claim(Packed::new(other, 1), slot));
    [&mut one, &mut two].into_iter().for_each(|map| drop(sent(map)));
    two.start_pull(NOW, peer(&two));
    carry(sent(&mut two), &mut one);
    carry(sent(&mut one), &mut two);
    let pull = sent(&mut two);
    let slot = one.store.slot_or_insert(b"late");
    one.store.add_sibling(&one.replicas, slot, Packed::new(lives[0], 3), b"v");
    assert!((2..4).all(|counter| one.claim(Packed::new(lives[0], counter), slot)));
    carry(pull, &mut one);
    carry(sent(&mut one), &mut two);
    assert_eq!((two.get(b"other"), two.get(b"late")), (Some(&b"v"[..]), Some(&b"v"[..])));
}

/// Goal: the bases that a peer tells are of what it has, and of a sealed life that is not whole here no more goes without
/// saying.
#[test]
fn bases_that_are_told_say_no_more_of_sealed_lives() {
    let (mut one, mut two) = (map(1), map(2));
    let numbers = [&mut one, &mut two].map(|map| {
        begin_sealed(map, life(4, 1), 2, 2);
        begin_sealed(map, life(3, 1), 1, 3)
    });
    let to = peer(&two);
    two.peers.get_mut(to).unwrap().owes_have = Some(0);
    let mut bytes = [0; 1_000];
    let mut w = Writer::new(&mut bytes);
    two.write_have(to, &mut w);
    let len = w.len();
    let Ok(Frame::Have(have)) = wire::parse(wire::HAVE, &bytes[2..len]) else { panic!() };
    let from = peer(&one);
    one.on_have(NOW, from, have);
    let known = &one.peers.get(from).unwrap().known;
    assert_eq!(known.runs(numbers[0]).base, 1);
    assert_eq!(known.runs(one.replicas.number(life(4, 1)).unwrap()).base, 2, "this one is whole");
}

/// Goal: lives are merged up to the last epoch that others take, and those of then are kept one by one.
#[test]
fn no_lives_are_merged_of_which_others_would_not_hear() {
    let mut one = map(1);
    for epoch in LAST - 3..LAST + 30 {
        settle(&mut one, life(3, epoch), 1);
        count(&mut one);
    }
    let (node, merged) = one.replicas.merged().next().unwrap();
    assert_eq!((merged.below, one.replicas.retired().count()), (LAST, 29));
    let mut two = map(2);
    hear_seals(&mut two, &one);
    hear(&mut two, &told(&[(node.0, merged)]));
    assert_eq!(two.replicas.seals(), one.replicas.seals());
}

/// Goal: a node whose word is doubted can always begin a life after those that are merged. Method: a peer tells of lives
/// up to the last epoch that may be merged, and one more, with a later one to vouch for them.
#[test]
fn some_epochs_are_never_merged() {
    for (below, taken) in [(LAST + 1, false), (LAST, true)] {
        let mut one = map(1);
        begin_sealed(&mut one, life(3, u64::MAX), 0, 0);
        hear(&mut one, &told(&[(3, Merged { below, seals: 1, bases: 2 })]));
        assert_eq!(one.replicas.merged().count(), usize::from(taken));
    }
}

/// Goal: whoever has taken the word of others is nobody's equal, and asks for all at once, until it has all.
#[test]
fn who_is_behind_says_so_and_asks_for_all() {
    let (one, mut two) = apart(20);
    two.config.max_listed = 0;
    let strange = two.replicas.intern(life(3, 4)).unwrap();
    let slot = two.store.slot_or_insert(b"key");
    assert!(two.claim(Packed::new(strange, 5), slot));
    let pasts: Vec<_> = one.replicas.merged().collect();
    hear_seals(&mut two, &one);
    assert_eq!((two.context_digest(), two.listing()), (two.replicas.digest(), Listing::Sums));
    two.hear_pasts(NOW, &pasts);
    assert!(two.retiring.is_behind());
    assert_ne!(two.context_digest(), two.replicas.digest());
    assert_eq!(two.listing(), Listing::All);
    two.retiring.caught_up();
    assert_eq!((two.context_digest(), two.listing()), (two.replicas.digest(), Listing::Sums));
}

/// Goal: who had nothing new is asked again by one that is behind, though it still tells the same. Method: a peer was
/// asked in vain before its word was taken.
#[test]
fn who_is_behind_asks_those_who_had_nothing_new() {
    let (one, mut two) = apart(20);
    let slot = two.store.slot_or_insert(b"key");
    let strange = two.replicas.intern(life(3, 4)).unwrap();
    assert!(two.claim(Packed::new(strange, 5), slot));
    let from = peer(&two);
    let asked = two.peers.get_mut(from).unwrap();
    (asked.state, asked.exhausted) = (7, Some(7));
    hear_seals(&mut two, &one);
    assert!(!two.may_have(from), "it had nothing");
    let pasts: Vec<_> = one.replicas.merged().collect();
    two.hear_pasts(NOW, &pasts);
    assert!(two.retiring.is_behind() && two.may_have(from));
}

/// Goal: who is behind asks nobody for shares, for no log tells of what it lacks.
#[test]
fn who_is_behind_asks_for_no_shares() {
    let mut one = map(1);
    one.peer_up(NOW, NodeId(5), 1, ([10, 0, 0, 1], 1).into());
    one.insert(NOW, b"key", b"v").unwrap();
    for behind in [true, false] {
        one.retiring.behind = behind.then_some(NOW + PIN);
        let mut before = one.pulling_from(NOW, peer(&one), 1 << 16);
        before.news = 1;
        assert_eq!(one.begin_shares(NOW, &before), !behind);
    }
}

/// Goal: what others never heard of goes on under another name, and the application is told which. Method: a removal by a
/// life whose word is not taken.
#[test]
fn a_removal_of_a_life_that_others_have_merged_is_told_anew() {
    let (one, mut two) = apart(20);
    let strange = two.replicas.intern(life(3, 4)).unwrap();
    let slot = two.store.slot_or_insert(b"key");
    assert!(two.claim(Packed::new(strange, 5), slot), "a write that nobody else ever heard of");
    let pasts: Vec<_> = one.replicas.merged().collect();
    hear_seals(&mut two, &one);
    two.hear_pasts(NOW, &pasts);
    let mut told = Vec::new();
    while let Some(event) = two.poll_event() {
        if let Event::WrittenAnew { old, new, .. } = event {
            told.push((old, new));
        }
    }
    assert_eq!(told, [(Dot::new(life(3, 4), 5), Dot::new(life(2, 1), 1))]);
}

/// Goal: what becomes void of a retired life may have had effects here, so others are made to take all that is here, and
/// so is the disk. Method: another seal of such a life, once and again.
#[test]
fn what_becomes_void_of_a_retired_life_is_told_to_no_key() {
    let mut one = map(1);
    one.start_log();
    settle(&mut one, life(3, 1), 7);
    settle(&mut one, life(3, 2), 1);
    count(&mut one);
    while let Some(write) = one.poll_log() {
        one.log_synced(NOW, write.ticket);
    }
    let mut bytes = vec![0; 100];
    let mut w = Writer::new(&mut bytes);
    w.u8(FLAG_LAST).unwrap();
    seal_wire::write_unit(&mut w, life(3, 1), 5, &[]).unwrap();
    let len = w.len();
    bytes.truncate(len);
    hear(&mut one, &bytes);
    assert!(one.is_void(Dot::new(life(3, 1), 6)));
    let own = |one: &Map| (one.replicas.made(), one.replicas.floor(one.replicas.me()));
    assert_eq!(own(&one), (1, 1), "of a write that no log tells of");
    assert_eq!(one.poll_log().map(|write| write.kind), Some(LogKind::Begin));
    hear(&mut one, &bytes);
    assert_eq!(own(&one), (1, 1));
}

/// Goal: what a newcomer may lack is not only what is below a floor.
#[test]
fn newcomers_are_no_members_where_lives_were_retired() {
    for retires in [false, true] {
        let mut one = map(1);
        if retires {
            settle(&mut one, life(3, 1), 1);
        }
        let next = one.replicas.intern(life(3, 2)).unwrap();
        one.replicas.adopt(next, 1, 1);
        count(&mut one);
        assert!(one.replicas.numbers().all(|number| one.replicas.floor(number) == 0));
        one.peer_up(NOW, NodeId(5), 1, ([10, 0, 0, 1], 1).into());
        let slot = one.peers.slot(NodeId(5)).unwrap();
        assert_eq!(one.peers.get(slot).unwrap().member, !retires);
    }
}

/// Goal: who lists a life that was retired here lacks some of it: it is no member until it has taken all.
#[test]
fn whoever_lacks_some_of_a_retired_life_takes_all() {
    let (mut one, mut two) = (map(1), map(2));
    settle_sealed(&mut one, life(3, 1), 7);
    one.replicas.intern(life(3, 2)).unwrap();
    count(&mut one);
    let number = begin_sealed(&mut two, life(3, 1), 5, 7);
    let slot = peer(&one);
    one.heard_equal(NOW, slot);
    assert!(one.peers.get(slot).unwrap().member);
    [&mut one, &mut two].into_iter().for_each(|map| drop(sent(map)));
    two.start_pull(NOW, peer(&two));
    carry(sent(&mut two), &mut one);
    assert!(!one.peers.get(slot).unwrap().member);
    carry(sent(&mut one), &mut two);
    assert_eq!((two.stats.full_syncs, two.replicas.base(number)), (1, 7));
}

/// Goal: what a giver knows ahead of gaps of lives that were retired here takes no room. Method: a full sync with more of
/// that than a map keeps ahead of gaps.
#[test]
fn what_is_told_of_retired_lives_takes_no_room() {
    let (mut one, mut two) = (map(1), map(2));
    for (epoch, ahead) in [(1, (3, 5)), (2, (7, 9))] {
        settle_sealed(&mut two, life(3, epoch), 10);
        let number = one.replicas.intern(life(3, epoch)).unwrap();
        one.replicas.adopt(number, ahead.0, ahead.1);
        one.take_seals(NOW, vec![(number, Seal { end: 10, void: Runs::default() })]);
    }
    two.config.max_gap_dots = 4;
    two.replicas.intern(life(3, 3)).unwrap();
    count(&mut two);
    assert_eq!((two.stats.retired, two.replicas.seals()), (2, one.replicas.seals()));
    one.insert(NOW, b"key", b"v").unwrap();
    one.replicas.raise_floor(one.replicas.me(), 1);
    one.lose_member(None, peer(&one));
    [&mut one, &mut two].into_iter().for_each(|map| drop(sent(map)));
    two.start_pull(NOW, peer(&two));
    carry(sent(&mut two), &mut one);
    carry(sent(&mut one), &mut two);
    assert_eq!((two.stats.full_syncs, two.get(b"key")), (1, Some(&b"v"[..])));
}

/// Goal: where another's word is taken nothing is left of the lives before, in the entries and on disk. Method: a key of
/// which no more is known than that a write of such a life was superseded.
#[test]
fn nothing_is_left_of_lives_for_which_another_s_word_is_taken() {
    let mut one = map(1);
    one.start_log();
    let past = settle(&mut one, life(3, 4), 5);
    begin_sealed(&mut one, life(3, 100), 0, 0);
    let slot = one.store.slot_or_insert(b"key");
    let told = Told { siblings: &[], superseded: &[Packed::new(past, 3)] };
    one.store.join(&one.replicas, slot, told, |_| false);
    assert_eq!(one.poll_log().map(|write| write.kind), Some(LogKind::Begin));
    assert_eq!((one.store.keys(), one.poll_log()), (1, None));
    one.hear_pasts(NOW, &[(NodeId(3), Merged { below: 50, seals: 1, bases: 2 })]);
    assert!(one.retiring.is_behind() && one.replicas.fate(life(3, 4)).is_some());
    assert_eq!(one.store.keys(), 0);
    assert_eq!(one.poll_log().map(|write| write.kind), Some(LogKind::Begin));
}

/// Goal: no word is taken for which there is no number. Method: as many lives as a map has room for, and a peer that
/// tells of some before one of these.
#[test]
fn without_room_no_word_is_taken() {
    for most in [16, 17] {
        let config = Config { max_replicas: most, ..Config::lan() };
        let mut one = Map::new(NOW, life(1, 1), "test", config, 1400, [1; 32]).unwrap();
        one.peer_up(NOW, NodeId(2), 1, ([10, 0, 0, 1], 1).into());
        (100..115).for_each(|node| {
            begin_sealed(&mut one, life(node, 9), 0, 0);
        });
        assert_eq!(one.replicas.in_use(), 16);
        hear(&mut one, &told(&[(100, Merged { below: 5, seals: 1, bases: 2 })]));
        assert_eq!(one.replicas.merged().count(), most - 16);
    }
}
