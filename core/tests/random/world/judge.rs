//! What must hold of a world of replicas: after every step, and in the calm at the end.

use std::rc::Rc;
use std::time::Duration;

use brickwork_core::Event;
use brickwork_core::map::Dot;

use super::{Outcome, World, ensure};
use crate::model::Events;

impl World<'_> {
    /// Compares a replica with the model.
    pub(super) fn check(&mut self, at: usize) -> Outcome {
        for key in 0..self.keys.len() {
            self.check_key(at, key)?;
        }
        self.replicas[at].told = None;
        let map = &mut self.replicas[at].map;
        // Not every time, for it takes longer than all the rest.
        if self.history.len().is_multiple_of(8) {
            let mut keys: Vec<_> =
                map.iter().filter(|(key, _)| key.starts_with(b"key-1")).collect();
            keys.sort_unstable();
            ensure!(map.prefix(b"key-1").eq(keys), "the keys are not in order at {at}");
        }
        while let Some(event) = map.poll_event() {
            ensure!(matches!(event, Event::Changed { .. }), "{event:?}");
        }
        let (context, content) = map.digest();
        let stats = *map.stats();
        ensure!(stats.diverged == 0, "a peer has other content for the same context");
        ensure!(stats.chunks_forged == 0, "an honest chunk is called forged");
        ensure!(stats.oversize == 0, "an entry is told to nobody: the test asks too much");
        let known = *self.contents.entry(context).or_insert(content);
        ensure!(known == content, "OC2: equal contexts with unequal contents");
        Ok(())
    }

    fn check_key(&mut self, at: usize, key: usize) -> Outcome {
        let arrived = self.arrivals(at, key)?;
        let (name, replica) = (&self.keys[key], &self.replicas[at]);
        let map = &replica.map;
        let value = &replica.value[key];
        let mut shown = Events::new();
        for sibling in map.siblings(name) {
            let dot = sibling.dot;
            ensure!(value.contains(&dot), "I1: {dot:?} of key {key} is shown at {at}");
            let right = self.history[dot].value.as_deref() == Some(sibling.value);
            ensure!(right, "{dot:?} has another value");
            shown.insert(dot);
        }
        ensure!(shown == *value, "I1: key {key} at {at} is {shown:?} and not {value:?}");
        let winner = self.history.winner(value);
        let read = winner.and_then(|dot| self.history[dot].value.as_deref());
        ensure!(map.get(name) == read, "the winner of key {key} at {at} is not {winner:?}");
        let latest = value.iter().max_by_key(|dot| self.history.age(**dot)).copied();
        let (several, another) = (value.len() > 1, winner != latest);
        self.met("concurrent siblings", several && arrived);
        self.met("winner that is not the latest", another && arrived);
        Ok(())
    }

    /// Takes into the model what the replica newly claims of a key. Returns whether there is anything.
    fn arrivals(&mut self, at: usize, key: usize) -> Outcome<bool> {
        let replica = &mut self.replicas[at];
        let (map, claims) = (&replica.map, &mut replica.claims[key]);
        let (before, reflected) = (replica.reflects[key].clone(), &mut replica.reflects[key]);
        let (mut removal, mut put_late, mut foreign) = (false, false, false);
        let claims_before = claims.len();
        for &dot in self.history.of_key(&self.keys[key]) {
            let claimed = map.reflects(dot);
            if claimed && claims.insert(dot) {
                let put = self.history[dot].value.is_some();
                put_late |= put && reflected.contains(&dot);
                removal |= !put;
                foreign |= dot.replica != map.replica();
                self.history.add_closed(Rc::make_mut(reflected), dot);
            }
            ensure!(claimed || !claims.contains(&dot), "OC5: {dot:?} is no longer claimed at {at}");
        }
        let arrived = claims.len() > claims_before;
        let mut superseded = false;
        if reflected.len() > before.len() {
            let told = replica.told.as_ref().map(|told| &told[key]);
            for dot in reflected.difference(&before) {
                let own = dot.replica == map.replica();
                let heard = told.is_some_and(|told| told.contains(dot));
                ensure!(own || heard, "{dot:?} of key {key} is reflected at {at}, by whose word?");
            }
            let value = self.history.value(reflected);
            superseded = !replica.value[key].is_subset(&value);
            replica.value[key] = value;
        }
        let survivor = removal && !replica.value[key].is_empty();
        self.met("superseded by what arrived", superseded && foreign);
        self.met("arrived superseded", put_late);
        self.met("removal beside a concurrent value", survivor);
        Ok(arrived)
    }

    /// Calm: everybody knows everybody and nothing is lost. All become equal and fall silent; what
    /// arrives after that changes nothing.
    pub(super) fn end(&mut self) -> Outcome {
        let late = std::mem::take(&mut self.flights);
        self.meet_all();
        self.calm(Duration::from_secs(20))?;
        let digest = self.replicas[0].map.digest();
        for at in 0..self.replicas.len() {
            ensure!(self.replicas[at].map.digest() == digest, "I6: 0 and {at} differ");
            for key in 0..self.keys.len() {
                let (a, b) = (&self.replicas[0], &self.replicas[at]);
                ensure!(a.value[key] == b.value[key], "I6: 0 and {at} differ in key {key}");
                // A superseded write may have died with its writer: nobody is left who could name it.
                let lives = self.replicas.iter().map(|replica| replica.map.replica());
                let named = |dot: &&Dot| lives.clone().any(|life| life == dot.replica);
                for dot in b.reflects[key].iter().filter(named) {
                    ensure!(b.map.reflects(*dot), "{dot:?} is not claimed at {at} in the end");
                }
            }
        }
        let asked = self.calm(Duration::from_secs(6))?;
        ensure!(asked == 0, "I6: {asked} datagrams are more than digests");
        // Digests are told at random: it may take as long as collecting all of a kind of coupons.
        self.calm(Duration::from_secs(180))?;
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let left = replica.map.metadata();
            // A write that died with its writer is waited for by those that came after it.
            let gap = self.has_gap(at);
            self.met("write that is waited for in vain", gap);
            self.met("nothing left to collect", left == (0, 0));
            ensure!(gap || left == (0, 0), "I7: {at} keeps {left:?}");
            let map = &self.replicas[at].map;
            let live = self.keys.iter().flat_map(|key| {
                let values: Vec<_> = map.siblings(key).map(|sibling| sibling.value.len()).collect();
                let key = if values.is_empty() { 0 } else { key.len() };
                values.into_iter().chain([key])
            });
            let live: usize = live.sum();
            ensure!(gap || map.bytes() == live, "I7: {at} has {} bytes, not {live}", map.bytes());
        }
        for flight in late {
            let to = flight.to;
            self.deliver(flight)?;
            self.check(to)?;
            ensure!(self.replicas[to].map.digest() == digest, "a late datagram changed {to}");
        }
        Ok(())
    }

    /// Whether a replica has a write of some life without one before it.
    fn has_gap(&self, at: usize) -> bool {
        let map = &self.replicas[at].map;
        self.keys.iter().flat_map(|key| self.history.of_key(key)).any(|dot| {
            let before = Dot::new(dot.replica, dot.counter - 1);
            map.reflects(*dot) && before.counter > 0 && !map.reflects(before)
        })
    }
}
