//! What each node's map shows, beside all writes that ever were.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::{Verdict, fail, owners};
use crate::Node;
use crate::map::Dot;
use crate::sim::world::Sim;

/// A write, as the writer saw it.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Write {
    pub(in crate::sim) key: Vec<u8>,
    pub(in crate::sim) dot: Dot,
    /// What it wrote; `None` if it removed.
    pub(in crate::sim) value: Option<Vec<u8>>,
    /// What it superseded.
    pub(in crate::sim) over: Vec<Dot>,
    /// Numbers of the writes of its key that the writer reflected.
    pub(in crate::sim) before: BTreeSet<usize>,
    /// Place and life of the writer.
    pub(in crate::sim) by: (usize, usize),
}

/// The map of one node in its present life, as it was seen last.
#[derive(Debug, Default)]
struct Seen {
    life: usize,
    /// Writes reflected there.
    reflected: BTreeSet<usize>,
    digest: (u64, u64),
    writes: usize,
}

#[derive(Debug)]
pub(super) struct Data {
    writes: Vec<Write>,
    dots: BTreeSet<Dot>,
    seen: Vec<Seen>,
    /// The content that each context was seen with: one function for all nodes and times.
    contents: BTreeMap<u64, u64>,
}

impl Data {
    pub(super) fn new(places: usize) -> Self {
        Self {
            writes: Vec::new(),
            dots: BTreeSet::new(),
            seen: (0..places).map(|_| Seen::default()).collect(),
            contents: BTreeMap::new(),
        }
    }

    /// Notes a write that was acknowledged just now.
    pub(super) fn wrote(&mut self, sim: &Sim, write: Write) -> Verdict {
        if !self.dots.insert(write.dot) {
            return fail("OC6", sim, format!("the dot {:?} names two writes", write.dot));
        }
        // Its writer may have died with the first word of it.
        let shows = |node: &Node| {
            let mut siblings = node.siblings(&write.key);
            let shown = siblings.find(|sibling| sibling.dot == write.dot);
            let shown = shown.map(|sibling| sibling.value);
            node.map().reflects(write.dot) && shown == write.value.as_deref()
        };
        if sim.node(write.by.0).is_some_and(|node| !shows(node)) {
            return fail("OC3", sim, format!("its writer does not show {:?}", write.dot));
        }
        self.writes.push(write);
        Ok(())
    }

    /// Numbers of the writes of `key` that the node at `place` reflects.
    pub(super) fn known(&self, sim: &Sim, place: usize, key: &[u8]) -> BTreeSet<usize> {
        let reflected = sim.node(place).map(|node| self.reflected(node)).unwrap_or_default();
        self.closure(&reflected, key)
    }

    /// Numbers of the writes whose dots the node knows.
    fn reflected(&self, node: &Node) -> BTreeSet<usize> {
        (0..self.writes.len()).filter(|&at| node.map().reflects(self.writes[at].dot)).collect()
    }

    /// These writes of a key with all that their writers had seen of it, which comes with them: a dot that
    /// was superseded before it arrived is told of later, its effect is there.
    fn closure(&self, reflected: &BTreeSet<usize>, key: &[u8]) -> BTreeSet<usize> {
        let of_key = reflected.iter().copied().filter(|&at| self.writes[at].key == key);
        of_key.flat_map(|at| self.writes[at].before.iter().copied().chain([at])).collect()
    }

    /// The value of a key after these writes: those values that none of them superseded. That every
    /// replica shows exactly this is the map's correctness (its proof calls it value(R)).
    fn value(&self, reflected: &BTreeSet<usize>, key: &[u8]) -> BTreeMap<Dot, &[u8]> {
        let writes: Vec<&Write> =
            self.closure(reflected, key).into_iter().map(|at| &self.writes[at]).collect();
        let over: BTreeSet<Dot> =
            writes.iter().flat_map(|write| write.over.iter().copied()).collect();
        let puts = writes.iter().filter_map(|write| Some((write.dot, write.value.as_deref()?)));
        puts.filter(|(dot, _)| !over.contains(dot)).collect()
    }

    pub(super) fn look(&mut self, sim: &Sim, place: usize, node: &Node) -> Verdict {
        let name = &node.identity().name();
        let alone = node.view().nodes().len() < 2 || !node.swim().me().is_live();
        if !alone && node.map().poll_timeout().is_none() {
            return fail("OC7", sim, format!("{name} has peers and nothing scheduled for them"));
        }
        let (digest, writes, life) =
            (node.map().digest(), self.writes.len(), sim.lives(place).len());
        if self.seen[place].life != life {
            self.seen[place] = Seen { life, ..Seen::default() };
        }
        let seen = &mut self.seen[place];
        if seen.digest == digest && seen.writes == writes {
            return Ok(());
        }
        (seen.digest, seen.writes) = (digest, writes);
        let reflected = self.reflected(node);
        if let Some(&lost) = self.seen[place].reflected.difference(&reflected).next() {
            let dot = self.writes[lost].dot;
            return fail("OC5", sim, format!("{name} has forgotten {dot:?}"));
        }
        let news = reflected.difference(&self.seen[place].reflected);
        let keys: BTreeSet<&[u8]> = news.map(|&at| &*self.writes[at].key).collect();
        for key in keys {
            self.judge_key(sim, node, &reflected, key)?;
        }
        if *self.contents.entry(digest.0).or_insert(digest.1) != digest.1 {
            return fail("OC2", sim, format!("{name}: equal contexts with unequal contents"));
        }
        self.seen[place].reflected = reflected;
        Ok(())
    }

    fn judge_key(
        &self,
        sim: &Sim,
        node: &Node,
        reflected: &BTreeSet<usize>,
        key: &[u8],
    ) -> Verdict {
        let name = &node.identity().name();
        let expected = self.value(reflected, key);
        let shown: BTreeMap<Dot, &[u8]> =
            node.siblings(key).map(|sibling| (sibling.dot, sibling.value)).collect();
        let oracle = if shown.keys().any(|dot| !expected.contains_key(dot)) {
            "OC4"
        } else if shown.len() < expected.len() {
            "OC5"
        } else {
            "OC9"
        };
        if shown != expected {
            return fail(
                oracle,
                sim,
                format!("{name} shows {shown:?} of {key:?}, not {expected:?}"),
            );
        }
        let rank = |dot: &&Dot| {
            let writer = dot.replica.node;
            (owners::score(key, writer), writer, dot.replica.epoch, dot.counter)
        };
        let winner = expected.keys().max_by_key(rank).map(|dot| expected[dot]);
        if node.get(key) != winner {
            return fail("OC9", sim, format!("{name} reads {:?}, not {winner:?}", node.get(key)));
        }
        Ok(())
    }

    /// What must hold when all had time to hear everything.
    pub(super) fn finish(&self, sim: &Sim) -> Verdict {
        let all: BTreeSet<usize> = (0..self.writes.len())
            .filter(|&at| {
                let reflects = |node: &Node| node.map().reflects(self.writes[at].dot);
                sim.up().filter_map(|place| sim.node(place)).any(reflects)
            })
            .collect();
        for (at, write) in self.writes.iter().enumerate() {
            let (place, life) = write.by;
            let writer_lives = sim.lives(place).len() == life && sim.node(place).is_some();
            if writer_lives && !all.contains(&at) {
                return fail("OC3", sim, format!("{:?} is lost, and its writer lives", write.dot));
            }
            for node in sim.up().filter_map(|place| sim.node(place)) {
                if all.contains(&at) != node.map().reflects(write.dot) {
                    let name = &node.identity().name();
                    return fail("OC2", sim, format!("{name} has not heard of {:?}", write.dot));
                }
                self.judge_key(sim, node, &all, &write.key)?;
            }
        }
        Ok(())
    }

    /// Whether a write that was acknowledged, by a node that lives on, is unknown to another one.
    pub(super) fn unheard(&self, sim: &Sim) -> Option<Dot> {
        let missing = |write: &&Write| {
            let (place, life) = write.by;
            let writer_lives = sim.lives(place).len() == life && sim.node(place).is_some();
            let knows = |node: &Node| node.map().reflects(write.dot);
            writer_lives && !sim.up().filter_map(|place| sim.node(place)).all(knows)
        };
        self.writes.iter().find(missing).map(|write| write.dot)
    }
}
