//! Chunks: writing what a peer lacks, and applying what a peer told.
//!
//! A chunk is self-contained: whole entries with exactly the dots they explain. Loss, reordering and
//! duplication of chunks, in any number and combination, are harmless: what was not claimed is asked
//! for again.

use smallvec::SmallVec;

use super::dot::Packed;
use super::peer::{Cursor, Introduced, Peer};
use super::replica::Replicas;
use super::store::{Entry, Store, Told};
use super::wire::{
    self, Body, Chunk, FLAG_LAST, FLAG_MORE, FullEntry, ITEM_BARE, ITEM_FULL, ITEM_KEY, ITEM_OWN,
    ITEM_REF, ReplicaRef, Step,
};
use super::{Map, Stats};
use crate::event::{Event, Key};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;
use crate::wire::{NoRoom, Writer};

/// Which key has which number in the chunk being written: per slot the chunk's serial and the number.
#[derive(Debug, Default)]
pub(super) struct Marks {
    serial: u32,
    marks: alloc::vec::Vec<(u32, u32)>,
}

impl Marks {
    fn begin(&mut self) {
        self.serial = self.serial.wrapping_add(u32::from(!sabotaged!("marks-kept")));
        if self.serial == 0 {
            self.marks.clear();
            self.serial = 1;
        }
    }

    fn get(&self, slot: u32) -> Option<u32> {
        let &(serial, number) = self.marks.get(slot as usize)?;
        (serial == self.serial).then_some(number)
    }

    fn set(&mut self, slot: u32, number: u32) {
        let at = slot as usize;
        if self.marks.len() <= at {
            self.marks.resize(at + 1, (0, 0));
        }
        self.marks[at] = (self.serial, number);
    }
}

/// At most how many bytes a datagram takes that carries nothing but this entry, after a write that
/// supersedes the siblings that `reads` accepts.
pub(super) fn encoded_len(
    entry: &Entry,
    value: Option<&[u8]>,
    reads: impl Fn(Packed) -> bool,
) -> usize {
    // Datagram header and trailer, frame, addressee, nonce, number, flags, run, item, two counts.
    const FIXED: usize = 28 + 3 + 8 + 10 + 10 + 1 + 20 + 1 + 6;
    // A replica is introduced once (17 bytes) and referred to (2), a counter has at most 7.
    const DOT: usize = 17 + 2 + 7;
    let kept = entry.siblings.iter().filter(|sibling| !reads(sibling.dot));
    let kept: usize = kept.map(|sibling| DOT + 3 + sibling.value.len()).sum();
    let own = value.map_or(0, |value| 9 + 3 + value.len());
    // Values that have no mark yet get one.
    let marked = |dot: Packed| entry.superseded.iter().any(|mark| mark.replica() == dot.replica());
    let unmarked = entry.siblings.iter().filter(|sibling| !marked(sibling.dot)).count();
    let marks = entry.superseded.len() + unmarked + 1;
    FIXED + entry.key.len() + kept + own + DOT * marks
}

/// How a chunk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything that the peer lacks is in it or in chunks before it.
    Complete,
    /// The datagram is full.
    Full,
    /// The budget is used up.
    Budget,
}

/// Writes one chunk.
pub(super) struct ChunkWriter<'m> {
    pub(super) replicas: &'m Replicas,
    pub(super) store: &'m Store,
    pub(super) marks: &'m mut Marks,
    pub(super) stats: &'m mut Stats,
    pub(super) peer: &'m Peer,
    introduced: Introduced,
    objects: u32,
    /// The run being written: replica, last counter, place of its count, count.
    run: Option<(u16, u64, usize, u8)>,
}

impl<'m> ChunkWriter<'m> {
    pub(super) fn new(
        replicas: &'m Replicas,
        store: &'m Store,
        marks: &'m mut Marks,
        stats: &'m mut Stats,
        peer: &'m Peer,
    ) -> Self {
        marks.begin();
        let introduced = Introduced::default();
        Self { replicas, store, marks, stats, peer, introduced, objects: 0, run: None }
    }

    /// Writes what the peer lacks from `cursor` on, at most about `budget` bytes, as one frame.
    /// `answer` is the nonce of the pull it answers and the chunk's number; `None` for a push.
    pub(super) fn write(
        mut self,
        w: &mut Writer<'_>,
        addressee: u64,
        answer: Option<(u64, u64)>,
        cursor: &mut Cursor,
        budget: u64,
    ) -> Result<End, NoRoom> {
        let alone = w.is_fresh();
        let mut end = End::Full;
        let written = w.frame(wire::CHUNK, |w| {
            w.u64(addressee)?;
            match answer {
                None => w.varint(0)?,
                Some((nonce, number)) => {
                    w.varint(nonce)?;
                    w.varint(number)?;
                }
            }
            let flags_at = w.len();
            w.u8(0)?;
            let start = w.len();
            end = self.items(w, cursor, budget, alone);
            match end {
                _ if answer.is_none() => {}
                End::Complete => w.set(flags_at, &[FLAG_LAST]),
                End::Budget => w.set(flags_at, &[FLAG_LAST | FLAG_MORE]),
                End::Full => {}
            }
            // An empty chunk is worth sending only to end a pull.
            let idle = answer.is_none() || end == End::Full;
            if w.len() == start && idle { Err(NoRoom) } else { Ok(()) }
        });
        match (written, end) {
            (Err(NoRoom), End::Full | End::Budget) => Err(NoRoom),
            _ => Ok(end),
        }
    }

    fn items(&mut self, w: &mut Writer<'_>, cursor: &mut Cursor, budget: u64, alone: bool) -> End {
        let start = w.len();
        loop {
            let Some(dot) = cursor.next(self.replicas, &self.peer.known) else {
                reached!("map: chunk complete");
                return End::Complete;
            };
            if (w.len() - start) as u64 >= budget {
                reached!("map: chunk at the budget");
                return End::Budget;
            }
            if self.item(w, dot).is_err() {
                if w.len() > start || !alone {
                    reached!("map: chunk full");
                    return End::Full;
                }
                // It would not fit any datagram: leave it out, or it would hold up the others.
                self.stats.oversize += 1;
            }
            cursor.pass(dot);
        }
    }

    /// Writes one dot with what explains it; takes everything back if it does not fit.
    fn item(&mut self, w: &mut Writer<'_>, dot: Packed) -> Result<(), NoRoom> {
        let (introduced, run) = (self.introduced.len(), self.run);
        let result = w.attempt(|w| {
            let (replica, counter) = (dot.replica(), dot.counter());
            self.run = match self.run {
                Some((of, last, at, count))
                    if of == replica && last + 1 == counter && count < 127 =>
                {
                    w.set(at, &[count + 1]);
                    Some((of, counter, at, count + 1))
                }
                _ => {
                    self.introduced.write(w, self.replicas, replica)?;
                    w.varint(counter)?;
                    w.u8(1)?;
                    Some((replica, counter, w.len() - 1, 1))
                }
            };
            self.body(w, dot)
        });
        if result.is_err() {
            self.introduced.truncate(introduced);
            self.run = run;
            if let Some((_, _, at, count)) = run {
                w.set(at, &[count]);
            }
        }
        result
    }

    fn body(&mut self, w: &mut Writer<'_>, dot: Packed) -> Result<(), NoRoom> {
        // Every dot that is answered from the log has a slot.
        let slot = self.replicas.slot(dot).ok_or(NoRoom)?;
        if let Some(number) = self.marks.get(slot) {
            w.u8(ITEM_REF)?;
            return w.varint(u64::from(number));
        }
        let entry = self.store.entry(slot);
        self.object(w, dot, entry)?;
        self.marks.set(slot, self.objects);
        self.objects += 1;
        Ok(())
    }

    fn object(&mut self, w: &mut Writer<'_>, dot: Packed, entry: &Entry) -> Result<(), NoRoom> {
        let siblings = entry.siblings.iter().map(|sibling| sibling.dot);
        let marks = entry.superseded.iter().copied().filter(|_| !sabotaged!("marks-not-compared"));
        let mut dots = siblings.chain(marks);
        let dead = entry.siblings.iter().all(|sibling| sibling.dot != dot);
        let omitted = dead && sabotaged!("object-omitted");
        if omitted || dots.all(|dot| self.peer.known.contains(dot)) {
            w.u8(ITEM_KEY)?;
            return w.bytes(&entry.key);
        }
        match (entry.siblings.as_slice(), entry.superseded.as_slice()) {
            ([only], superseded) if only.dot == dot && matches!(superseded, [] | [_]) => {
                match superseded {
                    [] => w.u8(ITEM_BARE)?,
                    [own] if *own == dot => w.u8(ITEM_OWN)?,
                    _ => return self.full(w, entry),
                }
                w.bytes(&entry.key)?;
                w.bytes(&only.value)
            }
            _ => self.full(w, entry),
        }
    }

    fn full(&mut self, w: &mut Writer<'_>, entry: &Entry) -> Result<(), NoRoom> {
        w.u8(ITEM_FULL)?;
        w.bytes(&entry.key)?;
        self.introduced.write_dots(w, self.replicas, entry)
    }
}

/// What became of a chunk that was not refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    /// Dots that were new.
    pub(super) news: u64,
    /// Whether every dot of it is known now.
    pub(super) whole: bool,
}

struct Survey {
    /// Per replica that the chunk introduced, whether it is this one.
    introduced: SmallVec<[bool; 32]>,
    replicas: usize,
    forged: bool,
}

impl Survey {
    fn is_mine(&mut self, replicas: &Replicas, reference: ReplicaRef) -> bool {
        match reference {
            ReplicaRef::Known(number) => self.introduced.get(number).copied().unwrap_or(false),
            ReplicaRef::New(id) => {
                let number = replicas.number(id);
                self.replicas += usize::from(number.is_none());
                self.introduced.push(number == Some(0));
                number == Some(0)
            }
        }
    }
}

/// Siblings and superseded dots of one received object, with replicas interned.
#[derive(Debug, Default)]
pub(super) struct Object<'p> {
    pub(super) siblings: SmallVec<[(Packed, &'p [u8]); 2]>,
    pub(super) superseded: SmallVec<[Packed; 4]>,
}

/// Interned numbers of the replicas that a chunk introduced, as far as they are known here.
type Numbers = SmallVec<[Option<u16>; 32]>;

fn number(replicas: &Replicas, numbers: &mut Numbers, reference: ReplicaRef) -> Option<u16> {
    match reference {
        ReplicaRef::Known(number) => numbers.get(number).copied().flatten(),
        ReplicaRef::New(id) => {
            let number = replicas.number(id);
            numbers.push(number);
            number
        }
    }
}

/// An object's dots and the lengths of its values, read without interning anything. The dots of
/// replicas that are unknown here have no number.
#[derive(Debug, Default)]
struct Outline {
    siblings: SmallVec<[(Option<Packed>, usize); 2]>,
    superseded: SmallVec<[Packed; 4]>,
}

impl Outline {
    fn read(&mut self, replicas: &Replicas, mut entry: FullEntry<'_>, numbers: &mut Numbers) {
        while let Ok(Some((reference, counter, value))) = entry.next_sibling() {
            let replica = number(replicas, numbers, reference);
            let dot = replica.map(|replica| Packed::new(replica, counter));
            self.siblings.push((dot, value.len()));
        }
        while let Ok(Some((reference, counter))) = entry.next_superseded() {
            let replica = number(replicas, numbers, reference);
            self.superseded.extend(replica.map(|replica| Packed::new(replica, counter)));
        }
    }

    /// How many bytes of values the join with `entry` adds, and how many it frees; see [`Store::join`].
    fn growth(&self, replicas: &Replicas, entry: &Entry) -> (usize, usize) {
        let known = |dot: Packed| replicas.contains(dot) || entry.supersedes(dot);
        let new = self.siblings.iter().filter(|(dot, _)| !dot.is_some_and(known));
        let stays = |own: Packed| {
            let covers = |dot: &Packed| dot.replica() == own.replica() && *dot >= own;
            self.siblings.iter().any(|(dot, _)| *dot == Some(own))
                || !self.superseded.iter().any(covers)
        };
        let gone = entry.siblings.iter().filter(|sibling| !stays(sibling.dot));
        (new.map(|(_, len)| len).sum(), gone.map(|sibling| sibling.value.len()).sum())
    }
}

impl Map {
    /// Applies a chunk from the peer in `slot`. Returns what became of it, or `None` if it was refused
    /// whole.
    pub(super) fn apply_chunk(
        &mut self,
        now: Instant,
        slot: u32,
        chunk: &Chunk<'_>,
    ) -> Option<Applied> {
        let survey = self.survey(chunk);
        if survey.forged {
            self.stats.chunks_forged += 1;
            return None;
        }
        if !self.admits(chunk, survey.replicas) {
            self.refuse(now, slot);
            return None;
        }
        let refused = self.stats.dots_refused;
        let mut whole = true;
        let mut introduced = Introduced::default();
        let mut objects: SmallVec<[Option<u32>; 32]> = SmallVec::new();
        let mut items = chunk.items;
        let (mut replica, mut news) = (0, 0);
        while let Ok(Some(step)) = items.next() {
            let item = match step {
                Step::Run(reference) => {
                    replica = introduced.resolve(&mut self.replicas, reference)?;
                    continue;
                }
                Step::Item(item) => item,
            };
            let dot = Packed::new(replica, item.counter);
            let about = match item.body {
                Body::Ref { object } => {
                    reached!("map: item refers to another");
                    objects.get(object).copied().flatten()
                }
                Body::Key { key } => {
                    let about = self.store.slot(key);
                    reached!("map: item names a key");
                    objects.push(about);
                    about
                }
                Body::Own { key, value } => {
                    reached!("map: item of a lone value over its own");
                    let told = Told { siblings: &[(dot, value)], superseded: &[dot] };
                    self.merge(key, told, &mut objects, &mut news)
                }
                Body::Bare { key, value } => {
                    let told = Told { siblings: &[(dot, value)], superseded: &[] };
                    self.merge(key, told, &mut objects, &mut news)
                }
                Body::Full { key, entry } => {
                    reached!("map: item of an entry");
                    let object = self.intern(entry, &mut introduced)?;
                    let (siblings, superseded) = (&object.siblings, &object.superseded);
                    let told = Told { siblings, superseded };
                    self.merge(key, told, &mut objects, &mut news)
                }
            };
            // A key that the sender only names but that is not here: not claimed, so asked for again.
            whole &= about.is_some() || self.replicas.contains(dot);
            if let Some(about) = about {
                news += u64::from(self.claim(dot, about));
                if let Some(peer) = self.peers.get_mut(slot) {
                    peer.known.runs_mut(replica).add(item.counter, item.counter);
                }
            }
        }
        self.stats.dots_received += news;
        whole &= refused == self.stats.dots_refused;
        Some(Applied { news, whole })
    }

    /// Looks through a chunk before anything of it is applied: how many replicas it brings that are
    /// new here, and whether it tells of writes of this replica that it never made.
    fn survey(&self, chunk: &Chunk<'_>) -> Survey {
        let mut survey = Survey { introduced: SmallVec::new(), replicas: 0, forged: false };
        let (mut items, mut mine) = (chunk.items, false);
        while let Ok(Some(step)) = items.next() {
            match step {
                Step::Run(reference) => mine = survey.is_mine(&self.replicas, reference),
                Step::Item(item) => {
                    survey.forged |= mine && item.counter > self.replicas.base(0);
                    let Body::Full { mut entry, .. } = item.body else { continue };
                    while let Ok(Some((reference, counter, _))) = entry.next_sibling() {
                        let mine = survey.is_mine(&self.replicas, reference);
                        survey.forged |= mine && counter > self.replicas.base(0);
                    }
                    while let Ok(Some((reference, counter))) = entry.next_superseded() {
                        let mine = survey.is_mine(&self.replicas, reference);
                        survey.forged |= mine && counter > self.replicas.base(0);
                    }
                }
            }
        }
        survey
    }

    pub(super) fn intern<'p>(
        &mut self,
        mut entry: FullEntry<'p>,
        introduced: &mut Introduced,
    ) -> Option<Object<'p>> {
        let mut object = Object::default();
        while let Ok(Some((reference, counter, value))) = entry.next_sibling() {
            let replica = introduced.resolve(&mut self.replicas, reference)?;
            object.siblings.push((Packed::new(replica, counter), value));
        }
        while let Ok(Some((reference, counter))) = entry.next_superseded() {
            let replica = introduced.resolve(&mut self.replicas, reference)?;
            object.superseded.push(Packed::new(replica, counter));
        }
        Some(object)
    }

    /// Joins one object and claims every dot that it names. Returns its slot, unless it is about a key that
    /// was removed, and dropped with all that is told of it here.
    fn merge(
        &mut self,
        key: &[u8],
        told: Told<'_>,
        objects: &mut SmallVec<[Option<u32>; 32]>,
        news: &mut u64,
    ) -> Option<u32> {
        let dots =
            || told.siblings.iter().map(|(dot, _)| *dot).chain(told.superseded.iter().copied());
        let known = self.store.slot(key);
        if known.is_none() && dots().all(|dot| self.replicas.is_settled(dot)) {
            reached!("map: old news of a dropped key");
            objects.push(None);
            return None;
        }
        let slot = known.unwrap_or_else(|| self.store.slot_or_insert(key));
        objects.push(Some(slot));
        let before = self.winner_dot(slot);
        self.store.join(&self.replicas, slot, told, |dot| told.reflects(dot));
        for dot in dots() {
            *news += u64::from(self.claim(dot, slot));
        }
        self.note_change(slot, before);
        self.tidy(slot);
        Some(slot)
    }

    /// Adds a dot to the context if there is room for it; without room it is asked for again later.
    pub(super) fn claim(&mut self, dot: Packed, slot: u32) -> bool {
        if !self.replicas.has_room(dot) {
            self.stats.dots_refused += 1;
            return false;
        }
        let new = self.replicas.claim(dot, slot);
        if new && self.replicas.slot(dot).is_none() {
            self.note_unlogged(slot);
        }
        new
    }

    /// Whether the limits hold after the chunk, judged before anything of it is applied.
    fn admits(&self, chunk: &Chunk<'_>, new_replicas: usize) -> bool {
        if self.replicas.len() + new_replicas > self.config.max_replicas {
            return false;
        }
        if self.store.keys() + chunk.objects <= self.config.max_keys
            && self.store.bytes() + chunk.items.bytes() <= self.config.max_bytes
        {
            return true;
        }
        // Near the limit look closer: what is known brings nothing new, what is superseded makes room.
        let (mut keys, mut bytes) = (0, 0);
        let mut numbers = Numbers::new();
        let mut named: SmallVec<[u32; 32]> = SmallVec::new();
        let (mut items, mut replica) = (chunk.items, None);
        while let Ok(Some(step)) = items.next() {
            let item = match step {
                Step::Run(reference) => {
                    replica = number(&self.replicas, &mut numbers, reference);
                    continue;
                }
                Step::Item(item) => item,
            };
            let dot = replica.map(|replica| Packed::new(replica, item.counter));
            let mut outline = Outline::default();
            let key = match item.body {
                Body::Own { key, value } => {
                    outline.siblings.push((dot, value.len()));
                    outline.superseded.extend(dot);
                    key
                }
                Body::Bare { key, value } => {
                    outline.siblings.push((dot, value.len()));
                    key
                }
                Body::Full { key, entry } => {
                    outline.read(&self.replicas, entry, &mut numbers);
                    key
                }
                Body::Ref { .. } | Body::Key { .. } => continue,
            };
            let Some(slot) = self.store.slot(key) else {
                keys += 1;
                bytes += key.len() + outline.siblings.iter().map(|(_, len)| len).sum::<usize>();
                continue;
            };
            let (added, freed) = outline.growth(&self.replicas, self.store.entry(slot));
            // A second item about the key cannot free the same bytes again.
            let again = named.contains(&slot);
            bytes += added.saturating_sub(if again { 0 } else { freed });
            named.push(slot);
        }
        self.store.keys() + keys <= self.config.max_keys
            && self.store.bytes() + bytes <= self.config.max_bytes
    }

    /// A chunk of the peer in `slot` was refused for its size: say so once, and do not ask again soon.
    pub(super) fn refuse(&mut self, now: Instant, slot: u32) {
        self.stats.chunks_refused += 1;
        self.pull_after = now + self.config.pull_interval * 32;
        self.pulling = None;
        if self.full.replace(slot).is_none() {
            self.events.push(Event::Full);
        }
    }

    pub(super) fn winner_dot(&self, slot: u32) -> Option<Packed> {
        self.store.entry(slot).winner(&self.replicas).map(|sibling| sibling.dot)
    }

    pub(super) fn note_change(&mut self, slot: u32, before: Option<Packed>) {
        let after = self.winner_dot(slot);
        if after == before {
            return;
        }
        let key = Key::new(&self.store.entry(slot).key);
        let writer = after.map(|dot| self.replicas.id(dot.replica()).node);
        self.events.push(Event::Changed { key, writer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::hash::Secret;
    use crate::map::ReplicaId;
    use crate::rng::Rng;

    /// 87 bytes for what every datagram of the map has, 26 for each dot, 12 for the lengths of a written value and
    /// its counter, 3 for the length of a value that is kept.
    #[test]
    fn the_room_of_an_entry_is_the_sum_of_its_parts() {
        let replicas = Replicas::new(ReplicaId::new(NodeId(1), 1), 10, 10);
        let mut store = Store::new(Secret::new(&mut Rng::fork(&[7; 32], 1)), 1_400);
        let slot = store.slot_or_insert(b"key-1");
        let len = |store: &Store, keeps: bool| {
            encoded_len(store.entry(slot), Some(&[7; 100]), |_| !keeps)
        };
        assert_eq!(len(&store, true), 87 + 5 + 112 + 26);
        store.write(&replicas, slot, Packed::new(0, 1), Some(&[7; 30]), |_| true);
        assert_eq!(len(&store, false), 87 + 5 + 112 + 2 * 26);
        assert_eq!(len(&store, true), 87 + 5 + 112 + 2 * 26 + (26 + 3 + 30));
        assert_eq!(encoded_len(store.entry(slot), None, |_| true), 87 + 5 + 2 * 26);
    }
}
