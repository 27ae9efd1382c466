//! What there is of that elsewhere.

use std::{ffi::OsStr, io, process, sync::mpsc::Sender, time::Duration};

// Both end it at once: there is no gentler way.
pub(super) const TERM: () = ();
pub(super) const KILL: () = ();
/// No thread waits for the command here.
pub(super) const LOOK: Duration = Duration::from_millis(20);

pub(super) fn command(command: &OsStr) -> process::Command {
    process::Command::new(command)
}

pub(super) struct Job(process::Child);

impl Job {
    pub(super) fn start(mut command: process::Command, _: &Sender<super::Happening>) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    pub(super) fn signal(&mut self, (): ()) {
        let _ = self.0.kill();
    }

    pub(super) fn finish(mut self) -> io::Result<process::ExitStatus> {
        self.0.wait()
    }
}

pub(super) fn exit_code(status: process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
