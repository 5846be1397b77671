//! What reaches a node: DNS queries of containers, HTTP between clients and instances, and connections of peers.

use std::cell::RefCell;

use vc_node::fuzzing::{ClientBytes, Node, answer_query, exchange, websocket};
use vc_protocol::Keypair;
use vc_protocol::http::{FetchRequest, SocketRequest};
use vc_protocol::token::{Issuer, Scope, UserRole};
use vc_protocol::wire::AUTH_PROTOCOL;

use crate::keys::{KEYS, NOW};
use crate::pieces::{Pieces, piece};

/// The most streams of a connection, and frames of a stream.
const MAX_STREAMS: usize = 8;

/// Runs a DNS query.
pub(crate) fn dns(data: &[u8]) {
    if let Some(answer) = answer_query(data) {
        assert_eq!(answer.get(..2), data.get(..2), "the id");
        assert!(answer.get(2).is_some_and(|it| it & 0x80 != 0), "a response");
    }
}

pub(crate) fn dns_seeds() -> Vec<Vec<u8>> {
    let query = |name: &[u8], kind: u8| {
        let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header[..], name, &[0, 0, kind, 0, 1]].concat()
    };
    let reverse = b"\x010\x010\x0218\x03198\x07in-addr\x04arpa";
    vec![
        query(b"\x03api", 1),
        query(b"\x05STORE\x08internal", 28),
        query(b"\x03api\x04shop", 255),
        query(b"\x07example\x03com", 15),
        query(reverse, 12),
        [query(b"\x03api", 1), vec![0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]].concat(),
        vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1],
    ]
}

/// Runs an exchange: the request, its body, and the response.
#[expect(clippy::expect_used, reason = "a fuzz target")]
pub(crate) fn http(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    let mut pieces = Pieces(data);
    let request = pieces.piece();
    if let Ok(socket) = serde_json::from_slice::<SocketRequest>(request)
        && let Some(headers) = websocket(&socket)
    {
        assert!(headers.iter().filter(|(name, _)| name == "host").count() <= 1);
    }
    let Ok(request) = serde_json::from_slice::<FetchRequest>(request) else { return };
    let (body, response) = (pieces.piece(), pieces.0);
    let exchanged = RUNTIME.with(|it| it.block_on(exchange(request, body, response)));
    let Some((to_instance, _)) = exchanged else { return };
    let Some(end) = to_instance.windows(4).position(|it| it == b"\r\n\r\n") else { return };
    let head = String::from_utf8_lossy(&to_instance[..end]).to_lowercase();
    let count = |name: &str| head.split("\r\n").filter(|line| line.starts_with(name)).count();
    assert_eq!(count("host:"), 1, "{head}");
    assert!(count("content-length:") + count("transfer-encoding:") <= 1, "{head}");
}

pub(crate) fn http_seeds() -> Vec<Vec<u8>> {
    let request = |method: &str, headers: &str, body: bool| {
        let json = format!(
            r#"{{"service":"web","port":80,"method":"{method}","target":"/a?b","headers":[{headers}],"body":{body}}}"#
        );
        piece(json.as_bytes())
    };
    let response =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nok";
    let chunked =
        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
    let early = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end";
    let twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok";
    let socket = br#"{"service":"web","port":null,"target":"/ws","headers":[["origin","http://a"]],"protocols":["x"]}"#;
    vec![
        [request("GET", r#"["accept","a/b"],["host","x"]"#, false), piece(b""), response.to_vec()]
            .concat(),
        [request("POST", "", true), piece(b"body"), chunked.to_vec()].concat(),
        [request("PUT", r#"["content-length","4"]"#, true), piece(b"body"), early.to_vec()]
            .concat(),
        [request("HEAD", "", false), piece(b""), twice.to_vec()].concat(),
        piece(socket),
    ]
}

/// Runs a connection of a peer that is no member. By the first byte it sends bytes on the connection, within Noise, within
/// Yamux, on streams, or as frames of the auth protocol.
pub(crate) fn connection(data: &[u8]) {
    thread_local! {
        static NODE: RefCell<Node> =
            RefCell::new(Node::start(&KEYS.root.key, &KEYS.servers[0].key, NOW));
    }
    let mut pieces = Pieces(data);
    let (mode, key) = (pieces.byte(), pieces.byte());
    let key: &Keypair = if key & 1 == 0 { &KEYS.outsider.key } else { &KEYS.worker.key };
    let bytes = match mode % 5 {
        0 => ClientBytes::Raw(pieces.0.to_vec()),
        1 => ClientBytes::Encrypted(pieces.0.to_vec()),
        2 => ClientBytes::Encrypted([negotiation("/yamux/1.0.0"), pieces.0.to_vec()].concat()),
        3 => ClientBytes::Streams(streams(&mut pieces)),
        _ => ClientBytes::Streams(vec![auth(&mut pieces)]),
    };
    let admitted = NODE.with_borrow_mut(|node| node.serve(key, bytes));
    // The target knows the certificate of the worker and a join token.
    let may = [KEYS.worker.id, KEYS.outsider.id];
    assert!(admitted.iter().all(|node| may.contains(node)), "{admitted:?}");
}

fn streams(pieces: &mut Pieces<'_>) -> Vec<Vec<u8>> {
    let next = || (!pieces.is_empty()).then(|| pieces.piece().to_vec());
    // Yamux opens no stream before it has bytes: the node would wait until the connection is idle for too long.
    std::iter::from_fn(next).take(MAX_STREAMS).filter(|it| !it.is_empty()).collect()
}

/// Returns a stream of the auth protocol whose frames are the pieces.
fn auth(pieces: &mut Pieces<'_>) -> Vec<u8> {
    let mut stream = negotiation(AUTH_PROTOCOL);
    for _ in 0..MAX_STREAMS {
        if pieces.is_empty() {
            break;
        }
        let text = fill(&String::from_utf8_lossy(pieces.piece()));
        stream.extend((text.len() as u32).to_be_bytes());
        stream.extend(text.as_bytes());
    }
    stream
}

/// Returns the choice of a protocol by multistream-select.
fn negotiation(protocol: &str) -> Vec<u8> {
    let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
    [line("/multistream/1.0.0"), line(protocol)].concat()
}

/// Puts credentials in place of `$M` (certificate of the worker), `$S` (of the server), `$U` (token of a user) and `$J` (join
/// token).
#[expect(clippy::expect_used, reason = "the keys are constant")]
fn fill(text: &str) -> String {
    static TOKENS: std::sync::LazyLock<[String; 2]> = std::sync::LazyLock::new(|| {
        let server = &KEYS.servers[0];
        let certificate = server.certificate.as_deref().expect("a member");
        let issuer = Issuer { cluster: KEYS.cluster, key: &server.key, certificate };
        // Valid by the clock of the host, as the node reads it.
        let ttl = 100 * 365 * 24 * 3_600_000;
        let scopes =
            [Scope::User(UserRole::Viewer), Scope::Join(vc_protocol::token::NodeRole::Worker)];
        scopes.map(|scope| issuer.issue(scope, "ada", vec![], 7, 0, ttl).expect("signed"))
    });
    let certificate = |it: &crate::keys::Identity| it.certificate.clone().unwrap_or_default();
    text.replace("$M", &certificate(&KEYS.worker))
        .replace("$S", &certificate(&KEYS.servers[0]))
        .replace("$U", &TOKENS[0])
        .replace("$J", &TOKENS[1])
}

pub(crate) fn connection_seeds() -> Vec<Vec<u8>> {
    let hello = piece(br#"{"version":1}"#);
    let auth = |key: u8, credentials: &str| {
        let request = piece(br#"{"op":"nodes"}"#);
        [vec![4, key], hello.clone(), piece(credentials.as_bytes()), request].concat()
    };
    // A new stream, data on it, a ping and the end of the session (Yamux specification).
    let yamux = [
        &[0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0][..],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 1, 2, 3, 4],
        &[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],
        &[0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let relay = piece(&negotiation("/libp2p/circuit/relay/0.2.0/hop"));
    vec![
        [vec![0, 0], negotiation("/noise"), vec![0, 32], vec![7; 32]].concat(),
        [vec![1, 0], negotiation("/mplex/6.7.0")].concat(),
        [vec![1, 0], negotiation("/yamux/1.0.0"), yamux.concat()].concat(),
        [vec![2, 0], yamux.concat()].concat(),
        [vec![3, 0], piece(&negotiation("/vc/sync/1")), relay].concat(),
        auth(0, r#"{"user":{"token":"$U"}}"#),
        auth(0, r#"{"join":{"token":"$J","name":"eve"}}"#),
        auth(1, r#"{"member":{"certificate":"$M"}}"#),
        auth(0, r#"{"member":{"certificate":"$S"}}"#),
        auth(0, r#"{"user":{"token":"$J"}}"#),
    ]
}
