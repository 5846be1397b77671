//! A `vc-node` process with its data directory and log.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{CommandOutput, Running, run};
use super::ports::Port;
use super::processes::{self, Process};
use super::{DEADLINE, program};

/// A node, running or not.
pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    pub port: Port,
    /// The runtime of its services; `None` for the default.
    pub runtime: Option<&'static str>,
    /// Further command-line options.
    pub options: Vec<String>,
    /// Environment variables of the process.
    pub env: Vec<(String, String)>,
    /// Its `vc-node`; that of the workspace by default.
    pub binary: PathBuf,
    log: PathBuf,
    program: Option<Running>,
    addresses: Vec<String>,
}

impl Node {
    /// Returns a node that does not run yet, with its directory and log under `root`.
    pub fn new(root: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: root.join(name),
            port: Port::free(),
            runtime: Some("process"),
            options: ["--cpus", "4", "--memory", "4g"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            binary: program("vc-node"),
            log: root.join(format!("{name}.log")),
            program: None,
            addresses: Vec::new(),
        }
    }

    /// Returns the command with all settings of this node.
    fn command(&self, how: &[&str]) -> Command {
        let mut command = self.bare_command(how);
        command
            .args(self.runtime.iter().flat_map(|it| ["--runtime", it]))
            .args(["--listen", "127.0.0.1", "--no-mdns"])
            .args(["--name", &self.name, "--port", &self.port.number.to_string()])
            .args(&self.options);
        command
    }

    /// Returns the command without settings.
    fn bare_command(&self, how: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(how)
            .args(["--log-format", "json", "--data-dir"])
            .arg(&self.dir)
            .envs(self.env.iter().cloned())
            .env_remove("VC_DATA_DIR")
            .env_remove("VC_LOG");
        command
    }

    /// Starts the process with `init`, `join TOKEN` or `run`, without waiting.
    pub fn launch(&mut self, how: &[&str]) {
        self.launch_command(self.command(how));
    }

    fn launch_command(&mut self, mut command: Command) {
        assert!(self.program.is_none(), "{} is running already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        command.stderr(log);
        self.program = Some(Running::start(command));
    }

    /// Starts it with `run`, the data directory and these options alone, and waits until it is ready.
    pub fn rerun(&mut self, options: &[&str]) {
        self.launch_command(self.bare_command(&[&["run"], options].concat()));
        self.ready();
    }

    /// As [`Node::rerun`], where it must refuse to start. Returns its output.
    pub fn attempt_rerun(&self, options: &[&str]) -> CommandOutput {
        run(self.bare_command(&[&["run"], options].concat()))
    }

    /// Waits for its `ready` lines, which name its addresses.
    pub fn ready(&mut self) {
        let program = self.program.as_ref().expect("the node was launched");
        // TCP, QUIC and WebRTC.
        let next = || match program.next_line(DEADLINE) {
            Some(line) => {
                line.strip_prefix("ready ").expect("only 'ready' lines are printed").to_owned()
            }
            None => panic!("{} ended: {}", self.name, self.last_lines(5)),
        };
        self.addresses = vec![next(), next(), next()];
    }

    /// Starts the process and waits until it is ready.
    pub fn start(&mut self, how: &[&str]) {
        self.launch(how);
        self.ready();
    }

    /// Writes a new admin token, beside the process that may run. Returns the path of the file.
    pub fn new_admin_token(&self) -> String {
        let mut command = Command::new(program("vc-node"));
        command.args(["admin-token", "--data-dir"]).arg(&self.dir);
        run(command).done().trim().to_owned()
    }

    /// Runs the process to its end, where it must refuse to start. Returns its output.
    pub fn attempt(&self, how: &[&str]) -> CommandOutput {
        run(self.command(how))
    }

    /// Sends SIGKILL to the node only: its instances keep running.
    pub fn kill(&mut self) {
        self.program.take().expect("the node runs").kill();
    }

    /// Simulates a power failure: sends SIGKILL to the node and its instances.
    pub fn cut_power(&mut self) {
        self.kill();
        processes::kill_under(&self.dir);
    }

    /// Sends SIGTERM and asserts exit code 0.
    pub fn stop(&mut self) {
        let code = self.program.take().expect("the node runs").terminate();
        assert_eq!(code, Some(0), "exit code of {}: {}", self.name, self.last_lines(5));
    }

    /// Waits for the end of the process and asserts exit code 0.
    pub fn ends(&mut self) {
        self.ends_with(0);
    }

    /// Waits for the end of the process and asserts its exit code.
    pub fn ends_with(&mut self, code: i32) {
        let ended = self.program.take().expect("the node runs").end();
        assert_eq!(ended, Some(code), "exit code of {}: {}", self.name, self.last_lines(5));
    }

    /// Returns whether the process was started and not ended by the test.
    pub fn runs(&self) -> bool {
        self.program.is_some()
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.program.as_ref().expect("the node runs").pid()
    }

    /// Returns its TCP multiaddr, with its peer id.
    pub fn address(&self) -> &str {
        self.addresses.iter().find(|address| address.contains("/tcp/")).expect("a TCP address")
    }

    /// Returns its QUIC multiaddr, with its peer id.
    pub fn quic_address(&self) -> &str {
        self.addresses.iter().find(|it| it.contains("/quic-v1/")).expect("a QUIC address")
    }

    /// Returns its peer id.
    pub fn id(&self) -> &str {
        self.address().rsplit('/').next().expect("a peer id at the end")
    }

    /// Returns the recorded instances whose processes are alive.
    pub fn processes(&self) -> Vec<Process> {
        processes::of(&self.dir)
    }

    /// Returns its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid()))
            .expect("the process is alive");
        let pages: u64 =
            statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
        pages * 4096
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the last `count` lines of its log.
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}
