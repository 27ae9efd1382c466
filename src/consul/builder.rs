//! From settings and the variables of Consul's own tools to a store.

use std::{fmt, fs, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Store,
    agent::Agent,
    key::Keys,
    terms::{LONGEST_DELAY, Terms},
};
use crate::{Error, ErrorKind, Result, address::variable, error::Seconds, http};

const DEFAULT: &str = "127.0.0.1:8500";

/// What happens to a lock's key when its session ends without a release ([sessions]).
///
/// [sessions]: https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Behavior {
    /// It is free, and keeps its value.
    #[default]
    Release,
    /// It is deleted, with whatever others wrote into its value.
    Delete,
}

/// A store to be built: which agent, who we are, and what the sessions are like.
#[derive(Clone)]
#[must_use = "is no store until `build`"]
pub struct Builder {
    address: String,
    ssl: bool,
    token: Option<String>,
    auth: Option<String>,
    tls: http::Tls,
    server_name: Option<String>,
    namespace: Option<String>,
    partition: Option<String>,
    datacenter: Option<String>,
    prefix: String,
    terms: Terms,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The agent on this machine, `http://127.0.0.1:8500`, without a token. Reads no variable.
    pub fn new() -> Self {
        Self {
            address: DEFAULT.to_owned(),
            ssl: false,
            token: None,
            auth: None,
            tls: http::Tls::default(),
            server_name: None,
            namespace: None,
            partition: None,
            datacenter: None,
            prefix: String::new(),
            terms: Terms::default(),
        }
    }

    /// As Consul's own tools find their agent: `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN_FILE` or else
    /// `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_AUTH` (`USER:PASSWORD`), `CONSUL_HTTP_SSL`, `CONSUL_CACERT` or
    /// `CONSUL_CAPATH`, `CONSUL_CLIENT_CERT` with `CONSUL_CLIENT_KEY`, `CONSUL_TLS_SERVER_NAME`, `CONSUL_NAMESPACE`,
    /// `CONSUL_PARTITION`. Files are read here, once.
    ///
    /// # Errors
    /// `Config`, with the variable that is wrong, or the file that cannot be read. `CONSUL_HTTP_SSL_VERIFY=false` is
    /// refused: give the CA instead.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(variable)
    }

    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut builder = Self::new();
        if let Some(address) = variable("CONSUL_HTTP_ADDR") {
            builder = builder.address(&address);
        }
        let flag = |name: &str| variable(name).map(|text| boolean(name, &text)).transpose();
        builder.ssl = flag("CONSUL_HTTP_SSL")?.unwrap_or(false);
        if flag("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            return Err(config(
                "CONSUL_HTTP_SSL_VERIFY=false is not supported: name the CA's certificate in CONSUL_CACERT",
            ));
        }
        builder.token = match variable("CONSUL_HTTP_TOKEN_FILE") {
            Some(path) => {
                let text = read("CONSUL_HTTP_TOKEN_FILE", Path::new(&path))?;
                Some(String::from_utf8_lossy(&text).trim().to_owned()).filter(|token| !token.is_empty())
            }
            None => variable("CONSUL_HTTP_TOKEN"),
        };
        builder.auth = variable("CONSUL_HTTP_AUTH");
        let file = |name: &str| variable(name).map(|path| read(name, Path::new(&path))).transpose();
        builder.tls.roots = match (file("CONSUL_CACERT")?, variable("CONSUL_CAPATH")) {
            (None, Some(dir)) => Some(read_all("CONSUL_CAPATH", Path::new(&dir))?),
            (roots, _) => roots,
        };
        builder.tls.client = match (file("CONSUL_CLIENT_CERT")?, file("CONSUL_CLIENT_KEY")?) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => {
                return Err(config("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together: set both or none"));
            }
        };
        builder.server_name = variable("CONSUL_TLS_SERVER_NAME");
        builder.namespace = variable("CONSUL_NAMESPACE");
        builder.partition = variable("CONSUL_PARTITION");
        Ok(builder)
    }

    /// The agent: `HOST:PORT`, or a URL, whose path goes before `/v1`. Plain http to another machine, where the token
    /// can be read on the way, has to be written out: `http://HOST:PORT`.
    pub fn address(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    /// The secret id of an ACL token. Without one the agent's own default token counts, or the anonymous one.
    pub fn token(mut self, secret: &str) -> Self {
        self.token = Some(secret.to_owned());
        self
    }

    /// Roots for TLS in the place of the machine's: certificates in PEM.
    pub fn ca(mut self, pem: &[u8]) -> Self {
        self.tls.roots = Some(pem.to_owned());
        self
    }

    /// Who we are to an agent that wants to know (`verify_incoming`): a certificate or a chain of them, and its key, in
    /// PEM.
    pub fn client_certificate(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.tls.client = Some((chain.to_owned(), key.to_owned()));
        self
    }

    /// The name in the agent's certificate, where it is not the one in the address.
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// The namespace of sessions and keys (Consul Enterprise). Default: that of the token.
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// The admin partition of sessions and keys (Consul Enterprise). Default: that of the agent.
    pub fn partition(mut self, name: &str) -> Self {
        self.partition = Some(name.to_owned());
        self
    }

    /// The datacenter of sessions and keys. Default: that of the agent, and only a server takes sessions of another.
    pub fn datacenter(mut self, name: &str) -> Self {
        self.datacenter = Some(name.to_owned());
        self
    }

    /// The locks' keys are named `PREFIX/NAME`. Default: none.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// How long nobody gets a lock whose session ended without a release: after a crash, a break, a failed check.
    /// 0 to 60 s. Default: the lock's TTL, or 60 s if that is longer.
    ///
    /// With less than the TTL somebody can get a lock before its old holder has seen that it is gone, by a break or a
    /// session that an operator ends. It then takes a renewal to be told: up to a third of the TTL.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.terms.lock_delay = Some(delay);
        self
    }

    /// What happens to the key when a session ends without a release. Default: [`Behavior::Release`].
    pub fn behavior(mut self, behavior: Behavior) -> Self {
        self.terms.deletes = behavior == Behavior::Delete;
        self
    }

    /// Health checks of the agent's node that end the session, and so take the lock, when one of them is critical:
    /// ids, such as `serfHealth`. Default: none, so that only the TTL does. (With `serfHealth` a network that fails
    /// between the servers and the node takes the lock at once from a holder that is alive.)
    ///
    /// Goes with a lock-delay of the TTL or more, so with a TTL of 60 s at most.
    pub fn node_checks<T: Into<String>>(mut self, ids: impl IntoIterator<Item = T>) -> Self {
        self.terms.node_checks = ids.into_iter().map(Into::into).collect();
        self
    }

    /// The same for checks of services on that node, by their ids.
    pub fn service_checks<T: Into<String>>(mut self, ids: impl IntoIterator<Item = T>) -> Self {
        self.terms.service_checks = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Checks it all. No request is sent.
    ///
    /// # Errors
    /// `Config`, with what is wrong: the address, a unix socket, plain http to another machine that was not written
    /// out, https in a program without a TLS feature, a certificate, the prefix, the lock-delay.
    pub fn build(self) -> Result<Store> {
        let keys = Keys::new(&self.prefix)?;
        if self.terms.lock_delay.is_some_and(|delay| delay > LONGEST_DELAY) {
            let what =
                format!("a lock-delay of more than {}: Consul takes no longer one", Seconds(LONGEST_DELAY));
            return Err(Error::new(ErrorKind::Config, what));
        }
        let server = Server::parse(&self.address, self.ssl)?;
        let alias = self.server_name.filter(|name| server.secure && !name.eq_ignore_ascii_case(&server.host));
        if alias.as_ref().is_some_and(|name| !is_host(name)) {
            return Err(config("CONSUL_TLS_SERVER_NAME is the name of a host, without a port"));
        }
        let base = server.base(alias.as_deref());
        let settings = http::Settings {
            allow_http: server.in_the_clear,
            // As much as a listing takes.
            max_body: 8 * 1024 * 1024,
            tls: self.tls,
            alias: alias.map(|name| (name, server.host.clone())),
            ..http::Settings::default()
        };
        let client = http::Client::new(&settings)?;
        client.check_url(&base).map_err(|e| {
            if server.secure {
                return e;
            }
            config(&format!(
                "{e}: write `http://` in front of the address (CONSUL_HTTP_ADDR) if it may be read on the way, else \
                 set CONSUL_HTTP_SSL=true"
            ))
        })?;
        let mut headers = Vec::new();
        if let Some(token) = self.token {
            headers.push(("X-Consul-Token", plain("the token", token)?));
        }
        if let Some(auth) = self.auth {
            headers.push(("Authorization", format!("Basic {}", STANDARD.encode(auth))));
        }
        let mut query = Vec::new();
        for (name, what, value) in [
            ("dc", "the datacenter", self.datacenter),
            ("ns", "the namespace", self.namespace),
            ("partition", "the partition", self.partition),
        ] {
            let Some(value) = value else { continue };
            if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return Err(config(&format!("{what} is a name of letters, digits, `-`, `_` and `.`")));
            }
            query.push(format!("{name}={value}"));
        }
        let agent = Agent::new(client, base, headers, query.join("&"), keys.prefix());
        Ok(Store::new(agent, keys, self.terms))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password by mistake.
        f.debug_struct("consul::Builder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Where an agent listens.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    secure: bool,
    /// Plain http was written out.
    in_the_clear: bool,
    host: String,
    /// With its colon, or empty.
    port: String,
    /// With a slash in front, or empty.
    path: String,
}

impl Server {
    fn parse(address: &str, ssl: bool) -> Result<Self> {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, address),
        };
        let secure = match scheme {
            None | Some("http") => ssl,
            Some("https") => true,
            Some("unix") => {
                return Err(config(
                    "unix sockets are not supported: let the agent listen on 127.0.0.1 as well",
                ));
            }
            Some(_) => return Err(config("the agent's address begins with `http://`, `https://` or a host")),
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path.trim_end_matches('/')),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if authority.contains('@') {
            return Err(config(
                "no name and no password in the agent's address: they go into CONSUL_HTTP_AUTH",
            ));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain_path = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~/%".contains(&b));
        if !is_host(bare) || port.is_some_and(|port| !is_port(port)) || !plain_path {
            return Err(config(
                "the agent's address is not like `127.0.0.1:8500` or `https://consul.example:8501`",
            ));
        }
        Ok(Self {
            secure,
            in_the_clear: scheme == Some("http") && !secure,
            host: host.to_owned(),
            port: port.map_or_else(String::new, |port| format!(":{port}")),
            path: if path.is_empty() { String::new() } else { format!("/{path}") },
        })
    }

    /// The URL before `/v1`, with another name for the host.
    fn base(&self, alias: Option<&str>) -> String {
        let Self { host, port, path, .. } = self;
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{port}{path}", alias.unwrap_or(host))
    }
}

/// A name or an address, without brackets.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

/// As Go's `strconv.ParseBool`.
fn boolean(name: &str, text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(config(&format!("{name} is `true` or `false`"))),
    }
}

/// What can be in a header.
fn plain(what: &str, text: String) -> Result<String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(config(&format!("{what} is empty, or has blanks or other characters that no header can have")))
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| config(&format!("{name}: {}: {e}", path.display())))
}

/// The files in a directory, one after the other.
fn read_all(name: &str, dir: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| config(&format!("{name}: {}: {e}", dir.display()));
    let mut all = Vec::new();
    for file in fs::read_dir(dir).map_err(failed)? {
        let path = file.map_err(failed)?.path();
        if path.is_file() {
            all.extend(read(name, &path)?);
            all.push(b'\n');
        }
    }
    Ok(all)
}

fn config(what: &str) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
