//! A cluster of node processes, and `vc` commands against any of them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::command::{CommandOutput, Running, run};
use super::{DEADLINE, Node, log_check, processes, program, until};

/// A cluster of real processes. Ends with all it started.
pub struct Cluster {
    root: TempDir,
    pub nodes: Vec<Node>,
    expected_errors: Vec<String>,
}

impl Cluster {
    /// One node, which has founded it.
    pub fn found() -> Self {
        let root = tempfile::Builder::new().prefix("vc-test-").tempdir().expect("a directory");
        let mut first = Node::new(root.path(), "n1");
        first.start(&["init"]);
        Self { root, nodes: vec![first], expected_errors: Vec::new() }
    }

    /// `count` servers `n1`, `n2`, …, each of which sees all of them up.
    pub fn of(count: usize) -> Self {
        let mut cluster = Self::found();
        let roles = vec!["server"; count - 1];
        cluster.join(0, &roles);
        cluster.all_up();
        cluster
    }

    /// Lets nodes of these roles join at a node, all at once.
    pub fn join(&mut self, at: usize, roles: &[&str]) {
        for role in roles {
            let token = self.node_token(at, role);
            let name = format!("n{}", self.nodes.len() + 1);
            let mut node = Node::new(self.root.path(), &name);
            node.launch(&["join", &token]);
            self.nodes.push(node);
        }
        let first = self.nodes.len() - roles.len();
        self.nodes[first..].iter_mut().for_each(Node::ready);
    }

    pub fn node_token(&self, at: usize, role: &str) -> String {
        self.vc(at, &["token", "create", "--node", "--role", role]).done().trim().to_owned()
    }

    pub fn user_token(&self, at: usize, name: &str, role: &str) -> String {
        self.vc(at, &["token", "create", "--user", name, "--role", role]).done().trim().to_owned()
    }

    /// A path in the cluster's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A node outside of the cluster, in its directory and gone with it.
    pub fn outsider(&self, name: &str) -> Node {
        Node::new(self.root.path(), name)
    }

    fn command(&self, token: &str) -> Command {
        let mut command = Command::new(program("vc"));
        command
            .args(["--token", token])
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("VC_TOKEN")
            .env_remove("VC_PEER");
        command
    }

    fn admin_token(&self) -> String {
        self.nodes[0].dir.join("admin.token").display().to_string()
    }

    /// `vc` with the admin's token, asking one node.
    pub fn vc(&self, at: usize, arguments: &[&str]) -> CommandOutput {
        self.vc_as(&self.admin_token(), at, arguments)
    }

    /// `vc` with another token, asking one node.
    pub fn vc_as(&self, token: &str, at: usize, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(token);
        command.args(["--peer", self.nodes[at].address()]).args(arguments);
        run(command)
    }

    /// `vc` with nothing but a token: it has to find a node.
    pub fn vc_anywhere(&self, token: &str, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(token);
        command.args(arguments);
        run(command)
    }

    /// `vc` that runs on, asking one node.
    pub fn vc_running(&self, at: usize, arguments: &[&str]) -> Running {
        let mut command = self.command(&self.admin_token());
        command.args(["--peer", self.nodes[at].address()]).args(arguments);
        Running::start(command)
    }

    /// What `vc` prints as JSON.
    pub fn rows(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        let rows = self.vc(at, &[&["--output", "json"], arguments].concat()).json();
        rows.as_array().expect("rows").clone()
    }

    /// What `vc logs` prints as JSON: a row a line.
    pub fn log_rows(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        self.lines(at, &[&["logs"], arguments].concat())
    }

    /// What `vc events` prints as JSON: a row a line.
    pub fn event_rows(&self, at: usize) -> Vec<Value> {
        self.lines(at, &["events"])
    }

    fn lines(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        let said = self.vc(at, &[&["--output", "json"], arguments].concat()).done();
        said.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect()
    }

    pub fn ps(&self, at: usize) -> Vec<Value> {
        self.rows(at, &["ps"])
    }

    /// Writes a Compose file into the cluster's directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// Deploys a Compose file at a node and waits until all of it runs.
    pub fn deploy(&self, at: usize, compose: &str) {
        let file = self.file(&format!("deploy-{at}.yaml"), compose);
        self.vc(at, &["deploy", &file, "--wait", "--timeout", "60s"]).done();
    }

    /// Nodes that run.
    pub fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].runs())
    }

    /// Waits until every running node says of every running node that it is up, and of every other that it is not.
    pub fn all_up(&self) {
        let alive: Vec<&str> = self.alive().map(|i| self.nodes[i].name.as_str()).collect();
        let as_it_is = |i: usize| {
            let rows = self.rows(i, &["nodes"]);
            let right = rows.len() == self.nodes.len()
                && rows.iter().all(|row| {
                    let alive = alive.iter().any(|name| row["name"] == *name);
                    row["state"] == if alive { "up" } else { "down" }
                });
            let seen: Vec<String> =
                rows.iter().map(|row| format!("{} {}", row["name"], row["state"])).collect();
            if right { Ok(()) } else { Err(format!("{} says {seen:?}", self.nodes[i].name)) }
        };
        until("every node sees who is up", DEADLINE, || self.alive().try_for_each(as_it_is));
    }

    /// Says before it happens that nodes will log errors with these words.
    pub fn expect_errors(&mut self, words: &str) {
        self.expected_errors.push(words.to_owned());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            node.kill();
        }
        processes::kill_under(self.root.path());
        let of = |node: &Node| {
            log_check::violations(&node.name, &node.log(), &node.dir, &self.expected_errors)
        };
        let violations: Vec<String> = self.nodes.iter().flat_map(of).collect();
        if std::thread::panicking() {
            for node in &self.nodes {
                println!("--- the last lines of {}:\n{}", node.name, node.last_lines(25));
            }
            println!("--- violations: {violations:#?}");
            return;
        }
        assert!(violations.is_empty(), "the logs are not clean: {violations:#?}");
    }
}
