//! Who really holds a lock file: the line in it may be older than a holder who writes none, such as flock(1).

use super::identity::Identity;
use crate::Holder;

/// The processes that the kernel says have the file locked; `None` where it does not say.
#[cfg(target_os = "linux")]
pub(super) fn pids(file: Identity) -> Option<Vec<u32>> {
    // The kernel shows the table a page at a time, and skips lines when locks come and go meanwhile.
    (0..4).find_map(|_| {
        let table = std::fs::read_to_string("/proc/locks").ok()?;
        Some(parse(&table, file.device, file.number)).filter(|pids| !pids.is_empty())
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pids(_: Identity) -> Option<Vec<u32>> {
    None
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
fn parse(table: &str, (major, minor): (u32, u32), number: u64) -> Vec<u32> {
    let file = format!("{major:02x}:{minor:02x}:{number}");
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let mut words = words.skip(2);
        let pid = words.next()?.parse().ok()?;
        (is_flock && words.next()? == file).then_some(pid)
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
        assert_eq!(parse(table, (0xfe, 0), 131_090), [4711]);
        assert_eq!(parse(table, (0xfe, 0), 131_091), [12]);
        assert!(parse(table, (0xfe, 0), 1).is_empty());
    }
}
