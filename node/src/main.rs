//! `vc-node`: a node of a Virtual Cluster.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};
use vc_node::args::{Cli, Command, DataDir, LogFormat};
use vc_node::log_writer::EscapeControls;
#[cfg(feature = "otlp")]
use vc_node::otlp::Exporter;

/// Nothing is exported.
#[cfg(not(feature = "otlp"))]
type Exporter = std::convert::Infallible;

/// Limit of open files that a node requests.
const MAX_OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    // Confines and becomes rsync.
    if let Some(code) = vc_volumes::helper::run(std::env::args_os()) {
        return code;
    }
    let cli = Cli::parse();
    let _exporter = log(&cli.command);
    vc_node::hide_token(&cli.command);
    // It has one thread, and no descriptors to speak of.
    if let Command::Watchdog(DataDir { data_dir }) = &cli.command {
        return match vc_watchdog::run(data_dir, vc_node::VERSION) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&anyhow::Error::new(error).context("cannot run the watchdog")),
        };
    }
    // Connections and log files need more than the usual 1024.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let current = files.maximum.map_or(MAX_OPEN_FILES, |most| most.min(MAX_OPEN_FILES));
    let more = rustix::process::Rlimit { current: Some(current), maximum: files.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, more) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    // One thread: the load is small, and waking other threads would cost an idle node more. Disk access has its own pool.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&anyhow::Error::new(error).context("cannot start the async runtime"));
        }
    };
    let format = cli.command.log_format();
    let result = runtime.block_on(vc_node::start(cli.command));
    // Blocked disk or network operations must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(switch)) => {
            let error = switch.perform(format);
            fail(&anyhow::Error::new(error).context("cannot switch to the new program"))
        }
        Err(error) => fail(&error),
    }
}

#[allow(clippy::print_stderr, reason = "a failed command prints one line")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Logs to stderr, and exports spans if that is built in and the environment says so, until the returned value is dropped.
fn log(command: &Command) -> Option<Exporter> {
    // Yamux logs what its peer does wrong, which any peer may repeat.
    let quiet = "info,libp2p=warn,libp2p_yamux=error,yamux=off,libp2p_mdns=error,libp2p_gossipsub=error,libp2p_kad=error,automerge=warn,is=error";
    let filter = EnvFilter::try_from_env("VC_LOG").unwrap_or_else(|_| EnvFilter::new(quiet));
    let format = command.log_format();
    let ansi = format == LogFormat::Text && std::io::stderr().is_terminal();
    let writer = EscapeControls { inner: std::io::stderr, ansi };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(ansi).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    #[cfg(feature = "otlp")]
    if command.is_node()
        && let Some((spans, exporter)) = vc_node::otlp::from_environment()
    {
        log.with(spans).init();
        return Some(exporter);
    }
    log.init();
    None
}
