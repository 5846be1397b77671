//! The versions of a service: the deployed one, and those before it that the cluster document keeps.
//!
//! A restart makes no version. Numbers ascend with the revisions, also where two sides of a partition gave one number twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{ClusterState, FileKey, UpdateStatus, VersionKey, VersionRecord, View};
use vc_protocol::control::{RolloutState, VersionRow, VersionState};
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Lamport, ServiceKey, Stored};

use crate::diff;
use crate::mutation::mounted_files;
use crate::mutation::revision::rollback_version;
use crate::rollout::Rollout;

/// How many replaced versions of a service are kept.
pub const MAX_VERSIONS: usize = 10;
/// Of these, the newest whose updates were completed stay longest, and so do their images on the nodes.
pub const KEPT_IMAGES: usize = 3;
/// Limit of the specs of all replaced versions, in bytes of JSON.
const MAX_SPEC_BYTES: usize = 2 << 20;
/// Limit of the secrets and configs that only replaced versions mount, in sealed bytes.
const MAX_FILE_BYTES: usize = 4 << 20;
/// The longest reason of a failed version, in characters.
const MAX_REASON: usize = 400;

/// A version of a service.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) record: VersionRecord,
    revision: Lamport,
    /// Whether instances are to run it: it is deployed, or what a failed update has rolled back to.
    pub(crate) in_effect: bool,
}

/// Returns the versions of a service, oldest first; the last one is deployed. Empty if the service does not exist.
pub(crate) fn versions(view: &View, service: &ServiceKey) -> Vec<Version> {
    let Some(record) = view.cluster.services.get(service) else { return Vec::new() };
    let replaced = of_service(&view.cluster.history, service);
    let replaced = replaced.map(|(key, record)| (key.revision, record.clone()));
    let mut records: Vec<(Lamport, VersionRecord)> = replaced.collect();
    let previous = record.previous.as_ref();
    // It was deployed before there was a history.
    let unlisted = previous.filter(|it| records.is_empty() && !is_same(it, &record.spec));
    records.extend(unlisted.map(|spec| (0, of_previous(spec))));
    let update = view.updates.get(service);
    let is_restart = previous.is_some_and(|previous| is_same(previous, &record.spec));
    let failed = match update {
        Some(UpdateStatus::Failed(reason)) if !is_restart => Some(cut(reason)),
        _ => None,
    };
    let is_complete = matches!(update, Some(UpdateStatus::Complete));
    let deployed = VersionRecord {
        number: 0,
        spec: record.spec.clone(),
        deployed: record.updated,
        deployed_by: record.deployed_by.clone(),
        complete: failed.is_none() && (is_complete || is_restart || previous.is_none()),
        failed,
        rolled_back: false,
    };
    records.push((record.revision, deployed));
    let in_effect = match previous.filter(|_| view.is_rolled_back(service) && !is_restart) {
        Some(previous) => records.iter().rposition(|(_, it)| is_same(&it.spec, previous)),
        None => Some(records.len() - 1),
    };
    let mut number = 0;
    let version = |(index, (revision, mut record)): (usize, (Lamport, VersionRecord))| {
        number = record.number.max(number + 1);
        record.number = number;
        Version { record, revision, in_effect: in_effect == Some(index) }
    };
    records.into_iter().enumerate().map(version).collect()
}

/// Returns the version that a service runs, or is being updated to.
pub(crate) fn in_effect(versions: &[Version]) -> Option<&Version> {
    versions.iter().find(|it| it.in_effect).or(versions.last())
}

/// Returns the version that a rollback returns to: the newest one before the one in effect that is another and whose update was
/// completed.
pub(crate) fn rollback_target(versions: &[Version]) -> Option<&Version> {
    let present = in_effect(versions)?;
    let before = versions.iter().rev().filter(|it| it.record.number < present.record.number);
    let mut before = before.filter(|it| {
        it.record.complete
            && it.record.failed.is_none()
            && !is_same(&it.record.spec, &present.record.spec)
    });
    before.next()
}

/// Returns whether two specs differ in the restart counter at most.
pub(crate) fn is_same(a: &Stored<ServiceSpec>, b: &Stored<ServiceSpec>) -> bool {
    if a.container.force_update == b.container.force_update {
        return a == b;
    }
    let mut a = a.clone();
    a.container.force_update = b.container.force_update;
    a == *b
}

fn of_previous(spec: &Stored<ServiceSpec>) -> VersionRecord {
    VersionRecord {
        number: 1,
        spec: spec.clone(),
        deployed: 0,
        deployed_by: String::new(),
        complete: true,
        failed: None,
        rolled_back: false,
    }
}

fn of_service<'a>(
    history: &'a BTreeMap<VersionKey, VersionRecord>,
    service: &'a ServiceKey,
) -> impl DoubleEndedIterator<Item = (&'a VersionKey, &'a VersionRecord)> {
    let key = |revision| VersionKey { service: service.clone(), revision };
    history.range(key(0)..=key(Lamport::MAX))
}

fn cut(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

/// Keeps the deployed version of a service, which `spec` replaces, in the history; `by_rollback` if a rollback does.
pub(crate) fn record(
    view: &View,
    state: &mut ClusterState,
    service: &ServiceKey,
    spec: &Stored<ServiceSpec>,
    by_rollback: bool,
) {
    if !view.has_history {
        return;
    }
    let versions = versions(view, service);
    match versions.last() {
        // Of a service with this name that was removed at the same time.
        None => return forget(state, service),
        Some(deployed) if is_same(&deployed.record.spec, spec) && !by_rollback => return,
        Some(_) => {}
    }
    let history = Arc::make_mut(&mut state.history);
    for Version { mut record, revision, in_effect } in versions {
        record.rolled_back |= by_rollback && in_effect;
        history.insert(VersionKey { service: service.clone(), revision }, record);
    }
}

/// Drops the history of a service.
pub(crate) fn forget(state: &mut ClusterState, service: &ServiceKey) {
    if of_service(&state.history, service).next().is_some() {
        Arc::make_mut(&mut state.history).retain(|key, _| key.service != *service);
    }
}

/// Returns the replaced versions of each service in the order in which they are kept: the newest [`KEPT_IMAGES`] that were
/// completed, then the newest.
fn by_rank(history: &BTreeMap<VersionKey, VersionRecord>) -> Vec<(&VersionKey, &VersionRecord)> {
    let mut services: BTreeMap<&ServiceKey, Vec<(&VersionKey, &VersionRecord)>> = BTreeMap::new();
    for entry in history.iter().rev() {
        services.entry(&entry.0.service).or_default().push(entry);
    }
    let mut ranked = Vec::new();
    for versions in services.into_values() {
        let mut complete = 0;
        let (first, others): (Vec<_>, Vec<_>) = versions.into_iter().partition(|(_, it)| {
            complete += usize::from(it.complete);
            it.complete && complete <= KEPT_IMAGES
        });
        ranked.extend((0..).zip(first.into_iter().chain(others)).take(MAX_VERSIONS));
    }
    // One of each service first: a service with large versions does not take the place of others.
    ranked.sort_by_key(|(rank, (key, _))| (*rank, std::cmp::Reverse(key.revision)));
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

/// Drops the versions beyond the limits.
pub(crate) fn bound(state: &mut ClusterState) {
    let mut bytes = 0_usize;
    let kept = by_rank(&state.history).into_iter().filter(|(_, record)| {
        let size = serde_json::to_vec(&record.spec).map_or(usize::MAX, |json| json.len());
        let fits = bytes.saturating_add(size) <= MAX_SPEC_BYTES;
        bytes += if fits { size } else { 0 };
        fits
    });
    let kept: BTreeSet<VersionKey> = kept.map(|(key, _)| key.clone()).collect();
    if kept.len() < state.history.len() {
        Arc::make_mut(&mut state.history).retain(|key, _| kept.contains(key));
    }
}

/// Returns the secrets and configs that replaced versions mount, beyond those in `used` as many as fit into the limit.
pub(crate) fn files(state: &ClusterState, used: &BTreeSet<FileKey>) -> BTreeSet<FileKey> {
    let mut kept = BTreeSet::new();
    let mut bytes = 0_usize;
    for (version, record) in by_rank(&state.history) {
        for key in mounted_files(&version.service, &record.spec) {
            let Some(file) = state.files.get(&key).filter(|_| !used.contains(&key)) else {
                continue;
            };
            let fits = bytes.saturating_add(file.sealed.len()) <= MAX_FILE_BYTES;
            if fits && kept.insert(key) {
                bytes += file.sealed.len();
            }
        }
    }
    kept
}

/// Returns the secrets and configs of a spec whose content the cluster document lacks.
pub(crate) fn missing_files(
    cluster: &ClusterState,
    service: &ServiceKey,
    spec: &ServiceSpec,
) -> Vec<FileKey> {
    mounted_files(service, spec).filter(|key| !cluster.files.contains_key(key)).collect()
}

/// Returns the specs whose images nodes keep: the deployed one and the one before it, and the newest [`KEPT_IMAGES`] replaced
/// versions of each service that were completed.
pub fn kept_images(cluster: &ClusterState) -> impl Iterator<Item = &Stored<ServiceSpec>> {
    let records = cluster.services.values();
    let deployed = records.flat_map(|it| std::iter::once(&it.spec).chain(&it.previous));
    let replaced = cluster.services.keys().flat_map(|service| {
        let complete = of_service(&cluster.history, service).rev().filter(|(_, it)| it.complete);
        complete.take(KEPT_IMAGES).map(|(_, record)| &record.spec)
    });
    deployed.chain(replaced)
}

/// Returns the spec that a rollback of a service would deploy; `None` if there is no version to return to.
pub fn rollback_spec(
    view: &View,
    service: &ServiceKey,
    version: Option<u32>,
) -> Option<Stored<ServiceSpec>> {
    Some(rollback_version(view, service, version).ok()?.spec)
}

/// Returns a row for each version of a service, newest first. Without `values`, the values of environment variables are
/// neither shown nor compared.
pub fn history(view: &View, service: &ServiceKey, values: bool) -> Vec<VersionRow> {
    let versions = versions(view, service);
    let target = rollback_target(&versions).map(|it| it.record.number);
    let row = |index: usize| {
        let Version { record, in_effect, .. } = &versions[index];
        let before = index.checked_sub(1).map(|before| &versions[before].record);
        let is_deployed = index + 1 == versions.len();
        let (state, reason) = state(view, service, record, *in_effect, is_deployed);
        let earlier = versions[..index].iter().rev();
        let same = earlier.map(|it| &it.record).find(|it| is_same(&it.spec, &record.spec));
        let missing = missing_files(&view.cluster, service, &record.spec);
        VersionRow {
            service: service.clone(),
            version: record.number,
            state,
            reason,
            deployed: record.deployed,
            deployed_by: record.deployed_by.clone(),
            image: record.spec.container.image.clone(),
            image_id: record.spec.container.image_id.clone(),
            changes: before
                .map_or_else(Vec::new, |before| diff::changes(&before.spec, &record.spec, values)),
            same_as: same.map(|it| it.number),
            missing_files: missing.into_iter().map(|key| key.file.to_string()).collect(),
            rollback_target: target == Some(record.number),
        }
    };
    (0..versions.len()).rev().map(row).collect()
}

/// Returns the state of a version, and its reason.
fn state(
    view: &View,
    service: &ServiceKey,
    record: &VersionRecord,
    in_effect: bool,
    is_deployed: bool,
) -> (VersionState, String) {
    if let Some(reason) = &record.failed {
        return (VersionState::Failed, reason.clone());
    }
    if in_effect {
        let rollout = Rollout::of(view, service).map(|it| it.report()).unwrap_or_default();
        return match rollout.state {
            RolloutState::Updating if is_deployed && !record.complete => {
                (VersionState::Updating, String::new())
            }
            // A version that failed has its reason above: what failed is a restart of this one.
            RolloutState::Paused | RolloutState::RolledBack if is_deployed => {
                (VersionState::Current, format!("its restart failed: {}", rollout.reason))
            }
            _ => (VersionState::Current, String::new()),
        };
    }
    if record.rolled_back {
        return (VersionState::RolledBack, String::new());
    }
    let reason = if record.complete { "" } else { "replaced before its update was complete" };
    (VersionState::Superseded, reason.to_owned())
}
