//! Blob names that people can read, from lock names that may hold anything.
//!
//! The blob of a lock is `NAME`, or `PREFIX/NAME` when the store has a prefix. In `NAME` the bytes
//! `A-Z a-z 0-9 - _ .` stay, and every other byte of the UTF-8 is written `~2F`: `~` and two capital
//! hexadecimal digits. A dot at the end is written `~2E`, since the service does without such dots. So
//!
//! - no two lock names meet in one blob: the escape can be undone, and blob names are case-sensitive;
//! - no character of a blob name means anything in a URL, to a proxy or to a library that tidies URLs up:
//!   there is no `%`, no `\` (which the service stores as `/`), no `//`, and no `.` or `..` between slashes;
//! - a lock name never adds a slash, so neither do the locks of two prefixes meet (`a` with `b/c`, `a/b` with
//!   `c`).
//!
//! What lies beside a lock has its blob at `PREFIX/~readers/NAME/ID`. No escaped name starts like this, as
//! `re` is no hexadecimal number, and no prefix holds a `~`.
//!
//! A blob name has at most 1024 characters and 254 segments ("Naming and referencing containers, blobs, and
//! metadata"); 64 of the characters are kept for what lies beside a lock.

use std::fmt::Write;

use crate::{Error, ErrorKind, Result};

const LONGEST: usize = 1024 - 64;
/// Leaves room for the segments of what lies beside a lock.
const SEGMENTS: usize = 250;
const READERS: &str = "~readers/";

/// The blob names of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Empty, or with a slash at the end.
    prefix: String,
}

impl Names {
    /// Names behind a prefix, which may hold slashes; an empty one is none.
    ///
    /// # Errors
    /// `Config`, when a blob name cannot start like this.
    pub(super) fn new(prefix: &str) -> Result<Self> {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.is_empty() {
            return Ok(Self::default());
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
            return Ok(Self { prefix: format!("{prefix}/") });
        };
        Err(config(format!("the prefix of the blob names {wrong}")))
    }

    /// Whether a lock can have this name.
    ///
    /// # Errors
    /// `Name`, when the blob name would be too long, or the lock name is empty.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        // Three bytes for one is the most that escaping makes of it.
        let surely = !name.is_empty() && self.prefix.len() + 3 * name.len() <= LONGEST;
        if surely { Ok(()) } else { self.blob(name).map(drop) }
    }

    /// The blob of a lock.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn blob(&self, name: &str) -> Result<String> {
        let mut blob = String::with_capacity(self.prefix.len() + name.len() + 8);
        blob.push_str(&self.prefix);
        escape_onto(&mut blob, name)?;
        Ok(blob)
    }

    /// The lock name of a blob; `None` for a blob that is none of ours.
    #[cfg_attr(not(test), expect(dead_code, reason = "for listing and shared mode, which come next"))]
    pub(super) fn lock(&self, blob: &str) -> Option<String> {
        unescape(blob.strip_prefix(&self.prefix)?)
    }

    /// What the names of all blobs beside a lock start with.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    #[cfg_attr(not(test), expect(dead_code, reason = "for listing and shared mode, which come next"))]
    pub(super) fn readers(&self, name: &str) -> Result<String> {
        let mut blob = self.prefix.clone();
        escape_onto(&mut blob, name)?;
        blob.insert_str(self.prefix.len(), READERS);
        blob.push('/');
        Ok(blob)
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
        let what =
            format!("it takes {length} characters as a blob name, and {LONGEST} is the most: shorten it");
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readable_where_they_can_be() {
        let names = Names::new("").unwrap();
        for (name, blob) in [
            ("migration", "migration"),
            ("DB-1.2_x", "DB-1.2_x"),
            ("..", ".~2E"),
            (".", "~2E"),
            ("a.", "a~2E"),
            ("../../etc/passwd", "..~2F..~2Fetc~2Fpasswd"),
            ("a b+c%2F", "a~20b~2Bc~252F"),
            ("a\\b", "a~5Cb"),
            ("~2F", "~7E2F"),
            ("~readers/x", "~7Ereaders~2Fx"),
            ("nul\0", "nul~00"),
            ("ü", "~C3~BC"),
        ] {
            assert_eq!(names.blob(name).unwrap(), blob);
            assert_eq!(names.lock(blob).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_none_of_ours() {
        let names = Names::new("").unwrap();
        for blob in ["", "a/b", "~2f", "~61", "~FF", "~2", "~", "~+2", "a.", "a b", "ü", "~readers/a/1"] {
            assert_eq!(names.lock(blob), None, "{blob}");
        }
        let names = Names::new("x/y").unwrap();
        for blob in ["x/y", "x/y/", "x/yz", "x/y/z/a", "z", "X/Y/z", "x/y/~readers/z/1"] {
            assert_eq!(names.lock(blob), None, "{blob}");
        }
        assert_eq!(names.lock("x/y/z").as_deref(), Some("z"));
    }

    #[test]
    fn prefixes() {
        for (prefix, blob) in
            [("", "db"), ("/", "db"), ("a", "a/db"), ("a/", "a/db"), (".a/B_-1", ".a/B_-1/db")]
        {
            let names = Names::new(prefix).unwrap();
            assert_eq!(names.blob("db").unwrap(), blob);
            assert_eq!(names.prefix().len(), blob.len() - 2);
        }
        assert_eq!(Names::new("a").unwrap().readers("d/b").unwrap(), "a/~readers/d~2Fb/");
        let long = "a".repeat(481);
        let deep = "a/".repeat(251);
        for prefix in
            ["//", "/a", "a//b", "a/./b", "a/../b", "a.", "a./b", "a b", "a\\b", "ü", "~", &long, &deep]
        {
            assert_eq!(Names::new(prefix).unwrap_err().kind(), ErrorKind::Config, "{prefix}");
        }
    }

    #[test]
    fn too_long_or_empty() {
        let names = Names::new("abc").unwrap();
        assert!(names.blob(&"a".repeat(956)).is_ok() && names.check(&"a".repeat(956)).is_ok());
        let error = names.blob(&"a".repeat(957)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name);
        assert!(error.to_string().contains("961") && error.to_string().contains("960"));
        assert_eq!(names.check(&"/".repeat(400)).unwrap_err().kind(), ErrorKind::Name);
        assert_eq!(names.check("").unwrap_err().kind(), ErrorKind::Name);
        assert!(names.readers(&"a".repeat(956)).unwrap().len() + 36 <= 1024);
    }

    #[test]
    fn containers() {
        for name in ["abc", "a-b-c", "1locks", "0-0", &"a".repeat(63)] {
            assert!(check_container(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "ab",
            "Abc",
            "a_b",
            "a.b",
            "-ab",
            "ab-",
            "a--b",
            "a/b",
            "äbc",
            "$root",
            "$web",
            &"a".repeat(64),
        ] {
            assert_eq!(check_container(name).unwrap_err().kind(), ErrorKind::Config, "{name}");
        }
    }

    fn lock() -> impl Strategy<Value = String> {
        "\\PC{1,20}|[a-zA-Z./+%~\\\\\0]{1,9}|[~2F./]{1,5}"
    }

    fn prefix() -> impl Strategy<Value = String> {
        "([ab]{1,2}(/[ab]{1,2}){0,2})?"
    }

    proptest! {
        #[test]
        fn no_two_locks_meet(a in lock(), b in lock(), p in prefix(), q in prefix()) {
            let (p, q) = (Names::new(&p).unwrap(), Names::new(&q).unwrap());
            let blob = p.blob(&a).unwrap();
            prop_assert_eq!(p.lock(&blob), Some(a.clone()));
            if (&p, &a) != (&q, &b) {
                prop_assert_ne!(&blob, &q.blob(&b).unwrap());
                prop_assert_ne!(p.readers(&a).unwrap(), q.readers(&b).unwrap());
            }
            prop_assert!(!blob.starts_with(&q.readers(&b).unwrap()));
            prop_assert_eq!(q.lock(&format!("{}1", p.readers(&a).unwrap())), None);
        }

        #[test]
        fn every_blob_name_is_valid(name in lock(), p in prefix()) {
            let blob = Names::new(&p).unwrap().blob(&name).unwrap();
            prop_assert!(blob.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b)));
            prop_assert!(blob.split('/').all(|part| !part.is_empty() && !part.ends_with('.')));
            prop_assert_eq!(blob.matches('/').count(), p.split('/').filter(|part| !part.is_empty()).count());
        }

        #[test]
        fn no_blob_name_is_taken_for_two_locks(blob in "[a-c~0-9A-F./]{0,9}") {
            let names = Names::new("").unwrap();
            if let Some(name) = names.lock(&blob) {
                prop_assert_eq!(names.blob(&name).unwrap(), blob);
            }
        }

        #[test]
        fn the_check_agrees(length in 300_usize..1000, unit in prop::sample::select(vec!["a", "/", "ü"])) {
            let names = Names::new("a/b").unwrap();
            let name = unit.repeat(length);
            prop_assert_eq!(names.check(&name).is_ok(), names.blob(&name).is_ok());
        }
    }
}
