//! The Consul store, on a real agent and on servers that misbehave.
//!
//! `tests/run.sh consul` builds and starts Consul, and runs these; `tests/run.sh peers` those beside Go programs.
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod peers;
mod sessions;
mod shared;
mod store;
mod support;
mod weather;
