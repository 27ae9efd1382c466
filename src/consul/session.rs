//! Sessions: made, renewed, kept for the next lock, and ended.
//!
//! A session serves one guard at a time (SAFETY: else a late release of one would free another's key). After a clean
//! release it is kept for the next lock of the same store that wants one of its kind. One of whose requests the answer
//! never came is ended instead: nobody knows what may still arrive in its name.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::agent::{Agent, Spec};
use crate::{
    Result,
    backend::{Call, Clock, Moment},
    clock::Limit,
    keeper::Retry,
    threads,
};

/// As many are kept that nobody uses.
const IDLE: usize = 64;
/// How long the end of a session is tried; then its TTL ends it.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the end of a store waits for that.
const LAST_FAREWELL: Duration = Duration::from_secs(1);

/// The sessions of one store.
pub(super) struct Sessions {
    agent: Arc<Agent>,
    idle: Mutex<Vec<Idle>>,
    farewell: Arc<Farewell>,
}

struct Idle {
    id: String,
    spec: Spec,
    since: Moment,
}

/// One session, owned by who asks for a lock or holds one. When it is dropped it is kept or ended.
pub(super) struct Session {
    pub(super) id: String,
    spec: Spec,
    /// When the last request was sent that started its timer. No other request does, a lock neither.
    pub(super) since: Moment,
    /// It has a key, or may have one.
    pub(super) holds: bool,
    /// The answer to a request never came: it is not used again after this lock.
    pub(super) unclear: bool,
    /// It is gone, or somebody else's now.
    pub(super) left: bool,
    home: Arc<Sessions>,
}

impl Sessions {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        let farewell = Farewell { agent: agent.clone(), under_way: Mutex::new(0), ended: Condvar::new() };
        Self { agent, idle: Mutex::default(), farewell: Arc::new(farewell) }
    }

    /// One that was kept, or a new one: with two thirds of its time left, or more.
    pub(super) fn take(self: &Arc<Self>, spec: &Spec, call: &Call) -> Result<Session> {
        while let Some(idle) = self.take_idle(spec) {
            let mut session = self.own(idle.id, idle.spec, idle.since);
            if session.is_fresh(call.now()) || session.renew(call)? {
                return Ok(session);
            }
        }
        let since = call.now();
        let id = self.agent.create(spec, call.remaining())?;
        Ok(self.own(id, spec.clone(), since))
    }

    /// Ends a session beside whatever goes on.
    pub(super) fn end(&self, id: String) {
        self.farewell.say(vec![id]);
    }

    fn own(self: &Arc<Self>, id: String, spec: Spec, since: Moment) -> Session {
        Session { id, spec, since, holds: false, unclear: false, left: false, home: self.clone() }
    }

    /// The freshest of its kind.
    fn take_idle(&self, spec: &Spec) -> Option<Idle> {
        let mut idle = self.idle();
        let place = idle.iter().rposition(|idle| idle.spec == *spec)?;
        Some(idle.remove(place))
    }

    fn keep(&self, new: Idle) {
        let mut idle = self.idle();
        let now = new.since;
        // The agents ended these themselves.
        idle.retain(|idle| now.saturating_since(idle.since) < 2 * idle.spec.ttl);
        idle.push(new);
        let too_many = (idle.len() > IDLE).then(|| idle.remove(0).id);
        drop(idle);
        if let Some(id) = too_many {
            self.end(id);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Whether a lock may be taken with it: two thirds of its time are left.
    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        now.saturating_since(self.since) <= self.spec.ttl / 3
    }

    /// Starts its timer anew; `false`: it is gone.
    pub(super) fn renew(&mut self, call: &Call) -> Result<bool> {
        let since = call.now();
        match self.home.agent.renew(&self.id, call.remaining()) {
            Ok(true) => self.since = since,
            Ok(false) => {
                self.left = true;
                return Ok(false);
            }
            Err(e) => {
                self.unclear |= e.is_unclear();
                return Err(e);
            }
        }
        Ok(true)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let id = std::mem::take(&mut self.id);
        if self.holds || self.unclear {
            self.home.end(id);
        } else {
            self.home.keep(Idle { id, spec: self.spec.clone(), since: self.since });
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        if !idle.is_empty() {
            self.farewell.say(idle.into_iter().map(|idle| idle.id).collect());
        }
        // A program that ends now would leave them behind until their TTL.
        self.farewell.wait(LAST_FAREWELL);
    }
}

/// The ends of sessions, which wait for nobody.
struct Farewell {
    agent: Arc<Agent>,
    under_way: Mutex<usize>,
    ended: Condvar,
}

impl Farewell {
    fn say(self: &Arc<Self>, ids: Vec<String>) {
        let mut end = Ending(self.clone());
        *self.under_way() += 1;
        // Refused a thread, the TTL ends them.
        let _ = threads::run("consul", move || {
            let limit = Limit::after(&Clock::system(), FAREWELL);
            for id in ids {
                end.of(&id, &limit);
            }
        });
    }

    fn wait(&self, limit: Duration) {
        let waited = self.ended.wait_timeout_while(self.under_way(), limit, |under_way| *under_way > 0);
        drop(waited);
    }

    fn under_way(&self) -> MutexGuard<'_, usize> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them under way.
struct Ending(Arc<Farewell>);

impl Ending {
    fn of(&mut self, id: &str, limit: &Limit) {
        let mut retry = Retry::new(limit.clone());
        while let Some(left) = retry.next() {
            match self.0.agent.destroy(id, left) {
                Err(e) if e.is_retryable() => log::debug!(target: "leasehold", "{e}"),
                Err(e) => return log::warn!(target: "leasehold", "a session was left to its TTL: {e}"),
                Ok(()) => return,
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.under_way() -= 1;
        self.0.ended.notify_all();
    }
}
