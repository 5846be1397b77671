//! Nodes restored from old backups of their data directories.

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::invariants::documents_converge;
use vc_simulation::services::{deploy, service, version};

#[test]
fn a_node_restored_from_an_old_backup_catches_up_and_loses_nothing() {
    let mut world = cluster(3, "a_node_restored_from_an_old_backup");
    world.command(1, deploy(service("web", 3)));
    world.converge(30_000);
    let backup = world.nodes[1].disk.clone();
    for number in 0..5 {
        world.command(1, deploy(version(service("web", 3), number)));
        world.converge(60_000);
        // The node refutes accusations, which increments its incarnation.
        world.stall(1, 8_000);
        world.run(10_000);
    }
    world.converge(60_000);
    world.kill_process(1);
    world.nodes[1].disk = backup;
    let cursor = world.history.cursor();
    world.boot(1);
    world.converge(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    assert_eq!(running_on(&world, 1), 1);
    world.command(1, deploy(version(service("web", 3), 9)));
    world.converge(60_000);
    world.require(documents_converge::disks(&world));
}

#[test]
fn a_restored_node_reuses_no_sequence_number_that_only_an_offline_node_knows() {
    let mut world = cluster(3, "a_restored_node_reuses_no");
    world.command(1, deploy(service("web", 1)));
    world.converge(30_000);
    let backup = world.nodes[1].disk.clone();
    // Only m2 receives this change; it is offline while m1 is restored from its backup.
    world.kill_process(0);
    world.run(500);
    world.command(1, deploy(service("api", 1)));
    world.run(2_000);
    world.kill_process(2);
    world.kill_process(1);
    world.nodes[1].disk = backup;
    world.boot(0);
    world.boot(1);
    world.run(20_000);
    world.command(1, deploy(service("mail", 1)));
    world.run(2_000);
    world.boot(2);
    world.converge(60_000);
    assert_eq!(world.engine(0).view().cluster.services.len(), 3);
}
