//! See [`crate::fuzzing`].

use std::time::{Duration, SystemTime};

use super::{
    answer::{Answer, Operation, Outcome, error_body, retry_after},
    connection::{Connection, Endpoint, Sas},
    json::Object,
    listing::page,
    metadata::Metadata,
    name::{BlobNames, check_blob, check_container},
    oauth::understand,
    peers::Names,
    shared_key::{Request, string_to_sign},
};
use crate::{
    Error, ErrorKind, Mode, fencing,
    fuzzing::{SECRET, head_and_body, is_for_people, keeps_secrets, lines, with_secrets},
    http::Response,
    percent::{decode, decode_any, encode_onto},
};

/// Some time of the service's.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_244_820)
}

/// Connection strings, URLs of accounts, SAS tokens: what is read is printed and read again, no error shows a secret.
pub fn azure_connection(data: &[u8]) {
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Config);
        keeps_secrets(error);
    };
    let whole = |endpoint: Endpoint| {
        let text = endpoint.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)), "{text}");
        assert_eq!(Endpoint::parse(&text).unwrap(), endpoint);
        assert!(endpoint.url(&endpoint.blob_path("c", "b"), "q").starts_with(&text));
    };
    let Some(text) = with_secrets(data) else { return };
    match Connection::parse(&text) {
        Ok(connection) => {
            keeps_secrets(format!("{:?}", connection.credential));
            whole(connection.endpoint);
        }
        Err(error) => refused(error),
    }
    Endpoint::parse(&text).map_or_else(refused, whole);
    match Sas::new(&text) {
        Ok(sas) => {
            assert!(sas.query().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
            keeps_secrets(format!("{sas:?}"));
        }
        Err(error) => refused(error),
    }
}

/// `NAME: VALUE` lines of metadata: a counter grows, a holder is read from what was written, the rest stays.
pub fn azure_metadata(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    let mut all = Metadata::from_pairs(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let before = all.headers();
    match all.token() {
        Ok(last) => {
            if let Ok(fence) = fencing::next(last, Mode::Exclusive, now()) {
                assert!(last.is_none_or(|last| last < fence.counter));
                all.set_token(fence.counter);
                assert_eq!(all.token().unwrap(), Some(fence.counter));
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Foreign),
    }
    if let Some(there) = all.holder() {
        let _ = there.to_string();
        all.set_holder(&there, now());
        let again = all.holder().unwrap();
        assert!(there.words().starts_with(again.words()));
        assert_eq!((again.host(), again.pid(), again.since()), (there.host(), there.pid(), Some(now())));
    }
    let after = all.headers();
    for (name, value) in &before {
        let ours = name.starts_with("x-ms-meta-leasehold");
        assert!(after.iter().any(|(n, v)| n == name && (ours || v == value)), "{name}");
    }
}

/// The answer of List Blobs: one that is cut off is nothing, and never a shorter one.
pub fn azure_listing(data: &[u8]) {
    let Some(whole) = page(data) else { return };
    for end in [data.len() / 4, data.len() / 2, data.len() * 3 / 4, data.len() - 1] {
        if let Some(cut) = page(&data[..end]) {
            assert_eq!(cut, whole);
        }
    }
    for blob in whole.blobs {
        let _ = (blob.metadata.token(), blob.metadata.holder());
    }
}

/// `STATUS CODE`, `x-ms-retry-after-ms`, `Retry-After` and a body: waits are bounded, losses take a code, what is said
/// fits people.
pub fn azure_answer(data: &[u8]) {
    let Some((head, rest)) = head_and_body(data) else { return };
    let (status, code) = head.split_once(' ').unwrap_or((head, ""));
    let code = Some(code).filter(|code| !code.is_empty());
    let status = status.parse().unwrap_or(409);
    let mut body = rest;
    if let Some([milliseconds, header, _]) = lines(rest) {
        let wait = retry_after(Some(milliseconds), Some(header), now());
        assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(3600)));
        body = &rest[(milliseconds.len() + header.len() + 2).min(rest.len())..];
    }
    if let Some((code, message)) = error_body(body) {
        assert!((1..=100).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        is_for_people(&message);
    }
    for operation in [
        Operation::Acquire,
        Operation::Renew,
        Operation::Change,
        Operation::Release,
        Operation::Break,
        Operation::CreateBlob,
        Operation::CreateContainer,
        Operation::Properties,
        Operation::WriteMetadata,
        Operation::Delete,
        Operation::List,
    ] {
        let answer = Answer { operation, status, code, marked: true, retry_after: None };
        match answer.outcome() {
            Outcome::Done => assert!((200..300).contains(&status)),
            Outcome::Lost(_) => assert!((400..500).contains(&status) && code.is_some()),
            _ => {}
        }
        let unmarked = Answer { marked: false, ..answer };
        assert_eq!(unmarked.outcome(), Outcome::Transient { retry_after: None });
    }
}

/// `STATUS` and what a token service says: the secret that was sent to it is not shown, and what is read is JSON.
pub fn azure_token(data: &[u8]) {
    let Some((status, body)) = head_and_body(data) else { return };
    let body = with_secrets(body).map_or_else(|| body.to_owned(), String::into_bytes);
    let response = Response::of(status.trim().parse().unwrap_or(200), &[("retry-after", "3")], &body);
    match understand(&response, SECRET) {
        Ok(_) => assert_eq!(response.status, 200),
        Err(no) => {
            is_for_people(&no.why);
            keeps_secrets(no.why);
        }
    }
    let Some(object) = Object::read(&body) else { return };
    // Two readers agree, where there is another one.
    #[cfg(feature = "kubernetes")]
    if let Ok(serde_json::Value::Object(other)) = serde_json::from_slice(&body) {
        for (name, value) in &other {
            assert_eq!(object.text(name), value.as_str(), "{name:?}");
            assert!(value.as_u64().is_none_or(|number| object.number(name) == Some(number)), "{name:?}");
        }
    }
    let _ = object.number("expires_in");
}

/// `PREFIX` and `NAME`, or a blob: each is made of the other, whoever's names they are, and nothing beside a lock is
/// one.
pub fn azure_name(data: &[u8]) {
    let Some([prefix, name]) = lines(data) else { return };
    let _ = (check_container(name), check_blob(name));
    for names in [Names::Escaped, Names::GoAzureLocking, Names::AzMutex] {
        let Ok(names) = BlobNames::new(names, prefix) else { continue };
        let blob = names.blob(name);
        assert_eq!(blob.is_ok(), names.check(name).is_ok());
        if let Ok(blob) = blob {
            assert!(blob.chars().count() <= 1024 && blob.starts_with(names.prefix()));
            check_blob(&blob).unwrap();
            assert_eq!(names.lock(&blob).as_deref(), Some(name));
            if let Ok(beside) = names.beside(name) {
                let part = beside + "gate";
                assert_eq!(names.part(&part), Some((name.to_owned(), "gate")));
                assert_eq!(names.lock(&part), None);
            }
        }
        for blob in [name, &format!("{}{name}", names.prefix())] {
            if let Some(lock) = names.lock(blob) {
                assert_eq!(names.blob(&lock).unwrap(), blob);
            }
        }
    }
    let mut encoded = String::new();
    encode_onto(&mut encoded, name);
    assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!((decode(&encoded).as_deref(), &*decode_any(&encoded)), (Some(name), name));
    if let Some(decoded) = decode(name) {
        assert_eq!(decoded, decode_any(name));
    }
}

/// `ACCOUNT`, `PATH`, `QUERY` and lines `NAME: VALUE` of headers: in any order they are signed alike, and each has a
/// line of its own.
pub fn azure_shared_key(data: &[u8]) {
    let Some([account, path, query, headers]) = lines(data) else { return };
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let mut all: Vec<(&str, &str)> = Vec::new();
    for (name, value) in headers.split('\n').filter_map(|line| line.split_once(':')) {
        if plain(name) && !all.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            all.push((name, value));
        }
    }
    let text = |query, headers: &[(&str, &str)]| {
        string_to_sign(account, &Request { method: "PUT", path, query, headers })
    };
    let there = text(query, &all);
    let ours = all.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-ms-")).count();
    let parts = || query.split('&').filter(|part| !part.is_empty());
    if !query.contains('%') {
        let mut names: Vec<String> =
            parts().map(|part| part.split('=').next().unwrap_or_default().to_lowercase()).collect();
        names.sort();
        names.dedup();
        assert_eq!(there.matches('\n').count(), 12 + ours + names.len(), "{there:?}");
    }
    let reversed: Vec<&str> = query.split('&').rev().collect();
    all.reverse();
    assert_eq!(text(&reversed.join("&"), &all), there);
}
