//! What the metadata of a blob tells of a lock: its fencing counter, and who holds it.
//!
//! `leaseholdtoken` is the counter, `leaseholdholder` the holder: `words=..&host=..&pid=..&since=..`, percent-encoded,
//! the time in seconds since 1970. The names have letters only, since the service sorts the headers that it signs in
//! an order of its own ([`shared_key`](super::shared_key)). Whatever else the metadata holds is written back.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, SystemTime},
};

use crate::{
    Error, ErrorKind, Holder, Result,
    http::Response,
    percent::{decode_any, encode_onto},
};

const HEADER: &str = "x-ms-meta-";
const TOKEN: &str = "leaseholdtoken";
const HOLDER: &str = "leaseholdholder";
/// Of the 8 KiB that metadata may have, the words of a holder take no more than a part.
const LONGEST_WORDS: usize = 300;

/// The metadata of one blob, by name. Names are compared in any case, and come in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// That of the blob whose properties were asked for.
    ///
    /// # Errors
    /// `Foreign`, when there is some that could not be written back as it is.
    pub(super) fn of(answer: &Response) -> Result<Self> {
        let mut all = Self::default();
        for (name, value) in answer.headers_starting_with(HEADER) {
            let value = value.ok_or_else(|| {
                let what = format!("the blob's metadata {name:?} is not plain text and would be lost");
                Error::new(ErrorKind::Foreign, what)
            })?;
            all.set(name, value.to_owned());
        }
        Ok(all)
    }

    /// That of a listed blob.
    pub(super) fn from_pairs(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let mut all = Self::default();
        pairs.for_each(|(name, value)| all.set(&name.to_ascii_lowercase(), value));
        all
    }

    /// The fencing counter.
    ///
    /// # Errors
    /// `Foreign`, when there is one that is no number: somebody else's.
    pub(super) fn token(&self) -> Result<Option<u64>> {
        let Some(text) = self.get(TOKEN) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let what = format!("the blob's metadata `{TOKEN}` is not a fencing counter");
            Error::new(ErrorKind::Foreign, what)
        })
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        let (mut words, mut host, mut pid, mut since) = (None, None, None, None);
        for part in self.get(HOLDER)?.split('&') {
            let (name, value) = part.split_once('=')?;
            let value = decode_any(value);
            match name {
                "words" => words = Some(value),
                "host" => host = Some(value),
                "pid" => pid = value.parse().ok(),
                "since" => since = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        let mut holder = Holder::new(&words?);
        if let (Some(host), Some(pid)) = (host, pid) {
            holder = holder.with_process(&host, pid);
        }
        if let Some(since) = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) {
            holder = holder.with_since(since);
        }
        Some(holder)
    }

    pub(super) fn set_token(&mut self, token: u64) {
        self.set(TOKEN, token.to_string());
    }

    pub(super) fn set_holder(&mut self, holder: &Holder, since: SystemTime) {
        let mut text = String::from("words=");
        let words: String = holder.words().chars().take(LONGEST_WORDS).collect();
        encode_onto(&mut text, &words);
        if let (Some(host), Some(pid)) = (holder.host(), holder.pid()) {
            text.push_str("&host=");
            encode_onto(&mut text, host);
            let _ = write!(text, "&pid={pid}");
        }
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let _ = write!(text, "&since={}", since.as_secs());
        self.set(HOLDER, text);
    }

    /// The headers that write it.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| (format!("{HEADER}{name}"), value.clone())).collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value)
    }

    fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_others_wrote_stays() {
        let pairs = [("Owner", "x y"), (TOKEN, "7")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let mut all = Metadata::from_pairs(pairs.into_iter());
        assert_eq!(all.token().unwrap(), Some(7));
        all.set_token(9);
        let headers = [("x-ms-meta-leaseholdtoken", "9"), ("x-ms-meta-owner", "x y")];
        assert_eq!(all.headers(), headers.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!((all.token().unwrap(), all.holder()), (Some(9), None));
        all.set(TOKEN, "nine".to_owned());
        assert_eq!(all.token().unwrap_err().kind(), ErrorKind::Foreign);
    }

    proptest! {
        #[test]
        fn a_holder_is_read_as_it_was_written(words in "\\PC{0,50}|[&=%+\n]{1,9}", host in "\\PC{1,20}", at: u32) {
            let since = SystemTime::UNIX_EPOCH + Duration::from_secs(at.into());
            let mut all = Metadata::default();
            all.set_holder(&Holder::new(&words).with_process(&host, 47), since);
            let there = all.holder().unwrap();
            prop_assert_eq!((there.words(), there.host(), there.since()), (&*words, Some(&*host), Some(since)));
            let text = &all.headers()[0].1;
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        }

        #[test]
        fn no_text_of_others_makes_it_panic(text in "\\PC*") {
            let all = Metadata::from_pairs([(HOLDER.to_owned(), text)].into_iter());
            let _ = all.holder();
        }
    }
}
