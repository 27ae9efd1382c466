//! The store: blobs with leases.

use std::{collections::HashMap, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    answer::{Operation, Outcome},
    blob::{Acquired, Blob, Calls, Created, INFINITE, LONGEST, whole_seconds},
    handover,
    listing::{self, Listed},
    metadata::Metadata,
    name::{BlobNames, check_blob},
    service::{Question, Service},
    shared::{self, Blobs, Waiting},
};
use crate::{
    Break, Error, ErrorKind, Holder, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Clock, Grant, Lease, Moment},
    percent,
};

/// An infinite lease that is broken without a period ends at once; its holder asks after it every 10 s.
const NOTICE: &str = "60";
/// How many blobs are listed in one answer.
const PAGE: usize = 1000;
/// The pauses of who waits at a gate, or for readers to leave.
const SOON: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);

/// The blobs of one container, or those under a prefix in it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(super) struct Inner {
    pub(super) service: Arc<Service>,
    pub(super) names: BlobNames,
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
    pub(super) fn calls<'a>(&'a self, blob: &'a str, call: &'a Call) -> Calls<'a> {
        Calls { service: &self.service, blob, call }
    }

    /// Makes a blob that an acquire did not find, and the container if that may be made.
    pub(super) fn create(&self, blob: &Calls<'_>) -> Result<()> {
        if let Created::NoContainer(error) = blob.create(&Metadata::default())? {
            self.create_container(error, blob.call)?;
            if let Created::NoContainer(error) = blob.create(&Metadata::default())? {
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn create_container(&self, missing: Error, call: &Call) -> Result<()> {
        if !self.create_container {
            return Err(missing);
        }
        let operation = Operation::CreateContainer;
        let reply = self.service.ask(&Question { operation, blob: None, query: "", headers: &[] }, call)?;
        match reply.outcome {
            Outcome::Done | Outcome::Exists => Ok(()),
            _ => Err(reply.error(&self.service.container)),
        }
    }

    /// The blobs whose names start like this.
    pub(super) fn list(&self, start: &str, call: &Call) -> Result<Vec<Listed>> {
        let mut blobs = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let mut query = format!("&include=metadata&maxresults={PAGE}&prefix=");
            percent::encode_onto(&mut query, start);
            if let Some(marker) = &marker {
                query.push_str("&marker=");
                percent::encode_onto(&mut query, marker);
            }
            let question = Question { operation: Operation::List, blob: None, query: &query, headers: &[] };
            let reply = self.service.ask(&question, call)?;
            match reply.outcome {
                Outcome::Done => {}
                Outcome::Missing(_) => return Ok(blobs),
                _ => return Err(reply.error(&self.service.container)),
            }
            let page = listing::page(&reply.answer.body).ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the list of blobs was cut off or is none")
            })?;
            blobs.extend(page.blobs);
            match page.next {
                None => return Ok(blobs),
                next => marker = next,
            }
        }
    }

    fn try_exclusive(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let blobs = Blobs::of(self, ask.name())?;
        let seconds = whole_seconds(ask.ttl().unwrap_or(LONGEST));
        let (mut id, call) = (waiting.own.as_deref().unwrap_or(ask.id()).to_owned(), ask.call().clone());
        let lock = self.calls(&blobs.lock, &call);
        // A container and a blob are made, and perhaps deleted again by others.
        for _ in 0..6 {
            let mut since = call.now();
            // A writer at the gate waits for readers, who have it.
            let acquired = if waiting.keeps_gate() { Acquired::Busy } else { lock.acquire(&id, &seconds)? };
            match acquired {
                Acquired::Granted => {}
                Acquired::Breaking => return Ok(Attempt::Busy(Busy::default())),
                Acquired::Busy => match self.wait_for_readers(ask, waiting)? {
                    Err(busy) => return Ok(Attempt::Busy(busy)),
                    Ok(claim) => {
                        id = claim;
                        continue;
                    }
                },
                Acquired::NoBlob => {
                    self.create(&lock)?;
                    continue;
                }
                Acquired::NoContainer(error) => {
                    self.create_container(error, &call)?;
                    continue;
                }
            }
            if ask.ttl().is_none() {
                // Not at once: a late copy of such a request, after the release, would hold the lock for ever.
                since = call.now();
                match lock.acquire(&id, INFINITE)? {
                    Acquired::Granted => {}
                    // Broken or deleted between the two requests.
                    Acquired::Busy | Acquired::Breaking => return Ok(Attempt::Busy(Busy::default())),
                    Acquired::NoBlob | Acquired::NoContainer(_) => continue,
                }
            }
            let token = if ask.fenced() { Some(self.token(&blobs, ask, &id)?) } else { None };
            let held = Held { store: self.clone(), blob: blobs.lock, id: id.clone() };
            let grant = Grant::new(held, since).lease_id(id);
            return Ok(Attempt::Granted(match token {
                Some(token) => grant.fencing_token(token),
                None => grant,
            }));
        }
        Err(Error::new(ErrorKind::Unavailable, "the lock's blob is deleted again and again"))
    }

    /// What is known of a lock by its blob and the entries of its readers.
    fn status(&self, name: &str, blob: &Listed, readers: &[Listed], call: &Call) -> Result<Status> {
        let told = |entry: &Listed| entry.metadata.holder().unwrap_or_else(|| Holder::new("unknown"));
        let (mode, holders) = match (blob.leased, readers) {
            (false, _) => (None, Vec::new()),
            (true, readers @ [_, ..]) => (Some(Mode::Shared), readers.iter().map(told).collect()),
            // What the last reader left, and the next writer takes over.
            (true, []) if !blob.infinite && self.is_of_readers(&blob.name, call)? => (None, Vec::new()),
            (true, []) => {
                let holder =
                    if self.names.are_others() { self.holder(name, call)? } else { blob.metadata.holder() };
                (Some(Mode::Exclusive), holder.into_iter().collect())
            }
        };
        Ok(Status::new(name, mode, !blob.infinite, holders))
    }

    /// Who took the lock last, as far as that was written down.
    fn holder(&self, name: &str, call: &Call) -> Result<Option<Holder>> {
        let blobs = Blobs::of(self, name)?;
        let blob = if self.names.are_others() { blobs.token() } else { blobs.lock };
        let reply = self.calls(&blob, call).properties()?;
        Ok(Metadata::of(&reply.answer)?.holder())
    }
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        let ttls = Duration::from_secs(15)..=LONGEST;
        Abilities::default().ttl(Some(Duration::from_secs(30))).ttls(ttls).shared().fencing().punctual()
    }

    fn clock(&self) -> Clock {
        self.0.service.clock.clone()
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.0.names.check(name)
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        // In a box: of the stack of a held lock's thread, each page that is ever touched stays.
        let mut waiting = std::mem::take(ask.scratch::<Box<Waiting>>());
        let tried = match ask.mode() {
            Mode::Exclusive => self.0.try_exclusive(ask, &mut waiting),
            Mode::Shared => self.0.enter(ask, &mut waiting),
        };
        if waiting.owes() {
            ask.owe();
        }
        let known = waiting.holder.clone();
        *ask.scratch() = waiting;
        Ok(match (tried?, known) {
            (Attempt::Busy(Busy { holder: None, retry_after, reason }), holder) => {
                Attempt::Busy(Busy { holder, retry_after, reason })
            }
            (tried, _) => tried,
        })
    }

    fn wait(&self, ask: &mut Ask) -> Result<()> {
        let waiting = ask.scratch::<Box<Waiting>>();
        waiting.waits += 1;
        let (soon, asks) = (waiting.soon, waiting.asks_for_the_holder());
        if asks {
            // Best effort: who may not read waits all the same.
            let holder = self.0.holder(ask.name(), ask.call()).ok().flatten();
            ask.scratch::<Box<Waiting>>().holder = holder;
        }
        if soon {
            ask.pause_within(&SOON);
        } else {
            ask.pause();
        }
        Ok(())
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        self.0.leave(ask)
    }

    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        self.0.adopt(ask, ticket)
    }

    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        let inner = &*self.0;
        let blob = inner.names.blob(name)?;
        let reply = inner.calls(&blob, call).properties()?;
        let header = |name| reply.answer.header(name).unwrap_or_default();
        let found = Listed {
            leased: matches!(header("x-ms-lease-state"), "leased" | "breaking"),
            infinite: header("x-ms-lease-duration") == "infinite",
            metadata: Metadata::of(&reply.answer)?,
            name: blob,
        };
        let readers = if found.leased { inner.entries(name, call)? } else { Vec::new() };
        inner.status(name, &found, &readers, call)
    }

    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        let inner = &*self.0;
        let mut readers: HashMap<String, Vec<Listed>> = HashMap::new();
        let mut locks = Vec::new();
        for blob in inner.list(inner.names.prefix(), call)? {
            match (inner.names.part(&blob.name), inner.names.lock(&blob.name)) {
                (Some((lock, part)), _) if shared::is_entry(part) && blob.leased => {
                    readers.entry(lock).or_default().push(blob);
                }
                (None, Some(lock)) => locks.push((lock, blob)),
                _ => {}
            }
        }
        let status = |(lock, blob): (String, Listed)| {
            let readers = readers.get(&lock).map_or(&[][..], Vec::as_slice);
            inner.status(&lock, &blob, readers, call)
        };
        locks.into_iter().map(status).collect()
    }

    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        let inner = &*self.0;
        let blob = inner.names.blob(name)?;
        let lock = inner.calls(&blob, call);
        inner.break_readers(name, how == Break::Now, call)?;
        let period = match how {
            Break::Now => Some("0"),
            Break::AfterNotice => {
                let reply = lock.properties()?;
                let infinite = reply.answer.header("x-ms-lease-duration") == Some("infinite");
                infinite.then_some(NOTICE)
            }
        };
        // In whole seconds, so that one more may be left.
        let more = Duration::from_secs(u64::from(how == Break::AfterNotice));
        Ok(lock.break_lease(period)?.map(|left| left + more))
    }
}

/// The lock of one who has it alone.
pub(super) struct Held {
    pub(super) store: Arc<Inner>,
    pub(super) blob: String,
    pub(super) id: String,
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

    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(handover::note(&self.store, &self.blob, None))
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
