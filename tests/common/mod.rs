//! What the test programs share: processes with a role, directories, and what waits for what can be seen.
#![allow(dead_code, unused_imports, reason = "each program uses a part of it")]

mod actor;
pub(crate) mod example;
pub(crate) mod fault_server;
pub(crate) mod promises;

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

#[allow(unused_imports, reason = "each program uses a part of it")]
pub(crate) use actor::{Actor, play, say};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes here that goes well.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// A directory of one test, gone with it.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("leasehold-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Nanoseconds on a clock that is one for all processes.
#[cfg(target_os = "linux")]
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// Holds a lock and looks at it all the time; says when it last was held, and when that was over.
#[cfg(target_os = "linux")]
pub(crate) fn watch(locker: &leasehold::Locker) {
    let guard = locker.lock("x").unwrap();
    say("held");
    let (mut last, mut before) = (0, now());
    while guard.is_held() {
        last = before;
        thread::sleep(Duration::from_micros(200));
        before = now();
    }
    let reason = guard.check().unwrap_err().lost_reason();
    say(&format!("{last} {} {reason:?}", now()));
    assert_eq!(guard.unlock().unwrap_err().kind(), leasehold::ErrorKind::Lost);
}

pub(crate) fn read_number(path: &Path) -> u64 {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits for something that can be seen, and fails when it does not come.
#[track_caller]
pub(crate) fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let start = Instant::now();
    while !seen() {
        assert!(start.elapsed() < LONG, "waited in vain for: {what}");
        thread::sleep(ms(5));
    }
}

/// Runs, and says how long that took.
pub(crate) fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = f();
    (value, start.elapsed())
}

#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: leasehold::Result<T>) -> leasehold::ErrorKind {
    result.map_err(|e| e.kind()).unwrap_err()
}
