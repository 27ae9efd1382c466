//! The network and the service at their worst.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use leasehold::{Break, Error, ErrorKind, Guard, Locker, LostReason, Unlocked, azure::Account};

use crate::{
    common::promises::nothing_hangs,
    fault_server::{Act, FaultServer, MARK, Seen, answer, coded, grants, logged, transient},
    support::{KEY, NAME, SECOND, account, account_at, fresh_container, kind, ms, timed, until},
};

/// What a bound may be passed by.
const MINUTE: Duration = Duration::from_secs(60);

/// A locker on this server.
fn locker_on(server: &FaultServer, container: &str) -> Locker {
    let container = account_at(&server.endpoint()).container(container).create_container(true);
    Locker::new(container.build().unwrap()).ttl(15 * SECOND).patience(5 * SECOND)
}

/// A server in front of Azurite, a locker on it, and one beside it.
fn three() -> (FaultServer, Locker, Locker) {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let through = locker_on(&server, &container);
    let beside = Locker::new(account().container(&container).build().unwrap());
    warm(&server, &through, "x");
    (server, through, beside)
}

/// Makes the lock's blob, so that one acquire is one request.
fn warm(server: &FaultServer, locker: &Locker, name: &str) {
    assert_eq!(locker.lock(name).unwrap().unlock().unwrap(), Unlocked::Confirmed);
    server.forget();
}

/// A guard that is renewed only when told so.
fn quiet(locker: &Locker, name: &str) -> Guard {
    locker.request(name).auto_renew(false).lock().unwrap()
}

#[track_caller]
fn free(locker: &Locker, name: &str, within: Duration) {
    let start = Instant::now();
    until("nobody has it", || {
        assert!(start.elapsed() < within, "still held after {within:?}");
        locker.status(name).unwrap().mode().is_none()
    });
}

/// One attempt of the lock, however often it was sent.
fn one_id(acquires: &[Seen]) -> String {
    let ids = acquires.iter().map(|seen| seen.header("x-ms-proposed-lease-id"));
    let mut ids: Vec<&str> = ids.collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0].to_owned()
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn an_acquire_bears_what_passes() {
    let (server, locker, beside) = three();
    for (what, act) in transient() {
        server.forget();
        server.next(1, "acquire", act.clone());
        let error = locker.try_lock("x").map(|guard| guard.is_some()).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        assert_eq!(server.seen("acquire").len(), 1, "{what}");
        free(&beside, "x", 3 * SECOND);

        server.forget();
        server.next(2, "acquire", act);
        let (guard, took) = timed(|| quiet(&locker, "x"));
        assert!(took < 2 * SECOND, "{what}: {took:?}");
        let acquires = server.seen("acquire");
        assert_eq!(acquires.len(), 3, "{what}");
        assert_eq!(guard.lease_id(), Some(&*one_id(&acquires)), "{what}");
        assert!(beside.try_lock("x").unwrap().is_none(), "{what}");
        guard.renew().unwrap();
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{what}");
        free(&beside, "x", SECOND);
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_renewal_bears_what_passes() {
    let (server, locker, beside) = three();
    let guard = quiet(&locker, "x");
    for (what, act) in transient() {
        server.next(1, "renew", act);
        let error = guard.renew().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        assert!(guard.is_held(), "{what}");
        guard.renew().expect(what);
    }
    for (what, act) in [("twice", Act::Twice), ("late", Act::After(ms(300)))] {
        server.next(1, "renew", act);
        guard.renew().expect(what);
    }
    assert!(beside.try_lock("x").unwrap().is_none());
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_release_bears_what_passes() {
    let (server, locker, beside) = three();
    let mut all = transient();
    all.extend([("twice", Act::Twice), ("late", Act::After(ms(300)))]);
    for (what, act) in all {
        let guard = quiet(&locker, "x");
        server.forget();
        server.next(1, "release", act);
        let (how, took) = timed(|| guard.unlock());
        assert_eq!(how.expect(what), Unlocked::Confirmed, "{what}");
        assert!(took < SECOND, "{what}: {took:?}");
        assert!(server.seen("release").len() <= 2, "{what}");
        free(&beside, "x", SECOND);
    }
}

#[test]
fn retry_after_is_heeded() {
    thread::scope(|scope| {
        for status in [500, 503, 429] {
            scope.spawn(move || {
                let server = FaultServer::scripted(grants);
                let locker = locker_on(&server, "locks");
                let busy = answer(status, &[MARK, ("Retry-After", "1")], "");
                server.next(2, "acquire", Act::Answer(busy));
                drop(locker.lock("x").unwrap());
                let at: Vec<Instant> = server.seen("acquire").iter().map(|seen| seen.at).collect();
                assert_eq!(at.len(), 3);
                let pauses: Vec<Duration> = at.windows(2).map(|w| w[1] - w[0]).collect();
                assert!(pauses.iter().all(|p| *p >= ms(990) && *p < 2 * SECOND), "{status}: {pauses:?}");
            });
        }
    });
}

#[test]
fn retry_after_is_heeded_by_renewals() {
    let server = FaultServer::scripted(grants);
    let guard = locker_on(&server, "locks").lock("x").unwrap();
    server.next(1, "renew", Act::Answer(answer(503, &[MARK, ("x-ms-retry-after-ms", "2000")], "")));
    until("a second renewal", || server.seen("renew").len() > 1);
    let at: Vec<Instant> = server.seen("renew").iter().map(|seen| seen.at).collect();
    assert!(at[1] - at[0] >= ms(1990), "{:?}", at[1] - at[0]);
    assert!(guard.is_held());
}

#[test]
fn retry_after_is_heeded_by_releases() {
    let server = FaultServer::scripted(grants);
    let guard = locker_on(&server, "locks").lock("x").unwrap();
    server.next(1, "release", Act::Answer(answer(503, &[MARK, ("x-ms-retry-after-ms", "1500")], "")));
    let (how, took) = timed(|| guard.unlock().unwrap());
    assert_eq!(how, Unlocked::Confirmed);
    assert!(took >= ms(1490) && server.seen("release").len() == 2, "{took:?}");
}

#[test]
fn what_the_service_says_to_an_acquire() {
    let server = FaultServer::scripted(grants);
    let locker = locker_on(&server, "locks");
    let strict = Locker::new(account_at(&server.endpoint()).container("locks").build().unwrap());
    let said = |what: Vec<u8>| {
        server.heal();
        server.forget();
        server.always("acquire", Act::Answer(what));
    };
    for code in ["LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired"] {
        said(coded(409, code));
        assert!(locker.try_lock("x").unwrap().is_none(), "{code}");
        assert_eq!(kind(locker.request("x").timeout(ms(300)).lock()), ErrorKind::Timeout, "{code}");
    }
    let other = [MARK, ("x-ms-lease-id", "00000000-0000-4000-8000-000000000000")];
    for (what, expected) in [
        (coded(401, "NoAuthenticationInformation"), ErrorKind::Denied),
        (answer(401, &[MARK], ""), ErrorKind::Denied),
        (coded(403, "AuthenticationFailed"), ErrorKind::Denied),
        (coded(403, "AuthorizationPermissionMismatch"), ErrorKind::Denied),
        (answer(403, &[MARK], ""), ErrorKind::Denied),
        (coded(400, "InvalidHeaderValue"), ErrorKind::Config),
        (coded(409, "InvalidBlobType"), ErrorKind::Foreign),
        (coded(409, "SomethingNew"), ErrorKind::Protocol),
        (coded(412, "LeaseIdMismatchWithBlobOperation"), ErrorKind::Protocol),
        (answer(302, &[MARK, ("Location", "http://127.0.0.1:1/")], ""), ErrorKind::Protocol),
        (answer(200, &[MARK], ""), ErrorKind::Protocol),
        // The lease of somebody else, and of nobody.
        (answer(201, &other, ""), ErrorKind::Protocol),
        (answer(201, &[MARK], ""), ErrorKind::Protocol),
    ] {
        let shown = String::from_utf8_lossy(&what).into_owned();
        said(what);
        let (result, took) = timed(|| locker.lock("x"));
        let error = result.expect_err(&shown);
        assert_eq!(error.kind(), expected, "{shown}: {error}");
        assert!(took < ms(500) && server.seen("acquire").len() == 1, "{shown}: {took:?}");
    }
    for code in ["ContainerNotFound", "BlobNotFound"] {
        server.heal();
        server.next(1, "acquire", Act::Answer(coded(404, code)));
        drop(locker.lock("x").expect(code));
    }
    said(coded(404, "ContainerNotFound"));
    let error = strict.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("create_container"), "{error}");
    // With nothing but missing things, it ends.
    said(coded(404, "BlobNotFound"));
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    assert!(server.seen("acquire").len() < 10);

    said(coded(409, "ContainerBeingDeleted"));
    let error = locker.try_lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.code(), Some("ContainerBeingDeleted"));
    server.heal();
    server.next(2, "acquire", Act::Answer(coded(409, "ContainerBeingDeleted")));
    drop(locker.lock("x").unwrap());
}

#[test]
fn what_the_service_says_to_a_renewal() {
    let server = FaultServer::scripted(grants);
    let locker = locker_on(&server, "locks");
    for (status, code, reason) in [
        (409, "LeaseIdMismatchWithLeaseOperation", LostReason::Taken),
        (409, "LeaseNotPresentWithLeaseOperation", LostReason::Expired),
        (409, "LeaseIsBrokenAndCannotBeRenewed", LostReason::Broken),
        (404, "BlobNotFound", LostReason::Deleted),
        (404, "ContainerNotFound", LostReason::Deleted),
        (409, "ContainerBeingDeleted", LostReason::Deleted),
    ] {
        let guard = quiet(&locker, code);
        server.next(1, "renew", Act::Answer(coded(status, code)));
        let error = guard.renew().expect_err(code);
        assert_eq!((error.kind(), error.lost_reason()), (ErrorKind::Lost, Some(reason)), "{error}");
        assert_eq!((error.code(), error.request_id()), (Some(code), Some(MARK.1)));
        assert!(!guard.is_held());
        assert_eq!(kind(guard.unlock()), ErrorKind::Lost, "{code}");
    }
    let guard = quiet(&locker, "x");
    let other = [MARK, ("x-ms-lease-id", "00000000-0000-4000-8000-000000000000")];
    for what in [
        answer(200, &other, ""),
        answer(200, &[MARK], ""),
        answer(201, &[MARK], ""),
        answer(404, &[MARK], ""),
        answer(302, &[MARK], ""),
        coded(403, "AuthorizationFailure"),
        coded(409, "SomethingNew"),
        coded(412, "SomethingNew"),
    ] {
        let before = guard.valid_for().unwrap();
        let shown = String::from_utf8_lossy(&what).into_owned();
        server.next(1, "renew", Act::Answer(what));
        let error = guard.renew().expect_err(&shown);
        assert_ne!(error.kind(), ErrorKind::Lost, "{shown}");
        assert!(guard.is_held() && guard.valid_for().unwrap() <= before, "{shown}");
    }
    guard.renew().unwrap();
}

/// No call outlives its budget beside this.
fn bounds(act: &Act) {
    let server = FaultServer::scripted(grants);
    let locker = locker_on(&server, "locks").release_budget(ms(500));
    let guards = ["a", "b"].map(|name| quiet(&locker, name));
    for on in ["acquire", "renew", "release", "status", "break"] {
        server.always(on, act.clone());
    }
    nothing_hangs(&locker, guards, 5 * SECOND);
    assert!(server.seen("release").len() >= 2);
}

#[test]
fn nothing_hangs_beside_silence() {
    bounds(&Act::Before(MINUTE));
}

#[test]
fn nothing_hangs_beside_an_answer_that_drips() {
    let start = b"HTTP/1.1 503 No\r\nx-ms-request-id: 1\r\n".to_vec();
    bounds(&Act::Endless(start, 1, ms(100)));
}

#[test]
fn nothing_hangs_beside_a_body_that_drips() {
    let start = b"HTTP/1.1 503 No\r\nx-ms-request-id: 1\r\n\r\n".to_vec();
    bounds(&Act::Endless(start, 1, ms(100)));
}

#[test]
fn a_hung_request_keeps_nobody_else_from_it() {
    let server = FaultServer::scripted(grants);
    let locker = locker_on(&server, "locks");
    warm(&server, &locker, "x");
    server.next(1, "acquire", Act::Before(MINUTE));
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    let (guard, took) = timed(|| locker.lock("x").unwrap());
    assert!(took < ms(500), "over another connection: {took:?}");
    server.next(1, "renew", Act::Before(MINUTE));
    assert_eq!(kind(guard.renew()), ErrorKind::Unavailable);
    guard.renew().unwrap();
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn an_acquire_that_is_given_up_leaves_no_lease() {
    let (server, locker, beside) = three();
    for act in [Act::Lose, Act::Cut(30), Act::After(3 * SECOND)] {
        server.always("acquire", act);
        assert_eq!(kind(locker.request("x").timeout(ms(700)).lock()), ErrorKind::Timeout);
        free(&beside, "x", 5 * SECOND);
        assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
        free(&beside, "x", 5 * SECOND);
        server.heal();
    }
    // One that arrives after all of that runs out.
    server.next(1, "acquire", Act::Before(2 * SECOND));
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    until("the late request", || beside.status("x").unwrap().mode().is_some());
    assert!(beside.status("x").unwrap().expires());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_late_copy_of_an_acquire_is_no_lock_for_ever() {
    let (server, locker, beside) = three();
    server.next(1, "acquire", Act::Again(SECOND));
    let guard = locker.request("x").no_expiry().lock().unwrap();
    let acquires = server.seen("acquire");
    let durations: Vec<&str> = acquires.iter().map(|seen| seen.header("x-ms-lease-duration")).collect();
    assert_eq!(durations, ["60", "-1"]);
    assert_eq!(guard.lease_id(), Some(&*one_id(&acquires)));
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    until("the copy", || beside.status("x").unwrap().mode().is_some());
    assert!(beside.status("x").unwrap().expires());
    beside.break_lock("x", Break::Now).unwrap();
    // No request for ever before the other one was confirmed.
    server.forget();
    server.next(2, "acquire", Act::Lose);
    drop(locker.request("x").no_expiry().lock().unwrap());
    let acquires = server.seen("acquire");
    let durations: Vec<&str> = acquires.iter().map(|seen| seen.header("x-ms-lease-duration")).collect();
    assert_eq!(durations, ["60", "60", "60", "-1"]);
}

#[test]
fn a_clock_that_is_wrong_does_no_harm() {
    const AHEAD: Duration = Duration::from_secs(20 * 60);
    const BEARS: Duration = Duration::from_secs(15 * 60);
    let server = FaultServer::scripted(|seen| {
        let now = SystemTime::now() + AHEAD;
        let date = httpdate::fmt_http_date(now);
        let theirs = httpdate::parse_http_date(seen.header("x-ms-date")).unwrap();
        let good = now.duration_since(theirs).unwrap_or_default() < BEARS;
        let said = if good { grants(seen) } else { coded(403, "AuthenticationFailed") };
        let said = String::from_utf8(said).unwrap();
        said.replacen("\r\n", &format!("\r\nDate: {date}\r\n"), 1).into_bytes()
    });
    let locker = locker_on(&server, "locks");
    let guard = quiet(&locker, "x");
    assert_eq!(server.seen("acquire").len(), 2);
    guard.renew().unwrap();
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    drop(quiet(&locker, "y"));
    assert_eq!(server.seen("acquire").len(), 3);
    let later = [server.seen("renew"), server.seen("release"), server.seen("acquire").split_off(1)].concat();
    for seen in later {
        let date = httpdate::parse_http_date(seen.header("x-ms-date")).unwrap();
        let ahead = date.duration_since(SystemTime::now()).unwrap();
        assert!(ahead + 10 * SECOND > AHEAD && ahead < AHEAD + 5 * SECOND, "{ahead:?}");
    }
    // What is refused for another reason is refused at once.
    server.forget();
    server.always("acquire", Act::Answer(coded(403, "AuthenticationFailed")));
    assert_eq!(kind(locker.lock("z")), ErrorKind::Denied);
    assert_eq!(server.seen("acquire").len(), 1);
}

#[test]
fn what_comes_between_the_two_requests_for_ever_is_no_fault() {
    let server = FaultServer::scripted(grants);
    let locker = locker_on(&server, "locks");
    for code in ["LeaseAlreadyPresent", "LeaseIsBreakingAndCannotBeAcquired", "BlobNotFound"] {
        server.next(1, "acquire", Act::Twice);
        server.next(1, "acquire", Act::Answer(coded(if code == "BlobNotFound" { 404 } else { 409 }, code)));
        let guard = locker.request("x").no_expiry().lock().expect(code);
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{code}");
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_lock_for_ever_that_is_given_up_is_released_after_an_outage() {
    let (server, locker, beside) = three();
    let locker = locker.release_budget(ms(500));
    server.next(1, "acquire", Act::Twice);
    server.next(1, "acquire", Act::Lose);
    server.always("acquire", Act::Drop);
    server.always("release", Act::Drop);
    assert_eq!(kind(locker.request("x").no_expiry().timeout(3 * SECOND).lock()), ErrorKind::Timeout);
    assert!(!beside.status("x").unwrap().expires());
    thread::sleep(SECOND);
    server.heal();
    free(&beside, "x", 5 * SECOND);
}

#[test]
fn no_secret_is_told() {
    const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZQ";
    let said = logged();
    let server = FaultServer::scripted(grants);
    let sas = format!("sv=2020-10-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&sig={SIGNATURE}%3D");
    let accounts =
        [Account::with_key(NAME, KEY), Account::with_sas(NAME, &sas)].map(|account| account.unwrap());
    let mut told = Vec::new();
    for account in accounts {
        let account = account.endpoint(&server.endpoint()).unwrap();
        let builder = account.container("locks").create_container(true);
        told.push(format!("{account:?} {account:#?} {builder:?}"));
        let store = builder.build().unwrap();
        told.push(format!("{store:?}"));
        let locker = Locker::new(store).ttl(15 * SECOND).patience(ms(500)).release_budget(ms(200));
        let guard = quiet(&locker, "x");
        told.push(format!("{locker:?} {guard:?} {:?}", guard.watch()));
        let mut all = transient();
        all.extend([
            ("silence", Act::Before(MINUTE)),
            ("401", Act::Answer(coded(401, "NoAuthenticationInformation"))),
            ("403", Act::Answer(coded(403, "AuthenticationFailed"))),
            ("400", Act::Answer(coded(400, "InvalidHeaderValue"))),
            ("404", Act::Answer(coded(404, "ContainerNotFound"))),
            ("302", Act::Answer(answer(302, &[MARK, ("Location", "http://127.0.0.1:1/x?y")], ""))),
            ("409", Act::Answer(coded(409, "LeaseIdMismatchWithLeaseOperation"))),
        ]);
        for (_, act) in all {
            for on in ["acquire", "blob", "status", "break", "renew"] {
                server.always(on, act.clone());
            }
            let guard = if matches!(&act, Act::Before(_)) { None } else { guard.renew().err() };
            let errors = [
                locker.try_lock("y").err(),
                if matches!(&act, Act::Before(_)) { None } else { locker.status("y").err() },
                guard,
            ];
            let shown = |e: Error| {
                let cause = std::error::Error::source(&e).map(|cause| format!("{cause} {cause:?}"));
                format!("{e} {e:?} {e:#?} {cause:?} {:?}", std::io::Error::from(e.clone()))
            };
            told.extend(errors.into_iter().flatten().map(shown));
            server.heal();
        }
        assert!(told.len() > 60, "{}", told.len());
        let wire = server.seen("acquire").pop().unwrap();
        let signed = wire.target.contains(SIGNATURE) || wire.header("authorization").contains("SharedKey ");
        assert!(signed, "it was sent");
    }
    // What is wrong with a credential is said without it.
    let half = &KEY[..40];
    for wrong in [
        Account::with_key(NAME, &format!("{half}!!")).map(drop),
        Account::with_key("no such", KEY).map(drop),
        Account::with_sas(NAME, &format!("sv=1&sgi={SIGNATURE}")).map(drop),
        Account::with_sas(NAME, &format!("sv=1&sig={SIGNATURE} x")).map(drop),
        Account::with_sas(NAME, &format!("sig={SIGNATURE}"))
            .unwrap()
            .endpoint(&format!("ftp://x?{sas}"))
            .map(drop),
        Account::from_connection_string(&format!("AccountKey={KEY}")).map(drop),
        Account::from_connection_string(&format!("AccountName={NAME};AccountKey={half}!!")).map(drop),
        Account::from_connection_string(&format!("AccountName={NAME};{KEY}")).map(drop),
        Account::from_connection_string(&format!("BlobEndpoint=x;SharedAccessSignature={sas}")).map(drop),
    ] {
        told.push(wrong.unwrap_err().to_string());
    }
    // Of all tests in this program; ureq's own lines at `trace` may hold URLs, and are the user's choice.
    told.extend(said.lock().unwrap().iter().cloned());
    assert!(told.iter().any(|line| line.starts_with("log leasehold: ")), "nothing was logged");
    for line in told {
        for secret in [half, SIGNATURE, "sig=", "SharedKey "] {
            let harmless = secret == "sig=" && line.contains("`sig=`");
            assert!(harmless || !line.contains(secret), "{line}");
        }
    }
}
