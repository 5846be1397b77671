//! Why no member could be reached, in one line.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;
use vc_protocol::ClusterId;

use super::auth::AuthError;
use crate::render::{list, one_line};

/// At most so many addresses are named in an error.
const MAX_NAMED: usize = 6;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// A member does not accept the token.
    #[error("the cluster refuses the token: {0}")]
    Refused(String),
    /// Nobody of the cluster answered.
    #[error(transparent)]
    Unreachable(Unreachable),
    /// This node cannot open connections at all.
    #[error("cannot open a connection: {0}")]
    Local(String),
}

/// What was tried, and how that went.
#[derive(Debug)]
pub(crate) struct Unreachable {
    pub(super) cluster: ClusterId,
    pub(super) attempts: Attempts,
    /// Whether the local network was asked.
    pub(super) asked_mdns: bool,
    /// Whether the user named the addresses.
    pub(super) given: bool,
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
        f.write_str(if self.given {
            "; is a node running there?"
        } else {
            "; is a node running? name one with --peer"
        })
    }
}

/// How each address failed. TCP and QUIC of one node count as one: what tells most about it stays.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<String, Reason>);

impl Attempts {
    /// Notes a failure.
    pub(super) fn add(&mut self, label: String, reason: Reason) {
        match self.0.get(&label) {
            Some(known) if known.weight >= reason.weight => {}
            _ => drop(self.0.insert(label, reason)),
        }
    }
}

/// Why one address failed.
#[derive(Debug)]
pub(super) struct Reason {
    /// How much it tells.
    weight: u8,
    text: String,
}

impl Reason {
    /// Nothing came back.
    pub(super) fn silent() -> Self {
        Self { weight: 0, text: "no answer".to_owned() }
    }

    /// Its name is unknown.
    pub(super) fn unknown_host(text: &str) -> Self {
        Self { weight: 2, text: text.to_owned() }
    }
}

impl From<&AuthError> for Reason {
    fn from(error: &AuthError) -> Self {
        Self { weight: 3, text: one_line(&error.to_string()) }
    }
}

impl From<&DialError> for Reason {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Transport(errors) => {
                errors.first().map_or_else(Self::silent, |(_, error)| match error {
                    TransportError::MultiaddrNotSupported(_) => {
                        Self { weight: 1, text: "an address of an unknown kind".to_owned() }
                    }
                    TransportError::Other(error) => of_io(error),
                })
            }
            DialError::WrongPeerId { .. } => {
                Self { weight: 3, text: "another node answers there".to_owned() }
            }
            DialError::LocalPeerId { .. } => {
                Self { weight: 3, text: "that is this program".to_owned() }
            }
            _ => Self::silent(),
        }
    }
}

/// libp2p wraps what the system said in several layers, of which not all name their source: the number of the system's
/// error is what they have in common.
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
    fn the_system_is_heard_through_the_layers() {
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
    fn one_line_says_what_was_tried() {
        let mut attempts = Attempts::default();
        let refused = || Reason { weight: 1, text: "connection refused".to_owned() };
        attempts.add("10.0.0.1:4777".to_owned(), refused());
        attempts.add("10.0.0.1:4777".to_owned(), Reason::silent());
        attempts.add("10.0.0.2:4777".to_owned(), Reason::silent());
        attempts.add("10.0.0.2:4777".to_owned(), Reason::from(&AuthError::OtherCluster));
        let error = Unreachable { cluster: cluster(), attempts, asked_mdns: true, given: false };
        let expected = format!(
            "cannot reach any node of cluster {}: tried 10.0.0.1:4777 (connection refused), 10.0.0.2:4777 (a node of \
             another cluster); none answered on the local network; is a node running? name one with --peer",
            cluster()
        );
        assert_eq!(error.to_string(), expected);

        let mut attempts = Attempts::default();
        (1..=20).for_each(|n| attempts.add(format!("10.0.0.{n}:1"), refused()));
        let error = Unreachable { cluster: cluster(), attempts, asked_mdns: false, given: true }
            .to_string();
        assert!(error.contains("and 14 more; is a node running there?"), "{error}");
    }
}
