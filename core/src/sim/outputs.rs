//! What a node hands out: datagrams, events, and when it wants to be called.

use core::cmp::Reverse;
use core::net::SocketAddr;

use super::checked::Checked;
use super::fault::Trouble;
use super::net::Luck;
use super::world::{End, Sim, What};
use crate::Event;
use crate::hash::mix2;
use crate::time::Instant;

impl Sim {
    /// Sends what the node owes, takes its events, and notes when it wants to be called.
    pub(super) fn after_input(&mut self, place: usize) {
        if self.burn(place) {
            return;
        }
        let spot = &mut self.places[place];
        if let Some(cost) =
            spot.find(|trouble| if let Trouble::Slow(cost) = trouble { Some(*cost) } else { None })
        {
            // A node that starts while it is paused stays so.
            spot.busy_until = spot.busy_until.max(self.now + cost);
            let at = spot.busy_until;
            self.push(at, What::Resume { place });
        }
        self.send(place);
        self.take_events(place);
        self.note_truth(place);
        self.arm(place);
    }

    pub(super) fn send(&mut self, place: usize) {
        let spot = &self.places[place];
        if spot.has(|trouble| matches!(trouble, Trouble::Blocked)) {
            return;
        }
        let room =
            spot.find(
                |trouble| if let Trouble::ShortBuffer(room) = trouble { Some(*room) } else { None },
            );
        let room = room.unwrap_or(self.buf.len()).clamp(crate::MIN_DATAGRAM, self.buf.len());
        let mute = spot.has(|trouble| matches!(trouble, Trouble::Mute));
        let most = self.room_to_send(place);
        let mut buf = core::mem::take(&mut self.buf);
        for train in 0_u32.. {
            if most.is_some_and(|most| train >= most) {
                if train > 0 {
                    self.fill(place);
                }
                break;
            }
            if train > 0 && self.burn_train(place, train) {
                break;
            }
            let spot = &mut self.places[place];
            let Some(node) = &mut spot.node else { break };
            let Some(sent) = node.poll_transmit(&mut buf[..room]) else { break };
            spot.sent += 1;
            let (number, from) = (spot.sent, spot.source());
            self.net.traffic.sent += 1;
            self.net.traffic.bytes += sent.payload.len() as u64;
            if mute || self.kept_back(place, sent.to, sent.payload) {
                self.net.traffic.lost += 1;
            } else {
                self.post(place, from, sent.to, number, sent.payload);
            }
        }
        self.buf = buf;
    }

    fn post(&mut self, from: usize, source: SocketAddr, to: SocketAddr, number: u64, bytes: &[u8]) {
        let Some(&place) = self.by_addr.get(&to) else {
            self.net.traffic.nowhere += 1;
            self.lost_to(from, to, bytes.len());
            return;
        };
        if let Some(probes) = &mut self.probes
            && carries_ping(bytes)
        {
            probes.push((self.now, from, place));
        }
        self.tape(from, place, source, bytes);
        for copy in self.net.carry(self.now, from, place, number, bytes) {
            let what = What::Arrive { place, from: source, expect: copy.expect, bytes: copy.bytes };
            match copy.at {
                Some(at) => self.push(at, what),
                None => self.clogged.push((from, place, what)),
            }
        }
    }

    pub(super) fn take_events(&mut self, place: usize) {
        let spot = &mut self.places[place];
        if spot.has(|trouble| matches!(trouble, Trouble::Inattentive)) {
            return;
        }
        let mut left = false;
        while let Some(mut event) = spot.node.as_mut().and_then(Checked::poll_event) {
            left |= matches!(event, Event::LeaveFinished { .. });
            if let Event::Joined { identity }
            | Event::Updated { identity }
            | Event::Restarted { identity, .. } = &mut event
            {
                let common = self.identities.entry(identity.id).or_insert_with(|| identity.clone());
                if common == identity {
                    *identity = common.clone();
                } else {
                    *common = identity.clone();
                }
                if let Some(node) = &mut spot.node {
                    node.share(common);
                }
            }
            spot.events.push(event);
        }
        if left {
            self.stop(place, End::Leave);
        }
    }

    /// What the node says of itself is the truth about it.
    pub(super) fn note_truth(&mut self, place: usize) {
        let spot = &mut self.places[place];
        let (Some(node), Some(life)) = (&spot.node, spot.lives.last_mut()) else { return };
        let me = node.node().swim().me();
        let epoch = me.identity().boot_epoch;
        if !life.epochs.contains(&epoch) {
            // A new boot epoch begins with incarnations of its own.
            life.epochs.push(epoch);
            life.incarnation = 0;
        }
        life.incarnation = life.incarnation.max(me.incarnation());
    }

    pub(super) fn arm(&mut self, place: usize) {
        let late = self.places[place]
            .find(|trouble| if let Trouble::LateTimers(by) = trouble { Some(*by) } else { None });
        let spot = &mut self.places[place];
        let due = spot.node.as_ref().and_then(Checked::poll_timeout);
        let Some(mut at) = due.map(|due| spot.clock.when(due).max(self.now)) else {
            spot.wake = None;
            return;
        };
        if let Some(by) = late {
            at += Luck::new(self.seed ^ 0x1a7e, place, spot.sent).within(by);
        }
        at = at.max(spot.busy_until);
        if spot.wake != Some(at) {
            spot.wake = Some(at);
            self.push(at, What::Wake { place });
        }
    }

    pub(super) fn push(&mut self, at: Instant, what: What) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, what)));
    }

    pub(super) fn mark(&mut self, place: usize, what: u64) {
        let step = mix2(self.now.as_nanos(), (place as u64) << 8 | what);
        self.trace = mix2(self.trace, step);
    }
}

fn carries_ping(datagram: &[u8]) -> bool {
    let mut frames = crate::wire::frames(datagram);
    while let Ok(Some((tag, _))) = frames.next() {
        if crate::swim::is_ping(tag) {
            return true;
        }
    }
    false
}
