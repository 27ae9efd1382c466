//! The state machine of one held lease: takes moments and outcomes, answers what to do and when.
//!
//! Pure: no I/O, no clock, no thread. `roll` is a random number in `0.0..1.0`, from outside.
//!
//! ```text
//! Held ⇄ AtRisk (a renewal failed) → Lost        until release: Held | AtRisk → Released
//! ```

use std::time::Duration;

use crate::{LostReason, clock::Moment};

/// How often a lease without expiry is asked after, so that a break of it is seen.
const CHECK: Duration = Duration::from_secs(10);
/// The first pause after a renewal that failed, as a share of the validity; doubled each time.
const FIRST_RETRY: u32 = 64;
/// The longest such pause, likewise.
const LAST_RETRY: u32 = 12;
/// A try may take this share of the validity that is left, so that at least two more fit in.
const TRIES: u32 = 3;

/// What a TTL is worth to its holder: a margin for the rates of clocks and for scheduling goes off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl(Duration);

impl Ttl {
    /// Under this a margin of 100 ms leaves too little to work with.
    pub(crate) const MIN: Duration = Duration::from_millis(200);

    pub(crate) fn new(ttl: Duration) -> Self {
        Self(ttl)
    }

    pub(crate) fn validity(self) -> Duration {
        let margin = (self.0 / 50).max(Duration::from_millis(100));
        self.0.saturating_sub(margin)
    }
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The store confirmed it; its timer counts from no earlier than this moment.
    Renewed(Moment),
    /// No word, or one that says nothing of the lease.
    Unclear,
    /// The store's word that the lease is not ours.
    Gone(LostReason),
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this moment.
    Wait(Moment),
    /// Renew, in one try that takes no longer than this.
    Renew(Duration),
    /// The lease is lost: tell it.
    Lost(LostReason),
    /// Nothing more: it was let go.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    AtRisk,
    Lost(LostReason),
    Released,
}

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    ttl: Option<Ttl>,
    auto_renew: bool,
    state: State,
    valid_until: Moment,
    next: Moment,
    failures: u32,
}

impl Lease {
    /// A lease whose timer in the store counts from no earlier than `since`; `ttl` `None`: it never ends.
    pub(crate) fn new(ttl: Option<Ttl>, auto_renew: bool, since: Moment, roll: f64) -> Self {
        let mut lease =
            Self { ttl, auto_renew, state: State::Held, valid_until: since, next: since, failures: 0 };
        lease.extend(since, roll);
        lease
    }

    pub(crate) fn valid_until(&self) -> Moment {
        self.valid_until
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// What to do at `now`. Only the caller's clock makes this turn to `Lost`; nothing turns it back.
    pub(crate) fn step(&mut self, now: Moment) -> Step {
        self.expire(now);
        match self.state {
            State::Lost(reason) => Step::Lost(reason),
            State::Released => Step::Done,
            State::Held | State::AtRisk if now >= self.next => Step::Renew(self.try_limit(now)),
            State::Held | State::AtRisk => Step::Wait(self.next.min(self.valid_until)),
        }
    }

    /// How long one try may take, so that others still fit into the validity.
    pub(crate) fn try_limit(&self, now: Moment) -> Duration {
        match self.ttl {
            None => CHECK,
            Some(_) => self.valid_until.saturating_since(now) / TRIES,
        }
    }

    /// Takes in what came of a renewal, at the time when that is known.
    pub(crate) fn outcome(&mut self, now: Moment, outcome: Outcome, roll: f64) {
        self.expire(now);
        if !matches!(self.state, State::Held | State::AtRisk) {
            return;
        }
        match outcome {
            Outcome::Renewed(since) => {
                self.state = State::Held;
                self.failures = 0;
                self.extend(since, roll);
                self.expire(now);
            }
            Outcome::Unclear => {
                self.state = State::AtRisk;
                self.next = now + self.retry_pause(roll);
                self.failures += 1;
            }
            Outcome::Gone(reason) => self.state = State::Lost(reason),
        }
    }

    /// The store asks to be left alone for so long: is, but for as long as half of the validity at most.
    pub(crate) fn postpone(&mut self, now: Moment, wait: Duration) {
        let left = self.valid_until.saturating_since(now);
        self.next = self.next.max(now + wait.min(left / 2));
    }

    /// Somebody else's word that it is over, such as the watchdog's.
    pub(crate) fn lose(&mut self, reason: LostReason) {
        if matches!(self.state, State::Held | State::AtRisk) {
            self.state = State::Lost(reason);
        }
    }

    /// The holder lets go. Says whether it still held the lease.
    pub(crate) fn release(&mut self, now: Moment) -> bool {
        self.expire(now);
        let held = matches!(self.state, State::Held | State::AtRisk);
        if held {
            self.state = State::Released;
        }
        held
    }

    /// Whether more than half of the validity is gone, but not all: it wants a renewal before it is handed out.
    pub(crate) fn is_half_gone(&self, now: Moment) -> bool {
        now < self.valid_until
            && self.ttl.is_some_and(|ttl| self.valid_until.saturating_since(now) < ttl.validity() / 2)
    }

    fn expire(&mut self, now: Moment) {
        if now >= self.valid_until && matches!(self.state, State::Held | State::AtRisk) {
            self.state = State::Lost(LostReason::Expired);
        }
    }

    fn extend(&mut self, since: Moment, roll: f64) {
        let (valid_until, period) = match self.ttl {
            None => (Moment::NEVER, CHECK),
            Some(ttl) => (since + ttl.validity(), ttl.0 / 3),
        };
        self.valid_until = self.valid_until.max(valid_until);
        self.next = if self.auto_renew {
            // Spread, so that leases taken together are not renewed together.
            since + period.mul_f64(0.8 + 0.2 * roll)
        } else {
            Moment::NEVER
        };
    }

    fn retry_pause(&self, roll: f64) -> Duration {
        let validity = self.ttl.map_or(CHECK, Ttl::validity);
        let pause = validity / FIRST_RETRY * 2_u32.saturating_pow(self.failures.min(8));
        pause.min(validity / LAST_RETRY).mul_f64(0.5 + 0.5 * roll)
    }
}

#[cfg(any(test, fuzzing))]
#[path = "lease_model.rs"]
pub(crate) mod model;
#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
