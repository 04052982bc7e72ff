//! The parts of a coordination-free cluster as pure state machines.
//!
//! Three bricks, each usable alone, and [`Node`], which composes them:
//!
//! - [`swim`]: who is alive. SWIM membership with Lifeguard's extensions.
//! - [`hrw`]: who owns what. Rendezvous hashing: every node computes the same owner from the same
//!   members, without talk.
//! - [`map`]: what everybody knows. A delta-state CRDT from keys to values that each node reads from its
//!   own copy and that converges through loss, partitions and restarts.
//!
//! There is no leader and no consensus: available first, convergent always.
//!
//! # Model
//!
//! The core opens no socket, reads no clock, starts no thread and logs nothing. Whoever embeds it, the
//! *driver*, feeds it datagrams, time and wishes, and takes from it datagrams to send, events, and the
//! one instant at which it wants to be called again. The same entropy and the same inputs give the same
//! outputs on every platform, so whole clusters run in a test under virtual time.
//!
//! What is owed to a peer is kept as a mark and turned into bytes only when the datagram leaves, into
//! the driver's buffer: the backlog is bounded by the number of members, and news are always the
//! freshest.
//!
//! # Driver contract
//!
//! 1. Hand in what has arrived before firing timers.
//! 2. After any input send until [`Node::poll_transmit`] returns `None` or the socket blocks; hold the
//!    one datagram that it did not take.
//! 3. Drain [`Node::poll_event`].
//! 4. Re-arm the timer from [`Node::poll_timeout`], also when one is armed already.
//! 5. Call [`Node::handle_timeout`] when it is due, rounding sleeps up; bound the work per turn, so that
//!    a flood does not starve the timer.
//!
//! The packages `brickwork-tokio` and `brickwork-mio` do this. With the standard library alone it is a
//! loop. It takes one datagram per turn, which is simple; what waits behind it after a stall is covered
//! by the node, which sees that its timers are late and holds its verdicts back (promise 7 below):
//!
//! ```
//! use std::io;
//! use std::net::UdpSocket;
//! use std::time::{Duration, Instant as Clock};
//!
//! use brickwork_core::{Config, Event, Identity, Instant, Node};
//!
//! /// Drives a node until `done` says so.
//! fn drive(
//!     node: &mut Node,
//!     socket: &UdpSocket,
//!     start: Clock,
//!     mut done: impl FnMut(&mut Node, Instant, Event) -> bool,
//! ) -> io::Result<()> {
//!     let mut buf = [0; 65_536];
//!     loop {
//!         let now = Instant::ZERO + start.elapsed();
//!         if node.poll_timeout().is_some_and(|due| due <= now) {
//!             node.handle_timeout(now);
//!         }
//!         while let Some(sent) = node.poll_transmit(&mut buf) {
//!             let _ = socket.send_to(sent.payload, sent.to); // refused by the system: lost, as on the way
//!         }
//!         if let Some(event) = node.poll_event() {
//!             if done(node, now, event) {
//!                 return Ok(());
//!             }
//!             continue; // what it made the node owe leaves first
//!         }
//!         let wait = node.poll_timeout().map(|due| (due - now).max(Duration::from_millis(1)));
//!         socket.set_read_timeout(wait)?;
//!         // An error is the timeout, or one of an earlier datagram: nothing arrived.
//!         if let Ok((len, from)) = socket.recv_from(&mut buf) {
//!             let now = Instant::ZERO + start.elapsed();
//!             let _ = node.handle_packet(now, from, &mut buf[..len]); // counted by the node
//!         }
//!     }
//! }
//!
//! # fn node(name: &str, socket: &UdpSocket) -> Node {
//! #     let identity = Identity::new(name, socket.local_addr().unwrap());
//! #     let entropy = [name.as_bytes()[0]; 32]; // take it from the operating system
//! #     Node::new(Instant::ZERO, identity, Config::local(), entropy).unwrap()
//! # }
//! let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
//! let seed = a.local_addr()?;
//! let first = std::thread::spawn(move || {
//!     let mut node = node("a", &a);
//!     node.insert(Instant::ZERO, b"origin-17", b"up").unwrap();
//!     // Until the other one has come and gone.
//!     drive(&mut node, &a, Clock::now(), |_, _, event| matches!(event, Event::Left { .. }))
//! });
//! let mut node = node("b", &b);
//! node.join(Instant::ZERO, &[seed]);
//! drive(&mut node, &b, Clock::now(), |node, now, event| match event {
//!     Event::Changed { key, .. } => {
//!         assert_eq!(node.get(&key), Some(&b"up"[..]));
//!         node.leave(now);
//!         false
//!     }
//!     event => matches!(event, Event::LeaveFinished { .. }),
//! })?;
//! first.join().unwrap()?;
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # Example
//!
//! Two nodes under virtual time, with the loop of a driver in miniature:
//!
//! ```
//! use brickwork_core::{Config, Identity, Instant, Node};
//!
//! let addr = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
//! let mut now = Instant::ZERO;
//! let node = |name, port| {
//!     Node::new(now, Identity::new(name, addr(port)), Config::lan(), [port as u8; 32])
//! };
//! let mut nodes = [node("a", 1)?, node("b", 2)?];
//! nodes[1].join(now, &[addr(1)]);
//! nodes[0].insert(now, b"origin-17", b"up")?;
//!
//! let mut buf = [0; 1400];
//! while nodes[1].get(b"origin-17") != Some(b"up") {
//!     let mut quiet = true;
//!     for (from, to) in [(0, 1), (1, 0)] {
//!         while let Some(sent) = nodes[from].poll_transmit(&mut buf) {
//!             let len = sent.payload.len();
//!             let source = nodes[from].identity().addr();
//!             nodes[to].handle_packet(now, source, &mut buf[..len])?;
//!             quiet = false;
//!         }
//!     }
//!     if quiet {
//!         // Nothing is under way: let time pass until somebody wants to be called.
//!         now = nodes.iter().filter_map(Node::poll_timeout).min().expect("a timer is armed");
//!         nodes.iter_mut().for_each(|node| node.handle_timeout(now));
//!     }
//! }
//! assert_eq!(nodes[0].members().count(), 2);
//! assert_eq!(nodes[0].owner(b"origin-17"), nodes[1].owner(b"origin-17"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Promises
//!
//! What an embedder may build on; `tests/cluster/contract.rs`, `no_alloc.rs` and `determinism.rs` test each.
//!
//! 1. *Progress.* After `handle_timeout(t)` the next deadline is `None` or later than `t`. Calls that
//!    come early or twice, and clocks that step back or leap hours, break nothing: a [`Node`] goes on
//!    from the time that it had reached.
//! 2. *Purity.* [`Node::poll_timeout`] may be asked any number of times, and draining datagrams never
//!    changes its answer.
//! 3. *Bounds.* Every collection has a `max_*` in [`Config`], in bytes where bytes are what grows. A full
//!    event queue drops the oldest and says [`Event::Missed`]; the members and the map are then the truth
//!    to resync from.
//! 4. *No allocation* per packet in steady state: only new logical state allocates, such as a member, a
//!    key, a larger value or a longer log.
//! 5. *Determinism.* Nothing depends on floats, hash order, pointer widths or addresses of memory.
//! 6. *Input safety.* No bytes of a peer can panic, loop, or make the node allocate beyond its bounds. A
//!    refused packet leaves the state untouched: the whole packet is checked, then applied.
//! 7. *Own stalls.* A stall of this process is charged to its local health, not to the peer that it
//!    did not hear.
//! 8. *Short buffers.* A buffer shorter than `max_datagram` gets smaller datagrams; one shorter than
//!    [`MIN_DATAGRAM`] is a panic of the caller's making.
//!
//! # Errors and panics
//!
//! What a peer does wrong is a [`PacketError`], counted by cause and otherwise without effect; drivers
//! go on. What the caller asks beyond a limit is an error that names the limit. A panic is a bug here
//! or a documented mistake of the caller, never the effect of bytes that came from the network.
//!
//! # Features
//!
//! - `std`: run-time detection of the processor's CRC instructions. Without it the crate is `no_std`
//!   and needs only `alloc`.
//! - `simd`: owners found with the widest vectors that the processor has, found out at run time: up to five times as fast as with
//!   those that all of its kind have.
//! - `sim`: the simulator, with a virtual network to test your own program on. For `dev-dependencies`.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc, clippy::alloc_instead_of_core)]

extern crate alloc;
#[cfg(any(test, feature = "std", sabotage))]
extern crate std;

mod config;
mod event;
mod hash;
pub mod hrw;
mod id;
pub mod map;
mod node;
mod pool;
mod reached;
mod rng;
mod room;
#[cfg(not(sabotage))]
mod sabotage;
#[cfg(sabotage)]
#[doc(hidden)]
pub mod sabotage;
#[cfg(feature = "sim")]
pub mod sim;
mod stats;
pub mod swim;
mod time;
mod timer;
mod tracked;
mod wire;

pub use config::{Config, ConfigError};
pub use event::{Event, Key};
pub use id::{Identity, MAX_META, MAX_NAME, MAX_ZONE, NodeId};
pub use node::{Node, Transmit};
pub use stats::{Refused, Stats};
pub use time::Instant;
pub use wire::{MAX_DATAGRAM, MIN_DATAGRAM, PacketError};
