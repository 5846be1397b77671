//! Errors of the DNS server's rules and lookups.

use std::io;
use std::time::Duration;

/// The NAT rules are not in place, so that containers cannot resolve services.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// The Docker engine may run on another host, whose packets this host does not see.
    #[error("service names need a Docker engine on this host: give --docker-host a unix:// socket")]
    RemoteEngine,
    /// The program is not installed.
    #[error("'{program}' not found on this host: install iptables")]
    NotInstalled {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
    },
    /// The program did not start, or its output could not be read.
    #[error("cannot run {program}: {source}")]
    Run {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The program did not exit in time.
    #[error("{program} did not finish within {} s; another program may hold the xtables lock", limit.as_secs())]
    Timeout {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// How long it may run.
        limit: Duration,
    },
    /// The program exited with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// The first line of its error output.
        message: String,
    },
}

/// The container behind an address is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// The limit of lookups that wait for Docker is reached.
    #[error("too many container lookups at once (limit {limit})")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// Docker did not list its containers.
    #[error("Docker did not list its containers: {0}")]
    Docker(#[from] vc_runtime::DockerError),
}
