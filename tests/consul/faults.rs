//! The network and the agent at their worst.

use std::{
    thread,
    time::{Duration, Instant},
};

use leasehold::{Break, Error, ErrorKind, Guard, Locker, Unlocked, consul::Builder};

use crate::{
    common::{
        fault_server::{Act, FaultServer, Seen, answer},
        promises::{SLACK, nothing_hangs},
    },
    support::{
        FLAGS, LONG, SECOND, TTL, address, builder, by_hand, fault_server, field, fresh_prefix, kind,
        locker_at, ms, sessions, timed, until, word,
    },
};

/// What a bound may be passed by.
const MINUTE: Duration = Duration::from_secs(60);
const SESSION: &str = "6f6df1e4-929d-550d-4d61-2077e5a60a56";

fn patient(locker: &Locker) -> Locker {
    locker.clone().patience(5 * SECOND)
}

/// A server in front of the agent, a locker on it, and one beside it.
fn three() -> (FaultServer, Locker, Locker) {
    let (server, prefix) = (fault_server(), fresh_prefix());
    let through = patient(&locker_at(&server.url(), &prefix));
    let beside = locker_at(&address(), &prefix);
    assert_eq!(through.lock("x").unwrap().unlock().unwrap(), Unlocked::Confirmed);
    server.forget();
    (server, through, beside)
}

/// A guard that is renewed only when told so.
fn quiet(locker: &Locker, name: &str) -> Guard {
    locker.request(name).auto_renew(false).lock().unwrap()
}

#[track_caller]
fn free(locker: &Locker, name: &str, within: Duration) {
    let start = Instant::now();
    until("nobody has it", || {
        assert!(start.elapsed() < within, "still held after {within:?}");
        locker.status(name).unwrap().mode().is_none()
    });
}

/// What an agent answers when all goes well and nobody else is there.
fn grants(seen: &Seen) -> Vec<u8> {
    let index = [("X-Consul-Index", "7")];
    let name = match &*seen.method {
        "PUT" => field(&seen.body, "Key"),
        _ => seen.target.split(['/', '?']).nth(3).unwrap_or_default().to_owned(),
    };
    let key = |session: &str| {
        format!(r#"{{"Key":"{name}","Flags":{FLAGS},"Value":null{session},"CreateIndex":7,"ModifyIndex":7}}"#)
    };
    let ours = key(&format!(r#","Session":"{SESSION}""#));
    match &*seen.what {
        "create" => answer(200, &[], &format!(r#"{{"ID":"{SESSION}"}}"#)),
        "renew" => answer(200, &[], &format!(r#"[{{"ID":"{SESSION}","TTL":"10s"}}]"#)),
        "destroy" => answer(200, &[], "true"),
        "lock" => answer(200, &[], &format!(r#"{{"Results":[{{"KV":{ours}}}],"Errors":null}}"#)),
        "unlock" => answer(200, &[], &format!(r#"{{"Results":[{{"KV":{}}}],"Errors":null}}"#, key(""))),
        "look" if seen.target.contains("consistent") => answer(200, &index, &format!("[{ours}]")),
        _ => answer(404, &index, ""),
    }
}

fn scripted() -> FaultServer {
    FaultServer::scripted(word, grants)
}

/// A locker on a server that answers by itself.
fn locker_on(server: &FaultServer) -> Locker {
    let store = Builder::new().address(&server.url()).build().unwrap();
    Locker::new(store).ttl(TTL).patience(5 * SECOND)
}

/// What says nothing about the lock, whoever answers it.
fn transient() -> Vec<(&'static str, Act)> {
    let portal = "<html>Please sign in</html>";
    let big = "y".repeat(9 << 20);
    let own = |status, body: &str| Act::Answer(answer(status, &[], body));
    let half = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    let long = format!("HTTP/1.1 503 No\r\nx-long: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes();
    let endless = b"HTTP/1.1 503 No\r\nX-Consul-Index: 1\r\n\r\n".to_vec();
    vec![
        ("the request is lost", Act::Drop),
        ("the answer is lost", Act::Lose),
        ("cut in the header", Act::Cut(40)),
        ("cut in the first line", Act::Cut(5)),
        ("cut in the body", Act::Last(half)),
        ("500", own(500, "rpc error making call: EOF")),
        ("500, no leader", own(500, "No cluster leader")),
        ("500 of somebody", own(500, portal)),
        ("503", own(503, "")),
        ("429", own(429, "Your IP is issuing too many concurrent connections, please rate limit your calls")),
        ("408", own(408, "")),
        ("captive portal, 200", own(200, portal)),
        ("captive portal, 404", own(404, portal)),
        ("captive portal, 404 in plain text", own(404, "Not Found")),
        ("captive portal, 409", own(409, portal)),
        (
            "captive portal, 302",
            Act::Answer(answer(302, &[("Location", "http://127.0.0.1:1/login")], portal)),
        ),
        ("captive portal, 403", own(403, portal)),
        ("another's JSON", own(200, "{}")),
        ("an empty list", own(200, "[]")),
        ("garbage", Act::Last(b"SSH-2.0-OpenSSH_9.6\r\nwho are you\r\n\r\n".to_vec())),
        ("nothing but noise", Act::Last(vec![0xff; 3000])),
        ("a header too large", Act::Last(long)),
        ("a body too large", own(200, &big)),
        ("a body without end", Act::Endless(endless, 4096, Duration::ZERO)),
    ]
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn an_acquire_bears_what_passes() {
    let (server, locker, beside) = three();
    for on in ["lock", "create"] {
        for (what, act) in transient() {
            // Without its sessions, so that one is made.
            let (locker, fresh) = if on == "create" {
                (patient(&locker_at(&server.url(), &fresh_prefix())), true)
            } else {
                (locker.clone(), false)
            };
            server.next(1, on, act.clone());
            let error = locker.try_lock("x").map(|guard| guard.is_some()).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
            free(if fresh { &locker } else { &beside }, "x", 3 * SECOND);

            server.forget();
            server.next(2, on, act);
            let (guard, took) = timed(|| quiet(&locker, "x"));
            assert!(took < 2 * SECOND, "{what}: {took:?}");
            server.heal();
            assert!(fresh || beside.try_lock("x").unwrap().is_none(), "{what}");
            guard.renew().expect(what);
            assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{what}");
            free(if fresh { &locker } else { &beside }, "x", SECOND);
        }
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_wait_bears_what_passes() {
    let (server, locker, beside) = three();
    for (what, act) in transient() {
        let guard = beside.lock("x").unwrap();
        server.next(1, "wait", act);
        let waits = locker.clone();
        let waiting = thread::spawn(move || waits.lock("x").map(Guard::unlock));
        until(what, || server.seen("wait").len() > 1);
        guard.unlock().unwrap();
        let got = waiting.join().unwrap().expect(what);
        assert_eq!(got.unwrap(), Unlocked::Confirmed, "{what}");
        server.heal();
        server.forget();
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_renewal_bears_what_passes() {
    let (server, locker, beside) = three();
    let guard = quiet(&locker, "x");
    for on in ["renew", "look"] {
        for (what, act) in transient() {
            server.next(1, on, act);
            let error = guard.renew().expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{on}, {what}: {error}");
            assert!(guard.is_held(), "{on}, {what}");
            guard.renew().expect(what);
        }
        for (what, act) in [("twice", Act::Twice), ("late", Act::After(ms(300)))] {
            server.next(1, on, act);
            guard.renew().expect(what);
        }
    }
    assert!(beside.try_lock("x").unwrap().is_none());
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_release_bears_what_passes() {
    let (server, locker, beside) = three();
    let mut all = transient();
    all.extend([("twice", Act::Twice), ("late", Act::After(ms(300)))]);
    for (what, act) in all {
        let guard = quiet(&locker, "x");
        server.forget();
        server.next(1, "unlock", act);
        let (how, took) = timed(|| guard.unlock());
        assert_eq!(how.expect(what), Unlocked::Confirmed, "{what}");
        assert!(took < SECOND, "{what}: {took:?}");
        assert!(server.seen("unlock").len() <= 2, "{what}");
        free(&beside, "x", SECOND);
        drop(beside.try_lock("x").unwrap().expect("no lock-delay after a release"));
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_shared_lock_bears_what_passes() {
    let (server, locker, beside) = three();
    for (what, act) in transient() {
        server.next(2, "lock", act.clone());
        let guard = locker.request("x").shared().lock().expect(what);
        assert!(beside.try_lock("x").unwrap().is_none(), "{what}");
        guard.renew().expect(what);
        server.next(1, "unlock", act);
        assert_eq!(guard.unlock().expect(what), Unlocked::Confirmed, "{what}");
        drop(beside.lock("x").expect(what));
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn an_adoption_bears_what_passes() {
    let (server, prefix) = (fault_server(), fresh_prefix());
    let beside = locker_at(&address(), &prefix);
    for (what, act) in transient() {
        for on in ["create", "look", "lock"] {
            let ticket = beside.lock("x").unwrap().detach().unwrap();
            // A locker without sessions, so that one is made.
            let adopts = patient(&locker_at(&server.url(), &prefix));
            server.next(1, on, act.clone());
            let guard = adopts.adopt(&ticket).expect(what);
            server.heal();
            assert!(beside.try_lock("x").unwrap().is_none(), "{what}, {on}");
            guard.renew().expect(what);
            assert_eq!(guard.unlock().expect(what), Unlocked::Confirmed, "{what}, {on}");
        }
    }
    // One that is given up leaves no lock.
    let ticket = beside.lock("x").unwrap().detach().unwrap();
    let adopts = locker_at(&server.url(), &prefix).patience(ms(700));
    server.next(1, "lock", Act::After(2 * SECOND));
    assert_eq!(kind(adopts.adopt(&ticket)), ErrorKind::Unavailable);
    server.heal();
    free(&beside, "x", 5 * SECOND);
    drop(beside.try_lock("x").unwrap().expect("no lock-delay"));
}

#[test]
fn retry_after_is_heeded() {
    thread::scope(|scope| {
        for status in [500, 503, 429] {
            scope.spawn(move || {
                let server = scripted();
                let locker = locker_on(&server);
                server.next(2, "lock", Act::Answer(answer(status, &[("Retry-After", "1")], "later")));
                drop(locker.lock("x").unwrap());
                let at: Vec<Instant> = server.seen("lock").iter().map(|seen| seen.at).collect();
                let pauses: Vec<Duration> = at.windows(2).map(|w| w[1] - w[0]).collect();
                assert!(pauses.iter().all(|p| *p >= ms(990) && *p < 2 * SECOND), "{status}: {pauses:?}");
            });
        }
    });
}

#[test]
fn what_ends_a_wait_at_once() {
    let server = scripted();
    let locker = locker_on(&server);
    let errors = |what: &str| format!(r#"{{"Results":null,"Errors":[{{"OpIndex":0,"What":"{what}"}}]}}"#);
    let lacking = "Permission denied: token with AccessorID 'a' lacks permission 'key:write' on 'x'";
    for (on, what, expected, says) in [
        ("lock", answer(409, &[], &errors(lacking)), ErrorKind::Denied, "key_prefix"),
        ("lock", answer(403, &[], "ACL not found"), ErrorKind::Denied, "ACL not found"),
        ("lock", answer(413, &[], "too large"), ErrorKind::Config, "413"),
        ("lock", answer(400, &[], "Failed to parse body"), ErrorKind::Config, "400"),
        ("lock", answer(409, &[], &errors("something new")), ErrorKind::Protocol, "something new"),
        ("create", answer(403, &[], lacking), ErrorKind::Denied, "session_prefix"),
        (
            "create",
            answer(500, &[], "Invalid Session TTL '10', must be between [20s=24h0m0s]"),
            ErrorKind::Config,
            "20s",
        ),
        ("look", answer(401, &[], ""), ErrorKind::Denied, "401"),
    ] {
        server.heal();
        server.always(on, Act::Answer(what));
        let (result, took) = timed(|| locker_on(&server).lock("x"));
        let error = result.expect_err(says);
        assert_eq!(error.kind(), expected, "{error}");
        assert!(error.to_string().contains(says) && took < SECOND, "{error} after {took:?}");
    }
    server.heal();
    let delay = answer(409, &[], &errors("failed to lock key 'x' due to lock delay"));
    server.always("lock", Act::Answer(delay));
    assert!(locker.try_lock("x").unwrap().is_none());
}

/// No call outlives its budget beside this.
fn bounds(act: &Act) {
    let server = scripted();
    let locker = locker_on(&server).release_budget(ms(500));
    let guards = ["a", "b"].map(|name| quiet(&locker, name));
    for on in ["lock", "create", "renew", "unlock", "look", "list", "destroy", "session"] {
        server.always(on, act.clone());
    }
    nothing_hangs(&locker, guards, TTL / 3);
    assert!(server.seen("unlock").len() >= 2);
}

#[test]
fn nothing_hangs_beside_silence() {
    bounds(&Act::Before(MINUTE));
}

#[test]
fn nothing_hangs_beside_an_answer_that_drips() {
    bounds(&Act::Endless(b"HTTP/1.1 503 No\r\nx-header: 1\r\n".to_vec(), 1, ms(100)));
}

#[test]
fn nothing_hangs_beside_a_body_that_drips() {
    bounds(&Act::Endless(b"HTTP/1.1 503 No\r\nx-header: 1\r\n\r\n".to_vec(), 1, ms(100)));
}

/// The end of a locker waits for its sessions' end, and not for long.
#[test]
fn the_end_of_a_locker_does_not_hang() {
    let server = scripted();
    let locker = locker_on(&server);
    locker.lock("x").unwrap().unlock().unwrap();
    server.always("destroy", Act::Before(MINUTE));
    let ((), took) = timed(|| drop(locker));
    assert!(took < SECOND + SLACK, "{took:?}");
    assert!(took > ms(900), "it waited: {took:?}");
}

/// An agent that answers blocking queries at once, with nothing new: no busy loop.
#[test]
fn an_agent_that_does_not_wait_is_not_asked_all_the_time() {
    let server = FaultServer::scripted(word, |seen| {
        let held = format!(
            r#"[{{"Key":"x","Flags":{FLAGS},"Value":null,"Session":"other","CreateIndex":7,"ModifyIndex":7}}]"#
        );
        match &*seen.what {
            "look" | "wait" => answer(200, &[("X-Consul-Index", "7")], &held),
            _ => grants(seen),
        }
    });
    let error = locker_on(&server).request("x").timeout(2 * SECOND).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let asked = server.seen("wait").len();
    assert!((4..60).contains(&asked), "{asked} times in 2 s");
}

/// The index goes back when the store is restored: the next query starts again.
#[test]
fn an_index_that_goes_back_is_started_again() {
    let server = FaultServer::scripted(word, |seen| {
        let index = if seen.target.contains("index=9") { "4" } else { "9" };
        let held = format!(
            r#"[{{"Key":"x","Flags":{FLAGS},"Value":null,"Session":"other","CreateIndex":4,"ModifyIndex":{index}}}]"#
        );
        match &*seen.what {
            "look" | "wait" => answer(200, &[("X-Consul-Index", index)], &held),
            _ => grants(seen),
        }
    });
    let _ = locker_on(&server).request("x").timeout(SECOND).lock();
    let indexes: Vec<String> = server.seen("wait").into_iter().map(|seen| seen.target).collect();
    assert!(indexes[0].contains("index=9&") && indexes[1].contains("index=0&"), "{:?}", &indexes[..4]);
    assert!(indexes.len() < 100, "nor is it asked all the time: {}", indexes.len());
}

#[test]
fn long_polls_keep_no_renewal_waiting() {
    let server = FaultServer::scripted(word, |seen| {
        let held = format!(
            r#"[{{"Key":"x","Flags":{FLAGS},"Value":null,"Session":"other","CreateIndex":7,"ModifyIndex":7}}]"#
        );
        match &*seen.what {
            "wait" => {
                thread::sleep(ms(900));
                answer(200, &[("X-Consul-Index", "7")], &held)
            }
            "look" if seen.target.contains("busy") => answer(200, &[("X-Consul-Index", "7")], &held),
            _ => grants(seen),
        }
    });
    let locker = locker_on(&server);
    let guard = quiet(&locker, "x");
    thread::scope(|scope| {
        for i in 0..20 {
            let locker = &locker;
            scope.spawn(move || {
                let waited = locker.request(&format!("busy{i}")).timeout(3 * SECOND).lock();
                assert_eq!(kind(waited), ErrorKind::Timeout);
            });
        }
        until("all wait", || server.seen("wait").len() >= 20);
        for _ in 0..20 {
            let (renewed, took) = timed(|| guard.renew());
            renewed.unwrap();
            assert!(took < ms(300), "{took:?}");
        }
    });
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn an_acquire_that_is_given_up_leaves_no_lock() {
    let (server, locker, beside) = three();
    let words = fresh_prefix();
    let locker = locker.holder(&*words);
    for act in [Act::Lose, Act::Cut(30), Act::After(3 * SECOND)] {
        for (shared, quick) in [(false, false), (true, false), (false, true), (true, true)] {
            if quick {
                // The first try is made on this thread then.
                locker.lock("warm").unwrap().unlock().unwrap();
            }
            server.always("lock", act.clone());
            // What finds out that it was carried out.
            server.always("read", Act::Drop);
            server.always("look:=readers", Act::Drop);
            let request = || if shared { locker.request("x").shared() } else { locker.request("x") };
            assert_eq!(kind(request().timeout(ms(700)).lock()), ErrorKind::Timeout);
            server.heal();
            free(&beside, "x", 5 * SECOND);
            server.always("lock", act.clone());
            match request().try_lock() {
                // Its second try found out that the first was carried out.
                Ok(had) if quick => drop(had.expect("nobody else has it")),
                had => assert_eq!(kind(had), ErrorKind::Unavailable),
            }
            server.heal();
            free(&beside, "x", 5 * SECOND);
            let (had, took) = timed(|| beside.lock("x").map(drop));
            had.unwrap();
            assert!(took < 2 * SECOND, "it was released, not ended with a lock-delay: {took:?}");
        }
    }
    until("no session of it", || sessions(&address(), &words) == 0);
    // One that arrives after all of that finds its session gone.
    server.next(1, "lock", Act::Before(2 * SECOND));
    assert_eq!(kind(locker.try_lock("x")), ErrorKind::Unavailable);
    thread::sleep(3 * SECOND);
    assert!(beside.status("x").unwrap().mode().is_none());
    drop(beside.try_lock("x").unwrap().expect("and has no lock-delay"));
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_first_try_that_is_late_changes_nothing() {
    let (server, locker, beside) = three();
    for (shared, given_up) in [(false, false), (true, false), (false, true), (true, true)] {
        // So that the first try is made on this thread; then it comes later than it is waited for there.
        locker.lock("warm").unwrap().unlock().unwrap();
        server.next(1, "lock", Act::Before(2 * SECOND));
        let request = locker.request("x").timeout(if given_up { ms(300) } else { LONG });
        let (had, took) = timed(|| if shared { request.shared().lock() } else { request.lock() });
        assert!(took < 3 * SECOND, "{took:?}");
        match had {
            Ok(guard) => assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed),
            Err(e) => assert!(given_up && e.kind() == ErrorKind::Timeout, "{e}"),
        }
        thread::sleep(3 * SECOND);
        assert!(beside.status("x").unwrap().mode().is_none());
        drop(beside.try_lock("x").unwrap().expect("and has no lock-delay"));
    }
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn an_outage_within_the_validity_costs_no_lock() {
    let (server, locker, _) = three();
    let guard = locker.lock("x").unwrap();
    for on in ["renew", "look"] {
        server.always(on, Act::Answer(answer(500, &[], "No cluster leader")));
    }
    until("a renewal that fails", || !server.seen("renew").is_empty());
    assert!(guard.check_for(TTL / 2).is_ok(), "ridden out");
    server.heal();
    guard.check_for(TTL).expect("and renewed");
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn an_outage_that_lasts_ends_the_lock_before_anybody_else_can_have_it() {
    let (server, locker, beside) = three();
    let guard = locker.lock("x").unwrap();
    let start = Instant::now();
    for on in ["renew", "look", "unlock", "destroy"] {
        server.always(on, Act::Drop);
    }
    let error = guard.check_for(2 * TTL).unwrap_err();
    let lost = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(lost <= TTL, "{lost:?}");
    assert!(beside.try_lock("x").unwrap().is_none());
    let _next = beside.lock("x").unwrap();
    let had = start.elapsed();
    println!(
        "cut off: lost after {lost:?}, had by another after {had:?}, of a TTL and lock-delay of {TTL:?}"
    );
    assert!(had <= 3 * TTL + 3 * SECOND, "{had:?}");
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn no_secret_is_ever_shown() {
    const SECRET: &str = "hunter2-6f6df1e4";
    let server = fault_server();
    let store = builder(&server.url(), &fresh_prefix()).token(SECRET).build().unwrap();
    let mut told = vec![format!("{store:?}")];
    let locker = Locker::new(store).patience(ms(300));
    let shown = |e: Error| {
        let cause = std::error::Error::source(&e).map(|cause| format!("{cause} {cause:?}"));
        format!("{e} {e:?} {cause:?}")
    };
    told.extend(locker.lock("x").err().map(shown));
    for (_, act) in transient() {
        server.always("look", act);
        told.extend([locker.try_lock("y").err(), locker.status("y").err()].into_iter().flatten().map(shown));
        told.extend(locker.break_lock("y", Break::Now).err().map(shown));
        server.heal();
    }
    assert!(told.len() > 60);
    assert!(server.all().iter().any(|seen| seen.header("x-consul-token") == SECRET), "it was sent");
    for wrong in [
        Builder::new().address(&format!("http://me:{SECRET}@h:1")).build().map(drop),
        Builder::new().token(&format!("{SECRET}\n")).build().map(drop),
        Locker::open(&format!("consul://me:{SECRET}@h:1/")).map(drop),
        Locker::open(&format!("consul:?token={SECRET}")).map(drop),
    ] {
        told.push(shown(wrong.unwrap_err()));
    }
    let leak = told.iter().find(|line| line.contains("hunter2"));
    assert_eq!(leak, None);
    let _ = by_hand("GET", "status/leader", "");
}
