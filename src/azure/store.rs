//! The store: blobs with leases.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    answer::{Operation, Outcome},
    blob::{Acquired, Blob, Calls, Created, INFINITE, LONGEST, whole_seconds},
    name::{BlobNames, check_blob},
    service::{Question, Service},
};
use crate::{
    Break, Error, ErrorKind, Mode, Result, Status,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
};

/// An infinite lease that is broken without a period ends at once; its holder asks after it every 10 s.
const NOTICE: &str = "60";

/// The blobs of one container, or those under a prefix in it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    service: Arc<Service>,
    names: BlobNames,
    create_container: bool,
}

impl Store {
    pub(super) fn new(service: Service, names: BlobNames, create_container: bool) -> Self {
        Self(Arc::new(Inner { service: Arc::new(service), names, create_container }))
    }

    /// The lease of a blob of the container, by hand: by the blob's own name, whatever the prefix.
    ///
    /// # Errors
    /// `Name`, when no blob can have it: 1 to 1024 characters, none of them a control character.
    pub fn blob(&self, name: &str) -> Result<Blob> {
        check_blob(name)?;
        Ok(Blob::new(self.0.service.clone(), name.to_owned()))
    }

    /// The name of the blob that carries a lock.
    ///
    /// # Errors
    /// `Name`, when no lock can have this name.
    pub fn blob_name(&self, lock: &str) -> Result<String> {
        self.0.names.blob(lock)
    }
}

impl Inner {
    fn calls<'a>(&'a self, blob: &'a str, call: &'a Call) -> Calls<'a> {
        Calls { service: &self.service, blob, call }
    }

    /// Makes a blob that an acquire did not find, and the container if that may be made.
    fn create(&self, blob: &Calls<'_>) -> Result<()> {
        if let Created::NoContainer(error) = blob.create(&[])? {
            self.create_container(error, blob.call)?;
            if let Created::NoContainer(error) = blob.create(&[])? {
                return Err(error);
            }
        }
        Ok(())
    }

    fn create_container(&self, missing: Error, call: &Call) -> Result<()> {
        if !self.create_container {
            return Err(missing);
        }
        let question = Question { operation: Operation::CreateContainer, blob: None, headers: &[] };
        let reply = self.service.ask(&question, call)?;
        match reply.outcome {
            Outcome::Done | Outcome::Exists => Ok(()),
            _ => Err(reply.error(&self.service.container)),
        }
    }
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        Abilities::default().ttl(Some(Duration::from_secs(30))).ttls(Duration::from_secs(15)..=LONGEST)
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.0.names.check(name)
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let inner = &*self.0;
        let blob = inner.names.blob(ask.name())?;
        let (id, call) = (ask.id(), ask.call());
        let calls = inner.calls(&blob, call);
        let seconds = whole_seconds(ask.ttl().unwrap_or(LONGEST));
        // A container and a blob are made, and perhaps deleted again by others.
        for _ in 0..6 {
            let mut since = call.now();
            match calls.acquire(id, &seconds)? {
                Acquired::Granted => {}
                Acquired::Busy | Acquired::Breaking => return Ok(Attempt::Busy(Busy::default())),
                Acquired::NoBlob => {
                    inner.create(&calls)?;
                    continue;
                }
                Acquired::NoContainer(error) => {
                    inner.create_container(error, call)?;
                    continue;
                }
            }
            if ask.ttl().is_none() {
                // Not at once: a late copy of such a request, after the release, would hold the lock for ever.
                since = call.now();
                match calls.acquire(id, INFINITE)? {
                    Acquired::Granted => {}
                    // Broken or deleted between the two requests.
                    Acquired::Busy | Acquired::Breaking => return Ok(Attempt::Busy(Busy::default())),
                    Acquired::NoBlob | Acquired::NoContainer(_) => continue,
                }
            }
            let held = Held { store: self.0.clone(), blob, id: id.to_owned() };
            return Ok(Attempt::Granted(Grant::new(held, since).lease_id(id)));
        }
        Err(Error::new(ErrorKind::Unavailable, "the lock's blob is deleted again and again"))
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let (blob, id) = (self.0.names.blob(ask.name())?, ask.id().to_owned());
        match (Held { store: self.0.clone(), blob, id }).release(ask.call()) {
            // It never was ours, or is no more.
            Err(e) if e.kind() == ErrorKind::Lost => Ok(()),
            released => released,
        }
    }

    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        let inner = &*self.0;
        let blob = inner.names.blob(name)?;
        let calls = inner.calls(&blob, call);
        let reply = calls.ask(Operation::Properties, &[])?;
        match reply.outcome {
            Outcome::Missing(_) => Ok(Status::new(name, None, true, Vec::new())),
            Outcome::Done => {
                let header = |name| reply.answer.header(name).unwrap_or_default();
                let held = matches!(header("x-ms-lease-state"), "leased" | "breaking");
                let expires = header("x-ms-lease-duration") != "infinite";
                Ok(Status::new(name, held.then_some(Mode::Exclusive), expires, Vec::new()))
            }
            _ => Err(calls.error(&reply)),
        }
    }

    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let inner = &*self.0;
        let blob = inner.names.blob(name)?;
        let period = match how {
            Break::Now => Some("0"),
            Break::AfterNotice if self.status(name, call)?.expires() => None,
            Break::AfterNotice => Some(NOTICE),
        };
        // In whole seconds, so that one more may be left.
        let more = Duration::from_secs(u64::from(how == Break::AfterNotice));
        Ok(inner.calls(&blob, call).break_lease(period)?.map(|left| left + more))
    }
}

struct Held {
    store: Arc<Inner>,
    blob: String,
    id: String,
}

impl Lease for Held {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let since = call.now();
        self.store.calls(&self.blob, call).renew(&self.id)?;
        Ok(since)
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        self.store.calls(&self.blob, call).release(&self.id)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { service, names, .. } = &*self.0;
        f.debug_struct("azure::Store")
            .field("container", &service.container)
            .field("prefix", &names.prefix())
            .finish_non_exhaustive()
    }
}
