//! A writer that waits for readers to leave: see [`shared`](super::shared).

use std::time::Duration;

use super::{
    blob::{Acquired, Calls},
    listing::Listed,
    shared::{Blobs, ENTRY, READERS, Waiting},
    store::Inner,
};
use crate::{
    ErrorKind, Result,
    backend::{Ask, Busy, Call, Moment},
    id,
};

/// A writer keeps the gate by renewals, at every try for this one that is due.
const WAITING_TTL: &str = "30";
const RENEW_GATE: Duration = Duration::from_secs(8);
/// A lock without a gate may get one while it is waited for.
const LOOK_AGAIN: u32 = 4;

/// A gate that a writer keeps.
pub(super) struct Gate {
    id: String,
    since: Moment,
    /// Of those who were in, once that is known.
    entries: Option<Vec<Listed>>,
}

/// What a writer finds behind the gate.
enum Inside {
    /// There is none: nobody has ever shared the lock.
    NoGate,
    /// Another is at the gate, or was since we were.
    NotOurs,
    /// A reader.
    Reader(Busy),
    Nobody,
}

impl Inner {
    /// The lock's blob is leased: by readers perhaps, which a writer waits for at the gate. Gives the id under which
    /// it is this ask's now.
    pub(super) fn wait_for_readers(&self, ask: &Ask, waiting: &mut Waiting) -> Result<Result<String, Busy>> {
        waiting.tries += 1;
        let looks = waiting.gate.is_some()
            || waiting.claim.is_some()
            || waiting.soon
            || waiting.tries % LOOK_AGAIN == 1;
        waiting.soon = false;
        if !looks {
            return Ok(Err(Busy::default()));
        }
        let (call, blobs) = (ask.call(), Blobs::of(self, ask.name())?);
        let (gate, lock) = (blobs.gate(), self.calls(&blobs.lock, call));
        let gate = self.calls(&gate, call);
        let inside = self.look_inside(&blobs, waiting, call)?;
        if !matches!(inside, Inside::Nobody)
            && let Some(claim) = waiting.claim.take()
        {
            // It came too late: those who are in go on.
            let _ = lock.change(&claim, READERS);
        }
        match inside {
            Inside::NoGate => return Ok(Err(Busy::default())),
            Inside::NotOurs => {
                waiting.soon = true;
                return Ok(Err(Busy::default()));
            }
            Inside::Reader(busy) => {
                waiting.soon = true;
                if waiting.tries == 1 {
                    // Perhaps it only tries: then it keeps nobody out.
                    let _ = let_go(&gate, waiting);
                }
                return Ok(Err(busy));
            }
            Inside::Nobody => {}
        }
        // The same one behind the same gate: what was carried out, and not answered, is carried out again.
        let claim = waiting.claim.get_or_insert_with(id::uuid).clone();
        match lock.change(READERS, &claim) {
            Ok(()) => {}
            // A writer has it, or it ran out just now.
            Err(e) if e.kind() == ErrorKind::Lost => {
                waiting.claim = None;
                let _ = let_go(&gate, waiting);
                return Ok(Err(Busy::default()));
            }
            Err(e) => return Err(e),
        }
        // The last word: refused if anybody else had the gate since.
        let confirmed = let_go(&gate, waiting)?;
        waiting.claim = None;
        if confirmed {
            waiting.own = Some(claim.clone());
            return Ok(Ok(claim));
        }
        waiting.soon = true;
        let _ = lock.change(&claim, READERS);
        Ok(Err(Busy::default()))
    }

    /// Takes the gate, or keeps it, and looks for readers. The entries of those who are none are deleted.
    fn look_inside(&self, blobs: &Blobs, waiting: &mut Waiting, call: &Call) -> Result<Inside> {
        let (gate, now) = (blobs.gate(), call.now());
        let gate = self.calls(&gate, call);
        match &mut waiting.gate {
            Some(kept) if now.saturating_since(kept.since) < RENEW_GATE => {}
            Some(kept) => match gate.renew(&kept.id) {
                Ok(()) => kept.since = now,
                Err(e) if e.kind() == ErrorKind::Lost => {
                    waiting.gate = None;
                    return Ok(Inside::NotOurs);
                }
                Err(e) => return Err(e),
            },
            None => {
                let_go(&gate, waiting)?;
                let id = id::uuid();
                waiting.old_gate = Some(id.clone());
                let acquired = gate.acquire(&id, WAITING_TTL)?;
                waiting.old_gate = None;
                match acquired {
                    Acquired::Granted => waiting.gate = Some(Gate { id, since: now, entries: None }),
                    Acquired::Busy | Acquired::Breaking => return Ok(Inside::NotOurs),
                    Acquired::NoBlob | Acquired::NoContainer(_) => return Ok(Inside::NoGate),
                }
            }
        }
        let Some(kept) = &mut waiting.gate else { return Ok(Inside::NotOurs) };
        let entries = match &mut kept.entries {
            Some(entries) => entries,
            none => none.insert(self.list(&format!("{}{ENTRY}", blobs.beside), call)?),
        };
        while let Some(last) = entries.last() {
            if !self.calls(&last.name, call).delete(None)? {
                let holder = last.metadata.holder();
                return Ok(Inside::Reader(holder.map_or_else(Busy::default, |h| Busy::default().holder(h))));
            }
            entries.pop();
        }
        Ok(Inside::Nobody)
    }
}

/// Lets a writer's gate go. `false`: it was not the writer's any more.
pub(super) fn let_go(gate: &Calls<'_>, waiting: &mut Waiting) -> Result<bool> {
    if let Some(kept) = waiting.gate.take() {
        waiting.old_gate = Some(kept.id);
    }
    let Some(id) = &waiting.old_gate else { return Ok(true) };
    let gone = match gate.release(id) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Lost => Ok(false),
        Err(e) => Err(e),
    }?;
    waiting.old_gate = None;
    Ok(gone)
}
