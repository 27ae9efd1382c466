//! A JSON object of which we know some fields; the others stay to the letter, also numbers that no type of ours holds.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, value::RawValue};

/// Each field's value as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// `None` for what is no JSON object.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(json).ok()?;
        Some(Self(fields.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()))
    }

    /// `None` for what is not there, or nested too deeply to be ours.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(name)?).ok()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    #[cfg(feature = "consul")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into().to_string());
    }

    #[cfg(any(test, feature = "consul"))]
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// The object.
impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}:{value}", Value::from(&**name))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_ours_stays_to_the_letter() {
        let json = r#"{"a\n\"":1e400,"big":123456789012345678901234567890,"half":0.1000000000000000055,
            "many":[ 1, {"x" : null} ],"ours":"old"}"#;
        let mut fields = Fields::parse(json.as_bytes()).unwrap();
        assert_eq!(
            (fields.text("ours").as_deref(), fields.text("many"), fields.get("none")),
            (Some("old"), None, None)
        );
        fields.set("ours", "new \"one\"");
        fields.remove("none");
        let expected = r#"{"a\n\"":1e400,"big":123456789012345678901234567890,"half":0.1000000000000000055,"many":[ 1, {"x" : null} ],"ours":"new \"one\""}"#;
        assert_eq!(fields.to_string(), expected);
        assert_eq!(Fields::parse(expected.as_bytes()), Some(fields));
        assert_eq!(Fields::default().to_string(), "{}");
        for wrong in ["", "x", "[]", "null", "{", "{}x", "{\"a\":}", "{1:2}"] {
            assert_eq!(Fields::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn names_and_texts_come_back(pairs in prop::collection::btree_map(".*", ".*", 0..5)) {
            let mut fields = Fields::default();
            for (name, text) in &pairs {
                fields.set(name, &**text);
            }
            let again = Fields::parse(fields.to_string().as_bytes()).unwrap();
            for (name, text) in pairs {
                prop_assert_eq!(again.text(&name), Some(text));
            }
        }

        #[test]
        fn nothing_makes_it_panic(json in "[{}\\[\\]:,\"a-z0-9.e]*") {
            if let Some(fields) = Fields::parse(json.as_bytes()) {
                prop_assert_eq!(Fields::parse(fields.to_string().as_bytes()), Some(fields));
            }
        }
    }
}
