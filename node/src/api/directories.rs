//! Directories of the nodes that services use as volumes: where they are is looked up when a service is deployed.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_engine::FindError;
use vc_protocol::image::{MAX_PATHS, PathKind};
use vc_protocol::spec::{Deployment, Mount, ServiceSpec};
use vc_protocol::volume::{DEFAULT_REPLICAS, Origin, VolumeSpec};
use vc_protocol::{ApiError, ErrorCode, NodeId, ServiceKey, VolumeKey};

use super::ControlService;

/// It is not known which data a volume is to begin with; nothing was changed. Names of nodes are joined for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("the directory {path} is on {nodes}: one of them has to be chosen")]
    Several { path: String, nodes: String, first: String },
    #[error("{node} has no directory {path}")]
    NotThere { path: String, node: String },
    #[error("the directory {path} is on no node, and create_host_path is false")]
    Nowhere { path: String },
    #[error("the directory {path} is on no node that answers, and {nodes} may have it")]
    Unknown { path: String, nodes: String },
    #[error("the file {path} is on {nodes}, but not on {others}")]
    FileElsewhere { path: String, nodes: String, others: String },
    #[error(transparent)]
    Find(#[from] FindError),
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        let hint = match &error {
            DirectoryError::Find(_) => return Self::new(ErrorCode::NotFound, error.to_string()),
            DirectoryError::Several { first, .. } => format!(
                "name the node whose data counts, as in --data-from {first}; the others keep theirs, unused"
            ),
            DirectoryError::NotThere { .. } => "leave --data-from out, or correct it".to_owned(),
            DirectoryError::Nowhere { .. } => "make it on a node, or leave create_host_path out".to_owned(),
            DirectoryError::Unknown { nodes, .. } => {
                format!("start {nodes}, or begin with an empty directory with --force")
            }
            DirectoryError::FileElsewhere { .. } => {
                "copy it there, pin the service to a node that has it, or mount the directory that it is in".to_owned()
            }
        };
        Self::new(ErrorCode::FailedPrecondition, error.to_string()).with_hint(hint)
    }
}

/// What a path is to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A directory of this node, which is used in place.
    On(NodeId),
    /// A volume that begins empty, or has data without the directory.
    Volume,
    /// A file of whichever node runs the service.
    HostPath,
}

/// A directory that a file names.
struct Directory<'a> {
    path: &'a str,
    must_exist: bool,
    /// The nodes that have a copy of the volume.
    copies: BTreeSet<NodeId>,
}

/// What the user says of directories.
#[derive(Debug, Clone, Default)]
pub(super) struct DirectoryOptions {
    /// Name or id of the node whose directories count.
    pub(super) data_from: Option<String>,
    /// Also if it is not known whether a node has the directory.
    pub(super) force: bool,
}

impl ControlService {
    /// Finds the directories that volumes are, and says in the specs on which nodes they are. What is deployed keeps its place.
    /// Returns a line about each directory that was looked up, by service.
    pub(super) async fn place_directories(
        &self,
        view: &View,
        deployments: &mut [Deployment],
        options: &DirectoryOptions,
    ) -> Result<BTreeMap<ServiceKey, Vec<String>>, DirectoryError> {
        let from = options.data_from.as_deref();
        let from = from.map(|node| vc_engine::find_node(view, node)).transpose()?;
        let mut wanted: BTreeMap<VolumeKey, VolumeSpec> = BTreeMap::new();
        let mut places: BTreeMap<VolumeKey, Place> = BTreeMap::new();
        for Deployment { service, spec, .. } in &mut *deployments {
            keep_uploads(view, service, spec);
            for (name, volume) in &spec.volumes {
                let Some(Origin::Directory { path, node: None, .. }) = &volume.origin else {
                    continue;
                };
                let key = VolumeKey { project: service.project.clone(), volume: name.clone() };
                match held(view, &key, path) {
                    Some(place) => drop(places.insert(key, place)),
                    None => drop(wanted.insert(key, volume.clone())),
                }
            }
        }
        let mut said = BTreeMap::new();
        let wanted: Vec<(VolumeKey, VolumeSpec)> = wanted.into_iter().collect();
        for some in wanted.chunks(MAX_PATHS) {
            let paths = some.iter().map(|(_, volume)| path(volume).to_owned()).collect();
            let own = self.cluster.membership().node;
            let found = self.images.look_up_paths(view, own, paths).await;
            for (index, (key, volume)) in some.iter().enumerate() {
                let kinds = found.iter().map(|(node, kinds)| {
                    (*node, kinds.as_ref().and_then(|kinds| kinds.get(index)).copied())
                });
                let must_exist =
                    matches!(volume.origin, Some(Origin::Directory { must_exist: true, .. }));
                let directory =
                    Directory { path: path(volume), must_exist, copies: copies(view, key) };
                let place = choose(view, &directory, &kinds.collect(), from, options.force)?;
                said.insert(key.clone(), describe(view, &directory, volume, place));
                places.insert(key.clone(), place);
            }
        }
        let mut lines: BTreeMap<ServiceKey, Vec<String>> = BTreeMap::new();
        for Deployment { service, spec, .. } in deployments {
            let names: Vec<_> = spec.volumes.keys().cloned().collect();
            for volume in names {
                let key = VolumeKey { project: service.project.clone(), volume };
                lines.entry(service.clone()).or_default().extend(said.get(&key).cloned());
                if let Some(place) = places.get(&key) {
                    put(spec, &key, *place);
                }
            }
        }
        Ok(lines)
    }
}

/// Says where directories were uploaded with an earlier deployment of the project.
fn keep_uploads(view: &View, service: &ServiceKey, spec: &mut ServiceSpec) {
    for (name, volume) in &mut spec.volumes {
        let Some(Origin::Uploaded { path, node: node @ None }) = &mut volume.origin else {
            continue;
        };
        let services = view.cluster.services.keys().filter(|it| it.project == service.project);
        let mut uploads =
            services.filter_map(|other| match &view.spec(other)?.volumes.get(name)?.origin {
                Some(Origin::Uploaded { path: held, node: Some(at) }) if held == path => Some(*at),
                _ => None,
            });
        *node = uploads.next();
    }
}

/// Returns the path of a volume that is a directory of the nodes.
fn path(volume: &VolumeSpec) -> &str {
    match &volume.origin {
        Some(Origin::Directory { path, .. }) => path,
        _ => "",
    }
}

/// Returns the nodes that have a copy of a volume.
fn copies(view: &View, volume: &VolumeKey) -> BTreeSet<NodeId> {
    let holders = view.nodes.iter().filter(|(_, state)| state.volumes.contains_key(volume));
    holders.map(|(node, _)| *node).collect()
}

/// Returns the place of a directory that a service of the project has deployed already.
fn held(view: &View, volume: &VolumeKey, path: &str) -> Option<Place> {
    let services = view.cluster.services.keys().filter(|it| it.project == volume.project);
    let specs: Vec<_> = services.filter_map(|service| view.spec(service)).collect();
    let origins = specs.iter().filter_map(|spec| match &spec.volumes.get(&volume.volume)?.origin {
        Some(Origin::Directory { path: held, node, .. }) if held == path => Some(*node),
        _ => None,
    });
    let origins: Vec<Option<NodeId>> = origins.collect();
    if let Some(node) = origins.iter().flatten().next() {
        return Some(Place::On(*node));
    }
    let is_bound = |mount: &Mount| matches!(mount, Mount::Bind { source, .. } if source == path);
    if specs.iter().any(|spec| spec.container.mounts.iter().any(is_bound)) {
        return Some(Place::HostPath);
    }
    // It began empty. Without a copy, no instance has started, and the directory may have been made meanwhile.
    (!origins.is_empty() && !copies(view, volume).is_empty()).then_some(Place::Volume)
}

/// Chooses the node whose directory counts. `kinds` is what each node has at the path; `None` if it does not answer.
fn choose(
    view: &View,
    directory: &Directory<'_>,
    kinds: &BTreeMap<NodeId, Option<PathKind>>,
    from: Option<NodeId>,
    force: bool,
) -> Result<Place, DirectoryError> {
    let path = || directory.path.to_owned();
    let names =
        |nodes: &[NodeId]| nodes.iter().map(|&it| view.name(it)).collect::<Vec<_>>().join(" and ");
    let having = |kind: Option<PathKind>| -> Vec<NodeId> {
        kinds.iter().filter(|(_, it)| **it == kind).map(|(node, _)| *node).collect()
    };
    let mut directories = having(Some(PathKind::Directory));
    // It decides between several: of the other directories of the file one node alone may have some, or none.
    if let Some(node) = from {
        if directories.contains(&node) {
            return Ok(Place::On(node));
        }
        if directories.len() > 1 {
            return Err(DirectoryError::NotThere { path: path(), node: view.name(node) });
        }
    }
    // The service was removed, and its data is still there.
    let copies = &directory.copies;
    directories.retain(|node| copies.is_empty() || copies.contains(node));
    match directories[..] {
        [node] => return Ok(Place::On(node)),
        [first, _, ..] => {
            let (nodes, first) = (names(&directories), view.name(first));
            return Err(DirectoryError::Several { path: path(), nodes, first });
        }
        [] if !copies.is_empty() => return Ok(Place::Volume),
        [] => {}
    }
    let is_down = |node: &NodeId| !view.up.contains(node) && !view.cluster.left.contains_key(node);
    let down = view.nodes.keys().copied().filter(is_down);
    let mut silent = having(None);
    silent.extend(down);
    let files = having(Some(PathKind::File));
    if !files.is_empty() {
        let mut others = having(Some(PathKind::Missing));
        others.extend(having(None));
        return match others.is_empty() {
            true => Ok(Place::HostPath),
            false => {
                let (nodes, others) = (names(&files), names(&others));
                Err(DirectoryError::FileElsewhere { path: path(), nodes, others })
            }
        };
    }
    if !silent.is_empty() && !force {
        return Err(DirectoryError::Unknown { path: path(), nodes: names(&silent) });
    }
    match directory.must_exist {
        true => Err(DirectoryError::Nowhere { path: path() }),
        false => Ok(Place::Volume),
    }
}

/// Says in a spec where a volume begins.
fn put(spec: &mut ServiceSpec, volume: &VolumeKey, place: Place) {
    let Some(kept) = spec.volumes.get_mut(&volume.volume) else { return };
    let Some(Origin::Directory { path, node, .. }) = &mut kept.origin else { return };
    match place {
        Place::On(on) => *node = Some(on),
        Place::Volume => {}
        Place::HostPath => {
            let source = path.clone();
            spec.volumes.remove(&volume.volume);
            for mount in &mut spec.container.mounts {
                if let Mount::Volume { name, target, read_only, .. } = mount
                    && *name == volume.volume
                {
                    let (source, target, read_only) = (source.clone(), target.clone(), *read_only);
                    *mount = Mount::Bind { source, target, read_only };
                }
            }
        }
    }
}

/// Returns a line for people.
fn describe(view: &View, directory: &Directory<'_>, volume: &VolumeSpec, place: Place) -> String {
    let path = directory.path;
    let replicas = volume.replicas.unwrap_or(DEFAULT_REPLICAS) as usize;
    let others = replicas.min(view.up.len()).saturating_sub(1);
    let copied = match others {
        0 => "not copied to another node".to_owned(),
        1 => "copied to 1 other node".to_owned(),
        others => format!("copied to {others} other nodes"),
    };
    match place {
        Place::On(node) => {
            format!("directory {path}: found on {}, used in place; {copied}", view.name(node))
        }
        Place::Volume if directory.copies.is_empty() => {
            format!("directory {path}: on no node, begins empty; {copied}")
        }
        Place::Volume => format!("directory {path}: goes on with the data of its volume; {copied}"),
        Place::HostPath => format!("file {path}: mounted from the node that runs the service"),
    }
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord, VolumeRecord};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;

    use super::*;

    fn node(number: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn key() -> VolumeKey {
        "shop/app".parse().expect("a volume")
    }

    fn spec(on: Option<NodeId>) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        spec.container.mounts = vec![Mount::volume(key().volume, "/data", true)];
        let origin = Origin::Directory { path: "/srv/app".to_owned(), node: on, must_exist: false };
        let kept = VolumeSpec { origin: Some(origin), ..VolumeSpec::default() };
        spec.volumes = [(key().volume, kept)].into();
        spec
    }

    /// Three nodes, h1 to h3, of which `copies` have the volume, and the service if it is deployed.
    fn view(deployed: Option<ServiceSpec>, copies: &[u8], down: &[u8]) -> View {
        let mut cluster = ClusterState::default();
        if let Some(spec) = deployed {
            let (spec, deployed_by) = (spec.into(), "ada".to_owned());
            let record = ServiceRecord {
                spec,
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by,
                trace: None,
            };
            cluster.services.insert("shop/web".parse().expect("a service"), record.into());
        }
        let state = |number: u8| {
            let info = Some(NodeInfo::for_tests(&format!("h{number}")));
            let mut state = NodeState { info, ..NodeState::default() };
            if copies.contains(&number) {
                let record = VolumeRecord { lamport: 1, since: 1, begun: 0, copy: None };
                state.volumes.insert(key(), record.into());
            }
            state
        };
        let nodes = (1..=3).map(|number| (node(number), state(number))).collect();
        let mut view = View::from_states(cluster, nodes, &KnownVersions::default());
        for number in down {
            view.up.remove(&node(*number));
        }
        view
    }

    /// Chooses where h1 to h3 have a directory (`d`), a file (`f`), nothing (`-`) or do not answer (`?`).
    fn chosen(view: &View, kinds: &str, from: Option<u8>, force: bool) -> Result<Place, String> {
        let kind = |c| match c {
            'd' => Some(PathKind::Directory),
            'f' => Some(PathKind::File),
            '-' => Some(PathKind::Missing),
            _ => None,
        };
        let kinds = (1..).zip(kinds.chars()).filter(|(number, _)| view.up.contains(&node(*number)));
        let kinds = kinds.map(|(number, c)| (node(number), kind(c))).collect();
        let directory =
            Directory { path: "/srv/app", must_exist: false, copies: copies(view, &key()) };
        choose(view, &directory, &kinds, from.map(node), force)
            .map_err(|error| ApiError::from(error).to_string())
    }

    #[test]
    fn a_directory_is_used_where_it_is() {
        let view = view(None, &[], &[]);
        assert_eq!(chosen(&view, "-d-", None, false), Ok(Place::On(node(2))));
        assert_eq!(chosen(&view, "-d?", None, false), Ok(Place::On(node(2))));
        assert_eq!(chosen(&view, "---", None, false), Ok(Place::Volume));
        let refused = chosen(&view, "d-d", None, true).expect_err("ambiguous");
        assert!(refused.contains("/srv/app is on h"), "{refused}");
        assert!(refused.contains("--data-from h"), "{refused}");
        assert_eq!(chosen(&view, "d-d", Some(3), false), Ok(Place::On(node(3))));
        let refused = chosen(&view, "d-d", Some(2), false).expect_err("not there");
        assert!(refused.starts_with("h2 has no directory /srv/app"), "{refused}");
        assert_eq!(chosen(&view, "---", Some(2), false), Ok(Place::Volume), "another of the file");
        assert_eq!(chosen(&view, "-d-", Some(1), false), Ok(Place::On(node(2))));
    }

    #[test]
    fn a_volume_does_not_begin_empty_while_a_node_may_have_its_data() {
        let all = view(None, &[], &[]);
        let refused = chosen(&all, "-?-", None, false).expect_err("unknown");
        assert!(refused.contains("h2 may have it") && refused.contains("--force"), "{refused}");
        assert_eq!(chosen(&all, "-?-", None, true), Ok(Place::Volume));
        let down = view(None, &[], &[3]);
        let refused = chosen(&down, "---", None, false).expect_err("unknown");
        assert!(refused.contains("start h3"), "{refused}");
        assert_eq!(chosen(&down, "d--", None, false), Ok(Place::On(node(1))));
    }

    #[test]
    fn a_file_is_mounted_from_each_node_if_all_have_it() {
        let view = view(None, &[], &[]);
        assert_eq!(chosen(&view, "fff", None, false), Ok(Place::HostPath));
        let refused = chosen(&view, "ff-", None, true).expect_err("one lacks it");
        assert!(refused.contains("but not on h3"), "{refused}");
        let mut spec = spec(None);
        put(&mut spec, &key(), Place::HostPath);
        let (source, target) = ("/srv/app".to_owned(), "/data".to_owned());
        assert_eq!(spec.container.mounts, [Mount::Bind { source, target, read_only: true }]);
        assert!(spec.volumes.is_empty());
        assert_eq!(
            held(&self::view(Some(spec), &[], &[]), &key(), "/srv/app"),
            Some(Place::HostPath)
        );
    }

    #[test]
    fn what_is_deployed_keeps_its_place() {
        let on = |view: &View| held(view, &key(), "/srv/app");
        assert_eq!(on(&view(Some(spec(Some(node(2)))), &[], &[])), Some(Place::On(node(2))));
        assert_eq!(on(&view(Some(spec(None)), &[1], &[])), Some(Place::Volume), "it began empty");
        assert_eq!(on(&view(Some(spec(None)), &[], &[])), None, "and has not begun");
        assert_eq!(held(&view(Some(spec(Some(node(2)))), &[], &[]), &key(), "/srv/other"), None);
        // The service was removed; the copy says where the directory in use was.
        let kept = view(None, &[2, 3], &[]);
        assert_eq!(chosen(&kept, "dd-", None, false), Ok(Place::On(node(2))));
        assert_eq!(chosen(&kept, "d--", None, false), Ok(Place::Volume));
        let mut found = spec(None);
        put(&mut found, &key(), Place::On(node(2)));
        assert_eq!(found, spec(Some(node(2))));
    }

    #[test]
    fn a_deployment_again_keeps_the_node_that_an_upload_went_to() {
        let uploaded = |node| {
            let mut spec = spec(None);
            let origin = Origin::Uploaded { path: "./app".to_owned(), node };
            spec.volumes.get_mut(&key().volume).expect("a volume").origin = Some(origin);
            spec
        };
        let mut again = uploaded(None);
        let view = view(Some(uploaded(Some(node(2)))), &[], &[]);
        keep_uploads(&view, &"shop/other".parse().expect("a service"), &mut again);
        assert_eq!(again, uploaded(Some(node(2))));
        let mut elsewhere = uploaded(None);
        keep_uploads(&view, &"blog/web".parse().expect("a service"), &mut elsewhere);
        assert_eq!(elsewhere, uploaded(None));
    }

    #[test]
    fn people_are_told_what_becomes_of_a_directory() {
        let view = view(None, &[], &[]);
        let directory = Directory { path: "/srv/app", must_exist: false, copies: BTreeSet::new() };
        let line = |volume: VolumeSpec, place| describe(&view, &directory, &volume, place);
        assert_eq!(
            line(VolumeSpec::default(), Place::On(node(2))),
            "directory /srv/app: found on h2, used in place; copied to 1 other node"
        );
        let three = VolumeSpec { replicas: Some(7), ..VolumeSpec::default() };
        assert_eq!(
            line(three, Place::Volume),
            "directory /srv/app: on no node, begins empty; copied to 2 other nodes"
        );
    }
}
