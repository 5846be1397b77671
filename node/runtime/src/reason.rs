//! What Docker says, as reasons for people.

use bollard::errors::Error;

use crate::text::one_line;

/// The status of an answer; `None`: there was no answer.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine is out of reach, rather than unwilling.
pub(crate) fn is_lost(error: &Error) -> bool {
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
pub(crate) fn of(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } if is_out_of_subnets(message) => {
            "Docker has no addresses left for another network: remove networks that nobody uses ('docker network \
             prune'), or give it more ('default-address-pools' in /etc/docker/daemon.json)"
                .into()
        }
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

/// Docker's two ways to say that every address pool is in use, up to and from version 27.
fn is_out_of_subnets(message: &str) -> bool {
    ["non-overlapping IPv4 address pool", "predefined address pools have been fully subnetted"]
        .iter()
        .any(|said| message.contains(said))
}

/// Why a container could not be started.
pub(crate) fn of_start(error: &Error) -> String {
    let text = of(error);
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
    use super::*;

    fn said(message: &str) -> Error {
        Error::DockerResponseServerError { status_code: 500, message: message.to_owned() }
    }

    #[test]
    fn a_lack_of_addresses_says_what_to_do() {
        for message in [
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
            "all predefined address pools have been fully subnetted",
        ] {
            assert!(of(&said(message)).contains("docker network prune"), "{message}");
        }
    }

    #[test]
    fn a_missing_program_is_told_without_the_layers_above() {
        let error = said(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: error during container init: exec: \"nope\": executable file \
             not found in $PATH: unknown",
        );
        let reason = of_start(&error);
        let told = "Docker cannot start it: error during container init: exec: \"nope\": executable file not found in \
                    $PATH";
        assert_eq!(reason, told);
    }
}
