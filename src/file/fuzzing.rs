//! See [`crate::fuzzing`].

use std::time::SystemTime;

use super::{
    name::{Names, unescape},
    record::{Content, encode, holder},
};
use crate::{Mode, fuzzing::is_for_people};

/// What lies in a lock file: who is read from a line is read again from the line that is made of it.
pub fn file_record(data: &[u8]) {
    let content = Content::of(data);
    if let Content::Foreign(start) = &content {
        is_for_people(start);
    }
    let (Content::Counter(counter), Some(mut there)) = (content, holder(data)) else { return };
    let _ = there.to_string();
    // What the first one leaves out or replaces, the second one finds gone.
    for whole in [false, true] {
        let pid = there.pid().unwrap_or_default();
        let since = there.since().unwrap_or(SystemTime::UNIX_EPOCH);
        let line = encode(counter, Mode::Shared, &there, pid, since);
        assert_eq!(Content::of(&line), Content::Counter(counter));
        let Some(again) = holder(&line) else {
            assert!(!whole);
            return;
        };
        assert!(!whole || again == there, "{again:?} from {there:?}");
        there = again;
    }
}

/// Lock names and file names: each is made of the other, and no file is outside its directory.
pub fn file_name(data: &[u8]) {
    let Some(name) = str::from_utf8(data).ok().filter(|name| !name.is_empty()) else { return };
    let file = |name| {
        let mut file = String::new();
        Names::Escaped.file_onto(&mut file, name).map(|()| file)
    };
    let fits = Names::Escaped.check(name).is_ok();
    match file(name) {
        Ok(file) => {
            assert!(fits && file.len() <= 255 && !file.starts_with('.'));
            assert!(file.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'\\'), "{file}");
            assert_eq!(unescape(&file).as_deref(), Some(name));
        }
        Err(_) => assert!(!fits),
    }
    if let Some(lock) = unescape(name) {
        assert_eq!(file(&lock).unwrap(), name);
    }
}
