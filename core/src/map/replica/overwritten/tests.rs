use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::NodeId;
use crate::map::ReplicaId;

const DOTS: u64 = 48;

#[derive(Debug, Clone)]
enum Act {
    /// The entry of this dot comes.
    Entry(u64),
    /// Of the dots from one to another those are told that are followed by others of their keys.
    Window(u64, u64),
    /// The same, but for one of its runs, which is lost.
    Part(u64, u64, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let window = (1..=DOTS, 1..30_u64).prop_map(|(from, len)| (from, (from + len).min(DOTS)));
    prop_oneof![
        4 => (1..=DOTS).prop_map(Act::Entry),
        2 => window.clone().prop_map(|(from, to)| Act::Window(from, to)),
        1 => (window, 0..4_usize).prop_map(|((from, to), lost)| Act::Part(from, to, lost)),
    ]
}

/// The runs of dots that others of the same key follow in a window.
fn followed(keys: &[u8], from: u64, to: u64) -> Vec<(u64, u64)> {
    let key = |n: u64| keys[usize::try_from(n).unwrap() - 1];
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for n in (from..=to).filter(|n| (n + 1..=to).any(|later| key(later) == key(*n))) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    runs
}

/// What should be known: by the definition, looked for from far to near.
#[derive(Default)]
struct Model {
    entries: BTreeSet<u64>,
    known: BTreeSet<u64>,
    limits: BTreeMap<u64, u64>,
}

impl Model {
    fn base(&self) -> u64 {
        (1..).find(|n| !self.known.contains(n)).unwrap_or_default() - 1
    }

    fn settle(&mut self) {
        let base = self.base();
        let complete = |upto: u64| {
            (base + 1..=upto).all(|n| {
                self.known.contains(&n) || self.limits.get(&n).is_some_and(|limit| *limit <= upto)
            })
        };
        if let Some(upto) = (base + 1..=DOTS).rev().find(|upto| complete(*upto)) {
            self.known.extend(base + 1..=upto);
        }
        let base = self.base();
        self.limits.retain(|n, _| *n > base);
    }
}

proptest! {
    /// What is set aside is known as soon as it may be, and not before: whatever is known without its entry has a later dot
    /// of the same key whose entry is here.
    #[test]
    fn what_is_known_is_reflected(
        keys in proptest::collection::vec(0..6_u8, DOTS as usize),
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
        let mut model = Model::default();
        let key = |n: u64| keys[usize::try_from(n).unwrap() - 1];
        for act in acts {
            let told = match act {
                Act::Entry(n) => {
                    replicas.claim(Packed::new(0, n), 1_000 + u32::try_from(n).unwrap());
                    model.known.insert(n);
                    model.entries.insert(n);
                    Vec::new()
                }
                Act::Window(from, to) => followed(&keys, from, to).into_iter().map(|run| (run, to)).collect(),
                Act::Part(from, to, lost) => {
                    let mut runs: Vec<_> = followed(&keys, from, to).into_iter().map(|run| (run, to)).collect();
                    if lost < runs.len() {
                        runs.remove(lost);
                    }
                    runs
                }
            };
            for ((from, to), limit) in told {
                let base = model.base();
                let nearer = |n: &u64| model.limits.get(n).is_none_or(|before| limit < *before);
                let fresh = (from..=to).filter(|n| *n > base && nearer(n)).count() as u64;
                prop_assert_eq!(replicas.set_aside(0, (from, to), limit), Some(fresh));
                for n in from.max(base + 1)..=to {
                    let least = model.limits.entry(n).or_insert(limit);
                    *least = limit.min(*least);
                }
            }
            let (before, mut named) = (model.known.clone(), Vec::new());
            model.settle();
            let count = replicas.settle(0, &mut u64::MAX.clone(), |span| named.extend(span.from..=span.to));
            prop_assert_eq!(count, named.len() as u64);
            let known: BTreeSet<u64> = (1..=DOTS).filter(|n| replicas.contains(Packed::new(0, *n))).collect();
            prop_assert_eq!(&known, &model.known);
            prop_assert!(known.difference(&before).eq(named.iter()));
            let mut plain = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
            for &n in &known {
                plain.claim(Packed::new(0, n), 0);
            }
            prop_assert_eq!((replicas.digest(), replicas.base(0)), (plain.digest(), plain.base(0)));
            for &n in &known {
                let mut later = (n + 1..=DOTS).filter(|m| key(*m) == key(n));
                let next = later.clone().next();
                let here = model.entries.contains(&n) || later.any(|m| model.entries.contains(&m));
                prop_assert!(here, "{} of {:?}", n, keys);
                match replicas.about(Packed::new(0, n)) {
                    About::Overwritten(limit) => {
                        prop_assert!(limit <= replicas.base(0) && next.is_some_and(|next| next <= limit));
                    }
                    About::Key(slot) => prop_assert_eq!(u64::from(slot), 1_000 + n),
                    About::Unknown => prop_assert!(n > replicas.base(0)),
                }
            }
            let Some(told) = replicas.told_aside(0) else {
                prop_assert!(model.limits.is_empty());
                continue;
            };
            let (upto, first) = told.near;
            prop_assert_eq!(Some(&first), model.limits.values().next());
            let within = |n: &u64| {
                known.contains(n) || model.limits.get(n).is_some_and(|limit| *limit <= first)
            };
            let end = (1..).find(|n| !within(n)).unwrap() - 1;
            prop_assert_eq!(upto, end);
            let (both, limit) = told.all;
            for n in 1..=DOTS {
                let aside = model.limits.get(&n);
                prop_assert_eq!(both.contains(n), known.contains(&n) || aside.is_some(), "{}", n);
                let unknown = aside.filter(|_| !known.contains(&n));
                prop_assert!(unknown.is_none_or(|aside| *aside <= limit));
            }
        }
    }
}

/// What would take too much room is not set aside, and neither is what a seal speaks against.
#[test]
fn what_is_not_believed_changes_nothing() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    assert_eq!(replicas.set_aside(0, (1, 5), 5), None, "none was overwritten by itself");
    assert_eq!(replicas.set_aside(0, (1, 5), MAX_SPAN), Some(5));
    assert_eq!(replicas.set_aside(0, (7, 9), MAX_SPAN + 1), None);
    let of = replicas.intern(ReplicaId::new(NodeId(2), 1)).unwrap();
    replicas.take_seal(of, 20, &Runs::default());
    assert_eq!(replicas.set_aside(of, (1, 5), 20), Some(5));
    assert_eq!(replicas.set_aside(of, (7, 9), 21), None);
    let mut void = Runs::default();
    void.add(4, 4);
    replicas.take_seal(of, 20, &void);
    assert!(replicas.told_aside(of).is_none(), "a seal forgets them");
    assert_eq!(replicas.set_aside(of, (1, 2), 3), None);
}

/// Who tells of many runs is believed for some at a time: what is not taken in is told again.
#[test]
fn many_runs_are_laid_around_some_at_a_time() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    let most = MAX_KEPT as u64;
    for n in 1..=most * 2 {
        assert_eq!(replicas.set_aside(0, (n * 2, n * 2), 999), Some(1));
    }
    assert_eq!(replicas.set_aside(0, (1, most * 4), 1_000), Some(most));
    assert_eq!(replicas.set_aside(0, (1, most * 4), 1_000), None);
    assert_eq!(replicas.set_aside(0, (most * 2, most * 4), 1_000), Some(most - 1));
    assert_eq!(
        replicas.set_aside(0, (1, most * 4 - 1), 998),
        Some(most * 4 - 1),
        "all of it is nearer"
    );
    assert_eq!(replicas.told_aside(0).unwrap().near.1, 998);
}

/// On disk windows follow each other, so the limit of one may be far from the base; but each is as long as one that was told.
#[test]
fn what_a_disk_tells_is_no_longer_than_what_was_told() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    replicas.set_unbounded(true);
    let far = 1 << 40;
    assert_eq!(replicas.set_aside(0, (far, far + 7), far + MAX_SPAN - 1), Some(8));
    assert_eq!(replicas.set_aside(0, (far, far + 7), far + MAX_SPAN), None);
    assert_eq!(replicas.set_aside(0, (1, far - 1), far), None);
    replicas.set_unbounded(false);
    assert_eq!(replicas.set_aside(0, (far, far + 7), far + 8), None);
    assert_eq!(replicas.set_aside(0, (1, 7), MAX_SPAN), Some(7));
    assert_eq!(replicas.set_aside(0, (8, 9), MAX_SPAN + 1), None);
}

/// A log of which a seal takes a part names no dot that a void one overwrote.
#[test]
fn a_seal_cuts_the_log_at_what_was_overwritten() {
    let mut replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 100);
    let of = replicas.intern(ReplicaId::new(NodeId(2), 1)).unwrap();
    for n in [1, 2, 5, 6] {
        replicas.claim(Packed::new(of, n), 7);
    }
    replicas.set_aside(of, (3, 4), 6);
    assert_eq!(replicas.settle(of, &mut u64::MAX.clone(), |_| ()), 2);
    replicas.take_seal(of, 6, &Runs::default());
    assert_eq!(replicas.served_from(of), 0, "all of it counts");
    let gone = replicas.take_seal(of, 5, &Runs::default()).unwrap();
    assert_eq!((gone.logged, gone.unlogged), (alloc::vec![(6, 7)], false));
    assert_eq!((replicas.base(of), replicas.served_from(of)), (5, 4));
    assert!(replicas.was_cut());
}
