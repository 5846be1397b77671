//! Clusters of node processes on loopback, and `vc` commands against their nodes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use rustix::process::Signal;

use super::command::{CommandOutput, Running, run, run_for, signal};
use super::{DEADLINE, Node, log_check, processes, program, until};

/// A cluster of real processes. Dropping it ends all of them and checks their logs.
pub struct Cluster {
    root: TempDir,
    pub nodes: Vec<Node>,
    expected_errors: Vec<String>,
}

impl Cluster {
    /// Starts a cluster of one node.
    pub fn found() -> Self {
        let root = tempfile::Builder::new().prefix("vc-test-").tempdir().expect("a directory");
        let mut first = Node::new(root.path(), "n1");
        first.start(&["init"]);
        Self { root, nodes: vec![first], expected_errors: Vec::new() }
    }

    /// Starts `count` servers `n1`, `n2`, … and waits until each sees all of them up.
    pub fn of(count: usize) -> Self {
        let mut cluster = Self::found();
        let roles = vec!["server"; count - 1];
        cluster.join(0, &roles);
        cluster.all_up();
        cluster
    }

    /// Lets one node for each of these roles join through node `at`, concurrently, and waits until they are ready.
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

    /// Creates a join token with this role.
    pub fn node_token(&self, at: usize, role: &str) -> String {
        self.vc(at, &["token", "create", "--node", "--role", role]).done().trim().to_owned()
    }

    /// Creates a user token with this role.
    pub fn user_token(&self, at: usize, name: &str, role: &str) -> String {
        self.limited_token(at, name, role, &[])
    }

    /// Creates a user token with this role and these options.
    pub fn limited_token(&self, at: usize, name: &str, role: &str, options: &[&str]) -> String {
        let create = ["token", "create", "--user", name, "--role", role];
        self.vc(at, &[&create, options].concat()).done().trim().to_owned()
    }

    /// Returns a path in the cluster's temporary directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns a node that has not joined the cluster; its directory is removed with the cluster's.
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

    /// Runs `vc` with the admin's token against a node.
    pub fn vc(&self, at: usize, arguments: &[&str]) -> CommandOutput {
        self.vc_as(&self.admin_token(), at, arguments)
    }

    /// Runs `vc` with this token against a node.
    pub fn vc_as(&self, token: &str, at: usize, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(token);
        command.args(["--peer", self.nodes[at].address()]).args(arguments);
        run(command)
    }

    /// As [`Cluster::vc`], for a command that may take long.
    pub fn vc_for(&self, deadline: Duration, at: usize, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(&self.admin_token());
        command.args(["--peer", self.nodes[at].address()]).args(arguments);
        run_for(deadline, command)
    }

    /// Runs `vc` with the admin's token against the node at an address.
    pub fn vc_to(&self, address: &str, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(&self.admin_token());
        command.args(["--peer", address]).args(arguments);
        run(command)
    }

    /// Runs `vc` with this token and without `--peer`: it finds a node by itself.
    pub fn vc_anywhere(&self, token: &str, arguments: &[&str]) -> CommandOutput {
        let mut command = self.command(token);
        command.args(arguments);
        run(command)
    }

    /// Starts a `vc` command that keeps running, with the admin's token against a node.
    pub fn vc_running(&self, at: usize, arguments: &[&str]) -> Running {
        self.vc_running_as(&self.admin_token(), at, arguments)
    }

    /// The same with this token.
    pub fn vc_running_as(&self, token: &str, at: usize, arguments: &[&str]) -> Running {
        let mut command = self.command(token);
        command.args(["--peer", self.nodes[at].address()]).args(arguments);
        Running::start(command)
    }

    /// Runs `vc` and returns the rows that it prints as JSON.
    pub fn rows(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        let rows = self.vc(at, &[&["--output", "json"], arguments].concat()).json();
        rows.as_array().expect("rows").clone()
    }

    /// Runs `vc logs` and returns its rows.
    pub fn log_rows(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        self.lines(at, &[&["logs"], arguments].concat())
    }

    /// Runs `vc events` and returns its rows, oldest first.
    pub fn event_rows(&self, at: usize) -> Vec<Value> {
        self.selected_event_rows(at, &[])
    }

    /// Runs `vc events` with these options and returns its rows, oldest first.
    pub fn selected_event_rows(&self, at: usize, options: &[&str]) -> Vec<Value> {
        self.lines(at, &[&["events"], options].concat())
    }

    fn lines(&self, at: usize, arguments: &[&str]) -> Vec<Value> {
        let out = self.vc(at, &[&["--output", "json"], arguments].concat()).done();
        out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// Runs `vc ps` and returns its rows.
    pub fn ps(&self, at: usize) -> Vec<Value> {
        self.rows(at, &["ps"])
    }

    /// Writes a file into the cluster's directory and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// Deploys a Compose file through a node and waits until all its services run.
    pub fn deploy(&self, at: usize, compose: &str) {
        let file = self.file(&format!("deploy-{at}.yaml"), compose);
        self.vc(at, &["deploy", &file, "--wait", "--timeout", "60s"]).done();
    }

    /// Returns the nodes whose process runs.
    pub fn alive(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].runs())
    }

    /// Waits until every running node reports exactly the running nodes as up.
    pub fn all_up(&self) {
        let alive: Vec<&str> = self.alive().map(|i| self.nodes[i].name.as_str()).collect();
        let check = |i: usize| {
            let rows = self.rows(i, &["nodes"]);
            let correct = rows.len() == self.nodes.len()
                && rows.iter().all(|row| {
                    let alive = alive.iter().any(|name| row["name"] == *name);
                    row["state"] == if alive { "up" } else { "down" }
                });
            let seen: Vec<String> =
                rows.iter().map(|row| format!("{} {}", row["name"], row["state"])).collect();
            if correct { Ok(()) } else { Err(format!("{} reports {seen:?}", self.nodes[i].name)) }
        };
        until("every node reports the running nodes as up", DEADLINE, || {
            self.alive().try_for_each(check)
        });
    }

    /// Allows ERROR lines that contain `words` in the logs of the nodes.
    pub fn expect_errors(&mut self, words: &str) {
        self.expected_errors.push(words.to_owned());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            node.kill();
        }
        // Those that guards of upgrades have started.
        for pid in processes::nodes_under(self.root.path()) {
            signal(u32::try_from(pid).expect("a process id"), Signal::KILL);
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
