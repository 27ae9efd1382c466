//! The example programs, as users run them, on Azurite.

use std::process::{Child, Command};

use leasehold::{Break, Locker};

use crate::{
    common::example::{self, goes_on},
    support::{KEY, NAME, SAS, SECOND, account, by_hand, endpoint, fresh_container},
};

/// An example with Azurite's account.
fn example(name: &str) -> Command {
    let mut command = example::example(name);
    command.env_remove("AZURE_STORAGE_CONNECTION_STRING");
    command.env("AZURE_STORAGE_ACCOUNT", NAME).env("AZURE_STORAGE_KEY", KEY);
    command
}

fn address(container: &str) -> String {
    format!("azure:{container}?endpoint={}", endpoint())
}

fn on(container: &str) -> Locker {
    Locker::new(account().container(container).create_container(true).build().unwrap()).ttl(15 * SECOND)
}

#[track_caller]
fn locks(container: &str, arguments: &[&str]) -> String {
    let output = example("locks").arg(address(container)).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!((output.status.code(), &*err), (Some(0), ""), "{out}");
    out
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn locks_tells_who_has_what_and_breaks_it() {
    let container = fresh_container();
    assert_eq!(locks(&container, &["list"]), "");
    let locker = on(&container).holder("nightly");
    let held = locker.request("held").fenced().lock().unwrap();
    let unknown = locker.lock("unknown").unwrap();
    let ever = locker.request("ever").no_expiry().fenced().lock().unwrap();
    let readers = [0; 2].map(|_| locker.request("shared").shared().lock().unwrap());
    locker.lock("free").unwrap().unlock().unwrap();

    let by = format!("by \"nightly\" (pid {}, on ", std::process::id());
    let status = |name| locks(&container, &["status", name]);
    assert!(status("held").starts_with(&format!("held {by}")), "{}", status("held"));
    assert!(status("held").contains(", since 2"));
    assert_eq!(status("unknown"), "held by somebody unknown\n");
    assert!(status("ever").starts_with(&format!("held (no TTL) {by}")), "{}", status("ever"));
    assert!(status("shared").starts_with(&format!("shared {by}")), "{}", status("shared"));
    assert_eq!(status("shared").matches("nightly").count(), 2);
    assert_eq!((&*status("free"), &*status("never")), ("free\n", "free\n"));
    let list = locks(&container, &["list"]);
    let first: Vec<_> = list.lines().map(|line| line.split(" by ").next().unwrap()).collect();
    let expected =
        ["\"ever\" held (no TTL)", "\"free\" free", "\"held\" held", "\"shared\" shared", "\"unknown\" held"];
    assert_eq!(first, expected);
    let json = locks(&container, &["--json", "list"]);
    assert!(
        json.starts_with(r#"[{"name":"ever","state":"held","expires":false,"holders":[{"words":"nightly""#)
    );
    assert!(json.contains(r#"{"name":"unknown","state":"held","expires":true,"holders":[]}"#), "{json}");

    assert_eq!(locks(&container, &["break", "free"]), "free: nobody had it\n");
    assert_eq!(locks(&container, &["break", "--now", "held"]), "broken: free now\n");
    assert!(locker.try_lock("held").unwrap().is_some());
    assert!(held.renew().is_err());
    let said = locks(&container, &["break", "shared"]);
    assert!(said.starts_with("broken: free in ") && said.ends_with(" s at the latest\n"), "{said}");
    assert!(locker.try_lock("shared").unwrap().is_none());
    assert!(readers.iter().all(|reader| reader.renew().is_err()));
    let json = locks(&container, &["break", "--json", "ever"]);
    assert!(json.starts_with(r#"{"name":"ever","broken":true,"free_in_seconds":6"#), "{json}");
    assert!(ever.renew().is_err() && unknown.renew().is_ok());
}

/// One that holds the lock; gives its token.
fn fencing(container: &str, resource: &str, value: &str) -> (Child, u64) {
    example::fencing(example("fencing").args([&address(container), resource, value]))
}

#[test]
#[ignore = "needs Azurite and curl: tests/run.sh azure"]
fn a_blob_refuses_an_older_token() {
    let container = fresh_container();
    let locker = on(&container);
    let resource = format!("{}/{container}/data.txt?{SAS}", endpoint());
    let (first, old) = fencing(&container, &resource, "of the first");
    locker.break_lock("resource", Break::Now).unwrap();
    let (second, new) = fencing(&container, &resource, "of the second");
    assert!(old < new);
    assert_eq!(goes_on(second), (Some(0), format!("written with token {new}\n")));
    assert_eq!(goes_on(first), (Some(76), format!("refused: token {old} is older than {new}\n")));
    let there = || by_hand("GET", &format!("{container}/data.txt"), "");
    assert!(there().ends_with("of the second"), "{}", there());
    let (third, newest) = fencing(&container, &resource, "of the third");
    assert_eq!(goes_on(third), (Some(0), format!("written with token {newest}\n")));
    assert!(there().ends_with("of the third"), "{}", there());
}
