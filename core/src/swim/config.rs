//! Settings of the membership protocol.

use core::time::Duration;

use super::inquiry::MAX_OBSERVERS;
use crate::config::ConfigError;

/// Whose rules hold beside the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// This project's own.
    #[default]
    Brickwork,
    /// Those of HashiCorp memberlist, to be compared with; see [`Config::memberlist_lan`].
    Memberlist,
}

/// Settings of the membership protocol. Start from [`Config::lan`] or [`Config::local`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Whose rules hold.
    pub rules: Rules,
    /// One probe is started every interval (the protocol period of SWIM section 3.1).
    pub probe_interval: Duration,
    /// How long a probe waits for a direct answer before it asks helpers. Shorter than the interval.
    pub probe_timeout: Duration,
    /// A probe is sent again after three smoothed round trips, but not faster than this …
    pub retry_min: Duration,
    /// … and not slower than this.
    pub retry_max: Duration,
    /// How many helpers probe indirectly (k of SWIM section 3.1), at most 16.
    pub indirect_probes: usize,
    /// The shortest suspicion timeout is this many probe intervals times log10 of the cluster's size.
    pub suspicion_min: u32,
    /// The longest suspicion timeout is this many times the shortest (Lifeguard section IV-B).
    pub suspicion_max_mult: u32,
    /// Independent confirmations that bring the timeout from the longest to the shortest, at most 16.
    pub suspicion_confirmations: usize,
    /// Bound of the local health score; 0 switches it off (Lifeguard section IV-A).
    pub max_local_health: u32,
    /// How often dedicated gossip is sent while there is something to tell.
    pub gossip_interval: Duration,
    /// To how many random members dedicated gossip goes. As many datagrams are filled with gossip per interval, two at
    /// least, those counted on which it rides. With 0 there is none at all, and news of accusations get nowhere: for tests.
    pub gossip_nodes: usize,
    /// An update is sent this many times ceil(log10(n + 1)) times, one that only says who a member is this many times: the
    /// table exchange tells that as well.
    pub retransmit_mult: u32,
    /// How soon a join that nobody answered is sent again; doubles up to `join_retry_max`, and starts over once
    /// when a seed shows for the first time that it is there. Best above a round trip: a seed
    /// that is asked twice tells all members twice.
    pub join_retry: Duration,
    /// The slowest repetition of an unanswered join.
    pub join_retry_max: Duration,
    /// How often the whole cluster together knocks at members that failed; one node does it every
    /// n such intervals, or every half minute if that is sooner, on average, and once a minute at the least.
    pub reconnect_interval: Duration,
    /// How long a member is held out that answers far worse than others do, but no longer than a sixteenth of `tombstone_age`;
    /// twice as long when it happens again soon, up to eight times as long. Zero: nobody is, and such a member may come
    /// and go. See [`Event::HeldOut`](crate::Event::HeldOut).
    pub hold_out: Duration,
    /// How many distinct members must have found it so, from 2 to 8; in a small cluster all but two, two at least.
    pub hold_out_observers: usize,
    /// How many members must acknowledge a graceful leave.
    pub leave_acks: usize,
    /// When a leave ends even without acknowledgements.
    pub leave_timeout: Duration,
    /// How long a failed or left member is remembered, if there is room; at least a second. A node that stood still for longer than
    /// that by the clock that it is given, and for a minute, tells others of a member only once it answers again. Most monotonic
    /// clocks stop while a machine is suspended.
    pub tombstone_age: Duration,
    /// Most members. When all places are taken, the member that failed or left first is forgotten for a new one; if there is
    /// none, new ones are refused and counted.
    pub max_members: usize,
    /// Most events that wait for [`poll_event`](super::Swim::poll_event).
    pub max_events: usize,
}

impl Config {
    /// For members in one datacenter: probes every second.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            rules: Rules::Brickwork,
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_millis(100),
            indirect_probes: 3,
            suspicion_min: 1,
            suspicion_max_mult: 6,
            suspicion_confirmations: 3,
            max_local_health: 8,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            retransmit_mult: 4,
            join_retry: Duration::from_millis(100),
            join_retry_max: Duration::from_secs(10),
            reconnect_interval: Duration::from_secs(1),
            hold_out: Duration::from_secs(600),
            hold_out_observers: 4,
            leave_acks: 3,
            leave_timeout: Duration::from_secs(5),
            tombstone_age: Duration::from_secs(24 * 3600),
            max_members: 16_384,
            max_events: 65_536,
        }
    }

    /// For members on one machine, as in tests: five times as fast as [`Config::lan`].
    #[must_use]
    pub const fn local() -> Self {
        Self {
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(80),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(40),
            gossip_interval: Duration::from_millis(40),
            join_retry: Duration::from_millis(50),
            join_retry_max: Duration::from_secs(2),
            hold_out: Duration::from_secs(120),
            leave_timeout: Duration::from_secs(2),
            ..Self::lan()
        }
    }

    /// The rules and the LAN defaults of HashiCorp memberlist, for comparisons in the simulator on the same seeds: not a
    /// way to speak to its members, and nothing that a cluster is better off with. Both sides of a comparison have this
    /// project's wire format and join.
    #[must_use]
    pub const fn memberlist_lan() -> Self {
        Self {
            rules: Rules::Memberlist,
            probe_timeout: Duration::from_millis(500),
            suspicion_min: 4,
            suspicion_confirmations: 2,
            max_local_health: 7,
            tombstone_age: Duration::from_secs(30),
            ..Self::lan()
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |reason| Err(ConfigError::Refused(reason));
        if self.probe_timeout >= self.probe_interval {
            return refuse("swim.probe_timeout must be shorter than swim.probe_interval");
        }
        if self.retry_min < Duration::from_millis(1) || self.retry_min > self.retry_max {
            return refuse(
                "swim.retry_min must be at least a millisecond and at most swim.retry_max",
            );
        }
        if self.probe_timeout.is_zero() || self.gossip_interval.is_zero() {
            return refuse("swim.probe_timeout and swim.gossip_interval must be above zero");
        }
        if self.join_retry.is_zero() || self.join_retry > self.join_retry_max {
            return refuse("swim.join_retry must be above zero and at most swim.join_retry_max");
        }
        let day = Duration::from_secs(24 * 3600);
        let long = [self.probe_interval, self.retry_max, self.gossip_interval, self.join_retry_max];
        let longer = [&self.reconnect_interval, &self.leave_timeout, &self.hold_out];
        if long.iter().chain(longer).any(|d| *d > day) {
            return refuse("swim's intervals and timeouts are at most a day");
        }
        if self.suspicion_min > 1_000
            || self.suspicion_max_mult > 1_000
            || self.max_local_health > 64
        {
            return refuse(
                "swim.suspicion_min and suspicion_max_mult are at most 1,000, max_local_health 64",
            );
        }
        if self.reconnect_interval.is_zero() || self.leave_timeout.is_zero() {
            return refuse("swim.reconnect_interval and swim.leave_timeout must be above zero");
        }
        if self.gossip_nodes > 1_024 || self.leave_acks == 0 {
            return refuse("swim.gossip_nodes is at most 1,024, leave_acks at least 1");
        }
        if self.indirect_probes > 16 || self.suspicion_confirmations > 16 {
            return refuse("swim.indirect_probes and swim.suspicion_confirmations are at most 16");
        }
        if !(2..=MAX_OBSERVERS).contains(&self.hold_out_observers) {
            return refuse("swim.hold_out_observers must be from 2 to 8");
        }
        if self.suspicion_min == 0 || self.suspicion_max_mult == 0 || self.retransmit_mult == 0 {
            return refuse(
                "swim.suspicion_min, suspicion_max_mult and retransmit_mult are at least 1",
            );
        }
        if self.tombstone_age < Duration::from_secs(1) {
            return refuse("swim.tombstone_age must be at least a second");
        }
        if self.max_members < 2 || self.max_members > 1 << 20 {
            return refuse("swim.max_members must be from 2 to 1,048,576");
        }
        if self.max_events == 0 {
            return refuse("swim.max_events must be above zero");
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::lan()
    }
}
