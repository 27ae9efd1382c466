//! Objects: where they are, what is read of them, and the patches that change two of their annotations.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use super::record::{Keys, Slot};
use crate::{Error, ErrorKind, Result};

/// Where an object is: "API Concepts", resource URIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `GROUP/VERSION`; `None`: the core's `v1`.
    group: Option<String>,
    /// `None`: of the cluster.
    pub(super) namespace: Option<String>,
    pub(super) resource: String,
    pub(super) name: String,
}

impl Place {
    /// `resource` is `configmaps`, or `GROUP/VERSION/RESOURCE` outside the core; no namespace is an empty one.
    ///
    /// # Errors
    /// `Config`, with the part that no object can have.
    pub(super) fn new(namespace: &str, resource: &str, name: &str) -> Result<Self> {
        let (group, plural) = match resource.rsplit_once('/') {
            None => (None, resource),
            Some((group, plural)) => (Some(group.to_owned()), plural),
        };
        let plain = |part: &str| {
            let bytes = || part.bytes();
            !part.is_empty()
                && bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
                && part != ".."
        };
        if !(namespace.is_empty() || plain(namespace)) {
            return Err(config(format!("no namespace can be called {namespace:?}")));
        }
        let parts = group.iter().flat_map(|group| group.split('/'));
        if !plain(plural) || !parts.clone().all(plain) || !matches!(parts.count(), 0 | 2) {
            let what =
                format!("{resource:?} is no resource: write `configmaps`, or `GROUP/VERSION/RESOURCE`");
            return Err(config(what));
        }
        if !plain(name) {
            return Err(config(format!("no object can be called {name:?}")));
        }
        let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        Ok(Self { group, namespace, resource: plural.to_owned(), name: name.to_owned() })
    }

    /// The path of all objects of this kind.
    pub(super) fn collection(&self) -> String {
        let mut path = match &self.group {
            None => "/api/v1".to_owned(),
            Some(group) => format!("/apis/{group}"),
        };
        if let Some(namespace) = &self.namespace {
            path.extend(["/namespaces/", namespace]);
        }
        path + "/" + &self.resource
    }

    pub(super) fn path(&self) -> String {
        self.collection() + "/" + &self.name
    }

    /// The path that watches it for a second. From any version: a version that is long unchanged would be answered
    /// by an error at once, and the first event is the object as it is.
    pub(super) fn watched(&self) -> String {
        format!(
            "{}?watch=1&fieldSelector=metadata.name%3D{}&resourceVersion=0&timeoutSeconds=1",
            self.collection(),
            self.name
        )
    }

    pub(super) fn is_config_map(&self) -> bool {
        self.group.is_none() && self.resource == "configmaps" && self.namespace.is_some()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.resource, self.name)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace:?}"),
            None => Ok(()),
        }
    }
}

/// An object, as far as locks are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) uid: String,
    /// It grows with each write of any object of its kind.
    pub(super) version: u64,
    /// `None`: it has none, which is another thing to a patch.
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Object {
    /// From the answer of an API server: nobody else's has a `uid` and a `resourceVersion`.
    pub(super) fn of(answer: &Value, name: &str) -> Option<Self> {
        let metadata = answer.get("metadata")?;
        if metadata.get("name")?.as_str()? != name {
            return None;
        }
        let annotations = match metadata.get("annotations") {
            None | Some(Value::Null) => None,
            Some(map) => {
                let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
                Some(map.as_object()?.iter().map(text).collect::<Option<_>>()?)
            }
        };
        Some(Self {
            uid: metadata.get("uid")?.as_str().filter(|uid| !uid.is_empty())?.to_owned(),
            version: metadata.get("resourceVersion")?.as_str()?.parse().ok()?,
            annotations,
        })
    }

    pub(super) fn slot(&self, keys: &Keys) -> Slot {
        let value = |key: &str| self.annotations.as_ref()?.get(key).cloned();
        Slot { record: value(&keys.record), note: value(&keys.note) }
    }
}

/// The JSON Patch (RFC 6902) that makes one slot another, if the lock's annotations are still what they were: other
/// locks of the object, and whoever else writes it, make no conflict. Or, for an object whose annotations come and
/// go, if nothing at all was written meanwhile.
pub(super) fn patch(object: &Object, keys: &Keys, from: &Slot, to: &Slot, strictly: bool) -> String {
    let mut operations = vec![json!({ "op": "test", "path": "/metadata/uid", "value": object.uid })];
    if strictly {
        let version = object.version.to_string();
        operations.push(json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version }));
    }
    let changes = [(&keys.record, &from.record, &to.record), (&keys.note, &from.note, &to.note)];
    if object.annotations.is_some() {
        for (key, from, to) in changes {
            let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
            operations.push(json!({ "op": "test", "path": path, "value": from }));
            match (from, to) {
                (_, Some(to)) => operations.push(json!({ "op": "add", "path": path, "value": to })),
                (Some(_), None) => operations.push(json!({ "op": "remove", "path": path })),
                (None, None) => {}
            }
        }
    } else {
        let path = "/metadata/annotations";
        if !strictly {
            operations.push(json!({ "op": "test", "path": path, "value": null }));
        }
        let added = changes.iter().filter_map(|(key, _, to)| Some(((*key).clone(), to.as_deref()?)));
        operations.push(json!({ "op": "add", "path": path, "value": added.collect::<BTreeMap<_, _>>() }));
    }
    Value::Array(operations).to_string()
}

/// A ConfigMap with the annotations of a lock that is taken with it. One more says what it is, and stays: an object
/// whose annotations come and go is more often another one than was known.
pub(super) fn config_map(place: &Place, keys: &Keys, slot: &Slot) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": place.name,
            "annotations": {
                keys.record.as_str(): slot.record,
                keys.note.as_str(): slot.note,
                "leasehold/about": "The annotations of this object are locks: https://docs.rs/leasehold",
            },
        },
    })
    .to_string()
}

pub(super) fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_paths() {
        let path = |namespace, resource, name| Place::new(namespace, resource, name).unwrap().path();
        assert_eq!(path("a", "configmaps", "x"), "/api/v1/namespaces/a/configmaps/x");
        assert_eq!(path("", "nodes", "x.y"), "/api/v1/nodes/x.y");
        assert_eq!(path("a", "apps/v1/deployments", "x"), "/apis/apps/v1/namespaces/a/deployments/x");
        assert_eq!(path("", "e.org/v1/things", "x:y"), "/apis/e.org/v1/things/x:y");
        for (namespace, resource, name) in [
            ("a/b", "configmaps", "x"),
            ("a", "", "x"),
            ("a", "v1/configmaps", "x"),
            ("a", "a/b/c/d", "x"),
            ("a", "configmaps", ""),
            ("a", "configmaps", ".."),
            ("a", "configmaps", "x?y"),
            ("..", "configmaps", "x"),
        ] {
            let error = Place::new(namespace, resource, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{namespace} {resource} {name}");
        }
    }

    #[test]
    fn what_is_no_object() {
        let whole = json!({ "metadata": { "name": "x", "uid": "u", "resourceVersion": "7" } });
        let object = Object::of(&whole, "x").unwrap();
        assert_eq!((object.version, object.annotations), (7, None));
        assert_eq!(Object::of(&whole, "y"), None);
        for (field, value) in [
            ("uid", json!("")),
            ("resourceVersion", json!("x")),
            ("uid", json!(null)),
            ("annotations", json!({"a": 1})),
        ] {
            let mut other = whole.clone();
            other["metadata"][field] = value;
            assert_eq!(Object::of(&other, "x"), None, "{other}");
        }
        for other in [json!(null), json!({}), json!({"kind": "Status", "metadata": {}})] {
            assert_eq!(Object::of(&other, "x"), None);
        }
    }

    #[test]
    fn patches_test_what_they_change() {
        let keys = Keys { record: "r/x".into(), note: "n/x".into() };
        let mut object = Object { uid: "u".into(), version: 7, annotations: None };
        let none = Slot::default();
        let held = Slot { record: Some("R".into()), note: Some("N".into()) };
        let patch = |object: &Object, from, to, strictly| -> Value {
            serde_json::from_str(&patch(object, &keys, from, to, strictly)).unwrap()
        };
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": "u"});
        let all = json!({"op": "add", "path": "/metadata/annotations", "value": {"r/x": "R", "n/x": "N"}});
        assert_eq!(
            patch(&object, &none, &held, false),
            json!([uid, {"op": "test", "path": "/metadata/annotations", "value": null}, all])
        );
        assert_eq!(
            patch(&object, &none, &held, true),
            json!([uid, {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}, all])
        );
        object.annotations = Some(BTreeMap::new());
        assert_eq!(
            patch(&object, &held, &none, false),
            json!([
                uid,
                {"op": "test", "path": "/metadata/annotations/r~1x", "value": "R"},
                {"op": "remove", "path": "/metadata/annotations/r~1x"},
                {"op": "test", "path": "/metadata/annotations/n~1x", "value": "N"},
                {"op": "remove", "path": "/metadata/annotations/n~1x"},
            ])
        );
        assert_eq!(
            patch(&object, &none, &held, false),
            json!([
                uid,
                {"op": "test", "path": "/metadata/annotations/r~1x", "value": null},
                {"op": "add", "path": "/metadata/annotations/r~1x", "value": "R"},
                {"op": "test", "path": "/metadata/annotations/n~1x", "value": null},
                {"op": "add", "path": "/metadata/annotations/n~1x", "value": "N"},
            ])
        );
    }
}
