//! The example programs, as users run them.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "those are for the library; a test waits for other processes")]

#[path = "common/example.rs"]
mod example;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use example::example;
use rustix::process::{Pid, Signal, kill_process};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// What keeps a lock until its stdin is closed.
const KEEP: [&str; 3] = ["sh", "-c", "echo ready; cat > /dev/null"];

/// A directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("leasehold-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(unique);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `run_locked [OPTIONS] file:DIR/locks NAME COMMAND`.
    fn run_locked(&self, options: &[&str], name: &str, command: &[&str]) -> Process {
        let mut line = example("run_locked");
        let address = format!("file:{}", self.path("locks").display());
        line.args(options).args([&address, name]).args(command).current_dir(&self.0);
        Process::start(&mut line)
    }

    /// A `run_locked` that has the lock, until its stdin is closed.
    fn holder(&self, options: &[&str], name: &str) -> Process {
        let mut holder = self.run_locked(options, name, &KEEP);
        holder.out.until("ready");
        holder
    }

    fn is_free(&self, name: &str) -> bool {
        match self.run_locked(&["--try"], name, &["true"]).end().code {
            0 => true,
            75 => false,
            code => panic!("--try gave {code}"),
        }
    }

    fn wait_for(&self, name: &str) {
        wait_until(name, || self.path(name).exists());
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that does not outlive its test.
struct Process {
    child: Child,
    out: Lines,
    err: Lines,
    began: Instant,
}

/// How a process ended.
#[derive(Debug)]
struct End {
    code: i32,
    out: String,
    err: String,
    took: Duration,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = piped.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let out = Lines::of(child.stdout.take().unwrap());
        let err = Lines::of(child.stderr.take().unwrap());
        Self { child, out, err, began }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn type_in(&mut self, text: &str) {
        self.child.stdin.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Closes its stdin and waits for its end. A shell's `$?` for a signal.
    fn end(mut self) -> End {
        use std::os::unix::process::ExitStatusExt;
        self.close_stdin();
        let mut status = None;
        wait_until("the end of a process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let took = self.began.elapsed();
        let code = status.and_then(|s| s.code().or(s.signal().map(|n| 128 + n))).unwrap();
        End { code, out: self.out.all(), err: self.err.all(), took }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process prints, line by line.
struct Lines {
    coming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (tell, coming) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self { coming, seen: Vec::new() }
    }

    fn next(&mut self) -> String {
        let line = self.coming.recv_timeout(LONG);
        let line = line.unwrap_or_else(|e| panic!("no more lines ({e}) after {:#?}", self.seen));
        self.seen.push(line.clone());
        line
    }

    /// The first line that contains this.
    fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.next();
            if line.contains(part) {
                return line;
            }
        }
    }

    /// All of them. Whoever has the pipe must have gone by now.
    fn all(&mut self) -> String {
        loop {
            match self.coming.recv_timeout(LONG) {
                Ok(line) => self.seen.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.seen.join("\n"),
                Err(e) => panic!("the pipe is still open ({e}) after {:#?}", self.seen),
            }
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs; nobody may have asked yet how it ended.
#[cfg(target_os = "linux")]
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("X", |(_, state)| state);
    !state.starts_with(['Z', 'X'])
}

/// Whether whoever started the tests had this signal ignored, as shells do with INT behind an `&` in a script: then
/// all that they start ignores it too.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    mask >> (signal.as_raw() - 1) & 1 == 1
}

fn shell(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

mod commands {
    use super::*;

    #[test]
    fn its_exit_status_is_ours() {
        let dir = Dir::new();
        for code in [0, 1, 7, 64, 255] {
            let end = dir.run_locked(&[], "n", &shell(&format!("exit {code}"))).end();
            assert_eq!((end.code, end.err.as_str()), (code, ""));
        }
        for (signal, code) in [("KILL", 137), ("TERM", 143), ("USR1", 138)] {
            let end = dir.run_locked(&[], "n", &shell(&format!("kill -{signal} $$"))).end();
            assert_eq!((end.code, end.err.as_str()), (code, ""));
        }
        assert!(dir.is_free("n"));
    }

    #[test]
    fn one_that_cannot_be_run() {
        let dir = Dir::new();
        fs::write(dir.path("text"), "no program\n").unwrap();
        for (command, code) in [("none-such", 127), ("./none-such", 127), ("./text", 126), (".", 126)] {
            let end = dir.run_locked(&[], "n", &[command]).end();
            assert_eq!(end.code, code, "{command}: {end:?}");
            assert!(end.err.contains(&format!("cannot run {command}: ")), "{end:?}");
        }
        assert!(dir.is_free("n"));
    }

    #[test]
    fn learns_the_name_and_a_token_that_grows() {
        let dir = Dir::new();
        let mut last = 0;
        for options in [&[][..], &[], &["--shared"], &[]] {
            let script = shell("echo $LEASEHOLD_NAME; echo $LEASEHOLD_FENCING_TOKEN");
            let end = dir.run_locked(options, "a b/C", &script).end();
            let (name, token) = end.out.split_once('\n').expect("two lines");
            assert_eq!(name, "a b/C");
            let token: u64 = token.parse().unwrap();
            assert!(token > last, "{token} after {last}");
            last = token;
        }
    }

    #[test]
    fn gets_all_that_follows_it() {
        let dir = Dir::new();
        let args = ["printf", "%s,", "--try", "--timeout", "--", "-x", "", "--help"];
        for options in [&[][..], &["--"], &["--quiet", "--"]] {
            let end = dir.run_locked(options, "n", &args).end();
            assert_eq!((end.code, end.out.as_str()), (0, "--try,--timeout,--,-x,,--help,"));
        }
        let end = dir.run_locked(&[], "n", &[&["--"], &args[..]].concat()).end();
        assert_eq!(end.out, "--try,--timeout,--,-x,,--help,");
        let end = dir.run_locked(&[], "n", &["--timeout", "1", "echo", "x"]).end();
        assert_eq!(end.out, "x", "an option may stand behind NAME too");
    }

    #[test]
    fn reads_our_stdin() {
        let dir = Dir::new();
        let mut cat = dir.run_locked(&[], "n", &["cat"]);
        cat.type_in("one\ntwo\n");
        assert_eq!(cat.end().out, "one\ntwo");
    }
}

mod waits {
    use super::*;

    #[test]
    fn not_at_all_with_try() {
        let dir = Dir::new();
        let holder = dir.holder(&[], "n");
        let end = dir.run_locked(&["--try"], "n", &["touch", "ran"]).end();
        assert_eq!((end.code, end.out.as_str()), (75, ""));
        assert!(
            end.err.contains(&format!("pid {},", holder.pid())) && end.err.contains("run_locked sh"),
            "{end:?}"
        );
        assert_eq!(end.err.lines().count(), 1);
        let end = dir.run_locked(&["--try", "--quiet"], "n", &["touch", "ran"]).end();
        assert_eq!((end.code, end.err.as_str()), (75, ""));
        assert!(!dir.path("ran").exists());
        assert!(dir.is_free("other"));
        assert_eq!(holder.end().code, 0);
        assert!(dir.is_free("n"));
    }

    #[test]
    fn until_the_timeout() {
        let dir = Dir::new();
        let holder = dir.holder(&[], "n");
        for timeout in ["0", "0.3", "1.5"] {
            for quiet in [&[][..], &["--quiet"]] {
                let end =
                    dir.run_locked(&[&["--timeout", timeout], quiet].concat(), "n", &["touch", "ran"]).end();
                let wanted = Duration::from_secs_f64(timeout.parse().unwrap());
                assert_eq!(end.code, 75);
                assert!((wanted..wanted + Duration::from_secs(1)).contains(&end.took), "{end:?}");
                let last = end.err.lines().last().unwrap_or_default();
                let names = last.contains(&format!("pid {},", holder.pid()));
                assert_eq!((names, end.err.is_empty()), (quiet.is_empty(), !quiet.is_empty()), "{end:?}");
            }
        }
        assert!(!dir.path("ran").exists());
    }

    /// The library tells it after 0.5 s, and again after 10 s.
    #[test]
    fn and_says_so_once() {
        let dir = Dir::new();
        let holder = dir.holder(&[], "n");
        let mut waiter = dir.run_locked(&["--timeout", "11"], "n", &["true"]);
        let said = waiter.err.until("waiting");
        assert!((400..3000).contains(&waiter.began.elapsed().as_millis()));
        assert!(said.contains("\"n\"") && said.contains(&format!("pid {},", holder.pid())), "{said}");
        let end = waiter.end();
        assert_eq!((end.code, end.err.matches("waiting").count()), (75, 1), "{end:?}");
    }

    #[test]
    fn and_gets_the_lock_when_it_is_free() {
        let dir = Dir::new();
        let holder = dir.holder(&[], "n");
        let mut waiter = dir.run_locked(&[], "n", &["echo", "mine"]);
        waiter.err.until("waiting");
        assert_eq!(holder.end().code, 0);
        assert_eq!(waiter.out.next(), "mine");
        assert_eq!(waiter.end().code, 0);
    }

    #[test]
    fn not_for_another_who_shares() {
        let dir = Dir::new();
        let try_it = |options: &[&str]| dir.run_locked(options, "n", &["true"]).end().code;
        let one = dir.holder(&["--shared"], "n");
        let two = dir.holder(&["--shared", "--try"], "n");
        assert_eq!((try_it(&["--shared", "--try"]), try_it(&["--try"])), (0, 75));
        assert_eq!(one.end().code, 0);
        assert_eq!(try_it(&["--try"]), 75, "two has it still");
        assert_eq!(two.end().code, 0);
        let _exclusive = dir.holder(&[], "n");
        assert_eq!(try_it(&["--shared", "--try"]), 75);
    }
}

mod refuses {
    use super::*;

    fn run(args: &[&str]) -> End {
        Process::start(example("run_locked").args(args)).end()
    }

    #[test]
    fn wrong_usage() {
        let long = "x".repeat(10_000);
        for (args, says) in [
            (&[][..], "ADDRESS is missing"),
            (&["memory:"], "NAME is missing"),
            (&["memory:", "n"], "COMMAND is missing"),
            (&["memory:", "n", "--"], "COMMAND is missing"),
            (&["--quiet"], "ADDRESS is missing"),
            (&["--nonsense", "memory:", "n", "true"], "--nonsense"),
            (&["-x", "memory:", "n", "true"], "-x"),
            (&["memory:", "n", "--nonsense", "true"], "--nonsense"),
            (&["--timeout"], "--timeout needs SECONDS"),
            (&["--ttl"], "--ttl needs SECONDS"),
            (&["--timeout", "-1", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "nan", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "inf", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "1e400", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "99999999999999999999", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "1000000001", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", ".", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "5s", "memory:", "n", "true"], "--timeout takes"),
            (&["--timeout", "1.2.3", "memory:", "n", "true"], "--timeout takes"),
            (&["--ttl", "-0.5", "memory:", "n", "true"], "--ttl takes"),
            (&["--ttl", "--try", "memory:", "n", "true"], "--ttl takes"),
            (&["--try", "--timeout", "1", "memory:", "n", "true"], "--try does not wait"),
            (&["--ttl", "0", "memory:", "n", "true"], "TTL"),
            (&["--ttl", "1000000000", "memory:", "n", "true"], "TTL"),
            (&["", "n", "true"], "scheme"),
            (&["/tmp", "n", "true"], "scheme"),
            (&["redis:x", "n", "true"], "scheme"),
            (&["file:", "n", "true"], "directory"),
            (&["memory:x", "n", "true"], "memory:"),
            (&["memory:", "", "true"], "empty"),
            (&["file:/nowhere", "", "true"], "empty"),
            (&["file:/nowhere", &long, "true"], "10000 bytes"),
        ] {
            let end = run(args);
            assert_eq!((end.code, end.out.as_str()), (64, ""), "{args:?}: {end:?}");
            assert!(end.err.contains(says), "{args:?}: {end:?}");
        }
        assert!(run(&[]).err.contains("usage: run_locked"));
    }

    #[test]
    fn what_is_no_utf8() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let odd = OsStr::from_bytes(b"\xff");
        for args in [[odd, "n".as_ref(), "true".as_ref()], ["memory:".as_ref(), odd, "true".as_ref()]] {
            let end = Process::start(example("run_locked").args(args)).end();
            assert_eq!(end.code, 64, "{end:?}");
            assert!(end.err.contains("UTF-8"), "{end:?}");
        }
        let mut echo = example("run_locked");
        assert_eq!(Process::start(echo.args(["memory:", "n", "test", "-n"]).arg(odd)).end().code, 0);
    }

    #[test]
    fn a_store_that_cannot_be_used() {
        let dir = Dir::new();
        fs::write(dir.path("locks"), "a regular file").unwrap();
        let end = dir.run_locked(&[], "n", &["touch", "ran"]).end();
        assert!(matches!(end.code, 64 | 69) && end.err.contains("locks"), "{end:?}");
        fs::remove_file(dir.path("locks")).unwrap();

        fs::create_dir(dir.path("locks")).unwrap();
        fs::write(dir.path("locks/n.lock"), "4711\n").unwrap();
        let end = dir.run_locked(&[], "n", &["touch", "ran"]).end();
        assert!(end.code == 69 && end.err.contains("4711"), "{end:?}");
        assert_eq!(fs::read(dir.path("locks/n.lock")).unwrap(), b"4711\n");
        assert!(!dir.path("ran").exists());
    }

    #[test]
    fn no_odd_name() {
        let dir = Dir::new();
        for name in ["../x", "..", ".", "/etc/passwd", "a/b", "ü x\n", "%41", "A", "a", "nul", "*"] {
            let holder = dir.holder(&[], name);
            assert!(!dir.is_free(name), "{name}");
            assert_eq!(holder.end().code, 0);
        }
        assert_eq!(dir.run_locked(&["--"], "--try", &["true"]).end().code, 0);
        let entries: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["locks"], "nothing beside the directory of the locks");
        assert_eq!(fs::read_dir(dir.path("locks")).unwrap().count(), 12);
    }

    #[test]
    fn nothing_that_help_does_not_tell() {
        let end = run(&["--help"]);
        assert_eq!((end.code, end.err.as_str()), (0, ""));
        assert_eq!(run(&["--try", "-h", "memory:"]).out, end.out);
        for part in ["--shared", "--try", "--timeout SECONDS", "--ttl SECONDS", "--quiet", "--help"] {
            assert!(end.out.contains(&format!("\n  {part} ")), "{part}");
        }
        for code in [64, 69, 75, 76, 126, 127] {
            assert!(end.out.lines().any(|line| line.trim_start().starts_with(&code.to_string())), "{code}");
        }
        for part in ["128 + n", "LEASEHOLD_NAME", "LEASEHOLD_FENCING_TOKEN", "file:DIR", "memory:", "kill -9"]
        {
            assert!(end.out.contains(part), "{part}");
        }
        assert!(end.out.lines().all(|line| line.len() <= 110), "fits on a screen");
    }
}

mod signals {
    use super::*;

    fn signals() -> impl Iterator<Item = (Signal, &'static str, i32)> {
        let all = [(Signal::TERM, "TERM", 143), (Signal::INT, "INT", 130), (Signal::HUP, "HUP", 129)];
        all.into_iter().filter(|(signal, ..)| !is_ignored(*signal))
    }

    #[test]
    fn end_a_wait() {
        let dir = Dir::new();
        let _holder = dir.holder(&[], "n");
        for (signal, name, code) in signals() {
            let mut waiter = dir.run_locked(&[], "n", &["touch", "ran"]);
            waiter.err.until("waiting");
            let sent = Instant::now();
            waiter.signal(signal);
            let end = waiter.end();
            assert!(sent.elapsed() < Duration::from_secs(1), "{name}");
            assert_eq!((end.code, end.err.lines().count()), (code, 1), "{name}: {end:?}");
        }
        assert!(!dir.path("ran").exists());
    }

    #[test]
    fn go_to_the_command_which_keeps_the_lock() {
        let dir = Dir::new();
        for (signal, name, _) in signals() {
            let script = format!(
                "n=0; trap 'n=$((n + 1)); touch {name}.$n' {name}; echo ready
                 while ! [ -e end.{name} ]; do sleep 0.01; done; exit 9"
            );
            let mut running = dir.run_locked(&[], "n", &shell(&script));
            running.out.until("ready");
            for nth in ["1", "2"] {
                running.signal(signal);
                dir.wait_for(&format!("{name}.{nth}"));
                assert!(!dir.is_free("n"), "{name}");
            }
            fs::write(dir.path(&format!("end.{name}")), "").unwrap();
            let end = running.end();
            assert_eq!(end.code, 9);
            assert!(!end.err.contains("run_locked:"), "{end:?}");
            assert!(dir.is_free("n"));
        }
    }

    #[test]
    fn reach_the_whole_group_of_a_command() {
        let dir = Dir::new();
        for (signal, name, code) in signals() {
            let script = "sh -c 'echo ready; while :; do sleep 0.01; done' | cat; echo survived";
            let mut running = dir.run_locked(&[], "n", &shell(script));
            running.out.until("ready");
            running.signal(signal);
            // Both ends of that pipe have closed our stdout, so that it ends.
            let out = running.out.all();
            let end = running.end();
            assert_eq!((end.code, out.as_str()), (code, "ready"), "{name}");
        }
        assert!(dir.is_free("n"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn that_were_ignored_stay_so() {
        let dir = Dir::new();
        let nohup = format!(
            "trap '' HUP; exec '{}' file:locks n sh -c 'kill -HUP $PPID; kill -HUP $$; echo alive'",
            example("run_locked").get_program().display()
        );
        let end = Process::start(Command::new("sh").args(["-c", &nohup]).current_dir(&dir.0)).end();
        assert_eq!((end.code, end.out.as_str()), (0, "alive"), "{end:?}");
    }
}

/// What frees the lock while the command would like to go on.
#[cfg(target_os = "linux")]
mod loss {
    use super::*;

    #[test]
    fn killed_by_force_it_leaves_no_command_beside_the_next_holder() {
        let dir = Dir::new();
        for _ in 0..10 {
            let mut running =
                dir.run_locked(&[], "n", &shell("trap '' TERM INT HUP; echo $$; exec sleep 1000"));
            let pid = running.out.next();
            let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            wait_until("the start of sleep", || name() == "sleep\n");
            assert!(!dir.is_free("n"));
            let look = format!("grep -s ^State: /proc/{pid}/status || echo gone");
            let waiter = dir.run_locked(&["--quiet", "--timeout", "20"], "n", &shell(&look));
            running.signal(Signal::KILL);
            let seen = waiter.end();
            assert_eq!(seen.code, 0, "{seen:?}");
            // It sleeps while it lives. Killed, it is "running" to its end, but never in its own code again.
            assert!(!seen.out.contains("sleeping"), "{seen:?}");
            wait_until("the end of the command", || !runs(&pid));
            assert_eq!(running.end().code, 137);
        }
    }

    #[test]
    fn a_deleted_lock_file_ends_the_command_and_its_children() {
        let dir = Dir::new();
        let script = "trap '' TERM; sleep 1000 > /dev/null & echo $! $$; while :; do sleep 0.01; done";
        let mut running = dir.run_locked(&[], "n", &shell(script));
        let pids = running.out.next();
        fs::remove_file(dir.path("locks/n.lock")).unwrap();
        let end = running.end();
        assert_eq!(end.code, 76, "{end:?}");
        assert!(end.err.contains("lost") && end.err.contains("deleted"), "{end:?}");
        for pid in pids.split(' ') {
            wait_until("the end of the group", || !runs(pid));
        }
        assert!(dir.is_free("n"));
    }

    #[test]
    fn one_that_is_seen_at_the_end_only_is_told_too() {
        let dir = Dir::new();
        let end = dir.run_locked(&[], "n", &["rm", "locks/n.lock"]).end();
        assert_eq!(end.code, 76, "{end:?}");
        assert!(end.err.contains("deleted"), "{end:?}");
    }

    #[test]
    fn a_lock_that_ran_out_while_we_slept_ends_the_command() {
        let mut line = example("run_locked");
        let script = shell("trap '' TERM; echo $$; exec sleep 1000");
        let mut running = Process::start(line.args(["--ttl", "0.5", "memory:", "n"]).args(script));
        let pid = running.out.next();
        running.signal(Signal::STOP);
        // Not to wait for anybody: this much time has to go by.
        thread::sleep(Duration::from_millis(700));
        assert!(runs(&pid));
        running.signal(Signal::CONT);
        let end = running.end();
        assert_eq!(end.code, 76, "{end:?}");
        assert!(end.err.contains("lost") && !runs(&pid), "{end:?}");
    }
}

mod beside_flock {
    use super::*;

    fn flock(dir: &Dir, options: &[&str], command: &[&str]) -> Process {
        fs::create_dir_all(dir.path("locks")).unwrap();
        Process::start(Command::new("flock").args(options).arg(dir.path("locks/n.lock")).args(command))
    }

    #[test]
    fn it_keeps_us_out() {
        let dir = Dir::new();
        let mut holder = flock(&dir, &[], &KEEP);
        holder.out.until("ready");
        let end = dir.run_locked(&["--try"], "n", &["true"]).end();
        assert_eq!(end.code, 75);
        #[cfg(target_os = "linux")]
        assert!(end.err.contains(&format!("\"flock\" (pid {},", holder.pid())), "{end:?}");
        let mut waiter = dir.run_locked(&[], "n", &["echo", "mine"]);
        waiter.err.until("waiting");
        holder.end();
        assert_eq!(waiter.out.next(), "mine");

        let mut holder = flock(&dir, &["-s"], &KEEP);
        holder.out.until("ready");
        assert_eq!(dir.run_locked(&["--try"], "n", &["true"]).end().code, 75);
        assert_eq!(dir.run_locked(&["--try", "--shared"], "n", &["true"]).end().code, 0);
    }

    #[test]
    fn we_keep_it_out() {
        let dir = Dir::new();
        let try_it = |options: &[&str]| flock(&dir, options, &["true"]).end().code;
        let holder = dir.holder(&[], "n");
        assert_eq!((try_it(&["-n"]), try_it(&["-n", "-s"])), (1, 1));
        let mut waiter = flock(&dir, &[], &["echo", "mine"]);
        holder.end();
        assert_eq!(waiter.out.next(), "mine");
        assert_eq!(waiter.end().code, 0);
        let _holder = dir.holder(&["--shared"], "n");
        assert_eq!((try_it(&["-n"]), try_it(&["-n", "-s"])), (1, 0));
    }
}

/// On a terminal that `script(1)` makes.
#[cfg(target_os = "linux")]
mod terminal {
    use super::*;

    fn on_terminal(dir: &Dir, script: &str) -> Process {
        fs::write(
            dir.path("script"),
            script.replace("run_locked", &example("run_locked").get_program().display().to_string()),
        )
        .unwrap();
        let mut script = Command::new("script");
        Process::start(script.args(["-q", "-e", "-c", "sh script", "/dev/null"]).current_dir(&dir.0))
    }

    #[test]
    fn goes_to_the_command_and_back() {
        let dir = Dir::new();
        let script = "stty -echo; run_locked file:locks n sh -c 'read x; echo got=$x'; read y; echo after=$y";
        let mut process = on_terminal(&dir, script);
        process.type_in("one\n");
        process.out.until("got=one");
        process.type_in("two\n");
        process.out.until("after=two");
    }

    #[test]
    fn goes_in_a_pipeline_to_who_reads_it() {
        let dir = Dir::new();
        let script =
            "stty -echo; run_locked file:locks n sh -c 'read x; echo got=$x' | cat; read y; echo after=$y";
        let mut process = on_terminal(&dir, script);
        process.type_in("one\n");
        process.out.until("got=one");
        process.type_in("two\n");
        process.out.until("after=two");
    }

    #[test]
    fn interrupts_the_command() {
        if is_ignored(Signal::INT) {
            return;
        }
        let dir = Dir::new();
        // Field 8 is the foreground group of the terminal, which comes a moment after the start.
        let has_terminal =
            "until [ \"$tpgid\" = $$ ]; do read a b c d e f g tpgid rest < /proc/$$/stat; done";
        let command = format!("trap \"touch int; exit 3\" INT; {has_terminal}; echo ready");
        let script = format!(
            "run_locked file:locks n sh -c '{command}; while :; do sleep 0.01; done'
             echo code=$?"
        );
        let mut process = on_terminal(&dir, &script);
        process.out.until("ready");
        process.type_in("\x03");
        process.out.until("code=3");
        assert!(dir.path("int").exists());
    }

    /// Here nobody could resume it.
    #[test]
    fn does_not_stop_the_command_for_good() {
        let dir = Dir::new();
        let script = "stty -echo; run_locked file:locks n sh -c 'echo ready; read x; echo got=$x'";
        let mut process = on_terminal(&dir, script);
        process.out.until("ready");
        process.type_in("\x1aone\n");
        process.out.until("got=one");
    }
}

mod others {
    use super::*;

    #[test]
    fn two_build_scripts_generate_once() {
        let dir = Dir::new();
        let mut holder = Process::start(Command::new("flock").arg(dir.path("generated.lock")).args(KEEP));
        holder.out.until("ready");
        let start = || Process::start(example("build_rs").env("OUT_DIR", &dir.0));
        let mut scripts = [start(), start()];
        for script in &mut scripts {
            script.err.until("waiting");
        }
        assert!(!dir.path("generated.rs").exists());
        holder.end();
        let ends = scripts.map(Process::end);
        let generated = ends.iter().map(|end| end.err.matches("generated ").count()).sum::<usize>();
        assert_eq!((ends[0].code, ends[1].code, generated), (0, 0, 1), "{ends:?}");
        assert!(fs::read_to_string(dir.path("generated.rs")).unwrap().contains("ANSWER"));
        assert!(ends[0].out.contains("cargo::rustc-env=GENERATED="));
    }

    fn migration(args: &[&str]) -> Process {
        Process::start(example("migration").args(args))
    }

    #[test]
    fn a_migration_is_fenced() {
        let dir = Dir::new();
        for address in ["memory:", &format!("file:{}", dir.0.display())] {
            let end = migration(&[address]).end();
            assert_eq!(end.code, 0, "{end:?}");
            assert!(end.out.contains("too late: token") && end.out.contains("at version 4"), "{end:?}");
        }
        assert_eq!(migration(&[]).end().code, 1);
        assert_eq!(migration(&["redis:"]).end().code, 1);
    }

    #[test]
    fn a_migration_waits_for_another_but_not_for_ever() {
        let dir = Dir::new();
        let mut holder = Process::start(Command::new("flock").arg(dir.path("migration.lock")).args(KEEP));
        holder.out.until("ready");
        let address = format!("file:{}", dir.0.display());
        let end = migration(&[&address]).end();
        assert_eq!(end.code, 75, "{end:?}");
        assert!(end.out.contains("waiting") && !end.out.contains("step"), "{end:?}");
        let mut waiter = migration(&[&address]);
        waiter.out.until("waiting");
        holder.end();
        assert_eq!(waiter.end().code, 0);
    }

    #[test]
    fn a_migration_stops_when_its_lock_is_lost() {
        let dir = Dir::new();
        let mut running = migration(&[&format!("file:{}", dir.0.display()), "60"]);
        running.out.until("step 1");
        fs::remove_file(dir.path("migration.lock")).unwrap();
        let end = running.end();
        assert_eq!((end.code, end.out.as_str()), (76, "step 1"), "{end:?}");
    }
}
