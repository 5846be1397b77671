//! What each mutation writes into the cluster document.

mod history;
mod voters;

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{
    ClusterState, FileKey, KnownVersions, NodeState, SealedFile, UpdateResult, View, VolumeRecord,
};
use vc_protocol::change::Subject;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{
    Attribute, Constraint, ContainerSpec, Deployment, FileId, FileKind, FileMount, Mount,
    NetworkMode, OnPartition, ServiceSpec,
};
use vc_protocol::{ApiError, InstanceId, Keypair, Lamport, Millis, NodeId, ServiceKey, Stored};

use super::Mutation;
use crate::{WallClocks, diff, report};

const NOW: Millis = 1000;

fn node(number: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
    NodeId::of(&key.public()).expect("ed25519")
}

fn web() -> ServiceKey {
    "shop/web".parse().expect("a service")
}

fn image(version: u32) -> ServiceSpec {
    let container = ContainerSpec { image: format!("web:{version}"), ..ContainerSpec::default() };
    ServiceSpec { container, ..ServiceSpec::default() }
}

fn with_volume(mut spec: ServiceSpec) -> ServiceSpec {
    spec.container.mounts = vec![Mount::volume("data".parse().expect("a name"), "/data", false)];
    spec
}

fn volume_record(lamport: Lamport) -> Stored<VolumeRecord> {
    VolumeRecord { lamport, since: NOW, begun: 0, copy: None }.into()
}

fn deployment(spec: ServiceSpec) -> Deployment {
    Deployment { service: web(), replicas: None, spec: spec.into() }
}

/// Along with the files that it mounts.
fn deploying(wanted: Deployment) -> Mutation {
    let key = |mount: &FileMount| FileKey {
        project: wanted.service.project.clone(),
        file: mount.file.clone(),
        version: mount.version.clone(),
    };
    let sealed = SealedFile { sealed: "sealed".to_owned() };
    let files = wanted.spec.container.files.iter().map(|mount| (key(mount), sealed.clone()));
    Mutation::Deploy {
        files: files.collect(),
        deployments: vec![wanted],
        projects: None,
        trace: None,
    }
}

/// Two nodes, desk and attic, and what the documents say.
struct Cluster {
    state: ClusterState,
    nodes: BTreeMap<NodeId, NodeState>,
}

impl Cluster {
    fn new() -> Self {
        let ids = [node(1), node(2)];
        let state = |name: &str| NodeState {
            incarnation: 1,
            observed: BTreeSet::from(ids),
            info: Some(NodeInfo::for_tests(name)),
            ..NodeState::default()
        };
        let nodes = BTreeMap::from([(ids[0], state("desk")), (ids[1], state("attic"))]);
        Self { state: ClusterState::default(), nodes }
    }

    fn view(&self) -> View {
        View::from_states(self.state.clone(), self.nodes.clone(), &KnownVersions::default())
    }

    /// Applies a mutation; returns the lines that users see.
    fn apply(&mut self, mutation: &Mutation) -> Result<Vec<String>, String> {
        let by = Subject { name: "ada".to_owned(), token_id: String::new(), address: None };
        let applied = mutation.apply(&self.view(), &by, NOW);
        let (state, changes) = applied.map_err(|error| ApiError::from(error).to_string())?;
        self.state = state;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn deploy(&mut self, spec: ServiceSpec) -> String {
        self.apply(&deploying(deployment(spec))).expect("deployed").remove(0)
    }

    /// A node saw the end of the present update.
    fn ends(&mut self, failed: Option<&str>) {
        let record = &self.state.services[&web()];
        let (revision, digest) = (record.revision, record.spec.container_digest());
        let result = UpdateResult { revision, digest, failed: failed.map(str::to_owned) };
        self.nodes.get_mut(&node(1)).expect("desk").update_results.insert(web(), result);
    }

    /// The node runs a slot of the service, as it is wanted now.
    fn runs(&mut self, number: u8, slot: &str) {
        let slot: vc_protocol::Slot = slot.parse().expect("a slot");
        let view = self.view();
        let digest = view.desired_digest(&slot.service).expect("wanted");
        let claim = Claim {
            lamport: view.next_lamport(),
            started: 0,
            state: InstanceState::Running,
            reason: String::new(),
            address: String::new(),
            restarts: 0,
            since: 10,
            available: true,
            prepared: false,
            restarted_unhealthy: false,
            epoch: None,
            terminal: false,
        };
        let claims = &mut self.nodes.get_mut(&node(number)).expect("a member").claims;
        claims.insert(InstanceId { slot, digest }, claim);
    }

    /// What is wanted, and what it would go back to.
    fn versions(&self) -> (ServiceSpec, Option<ServiceSpec>) {
        let record = &self.state.services[&web()];
        (record.spec.clone().into_inner(), record.previous.clone().map(Stored::into_inner))
    }
}

fn restarted(mut spec: ServiceSpec, times: u64) -> ServiceSpec {
    spec.container.force_update = times;
    spec
}

#[test]
fn a_deployment_remembers_the_last_version_that_was_good() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.deploy(image(1)), "shop/web created");
    assert_eq!(cluster.versions(), (image(1), None));
    assert_eq!(cluster.deploy(image(2)), "shop/web updated");
    assert_eq!(cluster.versions(), (image(2), Some(image(1))));
    // The second update has not completed when the third starts.
    cluster.deploy(image(3));
    assert_eq!(cluster.versions(), (image(3), Some(image(1))));
    cluster.ends(None);
    cluster.deploy(image(4));
    assert_eq!(cluster.versions(), (image(4), Some(image(3))));
    cluster.ends(Some("exited with code 1"));
    assert_eq!(cluster.view().spec(&web()), Some(&image(3).into()));
    cluster.deploy(image(5));
    assert_eq!(cluster.versions(), (image(5), Some(image(3))));
}

#[test]
fn the_same_version_is_unchanged_unless_it_failed() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    cluster.ends(None);
    let first = cluster.state.services[&web()].revision;
    assert_eq!(cluster.deploy(image(1)), "shop/web unchanged");
    assert_eq!(cluster.state.services[&web()].revision, first);
    cluster.deploy(image(2));
    let second = cluster.state.services[&web()].revision;
    cluster.ends(Some("exited with code 1"));
    assert!(cluster.view().is_rolled_back(&web()));
    let again = diff(&cluster.view(), &[deployment(image(2))], true);
    assert_eq!(again[0].changes, ["nothing; the failed update is retried"]);
    assert_eq!(cluster.deploy(image(2)), "shop/web deployed again");
    assert!(cluster.state.services[&web()].revision > second);
    assert_eq!(cluster.versions(), (image(2), Some(image(1))));
    assert!(!cluster.view().is_rolled_back(&web()), "it is tried again");
}

#[test]
fn a_restart_is_an_update_to_the_same_that_no_deployment_undoes() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    cluster.ends(None);
    let restart = Mutation::Restart { service: "web".to_owned() };
    assert_eq!(cluster.apply(&restart), Ok(vec!["shop/web is restarting".to_owned()]));
    assert_eq!(cluster.versions(), (restarted(image(1), 1), Some(image(1))));
    cluster.ends(None);
    assert_eq!(diff(&cluster.view(), &[deployment(image(1))], true), []);
    assert_eq!(cluster.deploy(image(1)), "shop/web unchanged");
    // What failed is not restarted: what is in effect is, as an instance that was not there before.
    cluster.deploy(image(2));
    cluster.ends(Some("exited with code 1"));
    cluster.apply(&restart).expect("restarts");
    assert_eq!(cluster.versions(), (restarted(image(1), 2), Some(restarted(image(1), 1))));
}

#[test]
fn a_rollback_swaps_the_versions_and_needs_one_to_go_to() {
    let mut cluster = Cluster::new();
    let rollback = Mutation::Rollback { service: "web".to_owned(), version: None, projects: None };
    cluster.deploy(image(1));
    let refused = cluster.apply(&rollback).expect_err("there is none");
    assert_eq!(
        refused,
        "shop/web has no earlier version that did not fail: see 'vc history shop/web', and name a version with --to"
    );
    cluster.deploy(image(2));
    cluster.ends(None);
    for versions in [(image(1), Some(image(2))), (image(2), Some(image(1)))] {
        let before = cluster.state.services[&web()].revision;
        cluster.apply(&rollback).expect("goes back");
        assert_eq!(cluster.versions(), versions);
        assert!(cluster.state.services[&web()].revision > before);
    }
}

#[test]
fn deploying_the_version_before_while_an_update_goes_on_replaces_its_instances_in_turn() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    cluster.deploy(image(2));
    cluster.deploy(image(1));
    assert_eq!(cluster.versions(), (image(1), Some(image(2))));
}

#[test]
fn a_node_leaves_when_it_is_empty_or_forced_and_stays_on_the_list() {
    let mut cluster = Cluster::new();
    cluster.deploy(with_volume(image(1)));
    cluster.runs(2, "shop/web.1");
    let leave = |force| Mutation::Leave { node: "attic".to_owned(), force };
    let refused = cluster.apply(&leave(false)).expect_err("it runs something");
    assert_eq!(
        refused,
        "attic has 1 instance: run 'vc drain attic' first, or leave them behind with --force"
    );
    let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
    attic.claims.clear();
    attic.volumes.insert("shop/data".parse().expect("a volume"), volume_record(1));
    let refused = cluster.apply(&leave(false)).expect_err("it holds data");
    assert!(refused.contains("volume shop/data, which shop/web uses"), "{refused}");
    cluster.apply(&Mutation::Drain { node: "attic".to_owned(), drain: true }).expect("drained");
    let left = "attic has left the cluster; the data of shop/data stays in Docker on its host, and services that use it start \
                without";
    assert_eq!(cluster.apply(&leave(true)), Ok(vec![left.to_owned()]));
    assert!(cluster.state.drained.is_empty());
    let view = cluster.view();
    let rows = report::nodes(&view, &BTreeMap::new());
    let rows: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.state)).collect();
    use vc_protocol::control::NodeStatus::{Left, Up};
    assert_eq!(rows, [("desk", Up), ("attic", Left)]);
    assert!(view.plan.placements.values().all(|it| it.node == node(1)));
    assert!(cluster.apply(&leave(true)).expect_err("gone").starts_with("no node 'attic'"));
}

#[test]
fn a_volume_is_removed_when_no_service_mounts_it() {
    let mut cluster = Cluster::new();
    let volume: vc_protocol::VolumeKey = "shop/data".parse().expect("a volume");
    let remove = Mutation::RemoveVolume { volume: volume.clone() };
    cluster.deploy(with_volume(image(1)));
    assert!(cluster.apply(&remove).expect_err("no data").starts_with("no volume 'shop/data'"));
    // By a node that has seen more.
    let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
    attic.volumes.insert(volume.clone(), volume_record(500));
    let rows = report::volumes(&cluster.view(), WallClocks { now: NOW, vitals: &BTreeMap::new() });
    assert_eq!((rows[0].node_name.as_str(), rows[0].services.as_slice()), ("attic", &[web()][..]));
    let refused = cluster.apply(&remove).expect_err("it is in use");
    assert_eq!(refused, "volume shop/data is mounted by shop/web: run 'vc rm shop/web' first");
    cluster.apply(&Mutation::Remove("web".to_owned())).expect("removed");
    cluster.apply(&remove).expect("removed");
    assert!(cluster.view().input.volumes.is_empty());
    assert!(cluster.apply(&remove).is_err(), "it is gone already");
    // What is made under its name later is another one.
    let later = volume_record(cluster.view().next_lamport());
    cluster.nodes.get_mut(&node(1)).expect("desk").volumes.insert(volume.clone(), later);
    assert_eq!(cluster.view().input.volumes, BTreeMap::from([(volume, node(1))]));
}

#[test]
fn a_volume_is_forgotten_when_no_member_would_delete_its_data() {
    let mut cluster = Cluster::new();
    let volume: vc_protocol::VolumeKey = "shop/data".parse().expect("a volume");
    let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
    attic.volumes.insert(volume.clone(), volume_record(1));
    let forget = Mutation::ForgetVolume { volume: volume.clone() };
    let supports = |cluster: &mut Cluster, id, forgets| {
        let info = cluster.nodes.get_mut(&node(id)).expect("a node").info.as_mut();
        info.expect("info").supports.forgets = forgets;
    };
    supports(&mut cluster, 1, true);
    supports(&mut cluster, 2, false);
    let refused = cluster.apply(&forget).expect_err("refused");
    assert!(refused.contains("cannot forget a volume without deleting its data"), "{refused}");
    supports(&mut cluster, 2, true);
    let changes = cluster.apply(&forget).expect("forgotten");
    assert_eq!(changes, ["volume shop/data forgotten; its data stays on the nodes"]);
    let tombstone = &cluster.view().cluster.tombstones[&volume];
    assert!(tombstone.forgotten && cluster.view().input.volumes.is_empty());
    let json = serde_json::to_string(tombstone).expect("JSON");
    assert_eq!(
        json,
        format!(r#"{{"lamport":{},"at":{},"forgotten":true}}"#, tombstone.lamport, tombstone.at)
    );
    let older: vc_crdt::Tombstone = serde_json::from_str(r#"{"lamport":1,"at":2}"#).expect("one");
    assert!(!older.forgotten);
}

#[test]
fn a_service_whose_data_is_away_says_where_it_is() {
    let mut cluster = Cluster::new();
    cluster.deploy(with_volume(image(1)));
    let volume = "shop/data".parse().expect("a volume");
    let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
    attic.volumes.insert(volume, volume_record(1));
    attic.runtime_error = Some("connection refused".to_owned());
    let rows = report::instances(&cluster.view());
    assert_eq!(
        rows[0].reason,
        "attic: has no working runtime: connection refused (it holds volume shop/data)"
    );
}

#[test]
fn rebalance_gives_orders_that_hold_once() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    cluster.apply(&Mutation::Scale { service: "web".to_owned(), replicas: 2 }).expect("scaled");
    cluster.runs(1, "shop/web.1");
    cluster.runs(1, "shop/web.2");
    let shown = report::rebalance(&cluster.view());
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].from, shown[0].to), (Some(node(1)), Some(node(2))));
    let lines = cluster.apply(&Mutation::Rebalance).expect("ordered");
    assert_eq!(
        lines,
        ["shop/web.2 moves from desk to attic: desk has 2 replicas of shop/web, attic none"]
    );
    let slot = "shop/web.2".parse().expect("a slot");
    assert_eq!(cluster.view().plan.placements[&slot].node, node(2));
    // The order still holds, and there is nothing to add to it.
    assert_eq!(cluster.apply(&Mutation::Rebalance), Ok(vec![]));
    assert_eq!(cluster.state.moves.len(), 1);
    // It is void when the instance is gone there, and dropped with the next.
    cluster.nodes.get_mut(&node(1)).expect("desk").claims.retain(|id, _| id.slot != slot);
    cluster.runs(2, "shop/web.2");
    cluster.apply(&Mutation::Rebalance).expect("nothing");
    assert!(cluster.state.moves.is_empty());
}

#[test]
fn a_diff_names_what_changes_and_no_secret() {
    let mut cluster = Cluster::new();
    let secret = |version: &str| FileMount {
        file: FileId { kind: FileKind::Secret, name: "password".to_owned() },
        version: version.to_owned(),
        target: "/run/secrets/password".to_owned(),
        uid: 0,
        gid: 0,
        mode: 0o400,
    };
    let mut before = image(1);
    before.container.environment.insert("LOG".to_owned(), "info".to_owned());
    before.container.files = vec![secret("1111")];
    let created = diff(&cluster.view(), &[deployment(before.clone())], true);
    assert!(created[0].created);
    assert_eq!(
        created[0].changes,
        [
            "container.environment.LOG: \"info\"",
            "container.files: secret password at /run/secrets/password",
            "container.image: \"web:1\"",
            "replicas: 1",
        ]
    );
    cluster.deploy(before.clone());
    let mut after = before.clone();
    after.container.image = "web:2".to_owned();
    after.container.environment.insert("LOG".to_owned(), "debug".to_owned());
    after.container.environment.insert("NEW".to_owned(), "é".repeat(300));
    after.container.command = Some(vec!["serve".to_owned()]);
    after.container.files = vec![secret("2222")];
    let wanted = Deployment { replicas: Some(3), ..deployment(after) };
    let changes = diff(&cluster.view(), std::slice::from_ref(&wanted), true).remove(0).changes;
    assert_eq!(
        changes,
        [
            "container.command: none -> [\"serve\"]".to_owned(),
            "container.environment.LOG: \"info\" -> \"debug\"".to_owned(),
            format!("container.environment.NEW: none -> \"{}…", "é".repeat(199)),
            "container.files: content of secret password changed".to_owned(),
            "container.image: \"web:1\" -> \"web:2\"".to_owned(),
            "replicas: 1 -> 3".to_owned(),
        ]
    );
    cluster.apply(&deploying(wanted.clone())).expect("deployed");
    assert_eq!(diff(&cluster.view(), &[wanted], true), []);
}

#[test]
fn a_diff_of_a_new_service_shows_all_that_is_not_the_default() {
    let mut spec = image(1);
    let container = &mut spec.container;
    container.image_id = Some("sha256:1".to_owned());
    container.command = Some(vec!["serve".to_owned(), "--fast".to_owned()]);
    container.environment.insert("PASSWORD".to_owned(), "hunter2".to_owned());
    let backend = "backend".parse().expect("a name");
    container.networks.insert(backend, BTreeSet::from(["db".to_owned()]));
    container.healthcheck = Some(vc_protocol::spec::Healthcheck {
        test: vec!["CMD".to_owned(), "true".to_owned()],
        interval_ms: Some(1000),
        timeout_ms: None,
        retries: None,
        start_period_ms: None,
        start_interval_ms: None,
    });
    let mut spec = with_volume(spec);
    spec.container.mounts.push(Mount::Bind {
        source: "/srv".to_owned(),
        target: "/srv".to_owned(),
        read_only: true,
    });
    spec.constraints = vec![vc_protocol::spec::Constraint {
        attribute: vc_protocol::spec::Attribute::Name,
        equal: true,
        value: "attic".to_owned(),
    }];
    spec.ports = vec![published(8080)];
    let changes = diff(&Cluster::new().view(), &[deployment(spec)], false).remove(0).changes;
    assert_eq!(
        changes,
        [
            "constraints: node.name == attic",
            "container.command: [\"serve\",\"--fast\"]",
            "container.environment.PASSWORD: \"***\"",
            "container.healthcheck.interval_ms: 1000",
            "container.healthcheck.test: [\"CMD\",\"true\"]",
            "container.image: \"web:1\"",
            "container.mounts: /srv:/srv:ro",
            "container.mounts: volume data:/data",
            "container.networks: backend as db",
            "on_partition: exclusive: stops where it cannot reach most voters; starts elsewhere after at most 8 s",
            "ports: 8080:80/tcp",
            "replicas: 1",
        ]
    );
}

#[test]
fn a_diff_says_what_a_change_does_on_a_partition() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    let changes = |cluster: &Cluster, spec: ServiceSpec| {
        diff(&cluster.view(), &[deployment(spec)], true).remove(0).changes
    };
    let exclusive =
        "exclusive: stops where it cannot reach most voters; starts elsewhere after at most 8 s";
    let with_data = with_volume(image(1));
    assert_eq!(
        changes(&cluster, with_data.clone()),
        [
            "container.mounts: + volume data:/data".to_owned(),
            format!("on_partition: available by default -> {exclusive}"),
        ]
    );
    cluster.deploy(with_data.clone());
    let said = ServiceSpec { on_partition: Some(OnPartition::Exclusive), ..with_data };
    assert_eq!(
        changes(&cluster, said.clone()),
        [format!("on_partition: exclusive by default -> {exclusive}")]
    );
    cluster.deploy(said.clone());
    let available = ServiceSpec { on_partition: Some(OnPartition::Available), ..said };
    assert_eq!(
        changes(&cluster, available),
        ["on_partition: exclusive -> available: each side of a partition runs it"]
    );
    assert_eq!(diff(&cluster.view(), &[deployment(image(1))], true)[0].changes.len(), 2);
}

#[test]
fn a_diff_of_lists_names_the_elements_that_come_and_go() {
    let mut cluster = Cluster::new();
    let of = |command: &[&str], ports: &[u16]| {
        let mut spec = image(1);
        spec.container.command = Some(command.iter().map(|&it| it.to_owned()).collect());
        spec.ports = ports.iter().map(|&port| published(port)).collect();
        spec
    };
    let long = "--ServerApp.allow_remote_access=True".repeat(10);
    cluster.deploy(of(&[&long, "--port=1", "--a", "--b"], &[8080, 8081]));
    let changes = |command: &[&str], ports: &[u16]| {
        let wanted = deployment(of(command, ports));
        diff(&cluster.view(), &[wanted], true).remove(0).changes
    };
    assert_eq!(
        changes(&[&long, "--port=2", "--a", "--b"], &[8081, 9090]),
        [
            "container.command: - --port=1",
            "container.command: + --port=2",
            "ports: - 8080:80/tcp",
            "ports: + 9090:80/tcp",
        ]
    );
    let other = changes(&["sh"], &[8080, 8081]);
    assert!(other[0].ends_with(" -> [\"sh\"]"), "{other:?}");
    let order = changes(&["--a", "--b", "--port=1", &long], &[8080, 8081]);
    assert!(order[0].starts_with("container.command: [\"--ServerApp"), "{order:?}");
}

fn published(port: u16) -> vc_protocol::spec::Port {
    vc_protocol::spec::Port {
        host_ip: None,
        published: port,
        target: 80,
        protocol: vc_protocol::spec::PortProtocol::Tcp,
        publish: vc_protocol::spec::Publish::Cluster,
        proxy_protocol: None,
    }
}

#[test]
fn a_spec_that_says_how_volumes_are_kept_waits_for_the_last_older_node() {
    let mut cluster = Cluster::new();
    let mut spec = with_volume(image(1));
    spec.volumes = [("data".parse().expect("a name"), Default::default())].into();
    for state in cluster.nodes.values_mut() {
        state.info.as_mut().expect("info").supports.volumes = true;
    }
    cluster.nodes.get_mut(&node(2)).expect("attic").info.as_mut().expect("info").supports.volumes =
        false;
    let refused = cluster.apply(&deploying(deployment(spec.clone()))).expect_err("refused");
    assert!(refused.contains("vc-node on attic does not know that"), "{refused}");
    assert!(refused.contains("upgrade vc-node on attic"), "{refused}");
    cluster.nodes.get_mut(&node(2)).expect("attic").info.as_mut().expect("info").supports.volumes =
        true;
    cluster.deploy(spec);
}

#[test]
fn a_service_with_the_network_of_another_waits_for_the_last_older_node() {
    let mut cluster = Cluster::new();
    let mut spec = image(1);
    spec.container.network_mode = Some(NetworkMode::Service("vpn".parse().expect("a name")));
    let supports = KnownVersions::default().supports();
    for state in cluster.nodes.values_mut() {
        state.info.as_mut().expect("info").supports = supports;
    }
    let attic = |cluster: &mut Cluster, plan| {
        let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
        attic.info.as_mut().expect("info").supports.plan = plan;
    };
    attic(&mut cluster, 5);
    let refused = cluster.apply(&deploying(deployment(spec.clone()))).expect_err("refused");
    let expected = "has the network of another service, and vc-node on attic does not know that";
    assert!(refused.contains(expected), "{refused}");
    attic(&mut cluster, supports.plan);
    cluster.deploy(spec);
}

#[test]
fn a_deployment_that_may_not_run_where_its_data_is_says_so() {
    let mut cluster = Cluster::new();
    for state in cluster.nodes.values_mut() {
        state.info.as_mut().expect("info").supports = KnownVersions::default().supports();
    }
    cluster.deploy(with_volume(image(1)));
    let data = "shop/data".parse().expect("a volume");
    let attic = cluster.nodes.get_mut(&node(2)).expect("attic");
    attic.volumes.insert(data, volume_record(5));
    let only_on = |name: &str| {
        let (attribute, value) = (Attribute::Name, name.to_owned());
        let constraints = vec![Constraint { attribute, equal: true, value }];
        deployment(ServiceSpec { constraints, ..with_volume(image(1)) })
    };
    let said = |name: &str| diff(&cluster.view(), &[only_on(name)], true).remove(0).changes;
    let told = |name: &str| {
        said(name).into_iter().any(|line| line.starts_with("volume shop/data is on attic"))
    };
    assert!(!told("attic") && told("desk"));
    assert!(said("nowhere").iter().any(|line| line.ends_with("and no other node may")));
    let mutation = Mutation::Deploy {
        deployments: vec![only_on("desk")],
        files: Default::default(),
        projects: None,
        trace: None,
    };
    let changes = cluster.apply(&mutation).expect("deployed");
    assert!(changes[0].to_string().contains("it moves to a node that may"), "{}", changes[0]);
}
