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
    answer::Outcome,
    decision::{Seen, Stamp, State, Verdict, Wanted},
    held::Held,
    object::{Object, Place, config},
    record::{Keys, LOCKGATE_TTL, RECORD, Record, Slot},
    service::{Reply, Service, Write},
    watch::{Event, Lines},
};
use crate::{
    Break, Error, ErrorKind, LostReason, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Moment},
    backoff::{Backoff, Pace, roll},
    clock::{Clock, Limit},
    http::Lane,
    id,
};

/// How often a change is tried that others' writes come before.
pub(super) const ROUNDS: u32 = 30;
/// The pauses between such tries; the first one is made at once.
const CONFLICT: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(100);
/// The pauses of who waits after a watch that told nothing.
const SOON: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);
/// After this a watch that was refused is tried again.
const REFUSED: Duration = Duration::from_secs(60);
/// More than so many other holders are not remembered.
const MOST_SEEN: usize = 10_000;

/// A store to be built.
#[derive(Clone, Debug)]
#[must_use = "is no store until `build`"]
pub struct Builder {
    access: Access,
    namespace: String,
    resource: String,
    name: String,
    create: bool,
}

impl Builder {
    pub(super) fn new(access: Access, namespace: &str, resource: &str, name: &str) -> Self {
        let [namespace, resource, name] = [namespace, resource, name].map(str::to_owned);
        Self { access, namespace, resource, name, create: false }
    }

    /// Whether the object may be made when it is missing, which a `ConfigMap` can be. Default: no.
    pub fn create(mut self, allowed: bool) -> Self {
        self.create = allowed;
        self
    }

    /// Checks it all. No request is sent.
    ///
    /// # Errors
    /// `Config`, with what is wrong: a name that no object can have, an object that cannot be made, `http:` to another
    /// machine, an `https:` server in a program without a TLS feature.
    pub fn build(self) -> Result<Store> {
        let place = Place::new(&self.namespace, &self.resource, &self.name)?;
        if self.create && !place.is_config_map() {
            return Err(config(format!("{place} cannot be made for you: only ConfigMaps are")));
        }
        self.access.store(place, self.create)
    }
}

/// The locks of one Kubernetes object: each is two of its annotations.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(super) struct Inner {
    pub(super) service: Service,
    create: bool,
    /// How long the annotations of other holders have stood as they are. Kept beyond a wait: of many who try once
    /// each, all know.
    seen: Mutex<HashMap<String, (Slot, Moment)>>,
    /// Until when no watch is tried, since it was refused.
    no_watch: Mutex<Option<Moment>>,
}

/// What a wait keeps between its tries.
#[derive(Default)]
struct Waiting {
    /// Tries whose answer was lost: what they wrote, and when they were sent.
    tries: Vec<(u64, Moment)>,
    counter: u64,
    /// A watch has just told how the lock is.
    told: bool,
    /// The server's time that the last answer bore.
    date: Option<i64>,
    /// As it was when another had it.
    slot: Slot,
    gone_in: Duration,
}

/// How a lock is.
struct Look {
    /// `None`: there is none yet.
    object: Option<Arc<Object>>,
    state: State,
    verdict: Verdict,
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

    fn verdict(&self, ask: &Ask, state: &State, date: Option<i64>) -> Verdict {
        let unchanged = self.observe(ask.name(), &state.slot);
        state.verdict(Seen { unchanged, date })
    }

    /// How the lock is: as it is known, when that is good enough to write by, or when it has just been told; else as
    /// it is now.
    fn look(&self, ask: &Ask, keys: &Keys, waiting: &mut Waiting, known: bool) -> Result<Look> {
        let told = std::mem::take(&mut waiting.told);
        if let Some(object) = self.service.known().filter(|_| known)
            && let Ok(state) = self.state(&object, keys)
        {
            let verdict = self.verdict(ask, &state, waiting.date.filter(|_| told));
            if told || verdict == Verdict::Free {
                return Ok(Look { object: Some(object), state, verdict });
            }
        }
        let object = match self.get(Lane::Ordinary, ask.call())? {
            Some((object, date)) => {
                waiting.date = date;
                Some(object)
            }
            None => None,
        };
        let state = match &object {
            Some(object) => self.state(object, keys)?,
            None => State::default(),
        };
        let verdict = self.verdict(ask, &state, waiting.date);
        Ok(Look { object, state, verdict })
    }

    fn try_once(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let (keys, call, id) = (Keys::of(ask.name()), ask.call().clone(), ask.id().to_owned());
        let mut backoff = Backoff::default();
        for round in 0..ROUNDS {
            pause(&mut backoff, round, &call);
            let known = round == 0 && waiting.tries.is_empty();
            let Look { object, state, verdict } = self.look(ask, &keys, waiting, known)?;
            if !waiting.tries.is_empty()
                && let Some(object) = &object
                && let Ok(counter) = state.counter_of(&id, ask.mode())
            {
                // An earlier try was carried out.
                let since = since_of(&waiting.tries, counter);
                return Ok(Attempt::Granted(self.grant(ask, &keys, object, counter, since)));
            }
            waiting.counter += 1;
            let stamp = self.stamp(waiting.counter);
            let ttl = ask.ttl().unwrap_or(LOCKGATE_TTL);
            let wanted = Wanted { lock: ask.name(), id: &id, mode: ask.mode(), ttl, holder: ask.holder() };
            let Some(to) = state.take(&wanted, &verdict, stamp) else {
                return Ok(Attempt::Busy(busy(&state, &verdict, waiting)));
            };
            let sent = call.now();
            let outcome = match &object {
                Some(object) => {
                    let (keys, from, to) = (&keys, &state.slot, &to);
                    let strictly = round > 1 && object.annotations.is_none();
                    let write = Write { object, keys, from, to, strictly, lane: Lane::Ordinary };
                    self.service.patch(&write, &call)
                }
                None if self.create => self.service.create(&keys, &to, &call),
                None => return Err(self.service.error(&Outcome::Missing, "get").not_sent()),
            };
            match self.unclear(outcome, waiting, sent)? {
                Outcome::Object(object) => {
                    // Otherwise it was carried out, and changed by another at once.
                    if object.slot(&keys) == to {
                        let counter = waiting.counter;
                        return Ok(Attempt::Granted(self.grant(ask, &keys, &object, counter, sent)));
                    }
                    waiting.tries.push((waiting.counter, sent));
                }
                Outcome::Stale | Outcome::Exists | Outcome::Missing => {}
                other => {
                    let verb = if object.is_some() { "patch" } else { "create" };
                    return Err(self.service.error(&other, verb).not_sent());
                }
            }
        }
        Err(self.service.error(&Outcome::Stale, "patch"))
    }

    /// Remembers a try that was perhaps carried out.
    fn unclear(&self, reply: Result<Reply>, waiting: &mut Waiting, sent: Moment) -> Result<Outcome> {
        let error = match reply {
            Ok(Reply { outcome: outcome @ Outcome::Transient { .. }, .. }) => {
                self.service.error(&outcome, "patch")
            }
            Ok(Reply { outcome, .. }) => return Ok(outcome),
            Err(error) => error,
        };
        if error.is_unclear() {
            waiting.tries.push((waiting.counter, sent));
        }
        Err(error)
    }

    fn grant(
        self: &Arc<Self>,
        ask: &Ask,
        keys: &Keys,
        object: &Object,
        counter: u64,
        since: Moment,
    ) -> Grant {
        self.unobserve(ask.name());
        let (id, mode) = (ask.id().to_owned(), ask.mode());
        let held = Held::new(self, ask.name(), keys.clone(), &id, mode, object, counter, since);
        let grant = Grant::new(held, since).lease_id(id);
        let grant = grant.fencing_token(object.version.min(i64::MAX.cast_unsigned()));
        if mode == Mode::Shared { grant.ttl(Some(LOCKGATE_TTL)) } else { grant }
    }

    /// Watches until the lock is as it was not, its holder counts as gone, or the slice is over. `false`: nothing
    /// was told, so that a pause is due.
    fn watch(&self, keys: &Keys, waiting: &mut Waiting, slice: Duration) -> bool {
        let name = &*self.service.place.name;
        let (mut lines, mut told, mut error) = (Lines::default(), false, None);
        // A second and a little more, so that the server ends it, and the connection serves again.
        let limit = if slice < Duration::from_secs(1) { slice } else { slice + Duration::from_millis(500) };
        let watched = self.service.watch(limit.min(waiting.gone_in), |piece| {
            lines.take(piece, name, |event| match event {
                Event::Object(object) => {
                    self.service.learn(&object);
                    told = true;
                    object.slot(keys) == waiting.slot
                }
                Event::Deleted => {
                    self.service.forget();
                    told = false;
                    false
                }
                Event::Nothing => true,
                Event::Error(why) => {
                    error = Some(why);
                    false
                }
                Event::Garbage => {
                    error = Some("no event".to_owned());
                    false
                }
            })
        });
        match watched {
            Ok((response, date)) => {
                waiting.date = date;
                match Outcome::of(&response, name) {
                    // The body went to the reader.
                    _ if response.status == 200 => {}
                    Outcome::Forbidden(said) => {
                        log::debug!(target: "leasehold", "the verb `watch` is not allowed, so locks are polled: {said}");
                        *lock(&self.no_watch) = Some(Clock::system().now() + REFUSED);
                    }
                    other => error = Some(self.service.error(&other, "watch").to_string()),
                }
            }
            // It ends so when its slice is shorter than the server's second.
            Err(_) if told => {}
            Err(e) => error = Some(e.to_string()),
        }
        if let Some(error) = error {
            log::debug!(target: "leasehold", "a watch ended: {error}");
            return false;
        }
        waiting.told = told;
        told
    }

    fn may_watch(&self) -> bool {
        lock(&self.no_watch).is_none_or(|until| Clock::system().now() >= until)
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
        Abilities::default().shared().fencing()
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

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let (id, mode) = (ask.id().to_owned(), ask.mode());
        // What is not ours needs no taking back.
        let plan = |state: &State, _| Ok(state.release(&id, mode).ok().map(|slot| (slot, ())));
        self.0.change(ask.name(), ask.call(), plan).map(drop)
    }

    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        let inner = &self.0;
        let place = inner.service.place.path();
        if ticket.note() != place {
            return Err(config(format!("the ticket is of another store than {place}")).not_sent());
        }
        let mut waiting = std::mem::take(ask.scratch::<Waiting>());
        let (id, mode, call) = (ask.id().to_owned(), ask.mode(), ask.call().clone());
        let ttl = ask.ttl().unwrap_or(LOCKGATE_TTL);
        let adopted = || -> Result<Grant> {
            let (keys, mut backoff) = (Keys::of(ask.name()), Backoff::default());
            for round in 0..ROUNDS {
                pause(&mut backoff, round, &call);
                let gone = || Error::lost(LostReason::Deleted);
                let (object, _) = inner.get(Lane::Ordinary, &call)?.ok_or_else(gone)?;
                let state = inner.state(&object, &keys)?;
                if let Ok(counter) = state.counter_of(&id, mode) {
                    let since = since_of(&waiting.tries, counter);
                    return Ok(inner.grant(ask, &keys, &object, counter, since));
                }
                waiting.counter += 1;
                let stamp = inner.stamp(waiting.counter);
                let wanted = Wanted { lock: ask.name(), id: &id, mode, ttl, holder: ask.holder() };
                let to = state.adopt(ticket.lease_id(), &wanted, stamp).map_err(Error::lost)?;
                let (keys_of, from) = (&keys, &state.slot);
                let lane = Lane::Ordinary;
                let write = Write { object: &object, keys: keys_of, from, to: &to, strictly: false, lane };
                let sent = call.now();
                let reply = inner.service.patch(&write, &call);
                match inner.unclear(reply, &mut waiting, sent)? {
                    Outcome::Object(object) if object.slot(&keys) == to => {
                        return Ok(inner.grant(ask, &keys, &object, waiting.counter, sent));
                    }
                    Outcome::Object(_) => waiting.tries.push((waiting.counter, sent)),
                    Outcome::Stale => {}
                    Outcome::Missing => return Err(Error::lost(LostReason::Deleted)),
                    other => return Err(inner.service.error(&other, "patch").not_sent()),
                }
            }
            Err(inner.service.error(&Outcome::Stale, "patch"))
        };
        let adopted = { adopted }();
        *ask.scratch() = waiting;
        adopted
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
            let keys = Keys::of(name);
            if keys.record == *key
                && let Ok(state) = State::of(&object.slot(&keys))
            {
                locks.push(inner.status(name, &state, date));
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

/// The lock is another's: what a wait needs to know of that.
fn busy(state: &State, verdict: &Verdict, waiting: &mut Waiting) -> Busy {
    waiting.slot = state.slot.clone();
    if let Verdict::Held { gone_in, .. } = verdict {
        waiting.gone_in = *gone_in;
    }
    match state.holders().into_iter().next() {
        Some(holder) => Busy::default().holder(holder),
        None => Busy::default(),
    }
}

/// When the try was sent that wrote this; of one that is not known, the earliest.
pub(super) fn since_of(tries: &[(u64, Moment)], counter: u64) -> Moment {
    let found = tries.iter().find(|(written, _)| *written == counter);
    found.or(tries.first()).map_or(Moment::from_nanos(0), |(_, sent)| *sent)
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
