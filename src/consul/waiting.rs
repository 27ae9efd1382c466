//! One wait for a lock: what it knows between its tries, and how it waits.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    agent::{FLAGS, Op, Spec, Sure},
    answer::{Commit, Entry, next_index},
    key,
    record::{self, Record},
    session::Session,
    store::{Inner, Known},
};
use crate::{
    Error, ErrorKind, Holder, Mode, Result,
    backend::{Ask, Busy, Call},
    clock::wall,
    http::Lane,
};

/// A blocking query of 1 s took up to 1.04 s.
const WAIT: Duration = Duration::from_millis(900);
/// The pauses of who waits for what no query tells of: the end of a lock-delay.
const SOON: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(250);
/// So many blocking queries in a row may be answered at once.
const HASTY: u32 = 32;

/// A lock's key, as it was seen.
pub(super) struct Seen {
    /// `None`: there is no key.
    pub(super) index: Option<u64>,
    pub(super) session: Option<String>,
    pub(super) record: Record,
    holder: Option<Holder>,
}

/// What is kept between the tries of one wait.
#[derive(Default)]
pub(super) struct Waiting {
    spec: Option<Spec>,
    pub(super) session: Option<Session>,
    /// What the wait has just seen.
    pub(super) seen: Option<Seen>,
    /// From where the next blocking query goes on; 0: it answers at once.
    pub(super) watch: u64,
    pub(super) tries: u32,
    /// How many blocking queries in a row were answered at once.
    hasty: u32,
    /// A lock-delay runs.
    pub(super) delayed: bool,
    pub(super) gate: Option<Gate>,
}

/// The lock's key, held while readers leave.
pub(super) struct Gate {
    pub(super) index: u64,
    pub(super) created: u64,
    pub(super) record: Record,
}

impl Seen {
    /// # Errors
    /// `Foreign`, when the key is no lock.
    pub(super) fn of(key: &str, entry: Option<Entry>) -> Result<Self> {
        let Some(entry) = entry else {
            return Ok(Self { index: None, session: None, record: Record::default(), holder: None });
        };
        if entry.flags != FLAGS {
            let what = format!("the key {key:?} has the flags {:#x}, and a lock has {FLAGS:#x}", entry.flags);
            return Err(Error::new(ErrorKind::Foreign, what));
        }
        let record = Record::read(&entry.value);
        let holder = entry.session.as_ref().map(|session| record::holder(&entry.value, session));
        Ok(Self { index: Some(entry.index), session: entry.session, record, holder })
    }

    /// That the key still is as it was seen.
    pub(super) fn unchanged<'a>(&self, key: &'a str) -> Op<'a> {
        match self.index {
            Some(index) => Op::CheckIndex { key, index },
            None => Op::CheckNone { key },
        }
    }

    pub(super) fn busy(&self) -> Busy {
        match &self.holder {
            Some(holder) => Busy::default().holder(holder.clone()),
            None => Busy::default(),
        }
    }
}

impl Waiting {
    /// Takes in why the lock was not given. `None`: another look may help at once.
    pub(super) fn refused(&mut self, why: &Commit, seen: Seen) -> Option<Busy> {
        match why {
            Commit::Held => {
                self.watch = seen.index.unwrap_or_default();
                return Some(Busy::default());
            }
            Commit::Delayed => {
                self.seen = Some(seen);
                return Some(self.delayed());
            }
            Commit::NoSession => {
                if let Some(session) = &mut self.session {
                    session.left = true;
                }
                self.session = None;
                self.seen = Some(seen);
            }
            Commit::Done(_) | Commit::Stale => {}
        }
        None
    }

    /// A lock-delay runs: why nobody gets a lock that nobody holds.
    pub(super) fn delayed(&mut self) -> Busy {
        self.delayed = true;
        Busy::default().because(
            "nobody holds it, but a session that did ended without a release, and Consul keeps the lock for its \
             lock-delay",
        )
    }
}

impl Inner {
    /// Carries out what gives a session a key, and keeps in it whether it has one, or may have one.
    pub(super) fn give(&self, session: &mut Session, ops: &[Op<'_>], call: &Call) -> Result<Commit> {
        session.holds = true;
        let commit = self.agent.commit(ops, Lane::Ordinary, call.remaining()).inspect_err(|e| {
            session.holds = e.is_unclear();
            session.unclear |= e.is_unclear();
        })?;
        session.holds = matches!(commit, Commit::Done(_));
        Ok(commit)
    }

    /// A session for this wait, with two thirds of its time left or more.
    pub(super) fn ready(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        let call = ask.call();
        if let Some(session) = &mut waiting.session
            && (session.is_fresh(call.now()) || session.renew(call)?)
        {
            return Ok(());
        }
        waiting.session = None;
        // What it held is gone with it.
        waiting.gate = None;
        if let Some(spec) = &waiting.spec {
            waiting.session = Some(self.sessions.take(spec, call)?);
        }
        Ok(())
    }

    /// Settles what the session of a wait is to be, before anything is asked.
    pub(super) fn settle(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        if waiting.spec.is_none() {
            let ttl = ask.ttl().ok_or_else(|| {
                Error::unsupported("hold a lock that never runs out: a session lives for a day at most")
                    .not_sent()
            })?;
            waiting.spec = Some(self.terms.spec(ask.holder().words(), ttl, ask.mode())?);
        }
        Ok(())
    }

    /// The key as it was seen last, or else as it is now.
    pub(super) fn see(&self, key: &str, waiting: &mut Waiting, call: &Call) -> Result<Seen> {
        if let Some(seen) = waiting.seen.take() {
            return Ok(seen);
        }
        if let Some(Known { index, record }) = self.known().remove(key) {
            return Ok(Seen { index: Some(index), session: None, record, holder: None });
        }
        Seen::of(key, self.agent.look(key, Sure::Leader, call.remaining())?)
    }

    /// Waits until another try makes sense, or for a slice.
    pub(super) fn wait(&self, ask: &mut Ask, waiting: &mut Waiting) -> Result<()> {
        // So that a release is answered by one request.
        self.ready(ask, waiting)?;
        if waiting.delayed {
            ask.pause_within(&SOON);
            return Ok(());
        }
        let key = self.keys.key(ask.name())?;
        let call = ask.call().clone();
        let (time, start) = (WAIT.min(ask.slice() * 9 / 10), call.now());
        let before = waiting.watch;
        let found = if waiting.gate.is_some() {
            self.agent.wait(&key::readers(&key), true, before, time, call.remaining())?
        } else {
            let mut found = self.agent.wait(&key, false, before, time, call.remaining())?;
            waiting.seen = Some(Seen::of(&key, found.entries.pop())?);
            found
        };
        waiting.watch = next_index(before, found.index);
        let is_hasty = call.now().saturating_since(start) < time / 2;
        waiting.hasty = if is_hasty { waiting.hasty + 1 } else { 0 };
        if is_hasty && (before != 0 && found.index == before || waiting.hasty > HASTY) {
            // It does not wait, or the lock changes hands all the time: no busy loop.
            ask.pause_within(&SOON);
        }
        Ok(())
    }

    /// Takes back what a wait has left.
    pub(super) fn leave(&self, ask: &Ask, waiting: &mut Waiting) -> Result<()> {
        let Some(session) = &mut waiting.session else { return Ok(()) };
        if !(session.holds || session.unclear) {
            return Ok(());
        }
        let (call, lock) = (ask.call(), self.keys.key(ask.name())?);
        let key = match ask.mode() {
            Mode::Exclusive => lock,
            Mode::Shared => key::readers(&lock) + &session.id,
        };
        let held = if let Some(gate) = &waiting.gate {
            Some((gate.index, gate.record.clone()))
        } else {
            let entry = self.agent.look(&key, Sure::Quorum, call.remaining())?;
            let ours = entry.filter(|entry| entry.session.as_ref() == Some(&session.id));
            ours.map(|entry| (entry.index, Record::read(&entry.value)))
        };
        if let Some((index, record)) = held {
            let value = record.released(wall()).to_json();
            let unchanged = Op::CheckIndex { key: &key, index };
            let let_go = match ask.mode() {
                Mode::Exclusive => Op::Unlock { key: &key, session: &session.id, value: value.as_bytes() },
                Mode::Shared => Op::Delete { key: &key },
            };
            let commit = self.agent.commit(&[unchanged, let_go], Lane::Release, call.remaining());
            let commit = commit.inspect_err(|e| session.unclear |= e.is_unclear())?;
            // Another try took it again, or somebody else has it: nobody knows what this session still has.
            session.unclear |= !matches!(commit, Commit::Done(_));
        }
        waiting.gate = None;
        session.holds = false;
        Ok(())
    }
}
