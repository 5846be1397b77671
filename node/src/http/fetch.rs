//! One HTTP exchange.

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
use vc_protocol::control::Reply;
use vc_protocol::http::{FetchRequest, MAX_BODY_FRAME, ResponseHead};
use vc_protocol::{ApiError, ErrorCode};

use super::{Http, STUCK, given, headers};
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::proxy::instance_stream::InstanceConnection;

/// Frames of a request's body that may wait for the instance.
const PIECES: usize = 4;

/// Headers of an answer: their bytes are bounded by the library.
const MAX_HEADERS: usize = 1024;

type Request = hyper::Request<BoxBody<Bytes, io::Error>>;

impl Http {
    /// Does one exchange, and ends the session. Errors: the user is gone, or the exchange broke off.
    pub(crate) async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        request: FetchRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let opened = self.open(&request.service, request.port).await;
        let begun = opened.and_then(|(key, opened)| Ok((begin(request, &key)?, opened)));
        let ((request, body), opened) = match begun {
            Ok(opened) => opened,
            Err(reason) => {
                frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await?;
                // What follows the request, if anything does, is no request.
                return Err(FrameError::Closed);
            }
        };
        frames.set_max(MAX_BODY_FRAME);
        let lost = self.router.node_down(&opened.endpoint);
        let done = {
            let (mut out, mut input) = frames.split();
            tokio::select! {
                done = exchange(request, opened, &mut out) => done,
                gone = take(&mut input, body, STUCK) => Err(gone),
                () = lost => Err(FrameError::Io(io::ErrorKind::ConnectionReset.into())),
            }
        };
        done?;
        frames.close().await?;
        Err(FrameError::Closed)
    }
}

/// Where the frames of a request's body go.
type Pieces = Option<mpsc::Sender<Result<Bytes, io::Error>>>;

/// The request for the instance. Errors: what cannot be one.
fn begin(
    request: FetchRequest,
    service: &vc_protocol::ServiceKey,
) -> Result<(Request, Pieces), String> {
    let mut headers = headers::read(&request.headers, service)?;
    let (pieces, body) = match request.body {
        true => {
            let (pieces, arriving) = mpsc::channel::<Result<Bytes, io::Error>>(PIECES);
            let frames = ReceiverStream::new(arriving).map(|piece| piece.map(Frame::data));
            if !headers.contains_key(CONTENT_LENGTH) {
                // Said, for with some methods nobody expects a body.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            (Some(pieces), StreamBody::new(frames).boxed())
        }
        false => {
            headers.remove(CONTENT_LENGTH);
            // RFC 9110, 8.6: where a body is usual, that there is none is said; some servers ask for it (411).
            if ["POST", "PUT", "PATCH"].contains(&request.method.as_str()) {
                headers.insert(CONTENT_LENGTH, 0.into());
            }
            (None, Empty::new().map_err(|never| match never {}).boxed())
        }
    };
    if !request.target.starts_with('/') {
        return Err("a path begins with a slash".to_owned());
    }
    let built =
        hyper::Request::builder().method(request.method.as_bytes()).uri(&request.target).body(body);
    let mut built = built.map_err(|error| format!("not a request that can be sent: {error}"))?;
    if *built.method() == hyper::Method::CONNECT {
        return Err("CONNECT is not for services".to_owned());
    }
    *built.headers_mut() = headers;
    Ok((built, pieces))
}

/// Hands on the frames of the request's body, for as long as the instance takes some now and then; then waits until the user goes.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    input: &mut FramesIn<'_, S>,
    mut pieces: Pieces,
    patience: Duration,
) -> FrameError {
    while let Some(to) = &pieces {
        match input.receive_bytes().await {
            Ok(piece) if piece.is_empty() => pieces = None,
            Ok(piece) => match given(patience, to.send(Ok(piece))).await {
                // An instance that takes no more of it may still answer.
                Ok(_) => {}
                Err(stuck) => return stuck.into(),
            },
            Err(error) => {
                // Without its end, what was sent so far is no whole request.
                let _ = to.try_send(Err(io::ErrorKind::ConnectionAborted.into()));
                return error;
            }
        }
    }
    input.closed().await;
    FrameError::Closed
}

/// Sends the request and passes on the answer.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    request: Request,
    opened: InstanceConnection,
    out: &mut FramesOut<'_, S>,
) -> Result<(), FrameError> {
    let InstanceConnection { endpoint, stream, _permits } = opened;
    let broken = |error: hyper::Error| format!("{} broke off: {error}", endpoint.instance);
    let handshake = http1::Builder::new().max_headers(MAX_HEADERS).handshake(TokioIo::new(stream));
    let (mut sender, connection) = match handshake.await {
        Ok(connected) => connected,
        Err(error) => {
            return out
                .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, broken(error))))
                .await;
        }
    };
    let mut connection = std::pin::pin!(connection.fuse());
    let answer = while_driving(connection.as_mut(), sender.send_request(request)).await;
    let (head, mut body) = match answer {
        Ok(answer) => answer.into_parts(),
        Err(error) => {
            return out
                .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, broken(error))))
                .await;
        }
    };
    let reply = ResponseHead {
        status: head.status.as_u16(),
        headers: headers::write(&head.headers),
        instance: endpoint.instance.clone(),
        node: endpoint.node,
    };
    out.feed_bytes(serde_json::to_vec(&Reply::Response(reply))?).await?;
    while_driving(connection, relay(&mut body, out)).await
}

/// Does `work` that a connection makes progress for. What the connection has to say, `work` is told by it.
async fn while_driving<T>(connection: impl Future + Unpin, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => done,
        _ = connection => work.await,
    }
}

/// Passes on a body, and its end; what comes together goes together. Errors: it broke off, or the user is gone.
pub(super) async fn relay<S, B>(body: &mut B, out: &mut FramesOut<'_, S>) -> Result<(), FrameError>
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
                // The head, and what there was of the body, are the user's all the same.
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
    async fn of_an_answer_that_breaks_off_the_head_and_what_there_was_arrive() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let pieces = [Ok(Frame::data(Bytes::from("half"))), Err(io::Error::other("a bad chunk"))];
        let mut body = StreamBody::new(tokio_stream::iter(pieces));
        let (mut out, _input) = near.split();
        out.feed_bytes("head").await.expect("room");
        assert!(relay(&mut body, &mut out).await.is_err());
        assert_eq!(far.receive_bytes().await.expect("the head"), "head");
        assert_eq!(far.receive_bytes().await.expect("what there was"), "half");
    }

    #[tokio::test]
    async fn an_instance_that_takes_nothing_of_a_body_is_given_up() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let (pieces, _instance) = mpsc::channel(1);
        let sending =
            tokio::spawn(async move { while far.send_bytes(vec![7; 100]).await.is_ok() {} });
        let end = take(&mut near.split().1, Some(pieces), Duration::from_millis(20)).await;
        assert!(matches!(end, FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut));
        drop(near);
        sending.await.expect("it ends with its stream");
    }

    #[tokio::test]
    async fn a_user_who_goes_amid_a_body_is_missed_at_once_though_the_instance_takes_nothing() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 1024), Frames::new(far.compat(), 1024));
        let (pieces, _instance) = mpsc::channel(1);
        far.send_bytes(vec![7; 100]).await.expect("room");
        drop(far);
        assert!(matches!(take(&mut near.split().1, Some(pieces), STUCK).await, FrameError::Closed));
    }

    /// The headers of a request as the instance gets them.
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
        begin(request, &key).expect("a request").0.headers().clone()
    }

    #[test]
    fn a_post_without_a_body_says_that_it_has_none() {
        assert_eq!(sent("POST", Some("7"), false)[CONTENT_LENGTH], "0");
        assert_eq!(sent("GET", Some("7"), false).get(CONTENT_LENGTH), None);
    }

    #[test]
    fn a_body_of_unknown_length_is_said_to_be_one_whatever_the_method() {
        for method in ["GET", "DELETE", "POST"] {
            assert_eq!(sent(method, None, true)[TRANSFER_ENCODING], "chunked");
            assert_eq!(sent(method, Some("7"), true).get(TRANSFER_ENCODING), None);
        }
    }
}
