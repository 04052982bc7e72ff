//! The map of a node on disk: a write-ahead log in one file.
//!
//! A [`Store`] makes a node what it was before a crash, and writes what the node must have on disk before it may
//! leave; a [`Writer`] does the writing on a thread of its own. The drivers use them if they are given a path, so only
//! who embeds the core in a loop of their own needs this crate:
//!
//! ```
//! use brickwork_core::{Config, Identity, Instant, Node};
//! use brickwork_store::{Recovery, Store};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("map.log");
//! let now = Instant::ZERO; // a clock of your own
//! let mut start = |boot_epoch| -> Result<_, Box<dyn std::error::Error>> {
//!     let identity = Identity::new("a", ([127, 0, 0, 1], 7000).into()).with_boot_epoch(boot_epoch);
//!     let mut node = Node::new(now, identity, Config::lan(), [7; 32])?;
//!     let (store, recovery) = Store::open(&path, now, &mut node)?;
//!     Ok((node, store, recovery))
//! };
//!
//! let (mut node, mut store, recovery) = start(1)?;
//! assert_eq!(recovery, Recovery::New);
//! let dot = node.insert(now, b"origin-17", b"up")?;
//! while let Some(write) = node.poll_log() {
//!     let ticket = store.write(write)?;
//!     node.log_synced(now, ticket);
//! }
//! assert!(node.map().is_durable(dot));
//! // Here it would send. Then it crashes.
//! drop((node, store));
//!
//! let (node, _store, recovery) = start(2)?;
//! assert_eq!(recovery, Recovery::Resumed);
//! assert_eq!(node.get(b"origin-17"), Some(&b"up"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - A write that was said to be durable is there after a crash, of the process or of the machine, as long as the
//!   disk keeps what it has synced.
//! - Whatever else is lost, no name of a write is used twice: a file that ends in the midst of a block is one that a
//!   crash left, and what is missing was never told to anybody. Anything else that is wrong with it is damage. Then
//!   the node starts as another replica, which knows what came before the damage, and the file is kept beside it.
//! - An error of the disk leaves the file as it was when the last write was said to be durable.
//!
//! What is not: a copy of the file from an earlier time looks sound, and puts a node back to where it was then.
//! Whoever restores such a backup has to give the node another name, or remove the file.
//!
//! # The file
//!
//! Blocks, each a length (u32), a check of that (u32: the low half of the XXH3-64 of where the block begins, u64, and
//! the length), and as many bytes: a chunk of a snapshot, or a record, with a checksum of its own (see
//! [`Map::snapshot`](brickwork_core::map::Map::snapshot)). All little-endian. Beside it are, while they are needed,
//! the same name with `.lock`, held by who has the store open, `.new`, which is to take the file's place, and
//! `.damaged`.

mod block;
mod disk;
mod store;
mod writer;

pub use disk::{Disk, Folder};
pub use store::{Recovery, Store, StoreError};
pub use writer::Writer;
