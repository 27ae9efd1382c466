//! The value of a lock's key: who holds it, as JSON that others may add to.
//!
//! `{"holder": WORDS, "host": .., "pid": .., "lockAcquisitionTime": RFC 3339}`, where the last is what dlock writes.
//! After a clean release there is `lockReleaseTime` in it, until somebody takes the lock: a key that nobody holds and
//! that has no such field was let go by another program, or its session ended, and then the lock-delay may run.
//! Whatever else is in the object stays.

use std::time::SystemTime;

use serde_json::Value;

use crate::{
    Holder,
    fields::Fields,
    rfc3339::{self, rfc3339},
    shown::shown,
};

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
        let said = shown(&String::from_utf8_lossy(value), LONGEST);
        if fields.is_empty() && !said.is_empty() { said } else { format!("session {session}") }
    });
    let mut holder = Holder::new(&words);
    let pid = fields.get(PID).as_ref().and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    if let (Some(host), Some(pid)) = (fields.text(HOST), pid) {
        holder = holder.with_process(&host, pid);
    }
    match fields.text(ACQUIRED).as_deref().and_then(rfc3339::parse) {
        Some(since) => holder.with_since(since),
        None => holder,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,40}") {
            let _ = holder(&value, "s");
            let _ = holder(format!("{{\"{ACQUIRED}\":{text:?}}}").as_bytes(), "s");
        }
    }
}
