//! A replica with a log, its disk, and crashes that lose what was not durable.

use std::rc::Rc;

use brickwork_core::map::{Dot, LogKind, LogWrite};

use super::{Outcome, PerKey, Replica, World, ensure};
use crate::common::Dice;
use crate::model::Events;

/// A write on its way to the disk, and what the replica was when it was handed out.
struct Pending {
    write: LogWrite,
    state: State,
}

#[derive(Clone)]
struct State {
    digest: (u64, u64),
    len: usize,
    /// Its own last write, in the life that it was in.
    last: Dot,
    claims: PerKey,
    reflects: PerKey,
    whole: PerKey,
    value: PerKey,
}

/// The chunks that survive everything, and the writes that may be lost.
#[derive(Default)]
pub(super) struct Disk {
    chunks: Vec<Vec<u8>>,
    state: Option<State>,
    pending: Vec<Pending>,
}

impl Disk {
    /// The first pending write becomes durable. Returns its ticket.
    fn sync(&mut self) -> Option<u64> {
        if self.pending.is_empty() {
            return None;
        }
        let Pending { write, state } = self.pending.remove(0);
        if write.kind != LogKind::Append {
            self.chunks.clear();
        }
        self.chunks.extend(write.chunks);
        self.state = Some(state);
        Some(write.ticket)
    }
}

impl World<'_> {
    /// Some of what is to be written is handed to the disk, and some of that becomes durable.
    pub(super) fn write_log(&mut self, at: usize, luck: &mut Dice) -> Outcome {
        if !self.plan.durable {
            return Ok(());
        }
        if luck.percent(80) {
            self.hand_out(at);
        }
        for _ in 0..luck.below(3) {
            self.sync_one(at)?;
        }
        Ok(())
    }

    /// All that is to be written becomes durable.
    pub(super) fn sync_log(&mut self, at: usize) -> Outcome {
        self.hand_out(at);
        while self.sync_one(at)? {}
        Ok(())
    }

    fn hand_out(&mut self, at: usize) {
        while let Some(write) = self.replicas[at].map.poll_log() {
            self.met("log begun", write.kind == LogKind::Begin);
            self.met("log compacted", write.kind == LogKind::Compact);
            let replica = &mut self.replicas[at];
            let state = replica.state();
            if let Some(disk) = &mut replica.disk {
                disk.pending.push(Pending { write, state });
            }
        }
    }

    fn sync_one(&mut self, at: usize) -> Outcome<bool> {
        let replica = &mut self.replicas[at];
        let Some(ticket) = replica.disk.as_mut().and_then(Disk::sync) else { return Ok(false) };
        replica.map.log_synced(self.now, ticket);
        let state = replica.disk.as_ref().and_then(|disk| disk.state.as_ref());
        let life = replica.map.replica();
        let last = state.map(|state| state.last).filter(|last| last.replica == life);
        let last = last.map_or(0, |last| last.counter);
        for counter in 1..=replica.last().counter {
            let durable = replica.map.is_durable(Dot::new(life, counter));
            ensure!(durable == (counter <= last), "{counter} is durable at {at}: {durable}");
        }
        Ok(true)
    }

    /// A replica crashes, and starts again from what is on its disk: as the one that it was.
    pub(super) fn crash(&mut self, at: usize, luck: &mut Dice) -> Outcome<Option<usize>> {
        let replica = &mut self.replicas[at];
        let before = replica.map.replica();
        let Some(mut disk) = replica.disk.take() else { return Ok(None) };
        let boot = self.next_boot(at, luck);
        // What was written and not synced may be there, from the first on, or not.
        for _ in 0..luck.below(disk.pending.len() + 1) {
            disk.sync();
        }
        self.met("crash that loses what was on its way", !disk.pending.is_empty());
        self.restores += 1;
        let mut again = self.replica(before.node.0, boot);
        let life = if let Some(state) = disk.state.clone() {
            let done = again.map.resume(self.now, &disk.chunks);
            ensure!(done == Ok(()), "the log is refused: {done:?}");
            let life = state.last.replica;
            ensure!(again.map.replica() == life, "another life is resumed");
            self.met("crash that takes back a life", life != before);
            ensure!(again.map.digest() == state.digest, "another map is restored");
            ensure!(again.map.len() == state.len, "another number of keys is restored");
            let State { claims, reflects, whole, value, .. } = state;
            (again.claims, again.reflects) = (claims, reflects);
            (again.whole, again.value) = (whole, value);
            life
        } else {
            // Nothing of it has left.
            before
        };
        // The old file is there until the new one is.
        disk.pending.clear();
        again.disk = Some(disk);
        again.lives = vec![life];
        self.forget_lost(at, &again)?;
        // Only now, for it was the next word of the old life that was waited for.
        self.replicas[at] = again;
        self.readings.retain(|reading| reading.at != at);
        // The names of what is lost are given again.
        self.contents.clear();
        (0..self.replicas.len()).for_each(|peer| self.meet(at, peer));
        self.met("crash", true);
        Ok(Some(at))
    }

    /// A replica that goes on as another life may crash before that is on disk, once. Returns whether it does.
    pub(super) fn crash_in_another_life(&mut self, at: usize) -> Outcome<bool> {
        let replica = &mut self.replicas[at];
        let life = replica.map.replica();
        let state = replica.disk.as_ref().and_then(|disk| disk.state.as_ref());
        if state.is_none_or(|state| state.last.replica == life) || replica.taken_back {
            return Ok(false);
        }
        let mut luck = Dice(life.epoch);
        let crashes = luck.percent(50);
        if crashes {
            self.crash(at, &mut luck)?;
            self.check(at)?;
            self.meet_all();
        }
        self.replicas[at].taken_back = true;
        Ok(crashes)
    }

    /// What was not durable nobody else has heard of.
    fn forget_lost(&mut self, at: usize, again: &Replica) -> Outcome {
        let lives = self.replicas[at].lives.clone();
        let own = |dot: &Dot| lives.contains(&dot.replica);
        let knows = |key: &Vec<u8>, dot: &Dot| {
            let key = self.keys.iter().position(|known| known == key);
            key.is_some_and(|key| again.claims[key].contains(*dot))
        };
        let made = self.keys.iter().flat_map(|key| {
            self.history.of_key(key).iter().filter(|dot| own(dot) && !knows(key, dot)).copied()
        });
        let lost: Vec<Dot> = made.collect();
        for dot in lost {
            let knows = |reflected: &[Rc<Events>]| reflected.iter().any(|key| key.contains(dot));
            let mut under_way = self.flights.iter().chain(self.taken.iter().map(|it| &it.0));
            ensure!(!under_way.any(|flight| knows(&flight.knew)), "{dot:?} left, and is lost");
            let mut others = self.replicas.iter().enumerate().filter(|(other, _)| *other != at);
            ensure!(!others.any(|(_, it)| knows(&it.reflects)), "{dot:?} arrived, and is lost");
            self.history.forget(dot);
        }
        let counts = |dot: &Dot| again.map.reflects(*dot) || again.map.is_void(*dot);
        let lost = |dot: &Dot| own(dot) && !counts(dot);
        for dot in self.nowhere.keys().filter(|dot| lost(dot)) {
            let mut others = self.replicas.iter().enumerate().filter(|(other, _)| *other != at);
            ensure!(!others.any(|(_, it)| it.map.reflects(*dot)), "{dot:?} arrived, and is lost");
        }
        self.nowhere.retain(|dot, _| !lost(dot));
        Ok(())
    }
}

impl Replica {
    fn state(&self) -> State {
        State {
            digest: self.map.digest(),
            len: self.map.len(),
            last: self.last(),
            claims: self.claims.clone(),
            reflects: self.reflects.clone(),
            whole: self.whole.clone(),
            value: self.value.clone(),
        }
    }
}
