//! What a node has on its host outside its data directory, to remove all of it.

use std::collections::HashMap;
use std::path::Path;

use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};

use super::subpaths::Subpaths;
use super::{files, labels};
use crate::docker_error;
use crate::identity::Identity;

/// Docker cannot be reached, or refused to remove something.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The engine does not answer.
    #[error("cannot list what the node has in Docker: {}", docker_error::message(.0))]
    List(Error),
    /// The engine refused.
    #[error("cannot remove {what} {name} from Docker: {}", docker_error::message(.error))]
    Remove {
        /// What it is.
        what: &'static str,
        /// Its name or id.
        name: String,
        /// Why not.
        error: Error,
    },
}

/// What a node has in its engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Ids of containers, running or not.
    pub containers: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Names of volumes with data.
    pub volumes: Vec<String>,
}

/// Returns what a node has in the engine at `host`, by the labels that it gave it.
///
/// # Errors
/// The engine does not answer.
pub async fn remains(host: &str, identity: Identity) -> Result<Remains, UninstallError> {
    let client = bollard::Docker::connect_with_host(host).map_err(UninstallError::List)?;
    let filters = HashMap::from([("label", labels::filters(&identity))]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let containers = client.list_containers(Some(options)).await.map_err(UninstallError::List)?;
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let networks = client.list_networks(Some(options)).await.map_err(UninstallError::List)?;
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let volumes = client.list_volumes(Some(options)).await.map_err(UninstallError::List)?;
    Ok(Remains {
        containers: containers.into_iter().filter_map(|it| it.id).collect(),
        networks: networks.into_iter().filter_map(|it| it.name).collect(),
        volumes: volumes.volumes.unwrap_or_default().into_iter().map(|it| it.name).collect(),
    })
}

impl Remains {
    /// Removes it, the volumes with their data only with `volumes`. What is gone already is no error.
    ///
    /// # Errors
    /// The engine refused; what comes before is removed.
    pub async fn remove(&self, host: &str, volumes: bool) -> Result<(), UninstallError> {
        let client = bollard::Docker::connect_with_host(host).map_err(UninstallError::List)?;
        let removed = |what, name: &str, result: Result<(), Error>| match result {
            Err(error) if docker_error::status(&error) != Some(404) => {
                Err(UninstallError::Remove { what, name: name.to_owned(), error })
            }
            _ => Ok(()),
        };
        for id in &self.containers {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            removed("container", id, client.remove_container(id, Some(options)).await)?;
        }
        for name in &self.networks {
            removed("network", name, client.remove_network(name).await)?;
        }
        for name in self.volumes.iter().filter(|_| volumes) {
            let options = None::<RemoveVolumeOptions>;
            removed("volume", name, client.remove_volume(name, options).await)?;
        }
        Ok(())
    }
}

/// Detaches the subpaths of volumes that a node has mounted for containers, and removes the files of its containers from memory. Blocks.
pub fn release_host(host: &str, identity: Identity) {
    Subpaths::new(identity.node, host).end();
    for directory in files::DIRECTORIES.map(Path::new) {
        let _ = std::fs::remove_dir_all(directory.join(identity.node.short()));
        // That of other nodes stays, as it is not empty.
        let _ = std::fs::remove_dir(directory);
    }
}
