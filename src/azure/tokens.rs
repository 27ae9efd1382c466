//! The tokens of one credential: kept, and renewed well before they end by whoever needs one first.
//!
//! Fetches run on threads of their own, one at a time, so that one that hangs holds up nobody for longer than his
//! own call may take. While a token is good, no failure of its renewal reaches a request. Ends are counted on the
//! machine's clock, which nobody sets.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    connection::Cloud,
    token::{Fetched, NoToken, Source},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Call, Clock, Moment},
    backoff::{self, Backoff},
    error::Seconds,
    threads,
};

/// A token is renewed so long before its end, or when a third of its life is left.
const AHEAD: Duration = Duration::from_secs(300);
/// A token is not used for this long before its end, or for a tenth of its life: it has to be good on arrival.
const ON_THE_WAY: Duration = Duration::from_secs(10);
/// So often a refused token is replaced: who has no access is refused with each.
const REPLACED: Duration = Duration::from_secs(5);
/// What one fetch may take.
const FETCH: Duration = Duration::from_secs(30);
/// One that takes longer hangs, and another may be started.
const HUNG: Duration = Duration::from_secs(60);
/// Fetches at once, for the case that they hang.
const MOST: usize = 3;
/// Pauses after a fetch that failed, while there is no token and while there still is one.
const WITHOUT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
const WITH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest pause that an identity service can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Clones share the token.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    source: Arc<dyn Source>,
    cloud: Cloud,
    clock: Clock,
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    token: Option<Held>,
    running: usize,
    /// When the last fetch began that is on its way.
    began: Option<Moment>,
    /// How many fetches ended.
    ended: u64,
    /// Why the last fetch brought nothing, and when another makes sense.
    failed: Option<(Error, Moment)>,
    backoff: Backoff,
    /// When a token was last fetched because the service refused the one before.
    replaced: Option<Moment>,
}

struct Held {
    header: Arc<str>,
    fetched: Moment,
    renew: Moment,
    end: Moment,
}

impl Tokens {
    pub(super) fn new(source: Arc<dyn Source>, cloud: Cloud, clock: Clock) -> Self {
        let (state, told) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Inner { source, cloud, clock, state, told }))
    }

    /// The same source elsewhere, or by another clock.
    pub(super) fn with(&self, cloud: Cloud, clock: Clock) -> Self {
        Self::new(self.0.source.clone(), cloud, clock)
    }

    pub(super) fn source(&self) -> &'static str {
        self.0.source.name()
    }

    /// The value of the header `Authorization`. Waits for a token only if there is none that is good.
    ///
    /// # Errors
    /// Of a fetch, or `Unavailable` when there was none within the call's time. Nothing was sent to the store.
    // Off the stack while a request is under way.
    #[inline(never)]
    pub(super) fn header(&self, call: &Call) -> Result<Arc<str>> {
        let mut state = self.0.lock();
        let before = state.ended;
        loop {
            let now = self.0.clock.now();
            if let Some(held) = state.token.as_ref().filter(|held| now < held.end) {
                let header = held.header.clone();
                if now >= held.renew
                    && let Err(refused) = self.start(&mut state, now)
                {
                    log::warn!(target: "leasehold", "no new token yet: {refused}");
                }
                return Ok(header);
            }
            if let Some((error, again)) = &state.failed
                && (state.ended != before || now < *again)
            {
                return Err(error.clone());
            }
            self.start(&mut state, now)?;
            state = self.0.wait(state, call)?;
        }
    }

    /// The service refused the token in this header. Says whether there is another one now: waits for it.
    ///
    /// The refused one is kept until then: should the service be wrong about it, it is not lost.
    ///
    /// # Errors
    /// As for [`header`](Self::header).
    pub(super) fn refused(&self, header: &Arc<str>, call: &Call) -> Result<bool> {
        let mut state = self.0.lock();
        let (before, now) = (state.ended, self.0.clock.now());
        let lately = state.replaced.is_some_and(|at| now.saturating_since(at) < REPLACED);
        loop {
            let now = self.0.clock.now();
            let waited = state.ended != before;
            let other = state.token.as_ref().is_some_and(|held| held.header != *header);
            if let Some((error, again)) = &state.failed
                && !other
                && (waited || now < *again)
            {
                return Err(error.clone());
            }
            if waited {
                state.replaced = Some(now);
            }
            if other || waited || lately && state.running == 0 {
                return Ok(other);
            }
            self.start(&mut state, now)?;
            state = self.0.wait(state, call)?;
        }
    }

    /// Starts a fetch, unless one is on its way or just failed.
    fn start(&self, state: &mut State, now: Moment) -> Result<()> {
        let hangs = state.began.is_none_or(|began| now.saturating_since(began) >= HUNG);
        let pauses = state.failed.as_ref().is_some_and(|(_, again)| now < *again);
        if pauses || state.running >= MOST || state.running > 0 && !hangs {
            return Ok(());
        }
        let inner = self.0.clone();
        threads::run("token", move || {
            let mut fetch = Fetch { inner, began: now, result: None };
            let Inner { source, cloud, .. } = &*fetch.inner;
            fetch.result = Some(source.fetch(*cloud, FETCH));
        })
        .map_err(|e| {
            let what = format!("the operating system refuses a thread for a token: {e}");
            Error::new(ErrorKind::Unavailable, what).not_sent()
        })?;
        state.running += 1;
        state.began = Some(now);
        Ok(())
    }
}

/// A fetch on its way; ends also when the caller's function panics.
struct Fetch {
    inner: Arc<Inner>,
    began: Moment,
    result: Option<Result<Fetched, NoToken>>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let panicked = || Err(NoToken::for_now("it panicked"));
        let result = self.result.take().unwrap_or_else(panicked);
        self.inner.learn(self.began, result);
    }
}

impl Inner {
    fn learn(&self, began: Moment, result: Result<Fetched, NoToken>) {
        let held = result.and_then(|fetched| Held::new(fetched, began, backoff::roll()));
        let now = self.clock.now();
        let mut state = self.lock();
        state.running -= 1;
        state.ended += 1;
        if state.began == Some(began) {
            state.began = None;
        }
        let (level, line) = match held {
            Ok(held) => {
                let lives = Seconds(held.end.saturating_since(now));
                state.failed = None;
                state.backoff.reset();
                // One that was fetched before, and hung, is no better than what is there.
                if state.token.as_ref().is_none_or(|old| old.fetched <= held.fetched) {
                    state.token = Some(held);
                }
                (log::Level::Debug, format!("a token from {}, good for {lives}", self.source.name()))
            }
            Err(why) => {
                let good = state.token.as_ref().is_some_and(|held| now < held.end);
                let (from, to) = if good { WITH } else { WITHOUT };
                let pause = state.backoff.next(&(from..=to), backoff::roll());
                let pause = pause.max(why.retry_after.unwrap_or_default().min(LONGEST_PAUSE));
                let what = format!("no token from {}: {}", self.source.name(), why.why);
                let line =
                    if good { format!("{what}; the one that is there is used on") } else { what.clone() };
                let mut error = Error::new(why.kind, what).not_sent();
                if why.kind == ErrorKind::Unavailable {
                    error = error.with_retry_after(pause);
                }
                state.failed = Some((error, now + pause));
                // Without a token the caller is told himself.
                (if good { log::Level::Warn } else { log::Level::Debug }, line)
            }
        };
        drop(state);
        self.told.notify_all();
        log::log!(target: "leasehold", level, "{line}");
    }

    /// Until something was learned.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, call: &Call) -> Result<MutexGuard<'a, State>> {
        let left = call.remaining();
        if left.is_zero() {
            let what = format!("no token from {} in time", self.source.name());
            return Err(Error::new(ErrorKind::Unavailable, what).not_sent());
        }
        let left = self.clock.real(left);
        Ok(self.told.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(fetched: Fetched, asked: Moment, roll: f64) -> Result<Self, NoToken> {
        let Fetched { text, life } = fetched;
        // RFC 6750, section 2.1.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if text.is_empty() || !text.bytes().all(plain) {
            return Err(NoToken::new(
                ErrorKind::Config,
                "what it gave is no access token: it takes letters, digits and `-._~+/=`, and no `Bearer`",
            ));
        }
        if life.is_zero() {
            return Err(NoToken::for_now(
                "the token that it gave has ended already: is this machine's clock right?",
            ));
        }
        // Spread, so that processes that started together do not ask together.
        let ahead = AHEAD.min(life / 3).mul_f64(1.0 + 0.1 * roll);
        Ok(Self {
            header: format!("Bearer {text}").into(),
            fetched: asked,
            renew: asked + life.saturating_sub(ahead),
            end: asked + life.saturating_sub(ON_THE_WAY.min(life / 10)),
        })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
