//! The map as plain sets of events: what every correct implementation must show.
//!
//! It knows nothing of vectors, chunks, digests or datagrams. An *event* is one write or removal of a
//! key, named by its dot (replica, counter). What a replica *reflects* of a key is a set R of events;
//! the siblings of the key at that replica are `value(R)` and nothing else decides them.
//!
//! | Proof                | Here                                                                   |
//! |----------------------|------------------------------------------------------------------------|
//! | `seen(e)`            | [`Event::seen`]: all events of the key that the writer of e reflected  |
//! | `over(e) ⊆ seen(e)`  | [`Event::over`]: what e supersedes                                     |
//! | `value(R)`           | [`History::value`]: puts in R that no event in R supersedes            |
//! | R is closed          | [`History::add_closed`]: with e comes seen(e)                          |
//! | A ∪ B                | the union of the sets: a merge of replicas is nothing more             |
//!
//! That unions suffice is what the proof shows, for closed sets; that real replicas behave like such
//! sets is what the tests beside this module check. The crate's code is used only for names (`Dot`) and
//! for the golden score function of rendezvous hashing, which has test vectors of its own.

#![allow(dead_code, unreachable_pub)]

mod events;

use std::collections::BTreeMap;

use brickwork_core::hrw;
use brickwork_core::map::Dot;

pub use events::Events;

/// One write, or removal, of one key.
#[derive(Debug, Clone)]
pub struct Event {
    pub key: Vec<u8>,
    /// `None` for a removal.
    pub value: Option<Vec<u8>>,
    pub seen: Events,
    pub over: Events,
}

/// Everything that was ever written, by whomever.
#[derive(Debug, Clone, Default)]
pub struct History {
    events: BTreeMap<Dot, Event>,
    numbers: BTreeMap<Vec<u8>, usize>,
    /// The events of each key, oldest first.
    keys: Vec<Vec<Dot>>,
}

impl History {
    /// Of these keys, which are numbered in this order. Others may come.
    pub fn of(keys: &[Vec<u8>]) -> Self {
        let numbers = (0..).zip(keys).map(|(number, key)| (key.clone(), number)).collect();
        Self { events: BTreeMap::new(), numbers, keys: vec![Vec::new(); keys.len()] }
    }

    /// A replica that reflects `seen` of `key` writes `value`, or removes for `None`. It supersedes all
    /// siblings there, or those of them that are in `read`, if that is given. Returns its effect on the
    /// replica: the set that it reflects after the write.
    pub fn write(
        &mut self,
        dot: Dot,
        key: &[u8],
        value: Option<&[u8]>,
        seen: &Events,
        read: Option<&Events>,
    ) -> Result<Events, String> {
        let mut over = self.value(seen);
        if let Some(read) = read {
            over.retain(|sibling| read.contains(*sibling));
        }
        let mut after = seen.clone();
        after.insert(dot);
        let (key, value, seen) = (key.to_vec(), value.map(<[u8]>::to_vec), seen.clone());
        let number = *self.numbers.entry(key.clone()).or_insert(self.keys.len());
        self.keys.resize(self.keys.len().max(number + 1), Vec::new());
        self.keys[number].push(dot);
        match self.events.insert(dot, Event { key, value, seen, over }) {
            None => Ok(after),
            Some(other) => Err(format!("{dot:?} names two writes, also {other:?}")),
        }
    }

    /// Nobody ever heard of this event, and nobody will.
    pub fn forget(&mut self, dot: Dot) {
        if let Some(event) = self.events.remove(&dot) {
            self.keys[self.numbers[&event.key]].retain(|other| *other != dot);
        }
    }

    /// What a replica shows of a key of which it reflects `reflected`.
    pub fn value(&self, reflected: &Events) -> Events {
        let mut value: Events = reflected.iter().filter(|dot| self[*dot].value.is_some()).collect();
        for dot in reflected.iter() {
            self[dot].over.iter().for_each(|superseded| value.remove(superseded));
        }
        value
    }

    /// Adds an event with all that its writer had seen.
    pub fn add_closed(&self, reflected: &mut Events, dot: Dot) {
        reflected.extend(&self[dot].seen);
        reflected.insert(dot);
    }

    /// Which of the siblings of a key is read: that of the writer with the highest score for the key;
    /// of one node's the latest.
    pub fn winner(&self, siblings: &Events) -> Option<Dot> {
        let rank = |dot: &Dot| {
            let hash = hrw::key_hash(&self[*dot].key);
            (hrw::score(hash, dot.replica.node), dot.replica.node, dot.replica.epoch, dot.counter)
        };
        siblings.iter().max_by_key(rank)
    }

    /// All events of a key, oldest first.
    pub fn of_key(&self, key: &[u8]) -> &[Dot] {
        self.numbers.get(key).map_or(&[], |number| self.of_number(*number))
    }

    /// The same, by the number of the key.
    pub fn of_number(&self, number: usize) -> &[Dot] {
        &self.keys[number]
    }

    /// When an event of a key happened, as a place among all of the key.
    pub fn age(&self, dot: Dot) -> Option<usize> {
        self.of_key(&self[dot].key).iter().position(|other| *other == dot)
    }

    pub fn get(&self, dot: Dot) -> Option<&Event> {
        self.events.get(&dot)
    }

    pub fn has(&self, dot: Dot) -> bool {
        self.events.contains_key(&dot)
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }
}

impl std::ops::Index<Dot> for History {
    type Output = Event;

    fn index(&self, dot: Dot) -> &Event {
        &self.events[&dot]
    }
}
