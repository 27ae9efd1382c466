//! Shared mode on Azurite: readers beside readers, never beside a writer.

use std::{
    env,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use leasehold::{
    Break, ErrorKind, Guard, Locker, LostReason, Mode,
    azure::{Acquired, Builder},
};

use crate::{
    common::{Actor, say},
    fault_server::{Act, FaultServer},
    support::{SECOND, account, account_at, fresh_container, kind, ms, timed, until},
};
use rustix::process::Signal;

const TTL: Duration = Duration::from_secs(15);

fn locker_of(builder: Builder) -> Locker {
    Locker::new(builder.create_container(true).build().unwrap()).ttl(TTL)
}

/// One with connections of its own, as of another process.
fn on(container: &str) -> Locker {
    locker_of(account().container(container))
}

fn through(server: &FaultServer, container: &str) -> Locker {
    locker_of(account_at(&server.endpoint()).container(container))
}

fn share(locker: &Locker) -> Guard {
    locker.request("x").shared().lock().unwrap()
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn readers_share_and_exclude_writers() {
    let container = fresh_container();
    let (locker, other) = (on(&container).holder("one"), on(&container).holder("two"));
    let (first, second) = (share(&locker), share(&other));
    assert!(locker.try_lock("x").unwrap().is_none() && other.try_lock("x").unwrap().is_none());
    assert!(other.request("x").shared().try_lock().unwrap().is_some(), "after a writer that gave up");
    let status = locker.status("x").unwrap();
    let mut words: Vec<_> = status.holders().iter().map(|holder| holder.words().to_owned()).collect();
    words.sort();
    assert_eq!((status.mode(), &words[..]), (Some(Mode::Shared), &["one".to_owned(), "two".to_owned()][..]));
    assert!(status.holders().iter().all(|h| h.since().is_some() && h.pid() == Some(std::process::id())));

    first.renew().unwrap();
    first.unlock().unwrap();
    assert!(locker.try_lock("x").unwrap().is_none(), "one is still in");
    let waiter = locker.request("x").timeout(SECOND).lock().unwrap_err();
    assert_eq!(waiter.kind(), ErrorKind::Timeout);
    assert_eq!(waiter.holder().unwrap().words(), "two");
    second.unlock().unwrap();
    // Whoever comes first finds no lease that nobody has.
    assert_eq!(other.status("x").unwrap().mode(), None);
    // The one that gave up lets go of the gate after it said so.
    let writer = other.request("x").timeout(5 * SECOND).lock().unwrap();
    assert!(locker.request("x").shared().try_lock().unwrap().is_none());
    assert_eq!(locker.status("x").unwrap().mode(), Some(Mode::Exclusive));
    writer.unlock().unwrap();
    assert!(locker.request("x").shared().try_lock().unwrap().is_some());
    assert_eq!(kind(locker.request("x").shared().no_expiry().lock()), ErrorKind::Unsupported);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_lock_that_nobody_shares_costs_two_requests() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    through(&server, &container).lock("x").unwrap().unlock().unwrap();
    server.forget();
    // Of a process that knows nothing of the lock.
    through(&server, &container).lock("x").unwrap().unlock().unwrap();
    assert_eq!(server.all().len(), 2);
    share(&through(&server, &container)).unlock().unwrap();
    server.forget();
    let locker = through(&server, &container);
    let reader = share(&locker);
    let in_ = server.all().len();
    reader.unlock().unwrap();
    let out = server.all().len() - in_;
    server.forget();
    let writer = locker.try_lock("x").unwrap().expect("all readers are gone");
    println!("requests: a reader {in_} and {out}, the writer after readers {}", server.all().len());
    assert!(in_ <= 6 && out == 1 && server.all().len() <= 8);
    writer.unlock().unwrap();
    server.forget();
    locker.lock("x").unwrap().unlock().unwrap();
    assert_eq!(server.all().len(), 2, "a writer leaves nothing of the readers");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn who_knows_nothing_of_readers_gets_in_beside_none() {
    let container = fresh_container();
    let reader = share(&on(&container));
    let blob = account().container(&container).build().unwrap().blob("x").unwrap();
    let theirs = || blob.acquire("5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01", Some(TTL)).unwrap();
    assert!(matches!(theirs(), Acquired::Busy));
    reader.unlock().unwrap();
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn never_a_reader_beside_a_writer() {
    let container = fresh_container();
    // How many readers are in; less than nothing: a writer.
    let inside = Arc::new(AtomicI32::new(0));
    let most = Arc::new(AtomicI32::new(0));
    thread::scope(|scope| {
        for n in 0..8 {
            let locker = on(&container).poll(ms(5)..=ms(40));
            let (inside, most) = (inside.clone(), most.clone());
            scope.spawn(move || {
                for _ in 0..12 {
                    if n % 4 > 0 {
                        let guard = share(&locker);
                        let in_ = inside.fetch_add(1, SeqCst) + 1;
                        assert!(in_ > 0, "a reader beside a writer");
                        most.fetch_max(in_, SeqCst);
                        thread::sleep(ms(100));
                        inside.fetch_sub(1, SeqCst);
                        guard.unlock().unwrap();
                    } else {
                        let guard = locker.lock("x").unwrap();
                        assert_eq!(inside.fetch_sub(1000, SeqCst), 0, "a writer beside somebody");
                        thread::sleep(ms(2));
                        inside.fetch_add(1000, SeqCst);
                        guard.unlock().unwrap();
                    }
                }
            });
        }
    });
    println!("at most {} readers at once", most.load(SeqCst));
    assert!(most.load(SeqCst) > 1);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn writers_do_not_starve() {
    let container = fresh_container();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        // Always somebody is in, and somebody comes.
        for _ in 0..4 {
            let locker = on(&container).poll(ms(5)..=ms(40));
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let guard = share(&locker);
                    rounds.fetch_add(1, SeqCst);
                    thread::sleep(ms(300));
                    guard.unlock().unwrap();
                }
            });
        }
        until("readers come and go", || rounds.load(SeqCst) > 8);
        let locker = on(&container);
        let (writer, took) = timed(|| locker.request("x").timeout(60 * SECOND).lock());
        stop.store(true, SeqCst);
        println!("the writer waited {took:?}");
        writer.unwrap().unlock().unwrap();
    });
}

/// A server before Azurite that holds the answer to one request of a reader's back.
fn holding_back(point: &'static str, pause: Duration) -> (FaultServer, String) {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    // All blobs are there, so that each point is met once.
    share(&on(&container)).unlock().unwrap();
    server.next(1, point, Act::After(pause));
    (server, container)
}

const POINTS: [&str; 4] = ["acquire:gate", "acquire:/x?", "blob:reader-", "acquire:reader-"];

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_reader_whose_gate_was_broken_is_none() {
    thread::scope(|scope| {
        for point in POINTS {
            scope.spawn(move || {
                let (server, container) = holding_back(point, 3 * SECOND);
                let (tell, told) = mpsc::channel();
                let reader = through(&server, &container);
                thread::spawn(move || tell.send(share(&reader)));
                until(point, || !server.seen(point).is_empty());
                let operator = on(&container);
                operator.break_lock("x", Break::Now).unwrap();
                let writer = operator.try_lock("x").unwrap().unwrap_or_else(|| panic!("free: {point}"));
                assert!(told.recv_timeout(5 * SECOND).is_err(), "a reader beside a writer: {point}");
                assert!(writer.is_held());
                writer.unlock().unwrap();
                let reader = told.recv_timeout(10 * SECOND).unwrap_or_else(|_| panic!("it goes on: {point}"));
                reader.renew().unwrap();
                assert!(operator.try_lock("x").unwrap().is_none());
            });
        }
    });
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_writer_whose_gate_was_broken_is_none() {
    let (server, container) = holding_back("none", Duration::ZERO);
    // It has looked, and found nobody; its next request is on its way for so long.
    server.next(1, "change:/x?", Act::Before(3 * SECOND));
    let (tell, told) = mpsc::channel();
    let writer = through(&server, &container);
    thread::spawn(move || tell.send(writer.lock("x")));
    until("it asks", || !server.seen("change:/x?").is_empty());
    let gate = account().container(&container).build().unwrap().blob("~locks/x/gate").unwrap();
    gate.break_lease(Some(Duration::ZERO)).unwrap();
    let reader = share(&on(&container));
    assert!(told.recv_timeout(5 * SECOND).is_err(), "a writer beside a reader");
    reader.renew().expect("the reader goes on");
    reader.unlock().unwrap();
    told.recv_timeout(10 * SECOND).unwrap().unwrap().renew().unwrap();
}

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    let Ok(arguments) = env::var("LEASEHOLD_ARGUMENTS") else { return };
    let (endpoint, container) = arguments.split_once('\n').unwrap();
    let guard = share(&locker_of(account_at(endpoint).container(container)));
    say("shared");
    guard.renew().unwrap();
    guard.unlock().unwrap();
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_reader_that_is_stopped_at_the_gate_comes_in_beside_no_writer() {
    thread::scope(|scope| {
        for point in POINTS {
            scope.spawn(move || {
                let (server, container) = holding_back(point, SECOND);
                let mut command = Actor::command("shared::role", "reader", &[&server.endpoint(), &container]);
                let mut reader = Actor::run(command.stdin(Stdio::null()));
                until(point, || !server.seen(point).is_empty());
                reader.signal(Signal::STOP);
                // The gate's 15 s, and what else it left there.
                let writer = on(&container).request("x").timeout(60 * SECOND).lock().unwrap();
                reader.signal(Signal::CONT);
                let released = AtomicBool::new(false);
                thread::scope(|scope| {
                    let heard = scope.spawn(|| {
                        assert_eq!(reader.hear(), "shared");
                        assert!(released.load(SeqCst), "a reader beside a writer: {point}");
                    });
                    // It asks again and again meanwhile.
                    until("it asks", || server.seen("acquire:/x?").len() > 4);
                    assert!(writer.is_held());
                    released.store(true, SeqCst);
                    writer.unlock().unwrap();
                    heard.join().unwrap();
                });
                reader.ends_well();
            });
        }
    });
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_reader_that_is_no_more_holds_a_writer_up_for_its_ttl() {
    let container = fresh_container();
    let reader = share(&on(&container));
    // As if its process were gone: nobody renews, nobody releases.
    let server = FaultServer::before_azurite();
    let gone = through(&server, &container);
    let second = share(&gone);
    server.always("renew", Act::Drop);
    server.always("delete", Act::Drop);
    std::mem::forget(second);
    reader.unlock().unwrap();
    let (writer, took) = timed(|| on(&container).request("x").timeout(60 * SECOND).lock().unwrap());
    println!("had the lock after {took:?}, of a TTL of {TTL:?}");
    assert!(took <= TTL + ms(1500), "{took:?}");
    writer.unlock().unwrap();
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn readers_are_broken_together() {
    for how in [Break::Now, Break::AfterNotice] {
        let container = fresh_container();
        let readers = [share(&on(&container)), share(&on(&container))];
        let operator = on(&container);
        let left = operator.break_lock("x", how).unwrap().unwrap();
        assert!(left <= 61 * SECOND);
        for reader in readers {
            until("told", || reader.check().is_err());
            assert_eq!(reader.unlock().unwrap_err().lost_reason(), Some(LostReason::Broken));
        }
        if how == Break::Now {
            assert!(operator.try_lock("x").unwrap().is_some());
        } else {
            assert!(operator.try_lock("x").unwrap().is_none(), "not before its time is up");
        }
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_writer_that_gives_up_lets_readers_in() {
    let (server, container) = (FaultServer::before_azurite(), fresh_container());
    let (locker, other) = (through(&server, &container), on(&container));
    let reader = share(&other);
    assert_eq!(kind(locker.request("x").timeout(2 * SECOND).lock()), ErrorKind::Timeout);
    until("the gate is let go", || !server.seen("release:gate").is_empty());
    let (second, took) = timed(|| share(&other));
    assert!(took < 2 * SECOND, "{took:?}");
    // Also one whose answers are lost.
    server.always("release:gate", Act::Lose);
    assert_eq!(kind(locker.request("x").timeout(2 * SECOND).lock()), ErrorKind::Timeout);
    let (third, took) = timed(|| share(&other));
    assert!(took < 5 * SECOND, "{took:?}");
    drop((reader, second, third));
}
