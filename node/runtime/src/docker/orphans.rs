//! Orphans: what former nodes of the cluster have left on this engine, with a data directory that was lost or copied. No node
//! manages these containers and volumes any more; an operator has this node take them over, or stop them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptions,
};
use vc_protocol::node::Orphans;
use vc_protocol::{NodeId, VolumeKey};

use super::client::DockerClient;
use super::labels;
use super::volume_names::VolumeNamesError;
use super::volumes::VOLUME_LABEL;
use crate::docker_error;

/// Why orphans were not taken over. Some of their containers may have been stopped.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The engine refused, or does not answer.
    #[error("{}", docker_error::message(.0))]
    Docker(#[from] Error),
    /// The names of the volumes cannot be saved.
    #[error(transparent)]
    Names(#[from] VolumeNamesError),
}

type Labels = HashMap<String, String>;

impl DockerClient {
    /// Returns what other nodes of the cluster have on this engine, except volumes that an operator has decided about.
    async fn orphans(&self) -> Result<BTreeMap<NodeId, Orphans>, Error> {
        let client = self.client()?;
        let cluster = vec![format!("{}={}", labels::CLUSTER, self.identity.cluster)];
        let filters = HashMap::from([("label", cluster)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let mut orphans: BTreeMap<NodeId, Orphans> = BTreeMap::new();
        for container in client.list_containers(Some(options)).await? {
            let labels = container.labels.unwrap_or_default();
            if let Some(node) = self.other_node(&labels) {
                orphans.entry(node).or_default().containers += 1;
            }
        }
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        for volume in client.list_volumes(Some(options)).await?.volumes.unwrap_or_default() {
            if let Some(node) = self.other_node(&volume.labels)
                && let Some(key) = volume_key(&volume.labels)
                && !self.volume_names.is_decided(&volume.name)
            {
                orphans.entry(node).or_default().volumes.insert(key);
            }
        }
        Ok(orphans)
    }

    /// Returns the node that labels name, if it is another one.
    fn other_node(&self, labels: &Labels) -> Option<NodeId> {
        let node: NodeId = labels.get(labels::NODE)?.parse().ok()?;
        (node != self.identity.node).then_some(node)
    }

    /// Reports the orphans to the engine, if they have changed.
    pub(super) async fn report_orphans(&self) -> Result<(), Error> {
        let found = self.orphans().await?;
        let is_new = {
            let mut last = self.orphans.lock().await;
            let is_new = *last != found;
            last.clone_from(&found);
            is_new
        };
        if is_new {
            self.reporter.orphans(found).await;
        }
        Ok(())
    }

    /// Stops and removes the containers of a former node, and takes over these of its volumes. Its other volumes stay where they
    /// are, and are not reported any more. Containers of this node that mount a volume of its own by one of these names are
    /// removed, so that they start again with the data that is taken over; that volume stays in Docker. Returns the number of
    /// orphaned containers.
    pub(super) async fn adopt(
        &self,
        former: NodeId,
        volumes: &BTreeSet<VolumeKey>,
    ) -> Result<u32, AdoptError> {
        let client = self.client()?;
        let of_former = vec![
            format!("{}={}", labels::CLUSTER, self.identity.cluster),
            format!("{}={former}", labels::NODE),
        ];
        let filters = HashMap::from([("label", of_former)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let mut stopped = 0;
        for container in client.list_containers(Some(options)).await? {
            let Some(id) = container.id else { continue };
            self.stop_and_forget(&client, &id).await?;
            stopped += 1;
        }
        let mut replaced = Vec::new();
        let mut decided = BTreeMap::new();
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        for volume in client.list_volumes(Some(options)).await?.volumes.unwrap_or_default() {
            let key = volume_key(&volume.labels).filter(|key| volumes.contains(key));
            if let Some(key) = &key {
                replaced.push(self.volume_names.of(&self.identity, key));
            }
            decided.insert(volume.name, key);
        }
        self.volume_names.decide(decided)?;
        for name in replaced {
            let filters =
                HashMap::from([("label", labels::filters(&self.identity)), ("volume", vec![name])]);
            let options =
                ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
            for container in client.list_containers(Some(options)).await? {
                let Some(id) = container.id else { continue };
                self.stop_and_forget(&client, &id).await?;
            }
        }
        self.report_orphans().await?;
        Ok(stopped)
    }

    async fn stop_and_forget(&self, client: &bollard::Docker, id: &str) -> Result<(), Error> {
        // The engine knows the grace time that its service allows.
        if let Err(error) = client.stop_container(id, None::<StopContainerOptions>).await {
            tracing::debug!(id, error = docker_error::message(&error), "cannot stop a container");
        }
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        match client.remove_container(id, Some(options)).await {
            Err(error) if !matches!(docker_error::status(&error), Some(404 | 409)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns the volume that labels name.
fn volume_key(labels: &Labels) -> Option<VolumeKey> {
    let label = |key: &str| labels.get(key);
    Some(VolumeKey {
        project: label(labels::PROJECT)?.parse().ok()?,
        volume: label(VOLUME_LABEL)?.parse().ok()?,
    })
}
