//! `DIR/upgrade.json`: the upgrade that is under way, or that the guard went back from.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_protocol::control::FailedUpgrade;

const FILE: &str = "upgrade.json";

/// An upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Path of the program.
    pub(super) path: PathBuf,
    /// Version of the new one.
    pub(super) version: String,
    /// Its digest.
    pub(super) digest: String,
    /// Why the node went back from it; `None` while it is under way.
    pub(super) reason: Option<String>,
}

impl Record {
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(FILE))?)?)
    }

    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        vc_atomic_file::write(&dir.join(FILE), &serde_json::to_vec(self)?, 0o600)
    }

    pub(super) fn remove(dir: &Path) {
        // What stays is removed at the next start.
        let _ = std::fs::remove_file(dir.join(FILE));
    }
}

/// Returns the upgrade that the node went back from before this start, and forgets it.
pub(crate) fn take_failed(dir: &Path) -> Option<FailedUpgrade> {
    let Record { version, digest, reason, .. } = Record::load(dir).ok()?;
    Record::remove(dir);
    Some(FailedUpgrade { version, digest, reason: reason? })
}

/// Returns the line for people about an upgrade that a node went back from.
pub(crate) fn describe(failed: &FailedUpgrade) -> String {
    let FailedUpgrade { version, digest, reason } = failed;
    format!(
        "the upgrade to vc-node {version} ({digest}) failed and was taken back: {reason}; see the log of the node"
    )
}
