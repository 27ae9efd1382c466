//! A server on loopback that misbehaves as it is told: before a real one, or with answers of its own.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

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
    /// What it is, in a word of the test's.
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) body: String,
    head: String,
}

impl Seen {
    /// Whether it is of this kind, or of this kind and with such a target or body: `txn`, `txn:unlock`.
    pub(crate) fn is(&self, kind: &str) -> bool {
        let (what, part) = kind.split_once(':').unwrap_or((kind, ""));
        self.what == what && (self.target.contains(part) || self.body.contains(part))
    }

    /// A header by its name; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

type Script = dyn Fn(&Seen) -> Vec<u8> + Send + Sync;
/// Says what a request is, from its method and target and body.
type Classify = fn(&Seen) -> String;

/// Who carries requests out.
enum Origin {
    /// `HOST:PORT`.
    Server(String),
    Script(Box<Script>),
}

struct Rule {
    on: &'static str,
    left: usize,
    act: Act,
}

struct Inner {
    origin: Origin,
    classify: Classify,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

pub(crate) struct FaultServer {
    pub(crate) port: u16,
    inner: Arc<Inner>,
}

impl FaultServer {
    /// One in front of a real one at `HOST:PORT`.
    pub(crate) fn before(address: &str, classify: Classify) -> Self {
        Self::start(Origin::Server(address.to_owned()), classify)
    }

    /// One that answers by itself.
    pub(crate) fn scripted(
        classify: Classify,
        script: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start(Origin::Script(Box::new(script)), classify)
    }

    fn start(origin: Origin, classify: Classify) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner { origin, classify, rules: Mutex::default(), seen: Mutex::default() });
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

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

    /// What they were, one after the other.
    pub(crate) fn words(&self) -> Vec<String> {
        lock(&self.inner.seen).iter().map(|seen| seen.what.clone()).collect()
    }

    pub(crate) fn forget(&self) {
        lock(&self.inner.seen).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn read(&self, reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let mut words = head.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut seen =
            Seen { what: String::new(), target, at: Instant::now(), method, body: String::new(), head };
        let mut body = vec![0; seen.header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        seen.body = String::from_utf8_lossy(&body).into_owned();
        seen.what = (self.classify)(&seen);
        Ok(Some(seen))
    }

    fn serve(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(seen) = self.read(&mut reader)? {
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
        Ok(())
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
            Origin::Server(address) => address,
        };
        let mut stream = TcpStream::connect(address)?;
        let head = seen.head.trim_end();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{}", seen.body).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        // No body but text: that the connection to us goes on may be said by a replacement.
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
