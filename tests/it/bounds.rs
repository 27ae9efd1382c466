//! Promise 4: nothing hangs, on a store that never answers either.

use std::{sync::mpsc, thread, time::Duration};

use leasehold::{Break, ErrorKind, Guard, Locker, Unlocked, memory};

use crate::support::{LONG, SECOND, by_hand, kind, ms, timed, until};

/// What the machine may take on top of a bound.
const SLACK: Duration = Duration::from_millis(400);

#[test]
fn try_lock_and_lock_with_a_timeout() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone());
    store.hang(true);
    let (result, took) = timed(|| locker.try_lock("x"));
    assert_eq!(kind(result), ErrorKind::Unavailable);
    assert!(took < SECOND + SLACK, "{took:?}");
    let (result, took) = timed(|| locker.request("x").timeout(ms(700)).lock());
    assert_eq!(kind(result), ErrorKind::Timeout);
    assert!(took >= ms(700) && took < ms(700) + SLACK, "{took:?}");
    // What hung acts late, for callers who are gone: nothing is left behind.
    store.hang(false);
    until("it is free", || locker.status("x").unwrap().mode().is_none());
    until("it can be had", || locker.try_lock("x").unwrap().is_some());
}

#[test]
fn lock_bears_silence_for_its_patience() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone()).patience(ms(800));
    store.hang(true);
    let (result, took) = timed(|| locker.lock("x"));
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took >= ms(800) && took < ms(800) + SLACK, "{took:?}");
    assert!(error.to_string().contains("no answer"), "{error}");
    store.hang(false);
}

#[test]
fn lock_bears_errors_for_its_patience_and_tells_the_last() {
    let (clock, store, locker) = by_hand();
    store.fail(usize::MAX, ErrorKind::Unavailable);
    let waiter = locker.clone();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(waiter.lock("x").map(drop)));
    assert!(told.recv_timeout(ms(100)).is_err(), "borne");
    clock.advance(31 * SECOND);
    let error = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("a test wants this call to fail"), "{error}");

    // An outage that ends is ridden out; without patience one of any length.
    store.fail(3, ErrorKind::Unavailable);
    drop(locker.lock("x").unwrap());
    store.fail(5, ErrorKind::Unavailable);
    drop(locker.patience(None).lock("x").unwrap());
}

#[test]
fn what_will_not_pass_fails_at_once() {
    for wrong in [ErrorKind::Denied, ErrorKind::Config, ErrorKind::Foreign, ErrorKind::Protocol] {
        let (_, store, locker) = by_hand();
        store.fail(1, wrong);
        let (result, took) = timed(|| locker.lock("x"));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), wrong);
        assert!(took < SLACK && error.lock_name() == Some("x"), "{took:?} {error}");
    }
    let (_, store, locker) = by_hand();
    store.fail(1, ErrorKind::Unavailable);
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable, "asked once");
}

#[test]
fn unlock_and_drop_end_with_the_release_budget_which_is_shared_once_it_ran_out() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone()).release_budget(ms(500));
    let mut guards: Vec<Guard> = (0..20).map(|n| locker.lock(&format!("{n}")).unwrap()).collect();
    store.hang(true);
    let unlocked = guards.pop().unwrap();
    let watch = unlocked.watch();
    let (how, took) = timed(|| unlocked.unlock().unwrap());
    assert_eq!(how, Unlocked::Expiring);
    assert!(took >= ms(500) && took < ms(500) + SLACK, "{took:?}");
    assert!(!watch.is_held(), "the flag fell first");
    let ((), took) = timed(|| drop(guards));
    assert!(took < SLACK, "nineteen drops, and none waits: {took:?}");

    store.hang(false);
    until("all are free", || locker.list().unwrap().iter().all(|status| status.mode().is_none()));
    // A release was confirmed since: drops wait again.
    let guard = locker.lock("again").unwrap();
    store.hang(true);
    let ((), took) = timed(|| drop(guard));
    assert!(took >= ms(500), "{took:?}");
    store.hang(false);
}

#[test]
fn questions_end_too() {
    let (clock, store, locker) = by_hand();
    store.hang(true);
    let asker = locker.clone();
    let thread = thread::spawn(move || {
        [kind(asker.status("x")), kind(asker.list()), kind(asker.break_lock("x", Break::Now))]
    });
    until("all have ended", || {
        clock.advance(SECOND);
        thread.is_finished()
    });
    assert_eq!(thread.join().unwrap(), [ErrorKind::Unavailable; 3]);
    store.hang(false);
}

#[test]
fn renew_ends_with_the_validity() {
    let store = memory::Store::new();
    let guard = Locker::new(store.clone()).ttl(ms(700)).lock("x").unwrap();
    store.hang(true);
    let (result, took) = timed(|| guard.renew());
    assert_eq!(kind(result), ErrorKind::Lost);
    assert!(took < ms(700) + SLACK, "{took:?}");
    store.hang(false);
}

#[test]
fn many_renewals_at_once_on_a_store_that_hangs() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone()).ttl(2 * SECOND).release_budget(ms(500));
    let guard = locker.lock("x").unwrap();
    store.hang(true);
    let ((), took) = timed(|| {
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| guard.renew().unwrap_err());
            }
        });
    });
    assert!(took < 2 * SECOND + SLACK, "{took:?}");
    let (unlocked, took) = timed(|| kind(guard.unlock()));
    assert_eq!(unlocked, ErrorKind::Lost);
    assert!(took < SLACK, "{took:?}");
    store.hang(false);
    until("it is free", || locker.try_lock("x").unwrap().is_some());
}
