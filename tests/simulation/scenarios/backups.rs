//! A data directory that is older than what its node wrote.

use super::{cluster, moved, runs};
use crate::invariants::documents_converge;
use crate::services::{deploy, service, version};

#[test]
fn a_data_directory_from_an_old_backup_catches_up_and_loses_nothing() {
    let mut world = cluster(3, "a_data_directory_from_an_old");
    world.command(1, deploy(service("web", 3)));
    world.converge(30_000);
    let backup = world.nodes[1].disk.clone();
    for number in 0..5 {
        world.command(1, deploy(version(service("web", 3), number)));
        world.converge(60_000);
        // It answers accusations, so that its incarnation grows.
        world.stall(1, 8_000);
        world.run(10_000);
    }
    world.converge(60_000);
    world.kill_process(1);
    world.nodes[1].disk = backup;
    let cursor = world.history.cursor();
    world.boot(1);
    world.converge(60_000);
    assert_eq!(moved(&world, cursor), (0, 0));
    assert_eq!(runs(&world, 1), 1);
    world.command(1, deploy(version(service("web", 3), 9)));
    world.converge(60_000);
    world.require(documents_converge::disks(&world));
}

#[test]
fn a_backup_does_not_write_a_number_twice_that_only_an_absent_node_knows() {
    let mut world = cluster(3, "a_backup_does_not_write_a_number_twice");
    world.command(1, deploy(service("web", 1)));
    world.converge(30_000);
    let backup = world.nodes[1].disk.clone();
    // Only m2 hears of this one, and then is away while m1 comes back from its backup.
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
