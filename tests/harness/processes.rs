//! Processes of instances, found by the state files of the process runtime.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// An instance and its process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// `project/service.replica`.
    pub slot: String,
    pub pid: i32,
    /// Start time; it changes when the process is restarted.
    pub started: u64,
}

/// Returns the recorded processes of a data directory that are alive.
pub fn of(dir: &Path) -> Vec<Process> {
    let entries = std::fs::read_dir(dir.join("instances")).into_iter().flatten().flatten();
    let mut all: Vec<Process> = entries.filter_map(|entry| read(&entry.path())).collect();
    all.sort();
    all
}

fn read(home: &Path) -> Option<Process> {
    let state: Value =
        serde_json::from_slice(&std::fs::read(home.join("state.json")).ok()?).ok()?;
    let pid = i32::try_from(state["status"]["running"]["pid"].as_i64()?).ok()?;
    let slot = &state["slot"];
    let slot = match slot.as_str() {
        Some(slot) => slot.to_owned(),
        None => format!("{}.{}", slot["service"].as_str()?, slot["replica"]),
    };
    let alive = home_of(pid).is_some_and(|it| Path::new(&it) == home);
    alive.then(|| Process { slot, pid, started: state["started"].as_u64().unwrap_or_default() })
}

/// Returns the instance directory that a process was started in.
fn home_of(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables =
        environment.split(|&byte| byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    variables
        .filter_map(|variable| variable.strip_prefix("VC_INSTANCE_DIR="))
        .next()
        .map(str::to_owned)
}

/// Sends SIGKILL to all instances under a directory and to their children, recorded or not.
pub fn kill_under(dir: &Path) {
    loop {
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours: Vec<i32> = pids
            .filter(|&pid| home_of(pid).is_some_and(|home| Path::new(&home).starts_with(dir)))
            .collect();
        if ours.is_empty() {
            return;
        }
        for pid in ours.into_iter().filter_map(Pid::from_raw) {
            // An instance leads a process group; children that have left it are found by their environment.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::yield_now();
    }
}

/// Returns the processes that run nodes whose data directories are under a directory.
pub fn nodes_under(dir: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_node = |&pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        let data_dir = words.iter().skip_while(|word| **word != b"--data-dir").nth(1);
        let data_dir = data_dir.and_then(|word| std::str::from_utf8(word).ok());
        words.contains(&&b"run"[..]) && data_dir.is_some_and(|it| Path::new(it).starts_with(dir))
    };
    pids.filter(is_node).collect()
}
