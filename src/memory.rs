//! Locks in this process: for the tests of programs that use locks.
//!
//! It behaves as a store over the network does: leases run out, can be broken, and are renewed by a thread. Its
//! time can be moved by hand ([`Clock::manual`]), and it can be told to fail, to hang, or to lose its answers.
//!
//! ```
//! use leasehold::{ErrorKind, Locker, backend::Clock, memory};
//! use std::time::Duration;
//!
//! let time = Clock::manual();
//! let store = memory::Store::with_clock(time.clone());
//! let guard = Locker::new(store.clone()).ttl(Duration::from_secs(30)).lock("x")?;
//! time.advance(Duration::from_secs(3600));
//! assert!(guard.is_held()); // renewed all the while
//!
//! store.fail(usize::MAX, ErrorKind::Unavailable);
//! time.advance(Duration::from_secs(31));
//! assert_eq!(guard.check().unwrap_err().kind(), ErrorKind::Lost);
//! # Ok::<(), leasehold::Error>(())
//! ```

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    Break, Error, ErrorKind, Holder, LostReason, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Clock, Grant, Lease, Moment},
    clock, fencing, id,
};

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const TTLS: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(86_400);

/// A store in memory. A clone is the same store; every [`new`](Self::new) is one of its own.
#[derive(Clone)]
pub struct Store(Arc<World>);

struct World {
    clock: Clock,
    state: Mutex<State>,
    changed: Condvar,
    /// Tells its tickets from those of other stores, in other processes too; made for the first.
    id: OnceLock<String>,
}

#[derive(Default)]
struct State {
    locks: HashMap<String, Lock>,
    /// Grows with every change, so that a waiter misses none.
    version: u64,
    hang: bool,
    fail: Option<(usize, ErrorKind)>,
    lose_answers: usize,
}

#[derive(Default)]
struct Lock {
    counter: Option<u64>,
    held: Vec<Held>,
    /// Leases that were broken by `Now`, until their holders have seen it.
    broken: Vec<String>,
}

struct Held {
    id: String,
    mode: Mode,
    holder: Holder,
    token: u64,
    ttl: Option<Duration>,
    until: Moment,
    broken: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// An empty store whose time a test moves.
    pub fn with_clock(clock: Clock) -> Self {
        Self(Arc::new(World { clock, state: Mutex::default(), changed: Condvar::new(), id: OnceLock::new() }))
    }

    /// The store of `memory:` addresses.
    pub(crate) fn of_this_process() -> Self {
        static STORE: OnceLock<Store> = OnceLock::new();
        STORE.get_or_init(Self::new).clone()
    }

    /// While on, no call returns; then those that hang go on, as late as they are.
    pub fn hang(&self, on: bool) {
        self.0.lock().hang = on;
        self.0.changed.notify_all();
    }

    /// The next so many calls fail so, and do nothing; zero ends that.
    pub fn fail(&self, calls: usize, kind: ErrorKind) {
        self.0.lock().fail = Some((calls, kind));
    }

    /// The next so many calls are done, but answer `Unavailable`; zero ends that.
    pub fn lose_answers(&self, calls: usize) {
        self.0.lock().lose_answers = calls;
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> &str {
        self.id.get_or_init(id::uuid)
    }

    /// One call from outside, with the faults that a test asked for.
    fn call<T>(&self, act: impl FnOnce(&mut State, Moment) -> Result<T>) -> Result<T> {
        let mut state =
            self.changed.wait_while(self.lock(), |state| state.hang).unwrap_or_else(PoisonError::into_inner);
        if let Some((calls @ 1.., kind)) = &mut state.fail {
            *calls -= 1;
            return Err(Error::new(*kind, "a test wants this call to fail"));
        }
        let now = self.clock.now();
        let answer = act(&mut state, now);
        state.version += 1;
        self.changed.notify_all();
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            let what = "a test wants the answer of this call to be lost";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        answer
    }
}

impl Lock {
    /// Forgets the leases that ran out.
    fn expire(&mut self, now: Moment) {
        self.held.retain(|held| now < held.until);
    }

    fn find(&mut self, id: &str) -> Result<&mut Held, LostReason> {
        if let Some(place) = self.broken.iter().position(|broken| broken == id) {
            self.broken.swap_remove(place);
            return Err(LostReason::Broken);
        }
        match self.held.iter().position(|held| held.id == id) {
            Some(place) if self.held[place].broken => {
                self.held.remove(place);
                Err(LostReason::Broken)
            }
            Some(place) => Ok(&mut self.held[place]),
            None if self.held.is_empty() => Err(LostReason::Expired),
            None => Err(LostReason::Taken),
        }
    }

    /// Whether a lease has this id, or had it until an operator broke it.
    fn knows(&self, id: &str) -> bool {
        self.held.iter().any(|held| held.id == id) || self.broken.iter().any(|broken| broken == id)
    }

    fn status(&self, name: &str) -> Status {
        let mode = self.held.first().map(|held| held.mode);
        let expires = self.held.iter().all(|held| held.ttl.is_some());
        let holders = self.held.iter().map(|held| held.holder.clone()).collect();
        Status::new(name, mode, expires, holders)
    }
}

fn end(now: Moment, ttl: Option<Duration>) -> Moment {
    ttl.map_or(Moment::NEVER, |ttl| now + ttl)
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        let abilities = Abilities::default().ttl(Some(DEFAULT_TTL)).ttls(TTLS);
        abilities.shared().fencing()
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let since = ask.call().now();
        let (name, id, mode, ttl) = (ask.name().to_owned(), ask.id().to_owned(), ask.mode(), ask.ttl());
        let holder = ask.holder().clone().with_since(clock::wall());
        let (attempt, version) = self.0.call(|state, now| {
            let version = state.version + 1;
            let lock = state.locks.entry(name.clone()).or_default();
            lock.expire(now);
            if let Ok(held) = lock.find(&id) {
                // The answer to an earlier try was lost.
                held.until = end(now, ttl);
                return Ok((Ok(held.token), version));
            }
            let in_the_way = |held: &&Held| mode == Mode::Exclusive || held.mode == Mode::Exclusive;
            if let Some(held) = lock.held.iter().find(in_the_way) {
                return Ok((Err(held.holder.clone()), version));
            }
            let fence = fencing::next(lock.counter, mode, clock::wall())?;
            lock.counter = Some(fence.counter);
            lock.held.push(Held {
                id: id.clone(),
                mode,
                holder,
                token: fence.token,
                ttl,
                until: end(now, ttl),
                broken: false,
            });
            Ok((Ok(fence.token), version))
        })?;
        *ask.scratch::<u64>() = version;
        Ok(match attempt {
            Ok(token) => {
                let world = self.0.clone();
                let lease = Lent { world, name, id: id.clone() };
                Attempt::Granted(Grant::new(lease, since).fencing_token(token).lease_id(id))
            }
            Err(holder) => Attempt::Busy(Busy::default().holder(holder)),
        })
    }

    fn wait(&self, ask: &mut Ask) -> Result<()> {
        let end = clock::Limit::after(&self.0.clock, ask.slice());
        let seen = *ask.scratch::<u64>();
        let mut state = self.0.lock();
        loop {
            let now = self.0.clock.now();
            // Nobody tells when a lease runs out.
            let next = state.locks.get(ask.name()).and_then(|l| l.held.iter().map(|h| h.until).min());
            let left = end.remaining().min(next.map_or(Duration::MAX, |at| at.saturating_since(now)));
            if left.is_zero() || (state.version != seen && !state.hang) {
                return Ok(());
            }
            state = self
                .0
                .changed
                .wait_timeout(state, self.0.clock.real(left))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let (name, id) = (ask.name().to_owned(), ask.id().to_owned());
        self.0.call(|state, _| {
            if let Some(lock) = state.locks.get_mut(&name) {
                lock.held.retain(|held| held.id != id);
            }
            Ok(())
        })
    }

    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        if ticket.note() != self.0.id() {
            let what = "the ticket is of another memory store: such a store is within one process";
            return Err(Error::new(ErrorKind::Config, what).not_sent());
        }
        let since = ask.call().now();
        let (name, new) = (ask.name().to_owned(), ask.id().to_owned());
        let holder = ask.holder().clone().with_since(clock::wall());
        self.0.call(|state, now| {
            let lock = state.locks.entry(name.clone()).or_default();
            lock.expire(now);
            // It has the new id already when the answer to an earlier try was lost.
            let id = if lock.knows(&new) { &new } else { ticket.lease_id() };
            let held = lock.find(id).map_err(Error::lost)?;
            held.id.clone_from(&new);
            held.holder = holder;
            held.until = end(now, held.ttl);
            Ok(())
        })?;
        let lease = Lent { world: self.0.clone(), name, id: new.clone() };
        Ok(Grant::new(lease, since).lease_id(new))
    }

    fn status(&self, name: &str, _: &Call) -> Result<Status> {
        self.0.call(|state, now| {
            let lock = state.locks.entry(name.to_owned()).or_default();
            lock.expire(now);
            Ok(lock.status(name))
        })
    }

    fn list(&self, _: &Call) -> Result<Vec<Status>> {
        self.0.call(|state, now| {
            let mut all = Vec::new();
            for (name, lock) in &mut state.locks {
                lock.expire(now);
                all.push(lock.status(name));
            }
            all.sort_by(|a, b| a.name().cmp(b.name()));
            Ok(all)
        })
    }

    fn break_lock(&self, name: &str, how: Break, _: &Call) -> Result<Option<Duration>> {
        self.0.call(|state, now| {
            let Some(lock) = state.locks.get_mut(name) else {
                return Ok(None);
            };
            lock.expire(now);
            if lock.held.is_empty() {
                return Ok(None);
            }
            if how == Break::Now {
                lock.broken.extend(lock.held.drain(..).map(|held| held.id));
                return Ok(Some(Duration::ZERO));
            }
            for held in &mut lock.held {
                held.broken = true;
                // One that never ran out gets the time in which its keeper asks after it.
                held.until = held.until.min(now + held.ttl.unwrap_or(DEFAULT_TTL));
            }
            let last = lock.held.iter().map(|held| held.until).max();
            Ok(last.map(|last| last.saturating_since(now)))
        })
    }

    fn clock(&self) -> Clock {
        self.0.clock.clone()
    }
}

struct Lent {
    world: Arc<World>,
    name: String,
    id: String,
}

impl Lease for Lent {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let since = call.now();
        self.world.call(|state, now| {
            let lock = state.locks.entry(self.name.clone()).or_default();
            lock.expire(now);
            let held = lock.find(&self.id).map_err(Error::lost)?;
            held.until = end(now, held.ttl);
            Ok(since)
        })
    }

    fn release(&mut self, _: &Call) -> Result<()> {
        self.world.call(|state, now| {
            let lock = state.locks.entry(self.name.clone()).or_default();
            lock.expire(now);
            lock.find(&self.id).map_err(Error::lost)?;
            lock.held.retain(|held| held.id != self.id);
            Ok(())
        })
    }

    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(self.world.id().to_owned())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("memory::Store").finish_non_exhaustive()
    }
}
