//! What requests are authorized with.

use super::{
    connection::{Cloud, Sas},
    shared_key::Key,
    tokens::Tokens,
};
use crate::backend::Clock;

#[derive(Clone, Debug)]
pub(super) enum Credential {
    Key { account: String, key: Key },
    Sas(Sas),
    Bearer(Tokens),
}

impl Credential {
    /// The same for an endpoint in this cloud, by this clock. Tokens of another one are left behind.
    pub(super) fn with(&self, cloud: Cloud, clock: &Clock) -> Self {
        match self {
            Self::Bearer(tokens) => Self::Bearer(tokens.with(cloud, clock.clone())),
            other => other.clone(),
        }
    }

    /// What to look at when the service does not accept it.
    pub(super) fn doubt(&self) -> String {
        match self {
            Self::Key { account, .. } => {
                format!("the key was not accepted: is it one of the account {account:?}?")
            }
            Self::Sas(_) => {
                "the shared access signature was not accepted: has it ended, was its key changed?".to_owned()
            }
            Self::Bearer(tokens) => format!(
                "the token of {} was not accepted: is it of this account's tenant, for Azure Storage?",
                tokens.source()
            ),
        }
    }

    /// What may be missing when the service accepts it and refuses a request that takes this permission.
    pub(super) fn right(&self, permission: &str) -> String {
        match self {
            Self::Key { .. } => "the account's network rules or policies are in the way".to_owned(),
            Self::Sas(_) => format!("the signature lacks a right: it has to allow {permission}"),
            Self::Bearer(_) => {
                "the identity lacks a right: it needs the role Storage Blob Data Contributor on the \
                                container; a new assignment takes some minutes"
                    .to_owned()
            }
        }
    }
}
