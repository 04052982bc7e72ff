//! Those who answer, each on a thread of its own.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use brickwork_bench::alloc;
use brickwork_bench::wire::{CLUSTER, Paper};
use brickwork_core::{Config, Identity, Instant, Node};
use mio::{Events, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of an ack without gossip but with digests, which the raw loop sends too.
const ACK_LEN: usize = 58;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `recv_from` and `send_to`, and nothing between: what the system takes.
    Raw,
    /// The loop of the core's docs.
    Std,
    /// The tokio driver on a current-thread runtime.
    Tokio,
    /// The mio driver alone in its loop.
    Mio,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Raw, Self::Std, Self::Tokio, Self::Mio];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw echo",
            Self::Std => "std loop",
            Self::Tokio => "tokio",
            Self::Mio => "mio",
        }
    }
}

/// What the server's thread used from its first packet to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) allocations: u64,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    thread: JoinHandle<Usage>,
}

impl Server {
    pub(crate) fn start(kind: Kind, stop: Arc<AtomicBool>) -> Self {
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let usage = || (thread_cpu(), alloc::count());
            let start = match kind {
                Kind::Raw => raw(&stop, |addr| start(addr, &ready, usage)),
                Kind::Std => std_loop(&stop, |addr| start(addr, &ready, usage)),
                Kind::Tokio => tokio_driver(&stop, |addr| start(addr, &ready, usage)),
                Kind::Mio => mio_driver(&stop, |addr| start(addr, &ready, usage)),
            };
            Usage { cpu: thread_cpu() - start.0, allocations: alloc::count() - start.1 }
        });
        Self { addr: is_ready.recv().expect("the server starts"), thread }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn stop(self, stop: &AtomicBool) -> Usage {
        stop.store(true, Ordering::Relaxed);
        // Whoever waits for a packet gets one. It is none of brickwork's, and refused.
        let waker = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        waker.send_to(&[0], self.addr).expect("loopback");
        self.thread.join().expect("the server ends")
    }
}

/// Tells the client the address, and begins to count.
fn start<U>(addr: SocketAddr, ready: &mpsc::Sender<SocketAddr>, usage: impl Fn() -> U) -> U {
    ready.send(addr).expect("the client waits");
    usage()
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The settings of a node that answers and asks nothing: it has its hands full.
fn config() -> Config {
    let mut config = Config::lan();
    config.cluster = CLUSTER.to_owned();
    config.swim.probe_interval = Duration::from_secs(3_600);
    config
}

fn localhost() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn raw<U>(stop: &AtomicBool, start: impl FnOnce(SocketAddr) -> U) -> U {
    let socket = UdpSocket::bind(localhost()).expect("a free port");
    let usage = start(socket.local_addr().expect("bound"));
    let mut buf = [0; 2_048];
    // The client tells acks by this byte.
    let ack = {
        let mut ack = [0; ACK_LEN];
        ack[24] = 0x02;
        ack
    };
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&ack, from);
        }
    }
    usage
}

fn std_loop<U>(stop: &AtomicBool, start: impl FnOnce(SocketAddr) -> U) -> U {
    let socket = UdpSocket::bind(localhost()).expect("a free port");
    let addr = socket.local_addr().expect("bound");
    let identity = Identity::new(Paper(0).name(), addr);
    let mut node = Node::new(Instant::ZERO, identity, config(), [7; 32]).expect("accepted");
    let usage = start(addr);
    let (clock, mut buf) = (Clock::now(), [0; 65_536]);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::ZERO + clock.elapsed();
        if node.poll_timeout().is_some_and(|due| due <= now) {
            node.handle_timeout(now);
        }
        while let Some(sent) = node.poll_transmit(&mut buf) {
            let _ = socket.send_to(sent.payload, sent.to);
        }
        while node.poll_event().is_some() {}
        let wait = node.poll_timeout().map(|due| (due - now).max(Duration::from_millis(1)));
        socket.set_read_timeout(wait).expect("not zero");
        match socket.recv_from(&mut buf) {
            Ok((len, from)) => {
                let now = Instant::ZERO + clock.elapsed();
                let _ = node.handle_packet(now, from, &mut buf[..len]);
            }
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ),
                "{error}"
            ),
        }
    }
    usage
}

fn tokio_driver<U>(stop: &AtomicBool, start: impl FnOnce(SocketAddr) -> U) -> U {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("the system allows it");
    runtime.block_on(async {
        let options = brickwork_tokio::Options::new(Paper(0).name(), localhost()).config(config());
        let handle = brickwork_tokio::bind(options).await.expect("a free port");
        let usage = start(handle.local_addr());
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
        }
        usage
    })
}

fn mio_driver<U>(stop: &AtomicBool, start: impl FnOnce(SocketAddr) -> U) -> U {
    let options = brickwork_mio::Options::new(Paper(0).name(), localhost()).config(config());
    let mut driver = brickwork_mio::Driver::bind(options).expect("a free port");
    let mut poll = Poll::new().expect("the system allows it");
    let mut ready = Events::with_capacity(16);
    driver.register(poll.registry(), Token(0)).expect("a new source");
    let usage = start(driver.local_addr());
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut ready, driver.timeout()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.expect("a poll of its own"),
        }
        driver.drive(poll.registry(), ready.iter().next()).expect("its own registry");
        while driver.poll_event().is_some() {}
    }
    usage
}
