//! `kubernetes:` addresses.

use super::{Access, Builder, Store, object::config};
use crate::Result;

/// Opens what stands behind `kubernetes:`.
pub(crate) fn open(rest: &str) -> Result<Store> {
    // Before anything is read: what is wrong with the address is wrong everywhere.
    let parts = parse(rest)?;
    let access = Access::from_env()?;
    parts.builder(&access).build()
}

/// What an address names.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    /// `None`: that of the access.
    namespace: Option<&'a str>,
    resource: &'a str,
    name: &'a str,
    create: bool,
}

impl Parts<'_> {
    fn builder(&self, access: &Access) -> Builder {
        let namespace = self.namespace.unwrap_or(access.default_namespace());
        access.object(namespace, self.resource, self.name).create(self.create)
    }
}

fn parse(rest: &str) -> Result<Parts<'_>> {
    let (path, create) = match rest.split_once('?') {
        None => (rest, false),
        Some((path, "create=true")) => (path, true),
        Some(_) => {
            return Err(config(
                "what follows the `?` of a `kubernetes:` address can be `create=true`".to_owned(),
            ));
        }
    };
    let wrong = || {
        config(
            "`kubernetes:` takes `[NAMESPACE/]RESOURCE/NAME`, with `GROUP/VERSION/` before RESOURCE outside the core, \
             such as `kubernetes:default/configmaps/locks`; nothing before the first `/` is no namespace"
                .to_owned(),
        )
    };
    let (front, name) = path.rsplit_once('/').ok_or_else(wrong)?;
    // RESOURCE and GROUP/VERSION/RESOURCE are the access's namespace's.
    let (namespace, resource) = match front.split('/').count() {
        1 | 3 => (None, front),
        2 | 4 => front
            .split_once('/')
            .map(|(namespace, resource)| (Some(namespace), resource))
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(Parts { namespace, resource, name, create })
}

#[cfg(fuzzing)]
pub(crate) fn check(rest: &str) -> Result<()> {
    parse(rest).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn addresses() {
        for (address, namespace, resource, name, create) in [
            ("a/configmaps/x", Some("a"), "configmaps", "x", false),
            ("a/configmaps/x?create=true", Some("a"), "configmaps", "x", true),
            ("configmaps/x", None, "configmaps", "x", false),
            ("/nodes/x", Some(""), "nodes", "x", false),
            ("a/e.org/v1/things/x", Some("a"), "e.org/v1/things", "x", false),
            ("/e.org/v1/things/x", Some(""), "e.org/v1/things", "x", false),
            ("e.org/v1/things/x", None, "e.org/v1/things", "x", false),
        ] {
            assert_eq!(parse(address).unwrap(), Parts { namespace, resource, name, create }, "{address}");
        }
        for wrong in ["", "x", "a/b/c/d/e/f", "a/configmaps/x?create", "a/configmaps/x?token=hunter2"] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn the_namespace_is_that_of_the_access_unless_it_is_named() {
        let access = Access::to("http://127.0.0.1:1").unwrap().namespace("team");
        let place = |address| format!("{:?}", parse(address).unwrap().builder(&access).build().unwrap());
        assert!(place("configmaps/x").contains("/namespaces/team/configmaps/x"));
        assert!(place("a/configmaps/x").contains("/namespaces/a/configmaps/x"));
        assert!(place("/nodes/x").contains("\"/api/v1/nodes/x\""));
        let error = parse("a/secrets/x?create=true").unwrap().builder(&access).build().unwrap_err();
        assert!(error.to_string().contains("only ConfigMaps"), "{error}");
    }
}
