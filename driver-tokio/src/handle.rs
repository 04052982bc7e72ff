//! How the application reaches the node.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use brickwork_core::map::Dot;
use brickwork_core::{Event, Instant, Node};
use brickwork_store::{Recovery, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::stream::{Changes, Events};

/// A closure on its way to the node.
pub(crate) type Command = Box<dyn FnOnce(&mut Node, Instant) + Send>;

/// The task that owns the node is over: the node left, was aborted, its store failed, or a closure panicked in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node has stopped")
    }
}

impl std::error::Error for Stopped {}

/// How a graceful leave went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaveReport {
    /// How many members acknowledged it; zero if all were unreachable.
    pub acknowledged: usize,
}

/// Socket errors since the start; all of them are survived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverStats {
    /// Datagrams that the system refused to send: lost, as on the way.
    pub send_errors: u64,
    /// Errors met on receiving.
    pub receive_errors: u64,
    /// Datagrams that the ingress hook dropped.
    pub dropped_by_ingress: u64,
}

/// The counters behind [`DriverStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) send_errors: AtomicU64,
    pub(crate) receive_errors: AtomicU64,
    pub(crate) dropped_by_ingress: AtomicU64,
}

/// Reaches a running node. Clones reach the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) local: SocketAddr,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Weak: receivers must see the end of the task, whoever still holds a handle.
    pub(crate) events: broadcast::WeakSender<Event>,
    /// Subscribed before the task started; goes to the first who asks.
    pub(crate) first: Arc<Mutex<Option<broadcast::Receiver<Event>>>>,
    pub(crate) left: watch::Receiver<Option<LeaveReport>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) durable: watch::Receiver<()>,
    pub(crate) failure: Arc<OnceLock<StoreError>>,
    pub(crate) task: AbortHandle,
}

impl Handle {
    /// The address that the node listens on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Runs `with` on the node, between two packets, and returns what it returns.
    ///
    /// The closure should be quick: probes wait for it. What it makes the node owe is sent right
    /// after. A panic in it ends the task.
    ///
    /// # Cancel safety
    ///
    /// The closure runs whole and once, or not at all. The first poll hands it over, or a later one if
    /// 1,024 commands wait already or tokio asks the caller to yield. A future dropped before that has
    /// run nothing; dropped after it, the closure runs all the same and only the result is lost.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the task is over or ends before the closure ran.
    pub async fn call<R: Send + 'static>(
        &self,
        with: impl FnOnce(&mut Node, Instant) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, result) = oneshot::channel();
        let command: Command = Box::new(move |node, now| {
            // The caller may have gone away; the work is done all the same.
            let _ = reply.send(with(node, now));
        });
        self.commands.send(command).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }

    /// The events: all since the start for the first who asks, all from now on for the others.
    #[must_use]
    pub fn events(&self) -> Events {
        // The lock is held for a move only, so nobody can have panicked under it.
        let first = self.first.lock().ok().and_then(|mut first| first.take());
        first.map_or_else(|| self.subscribe(), Events::new)
    }

    /// Events from now on.
    fn subscribe(&self) -> Events {
        let receiver = match self.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        };
        Events::new(receiver)
    }

    /// The changes of keys that begin with `prefix`, from now on; an empty prefix is all keys.
    ///
    /// Subscribe first and read after, and no change is missed in between.
    #[must_use]
    pub fn changes(&self, prefix: impl Into<Vec<u8>>) -> Changes {
        Changes::new(self.subscribe(), prefix.into())
    }

    /// Waits until at least `count` live members are known, this node among them.
    ///
    /// # Cancel safety
    ///
    /// It only looks: dropping the future changes nothing, and asking again starts afresh.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the task is over or ends before that.
    pub async fn wait_for_members(&self, count: usize) -> Result<(), Stopped> {
        let mut events = self.subscribe();
        while self.call(move |node, _| node.members().count() < count).await? {
            events.next().await.ok_or(Stopped)?;
        }
        Ok(())
    }

    /// Waits until a write of this node is on disk: it is not lost by a crash from then on, and only then are the
    /// others told of it. Returns whether it is; `false` at once if it never will be, because the node has no
    /// store, or the write is none of [its own](brickwork_core::map::Map::is_own).
    ///
    /// # Cancel safety
    ///
    /// It only looks: dropping the future changes nothing, and asking again starts afresh.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the task is over or ends before that; the write may be on disk or not.
    pub async fn wait_until_durable(&self, dot: Dot) -> Result<bool, Stopped> {
        let mut durable = self.durable.clone();
        loop {
            durable.borrow_and_update();
            let look =
                move |node: &mut Node, _| (node.map().is_own(dot), node.map().is_durable(dot));
            let (own, done) = self.call(look).await?;
            if done || !own || self.recovery.is_none() {
                return Ok(done);
            }
            durable.changed().await.map_err(|_| Stopped)?;
        }
    }

    /// What was found in the store at the start; `None` without a store.
    #[must_use]
    pub const fn recovery(&self) -> Option<Recovery> {
        self.recovery
    }

    /// Why the task ended, if it was the store. The others take the node for failed then.
    #[must_use]
    pub fn store_error(&self) -> Option<&StoreError> {
        self.failure.get()
    }

    /// Leaves the cluster gracefully and ends the task. All who ask get the one report.
    ///
    /// # Cancel safety
    ///
    /// Once the wish is handed over, as in [`call`](Self::call), the leave goes on without the future;
    /// whoever calls `leave` next waits for the same one and gets its report, also when it is over.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the task ended before the leave was over.
    pub async fn leave(&self) -> Result<LeaveReport, Stopped> {
        let mut left = self.left.clone();
        // If the task is gone because another caller's leave is over, the report is there.
        let _ = self.call(|node, now| node.leave(now)).await;
        let report = left.wait_for(Option::is_some).await.map_err(|_| Stopped)?;
        report.ok_or(Stopped)
    }

    /// Ends the task at once, without a word to the others: to them the node crashed.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task is over.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.task.is_finished()
    }

    /// Counters of the socket.
    #[must_use]
    pub fn driver_stats(&self) -> DriverStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DriverStats {
            send_errors: load(&self.counters.send_errors),
            receive_errors: load(&self.counters.receive_errors),
            dropped_by_ingress: load(&self.counters.dropped_by_ingress),
        }
    }
}
