//! A lock that is lost: told at once, in every way, and never taken back.

use std::{sync::mpsc, thread, time::Duration};

use leasehold::{Break, ErrorKind, Locker, LostReason, backend::Clock};

use crate::support::{LONG, SECOND, Told, actor, by_hand, kind, ms, timed, until};

#[test]
fn kept_alive_for_as_long_as_the_store_answers() {
    let (clock, _, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker).ttl(30 * SECOND).lock("x").unwrap();
    clock.advance(3600 * SECOND);
    assert!(guard.is_held());
    let renewals = told.count("renewed");
    assert!((360..=460).contains(&renewals), "at a third of the TTL and a little before: {renewals}");
}

#[test]
fn a_loss_is_told_in_five_ways_that_say_the_same() {
    let (clock, store, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker).lock("x").unwrap();
    let watch = guard.watch();
    let (tell, woken) = mpsc::channel();
    let sleeper = guard.watch();
    thread::spawn(move || tell.send(sleeper.check_for(100_000 * SECOND)));
    store.fail(usize::MAX, ErrorKind::Unavailable);
    clock.advance(30 * SECOND);

    assert!(!guard.is_held() && !watch.is_held());
    assert_eq!(guard.valid_for(), Some(Duration::ZERO));
    let error = guard.check().unwrap_err();
    assert_eq!((error.kind(), error.lost_reason()), (ErrorKind::Lost, Some(LostReason::Expired)));
    assert_eq!(watch.check().unwrap_err().to_string(), error.to_string());
    assert_eq!(woken.recv_timeout(LONG).unwrap().unwrap_err().to_string(), error.to_string());
    until("the event", || told.count("lost") == 1);
    assert_eq!(guard.unlock().unwrap_err().to_string(), error.to_string());
    assert_eq!(told.count("lost"), 1, "once: {:?}", told.lines());
    assert!(told.count("renewal failed") > 5);
}

#[test]
fn the_flag_falls_before_the_store_can_give_the_lock_away() {
    let (clock, store, locker) = by_hand();
    let guard = locker.ttl(10 * SECOND).lock("x").unwrap();
    let other = Locker::new(store.clone());
    store.fail(usize::MAX, ErrorKind::Unavailable);
    clock.advance(ms(9_799));
    assert!(guard.is_held());
    clock.advance(ms(1));
    assert!(!guard.is_held(), "two hundredths before");
    store.fail(0, ErrorKind::Unavailable);
    clock.suspend(ms(199));
    // The keeper, which sees that its lock ran out, gives it back at once; till then it is the store's to refuse.
    until("the next holder", || other.try_lock("x").unwrap().is_some());
    assert!(!guard.is_held());
}

#[test]
fn transient_errors_are_ridden_out() {
    let (clock, store, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker).ttl(30 * SECOND).lock("x").unwrap();
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::Protocol] {
        store.fail(3, kind);
        clock.advance(15 * SECOND);
        guard.check().unwrap();
    }
    store.lose_answers(3);
    clock.advance(15 * SECOND);
    guard.check().unwrap();
    assert_eq!(told.count("renewal failed"), 12);
    assert_eq!(told.count("lost"), 0);
}

#[test]
fn a_machine_that_slept_too_long_finds_it_lost_before_anything_else() {
    let (clock, store, locker) = by_hand();
    let guard = locker.request("x").fenced().lock().unwrap();
    clock.suspend(31 * SECOND);
    assert!(!guard.is_held(), "the first look says so");
    let next = Locker::new(store).lock("x").unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(guard.unlock().unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "a late release frees nobody else's lock");
}

#[test]
fn a_machine_that_slept_shortly_renews_when_it_wakes() {
    let (clock, _, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker).ttl(30 * SECOND).lock("x").unwrap();
    clock.suspend(25 * SECOND);
    until("a renewal", || told.count("renewed") > 0);
    clock.advance(5 * SECOND);
    assert!(guard.is_held());
}

#[test]
fn broken_by_an_operator() {
    let (clock, store, locker) = by_hand();
    let operator = Locker::new(store);
    let told = Told::default();
    let locker = told.by(locker);

    let guard = locker.lock("x").unwrap();
    assert_eq!(operator.break_lock("x", Break::Now).unwrap(), Some(ms(0)));
    let next = operator.lock("x").unwrap();
    assert!(guard.is_held(), "the named exception: beside a holder who still believes");
    clock.advance(10 * SECOND);
    assert_eq!(guard.check().unwrap_err().lost_reason(), Some(LostReason::Broken));
    assert!(next.is_held());
    drop((guard, next));

    let guard = locker.lock("x").unwrap();
    let free_in = operator.break_lock("x", Break::AfterNotice).unwrap().unwrap();
    assert!(free_in <= 30 * SECOND, "{free_in:?}");
    assert!(operator.try_lock("x").unwrap().is_none(), "not before its holder has seen it");
    assert!(guard.is_held());
    clock.advance(10 * SECOND);
    assert_eq!(guard.check().unwrap_err().lost_reason(), Some(LostReason::Broken));
    assert!(operator.try_lock("x").unwrap().is_some());
    assert_eq!(operator.break_lock("x", Break::Now).unwrap(), None, "nobody holds it");
}

#[test]
fn check_for_sleeps_and_says_nothing_while_all_is_well() {
    let (_, _, locker) = by_hand();
    let guard = locker.lock("x").unwrap();
    let (well, took) = timed(|| guard.check_for(ms(50)));
    well.unwrap();
    assert!(took >= ms(50) && took < 2 * SECOND, "{took:?}");
}

#[test]
fn renewals_and_a_watchdog_on_the_machines_own_clock() {
    let store = leasehold::memory::Store::new();
    let told = Told::default();
    let locker = told.by(Locker::new(store.clone())).ttl(ms(600));
    let guard = locker.lock("x").unwrap();
    until("three renewals", || told.count("renewed") >= 3);
    assert!(guard.is_held());
    // The keeper hangs in its store: the watchdog sees the deadline, and wakes who sleeps.
    store.hang(true);
    let (error, took) = timed(|| guard.check_for(LONG).unwrap_err());
    assert_eq!(error.lost_reason(), Some(LostReason::Expired));
    assert!(took <= ms(600), "validity is counted from before the last renewal: {took:?}");
    assert_eq!(told.count("lost"), 0, "the watchdog calls nobody");
    store.hang(false);
    until("the keeper tells it", || told.count("lost") == 1);
    assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
}

#[test]
fn abort_ends_the_process_at_the_loss() {
    let output = actor("abort", &[]).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(output.status.signal(), Some(6), "{said}");
    }
    assert!(!output.status.success());
    assert!(said.contains("lock \"x\": lost") && said.contains("ending this process"), "{said}");
}

/// The role of the process that aborts.
pub(crate) fn abort() {
    let store = leasehold::memory::Store::new();
    let locker = Locker::new(store.clone()).ttl(ms(300)).on_lost(leasehold::OnLost::Abort);
    let guard = locker.lock("x").unwrap();
    store.hang(true);
    // Asks nothing: the watchdog ends it.
    thread::sleep(LONG);
    drop(guard);
}

#[test]
fn time_passes_for_all_who_use_a_clock() {
    let clock = Clock::manual();
    let store = leasehold::memory::Store::with_clock(clock.clone());
    let holder = Locker::new(store.clone()).lock("x").unwrap();
    // The clock jumps: between two looks the store may seem to have been silent for long.
    let waiter = Locker::new(store.clone()).patience(None);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(waiter.request("x").timeout(600 * SECOND).lock().map(drop)));
    until("the waiter asks", || told.try_recv().is_err());
    assert!(told.recv_timeout(ms(20)).is_err());
    clock.advance(600 * SECOND);
    let error = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(holder.is_held());
}
