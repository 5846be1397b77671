//! Rows of `vc ps`, and problems of `vc status`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A row of `vc ps`.
pub trait InstanceExt {
    /// Returns the slot, `project/service.replica`.
    fn slot(&self) -> String;
    /// Returns the name of its node; empty: not placed.
    fn node(&self) -> String;
    /// Returns whether its state is `running` or `healthy`.
    fn is_running(&self) -> bool;
}

impl InstanceExt for Value {
    fn slot(&self) -> String {
        format!("{}.{}", self["service"].as_str().unwrap_or_default(), self["replica"])
    }

    fn node(&self) -> String {
        self["node_name"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns whether its state is `running` or `healthy`.
    fn is_running(&self) -> bool {
        matches!(self["state"].as_str(), Some("running" | "healthy"))
    }
}

/// Returns how many instances of a service run on each node. Errors: the rows, unless there are exactly `count`, all
/// running in the current version.
pub fn running(
    rows: &[Value],
    service: &str,
    count: usize,
) -> Result<BTreeMap<String, usize>, String> {
    let rows: Vec<&Value> = rows.iter().filter(|row| row["service"] == service).collect();
    let summary = || {
        let rows =
            rows.iter().map(|row| format!("{} on {}: {}", row.slot(), row.node(), row["state"]));
        rows.collect::<Vec<_>>().join(", ")
    };
    let complete =
        rows.len() == count && rows.iter().all(|row| row.is_running() && row["current"] == true);
    if !complete {
        return Err(summary());
    }
    let mut nodes = BTreeMap::new();
    for row in &rows {
        *nodes.entry(row.node()).or_default() += 1;
    }
    Ok(nodes)
}

/// Returns the problems that a report of `vc status` lists. Left out is that a disk is almost full: nodes of tests use the
/// disk of the machine that runs the tests, which may be.
pub fn problems(status: &Value) -> Vec<String> {
    let texts = status["problems"].as_array().expect("problems").iter();
    let ids = status["problem_ids"].as_array().expect("their ids").iter();
    assert_eq!(texts.len(), ids.len(), "{status}");
    let other = texts.zip(ids).filter(|(_, id)| id["kind"] != "disk");
    other.map(|(text, _)| text.as_str().expect("text").to_owned()).collect()
}
