//! What a command changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Name, NodeId, ServiceKey, Slot, TraceId, VolumeKey};

/// One thing that a command changed, or left as it is. [`Display`](fmt::Display) gives the line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The service is deployed for the first time.
    Created {
        /// The service.
        service: ServiceKey,
    },
    /// The service has a new spec.
    Updated {
        /// The service.
        service: ServiceKey,
        /// What users should know about its image, in one line; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// The spec is the one whose update failed; the update begins again.
    Redeployed {
        /// The service.
        service: ServiceKey,
    },
    /// The service has this spec already.
    Unchanged {
        /// The service.
        service: ServiceKey,
        /// What users should know about its image, in one line; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// The number of replicas was set.
    Scaled {
        /// The service.
        service: ServiceKey,
        /// Replicas before.
        from: u32,
        /// Replicas now.
        to: u32,
    },
    /// The service is removed.
    Removed {
        /// The service.
        service: ServiceKey,
    },
    /// New instances of the same spec replace those that run.
    Restarting {
        /// The service.
        service: ServiceKey,
    },
    /// A run of a scheduled service is to begin.
    RunBegun {
        /// The service, with the number of the run.
        slot: Slot,
    },
    /// A run of a scheduled service is to stop.
    RunStopped {
        /// The service, with the number of the run.
        slot: Slot,
    },
    /// An earlier version is deployed again.
    RolledBack {
        /// The service.
        service: ServiceKey,
        /// Its number; 0 from older nodes.
        #[serde(default)]
        version: u32,
    },
    /// A slot moves to another node, at the order of a rebalance.
    Moving {
        /// The slot, as `shop/web.2`.
        slot: Slot,
        /// The node that runs it now.
        from: NodeId,
        /// Its name.
        from_name: String,
        /// The node that will run it.
        to: NodeId,
        /// Its name.
        to_name: String,
        /// Why it moves, in one line.
        reason: String,
    },
    /// The node takes no new instances, and its instances move to other nodes.
    Drained {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
    },
    /// The node takes instances again.
    Undrained {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Whether it was not drained, so that nothing has changed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unchanged: bool,
    },
    /// The node has left the cluster for good.
    Left {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Whether it was a server, and knows the signing key that counts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        knows_key: bool,
        /// Volumes whose data is on its host.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        volumes: Vec<VolumeKey>,
        /// Whether it was a voter, and no majority of the voters is up without it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        majority_lost: bool,
    },
    /// A node has stopped the containers that a former node has left on its host, and has taken over the data of volumes.
    Adopted {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// The former node.
        former: NodeId,
        /// How many containers.
        containers: u32,
        /// The volumes whose data it has taken over.
        volumes: Vec<VolumeKey>,
        /// The volumes whose data stays in Docker there, unused.
        left: Vec<VolumeKey>,
    },
    /// The node restarts with another program. It goes back by itself if that does not become ready.
    Upgrading {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Version of the program before.
        from: String,
        /// Version of the program.
        to: String,
        /// Digest of the program.
        digest: String,
    },
    /// The token is refused from now on.
    TokenRevoked {
        /// The token's id.
        token: String,
    },
    /// All tokens that this user has so far are refused from now on.
    UserRevoked {
        /// Name of the user.
        user: String,
    },
    /// An admin wants the node as a voter, or not, or leaves it to the cluster. The present voters carry it out.
    VoterWished {
        /// The node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Whether it is to be a voter; `None`: the cluster decides.
        votes: Option<bool>,
    },
    /// These nodes are the voters, without the consent of those before.
    VotersForced {
        /// Number of the set.
        number: u64,
        /// The voters.
        voters: Vec<NodeId>,
        /// Their names.
        names: Vec<String>,
    },
    /// A new signing key counts, and these nodes have certificates of it.
    SigningKeyRotated {
        /// How often it was rotated so far.
        epoch: u32,
        /// The members that were issued a certificate.
        members: Vec<NodeId>,
    },
    /// Secrets and configs are sealed with the key that belongs to the new signing key.
    FilesSealed {
        /// How many.
        files: u64,
    },
    /// The image is pushed, and its reference means this image from now on.
    ImagePushed {
        /// Canonical reference.
        reference: String,
        /// The image's id, `sha256:…`.
        id: String,
    },
    /// The reference means this image already.
    ImageUnchanged {
        /// Canonical reference.
        reference: String,
        /// The image's id, `sha256:…`.
        id: String,
    },
    /// The reference is forgotten; nodes delete the image in time, if nothing needs it.
    ImageRemoved {
        /// Canonical reference.
        reference: String,
        /// The image's id, `sha256:…`.
        id: String,
    },
    /// The volume and its data are removed.
    VolumeRemoved {
        /// The volume.
        volume: VolumeKey,
    },
    /// The cluster does not know the volume any more. Nodes keep its data aside.
    VolumeForgotten {
        /// The volume.
        volume: VolumeKey,
    },
    /// The volume is equal to an earlier content. What it had before is the snapshot before that.
    VolumeRestored {
        /// The volume.
        volume: VolumeKey,
        /// What it was made equal to.
        from: String,
        /// The snapshot with the result.
        snapshot: String,
    },
    /// The volume is equal to a directory that was uploaded.
    VolumeReplaced {
        /// The volume.
        volume: VolumeKey,
        /// The snapshot with what it had before.
        before: String,
        /// The snapshot with the result.
        snapshot: String,
    },
    /// Files were copied into the volume.
    VolumeChanged {
        /// The volume.
        volume: VolumeKey,
        /// Where to, in the volume.
        path: String,
        /// Display name of the node.
        node_name: String,
    },
    /// A snapshot of the volume has all that was written before the command.
    SnapshotTaken {
        /// The volume.
        volume: VolumeKey,
        /// The snapshot.
        snapshot: String,
        /// Display name of the node that has it.
        node_name: String,
    },
    /// There is a new volume that begins with data.
    VolumeCreated {
        /// The volume.
        volume: VolumeKey,
        /// Where its data is from.
        from: String,
        /// Display name of the node that has it.
        node_name: String,
        /// Its first snapshot.
        snapshot: String,
        /// The size of its files, in bytes.
        bytes: u64,
    },
    /// The volume is out of the trash again.
    VolumeUndeleted {
        /// The volume.
        volume: VolumeKey,
        /// Display name of the node that has it.
        node_name: String,
    },
    /// What follows from a deployment has this id in the logs of all nodes.
    Traced {
        /// The id.
        trace: TraceId,
    },
    /// The receiver gets alerts from now on.
    ReceiverAdded {
        /// Its name.
        receiver: Name,
    },
    /// The receiver gets no more alerts.
    ReceiverRemoved {
        /// Its name.
        receiver: Name,
    },
    /// The receiver has confirmed a test alert.
    ReceiverTested {
        /// Its name.
        receiver: Name,
        /// Display name of the node that sent it, as it sends alerts.
        node_name: String,
    },
    /// The services of a project may use this without an admin from now on, and nothing else.
    PolicyChanged {
        /// The project.
        project: Name,
        /// What they may use, as `vc project allow` takes it; empty for nothing.
        allowed: Vec<String>,
    },
    /// A change that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Returns a note as the end of a line.
fn noted(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { service } => write!(f, "{service} created"),
            Self::Updated { service, note } => write!(f, "{service} updated{}", noted(note)),
            Self::Redeployed { service } => write!(f, "{service} deployed again"),
            Self::Unchanged { service, note } => write!(f, "{service} unchanged{}", noted(note)),
            Self::Scaled { service, from, to } => write!(f, "{service} scaled from {from} to {to}"),
            Self::Removed { service } => write!(f, "{service} removed"),
            Self::Restarting { service } => write!(f, "{service} is restarting"),
            Self::RunBegun { slot } => write!(f, "run {slot} begins"),
            Self::RunStopped { slot } => write!(f, "run {slot} is stopped"),
            Self::RolledBack { service, version: 0 } => {
                write!(f, "{service} rolled back to the previous version")
            }
            Self::RolledBack { service, version } => {
                write!(f, "{service} rolled back to version {version}")
            }
            Self::Moving { slot, from_name, to_name, reason, .. } => {
                write!(f, "{slot} moves from {from_name} to {to_name}: {reason}")
            }
            Self::Drained { node_name, .. } => write!(f, "{node_name} is being drained"),
            Self::Undrained { node_name, unchanged: true, .. } => {
                write!(f, "{node_name} is not drained: nothing changes")
            }
            Self::Undrained { node_name, .. } => write!(f, "{node_name} takes instances again"),
            Self::Left { node_name, volumes, .. } if volumes.is_empty() => {
                write!(f, "{node_name} has left the cluster")
            }
            Self::Left { node_name, volumes, .. } => {
                let volumes: Vec<String> = volumes.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "{node_name} has left the cluster; the data of {} stays in Docker on its host, and services that use it start without",
                    volumes.join(", ")
                )
            }
            Self::Adopted { node_name, former, containers, volumes, left, .. } => {
                let list = |volumes: &[VolumeKey]| {
                    volumes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                let former = former.short();
                write!(f, "{node_name} has stopped {containers} containers of {former}")?;
                if !volumes.is_empty() {
                    write!(f, ", and has taken over the data of {}", list(volumes))?;
                }
                if !left.is_empty() {
                    write!(f, "; the data of {} stays unused in Docker there", list(left))?;
                }
                Ok(())
            }
            Self::Upgrading { node_name, from, to, digest, .. } => {
                write!(f, "{node_name} restarts with vc-node {to} ({digest}) instead of {from}")
            }
            Self::TokenRevoked { token } => write!(f, "token {token} is revoked"),
            Self::UserRevoked { user } => write!(f, "the tokens of {user} are revoked"),
            Self::VoterWished { node_name, votes, .. } => match votes {
                Some(true) => write!(f, "{node_name} is to be a voter"),
                Some(false) => write!(f, "{node_name} is to be no voter"),
                None => write!(f, "the cluster decides whether {node_name} is a voter"),
            },
            Self::VotersForced { number, names, .. } => {
                write!(
                    f,
                    "the voters are {} (set {number}), without the consent of those before",
                    names.join(", ")
                )
            }
            Self::SigningKeyRotated { epoch, members } => {
                let count = members.len();
                write!(f, "the signing key is rotated: epoch {epoch}, {count} certificates issued")
            }
            Self::FilesSealed { files } => write!(f, "{files} secrets and configs sealed again"),
            Self::ImagePushed { reference, .. } => write!(f, "{reference} pushed"),
            Self::ImageRemoved { reference, .. } => write!(f, "{reference} removed"),
            Self::ImageUnchanged { reference, .. } => write!(f, "{reference} unchanged"),
            Self::VolumeRestored { volume, from, snapshot } => {
                write!(f, "volume {volume} restored from {from}, as snapshot {snapshot}")
            }
            Self::VolumeReplaced { volume, before, snapshot } => write!(
                f,
                "volume {volume} replaced by what was uploaded, as snapshot {snapshot}; it was as in snapshot {before}"
            ),
            Self::VolumeChanged { volume, path, node_name } => {
                write!(f, "copied to {path} of volume {volume}, on {node_name}")
            }
            Self::SnapshotTaken { volume, snapshot, node_name } => {
                write!(f, "volume {volume} has snapshot {snapshot} on {node_name}")
            }
            Self::VolumeCreated { volume, from, node_name, .. } => {
                write!(f, "volume {volume} created on {node_name} from {from}")
            }
            Self::VolumeUndeleted { volume, node_name } => {
                write!(f, "volume {volume} is on {node_name} again")
            }
            Self::VolumeForgotten { volume } => {
                write!(f, "volume {volume} forgotten; its data stays on the nodes")
            }
            Self::VolumeRemoved { volume } => write!(f, "volume {volume} removed"),
            Self::PolicyChanged { project, allowed } if allowed.is_empty() => {
                write!(f, "{project} may use nothing of its hosts; what runs stays")
            }
            Self::PolicyChanged { project, allowed } => {
                write!(f, "{project} may use {}", allowed.join(" "))
            }
            Self::Traced { trace } => write!(f, "the logs of all nodes name it {trace}"),
            Self::ReceiverAdded { receiver } => write!(f, "{receiver} gets alerts from now on"),
            Self::ReceiverRemoved { receiver } => write!(f, "{receiver} gets no more alerts"),
            Self::ReceiverTested { receiver, node_name } => {
                write!(f, "{receiver} has confirmed a test alert from {node_name}")
            }
            Self::Unknown => f.write_str("a change that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_tagged_json_and_a_line_for_people() {
        let service = "shop/web".parse().expect("a service");
        let change = Change::Scaled { service, from: 2, to: 6 };
        let json = r#"{"change":"scaled","service":"shop/web","from":2,"to":6}"#;
        assert_eq!(serde_json::to_string(&change).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<Change>(json).expect("reads"), change);
        assert_eq!(change.to_string(), "shop/web scaled from 2 to 6");
    }

    #[test]
    fn a_change_of_a_later_version_is_read_as_unknown() {
        let json = r#"{"change":"frozen","service":"shop/web"}"#;
        assert_eq!(serde_json::from_str::<Change>(json).expect("reads"), Change::Unknown);
    }
}
