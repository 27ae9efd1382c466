//! Tokens of whoever is logged in with the Azure CLI: `az account get-access-token`.

use std::{
    process::{Command, ExitStatus},
    time::{Duration, SystemTime},
};

use super::{
    answer::first_line,
    connection::Cloud,
    json::Object,
    oauth::SCOPE,
    token::{Fetched, NoToken, Source, left_until},
};
use crate::{ErrorKind, clock::wall, program};

pub(super) struct Cli;

impl Source for Cli {
    fn name(&self) -> &'static str {
        "the Azure CLI"
    }

    fn fetch(&self, _: Cloud, limit: Duration) -> Result<Fetched, NoToken> {
        let (status, [said, complaint]) = program::run("az", command(), limit)?;
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
