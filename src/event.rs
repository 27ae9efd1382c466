//! What happened to a lock: told to the user's function, and to `log`.

use std::{fmt, time::Duration};

use crate::{Error, Holder, error::Seconds};

/// What happened; [`Display`](fmt::Display) is one line for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Somebody waits for the lock. Comes after 0.5 s, then every 10 s.
    #[non_exhaustive]
    Waiting {
        /// The lock.
        name: &'a str,
        /// For how long now.
        waited: Duration,
        /// Who holds it, as far as the store tells.
        holder: Option<&'a Holder>,
        /// Why it is not to be had, where nobody holds it.
        reason: Option<&'a str>,
        /// What the store said last, when it does not answer as it should.
        error: Option<&'a Error>,
    },
    /// The lock is held.
    #[non_exhaustive]
    Acquired {
        /// The lock.
        name: &'a str,
        /// How long that took.
        waited: Duration,
    },
    /// The store confirmed a renewal.
    #[non_exhaustive]
    Renewed {
        /// The lock.
        name: &'a str,
        /// How long it is held from now without another.
        valid_for: Duration,
    },
    /// A renewal failed; it is tried again while the lock is valid.
    #[non_exhaustive]
    RenewalFailed {
        /// The lock.
        name: &'a str,
        /// How long it is still held.
        valid_for: Duration,
        /// Why.
        error: &'a Error,
    },
    /// The lock is held no more, though nobody released it.
    #[non_exhaustive]
    Lost {
        /// The lock.
        name: &'a str,
        /// Why: an error of kind `Lost`.
        error: &'a Error,
    },
    /// The lock was let go.
    #[non_exhaustive]
    Released {
        /// The lock.
        name: &'a str,
        /// Whether the store confirmed it.
        how: Unlocked,
    },
    /// The lock is held on, without a guard: its [`Ticket`](crate::Ticket) was made.
    #[non_exhaustive]
    Detached {
        /// The lock.
        name: &'a str,
        /// When it frees itself unless somebody adopts it; `None`: never.
        ttl: Option<Duration>,
    },
}

/// How a release went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unlocked {
    /// The store confirmed it: the lock is free.
    Confirmed,
    /// No answer within the budget, so the TTL frees the lock.
    Expiring,
}

/// What a loss does without any code of the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLost {
    /// It is told: by `check`, `check_for`, `watch`, the event, `unlock`.
    #[default]
    Report,
    /// The process ends at once by [`std::process::abort`], after one line on stderr.
    Abort,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { name, waited, holder, reason, error } => {
                write!(f, "waiting for lock {name:?}")?;
                if let Some(holder) = holder {
                    write!(f, ", held by {holder}")?;
                }
                if let Some(reason) = reason {
                    write!(f, ", {reason}")?;
                }
                write!(f, ", for {} now", Seconds(*waited))?;
                match error {
                    Some(error) => write!(f, " ({error})"),
                    None => Ok(()),
                }
            }
            Self::Acquired { name, waited } => {
                write!(f, "acquired lock {name:?} after {}", Seconds(*waited))
            }
            Self::Renewed { name, valid_for } => {
                write!(f, "renewed lock {name:?}, valid for {}", Seconds(*valid_for))
            }
            Self::RenewalFailed { name, valid_for, error } => write!(
                f,
                "lock {name:?} could not be renewed, still valid for {}: {error}",
                Seconds(*valid_for)
            ),
            Self::Lost { error, .. } => write!(f, "{error}"),
            Self::Released { name, how: Unlocked::Confirmed } => write!(f, "released lock {name:?}"),
            Self::Released { name, .. } => {
                write!(f, "released lock {name:?} without an answer: its TTL frees it")
            }
            Self::Detached { name, ttl: Some(ttl) } => {
                write!(f, "detached lock {name:?}: free in {} unless it is adopted", Seconds(*ttl))
            }
            Self::Detached { name, ttl: None } => {
                write!(f, "detached lock {name:?}: held until it is adopted or broken")
            }
        }
    }
}

impl Event<'_> {
    /// As on the README's table of what is logged.
    pub(crate) fn level(&self) -> log::Level {
        match self {
            Self::Waiting { .. } => log::Level::Info,
            Self::Acquired { .. }
            | Self::Renewed { .. }
            | Self::Released { how: Unlocked::Confirmed, .. }
            | Self::Detached { .. } => log::Level::Debug,
            Self::RenewalFailed { .. } | Self::Released { .. } => log::Level::Warn,
            Self::Lost { .. } => log::Level::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, LostReason};

    #[test]
    fn one_line_each() {
        let ms = Duration::from_millis;
        let holder = Holder::new("cron");
        let error = Error::lost(LostReason::Broken).for_lock("a");
        let name = "a";
        let lines = [
            Event::Waiting { name, waited: ms(500), holder: Some(&holder), reason: None, error: None }
                .to_string(),
            Event::Acquired { name, waited: ms(2500) }.to_string(),
            Event::Renewed { name, valid_for: ms(29_000) }.to_string(),
            Event::Lost { name, error: &error }.to_string(),
            Event::Released { name, how: Unlocked::Expiring }.to_string(),
            Event::Detached { name, ttl: Some(ms(30_000)) }.to_string(),
            Event::Detached { name, ttl: None }.to_string(),
        ];
        assert_eq!(
            lines,
            [
                r#"waiting for lock "a", held by "cron", for 500 ms now"#,
                r#"acquired lock "a" after 2.5 s"#,
                r#"renewed lock "a", valid for 29 s"#,
                r#"lock "a": lost: it was broken by an operator"#,
                r#"released lock "a" without an answer: its TTL frees it"#,
                r#"detached lock "a": free in 30 s unless it is adopted"#,
                r#"detached lock "a": held until it is adopted or broken"#,
            ]
        );
        let error = Error::new(ErrorKind::Unavailable, "reset").for_lock("a");
        let failed = Event::RenewalFailed { name, valid_for: ms(900), error: &error };
        assert_eq!(failed.level(), log::Level::Warn);
        assert!(failed.to_string().ends_with("900 ms: lock \"a\": the store is not available: reset"));
    }
}
