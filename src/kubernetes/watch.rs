//! The stream of a watch: lines of JSON, an event each ("API Concepts", efficient detection of changes).

use serde_json::Value;

use super::object::Object;
use crate::shown::shown;

/// A line that is longer is none of an API server's.
const LONGEST: usize = 4 * 1024 * 1024;

/// What one line of a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The object, as it is now.
    Object(Object),
    Deleted,
    /// Nothing of the object: a bookmark, or another one's news.
    Nothing,
    /// The server ends the watch: what it was to start from is too old (410), or something else.
    Error(String),
    /// No event at all.
    Garbage,
}

impl Event {
    fn of(line: &[u8], name: &str) -> Self {
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return Self::Garbage };
        let Some(object) = event.get("object") else { return Self::Garbage };
        let named =
            || object.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str) == Some(name);
        match event.get("type").and_then(Value::as_str) {
            Some("ADDED" | "MODIFIED") => match Object::of(object, name) {
                Some(object) => Self::Object(object),
                None if named() => Self::Garbage,
                None => Self::Nothing,
            },
            Some("DELETED") if named() => Self::Deleted,
            Some("DELETED" | "BOOKMARK") => Self::Nothing,
            Some("ERROR") => {
                let message = object.get("message").and_then(Value::as_str).unwrap_or("no reason given");
                Self::Error(shown(message, 200))
            }
            _ => Self::Garbage,
        }
    }
}

/// The lines of a stream, as its pieces come.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Takes a piece, and gives each whole event to `each` until that has had enough: `false` then.
    pub(super) fn take(&mut self, piece: &[u8], name: &str, mut each: impl FnMut(Event) -> bool) -> bool {
        self.0.extend_from_slice(piece);
        let mut start = 0;
        let mut more = true;
        while let Some(end) = self.0[start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.0[start..start + end];
            start += end + 1;
            if !line.trim_ascii().is_empty() && !each(Event::of(line, name)) {
                more = false;
                break;
            }
        }
        self.0.drain(..start);
        if more && self.0.len() > LONGEST {
            each(Event::Garbage);
            return false;
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDED: &str =
        r#"{"type":"ADDED","object":{"metadata":{"name":"x","uid":"u","resourceVersion":"210"}}}"#;
    const BOOKMARK: &str = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"210"}}}"#;
    const DELETED: &str =
        r#"{"type":"DELETED","object":{"metadata":{"name":"x","uid":"u","resourceVersion":"9"}}}"#;
    const GONE: &str =
        r#"{"type":"ERROR","object":{"kind":"Status","message":"too old resource version","code":410}}"#;

    fn events(stream: &[u8], piece: usize) -> Vec<Event> {
        let (mut lines, mut events) = (Lines::default(), Vec::new());
        for piece in stream.chunks(piece) {
            lines.take(piece, "x", |event| {
                events.push(event);
                true
            });
        }
        events
    }

    #[test]
    fn events_of_the_server() {
        let all = format!(
            "{ADDED}\n{BOOKMARK}\n\n{DELETED}\n{GONE}\n{}\nx\n{{}}\n",
            ADDED.replace("\"x\"", "\"y\"")
        );
        let object = Object { uid: "u".into(), version: 210, annotations: None };
        for piece in [1, 7, 100_000] {
            assert_eq!(
                events(all.as_bytes(), piece),
                [
                    Event::Object(object.clone()),
                    Event::Nothing,
                    Event::Deleted,
                    Event::Error("too old resource version".into()),
                    Event::Nothing,
                    Event::Garbage,
                    Event::Garbage,
                ]
            );
        }
    }

    #[test]
    fn who_has_had_enough_gets_no_more_and_a_line_without_end_is_garbage() {
        let mut count = 0;
        let stream = format!("{ADDED}\n{ADDED}\n");
        assert!(!Lines::default().take(stream.as_bytes(), "x", |_| {
            count += 1;
            false
        }));
        assert_eq!(count, 1);
        let mut last = Event::Nothing;
        let more = Lines::default().take(&vec![b'x'; LONGEST + 1], "x", |event| {
            last = event;
            true
        });
        assert!(!more && last == Event::Garbage);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(stream in prop::collection::vec(any::<u8>(), 0..300), piece in 1..50_usize) {
            events(&stream, piece);
        }
    }
}
