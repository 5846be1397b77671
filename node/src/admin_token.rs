//! Keeps the addresses in the admin token of the data directory up to date, so that a command that has only the file reaches
//! the cluster while the node that wrote it is down.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, sleep};
use vc_protocol::token::{self, Scope, UserRole};
use vc_protocol::{Millis, Multiaddr};

use crate::auth::member_addresses;
use crate::identity::{ADMIN_TOKEN, IdentityError, Membership, write_secret};
use crate::snapshot::Snapshot;

/// Shortest time between two looks at the members.
const INTERVAL: Duration = Duration::from_secs(2);

/// Rewrites the token of this server's data directory whenever the addresses of members change. Runs until the node stops.
pub(crate) async fn follow_members(
    dir: PathBuf,
    membership: Arc<Membership>,
    mut snapshot: watch::Receiver<Snapshot>,
) {
    let mut written = Vec::new();
    loop {
        let view = Arc::clone(&snapshot.borrow_and_update().view);
        let peers = member_addresses(&view, membership.node);
        if peers != written {
            written.clone_from(&peers);
            let (path, membership) = (dir.join(ADMIN_TOKEN), Arc::clone(&membership));
            let now = crate::clock::now();
            let update =
                tokio::task::spawn_blocking(move || update(&path, &membership, peers, now));
            match update.await {
                Ok(Ok(true)) => tracing::info!("wrote the members' addresses to the admin token"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot update the admin token"),
                Err(error) => tracing::warn!(%error, "cannot update the admin token"),
            }
        }
        sleep(INTERVAL).await;
        if snapshot.changed().await.is_err() {
            return;
        }
    }
}

/// Replaces the addresses in the token at `path`. Returns whether it had others.
///
/// What an operator has put there is left alone: another file than one that only its owner, this process, may use, and another
/// token than an admin's that this node has issued and that is valid.
fn update(
    path: &Path,
    membership: &Membership,
    peers: Vec<Multiaddr>,
    now: Millis,
) -> Result<bool, IdentityError> {
    let is_own = std::fs::symlink_metadata(path).is_ok_and(|it| {
        let is_private = it.is_file() && it.permissions().mode() & 0o777 == 0o600;
        is_private && it.uid() == rustix::process::geteuid().as_raw()
    });
    if !is_own {
        return Ok(false);
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })?;
    match renewed(text.trim(), membership, peers, now) {
        Some(token) => write_secret(path, &token).map(|()| true),
        None => Ok(false),
    }
}

/// Returns the token with these addresses, and all else as it was; `None` if it has them, or is not to be changed.
fn renewed(
    token: &str,
    membership: &Membership,
    peers: Vec<Multiaddr>,
    now: Millis,
) -> Option<String> {
    let claims = token::verify(token, membership.cluster, now).ok()?;
    let is_admin = claims.scope == Scope::User(UserRole::Admin);
    if !is_admin || claims.peers == peers || peers.is_empty() {
        return None;
    }
    token::readdress(claims, peers, &membership.key).ok()
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::token::{Issuer, NodeRole};

    use super::*;
    use crate::identity::tests::member;

    const NOW: Millis = 1_800_000_000_000;
    const HOUR: Millis = 3_600_000;

    fn peers(ports: &[u16]) -> Vec<Multiaddr> {
        let id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let address = |port| format!("/ip4/10.0.0.1/tcp/{port}/p2p/{id}").parse();
        ports.iter().map(|port| address(port).expect("an address")).collect()
    }

    fn token(membership: &Membership, scope: Scope) -> String {
        let certificate = membership.credentials.certificate();
        let (cluster, key) = (membership.cluster, &membership.key);
        let issuer = Issuer { cluster, key, certificate: &certificate };
        issuer.issue(scope, "admin", peers(&[1]), 7, NOW, HOUR).expect("signed")
    }

    #[test]
    fn only_the_addresses_of_the_token_change() {
        let node = member(NodeRole::Server);
        let before = token(&node, Scope::User(UserRole::Admin));
        let after = renewed(&before, &node, peers(&[1, 2]), NOW).expect("other addresses");
        let claims = |token: &str| token::verify(token, node.cluster, NOW).expect("valid");
        let expected = token::Claims { peers: peers(&[1, 2]), ..claims(&before) };
        assert_eq!(claims(&after), expected);
        assert_eq!(renewed(&after, &node, peers(&[1, 2]), NOW), None, "it has them");
    }

    #[test]
    fn tokens_of_others_and_expired_ones_are_left_alone() {
        let node = member(NodeRole::Server);
        let admin = token(&node, Scope::User(UserRole::Admin));
        let other = Membership { key: Keypair::generate_ed25519(), ..member(NodeRole::Server) };
        for (token, membership, peers, now) in [
            (token(&node, Scope::User(UserRole::Deployer)), &node, peers(&[2]), NOW),
            (token(&node, Scope::Join(NodeRole::Server)), &node, peers(&[2]), NOW),
            (admin.clone(), &other, peers(&[2]), NOW),
            (admin.clone(), &node, peers(&[2]), NOW + 2 * HOUR),
            (admin, &node, Vec::new(), NOW),
            ("no token".to_owned(), &node, peers(&[2]), NOW),
        ] {
            assert_eq!(renewed(&token, membership, peers, now), None);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_left_alone() {
        let node = member(NodeRole::Server);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(ADMIN_TOKEN);
        let update = || update(&path, &node, peers(&[2]), NOW).expect("no error");
        assert!(!update(), "there is none");
        assert!(!path.exists(), "it is not written anew");
        write_secret(&path, &token(&node, Scope::User(UserRole::Admin))).expect("written");
        let set_mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("its mode");
        };
        set_mode(0o640);
        assert!(!update(), "a group may read it");
        set_mode(0o600);
        assert!(update());
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
