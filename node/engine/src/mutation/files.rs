//! The secrets and configs that services mount, as the cluster document holds them.

use std::collections::BTreeSet;

use vc_crdt::{ClusterState, FileKey, View};
use vc_protocol::ServiceKey;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::wire::MAX_CHANGE;

use crate::history;

/// Bytes that a deployment may add to the cluster document. It is one change, of which 64 KiB are left for the envelope.
pub(super) const MAX_DEPLOY_BYTES: usize = MAX_CHANGE - 64 * 1024;

/// Returns the keys of the secrets and configs that a service mounts.
pub(crate) fn mounted<'a>(
    service: &'a ServiceKey,
    spec: &'a ServiceSpec,
) -> impl Iterator<Item = FileKey> + 'a {
    spec.container.files.iter().map(|mount| FileKey {
        project: service.project.clone(),
        file: mount.file.clone(),
        version: mount.version.clone(),
    })
}

/// Drops the versions of services beyond the limits of the history, then the secrets and configs that no service mounts, now
/// or after a rollback. Drops no content while something is held: it may mount it in a way that this version does not know.
pub(super) fn drop_unused(view: &View, state: &mut ClusterState) {
    history::bound(state);
    if !view.held.is_empty() {
        return;
    }
    let specs = state.services.iter().flat_map(|(key, record)| {
        std::iter::once(&record.spec).chain(&record.previous).map(move |spec| (key, spec))
    });
    let used: BTreeSet<FileKey> = specs.flat_map(|(key, spec)| mounted(key, spec)).collect();
    let replaced = history::files(state, &used);
    state.files.retain(|key, _| used.contains(key) || replaced.contains(key));
}

/// Returns the bytes that are new in `after`.
pub(super) fn added_bytes(before: &ClusterState, after: &ClusterState) -> usize {
    let new =
        after.services.iter().filter(|(key, record)| before.services.get(key) != Some(record));
    let services =
        new.map(|(_, record)| serde_json::to_vec(record).map_or(usize::MAX, |it| it.len()));
    let new = after.files.iter().filter(|(key, _)| !before.files.contains_key(key));
    let files = new.map(|(_, file)| file.sealed.len());
    let new = after.history.iter().filter(|(key, it)| before.history.get(key) != Some(it));
    let versions = new.map(|(_, it)| serde_json::to_vec(it).map_or(usize::MAX, |it| it.len()));
    services.chain(files).chain(versions).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{KnownVersions, SealedFile, View};
    use vc_protocol::ApiError;
    use vc_protocol::change::Subject;
    use vc_protocol::control::Change;
    use vc_protocol::spec::{Deployment, FileId, FileKind, FileMount};

    use crate::{Mutation, MutationError};

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
        Deployment {
            service: service.parse().expect("a service"),
            replicas: None,
            spec: spec.into(),
        }
    }

    fn sealed(text: &str) -> SealedFile {
        SealedFile { sealed: text.to_owned() }
    }

    fn deploying(deployments: Vec<Deployment>, text: &str) -> Mutation {
        let keys =
            deployments.iter().flat_map(|it| mounted(&it.service, &it.spec)).collect::<Vec<_>>();
        Mutation::Deploy {
            deployments,
            files: keys.into_iter().map(|key| (key, sealed(text))).collect(),
            projects: None,
            trace: None,
        }
    }

    fn apply(state: &mut ClusterState, mutation: &Mutation) -> Result<Vec<Change>, MutationError> {
        let view = View::from_states(state.clone(), BTreeMap::new(), &KnownVersions::default());
        let by = Subject { name: "ada".to_owned(), token_id: "t".to_owned(), address: None };
        let (next, changes) = mutation.apply(&view, &by, 1)?;
        *state = next;
        Ok(changes)
    }

    fn message(error: MutationError) -> String {
        ApiError::from(error).to_string()
    }

    fn versions(state: &ClusterState) -> Vec<&str> {
        state.files.keys().map(|key| key.version.as_str()).collect()
    }

    #[test]
    fn files_are_kept_while_a_service_mounts_them_now_or_after_a_rollback() {
        let mut state = ClusterState::default();
        let deploy = |state: &mut ClusterState, service, version, text| {
            let changes = apply(state, &deploying(vec![mounting(service, version)], text));
            changes.expect("deployed").remove(0).to_string()
        };
        assert_eq!(deploy(&mut state, "shop/web", "1", "a"), "shop/web created");
        // The same content sealed anew changes nothing.
        let before = state.clone();
        assert_eq!(deploy(&mut state, "shop/web", "1", "b"), "shop/web unchanged");
        assert_eq!(state, before);
        deploy(&mut state, "shop/api", "1", "c");
        deploy(&mut state, "shop/web", "2", "d");
        assert_eq!(versions(&state), ["1", "2"]);
        // The history has the second.
        deploy(&mut state, "shop/web", "3", "e");
        assert_eq!(versions(&state), ["1", "2", "3"]);
        deploy(&mut state, "shop/api", "4", "f");
        apply(&mut state, &Mutation::Remove("shop/web".to_owned())).expect("removed");
        assert_eq!(versions(&state), ["1", "4"]);
        apply(&mut state, &Mutation::Remove("shop/api".to_owned())).expect("removed");
        assert!(state.files.is_empty());
    }

    #[test]
    fn a_deployment_that_lacks_files_or_is_too_large_is_refused() {
        let mut state = ClusterState::default();
        let deployments = vec![mounting("shop/web", "1")];
        let without = Mutation::Deploy {
            deployments: deployments.clone(),
            files: BTreeMap::new(),
            projects: None,
            trace: None,
        };
        assert_eq!(
            message(apply(&mut state, &without).expect_err("refused")),
            "shop/web: the request lacks the content of secret 'db': deploy it again"
        );
        let large = "x".repeat(MAX_DEPLOY_BYTES);
        let error = apply(&mut state, &deploying(deployments, &large)).expect_err("refused");
        let error = message(error);
        assert!(error.contains("more than 1984: deploy a part"), "{error}");
    }
}
