//! Getting in, and finding back: the join handshake, contested names, and knocking at the lost.
//!
//! A join is answered with a cookie that only the owner of the address can repeat, and with the
//! member list only after that: an address that was not proven never gets more bytes than it sent.
//!
//! Restart under the same name: of who asks to be let in the higher boot epoch wins, unless the old one answers a challenge
//! at its other address; then the newcomer is told and stays out. Of nodes that have members of their own, as where two clusters
//! meet, and in what members tell of others, it wins if it is there at all (`claim.rs`). A newcomer with a lower boot epoch than the one known (its
//! clock stepped back) is told and adopts the next higher one.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::evidence::{FAR_AHEAD, LAST_BOOT};
use super::member::{ME, Member, State};
use super::outbox::Msg;
use super::row_wire::AliveRow;
use super::{Origin, Swim};
use crate::event::Event;
use crate::id::{Identity, NodeId};
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::Sender;

/// Most seeds that are kept.
const MAX_SEEDS: usize = 64;
/// Most addresses whose answer to a join is awaited.
const MAX_ASKED: usize = 64;
/// Most contested names that are challenged at a time.
const MAX_CHALLENGES: usize = 16;
/// How many of the lost are looked at for one that failed.
const MAX_DRAWS: usize = 8;
/// Newcomers that are remembered.
const MAX_NEWCOMERS: usize = 64;
/// Cookies change this often; the last two are good.
const COOKIE_PERIOD: Duration = Duration::from_secs(10);
/// The longest that a node waits between two knocks at the lost, however many there are to knock.
const SLOWEST_RECONNECT: Duration = Duration::from_secs(60);

/// A known name asks to join from another address: is the old one still there?
#[derive(Debug)]
struct Challenge {
    id: NodeId,
    /// The boot that holds the name.
    boot: u64,
    newcomer: SocketAddr,
    newcomer_boot: u64,
    seq: u32,
    retry_at: Instant,
    deadline: Instant,
}

/// What is said of this node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Conflict,
    BootTooOld,
}

#[derive(Debug, Default)]
pub(super) struct Joiner {
    seeds: Vec<SocketAddr>,
    /// When to ask the seeds again, or to knock at a lost member.
    next_at: Option<Instant>,
    /// How long the last wait was, while nobody answered.
    wait: Option<Duration>,
    /// Whether a seed has shown since then that it is there.
    heard: bool,
    /// Addresses that were sent a join lately, and when.
    asked: Vec<(SocketAddr, Instant)>,
    challenges: Vec<Challenge>,
    /// Names whose old holder did not answer: their next join is let in. With the newcomer's boot.
    cleared: Vec<(NodeId, u64)>,
    /// Who was let in by this node, the last ones.
    newcomers: VecDeque<NodeId>,
    /// Which member said what of this node's name, and when.
    doubted: Option<(NodeId, Word, Instant)>,
    /// Another live node bears this name; this one stays out.
    pub(super) conflicted: bool,
}

impl Joiner {
    pub(super) fn next(&self) -> Option<Instant> {
        let challenges = self.challenges.iter().map(|c| c.retry_at.min(c.deadline));
        challenges.chain(self.next_at).min()
    }

    pub(super) fn stop(&mut self) {
        self.next_at = None;
    }

    pub(super) fn was_asked(&self, addr: SocketAddr) -> bool {
        self.asked.iter().any(|(other, _)| *other == addr)
    }
}

impl Swim {
    pub(super) fn start_join(&mut self, now: Instant, seeds: &[SocketAddr]) {
        let settled = sabotaged!("join-only-when-alone") && !self.table.live().is_empty();
        if self.leave.started() || self.joiner.conflicted || settled {
            return;
        }
        let own = self.table.me().addr();
        for &seed in seeds {
            let known = &mut self.joiner.seeds;
            if seed != own {
                known.retain(|other| *other != seed);
                // The newest are the likeliest to be there: whoever asks a name service again does so for a reason.
                known.push(seed);
                let old = known.len().saturating_sub(MAX_SEEDS);
                known.drain(..old);
            }
        }
        (self.joiner.wait, self.joiner.heard) = (None, false);
        // Who has members already may have been told of another cluster; what is knocked at by turns comes
        // to it late, if many are lost.
        if !self.table.live().is_empty() {
            for &seed in seeds {
                if seed != own && !self.members().any(|member| member.addr() == seed) {
                    self.ask(now, seed, 0);
                }
            }
        }
        self.knock(now);
    }

    /// Arms the timer that looks for lost members, if there is somebody to look for.
    pub(super) fn arm_join(&mut self, now: Instant) {
        let alone = self.table.live().is_empty();
        let somebody = !self.joiner.seeds.is_empty() || !self.table.gone().is_empty();
        let somebody = somebody && (alone || !self.is_memberlist());
        if !somebody || self.leave.started() {
            return;
        }
        if self.joiner.next_at.is_none() {
            self.joiner.next_at = Some(now + self.reconnect_wait());
        }
        if alone && self.joiner.wait.is_none() {
            // The wait was drawn when there were many who shared the knocking.
            let soon = now + self.rng.jitter(self.config.join_retry);
            self.joiner.next_at = self.joiner.next_at.map(|at| at.min(soon));
        }
    }

    /// A member was admitted: unanswered joins start over if all are lost again.
    pub(super) fn joined(&mut self, now: Instant) {
        if core::mem::take(&mut self.isolated) {
            self.events.push(Event::Rejoined);
        }
        self.joiner.heard = false;
        self.arm_push_pull(now);
        if self.joiner.wait.take().is_some() {
            self.joiner.next_at = None;
        }
        self.arm_join(now);
    }

    /// A cluster knocks about once per interval as a whole, or as often as follows from each of its nodes doing so every half minute.
    ///
    /// The wait is drawn evenly from twice its mean, anew each time. Waits of nearly equal length would keep those together who
    /// began together, and that is all of them: nobody would knock for most of the time, and then everybody.
    fn reconnect_wait(&mut self) -> Duration {
        let nodes = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let most = self.config.reconnect_interval.saturating_mul(nodes.saturating_mul(2));
        self.rng.within(most.min(SLOWEST_RECONNECT))
    }

    pub(super) fn fire_join(&mut self, now: Instant) {
        self.fire_challenges(now);
        if self.joiner.next_at.is_some_and(|at| at <= now) {
            self.knock(now);
        }
    }

    /// Alone: asks every seed. Otherwise: knocks at one of the lost, a failed member or a seed that
    /// is no member.
    fn knock(&mut self, now: Instant) {
        self.joiner.next_at = None;
        self.forget_asked(now);
        if self.table.live().is_empty() {
            for seed in self.joiner.seeds.clone() {
                self.ask(now, seed, 0);
            }
            let wait = match self.joiner.wait {
                None => self.config.join_retry,
                Some(wait) => (wait * 2).min(self.config.join_retry_max),
            };
            self.joiner.wait = Some(wait);
            if !self.joiner.seeds.is_empty() {
                self.joiner.next_at = Some(now + self.rng.jitter(wait));
            }
            self.knock_at_dead();
            if !self.table.gone().is_empty() && self.joiner.next_at.is_none() {
                self.joiner.next_at = Some(now + self.rng.jitter(wait));
            }
            return;
        }
        // Half of the knocks are for seeds that are no members, however many are lost: whoever left, or came back
        // at another address, is met there and nowhere else.
        let seeds = &self.joiner.seeds;
        let seed = seeds.get(self.rng.below(seeds.len())).copied();
        // Twice a minute at most where members are many, so looking at all of them is cheap enough.
        let seed = seed.filter(|seed| !self.members().any(|member| member.addr() == *seed));
        match seed {
            Some(seed) if self.table.gone().is_empty() || self.rng.below(2) == 0 => {
                self.ask(now, seed, 0);
            }
            _ => self.knock_at_dead(),
        }
        self.arm_join(now);
    }

    /// Pings a failed member; the ping tells it that it is held dead, and it refutes. Those that left are not
    /// disturbed.
    fn knock_at_dead(&mut self) {
        for _ in 0..MAX_DRAWS {
            let gone = self.table.gone();
            let Some(&slot) = gone.get(self.rng.below(gone.len())) else { return };
            let member = self.table.member(slot);
            if member.state == State::Dead {
                let (seq, target) = (self.prober.next_seq(), member.id());
                self.outbox.msg(slot, Msg::Ping { seq, target });
                return;
            }
        }
    }

    /// What was asked long ago is answered no more.
    fn forget_asked(&mut self, now: Instant) {
        let life = self.config.join_retry_max * 2;
        self.joiner.asked.retain(|(_, at)| now.since(*at) < life);
    }

    fn ask(&mut self, now: Instant, addr: SocketAddr, cookie: u64) {
        self.forget_asked(now);
        let asked = &mut self.joiner.asked;
        if let Some((_, at)) = asked.iter_mut().find(|(other, _)| *other == addr) {
            *at = now;
        } else if asked.len() < MAX_ASKED {
            asked.push((addr, now));
        } else {
            return;
        }
        self.outbox.stranger(addr, Msg::Join { cookie });
    }

    /// A keyed hash of who asks from where and roughly when: stateless proof of the address.
    fn cookie(&self, from: SocketAddr, sender: Sender, period: u64) -> u64 {
        let mut text = [0; 48];
        let mut w = crate::wire::Writer::new(&mut text);
        let written = w
            .addr(from)
            .and_then(|()| w.node(sender.id))
            .and_then(|()| w.u64(sender.boot_epoch))
            .and_then(|()| w.u64(period));
        debug_assert!(written.is_ok(), "19 + 3 * 8 bytes fit");
        // Zero on the wire means that there is no cookie yet.
        self.secret.hash(&text).max(1)
    }

    pub(super) fn on_join(
        &mut self,
        now: Instant,
        origin: Origin,
        cookie: u64,
        row: AliveRow<'_>,
        alone: bool,
    ) {
        let (from, sender) = (origin.from, origin.sender);
        if row.id != sender.id || row.boot != sender.boot_epoch || self.leave.started() {
            self.stats.misaddressed += 1;
            return;
        }
        let period = now.as_nanos() / u64::try_from(COOKIE_PERIOD.as_nanos()).unwrap_or(u64::MAX);
        let good = |period| cookie == self.cookie(from, sender, period);
        let proven = good(period) || period.checked_sub(1).is_some_and(good);
        if !proven && !sabotaged!("cookie-skipped") {
            let cookie = self.cookie(from, sender, period);
            self.outbox.stranger(from, Msg::Cookie { cookie });
            if sabotaged!("digests-for-strangers") {
                self.outbox.stranger(from, Msg::Buckets);
            }
            return;
        }
        match self.table.slot(row.id) {
            Some(ME) => self.contested(row.id, row.boot, from),
            None => self.let_in(now, origin, row, alone),
            Some(slot) => {
                let known = self.table.row(slot);
                let (boot, live) = (known.boot(), known.member.is_live());
                let cleared = self.joiner.cleared.iter().position(|c| *c == (row.id, row.boot));
                // Where two clusters meet that each have a node of that name, both would be told to stay out.
                let newer = row.boot > boot && !alone;
                let elsewhere =
                    known.member.addr() != row.addr && live && !newer && cleared.is_none();
                // What left is over, and another secret is that of another boot, which was given the same number.
                let again =
                    known.member.state() != State::Left && known.commitment == row.commitment;
                if boot == row.boot && known.member.addr() == row.addr && again {
                    self.let_in(now, origin, row, alone);
                } else if elsewhere {
                    self.challenge(now, slot, from, row.boot);
                } else if row.boot > boot {
                    if let Some(at) = cleared {
                        self.joiner.cleared.swap_remove(at);
                    }
                    self.let_in(now, origin, row, alone);
                } else {
                    self.outbox.stranger(from, Msg::BootTooOld { asked: row.boot, boot });
                }
            }
        }
    }

    /// Admits a newcomer, and tells it everyone if it knows nobody, and does not ask again: the cookie proves one address once,
    /// and is good for more than one join. Tables are compared by who asks, if it never heard of this node. To propose that here as
    /// well makes the start of many slower: all of them compare while nobody knows much.
    fn let_in(&mut self, now: Instant, origin: Origin, row: AliveRow<'_>, alone: bool) {
        let is_new = origin.slot.is_none() && row.addr == origin.from;
        self.apply_alive(now, origin, row);
        let Some(slot) = self.table.slot(row.id) else { return };
        if self.is_memberlist() {
            self.outbox.to(slot).owe_all(true);
            return;
        }
        self.outbox.row(slot, ME);
        let newcomers = &mut self.joiner.newcomers;
        if !newcomers.contains(&row.id) {
            newcomers.truncate(MAX_NEWCOMERS - 1);
            newcomers.push_front(row.id);
        }
        if alone && is_new {
            let owed = self.outbox.to(slot);
            (owed.buckets, owed.resume) = (u64::MAX, 0);
        }
    }

    /// Whether what the other has heard of this node last may be that it is unknown, or dead: this node let it in lately, or it came back.
    pub(crate) fn may_miss_me(&self, id: NodeId) -> bool {
        let back =
            self.table.slot(id).is_some_and(|slot| self.clock < self.table.row(slot).heeded_from());
        back || self.joiner.newcomers.contains(&id)
    }

    /// The name belongs to a live node elsewhere.
    fn contested(&mut self, id: NodeId, asked: u64, newcomer: SocketAddr) {
        let Some(holder) = self.member(id).map(Member::addr) else { return };
        self.outbox.stranger(newcomer, Msg::Conflict { id, asked });
        self.events.push(Event::Conflict { id, holder, newcomer });
    }

    fn challenge(&mut self, now: Instant, slot: u32, newcomer: SocketAddr, newcomer_boot: u64) {
        let (id, boot) = (self.table.member(slot).id(), self.table.row(slot).boot());
        let challenges = &mut self.joiner.challenges;
        if challenges.len() >= MAX_CHALLENGES || challenges.iter().any(|c| c.id == id) {
            return;
        }
        let seq = self.prober.next_seq();
        challenges.push(Challenge {
            id,
            boot,
            newcomer,
            newcomer_boot,
            seq,
            retry_at: now + self.config.retry_max,
            deadline: now + self.config.probe_interval,
        });
        self.outbox.msg(slot, Msg::Ping { seq, target: id });
    }

    pub(super) fn challenge_answered(&mut self, sender: Sender, seq: u32) {
        let of = |c: &Challenge| c.seq == seq && c.id == sender.id && c.boot == sender.boot_epoch;
        if let Some(at) = self.joiner.challenges.iter().position(of) {
            let challenge = self.joiner.challenges.swap_remove(at);
            self.contested(challenge.id, challenge.newcomer_boot, challenge.newcomer);
        }
    }

    fn fire_challenges(&mut self, now: Instant) {
        let mut challenges = core::mem::take(&mut self.joiner.challenges);
        challenges.retain_mut(|challenge| {
            let id = challenge.id;
            if challenge.deadline <= now {
                // The newcomer asks again and is let in then.
                let cleared = &mut self.joiner.cleared;
                if cleared.len() >= MAX_CHALLENGES {
                    cleared.remove(0);
                }
                cleared.push((id, challenge.newcomer_boot));
                return false;
            }
            if challenge.retry_at <= now {
                challenge.retry_at = now + self.config.retry_max;
                if let Some(slot) = self.table.slot(id) {
                    self.outbox.msg(slot, Msg::Ping { seq: challenge.seq, target: id });
                }
            }
            true
        });
        self.joiner.challenges = challenges;
    }

    /// The address that was sent a join and that this answers: the source, or that of the member which
    /// speaks, if its datagrams come from elsewhere, as behind a NAT. Nothing goes to such a source, nobody
    /// has proven it.
    fn asked(&self, origin: Origin) -> Option<SocketAddr> {
        let member = self.member(origin.sender.id).map(Member::addr);
        [Some(origin.from), member].into_iter().flatten().find(|&addr| self.joiner.was_asked(addr))
    }

    pub(super) fn on_cookie(&mut self, now: Instant, origin: Origin, cookie: u64) {
        let Some(asked) = self.asked(origin).filter(|_| !self.leave.started()) else { return };
        self.outbox.stranger(asked, Msg::Join { cookie });
        // What it is told of is who came before it. Where many start at once those after it know of each other, so it soon
        // compares tables with one of them.
        self.behind |= self.table.live().is_empty() && !self.is_memberlist();
        // Somebody is there: what is lost from now on is lost by chance, and asked for soon. But once only: who
        // answers and never lets this node in, as one that is full, is asked ever less often as well.
        let joiner = &mut self.joiner;
        if !core::mem::replace(&mut joiner.heard, true) && joiner.wait.is_some() {
            joiner.wait = Some(self.config.join_retry);
            let soon = now + self.rng.jitter(self.config.join_retry);
            joiner.next_at = joiner.next_at.map(|at| at.min(soon));
        }
    }

    pub(super) fn on_stranger(&mut self, now: Instant, origin: Origin) {
        // Also a node that was started anew and has forgotten everybody: it is known in its old boot.
        let slot = self.table.slot(origin.sender.id).filter(|slot| *slot != ME);
        let Some(slot) = slot else { return };
        self.forget_asked(now);
        // Its own address, wherever it spoke from: a false word of it moves no more than a join to a member.
        let known = self.table.member(slot).addr();
        let lately = |&(addr, at): &(SocketAddr, Instant)| {
            addr == known && now.since(at) < self.config.join_retry
        };
        // A start has many say so, who hear of this node from others as well: some room is kept for those that are asked of its own accord.
        let room = self.joiner.asked.len() < MAX_ASKED / 2;
        if room && !self.joiner.asked.iter().any(lately) && !self.leave.started() {
            self.ask(now, known, 0);
        }
    }

    /// Whether to believe what `by`, which was asked at `asked`, says of this node's name. It decides about all that this node
    /// is, so where there are members who could say the same, the word of two of them is wanted, and a second one is asked.
    fn is_confirmed(&mut self, now: Instant, by: NodeId, asked: SocketAddr, word: Word) -> bool {
        if self.table.live().len() < 2 {
            return true;
        }
        // Members alone, each at its address: one could speak under any name, or move to another address.
        if self.member(by).is_some_and(|member| member.is_live() && member.addr() == asked) {
            let life = self.config.join_retry_max * 2;
            let before = self.joiner.doubted.replace((by, word, now));
            if before.is_some_and(|(other, said, at)| {
                other != by && said == word && now.since(at) < life
            }) {
                return true;
            }
        }
        let mut second = None;
        let other = |member: &Member| member.addr() != asked;
        self.table.sample(&mut self.rng, 1, other, |slot| second = Some(slot));
        if let Some(slot) = second {
            self.ask(now, self.table.member(slot).addr(), 0);
        }
        false
    }

    pub(super) fn on_conflict(
        &mut self,
        now: Instant,
        origin: Origin,
        id: NodeId,
        asked: u64,
        holder: SocketAddr,
    ) {
        let me = self.table.me();
        let newcomer = me.addr();
        let other = id != me.id() || asked != me.identity.boot_epoch() || holder == newcomer;
        if other
            || !self.joiner.was_asked(origin.from)
            || !self.is_confirmed(now, origin.sender.id, origin.from, Word::Conflict)
        {
            return;
        }
        self.joiner.conflicted = true;
        self.joiner.stop();
        self.stop_probing();
        self.gossip_at = None;
        self.outbox.clear();
        self.events.push(Event::Conflict { id, holder, newcomer });
        if self.leave.started() {
            self.finish_leave();
        }
    }

    /// From now on this node is in that boot epoch. Returns whether anybody would believe it; if not, nothing changes.
    pub(super) fn take_boot(&mut self, boot: u64) -> bool {
        if boot >= LAST_BOOT {
            return false;
        }
        let me = self.table.me();
        let (identity, version) = (Identity::clone(&me.identity).with_boot_epoch(boot), me.version);
        self.table.set_identity(ME, Arc::new(identity), version);
        true
    }

    /// This node's clock stepped back between two starts: take the next boot epoch after the known.
    pub(super) fn on_boot_too_old(&mut self, now: Instant, origin: Origin, asked: u64, boot: u64) {
        let me = &self.table.me().identity;
        // An answer to a boot before this one says nothing about this one.
        if asked != me.boot_epoch() || boot < me.boot_epoch() || boot >= LAST_BOOT - 1 {
            return;
        }
        let Some(addr) = self.asked(origin) else { return };
        // One may be the only one that remembers; but a number so far ahead would leave few for the boots to come.
        let far = boot - me.boot_epoch() > FAR_AHEAD;
        if far && !self.is_confirmed(now, origin.sender.id, addr, Word::BootTooOld) {
            return;
        }
        self.take_boot(boot + 1);
        self.tell(now, ME);
        self.ask(now, addr, 0);
    }
}
