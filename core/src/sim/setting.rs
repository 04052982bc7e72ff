//! What a plan has besides its steps: how many nodes, with which settings, by which clocks, in how many
//! clusters at first.

use alloc::vec::Vec;
use core::time::Duration;

use super::draw::Dice;
use super::fault::{Fault, Nodes, Trouble};
use super::plan::{Act, KEYS, Plan, Step};
use crate::Config;
use crate::time::Instant;

/// Numbers of nodes that a plan has more often than others.
const SCALES: [(usize, &str); 7] = [
    (1, "1 node"),
    (2, "2 nodes"),
    (3, "3 nodes"),
    (5, "5 nodes"),
    (8, "8 nodes"),
    (16, "16 nodes"),
    (32, "32 nodes"),
];
/// Datagram limits: the smallest that there is, what every IPv4 host takes, and a usual one.
const DATAGRAMS: [usize; 3] = [crate::MIN_DATAGRAM, 576, 1_400];
/// The longest value, in bytes: it fits none of them.
const LARGE: usize = 2_000;

/// How long a member is held out.
const HELD: Duration = Duration::from_secs(5);
/// Longer than trouble lasts and a member is held out after it.
const KEPT: Duration = Duration::from_secs(60);
/// Within this time a key is written again.
const SOON: Duration = Duration::from_millis(100);
/// Lives that write are more than twice as many as a small datagram has room to name.
const LIVES: usize = 60;

const SKEW: &str = "settings that differ";
const SMALL: &str = "small datagrams";
const ORIGINS: &str = "clocks with other origins";
const CLUSTERS: &str = "two clusters";

impl Plan {
    /// Numbers of nodes that a campaign must have met, unless it is one of [`Plan::swarm_of`] a number.
    pub const SCALES: &'static [&'static str] = &[
        SCALES[0].1,
        SCALES[1].1,
        SCALES[2].1,
        SCALES[3].1,
        SCALES[4].1,
        SCALES[5].1,
        SCALES[6].1,
    ];

    /// What a campaign must have met besides [`Fault::CLASSES`](super::Fault::CLASSES): settings, clocks and
    /// clusters.
    pub const CLASSES: &'static [&'static str] = &[SKEW, SMALL, ORIGINS, CLUSTERS];

    /// What faults must have led to in a campaign: that they began alone says little.
    pub const EFFECTS: &'static [&'static str] = &[
        "crashed while joining",
        "crashed while leaving",
        "crashed while sending",
        "replayed across a restart",
        "answered a stranger",
        "betrayed",
        "refused: truncated",
        "refused: unsupported version",
        "refused: wrong cluster",
        "refused: unknown frame",
        "refused: malformed",
        "refused: limit exceeded",
    ];

    /// Counters of nodes that a campaign must have moved: those of what happens to them, not of limits that
    /// refuse.
    pub const COUNTERS: &'static [&'static str; 10] = &[
        "swim: probes",
        "swim: probes failed",
        "swim: probes void",
        "swim: refutations",
        "swim: misaddressed",
        "map: writes",
        "map: dots received",
        "map: pulls sent",
        "map: pulls timed out",
        "map: misaddressed",
    ];

    /// Steps between what is believed of a member, all that are legal and can be seen from one input to the
    /// next, that a campaign must have met.
    pub const STEPS: &'static [&'static str] = &[
        "met alive",
        "alive, newer",
        "alive to suspect",
        "alive to left",
        "suspect to alive",
        "suspect to dead",
        "suspect to left",
        "alive to dead",
        "dead to alive",
        "dead to left",
        "left to alive",
    ];

    /// Branches of the map that a campaign must have come through.
    pub const BRANCHES: &'static [&'static str] = crate::reached::BRANCHES;

    /// Which of [`Plan::SCALES`] and [`Plan::CLASSES`] this plan has.
    #[must_use]
    pub fn classes(&self) -> Vec<&'static str> {
        let scale = SCALES.iter().filter(|(nodes, _)| *nodes == self.nodes).map(|(_, name)| *name);
        let small = self.configs.iter().all(|config| config.max_datagram < DATAGRAMS[2]);
        let same = self.configs.iter().all(|config| *config == self.configs[0]);
        let others = [
            (!same, SKEW),
            (small && !self.configs.is_empty(), SMALL),
            (self.origins.iter().any(|origin| *origin > Instant::ZERO), ORIGINS),
            (self.two_clusters, CLUSTERS),
        ];
        scale.chain(others.into_iter().filter(|(has, _)| *has).map(|(_, name)| name)).collect()
    }

    /// Settings, clocks and clusters, some of the time.
    pub(super) fn draw_setting(&mut self, dice: &mut Dice) {
        self.draw_conditions(dice);
        self.write_again(dice);
    }

    fn draw_conditions(&mut self, dice: &mut Dice) {
        let nodes = self.nodes;
        match dice.below(8) {
            0 => self.configs = (0..nodes).map(|_| skewed(dice)).collect(),
            1 => {
                let small = |dice: &mut Dice| {
                    let mut config = with_small_keys();
                    config.max_datagram = DATAGRAMS[dice.below(2)];
                    config
                };
                self.configs = (0..nodes).map(|_| small(dice)).collect();
                // So long that a few members, not many, fill a datagram.
                self.meta = dice.below(crate::MAX_META + 1);
                if nodes > 2 && dice.one_in(2) {
                    self.live_often(dice);
                }
            }
            _ => {}
        }
        if dice.one_in(4) {
            self.origins = (0..nodes).map(|_| origin(dice)).collect();
        }
        if nodes > 1 && dice.one_in(8) {
            self.two_clusters = true;
            let (to, from) = (2 * dice.below(nodes.div_ceil(2)), 2 * dice.below(nodes / 2) + 1);
            let at = dice.time(self.trouble);
            self.steps.push(Step { at, act: Act::Join(from, to), luck: 0 });
            // The first of the second cluster is its seed that is where it was.
            for step in &mut self.steps {
                if let Act::Fault(Fault::Node(Nodes::Only(places), trouble), _) = &mut step.act
                    && matches!(trouble, Trouble::Death | Trouble::Goodbye | Trouble::Move)
                {
                    places.retain(|&place| place > 1);
                }
            }
        }
    }
}

impl Plan {
    /// So many lives that write that the digest of a map takes several datagrams, and what a new life lacks
    /// is more than it may ask for at once.
    fn live_often(&mut self, dice: &mut Dice) {
        for config in &mut self.configs {
            config.map.pull_budget = config.max_datagram;
        }
        let rounds = LIVES.div_ceil(self.nodes);
        let round = self.trouble / rounds as u32;
        let each = round / (self.nodes as u32 + 1);
        for number in 0..rounds {
            let from = round * number as u32;
            let restart = Fault::Node(Nodes::All, Trouble::RollingRestart(each));
            let act = Act::Fault(restart, round - each / 2);
            self.steps.push(Step { at: from, act, luck: dice.0.next() });
            for place in 0..self.nodes {
                // It has been back for half of its turn.
                let (at, key) = (from + each * (place as u32 + 1), dice.below(usize::from(KEYS)));
                self.steps.push(Step { at, act: Act::Put(place, key as u8), luck: 0 });
            }
        }
    }
}

impl Plan {
    /// Some write a key again while what they wrote before is still under way, and may arrive after it.
    fn write_again(&mut self, dice: &mut Dice) {
        let puts = self.steps.iter().filter(|step| matches!(step.act, Act::Put(..)));
        let some: Vec<Step> = puts.filter(|_| dice.one_in(4)).cloned().collect();
        let soon = |step: Step, dice: &mut Dice| Step { at: step.at + dice.time(SOON), ..step };
        self.steps.extend(some.into_iter().map(|step| soon(step, dice)));
    }
}

/// How many nodes.
pub(super) fn scale(dice: &mut Dice) -> usize {
    match dice.below(8) {
        0 => SCALES[dice.below(SCALES.len())].0,
        1 => 3 + dice.below(30),
        _ => 3 + dice.below(6),
    }
}

/// When a clock begins: at zero, after years, or in the second half of its range.
fn origin(dice: &mut Dice) -> Instant {
    let year = Duration::from_secs(365 * 24 * 3_600);
    match dice.below(4) {
        0 => Instant::ZERO,
        1 => Instant::from_nanos(1 << 63) + dice.time(year),
        _ => Instant::ZERO + dice.time(year * 30),
    }
}

/// Keys that fit the smallest datagram, and values that fit none.
pub(super) fn with_small_keys() -> Config {
    let mut config = Config::local();
    (config.map.max_key, config.map.max_value) = (64, LARGE);
    // All are to agree again soon after the trouble.
    config.swim.hold_out = HELD;
    // What nobody heard of one that is held out is not written anew: the oracles know a write by its dot.
    config.map.keep_for = KEPT;
    config
}

/// Settings of an operator who thinks otherwise.
fn skewed(dice: &mut Dice) -> Config {
    let millis = |dice: &mut Dice, least: usize, most: usize| {
        Duration::from_millis((least + dice.below(most - least + 1)) as u64)
    };
    let mut config = with_small_keys();
    config.max_datagram = DATAGRAMS[dice.below(DATAGRAMS.len())];
    let swim = &mut config.swim;
    swim.probe_interval = millis(dice, 100, 400);
    swim.probe_timeout = swim.probe_interval * 2 / 5;
    swim.retry_min = millis(dice, 10, 40);
    swim.retry_max = swim.retry_min * 2;
    swim.indirect_probes = dice.below(6);
    swim.suspicion_max_mult = 1 + dice.below(8) as u32;
    swim.suspicion_confirmations = dice.below(6);
    swim.max_local_health = dice.below(10) as u32;
    swim.gossip_interval = millis(dice, 20, 100);
    swim.gossip_nodes = 1 + dice.below(5);
    swim.retransmit_mult = 1 + dice.below(6) as u32;
    swim.leave_acks = 1 + dice.below(5);
    let map = &mut config.map;
    map.push_interval = millis(dice, 0, 20);
    map.pull_interval = millis(dice, 10, 100);
    map.pull_timeout = millis(dice, 40, 200);
    map.pull_budget = 2_000 + dice.below(64_000);
    map.sync_interval = millis(dice, 200, 1_000);
    // Contexts of so few replicas are not compared else.
    map.max_listed = if map.pull_budget.is_multiple_of(2) { 2 } else { map.max_listed };
    config
}
