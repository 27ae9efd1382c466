//! Tokens of Microsoft Entra for a registered application: by its secret, or by a token that somebody it trusts
//! wrote into a file.
//!
//! "Microsoft identity platform and the OAuth 2.0 client credentials flow", first and third case.

use std::{fs::File, io::Read, path::PathBuf, time::Duration};

use super::{
    connection::{Cloud, Endpoint},
    oauth::{Form, SCOPE, understand},
    token::{Fetched, NoToken, Source},
};
use crate::{
    Error, ErrorKind, Result, address,
    http::{Client, Lane, Request, Settings},
};

/// How much of a federated token's file is read.
const LONGEST_ASSERTION: u64 = 64 * 1024;

/// An application of a tenant.
pub(super) struct Application {
    client: Client,
    /// `AZURE_AUTHORITY_HOST`; otherwise the cloud's.
    authority: Option<String>,
    tenant: String,
    id: String,
    proof: Proof,
}

/// How an application shows who it is.
pub(super) enum Proof {
    Secret(String),
    /// The file of a federated token, read again each time: it is replaced every now and then.
    Federated(PathBuf),
}

impl Application {
    pub(super) fn new(tenant: &str, id: &str, proof: Proof) -> Result<Self> {
        let plain = |text: &str, more: &[u8]| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
            !text.is_empty() && text.bytes().all(plain)
        };
        if !plain(tenant, b"-.") {
            return Err(config("the tenant is an id such as 72f988bf-.. or a domain, and this is neither"));
        }
        if !plain(id, b"-") {
            return Err(config("the client id is the application's id such as d4c9e3f2-.., and this is not"));
        }
        if matches!(&proof, Proof::Secret(secret) if secret.is_empty()) {
            return Err(config("the client secret is empty"));
        }
        let client = Client::new(&Settings::default())?;
        let authority = authority()?;
        Ok(Self { client, authority, tenant: tenant.to_owned(), id: id.to_owned(), proof })
    }

    fn url(&self, cloud: Cloud) -> String {
        let authority = self.authority.as_deref().unwrap_or(cloud.authority());
        format!("{authority}/{}/oauth2/v2.0/token", self.tenant)
    }

    fn assertion(file: &PathBuf) -> Result<String, NoToken> {
        let mut text = String::new();
        let read = File::open(file).and_then(|f| f.take(LONGEST_ASSERTION).read_to_string(&mut text));
        match read {
            // Just being replaced.
            Ok(_) if text.trim().is_empty() => {
                Err(NoToken::for_now(format!("the file {} is empty", file.display())))
            }
            Ok(_) => Ok(text.trim().to_owned()),
            Err(e) => Err(NoToken::new(ErrorKind::Config, format!("the file {}: {e}", file.display()))),
        }
    }
}

impl Source for Application {
    fn name(&self) -> &'static str {
        match self.proof {
            Proof::Secret(_) => "the client secret",
            Proof::Federated(_) => "the workload identity",
        }
    }

    fn fetch(&self, cloud: Cloud, limit: Duration) -> Result<Fetched, NoToken> {
        let url = self.url(cloud);
        let mut form = Form::default();
        form.add("grant_type", "client_credentials");
        form.add("client_id", &self.id);
        form.add("scope", SCOPE);
        let secret = match &self.proof {
            Proof::Secret(secret) => {
                form.add("client_secret", secret);
                secret
            }
            Proof::Federated(file) => {
                let assertion = Self::assertion(file)?;
                form.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                form.add("client_assertion", &assertion);
                &assertion.clone()
            }
        };
        let request = Request {
            method: "POST",
            url: &url,
            headers: &[("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")],
            body: form.bytes(),
            lane: Lane::Ordinary,
        };
        let answer = self.client.send(&request, limit).map_err(Error::from)?;
        understand(&answer, secret)
    }
}

/// `AZURE_AUTHORITY_HOST`, which the Azure tools take with a scheme or without.
fn authority() -> Result<Option<String>> {
    let Some(text) = address::variable("AZURE_AUTHORITY_HOST") else { return Ok(None) };
    let text = if text.contains("://") { text } else { format!("https://{text}") };
    let wrong = |why: String| config(format!("AZURE_AUTHORITY_HOST: {why}"));
    let url = Endpoint::parse(&text).map_err(|e| wrong(NoToken::from(e).why))?;
    if url.is_open() {
        return Err(wrong("secrets go there, so it has to start with `https://`".to_owned()));
    }
    Ok(Some(url.to_string()))
}

fn config(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what.into())
}

#[cfg(test)]
#[path = "entra_tests.rs"]
mod tests;
