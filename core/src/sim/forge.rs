//! Datagrams that no honest node writes, from the drawings of the frames alone.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::damage::frames;
use super::net::Luck;
use crate::hash::mix2;
use crate::wire::{self, NoRoom, Sender, Writer};
use crate::{Identity, NodeId};

const PING: u8 = 0x01;
const PING_REQ: u8 = 0x03;
const UPDATES: u8 = 0x07;
const JOIN: u8 = 0x08;
const COOKIE: u8 = 0x09;
const BUCKETS: u8 = 0x0e;
const LISTED: u8 = 0x0f;
const OFFERED: u8 = 0x10;
const WANTED: u8 = 0x11;
const PUSH_PULL: u8 = 0x12;
const CHUNK: u8 = 0xa3;

/// Most bytes of a forged datagram.
const ROOM: usize = 1_200;

/// Kinds of [`nameless`].
pub(super) const NAMELESS: u64 = 9;

/// A datagram of a member that claims what it likes.
pub(super) fn datagram(
    cluster: &str,
    sender: (NodeId, u64),
    body: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let mut buf = vec![0; ROOM];
    let sender = Sender { id: sender.0, boot_epoch: sender.1 };
    let len = wire::seal(&mut buf, wire::cluster_tag(cluster), sender, body);
    buf.truncate(len.unwrap_or_default());
    buf
}

/// A datagram to `victim` of somebody whom nobody has let in: such as makes a careless node answer.
pub(super) fn nameless(kind: u64, cluster: &str, victim: NodeId, luck: &mut Luck) -> Vec<u8> {
    let sender = (NodeId(luck.next()), luck.next() >> 8);
    datagram(cluster, sender, |w| {
        let written = match kind {
            0 | 1 => w.frame(JOIN, |w| {
                w.u64(if kind == 0 { 0 } else { luck.next() })?;
                let addr = ([198, 51, 100, 99], 9).into();
                alive(w, sender, (0, 1), addr, "nobody")?;
                w.u8(1)
            }),
            // As many as fit: an answer to each would be a flood.
            2 => loop {
                let ping = w.frame(PING, |w| {
                    w.varint(luck.next() >> 40)?;
                    w.node(victim)
                });
                if ping.is_err() {
                    break Ok(());
                }
            },
            3 => w.frame(PING_REQ, |w| {
                w.varint(1)?;
                w.node(victim)?;
                w.varint(100)
            }),
            4 => w.frame(BUCKETS, |w| (0..64).try_for_each(|_| w.u32(luck.next() as u32))),
            5 => w.frame(LISTED, |w| {
                w.u32(luck.next() as u32)?;
                w.u8(luck.below(64) as u8)?;
                w.u32(0)?;
                w.u32(u32::MAX)
            }),
            6 => w.frame(if luck.below(2) == 0 { OFFERED } else { WANTED }, |w| {
                w.u32(luck.next() as u32)?;
                w.u8(luck.below(64) as u8)?;
                (0..64).try_for_each(|_| w.u32(luck.next() as u32))
            }),
            // A table of one, with the wish for another, as a node by the rules of memberlist would answer.
            7 => w.frame(PUSH_PULL, |w| {
                w.u8(1)?;
                w.u8(1)?;
                w.node(victim)?;
                w.u64(1)?;
                w.varint(u64::from(u32::MAX))?;
                w.u8(1)?;
                w.node(sender.0)
            }),
            _ => w.frame(COOKIE, |w| w.u64(luck.next())),
        };
        debug_assert!(written.is_ok(), "one frame fits");
    })
}

/// An alive row.
fn alive(
    w: &mut Writer<'_>,
    (id, boot): (NodeId, u64),
    (incarnation, version): (u32, u32),
    addr: SocketAddr,
    name: &str,
) -> Result<(), NoRoom> {
    w.u8(0)?;
    w.node(id)?;
    w.u64(boot)?;
    w.varint(u64::from(incarnation))?;
    w.varint(u64::from(version))?;
    w.addr(addr)?;
    w.bytes(name.as_bytes())?;
    w.bytes(b"")?;
    w.bytes(b"")?;
    w.varint(1)?;
    w.u64(mix2(id.0, boot))
}

/// What an insider says that is not so.
#[derive(Debug)]
pub(super) enum Claim<'c> {
    /// A member is suspected or dead, by the word of as many as a row has room for, at the highest
    /// incarnation that there is.
    Accused { of: &'c Identity, dead: bool, by: u64 },
    /// Members that there never were found that a member answers poorly, so long ago.
    Found { of: &'c Identity, by: u64, millis: u64 },
    /// A member says this of itself.
    Alive { of: &'c Identity, incarnation: u32, version: u32, addr: SocketAddr },
    /// There is a member that there never was.
    Phantom { number: u64, addr: SocketAddr },
    /// A replica has made a write that it has not made. To node, boot epoch and replica epoch.
    Dot { to: (NodeId, u64, u64), of: (NodeId, u64), counter: u64 },
}

impl Claim<'_> {
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        let written = match *self {
            Self::Accused { of, dead, by } => w.frame(UPDATES, |w| {
                w.u8(1 + u8::from(dead))?;
                w.node(of.id())?;
                w.u64(of.boot_epoch())?;
                w.varint(u64::from(u32::MAX))?;
                w.u8(16)?;
                (0..16).try_for_each(|accuser| w.u64(mix2(by, accuser)))
            }),
            Self::Found { of, by, millis } => w.frame(UPDATES, |w| {
                w.u8(4)?;
                w.node(of.id())?;
                w.u64(of.boot_epoch())?;
                w.varint(0)?;
                // Held out so often before, and so many are enough.
                w.put(&[(by % 4) as u8, 4])?;
                w.varint(millis)?;
                w.put(&[4, 0])?;
                (0..4).try_for_each(|observer| {
                    w.u64(mix2(by, observer))?;
                    w.varint(millis)
                })
            }),
            Self::Alive { of, incarnation, version, addr } => w.frame(UPDATES, |w| {
                alive(w, (of.id(), of.boot_epoch()), (incarnation, version), addr, of.name())
            }),
            Self::Phantom { number, addr } => w.frame(UPDATES, |w| {
                alive(w, (NodeId(number), 1), (0, 1), addr, &format!("phantom-{number:016x}"))
            }),
            Self::Dot { to: (node, boot, epoch), of, counter } => w.frame(CHUNK, |w| {
                w.u64(mix2(mix2(node.0, boot), epoch))?;
                w.varint(0)?;
                w.put(&[0, 0])?;
                w.node(of.0)?;
                w.u64(of.1)?;
                w.varint(counter)?;
                w.put(&[1, 1])?;
                w.bytes(format!("phantom-{counter}-{:04x}", of.0.0 & 0xffff).as_bytes())?;
                w.bytes(b"forged")
            }),
        };
        debug_assert!(written.is_ok(), "one frame fits");
    }
}

/// Whether a datagram has the last chunk of an answer.
pub(super) fn ends_a_train(bytes: &[u8]) -> bool {
    frames(bytes).iter().any(|(tag, _, body)| {
        let mut rest = body.iter().skip(8);
        let mut varint = || {
            let first = rest.next().copied().unwrap_or_default();
            let mut last = first;
            while last & 0x80 != 0 {
                last = rest.next().copied().unwrap_or_default();
            }
            first
        };
        *tag == CHUNK && varint() != 0 && {
            varint();
            rest.next().is_some_and(|flags| flags & 1 != 0)
        }
    })
}
