//! A server on loopback that misbehaves as it is told: before Azurite, or with answers of its own.
//!
//! Signatures cover the path and not the host, so that a request reaches Azurite as it was sent.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::support::{NAME, endpoint};

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// It is lost: the connection ends before anybody reads it.
    Drop,
    /// It is carried out, and the answer is lost.
    Lose,
    /// It is carried out, and so many bytes of the answer arrive.
    Cut(usize),
    /// It is carried out only after this time, whoever still waits.
    Before(Duration),
    /// It is carried out at once, and answered after this time.
    After(Duration),
    /// It is carried out twice, and the first answer given.
    Twice,
    /// It is carried out and answered, and carried out again after this time.
    Again(Duration),
    /// This is answered in its stead.
    Answer(Vec<u8>),
    /// This is answered in its stead, and the connection ends.
    Last(Vec<u8>),
    /// This is answered in its stead, and then a byte or more at each pause, without an end.
    Endless(Vec<u8>, usize, Duration),
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `acquire`, `renew`, `change`, `release`, `break`, `status`, `metadata`, `delete`, `list`, `blob` or `container`
    /// (to create one).
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) at: Instant,
    head: String,
}

impl Seen {
    fn of(head: String) -> Self {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let mut seen = Self { what: String::new(), target, at: Instant::now(), head };
        let action = seen.header("x-ms-lease-action");
        seen.what = match &*method {
            _ if !action.is_empty() => action,
            "HEAD" => "status",
            "GET" => "list",
            "DELETE" => "delete",
            _ if seen.target.contains("comp=metadata") => "metadata",
            _ if seen.target.contains("restype=container") => "container",
            _ => "blob",
        }
        .to_owned();
        seen
    }

    /// Whether it is of this kind, or of this kind and to such a target: `acquire`, `acquire:gate`.
    pub(crate) fn is(&self, kind: &str) -> bool {
        let (what, target) = kind.split_once(':').unwrap_or((kind, ""));
        self.what == what && self.target.contains(target)
    }

    /// A header by its name in small letters; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

type Script = dyn Fn(&Seen) -> Vec<u8> + Send + Sync;

/// Who carries requests out.
enum Origin {
    Azurite(String),
    Script(Box<Script>),
}

struct Rule {
    on: &'static str,
    left: usize,
    act: Act,
}

struct Inner {
    origin: Origin,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

pub(crate) struct FaultServer {
    port: u16,
    inner: Arc<Inner>,
}

impl FaultServer {
    /// One in front of Azurite.
    pub(crate) fn before_azurite() -> Self {
        let endpoint = endpoint();
        let address = endpoint.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        Self::start(Origin::Azurite(address))
    }

    /// One that answers by itself.
    pub(crate) fn scripted(script: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Origin::Script(Box::new(script)))
    }

    fn start(origin: Origin) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner { origin, rules: Mutex::default(), seen: Mutex::default() });
        let serving = inner.clone();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let inner = serving.clone();
                thread::spawn(move || drop(inner.serve(stream)));
            }
        });
        Self { port, inner }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{NAME}", self.port)
    }

    /// The next requests of this kind fare so; rules count in the order in which they were given.
    pub(crate) fn next(&self, times: usize, on: &'static str, act: Act) {
        lock(&self.inner.rules).push(Rule { on, left: times, act });
    }

    pub(crate) fn always(&self, on: &'static str, act: Act) {
        self.next(usize::MAX, on, act);
    }

    /// All goes well from now on.
    pub(crate) fn heal(&self) {
        lock(&self.inner.rules).clear();
    }

    /// All requests since the last `forget`.
    pub(crate) fn all(&self) -> Vec<Seen> {
        lock(&self.inner.seen).clone()
    }

    /// Those of one kind.
    pub(crate) fn seen(&self, what: &str) -> Vec<Seen> {
        lock(&self.inner.seen).iter().filter(|seen| seen.is(what)).cloned().collect()
    }

    pub(crate) fn forget(&self) {
        lock(&self.inner.seen).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn serve(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let seen = Seen::of(head);
            lock(&self.seen).push(seen.clone());
            let Some(act) = self.act(&seen) else {
                stream.write_all(&self.carry_out(&seen)?)?;
                continue;
            };
            match act {
                Act::Drop => return Ok(()),
                Act::Lose => return self.carry_out(&seen).map(drop),
                Act::Cut(bytes) => {
                    let answer = self.carry_out(&seen)?;
                    return stream.write_all(&answer[..bytes.min(answer.len())]);
                }
                Act::Before(pause) => {
                    thread::sleep(pause);
                    stream.write_all(&self.carry_out(&seen)?)?;
                }
                Act::After(pause) => {
                    let answer = self.carry_out(&seen)?;
                    thread::sleep(pause);
                    stream.write_all(&answer)?;
                }
                Act::Twice => {
                    let answer = self.carry_out(&seen)?;
                    self.carry_out(&seen)?;
                    stream.write_all(&answer)?;
                }
                Act::Again(pause) => {
                    stream.write_all(&self.carry_out(&seen)?)?;
                    let inner = self.clone();
                    thread::spawn(move || {
                        thread::sleep(pause);
                        drop(inner.carry_out(&seen));
                    });
                }
                Act::Answer(answer) => stream.write_all(&answer)?,
                Act::Last(answer) => return stream.write_all(&answer),
                Act::Endless(start, bytes, pause) => {
                    stream.write_all(&start)?;
                    loop {
                        stream.write_all(&vec![b'x'; bytes])?;
                        thread::sleep(pause);
                    }
                }
            }
        }
    }

    fn act(&self, seen: &Seen) -> Option<Act> {
        let mut rules = lock(&self.rules);
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && seen.is(rule.on))?;
        rule.left -= 1;
        Some(rule.act.clone())
    }

    fn carry_out(&self, seen: &Seen) -> io::Result<Vec<u8>> {
        let address = match &self.origin {
            Origin::Script(script) => return Ok(script(seen)),
            Origin::Azurite(address) => address,
        };
        let mut stream = TcpStream::connect(address)?;
        // No request has a body.
        let head = seen.head.trim_end();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        // No body but XML: that the connection to us goes on may be said by a replacement.
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.replacen("Connection: close", "Connection: keep-alive", 1).into_bytes())
    }
}

/// An answer of anybody.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    (text + "\r\n" + body).into_bytes()
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
                lock(&LINES).push(format!("log {}: {}", record.target(), record.args()));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Collect).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
    &LINES
}
