//! What a node hands out: datagrams, events, and when it wants to be called.

use super::checked::Checked;
use super::fault::Trouble;
use super::world::{End, Sim};
use crate::Event;
use crate::hash::mix2;

impl Sim {
    /// Sends what the node owes, takes its events, and notes when it wants to be called.
    pub(super) fn after_input(&mut self, place: usize) {
        if self.burn(place) {
            return;
        }
        self.net.charge(place);
        self.send(place);
        self.take_events(place);
        self.note_truth(place);
        self.arm(place);
    }

    pub(super) fn send(&mut self, place: usize) {
        let mut buf = core::mem::take(&mut self.buf);
        for train in 0_u32.. {
            let Some(room) = self.net.room(place, buf.len()) else { break };
            if train > 0 && self.burn_train(place, train) {
                break;
            }
            let Some(node) = &mut self.places[place].node else { break };
            let Some(sent) = node.poll_transmit(&mut buf[..room]) else { break };
            if self.kept_back(place, sent.to, sent.payload) {
                self.net.keep_back(place, sent.payload.len());
                continue;
            }
            let heading = self.net.dispatch(place, sent.to, sent.payload);
            if let (Some(probes), Some(to)) = (&mut self.probes, heading)
                && carries_ping(sent.payload)
            {
                probes.push((self.net.now, place, to));
            }
        }
        self.buf = buf;
    }

    pub(super) fn take_events(&mut self, place: usize) {
        if self.net.spots[place].has(|trouble| matches!(trouble, Trouble::Inattentive)) {
            return;
        }
        let spot = &mut self.places[place];
        let mut left = false;
        while let Some(mut event) = spot.node.as_mut().and_then(Checked::poll_event) {
            left |= matches!(event, Event::LeaveFinished { .. });
            if let Event::Joined { identity }
            | Event::Updated { identity }
            | Event::Restarted { identity, .. } = &mut event
            {
                let common =
                    self.identities.entry(identity.id()).or_insert_with(|| identity.clone());
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
        // A new boot epoch begins with incarnations of its own.
        let issued = life.epochs.entry(me.identity().boot_epoch()).or_default();
        *issued = me.incarnation().max(*issued);
    }

    pub(super) fn arm(&mut self, place: usize) {
        let due = self.places[place].node.as_ref().and_then(Checked::poll_timeout);
        self.net.arm(place, due);
    }

    pub(super) fn mark(&mut self, place: usize, what: u64) {
        let step = mix2(self.net.now.as_nanos(), (place as u64) << 8 | what);
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
