//! A server on loopback that misbehaves as it is told: before Azurite, or with answers of its own.
//!
//! Signatures cover the path and not the host, so that a request reaches Azurite as it was sent.

use std::{
    ops::Deref,
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub(crate) use crate::common::fault_server::{Act, Seen, answer};
use crate::{
    common::fault_server,
    support::{NAME, endpoint},
};

/// One that speaks as the service does. Requests are `acquire`, `renew`, `change`, `release`, `break`, `status`,
/// `metadata`, `delete`, `list`, `blob` or `container` (to create one).
pub(crate) struct FaultServer(fault_server::FaultServer);

impl FaultServer {
    /// One in front of Azurite.
    pub(crate) fn before_azurite() -> Self {
        let endpoint = endpoint();
        let address = endpoint.trim_start_matches("http://").split('/').next().unwrap();
        Self(fault_server::FaultServer::before(address, word))
    }

    /// One that answers by itself.
    pub(crate) fn scripted(script: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(fault_server::FaultServer::scripted(word, script))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}/{NAME}", self.url())
    }
}

impl Deref for FaultServer {
    type Target = fault_server::FaultServer;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn word(seen: &Seen) -> String {
    let action = seen.header("x-ms-lease-action");
    let word = match &*seen.method {
        _ if !action.is_empty() => action,
        "HEAD" => "status",
        "GET" => "list",
        "DELETE" => "delete",
        _ if seen.target.contains("comp=metadata") => "metadata",
        _ if seen.target.contains("restype=container") => "container",
        _ => "blob",
    };
    word.to_owned()
}

/// The service's mark.
pub(crate) const MARK: (&str, &str) = ("x-ms-request-id", "0f6b7ec4-501e-0001");

/// An error of the service.
pub(crate) fn coded(status: u16, code: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Said so.\nTime: now</Message></Error>"
    );
    answer(status, &[MARK, ("x-ms-error-code", code)], &body)
}

/// What the service answers when all goes well and nobody else is there.
pub(crate) fn grants(seen: &Seen) -> Vec<u8> {
    let (status, lease) = match &*seen.what {
        "acquire" => (201, seen.header("x-ms-proposed-lease-id")),
        "renew" | "release" => (200, seen.header("x-ms-lease-id")),
        "break" => (202, ""),
        "status" => (200, ""),
        _ => (201, ""),
    };
    answer(status, &[MARK, ("x-ms-lease-id", lease), ("x-ms-lease-state", "available")], "")
}

/// What says nothing about the lease, whoever answers it.
pub(crate) fn transient() -> Vec<(&'static str, Act)> {
    let portal = "<html>Please sign in</html>";
    let gone = "<Error><Code>BlobNotFound</Code></Error>";
    let big = "y".repeat(1 << 20);
    let own = |status, headers: &[(&str, &str)], body: &str| Act::Answer(answer(status, headers, body));
    let half = b"HTTP/1.1 200 OK\r\nx-ms-request-id: 1\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    let long = format!("HTTP/1.1 503 No\r\nx-long: {big}\r\n\r\n").into_bytes();
    let endless = b"HTTP/1.1 503 No\r\nx-ms-request-id: 1\r\n\r\n".to_vec();
    vec![
        ("the request is lost", Act::Drop),
        ("the answer is lost", Act::Lose),
        ("cut in the header", Act::Cut(40)),
        ("cut in the first line", Act::Cut(5)),
        ("cut in the body", Act::Last(half)),
        ("500", Act::Answer(coded(500, "InternalError"))),
        ("500 without code", own(500, &[MARK], "")),
        ("500 of somebody", own(500, &[], portal)),
        ("503", Act::Answer(coded(503, "ServerBusy"))),
        ("503 of somebody", own(503, &[], portal)),
        ("429", Act::Answer(coded(429, "TooManyRequests"))),
        ("429 of somebody", own(429, &[], portal)),
        ("408", own(408, &[MARK], "")),
        ("captive portal, 200", own(200, &[], portal)),
        ("captive portal, 201", own(201, &[], portal)),
        ("captive portal, 404", own(404, &[], portal)),
        ("captive portal, 404 with a code", own(404, &[("x-ms-error-code", "BlobNotFound")], gone)),
        ("captive portal, 409", own(409, &[], "<Error><Code>LeaseAlreadyPresent</Code></Error>")),
        ("captive portal, 302", own(302, &[("Location", "http://127.0.0.1:1/login")], portal)),
        ("captive portal, 403", own(403, &[], portal)),
        ("garbage", Act::Last(b"SSH-2.0-OpenSSH_9.6\r\nwho are you\r\n\r\n".to_vec())),
        ("nothing but noise", Act::Last(vec![0xff; 3000])),
        ("a header too large", Act::Last(long)),
        ("a body too large", own(503, &[MARK], &big)),
        ("a body without end", Act::Endless(endless, 4096, Duration::ZERO)),
    ]
}

/// All that is logged in this program from now on, but by ureq: `log TARGET: LINE`.
pub(crate) fn logged() -> &'static Mutex<Vec<String>> {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Collect;
    impl log::Log for Collect {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            !metadata.target().starts_with("ureq")
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                LINES.lock().unwrap_or_else(PoisonError::into_inner).push(format!(
                    "log {}: {}",
                    record.target(),
                    record.args()
                ));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Collect).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
    &LINES
}
