//! The few things that are done to files.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often the lock is tried. A process that is just being started by another thread of the one that had it has it
/// too, until it is another program.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// Where a store keeps its file: a [`Folder`], or something that breaks in the ways that a test wants.
///
/// There is one file, which is replaced and never overwritten, and one that is to take its place.
pub trait Disk: Send {
    /// A file that is written from its beginning to its end.
    type File: Send;

    /// The bytes of the file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn read(&self) -> io::Result<Option<Box<dyn Read>>>;

    /// Begins a new file that is to take the place of the other, in the place of another such.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn create(&mut self) -> io::Result<Self::File>;

    /// Adds to the end of a file. After an error some of the bytes may be there.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn append(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file to so many bytes.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn truncate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;

    /// Returns when all of a file is durable.
    ///
    /// # Errors
    ///
    /// Those of the disk; what is durable is not known then.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// Puts the new file in the place of the other, in one step, and returns when that is durable.
    ///
    /// # Errors
    ///
    /// Those of the disk; either file may be in that place then.
    fn replace(&mut self) -> io::Result<()>;

    /// Removes the new file, if there is one; that it could not is no matter.
    fn discard(&mut self);

    /// Puts the file aside, for somebody to look at.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn put_aside(&mut self) -> io::Result<()>;
}

/// A file in a folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as this is.
    _lock: File,
}

impl Folder {
    /// The file at `path`, which need not exist; the folder that it is in must.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ResourceBusy`] if another has it; those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let lock = options.open(beside(path, ".lock"))?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(ErrorKind::ResourceBusy.into())
    }

    /// Makes durable which files the folder has.
    fn sync_folder(&self) -> io::Result<()> {
        // Elsewhere a folder cannot be opened, and renaming is as durable as it gets.
        if cfg!(unix) {
            let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
            File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }
}

impl Disk for Folder {
    type File = File;

    fn read(&self) -> io::Result<Option<Box<dyn Read>>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(Box::new(io::BufReader::new(file)))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self) -> io::Result<File> {
        File::create(beside(&self.path, ".new"))
    }

    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        file.set_len(len)?;
        io::Seek::seek(file, io::SeekFrom::Start(len)).map(drop)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn replace(&mut self) -> io::Result<()> {
        fs::rename(beside(&self.path, ".new"), &self.path)?;
        self.sync_folder()
    }

    fn discard(&mut self) {
        let _ = fs::remove_file(beside(&self.path, ".new"));
    }

    fn put_aside(&mut self) -> io::Result<()> {
        fs::rename(&self.path, beside(&self.path, ".damaged"))?;
        self.sync_folder()
    }
}

/// The same path with more of a name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
