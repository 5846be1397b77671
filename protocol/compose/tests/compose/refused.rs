//! Refused keys and values: one line that begins with the path.

use crate::{all_refused, beside};

#[test]
fn unsupported_keys_are_refused_with_a_reason() {
    all_refused(&[
        ("imagee: x", "services.s.imagee is not supported: did you mean 'image'?"),
        (
            "network_mode: macvlan",
            "services.s.network_mode: 'macvlan' is not supported: write host, none, service:NAME or bridge",
        ),
        ("extends: {service: a}", "services.s.extends names 'a', which is no service of the file"),
        (
            "pull_policy: build",
            "services.s.pull_policy: build is not possible: the service has no build",
        ),
        (
            "pull_policy: sometimes",
            "services.s.pull_policy: 'sometimes' is not known: write missing, always, never or build",
        ),
        (
            "pid: 'service:t'",
            "services.s.pid: 'service:t' is not supported: instances share only those of their host; write host or leave it out",
        ),
        (
            "ipc: 'service:t'",
            "services.s.ipc: 'service:t' is not supported: two instances may be on two nodes; write host, private or shareable",
        ),
        (
            "x-vc: {notify: ops}",
            "services.s.x-vc.notify is not supported, as only admins add receivers of alerts: use 'vc notify add NAME webhook URL --project PROJECT'",
        ),
        ("credential_spec: {file: x}", "services.s.credential_spec is for Windows: leave it out"),
        ("cpu_percent: 5", "services.s.cpu_percent is for Windows: write cpus"),
        (
            "build: {context: ., privileged: true}",
            "services.s.build.privileged is not supported: build the image with your own command, push it with 'vc image push' and write image",
        ),
        (
            "build: {context: ., platforms: [a/b, c/d]}",
            "services.s.build.platforms must be one: a deployment runs the image that was built here",
        ),
    ]);
}

#[test]
fn invalid_values_are_refused_by_path() {
    all_refused(&[
        (
            "deploy: {update_config: {order: start-first}}\nx-vc: {on_partition: exclusive}",
            "services.s: update.order is start-first, but an exclusive service (it says so, or writes a named volume) never \
             runs two instances of a slot: write order: stop-first, or x-vc.on_partition: available",
        ),
        (
            "x-vc: {on_partition: maybe}",
            "services.s.x-vc.on_partition: 'maybe' is not known: write exclusive or available",
        ),
        (
            "x-vc: {reconcile: newest}",
            "services.s.x-vc.reconcile: 'newest' is not known: write one of keep_original, keep_replacement, best_score, \
             longest_running",
        ),
        (
            "x-vc: {replace: no}",
            "services.s.x-vc.replace: 'no' is neither true nor false: write false",
        ),
        (
            "x-vc: {lost_after: 10}",
            "services.s.x-vc.lost_after: '10' is not a duration: write 10s, 1m30s or 500ms",
        ),
        (
            "x-vc: {lost_after: 10m, replace: false}",
            "services.s: disconnect.lost_after_ms has no effect with replace: false: keep one",
        ),
        (
            "x-vc: {stop_on_client_after: 1m, on_partition: exclusive}",
            "services.s: disconnect.stop_on_client_after_ms is for available services: an exclusive one stops where it cannot \
             reach most voters, before its lease ends",
        ),
        (
            "x-vc: {disconnect: {lost_after: 1m}}",
            "services.s.x-vc.disconnect is not supported: write its options into x-vc",
        ),
        (
            "x-vc: {on_partitions: x}",
            "services.s.x-vc.on_partitions is not supported: did you mean 'on_partition'?",
        ),
        ("command: {a: b}", "services.s.command must be a list"),
        ("command: [a, [b]]", "services.s.command[1] must be a text"),
        ("command: a 'b", "services.s.command has a ' that is never closed"),
        (
            "command: a && b",
            "services.s.command has '&&', but no shell runs it: write [\"sh\", \"-c\", \"…\"] or quote it",
        ),
        ("user: ${NONE:?say who}", "services.s.user needs the variable NONE: say who"),
        ("user: []", "services.s.user must be a text"),
        ("environment: 1", "services.s.environment must be a map"),
        ("environment: {A: [1]}", "services.s.environment.A must be a text"),
        ("environment: ['=x']", "services.s.environment[0] has no key: write KEY=value"),
        ("env_file: missing.env", "services.s.env_file: cannot read 'missing.env': no such file"),
        ("env_file: [broken.env]", "services.s.env_file[0]: 'broken.env' line 2 is not KEY=value"),
        (
            "env_file: {path: secret.env, required: false}",
            "services.s.env_file: cannot read 'secret.env': permission denied",
        ),
        (
            "env_file: {paths: a}",
            "services.s.env_file.paths is not supported: did you mean 'path'?; services.s.env_file has no path",
        ),
        ("env_file: {path: a, format: raw}", "services.s.env_file: cannot read 'a': no such file"),
        (
            "labels: {vc.node: x}",
            "services.s.labels.vc.node is reserved: labels that begin with vc. are the cluster's",
        ),
        (
            "labels: [vc.x]",
            "services.s.labels[0] is reserved: labels that begin with vc. are the cluster's",
        ),
        (
            "healthcheck: {test: x, disable: true}",
            "services.s.healthcheck.test and disable are both there: keep one",
        ),
        (
            "healthcheck: {test: [curl, x]}",
            "services.s.healthcheck.test must begin with CMD and a program, or be [\"CMD-SHELL\", text] or [\"NONE\"]",
        ),
        (
            "healthcheck: {test: x, interval: 5}",
            "services.s.healthcheck.interval: '5' is not a duration: write 10s, 1m30s or 500ms",
        ),
        (
            "healthcheck: {test: x, retries: -1}",
            "services.s.healthcheck.retries: '-1' is not an integer in range",
        ),
        (
            "healthcheck: {test: x, disable: no}",
            "services.s.healthcheck.disable: 'no' is neither true nor false: write false",
        ),
        (
            "stop_grace_period: 9999999h",
            "services.s.stop_grace_period: '9999999h' is too long: write a year at most",
        ),
        ("a\u{301}: 1", "services.s.a\u{301} is not supported"),
        ("\"a\\nb\": 1", "services.s.a\\nb is not supported"),
        ("user: x\nuser: y", "line 5, column 5: the key 'user' is given twice"),
        ("user: [", "line 4, column 11: unclosed bracket '['"),
    ]);
}

#[test]
fn what_has_no_effect_here_is_warned_of() {
    for (lines, warning) in [
        (
            "logging: {driver: gelf, options: {gelf-address: 'udp://1.2.3.4:1'}}",
            "services.s.logging has no effect: the cluster keeps the logs, see 'vc logs', and 'gelf' gets none",
        ),
        (
            "logging: {options: {max-size: 1m, tag: x}}",
            "services.s.logging.options.tag has no effect: logs are as 'vc logs' shows them",
        ),
        (
            "pull_policy: daily",
            "services.s.pull_policy is as always: each deployment asks the registry, and nothing does between them",
        ),
        (
            "pull_policy: never",
            "services.s.pull_policy keeps a deployment from asking a registry; a node that lacks the image asks one if no other \
             node has it",
        ),
        (
            "develop: {watch: []}",
            "services.s.develop has no effect: it is for docker compose watch",
        ),
        (
            "deploy: {labels: {a: b}}",
            "services.s.deploy.labels has no effect: no program here reads labels of services; those of containers are 'labels' of \
             the service",
        ),
        (
            "deploy: {placement: {preferences: [{spread: node.labels.zone}]}}",
            "services.s.deploy.placement.preferences[0] has no effect: instances are spread over the nodes, whatever \
             'node.labels.zone' is",
        ),
        (
            "networks: {default: {ipv4_address: 10.0.0.2}}",
            "services.s.networks.default.ipv4_address has no effect: each node gives out its own addresses; services that name \
             this one by it need its name instead",
        ),
        (
            "deploy: {restart_policy: {condition: unless-stopped, window: 5s}}",
            "services.s.deploy.restart_policy.window has no effect: an exit always counts",
        ),
        (
            "volumes: [/srv/a:/a]\ndeploy: {update_config: {order: start-first}}",
            "services.s has update_config.order: start-first, which has no effect: it writes a volume, so the old instance stops first",
        ),
        (
            "volumes: ['./a.conf:/a:z', '/tmp/x:/b:Z']",
            "the options z and Z of volumes have no effect: nodes do not label files for SELinux",
        ),
    ] {
        assert_eq!(beside("", lines).unwrap().warnings, [warning], "{lines}");
    }
}
