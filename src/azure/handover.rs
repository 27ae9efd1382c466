//! Handing a lock over: the lease gets another id, so that of two who adopt it one wins.
//!
//! A change of the id does not start the lease anew, hence the renewal after it, whose answer has to name the new id.
//! A reader's entry keeps the name that it got from the reader's first id.

use std::sync::Arc;

use super::{
    fence::Counter,
    metadata::Metadata,
    shared::{Blobs, Reader, Waiting},
    store::{Held, Inner},
};
use crate::{
    Error, ErrorKind, Mode, Result, Ticket,
    backend::{Ask, Grant, Lease},
};

/// Stands before a reader's entry in a ticket; no blob's name has it.
const ENTRY: char = '\n';

/// What the ticket of a lock says: its container and blob, and a reader's entry.
pub(super) fn note(store: &Inner, lock: &str, entry: Option<&str>) -> String {
    let mut note = format!("{}/{lock}", store.service.container);
    if let Some(entry) = entry {
        note.push(ENTRY);
        note.push_str(entry);
    }
    note
}

impl Inner {
    pub(super) fn adopt(self: &Arc<Self>, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        let blobs = Blobs::of(self, ask.name())?;
        let entry = self.entry_of(&blobs, ticket)?;
        // Whoever takes it back has to know.
        ask.scratch::<Box<Waiting>>().adopted.clone_from(&entry);
        let (id, call) = (ask.id(), ask.call());
        let leased = entry.as_deref().unwrap_or(&blobs.lock);
        // Asked again after a lost answer, it is carried out again.
        self.calls(leased, call).change(ticket.lease_id(), id)?;
        let grant = if let Some(entry) = entry.clone() {
            let mut reader =
                Reader { store: self.clone(), lock: blobs.lock.clone(), entry, id: id.to_owned() };
            let since = reader.renew(call)?;
            Grant::new(reader, since)
        } else {
            let mut held = Held { store: self.clone(), blob: blobs.lock.clone(), id: id.to_owned() };
            let since = held.renew(call)?;
            Grant::new(held, since)
        };
        match self.tell_holder(&blobs, entry.as_deref(), ask) {
            Err(e) if e.kind() == ErrorKind::Lost => return Err(e),
            // The lock is ours, whoever is said to have it.
            Err(e) => {
                log::debug!(target: "leasehold", "{}", e.for_lock(ask.name()).during("write the holder"));
            }
            Ok(()) => {}
        }
        Ok(grant.lease_id(id))
    }

    /// Writes who has it now where the last one was written down.
    fn tell_holder(&self, blobs: &Blobs, entry: Option<&str>, ask: &Ask) -> Result<()> {
        if let Some(entry) = entry {
            let mut metadata = Metadata::default();
            metadata.set_holder(ask.holder(), crate::clock::wall());
            self.calls(entry, ask.call()).write_metadata(&metadata, ("x-ms-lease-id", ask.id())).map(drop)
        } else if ask.fenced() {
            let beside = blobs.token();
            Counter::of(self, &blobs.lock, &beside, ask.id(), ask.call()).set_holder(ask.holder())
        } else {
            Ok(())
        }
    }

    /// The entry of a reader's ticket.
    ///
    /// # Errors
    /// `Config`, for a ticket of another blob. The endpoint is not compared: one account has several.
    fn entry_of(&self, blobs: &Blobs, ticket: &Ticket) -> Result<Option<String>> {
        let here = note(self, &blobs.lock, None);
        let entry = match ticket.mode() {
            Mode::Exclusive => (ticket.note() == here).then_some(None),
            Mode::Shared => ticket
                .note()
                .strip_prefix(&here)
                .and_then(|rest| rest.strip_prefix(ENTRY))
                .filter(|entry| blobs.has_entry(entry))
                .map(|entry| Some(entry.to_owned())),
        };
        entry.ok_or_else(|| {
            let there = ticket.note().split(ENTRY).next().unwrap_or_default();
            let what = format!(
                "the ticket is of the blob {there:?}, and this store keeps the lock in {here:?}: open the store that \
                 it is of"
            );
            Error::new(ErrorKind::Config, what).not_sent()
        })
    }
}
