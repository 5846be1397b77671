//! Services call each other by name, and nobody else's.

use crate::harness::fixtures::{sleeping_service, web};
use crate::harness::lab::{Container, Lab};
use crate::harness::{DEADLINE, until};

/// The address that a name has in a container; what was said where it has none. (The lab's image has a wget that cannot
/// look up names.)
fn resolve(lab: &Lab, at: &(usize, Container), name: &str) -> Result<String, String> {
    let said = lab.inside(at.0, &at.1, &["nslookup", "-type=a", name]);
    let answer = said.out.split_once("Name:").map(|(_, answer)| answer);
    answer
        .and_then(|answer| answer.split_once("Address:"))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(str::to_owned)
        .ok_or_else(|| format!("{said:?}"))
}

/// Whether port 80 of an address answers a container.
fn reaches(lab: &Lab, at: &(usize, Container), address: &str) -> bool {
    // The image's wget breaks down.
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
    let said = lab.inside(at.0, &at.1, &["sh", "-c", &ask]);
    said.out.trim().ends_with("vc-test:1")
}

fn pinned(compose: &str, host: usize) -> String {
    let placement = format!("    deploy: {{placement: {{constraints: [node.name == h{host}]}}, ");
    compose.replace("    deploy: {", &placement)
}

#[test]
fn a_service_is_called_by_its_name_from_another_node_and_other_projects_cannot() {
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
    // Strangers: one beside the caller, one beside what it calls.
    for (service, host) in [("afar", 1), ("near", 2)] {
        lab.deploy(3, &pinned(&sleeping_service("other", service, 1), host), &["--wait"]).done();
    }
    let caller = lab.only("shop/caller");
    for name in ["api", "till"] {
        let (address, _) = until("it has an address", DEADLINE, || resolve(&lab, &caller, name));
        until("it answers", DEADLINE, || {
            if reaches(&lab, &caller, &address) { Ok(()) } else { Err(address.clone()) }
        });
    }
    let address = resolve(&lab, &caller, "api").expect("known");

    let stranger = lab.only("other/near");
    let direct = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    for container in lab.containers(2).iter().filter(|it| it.service() == "shop/api") {
        let said = lab.docker(2, &["inspect", "--format", direct, &container.id]).done();
        let direct = said.split_whitespace().next().expect("it has an address").to_owned();
        assert!(!reaches(&lab, &stranger, &direct), "{direct} of {container:?}");
    }
    for stranger in [lab.only("other/afar"), stranger] {
        assert!(resolve(&lab, &stranger, "api").is_err(), "{stranger:?}");
        assert!(!reaches(&lab, &stranger, &address), "{stranger:?} reaches {address}");
    }

    // It moves, the name stays, and so does what the caller knows.
    lab.deploy(1, &services.replace("== h2", "== h3"), &["--wait"]).done();
    until("it answers from elsewhere", DEADLINE, || {
        let gone = lab.containers(2).iter().all(|it| it.service() != "shop/api");
        if gone && reaches(&lab, &caller, &address) { Ok(()) } else { Err(format!("gone: {gone}")) }
    });
    assert_eq!(lab.only("shop/caller"), caller, "nobody touched the caller");
}
