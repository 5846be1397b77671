//! Forged credentials, each refused: what an attacker makes who has read tokens, is a member, or was one of another cluster.

#![allow(clippy::expect_used, reason = "tests")]

use data_encoding::BASE64URL_NOPAD as BASE64;
use serde_json::{Value, json};
use vc_protocol::token::{
    Issuer, NodeRole, Scope, TokenError, UserRole, decode_unverified, issue_certificate, verify,
    verify_certificate,
};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId};

const NOW: Millis = 1_800_000_000_000;
const HOUR: Millis = 3_600_000;
const HEADER: &str = r#"{"typ":"JWT","alg":"EdDSA"}"#;

/// A cluster with a server and a worker, and the tokens that a user of it may have seen.
struct Cluster {
    root: Keypair,
    server: Keypair,
    worker: Keypair,
    id: ClusterId,
    /// Certificates of both.
    server_certificate: String,
    worker_certificate: String,
    /// A viewer's token.
    token: String,
}

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

fn id(key: &Keypair) -> NodeId {
    NodeId::of(&key.public()).expect("ed25519")
}

impl Cluster {
    /// Returns a cluster whose keys follow from a number.
    fn new(n: u8) -> Self {
        let (root, server, worker) = (key(n), key(n + 1), key(n + 2));
        let certificate =
            |of: &Keypair, role| issue_certificate(&root, id(of), role, NOW).expect("signed");
        let server_certificate = certificate(&server, NodeRole::Server);
        let worker_certificate = certificate(&worker, NodeRole::Worker);
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        let issuer = Issuer { cluster, key: &server, certificate: &server_certificate };
        let token = issuer
            .issue(Scope::User(UserRole::Viewer), "ann", vec![], 7, NOW, HOUR)
            .expect("signed");
        Self { root, server, worker, id: cluster, server_certificate, worker_certificate, token }
    }

    /// Returns the claims of an admin's token that `signer` says to issue with this certificate.
    fn claims(&self, signer: &Keypair, certificate: &str) -> Value {
        json!({
            "aud": self.id, "iss": id(signer), "sub": "eve", "jti": "0000000000000001", "iat": NOW / 1000,
            "exp": (NOW + HOUR) / 1000, "scope": {"user": "admin"}, "issuer": certificate,
        })
    }

    /// Returns the claims of a server's admin token with some of them replaced, or removed by null.
    fn with(&self, changes: &Value) -> Value {
        let mut claims = self.claims(&self.server, &self.server_certificate);
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        claims
    }
}

/// Signs a header and claims, given as text so that they may be no JSON.
fn sign(header: &str, claims: &str, signer: &Keypair) -> String {
    let text = format!("{}.{}", BASE64.encode(header.as_bytes()), BASE64.encode(claims.as_bytes()));
    let signature = signer.sign(text.as_bytes()).expect("ed25519");
    format!("{text}.{}", BASE64.encode(&signature))
}

/// Returns a token with one of its three parts replaced.
fn replace(token: &str, part: usize, by: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[part] = by;
    parts.join(".")
}

/// Returns the HMAC-SHA256 of a text (RFC 2104).
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let pad = |with: u8| (0..64).map(|i| key.get(i).unwrap_or(&0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36), text.as_bytes()].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}

/// Returns forged tokens, each with what it tries.
fn forged(own: &Cluster, other: &Cluster) -> Vec<(&'static str, String)> {
    let admin = own.claims(&own.server, &own.server_certificate).to_string();
    let by_server = |changes: Value| sign(HEADER, &own.with(&changes).to_string(), &own.server);
    let payload = BASE64.encode(admin.as_bytes());
    let unsigned = |header: &str| format!("{}.{payload}.", BASE64.encode(header.as_bytes()));
    let public = own.server.public().try_into_ed25519().expect("ed25519").to_bytes();
    let hs256 = |key: &[u8]| {
        let text = format!("{}.{payload}", BASE64.encode(br#"{"alg":"HS256","typ":"JWT"}"#));
        let mac = hmac(key, &text);
        format!("{text}.{}", BASE64.encode(&mac))
    };
    let eve = key(99);
    let signed_by_eve = |header: &str| sign(header, &admin, &eve);
    let signature = own.token.rsplit('.').next().expect("a signature");
    let eves_certificate =
        issue_certificate(&eve, id(&eve), NodeRole::Server, NOW).expect("signed");
    // Made by the server, which may sign no certificates.
    let by_server_certified = {
        let issuer =
            Issuer { cluster: own.id, key: &own.server, certificate: &own.server_certificate };
        let member = Scope::Member(NodeRole::Server);
        issuer.issue(member, &id(&eve).to_string(), vec![], 9, NOW, HOUR).expect("signed")
    };
    let with_issuer = |signer: &Keypair, certificate: &str| {
        sign(HEADER, &own.claims(signer, certificate).to_string(), signer)
    };
    let jwk = format!(
        r#"{{"alg":"EdDSA","jwk":{{"kty":"OKP","crv":"Ed25519","x":"{}"}}}}"#,
        BASE64.encode(&eve.public().try_into_ed25519().expect("ed25519").to_bytes())
    );
    vec![
        ("alg none", unsigned(r#"{"alg":"none","typ":"JWT"}"#)),
        ("alg None", unsigned(r#"{"alg":"None"}"#)),
        ("alg empty", unsigned(r#"{"alg":""}"#)),
        ("no alg", unsigned(r#"{"typ":"JWT"}"#)),
        ("no signature", unsigned(HEADER)),
        ("HS256 with the public key", hs256(&public)),
        ("HS256 with the key's text", hs256(id(&own.server).to_string().as_bytes())),
        ("HS256 with an empty key", hs256(b"")),
        ("RS256", sign(r#"{"alg":"RS256"}"#, &admin, &own.server)),
        ("ES256", sign(r#"{"alg":"ES256"}"#, &admin, &own.server)),
        ("signed by another key", signed_by_eve(HEADER)),
        ("jwk in the header", signed_by_eve(&jwk)),
        (
            "jku in the header",
            signed_by_eve(r#"{"alg":"EdDSA","jku":"https://evil.example/keys"}"#),
        ),
        (
            "x5u in the header",
            signed_by_eve(r#"{"alg":"EdDSA","x5u":"https://evil.example/c.pem"}"#),
        ),
        ("x5c in the header", signed_by_eve(r#"{"alg":"EdDSA","x5c":["AAAA"]}"#)),
        ("kid with a path", signed_by_eve(r#"{"alg":"EdDSA","kid":"../../dev/null"}"#)),
        ("crit in the header", signed_by_eve(r#"{"alg":"EdDSA","crit":["exp"],"exp":1}"#)),
        ("a nested token", signed_by_eve(r#"{"alg":"EdDSA","cty":"JWT","zip":"DEF"}"#)),
        ("cut signature", own.token[..own.token.len() - 4].to_owned()),
        ("doubled signature", format!("{}{signature}", own.token)),
        ("a fourth part", format!("{}.{signature}", own.token)),
        ("padded signature", format!("{}==", own.token)),
        ("the signature of another token", replace(&sign(HEADER, &admin, &eve), 2, signature)),
        ("another payload", replace(&own.token, 1, &payload)),
        (
            "another header",
            replace(&own.token, 0, &BASE64.encode(br#"{"alg":"EdDSA","typ":"jwt"}"#)),
        ),
        ("signature of zeros", replace(&own.token, 2, &BASE64.encode(&[0; 64]))),
        ("another cluster", other.token.clone()),
        ("another audience", by_server(json!({"aud": other.id}))),
        ("a list of audiences", by_server(json!({"aud": [own.id, other.id]}))),
        ("no audience", by_server(json!({"aud": null}))),
        ("expired", by_server(json!({"exp": NOW / 1000}))),
        ("no expiry", by_server(json!({"exp": null}))),
        ("a negative expiry", by_server(json!({"exp": -1}))),
        (
            "an expiry of 2^64",
            sign(
                HEADER,
                &admin.replace(&((NOW + HOUR) / 1000).to_string(), "18446744073709551616"),
                &own.server,
            ),
        ),
        ("an expiry as text", by_server(json!({"exp": "1900000000"}))),
        ("an expiry as a fraction", by_server(json!({"exp": 1.9e9}))),
        ("issued in the future", by_server(json!({"iat": NOW / 1000 + 61}))),
        ("issued at 2^64 - 1", by_server(json!({"iat": u64::MAX}))),
        ("no scope", by_server(json!({"scope": null}))),
        ("an unknown role", by_server(json!({"scope": {"user": "root"}}))),
        ("two scopes", by_server(json!({"scope": {"user": "admin", "node:join": "server"}}))),
        (
            "membership by a server",
            by_server(json!({"scope": {"node:member": "server"}, "exp": null})),
        ),
        ("the root as the issuer", by_server(json!({"iss": id(&own.root), "issuer": null}))),
        ("another server as the issuer", by_server(json!({"iss": id(&own.worker)}))),
        ("no certificate", by_server(json!({"issuer": null}))),
        ("a token as the certificate", by_server(json!({"issuer": own.token}))),
        ("a worker", with_issuer(&own.worker, &own.worker_certificate)),
        (
            "a worker with the server's certificate",
            with_issuer(&own.worker, &own.server_certificate),
        ),
        ("the other cluster's server", with_issuer(&other.server, &other.server_certificate)),
        ("a certificate by itself", with_issuer(&eve, &eves_certificate)),
        ("a certificate by a server", with_issuer(&eve, &by_server_certified)),
        (
            "a chain of certificates",
            with_issuer(
                &eve,
                &sign(
                    HEADER,
                    &own.with(&json!({"sub": id(&eve), "scope": {"node:member": "server"}}))
                        .to_string(),
                    &own.server,
                ),
            ),
        ),
        (
            "the claim of a role twice",
            sign(HEADER, &admin.replacen("{", r#"{"scope":{"user":"viewer"},"#, 1), &own.server),
        ),
        (
            "the claim of an issuer twice",
            sign(
                HEADER,
                &admin.replacen("{", &format!(r#"{{"iss":"{}","#, id(&own.root)), 1),
                &own.server,
            ),
        ),
        ("no JSON", sign(HEADER, "admin", &own.server)),
        ("a list", sign(HEADER, &format!("[{admin}]"), &own.server)),
        (
            "deep JSON",
            sign(HEADER, &format!("{}{}", "[".repeat(3000), "]".repeat(3000)), &own.server),
        ),
        ("too long", by_server(json!({"sub": "x".repeat(9000)}))),
        ("an empty text", String::new()),
        ("two dots", "..".to_owned()),
    ]
}

#[test]
fn forged_tokens_are_refused() {
    let (own, other) = (Cluster::new(1), Cluster::new(11));
    assert!(verify(&own.token, own.id, NOW).is_ok());
    let by_server = sign(HEADER, &own.with(&json!({})).to_string(), &own.server);
    assert!(verify(&by_server, own.id, NOW).is_ok(), "without a forgery these claims are valid");
    let forged = forged(&own, &other);
    assert!(forged.len() >= 38, "{}", forged.len());
    for (what, token) in forged {
        assert!(verify(&token, own.id, NOW).is_err(), "{what}: {token}");
        assert!(verify_certificate(&token, own.id, None).is_err(), "{what}: {token}");
    }
}

#[test]
fn what_a_header_says_beside_the_algorithm_has_no_effect() {
    let own = Cluster::new(1);
    let admin = own.with(&json!({})).to_string();
    for header in [
        r#"{"alg":"EdDSA","kid":"../../dev/null","jku":"https://evil.example","cty":"JWT"}"#,
        r#"{"alg":"EdDSA","x5u":"https://evil.example/c.pem"}"#,
    ] {
        let claims = verify(&sign(header, &admin, &own.server), own.id, NOW).expect("signed");
        assert_eq!(claims, decode_unverified(&sign(HEADER, &admin, &own.server)).expect("claims"));
    }
}

#[test]
fn credentials_of_one_kind_are_none_of_another() {
    let own = Cluster::new(1);
    let issuer = Issuer { cluster: own.id, key: &own.server, certificate: &own.server_certificate };
    let join =
        issuer.issue(Scope::Join(NodeRole::Server), "n", vec![], 8, NOW, HOUR).expect("signed");
    // The caller compares the scope: a join token and a certificate verify, and are no user's.
    for (token, kind) in
        [(&join, "node"), (&own.server_certificate, "membership"), (&own.token, "user")]
    {
        assert_eq!(verify(token, own.id, NOW).expect("signed").scope.kind(), kind);
    }
    for token in [&join, &own.token] {
        assert!(verify_certificate(token, own.id, None).is_err());
    }
    let stolen = verify_certificate(&own.server_certificate, own.id, Some(id(&own.worker)));
    assert_eq!(stolen, Err(TokenError::WrongNode));
}
