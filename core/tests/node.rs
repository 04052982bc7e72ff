//! The composition: membership and the map of one node keep in step, and share datagrams.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use brickwork_core::{Config, Event};
use common::bare::{ACK, PING, UPDATES};
use common::{Net, addr, frame_of};

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
    let probes = probes.filter(|bytes| frame_of(bytes, PING).or(frame_of(bytes, ACK)).is_some());
    assert!(probes.clone().count() > 100);
    assert!(probes.into_iter().all(|bytes| frame_of(bytes, STATE).is_some()));
}

/// Goal: news of a member rides on the map's datagrams as well. Method: new metadata right before a write.
#[test]
fn gossip_rides_on_writes() {
    let mut net = Net::cluster(2, Config::lan(), 3);
    net.run(20 * SECOND);
    net.tap = Some(Vec::new());
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
    let mut net = Net::cluster(4, config, 6);
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
