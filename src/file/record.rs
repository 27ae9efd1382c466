//! The line in a lock file: the fencing counter, and who took the lock last.
//!
//! ```text
//! leasehold 1 token=00001795244820000000 since=1795244820123456 mode=exclusive pid=47 host=db1 words=…  token=00001795244820000000
//! ```
//!
//! Always [`WIDTH`] bytes, written in one go over the old one. The token stands at both ends, so that a line
//! that is half old and half new is known.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use crate::{Holder, Mode};

pub(super) const WIDTH: usize = 512;
const MAGIC: &str = "leasehold 1 ";
/// ` token=`, twenty digits and a line feed.
const TAIL: usize = 28;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) counter: u64,
    pub(super) mode: Mode,
    pub(super) holder: Holder,
}

/// What lies in a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: a new file, one of `flock(1)`, or one whose blocks a power loss left empty.
    Blank,
    Line(Box<Record>),
    /// A line of ours that was cut or torn: its counter is lost.
    Torn,
    /// Something of somebody else's, which begins so.
    Foreign(String),
}

impl Record {
    pub(super) fn encode(&self) -> [u8; WIDTH] {
        let holder = &self.holder;
        let since = holder.since().unwrap_or(SystemTime::UNIX_EPOCH);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mode = match self.mode {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        };
        let mut line = String::with_capacity(WIDTH);
        // Writing to a `String` cannot fail.
        let _ = write!(
            line,
            "{MAGIC}token={:020} since={} mode={mode} pid={} host=",
            self.counter,
            since.as_micros(),
            holder.pid().unwrap_or(0),
        );
        let host = holder.host().unwrap_or("?");
        line.extend(host.chars().map(|c| if c.is_whitespace() { '?' } else { c }).take(64));
        line.push_str(" words=");
        line.extend(holder.words().chars().map(|c| if c.is_control() { ' ' } else { c }));
        let mut end = line.len().min(WIDTH - TAIL);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [b' '; WIDTH];
        bytes[..end].copy_from_slice(&line.as_bytes()[..end]);
        let tail = &mut bytes[WIDTH - TAIL..];
        tail[..7].copy_from_slice(b" token=");
        // The same digits as in front.
        tail[7..27].copy_from_slice(&line.as_bytes()[MAGIC.len() + 6..MAGIC.len() + 26]);
        tail[27] = b'\n';
        bytes
    }
}

impl Content {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        if bytes.iter().all(|b| matches!(b, 0 | b' ' | b'\n' | b'\r')) {
            return Self::Blank;
        }
        let magic = &MAGIC.as_bytes()[..MAGIC.len().min(bytes.len())];
        if !bytes.starts_with(magic) {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]);
            return Self::Foreign(start.escape_debug().to_string());
        }
        match bytes.get(..WIDTH).and_then(line_of) {
            Some(record) => Self::Line(Box::new(record)),
            None => Self::Torn,
        }
    }
}

fn line_of(line: &[u8]) -> Option<Record> {
    let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let line = line.strip_prefix(MAGIC)?.strip_prefix("token=")?;
    let (token, rest) = line.split_once(" since=")?;
    let (rest, again) = rest.rsplit_once(" token=")?;
    if token != again || token.len() != 20 {
        return None;
    }
    let (since, rest) = rest.split_once(" mode=")?;
    let (mode, rest) = rest.split_once(" pid=")?;
    let (pid, rest) = rest.split_once(" host=")?;
    let (host, words) = rest.split_once(" words=")?;
    let since = Duration::from_micros(since.parse().ok()?);
    let holder = Holder::new(words.trim_end()).with_process(host, pid.parse().ok()?);
    Some(Record {
        counter: token.parse().ok()?,
        mode: match mode {
            "exclusive" => Mode::Exclusive,
            "shared" => Mode::Shared,
            _ => return None,
        },
        holder: holder.with_since(SystemTime::UNIX_EPOCH.checked_add(since)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(counter: u64, words: &str) -> Record {
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_244_820_123_456);
        let holder = Holder::new(words).with_process("db1", 47).with_since(since);
        Record { counter, mode: Mode::Exclusive, holder }
    }

    fn line(record: &Record) -> Content {
        Content::Line(Box::new(record.clone()))
    }

    #[test]
    fn is_one_line_that_people_can_read() {
        let bytes = record(42, "shop 1.2").encode();
        let text = str::from_utf8(&bytes).unwrap();
        assert!(text.starts_with(
            "leasehold 1 token=00000000000000000042 since=1795244820123456 mode=exclusive pid=47 host=db1 words=shop 1.2  "
        ));
        assert!(text.ends_with("  token=00000000000000000042\n"));
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn long_words_are_cut_at_a_character_and_control_characters_do_no_harm() {
        for words in ["ü".repeat(400), "x".repeat(9999)] {
            let Content::Line(read) = Content::decode(&record(7, &words).encode()) else { panic!("a line") };
            assert!(words.starts_with(read.holder.words()) && read.holder.words().len() > 350);
        }
        let sly = record(7, "a\n token=00000000000000000009\nleasehold 1 ");
        let Content::Line(read) = Content::decode(&sly.encode()) else { panic!("a line") };
        assert_eq!(read.counter, 7);
    }

    #[test]
    fn what_is_no_line() {
        let good = record(42, "x").encode();
        assert_eq!(Content::decode(b""), Content::Blank);
        assert_eq!(Content::decode(&[0; WIDTH]), Content::Blank);
        assert_eq!(Content::decode(b"\n"), Content::Blank);
        for cut in 1..WIDTH {
            assert_eq!(Content::decode(&good[..cut]), Content::Torn, "{cut}");
        }
        let newer = record(99, "x").encode();
        for place in 40..WIDTH - 20 {
            let mixed: Vec<u8> = [&newer[..place], &good[place..]].concat();
            assert_eq!(Content::decode(&mixed), Content::Torn, "{place}");
        }
        assert!(matches!(Content::decode(b"4711\n"), Content::Foreign(start) if start == "4711\\n"));
        assert!(matches!(Content::decode(b"leasehold 2 x"), Content::Foreign(_)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(counter: u64, words in "[^\\pC]{0,90}") {
            let written = record(counter, words.trim_end());
            prop_assert_eq!(Content::decode(&written.encode()), line(&written));
        }

        #[test]
        fn garbage_is_no_line(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(!matches!(Content::decode(&bytes), Content::Line(_)));
        }

        #[test]
        fn a_byte_that_flipped_is_no_other_counter(place in 0..WIDTH, bit in 0..8) {
            let mut bytes = record(42, "x").encode();
            bytes[place] ^= 1_u8 << bit;
            if let Content::Line(read) = Content::decode(&bytes) {
                prop_assert_eq!(read.counter, 42);
            }
        }
    }
}
