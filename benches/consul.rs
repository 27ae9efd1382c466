//! Locks in Consul beside those of its own library: to come.

fn main() {}
