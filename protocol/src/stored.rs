//! Values that outlive the version that wrote them: unknown fields are kept and written back.

use std::ops::{Deref, DerefMut};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_ignored::Path;
use serde_json::{Map, Value};

/// A value from a document, with the fields of its JSON that this version does not know. It serializes with them, so a
/// node that changes the value loses nothing that a newer version wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored<T> {
    value: T,
    /// The unknown fields with the objects and arrays that lead to them; `null` if there are none. Array elements that
    /// have none are `null`.
    unknown: Value,
}

impl<T> Stored<T> {
    /// Returns whether the value has fields that this version does not know.
    pub fn has_unknown_fields(&self) -> bool {
        !self.unknown.is_null()
    }

    /// Returns the unknown fields as paths: `container.devices`, `mounts.0.subpath`.
    pub fn unknown_fields(&self) -> Vec<String> {
        let mut paths = Vec::new();
        leaves(&self.unknown, "", &mut paths);
        paths
    }

    /// Returns the value without its unknown fields.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T: Serialize> Stored<T> {
    /// Returns the JSON of one field, with its unknown fields. `Null` if the field is missing.
    pub fn field(&self, name: &str) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value.get_mut(name).map(Value::take).unwrap_or_default()
    }
}

impl<T> From<T> for Stored<T> {
    fn from(value: T) -> Self {
        Self { value, unknown: Value::Null }
    }
}

impl<T> Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Stored<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Serialize> Serialize for Stored<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.unknown.is_null() {
            return self.value.serialize(serializer);
        }
        let mut value = serde_json::to_value(&self.value).map_err(serde::ser::Error::custom)?;
        merge(&mut value, &self.unknown);
        value.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Stored<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let mut unknown = Value::Null;
        let value = serde_ignored::deserialize(&json, |path| copy(&json, &path, &mut unknown));
        Ok(Self { value: value.map_err(D::Error::custom)?, unknown })
    }
}

/// Copies what is at `path` in `from` to the same place in `to`, with the objects and arrays on the way.
fn copy(from: &Value, path: &Path<'_>, to: &mut Value) {
    let mut steps = Vec::new();
    let mut at = path;
    loop {
        at = match at {
            Path::Root => break,
            Path::Seq { parent, index } => {
                steps.push(Step::Element(*index));
                parent
            }
            Path::Map { parent, key } => {
                steps.push(Step::Field(key));
                parent
            }
            Path::Some { parent }
            | Path::NewtypeStruct { parent }
            | Path::NewtypeVariant { parent } => parent,
        };
    }
    let (mut from, mut to) = (from, to);
    for step in steps.iter().rev() {
        // The path does not name the variants of enums, which are objects with one field in JSON.
        if let Step::Field(key) = step
            && let Value::Object(fields) = from
            && !fields.contains_key(*key)
            && let Some((variant, content)) = fields.iter().next()
        {
            from = content;
            to = entry(to, variant);
        }
        let (next_from, next_to) = match step {
            Step::Field(key) => (from.get(*key), entry(to, key)),
            Step::Element(index) => (from.get(index), element(to, *index)),
        };
        let Some(next_from) = next_from else { return };
        (from, to) = (next_from, next_to);
    }
    to.clone_from(from);
}

/// Returns the field of a JSON object; makes one of it if it is not.
fn entry<'a>(of: &'a mut Value, key: &str) -> &'a mut Value {
    if !of.is_object() {
        *of = Value::Object(Map::new());
    }
    &mut of[key]
}

/// Returns the element of a JSON array; makes one of it if it is not.
fn element(of: &mut Value, index: usize) -> &mut Value {
    if !of.is_array() {
        *of = Value::Array(Vec::new());
    }
    if let Value::Array(elements) = of {
        elements.resize(elements.len().max(index + 1), Value::Null);
    }
    &mut of[index]
}

/// A step from a JSON value to one in it.
enum Step<'a> {
    Field(&'a str),
    Element(usize),
}

/// Adds the fields of `unknown` to `value`. Fields that the value has already stay as they are.
fn merge(value: &mut Value, unknown: &Value) {
    match (value, unknown) {
        (Value::Object(value), Value::Object(unknown)) => {
            for (key, unknown) in unknown {
                match value.get_mut(key) {
                    Some(value) => merge(value, unknown),
                    None => drop(value.insert(key.clone(), unknown.clone())),
                }
            }
        }
        (Value::Array(value), Value::Array(unknown)) => {
            for (value, unknown) in value.iter_mut().zip(unknown) {
                merge(value, unknown);
            }
        }
        _ => {}
    }
}

fn leaves(unknown: &Value, at: &str, paths: &mut Vec<String>) {
    let mut enter = |key: &str, value: &Value| {
        let path = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        leaves(value, &path, paths);
    };
    match unknown {
        Value::Null if at.is_empty() => {}
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| enter(key, value));
        }
        Value::Array(elements) if !elements.is_empty() => {
            let known = elements.iter().enumerate().filter(|(_, element)| !element.is_null());
            known.for_each(|(index, value)| enter(&index.to_string(), value));
        }
        _ => paths.push(at.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Outer {
        name: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        items: Vec<Item>,
        inner: Option<Box<Outer>>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Item {
        Plain,
        Sized { bytes: u64 },
    }

    #[test]
    fn unknown_fields_are_kept_and_written_back() {
        let json = json!({
            "name": "a", "color": "red",
            "items": ["plain", {"sized": {"bytes": 1, "unit": {"si": true}}}],
            "inner": {"name": "b", "inner": null, "tags": [1, null]},
        });
        let mut stored: Stored<Outer> = serde_json::from_value(json.clone()).expect("readable");
        assert_eq!(serde_json::to_value(&stored).expect("written"), json);
        let paths = ["color", "inner.tags.0", "items.1.sized.unit.si"];
        assert_eq!(stored.unknown_fields(), paths);
        stored.name = "c".to_owned();
        let written = serde_json::to_value(&stored).expect("written");
        assert_eq!(written["name"], "c");
        assert_eq!(written["items"], json["items"]);
        assert_eq!(stored.field("inner"), json["inner"]);
        assert_eq!(stored.field("none"), Value::Null);
    }

    #[test]
    fn a_value_without_unknown_fields_is_written_as_it_is() {
        let json = json!({"name": "a", "items": [{"sized": {"bytes": 1}}], "inner": null});
        let stored: Stored<Outer> = serde_json::from_value(json.clone()).expect("readable");
        assert!(!stored.has_unknown_fields());
        assert_eq!(stored.unknown_fields(), Vec::<String>::new());
        assert_eq!(serde_json::to_value(&stored).expect("written"), json);
        assert_eq!(stored, Stored::from(stored.clone().into_inner()));
    }

    #[test]
    fn a_value_that_is_not_of_the_type_is_refused() {
        assert!(serde_json::from_str::<Stored<Outer>>(r#"{"name": 1}"#).is_err());
        assert!(
            serde_json::from_str::<Stored<Outer>>(r#"{"name": "a", "items": ["odd"]}"#).is_err()
        );
    }
}
