//! The versions of a service: the deployed one, and those before it that the cluster document keeps.
//!
//! A restart makes no version. Numbers ascend with the revisions, also where two sides of a partition gave one number twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{ClusterState, FileKey, UpdateStatus, VersionKey, VersionRecord, View};
use vc_protocol::control::{RolloutState, VersionRow, VersionState};
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Lamport, Millis, ServiceKey, Stored};

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
pub(crate) struct Version<'a> {
    pub(crate) number: u32,
    pub(crate) spec: &'a Stored<ServiceSpec>,
    /// As in [`VersionRecord`], like the fields below.
    deployed: Millis,
    deployed_by: &'a str,
    complete: bool,
    failed: Option<&'a str>,
    rolled_back: bool,
    revision: Lamport,
    /// Whether instances are to run it: it is deployed, or what a failed update has rolled back to.
    pub(crate) in_effect: bool,
}

impl<'a> Version<'a> {
    fn replaced(key: &VersionKey, record: &'a VersionRecord) -> Self {
        Self {
            number: record.number,
            spec: &record.spec,
            deployed: record.deployed,
            deployed_by: &record.deployed_by,
            complete: record.complete,
            failed: record.failed.as_deref(),
            rolled_back: record.rolled_back,
            revision: key.revision,
            in_effect: false,
        }
    }

    /// The version before the deployed one where there is no history.
    fn unlisted(spec: &'a Stored<ServiceSpec>) -> Self {
        Self {
            number: 1,
            spec,
            deployed: 0,
            deployed_by: "",
            complete: true,
            failed: None,
            rolled_back: false,
            revision: 0,
            in_effect: false,
        }
    }

    fn record(&self, rolled_back: bool) -> VersionRecord {
        VersionRecord {
            number: self.number,
            spec: self.spec.clone(),
            deployed: self.deployed,
            deployed_by: self.deployed_by.to_owned(),
            complete: self.complete,
            failed: self.failed.map(|reason| reason.chars().take(MAX_REASON).collect()),
            rolled_back,
        }
    }
}

/// Returns the versions of a service, oldest first; the last one is deployed. Empty if the service does not exist.
pub(crate) fn versions<'a>(view: &'a View, service: &'a ServiceKey) -> Vec<Version<'a>> {
    let Some(record) = view.cluster.services.get(service) else { return Vec::new() };
    let replaced = of_service(&view.cluster.history, service);
    let mut versions: Vec<Version> =
        replaced.map(|(key, record)| Version::replaced(key, record)).collect();
    let previous = record.previous.as_ref();
    let is_restart = previous.is_some_and(|previous| is_same(previous, &record.spec));
    if let Some(previous) = previous.filter(|_| versions.is_empty() && !is_restart) {
        versions.push(Version::unlisted(previous));
    }
    let update = view.updates.get(service);
    let failed = match update {
        Some(UpdateStatus::Failed(reason)) if !is_restart => Some(reason.as_str()),
        _ => None,
    };
    let is_complete = matches!(update, Some(UpdateStatus::Complete));
    versions.push(Version {
        number: 0,
        spec: &record.spec,
        deployed: record.updated,
        deployed_by: &record.deployed_by,
        complete: failed.is_none() && (is_complete || is_restart || previous.is_none()),
        failed,
        rolled_back: false,
        revision: record.revision,
        in_effect: false,
    });
    let in_effect = match previous.filter(|_| view.is_rolled_back(service) && !is_restart) {
        Some(previous) => versions.iter().rposition(|it| is_same(it.spec, previous)),
        None => Some(versions.len() - 1),
    };
    let mut number = 0;
    for (index, version) in versions.iter_mut().enumerate() {
        number = version.number.max(number + 1);
        version.number = number;
        version.in_effect = in_effect == Some(index);
    }
    versions
}

/// Returns the version that a service runs, or is being updated to.
pub(crate) fn in_effect<'a, 'b>(versions: &'b [Version<'a>]) -> Option<&'b Version<'a>> {
    versions.iter().find(|it| it.in_effect).or(versions.last())
}

/// Returns the version that a rollback returns to: the newest one before the one in effect that is another and whose update was
/// completed.
pub(crate) fn rollback_target<'a, 'b>(versions: &'b [Version<'a>]) -> Option<&'b Version<'a>> {
    let present = in_effect(versions)?;
    let mut before = versions.iter().rev().filter(|it| it.number < present.number);
    before.find(|it| it.complete && it.failed.is_none() && !is_same(it.spec, present.spec))
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

fn of_service<'a>(
    history: &'a BTreeMap<VersionKey, Stored<VersionRecord>>,
    service: &ServiceKey,
) -> impl DoubleEndedIterator<Item = (&'a VersionKey, &'a Stored<VersionRecord>)> + use<'a> {
    let key = |revision| VersionKey { service: service.clone(), revision };
    history.range(key(0)..=key(Lamport::MAX))
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
        Some(deployed) if is_same(deployed.spec, spec) && !by_rollback => return,
        Some(_) => {}
    }
    let history = Arc::make_mut(&mut state.history);
    for version in versions {
        let rolled_back = by_rollback && version.in_effect;
        let key = VersionKey { service: service.clone(), revision: version.revision };
        // Fields that this version does not know stay.
        match history.get_mut(&key) {
            Some(held) => held.rolled_back |= rolled_back,
            None => drop(history.insert(key, version.record(rolled_back).into())),
        }
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
fn by_rank(
    history: &BTreeMap<VersionKey, Stored<VersionRecord>>,
) -> Vec<(&VersionKey, &Stored<VersionRecord>)> {
    let mut services: BTreeMap<&ServiceKey, Vec<(&VersionKey, &Stored<VersionRecord>)>> =
        BTreeMap::new();
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
    Some(rollback_version(view, service, version).ok()?.spec.clone())
}

/// Returns a row for each version of a service, newest first. Without `values`, the values of environment variables are
/// neither shown nor compared.
pub fn history(view: &View, service: &ServiceKey, values: bool) -> Vec<VersionRow> {
    let versions = versions(view, service);
    let target = rollback_target(&versions).map(|it| it.number);
    let row = |index: usize| {
        let version = &versions[index];
        let before = index.checked_sub(1).map(|before| &versions[before]);
        let is_deployed = index + 1 == versions.len();
        let (state, reason) = state(view, service, version, is_deployed);
        let mut earlier = versions[..index].iter().rev();
        let same = earlier.find(|it| is_same(it.spec, version.spec));
        let missing = missing_files(&view.cluster, service, version.spec);
        VersionRow {
            service: service.clone(),
            version: version.number,
            state,
            reason,
            deployed: version.deployed,
            deployed_by: version.deployed_by.to_owned(),
            image: version.spec.container.image.clone(),
            image_id: version.spec.container.image_id.clone(),
            changes: before
                .map_or_else(Vec::new, |before| diff::changes(before.spec, version.spec, values)),
            same_as: same.map(|it| it.number),
            missing_files: missing.into_iter().map(|key| key.file.to_string()).collect(),
            rollback_target: target == Some(version.number),
        }
    };
    (0..versions.len()).rev().map(row).collect()
}

/// Returns the state of a version, and its reason.
fn state(
    view: &View,
    service: &ServiceKey,
    version: &Version,
    is_deployed: bool,
) -> (VersionState, String) {
    if let Some(reason) = version.failed {
        return (VersionState::Failed, reason.to_owned());
    }
    if version.in_effect {
        let rollout = Rollout::of(view, service).map(|it| it.report()).unwrap_or_default();
        return match rollout.state {
            RolloutState::Updating if is_deployed && !version.complete => {
                (VersionState::Updating, String::new())
            }
            // A version that failed has its reason above: what failed is a restart of this one.
            RolloutState::Paused | RolloutState::RolledBack if is_deployed => {
                (VersionState::Current, format!("its restart failed: {}", rollout.reason))
            }
            _ => (VersionState::Current, String::new()),
        };
    }
    if version.rolled_back {
        return (VersionState::RolledBack, String::new());
    }
    let reason = if version.complete { "" } else { "replaced before its update was complete" };
    (VersionState::Superseded, reason.to_owned())
}
