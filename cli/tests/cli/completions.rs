//! What a shell is offered while a line is written.

use std::process::{Command, Stdio};

use vc_protocol::control::{ImageRow, Reply, Request, ServiceRow};

use crate::node::{Node, OURS, Plan, attached_to, member, node_row};
use crate::{CommandOutput, Home};

/// A node with a service and an image of the names that bash takes apart.
fn plan() -> Plan {
    let image = ImageRow {
        reference: "registry:5000/web:1".to_owned(),
        id: String::new(),
        size: 1,
        nodes: vec![],
        services: vec![],
        pushed: 1,
    };
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Nodes => vec![Reply::Nodes(vec![node_row(1, "attic"), node_row(2, "desk")])],
        Request::Images => vec![Reply::Images(vec![image.clone()])],
        Request::Services => vec![Reply::Services(vec![service("shop/web"), service("blog/web")])],
        other => panic!("{other:?}"),
    });
    plan
}

fn service(key: &str) -> ServiceRow {
    let project = key.split_once('/').expect("a key").0;
    serde_json::from_value(serde_json::json!({
        "service": key, "project": project, "image": "web:1", "replicas": 1, "running": 1, "healthy": 1,
        "on_partition": "available", "updated": 1, "revision": 1,
    }))
    .expect("a row")
}

/// Has bash complete a line at its end, as it does after a tab. Returns what may replace its last part.
fn bash(home: &Home, line: &str) -> Vec<String> {
    let script = home.vc(&["completions", "bash"]).ok();
    // Bash gives the words as it takes them apart.
    let words = r#"
        vc() { :; }
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
        COMP_WORDS=(); while IFS= read -r word; do COMP_WORDS+=("$word"); done < <(grep -oE '[:=]+|[^ :=]+' <<<"$1")
        [[ $1 != *' ' ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _vc vc "" ""
        ((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", &format!("{script}{words}"), "bash", line]);
    command.env("HOME", home.path()).current_dir(home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let out: CommandOutput = command.output().expect("started").into();
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{line}");
    out.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn bash_is_offered_the_names_that_the_cluster_has() {
    let (home, node) = (Home::new(), Node::start(plan()));
    let login = OURS.token(&[&node.address]);
    home.vc(&["login", &login]).ok();
    let desk = Node::start(plan());
    let peer = format!("vc --peer {} drain de", desk.address);
    home.write("my compose.yaml", "");
    for (line, offered) in [
        ("vc drain ", &["attic", "desk"][..]),
        ("vc events --node=at", &["attic"]),
        ("vc image rm registry:5000/w", &["5000/web:1"]),
        ("vc image rm registry:5000/web:", &["1"]),
        ("vc scale shop/web=2 bl", &["blog/web="]),
        ("vc cp shop/w", &["shop/web:"]),
        ("vc restart we", &[]),
        ("vc deploy my", &["my compose.yaml"]),
        ("vc ps --output=t", &["table"]),
        ("vc drain x", &[]),
        (&peer, &["desk"]),
    ] {
        assert_eq!(bash(&home, line), offered, "{line}");
    }
    assert!(desk.requests().contains(&Request::Nodes), "the node of --peer was asked");
}

#[test]
fn a_completion_without_a_cluster_is_silent() {
    let home = Home::new();
    assert_eq!(bash(&home, "vc drain "), [""; 0]);
    let token = home.write("expired.token", "eyJ");
    assert_eq!(bash(&home, &format!("vc --token {token} drain ")), [""; 0]);
    // Nothing listens there.
    home.vc(&["login", &OURS.token(&[&"/ip4/127.0.0.1/tcp/1".parse().expect("an address")])]).ok();
    assert_eq!(bash(&home, "vc drain "), [""; 0]);
}

#[test]
fn a_node_that_never_answers_does_not_hold_the_shell() {
    let (home, node) = attached_to(vec![]);
    let mut command = home.command(&[]);
    command.env("VC_COMPLETE", "bash").args(["--", "vc", "drain", ""]);
    let out: CommandOutput = command.output().expect("started").into();
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (Some(0), "", ""));
    assert!(node.requests().contains(&Request::Nodes));
}

#[test]
fn no_shell_is_offered_options_in_place_of_names() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let offered = |word: &str| {
            let mut command = home.command(&["--", "vc", "drain", word]);
            command.env("VC_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "2");
            CommandOutput::from(command.output().expect("started")).stdout
        };
        assert_eq!(offered(""), "", "{shell}");
        assert!(offered("--no").starts_with("--no-wait"), "{shell}");
    }
}

#[test]
fn scripts_are_printed_for_each_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.vc(&["completions", shell]).ok();
        assert!(
            script.contains("VC_COMPLETE") && script.contains(env!("CARGO_BIN_EXE_vc")),
            "{script}"
        );
    }
}
