//! `examples/fencing.rs`, as users run it: a holder that was too late, and what it writes to.
#![allow(clippy::disallowed_methods, reason = "those are for the library; a test runs other processes")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

/// The example, which `cargo test` builds beside the tests.
fn program() -> Command {
    let test = env::current_exe().unwrap();
    let name = format!("fencing{}", env::consts::EXE_SUFFIX);
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    Command::new(path)
}

/// One that holds the lock; gives its token.
fn holder(address: &str, resource: &str, value: &str) -> (Child, u64) {
    let mut command = program();
    command.args([address, resource, value]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let token = line.trim_start_matches("holds the lock with token ").split(';').next().unwrap().parse();
    (child, token.unwrap())
}

/// Lets it write: its exit code, and what it says.
fn goes_on(mut child: Child) -> (Option<i32>, String) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_file_refuses_an_older_token() {
    let dir = env::temp_dir().join(format!("leasehold-fencing-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (address, file) = (format!("file:{}", dir.join("locks").display()), dir.join("data.txt"));
    let resource = file.to_str().unwrap();
    let (first, old) = holder(&address, resource, "of the first");
    // As an operator does who takes it for dead.
    fs::remove_file(dir.join("locks/resource.lock")).unwrap();
    let (second, new) = holder(&address, resource, "of the second");
    assert!(old < new);
    assert_eq!(goes_on(second), (Some(0), format!("written with token {new}\n")));
    assert_eq!(goes_on(first), (Some(76), format!("refused: token {old} is older than {new}\n")));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{new}\nof the second\n"));
    // What comes next is newer again.
    let (third, newest) = holder(&address, resource, "of the third");
    assert_eq!(goes_on(third).0, Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{newest}\nof the third\n"));
    fs::remove_dir_all(&dir).unwrap();
}
