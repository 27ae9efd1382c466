//! The network and the API server at their worst.

use std::{
    thread,
    time::{Duration, Instant},
};

use leasehold::{ErrorKind, Guard, Locker, LostReason, Unlocked, kubernetes::Access};

use crate::{
    common::fault_server::{Act, FaultServer, Seen, answer},
    common::{LONG, SECOND, kind, ms, timed, until},
    support::{ADMIN, CONFIG_MAPS, authority, by_hand, fresh, locker_on, look, make, server},
};

/// A server in front of the real one, which is asked by it over TLS.
fn before_the_server() -> FaultServer {
    let authority = std::fs::read(authority()).unwrap();
    let certificates: Vec<ureq::tls::Certificate<'static>> = ureq::tls::parse_pem(&authority)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    let tls = ureq::tls::TlsConfig::builder().root_certs(certificates.into()).build();
    let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
    let agent: ureq::Agent = config.timeout_global(Some(LONG)).build().into();
    let url = server();
    FaultServer::scripted(classify, move |seen| {
        let mut request =
            ureq::http::Request::builder().method(&*seen.method).uri(format!("{url}{}", seen.target));
        for name in ["authorization", "accept", "content-type"] {
            if !seen.header(name).is_empty() {
                request = request.header(name, seen.header(name));
            }
        }
        let answered = agent.run(request.body(seen.body.clone()).unwrap());
        let Ok(answered) = answered else { return answer(503, &[], "the server is gone") };
        let status = answered.status().as_u16();
        let date = answered.headers().get("date").unwrap().to_str().unwrap().to_owned();
        let body = answered.into_body().read_to_string().unwrap_or_default();
        answer(status, &[("Content-Type", "application/json"), ("Date", &date)], &body)
    })
}

fn classify(seen: &Seen) -> String {
    match &*seen.method {
        "GET" if seen.target.contains("watch=1") => "watch",
        "GET" => "get",
        "PATCH" => "patch",
        "POST" => "create",
        _ => "other",
    }
    .to_owned()
}

fn locker_through(faults: &FaultServer, object: &str) -> Locker {
    let access = Access::to(&faults.url()).unwrap().token(ADMIN).unwrap();
    let store = access.object("default", "configmaps", object).create(true).build().unwrap();
    Locker::new(store).patience(5 * SECOND)
}

/// A server that misbehaves, a locker by it, and one beside it, on an object that is there.
fn three() -> (FaultServer, Locker, Locker, String) {
    let (faults, object) = (before_the_server(), fresh());
    make(&object, r#"{"a.org/other":"kept"}"#);
    let through = locker_through(&faults, &object);
    assert_eq!(through.lock("x").unwrap().unlock().unwrap(), Unlocked::Confirmed);
    faults.forget();
    (faults, through, locker_on(&object), object)
}

/// A guard that is renewed only when told so.
fn quiet(locker: &Locker) -> Guard {
    locker.request("x").auto_renew(false).lock().unwrap()
}

/// What says nothing about a lock, whoever answers it.
fn transient() -> Vec<(&'static str, Act)> {
    let portal = "<html>Please sign in</html>";
    let status = |code: u16, reason: &str| {
        let body = format!(
            r#"{{"kind":"Status","status":"Failure","reason":"{reason}","message":"m","code":{code}}}"#
        );
        Act::Answer(answer(code, &[], &body))
    };
    let own = |code, body: &str| Act::Answer(answer(code, &[], body));
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"kind\"".to_vec();
    vec![
        ("the request is lost", Act::Drop),
        ("the answer is lost", Act::Lose),
        ("cut in the header", Act::Cut(40)),
        ("cut in the body", Act::Last(half)),
        ("500", status(500, "InternalError")),
        ("503", status(503, "ServiceUnavailable")),
        ("504", status(504, "Timeout")),
        ("429", status(429, "TooManyRequests")),
        ("captive portal, 200", own(200, portal)),
        ("captive portal, 404", own(404, portal)),
        ("captive portal, 403", own(403, portal)),
        ("captive portal, 409", own(409, portal)),
        ("captive portal, 422", own(422, portal)),
        ("an empty 200", own(200, "")),
        ("another object", own(200, r#"{"metadata":{"name":"y","uid":"u","resourceVersion":"1"}}"#)),
        ("garbage", Act::Last(b"SSH-2.0-OpenSSH_9.6\r\nwho are you\r\n\r\n".to_vec())),
    ]
}

#[track_caller]
fn free(locker: &Locker, within: Duration) {
    let start = Instant::now();
    until("nobody has it", || {
        assert!(start.elapsed() < within, "still held after {within:?}");
        locker.status("x").unwrap().mode().is_none()
    });
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn requests_of_a_lock_and_its_unlock() {
    let faults = before_the_server();
    let object = fresh();
    let locker = locker_through(&faults, &object);
    let requests = |what: &str, at_most: usize| {
        faults.forget();
        locker.lock("x").unwrap().unlock().unwrap();
        let words = faults.words();
        println!("requests, {what}: {words:?}");
        assert!(words.len() <= at_most, "{what}: {words:?}");
    };
    requests("object missing", 4);
    requests("warm", 2);
    requests("warm", 2);
    assert_eq!(faults.words(), ["patch", "patch"]);
    let again = locker_through(&faults, &object);
    faults.forget();
    again.lock("x").unwrap().unlock().unwrap();
    println!("requests, cold: {:?}", faults.words());
    assert!(faults.all().len() <= 4);
    // Another writes to the object between: no conflict, no request more.
    let _other = locker_on(&object).lock("another").unwrap();
    requests("beside another lock of the object", 3);
    let held = locker.lock("x").unwrap();
    faults.forget();
    held.renew().unwrap();
    assert_eq!(faults.words(), ["patch"]);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn an_acquire_bears_what_passes_and_leaves_nothing_behind() {
    let (faults, locker, beside, _) = three();
    for (what, act) in transient() {
        faults.next(1, "patch", act.clone());
        faults.next(1, "get", act.clone());
        let error = locker.try_lock("x").map(|guard| guard.is_some()).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        faults.heal();
        free(&beside, 3 * SECOND);

        locker.lock("warm").unwrap().unlock().unwrap();
        faults.forget();
        faults.next(2, "patch", act);
        let (guard, took) = timed(|| quiet(&locker));
        assert!(took < 4 * SECOND, "{what}: {took:?}");
        assert!(beside.try_lock("x").unwrap().is_none(), "{what}");
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{what}");
        free(&beside, 3 * SECOND);
        faults.heal();
    }
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_renewal_and_a_release_bear_what_passes() {
    let (faults, locker, beside, object) = three();
    for (what, act) in transient() {
        let guard = quiet(&locker);
        faults.next(1, "patch", act.clone());
        let error = guard.renew().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        guard.renew().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(guard.is_held() && beside.try_lock("x").unwrap().is_none(), "{what}");
        faults.next(1, "patch", act);
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{what}");
        free(&beside, SECOND);
        assert!(look(&object).contains("\"kept\""), "{what}");
    }
}

/// The renewal that came through counts from when it was sent, and not from when one that failed after it was.
#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn what_was_stored_counts_from_its_own_send() {
    let (faults, locker, _, _) = three();
    let guard = locker.request("x").ttl(20 * SECOND).auto_renew(false).lock().unwrap();
    thread::sleep(2 * SECOND);
    faults.next(1, "patch", Act::Lose);
    let sent = Instant::now();
    assert_eq!(kind(guard.renew()), ErrorKind::Unavailable);
    faults.always("patch", Act::Drop);
    thread::sleep(2 * SECOND);
    // By what is read, it was carried out; nothing that is sent after it is.
    let _ = guard.renew();
    let valid = guard.valid_for().unwrap() + sent.elapsed();
    // The TTL less 2 %.
    assert!((ms(19_000)..=ms(19_700)).contains(&valid), "{valid:?}");
    faults.heal();
    guard.renew().unwrap();
    assert!(guard.valid_for().unwrap() > 19 * SECOND);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn requests_that_come_twice_or_late_change_nothing() {
    let (faults, locker, beside, _) = three();
    // Twice at once, and once more when another has it.
    faults.always("patch", Act::Twice);
    let guard = quiet(&locker);
    guard.renew().unwrap();
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    faults.heal();
    faults.always("patch", Act::Again(ms(400)));
    let guard = quiet(&locker);
    guard.renew().unwrap();
    guard.unlock().unwrap();
    let other = beside.lock("x").unwrap();
    thread::sleep(ms(900));
    other.renew().expect("a late release is of its own lock alone");
    other.unlock().unwrap();
    faults.heal();
    // Readers are counted once.
    faults.always("patch", Act::Twice);
    let readers: Vec<Guard> = (0..3).map(|_| locker.request("x").shared().lock().unwrap()).collect();
    faults.heal();
    faults.next(2, "patch", Act::Lose);
    for (i, reader) in readers.into_iter().enumerate() {
        assert!(beside.try_lock("x").unwrap().is_none(), "{i} left");
        assert_eq!(reader.unlock().unwrap(), Unlocked::Confirmed);
    }
    beside.try_lock("x").unwrap().expect("all left, each once").unlock().unwrap();
    // An acquire that was given up while it was under way.
    faults.next(1, "patch", Act::Before(ms(700)));
    let waits = locker.clone().release_budget(5 * SECOND);
    assert_eq!(kind(waits.request("x").timeout(ms(300)).lock()), ErrorKind::Timeout);
    thread::sleep(SECOND);
    free(&beside, 5 * SECOND);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_watch_may_end_as_it_likes() {
    let (faults, locker, beside, _) = three();
    let event = |kind: &str, object: &str| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
    let gone = event(
        "ERROR",
        r#"{"kind":"Status","message":"too old resource version","reason":"Expired","code":410}"#,
    );
    let bookmark = event("BOOKMARK", r#"{"metadata":{"resourceVersion":"7"}}"#);
    let status = r#"{"kind":"Status","status":"Failure","reason":"Expired","message":"too old","code":410}"#;
    let forbidden = r#"{"kind":"Status","status":"Failure","reason":"Forbidden","message":"no","code":403}"#;
    let streams = [
        ("nothing", answer(200, &[], "")),
        ("410 in the stream", answer(200, &[], &gone)),
        ("410", answer(410, &[], status)),
        ("bookmarks alone", answer(200, &[], &bookmark.repeat(50))),
        ("garbage", answer(200, &[], "who are you\nwho are you\n")),
        ("half an event", answer(200, &[], &gone[..30])),
        ("503", answer(503, &[], "")),
        ("captive portal", answer(200, &[], "<html>\n</html>")),
        // The last one: it is not tried again for a minute.
        ("refused", answer(403, &[], forbidden)),
    ];
    for (what, stream) in streams {
        let guard = beside.lock("x").unwrap();
        faults.forget();
        faults.always("watch", Act::Answer(stream));
        let waiter = {
            let locker = locker.clone();
            thread::spawn(move || locker.lock("x").map(drop))
        };
        thread::sleep(ms(1500));
        let asked = faults.all().len();
        assert!(!waiter.is_finished(), "{what}");
        guard.unlock().unwrap();
        let (done, took) = timed(|| waiter.join().unwrap());
        done.unwrap_or_else(|e| panic!("{what}: {e}"));
        println!("{what}: {asked} requests in 1.5 s, and the lock {took:?} after the release");
        assert!(took < ms(1500), "{what}: {took:?}");
        assert!(asked < 40, "{what}: no busy loop: {asked}");
        faults.heal();
    }
    assert!(faults.seen("watch").len() <= 1, "a refused one is not tried all the time");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn an_outage_is_ridden_out_and_a_longer_one_is_a_loss_in_time() {
    let (faults, locker, beside, _) = three();
    let guard = locker.request("x").ttl(6 * SECOND).lock().unwrap();
    faults.always("patch", Act::Drop);
    faults.always("get", Act::Drop);
    thread::sleep(4 * SECOND);
    guard.check().expect("there is time left");
    faults.heal();
    until("it is renewed", || guard.valid_for().unwrap() > 4 * SECOND);
    faults.always("patch", Act::After(LONG));
    faults.always("get", Act::After(LONG));
    let (next, took) = timed(|| beside.request("x").timeout(LONG).lock().unwrap());
    println!("the next holder {took:?} later, of a TTL of 6 s");
    assert!(!guard.is_held(), "lost before another has it");
    assert_eq!(guard.check().unwrap_err().lost_reason(), Some(LostReason::Expired));
    faults.heal();
    let (lost, took) = timed(|| guard.unlock());
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Lost);
    assert!(took < 6 * SECOND, "{took:?}");
    next.renew().expect("and nothing late of it counts");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn an_object_that_goes_while_it_is_waited_for_is_made_again() {
    let (_, locker, beside, object) = three();
    let _guard = beside.lock("x").unwrap();
    let waiter = thread::spawn(move || locker.lock("x").map(drop));
    thread::sleep(ms(300));
    assert_eq!(by_hand("DELETE", &format!("{CONFIG_MAPS}/{object}"), "application/json", "").0, 200);
    let (done, took) = timed(|| waiter.join().unwrap());
    done.unwrap();
    assert!(took < 3 * SECOND, "{took:?}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_hand_over_bears_what_passes() {
    let (faults, locker, beside, _) = three();
    for (what, act) in transient() {
        let ticket = beside.lock("x").unwrap().detach().unwrap();
        faults.next(1, "patch", act);
        let adopted = locker.adopt(&ticket).unwrap_or_else(|e| panic!("{what}: {e}"));
        adopted.renew().unwrap();
        assert_eq!(kind(beside.adopt(&ticket)), ErrorKind::Lost, "{what}");
        adopted.unlock().unwrap();
    }
    // Of many at once one has it.
    let ticket = beside.lock("x").unwrap().detach().unwrap();
    let adopted: Vec<Option<Guard>> = thread::scope(|scope| {
        let adopters: Vec<_> = (0..6)
            .map(|i| {
                let (locker, ticket) = (if i % 2 == 0 { &locker } else { &beside }, &ticket);
                scope.spawn(move || locker.adopt(ticket).ok())
            })
            .collect();
        adopters.into_iter().map(|adopter| adopter.join().unwrap()).collect()
    });
    assert_eq!(adopted.iter().flatten().count(), 1);
}
