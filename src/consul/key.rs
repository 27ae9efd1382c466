//! From lock names to keys that people can read and that every version of Consul takes.
//!
//! The key of a lock is `NAME`, or `PREFIX/NAME`. In `NAME` the bytes `A-Z a-z 0-9 - _ .` and slashes stay, so that a
//! lock can be one of another program's: `service/leader` is that key. Every other byte of the UTF-8 is written `=2F`:
//! `=` and two capital hexadecimal digits. So are a slash at either end or behind another one, and the last dot of a
//! part that is `.` or `..`, since keys with those do not survive on the way. The escape can be undone, so that no two
//! names meet in one key. Consul 1.21.5 takes only keys of `A-Z a-z 0-9 , _ . / - ? & =`.
//!
//! Readers have their entries at `KEY/=readers/SESSION`. No lock has such a key: `=re` is no escape.

use std::fmt::Write;

use crate::{Error, ErrorKind, Result};

const LONGEST: usize = 1024;
const READERS: &str = "/=readers/";

/// The keys of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// Empty, or with a slash at the end.
    prefix: String,
}

impl Keys {
    /// Keys behind a prefix, which may hold slashes; an empty one is none.
    ///
    /// # Errors
    /// `Config`, when no key should start like this.
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
        } else if prefix.split('/').any(|part| matches!(part, "." | "..")) {
            "has a part `.` or `..`"
        } else if prefix.len() > LONGEST / 2 {
            "is longer than 512 characters"
        } else {
            return Ok(Self { prefix: format!("{prefix}/") });
        };
        Err(Error::new(ErrorKind::Config, format!("the prefix of the keys {wrong}")))
    }

    /// The key of a lock.
    ///
    /// # Errors
    /// `Name`, when it would be too long, or the name is empty.
    pub(super) fn key(&self, name: &str) -> Result<String> {
        if name.is_empty() {
            return Err(Error::new(ErrorKind::Name, "it is empty"));
        }
        let mut key = String::with_capacity(self.prefix.len() + name.len() + 8);
        key.push_str(&self.prefix);
        escape_onto(&mut key, name);
        if key.len() > LONGEST {
            let what = format!(
                "it takes {} characters as a key, where all but `A-Z a-z 0-9 - _ . /` takes three a byte, and \
                 {LONGEST} is the most: shorten it",
                key.len()
            );
            return Err(Error::new(ErrorKind::Name, what));
        }
        Ok(key)
    }

    /// The lock name of a key; `None` for a key that can be none of ours.
    pub(super) fn name(&self, key: &str) -> Option<String> {
        let escaped = key.strip_prefix(&self.prefix)?;
        let name = unescape(escaped)?;
        // Other spellings of the same name are other keys.
        (self.key(&name).ok()? == key).then_some(name)
    }

    /// What all keys of the store start with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// What the keys of all readers of a lock start with.
pub(super) fn readers(key: &str) -> String {
    format!("{key}{READERS}")
}

/// Of a reader's entry, the lock's key and the entry's own part.
pub(super) fn reader(key: &str) -> Option<(&str, &str)> {
    key.split_once(READERS)
}

fn escape_onto(key: &mut String, name: &str) {
    let bytes = name.as_bytes();
    let part_at = |place: usize| {
        let start = bytes[..place].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let end = bytes[place..].iter().position(|byte| *byte == b'/').map_or(bytes.len(), |n| place + n);
        &bytes[start..end]
    };
    for (place, &byte) in bytes.iter().enumerate() {
        let stays = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => true,
            b'/' => place > 0 && place + 1 < bytes.len() && bytes[place - 1] != b'/',
            b'.' => {
                let last = bytes.get(place + 1).is_none_or(|next| *next == b'/');
                !(last && matches!(part_at(place), b"." | b".."))
            }
            _ => false,
        };
        if stays {
            key.push(byte.into());
        } else {
            let _ = write!(key, "={byte:02X}");
        }
    }
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = escaped.bytes();
    let mut name = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'=' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_other_programs_are_names() {
        let keys = Keys::default();
        for same in ["service/leader", "x", "prefix/.lock", "a.b/c-d_e", "..a/b..", "a/...x"] {
            assert_eq!(keys.key(same).unwrap(), same);
            assert_eq!(keys.name(same).unwrap(), same);
        }
        for (name, key) in [
            ("a b", "a=20b"),
            ("a=b", "a=3Db"),
            ("é", "=C3=A9"),
            ("/a", "=2Fa"),
            ("a/", "a=2F"),
            ("a//b", "a/=2Fb"),
            (".", "=2E"),
            ("..", ".=2E"),
            ("a/../b", "a/.=2E/b"),
            ("a/./b", "a/=2E/b"),
            ("a?b&c", "a=3Fb=26c"),
        ] {
            assert_eq!(keys.key(name).unwrap(), key);
            assert_eq!(keys.name(key).unwrap(), name);
        }
        for none in ["a b", "a=2fb", "a=41", "=2", "a=FF", "a//b"] {
            assert_eq!(keys.name(none), None, "{none}");
        }
    }

    #[test]
    fn prefixes() {
        let keys = Keys::new("ci/locks/").unwrap();
        assert_eq!(keys, Keys::new("ci/locks").unwrap());
        assert_eq!(keys.key("x").unwrap(), "ci/locks/x");
        assert_eq!(keys.name("ci/locks/x").unwrap(), "x");
        assert_eq!(keys.name("ci/x"), None);
        for wrong in ["/a", "a//b", "a b", "a/..", ".", "a=b", &"x".repeat(513)] {
            assert_eq!(Keys::new(wrong).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[test]
    fn names_that_are_too_long() {
        let keys = Keys::default();
        assert!(keys.key(&"x".repeat(1024)).is_ok());
        for wrong in [&*"x".repeat(1025), &"é".repeat(200), ""] {
            assert_eq!(keys.key(wrong).unwrap_err().kind(), ErrorKind::Name);
        }
    }

    #[test]
    fn readers_lie_where_no_lock_is() {
        let entry = readers("ci/x") + "6b1d";
        assert_eq!(reader(&entry), Some(("ci/x", "6b1d")));
        assert_eq!(Keys::default().name(&entry), None);
    }

    proptest! {
        #[test]
        fn no_two_names_meet(name in "([a./= ]|.){1,12}") {
            let keys = Keys::new("p").unwrap();
            let key = keys.key(&name).unwrap();
            prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=".contains(&b)), "{key}");
            prop_assert!(!key.split('/').any(|part| matches!(part, "" | "." | "..")), "{key}");
            prop_assert_eq!(keys.name(&key), Some(name));
        }

        #[test]
        fn any_key_is_read(key in ".*") {
            let _ = Keys::default().name(&key);
        }
    }
}
