//! Lives that are over and have left nothing: what is kept of them, and what becomes of one who was away meanwhile.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::frame_of;
use crate::common::maps::{NOW, addr, deliver, drain};
use brickwork_core::map::{Config, Dot, Map, ReplicaId};
use brickwork_core::{Event, Instant, NodeId};

const PULL: u8 = 0xa1;
const SEALS: u8 = 0xa9;

fn settings(past: usize) -> Config {
    let mut config = Config::lan();
    config.keep_for = Duration::from_millis(200);
    config.collect_interval = Duration::from_millis(20);
    config.sync_interval = Duration::from_millis(20);
    config.pull_interval = Duration::from_millis(20);
    config.max_past_lives = past;
    config
}

fn replica(id: u64, epoch: u64, past: usize) -> Map {
    let me = ReplicaId::new(NodeId(id), epoch);
    let mut entropy = [id as u8; 32];
    entropy[..8].copy_from_slice(&epoch.to_le_bytes());
    Map::new(NOW, me, "test", settings(past), 1400, entropy).unwrap()
}

/// Makes all of them peers of each other, and of nobody else. Those that are renewed say so.
fn meet(maps: &mut [Map], now: Instant) {
    let nodes: Vec<(NodeId, u64)> =
        maps.iter().map(|map| (map.replica().node, boot(map.replica()))).collect();
    for map in maps {
        let me = map.replica().node;
        (1..=9).map(NodeId).for_each(|node| map.peer_down(now, node));
        for (node, boot) in nodes.iter().filter(|(node, _)| *node != me) {
            map.peer_up(now, *node, *boot, addr(node.0));
        }
    }
}

/// The boot epoch of a map whose life may be another one by now: these tests count boots.
fn boot(life: ReplicaId) -> u64 {
    life.epoch % 1_000
}

/// Lets time pass without loss. Returns the longest pull, and the most bytes of seals in one datagram.
fn run(maps: &mut [Map], now: &mut Instant, time: Duration) -> (usize, usize) {
    let (end, mut longest) = (*now + time, (0, 0));
    while *now < end {
        *now += Duration::from_millis(1);
        for at in 0..maps.len() {
            maps[at].handle_timeout(*now);
            let from = maps[at].replica().node.0;
            for (to, bytes) in drain(&mut maps[at]) {
                let len = |tag| frame_of(&bytes, tag).map_or(0, <[u8]>::len);
                longest = (longest.0.max(len(PULL)), longest.1.max(len(SEALS)));
                let to = maps.iter_mut().find(|map| map.replica().node.0 == to);
                to.into_iter().for_each(|map| deliver(map, *now, from, &bytes));
            }
        }
    }
    longest
}

/// Starts the last of the maps again that often; each life does something.
fn restart(
    maps: &mut [Map],
    now: &mut Instant,
    epochs: std::ops::Range<u64>,
    past: usize,
    mut act: impl FnMut(&mut Map, Instant, u64),
) {
    for epoch in epochs {
        let last = maps.last_mut().unwrap();
        *last = replica(last.replica().node.0, epoch, past);
        meet(maps, *now);
        run(maps, now, Duration::from_millis(60));
        act(maps.last_mut().unwrap(), *now, epoch);
        run(maps, now, Duration::from_millis(60));
    }
}

fn assert_equal(maps: &[Map]) {
    for map in maps {
        assert_eq!(map.digest(), maps[0].digest(), "{:?}", map.replica());
        assert_eq!((map.metadata(), map.stats().diverged), ((0, 0), 0), "{:?}", map.replica());
    }
}

/// Goal: a node that starts again and again makes the context of others no longer. Method: every life of one node
/// overwrites a value of the one before, and removes a key.
#[test]
fn lives_that_left_nothing_are_retired() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 4), replica(2, 1, 4), replica(3, 1, 4)];
    let mut dots: Vec<Dot> = Vec::new();
    restart(&mut maps, &mut now, 2..60, 4, |map, now, _| {
        dots.push(map.insert(now, b"state", b"v").unwrap());
        map.insert(now, b"gone", b"v").unwrap();
        map.remove(now, b"gone").unwrap();
    });
    let (pull, _) = run(&mut maps, &mut now, Duration::from_secs(5));
    assert_equal(&maps);
    for map in &maps[..2] {
        assert!(map.stats().retired > 45, "{:?}", map.stats());
        // One of them may lack a write of a life that forgets after 20 ms, before it knows who its members are.
        assert!(map.stats().full_syncs <= 1, "all of them knew all of it: {:?}", map.stats());
        let last = dots.last().unwrap();
        assert!(map.reflects(*last) && map.reflects(dots[dots.len() - 5]));
        assert!(
            !map.reflects(dots[0]) && !map.is_void(dots[0]),
            "so long ago that it is forgotten"
        );
        assert_eq!(map.siblings(b"state").map(|one| one.dot).collect::<Vec<_>>(), [*last]);
    }
    // A new node, and one that keeps far more lives one by one.
    for newcomer in [replica(4, 1, 4), replica(5, 1, 1_000)] {
        maps.push(newcomer);
        meet(&mut maps, now);
        let (other, _) = run(&mut maps, &mut now, Duration::from_secs(5));
        assert!(pull.max(other) < 400, "a pull has {pull} or {other} bytes");
        assert_equal(&maps);
        assert_eq!(maps.last().unwrap().get(b"state"), Some(&b"v"[..]));
    }
}

/// Goal: values that nobody touches do not keep the lives of their writers for ever.
#[test]
fn values_of_lives_that_are_over_are_written_again() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 1), replica(2, 1, 1), replica(3, 1, 1)];
    restart(&mut maps, &mut now, 2..40, 1, |map, now, epoch| {
        map.insert(now, format!("of {epoch}").as_bytes(), b"v").unwrap();
    });
    run(&mut maps, &mut now, Duration::from_secs(5));
    assert_equal(&maps);
    let mut told = 0;
    for map in &mut maps {
        assert_eq!(map.len(), 38);
        assert!((2..40).all(|epoch| map.siblings(format!("of {epoch}").as_bytes()).count() == 1));
        let past = |map: &Map, node| {
            map.iter()
                .filter(|(key, _)| {
                    map.siblings(key).any(|one| one.dot.replica.node == NodeId(node))
                })
                .count()
        };
        assert!(past(map, 3) < 20, "others have written most of them");
        let anew = |event: &Event| matches!(event, Event::WrittenAnew { .. });
        told += core::iter::from_fn(|| map.poll_event()).filter(anew).count();
    }
    assert!(told > 18, "{told}");
    for map in &maps[..2] {
        assert!(map.stats().retired > 20, "{:?}", map.stats());
    }
}

/// Goal: whoever was away while lives were retired loses nothing of its own, and brings nothing back. Method: one is
/// cut off with a value that it alone has of a life, one that is removed meanwhile, a removal and a write of its own;
/// once few lives of that node come and go meanwhile, once more than are kept one by one.
#[test]
fn who_was_away_while_lives_were_retired_loses_nothing_and_brings_nothing_back() {
    for lives in [20, 40] {
        let mut now = NOW;
        let mut maps =
            vec![replica(1, 1, 12), replica(2, 1, 12), replica(4, 1, 12), replica(3, 1, 12)];
        meet(&mut maps, now);
        for key in ["removed there", "removed here", "overwritten"] {
            maps[3].insert(now, key.as_bytes(), b"old").unwrap();
        }
        maps[0].insert(now, b"removed by it", b"old").unwrap();
        run(&mut maps, &mut now, Duration::from_secs(1));
        let mut away = maps.remove(2);
        let alone = maps[2].insert(now, b"alone", b"v").unwrap();
        maps[2].handle_timeout(now);
        for (to, bytes) in drain(&mut maps[2]) {
            if to == 4 {
                deliver(&mut away, now, 3, &bytes);
            }
        }
        assert!(away.reflects(alone));
        for node in 1..=3 {
            away.peer_down(now, NodeId(node));
        }
        away.insert(now, b"own", b"v").unwrap();
        away.remove(now, b"removed here").unwrap();
        maps[0].remove(now, b"removed there").unwrap();
        maps[2].remove(now, b"removed by it").unwrap();
        run(&mut maps, &mut now, Duration::from_secs(1));
        maps[0].insert(now, b"overwritten", b"new").unwrap();
        restart(&mut maps, &mut now, 2..2 + lives, 12, |map, now, _| {
            map.insert(now, b"state", b"v").unwrap();
        });
        run(&mut maps, &mut now, Duration::from_secs(2));
        assert!(maps[0].stats().retired + 14 > lives, "{:?}", maps[0].stats());
        maps.push(away);
        meet(&mut maps, now);
        run(&mut maps, &mut now, Duration::from_secs(10));
        assert_equal(&maps);
        for map in &maps {
            assert_eq!(map.get(b"own"), Some(&b"v"[..]), "{lives}");
            assert_eq!(map.get(b"alone"), Some(&b"v"[..]), "{lives}");
            assert_eq!(map.get(b"removed here"), None, "{lives}");
            assert_eq!(map.get(b"removed there"), None, "{lives}");
            assert_eq!(map.get(b"removed by it"), None, "{lives}");
            assert_eq!(map.get(b"overwritten"), Some(&b"new"[..]), "{lives}");
            assert_eq!(map.siblings(b"overwritten").count(), 1, "{lives}");
        }
    }
}

/// Goal: what is left of lives survives in a snapshot.
#[test]
fn a_snapshot_has_what_is_left_of_lives() {
    for resumes in [false, true] {
        let mut now = NOW;
        let mut maps = vec![replica(1, 1, 2), replica(2, 1, 2), replica(3, 1, 2)];
        restart(&mut maps, &mut now, 2..40, 2, |map, now, _| {
            map.insert(now, b"state", b"v").unwrap();
        });
        let chunks: Vec<Vec<u8>> = maps[0].snapshot().collect();
        let mut again = replica(1, 2, 2);
        let done = if resumes { again.resume(now, &chunks) } else { again.restore(now, &chunks) };
        assert_eq!(done, Ok(()));
        assert_eq!(again.digest(), maps[0].digest());
        assert_eq!(again.replica().epoch, if resumes { 1 } else { 2 });
        maps[0] = again;
        meet(&mut maps, now);
        run(&mut maps, &mut now, Duration::from_secs(5));
        assert_equal(&maps);
    }
}

/// Goal: a node whose epochs do not rise is heard all the same. Method: it starts again with one lower than those of
/// its lives that were merged.
#[test]
fn a_life_with_an_epoch_of_long_ago_begins_another() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 2), replica(2, 1, 2), replica(3, 1, 2)];
    restart(&mut maps, &mut now, 100..140, 2, |map, now, _| {
        map.insert(now, b"state", b"v").unwrap();
    });
    restart(&mut maps, &mut now, 5..6, 2, |map, now, _| {
        map.insert(now, b"late", b"v").unwrap();
    });
    run(&mut maps, &mut now, Duration::from_secs(5));
    assert!(maps[2].replica().epoch > 140);
    assert_equal(&maps);
    assert!(maps.iter().all(|map| map.get(b"late") == Some(b"v")));
}

/// Goal: whoever knows all that is told of a node's lives, but not those that were merged, is given the whole map.
/// Method: epochs fall for a while, so that the latest life is the first to be merged; it removes a key while one is
/// away. Either both merge lives up to the same epoch then, and whose word is taken is a matter of luck; or one keeps all
/// lives one by one.
#[test]
fn what_only_merged_lives_did_is_not_missed() {
    for luck in 0..8 {
        let mut now = NOW;
        let first = 100 + 20 * luck;
        let past = if luck % 2 == 0 { 0 } else { 1_000 };
        let mut maps = vec![replica(1, 1, 0), replica(4, 1, past), replica(3, first, 0)];
        meet(&mut maps, now);
        maps[0].insert(now, b"removed", b"v").unwrap();
        // No value of it is left that would have to be written again.
        let state = |map: &mut Map, now: Instant, _: u64| {
            map.insert(now, b"state", b"v").unwrap();
            map.remove(now, b"state").unwrap();
        };
        for epoch in (first - 9..first).rev() {
            restart(&mut maps, &mut now, epoch..epoch + 1, 0, state);
        }
        let mut away = maps.remove(1);
        (1..=3).for_each(|node| away.peer_down(now, NodeId(node)));
        let last = first - 10;
        restart(&mut maps, &mut now, last..last + 1, 0, |map, now, _| {
            assert_eq!(map.remove(now, b"removed"), Ok(true));
        });
        restart(&mut maps, &mut now, first + 1..first + 2, 0, |_, _, _| {});
        run(&mut maps, &mut now, Duration::from_secs(2));
        assert!(maps[0].stats().retired >= 10, "{:?}", maps[0].stats());
        maps.push(away);
        meet(&mut maps, now);
        run(&mut maps, &mut now, Duration::from_secs(5));
        assert_equal(&maps);
        for map in &maps {
            assert_eq!((map.len(), map.get(b"removed")), (0, None), "{luck}: {:?}", map.replica());
        }
    }
}

/// Goal: a life that nobody listens to is followed by another one though it writes nothing. Method: a node restores a
/// snapshot of one who keeps all lives one by one, under an epoch that others have merged.
#[test]
fn a_life_of_long_ago_that_knows_all_the_same_begins_another() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 2), replica(4, 1, 1_000), replica(3, 1, 2)];
    restart(&mut maps, &mut now, 100..140, 2, |map, now, _| {
        map.insert(now, b"state", b"v").unwrap();
    });
    run(&mut maps, &mut now, Duration::from_secs(3));
    let (all, merged): (Vec<_>, Vec<_>) =
        (maps[1].snapshot().collect(), maps[0].snapshot().collect());
    maps[2] = replica(3, 5, 2);
    maps[2].restore(now, &all).unwrap();
    maps[1] = replica(4, 2, 2);
    maps[1].restore(now, &merged).unwrap();
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(5));
    maps[0].insert(now, b"news", b"v").unwrap();
    drain(&mut maps[0]);
    run(&mut maps, &mut now, Duration::from_secs(10));
    assert!(maps.iter().all(|map| map.get(b"news").is_some()));
    assert_equal(&maps);
}

/// Goal: bases that are told say nothing of a life whose seal was taken just now. Method: one who was away takes the
/// seal, and tells its bases before a pull of it arrives.
#[test]
fn whoever_has_nothing_but_the_seal_of_a_life_is_told_of_it() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 64), replica(5, 1, 64), replica(2, 1, 64)];
    meet(&mut maps, now);
    for map in &mut maps {
        let key = [u8::try_from(map.replica().node.0).unwrap()];
        map.insert(now, &key, b"v").unwrap();
    }
    run(&mut maps, &mut now, Duration::from_secs(2));
    let mut away = maps.pop().unwrap();
    [1, 5].into_iter().for_each(|node| away.peer_down(now, NodeId(node)));
    maps.push(replica(3, 7, 64));
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(1));
    maps[2].insert(now, b"first", b"v").unwrap();
    run(&mut maps, &mut now, Duration::from_secs(1));
    let lost = maps[2].insert(now, b"lost", b"v").unwrap();
    drain(&mut maps[2]);
    now += Duration::from_millis(30);
    maps[2].insert(now, b"kept", b"v").unwrap();
    maps[2].handle_timeout(now);
    for (to, bytes) in drain(&mut maps[2]) {
        let to = maps.iter_mut().find(|map| map.replica().node.0 == to);
        to.into_iter().for_each(|map| deliver(map, now, 3, &bytes));
    }
    maps.pop();
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(5));
    assert!(maps[0].is_void(lost) && maps[0].get(b"kept").is_some());
    maps.pop();
    maps.push(away);
    meet(&mut maps, now);
    let start = now;
    while now < start + Duration::from_secs(5) {
        now += Duration::from_millis(1);
        if now == start + Duration::from_millis(60) {
            for key in 0..80_u8 {
                maps[1].insert(now, &[b'n', key], b"v").unwrap();
            }
        }
        for at in 0..2 {
            maps[at].handle_timeout(now);
            let sealed = maps[1].is_void(lost) && now < start + Duration::from_millis(250);
            for (_, bytes) in drain(&mut maps[at]) {
                let asks = at == 1 && frame_of(&bytes, PULL).is_some();
                if !(asks && sealed) {
                    let from = maps[at].replica().node.0;
                    deliver(&mut maps[1 - at], now, from, &bytes);
                }
            }
        }
    }
    assert_equal(&maps);
    assert!(maps.iter().all(|map| map.get(b"kept").is_some()));
}

/// Goal: what a life of long ago has written is not lost though all that have heard of it have it. Method: a node starts
/// again with an epoch lower than those that others have merged, beside one that has never heard of any.
#[test]
fn what_a_life_of_long_ago_told_few_is_told_all() {
    let mut now = NOW;
    let mut maps = vec![replica(1, 1, 2), replica(2, 1, 2), replica(3, 1, 2)];
    restart(&mut maps, &mut now, 100..140, 2, |map, now, _| {
        map.insert(now, b"state", b"v").unwrap();
    });
    run(&mut maps, &mut now, Duration::from_secs(3));
    let mut few = vec![replica(4, 1, 2), replica(3, 5, 2)];
    meet(&mut few, now);
    few[1].insert(now, b"late", b"v").unwrap();
    few[0].insert(now, b"removed", b"v").unwrap();
    run(&mut few, &mut now, Duration::from_secs(1));
    assert_eq!(few[1].remove(now, b"removed"), Ok(true));
    run(&mut few, &mut now, Duration::from_secs(3));
    assert_equal(&few);
    maps.pop();
    maps.extend(few);
    meet(&mut maps, now);
    run(&mut maps, &mut now, Duration::from_secs(5));
    assert_equal(&maps);
    for map in &maps {
        let (late, removed) = (map.get(b"late"), map.get(b"removed"));
        assert_eq!((late, removed), (Some(&b"v"[..]), None), "{:?}", map.replica());
        assert_eq!(map.siblings(b"late").count(), 1, "its writer alone writes it again");
    }
}

/// Lets some of these maps be peers of each other, and of nobody else, until something is so. All were started once.
fn among(
    maps: &mut [Option<Map>],
    now: &mut Instant,
    who: &[usize],
    until: impl Fn(&[Map]) -> bool,
) {
    let mut met: Vec<Map> = who.iter().map(|at| maps[*at].take().unwrap()).collect();
    let nodes: Vec<NodeId> = met.iter().map(|map| map.replica().node).collect();
    for map in &mut met {
        // Never without peers: that would be a reason to forget.
        let me = map.replica().node;
        let others = nodes.iter().filter(|node| **node != me);
        others.for_each(|node| map.peer_up(*now, *node, 1, addr(node.0)));
        let gone = (1..=9).map(NodeId).filter(|node| !nodes.contains(node));
        gone.for_each(|node| map.peer_down(*now, node));
    }
    let end = *now + Duration::from_secs(10);
    while !until(&met) {
        assert!(*now < end, "{who:?} are not through");
        run(&mut met, now, Duration::from_millis(1));
    }
    who.iter().zip(met).for_each(|(at, map)| maps[*at] = Some(map));
}

/// Goal: a value with a void name that was written anew by one who has it is not written anew by another, though the
/// life was retired before either came back. Method: a value that node 1 told one node alone; two others retire the
/// life, node 1 comes back and writes the value anew, and the one hears of that from another, which ranks before it.
#[test]
fn what_was_written_anew_is_not_again_by_who_comes_back_after_the_retirement() {
    let (mut now, older) = (NOW, b"older");
    // So long that nothing is forgotten as soon as two know the same.
    let mut config = settings(0);
    config.collect_interval = Duration::from_millis(100);
    let of = |id| {
        Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config.clone(), 1400, [id as u8; 32])
    };
    // Of the life of node 1, node 3 ranks first, then 9, then 5.
    let mut maps: Vec<Option<Map>> = [1, 9, 5, 3].map(|id| of(id).ok()).into();
    maps[0].as_mut().unwrap().insert(now, older, b"v").unwrap();
    among(&mut maps, &mut now, &[0, 1], |maps| maps[1].len() == 1);
    maps[1].as_mut().unwrap().insert(now, older, b"over it").unwrap();
    among(&mut maps, &mut now, &[0, 1], |maps| maps[0].get(older) == Some(b"over it"));
    among(&mut maps, &mut now, &[0], |_| true);
    let old = maps[0].as_mut().unwrap().insert(now, b"key", b"v").unwrap();
    among(&mut maps, &mut now, &[1, 3], |maps| maps.iter().all(|map| map.stats().retired == 1));
    among(&mut maps, &mut now, &[0, 2], |maps| maps[1].len() == 2);
    among(&mut maps, &mut now, &[0, 1], |maps| maps[1].len() == 2);
    let [_, Some(told), Some(last), _] = &maps[..] else { panic!() };
    let new = told.siblings(b"key").next().unwrap().dot;
    assert!(new != old && told.is_void(old) && !last.is_void(old) && last.reflects(old));
    among(&mut maps, &mut now, &[1, 2], |maps| maps[1].digest() == maps[0].digest());
    assert_eq!(maps[2].as_ref().unwrap().stats().full_syncs, 0, "all of it is told write by write");
    among(&mut maps, &mut now, &[0, 1, 2, 3], |maps| {
        let through = |map: &Map| map.metadata() == (0, 0) && map.stats().retired > 0;
        maps.iter().all(|map| map.digest() == maps[0].digest() && through(map))
    });
    for map in maps.iter().flatten() {
        let dots: Vec<Dot> = map.siblings(b"key").map(|sibling| sibling.dot).collect();
        assert_eq!(dots, [new], "{:?}", map.replica());
    }
}
