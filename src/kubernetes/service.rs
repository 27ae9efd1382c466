//! One object's calls: sent, their answers understood, and what they tell of the server's time kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{
    access::Access,
    answer::{Outcome, date},
    object::{Object, Place, config_map, patch},
    record::{Keys, Slot},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Call, Moment},
    clock::{Clock, wall},
    http::{Lane, Request, Response},
};

/// Of an object only what locks are made of: its metadata ("API Concepts", resource as metadata).
const ACCEPT: (&str, &str) =
    ("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json");

pub(super) struct Service {
    access: Access,
    pub(super) place: Place,
    known: Mutex<Known>,
}

/// What the last answers told.
#[derive(Default)]
struct Known {
    object: Option<Arc<Object>>,
    /// The time that an answer bore, and when its request was sent.
    time: Option<(i64, Moment)>,
}

/// An answer, with the server's time in it.
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    /// No later than it was.
    pub(super) date: Option<i64>,
}

impl Service {
    pub(super) fn new(access: Access, place: Place) -> Self {
        Self { access, place, known: Mutex::default() }
    }

    /// The object as some answer told it last.
    pub(super) fn known(&self) -> Option<Arc<Object>> {
        self.lock().object.clone()
    }

    /// Takes note of an object, unless a later one is known. One that was made anew is a later one, too.
    pub(super) fn learn(&self, object: &Object) {
        let mut known = self.lock();
        if known.object.as_ref().is_none_or(|old| old.version <= object.version) {
            known.object = Some(Arc::new(object.clone()));
        }
    }

    pub(super) fn forget(&self) {
        self.lock().object = None;
    }

    /// The server's time in seconds since 1970, or a little later. Whoever counts from there never counts too little.
    pub(super) fn time(&self) -> i64 {
        let known = self.lock().time;
        let (time, passed) = if let Some((time, at)) = known {
            (time, Clock::system().now().saturating_since(at))
        } else {
            let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), Duration::ZERO)
        };
        // The clocks may go at rates that differ by 2 %.
        let passed = i64::try_from(passed.mul_f64(1.02).as_secs()).unwrap_or(i64::MAX);
        time.saturating_add(passed).saturating_add(2)
    }

    pub(super) fn get(&self, lane: Lane, call: &Call) -> Result<Reply> {
        let path = self.place.path();
        let request = Request { method: "GET", url: &path, headers: &[ACCEPT], body: &[], lane };
        let reply = self.ask(&request, call)?;
        if let Outcome::Missing | Outcome::NoPlace(_) = reply.outcome {
            self.forget();
        }
        Ok(reply)
    }

    /// Makes one slot of the object another.
    pub(super) fn patch(&self, write: &Write<'_>, call: &Call) -> Result<Reply> {
        let path = self.place.path() + "?fieldManager=leasehold";
        let body = patch(write.object, write.keys, write.from, write.to, write.strictly);
        let headers = [ACCEPT, ("Content-Type", "application/json-patch+json")];
        let request = Request {
            method: "PATCH",
            url: &path,
            headers: &headers,
            body: body.as_bytes(),
            lane: write.lane,
        };
        let reply = self.ask(&request, call)?;
        // Or what is known is not true any more.
        if !matches!(reply.outcome, Outcome::Object(_)) {
            self.forget();
        }
        Ok(reply)
    }

    /// Makes the ConfigMap, with a lock that is taken in it.
    pub(super) fn create(&self, keys: &Keys, slot: &Slot, call: &Call) -> Result<Reply> {
        let path = self.place.collection() + "?fieldManager=leasehold";
        let body = config_map(&self.place, keys, slot);
        let headers = [ACCEPT, ("Content-Type", "application/json")];
        let (body, lane) = (body.as_bytes(), Lane::Ordinary);
        self.ask(&Request { method: "POST", url: &path, headers: &headers, body, lane }, call)
    }

    /// Watches the object for a second at most; `reader` is given what comes, and says whether it wants more.
    pub(super) fn watch(
        &self,
        limit: Duration,
        mut reader: impl FnMut(&[u8]) -> bool,
    ) -> Result<(Response, Option<i64>)> {
        let path = self.place.watched();
        let request = Request { method: "GET", url: &path, headers: &[ACCEPT], body: &[], lane: Lane::Wait };
        let sent = Clock::system().now();
        let response = self.access.send(&request, limit, &mut |client, request, limit| {
            client.stream(request, limit, &mut reader)
        })?;
        let date = self.learn_time(&response, sent);
        Ok((response, date))
    }

    fn ask(&self, request: &Request<'_>, call: &Call) -> Result<Reply> {
        let sent = Clock::system().now();
        let response = self
            .access
            .send(request, call.remaining(), &mut |client, request, limit| client.send(request, limit))?;
        let date = self.learn_time(&response, sent);
        let outcome = Outcome::of(&response, &self.place.name);
        if let Outcome::Object(object) = &outcome {
            self.learn(object);
        }
        Ok(Reply { outcome, date })
    }

    fn learn_time(&self, response: &Response, sent: Moment) -> Option<i64> {
        let date = date(response)?;
        self.lock().time = Some((date, sent));
        Some(date)
    }

    /// What an answer is to somebody who needed another one.
    #[cold]
    pub(super) fn error(&self, outcome: &Outcome, verb: &str) -> Error {
        let place = &self.place;
        let new = |kind, what: String| Error::new(kind, what);
        match outcome {
            Outcome::Object(_) | Outcome::Stale | Outcome::Exists => {
                new(ErrorKind::Unavailable, format!("{place} is written all the time"))
            }
            Outcome::Missing => new(
                ErrorKind::Config,
                format!("there is no {place}: make it, or allow that by `create(true)`, which ConfigMaps can be"),
            ),
            Outcome::NoPlace(why) => new(ErrorKind::Config, format!("{place} cannot be: {why}")),
            Outcome::Unauthenticated => new(
                ErrorKind::Denied,
                "the API server does not accept the credential (401): has it expired, is it another cluster's?".to_owned(),
            )
            .with_code("401", None),
            Outcome::Forbidden(said) => {
                new(ErrorKind::Denied, format!("the verb `{verb}` on {place} is not allowed to us (403): {said}"))
                    .with_code("403", None)
            }
            Outcome::Refused(said) => new(ErrorKind::Denied, format!("`{verb}` of {place} is refused: {said}")),
            Outcome::Transient { what, retry_after } => {
                let error = new(ErrorKind::Unavailable, what.clone());
                match retry_after {
                    Some(wait) => error.with_retry_after(*wait),
                    None => error,
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of one slot.
pub(super) struct Write<'a> {
    pub(super) object: &'a Object,
    pub(super) keys: &'a Keys,
    pub(super) from: &'a Slot,
    pub(super) to: &'a Slot,
    /// Only if nothing at all was written to the object meanwhile.
    pub(super) strictly: bool,
    pub(super) lane: Lane,
}
