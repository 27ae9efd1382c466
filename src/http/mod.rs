//! The only place that knows the HTTP library: deadlines, bounded answers, and what a failure means.
//!
//! One [`Client`] for each store. A call ends at its deadline, whatever hangs: the gate, the name server, the
//! connection, the answer. Nothing is retried here and no redirect is followed.
//!
//! At its level `trace`, ureq logs whole URLs under the target `ureq`; nothing of this library does.
#![allow(dead_code, reason = "each store uses a part of it")]

mod gate;
mod names;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use std::{
    fmt,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ureq::{
    Agent, AsSendBody, Proxy, ProxyProtocol,
    http::{self, HeaderMap, Uri},
};

#[cfg(feature = "azure")]
pub(crate) use self::names::is_loopback;
use self::{
    gate::Gate,
    names::Names,
    wire::{Connect, Meant, Place},
};
pub(crate) use self::{tls::Tls, wire::Failure};
use crate::{
    Error, ErrorKind, Result,
    clock::{Clock, Limit, Moment},
    error::Seconds,
};

/// The largest header of an answer.
const HEADER: usize = 16 * 1024;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);
/// What a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longer limits would overflow the clock.
const DAY: Duration = Duration::from_secs(86_400);
const TLS: bool = cfg!(any(feature = "rustls", feature = "native-tls"));

/// The HTTP side of one store. A clone shares connections, gate and names.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    agent: Agent,
    gate: Gate,
    names: Names,
    settings: Settings,
    /// Connections that idled at this moment are not used again: a request was left without an answer.
    distrust: AtomicU64,
}

/// What a store sets for all its requests.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Plain `http:` beyond this machine.
    pub(crate) allow_http: bool,
    /// Nothing but this machine, its link and private addresses, and never by a proxy: a platform serves identities
    /// there, over plain `http:`.
    pub(crate) nearby: bool,
    /// How much of an answer's body is kept.
    pub(crate) max_body: usize,
    /// Whom to trust, and who we are.
    pub(crate) tls: Tls,
    /// A host that is meant to be another: `(ALIAS, HOST)`. The server is asked for a certificate of the alias.
    pub(crate) alias: Option<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { allow_http: false, nearby: false, max_body: 64 * 1024, tls: Tls::default(), alias: None }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("allow_http", &self.allow_http).finish_non_exhaustive()
    }
}

/// Whose slots of the gate a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Ordinary,
    /// For what lets a lock go: never stuck behind the rest.
    Release,
    /// For what the server answers only when something happens, or after a while.
    Wait,
}

/// Takes a piece of a body, and says whether it wants more.
type Reader<'a> = dyn FnMut(&[u8]) -> bool + 'a;

#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    pub(crate) lane: Lane,
}

/// What a server answered, of whatever status.
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The body was longer than [`Settings::max_body`].
    pub(crate) truncated: bool,
}

impl Response {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(
        status: u16,
        headers: &[(&'static str, &str)],
        body: &(impl AsRef<[u8]> + ?Sized),
    ) -> Self {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        Self { status, headers: headers.collect(), body: body.as_ref().to_vec(), truncated: false }
    }

    /// A header, by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The rest of the name, and the value, of each header that starts like this, in small letters; no value when it
    /// is not plain text.
    pub(crate) fn headers_starting_with(&self, start: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.headers
            .iter()
            .filter_map(move |(name, value)| Some((name.as_str().strip_prefix(start)?, value.to_str().ok())))
    }
}

impl Client {
    /// # Errors
    /// `Config`, when a certificate or a key is none.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let proxy = Proxy::try_from_env();
        let usable = |proxy: &Proxy| {
            let http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
            if !http {
                log::warn!("the SOCKS proxy of the environment is not used: only HTTP proxies are");
            }
            http
        };
        settings.tls.check()?;
        Ok(Self::with(settings, Names::of_the_machine(), proxy.filter(usable)))
    }

    fn with(settings: &Settings, names: Names, proxy: Option<Proxy>) -> Self {
        let pool = gate::ORDINARY + gate::RELEASE + gate::WAIT;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .timeout_connect(Some(CONNECT))
            // One more than the header: of a full buffer ureq would say that the server hung up.
            .input_buffer_size(HEADER + 1024)
            .output_buffer_size(HEADER)
            .max_response_header_size(HEADER)
            .max_idle_connections(pool)
            .max_idle_connections_per_host(pool)
            .max_idle_age(IDLE);
        #[cfg(any(feature = "rustls", feature = "native-tls"))]
        let config = config.tls_config(settings.tls.config());
        Self(Arc::new(Inner {
            agent: Agent::with_parts(
                config.build(),
                Connect::default(),
                Meant { names: names.clone(), alias: settings.alias.clone() },
            ),
            gate: Gate::default(),
            names,
            settings: settings.clone(),
            distrust: AtomicU64::new(0),
        }))
    }

    /// Whether requests to this URL can be sent at all.
    ///
    /// # Errors
    /// `Config`: no URL, a password in it, no TLS compiled in, or plain http beyond this machine.
    pub(crate) fn check_url(&self, url: &str) -> Result<()> {
        self.parse(url).map(drop).map_err(Error::from)
    }

    fn parse(&self, url: &str) -> Result<Uri, Failure> {
        let wrong = |what: String| Failure::unsent(ErrorKind::Config, what);
        let uri: Uri = url.parse().map_err(|e| wrong(format!("not a URL: {e}")))?;
        let host = uri.host().filter(|host| !host.is_empty());
        let (Some(scheme), Some(host)) = (uri.scheme_str(), host) else {
            return Err(wrong("not a URL: it needs a scheme and a host".to_owned()));
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a name or a password in a URL is not used".to_owned()));
        }
        match scheme {
            _ if self.0.settings.nearby && !names::is_nearby(host) => {
                return Err(wrong(format!("{host} is neither this machine nor a private address")));
            }
            "http" if self.0.settings.nearby => {}
            "https" if TLS => {}
            "https" => {
                let what = "https needs the feature `rustls` or `native-tls` of leasehold";
                return Err(wrong(what.to_owned()));
            }
            "http" if self.0.settings.allow_http || names::is_loopback(host) => {}
            "http" => return Err(wrong(format!("plain http to {host} has to be allowed, or use https"))),
            _ => return Err(wrong(format!("neither http nor https: {scheme}"))),
        }
        Ok(uri)
    }

    /// Sends a request and reads its answer, within the limit.
    pub(crate) fn send(&self, request: &Request<'_>, limit: Duration) -> Result<Response, Failure> {
        self.send_to(request, limit, None)
    }

    /// The same, but the body of a 200 is handed over piece by piece as it comes, and is not in the response. When the
    /// reader answers `false` it has had enough, which costs the connection.
    pub(crate) fn stream(
        &self,
        request: &Request<'_>,
        limit: Duration,
        mut reader: impl FnMut(&[u8]) -> bool,
    ) -> Result<Response, Failure> {
        self.send_to(request, limit, Some(&mut reader))
    }

    fn send_to(
        &self,
        request: &Request<'_>,
        limit: Duration,
        reader: Option<&mut Reader<'_>>,
    ) -> Result<Response, Failure> {
        let whole = Limit::after(&Clock::system(), limit.min(DAY));
        let uri = self.parse(request.url)?;
        // Held until the connection is back in the pool.
        let pass = self.0.gate.enter(request.lane, &whole);
        let left = whole.remaining();
        if pass.is_none() || left.is_zero() {
            let (method, limit) = (request.method, Seconds(limit));
            let what = format!("{method} not sent within {limit}: too many requests on their way");
            return Err(Failure::unsent(ErrorKind::Unavailable, what));
        }
        let place = Place { method: request.method, uri: &uri };
        let with_body = !request.body.is_empty() || matches!(request.method, "PUT" | "POST" | "PATCH");
        let answer = if with_body {
            // Also when it is empty: `content-length: 0`, and never chunks.
            self.exchange(request, &uri, request.body, left, reader)
        } else {
            self.exchange(request, &uri, (), left, reader)
        };
        match answer {
            Ok(response) => {
                self.0.names.prove(self.meant(&uri));
                Ok(response)
            }
            Err(error) => {
                let failure = Failure::of(error, &place, limit);
                // One that waits has little to do with the others: its server may just have ended.
                if !failure.not_sent && request.lane != Lane::Wait {
                    self.0.distrust.fetch_max(Clock::system().now().as_nanos(), Ordering::Relaxed);
                }
                Err(failure)
            }
        }
    }

    // Its parts are not inlined, so that what they need is off the stack while a request is under way: of each held
    // lock's thread that is a page less.
    fn exchange<B: AsSendBody>(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        body: B,
        limit: Duration,
        reader: Option<&mut Reader<'_>>,
    ) -> Result<Response, ureq::Error> {
        self.read(self.0.agent.run(self.message(request, uri, body, limit)?)?, reader)
    }

    #[inline(never)]
    fn read(
        &self,
        answer: http::Response<ureq::Body>,
        reader: Option<&mut Reader<'_>>,
    ) -> Result<Response, ureq::Error> {
        let (head, mut body) = answer.into_parts();
        let max = self.0.settings.max_body;
        let mut kept = Vec::new();
        if let Some(reader) = reader.filter(|_| head.status == http::StatusCode::OK) {
            pour(&mut body.as_reader(), reader)?;
            return Ok(Response { status: 200, headers: head.headers, body: kept, truncated: false });
        }
        // One byte more tells whether there is more. A body that is not read to its end costs its connection.
        body.as_reader().take(max as u64 + 1).read_to_end(&mut kept)?;
        let truncated = kept.len() > max;
        kept.truncate(max);
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body: kept, truncated })
    }

    /// The host that a request really goes to.
    fn meant<'a>(&'a self, uri: &'a Uri) -> &'a str {
        wire::meant(self.0.settings.alias.as_ref(), uri.host().unwrap_or_default())
    }

    #[inline(never)]
    fn message<B: AsSendBody>(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        body: B,
        limit: Duration,
    ) -> Result<http::Request<B>, ureq::Error> {
        let mut message = http::Request::builder().method(request.method).uri(uri.clone());
        for (name, value) in request.headers {
            message = message.header(*name, *value);
        }
        let host = self.meant(uri);
        let distrust = Moment::from_nanos(self.0.distrust.load(Ordering::Relaxed));
        let trusted = Clock::system().now().saturating_since(distrust);
        let agent = &self.0.agent;
        let config = agent
            .configure_request(message.body(body).map_err(|e| wire::unsent(e.into()))?)
            .timeout_global(Some(limit))
            .max_idle_age(IDLE.min(trusted));
        let direct = self.0.settings.nearby || names::is_loopback(host) || names::is_link_local(host);
        Ok(if direct { config.proxy(None) } else { config }.build())
    }
}

// On its own, too: only a watch needs that stack.
#[inline(never)]
fn pour(pieces: &mut impl Read, reader: &mut Reader<'_>) -> Result<(), ureq::Error> {
    let mut piece = [0; 4096];
    while let n @ 1.. = pieces.read(&mut piece)? {
        if !reader(&piece[..n]) {
            break;
        }
    }
    Ok(())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
