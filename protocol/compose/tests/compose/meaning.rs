//! Interpretation of values and defaults.

use vc_protocol::spec::{DisconnectPolicy, OnPartition, Reconcile, RestartCondition, ServiceSpec};

use crate::{parse, service};

#[test]
fn defaults_are_those_of_docker() {
    let deployment = service("").unwrap();
    assert_eq!(deployment.service.to_string(), "my_app2/s");
    assert_eq!(deployment.replicas, None);
    assert_eq!(deployment.spec.on_partition, None);
    let container = deployment.spec.into_inner().container;
    // The defaults of the spec itself, which serde fills in.
    assert_eq!(container, serde_json::from_str(r#"{"image": "i"}"#).unwrap());
    assert_eq!(container.stop_grace_ms, 10_000);
}

#[test]
fn scalars_are_interpreted_by_position() {
    let deployment = service(
        "environment: {A: yes, B: on, C: 1.10, D: 0755, E: true, F: 1e3, G: 22:22, H: ~, TAG: , I: \"\", J: 'True'}\n\
         ports: [22:22, 2222:2222]\nrestart: no\ndeploy: {replicas: \"${REPLICAS:-3}\"}\nstop_grace_period: 0\n\
         user: 0123\nhealthcheck: {test: [NONE]}\nentrypoint: \"\"\ncommand: [a, 1, true, '']",
    )
    .unwrap();
    let ServiceSpec { container, ports, .. } = deployment.spec.into_inner();
    let environment: Vec<String> =
        container.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        environment.join(" "),
        "A=yes B=on C=1.10 D=0755 E=true F=1e3 G=22:22 I= J=True TAG=v7"
    );
    assert_eq!(ports.iter().map(|port| port.published).collect::<Vec<_>>(), [22, 2222]);
    assert_eq!(container.restart.condition, RestartCondition::None);
    assert_eq!(deployment.replicas, Some(3));
    assert_eq!(container.stop_grace_ms, 0);
    assert_eq!(container.user.as_deref(), Some("0123"));
    assert_eq!(container.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(container.entrypoint, Some(vec![]));
    assert_eq!(container.command.unwrap(), ["a", "1", "true", ""]);
}

#[test]
fn unset_variables_are_warned_about() {
    let project =
        parse("services: {a: {image: i, environment: [A=$NONE, 'B=${ALSO}$EMPTY$NONE', C=$TAG]}}")
            .unwrap();
    let told =
        ["ALSO", "NONE"].map(|name| format!("the variable {name} is not set: it is read as empty"));
    assert_eq!(project.warnings, told);
}

#[test]
fn behaviour_on_a_partition_is_that_of_the_extension() {
    let said = |yaml: &str| service(yaml).unwrap().spec.on_partition;
    assert_eq!(said("x-vc: {on_partition: exclusive}"), Some(OnPartition::Exclusive));
    assert_eq!(said("x-vc: {on_partition: available}"), Some(OnPartition::Available));
    assert_eq!(said("x-vc: {on_partition: }"), None);
    let both = "deploy: {update_config: {order: start-first}}\nx-vc: {on_partition: available}";
    assert!(service(both).unwrap().spec.starts_first());
}

#[test]
fn options_for_disconnected_nodes_are_those_of_nomad() {
    let said = |yaml: &str| service(yaml).unwrap().spec.into_inner().disconnect;
    assert_eq!(said("x-vc: {on_partition: available}"), DisconnectPolicy::default());
    let all = "x-vc: {lost_after: 10m, replace: true, stop_on_client_after: 90s, reconcile: keep_replacement}";
    let expected = DisconnectPolicy {
        lost_after_ms: 600_000,
        replace: true,
        stop_on_client_after_ms: Some(90_000),
        reconcile: Reconcile::KeepReplacement,
    };
    assert_eq!(said(all), expected);
    assert!(!said("x-vc: {replace: false}").replace);
}

#[test]
fn a_limit_alone_reserves_nothing() {
    let container = service("mem_limit: 1g\ncpus: 0.5").unwrap().spec.into_inner().container;
    assert_eq!((container.limit.cpu_millis, container.limit.memory_bytes), (500, 1 << 30));
    assert!(container.reservation.is_zero());
}
