//! Whether the cluster is as well after the upgrade of a node as it was before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vc_protocol::alert::ProblemKind;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus, ProblemId, StatusReport};
use vc_protocol::{NodeId, ServiceKey};

/// The state of the cluster at one time.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pub(super) nodes: Vec<NodeRow>,
    pub(super) instances: Vec<InstanceRow>,
    pub(super) status: StatusReport,
}

/// What was wrong, and what ran, before.
#[derive(Debug, Clone, Default)]
pub(super) struct Baseline {
    problems: BTreeSet<ProblemId>,
    running: BTreeSet<(ServiceKey, u32)>,
}

impl Baseline {
    /// Returns that of an observation.
    pub(super) fn of(before: &Observation) -> Self {
        let problems = before.status.problem_ids.iter().cloned().collect();
        let running = before.instances.iter().filter(|row| row.state.is_running());
        let running = running.map(|row| (row.service.clone(), row.replica)).collect();
        Self { problems, running }
    }

    /// Keeps the problems, and takes what runs from another observation.
    pub(super) fn with_instances_of(&self, now: &Observation) -> Self {
        Self { problems: self.problems.clone(), ..Self::of(now) }
    }

    /// Returns what is worse than before, after the upgrade of a node.
    pub(super) fn worse(&self, node: NodeId, now: &Observation) -> Option<String> {
        let row = now.nodes.iter().find(|row| row.id == node);
        match row {
            None => return Some("it is no member any more".to_owned()),
            Some(row) if row.state != NodeStatus::Up => return Some("it is not up".to_owned()),
            Some(row) if row.restarting => return Some("it is restarting".to_owned()),
            Some(_) => {}
        }
        let problems = now.status.problems.iter().zip(&now.status.problem_ids);
        // The others are older until it is their turn.
        let mut new = problems
            .filter(|(_, id)| id.kind != ProblemKind::Upgrade && !self.problems.contains(id));
        if let Some((text, _)) = new.next() {
            return Some(text.clone());
        }
        let stopped = now.instances.iter().find(|row| {
            let ran = self.running.contains(&(row.service.clone(), row.replica));
            ran && !row.ended && !row.state.is_running()
        });
        stopped.map(|row| {
            let state = row.state.as_str();
            format!("{}.{} ran before, and is {state}", row.service, row.replica)
        })
    }
}

/// Waits until nothing has been worse for a while.
#[derive(Debug)]
pub(super) struct Watch {
    /// How long.
    look: Duration,
    /// Since when nothing is.
    since: Option<Instant>,
}

impl Watch {
    pub(super) fn new(look: Duration) -> Self {
        Self { look, since: None }
    }

    /// Returns whether that is so, with what is worse at this time.
    pub(super) fn is_over(&mut self, now: Instant, worse: bool) -> bool {
        if worse {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.look
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::instance::InstanceState;

    use super::*;
    use crate::render::golden;

    fn problem(kind: ProblemKind, id: &str) -> ProblemId {
        ProblemId { kind, id: id.to_owned() }
    }

    fn observation(problems: &[(ProblemId, &str)]) -> Observation {
        let mut nodes = vec![golden::node(1, "n1", NodeStatus::Up)];
        nodes[0].restarting = false;
        let mut status = golden::status_report();
        for (id, text) in problems {
            status.problem_ids.push(id.clone());
            status.problems.push((*text).to_owned());
        }
        let instances = vec![golden::instance(1, InstanceState::Running)];
        Observation { nodes, instances, status }
    }

    #[test]
    fn problems_of_before_and_older_nodes_do_not_stop_an_upgrade() {
        let disk = || problem(ProblemKind::Disk, "a");
        let before = Baseline::of(&observation(&[(disk(), "10 MiB free")]));
        let node = golden::node_id(1);
        let later = observation(&[
            (disk(), "9 MiB free"),
            (problem(ProblemKind::Upgrade, "b"), "node n2 runs an older one"),
        ]);
        assert_eq!(before.worse(node, &later), None);
        let lag = observation(&[(problem(ProblemKind::VolumeLag, "c"), "shop/data is behind")]);
        assert_eq!(before.worse(node, &lag).as_deref(), Some("shop/data is behind"));
    }

    #[test]
    fn a_node_that_is_not_back_and_instances_that_ran_are_waited_for() {
        let fine = observation(&[]);
        let before = Baseline::of(&fine);
        let node = golden::node_id(1);
        assert_eq!(before.worse(node, &fine), None);
        let mut later = fine.clone();
        later.nodes[0].restarting = true;
        assert_eq!(before.worse(node, &later).as_deref(), Some("it is restarting"));
        later.nodes[0].state = NodeStatus::Down;
        assert_eq!(before.worse(node, &later).as_deref(), Some("it is not up"));
        let mut later = fine.clone();
        later.instances[0].state = InstanceState::Starting;
        assert!(before.worse(node, &later).is_some_and(|it| it.ends_with("and is starting")));
        later.instances[0].ended = true;
        assert_eq!(before.worse(node, &later), None, "a job has ended");
        later.instances.clear();
        assert_eq!(before.worse(node, &later), None, "it was removed");
    }

    #[test]
    fn the_look_begins_anew_whenever_something_is_worse() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(Duration::from_secs(10));
        assert!(!watch.is_over(at(0), true));
        assert!(!watch.is_over(at(1), false));
        assert!(!watch.is_over(at(9), true));
        assert!(!watch.is_over(at(10), false));
        assert!(!watch.is_over(at(19), false));
        assert!(watch.is_over(at(20), false));
        assert!(Watch::new(Duration::ZERO).is_over(at(0), false));
    }
}
