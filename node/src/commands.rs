//! The commands `init`, `join` and `run`: how a data directory becomes a member's, and with which settings its node runs.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use vc_client::text::list;
use vc_crdt::{DocumentError, KnownVersions, NodeState, Replica};
use vc_protocol::token::{Claims, NodeRole, Scope, decode_unverified};

use crate::args::{Cli, Command, DataDir, Options};
use crate::identity::{self, Membership};
use crate::run::{Start, run};
use crate::settings::{self, Eviction, Setting, Settings};
use crate::stop_signals::StopSignals;
use crate::upgrade::{Guarded, Switch};
use crate::{
    data_dir, duplicate, join, join_token, node_info, previous_runtime, restore, setup,
    socket_holder, uninstall, upgrade,
};
use vc_store::{Store, StoreError};

/// The most instances that an error names.
const MAX_NAMED: usize = 8;

/// A change of settings that was not confirmed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the changed settings would end {}: nothing was changed; repeat with --yes to accept that",
    list(.0.iter().map(|it| it.slot.to_string()).collect(), MAX_NAMED)
)]
struct EvictsInstances(Vec<Eviction>);

/// Why the effect of a change of settings cannot be computed.
#[derive(Debug, thiserror::Error)]
enum ReadDocumentsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot load the documents: {0}")]
    Documents(#[from] DocumentError),
}

/// Runs a command. Returns once the node has stopped on SIGTERM or SIGINT, has left the cluster, or is to switch to another program.
///
/// # Errors
/// The node could not start, or a task of it failed. One line that names what to do.
pub async fn start(command: Command) -> anyhow::Result<Option<Switch>> {
    match command {
        Command::Init(options) => {
            let (store, settings) = open_new(&options)?;
            settings.check_role(NodeRole::Server)?;
            let dir = &options.data_dir;
            let membership = Membership::found(dir)?;
            run(dir, settings, membership, Vec::new(), store, Start::Founds).await
        }
        Command::Join { token, token_file, options } => {
            let (store, settings) = open_new(&options)?;
            let dir = &options.data_dir;
            let token = join_token::read(token.as_deref(), token_file.as_deref())?;
            if let Ok(Claims { scope: Scope::Join(role), .. }) = decode_unverified(&token) {
                settings.check_role(role)?;
            }
            let key = identity::node_key(dir)?;
            let name = settings.name.clone().unwrap_or_else(node_info::default_name);
            let (membership, admission) = join::join(dir, &token, key, &name).await?;
            let durable = vc_engine::Durable {
                certificates: admission.certificates,
                ..vc_engine::Durable::default()
            };
            store.persist(&durable)?;
            settings::save(dir, &settings)?;
            identity::save(dir, &membership, &admission.peers)?;
            tracing::info!(node = %membership.node, cluster = %membership.cluster, "joined");
            run(dir, settings, membership, admission.peers, store, Start::Member).await
        }
        Command::Run { options, unset, yes, upgraded } => {
            let dir = &options.data_dir;
            let start = if upgraded {
                // Those of the program before.
                tokio::spawn(upgrade::reap());
                Start::Upgraded(Guarded::new(), StopSignals::new()?)
            } else {
                Start::Member
            };
            let store = open(dir)?;
            let (membership, peers) = identity::load(dir)?;
            duplicate::check(&membership, &store).await?;
            let remembered = settings::load(dir)?;
            let given = options.settings;
            let settings =
                change(dir, remembered, (&unset, given, yes), &membership, &store).await?;
            run(dir, settings, membership, peers, store, start).await
        }
        Command::Restore(args) => {
            let dir = args.options.data_dir.clone();
            restore::restore(args).await?;
            let store = open(&dir)?;
            let (membership, peers) = identity::load(&dir)?;
            let settings = named(settings::load(&dir)?.unwrap_or_default());
            run(&dir, settings, membership, peers, store, Start::Member).await
        }
        command => other(command).await.map(|()| None),
    }
}

/// Runs a command that runs no node.
async fn other(command: Command) -> anyhow::Result<()> {
    match command {
        Command::AdminToken(DataDir { data_dir }) => admin_token(&data_dir),
        // It waits for other processes alone.
        Command::Setup(args) => setup::run(&args, std::env::args_os().collect()),
        Command::Uninstall(args) => uninstall::run(&args).await,
        Command::Man { directory } => {
            let mut command = Cli::command().disable_help_subcommand(true);
            command.build();
            write_pages(command, &directory).context("cannot write the man pages")
        }
        Command::CheckUpgrade(DataDir { data_dir }) => upgrade::check(&data_dir),
        // It waits for one process alone.
        Command::GuardUpgrade(options) => upgrade::guard(&options.data_dir, options.log_format),
        Command::HoldSockets(options) => {
            socket_holder::run(&options.data_dir).await.context("cannot hold the sockets")
        }
        // Before the async runtime: see the main function.
        Command::Watchdog(_) => anyhow::bail!("the watchdog is no task of a node"),
        Command::Init(_) | Command::Join { .. } | Command::Run { .. } | Command::Restore(_) => {
            anyhow::bail!("that runs a node")
        }
    }
}

/// Writes the man pages of a command and of those below it. They are in section 8, of administration: 'vc node' has the page of this
/// name in section 1.
fn write_pages(command: clap::Command, directory: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        write_pages(below.clone(), directory)?;
    }
    clap_mangen::Man::new(command).section("8").generate_to(directory).map(drop)
}

/// Writes a new admin token, beside the node that may run on the same directory: it reads the identity alone.
///
/// # Errors
/// The directory is not that of a server.
#[allow(clippy::print_stdout, reason = "the path is the result")]
fn admin_token(dir: &Path) -> anyhow::Result<()> {
    let (membership, _) = identity::load(dir)?;
    anyhow::ensure!(
        membership.root.is_some(),
        "the node of {} is a worker, which cannot issue tokens: run this on a server",
        dir.display()
    );
    let settings = settings::load(dir)?.unwrap_or_default();
    let path = identity::write_admin_token(dir, &membership, &settings.own_addresses())?;
    println!("{}", path.display());
    Ok(())
}

/// Returns the settings with which a member runs. Logs what changes, and the instances that end by it. With another runtime,
/// the instances in the present one are ended first.
///
/// # Errors
/// The change would end instances of this node, which are logged, and was not confirmed by `yes`; or they cannot be ended.
async fn change(
    dir: &Path,
    remembered: Option<Settings>,
    (unset, given, yes): (&[Setting], Settings, bool),
    membership: &Membership,
    store: &Store,
) -> anyhow::Result<Settings> {
    // Without the file, this node's document says the most about it.
    let remembered = match remembered {
        Some(remembered) => remembered,
        None => {
            let replica = replica(membership, store)?;
            let own = replica.nodes().get(&membership.node).and_then(|state| state.info.as_ref());
            own.map(Settings::shown_in).unwrap_or_default()
        }
    };
    let settings = named(remembered.clone().updated(unset, given));
    let role = if membership.root.is_some() { NodeRole::Server } else { NodeRole::Worker };
    settings.check_role(role)?;
    let changes = remembered.changes(&settings);
    if changes.is_empty() {
        return Ok(settings);
    }
    let replica = replica(membership, store)?;
    let info = |settings| node_info::info(settings, Vec::new());
    let infos = (info(&remembered), info(&settings));
    let evictions = settings::evictions(replica.cluster(), replica.nodes(), membership.node, infos);
    if !yes && !evictions.is_empty() {
        for eviction in &evictions {
            tracing::warn!("instance would end on this node: {eviction}");
        }
        return Err(EvictsInstances(evictions).into());
    }
    for change in &changes {
        tracing::info!("setting changes: {change}");
    }
    for eviction in &evictions {
        tracing::warn!("instance ends on this node: {eviction}");
    }
    let has_claims = |state: &NodeState| !state.claims.is_empty();
    if remembered.runtime() != settings.runtime()
        && replica.nodes().get(&membership.node).is_some_and(has_claims)
    {
        let identity = vc_runtime::Identity { cluster: membership.cluster, node: membership.node };
        previous_runtime::stop_instances(dir, &remembered, identity, replica.cluster()).await?;
    }
    Ok(settings)
}

/// Builds the documents from the store.
fn replica(membership: &Membership, store: &Store) -> Result<Replica, ReadDocumentsError> {
    let vc_engine::Durable { certificates, changes, .. } = store.load()?;
    let (node, cluster) = (membership.node, membership.cluster);
    let key = membership.key.clone();
    let knows = KnownVersions::default();
    let loaded = Replica::load(key, node, cluster, knows, certificates, changes)?;
    Ok(loaded.replica)
}

/// Gives a node without a name one, which stays when the host's name changes.
pub(crate) fn named(mut settings: Settings) -> Settings {
    settings.name.get_or_insert_with(node_info::default_name);
    settings
}

/// Opens a data directory that belongs to no cluster yet.
fn open_new(options: &Options) -> anyhow::Result<(Store, Settings)> {
    let dir = &options.data_dir;
    let store = open(dir)?;
    anyhow::ensure!(
        !identity::is_member(dir),
        "{} belongs to a cluster already: use 'vc-node run', or another --data-dir",
        dir.display()
    );
    Ok((store, named(options.settings.clone())))
}

fn open(dir: &Path) -> anyhow::Result<Store> {
    data_dir::open(dir)?;
    Ok(Store::open(dir)?)
}
