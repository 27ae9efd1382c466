//! Locks that are keys in Consul, held by sessions.
//!
//! The lock `x` is the key `x` of the KV store, or `PREFIX/x`; whose session has it holds the lock. A lock and its
//! unlock are two requests, a waiter has the lock a millisecond after its release, and every lock has a fencing token:
//! the key's `ModifyIndex`. It is the same lock as that of [`api.Lock`], of the command `consul lock PREFIX` (whose
//! key is `PREFIX/.lock`) and of dlock.
//!
//! ```no_run
//! use leasehold::{Locker, consul};
//!
//! let store = consul::Builder::from_env()?.prefix("locks").build()?; // CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN ..
//! let guard = Locker::new(store).lock("migration")?;
//! guard.unlock()?;
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! - **TTL**: 10 s to 86,400 s, 30 s unless it is set. There are no locks without one.
//! - **After a crash** the lock is free after up to 2 x TTL + lock-delay: Consul ends a session between one and two
//!   TTLs after its last renewal, later when its leader changes meanwhile, and then keeps its keys for the
//!   [lock-delay](Builder::lock_delay). With a TTL of 10 s that is 20 to 30 s. A clean release lets the next one in at
//!   once.
//! - **Lock-delay**: the TTL, but 60 s at most. So a break of a lock whose TTL is over 180 s can let another in before
//!   its holder has renewed, and so before it was told.
//! - **Health checks**: none, so that only the TTL ends a session; see [`Builder::node_checks`].
//! - **Sessions** are kept for the next lock of the same store, and ended with it (for which its drop waits for 1 s at
//!   most); what could not be ended goes with its TTL. Each guard has a session of its own.
//! - **Rights** of the token, where ACLs are on: `session_prefix "" { policy = "write" }` (or `session "NODE"`, for
//!   the agent's node) and `key_prefix "PREFIX/" { policy = "write" }`, since readers have their entries below the
//!   lock's key. A right that is lacking is `Denied`, with the rule.
//! - **Consistency**: whether a key is ours is asked in the mode `consistent`, which a majority of the servers
//!   confirms; waiting is asked in the default mode. Transactions are consistent by themselves.
//! - **Names**: `A-Z a-z 0-9 - _ .` and slashes between parts are themselves, every other byte is written `=2F`. With
//!   a prefix `a/b` the lock `c` is the lock `b/c` of the prefix `a`.
//! - **The value** is a JSON object: `holder`, `host`, `pid`, `lockAcquisitionTime`; other fields in it stay. A key
//!   with other flags than a lock's is no lock, and is refused.
//! - **Shared** locks exclude exclusive ones of this library. The other programs know exclusive locks alone, and do
//!   not see who shares one. A writer that waits keeps new readers out.
//! - **Break**: [`AfterNotice`](crate::Break::AfterNotice) ends the session, with all else that it holds, and the
//!   lock-delay keeps others out; [`Now`](crate::Break::Now) releases the key alone, at once, beside its holder, who
//!   is told by its next renewal.
//! - **Renewal** is two requests, since a session outlives the loss of its key: a renewal of the session, and a look
//!   at the key.
//!
//! Protocol: the pages "Sessions", "KV Store", "Transactions", "Blocking Queries" and "Consistency Modes" of Consul's
//! HTTP API documentation.
//!
//! [`api.Lock`]: https://pkg.go.dev/github.com/hashicorp/consul/api#Lock

mod address;
mod agent;
mod answer;
mod builder;
mod exclusive;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod held;
mod key;
mod record;
mod session;
mod shared;
mod store;
mod terms;
mod waiting;

#[cfg(fuzzing)]
pub(crate) use address::check as check_address;
pub(crate) use address::open;
pub use builder::{Behavior, Builder};
pub use store::Store;
