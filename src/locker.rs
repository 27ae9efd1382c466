//! A handle on one store.

use std::{
    fmt,
    ops::RangeInclusive,
    panic,
    sync::{Arc, mpsc, mpsc::Receiver},
    time::Duration,
};

use crate::{
    Break, Error, ErrorKind, Event, Guard, Holder, LockRequest, OnLost, Result, Status, Ticket, acquire,
    address,
    backend::{Backend, Call, Calls},
    clock::Limit,
    guard::receive,
    settings::{Core, Order, Settings, check_name},
    signal::Signal,
    threads,
};

/// How long a question about a lock may take.
const QUESTION: Duration = Duration::from_secs(10);

/// A handle on one store. Clones are cheap and share it; a setter changes this handle and its later clones only.
#[derive(Clone)]
pub struct Locker {
    core: Arc<Core>,
    settings: Arc<Settings>,
}

impl Locker {
    /// Opens an address: a store that can be chosen by a flag or a variable.
    ///
    /// | address | store |
    /// |---|---|
    /// | `file:DIR`, absolute or relative | a directory; `?names=lockgate`: with lockgate's file names |
    /// | `memory:` | this process; every `memory:` is the same store |
    /// | `azure:CONTAINER[/PREFIX]`, `azure://ACCOUNT/CONTAINER[/PREFIX]` | blobs of a container, which is made |
    /// | `consul:[PREFIX]`, `consul://HOST:PORT/[PREFIX]` | keys of Consul, of the environment's agent or this one; `?dc=NAME` |
    /// | `kubernetes:[NAMESPACE/]RESOURCE/NAME` | annotations of an object; `GROUP/VERSION/` before RESOURCE outside the core; `?create=true` makes a missing ConfigMap |
    /// | `lockgate+http://HOST[/PATH]`, `lockgate+https:` | a lockgate server |
    ///
    /// Azure's credential comes from the environment (`azure::Account::from_env`); `?endpoint=URL` names another cloud
    /// or Azurite. Consul's agent and token do too (`consul::Builder::from_env`). Nothing is percent-decoded, and no request
    /// is sent.
    ///
    /// # Errors
    /// `Config` for an unknown or incomplete address, with what would be right, and for a store whose feature
    /// is off, with the feature.
    pub fn open(address: &str) -> Result<Self> {
        address::open(address)
    }

    /// Takes locks in this store.
    pub fn new(store: impl Backend) -> Self {
        Self { core: Arc::new(Core::new(store)), settings: Arc::default() }
    }

    /// How long a lock outlives a dead holder. Default: the store's own, 30 s in most. Ignored where nothing
    /// expires; a bad value fails the first lock (`Config`).
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with(|s| s.ttl = Some(ttl))
    }

    /// The holder's own words, shown to those who wait. Default: the program's name.
    pub fn holder(self, words: impl Into<String>) -> Self {
        let holder = Holder::here(Some(words.into()));
        self.with(|s| s.holder = Arc::new(holder))
    }

    /// What a loss does without any code. Default: [`OnLost::Report`].
    pub fn on_lost(self, action: OnLost) -> Self {
        self.with(|s| s.on_lost = action)
    }

    /// Tells every event on the thread where it happens: be quick. A panic in `f` is caught, and dropping a
    /// guard there is safe.
    pub fn on_event(self, f: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.with(|s| s.listener = Some(Arc::new(f)))
    }

    /// How long `lock` bears a store that does not answer, or fails, before it fails `Unavailable`. Default
    /// 30 s; `None`: for ever.
    pub fn patience(self, outage: impl Into<Option<Duration>>) -> Self {
        let outage = outage.into();
        self.with(|s| s.patience = outage)
    }

    /// The pauses of a waiter, for stores that are polled: they grow from the first to the second, with
    /// jitter. Default 100 ms to 1 s.
    pub fn poll(self, range: RangeInclusive<Duration>) -> Self {
        self.with(|s| s.poll = range)
    }

    /// How long `unlock` or drop waits at most; once it ran out, later drops on that store do not wait until
    /// a release was confirmed again. Default 5 s.
    pub fn release_budget(self, budget: Duration) -> Self {
        self.with(|s| s.release_budget = budget)
    }

    /// Adds a signal: a message, or the end of its sender, ends waits with `Shutdown`, forbids new locks, and
    /// tells guards by their `check`; all within a second. Held locks stay held: see
    /// [`shutdown_grace`](Self::shutdown_grace).
    pub fn shutdown_on(self, signal: Receiver<()>) -> Self {
        self.with(|s| s.signals.push(Arc::new(Signal::new(signal))))
    }

    /// How long a lock outlives that signal if its guard does not go first. Default `None`: no limit, since
    /// another host must not start while our work is still winding down. `ZERO`: released at once.
    pub fn shutdown_grace(self, grace: impl Into<Option<Duration>>) -> Self {
        let grace = grace.into();
        self.with(|s| s.grace = grace)
    }

    /// Blocks until the lock is held; as [`LockRequest::lock`] without any option.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocking
    /// As there.
    pub fn lock(&self, name: &str) -> Result<Guard> {
        self.request(name).lock()
    }

    /// Asks once: `None` if another holds the lock; as [`LockRequest::try_lock`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocking
    /// As there.
    pub fn try_lock(&self, name: &str) -> Result<Option<Guard>> {
        self.request(name).try_lock()
    }

    /// Runs `f` under the lock; as [`LockRequest::with_lock`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Blocking
    /// As there.
    pub fn with_lock<T>(&self, name: &str, f: impl FnOnce(&Guard) -> T) -> Result<T> {
        self.request(name).with_lock(f)
    }

    /// A lock with options.
    pub fn request(&self, name: &str) -> LockRequest {
        LockRequest::new(Order::new(self.core.clone(), self.settings.clone(), name))
    }

    /// Takes over a lock that another process, or this one, [detached](Guard::detach): it is held all the while, and
    /// nobody gets in between. The lease goes on under a new id, so that one of two who adopt has it, and a ticket
    /// works once.
    ///
    /// TTL, mode and fencing token are the ticket's; the lock is renewed from now on. `ticket` must be of the same
    /// store, opened in whatever way.
    ///
    /// # Errors
    /// `Lost` when it came too late, was used already, or the lock was broken meanwhile; `Shutdown`; `Config` for a
    /// ticket of another store; `Unsupported` where locks cannot be handed over; `Unavailable` when the store did not
    /// answer in time: the lock is then free as soon as can be, after its TTL at the latest. (One without expiry may
    /// be left held: break it.)
    ///
    /// # Blocking
    /// For the TTL at most, and for no longer than 10 s or [`patience`](Self::patience).
    pub fn adopt(&self, ticket: &Ticket) -> Result<Guard> {
        Order::adopting(self.core.clone(), self.settings.clone(), ticket)
            .map_err(|e| e.for_lock(ticket.name()))
            .and_then(acquire::adopt)
    }

    /// Who holds the lock now.
    ///
    /// # Errors
    /// The store's; `Unavailable` when it does not answer.
    ///
    /// # Blocking
    /// For 10 s at most.
    pub fn status(&self, name: &str) -> Result<Status> {
        let owned = name.to_owned();
        self.question(Some(name), move |b, call| b.status(&owned, call))
    }

    /// Every lock that the store knows of, free ones too where it remembers them.
    ///
    /// # Errors
    /// The store's; `Unavailable` when it does not answer.
    ///
    /// # Blocking
    /// For 10 s at most.
    pub fn list(&self) -> Result<Vec<Status>> {
        self.question(None, Backend::list)
    }

    /// Takes the lock from whoever holds it. `None`: nobody did; else it is free after this time at the latest.
    ///
    /// # Errors
    /// The store's; `Unavailable` when it does not answer, and then it may have been done or not.
    ///
    /// # Blocking
    /// For 10 s at most.
    pub fn break_lock(&self, name: &str, how: Break) -> Result<Option<Duration>> {
        let owned = name.to_owned();
        let broken = self.question(Some(name), move |b, call| b.break_lock(&owned, how, call));
        if let Ok(Some(_)) = &broken {
            log::warn!(target: "leasehold", "lock {name:?} was broken ({how:?})");
            self.core.queues.nudge(name);
        }
        broken
    }

    /// Asks the store on a thread that may block, and waits no longer than the question may take.
    fn question<T: Send + 'static>(
        &self,
        name: Option<&str>,
        f: impl FnOnce(&dyn Backend, &Call) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = self.core.clone();
        let call = Call::lasting(&core.clock, QUESTION);
        let asked = || {
            if let Some(name) = name {
                check_name(&*core.backend, name)?;
            }
            if core.abilities.calls == Calls::Immediate {
                return f(&*core.backend, &call);
            }
            let (reply, answer) = mpsc::channel();
            let backend = core.backend.clone();
            threads::run(name.unwrap_or("list"), move || {
                let _ = reply.send(f(&*backend, &call));
            })
            .map_err(|e| Error::new(ErrorKind::Unavailable, e))?;
            receive(&answer, &Limit::after(&core.clock, QUESTION))
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Unavailable, "no answer in time")))
        };
        asked().map_err(|e| match name {
            Some(name) => e.for_lock(name),
            None => e,
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker")
            .field("ttl", &self.settings.ttl)
            .field("holder", &self.settings.holder)
            .finish_non_exhaustive()
    }
}

impl panic::UnwindSafe for Locker {}
impl panic::RefUnwindSafe for Locker {}
