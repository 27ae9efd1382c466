//! Beside the Go library lockgate, on its files and on its server.
//!
//! `tests/run.sh peers` builds its program, and runs these.
#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fault_server.rs"]
#[allow(dead_code, reason = "each program uses a part of it")]
mod fault_server;

mod files;
mod server;
