//! Who has a lock, and what to write next: pure functions of what stands in its annotations.
//!
//! No wall clock of ours is in it. Another holder is gone when its annotations stood unchanged for its TTL by our own
//! steady clock, or when the API server's time says so by a wide margin.

use std::{collections::BTreeMap, time::Duration};

use super::record::{LOCKGATE_TTL, Member, Note, Record, Slot};
use crate::{Holder, LostReason, Mode};

/// By so much the clocks of a cluster's API servers may differ, in seconds.
const SKEW: i64 = 5;

/// What stands in the annotations of a lock, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) slot: Slot,
    record: Option<Record>,
    /// That of the record, or the one that a break left.
    note: Option<Note>,
}

/// The annotation under lockgate's key is no record of a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) lock: &'a str,
    pub(super) id: &'a str,
    pub(super) mode: Mode,
    pub(super) ttl: Duration,
    pub(super) holder: &'a Holder,
}

/// What makes one write another one than the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) counter: u64,
    /// The API server's time, or a little later, in seconds since 1970.
    pub(super) time: i64,
}

/// What is known of others' time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// For how long the annotations stood unchanged, by our clock.
    pub(super) unchanged: Duration,
    /// The API server's time, or a little earlier, if it tells.
    pub(super) date: Option<i64>,
}

/// Whose the lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody's: never taken, let go, or of a holder who is gone.
    Free,
    Held {
        mode: Mode,
        /// When its holder counts as gone, if nothing changes until then.
        gone_in: Duration,
    },
}

impl State {
    /// # Errors
    /// Under lockgate's key stands something else.
    pub(super) fn of(slot: &Slot) -> Result<Self, Foreign> {
        let record = match slot.record.as_deref() {
            // As lockgate takes it.
            None | Some("") => None,
            Some(text) => Some(Record::parse(text).ok_or(Foreign)?),
        };
        let note = slot.note.as_deref().and_then(Note::parse);
        let note = note.filter(|note| match &record {
            Some(record) => note.uuid == record.uuid(),
            None => note.broken,
        });
        Ok(Self { slot: slot.clone(), record, note })
    }

    /// Whose the lock is now.
    pub(super) fn verdict(&self, seen: Seen) -> Verdict {
        let Some(record) = self.record.as_ref().filter(|record| record.count() > 0) else {
            return Verdict::Free;
        };
        let mode = if record.is_shared() { Mode::Shared } else { Mode::Exclusive };
        let ttl = self.ttl();
        // Ours has the API server's time. lockgate's is of its own clock, and could be a renewed one's at any time.
        let (until, slack) = match &self.note {
            Some(note) => (record.expires().max(after(note.time, note.ttl)), SKEW),
            None => (record.expires(), seconds(LOCKGATE_TTL) + SKEW),
        };
        let surely = seen.date.is_some_and(|date| date > until.saturating_add(slack));
        let timestamp = self.note.is_some() || seen.date.is_none_or(|date| date > until);
        if surely || (seen.unchanged >= ttl && timestamp) {
            return Verdict::Free;
        }
        // What is waited for after that is another clock.
        let left = ttl.saturating_sub(seen.unchanged);
        let gone_in = if left.is_zero() { Duration::from_secs(1) } else { left };
        Verdict::Held { mode, gone_in }
    }

    fn ttl(&self) -> Duration {
        self.note.as_ref().map_or(LOCKGATE_TTL, |note| note.ttl)
    }

    /// The id of the record, which is that of an exclusive holder.
    pub(super) fn uuid(&self) -> Option<&str> {
        self.record.as_ref().map(Record::uuid)
    }

    /// Who has it. lockgate's say nothing of themselves.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let Some(record) = &self.record else { return Vec::new() };
        let members = self.note.iter().flat_map(|note| note.members.values());
        let mut holders: Vec<Holder> = members.map(|member| member.holder.clone()).collect();
        let theirs = record.count().saturating_sub(i64::try_from(holders.len()).unwrap_or(i64::MAX));
        if self.note.as_ref().is_some_and(|note| note.broken) {
            return vec![Holder::new("nobody: the lock was broken")];
        }
        for _ in 0..theirs.clamp(0, 100) {
            holders.push(Holder::new("a user of lockgate"));
        }
        holders
    }

    /// The counter of our last write that was carried out, while the lock is ours.
    ///
    /// # Errors
    /// How it was lost.
    pub(super) fn counter_of(&self, id: &str, mode: Mode) -> Result<u64, LostReason> {
        let (_, note) = self.ours(id, mode)?;
        Ok(note.members[id].counter)
    }

    /// Record and note, when they say that the lock is held by this id.
    fn ours(&self, id: &str, mode: Mode) -> Result<(&Record, &Note), LostReason> {
        if let Some(note) = self.note.as_ref().filter(|note| note.broken) {
            // The id of whom it was taken from is kept by the note's members.
            return Err(if note.members.contains_key(id) { LostReason::Broken } else { LostReason::Taken });
        }
        let Some(record) = &self.record else { return Err(LostReason::Deleted) };
        match &self.note {
            Some(note) if note.members.contains_key(id) && record.is_shared() == (mode == Mode::Shared) => {
                Ok((record, note))
            }
            _ => Err(LostReason::Taken),
        }
    }

    /// What to write to take the lock; `None` when it is another's.
    pub(super) fn take(&self, wanted: &Wanted<'_>, verdict: &Verdict, stamp: Stamp) -> Option<Slot> {
        let shared = wanted.mode == Mode::Shared;
        let ttl = if shared { LOCKGATE_TTL } else { wanted.ttl };
        let expires = after(stamp.time, ttl);
        let since = u64::try_from(stamp.time).unwrap_or(0);
        let since = std::time::SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since));
        let holder = wanted.holder.clone();
        let holder = since.map_or(holder.clone(), |since| holder.with_since(since));
        let member = Member { counter: stamp.counter, holder };
        let note = |uuid: &str, mut members: BTreeMap<String, Member>, time| {
            members.insert(wanted.id.to_owned(), member.clone());
            Note { uuid: uuid.to_owned(), ttl, time, members, broken: false }
        };
        match verdict {
            Verdict::Free => {
                let record = match self.record.clone() {
                    Some(mut record) => {
                        record.take_over(wanted.id, shared, expires);
                        record
                    }
                    None => Record::new(wanted.id, wanted.lock, shared, expires),
                };
                Some(slot(&record, &note(wanted.id, BTreeMap::new(), stamp.time)))
            }
            Verdict::Held { mode: Mode::Shared, .. } if shared => {
                let mut record = self.record.clone()?;
                let (members, time) = match &self.note {
                    Some(note) => (note.members.clone(), note.time.max(stamp.time)),
                    None => (BTreeMap::new(), stamp.time),
                };
                if !members.contains_key(wanted.id) {
                    record.set_count(record.count().saturating_add(1));
                }
                record.extend(expires);
                let note = note(record.uuid(), members, time);
                Some(slot(&record, &note))
            }
            Verdict::Held { .. } => None,
        }
    }

    /// What to write to go on holding it.
    ///
    /// # Errors
    /// How it was lost.
    pub(super) fn renew(&self, id: &str, mode: Mode, stamp: Stamp) -> Result<Slot, LostReason> {
        let (record, note) = self.ours(id, mode)?;
        let (mut record, mut note) = (record.clone(), note.clone());
        note.time = note.time.max(stamp.time);
        record.extend(after(stamp.time, note.ttl));
        if let Some(member) = note.members.get_mut(id) {
            member.counter = stamp.counter;
        }
        Ok(slot(&record, &note))
    }

    /// What to write to let it go: our part of it, when others share it.
    ///
    /// # Errors
    /// How it was lost.
    pub(super) fn release(&self, id: &str, mode: Mode) -> Result<Slot, LostReason> {
        let (record, note) = self.ours(id, mode)?;
        let (mut record, mut note) = (record.clone(), note.clone());
        note.members.remove(id);
        let ours = i64::try_from(note.members.len()).unwrap_or(i64::MAX);
        let left = record.count().saturating_sub(1).max(ours);
        if left <= 0 {
            return Ok(Slot::default());
        }
        record.set_count(left);
        if ours == 0 {
            // What is left is lockgate's alone.
            return Ok(Slot { record: Some(record.text()), note: None });
        }
        Ok(slot(&record, &note))
    }

    /// What to write to go on under another id.
    ///
    /// # Errors
    /// It is not the old id's.
    pub(super) fn adopt(&self, old: &str, wanted: &Wanted<'_>, stamp: Stamp) -> Result<Slot, LostReason> {
        let (record, note) = self.ours(old, wanted.mode)?;
        let (mut record, mut note) = (record.clone(), note.clone());
        let member = note.members.remove(old).ok_or(LostReason::Taken)?;
        let holder = match member.holder.since() {
            Some(since) => wanted.holder.clone().with_since(since),
            None => wanted.holder.clone(),
        };
        note.members.insert(wanted.id.to_owned(), Member { counter: stamp.counter, holder });
        note.time = note.time.max(stamp.time);
        record.extend(after(stamp.time, note.ttl));
        if wanted.mode == Mode::Exclusive {
            record.set_uuid(wanted.id);
            wanted.id.clone_into(&mut note.uuid);
        }
        Ok(slot(&record, &note))
    }

    /// What to write to take the lock from whoever has it, and for how long nobody gets it then. At once: the record
    /// goes. Else another stands in its place for as long as a holder may not have seen that.
    pub(super) fn break_it(&self, now: bool, id: &str, stamp: Stamp) -> Option<(Slot, Duration)> {
        let record = self.record.as_ref()?;
        let ttl = self.ttl();
        let mut members = self.note.as_ref().map_or_else(BTreeMap::new, |note| note.members.clone());
        // What it is to tell is whose it was; who they are, nobody asks any more.
        for member in members.values_mut() {
            member.holder = Holder::new("");
        }
        let note = Note { uuid: id.to_owned(), ttl, time: stamp.time, members, broken: true };
        if now {
            return Some((Slot { record: None, note: Some(note.text()) }, Duration::ZERO));
        }
        let mut record = record.clone();
        let expires = record.expires().max(after(stamp.time, ttl));
        record.take_over(id, false, expires);
        Some((slot(&record, &note), ttl))
    }
}

fn slot(record: &Record, note: &Note) -> Slot {
    Slot { record: Some(record.text()), note: Some(note.text()) }
}

fn after(time: i64, ttl: Duration) -> i64 {
    time.saturating_add(seconds(ttl))
}

/// In whole seconds, never less.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs() + u64::from(time.subsec_nanos() > 0)).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
