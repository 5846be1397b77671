//! Errors of the DNS server's rules and lookups.

use crate::iptables::IptablesError;

/// The NAT rules are not in place, so that containers cannot resolve services.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// The Docker engine may run on another host, whose packets this host does not see.
    #[error("service names need a Docker engine on this host: give --docker-host a unix:// socket")]
    RemoteEngine,
    /// A command failed.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
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
