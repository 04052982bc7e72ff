//! The frames of membership.
//!
//! ```text
//! tag  frame           body
//! 01   PING            seq varint, target id u64
//! 02   ACK             seq varint
//! 03   PING_REQ        seq varint, target id u64, milliseconds left varint
//! 04   RELAYED_ACK     seq varint, target's boot epoch u64
//! 05   NACK            seq varint
//! 06   VERIFY          target id u64
//! 07   UPDATES         rows to the end: see `row_wire.rs`
//! 08   JOIN            cookie u64 (0: none), one alive row, whether it knows nobody u8 (0 or 1)
//! 09   COOKIE          cookie u64
//! 0a   CONFLICT        id u64, boot epoch that asked u64, address of the holder
//! 0b   BOOT_TOO_OLD    boot epoch that asked u64, known boot epoch u64
//! 0c   STRANGER        (empty)
//! 0d   LEFT_ACK        (empty)
//! 0e   BUCKETS         64 digests u32
//! 0f   LISTED          salt u32, bucket u8 (below 64), from u32, to u32, fingerprints u32 each, to the end
//! 10   OFFERED         salt u32, bucket u8 (below 64), fingerprints u32 each, one at least, to the end
//! 11   WANTED          as OFFERED
//! 12   PUSH_PULL       answer wanted u8 (0 or 1), rows to the end; only by the rules of memberlist
//! 81   TABLE_DIGEST    u64
//! ```

#![warn(clippy::indexing_slicing)]

use core::net::SocketAddr;

use super::member::{BUCKETS, Row as TableRow, State};
use super::outbox::{Msg, Print, Prints};
use super::row_wire::{AliveRow, Row, Rows, row, write_alive};
use crate::id::NodeId;
use crate::wire::{MAX_FRAME, NoRoom, PacketError, Reader, Writer};

const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const PING_REQ: u8 = 0x03;
const RELAYED_ACK: u8 = 0x04;
const NACK: u8 = 0x05;
const VERIFY: u8 = 0x06;
pub(super) const UPDATES: u8 = 0x07;
const JOIN: u8 = 0x08;
const COOKIE: u8 = 0x09;
const CONFLICT: u8 = 0x0a;
const BOOT_TOO_OLD: u8 = 0x0b;
const STRANGER: u8 = 0x0c;
const LEFT_ACK: u8 = 0x0d;
const BUCKETS_TAG: u8 = 0x0e;
const LISTED: u8 = 0x0f;
pub(super) const OFFERED: u8 = 0x10;
pub(super) const WANTED: u8 = 0x11;
pub(super) const PUSH_PULL: u8 = 0x12;
pub(super) const TABLE_DIGEST: u8 = 0x81;

/// Whether a frame of this tag is a ping.
#[cfg(feature = "sim")]
pub(crate) const fn is_ping(tag: u8) -> bool {
    tag == PING
}

/// Whether a datagram whose first frame has this tag stands for one of a reliable stream.
#[cfg(feature = "sim")]
pub(crate) const fn is_stream(tag: u8) -> bool {
    tag == PUSH_PULL
}

/// Whether a frame of this tag makes the table exchange look at a bucket.
pub(super) const fn looks_at_bucket(tag: u8) -> bool {
    matches!(tag, LISTED | OFFERED | WANTED)
}

/// Whether a frame of this tag belongs to the table exchange.
pub(super) const fn is_exchange(tag: u8) -> bool {
    matches!(tag, TABLE_DIGEST | BUCKETS_TAG | LISTED | OFFERED | WANTED)
}

/// Whether membership owns frames of this tag.
pub(crate) const fn owns(tag: u8) -> bool {
    matches!(tag & 0x7f, 0x01..=0x1f)
}

/// A frame as received; borrows the packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'p> {
    Ping {
        seq: u32,
        target: NodeId,
    },
    Ack {
        seq: u32,
    },
    PingReq {
        seq: u32,
        target: NodeId,
        millis: u16,
    },
    RelayedAck {
        seq: u32,
        boot: u64,
    },
    Nack {
        seq: u32,
    },
    Verify {
        target: NodeId,
    },
    Updates(Rows<'p>),
    Join {
        cookie: u64,
        row: AliveRow<'p>,
        alone: bool,
    },
    Cookie {
        cookie: u64,
    },
    Conflict {
        id: NodeId,
        asked: u64,
        holder: SocketAddr,
    },
    BootTooOld {
        asked: u64,
        boot: u64,
    },
    Stranger,
    LeftAck,
    Buckets(Digests<'p>),
    Listed(Listed<'p>),
    PushPull {
        answer: bool,
        rows: Rows<'p>,
    },
    Offered(Fingerprints<'p>),
    Wanted(Fingerprints<'p>),
    TableDigest {
        digest: u64,
    },
    /// An optional frame of a later version.
    Unknown,
}

/// Parses one frame completely, rows included.
pub(super) fn parse(tag: u8, body: &[u8]) -> Result<Frame<'_>, PacketError> {
    let mut r = Reader::new(body);
    let frame = match tag {
        PING => Frame::Ping { seq: r.varint32()?, target: r.node()? },
        ACK => Frame::Ack { seq: r.varint32()? },
        PING_REQ => Frame::PingReq {
            seq: r.varint32()?,
            target: r.node()?,
            millis: u16::try_from(r.varint()?).map_err(|_| PacketError::LimitExceeded)?,
        },
        RELAYED_ACK => Frame::RelayedAck { seq: r.varint32()?, boot: r.u64()? },
        NACK => Frame::Nack { seq: r.varint32()? },
        VERIFY => Frame::Verify { target: r.node()? },
        UPDATES => {
            let rows = Rows { rest: r };
            let mut check = rows;
            while check.next()?.is_some() {}
            return Ok(Frame::Updates(rows));
        }
        JOIN => {
            let cookie = r.u64()?;
            match row(&mut r)? {
                Row::Alive(row) => Frame::Join { cookie, row, alone: flag(&mut r)? },
                Row::Accused { .. } | Row::Left { .. } | Row::Standing(_) => {
                    return Err(PacketError::Malformed);
                }
            }
        }
        COOKIE => Frame::Cookie { cookie: r.u64()? },
        CONFLICT => Frame::Conflict { id: r.node()?, asked: r.u64()?, holder: r.addr()? },
        BOOT_TOO_OLD => Frame::BootTooOld { asked: r.u64()?, boot: r.u64()? },
        STRANGER => Frame::Stranger,
        LEFT_ACK => Frame::LeftAck,
        BUCKETS_TAG => {
            let digests = Digests(r.raw(4 * BUCKETS)?);
            Frame::Buckets(digests)
        }
        LISTED => {
            let (salt, bucket) = (r.u32()?, bucket(&mut r)?);
            let (from, to) = (r.u32()?, r.u32()?);
            if from > to {
                return Err(PacketError::Malformed);
            }
            return Ok(Frame::Listed(Listed { salt, bucket, from, to, list: list(&mut r)? }));
        }
        PUSH_PULL => {
            let answer = flag(&mut r)?;
            let rows = Rows { rest: r };
            let mut check = rows;
            while check.next()?.is_some() {}
            return Ok(Frame::PushPull { answer, rows });
        }
        OFFERED | WANTED => {
            let (salt, bucket) = (r.u32()?, bucket(&mut r)?);
            let some = Fingerprints { salt, bucket, list: list(&mut r)? };
            if some.list.is_empty() {
                return Err(PacketError::Malformed);
            }
            return Ok(if tag == OFFERED { Frame::Offered(some) } else { Frame::Wanted(some) });
        }
        TABLE_DIGEST => Frame::TableDigest { digest: r.u64()? },
        tag => return crate::wire::unknown(tag).map(|()| Frame::Unknown),
    };
    r.finish()?;
    Ok(frame)
}

fn flag(r: &mut Reader<'_>) -> Result<bool, PacketError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PacketError::Malformed),
    }
}

fn bucket(r: &mut Reader<'_>) -> Result<u8, PacketError> {
    let bucket = r.u8()?;
    if usize::from(bucket) < BUCKETS { Ok(bucket) } else { Err(PacketError::LimitExceeded) }
}

/// Fingerprints to the end of the frame.
fn list<'p>(r: &mut Reader<'p>) -> Result<&'p [u8], PacketError> {
    let len = r.remaining();
    if len.is_multiple_of(4) { r.raw(len) } else { Err(PacketError::Truncated) }
}

/// The digests of all buckets. Borrowed, or each frame that is parsed would be as long as these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digests<'p>(&'p [u8]);

impl Digests<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        fingerprints(self.0)
    }
}

/// What the sender has in a range of one bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'p> {
    pub(super) salt: u32,
    pub(super) bucket: u8,
    pub(super) from: u32,
    pub(super) to: u32,
    list: &'p [u8],
}

/// Some of one bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprints<'p> {
    pub(super) salt: u32,
    pub(super) bucket: u8,
    list: &'p [u8],
}

fn fingerprints(list: &[u8]) -> impl Iterator<Item = u32> {
    list.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

impl Listed<'_> {
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = u32> {
        fingerprints(self.list)
    }
}

impl Fingerprints<'_> {
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = u32> {
        fingerprints(self.list)
    }
}

/// What a message needs besides itself.
pub(super) struct Context<'t> {
    /// This node's row, for joins …
    pub(super) me: &'t TableRow,
    /// … and whether it knows nobody.
    pub(super) alone: bool,
    /// The bucket digests.
    pub(super) digests: &'t dyn Fn(usize) -> u32,
    /// The row of the member that is written to.
    pub(super) to: Option<&'t TableRow>,
    /// Where the member of that id lives.
    pub(super) addr: Option<SocketAddr>,
}

/// Writes one message as a frame of its own.
pub(super) fn write_msg(w: &mut Writer<'_>, msg: Msg, context: &Context<'_>) -> Result<(), NoRoom> {
    match msg {
        Msg::Ping { seq, target } => w.frame(PING, |w| {
            w.varint(u64::from(seq))?;
            w.node(target)
        }),
        Msg::Ack { seq } => w.frame(ACK, |w| w.varint(u64::from(seq))),
        Msg::PingReq { seq, target, millis } => w.frame(PING_REQ, |w| {
            w.varint(u64::from(seq))?;
            w.node(target)?;
            w.varint(u64::from(millis))
        }),
        Msg::RelayedAck { seq, boot } => w.frame(RELAYED_ACK, |w| {
            w.varint(u64::from(seq))?;
            w.u64(boot)
        }),
        Msg::Nack { seq } => w.frame(NACK, |w| w.varint(u64::from(seq))),
        Msg::Verify { target } => w.frame(VERIFY, |w| w.node(target)),
        // Whoever began to leave before the join went out does not want in any more.
        Msg::Join { .. } if !context.me.member.is_live() => Ok(()),
        Msg::Join { cookie } => w.frame(JOIN, |w| {
            w.u64(cookie)?;
            write_alive(w, context.me)?;
            w.u8(u8::from(context.alone))
        }),
        Msg::Cookie { cookie } => w.frame(COOKIE, |w| w.u64(cookie)),
        Msg::Conflict { id, asked } => match context.addr {
            Some(holder) => w.frame(CONFLICT, |w| {
                w.node(id)?;
                w.u64(asked)?;
                w.addr(holder)
            }),
            None => Ok(()),
        },
        Msg::BootTooOld { asked, boot } => w.frame(BOOT_TOO_OLD, |w| {
            w.u64(asked)?;
            w.u64(boot)
        }),
        Msg::Accused { by, incarnation } => match context.to {
            Some(to) => w.frame(UPDATES, |w| {
                w.u8(State::Suspect as u8)?;
                w.node(to.member.id())?;
                w.u64(to.boot())?;
                w.varint(u64::from(incarnation))?;
                w.u8(1)?;
                w.node(by)
            }),
            None => Ok(()),
        },
        Msg::Stranger => w.frame(STRANGER, |_| Ok(())),
        Msg::LeftAck => w.frame(LEFT_ACK, |_| Ok(())),
        Msg::Buckets => w.frame(BUCKETS_TAG, |w| {
            (0..BUCKETS).try_for_each(|bucket| w.u32((context.digests)(bucket)))
        }),
    }
}

/// Tag and length of a frame, salt, bucket and range.
const LIST_HEAD: usize = 3 + 4 + 1 + 8;

/// How many fingerprints a list has room for.
pub(super) fn listed_room(w: &Writer<'_>) -> usize {
    w.room().min(MAX_FRAME).saturating_sub(LIST_HEAD) / 4
}

/// Writes a list; of `list` the second of each.
pub(super) fn write_listed(
    w: &mut Writer<'_>,
    salt: u32,
    bucket: u8,
    (from, to): (u32, u32),
    list: &[(u32, u32)],
) -> Result<(), NoRoom> {
    w.frame(LISTED, |w| {
        w.u32(salt)?;
        w.u8(bucket)?;
        w.u32(from)?;
        w.u32(to)?;
        list.iter().try_for_each(|&(_, fingerprint)| w.u32(fingerprint))
    })
}

/// Writes frames of `tag` with as many fingerprints as fit, and takes those off the list.
pub(super) fn write_some(w: &mut Writer<'_>, tag: u8, prints: &mut Prints) {
    let (mut rest, mut done) = (&prints.list[..], 0);
    while let Some(&Print { salt, bucket, .. }) = rest.first() {
        let run = rest.iter().take_while(|other| (other.salt, other.bucket) == (salt, bucket));
        let (some, others) = rest.split_at(run.take(listed_room(w)).count());
        let written = w.frame(tag, |w| {
            w.u32(salt)?;
            w.u8(bucket)?;
            some.iter().try_for_each(|print| w.u32(print.fingerprint))?;
            if some.is_empty() { Err(NoRoom) } else { Ok(()) }
        });
        if written.is_err() {
            break;
        }
        done += some.len();
        rest = others;
    }
    prints.list.drain(..done);
}
