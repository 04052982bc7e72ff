//! Deadlines by slot, the earliest first.

use alloc::vec::Vec;

use crate::room;
use crate::time::Instant;

const ABSENT: u32 = u32::MAX;

/// A binary heap of deadlines with the position of every slot beside it: setting, moving and
/// clearing one costs O(log n), asking for the earliest O(1), and each slot has at most one.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: Vec<(Instant, u32)>,
    /// Where each slot stands in the heap, `ABSENT` if nowhere.
    position: Vec<u32>,
}

impl Deadlines {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The deadline of `slot`.
    pub(crate) fn of(&self, slot: u32) -> Option<Instant> {
        let position = *self.position.get(slot as usize)?;
        self.heap.get(position as usize).map(|&(at, _)| at)
    }

    /// Sets or moves the deadline of `slot`.
    pub(crate) fn set(&mut self, slot: u32, at: Instant) {
        room::reach(&mut self.position, slot, ABSENT);
        let index = slot as usize;
        let position = if self.position[index] == ABSENT {
            self.heap.push((at, slot));
            self.heap.len() - 1
        } else {
            self.position[index] as usize
        };
        self.heap[position] = (at, slot);
        self.place(position);
    }

    /// Removes the deadline of `slot`, if it has one.
    pub(crate) fn clear(&mut self, slot: u32) {
        let Some(&position) = self.position.get(slot as usize) else { return };
        if position == ABSENT {
            return;
        }
        self.position[slot as usize] = ABSENT;
        let position = position as usize;
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.place(position);
        }
    }

    /// Removes and returns a slot whose deadline is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, u32)> {
        let &(at, slot) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.clear(slot);
        Some((at, slot))
    }

    /// Moves the entry at `position` up or down to where it belongs.
    fn place(&mut self, mut position: usize) {
        let entry = self.heap[position];
        while position > 0 && entry < self.heap[(position - 1) / 2] {
            self.put(position, self.heap[(position - 1) / 2]);
            position = (position - 1) / 2;
        }
        loop {
            let left = 2 * position + 1;
            let Some(mut child) = self.heap.get(left).copied() else { break };
            let mut at = left;
            if let Some(&right) = self.heap.get(left + 1)
                && right < child
            {
                (child, at) = (right, left + 1);
            }
            if entry <= child {
                break;
            }
            self.put(position, child);
            position = at;
        }
        self.put(position, entry);
    }

    #[allow(clippy::cast_possible_truncation)] // slots are u32, so there are no more positions
    fn put(&mut self, position: usize, entry: (Instant, u32)) {
        self.heap[position] = entry;
        self.position[entry.1 as usize] = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// With many more deadlines set than cleared, for the heap to be some levels deep.
        #[test]
        fn behaves_like_a_sorted_map(ops in proptest::collection::vec((0..60_u32, 0..50_u64, 0..8_u8), 0..300)) {
            let mut real = Deadlines::default();
            let mut model = BTreeMap::new();
            for (slot, at, op) in ops {
                let at = Instant::from_nanos(at);
                match op {
                    0..6 => { real.set(slot, at); model.insert(slot, at); }
                    6 => { real.clear(slot); model.remove(&slot); }
                    _ => {
                        let due = model.iter().map(|(&s, &a)| (a, s)).filter(|&(a, _)| a <= at).min();
                        prop_assert_eq!(real.pop(at), due);
                        if let Some((_, slot)) = due { model.remove(&slot); }
                    }
                }
                prop_assert_eq!(real.next(), model.values().min().copied());
            }
        }
    }
}
