//! The threads of one process that want the same lock.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use leasehold::{
    Error, ErrorKind, Locker,
    backend::{Ask, Attempt, Backend, Busy},
    memory,
};

use crate::support::{LONG, SECOND, Spy, kind, ms, timed, until};

#[test]
fn one_asks_and_the_others_stand_in_line() {
    let spy = Spy::default();
    let locker = Locker::new(spy.clone());
    let held = locker.lock("x").unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (locker, order) = (locker.clone(), order.clone());
            let before = spy.asks.load(Ordering::SeqCst);
            let thread = thread::spawn(move || {
                let _guard = locker.lock("x").unwrap();
                order.lock().unwrap().push(n);
            });
            if n == 0 {
                until("the first asks", || spy.asks.load(Ordering::SeqCst) > before);
            }
            // In line: the thread is asleep, which only its place can show.
            thread::sleep(ms(20));
            thread
        })
        .collect();
    assert_eq!(spy.most_asking.load(Ordering::SeqCst), 1);
    let asked = spy.asks.load(Ordering::SeqCst);
    assert!(asked <= 4, "{asked} asks for eight waiters");
    drop(held);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>(), "first come, first served");
}

#[test]
fn try_lock_asks_the_store_itself_whoever_waits() {
    let spy = Spy::default();
    let locker = Locker::new(spy.clone());
    let held = Locker::new(spy.store.clone()).lock("x").unwrap();
    let waiter = locker.clone();
    let thread = thread::spawn(move || waiter.lock("x").map(drop));
    until("the waiter asks", || spy.asking.load(Ordering::SeqCst) == 1);
    let before = spy.asks.load(Ordering::SeqCst);
    assert!(locker.try_lock("x").unwrap().is_none());
    assert!(spy.asks.load(Ordering::SeqCst) > before);
    drop(held);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_timeout_in_line_hands_the_place_on() {
    let locker = Locker::new(memory::Store::new());
    let held = locker.lock("x").unwrap();
    let first = locker.clone();
    let first = thread::spawn(move || first.request("x").timeout(ms(300)).lock().map(drop));
    let second = locker.clone();
    let second = thread::spawn(move || timed(|| second.request("x").timeout(ms(400)).lock().map(drop)));
    let third = locker.clone();
    let third = thread::spawn(move || third.request("x").timeout(LONG).lock().map(drop));
    assert_eq!(kind(first.join().unwrap()), ErrorKind::Timeout);
    let (result, took) = second.join().unwrap();
    let error = result.unwrap_err();
    assert!(took < SECOND, "{took:?}");
    assert!(error.holder().is_some(), "those in line know the holder too: {error}");
    drop(held);
    third.join().unwrap().unwrap();
}

#[test]
fn shared_neighbours_go_in_together() {
    let locker = Locker::new(memory::Store::new());
    let held = locker.lock("x").unwrap();
    let barrier = Arc::new(std::sync::Barrier::new(5));
    let threads: Vec<_> = (0..5)
        .map(|_| {
            let (locker, barrier) = (locker.clone(), barrier.clone());
            thread::spawn(move || {
                let guard = locker.request("x").shared().timeout(LONG).lock().unwrap();
                // Passes only when all five hold it at one time.
                barrier.wait();
                drop(guard);
            })
        })
        .collect();
    thread::sleep(ms(50));
    drop(held);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A store that is polled, and says when to come again.
struct Slow(Arc<Mutex<Vec<std::time::Instant>>>, Arc<AtomicBool>, Option<std::time::Duration>);

impl Backend for Slow {
    fn try_acquire(&self, _: &mut Ask) -> leasehold::Result<Attempt> {
        self.0.lock().unwrap().push(std::time::Instant::now());
        if self.1.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Denied, "enough"));
        }
        let busy = Busy::default();
        Ok(Attempt::Busy(match self.2 {
            Some(wait) => busy.retry_after(wait),
            None => busy,
        }))
    }
}

#[test]
fn a_polled_store_is_asked_at_growing_jittered_pauses() {
    let asks = Arc::new(Mutex::new(Vec::new()));
    let enough = Arc::new(AtomicBool::new(false));
    let locker = Locker::new(Slow(asks.clone(), enough.clone(), None)).poll(ms(20)..=ms(200));
    let (_stop, signal) = mpsc::channel();
    // A signal makes the waiter look often; the store is asked no oftener for that.
    let locker = locker.shutdown_on(signal);
    assert_eq!(kind(locker.request("x").timeout(2 * SECOND).lock()), ErrorKind::Timeout);
    let asked = asks.lock().unwrap().len();
    assert!((8..=30).contains(&asked), "{asked} asks in two seconds");
}

#[test]
fn a_store_that_says_when_is_not_asked_sooner() {
    let asks = Arc::new(Mutex::new(Vec::new()));
    let enough = Arc::new(AtomicBool::new(false));
    let locker = Locker::new(Slow(asks.clone(), enough.clone(), Some(ms(1300)))).poll(ms(1)..=ms(2));
    let waiter = locker.clone();
    let thread = thread::spawn(move || waiter.lock("x").map(drop));
    until("a third ask", || asks.lock().unwrap().len() >= 3);
    enough.store(true, Ordering::SeqCst);
    assert_eq!(kind(thread.join().unwrap()), ErrorKind::Denied);
    let asks = asks.lock().unwrap();
    assert!(asks[2] - asks[1] >= ms(1300), "{:?}", asks[2] - asks[1]);
}
