//! The keys in their order, for maps that want it.
//!
//! Slots of four bytes in blocks of at most [`BLOCK`], the blocks in a list: a tree of two levels whose leaves lie
//! in one piece. A million keys are some 3,000 blocks; finding one takes about 20 comparisons, and adding or
//! removing one moves less than two kilobytes, and once in hundreds of times the list of blocks. The keys
//! themselves stay with the entries, so an ordered map costs five to eight bytes per key, and 16 after most were
//! removed. (A `BTreeMap` would need keys of its own, since it cannot compare by what lies elsewhere.)

use alloc::vec::Vec;

/// Most slots of a block.
const BLOCK: usize = 512;

/// Slots in the order of their keys. Every call is told how to find the key of a slot.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// None is empty.
    blocks: Vec<Vec<u32>>,
}

impl Order {
    /// Adds the slot of a key that is not there.
    pub(super) fn insert<'k>(&mut self, slot: u32, key: impl Fn(u32) -> &'k [u8]) {
        let wanted = key(slot);
        let at = self.block(wanted, &key);
        let Some(block) = self.blocks.get_mut(at) else {
            self.blocks.push(alloc::vec![slot]);
            return;
        };
        block.insert(block.partition_point(|&other| key(other) < wanted), slot);
        if block.len() > BLOCK {
            let upper = block.split_off(BLOCK / 2);
            self.blocks.insert(at + 1, upper);
        }
    }

    /// Takes a slot out, while its key can still be found.
    pub(super) fn remove<'k>(&mut self, slot: u32, key: impl Fn(u32) -> &'k [u8]) {
        let wanted = key(slot);
        let at = self.block(wanted, &key);
        let Some(block) = self.blocks.get_mut(at) else { return };
        let place = block.partition_point(|&other| key(other) < wanted);
        if block.get(place) == Some(&slot) {
            block.remove(place);
            self.merge(at);
        }
    }

    /// The slots from the first key on that is not before `first`.
    pub(super) fn from<'k>(
        &self,
        first: &[u8],
        key: impl Fn(u32) -> &'k [u8],
    ) -> impl Iterator<Item = u32> {
        let at = self.block(first, &key);
        let block = self.blocks.get(at).map_or(&[][..], Vec::as_slice);
        let begun = &block[block.partition_point(|&slot| key(slot) < first)..];
        let rest = self.blocks.get(at + 1..).unwrap_or_default();
        begun.iter().chain(rest.iter().flatten()).copied()
    }

    /// The slots got other numbers.
    pub(super) fn renumber(&mut self, new: impl Fn(u32) -> u32) {
        for slot in self.blocks.iter_mut().flatten() {
            *slot = new(*slot);
        }
        self.blocks.shrink_to_fit();
    }

    /// The block that has, or would get, a key: the last one that does not begin after it.
    fn block<'k>(&self, wanted: &[u8], key: impl Fn(u32) -> &'k [u8]) -> usize {
        let begins_before =
            |block: &Vec<u32>| block.first().is_some_and(|&slot| key(slot) <= wanted);
        self.blocks.partition_point(begins_before).saturating_sub(1)
    }

    /// A block lost a slot: any two neighbours have more than half of what one may have.
    fn merge(&mut self, at: usize) {
        for first in [Some(at), at.checked_sub(1)].into_iter().flatten() {
            if let Some([one, two]) = self.blocks.get(first..first + 2)
                && one.len() + two.len() <= BLOCK / 2
            {
                let two = self.blocks.remove(first + 1);
                self.blocks[first].extend(two);
            }
        }
        if self.blocks.get(at).is_some_and(Vec::is_empty) {
            self.blocks.remove(at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    /// Goal: the order is that of a sorted map, whatever comes and goes. Method: enough keys for many blocks,
    /// most of which go again, beside the standard library's tree.
    #[test]
    fn slots_are_in_the_order_of_their_keys() {
        // An interpreter takes its time.
        let most = if cfg!(miri) { 600 } else { 6_000_usize };
        let strategy = (any::<u64>(), 1..most, 0..100_u64);
        let mut runner = proptest::test_runner::TestRunner::default();
        let done = runner.run(&strategy, |(seed, count, keep)| {
            let mut rng = crate::rng::Rng::fork(&[seed as u8; 32], 1);
            // An odd factor keeps them apart.
            let odd = rng.u32() | 1;
            let keys: Vec<[u8; 4]> =
                (0..count as u32).map(|slot| slot.wrapping_mul(odd).to_be_bytes()).collect();
            let key = |slot: u32| &keys[slot as usize][..];
            let (mut order, mut model) = (Order::default(), BTreeMap::new());
            for slot in 0..count as u32 {
                model.insert(key(slot), slot);
                order.insert(slot, key);
            }
            let gone: Vec<u32> =
                model.values().copied().filter(|_| u64::from(rng.u32()) % 100 >= keep).collect();
            for slot in gone {
                order.remove(slot, key);
                model.remove(key(slot));
            }
            for _ in 0..20 {
                let first = rng.u32().to_be_bytes();
                let wanted = model.range(&first[..]..).map(|(_, slot)| *slot);
                prop_assert!(order.from(&first, key).eq(wanted));
            }
            prop_assert!(order.from(&[], key).eq(model.values().copied()));
            let sizes = order.blocks.iter().map(Vec::len);
            prop_assert!(sizes.clone().all(|size| size > 0 && size <= BLOCK));
            prop_assert!(sizes.clone().zip(sizes.skip(1)).all(|(one, two)| one + two > BLOCK / 2));
            Ok(())
        });
        assert!(done.is_ok(), "{done:?}");
    }
}
