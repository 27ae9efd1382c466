//! Managed identities: Azure itself gives tokens to what runs in it, without a secret.
//!
//! "How to use managed identities for Azure resources on an Azure VM to acquire an access token", and "How to use
//! managed identities for App Service and Azure Functions" (Container Apps do the same).

use std::time::Duration;

use super::{
    connection::Cloud,
    oauth::{RESOURCE, encoded, understand},
    token::{Fetched, NoToken, Source},
};
use crate::{
    Error, ErrorKind, Result, address,
    http::{Client, Lane, Request, Settings},
};

/// The Instance Metadata Service of a virtual machine; only its own link leads there.
const METADATA: &str = "http://169.254.169.254";
/// What one request to these services may take.
const REQUEST: Duration = Duration::from_secs(10);
/// What is waited for a sign of the metadata service, where there may be none.
const PROBE: Duration = Duration::from_secs(1);

pub(super) struct ManagedIdentity {
    client: Client,
    place: Place,
    url: String,
}

enum Place {
    Machine,
    /// The value of the header `X-IDENTITY-HEADER`.
    AppService(String),
}

impl ManagedIdentity {
    /// The one that the environment names, else that of the machine. `client_id`: of one of several.
    pub(super) fn new(client_id: Option<&str>) -> Result<Self> {
        match Self::of_app_service(client_id)? {
            Ok(identity) => Ok(identity),
            Err(_) if address::variable("IDENTITY_ENDPOINT").is_some() => Err(config(
                "IDENTITY_ENDPOINT is set without IDENTITY_HEADER, as on Azure Arc, whose identities are not \
                 supported"
                    .to_owned(),
            )),
            Err(_) => Self::of_machine(client_id),
        }
    }

    /// That of App Service, Functions or Container Apps; the inner `Err` says which variable is missing.
    pub(super) fn of_app_service(client_id: Option<&str>) -> Result<Result<Self, &'static str>> {
        let Some(endpoint) = address::variable("IDENTITY_ENDPOINT") else {
            return Ok(Err("IDENTITY_ENDPOINT is not set"));
        };
        let Some(header) = address::variable("IDENTITY_HEADER") else {
            return Ok(Err("IDENTITY_HEADER is not set"));
        };
        if !header.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(config("IDENTITY_HEADER holds what no header can".to_owned()));
        }
        Self::at("IDENTITY_ENDPOINT", &endpoint, "2019-08-01", client_id, Place::AppService(header)).map(Ok)
    }

    /// That of a virtual machine, a scale set or a node of a cluster.
    pub(super) fn of_machine(client_id: Option<&str>) -> Result<Self> {
        let variable = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
        let host = address::variable(variable);
        let host = host.as_deref().unwrap_or(METADATA).trim_end_matches('/');
        let endpoint = format!("{host}/metadata/identity/oauth2/token");
        Self::at(variable, &endpoint, "2018-02-01", client_id, Place::Machine)
    }

    fn at(
        variable: &str,
        endpoint: &str,
        version: &str,
        client_id: Option<&str>,
        place: Place,
    ) -> Result<Self> {
        let wrong = |why: &str| config(format!("{variable}: {why}"));
        if endpoint.contains(['?', '#']) {
            return Err(wrong("it has a `?` or `#`"));
        }
        let mut url = format!("{endpoint}?api-version={version}&resource={}", encoded(RESOURCE));
        if let Some(id) = client_id {
            url.extend(["&client_id=", &encoded(id)]);
        }
        let client = Client::new(&Settings { nearby: true, ..Settings::default() })?;
        client.check_url(&url).map_err(|e| wrong(&NoToken::from(e).why))?;
        Ok(Self { client, place, url })
    }

    /// Whether the metadata service is there: it refuses what lacks its header, at once.
    pub(super) fn answers(&self) -> Result<(), NoToken> {
        let url = self.url.split('?').next().unwrap_or_default();
        let request = Request { method: "GET", url, headers: &[], body: &[], lane: Lane::Ordinary };
        match self.client.send(&request, PROBE).map_err(Error::from)?.status {
            400 | 429 | 500..=599 => Ok(()),
            // Other clouds have a service at this address too.
            status => Err(NoToken::new(
                ErrorKind::Config,
                format!("what answers there (status {status}) is not Azure's"),
            )),
        }
    }
}

impl Source for ManagedIdentity {
    fn name(&self) -> &'static str {
        match self.place {
            Place::Machine => "the managed identity of this machine",
            Place::AppService(_) => "the managed identity of this app",
        }
    }

    fn fetch(&self, _: Cloud, limit: Duration) -> Result<Fetched, NoToken> {
        let (header, secret) = match &self.place {
            Place::Machine => (("Metadata", "true"), ""),
            Place::AppService(secret) => (("X-IDENTITY-HEADER", &**secret), &**secret),
        };
        let request =
            Request { method: "GET", url: &self.url, headers: &[header], body: &[], lane: Lane::Ordinary };
        let answer = self.client.send(&request, limit.min(REQUEST)).map_err(Error::from)?;
        understand(&answer, secret).map_err(|why| match answer.status {
            // Both are said while the service is updated.
            404 | 410 => NoToken { kind: ErrorKind::Unavailable, ..why },
            _ => why,
        })
    }
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}
