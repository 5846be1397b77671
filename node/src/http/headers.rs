//! Converts headers between the control protocol's pairs and HTTP's map.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use vc_protocol::ServiceKey;
use vc_protocol::http::MAX_HEADERS;

use super::error::FetchError;

/// Hop-by-hop headers (RFC 9110, section 7.6.1), which the node sets itself.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn is_end_to_end(name: &HeaderName) -> bool {
    !HOP_BY_HOP.contains(name) && name != "keep-alive" && name != "proxy-connection"
}

/// Returns the end-to-end headers of a client's request. Without a `host` header, the service's name becomes one.
pub(super) fn to_http(
    pairs: &[(String, String)],
    service: &ServiceKey,
) -> Result<HeaderMap, FetchError> {
    if pairs.len() > MAX_HEADERS {
        return Err(FetchError::TooManyHeaders);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let bad = || FetchError::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).ok_or_else(bad)?;
        if is_end_to_end(&key) {
            headers.append(key, value);
        }
    }
    if !headers.contains_key(header::HOST) {
        let host = format!("{}.{}", service.service, service.project);
        let value =
            HeaderValue::from_str(&host).map_err(|_| FetchError::Header("host".to_owned()))?;
        headers.insert(header::HOST, value);
    }
    Ok(headers)
}

/// Returns the end-to-end headers of an instance's response, values decoded as Latin-1.
pub(super) fn to_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
    headers
        .iter()
        .filter(|(name, _)| is_end_to_end(name))
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
    fn end_to_end_headers_keep_their_order_and_hop_by_hop_ones_are_dropped() {
        let given = pairs(&[
            ("accept", "text/html"),
            ("cookie", "a=1"),
            ("cookie", "b=gr\u{fc}n"),
            ("connection", "upgrade"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
        ]);
        let headers = to_http(&given, &service()).expect("headers");
        assert_eq!(headers.get("host").expect("a host"), "web.shop");
        let expected = pairs(&[
            ("accept", "text/html"),
            ("cookie", "a=1"),
            ("cookie", "b=gr\u{fc}n"),
            ("host", "web.shop"),
        ]);
        assert_eq!(to_pairs(&headers), expected);
    }

    #[test]
    fn header_injection_is_rejected() {
        for (name, value) in [("a b", "c"), ("a", "b\r\nc: d"), ("a", "\u{20ac}"), ("", "x")] {
            assert!(to_http(&pairs(&[(name, value)]), &service()).is_err(), "{name:?}: {value:?}");
        }
        let many = vec![("a".to_owned(), "b".to_owned()); MAX_HEADERS + 1];
        assert!(to_http(&many, &service()).is_err());
    }
}
