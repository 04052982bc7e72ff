//! What holds of every state machine of the core after every call.

use std::net::SocketAddr;

use brickwork_core::map::Map;
use brickwork_core::swim::Swim;
use brickwork_core::{Instant, Node, PacketError, Transmit};

use crate::roll::Roll;

/// More datagrams than any machine may owe at once in these small clusters.
const MAX_SENT: usize = 4_096;

/// The verbs that all state machines of the core share.
pub(crate) trait Machine {
    fn handle_packet(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &mut [u8],
    ) -> Result<(), PacketError>;
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>>;
    fn poll_timeout(&self) -> Option<Instant>;
    /// Drains the events and compares what they add up to with the views.
    fn observe(&mut self, now: Instant, roll: &mut Roll);
}

macro_rules! machine {
    ($machine:ty, $observe:expr) => {
        impl Machine for $machine {
            fn handle_packet(
                &mut self,
                now: Instant,
                from: SocketAddr,
                packet: &mut [u8],
            ) -> Result<(), PacketError> {
                self.handle_packet(now, from, packet)
            }

            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }

            fn poll_transmit<'b>(&mut self, buf: &'b mut [u8]) -> Option<Transmit<'b>> {
                self.poll_transmit(buf)
            }

            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }

            fn observe(&mut self, now: Instant, roll: &mut Roll) {
                let observe: fn(&mut Self, Instant, &mut Roll) = $observe;
                observe(self, now, roll);
            }
        }
    };
}

machine!(Node, |node, now, roll| {
    while let Some(event) = node.poll_event() {
        roll.apply(now, &event);
    }
    roll.check(node.swim());
});
machine!(Swim, |swim, now, roll| {
    while let Some(event) = swim.poll_event() {
        roll.apply(now, &event);
    }
    roll.check(swim);
});
machine!(Map, |map, _, _| while map.poll_event().is_some() {});

/// Fires the timers that are due: afterwards the next one is later.
pub(crate) fn fire(machine: &mut impl Machine, now: Instant) {
    machine.handle_timeout(now);
    let next = machine.poll_timeout();
    assert!(next.is_none_or(|next| next > now), "no progress: due {next:?} at {now:?}");
}

/// Hands every datagram that is owed to `each`, polling with a buffer of `room` bytes; sending moves
/// no timer and comes to an end.
pub(crate) fn send(
    machine: &mut impl Machine,
    room: usize,
    mut each: impl FnMut(SocketAddr, &[u8]),
) {
    let mut buf = [0; 1400];
    let due = machine.poll_timeout();
    for _ in 0..MAX_SENT {
        let Some(sent) = machine.poll_transmit(&mut buf[..room]) else {
            assert_eq!(machine.poll_timeout(), due, "sending moved a timer");
            return;
        };
        assert!(sent.payload.len() <= room, "a datagram of {} bytes", sent.payload.len());
        each(sent.to, sent.payload);
    }
    panic!("more than {MAX_SENT} datagrams are owed at once");
}
