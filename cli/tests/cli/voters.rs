//! `vc voters`, and `vc leave` of a voter.

use std::sync::atomic::{AtomicU64, Ordering};

use vc_protocol::control::{Change, NodeStatus, Reply, Request, VoterReport, VoterRow};

use crate::Home;
use crate::node::{Node, OURS, Plan, attached_to, done, member, node_id, node_row};

const ATTIC: u8 = 1;
const DESK: u8 = 2;

/// Two servers, of which desk votes, and attic if it is said.
fn report(number: u64, attic: bool) -> VoterReport {
    let row = |n, name: &str, votes: bool| VoterRow {
        id: node_id(n),
        name: name.to_owned(),
        role: "server".to_owned(),
        state: NodeStatus::Up,
        votes,
        since: if votes { number } else { 0 },
        wish: None,
    };
    VoterReport {
        number,
        lease_ms: 6000,
        forced: false,
        waits_for: String::new(),
        nodes: vec![row(ATTIC, "attic", attic), row(DESK, "desk", true)],
    }
}

/// A node whose voters change at the third look; `votes`: whether attic is one then.
fn changes(votes: bool) -> Plan {
    let looks = AtomicU64::new(0);
    let mut plan = member(OURS, 10, vec![]);
    let (node, node_name) = (node_id(ATTIC), "attic".to_owned());
    plan.answer = Box::new(move |request| match request {
        Request::Voters => match looks.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => vec![Reply::Voters(report(3, !votes))],
            _ => vec![Reply::Voters(report(4, votes))],
        },
        Request::SetVoter { votes, .. } => {
            done(Change::VoterWished { node, node_name: node_name.clone(), votes: *votes })
        }
        Request::Drain { .. } => done(Change::Drained { node, node_name: node_name.clone() }),
        Request::Nodes => {
            let mut attic = node_row(ATTIC, "attic");
            // A node that is down has nothing to move.
            (attic.votes, attic.state) = (true, NodeStatus::Down);
            vec![Reply::Nodes(vec![attic, node_row(DESK, "desk")])]
        }
        Request::Leave { force, .. } => done(Change::Left {
            node,
            node_name: node_name.clone(),
            knows_key: false,
            volumes: vec![],
            majority_lost: *force,
        }),
        other => panic!("{other:?}"),
    });
    plan
}

fn vc(home: &Home, node: &Node, args: &[&str]) -> crate::CommandOutput {
    let token = OURS.token(&[&node.address]);
    home.vc(&[&["--token", &token], args].concat())
}

#[test]
fn the_list_says_which_servers_vote_and_since_when() {
    let mut voters = report(3, false);
    voters.nodes[0].wish = Some(false);
    let (home, _node) = attached_to(vec![Reply::Voters(voters)]);
    let table = home.vc(&["voters"]).ok();
    let expected = "\
set 3: 1 of 1 voters reachable, lease time 6s

NODE    ROLE     STATE   VOTES   SINCE   WISHED
attic   server   up      no      -       no voter
desk    server   up      yes     set 3   -
";
    assert_eq!(table, expected);
    let unchosen = VoterReport { number: 0, waits_for: "n2".to_owned(), ..report(0, false) };
    let (home, _node) = attached_to(vec![Reply::Voters(unchosen)]);
    let table = home.vc(&["voters", "ls"]).ok();
    assert!(table.starts_with("not chosen yet: waits for n2\n"), "{table}");
}

#[test]
fn a_change_is_awaited_with_progress() {
    for (verb, votes, told) in [("add", true, "a voter"), ("remove", false, "no voter")] {
        let node = Node::start(changes(votes));
        let out = vc(&Home::new(), &node, &["voters", verb, "attic"]);
        let names = if votes { "attic, desk" } else { "desk" };
        let lines = format!("attic is to be {told}\nthe voters are {names} (set 4)\n");
        assert_eq!(out.ok(), lines);
        let looks = node.requests().iter().filter(|it| **it == Request::Voters).count();
        assert_eq!(looks, 3);

        let node = Node::start(changes(votes));
        vc(&Home::new(), &node, &["voters", verb, "attic", "--no-wait"]).ok();
        let wish = Request::SetVoter { node: "attic".to_owned(), votes: Some(votes) };
        assert_eq!(node.requests(), [wish]);
    }
}

#[test]
fn a_change_that_does_not_come_says_why() {
    let mut plan = changes(true);
    let rest = std::mem::replace(&mut plan.answer, Box::new(|_| vec![]));
    plan.answer = Box::new(move |request| match request {
        Request::Voters => {
            let mut stuck = report(3, false);
            stuck.nodes[1].state = NodeStatus::Down;
            vec![Reply::Voters(stuck)]
        }
        request => rest(request),
    });
    let node = Node::start(plan);
    let out = vc(&Home::new(), &node, &["voters", "add", "attic", "--timeout", "1s"]);
    assert_eq!(
        out.stderr,
        "error: attic is no voter yet after 1s: 0 of 1 voters reachable, which cannot decide; start the others, or see 'vc voters \
         force --help'\n"
    );
    let lines = "attic is to be a voter\nwaits: 0 of 1 voters reachable, which cannot decide\n";
    assert_eq!((out.code, out.stdout.as_str()), (Some(1), lines));
}

#[test]
fn a_voter_that_leaves_hands_its_vote_over_first() {
    let node = Node::start(changes(false));
    let out = vc(&Home::new(), &node, &["leave", "attic"]).ok();
    let lines = "attic is being drained\nattic hands over its vote\nthe voters are desk (set 4)\nattic has left the cluster\n";
    assert_eq!(out, lines);
    let wish = Request::SetVoter { node: "attic".to_owned(), votes: Some(false) };
    let leave = Request::Leave { node: "attic".to_owned(), force: false };
    let requests = node.requests();
    let at = |request: &Request| requests.iter().position(|it| it == request).expect("sent");
    assert!(at(&wish) < at(&leave));
    let looks = requests[at(&wish)..at(&leave)].iter().filter(|it| **it == Request::Voters);
    assert_eq!(looks.count(), 3, "it waits: {requests:?}");
}

#[test]
fn a_forced_leave_without_a_majority_names_the_way_out() {
    let node = Node::start(changes(false));
    let out = vc(&Home::new(), &node, &["leave", "attic", "--force"]);
    assert!(out.stderr.contains("until 'vc voters force' names others"), "{}", out.stderr);
    assert_eq!(out.code, Some(0));
}

#[test]
fn forced_voters_are_asked_about_on_a_terminal_alone() {
    let forced = |node: &Node| {
        let nodes = vec!["attic".to_owned()];
        node.requests().contains(&Request::ForceVoters { nodes })
    };
    let start = || {
        let mut plan = changes(true);
        let rest = std::mem::replace(&mut plan.answer, Box::new(|_| vec![]));
        plan.answer = Box::new(move |request| match request {
            Request::ForceVoters { .. } => done(Change::VotersForced {
                number: 1003,
                voters: vec![node_id(ATTIC)],
                names: vec!["attic".to_owned()],
            }),
            request => rest(request),
        });
        Node::start(plan)
    };
    let node = start();
    let home = Home::new();
    let token = OURS.token(&[&node.address]);
    let shown = home.vc_on_terminal(&["--token", &token, "voters", "force", "attic"], "n");
    assert!(shown.contains("desk are voters that are not asked"), "{shown}");
    assert!(shown.contains("a second instance of an exclusive service may run"), "{shown}");
    assert!(!forced(&node), "{shown}");
    let out = vc(&home, &node, &["voters", "force", "attic", "-y"]).ok();
    assert!(out.starts_with("the voters are attic (set 1003)"), "{out}");
    assert!(forced(&node));
}
