//! What users change, checked against what is there.

mod files;
mod ports;
pub(crate) mod revision;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;

use std::collections::BTreeMap;

use vc_crdt::{ClusterState, FileKey, ImageRecord, MoveOrder, SealedFile, View};
use vc_placement::rebalance;
use vc_protocol::change::Subject;
use vc_protocol::spec::Deployment;
use vc_protocol::{Millis, NodeId, ServiceKey, VolumeKey};

/// A change that a user asks for. `service` and `node` are as people write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Put these services in place: all or none.
    Deploy {
        /// The services.
        deployments: Vec<Deployment>,
        /// The secrets and configs that they mount. One that is there already stays as it is: sealed anew it would be
        /// another text for the same content.
        files: BTreeMap<FileKey, SealedFile>,
    },
    /// Change the number of replicas.
    Scale {
        /// Which service.
        service: String,
        /// How many.
        replicas: u32,
    },
    /// Remove a service, or a project (`shop/`).
    Remove(String),
    /// A user pushed an image: from now on, its reference means this one.
    Image {
        /// Canonical reference.
        reference: String,
        /// Its id, `sha256:…`.
        id: String,
        /// Bytes, uncompressed.
        size: u64,
    },
    /// Keep a node free, or no more.
    Drain {
        /// Which.
        node: String,
        /// `false`: no more.
        drain: bool,
    },
    /// Replace the instances of a service by new ones of the same spec.
    Restart {
        /// Which service.
        service: String,
    },
    /// Go back to the spec before.
    Rollback {
        /// Which service.
        service: String,
    },
    /// Even out what nodes run: orders to move.
    Rebalance,
    /// Take a node out of the cluster for good.
    Leave {
        /// Which.
        node: String,
        /// Also when it runs instances, or holds data that a service uses.
        force: bool,
    },
    /// Give up the data of a volume.
    RemoveVolume {
        /// Which.
        volume: VolumeKey,
    },
}

/// The services that a text names: `web` where only one project has such a service, `shop/web`, or `shop/` for all of a
/// project. Errors: none, or several.
pub fn find_services(cluster: &ClusterState, text: &str) -> Result<Vec<ServiceKey>, String> {
    let (project, service) = match text.split_once('/') {
        Some((project, service)) => (Some(project), service),
        None => (None, text),
    };
    let found: Vec<ServiceKey> = cluster
        .services
        .keys()
        .filter(|key| project.is_none_or(|project| key.project.as_str() == project))
        .filter(|key| service.is_empty() || key.service.as_str() == service)
        .cloned()
        .collect();
    let list =
        |keys: &[ServiceKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match found.as_slice() {
        [] if project.is_some() && service.is_empty() => {
            Err(format!("no project '{text}'; see 'vc services'"))
        }
        [] => Err(format!("no service '{text}'; see 'vc services'")),
        [_] => Ok(found),
        _ if project.is_some() => Ok(found),
        several => Err(format!("'{text}' is several services: name one of {}", list(several))),
    }
}

/// The one service that a text names. Errors: none, or several.
pub fn find_service(cluster: &ClusterState, text: &str) -> Result<ServiceKey, String> {
    let mut found = find_services(cluster, text)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(format!("'{text}' is several services: name one of them as project/service")),
    }
}

/// The node that a name or an id names. Errors: none, or several.
pub fn find_node(view: &View, text: &str) -> Result<NodeId, String> {
    let found: Vec<NodeId> = view
        .nodes
        .keys()
        .copied()
        .filter(|&id| view.name(id) == text || id.to_string() == text || id.short() == text)
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!("no node '{text}'; see 'vc nodes'")),
        _ => Err(format!(
            "several nodes are called '{text}': use the id from 'vc nodes --output json'"
        )),
    }
}

impl Mutation {
    /// What the cluster document should say afterwards, and a line for people a thing that changes. Errors: one line
    /// that says what to do; nothing changes.
    pub(crate) fn apply(
        &self,
        view: &View,
        by: &Subject,
        now: Millis,
    ) -> Result<(ClusterState, Vec<String>), String> {
        let mut state = view.cluster.clone();
        let mut lines = Vec::new();
        match self {
            Self::Deploy { deployments, files } => {
                if deployments.is_empty() {
                    return Err("nothing to deploy: the file has no services".to_owned());
                }
                for (key, file) in files {
                    state.files.entry(key.clone()).or_insert_with(|| file.clone());
                }
                for deployment in deployments {
                    lines.push(revision::deploy(view, &mut state, deployment, by, now)?);
                }
                files::drop_unused(&mut state);
                files::check_size(&view.cluster, &state)?;
                // One of them may give up a port that another takes.
                for Deployment { service, spec, .. } in deployments {
                    ports::check(&state, service, &spec.ports)?;
                }
            }
            Self::Scale { service, replicas } => {
                let key = find_service(&state, service)?;
                revision::check_replicas(&key, *replicas)?;
                let before = state.replicas(&key);
                lines.push(format!("{key} scaled from {before} to {replicas}"));
                state.scale.insert(key, *replicas);
            }
            Self::Remove(service) => {
                for key in find_services(&state, service)? {
                    state.services.remove(&key);
                    state.scale.remove(&key);
                    lines.push(format!("{key} removed"));
                }
                files::drop_unused(&mut state);
            }
            Self::Image { reference, id, size } => {
                let record = ImageRecord { id: id.clone(), size: *size, pushed: now };
                let held = state.images.insert(reference.clone(), record);
                let known = held.is_some_and(|held| held.id == *id);
                lines.push(format!("{reference} {}", if known { "unchanged" } else { "pushed" }));
            }
            Self::Drain { node, drain } => {
                let id = find_node(view, node)?;
                let name = view.name(id);
                if *drain {
                    state.drained.insert(id, true);
                    lines.push(format!("{name} is drained"));
                } else {
                    state.drained.remove(&id);
                    lines.push(format!("{name} takes instances again"));
                }
            }
            Self::Restart { service } => {
                let key = find_service(&state, service)?;
                lines.push(revision::restart(view, &mut state, &key, by, now)?);
            }
            Self::Rollback { service } => {
                let key = find_service(&state, service)?;
                lines.push(revision::roll_back(view, &mut state, &key, by, now)?);
            }
            Self::Rebalance => lines.append(&mut order_moves(view, &mut state, now)),
            Self::Leave { node, force } => {
                let id = find_node(view, node)?;
                let name = view.name(id);
                if !force {
                    may_leave(view, id)?;
                }
                state.left.insert(id, now);
                state.drained.remove(&id);
                state.moves.retain(|_, order| order.from != id && order.to != id);
                lines.push(format!("{name} has left the cluster"));
            }
            Self::RemoveVolume { volume } => {
                lines.push(remove_volume(view, &mut state, volume, now)?);
            }
        }
        Ok((state, lines))
    }
}

/// Gives the orders that even out what nodes run, beside those that hold, and drops the others.
fn order_moves(view: &View, state: &mut ClusterState, now: Millis) -> Vec<String> {
    state.moves.retain(|slot, _| view.input.moves.contains_key(slot));
    let mut lines = Vec::new();
    for it in rebalance(&view.input) {
        // By the clock of that node: the order must be younger than the claim that it is about.
        let claims = view.input.nodes.get(&it.from).map(|node| &node.claims);
        let since = claims.and_then(|claims| claims.get(&it.slot)).map_or(0, |claim| claim.since);
        let at = now.max(since.saturating_add(1));
        let (from, to) = (view.name(it.from), view.name(it.to));
        lines.push(format!("{} moves from {from} to {to}: {}", it.slot, it.reason));
        state.moves.insert(it.slot, MoveOrder { from: it.from, to: it.to, ordered_at: at });
    }
    if lines.is_empty() {
        lines.push("nothing to move".to_owned());
    }
    lines
}

/// Errors: the node runs instances, or holds data that a service uses.
fn may_leave(view: &View, id: NodeId) -> Result<(), String> {
    let name = view.name(id);
    let claims = view.nodes.get(&id).map_or(0, |state| state.claims.len());
    if view.up.contains(&id) && claims > 0 {
        let instances = if claims == 1 { "1 instance" } else { &format!("{claims} instances") };
        return Err(format!(
            "{name} has {instances}: 'vc drain {name}' first, or leave them behind with --force"
        ));
    }
    let held = view.input.volumes.iter().filter(|(_, holder)| **holder == id);
    for (volume, _) in held {
        if let Some(service) = mounting(&view.cluster, volume).next() {
            return Err(format!(
                "{name} holds the data of volume {volume}, which {service} uses: remove {service} \
                 first, or lose the data with --force"
            ));
        }
    }
    Ok(())
}

/// Errors: there is none, or a service mounts it.
fn remove_volume(
    view: &View,
    state: &mut ClusterState,
    volume: &VolumeKey,
    now: Millis,
) -> Result<String, String> {
    let holders = view.nodes.values().filter_map(|node| node.volumes.get(volume).copied());
    let since = match (view.input.volumes.contains_key(volume), holders.max()) {
        (true, Some(since)) => since,
        _ => return Err(format!("no volume '{volume}'; see 'vc volume ls'")),
    };
    let services: Vec<String> =
        mounting(&view.cluster, volume).map(|service| service.to_string()).collect();
    if let Some(service) = services.first() {
        let services = services.join(", ");
        return Err(format!("{services} mounts volume {volume}: 'vc rm {service}' first"));
    }
    // By whatever clock it was made, it is gone.
    state.tombstones.insert(volume.clone(), now.max(since));
    Ok(format!("volume {volume} removed"))
}

/// The services that mount a volume, now or when an update goes back.
pub(crate) fn mounting<'a>(
    cluster: &'a ClusterState,
    volume: &'a VolumeKey,
) -> impl Iterator<Item = &'a ServiceKey> {
    let mounts =
        |spec: &vc_protocol::spec::ServiceSpec| spec.volumes().any(|it| *it == volume.volume);
    let of_project = cluster.services.iter().filter(|(key, _)| key.project == volume.project);
    let mounting = of_project.filter(move |(_, record)| {
        mounts(&record.spec) || record.previous.as_ref().is_some_and(mounts)
    });
    mounting.map(|(key, _)| key)
}
