//! Shared mode, made of keys that sessions hold alone.
//!
//! The lock's own key is the gate. A **reader** has an entry of its own below it, held by its session, and gets it in
//! one transaction that fails unless the gate is free: readers do not collide, and a writer makes it fail. A
//! **writer** takes the gate, keeps it, and waits until there is no entry. All expiry is the service's.
//!
//! A gate without a session is not always free: after a session that ended without a release its lock-delay runs, and
//! the holder may still believe in it. Only the verb `lock` finds that out, so a reader takes the gate and lets it go
//! within its transaction, unless the key says that it was let go cleanly. For the same reason a writer does not take
//! an entry without a session for that of nobody: it locks and deletes it in one transaction, which the lock-delay of
//! the entry refuses.

use std::sync::Arc;

use super::{
    agent::{Op, Sure},
    answer::Commit,
    exclusive::{ROUNDS, ours},
    held::Held,
    key,
    record::Record,
    store::Inner,
    waiting::{Seen, Waiting},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Ask, Attempt, Busy},
    clock::wall,
    http::Lane,
};

impl Inner {
    /// A reader comes in.
    pub(super) fn enter(self: &Arc<Self>, ask: &mut Ask, waiting: &mut Waiting) -> Result<Attempt> {
        let lock = self.keys.key(ask.name())?;
        let call = ask.call().clone();
        for _ in 0..ROUNDS {
            if let Some(session) = waiting.session.as_ref().filter(|session| session.holds) {
                // An earlier try was carried out, and its answer lost.
                let entry = key::readers(&lock) + &session.id;
                let found = self.agent.look(&entry, Sure::Quorum, call.remaining())?;
                if let Some(found) = found.filter(|found| found.session.as_ref() == Some(&session.id)) {
                    return self.inside(entry, found.index, found.created, waiting);
                }
            }
            let waited = waiting.seen.is_some();
            let seen = self.see(&lock, waiting, &call)?;
            if seen.session.is_some() {
                if !waited {
                    waiting.watch = seen.index.unwrap_or_default();
                }
                return Ok(Attempt::Busy(seen.busy()));
            }
            self.ready(ask, waiting)?;
            let Some(session) = &mut waiting.session else { continue };
            let id = session.id.clone();
            let entry = key::readers(&lock) + &id;
            let value = Record::default().held(ask.holder(), wall()).to_json();
            let (passed, is_released) = (seen.record.released(wall()), seen.record.is_released());
            let passed_value = passed.to_json();
            let mut ops = vec![seen.unchanged(&lock)];
            if !is_released {
                ops.push(Op::Lock { key: &lock, session: &id, value: &passed_value });
                ops.push(Op::Unlock { key: &lock, session: &id, value: passed_value.as_bytes() });
            }
            ops.push(Op::Lock { key: &entry, session: &id, value: &value });
            match self.give(session, &ops, &call)? {
                Commit::Done(entries) => {
                    let ours = ours(&entries, &entry, &id)?;
                    self.know(&lock, &entries, if is_released { seen.record } else { passed });
                    return self.inside(entry, ours.index, ours.created, waiting);
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

    fn inside(
        self: &Arc<Self>,
        entry: String,
        index: u64,
        created: u64,
        waiting: &mut Waiting,
    ) -> Result<Attempt> {
        let session = waiting.session.take().ok_or_else(|| Error::bare(ErrorKind::Protocol))?;
        Ok(Attempt::Granted(Held::grant(self, entry, session, (index, created), None)))
    }

    /// A writer that has the gate looks for readers. `None`: the gate is not its own any more.
    pub(super) fn behind_gate(
        self: &Arc<Self>,
        ask: &mut Ask,
        waiting: &mut Waiting,
    ) -> Result<Option<Attempt>> {
        let lock = self.keys.key(ask.name())?;
        let (readers, call) = (key::readers(&lock), ask.call().clone());
        ask.owe();
        for _ in 0..ROUNDS {
            self.ready(ask, waiting)?;
            let (Some(gate), Some(session)) = (&waiting.gate, &mut waiting.session) else { return Ok(None) };
            let ours = Op::CheckIndex { key: &lock, index: gate.index };
            let behind = [ours, Op::Below { prefix: &readers }];
            let Commit::Done(entries) = self.agent.commit(&behind, Lane::Ordinary, call.remaining())? else {
                waiting.gate = None;
                return Ok(None);
            };
            let mut inside = entries.iter().filter(|entry| entry.key.starts_with(&readers));
            let Some(first) = inside.clone().find(|entry| entry.session.is_some()).or_else(|| inside.next())
            else {
                let Some(gate) = waiting.gate.take() else { return Ok(None) };
                return self.granted(lock, gate, waiting).map(Some);
            };
            if first.session.is_some() {
                let reader = Seen::of(&first.key, Some(first.clone()))?;
                return Ok(Some(Attempt::Busy(reader.busy())));
            }
            let remove = [
                ours,
                Op::CheckIndex { key: &first.key, index: first.index },
                Op::Lock { key: &first.key, session: &session.id, value: "" },
                Op::Delete { key: &first.key },
            ];
            let commit = self.agent.commit(&remove, Lane::Ordinary, call.remaining());
            match commit.inspect_err(|e| session.unclear |= e.is_unclear())? {
                Commit::Delayed => return Ok(Some(Attempt::Busy(waiting.delayed()))),
                Commit::NoSession => {
                    waiting.gate = None;
                    return Ok(None);
                }
                Commit::Done(_) | Commit::Held | Commit::Stale => {}
            }
        }
        waiting.watch = 0;
        Ok(Some(Attempt::Busy(Busy::default())))
    }
}
