//! Converts headers between the control protocol's pairs and HTTP's map.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use vc_protocol::ServiceKey;
use vc_protocol::http::MAX_HEADERS;

use super::error::FetchError;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
    let (mut headers, mut transfer_encoding) = (HeaderMap::new(), false);
    for (name, value) in pairs {
        let bad = || FetchError::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).ok_or_else(bad)?;
        transfer_encoding |= key == header::TRANSFER_ENCODING;
        if is_end_to_end(&key) {
            headers.append(key, value);
        }
    }
    check_framing(&headers, transfer_encoding)?;
    if !headers.contains_key(header::HOST) {
        let host = format!("{}.{}", service.service, service.project);
        let value =
            HeaderValue::from_str(&host).map_err(|_| FetchError::Header("host".to_owned()))?;
        headers.insert(header::HOST, value);
    }
    Ok(headers)
}

/// Why two programs may disagree where a message ends, or which host it is for: request smuggling (RFC 9112, sections 3.2
/// and 6.3).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AmbiguousHeaders {
    #[error("several {0} headers")]
    Several(HeaderName),
    #[error("both a transfer-encoding and a content-length header")]
    TwoLengths,
}

/// Checks that headers say only once how long the message is and for which host.
fn check_framing(headers: &HeaderMap, transfer_encoding: bool) -> Result<(), AmbiguousHeaders> {
    for name in [header::CONTENT_LENGTH, header::HOST] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(AmbiguousHeaders::Several(name));
        }
    }
    if transfer_encoding && headers.contains_key(header::CONTENT_LENGTH) {
        return Err(AmbiguousHeaders::TwoLengths);
    }
    Ok(())
}

/// Checks the headers of an instance's response.
pub(super) fn check_response(headers: &HeaderMap) -> Result<(), AmbiguousHeaders> {
    check_framing(headers, headers.contains_key(header::TRANSFER_ENCODING))
}

/// Sets `X-Forwarded-For` to the client's address alone, whatever the client has sent: what an instance believes about its
/// clients comes from this node. `X-Forwarded-Host` and `-Proto` are the client's to say.
pub(super) fn set_forwarded_for(headers: &mut HeaderMap, client: Option<IpAddr>) {
    headers.remove(&X_FORWARDED_FOR);
    let value = client.map(|ip| HeaderValue::from_str(&ip.to_canonical().to_string()));
    if let Some(Ok(value)) = value {
        headers.insert(X_FORWARDED_FOR, value);
    }
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
    fn a_client_cannot_set_its_own_address() {
        let mut forged = to_http(&pairs(&[("X-Forwarded-For", "192.0.2.1")]), &service());
        let headers = forged.as_mut().expect("headers");
        set_forwarded_for(headers, Some("::ffff:192.0.2.9".parse().expect("an address")));
        let all: Vec<_> = headers.get_all(&X_FORWARDED_FOR).iter().collect();
        assert_eq!(all, ["192.0.2.9"]);
        set_forwarded_for(headers, None);
        assert!(!headers.contains_key(&X_FORWARDED_FOR));
    }

    #[test]
    fn ambiguous_lengths_and_hosts_are_rejected() {
        for (ambiguous, why) in [
            (&[("content-length", "1"), ("Content-Length", "1")], "several content-length headers"),
            (&[("host", "a"), ("Host", "b")], "several host headers"),
            (
                &[("transfer-encoding", "chunked"), ("content-length", "1")],
                "both a transfer-encoding and a content-length header",
            ),
        ] {
            let refused = to_http(&pairs(ambiguous), &service()).expect_err("ambiguous");
            assert_eq!(refused.to_string(), format!("the request has {why}"));
            let mut response = HeaderMap::new();
            for (name, value) in ambiguous {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                response.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(check_response(&response).expect_err("ambiguous").to_string(), why);
        }
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
