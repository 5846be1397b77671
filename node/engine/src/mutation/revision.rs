//! What deployments, restarts and rollbacks make of a service.

use vc_crdt::{ClusterState, ServiceRecord, UpdateStatus, View};
use vc_protocol::change::Subject;
use vc_protocol::spec::{Deployment, MAX_REPLICAS, MAX_SPEC_BYTES, ServiceSpec};
use vc_protocol::{Millis, ServiceKey};

use super::files;

/// The spec as it is kept: a file says nothing of how often its service was restarted, so that stays as it is.
pub(crate) fn adopted(cluster: &ClusterState, wanted: &Deployment) -> ServiceSpec {
    let mut spec = wanted.spec.clone();
    if let Some(held) = cluster.services.get(&wanted.service) {
        spec.container.force_update = held.spec.container.force_update;
    }
    spec
}

/// Whether a deployment of the spec that is there already is another try: the last one failed.
pub(crate) fn is_another_try(view: &View, service: &ServiceKey) -> bool {
    matches!(view.updates.get(service), Some(UpdateStatus::Failed(_)))
}

/// Puts a service in place, in `state`. A line for people. Errors: too large, or too many replicas.
pub(super) fn deploy(
    view: &View,
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
    if let Some(file) =
        files::mounted(key, &wanted.spec).find(|file| !state.files.contains_key(file))
    {
        return Err(format!(
            "{key}: the content of {} did not come along: deploy it again",
            file.file
        ));
    }
    let spec = adopted(state, wanted);
    let (line, changes) = match state.services.get(key) {
        None => (format!("{key} created"), true),
        Some(held) if held.spec != spec => (format!("{key} updated"), true),
        Some(_) if is_another_try(view, key) => (format!("{key} deployed again"), true),
        Some(_) => (format!("{key} unchanged"), false),
    };
    if changes {
        let previous = good(view, key).cloned();
        // On the way back, what was on its way comes before: its instances are still there, to be replaced in turn.
        let back = previous.as_ref() == Some(&spec) && !view.updates.contains_key(key);
        let held = || state.services.get(key).map(|held| held.spec.clone());
        let previous = if back { held() } else { previous };
        revise(state, key, spec, previous, by, now);
    }
    if let Some(replicas) = wanted.replicas {
        check_replicas(key, replicas)?;
        state.scale.insert(key.clone(), replicas);
    }
    Ok(line)
}

/// New instances of what is in effect.
pub(super) fn restart(
    view: &View,
    state: &mut ClusterState,
    key: &ServiceKey,
    by: &Subject,
    now: Millis,
) -> Result<String, String> {
    let (Some(held), Some(spec)) = (view.cluster.services.get(key), view.spec(key)) else {
        return Err(format!("no service '{key}'; see 'vc services'"));
    };
    let mut spec = spec.clone();
    // Also beyond what a failed update had: no two restarts are the same instance.
    let last = held.spec.container.force_update.max(spec.container.force_update);
    spec.container.force_update = last.saturating_add(1);
    revise(state, key, spec, good(view, key).cloned(), by, now);
    Ok(format!("{key} restarts"))
}

/// Back to the spec before, which from then on comes after.
pub(super) fn roll_back(
    view: &View,
    state: &mut ClusterState,
    key: &ServiceKey,
    by: &Subject,
    now: Millis,
) -> Result<String, String> {
    let held = view.cluster.services.get(key);
    let held = held.ok_or_else(|| format!("no service '{key}'; see 'vc services'"))?;
    match &held.previous {
        Some(previous) if *previous != held.spec => {
            revise(state, key, previous.clone(), Some(held.spec.clone()), by, now);
            Ok(format!("{key} goes back to the version before"))
        }
        _ => Err(format!("{key} has no other version to go back to: deploy the one you want")),
    }
}

/// Errors: more than a service may have.
pub(super) fn check_replicas(key: &ServiceKey, replicas: u32) -> Result<(), String> {
    if replicas > MAX_REPLICAS {
        return Err(format!("{key}: {replicas} replicas are more than {MAX_REPLICAS}"));
    }
    Ok(())
}

/// The spec that a failed update is to go back to: the last that was as it should be. While an update goes on, and when
/// it has failed, that is the one before it.
fn good<'a>(view: &'a View, key: &ServiceKey) -> Option<&'a ServiceSpec> {
    let held = view.cluster.services.get(key)?;
    match (&held.previous, view.updates.get(key)) {
        (None, _) | (_, Some(UpdateStatus::Complete)) => Some(&held.spec),
        (Some(previous), _) => Some(previous),
    }
}

/// A new revision of the service.
fn revise(
    state: &mut ClusterState,
    key: &ServiceKey,
    spec: ServiceSpec,
    previous: Option<ServiceSpec>,
    by: &Subject,
    now: Millis,
) {
    let updated = state.services.get(key).map_or(now, |held| now.max(held.updated + 1));
    let record = ServiceRecord { spec, previous, updated, deployed_by: by.name.clone() };
    state.services.insert(key.clone(), record);
}
