//! The network between hosts fails and heals; members find each other on it.

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, running, sleeping_service, until};

#[test]
fn a_host_that_is_cut_off_is_replaced_and_its_doubles_go_when_it_is_back() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);

    lab.host("cut", 3);
    until("the majority's side runs six", DEADLINE, || {
        match running(&lab.rows(1, &["ps"]), "shop/web", 6)? {
            nodes if !nodes.contains_key("h3") => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    });
    let (apart, _) = until("each side runs six", DEADLINE, || {
        let apart = lab.all_containers(&[1, 2, 3]);
        if apart.values().flatten().count() == 12 { Ok(apart) } else { Err(format!("{apart:?}")) }
    });
    assert!(
        before[&3].iter().all(|container| apart[&3].contains(container)),
        "what is cut off runs on: {apart:?}"
    );

    lab.host("heal", 3);
    lab.all_up(&[1, 2, 3]);
    let after = lab.settled(&[1, 2, 3], "shop/web", 6);
    // Of two that fill one slot, which is kept is the rule's to say; but one of them it is.
    for (host, containers) in &after {
        let known = containers.iter().all(|container| apart[host].contains(container));
        assert!(known, "nothing was started anew on h{host}: {apart:?} {after:?}");
    }
}

#[test]
fn members_find_each_other_by_mdns_when_no_address_holds() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 3), &["--wait"]).done();
    (1..=3).for_each(|host| lab.host("node-kill", host));
    // All ports are new: what is on disk leads nowhere.
    for host in 1..=3 {
        lab.node(host, &["run", "--port", &(5000 + 10 * host).to_string()]);
    }
    let seen = || lab.vc_anywhere(2, &["--output", "json", "nodes"]).json();
    until("they have found each other", DEADLINE, || {
        let rows = seen();
        let up = rows
            .as_array()
            .is_some_and(|rows| rows.len() == 3 && rows.iter().all(|row| row["state"] == "up"));
        if up { Ok(()) } else { Err(rows.to_string()) }
    });
}
