//! The composition: membership and the map of one node keep in step, and share datagrams.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::bare::{ACK, ALIVE, PING, UPDATES, alive, frame, id, introduce, packet, seal};
use crate::common::{Net, addr, frame_of, name};
use brickwork_core::{Config, Event, Identity, Instant, Node, NodeId, PacketError};

const SECOND: Duration = Duration::from_secs(1);
const STATE: u8 = 0xa2;
const CHUNK: u8 = 0xa3;

fn missed(net: &Net, place: usize) -> bool {
    net.events[place].iter().any(|event| matches!(event, Event::Missed { .. }))
}

/// To which places the node at `from` told the state of its map, while the tap was open.
fn told(net: &mut Net, from: usize) -> Vec<usize> {
    let sent = net.tap.take().unwrap();
    let state = |place: usize| {
        let mut to_place = sent.iter().filter(|sent| sent.0 == from && sent.1 == addr(place));
        to_place.any(|sent| frame_of(&sent.2, STATE).is_some())
    };
    (0..net.nodes.len()).filter(|place| state(*place)).collect()
}

fn carries(datagram: &[u8], tag: u8) -> bool {
    frame_of(datagram, tag).is_some()
}

/// Goal: probing carries the state of the map to each member, at no cost in datagrams.
/// Method: all pings and acks of an idle cluster.
#[test]
fn the_state_of_the_map_rides_on_probes() {
    let mut net = Net::cluster(1, Config::local(), 3);
    net.run(SECOND);
    net.tap = Some(Vec::new());
    net.run(10 * SECOND);
    let sent = net.tap.take().unwrap();
    let probes = sent.iter().map(|(_, _, bytes)| bytes);
    let probes = probes.filter(|bytes| carries(bytes, PING) || carries(bytes, ACK));
    assert!(probes.clone().count() > 100);
    assert!(probes.into_iter().all(|bytes| frame_of(bytes, STATE).is_some()));
}

/// Goal: what the one that lets it in tells of its map is not lost on a newcomer that has not heard of it yet. Method: nodes join
/// one after the other, with nothing lost or overtaken, whichever datagram to them leaves first. Now and then another one speaks too soon.
#[test]
fn a_newcomer_knows_who_tells_it_of_the_map() {
    let mut net = Net::cluster(3, Config::lan(), 3);
    net.weather.delay = Duration::from_nanos(1);
    net.with(0, |node, now| node.insert(now, b"key", b"value").unwrap());
    let mut too_soon = 0;
    for place in 3..23 {
        net.run(SECOND / 7);
        net.start(place, &[place % 3]);
        let met = |net: &Net| {
            net.node(place).map().len() == 1 && net.node(place).members().count() == place + 1
        };
        assert!(net.run_until(SECOND, met), "place {place}");
        too_soon += net.node(place).map().stats().misaddressed;
    }
    assert!(too_soon <= 5, "{too_soon} datagrams of twenty joins");
}

/// Goal: with the first words of the map a node that was apart hears that this one lives. Method: a split for so long that all across it
/// are held dead, and the first datagram of the map's own between any two: who is spoken to by another is not dead there.
#[test]
fn who_came_back_is_told_of_this_node_with_the_map() {
    let mut net = Net::cluster(6, Config::lan(), 6);
    net.run(5 * SECOND);
    net.side[3..].fill(1);
    let dead = |net: &Net| (0..6).all(|place| net.node(place).members().count() == 3);
    assert!(net.run_until(60 * SECOND, dead));
    net.side.fill(0);
    net.tap = Some(Vec::new());
    let whole = |net: &Net| (0..6).all(|place| net.node(place).members().count() == 6);
    assert!(net.run_until(120 * SECOND, whole));
    let mut met = Vec::new();
    for (from, to, bytes) in net.tap.take().unwrap() {
        let to = (0..6).find(|place| addr(*place) == to).unwrap();
        let pair = (from.min(to), from.max(to));
        let across = pair.0 < 3 && pair.1 >= 3;
        let of_map = !carries(&bytes, PING) && !carries(&bytes, ACK) && carries(&bytes, STATE);
        if across && of_map && !met.contains(&pair) {
            met.push(pair);
            let row = [&[ALIVE][..], &id(from).0.to_le_bytes()].concat();
            let rows = frame_of(&bytes, UPDATES).unwrap_or_default();
            assert!(rows.windows(9).any(|part| part == row), "{from} to {to}");
        }
    }
    assert_eq!(met.len(), 9, "{met:?}");
}

/// A node that has a map of 300 keys and has forgotten its logs.
fn giver(seed: u64) -> Net {
    let mut config = Config::lan();
    config.map.collect_interval = SECOND;
    let mut net = Net::new(seed, config);
    net.start(0, &[]);
    for number in 0..300_u32 {
        net.with(0, |node, now| node.insert(now, &number.to_le_bytes(), b"value").unwrap());
    }
    assert!(net.run_until(60 * SECOND, |net| net.node(0).map().metadata() == (0, 0)));
    net.weather.loss = 5;
    net
}

/// How long a node that joins at `place` takes until it has the map.
fn join_takes(net: &mut Net, place: usize) -> Duration {
    let start = net.now;
    net.start(place, &[0]);
    assert!(net.run_until(60 * SECOND, |net| net.node(place).map().len() == 300));
    net.now - start
}

/// The median, what one in ten exceeds, and the longest.
fn spread(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    let spread = [times.len() / 2, times.len() * 9 / 10, times.len() - 1].map(|at| times[at]);
    println!("{} joins: {spread:?}", times.len());
    spread
}

/// Goal: a node that joins has the map soon, whichever datagrams are lost. Method: seeds of loss, and virtual time.
#[test]
fn a_newcomer_has_the_map_soon_though_datagrams_are_lost() {
    let [half, _, slowest] = spread((0..200).map(|seed| join_takes(&mut giver(seed), 1)).collect());
    assert!(half < Duration::from_millis(50) && slowest < SECOND);
}

/// Goal: the same where most of the others have just died, though it is told of them as members, and the giver waits for
/// their answers. Method: a dozen nodes join, and die at once.
#[test]
fn a_newcomer_has_the_map_soon_though_others_just_died() {
    let mut times = Vec::new();
    for seed in 0..200 {
        let mut net = giver(seed);
        for place in 1..=12 {
            times.push(join_takes(&mut net, place));
            net.crash(place);
        }
    }
    let longer_than = |long| times.iter().filter(|time| **time > long).count();
    let [long, longer] = [SECOND, 4 * SECOND].map(longer_than);
    println!("{long} longer than 1 s, {longer} than 4 s");
    // Hardly anybody waits until those that it asked first are found dead: a suspicion among a dozen lasts 6.5 s.
    assert!(long * 100 <= times.len() && longer * 400 <= times.len());
    let [half, ..] = spread(times);
    assert!(half < Duration::from_millis(50));
}

/// Goal: news of a member rides on the map's datagrams as well. Method: new metadata right before a write.
#[test]
fn gossip_rides_on_writes() {
    let mut net = Net::cluster(2, Config::lan(), 3);
    net.run(20 * SECOND);
    net.tap = Some(Vec::new());
    net.with(0, |node, now| node.insert(now, b"old", b"value").unwrap());
    net.run(Duration::from_millis(40));
    let sent = net.tap.replace(Vec::new()).unwrap();
    let pushed = sent.iter().filter(|sent| frame_of(&sent.2, CHUNK).is_some());
    assert!(pushed.clone().count() > 0);
    assert!(pushed.into_iter().all(|sent| frame_of(&sent.2, UPDATES).is_none()), "there is none");
    net.with(0, |node, now| {
        node.set_meta(now, b"new".to_vec()).unwrap();
        node.insert(now, b"key", b"value").unwrap();
    });
    net.run(Duration::from_millis(40));
    let sent = net.tap.take().unwrap();
    let pushed: Vec<_> = sent.iter().filter(|sent| frame_of(&sent.2, CHUNK).is_some()).collect();
    assert!(!pushed.is_empty());
    for (_, _, bytes) in pushed {
        let rows = frame_of(bytes, UPDATES).expect("the news is in it");
        assert!(rows.windows(3).any(|part| part == b"new"));
    }
}

/// Goal: a node that learns of more members at once than its queue of events holds syncs its map with all of them.
/// Method: a newcomer with room for one event among five.
#[test]
fn all_members_are_peers_though_events_were_missed() {
    let mut config = Config::local();
    config.swim.max_events = 1;
    let mut net = Net::cluster(3, config, 5);
    net.tap = Some(Vec::new());
    net.start(5, &[0]);
    net.run(5 * SECOND);
    assert!(missed(&net, 5));
    assert_eq!(told(&mut net, 5), [0, 1, 2, 3, 4]);
    let owners: Vec<_> = net.node(5).view().nodes().to_vec();
    assert_eq!(owners, net.node(0).view().nodes());
}

/// Goal: a node that learns at once of more departures than its queue of events holds forgets them all.
/// Method: three leave while it hears nothing, and the next datagram tells of all.
#[test]
fn who_left_is_no_peer_though_events_were_missed() {
    let mut config = Config::lan();
    config.swim.max_events = 1;
    let mut net = Net::cluster(5, config, 6);
    net.run(5 * SECOND);
    net.side[0] = 1;
    for place in [3, 4, 5] {
        net.with(place, |node, now| node.leave(now));
    }
    net.run(Duration::from_millis(300));
    net.side[0] = 0;
    net.events[0].clear();
    let heard = |net: &Net| net.node(0).members().count() == 3;
    assert!(net.run_until(5 * SECOND, heard));
    assert!(missed(&net, 0));
    net.tap = Some(Vec::new());
    net.run(20 * SECOND);
    assert_eq!(told(&mut net, 0), [1, 2]);
    assert_eq!(net.node(0).view().nodes().len(), 3);
}

/// The node at place 0 in its first boot, alone.
fn lone() -> Node {
    let identity = Identity::new(name(0), addr(0)).with_boot_epoch(1);
    Node::new(Instant::ZERO, identity, Config::lan(), [7; 32]).unwrap()
}

/// The node hears of the member at `place`.
fn meet(node: &mut Node, place: usize) {
    let take = |node: &mut Node, mut bytes: Vec<u8>| {
        node.handle_packet(Instant::ZERO, addr(place), &mut bytes).unwrap();
    };
    let send = |node: &mut Node| {
        let mut buf = [0; 1400];
        node.poll_transmit(&mut buf).map(|sent| (sent.to, sent.payload.to_vec()))
    };
    introduce(node, (place, &alive(place, 1, 0)), take, send, "brickwork");
}

/// Goal: each datagram counts once: as taken in, or as refused for what was wrong with it. Method: so many datagrams
/// of each kind, as bytes that are all right but for one thing.
#[test]
fn datagrams_are_counted_by_what_was_wrong_with_them() {
    let mut node = lone();
    let good = packet("brickwork", id(1), 1, &frame(UPDATES, &alive(1, 1, 0)));
    let frames = |frames: &[u8]| packet("brickwork", id(1), 1, frames);
    let with = |at: usize, byte: u8| {
        let mut bytes = good[..good.len() - 4].to_vec();
        bytes[at] = byte;
        seal(bytes)
    };
    let mut damaged = good.clone();
    damaged[30] ^= 1;
    let kinds = [
        (Err(PacketError::Truncated), good[..20].to_vec()),
        (Err(PacketError::BadMagic), with(0, 0)),
        (Err(PacketError::UnsupportedVersion), with(1, 2)),
        (Err(PacketError::Sealed), with(3, 1)),
        (Err(PacketError::WrongCluster), packet("another", id(1), 1, &[])),
        (Err(PacketError::BadChecksum), damaged),
        (Err(PacketError::UnknownFrame), frames(&frame(0x3f, &[]))),
        (Err(PacketError::Malformed), frames(&frame(ACK, &[1, 2]))),
        (Err(PacketError::LimitExceeded), frames(&frame(ACK, &[0xff, 0xff, 0xff, 0xff, 0x7f]))),
        (Err(PacketError::OwnPacket), packet("brickwork", id(0), 1, &[])),
        (Ok(()), good.clone()),
    ];
    let (mut bytes, mut total) = (0, 0);
    for (times, (result, packet)) in (1..).zip(&kinds) {
        for _ in 0..times {
            let taken = node.handle_packet(Instant::ZERO, addr(1), &mut packet.clone());
            assert_eq!(taken, *result);
            bytes += packet.len() as u64;
            total += u64::from(taken.is_err());
            assert_eq!(node.stats().refused.total(), total);
            assert_eq!(node.stats().bytes_received, bytes);
        }
    }
    let refused = node.stats().refused;
    let counted = [
        refused.truncated,
        refused.bad_magic,
        refused.unsupported_version,
        refused.sealed,
        refused.wrong_cluster,
        refused.bad_checksum,
        refused.unknown_frame,
        refused.malformed,
        refused.limit_exceeded,
        refused.own_packet,
        node.stats().datagrams_received,
    ];
    assert_eq!(counted, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    // Nobody has proven that it is there: it is to ask.
    assert_eq!((node.members().count(), node.stats().swim.misaddressed), (1, 11));
}

/// Goal: what is sent is counted. Method: a cluster with writes, all of whose datagrams are recorded.
#[test]
fn what_is_sent_is_counted() {
    let mut net = Net::new(5, Config::local());
    net.tap = Some(Vec::new());
    (0..3).for_each(|place| net.start(place, &[0]));
    net.run(SECOND);
    net.with(1, |node, now| node.insert(now, b"key", b"value")).unwrap().unwrap();
    net.run(10 * SECOND);
    let sent = net.tap.take().unwrap();
    for place in 0..3 {
        let sent = sent.iter().filter(|sent| sent.0 == place);
        let bytes: usize = sent.clone().map(|(_, _, bytes)| bytes.len()).sum();
        let stats = net.node(place).stats();
        assert_eq!((stats.datagrams_sent, stats.bytes_sent), (sent.count() as u64, bytes as u64));
        assert_eq!(stats.swim, *net.node(place).swim().stats());
        assert_eq!(stats.map, *net.node(place).map().stats());
        assert!(stats.swim.probes > 0 && stats.map.dots_received + stats.map.writes > 0);
    }
}

/// Goal: the wishes and views of a node are those of its map and its members. Method: each of them, where it does
/// something, on a node that knows one other.
#[test]
fn wishes_and_views_are_those_of_the_parts() {
    let (mut node, now) = (lone(), Instant::ZERO);
    meet(&mut node, 1);
    let dot = node.insert(now, b"a", b"one").unwrap();
    assert_eq!((dot.replica, dot.counter), (node.map().replica(), 1));
    assert_eq!(node.get(b"a"), Some(&b"one"[..]));
    let context = node.context(b"a");
    assert_eq!(context, node.map().context(b"a"));
    assert_ne!(context, node.context(b"b"));
    let dot = node.resolve(now, b"a", &context, Some(b"two")).unwrap().expect("it writes");
    assert_eq!(dot.counter, 2);
    let siblings: Vec<_> =
        node.siblings(b"a").map(|sibling| (sibling.dot, sibling.value)).collect();
    assert_eq!(siblings, [(dot, &b"two"[..])]);
    node.insert(now, b"b", b"three").unwrap();
    let all: Vec<_> = node.iter().collect();
    assert_eq!(all, [(&b"a"[..], &b"two"[..]), (b"b", b"three")]);
    assert_eq!((node.remove(now, b"b"), node.remove(now, b"b")), (Ok(true), Ok(false)));
    let context = node.context(b"a");
    assert_eq!(
        node.resolve(now, b"a", &context, None),
        Ok(Some(dot_after(&node, dot.counter + 3)))
    );
    assert_eq!((node.iter().count(), node.map().len()), (0, 0));

    let ids: Vec<_> = node.members().map(|member| member.id()).collect();
    assert_eq!(ids, [id(0), id(1)]);
    assert_eq!((node.id(), node.identity().addr()), (id(0), addr(0)));
    assert_eq!(node.member(id(1)).map(|member| member.addr()), Some(addr(1)));
    assert!(node.member(id(2)).is_none() && node.former_members().next().is_none());
    let mut first_two = [NodeId(0); 2];
    for key in [&b"x"[..], b"y", b"z", b"u", b"v"] {
        let owners = node.owners(key, &mut first_two).to_vec();
        assert_eq!(owners.first().copied(), node.owner(key));
        assert_eq!(owners.len(), 2);
    }
}

/// The write of the node with that number.
fn dot_after(node: &Node, counter: u64) -> brickwork_core::map::Dot {
    brickwork_core::map::Dot::new(node.map().replica(), counter)
}

/// Goal: a step back of the driver's clock makes nothing look younger. Method: a node that does not hear of another for a
/// while, and is told an earlier time then.
#[test]
fn what_is_read_grows_old_by_the_clock_of_the_node() {
    let mut net = Net::cluster(3, Config::lan(), 5);
    net.run(10 * SECOND);
    net.side = vec![0, 0, 0, 0, 1];
    net.run(2 * SECOND);
    let now = net.now;
    let age = |net: &Net, now| net.node(0).staleness(now).unwrap();
    let before = age(&net, now);
    assert!((2 * SECOND..6 * SECOND).contains(&before), "{before:?}");
    assert_eq!(age(&net, now + 60 * SECOND), before + 60 * SECOND);
    let early = Instant::from_nanos(1);
    net.with(0, |node, _| node.handle_timeout(early));
    let after = age(&net, early);
    assert!(after <= before && before - after < SECOND, "{after:?} after {before:?}");
    assert_eq!(age(&net, early + 60 * SECOND), after + 60 * SECOND);
}
