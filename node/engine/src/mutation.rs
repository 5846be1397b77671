//! The changes to the cluster document that users ask for, checked against the current view.

mod error;
mod files;
mod find;
mod images;
mod policies;
mod ports;
mod receivers;
pub(crate) mod revision;
mod runs;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;
mod tokens;
mod trust;
pub(crate) mod volumes;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{
    ClusterState, FileKey, ImageRecord, JoinRecord, MoveOrder, Receiver, RevocationKey, SealedFile,
    TokenRecord, View, VoterKey,
};
use vc_placement::{RULES, Rules, rebalance};
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::lease::VoterSet;
use vc_protocol::spec::{Deployment, NetworkMode, OnPartition, ProjectPolicy, ServiceMode};
use vc_protocol::{Millis, Name, NodeId, ServiceKey, Supports, TraceId, VolumeKey};

use crate::history;

pub use error::MutationError;
pub(crate) use files::mounted as mounted_files;
pub use find::{FindError, find_node, find_service, find_services};
pub use images::check_all_readable;
pub use receivers::MAX_RECEIVERS;
pub(crate) use runs::due_by_hand;
pub use trust::NewSigningKey;

/// A change that a user asks for. `service` and `node` texts are as users write them: see [`find_service`] and
/// [`find_node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Creates or updates these services: all or none.
    Deploy {
        /// The services.
        deployments: Vec<Deployment>,
        /// The secrets and configs that they mount, sealed. One that the cluster document holds already keeps its
        /// sealed text: sealing the same content again gives another text.
        files: BTreeMap<FileKey, SealedFile>,
        /// The projects that the user may see; `None` for all.
        projects: Option<BTreeSet<Name>>,
        /// Names what follows in the logs of all nodes.
        trace: Option<TraceId>,
    },
    /// Sets the number of replicas.
    Scale {
        /// The service.
        service: String,
        /// At most [`MAX_REPLICAS`](vc_protocol::spec::MAX_REPLICAS).
        replicas: u32,
    },
    /// Removes a service, or all services of a project (`shop/`).
    Remove(String),
    /// Records a pushed image: its reference means this image from now on.
    Image {
        /// Canonical reference.
        reference: String,
        /// The image's id, `sha256:…`.
        id: String,
        /// Bytes, uncompressed.
        size: u64,
        /// The projects for whose services alone the reference means it; `None` for all.
        projects: Option<BTreeSet<Name>>,
    },
    /// Forgets references of pushed images.
    RemoveImages {
        /// Canonical references.
        references: BTreeSet<String>,
    },
    /// Drains a node, or ends the drain.
    Drain {
        /// The node.
        node: String,
        /// `false` ends the drain.
        drain: bool,
    },
    /// Replaces the instances of a service by new ones of the same spec.
    Restart {
        /// The service.
        service: String,
    },
    /// Begins a run of a scheduled service now, or runs another job anew.
    RunJob {
        /// The service.
        service: String,
    },
    /// Stops a run of a scheduled service.
    StopRun {
        /// The service.
        service: String,
        /// Its number; `None` for all that are under way.
        run: Option<u32>,
    },
    /// Deploys an earlier version again.
    Rollback {
        /// The service.
        service: String,
        /// Number of the version; `None` for the newest before the one in effect that did not fail.
        version: Option<u32>,
        /// The projects that the user may see; `None` for all.
        projects: Option<BTreeSet<Name>>,
    },
    /// Writes the move orders that even out the load of the nodes.
    Rebalance,
    /// Takes a node out of the cluster for good.
    Leave {
        /// The node.
        node: String,
        /// Also if it runs instances, or holds data that a service uses.
        force: bool,
    },
    /// Lists a token that was issued.
    IssueToken {
        /// The token's id.
        id: String,
        /// What it says.
        record: TokenRecord,
    },
    /// Records that a node joins with a token.
    Admit {
        /// The node.
        node: NodeId,
        /// The name that it gives itself.
        name: Name,
        /// The server that admits it.
        by: NodeId,
        /// Id of the token.
        token: String,
        /// How many nodes may join with it; `None` for any number.
        uses: Option<u32>,
        /// When it expires.
        expires: Millis,
    },
    /// Revokes a token, or all tokens that a user has so far.
    Revoke {
        /// The token, or the user.
        key: RevocationKey,
        /// Also if it takes the last token of an admin that is known: the one that asks.
        force: bool,
    },
    /// Lets the services of a project use more without an admin.
    AllowProject {
        /// The project.
        project: Name,
        /// What they may use in addition.
        policy: ProjectPolicy,
    },
    /// Takes that away.
    DenyProject {
        /// The project.
        project: Name,
        /// What they may no longer use.
        policy: ProjectPolicy,
    },
    /// Adds a receiver of alerts.
    AddReceiver {
        /// Its name.
        name: Name,
        /// What it is.
        receiver: Box<Receiver>,
    },
    /// Removes a receiver of alerts.
    RemoveReceiver {
        /// Its name.
        name: Name,
    },
    /// Replaces URLs of receivers by the same ones, sealed with another key.
    ResealReceivers(BTreeMap<Name, SealedFile>),
    /// Puts a new signing key into effect.
    RotateTrust(Box<NewSigningKey>),
    /// Adds certificates of the signing key for nodes that it had none for.
    Certify {
        /// The signing key.
        key: NodeId,
        /// The certificates.
        certificates: BTreeMap<NodeId, String>,
    },
    /// Replaces secrets and configs by the same ones, sealed with another key. Those that are gone are left out.
    Reseal(BTreeMap<FileKey, SealedFile>),
    /// Says whether a server is to be a voter.
    SetVoter {
        /// The node.
        node: String,
        /// `None` leaves it to the cluster.
        votes: Option<bool>,
    },
    /// Makes servers the voters without the consent of the present ones.
    ForceVoters {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// Moves a volume, with the services that mount it, to another node.
    MoveVolume {
        /// The volume.
        volume: VolumeKey,
        /// The node.
        to: String,
    },
    /// Removes a volume and its data.
    RemoveVolume {
        /// The volume.
        volume: VolumeKey,
    },
    /// Forgets a volume; nodes keep its data aside.
    ForgetVolume {
        /// The volume.
        volume: VolumeKey,
    },
}

impl Mutation {
    /// Returns what members without the maps of schema 3 cannot do of it; `None` if it needs nothing of them.
    pub(crate) fn needs_authority(&self) -> Option<&'static str> {
        match self {
            Self::IssueToken { record, .. } if record.limits.projects.is_some() => {
                Some("limit tokens to projects")
            }
            Self::IssueToken { record, .. } if record.uses.is_some() => {
                Some("count the uses of a token")
            }
            Self::Admit { .. } => Some("count the uses of a token"),
            Self::AllowProject { .. } | Self::DenyProject { .. } => {
                Some("keep policies of projects")
            }
            Self::Image { projects: Some(_), .. } => Some("limit images to projects"),
            Self::RotateTrust(_) | Self::Certify { .. } => Some("follow another signing key"),
            _ => None,
        }
    }

    /// Returns whether members without the map of voters cannot follow it. What writes a volume and says nothing of partitions runs
    /// as before while they are there.
    pub(crate) fn needs_leases(&self) -> bool {
        match self {
            Self::SetVoter { .. } | Self::ForceVoters { .. } => true,
            Self::Deploy { deployments, .. } => {
                deployments.iter().any(|it| it.spec.on_partition == Some(OnPartition::Exclusive))
            }
            _ => false,
        }
    }

    /// Returns whether members without the map of receivers cannot follow it.
    pub(crate) fn needs_receivers(&self) -> bool {
        matches!(self, Self::AddReceiver { .. })
    }

    /// Returns the cluster state after the mutation, and what it changes. Errors: the mutation is refused.
    pub(crate) fn apply(
        &self,
        view: &View,
        by: &Subject,
        now: Millis,
    ) -> Result<(ClusterState, Vec<Change>), MutationError> {
        let mut state = view.cluster.clone();
        let changes = match self {
            Self::Deploy { deployments, files, projects, trace } => {
                let changes = deploy(view, &mut state, deployments, files, by, now)?;
                for service in changes.iter().filter_map(deployed) {
                    if let Some(record) = state.services.get_mut(service) {
                        record.trace = *trace;
                    }
                }
                // After all of them: one service may release a port that another takes.
                for Deployment { service, spec, .. } in deployments {
                    ports::check(&state, service, &spec.ports, projects.as_ref())?;
                    ports::check_mdns(view, &spec.ports)?;
                }
                changes
            }
            Self::Scale { service, replicas: to } => {
                let service = find(view, service)?;
                if view.mode(&service).is_per_node() {
                    return Err(MutationError::OnEachNode { service });
                }
                revision::check_replicas(&service, *to)?;
                let from = state.replicas(&service);
                state.scale.insert(service.clone(), *to);
                vec![Change::Scaled { service, from, to: *to }]
            }
            Self::Remove(services) => {
                let found =
                    find_services(&state, services).map_err(|it| held(view, services, it))?;
                for service in &found {
                    state.services.remove(service);
                    state.scale.remove(service);
                    history::forget(&mut state, service);
                }
                files::drop_unused(view, &mut state);
                found.into_iter().map(|service| Change::Removed { service }).collect()
            }
            Self::Image { reference, id, size, projects } => {
                let (id, projects) = (id.clone(), projects.clone());
                let record = ImageRecord { id: id.clone(), size: *size, pushed: now, projects };
                let held = state.images.insert(reference.clone(), record);
                let reference = reference.clone();
                vec![match held {
                    Some(held) if held.id == id => Change::ImageUnchanged { reference, id },
                    _ => Change::ImagePushed { reference, id },
                }]
            }
            Self::RemoveImages { references } => {
                images::remove(&view.held, &mut state, references)?
            }
            Self::Drain { node, drain } => {
                let node = find_node(view, node)?;
                let node_name = view.name(node);
                vec![if *drain {
                    state.drained.insert(node, true);
                    Change::Drained { node, node_name }
                } else {
                    let unchanged = state.drained.remove(&node).is_none();
                    Change::Undrained { node, node_name, unchanged }
                }]
            }
            // Those of schedules are no change of the cluster document.
            Self::StopRun { service, .. } => {
                return Err(MutationError::NoSchedule { service: find(view, service)? });
            }
            Self::RunJob { service } if !view.mode(&find(view, service)?).is_job() => {
                return Err(MutationError::NoJob { service: find(view, service)? });
            }
            Self::Restart { service } | Self::RunJob { service } => {
                let service = find(view, service)?;
                vec![revision::restart(view, &mut state, &service, by, now)?]
            }
            Self::Rollback { service, version, projects } => {
                let service = find(view, service)?;
                let change = revision::roll_back(view, &mut state, &service, *version, by, now)?;
                let ports = state.services.get(&service).map(|it| it.spec.ports.clone());
                ports::check(&state, &service, &ports.unwrap_or_default(), projects.as_ref())?;
                files::drop_unused(view, &mut state);
                vec![change]
            }
            Self::Rebalance => order_moves(view, &mut state),
            Self::Leave { node, force } => {
                let node = find_node(view, node)?;
                if !force {
                    check_empty(view, node)?;
                    voters::check_leaves(view, node)?;
                }
                vec![remove_node(view, &mut state, node, now)]
            }
            Self::IssueToken { id, record } => {
                tokens::forget_expired(&mut state, now);
                state.tokens.insert(id.clone(), record.clone());
                Vec::new()
            }
            Self::Admit { node, name, by, token, uses, expires } => {
                check_name(view, *node, name, now)?;
                let record =
                    JoinRecord { at: now, name: name.to_string(), by: *by, expires: *expires };
                tokens::admit(&mut state, *node, token, *uses, record)?;
                Vec::new()
            }
            Self::Revoke { key, force } => {
                let change = tokens::revoke(&mut state, key, now)?;
                if !force {
                    tokens::check_admin_left(&state, key, by, now)?;
                }
                vec![change]
            }
            Self::AllowProject { project, policy } => {
                vec![policies::allow(&mut state, project, policy)?]
            }
            Self::DenyProject { project, policy } => {
                vec![policies::deny(&mut state, project, policy)?]
            }
            Self::AddReceiver { name, receiver } => {
                vec![receivers::add(&mut state, name, receiver)?]
            }
            Self::RemoveReceiver { name } => vec![receivers::remove(&mut state, name)?],
            Self::ResealReceivers(urls) => {
                receivers::reseal(&mut state, urls);
                Vec::new()
            }
            Self::RotateTrust(new) => trust::rotate(view, &mut state, new, by, now)?,
            Self::Certify { key, certificates } => {
                if view.trust.signing.is_none_or(|signing| signing.key != *key) {
                    return Err(MutationError::RotatedMeanwhile);
                }
                trust::certify(&mut state, *key, certificates.clone());
                Vec::new()
            }
            Self::Reseal(files) => {
                let held = files.iter().filter(|(key, _)| view.cluster.files.contains_key(key));
                let held = held.map(|(key, file)| (key.clone(), file.clone()));
                let held: Vec<_> = held.collect();
                let files = held.len() as u64;
                state.files.extend(held);
                vec![Change::FilesSealed { files }]
            }
            Self::SetVoter { node, votes } => vec![voters::wish(view, &mut state, node, *votes)?],
            Self::ForceVoters { nodes } => vec![voters::force(view, &mut state, nodes, by)?],
            Self::RemoveVolume { volume } => {
                vec![volumes::remove_volume(view, &mut state, volume, now)?]
            }
            Self::ForgetVolume { volume } => {
                vec![volumes::forget_volume(view, &mut state, volume, now)?]
            }
            Self::MoveVolume { volume, to } => volumes::move_volume(view, &mut state, volume, to)?,
        };
        Ok((state, changes))
    }
}

/// For how long the name of a node that was admitted is taken before the node has a document.
const NAME_RESERVED: Millis = 60_000;

/// Errors: another node of the cluster has this name, in any case of its letters.
fn check_name(view: &View, node: NodeId, name: &Name, now: Millis) -> Result<(), MutationError> {
    let is_same = |other: &str| other.eq_ignore_ascii_case(name.as_str());
    let present = view.nodes.iter().filter_map(|(id, state)| {
        let info = state.info.as_ref()?;
        is_same(info.name.as_str()).then_some(*id)
    });
    let joining = view.cluster.joins.iter().filter(|(key, record)| {
        let is_new = view.nodes.get(&key.node).is_none_or(|state| state.info.is_none());
        is_new && is_same(&record.name) && now < record.at.saturating_add(NAME_RESERVED)
    });
    let joining = joining.map(|(key, _)| key.node).filter(|id| !view.left.contains_key(id));
    match present.chain(joining).find(|id| *id != node) {
        Some(other) => Err(MutationError::NodeNameTaken {
            name: name.clone(),
            id: other.short(),
            is_up: view.up.contains(&other),
        }),
        None => Ok(()),
    }
}

/// Takes a node out of the cluster for good.
fn remove_node(view: &View, state: &mut ClusterState, node: NodeId, now: Millis) -> Change {
    state.left.insert(node, now);
    state.drained.remove(&node);
    state.voters.remove(&VoterKey::Wish(node));
    state.moves.retain(|_, order| order.from != node && order.to != node);
    let knows_key = view.servers.contains(&node);
    let lost = view.input.volumes.keys().filter(|it| volumes::is_only_on(view, it, node));
    let volumes = lost.cloned().collect();
    let lacks_majority = |set: &&VoterSet| {
        let up = set.voters.intersection(&view.up).filter(|voter| **voter != node).count();
        set.voters.contains(&node) && up < set.majority()
    };
    let majority_lost = view.cluster.voter_set().filter(lacks_majority).is_some();
    Change::Left { node, node_name: view.name(node), knows_key, volumes, majority_lost }
}

/// Returns the service that a text names. Errors: it matches none or several, or the one is unreadable.
fn find(view: &View, text: &str) -> Result<ServiceKey, MutationError> {
    find_service(&view.cluster, text).map_err(|error| held(view, text, error))
}

/// Turns the error that no service has a name into one that says why: this version cannot read it.
fn held(view: &View, text: &str, error: FindError) -> MutationError {
    let named = |key: &ServiceKey| key.to_string() == text || key.service.as_str() == text;
    match check_held(view, named) {
        Err(held) if matches!(error, FindError::NoService(_)) => held,
        _ => error.into(),
    }
}

/// Errors: one of these services was written by a newer version.
fn check_held(view: &View, of: impl Fn(&ServiceKey) -> bool) -> Result<(), MutationError> {
    match view.held.services.iter().find(|(key, _)| of(key)) {
        Some((service, reason)) => {
            Err(MutationError::Held { service: service.clone(), reason: reason.clone() })
        }
        None => Ok(()),
    }
}

fn deploy(
    view: &View,
    state: &mut ClusterState,
    deployments: &[Deployment],
    files: &BTreeMap<FileKey, SealedFile>,
    by: &Subject,
    now: Millis,
) -> Result<Vec<Change>, MutationError> {
    if deployments.is_empty() {
        return Err(MutationError::NothingToDeploy);
    }
    for (key, file) in files {
        state.files.entry(key.clone()).or_insert_with(|| file.clone());
    }
    let mut changes = Vec::new();
    for deployment in deployments {
        check_held(view, |service| *service == deployment.service)?;
        check_known(view, deployment)?;
        changes.push(revision::deploy(view, state, deployment, by, now)?);
    }
    files::drop_unused(view, state);
    let mut bytes = files::added_bytes(&view.cluster, state);
    if bytes > files::MAX_DEPLOY_BYTES {
        // The versions that it replaces are not worth refusing it.
        state.history = Arc::clone(&view.cluster.history);
        bytes = files::added_bytes(&view.cluster, state);
    }
    if bytes > files::MAX_DEPLOY_BYTES {
        return Err(MutationError::DeploymentTooLarge { bytes });
    }
    Ok(changes)
}

/// Returns the service that a change puts in place.
fn deployed(change: &Change) -> Option<&ServiceKey> {
    match change {
        Change::Created { service }
        | Change::Updated { service, .. }
        | Change::Redeployed { service } => Some(service),
        _ => None,
    }
}

/// Errors: a node that is up does not know what all nodes have to know of the service: where its data is, which slots it has, or where
/// they are; or what became of jobs is not kept.
fn check_known(view: &View, deployment: &Deployment) -> Result<(), MutationError> {
    let spec = &deployment.spec;
    if spec.mode.is_job() && !view.has_runs {
        return Err(MutationError::OlderMembers("keep what became of jobs"));
    }
    let joins = matches!(spec.container.network_mode, Some(NetworkMode::Service(_)));
    let lacks = |supports: Supports| {
        let plans = |has: fn(&Rules) -> bool| {
            RULES.iter().any(|rules| has(rules) && rules.version <= supports.plan)
        };
        if !spec.volumes.is_empty() && !supports.volumes {
            Some("says how its volumes are kept")
        } else if joins && !plans(|rules| rules.joined) {
            Some("has the network of another service")
        } else if spec.mode != ServiceMode::Replicated && !plans(|rules| rules.modes) {
            Some("has another deploy.mode than replicated")
        } else if spec.max_replicas_per_node > 0 && !plans(|rules| rules.max_per_node) {
            Some("has deploy.placement.max_replicas_per_node")
        } else if !spec.generic_resources.is_empty() && !plans(|rules| rules.resources) {
            Some("has generic_resources")
        } else {
            None
        }
    };
    let lacking = view.up.iter().find_map(|node| {
        let info = view.nodes.get(node)?.info.as_ref()?;
        Some((node, lacks(info.supports)?))
    });
    match lacking {
        None => Ok(()),
        Some((node, what)) => {
            let (service, node) = (deployment.service.clone(), view.name(*node));
            Err(MutationError::OlderNode { service, what, node })
        }
    }
}

/// Adds the orders that even out the load to those that still hold, and drops the others.
fn order_moves(view: &View, state: &mut ClusterState) -> Vec<Change> {
    state.moves.retain(|slot, order| volumes::is_open(view, slot, order));
    let mut changes = Vec::new();
    for it in rebalance(&view.input, view.rules) {
        let order = MoveOrder { from: it.from, to: it.to, lamport: view.next_lamport() };
        state.moves.insert(it.slot.clone(), order);
        changes.push(Change::Moving {
            slot: it.slot,
            from: it.from,
            from_name: view.name(it.from),
            to: it.to,
            to_name: view.name(it.to),
            reason: it.reason,
        });
    }
    changes
}

/// Errors: the node runs instances, or holds data that a service uses.
fn check_empty(view: &View, node: NodeId) -> Result<(), MutationError> {
    let claims = view.nodes.get(&node).into_iter().flat_map(|state| state.claims.keys());
    let instances = claims.filter(|id| !view.has_ended(id)).count();
    if view.up.contains(&node) && instances > 0 {
        return Err(MutationError::NodeHasInstances { node: view.name(node), instances });
    }
    for volume in view.input.volumes.keys().filter(|it| volumes::is_only_on(view, it, node)) {
        if let Some(service) = volumes::mounting(&view.cluster, volume).next() {
            return Err(MutationError::NodeHoldsVolume {
                node: view.name(node),
                volume: volume.clone(),
                service: service.clone(),
            });
        }
    }
    Ok(())
}
