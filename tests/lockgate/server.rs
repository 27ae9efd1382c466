//! On lockgate's HTTP server, beside its users.
//!
//! Its store in memory mixes up the ids of those who ask at the same instant, now and then: counting by many processes
//! is done on a server before Kubernetes, in `tests/kubernetes/peers.rs`.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use leasehold::{Break, ErrorKind, Locker, LostReason, Unlocked, lockgate::Store};

use crate::{
    common::fault_server::{Act, FaultServer},
    common::{Actor, LONG, SECOND, kind, ms, play, say, timed},
};

const LOCK: &str = "release/myapp";

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        let locker = Locker::open(arguments[0]).unwrap();
        assert_eq!(role, "hold");
        let _guard = locker.lock(LOCK).unwrap();
        say("held");
        thread::sleep(LONG);
    });
}

fn program() -> Command {
    let programs = env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs");
    Command::new(Path::new(&programs).join("lockgate"))
}

/// A server of one test, which keeps its locks in memory.
struct Server {
    _process: Actor,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut process = Actor::run(program().args(["serve", "memory"]).stdin(Stdio::null()));
        let port = process.hear().parse().unwrap();
        Self { _process: process, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn locker(&self) -> Locker {
        Locker::open(&format!("lockgate+{}", self.url())).unwrap()
    }

    fn ours(&self, role: &str, arguments: &[&str]) -> Actor {
        let address = format!("lockgate+{}", self.url());
        let arguments = [&[&*address], arguments].concat();
        Actor::run(Actor::command("server::role", role, &arguments).stdin(Stdio::null()))
    }

    fn theirs(&self, options: &[&str], job: &[&str]) -> Actor {
        Actor::run(program().args(options).args([&self.url(), LOCK]).args(job).stdin(Stdio::piped()))
    }

    #[track_caller]
    fn to_them(&self, options: &[&str]) -> String {
        self.theirs(options, &["once"]).answers()
    }
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn they_keep_us_out_and_we_them() {
    let server = Server::start();
    let (locker, join) = (server.locker(), || server.locker().request(LOCK).shared().try_lock().unwrap());
    let mut theirs = server.theirs(&[], &["hold"]);
    assert_eq!(theirs.hear(), "held");
    assert!(locker.try_lock(LOCK).unwrap().is_none() && join().is_none());
    assert!(locker.try_lock("another").unwrap().is_some());
    theirs.hear_no_more();
    let guard = locker.request(LOCK).timeout(LONG).lock().unwrap();
    theirs.ends_well();
    assert!(guard.valid_for().unwrap() <= 9 * SECOND && guard.fencing_token().is_none());
    assert_eq!((server.to_them(&[]), server.to_them(&["-shared"])), ("busy".to_owned(), "busy".to_owned()));
    // Longer than it lives without renewals.
    thread::sleep(11 * SECOND);
    guard.check().unwrap();
    assert_eq!(server.to_them(&[]), "busy");
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    let (reader, second) = (join().unwrap(), join().unwrap());
    assert_eq!((server.to_them(&[]), server.to_them(&["-shared"])), ("busy".to_owned(), "free".to_owned()));
    reader.unlock().unwrap();
    assert_eq!(server.to_them(&[]), "busy", "a reader is left");
    second.renew().unwrap();
    second.unlock().unwrap();
    assert_eq!(server.to_them(&[]), "free");
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn who_is_killed_leaves_the_lock_to_the_other() {
    let (one, two) = (Server::start(), Server::start());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut theirs = one.theirs(&[], &["hold"]);
            assert_eq!(theirs.hear(), "held");
            theirs.dies();
            let (_guard, took) = timed(|| one.locker().request(LOCK).timeout(LONG).lock().unwrap());
            println!("server: ours {took:?} after theirs was killed");
            assert!(took < 13 * SECOND, "{took:?}");
        });
        scope.spawn(|| {
            let mut ours = two.ours("hold", &[]);
            assert_eq!(ours.hear(), "held");
            ours.dies();
            let mut theirs = two.theirs(&[], &["hold"]);
            let (said, took) = timed(|| theirs.hear());
            println!("server: theirs {took:?} after ours was killed");
            assert_eq!(said, "held");
            assert!(took < 14 * SECOND, "{took:?}");
            theirs.hear_no_more();
            theirs.ends_well();
        });
    });
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn a_lost_answer_is_no_grant_and_a_readers_release_is_sent_once() {
    let server = Server::start();
    let faults = FaultServer::before(&format!("127.0.0.1:{}", server.port), |seen| {
        seen.target.trim_start_matches('/').to_owned()
    });
    let store = || Locker::new(Store::new(&faults.url()).unwrap()).patience(5 * SECOND);
    let (locker, beside) = (store(), server.locker());
    locker.lock(LOCK).unwrap().unlock().unwrap();
    assert_eq!(faults.all().len(), 3, "acquire, renew, release");

    // The lease is asked for again until it counts, under one id.
    faults.next(1, "renew-lease", Act::Lose);
    faults.forget();
    let guard = locker.lock(LOCK).unwrap();
    assert_eq!((faults.seen("acquire").len(), faults.seen("renew-lease").len()), (1, 2));
    // Twice is once.
    faults.next(1, "release", Act::Lose);
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);

    // What nobody waits for any more is given back.
    faults.next(20, "renew-lease", Act::Lose);
    assert_eq!(kind(locker.request(LOCK).timeout(ms(300)).lock()), ErrorKind::Timeout);
    faults.heal();
    crate::common::until("it is free again", || beside.try_lock(LOCK).unwrap().is_some());

    let reader = || store().release_budget(ms(500)).request(LOCK).shared().lock().unwrap();
    let (first, second) = (reader(), reader());
    faults.next(1, "release", Act::Lose);
    faults.forget();
    assert_eq!(first.unlock().unwrap(), Unlocked::Expiring);
    assert_eq!(faults.seen("release").len(), 1);
    assert!(beside.try_lock(LOCK).unwrap().is_none(), "the other reader's is left alone");
    second.renew().unwrap();
    second.unlock().unwrap();
    assert!(beside.try_lock(LOCK).unwrap().is_some());

    // A proxy's word is none.
    let guard = locker.lock(LOCK).unwrap();
    let page = b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno".to_vec();
    faults.next(1, "renew-lease", Act::Answer(page));
    assert_eq!(kind(guard.renew()), ErrorKind::Unavailable);
    guard.renew().unwrap();
    // The server's is: another's release of it, which anybody can send who knows the id.
    drop(server);
    assert_eq!(kind(guard.renew()), ErrorKind::Unavailable);
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn what_it_cannot_do_is_said_and_a_server_that_forgot_is_a_loss() {
    let server = Server::start();
    let locker = server.locker();
    let guard = locker.lock(LOCK).unwrap();
    assert_eq!(kind(locker.request("y").fenced().lock()), ErrorKind::Unsupported);
    assert_eq!(kind(locker.status(LOCK)), ErrorKind::Unsupported);
    assert_eq!(kind(locker.list()), ErrorKind::Unsupported);
    assert_eq!(kind(locker.break_lock(LOCK, Break::Now)), ErrorKind::Unsupported);
    let mut other = server.theirs(&[], &["release", guard.lease_id().unwrap(), "1"]);
    other.ends_well();
    assert_eq!(guard.renew().unwrap_err().lost_reason(), Some(LostReason::Deleted));
    for url in ["", "x", "ftp://x", "http://a:hunter2@x", "http://x?y"] {
        let error = Store::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!error.to_string().contains("hunter2"));
    }
}
