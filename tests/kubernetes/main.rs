//! The Kubernetes store, on a real kube-apiserver with etcd.
//!
//! `tests/run.sh kubernetes` builds and starts them, and runs these; `tests/run.sh peers` those beside lockgate.
#![allow(clippy::disallowed_methods, reason = "tests measure real time and start real threads")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod faults;
mod peers;
mod store;
mod support;
mod weather;
