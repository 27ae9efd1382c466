//! How a store is built.

use super::{
    access::Access,
    object::{Place, config},
    store::Store,
};
use crate::Result;

/// A store to be built.
#[derive(Clone, Debug)]
#[must_use = "is no store until `build`"]
pub struct Builder {
    access: Access,
    namespace: String,
    resource: String,
    name: String,
    create: bool,
}

impl Builder {
    pub(super) fn new(access: Access, namespace: &str, resource: &str, name: &str) -> Self {
        let [namespace, resource, name] = [namespace, resource, name].map(str::to_owned);
        Self { access, namespace, resource, name, create: false }
    }

    /// Whether the object may be made when it is missing, which a `ConfigMap` can be. Default: no.
    pub fn create(mut self, allowed: bool) -> Self {
        self.create = allowed;
        self
    }

    /// Checks it all. No request is sent.
    ///
    /// # Errors
    /// `Config`, with what is wrong: a name that no object can have, an object that cannot be made, `http:` to another
    /// machine, an `https:` server in a program without a TLS feature.
    pub fn build(self) -> Result<Store> {
        let place = Place::new(&self.namespace, &self.resource, &self.name)?;
        if self.create && !place.is_config_map() {
            return Err(config(format!("{place} cannot be made for you: only ConfigMaps are")));
        }
        self.access.store(place, self.create)
    }
}
