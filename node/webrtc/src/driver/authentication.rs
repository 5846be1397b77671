//! Noise over the first channel, and what the listener hears of a connection.

use std::time::Instant;

use futures::{AsyncWriteExt, FutureExt};
use libp2p::{PeerId, core::upgrade::OutboundConnectionUpgrade, noise};

use super::{Driver, Established, NOISE_CHANNEL, Report, failed};
use crate::{connection::ConnectionError, socket::Path};

impl Driver {
    pub(super) fn begin_noise(&mut self) -> Result<(), ConnectionError> {
        let peer = self.link.peer().ok_or_else(|| failed("no certificate"))?;
        let stream = self
            .open_channel(NOISE_CHANNEL)
            .ok_or_else(|| failed("the channel of the handshake is taken"))?;
        let prologue = [
            b"libp2p-webrtc-noise:",
            &peer.multihash().to_bytes()[..],
            &self.shared.fingerprint.multihash().to_bytes(),
        ]
        .concat();
        let config = noise::Config::new(&self.shared.key).map_err(failed)?.with_prologue(prologue);
        self.noise = Some(
            async move {
                // The server is the initiator: it can speak first.
                let (peer, mut stream) = config
                    .upgrade_outbound(stream, "/noise")
                    .await
                    .map_err(|error| error.to_string())?;
                // Nothing but the handshake runs over this channel.
                let _ = stream.close().await;
                Ok(peer)
            }
            .boxed(),
        );
        Ok(())
    }

    pub(super) async fn authenticated(&mut self, peer: PeerId) -> Result<(), ConnectionError> {
        self.noise = None;
        self.established = true;
        self.heard = Instant::now();
        let connection = self.connection.take().ok_or(ConnectionError::Closed)?;
        let Path { remote, local } = self.path;
        let established = Established { peer, connection, remote, local };
        self.report(Report::Established(Box::new(established))).await
    }

    pub(super) async fn report(&mut self, report: Report) -> Result<(), ConnectionError> {
        self.report.send((self.id, report)).await.map_err(|_| ConnectionError::Closed)
    }
}
