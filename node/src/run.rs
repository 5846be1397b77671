//! Starts the tasks of a node and connects them.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::BoxFuture;
use libp2p::multiaddr::Protocol;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::Input;
use vc_engine::routes::Routes;
use vc_protocol::wire::{LEASE_PROTOCOL, SYNC_PROTOCOL};
use vc_protocol::{Multiaddr, NodeId};
use vc_runtime::images::Images;
use vc_runtime::{self as runtime, Runtime};

use crate::alerts::{self, AlertSender};
use crate::api::{Cluster, ControlService, Forwarder, Planner};
use crate::audit::{self, Audit, AuditLogs, Recorder};
use crate::auth::{AuthMetrics, AuthServer, TokenVerifier};
use crate::backups::{Backups, Schedule};
use crate::bandwidth::Bandwidth;
use crate::disk::Reserve;
use crate::dns::{self, DnsServer};
use crate::driver::{Driver, DriverContext, DriverMetrics};
use crate::driver_message::{DRIVER_QUEUE, DriverMessage};
use crate::events::{EventRecorder, EventServer, Events};
use crate::exec::Execs;
use crate::files::{FileClient, FileServer};
use crate::http::Http;
use crate::identity::{self, Membership};
use crate::logs::Logs;
use crate::metrics::{FailoverMetrics, MetricsListener, MetricsToken};
use crate::network::connection_gater::ConnectionGater;
use crate::network::message_streams::{self, MessageStreams};
use crate::network::{self, Network};
use crate::proxy::{self, Connections, HostPorts, Ingress, Router};
use crate::restart::{self, Traffic};
use crate::settings::{self, RuntimeChoice, Settings};
use crate::snapshot::Snapshot;
use crate::stop_signals::{StopSignal, StopSignals};
use crate::trust::{Admitted, SigningKeys};
use crate::upgrade::{Guarded, Switch, Upgrades};
use crate::usage::{Sampler, UsageServer, Usages};
use crate::volumes::{Supervisor, VolumeServer, Volumes};
use crate::{
    admin_token, console, host, images, metrics, node_info, readiness, service_manager, upgrade,
    volumes, watchdog,
};
use vc_store::Store;

/// Runtime events that may wait for the driver; the runtime waits when the queue is full.
const RUNTIME_EVENTS: usize = 256;
/// Time for the answer to a request that restarts the node to be on its way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Reports of publish errors that may wait for the driver.
const PUBLISH_REPORTS: usize = 16;

/// How a node starts.
pub(crate) enum Start {
    /// It founds a cluster, whose membership is to be saved.
    Founds,
    /// It is a member.
    Member,
    /// It is a member that was just upgraded and has a guard. A signal during its start is none of its program's failures, so it is received
    /// from the first.
    Upgraded(Guarded, StopSignals),
}

/// Runs a node until it is stopped by SIGTERM, which announces a restart, or SIGINT, or has left the cluster, or is to switch to another
/// program, which it returns. Remembers the `settings`. `peers` are addresses of members.
///
/// # Errors
/// The node could not start, or a task of it failed.
pub(crate) async fn run(
    dir: &Path,
    settings: Settings,
    membership: Membership,
    peers: Vec<Multiaddr>,
    store: Store,
    start: Start,
) -> anyhow::Result<Option<Switch>> {
    let membership = Arc::new(membership);
    let gater = ConnectionGater::default();
    gater.admit(membership.node.peer_id());
    let (driver, events) = mpsc::channel(DRIVER_QUEUE);
    let config = network::Config {
        name: settings.name.clone().unwrap_or_else(node_info::default_name),
        listen: settings.listen(),
        port: settings.port(),
        certificate: identity::webrtc_certificate(dir)?,
        advertise: settings.advertise,
        mdns: !settings.no_mdns,
    };
    #[cfg(feature = "otlp")]
    crate::otlp::identify(&membership.node, config.name.as_str(), &membership.cluster);
    let (mut network, handles) =
        Network::listen(config, Arc::clone(&membership), gater.clone(), driver.clone()).await?;
    let addresses = network.ready().await?;
    let schedule = Schedule::of(&settings, membership.root.is_some(), dir)?;
    // Not before: settings that it cannot start with are not remembered, and without a free port there is no cluster.
    settings::save(dir, &settings)?;
    let (init, mut guarded, signals) = match start {
        Start::Founds => (true, None, None),
        Start::Member => (false, None, None),
        Start::Upgraded(guarded, signals) => (false, Some(guarded), Some(signals)),
    };
    if init {
        identity::save(dir, &membership, &[])?;
        store.persist(&vc_engine::Durable {
            certificates: vec![membership.credentials.certificate()],
            ..vc_engine::Durable::default()
        })?;
        identity::write_admin_token(dir, &membership, &addresses)?;
        tracing::info!(node = %membership.node, cluster = %membership.cluster, "cluster created");
    }
    let name = settings.name.clone().unwrap_or_else(node_info::default_name).to_string();
    let metrics_token = settings.metrics.map(|_| MetricsToken::load(dir)).transpose()?;
    let metrics_listener = settings.metrics.zip(metrics_token);
    let (audit, audited) = Audit::new(membership.node, name);

    let docker = runtime::docker::host(settings.docker_host.clone());
    let docker = (settings.runtime() == RuntimeChoice::Docker).then_some(docker);
    if let Some(host) = &docker {
        runtime::docker::check_engine(host).await?;
    }
    let open = images::open_stream(handles.controls.members.clone());
    let images = Images::with_peers(dir, docker.as_deref(), open)
        .with_context(|| format!("cannot store images in {}", dir.display()))?;
    let (runtime_events, from_runtime) = mpsc::channel(RUNTIME_EVENTS);
    let latest = Arc::new(OnceLock::new());
    let runtime_config = match settings.runtime() {
        RuntimeChoice::Docker => {
            let members = handles.controls.members.clone();
            let files = FileClient::new(Arc::clone(&membership), Arc::clone(&latest), members);
            let files = Arc::new(files);
            let open = Arc::new(move |request| -> BoxFuture<'static, _> {
                let files = Arc::clone(&files);
                Box::pin(async move { files.open(request).await })
            });
            let (host, images) = (settings.docker_host.clone(), images.clone());
            let find_volume = volumes::find(membership.node, Arc::clone(&latest));
            let dns = Arc::new(|| dns::container_servers(Path::new(dns::RESOLV_CONF)));
            runtime::Config::Docker(runtime::docker::Config {
                host,
                open,
                memory: None,
                data_dir: dir.to_owned(),
                images,
                pool: settings.network_pool.unwrap_or_default(),
                dns,
                find_volume,
            })
        }
        RuntimeChoice::Process => {
            runtime::Config::Process(runtime::process::Config { dir: dir.to_owned() })
        }
    };
    let connections = Connections::default();
    let identity = runtime::Identity { cluster: membership.cluster, node: membership.node };
    let drain = Arc::new(connections.clone());
    let watchdog = watchdog::start(dir)?;
    let runtime = Runtime::start(runtime_config, identity, drain, watchdog.clone(), runtime_events);
    let bandwidth = Bandwidth::new(settings.volume_bandwidth, Instant::now());
    let volumes = Volumes::new(bandwidth.clone());
    let sync_streams = MessageStreams::new(handles.controls.members.clone(), SYNC_PROTOCOL);
    let lease_streams = MessageStreams::new(handles.controls.members.clone(), LEASE_PROTOCOL);
    let (driver_metrics, auth_metrics) = (DriverMetrics::new(), AuthMetrics::default());
    let (failovers, served_images) = (FailoverMetrics::new(), images.clone());
    let (deliveries, to_deliver) = mpsc::channel(alerts::DELIVERIES);
    let allows_commands = settings.allow_notify_commands;
    let failed_upgrade = upgrade::take_failed(dir);
    let mut info = node_info::info(&settings, addresses.clone());
    info.failed_upgrade = failed_upgrade.as_ref().map(upgrade::describe).unwrap_or_default();
    let (upgrades, mut switches) =
        Upgrades::new(dir, membership.node, !settings.no_remote_upgrade, failed_upgrade)?;
    // The guard would take another switch before the node is ready for a failure.
    let mut upgrading = guarded.as_ref().and_then(|_| upgrades.permit().ok());
    let parts = DriverContext {
        membership: Arc::clone(&membership),
        info,
        nonce: getrandom::u64()?,
        network: handles.commands.clone(),
        sync_streams,
        lease_streams,
        runtime: runtime.clone(),
        watchdog: watchdog.clone(),
        volumes: volumes.clone(),
        gater: gater.clone(),
        audit: audit.clone(),
        reserve: Reserve::new(dir),
        alerts: deliveries,
        metrics: driver_metrics.clone(),
    };
    let (engine, mut snapshot) = Driver::new(parts, store, events, watchdog.inherited().await)?;
    latest.get_or_init(|| snapshot.clone());

    let first = Routes::of(&snapshot.borrow().view);
    let (table, routes) = watch::channel(Arc::new(first));
    let members = handles.controls.members.clone();
    let router = Router::new(membership.node, routes, connections, members, bandwidth);

    for (node, address) in peers.into_iter().filter_map(with_node) {
        handles.commands.send(network::Command::Addresses(node, vec![address])).await?;
    }
    let verifier = TokenVerifier {
        cluster: membership.cluster,
        snapshot: snapshot.clone(),
        audit: audit.clone(),
    };
    let members = handles.controls.members.clone();
    let execs = Execs::new(membership.node, verifier.clone(), runtime.clone(), members);
    let docker = match &runtime {
        Runtime::Docker(docker) => Some(docker.clone()),
        Runtime::Process(_) => None,
    };
    let logs = Logs {
        node: membership.node,
        verifier: verifier.clone(),
        runtime: runtime.clone(),
        members: handles.controls.members.clone(),
    };
    let (sink, own) = if membership.root.is_some() {
        let (written, changed) = watch::channel(0);
        let log = dir.join(audit::LOG);
        (audit::Sink::Log(log.clone(), written), Some((log, changed)))
    } else {
        let members = handles.controls.members.clone();
        (audit::Sink::Server(audit::Reporter { members, snapshot: snapshot.clone() }), None)
    };
    let recorder = Recorder { queue: audited, sink, driver: driver.clone() };
    let members = handles.controls.members.clone();
    let audit_logs = AuditLogs::new(audit.clone(), own, verifier.clone(), members);
    let (event_log, events) = Events::new();
    let usages = Usages::new(membership.node, handles.controls.members.clone());
    let alerts = AlertSender::new(Arc::clone(&membership), snapshot.clone(), allows_commands);
    let api = ControlService {
        cluster: Cluster::new(Arc::clone(&membership), snapshot.clone(), driver.clone()),
        forwarder: Forwarder::new(
            membership.cluster,
            snapshot.clone(),
            handles.controls.auth.clone(),
        ),
        planner: Planner::default(),
        logs: logs.clone(),
        execs: execs.clone(),
        images: images.clone(),
        runtime: runtime.clone(),
        events: events.clone(),
        audit: audit.clone(),
        audit_logs: audit_logs.clone(),
        http: Http::new(router.clone(), snapshot.clone()),
        volumes: volumes.clone(),
        usages: usages.clone(),
        alerts: alerts.clone(),
        upgrades,
    };
    let members = handles.controls.members.clone();
    let admitted = Admitted::default();
    let signing_keys = SigningKeys::new(
        Arc::clone(&membership),
        snapshot.clone(),
        driver.clone(),
        members,
        admitted.clone(),
    );
    let auth = AuthServer {
        membership: Arc::clone(&membership),
        gater,
        driver: driver.clone(),
        snapshot: snapshot.clone(),
        verifier,
        admitted,
        metrics: auth_metrics.clone(),
    };

    let commands = handles.commands;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(network.run());
    tasks.spawn(engine.run());
    tasks.spawn(alerts.run(to_deliver, driver.clone()));
    tasks.spawn(recorder.run());
    tasks.spawn(audit_logs.serve(handles.streams.audit));
    tasks.spawn(auth.serve(handles.streams.auth, move |user, frames| {
        let api = api.clone();
        async move { api.serve(user, frames).await }
    }));
    tasks.spawn(message_streams::accept(handles.streams.sync, driver.clone(), Input::Sync));
    tasks.spawn(message_streams::accept(handles.streams.lease, driver.clone(), Input::Lease));
    tasks.spawn(signing_keys.clone().serve(handles.streams.trust));
    tasks.spawn(signing_keys.run());
    tasks.spawn(logs.serve(handles.streams.logs));
    tasks.spawn(execs.serve(handles.streams.exec));
    tasks.spawn(EventServer { events }.serve(handles.streams.events));
    tasks.spawn(Sampler::new(&usages, runtime.clone()).run());
    tasks.spawn(UsageServer { usages: usages.clone() }.serve(handles.streams.usage));
    let files = FileServer {
        membership: Arc::clone(&membership),
        snapshot: snapshot.clone(),
        audit: audit.clone(),
    };
    tasks.spawn(files.serve(handles.streams.files));
    let (views, changing) = watch::channel(Arc::clone(&snapshot.borrow().view));
    tasks.spawn(images::follow(snapshot.clone(), views));
    tasks.spawn(images.run(membership.node, handles.streams.image, changing));
    tasks.spawn(host::watch(dir.to_owned(), docker.clone(), driver.clone()));
    tasks.spawn(watchdog::report_problems(watchdog.problem(), driver.clone()));
    tasks.spawn(service_manager::keep_alive());
    let token =
        admin_token::follow_members(dir.to_owned(), Arc::clone(&membership), snapshot.clone());
    tasks.spawn(token);
    tasks.spawn(forward(from_runtime, driver.clone(), Input::Runtime));
    tasks.spawn(proxy::maintain_routes(snapshot.clone(), table));
    let events = EventRecorder {
        node: membership.node,
        dir: dir.to_owned(),
        snapshot: snapshot.clone(),
        log: event_log,
        members: handles.controls.members.clone(),
    };
    tasks.spawn(events.run());
    if let Some(schedule) = schedule {
        let (membership, driver) = (Arc::clone(&membership), driver.clone());
        let addresses = settings.own_addresses();
        tasks.spawn(Backups { schedule, membership, addresses, driver }.run());
    }
    let copies = Supervisor {
        volumes: volumes.clone(),
        dir: dir.to_owned(),
        node: membership.node,
        runtime: runtime.clone(),
        members: handles.controls.members.clone(),
        driver: driver.clone(),
        snapshot: snapshot.clone(),
    };
    tasks.spawn(copies.run());
    tasks.spawn(VolumeServer { volumes: volumes.clone() }.serve(handles.streams.volume));
    tasks.spawn(proxy::serve_member_streams(router.clone(), handles.streams.route));
    tasks.spawn(failovers.clone().watch(snapshot.clone()));
    let sources = metrics::Sources {
        cluster: membership.cluster,
        node: membership.node,
        snapshot: snapshot.clone(),
        volumes: volumes.clone(),
        usages,
        router: router.clone(),
        images: served_images,
        driver: driver_metrics,
        auth: auth_metrics,
        failovers,
    };
    let registries = Arc::new(sources.registries());
    let write_metrics = || {
        let registries = Arc::clone(&registries);
        Box::new(move |format| metrics::in_format(registries.as_slice(), format))
    };
    let check_readiness = || {
        let (latest, node) = (snapshot.clone(), membership.node);
        Box::new(move || {
            let latest = latest.borrow().clone();
            readiness::problem(&latest.view, &latest.vitals, node)
        })
    };
    if !settings.no_console {
        console::serve(settings.port(), write_metrics(), check_readiness()).await;
    }
    if let Some((address, token)) = metrics_listener {
        let listener = MetricsListener::new(token, write_metrics(), check_readiness());
        tasks.spawn(listener.serve(address));
    }
    let mut signals = match signals {
        Some(signals) => signals,
        None => StopSignals::new()?,
    };
    let mut traffic =
        Traffic { router: router.clone(), names: None, ingress: None, host_ports: None };
    // Child processes bind their ports themselves and use the host's resolver.
    if let Some(docker) = docker {
        let (table, rules_of) = (router.table(), docker.clone());
        let mut left = restart::take_sockets(dir).await;
        let config = dns::Config::default();
        let started = DnsServer::start(config, docker, table, router.clone(), &mut left).await;
        let names = started.context("cannot start the DNS server")?;
        tasks.spawn(report_dns(names.problem(), driver.clone()));
        traffic.names = Some(names);
        let (problems, from_ingress) = mpsc::channel(PUBLISH_REPORTS);
        let (stop, (sockets, stopped)) = (CancellationToken::new(), oneshot::channel());
        let ingress = Ingress::new(router.clone(), problems, left);
        traffic.host_ports = Some(HostPorts::start(rules_of, &router, ingress.host_ports()));
        let ingress = ingress.run(stop.clone());
        tasks.spawn(async move { drop(sockets.send(ingress.await)) });
        traffic.ingress = Some((stop, stopped));
        tasks.spawn(forward(from_ingress, driver.clone(), Input::Ports));
    }

    let mut last = snapshot.clone();
    let ready = announce(&membership, &mut snapshot);
    tokio::pin!(ready);
    let mut announced = false;
    let mut restarts = false;
    let mut switch = None;
    loop {
        tokio::select! {
            result = &mut ready, if !announced => {
                announced = true;
                result?;
                service_manager::ready();
                if let Some(guarded) = guarded.take() {
                    guarded.ready();
                    service_manager::restore_watchdog();
                }
                drop(upgrading.take());
            }
            Some(pending) = switches.recv() => {
                // The client hears of it before its connection ends.
                let _ = timeout(ANSWER_TIMEOUT, pending.answered.cancelled()).await;
                tracing::info!(version = pending.switch.version(), "upgrading: restarting with another program");
                (restarts, switch) = (true, Some(pending.switch));
                break;
            }
            stop = signals.receive() => {
                restarts = stop == StopSignal::Terminate;
                break;
            }
            Ok(ended) = last.wait_for(|snapshot| snapshot.left || snapshot.duplicate.is_some()) => {
                if let Some(reason) = ended.duplicate.as_deref() {
                    anyhow::bail!(
                        "{reason}: stop that one, or let this host join as a node of its own with another --data-dir"
                    );
                }
                identity::delete(dir)?;
                tracing::info!("left the cluster: its keys are deleted, the data directory can be removed");
                break;
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a task of the node panicked")?;
                anyhow::bail!("a task of the node ended unexpectedly: see the log");
            }
        }
    }
    if let Some(guarded) = guarded {
        guarded.stopped();
    }
    // To systemd, a switch is no stop: the process stays.
    if switch.is_none() {
        service_manager::stopping();
    }
    if !last.borrow().left {
        tracing::info!("stopping: instances keep running");
    }
    let others = last.borrow().view.nodes.len() > 1;
    if restarts && !last.borrow().left {
        tokio::select! {
            () = restart::prepare(dir, driver, others, traffic) => {}
            _ = signals.receive() => switch = None,
        }
    } else {
        if let Some(names) = traffic.names {
            names.stop().await;
        }
        if let Some(host_ports) = traffic.host_ports {
            host_ports.stop().await;
        }
    }
    audit.flush().await;
    let (closed, is_closed) = oneshot::channel();
    let close = async {
        if commands.send(network::Command::Close(closed)).await.is_ok() {
            let _ = is_closed.await;
        }
    };
    let _ = timeout(network::CLOSE_TIMEOUT * 2, close).await;
    // A node that was told to stop meanwhile does not go on with another program.
    Ok(switch.filter(|_| !signals.is_pending()))
}

/// Waits until this node's document is that of this run, then prints `ready <multiaddr>` lines to stdout, of the addresses
/// that it has by then: they may have changed since the start.
async fn announce(
    membership: &Membership,
    snapshot: &mut watch::Receiver<Snapshot>,
) -> anyhow::Result<()> {
    let own = |snapshot: &Snapshot| snapshot.view.nodes.get(&membership.node).cloned();
    let before = own(&snapshot.borrow()).map_or(0, |state| state.incarnation);
    let present = |snapshot: &Snapshot| own(snapshot).is_some_and(|it| it.incarnation > before);
    let info = own(&*snapshot.wait_for(present).await?).and_then(|state| state.info);
    let addresses = info.map(|info| info.addresses).unwrap_or_default();
    let lines = addresses.iter().map(|address| {
        let address = address.clone().with(Protocol::P2p(membership.node.peer_id()));
        format!("ready {address}\n")
    });
    // Ignored: the process that started the node may have closed the pipe.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.collect::<String>().as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// Splits off the peer id at the end of an address.
fn with_node(address: Multiaddr) -> Option<(NodeId, Multiaddr)> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some((NodeId::try_from(peer).ok()?, address)),
        _ => None,
    }
}

/// Reports to the driver when containers cannot resolve services, and when they can again.
async fn report_dns(
    mut problem: watch::Receiver<Option<String>>,
    driver: mpsc::Sender<DriverMessage>,
) {
    while problem.changed().await.is_ok() {
        let why = problem.borrow_and_update().clone();
        if driver.send(DriverMessage::DnsProblem(why)).await.is_err() {
            return;
        }
    }
}

/// Passes on events to the driver as inputs.
async fn forward<T>(
    mut from: mpsc::Receiver<T>,
    driver: mpsc::Sender<DriverMessage>,
    input: fn(T) -> Input,
) {
    while let Some(event) = from.recv().await {
        if driver.send(DriverMessage::Input(input(event))).await.is_err() {
            return;
        }
    }
}
