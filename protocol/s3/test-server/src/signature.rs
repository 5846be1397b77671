//! AWS Signature Version 4, verified.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::http::request::Parts;
use sha2::{Digest as _, Sha256};

use crate::{KEY_ID, SECRET};

/// Verifies a request. Returns the code that S3 refuses it with.
pub(crate) fn verify(head: &Parts, body: &[u8]) -> Result<(), &'static str> {
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|it| it.to_str().ok());
        value.unwrap_or_default().trim().to_owned()
    };
    let authorization = header("authorization");
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("AccessDenied")?;
    let field = |name: &str| {
        let mut fields = fields.split(',').map(str::trim);
        fields.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')).ok_or("AccessDenied")
    };
    let (credential, signed) = (field("Credential")?, field("SignedHeaders")?);
    let (key_id, scope) = credential.split_once('/').ok_or("AccessDenied")?;
    if key_id != KEY_ID {
        return Err("InvalidAccessKeyId");
    }
    let content = header("x-amz-content-sha256");
    if content != HEXLOWER.encode(&Sha256::digest(body)) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let mut query: Vec<String> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|it| !it.is_empty())
        .map(|it| if it.contains('=') { it.to_owned() } else { format!("{it}=") })
        .collect();
    query.sort();
    let headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\n{content}",
        head.method,
        head.uri.path(),
        query.join("&")
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        header("x-amz-date"),
        HEXLOWER.encode(&Sha256::digest(canonical))
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part.as_bytes());
    }
    let expected = HEXLOWER.encode(&hmac(&key, to_sign.as_bytes()));
    if field("Signature")? == expected { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}
