//! Which branches of the core a simulation came through.
//!
//! `reached!("name")` is nothing at all unless the crate is built for simulations. Then it counts, on the
//! present thread, and a campaign that never came through one of [`BRANCHES`] has not tested it.

/// Nothing; the name keeps branches apart that only simulations tell apart.
#[cfg(not(feature = "sim"))]
macro_rules! reached {
    ($name:expr) => {{
        let _: &str = $name;
    }};
}

/// Counts a passage; the name must be one of the list, or the crate does not compile.
#[cfg(feature = "sim")]
macro_rules! reached {
    ($name:expr) => {{
        const AT: usize = $crate::reached::position($name);
        $crate::reached::count(AT);
    }};
}

pub(crate) use reached;

/// The branches where the map decides something, and what membership does in clusters where much fails at once.
///
/// Those are left out that no node takes in a cluster as simulations set it up: where limits refuse, which tests
/// of lone maps ask for; and what no honest peer sends, one dot named
/// twice, a key that is not known here, a value without a mark of its own, which `tests/map/forged.rs` and the
/// fuzzing send; and a pull that would have to share its datagram, which no caller makes it do.
///
/// Five more are left out because two hundred plans are too few for them: what is told of keys that were overwritten often
/// (`tests/map/overwritten.rs`), a full sync whose taker falls silent
/// and is given up (`tests/map/full_sync.rs`), one whose giver does (`tests/map/staging.rs`), slots that are numbered anew
/// (a property in `store/tests.rs`), and a dot that comes when the log is cut beyond it (`tests/model_random.rs`,
/// whose I7 fails without its entry being noted). So is what follows if somebody has a write that a seal is
/// without, for which a cluster must be apart for longer than a plan lasts (`tests/map/seals.rs`, and the histories of
/// `tests/model_random.rs`, which must have met it).
#[cfg(feature = "sim")]
pub(crate) const BRANCHES: &[&str] = &[
    "membership: probe beside another one",
    "membership: tables differ while many are suspected",
    "map: write over nothing",
    "map: write over a value",
    "map: write beside a value",
    "map: removal of a value",
    "map: removal of nothing",
    "map: join brings a value",
    "map: join brings a known value",
    "map: join brings a value superseded here",
    "map: join keeps a value that both have",
    "map: join keeps a value unknown there",
    "map: join drops a superseded value",
    "map: join leaves several values",
    "map: join leaves none",
    "map: read by score",
    "map: read by epoch",
    "map: read by counter",
    "map: dot next in order",
    "map: dot ahead of a gap",
    "map: dot closes a gap",
    "map: dot known",
    "map: life sealed",
    "map: seal taken",
    "map: other seals",
    "map: digests equal",
    "map: digest differs",
    "map: digest of an exhausted peer",
    "map: pull at once",
    "map: pull later",
    "map: pull wanted already",
    "map: pull from another at once",
    "map: pull from another later",
    "map: pull from nobody else",
    "map: pull of a page",
    "map: window halved",
    "map: contexts compared",
    "map: pull of what differs",
    "map: asked by one who is ahead",
    "map: asked by one who is not",
    "map: asked about a replica unknown here",
    "map: asked for a page",
    "map: chunk of an entry that fits no datagram",
    "map: first of the fragments",
    "map: fragments go on",
    "map: fragments make an item",
    "map: fragments make a unit",
    "map: fragment that nobody waits for",
    "map: answer in order",
    "map: answer with a chunk missing",
    "map: answer that is late",
    "map: answered to its end",
    "map: answered to the budget",
    "map: answered to the page",
    "map: answer without news",
    "map: push without a gap",
    "map: push after a gap",
    "map: chunk to an earlier life",
    "map: chunk complete",
    "map: chunk full",
    "map: chunk at the budget",
    "map: item refers to another",
    "map: item names a key",
    "map: item of a lone value over its own",
    "map: lone value of a new key",
    "map: several of a streak",
    "map: item of an entry",
    "map: bases told",
    "map: bases of other replicas",
    "map: calm is told to all",
    "map: at rest",
    "map: round begins",
    "map: peer admitted",
    "map: member back in time",
    "map: round waits for a member",
    "map: round waits for one who is down",
    "map: round waits for a full sync",
    "map: logs swept",
    "map: full sync refused",
    "map: full sync begins",
    "map: session is over",
    "map: full sync given",
    "map: full sync comes",
    "map: units known",
    "map: units asked for again",
    "map: more units asked for ahead",
    "map: asked for units twice",
    "map: no full sync from there",
    "map: full sync taken",
    "map: full sync brings a new key",
    "map: one that is silent passed over",
    "map: silent one waited for no longer",
    "map: silent one is there again",
    "map: page of one who may lack what is gone",
    "map: marks dropped",
    "map: all are equal",
    "map: removed key dropped",
    "map: old news of a dropped key",
];

/// Where a name stands in the list.
#[cfg(feature = "sim")]
pub(crate) const fn position(name: &str) -> usize {
    let mut at = 0;
    while at < BRANCHES.len() {
        if equal(BRANCHES[at].as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("no such branch")
}

#[cfg(feature = "sim")]
const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

#[cfg(feature = "sim")]
type Counts = [core::cell::Cell<u64>; BRANCHES.len()];

#[cfg(feature = "sim")]
std::thread_local! {
    static COUNTS: Counts = const { [const { core::cell::Cell::new(0) }; BRANCHES.len()] };
}

#[cfg(feature = "sim")]
pub(crate) fn count(at: usize) {
    COUNTS.with(|counts| counts[at].set(counts[at].get() + 1));
}

/// The branches that this thread came through since it was asked last, and how often.
#[cfg(feature = "sim")]
pub(crate) fn take() -> impl Iterator<Item = (&'static str, u64)> {
    let counts = COUNTS.with(|counts| counts.each_ref().map(core::cell::Cell::take));
    BRANCHES.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
}
