//! `vc-node uninstall`: removes a node from its host, with all that it has there.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use vc_crdt::ClusterState;
use vc_protocol::NodeId;
use vc_runtime::docker::{self, Remains};
use vc_runtime::images::Images;
use vc_store::Store;

use crate::data_dir;
use crate::identity;
use crate::iptables;
use crate::previous_runtime;
use crate::settings::{self, RuntimeChoice};
use crate::setup::{DATA_DIR, UNIT_NAME, ask, say, systemctl};

/// Arguments of `vc-node uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Removes the instances of this node with their containers and networks, the images that it loaded into Docker, its rules of iptables and its
mounts, the unit that 'vc-node setup' wrote if it runs this data directory, and its data directory with its keys and its copies of volumes.
Directories that were adopted stay. The node must not run, unless systemd runs it.

'vc leave NODE' first moves its instances and the data of its volumes to other nodes; without that the cluster waits for its return.

Examples:
  vc leave attic && vc-node uninstall                on the host of attic; asks before it removes anything
  vc-node uninstall --keep-data                      keep the data of volumes: DIR/volumes, and volumes in Docker
  vc-node uninstall --data-dir ./n1 --yes            without asking")]
pub struct Args {
    /// Directory of the node's keys and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vc", env = "VC_DATA_DIR")]
    data_dir: PathBuf,
    /// Keep the data of volumes
    #[arg(long)]
    keep_data: bool,
    /// Where 'vc-node setup' wrote the unit
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    unit_dir: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Removes the node. What is gone already is no error, and what is needed to find the rest goes last, so that it can be repeated.
///
/// # Errors
/// It was not confirmed, the node runs, or something cannot be removed. One line that names what to do.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let dir = &real(&args.data_dir)?;
    let identity = identity::former(dir)?;
    let settings = settings::load(dir)?.unwrap_or_default();
    let host = (settings.runtime() == RuntimeChoice::Docker)
        .then(|| docker::host(settings.docker_host.clone()));
    ensure!(
        host.is_none() || rustix::process::geteuid().is_root(),
        "uninstall needs root: run it with sudo"
    );
    let found = match &host {
        Some(host) => docker::remains(host, identity).await?,
        None => Remains::default(),
    };
    let unit = Unit::find(&args.unit_dir, dir)?;
    if !args.yes {
        confirm(dir, args.keep_data, &unit, &found)?;
    }
    unit.remove()?;
    // The lock of the database keeps other processes out from here on.
    data_dir::open(dir)?;
    let store = Store::open(dir).context("the node seems to run: stop it first")?;
    previous_runtime::stop_instances(dir, &settings, identity, &ClusterState::default()).await?;
    if let Some(host) = &host {
        let release = (host.clone(), identity);
        let released =
            tokio::task::spawn_blocking(move || docker::release_host(&release.0, release.1));
        released.await.context("cannot release the mounts of the node")?;
        docker::remains(host, identity).await?.remove(host, !args.keep_data).await?;
        let images = Images::open(dir, Some(host)).context("cannot read the store of images")?;
        images.remove_loaded().await;
        remove_chains(identity.node).await;
    }
    drop(store);
    // Writes who the node was, for the next time if something fails from here on.
    identity::delete(dir)?;
    remove_data(dir, args.keep_data)?;
    if !dir.exists() {
        remove_link(&args.data_dir)?;
    }
    say(&match args.keep_data {
        true => format!(
            "the node is removed; the data of volumes is in {}",
            dir.join(VOLUMES).display()
        ),
        false if dir.exists() => {
            format!("the node is removed; {} is a mount point, and stays empty", dir.display())
        }
        false => "the node is removed".to_owned(),
    })
}

/// The copies of volumes in the data directory.
const VOLUMES: &str = "volumes";
/// What repeating it needs, in the order in which it is deleted. `--keep-data` keeps the last two, by which what is kept in Docker is
/// found.
const LAST: [&str; 3] = [data_dir::FORMAT_FILE, settings::FILE, identity::LEFT];

/// Returns the absolute path of a directory without symbolic links; if it does not exist, only the absolute path.
fn real(dir: &Path) -> anyhow::Result<PathBuf> {
    let found = match fs::canonicalize(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(dir),
        found => found,
    };
    found.with_context(|| format!("cannot find {}", dir.display()))
}

/// Asks whether to go on.
fn confirm(dir: &Path, keep_data: bool, unit: &Unit, found: &Remains) -> anyhow::Result<()> {
    ensure!(io::stdin().is_terminal(), "nothing was removed: --yes confirms it without a terminal");
    let data = match keep_data {
        true => String::new(),
        false => format!(", and the data of {} volumes in Docker", found.volumes.len()),
    };
    let unit = match unit {
        Unit::Own(path) => format!("the unit {}, ", path.display()),
        Unit::None | Unit::Other(_) => String::new(),
    };
    say(&format!(
        "this removes {} with its keys, {unit}{} containers, {} networks{data}",
        dir.display(),
        found.containers.len(),
        found.networks.len(),
    ))?;
    if identity::is_member(dir) {
        say("the node is still a member of its cluster: 'vc leave NODE' first moves what it has")?;
    }
    let answer = ask("Go on? [y/N] ")?;
    ensure!(matches!(answer.as_str(), "y" | "Y" | "yes"), "nothing was removed");
    Ok(())
}

/// The unit that `vc-node setup` wrote; that of a package is the package's.
#[derive(Debug, PartialEq, Eq)]
enum Unit {
    None,
    /// It runs the node.
    Own(PathBuf),
    /// It runs another node, or something else.
    Other(PathBuf),
}

impl Unit {
    /// Finds the unit, and whether it runs the node of a data directory.
    fn find(unit_dir: &Path, dir: &Path) -> anyhow::Result<Self> {
        let path = unit_dir.join(UNIT_NAME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let is_own = match data_dir_of(&text).filter(|named| named.is_absolute()) {
            Some(named) => real(&named)? == dir,
            None => false,
        };
        Ok(if is_own { Self::Own(path) } else { Self::Other(path) })
    }

    /// Stops what systemd runs, and removes the unit, if it runs the node.
    fn remove(&self) -> anyhow::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Other(path) => {
                say(&format!("{} stays: it runs another data directory", path.display()))
            }
            Self::Own(path) => {
                systemctl(&["disable", "--now", UNIT_NAME])?;
                fs::remove_file(path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
                systemctl(&["daemon-reload"])
            }
        }
    }
}

/// Returns the data directory that a unit runs a node with; `None` if it runs none.
fn data_dir_of(unit: &str) -> Option<PathBuf> {
    let unit = unit.replace("\\\n", " ");
    let commands = unit.lines().filter_map(|line| line.trim().strip_prefix("ExecStart"));
    let mut commands = commands.filter_map(|rest| rest.trim_start().strip_prefix('='));
    // The last one counts, as after an empty one that discards what a template says.
    let command = commands.next_back().filter(|command| !command.trim().is_empty())?;
    let mut words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        if word == "--data-dir" {
            return words.next().map(PathBuf::from);
        }
        if let Some(dir) = word.strip_prefix("--data-dir=") {
            return Some(PathBuf::from(dir.trim_matches(['"', '\''])));
        }
    }
    Some(PathBuf::from(DATA_DIR))
}

/// Removes the chains of the node and the jumps to them.
async fn remove_chains(node: NodeId) {
    let node = node.short();
    for chain in [format!("VC-{node}"), format!("VC-PORTS-{node}")] {
        for table in ["nat", "filter", "raw"] {
            iptables::remove_chain_and_jumps(table, &chain).await;
        }
    }
}

/// Deletes the data directory; with `keep` but for the copies of volumes and what finds the rest of the node.
fn remove_data(dir: &Path, keep: bool) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("cannot delete {}", path.display());
    for entry in fs::read_dir(dir).with_context(|| failed(dir))? {
        let entry = entry.with_context(|| failed(dir))?;
        let name = entry.file_name();
        if LAST.iter().any(|last| name == *last) || (keep && name == VOLUMES) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().with_context(|| failed(&path))?.is_dir();
        let removed = match is_directory {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        unless_missing(removed).with_context(|| failed(&path))?;
    }
    let last = if keep { &LAST[..1] } else { &LAST[..] };
    for path in last.iter().map(|name| dir.join(name)) {
        unless_missing(fs::remove_file(&path)).with_context(|| failed(&path))?;
    }
    if keep {
        return Ok(());
    }
    match fs::remove_dir(dir) {
        // A file system is mounted there: it is empty.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        removed => unless_missing(removed).with_context(|| failed(dir)),
    }
}

/// Ignores the error that something does not exist.
fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Deletes the symbolic link to a data directory that is gone: no node could be created there.
fn remove_link(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        true => fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a data directory of a node that has left its cluster.
    fn make(dir: &Path) {
        for sub in ["volumes/shop", "images/blobs", "audit"] {
            fs::create_dir_all(dir.join(sub)).expect("made");
        }
        for name in LAST.into_iter().chain(["state.redb"]) {
            fs::write(dir.join(name), "text").expect("written");
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("there").flatten();
        let mut names: Vec<_> =
            entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn keep_data_keeps_the_copies_of_volumes_and_what_a_second_run_needs() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("vc");
        make(&dir);
        remove_data(&dir, true).expect("removed");
        assert_eq!(names(&dir), ["left.json", "node.json", "volumes"]);
        // Again, with what opening the directory makes.
        data_dir::open(&dir).expect("opened");
        remove_data(&dir, true).expect("removed");
        assert_eq!(names(&dir), ["left.json", "node.json", "volumes"]);
        remove_data(&dir, false).expect("removed");
        assert!(!dir.exists());
    }

    #[test]
    fn a_deletion_that_fails_leaves_what_repeating_it_needs() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("vc");
        make(&dir);
        // A directory where a file is expected is not deleted, even by root.
        fs::remove_file(dir.join(LAST[0])).expect("removed");
        fs::create_dir(dir.join(LAST[0])).expect("made");
        remove_data(&dir, false).expect_err("fails");
        assert_eq!(names(&dir), ["format", "left.json", "node.json"]);
        fs::remove_dir(dir.join(LAST[0])).expect("removed");
        remove_data(&dir, false).expect("removed");
        assert!(!dir.exists());
    }

    #[test]
    fn a_symlinked_data_directory_is_followed_and_its_link_deleted() {
        let parent = tempfile::tempdir().expect("a directory");
        let (dir, link) = (parent.path().join("disk"), parent.path().join("vc"));
        make(&dir);
        std::os::unix::fs::symlink(&dir, &link).expect("linked");
        let found = real(&link).expect("found");
        assert_eq!(found, fs::canonicalize(&dir).expect("found"));
        remove_data(&found, false).expect("removed");
        remove_link(&link).expect("removed");
        assert!(!dir.exists() && fs::symlink_metadata(&link).is_err());
    }

    #[test]
    fn only_the_unit_of_this_data_directory_is_removed() {
        let units = tempfile::tempdir().expect("a directory");
        let dir = tempfile::tempdir().expect("a directory");
        let dir = fs::canonicalize(dir.path()).expect("found");
        let find = || Unit::find(units.path(), &dir).expect("found");
        assert_eq!(find(), Unit::None);
        let path = units.path().join(UNIT_NAME);
        let write = |command: &str| {
            fs::write(&path, format!("[Service]\nExecStart={command}\n")).expect("written");
        };
        let own = dir.display();
        for command in [
            format!("/usr/bin/vc-node run --data-dir {own}"),
            format!("/usr/bin/vc-node run \\\n  --data-dir={own}/ --name attic"),
            format!("/bin/false\nExecStart=\nExecStart=/usr/bin/vc-node run --data-dir \"{own}\""),
        ] {
            write(&command);
            assert_eq!(find(), Unit::Own(path.clone()), "{command}");
        }
        for command in [
            "/usr/bin/vc-node run".to_owned(),
            format!("/usr/bin/vc-node run --data-dir {own}/other"),
            "/usr/bin/vc-node run --data-dir .".to_owned(),
            String::new(),
        ] {
            write(&command);
            assert_eq!(find(), Unit::Other(path.clone()), "{command}");
            find().remove().expect("left");
            assert!(path.exists());
        }
        assert_eq!(data_dir_of("ExecStart=/usr/bin/vc-node run"), Some(DATA_DIR.into()));
    }
}
