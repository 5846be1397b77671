//! Hosts with Docker engines of their own, by `scripts/lab`: what loopback cannot show. Needs root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::{CommandOutput, run};
use super::{DEADLINE, log_check, program, until};

/// The lab, whose hosts are numbered from 1. There is one at a time on a node; it ends with this.
pub struct Lab {
    dir: PathBuf,
    hosts: usize,
    /// Of the hosts, the first so many are the cluster's.
    members: usize,
    home: tempfile::TempDir,
    expected_errors: Vec<String>,
}

/// A container of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// `project/service.replica`.
    pub slot: String,
    pub id: String,
    /// When its process was started: a restart changes it, not the id.
    pub started: String,
}

impl Lab {
    /// Hosts without nodes.
    pub fn up(hosts: usize) -> Self {
        let home = tempfile::Builder::new().prefix("vc-lab-").tempdir().expect("a directory");
        let dir = std::env::temp_dir().join("vc-lab-test");
        let lab = Self { dir, hosts, members: 0, home, expected_errors: Vec::new() };
        // What an earlier run may have left when it was killed.
        lab.run(&["down"]).done();
        lab.run(&["up", &hosts.to_string()]).done();
        lab
    }

    /// Hosts whose nodes are one cluster, and see each other up.
    pub fn cluster(hosts: usize) -> Self {
        Self::up(hosts).with_cluster_of(hosts)
    }

    /// A cluster of so many hosts, and one host more that only has an engine: an operator's.
    pub fn cluster_and_operator(members: usize) -> Self {
        Self::up(members + 1).with_cluster_of(members)
    }

    fn with_cluster_of(mut self, members: usize) -> Self {
        self.members = members;
        self.node(1, &["init"]);
        for host in 2..=members {
            let token = self.vc(1, &["token", "create", "--node"]).done();
            self.node(host, &["join", token.trim()]);
        }
        self.all_up(&(1..=members).collect::<Vec<_>>());
        self
    }

    /// Says before it happens that nodes will log errors with these words.
    pub fn expect_errors(&mut self, words: &str) {
        self.expected_errors.push(words.to_owned());
    }

    /// `scripts/lab` with these words.
    pub fn run(&self, words: &[&str]) -> CommandOutput {
        run(self.command(words))
    }

    /// `scripts/lab` with these words, not yet begun.
    pub fn command(&self, words: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
        let mut command = Command::new(script);
        let programs = program("vc-node");
        command
            .args(words)
            .env("VC_LAB_DIR", &self.dir)
            .env("VC_BIN", programs.parent().expect("its directory"));
        command
    }

    /// `docker` on a host.
    pub fn docker(&self, host: usize, words: &[&str]) -> CommandOutput {
        self.run(&[&["docker", &host.to_string()], words].concat())
    }

    /// A command in a running container of the cluster.
    pub fn inside(&self, host: usize, container: &Container, words: &[&str]) -> CommandOutput {
        self.docker(host, &[&["exec", &container.id], words].concat())
    }

    /// What a host gets from a URL.
    pub fn get(&self, host: usize, url: &str) -> CommandOutput {
        self.run(&["exec", &host.to_string(), "--", "busybox", "wget", "-q", "-O", "-", url])
    }

    /// `scripts/lab VERB HOST`; it must succeed.
    pub fn host(&self, verb: &str, host: usize) {
        self.run(&[verb, &host.to_string()]).done();
    }

    /// Starts a host's node with `init`, `join TOKEN` or `run`, and waits until it is ready.
    pub fn node(&self, host: usize, how: &[&str]) {
        let host = host.to_string();
        self.run(&[&["node", &host], how, &["--log-format", "json"]].concat()).done();
    }

    pub fn ip(host: usize) -> String {
        format!("10.77.0.{}", 10 + host)
    }

    /// `vc` as the admin, asking a host's node.
    pub fn vc(&self, host: usize, words: &[&str]) -> CommandOutput {
        let mut command = Command::new(program("vc"));
        command.args(["--peer", &Self::ip(host)]).args(words);
        self.as_admin(&mut command);
        run(command)
    }

    /// `vc` in a host's network and with its engine, with nothing but the token: it has to find a node.
    pub fn vc_anywhere(&self, host: usize, words: &[&str]) -> CommandOutput {
        let vc = program("vc").display().to_string();
        let mut command = self.command(&[&["exec", &host.to_string(), "--", &vc], words].concat());
        self.as_admin(&mut command);
        run(command)
    }

    /// `vc` in the network of the host that is not of the cluster, and with its engine, asking a host's node.
    pub fn operator(&self, at: usize, words: &[&str]) -> CommandOutput {
        self.vc_anywhere(self.hosts, &[&["--peer", &Self::ip(at)], words].concat())
    }

    /// Gives a command of `vc` the admin's token, and nothing of whoever runs the tests.
    pub fn as_admin(&self, command: &mut Command) {
        command
            .env("VC_TOKEN", self.dir.join("h1/node/admin.token"))
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path())
            .env_remove("VC_PEER");
    }

    pub fn rows(&self, host: usize, words: &[&str]) -> Vec<Value> {
        let said = self.vc(host, &[&["--output", "json"], words].concat());
        // A host may not have received yet what another accepted.
        if said.err.contains(r#""code":"not_found""#) {
            return Vec::new();
        }
        said.json().as_array().expect("rows").clone()
    }

    /// What `vc logs` prints as JSON: a row a line.
    pub fn log_rows(&self, host: usize, words: &[&str]) -> Vec<Value> {
        let said = self.vc(host, &[&["--output", "json", "logs"], words].concat()).done();
        said.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
    }

    /// Deploys a Compose file at a host's node.
    pub fn deploy(&self, host: usize, compose: &str, options: &[&str]) -> CommandOutput {
        let file = self.file("compose.yaml", compose);
        self.vc(host, &[&["deploy", &file], options].concat())
    }

    /// Writes a file that is gone with the lab; its path. Those of one lab are in one directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = self.home.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    }

    /// What the lab keeps of a host: `node/`, `node.log`, `docker/`, and more.
    pub fn files_of(&self, host: usize) -> PathBuf {
        self.dir.join(format!("h{host}"))
    }

    /// Bytes that a host has sent to the others.
    pub fn sent(&self, host: usize) -> u64 {
        // The bridge's end of the cable: what it received, the host sent.
        let counter = format!("/sys/class/net/vclab{host}/statistics/rx_bytes");
        let text = std::fs::read_to_string(counter).expect("the host is on");
        text.trim().parse().expect("a number")
    }

    /// The one running container of a service, and its host.
    pub fn only(&self, service: &str) -> (usize, Container) {
        let hosts: Vec<usize> = (1..=self.members).filter(|&host| self.on(host)).collect();
        let all = self.all_containers(&hosts);
        let mut found: Vec<(usize, Container)> = all
            .into_iter()
            .flat_map(|(host, of)| of.into_iter().map(move |container| (host, container)))
            .filter(|(_, it)| it.service() == service)
            .collect();
        assert_eq!(found.len(), 1, "{service} has one container: {found:?}");
        found.remove(0)
    }

    fn on(&self, host: usize) -> bool {
        Path::new(&format!("/sys/class/net/vclab{host}")).exists()
    }

    /// The cluster's running containers on a host, as its engine tells.
    pub fn containers(&self, host: usize) -> Vec<Container> {
        let ids =
            self.docker(host, &["ps", "-q", "--no-trunc", "--filter", "label=vc.service"]).done();
        if ids.trim().is_empty() {
            return Vec::new();
        }
        let ids: Vec<&str> = ids.lines().collect();
        let said = self.docker(host, &[&["inspect"], ids.as_slice()].concat());
        // One of them may have gone in between.
        let all: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let mut all: Vec<Container> = all.as_array().into_iter().flatten().map(container).collect();
        all.sort();
        all
    }

    /// The running containers of these hosts.
    pub fn all_containers(&self, hosts: &[usize]) -> BTreeMap<usize, Vec<Container>> {
        hosts.iter().map(|&host| (host, self.containers(host))).collect()
    }

    /// Waits until every one of these hosts says that they are up, and no other is.
    pub fn all_up(&self, hosts: &[usize]) {
        let as_it_is = |host: usize| {
            let rows = self.rows(host, &["nodes"]);
            let up = |row: &Value| hosts.iter().any(|host| row["name"] == format!("h{host}"));
            let right = rows.iter().all(|row| row["state"] == if up(row) { "up" } else { "down" });
            let seen: Vec<String> =
                rows.iter().map(|row| format!("{} {}", row["name"], row["state"])).collect();
            if right && rows.len() == self.members {
                Ok(())
            } else {
                Err(format!("h{host} says {seen:?}"))
            }
        };
        until("every host sees who is up", DEADLINE, || {
            hosts.iter().try_for_each(|&host| as_it_is(host))
        });
    }

    /// Waits until each slot of the service has one container that runs, all on these hosts, and none is left elsewhere.
    pub fn settled(
        &self,
        hosts: &[usize],
        service: &str,
        count: usize,
    ) -> BTreeMap<usize, Vec<Container>> {
        let (there, _) = until("each slot has one container", DEADLINE, || {
            let rows = self.rows(hosts[0], &["ps"]);
            super::running(&rows, service, count)?;
            let there = self.all_containers(hosts);
            let mut slots: Vec<&str> =
                there.values().flatten().map(|it| it.slot.as_str()).collect();
            slots.retain(|slot| slot.rsplit_once('.').is_some_and(|(of, _)| of == service));
            let all = slots.len();
            slots.sort_unstable();
            slots.dedup();
            if all == count && slots.len() == count { Ok(there) } else { Err(format!("{there:?}")) }
        });
        there
    }

    /// Waits until a row of `vc ps` is as it should be, and returns it.
    pub fn row(
        &self,
        host: usize,
        what: &str,
        service: &str,
        right: impl Fn(&Value) -> bool,
    ) -> Value {
        let (row, _) = until(what, DEADLINE, || {
            let rows = self.rows(host, &["ps", service]);
            match rows.iter().find(|row| right(row)) {
                Some(row) => Ok(row.clone()),
                None => Err(format!("{rows:?}")),
            }
        });
        row
    }

    fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.dir.join(format!("h{host}/node.log"))).unwrap_or_default()
    }

    /// The process id in a file of a host.
    pub fn pid(&self, host: usize, file: &str) -> u32 {
        let text =
            std::fs::read_to_string(self.dir.join(format!("h{host}/{file}"))).expect("a pid file");
        text.trim().parse().expect("a process id")
    }
}

impl Container {
    /// `project/service`.
    pub fn service(&self) -> &str {
        self.slot.rsplit_once('.').map_or("", |(service, _)| service)
    }
}

fn container(inspected: &Value) -> Container {
    let labels = &inspected["Config"]["Labels"];
    let label = |name: &str| labels[name].as_str().unwrap_or_default();
    Container {
        slot: format!("{}/{}.{}", label("vc.project"), label("vc.service"), label("vc.replica")),
        id: inspected["Id"].as_str().unwrap_or_default().to_owned(),
        started: inspected["State"]["StartedAt"].as_str().unwrap_or_default().to_owned(),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut violations = Vec::new();
        for host in 1..=self.hosts {
            let (name, log) = (format!("h{host}"), self.log(host));
            violations.extend(log_check::violations(
                &name,
                &log,
                &self.dir.join(&name).join("node"),
                &self.expected_errors,
            ));
            if std::thread::panicking() {
                let lines: Vec<&str> = log.lines().collect();
                println!(
                    "--- the last lines of {name}:\n{}",
                    lines[lines.len().saturating_sub(25)..].join("\n")
                );
            }
        }
        if std::thread::panicking() {
            println!("--- violations: {violations:#?}");
            // No second panic: it would hide the first.
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
            let _ = Command::new(script).arg("down").env("VC_LAB_DIR", &self.dir).status();
            return;
        }
        self.run(&["down"]).done();
        assert!(violations.is_empty(), "the logs are not clean: {violations:#?}");
    }
}
