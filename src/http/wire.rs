//! Where this library takes part in ureq: its `unversioned` traits, and what its errors mean.
//!
//! Whatever fails before there is a connection is marked, since then the request was surely not sent. Nothing else
//! about an error says so: a deadline may pass before or after.

use std::{
    error, fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use ureq::{
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport},
    },
};

use super::names::{self, Names, Unknown};
use crate::{Error, ErrorKind, error::Seconds};

/// An error from before there was a connection.
#[derive(Debug)]
struct Unsent(ureq::Error);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not sent")
    }
}

impl error::Error for Unsent {}

pub(super) fn unsent(error: ureq::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(Unsent(error)))
}

/// The names of a client, with one more: an alias for a host.
#[derive(Debug)]
pub(super) struct Meant {
    pub(super) names: Names,
    pub(super) alias: Option<(String, String)>,
}

/// The host that is meant by another name.
pub(super) fn meant<'a>(alias: Option<&'a (String, String)>, host: &'a str) -> &'a str {
    match alias {
        Some((alias, meant)) if alias.eq_ignore_ascii_case(host) => meant,
        _ => host,
    }
}

impl Resolver for Meant {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = meant(self.alias.as_ref(), uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = self.names.find(host, *timeout.after).map_err(|why| {
            unsent(match why {
                Unknown::Late => ureq::Error::Timeout(ureq::Timeout::Resolve),
                Unknown::Failed(why) => ureq::Error::Io(why),
            })
        })?;
        let mut addresses = self.empty();
        for address in names::with_port(found, port) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// ureq's own connector, with its errors marked.
#[derive(Debug, Default)]
pub(super) struct Connect(DefaultConnector);

impl Connector for Connect {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if details.timeout.after.is_zero() {
            // ureq would give it a second.
            return Err(unsent(ureq::Error::Timeout(details.timeout.reason)));
        }
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            // Each request has a deadline of its own, but the TLS set-up is that of the agent. Otherwise ureq would
            // read the roots again for each connection, and resume no session.
            request_level: false,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        // With a client's certificate that the TLS library does not take, such as one of X.509 version 1, ureq panics.
        let connected = catch_unwind(AssertUnwindSafe(|| self.0.connect(&details, None)));
        let refused = "the client's certificate and key cannot be used together, or at all";
        let connected = connected.unwrap_or(Err(ureq::Error::Tls(refused))).map_err(unsent)?;
        Ok(connected.map(|inner| Whole { inner, header: Vec::new() }.boxed()))
    }
}

/// Sends a header together with the start of its body: apart, they are two packets, and wake the server twice.
#[derive(Debug)]
struct Whole {
    inner: Box<dyn Transport>,
    /// What waits for the body.
    header: Vec<u8>,
}

impl Transport for Whole {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.inner.buffers().output();
        let ahead = self.header.len();
        if ahead == 0 {
            let fits = |body: usize| body > 0 && body <= output.len() - amount;
            if body_length(&output[..amount]).is_some_and(fits) {
                self.header.extend_from_slice(&output[..amount]);
                return Ok(());
            }
        } else {
            output.copy_within(..amount, ahead);
            output[..ahead].copy_from_slice(&self.header);
            self.header.clear();
        }
        self.inner.transmit_output(ahead + amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if !self.header.is_empty() {
            self.transmit_output(0, timeout)?;
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The length of the body that follows a whole header, by what it says.
fn body_length(header: &[u8]) -> Option<usize> {
    let header = str::from_utf8(header).ok()?.strip_suffix("\r\n\r\n")?;
    header.lines().skip(1).find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()
}

/// A request without an answer. Its text never holds a URL.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    /// Surely not sent; otherwise it was perhaps carried out.
    pub(crate) not_sent: bool,
    what: String,
    cause: Option<io::Error>,
}

impl Failure {
    #[cold]
    #[inline(never)]
    pub(super) fn unsent(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, not_sent: true, what: what.into(), cause: None }
    }

    /// What an error of ureq means. Its own text is not passed on where a URL or a header may be in it.
    #[cold]
    #[inline(never)]
    pub(super) fn of(mut error: ureq::Error, place: &Place<'_>, limit: Duration) -> Self {
        let mut not_sent = false;
        loop {
            error = match error {
                ureq::Error::Other(inner) => match inner.downcast::<Unsent>() {
                    Ok(inner) => {
                        not_sent = true;
                        inner.0
                    }
                    Err(_) => return Self::plain(not_sent, format!("{place}: the request failed")),
                },
                error => break Self::unmarked(error, not_sent, place, limit),
            }
        }
    }

    fn unmarked(error: ureq::Error, not_sent: bool, place: &Place<'_>, limit: Duration) -> Self {
        let set_up = |why: String| Self { kind: ErrorKind::Config, ..Self::plain(not_sent, why) };
        let (connecting, limit) = (Seconds(limit.min(super::CONNECT)), Seconds(limit));
        match error {
            ureq::Error::Io(cause) => {
                let what = match not_sent {
                    // Not final: a captive portal has such a certificate too.
                    true if is_about_trust(&cause) => {
                        "its certificate is not trusted (SSL_CERT_FILE names roots of your own)"
                    }
                    true => "no connection",
                    false => "the connection broke",
                };
                Self { cause: Some(cause), ..Self::plain(not_sent, format!("{place}: {what}")) }
            }
            ureq::Error::Timeout(ureq::Timeout::Resolve) => {
                Self::plain(not_sent, format!("{place}: no address from the name server within {limit}"))
            }
            ureq::Error::Timeout(_) if not_sent => {
                Self::plain(not_sent, format!("{place}: no connection within {connecting}"))
            }
            ureq::Error::Timeout(_) => Self::plain(not_sent, format!("{place}: no answer within {limit}")),
            ureq::Error::LargeResponseHeader(..) => {
                Self::plain(not_sent, format!("{place}: the header of the answer is too large"))
            }
            ureq::Error::Protocol(_) => Self::plain(not_sent, format!("{place}: the answer is not HTTP")),
            ureq::Error::ConnectProxyFailed(_) => {
                Self::plain(not_sent, format!("{place}: the proxy refuses to connect"))
            }
            ureq::Error::Http(why) => set_up(format!("{place}: not a possible request: {why}")),
            ureq::Error::Tls(why) => set_up(format!("{place}: {why}")),
            ureq::Error::TlsRequired => set_up(format!("{place}: TLS is not set up")),
            #[cfg(feature = "rustls")]
            ureq::Error::Rustls(why) => set_up(format!("{place}: TLS cannot be set up: {why}")),
            #[cfg(any(feature = "rustls", feature = "native-tls"))]
            ureq::Error::Pem(_) => set_up(format!("{place}: a certificate is not PEM")),
            #[cfg(feature = "native-tls")]
            ureq::Error::NativeTls(why) => {
                Self { cause: Some(io::Error::other(why)), ..Self::plain(not_sent, format!("{place}: TLS")) }
            }
            _ => Self::plain(not_sent, format!("{place}: the request failed")),
        }
    }

    fn plain(not_sent: bool, what: String) -> Self {
        Self { kind: ErrorKind::Unavailable, not_sent, what, cause: None }
    }
}

/// The TLS libraries tell it in an error of their own type, inside: by its text.
fn is_about_trust(cause: &io::Error) -> bool {
    cfg!(any(feature = "rustls", feature = "native-tls")) && cause.to_string().contains("certificate")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (kind, not_sent) = (failure.kind, failure.not_sent);
        let error = Self::new(kind, failure);
        if not_sent { error.not_sent() } else { error }
    }
}

/// A method, and the host that it goes to: what an error tells of a request.
pub(super) struct Place<'a> {
    pub(super) method: &'static str,
    pub(super) uri: &'a Uri,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.method, self.uri.host().unwrap_or_default())?;
        match self.uri.port_u16() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}
