//! The fuzzer's bytes, read as choices.

/// Reads choices from the front of the input. At its end every choice is zero, and loops over the
/// input end. All fields have a fixed width, so that a mutation of one leaves the others in place.
#[derive(Debug)]
pub(crate) struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    pub(crate) const fn new(rest: &'d [u8]) -> Self {
        Self { rest }
    }

    /// The next byte, or `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A choice among `n`, at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'d [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }
}
