//! A lock that is held.

use std::sync::Arc;

use super::{
    acquire::since_of,
    answer::Outcome,
    object::Object,
    record::Keys,
    service::{Reply, Write},
    store::{Inner, ROUNDS, pause},
};
use crate::{
    Error, ErrorKind, LostReason, Mode, Result,
    backend::{Call, Lease, Moment},
    backoff::Backoff,
    http::Lane,
};

pub(super) struct Held {
    store: Arc<Inner>,
    name: String,
    keys: Keys,
    id: String,
    mode: Mode,
    /// The object that carries it; another one of its name is not it.
    uid: String,
    counter: u64,
    /// From when the last write counts that is known to have been carried out.
    since: Moment,
    /// Renewals whose answer was lost.
    tries: Vec<(u64, Moment)>,
    /// A release was sent whose answer was lost.
    released: bool,
}

impl Held {
    #[expect(clippy::too_many_arguments, reason = "what it is made of")]
    pub(super) fn new(
        store: &Arc<Inner>,
        name: &str,
        keys: Keys,
        id: &str,
        mode: Mode,
        object: &Object,
        counter: u64,
        since: Moment,
    ) -> Self {
        Self {
            store: store.clone(),
            name: name.to_owned(),
            keys,
            id: id.to_owned(),
            mode,
            uid: object.uid.clone(),
            counter,
            since,
            tries: Vec::new(),
            released: false,
        }
    }

    /// The object: as it is known, if it still says that the lock is ours as we wrote it last, or as it is now.
    fn object(&self, fresh: bool, lane: Lane, call: &Call) -> Result<Arc<Object>> {
        if let Some(known) = self.store.service.known().filter(|known| !fresh && known.uid == self.uid) {
            return Ok(known);
        }
        match self.store.get(lane, call)? {
            Some((object, _)) if object.uid == self.uid => Ok(object),
            _ => Err(Error::lost(LostReason::Deleted)),
        }
    }

    /// What an answer says of the lock that is neither yes nor another try's turn.
    fn error(&self, outcome: &Outcome) -> Error {
        match outcome {
            Outcome::Missing => Error::lost(LostReason::Deleted),
            Outcome::Transient { .. } => self.store.service.error(outcome, "patch"),
            other => self.store.service.error(other, "patch").not_sent(),
        }
    }
}

impl Lease for Held {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let mut backoff = Backoff::default();
        for round in 0..ROUNDS {
            pause(&mut backoff, round, call);
            let fresh = round > 0 || !self.tries.is_empty();
            let object = self.object(fresh, Lane::Ordinary, call)?;
            let state = self.store.state(&object, &self.keys);
            // What somebody wrote over it.
            let state = state.map_err(|_| Error::lost(LostReason::Deleted));
            let stored = state.and_then(|state| {
                let counter = state.counter_of(&self.id, self.mode).map_err(Error::lost)?;
                Ok((state, counter))
            });
            let (state, counter) = match stored {
                Ok(stored) => stored,
                // Only what is asked for now is sure to be so.
                Err(_) if !fresh => continue,
                Err(lost) => return Err(lost),
            };
            if self.tries.iter().any(|(tried, _)| *tried == counter) {
                self.since = self.since.max(since_of(&self.tries, counter));
                self.tries.clear();
                return Ok(self.since);
            }
            self.counter += 1;
            let to = state.renew(&self.id, self.mode, self.store.stamp(self.counter)).map_err(Error::lost)?;
            let (keys, from, to) = (&self.keys, &state.slot, &to);
            let write = Write { object: &object, keys, from, to, strictly: false, lane: Lane::Ordinary };
            let sent = call.now();
            match self.store.service.patch(&write, call) {
                Ok(Reply { outcome: Outcome::Object(_), .. }) => {
                    self.since = sent;
                    self.tries.clear();
                    return Ok(sent);
                }
                Ok(Reply { outcome: Outcome::Stale, .. }) => {}
                Ok(Reply { outcome, .. }) => {
                    let error = self.error(&outcome);
                    if error.is_unclear() {
                        self.tries.push((self.counter, sent));
                    }
                    return Err(error);
                }
                Err(error) => {
                    if error.is_unclear() {
                        self.tries.push((self.counter, sent));
                    }
                    return Err(error);
                }
            }
        }
        Err(self.store.service.error(&Outcome::Stale, "patch").not_sent())
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        self.store.unobserve(&self.name);
        let mut backoff = Backoff::default();
        for round in 0..ROUNDS {
            pause(&mut backoff, round, call);
            let fresh = round > 0 || self.released || !self.tries.is_empty();
            let planned = self.object(fresh, Lane::Release, call).and_then(|object| {
                let state = self.store.state(&object, &self.keys);
                let state = state.map_err(|_| Error::lost(LostReason::Deleted))?;
                let to = state.release(&self.id, self.mode).map_err(Error::lost)?;
                Ok((object, state, to))
            });
            let (object, state, to) = match planned {
                Ok(planned) => planned,
                Err(e) if e.kind() != ErrorKind::Lost => return Err(e),
                // It was ours when that was sent, and is let go.
                Err(_) if self.released => return Ok(()),
                Err(_) if !fresh => continue,
                Err(lost) => return Err(lost),
            };
            let (keys, from, to) = (&self.keys, &state.slot, &to);
            let write = Write { object: &object, keys, from, to, strictly: false, lane: Lane::Release };
            match self.store.service.patch(&write, call) {
                Ok(Reply { outcome: Outcome::Object(_), .. }) => return Ok(()),
                Ok(Reply { outcome: Outcome::Stale, .. }) => {}
                Ok(Reply { outcome, .. }) => {
                    let error = self.error(&outcome);
                    self.released |= error.is_unclear();
                    return Err(error);
                }
                Err(error) => {
                    self.released |= error.is_unclear();
                    return Err(error);
                }
            }
        }
        Err(self.store.service.error(&Outcome::Stale, "patch").not_sent())
    }

    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(self.store.service.place.path())
    }
}
