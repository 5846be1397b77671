//! An exchange between a client and an instance in memory: for fuzz targets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_engine::routes::Endpoint;
use vc_protocol::http::{FetchRequest, MAX_BODY_FRAME, SocketRequest};
use vc_protocol::{Keypair, NodeId};

use super::{WRITE_TIMEOUT, fetch, headers, socket};
use crate::frames::Frames;

/// Bytes in flight.
const BUFFER: usize = 64 * 1024;

/// Sends a client's request to an instance that answers with these bytes. Returns what the instance and the client have
/// received; `None` if the request was refused.
///
/// # Panics
/// A frame to the client is too large.
#[expect(clippy::expect_used, reason = "a fuzz target")]
pub async fn exchange(
    request: FetchRequest,
    body: &[u8],
    response: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = "shop/web".parse().expect("a service");
    let (request, sender) = fetch::prepare(request, &key).ok()?;
    let node = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes");
    let endpoint = Endpoint {
        instance: "shop/web.1@d".parse().expect("an instance"),
        node: NodeId::of(&node.public()).expect("ed25519"),
        address: String::new(),
    };
    let (client, near) = duplex(BUFFER);
    let (instance, upstream) = duplex(BUFFER);
    let mut near = Frames::new(near.compat(), MAX_BODY_FRAME);
    let mut client = Frames::new(client.compat(), usize::MAX >> 1);
    let node = async move {
        let (mut out, mut input) = near.split();
        tokio::select! {
            _ = fetch::exchange(request, &endpoint, upstream, &mut out) => {}
            _ = fetch::receive_body(&mut input, sender, WRITE_TIMEOUT) => {}
        }
    };
    let instance = async {
        let (mut read, mut write) = tokio::io::split(instance);
        let answer = async {
            let _ = write.write_all(response).await;
            let _ = write.shutdown().await;
        };
        let mut received = Vec::new();
        tokio::join!(answer, read.read_to_end(&mut received)).1.ok();
        received
    };
    let client = async {
        let mut received = Vec::new();
        let (mut out, mut input) = client.split();
        for piece in body.chunks(1000) {
            let _ = out.send_bytes(piece.to_vec()).await;
        }
        let _ = out.send_bytes(Vec::new()).await;
        while let Ok(frame) = input.receive_bytes().await {
            assert!(frame.len() <= MAX_BODY_FRAME.max(vc_protocol::wire::MAX_FRAME));
            received.extend_from_slice(&frame);
        }
        received
    };
    let ((), to_instance, to_client) = tokio::join!(node, instance, client);
    Some((to_instance, to_client))
}

/// Builds the request that opens a WebSocket. Returns its header names and values.
#[expect(clippy::expect_used, reason = "a fuzz target")]
pub fn websocket(request: &SocketRequest) -> Option<Vec<(String, String)>> {
    let key = "shop/web".parse().expect("a service");
    let request = socket::prepare(request, &key).ok()?;
    Some(headers::to_pairs(request.headers()))
}
