//! Tokens of whoever is logged in with the Azure CLI: `az account get-access-token`.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, SystemTime},
};

use super::{
    answer::first_line,
    connection::Cloud,
    json::Object,
    oauth::SCOPE,
    token::{Fetched, NoToken, Source, left_until},
};
use crate::{
    ErrorKind,
    clock::{Clock, Limit, wall},
    error::Seconds,
    threads,
};

/// How much of what it says is read.
const LONGEST: u64 = 64 * 1024;

pub(super) struct Cli;

impl Source for Cli {
    fn name(&self) -> &'static str {
        "the Azure CLI"
    }

    fn fetch(&self, _: Cloud, limit: Duration) -> Result<Fetched, NoToken> {
        let (status, [said, complaint]) = run(command(), limit)?;
        if !status.success() {
            return Err(refusal(status, &String::from_utf8_lossy(&complaint)));
        }
        let object = Object::read(&said);
        let token = object.as_ref().and_then(|object| object.text("accessToken"));
        let (Some(object), Some(text)) = (&object, token) else {
            return Err(NoToken::new(
                ErrorKind::Config,
                "`az account get-access-token` gave no token in JSON",
            ));
        };
        // `expiresOn`, which older ones have alone, is a time without its zone.
        let end = object
            .number("expires_on")
            .and_then(|end| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end)));
        let end = end.ok_or_else(|| {
            NoToken::new(
                ErrorKind::Config,
                "`az` did not say when its token ends: version 2.54 or later does",
            )
        })?;
        Ok(Fetched { text: text.to_owned(), life: left_until(end, wall()) })
    }
}

fn command() -> Command {
    let arguments = ["account", "get-access-token", "-o", "json", "--scope", SCOPE];
    #[cfg(windows)]
    let mut command = {
        // `az` is a batch file. Windows looks into the current directory first, where anything may lie.
        let mut command = Command::new("cmd");
        command.args(["/C", "az"]);
        if let Some(root) = crate::address::variable("SystemRoot") {
            command.current_dir(root);
        }
        command
    };
    #[cfg(not(windows))]
    let mut command = Command::new("az");
    command.args(arguments);
    command
}

/// What a program says on its two outputs, and how it ended. It is killed when the time is up.
fn run(mut command: Command, limit: Duration) -> Result<(ExitStatus, [Vec<u8>; 2]), NoToken> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, since `az` is a script that starts the program proper.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => NoToken::new(ErrorKind::Config, "there is no `az` on the PATH"),
        _ => NoToken::new(ErrorKind::Config, format!("`az` cannot be started: {e}")),
    })?;
    let mut running = Running(child);
    let failed = |e: io::Error| NoToken::for_now(format!("`az`: {e}"));
    let (tell, told) = mpsc::channel();
    let read = |n: usize, mut output: Box<dyn Read + Send>| {
        let tell = tell.clone();
        threads::run("az", move || {
            let mut bytes = Vec::new();
            let end = output.by_ref().take(LONGEST + 1).read_to_end(&mut bytes);
            let _ = tell.send((n, end.map(|_| bytes)));
        })
    };
    let (said, complaint) = (running.0.stdout.take(), running.0.stderr.take());
    read(0, Box::new(said.expect("it is piped"))).map_err(failed)?;
    read(1, Box::new(complaint.expect("it is piped"))).map_err(failed)?;
    let limit_is = Limit::after(&Clock::system(), limit);
    let mut outputs = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        let late = || NoToken::for_now(format!("`az` did not end within {}", Seconds(limit)));
        let (n, bytes) = told.recv_timeout(limit_is.remaining()).map_err(|e| match e {
            RecvTimeoutError::Timeout => late(),
            RecvTimeoutError::Disconnected => NoToken::for_now("`az` could not be read"),
        })?;
        outputs[n] = bytes.map_err(failed)?;
        if outputs[n].len() as u64 > LONGEST {
            return Err(NoToken::new(ErrorKind::Config, "`az` says more than a token"));
        }
    }
    // Both its outputs have ended, and so has it, or is about to.
    let status = running.0.wait().map_err(failed)?;
    Ok((status, outputs))
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

/// Why it gave nothing: its first word of error, never what it said on its output.
fn refusal(status: ExitStatus, complaint: &str) -> NoToken {
    let lines = || complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("ERROR")).or_else(|| lines().next()).unwrap_or_default();
    let line = first_line(line);
    let has = |part: &str| complaint.contains(part);
    let kind = if has("az login") || has("AADSTS") {
        ErrorKind::Denied
    } else if has("is not recognized") {
        // What Windows says of a program that is not there.
        ErrorKind::Config
    } else {
        ErrorKind::Unavailable
    };
    NoToken::new(
        kind,
        if line.is_empty() { format!("`az` failed: {status}") } else { format!("`az`: {line}") },
    )
}

#[cfg(all(test, unix))]
#[path = "cli_tests.rs"]
mod tests;
