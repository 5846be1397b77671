//! Connects to a member of a cluster and speaks the control protocol with it.
//!
//! [`connect`] (users) and [`join`] (new nodes) dial every candidate address at once (Happy Eyeballs, RFC 8305; QUIC
//! shortly after TCP) and use the first member that completes the handshake. [`handshake`] is the dialling side of
//! [`vc_protocol::auth`]; members use it alone, over the connections of their own swarm. [`frames`] is the codec of every
//! stream between nodes and clients.

pub mod address;
mod candidates;
mod error;
pub use vc_frames as frames;
pub mod handshake;
mod race;
mod session;
pub mod text;

use std::time::Duration;

use libp2p::Multiaddr;
use vc_protocol::auth::{AuthResponse, Credentials, JoinResponse};
use vc_protocol::{ClusterId, Keypair, Name};

pub use candidates::Candidates;
pub use error::{ConnectError, Unreachable};
pub use session::{SendStreamError, Session, SessionError};

use handshake::{Accepted, HandshakeError};
use race::Race;

/// Opens a session with the first member that accepts a user's token. Also returns addresses of members that it named.
///
/// # Errors
/// No member accepted the token within 10 s; nothing has changed in the cluster.
pub async fn connect(
    cluster: ClusterId,
    token: &str,
    candidates: Candidates,
) -> Result<(Session, Vec<Multiaddr>), ConnectError> {
    let limits = race::Limits {
        deadline: Duration::from_secs(10),
        after_refusal: Duration::from_secs(1),
        handshake: Duration::from_secs(5),
    };
    let credentials = Credentials::User { token: token.to_owned(), address: None };
    let race = Race::new(Keypair::generate_ed25519(), cluster, credentials, candidates, limits)?;
    let winner = race.run().await?;
    let Accepted { response, frames, node } = winner.accepted;
    let AuthResponse::User { peers, .. } = response else {
        return Err(ConnectError::Local(HandshakeError::Unexpected.to_string()));
    };
    Ok((Session::new(frames, node, winner.address, winner.swarm), peers))
}

/// Joins the cluster through the first of these members that admits the node with this key.
///
/// # Errors
/// No member admitted it within 20 s.
pub async fn join(
    key: Keypair,
    cluster: ClusterId,
    token: &str,
    name: &Name,
    members: &[Multiaddr],
) -> Result<JoinResponse, ConnectError> {
    // Workers refuse: a server further away may still admit it.
    let limits = race::Limits {
        deadline: Duration::from_secs(20),
        after_refusal: Duration::from_secs(20),
        handshake: Duration::from_secs(10),
    };
    let addresses = members.iter().filter_map(address::without_peer).collect();
    let credentials = Credentials::Join { token: token.to_owned(), name: name.clone() };
    let race = Race::new(key, cluster, credentials, Candidates::only(addresses), limits)?;
    match race.run().await?.accepted.response {
        AuthResponse::Joined(admission) => Ok(*admission),
        _ => Err(ConnectError::Local(HandshakeError::Unexpected.to_string())),
    }
}
