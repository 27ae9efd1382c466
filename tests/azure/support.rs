//! What the tests share: the Azurite that `tests/run.sh` started, and what waits for what can be seen.

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
};

use leasehold::{Locker, azure::Account};

pub(crate) use crate::common::{LONG, SECOND, kind, ms, timed, until};

/// Azurite's well-known account and key, which are no secret.
pub(crate) const NAME: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The blob endpoint of the running Azurite: `http://127.0.0.1:PORT/devstoreaccount1`.
pub(crate) fn endpoint() -> String {
    env::var("LEASEHOLD_AZURITE").expect("`tests/run.sh azure` starts Azurite and says where it is")
}

pub(crate) fn account() -> Account {
    account_at(&endpoint())
}

pub(crate) fn account_at(endpoint: &str) -> Account {
    Account::with_key(NAME, KEY).unwrap().endpoint(endpoint).unwrap()
}

/// A signature that Azurite's key made for all of its blobs, until 2099.
pub(crate) const SAS: &str = "sv=2018-11-09&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&\
                   sig=K%2BOQqJj6KnEczTtcVU385IwXLAzlxsauImxanI94hY0%3D";

/// A request of somebody else's, to a path below the account; gives the answer's header.
pub(crate) fn by_hand(method: &str, target: &str, headers: &str) -> String {
    let endpoint = endpoint();
    let (host, account) = endpoint.trim_start_matches("http://").split_once('/').unwrap();
    let separator = if target.contains('?') { '&' } else { '?' };
    let request = format!(
        "{method} /{account}/{target}{separator}{SAS} HTTP/1.1\r\nHost: {host}\r\nx-ms-version: 2018-11-09\r\n\
         Content-Length: 0\r\nConnection: close\r\n{headers}\r\n"
    );
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A container that no other test uses.
pub(crate) fn fresh_container() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("c{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

/// A locker on a container of its own.
pub(crate) fn locker() -> Locker {
    Locker::new(account().container(&fresh_container()).create_container(true).build().unwrap())
}
