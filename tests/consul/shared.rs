//! Shared locks, made of keys.

use std::{
    sync::{
        atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use leasehold::{Break, ErrorKind, Locker, LostReason, Mode};

use crate::support::{
    FLAGS, LONG, SECOND, TTL, address, by_hand, fault_server, field, fresh_prefix, locker, locker_at, ms,
    timed, until,
};

fn shared(locker: &Locker, name: &str) -> leasehold::Guard {
    locker.request(name).shared().lock().unwrap()
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn readers_are_together_and_keep_writers_out() {
    let (locker, prefix) = locker();
    let other = locker_at(&address(), &prefix).holder("the other");
    let writer = locker.lock("x").unwrap();
    let before = writer.fencing_token();
    assert!(locker.request("x").shared().try_lock().unwrap().is_none());
    drop(writer);
    let (first, second) = (shared(&locker, "x"), shared(&other, "x"));
    assert!(first.fencing_token() > before && second.fencing_token() > first.fencing_token());
    assert!(other.try_lock("x").unwrap().is_none());
    let status = locker.status("x").unwrap();
    assert_eq!((status.mode(), status.holders().len()), (Some(Mode::Shared), 2));
    assert!(status.holders().iter().any(|holder| holder.words() == "the other"));
    let list = locker.list().unwrap();
    assert_eq!((list.len(), list[0].mode()), (1, Some(Mode::Shared)));
    let error = locker.request("x").timeout(ms(300)).lock().unwrap_err();
    assert!(error.holder().is_some(), "{error}");
    first.renew().unwrap();
    second.renew().unwrap();
    drop(first);
    assert!(locker.try_lock("x").unwrap().is_none());
    let newest = second.fencing_token();
    drop(second);
    let writer = locker.try_lock("x").unwrap().expect("all readers left");
    assert!(writer.fencing_token() > newest);
    assert!(!by_hand("GET", &format!("kv/{prefix}/?keys"), "").contains("readers"), "no entry is left");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_writer_that_waits_keeps_readers_out_and_comes_in_when_the_last_has_left() {
    let (locker, prefix) = locker();
    let reader = shared(&locker, "x");
    let waits = locker_at(&address(), &prefix);
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let guard = waits.lock("x").unwrap();
        tell.send(Instant::now()).unwrap();
        guard
    });
    let late = locker_at(&address(), &prefix);
    until("the gate", || late.request("x").shared().try_lock().unwrap().is_none());
    assert!(told.recv_timeout(ms(1500)).is_err());
    reader.renew().unwrap();
    let left = Instant::now();
    drop(reader);
    let took = told.recv_timeout(LONG).unwrap() - left;
    println!("a writer came in {took:?} after the last reader left");
    assert!(took < SECOND, "{took:?}");
    drop(waiting.join().unwrap());
    drop(shared(&late, "x"));
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_writer_that_gives_up_lets_readers_in_again() {
    let (locker, prefix) = locker();
    let reader = shared(&locker, "x");
    let writer = locker_at(&address(), &prefix);
    let error = writer.request("x").timeout(ms(300)).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let (second, took) = timed(|| locker.request("x").shared().timeout(LONG).lock().unwrap());
    assert!(took < SECOND, "{took:?}");
    assert!(writer.try_lock("x").unwrap().is_none());
    until("the gate is free again", || locker.request("x").shared().try_lock().unwrap().is_some());
    assert!(reader.is_held() && second.is_held());
}

/// Two requests each when warm, and readers do not make each other look again.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn readers_do_not_collide() {
    let server = fault_server();
    let prefix = fresh_prefix();
    let [first, second] = [0, 1].map(|_| locker_at(&server.url(), &prefix));
    drop(shared(&first, "x"));
    drop(shared(&second, "x"));
    server.forget();
    let guards = [shared(&first, "x"), shared(&second, "x"), shared(&first, "x")];
    drop(guards);
    let words = server.words();
    assert_eq!(words.iter().filter(|word| *word == "lock").count(), 3, "{words:?}");
    assert!(!words.iter().any(|word| word == "look"), "{words:?}");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn readers_and_writers_of_many_threads_never_meet() {
    const THREADS: usize = 8;
    let prefix = fresh_prefix();
    // How many readers are in; a writer makes it hugely negative.
    let inside = AtomicI64::new(0);
    let (reads, writes, together) = (AtomicU64::new(0), AtomicU64::new(0), AtomicI64::new(0));
    let end = Instant::now() + 6 * SECOND;
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (inside, reads, writes, together) = (&inside, &reads, &writes, &together);
            let locker = locker_at(&address(), &prefix);
            scope.spawn(move || {
                while Instant::now() < end {
                    if i % 4 == 0 {
                        let guard = locker.lock("x").unwrap();
                        assert_eq!(inside.fetch_sub(1000, SeqCst), 0, "a writer beside others");
                        thread::sleep(ms(1));
                        assert!(guard.is_held());
                        inside.fetch_add(1000, SeqCst);
                        writes.fetch_add(1, SeqCst);
                        drop(guard);
                        thread::sleep(ms(20));
                    } else {
                        let guard = shared(&locker, "x");
                        let others = inside.fetch_add(1, SeqCst);
                        assert!(others >= 0, "a reader beside a writer");
                        together.fetch_max(others + 1, SeqCst);
                        thread::sleep(ms(3));
                        assert!(guard.is_held());
                        inside.fetch_sub(1, SeqCst);
                        reads.fetch_add(1, SeqCst);
                    }
                }
            });
        }
    });
    println!("{reads:?} reads, {together:?} at once, {writes:?} writes");
    assert!(writes.load(SeqCst) > 20 && reads.load(SeqCst) > 20 && together.load(SeqCst) > 1);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_reader_whose_entry_is_gone_is_told() {
    let (locker, prefix) = locker();
    for (act, reason) in [("delete", LostReason::Deleted), ("destroy", LostReason::Broken)] {
        let reader = shared(&locker, act);
        let session = reader.lease_id().unwrap().to_owned();
        match act {
            "delete" => by_hand("DELETE", &format!("kv/{prefix}/{act}/=readers/{session}"), ""),
            _ => by_hand("PUT", &format!("session/destroy/{session}"), ""),
        };
        let error = reader.renew().unwrap_err();
        assert_eq!(error.lost_reason(), Some(reason), "{error}");
    }
}

/// A reader or a writer whose session was ended may still believe in its lock: the lock-delay is for all.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_lock_delay_keeps_readers_and_writers_out() {
    thread::scope(|scope| {
        for (held, wanted) in [(Mode::Shared, Mode::Exclusive), (Mode::Exclusive, Mode::Shared)] {
            scope.spawn(move || {
                let (locker, prefix) = locker();
                let other = locker_at(&address(), &prefix);
                let request = |locker: &Locker, mode| match mode {
                    Mode::Shared => locker.request("x").shared(),
                    _ => locker.request("x"),
                };
                let guard = request(&locker, held).auto_renew(false).lock().unwrap();
                assert_eq!(locker.break_lock("x", Break::AfterNotice).unwrap(), Some(TTL));
                assert!(request(&other, wanted).try_lock().unwrap().is_none());
                let error = request(&other, wanted).timeout(ms(500)).lock().unwrap_err();
                assert!(error.to_string().contains("lock-delay"), "{error}");
                assert_eq!(guard.renew().unwrap_err().kind(), ErrorKind::Lost);
                let (next, took) = timed(|| request(&other, wanted).lock().unwrap());
                assert!(took + SECOND > TTL && took < TTL + SECOND, "{took:?}");
                drop(next);
                let guard = request(&locker, held).lock().unwrap();
                assert_eq!(locker.break_lock("x", Break::Now).unwrap(), Some(Duration::ZERO));
                drop(request(&other, wanted).try_lock().unwrap().expect("free at once"));
                assert_eq!(guard.renew().unwrap_err().kind(), ErrorKind::Lost);
            });
        }
    });
}

/// An entry whose reader died is taken away by the next writer, after its lock-delay.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn what_a_reader_that_died_leaves_goes_with_the_next_writer() {
    let (locker, prefix) = locker();
    let session = by_hand("PUT", "session/create", r#"{"TTL":"10s","LockDelay":"1s","NodeChecks":[]}"#);
    let session = field(&session, "ID");
    let entry = format!("kv/{prefix}/x/=readers/{session}");
    by_hand("PUT", &format!("{entry}?acquire={session}&flags={FLAGS}"), "{}");
    assert!(locker.try_lock("x").unwrap().is_none());
    by_hand("PUT", &format!("session/destroy/{session}"), "");
    assert!(locker.try_lock("x").unwrap().is_none(), "its lock-delay runs");
    let (guard, took) = timed(|| locker.lock("x").unwrap());
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!(by_hand("GET", &entry, ""), "");
    drop(guard);
}
