//! What a holder has in hand.

use std::{
    fmt, panic,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::ThreadId,
    time::Duration,
};

use crate::{
    Error, ErrorKind, Event, LostReason, Result, Ticket, Unlocked,
    backend::{Call, Calls, Lease},
    clock::Limit,
    desk::Desk,
    hold::DETACH,
    keeper::Command,
    settings::Order,
    term::{Look, Term},
    ticket::{self, Handed},
};

/// A held lock; it needs no `Locker` any more, and may be moved to and dropped on any thread.
///
/// Drop releases the lock and reports nothing.
///
/// # Blocking
/// Drop waits for the store's confirmation within the release budget
/// ([`Locker::release_budget`](crate::Locker::release_budget), 5 s).
///
/// # Pitfalls
/// `let _ = locker.lock("x")?;` drops the guard at once; `let _guard = ..` does not.
/// A guard that is forgotten ([`std::mem::forget`]) keeps its lock until the process ends.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct Guard {
    watch: Watch,
    keeper: Option<Link>,
    done: bool,
}

/// The way to a guard's keeper.
pub(crate) struct Link {
    pub(crate) commands: SyncSender<Command>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) thread: ThreadId,
}

impl Guard {
    /// `keeper` is `None` where the lease is in the term itself.
    pub(crate) fn new(term: Arc<Term>, keeper: Option<Link>) -> Self {
        Self { watch: Watch(term), keeper, done: false }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.watch.0.order.name
    }

    /// The id under which the store knows this lease, where it has one.
    pub fn lease_id(&self) -> Option<&str> {
        self.watch.0.lease_id.as_deref()
    }

    /// Whether the lock is held at this instant. A clock and an atomic, no I/O: cheap enough for each step.
    ///
    /// A lock file that was deleted while held is seen by [`check`](Self::check) only.
    pub fn is_held(&self) -> bool {
        self.watch.is_held()
    }

    /// Whether the work may go on.
    ///
    /// # Errors
    /// `Lost`, with the reason; `Shutdown` when the signal came (the lock is still held, for the grace).
    pub fn check(&self) -> Result<()> {
        self.watch.check()
    }

    /// Sleeps for `time`, and less when [`check`](Self::check) turns bad.
    ///
    /// # Errors
    /// As `check`.
    ///
    /// # Blocking
    /// For `time`; a loss or a shutdown ends it within a second.
    pub fn check_for(&self, time: Duration) -> Result<()> {
        self.watch.check_for(time)
    }

    /// The time left if no renewal comes: the limit for a statement that cannot be stopped. Zero when the lock
    /// is held no more, `None` if it never runs out.
    pub fn valid_for(&self) -> Option<Duration> {
        self.watch.valid_for()
    }

    /// A number that is larger than that of every earlier holder: let the resource refuse a smaller one.
    ///
    /// At most `i64::MAX`, so that databases can keep it. `None` where the store has none.
    pub fn fencing_token(&self) -> Option<u64> {
        self.watch.0.token
    }

    /// A view for other threads, which does not keep the lock.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Renews now.
    ///
    /// # Errors
    /// `Lost`, or why the renewal failed while the lock is still held.
    ///
    /// # Blocking
    /// Until the store answers, at most for as long as the lock is valid, or 10 s where it never runs out.
    pub fn renew(&self) -> Result<()> {
        let Some(keeper) = &self.keeper else {
            return self.check_held();
        };
        if keeper.is_this_thread() {
            return Err(self.error(ErrorKind::Unsupported, "renew inside a callback of this lock"));
        }
        let (reply, answer) = mpsc::channel();
        let told = keeper.tell(Command::Renew(reply));
        let limit = self.valid_for().unwrap_or(Duration::from_secs(10));
        match told.then(|| receive(&answer, &self.limit(limit))).flatten() {
            Some(answer) => answer,
            None => self
                .check_held()
                .and_then(|()| Err(self.error(ErrorKind::Unavailable, "no answer to the renewal in time"))),
        }
    }

    /// Releases the lock, and says how that went.
    ///
    /// # Errors
    /// `Lost`, if the lock was lost before: others may have held it meanwhile.
    ///
    /// # Blocking
    /// Within the release budget ([`Locker::release_budget`](crate::Locker::release_budget), 5 s); then
    /// `Ok(Expiring)`.
    pub fn unlock(mut self) -> Result<Unlocked> {
        self.done = true;
        match self.keeper.take() {
            None => self.release_direct(self.watch.0.take_direct()),
            Some(keeper) => self.release_kept(keeper, self.watch.0.order.settings.release_budget),
        }
    }

    /// Ends the guard and keeps the lock, for whoever [adopts](crate::Locker::adopt) the ticket within the TTL:
    /// another process, that it is passed to as text.
    ///
    /// It is renewed first, so that there is a whole TTL for that. If nobody adopts it, the TTL frees it; a lock
    /// without expiry stays until somebody breaks it. `Watch`es say `Released` from here on. It works after a shutdown
    /// signal too.
    ///
    /// # Errors
    /// `Lost`, `Shutdown` when its grace is over, `Unavailable` when the store did not confirm the renewal,
    /// `Unsupported` where locks cannot be handed over: the lock is released then, as by [`unlock`](Self::unlock).
    ///
    /// # Blocking
    /// Until the store confirms the renewal, for as long as the lock is valid and 10 s at most; if it does not, for the
    /// release budget ([`Locker::release_budget`](crate::Locker::release_budget), 5 s) besides.
    pub fn detach(mut self) -> Result<Ticket> {
        self.done = true;
        let detached = match self.keeper.take() {
            None => self.detach_direct(),
            Some(keeper) => self.detach_kept(keeper),
        };
        detached.map_err(|e| e.for_lock(self.name()).during("detach"))
    }

    fn detach_direct(&self) -> Result<Ticket> {
        let term = &self.watch.0;
        let Order { core, settings, name, mode, .. } = &*term.order;
        // This renews.
        let held = self.check_held();
        let Some(mut lease) = term.take_direct() else {
            return Err(self.over());
        };
        let made = held.and_then(|()| {
            let note = lease.detach(&Call::immediate(&core.clock))?;
            let lease_id = term.lease_id.as_deref().ok_or_else(ticket::no_lease_id)?;
            Ok(Ticket::new(Handed { name, lease_id, token: term.token, mode: *mode, ttl: None, note }))
        });
        match made {
            Ok(ticket) if term.release() => {
                settings.tell(&Event::Detached { name, ttl: None });
                Ok(ticket)
            }
            made => self.release_direct(Some(lease)).and(made.and_then(|_| Err(self.over()))),
        }
    }

    fn detach_kept(&self, keeper: Link) -> Result<Ticket> {
        if keeper.is_this_thread() {
            let what = "detach inside a callback of this lock";
            return self
                .release_kept(keeper, Duration::ZERO)
                .and(Err(self.error(ErrorKind::Unsupported, what)));
        }
        let limit = self.valid_for().map_or(DETACH, |left| left.min(DETACH));
        let (reply, answer) = mpsc::channel();
        if !keeper.tell(Command::Detach(reply)) {
            return Err(self.over());
        }
        let limit = limit + self.watch.0.order.settings.release_budget;
        if let Some(answer) = receive(&answer, &self.limit(limit)) {
            return answer;
        }
        // The keeper gives no ticket any more once the word has fallen, or it did so just now.
        if self.watch.0.release() {
            return Err(self.error(ErrorKind::Unavailable, "no answer to the renewal in time"));
        }
        answer.recv().unwrap_or_else(|_| Err(self.over()))
    }

    /// How it ended before anybody asked for that.
    fn over(&self) -> Error {
        self.watch.check().err().unwrap_or_else(|| Error::lost(LostReason::Failed))
    }

    fn release_direct(&self, lease: Option<Box<dyn Lease>>) -> Result<Unlocked> {
        let term = &self.watch.0;
        let Order { core, settings, name, .. } = &*self.watch.0.order;
        if !term.release() {
            return Err(term.loss());
        }
        let call = Call::immediate(&core.clock);
        let released = lease.map_or(Ok(()), |mut lease| lease.release(&call));
        core.queues.nudge(name);
        match released {
            Err(e) if e.kind() == ErrorKind::Lost => {
                let error = e.for_lock(name);
                settings.tell(&Event::Lost { name, error: &error });
                Err(error)
            }
            released => {
                let how = match released {
                    Ok(()) => Unlocked::Confirmed,
                    Err(_) => Unlocked::Expiring,
                };
                settings.tell(&Event::Released { name, how });
                Ok(how)
            }
        }
    }

    /// Lets go, or tells the keeper to, within so long. Without any time the keeper does it in its own.
    fn release_kept(&self, keeper: Link, budget: Duration) -> Result<Unlocked> {
        let term = &self.watch.0;
        let (order, limit) = (&*term.order, self.limit(budget));
        // The word falls first, so that nobody sees a lock held whose release is under way.
        if !term.release() {
            return self.ended_before();
        }
        let mute = || order.core.mute.store(true, Ordering::SeqCst);
        // A lock without expiry is tried to be released for longer than anybody waits here.
        let here = order.core.abilities.calls == Calls::Punctual && order.ttl.is_some() && !budget.is_zero();
        if here && let Some(mut hold) = keeper.desk.take() {
            // Wakes the keeper, which then serves somebody else.
            drop(keeper);
            // The timers of sockets are coarse: Linux rounds them up by as much as an eighth.
            let time = budget / 8 * 7;
            let limit = self.limit(time);
            let how = hold.release(time);
            if matches!(how, Ok(Unlocked::Expiring)) && limit.passed() {
                mute();
            }
            return how;
        }
        let (reply, answer) = mpsc::channel();
        if !keeper.tell(Command::Stop(reply)) {
            return self.ended_before();
        }
        if keeper.is_this_thread() || budget.is_zero() {
            return Ok(Unlocked::Expiring);
        }
        receive(&answer, &limit).unwrap_or_else(|| {
            mute();
            Ok(Unlocked::Expiring)
        })
    }

    /// The keeper was gone already: it told a loss, or released at the end of a shutdown's grace.
    fn ended_before(&self) -> Result<Unlocked> {
        let term = &self.watch.0;
        match term.look() {
            Look::Lost => Err(term.loss()),
            Look::Held | Look::Released => Ok(term.ended().get().copied().unwrap_or(Unlocked::Expiring)),
        }
    }

    fn check_held(&self) -> Result<()> {
        match self.watch.check() {
            Err(e) if e.kind() == ErrorKind::Shutdown && self.is_held() => Ok(()),
            checked => checked,
        }
    }

    fn limit(&self, time: Duration) -> Limit {
        Limit::after(&self.watch.0.order.core.clock, time)
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, what).for_lock(self.name())
    }
}

impl Link {
    /// `false` when the keeper is gone. One that is told too much at once leaves a command without an answer.
    fn tell(&self, command: Command) -> bool {
        !matches!(self.commands.try_send(command), Err(TrySendError::Disconnected(_)))
    }

    fn is_this_thread(&self) -> bool {
        std::thread::current().id() == self.thread
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // A panic of the store's must not become an abort because this one is dropped by another panic.
        let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| match self.keeper.take() {
            None => drop(self.release_direct(self.watch.0.take_direct())),
            Some(keeper) => {
                let Order { core, settings, .. } = &*self.watch.0.order;
                let is_mute = core.mute.load(Ordering::SeqCst);
                let budget = if is_mute { Duration::ZERO } else { settings.release_budget };
                drop(self.release_kept(keeper, budget));
            }
        }));
    }
}

/// What other threads may know of a guard; once that is gone, [`check`](Self::check) says `Released`.
#[derive(Clone)]
pub struct Watch(Arc<Term>);

impl Watch {
    /// As [`Guard::is_held`].
    pub fn is_held(&self) -> bool {
        self.0.look() == Look::Held
    }

    /// As [`Guard::valid_for`].
    pub fn valid_for(&self) -> Option<Duration> {
        self.0.look();
        self.0.valid_for()
    }

    /// As [`Guard::check`].
    ///
    /// # Errors
    /// As there, and `Released`.
    pub fn check(&self) -> Result<()> {
        self.0.check()
    }

    /// As [`Guard::check_for`].
    ///
    /// # Errors
    /// As there, and `Released`.
    ///
    /// # Blocking
    /// As there.
    pub fn check_for(&self, time: Duration) -> Result<()> {
        self.0.check_for(time)
    }
}

/// Waits for one answer; `None` when none came in time, or none can come any more.
pub(crate) fn receive<T>(from: &Receiver<T>, limit: &Limit) -> Option<T> {
    loop {
        let left = limit.remaining();
        match from.recv_timeout(limit.clock().real(left)) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.watch.0).finish()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0).finish()
    }
}

impl panic::UnwindSafe for Guard {}
impl panic::RefUnwindSafe for Guard {}
impl panic::UnwindSafe for Watch {}
impl panic::RefUnwindSafe for Watch {}
