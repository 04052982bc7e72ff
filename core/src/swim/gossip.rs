//! Which updates to piggyback: the least sent first.

use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::room;
use crate::sabotage::sabotaged;

const NONE: u32 = u32::MAX;
/// So many packets that tell the same, none after another one of the same sender, show that it is known (feedback and
/// counter of Demers et al. 1987, section 1.4): it is told no further. Who has not heard it learns who is there by
/// the table exchange, and what became of an accusation when it tells that.
const KNOWN: u8 = 3;
/// Send counts above this share one bucket; with the largest sensible settings none gets there.
const MAX_SENDS: usize = 255;

/// What comes first if not all can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Who refuted, left, is suspected or failed: nothing else tells it.
    Urgent,
    /// Who joined, and what members say of themselves: the table exchange tells that as well, and each member once.
    Bulk,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    /// The bucket it is in, `None` while it is not queued.
    sends: Option<u8>,
    class: Class,
    /// How often it was heard from others since it was queued,
    heard: u8,
    /// and from whom last.
    teller: u32,
}

const UNQUEUED: Link =
    Link { prev: NONE, next: NONE, sends: None, class: Class::Bulk, heard: 0, teller: NONE };

/// The entries of one class.
#[derive(Debug)]
struct Queue {
    /// First and last entry of each list.
    lists: Vec<(u32, u32)>,
    /// Bytes that may still be told before the next tick.
    budget: usize,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.lists.iter().all(|(first, _)| *first == NONE)
    }
}

/// One linked list of members per class and number of sends. A member has at most one entry, whatever is to be
/// told about it: what is written is its state at that moment. All operations are O(1).
#[derive(Debug)]
pub(super) struct Gossip {
    links: Vec<Link>,
    queues: [Queue; 2],
    len: usize,
    /// How many peers were found to have the same table since bulk news were queued, and which one last.
    same: u8,
    same_at: u32,
}

impl Gossip {
    pub(super) const fn new() -> Self {
        let queues = [const { Queue { lists: Vec::new(), budget: 0 } }; 2];
        Self { links: Vec::new(), queues, len: 0, same: 0, same_at: NONE }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues news about `slot`, replacing what was queued about it, behind all of its class that was not sent yet. What
    /// was urgent stays so: it is told with the new.
    pub(super) fn put(&mut self, slot: u32, class: Class) {
        self.put_at(slot, class, 0);
    }

    /// Queues urgent news as if it had been sent so often, unless news about `slot` that was sent less is queued already.
    pub(super) fn put_behind(&mut self, slot: u32, sends: u8) {
        let queued = self.links.get(slot as usize).and_then(|link| link.sends);
        self.put_at(slot, Class::Urgent, queued.map_or(sends, |queued| queued.min(sends)));
    }

    fn put_at(&mut self, slot: u32, class: Class, sends: u8) {
        room::reach(&mut self.links, slot, UNQUEUED);
        let link = &self.links[slot as usize];
        let urgent = link.sends.is_some() && link.class == Class::Urgent;
        self.remove(slot);
        let link = &mut self.links[slot as usize];
        link.class = if urgent { Class::Urgent } else { class };
        (link.heard, link.teller) = (0, NONE);
        if class == Class::Bulk {
            (self.same, self.same_at) = (0, NONE);
        }
        self.append(slot, sends);
    }

    /// The same, before all others.
    pub(super) fn put_first(&mut self, slot: u32) {
        self.put(slot, Class::Urgent);
        // The last of its list comes to its front.
        let list = &mut self.queues[Class::Urgent as usize].lists[0];
        let (first, last) = (list.0, self.links[slot as usize].prev);
        if first == slot {
            return;
        }
        *list = (slot, last);
        self.links[last as usize].next = NONE;
        self.links[first as usize].prev = slot;
        let link = &mut self.links[slot as usize];
        (link.prev, link.next) = (NONE, first);
    }

    /// Grants so many bytes to each class until the next tick; what is left of the last is void.
    pub(super) fn grant(&mut self, urgent: usize, bulk: usize) {
        for (queue, bytes) in self.queues.iter_mut().zip([urgent, bulk]) {
            queue.budget = bytes;
        }
    }

    /// The member in slot `teller` tells just what is queued about `slot`: once [`KNOWN`] did, it is no news any more.
    pub(super) fn heard(&mut self, slot: u32, teller: u32) {
        let link = self.links.get_mut(slot as usize).filter(|link| link.sends.is_some());
        let Some(link) = link.filter(|link| link.teller != teller) else { return };
        link.teller = teller;
        link.heard += 1;
        if link.heard >= KNOWN {
            self.remove(slot);
        }
    }

    /// The member in slot `teller` has the same table, and so knows all bulk news: once [`KNOWN`] do, they are no news any more.
    /// A cluster of 10,000 that has just met would else go on for minutes to tell who joined to those who know.
    pub(super) fn same_table(&mut self, teller: u32) {
        if self.same_at == teller || self.queues[Class::Bulk as usize].is_empty() {
            return;
        }
        (self.same, self.same_at) = (self.same + 1, teller);
        if self.same < KNOWN {
            return;
        }
        for sends in 0..self.queues[Class::Bulk as usize].lists.len() {
            loop {
                match self.queues[Class::Bulk as usize].lists[sends].0 {
                    NONE => break,
                    slot => self.remove(slot),
                }
            }
        }
    }

    /// Drops what is queued about `slot`.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(&Link { prev, next, sends: Some(sends), class, .. }) =
            self.links.get(slot as usize)
        else {
            return;
        };
        let list = &mut self.queues[class as usize].lists[sends as usize];
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

    /// Offers entries to `write`, urgent ones first and of each class the least sent, until the budget is spent or three
    /// in a row are refused. It returns the bytes that it took for one. What was taken counts as sent once more and is
    /// dropped after as many sends as the limit of its class.
    pub(super) fn pick(&mut self, limits: [u32; 2], mut write: impl FnMut(u32) -> Option<usize>) {
        let mut taken: SmallVec<[(u32, u8); 64]> = SmallVec::new();
        let mut refused = 0;
        for class in [Class::Urgent as usize, Class::Bulk as usize] {
            'lists: for sends in 0..self.queues[class].lists.len() {
                let mut at = self.queues[class].lists[sends].0;
                while at != NONE {
                    let slot = at;
                    if self.queues[class].budget == 0 || refused == 3 {
                        break 'lists;
                    }
                    at = self.links[slot as usize].next;
                    let Some(bytes) = write(slot) else {
                        // A large entry must not keep smaller ones behind it out.
                        refused += 1;
                        continue;
                    };
                    refused = 0;
                    let budget = &mut self.queues[class].budget;
                    *budget = budget.saturating_sub(bytes);
                    self.remove(slot);
                    #[allow(clippy::cast_possible_truncation)] // there are at most 256 lists
                    taken.push((slot, sends as u8));
                }
            }
        }
        for (slot, sends) in taken {
            let sends = sends.saturating_add(1);
            let limit = limits[self.links[slot as usize].class as usize];
            if u32::from(sends) < limit || sabotaged!("gossip-for-ever") {
                self.append(slot, sends);
            }
        }
    }

    fn append(&mut self, slot: u32, sends: u8) {
        let index = usize::from(sends).min(MAX_SENDS);
        let lists = &mut self.queues[self.links[slot as usize].class as usize].lists;
        if lists.len() <= index {
            lists.resize(index + 1, (NONE, NONE));
        }
        let last = lists[index].1;
        let link = &mut self.links[slot as usize];
        (link.prev, link.next, link.sends) = (last, NONE, Some(sends));
        match last {
            NONE => lists[index].0 = slot,
            last => self.links[last as usize].next = slot,
        }
        lists[index].1 = slot;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told in a datagram with room for so many, each of which takes a byte.
    fn picked(gossip: &mut Gossip, limit: u32, room: usize) -> Vec<u32> {
        let mut out = Vec::new();
        gossip.pick([limit; 2], |slot| {
            let fits = out.len() < room;
            fits.then(|| out.push(slot)).map(|()| 1)
        });
        out
    }

    fn unlimited() -> Gossip {
        let mut gossip = Gossip::new();
        gossip.grant(usize::MAX, usize::MAX);
        gossip
    }

    #[test]
    fn the_least_sent_goes_first_and_each_is_sent_limit_times() {
        let mut gossip = unlimited();
        for slot in [3, 1, 2] {
            gossip.put(slot, Class::Bulk);
        }
        assert_eq!(picked(&mut gossip, 3, 2), [3, 1]);
        assert_eq!(picked(&mut gossip, 3, 2), [2, 3]);
        gossip.put(3, Class::Bulk); // news about it starts anew
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
        let mut gossip = unlimited();
        for slot in 0..4 {
            gossip.put(slot, Class::Bulk);
        }
        let mut out = Vec::new();
        gossip.pick([9; 2], |slot| (slot != 1).then(|| out.push(slot)).map(|()| 1));
        assert_eq!(out, [0, 2, 3]);
        gossip.remove(1);
        gossip.remove(1);
        assert_eq!(picked(&mut gossip, 9, 9), [0, 2, 3]);
    }

    #[test]
    fn urgent_news_go_first_and_the_newest_refutation_before_all() {
        let mut gossip = unlimited();
        gossip.put(1, Class::Bulk);
        gossip.put(2, Class::Urgent);
        gossip.put(3, Class::Urgent);
        gossip.put_first(4);
        gossip.put_first(5);
        assert_eq!(picked(&mut gossip, 9, 4), [5, 4, 2, 3]);
        assert_eq!(
            picked(&mut gossip, 9, 9),
            [5, 4, 2, 3, 1],
            "sent once, all of them are as urgent as before"
        );
        gossip.put(1, Class::Bulk);
        gossip.put(5, Class::Bulk);
        assert_eq!(picked(&mut gossip, 9, 9), [5, 4, 2, 3, 1], "what was urgent stays urgent");
        gossip.put_first(2);
        assert_eq!(picked(&mut gossip, 9, 1), [2]);
    }

    /// What only adds to what is told waits for what is new, and keeps a better place that it has.
    #[test]
    fn what_is_new_goes_first() {
        let mut gossip = unlimited();
        gossip.put_behind(1, 2);
        gossip.put(2, Class::Urgent);
        gossip.put_behind(2, 2);
        gossip.put(3, Class::Urgent);
        for _ in 0..2 {
            assert_eq!(picked(&mut gossip, 4, 2), [2, 3]);
        }
        assert_eq!(picked(&mut gossip, 4, 9), [1, 2, 3]);
        assert_eq!(picked(&mut gossip, 4, 9), [1, 2, 3]);
        assert!(gossip.is_empty());
    }

    #[test]
    fn each_class_has_its_budget() {
        let mut gossip = Gossip::new();
        (0..8)
            .for_each(|slot| gossip.put(slot, if slot < 4 { Class::Urgent } else { Class::Bulk }));
        assert_eq!(picked(&mut gossip, 9, 9), []);
        gossip.grant(3, 2);
        assert_eq!(picked(&mut gossip, 9, 2), [0, 1]);
        assert_eq!(picked(&mut gossip, 9, 9), [2, 4, 5]);
        assert_eq!(picked(&mut gossip, 9, 9), []);
        gossip.grant(1, 9);
        assert_eq!(
            picked(&mut gossip, 9, 9),
            [3, 6, 7, 4, 5],
            "what was left is void, what was sent comes later"
        );
    }

    /// Who has the same table knows who joined, and not who is suspected; whoever joins next is news to them.
    #[test]
    fn what_those_with_the_same_table_know_is_told_no_more() {
        let mut gossip = unlimited();
        let told = |gossip: &mut Gossip| picked(gossip, 99, 9);
        gossip.put(1, Class::Urgent);
        (2..4).for_each(|slot| gossip.put(slot, Class::Bulk));
        [0, 0, 5].into_iter().for_each(|teller| gossip.same_table(teller));
        gossip.put(4, Class::Bulk);
        [6, 7, 7].into_iter().for_each(|teller| gossip.same_table(teller));
        assert_eq!(told(&mut gossip), [1, 2, 3, 4]);
        gossip.same_table(8);
        assert_eq!((told(&mut gossip).as_slice(), gossip.len), (&[1][..], 1));
        gossip.put(2, Class::Bulk);
        gossip.same_table(9);
        assert_eq!(told(&mut gossip), [1, 2]);
    }

    #[test]
    fn what_is_heard_often_enough_is_told_no_more() {
        let mut gossip = unlimited();
        gossip.put(1, Class::Urgent);
        gossip.put(2, Class::Bulk);
        gossip.heard(7, 0);
        for heard in 1..=KNOWN {
            // One that tells it twice in a row says no more than before.
            [0, 0].into_iter().for_each(|_| gossip.heard(1, u32::from(heard)));
            let told = picked(&mut gossip, 99, 9);
            assert_eq!(told.contains(&1), heard < KNOWN);
            assert!(told.contains(&2));
        }
        gossip.put(1, Class::Urgent);
        gossip.heard(1, u32::from(KNOWN));
        assert!(picked(&mut gossip, 99, 9).contains(&1), "news of it are counted anew");
    }
}
