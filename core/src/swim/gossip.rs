//! Which updates to piggyback: the least sent first.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::room;
use crate::sabotage::sabotaged;

const NONE: u32 = u32::MAX;
/// So many packets that tell the same show that it is known (feedback and counter of Demers et al. 1987,
/// section 1.4): it is told no further. Who has not heard it corrects itself by the table exchange.
const KNOWN: u8 = 3;
/// Send counts above this share one bucket; with the largest sensible settings none gets there.
const MAX_SENDS: usize = 255;

#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    /// The bucket it is in, `None` while it is not queued.
    sends: Option<u8>,
    /// How often it was heard from others since it was queued.
    heard: u8,
}

/// One linked list of members per number of sends. A member has at most one entry, whatever is to be
/// told about it: what is written is its state at that moment. All operations are O(1).
#[derive(Debug)]
pub(super) struct Gossip {
    links: Vec<Link>,
    /// First and last entry of each list.
    lists: Vec<(u32, u32)>,
    len: usize,
    /// Bytes that may still be told before the next tick.
    budget: usize,
}

impl Gossip {
    pub(super) const fn new() -> Self {
        Self { links: Vec::new(), lists: Vec::new(), len: 0, budget: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues news about `slot`, replacing what was queued about it, behind all that was not sent yet.
    pub(super) fn put(&mut self, slot: u32) {
        self.forget(slot);
        self.append(slot, 0);
    }

    /// The same, before all others.
    pub(super) fn put_first(&mut self, slot: u32) {
        self.forget(slot);
        self.append(slot, 0);
        // The last of its list comes to its front.
        let list = &mut self.lists[0];
        if list.0 == slot {
            return;
        }
        let (first, last) = (list.0, self.links[slot as usize].prev);
        *list = (slot, last);
        self.links[last as usize].next = NONE;
        self.links[first as usize].prev = slot;
        let link = &mut self.links[slot as usize];
        (link.prev, link.next) = (NONE, first);
    }

    /// As if nothing had been queued about `slot`.
    fn forget(&mut self, slot: u32) {
        self.remove(slot);
        room::reach(&mut self.links, slot, Link { prev: NONE, next: NONE, sends: None, heard: 0 });
        self.links[slot as usize].heard = 0;
    }

    /// Grants so many bytes until the next tick; what is left of the last is void.
    pub(super) const fn grant(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.budget == 0
    }

    pub(super) const fn spend(&mut self, bytes: usize) {
        self.budget = self.budget.saturating_sub(bytes);
    }

    /// A packet tells just what is queued about `slot`: once [`KNOWN`] did, it is no news any more.
    pub(super) fn heard(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize).filter(|link| link.sends.is_some())
        else {
            return;
        };
        link.heard += 1;
        if link.heard >= KNOWN {
            self.remove(slot);
        }
    }

    /// Drops what is queued about `slot`.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(&Link { prev, next, sends: Some(sends), .. }) = self.links.get(slot as usize)
        else {
            return;
        };
        let list = &mut self.lists[sends as usize];
        match prev {
            NONE => list.0 = next,
            prev => self.links[prev as usize].next = next,
        }
        match next {
            NONE => list.1 = prev,
            next => self.links[next as usize].prev = prev,
        }
        self.links[slot as usize].sends = None;
        self.len -= 1;
    }

    /// Offers entries to `write`, the least sent first, until it refuses three in a row. Those it took
    /// count as sent once more and are dropped after `limit` sends.
    pub(super) fn pick(&mut self, limit: u32, mut write: impl FnMut(u32) -> bool) {
        let mut taken: SmallVec<[(u32, u8); 64]> = SmallVec::new();
        let mut refused = 0;
        'lists: for sends in 0..self.lists.len() {
            let mut at = self.lists[sends].0;
            while at != NONE {
                let slot = at;
                at = self.links[slot as usize].next;
                if write(slot) {
                    refused = 0;
                    self.remove(slot);
                    #[allow(clippy::cast_possible_truncation)] // lists has at most 256 entries
                    taken.push((slot, sends as u8));
                } else {
                    // A large entry must not keep smaller ones behind it out.
                    refused += 1;
                    if refused == 3 {
                        break 'lists;
                    }
                }
            }
        }
        for (slot, sends) in taken {
            let sends = sends.saturating_add(1);
            if u32::from(sends) < limit || sabotaged!("gossip-for-ever") {
                self.append(slot, sends);
            }
        }
    }

    fn append(&mut self, slot: u32, sends: u8) {
        let index = usize::from(sends).min(MAX_SENDS);
        if self.lists.len() <= index {
            self.lists.resize(index + 1, (NONE, NONE));
        }
        let last = self.lists[index].1;
        let link = &mut self.links[slot as usize];
        (link.prev, link.next, link.sends) = (last, NONE, Some(sends));
        match last {
            NONE => self.lists[index].0 = slot,
            last => self.links[last as usize].next = slot,
        }
        self.lists[index].1 = slot;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(gossip: &mut Gossip, limit: u32, room: usize) -> Vec<u32> {
        let mut out = Vec::new();
        gossip.pick(limit, |slot| {
            let fits = out.len() < room;
            if fits {
                out.push(slot);
            }
            fits
        });
        out
    }

    #[test]
    fn the_least_sent_goes_first_and_each_is_sent_limit_times() {
        let mut gossip = Gossip::new();
        for slot in [3, 1, 2] {
            gossip.put(slot);
        }
        assert_eq!(picked(&mut gossip, 3, 2), [3, 1]);
        assert_eq!(picked(&mut gossip, 3, 2), [2, 3]);
        gossip.put(3); // news about it starts anew
        assert_eq!(picked(&mut gossip, 3, 2), [3, 1]);
        let mut sends = [0; 4];
        while !gossip.is_empty() {
            for slot in picked(&mut gossip, 3, 2) {
                sends[slot as usize] += 1;
            }
        }
        assert_eq!(sends, [0, 1, 2, 2]);
    }

    #[test]
    fn a_large_entry_does_not_block_smaller_ones() {
        let mut gossip = Gossip::new();
        for slot in 0..4 {
            gossip.put(slot);
        }
        let mut out = Vec::new();
        gossip.pick(9, |slot| {
            let fits = slot != 1;
            if fits {
                out.push(slot);
            }
            fits
        });
        assert_eq!(out, [0, 2, 3]);
        gossip.remove(1);
        gossip.remove(1);
        assert_eq!(picked(&mut gossip, 9, 9), [0, 2, 3]);
    }
}
