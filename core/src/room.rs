//! Room in tables with a row for every member.

use alloc::vec::Vec;

/// Makes room for `more` rows: at least an eighth of what there is, so that adding one takes constant time
/// on average. A table that doubles instead is up to half empty as long as it lives.
pub(crate) fn reserve<T>(table: &mut Vec<T>, more: usize) {
    if table.capacity() - table.len() < more {
        table.reserve_exact(more.max(table.len() / 8).max(4));
    }
}

/// Extends a table of slots by empty ones until it has `slot`.
pub(crate) fn reach<T: Clone>(table: &mut Vec<T>, slot: u32, empty: T) {
    let len = slot as usize + 1;
    if table.len() < len {
        reserve(table, len - table.len());
        table.resize(len, empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_by_an_eighth() {
        let mut table = Vec::new();
        let mut moves = 0;
        for slot in 0..10_000_u32 {
            let before = table.capacity();
            reach(&mut table, slot, 0_u8);
            moves += u32::from(table.capacity() != before);
            assert_eq!(table.len(), slot as usize + 1);
            assert!(table.capacity() <= table.len() + (table.len() / 8).max(4));
        }
        assert!(moves < 100, "{moves} moves");
        reach(&mut table, 5, 1);
        assert_eq!((table.len(), table[5]), (10_000, 0));
    }
}
