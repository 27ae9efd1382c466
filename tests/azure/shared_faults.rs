//! Shared mode on a bad network: each request of a reader's way in and of a writer's is lost, answered late, carried
//! out late or twice, or its answer is lost. Nobody is inside beside a writer, nothing is held for ever, all go on.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use leasehold::{ErrorKind, Guard, LockRequest, Locker, Mode, Watch, azure::Builder};

use crate::{
    fault_server::{Act, FaultServer, coded},
    support::{SECOND, account, account_at, by_hand, fresh_container, ms, until},
};

const TTL: Duration = Duration::from_secs(15);
/// Longer than a try lasts: it is given up, and carried out all the same.
const TOO_LATE: Duration = Duration::from_secs(12);
/// At most: a try that hangs, a gate that was left, a TTL, and the minute of the readers' lease.
const SOON: Duration = Duration::from_secs(100);

fn locker_of(builder: Builder) -> Locker {
    Locker::new(builder.create_container(true).build().unwrap()).ttl(TTL).poll(ms(20)..=ms(200))
}

fn on(container: &str) -> Locker {
    locker_of(account().container(container))
}

fn through(server: &FaultServer, container: &str) -> Locker {
    locker_of(account_at(&server.endpoint()).container(container))
}

/// Those who say that they hold the lock.
#[derive(Default)]
struct Inside(Mutex<Vec<(Watch, Mode)>>);

impl Inside {
    #[track_caller]
    fn comes(&self, who: &str, request: LockRequest, mode: Mode) -> Guard {
        let request = request.timeout(SOON);
        let request = if mode == Mode::Shared { request.shared() } else { request };
        let guard = request.lock().unwrap_or_else(|e| panic!("{who}: {e}"));
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|(other, _)| other.is_held());
        let alone = mode == Mode::Exclusive || inside.iter().any(|(_, other)| *other == Mode::Exclusive);
        assert!(inside.is_empty() || !alone, "{who}: {mode:?} beside {inside:?}");
        assert!(guard.is_held(), "{who}");
        inside.push((guard.watch(), mode));
        guard
    }
}

fn acts() -> Vec<(&'static str, Act)> {
    vec![
        ("lost", Act::Drop),
        ("the answer lost", Act::Lose),
        ("the answer cut", Act::Cut(20)),
        ("twice", Act::Twice),
        ("again later", Act::Again(SECOND)),
        ("answered late", Act::After(2 * SECOND)),
        ("carried out when it was given up", Act::Before(TOO_LATE)),
        ("503", Act::Answer(coded(503, "ServerBusy"))),
        ("500", Act::Answer(coded(500, "InternalError"))),
    ]
}

/// Nobody else gets it now. Many scenarios run at once, so that an answer may take its time.
#[track_caller]
fn is_kept_from(who: &str, asks: impl Fn() -> LockRequest) {
    loop {
        match asks().try_lock() {
            Ok(guard) => return assert!(guard.is_none(), "{who}: beside one that holds it"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{who}: {e}"),
        }
    }
}

/// Runs all of them, as many at once as Azurite bears.
fn all<T: Send>(scenarios: impl IntoIterator<Item = T, IntoIter: Send>, run: impl Fn(T) + Sync) {
    let scenarios = Mutex::new(scenarios.into_iter());
    let next = || scenarios.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    run(scenario);
                }
            });
        }
    });
}

/// Somebody can share the lock, and somebody can have it alone.
fn all_go_on(who: &str, container: &str, inside: &Inside) {
    let start = Instant::now();
    inside.comes(who, on(container).request("x"), Mode::Shared).unlock().unwrap();
    inside.comes(who, on(container).request("x"), Mode::Exclusive).unlock().unwrap();
    let took = start.elapsed();
    // A copy of a change that comes while readers are in makes their lease that of nobody, for a minute.
    let most = if who.starts_with("change:") { 70 } else { 35 };
    assert!(took < most * SECOND, "{who}: a gate's time and a TTL: {took:?}");
}

fn a_reader_comes_in(who: &str, faults: &[&'static str], act: &Act, fresh: bool) {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let inside = Inside::default();
    if !fresh {
        inside.comes(who, on(&container).request("x"), Mode::Shared).unlock().unwrap();
    }
    let start = Instant::now();
    match faults {
        [fault] => server.next(2, fault, act.clone()),
        // Its answer lost, it is taken back: that, too, goes wrong.
        [first, fault, ..] => {
            server.next(1, first, Act::Lose);
            server.next(1, fault, act.clone());
        }
        [] => {}
    }
    let reader = inside.comes(who, through(&server, &container).request("x").fenced(), Mode::Shared);
    let looks = |after: Duration| {
        while start.elapsed() < after {
            thread::sleep(ms(50));
        }
        reader.renew().unwrap_or_else(|e| panic!("{who}: {e}"));
        is_kept_from(who, || on(&container).request("x"));
    };
    looks(ms(0));
    if matches!(act, Act::Before(_)) {
        // What was given up is carried out about now.
        looks(TOO_LATE + 2 * SECOND);
        looks(2 * TOO_LATE);
    }
    let second = inside.comes(who, on(&container).request("x"), Mode::Shared);
    reader.unlock().unwrap();
    second.unlock().unwrap();
    all_go_on(who, &container, &inside);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn each_request_of_a_readers_way_in() {
    let faults = [
        (&["acquire:gate"][..], false),
        (&["blob:gate"], true),
        (&["acquire:/x?"], false),
        (&["blob:/x"], true),
        (&["blob:reader-"], false),
        (&["acquire:reader-"], false),
        (&["status:/x"], false),
        (&["metadata:/x?"], true),
        (&["release:gate"], false),
        (&["delete:reader-"], false),
        (&["release:gate", "delete:reader-"], false),
        (&["acquire:reader-", "release:gate"], false),
    ];
    all(
        acts().into_iter().flat_map(|act| faults.map(|fault| (act.clone(), fault))),
        |((what, act), fault)| {
            a_reader_comes_in(&format!("{:?} {what}", fault.0), fault.0, &act, fault.1);
        },
    );
}

fn a_writer_comes_in(who: &str, fault: &'static str, act: &Act) {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let inside = &Inside::default();
    let reader = inside.comes(who, on(&container).request("x"), Mode::Shared);
    let start = Instant::now();
    server.next(2, fault, act.clone());
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let locker = through(&server, &container);
            let writer = inside.comes(who, locker.request("x").fenced(), Mode::Exclusive);
            if matches!(act, Act::Before(_)) {
                while start.elapsed() < 2 * TOO_LATE {
                    thread::sleep(ms(50));
                }
            }
            writer.renew().unwrap_or_else(|e| panic!("{who}: {e}"));
            is_kept_from(who, || on(&container).request("x").shared());
            writer.unlock().unwrap();
        });
        until("it asks", || server.seen("acquire:gate").len() + server.seen("renew:gate").len() > 0);
        if fault == "renew:gate" {
            // It renews the gate while it waits.
            until("it keeps the gate", || !server.seen(fault).is_empty());
        }
        thread::sleep(ms(100));
        drop(reader);
        // Readers go on to come, and find the moment at which they can.
        while !writer.is_finished() {
            let asked = on(&container).request("x").shared().timeout(ms(300)).lock();
            if let Ok(reader) = asked {
                let watch = reader.watch();
                inside.0.lock().unwrap_or_else(PoisonError::into_inner).push((watch, Mode::Shared));
                thread::sleep(ms(50));
            }
        }
        writer.join().unwrap();
    });
    all_go_on(who, &container, inside);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn each_request_of_a_writers_way_in() {
    let faults = [
        "acquire:/x?",
        "acquire:gate",
        "renew:gate",
        "list",
        "delete:reader-",
        "change:/x?",
        "release:gate",
        "metadata:/x?",
    ];
    all(
        acts().into_iter().flat_map(|act| faults.map(|fault| (act.clone(), fault))),
        |((what, act), fault)| {
            a_writer_comes_in(&format!("{fault} {what}"), fault, &act);
        },
    );
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_writer_that_gives_up_leaves_nothing_behind() {
    thread::scope(|scope| {
        for fault in ["change:/x?", "release:gate", "acquire:gate", "list"] {
            for act in [Act::Drop, Act::Lose, Act::Before(3 * SECOND)] {
                scope.spawn(move || {
                    let (server, container) = (FaultServer::before_azurite(), fresh_container());
                    let inside = Inside::default();
                    inside.comes(fault, on(&container).request("x"), Mode::Shared).unlock().unwrap();
                    // As often as it is asked for by then.
                    server.next(2, fault, act.clone());
                    let _ =
                        through(&server, &container).request("x").timeout(ms(700)).lock().map(Guard::unlock);
                    let start = Instant::now();
                    let reader = inside.comes(fault, on(&container).request("x"), Mode::Shared);
                    let took = start.elapsed();
                    assert!(took < 10 * SECOND, "{fault}: no lease is left to run out: {took:?}");
                    thread::sleep(4 * SECOND);
                    // Late requests do not let a writer in, and do not end the reader.
                    is_kept_from(fault, || on(&container).request("x"));
                    drop(reader);
                    all_go_on(fault, &container, &inside);
                    let left = by_hand("GET", &format!("{container}?restype=container&comp=list"), "");
                    assert!(!left.contains("reader-"), "{left}");
                });
            }
        }
    });
}
