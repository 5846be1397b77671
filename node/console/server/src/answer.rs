//! Which request gets what.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};

use crate::files::{Files, content_type};

/// What a page says that was asked of a program without the console.
const NOT_BUILT: &str = "This program was built without its console.\n\
    In its source directory: npm --prefix node/console ci && npm --prefix node/console run build\n\
    Then build it again with cargo.\n";

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
            name if name.strip_suffix(".localhost").is_some_and(|label| !label.is_empty()) => {
                Some(Self::Service)
            }
            _ => None,
        }
    }

    /// The file behind a path, which begins with a slash.
    fn file(self, path: &str) -> String {
        match self {
            Self::Console if path == "/" => "index.html".to_owned(),
            Self::Console => path.trim_start_matches('/').to_owned(),
            // Every page of a service begins with the one that sets up its tunnel.
            Self::Service => {
                format!("tunnel/{}", path.strip_prefix("/__vc/").unwrap_or("boot.html"))
            }
        }
    }
}

/// The answer to a request that came to this port.
pub(crate) fn answer<B>(files: Files, port: u16, request: &Request<B>) -> Response<Full<Bytes>> {
    let mut response = choose(files, port, request);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn choose<B>(files: Files, port: u16, request: &Request<B>) -> Response<Full<Bytes>> {
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    // A target with a host of its own is for proxies.
    let site = match (hosts.as_slice(), request.uri().authority()) {
        ([host], None) => host.to_str().ok().and_then(|host| Site::named(host, port)),
        _ => None,
    };
    let Some(site) = site else {
        let text = format!("This is not served here: open http://127.0.0.1:{port}/\n");
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if files("index.html").is_none() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT.to_owned());
    }
    let path = site.file(request.uri().path());
    // The tunnel's files are of no use on the origin that they are to be kept from.
    let file = (site == Site::Service || !path.starts_with("tunnel/")).then(|| files(&path));
    let Some(file) = file.flatten() else {
        return plain(StatusCode::NOT_FOUND, "There is no such file.\n".to_owned());
    };
    let tag = HeaderValue::try_from(&file.tag).ok();
    let mut response = match site {
        Site::Console if tag.as_ref().is_some_and(|tag| has(request.headers(), tag)) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        _ => Response::new(Full::new(file.content)),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    match site {
        Site::Console => console_headers(headers, &path, port, tag),
        Site::Service => service_headers(headers),
    }
    response
}

/// Whether the browser has the file already.
fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|given| {
        let given = given.trim();
        given == "*" || given.trim_start_matches("W/") == tag
    })
}

fn console_headers(headers: &mut HeaderMap, path: &str, port: u16, tag: Option<HeaderValue>) {
    // The names of assets have a hash of their content in them.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.extend(tag.map(|tag| (header::ETAG, tag)));
    // Nothing comes from elsewhere and nothing goes there; only services are shown in frames.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         frame-src http://*.localhost:{port}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    headers.extend(
        HeaderValue::try_from(policy).ok().map(|policy| (header::CONTENT_SECURITY_POLICY, policy)),
    );
    // A page elsewhere that opens this one gets no hold of it; this one keeps hold of the services that it opens.
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin-allow-popups"),
    );
}

fn service_headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
        .insert(HeaderName::from_static("service-worker-allowed"), HeaderValue::from_static("/"));
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type("answer.txt")));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
