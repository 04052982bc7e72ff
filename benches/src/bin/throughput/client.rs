//! The load: a window of pings in flight.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use brickwork_bench::swim::TELLER;
use brickwork_bench::wire::{Datagram, Paper, introduce};

/// Without any ack for so long, what is under way is lost: far above what a busy machine holds back.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Where the first frame's tag is, and that of an ack.
const FIRST_TAG: usize = 24;
const ACK: u8 = 0x02;

/// What went to and fro.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Pings answered.
    pub(crate) pairs: u64,
    /// Pings answered before the clock started.
    pub(crate) before: u64,
    /// Pings or acks that were lost in a full buffer.
    pub(crate) lost: u64,
    /// Bytes of pings and acks, without headers of UDP and below.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl Load {
    /// Pings taken in and acks sent by the server.
    pub(crate) const fn packets(&self) -> u64 {
        2 * self.pairs
    }

    /// The same from the server's start on.
    pub(crate) const fn handled(&self) -> u64 {
        2 * (self.before + self.pairs)
    }
}

/// The ping that is sent, of `size` bytes if that is more than it has.
pub(crate) fn ping(size: usize) -> Vec<u8> {
    Datagram::from(TELLER.id(), 1).ping(77, Paper(0).id()).padded(size).seal()
}

/// Introduces itself to the server and has it answer `count` pings.
pub(crate) fn load(server: SocketAddr, size: usize, count: u64, window: u64) -> Load {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.connect(server).expect("loopback");
    socket.set_read_timeout(Some(LOST_AFTER)).expect("not zero");
    let me = socket.local_addr().expect("bound");
    introduce(TELLER, me, |datagram| {
        socket.send(datagram).expect("loopback");
        let mut buf = vec![0; 2_048];
        let len = socket.recv(&mut buf).ok()?;
        buf.truncate(len);
        Some(buf)
    });

    let ping = ping(size);
    let mut load = Load { pairs: 0, before: 0, lost: 0, bytes: 0, took: Duration::ZERO };
    // Answered a few times, so that what the server has to say at first is said.
    round_trips(&socket, &ping, window * 8, window, &mut load);
    load = Load { pairs: 0, before: load.pairs, lost: 0, bytes: 0, ..load };
    let start = Instant::now();
    round_trips(&socket, &ping, count, window, &mut load);
    load.took = start.elapsed();
    load
}

fn round_trips(socket: &UdpSocket, ping: &[u8], count: u64, window: u64, load: &mut Load) {
    let (mut sent, mut answered) = (0, 0);
    let mut buf = [0; 2_048];
    while answered + load.lost < count {
        while sent < count && sent.saturating_sub(answered + load.lost) < window {
            socket.send(ping).expect("loopback");
            sent += 1;
        }
        match socket.recv(&mut buf) {
            Ok(len) if len > FIRST_TAG && buf[FIRST_TAG] == ACK => {
                answered += 1;
                load.bytes += (ping.len() + len) as u64;
            }
            // The server's other business: gossip and digests.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                load.lost = sent.saturating_sub(answered);
            }
            Err(error) => panic!("the server is gone: {error}"),
        }
    }
    load.pairs += answered;
}
