//! What reaches a node: datagrams and wake-ups, and what its troubles do again and again.

use super::fault::Trouble;
use super::net::{Expect, Luck};
use super::network::{Happening, Input};
use super::turn::Turn;
use super::world::Sim;
use crate::PacketError;
use crate::hash::mix2;
use crate::time::Instant;

impl Sim {
    /// Takes the next step, if it is not after `end`, and returns the place that it touched.
    pub fn step(&mut self, end: Instant) -> Option<usize> {
        loop {
            let touched = match self.net.step(end)? {
                Turn::Input(input) => self.take(input),
                Turn::Pulse { place, fault, count, trouble, luck } => {
                    self.pulse(place, fault, count, &trouble, luck)
                }
            };
            self.net.go_on();
            if touched.is_some() {
                self.inputs += 1;
                return touched;
            }
        }
    }

    /// The node takes an input. Returns its place, unless all that it did was to send.
    fn take(&mut self, input: Input) -> Option<usize> {
        let Input { place, now, what } = input;
        let node = self.places[place].node.as_mut()?;
        match what {
            Happening::Datagram { from, mut bytes, expect } => {
                self.trace = mix2(self.trace, crate::hash::stable(&bytes));
                let result = node.handle_packet(now, from, &mut bytes);
                let name = &self.places[place].name;
                assert!(expect.allows(&result), "{name} says {result:?} of {expect:?}: {bytes:?}");
                if let (Expect::Lie, Err(cause)) = (expect, result) {
                    *self.net.met.entry(refusal(cause)).or_default() += 1;
                }
                self.mark(place, 4);
            }
            Happening::Timer => {
                node.handle_timeout(now);
                self.mark(place, 5);
            }
            Happening::Writable => {
                self.send(place);
                self.arm(place);
                return None;
            }
        }
        self.after_input(place);
        Some(place)
    }

    /// A trouble of nodes does the next of the things that it does again and again.
    #[allow(clippy::wildcard_enum_match_arm)] // most troubles do nothing between their beginning and end
    fn pulse(
        &mut self,
        place: usize,
        fault: usize,
        count: u64,
        trouble: &Trouble,
        luck: Luck,
    ) -> Option<usize> {
        match *trouble {
            Trouble::Spoof(_) => {
                let input = self.spoof(place, luck)?;
                return self.take(input);
            }
            Trouble::Insider(how, _) => self.betray(place, how, count, luck),
            Trouble::RollingRestart(each) => self.roll(place, fault, count, each),
            Trouble::Restart(_) => self.come_back(place),
            _ => {}
        }
        None
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
