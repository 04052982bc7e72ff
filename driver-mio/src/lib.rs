//! brickwork inside a mio event loop of your own.
//!
//! A [`Driver`] is one node and its UDP socket. It has no thread and no loop: it is registered with
//! the application's own [`mio::Poll`] under a token, like any other source, and several of them may
//! share one. A turn of the loop has three steps:
//!
//! 1. wait in [`mio::Poll::poll`] no longer than the shortest [`Driver::timeout`];
//! 2. call [`Driver::drive`] on every driver, with the event that bears its token or with `None`;
//! 3. take the events of the node from [`Driver::poll_event`].
//!
//! Two nodes in one loop:
//!
//! ```
//! use brickwork_mio::{Config, Driver, Options};
//! use mio::{Events, Poll, Token};
//!
//! let any_port = ([127, 0, 0, 1], 0).into();
//! let a = Driver::bind(Options::new("a", any_port).config(Config::local()))?;
//! let b = Driver::bind(Options::new("b", any_port).config(Config::local()).seed(a.local_addr()))?;
//! let mut drivers = [a, b];
//!
//! let mut poll = Poll::new()?;
//! let mut ready = Events::with_capacity(64);
//! for (index, driver) in drivers.iter_mut().enumerate() {
//!     driver.register(poll.registry(), Token(index))?;
//! }
//! drivers[0].with(|node, now| node.insert(now, b"origin-17", b"up"))?;
//!
//! while drivers[1].node().get(b"origin-17") != Some(b"up") {
//!     let timeout = drivers.iter().filter_map(Driver::timeout).min();
//!     match poll.poll(&mut ready, timeout) {
//!         Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue, // by a signal
//!         polled => polled?,
//!     }
//!     for (index, driver) in drivers.iter_mut().enumerate() {
//!         let event = ready.iter().find(|event| event.token() == Token(index));
//!         driver.drive(poll.registry(), event)?;
//!         while let Some(event) = driver.poll_event() {
//!             println!("{}: {event:?}", driver.node().identity().name());
//!         }
//!     }
//! }
//! assert_eq!(drivers[0].node().members().count(), 2);
//! assert_eq!(drivers[0].node().owner(b"origin-17"), drivers[1].node().owner(b"origin-17"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The example `own_loop` serves TCP clients from the same loop.
//!
//! # Edge-triggered readiness
//!
//! mio reports that a socket became ready, not that it is. The driver therefore reads until the socket
//! would block. If a flood uses up the [`BUDGET`] of one call before that, the driver remembers it, and
//! [`Driver::timeout`] is zero until a further call of [`Driver::drive`] has read the rest: no wake-up
//! is lost, and the other sources of the loop get their turn in between.
//!
//! The driver is interested in writability only while it holds a datagram that the socket did not take.

mod clock;
mod driver;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use brickwork_core::swim::{Member, State};
pub use brickwork_core::{Config, ConfigError, Event, Identity, Instant, Node, NodeId, Stats};
pub use brickwork_store::{Recovery, StoreError};
pub use driver::{BUDGET, Driver, DriverStats, Progress};
/// The mio that the driver is built with.
pub use mio;

/// Decides whether a datagram that arrived is taken in: a hook for fault injection and filters.
pub type Ingress = Box<dyn FnMut(SocketAddr, &[u8]) -> bool + Send>;

/// What a node is started with.
pub struct Options {
    /// The name; at most one live node of a cluster may bear it.
    pub name: String,
    /// Where to listen. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// What the others are told to send to. `None`: the bound address, which must then be a real one.
    pub advertise: Option<SocketAddr>,
    /// The zone (datacenter) that the node is in; empty if zones are not used.
    pub zone: String,
    /// How many parts of all keys the node owns, 1 if nothing is said; 0 if it owns none. See [`Identity::with_weight`].
    pub weight: u16,
    /// Bytes of the application's own, told to every member.
    pub meta: Vec<u8>,
    /// Nodes to join through; empty for the first node of a cluster.
    pub seeds: Vec<SocketAddr>,
    /// Settings of the node.
    pub config: Config,
    /// The file that the map is kept in, so that the node is after a crash what it was before; see
    /// [`brickwork_store`]. `None`: a node that starts knows nothing, and asks the others.
    pub store: Option<PathBuf>,
    /// Sees every datagram first; `false` drops it.
    pub ingress: Option<Ingress>,
}

impl Options {
    /// A node called `name` that listens on `bind`, with [`Config::lan`] and no seeds.
    #[must_use]
    pub fn new(name: impl Into<String>, bind: SocketAddr) -> Self {
        Self {
            name: name.into(),
            bind,
            advertise: None,
            zone: String::new(),
            weight: 1,
            meta: Vec::new(),
            seeds: Vec::new(),
            config: Config::lan(),
            store: None,
            ingress: None,
        }
    }

    /// With these settings.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// With the map kept in the file at `path`.
    #[must_use]
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }

    /// With one more seed.
    #[must_use]
    pub fn seed(mut self, seed: SocketAddr) -> Self {
        self.seeds.push(seed);
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("bind", &self.bind)
            .field("advertise", &self.advertise)
            .field("seeds", &self.seeds)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Why a node could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum BindError {
    /// The socket could not be opened at this address.
    Socket(SocketAddr, io::Error),
    /// The settings or the identity were refused. An unspecified address (0.0.0.0) to listen on needs
    /// an `advertise` address.
    Config(ConfigError),
    /// The operating system gave no random bytes.
    Entropy(getrandom::Error),
    /// The store could not be opened.
    Store(StoreError),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Entropy(error) => write!(f, "no random bytes: {error}"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(_, error) => Some(error),
            Self::Config(error) => Some(error),
            Self::Entropy(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}
