//! What is known of the peers, and what they are owed.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use smallvec::SmallVec;

use super::dot::{Packed, ReplicaId, Runs};
use super::fragment::Fragments;
use super::fragment_wire::Held;
use super::replica::Replicas;
use super::shares::Share;
use super::window::Window;
use super::wire;
use crate::hash::{Index, Secret};
use crate::id::NodeId;
use crate::pool::Pool;
use crate::rng::Rng;
use crate::room;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// A set of dots that a peer has for certain; it may have more.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// By interned replica.
    runs: Vec<Runs>,
    /// What it has of a replica that it never told of.
    nothing: Runs,
}

impl Context {
    pub(super) fn runs(&self, replica: u16) -> &Runs {
        self.runs.get(usize::from(replica)).unwrap_or(&self.nothing)
    }

    pub(super) fn contains(&self, dot: Packed) -> bool {
        self.runs(dot.replica()).contains(dot.counter())
    }

    /// Of so many replicas something may be known.
    pub(super) const fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn runs_mut(&mut self, replica: u16) -> &mut Runs {
        let at = usize::from(replica);
        if self.runs.len() <= at {
            self.runs.resize_with(at + 1, Runs::default);
        }
        &mut self.runs[at]
    }
}

/// What a peer said that it will have of a replica when it has the rest up to a limit, which is told it now.
#[derive(Debug)]
pub(super) struct Assumed {
    pub(super) replica: u16,
    /// The dots that it knows or has [set aside](super::replica).
    pub(super) runs: Runs,
    /// All dots up to this one are known here.
    pub(super) limit: u64,
}

/// What need not be told to a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theirs<'m> {
    /// What it has for certain.
    pub(super) known: &'m Context,
    /// In an answer to its pull: what it will have.
    pub(super) assumed: &'m [Assumed],
}

impl<'m> Theirs<'m> {
    /// What it has, and no more.
    pub(super) const fn certain(known: &'m Context) -> Self {
        Self { known, assumed: &[] }
    }

    fn assumed(self, replica: u16) -> Option<&'m Assumed> {
        self.assumed.iter().find(|assumed| assumed.replica == replica)
    }

    /// Up to where at least a window of the replica goes.
    pub(super) fn limit(self, replica: u16) -> u64 {
        self.assumed(replica).map_or(0, |assumed| assumed.limit)
    }

    /// How many dots of a replica from one to another are to be told.
    pub(super) fn lacked(self, replica: u16, from: u64, to: u64) -> u64 {
        let within = |runs: &Runs| -> u64 {
            let parts = runs.all().map(|(first, last)| (first.max(from), last.min(to)));
            parts.filter(|(first, last)| first <= last).map(|(first, last)| last - first + 1).sum()
        };
        let had = within(self.known.runs(replica));
        let assumed = self.assumed(replica).map_or(0, |assumed| within(&assumed.runs));
        (to + 1).saturating_sub(from).saturating_sub(had.max(assumed))
    }
}

/// Walks the dots that a peer lacks, replica by replica in the shared order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    current: Option<u16>,
    counter: u64,
    after: Option<ReplicaId>,
    upto: Option<ReplicaId>,
    share: Option<Share>,
}

impl Cursor {
    /// All dots of the replicas in a range.
    pub(super) const fn over(after: Option<ReplicaId>, upto: Option<ReplicaId>) -> Self {
        Self { current: None, counter: 1, after, upto, share: None }
    }

    /// Those of them that are in a share.
    pub(super) const fn of_share(self, share: Option<Share>) -> Self {
        Self { share, ..self }
    }

    /// The dots of one replica after `counter`.
    pub(super) fn of(replicas: &Replicas, replica: u16, counter: u64) -> Self {
        let upto = Some(replicas.id(replica));
        Self { current: Some(replica), counter: counter + 1, after: upto, upto, share: None }
    }

    /// The next dot that is known here and not in `theirs`; stays there until [`Cursor::pass`].
    pub(super) fn next(&mut self, replicas: &Replicas, theirs: Theirs<'_>) -> Option<Packed> {
        loop {
            if let Some(replica) = self.current {
                // What is not logged any more the peer has, or it would not be answered so.
                let from = self.counter.max(replicas.served_from(replica) + 1);
                if let Some(counter) = self.next_of(replicas, replica, theirs, from) {
                    return Some(Packed::new(replica, counter));
                }
                self.after = Some(replicas.id(replica));
                self.current = None;
            }
            let (_, replica) = replicas.range(self.after, self.upto).next()?;
            self.current = Some(replica);
            self.counter = 1;
        }
    }

    /// The next of a replica from the counter `from` on. What is of other shares is skipped a block at a time.
    fn next_of(
        &self,
        replicas: &Replicas,
        replica: u16,
        theirs: Theirs<'_>,
        from: u64,
    ) -> Option<u64> {
        let (runs, assumed) = (theirs.known.runs(replica), theirs.assumed(replica));
        let mut next = replicas.next_missing(replica, runs, from)?;
        loop {
            let mut first = assumed.map_or(next, |assumed| assumed.runs.next_absent(next));
            if let Some(share) = self.share {
                first = share.first(replicas.life_hash(replica), first);
            }
            if first == next {
                return Some(next);
            }
            next = replicas.next_missing(replica, runs, first)?;
        }
    }

    pub(super) const fn pass(&mut self, dot: Packed) {
        self.counter = dot.counter() + 1;
    }
}

/// An answer to a pull under way.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) nonce: u64,
    /// Number of the chunk that comes next.
    pub(super) number: u64,
    pub(super) cursor: Cursor,
    /// Bytes that it gets in all, and that it still wants.
    pub(super) granted: u64,
    pub(super) budget: u64,
    /// What it will have when it has the rest.
    pub(super) assumed: SmallVec<[Assumed; 1]>,
    /// What is looked through of the dots that come next.
    pub(super) window: Option<Window>,
    /// What it has already of entries that come in fragments.
    pub(super) held: SmallVec<[Held; 1]>,
    /// Dots whose entries fit no datagram: they come last, so that nothing waits for them.
    pub(super) large: SmallVec<[Packed; 2]>,
    /// How much of the budget is theirs.
    pub(super) reserved: u64,
    /// How often there was one.
    passed: usize,
    /// Whether only those are left.
    pub(super) small_told: bool,
    /// Whether something is left for the next pull.
    pub(super) more: bool,
    /// Whether entries that fit no datagram are left to another pull.
    pub(super) small_only: bool,
    /// The entry that is under way in fragments.
    pub(super) fragments: Option<Fragments>,
}

/// Most entries that fit no datagram in one answer to a pull.
const MAX_LARGE: usize = 64;

impl Serve {
    pub(super) fn new(nonce: u64, cursor: Cursor, budget: u64, held: SmallVec<[Held; 1]>) -> Self {
        let (large, small_told, more) = (SmallVec::new(), false, false);
        let fragments = None;
        let (reserved, passed) = (0, 0);
        let (number, small_only) = (0, false);
        let (assumed, window) = (SmallVec::new(), None);
        Self {
            nonce,
            number,
            cursor,
            granted: budget,
            budget,
            assumed,
            window,
            held,
            large,
            reserved,
            passed,
            small_told,
            more,
            small_only,
            fragments,
        }
    }

    /// The entry of this dot fits no datagram. Half of the budget is for such, the lowest dots first: a peer tells of
    /// few runs beyond what it lacks, and would be told the same again.
    pub(super) fn leave_for_last(&mut self, dot: Packed) {
        if self.small_only {
            self.more = true;
            return;
        }
        if self.large.is_empty() {
            self.reserved = self.budget / 2;
        }
        self.passed += 1;
        if self.passed <= MAX_LARGE {
            self.large.push(dot);
        } else {
            (self.small_told, self.more) = (true, true);
        }
    }
}

/// Pulls without an answer that loss seldom explains: who leaves so many may be gone, or not know this replica yet.
const SILENT: u8 = 3;
/// One that spoke last of all is asked so often more where nobody else is known to answer.
const MORE_TRIES: u8 = 2;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) boot: u64,
    pub(super) addr: SocketAddr,
    /// Its replica epoch. Until it tells, the boot epoch is the best guess: that of a replica that did
    /// not recover an older one. Chunks for a wrong guess are refused there and pulled later.
    pub(super) epoch: u64,
    pub(super) known: Context,
    /// Own dots up to this counter were pushed to it, or are left to its pulls.
    pub(super) pushed: u64,
    /// The context digest that it told last.
    pub(super) state: u64,
    /// All that it had by then is here.
    pub(super) covered: Option<Instant>,
    /// How many pulls it has left unanswered; see [`Peer::speaks`]. One that has never told anything counts as one that left
    /// many. Pulls for shares and what is asked for of a full sync do not count.
    pub(super) unanswered: u8,
    /// Whether it has all dots below the floor; see [`garbage`](super::garbage).
    pub(super) member: bool,
    /// The last round of collecting garbage whose cut it confirmed.
    pub(super) confirmed: u64,
    /// The last context digest that it had in common with this replica, if it is a member.
    pub(super) equal: u64,
    /// A context digest of its with which it had nothing new for this replica.
    pub(super) exhausted: Option<u64>,
    pub(super) owes_push: bool,
    /// Whether some of what it was to be pushed fits no datagram.
    pub(super) left_large: bool,
    pub(super) owes_state: bool,
    /// The bases that it is to be told, from which number on.
    pub(super) owes_have: Option<u64>,
    pub(super) owes_pull: bool,
    /// The nonce of its pull, and in which buckets its context differed from the one here, which it is to be told.
    pub(super) owes_differ: Option<(u64, u64)>,
    /// The seals that it is to be told, from which number on.
    pub(super) owes_seals: Option<u64>,
    /// The answer to its pull, in the pool of them: few peers pull at a time.
    serve: Option<u32>,
    ready: bool,
    /// Position in the list of active peers.
    position: u32,
}

impl Peer {
    /// The hash that names this life of it.
    pub(super) fn addressee(&self) -> u64 {
        wire::addressee(self.id, self.boot, self.epoch)
    }

    /// Whether nothing shows that it is there and knows this replica.
    pub(super) const fn is_silent(&self) -> bool {
        self.unanswered >= SILENT
    }

    /// Whether so few questions are unanswered, since it spoke, that they may have been lost. Asked of the one that spoke last
    /// alone: of one that never spoke it says nothing.
    pub(super) const fn may_have_lost(&self) -> bool {
        self.unanswered < SILENT + MORE_TRIES
    }

    /// It told something. That alone lets it be asked once more, for it may not hear what it is asked, and two times after that
    /// if nobody else is known to answer.
    pub(super) fn speaks(&mut self) {
        self.unanswered = self.unanswered.min(SILENT - 1);
    }

    /// Notes that the peer lives with this replica epoch. A new epoch starts from nothing.
    pub(super) fn meet(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.known = Context::default();
            self.exhausted = None;
            self.covered = None;
        }
    }

    /// All that it had at that time is here.
    pub(super) fn cover(&mut self, then: Instant) {
        self.covered = self.covered.max(Some(then));
    }
}

/// Reads ids for the index.
fn id_in(slots: &[Option<Peer>]) -> impl Fn(u32) -> NodeId {
    |slot| slots[slot as usize].as_ref().expect("slots in the index are in use").id
}

#[derive(Debug)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<u32>,
    active: Vec<u32>,
    index: Index,
    ready: VecDeque<u32>,
    turn: Option<usize>,
    serves: Pool<Serve>,
}

impl Peers {
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            active: Vec::new(),
            index: Index::new(secret),
            ready: VecDeque::new(),
            turn: None,
            serves: Pool::default(),
        }
    }

    pub(super) fn slot(&self, id: NodeId) -> Option<u32> {
        self.index.get(id, id_in(&self.slots))
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Peer> {
        self.slots.get(slot as usize).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Peer> {
        self.slots.get_mut(slot as usize).and_then(Option::as_mut)
    }

    pub(super) fn len(&self) -> usize {
        self.active.len()
    }

    /// All peers, in no order that matters.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.active.iter().copied()
    }

    pub(super) fn random(&self, rng: &mut Rng) -> Option<u32> {
        self.active.get(rng.below(self.active.len())).copied()
    }

    /// The peer whose turn this is.
    pub(super) fn at(&self, turn: usize) -> Option<u32> {
        self.active.get(turn.checked_rem(self.active.len())?).copied()
    }

    /// Each peer in its turn, from a random one on.
    pub(super) fn in_turn(&mut self, rng: &mut Rng) -> Option<u32> {
        let turn = self.turn.get_or_insert_with(|| rng.below(usize::MAX / 2));
        *turn += 1;
        let at = turn.checked_rem(self.active.len())?;
        self.active.get(at).copied()
    }

    /// Adds a peer, or replaces what was known of the boot before.
    #[allow(clippy::cast_possible_truncation)] // max_peers bounds it
    pub(super) fn insert(&mut self, id: NodeId, boot: u64, addr: SocketAddr, pushed: u64) -> u32 {
        self.remove(id);
        let peer = Peer {
            id,
            boot,
            addr,
            epoch: boot,
            known: Context::default(),
            pushed,
            state: 0,
            covered: None,
            unanswered: SILENT,
            member: false,
            confirmed: 0,
            equal: 0,
            exhausted: None,
            owes_push: false,
            left_large: false,
            owes_state: false,
            owes_have: None,
            owes_pull: false,
            owes_differ: None,
            owes_seals: None,
            serve: None,
            ready: false,
            position: self.active.len() as u32,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(peer);
                slot
            }
            None => {
                room::reserve(&mut self.slots, 1);
                self.slots.push(Some(peer));
                self.slots.len() as u32 - 1
            }
        };
        room::reserve(&mut self.active, 1);
        self.active.push(slot);
        self.index.insert(slot, id_in(&self.slots));
        slot
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<u32> {
        let slot = self.slot(id)?;
        self.index.remove(id, id_in(&self.slots));
        let peer = self.slots[slot as usize].take()?;
        self.active.swap_remove(peer.position as usize);
        if let Some(&moved) = self.active.get(peer.position as usize)
            && let Some(moved) = &mut self.slots[moved as usize]
        {
            moved.position = peer.position;
        }
        if peer.ready {
            self.ready.retain(|ready| *ready != slot);
        }
        if let Some(serve) = peer.serve {
            self.serves.remove(serve);
        }
        self.free.push(slot);
        Some(slot)
    }

    /// Has a pull of the peer answered, in place of one before.
    pub(super) fn serve(&mut self, slot: u32, serve: Serve) {
        self.stop_serving(slot);
        if let Some(Some(peer)) = self.slots.get_mut(slot as usize) {
            peer.serve = Some(self.serves.insert(serve));
        }
        self.wake(slot);
    }

    /// Takes the answer to the peer's pull that is under way.
    pub(super) fn stop_serving(&mut self, slot: u32) -> Option<Serve> {
        let serve = self.get_mut(slot)?.serve.take()?;
        self.serves.remove(serve)
    }

    /// Forgets what the members have in particular.
    pub(super) fn forget_contexts(&mut self) {
        for at in 0..self.active.len() {
            if let Some(peer) = self.get_mut(self.active[at]).filter(|peer| peer.member) {
                peer.known = Context::default();
            }
        }
    }

    /// What was of no use to this replica may be of use to it now.
    pub(super) fn ask_all_again(&mut self) {
        for at in 0..self.active.len() {
            if let Some(peer) = self.get_mut(self.active[at]) {
                peer.exhausted = None;
            }
        }
    }

    /// A number goes to another life.
    pub(super) fn forget_replica(&mut self, replica: u16) {
        for at in 0..self.active.len() {
            if let Some(peer) = self.get_mut(self.active[at]) {
                peer.known.forget(replica);
            }
        }
    }

    /// Breaks all answers to pulls off.
    pub(super) fn stop_serving_all(&mut self) {
        for at in 0..self.active.len() {
            self.stop_serving(self.active[at]);
        }
    }

    /// Puts a peer into the ready ring.
    pub(super) fn wake(&mut self, slot: u32) {
        if let Some(Some(peer)) = self.slots.get_mut(slot as usize)
            && !peer.ready
        {
            peer.ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Owes every member a push.
    pub(super) fn wake_all_for_push(&mut self) {
        for at in 0..self.active.len() {
            let slot = self.active[at];
            if let Some(Some(peer)) = self.slots.get_mut(slot as usize)
                && (peer.member || sabotaged!("pushed-below-the-floor"))
            {
                peer.owes_push = true;
                self.wake(slot);
            }
        }
    }

    /// Takes the next peer out of the ready ring.
    pub(super) fn next(&mut self) -> Option<u32> {
        let slot = self.ready.pop_front()?;
        if let Some(Some(peer)) = self.slots.get_mut(slot as usize) {
            peer.ready = false;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that goes, or asks again, while it is answered gives the place of the answer up.
    #[test]
    fn answers_that_are_broken_off_leave_nothing_behind() {
        let mut peers = Peers::new(Secret::new(&mut Rng::fork(&[7; 32], 1)));
        let answer = |nonce| Serve::new(nonce, Cursor::over(None, None), 1, SmallVec::new());
        for boot in 0..10 {
            let slot = peers.insert(NodeId(1), boot, ([10, 0, 0, 1], 1).into(), 0);
            peers.serve(slot, answer(1));
            peers.serve(slot, answer(2));
            assert_eq!(peers.ready.len(), 1);
        }
        peers.remove(NodeId(1));
        assert_eq!(peers.serves.insert(answer(3)), 0, "the first place is free, and the only one");
        assert_eq!(peers.serves.insert(answer(4)), 1);
    }
}
