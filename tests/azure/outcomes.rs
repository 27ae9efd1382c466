//! What becomes of a lock when its blob is not what it was, and of who may not do all that it takes.

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use leasehold::{Break, ErrorKind, Locker, LostReason, Mode, Unlocked, azure::Account};
use sha2::Sha256;

use crate::{
    fault_server::{Act, FaultServer, coded, grants, logged},
    support::{
        KEY, LONG, NAME, SECOND, account, account_at, by_hand, endpoint, fresh_container, kind, ms, timed,
        until,
    },
};

const TTL: Duration = Duration::from_secs(15);

fn on(container: &str) -> Locker {
    Locker::new(account().container(container).create_container(true).build().unwrap()).ttl(TTL)
}

fn through(server: &FaultServer, container: &str) -> Locker {
    let builder = account_at(&server.endpoint()).container(container).create_container(true);
    Locker::new(builder.build().unwrap()).ttl(TTL).patience(3 * SECOND)
}

/// One that may do so much: an account SAS ("Create an account SAS", version 2018-11-09).
fn allowed(permissions: &str, container: &str) -> Locker {
    let end = "2099-01-01T00:00:00Z";
    let text = format!("{NAME}\n{permissions}\nb\nsco\n\n{end}\n\nhttps,http\n2018-11-09\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(KEY).unwrap()).unwrap();
    mac.update(text.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let sas = format!("sv=2018-11-09&ss=b&srt=sco&sp={permissions}&se={end}&spr=https,http&sig={signature}");
    let account = Account::with_sas(NAME, &sas.replace("T00:00:00", "T00%3A00%3A00")).unwrap();
    let store = account.endpoint(&endpoint()).unwrap().container(container).build().unwrap();
    Locker::new(store).ttl(TTL).release_budget(ms(500))
}

#[track_caller]
fn lacks<T: std::fmt::Debug>(result: leasehold::Result<T>, right: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains(&format!("it has to allow {right}")), "{error}");
    assert_eq!(error.code(), Some("AuthorizationPermissionMismatch"));
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_right_that_lacks_is_named() {
    let container = fresh_container();
    let all = on(&container);
    all.lock("x").unwrap().unlock().unwrap();
    let few = allowed("cw", &container);
    few.lock("new").unwrap().unlock().unwrap();
    lacks(few.request("x").fenced().lock(), "read (`r`)");
    until("no lease is left", || all.try_lock("x").unwrap().is_some());
    lacks(few.status("x"), "read (`r`)");
    lacks(few.list(), "list (`l`)");
    lacks(few.break_lock("x", Break::AfterNotice), "list (`l`)");
    lacks(allowed("rl", &container).lock("x"), "write (`w`)");
    lacks(allowed("cl", &container).request("x").shared().lock(), "write (`w`)");

    // A reader gets in, and cannot take its entry away.
    let reader = few.request("x").shared().lock().unwrap();
    lacks(few.lock("x"), "list (`l`)");
    lacks(allowed("cwl", &container).lock("x"), "delete (`d`)");
    assert_eq!(kind(all.request("x").timeout(ms(300)).lock()), ErrorKind::Timeout);
    assert_eq!(reader.unlock().unwrap(), Unlocked::Expiring);
    let (writer, took) = timed(|| all.request("x").timeout(LONG).lock().unwrap());
    assert!(took < TTL + 2 * SECOND, "{took:?}");
    drop(writer);
    drop(allowed("rcwdl", &container).request("x").shared().fenced().lock().unwrap());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_blob_that_is_gone_for_good_or_softly_is_made_anew() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let locker = through(&server, &container);
    for code in ["SoftDeletedBlobNotFound", "BlobNotFound", "ResourceNotFound"] {
        server.next(1, "acquire", Act::Answer(coded(404, code)));
        locker.request("x").fenced().lock().unwrap().unlock().unwrap();
        let guard = locker.request("x").auto_renew(false).lock().unwrap();
        server.next(1, "renew", Act::Answer(coded(404, code)));
        let error = guard.renew().unwrap_err();
        assert_eq!(error.lost_reason(), Some(LostReason::Deleted), "{error}");
        on(&container).break_lock("x", Break::Now).unwrap();
    }
    // Between the lease and the token.
    server.next(1, "status", Act::Answer(coded(404, "SoftDeletedBlobNotFound")));
    let (guard, took) = timed(|| locker.request("x").fenced().lock().unwrap());
    assert!(guard.fencing_token().is_some() && took < 2 * SECOND, "{took:?}");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn what_no_lock_can_be_on_is_an_error_at_once_and_left_as_it_is() {
    for fault in
        ["acquire", "status", "metadata", "acquire:gate", "acquire:reader-", "blob:reader-", "release:gate"]
    {
        for (status, code, expected) in [
            (409, "BlobImmutableDueToPolicy", ErrorKind::Denied),
            (409, "BlobArchived", ErrorKind::Foreign),
            (409, "ResourceTypeMismatch", ErrorKind::Foreign),
            (409, "InvalidBlobType", ErrorKind::Foreign),
            (403, "AuthorizationFailure", ErrorKind::Denied),
            (403, "AccountIsDisabled", ErrorKind::Denied),
            (400, "InvalidUri", ErrorKind::Config),
        ] {
            let (server, container) = (FaultServer::before_azurite(), fresh_container());
            let locker = through(&server, &container);
            let fault_on_exclusive = matches!(fault, "acquire" | "status" | "metadata");
            let request = locker.request("x").fenced();
            let request = if fault_on_exclusive { request } else { request.shared() };
            server.next(1, fault, Act::Answer(coded(status, code)));
            let (result, took) = timed(|| request.lock());
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.code()), (expected, Some(code)), "{fault}: {error}");
            assert!(took < 2 * SECOND, "{fault} {code}: {took:?}");
            // What was taken by then is given back.
            let (next, took) = timed(|| on(&container).request("x").timeout(LONG).lock());
            next.unwrap().unlock().unwrap();
            assert!(took < 3 * SECOND, "{fault} {code}: {took:?}");
        }
    }
    // A directory has the name: the blob cannot be made.
    let server = FaultServer::before_azurite();
    let locker = through(&server, &fresh_container());
    server.always("blob", Act::Answer(coded(409, "ResourceTypeMismatch")));
    let error = locker.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("the blob is of a kind that no lock is"), "{error}");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_container_that_is_being_deleted_is_waited_for() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let locker = through(&server, &container);
    for fault in ["acquire", "status", "metadata", "list", "blob:reader-", "acquire:gate"] {
        let readers = [0; 2].map(|_| on(&container).request("x").shared().lock().unwrap());
        server.next(1, fault, Act::Answer(coded(409, "ContainerBeingDeleted")));
        let error = locker.try_lock("x").err().or_else(|| locker.status("x").err());
        let error = error.or_else(|| locker.request("x").shared().fenced().try_lock().err());
        drop(readers);
        let error = error.or_else(|| locker.request("x").fenced().try_lock().err());
        let error = error.unwrap_or_else(|| panic!("{fault}: nothing came of it"));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault}: {error}");
        assert!(error.to_string().contains("is being deleted"), "{fault}: {error}");
        locker.request("x").fenced().timeout(20 * SECOND).lock().expect(fault).unlock().unwrap();
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_blob_that_somebody_makes_meanwhile_is_not_written_over() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    on(&container).lock("other").unwrap().unlock().unwrap();
    let put =
        by_hand("PUT", &format!("{container}/x"), "x-ms-blob-type: BlockBlob\r\nx-ms-meta-theirs: yes\r\n");
    assert!(put.contains(" 201 "), "{put}");
    // As if it was not there a moment ago.
    server.next(1, "acquire", Act::Answer(coded(404, "BlobNotFound")));
    let guard = through(&server, &container).lock("x").unwrap();
    assert_eq!(server.seen("blob").len(), 1);
    assert!(by_hand("HEAD", &format!("{container}/x"), "").contains("x-ms-meta-theirs: yes"));
    guard.unlock().unwrap();
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_blob_that_was_replaced_is_somebody_elses() {
    for leased in [false, true] {
        let container = fresh_container();
        let target = format!("{container}/x");
        let guard = on(&container).request("x").fenced().auto_renew(false).lock().unwrap();
        let lease = format!("x-ms-lease-id: {}\r\n", guard.lease_id().unwrap());
        assert!(by_hand("DELETE", &target, &lease).contains(" 202 "));
        let put = by_hand("PUT", &target, "x-ms-blob-type: BlockBlob\r\nx-ms-meta-theirs: yes\r\n");
        assert!(put.contains(" 201 "), "{put}");
        let theirs = account().container(&container).build().unwrap().blob("x").unwrap();
        let id = "5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01";
        if leased {
            theirs.acquire(id, Some(TTL)).unwrap();
        }
        let etag = |answer: &str| {
            answer.lines().find(|line| line.to_ascii_lowercase().starts_with("etag")).map(str::to_owned)
        };
        let before = etag(&by_hand("HEAD", &target, ""));
        let error = guard.renew().unwrap_err();
        let reason = error.lost_reason().unwrap();
        assert!(matches!(reason, LostReason::Taken | LostReason::Expired | LostReason::Deleted), "{error}");
        assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
        let after = by_hand("HEAD", &target, "").to_ascii_lowercase();
        assert_eq!(etag(&after), before.map(|etag| etag.to_ascii_lowercase()), "{after}");
        assert!(after.contains("x-ms-meta-theirs: yes") && !after.contains("leasehold"), "{after}");
        assert!(
            after.contains(if leased { "x-ms-lease-state: leased" } else { "x-ms-lease-state: available" }),
            "{after}"
        );
        if leased {
            theirs.renew(id).unwrap();
        }
    }
    let container = fresh_container();
    let guard = on(&container).request("x").auto_renew(false).lock().unwrap();
    assert!(by_hand("DELETE", &format!("{container}?restype=container"), "").contains(" 202 "));
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Deleted));
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn snapshots_of_a_backup_are_in_nobodys_way() {
    let container = fresh_container();
    let locker = on(&container);
    let readers = [0; 2].map(|_| locker.request("x").shared().lock().unwrap());
    let list = by_hand("GET", &format!("{container}?restype=container&comp=list"), "");
    let names: Vec<_> = list.split("<Name>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for name in names {
        let answer = by_hand("PUT", &format!("{container}/{name}?comp=snapshot"), "");
        assert!(answer.contains(" 201 "), "{answer}");
    }
    assert_eq!(locker.status("x").unwrap().mode(), Some(Mode::Shared));
    let [first, crashed] = readers;
    assert_eq!(first.unlock().unwrap(), Unlocked::Confirmed);
    // Of this one only the entry is left.
    std::mem::forget(crashed);
    locker.break_lock("x", Break::Now).unwrap();
    drop(locker.request("x").timeout(5 * SECOND).lock().unwrap());
    assert!(locker.request("x").shared().try_lock().unwrap().is_some());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn renewed_by_hand() {
    let container = fresh_container();
    let other = on(&container);
    let guard = on(&container).request("x").auto_renew(false).lock().unwrap();
    let start = Instant::now();
    while start.elapsed() < 2 * TTL {
        // Less than the 5 or 6 s after which Azurite ends a connection, perhaps beside a request.
        thread::sleep(4 * SECOND);
        guard.renew().unwrap();
        assert!(guard.valid_for().unwrap() > 13 * SECOND);
        assert!(other.try_lock("x").unwrap().is_none(), "after {:?}", start.elapsed());
    }
    // Nobody renews it any more.
    let ((), took) = timed(|| until("its end", || !guard.is_held()));
    assert!(took > 13 * SECOND && took < TTL, "{took:?}");
    assert_eq!(guard.check().unwrap_err().lost_reason(), Some(LostReason::Expired));
    assert!(other.request("x").timeout(5 * SECOND).lock().is_ok());
}

#[test]
fn a_lock_without_expiry_warns() {
    let said = logged();
    let server = FaultServer::scripted(grants);
    let locker = through(&server, "locks");
    let warned = |name: &str| {
        let warning =
            format!("log leasehold: lock \"{name}\" never runs out: if this process dies, it stays held");
        said.lock().unwrap().iter().any(|line| line.starts_with(&warning))
    };
    drop(locker.request("runs out").lock().unwrap());
    drop(locker.request("for ever").no_expiry().lock().unwrap());
    assert!(warned("for ever") && !warned("runs out"));
}

/// So many requests of this kind in 20 s of so many waiters of one process.
fn asked(waiters: usize, shared: bool, kinds: &[&str]) -> usize {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let holder = on(&container).request("x");
    let holder = if shared { holder.shared() } else { holder }.lock().unwrap();
    let locker = through(&server, &container);
    thread::scope(|scope| {
        for _ in 0..waiters {
            let locker = locker.clone();
            scope.spawn(move || {
                assert_eq!(kind(locker.request("x").timeout(20 * SECOND).lock()), ErrorKind::Timeout);
            });
        }
    });
    holder.unlock().unwrap();
    let all = server.all().len();
    let some = server.all().iter().filter(|seen| kinds.iter().any(|kind| seen.is(kind))).count();
    println!("{waiters} waiters, shared: {shared}: {some} of {kinds:?} in 20 s, {all} requests");
    if shared { all } else { some }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn waiters_of_a_process_ask_as_one_and_not_too_often() {
    thread::scope(|scope| {
        // At first each asks for itself.
        for (waiters, first) in [(1, 1), (16, 16)] {
            scope.spawn(move || assert!(asked(waiters, false, &["acquire:/x?"]) <= 20 * 5 / 2 + first));
            // For readers: an entry each time, the gate every 8 s.
            scope
                .spawn(move || assert!(asked(waiters, true, &["delete:reader-"]) <= 20 * 8 + 10 + 4 * first));
        }
    });
}
