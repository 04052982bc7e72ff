//! Links: what becomes of a datagram between two places.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::time::Duration;

use super::fault::{Condition, Damage, Delay, Links};
use crate::PacketError;
use crate::hash::mix2;
use crate::time::Instant;

/// Where the tag of the first frame is.
pub(super) const FIRST_TAG: usize = 24;
/// What the luck of a delay is forked by.
const DELAY: u64 = 0xde1a;
/// A chance of 1, in the unit of [`Luck::chance`].
const CERTAIN: u64 = 1 << 32;
/// Where Pareto delays are cut off, in multiples of the least.
const PARETO_CUT: u32 = 10_000;

/// Random numbers that belong to one datagram: the same whatever happens elsewhere, so that a fault
/// that is left out does not shift the luck of all others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Luck {
    state: u64,
}

impl Luck {
    pub(super) fn new(seed: u64, from: usize, number: u64) -> Self {
        Self { state: mix2(mix2(seed, from as u64), number) }
    }

    /// Luck for one purpose that no other purpose shares.
    pub(super) fn fork(self, purpose: u64) -> Self {
        Self { state: mix2(self.state, purpose) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::hash::mix(self.state)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    pub(super) fn permille(&mut self, chance: u32) -> bool {
        self.below(1_000) < u64::from(chance)
    }

    /// With a chance in units of 2^-32, for those that thousandths are too coarse for.
    fn chance(&mut self, chance: u64) -> bool {
        self.below(CERTAIN) < chance
    }

    /// An exponential number of mean 1, in units of 2^-32, from comparisons alone (von Neumann 1951): no
    /// platform rounds it otherwise.
    fn exponential(&mut self) -> u64 {
        let mut whole = 0;
        loop {
            let first = self.next() >> 32;
            let (mut last, mut falling) = (first, 1);
            loop {
                let draw = self.next() >> 32;
                if draw >= last {
                    break;
                }
                last = draw;
                falling += 1;
            }
            if falling % 2 == 1 {
                return whole << 32 | first;
            }
            whole += 1;
        }
    }

    pub(super) fn within(&mut self, time: Duration) -> Duration {
        Duration::from_nanos(self.below(nanos(time) + 1))
    }
}

/// Saturating at some centuries.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Delay {
    fn draw(self, luck: &mut Luck) -> Duration {
        match self {
            Self::Constant(time) => time,
            Self::PerLink(most) => luck.within(most),
            Self::Uniform(least, most) => least + luck.within(most.saturating_sub(least)),
            Self::Exponential(mean) => scaled(mean, luck.exponential()),
            Self::Pareto(least) => {
                // 1 / (1.2 ln 2) turns an exponential number into the binary logarithm of a Pareto one,
                // and 2^x is near enough to its chords.
                let log = (u128::from(luck.exponential()) * 1_202_245 / 1_000_000) as u64;
                let (whole, rest) = ((log >> 32).min(13), log & u64::from(u32::MAX));
                scaled(least, ((1 << 32) + rest) << whole).min(least * PARETO_CUT)
            }
            Self::Bimodal { usual, stall, one_in } => {
                if luck.below(u64::from(one_in.max(1))) == 0 {
                    stall
                } else {
                    usual
                }
            }
        }
    }
}

/// `time` times `factor` / 2^32.
fn scaled(time: Duration, factor: u64) -> Duration {
    let nanos = (u128::from(nanos(time)) * u128::from(factor)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A fault and a link: from where and to where.
type Of = (usize, usize, usize);

/// Whether the next datagram is in a burst, of `mean` on average and this share of all (Gilbert and
/// Elliott). Bursts that are too short to make up the share are longer.
fn burst(of: Entry<'_, Of, bool>, luck: &mut Luck, permille: u32, mean: u32) -> bool {
    let bad = u64::from(permille.min(1_000));
    let good = 1_000 - bad;
    let leave = CERTAIN / u64::from(mean.max(1));
    let (enter, leave) = if leave * bad > CERTAIN * good {
        (CERTAIN, CERTAIN * good / bad)
    } else {
        ((leave * bad).div_ceil(good), leave)
    };
    match of {
        // As often as later on: most links carry fewer datagrams than lie between two bursts.
        Entry::Vacant(link) => *link.insert(luck.permille(permille)),
        Entry::Occupied(mut link) => {
            let on = if *link.get() { !luck.chance(leave) } else { luck.chance(enter) };
            link.insert(on);
            on
        }
    }
}

/// What was done to datagrams, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Datagrams that programs sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that arrived, copies included.
    pub delivered: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Sent where nobody lives.
    pub nowhere: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Damaged on the way.
    pub damaged: u64,
    /// Lost in a full inbox.
    pub overflowed: u64,
}

/// What a program may make of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Expect {
    /// A program sent it just so, now or earlier: it is accepted.
    Whole,
    /// Damaged by accident, or noise: whatever it is now.
    Damaged,
    /// Impossible under a right checksum: it is refused.
    Lie,
}

impl Expect {
    /// Whether a machine of the core may say this of a datagram of its own cluster.
    #[must_use]
    pub const fn allows(self, result: &Result<(), PacketError>) -> bool {
        match self {
            Self::Whole => matches!(result, Ok(()) | Err(PacketError::OwnPacket)),
            Self::Damaged => true,
            Self::Lie => result.is_err(),
        }
    }
}

/// A copy of a datagram and when it arrives.
#[derive(Debug)]
pub(super) struct Copy {
    /// `None`: when the clog is over.
    pub(super) at: Option<Instant>,
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Expect,
}

#[derive(Debug)]
pub(super) struct Net {
    seed: u64,
    usual: Delay,
    /// What holds now, by the number of the fault, with what its luck is forked by.
    conditions: BTreeMap<usize, (Links, Condition, u64)>,
    /// Whether a burst is on, by fault and link.
    bursts: BTreeMap<Of, bool>,
    /// Datagrams so far, by fault and link.
    counts: BTreeMap<Of, u32>,
    /// An earlier datagram, to splice with.
    earlier: Vec<u8>,
    pub(super) traffic: Traffic,
}

impl Net {
    pub(super) fn new(seed: u64, usual: Delay) -> Self {
        Self {
            seed,
            usual,
            conditions: BTreeMap::new(),
            bursts: BTreeMap::new(),
            counts: BTreeMap::new(),
            earlier: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    pub(super) fn begin(&mut self, number: usize, luck: u64, links: Links, condition: Condition) {
        self.conditions.insert(number, (links, condition, luck));
    }

    pub(super) fn end(&mut self, number: usize) {
        self.conditions.remove(&number);
        self.bursts.retain(|(of, ..), _| *of != number);
        self.counts.retain(|(of, ..), _| *of != number);
    }

    /// The `number`-th datagram of `from`, on its way to `to`: the copies of it that arrive.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        number: u64,
        bytes: &[u8],
    ) -> Vec<Copy> {
        let own = Luck::new(self.seed, from, number);
        let mut delay = self.usual;
        let (mut copies, mut clogged) = (Vec::new(), false);
        let mut damage = None;
        let stream = bytes.get(FIRST_TAG).is_some_and(|tag| crate::swim::is_stream(*tag));
        for (&fault, (links, condition, purpose)) in &self.conditions {
            let chance = matches!(condition, Condition::Loss(_) | Condition::Bursts { .. });
            if !links.has(from, to) || chance && stream {
                continue;
            }
            // One condition more or less does not shift the luck of the others.
            let mut luck = own.fork(*purpose);
            let lost = match *condition {
                Condition::Cut => true,
                Condition::Ring(nodes) => {
                    let apart = from.abs_diff(to);
                    apart > 1 && apart + 1 != nodes
                }
                Condition::Bridge { ref side, bridge } => {
                    from != bridge && to != bridge && side.has(from) != side.has(to)
                }
                Condition::Mesh(permille) => {
                    let pair = Luck::new(*purpose, from.min(to), from.max(to) as u64);
                    pair.fork(0).permille(permille)
                }
                Condition::Flap(period) => {
                    let phase = Luck::new(*purpose, 0, 0).next() % nanos(period).max(1);
                    let half = nanos(period / 2).max(1);
                    (now.as_nanos().wrapping_add(phase) / half).is_multiple_of(2)
                }
                Condition::Loss(permille) => luck.permille(permille),
                Condition::Bursts { permille, mean } => {
                    let link = self.bursts.entry((fault, from, to));
                    burst(link, &mut luck, permille, mean)
                }
                Condition::First(most) => {
                    let gone = self.counts.entry((fault, from, to)).or_default();
                    *gone += 1;
                    *gone <= most
                }
                Condition::Mtu(most) => bytes.len() > most,
                Condition::Kind { tag, permille } => {
                    bytes.get(FIRST_TAG) == Some(&tag) && luck.permille(permille)
                }
                Condition::Duplicate { permille, within } => {
                    if luck.permille(permille) {
                        copies.push(luck.within(within));
                    }
                    false
                }
                Condition::Delay(Delay::PerLink(most)) => {
                    delay = Delay::Constant(Luck::new(*purpose, from, to as u64).within(most));
                    false
                }
                Condition::Delay(other) => {
                    delay = other;
                    false
                }
                Condition::Clog => {
                    clogged = true;
                    false
                }
                Condition::Damage { permille, how } => {
                    if luck.permille(permille) {
                        damage = Some((how.of(bytes), luck));
                    }
                    false
                }
                Condition::DamageBursts { permille, mean, how } => {
                    let link = self.bursts.entry((fault, from, to));
                    if burst(link, &mut luck, permille, mean) {
                        damage = Some((how.of(bytes), luck));
                    }
                    false
                }
            };
            if lost {
                self.traffic.lost += 1;
                return Vec::new();
            }
        }
        let first = delay.draw(&mut own.fork(DELAY)).max(Duration::from_nanos(1));
        self.traffic.duplicated += copies.len() as u64;
        let times = core::iter::once(first).chain(copies.into_iter().map(|later| first + later));
        times
            .enumerate()
            .map(|(copy, after)| {
                let damage = damage.filter(|_| copy == 0);
                let expect = match damage {
                    None => Expect::Whole,
                    Some((Damage::Lie, _)) => Expect::Lie,
                    Some(_) => Expect::Damaged,
                };
                let bytes = self.damaged(bytes, damage);
                Copy { at: (!clogged).then(|| now + after), bytes, expect }
            })
            .collect()
    }

    fn damaged(&mut self, bytes: &[u8], damage: Option<(Damage, Luck)>) -> Vec<u8> {
        let Some((how, mut luck)) = damage else {
            if bytes.len() > FIRST_TAG {
                self.earlier.clear();
                self.earlier.extend_from_slice(bytes);
            }
            return bytes.to_vec();
        };
        self.traffic.damaged += 1;
        how.apply(bytes, &mut luck, &self.earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Nodes;
    use super::*;

    fn arrivals(condition: Condition, datagrams: u64) -> (usize, usize, Traffic) {
        let mut net = Net::new(7, Delay::Constant(Duration::from_millis(1)));
        net.begin(0, 0, Links::all(), condition);
        let mut arrived = (0, 0);
        for number in 0..datagrams {
            let copies = net.carry(Instant::ZERO, 1, 2, number, &[5; 100]);
            arrived.0 += usize::from(!copies.is_empty());
            arrived.1 += copies.len();
        }
        (arrived.0, arrived.1, net.traffic)
    }

    #[test]
    fn losses_have_the_share_and_the_length_that_was_asked_for() {
        let (once, _, traffic) = arrivals(Condition::Loss(250), 100_000);
        assert!((74_000..76_000).contains(&once), "{once}");
        assert_eq!(traffic.lost, 100_000 - once as u64);
        let (in_bursts, ..) = arrivals(Condition::Bursts { permille: 250, mean: 20 }, 100_000);
        assert!((70_000..80_000).contains(&in_bursts), "{in_bursts}");
        assert_eq!(arrivals(Condition::First(3), 10).0, 7);
        assert_eq!(arrivals(Condition::Mtu(99), 10).0, 0);
        assert_eq!(arrivals(Condition::Mtu(100), 10).0, 10);
        assert_eq!(arrivals(Condition::Kind { tag: 5, permille: 1_000 }, 10).0, 0);
        assert_eq!(arrivals(Condition::Kind { tag: 6, permille: 1_000 }, 10).0, 10);
    }

    /// Goal: bursts have their share and length, however rare and long they are.
    /// Method: so many datagrams that there are 400 bursts, of which shares spread by some 7 %.
    #[test]
    fn rare_and_long_bursts_are_not_rounded_away() {
        for (permille, mean) in
            [10, 50, 250].into_iter().flat_map(|share| [(share, 50), (share, 500)])
        {
            let (mut links, mut luck) = (BTreeMap::new(), Luck::new(7, 0, 0));
            let datagrams = 400 * u64::from(mean) * 1_000 / u64::from(permille);
            let (mut lost, mut bursts, mut before) = (0_u64, 0_u64, false);
            for _ in 0..datagrams {
                let on = burst(links.entry((0, 1, 2)), &mut luck, permille, mean);
                lost += u64::from(on);
                bursts += u64::from(on && !before);
                before = on;
            }
            let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 5 < wanted;
            let wanted = datagrams * u64::from(permille) / 1_000;
            assert!(near(lost, wanted), "{permille}, {mean}: {lost}, not {wanted}");
            assert!(near(lost / bursts, mean.into()), "{permille}, {mean}: {}", lost / bursts);
        }
    }

    #[test]
    fn links_of_few_datagrams_lose_their_share_and_all_is_all() {
        let lost = |permille, mean| {
            let mut net = Net::new(7, Delay::Constant(Duration::from_millis(1)));
            net.begin(0, 3, Links::all(), Condition::Bursts { permille, mean });
            for number in 0..60_000 {
                net.carry(Instant::ZERO, 1, 2 + number as usize / 3, number, &[5; 100]);
            }
            net.traffic.lost
        };
        assert!((2_550..3_450).contains(&lost(50, 200)), "{}", lost(50, 200));
        // No two bursts of one datagram each follow each other at once: longer ones must do.
        assert!((35_000..37_000).contains(&lost(600, 1)), "{}", lost(600, 1));
        assert_eq!((lost(0, 9), lost(1_000, 9)), (0, 60_000));
    }

    #[test]
    fn copies_and_damage_are_counted() {
        let within = Duration::from_secs(1);
        let (once, all, traffic) = arrivals(Condition::Duplicate { permille: 500, within }, 10_000);
        assert_eq!((once, all - once), (10_000, traffic.duplicated as usize));
        assert!((4_800..5_200).contains(&traffic.duplicated));
        for how in [Damage::Flip, Damage::Cut, Damage::Extend, Damage::Splice] {
            let (_, all, traffic) = arrivals(Condition::Damage { permille: 1_000, how }, 100);
            assert_eq!((all, traffic.damaged), (100, 100));
        }
        let bursts = Condition::DamageBursts { permille: 250, mean: 20, how: Damage::Flip };
        let (_, all, traffic) = arrivals(bursts, 100_000);
        assert_eq!(all, 100_000);
        assert!((20_000..30_000).contains(&traffic.damaged), "{}", traffic.damaged);
    }

    /// Which of the links between five places work.
    fn open(condition: &Condition, now: Instant) -> Vec<(usize, usize)> {
        let mut net = Net::new(7, Delay::Constant(Duration::from_millis(1)));
        net.begin(0, 9, Links::all(), condition.clone());
        let pairs = (0..5).flat_map(|from| (0..from).map(move |to| (to, from)));
        let both = pairs.filter(|&(a, b)| {
            let there = net.carry(now, a, b, 1, &[5; 100]).len();
            assert_eq!(there, net.carry(now, b, a, 1, &[5; 100]).len(), "both ways or neither");
            there == 1
        });
        both.collect()
    }

    /// Goal: a fault that is left out changes nothing that the others do by chance.
    /// Method: the same datagrams under some conditions, alone and with more before and between.
    #[test]
    fn one_condition_more_shifts_no_luck() {
        let within = Duration::from_secs(1);
        let conditions = [
            (Condition::Loss(300), 1),
            (Condition::Duplicate { permille: 300, within }, 2),
            (Condition::Delay(Delay::Pareto(Duration::from_millis(5))), 3),
            (Condition::Damage { permille: 300, how: Damage::Flip }, 4),
        ];
        let others = [
            (Condition::Loss(0), 5),
            (Condition::Bursts { permille: 0, mean: 9 }, 6),
            (Condition::Kind { tag: 9, permille: 500 }, 7),
        ];
        let arrivals = |conditions: &[(Condition, u64)]| {
            let mut net = Net::new(7, Delay::Constant(Duration::from_millis(1)));
            for (number, (condition, luck)) in conditions.iter().enumerate() {
                net.begin(number, *luck, Links::all(), condition.clone());
            }
            let copies =
                (0..200).flat_map(|number| net.carry(Instant::ZERO, 1, 2, number, &[5; 100]));
            copies.map(|copy| (copy.at, copy.bytes)).collect::<Vec<_>>()
        };
        let few = arrivals(&conditions);
        assert!(few.len() > 150, "{}", few.len());
        assert_eq!(few, arrivals(&[&others[..], &conditions[..]].concat()));
        let mut mixed = others.to_vec();
        mixed.insert(1, conditions[0].clone());
        mixed.insert(3, conditions[1].clone());
        assert_eq!(few, arrivals(&[&mixed[..], &conditions[2..]].concat()));
    }

    #[test]
    fn partitions_have_their_shapes() {
        assert_eq!(
            open(&Condition::Ring(5), Instant::ZERO),
            [(0, 1), (1, 2), (2, 3), (0, 4), (3, 4)]
        );
        let bridge = Condition::Bridge { side: Nodes::Only([0, 1].into()), bridge: 4 };
        let expected = [(0, 1), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4)];
        assert_eq!(open(&bridge, Instant::ZERO), expected);
        let mesh = open(&Condition::Mesh(500), Instant::ZERO);
        assert!((1..10).contains(&mesh.len()), "{mesh:?}");
        assert_eq!(open(&Condition::Mesh(500), Instant::from_nanos(5)), mesh);
        let flap = Condition::Flap(Duration::from_secs(1));
        let ups = (0..100).filter(|tenth| {
            let at = Instant::from_nanos(tenth * 100_000_000);
            !open(&flap, at).is_empty()
        });
        assert_eq!(ups.count(), 50);
    }

    #[test]
    fn delays_have_their_means() {
        let mean = |delay: Delay| {
            let draws = (0..100_000).map(|number| delay.draw(&mut Luck::new(1, 2, number)));
            draws.sum::<Duration>() / 100_000
        };
        let ms = Duration::from_millis;
        assert_eq!(mean(Delay::Constant(ms(5))), ms(5));
        let near = |time: Duration, wanted: Duration| {
            assert!(
                time > wanted * 95 / 100 && time < wanted * 105 / 100,
                "{time:?}, not {wanted:?}"
            );
        };
        near(mean(Delay::Uniform(ms(2), ms(8))), ms(5));
        near(mean(Delay::Exponential(ms(5))), ms(5));
        near(mean(Delay::Bimodal { usual: ms(1), stall: ms(101), one_in: 10 }), ms(11));
        // The mean of a Pareto distribution of shape 1.2 is six times its least value; the cut takes some.
        let pareto = mean(Delay::Pareto(ms(1)));
        assert!((ms(4)..ms(7)).contains(&pareto), "{pareto:?}");
    }
}
