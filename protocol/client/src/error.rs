//! Why no member could be reached, in one line.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;
use vc_protocol::{ApiError, ClusterId, ErrorCode};

use crate::address::LookupError;
use crate::handshake::HandshakeError;
use crate::text::{list, one_line};

/// The most addresses that an error names.
const MAX_NAMED: usize = 6;

/// Why no member accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A member rejected the token, and no other accepted it.
    #[error("the cluster refuses the token: {reason}")]
    Refused {
        /// The reason that the member gave.
        reason: String,
        /// Whether that member has only reached a limit.
        busy: bool,
    },
    /// No member of the cluster answered.
    #[error(transparent)]
    Unreachable(Unreachable),
    /// This program cannot open connections, or the member broke the protocol.
    #[error("cannot open a connection: {0}")]
    Local(String),
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::Refused { busy: true, .. } => ErrorCode::ResourceExhausted,
            ConnectError::Refused { .. } => ErrorCode::Unauthenticated,
            ConnectError::Unreachable(_) => ErrorCode::Unavailable,
            ConnectError::Local(_) => ErrorCode::Internal,
        };
        let hint = match &error {
            ConnectError::Unreachable(unreachable) => unreachable.hint(),
            _ => "",
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// The addresses that were tried, and how each failed.
#[derive(Debug)]
pub struct Unreachable {
    pub(crate) cluster: ClusterId,
    pub(crate) attempts: Attempts,
    /// Whether mDNS was asked.
    pub(crate) asked_mdns: bool,
    /// Whether it could be; not when the user named the addresses.
    pub(crate) discover: bool,
}

impl Unreachable {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> &'static str {
        if self.discover {
            "is a node running? name one with --peer"
        } else {
            "is a node running there?"
        }
    }
}

impl Error for Unreachable {}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach any node of cluster {}: ", self.cluster)?;
        if self.attempts.0.is_empty() {
            f.write_str("no address is known")?;
        } else {
            let named =
                self.attempts.0.iter().map(|(label, why)| format!("{label} ({})", why.text));
            write!(f, "tried {}", list(named.collect(), MAX_NAMED))?;
        }
        if self.asked_mdns {
            f.write_str("; none answered on the local network")?;
        }
        Ok(())
    }
}

/// How each address failed. TCP and QUIC of one node count as one; the most informative reason is kept.
#[derive(Debug, Default)]
pub(crate) struct Attempts(BTreeMap<String, Reason>);

impl Attempts {
    /// Records a failure.
    pub(crate) fn add(&mut self, label: String, reason: Reason) {
        match self.0.get(&label) {
            Some(known) if known.weight >= reason.weight => {}
            _ => drop(self.0.insert(label, reason)),
        }
    }
}

/// Why one address failed.
#[derive(Debug)]
pub(crate) struct Reason {
    /// How informative it is: 0 (no answer) to 3 (a node answered).
    weight: u8,
    text: String,
}

impl Reason {
    /// Nothing answered.
    pub(crate) fn silent() -> Self {
        Self { weight: 0, text: "no answer".to_owned() }
    }
}

impl From<&LookupError> for Reason {
    fn from(error: &LookupError) -> Self {
        Self { weight: 2, text: error.to_string() }
    }
}

impl From<&HandshakeError> for Reason {
    fn from(error: &HandshakeError) -> Self {
        Self { weight: 3, text: one_line(&error.to_string()) }
    }
}

impl From<&DialError> for Reason {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Transport(errors) => {
                errors.first().map_or_else(Self::silent, |(_, error)| match error {
                    TransportError::MultiaddrNotSupported(_) => {
                        Self { weight: 1, text: "unsupported address".to_owned() }
                    }
                    TransportError::Other(error) => of_io(error),
                })
            }
            DialError::WrongPeerId { .. } => {
                Self { weight: 3, text: "another node answers there".to_owned() }
            }
            DialError::LocalPeerId { .. } => {
                Self { weight: 3, text: "it is this program".to_owned() }
            }
            _ => Self::silent(),
        }
    }
}

/// libp2p wraps the system's error in several layers, not all of which name their source: the error number in the text
/// is what they have in common.
fn of_io(error: &io::Error) -> Reason {
    let text = error.to_string();
    let code =
        text.split_once("(os error ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    let kind =
        code.map(|code| io::Error::from_raw_os_error(code).kind()).unwrap_or_else(|| error.kind());
    if kind == io::ErrorKind::TimedOut || text.to_ascii_lowercase().contains("time") {
        return Reason::silent();
    }
    let text = match kind {
        io::ErrorKind::Other => text.rsplit(": ").next().unwrap_or(&text).to_owned(),
        kind => kind.to_string(),
    };
    Reason { weight: 1, text: one_line(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterId {
        let root = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        ClusterId::of(&root.public()).expect("ed25519")
    }

    #[test]
    fn the_system_error_is_found_in_wrapped_errors() {
        let inner = io::Error::from_raw_os_error(111);
        let error = io::Error::other(format!("Transport error: Left(Left({inner}))"));
        assert_eq!(of_io(&error).text, "connection refused");
        assert_eq!(
            of_io(&io::Error::other("Handshake with the remote timed out.")).text,
            "no answer"
        );
        assert_eq!(of_io(&io::Error::other("noise: bad key")).text, "bad key");
    }

    #[test]
    fn an_unreachable_cluster_is_reported_with_every_attempt() {
        let mut attempts = Attempts::default();
        let refused = || Reason { weight: 1, text: "connection refused".to_owned() };
        attempts.add("10.0.0.1:4777".to_owned(), refused());
        attempts.add("10.0.0.1:4777".to_owned(), Reason::silent());
        attempts.add("10.0.0.2:4777".to_owned(), Reason::silent());
        attempts.add("10.0.0.2:4777".to_owned(), Reason::from(&HandshakeError::OtherCluster));
        let error = Unreachable { cluster: cluster(), attempts, asked_mdns: true, discover: true };
        let error = ApiError::from(ConnectError::Unreachable(error));
        let expected = format!(
            "cannot reach any node of cluster {}: tried 10.0.0.1:4777 (connection refused), 10.0.0.2:4777 (a node of \
             another cluster); none answered on the local network",
            cluster()
        );
        assert_eq!(error.message, expected);
        assert_eq!(error.hint, "is a node running? name one with --peer");
        assert_eq!(error.code, ErrorCode::Unavailable);

        let mut attempts = Attempts::default();
        (1..=20).for_each(|n| attempts.add(format!("10.0.0.{n}:1"), refused()));
        let error =
            Unreachable { cluster: cluster(), attempts, asked_mdns: false, discover: false };
        assert!(error.to_string().ends_with("and 14 more"), "{error}");
        assert_eq!(error.hint(), "is a node running there?");
    }
}
