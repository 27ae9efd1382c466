//! How a lock is asked for, and waited for.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    answer::Outcome,
    decision::{State, Verdict, Wanted},
    held::Held,
    object::{Object, config},
    record::{Keys, LOCKGATE_TTL, Slot},
    service::{Reply, Write},
    store::{Inner, ROUNDS, lock, pause},
    watch::{Event, Lines},
};
use crate::{
    Error, LostReason, Mode, Result, Ticket,
    backend::{Ask, Attempt, Busy, Grant, Moment},
    backoff::Backoff,
    clock::Clock,
    http::Lane,
};

/// The pauses of who waits after a watch that told nothing.
pub(super) const SOON: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);
/// After this a watch that was refused is tried again.
const REFUSED: Duration = Duration::from_secs(60);

/// What a wait keeps between its tries.
#[derive(Default)]
pub(super) struct Waiting {
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

impl Inner {
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

    pub(super) fn try_once(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
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

    /// Takes a lock over from another process, under a new id.
    pub(super) fn adopt(
        self: &Arc<Self>,
        ask: &Ask,
        ticket: &Ticket,
        waiting: &mut Waiting,
    ) -> Result<Grant> {
        let place = self.service.place.path();
        if ticket.note() != place {
            return Err(config(format!("the ticket is of another store than {place}")).not_sent());
        }
        let (keys, call, mode) = (Keys::of(ask.name()), ask.call(), ask.mode());
        let ttl = ask.ttl().unwrap_or(LOCKGATE_TTL);
        let wanted = Wanted { lock: ask.name(), id: ask.id(), mode, ttl, holder: ask.holder() };
        let mut backoff = Backoff::default();
        for round in 0..ROUNDS {
            pause(&mut backoff, round, call);
            let gone = || Error::lost(LostReason::Deleted);
            let (object, _) = self.get(Lane::Ordinary, call)?.ok_or_else(gone)?;
            let state = self.state(&object, &keys)?;
            if let Ok(counter) = state.counter_of(ask.id(), mode) {
                let since = since_of(&waiting.tries, counter);
                return Ok(self.grant(ask, &keys, &object, counter, since));
            }
            waiting.counter += 1;
            let stamp = self.stamp(waiting.counter);
            let to = state.adopt(ticket.lease_id(), &wanted, stamp).map_err(Error::lost)?;
            let (from, to, lane) = (&state.slot, &to, Lane::Ordinary);
            let write = Write { object: &object, keys: &keys, from, to, strictly: false, lane };
            let sent = call.now();
            let reply = self.service.patch(&write, call);
            match self.unclear(reply, waiting, sent)? {
                Outcome::Object(object) if object.slot(&keys) == *to => {
                    return Ok(self.grant(ask, &keys, &object, waiting.counter, sent));
                }
                Outcome::Object(_) => waiting.tries.push((waiting.counter, sent)),
                Outcome::Stale => {}
                Outcome::Missing => return Err(gone()),
                other => return Err(self.service.error(&other, "patch").not_sent()),
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
    pub(super) fn watch(&self, keys: &Keys, waiting: &mut Waiting, slice: Duration) -> bool {
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

    pub(super) fn may_watch(&self) -> bool {
        lock(&self.no_watch).is_none_or(|until| Clock::system().now() >= until)
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
