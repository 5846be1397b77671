//! Which request gets what.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use crate::Origin;
use crate::files::{Files, content_type};

/// What a page says that was asked of a program without the console.
const NOT_BUILT: &str = "This program was built without its console.\n\
    In its source directory: npm --prefix node/console ci && npm --prefix node/console run build\n\
    Then build it again with cargo.";

/// What may be done in the console: nothing comes from elsewhere, and nothing goes there.
const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What may be done in the page that sets up a tunnel. What comes through it has the policy of its service.
const BOOT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page that sets up a tunnel.
const BOOT: &str = "tunnel/boot.html";

/// What is served under a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    /// The console, which holds a token.
    Console,
    /// A service behind its tunnel, which must not come near it: another origin for each.
    Service,
}

impl Site {
    /// By the `Host` of a request that came to this port; `None`: none of ours. Whoever makes a name of his own point to
    /// 127.0.0.1 would else have a page of his read ours as one of the same origin.
    fn named(host: &str, port: u16) -> Option<Self> {
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

/// The answer to a request that came to this port.
pub(crate) fn answer<B>(origin: &Origin, request: &Request<B>) -> Response<Full<Bytes>> {
    let mut response = choose(origin, request);
    let headers = response.headers_mut();
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    response
}

fn choose<B>(origin: &Origin, request: &Request<B>) -> Response<Full<Bytes>> {
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    // A target with a host of its own is for proxies.
    let site = match (hosts.as_slice(), request.uri().authority()) {
        ([host], None) => host.to_str().ok().and_then(|host| Site::named(host, origin.port)),
        _ => None,
    };
    let Some(site) = site else {
        let text = format!("This is not served here: open http://127.0.0.1:{}/", origin.port);
        return plain(StatusCode::MISDIRECTED_REQUEST, &text);
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.");
        set(response.headers_mut(), header::ALLOW, "GET, HEAD");
        return response;
    }
    if (origin.files)("index.html").is_none() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT);
    }
    match site {
        Site::Console => console(origin, request),
        Site::Service => service(origin.files, request),
    }
}

/// A file of the console.
fn console<B>(origin: &Origin, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = match request.uri().path() {
        "/" => "index.html",
        path => path.trim_start_matches('/'),
    };
    if let Some(link) = origin.admission.as_ref().and_then(|it| it.take(request.method(), path)) {
        let mut response = plain(StatusCode::SEE_OTHER, "");
        response
            .headers_mut()
            .extend(HeaderValue::try_from(link).ok().map(|link| (header::LOCATION, link)));
        return response;
    }
    // The tunnel's files are of no use on the origin that they are to be kept from.
    let Some(file) = Some(path).filter(|path| !path.starts_with("tunnel/")).and_then(origin.files)
    else {
        return plain(StatusCode::NOT_FOUND, "There is no such file.");
    };
    let known = has(request.headers(), &file.tag);
    let mut response = Response::new(if known { Full::default() } else { Full::new(file.content) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, content_type(path));
    // The names of assets have a hash of their content in them.
    let cached = path.starts_with("assets/");
    let cache = if cached { "public, max-age=31536000, immutable" } else { "no-cache" };
    set(headers, header::CACHE_CONTROL, cache);
    headers.extend(HeaderValue::try_from(file.tag).ok().map(|tag| (header::ETAG, tag)));
    set(headers, header::CONTENT_SECURITY_POLICY, CONSOLE_POLICY);
    // A page elsewhere that opens this one gets no hold of it; this one keeps hold of the services that it opens.
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    set(headers, opener, "same-origin-allow-popups");
    response
}

/// A file of the tunnel, by the rules in its README.
fn service<B>(files: Files, request: &Request<B>) -> Response<Full<Bytes>> {
    let own = request.uri().path().strip_prefix("/__vc/");
    let navigates =
        request.headers().get("sec-fetch-mode").is_none_or(|mode| mode.as_bytes() == b"navigate");
    let path = match own {
        Some(name) => format!("tunnel/{name}"),
        None if navigates => BOOT.to_owned(),
        None => {
            let text =
                "This is a part of a service that came past its tunnel: load the page again.";
            return plain(StatusCode::SERVICE_UNAVAILABLE, text);
        }
    };
    let Some(file) = files(&path) else {
        return plain(StatusCode::NOT_FOUND, "There is no such file.");
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

/// Whether the browser has the file already.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.trim_start_matches("W/") == tag
    })
}

/// One line that is no page.
fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{line}\n")));
    *response.status_mut() = status;
    set(response.headers_mut(), header::CONTENT_TYPE, content_type("line.txt"));
    set(response.headers_mut(), header::CACHE_CONTROL, "no-store");
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}
