//! What reaches a node: datagrams, wake-ups, noise.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::fault::{Fault, Trouble};
use super::net::{Expect, Luck};
use super::world::{INBOX, Sim, What, address};
use crate::PacketError;
use crate::hash::mix2;
use crate::time::Instant;

impl Sim {
    /// A datagram reaches a place, and its node unless that is busy.
    pub(super) fn arrive(
        &mut self,
        place: usize,
        from: SocketAddr,
        expect: Expect,
        mut bytes: Vec<u8>,
    ) -> Option<usize> {
        let spot = &mut self.places[place];
        spot.node.as_ref()?;
        if spot.has(|trouble| matches!(trouble, Trouble::Deaf)) {
            self.net.traffic.lost += 1;
            return None;
        }
        if spot.busy_until > self.now {
            let room =
                spot.find(
                    |trouble| if let Trouble::Inbox(room) = trouble { Some(*room) } else { None },
                );
            if spot.inbox.len() >= room.unwrap_or(INBOX) {
                self.net.traffic.overflowed += 1;
            } else {
                spot.inbox.push_back((from, bytes, expect));
            }
            return None;
        }
        self.net.traffic.delivered += 1;
        self.heard(place, from, bytes.len());
        self.trace = mix2(self.trace, crate::hash::stable(&bytes));
        self.mark(place, 4);
        let spot = &mut self.places[place];
        let now = spot.clock.show(self.now);
        let result = spot.node.as_mut()?.handle_packet(now, from, &mut bytes);
        let name = &spot.name;
        match (expect, result) {
            (Expect::Whole, Ok(()) | Err(PacketError::OwnPacket)) | (Expect::Damaged, _) => {}
            (Expect::Whole, _) => panic!("{name} refuses what another node sent: {result:?}"),
            (Expect::Lie, Ok(())) => panic!("{name} takes what cannot be: {bytes:?}"),
            (Expect::Lie, Err(cause)) => *self.met.entry(refusal(cause)).or_default() += 1,
        }
        self.after_input(place);
        Some(place)
    }

    /// A wake-up is due, unless it was put off.
    pub(super) fn wake(&mut self, place: usize, at: Instant) -> Option<usize> {
        let now = self.now;
        let spot = &mut self.places[place];
        if spot.wake != Some(at) {
            return None;
        }
        spot.wake = None;
        if spot.busy_until > now {
            // What it slept through is done after what has arrived meanwhile.
            return None;
        }
        let shown = spot.clock.show(now);
        let node = spot.node.as_mut()?;
        if node.poll_timeout().is_some_and(|due| due <= shown) {
            node.handle_timeout(shown);
            spot.idle_wakes = 0;
            self.mark(place, 5);
            self.after_input(place);
            return Some(place);
        }
        spot.idle_wakes += 1;
        assert!(
            spot.idle_wakes < 1_000,
            "OM11: {} wakes up again and again for nothing",
            spot.name
        );
        self.arm(place);
        None
    }

    /// The node at `place` can take input again: what has arrived first, one by one.
    pub(super) fn resume(&mut self, place: usize) -> Option<usize> {
        let spot = &mut self.places[place];
        if spot.busy_until > self.now {
            return None;
        }
        let Some((from, bytes, expect)) = spot.inbox.pop_front() else {
            self.arm(place);
            return None;
        };
        let touched = self.arrive(place, from, expect, bytes);
        let at = self.places[place].busy_until.max(self.now);
        self.push(at, What::Resume { place });
        touched
    }

    /// A fault does the next of the things that it does again and again.
    #[allow(clippy::wildcard_enum_match_arm)] // most troubles do nothing between their beginning and end
    pub(super) fn pulse(&mut self, place: usize, fault: usize, count: u64) -> Option<usize> {
        let (Fault::Node(_, trouble), luck) = self.faults.get(&fault)?.clone() else {
            return None;
        };
        let luck = Luck::new(self.seed ^ 0xf100d, place, count).fork(luck);
        if let Some(rate) = trouble.rate() {
            let pause = Duration::from_secs(1) / rate.max(1);
            self.push(self.now + pause, What::Pulse { place, fault, count: count + 1 });
        }
        match trouble {
            Trouble::Flood(_) => return self.noise(place, luck),
            Trouble::Replay(_) => return self.replay(place, luck),
            Trouble::Spoof(_) => return self.spoof(place, luck),
            Trouble::Insider(how, _) => self.betray(place, how, count, luck),
            Trouble::RollingRestart(each) => self.roll(place, fault, count, each),
            Trouble::Restart(_) => self.come_back(place),
            _ => {}
        }
        None
    }

    /// One datagram of noise.
    fn noise(&mut self, place: usize, mut luck: Luck) -> Option<usize> {
        let len = luck.next() % 200;
        let bytes = (0..len).map(|_| luck.next() as u8).collect();
        let from = address(usize::from(u16::MAX), 0);
        self.arrive(place, from, Expect::Damaged, bytes)
    }
}

impl Trouble {
    /// How many times per second it does something.
    #[allow(clippy::wildcard_enum_match_arm)] // as above
    const fn rate(&self) -> Option<u32> {
        match self {
            Self::Flood(rate) | Self::Replay(rate) | Self::Spoof(rate) | Self::Insider(_, rate) => {
                Some(*rate)
            }
            _ => None,
        }
    }
}

/// The causes of refusals, as they are counted.
const fn refusal(cause: PacketError) -> &'static str {
    match cause {
        PacketError::Truncated => "refused: truncated",
        PacketError::BadMagic => "refused: bad magic",
        PacketError::UnsupportedVersion => "refused: unsupported version",
        PacketError::Sealed => "refused: sealed",
        PacketError::WrongCluster => "refused: wrong cluster",
        PacketError::BadChecksum => "refused: bad checksum",
        PacketError::UnknownFrame => "refused: unknown frame",
        PacketError::Malformed => "refused: malformed",
        PacketError::LimitExceeded => "refused: limit exceeded",
        PacketError::OwnPacket => "refused: own packet",
    }
}
