//! Tokens that are limited to projects, what viewers see, and the policies of projects.

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::{logging_service, with};
use crate::harness::ports::Port;
use crate::harness::{DEADLINE, running, sleeping_service, until};

/// The words that say something of the project bank.
const OF_BANK: [&str; 3] = ["bank", "vault", "hunter2"];

#[track_caller]
fn shows_nothing_of_bank(text: &str) {
    for word in OF_BANK {
        assert!(!text.contains(word), "{text}");
    }
}

#[test]
fn a_token_of_one_project_touches_and_sees_nothing_of_another() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    cluster.all_up();
    let port = Port::free().number;
    let vault = with(
        "bank",
        "vault",
        1,
        &format!("    environment: {{PASSWORD: hunter2}}\n    ports: ['{port}:{port}']\n"),
    );
    cluster.deploy(0, &vault);
    cluster.deploy(0, &logging_service("shop", "web", 1));
    until("both run", DEADLINE, || running(&cluster.ps(0), "shop/web", 1));
    let vault_file = cluster.file("vault.yaml", &vault);
    let web_file = cluster.file("web.yaml", &logging_service("shop", "web", 1));
    let taken = format!("    ports: ['{port}:{port}']\n");
    let taken = cluster.file("taken.yaml", &with("shop", "api", 1, &taken));
    let bank = |cluster: &Cluster| {
        let rows = cluster.rows(0, &["services"]);
        rows.into_iter().find(|row| row["project"] == "bank").expect("deployed")["revision"].clone()
    };
    let before = bank(&cluster);
    let ann = cluster.limited_token(0, "ann", "deployer", &["--project", "shop"]);
    // Through a server, and through a worker that passes commands on.
    for at in 0..2 {
        let refused = |arguments: &[&str], words: &str| {
            let error = cluster.vc_as(&ann, at, arguments).failed();
            assert!(error.contains(words), "{arguments:?}: {error}");
            error
        };
        for command in [
            &["deploy", &vault_file][..],
            &["deploy", &vault_file, "--dry-run"],
            &["plan", &vault_file],
            &["scale", "bank/vault=2"],
            &["restart", "bank/vault"],
            &["rollback", "bank/vault"],
            &["rm", "bank/vault"],
            &["rm", "bank/"],
            &["logs", "bank/vault"],
            &["exec", "bank/vault", "--", "id"],
            &["cp", "bank/vault:/etc/hosts", "/nowhere/hosts"],
            &["cp", &web_file, "bank/vault:/tmp/x"],
            &["inspect", "bank/vault"],
            &["inspect", "bank/vault", "--show-values"],
            &["ps", "bank/vault"],
            &["ps", "bank/"],
            &["volume", "rm", "bank/data"],
        ] {
            let error = refused(command, "limited to the project shop");
            assert!(error.contains("--project bank"), "the fix: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for command in [&["scale", "vault=2"][..], &["logs", "vault"], &["inspect", "vault"]] {
            refused(command, "no service 'vault'");
        }
        refused(&["rebalance"], "limited to the project shop");
        for command in [
            &["drain", "n1"][..],
            &["leave", "n1"],
            &["token", "ls"],
            &["token", "create", "--user", "eve"],
            &["token", "revoke", "--user", "admin"],
            &["project", "allow", "shop", "privileged"],
        ] {
            refused(command, "--role admin");
        }
        let error = refused(&["deploy", &taken], "by a service of another project already");
        shows_nothing_of_bank(&error);
        for list in [
            &["services"][..],
            &["ps"],
            &["status"],
            &["events"],
            &["volume", "ls"],
            &["image", "ls"],
            &["project", "ls"],
            &["plan", &web_file],
            &["deploy", &web_file, "--dry-run"],
            &["inspect", "web"],
        ] {
            let all = [&["--output", "json"], list].concat();
            shows_nothing_of_bank(&cluster.vc_as(&ann, at, &all).done());
        }
        let nodes = cluster.vc_as(&ann, at, &["nodes"]).done();
        assert!(nodes.contains("n1") && nodes.contains("n2"), "{nodes}");
        let services = cluster.vc_as(&ann, at, &["services"]).done();
        assert!(services.contains("shop/web"), "{services}");
        let replicas = format!("web={}", at + 2);
        cluster.vc_as(&ann, at, &["scale", &replicas]).done();
        assert!(cluster.vc_as(&ann, at, &["logs", "web"]).done().contains("line 1"));
    }
    assert_eq!(bank(&cluster), before, "nothing of the other project has changed");
    assert_eq!(cluster.rows(0, &["services"]).len(), 2);
    let rows = cluster.rows(0, &["token", "ls"]);
    let row = rows.iter().find(|row| row["name"] == "ann").expect("listed");
    assert_eq!((&row["projects"], &row["logs"]), (&serde_json::json!(["shop"]), &true.into()));
}

#[test]
fn an_admin_is_not_limited_to_projects() {
    let cluster = Cluster::found();
    let create = ["token", "create", "--user", "ann", "--role", "admin", "--project", "shop"];
    let output = cluster.vc(0, &create);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.err.contains("belong to no project"), "{output:?}");
}

#[test]
fn viewers_see_no_values_and_read_logs_only_with_a_token_that_says_so() {
    let cluster = Cluster::found();
    let service = |value: &str| {
        let text = logging_service("bank", "vault", 1);
        text.replace("    image:", &format!("    environment: {{PASSWORD: {value}}}\n    image:"))
    };
    cluster.deploy(0, &service("hunter2"));
    until("bank/vault runs", DEADLINE, || running(&cluster.ps(0), "bank/vault", 1));
    let viewer = cluster.user_token(0, "vera", "viewer");
    let reader = cluster.limited_token(0, "rita", "viewer", &["--logs"]);
    let deployer = cluster.user_token(0, "dora", "deployer");

    cluster.vc_as(&viewer, 0, &["logs", "vault"]).refused_with("--logs");
    assert!(cluster.vc_as(&reader, 0, &["logs", "vault"]).done().contains("line 1"));
    cluster.vc_as(&deployer, 0, &["logs", "vault"]).done();

    let json = |token: &str, arguments: &[&str]| -> Value {
        cluster.vc_as(token, 0, &[&["--output", "json"], arguments].concat()).json()
    };
    let values = |detail: &Value| detail["spec"]["container"]["environment"]["PASSWORD"].clone();
    for token in [&viewer, &reader, &deployer] {
        assert_eq!(values(&json(token, &["inspect", "vault"])), "***");
    }
    assert_eq!(values(&json(&deployer, &["inspect", "vault", "--show-values"])), "hunter2");
    cluster
        .vc_as(&viewer, 0, &["inspect", "vault", "--show-values"])
        .refused_with("--role deployer");

    let guesses = ["hunter2", "hunter3"].map(|guess| cluster.file(guess, &service(guess)));
    let [right, wrong] = guesses.clone().map(|file| json(&viewer, &["deploy", &file, "--dry-run"]));
    assert_eq!(right, wrong, "a guess is not confirmed");
    let differs = json(&deployer, &["deploy", &guesses[1], "--dry-run"]);
    assert!(differs.to_string().contains("hunter2"), "{differs}");
    for list in [&["services"][..], &["ps"], &["status"], &["events"], &["plan", &guesses[1]]] {
        let all = [&["--output", "json"], list].concat();
        let text = cluster.vc_as(&viewer, 0, &all).done();
        assert!(!text.contains("hunter"), "{text}");
    }
    // A digest over the values would let a viewer try guesses on its own.
    assert_eq!(json(&viewer, &["ps"])[0]["digest"], "");
    assert_ne!(json(&deployer, &["ps"])[0]["digest"], "");
}

#[test]
fn what_an_instance_wrote_is_not_in_the_reasons_that_a_viewer_sees() {
    let cluster = Cluster::found();
    let text = sleeping_service("bank", "vault", 1);
    let fails = "command: [sh, -c, 'echo cannot log in with hunter2; exit 3']";
    let file = cluster.file("vault.yaml", &text.replace("command: [sleep, '900']", fails));
    cluster.vc(0, &["deploy", &file]).done();
    let viewer = cluster.user_token(0, "vera", "viewer");
    let reader = cluster.limited_token(0, "rita", "viewer", &["--logs"]);
    let lists = [&["ps"][..], &["status"], &["events"], &["inspect", "vault"], &["services"]];
    let shown = |token: &str| -> String {
        let all = lists
            .map(|list| cluster.vc_as(token, 0, &[&["--output", "json"], list].concat()).done());
        // The specification has the command.
        all.concat().replace("echo cannot log in with hunter2", "")
    };
    until("it fails", DEADLINE, || {
        let text = shown(&reader);
        let all = text.contains("exited with code 3: cannot log in with hunter2");
        if all && text.contains("failed on n1") { Ok(()) } else { Err(text) }
    });
    let text = shown(&viewer);
    assert!(text.contains("exited with code 3") && !text.contains("hunter2"), "{text}");
}

#[test]
fn deployers_use_what_the_policy_of_a_project_allows() {
    let cluster = Cluster::of(2);
    let deployer = cluster.user_token(0, "dora", "deployer");
    let file = |project: &str, value: &str| {
        let more = format!("    cap_add: [SYS_ADMIN]\n    environment: {{A: {value}}}\n");
        cluster.file(&format!("{project}-{value}"), &with(project, "web", 1, &more))
    };
    let deploy = |at, file: &str| cluster.vc_as(&deployer, at, &["deploy", file]);
    deploy(0, &file("shop", "a")).refused_with("'vc project allow shop capabilities'");
    let allow = ["project", "allow", "shop", "capabilities", "host-paths=/srv/data"];
    cluster.vc_as(&deployer, 0, &allow).refused_with("--role admin");
    let allowed = cluster.vc(0, &allow).done();
    assert!(allowed.contains("shop may use capabilities host-paths=/srv/data"), "{allowed}");
    until("the other server knows", DEADLINE, || {
        let rows = cluster.rows(1, &["project", "ls"]);
        if rows.iter().any(|row| row["allowed"][0] == "capabilities") { Ok(()) } else { Err(rows) }
    });
    deploy(1, &file("shop", "a")).done();
    deploy(0, &file("bank", "a")).refused_with("'vc project allow bank capabilities'");

    cluster.vc(0, &["project", "deny", "shop", "capabilities"]).done();
    cluster.vc(0, &["project", "deny", "shop", "devices"]).refused_with("is not allowed devices");
    deploy(0, &file("shop", "a")).done();
    cluster.vc_as(&deployer, 0, &["scale", "web=2"]).done();
    deploy(0, &file("shop", "b")).refused_with("the capability SYS_ADMIN");
    // What an admin replaced comes back through an admin only.
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    until("the update ends", DEADLINE, || running(&cluster.ps(0), "shop/web", 2));
    cluster.vc_as(&deployer, 0, &["rollback", "web"]).refused_with("the capability SYS_ADMIN");
}

#[test]
fn a_cluster_without_an_admin_token_gets_one_from_a_server() {
    let cluster = Cluster::found();
    let revoke = ["token", "revoke", "--user", "admin"];
    cluster.vc(0, &revoke).refused_with("repeat it with --yes");
    let ada = cluster.user_token(0, "ada", "admin");
    cluster.vc_as(&ada, 0, &["token", "revoke", "--user", "ada"]).refused_with("--yes");
    cluster.vc_as(&ada, 0, &revoke).done();
    cluster.vc(0, &["nodes"]).refused_with("revoked");
    cluster.vc_as(&ada, 0, &["token", "revoke", "--user", "ada", "--yes"]).done();
    cluster.vc_as(&ada, 0, &["nodes"]).refused_with("revoked");
    // The revocation is of tokens up to its second.
    until("the new token is accepted", DEADLINE, || {
        let token = cluster.nodes[0].new_admin_token();
        let output = cluster.vc_as(&token, 0, &["token", "ls"]);
        if output.code == Some(0) { Ok(()) } else { Err(output) }
    });
    let token = cluster.nodes[0].new_admin_token();
    cluster.vc_anywhere(&token, &["token", "ls"]).done();
}
