//! Compose files as people write them, and what comes of them.
//!
//! Each `compose/NAME.yaml` has its outcome beside it: `NAME.json` (the project) or `NAME.txt` (the line that refuses
//! it). `UPDATE_GOLDEN=1 cargo nextest run -p vc-protocol --test compose` writes them anew: read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use proptest::prelude::*;
use vc_protocol::compose::{self, ComposeError, Context, Project};
use vc_protocol::spec::{Deployment, OnPartition, RestartCondition};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose")
}

/// Parses as `vc` would, in a directory and an environment that never change.
fn parse(text: &str) -> Result<Project, ComposeError> {
    let pairs = [("TAG", "v7"), ("HOSTNAME", "lab"), ("EMPTY", "")];
    let env = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let read = |path: &str| match path {
        "broken.env" => Ok("A=1\n=2\n".to_owned()),
        "secret.env" => Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")),
        path => fs::read_to_string(fixtures().join(path))
            .map_err(|e| io::Error::new(e.kind(), "no such file")),
    };
    compose::parse(
        text,
        &Context { project: None, directory: Some("My_App 2"), env: &env, read: &read },
    )
}

/// Parses a file whose only service, `s`, has an image and `lines`.
fn service(lines: &str) -> Result<Deployment, String> {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let mut project =
        parse(&format!("services:\n  s:\n    image: i\n{indented}")).map_err(|e| e.to_string())?;
    Ok(project.services.remove(0))
}

#[test]
fn typical_files_give_what_is_written_beside_them() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let (extension, outcome) = match parse(&fs::read_to_string(&path).unwrap()) {
            Ok(Project { name, services, warnings }) => {
                let json =
                    serde_json::json!({"name": name, "services": services, "warnings": warnings});
                ("json", serde_json::to_string_pretty(&json).unwrap())
            }
            Err(error) => ("txt", error.to_string()),
        };
        let (golden, other) =
            (path.with_extension(extension), if extension == "txt" { "json" } else { "txt" });
        if update {
            fs::write(&golden, format!("{outcome}\n")).unwrap();
            let _ = fs::remove_file(path.with_extension(other));
        }
        assert!(!path.with_extension(other).exists(), "{}: {outcome}", path.display());
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(outcome.trim_end(), expected.trim_end(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} files");
}

#[test]
fn the_examples_can_be_deployed() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path().join("compose.yaml");
        let project = parse(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(project.warnings, Vec::<String>::new(), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn the_file_in_the_documentation_can_be_deployed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
    let page = fs::read_to_string(page).unwrap();
    let file = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(parse(file).unwrap().services.len(), 2);
}

#[test]
fn every_refusal_is_one_line_that_begins_with_the_path() {
    for (lines, refusal) in [
        ("network_mode: host", "services.s.network_mode is not supported"),
        ("imagee: x", "services.s.imagee is not supported: did you mean 'image'?"),
        (
            "build: .",
            "services.s.build is not supported: build the image first and name it with image:",
        ),
        ("volumes: [a:/a]", "services.s.volumes: volumes are not supported yet"),
        ("secrets: [a]", "services.s.secrets is not supported yet"),
        (
            "container_name: a",
            "services.s.container_name is not supported: the cluster names the containers",
        ),
        (
            "stop_signal: SIGINT",
            "services.s.stop_signal is not supported yet: instances are stopped with SIGTERM",
        ),
        (
            "x-vc: {on_partition: exclusive}",
            "services.s.x-vc.on_partition: exclusive is not supported yet",
        ),
        (
            "x-vc: {on_partition: maybe}",
            "services.s.x-vc.on_partition: 'maybe' is not known: write available",
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
        (
            "command: echo $",
            "services.s.command has a $ that begins no variable: write $$ for the character itself",
        ),
        ("user: ${NONE:?say who}", "services.s.user needs the variable NONE: say who"),
        ("user: []", "services.s.user must be a text"),
        ("user: ''", "services.s.user is empty"),
        ("environment: 1", "services.s.environment must be a map"),
        ("environment: {A: [1]}", "services.s.environment.A must be a text"),
        ("environment: ['=x']", "services.s.environment[0] has no key: write KEY=value"),
        ("env_file: missing.env", "services.s.env_file: cannot read 'missing.env': no such file"),
        ("env_file: [broken.env]", "services.s.env_file[0]: 'broken.env' line 2 is no KEY=value"),
        (
            "env_file: {path: secret.env, required: false}",
            "services.s.env_file: cannot read 'secret.env': permission denied",
        ),
        (
            "env_file: {paths: a}",
            "services.s.env_file.paths is not supported: did you mean 'path'?; services.s.env_file has no path",
        ),
        (
            "env_file: {path: a, format: raw}",
            "services.s.env_file.format is not supported; services.s.env_file: cannot read 'a': no such file",
        ),
        (
            "labels: {vc.node: x}",
            "services.s.labels.vc.node is reserved: labels that begin with vc. are the cluster's",
        ),
        (
            "labels: [vc.x]",
            "services.s.labels[0] is reserved: labels that begin with vc. are the cluster's",
        ),
        (
            "ports: ['80']",
            "services.s.ports[0]: '80' publishes no port: write published:target, as in 8080:80",
        ),
        ("ports: [80:80, 80:81]", "services.s.ports publishes port 80/tcp twice"),
        (
            "ports: ['1.2.3.4:80:80', '0.0.0.0:80:81']",
            "services.s.ports publishes port 80/tcp twice",
        ),
        ("ports: [1-3000:1-3000]", "services.s.ports publishes more than 2048 ports"),
        ("ports: 80:80", "services.s.ports must be a list"),
        (
            "ports: [{target: 80}]",
            "services.s.ports[0] has no published: name the port of the machine",
        ),
        (
            "ports: [{published: 80}]",
            "services.s.ports[0] has no target: name the port of the instance",
        ),
        (
            "ports: [{target: 80, published: 80-90}]",
            "services.s.ports[0].published: '80-90' is no port: write a number from 1 to 65535",
        ),
        (
            "ports: [{target: 80, published: 80, mode: ingress}]",
            "services.s.ports[0].mode: ingress is not supported yet: ports are published on the node that runs the \
             instance; write mode: host",
        ),
        (
            "ports: [{target: 80, published: 80, name: x}]",
            "services.s.ports[0].name is not supported",
        ),
        (
            "healthcheck: {interval: 5s}",
            "services.s.healthcheck has no test: write the command that checks",
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
            "services.s.healthcheck.retries: '-1' is no whole number in range",
        ),
        (
            "healthcheck: {test: x, disable: no}",
            "services.s.healthcheck.disable: 'no' is neither true nor false",
        ),
        (
            "healthcheck: {test: x, start_interval: 1s}",
            "services.s.healthcheck.start_interval is not supported yet: interval counts from the start",
        ),
        ("depends_on: [t]", "services.s.depends_on.t names no service of the file"),
        ("depends_on: [s]", "services.s.depends_on is a circle: s -> s"),
        (
            "depends_on: {s: {}}",
            "services.s.depends_on.s has no condition: write service_started or service_healthy; services.s.depends_on is a circle: s -> s",
        ),
        (
            "depends_on: {t: {condition: service_completed_successfully}}",
            "services.s.depends_on.t.condition: 'service_completed_successfully' is not supported: write \
             service_started or service_healthy; services.s.depends_on.t names no service of the file",
        ),
        (
            "restart: sometimes",
            "services.s.restart: 'sometimes' is no policy: write no, always or on-failure:3",
        ),
        (
            "restart: on-failure:x",
            "services.s.restart: 'on-failure:x' is no policy: write no, always or on-failure:3",
        ),
        (
            "restart: always\ndeploy: {restart_policy: {condition: any}}",
            "services.s.restart and deploy.restart_policy are both there: keep one",
        ),
        (
            "deploy: {restart_policy: {window: 5s}}",
            "services.s.deploy.restart_policy.window is not supported: an exit always counts",
        ),
        (
            "deploy: {restart_policy: {condition: always}}",
            "services.s.deploy.restart_policy.condition: 'always' is no condition: write any, on-failure or none",
        ),
        ("deploy: {replicas: 1001}", "services.s.deploy.replicas is more than 1000"),
        (
            "deploy: {replicas: two}",
            "services.s.deploy.replicas: 'two' is no whole number in range",
        ),
        (
            "scale: 2\ndeploy: {replicas: 3}",
            "services.s.scale and services.s.deploy.replicas differ: keep one",
        ),
        (
            "deploy: {mode: global}",
            "services.s.deploy.mode: global is not supported yet: write replicas",
        ),
        (
            "deploy: {update_config: {parallelism: 1}}",
            "services.s.deploy.update_config: rolling updates are not supported yet",
        ),
        (
            "deploy: {labels: [a]}",
            "services.s.deploy.labels is not supported: write labels on the service",
        ),
        ("deploy: {endpoint_mode: vip}", "services.s.deploy.endpoint_mode is not supported"),
        (
            "deploy: {resources: {limits: {pids: 5}}}",
            "services.s.deploy.resources.limits.pids is not supported",
        ),
        (
            "deploy: {resources: {reservations: {devices: []}}}",
            "services.s.deploy.resources.reservations.devices is not supported",
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
            "services.s.deploy.placement.constraints[0]: 'node.name = a' is no constraint: write node.labels.disk == \
             ssd, or != to exclude",
        ),
        (
            "deploy: {placement: {constraints: ['node.name == ']}}",
            "services.s.deploy.placement.constraints[0]: 'node.name == ' compares with nothing",
        ),
        (
            "deploy: {placement: {constraints: [node.id == abc]}}",
            "services.s.deploy.placement.constraints[0]: 'abc' is not the id of an Ed25519 key",
        ),
        (
            "deploy: {placement: {preferences: []}}",
            "services.s.deploy.placement.preferences is not supported",
        ),
        (
            "platform: linux",
            "services.s.platform: 'linux' is no platform: write os/arch, as in linux/amd64",
        ),
        (
            "platform: linux/arm64/v8",
            "services.s.platform: the variant in 'linux/arm64/v8' is not supported: write os/arch, as in linux/arm64",
        ),
        (
            "stop_grace_period: 9999999h",
            "services.s.stop_grace_period: '9999999h' is too long: write a year at most",
        ),
        ("a\u{301}: 1", "services.s.a\u{301} is not supported"),
        ("\"a\\nb\": 1", "services.s.a\\nb is not supported"),
        ("user: x\nuser: y", "line 5, column 5: the key 'user' is there twice"),
        ("user: [", "line 4, column 11: unclosed bracket '['"),
    ] {
        assert_eq!(service(lines).expect_err(lines), refusal, "{lines}");
    }
}

#[test]
fn the_top_of_a_file_is_held_to_the_same_rule() {
    for (text, refusal) in [
        ("", "the file has no services: write services: at the top"),
        ("services", "the file has no services: write services: at the top"),
        ("{}", "services is empty: name at least one service"),
        ("services: {}", "services is empty: name at least one service"),
        ("services: [a]", "services must be a map; services is empty: name at least one service"),
        ("services: {a: }", "services.a has no image: name one with image:"),
        (
            "services: {a: x}",
            "services.a must be a map; services.a has no image: name one with image:",
        ),
        ("services: {a: {image: '-x'}}", "services.a.image: '-x' is no image reference"),
        ("services: {a: {image: a b}}", "services.a.image: 'a b' is no image reference"),
        ("services: {a: {image: $NONE}}", "services.a.image is empty"),
        (
            "services: {a: {build: .}}",
            "services.a.build is not supported: build the image first and name it with image:",
        ),
        (
            "services: {A: {image: i}}",
            "services.A: 'A' is not a name: use 1 to 63 lower-case letters, digits and '-', starting with a letter or \
             a digit",
        ),
        (
            "servces: {a: {image: i}}",
            "servces is not supported: did you mean 'services'?; services is empty: name at least one service",
        ),
        ("networks: {a: }\nservices: {a: {image: i}}", "networks is not supported yet"),
        ("volumes: [a]\nservices: {a: {image: i}}", "volumes: volumes are not supported yet"),
        (
            "include: [b.yaml]\nservices: {a: {image: i}}",
            "include is not supported: deploy each file",
        ),
        (
            "x-vc: {}\nservices: {a: {image: i}}",
            "x-vc is not supported here: write it in a service",
        ),
        ("a: 1\n---\nb: 2", "line 3, column 1: a second document begins: deploy one at a time"),
        (
            "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [c]}, c: {image: i, depends_on: [b]}}",
            "services.b.depends_on is a circle: b -> c -> b",
        ),
        (
            "services:\n  a: {image: i, depends_on: {b: {condition: service_healthy}}}\n  b: {image: i, healthcheck: {disable: true}}",
            "services.a.depends_on.b waits for a healthcheck that is disabled",
        ),
    ] {
        assert_eq!(parse(text).expect_err(text).to_string(), refusal, "{text}");
    }
    for empty in
        ["networks:", "volumes: {}", "secrets: null", "version: '2.4'", "version: 3", "x-any: [1]"]
    {
        assert!(parse(&format!("{empty}\nservices: {{a: {{image: i}}}}\n")).is_ok(), "{empty}");
    }
}

#[test]
fn a_project_is_named_by_the_user_the_file_or_the_directory() {
    let (env, read) = (BTreeMap::new(), |_: &str| Err(io::ErrorKind::NotFound.into()));
    let name = |project: Option<&str>, directory, line: &str| {
        let project = project.map(|name| name.parse().unwrap());
        let context = Context { project, directory, env: &env, read: &read };
        let parsed = compose::parse(&format!("{line}\nservices: {{a: {{image: i}}}}"), &context);
        parsed
            .map(|parsed| (parsed.name.to_string(), parsed.services[0].service.to_string()))
            .map_err(|e| e.to_string())
    };
    let named = |name: &str| Ok((name.to_owned(), format!("{name}/a")));
    assert_eq!(name(Some("user"), Some("dir"), "name: file"), named("user"));
    assert_eq!(name(None, Some("dir"), "name: file"), named("file"));
    assert_eq!(name(None, Some("_My App (2)"), ""), named("myapp2"));
    assert_eq!(
        name(None, None, ""),
        Err("the project has no name: write name: at the top".to_owned())
    );
    assert_eq!(
        name(None, Some("…"), ""),
        Err("the project has no name: write name: at the top".to_owned())
    );
    assert!(
        name(Some("user"), None, "name: No").unwrap_err().starts_with("name: 'No' is not a name")
    );
}

#[test]
fn what_a_service_does_not_say_is_as_docker_has_it() {
    let deployment = service("").unwrap();
    assert_eq!(deployment.service.to_string(), "my_app2/s");
    assert_eq!(deployment.replicas, None);
    assert_eq!(deployment.spec.on_partition, OnPartition::Available);
    let container = deployment.spec.container;
    // The defaults of the spec itself, which serde fills in.
    assert_eq!(container, serde_json::from_str(r#"{"image": "i"}"#).unwrap());
    assert_eq!(container.stop_grace_ms, 10_000);
}

#[test]
fn scalars_mean_what_they_say_where_they_stand() {
    let deployment = service(
        "environment: {A: yes, B: on, C: 1.10, D: 0755, E: true, F: 1e3, G: 22:22, H: ~, TAG: , I: \"\", J: 'True'}\n\
         ports: [22:22, 2222:2222]\nrestart: no\ndeploy: {replicas: \"${REPLICAS:-3}\"}\nstop_grace_period: 0\n\
         user: 0123\nhealthcheck: {test: [NONE]}\nentrypoint: \"\"\ncommand: [a, 1, true, '']",
    )
    .unwrap();
    let container = deployment.spec.container;
    let environment: Vec<String> =
        container.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        environment.join(" "),
        "A=yes B=on C=1.10 D=0755 E=true F=1e3 G=22:22 I= J=True TAG=v7"
    );
    assert_eq!(spec.ports.iter().map(|port| port.published).collect::<Vec<_>>(), [22, 2222]);
    assert_eq!(container.restart.condition, RestartCondition::None);
    assert_eq!(deployment.replicas, Some(3));
    assert_eq!(container.stop_grace_ms, 0);
    assert_eq!(container.user.as_deref(), Some("0123"));
    assert_eq!(container.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(container.entrypoint, Some(vec![]));
    assert_eq!(container.command.unwrap(), ["a", "1", "true", ""]);
}

#[test]
fn variables_without_a_value_are_told() {
    let project =
        parse("services: {a: {image: i, environment: [A=$NONE, 'B=${ALSO}$EMPTY$NONE', C=$TAG]}}")
            .unwrap();
    let told =
        ["ALSO", "NONE"].map(|name| format!("the variable {name} is not set: it counts as empty"));
    assert_eq!(project.warnings, told);
}

#[test]
fn a_limit_alone_reserves_nothing() {
    let container = service("mem_limit: 1g\ncpus: 0.5").unwrap().spec.container;
    assert_eq!((container.limit.cpu_millis, container.limit.memory_bytes), (500, 1 << 30));
    assert!(container.reservation.is_zero());
}

#[test]
fn what_is_too_large_is_refused() {
    let large = " ".repeat(compose::MAX_FILE_BYTES + 1);
    assert_eq!(parse(&large), Err(ComposeError::TooLarge(large.len())));
    let many: String = (0..1001).map(|i| format!("  s{i}: {{image: i}}\n")).collect();
    let error = parse(&format!("services:\n{many}")).unwrap_err().to_string();
    assert_eq!(error, "services has 1001 services, more than 1000");
    let error = service(&format!("command: [\"{}\"]", "x".repeat(300_000))).unwrap_err();
    assert!(
        error.starts_with("services.s has 300") && error.ends_with("more than 262144"),
        "{error}"
    );
    let wrong: String = (0..900).map(|i| format!("  s{i}: {{image: i, tty: 1}}\n")).collect();
    let error = parse(&format!("services:\n{wrong}")).unwrap_err().to_string();
    assert!(error.ends_with("; and 836 more"), "{error}");
    let error = service(&format!("? {}\n: 1", "x".repeat(100_000))).unwrap_err();
    assert!(error.len() < 1000, "{}", error.len());
    // A chain of all the services that a file may have is no circle.
    let chain: String =
        (1..1000).map(|i| format!("  s{i}: {{image: i, depends_on: [s{}]}}\n", i - 1)).collect();
    assert_eq!(
        parse(&format!("services:\n  s0: {{image: i}}\n{chain}")).unwrap().services.len(),
        1000
    );
}

#[test]
fn what_was_parsed_survives_its_encoding() {
    let text = fs::read_to_string(fixtures().join("web-api-redis.yaml")).unwrap();
    for deployment in parse(&text).unwrap().services {
        let json = serde_json::to_string(&deployment).unwrap();
        assert_eq!(serde_json::from_str::<Deployment>(&json).unwrap(), deployment);
    }
}

/// Whatever the text is, the answer is a project or one line.
fn answers(text: &str) {
    if let Err(error) = parse(text) {
        let line = error.to_string();
        assert!(!line.is_empty() && !line.contains(['\n', '\r']), "{text:?}: {line:?}");
    }
}

/// Pieces of Compose files, to be put together at random.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "services",
        "image",
        "ports",
        "deploy",
        "replicas",
        "environment",
        "command",
        "healthcheck",
        "depends_on",
        "x-vc",
        ": ",
        ":\n",
        "- ",
        "\n",
        "  ",
        "    ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!str ",
        "!x ",
        "'",
        "\"",
        "|",
        ">",
        "\\",
        "#",
        "%",
        "@",
        "?",
        "~",
        "null",
        "true",
        "80:80",
        "1-9:1-9",
        "1.5",
        "-1",
        "10s",
        "$",
        "${",
        "}",
        "$$",
        "${A:-",
        "---\n",
        "...\n",
        "\t",
        "\r\n",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "é",
        "=",
        "==",
        "node.name == a",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60)
        .prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        answers(&text);
    }

    #[test]
    fn no_jumble_of_yaml_makes_it_panic(text in pieces()) {
        answers(&text);
        let indented = text.replace('\n', "\n    ");
        answers(&format!("services:\n  s:\n    image: i\n    {indented}\n"));
        let _ = compose::parse_env_file(&text, &BTreeMap::new());
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0.0..1.0, length in 0usize..40, filler in pieces()) {
        let text = fs::read_to_string(fixtures().join("web-api-redis.yaml")).unwrap();
        let chars: Vec<char> = text.chars().collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (at * chars.len() as f64) as usize;
        let tail = chars.iter().skip(at + length);
        answers(&chars[..at].iter().copied().chain(filler.chars()).chain(tail.copied()).collect::<String>());
    }
}
