//! What is known about an origin: the thresholds that turn checks into up and down, and the status
//! that every node reads from the map.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::{Outcome, Reason};
use crate::origins::Origin;

/// The first byte of every encoded status. Bytes with another one are those of a program that this
/// one does not know.
const VERSION: u8 = 1;

/// The longest encoded status; longer bytes are refused unread.
pub(crate) const MAX_STATUS: usize = 200;

/// The longest name of a checker in a status. A longer name is cut, because the name is for people:
/// who wrote a status is told by the map.
const MAX_CHECKER: usize = 64;

/// Whether an origin serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Not enough checks yet.
    Unknown,
    /// It answers as expected.
    Up,
    /// It does not.
    Down,
}

impl State {
    /// The word for it in answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The value in the map: what the owner of an origin tells the others about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Up, down, or not known yet.
    pub(crate) state: State,
    /// Unix time in milliseconds at which `state` began. It outlives a change of owner.
    pub(crate) since_ms: u64,
    /// How long the last check took, in microseconds.
    pub(crate) latency_us: u32,
    /// Why the last check failed; none if it succeeded.
    pub(crate) reason: Option<Reason>,
    /// Name of the node that wrote this.
    pub(crate) checker: String,
    /// Unix time in microseconds at which the checker wrote this; strictly rising for one checker
    /// and origin.
    pub(crate) written_us: u64,
}

impl Status {
    /// The bytes that go into the map: a version, then the fields.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut cut = self.checker.len().min(MAX_CHECKER);
        while !self.checker.is_char_boundary(cut) {
            cut -= 1;
        }
        let bounded = Self { checker: self.checker[..cut].to_owned(), ..self.clone() };
        // Writing into a Vec cannot fail; an empty value would be refused by every reader.
        postcard::to_extend(&bounded, vec![VERSION]).unwrap_or_default()
    }

    /// Reads bytes of the map, which a peer may have chosen; none if they are no status of this
    /// version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_STATUS {
            return None;
        }
        let (&version, fields) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        let (status, rest) = postcard::take_from_bytes::<Self>(fields).ok()?;
        (rest.is_empty() && status.checker.len() <= MAX_CHECKER).then_some(status)
    }
}

/// Counts checks of one origin against its thresholds.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    healthy_threshold: u32,
    unhealthy_threshold: u32,
    state: State,
    since_ms: u64,
    latency_us: u32,
    reason: Option<Reason>,
    /// Checks in a row that speak against `state`, all of one kind (`failing`).
    against: u32,
    failing: bool,
}

impl Health {
    /// An origin of which nothing is known.
    pub(crate) fn new(origin: &Origin, now_ms: u64) -> Self {
        Self {
            healthy_threshold: origin.healthy_threshold,
            unhealthy_threshold: origin.unhealthy_threshold,
            state: State::Unknown,
            since_ms: now_ms,
            latency_us: 0,
            reason: None,
            against: 0,
            failing: false,
        }
    }

    /// Carries on from what another node wrote: a change of owner is no change of the origin.
    pub(crate) fn resume(origin: &Origin, status: &Status) -> Self {
        Self {
            state: status.state,
            since_ms: status.since_ms,
            latency_us: status.latency_us,
            reason: status.reason,
            ..Self::new(origin, status.since_ms)
        }
    }

    /// Whether the origin is up, down or not known.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Counts one check and returns whether the state changed with it.
    pub(crate) fn observe(&mut self, now_ms: u64, outcome: &Outcome) -> bool {
        self.latency_us = micros(outcome.latency);
        self.reason = outcome.failure;
        let failed = outcome.failure.is_some();
        let agrees = match self.state {
            State::Unknown => false,
            State::Up => !failed,
            State::Down => failed,
        };
        if agrees {
            self.against = 0;
            return false;
        }
        self.against = if failed == self.failing { self.against.saturating_add(1) } else { 1 };
        self.failing = failed;
        let needed = if failed { self.unhealthy_threshold } else { self.healthy_threshold };
        if self.against < needed {
            return false;
        }
        self.state = if failed { State::Down } else { State::Up };
        self.since_ms = now_ms;
        self.against = 0;
        true
    }

    /// What to write into the map.
    pub(crate) fn status(&self, checker: &str, written_us: u64) -> Status {
        Status {
            state: self.state,
            since_ms: self.since_ms,
            latency_us: self.latency_us,
            reason: self.reason,
            checker: checker.to_owned(),
            written_us,
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(healthy: u32, unhealthy: u32) -> Origin {
        Origin {
            name: "a".to_owned(),
            url: reqwest::Url::parse("http://a/").expect("a URL"),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_threshold: healthy,
            unhealthy_threshold: unhealthy,
            expected_status: 200,
        }
    }

    fn outcome(failure: Option<Reason>) -> Outcome {
        Outcome { latency: Duration::from_micros(250), failure }
    }

    #[test]
    fn thresholds_count_checks_in_a_row() {
        let (good, bad) = (outcome(None), outcome(Some(Reason::Connect)));
        let mut health = Health::new(&origin(2, 3), 5);
        assert!(!health.observe(10, &good));
        assert_eq!(health.state(), State::Unknown);
        assert!(health.observe(20, &good));
        assert_eq!((health.state(), health.status("n", 0).since_ms), (State::Up, 20));
        assert!(!health.observe(30, &bad));
        assert!(!health.observe(40, &bad));
        assert!(!health.observe(50, &good), "the row is broken");
        assert!(!health.observe(60, &bad));
        assert!(!health.observe(70, &bad));
        assert!(health.observe(80, &bad));
        assert_eq!((health.state(), health.status("n", 0).since_ms), (State::Down, 80));
        assert!(!health.observe(90, &bad), "no news");
        assert_eq!(health.status("n", 0).since_ms, 80);
    }

    #[test]
    fn from_unknown_a_mixed_row_decides_nothing() {
        let mut health = Health::new(&origin(2, 2), 0);
        for at in 0..20 {
            let failure = (at % 2 == 0).then_some(Reason::Timeout);
            assert!(!health.observe(at, &outcome(failure)));
        }
        assert_eq!(health.state(), State::Unknown);
    }

    #[test]
    fn a_new_owner_carries_state_and_since_over() {
        let mut old = Health::new(&origin(1, 2), 0);
        assert!(old.observe(7, &outcome(None)));
        let mut new = Health::resume(&origin(1, 2), &old.status("old", 1));
        assert_eq!((new.state(), new.status("new", 2).since_ms), (State::Up, 7));
        assert!(!new.observe(100, &outcome(None)));
        assert_eq!(new.status("new", 3).since_ms, 7);
    }

    fn any_reason() -> impl Strategy<Value = Option<Reason>> {
        prop_oneof![
            Just(None),
            Just(Some(Reason::Dns)),
            Just(Some(Reason::Connect)),
            Just(Some(Reason::Tls)),
            Just(Some(Reason::Timeout)),
            (100u16..600).prop_map(|code| Some(Reason::Status(code))),
            Just(Some(Reason::Protocol)),
        ]
    }

    proptest! {
        #[test]
        fn a_status_survives_the_map(
            up in any::<bool>(), since_ms in any::<u64>(), latency_us in any::<u32>(),
            reason in any_reason(), checker in "\\PC{0,40}", written_us in any::<u64>(),
        ) {
            let state = if up { State::Up } else { State::Down };
            let status = Status { state, since_ms, latency_us, reason, checker, written_us };
            let bytes = status.encode();
            prop_assert!(bytes.len() < MAX_STATUS);
            let read = Status::decode(&bytes).expect("our own bytes");
            prop_assert!(status.checker.starts_with(&read.checker));
            prop_assert_eq!(Status { checker: status.checker.clone(), ..read }, status);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = Status::decode(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend_from_slice(&bytes);
            prop_assert!(read.is_none() || bytes[0] == VERSION);
            if let Some(status) = Status::decode(&versioned) {
                prop_assert!(status.encode().len() <= MAX_STATUS);
            }
        }
    }
}
