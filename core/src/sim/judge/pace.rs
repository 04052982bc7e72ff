//! What must hold while nothing happens: who is probed how often, and how much is sent.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::{Verdict, fail};
use crate::sim::world::Sim;
use crate::time::Instant;

/// Datagrams that a node may send in a period of the protocol, in tenths: a probe and its answer, digests
/// of the map, and who knocks now and then at the lost.
const DATAGRAMS: u64 = 45;

/// Datagrams of a measurement: a copy of a finding that arrives minutes late is a reason to measure that member once more.
const ASSAY: u64 = 64;

/// Inputs of a node in a second, on average, beyond which answers multiply without end: a flood or full syncs come to
/// 4,000, in fifteen hundred plans.
const BURST: u64 = 20_000;

/// How much happens in the second that runs.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    second: u64,
    inputs: u64,
}

impl Bursts {
    pub(super) fn look(&mut self, sim: &Sim) -> Verdict {
        let second = sim.now().as_nanos() / 1_000_000_000;
        if second != self.second {
            *self = Self { second, inputs: 0 };
        }
        self.inputs += 1;
        if self.inputs > BURST * sim.len() as u64 {
            return fail("OM8", sim, format!("{} inputs within a second", self.inputs));
        }
        Ok(())
    }
}

/// From when on it is watched, and what the counters were.
#[derive(Debug)]
pub(super) struct Pace {
    from: Instant,
    sent: u64,
    /// Measurements of all.
    assays: u64,
    /// Probes without an answer, by place.
    failed: Vec<u64>,
}

fn failed(sim: &Sim) -> Vec<u64> {
    let of = |place| sim.node(place).map_or(0, |node| node.stats().swim.probes_failed);
    (0..sim.len()).map(of).collect()
}

fn assays(sim: &Sim) -> u64 {
    sim.up().filter_map(|place| sim.node(place)).map(|node| node.stats().swim.assays).sum()
}

impl Pace {
    pub(super) fn new(sim: &mut Sim) -> Self {
        sim.probes = Some(Vec::new());
        let (sent, assays) = (sim.traffic().sent, assays(sim));
        Self { from: sim.now(), sent, assays, failed: failed(sim) }
    }

    pub(super) fn finish(self, sim: &mut Sim) -> Verdict {
        let probes = sim.probes.take().unwrap_or_default();
        self.judge_health(sim)?;
        self.judge_turns(sim, &probes)?;
        self.judge_traffic(sim)
    }

    fn judge_health(&self, sim: &Sim) -> Verdict {
        for (place, (before, now)) in self.failed.iter().zip(failed(sim)).enumerate() {
            let Some(node) = sim.node(place) else { continue };
            // Who is alone has nobody to measure itself by.
            let alone = node.view().nodes().len() < 2;
            let health = if alone { 0 } else { node.swim().local_health() };
            if now > *before || health > 0 {
                let text = format!("node-{place}: {} failed probes, health {health}", now - before);
                return fail("OX4", sim, text);
            }
        }
        Ok(())
    }

    /// Between two probes of one member by one prober lie at most 2n - 1 periods, for n peers (SWIM
    /// section 4.3), and one for the time that a probe takes.
    fn judge_turns(&self, sim: &Sim, probes: &[(Instant, usize, usize)]) -> Verdict {
        let live: Vec<usize> = sim.up().collect();
        let mut last: BTreeMap<(usize, usize), Instant> = BTreeMap::new();
        let periods = 2 * live.len().saturating_sub(1) as u32;
        let judge = |at: Instant, since: Instant, from: usize, to: usize| {
            let most = sim.config(from).swim.probe_interval * periods;
            if at - since <= most {
                return Ok(());
            }
            let text = format!("node-{from} did not probe node-{to} for {:?}", at - since);
            fail("OM9", sim, text)
        };
        // Who knocks at the lost does so when it likes.
        for &(at, from, to) in probes.iter().filter(|(_, _, to)| live.contains(to)) {
            let since = last.insert((from, to), at).unwrap_or(self.from);
            judge(at, since, from, to)?;
        }
        for &from in &live {
            for &to in live.iter().filter(|&&to| to != from) {
                let since = last.get(&(from, to)).copied().unwrap_or(self.from);
                judge(sim.now(), since, from, to)?;
            }
        }
        Ok(())
    }

    fn judge_traffic(&self, sim: &Sim) -> Verdict {
        let shortest = sim.up().map(|place| sim.config(place).swim.probe_interval).min();
        let Some(period) = shortest else { return Ok(()) };
        let time = sim.now() - self.from;
        let periods = u64::try_from(time.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX);
        let sent = sim.traffic().sent - self.sent;
        let most = (periods + 1) * sim.up().count() as u64 * DATAGRAMS / 10;
        let most = most + assays(sim).saturating_sub(self.assays) * ASSAY;
        if sent > most {
            let text = format!("{sent} datagrams in {periods} quiet periods, not {most}");
            return fail("OM8", sim, text);
        }
        Ok(())
    }
}
