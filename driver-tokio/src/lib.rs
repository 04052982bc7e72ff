//! brickwork on tokio: one task owns the node and its UDP socket.
//!
//! [`bind`] opens the socket and starts the task; the [`Handle`] that it returns reaches the node by
//! closures, so everything that [`Node`] can do is there without a second copy of its methods.
//!
//! ```
//! use brickwork_tokio::{Config, Options, bind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let any_port = ([127, 0, 0, 1], 0).into();
//! let a = bind(Options::new("a", any_port).config(Config::local())).await?;
//! let b = bind(Options::new("b", any_port).config(Config::local()).seed(a.local_addr())).await?;
//!
//! b.wait_for_members(2).await?;
//! let mut changes = b.changes(b"origin-");
//! a.call(|node, now| node.insert(now, b"origin-17", b"up")).await??;
//! while b.call(|node, _| node.get(b"origin-17").is_none()).await? {
//!     changes.next().await;
//! }
//! let report = b.leave().await?;
//! assert_eq!(report.acknowledged, 1);
//! # Ok(())
//! # }
//! ```

mod clock;
mod driver;
mod handle;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use brickwork_store::{Store, Writer};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

pub use brickwork_core::map::Dot;
pub use brickwork_core::swim::{Member, State};
pub use brickwork_core::{Config, ConfigError, Event, Identity, Instant, Key, Node, NodeId, Stats};
pub use brickwork_store::{Recovery, StoreError};
pub use handle::{DriverStats, Handle, LeaveReport, Stopped};
pub use stream::{Change, Changes, Events};

use clock::Clock;
use driver::Kept;

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

/// Opens the socket and starts the task that owns the node, on the current tokio runtime.
///
/// The task ends when the node has left ([`Handle::leave`]), on [`Handle::abort`], or when the last
/// handle is dropped; the two latter are a sudden death to the others.
///
/// # Errors
///
/// [`BindError`]; nothing was started. With a store, that may take as long as reading it.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub async fn bind(options: Options) -> Result<Handle, BindError> {
    let Options { name, bind, advertise, zone, weight, meta, seeds, config, store, ingress } =
        options;
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(BindError::Entropy)?;
    let refused = |error| BindError::Socket(bind, error);
    let socket = UdpSocket::bind(bind).await.map_err(refused)?;
    let local = socket.local_addr().map_err(refused)?;
    let identity = Identity::new(name, advertise.unwrap_or(local))
        .with_boot_epoch(clock::boot_epoch())
        .with_zone(zone)
        .with_weight(weight)
        .with_meta(meta);
    let max_datagram = config.max_datagram;
    let clock = Clock::start();
    let mut node = Node::new(clock.now(), identity, config, entropy).map_err(BindError::Config)?;
    let store = match store {
        Some(path) => {
            let opened = open(path, clock, node).await.map_err(BindError::Store)?;
            node = opened.0;
            Some(opened.1)
        }
        None => None,
    };
    if !seeds.is_empty() {
        node.join(clock.now(), &seeds);
    }
    Ok(driver::spawn(socket, local, node, clock, max_datagram, ingress, store))
}

/// Opens the store of a node, away from the threads that must not wait.
async fn open(path: PathBuf, clock: Clock, mut node: Node) -> Result<(Node, Kept), StoreError> {
    let open = move || {
        let (store, recovery) = Store::open(&path, clock.now(), &mut node)?;
        let wake = Arc::new(Notify::new());
        let notify = Arc::clone(&wake);
        let writer = Writer::spawn(store, move || notify.notify_one())?;
        Ok((node, Kept { writer, wake, recovery }))
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error).into()),
        },
    }
}

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
