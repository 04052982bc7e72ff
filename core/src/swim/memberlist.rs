//! The rules of HashiCorp memberlist, to be compared with: [`Rules::Memberlist`](super::Rules::Memberlist).
//!
//! What differs from this project's own rules, as read in memberlist's source of 2026-07:
//!
//! * a probe is one ping; after [`probe_timeout`](super::Config::probe_timeout), which local health does not stretch, `k`
//!   helpers are asked once, and a last ping stands for the one that memberlist tries over TCP; helpers tell after a
//!   timeout of their own that there is no answer, which is late, and each that does not counts against local health;
//! * whoever hears of a death believes it, and whoever hears nothing new says nothing: there are no corrections;
//! * a suspicion is told with its last accuser alone, and needs no second relay;
//! * updates are told a number of times, however many know them, and also to members that died lately;
//! * there are no digests; every half minute, less often in large clusters, a node exchanges its whole table with
//!   another one. In the simulator such datagrams are not lost where others are at random, for memberlist sends them over
//!   TCP. What the other holds suspect or dead this node suspects then by itself;
//! * nobody knocks at the lost: who has members does not look for others.
//!
//! Joins are those of this project, but the tables that follow are such an exchange. The format of all is that of this
//! project, whose rows take two thirds of the bytes.

use core::time::Duration;

use super::accuse::Accusation;
use super::member::{Case, State};
use super::outbox::Owed;
use super::row_wire::{self, Row, Rows};
use super::suspicion::Suspicion;
use super::wire;
use super::{Origin, Rules, Swim};
use crate::event::Event;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};
use alloc::boxed::Box;

/// Between two exchanges in a cluster of up to 32 members.
const PUSH_PULL: Duration = Duration::from_secs(30);

impl Swim {
    pub(super) fn is_memberlist(&self) -> bool {
        self.config.rules == Rules::Memberlist
    }

    /// A member is said to be suspect or dead.
    pub(super) fn accused_by_rumour(
        &mut self,
        now: Instant,
        slot: u32,
        incarnation: u32,
        dead: bool,
        from: NodeId,
    ) {
        let row = self.table.row_mut(slot);
        if incarnation < row.member.incarnation || !row.member.is_live() {
            return;
        }
        if dead || row.member.state == State::Alive {
            row.member.incarnation = incarnation;
        }
        if !dead {
            self.accuse(now, slot, [from].into_iter(), from, Accusation::Word);
            return;
        }
        let id = row.member.id();
        if row.member.state == State::Alive {
            self.events.push(Event::Suspected { id, by: from, why: Accusation::Word });
        }
        let mut suspicion = Suspicion::new(now);
        suspicion.add(&self.config, from, from);
        self.fail(now, slot, Case::Suspicion(Box::new(suspicion)));
    }

    /// Makes sure that tables are exchanged.
    pub(super) fn arm_push_pull(&mut self, now: Instant) {
        if self.is_memberlist() && self.push_pull_at.is_none() {
            self.push_pull_at = Some(now + self.rng.within(self.push_pull_interval()));
        }
    }

    /// Grows with the logarithm of the cluster's size.
    fn push_pull_interval(&self) -> Duration {
        let n = self.len().max(1).next_power_of_two().ilog2();
        PUSH_PULL * (n.saturating_sub(5) + 1)
    }

    pub(super) fn fire_push_pull(&mut self, now: Instant) {
        if self.push_pull_at.is_none_or(|at| at > now) {
            return;
        }
        self.push_pull_at = Some(now + self.push_pull_interval());
        let outbox = &mut self.outbox;
        self.table.sample(&mut self.rng, 1, |_| true, |slot| outbox.to(slot).owe_all(true));
    }

    /// A peer's table. By other rules nobody sends one, and whoever does is not believed.
    pub(super) fn on_push_pull(
        &mut self,
        now: Instant,
        origin: Origin,
        answer: bool,
        rows: Rows<'_>,
    ) {
        let is_peer = origin.slot.is_some() || self.joiner.was_asked(origin.from);
        if !is_peer || !self.is_memberlist() {
            self.stats.misaddressed += 1;
            return;
        }
        let mut rows = rows;
        while let Ok(Some(row)) = rows.next() {
            let Row::Accused { id, boot, incarnation, .. } = row else {
                self.apply_row(now, origin, row);
                continue;
            };
            let slot = self.table.slot(id).filter(|&slot| self.table.row(slot).boot() == boot);
            match slot {
                Some(super::member::ME) => self.apply_row(now, origin, row),
                Some(slot) => {
                    let me = self.table.me().id();
                    self.accused_by_rumour(now, slot, incarnation, false, me);
                }
                None => {}
            }
        }
        if answer && let Some(slot) = self.table.slot(origin.sender.id) {
            self.outbox.to(slot).owe_all(false);
        }
    }

    /// Writes as much as fits of the whole table, the dead included, and nothing else.
    pub(super) fn write_push_pull(&self, w: &mut Writer<'_>, to: u32, owed: &mut Owed) {
        let answer = owed.answer;
        let written = w.frame(wire::PUSH_PULL, |w| {
            w.u8(u8::from(answer))?;
            let start = w.len();
            self.write_buckets(w, |_| true, to, owed);
            let by = self.teller();
            while owed.buckets == 0
                && let Some(at) = owed.gone
            {
                let Some(&about) = self.table.gone().get(at) else {
                    owed.gone = None;
                    break;
                };
                if row_wire::write_row(w, self.table.about(about), by).is_err() {
                    break;
                }
                owed.gone = Some(at + 1);
            }
            if w.len() == start { Err(NoRoom) } else { Ok(()) }
        });
        owed.answer &= written.is_err();
    }
}
