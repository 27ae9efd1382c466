//! Locks that are files in a directory of this machine: `flock`ed, as by `flock(1)`.
//!
//! The lock `migration` is the file `migration.lock`, which is never deleted. It holds one line: the fencing
//! counter, and who took the lock last. The kernel frees a lock when its holder's process is gone, so nothing
//! expires, nothing is renewed, and no thread is needed. An uncontended lock costs some microseconds.
//!
//! - **Names**: a capital `A` is written `+a`, and every byte but `a-z 0-9 - _ .` as `%2F`: so names that
//!   differ in case only are different locks on every file system. 250 bytes are the most.
//! - **Who may**: a new lock file can be written by those who may create files in its directory (`chmod 1777`
//!   or `2775` on the directory for several users); who can only read it can still share the lock.
//! - **Waiting**: inotify tells of a release at once. Linux grants new shared locks while an exclusive one is
//!   waited for: a stream of readers can starve a writer.
//! - **Fencing tokens** grow with every holder. They could repeat only if the file is lost *and* the clock is
//!   behind where it was.
//! - **Deleted files**: a lock file that is deleted or moved while held is a lost lock, which is seen by
//!   [`Guard::check`](crate::Guard::check), `check_for` and `with_lock`, not by `is_held` and `unlock`: do not
//!   delete lock files.
//! - **Network file systems** are what the other stores are for: NFS is as good as its server's lock daemon.
//! - **`status`** of a free lock tries it for a moment, which a `try_lock` of just then may see.
//! - **Beside lockgate**: [`Names`] can make the locks those of the Go library's file locker as well (feature
//!   `lockgate-files`).

mod disk;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod identity;
mod name;
mod others;
mod record;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Break, Error, ErrorKind, Holder, LostReason, Mode, Result, Status, Ticket,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
    clock, fencing,
};
use disk::{Locked, Opened};
pub use name::Names;
use record::{Content, WIDTH};

/// After so long a wait the holder's name is checked against the kernel's list.
const LOOK_CLOSER: Duration = Duration::from_millis(50);

/// Why a lock of this store stays in its process.
const HAND_OVER: &str = "hand a lock over: the kernel keeps a file lock for the process that took it, and frees it with \
     that; only a store with leases can";

/// A directory of lock files.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Arc<Path>,
    names: Names,
}

impl Store {
    /// The locks in `dir`, which is made when the first lock is taken. No I/O is done here.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into().into(), names: Names::default() }
    }

    /// How the lock files are named: as this library does it, or as a Go library whose locks are to be the same.
    /// Default: [`Names::Escaped`].
    pub fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let Some(dir) = self.dir.to_str() else {
            let mut file = String::new();
            self.names.file_onto(&mut file, name)?;
            return Ok(self.dir.join(file));
        };
        // As `join` does, with one allocation.
        let mut path = String::with_capacity(dir.len() + name.len() + 16);
        path.push_str(dir);
        if !dir.is_empty() && !dir.ends_with('/') {
            path.push('/');
        }
        self.names.file_onto(&mut path, name)?;
        Ok(path.into())
    }
}

/// What a waiter keeps between its tries.
#[derive(Default)]
struct Waiting {
    opened: Option<Opened>,
    sleep: watch::Sleep,
    since: Option<Moment>,
}

impl Backend for Store {
    fn abilities(&self) -> Abilities {
        Abilities::default().immediate().shared().fencing()
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.names.check(name)
    }

    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let path = self.path(ask.name())?;
        let mode = ask.mode();
        let mut waited = if ask.has_scratch() { ask.scratch::<Waiting>().opened.take() } else { None };
        // Each round answers a file that was deleted or replaced meanwhile.
        for _ in 0..100 {
            let was_waited_for = waited.is_some();
            let opened = match waited.take() {
                Some(opened) => opened,
                None => disk::open(&path, mode)?,
            };
            match opened.try_lock(mode, &path)? {
                // Opened just now it is the file of the path, unless it was deleted since; moved since, it is as
                // one that is moved when it is held.
                Ok(locked) if !was_waited_for && locked.is_linked(&path)? => {
                    return granted(locked, path, ask).map(Attempt::Granted);
                }
                Ok(locked) if was_waited_for && locked.opened().is_at(&path)? => {
                    return granted(locked, path, ask).map(Attempt::Granted);
                }
                Err(opened) if !was_waited_for || opened.is_at(&path)? => {
                    return busy(opened, &path, ask).map(Attempt::Busy);
                }
                Ok(_) | Err(_) if ask.has_scratch() => ask.scratch::<Waiting>().sleep.forget(),
                Ok(_) | Err(_) => {}
            }
        }
        let what = format!("{} is replaced all the time", path.display());
        Err(Error::new(ErrorKind::Unavailable, what).not_sent())
    }

    fn wait(&self, ask: &mut Ask) -> Result<()> {
        let path = self.path(ask.name())?;
        let slice = ask.slice();
        ask.scratch::<Waiting>().sleep.until_closed(&path, slice);
        Ok(())
    }

    fn adopt(&self, _: &mut Ask, _: &Ticket) -> Result<Grant> {
        Err(Error::unsupported(HAND_OVER))
    }

    fn status(&self, name: &str, _: &Call) -> Result<Status> {
        let path = self.path(name)?;
        let free = || Ok(Status::new(name, None, false, Vec::new()));
        let Some(opened) = disk::open_existing(&path)? else {
            return free();
        };
        let held = |opened: &Opened, mode| {
            let holders = holder(opened, &path, true)?.into_iter().collect();
            Ok(Status::new(name, Some(mode), false, holders))
        };
        // The kernel's list disturbs nobody; where it shows nothing, only a try tells.
        if let Some(known) = others::holders(opened.identity(&path)?).first() {
            return held(&opened, known.mode);
        }
        match opened.try_lock(Mode::Shared, &path)? {
            Err(opened) => held(&opened, Mode::Exclusive),
            Ok(shared) => {
                drop(shared);
                let Some(opened) = disk::open_existing(&path)? else {
                    return free();
                };
                match opened.try_lock(Mode::Exclusive, &path)? {
                    Ok(_) => free(),
                    Err(opened) => held(&opened, Mode::Shared),
                }
            }
        }
    }

    fn list(&self, call: &Call) -> Result<Vec<Status>> {
        if self.names != Names::Escaped {
            let what =
                "list locks with lockgate's names: those are hashes, from which no lock's name comes back";
            return Err(Error::unsupported(what));
        }
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| disk::describe(&e, "list", &self.dir))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| disk::describe(&e, "list", &self.dir))?;
            names.extend(entry.file_name().to_str().and_then(name::unescape));
        }
        names.sort();
        names.iter().map(|name| self.status(name, call)).collect()
    }

    fn break_lock(&self, name: &str, _: Break, call: &Call) -> Result<Option<Duration>> {
        let status = self.status(name, call)?;
        if status.mode().is_none() {
            return Ok(None);
        }
        let who = status.holders().first().map_or("its process".to_owned(), Holder::to_string);
        let what = format!("break a file lock, which the kernel keeps for its process: end {who} instead");
        Err(Error::unsupported(&what))
    }
}

/// The lock is ours: makes its fencing token sure before anybody sees it.
fn granted(locked: Locked, path: PathBuf, ask: &Ask) -> Result<Grant> {
    let (mode, now) = (ask.mode(), clock::wall());
    let last = match Content::of(locked.opened().read(&path, &mut [0; WIDTH])?) {
        Content::Blank | Content::Torn => None,
        Content::Counter(counter) => Some(counter),
        Content::Foreign(start) => {
            let what = format!(
                "{} holds something else (it begins with \"{start}\") and was left as it is; move it away",
                path.display()
            );
            return Err(Error::new(ErrorKind::Foreign, what).not_sent());
        }
    };
    let fence = fencing::next(last, mode, now)?;
    let mut token = Some(fence.token);
    if locked.opened().is_writable() {
        locked.write(&path, &record::encode(fence.counter, mode, ask.holder(), locked.pid(), now))?;
    } else if last.is_none() {
        // A reader who cannot write the first counter has no number that others will exceed for sure.
        token = None;
        if ask.fenced() {
            let what = format!("{} has no fencing counter yet, and cannot be written", path.display());
            return Err(Error::new(ErrorKind::Denied, what).not_sent());
        }
    }
    let grant = Grant::new(Held { locked: Some(locked), path }, ask.call().began());
    Ok(match token {
        Some(token) => grant.fencing_token(token),
        None => grant,
    })
}

/// The lock is another's: keeps the open file for the next try, and says whose it is.
fn busy(opened: Opened, path: &Path, ask: &mut Ask) -> Result<Busy> {
    let now = ask.call().began();
    let waiting = ask.scratch::<Waiting>();
    let since = *waiting.since.get_or_insert(now);
    let holder = holder(&opened, path, now.saturating_since(since) >= LOOK_CLOSER)?;
    waiting.opened = Some(opened);
    let busy = Busy::default();
    Ok(match holder {
        Some(holder) => busy.holder(holder),
        None => busy,
    })
}

/// Whom the line names; looked at more closely, whom the kernel names.
fn holder(opened: &Opened, path: &Path, closer: bool) -> Result<Option<Holder>> {
    // What is no line of ours is no concern of one who only waits.
    let named = record::holder(opened.read(path, &mut [0; WIDTH])?);
    if closer || named.as_ref().is_some_and(others::is_gone) {
        let known = others::holders(opened.identity(path)?);
        let is_known = |named: &Holder| known.iter().any(|other| named.pid() == Some(other.pid));
        if !known.is_empty() && !named.as_ref().is_some_and(is_known) {
            return Ok(known.first().map(|other| others::process(other.pid)));
        }
    }
    Ok(named)
}

struct Held {
    locked: Option<Locked>,
    path: PathBuf,
}

impl Lease for Held {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        match &self.locked {
            Some(locked) if locked.opened().is_at(&self.path)? => Ok(call.now()),
            _ => Err(Error::lost(LostReason::Deleted)),
        }
    }

    fn release(&mut self, _: &Call) -> Result<()> {
        self.locked = None;
        Ok(())
    }

    fn detach(&mut self, _: &Call) -> Result<String> {
        Err(Error::unsupported(HAND_OVER))
    }
}
