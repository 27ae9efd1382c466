//! What a locker was told, and what all lockers on one store share.

use std::{
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, ErrorKind, Event, Holder, LostReason, Mode, OnLost, Result, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Calls, Clock, Wanted},
    error::Seconds,
    lease::Ttl,
    queue::Queues,
    signal::Signal,
};

type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// A store, and what is common to all who use it through one `Locker` and its clones.
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) abilities: Abilities,
    pub(crate) clock: Clock,
    pub(crate) queues: Queues,
    /// A release ran out of its budget and none was confirmed since: drops do not wait any more.
    pub(crate) mute: AtomicBool,
    /// The last try was answered so soon that the next one can be expected to be.
    pub(crate) quick: AtomicBool,
}

impl Core {
    pub(crate) fn new(backend: impl Backend) -> Self {
        Self {
            abilities: backend.abilities(),
            clock: backend.clock(),
            backend: Arc::new(backend),
            queues: Queues::default(),
            mute: AtomicBool::new(false),
            quick: AtomicBool::new(false),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) ttl: Option<Duration>,
    pub(crate) holder: Arc<Holder>,
    pub(crate) on_lost: OnLost,
    pub(crate) listener: Option<Listener>,
    pub(crate) patience: Option<Duration>,
    pub(crate) poll: RangeInclusive<Duration>,
    pub(crate) release_budget: Duration,
    pub(crate) signals: Vec<Arc<Signal>>,
    pub(crate) grace: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: None,
            holder: Arc::new(Holder::here(None)),
            on_lost: OnLost::default(),
            listener: None,
            patience: Some(Duration::from_secs(30)),
            poll: Duration::from_millis(100)..=Duration::from_secs(1),
            release_budget: Duration::from_secs(5),
            signals: Vec::new(),
            grace: None,
        }
    }
}

impl Settings {
    /// Tells an event to `log` and to the user's function, whose panic is its own affair.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        log::log!(target: "leasehold", event.level(), "{event}");
        if let Some(listener) = &self.listener
            && catch_unwind(AssertUnwindSafe(|| listener(event))).is_err()
        {
            log::error!(target: "leasehold", "the function given to `on_event` panicked");
        }
    }

    /// Whether anybody hears of an event of this level: if not, it need not be made.
    pub(crate) fn is_told(&self, level: log::Level) -> bool {
        self.listener.is_some() || level <= log::max_level()
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.signals.iter().any(|signal| signal.came().is_some())
    }

    /// Whether the time is over for which locks outlive the signal.
    pub(crate) fn is_grace_over(&self) -> bool {
        self.grace.is_some_and(|grace| {
            let now = Clock::system().now();
            let over = |signal: &Arc<Signal>| signal.came().is_some_and(|came| now >= came + grace);
            self.signals.iter().any(over)
        })
    }

    /// Whether somebody has to watch for the end of the grace.
    pub(crate) fn has_grace(&self) -> bool {
        self.grace.is_some() && !self.signals.is_empty()
    }
}

/// One lock as it was asked for, checked against what the store can do.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) fenced: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) no_expiry: bool,
    pub(crate) auto_renew: bool,
    /// Of the lock that is to be taken over, if it is not to be asked for.
    pub(crate) ticket: Option<Arc<Ticket>>,
}

impl Order {
    /// An exclusive lock without any option.
    pub(crate) fn new(core: Arc<Core>, settings: Arc<Settings>, name: &str) -> Self {
        Self {
            core,
            settings,
            name: name.into(),
            mode: Mode::Exclusive,
            fenced: false,
            timeout: None,
            ttl: None,
            no_expiry: false,
            auto_renew: true,
            ticket: None,
        }
    }

    /// A lock that somebody else detached.
    ///
    /// # Errors
    /// `Name`, when this store can have no lock of such a name.
    pub(crate) fn adopting(core: Arc<Core>, settings: Arc<Settings>, ticket: &Ticket) -> Result<Self> {
        let mut order = Self::new(core, settings, ticket.name());
        order.mode = ticket.mode();
        order.fenced = ticket.fencing_token().is_some();
        // As it was given, which is not for this store's settings to judge.
        order.ttl = ticket.ttl();
        order.no_expiry = ticket.ttl().is_none();
        order.ticket = Some(Arc::new(ticket.clone()));
        check_name(&*order.core.backend, &order.name)?;
        Ok(order)
    }

    /// What is being done, for errors.
    pub(crate) fn operation(&self) -> &'static str {
        if self.ticket.is_some() { "adopt" } else { "acquire" }
    }

    /// Asks the store once: for the lock, or for one that was detached.
    pub(crate) fn try_once(&self, ask: &mut Ask) -> Result<Attempt> {
        let backend = &self.core.backend;
        let Some(ticket) = &self.ticket else {
            return backend.try_acquire(ask);
        };
        let mut grant = backend.adopt(ask, ticket).map_err(|e| match e.lost_reason() {
            Some(LostReason::Expired | LostReason::Taken) => {
                e.because("the ticket came too late, or was used already")
            }
            _ => e,
        })?;
        grant.token = ticket.fencing_token();
        Ok(Attempt::Granted(grant))
    }

    /// Checks all that can be wrong with it, and settles the TTL.
    pub(crate) fn checked(self: &Arc<Self>) -> Result<Arc<Self>> {
        let ttl = self.check().map_err(|e| e.for_lock(&self.name))?;
        let mut order = self.clone();
        if order.ttl != ttl {
            Arc::make_mut(&mut order).ttl = ttl;
        }
        Ok(order)
    }

    fn check(&self) -> Result<Option<Duration>> {
        let abilities = &self.core.abilities;
        check_name(&*self.core.backend, &self.name)?;
        if self.mode == Mode::Shared && !abilities.shared {
            return Err(Error::unsupported("share a lock"));
        }
        if self.fenced && !abilities.fencing {
            return Err(Error::unsupported("give fencing tokens"));
        }
        let Some(default) = abilities.ttl.filter(|_| !self.no_expiry) else {
            return Ok(None);
        };
        let ttl = self.ttl.or(self.settings.ttl).unwrap_or(default);
        let (least, most) = (*abilities.ttls.start().max(&Ttl::MIN), *abilities.ttls.end());
        if (least..=most).contains(&ttl) {
            return Ok(Some(ttl));
        }
        Err(Error::new(
            ErrorKind::Config,
            format!("a TTL of {}: this store takes {} to {}", Seconds(ttl), Seconds(least), Seconds(most)),
        ))
    }

    pub(crate) fn ask(&self) -> Ask {
        let wanted = Wanted {
            name: self.name.clone(),
            mode: self.mode,
            fenced: self.fenced,
            ttl: self.ttl,
            holder: self.settings.holder.clone(),
            poll: self.settings.poll.clone(),
        };
        Ask::new(wanted, &self.core.clock)
    }

    /// Whether the store is called on the caller's own thread.
    pub(crate) fn is_direct(&self) -> bool {
        self.core.abilities.calls == Calls::Immediate && !self.settings.has_grace()
    }

    /// Whether the first try is worth being made there.
    pub(crate) fn is_quick(&self) -> bool {
        let Abilities { calls, conclusive, .. } = self.core.abilities;
        calls == Calls::Punctual && conclusive && self.core.quick.load(Ordering::Relaxed)
    }
}

/// Whether a lock of this store can have this name.
pub(crate) fn check_name(backend: &dyn Backend, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Name, "it is empty"));
    }
    backend.check_name(name)
}
