//! How the API server is reached, and who we are to it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "kubeconfig")]
use super::kubeconfig::{Context, Files, Pem, Token};
use super::{
    builder::Builder,
    object::{Place, config},
    session::Session,
    store::Store,
};
use crate::{Error, ErrorKind, Result, address};

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How an API server is reached, and who we are to it: [`from_env`](Self::from_env), or [`to`](Self::to) a server with
/// a token or a client certificate.
///
/// Clones are cheap, and share connections.
#[derive(Clone)]
pub struct Access(pub(super) Arc<Inner>);

#[derive(Clone)]
pub(super) struct Inner {
    /// The server's URL, without a slash at its end.
    pub(super) server: String,
    /// A host in that URL that is meant to be another.
    pub(super) alias: Option<(String, String)>,
    pub(super) roots: Option<Roots>,
    pub(super) client: Option<Identity>,
    pub(super) credential: Credential,
    /// Headers that make us another.
    pub(super) impersonation: Vec<(&'static str, String)>,
    /// The namespace where none is named.
    pub(super) namespace: String,
    pub(super) session: Arc<Session>,
}

/// A client certificate and its key.
pub(super) type Identity = (Vec<u8>, Vec<u8>);

#[derive(Clone)]
pub(super) enum Roots {
    Pem(Vec<u8>),
    File(PathBuf),
}

#[derive(Clone)]
pub(super) enum Credential {
    None,
    Token(String),
    TokenFile(PathBuf),
    #[cfg(feature = "kubeconfig")]
    Plugin(Arc<super::exec::Plugin>),
}

impl Credential {
    /// Whether it can be another one though its token is not.
    pub(super) fn is_of_a_plugin(&self) -> bool {
        match self {
            Self::None | Self::Token(_) | Self::TokenFile(_) => false,
            #[cfg(feature = "kubeconfig")]
            Self::Plugin(_) => true,
        }
    }
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
            alias: None,
            roots: None,
            client: None,
            credential: Credential::None,
            impersonation: Vec::new(),
            namespace: "default".to_owned(),
            session: Arc::default(),
        })))
    }

    /// In a pod its [service account](Self::in_pod), else what `kubectl` uses
    #[cfg_attr(feature = "kubeconfig", doc = "([`from_kubeconfig`](Self::from_kubeconfig)).")]
    #[cfg_attr(not(feature = "kubeconfig"), doc = "(with the feature `kubeconfig`).")]
    ///
    /// # Errors
    /// `Config`, when there is neither, or a file is missing or wrong.
    pub fn from_env() -> Result<Self> {
        let pod = address::variable("KUBERNETES_SERVICE_HOST").is_some();
        #[cfg(feature = "kubeconfig")]
        if !pod {
            return Self::from_kubeconfig(None);
        }
        if !pod {
            return Err(config(
                "this is no pod (KUBERNETES_SERVICE_HOST is not set); KUBECONFIG needs the feature `kubeconfig` of \
                 leasehold, which is off"
                    .to_owned(),
            ));
        }
        Self::in_pod()
    }

    /// What `kubectl` uses: the files of `KUBECONFIG`, or `~/.kube/config`, and of them this context or the current one.
    ///
    /// Certificates and tokens in the file and beside it, exec plugins (`client.authentication.k8s.io/v1` and
    /// `v1beta1`, which cannot ask anybody anything; what they give is used until it ends or is refused), impersonation
    /// and the context's namespace are used. `insecure-skip-tls-verify`, `proxy-url`, passwords and `auth-provider` are
    /// refused.
    ///
    /// # Errors
    /// `Config`, with what is missing or wrong.
    #[cfg(feature = "kubeconfig")]
    pub fn from_kubeconfig(context: Option<&str>) -> Result<Self> {
        let home = address::variable("HOME").or_else(|| address::variable("USERPROFILE"));
        let paths = Files::default_paths(address::variable("KUBECONFIG").as_deref(), home.as_deref());
        let files = Files::read(&paths, true)?;
        if files.is_empty() {
            return Err(config(
                "neither a pod (KUBERNETES_SERVICE_HOST is not set) nor a kubeconfig: set KUBECONFIG"
                    .to_owned(),
            ));
        }
        Self::of_context(files.context(context)?)
    }

    /// The same from one file.
    ///
    /// # Errors
    /// `Config`, with what is missing or wrong.
    #[cfg(feature = "kubeconfig")]
    pub fn from_kubeconfig_file(path: impl Into<PathBuf>, context: Option<&str>) -> Result<Self> {
        Self::of_context(Files::read(&[path.into()], false)?.context(context)?)
    }

    #[cfg(feature = "kubeconfig")]
    fn of_context(context: Context) -> Result<Self> {
        let mut access = Self::to(&context.server)?;
        access = match context.authority {
            None => access,
            Some(Pem::Inline(pem)) => access.ca_pem(pem)?,
            Some(Pem::File(path)) => access.ca_file(path)?,
        };
        let bytes = |pem: Pem| match pem {
            Pem::Inline(pem) => Ok(pem),
            Pem::File(path) => fs::read(&path).map_err(|e| unreadable(&path, &e)),
        };
        if let Some((certificate, key)) = context.certificate {
            access = access.client_certificate(bytes(certificate)?, bytes(key)?)?;
        }
        access = match context.token {
            None => access,
            Some(Token::Text(token)) => access.token(&token)?,
            Some(Token::File(path)) => access.token_file(path)?,
        };
        if let Some(namespace) = &context.namespace {
            access = access.namespace(namespace);
        }
        if let Some(name) = &context.server_name {
            access = access.server_name(name)?;
        }
        let authority = access.0.roots()?;
        Ok(access.with(|inner| {
            inner.impersonation = context.impersonation;
            if let Some(exec) = context.exec {
                let (server, server_name) = (context.server, context.server_name);
                let plugin = super::exec::Plugin { exec, server, server_name, authority };
                inner.credential = Credential::Plugin(Arc::new(plugin));
            }
        }))
    }

    /// The name that the server's certificate bears, where that is not its URL's.
    ///
    /// # Errors
    /// `Config` for what can be no name of a host.
    pub fn server_name(self, name: &str) -> Result<Self> {
        let wrong = || config(format!("no server can be called {name:?}"));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) {
            return Err(wrong());
        }
        let (scheme, rest) = self.0.server.split_once("://").ok_or_else(wrong)?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let port = authority.rfind(':').filter(|colon| *colon > authority.rfind(']').unwrap_or(0));
        let (host, port) = authority.split_at(port.unwrap_or(authority.len()));
        let alias = Some((name.to_owned(), host.trim_matches(['[', ']']).to_owned()));
        let server = format!("{scheme}://{name}{port}{path}");
        Ok(self.with(|inner| {
            inner.server = server;
            inner.alias = alias;
        }))
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
        self.client(&mut self.state())?.check_url(&self.0.server)?;
        Ok(Store::new(self, place, create))
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        // Not of the settings any more.
        inner.session = Arc::default();
        Self(Arc::new(inner))
    }

    fn checked(self) -> Result<Self> {
        self.client(&mut self.state())?;
        Ok(self)
    }
}

impl Inner {
    pub(super) fn roots(&self) -> Result<Option<Vec<u8>>> {
        match &self.roots {
            None => Ok(None),
            Some(Roots::Pem(pem)) => Ok(Some(pem.clone())),
            Some(Roots::File(path)) => fs::read(path).map(Some).map_err(|e| unreadable(path, &e)),
        }
    }
}

pub(super) fn read_token(path: &Path) -> Result<String> {
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

pub(super) fn unreadable(path: &Path, e: &io::Error) -> Error {
    Error::new(ErrorKind::Config, io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
        .not_sent()
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("server", &self.0.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
