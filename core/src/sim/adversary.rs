//! Adversaries without a key: whoever can record datagrams, send them again, and lie about who sends.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};

use super::forge;
use super::net::{Expect, Luck};
use super::network::{Input, Network};
use super::world::Sim;

/// Datagrams that a recording holds.
const RECORDED: u64 = 1_024;
/// Addresses of strangers, in a network for documentation: few, so that what goes to each adds up.
const STRANGERS: u64 = 8;

/// A datagram as it was sent.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    /// Places and the numbers of their lives at that time.
    from: (usize, usize),
    to: (usize, usize),
    source: SocketAddr,
    bytes: Vec<u8>,
}

/// What a node exchanged with an address at which nobody lives or ever did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// Bytes of datagrams that named it as their source.
    pub received: u64,
    /// Bytes that were sent there.
    pub sent: u64,
}

/// What is kept for adversaries and about them.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// What was recorded, if anybody wants to hear it again: each datagram at a place drawn by its luck. Every
    /// second place keeps the first for ever, the others the last.
    tape: Option<BTreeMap<u64, Recorded>>,
    /// By place and address.
    strangers: BTreeMap<(usize, SocketAddr), Exchange>,
}

/// What the network itself does with it.
impl Network {
    /// Records datagrams from now on, for [`Trouble::Replay`](super::Trouble::Replay) and
    /// [`Trouble::Spoof`](super::Trouble::Spoof). Either records by itself once it has begun.
    pub fn record(&mut self) {
        self.wire.tape.get_or_insert_default();
    }

    /// What each place exchanged with each address at which nobody lives or ever did: nobody there can have
    /// proven that the address is its own.
    #[must_use]
    pub const fn strangers(&self) -> &BTreeMap<(usize, SocketAddr), Exchange> {
        &self.wire.strangers
    }

    /// The `number`-th datagram of `from` is on its way to `to`.
    pub(super) fn tape(
        &mut self,
        from: usize,
        to: usize,
        source: SocketAddr,
        number: u64,
        bytes: &[u8],
    ) {
        let lives = |place: usize| (place, self.spots[place].lives);
        let (from, to) = (lives(from), lives(to));
        if let Some(tape) = &mut self.wire.tape {
            let at = Luck::new(self.seed ^ 0x7a9e, from.0, number).below(RECORDED);
            if at.is_multiple_of(2) || !tape.contains_key(&at) {
                tape.insert(at, Recorded { from, to, source, bytes: bytes.to_vec() });
            }
        }
    }

    /// A recorded datagram arrives once more where it was sent to, of another life of either end if there
    /// is one.
    pub(super) fn replay(&mut self, place: usize, mut luck: Luck) -> Option<Input> {
        self.record();
        let lives = |(place, life): (usize, usize)| self.spots[place].lives == life;
        let tape = self.wire.tape.as_ref()?;
        let sent: Vec<&Recorded> = tape.values().filter(|one| one.to.0 == place).collect();
        let older: Vec<&Recorded> =
            sent.iter().copied().filter(|one| !lives(one.from) || !lives(one.to)).collect();
        let from = if older.is_empty() || luck.below(2) == 0 { sent } else { older };
        let one = (*from.get(luck.below(from.len().max(1) as u64) as usize)?).clone();
        let across = !lives(one.to) || !lives(one.from);
        let input = self.arrive(place, one.source, Expect::Whole, one.bytes);
        if input.is_some() && across {
            *self.met.entry("replayed across a restart").or_default() += 1;
        }
        input
    }

    /// A recorded datagram, wherever it was sent to, arrives under a source that is not its own.
    pub(super) fn spoof(&mut self, place: usize, mut luck: Luck) -> Option<Input> {
        self.record();
        let source = self.some_source(&mut luck);
        let bytes = self.some_recorded(&mut luck)?;
        self.arrive(place, source, Expect::Whole, bytes)
    }

    /// A source to lie about: a place or a stranger.
    fn some_source(&self, luck: &mut Luck) -> SocketAddr {
        if luck.below(3) == 0 {
            self.spots[luck.below(self.spots.len() as u64) as usize].addr
        } else {
            stranger(luck.next())
        }
    }

    /// What somebody sent to somebody, if anything is recorded.
    fn some_recorded(&self, luck: &mut Luck) -> Option<Vec<u8>> {
        let tape = self.wire.tape.as_ref().filter(|tape| !tape.is_empty())?;
        let at = luck.below(tape.len() as u64) as usize;
        tape.values().nth(at).map(|one| one.bytes.clone())
    }

    /// A datagram reaches the program at `place`.
    pub(super) fn heard(&mut self, place: usize, from: SocketAddr, bytes: usize) {
        if is_stranger(from) {
            self.wire.strangers.entry((place, from)).or_default().received += bytes as u64;
        }
    }

    /// A datagram leaves `place` for where nobody lives.
    pub(super) fn lost_to(&mut self, place: usize, to: SocketAddr, bytes: usize) {
        if is_stranger(to) {
            self.wire.strangers.entry((place, to)).or_default().sent += bytes as u64;
            *self.met.entry("answered a stranger").or_default() += 1;
        }
    }
}

/// What takes an understanding of the protocol.
impl Sim {
    /// As [`Network::record`].
    pub fn record(&mut self) {
        self.net.record();
    }

    /// As [`Network::strangers`].
    #[must_use]
    pub const fn strangers(&self) -> &BTreeMap<(usize, SocketAddr), Exchange> {
        self.net.strangers()
    }

    /// A correct datagram arrives under a source that is not its own: recorded, wherever it was sent to, or
    /// made by whoever has no name in this cluster.
    pub(super) fn spoof(&mut self, place: usize, mut luck: Luck) -> Option<Input> {
        self.net.record();
        let source = self.net.some_source(&mut luck);
        let kind = luck.below(2 + forge::NAMELESS);
        let recorded = if kind < 2 { self.net.some_recorded(&mut luck) } else { None };
        let bytes = recorded.unwrap_or_else(|| {
            let victim = self.id(place);
            forge::nameless(kind.saturating_sub(2), &self.config.cluster, victim, &mut luck)
        });
        self.net.arrive(place, source, Expect::Whole, bytes)
    }
}

/// One of the addresses at which nobody lives.
pub(super) fn stranger(number: u64) -> SocketAddr {
    (Ipv4Addr::from(0xc633_6401 + (number % STRANGERS) as u32), 9).into()
}

fn is_stranger(addr: SocketAddr) -> bool {
    (0..STRANGERS).any(|number| stranger(number) == addr)
}
