//! The store: keys that sessions hold.

use std::{
    collections::HashMap,
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    agent::{Agent, FLAGS, Op, Spec, Sure},
    answer::{Commit, Entry, next_index},
    held::Held,
    key::{self, Keys},
    record::{self, Record},
    session::{Session, Sessions},
};
use crate::{
    Break, Error, ErrorKind, Holder, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant},
    clock::wall,
    error::Seconds,
    http::Lane,
};

/// The service takes no longer one.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A blocking query of 1 s took up to 1.04 s.
const WAIT: Duration = Duration::from_millis(900);
/// The pauses of who waits for what no query tells of: the end of a lock-delay.
const SOON: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);
/// So many blocking queries in a row may be answered at once.
const HASTY: u32 = 32;
/// A key changes hands between a look and a try; so often it is looked at again.
const ROUNDS: usize = 6;
/// Of so many keys it is remembered how they were left.
const KNOWN: usize = 1024;

/// The locks below a prefix, as one agent serves them. A clone shares connections and sessions.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(super) struct Inner {
    pub(super) agent: Arc<Agent>,
    pub(super) keys: Keys,
    pub(super) sessions: Arc<Sessions>,
    terms: Terms,
    /// Keys that this store left in a state that it knows.
    known: Mutex<HashMap<String, Known>>,
}

/// What sessions are to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// `None`: as long as the TTL, as far as the service takes it.
    pub(super) lock_delay: Option<Duration>,
    pub(super) deletes: bool,
    pub(super) node_checks: Vec<String>,
    pub(super) service_checks: Vec<String>,
}

struct Known {
    index: u64,
    record: Record,
}

/// A lock's key, as it was seen.
pub(super) struct Seen {
    /// `None`: there is no key.
    pub(super) index: Option<u64>,
    pub(super) session: Option<String>,
    pub(super) record: Record,
    holder: Option<Holder>,
}

/// What is kept between the tries of one wait.
#[derive(Default)]
pub(super) struct Waiting {
    spec: Option<Spec>,
    pub(super) session: Option<Session>,
    /// What the wait has just seen.
    pub(super) seen: Option<Seen>,
    /// From where the next blocking query goes on; 0: it answers at once.
    pub(super) watch: u64,
    /// How many blocking queries in a row were answered at once.
    hasty: u32,
    /// A lock-delay runs.
    pub(super) delayed: bool,
    pub(super) gate: Option<Gate>,
}

/// The lock's key, held while readers leave.
pub(super) struct Gate {
    pub(super) index: u64,
    pub(super) created: u64,
    pub(super) record: Record,
}

impl Terms {
    fn spec(&self, words: &str, ttl: Duration, mode: Mode) -> Result<Spec> {
        let lock_delay = self.lock_delay.unwrap_or(ttl.min(LONGEST_DELAY));
        let has_checks = !(self.node_checks.is_empty() && self.service_checks.is_empty());
        if has_checks && lock_delay < ttl {
            let what = format!(
                "a lock-delay of {} with health checks and a TTL of {}: a check that fails takes the lock at once, \
                 and only the lock-delay ({} at most) keeps others out meanwhile. Make the TTL as short, or do \
                 without checks",
                Seconds(lock_delay),
                Seconds(ttl),
                Seconds(LONGEST_DELAY)
            );
            return Err(Error::new(ErrorKind::Config, what).not_sent());
        }
        Ok(Spec {
            name: words.to_owned(),
            ttl,
            lock_delay,
            // A reader's entry that went with its session would be missed by a writer, lock-delay or not.
            deletes: self.deletes && mode == Mode::Exclusive,
            node_checks: self.node_checks.clone(),
            service_checks: self.service_checks.clone(),
        })
    }
}

impl Seen {
    /// # Errors
    /// `Foreign`, when the key is no lock.
    pub(super) fn of(key: &str, entry: Option<Entry>) -> Result<Self> {
        let Some(entry) = entry else {
            return Ok(Self { index: None, session: None, record: Record::default(), holder: None });
        };
        if entry.flags != FLAGS {
            let what = format!("the key {key:?} has the flags {:#x}, and a lock has {FLAGS:#x}", entry.flags);
            return Err(Error::new(ErrorKind::Foreign, what));
        }
        let record = Record::read(&entry.value);
        let holder = entry.session.as_ref().map(|session| record::holder(&entry.value, session));
        Ok(Self { index: Some(entry.index), session: entry.session, record, holder })
    }

    /// That the key still is as it was seen.
    pub(super) fn unchanged<'a>(&self, key: &'a str) -> Op<'a> {
        match self.index {
            Some(index) => Op::CheckIndex { key, index },
            None => Op::CheckNone { key },
        }
    }

    pub(super) fn busy(&self) -> Busy {
        match &self.holder {
            Some(holder) => Busy::default().holder(holder.clone()),
            None => Busy::default(),
        }
    }
}

impl Waiting {
    /// A lock-delay runs: why nobody gets a lock that nobody holds.
    pub(super) fn delayed(&mut self) -> Busy {
        self.delayed = true;
        Busy::default().because(
            "nobody holds it, but a session that did ended without a release, and Consul keeps the lock for its \
             lock-delay",
        )
    }
}

impl Inner {
    /// A session for this wait, with two thirds of its time left or more.
    pub(super) fn ready(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        let call = ask.call();
        if let Some(session) = &mut waiting.session
            && (session.is_fresh(call.now()) || session.renew(call)?)
        {
            return Ok(());
        }
        waiting.session = None;
        // What it held is gone with it.
        waiting.gate = None;
        if let Some(spec) = &waiting.spec {
            waiting.session = Some(self.sessions.take(spec, call)?);
        }
        Ok(())
    }

    /// Settles what the session of a wait is to be, before anything is asked.
    fn settle(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        if waiting.spec.is_none() {
            let ttl = ask.ttl().ok_or_else(|| {
                Error::unsupported("hold a lock that never runs out: a session lives for a day at most")
                    .not_sent()
            })?;
            waiting.spec = Some(self.terms.spec(ask.holder().words(), ttl, ask.mode())?);
        }
        Ok(())
    }

    /// The key as it was seen last, or else as it is now.
    pub(super) fn see(&self, key: &str, waiting: &mut Waiting, call: &Call) -> Result<Seen> {
        if let Some(seen) = waiting.seen.take() {
            return Ok(seen);
        }
        if let Some(Known { index, record }) = self.known().remove(key) {
            return Ok(Seen { index: Some(index), session: None, record, holder: None });
        }
        Seen::of(key, self.agent.look(key, Sure::Leader, call.remaining())?)
    }

    /// Remembers how a key was left, so that the next lock needs no look at it.
    pub(super) fn know(&self, key: &str, entries: &[Entry], record: Record) {
        // The last word on it in the transaction.
        let Some(entry) = entries.iter().rfind(|entry| entry.key == key) else { return };
        let mut known = self.known();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(key.to_owned(), Known { index: entry.index, record });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_exclusive(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let key = self.keys.key(ask.name())?;
        let (readers, call) = (key::readers(&key), ask.call().clone());
        // One that no reader has: asks for the right to see them all, without which none would be seen.
        let nobody = format!("{readers}0");
        for _ in 0..ROUNDS {
            if waiting.gate.is_some()
                && let Some(attempt) = self.behind_gate(ask, waiting)?
            {
                return Ok(attempt);
            }
            let waited = waiting.seen.is_some();
            let seen = self.see(&key, waiting, &call)?;
            if let Some(owner) = &seen.session {
                let (index, created) = (seen.index.unwrap_or_default(), 0);
                if waiting.session.as_ref().is_some_and(|session| session.id == *owner) {
                    // An earlier try was carried out, and its answer lost.
                    waiting.gate = Some(Gate { index, created, record: seen.record });
                    continue;
                }
                if !waited {
                    waiting.watch = index;
                }
                return Ok(Attempt::Busy(seen.busy()));
            }
            self.ready(ask, waiting)?;
            let Some(session) = &mut waiting.session else { continue };
            let record = seen.record.held(ask.holder(), wall());
            let (id, value) = (session.id.clone(), record.to_json());
            let ops = [
                seen.unchanged(&key),
                Op::CheckNone { key: &nobody },
                Op::Lock { key: &key, session: &id, value: &value },
                Op::Below { prefix: &readers },
            ];
            session.holds = true;
            let commit = self.agent.commit(&ops, Lane::Ordinary, call.remaining()).inspect_err(|e| {
                session.holds = e.is_unclear();
                session.unclear |= e.is_unclear();
            })?;
            session.holds = matches!(commit, Commit::Done(_));
            match commit {
                Commit::Done(entries) => {
                    let ours = entries.iter().rfind(|entry| entry.key == key).ok_or_else(no_entry)?;
                    let gate = Gate { index: ours.index, created: ours.created, record };
                    let inside = entries.iter().find(|entry| entry.key.starts_with(&readers));
                    let Some(reader) = inside else {
                        return self.granted(key, gate, waiting);
                    };
                    let busy = Seen::of(&reader.key, Some(reader.clone()))?.busy();
                    waiting.gate = Some(gate);
                    waiting.watch = 0;
                    ask.owe();
                    return Ok(Attempt::Busy(busy));
                }
                Commit::Held => {
                    waiting.watch = seen.index.unwrap_or_default();
                    return Ok(Attempt::Busy(Busy::default()));
                }
                Commit::Delayed => {
                    waiting.seen = Some(seen);
                    return Ok(Attempt::Busy(waiting.delayed()));
                }
                Commit::NoSession => {
                    session.left = true;
                    waiting.session = None;
                    waiting.seen = Some(seen);
                }
                Commit::Stale => {}
            }
        }
        waiting.watch = 0;
        Ok(Attempt::Busy(Busy::default()))
    }

    /// The lock is ours: its key has our session, and no reader is in.
    pub(super) fn granted(
        self: &Arc<Self>,
        key: String,
        gate: Gate,
        waiting: &mut Waiting,
    ) -> Result<Attempt> {
        let session = waiting.session.take().ok_or_else(no_entry)?;
        let lease = Held::new(self, key, session, gate.index, gate.created, Some(gate.record));
        Ok(Attempt::Granted(lease.grant()))
    }

    fn wait(&self, ask: &mut Ask, waiting: &mut Waiting) -> Result<()> {
        // So that a release is answered by one request.
        self.ready(ask, waiting)?;
        if waiting.delayed {
            ask.pause_within(&SOON);
            return Ok(());
        }
        let key = self.keys.key(ask.name())?;
        let call = ask.call().clone();
        let (time, start) = (WAIT.min(ask.slice() * 9 / 10), call.now());
        let before = waiting.watch;
        let found = if waiting.gate.is_some() {
            self.agent.wait(&key::readers(&key), true, before, time, call.remaining())?
        } else {
            let mut found = self.agent.wait(&key, false, before, time, call.remaining())?;
            waiting.seen = Some(Seen::of(&key, found.entries.pop())?);
            found
        };
        waiting.watch = next_index(before, found.index);
        let is_hasty = call.now().saturating_since(start) < time / 2;
        waiting.hasty = if is_hasty { waiting.hasty + 1 } else { 0 };
        if is_hasty && (before != 0 && found.index == before || waiting.hasty > HASTY) {
            // It does not wait, or the lock changes hands all the time: no busy loop.
            ask.pause_within(&SOON);
        }
        Ok(())
    }

    /// Takes back what a wait has left.
    fn leave(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        let Some(session) = &mut waiting.session else { return Ok(()) };
        if !(session.holds || session.unclear) {
            return Ok(());
        }
        let (call, lock) = (ask.call(), self.keys.key(ask.name())?);
        let key = match ask.mode() {
            Mode::Exclusive => lock,
            Mode::Shared => key::readers(&lock) + &session.id,
        };
        if let Some(entry) = self.agent.look(&key, Sure::Quorum, call.remaining())?
            && entry.session.as_ref() == Some(&session.id)
        {
            let record = Record::read(&entry.value).released(wall());
            let value = record.to_json();
            let unchanged = Op::CheckIndex { key: &key, index: entry.index };
            let let_go = match ask.mode() {
                Mode::Exclusive => Op::Unlock { key: &key, session: &session.id, value: value.as_bytes() },
                Mode::Shared => Op::Delete { key: &key },
            };
            self.agent.commit(&[unchanged, let_go], Lane::Release, call.remaining())?;
        }
        session.holds = false;
        Ok(())
    }
}

/// What is known of a lock by its key and the entries of its readers.
fn status_of(name: &str, lock: Option<&Entry>, readers: &[&Entry]) -> Status {
    let holder = |entry: &&Entry| {
        let session = entry.session.as_deref()?;
        Some(record::holder(&entry.value, session))
    };
    let inside: Vec<Holder> = readers.iter().filter_map(holder).collect();
    let (mode, holders) = if inside.is_empty() {
        let holder = lock.as_ref().and_then(holder);
        (holder.is_some().then_some(Mode::Exclusive), holder.into_iter().collect())
    } else {
        (Some(Mode::Shared), inside)
    };
    Status::new(name, mode, true, holders)
}

fn no_entry() -> Error {
    Error::new(ErrorKind::Protocol, "the transaction was done, and its answer does not name the key")
}

impl Store {
    pub(super) fn new(agent: Agent, keys: Keys, terms: Terms) -> Self {
        let agent = Arc::new(agent);
        let sessions = Arc::new(Sessions::new(agent.clone()));
        Self(Arc::new(Inner { agent, keys, sessions, terms, known: Mutex::default() }))
    }

    /// The key that carries a lock.
    ///
    /// # Errors
    /// `Name`, when no lock can have this name.
    pub fn key(&self, lock: &str) -> Result<String> {
        self.0.keys.key(lock)
    }

    fn with<T>(&self, ask: &mut Ask, f: impl FnOnce(&Arc<Inner>, &mut Ask, &mut Waiting) -> T) -> T {
        let mut waiting = std::mem::take(ask.scratch::<Waiting>());
        let done = f(&self.0, ask, &mut waiting);
        *ask.scratch() = waiting;
        done
    }
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        let ttls = Duration::from_secs(10)..=Duration::from_secs(86_400);
        Abilities::default().ttl(Some(Duration::from_secs(30))).ttls(ttls).shared().fencing()
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.0.keys.key(name).map(drop)
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        self.with(ask, |inner, ask, waiting| {
            inner.settle(ask, waiting)?;
            waiting.delayed = false;
            match ask.mode() {
                Mode::Exclusive => inner.try_exclusive(ask, waiting),
                Mode::Shared => inner.enter(ask, waiting),
            }
        })
    }

    fn wait(&self, ask: &mut Ask) -> Result<()> {
        self.with(ask, |inner, ask, waiting| inner.wait(ask, waiting))
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        self.with(ask, |inner, ask, waiting| inner.leave(ask, waiting))
    }

    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        self.with(ask, |inner, ask, waiting| {
            inner.settle(ask, waiting)?;
            inner.adopt(ask, ticket, waiting)
        })
    }

    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        let inner = &*self.0;
        let key = inner.keys.key(name)?;
        let lock = inner.agent.look(&key, Sure::Quorum, call.remaining())?;
        Seen::of(&key, lock.clone())?;
        let readers = inner.agent.list(&key::readers(&key), call.remaining())?;
        Ok(status_of(name, lock.as_ref(), &readers.iter().collect::<Vec<_>>()))
    }

    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        let inner = &*self.0;
        let entries = inner.agent.list(inner.keys.prefix(), call.remaining())?;
        let ours = || entries.iter().filter(|entry| entry.flags == FLAGS);
        let mut readers: HashMap<&str, Vec<&Entry>> = HashMap::new();
        for entry in ours() {
            if let Some((lock, _)) = key::reader(&entry.key) {
                readers.entry(lock).or_default().push(entry);
            }
        }
        let status = |entry: &Entry| {
            let name = inner.keys.name(&entry.key)?;
            let readers = readers.get(&*entry.key).map_or(&[][..], Vec::as_slice);
            Some(status_of(&name, Some(entry), readers))
        };
        Ok(ours().filter_map(status).collect())
    }

    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let inner = &*self.0;
        let key = inner.keys.key(name)?;
        let lock = inner.agent.look(&key, Sure::Quorum, call.remaining())?;
        Seen::of(&key, lock.clone())?;
        let readers = inner.agent.list(&key::readers(&key), call.remaining())?;
        let mut free_in = None;
        for entry in lock.into_iter().chain(readers) {
            if let Some(time) = inner.take_from(&entry, how, call)? {
                free_in = free_in.max(Some(time));
            }
        }
        Ok(free_in)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { agent, keys, .. } = &*self.0;
        f.debug_struct("consul::Store")
            .field("agent", agent)
            .field("prefix", &keys.prefix())
            .finish_non_exhaustive()
    }
}
