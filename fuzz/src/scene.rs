//! The cluster in whose middle the node under attack lives, recorded once and replayed for each input.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use brickwork_core::{Config, Identity, Instant, Node, NodeId, PacketError, Transmit};

use crate::checks::Machine;
use crate::net::{Net, addr};
use crate::roll::Roll;

/// The place of the node under attack; the other members live at the places up to [`MEMBERS`].
pub(crate) const VICTIM: usize = 0;
/// Members when the scene begins.
pub(crate) const MEMBERS: usize = 4;
/// Genuine datagrams kept.
const MAX_RECORDED: usize = 40;

/// Something that the node under attack went through before the input begins.
#[derive(Debug, Clone)]
enum Step {
    Packet(SocketAddr, Vec<u8>),
    Timeout,
    Insert(Vec<u8>, Vec<u8>),
}

/// A node that writes down what it goes through.
#[derive(Debug)]
struct Recorder {
    node: Node,
    steps: Vec<(Instant, Step)>,
}

impl Recorder {
    fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) {
        self.steps.push((now, Step::Insert(key.to_vec(), value.to_vec())));
        let _ = self.node.insert(now, key, value);
    }
}

impl Machine for Recorder {
    fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError> {
        self.steps.push((now, Step::Packet(from, packet.to_vec())));
        self.node.handle_packet(now, from, packet)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.steps.push((now, Step::Timeout));
        self.node.handle_timeout(now);
    }

    fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
        self.node.poll_transmit(buf)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }

    fn observe(&mut self, now: Instant, roll: &mut Roll) {
        self.node.observe(now, roll);
    }
}

/// What every run begins with.
#[derive(Debug)]
pub(crate) struct Scene {
    steps: Vec<(Instant, Step)>,
    /// When the input takes over.
    pub(crate) now: Instant,
    /// Genuine datagrams to the node under attack: of its youth, and of the trouble that came later.
    pub(crate) recorded: Vec<(SocketAddr, Vec<u8>)>,
}

/// The scene: the same in every process.
pub(crate) static SCENE: LazyLock<Scene> = LazyLock::new(Scene::record);

/// Small limits, so that an input reaches them.
pub(crate) fn config() -> Config {
    let mut config = Config::local();
    config.cluster = "fuzz".into();
    config.max_events = 24;
    (config.swim.max_members, config.swim.max_events) = (8, 8);
    let map = &mut config.map;
    (map.max_key, map.max_value) = (16, 64);
    (map.max_keys, map.max_bytes) = (16, 200);
    (map.max_replicas, map.max_gap_dots) = (8, 16);
    (map.max_peers, map.max_events) = (6, 12);
    map.pull_budget = 4_096;
    config
}

/// The node of a place. Ids and boot epochs are small, so that mutations hit them.
pub(crate) fn node(place: usize, boot_epoch: u64, now: Instant) -> Node {
    let identity = Identity::new(format!("n{place}"), addr(place))
        .with_id(id(place))
        .with_boot_epoch(boot_epoch);
    let entropy = [u8::try_from(place).unwrap_or(0); 32];
    Node::new(now, identity, config(), entropy)
        .unwrap_or_else(|error| panic!("a sound configuration: {error}"))
}

pub(crate) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

impl Scene {
    fn record() -> Self {
        let mut net = Net::new(MEMBERS + 2, 7);
        for place in 0..MEMBERS {
            start(&mut net, place, 1);
        }
        net.run(Duration::from_millis(150));
        for place in 0..MEMBERS {
            let (key, shared) = (format!("key-{place}"), b"shared");
            net.with(place, |node, now| node.insert(now, key.as_bytes(), b"value"));
            net.with(place, |node, now| node.insert(now, shared, key.as_bytes()));
        }
        net.run(Duration::from_millis(250));
        let now = net.clock(VICTIM);
        let steps = net.machine(VICTIM).map(|victim| victim.steps.clone()).unwrap_or_default();
        trouble(&mut net);
        let lived = net.machine(VICTIM).map(|victim| &victim.steps[..]).unwrap_or_default();
        Self { steps, now, recorded: choose(lived) }
    }

    /// The node under attack as it is when the input takes over, with nothing left to collect.
    pub(crate) fn node(&self) -> Node {
        let mut node = born(VICTIM, 1, Instant::ZERO + Duration::from_secs(100));
        let mut buf = [0; 1400];
        for (now, step) in &self.steps {
            match step {
                Step::Packet(from, bytes) => {
                    let taken = node.handle_packet(*now, *from, &mut bytes.clone());
                    assert_eq!(taken, Ok(()), "the scene is sound");
                }
                Step::Timeout => node.handle_timeout(*now),
                Step::Insert(key, value) => drop(node.insert(*now, key, value)),
            }
            while node.poll_transmit(&mut buf).is_some() {}
            while node.poll_event().is_some() {}
        }
        node
    }
}

/// A node that asks its way in.
fn born(place: usize, boot_epoch: u64, now: Instant) -> Node {
    let mut node = node(place, boot_epoch, now);
    node.join(now, &[addr(0), addr(1)]);
    node
}

fn start(net: &mut Net<Recorder>, place: usize, boot_epoch: u64) {
    let node = born(place, boot_epoch, net.clock(place));
    let roll = Roll::new(node.swim().me(), config().swim.max_members);
    net.start(place, Recorder { node, steps: Vec::new() }, roll);
}

/// Loss, a leave, a crash, a partition, restarts and a contested address: every frame is seen.
fn trouble(net: &mut Net<Recorder>) {
    start(net, 4, 5);
    net.run(Duration::from_millis(600));
    net.with(4, |member, now| member.node.leave(now));
    net.loss = 40;
    for round in 0..6_u8 {
        for place in 0..MEMBERS {
            net.with(place, |member, now| member.insert(now, &[b'k', round % 3], &[round; 9]));
            net.with(place, |member, now| member.node.remove(now, b"shared"));
        }
        net.run(Duration::from_millis(90));
    }
    net.loss = 0;
    net.split(0b1100);
    net.run(Duration::from_secs(8));
    net.split(0);
    net.run(Duration::from_secs(4));
    net.stop(3);
    start(net, 3, 3);
    net.run(Duration::from_secs(1));
    // Its clock stepped back.
    net.stop(3);
    start(net, 3, 2);
    net.run(Duration::from_secs(1));
    net.freeze(2);
    net.run(Duration::from_secs(1));
    net.thaw(2);
    net.run(Duration::from_secs(1));
    // Of what is written meanwhile the victim hears by an answer.
    net.split(1 << VICTIM);
    net.run(Duration::from_millis(50));
    for round in 0..60_u8 {
        net.with(1, |member, now| member.insert(now, &[b'k', round % 3], &[round; 60]));
    }
    net.run(Duration::from_secs(2));
    net.split(0);
    net.run(Duration::from_secs(4));
}

/// Datagrams that differ in the frames that they carry.
fn choose(lived: &[(Instant, Step)]) -> Vec<(SocketAddr, Vec<u8>)> {
    let (mut kinds, mut chosen) = (BTreeSet::new(), Vec::new());
    for (_, step) in lived {
        let Step::Packet(from, bytes) = step else { continue };
        let tags: Vec<(u8, u8)> =
            frames_of(bytes).iter().map(|(tag, body)| kind(*tag, body)).collect();
        let late = tags.contains(&OVERWRITTEN);
        if (chosen.len() < MAX_RECORDED || late) && kinds.insert(tags) {
            chosen.push((*from, bytes.clone()));
        }
    }
    chosen
}

/// The kind of a chunk that begins with dots that were overwritten: there are few, and late ones.
const OVERWRITTEN: (u8, u8) = (0xa3, 1);

/// A frame's tag, and for updates the kind of the first row and, ids being small, whom it is about; for chunks, whether
/// they begin with dots that were overwritten.
fn kind(tag: u8, body: &[u8]) -> (u8, u8) {
    match (tag, body) {
        (0x07, [kind, id, ..]) => (tag, kind << 4 | id),
        (0xa3, body) if begins_overwritten(body) => OVERWRITTEN,
        _ => (tag, 0),
    }
}

/// Whether the first run of a chunk that answers a pull has no items.
fn begins_overwritten(chunk: &[u8]) -> bool {
    let varint = |from: usize| {
        let rest = chunk.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| **byte > 127).count() + 1
    };
    // After the addressee its nonce, number and flags, and a replica that is named in full.
    let items_at = varint(varint(varint(8)) + 1 + 17);
    chunk.get(8) != Some(&0) && chunk.get(items_at) == Some(&0)
}

/// The frames of a sound datagram.
fn frames_of(datagram: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &datagram[24..datagram.len() - 4];
    let mut frames = Vec::new();
    while let [tag, low, after @ ..] = rest {
        let (len, body) = match (*low < 0x80, after) {
            (true, body) => (usize::from(*low), body),
            (false, [high, body @ ..]) => (usize::from(low & 0x7f) | usize::from(*high) << 7, body),
            (false, []) => break,
        };
        frames.push((*tag, body[..len].to_vec()));
        rest = &body[len..];
    }
    frames
}

/// Inputs to begin with, by target: the recorded datagrams in the form that each target reads.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let recorded = &SCENE.recorded;
    let frames = recorded.iter().map(|(from, bytes)| {
        let place = (1..MEMBERS).find(|&place| addr(place) == *from).unwrap_or(1);
        crate::frames::encode(place, &frames_of(bytes))
    });
    let packet = (0..recorded.len()).map(crate::packet::encode);
    vec![("packet", packet.collect()), ("frames", frames.collect())]
}
