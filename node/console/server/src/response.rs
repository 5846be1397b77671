//! Maps requests to responses: by host name, method and path.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use crate::files::{Files, content_type};
use crate::{CheckReadiness, Extras, MetricsFormat, Server, WriteMetrics};

/// The response of a binary that was compiled before the console was built.
const NOT_BUILT: &str = "This program was built without the console.\n\
    Run in the source directory: npm --prefix node/console ci && npm --prefix node/console run build\n\
    Then run cargo build again.";

/// The content security policy of the console: no resources or connections of other origins.
const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The content security policy of the page that installs the tunnel. Pages of a service have the policy of that service.
const BOOT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page that installs the tunnel's service worker.
const BOOT: &str = "tunnel/boot.html";

/// The site that a host name serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    /// The console, which holds a token.
    Console,
    /// A service behind its tunnel: untrusted, so each has an origin of its own.
    Service,
}

impl Site {
    /// Returns the site for a `Host` header on this port; `None` for other names. Without this check, a page whose own
    /// name resolves to 127.0.0.1 (DNS rebinding) would be same-origin with the console.
    fn from_host(host: &str, port: u16) -> Option<Self> {
        let authority: Authority = host.parse().ok()?;
        if authority.port_u16().unwrap_or(80) != port || host.contains('@') {
            return None;
        }
        match authority.host().to_ascii_lowercase().as_str() {
            "127.0.0.1" | "localhost" | "[::1]" => Some(Self::Console),
            name => {
                let label = name.strip_suffix(".localhost")?;
                (!label.is_empty() && !label.contains('.')).then_some(Self::Service)
            }
        }
    }
}

/// Returns the response to a request.
pub(crate) fn respond<B>(server: &Server, request: &Request<B>) -> Response<Full<Bytes>> {
    let mut response = route(server, request);
    let headers = response.headers_mut();
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    response
}

fn route<B>(server: &Server, request: &Request<B>) -> Response<Full<Bytes>> {
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    // Requests in absolute form are for proxies.
    let site = match (hosts.as_slice(), request.uri().authority()) {
        ([host], None) => host.to_str().ok().and_then(|host| Site::from_host(host, server.port)),
        _ => None,
    };
    let Some(site) = site else {
        let text = format!("This host name is not served. Open http://127.0.0.1:{}/", server.port);
        return plain(StatusCode::MISDIRECTED_REQUEST, &text);
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response =
            plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported.");
        set(response.headers_mut(), header::ALLOW, "GET, HEAD");
        return response;
    }
    let Extras { metrics, readiness, .. } = &server.extras;
    let of_process = of_process(request, metrics.as_ref(), readiness.as_ref());
    if let Some(response) = of_process.filter(|_| site == Site::Console) {
        return response;
    }
    if (server.files)("index.html").is_none() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT);
    }
    match site {
        Site::Console => console(server, request),
        Site::Service => service(server.files, request),
    }
}

/// Returns what this process says of itself: its metrics, that it lives, and whether it can do its work. `None` for other paths.
pub fn of_process<B>(
    request: &Request<B>,
    metrics: Option<&WriteMetrics>,
    readiness: Option<&CheckReadiness>,
) -> Option<Response<Full<Bytes>>> {
    match request.uri().path() {
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT).and_then(|it| it.to_str().ok());
            let format = MetricsFormat::accepted(accept.unwrap_or_default());
            let mut response = Response::new(Full::from(metrics?(format)));
            set(response.headers_mut(), header::CONTENT_TYPE, format.content_type());
            set(response.headers_mut(), header::CACHE_CONTROL, "no-store");
            Some(response)
        }
        "/healthz" => readiness.map(|_| plain(StatusCode::OK, "ok")),
        "/readyz" => Some(match readiness?() {
            None => plain(StatusCode::OK, "ok"),
            Some(problem) => plain(StatusCode::SERVICE_UNAVAILABLE, &problem),
        }),
        _ => None,
    }
}

/// Serves a file of the console, or the redirect of the one-time link.
fn console<B>(server: &Server, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = match request.uri().path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    let one_time_link = server.extras.one_time_link.as_ref();
    if let Some(link) = one_time_link.and_then(|it| it.take(request.method(), path)) {
        let mut response = plain(StatusCode::SEE_OTHER, "");
        response
            .headers_mut()
            .extend(HeaderValue::try_from(link).ok().map(|link| (header::LOCATION, link)));
        return response;
    }
    // The tunnel must not run on the console's origin.
    let Some(file) = Some(path).filter(|path| !path.starts_with("tunnel/")).and_then(server.files)
    else {
        return plain(StatusCode::NOT_FOUND, "File not found.");
    };
    let unchanged = if_none_match(request.headers(), &file.etag);
    let body = if unchanged { Full::default() } else { Full::new(file.content) };
    let mut response = Response::new(body);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, content_type(path));
    // The names of assets contain a hash of their content.
    let immutable = path.starts_with("assets/");
    let cache = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    set(headers, header::CACHE_CONTROL, cache);
    headers.extend(HeaderValue::try_from(file.etag).ok().map(|etag| (header::ETAG, etag)));
    set(headers, header::CONTENT_SECURITY_POLICY, CONSOLE_POLICY);
    // Isolates the console from pages that open it, but not from the services that it opens itself.
    let opener_policy = HeaderName::from_static("cross-origin-opener-policy");
    set(headers, opener_policy, "same-origin-allow-popups");
    response
}

/// Serves a file of the tunnel, by the rules in `tunnel/README.md`.
fn service<B>(files: Files, request: &Request<B>) -> Response<Full<Bytes>> {
    let tunnel_file = request.uri().path().strip_prefix("/__vc/");
    let is_navigation =
        request.headers().get("sec-fetch-mode").is_none_or(|mode| mode.as_bytes() == b"navigate");
    let path = match tunnel_file {
        Some(name) => format!("tunnel/{name}"),
        None if is_navigation => BOOT.to_owned(),
        None => {
            // The service worker did not intercept the request.
            let text = "The tunnel to this service is not active. Reload the page.";
            return plain(StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    let Some(file) = files(&path) else {
        return plain(StatusCode::NOT_FOUND, "File not found.");
    };
    let mut response = Response::new(Full::new(file.content));
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, content_type(&path));
    set(headers, header::CACHE_CONTROL, "no-store");
    if path == BOOT {
        set(headers, header::CONTENT_SECURITY_POLICY, BOOT_POLICY);
    }
    if path == "tunnel/sw.js" {
        set(headers, HeaderName::from_static("service-worker-allowed"), "/");
    }
    response
}

/// Returns whether `If-None-Match` contains the entity tag.
fn if_none_match(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.trim_start_matches("W/") == etag
    })
}

/// Returns a response of one line of plain text.
/// Returns a response of one line of text.
pub fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{line}\n")));
    *response.status_mut() = status;
    set(response.headers_mut(), header::CONTENT_TYPE, content_type("line.txt"));
    set(response.headers_mut(), header::CACHE_CONTROL, "no-store");
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
