//! What the store promises, on a real Azurite that does as it should.

use std::{sync::mpsc, thread};

use leasehold::{Break, ErrorKind, Locker, LostReason, Mode, Unlocked};

use crate::support::{LONG, SECOND, account, fresh_container, kind, locker, ms, timed};

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn one_holds_it_and_the_next_gets_it() {
    let locker = locker();
    let guard = locker.lock("a/b c").unwrap();
    guard.check().unwrap();
    assert!(guard.lease_id().is_some() && guard.fencing_token().is_none());
    let left = guard.valid_for().unwrap();
    assert!(left > 20 * SECOND && left < 30 * SECOND, "{left:?}");
    assert!(locker.try_lock("a/b c").unwrap().is_none());
    assert!(locker.try_lock("a/b").unwrap().is_some(), "another name, another blob");
    assert_eq!(kind(locker.request("a/b c").timeout(ms(300)).lock()), ErrorKind::Timeout);
    let waiter = locker.clone();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(waiter.lock("a/b c").map(drop)));
    assert!(told.recv_timeout(ms(300)).is_err());
    guard.renew().unwrap();
    let (got, took) = timed(|| {
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
        told.recv_timeout(LONG).unwrap()
    });
    got.unwrap();
    assert!(took < SECOND, "{took:?}");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn status_tells() {
    let locker = locker();
    assert_eq!(locker.status("never").unwrap().mode(), None, "and makes no container");
    let guard = locker.lock("x").unwrap();
    let status = locker.status("x").unwrap();
    assert_eq!((status.mode(), status.expires()), (Some(Mode::Exclusive), true));
    drop(guard);
    assert_eq!(locker.status("x").unwrap().mode(), None);
    let for_ever = locker.request("x").no_expiry().lock().unwrap();
    assert_eq!(for_ever.valid_for(), None);
    assert!(!locker.status("x").unwrap().expires());
    for_ever.renew().unwrap();
    assert_eq!(for_ever.unlock().unwrap(), Unlocked::Confirmed);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn broken_at_once() {
    let locker = locker();
    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), None);
    let guard = locker.lock("x").unwrap();
    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), Some(ms(0)));
    let next = locker.try_lock("x").unwrap().expect("free at once");
    let error = guard.renew().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert!(error.code().is_some() && error.request_id().is_some(), "{error}");
    assert!(!guard.is_held() && next.is_held());
    next.renew().unwrap();
    assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
    next.renew().unwrap();
    drop(next);
    let guard = locker.lock("y").unwrap();
    locker.break_lock("y", Break::Now).unwrap();
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Broken));
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn broken_after_notice() {
    let locker = locker().ttl(15 * SECOND);
    let guard = locker.lock("x").unwrap();
    let free_in = locker.break_lock("x", Break::AfterNotice).unwrap().unwrap();
    assert!(free_in <= 16 * SECOND, "{free_in:?}");
    assert!(locker.try_lock("x").unwrap().is_none(), "not before its holder had the time to see it");
    let error = guard.renew().unwrap_err();
    assert_eq!(error.lost_reason(), Some(LostReason::Broken), "{error}");
    assert!(locker.try_lock("x").unwrap().is_none());
    let (next, took) = timed(|| locker.request("x").timeout(LONG).lock());
    assert!(next.is_ok() && took < free_in + 2 * SECOND, "{took:?}");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_lease_without_expiry_is_broken_after_notice_too() {
    let locker = locker();
    let guard = locker.request("x").no_expiry().lock().unwrap();
    let free_in = locker.break_lock("x", Break::AfterNotice).unwrap().unwrap();
    assert!(free_in > 50 * SECOND && free_in <= 61 * SECOND, "{free_in:?}");
    assert_eq!(guard.check_for(LONG).unwrap_err().lost_reason(), Some(LostReason::Broken));
    assert!(locker.try_lock("x").unwrap().is_none(), "its holder knew before anybody could have it");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_container_is_made_only_where_that_is_allowed() {
    let container = fresh_container();
    let strict = Locker::new(account().container(&container).build().unwrap());
    let error = strict.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains(&container) && error.to_string().contains("create_container"),
        "{error}"
    );
    let able = account().container(&container).create_container(true).build().unwrap();
    drop(Locker::new(able).lock("x").unwrap());
    drop(strict.lock("y").unwrap());
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_prefix_keeps_locks_apart() {
    let container = fresh_container();
    let builder = account().container(&container).create_container(true);
    let [ci, nightly] =
        ["ci", "nightly/x"].map(|prefix| Locker::new(builder.clone().prefix(prefix).build().unwrap()));
    let guard = ci.lock("x").unwrap();
    assert!(nightly.try_lock("x").unwrap().is_some());
    assert!(ci.try_lock("x").unwrap().is_none());
    drop(guard);
}

#[test]
fn what_is_wrong_is_said_when_it_is_built() {
    let account = leasehold::azure::Account::with_key("myaccount", "c2VjcmV0").unwrap();
    assert_eq!(kind(account.container("No_Such").build().map(drop)), ErrorKind::Config);
    assert_eq!(
        kind(leasehold::azure::Account::with_key("myaccount", "not base64!").map(drop)),
        ErrorKind::Config
    );
    assert_eq!(kind(account.clone().endpoint("ftp://x").map(drop)), ErrorKind::Config);
    let far = account.endpoint("http://storage.example").unwrap();
    let error = far.container("locks").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("http"), "{error}");
    assert!(far.container("locks").allow_http(true).build().is_ok());
    let locker = Locker::new(far.container("locks").allow_http(true).build().unwrap());
    assert_eq!(kind(locker.clone().ttl(14 * SECOND).lock("x")), ErrorKind::Config);
    assert_eq!(kind(locker.ttl(61 * SECOND).lock("x")), ErrorKind::Config);
}
