//! File names that people can read, from lock names that may hold anything.
//!
//! No two lock names meet in one file, on file systems that fold case or normalise Unicode too: capitals are
//! written `+a` (as Go's module cache writes `!a`), and every byte but `a-z 0-9 - _ .` as `%2F`.

use std::fmt::Write;

use crate::{Error, ErrorKind, Result};

pub(super) const SUFFIX: &str = ".lock";
/// What Linux, macOS and Windows take in one component of a path.
const LONGEST: usize = 255 - SUFFIX.len();
/// Windows gives these to devices, with any suffix.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Whether a lock can have this name.
///
/// # Errors
/// `Name`, when the file name would be too long.
pub(super) fn check(name: &str) -> Result<()> {
    // Three bytes for one is the most that escaping makes of it.
    if name.len() <= LONGEST / 3 { Ok(()) } else { escape(name).map(drop) }
}

/// The file name of a lock.
pub(super) fn escape(name: &str) -> Result<String> {
    let mut file = String::with_capacity(name.len() + SUFFIX.len() + 8);
    escape_onto(&mut file, name)?;
    Ok(file)
}

/// Writes the file name of a lock behind what is there, such as a directory.
pub(super) fn escape_onto(path: &mut String, name: &str) -> Result<()> {
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
