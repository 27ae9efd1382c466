//! What an answer of the API server means ("API Concepts" and `metav1.Status` of the Kubernetes API reference).
//!
//! The reason decides, not the message: two reasons share the status 409. An answer without the server's own mark,
//! an object or a `Status`, is a proxy's or a captive portal's, and no word about a lock.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::object::Object;
use crate::{http::Response, shown::shown};

/// The longest that an answer can make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
const LONGEST_MESSAGE: usize = 300;

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The object as it is now.
    Object(Object),
    /// The object is not what a patch said, or was written meanwhile.
    Stale,
    /// To create: there is one already.
    Exists,
    /// There is no such object.
    Missing,
    /// There is no such namespace, or no such kind of objects.
    NoPlace(String),
    /// Who we are was not believed.
    Unauthenticated,
    /// We may not.
    Forbidden(String),
    /// What would be stored is refused: too large, or against a policy.
    Refused(String),
    /// Not now, or no word of the server at all. It may have been carried out.
    Transient { what: String, retry_after: Option<Duration> },
}

impl Outcome {
    pub(super) fn of(response: &Response, name: &str) -> Self {
        let status = response.status;
        let body: Option<Value> = serde_json::from_slice(&response.body).ok();
        let retry_after = response.header("retry-after").and_then(seconds);
        let later = |what: String| Self::Transient { what, retry_after };
        if let 200 | 201 = status {
            return match body.as_ref().and_then(|body| Object::of(body, name)) {
                Some(object) => Self::Object(object),
                None if response.truncated => later("its answer is too large".to_owned()),
                None => later(nobody(status)),
            };
        }
        let Some(body) = body.filter(|body| body.get("kind").and_then(Value::as_str) == Some("Status"))
        else {
            // What an API server without such a resource says.
            if status == 404 && response.body.starts_with(b"404 page not found") {
                return Self::NoPlace("it has no such resource".to_owned());
            }
            return later(nobody(status));
        };
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let said = || plain(text("message"));
        let details = body.get("details");
        match (status, text("reason")) {
            (401, _) => Self::Unauthenticated,
            (403, _) => Self::Forbidden(said()),
            (404, "NotFound") => {
                let named = details.and_then(|details| details.get("name")).and_then(Value::as_str);
                if named == Some(name) { Self::Missing } else { Self::NoPlace(said()) }
            }
            (409, "AlreadyExists") => Self::Exists,
            (409, _) => Self::Stale,
            // A test of a patch that fails is answered without any cause.
            (422, _) if details.and_then(|details| details.get("causes")).is_none() => Self::Stale,
            (400 | 413 | 415 | 422, _) => Self::Refused(said()),
            _ => later(format!("status {status}: {}", said())),
        }
    }
}

fn nobody(status: u16) -> String {
    format!("status {status}, which is no answer of an API server: is a proxy in the way?")
}

/// One line, fit for people.
fn plain(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    shown(line, LONGEST_MESSAGE)
}

/// `Retry-After` in seconds, as API servers send it.
fn seconds(header: &str) -> Option<Duration> {
    Some(Duration::from_secs(header.trim().parse().ok()?).min(LONGEST_WAIT))
}

/// The server's time, in seconds since 1970: no later than it is.
pub(super) fn date(response: &Response) -> Option<i64> {
    let date = httpdate::parse_http_date(response.header("date")?).ok()?;
    i64::try_from(date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, body: &str) -> Outcome {
        Outcome::of(&Response::of(status, &[("retry-after", "3")], body), "x")
    }

    fn status(reason: &str, more: &str) -> String {
        format!(
            r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"said so\nand more","reason":"{reason}"{more}}}"#
        )
    }

    /// As kube-apiserver 1.34 answered.
    #[test]
    fn answers_of_the_server() {
        let object =
            r#"{"kind":"PartialObjectMetadata","metadata":{"name":"x","uid":"u","resourceVersion":"7"}}"#;
        assert!(matches!(outcome(200, object), Outcome::Object(object) if object.version == 7));
        assert!(matches!(outcome(201, object), Outcome::Object(_)));
        assert_eq!(outcome(422, &status("Invalid", r#","details":{}"#)), Outcome::Stale);
        assert_eq!(outcome(409, &status("Conflict", "")), Outcome::Stale);
        assert_eq!(outcome(409, &status("AlreadyExists", "")), Outcome::Exists);
        let named = |name, kind| format!(r#","details":{{"name":"{name}","kind":"{kind}"}}"#);
        assert_eq!(outcome(404, &status("NotFound", &named("x", "configmaps"))), Outcome::Missing);
        let place = outcome(404, &status("NotFound", &named("a", "namespaces")));
        assert_eq!(place, Outcome::NoPlace("said so".to_owned()));
        assert!(matches!(outcome(404, "404 page not found\n"), Outcome::NoPlace(_)));
        assert_eq!(outcome(401, &status("Unauthorized", "")), Outcome::Unauthenticated);
        assert_eq!(outcome(403, &status("Forbidden", "")), Outcome::Forbidden("said so".to_owned()));
        let causes =
            r#","details":{"causes":[{"reason":"FieldValueTooLong","field":"metadata.annotations"}]}"#;
        assert_eq!(outcome(422, &status("Invalid", causes)), Outcome::Refused("said so".to_owned()));
        for code in [429, 500, 503, 504] {
            assert_eq!(
                outcome(code, &status("Whatever", "")),
                Outcome::Transient {
                    what: format!("status {code}: said so"),
                    retry_after: Some(Duration::from_secs(3))
                }
            );
        }
    }

    #[test]
    fn answers_of_others_say_nothing() {
        let other = r#"{"metadata":{"name":"y","uid":"u","resourceVersion":"7"}}"#;
        for body in ["", "<html>sign in</html>", "{}", "null", other, r#"{"kind":"Status"}"#] {
            for code in [200, 201, 204, 302, 400, 401, 403, 404, 409, 422, 500] {
                let known = body.contains("Status") && matches!(code, 400 | 401 | 403 | 409 | 422);
                let transient = matches!(outcome(code, body), Outcome::Transient { .. });
                assert!(transient || known || (body.contains("Status") && code == 404), "{code} {body}");
            }
        }
    }

    #[test]
    fn dates_are_whole_seconds() {
        let of = |date: &str| super::date(&Response::of(200, &[("date", date)], ""));
        assert_eq!(of("Sat, 21 Nov 2026 11:38:38 GMT"), Some(1_795_261_118));
        assert_eq!(of("now"), None);
        assert_eq!(super::date(&Response::of(200, &[], "")), None);
    }
}
