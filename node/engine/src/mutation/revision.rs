//! The revisions of a service that deployments, restarts and rollbacks make.

use vc_crdt::{ClusterState, ServiceRecord, UpdateStatus, View};
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::spec::{Deployment, MAX_REPLICAS, MAX_SPEC_BYTES, ServiceSpec};
use vc_protocol::{Millis, ServiceKey, Stored};

use super::error::MutationError;
use super::files;
use super::find::FindError;
use super::volumes::leaves_its_data;
use crate::history::{self, Version};

/// Returns the spec as it is stored: the restart counter, which no Compose file contains, is kept.
pub(crate) fn adopted(cluster: &ClusterState, deployment: &Deployment) -> Stored<ServiceSpec> {
    let mut spec = deployment.spec.clone();
    if let Some(held) = cluster.services.get(&deployment.service) {
        spec.container.force_update = held.spec.container.force_update;
    }
    spec
}

/// Says how the image changes that the same reference names; `None` if it does not, or the reference changes.
pub(crate) fn image_change(before: &ServiceSpec, after: &ServiceSpec) -> Option<String> {
    let (before, after) = (&before.container, &after.container);
    if before.image != after.image || before.image_id == after.image_id {
        return None;
    }
    // As Docker's CLI shows ids.
    let short = |id: &Option<String>| match id.as_deref() {
        Some(id) => id.chars().take("sha256:".len() + 12).collect(),
        None => "what each node has".to_owned(),
    };
    let (from, to) = (short(&before.image_id), short(&after.image_id));
    Some(format!("image {} changed from {from} to {to}", after.image))
}

/// Returns whether deploying the stored spec again starts the update anew: its last update failed.
pub(crate) fn retries_update(view: &View, service: &ServiceKey) -> bool {
    matches!(view.updates.get(service), Some(UpdateStatus::Failed(_)))
}

/// Creates or updates a service in `state`. Errors: the spec is too large, a file is missing, or too many replicas.
pub(super) fn deploy(
    view: &View,
    state: &mut ClusterState,
    deployment: &Deployment,
    by: &Subject,
    now: Millis,
) -> Result<Change, MutationError> {
    let service = deployment.service.clone();
    let size = serde_json::to_vec(&deployment.spec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC_BYTES {
        return Err(MutationError::SpecTooLarge { service });
    }
    let missing =
        files::mounted(&service, &deployment.spec).find(|file| !state.files.contains_key(file));
    if let Some(file) = missing {
        return Err(MutationError::MissingFile { service, file: Box::new(file) });
    }
    if let Some(replicas) = deployment.replicas {
        check_replicas(&service, replicas)?;
        state.scale.insert(service.clone(), replicas);
    }
    let spec = adopted(state, deployment);
    let is_new_run = spec.mode.is_job() && spec.schedule.is_none();
    let change = match state.services.get(&service) {
        None => Change::Created { service: service.clone() },
        Some(held) if held.spec != spec => {
            let notes = [image_change(&held.spec, &spec), leaves_its_data(view, &service, &spec)];
            let note = notes.into_iter().flatten().collect::<Vec<_>>().join("; ");
            Change::Updated { service: service.clone(), note }
        }
        // Each deployment of a job is a run of its own.
        Some(_) if is_new_run || retries_update(view, &service) => {
            Change::Redeployed { service: service.clone() }
        }
        Some(_) => return Ok(Change::Unchanged { service, note: String::new() }),
    };
    let previous = last_good(view, &service).cloned();
    // A deployment of the previous spec in the middle of an update: the spec under way becomes the previous one, because
    // its instances are there and are replaced one step at a time.
    let reverts = previous.as_ref() == Some(&spec) && !view.updates.contains_key(&service);
    let previous = match reverts {
        true => state.services.get(&service).map(|held| held.spec.clone()),
        false => previous,
    };
    history::record(view, state, &service, &spec, false);
    revise(view, state, &service, spec, previous, by, now);
    Ok(change)
}

/// Makes a revision of the spec in effect whose instances are new.
pub(super) fn restart(
    view: &View,
    state: &mut ClusterState,
    service: &ServiceKey,
    by: &Subject,
    now: Millis,
) -> Result<Change, MutationError> {
    let (Some(held), Some(spec)) = (view.cluster.services.get(service), view.spec(service)) else {
        return Err(FindError::NoService(service.to_string()).into());
    };
    let mut spec = spec.clone();
    // Also beyond the counter of a failed update: no two restarts give the same instance.
    let last = held.spec.container.force_update.max(spec.container.force_update);
    spec.container.force_update = last.saturating_add(1);
    revise(view, state, service, spec, last_good(view, service).cloned(), by, now);
    Ok(Change::Restarting { service: service.clone() })
}

/// Returns the version that a rollback deploys again: the one with this number, or by default the newest before the one in
/// effect that did not fail. Errors: there is none.
pub(crate) fn rollback_version<'a>(
    view: &'a View,
    service: &'a ServiceKey,
    version: Option<u32>,
) -> Result<Version<'a>, MutationError> {
    let versions = history::versions(view, service);
    let Some(present) = history::in_effect(&versions) else {
        return Err(FindError::NoService(service.to_string()).into());
    };
    let Some(number) = version else {
        let target = history::rollback_target(&versions).cloned();
        let service = service.clone();
        return target.ok_or(MutationError::NoPreviousVersion { service });
    };
    match versions.iter().find(|it| it.number == number) {
        Some(found) if history::is_same(found.spec, present.spec) => {
            Err(MutationError::VersionInEffect { service: service.clone(), version: number })
        }
        Some(found) => Ok(found.clone()),
        None => Err(MutationError::NoVersion { service: service.clone(), version: number }),
    }
}

/// Deploys an earlier version again.
pub(super) fn roll_back(
    view: &View,
    state: &mut ClusterState,
    service: &ServiceKey,
    version: Option<u32>,
    by: &Subject,
    now: Millis,
) -> Result<Change, MutationError> {
    let Version { number, spec, .. } = rollback_version(view, service, version)?;
    if let Some(field) = spec.unknown_fields().into_iter().next() {
        let reason =
            format!("version {number} has the field {field}, which this vc-node does not know");
        return Err(MutationError::Held { service: service.clone(), reason });
    }
    if let Some(file) = history::missing_files(&view.cluster, service, spec).into_iter().next() {
        let (service, file) = (service.clone(), Box::new(file));
        return Err(MutationError::VersionLacksFile { service, version: number, file });
    }
    let held = view.cluster.services.get(service).map(|held| &held.spec);
    // Of an update under way that is undone, the instances are there and are replaced one step at a time.
    let previous = last_good(view, service).filter(|it| *it != spec).or(held).cloned();
    history::record(view, state, service, spec, true);
    revise(view, state, service, spec.clone(), previous, by, now);
    Ok(Change::RolledBack { service: service.clone(), version: number })
}

/// Checks the number of replicas of a service. Errors: more than [`MAX_REPLICAS`].
pub(super) fn check_replicas(service: &ServiceKey, replicas: u32) -> Result<(), MutationError> {
    if replicas > MAX_REPLICAS {
        return Err(MutationError::TooManyReplicas { service: service.clone(), replicas });
    }
    Ok(())
}

/// Returns the spec that a failed update rolls back to: the last one whose update completed. That is the previous spec
/// while an update runs, and after it failed.
fn last_good<'a>(view: &'a View, service: &ServiceKey) -> Option<&'a Stored<ServiceSpec>> {
    let held = view.cluster.services.get(service)?;
    match (&held.previous, view.updates.get(service)) {
        (None, _) | (_, Some(UpdateStatus::Complete)) => Some(&held.spec),
        (Some(previous), _) => Some(previous),
    }
}

/// Writes a new revision.
fn revise(
    view: &View,
    state: &mut ClusterState,
    service: &ServiceKey,
    spec: Stored<ServiceSpec>,
    previous: Option<Stored<ServiceSpec>>,
    by: &Subject,
    now: Millis,
) {
    let (revision, deployed_by) = (view.next_lamport(), by.name.clone());
    let (mut spec, mut previous) = (spec, previous);
    if spec.mode.is_job() {
        // Its instances, and so its runs, are those of this revision, and nothing is rolled back.
        if spec.schedule.is_none() {
            spec.container.force_update = revision;
        }
        previous = None;
    }
    let new = ServiceRecord { spec, previous, revision, updated: now, deployed_by, trace: None };
    match state.services.get_mut(service) {
        // Fields that this version does not know stay.
        Some(held) => **held = new,
        None => drop(state.services.insert(service.clone(), new.into())),
    }
}
