//! Frames and messages of every protocol: what decodes is encoded to what decodes to the same.

use futures::FutureExt as _;
use futures::io::Cursor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use vc_frames::Frames;
use vc_protocol::auth::{
    AuthResponse, ClientHello, Credentials, Delegated, MAX_AUTH_FRAME, ServerHello,
};
use vc_protocol::control::{ExecRequest, Reply, Request};
use vc_protocol::exec::{ExecFrame, InstanceRequest};
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::http::SocketFrame;
use vc_protocol::identity::{Query, SignedStatement};
use vc_protocol::image;
use vc_protocol::log::InstanceLogRequest;
use vc_protocol::route::RouteRequest;
use vc_protocol::spec::{Deployment, ServiceSpec};
use vc_protocol::{Stored, wire};

use crate::batch::changes;
use crate::keys::{KEYS, NOW};
use crate::pieces::piece;

/// Decoders, by the first byte of an input.
const DECODERS: &[fn(&[u8])] = &[
    length_prefixed,
    json::<ClientHello>,
    json::<ServerHello>,
    json::<Credentials>,
    json::<AuthResponse>,
    json::<Request>,
    json::<Reply>,
    json::<Delegated<Request>>,
    json::<Delegated<InstanceRequest>>,
    json::<Delegated<InstanceLogRequest>>,
    json::<InstanceRequest>,
    json::<ExecRequest>,
    json::<Deployment>,
    json::<Stored<ServiceSpec>>,
    json::<image::Request>,
    json::<image::Response>,
    cbor::<Gossip>,
    cbor::<SyncMessage>,
    cbor::<RouteRequest>,
    cbor::<Query>,
    cbor::<SignedStatement>,
    exec,
    socket,
    image_config,
];

/// Runs an input.
pub(crate) fn run(data: &[u8]) {
    if let Some((&kind, bytes)) = data.split_first() {
        DECODERS[usize::from(kind) % DECODERS.len()](bytes);
    }
}

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let encode = |value: &T| serde_json::to_vec(value).unwrap_or_default();
    let encoded = encode(&value);
    let again = serde_json::from_slice::<T>(&encoded).map(|it| encode(&it)).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&encoded));
}

fn cbor<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = wire::decode::<T>(bytes) else { return };
    let encoded = wire::encode(&value);
    let again = wire::decode::<T>(&encoded).map(|it| wire::encode(&it)).unwrap_or_default();
    assert_eq!(again, encoded);
}

fn exec(bytes: &[u8]) {
    if let Some(frame) = ExecFrame::decode(bytes) {
        assert_eq!(ExecFrame::decode(&frame.encode()), Some(frame));
    }
}

fn socket(bytes: &[u8]) {
    if let Some(frame) = SocketFrame::from_bytes(bytes) {
        assert_eq!(SocketFrame::from_bytes(&frame.to_bytes()), Some(frame));
    }
}

fn image_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = image::diff_ids(&text);
    if let Ok(manifest) = serde_json::from_slice::<image::Manifest>(bytes) {
        let _ = manifest.check();
    }
}

/// Reads frames of bytes until one is refused.
fn length_prefixed(bytes: &[u8]) {
    let mut frames = Frames::new(Cursor::new(bytes.to_vec()), MAX_AUTH_FRAME);
    let mut total = 0;
    while let Some(Ok(frame)) = frames.receive_bytes().now_or_never() {
        assert!(frame.len() <= MAX_AUTH_FRAME);
        total += 4 + frame.len();
    }
    assert!(total <= bytes.len());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts: &[(u8, &str)] = &[
        (1, r#"{"version":2,"oldest":1}"#),
        (2, r#"{"certificate":"a.b.c","version":1}"#),
        (3, r#"{"join":{"token":"a","name":"n1"}}"#),
        (3, r#"{"user":{"token":"a.b.c"}}"#),
        (3, r#"{"member":{"certificate":"a.b.c"}}"#),
        (4, r#"{"refused":{"reason":"no","busy":true}}"#),
        (4, r#"{"refused":{"reason":"no","removed":true}}"#),
        (4, r#"{"user":{"role":"viewer","peers":["/ip4/127.0.0.1/tcp/1"]}}"#),
        (5, r#"{"op":"nodes"}"#),
        (5, r#"{"op":"scale","service":"web","replicas":3}"#),
        (
            5,
            r#"{"op":"deploy","services":[{"service":"shop/web","replicas":2,"spec":{"container":{"image":"i"}}}],"files":[]}"#,
        ),
        (
            5,
            r#"{"op":"fetch","service":"web","port":80,"method":"GET","target":"/","headers":[["a","b"]],"body":false}"#,
        ),
        (5, r#"{"op":"exec","service":"web","replica":1,"command":["sh"],"tty":true}"#),
        (6, r#"{"reply":"error","error":{"code":"not_found","message":"no","hint":""}}"#),
        (
            8,
            r#"{"token":"t","op":"copy_out","instance":"shop/web.1@d","copy":{"service":"web","replica":null,"path":"/srv","name":"site"}}"#,
        ),
        (
            9,
            r#"{"token":"t","slot":"shop/web.1","digest":"d","follow":true,"tail":10,"since":null}"#,
        ),
        (
            12,
            r#"{"service":"shop/web","replicas":1,"spec":{"container":{"image":"i"},"ports":[{"published":80,"target":80,"protocol":"tcp"}]}}"#,
        ),
        (
            23,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
        ),
    ];
    let mut seeds: Vec<Vec<u8>> =
        texts.iter().map(|(kind, text)| [&[*kind], text.as_bytes()].concat()).collect();
    let frame = [&[0, 0][..], &piece(b"{\"version\":1}")].concat();
    seeds.push([&[0][..], &frame, &frame].concat());
    let batch = vc_protocol::change::Batch { certificates: vec![], changes: changes() };
    seeds.push([vec![16], wire::encode(&Gossip::Changes(batch))].concat());
    let heartbeat = vc_protocol::gossip::Heartbeat {
        node: KEYS.worker.id,
        incarnation: 1,
        seq: 2,
        fingerprint: 3,
        settled: 4,
        usage: vc_protocol::node::Usage::default(),
        at: NOW,
    };
    seeds.push([vec![16], wire::encode(&Gossip::Heartbeat(heartbeat))].concat());
    let versions = crate::batch::replica(&KEYS.worker).versions().clone();
    seeds.push([vec![17], wire::encode(&SyncMessage::Summary(versions))].concat());
    seeds.push([vec![19], wire::encode(&Query::default())].concat());
    seeds.push([vec![21], ExecFrame::Exit(-1).encode()].concat());
    seeds.push([vec![22], SocketFrame::Close(Some((1001, "x".to_owned()))).to_bytes()].concat());
    seeds
}
