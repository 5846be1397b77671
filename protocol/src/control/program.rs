//! Builds of vc-node: what a node runs, and what it is to run.

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The largest program that a node accepts, in bytes.
pub const MAX_PROGRAM: u64 = 1 << 30;

/// Precedes the version in every build of vc-node, so that it can be read without running it, as `what(1)` does. A line feed ends the
/// version.
pub const PROGRAM_MARKER: &str = "@(#)vc-node ";

/// Identifies a build of vc-node by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramId {
    /// SHA-256 of the file, as `sha256:` and hexadecimal digits.
    pub digest: String,
    /// Size of the file in bytes.
    pub size: u64,
}

/// The program of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRow {
    /// Peer id of the node.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// Version of the program that runs.
    pub version: String,
    /// Its digest, as in [`ProgramId`].
    pub digest: String,
    /// Its path on the host.
    pub path: String,
    /// The Debian package that the path belongs to; empty without one.
    pub package: String,
    /// The program before it, which the node can go back to; `None` without one.
    pub previous: Option<ProgramId>,
    /// Why the node takes no other program; empty if it does.
    pub refuses: String,
    /// The upgrade that the node went back from when it started; `None` also while another one is under way.
    pub failed: Option<FailedUpgrade>,
}

/// An upgrade that a node went back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUpgrade {
    /// Version of the program that did not become ready.
    pub version: String,
    /// Its digest, as in [`ProgramId`].
    pub digest: String,
    /// Why the node went back, in one line.
    pub reason: String,
}

/// A step of an upgrade, as `vc upgrade` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeRow {
    /// What has happened.
    pub step: UpgradeStep,
    /// Peer id of the node.
    pub node: NodeId,
    /// Display name of the node.
    pub node_name: String,
    /// Version of the program that it ran before; empty if it is not known.
    pub from: String,
    /// Version of the program that it is to run; empty if it is not known yet.
    pub to: String,
    /// Digest of that program, as in [`ProgramId`].
    pub digest: String,
    /// Why the node is left out, or what went wrong, in one line; else empty.
    pub reason: String,
}

/// A step of an upgrade of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStep {
    /// It is to be upgraded. Such rows come first, in the order of the upgrade.
    Planned,
    /// It is left out.
    Skipped,
    /// It has the program and restarts.
    Restarting,
    /// It runs the program, and nothing is wrong that was not wrong before.
    Upgraded,
    /// It does not, or something is: the upgrade stops.
    Failed,
}
