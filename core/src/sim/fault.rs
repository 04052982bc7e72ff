//! What can go wrong: conditions of links and troubles of nodes.
//!
//! The classes are those of the fault vocabulary of Jepsen and of FoundationDB's and TigerBeetle's
//! simulators, as far as a datagram protocol can meet them.

use alloc::vec::Vec;
use core::time::Duration;

/// Some places of a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nodes {
    /// All of them.
    All,
    /// These.
    Only(Vec<usize>),
    /// All but these.
    Except(Vec<usize>),
}

impl Nodes {
    /// Just this one.
    #[must_use]
    pub fn one(place: usize) -> Self {
        Self::Only([place].into())
    }

    /// Whether `place` is among them.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(places) => places.contains(&place),
            Self::Except(places) => !places.contains(&place),
        }
    }

    /// The others.
    #[must_use]
    pub fn others(&self) -> Self {
        match self {
            Self::All => Self::Only(Vec::new()),
            Self::Only(places) => Self::Except(places.clone()),
            Self::Except(places) => Self::Only(places.clone()),
        }
    }
}

/// Directed links: from each of some nodes to each of some others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Links {
    /// The senders.
    pub from: Nodes,
    /// The receivers.
    pub to: Nodes,
    /// Also the other way round.
    pub both_ways: bool,
}

impl Links {
    /// Every link.
    #[must_use]
    pub const fn all() -> Self {
        Self { from: Nodes::All, to: Nodes::All, both_ways: false }
    }

    /// From these to those only.
    #[must_use]
    pub const fn one_way(from: Nodes, to: Nodes) -> Self {
        Self { from, to, both_ways: false }
    }

    /// Between these and all others, both ways: where a partition runs.
    #[must_use]
    pub fn around(nodes: &Nodes) -> Self {
        Self { from: nodes.clone(), to: nodes.others(), both_ways: true }
    }

    pub(super) fn has(&self, from: usize, to: usize) -> bool {
        (self.from.has(from) && self.to.has(to))
            || (self.both_ways && self.from.has(to) && self.to.has(from))
    }
}

/// How long a datagram is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delay {
    /// Always the same.
    Constant(Duration),
    /// Evenly between the two.
    Uniform(Duration, Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// Pareto with shape 1.2 and this minimum, cut off at ten thousand times that.
    Pareto(Duration),
    /// The first, but one in `one_in` the second: a stall on the way.
    Bimodal {
        /// Mostly.
        usual: Duration,
        /// Seldom.
        stall: Duration,
        /// How seldom.
        one_in: u32,
    },
    /// On each directed link always the same, anything up to this: there and back take different times.
    PerLink(Duration),
}

/// How bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// One to eight bits are flipped.
    Flip,
    /// The end is missing.
    Cut,
    /// Bytes follow that do not belong.
    Extend,
    /// The second half is that of an earlier datagram.
    Splice,
    /// A length, a count, a tag or another field lies so that nothing can be made of it, at any depth,
    /// and the checksum is right. What is no datagram of the core has flipped bits instead.
    Lie,
}

/// What a link does to datagrams. Chances are in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Nothing arrives.
    Cut,
    /// Of so many nodes, only neighbours hear each other: 0 and 1, 1 and 2, …, the last and 0.
    Ring(usize),
    /// Only the bridge hears, and is heard by, both these and the others.
    Bridge {
        /// One side.
        side: Nodes,
        /// The node that is on both.
        bridge: usize,
    },
    /// Each pair of nodes is cut off from each other with this chance, for the whole time.
    Mesh(u32),
    /// Nothing arrives in every second half of this period.
    Flap(Duration),
    /// The first so many datagrams of each link are lost.
    First(u32),
    /// Each datagram is lost with this chance.
    Loss(u32),
    /// Losses come in bursts (Gilbert and Elliott): `mean` datagrams long on average, and in all this
    /// share is lost. Where so short bursts cannot make up the share, they are longer.
    Bursts {
        /// Share lost.
        permille: u32,
        /// Datagrams in a burst, on average.
        mean: u32,
    },
    /// Datagrams of more bytes than this are lost, as behind a path with a smaller MTU.
    Mtu(usize),
    /// Datagrams whose first frame has this tag are lost with this chance.
    Kind {
        /// The tag.
        tag: u8,
        /// Share lost.
        permille: u32,
    },
    /// A second copy arrives with this chance, within this time after the first.
    Duplicate {
        /// Share that is repeated.
        permille: u32,
        /// The latest repetition.
        within: Duration,
    },
    /// This long instead of what links usually take.
    Delay(Delay),
    /// Held back, and let go all at once when the condition ends.
    Clog,
    /// Damaged with this chance.
    Damage {
        /// Share that is damaged.
        permille: u32,
        /// How.
        how: Damage,
    },
    /// Damage comes in bursts, as losses do in [`Condition::Bursts`].
    DamageBursts {
        /// Share that is damaged.
        permille: u32,
        /// Datagrams in a burst, on average.
        mean: u32,
        /// How.
        how: Damage,
    },
}

/// When a node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// So many inputs after a start, unless it has met somebody by then.
    Joining,
    /// So many inputs after it began to leave.
    Leaving,
    /// With so many datagrams of a longer train on their way.
    Sending,
}

/// What a member does that has turned against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Betrayal {
    /// It says that others are suspected, by many, at the highest incarnation.
    Suspect,
    /// It says that others are dead, by many, at the highest incarnation.
    Dead,
    /// It says that enough others found members to answer poorly.
    Findings,
    /// It speaks for others at incarnations that they never had.
    Alive,
    /// It says that others live where strangers do.
    Address,
    /// It tells of members that there never were.
    Members,
    /// It tells of writes of a replica that there never was. It does not hold them, and whoever heard of
    /// them from it will not tell it: so when this ends, it starts anew.
    Keys,
    /// It tells of writes of others before they make them.
    Context,
    /// It sends nothing to some of the others.
    Silence,
    /// It never ends the answer to a pull.
    Trains,
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// It stands still, as under SIGSTOP or in a migration; its inbox fills up meanwhile.
    Pause,
    /// Every input takes it this long.
    Slow(Duration),
    /// It hears nothing.
    Deaf,
    /// Nothing that it sends leaves.
    Mute,
    /// Its clock runs fast or slow by this many millionths.
    ClockRate(i32),
    /// Its clock leaps ahead once.
    ClockLeap(Duration),
    /// Its clock steps back once.
    ClockBack(Duration),
    /// Its timers fire late by up to this much.
    LateTimers(Duration),
    /// It dies, and starts without state when the trouble ends.
    Crash,
    /// It dies and stays dead.
    Death,
    /// It leaves gracefully, and starts again when the trouble ends.
    Leave,
    /// It leaves gracefully, and stays away.
    Goodbye,
    /// It dies and starts at another address when the trouble ends.
    Move,
    /// It dies at such a moment, after so many of its inputs or datagrams, and starts without state when
    /// the trouble ends.
    CrashDuring(Moment, u32),
    /// It dies, and starts without state at some time within this.
    Restart(Duration),
    /// One node after the other, each after this time, dies and starts without state at half of it.
    RollingRestart(Duration),
    /// It dies, and when the trouble ends it starts without state by a wall clock that is behind by this:
    /// with a boot epoch that may be lower than that of the life before.
    WallClockBack(Duration),
    /// Its datagrams arrive under another source than its address, as behind a NAT that has chosen a new
    /// port.
    Rebind {
        /// What is sent to its own address does not arrive meanwhile.
        hidden: bool,
        /// The source stays another one after the trouble.
        lasting: bool,
    },
    /// Its socket takes nothing: datagrams stay owed.
    Blocked,
    /// The application takes no events.
    Inattentive,
    /// Its receive buffer holds this many datagrams while it is slow or paused; more are lost.
    Inbox(usize),
    /// Its socket takes this many datagrams, and more only when those have left: the rest stays owed.
    SmallOutbox(u32),
    /// The buffer that datagrams are written to has just this many bytes.
    ShortBuffer(usize),
    /// So many datagrams of noise arrive per second.
    Flood(u32),
    /// So many recorded datagrams per second arrive once more, of earlier lives too.
    Replay(u32),
    /// So many datagrams per second arrive under the address of another node or of a stranger: recorded
    /// ones, and joins, pings and more of somebody whom nobody has let in.
    Spoof(u32),
    /// It has turned against the others, and lies to them so many times per second.
    Insider(Betrayal, u32),
}

/// A fault: something that holds for a while, or happens once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Of links.
    Link(Links, Condition),
    /// Of nodes.
    Node(Nodes, Trouble),
}

impl Fault {
    /// The class that it counts for: a campaign must have met all of them.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Link(links, condition) => match condition {
                Condition::Cut if links.both_ways => {
                    let alone = matches!(&links.from, Nodes::Only(places) if places.len() == 1);
                    if alone { "isolation" } else { "partition" }
                }
                Condition::Cut => "one-way cut",
                Condition::Ring(_) => "ring only",
                Condition::Bridge { .. } => "bridge node",
                Condition::Mesh(_) => "partial mesh",
                Condition::Flap(_) => "flapping",
                Condition::First(_) => "first packets lost",
                Condition::Loss(_) => "loss",
                Condition::Bursts { .. } => "loss in bursts",
                Condition::Mtu(_) => "small mtu",
                Condition::Kind { .. } => "loss by kind",
                Condition::Duplicate { .. } => "duplication",
                Condition::Delay(Delay::Constant(_)) => "constant delay",
                Condition::Delay(Delay::Uniform(..)) => "uniform delay",
                Condition::Delay(Delay::Exponential(_)) => "exponential delay",
                Condition::Delay(Delay::Pareto(_)) => "pareto delay",
                Condition::Delay(Delay::Bimodal { .. }) => "stalls on the way",
                Condition::Delay(Delay::PerLink(_)) => "asymmetric delay",
                Condition::Clog => "clog and release",
                Condition::Damage { how: Damage::Flip, .. } => "flipped bits",
                Condition::Damage { how: Damage::Cut, .. } => "truncation",
                Condition::Damage { how: Damage::Extend, .. } => "extension",
                Condition::Damage { how: Damage::Splice, .. } => "splicing",
                Condition::Damage { how: Damage::Lie, .. } => "lies under a right checksum",
                Condition::DamageBursts { .. } => "damage in bursts",
            },
            Self::Node(_, trouble) => match trouble {
                Trouble::Pause => "pause",
                Trouble::Slow(_) => "slow node",
                Trouble::Deaf => "deaf node",
                Trouble::Mute => "mute node",
                Trouble::ClockRate(_) => "clock rate",
                Trouble::ClockLeap(_) => "clock leap",
                Trouble::ClockBack(_) => "clock back",
                Trouble::LateTimers(_) => "late timers",
                Trouble::Crash => "crash",
                Trouble::Death => "death",
                Trouble::Leave => "leave",
                Trouble::Goodbye => "goodbye",
                Trouble::Move => "address change",
                Trouble::CrashDuring(Moment::Joining, _) => "crash while joining",
                Trouble::CrashDuring(Moment::Leaving, _) => "crash while leaving",
                Trouble::CrashDuring(Moment::Sending, _) => "crash while sending",
                Trouble::Restart(_) => "mass restart",
                Trouble::RollingRestart(_) => "rolling restart",
                Trouble::WallClockBack(_) => "wall clock back",
                Trouble::Rebind { hidden: true, .. } => "rebinding, old address gone",
                Trouble::Rebind { lasting: true, .. } => "rebinding for ever",
                Trouble::Rebind { .. } => "rebinding",
                Trouble::SmallOutbox(_) => "small outbox",
                Trouble::Blocked => "blocked socket",
                Trouble::Inattentive => "events not taken",
                Trouble::Inbox(_) => "small inbox",
                Trouble::ShortBuffer(_) => "short buffer",
                Trouble::Flood(_) => "flood",
                Trouble::Replay(_) => "replay",
                Trouble::Spoof(_) => "spoofed source",
                Trouble::Insider(Betrayal::Suspect, _) => "insider: suspicions",
                Trouble::Insider(Betrayal::Dead, _) => "insider: deaths",
                Trouble::Insider(Betrayal::Findings, _) => "insider: findings",
                Trouble::Insider(Betrayal::Alive, _) => "insider: impersonation",
                Trouble::Insider(Betrayal::Address, _) => "insider: addresses",
                Trouble::Insider(Betrayal::Members, _) => "insider: members",
                Trouble::Insider(Betrayal::Keys, _) => "insider: keys",
                Trouble::Insider(Betrayal::Context, _) => "insider: context",
                Trouble::Insider(Betrayal::Silence, _) => "insider: silence",
                Trouble::Insider(Betrayal::Trains, _) => "insider: endless answers",
            },
        }
    }

    /// All classes, for the check that none was left out.
    pub const CLASSES: &'static [&'static str] = &[
        "partition",
        "isolation",
        "one-way cut",
        "ring only",
        "bridge node",
        "partial mesh",
        "flapping",
        "first packets lost",
        "loss",
        "loss in bursts",
        "small mtu",
        "loss by kind",
        "duplication",
        "constant delay",
        "uniform delay",
        "exponential delay",
        "pareto delay",
        "stalls on the way",
        "asymmetric delay",
        "clog and release",
        "flipped bits",
        "truncation",
        "extension",
        "splicing",
        "lies under a right checksum",
        "damage in bursts",
        "pause",
        "slow node",
        "deaf node",
        "mute node",
        "clock rate",
        "clock leap",
        "clock back",
        "late timers",
        "crash",
        "death",
        "leave",
        "goodbye",
        "address change",
        "crash while joining",
        "crash while leaving",
        "crash while sending",
        "mass restart",
        "rolling restart",
        "wall clock back",
        "rebinding, old address gone",
        "rebinding for ever",
        "rebinding",
        "small outbox",
        "blocked socket",
        "events not taken",
        "small inbox",
        "short buffer",
        "flood",
        "replay",
        "spoofed source",
        "insider: suspicions",
        "insider: deaths",
        "insider: findings",
        "insider: keys",
        "insider: silence",
        "insider: endless answers",
    ];

    /// Classes that no plan draws, because not every oracle can hold after them as long as each member may
    /// speak for all others: numbers that their subject never issued are believed, and the subject is not
    /// believed any more until it starts again. They wait for rows and dots that only their subject can
    /// make, for addresses that are proven before they are used, and for quotas of members.
    pub const BEYOND: &'static [&'static str] =
        &["insider: impersonation", "insider: addresses", "insider: members", "insider: context"];
}
