use super::*;

const NOW: Millis = 1_800_000_000_000;
const HOUR: Millis = 3_600_000;

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

fn id(key: &Keypair) -> NodeId {
    NodeId::of(&key.public()).expect("ed25519")
}

fn cluster(root: &Keypair) -> ClusterId {
    ClusterId::of(&root.public()).expect("ed25519")
}

fn issue(root: &Keypair, server: &Keypair, role: NodeRole, scope: Scope) -> String {
    let certificate = issue_certificate(root, id(server), role, NOW).expect("signed");
    Issuer { cluster: cluster(root), key: server, certificate: &certificate }
        .issue(scope, "ada", vec![], 7, NOW, HOUR)
        .expect("signed")
}

#[test]
fn a_token_is_valid_for_its_cluster_until_it_expires() {
    let (root, server) = (key(1), key(2));
    let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Admin));
    let claims = verify(&token, cluster(&root), NOW + 1).expect("valid");
    assert_eq!((claims.sub.as_str(), claims.scope), ("ada", Scope::User(UserRole::Admin)));
    assert_eq!(verify(&token, cluster(&root), NOW + HOUR), Err(TokenError::Expired));
    assert_eq!(verify(&token, cluster(&root), NOW - HOUR), Err(TokenError::NotYetValid));
    let other = cluster(&key(9));
    assert_eq!(verify(&token, other, NOW), Err(TokenError::WrongCluster(cluster(&root))));
}

#[test]
fn the_claims_of_a_token_without_limits_are_as_they_were() {
    let (root, server) = (key(1), key(2));
    let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Viewer));
    let claims = decode_unverified(&token).expect("claims");
    let json = serde_json::to_value(&claims).expect("plain data");
    let fields: Vec<&String> = json.as_object().expect("an object").keys().collect();
    let mut expected = ["aud", "iss", "sub", "jti", "iat", "exp", "scope", "issuer"];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!(claims.limits, UserLimits::default());
}

#[test]
fn limits_are_part_of_what_is_signed() {
    let (root, server) = (key(1), key(2));
    let certificate = issue_certificate(&root, id(&server), NodeRole::Server, NOW).expect("signed");
    let limits = UserLimits {
        projects: Some(BTreeSet::from(["shop".parse().expect("a name")])),
        logs: true,
    };
    let permits = Permits { scope: Scope::User(UserRole::Deployer), limits: limits.clone() };
    let token = Issuer { cluster: cluster(&root), key: &server, certificate: &certificate }
        .issue(permits, "ada", vec![], 7, NOW, HOUR)
        .expect("signed");
    let claims = verify(&token, cluster(&root), NOW).expect("valid");
    assert_eq!(claims.limits, limits);
    assert!(limits.include(&"shop".parse().expect("a name")));
    assert!(!limits.include(&"bank".parse().expect("a name")));
    let payload = token.split('.').nth(1).expect("a payload");
    let json = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).expect("base64");
    let text = String::from_utf8(json).expect("JSON").replace("\"shop\"", "\"bank\"");
    let other = data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    assert!(verify(&token.replace(payload, &other), cluster(&root), NOW).is_err());
}

#[test]
fn a_worker_cannot_issue_and_a_server_cannot_certify() {
    let (root, node) = (key(1), key(2));
    let by_worker = issue(&root, &node, NodeRole::Worker, Scope::User(UserRole::Viewer));
    assert_eq!(verify(&by_worker, cluster(&root), NOW), Err(TokenError::IssuerNotPermitted));
    let member = issue(&root, &node, NodeRole::Server, Scope::Member(NodeRole::Server));
    assert_eq!(verify(&member, cluster(&root), NOW), Err(TokenError::IssuerNotPermitted));
}

#[test]
fn altered_tokens_are_rejected() {
    let (root, server) = (key(1), key(2));
    let token = issue(&root, &server, NodeRole::Server, Scope::Join(NodeRole::Worker));
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).expect("ascii");
        // The last character of base64 has unused bits.
        if data_encoding::BASE64URL_NOPAD
            .decode(altered.rsplit('.').next().unwrap_or("").as_bytes())
            .is_err()
        {
            continue;
        }
        assert!(verify(&altered, cluster(&root), NOW).is_err(), "character {at}");
    }
    for cut in 0..token.len() {
        assert!(verify(&token[..cut], cluster(&root), NOW).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_foreign_root_is_rejected() {
    let (root, foreign) = (key(1), key(3));
    let own = issue_certificate(&foreign, id(&foreign), NodeRole::Server, NOW).expect("signed");
    let token = Issuer { cluster: cluster(&root), key: &foreign, certificate: &own }
        .issue(Scope::User(UserRole::Admin), "eve", vec![], 7, NOW, HOUR)
        .expect("signed");
    assert!(verify(&token, cluster(&root), NOW).is_err());
}

#[test]
fn a_certificate_is_bound_to_its_node_and_valid_at_any_time() {
    let (root, node) = (key(1), key(2));
    let certificate = issue_certificate(&root, id(&node), NodeRole::Worker, NOW).expect("signed");
    let member = verify_certificate(&certificate, cluster(&root), Some(id(&node)));
    assert_eq!(member, Ok((id(&node), NodeRole::Worker)));
    let other = verify_certificate(&certificate, cluster(&root), Some(id(&key(4))));
    assert_eq!(other, Err(TokenError::WrongNode));
    let token = issue(&root, &node, NodeRole::Server, Scope::User(UserRole::Admin));
    assert!(verify_certificate(&token, cluster(&root), None).is_err());
}

#[test]
fn a_token_without_a_signature_is_rejected() {
    let (root, server) = (key(1), key(2));
    let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Admin));
    let payload = token.split('.').nth(1).expect("payload");
    let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    assert!(verify(&format!("{none}.{payload}."), cluster(&root), NOW).is_err());
}
