//! Many processes, stopped and killed holders, an Azurite that dies, many leases, https.
#![cfg(target_os = "linux")]

use std::{
    collections::HashMap,
    env, fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use leasehold::{Event, Guard, Locker};

use crate::{
    common::{
        Actor, Dir, play,
        promises::{a_stopped_holder_finds_it_lost, under_load},
        read_number, say, watch,
    },
    support::{LONG, NAME, SECOND, account_at, endpoint, fresh_container, ms, timed, until},
};

/// The shortest that the service gives.
const TTL: Duration = Duration::from_secs(15);

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        let locker = locker_at(arguments[0], arguments[1]);
        match role {
            "count" => count(&locker.poll(ms(5)..=ms(50)), &arguments[2..]),
            "watch" => watch(&locker),
            "many" => many(locker, arguments[2].parse().unwrap()),
            "secure" => secure(&locker.patience(ms(500))),
            other => panic!("no such role: {other}"),
        }
    });
}

/// Starts a process with a role.
fn start(role: &str, arguments: &[&str]) -> Actor {
    start_trusting(role, arguments, None)
}

/// One that trusts these certificates, and the machine's own otherwise.
fn start_trusting(role: &str, arguments: &[&str], certificates: Option<&str>) -> Actor {
    let mut command = Actor::command("weather::role", role, arguments);
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    if let Some(file) = certificates {
        command.env("SSL_CERT_FILE", file);
    }
    Actor::run(command.stdin(Stdio::null()))
}

fn locker_at(endpoint: &str, container: &str) -> Locker {
    let container = account_at(endpoint).container(container).create_container(true);
    Locker::new(container.build().unwrap()).ttl(TTL)
}

/// Adds to the number in a file, in some threads.
fn count(locker: &Locker, arguments: &[&str]) {
    let path = Path::new(arguments[0]);
    let left = AtomicUsize::new(arguments[1].parse().unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
                    let guard = locker.lock("counter").unwrap();
                    // Cut and written: whoever reads meanwhile finds no number.
                    fs::write(path, (read_number(path) + 1).to_string()).unwrap();
                    guard.unlock().unwrap();
                }
            });
        }
    });
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn eight_processes_of_four_threads_count_exactly() {
    let dir = Dir::new("count");
    let number = dir.0.join("number");
    fs::write(&number, "0").unwrap();
    let (endpoint, container) = (endpoint(), fresh_container());
    let arguments = [&endpoint, &container, number.to_str().unwrap(), "250"];
    let ((), took) = timed(|| {
        let mut actors: Vec<Actor> = (0..8).map(|_| start("count", &arguments)).collect();
        actors.iter_mut().for_each(Actor::ends_well);
    });
    println!("2,000 times by 8 processes of 4 threads: {took:?}");
    assert_eq!(read_number(&number), 2000);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_stopped_holder_finds_its_lease_lost_before_its_code_can_act_on_it() {
    let (endpoint, container) = (endpoint(), fresh_container());
    let holder = start("watch", &[&endpoint, &container]);
    let [locker, beside] = [(); 2].map(|()| locker_at(&endpoint, &container));
    a_stopped_holder_finds_it_lost(holder, &locker, &beside);
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_killed_holder_leaves_the_lock_within_its_ttl() {
    let (endpoint, container) = (endpoint(), fresh_container());
    let mut holder = start("watch", &[&endpoint, &container]);
    assert_eq!(holder.hear(), "held");
    let locker = locker_at(&endpoint, &container);
    assert!(locker.try_lock("x").unwrap().is_none());
    holder.dies();
    let (guard, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
    println!("had the lock {took:?} after the kill, of a TTL of {TTL:?}");
    assert!(guard.is_held() && took <= TTL + ms(1500), "{took:?}");
}

/// An Azurite of one test, which keeps its data in a directory.
struct Azurite {
    child: Child,
    port: u16,
    dir: Dir,
}

impl Azurite {
    fn start() -> Self {
        let dir = Dir::new("azurite");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { child: Self::run(port, &dir), port, dir }
    }

    fn run(port: u16, dir: &Dir) -> Child {
        let program = env::var("LEASEHOLD_AZURITE_PROGRAM").expect("tests/run.sh says where Azurite is");
        let mut command = Command::new(program);
        command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort"]);
        command.arg(port.to_string()).arg("--location").arg(&dir.0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        until("Azurite", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn dies(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn comes_back(&mut self) {
        self.child = Self::run(self.port, &self.dir);
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{NAME}", self.port)
    }

    /// Whether this is on the disk.
    fn has_saved(&self, what: &str) -> bool {
        let saved = fs::read_to_string(self.dir.0.join("__azurite_db_blob__.json"));
        saved.is_ok_and(|text| text.contains(what))
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Azurite writes its data every 5 s. Killed, it comes back with leases and blobs as they were then: what it saved
/// it keeps, and what it granted or freed since is undone. So the lease that was saved has to live on, and locks that
/// come and go have to go on, after a TTL at the latest. That two never hold one of them is asked for as well, though
/// an undone grant could lead to it: these are held for less time than a start takes.
#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn azurite_dies_under_load_and_all_go_on() {
    let mut azurite = Azurite::start();
    let (endpoint, container) = (azurite.endpoint(), fresh_container());
    let keeper = locker_at(&endpoint, &container);
    let kept = keeper.request("kept").ttl(4 * TTL).lock().unwrap();
    until("the lease on the disk", || azurite.has_saved(kept.lease_id().unwrap()));
    // Two threads share a locker each, and a queue.
    let lockers: Vec<Locker> =
        (0..4).map(|_| locker_at(&endpoint, &container).poll(ms(5)..=ms(50))).collect();
    let unconfirmed = under_load(&lockers, |all_go_on| {
        all_go_on(10);
        for _ in 0..2 {
            azurite.dies();
            thread::sleep(SECOND);
            azurite.comes_back();
            kept.renew().expect("what was saved is kept");
            assert!(lockers[0].try_lock("kept").unwrap().is_none());
            let ((), took) = timed(|| all_go_on(10));
            println!("all went on {took:?} after the start");
        }
    });
    assert!(kept.is_held());
    assert!(unconfirmed <= 4, "one or so for each death");
}

/// What renewals tell.
#[derive(Default)]
struct Renewals {
    /// When each lease was last renewed, by the moment that its validity counts from, since the start.
    last: HashMap<String, Duration>,
    late: Vec<Duration>,
    took: Vec<Duration>,
    /// Those that failed or were lost.
    bad: Vec<String>,
}

fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    rss.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// This process's open sockets.
fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Holds 1,000 leases of 60 s for some seconds.
fn many(locker: Locker, seconds: u64) {
    const HELD: usize = 1000;
    let ttl = 4 * TTL;
    // A margin of 2 % is the holder's.
    let validity = ttl * 49 / 50;
    let renewals = Arc::new(Mutex::new(Renewals::default()));
    let told = renewals.clone();
    let start = Instant::now();
    let locker = locker.ttl(ttl).on_event(move |event| {
        let now = start.elapsed();
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Renewed { name, valid_for, .. } => {
                let took = validity.saturating_sub(*valid_for);
                told.took.push(took);
                let since = now.saturating_sub(took);
                if let Some(last) = told.last.insert((*name).to_owned(), since) {
                    told.late.push(since.saturating_sub(last + ttl / 3));
                }
            }
            Event::RenewalFailed { .. } | Event::Lost { .. } => told.bad.push(event.to_string()),
            _ => {}
        }
    });
    let first = locker.lock("first").unwrap();
    let rss_before = resident_kib();
    let (held, took): (Vec<Guard>, _) = timed(|| {
        let lock = |i| {
            let guard = locker.lock(&format!("lock {i}")).unwrap();
            let since = (start.elapsed() + guard.valid_for().unwrap()).saturating_sub(validity);
            renewals.lock().unwrap().last.entry(guard.name().to_owned()).or_insert(since);
            guard
        };
        (0..HELD).map(lock).collect()
    });
    let mut most_sockets = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        most_sockets = most_sockets.max(sockets());
        thread::sleep(ms(20));
    }
    assert!(held.iter().chain([&first]).all(Guard::is_held), "a lease was lost");
    let rss = (resident_kib() - rss_before) / HELD as u64;
    let Renewals { mut late, took: mut calls, bad, .. } =
        std::mem::take(&mut *renewals.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(bad.is_empty(), "{bad:?}");
    let ((), freed) = timed(|| drop((held, first)));
    println!("{HELD} leases, taken in {took:?}, held for {seconds} s, freed in {freed:?}");
    println!("{rss} KiB of memory a lease, at most {most_sockets} connections");
    let [late_50, late_99] = [50, 99].map(|percent| quantile(&mut late, percent));
    let [call_50, call_99] = [50, 99].map(|percent| quantile(&mut calls, percent));
    println!("{} renewals: later than a third of the TTL p50 {late_50:?} p99 {late_99:?}", calls.len());
    println!("answered after p50 {call_50:?} p99 {call_99:?}");
    assert!(calls.len() >= 2 * HELD, "two renewals each");
    // Frames of code that is not optimized are large, and each lease has a stack.
    let at_most = if cfg!(debug_assertions) { 128 } else { 45 };
    assert!(rss <= at_most, "{rss} KiB");
    assert!((1..=16).contains(&most_sockets));
    assert!(late_99 < ttl / 6, "a retry still fits in");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_thousand_leases_in_one_process() {
    let mut actor = start("many", &[&endpoint(), &fresh_container(), "120"]);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut actor.said, &mut said).unwrap();
    println!("{said}");
    actor.ends_well();
}

/// Locks and unlocks, and says how that went.
fn secure(locker: &Locker) {
    match locker.lock("x").and_then(Guard::unlock) {
        Ok(how) => say(&format!("{how:?}")),
        Err(e) => say(&format!("{:?} {e}", e.kind())),
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn https_with_a_certificate_of_ones_own() {
    let variable = |name| env::var(name).expect("`tests/run.sh azure` starts an Azurite with https, too");
    let [endpoint, certificate] = ["LEASEHOLD_AZURITE_HTTPS", "LEASEHOLD_AZURITE_CERTIFICATE"].map(variable);
    let container = fresh_container();
    let arguments = [&*endpoint, &*container];
    assert_eq!(start_trusting("secure", &arguments, Some(&certificate)).hear(), "Confirmed");
    let (said, took) = timed(|| start("secure", &arguments).hear());
    assert!(said.contains("certificate is not trusted"), "{said}");
    assert!(took < 10 * SECOND, "{took:?}");
    println!("without the certificate, after {took:?}: {said}");
}
