//! Tests over TCP on the loopback interface.

use std::pin::pin;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::files::{File, Files};
use crate::{Extras, OneTimeLink, serve_files};

/// The files of a built console.
fn built(path: &str) -> Option<File> {
    let content = match path {
        "index.html" => "<console>",
        "assets/main-4f2a.js" => "console()",
        "tunnel/boot.html" => "<boot>",
        "tunnel/sw.js" => "tunnel()",
        _ => return None,
    };
    Some(File { content: Bytes::from_static(content.as_bytes()), etag: format!("\"{path}\"") })
}

/// A binary without the console.
fn not_built(_: &str) -> Option<File> {
    None
}

/// Starts a server of these files and returns its port.
async fn start(files: Files) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(serve_files(listener, files, Extras::default()));
    port
}

/// Sends a request and returns the response: the head in lower case, and the body.
async fn exchange(port: u16, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn get(port: u16, host: &str, path: &str) -> (String, String) {
    get_with(port, host, path, "").await
}

/// Sends a GET request with an additional header line.
async fn get_with(port: u16, host: &str, path: &str, line: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{line}\r\n");
    exchange(port, &request).await
}

#[tokio::test]
async fn loopback_names_serve_the_console_with_its_security_headers() {
    let port = start(built).await;
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"] {
        let (head, body) = get(port, &format!("{host}:{port}"), "/").await;
        assert!(head.starts_with("http/1.1 200"), "{host}: {head}");
        assert_eq!(body, "<console>");
        for line in [
            "content-type: text/html; charset=utf-8",
            "cache-control: no-cache",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin-allow-popups",
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ] {
            assert!(head.lines().any(|it| it == line), "no '{line}' in {head}");
        }
    }
}

#[tokio::test]
async fn service_names_serve_the_tunnel_on_every_path() {
    let port = start(built).await;
    let host = format!("web--shop.localhost:{port}");
    let boot = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; \
        connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for path in ["/", "/cart?item=1", "/index.html", "/tunnel/sw.js", "/__vc", "/__vc/boot.html"] {
        let (head, body) = get_with(port, &host, path, "Sec-Fetch-Mode: navigate\r\n").await;
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        assert_eq!(body, "<boot>", "{path}");
        for line in [boot, "cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(head.lines().any(|it| it == line), "no '{line}' in {head}");
        }
    }
    let (_, body) = get(port, &host, "/cart").await;
    assert_eq!(body, "<boot>", "a browser that sends no Sec-Fetch-Mode");
    let (head, _) = get_with(port, &host, "/logo.png", "Sec-Fetch-Mode: no-cors\r\n").await;
    assert!(head.starts_with("http/1.1 503"), "not a navigation: {head}");

    let (head, body) =
        get_with(port, &host, "/__vc/sw.js", "Sec-Fetch-Mode: same-origin\r\n").await;
    assert_eq!(body, "tunnel()");
    assert!(head.contains("content-type: text/javascript"), "{head}");
    assert!(head.contains("service-worker-allowed: /"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(!head.contains("content-security-policy"), "{head}");
    let (head, _) = get(port, &host, "/__vc/nothing.js").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test]
async fn the_console_origin_does_not_serve_the_tunnel() {
    let port = start(built).await;
    for path in ["/tunnel/sw.js", "/__vc/sw.js", "//tunnel/sw.js", "/nothing"] {
        let (head, _) = get(port, &format!("127.0.0.1:{port}"), path).await;
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
}

#[tokio::test]
async fn other_host_names_are_rejected() {
    let port = start(built).await;
    for host in [
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("evillocalhost:{port}"),
        format!(".localhost:{port}"),
        format!("web.shop.localhost:{port}"),
        format!("192.168.0.1:{port}"),
        format!("127.0.0.1@localhost:{port}"),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        "localhost:".to_owned(),
        String::new(),
    ] {
        let (head, body) = get(port, &host, "/").await;
        assert!(head.starts_with("http/1.1 421"), "'{host}': {head}");
        assert_eq!(body, format!("This host name is not served. Open http://127.0.0.1:{port}/\n"));
    }
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    for (what, request) in [
        ("none", "GET / HTTP/1.0\r\n\r\n".to_owned()),
        ("two", format!("GET / HTTP/1.1\r\n{own}{own}Connection: close\r\n\r\n")),
        (
            "one in the target",
            format!("GET http://evil.example/ HTTP/1.1\r\n{own}Connection: close\r\n\r\n"),
        ),
    ] {
        let (head, _) = exchange(port, &request).await;
        assert!(head.contains(" 421 "), "{what}: {head}");
    }
}

#[tokio::test]
async fn unchanged_files_are_not_sent_again() {
    let port = start(built).await;
    let host = format!("127.0.0.1:{port}");
    let (head, _) = get(port, &host, "/assets/main-4f2a.js").await;
    assert!(head.contains("cache-control: public, max-age=31536000, immutable"), "{head}");
    assert!(head.contains("etag: \"assets/main-4f2a.js\""), "{head}");
    for (given, status) in [
        ("\"index.html\"", "304"),
        ("\"older\", W/\"index.html\"", "304"),
        ("*", "304"),
        ("\"older\"", "200"),
    ] {
        let (head, body) = get_with(port, &host, "/", &format!("If-None-Match: {given}\r\n")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{given}: {head}");
        assert_eq!(body.is_empty(), status == "304");
    }
}

#[tokio::test]
async fn only_get_and_head_are_supported() {
    let port = start(built).await;
    let rest = format!("/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let (head, body) = exchange(port, &format!("HEAD {rest}")).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 9"), "{head}");
    assert_eq!(body, "");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (head, _) = exchange(port, &format!("{method} {rest}")).await;
        assert!(head.starts_with("http/1.1 405"), "{method}: {head}");
        assert!(head.contains("allow: get, head"), "{head}");
    }
}

#[tokio::test]
async fn a_binary_without_the_console_explains_how_to_build_it() {
    let port = start(not_built).await;
    for host in ["127.0.0.1", "web--shop.localhost"] {
        let (head, body) = get(port, &format!("{host}:{port}"), "/").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert!(body.contains("npm --prefix node/console run build"), "{body}");
    }
}

#[tokio::test]
async fn a_one_time_link_redirects_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let link = OneTimeLink::new("open/unguessable".to_owned(), "/#token=secret".to_owned(), ());
    tokio::spawn(serve_files(
        listener,
        built,
        Extras { one_time_link: Some(link), ..Extras::default() },
    ));
    let host = format!("127.0.0.1:{port}");
    let (head, _) = get(port, &host, "/open/guessed").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let (head, _) = get(port, &format!("web--shop.localhost:{port}"), "/open/unguessable").await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("secret"), "{head}");
    let (head, _) = get(port, &host, "/open/unguessable").await;
    assert!(head.starts_with("http/1.1 303"), "{head}");
    assert!(head.contains("location: /#token=secret"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let (head, _) = get(port, &host, "/open/unguessable").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test]
async fn a_connection_over_the_limit_is_served_when_another_closes() {
    let port = start(built).await;
    let mut idle = Vec::new();
    for _ in 0..crate::LIMITS.connections {
        idle.push(TcpStream::connect(("127.0.0.1", port)).await.expect("connected"));
    }
    let host = format!("127.0.0.1:{port}");
    let mut late = pin!(get(port, &host, "/"));
    let early = timeout(Duration::from_millis(200), &mut late).await;
    assert!(early.is_err(), "no permit is free");
    idle.pop();
    let (head, _) = late.await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn metrics_are_served_to_this_host_alone_and_without_a_console() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let metrics = Some(Box::new(|format| format!("{format:?}\n")) as crate::WriteMetrics);
    tokio::spawn(serve_files(listener, not_built, Extras { metrics, ..Extras::default() }));
    let here = format!("127.0.0.1:{port}");
    let (head, body) = get(port, &here, "/metrics").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, "Text\n");
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, body) = get_with(port, &here, "/metrics", accept).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert_eq!(body, "OpenMetrics\n");
    // A page whose own name resolves to 127.0.0.1, and a service in the browser.
    for host in [format!("evil.example:{port}"), format!("web.localhost:{port}")] {
        let (head, body) = get(port, &host, "/metrics").await;
        assert!(!head.starts_with("http/1.1 200") && body != "Text\n", "{head}");
    }
    let without = start(built).await;
    let (head, _) = get(without, &format!("127.0.0.1:{without}"), "/metrics").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test]
async fn a_process_says_whether_it_is_ready_to_this_host_alone() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let ready = std::sync::Arc::new(AtomicBool::new(false));
    let is_ready = std::sync::Arc::clone(&ready);
    let check = move || (!is_ready.load(Ordering::Relaxed)).then(|| "Docker is away".to_owned());
    let readiness = Some(Box::new(check) as crate::CheckReadiness);
    tokio::spawn(serve_files(listener, not_built, Extras { readiness, ..Extras::default() }));
    let host = format!("127.0.0.1:{port}");
    let (head, body) = get(port, &host, "/readyz").await;
    assert!(head.starts_with("http/1.1 503") && body == "Docker is away\n", "{head} {body}");
    assert!(get(port, &host, "/healthz").await.0.starts_with("http/1.1 200"));
    ready.store(true, Ordering::Relaxed);
    assert!(get(port, &host, "/readyz").await.0.starts_with("http/1.1 200"));
    let (head, _) = get(port, &format!("evil.example:{port}"), "/readyz").await;
    assert!(head.starts_with("http/1.1 421"), "{head}");
}
