//! Errors of the Docker engine, as one line for people.

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
