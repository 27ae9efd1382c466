//! The shutdown signal: ends waits, tells guards, and keeps what is held.

use std::{
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use leasehold::{ErrorKind, Guard, Locker, Unlocked, memory};

use crate::support::{Dir, LONG, SECOND, Told, kind, ms, timed, until};

fn with_signal(locker: Locker) -> (Sender<()>, Locker) {
    let (stop, signal) = mpsc::channel();
    (stop, locker.shutdown_on(signal))
}

/// A thread that waits for the lock, and how its wait ended.
fn waiting(locker: &Locker) -> mpsc::Receiver<leasehold::Result<()>> {
    let (tell, told) = mpsc::channel();
    let locker = locker.clone();
    thread::spawn(move || tell.send(locker.lock("x").map(drop)));
    assert!(told.recv_timeout(ms(50)).is_err(), "it waits");
    told
}

fn waits_end(locker: Locker) {
    let held = locker.lock("x").unwrap();
    let (stop, stopped) = with_signal(locker);
    let told = [waiting(&stopped), waiting(&stopped), waiting(&stopped)];
    stop.send(()).unwrap();
    let (ends, took) = timed(|| told.map(|told| told.recv_timeout(LONG).unwrap().unwrap_err().kind()));
    assert_eq!(ends, [ErrorKind::Shutdown; 3]);
    assert!(took < SECOND, "{took:?}");
    assert_eq!(kind(stopped.lock("y")), ErrorKind::Shutdown, "no new lock, for ever");
    assert_eq!(kind(stopped.try_lock("y")), ErrorKind::Shutdown);
    assert!(held.check().is_ok(), "the other locker goes on");
}

#[test]
fn waits_end_within_a_second_in_memory() {
    waits_end(Locker::new(memory::Store::new()));
}

#[test]
fn waits_end_within_a_second_on_files() {
    let dir = Dir::new("shutdown-waits");
    waits_end(dir.locker());
}

#[test]
fn waits_end_beside_a_store_that_never_answers() {
    let store = memory::Store::new();
    let (stop, locker) = with_signal(Locker::new(store.clone()));
    store.hang(true);
    let told = waiting(&locker);
    drop(stop);
    let (end, took) = timed(|| told.recv_timeout(LONG).unwrap());
    assert_eq!(kind(end), ErrorKind::Shutdown);
    assert!(took < SECOND, "{took:?}");
    store.hang(false);
}

fn held_guards_are_told_and_keep_their_lock(locker: Locker) {
    let other = locker.clone();
    let (stop, locker) = with_signal(locker);
    let guard = locker.lock("x").unwrap();
    let watch = guard.watch();
    let (tell, woken) = mpsc::channel();
    thread::spawn(move || tell.send(watch.check_for(LONG)));
    guard.check().unwrap();
    drop(stop);
    assert_eq!(kind(guard.check()), ErrorKind::Shutdown);
    let (end, took) = timed(|| woken.recv_timeout(LONG).unwrap());
    assert_eq!(kind(end), ErrorKind::Shutdown);
    assert!(took < SECOND, "{took:?}");
    assert!(guard.is_held());
    assert!(other.try_lock("x").unwrap().is_none(), "kept while the work winds down");
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    assert!(other.try_lock("x").unwrap().is_some());
}

#[test]
fn held_guards_are_told_and_keep_their_lock_in_memory() {
    held_guards_are_told_and_keep_their_lock(Locker::new(memory::Store::new()));
}

#[test]
fn held_guards_are_told_and_keep_their_lock_on_files() {
    let dir = Dir::new("shutdown-held");
    held_guards_are_told_and_keep_their_lock(dir.locker());
}

#[test]
fn a_lease_is_renewed_after_the_signal() {
    let told = Told::default();
    let (stop, locker) = with_signal(told.by(Locker::new(memory::Store::new())).ttl(ms(300)));
    let guard = locker.lock("x").unwrap();
    drop(stop);
    assert_eq!(kind(guard.check()), ErrorKind::Shutdown);
    let before = told.count("renewed");
    until("four renewals more", || told.count("renewed") >= before + 4);
    assert!(guard.is_held());
}

fn grace_ends_it(locker: Locker, grace: Duration) {
    let other = locker.clone();
    let told = Told::default();
    let (stop, locker) = with_signal(told.by(locker).shutdown_grace(grace));
    let guard: Guard = locker.lock("x").unwrap();
    drop(stop);
    let (next, took) = timed(|| other.request("x").timeout(LONG).lock().unwrap());
    assert!(took >= grace && took < grace + SECOND, "{took:?}");
    assert!(!guard.is_held());
    assert_eq!(kind(guard.check()), ErrorKind::Shutdown);
    until("the event", || told.count("released") == 1);
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "no loss");
    assert!(next.is_held() && told.count("lost") == 0);
}

#[test]
fn without_grace_it_is_released_at_once() {
    grace_ends_it(Locker::new(memory::Store::new()), Duration::ZERO);
    let dir = Dir::new("shutdown-grace");
    grace_ends_it(dir.locker(), Duration::ZERO);
}

#[test]
fn with_grace_it_is_released_at_the_end_of_it() {
    grace_ends_it(Locker::new(memory::Store::new()), ms(400));
    let dir = Dir::new("shutdown-grace-later");
    grace_ends_it(dir.locker(), ms(400));
}

#[test]
fn every_signal_counts() {
    let (first, locker) = with_signal(Locker::new(memory::Store::new()));
    let (second, locker) = with_signal(locker);
    let guard = locker.lock("x").unwrap();
    second.send(()).unwrap();
    assert_eq!(kind(guard.check()), ErrorKind::Shutdown);
    drop(first);
}
