//! Top-level keys.

use std::collections::BTreeMap;
use std::io;

use vc_compose::Context;

use crate::{entry, parse};

#[test]
fn unsupported_top_level_keys_are_refused() {
    for (text, refusal) in [
        ("", "the file has no services: write services: at the top"),
        ("services", "the file has no services: write services: at the top"),
        ("{}", "services is empty: name at least one service"),
        ("services: {}", "services is empty: name at least one service"),
        ("services: [a]", "services must be a map; services is empty: name at least one service"),
        (
            "services: {a: }",
            "services.a has no image: name one with image:, or say how to build it with build:",
        ),
        (
            "services: {a: x}",
            "services.a must be a map; services.a has no image: name one with image:, or say how to build it with build:",
        ),
        ("services: {a: {image: '-x'}}", "services.a.image: '-x' is not an image reference"),
        ("services: {a: {image: a b}}", "services.a.image: 'a b' is not an image reference"),
        ("services: {a: {image: $NONE}}", "services.a.image is empty"),
        (
            "services: {Ä: {image: i}}",
            "services.Ä: 'Ä' is not a name: use 1 to 63 lower-case letters, digits and '-', starting with a letter or \
             a digit",
        ),
        (
            "services: {a.b: {image: i}, A-b: {image: i}}",
            "services.a.b has the name of another one: in lower case, with '-' for each dot, they are the same",
        ),
        (
            "servces: {a: {image: i}}",
            "servces is not supported: did you mean 'services'?; services is empty: name at least one service",
        ),
        ("networks: [a]\nservices: {a: {image: i}}", "networks must be a map"),
        ("volumes: [a]\nservices: {a: {image: i}}", "volumes must be a map"),
        (
            "include: [b.yaml]\nservices: {a: {image: i}}",
            "include[0]: cannot read 'b.yaml': no such file",
        ),
        (
            "x-vc: {nod: n}\nservices: {a: {image: i}}",
            "x-vc.nod is not supported: did you mean 'node'?",
        ),
        (
            "services: {a: {image: i}}\n---\n[1]",
            "the file has no services: write services: at the top",
        ),
        (
            "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [c]}, c: {image: i, depends_on: [b]}}",
            "services.b.depends_on is a cycle: b -> c -> b",
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
        let context =
            Context { project, node: None, directory, env: &env, read: &read, open: &entry };
        let parsed = vc_compose::parse(&format!("{line}\nservices: {{a: {{image: i}}}}"), &context);
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
fn names_with_capitals_and_dots_are_those_of_hosts() {
    let text = "services:\n  My.Web:\n    image: i\n    depends_on: [DB]\n    links: ['DB:store']\n    networks: [Front.Net]\n    \
                volumes: ['Data.d:/d']\n  DB: {image: i, networks: [Front.Net]}\nnetworks: {Front.Net: }\nvolumes: {Data.d: }";
    let project = parse(text).unwrap();
    let names: Vec<&str> = project.services.iter().map(|it| it.service.service.as_str()).collect();
    assert_eq!(names, ["db", "my-web"]);
    let web = serde_json::to_value(&project.services[1].spec).unwrap();
    assert_eq!(web["container"]["networks"], serde_json::json!({"front-net": ["my.web"]}));
    assert_eq!(web["container"]["mounts"][0]["volume"]["name"], "data-d");
    assert!(web["depends_on"].get("db").is_some());
    assert_eq!(
        project.warnings,
        [
            "services.DB is named 'db' here",
            "services.My.Web is named 'my-web' here; 'my.web' is an alias"
        ]
    );
}

#[test]
fn a_healthcheck_without_a_test_has_that_of_the_image() {
    let check = |lines: &str| {
        let text = format!("services: {{a: {{image: i, healthcheck: {lines}}}}}");
        let spec = parse(&text).unwrap().services.remove(0).spec.into_inner();
        serde_json::to_value(spec.container.healthcheck).unwrap()
    };
    assert_eq!(check("{disable: false}"), serde_json::Value::Null);
    assert_eq!(check("{interval: 5s}"), serde_json::json!({"test": [], "interval_ms": 5000}));
    let start = check("{test: x, start_period: 1m, start_interval: 1s}");
    assert_eq!(
        (start["start_period_ms"].as_u64(), start["start_interval_ms"].as_u64()),
        (Some(60_000), Some(1000))
    );
}

#[test]
fn a_file_is_pinned_to_a_node() {
    let text = "x-vc: {node: attic}\nservices:\n  a:\n    image: i\n    volumes: ['/srv/a:/a', '/srv/a.conf:/b', '/run/x:/c', \
                {type: bind, source: /srv/d, target: /d, bind: {create_host_path: false}}, './d:/e']";
    let (env, read) = (BTreeMap::new(), |_: &str| Err(io::ErrorKind::NotFound.into()));
    let open = |_: &str| Err(io::ErrorKind::NotFound.into());
    let on = |node| {
        let context = Context {
            project: None,
            node,
            directory: Some("x"),
            env: &env,
            read: &read,
            open: &open,
        };
        vc_compose::parse(text, &context).unwrap().services.remove(0).spec.into_inner()
    };
    let spec = on(None);
    assert_eq!(spec.constraints[0].to_string(), "node.name == attic");
    let sources: Vec<&str> = spec.container.mounts.iter().filter_map(|it| it.host_path()).collect();
    assert_eq!(sources, ["/srv/a", "/srv/a.conf", "/run/x", "/srv/d"]);
    let made: Vec<&String> = spec.container.created_host_paths.iter().collect();
    assert_eq!(made, ["/srv/a"], "no files, and nothing of the system");
    assert_eq!(spec.volumes().count(), 1, "a directory of the operator");
    assert_eq!(on(Some("cellar")).constraints[0].to_string(), "node.name == cellar");
}
