//! String maps: environment, env files and labels.

use std::collections::BTreeMap;
use std::io;

use super::env_file;
use super::walk::At;
use super::yaml::Node;
use vc_protocol::spec::validate::is_key;

/// Reads the `key: value` or `- key=value` entries at `at`; the value is `None` where only the key is given.
pub(super) fn pairs<'a>(at: &At<'a>) -> Vec<(String, Option<String>, At<'a>)> {
    let mut pairs = Vec::new();
    if let Node::List(_) = at.node {
        for item in at.items() {
            let Some(text) = item.text() else { continue };
            let (key, value) = text
                .split_once('=')
                .map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
            pairs.push((key.to_owned(), value, item));
        }
    } else {
        for (key, value) in at.entries() {
            match value.node {
                Node::Text(text) => pairs.push((key.to_owned(), Some(text.clone()), value)),
                Node::Null => pairs.push((key.to_owned(), None, value)),
                _ => value.refuse("must be a text"),
            }
        }
    }
    pairs.retain(|(key, _, at)| {
        let fits = is_key(key);
        if !fits && key.contains(char::is_control) {
            at.refuse("has control characters in its key: remove them");
        } else if !fits {
            at.refuse("has no key: write KEY=value");
        }
        fits
    });
    pairs
}

/// Reads the variables of `env_file` and `environment`.
pub(super) fn read(files: Option<At<'_>>, values: Option<At<'_>>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if let Some(at) = files {
        at.one_or_many().iter().for_each(|item| environment.extend(from_file(item)));
    }
    for (key, value, at) in values.map(|at| pairs(&at)).unwrap_or_default() {
        match value.or_else(|| at.walk.context.env.get(&key).cloned()) {
            Some(value) => drop(environment.insert(key, value)),
            None => drop(environment.remove(&key)),
        }
    }
    environment
}

/// Reads the variables of an env file: a path, or `{path, required}`.
fn from_file(at: &At<'_>) -> BTreeMap<String, String> {
    let (path, required) = if let Node::Map(_) = at.node {
        let mut fields = at.fields();
        let path = fields.take("path");
        let required = fields.take("required").and_then(|at| at.bool());
        fields.finish(&[]);
        if path.is_none() {
            at.refuse("has no path");
        }
        (path.and_then(|at| at.text()), required.unwrap_or(true))
    } else {
        (at.text(), true)
    };
    let Some(path) = path else { return BTreeMap::new() };
    let text = match (at.walk.context.read)(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
            return BTreeMap::new();
        }
        Err(error) => {
            at.invalid(format!("cannot read '{path}': {error}"));
            return BTreeMap::new();
        }
    };
    match env_file::read(&text, at.walk.context.env) {
        Ok((found, unset)) => {
            at.walk.unset.borrow_mut().extend(unset);
            found
        }
        Err(why) => {
            at.invalid(format!("'{path}' {why}"));
            BTreeMap::new()
        }
    }
}

/// Reads `labels`. Refuses names that the cluster uses itself.
pub(super) fn labels(at: &At<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, at) in pairs(at) {
        if key.starts_with("vc.") {
            at.refuse("is reserved: labels that begin with vc. are the cluster's");
        }
        labels.insert(key, value.unwrap_or_default());
    }
    labels
}
