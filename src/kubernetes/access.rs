//! How the API server is reached, and who we are to it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    object::{Place, config},
    store::{Builder, Store},
};
use crate::{
    Error, ErrorKind, Result, address,
    backend::Moment,
    clock::Clock,
    http::{self, Client, Failure, Request, Response, Tls},
};

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long what was read from a file is used. The kubelet replaces a token at 80 % of its life.
const FRESH: Duration = Duration::from_secs(10);
/// All annotations of an object are 256 KiB, which JSON may make twice as much.
const LARGEST: usize = 4 * 1024 * 1024;

/// How an API server is reached, and who we are to it: [`from_env`](Self::from_env), or [`to`](Self::to) a server with
/// a token or a client certificate.
///
/// Clones are cheap, and share connections.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    /// The server's URL, without a slash at its end.
    server: String,
    roots: Option<Roots>,
    client: Option<(Vec<u8>, Vec<u8>)>,
    credential: Credential,
    /// The namespace where none is named.
    pub(super) namespace: String,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
enum Roots {
    Pem(Vec<u8>),
    File(PathBuf),
}

#[derive(Clone)]
enum Credential {
    None,
    Token(String),
    TokenFile(PathBuf),
}

/// What was made of the settings, until a file is another one.
#[derive(Default)]
struct State {
    connection: Option<(Client, Option<Vec<u8>>)>,
    token: Option<String>,
    read: Option<Moment>,
}

impl Access {
    /// An API server by its URL, with the machine's own roots and nobody's credential until a setter gives them.
    ///
    /// # Errors
    /// `Config` for what is no URL of a server.
    pub fn to(server: &str) -> Result<Self> {
        let server = server.trim_end_matches('/').to_owned();
        if !(server.starts_with("https://") || server.starts_with("http://")) || server.contains(['?', '#']) {
            return Err(config("the server is to be a URL, such as https://10.0.0.1:6443".to_owned()));
        }
        Ok(Self(Arc::new(Inner {
            server,
            roots: None,
            client: None,
            credential: Credential::None,
            namespace: "default".to_owned(),
            state: Arc::default(),
        })))
    }

    /// In a pod its [service account](Self::in_pod).
    ///
    /// # Errors
    /// `Config`, when this is no pod, or a file of the account is missing.
    pub fn from_env() -> Result<Self> {
        Self::in_pod()
    }

    /// The service account of the pod that this process runs in: `KUBERNETES_SERVICE_HOST` and `.._PORT`, and the
    /// files under `/var/run/secrets/kubernetes.io/serviceaccount`. Its token and its authority are read again as
    /// they change; the namespace is the pod's.
    ///
    /// # Errors
    /// `Config`, when this is no pod, or a file of the account is missing.
    pub fn in_pod() -> Result<Self> {
        let variable = |name| {
            address::variable(name).ok_or_else(|| config(format!("this is no pod: {name} is not set")))
        };
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        Self::of_account(&host, &port, Path::new(ACCOUNT))
    }

    fn of_account(host: &str, port: &str, files: &Path) -> Result<Self> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let namespace = files.join("namespace");
        let namespace = fs::read_to_string(&namespace).map_err(|e| unreadable(&namespace, &e))?;
        Self::to(&format!("https://{host}:{port}"))?
            .ca_file(files.join("ca.crt"))?
            .token_file(files.join("token"))
            .map(|access| access.namespace(namespace.trim()))
    }

    /// The authority that signs the server's certificate, as PEM. Default: the machine's own roots.
    ///
    /// # Errors
    /// `Config` for what is no certificate.
    pub fn ca_pem(self, pem: impl Into<Vec<u8>>) -> Result<Self> {
        self.with(|inner| inner.roots = Some(Roots::Pem(pem.into()))).checked()
    }

    /// The same from a file, which is read again as it changes.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read, or is no certificate.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Result<Self> {
        self.with(|inner| inner.roots = Some(Roots::File(path.into()))).checked()
    }

    /// A bearer token. Default: none.
    ///
    /// # Errors
    /// `Config` for what can be no token.
    pub fn token(self, token: &str) -> Result<Self> {
        let token = as_token(token)?;
        Ok(self.with(|inner| inner.credential = Credential::Token(token)))
    }

    /// A bearer token from a file, which is read again as it changes: at least every 10 s, and at once when the server
    /// does not accept it.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read, or holds no token.
    pub fn token_file(self, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        read_token(&path)?;
        Ok(self.with(|inner| inner.credential = Credential::TokenFile(path)))
    }

    /// A client certificate, with the chain behind it, and its key; both as PEM.
    ///
    /// # Errors
    /// `Config` for what is no certificate or no key.
    pub fn client_certificate(
        self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Self> {
        self.with(|inner| inner.client = Some((certificate.into(), key.into()))).checked()
    }

    /// The namespace of addresses that name none. Default: the pod's, or `default`.
    pub fn namespace(self, namespace: &str) -> Self {
        self.with(|inner| namespace.clone_into(&mut inner.namespace))
    }

    /// A store whose locks are annotations of this object. `resource` is `configmaps`, or `GROUP/VERSION/RESOURCE`
    /// outside the core; an empty namespace is that of cluster-scoped objects.
    pub fn object(&self, namespace: &str, resource: &str, name: &str) -> Builder {
        Builder::new(self.clone(), namespace, resource, name)
    }

    /// The namespace where none is named.
    pub(super) fn default_namespace(&self) -> &str {
        &self.0.namespace
    }

    pub(super) fn store(self, place: Place, create: bool) -> Result<Store> {
        self.connection()?.check_url(&self.0.server)?;
        Ok(Store::new(self, place, create))
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        // Not of the settings any more.
        inner.state = Arc::default();
        Self(Arc::new(inner))
    }

    fn checked(self) -> Result<Self> {
        self.connection()?;
        Ok(self)
    }

    /// Sends a request, as whom we are. One whose credential is not accepted is sent once more with a fresh one.
    pub(super) fn send(
        &self,
        request: &Request<'_>,
        limit: Duration,
        send: &mut Sender<'_>,
    ) -> Result<Response> {
        let first = self.send_once(request, limit, send)?;
        if first.status == 401 && self.refresh() {
            return self.send_once(request, limit, send);
        }
        Ok(first)
    }

    fn send_once(&self, request: &Request<'_>, limit: Duration, send: &mut Sender<'_>) -> Result<Response> {
        let client = self.connection()?;
        let token = self.bearer()?;
        let url = format!("{}{}", self.0.server, request.url);
        let mut headers = request.headers.to_vec();
        let authorization;
        if let Some(token) = token {
            authorization = format!("Bearer {token}");
            headers.push(("Authorization", &authorization));
        }
        let request = Request { url: &url, headers: &headers, ..*request };
        Ok(send(&client, &request, limit)?)
    }

    /// Forgets what may be old; says whether there is another credential to be tried.
    fn refresh(&self) -> bool {
        let Credential::TokenFile(path) = &self.0.credential else { return false };
        let mut state = self.state();
        let old = state.token.take();
        state.read = None;
        match read_token(path) {
            Ok(new) => {
                let other = old.as_deref() != Some(&*new);
                state.token = Some(new);
                other
            }
            Err(_) => false,
        }
    }

    /// The token to be sent. One that cannot be read again is used on.
    fn bearer(&self) -> Result<Option<String>> {
        let path = match &self.0.credential {
            Credential::None => return Ok(None),
            Credential::Token(token) => return Ok(Some(token.clone())),
            Credential::TokenFile(path) => path,
        };
        let mut state = self.state();
        if !state.is_fresh() || state.token.is_none() {
            match (read_token(path), &state.token) {
                (Ok(token), _) => state.token = Some(token),
                (Err(_), Some(_)) => {}
                (Err(error), None) => return Err(error),
            }
            state.read = Some(Clock::system().now());
            self.renew_connection(&mut state);
        }
        Ok(state.token.clone())
    }

    /// A client with the authority that is to be trusted now.
    fn connection(&self) -> Result<Client> {
        let mut state = self.state();
        if let Some((client, _)) = &state.connection {
            return Ok(client.clone());
        }
        let roots = self.0.roots()?;
        let client = self.0.client(roots.clone())?;
        state.connection = Some((client.clone(), roots));
        Ok(client)
    }

    /// Another authority needs other connections.
    fn renew_connection(&self, state: &mut State) {
        let Ok(roots) = self.0.roots() else { return };
        if state.connection.as_ref().is_some_and(|(_, old)| *old != roots)
            && let Ok(client) = self.0.client(roots.clone())
        {
            state.connection = Some((client, roots));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request is sent: for its answer, or for a stream.
pub(super) type Sender<'a> = dyn FnMut(&Client, &Request<'_>, Duration) -> Result<Response, Failure> + 'a;

impl State {
    fn is_fresh(&self) -> bool {
        self.read.is_some_and(|read| Clock::system().now().saturating_since(read) < FRESH)
    }
}

impl Inner {
    fn roots(&self) -> Result<Option<Vec<u8>>> {
        match &self.roots {
            None => Ok(None),
            Some(Roots::Pem(pem)) => Ok(Some(pem.clone())),
            Some(Roots::File(path)) => fs::read(path).map(Some).map_err(|e| unreadable(path, &e)),
        }
    }

    fn client(&self, roots: Option<Vec<u8>>) -> Result<Client> {
        let tls = Tls { roots, client: self.client.clone() };
        Client::new(&http::Settings { max_body: LARGEST, tls, ..http::Settings::default() })
    }
}

fn read_token(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    as_token(&text).map_err(|_| config(format!("there is no token in {}", path.display())))
}

/// As it can stand in a header.
fn as_token(text: &str) -> Result<String> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(config("the token is empty, or has characters that no token has".to_owned()));
    }
    Ok(token.to_owned())
}

fn unreadable(path: &Path, e: &io::Error) -> Error {
    Error::new(ErrorKind::Config, io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
        .not_sent()
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("server", &self.0.server).finish_non_exhaustive()
    }
}
