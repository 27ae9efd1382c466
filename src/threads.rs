//! The library's threads: small stacks, names, parked and used again, and refused without a panic.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, Builder, ThreadId},
    time::Duration,
};

/// Five times what a TLS handshake was measured to need in a release build.
const STACK: usize = 256 * 1024;
/// How long a thread without work stays.
const IDLE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };
/// More than this many are not kept.
const PARKED: usize = 64;

/// A name and what is to be done under it.
type Job = (String, Box<dyn FnOnce() + Send>);

struct Parked {
    id: ThreadId,
    /// Of one job: room for more would cost each thread 2 KiB.
    jobs: SyncSender<Job>,
}

static PARKING: Mutex<Vec<Parked>> = Mutex::new(Vec::new());

/// A thread that sleeps until it gets its job; dropped without one, it is parked again.
pub(crate) struct Reserved {
    /// Its own, as it says in its job.
    pub(crate) id: ThreadId,
    jobs: Option<SyncSender<Job>>,
}

/// Takes a parked thread or starts one.
///
/// # Errors
/// The operating system's, when it refuses a thread.
pub(crate) fn reserve(name: &str) -> io::Result<Reserved> {
    // Apart, so that the parking is open again.
    let parked = parking().pop();
    if let Some(Parked { id, jobs }) = parked {
        return Ok(Reserved { id, jobs: Some(jobs) });
    }
    let (jobs, queue) = mpsc::sync_channel(1);
    let thread = Builder::new().name(name_of(name)).stack_size(STACK);
    let id = thread.spawn(move || serve(queue))?.thread().id();
    Ok(Reserved { id, jobs: Some(jobs) })
}

/// Runs `job` on a parked thread or a new one.
///
/// # Errors
/// The operating system's, when it refuses a thread; the job is dropped then.
pub(crate) fn run(name: &str, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    reserve(name)?.run(name, job);
    Ok(())
}

impl Reserved {
    pub(crate) fn run(mut self, name: &str, job: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = self.jobs.take() {
            // One that is not parked does not end.
            let _ = jobs.send((name_of(name), Box::new(job)));
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(jobs) = self.jobs.take() {
            park(Parked { id: self.id, jobs });
        }
    }
}

/// A name with a NUL is refused by std with a panic.
fn name_of(name: &str) -> String {
    format!("leasehold/{name}").replace('\0', "\u{fffd}")
}

fn serve(mut queue: Receiver<Job>) {
    let (id, mut named) = (thread::current().id(), thread::current().name().unwrap_or_default().to_owned());
    loop {
        let (name, job) = match queue.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let mut parking = parking();
                let Some(place) = parking.iter().position(|parked| parked.id == id) else {
                    // Reserved: whoever did that has a job for it, or parks it again.
                    continue;
                };
                parking.remove(place);
                return;
            }
        };
        // Nothing comes by it any more, and a thread may have its job for long.
        drop(queue);
        if name != named {
            rename(&name);
            named = name;
        }
        // What a job owes to others it pays in destructors; the thread itself goes on.
        let _ = catch_unwind(AssertUnwindSafe(job));
        let (jobs, next) = mpsc::sync_channel(1);
        queue = next;
        park(Parked { id, jobs });
    }
}

/// One that finds no room sees the end of its queue, and ends.
fn park(parked: Parked) {
    let mut parking = parking();
    if parking.len() < PARKED {
        parking.push(parked);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn rename(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // For those who look from outside; the kernel keeps 15 bytes.
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn rename(_: &str) {}

fn parking() -> std::sync::MutexGuard<'static, Vec<Parked>> {
    PARKING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Limit};

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn one_that_is_reserved_waits_for_its_job_or_is_parked_again() {
        let reserved = reserve("kept").unwrap();
        let (id, (tell, told)) = (reserved.id, mpsc::channel());
        // Longer than one without work stays.
        assert_eq!(told.recv_timeout(5 * IDLE), Err(RecvTimeoutError::Timeout));
        reserved.run("kept", move || tell.send(thread::current().id()).unwrap());
        assert_eq!(told.recv_timeout(LONG), Ok(id));

        let reserved = reserve("unused").unwrap();
        let id = reserved.id;
        let is_parked = || parking().iter().any(|parked| parked.id == id);
        assert!(!is_parked());
        drop(reserved);
        let limit = Limit::after(&Clock::system(), LONG);
        while is_parked() {
            assert!(!limit.passed(), "without work it ends");
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_serves_one_job_after_another_and_outlives_a_panic() {
        let (tell, told) = mpsc::channel();
        let mut ids = Vec::new();
        for round in 0..20 {
            let tell = tell.clone();
            run("test", move || {
                tell.send(std::thread::current().id()).unwrap();
                assert!(round % 5 != 4, "a panic, on purpose");
            })
            .unwrap();
            ids.push(told.recv_timeout(LONG).unwrap());
        }
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert!(distinct.len() < 20, "threads are used again");
    }

    #[test]
    fn any_name_will_do() {
        let (tell, told) = mpsc::channel();
        run("nul\0 and \u{1f512}", move || tell.send(()).unwrap()).unwrap();
        told.recv_timeout(LONG).unwrap();
    }
}
