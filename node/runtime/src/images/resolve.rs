//! Which image a reference names. That is the cluster's answer, not that of the node which is asked: what a service is pinned to
//! stays until the reference is pushed, pulled or changed.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_crdt::{ImageRecord, View};
use vc_protocol::image::Digest;
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{ContainerSpec, Deployment, PullPolicy};
use vc_protocol::{Name, NodeId, ServiceKey};

use super::error::short;
use super::node_images::{Images, QUERY_TIMEOUT};
use super::reference;

/// How many references are resolved at a time.
const CONCURRENT_RESOLVES: usize = 8;

/// How the references of deployments are resolved.
#[derive(Debug, Clone, Copy)]
pub struct Pinning<'a> {
    /// The latest view.
    pub view: &'a View,
    /// This node.
    pub own: NodeId,
    /// The projects that the user may see; `None` for all.
    pub projects: Option<&'a BTreeSet<Name>>,
    /// Whether registries are asked anew, and Docker on this node.
    pub pull: bool,
}

/// What pinning found beside the ids.
#[derive(Debug, Default)]
pub struct Pinned {
    /// What users should know about the image of a service, in one line.
    pub notes: BTreeMap<ServiceKey, String>,
    /// The services whose image was found on a node a moment ago.
    pub found: BTreeSet<ServiceKey>,
    /// The pushed references that name another image by a pull.
    pub moved: BTreeMap<String, Moved>,
}

/// A pushed reference that was pulled and names another image now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The image's id.
    pub id: Digest,
    /// Bytes, uncompressed.
    pub size: u64,
}

/// The answer for one deployment.
#[derive(Default)]
struct Resolved {
    id: Option<String>,
    note: Option<String>,
    /// Whether a node has it now.
    found: bool,
    moved: Option<(String, Moved)>,
}

impl From<Option<String>> for Resolved {
    fn from(id: Option<String>) -> Self {
        Self { id, ..Self::default() }
    }
}

impl Images {
    /// Pins deployments to image ids, so that all replicas run the same bytes. In this order:
    ///
    /// 1. with [`Pinning::pull`], or as the service says ([`PullPolicy`]), what the registry has, else what Docker on this node has;
    /// 2. what was pushed;
    /// 3. what the service is pinned to, also if that is nothing, while the file names the same image;
    /// 4. what another service of the project is pinned to for the same reference;
    /// 5. what the Docker engines of the nodes have: an id that a visible service is pinned to, else what most nodes have, else the
    ///    lowest id.
    pub async fn pin(&self, by: Pinning<'_>, deployments: &mut [Deployment]) -> Pinned {
        let infos = by.view.nodes.iter().filter(|(node, _)| by.view.up.contains(node));
        let infos = infos.filter_map(|(_, state)| state.info.as_ref());
        let platforms: BTreeSet<(&str, &str)> = infos
            .filter(|info| info.runtime == RuntimeKind::Docker)
            .map(|info| (&info.os[..], &info.arch[..]))
            .collect();
        if platforms.is_empty() {
            return Pinned::default();
        }
        let resolved = deployments.iter().map(|deployment| {
            let container = &deployment.spec.container;
            // Nodes of different platforms run different images of one name, so only a push identifies one.
            let unambiguous = platforms.len() == 1 || container.platform.is_some();
            let always = deployment.spec.pull_policy == PullPolicy::Always;
            let by = Pinning { pull: by.pull || always, ..by };
            self.resolve(by, &deployment.service, container, unambiguous)
        });
        let resolved: Vec<Resolved> = stream::iter(resolved.collect::<Vec<_>>())
            .buffered(CONCURRENT_RESOLVES)
            .collect()
            .await;
        let mut pinned = Pinned::default();
        for (deployment, Resolved { id, note, found, moved }) in
            deployments.iter_mut().zip(resolved)
        {
            pinned.found.extend(found.then(|| deployment.service.clone()));
            deployment.spec.container.image_id = id;
            pinned.notes.extend(note.map(|note| (deployment.service.clone(), note)));
            pinned.moved.extend(moved);
        }
        pinned
    }

    async fn resolve(
        &self,
        by: Pinning<'_>,
        service: &ServiceKey,
        container: &ContainerSpec,
        unambiguous: bool,
    ) -> Resolved {
        if let Some(id) = &container.image_id {
            return Some(id.clone()).into();
        }
        let Ok(name) = reference::canonical(&container.image) else { return None.into() };
        if name.parse::<Digest>().is_ok() {
            return Some(name).into();
        }
        let of_project = |record: &&ImageRecord| {
            record.projects.as_ref().is_none_or(|projects| projects.contains(&service.project))
        };
        let pushed = by.view.cluster.images.get(&name).filter(of_project);
        let mut note = None;
        if by.pull && unambiguous {
            match self.pull_anew(by, &name, container).await {
                Ok((id, size, registry)) => {
                    let moves = pushed.is_some_and(|record| record.id != id.as_str());
                    let moved = moves.then(|| (name, Moved { id: id.clone(), size }));
                    return Resolved { id: Some(id.into()), note: registry, found: true, moved };
                }
                Err(why) => note = Some(why),
            }
        } else if by.pull {
            note = Some(format!(
                "{name} was not pulled: the nodes have several platforms, and the file names none"
            ));
        }
        if let Some(record) = pushed {
            return Resolved { id: Some(record.id.clone()), note, ..Resolved::default() };
        }
        let held = by.view.cluster.services.get(service).map(|record| &record.spec.container);
        if let Some(held) = held.filter(|held| is_same_image(held, container, &name)) {
            let note = match (note, &held.image_id) {
                (None, Some(id)) if unambiguous => self.differs_here(by, &name, id).await,
                (note, _) => note,
            };
            return Resolved { id: held.image_id.clone(), note, ..Resolved::default() };
        }
        if !unambiguous {
            return Resolved { note, ..Resolved::default() };
        }
        let pins = pins(by, service, container, &name);
        if let Some(id) = pins.of_project {
            return Resolved { id: Some(id), note, ..Resolved::default() };
        }
        let nodes = self.found_on_nodes(by.own, &name).await;
        let id = choose(&nodes, &pins.visible).map(String::from);
        let found = id.is_some();
        Resolved { id, note, found, moved: None }
    }

    /// Pulls a reference into Docker on this node. Returns what it names there, with its size, and a note if the registry did not
    /// give it.
    ///
    /// # Errors
    /// Neither the registry nor Docker on this node has it; why, for people.
    async fn pull_anew(
        &self,
        by: Pinning<'_>,
        name: &str,
        container: &ContainerSpec,
    ) -> Result<(Digest, u64, Option<String>), String> {
        let here = by.view.name(by.own);
        let Some(docker) = &self.0.docker else {
            return Err(format!(
                "{name} was not pulled: {here} has no Docker engine; use another node with --peer"
            ));
        };
        let pulled = docker.pull(name, container.platform.as_deref(), |_| {}).await;
        let found = docker.find(name).await.ok().flatten();
        match (pulled, found) {
            (Ok(()), Some((id, size))) => Ok((id, size, None)),
            (Err(why), Some((id, size))) => {
                let note = format!(
                    "the registry does not give {name} ({why}): Docker on {here} has it as {}",
                    short(&id)
                );
                Ok((id, size, Some(note)))
            }
            (Err(why), None) => Err(format!("{name} was not pulled: {why}")),
            (Ok(()), None) => {
                Err(format!("{name} was not pulled: the registry returned another image"))
            }
        }
    }

    /// Returns a note if Docker on this node has another image under this reference than the service is pinned to.
    async fn differs_here(&self, by: Pinning<'_>, name: &str, pinned: &str) -> Option<String> {
        let local = timeout(QUERY_TIMEOUT, self.local_id(name)).await.ok().flatten()?;
        (local.as_str() != pinned).then(|| {
            let here = by.view.name(by.own);
            format!("Docker on {here} has {name} as {}: 'vc deploy --pull' takes it", short(&local))
        })
    }

    /// Returns the images that a reference names in the Docker engines of the nodes that answer.
    pub(super) async fn found_on_nodes(&self, own: NodeId, name: &str) -> BTreeMap<NodeId, Digest> {
        let (local, mut found) = tokio::join!(
            timeout(QUERY_TIMEOUT, self.local_id(name)),
            self.resolve_on_members(name)
        );
        found.extend(local.ok().flatten().map(|id| (own, id)));
        found
    }
}

/// Returns whether a file that names `container` names the image that `held` was deployed with.
fn is_same_image(held: &ContainerSpec, container: &ContainerSpec, name: &str) -> bool {
    held.platform == container.platform
        && reference::canonical(&held.image).is_ok_and(|held| held == name)
}

/// What services are pinned to for one reference.
struct Pins {
    /// That of another service of the project, the one deployed last.
    of_project: Option<String>,
    /// Those of all services that the user may see. What other projects are pinned to is no answer by itself: a token of theirs
    /// may have chosen it.
    visible: BTreeSet<String>,
}

fn pins(by: Pinning<'_>, service: &ServiceKey, container: &ContainerSpec, name: &str) -> Pins {
    let mut visible = BTreeSet::new();
    let mut last = None;
    for (key, record) in &by.view.cluster.services {
        let Some(spec) =
            by.view.spec(key).filter(|spec| is_same_image(&spec.container, container, name))
        else {
            continue;
        };
        let Some(id) = &spec.container.image_id else { continue };
        if by.projects.is_none_or(|projects| projects.contains(&key.project)) {
            visible.insert(id.clone());
        }
        if key.project == service.project
            && last.as_ref().is_none_or(|(at, _)| *at < record.revision)
        {
            last = Some((record.revision, id.clone()));
        }
    }
    Pins { of_project: last.map(|(_, id)| id), visible }
}

/// Chooses among what nodes have, the same on every node: what services are pinned to, then what most have, then the lowest id.
fn choose(found: &BTreeMap<NodeId, Digest>, pinned: &BTreeSet<String>) -> Option<Digest> {
    let mut counts: BTreeMap<&Digest, usize> = BTreeMap::new();
    for id in found.values() {
        *counts.entry(id).or_default() += 1;
    }
    let best = |(id, count): &(&Digest, usize)| (!pinned.contains(id.as_str()), usize::MAX - count);
    counts.into_iter().min_by_key(best).map(|(id, _)| id.clone())
}
