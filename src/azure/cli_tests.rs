use std::fs;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn both_outputs_are_heard_and_nothing_can_be_asked() {
    let (status, [said, complaint]) = run(shell("cat; echo token; echo trouble >&2; exit 3"), LONG).unwrap();
    assert_eq!((status.code(), &*said, &*complaint), (Some(3), &b"token\n"[..], &b"trouble\n"[..]));
}

#[test]
fn what_hangs_is_killed_with_all_that_it_started() {
    let file = std::env::temp_dir().join(format!("leasehold-az-{}", std::process::id()));
    let start = Clock::system().now();
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    let why = run(shell(&script), Duration::from_millis(500)).unwrap_err();
    assert_eq!((why.kind, &*why.why), (ErrorKind::Unavailable, "`az` did not end within 500 ms"));
    assert!(Clock::system().now().saturating_since(start) < LONG);
    let child: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    fs::remove_file(&file).unwrap();
    let lives = || {
        // One that nobody has waited for yet is dead all the same.
        let shown = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        cfg!(target_os = "linux") && shown.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
    };
    let limit = Limit::after(&Clock::system(), LONG);
    while lives() {
        assert!(!limit.passed(), "it lives on");
        std::thread::yield_now();
    }
}

#[test]
fn what_says_too_much_is_killed() {
    let why = run(shell("while :; do echo hunter2hunter2hunter2hunter2; done"), LONG).unwrap_err();
    assert_eq!(why.kind, ErrorKind::Config);
    assert!(!why.why.contains("hunter2"), "{why:?}");
}

#[test]
fn what_is_not_there_is_said() {
    let why = run(Command::new("/no/such/az"), LONG).unwrap_err();
    assert_eq!((why.kind, &*why.why), (ErrorKind::Config, "there is no `az` on the PATH"));
}

#[test]
fn why_it_gave_nothing() {
    let failed = run(shell("exit 1"), LONG).unwrap().0;
    for (complaint, kind, shown) in [
        ("", ErrorKind::Unavailable, "`az` failed: exit status: 1"),
        ("\n\nWARNING: old\nERROR: Please run 'az login' to setup account.\n", ErrorKind::Denied, "az login"),
        (
            "ERROR: AADSTS70043: The refresh token has expired\r\nTrace ID: 1",
            ErrorKind::Denied,
            "AADSTS70043",
        ),
        ("ERROR: HTTPSConnectionPool: Max retries exceeded", ErrorKind::Unavailable, "Max retries"),
        ("'az' is not recognized as an internal or external command,\r\n", ErrorKind::Config, "recognized"),
        ("\u{1b}[31mERROR: red\u{1b}[0m", ErrorKind::Unavailable, "`az`: [31mERROR: red"),
    ] {
        let why = refusal(failed, complaint);
        assert_eq!(why.kind, kind, "{complaint}");
        assert!(why.why.contains(shown) && !why.why.contains('\n'), "{why:?}");
    }
    let long = refusal(failed, &"x".repeat(10_000));
    assert!(long.why.len() < 400);
}
