//! Which nodes are upgraded, in which order, and why the others are not.

use vc_protocol::NodeId;
use vc_protocol::control::{NodeRow, NodeStatus, ProgramId, ProgramRow};

use super::error::NoProgram;

/// A node, with what it says of its program; else why it says nothing.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) row: NodeRow,
    pub(super) program: Result<ProgramRow, NoProgram>,
}

/// The program that the nodes are to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// This one.
    Program {
        id: ProgramId,
        version: String,
        /// As Docker names it.
        arch: String,
    },
    /// Each the one that it ran before.
    Previous,
}

/// What becomes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is to run this program.
    Upgrade(ProgramId),
    /// It runs it already.
    Done,
    /// It cannot be upgraded now, for this reason.
    Skip(String),
}

/// A node with what becomes of it.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) candidate: Candidate,
    pub(super) decision: Decision,
}

impl Planned {
    /// Returns the version that the node runs.
    pub(super) fn version(&self) -> &str {
        match &self.candidate.program {
            Ok(program) => &program.version,
            Err(_) => &self.candidate.row.version,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.candidate.row.id
    }

    pub(super) fn name(&self) -> &str {
        &self.candidate.row.name
    }
}

/// Decides about each node: first those that are upgraded, in their order. Nodes of which least depends go first, and `attached`, through
/// which all of it goes, last; those that were named stay in that order.
pub(super) fn plan(
    candidates: Vec<Candidate>,
    goal: &Goal,
    attached: NodeId,
    named: bool,
) -> Vec<Planned> {
    let planned = candidates.into_iter().map(|candidate| {
        let decision = decide(&candidate, goal);
        Planned { candidate, decision }
    });
    let mut planned: Vec<Planned> = planned.collect();
    planned.sort_by_cached_key(|it| {
        let row = &it.candidate.row;
        let is_left_out = !matches!(it.decision, Decision::Upgrade(_));
        let order = (row.id == attached, row.votes, row.instances, row.name.clone(), row.id);
        (is_left_out, (!named).then_some(order))
    });
    planned
}

fn decide(Candidate { row, program }: &Candidate, goal: &Goal) -> Decision {
    let skip = |reason: &str| Decision::Skip(reason.to_owned());
    if row.state != NodeStatus::Up {
        return skip("it is down: run this again when it is back");
    }
    if row.restarting {
        return skip("it is restarting: run this again when it is back");
    }
    let program = match program {
        Ok(program) => program,
        Err(error) => return Decision::Skip(error.to_string()),
    };
    let id = match goal {
        Goal::Program { id, arch, .. } => {
            if program.digest == id.digest {
                return Decision::Done;
            }
            let platform = row.platform.rsplit('/').next().unwrap_or_default();
            if platform != arch {
                return Decision::Skip(format!(
                    "it is {platform}: run this again with a build for that"
                ));
            }
            id.clone()
        }
        Goal::Previous => match &program.previous {
            Some(previous) => previous.clone(),
            None => return skip("it has no program from before"),
        },
    };
    match program.refuses.as_str() {
        "" => Decision::Upgrade(id),
        reason => skip(reason),
    }
}

/// Returns why a node must not restart now, while the others are as they are.
pub(super) fn must_wait(nodes: &[NodeRow], node: NodeId) -> Option<String> {
    let is_member = |row: &&NodeRow| row.state != NodeStatus::Left;
    if let Some(row) = nodes.iter().filter(is_member).find(|row| row.id != node && row.restarting) {
        return Some(format!("{} is restarting", row.name));
    }
    let voters: Vec<&NodeRow> = nodes.iter().filter(is_member).filter(|row| row.votes).collect();
    let others = voters.iter().filter(|row| row.id != node && row.state == NodeStatus::Up).count();
    let votes = voters.iter().any(|row| row.id == node);
    // Of one or two, none can be missed anyway.
    if votes && voters.len() > 2 && others * 2 <= voters.len() {
        let count = voters.len();
        return Some(format!(
            "without it {others} of {count} voters are up, which is no majority: leases could not be granted"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::golden;

    const NEW: &str = "sha256:new";

    fn id(digest: &str) -> ProgramId {
        ProgramId { digest: digest.to_owned(), size: 7 }
    }

    fn goal() -> Goal {
        Goal::Program { id: id(NEW), version: "0.2.0".to_owned(), arch: "amd64".to_owned() }
    }

    fn candidate(n: u8, change: impl FnOnce(&mut NodeRow, &mut ProgramRow)) -> Candidate {
        let mut row = golden::node(n, &format!("n{n}"), NodeStatus::Up);
        (row.platform, row.restarting) = ("linux/amd64".to_owned(), false);
        (row.votes, row.instances) = (false, 0);
        let mut program = ProgramRow {
            node: row.id,
            node_name: row.name.clone(),
            version: "0.1.0".to_owned(),
            digest: "sha256:old".to_owned(),
            path: "/usr/bin/vc-node".to_owned(),
            package: String::new(),
            previous: None,
            refuses: String::new(),
            failed: None,
        };
        change(&mut row, &mut program);
        Candidate { row, program: Ok(program) }
    }

    fn order(candidates: Vec<Candidate>, attached: u8, named: bool) -> Vec<String> {
        let planned = plan(candidates, &goal(), golden::node_id(attached), named);
        let upgraded = planned.iter().filter(|it| matches!(it.decision, Decision::Upgrade(_)));
        upgraded.map(|it| it.name().to_owned()).collect()
    }

    #[test]
    fn what_least_depends_on_goes_first_and_the_attached_node_last() {
        let all = || {
            vec![
                candidate(1, |_, _| {}),
                candidate(2, |row, _| row.votes = true),
                candidate(3, |row, _| row.instances = 2),
                candidate(4, |row, _| row.instances = 1),
            ]
        };
        assert_eq!(order(all(), 1, false), ["n4", "n3", "n2", "n1"]);
        assert_eq!(order(all(), 3, false), ["n1", "n4", "n2", "n3"]);
        assert_eq!(order(all(), 1, true), ["n1", "n2", "n3", "n4"], "as they were named");
    }

    #[test]
    fn nodes_that_cannot_be_upgraded_or_need_not_are_left_out() {
        let decision =
            |change: fn(&mut NodeRow, &mut ProgramRow)| decide(&candidate(1, change), &goal());
        assert_eq!(decision(|_, _| {}), Decision::Upgrade(id(NEW)));
        assert_eq!(decision(|_, program| program.digest = NEW.to_owned()), Decision::Done);
        let skipped = |change| match decision(change) {
            Decision::Skip(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert!(skipped(|row, _| row.state = NodeStatus::Down).contains("down"));
        assert!(skipped(|row, _| row.restarting = true).contains("restarting"));
        assert!(skipped(|row, _| row.platform = "linux/arm64".to_owned()).contains("arm64"));
        assert_eq!(skipped(|_, program| program.refuses = "no".to_owned()), "no");
        let silent = Candidate { program: Err(NoProgram::TooOld), ..candidate(1, |_, _| {}) };
        assert_eq!(decide(&silent, &goal()), Decision::Skip(NoProgram::TooOld.to_string()));
    }

    #[test]
    fn a_node_goes_back_to_the_program_that_it_has_from_before() {
        let before = candidate(1, |_, program| program.previous = Some(id("sha256:before")));
        assert_eq!(decide(&before, &Goal::Previous), Decision::Upgrade(id("sha256:before")));
        let none = decide(&candidate(1, |_, _| {}), &Goal::Previous);
        assert_eq!(none, Decision::Skip("it has no program from before".to_owned()));
    }

    #[test]
    fn a_voter_waits_while_another_one_of_three_is_down() {
        let voter = |n, state| NodeRow { votes: true, state, ..candidate(n, |_, _| {}).row };
        let up = |n| voter(n, NodeStatus::Up);
        let first = golden::node_id(1);
        assert_eq!(must_wait(&[up(1), up(2), up(3)], first), None);
        assert_eq!(must_wait(&[up(1)], first), None, "it is alone anyway");
        let down = must_wait(&[up(1), up(2), voter(3, NodeStatus::Down)], first);
        assert!(down.is_some_and(|reason| reason.contains("1 of 3 voters")));
        let gone = [up(1), up(2), up(3), voter(4, NodeStatus::Left)];
        assert_eq!(must_wait(&gone, first), None);
        let mut restarting = up(2);
        restarting.restarting = true;
        assert_eq!(
            must_wait(&[up(1), restarting, up(3)], first).as_deref(),
            Some("n2 is restarting")
        );
    }
}
