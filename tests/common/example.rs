//! The example programs, which `cargo test` builds beside the tests.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

pub(crate) fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

/// Starts `examples/fencing.rs`, which holds the lock and waits; gives its token.
pub(crate) fn fencing(command: &mut Command) -> (Child, u64) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let token = line.trim_start_matches("holds the lock with token ").split(';').next().unwrap().parse();
    (child, token.unwrap())
}

/// Lets it write: its exit code, and what it says.
pub(crate) fn goes_on(mut child: Child) -> (Option<i32>, String) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}
