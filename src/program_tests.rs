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
    let (status, [said, complaint]) =
        run("az", shell("cat; echo token; echo trouble >&2; exit 3"), LONG).unwrap();
    assert_eq!((status.code(), &*said, &*complaint), (Some(3), &b"token\n"[..], &b"trouble\n"[..]));
}

#[test]
fn what_hangs_is_killed_with_all_that_it_started() {
    let file = std::env::temp_dir().join(format!("leasehold-program-{}", std::process::id()));
    let start = Clock::system().now();
    let script = format!("sleep 300 & echo $! > {}; wait", file.display());
    let why = run("az", shell(&script), Duration::from_millis(500)).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Unavailable);
    assert!(why.to_string().ends_with("`az` did not end within 500 ms"), "{why}");
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
    let why = run("az", shell("while :; do echo hunter2hunter2hunter2hunter2; done"), LONG).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Config);
    assert!(!why.to_string().contains("hunter2"), "{why}");
}

#[test]
fn what_is_not_there_is_said() {
    let why = run("az", Command::new("/no/such/az"), LONG).unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Config);
    assert!(why.to_string().ends_with("there is no `az` on the PATH"), "{why}");
}

#[test]
fn one_that_closes_its_outputs_is_not_waited_for_longer() {
    let start = Clock::system().now();
    let why = run("az", shell("exec >&- 2>&-; sleep 300"), Duration::from_millis(500)).unwrap_err();
    assert!(why.to_string().ends_with("`az` did not end within 500 ms"), "{why}");
    assert!(Clock::system().now().saturating_since(start) < LONG);
}
