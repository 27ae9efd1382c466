//! When a kept session may be used, and what becomes of one: the rules that make it safe, one test for each sentence.

use std::{thread, time::Instant};

use leasehold::{ErrorKind, LostReason, Unlocked};

use crate::{
    common::fault_server::Act,
    support::{
        FLAGS, SECOND, TTL, address, by_hand, fault_server, field, fresh_prefix, kind, locker, locker_at, ms,
        request, sessions, until,
    },
};

/// The lock's own request does not start the session's timer anew: validity counts from the session's.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn validity_counts_from_the_session_and_not_from_the_lock() {
    let server = fault_server();
    let locker = locker_at(&server.url(), &fresh_prefix());
    locker.lock("x").unwrap().unlock().unwrap();
    let created = server.seen("create")[0].at;
    // Under a third of the TTL, so that the kept session needs no renewal.
    thread::sleep(ms(2500));
    server.forget();
    let guard = locker.request("x").auto_renew(false).lock().unwrap();
    assert_eq!(server.words(), ["lock"]);
    let left = guard.valid_for().unwrap();
    let since = created.elapsed();
    assert!(left + since <= TTL, "{left:?} left, {since:?} after the session began");
    assert!(left + since + SECOND > TTL);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_kept_session_with_less_than_two_thirds_left_is_renewed_first() {
    let server = fault_server();
    let locker = locker_at(&server.url(), &fresh_prefix());
    locker.lock("x").unwrap().unlock().unwrap();
    thread::sleep(TTL / 3 + ms(100));
    server.forget();
    let guard = locker.request("x").auto_renew(false).lock().unwrap();
    assert_eq!(server.words(), ["renew", "lock"]);
    assert!(guard.valid_for().unwrap() + SECOND > TTL);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_kept_session_that_is_gone_is_replaced() {
    let server = fault_server();
    let locker = locker_at(&server.url(), &fresh_prefix());
    let guard = locker.lock("x").unwrap();
    let session = guard.lease_id().unwrap().to_owned();
    guard.unlock().unwrap();
    by_hand("PUT", &format!("session/destroy/{session}"), "");
    server.forget();
    let guard = locker.lock("x").unwrap();
    assert_ne!(guard.lease_id(), Some(&*session));
    assert_eq!(server.words(), ["lock", "create", "lock"], "found out by the lock");
    let session = guard.lease_id().unwrap().to_owned();
    guard.unlock().unwrap();
    by_hand("PUT", &format!("session/destroy/{session}"), "");
    thread::sleep(TTL / 3 + ms(100));
    server.forget();
    drop(locker.lock("x").unwrap());
    assert_eq!(server.words()[..3], ["renew", "create", "lock"], "found out by the renewal");
}

/// The waiter's session is renewed while it waits, so that it is fresh when the lock comes.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_waiters_session_is_renewed_while_it_waits() {
    let (server, prefix) = (fault_server(), fresh_prefix());
    let holds = locker_at(&address(), &prefix);
    let guard = holds.lock("x").unwrap();
    let waits = locker_at(&server.url(), &prefix);
    let waiting = thread::spawn(move || waits.request("x").auto_renew(false).lock().unwrap());
    until("two renewals", || server.seen("renew").len() == 2);
    let renewed = server.seen("renew");
    assert!(renewed[1].at - renewed[0].at < TTL / 3 + 2 * SECOND);
    guard.unlock().unwrap();
    let guard = waiting.join().unwrap();
    assert!(guard.valid_for().unwrap() > TTL / 2);
    assert_eq!(server.seen("create").len(), 1, "one session for the whole wait");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn one_session_serves_one_guard_at_a_time() {
    let (locker, _) = locker();
    let guards: Vec<_> = ["a", "b", "c"].iter().map(|name| locker.lock(name).unwrap()).collect();
    let mut ids: Vec<_> = guards.iter().map(|guard| guard.lease_id().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    drop(guards);
    let again = locker.lock("d").unwrap();
    assert!(ids.iter().any(|id| Some(&**id) == again.lease_id()), "one of them is used again");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_session_of_which_a_request_was_unclear_is_ended_and_never_kept() {
    for on in ["lock", "renew", "unlock"] {
        let (server, words) = (fault_server(), fresh_prefix());
        let locker = locker_at(&server.url(), &fresh_prefix()).holder(&*words);
        locker.lock("x").unwrap().unlock().unwrap();
        let kept = sessions(&address(), &words);
        server.next(1, on, Act::Lose);
        let guard = locker.lock("x").unwrap();
        let session = guard.lease_id().unwrap().to_owned();
        if on == "renew" {
            assert_eq!(kind(guard.renew()), ErrorKind::Unavailable);
            guard.renew().unwrap();
        }
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{on}");
        let next = locker.lock("x").unwrap();
        assert_ne!(next.lease_id(), Some(&*session), "{on}");
        let ended = Instant::now();
        until("its end", || by_hand("GET", &format!("session/info/{session}"), "") == "[]");
        assert!(ended.elapsed() < TTL / 2, "not by its TTL");
        assert!(next.fencing_token().is_some() && kept == 1);
    }
}

/// A copy of an unlock that arrives when the same session has the key again, or another: nothing is freed.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_late_copy_of_a_release_frees_no_later_guard() {
    let (server, prefix) = (fault_server(), fresh_prefix());
    let locker = locker_at(&server.url(), &prefix);
    locker.lock("x").unwrap().unlock().unwrap();
    for round in 0..2 {
        server.next(1, "unlock", Act::Again(ms(400)));
        let first = locker.lock("x").unwrap();
        let session = first.lease_id().unwrap().to_owned();
        assert_eq!(first.unlock().unwrap(), Unlocked::Confirmed);
        let at = Instant::now();
        let second = locker.lock("x").unwrap();
        assert_eq!(second.lease_id(), Some(&*session), "round {round}: by the same session");
        until("the copy", || at.elapsed() > ms(600));
        second.renew().expect("it is still ours");
        assert!(locker_at(&address(), &prefix).try_lock("x").unwrap().is_none());
        second.unlock().unwrap();
        // What a library without such care sends is believed: the service frees the key.
        let third = locker.lock("x").unwrap();
        let release = format!("kv/{prefix}/x?release={session}&flags={FLAGS}");
        assert_eq!(request(&address(), "", "PUT", &release, "").1.trim(), "true");
        assert_eq!(third.renew().unwrap_err().lost_reason(), Some(LostReason::Broken));
        drop(third);
        // The session of a lost lock is not used again.
        until("its end", || by_hand("GET", &format!("session/info/{session}"), "") == "[]");
        until("free", || locker.try_lock("x").unwrap().is_some_and(|guard| guard.unlock().is_ok()));
    }
}

/// The agent's defaults are none of ours: no health check, and a lock-delay of the TTL, 60 s at most.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn what_a_session_is_like() {
    let (locker, _) = locker();
    for (ttl, delay) in [(12, 12), (60, 60), (90, 60)] {
        let guard = locker.request("x").ttl(ttl * SECOND).lock().unwrap();
        let info = by_hand("GET", &format!("session/info/{}", guard.lease_id().unwrap()), "");
        assert_eq!(field(&info, "TTL"), format!("{ttl}s"));
        assert_eq!(field(&info, "LockDelay"), format!("{delay}000000000"));
        assert_eq!(field(&info, "Behavior"), "release");
        assert_eq!(field(&info, "NodeChecks"), "[]");
    }
}
