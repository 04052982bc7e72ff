//! The node under attack, and all that must hold of it whatever arrives.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

use brickwork_core::swim::Member;
use brickwork_core::{Instant, MIN_DATAGRAM, Node, NodeId, PacketError, hrw};

use crate::checks::{Machine, fire, send};
use crate::input::Input;
use crate::net::addr;
use crate::roll::Roll;
use crate::scene::{SCENE, config};

/// Place and boot epoch of a node outside the cluster that reads along.
const WITNESS: (usize, u64) = (0xee, 0xee);
/// How often per run the whole state is printed to compare it, which takes longer than all else.
const DEEP_LOOKS: u8 = 1;
/// Timers that fire after the input.
const LAST_TIMERS: usize = 8;

pub(crate) struct Victim {
    node: Node,
    /// Whether a datagram is sound depends on its bytes alone: this one must think the same of it.
    witness: Node,
    roll: Roll,
    now: Instant,
    room: usize,
    deep_looks: u8,
    /// Digest of the map when its limits were last checked.
    checked: (u64, u64),
}

impl Victim {
    pub(crate) fn new() -> Self {
        let node = SCENE.node();
        let limits = config();
        let mut roll = Roll::new(node.swim().me(), limits.swim.max_members);
        roll.resume(node.swim());
        Self {
            node,
            witness: crate::scene::node(WITNESS.0, WITNESS.1, SCENE.now),
            roll,
            now: SCENE.now,
            room: 1400,
            deep_looks: DEEP_LOOKS,
            checked: (0, 0),
        }
    }

    /// Hands in a datagram: it is applied, or refused without a trace.
    pub(crate) fn deliver(&mut self, from: SocketAddr, packet: &mut [u8]) {
        let verdict = self.witness.handle_packet(self.now, from, &mut packet.to_vec());
        let before = Glance::at(&self.node);
        let deep = self.deep_looks > 0 && verdict.is_err_and(is_about_frames);
        let deep = deep.then(|| print(&self.node));
        let taken = self.node.handle_packet(self.now, from, packet);
        if taken != Err(PacketError::OwnPacket) && verdict != Err(PacketError::OwnPacket) {
            assert_eq!(taken, verdict, "two nodes judge the same bytes");
        }
        let after = Glance::at(&self.node);
        if taken.is_err() {
            assert_eq!(after.received, before.received, "counted as received");
            assert_eq!(after.refused, before.refused + 1, "not counted as refused");
            assert_eq!(after.state, before.state, "a refused datagram changed the state");
        } else {
            assert_eq!(after.received, before.received + 1, "not counted as received");
            assert_eq!(after.refused, before.refused, "counted as refused");
        }
        if let Some(deep) = deep {
            self.deep_looks -= 1;
            assert_eq!(deep, print(&self.node), "a refused datagram left a trace");
        }
        self.check_limits();
    }

    /// Lets time pass: forward with the timers on the way, in one leap, or backwards.
    pub(crate) fn wait(&mut self, input: &mut Input<'_>) {
        let (kind, amount) = (input.below(4), u32::from(input.byte()));
        match kind {
            0 => self.pass(Duration::from_millis(2) * amount),
            1 => self.now += Duration::from_millis(20) * amount,
            2 => self.now += Duration::from_secs(20) * amount,
            _ => {
                let back = Duration::from_millis(50) * amount;
                let nanos = u64::try_from(back.as_nanos()).unwrap_or(u64::MAX);
                self.now = Instant::from_nanos(self.now.as_nanos().saturating_sub(nanos));
            }
        }
        fire(&mut self.node, self.now);
    }

    /// Fires the timers up to `time` from now, a bounded number of them.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..LAST_TIMERS {
            let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            fire(&mut self.node, self.now);
            self.collect();
        }
        self.now = end;
    }

    /// Something that the application wants. A refused wish changes nothing.
    pub(crate) fn wish(&mut self, input: &mut Input<'_>) {
        let (kind, choice) = (input.below(8), input.byte());
        let key = [b'k', choice % 32];
        let (now, node) = (self.now, &mut self.node);
        let before = node.map().digest();
        let refused = match kind {
            0 | 1 => node.insert(now, &key, input.take(usize::from(choice >> 2))).is_err(),
            2 => node.remove(now, &key).is_err(),
            3 => node.remove(now, b"shared").is_err(),
            4 => {
                let context = node.context(b"shared");
                node.resolve(now, b"shared", &context, Some(&key)).is_err()
            }
            5 => {
                node.join(now, &[addr(usize::from(choice % 16))]);
                false
            }
            6 => node.set_meta(now, input.take(usize::from(choice)).to_vec()).is_err(),
            _ if choice < 16 => {
                node.leave(now);
                false
            }
            _ => {
                self.room = if choice % 2 == 0 { 1400 } else { MIN_DATAGRAM };
                false
            }
        };
        if refused {
            assert_eq!(self.node.map().digest(), before, "a refused wish changed the map");
        }
        self.check_limits();
    }

    /// Collects what the node owes and tells; all of it is sound.
    pub(crate) fn collect(&mut self) {
        let (now, witness) = (self.now, &mut self.witness);
        let me = self.node.identity().addr();
        send(&mut self.node, self.room, |_, bytes| {
            let read = witness.handle_packet(now, me, &mut bytes.to_vec());
            assert_eq!(read, Ok(()), "the node sent {bytes:02x?}");
        });
        self.node.observe(self.now, &mut self.roll);
        if self.roll.finished {
            assert_eq!(self.node.poll_timeout(), None, "a node that left has no timers");
        }
        let sorted = |all: &mut dyn Iterator<Item = NodeId>| -> Vec<NodeId> {
            let mut all: Vec<_> = all.collect();
            all.sort_unstable();
            all
        };
        let members = sorted(&mut self.node.members().map(Member::id));
        assert!(members.iter().eq(&self.roll.ids()), "{members:?} are not who was told of");
        let weighty = self.node.members().filter(|member| member.identity().weight() > 0);
        let (owners, weighty) = (self.node.view().nodes(), sorted(&mut weighty.map(Member::id)));
        assert_eq!(owners, weighty, "owners are chosen among others");
    }

    /// After the input: nothing is stuck.
    pub(crate) fn finish(mut self) {
        self.collect();
        for _ in 0..LAST_TIMERS {
            let Some(due) = self.node.poll_timeout() else { break };
            self.now = self.now.max(due);
            fire(&mut self.node, self.now);
            self.collect();
        }
        self.check_limits();
    }

    fn check_limits(&mut self) {
        let map = self.node.map();
        if self.checked == map.digest() {
            return;
        }
        self.checked = map.digest();
        let limits = config().map;
        let (mut keys, mut bytes) = (0, 0);
        for (key, read) in map.iter() {
            keys += 1;
            bytes += key.len();
            let hash = hrw::key_hash(key);
            let mut best = None;
            for sibling in map.siblings(key) {
                bytes += sibling.value.len();
                best = best.max(Some(hrw::score(hash, sibling.dot.replica.node)));
            }
            let read_from = map.siblings(key).filter(|sibling| sibling.value == read);
            let mut scores = read_from.map(|sibling| hrw::score(hash, sibling.dot.replica.node));
            assert!(scores.any(|score| Some(score) == best), "{key:?} is not read from the winner");
        }
        assert_eq!(map.len(), keys, "keys with a value");
        assert!(keys <= limits.max_keys, "{keys} keys");
        assert!(bytes <= limits.max_bytes, "{bytes} bytes of keys and values");
    }
}

/// Whether a refusal came from the frames; the envelope is checked before any state is at hand.
const fn is_about_frames(error: PacketError) -> bool {
    matches!(
        error,
        PacketError::UnknownFrame
            | PacketError::Malformed
            | PacketError::LimitExceeded
            | PacketError::Truncated
    )
}

/// What a refused datagram must not change, as far as it is cheap to look at.
struct Glance {
    state: (u64, Option<Instant>, (u64, u64)),
    received: u64,
    refused: u64,
}

impl Glance {
    fn at(node: &Node) -> Self {
        let stats = node.stats();
        let mut members = DefaultHasher::new();
        for member in node.members().chain(node.former_members()) {
            members.write_u64(member.id().0);
            members.write_u64(member.identity().boot_epoch());
            members.write_u32(member.incarnation());
            members.write_u8(member.state() as u8);
        }
        members.write_u64(stats.swim.misaddressed);
        members.write_u64(stats.map.misaddressed);
        Self {
            state: (members.finish(), node.poll_timeout(), node.map().digest()),
            received: stats.datagrams_received,
            refused: stats.refused.total(),
        }
    }
}

/// A hash of everything that membership and map hold.
fn print(node: &Node) -> u64 {
    struct Sink(DefaultHasher);
    impl fmt::Write for Sink {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut sink = Sink(DefaultHasher::new());
    let written = write!(sink, "{:?} {:?} {:?}", node.swim(), node.map(), node.view());
    assert!(written.is_ok(), "a hash takes all");
    sink.0.finish()
}
