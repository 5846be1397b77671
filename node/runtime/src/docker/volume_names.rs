//! Docker's names of the named volumes: by rule, or, of volumes that were taken over from a former node, by a file in the data
//! directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use vc_protocol::VolumeKey;

use crate::identity::Identity;

/// Name of the file.
const FILE: &str = "volumes.json";

/// The names cannot be saved.
#[derive(Debug, thiserror::Error)]
#[error("cannot save the names of volumes in {path}: {source}")]
pub struct VolumeNamesError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Names {
    /// Docker's names of the volumes that this node has taken over.
    adopted: BTreeMap<VolumeKey, String>,
    /// Docker's names of volumes of former nodes that an operator has left where they are.
    left: Vec<String>,
}

/// The names of this node's volumes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct VolumeNames {
    path: PathBuf,
    names: Arc<RwLock<Names>>,
}

impl VolumeNames {
    /// Reads the names that are saved in a data directory. A file that cannot be read counts as empty, with an error in the log.
    pub(super) fn load(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let read = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Names::default()),
            Err(error) => Err(error),
        };
        let names = read.unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error, "cannot read the names of volumes");
            Names::default()
        });
        Self { path, names: Arc::new(RwLock::new(names)) }
    }

    /// Returns Docker's name of a named volume. A dot cannot occur in the name of a project or volume, so no two share one.
    pub(super) fn of(&self, identity: &Identity, key: &VolumeKey) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let VolumeKey { project, volume } = key;
        let own = || format!("vc-{project}.{volume}-{}", identity.node.short());
        names.adopted.get(key).cloned().unwrap_or_else(own)
    }

    /// Returns whether a volume was taken over.
    pub(super) fn is_adopted(&self, key: &VolumeKey) -> bool {
        self.names.read().unwrap_or_else(PoisonError::into_inner).adopted.contains_key(key)
    }

    /// Returns whether an operator has decided about a volume of a former node.
    pub(super) fn is_decided(&self, name: &str) -> bool {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.adopted.values().chain(&names.left).any(|it| it == name)
    }

    /// Forgets a volume that was taken over: its data is gone.
    pub(super) fn removed(&self, key: &VolumeKey) -> Result<(), VolumeNamesError> {
        self.change(|names| names.adopted.remove(key).is_some())
    }

    /// Saves which volumes of a former node are taken over, as which; the others are left where they are.
    pub(super) fn decide(
        &self,
        volumes: BTreeMap<String, Option<VolumeKey>>,
    ) -> Result<(), VolumeNamesError> {
        self.change(|names| {
            for (name, key) in volumes {
                match key {
                    Some(key) => {
                        names.left.retain(|it| *it != name);
                        names.adopted.insert(key, name);
                    }
                    None if !names.left.contains(&name) => names.left.push(name),
                    None => {}
                }
            }
            true
        })
    }

    fn change(&self, change: impl FnOnce(&mut Names) -> bool) -> Result<(), VolumeNamesError> {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut names) {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(&*names).map_err(io::Error::from);
        let written = bytes.and_then(|bytes| vc_atomic_file::write(&self.path, &bytes, 0o600));
        written.map_err(|source| VolumeNamesError { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_were_taken_over_keep_their_names_in_docker() {
        let key =
            |byte| vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let identity = Identity {
            cluster: vc_protocol::ClusterId::of(&key(1)).expect("ed25519"),
            node: vc_protocol::NodeId::of(&key(2)).expect("ed25519"),
        };
        let dir = tempfile::tempdir().expect("a directory");
        let names = VolumeNames::load(dir.path());
        let data: VolumeKey = "shop/data".parse().expect("a volume");
        let own = format!("vc-shop.data-{}", identity.node.short());
        assert_eq!(names.of(&identity, &data), own);
        let decided = [("vc-shop.data-old", Some(data.clone())), ("vc-shop.logs-old", None)];
        let decided = decided.map(|(name, key)| (name.to_owned(), key)).into();
        names.decide(decided).expect("saved");
        let again = VolumeNames::load(dir.path());
        assert_eq!(again.of(&identity, &data), "vc-shop.data-old");
        assert!(again.is_decided("vc-shop.data-old") && again.is_decided("vc-shop.logs-old"));
        assert!(!again.is_decided(&own) && again.is_adopted(&data));
        again.removed(&data).expect("saved");
        assert_eq!(VolumeNames::load(dir.path()).of(&identity, &data), own);
    }
}
