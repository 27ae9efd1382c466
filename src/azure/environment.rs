//! The identity that a program's surroundings give it, where no key and no signature is set: in the order of the
//! Azure libraries.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    cli::Cli,
    connection::Cloud,
    entra::{Application, Proof},
    managed_identity::ManagedIdentity,
    token::{Fetched, NoToken, Source},
};
use crate::{ErrorKind, Result, address::variable};

/// The first identity that the variables describe; else what is looked for when a token is needed first. Does no
/// I/O.
pub(super) fn identity() -> Result<Arc<dyn Source>> {
    let mut passed_over = Vec::new();
    match client_secret() {
        Ok(source) => return Ok(Arc::new(source?)),
        Err(missing) => passed_over.push(format!("client secret: {missing} is not set")),
    }
    match workload_identity() {
        Ok(source) => return Ok(Arc::new(source?)),
        Err(missing) => passed_over.push(format!("workload identity: {missing} is not set")),
    }
    let client_id = variable("AZURE_CLIENT_ID");
    match ManagedIdentity::of_app_service(client_id.as_deref())? {
        Ok(source) => return Ok(Arc::new(source)),
        Err(why) => passed_over.push(format!("managed identity of an app: {why}")),
    }
    let machine = ManagedIdentity::of_machine(client_id.as_deref())?;
    Ok(Arc::new(Search { passed_over, machine, found: OnceLock::new() }))
}

/// The workload identity of the environment; the outer `Err` names the variable that is missing.
pub(super) fn workload_identity() -> Result<Result<Application>, &'static str> {
    let file = needed("AZURE_FEDERATED_TOKEN_FILE")?;
    let (client, tenant) = (needed("AZURE_CLIENT_ID")?, needed("AZURE_TENANT_ID")?);
    Ok(Application::new(&tenant, &client, Proof::Federated(PathBuf::from(file))))
}

fn client_secret() -> Result<Result<Application>, &'static str> {
    let secret = needed("AZURE_CLIENT_SECRET")?;
    let (client, tenant) = (needed("AZURE_CLIENT_ID")?, needed("AZURE_TENANT_ID")?);
    Ok(Application::new(&tenant, &client, Proof::Secret(secret)))
}

fn needed(name: &'static str) -> Result<String, &'static str> {
    variable(name).ok_or(name)
}

/// What can be found only by trying: the machine's identity, then whoever is logged in.
struct Search {
    /// What the variables did not describe, and why.
    passed_over: Vec<String>,
    machine: ManagedIdentity,
    /// Whichever gave a token first stays.
    found: OnceLock<Found>,
}

#[derive(Clone, Copy)]
enum Found {
    Machine,
    Cli,
}

impl Source for Search {
    fn name(&self) -> &'static str {
        match self.found.get() {
            Some(Found::Machine) => self.machine.name(),
            Some(Found::Cli) => Cli.name(),
            None => "the environment",
        }
    }

    fn fetch(&self, cloud: Cloud, limit: Duration) -> Result<Fetched, NoToken> {
        match self.found.get() {
            Some(Found::Machine) => return self.machine.fetch(cloud, limit),
            Some(Found::Cli) => return Cli.fetch(cloud, limit),
            None => {}
        }
        let not_there = match self.machine.answers() {
            Ok(()) => match self.machine.fetch(cloud, limit) {
                Ok(fetched) => {
                    let _ = self.found.set(Found::Machine);
                    return Ok(fetched);
                }
                // It is there, and does not answer now: who else is logged in is no stand-in for it.
                Err(why) if why.kind == ErrorKind::Unavailable => return Err(why),
                Err(why) => why.why,
            },
            Err(why) => why.why,
        };
        let why = match Cli.fetch(cloud, limit) {
            Ok(fetched) => {
                let _ = self.found.set(Found::Cli);
                return Ok(fetched);
            }
            Err(why) => why,
        };
        let mut tried = vec![
            "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN are not set"
                .to_owned(),
        ];
        tried.extend(self.passed_over.iter().cloned());
        tried.push(format!("managed identity of this machine: {not_there}"));
        tried.push(format!("Azure CLI: {}", why.why));
        Err(NoToken { why: format!("no credential fits: {}", tried.join("; ")), ..why })
    }
}
