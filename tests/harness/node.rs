//! One `vc-node` with its data directory.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{CommandOutput, Running, run};
use super::ports::Port;
use super::processes::{self, Process};
use super::{DEADLINE, program};

/// A node, whether it runs or not.
pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    pub port: Port,
    /// More of the command line.
    pub options: Vec<String>,
    log: PathBuf,
    program: Option<Running>,
    addresses: Vec<String>,
}

impl Node {
    /// A node that does not run yet, with its directory and log under `root`.
    pub fn new(root: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: root.join(name),
            port: Port::free(),
            options: ["--cpus", "4", "--memory", "4g"].map(str::to_owned).to_vec(),
            log: root.join(format!("{name}.log")),
            program: None,
            addresses: Vec::new(),
        }
    }

    fn command(&self, how: &[&str]) -> Command {
        let mut command = Command::new(program("vc-node"));
        command
            .args(how)
            .args([
                "--runtime",
                "process",
                "--listen",
                "127.0.0.1",
                "--no-mdns",
                "--log-format",
                "json",
            ])
            .args(["--name", &self.name, "--port", &self.port.number.to_string()])
            .arg("--data-dir")
            .arg(&self.dir)
            .args(&self.options)
            .env_remove("VC_DATA_DIR")
            .env_remove("VC_LOG");
        command
    }

    /// Starts it with `init`, `join TOKEN` or `run`, and does not wait.
    pub fn launch(&mut self, how: &[&str]) {
        assert!(self.program.is_none(), "{} runs", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = self.command(how);
        command.stderr(log);
        self.program = Some(Running::start(command));
    }

    /// Waits until it says that it is ready.
    pub fn ready(&mut self) {
        let program = self.program.as_ref().expect("it was launched");
        // TCP, QUIC and WebRTC.
        let next = || match program.next_line(DEADLINE) {
            Some(line) => {
                line.strip_prefix("ready ").expect("nothing else comes on stdout").to_owned()
            }
            None => panic!("{} ended: {}", self.name, self.last_lines(5)),
        };
        self.addresses = vec![next(), next(), next()];
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self, how: &[&str]) {
        self.launch(how);
        self.ready();
    }

    /// Starts it where it must not start: how it ended.
    pub fn attempt(&self, how: &[&str]) -> CommandOutput {
        run(self.command(how))
    }

    /// SIGKILL to the node alone: its instances run on.
    pub fn kill(&mut self) {
        self.program.take().expect("it runs").kill();
    }

    /// As when the power fails: SIGKILL to the node and to its instances.
    pub fn cut_power(&mut self) {
        self.kill();
        processes::kill_under(&self.dir);
    }

    /// SIGTERM; it must end by itself and well.
    pub fn stop(&mut self) {
        let code = self.program.take().expect("it runs").terminate();
        assert_eq!(code, Some(0), "{} ends cleanly: {}", self.name, self.last_lines(5));
    }

    /// It ends by itself, and well.
    pub fn ends(&mut self) {
        let code = self.program.take().expect("it runs").end();
        assert_eq!(code, Some(0), "{} ends cleanly: {}", self.name, self.last_lines(5));
    }

    pub fn runs(&self) -> bool {
        self.program.is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.as_ref().expect("it runs").pid()
    }

    /// Where it listens for TCP, with its peer id.
    pub fn address(&self) -> &str {
        self.addresses.iter().find(|address| address.contains("/tcp/")).expect("a TCP address")
    }

    /// Its peer id.
    pub fn id(&self) -> &str {
        self.address().rsplit('/').next().expect("a peer id at the end")
    }

    /// The instances that it wrote down, whose processes live.
    pub fn processes(&self) -> Vec<Process> {
        processes::of(&self.dir)
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let statm =
            std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it lives");
        let pages: u64 =
            statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
        pages * 4096
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}
