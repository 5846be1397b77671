//! Capacity and usage of the host, within the limits of the control group this node runs in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sysinfo::System;
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::Resources;
use vc_protocol::node::Usage;

use crate::disk::{self, Reserve, Space, WatchedDisk};
use crate::driver_message::DriverMessage;
use crate::engine_rules::EngineRules;
use vc_runtime::RULES_GONE;
use vc_runtime::docker::Docker;

/// Interval between usage samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the CPU (thousandths of a core) and memory (bytes) of the host, as far as this process may use its processors.
pub(crate) fn machine() -> Resources {
    // Where the operating system does not report it, the operator sets it with --memory.
    let memory_bytes = System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Resources { cpu_millis: u64::try_from(cores).unwrap_or(1) * 1000, memory_bytes }
}

/// Returns what of the host this node can give to services.
pub(crate) fn capacity() -> Resources {
    let Resources { cpu_millis, memory_bytes } = machine();
    let (cpu_limit, memory_limit) = cgroup_limits();
    Resources {
        cpu_millis: cpu_limit.map_or(cpu_millis, |limit| limit.min(cpu_millis)),
        memory_bytes: memory_limit.map_or(memory_bytes, |limit| limit.min(memory_bytes)),
    }
}

/// Returns the tightest CPU and memory limits of this process's control group and its ancestors (cgroup v2: `cpu.max`,
/// `memory.max`).
fn cgroup_limits() -> (Option<u64>, Option<u64>) {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let mut at = PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let (mut cpu, mut memory) = (None, None);
    while at.starts_with("/sys/fs/cgroup") {
        cpu = tighter(cpu, cpu_max(&at));
        memory = tighter(
            memory,
            fs::read_to_string(at.join("memory.max")).ok().and_then(|t| t.trim().parse().ok()),
        );
        if !at.pop() {
            break;
        }
    }
    (cpu, memory)
}

fn tighter(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn cpu_max(group: &Path) -> Option<u64> {
    parse_cpu_max(&fs::read_to_string(group.join("cpu.max")).ok()?)
}

/// Parses `quota period` in microseconds, or `max period` (no limit), into thousandths of a core.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota.saturating_mul(1000)).checked_div(period)
}

/// The disks of this node.
#[derive(Debug)]
struct Disks {
    data_dir: PathBuf,
    reserve: Reserve,
    /// That of Docker's data, once Docker has said where it is.
    docker: Option<WatchedDisk>,
}

impl Disks {
    /// Returns the space of the disk with the least share free, and which directory's disk is full. Disks that do not answer are
    /// left out.
    fn check(&mut self) -> (Space, Option<PathBuf>) {
        let own = Space::of(&self.data_dir).ok();
        let is_full = own.is_some_and(|space| self.reserve.is_full(space));
        let mut full = is_full.then(|| self.data_dir.clone());
        let mut least = own.unwrap_or_default();
        if let Some(disk) = &mut self.docker
            && let Ok((space, is_full)) = disk.check()
        {
            if full.is_none() && is_full {
                full = Some(disk.path().to_owned());
            }
            let share = |space: Space| space.free.saturating_mul(1000) / space.total.max(1);
            if share(space) < share(least) {
                least = space;
            }
        }
        (least, full)
    }
}

/// Sends the host's usage to the engine every [`SAMPLE_INTERVAL`], and whether it starts nothing because a disk is full, or the rules
/// of the packet filter are gone that containers need. `docker`: the engine that is watched, if it is on this host.
pub(crate) async fn watch(
    data_dir: PathBuf,
    docker: Option<Docker>,
    driver: mpsc::Sender<DriverMessage>,
) {
    let Ok(mut system) = System::new() else {
        tracing::warn!("usage not available on this system");
        return std::future::pending().await;
    };
    let mut disks = Disks { reserve: Reserve::new(&data_dir), data_dir, docker: None };
    let local = docker.as_ref().filter(|docker| docker.is_local());
    let mut rules = local.map(|_| EngineRules::default());
    let mut pace = tokio::time::interval(SAMPLE_INTERVAL);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        if let (None, Some(docker)) = (&disks.docker, &docker) {
            disks.docker = docker.data_dir().await.map(WatchedDisk::new);
        }
        // A file system may hang.
        let checked = tokio::task::spawn_blocking(move || {
            let found = disks.check();
            (disks, found)
        });
        let Ok((checked, (space, full))) = checked.await else { return };
        disks = checked;
        let fault = match (full, &mut rules) {
            (Some(path), _) => Some(disk::full(&path)),
            (None, Some(rules)) => rules.are_gone().await.then(|| RULES_GONE.to_owned()),
            (None, None) => None,
        };
        if driver.send(DriverMessage::Input(Input::Fault(fault))).await.is_err() {
            return;
        }
        system.refresh_cpu_usage();
        system.refresh_memory();
        let cores = u64::try_from(system.cpus().len()).unwrap_or(1);
        // sysinfo reports percent as a float; usage decides nothing.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 100000"
        )]
        let share = (system.global_cpu_usage() * 10.0) as u64;
        let usage = Usage {
            cpu_millis: share * cores,
            memory_bytes: system.used_memory(),
            disk_bytes: space.total,
            disk_used: space.total.saturating_sub(space.free),
        };
        if driver.send(DriverMessage::Input(Input::Usage(usage))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_quota_is_parsed_into_thousandths_of_a_core() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1500));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("1 0"), None);
        assert_eq!(parse_cpu_max("nonsense"), None);
    }

    #[test]
    fn capacity_is_not_zero() {
        let capacity = capacity();
        assert!(capacity.cpu_millis >= 100 && capacity.memory_bytes > 1 << 20, "{capacity}");
    }
}
