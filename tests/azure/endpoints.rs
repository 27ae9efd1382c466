//! The forms of endpoint, on a real Azurite: account in the path or in the host, names and addresses.
#![cfg(target_os = "linux")]

use std::{
    env,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use leasehold::{Locker, Unlocked};

use crate::support::{NAME, account_at, endpoint, fresh_container, until};

/// Locks twice, beside a locker on the same container at the plain endpoint, or alone.
#[track_caller]
fn works(url: &str, beside: Option<&str>) {
    let container = fresh_container();
    let locker =
        |url| Locker::new(account_at(url).container(&container).create_container(true).build().unwrap());
    let guard = locker(url).lock("a/b c").expect(url);
    if let Some(other) = beside {
        assert!(locker(other).try_lock("a/b c").unwrap().is_none(), "{url}: it is another store");
    }
    guard.renew().expect(url);
    assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed, "{url}");
    println!("{url}: Confirmed");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn the_account_in_the_path_or_in_the_host() {
    let plain = endpoint();
    let port = plain.trim_end_matches(&format!("/{NAME}")).rsplit(':').next().unwrap().to_owned();
    for url in [
        format!("http://127.0.0.1:{port}/{NAME}/"),
        format!("http://localhost:{port}/{NAME}"),
        format!("http://{NAME}.blob.localhost:{port}"),
        format!("HTTP://{NAME}.BLOB.LOCALHOST.:{port}/"),
    ] {
        works(&url, Some(&plain));
    }
}

/// An Azurite that listens on the loopback address of IPv6.
struct Azurite(Child);

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn an_address_of_ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return println!("skipped: no IPv6 here") };
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let program = env::var("LEASEHOLD_AZURITE_PROGRAM").expect("tests/run.sh says where Azurite is");
    let mut command = Command::new(program);
    command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"]);
    command.args(["--blobHost", "::1", "--blobPort", &port.to_string()]);
    let _azurite = Azurite(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    until("Azurite", || TcpStream::connect(("::1", port)).is_ok());
    works(&format!("http://[::1]:{port}/{NAME}"), None);
    works(&format!("http://[0:0:0:0:0:0:0:1]:{port}/{NAME}"), None);
    // The name has both addresses, and only the second one answers.
    works(&format!("http://localhost:{port}/{NAME}"), None);
}
