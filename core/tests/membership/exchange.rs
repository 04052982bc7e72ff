//! The table exchange: two who know different members come to know all of them, and tell no more than what differs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::bare::{
    ALIVE, BUCKETS, Bare, COOKIE, LISTED, OFFERED, PING, STANDING, SUSPECT, Sent, UPDATES, WANTED,
    alive, alive_with, frame, id, introduce_to, join, packet, places, varint,
};
use crate::common::{addr, frame_of, name};
use brickwork_core::swim::{Config, State, Swim};
use brickwork_core::{Identity, Instant, MAX_META, MAX_NAME, MAX_ZONE, MIN_DATAGRAM, NodeId};
use proptest::prelude::*;

const ROW: usize = 45;

/// Nodes whose clock is a test's, with no gossip: what one learns, it learns by the exchange.
struct Nodes {
    nodes: Vec<Swim>,
    now: Instant,
    /// Bytes of frames that were told, by tag.
    bytes: [usize; 256],
}

impl Nodes {
    fn new(count: usize, max_datagram: usize) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut config = Config::lan();
        config.gossip_nodes = 0;
        // Those that are made up answer no probe.
        config.suspicion_min = 1_000;
        let node = |place: usize| {
            let identity = Identity::new(name(place), addr(place)).with_boot_epoch(1);
            let entropy = [u8::try_from(place).unwrap() + 1; 32];
            Swim::new(now, identity, "test", config.clone(), max_datagram, entropy).unwrap()
        };
        let mut nodes = Self { nodes: (0..count).map(node).collect(), now, bytes: [0; 256] };
        for at in 0..count {
            (0..count).filter(|other| *other != at).for_each(|other| nodes.know(at, other));
        }
        nodes
    }

    /// The node is told of a member by that itself, so that nothing is asked for.
    fn know(&mut self, at: usize, place: usize) {
        introduce_to(&mut self.nodes[at], self.now, place, &alive(place, 1, 0));
    }

    /// Each asks each whether it is there; the answer tells a digest.
    fn ping_all(&mut self) {
        let all = 0..self.nodes.len();
        for (at, from) in all.clone().flat_map(|at| all.clone().map(move |from| (at, from))) {
            if at != from {
                let ping = [vec![1], id(at).0.to_le_bytes().to_vec()].concat();
                let mut bytes = packet("test", id(from), 1, &frame(PING, &ping));
                self.nodes[at].handle_packet(self.now, addr(from), &mut bytes).unwrap();
            }
        }
    }

    fn members(&self, at: usize) -> BTreeSet<NodeId> {
        self.nodes[at].members().map(|member| member.id()).collect()
    }

    /// Lets time pass; of what is sent to the nodes so much is lost.
    fn run(&mut self, time: Duration, mut lost: impl FnMut() -> bool) {
        let end = self.now + time;
        let mut buf = [0; 65_000];
        while self.now < end {
            self.now += Duration::from_millis(1);
            // Their own probes go to members that were made up, most often.
            if self.now.as_nanos().is_multiple_of(300_000_000) {
                self.ping_all();
            }
            for at in 0..self.nodes.len() {
                self.nodes[at].handle_timeout(self.now);
                let mut sent = Vec::new();
                while let Some(datagram) = self.nodes[at].poll_transmit(&mut buf) {
                    sent.push((datagram.to, datagram.payload.to_vec()));
                }
                for (to, mut bytes) in sent {
                    for tag in [UPDATES, BUCKETS, LISTED, OFFERED, WANTED] {
                        self.bytes[usize::from(tag)] +=
                            frame_of(&bytes, tag).map_or(0, <[u8]>::len);
                    }
                    let to = (0..self.nodes.len()).find(|place| addr(*place) == to);
                    if let Some(to) = to.filter(|_| !lost()) {
                        self.nodes[to].handle_packet(self.now, addr(at), &mut bytes).unwrap();
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Goal: whoever knows whatever, all come to know all. Method: two or three nodes with any members of their own,
    /// datagrams of any length, any loss.
    #[test]
    fn all_come_to_know_all(
        known in proptest::collection::vec(0..8_u8, 0..250),
        count in 2..4_usize,
        max_datagram in prop_oneof![Just(512), 512..1_500_usize, Just(40_000)],
        loss in 0..50_u64,
    ) {
        let mut nodes = Nodes::new(count, max_datagram);
        for (place, by) in (100..).zip(&known) {
            (0..count).filter(|at| by >> at & 1 == 1).for_each(|at| nodes.know(at, place));
        }
        let all: BTreeSet<NodeId> = (0..count).flat_map(|at| nodes.members(at)).collect();
        let mut dice = 1_u64;
        // An exchange takes five datagrams that arrive, and another one begins after a second: with half of them lost one
        // in thirty is whole. All of whom nobody answers for are suspected, and while so many are it begins after eight seconds:
        // of three nodes one may wait for its second.
        let most = if loss > 0 { 400 } else { 4 };
        for _ in 0..most {
            nodes.run(Duration::from_secs(4), || {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (dice >> 33) % 100 < loss
            });
            if (0..count).all(|at| nodes.members(at).len() == all.len()) {
                break;
            }
        }
        for at in 0..count {
            prop_assert_eq!(nodes.members(at).len(), all.len(), "{}", at);
        }
    }
}

/// Goal: what both know costs four bytes a member at most, and only that which one lacks is told in full, once. Method:
/// two with 2,000 members in common and a few of their own.
#[test]
fn what_both_know_is_not_told() {
    let mut nodes = Nodes::new(2, 1400);
    (1_000..3_000).for_each(|place| (0..2).for_each(|at| nodes.know(at, place)));
    (3_000..3_005).for_each(|place| nodes.know(0, place));
    (3_005..3_020).for_each(|place| nodes.know(1, place));
    nodes.bytes = [0; 256];
    nodes.run(Duration::from_secs(2), || false);
    assert_eq!([nodes.members(0).len(), nodes.members(1).len()], [2_022; 2]);
    let bytes = |tag: u8| nodes.bytes[usize::from(tag)];
    let told = bytes(UPDATES) / ROW;
    assert!((20..40).contains(&told), "{told} rows");
    // At most two exchanges, each of at most 20 of 64 buckets.
    let lists = bytes(LISTED) + bytes(OFFERED) + bytes(WANTED);
    assert!(lists < 2 * 20 * (2_000 / 64 + 40) * 4, "{lists} bytes of lists");
}

/// Goal: a peer that tells of other metadata of a member, in a newer version, is asked for it, and only one of two who
/// offer the same at once is. Method: node 0 lacks 300 members that both others have.
#[test]
fn the_same_is_asked_of_one_alone() {
    let mut nodes = Nodes::new(3, 1400);
    for place in 1_000..1_300 {
        [1, 2].into_iter().for_each(|at| nodes.know(at, place));
    }
    let moved = frame(UPDATES, &alive_with(1_000, 1, 0, 7, addr(1_000).port(), b"new"));
    let mut bytes = packet("test", id(1_000), 1, &moved);
    nodes.nodes[1].handle_packet(nodes.now, addr(1_000), &mut bytes).unwrap();
    nodes.bytes = [0; 256];
    nodes.run(Duration::from_secs(3), || false);
    assert!((0..3).all(|at| nodes.members(at).len() == 303));
    for node in &nodes.nodes {
        assert_eq!(node.member(id(1_000)).unwrap().identity().meta(), b"new");
    }
    let told = nodes.bytes[usize::from(UPDATES)] / ROW;
    assert!((300..360).contains(&told), "{told} rows");
}

/// An offer, or a wish, of a member that nobody knows.
fn unknown(tag: u8, number: u32) -> Vec<u8> {
    let print = [&7_u32.to_le_bytes()[..], &[3], &number.to_le_bytes()];
    frame(tag, &print.concat())
}

/// Goal: one that offers what it never tells keeps nobody from asking others. Method: node 1 goes on offering what does not
/// exist; node 2 offers something else now and then.
#[test]
fn an_offer_does_not_keep_others_out() {
    let mut bare = Bare::among(Config::lan(), 1..4);
    bare.answering = vec![1, 2, 3];
    let mut asked = 0;
    for number in 0..400_u32 {
        bare.tell(1, &unknown(OFFERED, number));
        if number % 7 == 3 {
            bare.tell(2, &unknown(OFFERED, 1_000 + number));
        }
        let sent = bare.run(Duration::from_millis(10));
        asked += places(&sent, WANTED).iter().filter(|place| **place == 2).count();
    }
    assert!((5..=57).contains(&asked), "{asked}");
}

/// Goal: what is asked for is told once, however often one packet asks for it, and a packet makes no more work than so
/// many buckets. Method: a wish that is repeated.
#[test]
fn a_wish_is_granted_once() {
    let mut nodes = Nodes::new(2, 1_400);
    (100..300).for_each(|place| nodes.know(0, place));
    // What node 0 lists to node 1, who has none of it.
    let digests = frame(BUCKETS, &[0xff; 256]);
    let mut bytes = packet("test", id(1), 1, &digests);
    nodes.nodes[0].handle_packet(nodes.now, addr(1), &mut bytes).unwrap();
    let mut buf = [0; 1_400];
    let listed = loop {
        let sent = nodes.nodes[0].poll_transmit(&mut buf).unwrap().payload.to_vec();
        if let Some(listed) = frame_of(&sent, LISTED).filter(|listed| listed.len() > 20) {
            break listed.to_vec();
        }
    };
    let wish = [&listed[..5], &listed[13..17]].concat();
    for (wishes, told) in [(1, 1), (100, 1)] {
        let wishes = frame(WANTED, &wish).repeat(wishes);
        let mut bytes = packet("test", id(1), 1, &wishes);
        let before = nodes.nodes[0].stats().misaddressed;
        nodes.nodes[0].handle_packet(nodes.now, addr(1), &mut bytes).unwrap();
        let refused = nodes.nodes[0].stats().misaddressed - before;
        assert_eq!(refused, if wishes.len() > 1_000 { 36 } else { 0 });
        let mut rows = 0;
        while let Some(sent) = nodes.nodes[0].poll_transmit(&mut buf) {
            if sent.to == addr(1) {
                rows += frame_of(sent.payload, UPDATES).map_or(0, |body| body.len() / ROW);
            }
        }
        assert_eq!(rows, told);
    }
}

/// Goal: who is let in again is not told the whole table again. Method: the same join, with the cookie that it has earned.
#[test]
fn the_whole_table_is_told_once() {
    let mut bare = Bare::among(Config::lan(), 100..200);
    bare.sent();
    let mut told = Vec::new();
    let mut cookie = 0;
    for _ in 0..4 {
        bare.tell(1, &join(cookie, 1, 1, addr(1).port()));
        let sent: Vec<_> = bare.sent().into_iter().filter(|sent| sent.to == addr(1)).collect();
        if let Some(body) = sent.iter().find_map(|sent| sent.frame(COOKIE)) {
            cookie = u64::from_le_bytes(body.try_into().unwrap());
        }
        told.push(
            sent.iter().flat_map(|sent| sent.frames(UPDATES)).map(<[u8]>::len).sum::<usize>(),
        );
    }
    assert!(told[0] == 0 && told[1] > 100 * ROW - 500, "{told:?}");
    assert!(told[2..].iter().all(|bytes| *bytes < 5 * ROW), "{told:?}");
}

/// What the member at `place` says of itself: as much as there may be.
fn longest(place: u8) -> (NodeId, Vec<u8>) {
    let name = format!("{place:0>MAX_NAME$}");
    let id = NodeId::from_name(&name);
    let mut row =
        [&[ALIVE][..], &id.0.to_le_bytes(), &1_u64.to_le_bytes(), &varint(1 << 28)].concat();
    row.extend(varint(1 << 28));
    row.extend([&[6][..], &[place; 16], &[1, place]].concat());
    for part in [name.as_bytes(), &[b'z'; MAX_ZONE], &[7; MAX_META]] {
        row.extend(varint(part.len() as u64));
        row.extend(part);
    }
    row.extend(varint(u64::from(u16::MAX)));
    row.extend(u64::MAX.to_le_bytes());
    (id, row)
}

/// Goal: whatever a member is owed leaves in datagrams of the shortest length, and the last of them is the last. Method:
/// members with the longest names, zones and metadata, all under as many accusations as there may be; one of them asks
/// for all.
#[test]
fn the_longest_rows_fit_the_shortest_datagrams() {
    let mut config = Config::lan();
    config.suspicion_confirmations = 16;
    let now = Instant::from_nanos(1_000_000_000);
    let me = Identity::new(name(0), addr(0)).with_boot_epoch(1);
    let mut swim = Swim::new(now, me, "test", config, MIN_DATAGRAM, [7; 32]).unwrap();
    let members: Vec<_> = (1..=20).map(longest).collect();
    let tell = |swim: &mut Swim, from: NodeId, frames: &[u8]| {
        let mut bytes = packet("test", from, 1, frames);
        swim.handle_packet(now, addr(1), &mut bytes).unwrap();
    };
    // What comes from where it asked is believed.
    swim.join(now, &[addr(1)]);
    for (id, row) in &members {
        tell(&mut swim, *id, &frame(UPDATES, row));
    }
    for (of, (id, _)) in members.iter().enumerate() {
        let accusers = members.iter().enumerate().filter(|(by, _)| *by != of).take(17);
        let accusers: Vec<NodeId> = accusers.map(|(_, (id, _))| *id).collect();
        let mut row = [&[SUSPECT][..], &id.0.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        row.extend([varint(1 << 28), vec![17]].concat());
        accusers.iter().for_each(|accuser| row.extend(accuser.0.to_le_bytes()));
        tell(&mut swim, accusers[0], &frame(UPDATES, &row));
    }
    assert!(swim.members().skip(1).all(|member| member.state() == State::Suspect));
    let asks = members[0].0;
    tell(&mut swim, asks, &frame(BUCKETS, &[0xff; 256]));
    let (mut buf, mut listed) = ([0; MIN_DATAGRAM], Vec::new());
    let mut poll = |swim: &mut Swim| {
        let (mut sent, mut bytes) = (0, Vec::new());
        while let Some(datagram) = swim.poll_transmit(&mut buf) {
            sent += 1;
            assert!(sent < 1_000, "it never ends");
            bytes.push(datagram.payload.to_vec());
        }
        bytes
    };
    for datagram in poll(&mut swim) {
        let sent = Sent { at: now, to: addr(1), bytes: datagram };
        listed.extend(sent.frames(LISTED).into_iter().map(<[u8]>::to_vec));
    }
    for list in listed.iter().filter(|list| list.len() > 13) {
        tell(&mut swim, asks, &frame(WANTED, &[&list[..5], &list[13..]].concat()));
    }
    let told = poll(&mut swim);
    let whole = |id: &NodeId| {
        let head = [&[ALIVE][..], &id.0.to_le_bytes()].concat();
        told.iter().any(|bytes| bytes.windows(9).any(|part| part == head))
    };
    assert!(members[1..].iter().all(|(id, _)| whole(id)));
}

/// Goal: what is owed to one that is accused itself leaves too, however long the accusation and the row are. Method: members
/// with the longest rows, one held out by as many as may be named; who is suspected asks for all, and who is
/// held out tells old news of somebody and has to be corrected.
#[test]
fn the_longest_rows_fit_beside_the_longest_accusations() {
    let me = Identity::new(name(0), addr(0)).with_boot_epoch(1);
    let start = Instant::from_nanos(1_000_000_000);
    let mut swim = Swim::new(start, me, "test", Config::lan(), MIN_DATAGRAM, [7; 32]).unwrap();
    let members: Vec<_> = (1..=20).map(longest).collect();
    let tell = |swim: &mut Swim, now, from: NodeId, frames: &[u8]| {
        swim.handle_packet(now, addr(1), &mut packet("test", from, 1, frames)).unwrap();
    };
    swim.join(start, &[addr(1)]);
    for (id, row) in &members {
        tell(&mut swim, start, *id, &frame(UPDATES, row));
    }
    let held = members[19].0;
    let mut row = [&[STANDING][..], &held.0.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    row.extend([varint(1 << 28), vec![0, 4], varint(0), vec![8, 0]].concat());
    for (id, _) in &members[..8] {
        row.extend([&id.0.to_le_bytes()[..], &[0]].concat());
    }
    tell(&mut swim, start, members[0].0, &frame(UPDATES, &row));
    let mut buf = [0; MIN_DATAGRAM];
    let mut poll = |swim: &mut Swim| {
        let sent = std::iter::from_fn(|| swim.poll_transmit(&mut buf).map(|_| ()));
        assert!(sent.take(1_000).count() < 1_000, "it never ends");
    };
    let mut now = start;
    while now < start + Duration::from_secs(20) {
        poll(&mut swim);
        now = swim.poll_timeout().unwrap().max(now);
        swim.handle_timeout(now);
    }
    let why = swim.why(held);
    assert_eq!(swim.stats().held_out, 1, "{why:?}");
    poll(&mut swim);
    for (id, _) in &members {
        tell(&mut swim, now, *id, &frame(BUCKETS, &[0xff; 256]));
        let (mut listed, mut buf) = (Vec::new(), [0; MIN_DATAGRAM]);
        for _ in 0..1_000 {
            let Some(sent) = swim.poll_transmit(&mut buf) else { break };
            let sent = Sent { at: now, to: sent.to, bytes: sent.payload.to_vec() };
            listed.extend(sent.frames(LISTED).into_iter().map(<[u8]>::to_vec));
        }
        for list in listed.iter().filter(|list| list.len() > 13) {
            tell(&mut swim, now, *id, &frame(WANTED, &[&list[..5], &list[13..]].concat()));
        }
        for (about, _) in &members {
            let mut old = [&[SUSPECT][..], &about.0.to_le_bytes(), &1_u64.to_le_bytes()].concat();
            old.extend([varint(1), vec![1]].concat());
            old.extend(id.0.to_le_bytes());
            tell(&mut swim, now, *id, &frame(UPDATES, &old));
        }
        poll(&mut swim);
    }
}
