//! Wishes about voters, forced voters, and nodes that leave while they vote.

use vc_crdt::{VoterEntry, VoterKey};
use vc_protocol::lease::{LEASE_MS, VoterSet};

use super::*;

fn set(number: u64, voters: &[u8]) -> VoterSet {
    let voters = voters.iter().map(|&number| node(number)).collect();
    VoterSet { number, voters, lease_ms: LEASE_MS, forced: false, by: String::new() }
}

/// Servers n1 to n`count`, of which those in `up` are up.
struct Voters {
    state: ClusterState,
    count: u8,
    up: Vec<u8>,
}

impl Voters {
    fn new(count: u8, voters: &[u8], up: &[u8]) -> Self {
        let mut state = ClusterState::default();
        state.set_voters(set(7, voters));
        Self { state, count, up: up.to_vec() }
    }

    /// With a worker called n9.
    fn view(&self) -> View {
        let info = |number: u8| Some(NodeInfo::for_tests(&format!("n{number}")));
        let numbers = (1..=self.count).chain([9]);
        let nodes: BTreeMap<NodeId, NodeState> = numbers
            .map(|it| (node(it), NodeState { info: info(it), ..NodeState::default() }))
            .collect();
        let view = View::from_states(self.state.clone(), nodes, &KnownVersions::default());
        let servers = (1..=self.count).map(node).collect();
        View { servers, up: self.up.iter().map(|&it| node(it)).collect(), ..view }
    }

    fn apply(&mut self, mutation: &Mutation) -> Result<String, String> {
        let by = Subject { name: "ada".to_owned(), token_id: String::new(), address: None };
        let applied = mutation.apply(&self.view(), &by, NOW);
        let (state, changes) = applied.map_err(|error| ApiError::from(error).to_string())?;
        self.state = state;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn wish(&mut self, node: &str, votes: Option<bool>) -> Result<String, String> {
        self.apply(&Mutation::SetVoter { node: node.to_owned(), votes })
    }

    fn force(&mut self, nodes: &[&str]) -> Result<String, String> {
        let nodes = nodes.iter().map(|&it| it.to_owned()).collect();
        self.apply(&Mutation::ForceVoters { nodes })
    }

    fn leave(&mut self, node: &str, force: bool) -> Result<String, String> {
        self.apply(&Mutation::Leave { node: node.to_owned(), force })
    }
}

#[test]
fn a_wish_is_recorded_and_taken_back() {
    let mut it = Voters::new(3, &[1], &[1, 2, 3]);
    assert_eq!(it.wish("n2", Some(true)).as_deref(), Ok("n2 is to be a voter"));
    assert_eq!(it.state.voter_wishes(true), BTreeSet::from([node(2)]));
    assert_eq!(it.wish("n2", Some(false)).as_deref(), Ok("n2 is to be no voter"));
    assert_eq!(it.state.voter_wishes(false), BTreeSet::from([node(2)]));
    let back = it.wish("n2", None);
    assert_eq!(back.as_deref(), Ok("the cluster decides whether n2 is a voter"));
    assert_eq!(it.state.voters.len(), 1, "the set");
    let worker = it.wish("n9", Some(true)).expect_err("a worker");
    assert!(worker.starts_with("n9 is a worker"), "{worker}");
}

#[test]
fn the_last_voter_stays_until_another_server_may_be_one() {
    let mut it = Voters::new(2, &[1], &[1]);
    let refused = it.wish("n1", Some(false)).expect_err("n2 is down");
    assert!(refused.starts_with("n1 is the last voter"), "{refused}");
    it.up.push(2);
    it.wish("n2", Some(false)).expect("n1 votes");
    it.wish("n1", Some(false)).expect_err("n2 is not wanted");
    it.wish("n2", None).expect("taken back");
    it.wish("n1", Some(false)).expect("n2 takes over");
}

#[test]
fn at_most_seven_voters_are_wished_for() {
    let mut it = Voters::new(8, &[1], &[1, 2, 3, 4, 5, 6, 7, 8]);
    for number in 1..=7 {
        it.wish(&format!("n{number}"), Some(true)).expect("recorded");
    }
    it.wish("n3", Some(true)).expect("again");
    let refused = it.wish("n8", Some(true)).expect_err("too many");
    assert!(refused.contains("at most 7 voters"), "{refused}");
}

#[test]
fn forced_voters_have_a_number_that_no_decision_under_way_has() {
    let mut it = Voters::new(3, &[1, 2, 3], &[3]);
    let down = it.force(&["n1", "n2", "n3"]).expect_err("no majority of them is up");
    assert!(down.contains("is down: of these voters 2 have to be up"), "{down}");
    it.force(&["n9"]).expect_err("a worker");
    it.force(&[]).expect_err("nothing is named");
    it.state.voters.insert(VoterKey::Wish(node(3)), VoterEntry::Wish(false));
    let forced = it.force(&["n3"]);
    let line = "the voters are n3 (set 1007), without the consent of those before";
    assert_eq!(forced.as_deref(), Ok(line));
    let present = it.state.voter_set().expect("a set");
    assert_eq!(
        *present,
        VoterSet { number: 1007, forced: true, by: "ada".to_owned(), ..set(0, &[3]) }
    );
    assert!(it.state.voter_wishes(false).is_empty(), "it is wanted now");
}

#[test]
fn a_voter_leaves_in_order_only_after_its_vote() {
    let mut it = Voters::new(2, &[1], &[1, 2]);
    let votes = it.leave("n1", false).expect_err("a voter");
    assert_eq!(votes, "n1 is a voter: run 'vc voters remove n1' first");
    it.wish("n1", Some(false)).expect("recorded");
    it.state.set_voters(set(9, &[2]));
    it.leave("n1", false).expect("it votes no more");
    assert!(it.state.voter_wishes(false).is_empty(), "nothing is wished of a node that left");
    let last = it.leave("n2", false).expect_err("the last one");
    assert!(last.starts_with("n2 is the last voter"), "{last}");
}

#[test]
fn a_forced_leave_says_whether_a_majority_is_left() {
    let lost = |voters: &[u8], up: &[u8], node: &str| {
        let it = Voters::new(3, voters, up);
        let by = Subject { name: "ada".to_owned(), token_id: String::new(), address: None };
        let leave = Mutation::Leave { node: node.to_owned(), force: true };
        match leave.apply(&it.view(), &by, NOW).expect("it leaves").1.as_slice() {
            [vc_protocol::control::Change::Left { majority_lost, .. }] => *majority_lost,
            other => panic!("{other:?}"),
        }
    };
    assert!(!lost(&[1, 2, 3], &[1, 2], "n3"));
    assert!(lost(&[1, 2, 3], &[1], "n3"));
    assert!(lost(&[3], &[1, 2], "n3"));
    assert!(!lost(&[3], &[1, 3], "n2"), "it was none");
}
