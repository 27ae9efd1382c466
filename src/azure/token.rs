//! Bearer tokens, and where they come from.

use std::{fmt, io, time::Duration, time::SystemTime};

use super::connection::Cloud;
use crate::{Error, ErrorKind, clock::wall};

/// A bearer token of Microsoft Entra for Azure Storage, with the time when it ends.
///
/// Made for [`Account::with_token`](super::Account::with_token).
#[derive(Clone)]
pub struct Token {
    text: String,
    expires: SystemTime,
}

impl Token {
    /// `text` is the access token itself, without `Bearer` in front; `expires` is when it ends.
    ///
    /// A new one is asked for five minutes before that, or, of a short one, when a third of its life is left.
    pub fn new(text: impl Into<String>, expires: SystemTime) -> Self {
        Self { text: text.into(), expires }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Where tokens come from. It is asked by one thread at a time, unless an earlier call hangs.
pub(super) trait Source: Send + Sync + 'static {
    /// What it is called in errors and logs.
    fn name(&self) -> &'static str;

    /// Asks for a token, for no longer than the limit where that is in its hands.
    fn fetch(&self, cloud: Cloud, limit: Duration) -> Result<Fetched, NoToken>;
}

/// A token, and how long it lives from the moment on when it was asked for.
#[derive(Clone)]
pub(super) struct Fetched {
    pub(super) text: String,
    pub(super) life: Duration,
}

/// Why there is no token; `why` holds no secret.
#[derive(Clone, Debug)]
pub(super) struct NoToken {
    /// `Unavailable` when it may pass.
    pub(super) kind: ErrorKind,
    pub(super) why: String,
    pub(super) retry_after: Option<Duration>,
}

impl NoToken {
    pub(super) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None }
    }

    pub(super) fn for_now(why: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, why)
    }
}

impl From<Error> for NoToken {
    fn from(error: Error) -> Self {
        use std::error::Error as _;
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Self { kind: error.kind(), why, retry_after: error.retry_after() }
    }
}

/// How long it is until then.
pub(super) fn left_until(expires: SystemTime, now: SystemTime) -> Duration {
    expires.duration_since(now).unwrap_or_default()
}

/// A function of the caller's.
pub(super) struct Function<F>(pub(super) F);

impl<F: Fn() -> io::Result<Token> + Send + Sync + 'static> Source for Function<F> {
    fn name(&self) -> &'static str {
        "the token function"
    }

    fn fetch(&self, _: Cloud, _: Duration) -> Result<Fetched, NoToken> {
        let Token { text, expires } = (self.0)().map_err(|e| {
            let kind = match e.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                io::ErrorKind::InvalidInput => ErrorKind::Config,
                _ => ErrorKind::Unavailable,
            };
            NoToken::new(kind, e.to_string())
        })?;
        Ok(Fetched { text, life: left_until(expires, wall()) })
    }
}
