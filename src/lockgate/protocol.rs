//! What is asked of the server, and what its answers mean. Its errors are texts, and are known by them.

use serde_json::{Value, json};

use crate::{http::Response, shown::shown};

/// A lease: the server knows it by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) uuid: String,
    pub(super) lock: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    Acquire { lock: &'a str, shared: bool },
    Renew(&'a Handle),
    Release(&'a Handle),
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To an acquire, with the lease.
    Granted(Handle),
    /// To the others.
    Done,
    /// Another has it.
    Busy,
    /// The lease is another's now.
    Taken,
    /// There is no lease at all.
    Gone,
    /// Something is wrong with the server or what is behind it, or it is no such server.
    Failed(String),
}

impl Question<'_> {
    /// What follows the server's own path.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Acquire { .. } => "/acquire",
            Self::Renew(_) => "/renew-lease",
            Self::Release(_) => "/release",
        }
    }

    pub(super) fn body(&self) -> String {
        match self {
            // No `acquirerId`: with one the server queues us, and forgets that.
            Self::Acquire { lock, shared } => json!({ "lockName": lock, "opts": { "shared": shared } }),
            Self::Renew(handle) | Self::Release(handle) => {
                json!({ "lockHandle": { "uuid": handle.uuid, "lockName": handle.lock } })
            }
        }
        .to_string()
    }

    /// What the server said to it. Only the form of its answers tells that it is one: a 200 of anybody is none.
    pub(super) fn answer(&self, response: &Response) -> Answer {
        let status = response.status;
        let body: Option<Value> = serde_json::from_slice(&response.body).ok();
        let error = body.as_ref().and_then(|body| body.get("err")?.as_str());
        let Some(error) = error.filter(|_| status == 200) else {
            return Answer::Failed(format!(
                "status {status}, which is no answer of a lockgate server: is its path right?"
            ));
        };
        match (error, self) {
            ("", Self::Acquire { lock, .. }) => match handle(body.as_ref(), lock) {
                Some(handle) => Answer::Granted(handle),
                None => Answer::Failed("it granted a lease without an id, or of another lock".to_owned()),
            },
            ("", _) => Answer::Done,
            // To an acquire the others say that it lost a race.
            ("should wait", _)
            | ("lock already leased" | "no existing lock lease found", Self::Acquire { .. }) => Answer::Busy,
            ("lock already leased", _) => Answer::Taken,
            ("no existing lock lease found", _) => Answer::Gone,
            (error, _) => Answer::Failed(shown(error, 300)),
        }
    }
}

fn handle(body: Option<&Value>, lock: &str) -> Option<Handle> {
    let handle = body?.get("lockHandle")?;
    let text = |field: &str| handle.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    (text("lockName")? == lock).then_some(Handle { uuid: text("uuid")?.to_owned(), lock: lock.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACQUIRE: Question<'_> = Question::Acquire { lock: "x", shared: true };

    fn answer(question: &Question<'_>, status: u16, body: &str) -> Answer {
        question.answer(&Response::of(status, &[], body))
    }

    fn ours() -> Handle {
        Handle { uuid: "u".into(), lock: "x".into() }
    }

    #[test]
    fn questions_are_those_of_lockgate() {
        assert_eq!(ACQUIRE.body(), r#"{"lockName":"x","opts":{"shared":true}}"#);
        let handle = ours();
        assert_eq!(Question::Renew(&handle).body(), r#"{"lockHandle":{"lockName":"x","uuid":"u"}}"#);
        assert_eq!(Question::Release(&handle).body(), Question::Renew(&handle).body());
        assert_eq!((ACQUIRE.path(), Question::Renew(&handle).path()), ("/acquire", "/renew-lease"));
    }

    #[test]
    fn answers_of_the_server() {
        let granted = r#"{"lockHandle":{"uuid":"u","lockName":"x"},"err":""}"#;
        assert_eq!(answer(&ACQUIRE, 200, granted), Answer::Granted(ours()));
        for busy in ["should wait", "lock already leased", "no existing lock lease found"] {
            let body = format!(r#"{{"lockHandle":{{"uuid":"","lockName":""}},"err":"{busy}"}}"#);
            assert_eq!(answer(&ACQUIRE, 200, &body), Answer::Busy);
        }
        let handle = ours();
        for question in [Question::Renew(&handle), Question::Release(&handle)] {
            assert_eq!(answer(&question, 200, r#"{"err":""}"#), Answer::Done);
            assert_eq!(answer(&question, 200, r#"{"err":"lock already leased"}"#), Answer::Taken);
            assert_eq!(answer(&question, 200, r#"{"err":"no existing lock lease found"}"#), Answer::Gone);
            let failed = answer(&question, 200, r#"{"err":"cannot get\n configmaps"}"#);
            assert_eq!(failed, Answer::Failed("cannot get configmaps".into()));
        }
    }

    #[test]
    fn answers_of_others_say_nothing() {
        let handle = ours();
        let other = r#"{"lockHandle":{"uuid":"u","lockName":"y"},"err":""}"#;
        let empty = r#"{"lockHandle":{"uuid":"","lockName":"x"},"err":""}"#;
        for body in [other, empty, r#"{"err":""}"#] {
            assert!(matches!(answer(&ACQUIRE, 200, body), Answer::Failed(_)), "{body}");
        }
        for question in [ACQUIRE, Question::Renew(&handle), Question::Release(&handle)] {
            for body in ["", "<html>sign in</html>", "{}", "null", "[]", r#"{"err":null}"#, r#"{"err":7}"#] {
                assert!(matches!(answer(&question, 200, body), Answer::Failed(_)), "{body}");
            }
            for status in [201, 204, 302, 400, 404, 500] {
                assert!(matches!(answer(&question, status, r#"{"err":""}"#), Answer::Failed(_)), "{status}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in ".*", json in "[{}\\[\\]:,\"a-z0-9]*") {
            answer(&ACQUIRE, 200, &body);
            answer(&ACQUIRE, 200, &json);
        }
    }
}
