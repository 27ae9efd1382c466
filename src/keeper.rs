//! The thread of a lock: it asks for it, renews and releases it, one call at a time.
//!
//! Whoever wants the lock steers it over a channel and waits for its answers, for as long as they like: a
//! timeout or a shutdown is honoured while a call hangs. The end of the channel means: let it go.
//!
//! To switch threads costs as much as a part of a request to a near server. So two calls are made on the user's own
//! thread where they can do no harm there: the release, and the first try ([`Abilities`](crate::backend::Abilities)).

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use crate::{
    Error, ErrorKind, Result, Ticket, Unlocked,
    backend::Busy,
    backoff::{self, Backoff, Pace},
    clock::Limit,
    desk::Desk,
    hold::Hold,
    seek::Seek,
    settings::Order,
    term::Term,
    threads::{self, Reserved},
    watchdog::{self, Leash},
};

/// As many commands wait for a keeper that is in a call: renewals by hand, on several threads.
const COMMANDS: usize = 8;

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
    Granted(Granted),
    Busy(Busy),
    Failed(Error),
    /// The slice is over; `true`: another try makes sense.
    Waited(Result<bool>),
}

/// The other end of a keeper's channel. Dropping it lets the lock go, or ends the asking.
pub(crate) struct Keeper {
    pub(crate) commands: SyncSender<Command>,
    pub(crate) answers: Receiver<Answer>,
}

/// A thread for one lock, got before the store is asked for it: a refused thread loses no lock.
pub(crate) struct Recruit {
    thread: Reserved,
    leash: Leash,
}

impl Recruit {
    /// # Errors
    /// `Unavailable` when the operating system refuses a thread.
    pub(crate) fn new(order: &Order) -> Result<Self> {
        let refused = |e: io::Error| {
            let e = format!("the operating system refuses a thread: {e}");
            Error::new(ErrorKind::Unavailable, e).not_sent()
        };
        let leash = watchdog::summon().map_err(refused)?;
        Ok(Self { thread: threads::reserve(&order.name).map_err(refused)?, leash })
    }

    /// It is to ask for the lock, as it is told.
    pub(crate) fn ask(self, mut seek: Box<Seek>) -> Keeper {
        let Self { thread, leash } = self;
        let (commands, inbox) = mpsc::sync_channel(COMMANDS);
        // One command, one answer: room for more would cost each lock some KiB.
        let (outbox, answers) = mpsc::sync_channel(1);
        let name = seek.order.name.clone();
        thread.run(&name, move || {
            let Some(hold) = seek.serve(&inbox, &outbox) else {
                return seek.abandon();
            };
            // All that holds the store goes before the last answer: who then ends the store ends it for good.
            drop(seek);
            let granted = Granted::new(hold, thread::current().id(), &leash);
            let desk = granted.desk.clone();
            // Nobody there: `Desk::keep` finds the channel ended, and releases.
            let _ = outbox.send(Answer::Granted(granted));
            drop(outbox);
            desk.keep(&inbox);
        });
        Keeper { commands, answers }
    }

    /// It is to keep a lock that this thread got.
    pub(crate) fn keep(self, hold: Box<Hold>) -> (Granted, SyncSender<Command>) {
        let Self { thread, leash } = self;
        let (commands, inbox) = mpsc::sync_channel(COMMANDS);
        let name = hold.term().order.name.clone();
        let granted = Granted::new(hold, thread.id, &leash);
        let desk = granted.desk.clone();
        thread.run(&name, move || desk.keep(&inbox));
        (granted, commands)
    }
}

/// A lock that a keeper has.
pub(crate) struct Granted {
    pub(crate) term: Arc<Term>,
    pub(crate) desk: Arc<Desk>,
    /// The keeper's.
    pub(crate) thread: ThreadId,
}

impl Granted {
    // Off the stack while the lock is asked for.
    #[inline(never)]
    fn new(hold: Box<Hold>, thread: ThreadId, leash: &Leash) -> Self {
        leash.watch(hold.term());
        Self { term: hold.term().clone(), desk: Arc::new(Desk::new(hold)), thread }
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
