//! What a copy knows of its working directory and of the leases of the volume.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::error::{Context as _, Error};

/// The state of a copy, `state.json`. Unknown fields are ignored, missing ones have their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// The highest epoch that this copy was told: lower ones write nothing more.
    pub(crate) fence: Epoch,
    /// The epoch under which the working directory was, or may have been, written last.
    pub(crate) written: Option<Epoch>,
    /// Whether `base` has all that was written.
    pub(crate) closed: bool,
    /// The snapshot with which the working directory was equal last.
    pub(crate) base: Option<SnapshotId>,
    /// The working directory is being made equal to another snapshot: it is that of neither.
    pub(crate) replacing: bool,
}

impl Default for State {
    fn default() -> Self {
        Self { format: 1, fence: 0, written: None, closed: false, base: None, replacing: false }
    }
}

impl State {
    /// Reads the state; one that is not there is the default.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("read", path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("read", path),
        }
    }

    /// Writes the state durably.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).context("write", path)?;
        vc_atomic_file::write(path, &bytes, 0o600).context("write", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_another_version_is_read() {
        let text = r#"{"format":1,"fence":7,"written":6,"closed":true,"base":{"epoch":6,"number":3},"replacing":false}"#;
        let state: State = serde_json::from_str(text).expect("a state");
        let expected = State {
            fence: 7,
            written: Some(6),
            closed: true,
            base: Some(SnapshotId { epoch: 6, number: 3 }),
            ..State::default()
        };
        assert_eq!(state, expected);
        assert_eq!(serde_json::to_string(&expected).expect("JSON"), text);
        let other: State = serde_json::from_str(r#"{"fence":2,"later":[1]}"#).expect("a state");
        assert_eq!(other, State { fence: 2, ..State::default() });
    }
}
