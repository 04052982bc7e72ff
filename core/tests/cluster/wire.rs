//! The bytes on the wire, frame by frame: golden datagrams that later versions must go on speaking.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::common;
use brickwork_core::map::{self, Map, ReplicaId};
use brickwork_core::swim::{self, Swim};
use brickwork_core::{Identity, Instant, NodeId, PacketError};

fn addr(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex of the frame with this tag; what else travels in the same datagram is not of interest.
fn frame(datagram: &[u8], tag: u8) -> String {
    let mut rest = &datagram[24..datagram.len() - 4];
    loop {
        let (len, body) = match rest[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            low => (usize::from(low & 0x7f) | usize::from(rest[2]) << 7, 3),
        };
        if rest[0] == tag {
            return hex(&rest[..body + len]);
        }
        rest = &rest[body + len..];
    }
}

fn drain(mut poll: impl FnMut(&mut [u8]) -> Option<usize>) -> Vec<Vec<u8>> {
    let mut buf = [0; 1400];
    std::iter::from_fn(|| poll(&mut buf).map(|len| buf[..len].to_vec())).collect()
}

fn swim_out(swim: &mut Swim) -> Vec<Vec<u8>> {
    drain(|buf| swim.poll_transmit(buf).map(|sent| sent.payload.len()))
}

fn map_out(map: &mut Map) -> Vec<Vec<u8>> {
    drain(|buf| map.poll_transmit(buf).map(|sent| sent.payload.len()))
}

fn swim(name: &str, port: u16) -> Swim {
    swim_with(name, port, swim::Config::lan())
}

fn swim_with(name: &str, port: u16, config: swim::Config) -> Swim {
    let identity = Identity::new(name, addr(port)).with_boot_epoch(0x0102_0304);
    let entropy = [u8::try_from(port).unwrap(); 32];
    Swim::new(Instant::ZERO, identity, "golden", config, 1400, entropy).unwrap()
}

fn replica(id: u64, peer: u64) -> Map {
    let replica = ReplicaId::new(NodeId(id), 0x0102_0304);
    let mut map =
        Map::new(Instant::ZERO, replica, "golden", map::Config::lan(), 1400, [7; 32]).unwrap();
    map.peer_up(Instant::ZERO, NodeId(peer), 0x0102_0304, addr(u16::try_from(peer).unwrap()));
    map
}

/// Carries datagrams until nobody has any.
fn talk(a: &mut Map, b: &mut Map, now: Instant) {
    loop {
        let (from_a, from_b) = (map_out(a), map_out(b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for mut bytes in from_a {
            b.handle_packet(now, addr(1), &mut bytes).unwrap();
        }
        for mut bytes in from_b {
            a.handle_packet(now, addr(2), &mut bytes).unwrap();
        }
    }
}

#[test]
fn a_join_and_its_cookie() {
    let (mut a, mut b) = (swim("a", 1), swim("b", 2));
    b.join(Instant::ZERO, &[addr(1)]);
    let mut join = swim_out(&mut b).remove(0);
    // Magic, version, flags, key id; cluster tag; sender; boot epoch.
    assert_eq!(
        hex(&join[..24]),
        concat!("b7010000", "22b6fff3", "3f84d8441c0b5a57", "0403020100000000")
    );
    // JOIN, length; no cookie; alive, id, boot, incarnation 0; version 0; 10.0.0.1:2; "b", no zone,
    // no metadata, weight 1; commitment; it knows nobody.
    assert_eq!(
        hex(&join[24..join.len() - 4]),
        "08300000000000000000003f84d8441c0b5a5704030201000000000000040a00000102000162000001f40d287c57fa779e01"
    );
    assert_eq!(hex(&join[join.len() - 4..]), "82d6d08a");

    a.handle_packet(Instant::ZERO, addr(2), &mut join).unwrap();
    let cookie = swim_out(&mut a).remove(0);
    assert!(cookie.len() <= join.len(), "an unproven address gets no more than it sent");
    assert_eq!(frame(&cookie, 0x09), "0908f54391cd0b4ab871");
}

#[test]
fn a_ping_and_the_table_digest_that_rides_on_it() {
    let (mut a, mut b) = (swim("a", 1), swim("b", 2));
    b.join(Instant::ZERO, &[addr(1)]);
    loop {
        let (from_a, from_b) = (swim_out(&mut a), swim_out(&mut b));
        if from_a.is_empty() && from_b.is_empty() {
            break;
        }
        for mut bytes in from_a {
            b.handle_packet(Instant::ZERO, addr(1), &mut bytes).unwrap();
        }
        for mut bytes in from_b {
            a.handle_packet(Instant::ZERO, addr(2), &mut bytes).unwrap();
        }
    }
    // Let the news of the join run out, then take the first datagram that begins with a ping.
    let mut now = Instant::ZERO;
    let ping = loop {
        now += Duration::from_millis(10);
        a.handle_timeout(now);
        b.handle_timeout(now);
        let sent = swim_out(&mut a);
        let ping = sent.iter().find(|bytes| now.as_nanos() > 10_000_000_000 && bytes[24] == 0x01);
        if let Some(ping) = ping {
            break ping.clone();
        }
        for mut bytes in sent {
            b.handle_packet(now, addr(1), &mut bytes).unwrap();
        }
        for mut bytes in swim_out(&mut b) {
            a.handle_packet(now, addr(2), &mut bytes).unwrap();
        }
    };
    // PING, length, sequence number, target; TABLE_DIGEST, length, digest.
    assert_eq!(frame(&ping, 0x01), "010bf9dd143f84d8441c0b5a57");
    assert_eq!(frame(&ping, 0x81), "8108d1380b11347de290");
}

/// A table exchange: each of two has met somebody whom the other has not.
#[test]
fn tables_that_differ_are_compared() {
    let mut config = swim::Config::lan();
    config.gossip_nodes = 0;
    let [mut a, mut b] =
        [("a", 1), ("b", 2)].map(|(name, port)| swim_with(name, port, config.clone()));
    // What comes from where it asked is believed, and tables are not compared for that if those named live elsewhere.
    let own_row = |of: &mut Swim| {
        of.join(Instant::ZERO, &[11, 12, 13, 14].map(addr));
        let join = swim_out(of).remove(0);
        // A JOIN has the row behind the cookie, and ends with a flag.
        common::bare::frame(0x07, &join[34..join.len() - 5])
    };
    let from = |bytes: &[u8], id| common::bare::packet("golden", id, 0x0102_0304, bytes);
    let rows: Vec<_> =
        [(&mut a, "a"), (&mut b, "b"), (&mut swim("c", 3), "c"), (&mut swim("d", 4), "d")]
            .map(|(of, name)| from(&own_row(of), NodeId::from_name(name)))
            .into();
    for (to, tellers) in [(&mut a, [1, 2]), (&mut b, [0, 3])] {
        for teller in tellers {
            let port = u16::try_from(teller).unwrap() + 11;
            to.handle_packet(Instant::ZERO, addr(port), &mut rows[teller].clone()).unwrap();
        }
    }
    let mut ping = [&[9][..], &NodeId::from_name("a").0.to_le_bytes()].concat();
    ping = from(&common::bare::frame(0x01, &ping), NodeId::from_name("b"));
    a.handle_packet(Instant::ZERO, addr(2), &mut ping).unwrap();
    let mut seen = Vec::new();
    loop {
        let (from_a, from_b) = (swim_out(&mut a), swim_out(&mut b));
        if from_a.is_empty() && from_b.is_empty() {
            break;
        }
        for (sent, to, sender) in [(from_a, &mut b, 1), (from_b, &mut a, 2)] {
            for mut bytes in sent {
                let tags = [0x0e, 0x0f, 0x10, 0x11];
                let told = tags.into_iter().filter(|tag| common::frame_of(&bytes, *tag).is_some());
                seen.extend(told.map(|tag| frame(&bytes, tag)));
                // What goes to others is lost.
                let _ = to.handle_packet(Instant::ZERO, addr(sender), &mut bytes);
            }
        }
    }
    // BUCKETS, length, 64 digests, most of them of buckets without members.
    let buckets = seen.iter().find(|frame| frame.starts_with("0e")).unwrap();
    assert_eq!((&buckets[..6], buckets.len()), ("0e8002", 2 * (3 + 256)));
    // LISTED, length, salt, bucket, all of it, one fingerprint; OFFERED and WANTED, length, salt, bucket, fingerprint.
    let others: Vec<_> = seen.iter().filter(|frame| !frame.starts_with("0e")).collect();
    let wanted = [
        "0f11f9ec25af2b00000000ffffffff9ad5cd4c",
        "1009f9ec25af3c0d24b0dc",
        "1109f9ec25af2b9ad5cd4c",
        "1109f9ec25af3c0d24b0dc",
    ];
    assert_eq!(others, wanted);
}

/// What was found of a member, as it is passed on a moment later.
#[test]
fn findings_that_a_member_answers_poorly() {
    let mut a = swim("a", 1);
    let tell = |a: &mut Swim, place: u16, rows: &[u8]| {
        let frame = common::bare::frame(0x07, rows);
        let id = common::bare::id(usize::from(place));
        let mut bytes = common::bare::packet("golden", id, 1, &frame);
        a.handle_packet(Instant::ZERO, addr(1000 + place), &mut bytes).unwrap();
    };
    a.join(Instant::ZERO, &[6, 7, 8].map(|place| addr(1000 + place)));
    for place in 6..9 {
        tell(&mut a, place, &common::bare::alive(usize::from(place), 1, 0));
    }
    tell(&mut a, 7, &common::bare::standing(6, 1, &[(2, 20), (3, 0)], &[(4, 0)]));
    a.handle_timeout(Instant::ZERO + Duration::from_millis(150));
    let sent = swim_out(&mut a);
    let rows = sent.iter().find_map(|bytes| {
        let rows = hex(common::frame_of(bytes, 0x07)?);
        rows.find("049ded3fcc973c22a8").map(|at| rows[at..].to_owned())
    });
    // Kind, id, boot, incarnation; held out once before, four are enough, opened 2,150 ms ago; two who found it poor, 2,150 and
    // 150 ms ago, and one who found it well.
    let wanted = concat!(
        "049ded3fcc973c22a8010000000000000000",
        "0104e6100201",
        "2e74366b0cc5c61ce6102fc17c7e99e098509601",
        "8a29d3488c69b0989601"
    );
    let rows = rows.unwrap();
    assert!(rows.starts_with(wanted), "{rows}");
}

#[test]
fn a_state_a_pull_and_a_chunk() {
    let (mut a, mut b) = (replica(1, 2), replica(2, 1));
    let mut state = map_out(&mut a).remove(0);
    assert_eq!(frame(&state, 0xa2), "a21000000000000000000000000000000000");
    b.handle_packet(Instant::ZERO, addr(1), &mut state).unwrap();
    let mut state = map_out(&mut b).remove(0);
    a.handle_packet(Instant::ZERO, addr(2), &mut state).unwrap();

    a.insert(Instant::ZERO, b"key", b"value").unwrap();
    let mut push = map_out(&mut a).remove(0);
    // CHUNK, length; addressee; nonce 0: a push; no flags; a run: replica 0 is new, its node and
    // epoch, from 1, 1 dot; an own item: "key", "value".
    assert_eq!(
        frame(&push, 0xa3),
        "a32880a55e200bd137d100000001000000000000000403020100000000010101036b65790576616c7565"
    );
    b.handle_packet(Instant::ZERO, addr(1), &mut push).unwrap();
    assert_eq!(b.get(b"key"), Some(&b"value"[..]));
    talk(&mut a, &mut b, Instant::ZERO);

    // A second write of the key, concurrent with one there: a full item.
    a.insert(Instant::ZERO, b"key", b"x").unwrap();
    b.insert(Instant::ZERO, b"key", b"y").unwrap();
    let now = Instant::ZERO + Duration::from_secs(1);
    a.handle_timeout(now);
    b.handle_timeout(now);
    talk(&mut a, &mut b, now);
    assert_eq!(a.siblings(b"key").count(), 2);
    let mut c = replica(3, 1);
    a.peer_up(now, NodeId(3), 0x0102_0304, addr(3));
    let mut state = map_out(&mut a).remove(0);
    c.handle_packet(now, addr(1), &mut state).unwrap();
    let mut pull = map_out(&mut c).pop().unwrap();
    // PULL, length; nonce; budget of 65,536; replica epoch; no bounds; c itself, of which nothing is known.
    assert_eq!(
        frame(&pull, 0xa1),
        "a123c885bea509808004040302010000000000030000000000000004030201000000000000"
    );
    a.handle_packet(now, addr(3), &mut pull).unwrap();
    let served = map_out(&mut a).pop().unwrap();
    // CHUNK number 0 with the pull's nonce, last of it; a run of dots 1 and 2 of replica 1: a full item with two
    // siblings, superseding up to dot 2 of replica 1 and dot 1 of replica 2, and a reference to it; then
    // a run of dot 1 of replica 2: a reference.
    assert_eq!(
        frame(&served, 0xa3),
        "a34c86dc6d0a475c4b08c885bea50900010001000000000000000403020100000000010203036b657902010201780002000000000000000403020100000000010179020102020100000201010000"
    );
}

#[test]
fn a_pull_for_a_share() {
    let mut c = replica(3, 1);
    c.peer_up(Instant::ZERO, NodeId(2), 0x0102_0304, addr(2));
    let mut config = map::Config::lan();
    config.pull_budget = 1400;
    let mut sources = [1, 2].map(|id| {
        let life = ReplicaId::new(NodeId(id), 0x0102_0304);
        let mut map =
            Map::new(Instant::ZERO, life, "golden", config.clone(), 1400, [7; 32]).unwrap();
        for key in [b"a", b"b", b"c", b"d"] {
            map.insert(Instant::ZERO, key, &[7; 1000]).unwrap();
        }
        map.peer_up(Instant::ZERO, NodeId(3), 0x0102_0304, addr(3));
        map
    });
    map_out(&mut c);
    for (port, source) in (1..).zip(&mut sources) {
        let mut state = map_out(source).remove(0);
        c.handle_packet(Instant::ZERO, addr(port), &mut state).unwrap();
    }
    let mut pull = map_out(&mut c).pop().unwrap();
    sources[0].handle_packet(Instant::ZERO, addr(3), &mut pull).unwrap();
    for mut served in map_out(&mut sources[0]) {
        c.handle_packet(Instant::ZERO, addr(1), &mut served).unwrap();
    }
    let pulls: Vec<String> = map_out(&mut c).iter().map(|pull| frame(pull, 0xa1)).collect();
    // PULL, length; nonce; budget of 65,536; replica epoch; a share is wanted: the first and the second of two; of
    // replica 1 two dots, of replica 3 none.
    assert_eq!(
        pulls,
        [
            "a136dabcaec00380800404030201000000004020010000000000000004030201000000000200030000000000000004030201000000000000",
            "a136be8ca9850480800404030201000000004021010000000000000004030201000000000200030000000000000004030201000000000000",
        ]
    );
}

#[test]
fn keys_that_were_overwritten() {
    let mut config = map::Config::lan();
    config.pull_budget = 1400;
    let [mut a, mut b] = [1, 2].map(|id| {
        let life = ReplicaId::new(NodeId(id), 0x0102_0304);
        let mut map =
            Map::new(Instant::ZERO, life, "golden", config.clone(), 1400, [7; 32]).unwrap();
        // What is written before they meet is not pushed.
        for write in 0..40_u8 {
            if id == 1 {
                let key = if write < 20 { write % 2 } else { write };
                map.insert(Instant::ZERO, &[key], &[write; 100]).unwrap();
            }
        }
        map.peer_up(Instant::ZERO, NodeId(3 - id), 0x0102_0304, addr(3 - id as u16));
        map
    });
    map_out(&mut b);
    for mut bytes in map_out(&mut a) {
        b.handle_packet(Instant::ZERO, addr(1), &mut bytes).unwrap();
    }
    let mut pull = map_out(&mut b).remove(0);
    a.handle_packet(Instant::ZERO, addr(2), &mut pull).unwrap();
    let answer = map_out(&mut a);
    let told = frame(&answer[0], 0xa3);
    // Length; addressee; nonce, number 0, no flags; of replica 1 from its first dot on no items but 18, less one, dots
    // that it overwrote not later than 22, less one, after the last of them; then a run of the same replica.
    assert_eq!(
        told[..90],
        *"a3870a80a55e200bd137d1c885bea50900000001000000000000000403020100000000010011150113\
          0c010100"
    );
    for mut bytes in answer {
        b.handle_packet(Instant::ZERO, addr(1), &mut bytes).unwrap();
    }
    let pull = map_out(&mut b).remove(0);
    // Nonce; budget; replica epoch; no flags; of replica 1 up to none, and one run: after 18, less one, that are missing
    // 13, less one; the limit; 31 in a row are known or set aside; the same limit, no more in a row, and no runs after
    // those; of replica 2 none.
    assert_eq!(
        frame(&pull, 0xa1),
        concat!(
            "a13bbf908e8a02f80a040302010000000000010000000000000004030201000000000081110c281f000000",
            "020000000000000004030201000000000000"
        )
    );
}

#[test]
fn the_sums_of_a_context_and_where_another_differs() {
    let mut config = map::Config::lan();
    config.max_listed = 0;
    let (now, life) = (Instant::ZERO, ReplicaId::new(NodeId(1), 0x0102_0304));
    let mut a = Map::new(now, life, "golden", config, 1400, [7; 32]).unwrap();
    let mut b = replica(2, 1);
    // Whoever comes later is left to its pulls.
    a.insert(now, b"key", b"value").unwrap();
    b.insert(now, b"other", b"value").unwrap();
    a.peer_up(now, NodeId(2), 0x0102_0304, addr(2));
    map_out(&mut a);
    let told = map_out(&mut b);
    for mut bytes in told {
        a.handle_packet(now, addr(2), &mut bytes).unwrap();
    }
    let mut asked = map_out(&mut a).remove(0);
    // BUCKETS, length of 526; nonce; replica epoch; no seals; 64 sums, of which two are not zero.
    let frame_of_sums = frame(&asked, 0xaa);
    assert_eq!(frame_of_sums[..34], *"aa8e04c885bea509040302010000000000");
    let sums = &frame_of_sums[34..];
    let sums: Vec<_> = (0..64).map(|at| &sums[16 * at..][..16]).collect();
    let sums: Vec<_> = (0..).zip(sums).filter(|(_, sum)| **sum != *"0000000000000000").collect();
    assert_eq!(sums, [(34, "6b970fe3a48b93d1"), (49, "6cc0daafb3009057")]);
    b.handle_packet(now, addr(1), &mut asked).unwrap();
    let answer = map_out(&mut b).pop().unwrap();
    // DIFFER, length; addressee; the nonce of the question; one bucket.
    assert_eq!(frame(&answer, 0xab), "ab1578db3d4f3fe26557c885bea5090000000004000000");
}

#[test]
fn bases_after_thirty_two_writes() {
    let mut a = replica(1, 2);
    map_out(&mut a);
    for value in 0..200_u8 {
        a.insert(Instant::ZERO, b"key", &[value]).unwrap();
        if value == 30 {
            assert!(map_out(&mut a).iter().all(|bytes| !hex(bytes).contains("a70b")));
        }
    }
    let told = map_out(&mut a).remove(0);
    // HAVE, length; the hash of (node 1, epoch 0x01020304) mixed, as the sum over one replica; from the first on;
    // 200 dots of it.
    assert_eq!(frame(&told, 0xa7), "a70bf62e62c4a3f55c3800c801");
}

#[test]
fn packets_that_nobody_should_take() {
    let mut node = swim("a", 1);
    let mut own = {
        let mut twin = swim("a", 1);
        twin.join(Instant::ZERO, &[addr(9)]);
        swim_out(&mut twin).remove(0)
    };
    let now = Instant::ZERO;
    assert_eq!(node.handle_packet(now, addr(9), &mut own), Err(PacketError::OwnPacket));
    assert_eq!(node.handle_packet(now, addr(9), &mut []), Err(PacketError::Truncated));
    let crc = |bytes: &mut Vec<u8>| {
        let crc = crc32fast::hash(bytes).to_le_bytes();
        bytes.extend(crc);
    };
    let mut header = own[..24].to_vec();
    header[8] ^= 1; // another sender
    let with = |frames: &[u8], flags: u8| {
        let mut bytes = header.clone();
        bytes[2] = flags;
        bytes.extend(frames);
        crc(&mut bytes);
        bytes
    };
    let cases: [(&[u8], u8, Result<(), PacketError>); 9] = [
        (&[], 0, Ok(())),
        (&[], 1, Err(PacketError::Sealed)),
        (&[], 2, Err(PacketError::UnsupportedVersion)),
        (&[0x1f, 0], 0, Err(PacketError::UnknownFrame)),
        (&[0x9f, 2, 7, 7], 0, Ok(())), // unknown but optional
        (&[0x02, 2, 0x81, 0x00], 0, Err(PacketError::Malformed)), // needless varint group
        (&[0x0c, 1, 0], 0, Err(PacketError::Malformed)), // bytes left over
        (&[0x02, 9, 1], 0, Err(PacketError::Truncated)),
        (&[0x07, 1, 9], 0, Err(PacketError::Truncated)),
    ];
    for (frames, flags, expected) in cases {
        let mut packet = with(frames, flags);
        assert_eq!(node.handle_packet(now, addr(9), &mut packet), expected, "{frames:02x?}");
    }
}

#[test]
fn seals_and_a_pull_while_a_value_waits() {
    let (mut map, now) = (replica(1, 2), Instant::ZERO);
    map_out(&mut map);
    let mut tell = |tag: u8, body: &[u8]| {
        let frames = common::bare::frame(tag, body);
        let mut bytes = common::bare::packet("golden", NodeId(2), 0x0102_0304, &frames);
        map.handle_packet(now, addr(2), &mut bytes).unwrap();
        map_out(&mut map).concat()
    };
    let life = [&9_u64.to_le_bytes()[..], &5_u64.to_le_bytes()].concat();
    let addressee = common::stages::addressee(1, 0x0102_0304, 0x0102_0304).to_le_bytes();
    // A push of the first and the fourth write of a life of node 9, about keys of their own.
    let runs =
        [&[0][..], &life, &[1, 1, 2, 1, b'a', 1, b'v', 1, 4, 1, 2, 1, b'b', 1, b'w']].concat();
    tell(0xa3, &[&addressee[..], &[0, 0], &runs].concat());
    // Its seal: it ends with the second write, and the first is void.
    tell(0xa9, &[&[1][..], &life, &[2, 1, 0, 0]].concat());
    // PULL, length; nonce; 64 KiB; replica epoch; seals, and values that wait; the sum of the seals; the replica of the
    // push, of which all is known up to its end but for one write, and that is void.
    let asked = tell(0xa2, &[9; 16]);
    assert_eq!(
        frame(&asked, 0xa1),
        concat!(
            "a13dc3f8c9de068080040403020100000000",
            "9043b23570291ab9ee",
            "01000000000000000403020100000000",
            "0000",
            "09000000000000000500000000000000",
            "0100"
        )
    );
    // SEALS, length; the last of them; node 9, epoch 5; the end; one run: none before it, of one.
    let answer = tell(0xa1, &[&[7, 100][..], &[0; 8], &[0]].concat());
    assert_eq!(frame(&answer, 0xa9), "a915010900000000000000050000000000000002010000");
}

#[test]
fn units_of_a_full_sync() {
    let (mut a, mut b, mut now) = (replica(1, 2), replica(2, 1), Instant::ZERO);
    for key in [&b"one"[..], b"two", b"three"] {
        a.insert(now, key, b"up").unwrap();
    }
    while a.metadata() != (0, 0) {
        now += Duration::from_millis(50);
        a.handle_timeout(now);
        b.handle_timeout(now);
        talk(&mut a, &mut b, now);
    }
    a.insert(now, b"two", b"down").unwrap();
    a.insert(now, b"four", b"up").unwrap();
    map_out(&mut a);
    // PULL: a nonce; 12 KiB; the replica epoch; a full sync is wanted.
    let epoch = 0x0102_0304_u64.to_le_bytes();
    let pull = [&[7, 0x80, 0x60][..], &epoch, &[8]].concat();
    let frames = common::bare::frame(0xa1, &pull);
    let mut asked = common::bare::packet("golden", NodeId(2), 0x0102_0304, &frames);
    a.handle_packet(now, addr(2), &mut asked).unwrap();
    let given = map_out(&mut a).concat();
    // STAGE, length; addressee; session; the nonce; one context; five units in all, from the first on; covered: all of
    // them; the last of this answer; then units, of which none skips an empty slot.
    assert_eq!(
        frame(&given, 0xa5),
        concat!(
            "a57680a55e200bd137d11e20e370dfee4037",
            "07010500",
            "0500000001",
            // The context: node 1, its epoch, base, floor, what the log begins after; no runs.
            "000100000000000000040302010000000005030500",
            // The first write alone, without marks: its replica, for the first time, counter, key and value.
            "000000010000000000000004030201000000000103",
            "6f6e65027570",
            // A whole entry: key, one sibling, one mark.
            "00010374776f01010404646f776e010104",
            // A lone value of the same replica, later by two than the first.
            "000204057468726565027570",
            "000104666f7572010105027570010105"
        )
    );
}
