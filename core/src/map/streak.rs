//! Streaks: lone values in a row, each the next write of one writer, which is most of what a map hears.
//!
//! Little has to be asked of such a value if its key is new, or has a lone one that the same writer gave it before: a join
//! comes to the same, at thrice the cost. The values of a streak are taken in one by one, and their dots are claimed at
//! its end, all at once; until then nobody asks for them.

use smallvec::SmallVec;

use super::Map;
use super::apply::Objects;
use super::dot::{Dot, Packed};
use crate::event::{Event, Key};
use crate::reached::reached;

/// What was taken in and is not claimed yet.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// The dot that goes on with it, once there is one.
    next: Option<Packed>,
    /// What its dots are about.
    slots: SmallVec<[u32; 32]>,
}

impl Map {
    /// Takes in a lone value, with its own mark or without, if it goes on with the streak, or begins one, and is as
    /// simple as that. Returns its slot.
    #[inline]
    pub(super) fn follow(
        &mut self,
        streak: &mut Streak,
        objects: &Objects,
        key: &[u8],
        (dot, value): (Packed, &[u8]),
        mark: bool,
    ) -> Option<u32> {
        let next = streak.next.map_or_else(|| self.replicas.is_next(dot), |next| next == dot);
        let guess = objects.guess().filter(|_| next)?;
        if mark && let Some(before) = self.store.follow(&self.replicas, guess, key, dot, value) {
            self.take_next(streak, guess.slot, key, Some(before), dot);
            return Some(guess.slot);
        }
        let look = self.store.check(guess, key);
        if look.slot.is_some() {
            return None;
        }
        let slot = self.store.insert_lone(&self.replicas, look, key, dot, value, mark)?;
        reached!("map: lone value of a new key");
        self.take_next(streak, slot, key, None, dot);
        Some(slot)
    }

    fn take_next(
        &mut self,
        streak: &mut Streak,
        slot: u32,
        key: &[u8],
        before: Option<Packed>,
        dot: Packed,
    ) {
        streak.next = Some(dot.next());
        streak.slots.push(slot);
        self.retiring.note_named(&[dot]);
        self.hear_times(slot);
        self.stop_waiting(slot);
        let replica = self.replicas.id(dot.replica());
        // The one before was of the same writer.
        let name = |dot: Packed| Dot { replica, counter: dot.counter() };
        let (key, old, new) = (Key::new(key), before.map(name), Some(name(dot)));
        self.events.push(Event::Changed { key, old, new });
    }

    /// Claims the dots of a streak, if there is one. Returns them: a replica, the first and the last.
    pub(super) fn end_streak(&mut self, streak: &mut Streak) -> Option<(u16, u64, u64)> {
        let next = streak.next.take()?;
        let (replica, last) = (next.replica(), next.counter() - 1);
        let first = next.counter() - streak.slots.len() as u64;
        if first < last {
            reached!("map: several of a streak");
        }
        self.replicas.claim_run(replica, &streak.slots);
        if self.log.is_some() {
            for (counter, slot) in (first..).zip(&streak.slots) {
                self.note_for_log(Packed::new(replica, counter), *slot);
            }
        }
        streak.slots.clear();
        Some((replica, first, last))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::NodeId;
    use crate::map::skim::Skim;
    use crate::map::store::Entry;
    use crate::map::wire;
    use crate::map::{Config, ReplicaId};
    use crate::time::Instant;
    use crate::wire as packet;

    const NOW: Instant = Instant::ZERO;

    fn replica(id: u64, peer: u64) -> Map {
        let life = ReplicaId::new(NodeId(id), 1);
        let mut map = Map::new(NOW, life, "test", Config::lan(), 1_400, [7; 32]).unwrap();
        map.peer_up(NOW, NodeId(peer), 1, ([10, 0, 0, 1], 1).into());
        map
    }

    /// Takes in a packet without a guess, so that each of its items is joined.
    fn join(map: &mut Map, packet: &[u8]) {
        let (sender, frames) = packet::open(packet, map.cluster).unwrap();
        let (mut check, mut skim) = (frames, Skim::default());
        while let Some((tag, body)) = check.next().unwrap() {
            wire::check(tag, body, &mut skim).unwrap();
        }
        skim.keys.clear();
        map.apply(NOW, sender, frames, &skim);
    }

    /// Who writes, the key, and the length of the value; without one it is a removal.
    type Write = (bool, u8, Option<usize>);

    fn write(map: &mut Map, key: u8, len: Option<usize>) {
        match len {
            Some(len) => map.insert(NOW, &[key], &alloc::vec![key; len]).map(drop).unwrap(),
            None => map.remove(NOW, &[key]).map(drop).unwrap(),
        }
    }

    fn events(map: &mut Map) -> Vec<Event> {
        core::iter::from_fn(|| map.poll_event()).collect()
    }

    /// Everything that a chunk changes, but for the events.
    fn assert_same(a: &Map, b: &Map) {
        assert_eq!(a.digest(), b.digest());
        let sums = |map: &Map| {
            let store = &map.store;
            (store.digest(), store.bytes(), store.live(), store.own(), store.keys())
        };
        assert_eq!(sums(a), sums(b));
        for entry in a.store.entries().filter(|entry| !entry.is_empty()) {
            let told = |entry: Entry<'_>| {
                let dots: Vec<_> = entry.siblings().map(|sibling| sibling.dot).collect();
                (dots, entry.superseded().collect::<Vec<_>>())
            };
            let same = b.store.slot(entry.key).unwrap();
            assert_eq!(told(entry), told(b.store.entry(same)));
        }
        for replica in a.replicas.numbers() {
            for counter in 1..=a.replicas.base(replica) {
                let dot = Packed::new(replica, counter);
                let about = |map: &Map| {
                    map.replicas.slot(dot).map(|slot| map.store.entry(slot).key.to_vec())
                };
                assert_eq!(about(a), about(b), "{dot:?}");
            }
        }
        let known = |map: &Map| map.peers.get(0).map(|peer| alloc::format!("{:?}", peer.known));
        assert_eq!(known(a), known(b));
        assert_eq!(a.stats.dots_received, b.stats.dots_received);
    }

    proptest! {
        /// Method: chunks from a writer, some of which are lost, taken in as they come and joined item by item, beside writes
        /// of the reader's own.
        #[test]
        fn a_streak_comes_to_what_joins_come_to(
            rounds in proptest::collection::vec(
                (proptest::collection::vec((any::<bool>(), 0..9_u8, prop::option::weighted(0.8, 0..40_usize)), 1..12), prop::bool::weighted(0.9)),
                1..12,
            ),
        ) {
            let mut writer = replica(1, 2);
            let (mut one, mut other) = (replica(2, 1), replica(2, 1));
            let mut buf = [0; 1_400];
            let mut now = NOW;
            for (writes, heard) in rounds {
                let writes: Vec<Write> = writes;
                for (own, key, len) in writes {
                    if own {
                        write(&mut one, key, len);
                        write(&mut other, key, len);
                    } else {
                        write(&mut writer, key, len);
                    }
                }
                now += core::time::Duration::from_millis(100);
                writer.handle_timeout(now);
                while let Some(sent) = writer.poll_transmit(&mut buf) {
                    if heard {
                        let mut packet = sent.payload.to_vec();
                        join(&mut other, &packet);
                        one.handle_packet(NOW, ([10, 0, 0, 1], 1).into(), &mut packet).unwrap();
                    }
                }
                prop_assert_eq!(events(&mut one), events(&mut other));
                assert_same(&one, &other);
            }
        }
    }
}
