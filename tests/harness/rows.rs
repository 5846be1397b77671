//! The rows of `vc ps`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A row of `vc ps`.
pub trait InstanceExt {
    /// `project/service.replica`.
    fn slot(&self) -> String;
    /// The name of its node; empty: none.
    fn node(&self) -> String;
    fn is_running(&self) -> bool;
}

impl InstanceExt for Value {
    fn slot(&self) -> String {
        format!("{}.{}", self["service"].as_str().unwrap_or_default(), self["replica"])
    }

    fn node(&self) -> String {
        self["node_name"].as_str().unwrap_or_default().to_owned()
    }

    fn is_running(&self) -> bool {
        matches!(self["state"].as_str(), Some("running" | "healthy"))
    }
}

/// How many run on which node, provided that exactly `count` rows of the service are there and all run.
pub fn running(
    rows: &[Value],
    service: &str,
    count: usize,
) -> Result<BTreeMap<String, usize>, String> {
    let rows: Vec<&Value> = rows.iter().filter(|row| row["service"] == service).collect();
    let told = || {
        let rows =
            rows.iter().map(|row| format!("{} on {}: {}", row.slot(), row.node(), row["state"]));
        rows.collect::<Vec<_>>().join(", ")
    };
    let whole =
        rows.len() == count && rows.iter().all(|row| row.is_running() && row["current"] == true);
    if !whole {
        return Err(told());
    }
    let mut nodes = BTreeMap::new();
    for row in &rows {
        *nodes.entry(row.node()).or_default() += 1;
    }
    Ok(nodes)
}
