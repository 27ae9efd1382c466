//! Lock files on the disk: the only module that opens, locks, reads and writes them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{identity::Identity, record::WIDTH};
use crate::{Error, ErrorKind, Mode, Result};

/// This process, as each unlock sees it: asking the kernel at each lock too would show in what a lock costs.
/// A process that was forked learns of that by its first unlock.
static PID: AtomicU32 = AtomicU32::new(0);

fn known_pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => std::process::id(),
        pid => pid,
    }
}

/// A lock file that is open and not locked.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    writable: bool,
}

/// A lock file that is locked. Dropping it unlocks, then closes it.
#[derive(Debug)]
pub(super) struct Locked {
    opened: Opened,
    pid: u32,
}

/// Opens the file of a lock, and makes it and its directory when they are missing.
///
/// Without the right to write, a file can still be shared.
pub(super) fn open(path: &Path, mode: Mode) -> Result<Opened> {
    // Each round answers one thing that another process did meanwhile.
    for _ in 0..100 {
        let (file, writable) = match imp::open(path, true) {
            Ok(file) => (file, true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match create(path)? {
                Some(file) => (file, true),
                None => continue,
            },
            Err(e) if is_refusal(&e) && mode == Mode::Shared => match imp::open(path, false) {
                Ok(file) => (file, false),
                Err(e) => return Err(describe(&e, "open", path)),
            },
            Err(e) => return Err(describe(&e, "open", path)),
        };
        return Ok(Opened { file, writable });
    }
    let what = format!("{} comes and goes: something deletes it all the time", path.display());
    Err(Error::new(ErrorKind::Unavailable, what))
}

/// Opens the file of a lock as it is, to look at it only; `None` when there is none.
pub(super) fn open_existing(path: &Path) -> Result<Option<Opened>> {
    match imp::open(path, false) {
        Ok(file) => Ok(Some(Opened { file, writable: false })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(describe(&e, "open", path)),
    }
}

/// `None`: another process was first, or the directory was just made.
fn create(path: &Path) -> Result<Option<File>> {
    // A link that is there is a file that is there.
    match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => {
            open_to_who_may_enter(path, &file);
            Ok(Some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            fs::create_dir_all(dir).map_err(|e| describe(&e, "make the directory", dir))?;
            Ok(None)
        }
        Err(e) => Err(describe(&e, "create", path)),
    }
}

/// Who may create files in the directory may take the locks in it, whatever the umask of who came first.
fn open_to_who_may_enter(path: &Path, file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let Some(Ok(dir)) = path.parent().map(fs::metadata) else {
            return;
        };
        let writers = dir.mode() & 0o222;
        // They read, too.
        let mode = 0o600 | writers | writers << 1;
        // Without it the file works for us; whom it keeps out is told which bit is missing.
        if file.metadata().is_ok_and(|meta| meta.mode() & 0o777 != meta.mode() & 0o777 | mode) {
            let old = file.metadata().map_or(0o600, |meta| meta.mode() & 0o777);
            let _ = file.set_permissions(fs::Permissions::from_mode(old | mode));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, file);
}

impl Opened {
    /// Takes the lock if it is free.
    pub(super) fn try_lock(self, mode: Mode, path: &Path) -> Result<Result<Locked, Self>> {
        loop {
            #[expect(clippy::disallowed_methods, reason = "the one place")]
            let locked = match mode {
                Mode::Exclusive => fs4::FileExt::try_lock(&self.file),
                Mode::Shared => fs4::FileExt::try_lock_shared(&self.file),
            };
            return match locked {
                Ok(()) => Ok(Ok(Locked { opened: self, pid: known_pid() })),
                Err(fs4::TryLockError::WouldBlock) => Ok(Err(self)),
                Err(fs4::TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(fs4::TryLockError::Error(e)) => Err(describe(&e, "lock", path)),
            };
        }
    }

    /// Whether the file that is open is the one that the path leads to.
    pub(super) fn is_at(&self, path: &Path) -> Result<bool> {
        match Identity::at(path) {
            Ok(there) => Ok(there == self.identity(path)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(describe(&e, "look at", path)),
        }
    }

    pub(super) fn identity(&self, path: &Path) -> Result<Identity> {
        Identity::of(&self.file).map_err(|e| describe(&e, "look at", path))
    }

    /// The beginning of the file, where the line is.
    pub(super) fn read<'b>(&self, path: &Path, bytes: &'b mut [u8; WIDTH]) -> Result<&'b [u8]> {
        match imp::read(&self.file, path, bytes) {
            Ok(read) => Ok(&bytes[..read]),
            Err(e) => Err(describe(&e, "read", path)),
        }
    }

    /// Whether the line in the file can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Locked {
    /// The process that has it.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Writes the line over the one that was there, which is never cut first: so no crash and no full disk
    /// loses the counter.
    pub(super) fn write(&self, path: &Path, line: &[u8; WIDTH]) -> Result<()> {
        imp::write(&self.opened.file, path, line).map_err(|e| describe(&e, "write", path))
    }

    /// Whether some path still leads to the file: cheaper than to ask which.
    ///
    /// # Errors
    /// `Foreign` for what is no regular file.
    pub(super) fn is_linked(&self, path: &Path) -> Result<bool> {
        let identity = self.opened.identity(path)?;
        if !identity.is_file {
            let what = format!("{} is not a regular file; move it away", path.display());
            return Err(Error::new(ErrorKind::Foreign, what).not_sent());
        }
        Ok(identity.is_linked)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing alone leaves the lock to a child that was forked meanwhile, until that calls `exec`. In such
        // a child, though, unlocking would take the lock from its parent.
        let pid = std::process::id();
        PID.store(pid, Ordering::Relaxed);
        if self.pid == pid {
            #[expect(clippy::disallowed_methods, reason = "the one place")]
            let _ = fs4::FileExt::unlock(&self.opened.file);
        }
    }
}

#[cfg(unix)]
mod imp {
    use std::{fs::File, io, path::Path};

    use rustix::{
        fs::{Mode, OFlags, open as open_file},
        io::{pread, pwrite, retry_on_intr},
    };

    /// Opens what is there. It is not created in the same call: the kernel protects files of others in sticky
    /// directories from that (`fs.protected_regular`, proc(5)). A link could lead out of the directory.
    pub(super) fn open(path: &Path, to_write: bool) -> io::Result<File> {
        let access = if to_write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(retry_on_intr(|| open_file(path, flags, Mode::empty()))?.into())
    }

    pub(super) fn read(file: &File, _: &Path, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| pread(file, &mut *bytes, 0))?)
    }

    pub(super) fn write(file: &File, _: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match retry_on_intr(|| pwrite(file, &bytes[written..], written as u64))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                more => written += more,
            }
        }
        Ok(())
    }
}

/// Locks are mandatory on Windows: the line is in a file beside, which those who wait can read.
#[cfg(not(unix))]
mod imp {
    use std::{
        fs::{File, OpenOptions},
        io::{self, Read, Write},
        path::Path,
    };

    pub(super) fn open(path: &Path, to_write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(to_write).open(path)
    }

    pub(super) fn read(_: &File, path: &Path, bytes: &mut [u8]) -> io::Result<usize> {
        let mut file = match File::open(path.with_extension("holder")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file?,
        };
        let mut filled = 0;
        while let n @ 1.. = file.read(&mut bytes[filled..])? {
            filled += n;
        }
        Ok(filled)
    }

    pub(super) fn write(_: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        options.open(path.with_extension("holder"))?.write_all(bytes)
    }
}

fn is_refusal(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// What an error of the operating system means for a lock, with the file and the remedy.
pub(super) fn describe(e: &io::Error, doing: &str, path: &Path) -> Error {
    use io::ErrorKind as Io;
    let (kind, remedy) = match e.kind() {
        Io::PermissionDenied => (ErrorKind::Denied, missing_right(path)),
        Io::ReadOnlyFilesystem => (ErrorKind::Denied, "; choose a directory that can be written".into()),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Denied, "; nothing was changed".into()),
        Io::NotADirectory | Io::IsADirectory | Io::InvalidInput | Io::AlreadyExists => {
            (ErrorKind::Config, String::new())
        }
        Io::InvalidFilename => (ErrorKind::Config, "; choose a shorter directory or name".into()),
        Io::Unsupported => (ErrorKind::Unsupported, "; this file system has no locks".into()),
        _ if is_link(e, path) => (ErrorKind::Foreign, "; it is a symbolic link, move it away".into()),
        _ => (ErrorKind::Unavailable, String::new()),
    };
    let what = format!("cannot {doing} {}: {e}{remedy}", path.display());
    Error::new(kind, io::Error::new(e.kind(), what)).not_sent()
}

fn is_link(e: &io::Error, path: &Path) -> bool {
    #[cfg(unix)]
    let looped = rustix::io::Errno::from_io_error(e) == Some(rustix::io::Errno::LOOP);
    #[cfg(not(unix))]
    let looped = false;
    let _ = e;
    looped && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

/// Which mode bit keeps us out, of the file or of its directory.
fn missing_right(path: &Path) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = fs::symlink_metadata(path).ok().map(|meta| (path, meta, 0o6, "rw"));
        let parent = || {
            let parent = path.parent()?;
            Some((parent, fs::metadata(parent).ok()?, 0o3, "wx"))
        };
        let Some((path, meta, bits, letters)) = file.or_else(parent) else {
            return "; the directory cannot be entered: it needs the bit x".into();
        };
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let groups = rustix::process::getgroups().unwrap_or_default();
        let (class, shift) = if meta.uid() == uid {
            ("u", 6)
        } else if meta.gid() == gid || groups.iter().any(|g| g.as_raw() == meta.gid()) {
            ("g", 3)
        } else {
            ("o", 0)
        };
        if meta.mode() >> shift & bits == bits {
            return String::new();
        }
        format!(
            "; {} has mode {:o} and owner {}: uid {uid} needs {class}+{letters} (chmod {class}+{letters})",
            path.display(),
            meta.mode() & 0o7777,
            meta.uid()
        )
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        String::new()
    }
}
