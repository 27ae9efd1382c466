//! Fencing tokens, holders and listings on Azurite.

use std::time::Duration;

use leasehold::{
    Break, ErrorKind, Guard, Locker, Mode,
    azure::{Builder, Names},
};

use crate::{
    fault_server::FaultServer,
    support::{SECOND, account, account_at, by_hand, fresh_container, kind, timed},
};

const TTL: Duration = Duration::from_secs(15);
/// Where a counter was lost, tokens grow by the service's clock, which tells whole seconds.
const SERVICE_TICK: Duration = Duration::from_millis(1100);

fn locker_of(builder: Builder) -> Locker {
    Locker::new(builder.create_container(true).build().unwrap()).ttl(TTL)
}

fn on(container: &str) -> Locker {
    locker_of(account().container(container))
}

fn fenced(locker: &Locker) -> Guard {
    locker.request("x").fenced().lock().unwrap()
}

/// Takes the lock, and gives its token.
fn next(locker: &Locker) -> u64 {
    let guard = fenced(locker);
    let token = guard.fencing_token().unwrap();
    guard.unlock().unwrap();
    token
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn tokens_grow_whatever_happens() {
    let container = fresh_container();
    let locker = on(&container);
    let mut tokens: Vec<u64> = (0..5).map(|_| next(&locker)).collect();
    let read = locker.request("x").shared().fenced().lock().unwrap();
    tokens.push(read.fencing_token().unwrap());
    read.unlock().unwrap();
    let broken = fenced(&locker);
    tokens.push(broken.fencing_token().unwrap());
    locker.break_lock("x", Break::Now).unwrap();
    tokens.push(next(&locker));
    drop(broken);
    let crashed = fenced(&locker);
    tokens.push(crashed.fencing_token().unwrap());
    std::mem::forget(crashed);
    locker.break_lock("x", Break::Now).unwrap();
    tokens.push(next(&locker));
    assert!(by_hand("DELETE", &format!("{container}/x"), "").contains(" 202 "));
    std::thread::sleep(SERVICE_TICK);
    tokens.push(next(&locker));
    assert!(tokens.windows(2).all(|two| two[0] < two[1]), "{tokens:?}");
    assert!(*tokens.last().unwrap() <= i64::MAX.cast_unsigned());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn it_costs_two_requests_more_and_keeps_what_others_wrote() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let locker = locker_of(account_at(&server.endpoint()).container(&container));
    let first = next(&locker);
    let target = format!("{container}/x");
    let set = format!("{target}?comp=metadata");
    // Theirs, and none of ours any more.
    assert!(by_hand("PUT", &set, "x-ms-meta-Owner: team a\r\nx-ms-meta-a_b: 1\r\n").contains(" 200 "));
    std::thread::sleep(SERVICE_TICK);
    server.forget();
    assert!(next(&locker) > first);
    assert_eq!(server.all().len(), 4);
    let there = by_hand("HEAD", &target, "").to_ascii_lowercase();
    assert!(there.contains("x-ms-meta-owner: team a") && there.contains("x-ms-meta-a_b: 1"), "{there}");

    assert!(by_hand("PUT", &set, "x-ms-meta-leaseholdtoken: mine\r\n").contains(" 200 "));
    assert_eq!(kind(locker.request("x").fenced().lock()), ErrorKind::Foreign);
    assert!(by_hand("HEAD", &target, "").contains("mine"), "left as it is");
    assert!(locker.try_lock("x").unwrap().is_some(), "and no lease is left behind");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn beside_a_library_that_wipes_metadata() {
    let container = fresh_container();
    let locker = locker_of(account().container(&container).names(Names::AzMutex));
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(next(&locker));
        let put = by_hand("PUT", &format!("{container}/x"), "x-ms-blob-type: BlockBlob\r\n");
        assert!(put.contains(" 201 "), "{put}");
    }
    assert!(tokens.windows(2).all(|two| two[0] < two[1]), "{tokens:?}");
    let _guard = fenced(&locker);
    assert_eq!(locker.status("x").unwrap().holders().len(), 1);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn the_holder_is_told() {
    let container = fresh_container();
    let (holder, waiter) = (on(&container).holder("nightly: 100 %\n"), on(&container));
    let guard = fenced(&holder);
    let status = waiter.status("x").unwrap();
    let [there] = status.holders() else { panic!("{status:?}") };
    assert_eq!((status.mode(), status.expires()), (Some(Mode::Exclusive), true));
    assert_eq!((there.words(), there.pid()), ("nightly: 100 %\n", Some(std::process::id())));
    assert!(there.since().unwrap().elapsed().unwrap() < 5 * SECOND);
    let (error, took) = timed(|| waiter.request("x").timeout(2 * SECOND).lock().unwrap_err());
    assert_eq!(error.holder().unwrap().words(), "nightly: 100 %\n");
    assert!(took < 3 * SECOND, "{took:?}");
    guard.unlock().unwrap();
    assert!(waiter.status("x").unwrap().holders().is_empty());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn all_locks_are_listed() {
    let container = fresh_container();
    let locker = locker_of(account().container(&container).prefix("app/1"));
    assert!(locker.list().unwrap().is_empty(), "no container");
    let beside = locker_of(account().container(&container));
    beside.lock("other").unwrap().unlock().unwrap();
    let _one = locker.lock("a/b & <c>").unwrap();
    let _two = [0; 3].map(|_| locker.request("x").shared().lock().unwrap());
    locker.lock("free").unwrap().unlock().unwrap();
    let _ever = locker.request("ever").no_expiry().lock().unwrap();
    locker.request("left").shared().lock().unwrap().unlock().unwrap();
    let mut found: Vec<_> = locker.list().unwrap();
    found.sort_by(|a, b| a.name().cmp(b.name()));
    let told: Vec<_> = found.iter().map(|s| (s.name(), s.mode(), s.expires(), s.holders().len())).collect();
    assert_eq!(
        told,
        [
            ("a/b & <c>", Some(Mode::Exclusive), true, 0),
            ("ever", Some(Mode::Exclusive), false, 0),
            ("free", None, true, 0),
            ("left", None, true, 0),
            ("x", Some(Mode::Shared), true, 3),
        ]
    );
}
