//! See [`crate::fuzzing`].

use std::time::{Duration, SystemTime};

use super::{
    answer::{Answer, Commit, Fault},
    key::{Keys, reader, readers},
    record::{Record, holder},
};
use crate::{
    fuzzing::{head_and_body, is_for_people, lines},
    rfc3339::rfc3339,
};

const ID: &str = "6f6df1e4-929d-550d-4d61-2077e5a60a56";

/// `STATUS [INDEX]` and the body of an answer: success takes what only the agent knows, and what it says fits people.
pub fn consul_answer(data: &[u8]) {
    fn said<T>(result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| is_for_people(&fault.said)).ok()
    }
    let Some((head, body)) = head_and_body(data) else { return };
    let mut head = head.split_ascii_whitespace();
    let status = head.next().and_then(|status| status.parse().ok()).unwrap_or(200);
    let index = head.next().and_then(|index| index.parse().ok());
    let answer = Answer { status, index, body };
    if let Some(id) = said(answer.created()) {
        assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
    if said(answer.renewed(ID)).is_some() {
        assert!(matches!(status, 200 | 404));
    }
    if said(answer.destroyed()).is_some() {
        assert_eq!(body.trim_ascii(), b"true");
    }
    let _ = said(answer.session());
    if let Some(found) = said(answer.found()) {
        assert_eq!(Some(found.index), index);
        assert!(found.entries.is_empty() || status == 200);
        assert!(found.entries.iter().all(|entry| entry.session.as_deref() != Some("")));
    }
    match said(answer.committed()) {
        Some(Commit::Done(_)) => assert_eq!(status, 200),
        Some(_) => assert_eq!(status, 409),
        None => {}
    }
}

/// The value of a key: who holds it is read from any, and again from the one that is written over it.
pub fn consul_record(data: &[u8]) {
    let there = holder(data, ID);
    let _ = there.to_string();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_244_820);
    let held = Record::read(data).held(&there, now);
    let value = held.to_json();
    assert_eq!(holder(value.as_bytes(), ID), there.with_since(now));
    assert!(!held.is_released());
    let released = held.released(now).to_json();
    assert!(Record::read(released.as_bytes()).is_released());

    let Ok(text) = str::from_utf8(data) else { return };
    for text in [text, &format!("2026-11-21T07:07:00{text}")] {
        // Years of five digits are not read.
        if let Some(at) = time(text).filter(|at| rfc3339(*at).len() == 20) {
            assert_eq!(time(&rfc3339(at)), Some(at));
        }
    }
}

fn time(text: &str) -> Option<SystemTime> {
    let value = serde_json::json!({ "lockAcquisitionTime": text }).to_string();
    holder(value.as_bytes(), ID).since()
}

/// `PREFIX` and `NAME`, or a key: each is made of the other, and keys are what every Consul takes.
pub fn consul_key(data: &[u8]) {
    let Some([prefix, name]) = lines(data) else { return };
    let Ok(keys) = Keys::new(prefix) else { return };
    if let Ok(key) = keys.key(name) {
        assert!(key.len() <= 1024 && key.starts_with(keys.prefix()));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=".contains(&b)), "{key}");
        assert!(!key.split('/').any(|part| matches!(part, "" | "." | "..")), "{key}");
        assert_eq!(keys.name(&key).as_deref(), Some(name));
        let entry = readers(&key) + "id";
        assert_eq!((reader(&entry), keys.name(&entry)), (Some((&*key, "id")), None));
    }
    for key in [name, &format!("{}{name}", keys.prefix())] {
        if let Some(lock) = keys.name(key) {
            assert_eq!(keys.key(&lock).unwrap(), key);
        }
    }
}
