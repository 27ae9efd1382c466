//! What an agent's answers mean.
//!
//! Consul marks its answers only here and there, and its errors are plain text. So success and loss need what no
//! captive portal knows: the session's id, the header `X-Consul-Index`, the shape of the JSON. Whatever is not
//! understood says nothing of a lock, and is tried again.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{ErrorKind, shown::shown};

/// An answer, as far as its meaning depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// The header `X-Consul-Index`.
    pub(super) index: Option<u64>,
    pub(super) body: &'a [u8],
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// What the agent said, fit for people; empty if it said nothing, or it was not the agent.
    pub(super) said: String,
}

/// A key in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) flags: u64,
    pub(super) session: Option<String>,
    /// `ModifyIndex`.
    pub(super) index: u64,
    /// `CreateIndex`.
    pub(super) created: u64,
}

/// What a look into the store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// From where a blocking query goes on.
    pub(super) index: u64,
    pub(super) entries: Vec<Entry>,
}

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    Done(Vec<Entry>),
    /// Another session has the key.
    Held,
    /// A session ended while it had the key, and its lock-delay runs.
    Delayed,
    /// Our session is gone.
    NoSession,
    /// Something is not as it was when we looked.
    Stale,
}

/// A session, as an agent tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) name: String,
    pub(super) lock_delay: std::time::Duration,
    pub(super) expires: bool,
}

impl Answer<'_> {
    /// The id of a new session.
    pub(super) fn created(&self) -> Result<String, Fault> {
        let id = self.json().and_then(|json| Some(json.get("ID")?.as_str()?.to_owned()));
        id.filter(|id| self.status == 200 && is_id(id)).ok_or_else(|| self.fault())
    }

    /// Whether the session lives on: `false` when the agent knows it no more.
    pub(super) fn renewed(&self, id: &str) -> Result<bool, Fault> {
        match self.status {
            200 if self.only_session().is_some_and(|session| session["ID"] == *id) => Ok(true),
            404 if self.text().starts_with("Session id") && self.text().contains(id) => Ok(false),
            _ => Err(self.fault()),
        }
    }

    pub(super) fn destroyed(&self) -> Result<(), Fault> {
        if self.status == 200 && self.text() == "true" { Ok(()) } else { Err(self.fault()) }
    }

    /// A session; `None`: there is none.
    pub(super) fn session(&self) -> Result<Option<Info>, Fault> {
        if self.status == 200 && self.index.is_some() && self.text() == "[]" {
            return Ok(None);
        }
        let session = self.only_session().filter(|_| self.status == 200).ok_or_else(|| self.fault())?;
        let text = |field: &str| session[field].as_str().unwrap_or_default();
        Ok(Some(Info {
            name: text("Name").to_owned(),
            lock_delay: std::time::Duration::from_nanos(session["LockDelay"].as_u64().unwrap_or_default()),
            expires: !matches!(text("TTL"), "" | "0" | "0s"),
        }))
    }

    /// The keys that were asked for; none, when there are none.
    pub(super) fn found(&self) -> Result<Found, Fault> {
        let index = self.index.ok_or_else(|| self.fault())?;
        let entries = match self.status {
            404 => Some(Vec::new()),
            200 => self.json().and_then(|json| json.as_array()?.iter().map(entry).collect()),
            _ => None,
        };
        entries.map(|entries| Found { index, entries }).ok_or_else(|| self.fault())
    }

    /// What came of a transaction.
    pub(super) fn committed(&self) -> Result<Commit, Fault> {
        let json = self.json().filter(|_| matches!(self.status, 200 | 409)).ok_or_else(|| self.fault())?;
        let list = |field: &str| json.get(field).and_then(Value::as_array).filter(|list| !list.is_empty());
        match (self.status, list("Errors")) {
            (200, None) => {
                let results = json.get("Results").ok_or_else(|| self.fault())?;
                let results = results.as_array().map_or(&[][..], Vec::as_slice);
                let entries: Option<Vec<Entry>> =
                    results.iter().map(|result| entry(result.get("KV")?)).collect();
                entries.map(Commit::Done).ok_or_else(|| self.fault())
            }
            (409, Some(errors)) => {
                let said: Vec<&str> = errors.iter().filter_map(|error| error.get("What")?.as_str()).collect();
                let says = |what: &str| said.iter().find(|said| said.contains(what));
                if let Some(denied) =
                    ["Permission denied", "ACL not found"].iter().find_map(|what| says(what))
                {
                    return Err(Fault { kind: ErrorKind::Denied, said: for_people(denied) });
                }
                Ok(if says("due to lock delay").is_some() {
                    Commit::Delayed
                } else if says("invalid session").is_some() {
                    Commit::NoSession
                } else if says("lock is already held").is_some() {
                    Commit::Held
                } else if ["index", "exist", "isn't held"].iter().any(|what| says(what).is_some()) {
                    Commit::Stale
                } else {
                    let said = said.first().map_or_else(String::new, |said| for_people(said));
                    return Err(Fault { kind: ErrorKind::Protocol, said });
                })
            }
            _ => Err(self.fault()),
        }
    }

    /// What it is when it is no success.
    fn fault(&self) -> Fault {
        let said = for_people(&self.text());
        let says = |what: &str| said.contains(what);
        let kind = match self.status {
            401 => ErrorKind::Denied,
            403 | 500
                if says("Permission denied") || says("ACL not found") || says("ACL support disabled") =>
            {
                ErrorKind::Denied
            }
            400 if !said.is_empty() => ErrorKind::Config,
            413 => ErrorKind::Config,
            500 if says("Invalid Session TTL") || says("No path to datacenter") => ErrorKind::Config,
            _ => ErrorKind::Unavailable,
        };
        Fault { kind, said }
    }

    fn only_session(&self) -> Option<Value> {
        match self.json()? {
            Value::Array(mut sessions) if sessions.len() == 1 => sessions.pop(),
            _ => None,
        }
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body).ok()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(64 * 1024)]).trim().to_owned()
    }
}

/// Where the next blocking query goes on ("Blocking Queries"): an index that went back starts again, and none is
/// under 1, with which the agent would never wait.
pub(super) fn next_index(before: u64, now: u64) -> u64 {
    if now < before { 0 } else { now.max(1) }
}

fn entry(json: &Value) -> Option<Entry> {
    let value = match json.get("Value") {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => STANDARD.decode(value.as_str()?).ok()?,
    };
    let session = json.get("Session").and_then(Value::as_str).filter(|session| !session.is_empty());
    Some(Entry {
        key: json.get("Key")?.as_str()?.to_owned(),
        value,
        flags: json.get("Flags")?.as_u64()?,
        session: session.map(str::to_owned),
        index: json.get("ModifyIndex")?.as_u64()?,
        created: json.get("CreateIndex")?.as_u64()?,
    })
}

/// Fit for a path: the ids look like UUIDs, and need not be such.
fn is_id(id: &str) -> bool {
    (1..=100).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The first line, unless it is of somebody else.
fn for_people(text: &str) -> String {
    if text.starts_with(['<', '{', '[']) {
        return String::new();
    }
    // What was no text in the answer.
    let line = text.lines().next().unwrap_or_default().replace('\u{fffd}', "");
    shown(&line, 300)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
