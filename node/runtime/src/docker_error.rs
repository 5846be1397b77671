//! Errors of the Docker engine, as one line for people.

use std::io;
use std::time::Duration;

use bollard::errors::Error;
use vc_protocol::image::DigestError;

use crate::one_line::one_line;

/// An error of the Docker engine, in one line.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The engine refused, or does not answer.
    #[error("{}", message(.0))]
    Engine(#[from] Error),
    /// The engine made no progress for this long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The engine named an image in another way than by a SHA-256 digest.
    #[error(transparent)]
    ImageId(#[from] DigestError),
    /// An image of a containerd image store could not be read.
    #[error("cannot read which image Docker has: {0}")]
    Identify(io::Error),
}

/// An engine that a node cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedEngine {
    /// It runs without root: its containers are in a network that this host does not reach.
    #[error(
        "the engine at {0} is rootless, so the node cannot reach the network of its containers; run Docker or podman as \
         root, and name its socket with --docker-host"
    )]
    Rootless(String),
}

/// Returns the HTTP status of the response; `None` when there was no response.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Reports whether the engine could not be reached, rather than refused.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    !matches!(
        error,
        Error::DockerResponseServerError { .. }
            | Error::DockerStreamError { .. }
            | Error::DockerContainerWaitError { .. }
            | Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
    )
}

/// Returns the engine's message, else the innermost cause.
pub(crate) fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } if is_out_of_subnets(message) => {
            "Docker has no address range left for another network; remove unused networks ('docker network prune') or \
             configure more ('default-address-pools' in /etc/docker/daemon.json)"
                .into()
        }
        Error::DockerResponseServerError { message, .. } if is_out_of_addresses(message) => {
            let network = message.rsplit("address pools:").next().unwrap_or_default();
            let network = network.split_whitespace().next().unwrap_or_default();
            format!(
                "network {network} has no address left on this node: run fewer instances of the project here"
            )
        }
        Error::DockerResponseServerError { message, .. } if lacks_rules(message) => {
            RULES_GONE.into()
        }
        Error::DockerResponseServerError { message, .. } => one_line(message),
        Error::DockerStreamError { error } => one_line(error),
        Error::SocketNotFoundError(_) => {
            "the socket does not exist; start Docker, or name another socket with --docker-host".into()
        }
        Error::UnsupportedURISchemeError { .. } => "unsupported address; write unix:///PATH or tcp://HOST:PORT".into(),
        Error::RequestTimeoutError => "no answer in time".into(),
        error => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            one_line(&cause.to_string())
        }
    }
}

/// Recognizes both messages for exhausted address pools: up to version 26, and from version 27 on.
fn is_out_of_subnets(message: &str) -> bool {
    ["non-overlapping IPv4 address pool", "predefined address pools have been fully subnetted"]
        .iter()
        .any(|text| message.contains(text))
}

/// Recognizes that all addresses of one network are in use.
fn is_out_of_addresses(message: &str) -> bool {
    message.contains("no available IPv4 addresses on this network's address pools")
}

/// Says that the chains of the engine are gone.
pub const RULES_GONE: &str = "the rules of Docker in iptables are gone, as after a flush or a restart of the firewall: restart Docker";

/// Recognizes that the chains of the engine are gone, which it makes only when it starts.
fn lacks_rules(message: &str) -> bool {
    message.contains("iptables") && message.contains("No chain/target/match by that name")
}

/// Texts of engines and kernels about what a host has run out of, in lower case.
const EXHAUSTED: [&str; 9] = [
    "no space left on device",
    "disk quota exceeded",
    "cannot allocate memory",
    "resource temporarily unavailable",
    "too many open files",
    // The kernel's limit of 1024 ports of a bridge.
    "exchange full",
    // The image store of this node.
    "the disk of this node is full",
    "not enough disk space",
    // The engine's own backend does not answer.
    "containerd.sock",
];

/// Returns whether an engine's message tells of a fault of its host, which the same request may not meet on another. A guess by
/// its text: a service can cause some of these itself, and then meets them everywhere.
pub(crate) fn is_node_fault(message: &str) -> bool {
    if is_out_of_subnets(message) || is_out_of_addresses(message) || lacks_rules(message) {
        return true;
    }
    let message = message.to_lowercase();
    EXHAUSTED.iter().any(|text| message.contains(text))
}

/// Returns the message of an engine's error as it came.
pub(crate) fn raw_message(error: &Error) -> &str {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        _ => "",
    }
}

/// Returns why a container could not be started, without the names of the components that passed the error on.
pub(crate) fn start_message(error: &Error) -> String {
    let text = message(error);
    // "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed:
    // unable to start container process: …: unknown"
    let text = text
        .rsplit_once("unable to start container process: ")
        .map_or(text.as_str(), |(_, last)| last);
    let text = text.strip_suffix(": unknown").unwrap_or(text);
    format!("Docker cannot start the container: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_error(message: &str) -> Error {
        Error::DockerResponseServerError { status_code: 500, message: message.to_owned() }
    }

    const FLUSHED: &str = "Failed to Setup IP tables: Unable to enable SKIP DNAT rule:  (iptables failed: iptables --wait -t nat -I \
                           DOCKER -i vc6auh47bmpjfwm -j RETURN: iptables: No chain/target/match by that name.\n (exit status 1))";

    #[test]
    fn rules_that_were_flushed_are_reported_with_the_way_out() {
        let said = super::message(&server_error(FLUSHED));
        assert!(said.ends_with("restart Docker"), "{said}");
    }

    #[test]
    fn exhausted_address_pools_are_reported_with_a_fix() {
        for message in [
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
            "all predefined address pools have been fully subnetted",
        ] {
            assert!(
                super::message(&server_error(message)).contains("docker network prune"),
                "{message}"
            );
        }
    }

    #[test]
    fn faults_of_the_host_are_told_from_those_of_the_container() {
        for message in [
            "all predefined address pools have been fully subnetted",
            "no available IPv4 addresses on this network's address pools: vc-a.default-x (f00)",
            "mkdir /var/lib/docker/overlay2/5e: no space left on device",
            "failed to create task: connection error: desc = \"dial unix /run/containerd/containerd.sock\"",
            "adding interface veth1 to bridge br-1 failed: exchange full",
            FLUSHED,
        ] {
            assert!(is_node_fault(message), "{message}");
        }
        for message in [
            "exec: \"nope\": executable file not found in $PATH",
            "invalid mount config for type \"bind\": bind source path does not exist: /srv",
            "Minimum memory limit allowed is 6MB",
            "driver failed programming external connectivity: port is already allocated",
        ] {
            assert!(!is_node_fault(message), "{message}");
        }
        let full =
            "no available IPv4 addresses on this network's address pools: vc-a.default-x (f00)";
        assert_eq!(
            super::message(&server_error(full)),
            "network vc-a.default-x has no address left on this node: run fewer instances of the project here"
        );
    }

    #[test]
    fn a_missing_program_is_reported_without_the_wrapping_errors() {
        let error = server_error(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"nope\": executable file \
             not found in $PATH: unknown",
        );
        let reason = start_message(&error);
        let expected = "Docker cannot start the container: error during container init: exec: \"nope\": executable file not found in \
                    $PATH";
        assert_eq!(reason, expected);
    }
}
