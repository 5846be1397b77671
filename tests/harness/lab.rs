//! Simulated hosts with their own network and Docker engine, by `scripts/lab`. Needs root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::{CommandOutput, Running, run};
use super::rows::problems;
use super::{DEADLINE, log_check, program, until};

/// The lab: hosts numbered from 1. One lab exists at a time on a computer. Dropping it removes the hosts and checks the
/// nodes' logs.
pub struct Lab {
    dir: PathBuf,
    hosts: usize,
    /// The first `members` hosts are in the cluster.
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
    /// Start time of its process; a restart changes it and keeps the id.
    pub started: String,
}

impl Lab {
    /// Starts hosts without nodes.
    pub fn up(hosts: usize) -> Self {
        Self::up_with(hosts, &[])
    }

    /// Starts hosts without nodes, some with another engine than Docker 20.10: `modern`, `podman` or `userns`.
    fn up_with(hosts: usize, engines: &[(usize, &str)]) -> Self {
        let home = tempfile::Builder::new().prefix("vc-lab-").tempdir().expect("a directory");
        let dir = std::env::temp_dir().join("vc-lab-test");
        let lab = Self { dir, hosts, members: 0, home, expected_errors: Vec::new() };
        // A killed run may have left hosts.
        lab.run(&["down"]).done();
        let engines: Vec<String> =
            engines.iter().map(|(host, kind)| format!("--engine={host}={kind}")).collect();
        let engines = engines.iter().map(String::as_str);
        lab.run(&["up", &hosts.to_string()].into_iter().chain(engines).collect::<Vec<_>>()).done();
        lab
    }

    /// Starts hosts with these engines, and a cluster on the first `members`; the last is the operator's.
    pub fn cluster_of_engines(members: usize, hosts: usize, engines: &[(usize, &str)]) -> Self {
        Self::up_with(hosts, engines).with_cluster_of(members)
    }

    /// Starts hosts with one cluster and waits until the nodes see each other up.
    pub fn cluster(hosts: usize) -> Self {
        Self::up(hosts).with_cluster_of(hosts)
    }

    /// As [`Self::cluster`], with one more host that has only a Docker engine: the operator's.
    pub fn cluster_and_operator(members: usize) -> Self {
        Self::up(members + 1).with_cluster_of(members)
    }

    /// Starts hosts with one cluster in which only the node of the first is a server.
    pub fn cluster_of_workers(hosts: usize) -> Self {
        Self::up(hosts).with_cluster("worker", hosts, &[], &[])
    }

    /// As [`Self::cluster`], with these options of the first node.
    pub fn cluster_with(hosts: usize, options: &[&str]) -> Self {
        Self::up(hosts).with_cluster("server", hosts, options, &[])
    }

    /// Starts a cluster on the first hosts, and waits until the nodes see each other up.
    pub fn with_cluster_of(self, members: usize) -> Self {
        self.with_cluster("server", members, &[], &[])
    }

    /// As [`Self::with_cluster_of`], with these options of every node.
    pub fn with_cluster_of_options(self, members: usize, options: &[&str]) -> Self {
        self.with_cluster("server", members, options, options)
    }

    /// Starts the nodes of the first hosts, the first one and those that join with this role each with their options.
    fn with_cluster(
        mut self,
        role: &str,
        members: usize,
        first: &[&str],
        joining: &[&str],
    ) -> Self {
        self.members = members;
        self.node(1, &[&["init"], first].concat());
        for host in 2..=members {
            let token = self.vc(1, &["token", "create", "--node", "--role", role]).done();
            self.node(host, &[&["join", token.trim()], joining].concat());
        }
        self.all_up(&(1..=members).collect::<Vec<_>>());
        self
    }

    /// Allows ERROR lines that contain `words` in the logs of the nodes.
    pub fn expect_errors(&mut self, words: &str) {
        self.expected_errors.push(words.to_owned());
    }

    /// Runs `scripts/lab` with these arguments.
    pub fn run(&self, words: &[&str]) -> CommandOutput {
        run(self.command(words))
    }

    /// Returns the command `scripts/lab` with these arguments.
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

    /// Runs `docker` on a host.
    pub fn docker(&self, host: usize, words: &[&str]) -> CommandOutput {
        self.run(&[&["docker", &host.to_string()], words].concat())
    }

    /// Runs a command in a container.
    pub fn inside(&self, host: usize, container: &Container, words: &[&str]) -> CommandOutput {
        self.docker(host, &[&["exec", &container.id], words].concat())
    }

    /// Fetches a URL on a host with `wget`.
    pub fn get(&self, host: usize, url: &str) -> CommandOutput {
        self.run(&["exec", &host.to_string(), "--", "busybox", "wget", "-q", "-O", "-", url])
    }

    /// Runs `scripts/lab VERB HOST` and asserts success.
    pub fn host(&self, verb: &str, host: usize) {
        self.run(&[verb, &host.to_string()]).done();
    }

    /// Starts the node of a host with `init`, `join TOKEN` or `run`, and waits until it is ready.
    pub fn node(&self, host: usize, how: &[&str]) {
        let host = host.to_string();
        self.run(&[&["node", &host], how, &["--log-format", "json"]].concat()).done();
    }

    /// Returns the IP address of a host.
    pub fn ip(host: usize) -> String {
        format!("10.77.0.{}", 10 + host)
    }

    /// Runs `vc` with the admin's token against the node of a host.
    pub fn vc(&self, host: usize, words: &[&str]) -> CommandOutput {
        let mut command = Command::new(program("vc"));
        command.args(["--peer", &Self::ip(host)]).args(words);
        self.as_admin(&mut command);
        run(command)
    }

    /// Starts `vc` with the admin's token, without `--peer`: it finds a node by itself.
    pub fn vc_running(&self, words: &[&str]) -> Running {
        let mut command = Command::new(program("vc"));
        command.args(words);
        self.as_admin(&mut command);
        Running::start(command)
    }

    /// Runs `vc` in the network of a host, with its Docker engine and without `--peer`: it finds a node by itself.
    pub fn vc_anywhere(&self, host: usize, words: &[&str]) -> CommandOutput {
        let vc = program("vc").display().to_string();
        let mut command = self.command(&[&["exec", &host.to_string(), "--", &vc], words].concat());
        self.as_admin(&mut command);
        run(command)
    }

    /// Runs `vc` on the operator's host against the node of host `at`.
    pub fn operator(&self, at: usize, words: &[&str]) -> CommandOutput {
        self.vc_anywhere(self.hosts, &[&["--peer", &Self::ip(at)], words].concat())
    }

    /// Sets the admin's token for a `vc` command, and isolates it from the environment of the tests.
    pub fn as_admin(&self, command: &mut Command) {
        command
            .env("VC_TOKEN", self.dir.join("h1/node/admin.token"))
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path())
            .env_remove("VC_PEER");
    }

    /// Runs `vc` and returns the rows that it prints as JSON; none if it prints `not_found`.
    pub fn rows(&self, host: usize, words: &[&str]) -> Vec<Value> {
        let output = self.vc(host, &[&["--output", "json"], words].concat());
        // A node may not have received the change that another has accepted.
        if output.err.contains(r#""code":"not_found""#) {
            return Vec::new();
        }
        output.json().as_array().expect("rows").clone()
    }

    /// Returns the [`problems`] that `vc status` lists through a host.
    pub fn problems(&self, host: usize) -> Vec<String> {
        problems(&self.vc(host, &["--output", "json", "status"]).json())
    }

    /// Runs `vc logs` and returns its rows.
    pub fn log_rows(&self, host: usize, words: &[&str]) -> Vec<Value> {
        let out = self.vc(host, &[&["--output", "json", "logs"], words].concat()).done();
        out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// Deploys a Compose file through the node of a host.
    pub fn deploy(&self, host: usize, compose: &str, options: &[&str]) -> CommandOutput {
        let file = self.file("compose.yaml", compose);
        self.vc(host, &[&["deploy", &file], options].concat())
    }

    /// Returns the lab's temporary directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file into the lab's temporary directory and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = self.home.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    }

    /// Returns the directory of a host: `node/`, `node.log`, `docker/` and more.
    pub fn files_of(&self, host: usize) -> PathBuf {
        self.dir.join(format!("h{host}"))
    }

    /// Returns the number of bytes that a host has sent to the others.
    pub fn sent(&self, host: usize) -> u64 {
        // The counter of the bridge's end of the link: bytes received from the host.
        let counter = format!("/sys/class/net/vclab{host}/statistics/rx_bytes");
        let text = std::fs::read_to_string(counter).expect("the host is running");
        text.trim().parse().expect("a number")
    }

    /// Returns the only running container of a service, with its host.
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

    /// Returns whether a host is running.
    fn on(&self, host: usize) -> bool {
        Path::new(&format!("/sys/class/net/vclab{host}")).exists()
    }

    /// Returns the cluster's running containers on a host, as listed by its Docker engine.
    pub fn containers(&self, host: usize) -> Vec<Container> {
        let ids =
            self.docker(host, &["ps", "-q", "--no-trunc", "--filter", "label=vc.service"]).done();
        if ids.trim().is_empty() {
            return Vec::new();
        }
        let ids: Vec<&str> = ids.lines().collect();
        let output = self.docker(host, &[&["inspect"], ids.as_slice()].concat());
        // A container may have been removed in between.
        let all: Value = serde_json::from_str(&output.out).unwrap_or_default();
        let mut all: Vec<Container> = all.as_array().into_iter().flatten().map(container).collect();
        all.sort();
        all
    }

    /// Returns the running containers of each of these hosts.
    pub fn all_containers(&self, hosts: &[usize]) -> BTreeMap<usize, Vec<Container>> {
        hosts.iter().map(|&host| (host, self.containers(host))).collect()
    }

    /// Waits until the nodes of these hosts report exactly each other as up.
    pub fn all_up(&self, hosts: &[usize]) {
        let check = |host: usize| {
            let rows = self.rows(host, &["nodes"]);
            let up = |row: &Value| hosts.iter().any(|host| row["name"] == format!("h{host}"));
            let correct =
                rows.iter().all(|row| row["state"] == if up(row) { "up" } else { "down" });
            let seen: Vec<String> =
                rows.iter().map(|row| format!("{} {}", row["name"], row["state"])).collect();
            if correct && rows.len() == self.members {
                Ok(())
            } else {
                Err(format!("h{host} reports {seen:?}"))
            }
        };
        until("every node reports the running nodes as up", DEADLINE, || {
            hosts.iter().try_for_each(|&host| check(host))
        });
    }

    /// Waits until each of `count` slots of a service has exactly one running container, all on these hosts. Returns the
    /// containers of all services on them.
    pub fn settled(
        &self,
        hosts: &[usize],
        service: &str,
        count: usize,
    ) -> BTreeMap<usize, Vec<Container>> {
        let (containers, _) = until("each slot has one container", DEADLINE, || {
            let rows = self.rows(hosts[0], &["ps"]);
            super::running(&rows, service, count)?;
            let containers = self.all_containers(hosts);
            let mut slots: Vec<&str> =
                containers.values().flatten().map(|it| it.slot.as_str()).collect();
            slots.retain(|slot| slot.rsplit_once('.').is_some_and(|(of, _)| of == service));
            let all = slots.len();
            slots.sort_unstable();
            slots.dedup();
            if all == count && slots.len() == count {
                Ok(containers)
            } else {
                Err(format!("{containers:?}"))
            }
        });
        containers
    }

    /// Waits until a row of `vc ps` for this service satisfies a condition, and returns the row.
    pub fn row(
        &self,
        host: usize,
        what: &str,
        service: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let (row, _) = until(what, DEADLINE, || {
            let rows = self.rows(host, &["ps", service]);
            match rows.iter().find(|row| condition(row)) {
                Some(row) => Ok(row.clone()),
                None => Err(format!("{rows:?}")),
            }
        });
        row
    }

    fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.dir.join(format!("h{host}/node.log"))).unwrap_or_default()
    }

    /// Returns the process id in a file of a host's directory.
    pub fn pid(&self, host: usize, file: &str) -> u32 {
        let text =
            std::fs::read_to_string(self.dir.join(format!("h{host}/{file}"))).expect("a pid file");
        text.trim().parse().expect("a process id")
    }
}

impl Container {
    /// Returns `project/service`.
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
            // A second panic would hide the first.
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
            let _ = Command::new(script).arg("down").env("VC_LAB_DIR", &self.dir).status();
            return;
        }
        self.run(&["down"]).done();
        assert!(violations.is_empty(), "the logs are not clean: {violations:#?}");
    }
}
