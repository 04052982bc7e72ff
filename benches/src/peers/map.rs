//! Maps of crdts, yrs, chitchat, dson, automerge and loro. None of them is told apart from its best use:
//! operations or deltas where it has them, updates against a state vector where it has those.

use crate::measure::{Entrant, Outcome};

#[cfg(feature = "peers")]
mod by_automerge;
#[cfg(feature = "peers")]
mod by_chitchat;
#[cfg(feature = "peers")]
mod by_crdts;
#[cfg(feature = "peers")]
mod by_dson;
#[cfg(feature = "peers")]
mod by_loro;
#[cfg(feature = "peers")]
mod by_yrs;

/// C1: fill a map with `n` keys.
#[must_use]
pub fn insertion(n: u32) -> Vec<Entrant> {
    #[cfg(feature = "peers")]
    {
        let mut entrants = vec![
            by_crdts::insertion(n),
            by_yrs::insertion(n),
            by_chitchat::insertion(n),
            by_loro::insertion(n),
            by_automerge::insertion(n),
        ];
        if n <= 100_000 {
            // Two thirds of what a transaction each takes, at a million as well, where it would be another
            // minute.
            entrants.push(by_automerge::insertion_at_once(n));
        }
        if n <= 50_000 {
            // The same figure in all rows, as it stops at a thousand keys.
            entrants.push(by_dson::insertion(n));
        }
        entrants
    }
    #[cfg(not(feature = "peers"))]
    none(n)
}

/// C2: merge a delta of ten entries.
#[must_use]
pub fn merging(n: u32) -> Vec<Entrant> {
    #[cfg(feature = "peers")]
    {
        let mut entrants = vec![
            by_crdts::applying(n),
            by_yrs::merging(n),
            by_loro::merging(n),
            by_automerge::merging(n),
            by_dson::merging(n),
        ];
        if n <= 100_000 {
            // A merge of states looks at every key: minutes per round beyond that.
            entrants.push(by_crdts::merging(n));
        }
        entrants
    }
    #[cfg(not(feature = "peers"))]
    none(n)
}

/// C3: extract and encode what changed.
#[must_use]
pub fn encoding(n: u32, changed: usize) -> Vec<Entrant> {
    #[cfg(feature = "peers")]
    return vec![
        by_crdts::encoding(n, changed),
        by_yrs::encoding(n, changed),
        by_loro::encoding(n, changed),
        by_automerge::encoding(n, changed),
        by_dson::encoding(n, changed),
        by_dson::extracting(n, changed),
    ];
    #[cfg(not(feature = "peers"))]
    none((n, changed))
}

/// C3: decode and merge what changed.
#[must_use]
pub fn decoding(n: u32, changed: usize) -> Vec<Entrant> {
    #[cfg(feature = "peers")]
    return vec![
        by_crdts::decoding(n, changed),
        by_yrs::decoding(n, changed),
        by_loro::decoding(n, changed),
        by_automerge::decoding(n, changed),
        by_dson::decoding(n, changed),
    ];
    #[cfg(not(feature = "peers"))]
    none((n, changed))
}

/// C3: bytes of what changed.
#[must_use]
pub fn bytes(n: u32, changed: usize) -> Vec<Outcome> {
    #[cfg(feature = "peers")]
    return vec![
        by_crdts::bytes(n, changed),
        by_yrs::bytes(n, changed),
        by_loro::bytes(n, changed),
        by_automerge::bytes(n, changed),
        by_dson::bytes(n, changed),
    ];
    #[cfg(not(feature = "peers"))]
    none((n, changed))
}

/// C4: live heap per entry.
#[must_use]
pub fn heap(n: u32) -> Vec<Outcome> {
    #[cfg(feature = "peers")]
    return vec![
        by_crdts::heap(n),
        by_yrs::heap(n),
        by_chitchat::heap(n),
        by_loro::heap(n),
        by_automerge::heap(n),
        by_automerge::heap_at_once(n),
        by_dson::heap(n),
    ];
    #[cfg(not(feature = "peers"))]
    none(n)
}

#[cfg(not(feature = "peers"))]
fn none<S, T>(_: S) -> Vec<T> {
    Vec::new()
}

/// Different keys, scattered over the whole map and others in every version.
#[cfg(feature = "peers")]
fn changes(n: u32, count: usize, version: u32) -> impl Iterator<Item = u32> {
    // A prime that is not near a small fraction of any size in use.
    const STEP: u64 = 7_368_787;
    let first = u64::from(version) * 31;
    (0..count as u64).map(move |at| ((first + at * STEP) % u64::from(n)) as u32)
}
