//! The reports of a snapshot, computed once for all streams that show it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use vc_crdt::View;
use vc_engine::report;
use vc_protocol::control::{LiveUpdate, StatusReport};
use vc_protocol::{ClusterId, Name, NodeId};

use super::mask;
use crate::auth::Rights;
use crate::snapshot::Snapshot;

/// Returns a summary of the cluster as `node` sees it.
/// `limited` is the part of the view that is shown, if not all of it.
pub(super) fn status(
    snapshot: &Snapshot,
    limited: Option<&View>,
    cluster: ClusterId,
    node: NodeId,
) -> StatusReport {
    let mut status = report::status(
        &snapshot.view,
        limited,
        &snapshot.vitals,
        cluster,
        node,
        crate::clock::now(),
    );
    snapshot.add_own_problems(node, cluster, &mut status);
    status
}

/// What decides how much of the reports a user sees: the projects, and whether values and logs may be seen.
type Audience = (Option<BTreeSet<Name>>, bool, bool);

/// The reports of the latest snapshot, for each audience that has asked. Audiences are as many as tokens' limits.
#[derive(Default)]
struct Cached {
    snapshot: Option<Snapshot>,
    reports: BTreeMap<Audience, Arc<LiveUpdate>>,
}

/// Holds the reports of the latest snapshot. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ReportCache(Arc<Mutex<Cached>>);

impl ReportCache {
    /// Returns the reports of a snapshot that show what a user may see. Callers with the same snapshot and rights get the same
    /// reports.
    pub(super) fn of(
        &self,
        snapshot: &Snapshot,
        rights: &Rights,
        cluster: ClusterId,
        node: NodeId,
    ) -> Arc<LiveUpdate> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = cached.snapshot.as_ref().is_some_and(|of| {
            Arc::ptr_eq(&of.view, &snapshot.view)
                && Arc::ptr_eq(&of.vitals, &snapshot.vitals)
                && of.audit == snapshot.audit
                && of.watchdog == snapshot.watchdog
        });
        if !is_current {
            *cached = Cached { snapshot: Some(snapshot.clone()), reports: BTreeMap::new() };
        }
        let audience =
            (rights.projects().cloned(), rights.may_see_values(), rights.may_read_logs());
        if let Some(reports) = cached.reports.get(&audience) {
            return Arc::clone(reports);
        }
        let Snapshot { view: whole, vitals, .. } = snapshot;
        let limited = rights.projects().map(|projects| whole.limited_to(projects));
        let view = limited.as_ref().unwrap_or(whole);
        let mut instances = report::instances(view);
        mask::instances(rights, &mut instances);
        let mut services = report::services(view);
        mask::services(rights, &mut services);
        let mut status = status(snapshot, limited.as_ref(), cluster, node);
        mask::status(rights, &mut status);
        let reports = Arc::new(LiveUpdate {
            status: Some(status),
            nodes: Some(report::nodes(whole, vitals)),
            services: Some(services),
            instances: Some(instances),
            events: Vec::new(),
        });
        cached.reports.insert(audience, Arc::clone(&reports));
        reports
    }
}
