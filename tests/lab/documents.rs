//! What the documentation for users says to do, done as it says.

use std::time::Duration;

use crate::harness::command::{CommandOutput, run_for};
use crate::harness::lab::{Container, Lab};
use crate::harness::program;

/// The hosts of the page, by their numbers in the lab. The laptop has no node.
const HOSTS: [(&str, usize); 4] = [("attic", 1), ("desk", 2), ("cellar", 3), ("laptop", 4)];
/// The longest that a block takes.
const BLOCK: Duration = Duration::from_secs(120);

/// Returns the blocks of commands of a page: the host that the first line names, and the other lines.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("text"));
    let blocks = blocks.map(|block| {
        let (first, commands) = block.split_once('\n').expect("a line that names the host");
        (first.strip_prefix("# on ").expect("a host"), commands.to_owned())
    });
    blocks.collect()
}

/// Runs commands on a host, in the directory where all files of the page are.
fn run_on(lab: &Lab, host: usize, commands: &str) -> CommandOutput {
    let programs = program("vc").parent().expect("its directory").display().to_string();
    let node = lab.files_of(1).join("node").display().to_string();
    let script = commands.replace("/var/lib/vc", &node);
    let script = format!(
        "set -euo pipefail; PATH={programs}:$PATH; curl() {{ busybox wget -qO- \"$@\"; }}\n{script}"
    );
    let mut command = lab.command(&["exec", &host.to_string(), "--", "bash", "-c", &script]);
    lab.as_admin(&mut command);
    command.env_remove("VC_TOKEN").current_dir(lab.home());
    run_for(BLOCK, command)
}

#[test]
fn the_first_hour_goes_as_its_page_says() {
    let lab = Lab::up(4);
    for host in 1..=4 {
        lab.docker(host, &["tag", "vc-test:1", "busybox:1"]).done();
    }
    let mut outputs = Vec::new();
    for (name, commands) in blocks(include_str!("../../docs/first-hour.md")) {
        if commands.trim() == "poweroff -f" {
            let all = lab.all_containers(&[1, 2, 3]);
            let runs = |of: &Vec<Container>| of.iter().any(|it| it.service() == "hello/web");
            let lost = all.iter().find(|(_, of)| runs(of)).expect("a host runs it").0;
            lab.host("kill", *lost);
            continue;
        }
        let host = HOSTS.iter().find(|(known, _)| *known == name).expect("a host of the page").1;
        // There is no systemd on the lab's hosts: what `vc-node setup` is made of runs without it.
        let is_setup = |line: &&str| line.starts_with("vc-node setup");
        let others: Vec<&str> = commands.lines().filter(|line| !is_setup(line)).collect();
        for line in commands.lines().filter(is_setup) {
            let token = lab.home().join("join.token");
            match line.contains("--new") {
                true => lab.node(host, &["init"]),
                false => {
                    let token = std::fs::read_to_string(token).expect("a block before has made it");
                    lab.node(host, &["join", token.trim()]);
                }
            }
        }
        if name == "attic" {
            // What the page says to copy to the laptop is a file here.
            run_on(&lab, host, "cp /var/lib/vc/admin.token .").done();
        }
        outputs.push(run_on(&lab, host, &others.join("\n")).done());
    }
    let all = outputs.concat();
    assert_eq!(all.matches("hello from ").count(), 2, "before and after the loss: {all}");
    assert!(all.contains("is down"), "{all}");
}
