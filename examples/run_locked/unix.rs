//! Signals, process groups and terminals, as Unix has them.

use std::{
    ffi::OsStr,
    fs,
    io::{self, IsTerminal},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

pub(super) use rustix::process::Signal;
use rustix::{
    process::{self, Pid, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid},
    termios::{tcgetpgrp, tcsetpgrp},
};
use signal_hook::{consts, iterator::Signals};

use super::Happening;

pub(super) const TERM: Signal = Signal::TERM;
pub(super) const KILL: Signal = Signal::KILL;
/// All that matters wakes us, but for a lock file that was deleted.
pub(super) const LOOK: Duration = Duration::from_millis(500);

// First arguments of ourselves, when we start ourselves for an errand.
const RUN_WITH_PARENT: &str = "--hidden-run-with-parent";
const TAKE_TERMINAL: &str = "--hidden-take-terminal";

/// Does what another process of ours started this one for.
pub(super) fn hidden_errand() -> Option<u8> {
    let mut args = std::env::args_os().skip(1);
    let (errand, pid) = (args.next()?, args.next());
    let pid = || pid?.to_str()?.parse().ok().and_then(Pid::from_raw);
    if errand == TAKE_TERMINAL {
        let _ = tcsetpgrp(terminal()?, pid()?);
        return Some(0);
    }
    #[cfg(target_os = "linux")]
    if errand == RUN_WITH_PARENT {
        return Some(run_with_parent(pid()?, &args.next()?, args));
    }
    None
}

/// Becomes the command, which the kernel kills when its parent dies.
#[cfg(target_os = "linux")]
fn run_with_parent(parent: Pid, command: &OsStr, args: std::iter::Skip<std::env::ArgsOs>) -> u8 {
    if let Err(error) = process::set_parent_process_death_signal(Some(KILL)) {
        return super::cannot_run(command, &error.into());
    }
    if process::getppid() != Some(parent) {
        // It died before that, and its lock is free.
        return super::LOST;
    }
    super::cannot_run(command, &Command::new(command).args(args).exec())
}

pub(super) fn command(command: &OsStr) -> Command {
    if cfg!(not(target_os = "linux")) {
        return Command::new(command);
    }
    let mut starter = ourselves();
    starter.args([RUN_WITH_PARENT, &std::process::id().to_string()]).arg(command);
    starter
}

fn ourselves() -> Command {
    // On Linux this leads to us even if our file was replaced meanwhile.
    let path = "/proc/self/exe".into();
    Command::new(if cfg!(target_os = "linux") { path } else { std::env::current_exe().unwrap_or(path) })
}

/// Lets INT, TERM and HUP end waits, and tells of them.
pub(super) fn end_on_signals(
    locker: leasehold::Locker,
    tell: Sender<Happening>,
) -> io::Result<leasehold::Locker> {
    let signals = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
    // `nohup` stays in force, for the command too.
    let mut signals = Signals::new(signals.into_iter().filter(|signal| !is_ignored(*signal)))?;
    let (stop, shutdown) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        for signal in signals.forever().filter_map(Signal::from_named_raw) {
            // In this order, so that who sees the shutdown finds the signal.
            let _ = tell.send(Happening::Signal(signal));
            let _ = stop.send(());
        }
    })?;
    Ok(locker.shutdown_on(shutdown))
}

/// As far as Linux tells.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

pub(super) fn code_of_signal(happenings: &Receiver<Happening>) -> u8 {
    let signal = happenings.try_iter().find_map(|happening| match happening {
        Happening::Signal(signal) => u8::try_from(signal.as_raw()).ok(),
        _ => None,
    });
    128 + signal.unwrap_or_default()
}

/// The command, the leader of a process group of its own.
pub(super) struct Job {
    child: Child,
    group: Pid,
}

impl Job {
    /// To be called on the main thread: Linux takes the end of this thread for that of the parent.
    pub(super) fn start(mut command: Command, tell: &Sender<Happening>) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let job = Self { group: Pid::from_child(&child), child };
        // In a pipeline another of our group may need the terminal, as `less` does: then the command gets
        // it when it is stopped for want of it, unless it will not be stopped, as in `$(..)` of a shell.
        let in_pipeline = !io::stdout().is_terminal() && !is_ignored(consts::SIGTTIN);
        if io::stdin().is_terminal() && !in_pipeline {
            job.resume();
        }
        let (group, tell) = (job.group, tell.clone());
        // This thread may be refused: then the end is seen a little later.
        let _ = thread::Builder::new().spawn(move || watch(group, &tell));
        Ok(job)
    }

    /// Until `finish` it stays a zombie, so that no signal for its group can hit another one.
    pub(super) fn has_ended(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Stops our group too, as if the terminal had stopped both, until the shell resumes it. A command
    /// that was stopped because it is in the background gets the terminal if we have it.
    pub(super) fn stop_with_it(&self, is_held: impl Fn() -> bool) {
        if terminal().is_none() {
            return;
        }
        if !is_foreground(getpgrp()) {
            self.take_terminal();
            let _ = process::kill_current_process_group(Signal::TSTP);
        }
        // We slept as well, and the lock may have run out.
        if is_held() {
            self.resume();
        }
    }

    /// Hands over the terminal, if we have it, and lets the command go on if it was stopped for want of it.
    fn resume(&self) {
        if is_foreground(getpgrp()) {
            let _ = terminal().map(|terminal| tcsetpgrp(terminal, self.group));
        }
        let _ = kill_process_group(self.group, Signal::CONT);
    }

    /// Gives the terminal back to our group, for the script that we may be part of.
    ///
    /// In the background we cannot: the kernel would stop us. A process in the command's group can.
    fn take_terminal(&self) {
        if is_foreground(self.group) {
            let group = getpgrp().as_raw_pid().to_string();
            let mut errand = ourselves();
            errand.args([TAKE_TERMINAL, &group]).process_group(self.group.as_raw_pid());
            let _ = errand.status();
        }
    }

    pub(super) fn finish(mut self) -> io::Result<ExitStatus> {
        self.take_terminal();
        self.child.wait()
    }
}

fn terminal() -> Option<fs::File> {
    fs::File::open("/dev/tty").ok()
}

fn is_foreground(group: Pid) -> bool {
    terminal().is_some_and(|terminal| tcgetpgrp(terminal) == Ok(group))
}

/// Tells when the terminal stops the command, and when that has ended.
fn watch(pid: Pid, tell: &Sender<Happening>) {
    let (stopped, peek) = (WaitIdOptions::STOPPED, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    while let Ok(Some(status)) = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), peek | stopped))
        && status.stopped()
    {
        // Takes this report away, so that the next is awaited.
        let _ = waitid(WaitId::Pid(pid), stopped | WaitIdOptions::NOHANG);
        // Who sends STOP by hand wants it to stay stopped.
        if matches!(status.stopping_signal(), Some(consts::SIGTSTP | consts::SIGTTIN | consts::SIGTTOU)) {
            let _ = tell.send(Happening::Stopped);
        }
    }
    let _ = tell.send(Happening::Look);
}

pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
