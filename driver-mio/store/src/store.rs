//! Recovering a node, and writing what it must not lose.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use brickwork_core::map::{LogKind, LogWrite, RestoreError};
use brickwork_core::{Instant, Node};

use crate::block::{self, Blocks, End};
use crate::disk::{Disk, Folder};

/// Bytes of a new file that are written at a time while appending goes on.
const STEP: usize = 1 << 20;

/// Why a store could not be opened or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another node of this one, has the store at this path open.
    InUse(PathBuf),
    /// The disk failed. The file is as it was when the last write was durable.
    Disk(io::Error),
    /// The file is sound, and not for this node: another cluster's or another node's, or more than its
    /// configuration allows. It was not touched.
    Refused(RestoreError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "the store {} is in use", path.display()),
            Self::Disk(error) => write!(f, "the store cannot be read or written: {error}"),
            Self::Refused(error) => write!(f, "the store does not fit this node: {error}"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::InUse(_) => None,
            Self::Disk(error) => Some(error),
            Self::Refused(error) => Some(error),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// What was found when a store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// There was no file.
    New,
    /// The node goes on as the replica that it was, with all its writes that were durable.
    Resumed,
    /// The file is damaged. The node is another replica, and knows what was told before the damage.
    Damaged {
        /// The chunk, counted from zero, that is the first that was not understood.
        chunk: u64,
    },
}

/// A file that what a node writes is kept in.
#[derive(Debug)]
pub struct Store<D: Disk = Folder> {
    disk: D,
    /// What is appended to, and how long it is; none before the first write.
    log: Option<Log<D::File>>,
    compaction: Option<Compaction<D::File>>,
    /// What is not known to be durable may not be built upon.
    failed: bool,
    failed_compactions: u64,
}

#[derive(Debug)]
struct Log<F> {
    file: F,
    len: u64,
}

/// A new file in the making, while the old one is appended to.
#[derive(Debug)]
struct Compaction<F> {
    log: Log<F>,
    chunks: std::vec::IntoIter<Vec<u8>>,
    /// What was appended to the old file meanwhile.
    tail: Vec<Vec<u8>>,
}

impl Store {
    /// Opens the store at `path`, makes `node`, which must know nobody yet, what it was when it was written last, and
    /// starts its log. The folder must exist; the file need not.
    ///
    /// Takes the time to read the file and to write a new one, and room for that beside the old one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. The file is not changed then, but for one that is damaged: that may have been put aside.
    pub fn open(
        path: &Path,
        now: Instant,
        node: &mut Node,
    ) -> Result<(Self, Recovery), StoreError> {
        let folder = Folder::open(path).map_err(|error| {
            let in_use = error.kind() == io::ErrorKind::ResourceBusy;
            if in_use { StoreError::InUse(path.to_owned()) } else { StoreError::Disk(error) }
        })?;
        Self::open_on(folder, now, node)
    }
}

impl<D: Disk> Store<D> {
    /// As [`Store::open`], on a disk of any kind.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open_on(disk: D, now: Instant, node: &mut Node) -> Result<(Self, Recovery), StoreError> {
        let mut store =
            Self { disk, log: None, compaction: None, failed: false, failed_compactions: 0 };
        store.disk.discard();
        let recovery = store.recover(now, node)?;
        node.start_log();
        while let Some(write) = node.poll_log() {
            let ticket = store.write(write)?;
            node.log_synced(now, ticket);
        }
        Ok((store, recovery))
    }

    fn recover(&mut self, now: Instant, node: &mut Node) -> Result<Recovery, StoreError> {
        let Some(file) = self.disk.read()? else { return Ok(Recovery::New) };
        // A replica that may lack writes of its own must be another one, so all is looked at before it is any.
        let mut blocks = Blocks::new(file);
        blocks.by_ref().for_each(drop);
        let Blocks { count, end, error, .. } = blocks;
        error.map_or(Ok(()), Err)?;
        let chunk = if end == Some(End::Damaged) {
            count
        } else {
            match node.resume(now, self.blocks(count)?) {
                Ok(()) => return Ok(Recovery::Resumed),
                Err(RestoreError::Corrupt { chunk } | RestoreError::Misplaced { chunk }) => chunk,
                Err(RestoreError::Incomplete) => count,
                Err(error) => return Err(StoreError::Refused(error)),
            }
        };
        match node.restore(now, self.blocks(chunk)?) {
            // Not even the snapshot is whole: all of it has to come from the others.
            Ok(()) | Err(RestoreError::Incomplete) => {}
            Err(error) => return Err(StoreError::Refused(error)),
        }
        self.disk.put_aside()?;
        Ok(Recovery::Damaged { chunk })
    }

    /// The first so many chunks of the file.
    fn blocks(&self, count: u64) -> io::Result<impl Iterator<Item = Vec<u8>> + use<D>> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let file = self.disk.read()?;
        Ok(file.into_iter().flat_map(Blocks::new).take(count))
    }

    /// Does what [`Node::poll_log`] asked for, and returns when it is durable, with the ticket to be told to
    /// [`Node::log_synced`]; a compaction is only begun, and goes on in [`step`](Self::step).
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`]. After that nothing can be written any more: open it again.
    pub fn write(&mut self, write: LogWrite) -> Result<u64, StoreError> {
        if self.failed {
            return Err(io::Error::other("an earlier write has failed").into());
        }
        let done = match write.kind {
            LogKind::Append => self.append(write.chunks),
            LogKind::Compact => {
                self.begin_compaction(write.chunks);
                Ok(())
            }
            LogKind::Begin | _ => self.begin(write.chunks),
        };
        self.failed = done.is_err();
        done.map(|()| write.ticket).map_err(StoreError::Disk)
    }

    /// Whether there is something for [`step`](Self::step) to do.
    #[must_use]
    pub const fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// How many compactions were given up for an error, a full disk say. The log goes on, and only grows.
    #[must_use]
    pub const fn failed_compactions(&self) -> u64 {
        self.failed_compactions
    }

    /// Writes some of the new file, if one is in the making, and puts it in its place when it is whole.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if it is not known which file is in that place; any other error only ends the compaction.
    pub fn step(&mut self) -> Result<(), StoreError> {
        let Some(mut compaction) = self.compaction.take() else { return Ok(()) };
        let mut bytes = Vec::new();
        let mut written = Ok(());
        while bytes.len() < STEP && written.is_ok() {
            let tail = compaction.chunks.as_slice().is_empty();
            if tail {
                compaction.chunks = std::mem::take(&mut compaction.tail).into_iter();
            }
            let Some(chunk) = compaction.chunks.next() else { break };
            let at = compaction.log.len + bytes.len() as u64;
            written = block::put(&mut bytes, at, &chunk);
        }
        let whole = compaction.chunks.as_slice().is_empty() && compaction.tail.is_empty();
        let log = &mut compaction.log;
        written = written.and_then(|()| log.append(&mut self.disk, &bytes));
        // Not left to the end, when appending would have to wait for all of it.
        written = written.and_then(|()| self.disk.sync(&mut log.file));
        if written.is_err() {
            self.give_up_compaction();
        } else if whole {
            self.failed = true;
            self.disk.replace()?;
            (self.failed, self.log) = (false, Some(compaction.log));
        } else {
            self.compaction = Some(compaction);
        }
        Ok(())
    }

    fn begin(&mut self, chunks: Vec<Vec<u8>>) -> io::Result<()> {
        // What the old one was to be replaced by goes on from what is no more.
        self.compaction = None;
        let log = match self.write_new(&chunks) {
            Ok(log) => log,
            Err(error) => {
                self.disk.discard();
                return Err(error);
            }
        };
        self.disk.replace()?;
        self.log = Some(log);
        Ok(())
    }

    fn write_new(&mut self, chunks: &[Vec<u8>]) -> io::Result<Log<D::File>> {
        let mut log = Log { file: self.disk.create()?, len: 0 };
        for chunk in chunks {
            let mut bytes = Vec::new();
            block::put(&mut bytes, log.len, chunk)?;
            log.append(&mut self.disk, &bytes)?;
        }
        self.disk.sync(&mut log.file)?;
        Ok(log)
    }

    fn append(&mut self, chunks: Vec<Vec<u8>>) -> io::Result<()> {
        let log = self.log.as_mut().ok_or_else(|| io::Error::other("nothing to append to"))?;
        let mut bytes = Vec::new();
        for chunk in &chunks {
            let at = log.len + bytes.len() as u64;
            block::put(&mut bytes, at, chunk)?;
        }
        let before = log.len;
        let mut written = log.append(&mut self.disk, &bytes);
        if written.is_err() && self.compaction.is_some() {
            // The new file may have taken the room.
            self.give_up_compaction();
            if let Some(log) = &mut self.log {
                self.disk.truncate(&mut log.file, before)?;
                log.len = before;
                written = log.append(&mut self.disk, &bytes);
            }
        }
        written?;
        if let Some(log) = &mut self.log {
            self.disk.sync(&mut log.file)?;
        }
        if let Some(compaction) = &mut self.compaction {
            compaction.tail.extend(chunks);
        }
        Ok(())
    }

    fn begin_compaction(&mut self, chunks: Vec<Vec<u8>>) {
        match self.disk.create() {
            Ok(file) => {
                let (log, chunks) = (Log { file, len: 0 }, chunks.into_iter());
                self.compaction = Some(Compaction { log, chunks, tail: Vec::new() });
            }
            Err(_) => self.give_up_compaction(),
        }
    }

    fn give_up_compaction(&mut self) {
        self.compaction = None;
        self.disk.discard();
        self.failed_compactions += 1;
    }
}

impl<F: Send> Log<F> {
    fn append<D: Disk<File = F>>(&mut self, disk: &mut D, bytes: &[u8]) -> io::Result<()> {
        disk.append(&mut self.file, bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}
