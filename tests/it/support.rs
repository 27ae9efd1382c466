//! What the tests share: waiting for what can be seen, stores that count and fail, processes with a role.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::common;
pub(crate) use crate::common::{LONG, SECOND, ms, timed, until};

use leasehold::{
    Break, Error, Event, Locker, Result, Status,
    backend::{Abilities, Ask, Attempt, Backend, Call, Clock},
    memory,
};

/// A store of this test alone, with a clock moved by hand.
pub(crate) fn by_hand() -> (Clock, memory::Store, Locker) {
    let clock = Clock::manual();
    let store = memory::Store::with_clock(clock.clone());
    let locker = Locker::new(store.clone());
    (clock, store, locker)
}

/// Collects what a locker tells, one line an event, without what differs from run to run.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(crate) fn by(&self, locker: Locker) -> Locker {
        let lines = self.0.clone();
        locker.on_event(move |event| {
            let kind = match event {
                Event::Waiting { .. } => "waiting",
                Event::Acquired { .. } => "acquired",
                Event::Renewed { .. } => "renewed",
                Event::RenewalFailed { .. } => "renewal failed",
                Event::Lost { .. } => "lost",
                Event::Released { .. } => "released",
                Event::Detached { .. } => "detached",
                _ => "other",
            };
            lines.lock().unwrap().push(format!("{kind}: {event}"));
        })
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(&format!("{kind}: "))).count()
    }
}

/// A memory store behind which tests count and interfere.
#[derive(Clone, Default)]
pub(crate) struct Spy {
    pub(crate) store: memory::Store,
    pub(crate) asks: Arc<AtomicUsize>,
    pub(crate) asking: Arc<AtomicUsize>,
    pub(crate) most_asking: Arc<AtomicUsize>,
}

impl Backend for Spy {
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        self.asks.fetch_add(1, Ordering::SeqCst);
        self.store.try_acquire(ask)
    }
    fn wait(&self, ask: &mut Ask) -> Result<()> {
        let now = self.asking.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_asking.fetch_max(now, Ordering::SeqCst);
        let waited = self.store.wait(ask);
        self.asking.fetch_sub(1, Ordering::SeqCst);
        waited
    }
    fn abandon(&self, ask: &mut Ask) -> Result<()> {
        self.store.abandon(ask)
    }
    fn abilities(&self) -> Abilities {
        self.store.abilities()
    }
    fn status(&self, name: &str, call: &Call) -> Result<Status> {
        self.store.status(name, call)
    }
    fn break_lock(&self, name: &str, how: Break, call: &Call) -> Result<Option<Duration>> {
        self.store.break_lock(name, how, call)
    }
    fn clock(&self) -> Clock {
        self.store.clock()
    }
}

/// A directory of this test alone, gone with it.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("leasehold-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn locker(&self) -> Locker {
        Locker::open(&format!("file:{}", self.0.display())).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// This very program again, as the process of a role (see `processes::role`).
pub(crate) fn actor(role: &str, arguments: &[&str]) -> Command {
    let mut command = common::Actor::command("processes::role", role, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// A child that is ended with the test.
pub(crate) struct Actor(pub(crate) Child);

impl Actor {
    pub(crate) fn start(role: &str, arguments: &[&str]) -> Self {
        Self(actor(role, arguments).spawn().unwrap())
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> leasehold::ErrorKind {
    result.map_err(|e: Error| e.kind()).unwrap_err()
}
