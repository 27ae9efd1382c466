//! Programs that give a credential: run for a while at most, heard, and ended with all that they started.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use crate::{
    Error, ErrorKind, Result,
    backoff::Pace,
    clock::{Clock, Limit},
    error::Seconds,
    threads,
};

/// How much of what it says is read.
const LONGEST: u64 = 64 * 1024;

/// What a program says on its two outputs, and how it ended. It is killed when the time is up.
///
/// # Errors
/// `Config` for one that cannot be started or that says too much, `Unavailable` for one that does not end in time.
pub(crate) fn run(name: &str, mut command: Command, limit: Duration) -> Result<(ExitStatus, [Vec<u8>; 2])> {
    let error = |kind, what: String| Error::new(kind, what).not_sent();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, since it may be a script that starts the program proper.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => error(ErrorKind::Config, format!("there is no `{name}` on the PATH")),
        _ => error(ErrorKind::Config, format!("`{name}` cannot be started: {e}")),
    })?;
    let mut running = Running(child);
    let failed = |e: io::Error| error(ErrorKind::Unavailable, format!("`{name}`: {e}"));
    let (tell, told) = mpsc::channel();
    let read = |n: usize, mut output: Box<dyn Read + Send>| {
        let tell = tell.clone();
        threads::run("program", move || {
            let mut bytes = Vec::new();
            let end = output.by_ref().take(LONGEST + 1).read_to_end(&mut bytes);
            let _ = tell.send((n, end.map(|_| bytes)));
        })
    };
    let (said, complaint) = (running.0.stdout.take(), running.0.stderr.take());
    read(0, Box::new(said.expect("it is piped"))).map_err(failed)?;
    read(1, Box::new(complaint.expect("it is piped"))).map_err(failed)?;
    let limit_is = Limit::after(&Clock::system(), limit);
    let late = || error(ErrorKind::Unavailable, format!("`{name}` did not end within {}", Seconds(limit)));
    let mut outputs = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        let (n, bytes) = told.recv_timeout(limit_is.remaining()).map_err(|e| match e {
            RecvTimeoutError::Timeout => late(),
            RecvTimeoutError::Disconnected => {
                error(ErrorKind::Unavailable, format!("`{name}` could not be read"))
            }
        })?;
        outputs[n] = bytes.map_err(failed)?;
        if outputs[n].len() as u64 > LONGEST {
            return Err(error(ErrorKind::Config, format!("`{name}` says more than a token")));
        }
    }
    // Both its outputs have ended, and so has it, or is about to, if it did not close them itself.
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = running.0.try_wait().map_err(failed)? {
            return Ok((status, outputs));
        }
        if limit_is.passed() {
            return Err(late());
        }
        Pace::default().sleep(&limit_is, pause);
        pause = (2 * pause).min(Duration::from_millis(50));
    }
}

/// Ends with its group when it is dropped, and is waited for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        #[cfg(unix)]
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::KILL,
        );
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(all(test, unix))]
#[path = "program_tests.rs"]
mod tests;
