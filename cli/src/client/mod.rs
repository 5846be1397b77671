//! A client of the control protocol: finds a member that is there, proves that it is one, and talks with it.
//!
//! All addresses that may lead to a member are dialled at once (QUIC a moment after TCP), and the first that passes
//! authentication serves the session. No member is special; when every known one is gone, the local network is asked.

mod address;
mod auth;
mod dial;
mod failure;
mod known_peers;
mod session;

use libp2p::Multiaddr;
use vc_protocol::token::Claims;

pub(crate) use address::PeerList;
pub(crate) use failure::ConnectError;
pub(crate) use session::{FramesIn, FramesOut, Session, SessionError, expect_reply};

use crate::credentials::Credential;

/// At most so many addresses are dialled for one command. Each costs a socket and a handshake.
const MAX_CANDIDATES: usize = 64;

/// Where members may be.
pub(crate) struct Candidates {
    addresses: Vec<Multiaddr>,
    /// Whether the user named them: then no other is asked.
    given: bool,
}

impl Candidates {
    /// What the user named.
    pub(crate) fn given(addresses: Vec<Multiaddr>) -> Self {
        Self { addresses, given: true }
    }

    /// The member that a session is with.
    pub(crate) fn member(session: &Session) -> Self {
        Self::given(vec![session.address().clone()])
    }

    /// What is remembered of the token's cluster, best first, and what the token names.
    pub(crate) fn of(claims: &Claims) -> Self {
        let remembered = known_peers::load(claims.aud);
        let named = claims.peers.iter().filter_map(address::of_protocol);
        // Who answers there must prove to be of the cluster; which of its members it is does not matter, and a node
        // may have got a new identity. So the peer ids are dropped.
        let addresses = remembered
            .iter()
            .cloned()
            .chain(named)
            .filter_map(|it| address::without_peer(&it))
            .collect();
        Self { addresses, given: false }
    }
}

/// A session with the first member that welcomes the token. Errors: none did within ten seconds; nothing has changed.
pub(crate) async fn connect(
    credential: &Credential,
    candidates: Candidates,
) -> Result<Session, ConnectError> {
    let cluster = credential.claims.aud;
    let (session, peers) = dial::race(cluster, &credential.token, candidates).await?;
    // The command works without it: a home that is read-only is no reason to fail.
    let _ = known_peers::remember(cluster, session.address(), &peers);
    Ok(session)
}
