//! Deployments that no Compose reader has seen, as a client with code of its own sends them.

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::multiplex::User;

/// A request to deploy `shop/web` with this container, whose image is filled in.
fn deploying(mut container: Value) -> Value {
    container["image"] = "web:1".into();
    let spec = json!({"container": container});
    let deployment = json!({"service": "shop/web", "replicas": 1, "spec": spec});
    json!({"op": "deploy", "deployments": [deployment], "files": []})
}

#[test]
fn a_deployer_gets_no_host_and_no_identity_of_others_through_the_control_api() {
    let cluster = Cluster::found();
    let deployer = cluster.user_token(0, "dora", "deployer");
    let admin = cluster.user_token(0, "ada", "admin");
    let mount = |source: &str, read_only: bool| json!({"mounts": [{"bind": {"source": source, "target": "/x", "read_only": read_only}}]});
    let bind = |source: &str| mount(source, true);
    let of_admins = [
        (json!({"settings": {"privileged": true}}), "privileged"),
        (json!({"settings": {"devices": ["/dev/kvm"]}}), "the device /dev/kvm"),
        (json!({"settings": {"cap_add": ["cap_sys_admin"]}}), "the capability cap_sys_admin"),
        (json!({"settings": {"security_opt": ["seccomp=unconfined"]}}), "the security option"),
        (json!({"settings": {"security_opt": ["no-new-privileges:false"]}}), "the security option"),
        (bind("/srv/app"), "the host path /srv/app"),
        (bind("/var/run/docker.sock"), "the host path /var/run/docker.sock"),
        (bind("/"), "the host path /"),
    ];
    let of_no_role = [
        (mount("/", false), "leads to the secrets of the node"),
        (bind("/srv/../run/vc/x"), "leads to the secrets of the node"),
        (json!({"labels": {"vc.service": "bank"}}), "labels: 'vc.service' is reserved"),
        (json!({"environment": {"A=B": "c"}}), "environment: 'A=B' is not a key"),
        (json!({"user": "root\n"}), "user is empty, or has control characters"),
        (json!({"settings": {"network_mode": "host"}}), "container.settings.network_mode"),
        (json!({"settings": {"pid_mode": "host"}}), "container.settings.pid_mode"),
        (json!({"stop_grace_ms": u64::MAX}), "stop_grace_ms is longer than a year"),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let [deployer, admin] =
            [User::attach(&cluster, 0, &deployer).await, User::attach(&cluster, 0, &admin).await];
        for (container, named) in of_admins.iter().chain(&of_no_role) {
            let answer = deployer.ask(deploying(container.clone())).await;
            let message = answer["value"]["message"].as_str().unwrap_or_default();
            assert!(answer["reply"] == "error" && message.contains(named), "{named}: {answer}");
        }
        for (container, named) in &of_no_role {
            let answer = admin.ask(deploying(container.clone())).await;
            let message = answer["value"]["message"].as_str().unwrap_or_default();
            assert!(answer["reply"] == "error" && message.contains(named), "{named}: {answer}");
        }
        assert!(cluster.rows(0, &["services"]).is_empty(), "a refused request changes nothing");
        // The requests have the right form: without the field they are accepted.
        let answer = deployer.ask(deploying(json!({}))).await;
        assert_eq!(answer["reply"], "done", "{answer}");
    });
}
