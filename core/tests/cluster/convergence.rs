//! After a calm phase, members, owners and the map of all nodes agree, whatever happened before.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{
    self,
    maps::{NOW, deliver, drain, replica, settle},
};
use crate::common::{Dice, History, Net, Weather, name};
use brickwork_core::map::Map;
use brickwork_core::{Config, Event, NodeId, hrw};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn keys() -> Vec<Vec<u8>> {
    (0..12).map(|key| format!("origin-{key}").into_bytes()).collect()
}

/// Random writes and removals at random nodes for a while.
fn scribble(net: &mut Net, dice: &mut Dice, history: &mut History, steps: usize) {
    let keys = keys();
    for step in 0..steps {
        let place = dice.below(net.nodes.len());
        let key = &keys[dice.below(keys.len())];
        if dice.percent(25) {
            history.remove(net, place, key);
        } else {
            history.put(net, place, key, format!("value {step}").as_bytes());
        }
        net.run(Duration::from_millis(dice.next() % 30));
    }
}

/// Ends all trouble and waits until everybody agrees.
fn calm_down(net: &mut Net) {
    net.weather = Weather::CALM;
    net.side.fill(0);
    let keys = keys();
    let agreed = net.run_until(60 * SECOND, |net| net.differences(&keys).is_empty());
    assert!(agreed, "after a minute of calm: {:?}", net.differences(&keys));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Loss, duplication and reordering lose no write and revive no removed value: the siblings that
    /// remain are exactly those that no write superseded.
    #[test]
    fn a_lossy_network_loses_no_write(seed in any::<u64>(), n in 2..8_usize, loss in 0..60_u32, duplication in 0..30_u32) {
        let mut net = Net::cluster(seed, Config::local(), n);
        let mut dice = Dice(seed);
        let mut history = History::default();
        net.weather = Weather { loss, duplication, delay: Duration::from_millis(50) };
        scribble(&mut net, &mut dice, &mut history, 60);
        calm_down(&mut net);
        for key in keys() {
            for place in net.up() {
                prop_assert_eq!(net.dots(place, &key), history.survivors(&key));
            }
        }
    }

    /// Partitions, crashes, restarts under the old name and joins while people write.
    #[test]
    fn a_troubled_cluster_becomes_one(seed in any::<u64>(), n in 2..8_usize, loss in 0..30_u32) {
        let mut net = Net::cluster(seed, Config::local(), n);
        let mut dice = Dice(seed);
        let mut history = History::default();
        net.weather = Weather { loss, duplication: 10, delay: Duration::from_millis(20) };
        for _ in 0..6 {
            let place = dice.below(net.nodes.len());
            match dice.below(4) {
                0 if net.up().len() > 1 => net.crash(place),
                1 => for side in &mut net.side { *side = u8::from(dice.percent(50)); },
                2 => net.side.fill(0),
                _ => {
                    let place = if net.nodes.len() < 8 { net.nodes.len() } else { place };
                    let seeds = net.up();
                    if net.nodes.get(place).is_none_or(Option::is_none) {
                        net.start(place, &seeds);
                    }
                }
            }
            scribble(&mut net, &mut dice, &mut history, 8);
            net.run(SECOND * u32::try_from(dice.below(4)).unwrap());
        }
        // What survives depends on which writes died with their only holder, but not on whom one asks.
        calm_down(&mut net);
    }
}

#[test]
fn a_crash_is_noticed_by_all_and_its_keys_move_to_the_next_in_order() {
    let mut net = Net::cluster(1, Config::lan(), 5);
    let keys = keys();
    let mut order = [NodeId(0); 2];
    let owners: Vec<_> =
        keys.iter().map(|key| net.node(1).owners(key, &mut order).to_vec()).collect();
    let victim = net.node(4).id();
    net.crash(4);
    let noticed = net.run_until(10 * SECOND, |net| {
        net.up().iter().all(|&place| net.node(place).members().count() == 4)
    });
    assert!(noticed, "{:?}", net.differences(&keys));
    for place in 0..4 {
        let failed = |event: &&Event| matches!(event, Event::Failed { id } if *id == victim);
        assert_eq!(net.events[place].iter().filter(failed).count(), 1);
        for (key, owners) in keys.iter().zip(&owners) {
            let expected = if owners[0] == victim { owners[1] } else { owners[0] };
            assert_eq!(net.node(place).owner(key), Some(expected));
        }
    }
}

#[test]
fn nobody_fails_at_a_quarter_of_loss() {
    let mut net = Net::cluster(2, Config::lan(), 8);
    net.weather = Weather { loss: 25, duplication: 0, delay: Duration::from_millis(2) };
    net.run(600 * SECOND);
    for place in net.up() {
        let failed = net.events[place].iter().filter(|event| matches!(event, Event::Failed { .. }));
        assert_eq!(failed.count(), 0, "at {place}");
    }
}

#[test]
fn a_leave_is_told_apart_from_a_failure() {
    let mut net = Net::cluster(3, Config::local(), 5);
    let leaver = net.node(2).id();
    net.with(2, |node, now| node.leave(now));
    net.run(SECOND);
    let acknowledged = net.events[2].iter().find_map(|event| match event {
        Event::LeaveFinished { acknowledged } => Some(*acknowledged),
        _ => None,
    });
    assert_eq!(acknowledged, Some(3));
    assert_eq!(net.node(2).poll_timeout(), None, "it is silent from now on");
    net.crash(2);
    net.run(5 * SECOND);
    for place in net.up() {
        let left = |event: &Event| matches!(event, Event::Left { id } if *id == leaver);
        let failed =
            |event: &Event| matches!(event, Event::Failed { .. } | Event::Suspected { .. });
        assert!(net.events[place].iter().any(left), "at {place}");
        assert!(!net.events[place].iter().any(failed), "at {place}: {:?}", net.events[place]);
    }
}

#[test]
fn a_split_cluster_heals_without_a_call() {
    let mut net = Net::cluster(4, Config::local(), 6);
    net.side = vec![0, 0, 0, 1, 1, 1];
    net.run(60 * SECOND);
    assert!(net.up().iter().all(|&place| net.node(place).members().count() == 3));
    net.with(0, |node, now| node.insert(now, b"k", b"one side")).unwrap().unwrap();
    net.with(5, |node, now| node.insert(now, b"k", b"other side")).unwrap().unwrap();
    calm_down(&mut net);
    assert_eq!(net.node(2).siblings(b"k").count(), 2, "concurrent writes are both kept");
}

/// Goal: whoever was cut off until all that speaks of the writes since was dropped, on both sides, brings
/// nothing back and loses nothing. Method: writes and removals on both sides, until nothing is left to collect.
#[test]
fn a_member_cut_off_for_longer_than_gc_brings_nothing_back_and_loses_nothing() {
    for seed in 0..20 {
        let mut net = Net::cluster(seed, Config::local(), 5);
        let (mut dice, mut history) = (Dice(seed), History::default());
        scribble(&mut net, &mut dice, &mut history, 60);
        net.run(10 * SECOND);
        net.side = vec![0, 0, 0, 0, 1];
        scribble(&mut net, &mut dice, &mut history, 60);
        net.run(30 * SECOND);
        scribble(&mut net, &mut dice, &mut history, 60);
        let clean = |net: &Net| (0..5).all(|place| net.node(place).map().metadata() == (0, 0));
        assert!(net.run_until(60 * SECOND, clean), "seed {seed}: all is collected");
        calm_down(&mut net);
        let syncs: u64 = (0..5).map(|place| net.node(place).stats().map.full_syncs).sum();
        assert!(syncs > 0, "seed {seed}: no log reaches so far");
        for key in keys() {
            for place in 0..5 {
                assert_eq!(net.dots(place, &key), history.survivors(&key), "seed {seed}");
            }
        }
        assert!(net.run_until(120 * SECOND, clean), "seed {seed}: all is collected again");
    }
}

#[test]
fn a_node_that_lost_everybody_finds_back() {
    let mut net = Net::cluster(5, Config::local(), 3);
    net.side = vec![0, 0, 1];
    net.run(300 * SECOND);
    assert_eq!(net.node(2).members().count(), 1);
    calm_down(&mut net);
}

#[test]
fn a_restart_under_the_old_name_is_one_event_and_loses_nothing() {
    let mut net = Net::cluster(6, Config::local(), 4);
    net.with(3, |node, now| node.insert(now, b"k", b"v")).unwrap().unwrap();
    net.run(SECOND);
    net.crash(3);
    net.start(3, &[0]);
    let id = net.node(3).id();
    let keys = keys();
    let restarts = |net: &Net, place: usize| {
        let of_it = |event: &&Event| matches!(event, Event::Restarted { identity, .. } if identity.id() == id);
        net.events[place].iter().filter(of_it).count()
    };
    // Its map may be whole again before everybody has heard of it.
    assert!(net.run_until(10 * SECOND, |net| {
        net.differences(&keys).is_empty() && (0..3).all(|place| restarts(net, place) > 0)
    }));
    assert_eq!(net.node(3).get(b"k"), Some(&b"v"[..]), "its old write comes back to it");
    for place in 0..3 {
        assert_eq!(restarts(&net, place), 1, "at {place}: {:?}", net.events[place]);
    }
}

#[test]
fn a_name_that_a_live_member_bears_stays_out_and_is_told() {
    let mut net = Net::cluster(7, Config::local(), 3);
    net.start_as(3, &name(1), &[0]);
    net.run(5 * SECOND);
    let told = |event: &Event| matches!(event, Event::Conflict { newcomer, .. } if *newcomer == common::addr(3));
    assert!(net.events[3].iter().any(told), "{:?}", net.events[3]);
    assert_eq!(net.node(3).poll_timeout(), None);
    net.crash(3);
    assert!(net.differences(&keys()).is_empty());
    let holder = net.node(0).member(NodeId::from_name(&name(1))).unwrap();
    assert_eq!(holder.addr(), common::addr(1));
}

#[test]
fn a_name_whose_holder_is_gone_may_be_taken_at_another_address() {
    let mut net = Net::cluster(8, Config::lan(), 3);
    net.crash(1);
    net.start_as(3, &name(1), &[0]);
    let keys = keys();
    assert!(net.run_until(20 * SECOND, |net| net.differences(&keys).is_empty()));
    assert_eq!(net.node(3).members().count(), 3);
}

#[test]
fn a_thousand_puts_through_a_third_of_loss_all_arrive() {
    let mut net = Net::cluster(9, Config::local(), 3);
    net.weather = Weather { loss: 33, duplication: 5, delay: Duration::from_millis(5) };
    for key in 0..1000_u32 {
        net.with(0, |node, now| node.insert(now, &key.to_be_bytes(), &[7; 100])).unwrap().unwrap();
    }
    let all = |net: &Net| net.up().iter().all(|&place| net.node(place).map().len() == 1000);
    assert!(net.run_until(10 * SECOND, all));
}

#[test]
fn a_context_too_large_for_one_datagram_is_told_in_pages() {
    // Every restart is a new replica; 200 of them make a digest of more than 3 kB.
    let mut net = Net::cluster(10, Config::local(), 2);
    for round in 0..200_u32 {
        net.crash(1);
        net.start(1, &[0]);
        net.run(SECOND / 4);
        net.with(1, |node, now| node.insert(now, &round.to_be_bytes(), b"v")).unwrap().unwrap();
        net.run(SECOND / 4);
    }
    let keys = keys();
    assert!(net.run_until(30 * SECOND, |net| net.differences(&keys).is_empty()));
    net.start(2, &[0]);
    assert!(net.run_until(30 * SECOND, |net| net.differences(&keys).is_empty()));
    assert_eq!(net.node(2).map().len(), 200);
}

/// Whole orders of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The counterexample to "one record per key, rendezvous between concurrent ones": r1 by S1, r2 by S2
/// having seen r1, r3 by S3 having seen neither, and the scores S1 > S3 > S2. Every observer must end
/// with the same two siblings and read r3, whatever the order of arrival.
#[test]
fn the_order_of_arrival_does_not_decide_between_r1_r2_and_r3() {
    let key = b"contested";
    let hash = hrw::key_hash(key);
    let mut by_score: Vec<u64> = (1..=3).collect();
    by_score.sort_by_key(|&id| std::cmp::Reverse(hrw::score(hash, NodeId(id))));
    let [s1, s3, s2] = [by_score[0], by_score[1], by_score[2]];

    let observers: Vec<u64> = (11..17).collect();
    let everyone: Vec<u64> = [s1, s2, s3].iter().chain(&observers).copied().collect();
    let mut maps: Vec<Map> = everyone.iter().map(|&id| replica(id, &everyone)).collect();
    let now = settle(&mut maps, NOW);

    // The three writes, each as the datagrams that its writer pushes.
    maps[0].insert(now, key, b"r1").unwrap();
    let r1 = drain(&mut maps[0]);
    let to_s2 = r1.iter().find(|(to, _)| *to == s2).unwrap();
    deliver(&mut maps[1], now, s1, &to_s2.1);
    maps[1].insert(now, key, b"r2").unwrap();
    let r2 = drain(&mut maps[1]);
    maps[2].insert(now, key, b"r3").unwrap();
    let r3 = drain(&mut maps[2]);

    let writes = [(s1, r1), (s2, r2), (s3, r3)];
    let mut digests = BTreeSet::new();
    for (order, &observer) in ORDERS.iter().zip(&observers) {
        let map = maps.iter_mut().find(|map| map.replica().node.0 == observer).unwrap();
        for &write in order {
            let (from, datagrams) = &writes[write];
            for (_, bytes) in datagrams.iter().filter(|(to, _)| *to == observer) {
                deliver(map, now, *from, bytes);
                deliver(map, now, *from, bytes);
            }
        }
        let values: BTreeSet<&[u8]> = map.siblings(key).map(|sibling| sibling.value).collect();
        assert_eq!(values, BTreeSet::from([&b"r2"[..], &b"r3"[..]]), "order {order:?}");
        assert_eq!(map.get(key), Some(&b"r3"[..]), "order {order:?}");
        digests.insert(map.digest());
    }
    assert_eq!(digests.len(), 1, "equal writes make equal digests");
}

/// A chunk carries exactly the dots that it explains: losing any one of many loses no key for good.
#[test]
fn whichever_datagram_is_lost_its_keys_are_pulled() {
    for lost in 0..8 {
        let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
        let now = settle(&mut maps, NOW);
        for key in 0..100_u8 {
            maps[0].insert(now, &[key], &[key; 60]).unwrap();
        }
        let now = now + Duration::from_secs(1);
        maps[0].handle_timeout(now);
        let pushed = drain(&mut maps[0]);
        assert!(pushed.len() > 4, "several datagrams: {}", pushed.len());
        for (at, (_, bytes)) in pushed.iter().enumerate() {
            if at != lost {
                deliver(&mut maps[1], now, 1, bytes);
            }
        }
        settle(&mut maps, now);
        assert_eq!(maps[1].len(), 100, "without datagram {lost}");
        assert_eq!(maps[0].digest(), maps[1].digest());
    }
}

#[test]
fn a_removed_key_stays_removed_when_its_old_value_comes_late_and_twice() {
    let mut maps = vec![replica(1, &[2, 3]), replica(2, &[1, 3]), replica(3, &[1, 2])];
    let now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"old").unwrap();
    let old = drain(&mut maps[0]);
    let to = |id: u64| &old.iter().find(|(to, _)| *to == id).unwrap().1;
    deliver(&mut maps[1], now, 1, to(2));
    assert!(maps[1].remove(now, b"k").unwrap());
    assert!(!maps[1].remove(now, b"k").unwrap(), "there is nothing left to remove");
    let now = settle(&mut maps, now);
    assert_eq!(maps[2].get(b"k"), None);
    deliver(&mut maps[2], now, 1, to(3));
    deliver(&mut maps[1], now, 1, to(2));
    settle(&mut maps, now);
    assert!(maps.iter().all(|map| map.get(b"k").is_none() && map.is_empty()));
}

#[test]
fn a_concurrent_write_survives_a_removal() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    let mut now = settle(&mut maps, NOW);
    maps[0].insert(now, b"k", b"first").unwrap();
    now = settle(&mut maps, now);
    maps[0].remove(now, b"k").unwrap();
    maps[1].insert(now, b"k", b"second").unwrap();
    settle(&mut maps, now);
    for map in &maps {
        assert_eq!(map.get(b"k"), Some(&b"second"[..]));
        assert_eq!(map.siblings(b"k").count(), 1);
    }
}
