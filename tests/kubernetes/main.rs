//! The Kubernetes store, on a real kube-apiserver with etcd.
//!
//! `tests/run.sh kubernetes` builds and starts them, and runs these; `tests/run.sh peers` those beside lockgate.
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fault_server.rs"]
#[allow(dead_code, reason = "each program uses a part of it")]
mod fault_server;

mod access;
mod faults;
mod peers;
mod store;
mod support;
mod weather;
