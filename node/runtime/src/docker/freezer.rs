//! The freezer of a container's control group: it stops all processes of the container at once, and lets them go on.
//!
//! Docker's own pause also ends the timer of the container's healthcheck: of a container that is paused more often than the
//! healthcheck runs, the health would never be known. The processes see neither.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

/// Where the control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// The interval in which a freezer is asked whether all processes have stopped.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The freezer of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Freezer {
    /// Control groups of version 1, the directory of the controller `freezer`.
    V1(PathBuf),
    /// Version 2.
    V2(PathBuf),
}

impl Freezer {
    /// Returns the freezer of a container with this process; `None` if the node does not see it.
    pub(super) fn of(pid: i64, container: &str) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        candidates(&groups, container).into_iter().find(|it| it.control().exists())
    }

    fn control(&self) -> PathBuf {
        match self {
            Self::V1(group) => group.join("freezer.state"),
            Self::V2(group) => group.join("cgroup.freeze"),
        }
    }

    /// Makes the kernel stop the processes; [`Self::frozen`] waits until all have.
    pub(super) fn freeze(&self) -> io::Result<()> {
        let word = match self {
            Self::V1(_) => "FROZEN",
            Self::V2(_) => "1",
        };
        fs::write(self.control(), word)
    }

    /// Lets the processes go on.
    pub(super) fn thaw(&self) -> io::Result<()> {
        let word = match self {
            Self::V1(_) => "THAWED",
            Self::V2(_) => "0",
        };
        fs::write(self.control(), word)
    }

    /// Reports whether all processes stand still.
    pub(super) fn is_frozen(&self) -> io::Result<bool> {
        Ok(match self {
            Self::V1(group) => fs::read_to_string(group.join("freezer.state"))?.trim() == "FROZEN",
            Self::V2(group) => {
                let events = fs::read_to_string(group.join("cgroup.events"))?;
                events.lines().any(|line| line == "frozen 1")
            }
        })
    }

    /// Waits until all processes stand still. One that waits for a disk does not before the disk answers.
    pub(super) async fn frozen(&self) -> io::Result<()> {
        while !self.is_frozen()? {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Returns the freezers that a container may have, by the control groups of a process of it (`cgroups(7)`).
fn candidates(groups: &str, container: &str) -> Vec<Freezer> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // HIERARCHY:CONTROLLERS:PATH
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let Some(group) = group_of(path, container) else { continue };
        if controllers.split(',').any(|it| it == "freezer") {
            found.push(Freezer::V1(Path::new(ROOT).join("freezer").join(group)));
        } else if controllers.is_empty() {
            found.push(Freezer::V2(Path::new(ROOT).join(group)));
            found.push(Freezer::V2(Path::new(ROOT).join("unified").join(group)));
        }
    }
    found
}

/// Returns the control group of the container itself, of which the process may be in a part.
fn group_of<'a>(path: &'a str, container: &str) -> Option<&'a Path> {
    let path = Path::new(path.strip_prefix('/')?);
    let is_named = |group: &&Path| {
        let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !container.is_empty() && name.contains(container)
    };
    path.ancestors().filter(is_named).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_freezer_is_that_of_the_container_and_not_of_a_part_or_of_all() {
        let v1 = |path: &str| Freezer::V1(Path::new(ROOT).join(path));
        let v2 = |path: &str| Freezer::V2(Path::new(ROOT).join(path));
        let old = "8:memory:/docker/abc\n4:freezer:/docker/abc\n0::/\n";
        assert_eq!(candidates(old, "abc"), [v1("freezer/docker/abc")]);
        let new = "0::/system.slice/docker-abc.scope/init.scope\n";
        let scope = "system.slice/docker-abc.scope";
        assert_eq!(candidates(new, "abc"), [v2(scope), v2(&format!("unified/{scope}"))]);
        let podman = "0::/machine.slice/libpod-abc.scope/container\n";
        assert_eq!(candidates(podman, "abc")[0], v2("machine.slice/libpod-abc.scope"));
        // A process that has the id of one that ended.
        assert_eq!(candidates(old, "def"), []);
        assert_eq!(candidates(old, ""), []);
    }
}
