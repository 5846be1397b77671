//! Which nodes are members: those with a certificate of the signing key that counts.
//!
//! That key is the one of the last rotation in the cluster document. While the document has none, because this node has just
//! joined, it is the one that signed the certificate which this node was admitted with.

use std::collections::BTreeMap;

use vc_protocol::token::{Certificate, NodeRole, SigningKey, TokenError};
use vc_protocol::{ClusterId, NodeId};

use crate::trust::{TrustEntry, TrustKey, certificates, last_rotation};

/// A node with a certificate that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) certificate: String,
    pub(crate) role: NodeRole,
    /// Whether it is no member any more: only what it has written before counts.
    pub(crate) is_former: bool,
}

/// The members of the cluster.
pub(crate) struct Membership {
    cluster: ClusterId,
    /// Every valid certificate, of whatever signing key.
    known: BTreeMap<String, Certificate>,
    /// The signing key of the certificate that this node was admitted with.
    admitted: SigningKey,
    signing: SigningKey,
    /// The nodes whose certificates count.
    certified: BTreeMap<NodeId, Member>,
}

impl Membership {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        let root = SigningKey::root(cluster);
        let (known, certified) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, known, admitted: root, signing: root, certified }
    }

    /// Adds a certificate from the disk of this node, which is `own`.
    pub(crate) fn load(&mut self, own: NodeId, certificate: String) -> Result<(), TokenError> {
        let read = Certificate::read(&certificate, self.cluster)?;
        if read.node == own && read.signing.epoch > self.admitted.epoch {
            self.admitted = read.signing;
        }
        self.known.insert(certificate, read);
        Ok(())
    }

    /// Adds a certificate. Returns true if it names a new member, or a known one with a higher role.
    ///
    /// # Errors
    /// It is invalid, or of a signing key that does not count.
    pub(crate) fn add(&mut self, certificate: &str) -> Result<bool, TokenError> {
        let read = match self.known.get(certificate) {
            Some(known) => known.clone(),
            None => Certificate::read(certificate, self.cluster)?,
        };
        if read.signing.key != self.signing.key {
            return Err(TokenError::Superseded);
        }
        let is_new = certify(&mut self.certified, certificate, &read);
        if is_new {
            self.known.insert(certificate.to_owned(), read);
        }
        Ok(is_new)
    }

    /// Takes in the entries of the cluster document. Returns whether another signing key counts now.
    pub(crate) fn follow(&mut self, trust: &BTreeMap<TrustKey, TrustEntry>) -> bool {
        for certificate in certificates(trust) {
            if !self.known.contains_key(certificate)
                && let Ok(read) = Certificate::read(certificate, self.cluster)
            {
                self.known.insert(certificate.clone(), read);
            }
        }
        let named = last_rotation(trust, self.cluster).map(|(signing, _)| signing);
        let newest = named.filter(|named| named.epoch >= self.admitted.epoch);
        let before = std::mem::replace(&mut self.signing, newest.unwrap_or(self.admitted));
        self.certified.clear();
        for (certificate, read) in &self.known {
            if read.signing.key == self.signing.key {
                certify(&mut self.certified, certificate, read);
            }
        }
        before != self.signing
    }

    /// Returns the signing key that counts.
    pub(crate) fn signing(&self) -> SigningKey {
        self.signing
    }

    /// Returns a node whose certificate counts.
    pub(crate) fn get(&self, node: NodeId) -> Option<&Member> {
        self.certified.get(&node)
    }

    /// Returns the nodes whose certificates count.
    pub(crate) fn certified(&self) -> &BTreeMap<NodeId, Member> {
        &self.certified
    }

    /// Returns the members.
    pub(crate) fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let members = self.certified.iter().filter(|(_, member)| !member.is_former);
        members.map(|(&node, member)| (node, member))
    }

    /// Returns the nodes of all certificates that were ever accepted, with their highest roles.
    pub(crate) fn ever(&self) -> BTreeMap<NodeId, NodeRole> {
        let mut ever = BTreeMap::new();
        for Certificate { node, role, .. } in self.known.values() {
            let held = ever.entry(*node).or_insert(*role);
            *held = (*held).max(*role);
        }
        ever
    }
}

/// Adds a certificate that counts. Returns true if the node is new, was a former member, or had a lower role.
fn certify(
    certified: &mut BTreeMap<NodeId, Member>,
    certificate: &str,
    read: &Certificate,
) -> bool {
    let Certificate { node, role, is_former, .. } = *read;
    let rank = |is_former: bool, role: NodeRole| (!is_former, role);
    let held = certified.get(&node);
    if held.is_some_and(|held| rank(held.is_former, held.role) >= rank(is_former, role)) {
        return false;
    }
    let certificate = certificate.to_owned();
    certified.insert(node, Member { certificate, role, is_former });
    true
}
