//! Blob names that people can read, from lock names that may hold anything; or those of the Go libraries.
//!
//! Unless [`Names`] says otherwise, the blob of a lock is `NAME`, or `PREFIX/NAME` when the store has a prefix. In `NAME` the bytes
//! `A-Z a-z 0-9 - _ .` stay, and every other byte of the UTF-8 is written `~2F`: `~` and two capital
//! hexadecimal digits. A dot at the end is written `~2E`, since the service does without such dots. So
//!
//! - no two lock names meet in one blob: the escape can be undone, and blob names are case-sensitive;
//! - no character of a blob name means anything in a URL, to a proxy or to a library that tidies URLs up:
//!   there is no `%`, no `\` (which the service stores as `/`), no `//`, and no `.` or `..` between slashes;
//! - a lock name never adds a slash, so neither do the locks of two prefixes meet (`a` with `b/c`, `a/b` with
//!   `c`).
//!
//! What lies beside a lock has its blob at `PREFIX/~locks/NAME/ID`, with the name escaped whatever the lock's own
//! blob is called: else what lies beside `a/b` would lie beside `a` too. No lock's blob starts like this: no escaped
//! name, as `lo` is no hexadecimal number; no prefix, as none holds a `~`; none of goazurelocking, which start with
//! `azlk-`; no key of go-azuremutex, since those with `~` at the start are refused.
//!
//! A blob name has at most 1024 characters and 254 segments ("Naming and referencing containers, blobs, and
//! metadata"); 64 of the characters are kept for what lies beside a lock.

use std::fmt::Write;

use super::peers::{self, Names};
use crate::{Error, ErrorKind, Result};

const LONGEST: usize = 1024 - 64;
/// Leaves room for the segments of what lies beside a lock.
pub(super) const SEGMENTS: usize = 250;
const BESIDE: &str = "~locks/";

/// The blob names of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BlobNames {
    names: Names,
    /// Empty, or with a slash at the end.
    prefix: String,
}

impl BlobNames {
    /// Such names, behind a prefix, which may hold slashes; an empty one is none.
    ///
    /// # Errors
    /// `Config`, when a blob name cannot start like this, or names that are others' have a prefix.
    pub(super) fn new(names: Names, prefix: &str) -> Result<Self> {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.is_empty() {
            return Ok(Self { names, prefix: String::new() });
        }
        if names != Names::Escaped {
            return Err(config(
                "the Go libraries know no prefix: leave it out, or leave `names` to this library".to_owned(),
            ));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let wrong = if !prefix.bytes().all(plain) {
            "has characters other than letters, digits, `-`, `_`, `.` and `/`"
        } else if prefix.split('/').any(str::is_empty) {
            "starts with a slash or has two of them in a row"
        } else if prefix.split('/').any(|segment| segment.ends_with('.')) {
            "has a dot at the end or before a slash"
        } else if prefix.len() > LONGEST / 2 || prefix.split('/').count() > SEGMENTS {
            "is longer than 480 characters or 250 segments"
        } else {
            return Ok(Self { names, prefix: format!("{prefix}/") });
        };
        Err(config(format!("the prefix of the blob names {wrong}")))
    }

    /// Whether a lock can have this name.
    ///
    /// # Errors
    /// `Name`, when the blob name would be too long, the lock name is empty, or the Go library refuses it.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        // Three bytes for one is the most that escaping makes of it.
        let surely =
            self.names == Names::Escaped && !name.is_empty() && self.prefix.len() + 3 * name.len() <= LONGEST;
        if surely { Ok(()) } else { self.blob(name).map(drop) }
    }

    /// The blob of a lock.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn blob(&self, name: &str) -> Result<String> {
        match self.names {
            Names::Escaped => {
                let mut blob = String::with_capacity(self.prefix.len() + name.len() + 8);
                blob.push_str(&self.prefix);
                escape_onto(&mut blob, name)?;
                Ok(blob)
            }
            Names::GoAzureLocking => peers::goazurelocking(name),
            Names::AzMutex => {
                peers::check_azmutex(name)?;
                // What lies beside the lock needs the room.
                escape_onto(&mut String::new(), name)?;
                Ok(name.to_owned())
            }
        }
    }

    /// The lock name of a blob; `None` for a blob that is none of ours.
    pub(super) fn lock(&self, blob: &str) -> Option<String> {
        match self.names {
            Names::Escaped => unescape(blob.strip_prefix(&self.prefix)?),
            Names::GoAzureLocking => peers::goazurelocking_lock(blob),
            Names::AzMutex => self.check(blob).is_ok().then(|| blob.to_owned()),
        }
    }

    /// What the names of all blobs beside a lock start with.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn beside(&self, name: &str) -> Result<String> {
        self.check(name)?;
        let mut blob = self.prefix.clone();
        escape_onto(&mut blob, name)?;
        blob.insert_str(self.prefix.len(), BESIDE);
        blob.push('/');
        Ok(blob)
    }

    /// Of a blob that lies beside a lock, that lock's name and the blob's last part.
    pub(super) fn part<'a>(&self, blob: &'a str) -> Option<(String, &'a str)> {
        let (name, part) = blob.strip_prefix(&self.prefix)?.strip_prefix(BESIDE)?.split_once('/')?;
        Some((unescape(name)?, part))
    }

    /// Whether others write the locks' blobs, too.
    pub(super) fn are_others(&self) -> bool {
        self.names != Names::Escaped
    }

    /// What the names of all blobs of the store start with, for listing them.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// "Container names": 3 to 63 of `a-z 0-9 -`, no hyphen at either end, no two in a row.
///
/// # Errors
/// `Config`, saying which of this is broken.
pub(super) fn check_container(name: &str) -> Result<()> {
    let wrong = if matches!(name, "$root" | "$logs" | "$web") {
        "this container has a meaning of its own to the service"
    } else if !(3..=63).contains(&name.len()) {
        "it takes 3 to 63 characters"
    } else if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        "it takes lower-case letters `a-z`, digits and hyphens"
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        "hyphens stand alone, and between letters or digits"
    } else {
        return Ok(());
    };
    Err(config(format!("{name:?} cannot be the name of a container: {wrong}")))
}

/// "Blob names": 1 to 1024 characters.
///
/// # Errors
/// `Name`, saying which of this is broken.
pub(super) fn check_blob(name: &str) -> Result<()> {
    let wrong = if name.is_empty() || name.chars().count() > 1024 {
        "it takes 1 to 1024 characters"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if name.contains('\\') {
        "the service stores `\\` as `/`: write that"
    } else if name.ends_with(['.', '/']) || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "dots and slashes at its end, `//`, `.` and `..` do not survive on the way"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Name, format!("{name:?} cannot be the name of a blob: {wrong}")))
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}

fn escape_onto(blob: &mut String, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Name, "it is empty"));
    }
    let last = name.len() - 1;
    for (place, byte) in name.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => blob.push(byte.into()),
            b'.' if place < last => blob.push('.'),
            _ => drop(write!(blob, "~{byte:02X}")),
        }
    }
    let length = blob.len();
    if length > LONGEST {
        let what = format!(
            "it takes {length} characters as a blob name, where all but `A-Z a-z 0-9 - _ .` takes three a byte, and \
             {LONGEST} is the most: shorten it"
        );
        return Err(Error::new(ErrorKind::Name, what));
    }
    Ok(())
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = escaped.bytes();
    let mut name = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'~' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    let name = String::from_utf8(name).ok()?;
    // Other spellings of the same name are other blobs.
    let mut again = String::with_capacity(escaped.len());
    escape_onto(&mut again, &name).ok()?;
    (again == escaped).then_some(name)
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
