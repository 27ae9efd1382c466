//! Taking and giving back, on a store with leases.

use std::{
    panic::{RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use leasehold::{
    Break, Error, ErrorKind, Event, Guard, Holder, LockRequest, Locker, Mode, Status, Ticket, Unlocked,
    Watch,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Clock, Grant},
    memory,
};

use crate::support::{LONG, SECOND, Told, by_hand, kind, ms, timed, until};

#[test]
fn one_holds_it_and_others_are_told_who() {
    let store = memory::Store::new();
    let first = Locker::new(store.clone()).holder("the first");
    let second = Locker::new(store);
    let guard = first.lock("x").unwrap();
    assert!(guard.is_held() && guard.check().is_ok());
    assert_eq!(guard.name(), "x");
    assert!(guard.lease_id().is_some_and(|id| id.len() == 36));
    assert!(guard.valid_for().unwrap() > 25 * SECOND);
    assert!(second.try_lock("x").unwrap().is_none(), "contention is no error");
    assert!(second.try_lock("y").unwrap().is_some());

    let (error, waited) = timed(|| second.request("x").timeout(ms(200)).lock().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.lock_name(), Some("x"));
    assert_eq!(error.holder().map(Holder::words), Some("the first"));
    assert!(error.to_string().contains("\"the first\" (this process"), "{error}");
    assert!(waited >= ms(200) && waited < SECOND + ms(200), "{waited:?}");

    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    assert!(second.try_lock("x").unwrap().is_some());
}

#[test]
fn a_timeout_of_zero_is_one_try() {
    let locker = Locker::new(memory::Store::new());
    let guard = locker.request("x").timeout(ms(0)).lock().unwrap();
    assert_eq!(kind(locker.request("x").timeout(ms(0)).lock()), ErrorKind::Timeout);
    drop(guard);
    assert!(locker.request("x").timeout(None).lock().is_ok());
}

#[test]
fn waiters_get_it_as_soon_as_it_is_released() {
    let locker = Locker::new(memory::Store::new());
    let guard = locker.lock("x").unwrap();
    let (tell, told) = mpsc::channel();
    let waiter = locker.clone();
    thread::spawn(move || tell.send(waiter.lock("x").map(drop)));
    assert!(told.recv_timeout(ms(50)).is_err());
    let (answer, took) = timed(|| {
        drop(guard);
        told.recv_timeout(LONG).unwrap()
    });
    answer.unwrap();
    assert!(took < ms(500), "{took:?}");
}

#[test]
fn with_lock_gives_what_the_work_gives_and_a_panic_frees_the_lock() {
    let locker = Locker::new(memory::Store::new());
    assert_eq!(locker.with_lock("x", |guard| guard.name().len()).unwrap(), 1);
    let own: Result<(), &str> = locker.with_lock("x", |_| Err("mine")).unwrap();
    assert_eq!(own, Err("mine"));
    assert!(catch_unwind(|| locker.with_lock("x", |_| panic!("on purpose"))).is_err());
    assert!(locker.try_lock("x").unwrap().is_some());
}

#[test]
fn with_lock_says_when_the_work_was_not_protected() {
    let (_, store, locker) = by_hand();
    let other = Locker::new(store);
    let result = locker.with_lock("x", |_| other.break_lock("x", Break::Now).map(drop));
    assert_eq!(kind(result), ErrorKind::Lost);
}

#[test]
fn guards_travel_and_outlive_their_locker() {
    let store = memory::Store::new();
    let guard = {
        let locker = Locker::new(store.clone());
        locker.lock("x").unwrap()
    };
    assert!(guard.is_held());
    guard.renew().unwrap();
    let watch = guard.watch();
    thread::spawn(move || drop(guard)).join().unwrap();
    assert!(!watch.is_held());
    assert_eq!(kind(watch.check()), ErrorKind::Released);
    assert!(Locker::new(store).try_lock("x").unwrap().is_some());
}

#[test]
fn a_thousand_at_once() {
    let locker = Locker::new(memory::Store::new());
    let guards: Vec<Guard> = (0..1000).map(|n| locker.lock(&format!("{n}")).unwrap()).collect();
    assert!(guards.iter().all(Guard::is_held));
    assert_eq!(locker.list().unwrap().iter().filter(|status| status.mode().is_some()).count(), 1000);
    drop(guards);
    assert!(locker.list().unwrap().iter().all(|status| status.mode().is_none()));
}

#[test]
fn a_forgotten_guard_keeps_its_lock_and_does_not_stop_the_asking() {
    let (clock, store, locker) = by_hand();
    std::mem::forget(locker.lock("x").unwrap());
    clock.advance(600 * SECOND);
    assert!(locker.try_lock("x").unwrap().is_none(), "kept alive");
    assert_eq!(Locker::new(store).break_lock("x", Break::Now).unwrap(), Some(ms(0)));
    assert!(locker.try_lock("x").unwrap().is_some(), "asked the store, not this process");
}

#[test]
fn shared_holders_go_together_and_never_beside_an_exclusive_one() {
    let store = memory::Store::new();
    let locker = Locker::new(store);
    let shared = locker.request("x").shared();
    let (a, b) = (shared.lock().unwrap(), shared.try_lock().unwrap().unwrap());
    let status = locker.status("x").unwrap();
    assert_eq!((status.mode(), status.holders().len(), status.expires()), (Some(Mode::Shared), 2, true));
    assert!(locker.try_lock("x").unwrap().is_none());
    drop(a);
    assert!(locker.try_lock("x").unwrap().is_none());
    drop(b);
    let alone = locker.lock("x").unwrap();
    assert!(shared.try_lock().unwrap().is_none());
    drop(alone);
    assert_eq!(locker.status("x").unwrap().mode(), None);
}

#[test]
fn tokens_grow_from_holder_to_holder() {
    let locker = Locker::new(memory::Store::new());
    let mut last = 0;
    for round in 0..20 {
        let request = locker.request("x").fenced();
        let request = if round % 3 == 2 { request.shared() } else { request };
        let token = request.lock().unwrap().fencing_token().unwrap();
        assert!(token > last && i64::try_from(token).is_ok());
        last = token;
    }
}

#[test]
fn without_auto_renew_the_holder_renews() {
    let (clock, _, locker) = by_hand();
    let told = Told::default();
    let locker = told.by(locker).ttl(10 * SECOND);
    let guard = locker.request("x").auto_renew(false).lock().unwrap();
    clock.advance(9 * SECOND);
    assert_eq!(told.count("renewed"), 0);
    guard.renew().unwrap();
    assert_eq!(told.count("renewed"), 1);
    clock.advance(9 * SECOND);
    assert!(guard.is_held());
    clock.advance(SECOND);
    assert!(!guard.is_held());
    assert_eq!(kind(guard.renew()), ErrorKind::Lost);
}

#[test]
fn without_expiry_it_is_kept_until_it_is_broken_and_that_is_seen() {
    let (clock, store, locker) = by_hand();
    let guard = locker.request("x").no_expiry().lock().unwrap();
    assert_eq!(guard.valid_for(), None);
    assert!(!locker.status("x").unwrap().expires());
    store.fail(usize::MAX, ErrorKind::Unavailable);
    clock.advance(1_000 * SECOND);
    assert!(guard.is_held());
    store.fail(0, ErrorKind::Unavailable);
    assert!(locker.break_lock("x", Break::AfterNotice).unwrap().is_some());
    clock.advance(11 * SECOND);
    assert_eq!(kind(guard.check()), ErrorKind::Lost);
}

#[test]
fn a_wait_is_told_of_with_the_holder() {
    let store = memory::Store::new();
    let guard = Locker::new(store.clone()).holder("nightly job").lock("x").unwrap();
    let (tell, told) = mpsc::channel();
    let waiter = Locker::new(store).on_event(move |event| {
        if let Event::Waiting { waited, .. } = event {
            tell.send((*waited, event.to_string())).unwrap();
        }
    });
    let thread = thread::spawn(move || waiter.lock("x").map(drop));
    let (after, line) = told.recv_timeout(LONG).unwrap();
    assert!(after >= ms(500) && after < 2 * SECOND, "{after:?}");
    assert!(line.starts_with("waiting for lock \"x\", held by \"nightly job\" (this process"), "{line}");
    drop(guard);
    thread.join().unwrap().unwrap();
    assert!(told.try_recv().is_err(), "once, and then every ten seconds");
}

#[test]
fn callbacks_may_panic_and_may_drop_the_guard_they_are_told_of() {
    let (clock, _, locker) = by_hand();
    let told = Told::default();
    let noisy = told.by(locker.clone()).on_event(|_| panic!("on purpose"));
    drop(noisy.lock("x").unwrap());

    let slot = std::sync::Arc::new(std::sync::Mutex::new(None::<Guard>));
    let held = slot.clone();
    let (tell, ended) = mpsc::channel();
    let locker = locker.release_budget(LONG).on_event(move |event| {
        if let Event::Renewed { .. } = event {
            let guard = held.lock().unwrap().take();
            let (how, took) = timed(|| guard.map(Guard::unlock));
            tell.send((how.map(Result::unwrap), took)).unwrap();
        }
    });
    let guard = locker.lock("y").unwrap();
    let watch = guard.watch();
    *slot.lock().unwrap() = Some(guard);
    clock.advance(15 * SECOND);
    let (how, took) = ended.recv_timeout(LONG).unwrap();
    assert_eq!(how, Some(Unlocked::Expiring), "nobody waits for itself");
    assert!(took < SECOND, "{took:?}");
    assert!(!watch.is_held());
    until("the keeper let go", || locker.try_lock("y").unwrap().is_some());
}

#[test]
fn what_a_store_cannot_do_is_said_and_wrong_settings_fail_the_first_lock() {
    struct Poor;
    impl Backend for Poor {
        fn try_acquire(&self, _: &mut Ask) -> leasehold::Result<Attempt> {
            Ok(Attempt::Busy(Busy::default()))
        }
    }
    let poor = Locker::new(Poor);
    assert_eq!(kind(poor.request("x").shared().lock()), ErrorKind::Unsupported);
    assert_eq!(kind(poor.request("x").fenced().try_lock()), ErrorKind::Unsupported);
    assert_eq!(kind(poor.status("x")), ErrorKind::Unsupported);
    assert_eq!(kind(poor.list()), ErrorKind::Unsupported);
    assert_eq!(kind(poor.break_lock("x", Break::Now)), ErrorKind::Unsupported);
    for locker in [poor, Locker::open("memory:").unwrap()] {
        assert_eq!(kind(locker.lock("")), ErrorKind::Name);
        let error = locker.clone().ttl(ms(100)).lock("x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("100 ms") && error.to_string().contains("86400 s"), "{error}");
        assert_eq!(kind(locker.request("x").ttl(100_000 * SECOND).try_lock()), ErrorKind::Config);
    }
}

#[test]
fn every_memory_address_is_one_store_and_every_new_store_another() {
    let guard = Locker::open("memory:").unwrap().lock("address").unwrap();
    assert!(Locker::open("memory:").unwrap().try_lock("address").unwrap().is_none());
    assert!(Locker::new(memory::Store::new()).try_lock("address").unwrap().is_some());
    guard.unlock().unwrap();
}

#[test]
fn a_setter_changes_this_handle_and_its_later_clones_only() {
    let (_, _, locker) = by_hand();
    let short = locker.clone().ttl(SECOND);
    assert!(locker.lock("a").unwrap().valid_for().unwrap() > 20 * SECOND);
    assert!(short.lock("b").unwrap().valid_for().unwrap() <= SECOND);
    assert!(short.clone().lock("c").unwrap().valid_for().unwrap() <= SECOND);
    let request = short.request("d").ttl(5 * SECOND);
    let (first, again) = (request.lock().unwrap(), request.clone());
    assert!(first.valid_for().unwrap() > 4 * SECOND);
    assert!(again.try_lock().unwrap().is_none());
}

#[test]
fn the_types_are_what_threads_and_catch_unwind_want() {
    fn good<T: Send + Sync + UnwindSafe + RefUnwindSafe + std::fmt::Debug + 'static>() {}
    fn sent<T: Send + Sync + std::fmt::Debug + 'static>() {}
    fn owned<T: Send + std::fmt::Debug>() {}
    good::<Locker>();
    good::<LockRequest>();
    good::<Guard>();
    good::<Watch>();
    good::<Error>();
    good::<Holder>();
    good::<Status>();
    good::<Ticket>();
    good::<Abilities>();
    sent::<memory::Store>();
    sent::<leasehold::file::Store>();
    sent::<Clock>();
    sent::<Call>();
    owned::<Ask>();
    owned::<Grant>();
}
