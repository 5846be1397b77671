//! The commands `init`, `join` and `run`: how a data directory becomes a member's.

use std::path::Path;

use anyhow::Context as _;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

use crate::args::{Command, Options};
use crate::identity::{self, Membership};
use crate::run::run;
use crate::seal::Seal;
use crate::store::Store;
use crate::{data_dir, join, node_info};

/// Runs a command. Returns once the node has stopped on SIGTERM or SIGINT, or has left the cluster.
///
/// # Errors
/// The node could not start, or a task of it failed. One line that names what to do.
pub async fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(options) => {
            let store = open(&options)?;
            anyhow::ensure!(
                !identity::is_member(&options.data_dir),
                "{} belongs to a cluster already: use 'vc-node run', or another --data-dir",
                options.data_dir.display()
            );
            let root = Keypair::generate_ed25519();
            let key = identity::node_key(&options.data_dir)?;
            let node = NodeId::of(&key.public())?;
            let cluster = ClusterId::of(&root.public())?;
            let certificate =
                issue_certificate(&root, node, NodeRole::Server, crate::clock::now())?;
            let membership = Membership {
                key,
                node,
                cluster,
                certificate,
                root: Some(root),
                seal: Seal::generate()?,
                since: crate::clock::now(),
            };
            run(options, membership, Vec::new(), store, true).await
        }
        Command::Join { token, options } => {
            let store = open(&options)?;
            anyhow::ensure!(
                !identity::is_member(&options.data_dir),
                "{} belongs to a cluster already: use 'vc-node run', or another --data-dir",
                options.data_dir.display()
            );
            let token = read_token(&token)?;
            let key = identity::node_key(&options.data_dir)?;
            let name = node_info::name(&options);
            let (membership, admission) = join::join(&token, key, &name).await?;
            let durable = vc_engine::Durable {
                certificates: admission.certificates,
                ..vc_engine::Durable::default()
            };
            store.persist(&durable)?;
            identity::save(&options.data_dir, &membership, &admission.peers)?;
            tracing::info!(node = %membership.node, cluster = %membership.cluster, "joined");
            run(options, membership, admission.peers, store, false).await
        }
        Command::Run(options) => {
            let store = open(&options)?;
            let (membership, peers) = identity::load(&options.data_dir)?;
            run(options, membership, peers, store, false).await
        }
    }
}

fn open(options: &Options) -> anyhow::Result<Store> {
    data_dir::open(&options.data_dir)?;
    Ok(Store::open(&options.data_dir)?)
}

/// Returns the token, reading it from a file if `text` is the path of one.
fn read_token(text: &str) -> anyhow::Result<String> {
    let path = Path::new(text);
    if path.is_file() {
        let token = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(token.trim().to_owned());
    }
    Ok(text.trim().to_owned())
}
