//! Several files, `include` and `extends`: the merge rules of Compose.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};
use vc_compose::{Context, Entry, Project, Source};

/// The files of a project, the first of which are given; the rest is there.
fn read(files: &[(&str, &str)], given: usize, env: &[(&str, &str)]) -> Result<Project, String> {
    let env: BTreeMap<String, String> =
        env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let find = |path: &str| {
        let path = path.trim_start_matches("./");
        let found = files.iter().find(|(name, _)| *name == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    };
    let context = Context {
        project: None,
        node: None,
        directory: Some("shop"),
        env: &env,
        read: &|path| find(path).map(String::into_bytes),
        open: &|path| find(path).map(|text| Entry::File { content: text.into_bytes(), mode: 0 }),
    };
    let sources: Vec<Source<'_>> =
        files[..given].iter().map(|(name, text)| Source { name, text }).collect();
    vc_compose::parse_files(&sources, &context).map_err(|error| error.to_string())
}

/// The service `s` of two files of which the second is merged over the first, as JSON.
fn merged(base: &str, over: &str) -> Result<Value, String> {
    let file = |lines: &str| {
        let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "services:\n  s:\n    image: i\n{lines}volumes: {{a: , b: }}\nnetworks: {{n: , m: }}\n"
        )
    };
    let (base, over) = (file(base), file(over));
    let project = read(&[("a.yaml", &base), ("b.yaml", &over)], 2, &[])?;
    Ok(serde_json::to_value(&project.services[0]).unwrap()["spec"].take())
}

fn field(base: &str, over: &str, pointer: &str) -> Value {
    let spec = merged(base, over).unwrap_or_else(|error| panic!("{base} + {over}: {error}"));
    spec.pointer(pointer).cloned().unwrap_or_default()
}

#[test]
fn commands_are_replaced_and_lists_are_appended() {
    let over = |key: &str, base: &str, over: &str| {
        field(&format!("{key}: {base}"), &format!("{key}: {over}"), &format!("/container/{key}"))
    };
    assert_eq!(over("command", "[a, b]", "[c]"), json!(["c"]));
    assert_eq!(over("entrypoint", "a b", "[c]"), json!(["c"]));
    assert_eq!(over("user", "a", ""), json!("a"), "a key without a value changes nothing");
    let options = field(
        "security_opt: [a=1]",
        "security_opt: [b=2, a=1]",
        "/container/settings/security_opt",
    );
    assert_eq!(options, json!(["a=1", "b=2", "a=1"]));
    let test = field(
        "healthcheck: {test: [CMD, a], retries: 3}",
        "healthcheck: {test: [CMD, b]}",
        "/container/healthcheck",
    );
    assert_eq!(test, json!({"test": ["CMD", "b"], "retries": 3}));
}

#[test]
fn maps_and_lists_of_pairs_are_merged_by_key() {
    let environment =
        field("environment: [A=1, B=1]", "environment: {B: 2, C: 3}", "/container/environment");
    assert_eq!(environment, json!({"A": "1", "B": "2", "C": "3"}));
    let labels = field("labels: {a: 1}", "labels: [a=2, b]", "/container/labels");
    assert_eq!(labels, json!({"a": "2", "b": ""}));
    let networks =
        field("networks: [n]", "networks: {m: {aliases: [x]}, n: }", "/container/networks");
    assert_eq!(networks, json!({"n": [], "m": ["x"]}));
    let limits = field(
        "ulimits: {nofile: {soft: 1, hard: 2}}",
        "ulimits: {nofile: 5}",
        "/container/settings/ulimits",
    );
    assert_eq!(limits, json!({"nofile": [5, 5]}));
    let hosts = field(
        "extra_hosts: [a=10.0.0.1]",
        "extra_hosts: {a: 10.0.0.2, b: 10.0.0.3}",
        "/container/settings/extra_hosts",
    );
    assert_eq!(hosts, json!(["a:10.0.0.1", "a:10.0.0.2", "b:10.0.0.3"]));
}

#[test]
fn an_entry_replaces_the_one_of_the_same_port_target_or_name() {
    let ports = field(
        "ports: ['80:80', '81:81']",
        "ports: [{target: 80, published: 80}, '82:80']",
        "/ports",
    );
    let published: Vec<_> =
        ports.as_array().unwrap().iter().map(|it| it["published"].clone()).collect();
    assert_eq!(published, [80, 81, 82]);
    let mounts = field("volumes: ['a:/x', 'a:/y']", "volumes: ['b:/x:ro']", "/container/mounts");
    assert_eq!(mounts[0], json!({"volume": {"name": "b", "target": "/x", "read_only": true}}));
    assert_eq!(mounts.as_array().unwrap().len(), 2);
    let dropped =
        field("cap_drop: [CHOWN]", "cap_drop: [CHOWN, KILL]", "/container/settings/cap_drop");
    assert_eq!(dropped, json!(["CHOWN", "KILL"]));
    let servers = field("dns: 1.1.1.1", "dns: [1.1.1.1, 9.9.9.9]", "/container/settings/dns");
    assert_eq!(servers, json!(["1.1.1.1", "9.9.9.9"]));
    let env = [("a.env", "X=1\nY=1\n"), ("b.env", "Y=2\n")];
    let files = [
        ("a.yaml", "services: {s: {image: i, env_file: a.env}}"),
        ("b.yaml", "services: {s: {env_file: [a.env, {path: b.env}]}}"),
        env[0],
        env[1],
    ];
    let project = read(&files, 2, &[]).unwrap();
    let environment = &project.services[0].spec.container.environment;
    assert_eq!(environment.values().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn tags_reset_and_override_what_is_there() {
    assert_eq!(field("ports: ['80:80']", "ports: !reset []", "/ports"), Value::Null);
    assert_eq!(field("user: a", "user: !reset null", "/container/user"), Value::Null);
    let labels =
        field("labels: {a: 1, b: 1}", "labels: {a: !reset null, c: 1}", "/container/labels");
    assert_eq!(labels, json!({"b": "1", "c": "1"}));
    let labels = field("labels: {a: 1, b: 1}", "labels: !override {c: 1}", "/container/labels");
    assert_eq!(labels, json!({"c": "1"}));
    let alone = read(
        &[("a.yaml", "services: {s: {image: i, user: !reset a, command: !override [x]}}")],
        1,
        &[],
    );
    let container = alone.unwrap().services.remove(0).spec.into_inner().container;
    assert_eq!((container.user, container.command), (None, Some(vec!["x".to_owned()])));
}

#[test]
fn files_that_do_not_fit_are_named_with_the_path() {
    assert_eq!(
        merged("dns: 1.1.1.1", "labels: 1\nports: ['80:80', 'x:1']").unwrap_err(),
        "services.s.labels (b.yaml) must be a map; services.s.ports[1] (b.yaml): 'x' is not a port: write a number from 1 to \
         65535"
    );
    assert_eq!(
        merged("deploy: {replicas: 1}\nuser: ${X:?set it}", "deploy: [1]").unwrap_err(),
        "services.s.user needs the variable X: set it; services.s.deploy (b.yaml) is a list in b.yaml, which cannot be merged \
         with the map below it: write !override before the later one"
    );
    let base = "services: {s: {image: i}}";
    assert_eq!(
        read(&[("a.yaml", base), ("b.yaml", "a: [")], 2, &[]).unwrap_err(),
        "b.yaml: line 1, column 4: unclosed bracket '['"
    );
    let documents = "services: {s: {image: i}}\n---\nservices: {s: {user: x}}\n";
    let project = read(&[("a.yaml", documents)], 1, &[]).unwrap();
    assert_eq!(project.services[0].spec.container.user.as_deref(), Some("x"), "as files");
}

#[test]
fn the_project_is_named_by_the_last_file_or_the_environment() {
    let files = [
        ("a.yaml", "name: a\nservices: {s: {image: 'i:${COMPOSE_PROJECT_NAME}'}}"),
        ("b.yaml", "name: $NAME"),
    ];
    for (given, env, name) in [
        (1, &[][..], "a"),
        (2, &[("NAME", "b")], "b"),
        (2, &[("NAME", "b"), ("COMPOSE_PROJECT_NAME", "c")], "c"),
    ] {
        let project = read(&files, given, env).unwrap();
        assert_eq!(project.name.as_str(), name);
        assert_eq!(project.services[0].spec.container.image, format!("i:{name}"));
    }
    let refused = read(&files, 1, &[("COMPOSE_PROJECT_NAME", "My App")]).unwrap_err();
    assert!(refused.starts_with("COMPOSE_PROJECT_NAME: 'My App' is not a name"), "{refused}");
}

const INCLUDING: &str = "include:\n  - db/compose.yaml\n  - {path: [web.yaml, web.over.yaml], project_directory: web, env_file: web.env}\n\
                         services: {db: {environment: {MORE: 1}}}";

#[test]
fn an_included_project_has_its_own_directory_and_variables() {
    let files = [
        ("compose.yaml", INCLUDING),
        (
            "db/compose.yaml",
            "name: other\nservices:\n  db:\n    image: db:$TAG\n    build: .\n    env_file: db.env\n    environment: [TAG, OUTER]\n    \
             volumes: [./data:/data, ./db.conf:/etc/db.conf, kept:/kept]\nvolumes: {kept: }",
        ),
        ("db/.env", "TAG=7\nOUTER=inner\n"),
        ("db/db.env", "X=1\n"),
        ("db/db.conf", "conf"),
        ("web.yaml", "services: {web: {image: 'web:$TAG', volumes: ['./w:/w']}}"),
        ("web.over.yaml", "services: {web: {user: 'u'}}"),
        ("web.env", "TAG=8\n"),
    ];
    let project = read(&files, 1, &[("OUTER", "outer")]).unwrap();
    assert_eq!(project.name.as_str(), "shop", "that of the included file does not count");
    let db = &project.services[0].spec.container;
    assert_eq!(db.image, "db:7");
    let expected = [("MORE", "1"), ("OUTER", "outer"), ("TAG", "7"), ("X", "1")];
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    assert_eq!(db.environment, expected);
    assert_eq!(project.builds[0].context, "./db");
    assert_eq!(db.files[0].file.name, "./db/db.conf");
    let uploads: Vec<&str> = project.uploads.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(uploads, ["./db/data", "./web/w"]);
    let web = &project.services[1].spec.container;
    assert_eq!((web.image.as_str(), web.user.as_deref()), ("web:8", Some("u")));
}

#[test]
fn variables_of_an_included_file_are_those_of_its_env_files() {
    let files = [
        (
            "compose.yaml",
            "include: [{path: a.yaml, env_file: [a.env, b.env]}]\nservices: {s: {image: 's:$TAG', environment: [TAG]}}",
        ),
        (
            "a.yaml",
            "services: {t: {image: 't:$TAG', environment: [TAG, NONE], build: {context: ., args: [TAG]}}}",
        ),
        ("a.env", "TAG=1\nX=2\n"),
        ("b.env", "TAG=$X$OUTER\n"),
    ];
    let project = read(&files, 1, &[("OUTER", "o")]).unwrap();
    let said = |index: usize| {
        let container = &project.services[index].spec.container;
        (container.image.as_str(), container.environment.get("TAG").map(String::as_str))
    };
    assert_eq!((said(0), said(1)), (("s:", None), ("t:2o", Some("2o"))));
    assert_eq!(project.builds[0].args["TAG"], "2o");
}

#[test]
fn what_cannot_be_included_is_refused() {
    let main = "include: [a.yaml]\nservices: {s: {image: i}}";
    let with = |text: &str| read(&[("compose.yaml", main), ("a.yaml", text)], 1, &[]).map(drop);
    for (text, refusal) in [
        (
            "include: [b/../a.yaml]\nservices: {t: {image: i}}",
            "include[0] (a.yaml): cannot read 'b/../a.yaml': no such file",
        ),
        ("include: [a.yaml]", "include[0] (a.yaml) is a cycle: a.yaml -> a.yaml"),
        (
            "include: ['oci://x/y']",
            "include[0] (a.yaml): 'oci://x/y' is not on this computer: download it, and name the file",
        ),
        ("include: [{env_file: x}]", "include[0] (a.yaml) has no path: name a file"),
        (
            "x-vc: {node: n}\nservices: {t: {image: i}}",
            "include[0] has x-vc at its top: write it in the file that includes it",
        ),
        (
            "services: {t: {image: i, userr: x}}",
            "services.t.userr (a.yaml) is not supported: did you mean 'user'?",
        ),
        ("a: [", "a.yaml: line 1, column 4: unclosed bracket '['"),
    ] {
        assert_eq!(with(text).unwrap_err(), refusal, "{text}");
    }
    let twice = "include: [a.yaml, b.yaml]\nservices: {s: {image: i}}";
    let files = [
        ("compose.yaml", twice),
        ("a.yaml", "include: [c.yaml]"),
        ("b.yaml", "include: [c.yaml]"),
        ("c.yaml", "services: {c: {image: c}}"),
    ];
    assert_eq!(read(&files, 1, &[]).unwrap().services.len(), 2, "a file may be included twice");
}

#[test]
fn a_service_extends_another_of_its_file_or_of_another_one() {
    let files = [
        (
            "compose.yaml",
            "services:\n  web:\n    extends: {service: base, file: common/base.yaml}\n    environment: {B: 2}\n    ports: !reset\n  \
             api: {extends: web, command: [x]}",
        ),
        (
            "common/base.yaml",
            "services:\n  base: {extends: root, environment: {A: 1, B: 1}, ports: ['80:80'], volumes: ['./d:/d']}\n  \
             root: {image: 'i:${TAG}', env_file: [e.env]}\n  unused: {image: '${TAG}'}",
        ),
        ("common/e.env", "E=1\n"),
    ];
    let project = read(&files, 1, &[("TAG", "3")]).unwrap();
    assert_eq!(project.services.len(), 2);
    for service in &project.services {
        let spec = &service.spec;
        assert_eq!(spec.container.image, "i:3");
        assert_eq!(spec.container.environment.values().collect::<Vec<_>>(), ["1", "2", "1"]);
        assert!(spec.ports.is_empty());
    }
    assert_eq!(project.services[0].spec.container.command.as_deref(), Some(&["x".to_owned()][..]));
    assert_eq!(project.uploads[0].path, "./common/d");
}

#[test]
fn services_that_cannot_be_extended_are_refused() {
    let base = "services: {b: {image: i, userr: x, volumes: [c]}}";
    let with = |extends: &str| {
        let text = format!("services:\n  s: {{image: i, extends: {extends}}}\n  t: {{extends: s}}");
        read(&[("compose.yaml", &text), ("base.yaml", base)], 1, &[]).map(drop)
    };
    for (extends, refusal) in [
        (
            "t",
            "services.s.extends is a cycle: a service that it extends extends it; services.t.extends is a cycle: a service that it extends extends it",
        ),
        (
            "{service: x, file: base.yaml}",
            "services.s.extends names 'x', which is no service of base.yaml",
        ),
        ("{file: base.yaml}", "services.s.extends has no service: name the one that it extends"),
        (
            "{service: x, file: none.yaml}",
            "services.s.extends.file: cannot read 'none.yaml': no such file",
        ),
        ("nobody", "services.s.extends names 'nobody', which is no service of compose.yaml"),
        (
            "{service: b, file: base.yaml}",
            "services.s.volumes[0] (base.yaml): 'c' is not an absolute path: begin it with /; services.s.userr (base.yaml) is not \
             supported: did you mean 'user'?; services.t.volumes[0] (base.yaml): 'c' is not an absolute path: begin it with /; \
             services.t.userr (base.yaml) is not supported: did you mean 'user'?",
        ),
    ] {
        assert_eq!(with(extends).unwrap_err(), refusal, "{extends}");
    }
    let chain: String = (1..3000).map(|i| format!("  s{i}: {{extends: s{}}}\n", i - 1)).collect();
    let chain = format!("services:\n  s0: {{image: i}}\n{chain}");
    assert!(read(&[("a.yaml", &chain)], 1, &[]).unwrap_err().contains("in a row"));
    let large =
        format!("services:\n  base: {{image: i, labels: {{a: '{}'}}}}\n", "x".repeat(900_000));
    let many: String = (0..20).map(|i| format!("  s{i}: {{extends: base}}\n")).collect();
    assert!(
        read(&[("a.yaml", &format!("{large}{many}"))], 1, &[]).unwrap_err().contains("too large")
    );
}
