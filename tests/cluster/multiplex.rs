//! Multiplexed sessions on one stream, as browsers use them: the live view, and HTTP requests to instances.

use std::task::Poll;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use serde_json::{Value, json};
use vc_protocol::Keypair;

use crate::harness::cluster::Cluster;
use crate::harness::ports::Port;
use crate::harness::sleeping_service;
use crate::unauthenticated_peer::{SOON, TestPeer, ended, frame};

/// A client with one stream that carries many sessions.
pub struct User {
    _peer: TestPeer,
    /// Requests for new sessions.
    opener: tokio::sync::mpsc::Sender<tokio::sync::oneshot::Sender<yamux::Stream>>,
}

/// A session of a [`User`].
struct Session(yamux::Stream);

/// Reads a frame; `None`: the stream ended.
async fn receive(stream: &mut (impl futures::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

/// Connects with a token and switches the stream to multiplexing.
async fn multiplexed(cluster: &Cluster, at: usize, token: &str) -> (TestPeer, libp2p::Stream) {
    let id = cluster.vc(at, &["--output", "json", "status"]).json()["cluster"].to_string();
    let address = cluster.nodes[at].address();
    let key = Keypair::generate_ed25519();
    let peer = TestPeer::connect(key, &id, address).await.expect("connected");
    let mut stream = peer.open_auth().await;
    let mut request = async |value: Value| {
        let bytes = frame(value.to_string().as_bytes());
        stream.write_all(&bytes).await.expect("written");
        stream.flush().await.expect("flushed");
        let answer = receive(&mut stream).await.expect("an answer");
        serde_json::from_slice::<Value>(&answer).expect("JSON")
    };
    assert!(request(json!({"version": 1})).await["certificate"].is_string());
    let welcome = request(json!({"user": {"token": token}})).await;
    assert!(welcome["user"]["role"].is_string(), "{welcome}");
    assert_eq!(request(json!({"op": "multiplex"})).await, json!({"reply": "ready"}));
    (peer, stream)
}

impl User {
    /// Connects to a node with a token.
    pub async fn attach(cluster: &Cluster, at: usize, token: &str) -> Self {
        let (peer, stream) = multiplexed(cluster, at, token).await;
        let (opener, mut requests) =
            tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<yamux::Stream>>(1);
        tokio::spawn(async move {
            let mut config = yamux::Config::default();
            // No limits on this side: the test observes those of the node.
            config.set_max_connection_receive_window(None);
            config.set_max_num_streams(4096);
            let mut connection = yamux::Connection::new(stream, config, yamux::Mode::Client);
            let mut waiting: Vec<tokio::sync::oneshot::Sender<yamux::Stream>> = Vec::new();
            std::future::poll_fn(|cx| {
                while let Poll::Ready(request) = requests.poll_recv(cx) {
                    match request {
                        Some(sender) => waiting.push(sender),
                        None => return Poll::Ready(()),
                    }
                }
                while !waiting.is_empty()
                    && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
                {
                    let (Ok(stream), Some(sender)) = (opened, waiting.pop()) else {
                        return Poll::Ready(());
                    };
                    let _ = sender.send(stream);
                }
                // The connection makes progress only while it is polled.
                match connection.poll_next_inbound(cx) {
                    Poll::Ready(None | Some(Err(_))) => Poll::Ready(()),
                    Poll::Ready(Some(Ok(_))) => panic!("the node opens no streams"),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
        });
        Self { _peer: peer, opener }
    }

    /// Opens a session.
    async fn open(&self) -> Session {
        self.try_open().await.expect("the connection is open")
    }

    /// Opens a session; `None`: the connection is closed.
    async fn try_open(&self) -> Option<Session> {
        let (sender, stream) = tokio::sync::oneshot::channel();
        self.opener.send(sender).await.ok()?;
        stream.await.ok().map(Session)
    }

    /// Sends a request in a new session and returns the answer.
    pub async fn ask(&self, request: Value) -> Value {
        let mut session = self.open().await;
        session.send(request).await;
        session.answer().await
    }

    /// Sends an HTTP request in a new session. Returns the head and the body; `None`: the body was truncated.
    async fn fetch(&self, request: Value, body: Option<&[u8]>) -> (Value, Option<Vec<u8>>) {
        let mut session = self.open().await;
        session.send(request).await;
        if let Some(body) = body {
            for piece in body.chunks(60_000) {
                session.0.write_all(&frame(piece)).await.expect("written");
            }
            session.0.write_all(&frame(&[])).await.expect("written");
        }
        session.0.flush().await.expect("flushed");
        let head = session.answer().await;
        let mut all = Vec::new();
        loop {
            match receive(&mut session.0).await {
                Some(piece) if piece.is_empty() => return (head, Some(all)),
                Some(piece) => all.extend(piece),
                None => return (head, None),
            }
        }
    }
}

impl Session {
    /// Sends a frame.
    async fn send(&mut self, value: Value) {
        self.0.write_all(&frame(value.to_string().as_bytes())).await.expect("written");
        self.0.flush().await.expect("flushed");
    }

    /// Receives a frame. Panics after [`SOON`].
    async fn answer(&mut self) -> Value {
        let bytes = tokio::time::timeout(SOON, receive(&mut self.0)).await.expect("in time");
        serde_json::from_slice(&bytes.expect("an answer")).expect("JSON")
    }
}

/// Runs a future to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

/// Deploys a service with one instance that serves these files over HTTP. Returns its port.
fn web(cluster: &Cluster, files: &[(&str, &[u8])]) -> u16 {
    let dir = cluster.path("www");
    std::fs::create_dir_all(&dir).expect("a directory");
    for (name, content) in files {
        std::fs::write(dir.join(name), content).expect("written");
    }
    let port = Port::free().number;
    let dir = dir.display();
    cluster.deploy(
        0,
        &format!(
            "name: shop\nservices:\n  web:\n    image: vc-test:1\n    \
             command: [busybox, httpd, -f, -p, '127.0.0.1:{port}', -h, '{dir}']\n    \
             ports: ['{port}:{port}']\n    stop_grace_period: 1s\n"
        ),
    );
    port
}

#[test]
fn the_view_is_pushed_in_full_and_then_in_changes() {
    let cluster = Cluster::of(2);
    let token = cluster.user_token(0, "eve", "viewer");
    wait(async {
        let user = User::attach(&cluster, 1, &token).await;
        let mut live = user.open().await;
        live.send(json!({"op": "live"})).await;
        let first = live.answer().await["value"].take();
        assert_eq!(first["nodes"].as_array().map(Vec::len), Some(2), "{first}");
        assert_eq!(first["status"]["nodes_up"], 2);
        assert_eq!(first["services"], json!([]));
        cluster.deploy(0, &sleeping_service("shop", "web", 2));
        let mut seen = Vec::new();
        let runs = async {
            loop {
                let update = live.answer().await["value"].take();
                if update["instances"].as_array().is_some_and(|rows| {
                    rows.len() == 2 && rows.iter().all(|row| row["state"] == "running")
                }) {
                    return;
                }
                seen.push(update);
            }
        };
        tokio::time::timeout(SOON, runs).await.expect("the running instances are pushed");
        // Unchanged parts are not pushed again.
        assert!(
            seen.iter().filter(|update| !update["services"].is_null()).count() < 20,
            "{seen:?}"
        );
    });
}

#[test]
fn what_is_pushed_to_a_project_token_shows_nothing_of_another_project() {
    let cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("bank", "vault", 1));
    let token = cluster.limited_token(0, "ann", "viewer", &["--project", "shop"]);
    wait(async {
        let user = User::attach(&cluster, 1, &token).await;
        let mut pushed = Vec::new();
        for request in [
            json!({"op": "live"}),
            json!({"op": "events", "follow": true}),
            json!({"op": "watch", "services": []}),
        ] {
            let mut session = user.open().await;
            session.send(request).await;
            pushed.push(session);
        }
        // The other project's events come before that of the own one.
        cluster.vc(0, &["scale", "bank/vault=3"]).done();
        cluster.vc(0, &["restart", "bank/vault"]).done();
        cluster.deploy(0, &sleeping_service("shop", "web", 1));
        for mut session in pushed {
            let runs = async {
                loop {
                    let text = session.answer().await.to_string();
                    assert!(!text.contains("bank") && !text.contains("vault"), "{text}");
                    if text.contains("shop/web.1") && text.contains("runs on")
                        || text.contains("\"running\":1")
                    {
                        return;
                    }
                }
            };
            tokio::time::timeout(SOON, runs).await.expect("the own project is pushed");
        }
        let named = json!({"op": "watch", "services": ["shop/web", "bank/vault"]});
        let fetch = json!({"op": "fetch", "service": "bank/vault", "port": null, "method": "GET", "target": "/", "headers": []});
        let socket = json!({"op": "socket", "service": "bank/vault", "port": null, "target": "/", "headers": [], "protocols": []});
        for request in [named, fetch, socket] {
            let refused = user.ask(request.clone()).await;
            assert_eq!(refused["value"]["code"], "permission_denied", "{request}: {refused}");
        }
    });
}

#[test]
fn a_quiet_followed_stream_carries_keep_alives() {
    let cluster = Cluster::of(1);
    let token = cluster.limited_token(0, "eve", "viewer", &["--logs"]);
    cluster.deploy(0, &sleeping_service("shop", "web", 1));
    wait(async {
        let user = User::attach(&cluster, 0, &token).await;
        let logs = json!({"op": "logs", "service": "shop/web", "replica": null, "follow": true, "tail": null, "since": null});
        let requests = [logs, json!({"op": "events", "follow": true})];
        futures::future::join_all(requests.map(async |request| {
            let mut session = user.open().await;
            session.send(request).await;
            // `answer` panics unless an answer or a keep-alive arrives in time.
            while session.answer().await != json!({"reply": "keep_alive"}) {}
        }))
        .await;
    });
}

#[test]
fn a_viewer_reads_and_opens_services_and_cannot_change_anything() {
    let cluster = Cluster::of(2);
    let port = web(&cluster, &[("hello.txt", b"hello from the mesh")]);
    let token = cluster.user_token(0, "eve", "viewer");
    wait(async {
        let user = User::attach(&cluster, 1, &token).await;
        let refused = user.ask(json!({"op": "scale", "service": "web", "replicas": 3})).await;
        assert_eq!(refused["reply"], "error");
        assert!(
            refused["value"]["message"].as_str().is_some_and(|it| it.contains("deployer")),
            "{refused}"
        );
        let twice = user.ask(json!({"op": "multiplex"})).await;
        assert_eq!(twice["reply"], "error");

        let get = |target: &str, port: Value| {
            json!({"op": "fetch", "service": "web", "port": port, "method": "GET", "target": target,
                   "headers": [["accept", "*/*"]]})
        };
        let (head, body) = user.fetch(get("/hello.txt", json!(port)), None).await;
        assert_eq!(head["value"]["status"], 200, "{head}");
        assert_eq!(body.as_deref(), Some(b"hello from the mesh".as_slice()));
        let (head, body) = user.fetch(get("/none", Value::Null), None).await;
        assert_eq!(head["value"]["status"], 404, "{head}");
        assert!(body.is_some(), "an answer with another status has a body");
        for (request, word) in [
            (get("/hello.txt", json!(1)), "does not publish port 1"),
            (get("hello.txt", Value::Null), "does not begin with '/'"),
            (
                json!({"op": "fetch", "service": "attic", "port": null, "method": "GET", "target": "/", "headers": []}),
                "no service 'attic'",
            ),
            (
                json!({"op": "fetch", "service": "web", "port": null, "method": "GE T", "target": "/", "headers": []}),
                "is malformed: invalid HTTP method",
            ),
            (
                json!({"op": "fetch", "service": "web", "port": null, "method": "GET", "target": "/", "headers": [["a", "b\r\nc: d"]]}),
                "is not a header that can be sent",
            ),
        ] {
            let (head, _) = user.fetch(request, None).await;
            assert!(
                Some(head["value"].to_string()).is_some_and(|it| it.contains(word)),
                "{word}: {head}"
            );
        }
    });
}

#[test]
fn a_large_http_body_arrives_complete_from_another_node() {
    let cluster = Cluster::of(2);
    let content: Vec<u8> = (0..8_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let port = web(&cluster, &[("large", &content)]);
    let on = cluster.ps(0)[0]["node_name"].as_str().expect("a node").to_owned();
    // Through the node of the instance, and through the other.
    for at in 0..2 {
        let token = cluster.user_token(at, "ada", "viewer");
        wait(async {
            let user = User::attach(&cluster, at, &token).await;
            let request = json!({"op": "fetch", "service": "shop/web", "port": port, "method": "GET",
                "target": "/large", "headers": []});
            let (head, body) = user.fetch(request, None).await;
            assert_eq!(head["value"]["status"], 200, "{head}; it runs on {on}");
            assert!(body == Some(content.clone()), "the body through node {at} differs");
        });
    }
}

#[test]
fn a_session_that_sends_garbage_or_opens_too_many_streams_is_closed_alone() {
    let cluster = Cluster::of(1);
    let token = cluster.user_token(0, "eve", "viewer");
    wait(async {
        let well = User::attach(&cluster, 0, &token).await;
        let mut garbage = multiplexed(&cluster, 0, &token).await;
        garbage.1.write_all(&[0xff; 4096]).await.expect("written");
        garbage.1.flush().await.expect("flushed");
        assert!(ended(&mut garbage.1).await, "data that is not yamux ends the stream");

        // Each session follows the live view, and so stays open.
        let greedy = User::attach(&cluster, 0, &token).await;
        let mut held = Vec::new();
        let open_all = async {
            while let Some(mut session) = greedy.try_open().await {
                let live = frame(json!({"op": "live"}).to_string().as_bytes());
                if session.0.write_all(&live).await.is_err() || session.0.flush().await.is_err() {
                    break;
                }
                held.push(session);
                assert!(held.len() < 2000, "the node does not limit sessions");
            }
        };
        tokio::time::timeout(SOON, open_all).await.expect("the node closes the connection");

        let mut large = well.open().await;
        large.0.write_all(&u32::MAX.to_be_bytes()).await.expect("written");
        large.0.flush().await.expect("flushed");
        assert_eq!(receive(&mut large.0).await, None, "a frame over the limit ends the session");
        assert_eq!(well.ask(json!({"op": "status"})).await["reply"], "status");
    });
    cluster.all_up();
}
