//! Who writes values of lives that are over again, and when.

use super::*;

/// Goal: of all who have a life one writes its values again, so that there are no two of them, and never the node whose
/// life it was.
#[test]
fn one_node_writes_the_values_of_a_life_again() {
    let nodes = [1, 2, 4];
    let mut maps = nodes.map(map);
    for map in &mut maps {
        let me = map.replica().node.0;
        for node in nodes.into_iter().filter(|node| *node != me) {
            map.peer_up(NOW, NodeId(node), 1, ([10, 0, 0, 1], 1).into());
        }
    }
    for node in 1..60 {
        let heirs = maps.iter().filter(|map| map.is_heir(life(node, 9)));
        let heirs: Vec<u64> = heirs.map(|map| map.replica().node.0).collect();
        assert!(heirs.len() == 1 && heirs[0] != node, "{node}: {heirs:?}");
    }
}

/// A map with a value whose name is void, and with a peer that ranks before it to write that anew. Returns the life that
/// the value is of, and its slot.
fn waiting() -> (Map, u16, u32) {
    let mut one = map(1);
    let node = (3..).find(|node| one.rank(life(*node, 1)) == 1).unwrap();
    let past = settle(&mut one, life(node, 1), 5);
    let slot = one.store.slot_or_insert(b"key");
    one.store.add_sibling(&one.replicas, slot, Packed::new(past, 6), b"v");
    assert!(one.claim(Packed::new(past, 6), slot));
    one.take_seals(NOW, vec![(past, Seal { end: 5, void: Runs::default() })]);
    assert!(one.store.entry(slot).waits(&one.replicas));
    (one, past, slot)
}

/// Goal: a value that waits for another to write it anew is left alone by the walk.
#[test]
fn what_waits_to_be_written_anew_is_not_written_again_before() {
    let (mut one, past, slot) = waiting();
    one.retiring.adopting = vec![past];
    one.retiring.census = Some(Census { next: 0, at: NOW, named: vec![false; 10] });
    one.fire_retiring(NOW);
    assert_eq!((one.retiring.is_counting(), one.stats.writes), (false, 0));
    one.fire_seals(NOW + one.config.pull_interval * 2);
    assert_eq!((one.store.entry(slot).waits(&one.replicas), one.stats.writes), (false, 1));
}

/// Goal: nobody forgets for the word of one who has something to write anew: it says so in its pulls, and withholds what
/// it has, until that is written.
#[test]
fn whoever_waits_says_so_and_does_not_tell_what_it_has() {
    let (mut one, ..) = waiting();
    let slot = peer(&one);
    let told = |one: &mut Map| {
        one.pulling = Some(one.pulling_from(NOW, slot, 1_000));
        one.peers.get_mut(slot).unwrap().owes_have = Some(0);
        let (mut have, mut pull) = ([0; 1_000], [0; 1_000]);
        let mut w = Writer::new(&mut have);
        one.write_have(slot, &mut w);
        let len = w.len();
        let mut w = Writer::new(&mut pull);
        one.write_pull(slot, &mut w).unwrap();
        let len_of_pull = w.len();
        let pull = &pull[..len_of_pull];
        let Ok(Frame::Pull(pull)) = wire::parse(wire::PULL, &pull[2..]) else { panic!() };
        (len, pull.waits)
    };
    assert_eq!(told(&mut one), (0, true));
    one.fire_seals(NOW + one.config.pull_interval * 2);
    let (len, waits) = told(&mut one);
    assert!(len > 0 && !waits);
}

/// Goal: a life is over once a later one of its node was retired, though no later one has a number.
#[test]
fn retired_lives_follow_those_before() {
    let mut one = map(1);
    settle(&mut one, life(3, 5), 1);
    assert!(one.lives_over(NOW).is_empty());
    let end = NOW + one.config.keep_for;
    count_at(&mut one, end);
    assert!(one.replicas.fate(life(3, 5)).is_some());
    let before = settle(&mut one, life(3, 4), 1);
    assert_eq!(one.lives_over(end), [before]);
    let after = settle(&mut one, life(3, 6), 1);
    assert!(one.replicas.is_followed(before) && !one.replicas.is_followed(after));
}
