//! A lock that is held: renewed in time, told as lost, let go.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
    time::Duration,
};

use crate::{
    Error, ErrorKind, Event, LostReason, Result, Ticket, Unlocked,
    backend::{self, Call, Grant},
    backoff,
    clock::{Appointment, Limit, Moment},
    keeper::{Command, Retry},
    lease::{Lease, Outcome, Step, Ttl},
    settings::Order,
    term::{Look, Start, Term},
    ticket::{self, Handed},
};

/// How often a keeper looks whether the grace of a shutdown is over.
const GRACE_LOOK: Duration = Duration::from_millis(250);
/// How long a lock without expiry is tried to be released: nothing else frees it.
pub(crate) const NO_EXPIRY_RELEASE: Duration = Duration::from_secs(600);
/// How long the renewal of a lock that is detached is tried.
pub(crate) const DETACH: Duration = Duration::from_secs(10);

pub(crate) struct Hold {
    order: Arc<Order>,
    term: Arc<Term>,
    machine: Lease,
    lease: Box<dyn backend::Lease>,
    /// As it was given.
    ttl: Option<Duration>,
    /// From the first on, so that a clock moved by hand does not pass it by.
    appointment: Appointment,
    /// Tells the loss if this ends in a panic of the store's.
    armed: bool,
}

impl Hold {
    /// Takes a grant over. One whose time is half gone is renewed before anybody gets it.
    ///
    /// # Errors
    /// `Unavailable` when it ran out before that: ask again.
    // Off the stack while the lock is asked for.
    #[inline(never)]
    pub(crate) fn new(order: Arc<Order>, grant: Grant) -> Result<Self> {
        let Grant { mut lease, since, token, id, ttl } = grant;
        let clock = &order.core.clock;
        let ttl = ttl.unwrap_or(order.ttl);
        let mut machine = Lease::new(ttl.map(Ttl::new), order.auto_renew, since, backoff::roll());
        let budget = order.settings.release_budget;
        let give_back = |lease: &mut Box<dyn backend::Lease>| {
            // Best effort: at worst its TTL frees it.
            let _ = lease.release(&Call::lasting(clock, budget));
        };
        if order.fenced && token.is_none() {
            give_back(&mut lease);
            return Err(Error::unsupported("give this lock a fencing token"));
        }
        let mut retry = Retry::new(Limit::after(clock, order.ttl.unwrap_or(budget)));
        while machine.is_half_gone(clock.now()) {
            let Some(_) = retry.next() else { break };
            let _ = renew(&mut machine, &mut lease, clock);
        }
        if !matches!(machine.step(clock.now()), Step::Wait(_) | Step::Renew(_)) {
            give_back(&mut lease);
            let late = "the lock was granted too late to be of use";
            return Err(Error::new(ErrorKind::Unavailable, late).not_sent());
        }
        let term = Term::new(Start {
            order: order.clone(),
            lease_id: id,
            token,
            valid_until: machine.valid_until(),
            direct: None,
        });
        let appointment = order.core.clock.appointment();
        if let Step::Wait(until) = machine.step(order.core.clock.now()) {
            appointment.set(until);
        }
        Ok(Self { order, term: Arc::new(term), machine, lease, ttl, appointment, armed: true })
    }

    pub(crate) fn term(&self) -> &Arc<Term> {
        &self.term
    }

    /// Does what is due, and says how long nothing is; or how it ends.
    pub(crate) fn act(&mut self, inbox: &Receiver<Command>) -> ControlFlow<End, Duration> {
        loop {
            match self.term.look() {
                Look::Held => {}
                Look::Lost => self.machine.lose(LostReason::Expired),
                // The guard is going; its command is on the way.
                Look::Released => return ControlFlow::Break(End::of(inbox.recv().ok())),
            }
            let until = match self.machine.step(self.order.core.clock.now()) {
                Step::Wait(until) => until,
                Step::Renew(_) => {
                    let _ = self.renew();
                    continue;
                }
                Step::Lost(_) | Step::Done => return ControlFlow::Break(End::Lost),
            };
            let settings = &self.order.settings;
            if settings.has_grace() && settings.is_grace_over() {
                return ControlFlow::Break(End::Stopped(None));
            }
            return ControlFlow::Continue(self.nap(until));
        }
    }

    /// How it ends. All that holds the store goes before the last answer: who then ends the store ends it for good.
    pub(crate) fn end(mut self: Box<Self>, end: End) {
        match end {
            End::Lost => {
                self.armed = false;
                self.lost();
            }
            End::Stopped(reply) => {
                let how = self.release(self.order.settings.release_budget);
                drop(self);
                if let Some(reply) = reply {
                    let _ = reply.send(how);
                }
            }
            End::Detached(reply) => {
                let ticket = self.detach();
                drop(self);
                let _ = reply.send(ticket);
            }
        }
    }

    /// How long to sleep when nothing is due before `until`.
    fn nap(&self, until: Moment) -> Duration {
        self.appointment.set(until);
        let clock = &self.order.core.clock;
        let mut nap = until.saturating_since(clock.now());
        // Timers stand still in suspend: a long sleep would miss a renewal that still is in time.
        if let Some(ttl) = self.order.ttl {
            nap = nap.min((ttl / 12).max(Duration::from_millis(20)));
        }
        if self.order.settings.has_grace() {
            nap = nap.min(GRACE_LOOK);
        }
        clock.real(nap)
    }

    /// One try of a renewal, told to all.
    pub(crate) fn renew(&mut self) -> Result<()> {
        let clock = &self.order.core.clock;
        let before = self.machine.valid_until();
        let error = renew(&mut self.machine, &mut self.lease, clock).err();
        if !self.term.extend(before, self.machine.valid_until()) {
            if self.term.look() == Look::Released {
                return Ok(());
            }
            self.machine.lose(LostReason::Expired);
        }
        let name = &*self.order.name;
        let valid_for = self.term.valid_for().unwrap_or(Duration::MAX);
        match (self.machine.step(clock.now()), error) {
            (Step::Lost(_), Some(error)) if error.kind() == ErrorKind::Lost => {
                self.term.lose(&error);
                Err(self.term.loss())
            }
            (Step::Lost(_), error) => {
                self.term.lose(&Error::lost(LostReason::Expired).caused_by(error));
                Err(self.term.loss())
            }
            (_, Some(error)) => {
                let error = error.for_lock(name).during("renew");
                let event = Event::RenewalFailed { name, valid_for, error: &error };
                self.order.settings.tell(&event);
                Err(error)
            }
            (_, None) => {
                self.order.settings.tell(&Event::Renewed { name, valid_for });
                Ok(())
            }
        }
    }

    /// Hands the lease over to whoever gets the ticket; without one, lets it go.
    fn detach(&mut self) -> Result<Ticket> {
        let made = self.make_ticket();
        self.armed = false;
        let error = match made {
            // The word decides: its guard, which waits for this, may give up.
            Ok(ticket) if self.term.release() => {
                self.machine.release(self.order.core.clock.now());
                let event = Event::Detached { name: &self.order.name, ttl: self.ttl };
                self.order.settings.tell(&event);
                return Ok(ticket);
            }
            Ok(_) => Error::bare(ErrorKind::Released),
            Err(error) => error,
        };
        self.release(self.order.settings.release_budget).and(Err(error))
    }

    /// Renews, so that there is a whole TTL to adopt the lock in.
    fn make_ticket(&mut self) -> Result<Ticket> {
        let clock = self.order.core.clock.clone();
        let left = self.machine.valid_until().saturating_since(clock.now());
        let mut retry = Retry::new(Limit::after(&clock, left.min(DETACH)));
        let mut error = Error::lost(LostReason::Expired);
        while let Some(time) = retry.next() {
            let detached = self.renew().and_then(|()| match self.term.look() {
                Look::Held => self.lease.detach(&Call::lasting(&clock, time)),
                Look::Lost => Err(self.term.loss()),
                Look::Released => Err(Error::bare(ErrorKind::Released)),
            });
            match detached {
                Ok(note) => {
                    return Ok(Ticket::new(Handed {
                        name: &self.order.name,
                        lease_id: self.term.lease_id.as_deref().ok_or_else(ticket::no_lease_id)?,
                        token: self.term.token,
                        mode: self.order.mode,
                        ttl: self.ttl,
                        note,
                    }));
                }
                Err(e) if e.is_retryable() => error = e,
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }

    fn lost(&mut self) {
        let error = self.term.loss();
        let name = &*self.order.name;
        self.order.settings.tell(&Event::Lost { name, error: &error });
        if error.lost_reason() == Some(LostReason::Expired) {
            // A renewal may have come through late, and would keep everybody out for another TTL.
            let limit = Limit::after(&self.order.core.clock, self.order.settings.release_budget);
            let _ = self.send_release(limit);
        }
        self.order.core.queues.nudge(&self.order.name);
    }

    /// Lets the lock go: the word first, then the store, which is asked for so long at most.
    pub(crate) fn release(&mut self, budget: Duration) -> Result<Unlocked> {
        self.armed = false;
        let order = self.order.clone();
        let Order { core, settings, .. } = &*order;
        let left = self.machine.valid_until().saturating_since(core.clock.now());
        self.machine.release(core.clock.now());
        if !self.term.release() && self.term.look() == Look::Lost {
            self.lost();
            return Err(self.term.loss());
        }
        let limit = match self.order.ttl {
            Some(_) => left.min(budget),
            None => NO_EXPIRY_RELEASE,
        };
        let how = self.send_release(Limit::after(&core.clock, limit));
        let name = &*self.order.name;
        core.queues.nudge(name);
        match &how {
            Ok(how) => {
                let _ = self.term.ended().set(*how);
                settings.tell(&Event::Released { name, how: *how });
            }
            Err(error) => settings.tell(&Event::Lost { name, error }),
        }
        how
    }

    fn send_release(&mut self, limit: Limit) -> Result<Unlocked> {
        let order = self.order.clone();
        let Order { core, name, .. } = &*order;
        let mut unclear = false;
        let mut retry = Retry::new(limit);
        while let Some(time) = retry.next() {
            match self.lease.release(&Call::lasting(&core.clock, time)) {
                Ok(()) => {
                    core.mute.store(false, Ordering::SeqCst);
                    return Ok(Unlocked::Confirmed);
                }
                // An earlier try came through.
                Err(e) if e.kind() == ErrorKind::Lost && unclear => return Ok(Unlocked::Confirmed),
                Err(e) if e.kind() == ErrorKind::Lost => return Err(e.for_lock(name)),
                Err(e) => {
                    unclear |= e.is_unclear();
                    retry.heed(&e);
                    log::debug!(target: "leasehold", "{}", e.for_lock(name).during("release"));
                }
            }
        }
        Ok(Unlocked::Expiring)
    }
}

/// Why a keeper stops keeping.
pub(crate) enum End {
    Lost,
    Stopped(Option<Sender<Result<Unlocked>>>),
    /// Its guard wants a ticket.
    Detached(Sender<Result<Ticket>>),
}

impl End {
    /// `None`: its guard has gone without a word.
    pub(crate) fn of(command: Option<Command>) -> Self {
        match command {
            Some(Command::Stop(reply)) => Self::Stopped(Some(reply)),
            Some(Command::Detach(reply)) => Self::Detached(reply),
            _ => Self::Stopped(None),
        }
    }
}

/// One try, taken in by the machine.
fn renew(machine: &mut Lease, lease: &mut Box<dyn backend::Lease>, clock: &backend::Clock) -> Result<()> {
    let call = Call::lasting(clock, machine.try_limit(clock.now()));
    let renewed = lease.renew(&call);
    let outcome = match &renewed {
        Ok(since) => Outcome::Renewed(*since),
        Err(e) if e.kind() == ErrorKind::Lost => Outcome::Gone(e.lost_reason().unwrap_or(LostReason::Taken)),
        Err(_) => Outcome::Unclear,
    };
    machine.outcome(clock.now(), outcome, backoff::roll());
    if let Some(wait) = renewed.as_ref().err().and_then(Error::retry_after) {
        machine.postpone(clock.now(), wait);
    }
    renewed.map(drop)
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.armed && self.term.lose(&Error::lost(LostReason::Failed)) {
            let (name, error) = (&*self.order.name, self.term.loss());
            self.order.settings.tell(&Event::Lost { name, error: &error });
        }
    }
}
