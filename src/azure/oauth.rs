//! What is sent to a token service, and what its answer means.
//!
//! RFC 6749, sections 4.4, 5.1 and 5.2, with `expires_on` (seconds since 1970) as the identity endpoints of Azure
//! have it.

use std::time::{Duration, SystemTime};

use super::{
    answer::{first_line, retry_after},
    json::Object,
    token::{Fetched, NoToken, left_until},
};
use crate::{ErrorKind, clock::wall, http::Response, percent::encode_onto};

/// Azure Storage, for every account of every cloud.
pub(super) const RESOURCE: &str = "https://storage.azure.com";
pub(super) const SCOPE: &str = "https://storage.azure.com/.default";

/// The form of a request, `application/x-www-form-urlencoded`.
#[derive(Default)]
pub(super) struct Form(String);

impl Form {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let sign = if self.0.is_empty() { "" } else { "&" };
        self.0.extend([sign, name, "=", &encoded(value)]);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Percent-encoded for a form or the query of a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode_onto(&mut encoded, text);
    encoded.replace('/', "%2F")
}

/// The token of an answer, or why it has none. Should it repeat the secret that was sent, that is left out.
pub(super) fn understand(answer: &Response, secret: &str) -> Result<Fetched, NoToken> {
    let object = if answer.truncated { None } else { Object::read(&answer.body) };
    let date = answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
    if let (200, Some(object)) = (answer.status, &object)
        && let Some(text) = object.text("access_token")
    {
        let life = life(object, date)
            .ok_or_else(|| NoToken::for_now("its answer does not say when the token ends"))?;
        return Ok(Fetched { text: text.to_owned(), life });
    }
    let text = |name| object.as_ref().and_then(|object| object.text(name));
    let error = text("error");
    let said = text("error_description").or_else(|| text("message"));
    let sent = [secret, &encoded(secret)];
    let hidden = |text: &str| {
        let hide = |text: String, secret: &&str| text.replace(*secret, "..");
        sent.iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), hide)
    };
    // Before its end can be cut off, and again without the marks that stood in it.
    let shown = |text: &str| hidden(&first_line(&hidden(text)));
    let why = match (error, said) {
        (Some(error), Some(said)) => format!(" {}: {}", shown(error), shown(said)),
        (Some(error), None) => format!(" {}", shown(error)),
        (None, Some(said)) => format!(": {}", shown(said)),
        (None, None) => ", which is no answer of a token service: is a proxy in the way?".to_owned(),
    };
    Err(NoToken {
        kind: kind(answer.status, error, said.is_some()),
        why: format!("status {}{why}", answer.status),
        retry_after: retry_after(None, answer.header("retry-after"), date.unwrap_or_else(wall)),
    })
}

/// How long the token lives. `date` is the service's own time.
fn life(object: &Object, date: Option<SystemTime>) -> Option<Duration> {
    let within = object.number("expires_in").map(Duration::from_secs);
    // Our own clock, which may be wrong, is asked only where there is nothing else.
    let now = date.or_else(|| within.is_none().then(wall));
    let on = object.number("expires_on").and_then(|end| {
        let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))?;
        Some(left_until(end, now?))
    });
    match (within, on) {
        // A token that the service kept may have less before it than `expires_in` says.
        (Some(within), Some(on)) => Some(within.min(on)),
        (within, on) => within.or(on),
    }
}

fn kind(status: u16, error: Option<&str>, said: bool) -> ErrorKind {
    match error {
        _ if !(400..=499).contains(&status) || matches!(status, 408 | 429) => ErrorKind::Unavailable,
        Some("temporarily_unavailable" | "server_error" | "timeout") => ErrorKind::Unavailable,
        Some("invalid_request" | "invalid_scope" | "invalid_resource" | "unsupported_grant_type") => {
            ErrorKind::Config
        }
        Some(_) => ErrorKind::Denied,
        None if said => ErrorKind::Denied,
        // No answer of the service's: somebody stands in the way, for now.
        None => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
