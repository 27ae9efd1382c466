//! Accounts, and what makes a store of one.

use std::{fmt, sync::Arc};

use super::{
    Names, Store,
    connection::{Connection, Credential, Endpoint, Sas},
    name::{BlobNames, check_container},
    peers::GOAZURELOCKING_CONTAINER,
    service::Service,
    shared_key::Key,
};
use crate::{Error, ErrorKind, Result, address, http};

/// A storage account with a credential: makes stores. No I/O is done here.
#[derive(Clone)]
pub struct Account {
    pub(super) credential: Arc<Credential>,
    endpoint: Endpoint,
}

/// The domain of the public cloud's blob endpoints.
const PUBLIC: &str = "core.windows.net";

impl Account {
    /// The account of the environment: `AZURE_STORAGE_CONNECTION_STRING`, else `AZURE_STORAGE_ACCOUNT` with
    /// `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, as the Azure CLI names them.
    ///
    /// # Errors
    /// `Config`, with the variable that is missing or wrong.
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
                "no account: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"
                    .to_owned(),
            ));
        };
        if let Some(key) = address::variable("AZURE_STORAGE_KEY") {
            return Self::with_key(&account, &key);
        }
        if let Some(sas) = address::variable("AZURE_STORAGE_SAS_TOKEN") {
            return Self::with_sas(&account, &sas);
        }
        Err(config(format!(
            "no credential for the account {account:?}: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
        )))
    }

    /// The account of a connection string, as the portal shows it; `UseDevelopmentStorage=true` is Azurite.
    ///
    /// # Errors
    /// `Config`, with the part that is wrong and never its secret.
    pub fn from_connection_string(text: &str) -> Result<Self> {
        let Connection { credential, endpoint } = Connection::parse(text)?;
        Ok(Self { credential: Arc::new(credential), endpoint })
    }

    /// The account of the public cloud with this name, and one of its two keys.
    ///
    /// # Errors
    /// `Config` for what can be no name or no key.
    pub fn with_key(name: &str, base64: &str) -> Result<Self> {
        let credential = Credential::Key { account: name.to_owned(), key: Key::from_base64(base64)? };
        Ok(Self { credential: Arc::new(credential), endpoint: Endpoint::of_account(true, name, PUBLIC)? })
    }

    /// The account of the public cloud with this name, and a shared access signature.
    ///
    /// # Errors
    /// `Config` for what can be no name or no signature.
    pub fn with_sas(name: &str, sas: &str) -> Result<Self> {
        let credential = Credential::Sas(Sas::new(sas)?);
        Ok(Self { credential: Arc::new(credential), endpoint: Endpoint::of_account(true, name, PUBLIC)? })
    }

    /// The account's blob endpoint elsewhere: another cloud, a domain of one's own, Azurite
    /// (`http://127.0.0.1:10000/devstoreaccount1`).
    ///
    /// # Errors
    /// `Config`, with the part that is wrong.
    pub fn endpoint(mut self, url: &str) -> Result<Self> {
        self.endpoint = Endpoint::parse(url)?;
        Ok(self)
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
        f.debug_struct("Account").field("endpoint", &endpoint).finish_non_exhaustive()
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

    /// Whether plain `http:` may leave this machine: a SAS is then readable on the way. Default: no.
    pub fn allow_http(mut self, allowed: bool) -> Self {
        self.allow_http = allowed;
        self
    }

    /// Checks it all. No I/O is done.
    ///
    /// # Errors
    /// `Config`, with what is wrong: the container's name, the prefix, names that are of another container, `http:`
    /// to another machine, an `https:` endpoint in a program without a TLS feature.
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
        let settings = http::Settings { allow_http: self.allow_http, max_body: 8 * 1024 * 1024 };
        let client = http::Client::new(&settings)?;
        let Account { credential, endpoint } = self.account;
        client.check_url(&endpoint.url(&endpoint.container_path(&self.container), ""))?;
        let service = Service::new(client, credential, endpoint, self.container);
        Ok(Store::new(service, names, self.create_container))
    }
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}
