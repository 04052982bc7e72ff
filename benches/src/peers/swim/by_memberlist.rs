//! memberlist-core 0.8: an asynchronous node. What it does with a message is private to tasks of its own, so
//! a whole node takes part, on one thread of tokio, with packets that stay in memory. Its timers sleep in
//! those tasks and nobody else can fire them: it takes part where packets set the work off.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agnostic_lite::RuntimeLite;
use agnostic_lite::tokio::TokioRuntime;
use memberlist_core::bytes::Bytes;
use memberlist_core::delegate::{CompositeDelegate, NodeDelegate, VoidDelegate};
use memberlist_core::proto::{Alive, Message, NodeId, Payload, Ping, ProtoEncoder};
use memberlist_core::transport::resolver::socket_addr::SocketAddrResolver;
use memberlist_core::transport::unimplemented::{
    UnimplementedConnection as NoConnection, UnimplementedTransportError as NoStreams,
};
use memberlist_core::transport::{
    Node as Name, Packet, PacketProducer, PacketSubscriber, StreamProducer, StreamSubscriber,
    Transport, packet_stream, promised_stream,
};
use memberlist_core::{Memberlist, Options};

use crate::measure::{Entrant, Outcome};
use crate::swim::{MAX_DATAGRAM, ROWS, TELLER, UPDATES, kept, per_member};
use crate::wire::Paper;

type Clock = <TokioRuntime as RuntimeLite>::Instant;
type News = Message<NodeId, SocketAddr>;
type Nothing = VoidDelegate<NodeId, SocketAddr>;
type Delegate =
    CompositeDelegate<NodeId, SocketAddr, Nothing, Nothing, Nothing, Nothing, Arc<Seen>>;

/// What has come out of a node.
#[derive(Debug, Default)]
struct Seen {
    packets: AtomicUsize,
    bytes: AtomicUsize,
    marks: AtomicUsize,
    #[cfg(test)]
    last: std::sync::Mutex<Vec<u8>>,
}

impl NodeDelegate for Seen {
    async fn notify_message(&self, _: Cow<'_, [u8]>) {
        self.marks.fetch_add(1, Ordering::Relaxed);
    }
}

/// A transport whose packets come from a channel, and are counted when they leave.
struct Memory {
    id: NodeId,
    addr: SocketAddr,
    packets: PacketSubscriber<SocketAddr, Clock>,
    streams: StreamSubscriber<SocketAddr, NoConnection>,
    seen: Arc<Seen>,
}

impl Transport for Memory {
    type Error = NoStreams;
    type Id = NodeId;
    type Address = SocketAddr;
    type ResolvedAddress = SocketAddr;
    type Resolver = SocketAddrResolver<TokioRuntime>;
    type Connection = NoConnection;
    type Runtime = TokioRuntime;
    type Options = Self;

    async fn new(options: Self) -> Result<Self, NoStreams> {
        Ok(options)
    }

    async fn resolve(&self, addr: &SocketAddr) -> Result<SocketAddr, NoStreams> {
        Ok(*addr)
    }

    fn local_id(&self) -> &NodeId {
        &self.id
    }

    fn local_address(&self) -> &SocketAddr {
        &self.addr
    }

    fn advertise_address(&self) -> &SocketAddr {
        &self.addr
    }

    fn max_packet_size(&self) -> usize {
        MAX_DATAGRAM
    }

    fn header_overhead(&self) -> usize {
        0
    }

    fn blocked_address(&self, _: &SocketAddr) -> Result<(), NoStreams> {
        Ok(())
    }

    async fn send_to(&self, _: &SocketAddr, packet: Payload) -> Result<(usize, Clock), NoStreams> {
        let len = packet.as_slice().len();
        self.seen.packets.fetch_add(1, Ordering::Relaxed);
        self.seen.bytes.fetch_add(len, Ordering::Relaxed);
        #[cfg(test)]
        packet.as_slice().clone_into(&mut self.seen.last.lock().expect("no test panicked"));
        Ok((len, TokioRuntime::now()))
    }

    async fn open(&self, _: &SocketAddr, _: Clock) -> Result<NoConnection, NoStreams> {
        Err(NoStreams)
    }

    fn packet(&self) -> PacketSubscriber<SocketAddr, Clock> {
        self.packets.clone()
    }

    fn stream(&self) -> StreamSubscriber<SocketAddr, NoConnection> {
        self.streams.clone()
    }

    fn packet_reliable(&self) -> bool {
        false
    }

    fn packet_secure(&self) -> bool {
        false
    }

    fn stream_secure(&self) -> bool {
        false
    }

    async fn shutdown(&self) -> Result<(), NoStreams> {
        Ok(())
    }
}

/// A node, the thread that its tasks share, and the far ends of its channels.
struct Node {
    memberlist: Memberlist<Memory, Delegate>,
    packets: PacketProducer<SocketAddr, Clock>,
    // The node complains when nobody could open a stream any more.
    _streams: StreamProducer<SocketAddr, NoConnection>,
    seen: Arc<Seen>,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn alone() -> Self {
        // More than a batch, so that nobody waits for room on the watch of a ping.
        let (packets, inbox) = packet_stream::<Memory>(256);
        let (streams, calls) = promised_stream::<Memory>();
        let seen = Arc::new(Seen::default());
        let transport = Memory {
            id: name(Paper(0)),
            addr: Paper(0).addr(),
            packets: inbox,
            streams: calls,
            seen: Arc::clone(&seen),
        };
        // No timer, as in the rows of the others that packets set off. What it has to tell is told once
        // instead of many times, so that a node is soon quiet before it is measured.
        let options = Options::lan()
            .with_probe_interval(Duration::ZERO)
            .with_gossip_interval(Duration::ZERO)
            .with_push_pull_interval(Duration::ZERO)
            .with_retransmit_mult(0);
        let delegate = CompositeDelegate::new().with_node_delegate(Arc::clone(&seen));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().expect("a runtime without sockets");
        let memberlist = runtime.block_on(Memberlist::with_delegate(delegate, transport, options));
        let memberlist = memberlist.expect("the preset is accepted");
        let node = Self { memberlist, packets, _streams: streams, seen, runtime };
        node.take(vec![packet(&[alive(TELLER, 1)])]);
        node
    }

    /// A node with `n` members, itself included, and nothing left to say.
    fn among(n: u32) -> Self {
        let node = Self::alone();
        node.take(packed(&introductions(n)));
        assert_eq!(node.len(), n as usize);
        node.quiet();
        node
    }

    fn len(&self) -> usize {
        self.runtime.block_on(self.memberlist.num_members())
    }

    /// Lets the tasks run with these packets until it has come out what should.
    fn run(&self, packets: Vec<Packet<SocketAddr, Clock>>, done: impl Fn(&Seen) -> bool) {
        self.runtime.block_on(async {
            for packet in packets {
                self.packets.send(packet).await.expect("the node listens");
            }
            let mut turns = 0;
            while !done(&self.seen) {
                // A task that panicked would be waited for without end.
                turns += 1;
                assert!(turns < 1_000_000, "the node does not do its work");
                tokio::task::yield_now().await;
            }
        });
    }

    /// Takes packets in. A message of the user goes behind them: those wait until there is no news left,
    /// so everything has been handled when it arrives.
    fn take(&self, mut packets: Vec<Packet<SocketAddr, Clock>>) {
        packets.push(packet(&[Message::UserData(Bytes::from_static(b"mark"))]));
        let expected = self.seen.marks.load(Ordering::Relaxed) + 1;
        self.run(packets, |seen| seen.marks.load(Ordering::Relaxed) == expected);
    }

    /// Takes pings in and lets them be answered.
    fn answer(&self, pings: Vec<Packet<SocketAddr, Clock>>) {
        let expected = self.seen.packets.load(Ordering::Relaxed) + pings.len();
        self.run(pings, |seen| seen.packets.load(Ordering::Relaxed) >= expected);
    }

    /// Lets news wear off on acks, and returns how many bytes it was.
    fn quiet(&self) -> usize {
        const LONE_ACK: usize = 16;
        let mut told = 0;
        loop {
            let before = self.seen.bytes.load(Ordering::Relaxed);
            self.answer(vec![packet(&[ping(1)])]);
            let len = self.seen.bytes.load(Ordering::Relaxed) - before;
            if len < LONE_ACK {
                return told;
            }
            told += len;
        }
    }
}

fn name(member: Paper) -> NodeId {
    NodeId::new(member.name()).expect("a short name")
}

fn ping(seq: u32) -> News {
    let [from, to] = [TELLER, Paper(0)].map(|member| Name::new(name(member), member.addr()));
    Message::Ping(Ping::new(seq, from, to))
}

/// Incarnations begin at 1: the node takes nobody in whose incarnation is 0.
fn alive(member: Paper, incarnation: u32) -> News {
    Message::Alive(Alive::new(incarnation, Name::new(name(member), member.addr())))
}

fn bytes(messages: &[News]) -> Vec<u8> {
    let encoder = ProtoEncoder::new(MAX_DATAGRAM).with_messages(messages);
    let packets: Result<Vec<_>, _> = encoder.encode().collect();
    let [packet] = &packets.expect("correct messages")[..] else {
        unreachable!("they fit into one packet")
    };
    packet.as_slice().to_vec()
}

fn packet(messages: &[News]) -> Packet<SocketAddr, Clock> {
    arrived(bytes(messages))
}

/// As from a socket: in memory of its own, which a node may decode without copying it.
fn arrived(bytes: Vec<u8>) -> Packet<SocketAddr, Clock> {
    Packet::new(TELLER.addr(), TokioRuntime::now(), bytes.into())
}

fn packed(packets: &[Vec<u8>]) -> Vec<Packet<SocketAddr, Clock>> {
    packets.iter().cloned().map(arrived).collect()
}

/// Packets that introduce members 2 to `n` - 1.
fn introductions(n: u32) -> Vec<Vec<u8>> {
    let packet = |first: u32| {
        let rows: Vec<_> =
            (first..n.min(first + ROWS)).map(|member| alive(Paper(member), 1)).collect();
        bytes(&rows)
    };
    (2..n).step_by(ROWS as usize).map(packet).collect()
}

pub(super) fn ping_and_ack(n: u32) -> Entrant {
    const BATCH: usize = 100;
    let node = Node::among(n);
    let ping = bytes(&[ping(77)]);
    Entrant::new("memberlist-core", move |watch| {
        let pings = packed(&vec![ping.clone(); BATCH]);
        let before = node.seen.packets.load(Ordering::Relaxed);
        watch.time(BATCH as u64, || node.answer(pings));
        assert_eq!(node.seen.packets.load(Ordering::Relaxed), before + BATCH, "one ack each");
    })
}

pub(super) fn updates(n: u32) -> Entrant {
    const BATCH: u32 = 64;
    let node = Node::among(n);
    let mut incarnation = 1;
    Entrant::new("memberlist-core", move |watch| {
        incarnation += 1;
        let members: Vec<_> = (0..BATCH * UPDATES).map(|row| 2 + row * 7 % (n - 2)).collect();
        let packets = members.chunks(UPDATES as usize).map(|members| {
            let rows = members.iter().map(|&member| alive(Paper(member), incarnation));
            packet(&rows.collect::<Vec<_>>())
        });
        let packets = packets.collect();
        watch.time(u64::from(BATCH), || node.take(packets));
        // It tells on what was news to it, each row with its name. In a small cluster the rows name some
        // members again.
        let news = members.iter().collect::<BTreeSet<_>>().len();
        assert!(node.quiet() > news * Paper(2).name().len(), "all of it was news");
    })
}

pub(super) fn fill(n: u32) -> Entrant {
    let packets = introductions(n);
    Entrant::new("memberlist-core", move |watch| {
        let (node, packets) = (Node::alone(), packed(&packets));
        watch.time(1, || node.take(packets));
        assert_eq!(node.len(), n as usize);
    })
}

pub(super) fn heap(n: u32) -> Outcome {
    Outcome::counted("memberlist-core", per_member(n, Node::among))
}

pub(super) fn whole(n: u32) -> Outcome {
    Outcome::counted("memberlist-core", kept(|| Node::among(n)))
}

#[cfg(test)]
mod tests {
    use memberlist_core::proto::Ack;

    use super::*;

    #[test]
    fn a_ping_is_answered_with_its_number() {
        let node = Node::among(100);
        for seq in [5, 6] {
            node.answer(vec![packet(&[ping(seq)])]);
            let ack = bytes(&[Message::Ack(Ack::new(seq))]);
            assert_eq!(*node.seen.last.lock().expect("nobody panicked"), ack);
        }
    }

    #[test]
    fn members_are_added_with_their_addresses() {
        let node = Node::alone();
        assert_eq!(node.len(), 2);
        node.take(packed(&introductions(300)));
        assert_eq!(node.len(), 300);
        let members = node.runtime.block_on(node.memberlist.online_members());
        for paper in (0..300).map(Paper) {
            let member = members.iter().find(|member| *member.id() == name(paper));
            assert_eq!(member.map(|member| *member.address()), Some(paper.addr()));
        }
    }

    #[test]
    fn only_a_newer_incarnation_is_news() {
        let node = Node::among(100);
        let rows: Vec<_> = (2..22).map(|member| alive(Paper(member), 2)).collect();
        let len: usize = rows.iter().map(|row| bytes(std::slice::from_ref(row)).len()).sum();
        node.take(vec![packet(&rows)]);
        let told = node.quiet();
        assert!((len..2 * len).contains(&told), "{told} bytes of news, {len} bytes of rows");
        node.take(vec![packet(&rows)]);
        assert_eq!(node.quiet(), 0);
    }

    #[test]
    fn every_row_is_measured() {
        for mut entrant in [ping_and_ack(100), updates(100), fill(100)] {
            assert!(entrant.take(1) > Duration::ZERO);
        }
    }
}
