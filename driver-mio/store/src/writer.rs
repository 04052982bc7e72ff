//! Writing on a thread of its own, so that probes do not wait for the disk.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use brickwork_core::map::LogWrite;
use brickwork_core::{Instant, Node};

use crate::disk::Disk;
use crate::store::{Store, StoreError};

/// Whoever writes without a pause keeps the map from sending anything, as there is always a write that is not durable.
/// So after this time writers should wait …
const PATIENCE: Duration = Duration::from_millis(20);
/// … but for a disk that hangs no longer than this: readers may wait with them.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Writes to a [`Store`] in the background.
///
/// Dropping it ends the thread, after what was submitted is written, and closes the store.
///
/// ```
/// use brickwork_core::{Config, Identity, Instant, Node};
/// use brickwork_store::{Store, Writer};
///
/// let folder = tempfile::tempdir()?;
/// let now = Instant::ZERO; // a clock of your own
/// let identity = Identity::new("a", ([127, 0, 0, 1], 7000).into());
/// let mut node = Node::new(now, identity, Config::lan(), [7; 32])?;
/// let (store, _) = Store::open(&folder.path().join("map.log"), now, &mut node)?;
/// let (wake, woken) = std::sync::mpsc::channel();
/// let mut writer = Writer::spawn(store, move || drop(wake.send(())))?;
///
/// let dot = node.insert(now, b"origin-17", b"up")?;
/// // Its name may become void meanwhile, if the others take this node for dead.
/// while node.map().is_own(dot) && !node.map().is_durable(dot) {
///     writer.turn(now, &mut node)?; // then ask the node for datagrams, and wait for whatever comes first
///     if writer.in_flight() > 0 {
///         woken.recv()?;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer {
    jobs: Option<Sender<LogWrite>>,
    done: Receiver<Result<u64, StoreError>>,
    in_flight: usize,
    /// Since when the map has been waiting for the disk.
    held: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It calls `wake` whenever [`poll`](Self::poll) has something to return.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn spawn<D: Disk + 'static>(
        store: Store<D>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self>
    where
        D::File: 'static,
    {
        let (jobs, todo) = mpsc::channel();
        let (results, done) = mpsc::channel();
        let work = move || work(store, &todo, &results, &wake);
        let thread = thread::Builder::new().name("brickwork-store".into()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), done, in_flight: 0, held: None, thread: Some(thread) })
    }

    /// Tells `node` what is durable, and has written what it asks for next. To be called after every input of the node,
    /// before it is asked for datagrams, and when the thread has called `wake`. Returns whether more is durable than
    /// before.
    ///
    /// # Errors
    ///
    /// [`StoreError`], from then on always: nothing more is written.
    pub fn turn(&mut self, now: Instant, node: &mut Node) -> Result<bool, StoreError> {
        let mut more = false;
        while let Some(ticket) = self.poll()? {
            node.log_synced(now, ticket);
            more = true;
        }
        // What comes meanwhile is written at once after that.
        if self.in_flight == 0 {
            while let Some(write) = node.poll_log() {
                self.submit(write);
            }
        }
        self.held = node.map().awaits_disk().then(|| self.held.unwrap_or(now));
        Ok(more)
    }

    /// How long writers should wait, or until more is durable: some time if the map has been waiting for the disk for
    /// 20 ms, but not if it has for a second.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        let held = now - self.held?;
        (PATIENCE..MAX_PAUSE).contains(&held).then(|| MAX_PAUSE - held)
    }

    /// Has something written that [`Node::poll_log`](brickwork_core::Node::poll_log) asked for.
    pub fn submit(&mut self, write: LogWrite) {
        self.in_flight += 1;
        // If the thread is gone, `poll` says so.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(write));
    }

    /// How many writes are on their way.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The ticket of a write that is done, for [`Node::log_synced`](brickwork_core::Node::log_synced); `None` if there
    /// is none yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`], from then on always: nothing more is written.
    pub fn poll(&mut self) -> Result<Option<u64>, StoreError> {
        match self.done.try_recv() {
            Ok(done) => self.take(done).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    /// As [`poll`](Self::poll), but waits so long for a write that is on its way.
    ///
    /// # Errors
    ///
    /// [`StoreError`], from then on always: nothing more is written.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<u64>, StoreError> {
        if self.in_flight == 0 {
            return self.poll();
        }
        match self.done.recv_timeout(timeout) {
            Ok(done) => self.take(done).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    fn take(&mut self, done: Result<u64, StoreError>) -> Result<u64, StoreError> {
        self.in_flight = self.in_flight.saturating_sub(1);
        done
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told by `poll`.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

fn ended() -> StoreError {
    io::Error::other("the thread that writes has ended").into()
}

/// Does what is to be done, and goes on with a compaction in between. Ends with the first error.
fn work<D: Disk>(
    mut store: Store<D>,
    todo: &Receiver<LogWrite>,
    results: &Sender<Result<u64, StoreError>>,
    wake: &impl Fn(),
) {
    loop {
        let job = if store.is_compacting() {
            todo.try_recv()
        } else {
            todo.recv().map_err(|_| TryRecvError::Disconnected)
        };
        let done = match job {
            Ok(write) => store.write(write),
            Err(TryRecvError::Empty) => match store.step() {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
            Err(TryRecvError::Disconnected) => return,
        };
        let failed = done.is_err();
        if results.send(done).is_err() {
            return;
        }
        wake();
        if failed {
            return;
        }
    }
}
