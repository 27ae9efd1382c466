//! One blob and its lease: the calls of "Lease Blob", one request each.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    answer::{Missing, Operation, Outcome},
    metadata::Metadata,
    service::{Question, Reply, Service},
};
use crate::{Error, ErrorKind, Result, backend::Call, clock::Clock};

/// A lease that never runs out, to the service.
pub(super) const INFINITE: &str = "-1";
const SHORTEST: Duration = Duration::from_secs(15);
/// The longest lease that does run out.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// What came of [`Blob::acquire`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Acquired {
    /// The lease is ours. Its time began at some moment after the call did.
    Granted,
    /// Another lease is active.
    Busy,
    /// A lease is being broken; there is no other before its time is up.
    Breaking,
    /// There is no such blob: [`Blob::create`] makes it.
    NoBlob,
    /// There is no such container; the error says so, for who cannot make one.
    NoContainer(Error),
}

/// The lease of one blob, by hand: one request for each call, nothing renewed and nothing retried.
///
/// For who keeps a lease on a blob of their own, or builds something else than a lock. Leases are known by an id, a
/// UUID in its usual form (`5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01`). [`Locker`](crate::Locker) makes the same calls.
///
/// A lease runs from the moment at which the service carried out the acquire or the last renewal: count on it from
/// *before* the call, and on a clock that nobody sets.
///
/// # Blocking
/// Each call, for its [`timeout`](Self::timeout) at most.
///
/// # Errors
/// All calls: `Unavailable` when there was no answer in time or the service cannot just now (it may have been done all
/// the same), `Denied`, `Config`, and `Lost` where another lease is there, or none, than the one with this id.
///
/// ```no_run
/// use leasehold::azure::{Account, Acquired};
/// use std::time::Duration;
///
/// let blob = Account::from_env()?.container("data").build()?.blob("report.csv")?;
/// let id = "5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01"; // a fresh one for each lease
/// if let Acquired::Granted = blob.acquire(id, Some(Duration::from_secs(30)))? {
///     blob.renew(id)?;
///     blob.release(id)?;
/// }
/// # Ok::<(), leasehold::Error>(())
/// ```
#[derive(Clone)]
pub struct Blob {
    service: Arc<Service>,
    name: String,
    timeout: Duration,
}

impl Blob {
    pub(super) fn new(service: Arc<Service>, name: String) -> Self {
        Self { service, name, timeout: Duration::from_secs(10) }
    }

    /// The name of the blob in its container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long a call takes at most. Default: 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks for the lease under this id, for 15 to 60 s, or without end (`None`). Of whole seconds: a fraction counts
    /// as one more.
    ///
    /// Asked again with the same id, an active lease starts anew.
    ///
    /// # Errors
    /// See [`Blob`]; `Config` for an id that is no UUID and for another duration.
    pub fn acquire(&self, id: &str, duration: Option<Duration>) -> Result<Acquired> {
        check(id)?;
        let duration = match duration {
            None => INFINITE.to_owned(),
            Some(duration) if (SHORTEST..=LONGEST).contains(&duration) => whole_seconds(duration),
            Some(other) => {
                let what = format!("a lease of {other:?}: the service takes 15 to 60 s, or `None`");
                return Err(Error::new(ErrorKind::Config, what));
            }
        };
        self.call(|calls| calls.acquire(id, &duration))
    }

    /// Starts the time of the lease anew. Also after its end, while nobody else had one and nothing was written.
    ///
    /// # Errors
    /// See [`Blob`].
    pub fn renew(&self, id: &str) -> Result<()> {
        check(id)?;
        self.call(|calls| calls.renew(id))
    }

    /// Gives the lease another id, and does not start it anew: to hand it on to who knows only the new one.
    ///
    /// # Errors
    /// See [`Blob`].
    pub fn change(&self, id: &str, new_id: &str) -> Result<()> {
        check(id)?;
        check(new_id)?;
        self.call(|calls| calls.change(id, new_id))
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// See [`Blob`]. Repeated after an answer that was lost, it is `Lost` although it was done.
    pub fn release(&self, id: &str) -> Result<()> {
        check(id)?;
        self.call(|calls| calls.release(id))
    }

    /// Ends whatever lease is there: after so long at most, of whole seconds and 60 s at most, or (`None`) when its
    /// time is up, and a lease without end at once. Says when another can be had; `None`: there was none.
    ///
    /// # Errors
    /// See [`Blob`]. Not to be repeated blindly: the lease may be another one by then.
    pub fn break_lease(&self, period: Option<Duration>) -> Result<Option<Duration>> {
        let period = period.map(|period| whole_seconds(period.min(LONGEST)));
        self.call(|calls| calls.break_lease(period.as_deref()))
    }

    /// Makes the blob, empty, unless it is there: never over another. `false`: it was.
    ///
    /// # Errors
    /// See [`Blob`]; `Config` when there is no such container.
    pub fn create(&self) -> Result<bool> {
        self.call(|calls| match calls.create(&Metadata::default())? {
            Created::Made => Ok(true),
            Created::Exists => Ok(false),
            Created::NoContainer(error) => Err(error),
        })
    }

    fn call<T>(&self, f: impl FnOnce(&Calls<'_>) -> Result<T>) -> Result<T> {
        let call = Call::lasting(&Clock::system(), self.timeout);
        f(&Calls { service: &self.service, blob: &self.name, call: &call })
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("azure::Blob")
            .field("container", &self.service.container)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The service takes more forms, and compares ids by the letter in some places.
fn check(id: &str) -> Result<()> {
    let form = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    if id.len() == 36 && id.bytes().enumerate().all(form) {
        return Ok(());
    }
    let what = format!("{id:?} is no id for a lease: it takes a UUID, such as {}", crate::id::uuid());
    Err(Error::new(ErrorKind::Config, what))
}

/// No fewer seconds than are counted on.
pub(super) fn whole_seconds(time: Duration) -> String {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).to_string()
}

/// What came of making a blob.
pub(super) enum Created {
    Made,
    Exists,
    NoContainer(Error),
}

/// The calls on one blob within one budget.
#[derive(Clone, Copy)]
pub(super) struct Calls<'a> {
    pub(super) service: &'a Service,
    pub(super) blob: &'a str,
    pub(super) call: &'a Call,
}

impl Calls<'_> {
    pub(super) fn acquire(&self, id: &str, duration: &str) -> Result<Acquired> {
        let headers = [
            ("x-ms-lease-action", "acquire"),
            ("x-ms-lease-duration", duration),
            ("x-ms-proposed-lease-id", id),
        ];
        let reply = self.ask(Operation::Acquire, &headers)?;
        Ok(match reply.outcome {
            Outcome::Done if reply.is_of(id) => Acquired::Granted,
            Outcome::Busy => Acquired::Busy,
            Outcome::Breaking => Acquired::Breaking,
            Outcome::Missing(Missing::Blob) => Acquired::NoBlob,
            Outcome::Missing(Missing::Container) => Acquired::NoContainer(self.error(&reply)),
            _ => return Err(self.error(&reply)),
        })
    }

    pub(super) fn renew(&self, id: &str) -> Result<()> {
        let headers = [("x-ms-lease-action", "renew"), ("x-ms-lease-id", id)];
        let reply = self.ask(Operation::Renew, &headers)?;
        // Azurite renews, by any id, the expired lease of another, and says in the answer whose.
        self.done(&reply, reply.is_of(id))
    }

    pub(super) fn change(&self, id: &str, new_id: &str) -> Result<()> {
        let headers =
            [("x-ms-lease-action", "change"), ("x-ms-lease-id", id), ("x-ms-proposed-lease-id", new_id)];
        let reply = self.ask(Operation::Change, &headers)?;
        self.done(&reply, reply.is_of(new_id))
    }

    pub(super) fn release(&self, id: &str) -> Result<()> {
        let headers = [("x-ms-lease-action", "release"), ("x-ms-lease-id", id)];
        let reply = self.ask(Operation::Release, &headers)?;
        self.done(&reply, true)
    }

    /// `None` when there is no lease, or nothing that could have one.
    pub(super) fn break_lease(&self, period: Option<&str>) -> Result<Option<Duration>> {
        let mut headers = vec![("x-ms-lease-action", "break")];
        headers.extend(period.map(|period| ("x-ms-lease-break-period", period)));
        let reply = self.ask(Operation::Break, &headers)?;
        match reply.outcome {
            Outcome::Done => {
                let seconds = reply.answer.header("x-ms-lease-time").and_then(|s| s.parse().ok());
                Ok(Some(seconds.map_or(LONGEST, Duration::from_secs)))
            }
            Outcome::Free | Outcome::Missing(_) => Ok(None),
            _ => Err(self.error(&reply)),
        }
    }

    /// Makes it, with this metadata, and never over another.
    pub(super) fn create(&self, metadata: &Metadata) -> Result<Created> {
        let written = metadata.headers();
        let mut headers = vec![("x-ms-blob-type", "BlockBlob"), ("If-None-Match", "*")];
        headers.extend(written.iter().map(|(name, value)| (&**name, &**value)));
        let reply = self.ask(Operation::CreateBlob, &headers)?;
        Ok(match reply.outcome {
            Outcome::Done => Created::Made,
            Outcome::Exists => Created::Exists,
            Outcome::Missing(Missing::Container) => Created::NoContainer(self.error(&reply)),
            _ => return Err(self.error(&reply)),
        })
    }

    /// What is known of the blob; the outcome is `Done` or `Missing`.
    pub(super) fn properties(&self) -> Result<Box<Reply>> {
        let reply = self.ask(Operation::Properties, &[])?;
        match reply.outcome {
            Outcome::Done | Outcome::Missing(_) => Ok(reply),
            _ => Err(self.error(&reply)),
        }
    }

    /// Writes the metadata, under a condition (a header): `false`, when `If-Match` finds another version.
    pub(super) fn write_metadata(&self, metadata: &Metadata, condition: (&str, &str)) -> Result<bool> {
        let written = metadata.headers();
        let mut headers = vec![condition];
        headers.extend(written.iter().map(|(name, value)| (&**name, &**value)));
        let reply = self.ask(Operation::WriteMetadata, &headers)?;
        match reply.outcome {
            Outcome::Done => Ok(true),
            Outcome::Changed | Outcome::Missing(_) => Ok(false),
            _ => Err(self.error(&reply)),
        }
    }

    /// Deletes the blob, if it has the lease with this id, or has none: `false` when it is leased otherwise.
    pub(super) fn delete(&self, id: Option<&str>) -> Result<bool> {
        // Of a blob that somebody's backup has snapshots of, too.
        let mut headers = vec![("x-ms-delete-snapshots", "include")];
        headers.extend(id.map(|id| ("x-ms-lease-id", id)));
        let reply = self.ask(Operation::Delete, &headers)?;
        match reply.outcome {
            Outcome::Done | Outcome::Missing(_) => Ok(true),
            Outcome::Busy => Ok(false),
            _ => Err(self.error(&reply)),
        }
    }

    pub(super) fn ask(&self, operation: Operation, headers: &[(&str, &str)]) -> Result<Box<Reply>> {
        self.service.ask(&Question { operation, blob: Some(self.blob), query: "", headers }, self.call)
    }

    pub(super) fn error(&self, reply: &Reply) -> Error {
        reply.error(&self.service.container)
    }

    fn done(&self, reply: &Reply, is_ours: bool) -> Result<()> {
        match reply.outcome {
            Outcome::Done if is_ours => Ok(()),
            _ => Err(self.error(reply)),
        }
    }
}
