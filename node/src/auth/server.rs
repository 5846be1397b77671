//! The auth server: authenticates members, admits nodes that join, and opens user sessions.

use std::net::IpAddr;
use std::sync::Arc;

use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use vc_engine::{Input, Mutation};
use vc_protocol::audit::AuditAction;
use vc_protocol::auth::{
    AuthResponse, ClientHello, Credentials, JoinResponse, MAX_AUTH_FRAME, ServerHello,
};
use vc_protocol::change::Subject;
use vc_protocol::token::{Certificate, NodeRole, Scope, TokenError};
use vc_protocol::{ApiError, Name, NodeId, ProtocolVersions};

use super::limits::{
    FailureLog, HANDSHAKE_TIMEOUT, HandshakePermit, LimitError, PendingHandshakes, SessionLimiter,
    SessionPermit,
};
use super::user::{Grant, VerifyError};
use super::{Audience, AuthMetrics, TokenVerifier, User, peer_addresses};
use crate::audit::{Audit, Origin};
use crate::clock;
use crate::driver_message::DriverMessage;
use crate::identity::{Membership, encode_key};
use crate::network::connection_gater::ConnectionGater;
use crate::network::inbound::Inbound;
use crate::seal::Seal;
use crate::snapshot::Snapshot;
use crate::trust::Admitted;
use vc_client::frames::{FrameError, Frames};

/// Why a handshake did not complete.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    /// The stream broke, or carried something else than the handshake.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer was too slow, or a newer one took its place.
    #[error("the peer did not complete the handshake in time")]
    TimedOut,
    /// The peer was refused, and was sent the reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a peer was refused. The text is sent to it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Token(#[from] VerifyError),
    #[error("{0} was removed from the cluster: remove its data directory, and join as a new node")]
    Removed(NodeId),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(
        "this node speaks {ours} of the protocol, the client {client}: upgrade the older of the two",
        ours = ProtocolVersions::OURS
    )]
    Version { client: ProtocolVersions },
    #[error("this node is a worker and cannot admit nodes: join through a server")]
    Worker,
    #[error("this server does not have the signing key of the cluster yet: try again, or another")]
    NoSigningKey,
    #[error("this node is stopping: use another with --peer")]
    Stopping,
    #[error("{0}")]
    NotAdmitted(ApiError),
}

impl Refusal {
    /// Returns the kind of reason, for metrics.
    fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Removed(_) => "removed",
            Self::Limit(_) => "limit",
            Self::Version { .. } => "version",
            Self::Worker | Self::NoSigningKey | Self::Stopping => "not_able",
            Self::NotAdmitted(_) => "not_admitted",
        }
    }
}

/// Authenticates peers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AuthServer {
    pub(crate) membership: Arc<Membership>,
    pub(crate) gater: ConnectionGater,
    pub(crate) driver: mpsc::Sender<DriverMessage>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) verifier: TokenVerifier,
    pub(crate) admitted: Admitted,
    pub(crate) metrics: AuthMetrics,
}

impl AuthServer {
    /// Handles incoming auth streams, one task each, and runs `session` for those of users. Unauthenticated peers are
    /// limited apart from members, so that they cannot keep members out.
    pub(crate) async fn serve<F, S>(self, mut streams: mpsc::Receiver<Inbound>, session: F)
    where
        F: Fn(User, Frames<Stream>) -> S + Clone + Send + 'static,
        S: Future<Output = ()> + Send,
    {
        let (unauthenticated, members) =
            (PendingHandshakes::default(), PendingHandshakes::default());
        let (sessions, failures) = (SessionLimiter::default(), FailureLog::default());
        while let Some(Inbound { peer, source, stream }) = streams.recv().await {
            let pending = if self.gater.is_member(&peer) { &members } else { &unauthenticated };
            let Some(permit) = pending.acquire(peer) else {
                tracing::debug!(%peer, "auth stream dropped: too many from this peer");
                continue;
            };
            let (auth, sessions, session) = (self.clone(), sessions.clone(), session.clone());
            let failures = failures.clone();
            tokio::spawn(async move {
                match auth.handle_stream(peer, source, stream, permit, &sessions).await {
                    Ok(None) => {}
                    Ok(Some((user, frames, _permit))) => {
                        let _session = auth.gater.start_session(peer);
                        session(user, frames).await;
                    }
                    // A client that dials several nodes and takes the first closes the other streams.
                    Err(HandshakeError::Frame(
                        error @ (FrameError::Io(_) | FrameError::Closed),
                    )) => {
                        tracing::debug!(%peer, %error, "auth stream closed by the peer");
                    }
                    Err(error) => {
                        if let Some(suppressed) = failures.record(Instant::now()) {
                            tracing::warn!(%peer, %error, suppressed, "authentication failed");
                        }
                    }
                }
            });
        }
    }

    /// Runs the handshake on one stream. Returns the session of a user; `None` for nodes, whose stream is closed.
    async fn handle_stream(
        &self,
        peer: PeerId,
        source: Option<IpAddr>,
        stream: Stream,
        mut permit: HandshakePermit,
        sessions: &SessionLimiter,
    ) -> Result<Option<(User, Frames<Stream>, SessionPermit)>, HandshakeError> {
        let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
        let exchange = async {
            let ClientHello { versions } = frames.receive().await?;
            let certificate = self.membership.credentials.certificate();
            frames.send(&ServerHello { certificate, versions: ProtocolVersions::OURS }).await?;
            Ok::<_, FrameError>((versions, frames.receive::<Credentials>().await?))
        };
        let hello = tokio::select! {
            hello = timeout(HANDSHAKE_TIMEOUT, exchange) => hello.map_err(|_| HandshakeError::TimedOut)??,
            _ = &mut permit.evicted => return Err(HandshakeError::TimedOut),
        };
        let (versions, credentials) = hello;
        let attempt = Attempt::of(peer, source, &credentials);
        let result = match credentials {
            _ if versions.common(ProtocolVersions::OURS).is_none() => {
                Err(Refusal::Version { client: versions })
            }
            Credentials::Member { certificate } => self
                .authenticate_member(peer, certificate)
                .await
                .map(|known| (AuthResponse::Member { known }, None)),
            Credentials::Join { token, name } => self
                .admit(peer, source, &token, &name)
                .await
                .map(|admission| (AuthResponse::Joined(Box::new(admission)), None)),
            Credentials::User { token, address } => {
                let client = self.client(peer, source, address);
                self.authenticate_user(&token, client, sessions).map(|(user, permit)| {
                    let peers = self.peer_addresses(Audience::User);
                    (AuthResponse::User { role: user.rights.role, peers }, Some((user, permit)))
                })
            }
        };
        let (welcome, outcome) = match result {
            Ok((welcome, session)) => (welcome, Ok(session)),
            Err(refusal) => {
                let busy = matches!(refusal, Refusal::Limit(_));
                let removed = matches!(refusal, Refusal::Removed(_));
                self.metrics.refused(refusal.kind());
                attempt.record(&self.verifier.audit, &refusal);
                let reason = refusal.to_string();
                (AuthResponse::Refused { reason, busy, removed }, Err(refusal))
            }
        };
        let answer = async {
            frames.send(&welcome).await?;
            if !matches!(outcome, Ok(Some(_))) {
                frames.close().await?;
            }
            Ok::<(), FrameError>(())
        };
        timeout(HANDSHAKE_TIMEOUT, answer).await.map_err(|_| HandshakeError::TimedOut)??;
        let session = outcome?;
        Ok(session.map(|(user, permit)| (user, frames, permit)))
    }

    /// Returns the node with this peer id, unless it was removed from the cluster.
    fn node(&self, peer: PeerId) -> Result<NodeId, Refusal> {
        let node = NodeId::try_from(peer).map_err(|_| VerifyError::from(TokenError::WrongNode))?;
        if self.verifier.is_removed(node) { Err(Refusal::Removed(node)) } else { Ok(node) }
    }

    /// Checks the certificate of a member; returns whether it was a known member before.
    async fn authenticate_member(
        &self,
        peer: PeerId,
        certificate: String,
    ) -> Result<bool, Refusal> {
        let node = self.node(peer)?;
        let read =
            Certificate::read(&certificate, self.membership.cluster).map_err(VerifyError::from)?;
        if read.node != node || read.is_former {
            return Err(VerifyError::from(TokenError::WrongNode).into());
        }
        // One that does not know of a rotation yet shows the certificate from before.
        let known = self.gater.is_member(&peer);
        if !known {
            let signing = self.snapshot.borrow().view.trust.signing;
            if signing.is_some_and(|signing| signing.key != read.signing.key) {
                return Err(VerifyError::from(TokenError::Superseded).into());
            }
            let message = DriverMessage::Input(Input::Certificate(certificate));
            let _ = self.driver.send(message).await;
            self.gater.admit(peer);
        }
        Ok(known)
    }

    /// Checks a join token and admits its node to the cluster.
    async fn admit(
        &self,
        peer: PeerId,
        source: Option<IpAddr>,
        token: &str,
        name: &Name,
    ) -> Result<JoinResponse, Refusal> {
        let claims = self.verifier.claims(token)?.claims;
        let Scope::Join(role) = claims.scope else {
            let (found, wanted) = (claims.scope.kind(), "node");
            return Err(VerifyError::from(TokenError::WrongScope { found, wanted }).into());
        };
        let root = self.membership.root.as_ref().ok_or(Refusal::Worker)?;
        let node = self.node(peer)?;
        let signing = self.snapshot.borrow().view.trust.signing;
        let signer = self.membership.signer().filter(|it| Some(it.signing()) == signing);
        let signer = signer.ok_or(Refusal::NoSigningKey)?;
        let certificate = signer.certify(node, Scope::Member(role), clock::now());
        let certificate = certificate.map_err(VerifyError::from)?;
        // Durable on this node before the new one relies on it: the other members learn of it from here.
        let (answer, certificates) = oneshot::channel();
        let message = DriverMessage::Admit {
            by: Subject { name: claims.sub, token_id: claims.jti.clone(), address: text(source) },
            admission: Mutation::Admit {
                node,
                name: name.clone(),
                by: self.membership.node,
                token: claims.jti.clone(),
                uses: claims.uses,
                expires: claims.exp.unwrap_or(0).saturating_mul(1000),
            },
            certificate: certificate.clone(),
            answer,
        };
        self.driver.send(message).await.map_err(|_| Refusal::Stopping)?;
        let certificates =
            certificates.await.map_err(|_| Refusal::Stopping)?.map_err(Refusal::NotAdmitted)?;
        self.admitted.add(node, role);
        self.gater.admit(peer);
        let signing_key = self.membership.credentials.signing_key(signer.signing().key);
        tracing::info!(%node, %name, token = claims.jti, ?role, "node joined");
        let is_server = role == NodeRole::Server;
        Ok(JoinResponse {
            certificate,
            certificates,
            cluster_key: is_server.then(|| encode_key(root)).flatten(),
            signing_key: signing_key.filter(|_| is_server).and_then(|it| encode_key(&it)),
            file_key: self.membership.seal.as_ref().filter(|_| is_server).map(Seal::encode),
            peers: self.peer_addresses(Audience::Node),
        })
    }

    /// Checks a user token and takes a session permit for it.
    fn authenticate_user(
        &self,
        token: &str,
        Client { address, via }: Client,
        sessions: &SessionLimiter,
    ) -> Result<(User, SessionPermit), Refusal> {
        let Grant { name, token: id, rights, issuer, signing, issued, expires } =
            self.verifier.user(token)?;
        let permit = sessions.acquire(&id)?;
        let (credential, quota) = (Arc::from(token), Arc::clone(&permit.quota));
        let user = User {
            name,
            token: id,
            credential,
            rights,
            issuer,
            signing,
            issued,
            expires,
            address,
            via,
            opened: Arc::default(),
            quota,
        };
        Ok((user, permit))
    }

    /// Returns where a user is. A worker that passes on a request says it; others cannot.
    fn client(&self, peer: PeerId, source: Option<IpAddr>, address: Option<String>) -> Client {
        let via = NodeId::try_from(peer).ok().filter(|_| self.gater.is_member(&peer));
        let said = address.filter(|it| via.is_some() && it.parse::<IpAddr>().is_ok());
        Client { address: said.or_else(|| text(source)), via }
    }

    fn peer_addresses(&self, audience: Audience) -> Vec<libp2p::Multiaddr> {
        let view = Arc::clone(&self.snapshot.borrow().view);
        peer_addresses(audience, &view, self.membership.node)
    }
}

/// What a peer tries, for the audit log.
struct Attempt {
    address: Option<String>,
    /// What it says to be.
    role: String,
    token: Option<String>,
}

impl Attempt {
    fn of(peer: PeerId, source: Option<IpAddr>, credentials: &Credentials) -> Self {
        let (role, token) = match credentials {
            Credentials::Join { token, name } => (format!(" to join as {name}"), Some(token)),
            Credentials::Member { .. } => (format!(" as the member {peer}"), None),
            Credentials::User { token, .. } => (String::new(), Some(token)),
        };
        Self { address: text(source), role, token: token.cloned() }
    }

    /// Records that it was refused, unless only a limit was reached.
    fn record(self, audit: &Audit, refusal: &Refusal) {
        let Self { address, role, token } = self;
        if matches!(refusal, Refusal::Limit(_) | Refusal::Version { .. } | Refusal::Stopping) {
            return;
        }
        let origin = match (refusal, &token) {
            (Refusal::Token(error), Some(token)) => error.origin(token),
            // The token is valid, and does not suffice.
            (Refusal::NotAdmitted(_) | Refusal::Worker, Some(token)) => {
                VerifyError::Revoked.origin(token)
            }
            _ => Origin::default(),
        };
        // The name in a join token is not that of a user.
        let user = origin.user.clone().filter(|_| role.is_empty());
        let text = format!("was refused{role}: {refusal}");
        audit.record(AuditAction::Refused, Origin { user, address, ..origin }, None, text);
    }
}

/// Where a user is.
struct Client {
    address: Option<String>,
    /// The member that passes on the request.
    via: Option<NodeId>,
}

/// Returns an address as the audit log has it.
fn text(source: Option<IpAddr>) -> Option<String> {
    source.map(|ip| ip.to_canonical().to_string())
}
