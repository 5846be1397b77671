//! `deploy`, and the older keys beside it.

use vc_protocol::spec::{FailureAction, UpdateOrder, UpdatePolicy};

use crate::{all_refused, beside, service};

#[test]
fn update_config_is_read() {
    let update =
        |lines: &str| service(&format!("deploy: {lines}")).unwrap().spec.into_inner().update;
    assert_eq!(update("{replicas: 1}"), UpdatePolicy::default());
    let said = "{parallelism: 0, order: stop-first, delay: 1m, monitor: 20s, failure_action: continue, max_failure_ratio: 0.0}";
    let policy = UpdatePolicy {
        parallelism: 0,
        order: Some(UpdateOrder::StopFirst),
        delay_ms: 60_000,
        monitor_ms: 20_000,
        failure_action: FailureAction::Continue,
    };
    assert_eq!(update(&format!("{{update_config: {said}}}")), policy);
    assert_eq!(
        update(&format!(
            "{{update_config: {said}, rollback_config: {{delay: 60s}}, endpoint_mode: vip}}"
        )),
        policy,
        "a rollback that goes the same way"
    );
}

#[test]
fn replicas_per_node_are_limited_where_a_node_may_have_several() {
    let read = |deploy: &str| service(&format!("deploy: {deploy}")).unwrap().spec.into_inner();
    let limited = read("{placement: {max_replicas_per_node: 2}}");
    assert_eq!(limited.max_replicas_per_node, 2);
    assert!(!limited.starts_first(), "a third one would be there for a moment");
    let said = "{placement: {max_replicas_per_node: 2}, update_config: {order: start-first}}";
    assert!(read(said).starts_first());
    assert_eq!(read("{placement: {max_replicas_per_node: 0}}").max_replicas_per_node, 0);
    let global = "deploy: {mode: global, placement: {max_replicas_per_node: 1}}";
    assert_eq!(
        beside("", global).unwrap().warnings,
        [
            "services.s.deploy.placement.max_replicas_per_node has no effect: the service has one instance on each node"
        ]
    );
    assert_eq!(service(global).unwrap().spec.max_replicas_per_node, 0);
    all_refused(&[(
        "deploy: {placement: {max_replicas_per_node: -1}}",
        "services.s.deploy.placement.max_replicas_per_node: '-1' is not an integer in range",
    )]);
}

#[test]
fn unsupported_update_config_is_refused() {
    let path = "services.s.deploy";
    all_refused(&[
        (
            "deploy: {update_config: {order: fastest}}",
            &format!(
                "{path}.update_config.order: 'fastest' is not an order: write start-first or stop-first"
            ),
        ),
        (
            "deploy: {update_config: {failure_action: stop}}",
            &format!(
                "{path}.update_config.failure_action: 'stop' is not an action: write rollback, pause or continue"
            ),
        ),
        (
            "deploy: {update_config: {max_failure_ratio: 0.1}}",
            &format!(
                "{path}.update_config.max_failure_ratio: only 0 is supported: one instance that fails is an update that fails"
            ),
        ),
        (
            "deploy: {update_config: {paralelism: 1}}",
            &format!(
                "{path}.update_config.paralelism is not supported: did you mean 'parallelism'?"
            ),
        ),
        (
            "deploy: {update_config: {parallelism: 1}, rollback_config: {parallelism: 2}}",
            &format!(
                "{path}.rollback_config: update_config governs a rollback too: leave this out, or repeat what is there"
            ),
        ),
        (
            "deploy: {endpoint_mode: dnsrr}",
            &format!(
                "{path}.endpoint_mode: dnsrr is not supported: a name resolves to one virtual address that load-balances"
            ),
        ),
    ]);
}

#[test]
fn invalid_deploy_values_are_refused_by_path() {
    all_refused(&[
        (
            "restart: sometimes",
            "services.s.restart: 'sometimes' is not a policy: write no, always or on-failure:3",
        ),
        (
            "restart: on-failure:x",
            "services.s.restart: 'on-failure:x' is not a policy: write no, always or on-failure:3",
        ),
        (
            "restart: always\ndeploy: {restart_policy: {condition: any}}",
            "services.s.restart and deploy.restart_policy are both there: keep one",
        ),
        (
            "deploy: {restart_policy: {condition: maybe}}",
            "services.s.deploy.restart_policy.condition: 'maybe' is not a condition: write any, on-failure or none",
        ),
        ("deploy: {replicas: 1001}", "services.s.deploy.replicas is more than 1000"),
        ("deploy: {replicas: two}", "services.s.deploy.replicas: 'two' is not an integer in range"),
        (
            "scale: 2\ndeploy: {replicas: 3}",
            "services.s.scale and services.s.deploy.replicas differ: keep one",
        ),
        (
            "deploy: {mode: daemon}",
            "services.s.deploy.mode: 'daemon' is not a mode: write one of replicated, global, replicated-job, global-job",
        ),
        ("cpus: many", "services.s.cpus: 'many' is not a number of CPUs: write 0.5 or 2"),
        (
            "mem_limit: 1 GiBs",
            "services.s.mem_limit: '1 GiBs' is not an amount of memory: write 64M, 1.5g or a number of bytes",
        ),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
            "services.s.mem_limit and services.s.deploy.resources.limits.memory differ: keep one",
        ),
        (
            "cpus: 1\ndeploy: {resources: {reservations: {cpus: 2}}}",
            "services.s.deploy.resources.reservations.cpus is larger than the limit",
        ),
        (
            "mem_limit: 1m\nmem_reservation: 2m",
            "services.s.mem_reservation is larger than the limit",
        ),
        (
            "deploy: {placement: {constraints: [node.role == manager]}}",
            "services.s.deploy.placement.constraints[0]: 'node.role' is not supported: write node.labels.NAME, \
             node.name, node.id, node.platform.os or node.platform.arch",
        ),
        (
            "deploy: {placement: {constraints: [node.name = a]}}",
            "services.s.deploy.placement.constraints[0]: 'node.name = a' is not a constraint: write node.labels.disk == \
             ssd, or != to exclude",
        ),
        (
            "deploy: {placement: {constraints: ['node.name == ']}}",
            "services.s.deploy.placement.constraints[0]: 'node.name == ' compares with nothing",
        ),
        (
            "deploy: {placement: {constraints: [node.id == abc]}}",
            "services.s.deploy.placement.constraints[0]: 'abc' is not the peer id of an Ed25519 key",
        ),
        (
            "platform: linux",
            "services.s.platform: 'linux' is not a platform: write os/arch, as in linux/amd64",
        ),
        (
            "platform: linux/arm64/v8",
            "services.s.platform: the variant in 'linux/arm64/v8' is not supported: write os/arch, as in linux/arm64",
        ),
    ]);
}
