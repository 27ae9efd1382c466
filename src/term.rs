//! The time for which a lock is held: what its guard, its watches, its keeper and the watchdog share.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, ErrorKind, Event, LostReason, OnLost, Result, Unlocked,
    backend::{Call, Clock, Lease, Moment},
    clock::Limit,
    settings::Order,
    signal,
};

/// The word of a term that ended in a loss, or by a release; every other value is its last moment.
const LOST: u64 = 0;
const RELEASED: u64 = 1;
const NEVER: u64 = u64::MAX;

/// How often a `check_for` looks at a store that has no thread to tell it of a loss.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) struct Term {
    /// All that says whether the lock is held: one word, so that an extension and a loss cannot both win.
    word: AtomicU64,
    pub(crate) order: Arc<Order>,
    pub(crate) lease_id: Option<String>,
    pub(crate) token: Option<u64>,
    loss: OnceLock<Error>,
    ended: OnceLock<Unlocked>,
    /// How many sleep until it rings: nobody is woken for nothing.
    bell: Mutex<usize>,
    rung: Condvar,
    /// The lease itself where no keeper has it: of stores that are called on the caller's thread.
    direct: Mutex<Option<Box<dyn Lease>>>,
}

/// What a term's word says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Held,
    Lost,
    Released,
}

/// What a new term is made of.
pub(crate) struct Start {
    pub(crate) order: Arc<Order>,
    pub(crate) lease_id: Option<String>,
    pub(crate) token: Option<u64>,
    pub(crate) valid_until: Moment,
    pub(crate) direct: Option<Box<dyn Lease>>,
}

impl Term {
    pub(crate) fn new(start: Start) -> Self {
        let Start { order, lease_id, token, valid_until, direct } = start;
        Self {
            word: AtomicU64::new(word(valid_until)),
            order,
            lease_id,
            token,
            loss: OnceLock::new(),
            ended: OnceLock::new(),
            bell: Mutex::new(0),
            rung: Condvar::new(),
            direct: Mutex::new(direct),
        }
    }

    /// Whether it is held at this instant. Whoever sees the deadline pass makes that final.
    pub(crate) fn look(&self) -> Look {
        loop {
            let seen = self.word.load(Ordering::SeqCst);
            match seen {
                LOST => return Look::Lost,
                RELEASED => return Look::Released,
                NEVER => return Look::Held,
                until if word(self.clock().now()) < until => return Look::Held,
                _ => {}
            }
            if self.end(seen, LOST) {
                self.lost();
                return Look::Lost;
            }
        }
    }

    /// The deadline while it is held.
    pub(crate) fn valid_until(&self) -> Option<Moment> {
        match self.word.load(Ordering::SeqCst) {
            LOST | RELEASED => None,
            until => Some(Moment::from_nanos(until)),
        }
    }

    /// Time left if no renewal comes; zero when it is over, `None` if it never runs out.
    pub(crate) fn valid_for(&self) -> Option<Duration> {
        match self.valid_until() {
            Some(Moment::NEVER) => None,
            Some(until) => Some(until.saturating_since(self.clock().now())),
            None => Some(Duration::ZERO),
        }
    }

    /// How long the watchdog may sleep, `at_most` so long, and still see the deadline when it comes.
    pub(crate) fn nap(&self, at_most: Duration) -> Duration {
        let nap = self.valid_for().map_or(at_most, |left| left.min(at_most));
        self.clock().real(nap)
    }

    /// Moves the deadline, unless somebody saw the old one pass.
    pub(crate) fn extend(&self, from: Moment, to: Moment) -> bool {
        from == to || self.end(word(from), word(to))
    }

    /// Ends it as lost. Says whether it was held until now.
    pub(crate) fn lose(&self, error: &Error) -> bool {
        loop {
            match self.word.load(Ordering::SeqCst) {
                LOST | RELEASED => return false,
                seen => {
                    // Before the word, so that whoever reads the word finds the reason.
                    let _ = self.loss.set(error.clone().for_lock(&self.order.name));
                    if self.end(seen, LOST) {
                        self.lost();
                        return true;
                    }
                }
            }
        }
    }

    /// Ends it as released, before the release is sent. `false` when it was over already.
    pub(crate) fn release(&self) -> bool {
        loop {
            if self.look() != Look::Held {
                return false;
            }
            let seen = self.word.load(Ordering::SeqCst);
            if seen > RELEASED && self.end(seen, RELEASED) {
                self.ring();
                return true;
            }
        }
    }

    /// Why it was lost.
    pub(crate) fn loss(&self) -> Error {
        self.loss.get_or_init(|| Error::lost(LostReason::Expired).for_lock(&self.order.name)).clone()
    }

    /// How its release went, where nobody asked: at the end of a shutdown's grace.
    pub(crate) fn ended(&self) -> &OnceLock<Unlocked> {
        &self.ended
    }

    pub(crate) fn take_direct(&self) -> Option<Box<dyn Lease>> {
        self.direct().take()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let mut look = self.look();
        if look == Look::Held {
            let mut lost_now = false;
            if let Some(lease) = self.direct().as_mut()
                && let Err(error) = lease.renew(&Call::immediate(self.clock()))
                && error.kind() == ErrorKind::Lost
            {
                lost_now = self.lose(&error);
            }
            if lost_now {
                let (name, error) = (&*self.order.name, &self.loss());
                self.order.settings.tell(&Event::Lost { name, error });
            }
            look = self.look();
        }
        let shutdown = || Error::bare(ErrorKind::Shutdown).for_lock(&self.order.name);
        match look {
            Look::Lost => Err(self.loss()),
            _ if self.order.settings.is_shutting_down() => Err(shutdown()),
            Look::Released => Err(Error::bare(ErrorKind::Released).for_lock(&self.order.name)),
            Look::Held => Ok(()),
        }
    }

    /// Sleeps until `check` turns bad, for so long at most.
    pub(crate) fn check_for(&self, time: Duration) -> Result<()> {
        let limit = Limit::after(self.clock(), time);
        loop {
            self.check()?;
            let mut slice = limit.remaining();
            if slice.is_zero() {
                return Ok(());
            }
            if !self.order.settings.signals.is_empty() {
                slice = slice.min(signal::LOOK);
            }
            slice = slice.min(self.valid_for().unwrap_or(LOOK)).min(LOOK);
            let mut sleepers = self.sleepers();
            if self.valid_until().is_some() {
                *sleepers += 1;
                let woken = self.rung.wait_timeout(sleepers, self.clock().real(slice));
                *woken.unwrap_or_else(PoisonError::into_inner).0 -= 1;
            }
        }
    }

    fn end(&self, from: u64, to: u64) -> bool {
        let order = Ordering::SeqCst;
        self.word.compare_exchange(from, to, order, order).is_ok()
    }

    /// The loss is in the word: tell whoever sleeps, and do what was asked for.
    fn lost(&self) {
        let error = self.loss();
        if self.order.settings.on_lost == OnLost::Abort {
            eprintln!("{error}; ending this process");
            std::process::abort();
        }
        self.ring();
    }

    fn ring(&self) {
        if *self.sleepers() > 0 {
            self.rung.notify_all();
        }
    }

    fn clock(&self) -> &Clock {
        &self.order.core.clock
    }

    fn sleepers(&self) -> MutexGuard<'_, usize> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn direct(&self) -> MutexGuard<'_, Option<Box<dyn Lease>>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn word(moment: Moment) -> u64 {
    moment.as_nanos().max(RELEASED + 1)
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("name", &self.order.name)
            .field("look", &self.look())
            .field("valid_for", &self.valid_for())
            .field("lease_id", &self.lease_id)
            .field("fencing_token", &self.token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Core;

    const SECOND: Duration = Duration::from_secs(1);

    fn term(clock: &Clock, valid_until: Moment) -> Term {
        let store = crate::memory::Store::with_clock(clock.clone());
        let order = Arc::new(Order::new(Arc::new(Core::new(store)), Arc::default(), "x"));
        Term::new(Start { order, lease_id: None, token: None, valid_until, direct: None })
    }

    #[test]
    fn a_stalled_keeper_cannot_bring_it_back_to_life() {
        let clock = Clock::manual();
        let first = clock.now() + SECOND;
        let term = term(&clock, first);
        let second = first + SECOND;
        assert!(term.extend(first, second));
        clock.suspend(2 * SECOND);
        assert_eq!(term.look(), Look::Lost);
        assert!(!term.extend(second, second + SECOND));
        assert_eq!(term.look(), Look::Lost);
        assert!(!term.release() && !term.lose(&Error::lost(LostReason::Taken)));
        assert_eq!(term.loss().lost_reason(), Some(LostReason::Expired));
        assert_eq!(term.valid_for(), Some(Duration::ZERO));
    }

    #[test]
    fn one_of_release_and_loss_wins() {
        let clock = Clock::manual();
        let released = term(&clock, Moment::NEVER);
        assert_eq!(released.valid_for(), None);
        assert!(released.release() && !released.lose(&Error::lost(LostReason::Taken)));
        assert_eq!(released.check().unwrap_err().kind(), ErrorKind::Released);
        let lost = term(&clock, Moment::NEVER);
        assert!(lost.lose(&Error::lost(LostReason::Taken)) && !lost.release());
        let error = lost.check().unwrap_err();
        assert_eq!(error.lost_reason(), Some(LostReason::Taken));
        assert_eq!(error.lock_name(), Some("x"));
    }
}
