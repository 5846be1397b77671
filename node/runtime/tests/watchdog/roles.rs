//! The processes of these tests: this program again, as a watchdog or as a node that does what it is told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use vc_runtime::Watchdog;
use vc_runtime::watchdog::{Config, Target, boottime};

use crate::TIMEOUT;
use crate::leftovers::{TEST, belongs_to_test, end_with_test};

/// The variables of a child process: its role, the data directory, and the version.
const ROLE: &str = "VC_TEST_ROLE";
const DIR: &str = "VC_TEST_DIR";
const VERSION: &str = "VC_TEST_VERSION";
/// The version of which the watchdog ends at once.
pub(crate) const NO_WATCHDOG: &str = "none";
/// How often a node renews.
const RENEW_INTERVAL: Duration = Duration::from_millis(100);

/// Not a test: plays the role of a child process, if this is one.
#[test]
fn role() {
    let variable = |name| std::env::var(name).expect("set with the role");
    if std::env::var_os(ROLE).is_some() {
        end_with_test();
    }
    match std::env::var(ROLE).as_deref() {
        Ok("watchdog") if variable(VERSION) == NO_WATCHDOG => {}
        Ok("watchdog") => {
            vc_watchdog::run(Path::new(&variable(DIR)), &variable(VERSION)).expect("it runs");
        }
        Ok("node") => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(node(&variable(DIR), &variable(VERSION)));
        }
        _ => {}
    }
}

/// Returns the command of a child process.
fn command(role: &str, dir: &Path, version: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["roles::role", "--exact", "--nocapture"]);
    command.env(ROLE, role).env(DIR, dir).env(VERSION, version);
    belongs_to_test(&mut command);
    command
}

/// A data directory. Its watchdogs and instances end when it is dropped.
pub(crate) struct DataDir(tempfile::TempDir);

impl DataDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let of = self.path().display().to_string();
        let is_of = |variable: &[u8]| String::from_utf8_lossy(variable).contains(&of);
        for pid in processes(|variables| variables.iter().any(|it| is_of(it))) {
            let pid = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid());
            let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

/// Returns the settings of a node of this version.
pub(crate) fn config(dir: &Path, version: &str) -> Config {
    let (of, with) = (dir.to_owned(), version.to_owned());
    let command = move || command("watchdog", &of, &with);
    Config { dir: dir.to_owned(), version: version.to_owned(), command: Arc::new(command) }
}

/// Does what it reads from stdin, line by line, and reports on stdout.
async fn node(dir: &str, version: &str) {
    let watchdog = Watchdog::start(config(Path::new(dir), version));
    let mut problem = watchdog.problem();
    tokio::spawn(async move {
        while problem.changed().await.is_ok() {
            match problem.borrow_and_update().as_deref() {
                Some(problem) => println!("> problem {problem}"),
                None => println!("> no problem"),
            }
        }
    });
    let (sender, mut lines) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            sender.blocking_send(line).expect("it runs");
        }
    });
    let mut renewing = None;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = tokio::time::sleep(RENEW_INTERVAL), if renewing.is_some() => {
                set(&watchdog, renewing.as_slice());
                continue;
            }
        };
        let Some(line) = line else { return };
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["deadlines", all @ ..] => {
                renewing = None;
                let all: Vec<_> =
                    all.chunks(2).map(|it| (it[0].to_owned(), number(it[1]))).collect();
                set(&watchdog, &all);
            }
            ["renew", instance, time] => {
                renewing = Some(((*instance).to_owned(), number(time)));
                set(&watchdog, renewing.as_slice());
            }
            ["target", instance, pid, start] => {
                let pid = pid.parse().expect("a number");
                let target = Target::Process { pid, start: number(start) };
                match watchdog.target(&instance.parse().expect("an instance"), target).await {
                    Ok(()) => println!("> held"),
                    Err(error) => println!("> not held {error}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Sets the deadlines of instances, as times from now.
fn set(watchdog: &Watchdog, all: &[(String, u64)]) {
    let now = boottime();
    let at = |(id, time): &(String, u64)| (id.parse().expect("an instance"), now + time);
    watchdog.deadlines(&all.iter().map(at).collect::<BTreeMap<_, _>>());
}

/// A node in a process group of its own.
pub(crate) struct Node {
    process: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Node {
    pub(crate) fn start(dir: &Path, version: &str) -> Self {
        Self::spawn(command("node", dir, version))
    }

    /// Starts one that belongs to another process than this test's.
    pub(crate) fn of_test(test: i32, dir: &Path, version: &str) -> Self {
        let mut command = command("node", dir, version);
        command.env(TEST, test.to_string());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().expect("started");
        let input = process.stdin.take().expect("a pipe");
        let stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(report) = line.strip_prefix("> ") {
                    let _ = sender.send(report.to_owned());
                }
            }
        });
        Self { process, input, output }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
    }

    /// Sets deadlines, in milliseconds from now.
    pub(crate) fn deadlines(&mut self, all: &[(&str, u64)]) {
        let all = all.iter().map(|(instance, time)| format!(" {instance} {time}"));
        self.tell(&format!("deadlines{}", all.collect::<String>()));
    }

    /// Makes it renew one deadline from now on.
    pub(crate) fn renews(&mut self, instance: &str, time: u64) {
        self.tell(&format!("renew {instance} {time}"));
    }

    pub(crate) fn target(&mut self, instance: &str, pid: i32, start: u64) {
        self.tell(&format!("target {instance} {pid} {start}"));
    }

    /// Sets the target of an instance, and waits until the watchdog holds it.
    pub(crate) fn holds(&mut self, instance: &str, process: &Instance) {
        self.holds_process(instance, process.pid(), process.start_time());
    }

    pub(crate) fn holds_process(&mut self, instance: &str, pid: i32, start: u64) {
        self.target(instance, pid, start);
        self.reports("held");
    }

    /// Waits for its next report.
    pub(crate) fn reports(&self, expected: &str) {
        assert_eq!(self.output.recv_timeout(TIMEOUT).expect("a report"), expected);
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.id(), signal).expect("it runs");
    }

    /// Kills its process group, and waits until it has ended.
    pub(crate) fn kill_group(&mut self) {
        rustix::process::kill_process_group(self.id(), Signal::KILL).expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Returns the state of the process, as in `proc_pid_stat(5)`.
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        stat.expect("it exists")
            .rsplit_once(") ")
            .expect("a name")
            .1
            .chars()
            .next()
            .expect("a state")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = rustix::process::kill_process_group(self.id(), Signal::KILL);
        let _ = self.process.wait();
    }
}

/// A process that runs until it is killed, in a group of its own.
pub(crate) struct Instance(Child);

impl Instance {
    pub(crate) fn start() -> Self {
        Self(Command::new("sleep").arg("600").process_group(0).spawn().expect("started"))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub(crate) fn start_time(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let fields = stat.rsplit_once(") ").expect("a name").1;
        number(fields.split(' ').nth(19).expect("22 fields"))
    }

    /// Waits until it has ended, and returns the signal that ended it.
    pub(crate) fn ended(&mut self) -> Signal {
        pidfd(self.pid()).ended();
        let signal = self.0.wait().expect("it has ended").signal().expect("by a signal");
        Signal::from_named_raw(signal).expect("a signal")
    }

    pub(crate) fn runs(&self) -> bool {
        !pidfd(self.pid()).has_ended(Duration::ZERO)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that is no child of this one.
pub(crate) struct Other(OwnedFd);

/// Opens a process that runs, or that was not reaped.
pub(crate) fn pidfd(pid: i32) -> Other {
    let pid = Pid::from_raw(pid).expect("a process id");
    Other(pidfd_open(pid, PidfdFlags::empty()).expect("it exists"))
}

impl Other {
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.0, signal).expect("it runs");
    }

    fn has_ended(&self, within: Duration) -> bool {
        let within = Timespec::try_from(within).expect("short");
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&within)).expect("polled") > 0
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&self) {
        assert!(self.has_ended(TIMEOUT), "it does not end");
    }
}

/// Returns the watchdogs of a data directory.
pub(crate) fn watchdogs(dir: &Path) -> Vec<i32> {
    let wanted = [format!("{ROLE}=watchdog"), format!("{DIR}={}", dir.display())];
    processes(|variables| wanted.iter().all(|it| variables.contains(&it.as_bytes())))
}

/// Returns the processes with such variables, in the order of their ids.
fn processes(has: impl Fn(&[&[u8]]) -> bool) -> Vec<i32> {
    let is_one = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        has(&environment.split(|&byte| byte == 0).collect::<Vec<_>>())
    };
    let entries = std::fs::read_dir("/proc").expect("mounted").flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let mut found: Vec<i32> = pids.filter(is_one).collect();
    found.sort_unstable();
    found
}
