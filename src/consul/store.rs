//! The store: keys that sessions hold.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    agent::{Agent, FLAGS, Sure},
    answer::Entry,
    key::{self, Keys},
    record::{self, Record},
    session::Sessions,
    terms::Terms,
    waiting::{Seen, Waiting},
};
use crate::{
    Break, Holder, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Call, Grant},
};

/// Of so many keys it is remembered how they were left.
const KNOWN: usize = 1024;

/// The locks below a prefix, as one agent serves them. A clone shares connections and sessions.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(super) struct Inner {
    pub(super) agent: Arc<Agent>,
    pub(super) keys: Keys,
    pub(super) sessions: Arc<Sessions>,
    pub(super) terms: Terms,
    /// Keys that this store left in a state that it knows.
    known: Mutex<HashMap<String, Known>>,
}

/// How a key was left.
pub(super) struct Known {
    pub(super) index: u64,
    pub(super) record: Record,
}

impl Inner {
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

    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        Abilities::default()
            .ttl(Some(Duration::from_secs(30)))
            .ttls(ttls)
            .shared()
            .fencing()
            .punctual()
            .conclusive()
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.0.keys.key(name).map(drop)
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        self.with(ask, |inner, ask, waiting| {
            inner.settle(ask, waiting)?;
            waiting.delayed = false;
            waiting.tries += 1;
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
