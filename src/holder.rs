//! Who holds a lock, and what is known of a lock in a store.

use std::{fmt, sync::OnceLock, time::SystemTime};

use crate::rfc3339::rfc3339;

/// How a lock is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// By one holder alone.
    #[default]
    Exclusive,
    /// Together with other shared holders, never beside an exclusive one.
    Shared,
}

/// Who holds a lock, as far as the store tells. [`Display`](fmt::Display) is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    words: String,
    host: Option<String>,
    pid: Option<u32>,
    since: Option<SystemTime>,
}

impl Holder {
    /// A holder known by its own words; the rest is unknown until a setter tells it.
    pub fn new(words: &str) -> Self {
        Self { words: words.to_owned(), host: None, pid: None, since: None }
    }

    /// The holder's process and the name of its machine.
    pub fn with_process(mut self, host: &str, pid: u32) -> Self {
        self.host = Some(host.to_owned());
        self.pid = Some(pid);
        self
    }

    /// Since when it holds the lock, on the wall clock of the holder or of the store.
    pub fn with_since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }

    /// This process, with its user's words or, without any, the program's name.
    pub(crate) fn here(words: Option<String>) -> Self {
        Self {
            words: words.unwrap_or_else(program),
            host: Some(host().to_owned()),
            pid: Some(std::process::id()),
            since: None,
        }
    }

    /// What the holder says of itself.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The name of the holder's machine.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The holder's process id on its machine.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Since when, on the wall clock of the holder or of the store.
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Whether this is the process that asks.
    pub(crate) fn is_this_process(&self) -> bool {
        self.pid == Some(std::process::id()) && self.host.as_deref() == Some(host())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.words)?;
        let mut parts = Vec::new();
        if self.is_this_process() {
            parts.push("this process".to_owned());
        } else {
            parts.extend(self.pid.map(|pid| format!("pid {pid}")));
            parts.extend(self.host.as_ref().map(|host| format!("on {}", host.escape_debug())));
        }
        parts.extend(self.since.map(|since| format!("since {}", rfc3339(since))));
        match parts.as_slice() {
            [] => Ok(()),
            parts => write!(f, " ({})", parts.join(", ")),
        }
    }
}

/// How a lock is taken from its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Break {
    /// Nobody gets the lock before its holder has seen the loss, or has had the time to.
    AfterNotice,
    /// At once, beside a holder who still believes that it has the lock: for when that is surely dead.
    Now,
}

/// One lock in the store.
#[derive(Clone, Debug)]
pub struct Status {
    name: String,
    mode: Option<Mode>,
    expires: bool,
    holders: Vec<Holder>,
}

impl Status {
    /// For stores: a lock of this name; `mode` is `None` when it is free; `expires`: its TTL frees it after a
    /// crash; `holders`: those that the store can tell.
    pub fn new(name: &str, mode: Option<Mode>, expires: bool, holders: Vec<Holder>) -> Self {
        Self { name: name.to_owned(), mode, expires, holders }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is held; `None` when it is free.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }

    /// Whether a TTL frees it when its holder is gone.
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Who holds it, as far as the store tells: perhaps not all, or nobody.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }
}

/// The name of this machine.
pub(crate) fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        #[cfg(unix)]
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        #[cfg(not(unix))]
        #[expect(clippy::disallowed_methods, reason = "Windows tells its name there")]
        let name = std::env::var("COMPUTERNAME").unwrap_or_else(|_| "unknown".to_owned());
        name
    })
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_stem().unwrap_or_default();
    match name.to_string_lossy().as_ref() {
        "" => "unknown program".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        let since = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_244_820);
        let there = Holder::new("migration\n1.2").with_process("db1", 47).with_since(since);
        assert_eq!(there.to_string(), r#""migration\n1.2" (pid 47, on db1, since 2026-11-21T07:07:00Z)"#);
        assert_eq!(Holder::new("x").to_string(), r#""x""#);
        let here = Holder::here(Some("me".to_owned()));
        assert_eq!(here.to_string(), r#""me" (this process)"#);
        assert!(!Holder::here(None).words().is_empty());
    }
}
