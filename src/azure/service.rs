//! One call to the service: signed, sent, and its answer understood.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    answer::{Answer, Missing, Operation, Outcome, error_body, retry_after},
    connection::Endpoint,
    credential::Credential,
    shared_key,
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Call, Clock},
    clock::wall,
    http::{Client, Lane, Request, Response},
};

/// Understood since 2017 by the service, by Azure Stack and by Azurite; all that is used here is in it.
const VERSION: &str = "2017-11-09";
/// A clock that is off by so much is worth a second try; the service bears 15 minutes.
const WORTH_A_TRY: i64 = 60;

pub(super) struct Service {
    client: Client,
    credential: Arc<Credential>,
    endpoint: Endpoint,
    pub(super) clock: Clock,
    pub(super) container: String,
    /// Seconds by which the service's clock is ahead of ours, as its last answer said.
    ahead: AtomicI64,
}

/// What is asked of the service.
pub(super) struct Question<'a> {
    pub(super) operation: Operation,
    /// `None`: of the container.
    pub(super) blob: Option<&'a str>,
    /// What follows the operation's own query; starts with `&`, or is empty.
    pub(super) query: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// What it answered.
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    pub(super) answer: Response,
    operation: Operation,
    code: Option<String>,
    retry_after: Option<Duration>,
    /// The token that it was asked with.
    bearer: Option<Arc<str>>,
    credential: Arc<Credential>,
}

impl Service {
    pub(super) fn new(
        client: Client,
        credential: Arc<Credential>,
        endpoint: Endpoint,
        clock: Clock,
        container: String,
    ) -> Self {
        Self { client, credential, endpoint, clock, container, ahead: AtomicI64::new(0) }
    }

    /// Asks, and once more when we were not believed: with the service's time, or with a new token.
    pub(super) fn ask(&self, question: &Question<'_>, call: &Call) -> Result<Box<Reply>> {
        let before = self.ahead.load(Ordering::Relaxed);
        let reply = self.ask_once(question, call)?;
        if reply.outcome != Outcome::Unauthenticated {
            return Ok(reply);
        }
        let learned = self.ahead.load(Ordering::Relaxed).abs_diff(before);
        let again = match (&*self.credential, &reply.bearer) {
            (Credential::Bearer(tokens), Some(header)) => tokens.refused(header, call)?,
            _ => learned >= WORTH_A_TRY.unsigned_abs(),
        };
        if again { self.ask_once(question, call) } else { Ok(reply) }
    }

    fn ask_once(&self, question: &Question<'_>, call: &Call) -> Result<Box<Reply>> {
        let path = match question.blob {
            Some(blob) => self.endpoint.blob_path(&self.container, blob),
            None => self.endpoint.container_path(&self.container),
        };
        let (method, query) = question.operation.method_and_query();
        let query = &*match question.query {
            "" => Cow::Borrowed(query),
            more => Cow::Owned(format!("{query}{more}")),
        };
        let date = httpdate::fmt_http_date(self.time_there());
        let mut headers = vec![("x-ms-date", &*date), ("x-ms-version", VERSION)];
        headers.extend_from_slice(question.headers);
        let (authorization, full_query);
        let mut bearer = None;
        let query = match &*self.credential {
            Credential::Key { account, key } => {
                let signed = shared_key::Request { method, path: &path, query, headers: &headers };
                authorization = key.authorization(account, &signed);
                headers.push(("Authorization", &*authorization));
                query
            }
            Credential::Sas(sas) => {
                let separator = if query.is_empty() { "" } else { "&" };
                full_query = format!("{query}{separator}{}", sas.query());
                &full_query
            }
            Credential::Bearer(tokens) => {
                headers.push(("Authorization", bearer.insert(tokens.header(call)?)));
                query
            }
        };
        let url = self.endpoint.url(&path, query);
        let lane = match question.operation {
            Operation::Release => Lane::Release,
            _ => Lane::Ordinary,
        };
        let request = Request { method, url: &url, headers: &headers, body: &[], lane };
        let answer = self.client.send(&request, call.remaining())?;
        Ok(self.understand(question.operation, answer, bearer))
    }

    // Off the stack while a request is under way.
    #[inline(never)]
    fn understand(&self, operation: Operation, answer: Response, bearer: Option<Arc<str>>) -> Box<Reply> {
        let marked = answer.header("x-ms-request-id").is_some();
        let date = answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        if let Some(there) = date.filter(|_| marked) {
            self.ahead.store(seconds_from(wall(), there), Ordering::Relaxed);
        }
        let code = answer.header("x-ms-error-code").map(str::to_owned);
        let code = code.or_else(|| Some(error_body(&answer.body)?.0));
        let retry_after = retry_after(
            answer.header("x-ms-retry-after-ms"),
            answer.header("retry-after"),
            date.unwrap_or_else(wall),
        );
        let status = answer.status;
        let outcome = Answer { operation, status, code: code.as_deref(), marked, retry_after }.outcome();
        let credential = self.credential.clone();
        Box::new(Reply { outcome, answer, operation, code, retry_after, bearer, credential })
    }

    /// The time at which an answer was given, by the service's clock.
    pub(super) fn time_of(&self, reply: &Reply) -> SystemTime {
        let date = reply.answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        date.unwrap_or_else(|| self.time_there())
    }

    /// The service's time: a clock 16 minutes off would be refused (403) until the lease is lost.
    fn time_there(&self) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        let there = if ahead < 0 { wall().checked_sub(by) } else { wall().checked_add(by) };
        // The years that HTTP can write.
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        there.unwrap_or(SystemTime::UNIX_EPOCH).clamp(SystemTime::UNIX_EPOCH, end)
    }
}

/// How far `there` is ahead of `here`.
fn seconds_from(here: SystemTime, there: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match there.duration_since(here) {
        Ok(ahead) => whole(ahead),
        Err(behind) => -whole(behind.duration()),
    }
}

impl Operation {
    fn method_and_query(self) -> (&'static str, &'static str) {
        match self {
            Self::Acquire | Self::Renew | Self::Change | Self::Release | Self::Break => ("PUT", "comp=lease"),
            Self::CreateBlob => ("PUT", ""),
            Self::CreateContainer => ("PUT", "restype=container"),
            Self::WriteMetadata => ("PUT", "comp=metadata"),
            Self::Properties => ("HEAD", ""),
            Self::Delete => ("DELETE", ""),
            Self::List => ("GET", "restype=container&comp=list"),
        }
    }
}

impl Reply {
    /// The lease that the answer speaks of, if it is this one: `Done` alone says only that the service was
    /// content.
    pub(super) fn is_of(&self, lease: &str) -> bool {
        self.answer.header("x-ms-lease-id").is_some_and(|id| id.eq_ignore_ascii_case(lease))
    }

    /// What the answer is to somebody who needed another one.
    #[cold]
    pub(super) fn error(&self, container: &str) -> Error {
        let (kind, what) = match self.outcome {
            Outcome::Lost(reason) => return self.coded(Error::lost(reason)),
            Outcome::Transient { .. } => (ErrorKind::Unavailable, None),
            Outcome::ContainerBeingDeleted => {
                (ErrorKind::Unavailable, Some(format!("the container {container:?} is being deleted")))
            }
            Outcome::Missing(Missing::Container) => (
                ErrorKind::Config,
                Some(format!(
                    "there is no container {container:?}: create it, or allow that by `create_container(true)`"
                )),
            ),
            Outcome::Unauthenticated => (ErrorKind::Denied, Some(self.credential.doubt())),
            Outcome::Denied if self.code.as_deref() == Some("AuthorizationPermissionMismatch") => {
                (ErrorKind::Denied, Some(self.credential.right(self.operation.permission())))
            }
            Outcome::Denied => (ErrorKind::Denied, None),
            Outcome::Config => (ErrorKind::Config, None),
            Outcome::Foreign => {
                (ErrorKind::Foreign, Some("the blob is of a kind that no lock is".to_owned()))
            }
            _ => (ErrorKind::Protocol, None),
        };
        let status = self.answer.status;
        let said = error_body(&self.answer.body).map(|(_, message)| message).filter(|m| !m.is_empty());
        let marked = self.answer.header("x-ms-request-id").is_some();
        let what = match (what, said) {
            (Some(what), _) => what,
            (None, Some(said)) => format!("status {status}: {said}"),
            (None, None) if !marked => {
                format!("status {status}, which is no answer of the service: is a proxy in the way?")
            }
            (None, None) => format!("status {status}"),
        };
        let error = Error::new(kind, what);
        match self.retry_after {
            Some(wait) => self.coded(error).with_retry_after(wait),
            None => self.coded(error),
        }
    }

    fn coded(&self, error: Error) -> Error {
        match &self.code {
            Some(code) => error.with_code(code, self.answer.header("x-ms-request-id")),
            None => error,
        }
    }
}
