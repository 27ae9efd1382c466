//! Locks that are leases of blobs in Azure Blob Storage.
//!
//! The lock `x` is a blob of the container, which is made when it is missing and never written again; who holds
//! its lease holds the lock. A lock and its unlock are two requests. All expiry is the service's: 15 to 60 s, or
//! none ([`no_expiry`](crate::LockRequest::no_expiry)).
//!
//! ```no_run
//! use leasehold::{Locker, azure};
//!
//! let account = azure::Account::from_env()?; // AZURE_STORAGE_CONNECTION_STRING, or .._ACCOUNT and a credential
//! let store = account.container("locks").create_container(true).build()?;
//! let guard = Locker::new(store).lock("migration")?;
//! guard.unlock()?;
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! - **Credentials**: an account key, a SAS, or an identity of Microsoft Entra; each has a constructor of
//!   [`Account`], and [`Account::from_env`] finds the one that is set.
//! - **Rights**: the account's key; a SAS of the container that may create and write (`cw`; with
//!   `create_container`, one of the account); an identity with the role Storage Blob Data Contributor on the
//!   container (with `create_container`, on the account). Of a SAS, fencing takes
//!   `r` besides, `status` and breaks `r` and `l`, `list` `l`, shared locks `d` and `l`. What is not allowed is `Denied`,
//!   and the right that lacks is named.
//! - **Bearer tokens**: fetched once for an account and its clones, and renewed in the background well before they
//!   end. A lock that is held outlives every failure of that, as long as the old token or the lease lasts; a wait bears
//!   what may pass (a timeout, 429, 5xx) like a store that does not answer, and ends at once with `Denied` or
//!   `Config` at what does not. They go over https only, or within this machine.
//! - **Names**: every byte but `A-Z a-z 0-9 - _ .` is written `~2F`; a blob never belongs to two names.
//! - **Beside Go programs**: [`Names`] makes the locks those of goazurelocking or go-azuremutex as well.
//! - **Waiting** is asking: at jittered pauses of 100 ms growing to 1 s ([`Locker::poll`](crate::Locker::poll)), for
//!   all waiters of a process together. A writer that waits for readers to leave asks about 5 times a second,
//!   since nobody comes in meanwhile.
//! - **Shared**: readers lease the lock's blob together, and an entry each under `~locks/NAME/` beside it; to come in
//!   takes five requests, to leave one, a renewal two. Writers do not starve, and a reader's crash holds them up for its
//!   TTL at most. A lock that nobody has ever shared costs no request more. After its last reader, the blob stays leased
//!   for up to 60 s: a writer of this library takes that lease over at once, other programs wait.
//! - **Fencing** ([`fenced`](crate::LockRequest::fenced)): the counter is in the blob's metadata, two requests more. All
//!   who use the lock must want it. Where the counter was lost with its blob, tokens go on by the service's clock, in
//!   whole seconds.
//! - **Holder**: written with the fencing token, and by each reader; an exclusive lock without a token tells nobody who
//!   has it.
//! - **Break**: the service lets a broken lease run to its end before it gives the next one; its holder is told by
//!   its next renewal at the latest. [`Break::Now`](crate::Break::Now) frees it at once, beside that holder.
//! - **Hand-over**: [`Guard::detach`](crate::Guard::detach) and [`Locker::adopt`](crate::Locker::adopt), in both modes:
//!   the lease gets another id. A ticket fits every store of that container and prefix, whatever its endpoint.
//! - **Clocks**: requests bear the service's time, as learned from its answers; a machine's clock may be wrong.
//! - **What is no lock's blob** is left as it is, and the error is of kind `Foreign`: an archived blob, or a directory
//!   of that name in an account with a hierarchical namespace, where everything else is the same.
//! - **Soft delete** leaves nothing of a lock: a deleted blob is made anew. Snapshots have no leases.
//! - **`no_expiry`**: a crash leaves the lock until somebody breaks it; so does a request for it that the network
//!   delivers only after the lock was given up.
//!
//! Protocol: [Lease Blob](https://learn.microsoft.com/rest/api/storageservices/lease-blob) and "Authorize with
//! Shared Key" of the Azure Storage documentation; "Microsoft identity platform and the OAuth 2.0 client credentials
//! flow", "How to use managed identities for Azure resources on an Azure VM to acquire an access token" and "How to use
//! managed identities for App Service and Azure Functions" of the Entra documentation.

mod account;
mod address;
mod answer;
mod blob;
mod cli;
mod connection;
mod credential;
mod entra;
mod environment;
mod fence;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod handover;
mod json;
mod listing;
mod managed_identity;
mod metadata;
mod name;
mod oauth;
mod peers;
mod service;
mod shared;
mod shared_key;
mod store;
mod token;
mod tokens;
mod writer;

pub use account::{Account, Builder};
#[cfg(fuzzing)]
pub(crate) use address::check as check_address;
pub(crate) use address::open;
pub use blob::{Acquired, Blob};
pub use peers::Names;
pub use store::Store;
pub use token::Token;
