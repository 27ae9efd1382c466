//! `examples/fencing.rs`, as users run it: a holder that was too late, and what it writes to.
#![allow(clippy::disallowed_methods, reason = "those are for the library; a test runs other processes")]

#[path = "common/example.rs"]
mod example;

use std::{env, fs, process::Child};

use example::goes_on;

/// One that holds the lock; gives its token.
fn holder(address: &str, resource: &str, value: &str) -> (Child, u64) {
    example::fencing(example::example("fencing").args([address, resource, value]))
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
