//! Beside the Go library lockgate, on its files and on its server.
//!
//! `tests/run.sh peers` builds its program, and runs these.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;

mod files;
mod server;
