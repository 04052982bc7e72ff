//! Lives that are over, with writes that some have and others do not: what counts, and what is written anew.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::frame_of;
use crate::common::maps::{NOW, addr, deliver, drain};
use brickwork_core::map::{Config, Dot, LogKind, Map, ReplicaId};
use brickwork_core::{Event, Instant, NodeId};

/// Datagrams, and to whom they are.
type Sent = Vec<(u64, Vec<u8>)>;

fn settings() -> Config {
    let mut config = Config::lan();
    config.keep_for = Duration::from_secs(1);
    config.collect_interval = Duration::from_millis(100);
    config.sync_interval = Duration::from_millis(100);
    config.pull_interval = Duration::from_millis(200);
    config
}

fn replica(id: u64, epoch: u64) -> Map {
    let me = ReplicaId::new(NodeId(id), epoch);
    Map::new(NOW, me, "test", settings(), 1400, [id as u8; 32]).unwrap()
}

/// Makes all of them peers of each other.
fn meet(maps: &mut [Map], now: Instant) {
    let lives: Vec<ReplicaId> = maps.iter().map(Map::replica).collect();
    for (map, me) in maps.iter_mut().zip(&lives) {
        let others = lives.iter().filter(|life| life.node != me.node);
        others.for_each(|life| map.peer_up(now, life.node, life.epoch, addr(life.node.0)));
    }
}

/// Lets time pass without loss. What is sent to others than these is lost.
fn run(maps: &mut [Map], now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now += Duration::from_millis(1);
        for at in 0..maps.len() {
            maps[at].handle_timeout(*now);
            let from = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                let to = maps.iter_mut().find(|map| map.replica().node.0 == to);
                to.into_iter().for_each(|map| deliver(map, *now, from, &bytes));
            }
        }
    }
}

/// The datagrams in which a map pushes each of some writes to each of two peers.
fn pushes(writer: &mut Map, keys: &[&[u8]], now: &mut Instant) -> Vec<(Dot, Sent)> {
    drain(writer);
    let push = |key: &&[u8]| {
        *now += Duration::from_millis(50);
        let dot = writer.insert(*now, key, b"v").unwrap();
        writer.handle_timeout(*now);
        (dot, drain(writer))
    };
    keys.iter().map(push).collect()
}

fn take(map: &mut Map, now: Instant, pushed: &Sent) {
    let me = map.replica().node.0;
    for (_, bytes) in pushed.iter().filter(|(to, _)| *to == me) {
        deliver(map, now, 3, bytes);
    }
}

/// A writer whose first write nobody got, whose second both of two got, and the next life of it.
fn after_a_loss(now: &mut Instant) -> (Vec<Map>, Dot, Dot, Sent) {
    let mut maps = vec![replica(1, 1), replica(2, 1), replica(3, 1)];
    meet(&mut maps, *now);
    run(&mut maps, now, Duration::from_secs(1));
    let writes = pushes(&mut maps[2], &[b"lost", b"kept"], now);
    for map in &mut maps[..2] {
        take(map, *now, &writes[1].1);
    }
    maps[2] = replica(3, 2);
    let (lost, kept) = (writes[0].0, writes[1].0);
    (maps, lost, kept, writes.into_iter().next().unwrap().1)
}

/// Goal: a write that died with its writer keeps nothing of those that came after it.
#[test]
fn what_came_after_a_write_that_nobody_has_is_forgotten() {
    let mut now = NOW;
    let (mut maps, lost, kept, late) = after_a_loss(&mut now);
    assert!(maps[0].reflects(kept) && !maps[0].reflects(lost) && !maps[0].is_void(lost));
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    for map in &mut maps {
        assert_eq!((map.metadata(), map.len()), ((0, 0), 1), "{map:?}");
        assert!(map.is_void(lost) && !map.reflects(lost) && map.reflects(kept));
        take(map, now, &late);
        assert_eq!(map.get(b"lost"), None, "it comes too late");
    }
}

/// Goal: a seal outlives what it counts, and keeps nothing for ever then. Method: one that comes later hears of the
/// seal alone before all others die, and goes on with another newcomer.
#[test]
fn what_a_seal_counts_and_nobody_has_any_more_is_void() {
    // CHUNK, STAGE and FRAGMENT.
    const DATA: [u8; 3] = [0xa3, 0xa5, 0xa8];
    let mut now = NOW;
    let (mut maps, lost, kept, _) = after_a_loss(&mut now);
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    maps.truncate(1);
    maps.push(replica(4, 1));
    meet(&mut maps, now);
    let end = now + Duration::from_secs(5);
    while now < end {
        now += Duration::from_millis(1);
        for (from, to) in [(1, 0), (0, 1)] {
            maps[from].handle_timeout(now);
            let id = maps[from].replica().node.0;
            for (_, bytes) in drain(&mut maps[from]) {
                if DATA.iter().all(|tag| frame_of(&bytes, *tag).is_none()) {
                    deliver(&mut maps[to], now, id, &bytes);
                }
            }
        }
    }
    assert!(maps[1].is_void(lost) && !maps[1].is_void(kept) && !maps[1].reflects(kept));
    let mut left = vec![maps.remove(1), replica(5, 1)];
    left[0].peer_down(now, NodeId(1));
    meet(&mut left, now);
    run(&mut left, &mut now, Duration::from_secs(20));
    for map in &left {
        assert!(map.is_void(kept), "{map:?}");
        assert_eq!(map.metadata(), (0, 0));
    }
}

/// Goal: nothing is lost of what one replica alone had. Method: two seal a life while a third, which has a write of
/// it that they have not, is away; then the third comes back.
#[test]
fn a_write_that_one_replica_alone_had_is_written_anew() {
    let mut now = NOW;
    let (mut maps, lost, _, late) = after_a_loss(&mut now);
    let mut away = maps.remove(1);
    take(&mut away, now, &late);
    assert!(away.reflects(lost));
    maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(2)));
    run(&mut maps, &mut now, Duration::from_secs(2));
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    assert!(maps[0].is_void(lost));
    while away.poll_event().is_some() {}
    maps.push(away);
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    let anew = |event: &Event| matches!(event, Event::WrittenAnew { old, .. } if *old == lost);
    let events: Vec<Event> = core::iter::from_fn(|| maps[2].poll_event()).collect();
    assert_eq!(events.iter().filter(|event| anew(event)).count(), 1);
    for map in &maps {
        assert_eq!(map.get(b"lost"), Some(&b"v"[..]));
        assert_eq!(map.siblings(b"lost").count(), 1);
        assert_eq!((map.digest(), map.metadata()), (maps[0].digest(), (0, 0)));
        assert!(map.is_void(lost) && map.stats().diverged == 0);
    }
}

/// Two replicas that have sealed the life of a third, which has a log, without the first of its three writes and the
/// last; and those writes.
fn taken_for_dead(now: &mut Instant, file: &mut Vec<Vec<u8>>) -> (Vec<Map>, [Dot; 3]) {
    let mut maps = vec![replica(1, 1), replica(2, 1), replica(3, 1)];
    maps[2].start_log();
    sync(&mut maps[2], file, *now);
    meet(&mut maps, *now);
    run(&mut maps, now, Duration::from_secs(1));
    let mut push = |key: &[u8], map: &mut Map| {
        *now += Duration::from_millis(50);
        let dot = map.insert(*now, key, b"v").unwrap();
        sync(map, file, *now);
        map.handle_timeout(*now);
        (dot, drain(map))
    };
    let [first, second, third] = [b"first", b"other", b"third"].map(|key| push(key, &mut maps[2]));
    for map in &mut maps[..2] {
        take(map, *now, &second.1);
    }
    for id in 1..3 {
        maps[2].peer_down(*now, NodeId(id));
    }
    let cut_off = maps.pop().unwrap();
    maps.iter_mut().for_each(|map| map.peer_down(*now, NodeId(3)));
    run(&mut maps, now, Duration::from_secs(20));
    assert!(maps[0].is_void(first.0) && maps[1].is_void(third.0), "its life is over for them");
    maps.push(cut_off);
    // Its boot epoch is what it was.
    let lives = [(1, 1), (2, 1), (3, 1)];
    for map in &mut maps {
        let me = map.replica().node.0;
        let others = lives.iter().filter(|(id, _)| *id != me);
        others.for_each(|(id, boot)| map.peer_up(*now, NodeId(*id), *boot, addr(*id)));
    }
    (maps, [first.0, second.0, third.0])
}

/// What is to be written to disk is.
fn sync(map: &mut Map, file: &mut Vec<Vec<u8>>, now: Instant) {
    while let Some(write) = map.poll_log() {
        if write.kind != LogKind::Append {
            file.clear();
        }
        file.extend(write.chunks);
        map.log_synced(now, write.ticket);
    }
}

/// Goal: a replica that was taken for dead loses nothing. Method: it is cut off with writes that nobody else has, for
/// longer than it is waited for, and comes back.
#[test]
fn a_replica_that_was_taken_for_dead_goes_on_as_another_life() {
    let (mut now, mut file) = (NOW, Vec::new());
    let (mut maps, _) = taken_for_dead(&mut now, &mut file);
    let before = maps[2].replica();
    for _ in 0..20_000 {
        run(&mut maps, &mut now, Duration::from_millis(1));
        sync(&mut maps[2], &mut file, now);
    }
    assert!(maps[2].replica() > before, "it goes on as {:?}", maps[2].replica());
    for map in &maps {
        for key in ["first", "other", "third"] {
            assert_eq!(map.siblings(key.as_bytes()).count(), 1, "{key}");
        }
        assert_eq!((map.digest(), map.metadata()), (maps[0].digest(), (0, 0)));
        assert_eq!(map.stats().diverged, 0);
    }
}

/// Goal: no crash takes back a name that others may have heard, and what was durable stays so when its writer goes on
/// as another life.
#[test]
fn a_life_that_was_given_up_is_on_disk_before_the_next_one_speaks() {
    let (mut now, mut file) = (NOW, Vec::new());
    let (mut maps, [first, second, _]) = taken_for_dead(&mut now, &mut file);
    let before = maps[2].replica();
    assert!(maps[2].is_durable(first) && maps[2].is_durable(second));
    while maps[2].replica() == before {
        run(&mut maps, &mut now, Duration::from_millis(1));
    }
    let map = &mut maps[2];
    assert!(map.awaits_disk() && drain(map).is_empty(), "what it wrote anew is on no disk");
    assert!(map.is_own(second) && !map.is_durable(second), "the log begins anew");
    assert!(!map.is_own(first) && !map.is_durable(first), "it names no write");
    let anew = map.siblings(b"first").next().unwrap().dot;
    assert!(anew.replica == map.replica() && map.is_own(anew) && !map.is_durable(anew));
    let older = file.clone();
    sync(map, &mut file, now);
    assert!(!map.awaits_disk() && map.is_durable(anew) && map.is_durable(second));
    assert!(!map.is_durable(Dot::new(anew.replica, 99)) && !map.is_own(Dot::new(before, 4)));
    for (file, life) in [(older, before), (file, map.replica())] {
        let mut again = replica(3, 9);
        again.resume(now, &file).unwrap();
        assert_eq!(again.replica(), life);
        assert_eq!(again.is_void(first), life != before);
        assert_eq!(again.get(b"first"), Some(&b"v"[..]));
    }
}

/// A node that ranks after node 1 for the life of node 3.
const AWAY: u64 = 8;

fn siblings(map: &Map) -> impl Iterator<Item = Dot> {
    map.siblings(b"key").map(|sibling| sibling.dot)
}

/// Goal: what a value supersedes is lost nowhere while it waits to be written anew, whatever becomes of who has it.
/// Method: one replica alone has a value over another, and a write of its own beside it; its life is sealed without
/// the value, and the replica comes back, in one case for good, in the other for less time than it waits.
#[test]
fn a_value_that_waits_to_be_written_anew_supersedes_nothing_elsewhere_before() {
    for stays in [false, true] {
        let mut now = NOW;
        let mut maps = vec![replica(1, 1), replica(AWAY, 1), replica(3, 1)];
        meet(&mut maps, now);
        let nothing = maps[1].context(b"key");
        let before = maps[0].insert(now, b"key", b"before").unwrap();
        run(&mut maps, &mut now, Duration::from_secs(1));
        let writes = pushes(&mut maps[2], &[b"key", b"kept"], &mut now);
        let over = writes[0].0;
        take(&mut maps[1], now, &writes[0].1);
        // All but that one both have, or the one that was away would be given the whole map.
        maps[..2].iter_mut().for_each(|map| take(map, now, &writes[1].1));
        let beside = maps[1].resolve(now, b"key", &nothing, Some(b"beside")).unwrap().unwrap();
        maps[2] = replica(3, 2);
        let mut away = maps.remove(1);
        assert!(
            siblings(&away).count() == 2 && siblings(&away).all(|dot| dot == over || dot == beside)
        );
        maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(AWAY)));
        run(&mut maps, &mut now, Duration::from_secs(2));
        meet(&mut maps, now);
        while !maps.iter().all(|map| map.is_void(over)) {
            run(&mut maps, &mut now, Duration::from_millis(1));
        }
        assert!(maps.iter().all(|map| map.is_void(over) && siblings(map).eq([before])));
        maps.push(away);
        meet(&mut maps, now);
        // It waits for another, twice the pull interval.
        while !maps[2].is_void(over) {
            run(&mut maps, &mut now, Duration::from_millis(1));
        }
        run(&mut maps, &mut now, Duration::from_millis(300));
        assert!(siblings(&maps[2]).any(|dot| dot == over));
        assert!(maps[..2].iter().all(|map| siblings(map).any(|dot| dot == before)));
        if !stays {
            away = maps.pop().unwrap();
            maps.iter_mut().for_each(|map| map.peer_down(now, away.replica().node));
        }
        run(&mut maps, &mut now, Duration::from_secs(20));
        for map in &maps {
            assert_eq!(siblings(map).any(|dot| dot == before), !stays);
            let values: Vec<&[u8]> = map.siblings(b"key").map(|sibling| sibling.value).collect();
            assert_eq!(values.contains(&&b"v"[..]), stays, "{values:?}");
            assert_eq!((map.digest(), map.stats().diverged), (maps[0].digest(), 0));
        }
    }
}

/// Three replicas, two of which have written, that have forgotten what they could.
fn settled(now: &mut Instant) -> Vec<Map> {
    let mut maps = vec![replica(1, 1), replica(2, 1), replica(3, 1)];
    meet(&mut maps, *now);
    maps[0].insert(*now, b"a", b"v").unwrap();
    maps[2].insert(*now, b"c", b"v").unwrap();
    run(&mut maps, now, Duration::from_secs(5));
    assert_eq!(maps[0].metadata(), (0, 0), "floors rose");
    maps
}

/// Goal: a replica that comes back declares nobody's life over before it knows what the others know. Method: the writer
/// of a gap is up again later than another.
#[test]
fn who_was_cut_off_seals_nothing_before_it_has_heard_all() {
    let mut now = NOW;
    let mut maps = settled(&mut now);
    // The connection of 1 breaks: of two writes it gets the second.
    let writes = pushes(&mut maps[2], &[b"x", b"y"], &mut now);
    take(&mut maps[0], now, &writes[1].1);
    let mut cut = vec![maps.remove(0)];
    cut[0].peer_down(now, NodeId(2));
    cut[0].peer_down(now, NodeId(3));
    maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(1)));
    // Meanwhile the others go on.
    for n in 0..200_u32 {
        maps[1].insert(now, format!("k{n}").as_bytes(), b"v").unwrap();
    }
    let mut other = now;
    run(&mut maps, &mut other, Duration::from_secs(20));
    run(&mut cut, &mut now, Duration::from_secs(20));
    assert!(maps.iter().all(|map| map.len() == 204 && map.metadata() == (0, 0)));
    // 2 is back first, 3 half a second later; a round trip takes 150 ms at first (nothing is delivered).
    let before = maps[1].replica();
    cut[0].peer_up(now, NodeId(2), 1, addr(2));
    for _ in 0..150 {
        now += Duration::from_millis(1);
        cut[0].handle_timeout(now);
        drain(&mut cut[0]);
    }
    let void = (1..=204).filter(|n| cut[0].is_void(Dot::new(before, *n))).count();
    let mut all = vec![cut.remove(0)];
    all.extend(maps);
    meet(&mut all, now);
    run(&mut all, &mut now, Duration::from_secs(20));
    assert_eq!(all[2].replica(), before, "nobody was dead");
    assert_eq!(void, 0);
}

/// Goal: a replica that is cut off seals nothing, whatever it last heard.
#[test]
fn one_without_peers_seals_nothing() {
    let mut now = NOW;
    let mut maps = settled(&mut now);
    let writes = pushes(&mut maps[2], &[b"x", b"y"], &mut now);
    let life = maps[2].replica();
    take(&mut maps[0], now, &writes[1].1);
    for (_, sent) in &writes {
        take(&mut maps[1], now, sent);
    }
    // 3 begins another life, whose first write 1 gets as the last thing before it is cut off.
    maps[2] = replica(3, 2);
    for (id, boot) in [(1, 1), (2, 1)] {
        maps[2].peer_up(now, NodeId(id), boot, addr(id));
    }
    for map in &mut maps[..2] {
        map.peer_up(now, NodeId(3), 2, addr(3));
    }
    let writes = pushes(&mut maps[2], &[b"z"], &mut now);
    take(&mut maps[0], now, &writes[0].1);
    for id in 2..4 {
        maps[0].peer_down(now, NodeId(id));
    }
    let mut alone = vec![maps.remove(0)];
    run(&mut alone, &mut now, Duration::from_secs(20));
    assert!(!alone[0].is_void(Dot::new(life, 2)), "sealed all alone, though another has it");
}

/// A replica with room for so many dots ahead of a gap.
fn narrow(id: u64, epoch: u64, gap: usize) -> Map {
    let mut config = settings();
    config.max_gap_dots = gap;
    let me = ReplicaId::new(NodeId(id), epoch);
    Map::new(NOW, me, "test", config, 1400, [id as u8; 32]).unwrap()
}

/// Goal: what is shown, but was not claimed for lack of room ahead of a gap, is written anew too.
#[test]
fn what_was_not_claimed_for_lack_of_room_is_written_anew() {
    let mut now = NOW;
    let mut maps = vec![narrow(1, 1, 1), narrow(2, 1, 1), narrow(3, 1, 1)];
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(1));
    let writes = pushes(&mut maps[2], &[b"lost", b"kept", b"only"], &mut now);
    for map in &mut maps[..2] {
        take(map, now, &writes[1].1);
    }
    // 2 alone gets the third, and has no room to claim it.
    take(&mut maps[1], now, &writes[2].1);
    assert_eq!(maps[1].stats().dots_refused, 1);
    assert_eq!(maps[1].get(b"only"), Some(&b"v"[..]), "it is shown all the same");
    let only = writes[2].0;
    assert!(!maps[1].reflects(only));
    maps[2] = narrow(3, 2, 1);
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(40));
    for map in &maps {
        assert_eq!((map.digest(), map.metadata()), (maps[0].digest(), (0, 0)));
        assert_eq!(map.get(b"only"), Some(&b"v"[..]));
        assert!(map.siblings(b"only").all(|one| !map.is_void(one.dot)), "by its old name");
    }
}

#[test]
fn no_write_is_called_nought() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1), replica(2, 1), replica(3, 1)];
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(1));
    let writes = pushes(&mut maps[2], &[b"lost", b"kept"], &mut now);
    let life = maps[2].replica();
    for map in &mut maps[..2] {
        take(map, now, &writes[1].1);
    }
    maps[2] = replica(3, 2);
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    assert!(maps[0].is_void(Dot::new(life, 1)));
    assert!(!maps[0].is_void(Dot::new(life, 0)), "counters begin with one");
}

/// Goal: what is durable stays so when a seal comes that has more void names than there is room ahead of a gap.
#[test]
fn a_log_with_a_seal_is_resumed_though_gaps_are_wide() {
    let mut now = NOW;
    let mut maps = vec![narrow(1, 1, 4), narrow(2, 1, 4), narrow(3, 1, 4)];
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(1));
    let keys: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let writes = pushes(&mut maps[2], &keys, &mut now);
    // The first and the last are all that anybody has; of those 2 has none.
    take(&mut maps[0], now, &writes[0].1);
    take(&mut maps[0], now, &writes[11].1);
    maps[2] = narrow(3, 2, 4);
    let mut away = maps.remove(1);
    maps.iter_mut().for_each(|map| map.peer_down(now, NodeId(2)));
    run(&mut maps, &mut now, Duration::from_secs(2));
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(20));
    assert!(maps[0].is_void(writes[5].0));
    away.start_log();
    let (mut file, mut seals): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    let before = away.insert(now, b"durable", b"v").unwrap();
    for peer in [NodeId(1), NodeId(3)] {
        away.peer_down(now, peer);
    }
    away.peer_up(now, NodeId(1), 1, addr(1));
    maps[0].peer_up(now, NodeId(2), 1, addr(2));
    let mut failed = Vec::new();
    for _ in 0..5_000 {
        now += Duration::from_millis(1);
        maps[0].handle_timeout(now);
        away.handle_timeout(now);
        let mut step = |away: &mut Map| {
            while let Some(write) = away.poll_log() {
                if write.kind != LogKind::Append {
                    file.clear();
                }
                file.extend(write.chunks);
                away.log_synced(now, write.ticket);
                seals += 1;
                let resumed = narrow(2, 9, 4).resume(now, &file);
                if resumed.is_err() {
                    failed.push((resumed, away.is_durable(before)));
                }
            }
        };
        step(&mut away);
        for (to, bytes) in drain(&mut away) {
            if to == 1 {
                deliver(&mut maps[0], now, 2, &bytes);
            }
        }
        for (to, bytes) in drain(&mut maps[0]) {
            if to == 2 {
                deliver(&mut away, now, 1, &bytes);
                step(&mut away);
            }
        }
    }
    assert!(failed.is_empty(), "a crash then would lose what was said to be durable");
}
