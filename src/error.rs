//! The one error type: a word wide, cheap to clone, with what a person needs to act on it.

use std::{error, fmt, io, panic, sync::Arc, time::Duration};

use crate::Holder;

/// Shorthand with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
///
/// One word wide and [`Clone`], since one loss is told to many. [`Display`](fmt::Display) is one line
/// that names the lock, what was being done and the cause; [`Debug`](fmt::Debug) is the same line, so that
/// `fn main() -> Result` prints well. No secret is ever in it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    lost: Option<LostReason>,
    lock: Option<Arc<str>>,
    operation: Option<&'static str>,
    waited: Option<Duration>,
    holder: Option<Holder>,
    code: Option<String>,
    request_id: Option<String>,
    not_sent: bool,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn error::Error + Send + Sync>>,
}

/// The kinds of [`Error`]: what a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The lock was not to be had in the time that was given.
    Timeout,
    /// The shutdown signal came.
    Shutdown,
    /// The lock was held, and is not any more; [`Error::lost_reason`] says why.
    Lost,
    /// The guard is gone: its lock was released.
    Released,
    /// The store refuses us, and goes on to until somebody acts: missing rights, a full disk.
    Denied,
    /// Something that was set is wrong: an address, a TTL, a missing feature.
    Config,
    /// The store has no lock of such a name.
    Name,
    /// The store cannot do this.
    Unsupported,
    /// The store did not answer, or could not just then.
    Unavailable,
    /// What lies in the store under this name is not a lock of this library; it was left as it is.
    Foreign,
    /// The store answered what it never should.
    Protocol,
}

/// Why a lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The TTL ran out before a renewal was confirmed.
    Expired,
    /// An operator broke it.
    Broken,
    /// What carries the lock (file, blob, key) was deleted or replaced.
    Deleted,
    /// Another holder has it.
    Taken,
    /// The thread that kept it alive died.
    Failed,
}

impl Error {
    /// An error of a store, with its cause: an error or a text.
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) is tried again, [`Lost`](ErrorKind::Lost) is final. Unless
    /// [`not_sent`](Self::not_sent) is said, a failed request counts as perhaps done.
    #[cold]
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn error::Error + Send + Sync>>) -> Self {
        let mut error = Self::bare(kind);
        error.edit().source = Some(Arc::from(source.into()));
        error
    }

    /// The store's word that the lock is not ours any more. Final.
    #[cold]
    pub fn lost(reason: LostReason) -> Self {
        let mut error = Self::bare(ErrorKind::Lost);
        error.edit().lost = Some(reason);
        error
    }

    /// Says that the request surely never reached the store, so that there is nothing to undo.
    pub fn not_sent(mut self) -> Self {
        self.edit().not_sent = true;
        self
    }

    /// Adds how long the store asks to be left alone.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.edit().retry_after = Some(wait);
        self
    }

    /// Adds the store's own error code and the id that it gave the request.
    pub fn with_code(mut self, code: &str, request_id: Option<&str>) -> Self {
        let inner = self.edit();
        inner.code = Some(code.to_owned());
        inner.request_id = request_id.map(str::to_owned);
        self
    }

    /// What a program decides by.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may go through later with nothing changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout | ErrorKind::Unavailable)
    }

    /// The store's own error code, such as `LeaseAlreadyPresent`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The id that the store gave the failed request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// The lock that this is about.
    pub fn lock_name(&self) -> Option<&str> {
        self.0.lock.as_deref()
    }

    /// Who held the lock when the wait for it ended, as far as the store tells.
    pub fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_ref()
    }

    /// Why the lock was lost, for [`ErrorKind::Lost`].
    pub fn lost_reason(&self) -> Option<LostReason> {
        self.0.lost
    }

    pub(crate) fn bare(kind: ErrorKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            lost: None,
            lock: None,
            operation: None,
            waited: None,
            holder: None,
            code: None,
            request_id: None,
            not_sent: false,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn unsupported(what: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("this store cannot {what}"))
    }

    /// Whether the request that failed may have been carried out all the same.
    pub(crate) fn is_unclear(&self) -> bool {
        !self.0.not_sent
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub(crate) fn for_lock(mut self, name: &str) -> Self {
        if self.0.lock.is_none() {
            self.edit().lock = Some(name.into());
        }
        self
    }

    pub(crate) fn during(mut self, operation: &'static str) -> Self {
        if self.0.operation.is_none() {
            self.edit().operation = Some(operation);
        }
        self
    }

    pub(crate) fn after(mut self, waited: Duration, holder: Option<Holder>) -> Self {
        let inner = self.edit();
        inner.waited = Some(waited);
        inner.holder = holder;
        self
    }

    /// The error behind this one: what the store said last before a wait ended.
    pub(crate) fn caused_by(mut self, cause: Option<Error>) -> Self {
        if let Some(cause) = cause {
            self.edit().source = Some(Arc::new(cause));
        }
        self
    }

    /// Says more of what is behind it, unless the store did.
    pub(crate) fn because(mut self, why: &str) -> Self {
        if self.0.source.is_none() {
            self.edit().source = Some(Arc::from(Box::<dyn error::Error + Send + Sync>::from(why)));
        }
        self
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }
}

impl Inner {
    fn what(&self) -> &'static str {
        match (self.kind, self.lost) {
            (ErrorKind::Timeout, _) => "not to be had in time",
            (ErrorKind::Shutdown, _) => "the shutdown signal came",
            (ErrorKind::Lost, Some(LostReason::Broken)) => "lost: it was broken by an operator",
            (ErrorKind::Lost, Some(LostReason::Deleted)) => {
                "lost: what carries the lock was deleted or replaced"
            }
            (ErrorKind::Lost, Some(LostReason::Taken)) => "lost: another holder has it",
            (ErrorKind::Lost, Some(LostReason::Failed)) => "lost: the thread that kept it alive died",
            (ErrorKind::Lost, _) => "lost: it ran out before a renewal was confirmed",
            (ErrorKind::Released, _) => "released: the guard is gone",
            (ErrorKind::Denied, _) => "the store refuses",
            (ErrorKind::Config, _) => "wrong setting",
            (ErrorKind::Name, _) => "not a usable lock name",
            (ErrorKind::Unsupported, _) => "not supported",
            (ErrorKind::Unavailable, _) => "the store is not available",
            (ErrorKind::Foreign, _) => "not a lock of this library",
            (ErrorKind::Protocol, _) => "the store broke its contract",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(name) = &inner.lock {
            write!(f, "lock {name:?}: ")?;
        }
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(inner.what())?;
        if let Some(waited) = inner.waited {
            write!(f, ", waited {}", Seconds(waited))?;
        }
        if let Some(holder) = &inner.holder {
            write!(f, ", held by {holder}")?;
        }
        match (&inner.code, &inner.request_id) {
            (Some(code), Some(id)) => write!(f, " ({code}, request {id})")?,
            (Some(code), None) => write!(f, " ({code})")?,
            _ => {}
        }
        match &inner.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<Error> for io::Error {
    /// The nearest [`io::ErrorKind`], with the error itself inside.
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Shutdown => io::ErrorKind::Interrupted,
            ErrorKind::Denied => io::ErrorKind::PermissionDenied,
            ErrorKind::Config | ErrorKind::Name => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Foreign | ErrorKind::Protocol => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl panic::UnwindSafe for Error {}
impl panic::RefUnwindSafe for Error {}

/// A duration for people: `850 ms`, `2.5 s`, `90 s`.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 1.0 {
            write!(f, "{} ms", self.0.as_millis())
        } else if seconds < 10.0 && self.0.subsec_millis() >= 50 {
            write!(f, "{seconds:.1} s")
        } else {
            write!(f, "{seconds:.0} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_wide_and_a_real_error() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let e = Error::new(ErrorKind::Unavailable, io::Error::other("cable cut"))
            .for_lock("db\n")
            .during("renew")
            .with_code("E7", Some("r1"));
        assert_eq!(
            e.to_string(),
            "lock \"db\\n\": renew: the store is not available (E7, request r1): cable cut"
        );
        assert_eq!(format!("{e:?}"), e.to_string());
        let source = error::Error::source(&e).expect("has a source");
        assert!(source.downcast_ref::<io::Error>().is_some());
        assert!(e.is_retryable() && e.is_unclear() && !e.clone().not_sent().is_unclear());
    }

    #[test]
    fn becomes_an_io_error_that_still_holds_it() {
        let e = io::Error::from(Error::lost(LostReason::Broken));
        let inner = e.get_ref().and_then(|e| e.downcast_ref::<Error>());
        assert_eq!(inner.and_then(Error::lost_reason), Some(LostReason::Broken));
    }

    #[test]
    fn durations_for_people() {
        let show = |ms| Seconds(Duration::from_millis(ms)).to_string();
        assert_eq!(
            [show(0), show(850), show(2000), show(2540), show(90_000)],
            ["0 ms", "850 ms", "2 s", "2.5 s", "90 s"]
        );
    }
}
