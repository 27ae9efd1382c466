//! Which file is it? Asked for each lock, so it asks the kernel for no more than that.

use std::{fs::File, io, path::Path};

/// A file by its device and number; equal exactly where the file is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: (u32, u32),
    pub(super) number: u64,
    pub(super) is_file: bool,
    /// Whether a path leads to it still.
    pub(super) is_linked: bool,
}

#[cfg(unix)]
mod imp {
    use std::os::fd::AsFd;

    use rustix::{
        fs::{AtFlags, CWD, FileType},
        path::Arg,
    };

    use super::{File, Identity, Path, io};

    pub(super) fn of(file: &File) -> io::Result<Identity> {
        ask(file, c"", true)
    }

    pub(super) fn at(path: &Path) -> io::Result<Identity> {
        ask(CWD, path, false)
    }

    /// Only what is needed: a kernel that was asked for the times of a file stores them again at the next
    /// write, which made a lock twice as slow (multigrain timestamps, Linux 6.13).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn ask(dir: impl AsFd, path: impl Arg + Copy, itself: bool) -> io::Result<Identity> {
        use rustix::{
            fs::{StatxFlags, statx},
            io::Errno,
        };
        let flags = if itself { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::NLINK;
        match statx(&dir, path, flags, wanted) {
            Ok(stat) => Ok(Identity {
                device: (stat.stx_dev_major, stat.stx_dev_minor),
                number: stat.stx_ino,
                is_file: FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile,
                is_linked: stat.stx_nlink > 0,
            }),
            // Kernels before 4.11, and sandboxes that do not know it.
            Err(Errno::NOSYS | Errno::PERM) => plainly(dir, path, itself),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    use plainly as ask;

    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the types differ by system")]
    fn plainly(dir: impl AsFd, path: impl Arg, itself: bool) -> io::Result<Identity> {
        use rustix::fs::{fstat, major, minor, statat};
        let stat = if itself { fstat(dir) } else { statat(dir, path, AtFlags::SYMLINK_NOFOLLOW) }?;
        let device = stat.st_dev as rustix::fs::Dev;
        Ok(Identity {
            device: (major(device) as u32, minor(device) as u32),
            number: stat.st_ino as u64,
            is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
            is_linked: stat.st_nlink > 0,
        })
    }
}

/// Windows keeps the path of an open file taken, so every file at a path is the one that was opened there.
#[cfg(not(unix))]
mod imp {
    use super::{File, Identity, Path, io};

    pub(super) fn of(file: &File) -> io::Result<Identity> {
        file.metadata().map(|meta| Identity {
            device: (0, 0),
            number: 0,
            is_file: meta.is_file(),
            is_linked: true,
        })
    }

    pub(super) fn at(path: &Path) -> io::Result<Identity> {
        of(&File::open(path)?)
    }
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        imp::of(file)
    }

    /// A link is not followed.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        imp::at(path)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn agrees_with_std() {
        let path = std::env::current_exe().unwrap();
        let (file, std) = (File::open(&path).unwrap(), path.metadata().unwrap());
        let id = Identity::of(&file).unwrap();
        assert_eq!(id, Identity::at(&path).unwrap());
        let device = (rustix::fs::major(std.dev()), rustix::fs::minor(std.dev()));
        assert_eq!((id.number, id.device, id.is_file), (std.ino(), device, true));
        let dir = Identity::at(path.parent().unwrap()).unwrap();
        assert!(!dir.is_file && dir != id && dir.is_linked);
        assert!(Identity::at(&path.join("x")).is_err());
    }
}
