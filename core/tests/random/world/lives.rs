//! Replicas that start again, with their state or without, and the epochs of that.

use brickwork_core::NodeId;
use brickwork_core::map::ReplicaId;

use super::{Epochs, Outcome, World, ensure, id};
use crate::common::Dice;

impl World<'_> {
    /// A replica starts again as what it was: whatever holds of it holds still.
    pub(super) fn restore(&mut self, at: usize) -> Outcome<Option<usize>> {
        self.restores += 1;
        let before = &self.replicas[at];
        let (life, marks) = (before.map.replica(), before.map.metadata().0);
        let mut map = self.replica(life.node.0, life.epoch).map;
        let done = map.restore(self.now, before.map.snapshot());
        ensure!(done == Ok(()), "a snapshot is refused: {done:?}");
        ensure!(map.digest() == before.map.digest(), "another map is restored");
        ensure!(map.len() == before.map.len(), "another number of keys is restored");
        ensure!(map.metadata().0 <= marks, "a mark appears");
        let replica = &mut self.replicas[at];
        (replica.map, replica.told, replica.staged) = (map, None, None);
        replica.boot = life.epoch;
        self.readings.retain(|reading| reading.at != at);
        (0..self.replicas.len()).for_each(|peer| self.meet(at, peer));
        self.met("restore", true);
        Ok(Some(at))
    }

    /// The epoch of the next start of a replica.
    pub(super) fn next_boot(&mut self, at: usize, luck: &mut Dice) -> u64 {
        let (node, mut epoch) = (NodeId(id(at)), self.replicas[at].boot);
        loop {
            epoch = match self.plan.epochs {
                Epochs::Rise => epoch + 1,
                Epochs::Fall => epoch - 1,
                // As far apart as the lives that a map begins by itself, and further, up to those that are never merged.
                Epochs::Jump => luck.next() >> [45, 43, 20, 1, 0][luck.below(5)],
            };
            let boot = ReplicaId::new(node, epoch);
            if epoch > 0 && !self.used.contains(&boot) && self.boots.insert(boot) {
                return epoch;
            }
        }
    }

    pub(super) fn restart(&mut self, at: usize, luck: &mut Dice) -> Option<usize> {
        if self.restarts == self.plan.restarts {
            return None;
        }
        self.restarts += 1;
        let epoch = self.next_boot(at, luck);
        self.replicas[at] = self.replica(id(at), epoch);
        self.readings.retain(|reading| reading.at != at);
        self.met("restart", true);
        Some(at)
    }

    /// Notes the life that a replica is in.
    pub(super) fn note_life(&mut self, at: usize, life: ReplicaId) {
        let last = self.last_lives.entry(life.node).or_insert(life);
        if life < *last && self.plan.epochs != Epochs::Rise {
            self.late.insert(life);
        }
        *last = life.max(*last);
        let lives = &mut self.replicas[at].lives;
        if lives.last() != Some(&life) {
            lives.push(life);
        }
        self.used.insert(life);
    }

    /// Whether it cannot be told what becomes of a key, for a life wrote it that came after later ones. If those are merged
    /// by then, what all that hear of it have of such a life is taken for what others have superseded.
    pub(super) fn is_of_late(&self, key: usize) -> bool {
        let mut events = self.history.of_number(key).iter();
        !self.late.is_empty() && events.any(|dot| self.late.contains(&dot.replica))
    }
}
