use alloc::collections::BTreeMap;
use alloc::format;

use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::*;

/// Things that happen to a table; an interpreter takes its time.
const MOST: usize = if cfg!(miri) { 30 } else { 300 };

const AGE: Duration = Duration::from_secs(100);
const MEMBERS: u8 = 4;

/// What a table must forget, and when: `None` while the member is live.
#[derive(Debug, Default)]
struct Model(BTreeMap<u32, Option<Instant>>);

impl Model {
    fn dead(&self) -> impl Iterator<Item = (u32, Instant)> {
        self.0.iter().filter_map(|(&slot, &at)| Some((slot, at?)))
    }
}

fn identity(name: &str) -> Arc<Identity> {
    Arc::new(Identity::new(name, ([10, 0, 0, 1], 1).into()))
}

fn table() -> Table {
    let secret = Secret::new(&mut Rng::fork(&[7; 32], 1));
    Table::new(identity("me"), 0, secret, Rng::fork(&[7; 32], 3))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Members that die and come back, in any order, are forgotten exactly when their last death is
    /// old enough, never while they live, and leave a bounded number of void tombstones behind.
    #[test]
    fn tombstones_end_with_the_last_death_alone(jumps in 0..20_u8, steps in proptest::collection::vec((0..MEMBERS, 0..100_u8), 0..400)) {
        let (mut table, mut model, mut now) = (table(), Model::default(), Instant::ZERO);
        for (member, luck) in steps {
            if luck < jumps {
                now += AGE / 3;
            }
            let id = identity(&format!("{member}"));
            match table.slot(id.id()) {
                None => drop(model.0.insert(table.insert(id, 0, 0, 0), None)),
                Some(slot) if table.member(slot).is_live() => {
                    table.set_state(slot, State::Dead, Case::None, now + AGE);
                    model.0.insert(slot, Some(now + AGE));
                }
                Some(slot) => {
                    table.set_state(slot, State::Alive, Case::None, now);
                    model.0.insert(slot, None);
                }
            }
            prop_assert!(table.expiries.len() <= 2 * usize::from(MEMBERS) + 65);
            if let Some(first) = model.dead().map(|(_, at)| at).min() {
                prop_assert!(table.next_expiry().is_some_and(|at| at <= first));
            }
            while let Some(slot) = table.expire(now) {
                let due = model.0.remove(&slot).flatten();
                prop_assert!(due.is_some_and(|at| at <= now), "{:?} at {:?}", due, now);
            }
            prop_assert!(model.dead().all(|(_, at)| at > now), "one is remembered too long");
            let dead: Vec<_> = model.dead().map(|(slot, _)| slot).collect();
            let mut gone = table.gone().to_vec();
            gone.sort_unstable();
            prop_assert_eq!(gone, dead);
            prop_assert_eq!(table.live().len() + table.gone().len(), model.0.len());
        }
        while table.expire(now + AGE).is_some() {}
        prop_assert_eq!((table.gone().len(), table.next_expiry()), (0, None));
        let live = model.0.values().filter(|at| at.is_none()).count();
        prop_assert_eq!(table.live().len(), live);
    }

    /// The lists, the digests and what is looked up are those of the rows, whatever happens to members.
    #[test]
    fn lists_and_digests_are_those_of_the_rows(steps in proptest::collection::vec((0..40_u8, 0..6_u8), 0..MOST)) {
        let (mut table, mut now, mut rng) = (table(), Instant::ZERO, Rng::fork(&[7; 32], 2));
        for (member, act) in steps {
            let new = |boot| {
                let identity = Identity::new(format!("{member}"), ([10, 0, 0, 1], 1).into());
                Arc::new(identity.with_boot_epoch(boot))
            };
            let id = new(1).id();
            match (table.slot(id), act) {
                (None, _) => drop(table.insert(new(1), 0, 0, 0)),
                (Some(slot), 0) => table.set_state(slot, State::Alive, Case::None, now),
                (Some(slot), 1) => table.set_state(slot, State::Suspect, Case::None, now),
                (Some(slot), 2) => table.set_state(slot, State::Dead, Case::None, now + AGE),
                (Some(slot), 3) => table.set_identity(slot, new(u64::from(member) + 2), 1),
                (Some(_), 4) => drop(table.next_probe(&mut rng)),
                (Some(_), _) => {
                    now += AGE / 20;
                    while table.expire(now).is_some() {}
                }
            }
            let rows = || (0..).zip(&table.rows).filter_map(|(slot, row)| Some((slot, row.as_ref()?)));
            let of = |wanted: fn(&Member) -> bool| -> Vec<u32> {
                rows().filter(|(slot, row)| *slot != ME && wanted(&row.member)).map(|(slot, _)| slot).collect()
            };
            let sorted = |slots: &[u32]| {
                let mut slots = slots.to_vec();
                slots.sort_unstable();
                slots
            };
            prop_assert_eq!(sorted(table.live()), of(Member::is_live));
            prop_assert_eq!(sorted(table.gone()), of(|member| !member.is_live()));
            prop_assert_eq!(table.len(), rows().count());
            let mut digests = [0_u64; BUCKETS];
            let mut buckets = [const { Vec::new() }; BUCKETS];
            for (slot, row) in rows() {
                prop_assert_eq!(table.slot(row.member.id()), Some(slot));
                if row.member.is_live() {
                    let bucket = table.bucket_of(slot);
                    digests[bucket] = digests[bucket].wrapping_add(row.member.identity.digest());
                    buckets[bucket].push(slot);
                }
            }
            for bucket in 0..BUCKETS {
                prop_assert_eq!(sorted(table.bucket(bucket)), sorted(&buckets[bucket]));
                let (high, low) = (digests[bucket] >> 32, digests[bucket] & 0xffff_ffff);
                prop_assert_eq!(u64::from(table.bucket_digest(bucket)), high ^ low);
            }
            let sum = digests.iter().fold(0_u64, |sum, digest| sum.wrapping_add(*digest));
            prop_assert_eq!(table.digest(), sum);
        }
    }

    /// Between two probes of a member no other is probed more than twice, SWIM's schedule, though members come and
    /// go. Who comes back is another one here: it is probed soon, however lately it was.
    #[test]
    fn everybody_is_probed_in_turn(steps in proptest::collection::vec(0..24_u8, 0..400)) {
        let (mut table, mut rng) = (table(), Rng::fork(&[7; 32], 2));
        // Of each live member, which stay of it this is, and how often each stay was probed since it was itself.
        let mut waits: BTreeMap<u32, (usize, BTreeMap<usize, u32>)> = BTreeMap::new();
        let mut stays = 0_usize;
        for step in steps {
            let id = identity(&format!("{step}"));
            match table.slot(id.id()).filter(|_| step < 12) {
                Some(slot) if table.member(slot).is_live() && step < 2 => {
                    table.set_state(slot, State::Dead, Case::None, Instant::MAX);
                    waits.remove(&slot);
                }
                Some(slot) if !table.member(slot).is_live() => {
                    table.set_state(slot, State::Alive, Case::None, Instant::ZERO);
                    stays += 1;
                    waits.insert(slot, (stays, BTreeMap::new()));
                }
                None if step < 12 => {
                    let slot = table.insert(id, 0, 0, 0);
                    stays += 1;
                    waits.insert(slot, (stays, BTreeMap::new()));
                }
                _ => {
                    let Some(probed) = table.next_probe(&mut rng) else { continue };
                    let live = waits.get(&probed).map(|(stay, _)| *stay);
                    prop_assert!(live.is_some(), "it is live");
                    let stay = live.unwrap_or_default();
                    for (_, since) in waits.values_mut() {
                        *since.entry(stay).or_default() += 1;
                    }
                    waits.insert(probed, (stay, BTreeMap::new()));
                    let twice = |(_, since): &(usize, BTreeMap<usize, u32>)| since.values().all(|times| *times <= 2);
                    prop_assert!(waits.values().all(twice), "{:?}", waits);
                }
            }
        }
    }

    /// However fast one member comes and goes, nobody waits for ever: of three that stay, each is probed again and again.
    #[test]
    fn a_member_that_comes_and_goes_keeps_nobody_waiting(seed in 0..200_u8) {
        let (mut table, mut rng) = (table(), Rng::fork(&[seed; 32], 2));
        let stay: Vec<u32> = ["a", "b", "c"].map(|name| table.insert(identity(name), 0, 0, 0)).into();
        let restless = table.insert(identity("d"), 0, 0, 0);
        let mut probes: BTreeMap<u32, u32> = BTreeMap::new();
        for _ in 0..400 {
            *probes.entry(table.next_probe(&mut rng).expect("four are live")).or_default() += 1;
            table.set_state(restless, State::Dead, Case::None, Instant::MAX);
            table.set_state(restless, State::Alive, Case::None, Instant::ZERO);
        }
        prop_assert!(stay.iter().all(|slot| probes.get(slot).is_some_and(|times| *times > 40)), "{:?}", probes);
    }

    /// A sample is of distinct live members that are wanted, and as many as are asked for, if there are.
    #[test]
    fn a_sample_is_of_those_wanted(members in 0..30_u32, odd in 0..2_u32, k in 0..40_usize, seed in 0..200_u8) {
        let mut table = table();
        for member in 0..members {
            let slot = table.insert(identity(&format!("{member}")), member % 2, 0, 0);
            if member % 5 == 0 {
                table.set_state(slot, State::Dead, Case::None, Instant::MAX);
            }
        }
        let mut taken = Vec::new();
        let wanted = |member: &Member| member.incarnation == odd;
        table.sample(&mut Rng::fork(&[seed; 32], 3), k, wanted, |slot| taken.push(slot));
        let there = table.live().iter().filter(|slot| wanted(table.member(**slot))).count();
        prop_assert_eq!(taken.len(), k.min(there));
        prop_assert!(taken.iter().all(|slot| table.live().contains(slot) && wanted(table.member(*slot))));
        taken.sort_unstable();
        taken.dedup();
        prop_assert_eq!(taken.len(), k.min(there), "distinct");
    }
}

/// A thousand nodes in one process have a million rows, and removing thousands of members walks them: a field that few
/// members need has its place beside the table.
#[test]
fn a_row_takes_72_bytes() {
    assert!(size_of::<Option<Row>>() <= 72, "{}", size_of::<Option<Row>>());
}
