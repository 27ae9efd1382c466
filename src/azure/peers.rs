//! Whose names the blobs of locks bear: this library's own, or those of Go libraries that lock by leases too.
//!
//! Their rules are read in their sources: goazurelocking's `IsValidLockName` and `NewLockInstance` ("locking.go" of
//! `lawrencegripper/goazurelocking`), go-azuremutex's `Acquire` ("mutex.go" of `youscan/go-azuremutex`).

use super::name::SEGMENTS;
use crate::{Error, ErrorKind, Result};

/// Where goazurelocking has all its locks.
pub(super) const GOAZURELOCKING_CONTAINER: &str = "azlockcontainer";
const GOAZURELOCKING_START: &str = "azlk-";

/// How the blob of a lock is named: as this library does it, or as a Go library whose locks are to be the same.
///
/// A choice of [`Builder::names`](super::Builder::names), and of `?names=` in an address. All who share a container
/// make the same one: only programs that agree on the blob exclude each other.
///
/// ```no_run
/// use leasehold::{Locker, azure};
///
/// let guard = Locker::open("azure:?names=goazurelocking")?.lock("nightly-import")?;
/// // or
/// let container = azure::Account::from_env()?.container("mutexes");
/// let locker = Locker::new(container.names(azure::Names::AzMutex).build()?);
/// # Ok::<(), leasehold::Error>(())
/// ```
///
/// The Go libraries take the lease of the same blob, so that they and this one exclude each other, and a crash of
/// either frees the lock within its TTL: 15 to 60 s for goazurelocking, 60 s for go-azuremutex. What they do not see
/// or do:
///
/// - **Shared locks**: they know exclusive ones alone, and take a lock beside readers.
/// - **The holder**: they do not write it, and do not read ours.
/// - **Fencing tokens**: they have none, so that a resource that asks for one has to do without for them.
/// - **Metadata**: both put an empty blob over one that nobody holds, before each lock (goazurelocking) or each try
///   (go-azuremutex), and so wipe the metadata that others wrote. The service refuses that for a held one.
/// - **Losses**: goazurelocking panics at a renewal that fails, go-azuremutex logs it and works on.
///
/// A prefix does not go with their names: the key `ci/x` of go-azuremutex is the lock `ci/x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Names {
    /// This library's own: any name, behind a prefix if wanted; every byte but `A-Z a-z 0-9 - _ .` is written `~2F`.
    #[default]
    Escaped,
    /// Those of the Go library goazurelocking; `?names=goazurelocking` in an address.
    ///
    /// The container is `azlockcontainer`, the blob `azlk-` and the name: 3 to 58 of `A-Z a-z 0-9`, and hyphens that
    /// stand alone between them. Capitals are other names than small letters.
    GoAzureLocking,
    /// Those of the Go library go-azuremutex; `?names=azmutex` in an address.
    ///
    /// The container is the one that its users name, the blob is the key as it is. Keys that the service stores as
    /// another one's blob, or that mean something to what is between (a `\`, an empty part between slashes, a dot
    /// at the end of one, control characters) are refused, and so are those that start with `~`: there lies what
    /// belongs to locks.
    AzMutex,
}

/// The blob of goazurelocking's lock.
///
/// # Errors
/// `Name`, when that library refuses this one.
pub(super) fn goazurelocking(name: &str) -> Result<String> {
    let parts =
        name.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if parts && (3..=58).contains(&name.len()) {
        return Ok(format!("{GOAZURELOCKING_START}{name}"));
    }
    let rule = "goazurelocking takes 3 to 58 of `A-Z a-z 0-9`, and single hyphens between them";
    Err(Error::new(ErrorKind::Name, rule))
}

/// The lock of goazurelocking that a blob is.
pub(super) fn goazurelocking_lock(blob: &str) -> Option<String> {
    let name = blob.strip_prefix(GOAZURELOCKING_START)?;
    goazurelocking(name).is_ok().then(|| name.to_owned())
}

/// Whether this key of go-azuremutex is a blob's name as it stands, and no other key's blob.
///
/// # Errors
/// `Name`, with what is wrong.
pub(super) fn check_azmutex(key: &str) -> Result<()> {
    // Neither the service nor XML, in which it lists blobs, has a way to write control characters.
    let plain = |c: char| c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric());
    let wrong = if key.is_empty() {
        "it is empty"
    } else if key.contains('\\') {
        "the service stores a `\\` as `/`, so that this would be another key's blob"
    } else if !key.chars().all(plain) {
        "a key of go-azuremutex has letters, digits, spaces and ASCII punctuation here"
    } else if key.starts_with('~') {
        "a `~` at the start is kept for what lies beside locks"
    } else if key.split('/').any(str::is_empty) {
        "slashes stand alone, and between other characters: what comes of others depends on who sends them"
    } else if key.split('/').any(|segment| segment.ends_with('.')) {
        "the service does without dots at the end and before slashes, so that this would be another key's blob"
    } else if key.split('/').count() > SEGMENTS {
        "it has more than 250 parts between slashes"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Name, wrong))
}
