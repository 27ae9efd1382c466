//! For those who write a store of their own.
//!
//! A store implements [`Backend`]: one method, [`try_acquire`](Backend::try_acquire), is enough. What it
//! grants is a [`Lease`], which the library renews, watches and releases.
//!
//! The calls of a store are made on a thread of the library's, so they may block: for no longer than
//! [`Call::remaining`], if they can help it. Nobody who uses the lock hangs with a call that does. A store that always
//! can help it says so ([`Abilities::punctual`]), and is faster for that.
//!
//! # Example: `SET key id NX PX ttl` over some client
//!
//! ```
//! use leasehold::{Error, ErrorKind, Locker, LostReason, Result};
//! use leasehold::backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment};
//! use std::{io, sync::Arc, time::Duration};
//! # use std::{collections::HashMap, sync::Mutex};
//!
//! # #[derive(Default)]
//! # struct Client(Mutex<HashMap<String, String>>);
//! # impl Client {
//! #     fn set_nx(&self, k: &str, v: &str, _: Duration, _: Duration) -> io::Result<bool> {
//! #         let mut map = self.0.lock().unwrap();
//! #         Ok(map.entry(k.into()).or_insert_with(|| v.into()) == v)
//! #     }
//! #     fn expire_if(&self, k: &str, v: &str, _: Duration, _: Duration) -> io::Result<bool> {
//! #         Ok(self.0.lock().unwrap().get(k).is_some_and(|x| x == v))
//! #     }
//! #     fn delete_if(&self, k: &str, v: &str, _: Duration) -> io::Result<bool> {
//! #         let mut map = self.0.lock().unwrap();
//! #         Ok(map.get(k).is_some_and(|x| x == v) && map.remove(k).is_some())
//! #     }
//! # }
//! struct Store(Arc<Client>);
//! struct Held { client: Arc<Client>, name: String, id: String, ttl: Duration }
//!
//! fn down(e: io::Error) -> Error {
//!     let refused = e.kind() == io::ErrorKind::ConnectionRefused;
//!     let e = Error::new(ErrorKind::Unavailable, e);
//!     if refused { e.not_sent() } else { e }
//! }
//!
//! impl Backend for Store {
//!     fn abilities(&self) -> Abilities {
//!         Abilities::default().ttl(Some(Duration::from_secs(20))).ttls(Duration::from_secs(1)..=Duration::from_secs(3600))
//!     }
//!     fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
//!         let ttl = ask.ttl().ok_or_else(|| Error::new(ErrorKind::Unsupported, "a lock without expiry"))?;
//!         let since = ask.call().now(); // before the request is sent
//!         if !self.0.set_nx(ask.name(), ask.id(), ttl, ask.call().remaining()).map_err(down)? {
//!             return Ok(Attempt::Busy(Busy::default()));
//!         }
//!         let held = Held { client: self.0.clone(), name: ask.name().into(), id: ask.id().into(), ttl };
//!         Ok(Attempt::Granted(Grant::new(held, since).lease_id(ask.id())))
//!     }
//!     fn abandon(&self, ask: &mut Ask) -> Result<()> {
//!         self.0.delete_if(ask.name(), ask.id(), ask.call().remaining()).map(drop).map_err(down)
//!     }
//! }
//!
//! impl Lease for Held {
//!     fn renew(&mut self, call: &Call) -> Result<Moment> {
//!         let since = call.now();
//!         if self.client.expire_if(&self.name, &self.id, self.ttl, call.remaining()).map_err(down)? {
//!             Ok(since)
//!         } else {
//!             Err(Error::lost(LostReason::Taken))
//!         }
//!     }
//!     fn release(&mut self, call: &Call) -> Result<()> {
//!         self.client.delete_if(&self.name, &self.id, call.remaining()).map(drop).map_err(down)
//!     }
//! }
//!
//! # let client = Arc::new(Client::default());
//! let locker = Locker::new(Store(client));
//! let guard = locker.lock("x")?;
//! assert!(locker.try_lock("x")?.is_none());
//! guard.unlock()?;
//! assert!(locker.try_lock("x")?.is_some());
//! # Ok::<(), Error>(())
//! ```

use std::{any::Any, cell::OnceCell, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

pub use crate::clock::{Clock, Moment};
use crate::{Break, Error, Holder, Mode, Result, Status, Ticket, backoff::Pace, clock::Limit, id};

/// A store of locks. Object safe; an `Arc<dyn Backend>` is one too.
pub trait Backend: Send + Sync + 'static {
    /// Asks once for [`Ask::name`].
    ///
    /// Asked again with the same [`Ask::id`] after an unclear answer, a store that knows the id grants it again.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) is tried again; every other kind ends the wait.
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt>;

    /// Returns when another try makes sense, at the latest after [`Ask::slice`].
    ///
    /// Without an implementation: the locker's jittered pause.
    ///
    /// # Errors
    /// As for [`try_acquire`](Self::try_acquire).
    fn wait(&self, ask: &mut Ask) -> Result<()> {
        ask.pause();
        Ok(())
    }

    /// Undoes an acquire that perhaps happened. Without an implementation the TTL does.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) is tried again, within the release budget.
    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let _ = ask;
        Ok(())
    }

    /// Takes over a lock that was [detached](Lease::detach), under a new id: [`Ask::id`]. What else the ask says
    /// (name, mode, TTL) is the ticket's.
    ///
    /// The exchange of the ids is what lets one of two adopters win: it must fail unless the store still knows the
    /// lease by [`Ticket::lease_id`], or by [`Ask::id`] already, when an earlier try of this ask was carried out and
    /// its answer lost. The grant's `since` is a moment before this call's own request. Its fencing token is the
    /// ticket's, whatever it says.
    ///
    /// # Errors
    /// [`Error::lost`] when the store knows neither id. [`Unavailable`](crate::ErrorKind::Unavailable) is tried
    /// again; when nobody waits for it any more, [`abandon`](Self::abandon) follows.
    /// [`Config`](crate::ErrorKind::Config) for a ticket of another store.
    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        let _ = (ask, ticket);
        Err(Error::unsupported("hand a lock over").not_sent())
    }

    /// What the store can do. Without an implementation: a TTL of 30 s, exclusive locks only, no token.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Whether a lock can have this name, which is not empty.
    ///
    /// # Errors
    /// [`Name`](crate::ErrorKind::Name), with what is wrong and what would be right.
    fn check_name(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// What is known of a lock now.
    ///
    /// # Errors
    /// The store's.
    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        let _ = (name, call);
        Err(Error::unsupported("tell the status of a lock"))
    }

    /// Every lock that the store knows of.
    ///
    /// # Errors
    /// The store's.
    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        let _ = call;
        Err(Error::unsupported("list its locks"))
    }

    /// Takes a lock from whoever holds it: `None` when nobody did, else when it will be free.
    ///
    /// # Errors
    /// The store's.
    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let _ = (name, how, call);
        Err(Error::unsupported("break a lock"))
    }

    /// The time by which its locks are judged; tests move it.
    fn clock(&self) -> Clock {
        Clock::system()
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        (**self).try_acquire(ask)
    }
    fn wait(&self, ask: &mut Ask) -> Result<()> {
        (**self).wait(ask)
    }
    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        (**self).abandon(ask)
    }
    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        (**self).adopt(ask, ticket)
    }
    fn abilities(&self) -> Abilities {
        (**self).abilities()
    }
    fn check_name(&self, name: &str) -> Result<()> {
        (**self).check_name(name)
    }
    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        (**self).status(name, call)
    }
    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        (**self).list(call)
    }
    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        (**self).break_lock(name, how, call)
    }
    fn clock(&self) -> Clock {
        (**self).clock()
    }
}

/// One held lease, owned by one thread at a time, with all that the store must remember of it.
pub trait Lease: Send + 'static {
    /// Renews, and gives the moment from which the store's own timer now counts: taken before the request
    /// was sent.
    ///
    /// # Errors
    /// [`Error::lost`] is final; [`Unavailable`](crate::ErrorKind::Unavailable) and every other kind is tried
    /// again while the lease is valid.
    fn renew(&mut self, call: &Call) -> Result<Moment>;

    /// Lets the lock go, if it is still ours.
    ///
    /// # Errors
    /// [`Error::lost`] when it was not ours any more; [`Unavailable`](crate::ErrorKind::Unavailable) is tried
    /// again within the release budget.
    fn release(&mut self, call: &Call) -> Result<()>;

    /// Leaves the lock in the store for who [adopts](Backend::adopt) it, right after a renewal. Gives what the
    /// store wants to find in the ticket besides name, lease id, mode, TTL and fencing token: a text of its own,
    /// empty if there is nothing, and no secret. A store that hands over gives its grants a
    /// [lease id](Grant::lease_id).
    ///
    /// After that the lease is dropped, which must not end the lock; where nobody was left to take the ticket, it is
    /// released first.
    ///
    /// # Errors
    /// Of any kind: the lock is released then. [`Unavailable`](crate::ErrorKind::Unavailable) is tried again before.
    fn detach(&mut self, call: &Call) -> Result<String> {
        let _ = call;
        Err(Error::unsupported("hand a lock over"))
    }
}

/// The answer to one try.
#[derive(Debug)]
#[non_exhaustive]
pub enum Attempt {
    /// The lock is ours.
    Granted(Grant),
    /// Another holds it.
    Busy(Busy),
}

/// Another holds the lock: what the store tells of that.
#[derive(Debug, Default)]
pub struct Busy {
    pub(crate) holder: Option<Holder>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) reason: Option<String>,
}

impl Busy {
    /// Who holds it.
    pub fn holder(mut self, holder: Holder) -> Self {
        self.holder = Some(holder);
        self
    }

    /// Why it is not to be had, where nobody holds it: shown to those who wait.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The store asks not to be asked again sooner.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// A lock that the store granted.
pub struct Grant {
    pub(crate) lease: Box<dyn Lease>,
    pub(crate) since: Moment,
    pub(crate) token: Option<u64>,
    pub(crate) id: Option<String>,
    #[expect(clippy::option_option, reason = "told or not, and if so perhaps none")]
    pub(crate) ttl: Option<Option<Duration>>,
}

impl Grant {
    /// `since` is the moment before the request was sent that started the store's own timer
    /// ([`Call::now`]).
    pub fn new(lease: impl Lease, since: Moment) -> Self {
        Self { lease: Box::new(lease), since, token: None, id: None, ttl: None }
    }

    /// A number that is larger than that of every earlier holder of this name, at most `i64::MAX`.
    pub fn fencing_token(mut self, token: u64) -> Self {
        self.token = Some(token);
        self
    }

    /// The id under which the store knows this lease.
    pub fn lease_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The TTL that was given, where it is not the one that was asked for.
    pub fn ttl(mut self, given: Option<Duration>) -> Self {
        self.ttl = Some(given);
        self
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("id", &self.id)
            .field("since", &self.since)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// One call to the store: how long it may take.
#[derive(Clone, Debug)]
pub struct Call(Limit);

impl Call {
    pub(crate) fn lasting(clock: &Clock, limit: Duration) -> Self {
        Self(Limit::after(clock, limit))
    }

    /// One that takes no time: of a store that never blocks.
    pub(crate) fn immediate(clock: &Clock) -> Self {
        Self(Limit::never(clock))
    }

    /// The time left for it; zero when it has run out.
    pub fn remaining(&self) -> Duration {
        self.0.remaining()
    }

    /// When it began.
    #[cfg(feature = "file")]
    pub(crate) fn began(&self) -> Moment {
        self.0.began()
    }

    /// The time now, on the store's clock.
    pub fn now(&self) -> Moment {
        self.0.clock().now()
    }
}

/// One wait for one lock, over all its tries.
pub struct Ask {
    name: Arc<str>,
    mode: Mode,
    fenced: bool,
    ttl: Option<Duration>,
    holder: Arc<Holder>,
    poll: RangeInclusive<Duration>,
    id: OnceCell<String>,
    scratch: Option<Box<dyn Any + Send>>,
    owes: bool,
    call: Call,
    slice: Duration,
    pace: Option<Arc<Pace>>,
    /// The end of the pause that is due before the next try.
    pause: Option<Limit>,
}

/// What an [`Ask`] is made of.
pub(crate) struct Wanted {
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) fenced: bool,
    pub(crate) ttl: Option<Duration>,
    pub(crate) holder: Arc<Holder>,
    pub(crate) poll: RangeInclusive<Duration>,
}

impl Ask {
    pub(crate) fn new(wanted: Wanted, clock: &Clock) -> Self {
        let Wanted { name, mode, fenced, ttl, holder, poll } = wanted;
        Self {
            name,
            mode,
            fenced,
            ttl,
            holder,
            poll,
            id: OnceCell::new(),
            scratch: None,
            owes: false,
            call: Call::immediate(clock),
            slice: Duration::ZERO,
            pace: None,
            pause: None,
        }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A random UUID that belongs to this wait alone: the same in each of its tries.
    pub fn id(&self) -> &str {
        self.id.get_or_init(id::uuid)
    }

    /// How the lock is wanted.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a grant without a fencing token will not do.
    pub fn fenced(&self) -> bool {
        self.fenced
    }

    /// Who asks.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The TTL that is wanted; `None`: one that never runs out.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// How long [`Backend::wait`] may wait at most, before it returns to be called again: 1 s or less.
    pub fn slice(&self) -> Duration {
        self.slice
    }

    /// How long this call may take.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Sleeps the locker's jittered pause, or the slice if that is shorter; no try is made before the whole
    /// pause is over. Ends early when this process releases the lock.
    pub fn pause(&mut self) {
        let pace = self.pace.get_or_insert_default();
        let limit = match self.pause.take() {
            Some(limit) => limit,
            None => Limit::after(self.call.0.clock(), pace.next(&self.poll)),
        };
        if !pace.sleep(&limit, self.slice) && !limit.passed() {
            self.pause = Some(limit);
        }
    }

    /// The same, with pauses of the store's own.
    #[cfg(any(feature = "azure", feature = "consul", feature = "kubernetes"))]
    pub(crate) fn pause_within(&mut self, poll: &RangeInclusive<Duration>) {
        let poll = std::mem::replace(&mut self.poll, poll.clone());
        self.pause();
        self.poll = poll;
    }

    /// Says that this wait has left something in the store: when it ends without the lock,
    /// [`Backend::abandon`] is called, whatever the tries came to.
    pub fn owe(&mut self) {
        self.owes = true;
    }

    pub(crate) fn owes(&self) -> bool {
        self.owes
    }

    /// What the store keeps between the tries of this wait; one type of it, made by `Default` at first.
    pub fn scratch<T: Any + Send + Default>(&mut self) -> &mut T {
        if !self.scratch.as_ref().is_some_and(|s| s.is::<T>()) {
            self.scratch = Some(Box::new(T::default()));
        }
        let scratch = self.scratch.as_mut().and_then(|s| s.downcast_mut());
        scratch.expect("was made just above")
    }

    /// Whether an earlier try left something to keep.
    #[cfg(feature = "file")]
    pub(crate) fn has_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    pub(crate) fn prepare(&mut self, limit: Limit) {
        self.call = Call(limit);
    }

    pub(crate) fn prepare_wait(&mut self, slice: Duration, pace: Option<Arc<Pace>>) {
        self.slice = slice;
        self.pace = pace;
        // A store that waits by asking gets a little longer than it may wait.
        self.call = Call::lasting(self.call.0.clock(), slice + Duration::from_secs(1));
    }

    /// Whether a pause is still to be slept before the next try.
    pub(crate) fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("name", &self.name)
            .field("mode", &self.mode)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// What a store can do.
#[derive(Clone, Debug)]
pub struct Abilities {
    pub(crate) ttl: Option<Duration>,
    pub(crate) ttls: RangeInclusive<Duration>,
    pub(crate) shared: bool,
    pub(crate) fencing: bool,
    pub(crate) calls: Calls,
    pub(crate) conclusive: bool,
}

/// How long a call of a store can last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// For ever, perhaps.
    Hang,
    /// As long as it may.
    Punctual,
    /// No time at all.
    Immediate,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            ttl: Some(Duration::from_secs(30)),
            ttls: Duration::from_secs(1)..=Duration::from_secs(86_400),
            shared: false,
            fencing: false,
            calls: Calls::Hang,
            conclusive: false,
        }
    }
}

impl Abilities {
    /// The TTL of those who ask for none. `None`: nothing expires in this store, so nothing is renewed.
    /// Default 30 s.
    pub fn ttl(mut self, default: Option<Duration>) -> Self {
        self.ttl = default;
        self
    }

    /// The TTLs that may be asked for. Default 1 s to 1 day; 200 ms is the least that works.
    pub fn ttls(mut self, allowed: RangeInclusive<Duration>) -> Self {
        self.ttls = allowed;
        self
    }

    /// It has shared locks.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Every lock has a fencing token.
    pub fn fencing(mut self) -> Self {
        self.fencing = true;
        self
    }

    /// No call ever blocks for longer than a local system call, and nothing expires: the calls are made on
    /// the caller's own thread, and [`Lease::renew`] is called by each `check`.
    pub fn immediate(mut self) -> Self {
        self.calls = Calls::Immediate;
        self.ttl = None;
        self
    }

    /// No call lasts longer than its [`Call::remaining`], whatever hangs, but for an eighth of that at most. So a
    /// release is made on the thread that unlocks, which saves a switch to another and back.
    ///
    /// Without it all calls are made on the library's threads, and who wants them waits for as long as he may.
    pub fn punctual(mut self) -> Self {
        self.calls = Calls::Punctual;
        self
    }

    /// A try that was given up can do nothing any more, however late it arrives, once [`Backend::abandon`] has returned
    /// or a later try of the same ask was granted. So the first try may be made on the thread that wants the lock, in a
    /// [punctual](Self::punctual) store, while that answers at once: it is given up after half a second, and made again
    /// on a thread of the library's.
    ///
    /// Without it a try is waited for there from the start, for longer than anybody may want the lock: to take back what
    /// it brings.
    pub fn conclusive(mut self) -> Self {
        self.conclusive = true;
        self
    }
}
