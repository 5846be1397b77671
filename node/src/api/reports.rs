//! The reports of a snapshot, computed once for all streams that show it.

use std::sync::{Arc, Mutex, PoisonError};

use vc_engine::report;
use vc_protocol::control::{LiveUpdate, StatusReport};
use vc_protocol::{ClusterId, NodeId};

use crate::snapshot::Snapshot;

/// Returns a summary of the cluster as `node` sees it.
pub(super) fn status(snapshot: &Snapshot, cluster: ClusterId, node: NodeId) -> StatusReport {
    let mut status = report::status(&snapshot.view, &snapshot.vitals, cluster, node);
    status.problems.extend(snapshot.duplicates.iter().cloned());
    status
}

/// A snapshot and its reports.
type Cached = (Snapshot, Arc<LiveUpdate>);

/// Holds the reports of the latest snapshot. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ReportCache(Arc<Mutex<Option<Cached>>>);

impl ReportCache {
    /// Returns all reports of a snapshot. Callers with the same snapshot get the same reports.
    pub(super) fn of(
        &self,
        snapshot: &Snapshot,
        cluster: ClusterId,
        node: NodeId,
    ) -> Arc<LiveUpdate> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, reports)) = &*cached
            && Arc::ptr_eq(&of.view, &snapshot.view)
            && Arc::ptr_eq(&of.vitals, &snapshot.vitals)
            && Arc::ptr_eq(&of.duplicates, &snapshot.duplicates)
        {
            return Arc::clone(reports);
        }
        let Snapshot { view, vitals, .. } = snapshot;
        let reports = Arc::new(LiveUpdate {
            status: Some(status(snapshot, cluster, node)),
            nodes: Some(report::nodes(view, vitals)),
            services: Some(report::services(view)),
            instances: Some(report::instances(view)),
            events: Vec::new(),
        });
        *cached = Some((snapshot.clone(), Arc::clone(&reports)));
        reports
    }
}
