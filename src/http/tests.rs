mod paths;

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Mutex,
        atomic::AtomicUsize,
        mpsc::{self, Receiver, Sender},
    },
};

use super::*;
use crate::{clock::Stopwatch, threads};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);
/// What a deadline may be missed by on a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(2);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Mark: yes\r\n\r\nok";

/// A server that answers each request by a function of its connection, the number of the connection and the text of
/// the request; a connection ends when it answers `false`.
struct Server {
    port: u16,
    seen: Receiver<(usize, String)>,
}

impl Server {
    fn start(answer: impl Fn(&mut TcpStream, usize, &str) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, seen) = mpsc::channel();
        let answer = Arc::new(answer);
        threads::run("server", move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (tell, answer, mut stream) = (tell.clone(), answer.clone(), stream.unwrap());
                threads::run("server", move || {
                    while let Some(text) = read(&mut stream) {
                        let _ = tell.send((number, text.clone()));
                        if !answer(&mut stream, number, &text) {
                            return;
                        }
                    }
                })
                .unwrap();
            }
        })
        .unwrap();
        Self { port, seen }
    }

    fn always(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |stream, _, _| stream.write_all(answer.as_bytes()).is_ok())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/a?sig=SECRET", self.port)
    }

    fn next(&self) -> (usize, String) {
        self.seen.recv_timeout(LONG).expect("a request")
    }
}

/// One whole request.
fn read(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(head + std::str::from_utf8(&body).unwrap())
}

/// Waits until the other side hangs up.
fn hang(stream: &mut TcpStream) -> bool {
    let _ = stream.read(&mut [0]);
    false
}

fn client() -> Client {
    Client::new(&Settings::default()).unwrap()
}

/// A client whose name server knows one address, and whatever else is asked of it.
fn named(answer: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Client {
    let settings = Settings { allow_http: true, ..Settings::default() };
    Client::with(&settings, Names::new(&Clock::system(), answer), None)
}

fn ask<'a>(method: &'static str, url: &'a str) -> Request<'a> {
    Request { method, url, headers: &[], body: &[], lane: Lane::Ordinary }
}

fn get(client: &Client, url: &str) -> Result<Response, Failure> {
    client.send(&ask("GET", url), LONG)
}

fn fails(result: Result<Response, Failure>, not_sent: bool, text: &str) {
    let failure = result.err().expect("a failure");
    assert_eq!(failure.not_sent, not_sent, "{failure}");
    let error = Error::from(failure);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.is_unclear(), !not_sent);
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(text) && !shown.contains("SECRET"), "{shown}");
}

/// The server hangs; the call ends at its deadline, without knowing whether it was carried out.
fn ends_in_time(server: &Server) {
    let (client, url, watch) = (client(), server.url(), Stopwatch::start(&Clock::system()));
    fails(client.send(&ask("PUT", &url), SHORT), false, "no answer within 200 ms");
    assert!((SHORT..SHORT + SLACK).contains(&watch.elapsed()), "{:?}", watch.elapsed());
}

#[test]
fn one_connection_serves_many_calls_and_one_look_up_all_of_them() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::always(OK);
    let client = named(move |host| {
        assert_eq!(host, "store.test");
        count.fetch_add(1, Ordering::Relaxed);
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    });
    for host in ["store.test", "127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{}/", server.port);
        let connections: Vec<_> = (0..100)
            .map(|_| {
                let response = get(&client, &url).unwrap();
                assert_eq!((response.status, &*response.body, response.truncated), (200, &b"ok"[..], false));
                assert_eq!((response.header("x-mark"), response.header("y-mark")), (Some("yes"), None));
                server.next().0
            })
            .collect();
        assert!(connections.iter().all(|c| *c == connections[0]), "{connections:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "none for a pooled connection, an address or localhost");
}

#[test]
fn what_is_on_the_wire() {
    let server = Server::always(OK);
    let (client, url) = (client(), server.url());
    let send = |method, body: &[u8]| {
        let headers = &[("x-ms-version", "2024-11-04")];
        client.send(&Request { headers, body, ..ask(method, &url) }, LONG).unwrap();
        server.next().1
    };
    let agent = concat!("\r\nuser-agent: leasehold/", env!("CARGO_PKG_VERSION"), "\r\n");
    for method in ["PUT", "POST", "PATCH"] {
        let text = send(method, b"");
        assert!(text.contains("\r\ncontent-length: 0\r\n"), "{text}");
        assert!(text.starts_with(&format!("{method} /a?sig=SECRET HTTP/1.1\r\n")), "{text}");
        assert!(text.contains("\r\nx-ms-version: 2024-11-04\r\n") && text.contains(agent), "{text}");
        assert!(!text.contains("transfer-encoding") && !text.contains("expect:"), "{text}");
    }
    for method in ["GET", "DELETE"] {
        let text = send(method, b"");
        assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
    }
    for method in ["PUT", "DELETE"] {
        let text = send(method, b"body");
        assert!(text.contains("\r\ncontent-length: 4\r\n") && text.ends_with("\r\n\r\nbody"), "{text}");
    }
}

#[test]
fn errors_and_redirects_of_the_server_are_answers() {
    for (status, line) in [(404, ""), (500, ""), (302, "location: /b\r\n"), (307, "location: /b\r\n")] {
        let server = Server::always(format!("HTTP/1.1 {status} Say\r\n{line}content-length: 3\r\n\r\nwhy"));
        let (client, url) = (client(), server.url());
        let response = client.send(&ask("PUT", &url), LONG).unwrap();
        assert_eq!((response.status, &*response.body), (status, &b"why"[..]));
        assert_eq!(response.header("Location"), (!line.is_empty()).then_some("/b"));
        get(&client, &url).unwrap();
        assert_eq!((server.next().0, server.next().0), (0, 0), "nothing was sent between, on one connection");
    }
}

#[test]
fn a_silent_server_ends_at_the_deadline() {
    ends_in_time(&Server::start(|stream, _, _| hang(stream)));
}

#[test]
fn half_a_header_ends_at_the_deadline() {
    ends_in_time(&Server::start(|stream, _, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-ma").is_ok() && hang(stream)
    }));
}

#[test]
fn a_body_that_trickles_ends_at_the_deadline() {
    let never = Mutex::new(mpsc::channel::<()>());
    ends_in_time(&Server::start(move |stream, _, _| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n");
        while sent.is_ok() {
            sent = stream.write_all(b".");
            let _ = never.lock().unwrap().1.recv_timeout(Duration::from_millis(20));
        }
        false
    }));
}

#[test]
fn a_body_is_cut_at_the_limit_and_its_connection_dropped() {
    let answer =
        |length| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", ".".repeat(length));
    let max = Settings::default().max_body;
    let server = Server::start(move |stream, number, _| {
        stream.write_all(answer(if number == 0 { max + 1 } else { max }).as_bytes()).is_ok()
    });
    let (client, url) = (client(), server.url());
    for (truncated, connection) in [(true, 0), (false, 1), (false, 1)] {
        let response = get(&client, &url).unwrap();
        assert_eq!((response.truncated, response.body.len()), (truncated, max));
        assert_eq!(server.next().0, connection);
    }
    let endless = Server::start(|stream, _, _| {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while sent.is_ok() {
            sent = stream.write_all(&[b'.'; 1024]);
        }
        false
    });
    assert!(get(&client, &endless.url()).unwrap().truncated);
}

#[test]
fn an_answer_that_breaks_off_or_is_none_leaves_it_unclear() {
    let breaks = "the connection broke";
    let header = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(HEADER));
    for (answer, text) in [
        ("", breaks),
        ("HTTP/1.1 200 OK\r\nx-ma", breaks),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", breaks),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok", breaks),
        ("\r\n<html>SECRET</html>\r\n\r\n", "not HTTP"),
        (&header, "too large"),
    ] {
        let answer = answer.to_owned();
        let server = Server::start(move |stream, _, _| {
            stream.write_all(answer.as_bytes()).unwrap();
            false
        });
        fails(get(&client(), &server.url()), false, text);
    }
}

#[test]
fn what_was_surely_not_sent() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let refused = format!("http://127.0.0.1:{port}/a?sig=SECRET");
    fails(get(&client(), &refused), true, &format!("GET to 127.0.0.1:{port}: no connection: "));
    let client = named(|host| Err(io::Error::other(format!("no {host} here"))));
    let url = "http://store.test/a?sig=SECRET";
    fails(get(&client, url), true, "GET to store.test: no connection: no store.test here");
    fails(client.send(&ask("GET", url), Duration::ZERO), true, "not sent within 0 ms");
    let failure = client.send(&Request { headers: &[("x", "SECRET\n")], ..ask("GET", &refused) }, LONG);
    let error = Error::from(failure.err().unwrap());
    assert!(error.kind() == ErrorKind::Config && !error.is_unclear(), "{error}");
    assert!(!error.to_string().contains("SECRET"), "{error}");
}

#[test]
fn what_is_nearby() {
    let client = Client::new(&Settings { nearby: true, ..Settings::default() }).unwrap();
    for url in [
        "http://127.0.0.1:41056/msi/token",
        "http://localhost:42356/msi/token",
        "http://169.254.169.254/metadata",
        "http://172.16.0.1:8081/msi/token",
        "http://[fd40::1]:8081/msi/token",
    ] {
        client.check_url(url).unwrap();
    }
    for url in ["http://20.0.0.1/", "https://login.example/", "http://10.0.0.1.example/", "ftp://127.0.0.1/"]
    {
        assert_eq!(client.check_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn urls_that_are_refused() {
    let client = client();
    for url in [
        "http://127.0.0.1:10000/a",
        "http://127.9.9.9",
        "http://[::1]:1/",
        "http://localhost/",
        "http://account.blob.LocalHost.:80/",
    ] {
        client.check_url(url).unwrap();
    }
    for (url, text) in [
        ("http://store.test/?sig=SECRET", "plain http to store.test"),
        ("http://10.0.0.1/?sig=SECRET", "plain http to 10.0.0.1"),
        ("http://localhost.store.test/", "plain http"),
        ("http://me:SECRET@localhost/", "password"),
        ("ftp://localhost/?sig=SECRET", "neither http nor https: ftp"),
        ("/path?sig=SECRET", "a scheme and a host"),
        ("http:// SECRET", "not a URL"),
        ("", "not a URL"),
    ] {
        let by_check = client.check_url(url).unwrap_err();
        let by_send = Error::from(get(&client, url).err().unwrap());
        for error in [by_check, by_send] {
            assert!(error.kind() == ErrorKind::Config && !error.is_unclear(), "{error}");
            assert!(error.to_string().contains(text) && !error.to_string().contains("SECRET"), "{error}");
        }
    }
    named(|_| Ok(vec![])).check_url("http://store.test/").unwrap();
    assert!(!format!("{client:?}").contains("Agent"));
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
#[test]
fn https_without_tls_names_the_features() {
    let url = "https://store.test/?sig=SECRET";
    for error in [client().check_url(url).unwrap_err(), get(&client(), url).err().unwrap().into()] {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`rustls` or `native-tls`"), "{error}");
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_server_without_tls_is_an_error_and_no_panic() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://localhost:{}/?sig=SECRET", listener.local_addr().unwrap().port());
    threads::run("server", move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    })
    .unwrap();
    let failure = get(&client(), &url).err().unwrap();
    assert!(failure.not_sent && !failure.to_string().contains("SECRET"), "{failure}");
    // `Config` where the machine has no roots at all.
    let kind = Error::from(failure).kind();
    assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Config));
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_silent_tls_server_ends_at_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let watch = Stopwatch::start(&Clock::system());
    let failure = client().send(&ask("GET", &url), SHORT).err().unwrap();
    assert!(failure.not_sent && watch.elapsed() < SHORT + SLACK, "{failure}");
    drop(listener);
}

#[expect(dead_code, reason = "it compiles: one client serves all threads")]
fn auto_traits() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Client>();
    shared::<Sender<()>>();
    sent::<Failure>();
}

#[test]
fn requests_that_wait_keep_nobody_from_anything_and_have_a_limit_of_their_own() {
    let (release, hung) = mpsc::channel::<()>();
    let hung = Mutex::new(hung);
    let server = Server::start(move |stream, _, text| {
        if text.contains("/wait") {
            let _ = hung.lock().unwrap().recv_timeout(LONG);
        }
        stream.write_all(OK.as_bytes()).is_ok()
    });
    let client = client();
    let wait = format!("http://127.0.0.1:{}/wait", server.port);
    std::thread::scope(|scope| {
        for _ in 0..gate::WAIT {
            let (client, url) = (client.clone(), wait.clone());
            scope.spawn(move || {
                let waits = Request { lane: Lane::Wait, ..ask("GET", &url) };
                assert!(client.send(&waits, LONG).is_ok());
            });
            let (_, text) = server.next();
            assert!(text.contains("/wait"));
        }
        assert_eq!(get(&client, &server.url()).unwrap().status, 200);
        let one_more = Request { lane: Lane::Wait, ..ask("GET", &wait) };
        fails(client.send(&one_more, SHORT), true, "too many requests");
        for _ in 0..gate::WAIT {
            release.send(()).unwrap();
        }
    });
    let again = Request { lane: Lane::Wait, ..ask("GET", &wait) };
    drop(release);
    assert!(client.send(&again, LONG).is_ok());
}

#[test]
fn an_alias_is_another_name_for_a_host() {
    let server = Server::always(OK);
    let alias = Some(("localhost".to_owned(), "store.test".to_owned()));
    let settings = Settings { allow_http: true, alias, ..Settings::default() };
    let look_up = |host: &str| {
        assert_eq!(host, "store.test");
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    };
    let client = Client::with(&settings, Names::new(&Clock::system(), look_up), None);
    // Not this machine by its name: the name in a certificate can be anything.
    assert_eq!(get(&client, &format!("http://LOCALHOST:{}/", server.port)).unwrap().status, 200);
    assert!(server.next().1.to_lowercase().contains("host: localhost"));
}

#[test]
fn certificates_that_are_none() {
    let settings = |roots: &[u8], client: Option<(&[u8], &[u8])>| Settings {
        tls: Tls {
            roots: Some(roots.to_owned()),
            client: client.map(|(chain, key)| (chain.to_owned(), key.to_owned())),
        },
        ..Settings::default()
    };
    for (settings, what) in [
        (settings(b"SECRET", None), "the CA's certificate: there is none in the PEM"),
        (settings(b"-----BEGIN CERTIFICATE-----\nSECRET", None), "the CA's certificate"),
        (settings(b"", Some((b"", b"SECRET"))), "the CA's certificate"),
    ] {
        let error = Client::new(&settings).map(drop).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!TLS || text.contains(what) && !text.contains("SECRET"), "{text}");
        assert!(!format!("{settings:?}").contains("SECRET"));
    }
}
fn watch(url: &str) -> Request<'_> {
    Request { lane: Lane::Wait, ..ask("GET", url) }
}

#[test]
fn a_stream_is_heard_as_it_comes_and_until_the_reader_has_had_enough() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |stream, _, _| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // The second piece comes when the first one was heard.
        if wait.lock().unwrap().recv_timeout(LONG).is_err() {
            return false;
        }
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").is_ok()
    });
    let (client, url, mut heard) = (client(), server.url(), Vec::new());
    let answer = client.stream(&watch(&url), LONG, |piece| {
        heard.push(String::from_utf8(piece.to_vec()).unwrap());
        let _ = go_on.send(());
        true
    });
    let answer = answer.ok().unwrap();
    assert_eq!(
        (answer.status, answer.body.len(), &*heard),
        (200, 0, &["one".to_owned(), "two".to_owned()][..])
    );
    // The same connection again: it was read to its end. One who has had enough leaves it.
    for number in [0, 1] {
        while let Ok((_, _)) = server.seen.try_recv() {}
        let mut pieces = 0;
        let answer = client.stream(&watch(&url), LONG, |_| {
            pieces += 1;
            false
        });
        assert!(answer.is_ok() && pieces == 1);
        assert_eq!(server.next().0, number);
    }
}

#[test]
fn an_error_is_no_stream() {
    let server = Server::always("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno");
    let url = server.url();
    let answer = client().stream(&watch(&url), LONG, |_| panic!("it has no body to be heard"));
    assert_eq!(answer.map(|answer| (answer.status, answer.body)).ok(), Some((403, b"no".to_vec())));
}

#[test]
fn a_stream_without_a_word_ends_at_the_deadline() {
    let server = Server::start(|stream, _, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        hang(stream)
    });
    let (url, watched) = (server.url(), Stopwatch::start(&Clock::system()));
    assert!(client().stream(&watch(&url), SHORT, |_| true).is_err());
    assert!((SHORT..SHORT + SLACK).contains(&watched.elapsed()), "{:?}", watched.elapsed());
}

#[test]
fn a_header_and_a_small_body_are_one_packet() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    threads::run("server", move || {
        let (mut stream, _) = listener.accept().unwrap();
        for body in [2, 12_000, 40_000] {
            let (mut text, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
            let first = stream.read(&mut piece).unwrap();
            text.extend_from_slice(&piece[..first]);
            let whole = text.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4 + body;
            while text.len() < whole {
                let n = stream.read(&mut piece).unwrap();
                text.extend_from_slice(&piece[..n]);
            }
            tell.send((first, text)).unwrap();
            stream.write_all(OK.as_bytes()).unwrap();
        }
    })
    .unwrap();
    let client = client();
    for length in [2, 12_000, 40_000] {
        let body: Vec<u8> = (0..length).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        let put = Request { body: &body, ..ask("PUT", &url) };
        assert_eq!(client.send(&put, LONG).unwrap().status, 200);
        let (first, text) = told.recv_timeout(LONG).unwrap();
        assert!(text.ends_with(&body), "all of it, in order");
        assert!(length > 2 || first == text.len(), "{first} of {}", text.len());
    }
}
