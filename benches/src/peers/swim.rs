//! Membership by foca, with socket addresses as identities and its postcard codec, and by memberlist-core,
//! with names and socket addresses.

use crate::measure::{Entrant, Outcome};

#[cfg(feature = "peers")]
mod by_foca;
#[cfg(feature = "peers")]
mod by_memberlist;

/// P1: handle a ping and write its ack.
#[must_use]
pub fn ping(n: u32) -> Vec<Entrant> {
    list(n, Work::Ping)
}

/// P2: a packet with 20 updates, all of them news.
#[must_use]
pub fn updates(n: u32) -> Vec<Entrant> {
    list(n, Work::Updates)
}

/// P3: timers that are due, with the news of all members queued.
#[must_use]
pub fn timeouts(n: u32) -> Vec<Entrant> {
    list(n, Work::Timeouts)
}

/// P4: forget 5,000 dead members of `n`.
#[must_use]
pub fn removals(n: u32) -> Vec<Entrant> {
    list(n, Work::Removals)
}

/// P5: fill the table with `n` members.
#[must_use]
pub fn fill(n: u32) -> Vec<Entrant> {
    list(n, Work::Fill)
}

/// P6: live heap per member over its name; identities of foca have none.
#[must_use]
pub fn heap(n: u32) -> Vec<Outcome> {
    #[cfg(feature = "peers")]
    return vec![by_foca::heap(n), by_memberlist::heap(n)];
    #[cfg(not(feature = "peers"))]
    none(n)
}

/// P6: live heap of a node with `n` members.
#[must_use]
pub fn whole(n: u32) -> Vec<Outcome> {
    #[cfg(feature = "peers")]
    return vec![by_foca::whole(n), by_memberlist::whole(n)];
    #[cfg(not(feature = "peers"))]
    none(n)
}

#[cfg(not(feature = "peers"))]
fn none<S, T>(_: S) -> Vec<T> {
    Vec::new()
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Ping,
    Updates,
    Timeouts,
    Removals,
    Fill,
}

#[cfg(feature = "peers")]
fn list(n: u32, work: Work) -> Vec<Entrant> {
    // The timers of memberlist-core cannot be fired from outside, and it forgets the dead in one of them.
    match work {
        Work::Ping => vec![by_foca::ping(n), by_memberlist::ping_and_ack(n)],
        Work::Updates => vec![by_foca::updates(n), by_memberlist::updates(n)],
        Work::Timeouts => vec![by_foca::timeouts(n)],
        Work::Removals => vec![by_foca::removals(n)],
        Work::Fill => vec![by_foca::fill(n), by_memberlist::fill(n)],
    }
}

#[cfg(not(feature = "peers"))]
fn list(_: u32, work: Work) -> Vec<Entrant> {
    // Named so that both variants of this function use the type.
    let (Work::Ping | Work::Updates | Work::Timeouts | Work::Removals | Work::Fill) = work;
    Vec::new()
}
