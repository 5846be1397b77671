//! Docker networks of projects.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use vc_engine::runtime::RuntimeAction;

use crate::*;

#[tokio::test]
async fn a_container_that_was_disconnected_from_its_network_is_unhealthy() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let container = start_in_networks(&mut host, &engine, "shop/web.1", &["front"]).await;
    drop(host);
    let network = format!("vc-shop.front-{}", identity(2).node.short());
    engine.run(&["network", "disconnect", "--force", &network, &container]);
    let (_, all) = Host::on(&engine).await;
    let Phase::Running { health: Some(false), said, .. } = &all[0].phase else { panic!("{all:?}") };
    let expected = format!("another program disconnected it from its network {network}");
    assert_eq!(*said, expected);
}

#[tokio::test]
async fn unused_networks_are_removed_and_those_of_other_owners_are_kept() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let first = start_in_networks(&mut host, &engine, "shop/web.1", &["front", "back"]).await;
    let list = || {
        let ours = ["network", "ls", "--filter", "label=vc.cluster", "--format", "{{.Name}}"];
        let listed = engine.run(&ours);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let short = identity(2).node.short();
    let both = ["back", "front"].map(|network| format!("vc-shop.{network}-{short}"));
    assert_eq!(list(), both);
    let attached = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let attached = engine.run(&["inspect", "-f", attached, &first]);
    assert_eq!(attached.split_whitespace().collect::<Vec<_>>(), both);
    engine.run(&["network", "create", "--label", "vc.cluster=other", "vc-shop.front-other"]);

    // A stopped container may start again: its networks outlive a restart of the node.
    engine.run(&["stop", "-t", "0", &first]);
    drop(host);
    let (host, all) = Host::on(&engine).await;
    assert_eq!(list().len(), 3);
    drop(host);
    assert_eq!(all.len(), 1);
    engine.run(&["rm", &first]);
    let (mut host, _) = Host::on(&engine).await;
    let destroyed = ["events", "--since", "0", "--filter", "type=network", "--filter"];
    let mut events = tokio::process::Command::from(engine.docker(&destroyed));
    events.args(["event=destroy", "--format", "{{.Actor.Attributes.name}}"]);
    let mut events = events.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("docker");
    let mut lines = BufReader::new(events.stdout.take().expect("piped")).lines();
    let mut removed = Vec::new();
    while removed.len() < both.len() {
        let line = timeout(TIMEOUT, lines.next_line()).await.expect("in time");
        removed.extend(line.expect("read"));
    }
    removed.sort();
    assert_eq!(removed, both);

    // The name of a network of another owner.
    let name = format!("vc-blog.default-{short}");
    engine.run(&["network", "create", &name]);
    let spec = shell("exit 0");
    let id = host.start("blog/web.1", &spec);
    let seen = host.change(&id).await;
    let reason = format!(
        "the name {name} is taken by a network of another owner; remove it with 'docker network rm {name}'"
    );
    assert!(
        matches!(&seen.phase, Phase::Failed { reason: text } if text.contains(&reason)),
        "{seen:?}"
    );
    assert_eq!(list(), ["vc-shop.front-other"]);
    host.runtime.perform(RuntimeAction::Remove { id, drain_ms: 0, grace_ms: 0 });
}
