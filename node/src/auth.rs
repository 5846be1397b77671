//! Proving who one is, from both sides: see [`vc_protocol::auth`].

mod room;

use std::sync::Arc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_engine::Input;
use vc_protocol::auth::{
    AuthResponse, ClientHello, Credentials, JoinResponse, MAX_AUTH_FRAME, ServerHello,
};
use vc_protocol::token::{
    NodeRole, Scope, TokenError, issue_certificate, verify, verify_certificate,
};
use vc_protocol::{Name, NodeId};

use crate::api::{self, Audience, ControlService};
use crate::driver::Event;
use crate::frames::{FrameError, Frames};
use crate::identity::Membership;
use crate::network::gate::Gate;
use crate::network::inbound::Incoming;

use room::{Hall, Place, Refusal, Seat, Seats};

/// From the first byte to the welcome.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a peer did not let us in, or is not who it should be.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The stream broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It took too long.
    #[error("the node did not answer in time")]
    TimedOut,
}

/// The listener's side.
#[derive(Clone)]
pub(crate) struct Porter {
    pub(crate) membership: Arc<Membership>,
    pub(crate) gate: Gate,
    pub(crate) driver: mpsc::Sender<Event>,
    pub(crate) session: ControlService,
}

impl Porter {
    /// Takes auth streams, a task each: strangers within their bounds, so that they cannot keep users out.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        // However many strangers are here, members do not wait among them.
        let (strangers, members) = (Hall::default(), Hall::default());
        let seats = Seats::default();
        while let Some((peer, stream)) = streams.recv().await {
            let hall = if self.gate.is_member(&peer) { &members } else { &strangers };
            let Some(place) = hall.enter(peer) else {
                tracing::debug!(%peer, "too many streams of one peer; this one is turned away");
                continue;
            };
            let (porter, seats) = (self.clone(), seats.clone());
            tokio::spawn(async move {
                match porter.meet(peer, stream, place, &seats).await {
                    Ok(()) => {}
                    // A client that dials several nodes and takes the first hangs up on the rest.
                    Err(AuthError::Frame(FrameError::Io(error))) => {
                        tracing::debug!(%peer, %error, "a peer hung up")
                    }
                    Err(AuthError::Frame(FrameError::Closed)) => {
                        tracing::debug!(%peer, "a peer hung up")
                    }
                    Err(error) => tracing::warn!(%peer, %error, "a peer was not let in"),
                }
            });
        }
    }

    async fn meet(
        &self,
        peer: PeerId,
        stream: Stream,
        mut place: Place,
        seats: &Seats,
    ) -> Result<(), AuthError> {
        let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
        let greet = async {
            let ClientHello { .. } = frames.receive().await?;
            frames.send(&ServerHello { certificate: self.membership.certificate.clone() }).await?;
            frames.receive::<Credentials>().await
        };
        let hello = tokio::select! {
            said = timeout(PATIENCE, greet) => said.map_err(|_| AuthError::TimedOut)??,
            _ = &mut place.sent_away => return Err(AuthError::TimedOut),
        };
        let answer = match hello {
            Credentials::Member { certificate } => {
                let known = self.meet_member(peer, certificate).await;
                known.map(|known| (AuthResponse::Member { known }, None)).map_err(Refusal::from)
            }
            Credentials::Join { token, name } => {
                let admission = self.admit(peer, &token, &name).await;
                admission
                    .map(|it| (AuthResponse::Joined(Box::new(it)), None))
                    .map_err(Refusal::from)
            }
            Credentials::User { token } => self.user(&token, seats).map(|(user, seat)| {
                let peers = self.session.peer_addresses(Audience::User);
                (AuthResponse::User { role: user.role, peers }, Some((user, seat)))
            }),
        };
        let refused = answer.as_ref().err().map(|refusal| refusal.reason.clone());
        let (welcome, session) = answer.unwrap_or_else(|Refusal { reason, busy }| {
            (AuthResponse::Refused { reason, busy }, None)
        });
        let say = async {
            frames.send(&welcome).await?;
            if session.is_none() {
                frames.close().await?;
            }
            Ok::<(), FrameError>(())
        };
        // Who does not take what he is told is not waited for.
        timeout(PATIENCE, say).await.map_err(|_| AuthError::TimedOut)??;
        drop(place);
        if let Some((user, _seat)) = session {
            self.session.serve(user, frames).await;
        }
        refused.map_or(Ok(()), |reason| Err(AuthError::Refused(reason)))
    }

    /// A member introduces itself; `true`: it was known.
    async fn meet_member(&self, peer: PeerId, certificate: String) -> Result<bool, TokenError> {
        let node = NodeId::try_from(peer).map_err(|_| TokenError::WrongNode)?;
        verify_certificate(&certificate, self.membership.cluster, Some(node))?;
        let known = self.gate.is_member(&peer);
        if !known {
            let _ = self.driver.send(Event::Input(Input::Certificate(certificate))).await;
            self.gate.admit(peer);
        }
        Ok(known)
    }

    /// A node wants to join.
    async fn admit(&self, peer: PeerId, token: &str, name: &Name) -> Result<JoinResponse, String> {
        let claims = verify(token, self.membership.cluster, crate::now())
            .map_err(|error| error.to_string())?;
        let Scope::Join(role) = claims.scope else {
            let error = TokenError::WrongScope { found: claims.scope.kind(), wanted: "node" };
            return Err(error.to_string());
        };
        let root = self
            .membership
            .root
            .as_ref()
            .ok_or("this node is a worker and cannot admit nodes: join through a server")?;
        let node = NodeId::try_from(peer).map_err(|error| error.to_string())?;
        let certificate =
            issue_certificate(root, node, role, crate::now()).map_err(|error| error.to_string())?;
        // Durable here before it is promised there: every other member learns of it from us if need be.
        let (certificates, peers) =
            self.session.introduce(certificate.clone()).await.map_err(|error| error.to_string())?;
        self.gate.admit(peer);
        tracing::info!(node = %node, name = %name, token = claims.jti, ?role, "a node joined");
        let cluster_key =
            (role == NodeRole::Server).then(|| crate::identity::encode_key(root)).flatten();
        let file_key = self.membership.seal.encode();
        Ok(JoinResponse { certificate, certificates, cluster_key, file_key, peers })
    }

    /// Who comes with this token, and his seat.
    fn user(&self, token: &str, seats: &Seats) -> Result<(api::User, Seat), Refusal> {
        let claims = verify(token, self.membership.cluster, crate::now())?;
        let Scope::User(role) = claims.scope else {
            let error = TokenError::WrongScope { found: claims.scope.kind(), wanted: "user" };
            return Err(error.into());
        };
        let seat = seats.take(&claims.jti)?;
        let expires = claims.exp.unwrap_or(0).saturating_mul(1000);
        let quota = Arc::clone(&seat.quota);
        Ok((api::User { name: claims.sub, token: claims.jti, role, expires, quota }, seat))
    }
}
