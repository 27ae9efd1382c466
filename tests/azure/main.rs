//! The Azure store, on a real Azurite and on servers that misbehave.
//!
//! `tests/run.sh azure` installs and starts Azurite, and runs these; `tests/run.sh peers` those beside Go programs.
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;

mod blob;
mod credentials;
mod endpoints;
mod examples;
mod fault_server;
mod faults;
mod fencing;
mod handover;
#[cfg(target_os = "linux")]
mod identities;
#[cfg(target_os = "linux")]
mod identity_server;
mod outcomes;
mod peers;
mod secrets;
mod shared;
mod shared_faults;
mod store;
mod support;
mod ten_minutes;
mod tokens;
mod weather;
