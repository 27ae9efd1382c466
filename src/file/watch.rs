//! How a waiter learns that a lock file was closed: by inotify, and where there is none by polling.
//!
//! An unlock makes no event, a close does; so a release is both, and a waiter keeps its own descriptor open
//! between its tries. Who unlocks and does not close is noticed by the tries of [`FALLBACK`].

use std::{path::Path, time::Duration};

/// A waiter tries at least so often.
const FALLBACK: Duration = Duration::from_millis(50);
/// The kernel tells of a close a little before it unlocks the file of a process that died: these tries follow.
const LADDER: [u64; 5] = [20, 60, 180, 540, 1620];

/// One waiter's sleep between its tries.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    source: Source,
    rung: usize,
    polls: u32,
}

#[derive(Debug, Default)]
enum Source {
    #[default]
    Unset,
    #[cfg(target_os = "linux")]
    Inotify(inotify::Watch),
    Polling,
}

impl Sleep {
    /// Returns when another try makes sense, at the latest after `at_most`.
    pub(super) fn until_closed(&mut self, path: &Path, at_most: Duration) {
        if let Source::Unset = self.source {
            self.source = source(path);
            self.rung = LADDER.len();
            // It may have been released before the watch was there.
            return;
        }
        if let Some(pause) = LADDER.get(self.rung) {
            self.rung += 1;
            pause_for(Duration::from_micros(*pause).min(at_most));
            return;
        }
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Inotify(watch) => {
                if watch.wait(FALLBACK.min(at_most)) {
                    self.rung = 0;
                }
            }
            _ => {
                // 1 ms growing to 10 ms.
                self.polls += 1;
                let pause = Duration::from_millis(u64::from(self.polls / 4 + 1).min(10));
                pause_for(pause.min(at_most));
            }
        }
    }

    /// The path leads to another file now.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
fn source(path: &Path) -> Source {
    #[cfg(target_os = "linux")]
    if let Some(watch) = inotify::Watch::new(path) {
        return Source::Inotify(watch);
    }
    Source::Polling
}

#[expect(clippy::disallowed_methods, reason = "nothing can tell of a close here: this polls")]
fn pause_for(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(target_os = "linux")]
mod inotify {
    use std::{
        os::fd::OwnedFd,
        path::Path,
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fs::inotify::{self, CreateFlags, WatchFlags},
        io::{Errno, read, retry_on_intr},
    };

    /// Instances that nobody uses: closing one took up to 17 ms, and 128 for a user is a usual limit.
    static SPARE: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());
    const SPARES: usize = 16;

    #[derive(Debug)]
    pub(super) struct Watch {
        instance: Option<OwnedFd>,
        wd: i32,
    }

    impl Watch {
        /// `None` where the kernel has no more of them, or the file system no events.
        pub(super) fn new(path: &Path) -> Option<Self> {
            let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let instance = match spare {
                Some(instance) => instance,
                None => inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?,
            };
            // flock(1) and others open for reading only.
            let closed = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
            let gone = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            let wd = inotify::add_watch(&instance, path, closed | gone).ok()?;
            Some(Self { instance: Some(instance), wd })
        }

        /// Whether something happened to the file within the time.
        pub(super) fn wait(&self, at_most: Duration) -> bool {
            let Some(instance) = &self.instance else {
                return false;
            };
            let limit = Timespec::try_from(at_most).ok();
            let polled = poll(&mut [PollFd::new(instance, PollFlags::IN)], limit.as_ref());
            matches!(polled, Ok(1..)) && drain(instance)
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            let Some(instance) = self.instance.take() else {
                return;
            };
            let _ = inotify::remove_watch(&instance, self.wd);
            drain(&instance);
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < SPARES {
                spare.push(instance);
            }
        }
    }

    fn drain(instance: &OwnedFd) -> bool {
        let mut buffer = [0_u8; 4096];
        let mut any = false;
        while let Ok(1..) | Err(Errno::INVAL) = retry_on_intr(|| read(instance, &mut buffer)) {
            any = true;
        }
        any
    }
}
