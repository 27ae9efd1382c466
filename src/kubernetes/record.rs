//! What stands in the two annotations of a lock.
//!
//! The first is lockgate's, in its very format (`distributed_locker_backend.go` of werf/lockgate): who has the lock, and
//! until when by a wall clock. The second is ours, and nothing to lockgate: what its record has no room for.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value, json};
use sha3::{Digest, Sha3_224};

use crate::{Holder, fields::Fields};

/// The TTL that lockgate's holders rely on; its record does not say.
pub(super) const LOCKGATE_TTL: Duration = Duration::from_secs(10);
/// What stands before the hash of a lock's name.
pub(super) const RECORD: &str = "lockgate.io/";
const NOTE: &str = "leasehold/";
/// A TTL beyond this is none of ours.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The annotations of a lock, by their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) record: String,
    pub(super) note: String,
}

impl Keys {
    pub(super) fn of(lock: &str) -> Self {
        let mut hash = String::with_capacity(56);
        for byte in Sha3_224::digest(lock) {
            let _ = write!(hash, "{byte:02x}");
        }
        Self { record: format!("{RECORD}{hash}"), note: format!("{NOTE}{hash}") }
    }
}

/// What the annotations of one lock hold, as it stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) record: Option<String>,
    pub(super) note: Option<String>,
}

/// lockgate's record of a lock, with the fields that it does not know.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    uuid: String,
    /// All of it, the `uuid` too.
    fields: Fields,
}

impl Record {
    pub(super) fn new(uuid: &str, lock: &str, shared: bool, expires: i64) -> Self {
        let mut record = Self { uuid: String::new(), fields: Fields::default() };
        record.fields.set("lockName", lock);
        record.take_over(uuid, shared, expires);
        record
    }

    /// `None`: no record of lockgate's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields = Fields::parse(text.as_bytes())?;
        Some(Self { uuid: fields.text("uuid")?, fields })
    }

    /// A new holder's, in place of one who is gone.
    pub(super) fn take_over(&mut self, uuid: &str, shared: bool, expires: i64) {
        self.set_uuid(uuid);
        // Of lockgate's later versions, which do not bear that it is missing.
        if !self.fields.contains("QueueMembers") {
            self.fields.set("QueueMembers", json!({}));
        }
        self.fields.set("IsShared", shared);
        self.set_count(1);
        self.fields.set("ExpireAtTimestamp", expires);
    }

    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    pub(super) fn set_uuid(&mut self, uuid: &str) {
        uuid.clone_into(&mut self.uuid);
        self.fields.set("uuid", uuid);
    }

    /// The lock's name, which the key tells the hash of only.
    pub(super) fn lock(&self) -> Option<String> {
        self.fields.text("lockName")
    }

    /// Until when, in seconds since 1970 of the writer's clock.
    pub(super) fn expires(&self) -> i64 {
        self.fields.get("ExpireAtTimestamp").as_ref().and_then(Value::as_i64).unwrap_or(0)
    }

    /// Never to an earlier time: another may count on it.
    pub(super) fn extend(&mut self, expires: i64) {
        let expires = expires.max(self.expires());
        self.fields.set("ExpireAtTimestamp", expires);
    }

    pub(super) fn is_shared(&self) -> bool {
        self.fields.get("IsShared").as_ref().and_then(Value::as_bool).unwrap_or(false)
    }

    /// How many have it.
    pub(super) fn count(&self) -> i64 {
        self.fields.get("SharedHoldersCount").as_ref().and_then(Value::as_i64).unwrap_or(1)
    }

    pub(super) fn set_count(&mut self, count: i64) {
        self.fields.set("SharedHoldersCount", count);
    }

    pub(super) fn text(&self) -> String {
        self.fields.to_string()
    }
}

/// One of ours who has a lock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// Another one with each write of this member's, so that a try whose answer was lost is known again.
    pub(super) counter: u64,
    pub(super) holder: Holder,
}

/// What lockgate's record has no room for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    /// That of the record which it belongs to. Beside another one it is what an earlier holder left.
    pub(super) uuid: String,
    pub(super) ttl: Duration,
    /// The API server's time of the last write, or a little later, in seconds since 1970.
    pub(super) time: i64,
    /// Who has the lock of us, by their ids. An exclusive holder's id is the record's.
    pub(super) members: BTreeMap<String, Member>,
    /// An operator took the lock from whoever had it.
    pub(super) broken: bool,
}

impl Note {
    /// `None`: not written by us.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let note: Value = serde_json::from_str(text).ok()?;
        let ttl = Duration::from_millis(note.get("ttl")?.as_u64()?);
        let members = note.get("members")?.as_object()?.iter();
        let members = members.map(|(id, member)| Some((id.clone(), Member::parse(member)?)));
        Some(Self {
            uuid: note.get("uuid")?.as_str()?.to_owned(),
            ttl: Some(ttl).filter(|ttl| !ttl.is_zero() && *ttl <= LONGEST)?,
            time: note.get("time")?.as_i64()?,
            members: members.collect::<Option<_>>()?,
            broken: note.get("broken").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    pub(super) fn text(&self) -> String {
        let members = self.members.iter().map(|(id, member)| (id.clone(), member.value()));
        let mut note = json!({
            "uuid": self.uuid,
            "ttl": u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
            "time": self.time,
            "members": members.collect::<Map<_, _>>(),
        });
        if self.broken {
            note["broken"] = true.into();
        }
        note.to_string()
    }
}

impl Member {
    fn parse(member: &Value) -> Option<Self> {
        let text = |field| member.get(field).and_then(Value::as_str);
        let mut holder = Holder::new(text("words")?);
        if let (Some(host), Some(pid)) = (text("host"), member.get("pid").and_then(Value::as_u64)) {
            holder = holder.with_process(host, u32::try_from(pid).ok()?);
        }
        if let Some(since) = member.get("since").and_then(Value::as_u64) {
            holder = holder.with_since(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))?);
        }
        Some(Self { counter: member.get("counter")?.as_u64()?, holder })
    }

    fn value(&self) -> Value {
        let mut member = json!({ "counter": self.counter, "words": self.holder.words() });
        if let (Some(host), Some(pid)) = (self.holder.host(), self.holder.pid()) {
            member["host"] = host.into();
            member["pid"] = pid.into();
        }
        if let Some(since) = self.holder.since().and_then(|s| s.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            member["since"] = since.as_secs().into();
        }
        member
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Vectors of lockgate itself.
    #[test]
    fn keys_are_those_of_lockgate() {
        for (lock, hash) in [
            ("mylock", "e57895b7d52d5780eb395e8194ae40b4a328e13f98b223db7ae0ae78"),
            ("release/myapp", "739ae8836a79cee6cf68ae1ed93d7cf01ed68bc7cc95bacb60c3738a"),
            ("", "6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7"),
        ] {
            let keys = Keys::of(lock);
            assert_eq!(keys.record, format!("lockgate.io/{hash}"));
            assert_eq!(keys.note, format!("leasehold/{hash}"));
        }
    }

    #[test]
    fn a_record_of_lockgate_is_read_and_its_other_fields_are_kept() {
        let text = r#"{"uuid":"ea275771-93b0-45a0-8f77-9c0755d68b49","lockName":"mylock",
            "ExpireAtTimestamp":1795223533,"SharedHoldersCount":3,"IsShared":true,
            "QueueMembers":{"acq-1":{"AcquirerId":"acq-1"}},"Newer":[1]}"#;
        let mut record = Record::parse(text).unwrap();
        assert_eq!(record.uuid(), "ea275771-93b0-45a0-8f77-9c0755d68b49");
        assert_eq!(record.lock().as_deref(), Some("mylock"));
        assert_eq!((record.expires(), record.count(), record.is_shared()), (1_795_223_533, 3, true));
        record.extend(1);
        assert_eq!(record.expires(), 1_795_223_533, "never to an earlier time");
        record.take_over("new", false, 7);
        let again = Record::parse(&record.text()).unwrap();
        assert_eq!((again.uuid(), again.expires(), again.count()), ("new", 7, 1));
        assert!(!again.is_shared() && record.text().contains("\"Newer\":[1]"));
        assert!(record.text().contains("acq-1"), "{}", record.text());
    }

    #[test]
    fn what_is_no_record() {
        for text in ["", "x", "[]", "{}", "null", "{\"uuid\":7}", "{\"lockName\":\"x\"}"] {
            assert_eq!(Record::parse(text), None, "{text}");
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }

    fn holder() -> impl Strategy<Value = Holder> {
        (".*", any::<Option<(String, u32)>>(), any::<Option<u32>>()).prop_map(|(words, process, since)| {
            let mut holder = Holder::new(&words);
            if let Some((host, pid)) = process {
                holder = holder.with_process(&host, pid);
            }
            match since {
                Some(s) => holder.with_since(SystemTime::UNIX_EPOCH + Duration::from_secs(s.into())),
                None => holder,
            }
        })
    }

    proptest! {
        #[test]
        fn notes_come_back(
            uuid in ".*", ttl in 1..=86_400_000_u64, time: i64, broken: bool,
            members in prop::collection::btree_map(".*", (any::<u64>(), holder()), 0..4),
        ) {
            let members = members.into_iter();
            let members = members.map(|(id, (counter, holder))| (id, Member { counter, holder })).collect();
            let note = Note { uuid, ttl: Duration::from_millis(ttl), time, members, broken };
            prop_assert_eq!(Note::parse(&note.text()), Some(note));
        }

        #[test]
        fn records_come_back(uuid in ".*", lock in ".*", shared: bool, expires: i64) {
            let record = Record::new(&uuid, &lock, shared, expires);
            prop_assert_eq!(Record::parse(&record.text()), Some(record));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*", json in "[{}\\[\\]:,\"a-z0-9]*") {
            let _ = (Record::parse(&text), Note::parse(&text), Record::parse(&json), Note::parse(&json));
        }
    }
}
