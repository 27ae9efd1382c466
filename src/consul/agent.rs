//! The calls to an agent, each with a budget.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::answer::{Answer, Commit, Entry, Fault, Found, Info};
use crate::{
    Error, Result,
    http::{Client, Lane, Request, Response},
};

/// What marks a key as a lock, to every program that locks by Consul's own library.
pub(super) const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// One agent, and how to speak with it.
pub(super) struct Agent {
    client: Client,
    /// Without a slash at the end.
    base: String,
    headers: Vec<(&'static str, String)>,
    /// Of each request: empty, or such as `dc=NAME&ns=NAME`.
    query: String,
    /// What all keys start with, for errors.
    prefix: String,
}

/// What a session is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) ttl: Duration,
    pub(super) lock_delay: Duration,
    /// Whether the keys go with the session.
    pub(super) deletes: bool,
    pub(super) node_checks: Vec<String>,
    pub(super) service_checks: Vec<String>,
}

/// One operation of a transaction: all are done, or none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op<'a> {
    /// It is as it was.
    CheckIndex {
        key: &'a str,
        index: u64,
    },
    /// It is not there; and this token may write it.
    CheckNone {
        key: &'a str,
    },
    Lock {
        key: &'a str,
        session: &'a str,
        value: &'a str,
    },
    Unlock {
        key: &'a str,
        session: &'a str,
        value: &'a [u8],
    },
    Delete {
        key: &'a str,
    },
    /// All keys that start like this.
    Below {
        prefix: &'a str,
    },
}

/// How sure a look has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    /// The leader says so, which may just have been replaced.
    Leader,
    /// A majority confirms the leader.
    Quorum,
}

impl Agent {
    pub(super) fn new(
        client: Client,
        base: String,
        headers: Vec<(&'static str, String)>,
        query: String,
        prefix: &str,
    ) -> Self {
        Self { client, base, headers, query, prefix: prefix.to_owned() }
    }

    /// A new session, and its id.
    pub(super) fn create(&self, spec: &Spec, limit: Duration) -> Result<String> {
        let mut body = json!({
            "Name": spec.name,
            "TTL": duration(spec.ttl),
            // A number would be taken for seconds or for nanoseconds, by its size.
            "LockDelay": duration(spec.lock_delay),
            "Behavior": if spec.deletes { "delete" } else { "release" },
            // Left out, it would be `serfHealth`.
            "NodeChecks": spec.node_checks,
        });
        if !spec.service_checks.is_empty() {
            let checks = spec.service_checks.iter().map(|id| json!({ "ID": id }));
            body["ServiceChecks"] = checks.collect();
        }
        let answer = self.put("session/create", body.to_string().as_bytes(), Lane::Ordinary, limit)?;
        read(&answer).created().map_err(|fault| session_error(&answer, fault))
    }

    /// Starts the session's timer anew; `false`: there is no such session.
    pub(super) fn renew(&self, session: &str, limit: Duration) -> Result<bool> {
        let answer = self.put(&format!("session/renew/{session}"), &[], Lane::Ordinary, limit)?;
        read(&answer).renewed(session).map_err(|fault| session_error(&answer, fault))
    }

    /// Ends a session, if there is such a one.
    pub(super) fn destroy(&self, session: &str, limit: Duration) -> Result<()> {
        let answer = self.put(&format!("session/destroy/{session}"), &[], Lane::Release, limit)?;
        read(&answer).destroyed().map_err(|fault| session_error(&answer, fault))
    }

    pub(super) fn session(&self, session: &str, limit: Duration) -> Result<Option<Info>> {
        let answer = self.get(&format!("session/info/{session}"), "consistent", Lane::Ordinary, limit)?;
        read(&answer).session().map_err(|fault| session_error(&answer, fault))
    }

    /// A key as it is now.
    pub(super) fn look(&self, key: &str, sure: Sure, limit: Duration) -> Result<Option<Entry>> {
        let query = if sure == Sure::Quorum { "consistent" } else { "" };
        let found = self.find(key, query, Lane::Ordinary, limit)?;
        Ok(found.entries.into_iter().next())
    }

    /// All keys that start like this.
    pub(super) fn list(&self, prefix: &str, limit: Duration) -> Result<Vec<Entry>> {
        Ok(self.find(prefix, "recurse&consistent", Lane::Ordinary, limit)?.entries)
    }

    /// The same as [`look`](Self::look) for one key, or as [`list`](Self::list), when something has happened since
    /// this index, or after so long.
    pub(super) fn wait(
        &self,
        key: &str,
        all: bool,
        index: u64,
        wait: Duration,
        limit: Duration,
    ) -> Result<Found> {
        let all = if all { "recurse&" } else { "" };
        let query = format!("{all}index={index}&wait={}ms", wait.as_millis());
        self.find(key, &query, Lane::Wait, limit)
    }

    fn find(&self, key: &str, query: &str, lane: Lane, limit: Duration) -> Result<Found> {
        let answer = self.get(&format!("kv/{key}"), query, lane, limit)?;
        read(&answer).found().map_err(|fault| self.key_error(&answer, fault, "read"))
    }

    /// Does all of it or nothing.
    pub(super) fn commit(&self, ops: &[Op<'_>], lane: Lane, limit: Duration) -> Result<Commit> {
        let ops: Vec<Value> = ops.iter().map(|op| json!({ "KV": op.json() })).collect();
        let body = Value::Array(ops).to_string();
        // Of a transaction that only reads.
        let answer = self.send("PUT", "txn", "consistent", body.as_bytes(), lane, limit)?;
        read(&answer).committed().map_err(|fault| self.key_error(&answer, fault, "write"))
    }

    fn get(&self, path: &str, query: &str, lane: Lane, limit: Duration) -> Result<Response> {
        self.send("GET", path, query, &[], lane, limit)
    }

    fn put(&self, path: &str, body: &[u8], lane: Lane, limit: Duration) -> Result<Response> {
        self.send("PUT", path, "", body, lane, limit)
    }

    fn send(
        &self,
        method: &'static str,
        path: &str,
        query: &str,
        body: &[u8],
        lane: Lane,
        limit: Duration,
    ) -> Result<Response> {
        let mut url = format!("{}/v1/{path}", self.base);
        for part in [query, &self.query].into_iter().filter(|part| !part.is_empty()) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(part);
        }
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let request = Request { method, url: &url, headers: &headers, body, lane };
        Ok(self.client.send(&request, limit)?)
    }

    #[cold]
    fn key_error(&self, answer: &Response, fault: Fault, policy: &str) -> Error {
        error(answer, fault, || format!("key_prefix {:?} {{ policy = {policy:?} }}", self.prefix))
    }
}

impl Op<'_> {
    fn json(&self) -> Value {
        match *self {
            Op::CheckIndex { key, index } => json!({ "Verb": "check-index", "Key": key, "Index": index }),
            Op::CheckNone { key } => json!({ "Verb": "check-not-exists", "Key": key }),
            Op::Lock { key, session, value } => json!({
                "Verb": "lock", "Key": key, "Session": session, "Flags": FLAGS, "Value": STANDARD.encode(value),
            }),
            Op::Unlock { key, session, value } => json!({
                "Verb": "unlock", "Key": key, "Session": session, "Flags": FLAGS, "Value": STANDARD.encode(value),
            }),
            Op::Delete { key } => json!({ "Verb": "delete", "Key": key }),
            Op::Below { prefix } => json!({ "Verb": "get-tree", "Key": prefix }),
        }
    }
}

#[cold]
fn session_error(answer: &Response, fault: Fault) -> Error {
    error(answer, fault, || "session_prefix \"\" { policy = \"write\" }".to_owned())
}

fn read(answer: &Response) -> Answer<'_> {
    let index = answer.header("x-consul-index").and_then(|index| index.parse().ok());
    Answer { status: answer.status, index, body: &answer.body }
}

/// What an answer is to somebody who needed another one; `rule`: the right that it takes.
fn error(answer: &Response, fault: Fault, rule: impl Fn() -> String) -> Error {
    let Fault { kind, said } = fault;
    let status = answer.status;
    let what = match kind {
        _ if answer.truncated => "the answer is too long".to_owned(),
        crate::ErrorKind::Denied => {
            format!("the token lacks the rule `{}` (status {status}: {said})", rule())
        }
        _ if said.is_empty() => {
            format!("status {status}, which is no answer of Consul: is a proxy in the way?")
        }
        _ => format!("status {status}: {said}"),
    };
    let error = Error::new(kind, what);
    // In seconds: what limits an agent's load from outside says it so.
    match answer.header("retry-after").and_then(|wait| wait.trim().parse().ok()) {
        Some(seconds) => error.with_retry_after(Duration::from_secs(seconds).min(LONGEST_WAIT)),
        None => error,
    }
}

/// As Go writes it.
fn duration(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("base", &self.base).finish_non_exhaustive()
    }
}
