//! Distributed locks for programs without an async runtime: block until a named lock is held, work, let it go.
//!
//! [`Locker`] is a handle on a store; [`Guard`] is a held lock; [`backend`] is for stores of your own. What is
//! promised, what is not, and which stores there are, is in the README.
//!
//! # The tour
//!
//! Lock, work, unlock. Dropping the guard unlocks too, but cannot report anything.
//!
//! ```rust
//! # #[cfg(feature = "file")] {
//! use leasehold::Locker;
//!
//! # let dir = format!("file:{}", std::env::temp_dir().join("leasehold-tour").display());
//! # let _ = stringify!(
//! let locker = Locker::open("file:/var/lock/myapp")?;
//! # );
//! # let locker = Locker::open(&dir)?;
//! let guard = locker.lock("migration")?; // blocks until it is held
//! println!("token {:?}", guard.fencing_token());
//! guard.unlock()?;
//! # }
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! Try, wait for a while, share, run a closure. Contention is no error; a timeout is one, and names who holds the lock.
//!
//! ```rust
//! use leasehold::{ErrorKind, Locker};
//! use std::{io, time::Duration};
//!
//! let locker = Locker::open("memory:")?;
//! if let Some(_guard) = locker.try_lock("cache")? { /* nobody else has it */ }
//!
//! match locker.request("cache").timeout(Duration::from_secs(30)).lock() {
//!     Ok(guard) => drop(guard),
//!     Err(e) if e.kind() == ErrorKind::Timeout => eprintln!("{e}"), // .., held by "nightly job" (pid 47, on db1, ..)
//!     Err(e) => return Err(e.into()),
//! }
//!
//! let _together = locker.request("report").shared().lock()?;
//!
//! let rebuild = |_: &leasehold::Guard| -> io::Result<u32> { Ok(1) };
//! let n = locker.with_lock("cache", rebuild)??; // one ? for the lock, one for rebuild's own error
//! # assert_eq!(n, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Long work asks now and then whether it still has the lock. Threads get a view that does not keep it.
//!
//! ```rust
//! # use leasehold::Locker;
//! # use std::time::Duration;
//! # let locker = Locker::open("memory:")?;
//! let guard = locker.lock("import")?;
//! for _step in 0..3 {
//!     guard.check()?; // `Lost`, or `Shutdown`
//! }
//! let term = guard.watch();
//! std::thread::spawn(move || while term.check_for(Duration::from_millis(200)).is_ok() { /* beat */ });
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! A shutdown is a channel: a message, or the end of its sender. Waits end within a second; what is held stays held
//! until its guard goes, so that nobody else starts while you wind down.
//!
//! ```rust
//! # use leasehold::Locker;
//! # use std::time::Duration;
//! let (stop, shutdown) = std::sync::mpsc::channel(); // `stop` goes to your signal handler
//! let locker = Locker::open("memory:")?.ttl(Duration::from_secs(30)).shutdown_on(shutdown);
//! let guard = locker.lock("job")?;
//! drop(stop);
//! assert!(guard.check().is_err() && guard.is_held());
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! Tests: what does *your* program do when the lock is lost? [`memory`] has a clock that you move, and faults.
//!
//! ```rust
//! use leasehold::{ErrorKind, Locker, backend::Clock, memory};
//! use std::time::Duration;
//!
//! let time = Clock::manual();
//! let store = memory::Store::with_clock(time.clone());
//! let guard = Locker::new(store.clone()).ttl(Duration::from_secs(30)).lock("x")?;
//! store.fail(usize::MAX, ErrorKind::Unavailable); // an outage
//! time.advance(Duration::from_secs(31));
//! assert_eq!(guard.check().unwrap_err().kind(), ErrorKind::Lost);
//! # Ok::<(), leasehold::Error>(())
//! ```
//!
//! A store of your own is one method: see [`backend`].
//!
//! # Features
//!
//! - `file` (default): locks that are files in a directory. It brings `fs4`.
//! - `lockgate-files`: the file names of the Go library lockgate, for locks that are the same. It brings `sha2`.
//! - `azure`: locks in Azure Blob Storage. It brings `ureq` and what signs and reads.
//! - `consul`: locks in Consul. It brings `ureq` and `serde_json`.
//! - `kubernetes`: locks that are annotations of Kubernetes objects. It brings `ureq`, `serde_json` and `sha3`.
//! - `kubeconfig`: the credentials of `kubectl` for it, by `yaml-rust2`.
//! - `lockgate`: locks of a lockgate server. It brings `ureq` and `serde_json`.
//! - `rustls` (default) or `native-tls`: TLS for the stores over HTTP; both on: rustls. They bring nothing until such a
//!   store is on.
//!
//! [`memory`] is always there. No dependency's type is in a public signature.
//!
//! # Threads
//!
//! A lock with a TTL has a thread while it is waited for or held (`leasehold/<name>`, 256 KiB of stack, used again),
//! and a process with such locks has one more, which watches their deadlines. A file lock has none.
#![forbid(unsafe_code)]

mod acquire;
mod address;
#[cfg(feature = "azure")]
pub mod azure;
pub mod backend;
mod backoff;
mod clock;
#[cfg(feature = "consul")]
pub mod consul;
mod desk;
mod error;
mod event;
mod fencing;
#[cfg(any(feature = "consul", feature = "kubernetes"))]
mod fields;
#[cfg(feature = "file")]
pub mod file;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hold;
mod holder;
#[cfg(any(feature = "azure", feature = "consul", feature = "kubernetes", feature = "lockgate"))]
mod http;
mod id;
mod keeper;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod lease;
mod locker;
#[cfg(feature = "lockgate")]
pub mod lockgate;
pub mod memory;
mod percent;
#[cfg(any(feature = "azure", feature = "kubeconfig"))]
mod program;
mod queue;
mod request;
mod rfc3339;
mod seek;
mod settings;
#[cfg(any(feature = "azure", feature = "consul", feature = "kubernetes", feature = "lockgate"))]
mod shown;
mod signal;
mod term;
mod threads;
mod ticket;
mod vigil;
mod watchdog;

pub use error::{Error, ErrorKind, LostReason, Result};
pub use event::{Event, OnLost, Unlocked};
pub use guard::{Guard, Watch};
pub use holder::{Break, Holder, Mode, Status};
pub use locker::Locker;
pub use request::LockRequest;
pub use ticket::Ticket;
