//! Lock files: names, rights, garbage, tokens, and others who lock them.
#![cfg(unix)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{FileExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use leasehold::{Break, ErrorKind, Holder, Locker, LostReason, Mode, Unlocked, file};

use crate::{
    processes::{ears, hear, say},
    support::{Actor, Dir, LONG, SECOND, Told, actor, kind, ms, timed, until},
};

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn one_holds_it_in_this_process_too() {
    let dir = Dir::new("one");
    let locker = dir.locker().holder("shop 1.2");
    let guard = locker.lock("migration").unwrap();
    guard.check().unwrap();
    assert!(guard.is_held() && guard.valid_for().is_none());
    assert!(locker.try_lock("migration").unwrap().is_none());
    let error = locker.request("migration").timeout(ms(30)).lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("\"shop 1.2\" (this process, since 20"), "{error}");
    guard.renew().unwrap();
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    assert!(locker.try_lock("migration").unwrap().is_some());
    assert_eq!(files(dir.path()), ["migration.lock"]);
}

#[test]
fn any_name_is_a_file_in_the_directory_or_a_clear_error() {
    let dir = Dir::new("names");
    let locker = Locker::new(file::Store::new(dir.join("locks")));
    for name in
        ["..", ".", "../../x", "/etc/passwd", "a/b", "nul\0", "Case", "case", "ü 🔒", "con", "-rf", "a\nb"]
    {
        let guard = locker.lock(name).unwrap();
        assert!(locker.try_lock(name).unwrap().is_none());
        assert_eq!(guard.name(), name);
    }
    let both = (locker.lock("Case").unwrap(), locker.lock("case").unwrap());
    drop(both);
    assert_eq!(files(dir.path()), ["locks"]);
    assert_eq!(files(&dir.join("locks")).len(), 12);
    let listed: Vec<String> = locker.list().unwrap().iter().map(|s| s.name().to_owned()).collect();
    assert_eq!(listed.len(), 12);
    assert!(listed.contains(&"/etc/passwd".to_owned()));
    assert_eq!(kind(locker.lock("")), ErrorKind::Name);
    let long = locker.lock(&"x".repeat(10_000)).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::Name);
    assert_eq!(kind(locker.status(&"ü".repeat(100))), ErrorKind::Name);
    assert_eq!(files(&dir.join("locks")).len(), 12);
}

#[test]
fn beside_flock_in_both_directions() {
    let dir = Dir::new("flock");
    let (locker, file) = (dir.locker(), dir.join("x.lock"));
    let flock = |shared: &str| {
        let mut command = Command::new("flock");
        command.args([shared, "-n", "-E", "9"]).arg(&file).arg("true");
        command.status().expect("flock(1), of util-linux").code()
    };
    let guard = locker.lock("x").unwrap();
    assert_eq!(flock("-x"), Some(9));
    drop(guard);
    assert_eq!(flock("-x"), Some(0));
    let guard = locker.request("x").shared().lock().unwrap();
    assert_eq!((flock("-x"), flock("-s")), (Some(9), Some(0)));
    drop(guard);

    // flock(1) holds it, and writes nothing: the line in the file is an older holder's.
    let mut child = Command::new("flock")
        .arg(&file)
        .args(["sh", "-c", "echo; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 1]).unwrap();
    assert!(locker.try_lock("x").unwrap().is_none());
    let error = locker.request("x").timeout(ms(300)).lock().unwrap_err();
    if cfg!(target_os = "linux") {
        let holder = error.holder().unwrap();
        assert_eq!((holder.words(), holder.pid()), ("flock", Some(child.id())), "{error}");
        assert_eq!(locker.status("x").unwrap().holders(), std::slice::from_ref(holder));
    }
    assert_eq!(locker.status("x").unwrap().mode(), Some(Mode::Exclusive));
    let (tell, told) = mpsc::channel();
    let waiter = locker.clone();
    thread::spawn(move || tell.send(waiter.lock("x").map(drop)));
    assert!(told.recv_timeout(ms(100)).is_err());
    let (got, took) = timed(|| {
        drop(child.stdin.take());
        told.recv_timeout(LONG).unwrap()
    });
    got.unwrap();
    assert!(took < SECOND, "{took:?}");
    child.wait().unwrap();
}

#[test]
fn one_who_unlocks_and_keeps_the_file_open_is_noticed_too() {
    let dir = Dir::new("open");
    let locker = dir.locker();
    drop(locker.lock("x").unwrap());
    let file = fs::File::open(dir.join("x.lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(locker.lock("x").map(drop)));
    assert!(told.recv_timeout(ms(100)).is_err());
    let (got, took) = timed(|| {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
        told.recv_timeout(LONG).unwrap()
    });
    got.unwrap();
    assert!(took < ms(150), "no event tells of it, a try does: {took:?}");
}

#[test]
fn the_line_tells_people_who_took_it_last() {
    let dir = Dir::new("line");
    let locker = dir.locker().holder("shop 1.2\nand more");
    let guard = locker.lock("x").unwrap();
    let text = fs::read_to_string(dir.join("x.lock")).unwrap();
    assert_eq!((text.len(), text.lines().count()), (512, 1));
    let token = format!("token={:020} ", guard.fencing_token().unwrap());
    assert!(text.contains(&token), "{text}");
    assert!(text.contains(&format!("mode=exclusive pid={} host=", std::process::id())), "{text}");
    assert!(text.contains("words=shop 1.2 and more  "), "{text}");
    let status = locker.status("x").unwrap();
    assert_eq!(status.mode(), Some(Mode::Exclusive));
    assert_eq!(status.holders()[0].words(), "shop 1.2 and more");
    assert!(status.holders()[0].since().is_some() && !status.expires());
    drop(guard);
    assert_eq!(locker.status("x").unwrap().mode(), None);
    assert!(locker.status("x").unwrap().holders().is_empty(), "the line is history now");
    assert_eq!(locker.status("never").unwrap().mode(), None);
    assert_eq!(files(dir.path()), ["x.lock"], "to ask makes no file");
    let shared = locker.request("x").shared().lock().unwrap();
    assert_eq!(locker.status("x").unwrap().mode(), Some(Mode::Shared));
    let error = locker.break_lock("x", Break::Now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    drop(shared);
    assert_eq!(locker.break_lock("x", Break::Now).unwrap(), None);
}

#[test]
fn tokens_grow_whatever_becomes_of_the_counter() {
    let dir = Dir::new("tokens");
    let (locker, path) = (dir.locker(), dir.join("x.lock"));
    let mut last = 0;
    let mut next = |what: &str| {
        let token = locker.request("x").fenced().lock().unwrap().fencing_token().unwrap();
        assert!(token > last, "{what}: {token} after {last}");
        last = token;
        let shared = locker.request("x").shared().fenced().lock().unwrap().fencing_token().unwrap();
        assert!(shared > last, "{what}: {shared} for a reader after {last}");
        last = shared;
    };
    next("new");
    for _ in 0..100 {
        next("again");
    }
    fs::remove_file(&path).unwrap();
    next("deleted");
    fs::write(&path, "").unwrap();
    next("emptied");
    let line = fs::read(&path).unwrap();
    fs::write(&path, &line[..300]).unwrap();
    next("cut");
    fs::write(&path, vec![0; 512]).unwrap();
    next("zeroed by a power loss");
    let mut torn = fs::read(&path).unwrap();
    torn[20] = b'9';
    fs::write(&path, torn).unwrap();
    next("torn");

    // A clock that is behind: the counter is ahead of the time, and still grows.
    let ahead = format!("{:020}", i64::MAX - 5);
    let line = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    let token = &line[18..38];
    fs::write(&path, line.replace(token, &ahead)).unwrap();
    assert_eq!(locker.lock("x").unwrap().fencing_token(), Some(i64::MAX as u64 - 3));
    assert_eq!(locker.lock("x").unwrap().fencing_token(), Some(i64::MAX as u64 - 1));
    let end = locker.lock("x").unwrap_err();
    assert!(end.to_string().contains("at its end"), "{end}");
    assert!(locker.try_lock("x").is_err(), "an error each time, and no lock is left behind");
}

#[test]
fn what_is_not_ours_is_left_as_it_is() {
    let dir = Dir::new("foreign");
    let locker = dir.locker();
    fs::write(dir.join("pid.lock"), "4711\n").unwrap();
    let error = locker.lock("pid").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("pid.lock") && error.to_string().contains("4711"), "{error}");
    assert_eq!(fs::read_to_string(dir.join("pid.lock")).unwrap(), "4711\n");

    fs::write(dir.join("target"), "").unwrap();
    symlink(dir.join("target"), dir.join("link.lock")).unwrap();
    symlink("/nowhere/at/all", dir.join("broken.lock")).unwrap();
    for name in ["link", "broken"] {
        let error = locker.lock(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert_eq!(fs::read_to_string(dir.join("target")).unwrap(), "");

    fs::create_dir(dir.join("dir.lock")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo.lock"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for name in ["dir", "fifo"] {
        let (result, took) = timed(|| locker.lock(name).map(drop));
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Foreign | ErrorKind::Config), "{error}");
        assert!(error.to_string().contains(&format!("{name}.lock")) && took < SECOND, "{error}");
    }
}

#[test]
fn a_deleted_or_replaced_file_is_a_lost_lock() {
    let dir = Dir::new("deleted");
    let (locker, path) = (dir.locker(), dir.join("x.lock"));
    let events = Told::default();
    let guard = events.by(locker.clone()).lock("x").unwrap();
    let watch = guard.watch();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(watch.check_for(LONG)));
    fs::remove_file(&path).unwrap();
    let next = locker.try_lock("x").unwrap().expect("another file, another lock");
    let error = guard.check().unwrap_err();
    assert_eq!(error.lost_reason(), Some(LostReason::Deleted));
    assert!(!guard.is_held());
    let (woken, took) = timed(|| told.recv_timeout(LONG).unwrap());
    assert_eq!(kind(woken), ErrorKind::Lost);
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!(kind(guard.unlock()), ErrorKind::Lost);
    assert_eq!(events.count("lost"), 1);

    next.check().unwrap();
    fs::rename(&path, dir.join("elsewhere")).unwrap();
    assert_eq!(kind(next.check()), ErrorKind::Lost);
    let unprotected = locker.with_lock("x", |_| fs::remove_file(&path).unwrap());
    assert_eq!(kind(unprotected), ErrorKind::Lost, "what the work did was not protected");
}

#[test]
fn a_waiter_follows_the_path_and_not_the_file() {
    let dir = Dir::new("follow");
    let (locker, path) = (dir.locker(), dir.join("x.lock"));
    for round in 0..20 {
        let guard = locker.lock("x").unwrap();
        let waiter = locker.clone();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let guard = waiter.lock("x").unwrap();
            tell.send(guard.check().map_err(|e| e.to_string())).unwrap();
            guard
        });
        thread::sleep(ms(round));
        // As programs do that delete their lock files: just before they let go.
        fs::remove_file(&path).unwrap();
        drop(guard);
        told.recv_timeout(LONG).unwrap().unwrap();
        let held = thread.join().unwrap();
        assert!(locker.try_lock("x").unwrap().is_none(), "the file of the path is locked");
        drop(held);
    }
}

#[test]
fn a_directory_is_made_and_one_that_cannot_be_is_a_clear_error() {
    let dir = Dir::new("made");
    let deep = dir.join("a/b/c");
    drop(Locker::new(file::Store::new(&deep)).lock("x").unwrap());
    assert_eq!(files(&deep), ["x.lock"]);
    fs::write(dir.join("plain"), "").unwrap();
    let store = Locker::new(file::Store::new(dir.join("plain/locks")));
    let (error, took) = timed(|| store.lock("x").unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("plain/locks") && took < SECOND, "{error}");
    assert!(Locker::new(file::Store::new(dir.join("none"))).list().unwrap().is_empty());
}

/// Runs a role as one who has no rights of their own, and gives its answer.
fn as_nobody(dir: &Dir, role: &str, arguments: &[&str]) -> String {
    // To where nobody may go.
    let copy = dir.join("program");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(copy);
    let template = actor(role, arguments);
    command.args(template.get_args());
    for (key, value) in template.get_envs() {
        command.env(key, value.unwrap());
    }
    command.stdout(Stdio::piped()).stdin(Stdio::null()).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    // Children that other tests fork just now have the copy open for writing until they call `exec`.
    let mut child = None;
    until("the program can be run", || {
        child =
            command.spawn().map_err(|e| assert_eq!(e.kind(), std::io::ErrorKind::ExecutableFileBusy)).ok();
        child.is_some()
    });
    let mut child = child.unwrap();
    let mut said = ears(&mut child);
    let answer = hear(&mut said);
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    child.wait().unwrap();
    answer
}

/// The role of one who tries a lock: says `held`, `busy` or the error.
pub(crate) fn try_it(arguments: &[&str]) {
    let request = Locker::open(arguments[0]).unwrap().request("x");
    let request = if arguments[1] == "shared" { request.shared() } else { request };
    match request.try_lock() {
        Ok(Some(guard)) => {
            let token = guard.fencing_token().is_some();
            guard.unlock().unwrap();
            say(&format!("held, token {token}"));
        }
        Ok(None) => say("busy"),
        Err(error) => say(&format!("{:?} {error}", error.kind())),
    }
}

#[test]
fn rights() {
    let dir = Dir::new("rights");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let locks = dir.join("locks");
    let address = format!("file:{}", locks.display());
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let root = rustix::process::geteuid().is_root();

    // A directory for several users: who comes first shuts nobody out.
    fs::create_dir(&locks).unwrap();
    mode(&locks, 0o1777);
    drop(dir_locker(&locks).lock("x").unwrap());
    assert_eq!(fs::metadata(locks.join("x.lock")).unwrap().permissions().mode() & 0o777, 0o666);
    assert_eq!(as_nobody(&dir, "try", &[&address, "exclusive"]), "held, token true");

    // A directory of ours: others may look, and share.
    mode(&locks, if root { 0o755 } else { 0o555 });
    mode(&locks.join("x.lock"), if root { 0o644 } else { 0o444 });
    let refused = as_nobody(&dir, "try", &[&address, "exclusive"]);
    assert!(refused.starts_with("Denied lock \"x\""), "{refused}");
    assert!(refused.contains(if root { "chmod o+rw" } else { "chmod u+rw" }), "{refused}");
    assert_eq!(as_nobody(&dir, "try", &[&address, "shared"]), "held, token true");

    // No file yet, and no right to make one.
    fs::remove_file(locks.join("x.lock"))
        .or_else(|_| {
            mode(&locks, 0o755);
            fs::remove_file(locks.join("x.lock"))
        })
        .unwrap();
    mode(&locks, if root { 0o755 } else { 0o555 });
    let refused = as_nobody(&dir, "try", &[&address, "exclusive"]);
    assert!(refused.starts_with("Denied lock \"x\""), "{refused}");
    assert!(refused.contains(if root { "chmod o+wx" } else { "chmod u+wx" }), "{refused}");
    mode(&locks, 0o755);
}

fn dir_locker(dir: &Path) -> Locker {
    Locker::new(file::Store::new(dir))
}

/// A file system with no room at all for one more block.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let dir = Dir::new("full");
    let script = format!(
        "mount -t tmpfs -o size=64k none {0} && chmod 1777 {0} && \"$@\" && \
         dd if=/dev/zero of={0}/filler bs=4k 2>/dev/null; \"$@\"; \
         rm {0}/x.lock && dd if=/dev/zero of={0}/filler2 bs=4k 2>/dev/null; \"$@\"",
        dir.path().join("disk").display()
    );
    fs::create_dir(dir.join("disk")).unwrap();
    let template = actor("try", &[&format!("file:{}", dir.join("disk").display()), "exclusive"]);
    let mut command = Command::new("unshare");
    command.arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", &script, "sh"]).arg(template.get_program()).args(template.get_args());
    for (key, value) in template.get_envs() {
        command.env(key, value.unwrap());
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare(1), of util-linux");
    let mut said = ears(&mut child);
    assert_eq!(hear(&mut said), "held, token true");
    assert_eq!(hear(&mut said), "held, token true", "a line that is there has its block");
    let refused = hear(&mut said);
    assert!(refused.starts_with("Denied lock \"x\"") && refused.contains("o space left"), "{refused}");
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    child.wait().unwrap();
}

/// Children that are forked meanwhile have the file open too, until they call `exec`.
#[test]
fn a_release_is_one_beside_processes_that_are_being_started() {
    let dir = Dir::new("forks");
    let locker = dir.locker();
    let stop = Arc::new(AtomicBool::new(false));
    let spawner = {
        let stop = stop.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                Command::new("true").status().unwrap();
            }
        })
    };
    let start = Instant::now();
    while start.elapsed() < 2 * SECOND {
        let guard = locker.try_lock("x").unwrap();
        guard.expect("nobody else wants it").unlock().unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    spawner.join().unwrap();
}

/// The role of a waiter without a descriptor to spare for inotify.
#[cfg(target_os = "linux")]
pub(crate) fn no_descriptors(arguments: &[&str]) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let locker = Locker::open(arguments[0]).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().parse::<u64>().unwrap()
    });
    // The highest is the listing's own: room for one, which the lock file takes.
    let most = open.max().unwrap() + 1;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..before }).unwrap();
    say("waiting");
    let guard = locker.request("x").timeout(LONG).lock().unwrap();
    say("held");
    drop(guard);
}

#[cfg(target_os = "linux")]
#[test]
fn without_inotify_a_waiter_polls() {
    let dir = Dir::new("descriptors");
    let guard = dir.locker().lock("x").unwrap();
    let mut waiter = Actor::start("no-descriptors", &[&format!("file:{}", dir.path().display())]);
    let mut said = ears(&mut waiter.0);
    assert_eq!(hear(&mut said), "waiting");
    thread::sleep(ms(200));
    let (held, took) = timed(|| {
        drop(guard);
        hear(&mut said)
    });
    assert_eq!(held, "held");
    assert!(took < ms(200), "{took:?}");
}

/// The role of one who holds, waits and shares, and has started no thread for it.
#[cfg(target_os = "linux")]
pub(crate) fn no_thread_of_ours(arguments: &[&str]) {
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let (_stop, signal) = mpsc::channel();
    let locker = Locker::open(arguments[0]).unwrap().shutdown_on(signal);
    let guard = locker.lock("x").unwrap();
    assert!(locker.try_lock("x").unwrap().is_none());
    assert_eq!(kind(locker.request("x").timeout(ms(600)).lock()), ErrorKind::Timeout);
    guard.check_for(ms(50)).unwrap();
    locker.status("x").unwrap();
    assert_eq!(threads(), before);
    drop(guard);
    let _ = std::io::stdout().flush();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_lock_starts_no_thread() {
    let dir = Dir::new("threads");
    let mut actor = Actor::start("no-thread-of-ours", &[&format!("file:{}", dir.path().display())]);
    assert!(actor.0.wait().unwrap().success());
}

#[test]
fn a_holder_in_another_process_is_named() {
    let dir = Dir::new("named");
    let address = format!("file:{}", dir.path().display());
    let mut holder = Actor::start("hold", &[&address, "x"]);
    let mut said = ears(&mut holder.0);
    assert_eq!(hear(&mut said), "held");
    let error = dir.locker().request("x").timeout(ms(200)).lock().unwrap_err();
    let named: &Holder = error.holder().unwrap();
    assert_eq!((named.words(), named.pid()), ("the child", Some(holder.0.id())));
    assert!(error.to_string().contains(&format!("(pid {}, on ", holder.0.id())), "{error}");
    drop(holder.0.stdin.take());
    until("it let go", || dir.locker().try_lock("x").unwrap().is_some());
}

#[test]
fn a_directory_that_is_deleted_while_nobody_holds_is_made_again() {
    let dir = Dir::new("gone");
    let locker = Locker::new(file::Store::new(dir.join("locks")));
    drop(locker.lock("x").unwrap());
    fs::remove_dir_all(dir.join("locks")).unwrap();
    drop(locker.lock("x").unwrap());
    // A line longer than ours is read as far as ours goes, and kept behind that.
    let path = dir.join("locks/x.lock");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"more", 512).unwrap();
    drop(locker.lock("x").unwrap());
    assert_eq!(&fs::read(&path).unwrap()[512..], b"more");
}
