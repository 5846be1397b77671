use vc_crdt::{ClusterState, KnownVersions, NodeState, SealedFile};
use vc_protocol::Keypair;
use vc_protocol::alert::{AlertFilter, AlertFormat};
use vc_protocol::node::NodeInfo;

use super::*;

/// A cluster of three servers, each with its alerts; the documents are always in sync.
struct Servers {
    view: View,
    alerts: BTreeMap<NodeId, Alerts>,
    now: Millis,
}

fn id(byte: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
    NodeId::of(&key.public()).expect("ed25519")
}

fn cluster() -> ClusterId {
    let key = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes");
    ClusterId::of(&key.public()).expect("ed25519")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn webhook() -> Receiver {
    let url = SealedFile { sealed: String::new() };
    Receiver {
        target: ReceiverTarget::Webhook { url, origin: "http://10.0.0.9".to_owned() },
        format: AlertFormat::Json,
        filter: AlertFilter::default(),
        added: 1,
        added_by: "ann".to_owned(),
    }
}

fn command() -> Receiver {
    let target = ReceiverTarget::Command { command: vec!["page".to_owned()] };
    Receiver { target, ..webhook() }
}

fn down(node: &str) -> Problem {
    Problem::new(ProblemKind::NodeDown, format!("node {node} is down")).with("node_id", node)
}

fn failed_update(project: &str) -> Problem {
    let text = format!("the update of {project}/web has failed: exited with code 1: hunter2");
    let service = format!("{project}/web").parse().expect("a service");
    Problem::new(ProblemKind::Update, text).of_service(&service)
}

impl Servers {
    fn new(receivers: &[(&str, Receiver)]) -> Self {
        let node = |byte: u8| {
            let info = Some(NodeInfo::for_tests(&format!("n{byte}")));
            (id(byte), NodeState { incarnation: 1, info, ..NodeState::default() })
        };
        let receivers = receivers.iter().map(|(of, it)| (name(of), it.clone().into()));
        let state = ClusterState { receivers: receivers.collect(), ..ClusterState::default() };
        let nodes = (1..=3).map(node).collect();
        let view = View::from_states(state, nodes, &KnownVersions::default());
        let servers: BTreeSet<NodeId> = (1..=3).map(id).collect();
        let alerts = servers.iter().map(|&it| (it, Alerts::default())).collect();
        Self { view: View { servers, ..view }, alerts, now: 1_000_000 }
    }

    fn sender(&self, receiver: &str) -> NodeId {
        let name = name(receiver);
        sender(&self.view, &name, &self.view.cluster.receivers[&name]).expect("a sender")
    }

    /// Lets a time pass in which these problems hold, in steps; returns what each node sends, which nothing confirms.
    fn pass(&mut self, time: Millis, problems: &[Problem]) -> Vec<(NodeId, Delivery)> {
        let mut sent = Vec::new();
        for _ in 0..time / 1000 {
            self.now += 1000;
            let Self { view, alerts, now } = self;
            for (&node, alerts) in alerts.iter_mut().filter(|(node, _)| view.up.contains(*node)) {
                let own = (cluster(), node);
                let deliveries = alerts.update(view, own, problems.to_vec(), Clock::from(*now));
                sent.extend(deliveries.into_iter().map(|it| (node, it)));
            }
        }
        sent
    }

    /// As the receiver answers the node.
    fn answer(&mut self, node: NodeId, receiver: &str, result: Result<(), String>) {
        let alerts = self.alerts.get_mut(&node).expect("a node");
        alerts.delivered(&name(receiver), node, result, self.now);
        let confirmed = alerts.unwritten();
        self.view
            .cluster
            .alerts
            .extend(confirmed.sent.into_iter().map(|(key, record)| (key, record.into())));
        for key in confirmed.ended {
            self.view.cluster.alerts.remove(&key);
        }
        alerts.written();
    }

    /// Lets a time pass, and each receiver confirms what it gets; returns that.
    fn confirmed(&mut self, time: Millis, problems: &[Problem]) -> Vec<String> {
        let mut got = Vec::new();
        for _ in 0..time / 1000 {
            for (node, delivery) in self.pass(1000, problems) {
                got.extend(lines(&delivery));
                self.answer(node, delivery.receiver.as_str(), Ok(()));
            }
        }
        got
    }
}

fn lines(delivery: &Delivery) -> Vec<String> {
    let line = |alert: &Alert| format!("{:?}: {}", alert.status, alert.summary);
    delivery.alerts.iter().map(line).collect()
}

#[test]
fn a_problem_that_holds_is_sent_once_and_so_is_its_end() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    assert_eq!(servers.confirmed(60_000, &[]), [""; 0]);
    let attic = [down("attic")];
    assert_eq!(servers.confirmed(14_000, &attic), [""; 0], "it may be a flap");
    assert_eq!(servers.confirmed(2000, &attic), ["Firing: node attic is down"]);
    assert_eq!(servers.confirmed(600_000, &attic), [""; 0]);
    assert_eq!(servers.confirmed(14_000, &[]), [""; 0]);
    assert_eq!(servers.confirmed(10_000, &attic), [""; 0], "it was gone for a moment");
    assert_eq!(servers.confirmed(17_000, &[]), ["Resolved: node attic is down"]);
    assert_eq!(servers.confirmed(600_000, &[]), [""; 0]);
    assert!(servers.view.cluster.alerts.is_empty());
}

#[test]
fn problems_that_come_and_go_are_not_sent() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    servers.confirmed(30_000, &[]);
    for _ in 0..10 {
        assert_eq!(servers.confirmed(14_000, &[down("attic")]), [""; 0]);
        assert_eq!(servers.confirmed(1000, &[]), [""; 0]);
    }
}

#[test]
fn the_next_node_sends_what_was_not_confirmed_when_the_sender_died() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    servers.pass(30_000, &[]);
    let (first, attic) = (servers.sender("ops"), [down("attic")]);
    let sent = servers.pass(20_000, &attic);
    assert_eq!(sent.len(), 1, "nothing more before an answer: {sent:?}");
    assert_eq!(sent[0].0, first);

    // It dies without having written that.
    servers.view.up.remove(&first);
    let sent = servers.pass(20_000, &attic);
    let [(second, delivery)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(*second, servers.sender("ops"));
    assert_ne!(*second, first);
    assert_eq!(lines(delivery), ["Firing: node attic is down"]);
    servers.answer(*second, "ops", Ok(()));

    // When it returns it knows what was sent, and sends the end.
    servers.alerts.insert(first, Alerts::default());
    servers.view.up.insert(first);
    assert_eq!(servers.confirmed(60_000, &attic), [""; 0]);
    let ended = servers.pass(20_000, &[]);
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].0, lines(&ended[0].1)),
        (first, vec!["Resolved: node attic is down".to_owned()])
    );
}

#[test]
fn a_node_that_begins_to_send_waits_for_what_others_have_sent() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    let first = servers.sender("ops");
    // It stands still, and does not know what the second has sent meanwhile.
    servers.view.up.remove(&first);
    let attic = [down("attic")];
    assert_eq!(servers.confirmed(40_000, &attic).len(), 1);
    let known = std::mem::take(&mut servers.view.cluster.alerts);
    servers.view.up.insert(first);
    assert_eq!(servers.pass(2000, &attic), []);
    servers.view.cluster.alerts = known;
    assert_eq!(servers.pass(60_000, &attic), []);
}

#[test]
fn a_receiver_that_fails_is_tried_less_and_less_often_and_said() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    servers.pass(30_000, &[]);
    let (node, attic) = (servers.sender("ops"), [down("attic")]);
    let mut attempts = 0;
    for _ in 0..600 {
        for (node, _) in servers.pass(1000, &attic) {
            attempts += 1;
            servers.answer(node, "ops", Err("it answered 500".to_owned()));
        }
    }
    assert!((7..=9).contains(&attempts), "{attempts} in ten minutes");
    let unsent = servers.alerts[&node].unsent();
    assert_eq!(unsent, BTreeMap::from([(name("ops"), "it answered 500".to_owned())]));
    // A problem that ends unsent is forgotten.
    assert_eq!(servers.confirmed(400_000, &[]), [""; 0]);
    assert_eq!(servers.alerts[&node].unsent(), BTreeMap::new());
}

#[test]
fn what_was_confirmed_and_could_not_be_written_is_written_later_and_not_sent_again() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    let problems = [down("attic")];
    let sent = servers.pass(60_000, &problems);
    let (node, delivery) = sent.first().expect("sent");
    let alerts = servers.alerts.get_mut(node).expect("a node");
    alerts.delivered(&delivery.receiver, *node, Ok(()), servers.now);
    assert_eq!(servers.pass(60_000, &problems), []);
    assert_eq!(servers.alerts[node].unwritten().sent.len(), 1);
}

#[test]
fn another_server_sends_where_one_does_not_reach_the_receiver() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    let problems = [down("attic")];
    let first = servers.sender("ops");
    for _ in 0..FAILURES {
        while servers.pass(1000, &problems).is_empty() {}
        servers.answer(first, "ops", Err("no route to host".to_owned()));
    }
    let unsent = servers.alerts[&first].unsent();
    assert_eq!(unsent[&name("ops")], "no route to host");
    servers.view.nodes.get_mut(&first).expect("a node").unsent_alerts = unsent.clone();
    assert_ne!(servers.sender("ops"), first);
    assert_eq!(servers.confirmed(30_000, &problems).len(), 1);
    assert_eq!(servers.alerts[&first].unsent(), unsent, "or it would be chosen again at once");
    servers.pass(LONGEST_PAUSE, &problems);
    assert!(servers.alerts[&first].unsent().is_empty());
}

#[test]
fn a_problem_that_returns_holds_anew_while_a_receiver_does_not_know_its_end() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    let problems = [down("attic")];
    assert_eq!(servers.confirmed(60_000, &problems).len(), 1);
    let (node, delivery) = servers.pass(60_000, &[]).remove(0);
    assert_eq!(delivery.alerts.len(), 1, "its end, which nothing confirms");
    servers.pass(1000, &problems);
    let seen = servers.alerts[&node].seen.values().next().expect("seen");
    assert_eq!(seen.since, servers.now);
}

#[test]
fn receivers_get_what_their_filters_pass_without_what_instances_wrote() {
    let filter = AlertFilter { projects: [name("shop")].into(), ..AlertFilter::default() };
    let shop = Receiver { filter, ..webhook() };
    let mut servers = Servers::new(&[("shop", shop)]);
    let problems = [down("attic"), failed_update("shop"), failed_update("bank")];
    let got = servers.confirmed(40_000, &problems);
    assert_eq!(got, ["Firing: the update of shop/web has failed: exited with code 1"]);
}

#[test]
fn the_failure_of_a_receiver_is_sent_to_the_others() {
    let mut servers = Servers::new(&[("chat", webhook()), ("ops", webhook())]);
    let problem = Problem::new(ProblemKind::Notification, "alerts do not reach ops".to_owned());
    let problem = [problem.with("receiver", "ops")];
    let sent = servers.pass(40_000, &problem);
    let receivers: Vec<&str> = sent.iter().map(|(_, it)| it.receiver.as_str()).collect();
    assert_eq!(receivers, ["chat"]);
}

#[test]
fn commands_run_only_on_nodes_that_allow_them() {
    let mut servers = Servers::new(&[("pager", command())]);
    let of = |servers: &Servers| sender(&servers.view, &name("pager"), &command());
    assert_eq!(of(&servers), None);
    let allowed = id(2);
    let info = servers.view.nodes.get_mut(&allowed).and_then(|state| state.info.as_mut());
    info.expect("a node").notify_commands = true;
    assert_eq!(of(&servers), Some(allowed));
    servers.view.servers.remove(&allowed);
    assert_eq!(of(&servers), None, "a worker could not write what was sent");
}

#[test]
fn many_problems_come_in_batches_up_to_a_limit() {
    let mut servers = Servers::new(&[("ops", webhook())]);
    let problems: Vec<Problem> = (0..300).map(|n| down(&format!("n{n}"))).collect();
    assert_eq!(servers.confirmed(120_000, &problems).len(), MAX_ALERTS);
    assert_eq!(servers.confirmed(120_000, &[]).len(), MAX_ALERTS, "their ends");
}

fn golden(format: AlertFormat) -> Message {
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    };
    let attic = Alert {
        fingerprint: "3f1c9d0a5b7e2468".to_owned(),
        kind: ProblemKind::NodeDown,
        status: AlertStatus::Firing,
        labels: labels(&[
            ("alertname", "NodeDown"),
            ("cluster", "12D3KooWA"),
            ("node", "attic"),
            ("node_id", "12D3KooWB"),
            ("severity", "critical"),
        ]),
        summary: "node attic is down for 20 s".to_owned(),
        started: 1_796_020_680_500,
        ended: None,
    };
    let web = Alert {
        fingerprint: "90ab12cd34ef5678".to_owned(),
        kind: ProblemKind::Unplaced,
        status: AlertStatus::Resolved,
        labels: labels(&[
            ("alertname", "Unplaced"),
            ("cluster", "12D3KooWA"),
            ("project", "shop"),
            ("replica", "1"),
            ("service", "web"),
            ("severity", "critical"),
        ]),
        summary: "shop/web.1 is pending: attic: is down".to_owned(),
        started: 1_796_020_681_000,
        ended: Some(1_796_020_741_000),
    };
    message(format, cluster(), &name("ops"), &[attic, web]).expect("a known form")
}

/// What receivers parse. `VC_BLESS=1` writes the file, which docs/alerts.md shows.
#[test]
fn the_body_is_that_of_alertmanager() {
    let Message { content_type, body } = golden(AlertFormat::Json);
    assert_eq!(content_type, "application/json");
    let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let pretty = serde_json::to_string_pretty(&value).expect("JSON") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/alerts/webhook.json");
    if std::env::var_os("VC_BLESS").is_some() {
        std::fs::write(path, &pretty).expect("written");
    }
    assert_eq!(pretty, std::fs::read_to_string(path).expect("read"), "{path}");
    let page = include_str!("../../../../docs/alerts.md");
    assert!(page.contains(&pretty), "docs/alerts.md shows another body");
}

#[test]
fn other_formats_have_a_line_for_each_alert() {
    let text =
        "critical: node attic is down for 20 s\nresolved: shop/web.1 is pending: attic: is down";
    assert_eq!(golden(AlertFormat::Text).body, text);
    let field = |format, field: &str| {
        let value: serde_json::Value = serde_json::from_str(&golden(format).body).expect("JSON");
        value[field].as_str().map(str::to_owned)
    };
    assert_eq!(field(AlertFormat::Slack, "text").as_deref(), Some(text));
    assert_eq!(field(AlertFormat::Discord, "content").as_deref(), Some(text));
}
