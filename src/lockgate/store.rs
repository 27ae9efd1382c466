//! The store: the locks of one server.

use std::{fmt, sync::Arc, time::Duration};

use super::protocol::{Answer, Handle, Question};
use crate::{
    Error, ErrorKind, LostReason, Mode, Result,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
    http::{self, Client, Lane, Request},
};

/// The server counts whole seconds of its wall clock: 10 s from the second that has begun.
const TTL: Duration = Duration::from_secs(9);

/// The locks of a lockgate server.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    client: Client,
    /// Without a slash at its end.
    url: String,
}

impl Store {
    /// The server at this URL: that of its `acquire`, without that. No request is sent.
    ///
    /// # Errors
    /// `Config` for what is no URL, has a password in it, or needs a TLS feature that is off.
    pub fn new(url: &str) -> Result<Self> {
        // Nobody's secret is in a request, so that the scheme of the URL decides.
        let client = Client::new(&http::Settings { allow_http: true, ..http::Settings::default() })?;
        let url = url.trim_end_matches('/').to_owned();
        if url.contains(['?', '#']) {
            let what = "the URL of a lockgate server ends with its path";
            return Err(Error::new(ErrorKind::Config, what));
        }
        client.check_url(&url)?;
        Ok(Self(Arc::new(Inner { client, url })))
    }
}

impl Inner {
    fn ask(&self, question: &Question<'_>, call: &Call) -> Result<Answer> {
        let url = format!("{}{}", self.url, question.path());
        let (headers, body) = ([("Content-Type", "application/json")], question.body());
        let lane = if let Question::Release(_) = question { Lane::Release } else { Lane::Ordinary };
        let request = Request { method: "POST", url: &url, headers: &headers, body: body.as_bytes(), lane };
        Ok(question.answer(&self.client.send(&request, call.remaining())?))
    }

    /// Renews; gives the moment that the server counts from.
    fn renew(&self, handle: &Handle, call: &Call) -> Result<Moment> {
        let since = call.now();
        match self.ask(&Question::Renew(handle), call)? {
            Answer::Done => Ok(since),
            Answer::Taken => Err(Error::lost(LostReason::Taken)),
            Answer::Gone => Err(Error::lost(LostReason::Deleted)),
            other => Err(failed(other)),
        }
    }

    fn release(&self, handle: &Handle, call: &Call) -> Result<()> {
        match self.ask(&Question::Release(handle), call)? {
            Answer::Done => Ok(()),
            Answer::Taken => Err(Error::lost(LostReason::Taken)),
            Answer::Gone => Err(Error::lost(LostReason::Deleted)),
            other => Err(failed(other)),
        }
    }
}

/// What an answer is to somebody who needed another one.
#[cold]
fn failed(answer: Answer) -> Error {
    let what = match answer {
        Answer::Failed(what) => what,
        other => format!("an answer to something else: {other:?}"),
    };
    Error::new(ErrorKind::Unavailable, what)
}

/// A lease that was granted, and counts when it has been renewed.
#[derive(Default)]
struct Pending(Option<Held>);

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        Abilities::default().ttl(Some(TTL)).shared().punctual()
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let (call, shared) = (ask.call().clone(), ask.mode() == Mode::Shared);
        let mut held = match ask.scratch::<Pending>().0.take() {
            Some(held) => held,
            None => match self.0.ask(&Question::Acquire { lock: ask.name(), shared }, &call)? {
                Answer::Granted(handle) => Held { store: self.0.clone(), handle, shared, released: false },
                Answer::Busy => return Ok(Attempt::Busy(Busy::default())),
                other => return Err(failed(other)),
            },
        };
        match held.renew(&call) {
            Ok(since) => {
                let uuid = held.handle.uuid.clone();
                Ok(Attempt::Granted(Grant::new(held, since).lease_id(uuid).ttl(Some(TTL))))
            }
            // It was never stored.
            Err(error) if error.kind() == ErrorKind::Lost => Ok(Attempt::Busy(Busy::default())),
            Err(error) => {
                ask.scratch::<Pending>().0 = Some(held);
                ask.owe();
                Err(error)
            }
        }
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        let call = ask.call().clone();
        // An acquire without an answer has no id: it expires by itself.
        let Some(held) = &mut ask.scratch::<Pending>().0 else { return Ok(()) };
        match held.release(&call) {
            Err(error) if error.kind() == ErrorKind::Lost => Ok(()),
            released => released,
        }
    }
}

struct Held {
    store: Arc<Inner>,
    handle: Handle,
    shared: bool,
    /// A release was sent whose answer was lost.
    released: bool,
}

impl Lease for Held {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        self.store.renew(&self.handle, call)
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        if self.shared && self.released {
            // The server would count it for another reader.
            let what = "whether the release came through is not known";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        let released = self.store.release(&self.handle, call);
        self.released |= released.as_ref().is_err_and(Error::is_unclear);
        released
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("lockgate::Store").field("url", &self.0.url).finish_non_exhaustive()
    }
}
