//! What a store's sessions are to be.

use std::time::Duration;

use super::agent::Spec;
use crate::{Error, ErrorKind, Mode, Result, error::Seconds};

/// The service takes no longer one.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What sessions are to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// `None`: as long as the TTL, as far as the service takes it.
    pub(super) lock_delay: Option<Duration>,
    pub(super) deletes: bool,
    pub(super) node_checks: Vec<String>,
    pub(super) service_checks: Vec<String>,
}

impl Terms {
    /// That of a lock of this TTL; `words` are its holder's.
    ///
    /// # Errors
    /// `Config`, when health checks could take the lock from a holder that does not know it yet.
    pub(super) fn spec(&self, words: &str, ttl: Duration, mode: Mode) -> Result<Spec> {
        let lock_delay = self.lock_delay.unwrap_or(ttl.min(LONGEST_DELAY));
        let has_checks = !(self.node_checks.is_empty() && self.service_checks.is_empty());
        if has_checks && lock_delay < ttl {
            let what = format!(
                "a lock-delay of {} with health checks and a TTL of {}: a check that fails takes the lock at once, \
                 and only the lock-delay ({} at most) keeps others out meanwhile. Make the TTL as short, or do \
                 without checks",
                Seconds(lock_delay),
                Seconds(ttl),
                Seconds(LONGEST_DELAY)
            );
            return Err(Error::new(ErrorKind::Config, what).not_sent());
        }
        Ok(Spec {
            name: words.to_owned(),
            ttl,
            lock_delay,
            // A reader's entry that went with its session would be missed by a writer, lock-delay or not.
            deletes: self.deletes && mode == Mode::Exclusive,
            node_checks: self.node_checks.clone(),
            service_checks: self.service_checks.clone(),
        })
    }
}
