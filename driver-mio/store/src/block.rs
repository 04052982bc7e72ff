//! Telling chunks in a file from one another.

use std::io::{self, ErrorKind, Read};

/// Bytes before those of the chunk.
const HEAD: usize = 8;

/// Length of the block of a chunk.
pub(crate) const fn len(chunk: &[u8]) -> u64 {
    (HEAD + chunk.len()) as u64
}

/// Adds the block of a chunk that will begin at `offset` of the file.
pub(crate) fn put(out: &mut Vec<u8>, offset: u64, chunk: &[u8]) -> io::Result<()> {
    let len = u32::try_from(chunk.len())
        .map_err(|_| io::Error::new(ErrorKind::FileTooLarge, "a chunk of over four gibibytes"))?;
    out.extend(len.to_le_bytes());
    out.extend(check(offset, len).to_le_bytes());
    out.extend(chunk);
    Ok(())
}

#[allow(clippy::cast_possible_truncation)] // the low half
fn check(offset: u64, len: u32) -> u32 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes) as u32
}

/// How the blocks of a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With the last one, or in the midst of one that a crash cut short.
    Sound,
    /// With a head that is none.
    Damaged,
}

/// The chunks of a file, in order.
#[derive(Debug)]
pub(crate) struct Blocks<R> {
    file: R,
    offset: u64,
    /// How many there were.
    pub(crate) count: u64,
    /// How they ended, if they have.
    pub(crate) end: Option<End>,
    pub(crate) error: Option<io::Error>,
}

impl<R: Read> Blocks<R> {
    pub(crate) const fn new(file: R) -> Self {
        Self { file, offset: 0, count: 0, end: None, error: None }
    }

    fn read(&mut self) -> io::Result<Result<Vec<u8>, End>> {
        let mut head = Vec::with_capacity(HEAD);
        self.file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        let Some((len, sum)) = head.split_first_chunk::<4>() else { return Ok(Err(End::Sound)) };
        let Ok(sum) = sum.try_into() else { return Ok(Err(End::Sound)) };
        let len = u32::from_le_bytes(*len);
        if u32::from_le_bytes(sum) != check(self.offset, len) {
            return Ok(Err(End::Damaged));
        }
        let mut chunk = Vec::new();
        self.file.by_ref().take(u64::from(len)).read_to_end(&mut chunk)?;
        if chunk.len() < len as usize {
            return Ok(Err(End::Sound));
        }
        self.offset += self::len(&chunk);
        Ok(Ok(chunk))
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.end.is_some() || self.error.is_some() {
            return None;
        }
        match self.read() {
            Ok(Ok(chunk)) => {
                self.count += 1;
                Some(chunk)
            }
            Ok(Err(end)) => {
                self.end = Some(end);
                None
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}
