//! The frames of the map. All are optional frames: a member without a map skips them.
//!
//! ```text
//! tag  frame   body
//! a1   PULL    nonce varint, byte budget varint, puller's replica epoch u64,
//!              flags u8 (bit 0: lower bound, bit 1: upper bound, bit 2: fragments, bit 3: a full sync is wanted,
//!              whatever is known, bit 4: seals, bit 5: of some buckets, bit 6: a share is wanted,
//!              bit 7: some values wait to be written anew; none is left), [sum of the seals u64], [the buckets u64],
//!              [the share u8: 16 times how many there are (2..=3), and its number from 0 on],
//!              [entries held in part u8 (1..=8), each name u64, bytes varint], [replica: not above],
//!              [replica: not beyond], then per replica, ascending, to the end:
//!                replica, base varint, runs u8 (<= 32), per run: gap varint, length varint. If dots were set aside
//!                as overwritten, the number of runs is more by 128, and there follow: counters from the base to the
//!                limit of the first varint, dots in a row after the base that are known, or set aside with no
//!                limit beyond varint; counters from that limit to the greatest varint, dots in a row after
//!                those that are known or set aside varint, runs of such after them u8 (<= 32), and they as above
//! a2   STATE   digest of the context u64, digest of the content u64,
//!              [replica epoch u64, if it is not the boot epoch of the header]
//! a3   CHUNK   addressee u64, nonce varint (0: a push), [number varint, unless a push], flags u8 (bit 0: last of
//!              this pull, bit 1: there is more), then runs of claimed dots to the end:
//!                replica ref, first counter varint, dots u8 (1..=127), an item per dot; or, of dots each of
//!                which its replica overwrote not later than by a limit,
//!                replica ref, first counter varint, 0 u8, how many there are, less one, varint, counters from the
//!                last to the limit, less one, varint
//!
//! a4   FETCH   session u64, its number varint (from one on), flags u8 (bit 0: go on from where the last answer has
//!              got to, if that is further than the last range begins), byte budget varint, bytes held of a unit that
//!              comes in fragments varint, [their name u64, if any are], then the units that are missing, to the end
//!              (none: it is over): gap varint, length varint, at most 16 times
//! a5   STAGE   addressee u64, session u64, nonce of the pull or number of the FETCH varint, contexts varint, total varint,
//!              first varint, covered u32, flags u8 (bit 0: last of this answer), then units to the end:
//!              units skipped varint, the unit
//! a6   GONE    addressee u64, nonce or session u64: no full sync is given, or none any more
//!
//! a7   HAVE    names u64, number of the first varint, then bases varint to the end: the sender has all dots up to
//!              these of the replicas of which it has any or that are sealed, in their order, but for sealed lives
//!              of which it has all that counts. `names` is the sum of
//!              mix(mix2(node id, epoch)) over those
//!
//! a8   FRAGMENT  addressee u64, flags u8 (bit 0: of a unit, bit 1: last of this answer), of an answer to a pull
//!              nonce varint and chunk number varint, of a unit session u64 and unit varint, then XXH3 of the whole
//!              u64, its length varint, offset varint, and bytes to the end. The whole is an item with its run,
//!              or a unit
//!
//! a9   SEALS   flags u8 (bit 0: last of them, bit 1: merged lives), then seals to the end, each a replica, end varint,
//!              runs u8 (<= 16), per run: counters before it that are not void varint, length varint, less one; or
//!              what is left of the merged lives of nodes, each node id u64, the epoch below which they are u64, the
//!              sum of their seals u64, that of their shares in the digest of the context u64
//!
//! aa   BUCKETS nonce varint, puller's replica epoch u64, flags u8 (bit 0: seals), [sum of the seals u64], then 64 sums
//!              u64, or 32 where the datagram is short, each of two buckets. A replica is in the bucket of the highest six
//!              bits of its hash, mix2(node id, epoch). Its sum is its share of the
//!              digest of the context: of each base b of a replica mix2(!hash, b), of each dot n ahead of one mix2(hash, n)
//! ab   DIFFER  addressee u64, nonce varint, buckets u64 (bit i: the sums of bucket i differ). The nonce is that of a
//!              BUCKETS, and of the PULL that follows
//!
//! unit  below `contexts`: replica, base varint, floor varint, after varint, runs u8 (<= 16), per run: gap
//!                varint, length varint
//!       from there on, a slot of the sender: 0, replica ref, counter varint, key, value: a lone value
//!                without marks; 1, key, and the rest of a full item; 2, step varint, key, value: a lone value of the same
//!                replica as the one before it in the frame, by so much later (the lowest bit is 0), or earlier (1).
//!                Slots that are skipped are empty.
//!
//! item  0 ref    object number varint: a dot about a key that is in this chunk already
//!       1 own    key, value: the dot is the only sibling and supersedes all before it
//!       2 bare   key, value: the dot is the only sibling, and nothing is superseded
//!       3 full   key, siblings varint, each (replica ref, counter varint, value),
//!                superseded varint, each (replica ref, counter varint)
//!       4 key    key: the receiver has the object, it is named for its dot alone
//!       Numbers from 16 on are left for values that have a time to live, or go with their writers.
//! replica      node id u64, epoch u64
//! replica ref  0 and a replica: the next number of this chunk; k: number k - 1
//! key, value   a length and bytes
//! ```
//!
//! `addressee` is a hash of (node id, boot epoch, replica epoch) of the receiver: what was judged
//! against the context of one boot must not be applied by the next. If the sender has seals, it is that of this
//! hash and their sum, in all frames but GONE. The gap of a run is the number
//! of missing counters before it, less one; its length is the number of its counters, less one.

#![warn(clippy::indexing_slicing)]

use super::compare_wire::{self, Differ, Sums};
use super::dot::{MAX_COUNTER, ReplicaId};
use super::entry_wire::FullEntry;
use super::fragment_wire::{self, Fragment};
use super::full_wire::{self, Fetch, Stage};
use super::pull_wire::{self, Pull};
use super::seal_wire;
use super::skim::Skim;
use crate::hash;
use crate::id::NodeId;
use crate::wire::{NoRoom, PacketError, Reader, Writer};

pub(super) const PULL: u8 = 0xa1;
pub(super) const STATE: u8 = 0xa2;
pub(super) const CHUNK: u8 = 0xa3;
pub(super) const FETCH: u8 = 0xa4;
pub(super) const STAGE: u8 = 0xa5;
pub(super) const GONE: u8 = 0xa6;
pub(super) const HAVE: u8 = 0xa7;
pub(super) const FRAGMENT: u8 = 0xa8;
pub(super) const SEALS: u8 = 0xa9;
pub(super) const BUCKETS: u8 = 0xaa;
pub(super) const DIFFER: u8 = 0xab;

pub(super) const ITEM_REF: u8 = 0;
pub(super) const ITEM_OWN: u8 = 1;
pub(super) const ITEM_BARE: u8 = 2;
pub(super) const ITEM_FULL: u8 = 3;
pub(super) const ITEM_KEY: u8 = 4;

/// In the place of the number of items, of a run of dots that were overwritten.
pub(super) const OVERWRITTEN: u8 = 0;
pub(super) const FLAG_LAST: u8 = 1;
pub(super) const FLAG_MORE: u8 = 2;

/// Longest key that any configuration allows.
pub(super) const MAX_KEY: usize = 4_000;
/// Longest value that any configuration allows, far above what a datagram holds.
pub(super) const MAX_BYTES: usize = 65_536;

/// Whether the map owns frames of this tag.
pub(crate) const fn owns(tag: u8) -> bool {
    matches!(tag & 0x7f, 0x20..=0x3f)
}

/// The hash that names the receiver of a chunk.
pub(super) fn addressee(node: NodeId, boot_epoch: u64, replica_epoch: u64) -> u64 {
    hash::mix2(hash::mix2(node.0, boot_epoch), replica_epoch)
}

/// A frame as received; borrows the packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'p> {
    Pull(Pull<'p>),
    State {
        context: u64,
        content: u64,
        epoch: Option<u64>,
    },
    Chunk(Chunk<'p>),
    Fetch(Fetch<'p>),
    Stage(Stage<'p>),
    Gone {
        addressee: u64,
        number: u64,
    },
    Have(Have<'p>),
    Fragment(Fragment<'p>),
    Seals(seal_wire::Told<'p>),
    Buckets(Sums<'p>),
    Differ(Differ),
    /// An optional frame of a later version.
    Unknown,
}

/// The bases of its context that a peer tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Have<'p> {
    /// Which replicas they are about.
    pub(super) names: u64,
    /// How many of them come before these.
    pub(super) first: u64,
    rest: Reader<'p>,
}

impl Have<'_> {
    /// The next base.
    pub(super) fn next(&mut self) -> Result<Option<u64>, PacketError> {
        if self.rest.is_empty() { Ok(None) } else { counter(&mut self.rest, 0).map(Some) }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chunk<'p> {
    pub(super) addressee: u64,
    pub(super) nonce: u64,
    /// Its place in the answer to a pull.
    pub(super) number: u64,
    pub(super) last: bool,
    pub(super) more: bool,
    pub(super) items: Items<'p>,
}

/// Checks one frame completely, and gathers what a chunk names.
pub(super) fn check<'p>(tag: u8, body: &'p [u8], skim: &mut Skim<'p>) -> Result<(), PacketError> {
    if let Frame::Chunk(chunk) = parse(tag, body)? { skim.check(body, chunk.items) } else { Ok(()) }
}

/// Parses one frame; the items of a chunk are left to whoever walks them.
pub(super) fn parse(tag: u8, body: &[u8]) -> Result<Frame<'_>, PacketError> {
    let mut r = Reader::new(body);
    match tag {
        PULL => pull_wire::parse(r).map(Frame::Pull),
        STATE => {
            let (context, content) = (r.u64()?, r.u64()?);
            let epoch = if r.is_empty() { None } else { Some(r.u64()?) };
            r.finish()?;
            Ok(Frame::State { context, content, epoch })
        }
        CHUNK => {
            let (addressee, nonce) = (r.u64()?, r.varint()?);
            let number = if nonce == 0 { 0 } else { r.varint()? };
            let flags = r.u8()?;
            if flags & !(FLAG_LAST | FLAG_MORE) != 0 {
                return Err(PacketError::Malformed);
            }
            let items = Items::new(r);
            let (last, more) = (flags & FLAG_LAST != 0, flags & FLAG_MORE != 0);
            Ok(Frame::Chunk(Chunk { addressee, nonce, number, last, more, items }))
        }
        FETCH => full_wire::parse_fetch(r).map(Frame::Fetch),
        STAGE => full_wire::parse_stage(r).map(Frame::Stage),
        GONE => {
            let (addressee, number) = (r.u64()?, r.u64()?);
            r.finish()?;
            Ok(Frame::Gone { addressee, number })
        }
        HAVE => {
            let (names, first) = (r.u64()?, r.varint()?);
            let have = Have { names, first, rest: r };
            let mut check = have;
            while check.next()?.is_some() {}
            Ok(Frame::Have(have))
        }
        FRAGMENT => fragment_wire::parse(r).map(Frame::Fragment),
        SEALS => seal_wire::parse(r).map(Frame::Seals),
        BUCKETS => compare_wire::parse_buckets(r).map(Frame::Buckets),
        DIFFER => compare_wire::parse_differ(r).map(Frame::Differ),
        tag => crate::wire::unknown(tag).map(|()| Frame::Unknown),
    }
}

pub(super) fn replica(r: &mut Reader<'_>) -> Result<ReplicaId, PacketError> {
    Ok(ReplicaId::new(r.node()?, r.u64()?))
}

/// A counter from `min` on.
pub(super) fn counter(r: &mut Reader<'_>, min: u64) -> Result<u64, PacketError> {
    match r.varint()? {
        counter if (min..=MAX_COUNTER).contains(&counter) => Ok(counter),
        _ => Err(PacketError::LimitExceeded),
    }
}

pub(super) fn add(a: u64, b: u64, c: u64) -> Result<u64, PacketError> {
    let sum = a.checked_add(b).and_then(|sum| sum.checked_add(c));
    sum.filter(|sum| *sum <= MAX_COUNTER).ok_or(PacketError::LimitExceeded)
}

/// A replica as a chunk names it: introduced, or the number of one introduced before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaRef {
    New(ReplicaId),
    Known(usize),
}

/// One claimed dot, `counter` of the current run's replica, and what comes with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'p> {
    pub(super) counter: u64,
    pub(super) body: Body<'p>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'p> {
    Ref { object: usize },
    Own { key: &'p [u8], value: &'p [u8] },
    Bare { key: &'p [u8], value: &'p [u8] },
    Full { key: &'p [u8], entry: FullEntry<'p> },
    Key { key: &'p [u8] },
}

impl<'p> Body<'p> {
    /// The key that it names.
    pub(super) const fn key(&self) -> Option<&'p [u8]> {
        match *self {
            Self::Ref { .. } => None,
            Self::Own { key, .. }
            | Self::Bare { key, .. }
            | Self::Full { key, .. }
            | Self::Key { key } => Some(key),
        }
    }
}

/// What comes next in a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'p> {
    /// A run of this replica's dots begins.
    Run(ReplicaRef),
    Item(Item<'p>),
    /// Dots of this replica, each of which it overwrote by one that is not after the limit.
    Overwritten(ReplicaRef, Span),
}

/// A run of dots that were overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) limit: u64,
}

impl Span {
    /// Writes what follows the first counter.
    pub(super) fn write(&self, w: &mut Writer<'_>) -> Result<(), NoRoom> {
        w.u8(OVERWRITTEN)?;
        w.varint(self.to - self.from)?;
        w.varint(self.limit.saturating_sub(self.to + 1))
    }

    fn read(r: &mut Reader<'_>, from: u64) -> Result<Self, PacketError> {
        let to = add(from, r.varint()?, 0)?;
        Ok(Self { from, to, limit: add(to, r.varint()?, 1)? })
    }
}

pub(super) fn replica_ref(r: &mut Reader<'_>) -> Result<ReplicaRef, PacketError> {
    match r.varint()? {
        0 => replica(r).map(ReplicaRef::New),
        number => usize::try_from(number - 1)
            .map(ReplicaRef::Known)
            .map_err(|_| PacketError::LimitExceeded),
    }
}

/// A reference, after `replicas` replicas were introduced.
pub(super) fn checked_ref(
    r: &mut Reader<'_>,
    replicas: &mut usize,
) -> Result<ReplicaRef, PacketError> {
    let reference = replica_ref(r)?;
    match reference {
        ReplicaRef::New(_) => *replicas += 1,
        ReplicaRef::Known(number) if number < *replicas => {}
        ReplicaRef::Known(_) => return Err(PacketError::Malformed),
    }
    Ok(reference)
}

/// Walks the runs and items of a chunk, checking every reference.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Items<'p> {
    rest: Reader<'p>,
    left_in_run: u8,
    counter: u64,
    replicas: usize,
    objects: usize,
}

impl<'p> Items<'p> {
    /// Bytes that are left to walk.
    pub(super) const fn bytes(&self) -> usize {
        self.rest.remaining()
    }

    const fn new(rest: Reader<'p>) -> Self {
        Self { rest, left_in_run: 0, counter: 0, replicas: 0, objects: 0 }
    }

    /// Those of all that is left, once all of it is checked.
    pub(super) fn whole(r: Reader<'p>) -> Result<Self, PacketError> {
        let items = Self::new(r);
        let mut check = items;
        while check.next()?.is_some() {}
        Ok(items)
    }

    /// That of a chunk that was put together from fragments.
    pub(super) fn checked(bytes: &'p [u8]) -> Result<Self, PacketError> {
        let items = Self::new(Reader::new(bytes));
        let mut check = items;
        let (run, item) = (check.next()?, check.next()?);
        let body = |step| if let Step::Item(item) = step { Some(item.body) } else { None };
        let full = matches!(item.and_then(body), Some(Body::Full { .. }));
        // Limits were judged for one entry.
        let one = matches!(run, Some(Step::Run(_))) && full && check.next()?.is_none();
        if one { Ok(items) } else { Err(PacketError::Malformed) }
    }

    // In line, so that what it returns needs no memory of its own: a walk takes half the instructions.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<Step<'p>>, PacketError> {
        if self.left_in_run > 0 {
            self.left_in_run -= 1;
            self.counter += 1;
            let body = self.body()?;
            return Ok(Some(Step::Item(Item { counter: self.counter, body })));
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let replica = checked_ref(&mut self.rest, &mut self.replicas)?;
        let first = counter(&mut self.rest, 1)?;
        let dots = self.rest.u8()?;
        if dots == OVERWRITTEN {
            return self.overwritten(replica, first);
        }
        if dots > 127 {
            return Err(PacketError::LimitExceeded);
        }
        add(first, u64::from(dots), 0)?;
        (self.left_in_run, self.counter) = (dots, first - 1);
        Ok(Some(Step::Run(replica)))
    }

    // In line as well, seldom as it is: what one kind of step returns through memory all would, and wait for it.
    #[inline(always)]
    fn overwritten(
        &mut self,
        replica: ReplicaRef,
        first: u64,
    ) -> Result<Option<Step<'p>>, PacketError> {
        let span = Span::read(&mut self.rest, first)?;
        Ok(Some(Step::Overwritten(replica, span)))
    }

    #[inline(always)]
    fn body(&mut self) -> Result<Body<'p>, PacketError> {
        let kind = self.rest.u8()?;
        if kind == ITEM_REF {
            let object = self.rest.count(MAX_BYTES)?;
            return if object < self.objects {
                Ok(Body::Ref { object })
            } else {
                Err(PacketError::Malformed)
            };
        }
        self.objects += 1;
        let key = self.rest.bytes(MAX_KEY)?;
        match kind {
            ITEM_OWN => Ok(Body::Own { key, value: self.rest.bytes(MAX_BYTES)? }),
            ITEM_BARE => Ok(Body::Bare { key, value: self.rest.bytes(MAX_BYTES)? }),
            ITEM_FULL => self.full(key),
            ITEM_KEY => Ok(Body::Key { key }),
            _ => Err(PacketError::Malformed),
        }
    }

    #[inline(never)]
    fn full(&mut self, key: &'p [u8]) -> Result<Body<'p>, PacketError> {
        let entry = FullEntry::read(&mut self.rest, &mut self.replicas)?;
        Ok(Body::Full { key, entry })
    }
}

/// Bytes that [`write_replica`] takes.
pub(super) const REPLICA_LEN: usize = 16;

pub(super) fn write_replica(w: &mut Writer<'_>, id: ReplicaId) -> Result<(), NoRoom> {
    w.node(id.node)?;
    w.u64(id.epoch)
}
