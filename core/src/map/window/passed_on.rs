//! Answers from sources that were told some dots without their keys, in windows of whatever ends.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use crate::NodeId;
use crate::map::{Config, Map, ReplicaId};
use crate::time::Instant;

const WRITES: u64 = 2_000;

fn map(id: u64, others: &[u64], budget: usize) -> Map {
    let mut config = Config::lan();
    (config.pull_rate, config.pull_budget) = (1 << 30, budget);
    let life = ReplicaId::new(NodeId(id), 1);
    let mut map = Map::new(Instant::ZERO, life, "test", config, 1_400, [7; 32]).unwrap();
    for other in others {
        map.peer_up(Instant::ZERO, NodeId(*other), 1, addr(*other));
    }
    map
}

fn addr(id: u64) -> core::net::SocketAddr {
    ([10, 0, 0, 1], u16::try_from(id).unwrap()).into()
}

fn drain(map: &mut Map) -> Vec<(u64, Vec<u8>)> {
    let mut buf = [0; 1_400];
    let mut sent = Vec::new();
    while let Some(datagram) = map.poll_transmit(&mut buf) {
        sent.push((u64::from(datagram.to.port()), datagram.payload.to_vec()));
    }
    while map.poll_event().is_some() {}
    sent
}

fn take(map: &mut Map, now: Instant, from: u64, mut datagram: Vec<u8>) {
    map.handle_packet(now, addr(from), &mut datagram).unwrap();
    while map.poll_event().is_some() {}
}

/// The source and the taker speak, until they agree or so many datagrams arrived at the taker.
fn speak(source: &mut Map, taker: &mut Map, mut now: Instant, most: usize) -> Instant {
    let (id, own) = (source.replica().node.0, taker.replica().node.0);
    let (end, mut arrived) = (now + Duration::from_secs(10), 0);
    while source.digest() != taker.digest() && now < end {
        loop {
            let (there, back) = (drain(source), drain(taker));
            if there.is_empty() && back.is_empty() {
                break;
            }
            for (_, datagram) in there.into_iter().filter(|(to, _)| *to == own) {
                arrived += 1;
                if arrived <= most {
                    take(taker, now, id, datagram);
                }
            }
            for (_, datagram) in back.into_iter().filter(|(to, _)| *to == id) {
                take(source, now, own, datagram);
            }
        }
        if arrived > most {
            break;
        }
        now = [source.poll_timeout(), taker.poll_timeout()].into_iter().flatten().min().unwrap();
        source.handle_timeout(now);
        taker.handle_timeout(now);
    }
    now
}

/// Makes a source one that was told in windows of these lengths, in turn: what is followed in its window has no key.
fn tell_without_keys(map: &mut Map, lens: &[u64]) {
    let writer = map.replicas.number(ReplicaId::new(NodeId(1), 1)).unwrap();
    let (mut ends, mut end) = (BTreeMap::new(), 0);
    for len in lens.iter().cycle() {
        if end >= WRITES {
            break;
        }
        let first = end + 1;
        end = (end + len).min(WRITES);
        ends.extend((first..=end).map(|counter| (counter, end)));
    }
    map.replicas.forget_keys(writer, |counter| ends[&counter]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Goal: whoever is asked brings the taker to all that it has, though another began, and gave other limits. Method: a
    /// writer whose first writes the taker hears, two sources that were told the rest in windows of some lengths, the
    /// first of which goes while it answers, and answers from one datagram to all.
    #[test]
    fn whatever_windows_sources_were_told_in_they_tell_on(
        one in proptest::collection::vec(2..900_u64, 1..4),
        other in proptest::collection::vec(2..900_u64, 1..4),
        keys in prop_oneof![2..20_u64, 100..900_u64],
        heard in prop_oneof![Just(0_u64), 1..WRITES],
        budget in prop_oneof![Just(1_400_usize), Just(4_000), Just(65_536)],
        arrive in 0..40_usize,
        seed in any::<u64>(),
    ) {
        let mut writer = map(1, &[2, 3, 4], 65_536);
        let (mut first, mut second) = (map(2, &[1, 3, 4], 65_536), map(3, &[1, 2, 4], 65_536));
        let mut taker = map(4, &[1, 2, 3], budget);
        let (mut now, mut dice) = (Instant::ZERO, seed);
        for n in 0..WRITES {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Some keys are written once, so that runs are short.
            let key = if (dice >> 40) % 10 < 3 { 1_000_000 + n } else { (dice >> 33) % keys };
            writer.insert(now, &key.to_le_bytes(), &[7; 32]).unwrap();
            if n % 20 == 19 {
                now += Duration::from_millis(100);
                writer.handle_timeout(now);
                for (to, datagram) in drain(&mut writer) {
                    match to {
                        2 => take(&mut first, now, 1, datagram),
                        3 => take(&mut second, now, 1, datagram),
                        _ if n < heard => take(&mut taker, now, 1, datagram),
                        _ => {}
                    }
                }
                drain(&mut first);
                drain(&mut second);
                drain(&mut taker);
            }
        }
        for map in [&mut first, &mut second, &mut taker] {
            map.peer_down(now, NodeId(1));
        }
        tell_without_keys(&mut first, &one);
        tell_without_keys(&mut second, &other);
        now = speak(&mut first, &mut taker, now, arrive);
        taker.peer_down(now, NodeId(2));
        second.peer_down(now, NodeId(2));
        let full = taker.stats.full_syncs;
        speak(&mut second, &mut taker, now, usize::MAX);
        prop_assert_eq!(second.digest(), taker.digest());
        prop_assert_eq!(taker.stats.full_syncs, full);
    }
}
