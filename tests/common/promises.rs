//! What every store promises under fire: each promise is asked for in one place.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use leasehold::{ErrorKind, Guard, Locker, Unlocked};

use super::{Actor, LONG, SECOND, kind, ms, timed, until};

/// What the machine may take on top of a bound.
pub(crate) const SLACK: Duration = Duration::from_millis(250);

/// Nothing of this locker, whose release budget is 500 ms and whose store gives no answer any more, outlives its bound;
/// a renewal may take so long.
pub(crate) fn nothing_hangs(locker: &Locker, guards: [Guard; 2], renewal: Duration) {
    let [idle, renewed] = guards;
    let unlock = |guard: Guard| {
        let (how, took) = timed(|| guard.unlock());
        assert_eq!(how.unwrap(), Unlocked::Expiring);
        assert!(took < ms(500) + SLACK, "unlock: {took:?}");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let (result, took) = timed(|| locker.try_lock("x"));
            assert_eq!(kind(result), ErrorKind::Unavailable);
            assert!(took < SECOND + SLACK, "try_lock: {took:?}");
        });
        scope.spawn(|| {
            let (result, took) = timed(|| locker.request("y").timeout(ms(700)).lock());
            assert_eq!(kind(result), ErrorKind::Timeout);
            assert!(took >= ms(700) && took < ms(700) + SLACK, "lock: {took:?}");
        });
        scope.spawn(|| {
            let impatient = locker.clone().patience(ms(800));
            let (result, took) = timed(|| impatient.lock("z"));
            assert_eq!(kind(result), ErrorKind::Unavailable);
            assert!(took < ms(800) + SLACK, "patience: {took:?}");
        });
        scope.spawn(move || unlock(idle));
        scope.spawn(move || {
            let (result, took) = timed(|| renewed.renew());
            assert_eq!(kind(result), ErrorKind::Unavailable);
            assert!(took < renewal + SLACK && renewed.is_held(), "renew: {took:?}");
            unlock(renewed);
        });
        scope.spawn(|| {
            let (result, took) = timed(|| locker.status("x"));
            assert_eq!(kind(result), ErrorKind::Unavailable);
            assert!(took < 10 * SECOND + SLACK, "status: {took:?}");
        });
    });
}

/// A process that plays [`watch`](super::watch) is stopped until another has its lock: it finds its lease lost before its
/// code can act on it, and frees nobody else's.
#[cfg(target_os = "linux")]
pub(crate) fn a_stopped_holder_finds_it_lost(mut holder: Actor, locker: &Locker, beside: &Locker) {
    use rustix::process::Signal;

    assert_eq!(holder.hear(), "held");
    assert!(locker.try_lock("x").unwrap().is_none());
    holder.signal(Signal::STOP);
    let next = locker.request("x").timeout(LONG).lock().unwrap();
    let taken = super::now();
    // So long that it would notice nothing by a timer that ran on.
    thread::sleep(ms(300));
    let woken = super::now();
    holder.signal(Signal::CONT);
    let said = holder.hear();
    let [held_at, lost_at, reason] = said.split(' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(held_at.parse::<u64>().unwrap() < taken, "it said held beside the next holder");
    let late = Duration::from_nanos(lost_at.parse::<u64>().unwrap() - woken);
    assert!(late < SECOND, "{late:?}");
    assert_eq!(reason, "Some(Expired)");
    holder.ends_well();
    next.renew().expect("its late release freed nobody else's lock");
    assert!(next.is_held() && beside.try_lock("x").unwrap().is_none());
}

/// Two threads of each locker lock and unlock, one at a time, while `trouble` happens; it is given what waits until each
/// of them has done so that many times more. Says how many releases were unanswered, undone or too late.
pub(crate) fn under_load(lockers: &[Locker], trouble: impl FnOnce(&dyn Fn(u64))) -> u64 {
    let (stop, inside) = (AtomicBool::new(false), AtomicBool::new(false));
    let [number, unconfirmed, last_token] = [const { AtomicU64::new(0) }; 3];
    let work = |locker: &Locker, times: &AtomicU64| {
        while !stop.load(SeqCst) {
            let guard = locker.lock("counter").unwrap();
            assert!(!inside.swap(true, SeqCst), "two held it at once");
            if let Some(token) = guard.fencing_token() {
                assert!(last_token.swap(token, SeqCst) < token, "tokens grow");
            }
            let n = number.load(SeqCst);
            thread::sleep(ms(2));
            number.store(n + 1, SeqCst);
            assert!(guard.is_held(), "it was held for less than its TTL");
            inside.store(false, SeqCst);
            match guard.unlock() {
                Ok(Unlocked::Confirmed) => {}
                Ok(_) => drop(unconfirmed.fetch_add(1, SeqCst)),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Lost, "{e}");
                    unconfirmed.fetch_add(1, SeqCst);
                }
            }
            times.fetch_add(1, SeqCst);
        }
    };
    let times: Vec<AtomicU64> = (0..2 * lockers.len()).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let start = |(i, times)| {
            let (work, locker) = (&work, &lockers[i % lockers.len()]);
            scope.spawn(move || work(locker, times))
        };
        let threads: Vec<_> = times.iter().enumerate().map(start).collect();
        trouble(&|more| {
            let before: Vec<u64> = times.iter().map(|n| n.load(SeqCst)).collect();
            until("all threads", || {
                assert!(threads.iter().all(|thread| !thread.is_finished()), "a thread failed");
                times.iter().zip(&before).all(|(n, before)| n.load(SeqCst) >= before + more)
            });
        });
    });
    let times: u64 = times.iter().map(|n| n.load(SeqCst)).sum();
    println!("{times} times, {unconfirmed:?} releases unanswered, undone or too late");
    assert_eq!(number.load(SeqCst), times);
    unconfirmed.into_inner()
}

/// Ends threads also when the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
