//! The origins of the demo as a plan: which there are, and what each serves at any moment.
//!
//! What an origin serves is a pure function of the seed and the time since the start, so it is
//! known without asking the origin, and an answer of a node can be held against it.

use core::fmt::Write as _;
use core::net::SocketAddr;
use core::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Checks in a row that change a state, in both directions.
pub(crate) const THRESHOLD: u32 = 2;

/// Every tenth origin flaps, every tenth is slow, every tenth refuses.
const SHARE: usize = 10;

/// At most this many checks a second in the whole cluster, so that two cores carry every size of
/// the demo: the interval grows with the number of origins.
const MAX_CHECKS_PER_SECOND: u32 = 1000;

/// What one origin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Always answers.
    Healthy,
    /// Answers only after the timeout.
    Slow,
    /// Its port is closed.
    Refusing,
    /// Serves and fails in turns.
    Flapping {
        /// How long each turn lasts: several times what the thresholds need to notice.
        turn: Duration,
        /// How far the first turn has gone at the start; below two turns.
        ahead: Duration,
    },
}

/// All origins of one run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Time between two checks of an origin.
    pub(crate) interval: Duration,
    /// How long a check waits.
    pub(crate) timeout: Duration,
    /// What each origin does, by its number.
    pub(crate) behaviours: Vec<Behaviour>,
}

impl Plan {
    /// The plan of `count` origins; the same seed gives the same plan.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let interval =
            Duration::from_secs(1).max(Duration::from_secs(count as u64) / MAX_CHECKS_PER_SECOND);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut numbers: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            numbers.swap(i, below(&mut rng, i as u64 + 1) as usize);
        }
        let share = count.div_ceil(SHARE);
        let mut behaviours = vec![Behaviour::Healthy; count];
        for (rank, &number) in numbers.iter().enumerate() {
            behaviours[number] = match rank / share {
                0 if count > 1 => flapping(&mut rng, interval),
                1 => Behaviour::Slow,
                2 => Behaviour::Refusing,
                _ => Behaviour::Healthy,
            };
        }
        Self { interval, timeout: interval / 2, behaviours }
    }

    /// Whether the origin serves as expected at a time since the start.
    pub(crate) fn serves(&self, number: usize, at: Duration) -> bool {
        match self.behaviours[number] {
            Behaviour::Healthy => true,
            Behaviour::Slow | Behaviour::Refusing => false,
            Behaviour::Flapping { turn, ahead } => turns(at + ahead, turn).is_multiple_of(2),
        }
    }

    /// Since when it has done at `at` what it does then.
    pub(crate) fn since(&self, number: usize, at: Duration) -> Duration {
        match self.behaviours[number] {
            Behaviour::Healthy | Behaviour::Slow | Behaviour::Refusing => Duration::ZERO,
            Behaviour::Flapping { turn, ahead } => {
                let begun = turn * turns(at + ahead, turn);
                begun.saturating_sub(ahead)
            }
        }
    }

    /// Whether there is a server that can count requests.
    pub(crate) fn listens(&self, number: usize) -> bool {
        self.behaviours[number] != Behaviour::Refusing
    }

    /// How long an answer may lag behind what the origin serves: the thresholds' time, and three
    /// rounds of gossip.
    pub(crate) fn tolerance(&self, gossip_interval: Duration) -> Duration {
        self.interval * THRESHOLD + gossip_interval * 3
    }

    /// The list of origins as every node reads it; `address` tells where an origin is served.
    pub(crate) fn list(&self, address: impl Fn(usize) -> SocketAddr) -> String {
        let mut text = format!(
            "[defaults]\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nhealthy_threshold = {THRESHOLD}\n\
             unhealthy_threshold = {THRESHOLD}\n",
            self.interval.as_millis(),
            self.timeout.as_millis()
        );
        for number in 0..self.behaviours.len() {
            // Writing into a String cannot fail.
            let _ = write!(
                text,
                "\n[[origin]]\nname = \"{}\"\nurl = \"http://{}/origin/{number}\"\n",
                name(number),
                address(number)
            );
        }
        text
    }
}

/// The name of an origin.
pub(crate) fn name(number: usize) -> String {
    format!("origin-{number:05}")
}

fn turns(at: Duration, turn: Duration) -> u32 {
    u32::try_from(at.as_nanos() / turn.as_nanos().max(1)).unwrap_or(u32::MAX)
}

fn flapping(rng: &mut Xoshiro256PlusPlus, interval: Duration) -> Behaviour {
    let noticed = interval * THRESHOLD;
    let turn = noticed * 4 + Duration::from_nanos(below(rng, nanos(noticed * 2)));
    Behaviour::Flapping { turn, ahead: Duration::from_nanos(below(rng, nanos(turn * 2))) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A number below `bound`. The bias of the remainder is far below what anyone could see here.
pub(crate) fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plan_has_every_kind_and_repeats_from_its_seed() {
        let plan = Plan::new(7, 40);
        let count = |wanted: fn(&Behaviour) -> bool| {
            plan.behaviours.iter().filter(|behaviour| wanted(behaviour)).count()
        };
        assert_eq!(count(|b| matches!(b, Behaviour::Flapping { .. })), 4);
        assert_eq!(count(|b| *b == Behaviour::Slow), 4);
        assert_eq!(count(|b| *b == Behaviour::Refusing), 4);
        assert_eq!(plan.behaviours, Plan::new(7, 40).behaviours);
        assert_ne!(plan.behaviours, Plan::new(8, 40).behaviours);
        assert_eq!(Plan::new(7, 2000).interval, Duration::from_secs(2));
    }

    #[test]
    fn nodes_can_read_the_list() {
        let plan = Plan::new(1, 25);
        let text = plan.list(|_| ([127, 0, 0, 1], 8080).into());
        let list = crate::origins::parse(Path::new("demo"), &text).expect("a good list");
        assert_eq!(list.len(), 25);
        assert_eq!(list[3].name, name(3));
        assert_eq!((list[3].interval, list[3].timeout), (plan.interval, plan.timeout));
    }

    proptest! {
        #[test]
        fn what_is_served_holds_since_it_began(seed in any::<u64>(), at_ms in 0u64..100_000) {
            let plan = Plan::new(seed, 10);
            let at = Duration::from_millis(at_ms);
            for number in 0..10 {
                let since = plan.since(number, at);
                prop_assert!(since <= at);
                prop_assert_eq!(plan.serves(number, since), plan.serves(number, at));
                if let Some(before) = since.checked_sub(Duration::from_nanos(1)) {
                    prop_assert_ne!(plan.serves(number, before), plan.serves(number, at));
                }
            }
        }
    }
}
