//! What is owed to whom: marks, never bytes.
//!
//! A peer is in the ready ring at most once, and what it is owed merges: the backlog is bounded by
//! the members, however slow the socket is.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use smallvec::SmallVec;

use crate::id::NodeId;
use crate::pool::Pool;
use crate::room;

/// A single message that somebody is owed. Its bytes are written when the datagram leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Msg {
    /// Are you there? Carries whom it is meant for.
    Ping { seq: u32, target: NodeId },
    /// I am here.
    Ack { seq: u32 },
    /// Please ping `target` for me; I decide in `millis` milliseconds.
    PingReq { seq: u32, target: NodeId, millis: u16 },
    /// The member that you asked me to ping is there, at this boot epoch.
    RelayedAck { seq: u32, boot: u64 },
    /// It did not answer me so far, but I am here.
    Nack { seq: u32 },
    /// I could not reach `target`: please see for yourself, at once.
    Verify { target: NodeId },
    /// Let me in.
    Join { cookie: u64 },
    /// Show that you live at this address: send the join again with this cookie.
    Cookie { cookie: u64 },
    /// The member called `id` is alive elsewhere; you stay out.
    Conflict { id: NodeId, asked: u64 },
    /// A boot epoch of yours is known that is not below the one that asked.
    BootTooOld { asked: u64, boot: u64 },
    /// `by` holds you suspect or dead at that incarnation.
    Accused { by: NodeId, incarnation: u32 },
    /// I do not know you; join me.
    Stranger,
    /// I know that you are leaving.
    LeftAck,
    /// Here are the digests of my table's buckets; list those that differ.
    Buckets,
}

impl Msg {
    /// Whether `self` takes the place of `other` when both are owed.
    fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::PingReq { seq: a, .. }, Self::PingReq { seq: b, .. }) => a == b,
            (Self::Accused { .. }, Self::Accused { .. })
            | (Self::Join { .. }, Self::Join { .. })
            | (Self::Cookie { .. }, Self::Cookie { .. }) => true,
            _ => self == other,
        }
    }
}

/// Most messages that wait for one peer. More means that it was not possible to send for long; the
/// oldest are dropped, as the network might have dropped them.
const MAX_MSGS: usize = 16;
/// Most rows owed to one peer by name; the table exchange tells what is dropped.
const MAX_ROWS: usize = 128;
/// Most members that one peer is owed by a table exchange, and most that it is asked for; the next exchange finds
/// what is dropped.
const MAX_TOLD: usize = 1_024;
/// Most unknown addresses that are owed something at a time.
const MAX_STRANGERS: usize = 128;

/// What one member is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) msgs: SmallVec<[Msg; 2]>,
    /// Members whose state it should hear of before others.
    pub(super) rows: SmallVec<[u32; 4]>,
    /// Buckets whose members it should hear of, all of them: it has just been let in.
    pub(super) buckets: u64,
    /// How far the lowest of those has been told.
    pub(super) resume: u32,
    /// By the rules of memberlist: how far it has been told of those that are gone …
    pub(super) gone: Option<usize>,
    /// … and whether it is to tell as well.
    pub(super) answer: bool,
    /// Buckets that are to be listed for it.
    pub(super) lists: u64,
    /// From which position on the lowest of those is.
    pub(super) listed: u32,
    /// Members that it lacks, as the table exchange found; sorted, each once, however often it asks.
    pub(super) told: Vec<u32>,
    /// Fingerprints of members that are lacked here and that it listed …
    pub(super) wants: Prints,
    /// … and of those that it lacks.
    pub(super) offers: Prints,
    /// A datagram even if there is nothing but gossip to tell.
    pub(super) gossip: bool,
    ready: bool,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        let more = self.gossip || self.gone.is_some();
        self.msgs.is_empty() && self.rows.is_empty() && !self.is_exchanging() && !more
    }

    /// Whether it is owed something of a table exchange, or as one that was let in.
    pub(super) fn is_exchanging(&self) -> bool {
        let prints = !self.wants.is_empty() || !self.offers.is_empty();
        self.buckets | self.lists != 0 || prints || !self.told.is_empty()
    }

    /// Makes it one that owes nothing. Long lists are given back to the allocator.
    fn clear(&mut self) {
        let lists = self.wants.list.capacity() + self.offers.list.capacity();
        let long = self.msgs.spilled() || self.rows.spilled() || lists + self.told.capacity() > 0;
        if long || !self.is_empty() {
            *self = Self::default();
        } else {
            (self.resume, self.listed, self.answer, self.ready) = (0, 0, false, false);
        }
    }

    /// It is to be told the whole table.
    pub(super) fn owe_all(&mut self, answer: bool) {
        (self.buckets, self.resume, self.gone) = (u64::MAX, 0, Some(0));
        self.answer |= answer;
    }

    /// Adds a member that the table exchange owes it.
    pub(super) fn tell(&mut self, about: u32) {
        if self.told.len() < MAX_TOLD
            && let Err(at) = self.told.binary_search(&about)
        {
            self.told.insert(at, about);
        }
    }
}

/// A member of a bucket, by its fingerprint under that salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) salt: u32,
    pub(super) bucket: u8,
    pub(super) fingerprint: u32,
}

/// Members that are asked for or offered, those of one bucket together.
#[derive(Debug, Default)]
pub(super) struct Prints {
    pub(super) list: Vec<Print>,
}

impl Prints {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds those for which there is room, and returns how many that are.
    pub(super) fn add(&mut self, prints: &[Print]) -> usize {
        let room = MAX_TOLD - self.list.len();
        let added = &prints[..prints.len().min(room)];
        self.list.extend_from_slice(added);
        added.len()
    }
}

/// In `Outbox::places`, of a member without debts.
const NOWHERE: u32 = u32::MAX;

/// Only members that are owed something, or wait in the ready ring, have an `Owed`: it is larger than a
/// member's row, and few are owed anything at a time.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Where in `owed` each slot's debts stand.
    places: Vec<u32>,
    /// Boxed, for they are taken out and put back with every datagram, and several hundred bytes long.
    owed: Pool<Box<Owed>>,
    /// Empty ones, to be used again.
    #[allow(clippy::vec_box)] // they go to and from `owed`
    spare: Vec<Box<Owed>>,
    ready: VecDeque<u32>,
    strangers: VecDeque<(SocketAddr, SmallVec<[Msg; 2]>)>,
}

impl Outbox {
    /// What `slot` is owed, to be added to; puts it in the ready ring.
    pub(super) fn to(&mut self, slot: u32) -> &mut Owed {
        room::reach(&mut self.places, slot, NOWHERE);
        let index = slot as usize;
        if self.places[index] == NOWHERE {
            self.places[index] = self.owed.insert(self.spare.pop().unwrap_or_default());
        }
        let owed = self.owed.get_mut(self.places[index]);
        let owed = owed.expect("the place was just made or is in use");
        if !owed.ready {
            owed.ready = true;
            self.ready.push_back(slot);
        }
        owed
    }

    fn get(&mut self, slot: u32) -> Option<&mut Owed> {
        let place = *self.places.get(slot as usize)?;
        self.owed.get_mut(place).map(Box::as_mut)
    }

    pub(super) fn msg(&mut self, slot: u32, msg: Msg) {
        push_msg(&mut self.to(slot).msgs, msg);
    }

    /// Owes `slot` the news about `about`.
    pub(super) fn row(&mut self, slot: u32, about: u32) {
        let rows = &mut self.to(slot).rows;
        if rows.len() < MAX_ROWS && !rows.contains(&about) {
            rows.push(about);
        }
    }

    /// Owes a message to an address that is not a member's.
    pub(super) fn stranger(&mut self, addr: SocketAddr, msg: Msg) {
        if let Some((_, msgs)) = self.strangers.iter_mut().find(|(other, _)| *other == addr) {
            push_msg(msgs, msg);
        } else if self.strangers.len() < MAX_STRANGERS {
            self.strangers.push_back((addr, SmallVec::from_slice(&[msg])));
        }
    }

    /// Takes the next peer out of the ready ring.
    pub(super) fn next(&mut self) -> Option<u32> {
        let slot = self.ready.pop_front()?;
        if let Some(owed) = self.get(slot) {
            owed.ready = false;
        }
        Some(slot)
    }

    pub(super) fn next_stranger(&mut self) -> Option<(SocketAddr, SmallVec<[Msg; 2]>)> {
        self.strangers.pop_front()
    }

    /// Takes what `slot` is owed; what does not fit is given back with [`Outbox::put_back`].
    pub(super) fn take(&mut self, slot: u32) -> Box<Owed> {
        let mut taken = self.spare.pop().unwrap_or_default();
        let Some(&place) = self.places.get(slot as usize) else { return taken };
        let Some(owed) = self.owed.get_mut(place) else { return taken };
        if owed.ready {
            core::mem::swap(owed, &mut taken);
            owed.ready = true;
            return taken;
        }
        self.spare.push(taken);
        self.places[slot as usize] = NOWHERE;
        self.owed.remove(place).unwrap_or_default()
    }

    pub(super) fn put_back(&mut self, slot: u32, mut rest: Box<Owed>) {
        if !rest.is_empty() {
            self.to(slot);
            if let Some(owed) = self.owed.get_mut(self.places[slot as usize]) {
                core::mem::swap(owed, &mut rest);
                owed.ready = rest.ready;
            }
        }
        rest.clear();
        self.spare.push(rest);
    }

    /// Drops what is owed to a slot that is about to be reused. What others are owed about it stays:
    /// by then it tells of whoever has the slot, or nothing.
    pub(super) fn forget(&mut self, slot: u32) {
        let mut owed = self.take(slot);
        owed.clear();
        self.spare.push(owed);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn push_msg(msgs: &mut SmallVec<[Msg; 2]>, msg: Msg) {
    match msgs.iter_mut().find(|other| msg.replaces(other)) {
        Some(other) => *other = msg,
        None => {
            if msgs.len() == MAX_MSGS {
                msgs.remove(0);
            }
            msgs.push(msg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(seqs: core::ops::Range<u32>) -> Vec<Msg> {
        seqs.map(|seq| Msg::Ack { seq }).collect()
    }

    /// The newest messages are kept, and the first rows: the table exchange tells the others.
    #[test]
    fn what_is_owed_is_bounded() {
        let mut outbox = Outbox::default();
        acks(0..20).into_iter().for_each(|msg| outbox.msg(7, msg));
        (0..200).flat_map(|about| [about, about]).for_each(|about| outbox.row(7, about));
        let owed = outbox.take(7);
        assert_eq!(owed.msgs.to_vec(), acks(4..20));
        assert_eq!(owed.rows.to_vec(), (0..128).collect::<Vec<u32>>());

        let addr = |port| SocketAddr::from(([10, 0, 0, 1], port));
        for port in 0..200 {
            outbox.stranger(addr(port), Msg::Stranger);
            outbox.stranger(addr(port), Msg::Ack { seq: 1 });
        }
        let owed: Vec<_> = core::iter::from_fn(|| outbox.next_stranger()).collect();
        assert_eq!(owed.len(), 128);
        for (port, (to, msgs)) in (0..).zip(owed) {
            assert_eq!(
                (to, msgs.to_vec()),
                (addr(port), [Msg::Stranger, Msg::Ack { seq: 1 }].to_vec())
            );
        }
    }

    /// A message takes the place of what it makes out of date, and stands beside everything else.
    #[test]
    fn messages_merge() {
        let (a, b) = (NodeId(1), NodeId(2));
        let request = |seq, millis| Msg::PingReq { seq, target: a, millis };
        let cases = [
            (request(1, 9), request(1, 5), true),
            (request(1, 9), request(2, 9), false),
            (Msg::Join { cookie: 0 }, Msg::Join { cookie: 7 }, true),
            (Msg::Cookie { cookie: 1 }, Msg::Cookie { cookie: 7 }, true),
            (Msg::Join { cookie: 1 }, Msg::Cookie { cookie: 1 }, false),
            (Msg::Buckets, Msg::Buckets, true),
            (Msg::Ack { seq: 1 }, Msg::Ack { seq: 1 }, true),
            (Msg::Ack { seq: 1 }, Msg::Ack { seq: 2 }, false),
            (Msg::Ping { seq: 1, target: a }, Msg::Ping { seq: 1, target: b }, false),
            (Msg::Stranger, Msg::LeftAck, false),
        ];
        for (first, second, merge) in cases {
            let mut outbox = Outbox::default();
            [first, second].into_iter().for_each(|msg| outbox.msg(1, msg));
            let expected: &[Msg] = if merge { &[second] } else { &[first, second] };
            assert_eq!(outbox.take(1).msgs.to_vec(), expected);
        }
    }

    /// Each is served in turn, at most once, whatever it is owed; what is put back is served again.
    #[test]
    fn who_is_owed_something_is_in_the_ring_once() {
        let mut outbox = Outbox::default();
        for slot in [3, 1, 3, 2, 1] {
            outbox.row(slot, 9);
        }
        assert_eq!(outbox.next(), Some(3));
        let mut owed = outbox.take(3);
        assert!(outbox.take(3).is_empty(), "it was taken");
        owed.rows.push(8);
        outbox.put_back(3, owed);
        outbox.put_back(5, Box::default());
        outbox.row(3, 7);
        outbox.forget(2);
        assert_eq!([1, 2, 3].map(|_| outbox.next()), [Some(1), Some(2), Some(3)]);
        assert_eq!(outbox.next(), None, "nobody is owed nothing");
        assert_eq!(outbox.take(3).rows.to_vec(), [9, 8, 7]);
        assert!(outbox.take(2).is_empty());
        assert_eq!(outbox.take(1).rows.to_vec(), [9]);
        let mut places = [0; 3].map(|_| outbox.owed.insert(Box::default()));
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2], "all places are free again");
    }

    /// Anything that is owed is something.
    #[test]
    fn nothing_owed_is_nothing_of_all() {
        const PRINT: Print = Print { salt: 1, bucket: 2, fingerprint: 3 };
        let owe: [fn(&mut Owed); 9] = [
            |owed| owed.msgs.push(Msg::Stranger),
            |owed| owed.rows.push(0),
            |owed| owed.buckets = 1,
            |owed| owed.gone = Some(0),
            |owed| owed.lists = 1,
            |owed| owed.tell(0),
            |owed| assert_eq!(owed.wants.add(&[PRINT]), 1),
            |owed| assert_eq!(owed.offers.add(&[PRINT]), 1),
            |owed| owed.gossip = true,
        ];
        assert!(Owed::default().is_empty());
        for owe in owe {
            let mut owed = Owed::default();
            owe(&mut owed);
            assert!(!owed.is_empty());
        }
    }
}
