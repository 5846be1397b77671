//! What the processes of this node use, by /proc: the sums over the process group of each instance.

use std::collections::BTreeMap;

use tokio::time::Instant;
use vc_protocol::{InstanceId, Millis};

use super::children::Children;
use crate::usage::{InstanceUsage, Limits};

/// What the processes of a group use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct GroupUsage {
    /// CPU time, of processes that have ended as well if their parent has noticed, in clock ticks.
    ticks: u64,
    /// Resident memory, in pages.
    pages: u64,
    threads: u64,
}

impl Children {
    /// Measures what the processes use; memory with what they share.
    pub(super) async fn usage(&self) -> Vec<InstanceUsage> {
        self.blocking(Self::read_usage).await.unwrap_or_default()
    }

    fn read_usage(&self) -> Vec<InstanceUsage> {
        let running: Vec<(InstanceId, i32, Millis)> = {
            let running = self.running();
            running.iter().map(|(id, run)| (id.clone(), run.process.pid, run.started)).collect()
        };
        if running.is_empty() {
            return Vec::new();
        }
        let groups = groups();
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let of = |(id, pid, started)| {
            let used = groups.get(&pid)?;
            let memory_bytes = used.pages.saturating_mul(page);
            Some(InstanceUsage {
                id,
                container: String::new(),
                started,
                at: Instant::now(),
                cpu_ns: used.ticks.saturating_mul(tick_ns),
                working_set_bytes: memory_bytes,
                memory_bytes,
                limits: Limits::default(),
                network: None,
                disk: None,
                processes: used.threads,
            })
        };
        running.into_iter().filter_map(of).collect()
    }
}

/// Returns what each process group on the host uses, by its id.
fn groups() -> BTreeMap<i32, GroupUsage> {
    let mut groups = BTreeMap::<i32, GroupUsage>::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)
            // It may have ended.
            && let Ok(text) = std::fs::read_to_string(entry.path().join("stat"))
            && let Some((group, used)) = parse(&text)
        {
            let sum = groups.entry(group).or_default();
            sum.ticks = sum.ticks.saturating_add(used.ticks);
            sum.pages = sum.pages.saturating_add(used.pages);
            sum.threads = sum.threads.saturating_add(used.threads);
        }
    }
    groups
}

/// Reads a line of `/proc/PID/stat` (`proc_pid_stat(5)`): the process group, and what the process uses.
fn parse(text: &str) -> Option<(i32, GroupUsage)> {
    // The second field is the program's name in parentheses, and may contain any character; the third is the first of these.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |at: usize| field(at)?.parse::<u64>().ok();
    // Of ended children they may be below zero in old kernels.
    let times = [14, 15, 16, 17].into_iter().map(|at| number(at).unwrap_or(0));
    let ticks = times.fold(0, u64::saturating_add);
    let used = GroupUsage { ticks, pages: number(24)?, threads: number(20)? };
    Some((field(5)?.parse().ok()?, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_name_of_the_program() {
        let line = "42 (a) b (c) S 1 40 40 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 3 0 999 1000 7 \
                    18446744073709551615";
        let used = GroupUsage { ticks: 100, pages: 7, threads: 3 };
        assert_eq!(parse(line), Some((40, used)));
        assert_eq!(parse("42 (cut off) S 1"), None);
    }

    #[test]
    fn the_group_of_this_process_uses_memory() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        let used = groups().get(&own).copied().unwrap_or_default();
        assert!(used.pages > 0 && used.threads > 0, "{used:?}");
    }
}
