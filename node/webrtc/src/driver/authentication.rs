//! The Noise handshake on channel 0, which authenticates both peers.

use std::sync::Arc;

use futures::{AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{PeerId, core::upgrade::OutboundConnectionUpgrade, identity::Keypair, noise};

use crate::{certificate::Fingerprint, stream::Stream};

/// Runs the handshake on `stream` and returns the browser's peer id. The prologue binds the certificates of both sides, so that a
/// DTLS session with anyone else fails the handshake.
pub(super) fn authenticate(
    key: &Keypair,
    server: &Fingerprint,
    client: &Fingerprint,
    stream: Stream,
) -> BoxFuture<'static, Result<PeerId, Arc<noise::Error>>> {
    let prologue = [
        b"libp2p-webrtc-noise:",
        &client.multihash().to_bytes()[..],
        &server.multihash().to_bytes(),
    ]
    .concat();
    let config = noise::Config::new(key).map(|config| config.with_prologue(prologue));
    async move {
        // The server is the initiator, as the specification says.
        let (peer, mut stream) = config?.upgrade_outbound(stream, "/noise").await?;
        // The channel carries nothing after the handshake. A failure to close it does not matter.
        let _ = stream.close().await;
        Ok(peer)
    }
    .map(|result: Result<_, noise::Error>| result.map_err(Arc::new))
    .boxed()
}
