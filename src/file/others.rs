//! Who really holds a lock file: the line in it may be older than a holder who writes none, such as flock(1).

use super::identity::Identity;
use crate::{Holder, Mode};

/// One who has a file locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) pid: u32,
    pub(super) mode: Mode,
}

/// Who the kernel says has the file locked; nobody where it does not say.
#[cfg(target_os = "linux")]
pub(super) fn holders(file: Identity) -> Vec<Other> {
    use std::io::Read;
    // In one read: the kernel skips lines when locks come and go between two.
    let mut table = vec![0; 256 * 1024];
    let read = std::fs::File::open("/proc/locks").and_then(|mut file| file.read(&mut table));
    table.truncate(read.unwrap_or(0));
    parse(&String::from_utf8_lossy(&table), file.device, file.number)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn holders(_: Identity) -> Vec<Other> {
    Vec::new()
}

/// Whether a holder surely is no more: a process of this machine that has ended.
pub(super) fn is_gone(holder: &Holder) -> bool {
    let here = holder.host() == Some(crate::holder::host());
    let is_there = |pid| std::path::Path::new(&format!("/proc/{pid}")).exists();
    cfg!(target_os = "linux") && here && !holder.pid().is_some_and(is_there)
}

/// A holder of whom only the process is known.
pub(super) fn process(pid: u32) -> Holder {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let words = match name.trim() {
        "" => "unknown program",
        name => name,
    };
    Holder::new(words).with_process(crate::holder::host(), pid)
}

/// Lines such as `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131090 0 EOF` (`proc_locks`(5)).
#[cfg(target_os = "linux")]
fn parse(table: &str, (major, minor): (u32, u32), number: u64) -> Vec<Other> {
    let file = format!("{major:02x}:{minor:02x}:{number}");
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let mode = match words.nth(1)? {
            "READ" => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let pid = words.next()?.parse().ok()?;
        (is_flock && words.next()? == file).then_some(Other { pid, mode })
    };
    table.lines().filter_map(line).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let table = "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131090 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 99 fe:00:131090 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 98 fe:00:131090 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 12 fe:00:131091 0 EOF\nnonsense\n";
        assert_eq!(parse(table, (0xfe, 0), 131_090), [Other { pid: 4711, mode: Mode::Exclusive }]);
        assert_eq!(parse(table, (0xfe, 0), 131_091), [Other { pid: 12, mode: Mode::Shared }]);
        assert!(parse(table, (0xfe, 0), 1).is_empty());
    }
}
