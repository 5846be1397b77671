//! One WebSocket between a client and an instance.

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

use super::error::FetchError;
use super::{Http, WRITE_TIMEOUT, fetch, headers, write_within};
use crate::auth::User;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::proxy::instance_stream::{InstanceConnection, InstanceStream};

/// Time for an instance to answer the WebSocket handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an instance to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<InstanceStream>;

impl Http {
    /// Opens a WebSocket and passes messages on until it is closed, then closes the stream.
    ///
    /// # Errors
    /// The stream is closed or the connection to the instance was lost; always so after the handshake.
    pub(crate) async fn socket<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        user: &User,
        request: SocketRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let opened = self.open(user, &request.service, request.port).await;
        let prepared = opened.and_then(|(key, instance)| Ok((prepare(&request, &key)?, instance)));
        let (mut request, instance) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        let InstanceConnection { endpoint, stream, _permits } = instance;
        headers::set_forwarded_for(request.headers_mut(), user.ip());
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MAX_MESSAGE);
        config.max_frame_size = Some(MAX_MESSAGE);
        let handshake = client_async_with_config(request, stream, Some(config));
        let instance = || endpoint.instance.clone();
        // The instance accepts with a response without a body, or refuses with any other response.
        let (socket, response) = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok((socket, response))) => (Some(socket), response.map(|_| None)),
            Ok(Err(Error::Http(response))) => (None, *response),
            Ok(Err(error)) => {
                let cause = error.to_string();
                let error = FetchError::Handshake { instance: instance(), cause };
                return frames.send(&Reply::Error(error.into())).await;
            }
            Err(_) => {
                let error = FetchError::TimedOut(instance());
                return frames.send(&Reply::Error(error.into())).await;
            }
        };
        if let Err(cause) = headers::check_response(response.headers()) {
            let error = FetchError::AmbiguousResponse { instance: instance(), cause };
            return frames.send(&Reply::Error(error.into())).await;
        }
        let head = ResponseHead {
            status: response.status().as_u16(),
            headers: headers::to_pairs(response.headers()),
            instance: instance(),
            node: endpoint.node,
        };
        frames.send(&Reply::Response(head)).await?;
        match socket {
            Some(socket) => {
                frames.set_max(MAX_MESSAGE + 1);
                let node_down = self.router.node_down(&endpoint);
                let (mut out, mut input) = frames.split();
                let done = tokio::select! {
                    done = relay(socket, &mut out, &mut input) => done,
                    () = node_down => Err(FrameError::Io(io::ErrorKind::ConnectionReset.into())),
                };
                done?;
            }
            None => {
                let mut body = Full::new(Bytes::from(response.into_body().unwrap_or_default()));
                fetch::send_body(&mut body, &mut frames.split().0).await?;
            }
        }
        frames.close().await?;
        Err(FrameError::Closed)
    }
}

/// Builds the handshake request for the instance.
pub(super) fn prepare(
    request: &SocketRequest,
    service: &ServiceKey,
) -> Result<http::Request<()>, FetchError> {
    if !request.target.starts_with('/') {
        return Err(FetchError::Target(request.target.clone()));
    }
    let mut headers = headers::to_http(&request.headers, service)?;
    let host = headers.remove(http::header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("service");
    let url = format!("ws://{host}{}", request.target);
    let built = url.into_client_request();
    let mut built = built.map_err(|error| FetchError::Malformed(error.to_string()))?;
    merge(built.headers_mut(), headers);
    if !request.protocols.is_empty() {
        let protocols = HeaderValue::from_str(&request.protocols.join(", "))
            .map_err(|error| FetchError::Malformed(error.to_string()))?;
        built.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    Ok(built)
}

/// Adds the client's headers, except those of the handshake itself.
fn merge(headers: &mut HeaderMap, from_client: HeaderMap) {
    // The map's iterator names a header once, before its first value.
    let mut last: Option<HeaderName> = None;
    for (name, value) in from_client {
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|it| !it.as_str().starts_with("sec-websocket-")) {
            headers.append(name, value);
        }
    }
}

/// Passes messages on in both directions until a side closes the WebSocket or its connection is lost.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    socket: Socket,
    out: &mut FramesOut<'_, S>,
    input: &mut FramesIn<'_, S>,
) -> Result<(), FrameError> {
    let (mut to, mut from) = socket.split();
    let to_instance = async {
        loop {
            let message = match SocketFrame::from_bytes(&input.receive_bytes().await?) {
                Some(SocketFrame::Text(text)) => Message::text(text),
                Some(SocketFrame::Binary(bytes)) => Message::binary(bytes),
                Some(SocketFrame::Close(reason)) => {
                    let frame = reason.map(|(code, reason)| CloseFrame {
                        code: CloseCode::from(code),
                        reason: reason.into(),
                    });
                    let _ = write_within(WRITE_TIMEOUT, to.send(Message::Close(frame))).await;
                    return Ok(());
                }
                None => return Err(FrameError::Closed),
            };
            write_within(WRITE_TIMEOUT, to.send(message)).await?.map_err(io::Error::other)?;
        }
    };
    let to_client = async {
        while let Some(message) = from.next().await {
            let frame = match message.map_err(io::Error::other)? {
                Message::Text(text) => SocketFrame::Text(text.as_str().to_owned()),
                Message::Binary(bytes) => SocketFrame::Binary(bytes.to_vec()),
                Message::Close(reason) => SocketFrame::Close(
                    reason.map(|it| (it.code.into(), it.reason.as_str().to_owned())),
                ),
                // Tungstenite answers pings.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let closed = matches!(frame, SocketFrame::Close(_));
            out.send_bytes(frame.to_bytes()).await?;
            if closed {
                // Tungstenite sends its own close frame on the next poll.
                let _ = timeout(CLOSE_TIMEOUT, from.next()).await;
                return Ok(());
            }
        }
        Ok(())
    };
    let mut to_client = std::pin::pin!(to_client);
    tokio::select! {
        done = &mut to_client => done,
        done = to_instance => match done {
            Ok(()) => timeout(CLOSE_TIMEOUT, to_client).await.unwrap_or(Ok(())),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)], protocol: &str) -> SocketRequest {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        SocketRequest {
            service: "web".to_owned(),
            port: None,
            target: target.to_owned(),
            headers: headers.iter().map(own).collect(),
            protocols: vec![protocol.to_owned()],
        }
    }

    fn built(request: &SocketRequest) -> Option<HeaderMap> {
        let built = prepare(request, &"shop/web".parse().expect("a service"));
        built.ok().map(|it| it.headers().clone())
    }

    #[test]
    fn the_origin_reaches_the_instance_and_no_handshake_header_is_the_clients() {
        let given = [
            ("origin", "http://web--shop.localhost"),
            ("sec-websocket-key", "forged"),
            ("sec-websocket-extensions", "x"),
            ("upgrade", "h2c"),
        ];
        let headers = built(&request("/ws", &given, "chat")).expect("a request");
        assert_eq!(headers["origin"], "http://web--shop.localhost");
        assert_eq!(
            (&headers["upgrade"], &headers["sec-websocket-protocol"]),
            (&"websocket".parse().expect("a value"), &"chat".parse().expect("a value"))
        );
        assert_ne!(headers["sec-websocket-key"], "forged");
        assert!(!headers.contains_key("sec-websocket-extensions"));
    }

    #[test]
    fn requests_that_inject_lines_or_hosts_are_refused() {
        for (target, headers, protocol) in [
            ("/ HTTP/1.1\r\nHost: evil", &[][..], "x"),
            ("/\n", &[], "x"),
            ("http://evil.example/", &[], "x"),
            ("@evil.example/", &[], "x"),
            ("", &[], "x"),
            ("/", &[("origin", "http://a\r\nhost: evil")], "x"),
            ("/", &[("host", "a b")], "x"),
            ("/", &[("host", "a"), ("host", "b")], "x"),
            ("/", &[], "x\r\nhost: evil"),
        ] {
            let refused = built(&request(target, headers, protocol)).is_none();
            assert!(refused, "{target:?} {headers:?} {protocol:?}");
        }
    }
}
