//! Requests about what instances use.

use std::collections::BTreeMap;
use std::time::Duration;

use vc_crdt::View;
use vc_engine::{find_node, find_services};
use vc_protocol::control::{InstanceRow, Reply, UsageRow};
use vc_protocol::{ApiError, NodeId, ServiceKey};

use super::ControlService;
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};

/// How long the nodes may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a list of instances waits for what they use.
const LIST_TIMEOUT: Duration = Duration::from_millis(250);

impl ControlService {
    /// Answers with what instances use that the user may see, after a note for each node that did not answer.
    pub(super) async fn usage(
        &self,
        user: &User,
        service: Option<&str>,
        node: Option<&str>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let view = self.cluster.view_of(user);
        let (services, nodes) = match select(&view, service, node) {
            Ok(selected) => selected,
            Err(error) => return Ok(Err(error)),
        };
        let mut gathered = self.usages.gather(&view, nodes, TIMEOUT).await;
        for (missing, error) in gathered.missing {
            if node.is_some() {
                return Ok(Err(error.into()));
            }
            let note = format!("what runs on {} is missing: {error}", view.name(missing));
            frames.send(&Reply::Note(note)).await?;
        }
        if let Some(services) = services {
            gathered.rows.retain(|row| services.contains(&row.service));
        }
        Ok(Ok(Reply::Usage(gathered.rows)))
    }

    /// Completes rows with what the instances use, of nodes that answer at once.
    pub(super) async fn add_usage(&self, view: &View, rows: &mut [InstanceRow]) {
        let mut nodes: Vec<NodeId> = rows.iter().filter_map(|row| row.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        add(rows, self.usages.gather(view, nodes, LIST_TIMEOUT).await.rows);
    }
}

/// The services, if not all, and the nodes.
type Selected = (Option<Vec<ServiceKey>>, Vec<NodeId>);

/// Returns the services and the nodes that a request is about.
fn select(view: &View, service: Option<&str>, node: Option<&str>) -> Result<Selected, ApiError> {
    let services = service.map(|it| find_services(&view.cluster, it)).transpose()?;
    let nodes = match node {
        Some(node) => vec![find_node(view, node)?],
        None => view.up.iter().copied().collect(),
    };
    Ok((services, nodes))
}

fn add(rows: &mut [InstanceRow], used: Vec<UsageRow>) {
    let key = |it: UsageRow| {
        ((it.node, it.service, it.replica, it.digest), (it.cpu_millis, it.memory_bytes))
    };
    let used: BTreeMap<_, _> = used.into_iter().map(key).collect();
    for row in rows {
        let Some(node) = row.node else { continue };
        let key = (node, row.service.clone(), row.replica, row.digest.clone());
        if let Some(&(cpu_millis, memory_bytes)) = used.get(&key) {
            (row.cpu_millis, row.memory_bytes) = (cpu_millis, Some(memory_bytes));
        }
    }
}
