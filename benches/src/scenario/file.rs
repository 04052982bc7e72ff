//! What a scenario file says.

use brickwork_core::{Config, swim};
use serde::Deserialize;
use toml::Spanned;

use super::budget::Budget;
use super::value::{Pick, Share, Time};

/// Which settings the nodes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// `Config::lan`.
    Lan,
    /// `Config::local`, about five times as fast.
    Local,
    /// `swim::Config::memberlist_lan`, to compare with.
    MemberlistLan,
}

impl Profile {
    /// The settings themselves.
    pub(super) fn config(self) -> Config {
        match self {
            Self::Lan => Config::lan(),
            Self::Local => Config::local(),
            Self::MemberlistLan => {
                let mut config = Config::lan();
                config.swim = swim::Config::memberlist_lan();
                config
            }
        }
    }
}

/// A scenario: nodes, what happens to them, and what is asserted. Times count from the moment at which
/// all nodes knew each other and the `settle` time had passed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a line.
    pub description: String,
    /// The settings of the nodes.
    pub profile: Profile,
    /// How many nodes.
    pub nodes: Spanned<usize>,
    /// How long it is measured.
    pub duration: Spanned<Time>,
    /// Whether nodes keep the map in step. Without it a node has one peer for the map, and membership is
    /// all that costs.
    #[serde(default = "yes")]
    pub map: bool,
    /// How many seeds it is run with, if nothing else is said.
    #[serde(default = "one")]
    pub seeds: Spanned<u64>,
    /// How long nothing is done after all have joined.
    #[serde(default = "ten_seconds")]
    pub settle: Time,
    /// How long after its trouble a node may still be declared dead without that being false.
    #[serde(default = "ten_seconds")]
    pub grace: Time,
    /// Datagrams are lost.
    #[serde(default)]
    pub loss: Vec<Loss>,
    /// Nodes are cut off from all others.
    #[serde(default)]
    pub split: Vec<Split>,
    /// Nodes take long for every input.
    #[serde(default)]
    pub slow: Vec<Slow>,
    /// Nodes stand still again and again.
    #[serde(default)]
    pub pause: Vec<Pause>,
    /// Nodes die.
    #[serde(default)]
    pub crash: Vec<Crash>,
    /// Nodes leave.
    #[serde(default)]
    pub leave: Vec<Leave>,
    /// Keys are written.
    pub writes: Option<Writes>,
    /// What the full size must reach.
    #[serde(default)]
    pub budget: Budget,
    /// What is different in the small form.
    pub quick: Option<Quick>,
}

/// The small form: what is not named here is as in the full one, but the budget is its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quick {
    nodes: Option<Spanned<usize>>,
    duration: Option<Spanned<Time>>,
    seeds: Option<Spanned<u64>>,
    settle: Option<Time>,
    loss: Option<Vec<Loss>>,
    split: Option<Vec<Split>>,
    slow: Option<Vec<Slow>>,
    pause: Option<Vec<Pause>>,
    crash: Option<Vec<Crash>>,
    leave: Option<Vec<Leave>>,
    writes: Option<Writes>,
    #[serde(default)]
    budget: Budget,
}

/// `[[loss]]`: each datagram is lost with a chance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// The chance.
    pub share: Share,
    /// Losses come in bursts of so many datagrams on average.
    pub burst: Option<Spanned<u32>>,
    /// Only what these send and receive; without it, everything. They count as faulty: see `faulty_out` of the budget.
    pub nodes: Option<Spanned<Pick>>,
    /// Only what they receive, or send; without it, both.
    pub direction: Option<Spanned<Direction>>,
    /// It comes and goes: so long it is there …
    pub on: Option<Spanned<Time>>,
    /// … and so long not.
    pub off: Option<Spanned<Time>>,
    /// From when.
    pub begin: Option<Spanned<Time>>,
    /// Until when; without it, to the end.
    pub end: Option<Spanned<Time>>,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Direction {
    /// What others send to them.
    In,
    /// What they send to others.
    Out,
}

/// `[[split]]`: nothing passes between these nodes and the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Who is cut off.
    pub nodes: Spanned<Pick>,
    /// From when.
    pub begin: Option<Spanned<Time>>,
    /// Until when; without it, to the end.
    pub end: Option<Spanned<Time>>,
}

/// `[[slow]]`: every input takes these nodes long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// Who.
    pub nodes: Spanned<Pick>,
    /// How long.
    pub per_input: Time,
    /// From when.
    pub begin: Option<Spanned<Time>>,
    /// Until when; without it, to the end.
    pub end: Option<Spanned<Time>>,
}

/// `[[pause]]`: these nodes stand still for a time, run for a time, and so on; each begins at a moment
/// of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Who.
    pub nodes: Spanned<Pick>,
    /// How long they stand still.
    pub still: Spanned<Time>,
    /// How long they run in between.
    pub run: Spanned<Time>,
    /// From when.
    pub begin: Option<Spanned<Time>>,
    /// Until when; without it, to the end.
    pub end: Option<Spanned<Time>>,
}

/// `[[crash]]`: these nodes die without a word, one after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// Who.
    pub nodes: Spanned<Pick>,
    /// When the first dies.
    pub begin: Option<Spanned<Time>>,
    /// Until when the others follow, at even distances; without it, all die at once.
    pub end: Option<Spanned<Time>>,
    /// After this long each starts again without state; without it, they stay dead.
    pub back_after: Option<Spanned<Time>>,
}

/// `[[leave]]`: these nodes say goodbye and end, one after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// Who.
    pub nodes: Spanned<Pick>,
    /// When the first leaves.
    pub begin: Option<Spanned<Time>>,
    /// Until when the others follow, at even distances; without it, all leave at once.
    pub end: Option<Spanned<Time>>,
}

/// `[writes]`: nodes write keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writes {
    /// Writes per second in the whole cluster.
    pub rate: Spanned<f64>,
    /// Over how many keys they are spread. Without it, every write has a fresh key.
    pub keys: Option<Spanned<usize>>,
    /// Bytes of a key.
    pub key_bytes: Spanned<usize>,
    /// Bytes of a value.
    pub value_bytes: Spanned<usize>,
    /// All keys are written before time begins to count.
    #[serde(default)]
    pub preload: bool,
    /// Each key is removed after this long.
    pub lifetime: Option<Spanned<Time>>,
    /// From when.
    pub begin: Option<Spanned<Time>>,
    /// Until when; without it, until `grace` before the end, so that the last can arrive.
    pub end: Option<Spanned<Time>>,
}

const fn yes() -> bool {
    true
}

fn one() -> Spanned<u64> {
    Spanned::new(0..0, 1)
}

fn ten_seconds() -> Time {
    Time(std::time::Duration::from_secs(10))
}

impl Scenario {
    /// The small form; the same if the file has none.
    #[must_use]
    pub fn quick(self) -> Self {
        let Some(quick) = self.quick.clone() else { return self };
        Self {
            nodes: quick.nodes.unwrap_or(self.nodes),
            duration: quick.duration.unwrap_or(self.duration),
            seeds: quick.seeds.unwrap_or(self.seeds),
            settle: quick.settle.unwrap_or(self.settle),
            loss: quick.loss.unwrap_or(self.loss),
            split: quick.split.unwrap_or(self.split),
            slow: quick.slow.unwrap_or(self.slow),
            pause: quick.pause.unwrap_or(self.pause),
            crash: quick.crash.unwrap_or(self.crash),
            leave: quick.leave.unwrap_or(self.leave),
            writes: quick.writes.or(self.writes),
            budget: quick.budget,
            quick: None,
            ..self
        }
    }
}
