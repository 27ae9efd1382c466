//! Beside lockgate's file locker, in one directory.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use leasehold::{ErrorKind, Locker, Mode, file};

use crate::common::{Actor, Dir, LONG, SECOND, kind, ms, play, read_number, say, timed};

/// The lock, and the file that lockgate makes for it.
const LOCK: &str = "release/myapp";
const FILE: &str = "a73c4953efbe03a3d0a6394ba9cecdf4cb228be33d6dbdcc5208a35307fcac5d";

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        let locker = Locker::open(arguments[0]).unwrap();
        match role {
            "count" => count(&locker, Path::new(arguments[1]), arguments[2].parse().unwrap()),
            "hold" => {
                let _guard = locker.lock(LOCK).unwrap();
                say("held");
                std::thread::sleep(LONG);
            }
            other => panic!("no such role: {other}"),
        }
    });
}

/// Adds to the number in a file; every other turn looks at it beside other readers, too.
fn count(locker: &Locker, number: &Path, times: u32) {
    for turn in 0..times {
        let guard = locker.lock(LOCK).unwrap();
        // Cut and written: whoever reads meanwhile finds no number.
        fs::write(number, (read_number(number) + 1).to_string()).unwrap();
        guard.unlock().unwrap();
        if turn % 2 == 0 {
            let guard = locker.request(LOCK).shared().lock().unwrap();
            let before = read_number(number);
            std::thread::sleep(ms(1));
            assert_eq!(read_number(number), before, "written beside a reader");
            guard.unlock().unwrap();
        }
    }
}

/// A directory with lockgate's lock files.
struct Both(Dir);

impl Both {
    fn new(test: &str) -> Self {
        Self(Dir::new(&format!("lockgate-{test}")))
    }

    fn address(&self) -> String {
        format!("file:{}?names=lockgate", self.0.0.display())
    }

    fn locker(&self) -> Locker {
        Locker::open(&self.address()).unwrap()
    }

    fn ours(&self, role: &str, arguments: &[&str]) -> Actor {
        let address = self.address();
        let arguments = [&[&*address], arguments].concat();
        Actor::run(Actor::command("files::role", role, &arguments).stdin(Stdio::null()))
    }

    fn theirs(&self, options: &[&str], job: &[&str]) -> Actor {
        let programs = env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs");
        let mut command = Command::new(Path::new(&programs).join("lockgate"));
        command.args(options).arg(format!("file:{}", self.0.0.display())).arg(LOCK).args(job);
        Actor::run(command.stdin(Stdio::piped()))
    }

    /// What they find when they try it.
    #[track_caller]
    fn to_them(&self, options: &[&str]) -> String {
        self.theirs(options, &["once"]).answers()
    }
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn four_of_lockgate_and_four_of_ours_count_exactly() {
    const TIMES: u64 = 200;
    let (both, numbers) = (Both::new("count"), Dir::new("lockgate-number"));
    let number = numbers.0.join("number");
    fs::write(&number, "0").unwrap();
    let (path, times) = (number.to_str().unwrap(), TIMES.to_string());
    let ((), took) = timed(|| {
        let mut actors: Vec<Actor> = (0..4).map(|_| both.ours("count", &[path, &times])).collect();
        actors.extend((0..4).map(|_| both.theirs(&[], &["count", path, &times])));
        actors.push(both.theirs(&["-shared"], &["read", path, "20"]));
        actors.iter_mut().for_each(Actor::ends_well);
    });
    println!("four of lockgate and four of ours, {TIMES} times each: {}, {took:?}", read_number(&number));
    assert_eq!(read_number(&number), 8 * TIMES);
    let files: Vec<_> = fs::read_dir(&both.0.0).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, [FILE], "one file for both");
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn they_keep_us_out_and_we_them() {
    let both = Both::new("both");
    let locker = both.locker();
    let shared = |locker: &Locker| locker.request(LOCK).shared().try_lock().unwrap();

    let mut theirs = both.theirs(&[], &["hold"]);
    assert_eq!(theirs.hear(), "held");
    assert!(locker.try_lock(LOCK).unwrap().is_none() && shared(&locker).is_none());
    let status = locker.status(LOCK).unwrap();
    assert_eq!(status.mode(), Some(Mode::Exclusive));
    if cfg!(target_os = "linux") {
        assert_eq!(status.holders()[0].pid(), Some(theirs.child.id()), "{status:?}");
    }
    theirs.hear_no_more();
    let (guard, took) = timed(|| locker.request(LOCK).timeout(LONG).lock().unwrap());
    assert!(took < SECOND, "their release is seen at once: {took:?}");
    theirs.ends_well();
    assert_eq!(both.to_them(&[]), "busy");
    assert_eq!(both.to_them(&["-shared"]), "busy");
    let mut waiting = both.theirs(&[], &["hold"]);
    guard.unlock().unwrap();
    assert_eq!(waiting.hear(), "held");
    waiting.hear_no_more();
    waiting.ends_well();

    let reader = shared(&locker).unwrap();
    assert_eq!(both.to_them(&["-shared"]), "free", "readers beside readers");
    assert_eq!(both.to_them(&[]), "busy");
    drop(reader);
    let mut reader = both.theirs(&["-shared"], &["hold"]);
    assert_eq!(reader.hear(), "held");
    assert!(shared(&locker).is_some() && locker.try_lock(LOCK).unwrap().is_none());
    reader.hear_no_more();
    reader.ends_well();
    assert_eq!(both.to_them(&[]), "free");
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn who_is_killed_leaves_the_lock_to_the_other() {
    let both = Both::new("killed");
    let locker = both.locker();
    let mut theirs = both.theirs(&[], &["hold"]);
    assert_eq!(theirs.hear(), "held");
    assert!(locker.try_lock(LOCK).unwrap().is_none());
    theirs.dies();
    drop(locker.request(LOCK).timeout(SECOND).lock().unwrap());

    let mut ours = both.ours("hold", &[]);
    assert_eq!(ours.hear(), "held");
    assert_eq!(both.to_them(&[]), "busy");
    ours.dies();
    assert_eq!(both.to_them(&[]), "free");
}

#[test]
#[ignore = "needs a Go program: tests/run.sh peers"]
fn their_file_serves_us_too() {
    let both = Both::new("file");
    assert_eq!(both.to_them(&[]), "free");
    let path = both.0.0.join(FILE);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, fs::read(&path).unwrap()), (0o600, Vec::new()));
    let locker = both.locker();
    let first = locker.request(LOCK).fenced().lock().unwrap().fencing_token();
    assert_eq!(both.to_them(&[]), "free", "what we write into it is nothing to them");
    assert!(locker.request(LOCK).fenced().lock().unwrap().fencing_token() > first);
}

#[test]
fn names_are_hashes() {
    let both = Both::new("names");
    let locker = Locker::new(file::Store::new(&*both.0.0).names(file::Names::Lockgate));
    let guard = locker.lock(LOCK).unwrap();
    assert!(both.0.0.join(FILE).exists());
    assert!(both.locker().try_lock(LOCK).unwrap().is_none(), "the address means the same");
    drop(guard);
    drop(locker.lock(&"any name ".repeat(1000)).unwrap());
    assert_eq!(kind(locker.list()), ErrorKind::Unsupported);
}
