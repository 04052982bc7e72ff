//! Own writes that the log lost.
//!
//! A log that is synced before a write leaves tells of all own writes, unless the disk loses what it said was safe. Then a
//! life that is taken up again gives names away that are taken. Peers show it soon: they know of own writes that were not
//! made here. So a life that was taken up is sealed at the first such word, with what the log told of it: it goes on as
//! another life of its node, and whoever has a write by one of the names beyond, be it this replica or a peer, makes it
//! again under a name of its own; see [`seal`](super::seal).
//!
//! A node that has written as much as it lost before it hears of it has used all the lost names up, and nothing shows it.
//!
//! A life that begins with nothing cannot have lost anything: there such a word is a forgery, and refused. So an insider
//! can end a life once per start of a node.

use alloc::vec;

use super::Map;
use super::dot::Runs;
use super::seal::Seal;
use crate::time::Instant;

impl Map {
    /// A peer tells of writes of this life that it has not made. Returns whether it is believed.
    pub(super) fn hear_of_unmade(&mut self, now: Instant) -> bool {
        let Some(end) = self.resumed.take() else {
            self.stats.chunks_forged += 1;
            return false;
        };
        self.stats.lives_lost += 1;
        let seal = Seal { end, void: Runs::default() };
        self.take_seals(now, vec![(self.replicas.me(), seal)]);
        true
    }
}
