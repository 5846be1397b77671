//! Hosts with Docker engines of their own, by `scripts/lab`: what loopback cannot show. Needs root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::{Said, run};
use super::{PATIENCE, journal, program, until};

/// The lab, whose hosts are numbered from 1. There is one at a time on a machine; it ends with this.
pub struct Lab {
    dir: PathBuf,
    hosts: usize,
    home: tempfile::TempDir,
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
        let lab = Self { dir: std::env::temp_dir().join("vc-lab-test"), hosts, home };
        // What an earlier run may have left when it was killed.
        lab.run(&["down"]).done();
        lab.run(&["up", &hosts.to_string()]).done();
        lab
    }

    /// Hosts whose nodes are one cluster, and see each other up.
    pub fn cluster(hosts: usize) -> Self {
        let lab = Self::up(hosts);
        lab.node(1, &["init"]);
        for host in 2..=hosts {
            let token = lab.vc(1, &["token", "create", "--machine"]).done();
            lab.node(host, &["join", token.trim()]);
        }
        lab.all_up(&(1..=hosts).collect::<Vec<_>>());
        lab
    }

    /// `scripts/lab` with these words.
    pub fn run(&self, words: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
        let mut command = Command::new(script);
        let programs = program("vc-node");
        command
            .args(words)
            .env("VC_LAB_DIR", &self.dir)
            .env("VC_BIN", programs.parent().expect("its directory"));
        run(command)
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
    pub fn vc(&self, host: usize, words: &[&str]) -> Said {
        let mut command = Command::new(program("vc"));
        command.args(["--peer", &Self::ip(host)]).args(words);
        self.as_admin(&mut command);
        run(command)
    }

    /// `vc` in a host's network with nothing but the token: it has to find a node.
    pub fn vc_anywhere(&self, host: usize, words: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
        let mut command = Command::new(script);
        command.args(["exec", &host.to_string(), "--"]).arg(program("vc")).args(words);
        command.env("VC_LAB_DIR", &self.dir);
        self.as_admin(&mut command);
        run(command)
    }

    fn as_admin(&self, command: &mut Command) {
        command
            .env("VC_TOKEN", self.dir.join("h1/node/admin.token"))
            .env("XDG_CONFIG_HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path())
            .env_remove("VC_PEER");
    }

    pub fn rows(&self, host: usize, words: &[&str]) -> Vec<Value> {
        let rows = self.vc(host, &[&["--output", "json"], words].concat()).json();
        rows.as_array().expect("rows").clone()
    }

    /// Deploys a Compose file at a host's node.
    pub fn deploy(&self, host: usize, compose: &str, options: &[&str]) -> Said {
        let file = self.home.path().join("compose.yaml");
        std::fs::write(&file, compose).expect("written");
        self.vc(host, &[&["deploy", &file.display().to_string()], options].concat())
    }

    /// The cluster's running containers on a host, as its engine tells.
    pub fn containers(&self, host: usize) -> Vec<Container> {
        let number = host.to_string();
        let ids = self
            .run(&["docker", &number, "ps", "-q", "--no-trunc", "--filter", "label=vc.service"])
            .done();
        if ids.trim().is_empty() {
            return Vec::new();
        }
        let ids: Vec<&str> = ids.lines().collect();
        let said = self.run(&[&["docker", &number, "inspect"], ids.as_slice()].concat());
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
            if right && rows.len() == self.hosts {
                Ok(())
            } else {
                Err(format!("h{host} says {seen:?}"))
            }
        };
        until("every host sees who is up", PATIENCE, || {
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
        let (there, _) = until("each slot has one container", PATIENCE, || {
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
        let mut complaints = Vec::new();
        for host in 1..=self.hosts {
            let (name, log) = (format!("h{host}"), self.log(host));
            complaints.extend(journal::complaints(
                &name,
                &log,
                &self.dir.join(&name).join("node"),
                &[],
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
            println!("--- complaints: {complaints:#?}");
            // No second panic: it would hide the first.
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab");
            let _ = Command::new(script).arg("down").env("VC_LAB_DIR", &self.dir).status();
            return;
        }
        self.run(&["down"]).done();
        assert!(complaints.is_empty(), "the logs are not clean: {complaints:#?}");
    }
}
