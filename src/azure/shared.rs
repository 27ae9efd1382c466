//! Shared mode, made of leases that are exclusive.
//!
//! Beside the lock's own blob there are a gate and, for each reader, an entry:
//!
//! - The **lock's blob** is leased by a writer under an id of its own, and by all readers together under one that is
//!   the same everywhere ([`READERS`]): an active lease is given again to who asks with its id. So nobody who knows
//!   nothing of readers gets in beside them.
//! - The **gate** is leased for a moment by a reader that comes in, and by a writer that waits for readers to leave
//!   for as long as it waits: nobody comes in meanwhile, so that writers do not starve.
//! - An **entry** is leased by its reader alone, for the reader's TTL.
//!
//! A reader takes the gate, leases the lock's blob and its entry, and lets the gate go. It is one only when that
//! release is confirmed: then nobody else had the gate since. It stays one while it renews both leases.
//!
//! A writer that finds the lock's blob leased takes the gate, if there is one, and looks for entries; one that can be
//! deleted without a lease id is that of nobody. With none left, the lease of the readers is changed into its own;
//! which counts, too, only when the release of the gate that follows is confirmed. Else it is changed back.
//!
//! A request may be carried out long after its answer was given up. So each lease at a gate, each entry and each
//! change of the readers' lease has an id of its own: what comes late is of nobody, and runs out. (A change that comes
//! while readers are in ends them by their next renewal, and nobody else gets in before their time is up.)
//!
//! Until a lock is shared for the first time there is no gate, and an exclusive lock never looks for readers while the
//! lock's blob is free: it costs two requests.

use std::sync::Arc;

use super::{
    blob::{Acquired, Calls, Created},
    fence::Counter,
    handover,
    listing::Listed,
    metadata::Metadata,
    store::Inner,
    writer::{Gate, let_go},
};
use crate::{
    Error, ErrorKind, Holder, LostReason, Mode, Result,
    backend::{Ask, Attempt, Busy, Call, Grant, Lease, Moment},
    id,
};

/// The lease of all readers of a lock: `leaseholdreaders`, as bytes, but for the bits that make it a UUID.
pub(super) const READERS: &str = "6c656173-6568-4f6c-a472-656164657273";
/// Each reader renews it, so that it outlives every reader's own lease.
const READERS_TTL: &str = "60";
/// A reader is through the gate in a few requests; one that died there keeps the others out for so long.
const GATE_TTL: &str = "15";

const GATE: &str = "gate";
pub(super) const ENTRY: &str = "reader-";
const TOKEN: &str = "token";

/// What is kept between the tries of one wait.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) tries: u32,
    /// The lock's blob was leased at the last try.
    refused: bool,
    /// A reader's entry, by its id, of the last try.
    entry: Option<String>,
    pub(super) gate: Option<Gate>,
    /// The id of a gate that perhaps was not let go.
    pub(super) old_gate: Option<String>,
    /// The id into which the readers' lease perhaps was changed.
    pub(super) claim: Option<String>,
    /// The one into which it surely was, for a writer.
    pub(super) own: Option<String>,
    /// A gate changes hands quickly, and so does a lock whose readers leave: the next try is soon.
    pub(super) soon: bool,
    pub(super) waits: u32,
    /// Who has it, as far as that was written down.
    pub(super) holder: Option<Holder>,
    /// The entry of a reader whose lock is taken over; it has its name from another id than ours.
    pub(super) adopted: Option<String>,
}

impl Waiting {
    /// Whether something was left that has to be taken back.
    pub(super) fn owes(&self) -> bool {
        self.gate.is_some() || self.old_gate.is_some() || self.claim.is_some() || self.own.is_some()
    }

    /// Whether a writer keeps readers out.
    pub(super) fn keeps_gate(&self) -> bool {
        self.gate.is_some()
    }

    /// Not at the first wait, since most are short; and again only where holders are written down.
    pub(super) fn asks_for_the_holder(&self) -> bool {
        self.waits == 2 || (self.holder.is_some() && self.waits.is_multiple_of(16))
    }
}

/// The blobs of one lock.
pub(super) struct Blobs {
    pub(super) lock: String,
    pub(super) beside: String,
}

impl Blobs {
    pub(super) fn of(store: &Inner, name: &str) -> Result<Self> {
        Ok(Self { lock: store.names.blob(name)?, beside: store.names.beside(name)? })
    }

    pub(super) fn gate(&self) -> String {
        format!("{}{GATE}", self.beside)
    }

    fn entry(&self, id: &str) -> String {
        format!("{}{ENTRY}{id}", self.beside)
    }

    /// Whether a reader's entry of this lock can be called so.
    pub(super) fn has_entry(&self, blob: &str) -> bool {
        blob.strip_prefix(&self.beside).is_some_and(is_entry)
    }

    /// The counter of names that are others'.
    pub(super) fn token(&self) -> String {
        format!("{}{TOKEN}", self.beside)
    }
}

/// Whether a blob beside a lock, by its last part, is a reader's entry.
pub(super) fn is_entry(part: &str) -> bool {
    part.starts_with(ENTRY)
}

impl Inner {
    /// A reader comes in.
    pub(super) fn enter(self: &Arc<Self>, ask: &Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let ttl =
            ask.ttl().ok_or_else(|| Error::unsupported("share a lock that never runs out").not_sent())?;
        let (call, blobs) = (ask.call(), Blobs::of(self, ask.name())?);
        let lock = self.calls(&blobs.lock, call);
        if waiting.refused && !self.acquire_or_make(&lock, READERS, READERS_TTL)? {
            return Ok(Attempt::Busy(Busy::default()));
        }
        waiting.refused = false;
        let (gate, gate_id) = (blobs.gate(), id::uuid());
        let gate = self.calls(&gate, call);
        if !self.acquire_or_make(&gate, &gate_id, GATE_TTL)? {
            waiting.soon = true;
            return Ok(Attempt::Busy(Busy::default()));
        }
        let since = call.now();
        let id = &**waiting.entry.insert(id::uuid());
        let entry = blobs.entry(id);
        let come_in = || -> Result<Option<Option<u64>>> {
            if !self.acquire_or_make(&lock, READERS, READERS_TTL)? {
                return Ok(None);
            }
            let mut metadata = Metadata::default();
            metadata.set_holder(ask.holder(), crate::clock::wall());
            let entry = self.calls(&entry, call);
            if let Created::NoContainer(error) = entry.create(&metadata)? {
                return Err(error);
            }
            if !matches!(entry.acquire(id, &super::blob::whole_seconds(ttl))?, Acquired::Granted) {
                let what = "the reader's entry was taken away again";
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            let token = if ask.fenced() { Some(self.token(&blobs, ask, READERS)?) } else { None };
            // The last word: refused if anybody else had the gate since.
            gate.release(&gate_id)?;
            Ok(Some(token))
        };
        match come_in() {
            Ok(Some(token)) => {
                let reader = Reader { store: self.clone(), lock: blobs.lock, entry, id: id.to_owned() };
                let grant = Grant::new(reader, since).lease_id(id);
                Ok(Attempt::Granted(match token {
                    Some(token) => grant.fencing_token(token),
                    None => grant,
                }))
            }
            refused => {
                // At worst both run out by themselves.
                let _ = self.calls(&entry, call).delete(Some(id));
                let _ = gate.release(&gate_id);
                match refused {
                    Ok(_) => waiting.refused = true,
                    Err(e) if e.kind() == ErrorKind::Lost => waiting.soon = true,
                    Err(e) => return Err(e),
                }
                Ok(Attempt::Busy(Busy::default()))
            }
        }
    }

    /// Takes back what a wait has left.
    pub(super) fn leave(&self, ask: &mut Ask) -> Result<()> {
        // Put back, since this is asked again where it fails.
        let mut waiting = std::mem::take(ask.scratch::<Box<Waiting>>());
        let left = self.take_back(ask, &mut waiting);
        *ask.scratch() = waiting;
        left
    }

    fn take_back(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        let (call, blobs) = (ask.call(), Blobs::of(self, ask.name())?);
        let lock = self.calls(&blobs.lock, call);
        let entry = waiting.entry.as_ref().map(|id| (blobs.entry(id), &**id));
        let entry = waiting.adopted.clone().map(|entry| (entry, ask.id())).or(entry);
        let left = [
            match (ask.mode(), entry) {
                (Mode::Exclusive, _) => lock.release(ask.id()),
                (Mode::Shared, Some((entry, id))) => self.calls(&entry, call).delete(Some(id)).map(drop),
                (Mode::Shared, None) => Ok(()),
            },
            waiting.own.as_ref().map_or(Ok(()), |own| lock.release(own)),
            // Not released: perhaps it came too late, and readers are in.
            waiting.claim.as_ref().map_or(Ok(()), |claim| lock.change(claim, READERS)),
            let_go(&self.calls(&blobs.gate(), call), waiting).map(drop),
        ];
        for gone in left {
            match gone {
                // It never was ours, or is no more.
                Err(e) if e.kind() == ErrorKind::Lost => {}
                gone => gone?,
            }
        }
        Ok(())
    }

    /// Breaks gate and entries. What comes in at this moment does so in vain.
    pub(super) fn break_readers(&self, name: &str, at_once: bool, call: &Call) -> Result<()> {
        let blobs = Blobs::of(self, name)?;
        let period = at_once.then_some("0");
        if at_once {
            let (gate, id) = (blobs.gate(), id::uuid());
            let gate = self.calls(&gate, call);
            gate.break_lease(period)?;
            // A lease that was only broken can still be released, and that would be taken for the last word.
            match gate.acquire(&id, GATE_TTL)? {
                Acquired::Granted => gate.release(&id)?,
                Acquired::NoBlob | Acquired::NoContainer(_) => return Ok(()),
                Acquired::Busy | Acquired::Breaking => {}
            }
        }
        for entry in self.list(&format!("{}{ENTRY}", blobs.beside), call)? {
            self.calls(&entry.name, call).break_lease(period)?;
        }
        Ok(())
    }

    /// The entries of those who are in.
    pub(super) fn entries(&self, name: &str, call: &Call) -> Result<Vec<Listed>> {
        let mut entries = self.list(&format!("{}{ENTRY}", Blobs::of(self, name)?.beside), call)?;
        entries.retain(|entry| entry.leased);
        Ok(entries)
    }

    /// Whether the lease of a lock's blob is that of readers. Changes nothing; nobody tells whose a lease is.
    pub(super) fn is_of_readers(&self, blob: &str, call: &Call) -> Result<bool> {
        match self.calls(blob, call).change(READERS, READERS) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::Lost => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The next fencing token of a lock that is held under this id.
    pub(super) fn token(&self, blobs: &Blobs, ask: &Ask, id: &str) -> Result<u64> {
        let beside = blobs.token();
        Counter::of(self, &blobs.lock, &beside, id, ask.call()).next(ask.mode(), ask.holder())
    }

    /// Leases a blob, which is made when it is missing. `false`: another lease is there.
    fn acquire_or_make(&self, blob: &Calls<'_>, id: &str, ttl: &str) -> Result<bool> {
        // A container and a blob are made, and perhaps deleted again by others.
        for _ in 0..4 {
            match blob.acquire(id, ttl)? {
                Acquired::Granted => return Ok(true),
                Acquired::Busy | Acquired::Breaking => return Ok(false),
                Acquired::NoBlob => self.create(blob)?,
                Acquired::NoContainer(error) => self.create_container(error, blob.call)?,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the lock's blob is deleted again and again"))
    }
}

/// One of those who share a lock.
pub(super) struct Reader {
    pub(super) store: Arc<Inner>,
    pub(super) lock: String,
    pub(super) entry: String,
    pub(super) id: String,
}

impl Lease for Reader {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let since = call.now();
        self.store.calls(&self.entry, call).renew(&self.id)?;
        self.store.calls(&self.lock, call).renew(READERS)?;
        Ok(since)
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        if self.store.calls(&self.entry, call).delete(Some(&self.id))? {
            Ok(())
        } else {
            Err(Error::lost(LostReason::Taken))
        }
    }

    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(handover::note(&self.store, &self.lock, Some(&self.entry)))
    }
}
