//! What the tests share: the agent that `tests/run.sh` started, agents of their own, and requests by hand.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, AtomicUsize, Ordering},
};

use leasehold::{Locker, consul::Builder};

use crate::common::fault_server::{FaultServer, Seen};
pub(crate) use crate::common::{Dir, LONG, SECOND, kind, ms, timed, until};

/// What marks a lock, as a query writes it.
pub(crate) const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// The shortest that the service gives.
pub(crate) const TTL: std::time::Duration = std::time::Duration::from_secs(10);

/// The running agent: `127.0.0.1:PORT`.
pub(crate) fn address() -> String {
    env::var("LEASEHOLD_CONSUL").expect("`tests/run.sh consul` starts Consul and says where it is")
}

/// A prefix that no other test uses.
pub(crate) fn fresh_prefix() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

pub(crate) fn builder(address: &str, prefix: &str) -> Builder {
    Builder::new().address(address).prefix(prefix)
}

/// A locker with a prefix of its own, and that prefix.
pub(crate) fn locker() -> (Locker, String) {
    let prefix = fresh_prefix();
    (locker_at(&address(), &prefix), prefix)
}

pub(crate) fn locker_at(address: &str, prefix: &str) -> Locker {
    Locker::new(builder(address, prefix).build().unwrap()).ttl(TTL)
}

/// A request of somebody else's to the running agent; the answer's body.
pub(crate) fn by_hand(method: &str, path: &str, body: &str) -> String {
    request(&address(), "", method, path, body).1
}

/// A request with a token, if that is not empty: status and body of the answer.
pub(crate) fn request(address: &str, token: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let token = if token.is_empty() { String::new() } else { format!("X-Consul-Token: {token}\r\n") };
    let request = format!(
        "{method} /v1/{path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n{token}\r\n{body}",
        body.len()
    );
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).is_err() || stream.read_to_string(&mut answer).is_err() {
        return (0, String::new());
    }
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// The text of a field of the first object in an answer; empty if it is not there.
pub(crate) fn field(json: &str, name: &str) -> String {
    let Some((_, rest)) = json.split_once(&format!("\"{name}\":")) else { return String::new() };
    let rest = rest.trim_start();
    let end = rest.find([',', '\n', '}']).unwrap_or(rest.len());
    rest[..end].trim().trim_matches('"').to_owned()
}

/// How many sessions have names like this.
pub(crate) fn sessions(address: &str, name: &str) -> usize {
    let all = request(address, "", "GET", "session/list", "").1;
    all.matches(&format!("\"Name\": \"{name}")).count() + all.matches(&format!("\"Name\":\"{name}")).count()
}

/// What a request to Consul is: `create`, `renew`, `destroy`, `session`, `wait`, `look`, `list`, `lock`, `unlock`,
/// `read` (a transaction without a change) or `other`.
pub(crate) fn word(seen: &Seen) -> String {
    let target = &*seen.target;
    let verb = |verb: &str| seen.body.contains(&format!("\"Verb\":\"{verb}\""));
    let word = match &*seen.method {
        "PUT" if target.contains("/session/create") => "create",
        "PUT" if target.contains("/session/renew/") => "renew",
        "PUT" if target.contains("/session/destroy/") => "destroy",
        "GET" if target.contains("/session/info/") => "session",
        "GET" if target.contains("index=") => "wait",
        "GET" if target.contains("recurse") => "list",
        "GET" => "look",
        "PUT" if target.contains("/txn") && verb("lock") => "lock",
        "PUT" if target.contains("/txn") && (verb("unlock") || verb("delete")) => "unlock",
        "PUT" if target.contains("/txn") => "read",
        _ => "other",
    };
    word.to_owned()
}

/// A server in front of the running agent.
pub(crate) fn fault_server() -> FaultServer {
    FaultServer::before(&address(), word)
}

/// A Consul of one test.
pub(crate) struct Consul {
    pub(crate) child: Option<Child>,
    arguments: Vec<String>,
    pub(crate) port: u16,
    pub(crate) server: u16,
    pub(crate) serf: u16,
    pub(crate) dir: Dir,
}

pub(crate) fn free_port() -> u16 {
    // Not one that the kernel gives to connections: another test's could have it before the server starts.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 9_000).unwrap();
    let mut ports = std::iter::repeat_with(|| 20_000 + (first + NEXT.fetch_add(1, Ordering::SeqCst)) % 9_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Consul {
    /// One with this in its configuration, in the place of `-dev` if it is a server of a cluster.
    pub(crate) fn start(name: &str, dev: bool, config: &str, more: &[&str]) -> Self {
        let dir = Dir::new(name);
        let file = dir.0.join("config.json");
        fs::write(&file, config).unwrap();
        let [port, server, serf] = [0, 1, 2].map(|_| free_port());
        let mut arguments = vec!["agent".to_owned()];
        if dev {
            arguments.push("-dev".to_owned());
        } else {
            arguments.extend(["-server".to_owned(), format!("-data-dir={}", dir.0.join("data").display())]);
        }
        arguments.extend(
            [
                "-log-level=error",
                "-bind=127.0.0.1",
                "-serf-wan-port=-1",
                "-grpc-port=-1",
                "-grpc-tls-port=-1",
                "-dns-port=-1",
            ]
            .map(str::to_owned),
        );
        arguments.push(format!("-config-file={}", file.display()));
        let ports = [("http", port), ("server", server), ("serf-lan", serf)];
        arguments.extend(ports.map(|(name, port)| format!("-{name}-port={port}")));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut consul = Self { child: None, arguments, port, server, serf, dir };
        consul.comes_back();
        consul
    }

    pub(crate) fn comes_back(&mut self) {
        let mut command = Command::new(program());
        let log = fs::File::create(self.log()).unwrap();
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn log(&self) -> PathBuf {
        self.dir.0.join("log")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether this agent knows a leader who answers.
    pub(crate) fn has_leader(&self, token: &str) -> bool {
        let (status, body) = request(&self.address(), token, "GET", "kv/none?consistent", "");
        status == 404 || (status == 403 && body.contains("denied"))
    }

    #[track_caller]
    pub(crate) fn is_ready(&self, token: &str) {
        until("a leader", || self.has_leader(token));
    }

    pub(crate) fn dies(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.dies();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// The `consul` that `tests/run.sh` built.
pub(crate) fn program() -> String {
    env::var("LEASEHOLD_CONSUL_PROGRAM").expect("tests/run.sh says where Consul is")
}
