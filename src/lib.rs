#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod acquire;
mod address;
pub mod backend;
mod backoff;
mod clock;
mod error;
mod event;
mod fencing;
#[cfg(feature = "file")]
pub mod file;
mod guard;
mod hold;
mod holder;
mod id;
mod keeper;
mod lease;
mod locker;
pub mod memory;
mod queue;
mod request;
mod settings;
mod signal;
mod term;
mod threads;
mod vigil;
mod watchdog;

pub use error::{Error, ErrorKind, LostReason, Result};
pub use event::{Event, OnLost, Unlocked};
pub use guard::{Guard, Watch};
pub use holder::{Break, Holder, Mode, Status};
pub use locker::Locker;
pub use request::LockRequest;
