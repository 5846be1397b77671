//! Partitions of the network between hosts, and discovery by mDNS.

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, running, sleeping_service, until};

#[test]
fn duplicates_of_a_partition_are_removed_when_it_heals() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);

    lab.host("cut", 3);
    until("the majority side runs six instances", DEADLINE, || {
        match running(&lab.rows(1, &["ps"]), "shop/web", 6)? {
            nodes if !nodes.contains_key("h3") => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    });
    let (apart, _) = until("each side runs six containers", DEADLINE, || {
        let apart = lab.all_containers(&[1, 2, 3]);
        if apart.values().flatten().count() == 12 { Ok(apart) } else { Err(format!("{apart:?}")) }
    });
    assert!(
        before[&3].iter().all(|container| apart[&3].contains(container)),
        "the isolated node keeps its containers: {apart:?}"
    );

    lab.host("heal", 3);
    lab.all_up(&[1, 2, 3]);
    let after = lab.settled(&[1, 2, 3], "shop/web", 6);
    // Of two instances in a slot, either may be kept.
    for (host, containers) in &after {
        let known = containers.iter().all(|container| apart[host].contains(container));
        assert!(known, "nothing was started on h{host} after the partition: {apart:?} {after:?}");
    }
}

#[test]
fn nodes_find_each_other_by_mdns_when_all_ports_change() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 3), &["--wait"]).done();
    (1..=3).for_each(|host| lab.host("node-kill", host));
    // All ports are new: the stored addresses are stale.
    for host in 1..=3 {
        lab.node(host, &["run", "--port", &(5000 + 10 * host).to_string()]);
    }
    let seen = || lab.vc_anywhere(2, &["--output", "json", "nodes"]).json();
    until("all three nodes are up", DEADLINE, || {
        let rows = seen();
        let up = rows
            .as_array()
            .is_some_and(|rows| rows.len() == 3 && rows.iter().all(|row| row["state"] == "up"));
        if up { Ok(()) } else { Err(rows.to_string()) }
    });
}
