//! Settings of the map.

use core::time::Duration;

use super::fragment::MAX_WRITTEN_SIBLINGS;
use super::policy::Policy;
use super::wire::MAX_KEY;
use crate::config::ConfigError;

/// Longest value that any configuration allows.
const MAX_VALUE: usize = 65_536;

/// Settings of the map. Start from [`Config::lan`] or [`Config::local`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Longest key, in bytes: at most a quarter of a datagram, and 4,000.
    pub max_key: usize,
    /// Longest value, in bytes: at most 65,536. What fits one datagram with its key, its concurrent values and 160
    /// bytes to spare is pushed to the peers; a larger entry is pulled by them in fragments: a round trip
    /// more, and another for each `pull_budget` of it.
    pub max_value: usize,
    /// Most keys, removed ones included. A local insert beyond it is an error; a chunk from a peer
    /// that would exceed it is refused whole, counted, and asked for again later.
    pub max_keys: usize,
    /// Most bytes of keys and values; treated as `max_keys` is.
    pub max_bytes: usize,
    /// Most concurrent values of a key that a local write may leave, at most 1,024: a write that would leave more is an
    /// error, be it one that [resolves](super::Map::resolve) some. More may come from peers, as writers do not hear of
    /// each other at once.
    pub max_siblings: usize,
    /// The quota of this node: most values that are its own, of whichever of its lives. A local insert beyond it is an
    /// error; see [`Map::own_usage`](super::Map::own_usage). A value that another node supersedes is none of its own
    /// any more. If the quotas of all nodes together fit `max_keys` and `max_bytes` with room to spare, for keys that were
    /// removed and not forgotten yet and for what changes on its way, no map gets to its limits.
    pub max_own_values: usize,
    /// Most bytes of those values and their keys; treated as `max_own_values` is.
    pub max_own_bytes: usize,
    /// Which of concurrent values is read. The same at all nodes of a cluster.
    pub policy: Policy,
    /// Whether keys are kept in order for [`Map::prefix`](super::Map::prefix), at five to eight bytes per key,
    /// 16 after most were removed, and O(log n) comparisons whenever one comes or goes.
    pub ordered: bool,
    /// Most replicas known at a time, at most 65,535: every start of a node without its old state is one, until that
    /// life is over and retired. Also, most nodes that have retired lives. A new replica is told of up to eight retired
    /// lives of each node, and needs room for them until it has retired them itself.
    pub max_replicas: usize,
    /// Lives that are over, for their nodes began others, and that are known one by one. If there are more, those that
    /// nothing names any more are retired together, until half as many are left. Of nodes that are gone, and of lives
    /// with values that nobody has overwritten, sixteen times as many are kept; then such values are
    /// [written again](crate::Event::WrittenAnew). Each costs some 200 bytes, and while data flows some 20 in each pull.
    /// Any number will do, 64 in both profiles. Lives are retired two rounds of `collect_interval` after they are too
    /// many, if every member is heard from meanwhile; by nobody who has no member.
    ///
    /// Which writes of a retired life count is known as long as it is among the last eight of its node (those with
    /// the highest epochs). Of those before whoever was cut off takes the word of the others: what all members on its
    /// side had, and the others did not, is lost then; what some of them had is written again.
    pub max_past_lives: usize,
    /// Most dots of one replica that are known ahead of a gap, beside those that others are waited for with: an answer
    /// that tells keys once which were overwritten closes the gap at its end, at most 524,288 dots on.
    pub max_gap_dots: usize,
    /// Most dots of one replica, from 16 to 262,144, that an answer looks through at a time for keys that were written
    /// again. Who is answered keeps what it is told of so many apart until it has all. Where it has begun with more, by
    /// another peer, it is told the rest with the same end, for which up to 524,288 are looked through.
    pub max_window_dots: usize,
    /// Local changes are pushed to the peers at once, but at most once per this time.
    pub push_interval: Duration,
    /// Missing data is asked for at most once per this time, unless the last answer brought some.
    pub pull_interval: Duration,
    /// A pull without an answer is given up after four usual answer times, but not before this …
    pub pull_timeout_min: Duration,
    /// … and not later than this, until more than four in a row were given up: then ever later, up to four times this
    /// if the peer has spoken meanwhile, and else up to 32 times, or until somebody speaks.
    pub pull_timeout: Duration,
    /// Most bytes that one pull asks for; up to three are under way at a time. Half as many are asked for after an
    /// answer that broke off, a datagram's more after each that came whole.
    pub pull_budget: usize,
    /// Most bytes per second of answers to pulls, full syncs included: of those that are asked for, and of those that are
    /// given, on average over more than a second. Whoever asks is given a datagram at least.
    pub pull_rate: usize,
    /// Most replicas that a pull lists at once. Where more were ever seen, sums over 64 parts of them are compared first,
    /// and those are listed that are in parts which differ: a round trip more, and most often far fewer bytes.
    pub max_listed: usize,
    /// How often a random peer is told the state digest, besides those on pings and acks. While the
    /// map changes it is told every `pull_interval` instead.
    pub sync_interval: Duration,
    /// How often marks of superseded writes, removed keys and logs that every peer is beyond are
    /// dropped, at most. It takes until all peers were heard to be.
    pub collect_interval: Duration,
    /// How long nothing is dropped for the sake of a peer that went down, or that does not take in what others have. If
    /// it comes back later it is sent the whole map. One whose own map has no room for that asks for it no more often.
    pub keep_for: Duration,
    /// The [log](super::Map::start_log) is written anew when it has grown to twice its first size, but not before so
    /// many bytes were appended to it.
    pub compact_log_from: usize,
    /// Most peers.
    pub max_peers: usize,
    /// Most events that wait for [`poll_event`](super::Map::poll_event).
    pub max_events: usize,
}

impl Config {
    /// For replicas in one datacenter.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            max_key: 256,
            max_value: MAX_VALUE,
            max_keys: 1 << 22,
            max_bytes: 1 << 30,
            max_siblings: MAX_WRITTEN_SIBLINGS,
            max_own_values: usize::MAX,
            max_own_bytes: usize::MAX,
            policy: Policy::Rendezvous,
            ordered: false,
            max_replicas: 65_535,
            max_past_lives: 64,
            max_gap_dots: 65_536,
            max_window_dots: 1 << 18,
            push_interval: Duration::from_millis(20),
            pull_interval: Duration::from_millis(150),
            pull_timeout_min: Duration::from_millis(25),
            pull_timeout: Duration::from_millis(300),
            pull_budget: 64 * 1024,
            pull_rate: 1 << 27,
            max_listed: 300,
            sync_interval: Duration::from_secs(2),
            collect_interval: Duration::from_secs(5),
            keep_for: Duration::from_secs(60),
            compact_log_from: 1 << 20,
            max_peers: 16_384,
            max_events: 65_536,
        }
    }

    /// For replicas on one machine, as in tests: about five times as fast as [`Config::lan`].
    #[must_use]
    pub const fn local() -> Self {
        Self {
            push_interval: Duration::from_millis(4),
            pull_interval: Duration::from_millis(30),
            pull_timeout_min: Duration::from_millis(5),
            pull_timeout: Duration::from_millis(80),
            sync_interval: Duration::from_millis(400),
            collect_interval: Duration::from_secs(1),
            keep_for: Duration::from_secs(12),
            ..Self::lan()
        }
    }

    /// The longest value that may be written.
    pub(super) fn longest_value(&self) -> usize {
        self.max_value.min(self.policy.most(MAX_VALUE))
    }

    pub(crate) fn check(&self, max_datagram: usize) -> Result<(), ConfigError> {
        let refuse = |reason| Err(ConfigError::Refused(reason));
        if self.max_key > (max_datagram / 4).min(MAX_KEY) {
            return refuse("map.max_key must be at most a quarter of max_datagram (and 4,000)");
        }
        if self.max_value > MAX_VALUE {
            return refuse("map.max_value must be at most 65,536");
        }
        if self.max_replicas == 0 || self.max_replicas > 65_535 {
            return refuse("map.max_replicas must be from 1 to 65,535");
        }
        if self.max_keys == 0 || self.max_keys > 1 << 31 {
            return refuse("map.max_keys must be from 1 to 2,147,483,648");
        }
        if self.max_siblings == 0 || self.max_siblings > MAX_WRITTEN_SIBLINGS {
            return refuse("map.max_siblings must be from 1 to 1,024");
        }
        if !(16..=1 << 18).contains(&self.max_window_dots) {
            return refuse("map.max_window_dots must be from 16 to 262,144");
        }
        if self.max_gap_dots == 0 || self.max_peers == 0 || self.max_events == 0 {
            return refuse("map.max_gap_dots, max_peers and max_events must be above zero");
        }
        if self.pull_interval.is_zero() || self.sync_interval.is_zero() {
            return refuse("map.pull_interval and sync_interval must be above zero");
        }
        if self.pull_timeout_min.is_zero() || self.pull_timeout_min > self.pull_timeout {
            return refuse("map.pull_timeout_min must be above zero and at most map.pull_timeout");
        }
        let day = Duration::from_secs(24 * 3600);
        if self.collect_interval.is_zero() {
            return refuse("map.collect_interval must be above zero");
        }
        let long = [
            self.push_interval,
            self.pull_interval,
            self.pull_timeout,
            self.sync_interval,
            self.collect_interval,
            self.keep_for,
        ];
        if long.iter().any(|d| *d > day) {
            return refuse("map's intervals and timeouts are at most a day");
        }
        if self.pull_budget < max_datagram {
            return refuse("map.pull_budget must be at least max_datagram");
        }
        if self.pull_rate < self.pull_budget {
            return refuse("map.pull_rate must be at least map.pull_budget");
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::lan()
    }
}
