//! One lock to be asked for, with options.

use std::{fmt, panic, sync::Arc, time::Duration};

use crate::{ErrorKind, Guard, Mode, Result, acquire, settings::Order};

/// One lock to be asked for; owns all that it needs, can be kept and used again.
#[derive(Clone)]
#[must_use = "asks for nothing until `lock`, `try_lock` or `with_lock`"]
pub struct LockRequest(Arc<Order>);

impl LockRequest {
    pub(crate) fn new(order: Order) -> Self {
        Self(Arc::new(order))
    }

    fn edit(&mut self) -> &mut Order {
        Arc::make_mut(&mut self.0)
    }

    /// To be held together with other shared holders, never beside an exclusive one.
    pub fn shared(mut self) -> Self {
        self.edit().mode = Mode::Shared;
        self
    }

    /// `lock` fails with `Timeout` after this. Default `None`: never. Zero: one try.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.edit().timeout = timeout.into();
        self
    }

    /// As [`Locker::ttl`](crate::Locker::ttl), for this lock.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.edit().ttl = Some(ttl);
        self
    }

    /// The lock never runs out: a crash leaves it until somebody [breaks](crate::Locker::break_lock) it. A warning in
    /// the log says so each time.
    pub fn no_expiry(mut self) -> Self {
        self.edit().no_expiry = true;
        self
    }

    /// `false`: only [`Guard::renew`] renews. Default `true`.
    pub fn auto_renew(mut self, on: bool) -> Self {
        self.edit().auto_renew = on;
        self
    }

    /// The guard has a [fencing token](Guard::fencing_token), or the lock fails with `Unsupported`.
    pub fn fenced(mut self) -> Self {
        self.edit().fenced = true;
        self
    }

    /// Blocks until the lock is held. Not re-entrant: a second `lock` by its holder waits for itself.
    ///
    /// # Errors
    /// `Timeout`, with the holder; `Shutdown`; `Unavailable` when the store did not answer for
    /// [`patience`](crate::Locker::patience); `Denied`, `Config`, `Name`, `Unsupported`, `Foreign` at once.
    ///
    /// # Blocking
    /// Until one of those; a timeout and a shutdown are honoured within a second, whatever the store does.
    pub fn lock(&self) -> Result<Guard> {
        acquire::lock(&self.0)
    }

    /// Asks once: `None` if another holds the lock. The timeout does not matter.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), but for `Timeout`.
    ///
    /// # Blocking
    /// For a second at most, and then `Unavailable`.
    pub fn try_lock(&self) -> Result<Option<Guard>> {
        acquire::try_lock(&self.0)
    }

    /// Runs `f` under the lock, and gives what `f` returns (a `Result` too, as it is).
    ///
    /// A panic in `f` releases the lock on its way.
    ///
    /// # Errors
    /// As [`lock`](Self::lock); `Lost` when the lock was lost before `f` ended: what `f` did may have been done
    /// beside another holder.
    ///
    /// # Blocking
    /// As `lock`, `f`, and [`Guard::unlock`].
    pub fn with_lock<T>(&self, f: impl FnOnce(&Guard) -> T) -> Result<T> {
        let guard = self.lock()?;
        let value = f(&guard);
        match guard.check() {
            Err(e) if e.kind() == ErrorKind::Lost => return Err(e),
            _ => guard.unlock()?,
        };
        Ok(value)
    }
}

impl fmt::Debug for LockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockRequest")
            .field("name", &self.0.name)
            .field("mode", &self.0.mode)
            .field("timeout", &self.0.timeout)
            .field("ttl", &self.0.ttl)
            .finish_non_exhaustive()
    }
}

impl panic::UnwindSafe for LockRequest {}
impl panic::RefUnwindSafe for LockRequest {}
