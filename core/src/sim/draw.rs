//! Random choices of a plan.

use alloc::vec::Vec;
use core::time::Duration;

use super::fault::{Betrayal, Condition, Damage, Delay, Fault, Links, Moment, Nodes, Trouble};
use super::net::Luck;

/// Random choices of a plan.
pub(super) struct Dice(pub(super) Luck);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next()) * n as u128) >> 64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn time(&mut self, most: Duration) -> Duration {
        self.0.within(most)
    }

    fn some(&mut self, nodes: usize) -> Nodes {
        let count = 1 + self.below(nodes.div_ceil(2));
        let mut places: Vec<usize> = (0..count).map(|_| self.below(nodes)).collect();
        places.sort_unstable();
        places.dedup();
        Nodes::Only(places)
    }

    fn links(&mut self, nodes: usize) -> Links {
        match self.below(4) {
            0 => Links::around(&self.some(nodes)),
            1 => Links::one_way(self.some(nodes), self.some(nodes)),
            _ => Links::all(),
        }
    }

    fn permille(&mut self) -> u32 {
        10 + self.below(600) as u32
    }
}

/// How many classes of faults a plan draws from.
pub(super) const CLASSES: usize = Fault::CLASSES.len();

/// A fault of the class of that number.
pub(super) fn fault(dice: &mut Dice, class: usize, nodes: usize) -> Fault {
    let ms = Duration::from_millis;
    let millis = |dice: &mut Dice, most: usize| ms(1 + dice.below(most) as u64);
    let condition = match Fault::CLASSES[class] {
        "partition" => return Fault::Link(Links::around(&dice.some(nodes)), Condition::Cut),
        "isolation" => {
            let links = Links::around(&Nodes::one(dice.below(nodes)));
            return Fault::Link(links, Condition::Cut);
        }
        "ring only" => Condition::Ring(nodes),
        "bridge node" => Condition::Bridge { side: dice.some(nodes), bridge: dice.below(nodes) },
        "partial mesh" => Condition::Mesh(dice.permille()),
        "flapping" => Condition::Flap(millis(dice, 2_000).max(ms(20))),
        "first packets lost" => Condition::First(1 + dice.below(20) as u32),
        "one-way cut" => {
            let links = Links::one_way(dice.some(nodes), dice.some(nodes));
            return Fault::Link(links, Condition::Cut);
        }
        "loss" => Condition::Loss(dice.permille()),
        "loss in bursts" => {
            Condition::Bursts { permille: dice.permille() / 2, mean: 1 + dice.below(50) as u32 }
        }
        "small mtu" => Condition::Mtu(100 + dice.below(1_000)),
        "loss by kind" => {
            Condition::Kind { tag: 1 + dice.below(14) as u8, permille: dice.permille() }
        }
        "duplication" => {
            let within = if dice.one_in(4) { Duration::from_secs(600) } else { ms(200) };
            Condition::Duplicate { permille: dice.permille().min(500), within }
        }
        "constant delay" => Condition::Delay(Delay::Constant(millis(dice, 200))),
        "uniform delay" => Condition::Delay(Delay::Uniform(ms(0), millis(dice, 400))),
        "exponential delay" => Condition::Delay(Delay::Exponential(millis(dice, 100))),
        "pareto delay" => Condition::Delay(Delay::Pareto(millis(dice, 10))),
        "stalls on the way" => {
            let one_in = 2 + dice.below(50) as u32;
            Condition::Delay(Delay::Bimodal { usual: ms(1), stall: ms(2_000), one_in })
        }
        "asymmetric delay" => Condition::Delay(Delay::PerLink(millis(dice, 400))),
        "clog and release" => Condition::Clog,
        "flipped bits" => damage(dice, Damage::Flip),
        "truncation" => damage(dice, Damage::Cut),
        "extension" => damage(dice, Damage::Extend),
        "splicing" => damage(dice, Damage::Splice),
        "lies under a right checksum" => damage(dice, Damage::Lie),
        "damage in bursts" => {
            let how = [Damage::Flip, Damage::Cut, Damage::Extend, Damage::Splice, Damage::Lie];
            let how = how[dice.below(how.len())];
            Condition::DamageBursts {
                permille: dice.permille() / 2,
                mean: 1 + dice.below(50) as u32,
                how,
            }
        }
        class => {
            let (mut nodes, trouble) = (dice.some(nodes), trouble(dice, class));
            if let Nodes::Only(places) = &mut nodes {
                // Who starts without state needs one seed that is where it was.
                if matches!(trouble, Trouble::Death | Trouble::Goodbye | Trouble::Move) {
                    places.retain(|&place| place > 0);
                }
                if matches!(trouble, Trouble::Rebind { lasting: true, .. }) {
                    places.retain(|&place| place > 1);
                }
            }
            if matches!(trouble, Trouble::Restart(_) | Trouble::RollingRestart(_)) {
                nodes = Nodes::All;
            }
            return Fault::Node(nodes, trouble);
        }
    };
    Fault::Link(dice.links(nodes), condition)
}

fn damage(dice: &mut Dice, how: Damage) -> Condition {
    Condition::Damage { permille: dice.permille(), how }
}

fn trouble(dice: &mut Dice, class: &str) -> Trouble {
    let millis = |dice: &mut Dice, most: usize| Duration::from_millis(1 + dice.below(most) as u64);
    match class {
        "pause" => Trouble::Pause,
        "slow node" => Trouble::Slow(millis(dice, 100)),
        "deaf node" => Trouble::Deaf,
        "mute node" => Trouble::Mute,
        "clock rate" => Trouble::ClockRate(dice.below(200_001) as i32 - 100_000),
        "clock leap" => {
            // A day is where the dead are forgotten.
            let day = Duration::from_secs(24 * 3_600);
            match dice.below(6) {
                0 => Trouble::ClockLeap(dice.time(day * 365)),
                1 => Trouble::ClockLeap(dice.time(day * 5)),
                _ => Trouble::ClockLeap(millis(dice, 10_000)),
            }
        }
        "clock back" => Trouble::ClockBack(millis(dice, 5_000)),
        "late timers" => Trouble::LateTimers(millis(dice, 500)),
        "death" => Trouble::Death,
        "leave" => Trouble::Leave,
        "goodbye" => Trouble::Goodbye,
        "address change" => Trouble::Move,
        "crash while joining" => Trouble::CrashDuring(Moment::Joining, 1 + dice.below(4) as u32),
        "crash while leaving" => Trouble::CrashDuring(Moment::Leaving, 1 + dice.below(8) as u32),
        "crash while sending" => Trouble::CrashDuring(Moment::Sending, 1 + dice.below(4) as u32),
        "mass restart" => Trouble::Restart(Duration::from_millis(200)),
        "rolling restart" => Trouble::RollingRestart(millis(dice, 2_000)),
        "wall clock back" => Trouble::WallClockBack(dice.time(Duration::from_secs(1_000))),
        "rebinding, old address gone" => Trouble::Rebind { hidden: true, lasting: false },
        "rebinding for ever" => Trouble::Rebind { hidden: false, lasting: true },
        "rebinding" => Trouble::Rebind { hidden: false, lasting: false },
        "small outbox" => Trouble::SmallOutbox(2 + dice.below(19) as u32),
        "blocked socket" => Trouble::Blocked,
        "events not taken" => Trouble::Inattentive,
        "small inbox" => Trouble::Inbox(2 + dice.below(19)),
        "short buffer" => Trouble::ShortBuffer(crate::MIN_DATAGRAM + dice.below(900)),
        "replay" => Trouble::Replay(5 + dice.below(200) as u32),
        "spoofed source" => Trouble::Spoof(5 + dice.below(200) as u32),
        "insider: suspicions" => Trouble::Insider(Betrayal::Suspect, 1 + dice.below(50) as u32),
        "insider: deaths" => Trouble::Insider(Betrayal::Dead, 1 + dice.below(50) as u32),
        "insider: findings" => Trouble::Insider(Betrayal::Findings, 1 + dice.below(50) as u32),
        "insider: keys" => Trouble::Insider(Betrayal::Keys, 1 + dice.below(20) as u32),
        "insider: silence" => Trouble::Insider(Betrayal::Silence, 1),
        "insider: endless answers" => Trouble::Insider(Betrayal::Trains, 1),
        "flood" => Trouble::Flood(10 + dice.below(1_000) as u32),
        _ => Trouble::Crash,
    }
}
