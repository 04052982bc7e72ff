//! Own writes that the log lost.
//!
//! A log that is synced before a write leaves tells of all own writes, unless the disk loses what it said was safe. Then a
//! life that is taken up again gives names away that are taken. Peers show it soon: they know of own writes that were not
//! made here. So a life that was taken up ends at the first such word, and the values that it has written so far are
//! written again by the next one. What the others know by a name that was used twice is most often found, and taken,
//! when contents are compared: [`Event::Diverged`](crate::Event::Diverged) tells of that.
//!
//! It is damage that is limited here, not undone. A removal by such a name is not made again. A node that has written as
//! much as it lost before it hears of it uses all the lost names up, and nothing shows it then. Two values of one key by
//! one name are not told apart. And whoever takes a full sync from a node that has used a name for another key drops
//! what it knew by it.
//!
//! A life that begins with nothing cannot have lost anything: there such a word is a forgery, and refused. So an insider
//! can end a life once per start of a node, and have it write its values since then again, all at once.

use alloc::vec::Vec;

use super::Map;
use super::dot::Packed;
use crate::time::Instant;

impl Map {
    /// A peer tells of writes of this life that it has not made.
    pub(super) fn hear_of_unmade(&mut self, now: Instant) {
        let (former, made) = (self.replicas.me(), self.replicas.made());
        let Some(resumed) = self.resumed.filter(|_| self.begin_life()) else {
            self.stats.chunks_forged += 1;
            return;
        };
        self.stats.lives_lost += 1;
        for counter in resumed + 1..=made {
            let dot = Packed::new(former, counter);
            let Some(slot) = self.replicas.slot(dot) else { continue };
            let entry = self.store.entry(slot);
            let Some(own) = entry.siblings().find(|own| own.dot == dot) else { continue };
            let (key, stored) = (Vec::from(entry.key), Vec::from(own.value));
            let new = self.write_again(now, (slot, &key), &stored, |other| other == dot);
            self.tell_written_anew(&key, dot, new);
        }
    }
}
