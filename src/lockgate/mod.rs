//! Locks of a lockgate server: `lockgate+http://HOST/PATH`.
//!
//! The Go library lockgate (werf) has a small lock server, which others run too
//! (`https://synchronization.werf.io/CLIENT/locker` for one). Its users and those of this library exclude each other.
//!
//! ```no_run
//! use leasehold::{Locker, lockgate};
//!
//! let store = lockgate::Store::new("https://locks.internal/")?;
//! let guard = Locker::new(store).lock("migration")?;
//! guard.unlock()?;
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! - **TTL**: the server's, whatever was asked for: 10 s in whole seconds, of which 9 are sure. It is renewed every 3 s.
//! - **Rights**: none. Whoever reaches the server can take its locks, and release those whose id it knows.
//! - **Waiting** is asking: at jittered pauses of 100 ms growing to 1 s ([`Locker::poll`](crate::Locker::poll)).
//! - **Shared locks** are counted by the server. A reader's release is never sent twice, since it would count for
//!   another reader: one whose answer was lost may keep writers out until all readers have been gone for 10 s, and so
//!   does a reader who died.
//! - **What it cannot do**: fencing tokens, holders, a status, a list, breaks, hand-over.
//! - **What it does wrong**, and how far that is caught here: a server of 2024 can grant a lease that it did not store,
//!   so that a grant counts after its first renewal only (three requests for a lock and unlock). It can let a reader in
//!   beside a writer who took over from readers that died: that cannot be seen from here.
//!
//! Protocol: the sources of werf/lockgate, `http_backend_handler.go`, of v0.1.1 and of 2024.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod protocol;
mod store;

pub use store::Store;
