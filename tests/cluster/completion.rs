//! What shells are offered while a command is written.

use std::process::Command;

use crate::harness::cluster::Cluster;
use crate::harness::command::run;
use crate::harness::{DEADLINE, program, running, sleeping_service, until};

/// Asks for what the last word may become, as the script of bash does.
fn offered(cluster: &Cluster, token: &str, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(program("vc"));
    command.env("VC_COMPLETE", "bash").env("VC_TOKEN", token);
    command.args(["--", "vc", "--peer", cluster.nodes[0].address()]).args(words);
    let output = run(command);
    assert_eq!((output.code, output.err.as_str()), (Some(0), ""), "{words:?}");
    output.out.lines().map(str::to_owned).collect()
}

#[test]
fn names_of_the_cluster_complete_as_far_as_the_user_may_see_them() {
    let cluster = Cluster::of(2);
    cluster.all_up();
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    cluster.deploy(0, &sleeping_service("bank", "vault", 1));
    until("all run", DEADLINE, || running(&cluster.ps(0), "shop/web", 2));
    cluster.vc(0, &["notify", "add", "ops", "webhook", "http://127.0.0.1:9/"]).done();
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let admin = cluster.user_token(0, "root", "admin");
    let of_shop = cluster.limited_token(0, "ann", "deployer", &["--project", "shop"]);

    let admin = |words: &[&str]| offered(&cluster, &admin, words);
    assert_eq!(admin(&["drain", ""]), names);
    assert_eq!(admin(&["restart", ""]), ["bank/vault", "shop/web"]);
    assert_eq!(admin(&["restart", "v"]), ["vault"]);
    assert_eq!(admin(&["logs", "shop/web."]), ["shop/web.1", "shop/web.2"]);
    assert_eq!(admin(&["notify", "rm", ""]), ["ops"]);
    assert!(admin(&["audit", "--user", "a"]).contains(&"ann".to_owned()));

    let ann = |words: &[&str]| offered(&cluster, &of_shop, words);
    assert_eq!(ann(&["restart", ""]), ["shop/web"]);
    assert_eq!(ann(&["notify", "rm", ""]), [""; 0], "what ann may not read is not offered");
}
