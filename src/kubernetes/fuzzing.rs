//! See [`crate::fuzzing`].

use std::time::Duration;

use serde_json::Value;

use super::{
    answer::Outcome,
    decision::{Seen, Stamp, State, Verdict, Wanted},
    object::patch,
    record::{Keys, Note, Record, Slot},
    watch::{Event, Lines},
};
use crate::{
    Holder, Mode,
    fuzzing::{head_and_body, is_for_people, lines},
    http::Response,
};

/// The two annotations of a lock: what is read is written and read again.
pub fn kubernetes_record(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(mut record) = Record::parse(text) {
        assert_eq!(Record::parse(&record.text()).as_ref(), Some(&record));
        let expires = record.expires();
        record.extend(7);
        assert!(record.expires() >= expires);
        record.take_over("u", true, 7);
        assert_eq!(
            Record::parse(&record.text()).map(|record| record.uuid().to_owned()).as_deref(),
            Some("u")
        );
    }
    if let Some(note) = Note::parse(text) {
        for member in note.members.values() {
            let _ = member.holder.to_string();
        }
        assert_eq!(Note::parse(&note.text()), Some(note));
    }
}

/// `STATUS` and the body of an answer: an object is a server's own, and a patch of it changes two annotations alone.
pub fn kubernetes_answer(data: &[u8]) {
    let Some((status, body)) = head_and_body(data) else { return };
    let response = Response::of(status.trim().parse().unwrap_or(200), &[("retry-after", "3")], body);
    match Outcome::of(&response, "x") {
        Outcome::Object(object) => {
            assert!(matches!(response.status, 200 | 201) && !object.uid.is_empty());
            let keys = Keys::of("x");
            let to = Slot { record: Some("r".to_owned()), note: None };
            for strictly in [false, true] {
                let text = patch(&object, &keys, &object.slot(&keys), &to, strictly);
                let Ok(Value::Array(operations)) = serde_json::from_str(&text) else { panic!("{text}") };
                assert_eq!(operations[0]["value"], *object.uid);
                for operation in operations {
                    let path = operation["path"].as_str().unwrap();
                    let ours = path.starts_with("/metadata/annotations");
                    assert!(operation["op"] == "test" || ours, "{operation}");
                }
            }
        }
        Outcome::NoPlace(said) | Outcome::Forbidden(said) | Outcome::Refused(said) => is_for_people(&said),
        Outcome::Transient { what, .. } => is_for_people(&what),
        _ => {}
    }
}

/// Record and note on a line each: who finds a lock free and takes it holds it, until it is let go or broken.
pub fn kubernetes_decision(data: &[u8]) {
    let Some([record, note]) = lines(data) else { return };
    let slot = Slot { record: Some(record.to_owned()), note: Some(note.to_owned()) };
    let Ok(state) = State::of(&slot) else { return };
    let (holder, ttl, time) = (Holder::new("me"), Duration::from_secs(30), 1_795_261_118);
    let stamp = |counter| Stamp { counter, time };
    let new = Seen { unchanged: Duration::ZERO, date: Some(time) };
    let of = |slot: &Slot| State::of(slot).expect("it is ours");
    let _ = state.holders();
    let verdict = state.verdict(new);
    // What is free to who sees it for the first time is free to who saw it stand for long.
    let long = Seen { unchanged: Duration::from_secs(86_400), date: Some(time) };
    assert!(verdict != Verdict::Free || state.verdict(long) == Verdict::Free);
    for (mode, id) in [(Mode::Exclusive, "me"), (Mode::Shared, "us")] {
        let wanted = Wanted { lock: "x", id, mode, ttl, holder: &holder };
        let shares = matches!(verdict, Verdict::Held { mode: Mode::Shared, .. }) && mode == Mode::Shared;
        let taken = state.take(&wanted, &verdict, stamp(1));
        assert_eq!(taken.is_some(), verdict == Verdict::Free || shares);
        let Some(taken) = taken.map(|slot| of(&slot)) else { continue };
        assert_eq!(taken.counter_of(id, mode), Ok(1));
        assert!(shares || matches!(taken.verdict(new), Verdict::Held { mode: held, .. } if held == mode));
        let renewed = of(&taken.renew(id, mode, stamp(2)).unwrap());
        assert_eq!(renewed.counter_of(id, mode), Ok(2));
        let free = of(&renewed.release(id, mode).unwrap());
        assert!(free.counter_of(id, mode).is_err());
        let next = Wanted { id: "next", ..wanted };
        let adopted = of(&renewed.adopt(id, &next, stamp(3)).unwrap());
        assert!(adopted.counter_of("next", mode) == Ok(3) && adopted.counter_of(id, mode).is_err());
        for now in [false, true] {
            let (slot, _) = renewed.break_it(now, "other", stamp(4)).unwrap();
            let broken = of(&slot);
            assert!(broken.counter_of(id, mode).is_err());
            assert_eq!(broken.verdict(new) == Verdict::Free, now);
        }
    }
}

/// The size of pieces, and a stream: however it is cut, it has the same events.
pub fn kubernetes_watch(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let events = |size: usize| {
        let (mut lines, mut events) = (Lines::default(), Vec::new());
        for piece in stream.chunks(size) {
            lines.take(piece, "x", |event| {
                if let Event::Error(said) = &event {
                    is_for_people(said);
                }
                events.push(event);
                true
            });
        }
        events
    };
    assert_eq!(events(usize::from(*size) + 1), events(stream.len().max(1)));
}

/// A kubeconfig: what is no YAML is not repeated, and a context has a server.
#[cfg(feature = "kubeconfig")]
pub fn kubernetes_kubeconfig(data: &[u8]) {
    use crate::fuzzing::{keeps_secrets, with_secrets};

    let Some(text) = with_secrets(data) else { return };
    let mut files = super::kubeconfig::Files::default();
    if let Err(error) = files.add(std::path::Path::new("config"), &text) {
        return keeps_secrets(error);
    }
    if let Ok(context) = files.context(None) {
        assert!(!context.server.is_empty());
        assert!(context.exec.is_none_or(|exec| !exec.command.as_os_str().is_empty()));
    }
}

/// What a program said that gives credentials: there is one in it, fit for a header. Or a time.
#[cfg(feature = "kubeconfig")]
pub fn kubernetes_exec(data: &[u8]) {
    use super::exec::read;
    use crate::rfc3339::rfc3339;

    const V1: &str = "client.authentication.k8s.io/v1";
    let start = std::time::SystemTime::UNIX_EPOCH;
    if let Some(issued) = read(data, V1, start) {
        assert!(issued.token.is_some() || issued.certificate.is_some());
        assert!(issued.token.is_none_or(|token| token.bytes().all(|byte| byte.is_ascii_graphic())));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let time = |text: &str| {
        let status = serde_json::json!({ "token": "t", "expirationTimestamp": text });
        let said = serde_json::json!({ "kind": "ExecCredential", "apiVersion": V1, "status": status });
        read(said.to_string().as_bytes(), V1, start)?.life
    };
    for text in [text, &format!("2026-11-21T07:07:00{text}")] {
        // Years of five digits are not read.
        if let Some(life) = time(text).filter(|life| rfc3339(start + *life).len() == 20) {
            assert_eq!(time(&rfc3339(start + life)), Some(life));
        }
    }
}
