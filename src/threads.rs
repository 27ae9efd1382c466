//! The library's threads: small stacks, names, parked and used again, and refused without a panic.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{Builder, ThreadId},
    time::Duration,
};

/// Five times what a TLS handshake was measured to need in a release build.
const STACK: usize = 256 * 1024;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// More than this many are not kept.
const PARKED: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

struct Parked {
    id: ThreadId,
    jobs: Sender<(String, Job)>,
}

static PARKING: Mutex<Vec<Parked>> = Mutex::new(Vec::new());

/// Runs `job` on a parked thread or a new one.
///
/// # Errors
/// The operating system's, when it refuses a thread; the job is dropped then.
pub(crate) fn run(name: &str, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut work = (format!("leasehold/{name}"), Box::new(job) as Job);
    while let Some(parked) = parking().pop() {
        match parked.jobs.send(work) {
            Ok(()) => return Ok(()),
            Err(refused) => work = refused.0,
        }
    }
    let (name, job) = work;
    // A name with a NUL is refused by std with a panic.
    let name = name.replace('\0', "\u{fffd}");
    let thread = Builder::new().name(name).stack_size(STACK);
    thread.spawn(move || serve(job)).map(drop)
}

fn serve(first: Job) {
    let mut next = Some(first);
    let id = std::thread::current().id();
    while let Some(job) = next {
        // What a job owes to others it pays in destructors; the thread itself goes on.
        let _ = catch_unwind(AssertUnwindSafe(job));
        let (jobs, queue) = mpsc::channel();
        {
            let mut parking = parking();
            if parking.len() >= PARKED {
                return;
            }
            parking.push(Parked { id, jobs });
        }
        next = match queue.recv_timeout(IDLE) {
            Ok((name, job)) => Some(rename(&name, job)),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                parking().retain(|parked| parked.id != id);
                // Whoever took us out of the list just before sends a job, or has sent it.
                queue.recv().ok().map(|(name, job)| rename(&name, job))
            }
        };
    }
}

fn rename(name: &str, job: Job) -> Job {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(name) = std::ffi::CString::new(name) {
        // For those who look from outside; the kernel keeps 15 bytes.
        let _ = rustix::thread::set_name(&name);
    }
    let _ = name;
    job
}

fn parking() -> std::sync::MutexGuard<'static, Vec<Parked>> {
    PARKING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ids.push(told.recv_timeout(IDLE).unwrap());
        }
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert!(distinct.len() < 20, "threads are used again");
    }

    #[test]
    fn any_name_will_do() {
        let (tell, told) = mpsc::channel();
        run("nul\0 and \u{1f512}", move || tell.send(()).unwrap()).unwrap();
        told.recv_timeout(IDLE).unwrap();
    }
}
