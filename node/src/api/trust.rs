//! Requests about the signing key.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::{Mutation, NewSigningKey, report};
use vc_protocol::control::{Change, Reply};
use vc_protocol::token::{NodeRole, Scope, Signer, TokenError, endorse};
use vc_protocol::{ApiError, ErrorCode, Keypair, NodeId};

use super::ControlService;
use crate::auth::User;
use crate::identity::IdentityError;
use crate::seal::SealError;

/// Why the signing key was not rotated. Nothing has changed.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("this node is a worker and does not have the cluster's root key")]
    Worker,
    #[error("this server has no certificate of the present signing key")]
    NotCertified,
    #[error("cannot sign with the new key: {0}")]
    Sign(#[from] TokenError),
    #[error("cannot save the new key: {0}")]
    Save(#[from] IdentityError),
    #[error(
        "the signing key is rotated, but the secrets and configs are not sealed again yet: {0}"
    )]
    Seal(SealError),
}

impl From<RotateError> for ApiError {
    fn from(error: RotateError) -> Self {
        let (code, hint) = match &error {
            RotateError::Worker | RotateError::NotCertified => {
                (ErrorCode::FailedPrecondition, "use another server with --peer")
            }
            RotateError::Sign(_) | RotateError::Save(_) | RotateError::Seal(_) => {
                (ErrorCode::Internal, "")
            }
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl ControlService {
    /// Says which signing key counts.
    pub(super) fn trust(&self) -> Result<Reply, ApiError> {
        let report = report::trust(&self.cluster.latest().view);
        let unknown = || ApiError::new(ErrorCode::Unavailable, "this node has not started yet");
        report.map(Reply::Trust).ok_or_else(unknown)
    }

    /// Puts a new signing key into effect. `members` stay members.
    pub(super) async fn rotate_trust(
        &self,
        user: &User,
        members: Vec<NodeId>,
    ) -> Result<Reply, ApiError> {
        let new = self.new_signing_key(members)?;
        let mutation = Mutation::RotateTrust(Box::new(new));
        let Reply::Done(mut changes) = self.cluster.mutate(user, mutation).await? else {
            return Ok(Reply::Done(Vec::new()));
        };
        // What fails from here on, a server does later: see `SigningKeys`.
        let (membership, view) = (self.cluster.membership(), self.cluster.latest().view);
        let keys = membership.file_keys();
        let batches = keys.map(|it| it.reseal(membership.cluster, &view.cluster.files));
        let mut sealed = 0;
        for files in batches.transpose().map_err(RotateError::Seal)?.into_iter().flatten() {
            sealed += files.len() as u64;
            self.cluster.mutate(user, Mutation::Reseal(files)).await?;
        }
        changes.extend((sealed > 0).then_some(Change::FilesSealed { files: sealed }));
        Ok(Reply::Done(changes))
    }

    /// Makes a signing key, which is durable on this node, and the certificates of it.
    fn new_signing_key(&self, members: Vec<NodeId>) -> Result<NewSigningKey, RotateError> {
        let membership = self.cluster.membership();
        let root = membership.root.as_ref().ok_or(RotateError::Worker)?;
        let (view, now) = (self.cluster.latest().view, crate::clock::now());
        if !view.trust.members.contains_key(&membership.node) {
            return Err(RotateError::NotCertified);
        }
        let mut listed = BTreeSet::from_iter(members);
        listed.insert(membership.node);
        // One that missed a rotation, because no server knew of it, is in the documents as an author.
        let known: BTreeMap<NodeId, NodeRole> = view
            .trust
            .authors
            .iter()
            .chain(&view.trust.members)
            .map(|(&it, &role)| (it, role))
            .collect();
        let stays = |node: &NodeId| listed.contains(node) && !view.left.contains_key(node);
        let (members, former): (BTreeMap<_, _>, BTreeMap<_, _>) =
            known.into_iter().partition(|(node, _)| stays(node));
        let former = former.into_iter().filter(|(it, _)| view.trust.authors.contains_key(it));

        let (key, epoch) = (Keypair::generate_ed25519(), view.trust.epoch() + 1);
        let endorsement = endorse(root, &key.public(), epoch, membership.signer().as_ref(), now)?;
        let signer = Signer::endorsed(membership.cluster, &key, &endorsement)?;
        let certify = |(node, scope)| Ok((node, signer.certify(node, scope, now)?));
        let members = members.into_iter().map(|(node, role)| (node, Scope::Member(role)));
        let former = former.map(|(node, role)| (node, Scope::Former(role)));
        let members = members.map(certify).collect::<Result<_, TokenError>>()?;
        let former = former.map(certify).collect::<Result<_, TokenError>>()?;
        membership.add_signing_key(key)?;
        Ok(NewSigningKey { signing: signer.signing(), endorsement, members, former })
    }
}
