//! Writes to the map, and when each replica shows them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use brickwork_core::map::Dot;
use brickwork_core::sim::Sim;
use brickwork_core::{Event, Instant};

use super::figures::Latencies;
use super::file::Writes;
use super::load::time;
use super::script::Dice;
use super::truth::{Bits, Truth};

/// A write on its way to the replicas.
#[derive(Debug)]
struct Write {
    dot: Dot,
    at: Instant,
    /// Who was up then and does not reflect it.
    without: Bits,
    left: usize,
}

/// The writes of a scenario under way.
pub(super) struct Keys<'s> {
    writes: &'s Writes,
    dice: Dice,
    number: u64,
    /// Between two writes.
    pause: Duration,
    begin: Duration,
    end: Duration,
    /// Keys to be removed, by when and by whom if that is still up.
    doomed: VecDeque<(Duration, usize, Vec<u8>)>,
    under_way: BTreeMap<Vec<u8>, Vec<Write>>,
    pub(super) visible: Latencies,
}

impl<'s> Keys<'s> {
    pub(super) fn new(writes: &'s Writes, end: Duration, seed: u64) -> Self {
        Self {
            writes,
            dice: Dice::new(seed, 2),
            number: 0,
            pause: Duration::from_secs_f64(1.0 / writes.rate.get_ref()),
            begin: time(writes.begin.as_ref()),
            end,
            doomed: VecDeque::new(),
            under_way: BTreeMap::new(),
            visible: Latencies::default(),
        }
    }

    pub(super) const fn count(&self) -> u64 {
        self.number
    }

    /// When the next write or removal is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let doomed = self.doomed.front().map(|(at, ..)| *at);
        self.next_write().into_iter().chain(doomed).min()
    }

    fn next_write(&self) -> Option<Duration> {
        // Times are exact multiples, so that rounding does not add up.
        let at =
            self.begin + Duration::from_secs_f64(self.number as f64 * self.pause.as_secs_f64());
        (at < self.end).then_some(at)
    }

    /// Writes all keys, one after the other at one node after the other.
    pub(super) fn preload(&self, sim: &mut Sim) {
        let Some(keys) = self.writes.keys.as_ref().filter(|_| self.writes.preload) else { return };
        let value = vec![0; *self.writes.value_bytes.get_ref()];
        let nodes = sim.len();
        for number in 0..*keys.get_ref() {
            let key = self.key(number as u64);
            let done = sim.with(number % nodes, |node, now| node.insert(now, &key, &value));
            done.expect("all are up").expect("it is within the limits");
        }
    }

    fn key(&self, number: u64) -> Vec<u8> {
        let mut key = vec![b'k'; *self.writes.key_bytes.get_ref()];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    /// Writes and removes what is due at `at` since the beginning.
    pub(super) fn act(&mut self, sim: &mut Sim, truth: &Truth, at: Duration) {
        while self.doomed.front().is_some_and(|(due, ..)| *due <= at) {
            let Some((_, place, key)) = self.doomed.pop_front() else { break };
            if let Some(place) = up_from(truth, sim.len(), place) {
                let _ = sim.with(place, |node, now| node.remove(now, &key).map(drop));
            }
        }
        while self.next_write().is_some_and(|due| due <= at) {
            self.write(sim, truth, at);
        }
    }

    fn write(&mut self, sim: &mut Sim, truth: &Truth, at: Duration) {
        let number = match &self.writes.keys {
            Some(keys) => self.dice.below(*keys.get_ref() as u64),
            None => self.number,
        };
        let nodes = sim.len();
        let key = self.key(number);
        let mut value = vec![0; *self.writes.value_bytes.get_ref()];
        let len = value.len().min(8);
        value[..len].copy_from_slice(&self.number.to_be_bytes()[..len]);
        self.number += 1;
        let writer = self.dice.below(nodes as u64) as usize;
        let Some(writer) = up_from(truth, nodes, writer) else { return };
        let Some(done) = sim.with(writer, |node, now| node.insert(now, &key, &value)) else {
            return;
        };
        let dot = done.expect("it is within the limits");
        let mut without = Bits::new(nodes);
        let others = (0..nodes).filter(|&place| place != writer && truth.is_up(place));
        let left = others.filter(|&place| without.set(place, true)).count();
        if let Some(lifetime) = &self.writes.lifetime {
            self.doomed.push_back((at + lifetime.get_ref().0, writer, key.clone()));
        }
        let write = Write { dot, at: sim.now(), without, left };
        self.under_way.entry(key).or_default().push(write);
    }

    /// What the node at `place` says changed.
    pub(super) fn heard(&mut self, sim: &Sim, place: usize, event: &Event) {
        let Event::Changed { key, .. } = event else { return };
        let Some(writes) = self.under_way.get_mut(&**key) else { return };
        look(sim, place, writes, &mut self.visible);
        if writes.is_empty() {
            self.under_way.remove(&**key);
        }
    }

    /// Looks for what arrived without a change, since another value is read for the key.
    pub(super) fn sweep(&mut self, sim: &Sim) {
        let visible = &mut self.visible;
        self.under_way.retain(|_, writes| {
            for place in 0..sim.len() {
                look(sim, place, writes, visible);
            }
            !writes.is_empty()
        });
    }

    /// Whoever dies need not see anything any more.
    pub(super) fn crashed(&mut self, place: usize) {
        self.under_way.retain(|_, writes| {
            for write in &mut *writes {
                write.left -= usize::from(write.without.set(place, false));
            }
            writes.retain(|write| write.left > 0);
            !writes.is_empty()
        });
    }

    /// When each write was visible where, and how many pairs are left without.
    pub(super) fn finish(mut self) -> (Latencies, u64) {
        let unseen = self.under_way.values().flatten().map(|write| write.left as u64).sum();
        self.visible.never(unseen);
        self.visible.sort();
        (self.visible, unseen)
    }
}

/// Takes from the writes what the node at `place` reflects by now.
fn look(sim: &Sim, place: usize, writes: &mut Vec<Write>, visible: &mut Latencies) {
    let Some(node) = sim.node(place) else { return };
    for write in &mut *writes {
        if write.without.has(place) && node.map().reflects(write.dot) {
            write.without.set(place, false);
            write.left -= 1;
            visible.push(sim.now() - write.at);
        }
    }
    writes.retain(|write| write.left > 0);
}

/// The first place from `place` on whose node is up.
fn up_from(truth: &Truth, nodes: usize, place: usize) -> Option<usize> {
    (0..nodes).map(|step| (place + step) % nodes).find(|&place| truth.is_up(place))
}
