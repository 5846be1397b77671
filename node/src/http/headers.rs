//! Headers as users write them, and as HTTP has them.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use vc_protocol::ServiceKey;
use vc_protocol::http::MAX_HEADERS;

/// Headers that are between two ends of one connection (RFC 9110, section 7.6.1), and so the node's business.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn passes(name: &HeaderName) -> bool {
    !HOP.contains(name) && name != "keep-alive" && name != "proxy-connection"
}

/// What a user sends along; where it names no host, the service is one. Errors: what is no header.
pub(super) fn read(given: &[(String, String)], service: &ServiceKey) -> Result<HeaderMap, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("a request has at most {MAX_HEADERS} headers"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let bad = || format!("'{name}' is not a header that can be sent");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).ok_or_else(bad)?;
        if passes(&key) {
            headers.append(key, value);
        }
    }
    if !headers.contains_key(header::HOST) {
        let host = format!("{}.{}", service.service, service.project);
        let value = HeaderValue::from_str(&host).map_err(|error| error.to_string())?;
        headers.insert(header::HOST, value);
    }
    Ok(headers)
}

/// What an instance sent along.
pub(super) fn write(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
    headers
        .iter()
        .filter(|(name, _)| passes(name))
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceKey {
        "shop/web".parse().expect("a service")
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn headers_pass_in_order_and_those_of_one_hop_do_not() {
        let given = pairs(&[
            ("accept", "text/html"),
            ("cookie", "a=1"),
            ("cookie", "b=gr\u{fc}n"),
            ("connection", "upgrade"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
        ]);
        let headers = read(&given, &service()).expect("headers");
        assert_eq!(headers.get("host").expect("a host"), "web.shop");
        let expected = pairs(&[
            ("accept", "text/html"),
            ("cookie", "a=1"),
            ("cookie", "b=gr\u{fc}n"),
            ("host", "web.shop"),
        ]);
        assert_eq!(write(&headers), expected);
    }

    #[test]
    fn what_would_break_out_of_a_header_is_refused() {
        for (name, value) in [("a b", "c"), ("a", "b\r\nc: d"), ("a", "\u{20ac}"), ("", "x")] {
            assert!(read(&pairs(&[(name, value)]), &service()).is_err(), "{name:?}: {value:?}");
        }
        let many = vec![("a".to_owned(), "b".to_owned()); MAX_HEADERS + 1];
        assert!(read(&many, &service()).is_err());
    }
}
