//! What Docker says, as reasons for people.

use bollard::errors::Error;
use vc_protocol::spec::ContainerSpec;

use crate::runtime::one_line;

/// The status of an answer; `None`: there was no answer.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine is out of reach, rather than unwilling.
pub(super) fn is_lost(error: &Error) -> bool {
    !matches!(
        error,
        Error::DockerResponseServerError { .. }
            | Error::DockerStreamError { .. }
            | Error::DockerContainerWaitError { .. }
            | Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
    )
}

/// An error in one line: what Docker said, else the innermost cause.
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => one_line(message),
        Error::DockerStreamError { error } => one_line(error),
        Error::SocketNotFoundError(_) => {
            "there is no such socket: start Docker, or name another with --docker-host".into()
        }
        Error::UnsupportedURISchemeError { .. } => "write unix:///PATH or tcp://HOST:PORT".into(),
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

/// Why a container could not be started.
pub(super) fn of_start(error: &Error, spec: &ContainerSpec) -> String {
    let text = of(error);
    if text.contains("port is already allocated") || text.contains("address already in use") {
        let named = |port: &u16| {
            let port = format!(":{port}");
            text.match_indices(&port)
                .map(|(at, _)| &text[at + port.len()..])
                .any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut ports: Vec<u16> = spec.ports.iter().map(|port| port.published).collect();
        ports.dedup();
        if let Some(port) =
            ports.iter().copied().find(|port| named(port)).or_else(|| ports.first().copied())
        {
            return format!("port {port} of this machine is in use: free it, or publish another");
        }
    }
    // "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed:
    // unable to start container process: …: unknown"
    let text = text
        .rsplit_once("unable to start container process: ")
        .map_or(text.as_str(), |(_, last)| last);
    let text = text.strip_suffix(": unknown").unwrap_or(text);
    format!("Docker cannot start it: {text}")
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{Port, PortProtocol};

    use super::*;

    fn said(message: &str) -> Error {
        Error::DockerResponseServerError { status_code: 500, message: message.to_owned() }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let port =
            |published| Port { host_ip: None, published, target: 80, protocol: PortProtocol::Tcp };
        let spec = ContainerSpec {
            ports: vec![port(80), port(8080), port(808)],
            ..ContainerSpec::default()
        };
        for message in [
            "failed to set up container networking: driver failed programming external connectivity on endpoint x \
             (ab): Bind for 0.0.0.0:8080 failed: port is already allocated",
            "driver failed programming external connectivity on endpoint x: failed to bind host port for \
             0.0.0.0:8080:172.17.0.2:90/tcp: address already in use",
        ] {
            let reason = of_start(&said(message), &spec);
            assert_eq!(reason, "port 8080 of this machine is in use: free it, or publish another");
        }
    }

    #[test]
    fn a_missing_program_is_told_without_the_layers_above() {
        let error = said(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"nope\": executable file \
             not found in $PATH: unknown",
        );
        let reason = of_start(&error, &ContainerSpec::default());
        let told = "Docker cannot start it: error during container init: exec: \"nope\": executable file not found in \
                    $PATH";
        assert_eq!(reason, told);
    }
}
