//! Who really holds a lock file: the line in it may be older than a holder who writes none, such as flock(1).

use crate::Holder;

/// The processes that the kernel says have the file locked; `None` where it does not say.
#[cfg(target_os = "linux")]
pub(super) fn pids(identity: (u64, u64)) -> Option<Vec<u32>> {
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    let pids = parse(&table, identity);
    Some(pids).filter(|pids| !pids.is_empty())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pids(_: (u64, u64)) -> Option<Vec<u32>> {
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
fn parse(table: &str, (dev, ino): (u64, u64)) -> Vec<u32> {
    let file = format!("{:02x}:{:02x}:{ino}", rustix::fs::major(dev), rustix::fs::minor(dev));
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
        let dev = rustix::fs::makedev(0xfe, 0);
        assert_eq!(parse(table, (dev, 131_090)), [4711]);
        assert_eq!(parse(table, (dev, 131_091)), [12]);
        assert!(parse(table, (dev, 1)).is_empty());
    }
}
