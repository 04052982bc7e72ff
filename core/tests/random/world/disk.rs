//! A replica with a log, its disk, and crashes that lose what was not durable.

use std::rc::Rc;

use brickwork_core::map::{Dot, LogKind, LogWrite};

use super::{Outcome, Reflected, Replica, World, ensure, id};
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
    /// Its own last write.
    last: u64,
    claims: Vec<Events>,
    reflects: Reflected,
    value: Vec<Events>,
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
        let last = replica.disk.as_ref().and_then(|disk| disk.state.as_ref()).map(|it| it.last);
        let life = replica.map.replica();
        for counter in 1..=replica.last().counter {
            let durable = replica.map.is_durable(Dot::new(life, counter));
            ensure!(durable == (Some(counter) <= last), "{counter} is durable at {at}: {durable}");
        }
        Ok(true)
    }

    /// A replica crashes, and starts again from what is on its disk: as the one that it was.
    pub(super) fn crash(&mut self, at: usize, luck: &mut Dice) -> Outcome<Option<usize>> {
        let replica = &mut self.replicas[at];
        let (life, boot, last) = (replica.map.replica(), replica.boot + 1, replica.last());
        let Some(mut disk) = replica.disk.take() else { return Ok(None) };
        // What was written and not synced may be there, from the first on, or not.
        for _ in 0..luck.below(disk.pending.len() + 1) {
            disk.sync();
        }
        self.met("crash that loses what was on its way", !disk.pending.is_empty());
        self.restores += 1;
        let mut again = self.replica(life.node.0, boot);
        let kept = if let Some(state) = disk.state.clone() {
            let done = again.map.resume(self.now, &disk.chunks);
            ensure!(done == Ok(()), "the log is refused: {done:?}");
            ensure!(again.map.replica() == life, "another life is resumed");
            ensure!(again.map.digest() == state.digest, "another map is restored");
            ensure!(again.map.len() == state.len, "another number of keys is restored");
            again.written = state.last;
            let State { last, claims, reflects, value, .. } = state;
            (again.claims, again.reflects, again.value) = (claims, reflects, value);
            last
        } else {
            0
        };
        // The old file is there until the new one is.
        disk.pending.clear();
        again.disk = Some(disk);
        self.forget_lost(at, life.node.0, (kept + 1..=last.counter).map(|n| Dot::new(life, n)))?;
        // Only now, for it was the next word of the old life that was waited for.
        self.replicas[at] = again;
        self.readings.retain(|reading| reading.at != at);
        // The names of what is lost are given again.
        self.contents.clear();
        (0..self.replicas.len()).for_each(|peer| self.meet(at, peer));
        self.met("crash", true);
        Ok(Some(at))
    }

    /// What was not durable nobody else has heard of.
    fn forget_lost(&mut self, at: usize, node: u64, lost: impl Iterator<Item = Dot>) -> Outcome {
        ensure!(node == id(at), "the life of another node");
        for dot in lost {
            let knows = |reflected: &[Rc<Events>]| reflected.iter().any(|key| key.contains(&dot));
            let mut under_way = self.flights.iter().chain(&self.taken);
            ensure!(!under_way.any(|flight| knows(&flight.knew)), "{dot:?} left, and is lost");
            let mut others = self.replicas.iter().enumerate().filter(|(other, _)| *other != at);
            ensure!(!others.any(|(_, it)| knows(&it.reflects)), "{dot:?} arrived, and is lost");
            self.history.forget(dot);
        }
        Ok(())
    }
}

impl Replica {
    fn state(&self) -> State {
        State {
            digest: self.map.digest(),
            len: self.map.len(),
            last: self.last().counter,
            claims: self.claims.clone(),
            reflects: self.reflects.clone(),
            value: self.value.clone(),
        }
    }
}
