//! What users change, checked against what is there.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{ClusterState, FileKey, SealedFile, ServiceRecord, View};
use vc_protocol::change::Subject;
use vc_protocol::spec::{Deployment, MAX_REPLICAS, MAX_SPEC_BYTES, ServiceSpec};
use vc_protocol::wire::MAX_CHANGE;
use vc_protocol::{Millis, NodeId, ServiceKey};

/// What a deployment may add to the documents, in bytes. It is one change, and the rest of that is its envelope.
const MAX_DEPLOY_BYTES: usize = MAX_CHANGE - 64 * 1024;

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
    /// Keep a machine free, or no more.
    Drain {
        /// Which.
        node: String,
        /// `false`: no more.
        drain: bool,
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

/// The machine that a name or an id names. Errors: none, or several.
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
                    lines.push(deploy(&mut state, deployment, by, now)?);
                }
                drop_unused_files(&mut state);
                check_size(&view.cluster, &state)?;
            }
            Self::Scale { service, replicas } => {
                let key = find_service(&state, service)?;
                check_replicas(&key, *replicas)?;
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
                drop_unused_files(&mut state);
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
        }
        Ok((state, lines))
    }
}

fn deploy(
    state: &mut ClusterState,
    wanted: &Deployment,
    by: &Subject,
    now: Millis,
) -> Result<String, String> {
    let key = &wanted.service;
    let size = serde_json::to_vec(&wanted.spec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC_BYTES {
        return Err(format!(
            "{key} is larger than {MAX_SPEC_BYTES} bytes: move large values into the image"
        ));
    }
    if let Some(file) = files(key, &wanted.spec).find(|file| !state.files.contains_key(file)) {
        return Err(format!(
            "{key}: the content of {} did not come along: deploy it again",
            file.file
        ));
    }
    let held = state.services.get(key);
    let same = held.is_some_and(|held| held.spec == wanted.spec);
    let line = match held {
        None => format!("{key} created"),
        Some(_) if same => format!("{key} unchanged"),
        Some(_) => format!("{key} updated"),
    };
    if !same {
        let previous = held.map(|held| held.spec.clone());
        let updated = held.map_or(now, |held| now.max(held.updated + 1));
        let record =
            ServiceRecord { spec: wanted.spec.clone(), previous, updated, by: by.name.clone() };
        state.services.insert(key.clone(), record);
    }
    if let Some(replicas) = wanted.replicas {
        check_replicas(key, replicas)?;
        state.scale.insert(key.clone(), replicas);
    }
    Ok(line)
}

/// The secrets and configs that a service mounts.
fn files<'a>(service: &'a ServiceKey, spec: &'a ServiceSpec) -> impl Iterator<Item = FileKey> + 'a {
    spec.container.files.iter().map(|mount| FileKey {
        project: service.project.clone(),
        file: mount.file.clone(),
        version: mount.version.clone(),
    })
}

/// Forgets secrets and configs that no service mounts, nor would after going back to what it was before.
fn drop_unused_files(state: &mut ClusterState) {
    let specs = state.services.iter().flat_map(|(key, record)| {
        std::iter::once(&record.spec).chain(&record.previous).map(move |spec| (key, spec))
    });
    let used: BTreeSet<FileKey> = specs.flat_map(|(key, spec)| files(key, spec)).collect();
    state.files.retain(|key, _| used.contains(key));
}

/// Whether what is new fits into one change.
fn check_size(before: &ClusterState, after: &ClusterState) -> Result<(), String> {
    let new =
        after.services.iter().filter(|(key, record)| before.services.get(key) != Some(record));
    let services =
        new.map(|(_, record)| serde_json::to_vec(record).map_or(usize::MAX, |it| it.len()));
    let new = after.files.iter().filter(|(key, _)| !before.files.contains_key(key));
    let files = new.map(|(_, file)| file.sealed.len());
    let size = services.chain(files).fold(0, usize::saturating_add);
    if size > MAX_DEPLOY_BYTES {
        return Err(format!(
            "this is {} KiB at once, with its secrets and configs, of at most {}: deploy a part of the services first",
            size / 1024,
            MAX_DEPLOY_BYTES / 1024
        ));
    }
    Ok(())
}

fn check_replicas(key: &ServiceKey, replicas: u32) -> Result<(), String> {
    if replicas > MAX_REPLICAS {
        return Err(format!("{key}: {replicas} replicas are more than {MAX_REPLICAS}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{FileId, FileKind, FileMount};

    use super::*;

    fn mounting(service: &str, version: &str) -> Deployment {
        let mut spec = ServiceSpec::default();
        spec.container.files.push(FileMount {
            file: FileId { kind: FileKind::Secret, name: "db".to_owned() },
            version: version.to_owned(),
            target: "/run/secrets/db".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        });
        Deployment { service: service.parse().expect("a service"), replicas: None, spec }
    }

    fn sealed(text: &str) -> SealedFile {
        SealedFile { sealed: text.to_owned() }
    }

    fn deploying(deployments: Vec<Deployment>, text: &str) -> Mutation {
        let keys =
            deployments.iter().flat_map(|it| files(&it.service, &it.spec)).collect::<Vec<_>>();
        Mutation::Deploy {
            deployments,
            files: keys.into_iter().map(|key| (key, sealed(text))).collect(),
        }
    }

    fn apply(state: &mut ClusterState, mutation: &Mutation) -> Result<Vec<String>, String> {
        let view = View::from_states(state.clone(), BTreeMap::new());
        let by = Subject { name: "ada".to_owned(), token: "t".to_owned() };
        let (next, lines) = mutation.apply(&view, &by, 1)?;
        *state = next;
        Ok(lines)
    }

    fn versions(state: &ClusterState) -> Vec<&str> {
        state.files.keys().map(|key| key.version.as_str()).collect()
    }

    #[test]
    fn files_stay_as_long_as_a_service_mounts_them_or_may_go_back_to_them() {
        let mut state = ClusterState::default();
        let mut deploy = |state: &mut ClusterState, service, version, text| {
            let lines = apply(state, &deploying(vec![mounting(service, version)], text));
            lines.expect("done").remove(0)
        };
        assert_eq!(deploy(&mut state, "shop/web", "1", "a"), "shop/web created");
        // The same content sealed anew changes nothing.
        let before = state.clone();
        assert_eq!(deploy(&mut state, "shop/web", "1", "b"), "shop/web unchanged");
        assert_eq!(state, before);
        deploy(&mut state, "shop/api", "1", "c");
        deploy(&mut state, "shop/web", "2", "d");
        deploy(&mut state, "shop/web", "3", "e");
        assert_eq!(versions(&state), ["1", "2", "3"]);
        apply(&mut state, &Mutation::Remove("shop/api".to_owned())).expect("done");
        assert_eq!(versions(&state), ["2", "3"]);
        apply(&mut state, &Mutation::Remove("shop/web".to_owned())).expect("done");
        assert!(state.files.is_empty());
    }

    #[test]
    fn a_deployment_without_its_files_or_too_large_changes_nothing() {
        let mut state = ClusterState::default();
        let deployments = vec![mounting("shop/web", "1")];
        let without = Mutation::Deploy { deployments: deployments.clone(), files: BTreeMap::new() };
        assert_eq!(
            apply(&mut state, &without).expect_err("refused"),
            "shop/web: the content of secret 'db' did not come along: deploy it again"
        );
        let large = "x".repeat(MAX_DEPLOY_BYTES);
        let error = apply(&mut state, &deploying(deployments, &large)).expect_err("refused");
        assert!(error.contains("of at most 1984: deploy a part"), "{error}");
    }
}
