//! The line in a lock file: the fencing counter, and who took the lock last.
//!
//! ```text
//! leasehold 1 token=00001795244820000000 since=1795244820123456 mode=exclusive pid=47 host=db1 words=…  token=00001795244820000000
//! ```
//!
//! Always [`WIDTH`] bytes, written in one go over the old one. The token stands at both ends, so that a line
//! that is half old and half new is known.

use std::time::{Duration, SystemTime};

use crate::{Holder, Mode};

pub(super) const WIDTH: usize = 512;
const MAGIC: &str = "leasehold 1 ";
/// ` token=`, twenty digits and a line feed.
const TAIL: usize = 28;

/// What lies in a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: a new file, one of `flock(1)`, or one whose blocks a power loss left empty.
    Blank,
    /// A line of ours with this fencing counter.
    Counter(u64),
    /// A line of ours that was cut or torn: its counter is lost.
    Torn,
    /// Something of somebody else's, which begins so.
    Foreign(String),
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let magic = &MAGIC.as_bytes()[..MAGIC.len().min(bytes.len())];
        if bytes.starts_with(magic) && !bytes.is_empty() {
            return counter(bytes).map_or(Self::Torn, Self::Counter);
        }
        if bytes.iter().all(|b| matches!(b, 0 | b' ' | b'\n' | b'\r')) {
            return Self::Blank;
        }
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]);
        Self::Foreign(start.escape_debug().to_string())
    }
}

/// The line of a lock that was just taken.
pub(super) fn encode(counter: u64, mode: Mode, holder: &Holder, pid: u32, since: SystemTime) -> [u8; WIDTH] {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mode = match mode {
        Mode::Exclusive => "exclusive",
        Mode::Shared => "shared",
    };
    let mut line = Line { bytes: [b' '; WIDTH], end: 0 };
    line.add(MAGIC);
    line.add("token=");
    line.add_number(counter, 20);
    line.add(" since=");
    line.add_number(u64::try_from(since.as_micros()).unwrap_or(0), 1);
    line.add(" mode=");
    line.add(mode);
    line.add(" pid=");
    line.add_number(pid.into(), 1);
    line.add(" host=");
    line.add_but(holder.host().unwrap_or("?"), char::is_whitespace, "?");
    line.add(" words=");
    line.add_but(holder.words(), char::is_control, " ");
    let mut bytes = line.bytes;
    // The same word as in front.
    bytes.copy_within(FRONT, WIDTH - TAIL + 1);
    bytes[WIDTH - 1] = b'\n';
    bytes
}

/// A line under way, up to the place of its tail.
struct Line {
    bytes: [u8; WIDTH],
    end: usize,
}

impl Line {
    /// Adds a text, cut at the last character that fits.
    fn add(&mut self, text: &str) {
        let mut room = (WIDTH - TAIL).saturating_sub(self.end).min(text.len());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        self.bytes[self.end..self.end + room].copy_from_slice(&text.as_bytes()[..room]);
        self.end += room;
    }

    /// Adds a text in which some characters are replaced.
    fn add_but(&mut self, text: &str, not: fn(char) -> bool, instead: &str) {
        if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' && !not(' ')) {
            return self.add(text);
        }
        for (place, part) in text.split(not).enumerate() {
            self.add(if place > 0 { instead } else { "" });
            self.add(part);
        }
    }

    /// Adds a number of so many digits at least: two at a time, as this is a part of what a lock costs.
    #[expect(clippy::cast_possible_truncation, reason = "less than 100")]
    fn add_number(&mut self, mut number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while number >= 10 {
            start -= 2;
            let pair = (number % 100) as usize * 2;
            digits[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
            number /= 100;
        }
        if number > 0 {
            start -= 1;
            digits[start] = b'0' + number as u8;
        }
        let start = start.min(digits.len() - width);
        let end = self.end + digits.len() - start;
        self.bytes[self.end..end].copy_from_slice(&digits[start..]);
        self.end = end;
    }
}

/// `00` to `99`.
#[expect(clippy::cast_possible_truncation, reason = "digits are small")]
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut n = 0;
    while n < 100 {
        pairs[n * 2] = b'0' + (n / 10) as u8;
        pairs[n * 2 + 1] = b'0' + (n % 10) as u8;
        n += 1;
    }
    pairs
};

/// Who took the lock last, by a whole line.
pub(super) fn holder(bytes: &[u8]) -> Option<Holder> {
    counter(bytes)?;
    let line = str::from_utf8(&bytes[..WIDTH - TAIL]).ok()?;
    let (_, rest) = line.split_once(" since=")?;
    let (since, rest) = rest.split_once(" mode=")?;
    let (_, rest) = rest.split_once(" pid=")?;
    let (pid, rest) = rest.split_once(" host=")?;
    let (host, words) = rest.split_once(" words=")?;
    let since = Duration::from_micros(since.parse().ok()?);
    let holder = Holder::new(words.trim_end()).with_process(host, pid.parse().ok()?);
    Some(holder.with_since(SystemTime::UNIX_EPOCH.checked_add(since)?))
}

/// Where the token stands in front: `token=` and twenty digits.
const FRONT: std::ops::Range<usize> = MAGIC.len()..MAGIC.len() + TAIL - 2;

/// The counter of a whole line.
fn counter(bytes: &[u8]) -> Option<u64> {
    let line = bytes.get(..WIDTH)?;
    let (front, back) = (&line[FRONT], &line[WIDTH - TAIL..]);
    let whole = back[0] == b' ' && back[1..TAIL - 1] == *front && back[TAIL - 1] == b'\n';
    let digits = front.strip_prefix(b"token=").filter(|d| d.iter().all(u8::is_ascii_digit))?;
    if !whole || !line[FRONT.end..].starts_with(b" since=") {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    digits.iter().try_fold(0, add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn since() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_244_820_123_456)
    }

    fn line(counter: u64, words: &str) -> [u8; WIDTH] {
        let holder = Holder::new(words).with_process("db1", 47);
        encode(counter, Mode::Exclusive, &holder, 47, since())
    }

    #[test]
    fn is_one_line_that_people_can_read() {
        let bytes = line(42, "shop 1.2");
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
            let read = holder(&line(7, &words)).unwrap();
            assert!(words.starts_with(read.words()) && read.words().len() > 350);
        }
        let sly = line(7, "a\n token=00000000000000000009\nleasehold 1 ");
        assert_eq!(Content::of(&sly), Content::Counter(7));
    }

    #[test]
    fn what_is_no_line() {
        let good = line(42, "x");
        assert_eq!(Content::of(b""), Content::Blank);
        assert_eq!(Content::of(&[0; WIDTH]), Content::Blank);
        assert_eq!(Content::of(b"\n"), Content::Blank);
        for cut in 1..WIDTH {
            assert_eq!(Content::of(&good[..cut]), Content::Torn, "{cut}");
            assert_eq!(holder(&good[..cut]), None);
        }
        let newer = line(99, "x");
        for place in 40..WIDTH - 20 {
            let mixed: Vec<u8> = [&newer[..place], &good[place..]].concat();
            assert_eq!(Content::of(&mixed), Content::Torn, "{place}");
        }
        assert_eq!(Content::of(b"4711\n"), Content::Foreign("4711\\n".to_owned()));
        assert!(matches!(Content::of(b"leasehold 2 x"), Content::Foreign(_)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(counter: u64, words in "[^\\pC]{0,90}") {
            let bytes = line(counter, &words);
            prop_assert_eq!(Content::of(&bytes), Content::Counter(counter));
            let written = Holder::new(words.trim_end()).with_process("db1", 47).with_since(since());
            prop_assert_eq!(holder(&bytes), Some(written));
        }

        #[test]
        fn garbage_is_no_line(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(!matches!(Content::of(&bytes), Content::Counter(_)));
            prop_assert_eq!(holder(&bytes), None);
        }

        #[test]
        fn a_byte_that_flipped_is_no_other_counter(place in 0..WIDTH, bit in 0..8) {
            let mut bytes = line(42, "x");
            bytes[place] ^= 1_u8 << bit;
            if let Content::Counter(read) = Content::of(&bytes) {
                prop_assert_eq!(read, 42);
            }
            holder(&bytes);
        }
    }
}
