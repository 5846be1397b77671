//! Credentials: forged ones, altered ones, and any claims that a key which is not the root's has signed.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD as BASE64;
use vc_protocol::token::{
    Claims, Issuer, NodeRole, Scope, UserRole, decode_unverified, verify, verify_certificate,
};

use crate::keys::{Identity, KEYS, NOW};
use crate::pieces::{Pieces, piece};

/// Credentials that are valid at [`NOW`].
#[expect(clippy::expect_used, reason = "the keys are constant")]
static GENUINE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let [server, _] = &KEYS.servers;
    let certificate = server.certificate.as_deref().expect("a member");
    let issuer = Issuer { cluster: KEYS.cluster, key: &server.key, certificate };
    let issue = |scope| issuer.issue(scope, "ada", vec![], 7, NOW, 60_000).expect("signed");
    let tokens = [Scope::User(UserRole::Admin), Scope::Join(NodeRole::Server)].map(issue);
    tokens.into_iter().chain([certificate.to_owned()]).collect()
});

/// Runs an input by its first byte.
pub(crate) fn run(data: &[u8]) {
    let mut pieces = Pieces(data);
    match pieces.byte() % 3 {
        0 => check(&String::from_utf8_lossy(pieces.0)),
        1 => altered(&mut pieces),
        _ => signed(&mut pieces),
    }
}

/// Asserts that a text is refused unless it says what a genuine credential says.
fn check(token: &str) {
    let unverified = decode_unverified(token);
    let verified = verify(token, KEYS.cluster, NOW);
    let _ = verify_certificate(token, KEYS.cluster, None);
    if let Ok(claims) = verified {
        assert_eq!(unverified.as_ref(), Ok(&claims));
        let genuine = GENUINE.iter().filter_map(|it| verify(it, KEYS.cluster, NOW).ok());
        assert!(genuine.into_iter().any(|it| it == claims), "forged: {claims:?}");
    }
}

/// Alters a genuine credential: byte after byte at a position.
fn altered(pieces: &mut Pieces<'_>) {
    let mut token = GENUINE[usize::from(pieces.byte()) % GENUINE.len()].clone().into_bytes();
    while !pieces.is_empty() && !token.is_empty() {
        let (at, what, byte) = (pieces.number(), pieces.byte(), pieces.byte());
        let at = usize::from(at) % token.len();
        match what % 4 {
            0 => token[at] = byte,
            1 => token.insert(at, byte),
            2 => token.truncate(at),
            _ => drop(token.remove(at)),
        }
    }
    check(&String::from_utf8_lossy(&token));
}

/// Signs any header and claims with the key of a server, a worker, an outsider or the root, where the claims may bring a
/// certificate (`$S`, `$W`) and ids along.
fn signed(pieces: &mut Pieces<'_>) {
    let signers = [&KEYS.servers[0], &KEYS.worker, &KEYS.outsider, &KEYS.root];
    let signer = signers[usize::from(pieces.byte()) % signers.len()];
    let header = pieces.piece();
    let claims = fill(&String::from_utf8_lossy(pieces.0));
    let token = sign(header, claims.as_bytes(), signer);
    let Ok(claims) = verify(&token, KEYS.cluster, NOW) else { return };
    let is_root = signer.id == KEYS.root.id;
    assert_eq!(claims.iss, signer.id, "the issuer signed it");
    assert_eq!(claims.aud, KEYS.cluster);
    assert!(is_root || signer.id == KEYS.servers[0].id, "only servers issue tokens: {claims:?}");
    let is_member = matches!(claims.scope, Scope::Member(_));
    assert!(is_root || !is_member, "only the root makes members");
    assert!(is_member || claims.exp.is_some_and(|it| it > NOW / 1000), "no token is for ever");
}

/// Puts ids and certificates in place of `$C` (cluster), `$I`, `$O`, `$U` (ids) and `$S`, `$W` (certificates).
fn fill(text: &str) -> String {
    let certificate = |it: &Identity| it.certificate.clone().unwrap_or_default();
    text.replace("$C", &KEYS.cluster.to_string())
        .replace("$I", &KEYS.servers[0].id.to_string())
        .replace("$O", &KEYS.worker.id.to_string())
        .replace("$U", &KEYS.outsider.id.to_string())
        .replace("$S", &certificate(&KEYS.servers[0]))
        .replace("$W", &certificate(&KEYS.worker))
}

#[expect(clippy::expect_used, reason = "Ed25519 signing has no failing case")]
fn sign(header: &[u8], claims: &[u8], signer: &Identity) -> String {
    let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = signer.key.sign(text.as_bytes()).expect("ed25519");
    format!("{text}.{}", BASE64.encode(&signature))
}

#[expect(clippy::expect_used, reason = "claims are plain data")]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = GENUINE.iter().map(|it| [&[0], it.as_bytes()].concat()).collect();
    seeds.push([&[1, 0][..], &[0, 9, 0, b'x'], &[0, 200, 2, 0]].concat());
    let header = piece(br#"{"alg":"EdDSA","typ":"JWT"}"#);
    let mut claims: Claims = decode_unverified(&GENUINE[0]).expect("claims");
    claims.issuer = Some("$S".to_owned());
    let server = serde_json::to_string(&claims).expect("plain data");
    let (id, cluster) = (claims.iss.to_string(), claims.aud.to_string());
    let server = server.replace(&id, "$I").replace(&cluster, "$C");
    let worker = server.replace("$I", "$O").replace("$S", "$W");
    let member = server.replace("\"user\"", "\"node:member\"").replace("\"admin\"", "\"server\"");
    for (signer, claims) in [(0, &server), (1, &worker), (1, &server), (2, &server), (0, &member)] {
        seeds.push([&[2, signer][..], &header, claims.as_bytes()].concat());
    }
    seeds
}
