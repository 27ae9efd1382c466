//! What the store promises, on a real agent that does as it should.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use leasehold::{Break, ErrorKind, Event, Locker, LostReason, Mode, Ticket, Unlocked, consul::Behavior};

use crate::support::{
    FLAGS, LONG, SECOND, TTL, address, builder, by_hand, fault_server, field, fresh_prefix, kind, locker,
    locker_at, ms, sessions, timed, until,
};

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn one_holds_it_and_the_next_gets_it() {
    let (locker, prefix) = locker();
    let guard = locker.lock("a/b c").unwrap();
    guard.check().unwrap();
    let token = guard.fencing_token().unwrap();
    let key = by_hand("GET", &format!("kv/{prefix}/a/b=20c"), "");
    assert_eq!(field(&key, "ModifyIndex"), token.to_string());
    assert_eq!(field(&key, "Flags"), FLAGS.to_string());
    assert_eq!(Some(field(&key, "Session")).as_deref(), guard.lease_id());
    let left = guard.valid_for().unwrap();
    assert!(left > 5 * SECOND && left < TTL, "{left:?}");
    assert!(locker.try_lock("a/b c").unwrap().is_none());
    assert!(locker.try_lock("a/b").unwrap().is_some(), "another name, another key");
    let error = locker.request("a/b c").timeout(ms(300)).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.holder().unwrap().to_string().contains("this process"), "{error}");
    let waiter = locker.clone();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(waiter.lock("a/b c").map(|guard| guard.fencing_token())));
    assert!(told.recv_timeout(ms(300)).is_err());
    guard.renew().unwrap();
    let (got, took) = timed(|| {
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
        told.recv_timeout(LONG).unwrap()
    });
    assert!(got.unwrap().unwrap() > token);
    assert!(took < ms(500), "{took:?}");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_warm_cycle_is_two_requests_and_a_cold_one_four() {
    let server = fault_server();
    let locker = locker_at(&server.url(), &fresh_prefix());
    assert_eq!(locker.lock("x").unwrap().unlock().unwrap(), Unlocked::Confirmed);
    assert_eq!(server.words(), ["look", "create", "lock", "unlock"]);
    for _ in 0..3 {
        server.forget();
        assert_eq!(locker.lock("x").unwrap().unlock().unwrap(), Unlocked::Confirmed);
        assert_eq!(server.words(), ["lock", "unlock"]);
    }
    println!("requests of a lock and unlock: 4 cold, 2 warm");
}

/// A waiter has its session before it waits, so that a release is answered by one request.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_waiter_sends_one_request_after_a_release() {
    let (server, prefix) = (fault_server(), fresh_prefix());
    let (waits, holds) = (locker_at(&server.url(), &prefix), locker_at(&address(), &prefix));
    let guard = holds.lock("x").unwrap();
    let waiting = thread::spawn(move || waits.lock("x").unwrap());
    until("a long poll", || server.seen("wait").len() == 1);
    assert_eq!(server.words(), ["look", "create", "wait"]);
    until("a second slice", || server.seen("wait").len() == 3);
    server.forget();
    guard.unlock().unwrap();
    let guard = waiting.join().unwrap();
    let words = server.words();
    assert_eq!(words.last().map(String::as_str), Some("lock"), "{words:?}");
    assert_eq!(words.iter().filter(|word| *word != "wait").count(), 1, "{words:?}");
    assert!(words.len() <= 2, "{words:?}");
    guard.unlock().unwrap();
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn no_session_is_left_behind_when_the_locker_ends() {
    let words = fresh_prefix();
    let locker = locker().0.holder(&*words);
    let mut guards: Vec<_> = (0..3).map(|i| locker.lock(&i.to_string()).unwrap()).collect();
    assert_eq!(sessions(&address(), &words), 3, "each guard has its own");
    guards.pop().unwrap().unlock().unwrap();
    drop(guards.pop());
    assert!(locker.try_lock("0").unwrap().is_none());
    drop(locker);
    assert!(sessions(&address(), &words) > 0, "one guard is left");
    let ((), took) = timed(|| drop(guards));
    assert!(took < SECOND, "{took:?}");
    // Also when the last guard was only dropped; a drop waits for the release, and not for what follows.
    until("no session", || sessions(&address(), &words) == 0);

    let locker = self::locker().0.holder(&*words);
    locker.lock("x").unwrap().unlock().unwrap();
    assert_eq!(sessions(&address(), &words), 1, "it is kept for the next lock");
    drop(locker);
    assert_eq!(sessions(&address(), &words), 0, "and gone before the drop returns");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn status_and_list_tell() {
    let (locker, prefix) = locker();
    let locker = locker.holder("import 7");
    assert_eq!(locker.status("never").unwrap().mode(), None);
    assert!(locker.list().unwrap().is_empty());
    let guard = locker.lock("a").unwrap();
    drop(locker.lock("b/c d").unwrap());
    by_hand("PUT", &format!("kv/{prefix}/e?flags=7"), "no lock");
    let status = locker.status("a").unwrap();
    assert_eq!((status.mode(), status.expires()), (Some(Mode::Exclusive), true));
    let holder = &status.holders()[0];
    assert_eq!(holder.words(), "import 7");
    assert!(holder.pid().is_some() && holder.host().is_some() && holder.since().is_some());
    let list = locker.list().unwrap();
    let told: Vec<_> = list.iter().map(|status| (status.name(), status.mode())).collect();
    assert_eq!(told, [("a", Some(Mode::Exclusive)), ("b/c d", None)]);
    drop(guard);
    assert_eq!(locker.status("a").unwrap().mode(), None);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_key_that_is_no_lock_is_refused_by_name_and_never_touched() {
    let (locker, prefix) = locker();
    let guard = locker.lock("was").unwrap();
    guard.unlock().unwrap();
    for name in ["x", "was"] {
        let path = format!("kv/{prefix}/{name}");
        by_hand("DELETE", &path, "");
        by_hand("PUT", &format!("{path}?flags=16210313421097356768"), "a semaphore");
        let before = by_hand("GET", &path, "");
        let key = format!("{prefix}/{name}");
        for error in [
            locker.lock(name).unwrap_err(),
            locker.try_lock(name).unwrap_err(),
            locker.request(name).shared().lock().unwrap_err(),
            locker.status(name).unwrap_err(),
            locker.break_lock(name, Break::Now).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
            assert!(error.to_string().contains(&key), "{error}");
        }
        assert_eq!(by_hand("GET", &path, ""), before);
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn what_others_wrote_into_the_value_stays() {
    let (locker, prefix) = locker();
    let path = format!("kv/{prefix}/x");
    by_hand(
        "PUT",
        &format!("{path}?flags={FLAGS}"),
        r#"{"team":"a","lockAcquisitionTime":"2020-01-01T00:00:00Z"}"#,
    );
    let value = || by_hand("GET", &format!("{path}?raw"), "");
    let guard = locker.lock("x").unwrap();
    let held = value();
    assert!(
        held.contains(r#""team":"a""#) && !held.contains("2020") && held.contains("lockAcquisitionTime"),
        "{held}"
    );
    assert!(!held.contains("lockReleaseTime"));
    guard.unlock().unwrap();
    let released = value();
    assert!(released.contains(r#""team":"a""#) && released.contains("lockReleaseTime"), "{released}");
    drop(locker.lock("x").unwrap());
    assert!(value().contains(r#""team":"a""#));
}

// What an operator does.

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn each_loss_is_told_as_what_it_is_within_a_renewal() {
    let session = |guard: &leasehold::Guard| guard.lease_id().unwrap().to_owned();
    let acts: [(&str, LostReason); 6] = [
        ("destroy", LostReason::Broken),
        ("release", LostReason::Broken),
        ("delete", LostReason::Deleted),
        ("overwrite", LostReason::Deleted),
        ("replace", LostReason::Deleted),
        ("take", LostReason::Taken),
    ];
    thread::scope(|scope| {
        for (act, reason) in acts {
            scope.spawn(move || {
                let (locker, prefix) = locker();
                let path = format!("kv/{prefix}/x");
                let [guard, quiet] = [true, false].map(|renews| {
                    let name = if renews { "x" } else { "y" };
                    locker.request(name).auto_renew(renews).lock().unwrap()
                });
                let release = format!("{path}?release={}&flags={FLAGS}", session(&guard));
                match act {
                    "destroy" => by_hand("PUT", &format!("session/destroy/{}", session(&guard)), ""),
                    "release" => by_hand("PUT", &release, ""),
                    "delete" => by_hand("DELETE", &path, ""),
                    "overwrite" => by_hand("PUT", &format!("{path}?flags={FLAGS}"), "mine"),
                    "replace" => {
                        by_hand("DELETE", &path, "");
                        by_hand("PUT", &path, "mine")
                    }
                    _ => {
                        by_hand("PUT", &release, "");
                        let other = session(&quiet);
                        by_hand("PUT", &format!("{path}?acquire={other}&flags={FLAGS}"), "")
                    }
                };
                let (error, took) = timed(|| guard.check_for(LONG).unwrap_err());
                println!("{act}: told {reason:?} after {took:?}: {error}");
                assert_eq!(error.lost_reason(), Some(reason), "{act}: {error}");
                assert!(took < TTL / 3 + SECOND / 2, "{act}: {took:?}");
                assert!(!guard.is_held() && quiet.is_held());
                assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
                quiet.renew().unwrap();
            });
        }
    });
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_late_unlock_of_a_lost_lock_frees_nobody_elses() {
    let (locker, _) = locker();
    let guard = locker.lock("x").unwrap();
    locker.break_lock("x", Break::Now).unwrap();
    let next = locker.try_lock("x").unwrap().expect("free at once");
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
    next.renew().unwrap();
    assert!(locker.try_lock("x").unwrap().is_none());
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn broken_at_once_and_after_notice() {
    let (locker, _) = locker();
    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), None);
    assert_eq!(locker.break_lock("x", Break::AfterNotice).unwrap(), None);
    let guard = locker.lock("x").unwrap();
    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), Some(ms(0)));
    drop(locker.try_lock("x").unwrap().expect("free at once"));
    assert_eq!(guard.renew().unwrap_err().kind(), ErrorKind::Lost);

    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let tell = move |event: &Event<'_>| {
        if let Event::Waiting { .. } = event {
            listener.lock().unwrap().push(event.to_string());
        }
    };
    let waiter = locker.clone().on_event(tell);
    let guard = locker.request("x").auto_renew(false).lock().unwrap();
    let free_in = locker.break_lock("x", Break::AfterNotice).unwrap().unwrap();
    assert_eq!(free_in, TTL, "the lock-delay");
    assert!(locker.try_lock("x").unwrap().is_none(), "not before its holder had the time to see it");
    let error = waiter.request("x").timeout(ms(700)).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("lock-delay"), "{error}");
    assert!(told.lock().unwrap()[0].contains("lock-delay"));
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Broken));
    let (next, took) = timed(|| waiter.lock("x").unwrap());
    println!(
        "broken after notice: free {took:?} after the end of the wait of 0.7 s, of a lock-delay of {TTL:?}"
    );
    assert!(took + ms(700) + ms(500) > TTL && took < TTL + ms(500), "{took:?}");
    drop(next);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_lock_delay_of_nothing_and_keys_that_go_with_their_session() {
    let prefix = fresh_prefix();
    let store = builder(&address(), &prefix).lock_delay(ms(0)).behavior(Behavior::Delete).build().unwrap();
    let locker = Locker::new(store).ttl(TTL);
    let guard = locker.lock("x").unwrap();
    assert_eq!(locker.break_lock("x", Break::AfterNotice).unwrap(), Some(ms(0)));
    assert_eq!(by_hand("GET", &format!("kv/{prefix}/x"), ""), "", "the key is gone");
    drop(locker.try_lock("x").unwrap().expect("free at once"));
    assert_eq!(guard.renew().unwrap_err().kind(), ErrorKind::Lost);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_prefix_keeps_locks_apart_and_the_address_names_it() {
    let prefix = fresh_prefix();
    let [ci, nightly] = ["ci", "nightly/x"]
        .map(|part| Locker::open(&format!("consul://{}/{prefix}/{part}?dc=dc1", address())).unwrap());
    let guard = ci.lock("x").unwrap();
    assert!(nightly.try_lock("x").unwrap().is_some());
    assert!(ci.try_lock("x").unwrap().is_none());
    drop(guard);
    let nowhere = Locker::open(&format!("consul://{}/{prefix}?dc=nowhere", address())).unwrap();
    let error = nowhere.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

// Handed over.

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_detached_lock_is_adopted_by_one_and_never_free_meanwhile() {
    for shared in [false, true] {
        let (locker, prefix) = locker();
        let request = || if shared { locker.request("x").shared() } else { locker.request("x") };
        let guard = request().lock().unwrap();
        let (token, id) = (guard.fencing_token(), guard.lease_id().unwrap().to_owned());
        let ticket: Ticket = guard.detach().unwrap().to_string().parse().unwrap();
        assert!(locker.try_lock("x").unwrap().is_none());
        let other = locker_at(&address(), &prefix);
        let adopted = other.adopt(&ticket).unwrap();
        assert!(adopted.is_held() && adopted.lease_id() != Some(&id));
        assert_eq!(adopted.fencing_token(), token);
        assert!(locker.try_lock("x").unwrap().is_none());
        let error = locker.adopt(&ticket).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "a ticket works once: {error}");
        adopted.renew().unwrap();
        assert_eq!(adopted.unlock().unwrap(), Unlocked::Confirmed);
        let next = locker.try_lock("x").unwrap().expect("free");
        assert!(next.fencing_token() > token);
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn of_many_adopters_one_wins() {
    let (locker, prefix) = locker();
    for round in 0..10 {
        let request = locker.request("x");
        let request = if round % 2 == 0 { request } else { request.shared() };
        let ticket = request.lock().unwrap().detach().unwrap();
        let won: usize = thread::scope(|scope| {
            let adopters: Vec<_> =
                (0..4).map(|_| scope.spawn(|| locker_at(&address(), &prefix).adopt(&ticket))).collect();
            let results: Vec<_> = adopters.into_iter().map(|adopter| adopter.join().unwrap()).collect();
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
            }
            results.iter().filter(|result| result.is_ok()).count()
        });
        assert_eq!(won, 1);
    }
}
