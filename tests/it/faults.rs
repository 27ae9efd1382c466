//! Stores that misbehave: lost answers, late grants, panics, a machine that refuses threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use leasehold::{
    Error, ErrorKind, Locker, LostReason, Result,
    backend::{Abilities, Ask, Attempt, Backend, Call, Clock, Grant, Lease, Moment},
};

use crate::support::{SECOND, Told, by_hand, kind, ms, until};

#[test]
fn an_acquire_whose_answer_was_lost_is_asked_for_again_with_the_same_id() {
    let (_, store, locker) = by_hand();
    store.lose_answers(2);
    let guard = locker.lock("x").unwrap();
    assert_eq!(locker.status("x").unwrap().holders().len(), 1);
    store.lose_answers(1);
    guard.unlock().unwrap();
    assert!(locker.try_lock("x").unwrap().is_some(), "a release whose answer was lost is one");
}

#[test]
fn an_acquire_that_was_given_up_leaves_nothing_behind() {
    let (_, store, locker) = by_hand();
    store.lose_answers(1);
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    until("it is free", || locker.try_lock("x").unwrap().is_some());
    store.lose_answers(usize::MAX);
    assert_eq!(kind(locker.clone().patience(ms(0)).lock("y")), ErrorKind::Unavailable);
    store.lose_answers(0);
    until("it is free", || locker.try_lock("y").unwrap().is_some());
}

/// A store that grants at once, after so long a time of its clock; its leases do as they are told.
#[derive(Clone)]
struct Late {
    clock: Clock,
    takes: Duration,
    renewals: Arc<AtomicUsize>,
    renew: fn(&Clock, Moment) -> Result<Moment>,
    released: Arc<AtomicUsize>,
}

impl Late {
    fn new(takes: Duration, renew: fn(&Clock, Moment) -> Result<Moment>) -> Self {
        Self { clock: Clock::manual(), takes, renewals: Arc::default(), renew, released: Arc::default() }
    }
}

impl Backend for Late {
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let since = ask.call().now();
        self.clock.suspend(self.takes);
        Ok(Attempt::Granted(Grant::new(self.clone(), since)))
    }
    fn clock(&self) -> Clock {
        self.clock.clone()
    }
    fn abilities(&self) -> Abilities {
        Abilities::default().ttl(Some(10 * SECOND))
    }
}

impl Lease for Late {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        (self.renew)(&self.clock, call.now())
    }
    fn release(&mut self, _: &Call) -> Result<()> {
        self.released.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_grant_whose_time_is_half_gone_is_renewed_before_anybody_has_it() {
    let fresh = Late::new(2 * SECOND, |_, since| Ok(since));
    let guard = Locker::new(fresh.clone()).lock("x").unwrap();
    assert_eq!(fresh.renewals.load(Ordering::SeqCst), 0);
    assert!(guard.valid_for().unwrap() <= 8 * SECOND, "counted from before the request");
    let stale = Late::new(6 * SECOND, |_, since| Ok(since));
    let guard = Locker::new(stale.clone()).lock("x").unwrap();
    assert!(stale.renewals.load(Ordering::SeqCst) >= 1);
    assert!(guard.valid_for().unwrap() > 9 * SECOND);
}

#[test]
fn a_renewal_counts_from_before_it_was_sent() {
    let store = Late::new(Duration::ZERO, |clock, since| {
        clock.suspend(3 * SECOND);
        Ok(since)
    });
    let guard = Locker::new(store).request("x").auto_renew(false).lock().unwrap();
    guard.renew().unwrap();
    assert_eq!(guard.valid_for(), Some(ms(6_800)), "of ten seconds, less three under way and the margin");
}

#[test]
fn a_grant_that_came_too_late_is_given_back_and_asked_for_again() {
    let store = Late::new(11 * SECOND, |_, since| Ok(since));
    let locker = Locker::new(store.clone()).patience(35 * SECOND);
    assert_eq!(kind(locker.lock("x")), ErrorKind::Unavailable);
    assert!(store.released.load(Ordering::SeqCst) >= 2);
}

#[test]
fn a_store_that_panics_harms_its_own_lock_only() {
    struct Panics;
    impl Backend for Panics {
        fn try_acquire(&self, _: &mut Ask) -> Result<Attempt> {
            panic!("on purpose")
        }
    }
    assert_eq!(kind(Locker::new(Panics).lock("x")), ErrorKind::Protocol);

    let store = Late::new(Duration::ZERO, |_, _| panic!("on purpose"));
    let told = Told::default();
    let guard = told.by(Locker::new(store.clone())).lock("x").unwrap();
    store.clock.advance(4 * SECOND);
    until("the loss", || !guard.is_held());
    assert_eq!(guard.check().unwrap_err().lost_reason(), Some(LostReason::Failed));
    assert_eq!(told.count("lost"), 1);
    assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
}

#[test]
fn a_late_renewal_brings_nothing_back() {
    let store = Late::new(Duration::ZERO, |_, _| Err(Error::new(ErrorKind::Unavailable, "later")));
    let guard = Locker::new(store.clone()).lock("x").unwrap();
    store.clock.advance(11 * SECOND);
    assert!(!guard.is_held());
    assert_eq!(kind(guard.renew()), ErrorKind::Lost);
    until("what the store may still have is given back", || store.released.load(Ordering::SeqCst) == 1);
}

#[test]
fn the_stores_word_is_final() {
    let store = Late::new(Duration::ZERO, |_, _| Err(Error::lost(LostReason::Taken)));
    let guard = Locker::new(store.clone()).lock("x").unwrap();
    let error = guard.renew().unwrap_err();
    assert_eq!(error.lost_reason(), Some(LostReason::Taken));
    assert!(!guard.is_held());
    drop(guard);
    assert_eq!(store.released.load(Ordering::SeqCst), 0, "nothing of ours is there to release");
}

/// A machine that refuses threads loses no lock: the thread is there before the store is asked.
#[cfg(target_os = "linux")]
#[test]
fn a_refused_thread_costs_no_lock() {
    let mut actor = crate::support::Actor::start("no-threads", &[]);
    let status = actor.0.wait().unwrap();
    assert!(status.success());
}

/// The role of the process without room for another thread's stack.
#[cfg(target_os = "linux")]
pub(crate) fn no_threads() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let store = leasehold::memory::Store::new();
    let locker = Locker::new(store.clone());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let before = getrlimit(Resource::As);
    let full = Rlimit { current: Some((size + 64) * 1024), ..before };
    setrlimit(Resource::As, full).unwrap();
    let refused = locker.lock("x");
    let tried = locker.try_lock("x");
    setrlimit(Resource::As, before).unwrap();
    for error in [refused.unwrap_err(), tried.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("refuses a thread"), "{error}");
    }
    assert!(locker.status("x").unwrap().mode().is_none(), "nothing was taken");
    locker.lock("x").unwrap().unlock().unwrap();
}

/// Ten thousand cycles later the process has the threads and descriptors that it had.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_behind() {
    let dir = crate::support::Dir::new("leaks");
    let address = format!("file:{}", dir.path().display());
    let mut actor = crate::support::Actor::start("leaks", &[&address]);
    assert!(actor.0.wait().unwrap().success());
}

/// The role of the process that takes and waits for many locks.
#[cfg(target_os = "linux")]
pub(crate) fn leaks(arguments: &[&str]) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let files = Locker::open(arguments[0]).unwrap();
    let memory = Locker::new(leasehold::memory::Store::new());
    let contend = |turns: u32| {
        std::thread::scope(|scope| {
            for locker in [&files, &files, &files, &memory, &memory, &memory] {
                scope.spawn(move || (0..turns).for_each(|_| drop(locker.lock("x").unwrap())));
            }
        });
    };
    contend(100);
    let (descriptors, threads) = (count("fd"), count("task"));
    contend(1_700);
    assert!(count("fd") <= descriptors + 2, "{} after {descriptors}", count("fd"));
    assert!(count("task") <= threads + 2, "{} after {threads}", count("task"));
}

#[test]
fn keepers_are_used_again() {
    let (_, _, locker) = by_hand();
    let threads = || thread_names().iter().filter(|name| name.starts_with("leasehold/reused")).count();
    for n in 0..50 {
        locker.lock(&format!("reused-{n}")).unwrap().unlock().unwrap();
    }
    assert!(threads() < 10, "{}", threads());
}

#[cfg(target_os = "linux")]
fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn thread_names() -> Vec<String> {
    Vec::new()
}
