//! Writes of this replica's own: each is checked against all limits, and then cannot fail.

use smallvec::SmallVec;

use super::dot::{Dot, MAX_COUNTER, Packed};
use super::error::InsertError;
use super::fragment::{MAX_WRITTEN, MAX_WRITTEN_MARKS};
use super::policy::TIME;
use super::store::{Entry, Look, Sibling};
use super::{Context, Map, chunk};
use crate::reached::reached;
use crate::sabotage::sabotaged;
use crate::time::Instant;

/// Writes.
impl Map {
    /// Writes `value` under `key`; it supersedes every value of the key that this replica has seen.
    ///
    /// # Errors
    ///
    /// [`InsertError`] names the limit that the write would break.
    pub fn insert(&mut self, now: Instant, key: &[u8], value: &[u8]) -> Result<Dot, InsertError> {
        let look = self.check_write(key, Some(value), |_| true)?;
        let slot = look.slot.unwrap_or_else(|| self.store.insert(look, key));
        Ok(self.write(now, (slot, key), Some(value), |_| true))
    }

    /// Removes what this replica has seen of `key`; a concurrent write elsewhere survives. Returns
    /// whether there was a value.
    ///
    /// # Errors
    ///
    /// [`InsertError`]: a removal is a write, and needs room for its mark.
    pub fn remove(&mut self, now: Instant, key: &[u8]) -> Result<bool, InsertError> {
        let slot = self.store.slot(key);
        let Some(slot) = slot.filter(|&slot| !self.store.entry(slot).is_removed()) else {
            return Ok(false);
        };
        self.check_write(key, None, |_| true)?;
        self.write(now, (slot, key), None, |_| true);
        Ok(true)
    }

    /// Writes `value`, or removes for `None`, superseding exactly the siblings in `context`: those
    /// that came since it was read survive. This is how an application merges siblings (DeCandia et
    /// al. 2007, section 4.4). Returns `None` if there was nothing to remove.
    ///
    /// # Errors
    ///
    /// [`InsertError`] names the limit that the write would break.
    pub fn resolve(
        &mut self,
        now: Instant,
        key: &[u8],
        context: &Context,
        value: Option<&[u8]>,
    ) -> Result<Option<Dot>, InsertError> {
        // What is retired is read no more.
        let read = context.0.iter().filter_map(|dot| {
            let number = self.replicas.number(dot.replica);
            Some(Packed::new(
                number.filter(|number| !self.replicas.is_nobody(*number))?,
                dot.counter,
            ))
        });
        let read: SmallVec<[Packed; 2]> = read.collect();
        let look = self.check_write(key, value, |dot| read.contains(&dot))?;
        let slot = match (look.slot, value) {
            (Some(slot), _) => slot,
            (None, Some(_)) => self.store.insert(look, key),
            (None, None) => return Ok(None),
        };
        if value.is_none() && self.store.entry(slot).is_removed() {
            reached!("map: removal of nothing");
            return Ok(None);
        }
        Ok(Some(self.write(now, (slot, key), value, |dot| read.contains(&dot))))
    }

    /// Checks all limits for a write that supersedes the siblings that `reads` accepts. Returns where the key is.
    fn check_write(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        reads: impl Fn(Packed) -> bool,
    ) -> Result<Look, InsertError> {
        let config = &self.config;
        if key.len() > config.max_key {
            return Err(InsertError::KeyTooLong { len: key.len(), max: config.max_key });
        }
        if self.replicas.made() >= MAX_COUNTER {
            return Err(InsertError::Exhausted);
        }
        let look = self.store.look(key);
        let known = look.slot.map(|slot| self.store.entry(slot));
        if let Some(entry) = known {
            let len = chunk::encoded_len(entry, value, &reads);
            if len + TIME > MAX_WRITTEN || entry.superseded().len() >= MAX_WRITTEN_MARKS {
                return Err(InsertError::EntryTooLarge { len, max: MAX_WRITTEN });
            }
            let kept = entry.siblings().filter(|sibling| !reads(sibling.dot)).count();
            if value.is_some() && kept >= config.max_siblings {
                return Err(InsertError::TooManySiblings { max: config.max_siblings });
            }
        }
        let Some(value) = value else { return Ok(look) };
        let max = config.longest_value();
        if value.len() > max {
            return Err(InsertError::ValueTooLong { len: value.len(), max });
        }
        if known.is_none() && self.store.keys() >= config.max_keys {
            return Err(InsertError::TooManyKeys { max: config.max_keys });
        }
        let replaced = known.map_or(0, |entry| {
            let read = entry.siblings().filter(|sibling| reads(sibling.dot));
            read.map(|sibling| sibling.value.len()).sum()
        });
        let key_bytes = if known.is_none() { key.len() } else { 0 };
        let bytes = self.store.bytes() + key_bytes + config.policy.stored(value.len());
        if bytes.saturating_sub(replaced) > config.max_bytes {
            return Err(InsertError::TooManyBytes { max: config.max_bytes });
        }
        self.check_quota(key, value, known.unwrap_or_default(), reads)?;
        Ok(look)
    }

    /// Checks the limits of what is this node's own.
    fn check_quota(
        &self,
        key: &[u8],
        value: &[u8],
        known: Entry<'_>,
        reads: impl Fn(Packed) -> bool,
    ) -> Result<(), InsertError> {
        let config = &self.config;
        let goes = |own: &Sibling<'_>| self.replicas.is_mine(own.dot) && reads(own.dot);
        let before = self.store.own();
        let (mut values, mut bytes) = before;
        for own in known.siblings().filter(goes) {
            (values, bytes) = (values - 1, bytes - key.len() - own.value.len());
        }
        let (values, bytes) = (values + 1, bytes + key.len() + config.policy.stored(value.len()));
        // It may be beyond them already: what was written anew is not refused. Then it may become less.
        if values > config.max_own_values.max(before.0) {
            return Err(InsertError::TooManyOwnValues { max: config.max_own_values });
        }
        if bytes > config.max_own_bytes.max(before.1) {
            return Err(InsertError::TooManyOwnBytes { max: config.max_own_bytes });
        }
        Ok(())
    }

    /// Writes after all checks: the next own dot supersedes the siblings that `reads` accepts.
    pub(super) fn write(
        &mut self,
        now: Instant,
        (slot, key): (u32, &[u8]),
        value: Option<&[u8]>,
        reads: impl Fn(Packed) -> bool,
    ) -> Dot {
        let last = self.replicas.made();
        let again = last > 0 && value.is_none() && sabotaged!("dot-named-twice");
        let dot = Packed::new(self.replicas.me(), if again { last } else { last + 1 });
        let lost = sabotaged!("merge-loses-value") && self.store.entry(slot).siblings().len() > 1;
        let value = value.filter(|_| !lost);
        let stamped = self.stamped(value);
        self.write_stored(now, (slot, key), dot, stamped.as_deref().or(value), reads)
    }

    /// Writes a value as it is stored again, with the time that it had: it is no younger than it was.
    pub(super) fn write_again(
        &mut self,
        now: Instant,
        (slot, key): (u32, &[u8]),
        stored: &[u8],
        reads: impl Fn(Packed) -> bool,
    ) -> Dot {
        let dot = Packed::new(self.replicas.me(), self.replicas.made() + 1);
        self.write_stored(now, (slot, key), dot, Some(stored), reads)
    }

    fn write_stored(
        &mut self,
        now: Instant,
        (slot, key): (u32, &[u8]),
        dot: Packed,
        stored: Option<&[u8]>,
        reads: impl Fn(Packed) -> bool,
    ) -> Dot {
        let (before, after) = self.store.write(&self.replicas, slot, dot, stored, reads);
        self.replicas.claim(dot, slot);
        self.note_for_log(dot, slot);
        self.stats.writes += 1;
        self.note_change(slot, key, before, after);
        self.schedule_push(now);
        self.replicas.dot(dot)
    }
}
