//! What a peer tells of this replica's own writes: taken as far as it wrote them, refused beyond.

#![allow(clippy::unwrap_used)]

use crate::common::{
    self,
    maps::{NOW, deliver, drain, replica, settle},
};
use crate::common::{addr, frame_of};
use brickwork_core::map::Map;
use brickwork_core::{Event, NodeId, PacketError};
use proptest::prelude::*;

const CHUNK: u8 = 0xa3;
const HAVE: u8 = 0xa7;

const OWN: u8 = 1;
const BARE: u8 = 2;
const FULL: u8 = 3;
const KEY: u8 = 4;

/// How many writes the replica under test has made.
const WRITTEN: u8 = 3;

/// Replica 1 after three writes, in step with its peer 2, and the addressee of chunks to it.
fn victim() -> (Vec<Map>, [u8; 8]) {
    let mut maps = vec![replica(1, &[2]), replica(2, &[1])];
    for key in 0..WRITTEN {
        maps[0].insert(NOW, &[b'a' + key], b"mine").unwrap();
    }
    let now = settle(&mut maps, NOW);
    maps[1].insert(now, b"theirs", b"v").unwrap();
    let sent = drain(&mut maps[1]);
    let addressee = sent.iter().find_map(|(_, bytes)| frame_of(bytes, CHUNK)).unwrap();
    let addressee = addressee[..8].try_into().unwrap();
    for (_, bytes) in sent {
        deliver(&mut maps[0], now, 2, &bytes);
    }
    settle(&mut maps, now);
    while maps[0].poll_event().is_some() {}
    (maps, addressee)
}

/// A replica that a chunk introduces: life `epoch` of `node`.
fn new(node: u64, epoch: u64) -> Vec<u8> {
    [&[0][..], &node.to_le_bytes(), &epoch.to_le_bytes()].concat()
}

/// A replica that the chunk introduced before.
fn known(number: u8) -> Vec<u8> {
    vec![number + 1]
}

/// A run of dots from `first` on, one per item.
fn run(replica: Vec<u8>, first: u8, items: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(items.len()).unwrap();
    [replica, vec![first, count], items.concat()].concat()
}

/// An item with a value.
fn valued(kind: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    [&[kind, len(key)], key, &[len(value)], value].concat()
}

/// A full item: siblings as (replica, counter), all with the value "x", and superseded dots.
fn full(key: &[u8], siblings: &[(Vec<u8>, u8)], superseded: &[(Vec<u8>, u8)]) -> Vec<u8> {
    let mut item = [&[FULL, u8::try_from(key.len()).unwrap()], key].concat();
    item.push(u8::try_from(siblings.len()).unwrap());
    for (replica, counter) in siblings {
        item.extend([&replica[..], &[*counter, 1, b'x']].concat());
    }
    item.push(u8::try_from(superseded.len()).unwrap());
    for (replica, counter) in superseded {
        item.extend([&replica[..], &[*counter]].concat());
    }
    item
}

/// A datagram of node 2 with one pushed chunk of these runs.
fn chunk(addressee: [u8; 8], runs: &[u8]) -> Vec<u8> {
    datagram(CHUNK, &[&addressee[..], &[0, 0], runs].concat())
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number % 0x80) as u8 | 0x80);
        number /= 0x80;
    }
    bytes.push(number as u8);
    bytes
}

/// A datagram of node 2 with one frame.
fn datagram(frame: u8, body: &[u8]) -> Vec<u8> {
    datagram_of(frame, [body.to_vec()])
}

/// The same with several.
fn datagram_of(frame: u8, bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let tag = xxhash_rust::xxh3::xxh3_64(b"test").to_le_bytes();
    let mut bytes = [&[0xb7, 1, 0, 0], &tag[..4]].concat();
    bytes.extend([2_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
    for body in bodies {
        bytes.push(frame);
        bytes.extend(varint(body.len()));
        bytes.extend(body);
    }
    let crc = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend(crc);
    bytes
}

/// All that can be seen of a replica.
fn picture(map: &Map) -> impl PartialEq + std::fmt::Debug + use<> {
    let entries: Vec<_> = map.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    (map.digest(), map.len(), entries)
}

/// Goal: no form in which a chunk can name a dot gets one past the replica that would have written it.
/// Method: hand-made chunks, each with one dot of the present life beyond its last write; the replica is
/// untouched, counts each, and goes on.
#[test]
fn own_dots_that_were_never_written_are_refused_whole() {
    let (me, next) = (|| new(1, 1), WRITTEN + 1);
    let theirs = || valued(OWN, b"good", b"v");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("own", run(me(), next, &[valued(OWN, b"a", b"forged")])),
        ("bare", run(me(), next, &[valued(BARE, b"new", b"forged")])),
        ("far ahead", run(me(), 100, &[valued(OWN, b"a", b"forged")])),
        ("key", run(me(), next, &[vec![KEY, 1, b'a']])),
        (
            "across the last write",
            run(me(), WRITTEN, &[valued(OWN, b"c", b"mine"), valued(OWN, b"c", b"forged")]),
        ),
        (
            "ref to an object of the same chunk",
            [run(new(2, 1), 2, &[theirs()]), run(me(), next, &[vec![0, 0]])].concat(),
        ),
        (
            "by number",
            [
                run(me(), 1, &[vec![KEY, 1, b'a']]),
                run(known(0), next, &[valued(OWN, b"a", b"forged")]),
            ]
            .concat(),
        ),
        ("sibling", run(new(2, 1), 2, &[full(b"k", &[(me(), next)], &[])])),
        ("superseded", run(new(2, 1), 2, &[full(b"a", &[], &[(me(), next)])])),
        (
            "superseded by number",
            run(new(2, 1), 2, &[full(b"a", &[(me(), 1)], &[(known(0), 1), (known(1), next)])]),
        ),
        (
            "after good items",
            [run(new(2, 1), 2, &[theirs()]), run(me(), next, &[valued(OWN, b"a", b"x")])].concat(),
        ),
    ];
    let (mut maps, addressee) = victim();
    let before = picture(&maps[0]);
    for (count, (form, runs)) in cases.iter().enumerate() {
        deliver(&mut maps[0], NOW, 2, &chunk(addressee, runs));
        assert_eq!(maps[0].stats().chunks_forged, count as u64 + 1, "{form}");
        assert_eq!(picture(&maps[0]), before, "{form}");
        assert_eq!(maps[0].poll_event(), None, "{form}");
    }
    // The dots that were claimed are still free, and an honest chunk is taken.
    let dot = maps[0].insert(NOW, b"a", b"next").unwrap();
    assert_eq!((dot.replica.node, dot.counter), (NodeId(1), u64::from(next)));
    deliver(&mut maps[0], NOW, 2, &chunk(addressee, &run(new(2, 1), 2, &[theirs()])));
    assert_eq!(maps[0].get(b"good"), Some(&b"v"[..]));
    let misses = std::iter::from_fn(|| maps[0].poll_event());
    assert_eq!(misses.filter(|event| matches!(event, Event::Changed { .. })).count(), 2);
}

/// Goal: only the present life is protected: writes of an earlier one can come from nobody but the peers.
/// Method: chunks that name dots this replica wrote, and dots of the life before.
#[test]
fn own_dots_that_were_written_and_those_of_an_earlier_life_are_taken() {
    let (mut maps, addressee) = victim();
    let echo = run(new(1, 1), 1, &[valued(OWN, b"a", b"mine")]);
    let before = picture(&maps[0]);
    deliver(&mut maps[0], NOW, 2, &chunk(addressee, &echo));
    assert_eq!((maps[0].stats().chunks_forged, picture(&maps[0])), (0, before));
    let earlier = run(new(1, 0), 9, &[valued(OWN, b"old", b"v")]);
    deliver(&mut maps[0], NOW, 2, &chunk(addressee, &earlier));
    assert_eq!(maps[0].stats().chunks_forged, 0);
    assert_eq!(maps[0].get(b"old"), Some(&b"v"[..]));
}

/// Goal: a key that no configuration allows is refused as a datagram, and one that some allow is taken.
#[test]
fn keys_are_as_long_as_some_configuration_allows() {
    for (len, taken) in [(3_999, true), (4_000, true), (4_001, false), (40_000, false)] {
        let (mut maps, addressee) = victim();
        let key = vec![b'k'; len];
        let item = [&[OWN][..], &varint(len), &key, &[1, b'v']].concat();
        let mut bytes = chunk(addressee, &run(new(2, 1), 2, &[item]));
        let heard = maps[0].handle_packet(NOW, addr(2), &mut bytes);
        assert_eq!(heard.err(), (!taken).then_some(PacketError::LimitExceeded), "{len}");
        assert_eq!(maps[0].get(&key), taken.then_some(&b"v"[..]), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever dot of whatever life of this node a chunk claims: it is refused exactly if it is of the
    /// present life and beyond the last write, and it never takes a number from the writes to come.
    #[test]
    fn a_claim_is_refused_exactly_beyond_the_last_write(epoch in 0..3_u64, counter in 1..8_u8, kind in prop_oneof![Just(OWN), Just(BARE)]) {
        let (mut maps, addressee) = victim();
        let runs = run(new(1, epoch), counter, &[valued(kind, b"k", b"v")]);
        deliver(&mut maps[0], NOW, 2, &chunk(addressee, &runs));
        let forged = epoch == 1 && counter > WRITTEN;
        prop_assert_eq!(maps[0].stats().chunks_forged, u64::from(forged));
        let dot = maps[0].insert(NOW, b"next", b"v").unwrap();
        prop_assert_eq!(dot.counter, u64::from(WRITTEN) + 1);
        prop_assert_eq!(maps[0].get(b"next"), Some(&b"v"[..]));
    }
}

proptest! {
    /// Goal: whatever a peer claims to have is its own loss. Method: bases beyond all that was written, of replicas
    /// that nobody knows, or more of them than there are; what is here stays, and a third replica is still told
    /// everything.
    #[test]
    fn bases_that_a_peer_makes_up_change_nothing_here(
        right_names: bool, first in 0..4_u8, bases in proptest::collection::vec(1..120_u8, 0..6),
    ) {
        let (mut maps, _) = victim();
        let mut now = NOW;
        // What it tells by itself names the replicas.
        let names = loop {
            maps[1].insert(now, b"theirs", b"v").unwrap();
            let sent = drain(&mut maps[1]);
            let told = sent.iter().find_map(|(_, bytes)| frame_of(bytes, HAVE));
            let names = told.map(|body| <[u8; 8]>::try_from(&body[..8]).unwrap());
            sent.iter().for_each(|(_, bytes)| deliver(&mut maps[0], now, 2, bytes));
            drain(&mut maps[0]);
            if let Some(names) = names { break names; }
        };
        now = settle(&mut maps, now);
        let before = picture(&maps[0]);
        let names = if right_names { names } else { [9; 8] };
        let body = [&names[..], &[first], &bases].concat();
        deliver(&mut maps[0], now, 2, &datagram(HAVE, &body));
        prop_assert_eq!(picture(&maps[0]), before);
        maps.remove(1);
        maps[0].peer_down(now, NodeId(2));
        maps[0].peer_up(now, NodeId(3), 1, common::maps::addr(3));
        maps.push(replica(3, &[1]));
        maps[0].insert(now, b"later", b"v").unwrap();
        for _ in 0..3 {
            now = settle(&mut maps, now);
        }
        prop_assert_eq!(maps[0].digest(), maps[1].digest());
        prop_assert_eq!(maps[1].get(b"later"), Some(&b"v"[..]));
    }
}

/// A limit that no answer could set is not believed, in a pull neither: what lies up to it is not looked through.
#[test]
fn a_limit_that_is_too_far_is_not_believed() {
    let (mut maps, addressee) = victim();
    let before = maps[0].digest();
    let span = |len: usize, limit: usize| [vec![1, 0], varint(len), varint(limit)].concat();
    for (len, limit) in [(0, 1 << 19), (4, 1 << 40)] {
        let told = [new(9, 1), span(len, limit)].concat();
        deliver(&mut maps[0], NOW, 2, &chunk(addressee, &told));
        assert_eq!((maps[0].digest(), maps[0].stats().dots_overwritten), (before, 0));
    }
    // One that it could set is waited for, and what does not come is not claimed.
    let told = [new(9, 1), span(4, 1)].concat();
    deliver(&mut maps[0], NOW, 2, &chunk(addressee, &told));
    assert_eq!((maps[0].digest(), maps[0].stats().dots_overwritten), (before, 0));
    let told = [new(9, 1), vec![6, 2, 2, 1, 7, 0, 2, 1, 8, 0]].concat();
    deliver(&mut maps[0], NOW, 2, &chunk(addressee, &told));
    assert_eq!(maps[0].stats().dots_overwritten, 5);
    let chunks: Vec<_> = maps[0].snapshot().collect();
    let mut again = replica(1, &[]);
    assert_eq!(again.restore(NOW, &chunks), Ok(()), "it can be told to the disk");
}

/// Goal: what a datagram of a few bytes has a node do is bounded, and what it leaves is done later.
/// Method: one that tells of eight windows, each as long as may be and complete where the next begins, in one chunk or in eight.
#[test]
fn windows_that_follow_each_other_are_taken_in_a_few_at_a_time() {
    let longest: usize = (1 << 19) - 2;
    let window = |of: Vec<u8>, number: usize| {
        let from = 1 + number * (longest + 2);
        let span = [of, varint(from), vec![0], varint(longest), varint(0)].concat();
        [span, known(0), varint(from + longest + 1), vec![1, 2, 1, 7, 0]].concat()
    };
    for at_once in [true, false] {
        let (mut maps, addressee) = victim();
        let whole = (0..8).flat_map(|at| window(if at == 0 { new(9, 1) } else { known(0) }, at));
        let told = if at_once {
            chunk(addressee, &whole.collect::<Vec<_>>())
        } else {
            let one = |at| [&addressee[..], &[0, 0], &window(new(9, 1), at)].concat();
            datagram_of(CHUNK, (0..8).map(one))
        };
        let (mut before, mut deliveries) = (0, 0);
        while before < 8 * (longest as u64 + 1) {
            deliver(&mut maps[0], NOW, 2, &told);
            let now = maps[0].stats().dots_overwritten;
            assert!(now > before && now - before <= 1 << 20, "{before}, {now}");
            (before, deliveries) = (now, deliveries + 1);
        }
        assert!(deliveries >= 4);
        assert!(maps[0].get(&[7]).is_some());
    }
}

/// Goal: one write is one value, however often a hostile item names it.
/// Method: an item that lists a dot twice, then the item again in the same chunk.
#[test]
fn a_write_named_twice_is_one_sibling() {
    let (mut maps, addressee) = victim();
    let twice = || full(b"k", &[(new(2, 1), 2), (known(1), 2)], &[]);
    let again = full(b"k", &[(known(1), 2)], &[]);
    let cases = [
        run(new(3, 1), 1, &[twice()]),
        run(new(3, 1), 2, &[full(b"l", &[(new(2, 1), 3)], &[]), full(b"l", &[(known(1), 3)], &[])]),
        run(new(3, 1), 4, &[twice(), again]),
    ];
    for runs in cases {
        deliver(&mut maps[0], NOW, 2, &chunk(addressee, &runs));
    }
    for key in [b"k", b"l"] {
        assert_eq!(maps[0].siblings(key).count(), 1, "of {key:?}");
    }
}
