//! One WebSocket.

use std::io;

use futures::{AsyncRead, AsyncWrite, SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use vc_protocol::ServiceKey;
use vc_protocol::control::Reply;
use vc_protocol::http::{MAX_MESSAGE, ResponseHead, SocketFrame, SocketRequest};
use vc_protocol::{ApiError, ErrorCode};

use super::{Http, STUCK, fetch, given, headers};
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::proxy::instance_stream::{InstanceConnection, InstanceStream};

/// An instance has so long to answer that it takes a WebSocket.
const ANSWER: Duration = Duration::from_secs(10);
/// An instance that was told that it is over has so long to agree.
const GOODBYE: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<InstanceStream>;

impl Http {
    /// Opens a WebSocket and passes on messages until it is over, and the session with it. Errors: the user is gone, or
    /// the instance is.
    pub(crate) async fn socket<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        request: SocketRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let opened = self.open(&request.service, request.port).await;
        let begun = opened.and_then(|(key, opened)| Ok((begin(&request, &key)?, opened)));
        let (begun, opened) = match begun {
            Ok(opened) => opened,
            Err(reason) => {
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
        };
        let InstanceConnection { endpoint, stream, _permits } = opened;
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MAX_MESSAGE);
        config.max_frame_size = Some(MAX_MESSAGE);
        let handshake = client_async_with_config(begun, stream, Some(config));
        let (socket, refusal) = match timeout(ANSWER, handshake).await {
            Ok(Ok((socket, answer))) => (Some(socket), answer.map(|_| None)),
            Ok(Err(Error::Http(answer))) => (None, *answer),
            Ok(Err(error)) => {
                let reason = format!("{} takes no WebSocket here: {error}", endpoint.instance);
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
            Err(_) => {
                let reason = format!("{} did not answer in time", endpoint.instance);
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
        };
        let head = ResponseHead {
            status: refusal.status().as_u16(),
            headers: headers::write(refusal.headers()),
            instance: endpoint.instance.clone(),
            node: endpoint.node,
        };
        frames.send(&Reply::Response(head)).await?;
        match socket {
            Some(socket) => {
                frames.set_max(MAX_MESSAGE + 1);
                let lost = self.router.node_down(&endpoint);
                let (mut out, mut input) = frames.split();
                let done = tokio::select! {
                    done = relay(socket, &mut out, &mut input) => done,
                    () = lost => Err(FrameError::Io(io::ErrorKind::ConnectionReset.into())),
                };
                done?;
            }
            None => {
                let mut body = Full::new(Bytes::from(refusal.into_body().unwrap_or_default()));
                fetch::relay(&mut body, &mut frames.split().0).await?;
            }
        }
        frames.close().await?;
        Err(FrameError::Closed)
    }
}

/// The request that asks an instance for a WebSocket. Errors: what cannot be one.
fn begin(request: &SocketRequest, service: &ServiceKey) -> Result<http::Request<()>, String> {
    if !request.target.starts_with('/') {
        return Err("a path begins with a slash".to_owned());
    }
    let mut given = headers::read(&request.headers, service)?;
    let host = given.remove(http::header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("service");
    let bad =
        |error: &dyn std::fmt::Display| format!("not a WebSocket that can be asked for: {error}");
    let mut built =
        format!("ws://{host}{}", request.target).into_client_request().map_err(|it| bad(&it))?;
    merge(built.headers_mut(), given);
    if !request.protocols.is_empty() {
        let wanted = HeaderValue::from_str(&request.protocols.join(", ")).map_err(|it| bad(&it))?;
        built.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, wanted);
    }
    Ok(built)
}

/// What the user sends along, but for what makes it a WebSocket.
fn merge(headers: &mut HeaderMap, given: HeaderMap) {
    let mut last: Option<HeaderName> = None;
    for (name, value) in given {
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|it| !it.as_str().starts_with("sec-websocket-")) {
            headers.append(name, value);
        }
    }
}

/// Passes on messages both ways, until one side says that it is over or is gone.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    socket: Socket,
    out: &mut FramesOut<'_, S>,
    input: &mut FramesIn<'_, S>,
) -> Result<(), FrameError> {
    let (mut to, mut from) = socket.split();
    let up = async {
        loop {
            let message = match SocketFrame::from_bytes(&input.receive_bytes().await?) {
                Some(SocketFrame::Text(text)) => Message::text(text),
                Some(SocketFrame::Binary(bytes)) => Message::binary(bytes),
                Some(SocketFrame::Close(why)) => {
                    let frame = why.map(|(code, reason)| CloseFrame {
                        code: CloseCode::from(code),
                        reason: reason.into(),
                    });
                    let _ = given(STUCK, to.send(Message::Close(frame))).await;
                    return Ok(());
                }
                None => return Err(FrameError::Closed),
            };
            given(STUCK, to.send(message)).await?.map_err(io::Error::other)?;
        }
    };
    let down = async {
        while let Some(message) = from.next().await {
            let frame = match message.map_err(io::Error::other)? {
                Message::Text(text) => SocketFrame::Text(text.as_str().to_owned()),
                Message::Binary(bytes) => SocketFrame::Binary(bytes.to_vec()),
                Message::Close(why) => SocketFrame::Close(
                    why.map(|it| (it.code.into(), it.reason.as_str().to_owned())),
                ),
                // The library answers pings.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let over = matches!(frame, SocketFrame::Close(_));
            out.send_bytes(frame.to_bytes()).await?;
            if over {
                // The library sends its own goodbye when it is asked for more.
                let _ = timeout(GOODBYE, from.next()).await;
                return Ok(());
            }
        }
        Ok(())
    };
    let mut down = std::pin::pin!(down);
    tokio::select! {
        done = &mut down => done,
        done = up => match done {
            Ok(()) => timeout(GOODBYE, down).await.unwrap_or(Ok(())),
            Err(gone) => Err(gone),
        },
    }
}
