//! One query and its answer, on a stream of their own.

use std::iter;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::Stream;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::StreamProtocol;
use vc_client::frames::{FrameError, Frames};
use vc_engine::Process;
use vc_protocol::identity::{MAX_IDENTITY_FRAME, Query, SignedStatement, Statement};
use vc_protocol::wire::{IDENTITY_PROTOCOL, encode};
use vc_protocol::{Keypair, Millis, Name, NodeId};

/// This process, which states what it is.
pub(in crate::network) struct OwnProcess {
    pub(super) node: NodeId,
    key: Keypair,
    name: Name,
    number: u64,
    started: Instant,
}

impl OwnProcess {
    /// Errors: the operating system has no random numbers.
    pub(in crate::network) fn new(
        node: NodeId,
        key: Keypair,
        name: Name,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self { node, key, name, number: getrandom::u64()?, started: Instant::now() })
    }

    pub(super) fn process(&self) -> Process {
        let uptime = Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX);
        Process { number: self.number, uptime }
    }

    fn state(&self, challenge: u64) -> SignedStatement {
        let Process { number: process, uptime } = self.process();
        let statement = Statement { process, uptime, name: self.name.clone(), challenge };
        SignedStatement::sign(&statement, &self.key)
    }
}

/// What an exchange brought.
#[derive(Debug)]
pub(crate) enum Message {
    /// The query of the peer, which is answered.
    Asked(Query),
    /// The answer of the peer.
    Answered(SignedStatement),
}

/// Answers a query.
#[derive(Clone)]
pub(crate) struct Respond(pub(super) Arc<OwnProcess>);

/// Sends a query.
#[derive(Debug)]
pub(crate) struct Ask(pub(super) Query);

impl UpgradeInfo for Respond {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(StreamProtocol::new(IDENTITY_PROTOCOL))
    }
}

impl InboundUpgrade<Stream> for Respond {
    type Output = Message;
    type Error = FrameError;
    type Future = BoxFuture<'static, Result<Message, FrameError>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        async move {
            let mut frames = Frames::new(stream, MAX_IDENTITY_FRAME);
            let query: Query = frames.receive_cbor().await?;
            frames.send_bytes(encode(&self.0.state(query.challenge))).await?;
            frames.close().await?;
            Ok(Message::Asked(query))
        }
        .boxed()
    }
}

impl UpgradeInfo for Ask {
    type Info = StreamProtocol;
    type InfoIter = iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once(StreamProtocol::new(IDENTITY_PROTOCOL))
    }
}

impl OutboundUpgrade<Stream> for Ask {
    type Output = Message;
    type Error = FrameError;
    type Future = BoxFuture<'static, Result<Message, FrameError>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        async move {
            let mut frames = Frames::new(stream, MAX_IDENTITY_FRAME);
            frames.send_bytes(encode(&self.0)).await?;
            frames.receive_cbor().await.map(Message::Answered)
        }
        .boxed()
    }
}
