//! What is durable: changes and certificates, in one redb file that also locks the data directory.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use vc_engine::Durable;
use vc_protocol::change::{ChangeRange, DocumentId, SignedChange};
use vc_protocol::wire::{MAX_BATCH, decode, encode};

/// Document (with its generation), actor and sequence number.
type ChangeKey = (&'static [u8], &'static [u8], u64);

/// Signed changes by document (with its generation), actor and sequence number.
const CHANGES: TableDefinition<'_, ChangeKey, &[u8]> = TableDefinition::new("changes");
/// Membership certificates.
const CERTIFICATES: TableDefinition<'_, &str, ()> = TableDefinition::new("certificates");
/// The database's page cache, in bytes: the documents are in memory anyway.
const CACHE: usize = 2 << 20;

/// Why the disk did not do it. Nothing of the operation was done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the data directory {0} is in use by another vc-node: stop that one, or choose another --data-dir"
    )]
    InUse(PathBuf),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// Anything else: a full disk, a broken file.
    #[error("{path}: {source}")]
    Redb {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
}

/// The open database.
pub struct Store {
    dir: PathBuf,
    path: PathBuf,
    /// `None` only while it is opened anew.
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens the database of a data directory, or makes it. Errors: in use, damaged, the disk is full.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("state.redb");
        let store = Self { dir: dir.to_owned(), path, database: RwLock::new(None) };
        store.reopen()?;
        Ok(store)
    }

    /// Opens the database anew: after a failed write it takes no other. Errors: as for [`Store::open`].
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        let path = &self.path;
        let database =
            Database::builder().set_cache_size(CACHE).create(path).map_err(
                |error| match error {
                    redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(self.dir.clone()),
                    other => {
                        StoreError::Redb { path: path.clone(), source: Box::new(other.into()) }
                    }
                },
            )?;
        *held = Some(database);
        drop(held);
        // The tables exist from the start, so that reading needs no special case.
        self.write(|transaction| {
            transaction.open_table(CHANGES)?;
            transaction.open_table(CERTIFICATES)?;
            Ok(())
        })
    }

    /// Everything, in one pass.
    pub fn load(&self) -> Result<Durable, StoreError> {
        self.read(|transaction| {
            let mut durable = Durable::default();
            for row in transaction.open_table(CERTIFICATES)?.iter()? {
                durable.certificates.push(row?.0.value().to_owned());
            }
            for row in transaction.open_table(CHANGES)?.iter()? {
                match decode::<SignedChange>(row?.1.value()) {
                    Ok(change) => durable.changes.push(change),
                    Err(error) => {
                        tracing::error!(%error, "a stored change does not read; left out")
                    }
                }
            }
            Ok(durable)
        })
    }

    /// Makes it durable, all or nothing.
    pub fn persist(&self, durable: &Durable) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut certificates = transaction.open_table(CERTIFICATES)?;
            for certificate in &durable.certificates {
                certificates.insert(certificate.as_str(), ())?;
            }
            let mut changes = transaction.open_table(CHANGES)?;
            for replaced in &durable.replaced {
                let document = document_key(*replaced);
                changes.retain(|(of, _, _), _| of != document.as_slice())?;
            }
            for change in &durable.changes {
                let Ok(body) = change.decode_unverified() else { continue };
                let document = document_key(body.document);
                let key = (document.as_slice(), body.actor.as_bytes(), body.seq);
                changes.insert(key, encode(change).as_slice())?;
            }
            Ok(())
        })
    }

    /// These runs, in batches of at most [`MAX_BATCH`] bytes.
    pub fn replay(&self, runs: &[ChangeRange]) -> Result<Vec<Vec<SignedChange>>, StoreError> {
        self.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let mut batches = vec![Vec::new()];
            let mut size = 0;
            for run in runs {
                let document = document_key(run.document);
                let (from, to) = match &run.actor {
                    Some(actor) => (actor.as_bytes(), actor.as_bytes()),
                    None => (&[][..], &[0xff; 32][..]),
                };
                let range =
                    (document.as_slice(), from, run.from)..=(document.as_slice(), to, run.to);
                for row in changes.range(range)? {
                    let (key, value) = row?;
                    let (_, _, seq) = key.value();
                    let Ok(change) = decode::<SignedChange>(value.value()) else { continue };
                    if seq < run.from || seq > run.to {
                        continue;
                    }
                    size += change.encoded_len();
                    if size > MAX_BATCH {
                        batches.push(Vec::new());
                        size = change.encoded_len();
                    }
                    if let Some(batch) = batches.last_mut() {
                        batch.push(change);
                    }
                }
            }
            batches.retain(|batch| !batch.is_empty());
            Ok(batches)
        })
    }

    fn read<T>(
        &self,
        f: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| f(&database.begin_read()?))
    }

    fn write(
        &self,
        f: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            f(&transaction)?;
            Ok(transaction.commit()?)
        })
    }

    fn with<T>(
        &self,
        f: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let held = self.database.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .ok_or(redb::Error::PreviousIo)
            .and_then(f)
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: redb::Error) -> StoreError {
        StoreError::Redb { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Documents as keys: the cluster's first, then each node's with its generation in order.
fn document_key(document: DocumentId) -> Vec<u8> {
    match document {
        DocumentId::Cluster => vec![0],
        DocumentId::Node { node, generation } => {
            let mut key = vec![1];
            key.extend(node.peer_id().to_bytes());
            key.extend(generation.to_be_bytes());
            key
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vc_protocol::change::{Actor, ChangeBody};
    use vc_protocol::{ClusterId, Keypair, NodeId};

    fn change(document: DocumentId, key: &Keypair, seq: u64) -> SignedChange {
        let author = NodeId::of(&key.public()).expect("ed25519");
        let cluster = ClusterId::of(&key.public()).expect("ed25519");
        let actor = Actor::new(author, 1);
        let body = ChangeBody {
            cluster,
            document,
            actor,
            seq,
            author,
            on_behalf_of: None,
            timestamp: 0,
            payload: vec![7; 1000],
        };
        SignedChange::sign(&body, key)
    }

    #[test]
    fn what_was_persisted_is_there_after_opening_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let old = DocumentId::Node { node, generation: 1 };
        let new = DocumentId::Node { node, generation: 2 };
        let changes: Vec<_> =
            (1..=1500).map(|seq| change(DocumentId::Cluster, &key, seq)).collect();
        let store = Store::open(dir.path()).expect("opened");
        store.persist(&Durable { changes, ..Durable::default() }).expect("stored");
        store
            .persist(&Durable { changes: vec![change(old, &key, 1)], ..Durable::default() })
            .expect("stored");
        let renewed = Durable {
            changes: vec![change(new, &key, 1)],
            replaced: vec![old],
            certificates: vec!["c".into()],
        };
        store.persist(&renewed).expect("stored");
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))), "locked");
        drop(store);

        let store = Store::open(dir.path()).expect("opened again");
        let loaded = store.load().expect("loaded");
        assert_eq!((loaded.changes.len(), loaded.certificates.len()), (1501, 1));
        let run = ChangeRange {
            document: DocumentId::Cluster,
            actor: Some(Actor::new(node, 1)),
            from: 3,
            to: 1500,
        };
        let batches = store.replay(&[run]).expect("read");
        assert!(batches.len() > 1, "bounded batches");
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 1498);
        let run = ChangeRange { document: new, actor: None, from: 1, to: 1 };
        assert_eq!(store.replay(&[run]).expect("read").len(), 1);
    }
}
