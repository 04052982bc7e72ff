#![allow(clippy::unwrap_used)]
use super::*;
use crate::NodeId;
use crate::map::Config;
use crate::map::log::LogKind;
use crate::map::store::Told;
use alloc::vec;

fn map(id: u64) -> Map {
    Map::new(
        Instant::ZERO,
        ReplicaId::new(NodeId(id), 1),
        "test",
        Config::lan(),
        1400,
        [id as u8; 32],
    )
    .unwrap()
}

/// A life, the end of its seal, and its void runs.
type Unit = (ReplicaId, u64, Vec<(u64, u64)>);

fn body(units: &[Unit]) -> Vec<u8> {
    let mut bytes = vec![0; 60_000];
    let mut w = Writer::new(&mut bytes);
    w.u8(FLAG_LAST).unwrap();
    for (id, end, runs) in units {
        seal_wire::write_unit(&mut w, *id, *end, runs).unwrap();
    }
    let len = w.len();
    bytes.truncate(len);
    bytes
}

fn hear(map: &mut Map, bytes: &[u8]) {
    let Ok(wire::Frame::Seals(told)) = wire::parse(wire::SEALS, bytes) else { panic!() };
    let slot = map.peers.slots().next().unwrap();
    map.on_seals(Instant::ZERO, slot, told);
}

fn peer(map: &mut Map, id: u64) {
    map.peer_up(Instant::ZERO, NodeId(id), 1, ([10, 0, 0, 1], 1).into());
}

fn tell(from: &mut Map, to: &mut Map) {
    let slot = from.peers.slots().next().unwrap();
    from.peers.get_mut(slot).unwrap().owes_seals = Some(0);
    while from.peers.get(slot).unwrap().owes_seals.is_some() {
        let mut buf = vec![0; 1400];
        let mut w = Writer::new(&mut buf);
        from.write_seals(slot, &mut w);
        let len = w.len();
        let mut r = crate::wire::Reader::new(&buf[..len]);
        let (_, body) = (r.u8().unwrap(), r.bytes(1400).unwrap());
        let body = body.to_vec();
        hear(to, &body);
    }
}

/// Lets some rounds of collecting pass, in which the peer shows that it has all.
fn collect(one: &mut Map, mut now: Instant) -> Instant {
    for _ in 0..20 {
        now += one.config.collect_interval;
        let slot = one.peers.slots().next().unwrap();
        for number in one.replicas.numbers() {
            let base = one.replicas.base(number);
            one.peers.get_mut(slot).unwrap().known.runs_mut(number).add(1, base);
        }
        one.fire_garbage(now);
        one.heard_context(now, slot, false);
    }
    now
}

/// One datagram of a hostile peer: dots ahead of gaps are bounded by max_gap_dots for chunks.
#[test]
fn void_names_take_no_more_room_than_gap_dots() {
    let mut one = map(1);
    peer(&mut one, 2);
    let units: Vec<_> = (0..50)
        .map(|n| (ReplicaId::new(NodeId(1_000 + n), 1), 200_000, vec![(2, 65_537)]))
        .collect();
    let bytes = body(&units);
    hear(&mut one, &bytes);
    assert!(bytes.len() < 1_400);
    assert!(one.replicas.logged() <= 65_536 * 2);
}

/// Goal: a few bytes take no megabytes. Method: a datagram seals forty lives, each with one write that is logged and a
/// million void names after it. What the logs led to is forgotten all the same.
#[test]
fn many_void_names_in_a_row_take_no_room() {
    let mut one = map(1);
    peer(&mut one, 2);
    let most = MAX_MERGED;
    let mut units: Vec<Unit> = Vec::new();
    for node in 100..140_u64 {
        let id = ReplicaId::new(NodeId(node), 1);
        let life = one.replicas.intern(id).unwrap();
        let slot = one.store.slot_or_insert(&node.to_le_bytes());
        one.store.add_sibling(&one.replicas, slot, Packed::new(life, 1), b"v");
        assert!(one.claim(Packed::new(life, 1), slot));
        one.insert(Instant::ZERO, &node.to_le_bytes(), b"over it").unwrap();
        units.push((id, most + 2, vec![(2, most + 1)]));
    }
    assert_eq!(one.replicas.logged(), 80);
    let bytes = body(&units);
    hear(&mut one, &bytes);
    assert!(bytes.len() < 1_400 && one.replicas.logged() <= 80, "{}", one.replicas.logged());
    let life = one.replicas.number(units[0].0).unwrap();
    assert_eq!(one.replicas.base(life), most + 1);
    collect(&mut one, Instant::ZERO);
    assert_eq!(one.metadata(), (0, 0));
}

/// Goal: marks that only a second seal settles are dropped after it, though no log leads to them. Method: an entry with a
/// mark of a write that the first seal counts and nobody has, and that the second is without.
#[test]
fn marks_that_another_seal_settles_are_dropped() {
    let mut one = map(1);
    peer(&mut one, 2);
    let id = ReplicaId::new(NodeId(3), 1);
    hear(&mut one, &body(&[(id, 5, vec![])]));
    let life = one.replicas.number(id).unwrap();
    one.insert(Instant::ZERO, b"key", b"v").unwrap();
    let slot = one.store.slot(b"key").unwrap();
    let told = Told { siblings: &[], superseded: &[Packed::new(life, 5)] };
    one.store.join(&one.replicas, slot, told, |_| false);
    let now = collect(&mut one, Instant::ZERO);
    assert_eq!(one.metadata(), (2, 0), "the mark of its own write goes with the other one");
    assert!(one.has_gaps(), "what the seal counts is waited for");
    hear(&mut one, &body(&[(id, 0, vec![])]));
    assert!(!one.has_gaps(), "it counts nothing, so nobody looks for it for ever");
    collect(&mut one, now);
    assert_eq!(one.metadata(), (0, 0));
}

/// Two seals of a life, each of which anybody takes, merge to one whose run nobody takes.
#[test]
fn merged_seals_are_taken_by_all() {
    let (mut one, mut two) = (map(1), map(2));
    peer(&mut one, 2);
    peer(&mut two, 1);
    let life = ReplicaId::new(NodeId(3), 1);
    hear(&mut one, &body(&[(life, 100_001, vec![(1, 50_000)])]));
    hear(&mut one, &body(&[(life, 100_001, vec![(50_001, 100_000)])]));
    for _ in 0..10 {
        tell(&mut one, &mut two);
        tell(&mut two, &mut one);
    }
    assert_eq!(one.replicas.seals(), two.replicas.seals());
}

/// What was not durable when a life was given up may not leave either.
#[test]
fn what_was_not_durable_when_a_life_ended_does_not_leave() {
    let now = Instant::ZERO;
    let mut one = map(1);
    one.start_log();
    peer(&mut one, 2);
    let mut file: Vec<Vec<u8>> = Vec::new();
    let sync = |one: &mut Map, file: &mut Vec<Vec<u8>>| {
        while let Some(write) = one.poll_log() {
            if write.kind != LogKind::Append {
                file.clear();
            }
            file.extend(write.chunks);
            one.log_synced(now, write.ticket);
        }
    };
    one.insert(now, b"a", b"v").unwrap();
    sync(&mut one, &mut file);
    let dot = one.insert(now, b"b", b"not durable").unwrap();
    assert!(one.awaits_disk());
    let me = one.replica();
    // A peer that lies: all names of it count.
    hear(&mut one, &body(&[(me, MAX_COUNTER, vec![])]));
    let mut again = map(1);
    again.resume(now, &file).unwrap();
    let other = again.insert(now, b"c", b"another").unwrap();
    assert!(
        one.awaits_disk() || !one.reflects(dot),
        "it may leave: {dot:?}, and name another write after a crash: {other:?}"
    );
}

/// A hostile peer names the last life that a node can have.
#[test]
fn a_node_can_always_begin_another_life() {
    let mut one = map(1);
    peer(&mut one, 2);
    one.insert(Instant::ZERO, b"a", b"v").unwrap();
    hear(&mut one, &body(&[(ReplicaId::new(NodeId(1), u64::MAX), 0, vec![])]));
    let me = one.replica();
    hear(&mut one, &body(&[(me, 0, vec![])]));
    assert_ne!(one.replica(), me);
}

fn logged(map: &mut Map, file: &mut Vec<Vec<u8>>) {
    while let Some(write) = map.poll_log() {
        if write.kind != LogKind::Append {
            file.clear();
        }
        file.extend(write.chunks);
        map.log_synced(Instant::ZERO, write.ticket);
    }
}

/// What is durable can be resumed, whatever seals came.
#[test]
fn what_was_logged_with_a_seal_can_be_resumed() {
    for (gap, units) in [
        // One datagram at the default limit.
        (65_536, vec![(2, 65_537), (65_539, 131_074)]),
        // A small limit, and a seal that is none too wide.
        (4, vec![(2, 10)]),
    ] {
        let config = Config { max_gap_dots: gap, ..Config::lan() };
        let new = || {
            Map::new(
                Instant::ZERO,
                ReplicaId::new(NodeId(1), 1),
                "test",
                config.clone(),
                1400,
                [1; 32],
            )
            .unwrap()
        };
        let mut one = new();
        one.start_log();
        peer(&mut one, 2);
        let mut file = Vec::new();
        let dot = one.insert(Instant::ZERO, b"a", b"durable").unwrap();
        logged(&mut one, &mut file);
        let life = ReplicaId::new(NodeId(3), 1);
        let units: Vec<_> = units.into_iter().map(|run| (life, 1 << 20, vec![run])).collect();
        hear(&mut one, &body(&units));
        logged(&mut one, &mut file);
        assert!(one.is_durable(dot));
        let resumed = new().resume(Instant::ZERO, &file);
        assert_eq!(resumed, Ok(()), "{gap}");
    }
}

/// Goal: what a frame of seals costs does not grow with all entries for each of them. Method: each of forty cuts off one
/// write more of what no log tells of, which takes a write to no key.
#[test]
fn seals_that_come_together_are_made_up_for_together() {
    let mut one = map(1);
    peer(&mut one, 2);
    let id = ReplicaId::new(NodeId(3), 1);
    let life = one.replicas.intern(id).unwrap();
    one.replicas.adopt(life, 1, 1_000);
    let units: Vec<Unit> = (0..40).map(|n| (id, 999 - n, vec![])).collect();
    hear(&mut one, &body(&units));
    assert_eq!((one.replicas.base(life), one.replicas.made()), (960, 1));
}
