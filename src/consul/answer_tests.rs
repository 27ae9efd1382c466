//! Answers as Consul 1.19.2 gave them, and those of others.

use proptest::prelude::*;

use super::*;

const ID: &str = "6f6df1e4-929d-550d-4d61-2077e5a60a56";

fn of(status: u16, index: Option<u64>, body: &str) -> Answer<'_> {
    Answer { status, index, body: body.as_bytes() }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Fault>) -> ErrorKind {
    result.unwrap_err().kind
}

#[test]
fn sessions() {
    let created = format!("{{\n    \"ID\": \"{ID}\"\n}}");
    assert_eq!(of(200, None, &created).created().unwrap(), ID);
    for portal in
        ["{}", "<html>", "true", r#"{"ID":7}"#, r#"{"ID":""}"#, r#"{"ID":"../kv"}"#, r#"{"ID":"a b"}"#]
    {
        assert_eq!(kind(of(200, None, portal).created()), ErrorKind::Unavailable, "{portal}");
    }
    let session = format!(
        r#"[{{"ID":"{ID}","Name":"n","Node":"vm","LockDelay":10000000000,"Behavior":"release","TTL":"10s",
            "NodeChecks":[],"ServiceChecks":null,"CreateIndex":19,"ModifyIndex":19}}]"#
    );
    assert!(of(200, None, &session).renewed(ID).unwrap());
    assert_eq!(kind(of(200, None, &session).renewed("another")), ErrorKind::Unavailable);
    let gone = format!("Session id '{ID}' not found");
    assert!(!of(404, None, &gone).renewed(ID).unwrap());
    for portal in ["", "Not Found", "<html>Session id", "Session id 'another' not found"] {
        assert_eq!(kind(of(404, None, portal).renewed(ID)), ErrorKind::Unavailable, "{portal}");
    }
    let ten = std::time::Duration::from_secs(10);
    let info = of(200, Some(19), &session).session().unwrap().unwrap();
    assert_eq!(info, Info { name: "n".to_owned(), lock_delay: ten, expires: true });
    assert_eq!(of(200, Some(7), "[]").session().unwrap(), None);
    assert_eq!(kind(of(200, None, "[]").session()), ErrorKind::Unavailable);
    assert!(of(200, None, "true\n").destroyed().is_ok());
    assert_eq!(kind(of(200, None, "false").destroyed()), ErrorKind::Unavailable);
}

#[test]
fn keys() {
    let json = format!(
        r#"[{{"LockIndex":1,"Key":"x","Flags":3304740253564472344,"Value":"e30=","Session":"{ID}",
            "CreateIndex":20,"ModifyIndex":22}}]"#
    );
    let found = of(200, Some(22), &json).found().unwrap();
    let entry = Entry {
        key: "x".to_owned(),
        value: b"{}".to_vec(),
        flags: 0x2ddc_cbc0_58a5_0c18,
        session: Some(ID.to_owned()),
        index: 22,
        created: 20,
    };
    assert_eq!(found, Found { index: 22, entries: vec![entry] });
    let free = r#"[{"LockIndex":0,"Key":"x","Flags":0,"Value":null,"CreateIndex":2,"ModifyIndex":2}]"#;
    let entry = &of(200, Some(2), free).found().unwrap().entries[0];
    assert_eq!((&entry.session, &*entry.value), (&None, &b""[..]));
    assert_eq!(of(404, Some(7), "").found().unwrap(), Found { index: 7, entries: Vec::new() });
    for (status, index, body) in [
        (404, None, ""),
        (200, None, &*json),
        (200, Some(1), "<html>"),
        (200, Some(1), r#"[{"Key":"x"}]"#),
        (302, Some(1), "[]"),
    ] {
        assert_eq!(kind(of(status, index, body).found()), ErrorKind::Unavailable, "{status} {body}");
    }
}

#[test]
fn transactions() {
    let done = format!(
        r#"{{"Results":[{{"KV":{{"LockIndex":1,"Key":"x","Flags":7,"Value":null,"Session":"{ID}","CreateIndex":22,
            "ModifyIndex":23}}}}],"Errors":null,"Index":0,"LastContact":0,"KnownLeader":true}}"#
    );
    let Commit::Done(entries) = of(200, None, &done).committed().unwrap() else { panic!() };
    assert_eq!((entries[0].index, entries.len()), (23, 1));
    assert_eq!(
        of(200, None, r#"{"Results":null,"Errors":null}"#).committed().unwrap(),
        Commit::Done(Vec::new())
    );
    let refused = |what: &[&str]| {
        let errors: Vec<String> =
            what.iter().map(|what| format!(r#"{{"OpIndex":0,"What":{}}}"#, Value::from(*what))).collect();
        format!(r#"{{"Results":null,"Errors":[{}]}}"#, errors.join(","))
    };
    let index = r#"failed index check for key "x", current modify index 23 != 1"#;
    let held = r#"failed to lock key "x", lock is already held"#;
    for (what, commit) in [
        (&[index][..], Commit::Stale),
        (&[r#"failed to check index, key "x" doesn't exist"#], Commit::Stale),
        (&[r#"key "x" exists"#], Commit::Stale),
        (
            &[index, r#"failed to unlock key "x", lock isn't held, or is held by another session"#],
            Commit::Stale,
        ),
        (&[index, held], Commit::Held),
        (&[index, r#"invalid session "6f6d""#], Commit::NoSession),
        (&[r#"failed to lock key "x" due to lock delay"#], Commit::Delayed),
    ] {
        assert_eq!(of(409, None, &refused(what)).committed().unwrap(), commit, "{what:?}");
    }
    let denied = "Permission denied: token with AccessorID 'a' lacks permission 'key:write' on \"x\"";
    assert_eq!(kind(of(409, None, &refused(&[denied])).committed()), ErrorKind::Denied);
    assert_eq!(kind(of(409, None, &refused(&["something new"])).committed()), ErrorKind::Protocol);
    for (status, body) in [(200, "{}"), (409, "{}"), (409, "<html>"), (200, &*refused(&[held])), (404, "")] {
        assert_eq!(kind(of(status, None, body).committed()), ErrorKind::Unavailable, "{status} {body}");
    }
}

#[test]
fn what_an_agent_says_else() {
    for (status, body, expected) in [
        (500, "No cluster leader", ErrorKind::Unavailable),
        (500, "rpc error making call: No cluster leader", ErrorKind::Unavailable),
        (500, "rpc error making call: EOF", ErrorKind::Unavailable),
        (429, "Your IP is issuing too many concurrent connections", ErrorKind::Unavailable),
        (503, "", ErrorKind::Unavailable),
        (500, "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]", ErrorKind::Config),
        (500, "No path to datacenter", ErrorKind::Config),
        (400, "Request decode failed: EOF", ErrorKind::Config),
        (413, "Value exceeds 524288 byte limit", ErrorKind::Config),
        (403, "Permission denied: anonymous token lacks permission 'session:write'", ErrorKind::Denied),
        (403, "ACL not found", ErrorKind::Denied),
        (500, "rpc error making call: Permission denied", ErrorKind::Denied),
        // Of somebody else.
        (403, "<html>Please sign in: Permission", ErrorKind::Unavailable),
        (400, "<html>", ErrorKind::Unavailable),
        (302, "", ErrorKind::Unavailable),
    ] {
        assert_eq!(of(status, None, body).fault().kind, expected, "{status} {body}");
    }
    let said = of(500, None, "one\u{202e}\u{7}\ntwo").fault().said;
    assert_eq!(said, "one");
}

#[test]
fn an_index_never_goes_back_and_never_is_nothing() {
    assert_eq!(next_index(5, 9), 9);
    assert_eq!(next_index(5, 5), 5);
    assert_eq!(next_index(9, 5), 0, "the store was restored: once more from the start");
    assert_eq!(next_index(0, 0), 1);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(status in 200_u16..600, index in any::<Option<u64>>(), body in ".{0,200}") {
        let answer = of(status, index, &body);
        let _ = (answer.created(), answer.renewed(ID), answer.destroyed(), answer.session(), answer.found(), answer.committed());
    }

    #[test]
    fn nothing_cut_short_is_believed(end in 0_usize..170) {
        let done = r#"{"Results":[{"KV":{"LockIndex":1,"Key":"x","Flags":7,"Value":null,"Session":"s","CreateIndex":22,"ModifyIndex":23}}],"Errors":null,"Index":0,"LastContact":0,"KnownLeader":true}"#;
        prop_assert!(of(200, None, &done[..end.min(done.len() - 1)]).committed().is_err());
    }
}
