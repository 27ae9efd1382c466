//! Beside the lock of Consul's own library, the command `consul lock`, and dlock, on the same key.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use leasehold::{ErrorKind, Locker, Mode};

use crate::{
    common::{Actor, Dir, play, read_number, say},
    support::{LONG, SECOND, TTL, address, by_hand, fresh_prefix, locker_at, ms, program, timed},
};

/// The lock-delay of a session that does not say another.
const DELAY: Duration = Duration::from_secs(15);

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        let (locker, lock) = (locker_at(&address(), arguments[0]), arguments[1]);
        match role {
            "count" => {
                let [number, enough] = [2, 3].map(|i| Path::new(arguments[i]));
                count(&locker, lock, number, enough);
            }
            "hold" => {
                let _guard = locker.lock(lock).unwrap();
                say("held");
                thread::sleep(LONG);
            }
            other => panic!("no such role: {other}"),
        }
    });
}

/// Adds to the number in a file until another file is there; says how often.
fn count(locker: &Locker, lock: &str, number: &Path, enough: &Path) {
    let mut times = 0;
    while !enough.exists() {
        let guard = locker.lock(lock).unwrap();
        // Cut and written: whoever reads meanwhile finds no number.
        fs::write(number, (read_number(number) + 1).to_string()).unwrap();
        guard.unlock().unwrap();
        times += 1;
        thread::sleep(ms(20));
    }
    say(&times.to_string());
}

/// Another program's lock, which is ours by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    ApiLock,
    ConsulLock,
    Dlock,
}

struct Shared {
    peer: Peer,
    prefix: String,
    lock: &'static str,
}

impl Shared {
    fn of(peer: Peer) -> Self {
        let lock = if peer == Peer::ConsulLock { "service/.lock" } else { "service/leader" };
        Self { peer, prefix: fresh_prefix(), lock }
    }

    fn locker(&self) -> Locker {
        locker_at(&address(), &self.prefix)
    }

    fn key(&self) -> String {
        format!("{}/{}", self.prefix, self.lock)
    }

    fn ours(&self, role: &str, arguments: &[&str]) -> Actor {
        let arguments = [&[&*self.prefix, self.lock], arguments].concat();
        Actor::run(Actor::command("peers::role", role, &arguments).stdin(Stdio::null()))
    }

    /// Their program, counting or holding.
    fn theirs(&self, job: &[&str]) -> Actor {
        let mut command = match self.peer {
            Peer::ApiLock => go_program("apilock"),
            Peer::Dlock => go_program("dlock"),
            Peer::ConsulLock => {
                let script = match job {
                    ["hold"] => "echo @held; cat".to_owned(),
                    ["once"] => "echo @free".to_owned(),
                    ["count", file, _] => {
                        format!("n=$(cat {file}); sleep 0.01; printf %s $((n+1)) > {file}")
                    }
                    other => panic!("no such job: {other:?}"),
                };
                let mut command = Command::new(program());
                command.args([
                    "lock",
                    &format!("-http-addr={}", address()),
                    "-child-exit-code",
                    "-pass-stdin",
                ]);
                if job == ["once"] {
                    command.arg("-timeout=500ms");
                }
                command.args([&*format!("{}/service", self.prefix), &script]);
                command.stderr(Stdio::null());
                return Actor::run(command.stdin(Stdio::piped()));
            }
        };
        if self.peer == Peer::Dlock {
            // Its own 30 s would make this minutes.
            command.arg("-retry=200ms");
        }
        Actor::run(command.args([&address(), &self.key()]).args(job).stdin(Stdio::piped()))
    }

    /// Whether they find the lock free.
    fn is_free_to_them(&self) -> bool {
        let (mut once, mut said) = (self.theirs(&["once"]), String::new());
        // `consul lock` ends badly when it is not.
        once.said.read_to_string(&mut said).unwrap();
        said.contains("@free")
    }
}

fn go_program(name: &str) -> Command {
    let programs =
        env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs and says where");
    Command::new(Path::new(&programs).join(name))
}

/// So many processes of theirs count so often each, and three of ours as long as that takes.
fn each_counts_exactly(peer: Peer, processes: usize, times: u64) {
    let shared = Shared::of(peer);
    let dir = Dir::new(&format!("{peer:?}"));
    let (number, enough) = (dir.0.join("number"), dir.0.join("enough"));
    fs::write(&number, "0").unwrap();
    let [number_path, enough_path] = [&number, &enough].map(|path| path.to_str().unwrap());
    let (ours, took) = timed(|| {
        let mut ours: Vec<Actor> =
            (0..3).map(|_| shared.ours("count", &[number_path, enough_path])).collect();
        thread::scope(|scope| {
            for _ in 0..processes {
                scope.spawn(|| {
                    // `consul lock` runs one command.
                    let runs = if peer == Peer::ConsulLock { times } else { 1 };
                    for _ in 0..runs {
                        shared.theirs(&["count", number_path, &times.to_string()]).ends_well();
                    }
                });
            }
        });
        fs::write(&enough, "").unwrap();
        let times: Vec<u64> = ours.iter_mut().map(|actor| actor.hear().parse().unwrap()).collect();
        ours.iter_mut().for_each(Actor::ends_well);
        times
    });
    println!("{peer:?}: {processes} processes {times} times each, three of ours {ours:?}: {took:?}");
    assert!(ours.iter().all(|times| *times > 0), "they were alone");
    assert_eq!(read_number(&number), processes as u64 * times + ours.iter().sum::<u64>());
}

#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn api_lock_and_we_count_exactly() {
    each_counts_exactly(Peer::ApiLock, 3, 50);
}

#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn consul_lock_and_we_count_exactly() {
    each_counts_exactly(Peer::ConsulLock, 2, 8);
}

/// Each of its releases makes everybody wait for the lock-delay.
#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn dlock_and_we_count_exactly() {
    each_counts_exactly(Peer::Dlock, 2, 2);
}

#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn they_keep_us_out_and_we_them() {
    thread::scope(|scope| {
        for peer in [Peer::ApiLock, Peer::ConsulLock, Peer::Dlock] {
            scope.spawn(move || {
                let shared = Shared::of(peer);
                let (locker, lock) = (shared.locker(), shared.lock);
                let mut theirs = shared.theirs(&["hold"]);
                assert_eq!(theirs.hear(), "held");
                assert!(locker.try_lock(lock).unwrap().is_none());
                let status = locker.status(lock).unwrap();
                assert_eq!(status.mode(), Some(Mode::Exclusive));
                println!("{peer:?} holds it: {}", status.holders()[0]);
                let error = locker.request(lock).timeout(ms(300)).lock().unwrap_err();
                assert!(error.kind() == ErrorKind::Timeout && error.holder().is_some(), "{error}");
                let waiter = locker.clone();
                let waiting = thread::spawn(move || waiter.lock(lock).unwrap());
                theirs.hear_no_more();
                let (guard, took) = timed(|| waiting.join().unwrap());
                println!("{peer:?}: ours {took:?} after they were told to let go");
                let bound = if peer == Peer::Dlock { DELAY + SECOND } else { SECOND };
                assert!(took < bound, "{peer:?}: {took:?}");
                theirs.ends_well();

                assert!(!shared.is_free_to_them(), "{peer:?}");
                let mut waiting = shared.theirs(&["hold"]);
                guard.renew().expect("what they do while they wait is nothing to us");
                guard.unlock().unwrap();
                let (said, took) = timed(|| waiting.hear());
                println!("{peer:?}: theirs {took:?} after our release");
                assert_eq!(said, "held");
                assert!(took < 6 * SECOND, "{peer:?}: {took:?}");
                assert!(locker.try_lock(lock).unwrap().is_none());
                waiting.hear_no_more();
                waiting.ends_well();
                drop(locker.lock(lock).unwrap());
                // What it costs them: it tries once, for a moment.
                assert!(peer == Peer::Dlock || shared.is_free_to_them(), "{peer:?}");
            });
        }
    });
}

/// A crash of one leaves the lock to the other: TTL of theirs 15 s (dlock: 30 s), lock-delay 15 s.
#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn who_is_killed_leaves_the_lock_to_the_other() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let shared = Shared::of(Peer::ApiLock);
            let mut theirs = shared.theirs(&["hold"]);
            assert_eq!(theirs.hear(), "held");
            theirs.dies();
            let (guard, took) = timed(|| shared.locker().request(shared.lock).timeout(LONG).lock().unwrap());
            println!("ours {took:?} after theirs was killed");
            assert!(guard.is_held() && took < 2 * DELAY + DELAY + SECOND, "{took:?}");
        });
        scope.spawn(|| {
            let shared = Shared::of(Peer::ApiLock);
            let mut ours = shared.ours("hold", &[]);
            assert_eq!(ours.hear(), "held");
            ours.dies();
            let mut theirs = shared.theirs(&["hold"]);
            let (said, took) = timed(|| theirs.hear());
            println!("theirs {took:?} after ours was killed");
            // They look every 5 s while a lock-delay runs.
            assert!(said == "held" && took < 3 * TTL + 7 * SECOND, "{took:?}");
        });
    });
}

#[test]
#[ignore = "needs Consul and Go programs: tests/run.sh peers"]
fn their_value_is_replaced_and_other_fields_of_a_json_value_stay() {
    let shared = Shared::of(Peer::Dlock);
    let value = || by_hand("GET", &format!("kv/{}?raw", shared.key()), "");
    let mut theirs = shared.theirs(&["hold"]);
    assert_eq!(theirs.hear(), "held");
    assert!(value().starts_with("{\"lockAcquisitionTime\":"), "{}", value());
    theirs.hear_no_more();
    theirs.ends_well();
    let locker = shared.locker().holder("ours");
    let guard = locker.lock(shared.lock).unwrap();
    assert!(
        value().contains("\"holder\":\"ours\"") && value().contains("lockAcquisitionTime"),
        "{}",
        value()
    );
    drop(guard);
}
