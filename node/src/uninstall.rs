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
use crate::setup::{UNIT_NAME, ask, say, systemctl};

/// Arguments of `vc-node uninstall`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Removes the instances of this node with their containers and networks, the images that it loaded into Docker, its rules of iptables and its
mounts, the unit that 'vc-node setup' wrote, and its data directory with its keys and its copies of volumes. Directories that were adopted
stay. The node must not run, unless systemd runs it.

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

/// Removes the node. What is gone already is no error, so that it can be repeated.
///
/// # Errors
/// It was not confirmed, the node runs, or something cannot be removed. One line that names what to do.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let dir = &args.data_dir;
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
    if !args.yes {
        confirm(args, &found)?;
    }
    remove_unit(args)?;
    // Nobody else may use the directory from here on.
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
    remove_data(dir, args.keep_data)?;
    say(&match args.keep_data {
        true => format!(
            "the node is removed; the data of volumes is in {}",
            dir.join(VOLUMES).display()
        ),
        false => "the node is removed".to_owned(),
    })
}

/// The copies of volumes in the data directory.
const VOLUMES: &str = "volumes";

/// Asks whether to go on.
fn confirm(args: &Args, found: &Remains) -> anyhow::Result<()> {
    ensure!(io::stdin().is_terminal(), "nothing was removed: --yes confirms it without a terminal");
    let data = match args.keep_data {
        true => String::new(),
        false => format!(", and the data of {} volumes in Docker", found.volumes.len()),
    };
    say(&format!(
        "this removes {} with its keys, {} containers, {} networks{data}",
        args.data_dir.display(),
        found.containers.len(),
        found.networks.len(),
    ))?;
    if identity::is_member(&args.data_dir) {
        say("the node is still a member of its cluster: 'vc leave NODE' first moves what it has")?;
    }
    let answer = ask("Go on? [y/N] ")?;
    ensure!(matches!(answer.as_str(), "y" | "Y" | "yes"), "nothing was removed");
    Ok(())
}

/// Stops what systemd runs, and removes the unit that `vc-node setup` wrote; that of a package is the package's.
fn remove_unit(args: &Args) -> anyhow::Result<()> {
    let path = args.unit_dir.join(UNIT_NAME);
    if !path.exists() {
        return Ok(());
    }
    systemctl(&["disable", "--now", UNIT_NAME])?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    systemctl(&["daemon-reload"])
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

/// Deletes the data directory, but for the copies of volumes with `keep`.
fn remove_data(dir: &Path, keep: bool) -> anyhow::Result<()> {
    let failed = || format!("cannot delete {}", dir.display());
    if !keep {
        return fs::remove_dir_all(dir).with_context(failed);
    }
    for entry in fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_name() == VOLUMES {
            continue;
        }
        let is_directory = entry.file_type().with_context(failed)?.is_dir();
        let removed = match is_directory {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.with_context(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_the_data_directory_are_the_copies_of_volumes() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("vc");
        let make = || {
            for sub in ["volumes/shop", "images/blobs", "audit"] {
                fs::create_dir_all(dir.join(sub)).expect("made");
            }
            fs::write(dir.join("node.key"), "secret").expect("written");
        };
        make();
        remove_data(&dir, true).expect("removed");
        let left: Vec<_> = fs::read_dir(&dir).expect("there").flatten().collect();
        assert_eq!(left.iter().map(|it| it.file_name()).collect::<Vec<_>>(), ["volumes"]);
        make();
        remove_data(&dir, false).expect("removed");
        assert!(!dir.exists());
    }
}
