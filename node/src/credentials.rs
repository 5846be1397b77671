//! What a rotation of the signing key replaces while the node runs: its certificate, and on servers the signing keys.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vc_protocol::token::{Certificate, Signer, decode_unverified};
use vc_protocol::{ClusterId, Keypair, NodeId};

/// The most signing keys that are kept: those of the last rotations, also of ones that did not come into effect.
const MAX_KEYS: usize = 8;

/// The certificate and the signing keys.
pub(crate) struct Credentials(RwLock<Held>);

struct Held {
    certificate: String,
    /// The newest last.
    signing: Vec<Keypair>,
}

impl Credentials {
    pub(crate) fn new(certificate: String, signing: Vec<Keypair>) -> Self {
        Self(RwLock::new(Held { certificate, signing }))
    }

    /// Returns this node's certificate.
    pub(crate) fn certificate(&self) -> String {
        self.read().certificate.clone()
    }

    /// Returns the signing keys.
    pub(crate) fn signing_keys(&self) -> Vec<Keypair> {
        self.read().signing.clone()
    }

    /// Returns a signing key.
    pub(crate) fn signing_key(&self, key: NodeId) -> Option<Keypair> {
        let held = self.read();
        held.signing.iter().find(|it| it.public() == key.public_key()).cloned()
    }

    /// Returns the key that has signed this node's certificate, if this node has it.
    pub(crate) fn signer(&self, cluster: ClusterId, root: Option<&Keypair>) -> Option<Signer> {
        let certificate = self.certificate();
        let Certificate { signing, .. } = Certificate::read(&certificate, cluster).ok()?;
        if signing.epoch == 0 {
            return Signer::root(root?).ok();
        }
        let endorsement = decode_unverified(&certificate).ok()?.issuer?;
        Signer::endorsed(cluster, &self.signing_key(signing.key)?, &endorsement).ok()
    }

    /// Returns the signing keys with one more, without the oldest; the one that this node's certificate depends on is kept.
    pub(crate) fn with_signing_key(&self, key: Keypair, cluster: ClusterId) -> Vec<Keypair> {
        let mut keys = self.signing_keys();
        let own = Certificate::read(&self.certificate(), cluster).map(|own| own.signing.key);
        while keys.len() >= MAX_KEYS {
            let is_own =
                |it: &Keypair| own.as_ref().is_ok_and(|own| it.public() == own.public_key());
            let Some(oldest) = keys.iter().position(|it| !is_own(it)) else { break };
            keys.remove(oldest);
        }
        keys.push(key);
        keys
    }

    /// Replaces the signing keys, which are saved.
    pub(crate) fn set_signing_keys(&self, keys: Vec<Keypair>) {
        self.write().signing = keys;
    }

    /// Replaces the certificate.
    pub(crate) fn set_certificate(&self, certificate: &str) {
        self.write().certificate = certificate.to_owned();
    }

    // No code panics while it holds the lock, so a poisoned lock still guards consistent data.
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::token::{NodeRole, Scope, endorse};

    use super::*;

    #[test]
    fn rotations_that_fail_do_not_push_out_the_signing_key_that_counts() {
        let [root, key, node] =
            [1, 2, 3].map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes"));
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        let endorsement = endorse(&root, &key.public(), 1, None, 0).expect("signed");
        let signer = Signer::endorsed(cluster, &key, &endorsement).expect("a signer");
        let node = NodeId::of(&node.public()).expect("ed25519");
        let scope = Scope::Member(NodeRole::Server);
        let certificate = signer.certify(node, scope, 0).expect("signed");
        let credentials = Credentials::new(certificate, vec![key.clone()]);
        for _ in 0..2 * MAX_KEYS {
            let keys = credentials.with_signing_key(Keypair::generate_ed25519(), cluster);
            credentials.set_signing_keys(keys);
        }
        assert_eq!(credentials.signing_keys().len(), MAX_KEYS);
        let found = credentials.signer(cluster, None).expect("it has the key");
        assert_eq!(found.signing(), signer.signing());
    }
}
