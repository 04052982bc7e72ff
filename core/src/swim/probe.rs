//! The failure detector: probing members.
//!
//! One probe is in flight at a time (SWIM section 3.1), but while many members are suspected at once. A probe is sent again every few round trips until
//! its deadline, directly and, from `probe_timeout` on, through helpers: single losses are no
//! evidence. Each ping has a number of its own, so that every answer tells how far away the member is,
//! and how many pings were lost, which one number for all could not (Karn and Partridge 1987). The verdict falls at the
//! probe's own deadline.

use alloc::vec::Vec;
use core::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::accuse::Accusation;
use super::member::{ME, State};
use super::outbox::Msg;
use super::relay::Relay;
use super::suspicion::Suspicion;
use super::why::{History, Probed};
use super::{Origin, Swim};
use crate::id::NodeId;
use crate::reached::reached;
use crate::rng::Rng;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Most members that wait to be verified for others.
const MAX_URGENT: usize = 8;
/// Pings of a probe that have numbers of their own; those after them share the last. A second's probe has so many at most.
const MOST_NUMBERS: u32 = 24;
/// Probes in flight while many members are suspected.
const AT_ONCE: u32 = 4;
/// So many of the schedule are passed over at once, of whom enough is known.
const DRAWS: usize = 8;
/// Mean tries, in 256ths, above which a probe may fail by chance.
const MANY_TRIES: u32 = 256 * 9 / 4;

/// The probe in flight.
#[derive(Debug)]
struct Probe {
    slot: u32,
    target: NodeId,
    boot: u64,
    /// The number of the first ping. Each has one of its own, so that an answer tells which one it is to.
    seq: u32,
    /// When each of them left, so far, or else was queued.
    left: SmallVec<[Instant; MOST_NUMBERS as usize]>,
    retry_at: Instant,
    helpers_at: Option<Instant>,
    deadline: Instant,
    tries: u32,
    /// Whether a ping was collected at least once, …
    sent: bool,
    /// … and whether the last one was.
    last_sent: bool,
    helpers: SmallVec<[NodeId; 4]>,
    /// Helpers that said that they are there but the member is not.
    nacks: SmallVec<[NodeId; 4]>,
}

impl Probe {
    /// Which of its pings has the number.
    fn place(&self, seq: u32) -> Option<usize> {
        let place = seq.wrapping_sub(self.seq) as usize;
        (place < self.left.len()).then_some(place)
    }

    fn next(&self) -> Instant {
        let at = self.retry_at.min(self.deadline);
        self.helpers_at.map_or(at, |helpers| at.min(helpers))
    }

    /// Whether that member helps with it, by the number of its request.
    fn asked(&self, helper: NodeId, seq: u32) -> bool {
        self.seq == seq && self.helpers.contains(&helper)
    }

    /// The number of the last one.
    fn last_seq(&self) -> u32 {
        self.seq.wrapping_add(self.tries.min(MOST_NUMBERS) - 1)
    }
}

#[derive(Debug)]
pub(super) struct Prober {
    /// The probes in flight, …
    probes: Vec<Probe>,
    /// … and how many there may be.
    pub(super) most: u32,
    /// When the next scheduled probe starts; armed while there is a live peer.
    tick: Option<Instant>,
    /// Members to probe before the schedule's next, because an accuser asked.
    urgent: SmallVec<[u32; 8]>,
    /// Whether the last probe was of one of those.
    was_urgent: bool,
    pub(super) relays: Vec<Relay>,
    seq: u32,
    pub(super) history: History,
    /// Lifeguard's local health score, 0 when healthy.
    pub(super) health: u32,
    /// How often members are asked until they answer: a moving mean, in 256ths.
    tries: u32,
    /// The longest round trip of late: it shrinks by a sixteenth with every answer.
    farthest: Duration,
}

impl Prober {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            probes: Vec::new(),
            most: 1,
            tick: None,
            urgent: SmallVec::new(),
            was_urgent: false,
            relays: Vec::new(),
            seq: rng.u32() >> 12,
            history: History::default(),
            health: 0,
            tries: 256,
            farthest: Duration::ZERO,
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let probes = self.probes.iter().map(Probe::next);
        // A tick that falls into a probe waits for its end.
        let tick = self.tick.filter(|_| self.has_room());
        let relays = self.relays.iter().map(Relay::next);
        relays.chain(probes).chain(tick).min()
    }

    /// Ends the probe at that place, where it stands: it is several hundred bytes long.
    fn end(&mut self, at: usize) {
        let last = self.probes.len() - 1;
        if at < last {
            self.probes.swap(at, last);
        }
        self.probes.truncate(last);
    }

    fn has_room(&self) -> bool {
        self.probes.len() < self.most as usize
    }

    fn is_probed(&self, slot: u32) -> bool {
        self.probes.iter().any(|probe| probe.slot == slot)
    }

    /// Notes that a ping left.
    pub(super) fn sent(&mut self, seq: u32) {
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.place(seq).is_some()) {
            probe.sent = true;
            probe.last_sent |= seq == probe.last_seq();
        }
    }

    /// Has the member probed before the schedule's next, unless it is under probe or too many wait.
    pub(super) fn probe_soon(&mut self, slot: u32) {
        if !self.is_probed(slot) && self.urgent.len() < MAX_URGENT && !self.urgent.contains(&slot) {
            self.urgent.push(slot);
        }
    }

    /// How many probes must fail before what few say of a member is believed. One, where losses are so few that all tries
    /// of a probe are not lost by chance; two where members are asked more than twice until they answer, from a third of
    /// all datagrams on. Of a thousand members at 40 % loss eight probes fail by chance each second, and who asked for no
    /// second one held two live members dead within 166 member-hours.
    pub(super) fn looks(&self) -> u8 {
        if self.tries > MANY_TRIES { 2 } else { 1 }
    }

    /// How often members are asked until they answer: a moving mean, in 256ths.
    pub(super) const fn usual_tries(&self) -> u32 {
        self.tries
    }

    fn answered(&mut self, tries: u32, rtt: Option<Duration>) {
        self.farthest = (self.farthest - self.farthest / 16).max(rtt.unwrap_or_default());
        self.tries = self.tries - self.tries / 16 + tries.min(16) * 256 / 16;
    }

    /// Drops the probes in flight: whatever answers them is of no use.
    pub(super) fn forget_probes(&mut self) {
        self.probes.clear();
    }

    pub(super) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// The first of so many numbers that follow each other.
    pub(super) fn next_seqs(&mut self, count: u32) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(count);
        first
    }
}

impl Swim {
    /// Makes sure that probing goes on now that there is a live peer.
    pub(super) fn arm_probe(&mut self, now: Instant) {
        if self.prober.tick.is_none() {
            let wait = self.rng.within(self.config.probe_interval);
            self.prober.tick = Some(now + wait);
        }
    }

    pub(super) fn fire_probe(&mut self, now: Instant) {
        self.fire_relays(now);
        let due = self.prober.probes.iter().map(|probe| probe.deadline).min();
        let due = due.filter(|due| *due <= now);
        let stalled = self.notice_stall(now, due);
        for at in (0..self.prober.probes.len()).rev() {
            let Some(probe) = self.prober.probes.get_mut(at) else { continue };
            if probe.deadline <= now || stalled {
                self.verdict(now, at, stalled);
                continue;
            }
            if probe.helpers_at.is_some_and(|due| due <= now) {
                probe.helpers_at = None;
                self.ask_helpers(now, at);
            }
            self.retry(now, at);
        }
        self.start_probes(now);
    }

    /// Starts the probes for which there is room. That may be done upon a packet, when others that are due may not be judged: the
    /// answer to them may be the next packet.
    fn start_probes(&mut self, now: Instant) {
        self.prober.most = if self.may_hurry() { AT_ONCE } else { 1 };
        while self.prober.has_room()
            && let Some(slot) = self.next_to_probe(now)
        {
            self.start_probe(now, slot);
        }
    }

    fn next_to_probe(&mut self, now: Instant) -> Option<u32> {
        // By turns with the schedule, or else many who are suspected would keep all others waiting.
        let due = self.prober.tick.is_some_and(|at| at <= now);
        let urgent = !due || !core::mem::take(&mut self.prober.was_urgent);
        if urgent
            && !self.prober.urgent.is_empty()
            && !self.leave.started()
            && let slot = self.prober.urgent.remove(0)
            && self.table.try_row(slot).is_some_and(|row| row.member.is_live())
            && !self.prober.is_probed(slot)
        {
            self.prober.was_urgent = true;
            return Some(slot);
        }
        if self.prober.tick.is_none_or(|at| at > now) {
            return None;
        }
        self.prober.tick = None;
        if self.leave.started() {
            return None;
        }
        let slot = self.next_scheduled()?;
        let interval = self.stretched(self.config.probe_interval);
        self.prober.tick = Some(now + interval / self.prober.most);
        (!self.prober.is_probed(slot)).then_some(slot)
    }

    /// The next of the schedule; while many are suspected, rather one of whom that is not known well enough.
    fn next_scheduled(&mut self) -> Option<u32> {
        let mut slot = self.table.next_probe(&mut self.rng)?;
        for _ in 0..DRAWS {
            let suspicion = self.table.row(slot).suspicion();
            let known = suspicion.is_some_and(|suspicion| suspicion.is_full(&self.config));
            if self.prober.most == 1 || !known && !self.prober.is_probed(slot) {
                break;
            }
            slot = self.table.next_probe(&mut self.rng)?;
        }
        Some(slot)
    }

    fn start_probe(&mut self, now: Instant, slot: u32) {
        let seq = self.prober.next_seqs(MOST_NUMBERS);
        let member = self.table.member(slot);
        let (target, boot) = (member.id(), member.identity.boot_epoch());
        let time = self.stretched(self.config.probe_interval);
        // Helpers have as long as the member had.
        let time = if self.is_eased() { time.min(self.until_helpers(slot) * 2) } else { time };
        self.prober.probes.push(Probe {
            slot,
            target,
            boot,
            seq,
            left: smallvec![now],
            retry_at: now + self.retry_interval(slot),
            helpers_at: Some(now + self.until_helpers(slot)),
            deadline: now + time,
            tries: 1,
            sent: false,
            last_sent: false,
            helpers: SmallVec::new(),
            nacks: SmallVec::new(),
        });
        if let [_, _, ..] = self.prober.probes[..] {
            reached!("membership: probe beside another one");
        }
        self.stats.probes += 1;
        self.outbox.msg(slot, Msg::Ping { seq, target });
    }

    /// The configured timeout, or two round trips of a member that is further away; half the interval at most, so that helpers
    /// have as long.
    fn until_helpers(&self, slot: u32) -> Duration {
        let timeout = self.config.probe_timeout;
        if self.is_memberlist() {
            return timeout;
        }
        // One that was never asked may be as far away as any.
        let far = if self.is_eased() { self.prober.farthest } else { Duration::ZERO };
        let far = self.table.member(slot).rtt().unwrap_or(far) * 2;
        self.stretched(timeout.max(far.min(self.config.probe_interval / 2)))
    }

    /// Three smoothed round trips, within the configured bounds; more while many members are suspected.
    pub(super) fn retry_interval(&self, slot: u32) -> Duration {
        if self.is_memberlist() {
            // Once and for all.
            return self.stretched(self.config.probe_interval * 2);
        }
        let rtt = self.table.member(slot).rtt().unwrap_or(self.config.retry_max);
        let often = (rtt * 3).clamp(self.config.retry_min, self.config.retry_max);
        if self.is_eased() { often.max(self.config.probe_timeout) } else { often }
    }

    fn ask_helpers(&mut self, now: Instant, at: usize) {
        let Some(probe) = self.prober.probes.get_mut(at) else { return };
        let (target, helpers) = (probe.target, &mut probe.helpers);
        let table = &self.table;
        let wanted = |member: &super::Member| member.state == State::Alive && member.id() != target;
        table.sample(&mut self.rng, self.config.indirect_probes, wanted, |slot| {
            helpers.push(table.member(slot).id());
        });
        if self.is_memberlist()
            && let Some(probe) = self.prober.probes.get(at)
        {
            // In the place of a ping over TCP.
            self.outbox.msg(probe.slot, Msg::Ping { seq: probe.seq, target: probe.target });
        }
        self.send_requests(now, at);
    }

    /// Sends the indirect requests, again if they were sent before, to helpers still silent.
    fn send_requests(&mut self, now: Instant, at: usize) {
        let Some(probe) = self.prober.probes.get(at) else { return };
        let left = probe.deadline.since(now).as_millis();
        let millis = u16::try_from(left).unwrap_or(u16::MAX);
        for &helper in probe.helpers.iter().filter(|helper| !probe.nacks.contains(helper)) {
            if let Some(slot) = self.table.slot(helper) {
                let (seq, target) = (probe.seq, probe.target);
                self.outbox.msg(slot, Msg::PingReq { seq, target, millis });
            }
        }
    }

    fn retry(&mut self, now: Instant, at: usize) {
        let Some(probe) = self.prober.probes.get(at) else { return };
        if probe.retry_at > now {
            return;
        }
        let (slot, target) = (probe.slot, probe.target);
        let again = now + self.retry_interval(slot);
        if let Some(probe) = self.prober.probes.get_mut(at) {
            probe.retry_at = again;
            if core::mem::take(&mut probe.last_sent) {
                probe.tries += 1;
                if probe.tries <= MOST_NUMBERS {
                    probe.left.push(now);
                }
            } else if probe.tries <= MOST_NUMBERS
                && let Some(left) = probe.left.last_mut()
            {
                // It still waits for the socket, and leaves now at the earliest: one more would wait beside it.
                *left = now;
            }
            let seq = probe.last_seq();
            self.outbox.msg(slot, Msg::Ping { seq, target });
        }
        self.send_requests(now, at);
    }

    /// The deadline of the probe at that place is over without an answer.
    fn verdict(&mut self, now: Instant, at: usize, stalled: bool) {
        let probe = self.prober.probes.swap_remove(at);
        if stalled || !probe.sent {
            // Nothing is known of the member: this node did not get to ask it or to listen.
            self.stats.probes_void += 1;
            if !stalled {
                self.worsen_health();
            }
            return;
        }
        self.stats.probes_failed += 1;
        self.prober.history.note(probe.target, Probed { at: now, answered: false, rtt: None });
        let silent = if self.is_memberlist() && !probe.helpers.is_empty() {
            probe.helpers.len() - probe.nacks.len()
        } else {
            usize::from(probe.nacks.is_empty())
        };
        (0..silent).for_each(|_| self.worsen_health());
        let me = self.table.me().id();
        self.accuse(now, probe.slot, [me].into_iter(), me, Accusation::Probe);
        self.ask_to_verify(probe.slot, probe.target);
    }

    /// Asks a few members to probe the suspect at once, so that evidence comes fast and from
    /// independent places; not when there is enough of it, or everyone would probe one suspect.
    fn ask_to_verify(&mut self, slot: u32, target: NodeId) {
        let Some(suspicion) = self.table.row(slot).suspicion() else { return };
        let wanted = self.config.suspicion_confirmations;
        if self.is_memberlist() {
            return;
        }
        if suspicion.accusers.len() > wanted {
            return;
        }
        let outbox = &mut self.outbox;
        let others = |member: &super::Member| member.state == State::Alive;
        self.table.sample(&mut self.rng, wanted, others, |helper| {
            outbox.msg(helper, Msg::Verify { target });
        });
    }

    /// Whether a deadline was met so late that this node must have been stalled. Then it blames
    /// itself, drops the probe in flight, and listens for a while before it judges anyone.
    pub(super) fn notice_stall(&mut self, now: Instant, due: Option<Instant>) -> bool {
        let stalled = due.is_some_and(|due| now > due + self.config.probe_timeout)
            && !self.is_memberlist()
            && !sabotaged!("stall-blames-others");
        if stalled {
            self.worsen_health();
            self.verdicts_after = self.verdicts_after.max(now + self.config.probe_interval);
        }
        stalled
    }

    pub(super) fn worsen_health(&mut self) {
        let most = self.config.max_local_health;
        let most = if sabotaged!("health-unbounded") { u32::MAX } else { most };
        self.prober.health = (self.prober.health + 1).min(most);
    }

    /// Drops the probe in flight and relays to a member whose boot or state they were for is over.
    pub(super) fn void_probes(&mut self, slot: u32) {
        self.prober.probes.retain(|probe| probe.slot != slot);
        self.void_relays(slot);
        self.prober.urgent.retain(|urgent| *urgent != slot);
        self.assayer.void(slot);
    }

    pub(super) fn on_ping(&mut self, origin: Origin, seq: u32, target: NodeId) {
        if target != self.table.me().id() {
            self.stats.misaddressed += 1;
            return;
        }
        match origin.slot {
            Some(slot) if self.table.member(slot).addr() == origin.from => {
                self.outbox.msg(slot, Msg::Ack { seq });
                if self.table.member(slot).state == State::Left {
                    // It does not know that it left; it asks to be let in, and learns that this boot is over.
                    self.outbox.msg(slot, Msg::Stranger);
                }
            }
            // A member behind a changed address gets its answer where it asked from. If it is in doubt here, it may be known under
            // an address that is not its own, where nothing reaches it: it asks to be let in from where it lives.
            Some(slot) => {
                self.outbox.stranger(origin.from, Msg::Ack { seq });
                if self.table.member(slot).state != State::Alive {
                    self.outbox.stranger(origin.from, Msg::Stranger);
                }
            }
            None => {
                self.outbox.stranger(origin.from, Msg::Ack { seq });
                self.outbox.stranger(origin.from, Msg::Stranger);
            }
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, origin: Origin, seq: u32) {
        let sender = origin.sender;
        let to = |probe: &Probe| probe.target == sender.id && probe.place(seq).is_some();
        if let Some(at) = self.prober.probes.iter().position(to) {
            let probe = &self.prober.probes[at];
            let place = probe.place(seq).unwrap_or_default();
            // Another boot at the address says nothing for the one that was asked.
            if probe.boot == sender.boot_epoch {
                let (slot, rtt) = (probe.slot, now.since(probe.left[place]));
                // Those that have the last number are not told from each other, and an answer that is late tells how long this
                // node stood still.
                let told = place + 1 < MOST_NUMBERS as usize && now <= probe.deadline;
                let rtt = told.then_some(rtt);
                if let Some(rtt) = rtt {
                    self.measure(slot, rtt);
                }
                self.succeed(now, at, rtt, place as u32 + 1);
                self.go_on(now);
            }
            return;
        }
        if self.relay_answered(sender, seq)
            || self.assay_answered(now, seq, sender.id, sender.boot_epoch)
        {
            return;
        }
        if !self.claim_answered(now, sender, seq) {
            self.challenge_answered(sender, seq);
        }
    }

    pub(super) fn measure(&mut self, slot: u32, rtt: Duration) {
        let sample = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        let rtt = &mut self.table.row_mut(slot).member.rtt_us;
        // RFC 6298 section 2: smoothed by one eighth.
        *rtt = if *rtt == 0 { sample } else { (*rtt - *rtt / 8).saturating_add(sample / 8).max(1) };
    }

    /// The member that the probe at that place is of answered so many tries.
    fn succeed(&mut self, now: Instant, at: usize, rtt: Option<Duration>, tries: u32) {
        let Probe { slot, target, .. } = self.prober.probes[at];
        self.prober.end(at);
        self.table.row_mut(slot).member.doubted = false;
        self.consider(now, slot, tries);
        self.prober.answered(tries, rtt);
        self.prober.history.note(target, Probed { at: now, answered: true, rtt });
        let by = u32::from(!sabotaged!("health-sticks"));
        self.prober.health = self.prober.health.saturating_sub(by);
    }

    /// Those who wait for a probe of their own do not wait for the schedule.
    fn go_on(&mut self, now: Instant) {
        if !self.prober.urgent.is_empty() {
            self.start_probes(now);
        }
    }

    pub(super) fn on_relayed_ack(&mut self, now: Instant, origin: Origin, seq: u32, boot: u64) {
        let helper = origin.sender.id;
        let of = |probe: &Probe| probe.asked(helper, seq) && probe.boot == boot;
        if let Some(at) = self.prober.probes.iter().position(of) {
            let tries = self.prober.probes[at].tries;
            self.succeed(now, at, None, tries);
            self.go_on(now);
        }
    }

    pub(super) fn on_nack(&mut self, now: Instant, origin: Origin, seq: u32) {
        let helper = origin.sender.id;
        let of = |probe: &Probe| probe.asked(helper, seq) && !probe.nacks.contains(&helper);
        if let Some(at) = self.prober.probes.iter().position(of) {
            let probe = &mut self.prober.probes[at];
            probe.nacks.push(helper);
            if sabotaged!("nack-is-ack") {
                let tries = probe.tries;
                self.succeed(now, at, None, tries);
            }
        }
    }

    pub(super) fn on_verify(&mut self, now: Instant, origin: Origin, target: NodeId) {
        let Some(slot) = self.table.slot(target) else { return };
        let probed = self.prober.is_probed(slot);
        let judged = self.table.row(slot).suspicion().is_some_and(Suspicion::is_own);
        let live = self.table.member(slot).is_live() && slot != ME;
        if origin.slot.is_none() || !live || probed || judged || self.leave.started() {
            return;
        }
        self.prober.probe_soon(slot);
        self.start_probes(now);
    }

    /// Stops all probing of this node's own.
    pub(super) fn stop_probing(&mut self) {
        self.prober.probes.clear();
        self.prober.tick = None;
        self.prober.urgent.clear();
        self.assayer.stop();
        self.stop_claims();
    }
}
