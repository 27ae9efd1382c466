//! Locks as a user takes them.

use std::{sync::mpsc, thread};

use leasehold::{Break, ErrorKind, Locker, LostReason, Mode, Unlocked, kubernetes::Store};

use crate::{
    common::{LONG, SECOND, kind, ms, timed, until},
    support::{ADMIN, CONFIG_MAPS, NOBODY, access, by_hand, fresh, locker_on, look, make, merge},
};

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn one_has_it_at_a_time_and_tokens_grow() {
    let object = fresh();
    let (ours, theirs) = (locker_on(&object).holder("shop 1.2"), locker_on(&object));
    let guard = ours.lock("migration").unwrap();
    guard.check().unwrap();
    assert!(guard.is_held() && guard.valid_for().unwrap() > 25 * SECOND);
    assert!(theirs.try_lock("migration").unwrap().is_none() && ours.try_lock("migration").unwrap().is_none());
    assert!(theirs.try_lock("another").unwrap().is_some());
    let error = theirs.request("migration").timeout(ms(1200)).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("\"shop 1.2\" (this process, since 20"), "{error}");
    guard.renew().unwrap();
    let first = guard.fencing_token().unwrap();
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    let next = theirs.lock("migration").unwrap();
    assert!(next.fencing_token().unwrap() > first);
    drop(next);
    assert!(!look(&object).contains("lockgate.io/"), "nothing is left behind");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn what_else_is_on_the_object_stays() {
    let object = fresh();
    make(&object, r#"{"a.org/other":"kept"}"#);
    let locker = locker_on(&object);
    let guard = locker.lock("x").unwrap();
    let path = format!("{CONFIG_MAPS}/{object}");
    merge(
        &path,
        r#"{"metadata":{"annotations":{"a.org/more":"kept too"},"labels":{"l":"1"}},"data":{"k2":"v2"}}"#,
    );
    guard.renew().expect("the writes of others are no conflict");
    let [record, note] = Store::annotations("x");
    assert!(look(&object).contains(&record) && look(&object).contains(&note));
    guard.unlock().unwrap();
    let now = look(&object);
    for kept in ["\"kept\"", "kept too", "\"l\": \"1\"", "value", "v2"] {
        assert!(now.contains(kept), "{kept}: {now}");
    }
    assert!(!now.contains(&record) && !now.contains(&note), "{now}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_waiter_has_it_right_after_the_release() {
    let object = fresh();
    let (ours, theirs) = (locker_on(&object), locker_on(&object));
    let guard = ours.lock("x").unwrap();
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let guard = theirs.lock("x").unwrap();
        tell.send(()).unwrap();
        guard.unlock().unwrap();
    });
    assert!(told.recv_timeout(ms(2500)).is_err());
    let ((), took) = timed(|| {
        guard.unlock().unwrap();
        told.recv_timeout(LONG).unwrap();
    });
    assert!(took < ms(300), "{took:?}");
    waiter.join().unwrap();
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn readers_share_and_writers_do_not() {
    let object = fresh();
    let (ours, theirs) = (locker_on(&object), locker_on(&object));
    let shared = |locker: &Locker| locker.request("x").shared().try_lock().unwrap();
    let (a, b) = (shared(&ours).unwrap(), shared(&theirs).unwrap());
    assert!(ours.try_lock("x").unwrap().is_none());
    let status = ours.status("x").unwrap();
    assert_eq!((status.mode(), status.holders().len()), (Some(Mode::Shared), 2));
    a.renew().unwrap();
    b.renew().unwrap();
    a.unlock().unwrap();
    assert!(ours.try_lock("x").unwrap().is_none());
    b.renew().unwrap();
    b.unlock().unwrap();
    let writer = ours.lock("x").unwrap();
    assert!(shared(&theirs).is_none());
    assert_eq!(ours.status("x").unwrap().mode(), Some(Mode::Exclusive));
    drop(writer);
    assert_eq!(ours.status("x").unwrap().mode(), None);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn locks_are_listed_by_their_names() {
    let object = fresh();
    let locker = locker_on(&object).holder("me");
    assert_eq!(locker.list().unwrap().len(), 0);
    let _guards = (locker.lock("b/ö").unwrap(), locker.request("a").shared().lock().unwrap());
    merge(
        &format!("{CONFIG_MAPS}/{object}"),
        r#"{"metadata":{"annotations":{"lockgate.io/x":"{\"uuid\":\"u\",\"lockName\":\"q\"}","lockgate.io/y":"?"}}}"#,
    );
    let listed = locker.list().unwrap();
    let named: Vec<_> = listed.iter().map(|s| (s.name(), s.mode(), s.holders()[0].words())).collect();
    assert_eq!(named, [("a", Some(Mode::Shared), "me"), ("b/ö", Some(Mode::Exclusive), "me")]);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_break_is_told_and_waits_until_it_could_be_seen() {
    let object = fresh();
    let locker = locker_on(&object).ttl(3 * SECOND);
    assert_eq!(locker.break_lock("x", Break::AfterNotice).unwrap(), None);
    let guard = locker.lock("x").unwrap();
    let wait = locker.break_lock("x", Break::AfterNotice).unwrap().unwrap();
    assert!(wait <= 3 * SECOND, "{wait:?}");
    assert!(locker.try_lock("x").unwrap().is_none(), "nobody before it could see that");
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Broken));
    let (next, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
    assert!(took < 4 * SECOND, "{took:?}");

    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), Some(ms(0)));
    assert_eq!(next.renew().unwrap_err().lost_reason(), Some(LostReason::Broken));
    let guard = locker.try_lock("x").unwrap().expect("free at once");
    assert!(guard.fencing_token() > next.fencing_token());
    guard.unlock().unwrap();
    let [record, note] = Store::annotations("x");
    let now = look(&object);
    assert!(!now.contains(&record) && !now.contains(&note), "nothing is left behind");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn what_an_operator_does_to_a_held_lock_is_told_as_what_it_is() {
    let object = fresh();
    let (locker, path) = (locker_on(&object), format!("{CONFIG_MAPS}/{object}"));
    let [record, note] = Store::annotations("x");
    let lost = |what: &str, patch: String, reason: LostReason| {
        let guard = locker.lock("x").unwrap();
        merge(&path, &patch);
        assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(reason), "{what}");
        assert_eq!(guard.unlock().unwrap_err().lost_reason(), Some(reason), "{what}");
        merge(&path, &format!(r#"{{"metadata":{{"annotations":{{"{record}":null}}}}}}"#));
    };
    let set = |value: &str| format!(r#"{{"metadata":{{"annotations":{{"{record}":{value}}}}}}}"#);
    lost("removed", set("null"), LostReason::Deleted);
    lost("emptied", set("\"\""), LostReason::Deleted);
    lost("overwritten", set("\"x\""), LostReason::Deleted);
    lost("another's", set(r#""{\"uuid\":\"u\",\"lockName\":\"x\"}""#), LostReason::Taken);
    lost("all gone", r#"{"metadata":{"annotations":null}}"#.to_owned(), LostReason::Deleted);
    lost(
        "the note alone",
        format!(r#"{{"metadata":{{"annotations":{{"{note}":null}}}}}}"#),
        LostReason::Taken,
    );

    merge(&path, &set("\"what is this\""));
    assert_eq!(kind(locker.lock("x")), ErrorKind::Foreign);
    assert!(look(&object).contains("what is this"), "left as it is");
    merge(&path, &set("null"));

    let guard = locker.lock("x").unwrap();
    assert_eq!(by_hand("DELETE", &path, "application/json", "").0, 200);
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Deleted));
    let guard = locker.lock("x").expect("it is made again");
    assert_eq!(by_hand("DELETE", &path, "application/json", "").0, 200);
    make(&object, "{}");
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Deleted), "another uid");
    assert!(locker.try_lock("x").unwrap().is_some());
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_missing_object_namespace_or_right_is_named() {
    let object = fresh();
    let missing = Locker::new(access(ADMIN).object("default", "configmaps", &object).build().unwrap());
    let error = missing.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(&object) && error.to_string().contains("create(true)"), "{error}");

    let nowhere = access(ADMIN).object("nowhere", "configmaps", "x").create(true).build().unwrap();
    let error = Locker::new(nowhere).lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("\"nowhere\""), "{error}");

    let kinds = access(ADMIN).object("default", "e.org/v1/things", "x").build().unwrap();
    assert_eq!(kind(Locker::new(kinds).lock("x")), ErrorKind::Config);

    let denied = Locker::new(access(NOBODY).object("default", "configmaps", &object).build().unwrap());
    let error = denied.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    for said in ["verb `get`", "configmaps", &object, "\"default\""] {
        assert!(error.to_string().contains(said), "{said}: {error}");
    }

    let unknown = Locker::new(access("wrong").object("default", "configmaps", &object).build().unwrap());
    let error = unknown.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("401") && !error.to_string().contains("wrong"), "{error}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_full_object_is_told_and_loses_nothing() {
    let object = fresh();
    make(&object, "{}");
    let (locker, path) = (locker_on(&object), format!("{CONFIG_MAPS}/{object}"));
    let held = locker.lock("held").unwrap();
    let fill = "f".repeat(262_144 - 900);
    merge(&path, &format!(r#"{{"metadata":{{"annotations":{{"a.org/fill":"{fill}"}}}}}}"#));
    let error = locker.lock("one more").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("262144 bytes"), "{error}");
    held.renew().unwrap();
    held.unlock().unwrap();
    assert!(look(&object).contains(&fill));
    locker.lock("one more").unwrap().unlock().unwrap();
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_lock_is_handed_over_within_and_between_stores() {
    let object = fresh();
    let (ours, theirs) = (locker_on(&object), locker_on(&object));
    for shared in [false, true] {
        let request = ours.request("x");
        let guard = if shared { request.shared() } else { request }.lock().unwrap();
        let token = guard.fencing_token();
        let ticket = guard.detach().unwrap();
        assert!(theirs.try_lock("x").unwrap().is_none(), "held all the while");
        let adopted = theirs.adopt(&ticket).unwrap();
        assert_eq!(adopted.fencing_token(), token);
        adopted.renew().unwrap();
        let error = ours.adopt(&ticket).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "a ticket works once: {error}");
        adopted.unlock().unwrap();
        assert!(ours.try_lock("x").unwrap().is_some());
    }
    let ticket = ours.lock("x").unwrap().detach().unwrap();
    assert_eq!(kind(locker_on(&fresh()).adopt(&ticket)), ErrorKind::Config);
    theirs.adopt(&ticket).unwrap().unlock().unwrap();
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn who_dies_leaves_the_lock_after_its_ttl() {
    let object = fresh();
    let (ours, theirs) = (locker_on(&object).ttl(3 * SECOND), locker_on(&object));
    let guard = ours.request("x").auto_renew(false).lock().unwrap();
    let (next, took) = timed(|| theirs.request("x").timeout(LONG).lock().unwrap());
    assert!((ms(2900)..ms(4500)).contains(&took), "{took:?}");
    assert!(!guard.is_held());
    assert_eq!(guard.unlock().unwrap_err().kind(), ErrorKind::Lost);
    until("the next holder's", || next.is_held());
    next.renew().expect("the late release freed nobody else's lock");
}
