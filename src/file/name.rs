//! File names that people can read, from lock names that may hold anything.
//!
//! No two lock names meet in one file, on file systems that fold case or normalise Unicode too: capitals are
//! written `+a` (as Go's module cache writes `!a`), and every byte but `a-z 0-9 - _ .` as `%2F`.

use std::fmt::Write;

use crate::{Error, ErrorKind, Result};

/// How the file of a lock is named: as this library does it, or as a Go library whose locks are to be the same.
///
/// A choice of [`Store::names`](super::Store::names), and of `?names=` in an address. All who share a directory make
/// the same one: only programs that agree on the file exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// This library's own, which people can read and `flock(1)` can take part in.
    #[default]
    Escaped,
    /// Those of the file locker of the Go library lockgate (werf); `?names=lockgate` in an address.
    ///
    /// The file is the SHA-256 of the name in hexadecimal, so that any name will do and
    /// [`list`](crate::Locker::list) cannot tell one. Exclusive and shared locks are the same `flock` for both; a
    /// crash of either frees them at once. What lockgate does not do:
    ///
    /// - **Other users**: it makes its files with mode 600. Whom that keeps out is told so (`Denied`).
    /// - **The line**: it neither writes nor reads who holds a lock, and takes no fencing token. Its processes are
    ///   named as the kernel knows them.
    /// - **Waiting**: it tries every 500 ms, so that it may take so long to see our release; we see its at once.
    #[cfg(feature = "lockgate-files")]
    Lockgate,
}

impl Names {
    /// Whether a lock can have this name.
    ///
    /// # Errors
    /// `Name`, when the file name would be too long.
    pub(super) fn check(self, name: &str) -> Result<()> {
        match self {
            Self::Escaped => check(name),
            #[cfg(feature = "lockgate-files")]
            Self::Lockgate => Ok(()),
        }
    }

    /// Writes the file name of a lock behind what is there, such as a directory.
    pub(super) fn file_onto(self, path: &mut String, name: &str) -> Result<()> {
        match self {
            Self::Escaped => escape_onto(path, name),
            #[cfg(feature = "lockgate-files")]
            Self::Lockgate => {
                use sha2::{Digest, Sha256};
                // "hashsum.go" of lockgate: the name's bytes alone.
                for byte in Sha256::digest(name) {
                    let _ = write!(path, "{byte:02x}");
                }
                Ok(())
            }
        }
    }
}

const SUFFIX: &str = ".lock";
/// What Linux, macOS and Windows take in one component of a path.
const LONGEST: usize = 255 - SUFFIX.len();
/// Windows gives these to devices, with any suffix.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

fn check(name: &str) -> Result<()> {
    // Three bytes for one is the most that escaping makes of it.
    if name.len() <= LONGEST / 3 { Ok(()) } else { escape(name).map(drop) }
}

/// The file name of a lock.
fn escape(name: &str) -> Result<String> {
    let mut file = String::with_capacity(name.len() + SUFFIX.len() + 8);
    escape_onto(&mut file, name)?;
    Ok(file)
}

/// Writes the file name of a lock behind what is there, such as a directory.
fn escape_onto(path: &mut String, name: &str) -> Result<()> {
    let start = path.len();
    for (place, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => path.push(byte as char),
            // Not at the start: no hidden file, no `.` and no `..`.
            b'.' if place > 0 => path.push('.'),
            b'A'..=b'Z' => path.extend(['+', byte.to_ascii_lowercase() as char]),
            _ => drop(write!(path, "%{byte:02X}")),
        }
    }
    if matches!(path.as_bytes().get(start), Some(b'c' | b'p' | b'a' | b'n' | b'l'))
        && is_device(&path[start..])
    {
        let first = path.remove(start);
        path.insert_str(start, &format!("%{:02X}", u32::from(first)));
    }
    let length = path.len() - start;
    if length > LONGEST {
        let what = format!("it takes {length} bytes as a file name, and {LONGEST} is the most: shorten it");
        return Err(Error::new(ErrorKind::Name, what));
    }
    path.push_str(SUFFIX);
    Ok(())
}

/// The lock name of a file; `None` for a file that is none of ours.
pub(super) fn unescape(file: &str) -> Option<String> {
    let escaped = file.strip_suffix(SUFFIX)?;
    let mut bytes = escaped.bytes();
    let mut name = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'+' => bytes.next().filter(u8::is_ascii_lowercase)?.to_ascii_uppercase(),
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    let name = String::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    // Other spellings of the same name are other files.
    (escape(&name).ok()? == file).then_some(name)
}

fn is_device(file: &str) -> bool {
    let stem = file.split('.').next().unwrap_or_default();
    let numbered = |device| {
        stem.strip_prefix(device).is_some_and(|n: &str| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    DEVICES.contains(&stem) || numbered("com") || numbered("lpt")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readable_where_they_can_be() {
        for (name, file) in [
            ("migration", "migration.lock"),
            ("db-1.2_x", "db-1.2_x.lock"),
            ("DB", "+d+b.lock"),
            ("db", "db.lock"),
            ("..", "%2E..lock"),
            (".", "%2E.lock"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.lock"),
            ("a b+c", "a%20b%2Bc.lock"),
            ("nul\0", "nul%00.lock"),
            ("ü", "%C3%BC.lock"),
            ("con", "%63on.lock"),
            ("com1.x", "%63om1.x.lock"),
            ("common", "common.lock"),
        ] {
            assert_eq!(escape(name).unwrap(), file);
            assert_eq!(unescape(file).as_deref(), Some(name));
        }
    }

    /// Vectors of lockgate itself.
    #[cfg(feature = "lockgate-files")]
    #[test]
    fn lockgate_takes_the_sha_256_of_the_name() {
        let file = |name| {
            let mut path = "/dir/".to_owned();
            Names::Lockgate.file_onto(&mut path, name).unwrap();
            path
        };
        assert_eq!(file("mylock"), "/dir/441b504f1f54f453e0be145fbc334aa2745fe231add3c914aa0ce2de64befca2");
        assert_eq!(
            file("release/myapp"),
            "/dir/a73c4953efbe03a3d0a6394ba9cecdf4cb228be33d6dbdcc5208a35307fcac5d"
        );
        Names::Lockgate.check(&"x".repeat(10_000)).unwrap();
    }

    #[test]
    fn what_is_none_of_ours() {
        for file in
            [".lock", "x", "x.locks", "X.lock", "%2f.lock", "%61.lock", "+1.lock", "%FF.lock", "%2.lock"]
        {
            assert_eq!(unescape(file), None, "{file}");
        }
    }

    #[test]
    fn too_long() {
        assert!(escape(&"a".repeat(250)).is_ok());
        let error = escape(&"a".repeat(10_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name);
        assert!(error.to_string().contains("10000") && error.to_string().contains("250"));
    }

    proptest! {
        #[test]
        fn no_two_names_meet_and_none_leaves_the_directory(a in "\\PC{1,20}|[a-zA-Z./+%\0]{1,9}", b in "[a-zA-Z./+%]{1,9}") {
            let file = escape(&a).unwrap();
            prop_assert_eq!(unescape(&file), Some(a.clone()));
            prop_assert!(file.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'\\'));
            prop_assert!(!file.starts_with('.'));
            if a != b {
                let other = escape(&b).unwrap();
                prop_assert!(!file.eq_ignore_ascii_case(&other));
            }
        }
    }
}
