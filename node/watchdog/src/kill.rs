//! Killing every process of a target, through pidfds, so that a process with a reused id is never killed.
//!
//! A process is sent SIGKILL if it belongs to the target after its pidfd was opened. If its id was reused in between, the pidfd is
//! of the process before, and the signal reaches nothing.

use std::fs;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::message::Target;

/// Sends SIGKILL to all processes of these targets. Returns how many of each ran. Those that have exited and were not reaped do not
/// count; those that may not be killed do.
///
/// # Errors
/// The processes cannot be listed; some may have been killed.
pub(crate) fn kill(targets: &[Target]) -> std::io::Result<Vec<u64>> {
    let mut found = vec![0; targets.len()];
    if targets.is_empty() {
        return Ok(found);
    }
    let own = std::process::id().cast_signed();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        let seen = Seen::new(pid);
        for (target, found) in targets.iter().zip(&mut found) {
            if seen.is_of(target) && kill_process(pid, target) {
                *found += 1;
            }
        }
    }
    Ok(found)
}

/// Checks that processes can be found and signalled, with the code that kills, which is in memory after that.
///
/// # Errors
/// This kernel has no pidfds, or /proc is not mounted.
pub(crate) fn rehearse() -> std::io::Result<()> {
    kill(&[
        Target::Container("rehearsal".to_owned()),
        Target::Process { pid: 1, start: u64::MAX },
    ])?;
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    has_exited(&own);
    Ok(())
}

/// Sends SIGKILL to a process, if it is of a target. Returns whether it ran.
fn kill_process(pid: i32, target: &Target) -> bool {
    let fd = match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(fd)) => fd,
        Some(Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return true,
        _ => return false,
    };
    // Read again: only now the descriptor is known to be of this process.
    if !Seen::new(pid).is_of(target) || has_exited(&fd) {
        return false;
    }
    !matches!(pidfd_send_signal(&fd, Signal::KILL), Err(Errno::SRCH))
}

/// Reports whether a process has ended, also if it was not reaped.
fn has_exited(fd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// What /proc says of a process. Nothing of that waits for a disk, or for a lock of the process.
struct Seen {
    cgroup: String,
    group: Option<i32>,
}

impl Seen {
    fn new(pid: i32) -> Self {
        let cgroup = fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let cgroup = String::from_utf8_lossy(&cgroup).into_owned();
        Self { cgroup, group: stat(pid).map(|(group, _)| group) }
    }

    fn is_of(&self, target: &Target) -> bool {
        match target {
            Target::Container(id) => is_in_container(&self.cgroup, id),
            Target::Process { pid, start } => {
                // A group may outlive its first process, and no other process gets the id of the group meanwhile.
                self.group == Some(*pid) && stat(*pid).is_none_or(|(_, ticks)| ticks == *start)
            }
        }
    }
}

/// Reports whether `/proc/PID/cgroup` (`cgroups(7)`) names a container: by a directory `ID`, `docker-ID.scope`, `libpod-ID.scope` or
/// alike. That of podman's monitor has `conmon` before the id: it records how the container ended.
fn is_in_container(cgroup: &str, id: &str) -> bool {
    let is_named = |component: &str| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        match name.strip_suffix(id) {
            Some(prefix) => {
                prefix.is_empty() || prefix.ends_with('-') && !prefix.contains("conmon")
            }
            None => false,
        }
    };
    // HIERARCHY:CONTROLLERS:PATH; after a removal the path ends with " (deleted)".
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    !id.is_empty()
        && paths.into_iter().any(|path| {
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            Path::new(path).components().any(|it| it.as_os_str().to_str().is_some_and(is_named))
        })
}

/// Returns a process's group, and its start time in clock ticks since the boot (`proc_pid_stat(5)`).
fn stat(pid: i32) -> Option<(i32, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The second field is the program's name in parentheses, and may contain any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // The 5th and the 22nd; the first here is the 3rd.
    Some((fields.get(2)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5e3c2b1a09f8e7d6c5b4a3928170654f5e3c2b1a09f8e7d6c5b4a392817065";

    #[test]
    fn the_processes_of_a_container_are_known_by_their_control_groups() {
        for path in [
            format!("12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n"),
            format!("0::/system.slice/docker-{ID}.scope\n"),
            format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
            format!("0::/libpod_parent/libpod-{ID}\n"),
            format!("0::/../../docker/{ID} (deleted)\n"),
            format!("0::/docker/{ID}/nested/docker/{}\n", ID.replace('4', "9")),
        ] {
            assert!(is_in_container(&path, ID), "{path}");
        }
        for path in [
            "0::/\n".to_owned(),
            format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"),
            format!("0::/system.slice/docker-{}.scope\n", ID.replace('4', "9")),
            format!("0::/docker/1{ID}\n"),
        ] {
            assert!(!is_in_container(&path, ID), "{path}");
        }
        assert!(!is_in_container("0::/\n", ""));
    }

    #[test]
    fn the_group_and_start_time_of_a_process_are_read() {
        let own = std::process::id().cast_signed();
        let (group, start) = stat(own).expect("this process");
        assert_eq!(
            Some(group),
            rustix::process::getpgid(None).ok().map(|it| it.as_raw_nonzero().get())
        );
        let target = Target::Process { pid: group, start };
        assert_eq!(Seen::new(own).is_of(&target), stat(group).is_none_or(|(_, it)| it == start));
    }
}
