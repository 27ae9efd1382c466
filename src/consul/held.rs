//! A lock that is held, by a writer or a reader: renewed, let go, handed over, taken away.

use std::{sync::Arc, time::Duration};

use super::{
    agent::{Op, Sure},
    answer::{Commit, Entry},
    exclusive::ours,
    key,
    record::Record,
    session::Session,
    store::Inner,
    waiting::{Seen, Waiting},
};
use crate::{
    Break, Error, ErrorKind, LostReason, Mode, Result, Ticket,
    backend::{Ask, Call, Grant, Lease, Moment},
    clock::wall,
    http::Lane,
};

/// A key that our session holds.
pub(super) struct Held {
    store: Arc<Inner>,
    key: String,
    /// `None` once it was let go.
    session: Option<Session>,
    /// `ModifyIndex` and `CreateIndex` of the key since it is ours.
    index: u64,
    created: u64,
    /// What the key says; `None` for a reader's entry, which goes with the lock.
    record: Option<Record>,
}

impl Held {
    /// A key that our session has with these `ModifyIndex`, which is the fencing token, and `CreateIndex`.
    pub(super) fn grant(
        store: &Arc<Inner>,
        key: String,
        mut session: Session,
        (index, created): (u64, u64),
        record: Option<Record>,
    ) -> Grant {
        session.holds = true;
        let (since, id) = (session.since, session.id.clone());
        let held = Self { store: store.clone(), key, session: Some(session), index, created, record };
        Grant::new(held, since).lease_id(id).fencing_token(index)
    }

    /// Why the key is not ours any more, if it is not.
    fn loss(&self, entry: Option<&Entry>) -> Option<LostReason> {
        let ours = self.session.as_ref().map(|session| &*session.id);
        match entry {
            None => Some(LostReason::Deleted),
            Some(entry) => match entry.session.as_deref() {
                session if session == ours => (entry.index != self.index).then_some(LostReason::Deleted),
                Some(_) => Some(LostReason::Taken),
                None if self.created != 0 && entry.created != self.created => Some(LostReason::Deleted),
                None => Some(LostReason::Broken),
            },
        }
    }
}

fn let_go() -> Error {
    Error::new(ErrorKind::Protocol, "the lock was let go already")
}

impl Lease for Held {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let session = self.session.as_mut().ok_or_else(let_go)?;
        // Not that its time ran out: this is called while it is valid.
        if !session.renew(call)? {
            return Err(Error::lost(LostReason::Broken).because("its session was ended"));
        }
        let since = session.since;
        // A session lives on when its key is deleted or released by an operator.
        let entry = self.store.agent.look(&self.key, Sure::Quorum, call.remaining())?;
        self.loss(entry.as_ref()).map_or(Ok(since), |reason| Err(Error::lost(reason)))
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let unchanged = Op::CheckIndex { key: &self.key, index: self.index };
        let record = self.record.as_ref().map(|record| record.released(wall()));
        let value = record.as_ref().map(Record::to_json);
        let let_go = match &value {
            Some(value) => Op::Unlock { key: &self.key, session: &session.id, value: value.as_bytes() },
            None => Op::Delete { key: &self.key },
        };
        let commit = self.store.agent.commit(&[unchanged, let_go], Lane::Release, call.remaining());
        let commit = commit.inspect_err(|e| session.unclear |= e.is_unclear())?;
        let Commit::Done(entries) = commit else {
            let entry = self.store.agent.look(&self.key, Sure::Quorum, call.remaining())?;
            return Err(Error::lost(self.loss(entry.as_ref()).unwrap_or(LostReason::Taken)));
        };
        session.holds = false;
        session.left = false;
        if let Some(record) = record {
            self.store.know(&self.key, &entries, record);
        }
        // Now, and not when this is dropped: the next lock may come before that.
        self.session = None;
        Ok(())
    }

    fn detach(&mut self, _: &Call) -> Result<String> {
        let session = self.session.as_mut().ok_or_else(let_go)?;
        session.left = true;
        Ok(self.index.to_string())
    }
}

impl Inner {
    /// Moves a detached lock from its session to one of this ask's own, in one transaction.
    pub(super) fn adopt(
        self: &Arc<Self>,
        ask: &Ask,
        ticket: &Ticket,
        waiting: &mut Waiting,
    ) -> Result<Grant> {
        let of_another =
            || Error::new(ErrorKind::Config, "the ticket is one of another store than Consul").not_sent();
        let detached: u64 = ticket.note().parse().map_err(|_| of_another())?;
        let (call, old) = (ask.call(), ticket.lease_id());
        self.ready(ask, waiting)?;
        let session = waiting.session.as_mut().ok_or_else(let_go)?;
        let lock = self.keys.key(ask.name())?;
        let (from, to) = match ask.mode() {
            Mode::Exclusive => (lock.clone(), lock),
            Mode::Shared => (key::readers(&lock) + old, key::readers(&lock) + &session.id),
        };
        let is_ours = |entry: &Entry| entry.session.as_ref() == Some(&session.id);
        let mut entry = self.agent.look(&from, Sure::Quorum, call.remaining())?;
        if entry.is_none() && from != to {
            entry = self.agent.look(&to, Sure::Quorum, call.remaining())?;
        }
        let entry = entry.ok_or_else(|| Error::lost(LostReason::Deleted))?;
        let record = Seen::of(&from, Some(entry.clone()))?.record;
        if is_ours(&entry) {
            // An earlier try was carried out, and its answer lost.
            let session = waiting.session.take().ok_or_else(let_go)?;
            let record = (ask.mode() == Mode::Exclusive).then_some(record);
            return Ok(Held::grant(self, to, session, (entry.index, entry.created), record));
        }
        if entry.session.is_none() {
            return Err(Error::lost(LostReason::Expired));
        }
        if entry.session.as_deref() != Some(old) || entry.index != detached {
            return Err(Error::lost(LostReason::Taken));
        }
        let record = record.held(ask.holder(), wall());
        let (value, id) = (record.to_json(), session.id.clone());
        let mut ops = vec![Op::CheckIndex { key: &from, index: detached }];
        ops.push(match ask.mode() {
            Mode::Exclusive => Op::Unlock { key: &from, session: old, value: value.as_bytes() },
            Mode::Shared => Op::Delete { key: &from },
        });
        ops.push(Op::Lock { key: &to, session: &id, value: &value });
        let entries = match self.give(session, &ops, call)? {
            Commit::Done(entries) => entries,
            Commit::NoSession => {
                session.left = true;
                waiting.session = None;
                let what = "the session ended before it was used";
                return Err(Error::new(ErrorKind::Unavailable, what).not_sent());
            }
            _ => return Err(Error::lost(LostReason::Taken)),
        };
        let ours = ours(&entries, &to, &id)?;
        self.sessions.end(old.to_owned());
        let session = waiting.session.take().ok_or_else(let_go)?;
        let record = (ask.mode() == Mode::Exclusive).then_some(record);
        Ok(Held::grant(self, to.clone(), session, (ours.index, ours.created), record))
    }

    /// Takes a key from the session that was seen with it: says when others can have it.
    pub(super) fn take_from(&self, entry: &Entry, how: Break, call: &Call) -> Result<Option<Duration>> {
        let Some(session) = &entry.session else { return Ok(None) };
        match how {
            Break::AfterNotice => {
                // Its lock-delay keeps others out until its holder has seen it.
                let Some(info) = self.agent.session(session, call.remaining())? else { return Ok(None) };
                self.agent.destroy(session, call.remaining())?;
                Ok(Some(info.lock_delay))
            }
            Break::Now => {
                let unchanged = Op::CheckIndex { key: &entry.key, index: entry.index };
                let free = match key::reader(&entry.key) {
                    None => Op::Unlock { key: &entry.key, session, value: &entry.value },
                    Some(_) => Op::Delete { key: &entry.key },
                };
                match self.agent.commit(&[unchanged, free], Lane::Ordinary, call.remaining())? {
                    Commit::Done(_) => Ok(Some(Duration::ZERO)),
                    // Its holder let it go just now.
                    _ => Ok(None),
                }
            }
        }
    }
}
