//! String maps: environment, env files and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::env_file::{self, EnvFileError};
use super::files::expand_home;
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

/// Reads the variables of `env_file` and `environment`. A file may use those of the process, of `environment` and of the files
/// before it, in this order.
pub(super) fn read(files: Option<At<'_>>, values: Option<At<'_>>) -> BTreeMap<String, String> {
    let (mut own, mut unset) = (BTreeMap::new(), BTreeSet::new());
    // Of a variable that is written twice the later one counts.
    for (key, value, at) in values.map(|at| pairs(&at)).unwrap_or_default() {
        match value.or_else(|| at.walk.context.env.get(&key).cloned()) {
            Some(value) => {
                unset.remove(&key);
                own.insert(key, value);
            }
            None => {
                own.remove(&key);
                unset.insert(key);
            }
        }
    }
    let mut environment = BTreeMap::new();
    for item in files.map(|at| at.one_or_many()).unwrap_or_default() {
        let found = {
            let of_process = &item.walk.context.env;
            let lookup = |name: &str| {
                let found = of_process.get(name).or_else(|| own.get(name));
                found.or_else(|| environment.get(name)).cloned()
            };
            from_file(&item, &lookup)
        };
        environment.extend(found);
    }
    environment.extend(own);
    unset.iter().for_each(|key| drop(environment.remove(key)));
    environment
}

/// Reads the variables of an env file: a path, or `{path, required, format}`.
fn from_file(at: &At<'_>, lookup: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let (mut required, mut is_raw) = (true, false);
    let path = if let Node::Map(_) = at.node {
        let mut fields = at.fields();
        let path = fields.take("path");
        required = fields.take("required").and_then(|at| at.bool()).unwrap_or(true);
        if let Some(at) = fields.take("format") {
            match at.text() {
                Some("raw") => is_raw = true,
                Some(other) => {
                    at.invalid(format!("'{other}' is not known: write raw, or leave it out"))
                }
                None => {}
            }
        }
        fields.finish(&[]);
        if path.is_none() {
            at.refuse("has no path");
        }
        path.and_then(|at| at.text())
    } else {
        at.text()
    };
    let Some(path) = path else { return BTreeMap::new() };
    let Some(content) = content(at, path, required) else { return BTreeMap::new() };
    let read = match is_raw {
        true => env_file::read_raw(&content).map(|found| (found, BTreeSet::new())),
        false => env_file::read_with(&content, lookup),
    };
    said(at, path, read)
}

/// Reads a file; `None`: it is refused, or is not there and need not be.
fn content(at: &At<'_>, path: &str, required: bool) -> Option<Vec<u8>> {
    let Some(whole) = expand_home(path, at.walk) else {
        at.invalid(format!("cannot find '{path}': the variable HOME is not set"));
        return None;
    };
    match (at.walk.context.read)(&whole) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => None,
        Err(error) => {
            at.invalid(format!("cannot read '{path}': {error}"));
            None
        }
    }
}

/// Returns what was read of a file, and says what is wrong in it.
fn said(
    at: &At<'_>,
    path: &str,
    read: Result<(BTreeMap<String, String>, BTreeSet<String>), EnvFileError>,
) -> BTreeMap<String, String> {
    match read {
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

/// Reads `label_file` and `labels`, which take precedence. Refuses names that the cluster uses itself.
pub(super) fn all_labels(
    files: Option<At<'_>>,
    values: Option<At<'_>>,
) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for item in files.map(|at| at.one_or_many()).unwrap_or_default() {
        let Some(path) = item.text() else { continue };
        let Some(content) = content(&item, path, true) else { continue };
        let read = {
            let lookup = |name: &str| found.get(name).cloned();
            env_file::read_with(&content, &lookup)
        };
        found.extend(said(&item, path, read));
        if found.keys().any(|key| key.starts_with(RESERVED)) {
            item.refuse(format!(
                "names a label that begins with {RESERVED}, which are the cluster's"
            ));
        }
    }
    found.extend(values.map(|at| labels(&at)).unwrap_or_default());
    found
}

/// Labels of the cluster begin with it.
const RESERVED: &str = "vc.";

/// Reads `labels`. Refuses names that the cluster uses itself.
pub(super) fn labels(at: &At<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, at) in pairs(at) {
        if key.starts_with(RESERVED) {
            at.refuse("is reserved: labels that begin with vc. are the cluster's");
        }
        labels.insert(key, value.unwrap_or_default());
    }
    labels
}
