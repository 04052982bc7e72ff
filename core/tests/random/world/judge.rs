//! What must hold of a world of replicas: after every step, and in the calm at the end.

use std::rc::Rc;
use std::time::Duration;

use brickwork_core::map::Dot;
use brickwork_core::{Event, Key};

use super::{Outcome, Replica, World, ensure, of_key};
use crate::model::{Events, History};

/// What was seen of a key when it was as it should be, so that less is to do if all is as before.
pub(super) struct Look {
    /// What all that was reflected came to. That was shown.
    whole: Rc<Events>,
    values: Vec<(Dot, Vec<u8>)>,
    winner: Option<usize>,
    /// How many of these values are the replica's own, and how many bytes those and their keys have.
    own: (usize, usize),
}

impl Look {
    fn new(history: &History, whole: Rc<Events>, winner: Option<Dot>, own: (usize, usize)) -> Self {
        let value = |dot: Dot| Some((dot, history[dot].value.clone()?));
        let values: Vec<_> = whole.iter().filter_map(value).collect();
        let winner = values.iter().position(|(dot, _)| Some(*dot) == winner);
        Self { whole, values, winner, own }
    }

    /// Whether the same is reflected and shown again.
    fn holds(&self, replica: &Replica, key: usize, name: &[u8]) -> bool {
        let shown = replica.map.siblings(name).map(|sibling| (sibling.dot, sibling.value));
        let values = self.values.iter().map(|(dot, value)| (*dot, value.as_slice()));
        let read = self.winner.map(|winner| self.values[winner].1.as_slice());
        Rc::ptr_eq(&self.whole, &replica.whole[key])
            && shown.eq(values)
            && replica.map.get(name) == read
    }
}

impl World<'_> {
    /// Compares a replica with the model.
    pub(super) fn check(&mut self, at: usize) -> Outcome {
        let writes = self.replicas[at].map.stats().writes;
        let wrote = std::mem::replace(&mut self.replicas[at].writes, writes) != writes;
        let life = self.replicas[at].map.replica();
        self.note_life(at, life);
        self.take_written_anew(at, wrote)?;
        let renewed = !self.boots.contains(&self.replicas[at].map.replica());
        self.met("another life", renewed);
        let mut usage = (0, 0);
        for key in 0..self.keys.len() {
            let own = self.check_key(at, key)?;
            usage = (usage.0 + own.0, usage.1 + own.1);
        }
        let replica = &mut self.replicas[at];
        replica.told = None;
        for (dot, _) in replica.nowhere.drain(..) {
            replica.nowhere_before.insert(dot);
        }
        let map = &replica.map;
        // Not every time, for it takes longer than all the rest.
        if self.history.len().is_multiple_of(8) {
            let mut keys: Vec<_> =
                map.iter().filter(|(key, _)| key.starts_with(b"key-1")).collect();
            keys.sort_unstable();
            ensure!(map.prefix(b"key-1").eq(keys), "the keys are not in order at {at}");
        }
        ensure!(map.own_usage() == usage, "{:?} of {usage:?} at {at}", map.own_usage());
        let (context, content) = map.digest();
        let stats = *map.stats();
        // What is lost is in no context. See `is_of_late`.
        let lossy = !self.late.is_empty();
        ensure!(lossy || stats.diverged == 0, "a peer has other content for the same context");
        let forged = stats.chunks_forged + stats.lives_lost;
        ensure!(forged == 0, "an honest chunk is called forged");
        ensure!(stats.oversize == 0, "an entry is told to nobody: the test asks too much");
        let known = *self.contents.entry(context).or_insert(content);
        ensure!(lossy || known == content, "OC2: equal contexts with unequal contents");
        Ok(())
    }

    /// Returns how many values of the key are the replica's own, and how many bytes those and their keys have.
    fn check_key(&mut self, at: usize, key: usize) -> Outcome<(usize, usize)> {
        let arrived = self.arrivals(at, key)?;
        let (name, replica) = (&self.keys[key], &self.replicas[at]);
        let (map, node) = (&replica.map, replica.map.replica().node);
        let look = replica.looks[key].as_ref();
        if let Some(look) = look.filter(|look| !arrived && look.holds(replica, key, name)) {
            return Ok(look.own);
        }
        let (mut shown, mut own) = (Events::new(), (0, 0));
        for sibling in map.siblings(name) {
            let dot = sibling.dot;
            let event = self.history.get(dot);
            ensure!(event.is_some(), "OC10: {dot:?} is shown at {at}, and nobody wrote it");
            let right = event.is_some_and(|event| event.value.as_deref() == Some(sibling.value));
            ensure!(right, "{dot:?} has another value");
            shown.insert(dot);
            if dot.replica.node == node {
                own = (own.0 + 1, own.1 + name.len() + sibling.value.len());
            }
        }
        let mut value = replica.whole[key].clone();
        if shown != *value {
            value = Rc::new(self.excused(at, key, &shown)?);
        }
        ensure!(shown == *value, "I1: key {key} at {at} is {shown:?} and not {value:?}");
        let winner = self.history.winner(&value);
        let read = winner.and_then(|dot| self.history[dot].value.as_deref());
        ensure!(map.get(name) == read, "the winner of key {key} at {at} is not {winner:?}");
        if arrived {
            let latest = value.iter().max_by_key(|dot| self.history.age(*dot));
            let several = value.len() > 1;
            self.met("concurrent siblings", several);
            self.met("winner that is not the latest", winner != latest);
        }
        let look = Rc::ptr_eq(&value, &self.replicas[at].whole[key])
            .then(|| Look::new(&self.history, value.clone(), winner, own));
        let replica = &mut self.replicas[at];
        replica.looks[key] = look;
        if replica.value[key] != value {
            Rc::make_mut(&mut replica.value)[key] = value;
        }
        Ok(own)
    }

    /// What a replica that shows this of a key is to show, where that is not what all that it reflects comes to.
    fn excused(&self, at: usize, key: usize, shown: &Events) -> Outcome<Events> {
        let replica = &self.replicas[at];
        let (map, mut value) = (&replica.map, replica.whole[key].clone());
        if self.is_of_late(key) && shown.is_subset(&replica.reflects[key]) {
            return Ok(shown.clone());
        }
        // A value with a void name may be shown until it is written anew, and not after.
        for dot in replica.whole[key].difference(shown).filter(|dot| map.is_void(*dot)) {
            let before = replica.value[key].contains(dot);
            ensure!(!before, "OC4: {dot:?} of key {key} is lost at {at}");
            Rc::make_mut(&mut value).remove(dot);
        }
        Ok(Rc::unwrap_or_clone(value))
    }

    /// Takes into the model what the replica wrote under another name because that of before became void.
    fn take_written_anew(&mut self, at: usize, wrote: bool) -> Outcome {
        let mut anew = Vec::new();
        while let Some(event) = self.replicas[at].map.poll_event() {
            match event {
                Event::Changed { .. } => {}
                // See `is_of_late`.
                Event::Diverged { .. } if !self.late.is_empty() => {}
                Event::WrittenAnew { key, old, new } => anew.push((key, old, new)),
                event => return Err(format!("{event:?}")),
            }
        }
        if wrote {
            self.note_nowhere(at, &anew);
        }
        let Replica { map, nowhere, nowhere_before, .. } = &mut self.replicas[at];
        let told = self.nowhere.iter().filter(|(dot, _)| map.reflects(**dot));
        let told = told.filter(|(dot, _)| !nowhere_before.contains(**dot));
        nowhere.extend(told.map(|(dot, all)| (*dot, all.clone())));
        let mut seen: Vec<Dot> = Vec::new();
        // The new name may become void with the next seal of the same datagram.
        let mut values = std::collections::BTreeMap::new();
        let mut chains = std::collections::BTreeMap::new();
        for (name, old, new) in anew {
            let at_key = |key: &Vec<u8>| key.as_slice() == name.as_ref();
            let Some(key) = self.keys.iter().position(at_key) else { continue };
            // What else came with the same datagram is told with it.
            self.arrivals(at, key)?;
            let replica = &self.replicas[at];
            let past = self.plan.forgets() && old.replica != replica.map.replica();
            let due = past || replica.map.is_void(old);
            ensure!(due, "{old:?} is written anew at {at} and not void");
            let node = replica.map.replica().node;
            ensure!(new.replica.node == node, "{new:?} is no write of {at}");
            if seen.contains(&new) {
                continue;
            }
            seen.push(new);
            // What else the datagram brought may have superseded the old name, after it was written anew.
            let live = replica.map.siblings(&self.keys[key]).any(|sibling| sibling.dot == new);
            let value =
                values.get(&old).cloned().unwrap_or_else(|| self.history[old].value.clone());
            values.insert(new, value.clone());
            let value = value.filter(|_| live);
            let mut names: Events = chains.remove(&old).unwrap_or_default();
            names.insert(old);
            chains.insert(new, names.clone());
            let read = if live { names } else { Events::new() };
            let reflected = replica.reflects[key].clone();
            self.history.write(new, &self.keys[key], value.as_deref(), &reflected, Some(&read))?;
            self.met("value written anew", live);
            self.met("effect written anew", !live);
        }
        Ok(())
    }

    /// What of a replica's own is neither in the model nor told as written anew is to no key.
    fn note_nowhere(&mut self, at: usize, anew: &[(Key, Dot, Dot)]) {
        let replica = &self.replicas[at];
        let own = |counter| Dot::new(replica.map.replica(), counter);
        for dot in (1..).map(own).take_while(|dot| replica.map.reflects(*dot)) {
            let known = self.history.has(dot) || anew.iter().any(|(_, _, new)| *new == dot);
            if !known && !self.nowhere.contains_key(&dot) {
                self.nowhere.insert(dot, replica.reflects.clone());
            }
        }
    }

    /// Takes into the model what the replica newly claims of a key. Returns whether there is anything.
    fn arrivals(&mut self, at: usize, key: usize) -> Outcome<bool> {
        let replica = &mut self.replicas[at];
        let (map, claims) = (&replica.map, &mut replica.claims);
        let (before, reflects) = (replica.reflects[key].clone(), &mut replica.reflects);
        let (mut removal, mut put_late, mut foreign) = (false, false, false);
        let claims_before = claims[key].len();
        let dots = self.history.of_number(key);
        // Most often all are.
        let all = claims_before == dots.len();
        for &dot in dots {
            let (claimed, known) = (map.reflects(dot), all || claims[key].contains(dot));
            if claimed && !known {
                of_key(claims, key).insert(dot);
                let put = self.history[dot].value.is_some();
                put_late |= put && reflects[key].contains(dot);
                removal |= !put;
                foreign |= dot.replica != map.replica();
                self.history.add_closed(of_key(reflects, key), dot);
            }
            if !claimed && !known {
                continue;
            }
            let void = map.is_void(dot);
            ensure!(!void || !claimed, "{dot:?} is void and claimed at {at}");
            // What is known of a life is forgotten in the end.
            let last = || self.last_lives.get(&dot.replica.node);
            let forgotten = || self.plan.forgets() && last() > Some(&dot.replica);
            let claimed = claimed || void || forgotten();
            ensure!(claimed, "OC5: {dot:?} is no longer claimed at {at}");
        }
        for (_, all) in &replica.nowhere {
            if !all[key].is_subset(&reflects[key]) {
                of_key(reflects, key).extend(&all[key]);
                *self.coverage.entry("effect told by a write to no key").or_default() += 1;
            }
        }
        let arrived = claims[key].len() > claims_before;
        let mut superseded = false;
        if reflects[key].len() > before.len() {
            let told = replica.told.as_ref().map(|told| &told[key]);
            for dot in reflects[key].difference(&before) {
                let own = dot.replica == map.replica();
                let heard = told.is_some_and(|told| told.contains(dot));
                ensure!(own || heard, "{dot:?} of key {key} is reflected at {at}, by whose word?");
            }
            let value = Rc::new(self.history.value(&reflects[key]));
            superseded = !replica.value[key].is_subset(&value);
            Rc::make_mut(&mut replica.value)[key] = value.clone();
            Rc::make_mut(&mut replica.whole)[key] = value;
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
        // Where all intervals are short, so are these.
        let pace = if self.plan.seals { 20 } else { 1 };
        self.meet_all();
        self.calm(Duration::from_secs(20) / pace)?;
        let digest = self.replicas[0].map.digest();
        for at in 0..self.replicas.len() {
            ensure!(self.replicas[at].map.digest() == digest, "I6: 0 and {at} differ");
            for key in 0..self.keys.len() {
                let (a, b) = (&self.replicas[0], &self.replicas[at]);
                ensure!(a.value[key] == b.value[key], "I6: 0 and {at} differ in key {key}");
                // A superseded write may have died with its writer: nobody is left who could name it.
                let lives = self.replicas.iter().map(|replica| replica.map.replica());
                let named = |dot: &Dot| lives.clone().any(|life| life == dot.replica);
                for dot in b.reflects[key].iter().filter(named) {
                    let known = b.map.reflects(dot) || b.map.is_void(dot);
                    ensure!(known, "{dot:?} is not claimed at {at} in the end");
                }
            }
        }
        let asked = self.calm(Duration::from_secs(6) / pace)?;
        ensure!(asked == 0, "I6: {asked} datagrams are more than digests");
        // Digests are told at random: it may take as long as collecting all of a kind of coupons.
        self.calm(Duration::from_secs(180) / pace)?;
        for at in 0..self.replicas.len() {
            let stats = *self.replicas[at].map.stats();
            self.met("member that is waited for no longer", stats.stragglers > 0);
            self.met("overwritten dots", stats.dots_overwritten > 0);
            let retired = stats.retired;
            self.met("lives retired", retired > 0);
            self.met("more lives of a node retired than are kept", retired > 20);
            let replica = &self.replicas[at];
            let left = replica.map.metadata();
            ensure!(!self.has_gap(at), "I7: a life with a gap is not sealed at {at}");
            self.met("nothing left to collect", left == (0, 0));
            self.met("write that died with its writer", self.has_void(at));
            ensure!(left == (0, 0), "I7: {at} keeps {left:?}");
            let map = &self.replicas[at].map;
            let live = self.keys.iter().flat_map(|key| {
                let values: Vec<_> = map.siblings(key).map(|sibling| sibling.value.len()).collect();
                let key = if values.is_empty() { 0 } else { key.len() };
                values.into_iter().chain([key])
            });
            let live: usize = live.sum();
            let map = &self.replicas[at].map;
            ensure!(map.bytes() == live, "I7: {at} has {} bytes, not {live}", map.bytes());
        }
        for flight in late {
            let to = flight.to;
            self.deliver(flight)?;
            self.check(to)?;
            ensure!(self.replicas[to].map.digest() == digest, "a late datagram changed {to}");
        }
        Ok(())
    }

    /// Whether a replica has a write of a life that was sealed without one before it.
    fn has_void(&self, at: usize) -> bool {
        let map = &self.replicas[at].map;
        let all = (0..self.keys.len()).flat_map(|key| self.history.of_number(key));
        let mut after = all.filter(|dot| dot.counter > 1 && map.reflects(**dot));
        after.any(|dot| map.is_void(Dot::new(dot.replica, dot.counter - 1)))
    }

    /// Whether a replica has a write of some life without one before it.
    fn has_gap(&self, at: usize) -> bool {
        let map = &self.replicas[at].map;
        (0..self.keys.len()).flat_map(|key| self.history.of_number(key)).any(|dot| {
            let before = Dot::new(dot.replica, dot.counter - 1);
            let void = map.is_void(before);
            map.reflects(*dot) && before.counter > 0 && !map.reflects(before) && !void
        })
    }
}
