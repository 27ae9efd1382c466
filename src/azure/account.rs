//! Accounts, and what makes a store of one.

use std::{fmt, io, sync::Arc};

use super::{
    Names, Store, Token,
    cli::Cli,
    connection::{Connection, Endpoint, Sas},
    credential::Credential,
    entra::{Application, Proof},
    environment,
    managed_identity::ManagedIdentity,
    name::{BlobNames, check_container},
    peers::GOAZURELOCKING_CONTAINER,
    service::Service,
    shared_key::Key,
    token::{Function, Source},
    tokens::Tokens,
};
use crate::{Error, ErrorKind, Result, address, backend::Clock, http};

/// A storage account with a credential: makes stores.
///
/// No I/O is done before a lock is asked for. Clones, and the stores that are made of them, share the credential
/// and its token: a token is asked for once, kept, and renewed in the background well before it ends.
#[derive(Clone)]
pub struct Account {
    credential: Arc<Credential>,
    endpoint: Endpoint,
    clock: Clock,
}

/// The domain of the public cloud's blob endpoints.
const PUBLIC: &str = "core.windows.net";

impl Account {
    /// The account of the environment, by the variables of the Azure CLI and of the Azure libraries. The first of
    /// these that is there counts:
    ///
    /// 1. `AZURE_STORAGE_CONNECTION_STRING`
    /// 2. `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY`
    /// 3. `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_SAS_TOKEN`
    /// 4. `AZURE_STORAGE_ACCOUNT` with an identity of Microsoft Entra:
    ///    - a client secret: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`
    ///    - a workload identity: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`
    ///    - the managed identity of an app (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER`) or of this machine; where it
    ///      has several, the one of `AZURE_CLIENT_ID`
    ///    - whoever is logged in with the Azure CLI
    ///
    /// Whether this machine has an identity, and whether somebody is logged in, is found out by the first lock;
    /// whichever is found stays.
    ///
    /// ```no_run
    /// use leasehold::{Locker, azure::Account};
    ///
    /// let locker = Locker::new(Account::from_env()?.container("locks").build()?);
    /// let _guard = locker.lock("migration")?;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, with the variable that is missing or wrong. That no identity fits is the error of the first lock,
    /// with what was tried and why each did not do.
    pub fn from_env() -> Result<Self> {
        Self::from_env_for(None)
    }

    /// The same, for this account of it.
    pub(crate) fn from_env_for(account: Option<&str>) -> Result<Self> {
        if let Some(text) = address::variable("AZURE_STORAGE_CONNECTION_STRING") {
            let found = Self::from_connection_string(&text)?;
            return match (&*found.credential, account) {
                (Credential::Key { account: theirs, .. }, Some(ours)) if theirs != ours => {
                    Err(config(format!(
                        "the address names the account {ours:?}, AZURE_STORAGE_CONNECTION_STRING is of {theirs:?}"
                    )))
                }
                _ => Ok(found),
            };
        }
        let Some(account) = account.map(str::to_owned).or_else(|| address::variable("AZURE_STORAGE_ACCOUNT"))
        else {
            return Err(config(
                "no account: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and a credential"
                    .to_owned(),
            ));
        };
        if let Some(key) = address::variable("AZURE_STORAGE_KEY") {
            return Self::with_key(&account, &key);
        }
        if let Some(sas) = address::variable("AZURE_STORAGE_SAS_TOKEN") {
            return Self::with_sas(&account, &sas);
        }
        Self::with_source(&account, environment::identity()?)
    }

    /// The account of a connection string, as the portal shows it; `UseDevelopmentStorage=true` is Azurite.
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// let account = Account::from_connection_string("UseDevelopmentStorage=true")?;
    /// let store = account.container("locks").create_container(true).build()?;
    /// # let _ = store;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, with the part that is wrong and never its secret.
    pub fn from_connection_string(text: &str) -> Result<Self> {
        let Connection { credential, endpoint } = Connection::parse(text)?;
        Ok(Self::new(credential, endpoint))
    }

    /// The account of the public cloud with this name, and one of its two keys as the portal shows them, in
    /// base64.
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// # let key = || "c2VjcmV0".to_owned();
    /// let account = Account::with_key("myaccount", &key())?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for what can be no name or no key.
    pub fn with_key(name: &str, base64: &str) -> Result<Self> {
        let credential = Credential::Key { account: name.to_owned(), key: Key::from_base64(base64)? };
        Ok(Self::new(credential, Endpoint::of_account(true, name, PUBLIC)?))
    }

    /// The account of the public cloud with this name, and a shared access signature of the account or of the
    /// container that may create and write (`sp=cw`): the whole token, with `?` in front or without.
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// let sas = "sv=2022-11-02&sr=c&sp=cw&se=2030-01-01T00:00:00Z&sig=..";
    /// let account = Account::with_sas("myaccount", sas)?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for what can be no name or no signature.
    pub fn with_sas(name: &str, sas: &str) -> Result<Self> {
        let credential = Credential::Sas(Sas::new(sas)?);
        Ok(Self::new(credential, Endpoint::of_account(true, name, PUBLIC)?))
    }

    /// The account of the public cloud with this name, and tokens of a function: for credentials that this library
    /// does not have. The tokens are for the scope `https://storage.azure.com/.default`.
    ///
    /// The function is called when a token is needed and well before it ends, on a thread of this library with
    /// 256 KiB of stack, by one thread at a time. It may block: a lock waits for it no longer than it may, and
    /// one that is held needs it only when its token ends. After a minute it counts as stuck, and is called
    /// again. Its errors are tried again, but for those of the kinds `PermissionDenied`, which is told as
    /// `Denied`, and `InvalidInput`, which is told as `Config`. Their text is in ours.
    ///
    /// ```
    /// use leasehold::azure::{Account, Token};
    /// use std::{io, time::{Duration, SystemTime}};
    ///
    /// # fn ask_our_broker() -> io::Result<(String, Duration)> { Err(io::Error::other("closed today")) }
    /// let account = Account::with_token("myaccount", || {
    ///     let (text, lives) = ask_our_broker()?;
    ///     Ok(Token::new(text, SystemTime::now() + lives))
    /// })?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for what can be no name.
    pub fn with_token(
        name: &str,
        token: impl Fn() -> io::Result<Token> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with_source(name, Arc::new(Function(token)))
    }

    /// The account of the public cloud with this name, and the managed identity of what this program runs in: App
    /// Service, Functions and Container Apps, which set `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`; else the virtual
    /// machine (scale set, node of a cluster), by its metadata service at `169.254.169.254`, or at
    /// `AZURE_POD_IDENTITY_AUTHORITY_HOST` where that is set. No proxy is used.
    ///
    /// `client_id` chooses one of several user-assigned identities; `None` is the system-assigned one, or the
    /// only one. (Azure Arc and Service Fabric are not supported: see [`with_token`](Self::with_token).)
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// let account = Account::with_managed_identity("myaccount", None)?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, with the variable that is wrong. No request is sent yet.
    pub fn with_managed_identity(name: &str, client_id: Option<&str>) -> Result<Self> {
        Self::with_source(name, Arc::new(ManagedIdentity::new(client_id)?))
    }

    /// The account of the public cloud with this name, and the workload identity that Kubernetes gives to this
    /// pod: `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`. The file is read for each token.
    ///
    /// ```no_run
    /// use leasehold::azure::Account;
    ///
    /// let account = Account::with_workload_identity("myaccount")?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, with the variable that is missing or wrong. The file is not read yet.
    pub fn with_workload_identity(name: &str) -> Result<Self> {
        let application = environment::workload_identity().map_err(|missing| {
            config(format!("no workload identity: {missing} is not set (is the pod labelled for it?)"))
        })??;
        Self::with_source(name, Arc::new(application))
    }

    /// The account of the public cloud with this name, and an application of Microsoft Entra: the id (or domain)
    /// of its tenant, its client id, and one of its secrets.
    ///
    /// The token service is that of the endpoint's cloud, or that of `AZURE_AUTHORITY_HOST`.
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// # let secret = || "hunter2".to_owned();
    /// let (tenant, client) = ("72f988bf-86f1-41af-91ab-2d7cd011db47", "d4c9e3f2-0000-4000-8000-000000000000");
    /// let account = Account::with_client_secret("myaccount", tenant, client, &secret())?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for what can be no name, tenant or client id, and for a wrong `AZURE_AUTHORITY_HOST`.
    pub fn with_client_secret(name: &str, tenant: &str, client: &str, secret: &str) -> Result<Self> {
        let application = Application::new(tenant, client, Proof::Secret(secret.to_owned()))?;
        Self::with_source(name, Arc::new(application))
    }

    /// The account of the public cloud with this name, and whoever is logged in with the Azure CLI: for a
    /// developer's machine. Each token is a run of `az account get-access-token` (2.54 or later), about a second,
    /// of which a `try_lock` may see the end too late.
    ///
    /// ```
    /// use leasehold::azure::Account;
    ///
    /// let account = Account::with_azure_cli("myaccount")?;
    /// # let _ = account;
    /// # Ok::<(), leasehold::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for what can be no name. `az` is not run yet.
    pub fn with_azure_cli(name: &str) -> Result<Self> {
        Self::with_source(name, Arc::new(Cli))
    }

    fn with_source(name: &str, source: Arc<dyn Source>) -> Result<Self> {
        let endpoint = Endpoint::of_account(true, name, PUBLIC)?;
        let tokens = Tokens::new(source, endpoint.cloud(), Clock::system());
        Ok(Self::new(Credential::Bearer(tokens), endpoint))
    }

    fn new(credential: Credential, endpoint: Endpoint) -> Self {
        Self { credential: Arc::new(credential), endpoint, clock: Clock::system() }
    }

    /// The account's blob endpoint elsewhere: another cloud (`https://NAME.blob.core.usgovcloudapi.net`), a domain
    /// of one's own, Azurite (`http://127.0.0.1:10000/devstoreaccount1`).
    ///
    /// An identity of Entra gets its tokens from the endpoint's cloud then; a domain of one's own counts as in the
    /// public cloud, unless `AZURE_AUTHORITY_HOST` names the service.
    ///
    /// # Errors
    /// `Config`, with the part that is wrong.
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        let endpoint = Endpoint::parse(url)?;
        if endpoint.cloud() != self.endpoint.cloud() {
            self.credential = Arc::new(self.credential.with(endpoint.cloud(), &self.clock));
        }
        self.endpoint = endpoint;
        Ok(self)
    }

    /// The clock by which its leases and tokens are judged. Default: the machine's. A test on a server of its own
    /// moves one by hand.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.credential = Arc::new(self.credential.with(self.endpoint.cloud(), &clock));
        self.clock = clock;
        self
    }

    /// A store in this container of the account.
    pub fn container(&self, name: &str) -> Builder {
        Builder {
            account: self.clone(),
            container: name.to_owned(),
            prefix: String::new(),
            names: Names::default(),
            create_container: false,
            allow_http: false,
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.to_string();
        let mut shown = f.debug_struct("Account");
        shown.field("endpoint", &endpoint).field("credential", &self.credential).finish_non_exhaustive()
    }
}

/// A store to be built.
#[derive(Clone, Debug)]
#[must_use = "is no store until `build`"]
pub struct Builder {
    account: Account,
    container: String,
    prefix: String,
    names: Names,
    create_container: bool,
    allow_http: bool,
}

impl Builder {
    /// The locks' blobs are named `PREFIX/NAME`. Default: none. Goes with [`Names::Escaped`] alone.
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// How the locks' blobs are named: as this library does it, or as a Go library whose locks are to be the same.
    /// Default: [`Names::Escaped`].
    pub fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Whether a missing container may be created. Default: no.
    pub fn create_container(mut self, allowed: bool) -> Self {
        self.create_container = allowed;
        self
    }

    /// Whether plain `http:` may leave this machine: a SAS is then readable on the way. A token never goes so.
    /// Default: no.
    pub fn allow_http(mut self, allowed: bool) -> Self {
        self.allow_http = allowed;
        self
    }

    /// Checks it all. No I/O is done.
    ///
    /// # Errors
    /// `Config`, with what is wrong: the container's name, the prefix, names that are of another container, `http:`
    /// to another machine (with a token also where that is allowed), an `https:` endpoint in a program without a TLS feature.
    pub fn build(self) -> Result<Store> {
        check_container(&self.container)?;
        if self.names == Names::GoAzureLocking && self.container != GOAZURELOCKING_CONTAINER {
            return Err(config(format!(
                "goazurelocking has its locks in the container {GOAZURELOCKING_CONTAINER:?}: those in {:?} would \
                 exclude none of its users",
                self.container
            )));
        }
        let names = BlobNames::new(self.names, &self.prefix)?;
        // As much as a page of a listing takes.
        let settings = http::Settings {
            allow_http: self.allow_http,
            max_body: 8 * 1024 * 1024,
            ..http::Settings::default()
        };
        let client = http::Client::new(&settings)?;
        let Account { credential, endpoint, clock } = self.account;
        if matches!(&*credential, Credential::Bearer(_)) && endpoint.is_open() {
            return Err(config(format!(
                "a token goes only over `https:`, whatever `allow_http` says, and {endpoint} is not"
            )));
        }
        client.check_url(&endpoint.url(&endpoint.container_path(&self.container), ""))?;
        let service = Service::new(client, credential, endpoint, clock, self.container);
        Ok(Store::new(service, names, self.create_container))
    }
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}
