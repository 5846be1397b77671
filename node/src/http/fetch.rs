//! One HTTP exchange between a client and an instance.

use std::io;

use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use vc_engine::routes::Endpoint;
use vc_protocol::ServiceKey;
use vc_protocol::control::Reply;
use vc_protocol::http::{FetchRequest, MAX_BODY_FRAME, ResponseHead};

use super::error::FetchError;
use super::{Http, WRITE_TIMEOUT, headers, write_within};
use crate::auth::User;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::proxy::instance_stream::InstanceConnection;

/// Frames of a request's body that may wait for the instance.
const MAX_PENDING_FRAMES: usize = 4;
/// Headers of a response. Hyper limits their bytes.
const MAX_RESPONSE_HEADERS: usize = 1024;

type Request = hyper::Request<BoxBody<Bytes, io::Error>>;

/// Sends the frames of a request's body; `None` where it has none, or all are sent.
type BodySender = Option<mpsc::Sender<Result<Bytes, io::Error>>>;

impl Http {
    /// Performs one exchange and closes the stream.
    ///
    /// # Errors
    /// Always: the stream is closed, or the exchange was interrupted.
    pub(crate) async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        user: &User,
        request: FetchRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let opened = self.open(user, &request.service, request.port).await;
        let prepared = opened.and_then(|(key, instance)| Ok((prepare(request, &key)?, instance)));
        let ((mut request, body), instance) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                frames.send(&Reply::Error(error.into())).await?;
                // A body may follow, which is no request.
                return Err(FrameError::Closed);
            }
        };
        headers::set_forwarded_for(request.headers_mut(), user.ip());
        frames.set_max(MAX_BODY_FRAME);
        let InstanceConnection { endpoint, stream, _permits } = instance;
        let node_down = self.router.node_down(&endpoint);
        let done = {
            let (mut out, mut input) = frames.split();
            tokio::select! {
                done = exchange(request, &endpoint, stream, &mut out) => done,
                closed = receive_body(&mut input, body, WRITE_TIMEOUT) => Err(closed),
                () = node_down => Err(FrameError::Io(io::ErrorKind::ConnectionReset.into())),
            }
        };
        done?;
        frames.close().await?;
        Err(FrameError::Closed)
    }
}

/// Builds the request for the instance.
pub(super) fn prepare(
    request: FetchRequest,
    service: &ServiceKey,
) -> Result<(Request, BodySender), FetchError> {
    let mut headers = headers::to_http(&request.headers, service)?;
    let (sender, body) = if request.body {
        let (sender, pending) = mpsc::channel::<Result<Bytes, io::Error>>(MAX_PENDING_FRAMES);
        let frames = ReceiverStream::new(pending).map(|piece| piece.map(Frame::data));
        if !headers.contains_key(CONTENT_LENGTH) {
            // Explicitly: with methods that rarely have a body, hyper would send none.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        (Some(sender), StreamBody::new(frames).boxed())
    } else {
        headers.remove(CONTENT_LENGTH);
        // RFC 9110, section 8.6: a method that usually has a body says that there is none; some servers insist (411).
        if ["POST", "PUT", "PATCH"].contains(&request.method.as_str()) {
            headers.insert(CONTENT_LENGTH, 0.into());
        }
        (None, Empty::new().map_err(|never| match never {}).boxed())
    };
    if !request.target.starts_with('/') {
        return Err(FetchError::Target(request.target));
    }
    let built =
        hyper::Request::builder().method(request.method.as_bytes()).uri(&request.target).body(body);
    let mut built = built.map_err(|error| FetchError::Malformed(error.to_string()))?;
    if *built.method() == hyper::Method::CONNECT {
        return Err(FetchError::Connect);
    }
    *built.headers_mut() = headers;
    Ok((built, sender))
}

/// Passes the request's body to the instance, then waits until the client closes the stream. Returns how it ended; a
/// timeout when the instance takes none of the body for `limit`.
pub(super) async fn receive_body<S: AsyncRead + AsyncWrite + Unpin>(
    input: &mut FramesIn<'_, S>,
    mut body: BodySender,
    limit: Duration,
) -> FrameError {
    while let Some(sender) = &body {
        match input.receive_bytes().await {
            Ok(piece) if piece.is_empty() => body = None,
            Ok(piece) => match write_within(limit, sender.send(Ok(piece))).await {
                // A failed send: the instance has closed its input, and may still respond.
                Ok(_) => {}
                Err(timed_out) => return timed_out.into(),
            },
            Err(error) => {
                // Keeps the instance from taking a truncated body for a complete one.
                let _ = sender.try_send(Err(io::ErrorKind::ConnectionAborted.into()));
                return error;
            }
        }
    }
    input.closed().await;
    FrameError::Closed
}

/// Sends the request to the instance and its response to the client.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    request: Request,
    endpoint: &Endpoint,
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    out: &mut FramesOut<'_, S>,
) -> Result<(), FrameError> {
    let broken = |error: hyper::Error| {
        let (instance, cause) = (endpoint.instance.clone(), error.to_string());
        Reply::Error(FetchError::Broken { instance, cause }.into())
    };
    let mut builder = http1::Builder::new();
    builder.max_headers(MAX_RESPONSE_HEADERS);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(connected) => connected,
        Err(error) => return out.send(&broken(error)).await,
    };
    let mut connection = std::pin::pin!(connection.fuse());
    let response = while_driving(connection.as_mut(), sender.send_request(request)).await;
    let (head, mut body) = match response {
        Ok(response) => response.into_parts(),
        Err(error) => return out.send(&broken(error)).await,
    };
    if let Err(cause) = headers::check_response(&head.headers) {
        let error = FetchError::AmbiguousResponse { instance: endpoint.instance.clone(), cause };
        return out.send(&Reply::Error(error.into())).await;
    }
    let head = ResponseHead {
        status: head.status.as_u16(),
        headers: headers::to_pairs(&head.headers),
        instance: endpoint.instance.clone(),
        node: endpoint.node,
    };
    out.feed_bytes(serde_json::to_vec(&Reply::Response(head))?).await?;
    while_driving(connection, send_body(&mut body, out)).await
}

/// Runs `work`, which the connection has to be polled for. The connection's own errors reach `work` through hyper.
async fn while_driving<T>(connection: impl Future + Unpin, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => done,
        _ = connection => work.await,
    }
}

/// Sends a body and the empty frame that ends it. Flushes when the instance has nothing more to read at the moment.
pub(super) async fn send_body<S, B>(
    body: &mut B,
    out: &mut FramesOut<'_, S>,
) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                out.flush().await?;
                body.frame().await
            }
        };
        let Some(frame) = frame else { break };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                // The head and the body so far still reach the client.
                out.flush().await?;
                return Err(io::Error::other(error).into());
            }
        };
        let Ok(mut data) = frame.into_data() else { continue };
        while !data.is_empty() {
            out.feed_bytes(data.split_to(data.len().min(MAX_BODY_FRAME))).await?;
        }
    }
    out.send_bytes(Bytes::new()).await
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn the_head_and_the_partial_body_of_an_interrupted_response_arrive() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let pieces = [Ok(Frame::data(Bytes::from("half"))), Err(io::Error::other("a bad chunk"))];
        let mut body = StreamBody::new(tokio_stream::iter(pieces));
        let (mut out, _input) = near.split();
        out.feed_bytes("head").await.expect("room");
        assert!(send_body(&mut body, &mut out).await.is_err());
        assert_eq!(far.receive_bytes().await.expect("the head"), "head");
        assert_eq!(far.receive_bytes().await.expect("the partial body"), "half");
    }

    #[tokio::test]
    async fn an_instance_that_does_not_read_the_body_times_out() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let (pieces, _instance) = mpsc::channel(1);
        let sending =
            tokio::spawn(async move { while far.send_bytes(vec![7; 100]).await.is_ok() {} });
        let end = receive_body(&mut near.split().1, Some(pieces), Duration::from_millis(20)).await;
        assert!(matches!(end, FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        drop(near);
        sending.await.expect("it ends with its stream");
    }

    #[tokio::test]
    async fn a_stream_closed_within_a_body_is_noticed_though_the_instance_does_not_read() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let (pieces, _instance) = mpsc::channel(1);
        far.send_bytes(vec![7; 100]).await.expect("room");
        drop(far);
        let end = receive_body(&mut near.split().1, Some(pieces), WRITE_TIMEOUT).await;
        assert!(matches!(end, FrameError::Closed));
    }

    /// Returns the headers of a request as the instance receives them.
    fn sent(method: &str, given: Option<&str>, body: bool) -> hyper::HeaderMap {
        let key: vc_protocol::ServiceKey = "shop/web".parse().expect("a service");
        let request = FetchRequest {
            service: "web".to_owned(),
            port: None,
            method: method.to_owned(),
            target: "/".to_owned(),
            headers: given
                .map(|it| ("content-length".to_owned(), it.to_owned()))
                .into_iter()
                .collect(),
            body,
        };
        prepare(request, &key).expect("a request").0.headers().clone()
    }

    #[test]
    fn a_post_without_a_body_has_content_length_zero() {
        assert_eq!(sent("POST", Some("7"), false)[CONTENT_LENGTH], "0");
        assert_eq!(sent("GET", Some("7"), false).get(CONTENT_LENGTH), None);
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_with_every_method() {
        for method in ["GET", "DELETE", "POST"] {
            assert_eq!(sent(method, None, true)[TRANSFER_ENCODING], "chunked");
            assert_eq!(sent(method, Some("7"), true).get(TRANSFER_ENCODING), None);
        }
    }

    #[test]
    fn requests_that_inject_lines_or_hosts_are_refused() {
        let key: vc_protocol::ServiceKey = "shop/web".parse().expect("a service");
        for (method, target) in [
            ("GET", "/ HTTP/1.1\r\nHost: evil"),
            ("GET", "/\r\n"),
            ("GET", "/\n"),
            ("GET", "/\0"),
            ("GET", "/a b"),
            ("GET", "http://evil.example/"),
            ("GET", "evil.example:80"),
            ("GET", "*"),
            ("GET", ""),
            ("GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "/"),
            ("GET\n", "/"),
            ("", "/"),
            ("CONNECT", "/"),
        ] {
            let request = FetchRequest {
                service: "web".to_owned(),
                port: None,
                method: method.to_owned(),
                target: target.to_owned(),
                headers: Vec::new(),
                body: false,
            };
            assert!(prepare(request, &key).is_err(), "{method:?} {target:?}");
        }
    }
}
