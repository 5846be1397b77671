//! `logging:` of a service. The cluster keeps the logs, and reads them from Docker's `json-file`.

use std::collections::BTreeMap;

use super::environment::pairs;
use super::walk::At;
use vc_protocol::spec::validate::LOG_OPTIONS;

/// Reads `logging` into options of `json-file`: how large the logs may grow.
pub(super) fn read(at: &At<'_>) -> BTreeMap<String, String> {
    let mut fields = at.fields();
    let driver = fields.take("driver").and_then(|at| at.text());
    let options = fields.take("options").map(|at| pairs(&at)).unwrap_or_default();
    fields.finish(&[]);
    if let Some(other) = driver.filter(|driver| !matches!(*driver, "json-file" | "local")) {
        at.warn(format!(
            "has no effect: the cluster keeps the logs, see 'vc logs', and '{other}' gets none"
        ));
        return BTreeMap::new();
    }
    let mut found = BTreeMap::new();
    for (key, value, at) in options {
        match value.filter(|value| !value.is_empty()) {
            _ if !LOG_OPTIONS.contains(&key.as_str()) => {
                at.warn("has no effect: logs are as 'vc logs' shows them")
            }
            Some(value) if !fits(&key, &value) => {
                at.invalid(format!(
                    "'{value}' is not a {key}: write one as in max-size: 10m, max-file: 3"
                ));
            }
            Some(value) => drop(found.insert(key, value)),
            None => {}
        }
    }
    found
}

/// Returns whether Docker takes the value of an option.
fn fits(key: &str, value: &str) -> bool {
    match key {
        "max-file" => value.parse::<u32>().is_ok_and(|count| count > 0),
        _ => vc_protocol::parse_memory(value).is_ok_and(|bytes| bytes > 0),
    }
}
