//! The keys whose owners a node follows, and what it tells of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use crate::config::ConfigError;
use crate::event::{Event, Key, Queue};
use crate::hrw::{self, Owned, Ownership, View};
use crate::id::NodeId;
use crate::swim::{Member, State, Swim};
use crate::time::Instant;
use crate::timer::Deadlines;

/// A table of owners by the names of keys. What is gained is told when it was so for a while.
#[derive(Debug)]
pub(crate) struct Tracked {
    config: hrw::Config,
    table: Ownership,
    /// By the number of a key in the table.
    names: Vec<Key>,
    numbers: BTreeMap<Key, u32>,
    /// Keys that were gained and not told of yet.
    waits: Deadlines,
}

impl Tracked {
    pub(crate) fn new(me: &Member, config: hrw::Config) -> Result<Self, ConfigError> {
        config.check()?;
        let table = Ownership::new(me.id(), config.owners);
        let mut tracked = Self {
            config,
            table,
            names: Vec::new(),
            numbers: BTreeMap::new(),
            waits: Deadlines::default(),
        };
        tracked.update(me);
        Ok(tracked)
    }

    pub(crate) const fn view(&self) -> &View {
        self.table.view()
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.waits.next()
    }

    pub(crate) fn track(&mut self, key: &[u8]) -> bool {
        let name = Key::new(key);
        if self.numbers.contains_key(&name) {
            return false;
        }
        let number = self.table.track(hrw::key_hash(key));
        let at = number as usize;
        if at == self.names.len() {
            self.names.push(name.clone());
        } else {
            self.names[at] = name.clone();
        }
        self.numbers.insert(name, number);
        true
    }

    pub(crate) fn untrack(&mut self, key: &[u8]) -> bool {
        let Some(number) = self.numbers.remove(&Key::new(key)) else { return false };
        self.waits.clear(number);
        self.table.forget(number)
    }

    /// The keys that were told as gained and are not lost, in the order of the keys.
    pub(crate) fn mine(&self) -> impl Iterator<Item = &[u8]> {
        let told = self.numbers.iter().filter(|(_, number)| self.is_told(**number));
        told.map(|(key, _)| &**key)
    }

    pub(crate) fn is_mine(&self, key: &[u8]) -> bool {
        let number = self.numbers.get(&Key::new(key));
        number.is_some_and(|number| self.is_told(*number))
    }

    /// Once all is told that is due: whether this node owns the key, and for so long as it must.
    fn is_told(&self, number: u32) -> bool {
        self.table.is_mine(number) && self.waits.of(number).is_none()
    }

    pub(crate) fn leave(&mut self, node: NodeId) {
        self.table.leave(node);
    }

    /// What this member is, or is held to be, may be another than it was.
    pub(crate) fn update(&mut self, member: &Member) {
        let (node, weight) = (member.id(), self.share(member));
        match weight {
            None => self.leave(node),
            Some(weight) if self.view().weight(node) == Some(weight) => {}
            Some(weight) => {
                let is_there = self.table.set_weight(node, weight) || self.table.join(node, weight);
                debug_assert!(is_there, "it joins where it is not there");
            }
        }
    }

    /// The weight of a member, `None` if it owns nothing.
    fn share(&self, member: &Member) -> Option<NonZeroU32> {
        let owns = match member.state() {
            State::Alive => true,
            State::Suspect => self.config.suspects_own,
            State::Dead | State::Left => false,
        };
        NonZeroU32::new(member.identity().weight().into()).filter(|_| owns)
    }

    /// Who owns keys, with weights, in order: as events brought it about, and as follows from who are members.
    #[cfg(feature = "sim")]
    pub(crate) fn shares(&self, swim: &Swim) -> [Vec<(NodeId, u32)>; 2] {
        let weight = |id: &NodeId| self.view().weight(*id).map_or(0, NonZeroU32::get);
        let known = self.view().nodes().iter().map(|id| (*id, weight(id))).collect();
        let share = |member: &Member| Some((member.id(), self.share(member)?.get()));
        let mut follows: Vec<_> = swim.members().filter_map(share).collect();
        follows.sort_unstable();
        [known, follows]
    }

    /// Begins anew with those who are members now.
    pub(crate) fn rebuild(&mut self, swim: &Swim) {
        for id in self.view().nodes().to_vec() {
            match swim.member(id) {
                Some(member) => self.update(member),
                None => self.leave(id),
            }
        }
        swim.members().for_each(|member| self.update(member));
    }

    /// Tells what was gained and lost.
    pub(crate) fn settle(&mut self, now: Instant, events: &mut Queue) {
        while let Some(owned) = self.table.poll() {
            match owned {
                Owned::Gained(number) if self.config.grace > Duration::ZERO => {
                    self.waits.set(number, now + self.config.grace);
                }
                Owned::Gained(number) => events.push(self.gained(number)),
                Owned::Lost(number) => {
                    let key = &self.names[number as usize];
                    // Nothing is told of what nobody asks for any more.
                    let is_tracked = self.numbers.get(key) == Some(&number);
                    if is_tracked && self.waits.of(number).is_none() {
                        events.push(Event::Lost { key: key.clone() });
                    }
                    self.waits.clear(number);
                }
            }
        }
        while let Some((_, number)) = self.waits.pop(now) {
            events.push(self.gained(number));
        }
    }

    fn gained(&self, number: u32) -> Event {
        Event::Gained { key: self.names[number as usize].clone() }
    }
}
