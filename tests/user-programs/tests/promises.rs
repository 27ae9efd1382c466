//! What each of the programs promises, seen from outside: they are started, looked at in `/proc`, and killed.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use leasehold::{Locker, azure, file};
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    process::{Pid, Signal, kill_process, test_kill_process},
};

/// Nothing that is waited for here takes longer, unless it is broken.
const SOON: Duration = Duration::from_secs(30);

const BACKEND: &str = env!("CARGO_BIN_EXE_backend");
const BUILD_RS: &str = env!("CARGO_BIN_EXE_build_rs");
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");
const LEADER: &str = env!("CARGO_BIN_EXE_leader");
const MIGRATION: &str = env!("CARGO_BIN_EXE_migration");
const RUN_LOCKED: &str = env!("CARGO_BIN_EXE_run_locked");
const TEST: &str = env!("CARGO_BIN_EXE_test");

/// An empty directory, gone when the test is.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn address(&self) -> String {
        format!("file:{}", self.0.display())
    }

    fn locker(&self) -> Locker {
        Locker::new(file::Store::new(&self.0)).holder("the test")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that runs; killed if the test ends before it does.
struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Types a line for it.
    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn next_out(&self) -> String {
        self.out.recv_timeout(SOON).expect("a line on stdout")
    }

    fn next_err(&self) -> String {
        self.err.recv_timeout(SOON).expect("a line on stderr")
    }

    fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).unwrap();
    }

    /// Waits until it has opened a lock file: a lock that is held is waited for then.
    fn comes_for(&self, lock_file: &str) {
        until("a program that wants the lock", || {
            let open = fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?;
            let mut files = open.flatten().flat_map(|entry| fs::read_link(entry.path()));
            files.find(|file| file.ends_with(lock_file))
        });
    }

    /// Its exit status.
    fn end(&mut self) -> Option<i32> {
        self.end_within(SOON)
    }

    fn end_within(&mut self, time: Duration) -> Option<i32> {
        until_within(time, "the end of the program", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl io::Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
    told
}

/// Looks again and again until there is something.
fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(SOON, what, look)
}

fn until_within<T>(time: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + time;
    loop {
        match look() {
            Some(found) => return found,
            None => assert!(Instant::now() < end, "no sign of {what}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a short program to its end: its exit status, and what it said on stderr.
fn ends(command: &mut Command) -> (Option<i32>, Vec<String>) {
    let mut run = Running::start(command);
    (run.end(), run.err.iter().collect())
}

fn status_of(command: &mut Command) -> Option<i32> {
    ends(command).0
}

#[test]
fn backend_locks_in_memory_and_in_a_store_of_its_own() {
    assert_eq!(status_of(&mut Command::new(BACKEND)), Some(0));
    assert_eq!(status_of(Command::new(BACKEND).arg("custom")), Some(0));
}

#[test]
fn test_shows_what_a_loss_does() {
    assert_eq!(status_of(&mut Command::new(TEST)), Some(0));
}

#[test]
fn build_rs_generates_what_is_missing_and_leaves_what_is_there() {
    let dir = Dir::new("generates");
    let out = dir.0.join("gen.rs");
    assert_eq!(status_of(Command::new(BUILD_RS).env("OUT_DIR", &dir.0)), Some(0));
    assert_eq!(fs::read_to_string(&out).unwrap(), "pub const X: u32 = 1;");
    fs::write(&out, "touched").unwrap();
    assert_eq!(status_of(Command::new(BUILD_RS).env("OUT_DIR", &dir.0)), Some(0));
    assert_eq!(fs::read_to_string(&out).unwrap(), "touched");
}

#[test]
fn build_rs_generates_once_in_two_runs_at_once() {
    let dir = Dir::new("generates-once");
    let held = dir.locker().lock("gen").unwrap();
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &dir.0, WatchFlags::CLOSE_WRITE).unwrap();
    let mut runs = [0; 2].map(|_| Running::start(Command::new(BUILD_RS).env("OUT_DIR", &dir.0)));
    for run in &runs {
        run.comes_for("gen.lock");
    }
    assert!(!dir.0.join("gen.rs").exists(), "nothing is generated without the lock");
    held.unlock().unwrap();
    for run in &mut runs {
        assert_eq!(run.end(), Some(0));
    }
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut writes = 0;
    while let Ok(event) = events.next() {
        writes += usize::from(event.file_name().is_some_and(|name| name.to_bytes() == b"gen.rs"));
    }
    assert_eq!(writes, 1);
    assert_eq!(fs::read_to_string(dir.0.join("gen.rs")).unwrap(), "pub const X: u32 = 1;");
}

#[test]
fn handover_says_why_a_file_lock_stays_and_leaves_it_free() {
    let dir = Dir::new("stays");
    let (status, said) = ends(Command::new(HANDOVER).env("LEASE_STORE", dir.address()));
    assert_eq!(status, Some(1));
    let begin =
        "Error: lock \"deploy\": detach: not supported: this store cannot hand a lock over: the kernel keeps";
    assert!(said.concat().starts_with(begin), "{said:?}");
    assert!(dir.locker().try_lock("deploy").unwrap().is_some(), "released");
}

#[test]
fn handover_says_what_is_wrong_with_its_ticket() {
    let ticket = Locker::open("memory:").unwrap().lock("deploy").unwrap().detach().unwrap().to_string();
    let adopt = |ticket: &str| {
        let mut command = Command::new(HANDOVER);
        ends(command.env("LEASE_STORE", "memory:").env("LEASE_TICKET", ticket))
    };
    for (ticket, says) in [
        ("", "read a ticket: wrong setting: it is empty"),
        ("hello", "it does not begin with `leasehold-ticket:`"),
        (&ticket[..ticket.len() - 3], "it is cut short"),
        (&ticket.replace("deploy", "destroy"), "it was changed on its way"),
        (&ticket, "the ticket is of another memory store"),
    ] {
        let (status, said) = adopt(ticket);
        assert_eq!(status, Some(1));
        assert!(said.concat().contains(says), "{said:?}");
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh users"]
fn handover_passes_the_lock_to_its_child() {
    let endpoint =
        env::var("LEASEHOLD_AZURITE").expect("`tests/run.sh users` starts Azurite and says where it is");
    let account = "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/\
                   K1SZFPTOtr/KBHBeksoGMGw==";
    let account = format!("{account};BlobEndpoint={endpoint}");
    let container = format!("handover-{}", std::process::id());
    let locker = azure::Account::from_connection_string(&account).unwrap().container(&container);
    let locker = Locker::new(locker.create_container(true).build().unwrap());
    for _ in 0..2 {
        let mut command = Command::new(HANDOVER);
        command
            .env("AZURE_STORAGE_CONNECTION_STRING", &account)
            .env("LEASE_STORE", format!("azure:{container}"));
        let mut parent = Running::start(&mut command);
        assert_eq!(parent.end(), Some(0));
        assert_eq!(parent.next_out(), "child holds deploy token None");
        // The end of what the child writes is that of the child.
        assert!(parent.err.iter().next().is_none());
        assert!(locker.try_lock("deploy").unwrap().is_some(), "released");
    }
}

#[test]
fn leader_is_elected_in_memory() {
    let leader = Running::start(Command::new(LEADER).arg("memory:"));
    assert_eq!(leader.next_out(), "leading");
}

#[test]
fn leader_is_followed_when_it_is_killed() {
    let dir = Dir::new("followed");
    let mut first = Running::start(Command::new(LEADER).arg(dir.address()));
    assert_eq!(first.next_out(), "leading");
    let second = Running::start(Command::new(LEADER).arg(dir.address()));
    second.comes_for("leader.lock");
    let leads = || dir.locker().status("leader").unwrap().holders().first().and_then(leasehold::Holder::pid);
    assert_eq!(until("the first leader", leads), first.child.id());
    assert!(second.out.try_recv().is_err(), "one leader at a time");
    first.child.kill().unwrap();
    assert_eq!(second.next_out(), "leading");
    until("the second leader", || (leads() == Some(second.child.id())).then_some(()));
}

#[test]
fn leader_steps_down_on_a_loss_and_stands_again() {
    let dir = Dir::new("steps-down");
    let leader = Running::start(Command::new(LEADER).arg(dir.address()));
    assert_eq!(leader.next_out(), "leading");
    fs::remove_file(dir.0.join("leader.lock")).unwrap();
    let why = leader.next_err();
    assert!(why.starts_with("stepped down: lock \"leader\": lost: "), "{why}");
    assert_eq!(leader.next_out(), "leading");
    assert!(dir.locker().try_lock("leader").unwrap().is_none());
}

#[test]
fn migration_runs_with_a_token() {
    let dir = Dir::new("migrates");
    // Without a token it fails.
    for address in [&dir.address(), "memory:"] {
        assert_eq!(ends(Command::new(MIGRATION).arg(address)), (Some(0), Vec::new()));
    }
}

#[test]
fn migration_says_whom_it_waits_for_and_goes_on() {
    let dir = Dir::new("waits");
    let held = dir.locker().lock("migration").unwrap();
    let mut migration = Running::start(Command::new(MIGRATION).arg(dir.address()));
    let waiting = migration.next_err();
    assert!(waiting.starts_with("waiting for lock \"migration\", held by \"the test\" (pid "), "{waiting}");
    assert_eq!(migration.child.try_wait().unwrap(), None);
    held.unlock().unwrap();
    assert_eq!(migration.end(), Some(0));
}

#[test]
#[ignore = "takes the minute that the program waits"]
fn migration_gives_up_after_its_timeout() {
    let dir = Dir::new("gives-up");
    let _held = dir.locker().lock("migration").unwrap();
    let mut migration = Running::start(Command::new(MIGRATION).arg(dir.address()));
    assert_eq!(migration.end_within(Duration::from_secs(60) + SOON), Some(75));
    let last = migration.err.iter().last().unwrap();
    let begin = "lock \"migration\": not to be had in time, waited 60 s, held by \"the test\" (pid ";
    assert!(last.starts_with(begin), "{last}");
}

#[test]
fn migration_says_what_is_wrong_with_its_address() {
    for (arguments, says) in [(&[][..], "address?"), (&["redis:x"], "scheme")] {
        let (status, said) = ends(Command::new(MIGRATION).args(arguments));
        assert_eq!(status, Some(1));
        assert!(said.concat().contains(says), "{said:?}");
    }
}

#[test]
fn run_locked_passes_the_exit_status_and_tells_the_child_of_the_lock() {
    let dir = Dir::new("passes");
    for status in [0, 3] {
        let mut run = Running::start(Command::new(RUN_LOCKED).current_dir(&dir.0));
        run.say(&format!("echo $LEASEHOLD_NAME $LEASEHOLD_FENCING_TOKEN; exit {status}"));
        let told = run.next_out();
        let token = told.strip_prefix("demo ").and_then(|token| token.parse::<u64>().ok());
        assert!(token.is_some_and(|token| token > 0), "{told}");
        assert_eq!(run.end(), Some(status));
    }
}

/// Starts it with a child that goes on until it is killed, and waits for both.
fn run_locked(dir: &Dir) -> (Running, Pid) {
    let mut run = Running::start(Command::new(RUN_LOCKED).current_dir(&dir.0));
    run.say("echo $$");
    let child = Pid::from_raw(run.next_out().parse().unwrap()).unwrap();
    (run, child)
}

#[test]
fn run_locked_ends_its_child_before_the_lock_goes_on_ctrl_c() {
    let dir = Dir::new("ctrl-c");
    let (mut run, child) = run_locked(&dir);
    let locker = Locker::new(file::Store::new(dir.0.join("locks")));
    assert!(locker.try_lock("demo").unwrap().is_none(), "it has the lock");
    let next = thread::spawn(move || {
        let _guard = locker.request("demo").timeout(SOON).lock().unwrap();
        assert!(test_kill_process(child).is_err(), "the child is gone when the next holder comes");
    });
    run.interrupt();
    assert_eq!(run.end(), Some(130));
    assert_eq!(run.next_err(), "lock \"demo\": the shutdown signal came");
    next.join().unwrap();
}

#[test]
fn run_locked_ends_its_child_on_a_loss() {
    let dir = Dir::new("loss");
    let (mut run, child) = run_locked(&dir);
    fs::remove_file(dir.0.join("locks/demo.lock")).unwrap();
    assert_eq!(run.end(), Some(76));
    assert!(run.next_err().starts_with("lock \"demo\": lost: "));
    assert!(test_kill_process(child).is_err(), "the child is gone");
}

#[test]
fn run_locked_stops_waiting_on_ctrl_c() {
    let dir = Dir::new("ctrl-c-waits");
    let held = Locker::new(file::Store::new(dir.0.join("locks"))).holder("the test").lock("demo").unwrap();
    let mut run = Running::start(Command::new(RUN_LOCKED).current_dir(&dir.0));
    let waiting = run.next_err();
    assert!(waiting.starts_with("waiting for lock \"demo\", held by \"the test\" (pid "), "{waiting}");
    run.interrupt();
    assert_eq!(run.end(), Some(69));
    assert_eq!(run.next_err(), "lock \"demo\": the shutdown signal came");
    held.unlock().unwrap();
}
