//! What a cluster that is founded from a backup begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use data_encoding::BASE64;
use vc_backup::Contents;
use vc_crdt::{ClusterState, FileKey, TokenRecord};
use vc_protocol::spec::MAX_FILE_BYTES;
use vc_protocol::token::{Issuer, Permits, Scope};
use vc_protocol::{ClusterId, Millis, Multiaddr, Name, ServiceKey, VolumeKey};

use crate::identity::Membership;
use crate::seal::Seal;

/// The directory of new tokens of users.
pub(super) const USER_TOKENS: &str = "user-tokens";

/// What the cluster begins with.
pub(super) struct Founding {
    /// The cluster document.
    pub(super) state: ClusterState,
    /// Tokens of users that were valid in the cluster that was backed up.
    tokens: BTreeMap<String, TokenRecord>,
    /// Volumes whose data is not there.
    pub(super) missing: BTreeSet<VolumeKey>,
    /// Services that would begin these empty, with their replicas.
    pub(super) waiting: BTreeMap<ServiceKey, u32>,
    /// Receivers of alerts, whose addresses only the cluster that was backed up can read.
    pub(super) receivers: Vec<Name>,
}

/// A new token of a user.
pub(super) struct UserToken {
    /// The user.
    pub(super) user: String,
    /// The id of the token that it replaces.
    replaces: String,
    token: String,
}

impl Founding {
    /// Takes over what people asked for. Services whose volumes are missing get no replicas unless they may begin empty.
    pub(super) fn of(contents: &Contents, empty_volumes: bool) -> anyhow::Result<Self> {
        let old = ClusterState::from_entries(&contents.cluster.entries)?;
        let is_valid = |id: &str, it: &TokenRecord| !old.is_revoked(id, &it.name, it.issued);
        let valid = old.tokens.iter().filter(|(id, record)| is_valid(id, record));
        let tokens = valid.map(|(id, record)| (id.clone(), record.clone())).collect();
        let receivers = old.receivers.keys().cloned().collect();
        let mut state = old.for_another_cluster();
        let lost = contents.manifest.volumes.iter().filter(|it| !it.included);
        let lost = lost.map(|it| &it.volume).filter(|volume| !is_elsewhere(&state, volume));
        let missing: BTreeSet<VolumeKey> = lost.cloned().collect();
        let mut waiting = BTreeMap::new();
        if !empty_volumes {
            let services = missing.iter().flat_map(|it| vc_engine::mounting(&state, it));
            let all = services.map(|it| (it.clone(), state.replicas(it)));
            waiting = all.filter(|(_, replicas)| *replicas > 0).collect();
            state.scale.extend(waiting.keys().map(|service| (service.clone(), 0)));
        }
        Ok(Self { state, tokens, missing, waiting, receivers })
    }

    /// Seals secrets and configs with the key of the new cluster, under their versions, so that they are those that services mount.
    pub(super) fn seal_files(
        &mut self,
        files: &BTreeMap<String, String>,
        seal: &Seal,
        cluster: ClusterId,
    ) -> anyhow::Result<()> {
        for (key, content) in files {
            let key: FileKey = key.parse()?;
            let content = BASE64.decode(content.as_bytes()).ok();
            let content = content.filter(|it| it.len() <= MAX_FILE_BYTES);
            let content = content.with_context(|| format!("the content of {key} is damaged"))?;
            let sealed = seal.seal(cluster, &key, &content)?;
            self.state.files.insert(key, sealed);
        }
        Ok(())
    }

    /// Issues tokens to the users that had some, with the same rights, until the same time.
    pub(super) fn issue_tokens(
        &mut self,
        membership: &Membership,
        addresses: &[Multiaddr],
        now: Millis,
    ) -> anyhow::Result<Vec<UserToken>> {
        let certificate = membership.credentials.certificate();
        let issuer =
            Issuer { cluster: membership.cluster, key: &membership.key, certificate: &certificate };
        let peers = membership.own_peers(addresses);
        let mut issued = Vec::new();
        for (replaces, record) in std::mem::take(&mut self.tokens) {
            let is_user = matches!(record.scope, Scope::User(_));
            let Some(left) = record.expires.checked_sub(now).filter(|left| is_user && *left > 0)
            else {
                continue;
            };
            let id = getrandom::u64()?;
            let permits = Permits { scope: record.scope, limits: record.limits.clone() };
            let token = issuer.issue(permits, &record.name, peers.clone(), id, now, left)?;
            issued.push(UserToken { user: record.name.clone(), replaces, token });
            self.state.tokens.insert(format!("{id:016x}"), TokenRecord { issued: now, ..record });
        }
        Ok(issued)
    }
}

/// Returns whether a volume is on a network file system, which has the data.
fn is_elsewhere(state: &ClusterState, volume: &VolumeKey) -> bool {
    let mut services = vc_engine::mounting(state, volume).filter_map(|it| state.services.get(it));
    services.any(|it| it.spec.volumes.get(&volume.volume).is_some_and(|it| it.driver.is_some()))
}

/// Writes a file for each token.
pub(super) fn write_tokens(dir: &Path, tokens: &[UserToken]) -> anyhow::Result<()> {
    if tokens.is_empty() {
        return Ok(());
    }
    let dir = dir.join(USER_TOKENS);
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for UserToken { user, replaces, token } in tokens {
        // The file may say anything of both.
        let user = user.parse::<Name>().map_or_else(|_| "user".to_owned(), |it| it.to_string());
        let is_id = replaces.len() <= 16 && replaces.bytes().all(|it| it.is_ascii_hexdigit());
        let id = if is_id { replaces.as_str() } else { "unnamed" };
        let path = dir.join(format!("{user}-{id}.token"));
        vc_atomic_file::write(&path, format!("{token}\n").as_bytes(), 0o600)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
