//! Entries without what some lives wrote.

use super::change;
use super::{Marked, Part, Parts, Store, marked};
use crate::map::dot::Packed;
use crate::map::replica::Replicas;

impl Store {
    /// Takes the values and marks of these lives from an entry. Returns whose value was read before, and whose is read
    /// now, if it had any.
    pub(in crate::map) fn forget_lives(
        &mut self,
        replicas: &Replicas,
        slot: u32,
        lives: &[u16],
    ) -> Option<(Option<Packed>, Option<Packed>)> {
        let entry = self.entry(slot);
        let goes = |dot: &Packed| lives.contains(&dot.replica());
        let marks = marked(entry);
        if !entry.siblings().any(|own| goes(&own.dot)) && !marks.iter().any(goes) {
            return None;
        }
        let before = entry.winner(replicas).map(|own| own.dot);
        let own = entry.siblings().enumerate().map(|(at, own)| (own.dot, Part::Own(at)));
        let parts: Parts<'_> = own.filter(|(dot, _)| !goes(dot)).collect();
        let superseded: Marked = marks.into_iter().filter(|mark| !goes(mark)).collect();
        let after = change::winner(replicas, entry, &parts);
        self.set(replicas, slot, &parts, &superseded);
        Some((before, after))
    }
}
