//! Service names: reachable within a project from every node, and not from other projects.

use crate::harness::command::CommandOutput;
use crate::harness::fixtures::{sleeping_service, web};
use crate::harness::lab::{Container, Lab};
use crate::harness::{DEADLINE, until};

/// Resolves a name in a container. Errors: the output of nslookup. (The image's wget cannot resolve names.)
fn resolve(lab: &Lab, at: &(usize, Container), name: &str) -> Result<String, CommandOutput> {
    let output = lab.inside(at.0, &at.1, &["nslookup", "-type=a", name]);
    let answer = output.out.split_once("Name:").map(|(_, answer)| answer);
    let address = answer
        .and_then(|answer| answer.split_once("Address:"))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(str::to_owned);
    address.ok_or(output)
}

/// Returns whether a container gets an HTTP answer from port 80 of an address.
fn reaches(lab: &Lab, at: &(usize, Container), address: &str) -> bool {
    // With nc, because the image's wget crashes.
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
    let output = lab.inside(at.0, &at.1, &["sh", "-c", &ask]);
    output.out.trim().ends_with("vc-test:1")
}

/// Constrains the services of a Compose file to a host.
fn pinned(compose: &str, host: usize) -> String {
    let placement = format!("    deploy: {{placement: {{constraints: [node.name == h{host}]}}, ");
    compose.replace("    deploy: {", &placement)
}

#[test]
fn a_service_resolves_on_other_nodes_and_not_in_other_projects() {
    let lab = Lab::cluster(3);
    let api = pinned(&web("shop", "api", 2, "    container_name: till\n"), 2);
    let services = api.replace(
        "services:\n",
        &format!("services:\n{}", {
            let caller = pinned(&sleeping_service("shop", "caller", 1), 1);
            caller.split_once("services:\n").expect("services").1.to_owned()
        }),
    );
    lab.deploy(1, &services, &["--wait"]).done();
    // Two services of another project: on the client's node and on the service's.
    for (service, host) in [("afar", 1), ("near", 2)] {
        lab.deploy(3, &pinned(&sleeping_service("other", service, 1), host), &["--wait"]).done();
    }
    let caller = lab.only("shop/caller");
    for name in ["api", "till"] {
        let (address, _) = until("the name resolves", DEADLINE, || resolve(&lab, &caller, name));
        until("the service answers", DEADLINE, || {
            if reaches(&lab, &caller, &address) { Ok(()) } else { Err(address.clone()) }
        });
    }
    let address = resolve(&lab, &caller, "api").expect("it resolved before");

    let other = lab.only("other/near");
    let direct = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    for container in lab.containers(2).iter().filter(|it| it.service() == "shop/api") {
        let output = lab.docker(2, &["inspect", "--format", direct, &container.id]).done();
        let direct = output.split_whitespace().next().expect("the name resolves").to_owned();
        assert!(!reaches(&lab, &other, &direct), "{direct} of {container:?}");
    }
    for other in [lab.only("other/afar"), other] {
        assert!(resolve(&lab, &other, "api").is_err(), "{other:?}");
        assert!(!reaches(&lab, &other, &address), "{other:?} reaches {address}");
    }

    // The service moves to another node; its name and virtual IP stay valid.
    lab.deploy(1, &services.replace("== h2", "== h3"), &["--wait"]).done();
    until("the service answers from the other node", DEADLINE, || {
        let gone = lab.containers(2).iter().all(|it| it.service() != "shop/api");
        if gone && reaches(&lab, &caller, &address) { Ok(()) } else { Err(format!("gone: {gone}")) }
    });
    assert_eq!(lab.only("shop/caller"), caller, "the client was not restarted");
}
