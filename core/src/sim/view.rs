//! What can be seen of a simulation.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::checked::Checked;
use super::net::Traffic;
use super::world::{Life, Sim};
use crate::time::Instant;
use crate::{Config, Event, Node, NodeId};

impl Sim {
    /// The true time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.net.now
    }

    /// How many places there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The node at `place`, if it is up.
    #[must_use]
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.places.get(place)?.node.as_ref().map(Checked::node)
    }

    /// The settings of the node at `place`.
    #[must_use]
    pub fn config(&self, place: usize) -> &Config {
        &self.places[place].config
    }

    /// The places whose nodes are up.
    pub fn up(&self) -> impl Iterator<Item = usize> {
        (0..self.places.len()).filter(|&place| self.places[place].node.is_some())
    }

    /// The id of the node at `place`, up or down.
    #[must_use]
    pub fn id(&self, place: usize) -> NodeId {
        NodeId::from_name(&self.places[place].name)
    }

    /// The lives of the node at `place`, the first one first.
    #[must_use]
    pub fn lives(&self, place: usize) -> &[Life] {
        &self.places[place].lives
    }

    /// Events of the present life that were not asked for yet.
    pub fn events(&mut self, place: usize) -> Vec<Event> {
        core::mem::take(&mut self.places[place].events)
    }

    /// What became of all datagrams.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        self.net.traffic()
    }

    /// How many faults of each class have begun.
    #[must_use]
    pub const fn met(&self) -> &BTreeMap<&'static str, u64> {
        self.net.met()
    }

    /// A hash of everything that happened, bytes and instants included: equal for equal seeds, on every
    /// platform and at every optimisation.
    #[must_use]
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// Datagrams and timers that nodes have handled.
    #[must_use]
    pub const fn inputs(&self) -> u64 {
        self.inputs
    }

    /// What the nodes that are up do not agree on, in words; empty if they agree on members, owners'
    /// candidates and the map, and all of them are members.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        self.differences_among(|_| true)
    }

    /// The same for some places, as if there were no others.
    #[must_use]
    pub fn differences_among(&self, some: impl Fn(usize) -> bool) -> Vec<String> {
        let up = || self.up().filter(|&place| some(place)).filter_map(|place| self.node(place));
        let mut live: Vec<_> = up().map(Node::id).collect();
        live.sort_unstable();
        let mut found = Vec::new();
        let mut first: Option<&Node> = None;
        for node in up() {
            if node.view().nodes() != live {
                let (lists, of) = (node.view().nodes().len(), live.len());
                found.push(format!("{} lists {lists} of {of} members", node.identity().name()));
            }
            let first = *first.get_or_insert(node);
            if node.map().digest() != first.map().digest() {
                let names = (&node.identity().name(), &first.identity().name());
                found.push(format!("{} and {} differ in their maps", names.0, names.1));
            }
        }
        found
    }
}
