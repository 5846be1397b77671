//! What users see of the voters: which nodes they are, and what follows from those that are down.

use std::collections::BTreeSet;

use vc_crdt::{View, VoterEntry, VoterKey};
use vc_protocol::control::{NodeStatus, VoterReport, VoterRow};
use vc_protocol::{NodeId, ServiceKey};

use crate::report::role;

/// The most services that a line names.
const MAX_NAMED: usize = 4;

/// Returns the servers that have not left.
pub(crate) fn servers(view: &View) -> BTreeSet<NodeId> {
    let left = &view.cluster.left;
    view.servers.iter().copied().filter(|node| !left.contains_key(node)).collect()
}

/// Returns the voters, and the nodes that may become some.
pub fn report(view: &View) -> VoterReport {
    let set = view.cluster.voter_set();
    let voters = set.map(|set| set.voters.clone()).unwrap_or_default();
    let row = |id: NodeId| VoterRow {
        id,
        name: view.name(id),
        role: role(view, id),
        state: match () {
            () if view.cluster.left.contains_key(&id) => NodeStatus::Left,
            () if view.up.contains(&id) => NodeStatus::Up,
            () => NodeStatus::Down,
        },
        votes: voters.contains(&id),
        since: since(view, id),
        wish: match view.cluster.voters.get(&VoterKey::Wish(id)) {
            Some(VoterEntry::Wish(wish)) => Some(*wish),
            _ => None,
        },
    };
    let mut nodes: Vec<VoterRow> = (&servers(view) | &voters).into_iter().map(row).collect();
    nodes.sort_by_cached_key(|row| (row.state == NodeStatus::Left, row.name.clone(), row.id));
    VoterReport {
        number: set.map_or(0, |set| set.number),
        lease_ms: set.map_or(0, |set| set.lease_ms),
        forced: set.is_some_and(|set| set.forced),
        waits_for: waits_for(view).unwrap_or_default(),
        nodes,
    }
}

/// Returns the number of the set since which a node has been a voter, of those that are kept; 0 if it is none.
fn since(view: &View, node: NodeId) -> u64 {
    let sets = view.cluster.voters.values().rev().filter_map(|entry| match entry {
        VoterEntry::Set(set) => Some(set),
        VoterEntry::Wish(_) => None,
    });
    let votes = sets.take_while(|set| set.voters.contains(&node));
    votes.last().map_or(0, |set| set.number)
}

/// Says what the choice of the first voters waits for; `None` once there are voters.
fn waits_for(view: &View) -> Option<String> {
    if view.cluster.voter_set().is_some() {
        return None;
    }
    let names =
        |nodes: BTreeSet<NodeId>| -> String { named(nodes.into_iter().map(|it| view.name(it))) };
    let down: BTreeSet<NodeId> =
        view.nodes.keys().copied().filter(|node| !view.up.contains(node)).collect();
    Some(match () {
        () if !view.has_voters => {
            "all nodes to run a version of vc-node that knows leases: see 'vc nodes'".to_owned()
        }
        () if !down.is_empty() => format!(
            "all nodes to be up at one time; down: {} ('vc leave NODE --force' removes one that is gone for good)",
            names(down)
        ),
        () => "all nodes to know the same of the cluster, which takes a moment".to_owned(),
    })
}

/// Returns names in one line, sorted, the first few.
fn named(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    match names.len().checked_sub(MAX_NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MAX_NAMED].join(", ")),
    }
}

/// Returns the nodes that are up and can vote: one that cannot read the documents does not know whether it is a voter.
pub(crate) fn able(view: &View) -> BTreeSet<NodeId> {
    let reads = |node: &NodeId| view.nodes.get(node).is_none_or(|state| !state.holds.all);
    view.up.iter().copied().filter(reads).collect()
}

/// Returns the exclusive services of a view.
fn exclusive(view: &View) -> Vec<&ServiceKey> {
    let services = view.cluster.services.keys();
    let is_exclusive = |key: &&ServiceKey| view.spec(key).is_some_and(|spec| spec.is_exclusive());
    services.filter(is_exclusive).collect()
}

/// Returns a line if exclusive services cannot run, or could not start: there are no voters, or no majority of them is up.
pub(crate) fn problems(whole: &View, limited: Option<&View>) -> Option<String> {
    let services = exclusive(limited.unwrap_or(whole));
    let listed = || named(services.iter().map(ToString::to_string));
    let Some(set) = whole.cluster.voter_set() else {
        let waits_for = waits_for(whole).filter(|_| whole.has_voters && !services.is_empty())?;
        return Some(format!(
            "no voters are chosen yet, so {} cannot start: waits for {waits_for}",
            listed()
        ));
    };
    let down: Vec<NodeId> = set.voters.difference(&able(whole)).copied().collect();
    let up = set.voters.len() - down.len();
    if up >= set.majority() {
        return None;
    }
    let (voters, down) = (set.voters.len(), named(down.into_iter().map(|it| whole.name(it))));
    let stops = match services.is_empty() {
        true => "no exclusive service can run".to_owned(),
        false => format!("exclusive services stop: {}", listed()),
    };
    Some(format!(
        "{up} of {voters} voters reachable, {} needed; not reachable: {down}. Until then {stops}. Start those nodes again, or upgrade them if they run an \
         older version; if they are gone for good, 'vc voters force NODE...' makes others the voters; a service with 'x-vc: {{on_partition: available}}' needs none",
        set.majority()
    ))
}

/// Returns a line if the death of one server is enough to stop exclusive services, though there is another one.
pub(crate) fn hints(view: &View) -> Option<String> {
    let set = view.cluster.voter_set()?;
    let (servers, voters) = (servers(view), set.voters.len());
    if servers.len() != 2 || voters > 2 || set.voters.intersection(&view.up).count() < voters {
        return None;
    }
    let names = named(set.voters.iter().map(|&it| view.name(it)));
    let stops = match voters {
        1 => format!("{names} is the only voter: while it is down, exclusive services do not run"),
        _ => format!("{names} are the voters: while one is down, exclusive services do not run"),
    };
    Some(format!(
        "of two servers {stops}. With a third server, or a witness ('vc-node join --role witness'), any one may be down; a service with \
         'x-vc: {{on_partition: available}}' needs no voters"
    ))
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord};
    use vc_protocol::Keypair;
    use vc_protocol::lease::{LEASE_MS, VoterSet};
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{OnPartition, ServiceSpec};

    use super::*;

    fn id(byte: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn set(number: u64, voters: &[u8]) -> VoterSet {
        let voters = voters.iter().map(|&byte| id(byte)).collect();
        VoterSet { number, voters, lease_ms: LEASE_MS, forced: false, by: String::new() }
    }

    /// A view of servers n1 to n`count`, with the sets of voters in turn, and an exclusive service.
    fn view(count: u8, sets: &[&[u8]], up: &[u8]) -> View {
        let mut cluster = ClusterState::default();
        for (number, voters) in (1..).zip(sets) {
            cluster.set_voters(set(number, voters));
        }
        let spec =
            ServiceSpec { on_partition: Some(OnPartition::Exclusive), ..ServiceSpec::default() };
        let record = ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 1,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        cluster.services.insert("shop/db".parse().expect("a service"), record.into());
        let nodes: BTreeMap<NodeId, NodeState> = (1..=count)
            .map(|byte| {
                let info = Some(NodeInfo::for_tests(&format!("n{byte}")));
                (id(byte), NodeState { info, ..NodeState::default() })
            })
            .collect();
        let view = View::from_states(cluster, nodes, &KnownVersions::default());
        let (servers, up) =
            ((1..=count).map(id).collect(), up.iter().map(|&byte| id(byte)).collect());
        View { servers, up, ..view }
    }

    #[test]
    fn a_row_says_since_which_set_a_node_votes() {
        let mut view = view(3, &[&[1], &[1, 2], &[2], &[2, 3]], &[1, 2, 3]);
        view.cluster.voters.insert(VoterKey::Wish(id(1)), VoterEntry::Wish(false));
        let report = report(&view);
        assert_eq!((report.number, report.reachable()), (4, (2, 2)));
        let rows: Vec<_> = report
            .nodes
            .iter()
            .map(|row| (row.name.as_str(), row.votes, row.since, row.wish))
            .collect();
        let expected =
            [("n1", false, 0, Some(false)), ("n2", true, 2, None), ("n3", true, 4, None)];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_missing_majority_is_a_problem_that_names_voters_services_and_ways_out() {
        let three: &[&[u8]] = &[&[1, 2, 3]];
        assert_eq!(problems(&view(3, three, &[1, 2]), None), None);
        let problem = problems(&view(3, three, &[1]), None).expect("no majority");
        for part in
            ["1 of 3 voters", "n2, n3", "shop/db", "vc voters force", "on_partition: available"]
        {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }

    #[test]
    fn a_choice_that_waits_for_a_node_says_for_which() {
        assert_eq!(report(&view(2, &[&[1]], &[1, 2])).waits_for, "");
        let waiting = view(2, &[], &[1]);
        let problem = problems(&waiting, None).expect("no voters");
        assert!(problem.contains("shop/db") && problem.contains("down: n2"), "{problem}");
        let older = View { has_voters: false, ..waiting };
        assert_eq!(problems(&older, None), None, "services run as before");
        assert!(report(&older).waits_for.contains("version of vc-node"));
    }

    #[test]
    fn two_servers_are_told_what_a_third_one_would_bring() {
        let hint = hints(&view(2, &[&[1]], &[1, 2])).expect("a hint");
        assert!(hint.contains("n1 is the only voter") && hint.contains("--role witness"), "{hint}");
        assert!(
            hints(&view(2, &[&[1, 2]], &[1, 2])).expect("a hint").contains("while one is down")
        );
        assert_eq!(hints(&view(1, &[&[1]], &[1])), None);
        assert_eq!(hints(&view(3, &[&[1, 2, 3]], &[1, 2, 3])), None);
    }
}
