//! Locks that are annotations of a Kubernetes object: a ConfigMap, a resource of your own, a node.
//!
//! The lock `migration` is two annotations of the object that the store was built with: who has it, in the very format
//! of the Go library lockgate (werf), and beside it what that has no room for. Both go when the lock is let go; nothing
//! else on the object is touched, and whatever others write to it is no conflict. A lock and its unlock are two requests.
//!
//! ```no_run
//! use leasehold::{Locker, kubernetes};
//!
//! let access = kubernetes::Access::from_env()?; // in a pod, its service account
//! let store = access.object("default", "configmaps", "locks").create(true).build()?;
//! let guard = Locker::new(store).lock("migration")?;
//! guard.unlock()?;
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! - **Access**: in a pod its service account, with the feature `kubeconfig` what `kubectl` uses, or a server with a
//!   token or a client certificate ([`Access`]).
//! - **Rights**: `get` and `patch` of the object, `watch` to learn of a release at once (otherwise it is polled for),
//!   `create` only to make a missing ConfigMap. The smallest Role:
//!
//!   ```yaml
//!   rules:
//!   - apiGroups: [""]
//!     resources: [configmaps]
//!     resourceNames: [locks]
//!     verbs: [get, patch, watch]
//!   - apiGroups: [""]            # for `create(true)` only: `create` cannot be limited to a name
//!     resources: [configmaps]
//!     verbs: [create]
//!   ```
//! - **Object**: one that is not deleted, with an annotation of its own or more. Locks of many names can share it: an object's annotations have 256 KiB,
//!   a held lock takes some 600 bytes of them. A ConfigMap that is made here has an annotation more, which stays. Deleting it loses its locks, which their holders are told (`Lost`).
//! - **Expiry**: a holder is gone when its annotations stood unchanged for its TTL by the clock of who waits. Who sees
//!   them for the first time (`try_lock` in a job that runs now and then) goes by the API server's time, and 5 s more.
//!   No wall clock of ours is in it: that of the API servers is, which may differ from each other by 5 s.
//! - **Waiting** is a watch, a second at a time.
//! - **Fencing tokens** are the `resourceVersion` of the write that took the lock, a number that grows.
//! - **Shared locks** have a TTL of 10 s, whatever was asked for: lockgate's record of them has room for one time only.
//!   Readers who come and go without a pause can keep a writer out.
//! - **Break**: by default another record stands in the lock's place for its TTL, so that its holder can see that;
//!   [`Break::Now`](crate::Break::Now) removes it at once.
//!
//! # Beside lockgate
//!
//! Users of lockgate, such as werf, and of this library exclude each other on the same object, exclusively and shared.
//! What that cannot mend is what lockgate does itself: it judges by its own wall clock, and takes a lock whose time is
//! over by that. A lockgate process whose clock is ahead by more than is left of a TTL takes a lock that is held, ours
//! too: our holder is told at its next renewal (`Lost`), a third of the TTL later at most. One whose clock is behind
//! by 20 s or more looks long gone to who sees its record for the first time; the renewals of one whose clock stands
//! change nothing, so that it looks gone after 10 s. It has no deadline of its own either: one
//! that is cut off from the API server works on after its 10 s, beside who has the lock next.
//!
//! Protocol: "Kubernetes API Concepts" (resource versions, patch, watch) and the sources of werf/lockgate v0.1.1.

mod access;
mod acquire;
mod address;
mod answer;
mod builder;
mod decision;
#[cfg(feature = "kubeconfig")]
mod exec;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod held;
#[cfg(feature = "kubeconfig")]
mod kubeconfig;
mod object;
#[cfg(feature = "kubeconfig")]
mod plugin;
mod record;
mod service;
mod session;
mod store;
mod watch;

pub use access::Access;
#[cfg(fuzzing)]
pub(crate) use address::check as check_address;
pub(crate) use address::open;
pub use builder::Builder;
pub use store::Store;
