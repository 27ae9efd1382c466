//! Many processes: exact counters, killed and stopped holders.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use leasehold::{
    Error, ErrorKind, Locker, LostReason, Result, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
};

use crate::common::play;
use crate::support::{Actor, Dir, LONG, SECOND, ms};

/// What this program does as the process of another test; see `support::actor`.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| match role {
        "abort" => crate::loss::abort(),
        #[cfg(target_os = "linux")]
        "no-threads" => crate::faults::no_threads(),
        #[cfg(target_os = "linux")]
        "leaks" => crate::faults::leaks(arguments),
        "hold" => hold(arguments),
        "count" => count(arguments),
        "watch" => watch(arguments),
        "adopt" => crate::handover::adopt(arguments),
        "try" => crate::file::try_it(arguments),
        #[cfg(target_os = "linux")]
        "no-descriptors" => crate::file::no_descriptors(arguments),
        #[cfg(target_os = "linux")]
        "no-thread-of-ours" => crate::file::no_thread_of_ours(arguments),
        other => panic!("no such role: {other}"),
    });
}

/// Says a line to the test that started this process.
pub(crate) fn say(line: &str) {
    println!("\n@{line}");
    std::io::stdout().flush().unwrap();
}

/// The next line that a process says.
#[track_caller]
pub(crate) fn hear(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(from.read_line(&mut line).unwrap() > 0, "the process ended");
        if let Some(said) = line.strip_prefix('@') {
            return said.trim_end().to_owned();
        }
    }
}

pub(crate) fn ears(child: &mut Child) -> BufReader<std::process::ChildStdout> {
    BufReader::new(child.stdout.take().unwrap())
}

/// Holds a lock until its standard input ends.
fn hold(arguments: &[&str]) {
    let locker = Locker::open(arguments[0]).unwrap().holder("the child");
    let request = locker.request(arguments[1]);
    let request = if arguments.get(2) == Some(&"shared") { request.shared() } else { request };
    let guard = request.lock().unwrap();
    say("held");
    let _ = std::io::stdin().read(&mut [0; 1]);
    guard.unlock().unwrap();
}

const NUMBERS: usize = 8;

fn write_numbers(path: &Path, n: u64) {
    // Cut and written number by number: whoever looks meanwhile sees that.
    let mut file = fs::File::create(path).unwrap();
    for _ in 0..NUMBERS {
        writeln!(file, "{n}").unwrap();
    }
}

fn read_numbers(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers.len(), NUMBERS, "half written: {text:?}");
    assert!(numbers.iter().all(|n| *n == numbers[0]), "half written: {text:?}");
    numbers[0]
}

/// Adds to the number in a file, in some threads; every fifth turn reads beside others.
fn count(arguments: &[&str]) {
    let path = Path::new(arguments[1]);
    let (threads, turns): (u32, u32) = (arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
    let locker = Locker::open(arguments[0]).unwrap();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut last = 0;
                for turn in 0..turns {
                    let guard = locker.request("counter").fenced().lock().unwrap();
                    assert!(guard.fencing_token().unwrap() > last);
                    last = guard.fencing_token().unwrap();
                    write_numbers(path, read_numbers(path) + 1);
                    drop(guard);
                    if turn % 5 == 0 {
                        let guard = locker.request("counter").shared().lock().unwrap();
                        assert!(guard.fencing_token().unwrap() > last);
                        read_numbers(path);
                    }
                }
            });
        }
    });
}

#[test]
fn eight_processes_of_four_threads_count_exactly() {
    let dir = Dir::new("count");
    let (numbers, address) = (dir.join("numbers"), format!("file:{}", dir.join("locks").display()));
    write_numbers(&numbers, 0);
    let (processes, threads, turns) = (8, 4, 625);
    let arguments = [&address, numbers.to_str().unwrap(), &threads.to_string(), &turns.to_string()];
    let mut actors: Vec<Actor> = (0..processes).map(|_| Actor::start("count", &arguments)).collect();
    for actor in &mut actors {
        // What it prints is dropped, so that a full pipe stops nobody.
        let mut said = actor.0.stdout.take().unwrap();
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    }
    for actor in &mut actors {
        assert!(actor.0.wait().unwrap().success(), "an assertion failed in a process");
    }
    assert_eq!(read_numbers(&numbers), 20_000);
    assert_eq!(processes * threads * turns, 20_000);
}

#[cfg(unix)]
#[test]
fn a_killed_holder_leaves_the_lock_to_a_waiter_at_once() {
    let dir = Dir::new("killed");
    let address = format!("file:{}", dir.path().display());
    for timeout in [None, Some(LONG)] {
        let mut holder = Actor::start("hold", &[&address, "x"]);
        assert_eq!(hear(&mut ears(&mut holder.0)), "held");
        let locker = dir.locker();
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let guard = locker.request("x").timeout(timeout).lock();
            tell.send(Instant::now()).unwrap();
            guard.map(drop)
        });
        assert!(told.recv_timeout(ms(200)).is_err(), "it waits");
        let killed = Instant::now();
        holder.0.kill().unwrap();
        let took = told.recv_timeout(LONG).unwrap() - killed;
        assert!(took <= ms(50), "{took:?}");
    }
}

/// A service of leases, for processes: a table, and a clock of its own.
#[derive(Default)]
pub(crate) struct Service(Mutex<std::collections::HashMap<String, (String, Instant, u64)>>);

impl Service {
    pub(crate) fn start() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Self::default());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let service = service.clone();
                thread::spawn(move || service.serve(&stream.unwrap()));
            }
        });
        address
    }

    fn serve(&self, stream: &TcpStream) {
        let mut to = stream;
        for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
            writeln!(to, "{}", self.answer(&line)).unwrap();
        }
    }

    fn answer(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let [verb, name, id, ttl] = words[..] else { panic!("{line}") };
        let (now, until) = (Instant::now(), Instant::now() + ms(ttl.parse().unwrap()));
        let mut table = self.0.lock().unwrap();
        let entry = table.entry(name.to_owned()).or_insert((String::new(), now, 0));
        let (free, ours) = (entry.1 <= now, entry.0 == id && entry.1 > now);
        match verb {
            "acquire" if free || ours => *entry = (id.to_owned(), until, entry.2 + u64::from(!ours)),
            "renew" if ours => entry.1 = until,
            "release" if ours => entry.1 = now,
            // The id is the old one and the new one.
            "change" => {
                let (old, new) = id.split_once('>').unwrap();
                if free || (entry.0 != old && entry.0 != new) {
                    return "no".to_owned();
                }
                *entry = (new.to_owned(), until, entry.2);
            }
            _ => return "no".to_owned(),
        }
        entry.2.to_string()
    }
}

/// That service as a store.
#[derive(Clone)]
pub(crate) struct Remote(pub(crate) String);

impl Remote {
    fn ask(&self, line: &str, call: &Call) -> std::io::Result<Option<u64>> {
        let mut stream = TcpStream::connect(&self.0)?;
        stream.set_read_timeout(Some(call.remaining().max(ms(1))))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim().parse().ok())
    }
}

fn down(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, e)
}

struct Lent {
    remote: Remote,
    words: String,
}

impl Backend for Remote {
    fn abilities(&self) -> Abilities {
        Abilities::default().ttls(ms(500)..=LONG).fencing()
    }
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let since = ask.call().now();
        let words = format!("{} {} {}", ask.name(), ask.id(), ask.ttl().unwrap().as_millis());
        let granted = self.ask(&format!("acquire {words}"), ask.call()).map_err(down)?;
        Ok(match granted {
            None => Attempt::Busy(Busy::default()),
            Some(token) => {
                let lent = Lent { remote: self.clone(), words };
                Attempt::Granted(Grant::new(lent, since).fencing_token(token).lease_id(ask.id()))
            }
        })
    }
    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        let since = ask.call().now();
        let ttl = ask.ttl().unwrap().as_millis();
        let change = format!("change {} {}>{} {ttl}", ask.name(), ticket.lease_id(), ask.id());
        if self.ask(&change, ask.call()).map_err(down)?.is_none() {
            return Err(Error::lost(LostReason::Taken));
        }
        let words = format!("{} {} {ttl}", ask.name(), ask.id());
        Ok(Grant::new(Lent { remote: self.clone(), words }, since).lease_id(ask.id()))
    }
}

impl Lease for Lent {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let since = call.now();
        match self.remote.ask(&format!("renew {}", self.words), call).map_err(down)? {
            Some(_) => Ok(since),
            None => Err(Error::lost(LostReason::Taken)),
        }
    }
    fn release(&mut self, call: &Call) -> Result<()> {
        match self.remote.ask(&format!("release {}", self.words), call).map_err(down)? {
            Some(_) => Ok(()),
            None => Err(Error::lost(LostReason::Taken)),
        }
    }
    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(String::new())
    }
}

/// Nanoseconds on a clock that is one for all processes.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// Holds a lease and looks at it all the time; says when it last was held.
fn watch(arguments: &[&str]) {
    let locker = Locker::new(Remote(arguments[0].to_owned())).ttl(ms(1500));
    let guard = locker.request("x").fenced().lock().unwrap();
    say(&guard.fencing_token().unwrap().to_string());
    let mut last = 0;
    loop {
        let before = now();
        if !guard.is_held() {
            break;
        }
        last = before;
        thread::yield_now();
    }
    let reason = guard.check().unwrap_err().lost_reason();
    say(&format!("{last} {reason:?}"));
    assert_eq!(guard.unlock().unwrap_err().kind(), ErrorKind::Lost);
}

#[cfg(unix)]
#[test]
fn a_stopped_holder_finds_its_lease_lost_before_its_code_can_act_on_it() {
    use rustix::process::{Pid, Signal, kill_process};
    let service = Service::start();
    let mut holder = Actor::start("watch", &[&service]);
    let mut said = ears(&mut holder.0);
    let first: u64 = hear(&mut said).parse().unwrap();
    let pid = Pid::from_child(&holder.0);
    let locker = Locker::new(Remote(service));
    // Renewed while it runs: longer than its TTL.
    assert_eq!(
        locker.request("x").ttl(SECOND).timeout(2 * SECOND).lock().map(drop).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    kill_process(pid, Signal::STOP).unwrap();
    let next = locker.request("x").timeout(LONG).lock().unwrap();
    let taken = now();
    assert!(next.fencing_token().unwrap() > first);
    // So long that it would notice nothing by a timer that ran on.
    thread::sleep(ms(300));
    kill_process(pid, Signal::CONT).unwrap();
    let lost = hear(&mut said);
    let (held_at, reason) = lost.split_once(' ').unwrap();
    assert!(held_at.parse::<u64>().unwrap() < taken, "it said held beside the next holder");
    assert_eq!(reason, "Some(Expired)");
    assert!(holder.0.wait().unwrap().success());
    assert!(next.is_held(), "its late release freed nobody else's lock");
}

#[cfg(unix)]
#[test]
fn a_killed_holder_of_a_lease_leaves_it_within_its_ttl() {
    let service = Service::start();
    let mut holder = Actor::start("watch", &[&service]);
    hear(&mut ears(&mut holder.0));
    let locker = Locker::new(Remote(service));
    assert!(locker.try_lock("x").unwrap().is_none());
    holder.0.kill().unwrap();
    let start = Instant::now();
    let _guard = locker.request("x").timeout(LONG).lock().unwrap();
    let took = start.elapsed();
    assert!(took <= 3 * SECOND, "{took:?}");
}
