//! How old what is read may be, as a replica tells it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::Dice;
use crate::common::maps::{NOW, addr, deliver, drain, replica};
use brickwork_core::map::{Dot, Map};
use brickwork_core::{Instant, NodeId};

const STEP: Duration = Duration::from_millis(10);

/// Carries datagrams, of which so many percent are lost, but not from or to the replica that is cut off.
fn carry(maps: &mut [Map], now: Instant, dice: &mut Dice, loss: u32, cut: Option<usize>) {
    for at in 0..maps.len() {
        for (to, bytes) in drain(&mut maps[at]) {
            let to = to as usize - 1;
            if cut != Some(at) && cut != Some(to) && !dice.percent(loss) {
                deliver(&mut maps[to], now, at as u64 + 1, &bytes);
            }
        }
    }
}

/// Goal: what any peer had so long ago is here. Method: three replicas write and lose datagrams, and one of them is cut
/// off now and then; all writes are noted with their times.
#[test]
fn what_a_peer_had_so_long_ago_is_here() {
    let (mut known, mut fresh) = (0, 0);
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let mut maps = vec![replica(1, &[2, 3]), replica(2, &[1, 3]), replica(3, &[1, 2])];
        let mut written: Vec<(Instant, Dot)> = Vec::new();
        let (mut now, mut cut) = (NOW, None);
        for _ in 0..2_000 {
            now += STEP;
            for map in &mut maps {
                map.handle_timeout(now);
            }
            if dice.percent(5) {
                let at = dice.below(3);
                let key = [u8::try_from(dice.below(20)).unwrap()];
                written.push((now, maps[at].insert(now, &key, b"v").unwrap()));
            }
            cut = match dice.below(200) {
                0 => Some(dice.below(3)),
                1..4 => None,
                _ => cut,
            };
            carry(&mut maps, now, &mut dice, 20, cut);
            for map in &maps {
                let Some(age) = map.staleness(now) else { continue };
                known += 1;
                fresh += u32::from(age < Duration::from_secs(1));
                let old = written.iter().filter(|(at, _)| *at + age <= now);
                for (at, dot) in old {
                    // A write of the same moment may come before or after what was heard.
                    let same = *at + age == now;
                    assert!(
                        same || map.reflects(*dot),
                        "seed {seed}: {dot:?} of {at:?} at {now:?}, {age:?}"
                    );
                }
            }
        }
    }
    assert!(known > 100_000 && fresh > known / 2, "{fresh} of {known}");
}

/// Goal: whoever cannot be heard makes what is read older, and whoever is gone does not. Method: two replicas in
/// quiet times, and then one is cut off.
#[test]
fn it_grows_while_a_peer_is_not_heard() {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    maps[0].insert(NOW, b"key", b"value").unwrap();
    let (mut now, mut dice) = (NOW, Dice(1));
    let mut run = |maps: &mut Vec<Map>, time: Duration, cut| {
        let end = now + time;
        while now < end {
            now += STEP;
            maps.iter_mut().for_each(|map| map.handle_timeout(now));
            carry(maps, now, &mut dice, 0, cut);
        }
        maps[0].staleness(now)
    };
    let quiet = run(&mut maps, Duration::from_secs(30), None).unwrap();
    assert!(quiet < Duration::from_secs(4), "{quiet:?}");
    let minute = Duration::from_secs(60);
    let cut = run(&mut maps, minute, Some(1)).unwrap();
    assert!((minute..minute + Duration::from_secs(4)).contains(&cut), "{cut:?}");
    maps[0].peer_up(NOW + 2 * minute, NodeId(3), 1, addr(3));
    assert_eq!(maps[0].staleness(NOW + 2 * minute), None, "nothing was heard of it");
    maps[0].peer_down(NOW + 2 * minute, NodeId(3));
    maps[0].peer_down(NOW + 2 * minute, NodeId(2));
    assert_eq!(maps[0].staleness(NOW + 2 * minute), Some(Duration::ZERO));
}
