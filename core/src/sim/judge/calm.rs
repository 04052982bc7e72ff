//! What must hold once all faults are over, and what it means if it does not.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::{Judge, Verdict, fail};
use crate::sim::world::Sim;
use crate::swim::State;
use crate::{Node, NodeId};

impl Judge {
    /// Nobody is listed who is gone, everybody who lives is believed alive, and nothing is left of earlier
    /// lives.
    pub(super) fn finish_members(&self, sim: &Sim) -> Verdict {
        for node in sim.up().filter_map(|place| sim.node(place)) {
            self.judge_list(sim, node)?;
        }
        Ok(())
    }

    fn judge_list(&self, sim: &Sim, node: &Node) -> Verdict {
        let name = &node.identity().name();
        for (id, &place) in &self.places {
            let belief = node.member(*id).map(|member| (member.state(), member.incarnation()));
            let listed = matches!(belief, Some((State::Alive | State::Suspect, _)));
            let Some(subject) = sim.node(place) else {
                if listed {
                    return fail(
                        "OM1",
                        sim,
                        format!("{name} still lists node-{place}, which is gone"),
                    );
                }
                continue;
            };
            let boot = node.member(*id).map(|member| member.identity().boot_epoch());
            let present = subject.identity().boot_epoch();
            if boot.is_some_and(|boot| boot != present) {
                let text = format!("{name} knows node-{place} as {boot:?}, which is {present} now");
                return fail("OX1", sim, text);
            }
            let Some((state, incarnation)) = belief else {
                return fail("OM2", sim, format!("{name} does not know node-{place}, which lives"));
            };
            let refuted = subject.swim().me().incarnation() > incarnation;
            if state != State::Alive {
                let oracle = if refuted { "OM2" } else { "OM6" };
                let text = format!("{name} believes {state:?} of node-{place}, which lives");
                return fail(oracle, sim, text);
            }
        }
        Ok(())
    }

    /// They had time to agree and do not: which rule is broken?
    pub(in crate::sim) fn why_apart(&self, sim: &Sim) -> Verdict {
        let differences = sim.differences();
        if let Some(halves) = self.halves(sim) {
            return fail("OX3", sim, format!("two clusters that met are apart: {halves:?}"));
        }
        self.finish_members(sim)?;
        let maps: BTreeMap<u64, usize> =
            sim.up().filter_map(|place| sim.node(place)).fold(BTreeMap::new(), |mut maps, node| {
                *maps.entry(node.map().digest().0).or_default() += 1;
                maps
            });
        if maps.len() > 1 {
            let paged = sim.up().filter_map(|place| sim.node(place)).any(|node| node.map().pages());
            let oracle = if paged { "OC11" } else { "OC10" };
            let lost = self.data.unheard(sim);
            return fail(
                oracle,
                sim,
                format!("maps stay unequal: {maps:?}, {lost:?} is unheard of"),
            );
        }
        fail("OX10", sim, format!("they do not come to agree: {differences:?}"))
    }

    /// The two sets of nodes that list just each other, if there are two and all are in one of them.
    fn halves(&self, sim: &Sim) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let views: Vec<&[NodeId]> =
            sim.up().filter_map(|place| Some(sim.node(place)?.view().nodes())).collect();
        let (one, other) = (*views.first()?, *views.iter().find(|view| *view != &views[0])?);
        let apart = one.iter().all(|id| !other.contains(id));
        let whole = one.len() + other.len() == views.len();
        let in_either = views.iter().all(|view| *view == one || *view == other);
        (apart && whole && in_either).then(|| (one.to_vec(), other.to_vec()))
    }
}
