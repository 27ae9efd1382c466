//! `examples/locks.rs`, as users run it.
#![allow(clippy::disallowed_methods, reason = "those are for the library; a test runs other processes")]

#[path = "common/example.rs"]
mod example;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use leasehold::Locker;

/// A directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("leasehold-locks-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn address(&self) -> String {
        format!("file:{}", self.0.display())
    }

    fn locker(&self, holder: &str) -> Locker {
        Locker::open(&self.address()).unwrap().holder(holder)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program() -> Command {
    example::example("locks")
}

/// Its exit code, and what it prints to stdout and stderr.
fn locks(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn says(arguments: &[&str]) -> String {
    let (code, out, err) = locks(arguments);
    assert_eq!((code, &*err), (Some(0), ""), "{arguments:?}");
    out
}

/// The number that stands where `since` is told.
fn since(json: &str) -> &str {
    let (_, after) = json.split_once("\"since\":").unwrap();
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap();
    &after[..end]
}

#[test]
fn the_state_of_a_lock_is_its_first_word() {
    let dir = Dir::new("state");
    let address = dir.address();
    assert_eq!(says(&[&address, "status", "x"]), "free\n");
    assert_eq!(
        says(&["--json", &address, "status", "x"]),
        "{\"name\":\"x\",\"state\":\"free\",\"expires\":null,\"holders\":[]}\n"
    );
    assert!(!dir.0.exists(), "it looks, and makes nothing");

    let guard = dir.locker("nightly \"job\"").lock("x").unwrap();
    let pid = std::process::id();
    let said = says(&[&address, "status", "x"]);
    assert!(said.starts_with(&format!(r#"held (no TTL) by "nightly \"job\"" (pid {pid}, on "#)), "{said}");
    assert!(said.contains(", since 2") && said.ends_with("Z)\n"), "{said}");
    let json = says(&[&address, "status", "x", "--json"]);
    let begin =
        r#"{"name":"x","state":"held","expires":false,"holders":[{"words":"nightly \"job\"","host":""#;
    assert!(json.starts_with(begin), "{json}");
    assert!(json.contains(&format!(",\"pid\":{pid},\"since\":")) && json.ends_with("}]}\n"), "{json}");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(now - since(&json).parse::<u64>().unwrap() < 60, "{json}");
    drop(guard);
    assert_eq!(says(&[&address, "status", "x"]), "free\n");

    let _readers = [0; 2].map(|_| dir.locker("reader").request("x").shared().lock().unwrap());
    assert!(says(&[&address, "status", "x"]).starts_with("shared (no TTL) by "));
    assert!(says(&[&address, "--json", "status", "x"]).contains(r#""state":"shared""#));
}

#[test]
fn all_locks_are_listed() {
    let dir = Dir::new("list");
    let address = dir.address();
    assert_eq!(
        (says(&[&address, "list"]), says(&["--json", &address, "list"])),
        (String::new(), "[]\n".to_owned())
    );
    let _held = dir.locker("me").lock("a b/\u{1}\"").unwrap();
    dir.locker("me").lock("free").unwrap().unlock().unwrap();
    let said = says(&[&address, "list"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with(r#""a b/\u{1}\"" held (no TTL) by "me" (pid "#), "{said}");
    assert_eq!(lines[1], "\"free\" free");
    let json = says(&["--json", &address, "list"]);
    assert!(json.starts_with(r#"[{"name":"a b/\u0001\"","state":"held","#), "{json}");
    assert!(
        json.ends_with("},{\"name\":\"free\",\"state\":\"free\",\"expires\":null,\"holders\":[]}]\n"),
        "{json}"
    );
}

#[test]
fn a_store_that_cannot_break_says_so() {
    let dir = Dir::new("break");
    let guard = dir.locker("me").lock("x").unwrap();
    for arguments in [&["break", "x"][..], &["break", "--now", "x"]] {
        let (code, out, err) = locks(&[&[&*dir.address()], arguments].concat());
        assert_eq!((code, &*out), (Some(69), ""));
        assert!(err.starts_with("locks: lock \"x\": not supported: "), "{err}");
    }
    assert!(guard.is_held());
    assert_eq!(says(&["memory:", "break", "x"]), "free: nobody had it\n");
    let json = says(&["--json", "memory:", "break", "--", "-x"]);
    assert_eq!(json, "{\"name\":\"-x\",\"broken\":false,\"free_in_seconds\":null}\n");
}

#[test]
fn wrong_usage_is_said_and_nothing_done() {
    for (arguments, reason) in [
        (&[][..], "ADDRESS is missing"),
        (&["memory:"], "`list`, `status` or `break` is missing"),
        (&["memory:", "look"], "\"look\" is none of"),
        (&["memory:", "status"], "NAME is missing"),
        (&["memory:", "list", "x"], "\"x\" is one word too many"),
        (&["memory:", "status", "--now", "x"], "--now belongs to `break`"),
        (&["--jsn", "memory:", "list"], "there is no option --jsn"),
        (&["redis:x", "list"], "scheme"),
        (&["memory:", "status", ""], "name"),
    ] {
        let (code, out, err) = locks(arguments);
        assert_eq!((code, &*out), (Some(64), ""), "{arguments:?}");
        assert!(err.starts_with("locks: ") && err.contains(reason), "{arguments:?}: {err}");
    }
    for help in ["--help", "-h"] {
        let said = says(&["memory:", help]);
        for told in ["usage: locks [--json] ADDRESS list", "--now", "Exit codes:"] {
            assert!(said.contains(told), "{said}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_nobody_takes_is_an_error_unless_it_is_a_closed_pipe() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = program().arg("--help").stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(74));
    let mut child = Command::new("sh");
    let run =
        child.args(["-c", "{ sleep 0.2; \"$0\" --help; echo $? >&2; } | true"]).arg(program().get_program());
    assert_eq!(String::from_utf8(run.output().unwrap().stderr).unwrap(), "0\n");
}
