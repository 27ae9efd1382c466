//! Exclusive locks: the key alone, and no reader below it.

use std::sync::Arc;

use super::{
    agent::Op,
    answer::{Commit, Entry},
    held::Held,
    key,
    store::Inner,
    waiting::{Gate, Seen, Waiting},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Ask, Attempt, Busy},
    clock::wall,
};

/// A key changes hands between a look and a try; so often it is looked at again.
pub(super) const ROUNDS: usize = 6;

impl Inner {
    /// Asks once for the lock.
    pub(super) fn try_exclusive(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let key = self.keys.key(ask.name())?;
        let (readers, call) = (key::readers(&key), ask.call().clone());
        // One that no reader has: asks for the right to see them all, without which none would be seen.
        let nobody = format!("{readers}0");
        for _ in 0..ROUNDS {
            if waiting.gate.is_some()
                && let Some(attempt) = self.behind_gate(ask, waiting)?
            {
                return Ok(attempt);
            }
            let waited = waiting.seen.is_some();
            let seen = self.see(&key, waiting, &call)?;
            if let Some(owner) = &seen.session {
                let (index, created) = (seen.index.unwrap_or_default(), 0);
                if waiting.session.as_ref().is_some_and(|session| session.id == *owner) {
                    // An earlier try was carried out, and its answer lost.
                    waiting.gate = Some(Gate { index, created, record: seen.record });
                    continue;
                }
                if !waited {
                    waiting.watch = index;
                }
                return Ok(Attempt::Busy(seen.busy()));
            }
            self.ready(ask, waiting)?;
            let Some(session) = &mut waiting.session else { continue };
            let record = seen.record.held(ask.holder(), wall());
            let (id, value) = (session.id.clone(), record.to_json());
            let ops = [
                seen.unchanged(&key),
                Op::CheckNone { key: &nobody },
                Op::Lock { key: &key, session: &id, value: &value },
                Op::Below { prefix: &readers },
            ];
            match self.give(session, &ops, &call)? {
                Commit::Done(entries) => {
                    let ours = ours(&entries, &key, &id)?;
                    let gate = Gate { index: ours.index, created: ours.created, record };
                    let inside = entries.iter().find(|entry| entry.key.starts_with(&readers));
                    let Some(reader) = inside else {
                        return self.granted(key, gate, waiting);
                    };
                    let busy = Seen::of(&reader.key, Some(reader.clone()))?.busy();
                    waiting.gate = Some(gate);
                    waiting.watch = 0;
                    ask.owe();
                    if waiting.tries == 1 {
                        // Perhaps it only tries: then it keeps nobody out. If this fails, the end of the wait does it.
                        let _ = self.leave(ask, waiting);
                    }
                    return Ok(Attempt::Busy(busy));
                }
                refused => {
                    if let Some(busy) = waiting.refused(&refused, seen) {
                        return Ok(Attempt::Busy(busy));
                    }
                }
            }
        }
        waiting.watch = 0;
        Ok(Attempt::Busy(Busy::default()))
    }

    /// The lock is ours: its key has our session, and no reader is in.
    pub(super) fn granted(
        self: &Arc<Self>,
        key: String,
        gate: Gate,
        waiting: &mut Waiting,
    ) -> Result<Attempt> {
        let session = waiting.session.take().ok_or_else(|| Error::bare(ErrorKind::Protocol))?;
        let Gate { index, created, record } = gate;
        Ok(Attempt::Granted(Held::grant(self, key, session, (index, created), Some(record))))
    }
}

/// Of a transaction's answer, the key that our session has since.
///
/// # Errors
/// `Protocol`, when it is not there.
pub(super) fn ours<'a>(entries: &'a [Entry], key: &str, session: &str) -> Result<&'a Entry> {
    let is_ours = |entry: &&Entry| entry.key == key && entry.session.as_deref() == Some(session);
    entries.iter().rfind(is_ours).ok_or_else(|| {
        Error::new(ErrorKind::Protocol, "the transaction was done, and its answer does not name our key")
    })
}
