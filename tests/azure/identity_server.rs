//! A token service on loopback: it answers by a function of the request, and remembers what it was asked.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::fault_server::answer;

/// A request, to the letter.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target: `GET /metadata/..?..`.
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// A header by its name in any case; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

pub(crate) type Script = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

pub(crate) struct IdentityServer {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl IdentityServer {
    pub(crate) fn start(script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_at(0, script)
    }

    /// At this port; 0 is any that is free.
    pub(crate) fn start_at(port: u16, script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, script): (Arc<Mutex<Vec<Asked>>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let heard = asked.clone();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heard, script) = (heard.clone(), script.clone());
                thread::spawn(move || drop(serve(stream, &heard, &*script)));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Each connection serves one request, so that an answer may be anything.
fn serve(mut stream: TcpStream, list: &Mutex<Vec<Asked>>, script: &Script) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let mut asked = Asked { line, head, body: String::new() };
    let length = asked.header("content-length").parse().unwrap_or(0);
    reader.take(length).read_to_string(&mut asked.body)?;
    list.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    stream.write_all(&script(&asked))
}

/// A token that Azurite takes (it looks at no signature), and that ends at this second since 1970.
pub(crate) fn jwt(audience: &str, end: u64, number: usize) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(
        "{{\"aud\":\"{audience}\",\"iss\":\"https://sts.windows.net/ab1f708d/\",\"nbf\":1600000000,\
         \"iat\":1600000000,\"exp\":{end},\"jti\":\"{number}\"}}"
    );
    [part("{\"alg\":\"none\",\"typ\":\"JWT\"}".to_owned()), part(claims), part("nobody".to_owned())].join(".")
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The answer of a token service: `fields` are those beside the token.
pub(crate) fn grants_token(token: &str, fields: &str) -> Vec<u8> {
    let body = format!("{{\"token_type\":\"Bearer\",\"access_token\":\"{token}\",{fields}}}");
    json(200, &body)
}

pub(crate) fn json(status: u16, body: &str) -> Vec<u8> {
    let headers = [("Content-Type", "application/json"), ("Connection", "close")];
    answer(status, &headers, body)
}
