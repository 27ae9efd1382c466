//! The public API, as users rely on it: against every store that needs no server.
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod faults;
mod file;
mod handover;
mod lock;
mod loss;
mod processes;
mod punctual;
mod queue;
mod readme;
mod shutdown;
mod support;
