//! Checks the log of a node for unexpected errors, panics and secrets.

use std::path::Path;

use serde_json::Value;

use super::Node;

/// Returns the violations in the log of a node: secrets, panics, lines that are not JSON, and ERROR lines that contain none
/// of `expected_errors`. `dir`: the node's data directory, which holds the secrets to search for.
pub fn violations(name: &str, log: &str, dir: &Path, expected_errors: &[String]) -> Vec<String> {
    let secrets = secrets(dir);
    let mut all = Vec::new();
    for line in log.lines() {
        if has_token(line) || secrets.iter().any(|secret| line.contains(secret)) {
            all.push(format!("{name} logged a token or a key (not repeated here)"));
            continue;
        }
        let level = match serde_json::from_str::<Value>(line) {
            Ok(entry) => entry["level"].as_str().unwrap_or_default().to_owned(),
            // A panic, or a dependency that writes to stderr by itself.
            Err(_) => "not JSON".to_owned(),
        };
        let fine = matches!(level.as_str(), "TRACE" | "DEBUG" | "INFO" | "WARN");
        if line.contains("panicked")
            || !fine && !expected_errors.iter().any(|words| line.contains(words))
        {
            all.push(format!("{name}: {level}: {line}"));
        }
    }
    all
}

/// Returns whether a text contains a JSON Web Token. `eyJ` alone is too short: it may occur in a peer id.
pub fn has_token(text: &str) -> bool {
    // Base64 of {"typ" and {"alg", and a payload after a header.
    ["eyJ0eXAi", "eyJhbGci", ".eyJ"].iter().any(|begin| text.contains(begin))
}

/// Returns the keys and tokens in a data directory.
fn secrets(dir: &Path) -> Vec<String> {
    let read = |name| std::fs::read_to_string(dir.join(name)).ok();
    let keys = ["node.key", "cluster.key", "files.key", "admin.token"].into_iter().filter_map(read);
    keys.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect()
}

/// Returns the log entries of a node whose message contains `message`.
pub fn entries(node: &Node, message: &str) -> Vec<Value> {
    let log = node.log();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["message"].as_str().is_some_and(|text| text.contains(message)))
        .collect()
}
