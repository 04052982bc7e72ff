//! Full syncs to the letter, on both sides, with every peer played by the test.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use brickwork_core::map::{Config, Map, ReplicaId};
use brickwork_core::{Event, Instant, NodeId};
use common::bare::{frame, packet, varint};
use common::frame_of;
use common::maps::{NOW, addr, drain};

const PULL: u8 = 0xa1;
const STATE: u8 = 0xa2;
const FETCH: u8 = 0xa4;
const STAGE: u8 = 0xa5;
const GONE: u8 = 0xa6;

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

fn tell(map: &mut Map, now: Instant, from: u64, frames: &[u8]) {
    let mut bytes = packet("test", NodeId(from), 1, frames);
    map.handle_packet(now, addr(from), &mut bytes).unwrap();
}

/// The bodies of the frames of this tag that the map sends to this peer now.
fn sent(map: &mut Map, tag: u8, to: u64) -> Vec<Vec<u8>> {
    let sent = drain(map).into_iter().filter(|(peer, _)| *peer == to);
    sent.filter_map(|(_, bytes)| frame_of(&bytes, tag).map(<[u8]>::to_vec)).collect()
}

/// Reads the parts of a frame one by one.
struct Parts<'b>(&'b [u8]);

impl Parts<'_> {
    fn varint(&mut self) -> u64 {
        let value = common::bare::read_varint(self.0);
        self.0 = &self.0[varint(value).len()..];
        value
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        *head
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

/// The head of a STAGE frame, but for the addressee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    session: u64,
    nonce: u64,
    contexts: u64,
    total: u64,
    first: u64,
    covered: u32,
    last: bool,
}

impl Head {
    fn read(body: &[u8]) -> Self {
        let mut parts = Parts(body);
        parts.u64();
        Self {
            session: parts.u64(),
            nonce: parts.varint(),
            contexts: parts.varint(),
            total: parts.varint(),
            first: parts.varint(),
            covered: u32::from_le_bytes(parts.bytes()),
            last: parts.bytes() == [1],
        }
    }

    /// A STAGE frame to boot 1 of node `to` with these units.
    fn frame(self, to: u64, units: &[u8]) -> Vec<u8> {
        let mut body = addressee(to, 1, 1).to_le_bytes().to_vec();
        body.extend(self.session.to_le_bytes());
        let numbers = [self.nonce, self.contexts, self.total, self.first];
        numbers.into_iter().for_each(|number| body.extend(varint(number)));
        body.extend(self.covered.to_le_bytes());
        body.push(u8::from(self.last));
        frame(STAGE, &[&body, units].concat())
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whom frames about missing data are meant for: a published hash.
fn addressee(node: u64, boot: u64, epoch: u64) -> u64 {
    let mix2 = |a: u64, b: u64| mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b);
    mix2(mix2(node, boot), epoch)
}

fn fetch(session: u64, budget: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let (mut body, mut end) = ([session.to_le_bytes().to_vec(), varint(budget)].concat(), 0);
    for &(from, to) in ranges {
        body.extend([varint(from - end), varint(to - from)].concat());
        end = to;
    }
    frame(FETCH, &body)
}

/// The session and the ranges of a FETCH.
fn asked(body: &[u8]) -> (u64, Vec<(u64, u64)>) {
    let mut parts = Parts(body);
    let (session, _) = (parts.u64(), parts.varint());
    let (mut ranges, mut end) = (Vec::new(), 0);
    while !parts.0.is_empty() {
        let from = end + parts.varint();
        end = from + parts.varint();
        ranges.push((from, end));
    }
    (session, ranges)
}

fn numbered(number: u64) -> Vec<u8> {
    [addressee(1, 1, 1).to_le_bytes(), number.to_le_bytes()].concat()
}

fn map(id: u64, config: &Config) -> Map {
    Map::new(NOW, ReplicaId::new(NodeId(id), 1), "test", config.clone(), 1400, [7; 32]).unwrap()
}

// The side that gives.

const KEYS: u64 = 300;

/// A map of 300 keys that cannot tell what happened to them one by one any more, with these peers.
fn giver(id: u64, config: &Config, peers: impl IntoIterator<Item = u64>) -> Map {
    let mut map = map(id, config);
    for key in 0..KEYS {
        map.insert(NOW, format!("key-{key:03}").as_bytes(), &[7; 20]).unwrap();
    }
    let mut now = NOW;
    while map.metadata() != (0, 0) {
        now += Duration::from_millis(100);
        map.handle_timeout(now);
    }
    peers.into_iter().for_each(|peer| map.peer_up(NOW, NodeId(peer), 1, addr(peer)));
    drain(&mut map);
    map
}

/// The wish of a peer that has nothing for all that there is.
fn pull(nonce: u64, budget: u64) -> Vec<u8> {
    frame(PULL, &[varint(nonce), varint(budget), 1_u64.to_le_bytes().to_vec(), vec![0]].concat())
}

fn given(map: &mut Map, to: u64) -> Vec<Head> {
    sent(map, STAGE, to).iter().map(|body| Head::read(body)).collect()
}

/// Goal: a peer is given all units in order, and of what it asks for again just that. Method: a pull, and requests
/// for ranges within, across and beyond the end.
#[test]
fn units_are_given_as_they_are_asked_for() {
    let mut map = giver(1, &Config::lan(), [2, 3]);
    tell(&mut map, NOW, 2, &pull(77, 1 << 20));
    let heads = given(&mut map, 2);
    let mut next = 0;
    for head in &heads {
        let end = head.first + u64::from(head.covered);
        assert_eq!((head.nonce, head.contexts, head.total, head.first), (77, 1, KEYS + 1, next));
        assert_eq!((head.session, head.last), (heads[0].session, end == KEYS + 1));
        next = end;
    }
    assert_eq!(next, KEYS + 1);
    tell(&mut map, NOW, 2, &pull(77, 1 << 20));
    assert_eq!(given(&mut map, 2), [], "a second copy of the same question");

    let session = heads[0].session;
    for (ranges, covered) in [
        (vec![(0, 1)], vec![(0, 1)]),
        (vec![(3, 5), (10, 12), (299, 301)], vec![(3, 2), (10, 2), (299, 2)]),
        (vec![(300, 400)], vec![(300, 1)]),
        (vec![(4, 5), (301, 400)], vec![(4, 1)]),
    ] {
        tell(&mut map, NOW, 2, &fetch(session, 1 << 20, &ranges));
        let heads = given(&mut map, 2);
        let found: Vec<_> = heads.iter().map(|head| (head.first, head.covered)).collect();
        assert_eq!(found, covered);
        let last: Vec<_> = heads.iter().map(|head| head.last).collect();
        assert_eq!(last.iter().filter(|last| **last).count(), 1);
        assert!(heads.last().unwrap().last && heads.iter().all(|head| head.nonce == 0));
    }
    tell(&mut map, NOW, 3, &fetch(session, 1 << 20, &[(0, 1)]));
    assert_eq!(sent(&mut map, GONE, 3).len(), 1, "it is somebody else's");
    tell(&mut map, NOW, 2, &fetch(session, 1 << 20, &[(301, 400)]));
    assert_eq!(given(&mut map, 2), []);
    tell(&mut map, NOW, 2, &fetch(session, 1 << 20, &[(0, 1)]));
    let gone = sent(&mut map, GONE, 2);
    assert_eq!(gone.len(), 1, "it was over when nothing more was asked for");
    assert_eq!(gone[0][8..], session.to_le_bytes());
    tell(&mut map, NOW, 2, &fetch(session, 1 << 20, &[]));
    assert!(drain(&mut map).is_empty(), "they agree that it is over");
}

/// Goal: an answer ends where the peer's budget does, or this map's own. Method: budgets around the sizes of frames.
#[test]
fn an_answer_ends_with_the_budget() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 1 << 20));
    let mut spent = 0;
    for (n, body) in (1..4).zip(sent(&mut map, STAGE, 2)) {
        // With a tag and a length of two bytes, and a few bytes less where no number is echoed.
        spent += body.len() as u64 + 3;
        for (budget, frames) in [(spent - 20, n), (spent + 20, n + 1)] {
            let mut map = giver(1, &Config::lan(), [2]);
            tell(&mut map, NOW, 2, &pull(1, budget));
            let first = given(&mut map, 2);
            tell(&mut map, NOW, 2, &fetch(first[0].session, budget, &[(0, KEYS + 1)]));
            for heads in [first, given(&mut map, 2)] {
                assert_eq!(heads.len(), frames, "with a budget of {budget}");
                let last: Vec<_> = heads.iter().map(|head| head.last).collect();
                assert!(last[frames - 1] && !last[..frames - 1].contains(&true));
            }
        }
    }
    let mut small = Config::lan();
    small.pull_budget = 3000;
    let mut narrow = giver(1, &small, [2]);
    tell(&mut narrow, NOW, 2, &pull(5, 1 << 20));
    let heads = given(&mut narrow, 2);
    assert_eq!((heads.len(), heads[2].last), (3, true));
    tell(&mut narrow, NOW, 2, &fetch(heads[0].session, 1 << 20, &[(0, KEYS + 1)]));
    assert_eq!(given(&mut narrow, 2).len(), 3);
}

/// Goal: a peer that is silent for thirty seconds is given up. Method: it asks as late as possible, twice, and once
/// too late.
#[test]
fn a_session_lasts_while_its_peer_speaks() {
    let mut map = giver(1, &Config::lan(), [2]);
    tell(&mut map, NOW, 2, &pull(1, 1 << 20));
    let session = given(&mut map, 2)[0].session;
    let mut now = NOW;
    for (silence, there) in
        [(SECOND * 30 - NANO, true), (SECOND * 30 - NANO, true), (SECOND * 30, false)]
    {
        now += silence;
        map.handle_timeout(now);
        drain(&mut map);
        tell(&mut map, now, 2, &fetch(session, 1000, &[(0, 1)]));
        let frames = drain(&mut map);
        let has = |tag| frames.iter().any(|(_, bytes)| frame_of(bytes, tag).is_some());
        assert_eq!((has(STAGE), has(GONE)), (there, !there));
    }
}

/// Goal: so many peers are served at a time, and others are sent away until one is done; who is served may begin anew.
/// Method: ten peers.
#[test]
fn so_many_peers_are_served_at_a_time() {
    let mut map = giver(1, &Config::lan(), 2..=11);
    let mut sessions = Vec::new();
    for peer in 2..=9 {
        tell(&mut map, NOW, peer, &pull(peer, 2000));
        sessions.push(given(&mut map, peer)[0].session);
    }
    for peer in 10..=11 {
        tell(&mut map, NOW, peer, &pull(peer, 2000));
    }
    let gone = drain(&mut map);
    for peer in 10..=11_u64 {
        let told = gone
            .iter()
            .filter(|(to, _)| *to == peer)
            .filter_map(|(_, bytes)| frame_of(bytes, GONE));
        let expected = [addressee(peer, 1, 1).to_le_bytes(), peer.to_le_bytes()].concat();
        assert_eq!(told.collect::<Vec<_>>(), [&expected[..]]);
    }
    assert!(gone.iter().all(|(_, bytes)| frame_of(bytes, STAGE).is_none()));
    tell(&mut map, NOW, 3, &pull(99, 2000));
    let again = given(&mut map, 3);
    assert!(again[0].session != sessions[1] && again[0].nonce == 99);
    tell(&mut map, NOW, 4, &fetch(sessions[2], 2000, &[]));
    tell(&mut map, NOW, 10, &pull(12, 2000));
    assert!(!given(&mut map, 10).is_empty());
    tell(&mut map, NOW, 5, &fetch(sessions[3], 2000, &[(7, 8)]));
    let heads = given(&mut map, 5);
    assert_eq!((heads.len(), heads[0].first), (1, 7), "the others go on");
}

/// Goal: who is sent away hears of it, whoever else goes meanwhile, and nobody else does. Method: two are sent away,
/// one of them goes, and another one takes its place.
#[test]
fn a_refusal_is_for_whom_it_was() {
    for goes in [10, 11] {
        let mut map = giver(1, &Config::lan(), 2..=11);
        (2..=11).for_each(|peer| tell(&mut map, NOW, peer, &pull(peer, 2000)));
        map.peer_down(NOW, NodeId(goes));
        map.peer_up(NOW, NodeId(12), 1, addr(12));
        let sent = drain(&mut map);
        let told = sent.iter().filter(|(_, bytes)| frame_of(bytes, GONE).is_some());
        assert_eq!(told.map(|(to, _)| *to).collect::<Vec<_>>(), [21 - goes]);
    }
}

// The side that takes.

const SESSION: u64 = 0x55;

/// A map that has heard from its peer 2 that there is more, and what it asked with.
fn taker(id: u64, config: &Config) -> (Map, u64) {
    let mut map = map(id, config);
    map.peer_up(NOW, NodeId(2), 1, addr(2));
    map.peer_up(NOW, NodeId(3), 1, addr(3));
    drain(&mut map);
    let nonce = hear(&mut map);
    (map, nonce)
}

/// Peer 2 tells a digest that differs. Returns the number of the pull that follows.
fn hear(map: &mut Map) -> u64 {
    tell(map, NOW, 2, &frame(STATE, &[9; 16]));
    Parts(&sent(map, PULL, 2)[0]).varint()
}

/// The unit of the writes of life 1 of a node: all up to the base, and a run after it.
fn context(node: u64, base: u64, run: Option<(u64, u64)>) -> Vec<u8> {
    let mut unit = [&[0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [base, 0, base].into_iter().for_each(|number| unit.extend(varint(number)));
    unit.push(u8::from(run.is_some()));
    if let Some((from, to)) = run {
        unit.extend([varint(from - base - 2), varint(to - from)].concat());
    }
    unit
}

/// The unit of a lone value that life 1 of a node wrote under `key`.
fn lone(node: u64, counter: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| varint(bytes.len() as u64);
    let replica = [&[0, 0, 0][..], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [replica, varint(counter), len(key), key.to_vec(), len(value), value.to_vec()].concat()
}

/// The unit of a key whose values are gone, with the last write of life 1 of a node.
fn removed(node: u64, counter: u64, key: &[u8]) -> Vec<u8> {
    let len = varint(key.len() as u64);
    let head =
        [&[0, 1][..], &len, key, &[0, 1, 0], &node.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    [head, varint(counter)].concat()
}

/// Five keys that node 2 wrote, as unit 1 to 5.
fn key(at: u64) -> Vec<u8> {
    lone(2, at, format!("key-{at}").as_bytes(), b"value")
}

const ALL: Head =
    Head { session: SESSION, nonce: 0, contexts: 1, total: 6, first: 0, covered: 1, last: false };

fn part(first: u64, units: &[Vec<u8>], last: bool) -> Vec<u8> {
    let covered = u32::try_from(units.len()).unwrap();
    Head { first, covered, last, ..ALL }.frame(1, &units.concat())
}

/// All of it in one frame.
fn whole(to: u64, nonce: u64, units: &[Vec<u8>]) -> Vec<u8> {
    let (covered, total) = (u32::try_from(units.len()).unwrap(), units.len() as u64);
    Head { nonce, covered, total, last: true, ..ALL }.frame(to, &units.concat())
}

/// Goal: what was lost of a full sync is asked for, and nothing else. Method: frames out of order, twice, and not at
/// all.
#[test]
fn missing_units_are_asked_for() {
    let (mut map, nonce) = taker(1, &Config::lan());
    let head = Head { nonce, ..ALL };
    tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
    for _ in 0..2 {
        tell(&mut map, NOW, 2, &part(3, &[key(3)], false));
    }
    assert_eq!(sent(&mut map, FETCH, 2).len(), 0, "there may be more under way");
    tell(&mut map, NOW, 2, &part(5, &[key(5)], true));
    let fetches = sent(&mut map, FETCH, 2);
    assert_eq!(asked(&fetches[0]), (SESSION, vec![(1, 3), (4, 5)]));
    assert_eq!(map.len(), 0, "all at once, or nothing");
    tell(&mut map, NOW, 2, &part(4, &[key(4)], true));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![(1, 3)]));
    assert_eq!(map.stats().full_syncs, 0);
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2)], true));
    assert_eq!((map.len(), map.stats().full_syncs), (5, 1));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "it is over");
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2)], true));
    assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "as was said before");
}

/// Goal: a giver that falls silent is asked five times, less and less often, and then given up. Method: the first part,
/// and nothing more; or one part more in the middle, after which it begins anew.
#[test]
fn a_silent_giver_is_asked_for_a_while() {
    for progress in [false, true] {
        let (mut map, nonce) = taker(1, &Config::lan());
        let head = Head { nonce, ..ALL };
        tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
        let (mut now, mut start, mut more) = (NOW, NOW, progress);
        let mut times = Vec::new();
        while times.len() < 6 {
            now = map.poll_timeout().unwrap();
            map.handle_timeout(now);
            for body in sent(&mut map, FETCH, 2) {
                let over = asked(&body).1.is_empty();
                times.push((now - start).as_millis());
                assert_eq!(over, times.len() == 6);
            }
            if more && times.len() == 3 {
                tell(&mut map, now, 2, &part(3, &[key(3)], false));
                tell(&mut map, now, 2, &part(3, &[key(3)], false));
                (start, more) = (now, false);
                times.clear();
            }
        }
        assert_eq!(times, [300, 900, 2100, 4500, 9300, 18_900]);
        tell(&mut map, now, 2, &part(1, &[key(1)], false));
        assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "nobody waits for it");
    }
}

/// Goal: a full sync is taken as long as what is new of it fits, to the last byte and key. Method: five keys of ten
/// bytes, of which one is here already, and limits at which they just fit, and do not.
#[test]
fn a_full_sync_is_refused_if_it_does_not_fit() {
    let units: Vec<_> = [context(2, 5, None)].into_iter().chain((1..=5).map(key)).collect();
    for own in [false, true] {
        for (keys, bytes, fits) in [(5, 50, true), (4, 50, false), (5, 49, false), (6, 60, true)] {
            let mut config = Config::lan();
            (config.max_keys, config.max_bytes) = (keys, bytes);
            let mut map = map(1, &config);
            map.peer_up(NOW, NodeId(2), 1, addr(2));
            if own {
                map.insert(NOW, b"key-4", b"mines").unwrap();
            }
            drain(&mut map);
            let nonce = hear(&mut map);
            tell(&mut map, NOW, 2, &whole(1, nonce, &units));
            assert_eq!(map.len(), if fits { 5 } else { usize::from(own) }, "{own} {keys} {bytes}");
            let stats = map.stats();
            assert_eq!(
                (stats.full_syncs, stats.chunks_refused),
                if fits { (1, 0) } else { (0, 1) }
            );
            let full =
                std::iter::from_fn(|| map.poll_event()).filter(|event| *event == Event::Full);
            assert_eq!(full.count(), usize::from(!fits));
            assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (SESSION, vec![]), "it is over");
        }
    }
}

/// Goal: so many writes ahead of a gap are taken of a replica, as everywhere. Method: runs of so many, and one more.
#[test]
fn a_context_with_too_much_ahead_of_a_gap_is_refused() {
    let mut config = Config::lan();
    config.max_gap_dots = 10;
    for (base, from, to, fits) in
        [(0, 3, 12, true), (0, 3, 13, false), (7, 20, 29, true), (7, 20, 30, false)]
    {
        let (mut map, nonce) = taker(1, &config);
        tell(&mut map, NOW, 2, &whole(1, nonce, &[context(2, base, Some((from, to)))]));
        assert_eq!(map.stats().full_syncs, u64::from(fits), "{from} to {to}");
        let dot = |counter| brickwork_core::map::Dot::new(ReplicaId::new(NodeId(2), 1), counter);
        let known: Vec<_> = (1..40).filter(|counter| map.reflects(dot(*counter))).collect();
        let expected: Vec<_> = (1..=base).chain(from..=to).filter(|_| fits).collect();
        assert_eq!(known, expected);
    }
}

/// Goal: nobody tells a replica of writes of its own that it never made. Method: the last one that it made, and the
/// next, in each place where a write can be named; of others it may be any.
#[test]
fn a_full_sync_with_forged_writes_is_refused() {
    let unit = |kind: usize, node, counter| match kind {
        0 => vec![context(node, counter, None)],
        1 => vec![context(node, 0, Some((counter, counter)))],
        2 => vec![context(2, 5, None), lone(node, counter, b"new", b"value")],
        _ => vec![context(2, 5, None), removed(node, counter, b"new")],
    };
    for kind in 0..4 {
        for (node, counter, forged) in [(1, 3, false), (1, 4, true), (1, 9, true), (2, 9, false)] {
            let mut map = map(1, &Config::lan());
            map.peer_up(NOW, NodeId(2), 1, addr(2));
            for key in 0..3_u8 {
                map.insert(NOW, &[key], b"mine").unwrap();
            }
            drain(&mut map);
            let nonce = hear(&mut map);
            tell(&mut map, NOW, 2, &whole(1, nonce, &unit(kind, node, counter)));
            let stats = map.stats();
            assert_eq!(stats.chunks_forged, u64::from(forged), "{kind}: {counter} of {node}");
            assert_eq!(stats.full_syncs, u64::from(!forged));
            assert!(!forged || map.len() == 3);
        }
    }
}

/// Goal: parts that were meant for another life or session are told apart. Method: one of each, amid a full sync that
/// goes on.
#[test]
fn parts_of_something_else_do_no_harm() {
    let (mut map, nonce) = taker(1, &Config::lan());
    let head = Head { nonce, ..ALL };
    tell(&mut map, NOW, 2, &head.frame(1, &context(2, 5, None)));
    tell(&mut map, NOW, 2, &Head { first: 1, ..ALL }.frame(7, &key(1)));
    assert_eq!(map.stats().misaddressed, 1);
    assert_eq!(sent(&mut map, FETCH, 2).len(), 0);
    let others = [Head { session: 8, first: 1, ..ALL }, Head { total: 7, first: 1, ..ALL }];
    for other in others {
        tell(&mut map, NOW, 2, &other.frame(1, &key(1)));
        assert_eq!(asked(&sent(&mut map, FETCH, 2)[0]), (other.session, vec![]));
    }
    tell(&mut map, NOW, 3, &Head { first: 1, ..ALL }.frame(1, &key(1)));
    assert_eq!(asked(&sent(&mut map, FETCH, 3)[0]), (SESSION, vec![]), "of another peer");
    for (at, misaddressed) in [(9, 1), (SESSION, 2)] {
        let wrong = [addressee(7, 1, 1).to_le_bytes(), SESSION.to_le_bytes()].concat();
        let body = if misaddressed == 2 { wrong } else { numbered(at) };
        tell(&mut map, NOW, 2, &frame(GONE, &body));
        assert_eq!(map.stats().misaddressed, misaddressed);
    }
    tell(&mut map, NOW, 3, &frame(GONE, &numbered(SESSION)));
    tell(&mut map, NOW, 2, &part(1, &[key(1), key(2), key(3), key(4), key(5)], true));
    assert_eq!((map.len(), map.stats().full_syncs), (5, 1), "nothing of all that ended it");
}

/// Goal: who gives no full sync, or none any more, is not waited for, and somebody else is asked. Method: it says so to
/// the pull, or in the middle.
#[test]
fn another_peer_is_asked_when_there_is_no_full_sync() {
    for amid in [false, true] {
        let (mut map, nonce) = taker(1, &Config::lan());
        tell(&mut map, NOW, 3, &frame(STATE, &[9; 16]));
        if amid {
            tell(&mut map, NOW, 2, &Head { nonce, ..ALL }.frame(1, &context(2, 5, None)));
        }
        let number = if amid { SESSION } else { nonce };
        tell(&mut map, NOW, 2, &frame(GONE, &numbered(number)));
        let (now, pulls) = loop {
            let now = map.poll_timeout().unwrap();
            map.handle_timeout(now);
            let sent = drain(&mut map).into_iter();
            let pulls = sent.filter(|(_, bytes)| frame_of(bytes, PULL).is_some()).count();
            if pulls > 0 {
                break (now, pulls);
            }
        };
        assert_eq!(pulls, 1);
        assert_eq!((now - NOW).as_millis(), 150, "the pull interval");
        assert_eq!(map.stats().pulls_timed_out, 0);
    }
}

/// Goal: of two that need each other's maps the one with the lower id gives; others are sent away by who takes.
/// Method: a giver that takes itself, from a peer with a higher or a lower id, is asked by it and by another.
#[test]
fn of_two_that_take_the_lower_gives() {
    for (own, asks, gives) in [(1, 2, true), (5, 2, false), (1, 3, false), (5, 3, false)] {
        let mut map = giver(own, &Config::lan(), [2, 3]);
        let nonce = hear(&mut map);
        let head = Head { nonce, ..ALL };
        tell(&mut map, NOW, 2, &head.frame(own, &context(2, 5, None)));
        drain(&mut map);
        tell(&mut map, NOW, asks, &pull(4, 2000));
        let frames = drain(&mut map);
        let has = |tag| frames.iter().any(|(_, bytes)| frame_of(bytes, tag).is_some());
        assert_eq!((has(STAGE), has(GONE)), (gives, !gives), "{own} is asked by {asks}");
    }
}
