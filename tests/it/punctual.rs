//! Stores whose calls end in time whatever hangs, and whose late tries do no harm: the first try and the release are
//! made on the user's own thread, and nothing else is different.

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    thread::{self, ThreadId},
    time::Duration,
};

use leasehold::{
    Error, ErrorKind, Locker, Result, Unlocked,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
};

use crate::support::{LONG, SECOND, kind, ms, timed, until};

/// What the machine may take on top of a bound.
const SLACK: Duration = Duration::from_millis(400);

/// One lock. A clone is the same.
#[derive(Clone, Default)]
struct Store(Arc<World>);

#[derive(Default)]
struct World {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    /// What was called, on which thread, and how long it might take.
    calls: Vec<(&'static str, ThreadId, Duration)>,
    /// The next so many of these calls hang for as long as they may.
    hang: Option<(&'static str, usize)>,
}

impl Store {
    fn locker(&self) -> Locker {
        Locker::new(self.clone())
    }

    /// One that is known to be quick, which it is not while the machine is slow.
    fn warm() -> (Self, Locker) {
        let store = Self::default();
        let locker = store.locker();
        until("it is quick", || {
            locker.lock("x").unwrap().unlock().unwrap();
            store.calls().contains(&("acquire", true))
        });
        store.0.state.lock().unwrap().calls.clear();
        (store, locker)
    }

    fn hang(&self, what: &'static str, times: usize) {
        self.0.state.lock().unwrap().hang = Some((what, times));
        self.0.changed.notify_all();
    }

    /// The calls so far, and whether each was on this thread.
    fn calls(&self) -> Vec<(&'static str, bool)> {
        let me = thread::current().id();
        self.0.state.lock().unwrap().calls.iter().map(|(what, on, _)| (*what, *on == me)).collect()
    }

    fn count(&self, what: &str) -> usize {
        self.calls().iter().filter(|call| call.0 == what).count()
    }

    fn call<T>(&self, what: &'static str, call: &Call, act: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.0.state.lock().unwrap();
        state.calls.push((what, thread::current().id(), call.remaining()));
        if let Some((which, left @ 1..)) = &mut state.hang
            && *which == what
        {
            *left -= 1;
            let hangs = |state: &mut State| state.hang.is_some();
            drop(self.0.changed.wait_timeout_while(state, call.remaining(), hangs).unwrap());
            return Err(Error::new(ErrorKind::Unavailable, "no answer in time"));
        }
        Ok(act(&mut state))
    }
}

impl Backend for Store {
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let since = ask.call().now();
        let was_held = self.call("acquire", ask.call(), |state| std::mem::replace(&mut state.held, true))?;
        if was_held {
            return Ok(Attempt::Busy(Busy::default()));
        }
        Ok(Attempt::Granted(Grant::new(self.clone(), since)))
    }

    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        self.call("abandon", ask.call(), |_| ())
    }

    fn abilities(&self) -> Abilities {
        Abilities::default().ttls(ms(200)..=SECOND * 60).punctual().conclusive()
    }
}

impl Lease for Store {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let since = call.now();
        self.call("renew", call, |_| since)
    }

    fn release(&mut self, call: &Call) -> Result<()> {
        self.call("release", call, |state| state.held = false)
    }
}

#[test]
fn a_quick_store_is_called_on_the_thread_that_wants_the_lock() {
    let store = Store::default();
    let locker = store.locker();
    locker.lock("x").unwrap().unlock().unwrap();
    assert_eq!(store.calls(), [("acquire", false), ("release", true)], "nothing is known of it yet");
    let (store, locker) = Store::warm();
    let guard = locker.try_lock("x").unwrap().unwrap();
    assert!(locker.try_lock("x").unwrap().is_none());
    drop(guard);
    assert_eq!(store.calls(), [("acquire", true), ("acquire", true), ("release", true)]);
}

#[test]
fn what_this_thread_got_a_keeper_renews_and_may_release() {
    let (store, locker) = Store::warm();
    let guard = locker.request("x").ttl(ms(200)).lock().unwrap();
    until("renewals", || store.count("renew") >= 5);
    guard.check().unwrap();
    guard.renew().unwrap();
    assert!(store.calls()[1..].iter().all(|call| *call == ("renew", false)), "{:?}", store.calls());
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    assert_eq!(store.calls().last(), Some(&("release", true)));

    // Its call is on its way: the keeper goes on to the release, and a second one is not sent beside it.
    store.0.state.lock().unwrap().calls.clear();
    let guard = locker.request("x").ttl(3 * SECOND).lock().unwrap();
    store.hang("renew", 1);
    until("the renewal hangs", || store.count("renew") == 1);
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    assert_eq!(store.calls(), [("acquire", true), ("renew", false), ("release", false)]);
}

#[test]
fn a_quick_store_that_takes_its_time_for_once_is_waited_for() {
    let (store, locker) = Store::warm();
    store.hang("acquire", 1);
    let (guard, took) = timed(|| locker.lock("x").unwrap());
    assert!(took < SECOND, "{took:?}");
    assert_eq!(store.calls(), [("acquire", true), ("acquire", false)]);
    let limits: Vec<Duration> = store.0.state.lock().unwrap().calls.iter().map(|call| call.2).collect();
    assert!(limits[0] <= ms(500), "this thread is not to be held up: {limits:?}");
    assert!(limits[1] > 5 * SECOND, "but the store may need more: {limits:?}");
    drop(guard);
    // It was quick again, and so is asked here again.
    store.hang("acquire", 2);
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    until("what may come of it is taken back", || store.count("abandon") == 1);
    let before = store.calls().len();
    drop(locker.lock("x").unwrap());
    assert_eq!(store.calls()[before], ("acquire", false), "it was not quick");
}

#[test]
fn nothing_waits_longer_for_it() {
    let (store, locker) = Store::warm();
    store.hang("acquire", usize::MAX);
    let (error, took) = timed(|| kind(locker.request("x").timeout(ms(700)).lock()));
    assert_eq!(error, ErrorKind::Timeout);
    assert!(took >= ms(700) && took < ms(700) + SLACK, "{took:?}");

    let (store, locker) = Store::warm();
    store.hang("acquire", usize::MAX);
    let (signal, receiver) = mpsc::channel();
    let locker = locker.shutdown_on(receiver);
    let waiter = thread::spawn(move || timed(|| kind(locker.lock("x"))));
    until("it is asked", || store.count("acquire") == 1);
    let sent = std::time::Instant::now();
    signal.send(()).unwrap();
    assert_eq!(waiter.join().unwrap().0, ErrorKind::Shutdown);
    assert!(sent.elapsed() < SECOND, "{:?}", sent.elapsed());
}

#[test]
fn a_release_without_an_answer_is_waited_for_once() {
    let (store, locker) = Store::warm();
    let locker = locker.release_budget(ms(600));
    let [a, b] = [(); 2].map(|()| {
        store.0.state.lock().unwrap().held = false;
        locker.lock("x").unwrap()
    });
    store.hang("release", usize::MAX);
    let (unlocked, took) = timed(|| a.unlock().unwrap());
    assert_eq!(unlocked, Unlocked::Expiring);
    assert!(took >= ms(500) && took < ms(600) + SLACK, "{took:?}");
    let ((), took) = timed(|| drop(b));
    assert!(took < ms(300), "the budget was spent: {took:?}");
    until("a keeper tries on", || store.calls().contains(&("release", false)));
}

/// Who ends the store after an unlock ends it for good: nothing on another thread still has it.
#[test]
fn the_last_locker_takes_the_store_with_it() {
    for turn in 0..500 {
        let (store, locker) = Store::warm();
        let guard = locker.lock("x").unwrap();
        if turn % 2 == 0 {
            guard.unlock().unwrap();
        } else {
            drop(guard);
        }
        drop(locker);
        assert_eq!(Arc::strong_count(&store.0), 1, "turn {turn}");
    }
}

#[test]
fn locks_of_many_threads_are_each_kept() {
    let (store, locker) = Store::warm();
    let locker = locker.poll(ms(1)..=ms(5));
    let most = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let guard = locker.request("x").timeout(LONG).lock().unwrap();
                    *most.lock().unwrap() += 1;
                    guard.unlock().unwrap();
                }
            });
        }
    });
    assert_eq!(*most.lock().unwrap(), 200);
    assert_eq!(store.count("release"), 200);
}
