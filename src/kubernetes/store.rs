//! The store: the locks of one object.

use std::{
    collections::HashMap,
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    access::Access,
    acquire::{SOON, Waiting},
    answer::Outcome,
    decision::{Seen, Stamp, State, Verdict},
    object::{Object, Place},
    record::{Keys, RECORD, Record, Slot},
    service::{Reply, Service, Write},
};
use crate::{
    Break, Error, ErrorKind, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Call, Grant, Moment},
    backoff::{Backoff, Pace, roll},
    clock::{Clock, Limit},
    http::Lane,
    id,
};

/// How often a change is tried that others' writes come before.
pub(super) const ROUNDS: u32 = 30;
/// The pauses between such tries; the first one is made at once.
const CONFLICT: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(100);
/// More than so many other holders are not remembered.
const MOST_SEEN: usize = 10_000;

/// The locks of one Kubernetes object: each is two of its annotations.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(super) struct Inner {
    pub(super) service: Service,
    pub(super) create: bool,
    /// How long the annotations of other holders have stood as they are. Kept beyond a wait: of many who try once
    /// each, all know.
    seen: Mutex<HashMap<String, (Slot, Moment)>>,
    /// Until when no watch is tried, since it was refused.
    pub(super) no_watch: Mutex<Option<Moment>>,
}

impl Store {
    pub(super) fn new(access: Access, place: Place, create: bool) -> Self {
        let service = Service::new(access, place);
        Self(Arc::new(Inner { service, create, seen: Mutex::default(), no_watch: Mutex::default() }))
    }

    /// The keys of the annotations that a lock has: lockgate's, and that of this library.
    pub fn annotations(lock: &str) -> [String; 2] {
        let Keys { record, note } = Keys::of(lock);
        [record, note]
    }
}

impl Inner {
    /// How long the annotations of a lock have stood as they are; now for the first time, if they are others.
    fn observe(&self, name: &str, slot: &Slot) -> Duration {
        let now = Clock::system().now();
        let mut seen = lock(&self.seen);
        if let Some((old, since)) = seen.get(name)
            && old == slot
        {
            return now.saturating_since(*since);
        }
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        seen.insert(name.to_owned(), (slot.clone(), now));
        Duration::ZERO
    }

    pub(super) fn unobserve(&self, name: &str) {
        lock(&self.seen).remove(name);
    }

    pub(super) fn stamp(&self, counter: u64) -> Stamp {
        Stamp { counter, time: self.service.time() }
    }

    pub(super) fn state(&self, object: &Object, keys: &Keys) -> Result<State> {
        State::of(&object.slot(keys)).map_err(|_| {
            let what =
                format!("the annotation {} of {} is no lock; remove it", keys.record, self.service.place);
            Error::new(ErrorKind::Foreign, what).not_sent()
        })
    }

    /// The object as it is now; `None` when there is none.
    pub(super) fn get(&self, lane: Lane, call: &Call) -> Result<Option<(Arc<Object>, Option<i64>)>> {
        let Reply { outcome, date } = self.service.get(lane, call)?;
        match outcome {
            Outcome::Object(object) => Ok(Some((Arc::new(object), date))),
            Outcome::Missing => Ok(None),
            other => Err(self.service.error(&other, "get").not_sent()),
        }
    }

    pub(super) fn verdict(&self, ask: &Ask, state: &State, date: Option<i64>) -> Verdict {
        let unchanged = self.observe(ask.name(), &state.slot);
        state.verdict(Seen { unchanged, date })
    }

    /// Writes by what is read until nobody else comes before; `None` when there is nothing to write.
    fn change<T>(
        &self,
        name: &str,
        call: &Call,
        mut plan: impl FnMut(&State, Option<i64>) -> Result<Option<(Slot, T)>>,
    ) -> Result<Option<(Object, T)>> {
        let keys = Keys::of(name);
        let mut backoff = Backoff::default();
        for round in 0..ROUNDS {
            pause(&mut backoff, round, call);
            let Some((object, date)) = self.get(Lane::Release, call)? else { return Ok(None) };
            let state = self.state(&object, &keys)?;
            let Some((to, value)) = plan(&state, date)? else { return Ok(None) };
            let strictly = round > 1 && object.annotations.is_none();
            let (keys, from, to) = (&keys, &state.slot, &to);
            let write = Write { object: &object, keys, from, to, strictly, lane: Lane::Release };
            match self.service.patch(&write, call)?.outcome {
                Outcome::Object(object) => return Ok(Some((object, value))),
                Outcome::Stale => {}
                Outcome::Missing => return Ok(None),
                other => return Err(self.service.error(&other, "patch")),
            }
        }
        Err(self.service.error(&Outcome::Stale, "patch"))
    }

    fn status(&self, name: &str, state: &State, date: Option<i64>) -> Status {
        let unchanged = self.observe(name, &state.slot);
        match state.verdict(Seen { unchanged, date }) {
            Verdict::Free => Status::new(name, None, true, Vec::new()),
            Verdict::Held { mode, .. } => Status::new(name, Some(mode), true, state.holders()),
        }
    }
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        Abilities::default().shared().fencing().punctual()
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let mut waiting = std::mem::take(ask.scratch::<Waiting>());
        let tried = self.0.try_once(ask, &mut waiting);
        *ask.scratch() = waiting;
        tried
    }

    fn wait(&self, ask: &mut Ask) -> Result<()> {
        if !self.0.may_watch() {
            ask.pause();
            return Ok(());
        }
        let mut waiting = std::mem::take(ask.scratch::<Waiting>());
        let told = self.0.watch(&Keys::of(ask.name()), &mut waiting, ask.slice());
        *ask.scratch() = waiting;
        if !told {
            ask.pause_within(&SOON);
        }
        Ok(())
    }

    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        let mut waiting = std::mem::take(ask.scratch::<Waiting>());
        let adopted = self.0.adopt(ask, ticket, &mut waiting);
        *ask.scratch() = waiting;
        adopted
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let (id, mode) = (ask.id().to_owned(), ask.mode());
        // What is not ours needs no taking back.
        let plan = |state: &State, _| Ok(state.release(&id, mode).ok().map(|slot| (slot, ())));
        self.0.change(ask.name(), ask.call(), plan).map(drop)
    }

    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        let inner = &self.0;
        match inner.get(Lane::Ordinary, call)? {
            Some((object, date)) => Ok(inner.status(name, &inner.state(&object, &Keys::of(name))?, date)),
            None if inner.create => Ok(Status::new(name, None, true, Vec::new())),
            None => Err(inner.service.error(&Outcome::Missing, "get")),
        }
    }

    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        let inner = &self.0;
        let Some((object, date)) = inner.get(Lane::Ordinary, call)? else {
            return Ok(Vec::new());
        };
        let mut locks = Vec::new();
        for (key, value) in object.annotations.iter().flatten() {
            let record = Record::parse(value).filter(|_| key.starts_with(RECORD));
            // Whatever else has such a key.
            let Some(name) = record.as_ref().and_then(Record::lock) else { continue };
            let keys = Keys::of(&name);
            if keys.record == *key
                && let Ok(state) = State::of(&object.slot(&keys))
            {
                locks.push(inner.status(&name, &state, date));
            }
        }
        locks.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(locks)
    }

    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let inner = &self.0;
        let (now, id) = (how == Break::Now, id::uuid());
        let mut first: Option<String> = None;
        let broken = inner.change(name, call, |state, date| {
            let unchanged = inner.observe(name, &state.slot);
            if state.verdict(Seen { unchanged, date }) == Verdict::Free {
                return Ok(None);
            }
            let uuid = state.uuid().unwrap_or_default();
            if first.get_or_insert_with(|| uuid.to_owned()) != uuid {
                let what = "its holder let it go meanwhile, and another has it: look again";
                return Err(Error::new(ErrorKind::Unavailable, what).not_sent());
            }
            Ok(state.break_it(now, &id, inner.stamp(0)))
        })?;
        Ok(broken.map(|(_, wait)| wait))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("kubernetes::Store")
            .field("object", &self.0.service.place.path())
            .finish_non_exhaustive()
    }
}

/// Before a change is tried again: at once, then after pauses that differ from process to process.
pub(super) fn pause(backoff: &mut Backoff, round: u32, call: &Call) {
    if round > 1 {
        let pause = backoff.next(&CONFLICT, roll()).min(call.remaining());
        Pace::default().sleep(&Limit::after(&Clock::system(), pause), pause);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
