//! The store: blobs with leases.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    answer::{Missing, Operation, Outcome},
    name::Names,
    service::{Question, Reply, Service},
};
use crate::{
    Break, Error, ErrorKind, Mode, Result, Status,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
};

/// A lease that never runs out, to the service.
const INFINITE: &str = "-1";
/// The longest that does.
const LONGEST: Duration = Duration::from_secs(60);
/// An infinite lease that is broken without a period ends at once; its holder asks after it every 10 s.
const NOTICE: &str = "60";

/// The blobs of one container, or those under a prefix in it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    service: Service,
    names: Names,
    create_container: bool,
}

impl Store {
    pub(super) fn new(service: Service, names: Names, create_container: bool) -> Self {
        Self(Arc::new(Inner { service, names, create_container }))
    }
}

impl Inner {
    /// A lease operation: `x-ms-lease-action` and what belongs to it.
    fn lease(
        &self,
        operation: Operation,
        blob: &str,
        headers: &[(&str, &str)],
        call: &Call,
    ) -> Result<Reply> {
        let action = match operation {
            Operation::Acquire => "acquire",
            Operation::Renew => "renew",
            Operation::Release => "release",
            _ => "break",
        };
        let mut all = vec![("x-ms-lease-action", action)];
        all.extend_from_slice(headers);
        self.service.ask(&Question { operation, blob: Some(blob), headers: &all }, call)
    }

    fn acquire(&self, blob: &str, id: &str, duration: &str, call: &Call) -> Result<Reply> {
        let headers = [("x-ms-lease-duration", duration), ("x-ms-proposed-lease-id", id)];
        self.lease(Operation::Acquire, blob, &headers, call)
    }

    /// Makes what an acquire did not find. Never over what is there.
    fn create(&self, missing: Missing, blob: &str, call: &Call) -> Result<()> {
        let (operation, of, headers): (_, _, &[(&str, &str)]) = match missing {
            Missing::Blob => {
                let headers = &[("x-ms-blob-type", "BlockBlob"), ("If-None-Match", "*")];
                (Operation::CreateBlob, Some(blob), headers)
            }
            Missing::Container => (Operation::CreateContainer, None, &[]),
        };
        let reply = self.service.ask(&Question { operation, blob: of, headers }, call)?;
        match reply.outcome {
            Outcome::Done | Outcome::Exists => Ok(()),
            Outcome::Missing(Missing::Container) if missing == Missing::Blob && self.create_container => {
                self.create(Missing::Container, blob, call)
            }
            _ => Err(self.error(&reply)),
        }
    }

    fn error(&self, reply: &Reply) -> Error {
        reply.error(&self.service.container)
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
        // Whole seconds, and no fewer than are counted on.
        let seconds = ask.ttl().unwrap_or(LONGEST);
        let seconds = (seconds.as_secs() + u64::from(seconds.subsec_nanos() > 0)).to_string();
        // A container and a blob are made, and perhaps deleted again by others.
        for _ in 0..6 {
            let mut since = call.now();
            let reply = inner.acquire(&blob, id, &seconds, call)?;
            match reply.outcome {
                Outcome::Done if reply.is_of(id) => {}
                Outcome::Busy | Outcome::Breaking => return Ok(Attempt::Busy(Busy::default())),
                Outcome::Missing(Missing::Container) if !inner.create_container => {
                    return Err(inner.error(&reply));
                }
                Outcome::Missing(missing) => {
                    inner.create(missing, &blob, call)?;
                    continue;
                }
                _ => return Err(inner.error(&reply)),
            }
            if ask.ttl().is_none() {
                // Not at once: a late copy of such a request, after the release, would hold the lock for ever.
                since = call.now();
                let reply = inner.acquire(&blob, id, INFINITE, call)?;
                match reply.outcome {
                    Outcome::Done if reply.is_of(id) => {}
                    // Broken or deleted between the two requests.
                    Outcome::Busy | Outcome::Breaking => return Ok(Attempt::Busy(Busy::default())),
                    Outcome::Missing(_) => continue,
                    _ => return Err(inner.error(&reply)),
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
        let question = Question { operation: Operation::Properties, blob: Some(&blob), headers: &[] };
        let reply = inner.service.ask(&question, call)?;
        match reply.outcome {
            Outcome::Missing(_) => Ok(Status::new(name, None, true, Vec::new())),
            Outcome::Done => {
                let header = |name| reply.answer.header(name).unwrap_or_default();
                let held = matches!(header("x-ms-lease-state"), "leased" | "breaking");
                let expires = header("x-ms-lease-duration") != "infinite";
                Ok(Status::new(name, held.then_some(Mode::Exclusive), expires, Vec::new()))
            }
            _ => Err(inner.error(&reply)),
        }
    }

    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let inner = &*self.0;
        let blob = inner.names.blob(name)?;
        let period: &[(&str, &str)] = match how {
            Break::Now => &[("x-ms-lease-break-period", "0")],
            Break::AfterNotice if self.status(name, call)?.expires() => &[],
            Break::AfterNotice => &[("x-ms-lease-break-period", NOTICE)],
        };
        let reply = inner.lease(Operation::Break, &blob, period, call)?;
        match reply.outcome {
            Outcome::Done => {
                let seconds = reply.answer.header("x-ms-lease-time").and_then(|s| s.parse().ok());
                // In whole seconds, so that one more may be left.
                let more = u64::from(how == Break::AfterNotice);
                Ok(Some(Duration::from_secs(seconds.unwrap_or(60) + more)))
            }
            Outcome::Free | Outcome::Missing(_) => Ok(None),
            _ => Err(inner.error(&reply)),
        }
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
        let reply = self.store.lease(Operation::Renew, &self.blob, &[("x-ms-lease-id", &self.id)], call)?;
        match reply.outcome {
            Outcome::Done if reply.is_of(&self.id) => Ok(since),
            _ => Err(self.store.error(&reply)),
        }
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        let reply = self.store.lease(Operation::Release, &self.blob, &[("x-ms-lease-id", &self.id)], call)?;
        match reply.outcome {
            Outcome::Done => Ok(()),
            _ => Err(self.store.error(&reply)),
        }
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
