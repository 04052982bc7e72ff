#![allow(clippy::unwrap_used)]

use super::*;
use crate::NodeId;
use alloc::collections::BTreeSet;
use proptest::prelude::*;

/// What may happen to what is known of a replica.
#[derive(Debug, Clone)]
enum Act {
    Claim(u64),
    Adopt(u64, u64),
    Floor(u64),
    Unlog,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..40_u64).prop_map(Act::Claim),
        1 => (1..40_u64, 0..6_u64).prop_map(|(from, len)| Act::Adopt(from, from + len)),
        1 => (1..40_u64).prop_map(Act::Floor),
        2 => Just(Act::Unlog),
    ]
}

/// Goal: a life is retired when whoever lacks some of it is none of the members any more. Method: each step to there.
#[test]
fn a_life_is_spent_when_its_log_is_over() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    let life = replicas.intern(ReplicaId::new(NodeId(2), 1)).unwrap();
    assert!(!replicas.is_spent(life), "nothing of it is known");
    for counter in 1..=3 {
        replicas.claim(Packed::new(life, counter), 0);
    }
    replicas.raise_floor(life, 2);
    while replicas.unlog_one(life).is_some() {}
    assert!(!replicas.is_spent(life), "a member may lack the last");
    replicas.raise_floor(life, 3);
    assert!(!replicas.is_spent(life), "it is told still");
    while replicas.unlog_one(life).is_some() {}
    assert!(replicas.is_spent(life));
}

/// The sums of all buckets, and the share of the seals.
fn total(replicas: &Replicas) -> u64 {
    replicas.sums().iter().fold(replicas.seals(), |total, sum| total.wrapping_add(*sum))
}

/// A snapshot may say so, if somebody wrote it who means harm.
#[test]
fn what_the_log_does_not_begin_with_is_not_next_in_it() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    replicas.set_bounds(0, Bounds { base: 5, floor: 5, logged: 9 });
    assert!(!replicas.claim_next(Packed::new(0, 6), 0));
    assert!(replicas.claim(Packed::new(0, 6), 0));
    assert_eq!(replicas.slot(Packed::new(0, 6)), None);
}

proptest! {
    /// I4 and I5: the log names the keys of exactly the dots beyond it, and the floor stays below the base.
    #[test]
    fn logs_that_are_cut_name_the_rest(acts in proptest::collection::vec(act(), 0..80)) {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
        let (mut set, mut logged, mut cut) = (BTreeSet::new(), BTreeMap::new(), 0);
        for act in acts {
            match act {
                Act::Claim(n) => {
                    let slot = 1_000 + u32::try_from(n).unwrap();
                    prop_assert_eq!(replicas.claim(Packed::new(0, n), slot), set.insert(n));
                    if n > cut {
                        logged.entry(n).or_insert(slot);
                    }
                }
                Act::Adopt(from, to) => {
                    replicas.adopt(0, from, to);
                    set.extend(from..=to);
                    cut = cut.max(to);
                }
                Act::Floor(n) => replicas.raise_floor(0, n),
                Act::Unlog => {
                    let oldest = logged.first_key_value().map(|(n, slot)| (*n, *slot));
                    let oldest = oldest.filter(|(n, _)| *n <= replicas.floor(0));
                    prop_assert_eq!(replicas.unlog_one(0), oldest.map(|(_, slot)| slot));
                    cut = cut.max(oldest.map_or(0, |(n, _)| n));
                }
            }
            logged.retain(|n, _| *n > cut);
            let base = (1..).find(|n| !set.contains(n)).unwrap() - 1;
            prop_assert_eq!(replicas.base(0), base);
            prop_assert!(replicas.floor(0) <= base);
            let mut plain = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
            for &n in &set {
                plain.claim(Packed::new(0, n), 0);
            }
            prop_assert_eq!(replicas.digest(), plain.digest());
            prop_assert_eq!(total(&replicas), replicas.digest());
            for n in 1..50 {
                let dot = Packed::new(0, n);
                prop_assert_eq!(replicas.contains(dot), set.contains(&n));
                prop_assert_eq!(replicas.slot(dot), logged.get(&n).copied(), "{}", n);
                let told = n > replicas.served_from(0) && set.contains(&n);
                prop_assert!(!told || replicas.slot(dot).is_some(), "{} can be told", n);
            }
        }
    }

    #[test]
    fn claims_in_any_order_make_the_same_context(mut order in Just((1..40_u64).collect::<Vec<_>>()).prop_shuffle(), keep in 1..40_usize, theirs in proptest::collection::vec((1..40_u64, 0..4_u64), 0..5)) {
        order.truncate(keep);
        let id = ReplicaId::new(NodeId(1), 1);
        let mut replicas = Replicas::new(id, 10, 100);
        for &n in &order {
            let dot = Packed::new(0, n);
            prop_assert!(replicas.claim(dot, u32::try_from(n).unwrap()));
            prop_assert!(!replicas.claim(dot, 0));
        }
        let mut sorted = Replicas::new(id, 10, 100);
        order.sort_unstable();
        for &n in &order {
            prop_assert!(sorted.claim(Packed::new(0, n), 0));
        }
        prop_assert_eq!(replicas.digest(), sorted.digest());
        prop_assert_eq!(replicas.sums(), sorted.sums());
        let set: BTreeSet<u64> = order.iter().copied().collect();
        let mut runs = Runs::default();
        for (from, len) in theirs { runs.add(from, from + len); }
        for n in 1..45 {
            let dot = Packed::new(0, n);
            prop_assert_eq!(replicas.contains(dot), set.contains(&n));
            prop_assert_eq!(replicas.slot(dot).map(u64::from), set.get(&n).copied());
            let missing = set.range(n..).copied().find(|&m| !runs.contains(m));
            prop_assert_eq!(replicas.next_missing(0, &runs, n), missing);
        }
        let ahead: BTreeSet<u64> = replicas.runs_ahead(0).flat_map(|(from, to)| from..=to).collect();
        let mut all: BTreeSet<u64> = (1..=replicas.base(0)).collect();
        all.extend(ahead);
        prop_assert_eq!(all, set);
    }
}

/// The same, or a seal with one run of void names.
#[derive(Debug, Clone)]
enum Turn {
    Act(Act),
    Seal { end: u64, from: u64, to: u64 },
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => act().prop_map(Turn::Act),
        1 => (0..45_u64, 1..40_u64, 0..5_u64)
            .prop_map(|(end, from, len)| Turn::Seal { end, from, to: from + len }),
    ]
}

/// What a full sync tells between what is void is claimed, and nothing void with it.
#[test]
fn a_run_over_void_names_claims_what_counts_of_it() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    let mut void = Runs::default();
    void.add_uncut(3, 5);
    replicas.take_seal(0, 7, &void).unwrap();
    replicas.adopt(0, 2, 3);
    assert_eq!(replicas.runs_ahead(0).collect::<Vec<_>>(), [(2, 2)]);
    replicas.adopt(0, 1, 1);
    assert_eq!(replicas.base(0), 5, "what is void is no gap");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Method: claims, full syncs, floors, cuts of the log and seals in any order, beside sets of counters.
    #[test]
    fn seals_at_any_time_leave_what_counts(turns in proptest::collection::vec(turn(), 0..60)) {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
        let mut set = BTreeSet::new();
        let mut void = BTreeSet::new();
        let mut last = 60;
        let mut seals = Vec::new();
        for turn in turns {
            match turn {
                Turn::Act(Act::Claim(n)) => {
                    let new = !set.contains(&n) && !void.contains(&n) && n <= last;
                    let dot = Packed::new(0, n);
                    let next = replicas.claim_next(dot, 1_000 + n as u32);
                    prop_assert_eq!(next || replicas.claim(dot, 1_000 + n as u32), new);
                    if new { set.insert(n); }
                }
                Turn::Act(Act::Adopt(from, to)) => { replicas.adopt(0, from, to); set.extend((from..=to).filter(|n| *n <= last)); }
                Turn::Act(Act::Floor(n)) => replicas.raise_floor(0, n),
                Turn::Act(Act::Unlog) => { replicas.unlog_one(0); }
                Turn::Seal { end, from, to } => {
                    let mut runs = Runs::default();
                    if from <= end { runs.add_uncut(from, to.min(end)); }
                    let known: BTreeSet<u64> = set.iter().copied().filter(|n| !void.contains(n)).collect();
                    let logged: BTreeSet<u64> = known.iter().copied().filter(|n| replicas.slot(Packed::new(0, *n)).is_some() && *n > replicas.served_from(0)).collect();
                    let gone = replicas.take_seal(0, end, &runs);
                    last = last.min(end);
                    void.extend(runs.counters());
                    seals.push((end, runs));
                    let lost: BTreeSet<u64> = known.iter().copied().filter(|n| *n > last || void.contains(n)).collect();
                    if let Some(gone) = gone {
                        let told: BTreeSet<u64> = gone.logged.iter().map(|(n, _)| *n).collect();
                        prop_assert_eq!(&told, &lost.intersection(&logged).copied().collect());
                        prop_assert!(gone.logged.iter().all(|(n, slot)| u64::from(*slot) == 1_000 + n));
                        let rest = lost.difference(&logged).count() > 0;
                        prop_assert!(!rest || gone.unlogged, "{:?} of {:?}", lost, logged);
                    } else { prop_assert!(lost.is_empty()); }
                    set.retain(|n| *n <= last);
                    set.extend(void.iter().copied().filter(|n| *n <= last));
                    void.retain(|n| *n <= last);
                }
            }
            let base = (1..).find(|n| !set.contains(n)).unwrap() - 1;
            prop_assert_eq!(replicas.base(0), base);
            prop_assert!(replicas.floor(0) <= base);
            prop_assert!(replicas.is_logged_whole());
            for n in 1..50 {
                let dot = Packed::new(0, n);
                prop_assert_eq!(replicas.contains(dot), set.contains(&n) || n > last);
                prop_assert_eq!(replicas.is_void(dot), void.contains(&n) || n > last);
                let told = n > replicas.served_from(0) && set.contains(&n) && !void.contains(&n);
                prop_assert!(!told || replicas.slot(dot).is_some(), "{} can be told", n);
                prop_assert!(!void.contains(&n) || replicas.slot(dot).is_none());
            }
            let mut plain = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
            for &n in &set { plain.claim(Packed::new(0, n), 0); }
            for (end, runs) in seals.iter().rev() { plain.take_seal(0, *end, runs); }
            prop_assert_eq!(replicas.digest(), plain.digest());
            prop_assert_eq!(replicas.seals(), plain.seals());
            prop_assert_eq!(replicas.sums(), plain.sums());
            for theirs in [Runs::default(), { let mut r = Runs::default(); r.add(3, 9); r.add(20, 22); r }] {
                for n in 1..45 {
                    let missing = set.range(n..).copied().find(|m| !theirs.contains(*m) && !void.contains(m));
                    prop_assert_eq!(replicas.next_missing(0, &theirs, n), missing);
                }
            }
        }
    }
}
