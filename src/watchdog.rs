//! The process's one watcher of deadlines: marks losses when nobody else looks.
//!
//! A keeper may sit in a call of its store or in a callback of the user just when a deadline passes, so this
//! thread calls neither. It marks the loss, does what `on_lost` says, and wakes who sleeps in `check_for`.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use crate::{
    clock::{Clock, Limit},
    term::{Look, Term},
    threads,
};

/// Looks at least this often: timers stand still in suspend, deadlines do not.
const LOOK: Duration = Duration::from_millis(500);
/// How long it stays when there is nothing to watch.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Kennel {
    running: bool,
    leashes: usize,
    terms: Vec<Weak<Term>>,
}

static KENNEL: Mutex<Kennel> = Mutex::new(Kennel { running: false, leashes: 0, terms: Vec::new() });
static WHISTLE: Condvar = Condvar::new();

/// While one of these exists, so does the watchdog.
pub(crate) struct Leash(());

/// Makes sure of the watchdog, before a lease is asked for that it is to watch.
///
/// # Errors
/// The operating system's, when it refuses the thread.
pub(crate) fn summon() -> io::Result<Leash> {
    let mut kennel = kennel();
    if !kennel.running {
        threads::run("watchdog", watch)?;
        kennel.running = true;
    }
    kennel.leashes += 1;
    Ok(Leash(()))
}

impl Leash {
    /// Watches one more term, until it ends.
    #[expect(clippy::unused_self, reason = "who holds a leash may call the dog")]
    pub(crate) fn watch(&self, term: &Arc<Term>) {
        kennel().terms.push(Arc::downgrade(term));
        // It wakes by itself before most deadlines; to wake a thread costs as much as a tenth of a request.
        if term.nap(LOOK) < LOOK {
            WHISTLE.notify_all();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        kennel().leashes -= 1;
    }
}

fn watch() {
    let clock = Clock::system();
    let mut idle = Limit::after(&clock, IDLE);
    let mut kennel = kennel();
    loop {
        let mut nap = LOOK;
        kennel.terms.retain(|term| {
            let Some(term) = term.upgrade() else {
                return false;
            };
            if term.look() != Look::Held {
                return false;
            }
            nap = term.nap(nap);
            true
        });
        if kennel.leashes > 0 || !kennel.terms.is_empty() {
            idle = Limit::after(&clock, IDLE);
        } else if idle.passed() {
            kennel.running = false;
            return;
        }
        kennel = WHISTLE.wait_timeout(kennel, nap).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn kennel() -> MutexGuard<'static, Kennel> {
    KENNEL.lock().unwrap_or_else(PoisonError::into_inner)
}
