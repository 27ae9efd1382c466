//! The value of a lock's key: who holds it, as JSON that others may add to.
//!
//! `{"holder": WORDS, "host": .., "pid": .., "lockAcquisitionTime": RFC 3339}`, where the last is what dlock writes.
//! After a clean release there is `lockReleaseTime` in it, until somebody takes the lock: a key that nobody holds and
//! that has no such field was let go by another program, or its session ended, and then the lock-delay may run.
//! Whatever else is in the object stays.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::{Holder, clock::rfc3339, fields::Fields};

const WORDS: &str = "holder";
const HOST: &str = "host";
const PID: &str = "pid";
const ACQUIRED: &str = "lockAcquisitionTime";
const RELEASED: &str = "lockReleaseTime";
/// As much of another program's value as is shown.
const LONGEST: usize = 100;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record(Fields);

impl Record {
    /// What is in a value; of one that is no JSON object, nothing: each holder writes its own.
    pub(super) fn read(value: &[u8]) -> Self {
        Self(Fields::parse(value).unwrap_or_default())
    }

    /// The value of a lock that this holder has from now on.
    pub(super) fn held(&self, holder: &Holder, now: SystemTime) -> Self {
        let mut fields = self.0.clone();
        for ours in [HOST, PID, RELEASED] {
            fields.remove(ours);
        }
        fields.set(WORDS, holder.words());
        if let (Some(host), Some(pid)) = (holder.host(), holder.pid()) {
            fields.set(HOST, host);
            fields.set(PID, pid);
        }
        fields.set(ACQUIRED, rfc3339(now));
        Self(fields)
    }

    /// The value of a lock that is let go cleanly.
    pub(super) fn released(&self, now: SystemTime) -> Self {
        let mut fields = self.0.clone();
        fields.set(RELEASED, rfc3339(now));
        Self(fields)
    }

    /// As it is written.
    pub(super) fn to_json(&self) -> String {
        self.0.to_string()
    }

    /// Whether the last holder let it go cleanly, and was of this library.
    pub(super) fn is_released(&self) -> bool {
        self.0.contains(RELEASED)
    }
}

/// Who holds a key, by its value; `session` is for values that say nothing.
pub(super) fn holder(value: &[u8], session: &str) -> Holder {
    let Record(fields) = Record::read(value);
    let words = fields.text(WORDS).unwrap_or_else(|| {
        let said = String::from_utf8_lossy(value);
        let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        if fields.is_empty() && !said.is_empty() { said } else { format!("session {session}") }
    });
    let mut holder = Holder::new(&words);
    let pid = fields.get(PID).as_ref().and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    if let (Some(host), Some(pid)) = (fields.text(HOST), pid) {
        holder = holder.with_process(&host, pid);
    }
    match fields.text(ACQUIRED).as_deref().and_then(time) {
        Some(since) => holder.with_since(since),
        None => holder,
    }
}

/// A time of RFC 3339, section 5.6, since 1970; fractions of a second are dropped.
fn time(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-')?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let two = |text: &str, end: i64| {
                let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<i64>().ok().filter(|number| digits && *number < end)
            };
            let offset = two(hours, 24)? * 3600 + two(minutes, 60)? * 60;
            if sign == "+" { offset } else { -offset }
        }
        _ => return None,
    };
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range {
        return None;
    }
    // Days since 0000-03-01, of years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(between)
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_holder_is_read_back_and_the_fields_of_others_stay() {
        let theirs =
            Record::read(br#"{"lockAcquisitionTime":"2020-01-01T00:00:00Z","team":["a",1],"holder":7}"#);
        let holder = Holder::new("import \"1\"").with_process("db1", 47);
        let value = theirs.held(&holder, at(1_795_244_820)).to_json();
        assert_eq!(
            value,
            r#"{"holder":"import \"1\"","host":"db1","lockAcquisitionTime":"2026-11-21T07:07:00Z","pid":47,"team":["a",1]}"#
        );
        assert_eq!(super::holder(value.as_bytes(), "s"), holder.with_since(at(1_795_244_820)));
        let ours = Record::read(value.as_bytes());
        assert!(!ours.is_released());
        let released = Record::read(ours.released(at(1_795_244_821)).to_json().as_bytes());
        assert!(released.is_released());
        let next = released.held(&Holder::new("x"), at(0));
        assert!(!next.is_released());
        assert_eq!(next.0.get("team"), Some(serde_json::json!(["a", 1])));
        assert!(!next.0.contains("pid"), "that of the holder before");
    }

    #[test]
    fn what_other_programs_write() {
        let dlock = br#"{"lockAcquisitionTime":"2026-11-21T09:07:00.25+02:00","key":"v"}"#;
        assert_eq!(holder(dlock, "6b1d"), Holder::new("session 6b1d").with_since(at(1_795_244_820)));
        assert_eq!(holder(b"db1\nme", "6b1d"), Holder::new("db1me"));
        assert_eq!(holder(b"", "6b1d"), Holder::new("session 6b1d"));
        assert_eq!(Record::read(b"[1]"), Record::default());
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2024-12-31T23:59:59.999999Z", 1_735_689_599),
            ("2026-11-21t01:07:00-06:00", 1_795_244_820),
            ("2100-03-01T00:00:00z", 4_107_542_400),
        ] {
            assert_eq!(time(text), Some(at(seconds)), "{text}");
        }
        for wrong in [
            "",
            "2026",
            "2026-11-21",
            "2026-11-21T01:07:00",
            "2026-13-01T00:00:00Z",
            "2026-11-21T01:07Z",
            "1969-12-31T23:59:59Z",
            "2026-1-121T01:07:00Z",
            "2026-11-21T01:07:00+2",
            "é026-11-21T01:07:00Z",
            "2026-11-21T01:07:00+2562047788015216:00",
            "2026-11-21T01:07:00+00:153722867280912931",
            "2026-11-21T01:07:00--9:00",
            "2026-11-21T01:07:00+24:00",
            "2026-11-21T01:07:00+02:60",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_that_we_write_is_read(seconds in 0_u64..10_000_000_000) {
            prop_assert_eq!(time(&rfc3339(at(seconds))), Some(at(seconds)));
        }

        #[test]
        fn nothing_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,40}") {
            let _ = holder(&value, "s");
            let _ = time(&text);
            let _ = time(&format!("2026-11-21T01:07:00{text}"));
        }
    }
}
