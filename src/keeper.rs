//! The thread that makes a lock's calls to its store: it asks, renews and releases, one call at a time.
//!
//! Whoever wants the lock steers it over a channel and waits for its answers, for as long as they like: a
//! timeout or a shutdown is honoured while a call hangs. The end of the channel means: let it go.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::ThreadId,
    time::Duration,
};

use crate::{
    Error, ErrorKind, Result, Ticket, Unlocked,
    backend::{Ask, Attempt, Busy},
    backoff::{self, Backoff, Pace},
    clock::Limit,
    hold::{Hold, NO_EXPIRY_RELEASE},
    settings::Order,
    term::Term,
    threads, watchdog,
};

/// What a keeper is told. `Try` and `Wait` before it has the lock, the others after that.
pub(crate) enum Command {
    Try(Duration),
    Wait(Slice),
    Renew(Sender<Result<()>>),
    Stop(Sender<Result<Unlocked>>),
    Detach(Sender<Result<Ticket>>),
}

/// One piece of a wait.
pub(crate) struct Slice {
    pub(crate) time: Duration,
    pub(crate) pace: Arc<Pace>,
    /// The store did not answer as it should: pause, and ask nothing.
    pub(crate) quietly: bool,
}

pub(crate) enum Answer {
    Granted(Arc<Term>, ThreadId),
    Busy(Busy),
    Failed(Error),
    /// The slice is over; `true`: another try makes sense.
    Waited(Result<bool>),
}

/// The other end of a keeper's channel. Dropping it lets the lock go, or ends the asking.
pub(crate) struct Keeper {
    pub(crate) commands: Sender<Command>,
    pub(crate) answers: Receiver<Answer>,
}

/// Gets a thread for one lock, before the store is asked for it.
///
/// # Errors
/// `Unavailable` when the operating system refuses a thread.
pub(crate) fn hire(order: &Arc<Order>) -> Result<Keeper> {
    let refused = |e: std::io::Error| {
        let e = format!("the operating system refuses a thread: {e}");
        Error::new(ErrorKind::Unavailable, e).not_sent()
    };
    let leash = watchdog::summon().map_err(refused)?;
    let (commands, inbox) = mpsc::channel();
    let (outbox, answers) = mpsc::channel();
    let kept = order.clone();
    threads::run(&order.name, move || {
        // Not on the stack, of which each page that is ever touched stays.
        let mut seek = Box::new(Seek { ask: kept.ask(), order: kept, unclear: false });
        match seek.run(&inbox, &outbox, &leash) {
            Some(hold) => {
                // All that holds the store goes before the last answer: who then ends the store ends it for good.
                drop(seek);
                hold.run(&inbox);
            }
            None => seek.abandon(),
        }
    })
    .map_err(refused)?;
    Ok(Keeper { commands, answers })
}

/// A keeper that has no lock yet.
struct Seek {
    order: Arc<Order>,
    ask: Ask,
    /// A try failed that was perhaps carried out.
    unclear: bool,
}

impl Seek {
    /// Does what it is told until the lock is had (`Some`) or nobody wants it any more.
    fn run(
        &mut self,
        inbox: &Receiver<Command>,
        outbox: &Sender<Answer>,
        leash: &watchdog::Leash,
    ) -> Option<Hold> {
        while let Ok(command) = inbox.recv() {
            let answer = match command {
                Command::Try(limit) => match self.try_once(limit) {
                    Ok(Ok(hold)) => {
                        leash.watch(hold.term());
                        let me = std::thread::current().id();
                        // Nobody there: `Hold::run` finds the channel ended, and releases.
                        let _ = outbox.send(Answer::Granted(hold.term().clone(), me));
                        return Some(hold);
                    }
                    Ok(Err(busy)) => Answer::Busy(busy),
                    Err(error) => Answer::Failed(error),
                },
                Command::Wait(slice) => Answer::Waited(self.wait(slice)),
                Command::Renew(_) | Command::Stop(_) | Command::Detach(_) => continue,
            };
            if outbox.send(answer).is_err() {
                break;
            }
        }
        None
    }

    fn try_once(&mut self, limit: Duration) -> Result<Result<Hold, Busy>> {
        self.ask.prepare(Limit::after(&self.order.core.clock, limit));
        match self.order.try_once(&mut self.ask) {
            Ok(Attempt::Granted(grant)) => {
                self.unclear = false;
                Hold::new(self.order.clone(), grant).map(Ok)
            }
            Ok(Attempt::Busy(busy)) => Ok(Err(busy)),
            Err(error) => {
                self.unclear |= error.is_unclear();
                Err(error)
            }
        }
    }

    fn wait(&mut self, slice: Slice) -> Result<bool> {
        self.ask.prepare_wait(slice.time, Some(slice.pace));
        if slice.quietly || self.ask.is_pausing() {
            self.ask.pause();
        } else {
            self.order.core.backend.wait(&mut self.ask)?;
        }
        Ok(!self.ask.is_pausing())
    }

    /// The asking is over without a lock: takes back what perhaps came of it.
    fn abandon(&mut self) {
        if !self.unclear && !self.ask.owes() {
            return;
        }
        let Order { core, settings, .. } = &*self.order;
        // What never runs out is given back for as long as it takes.
        let forever = self.order.no_expiry && core.abilities.ttl.is_some();
        let time = if forever { NO_EXPIRY_RELEASE } else { settings.release_budget };
        let limit = Limit::after(&core.clock, time);
        let name = self.order.name.clone();
        let mut retry = Retry::new(limit);
        while let Some(time) = retry.next() {
            self.ask.prepare(Limit::after(&core.clock, time));
            match core.backend.abandon(&mut self.ask) {
                Ok(()) => return,
                Err(e) if e.is_retryable() => {
                    retry.heed(&e);
                    log::debug!(target: "leasehold", "{e}");
                }
                Err(e) => return log::warn!(target: "leasehold", "lock {name:?}: {e}"),
            }
        }
    }
}

/// Tries with growing pauses between them, until a limit.
pub(crate) struct Retry {
    limit: Limit,
    backoff: Backoff,
    first: bool,
    /// What the store asked for; no pause is shorter.
    asked: Duration,
}

impl Retry {
    pub(crate) fn new(limit: Limit) -> Self {
        let backoff = Backoff::default();
        Self { limit, backoff, first: true, asked: Duration::ZERO }
    }

    /// Keeps to the pause that the store asked for in its failure.
    pub(crate) fn heed(&mut self, error: &Error) {
        self.asked = error.retry_after().unwrap_or_default();
    }

    /// Sleeps when a try has failed, and says how long the next one may take.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        if !std::mem::take(&mut self.first) {
            let range = Duration::from_millis(50)..=Duration::from_secs(1);
            let pause = self.backoff.next(&range, backoff::roll()).max(std::mem::take(&mut self.asked));
            Pace::default().sleep(&self.limit, pause);
        }
        Some(self.limit.remaining()).filter(|left| !left.is_zero())
    }
}
