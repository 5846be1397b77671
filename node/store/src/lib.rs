//! The durable state: signed changes and certificates, in one redb file that also locks the data directory.

#[cfg(any(test, feature = "memory"))]
mod memory;

use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use data_encoding::HEXLOWER;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _,
};
use vc_engine::{Durable, Votes};
use vc_protocol::NodeId;
use vc_protocol::change::{Actor, ChangeRange, DocumentId, SignedChange};
use vc_protocol::wire::{MAX_BATCH, WireError, decode, encode};

#[cfg(any(test, feature = "memory"))]
pub use memory::MemoryDisk;

/// A change to store: document key, actor, sequence number, encoded change.
type Row = (Vec<u8>, Actor, u64, Vec<u8>);

/// Name of the file in the data directory.
const FILE: &str = "state.redb";
/// Document (with its generation), actor and sequence number.
type ChangeKey = (&'static [u8], &'static [u8], u64);

/// Signed changes by document (with its generation), actor and sequence number.
const CHANGES: TableDefinition<'_, ChangeKey, &[u8]> = TableDefinition::new("changes");
/// Membership certificates.
const CERTIFICATES: TableDefinition<'_, &str, ()> = TableDefinition::new("certificates");
/// What this node has promised and granted as a voter, by the lease.
const VOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("votes");
/// Key of what it has promised about the next set of voters in [`VOTES`]; no lease has this name.
const CHANGE_VOTE: &str = "";
/// Properties of the file; [`FORMAT_KEY`] is the only one.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Key of the format number in [`META`].
const FORMAT_KEY: &str = "format";
/// Number of the format of the tables that this version reads and writes.
const FORMAT: u64 = 1;
/// The database's page cache, in bytes. Small, because the documents are in memory.
const CACHE: usize = 2 << 20;

/// Why a store operation failed. It changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "the data directory {0} is in use by another vc-node: stop that one, or choose another --data-dir"
    )]
    InUse(PathBuf),
    /// The file was written before it had a format number.
    #[error(
        "{0} is from an older, incompatible version of vc-node: start with another --data-dir, or use the version that \
         wrote it"
    )]
    TooOld(PathBuf),
    /// A newer version wrote the file.
    #[error(
        "{path} has format {found}, this vc-node supports up to {FORMAT}: upgrade vc-node, or choose another --data-dir"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format number.
        found: u64,
    },
    /// Another change is stored under the key of this one: two processes have used the identity of its author, or its data
    /// directory was set back.
    #[error("another change is stored as {0}: it is kept")]
    Conflict(String),
    /// A change that is to be stored, or a stored vote, cannot be decoded.
    #[error("a change or vote cannot be decoded: {0}")]
    Undecodable(#[from] WireError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The disk has no space left, or the quota is used up.
    #[error("{0}: no space left on the disk")]
    Full(PathBuf),
    /// Anything else, for example a damaged file.
    #[error("{path}: {source}")]
    Redb {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Calls redb. It panics where a damaged file is not what it expects: that is an error of the file, too.
fn caught<T>(f: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(redb::Error::Corrupted(text.unwrap_or("unreadable").to_owned()))
    })
}

/// The key of a stored change, for the log.
struct LoggedKey<'a>(&'a [u8], &'a [u8], u64);

impl fmt::Display for LoggedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(document, actor, seq) = self;
        write!(f, "{}/{}/{seq}", HEXLOWER.encode(document), HEXLOWER.encode(actor))
    }
}

/// Opens the database, or creates it.
type Open = dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync;

/// The open database.
pub struct Store {
    dir: PathBuf,
    path: PathBuf,
    open: Box<Open>,
    /// `None` only while it is reopened.
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens the database of a data directory, or creates it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let file = path.clone();
        let open = move || builder().create(&file);
        Self::opened(Self {
            dir: dir.to_owned(),
            path,
            open: Box::new(open),
            database: RwLock::default(),
        })
    }

    /// Opens the database on a disk in memory, or creates it.
    #[cfg(any(test, feature = "memory"))]
    pub fn on(disk: &MemoryDisk) -> Result<Self, StoreError> {
        let disk = disk.clone();
        let open = move || builder().create_with_backend(disk.clone());
        let (dir, path) = (PathBuf::new(), PathBuf::from(FILE));
        Self::opened(Self { dir, path, open: Box::new(open), database: RwLock::default() })
    }

    fn opened(store: Self) -> Result<Self, StoreError> {
        store.reopen()?;
        Ok(store)
    }

    /// Reopens the database. After a failed write redb accepts no other until then.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        let database = caught(|| Ok((self.open)()?)).map_err(|error| match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse(self.dir.clone()),
            other => self.error(other),
        })?;
        *held = Some(database);
        drop(held);
        self.prepare()
    }

    /// Checks the format of the open database, and makes the tables that it lacks.
    fn prepare(&self) -> Result<(), StoreError> {
        self.check_format()?;
        // With the tables made here, reading needs no case for missing ones.
        self.write(|transaction| {
            transaction.open_table(CHANGES)?;
            transaction.open_table(CERTIFICATES)?;
            transaction.open_table(VOTES)?;
            transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
            Ok(())
        })
    }

    /// Checks the format number. A file without tables is new.
    fn check_format(&self) -> Result<(), StoreError> {
        let found = self.read(|transaction| {
            let mut tables = transaction.list_tables()?.peekable();
            if tables.peek().is_none() {
                return Ok(Some(FORMAT));
            }
            if !tables.any(|table| table.name() == META.name()) {
                return Ok(None);
            }
            Ok(transaction.open_table(META)?.get(FORMAT_KEY)?.map(|format| format.value()))
        })?;
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(StoreError::TooNew { path: self.path.clone(), found })
            }
            _ => Err(StoreError::TooOld(self.path.clone())),
        }
    }

    /// Reads everything. Changes that cannot be decoded are logged and left out; they stay on the disk.
    pub fn load(&self) -> Result<Durable, StoreError> {
        let votes = self.load_votes()?;
        Ok(Durable { votes, ..self.load_documents(|_| true)? })
    }

    /// Reads what this node has promised and granted as a voter. Errors: an entry cannot be decoded; a voter that has forgotten a
    /// promise could break it.
    fn load_votes(&self) -> Result<Votes, StoreError> {
        let rows = self.read(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(VOTES)?.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_owned(), value.value().to_owned()));
            }
            Ok(rows)
        })?;
        let mut votes = Votes::default();
        for (key, value) in rows {
            if key == CHANGE_VOTE {
                votes.change = Some(decode(&value)?);
            } else {
                votes.leases.insert(key.into(), decode(&value)?);
            }
        }
        Ok(votes)
    }

    /// Reads the certificates and the document of one node.
    pub fn load_node(&self, node: NodeId) -> Result<Durable, StoreError> {
        let first = document_key(DocumentId::Node { node, generation: 0 });
        let prefix = &first[..first.len() - size_of::<u64>()];
        self.load_documents(|document| document.starts_with(prefix))
    }

    /// Reads the certificates, and the documents whose key is `wanted`.
    fn load_documents(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Durable, StoreError> {
        self.read(|transaction| {
            let mut durable = Durable::default();
            for row in transaction.open_table(CERTIFICATES)?.iter()? {
                durable.certificates.push(row?.0.value().to_owned());
            }
            for row in transaction.open_table(CHANGES)?.iter()? {
                let (key, value) = row?;
                let (document, actor, seq) = key.value();
                if wanted(document) {
                    let key = LoggedKey(document, actor, seq);
                    durable.changes.extend(read_change(key, value.value()));
                }
            }
            Ok(durable)
        })
    }

    /// Writes all of it, or nothing. Returns once it is durable.
    pub fn persist(&self, durable: &Durable) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(durable.changes.len());
        for change in &durable.changes {
            let body = change.decode_unverified()?;
            // It came together with the generation after it.
            if durable.replaced.contains(&body.document) {
                continue;
            }
            rows.push((document_key(body.document), body.actor, body.seq, encode(change)));
        }
        self.check_conflicts(&rows)?;
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
            let mut votes = transaction.open_table(VOTES)?;
            for (key, vote) in &durable.votes.leases {
                votes.insert(key.as_str(), encode(vote).as_slice())?;
            }
            for key in &durable.votes.forgotten {
                votes.remove(key.as_str())?;
            }
            if let Some(vote) = &durable.votes.change {
                votes.insert(CHANGE_VOTE, encode(vote).as_slice())?;
            }
            for (document, actor, seq, bytes) in &rows {
                changes.insert((document.as_slice(), actor.as_bytes(), *seq), bytes.as_slice())?;
            }
            Ok(())
        })
    }

    /// Errors: the key of a row has another change. One that the disk has damaged may be replaced by the valid one.
    fn check_conflicts(&self, rows: &[Row]) -> Result<(), StoreError> {
        let conflict = self.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            for (document, actor, seq, bytes) in rows {
                let key = (document.as_slice(), actor.as_bytes(), *seq);
                let held = changes.get(key)?;
                let differs = held.is_some_and(|held| {
                    let is_valid = |it: SignedChange| it.check_signature().is_ok();
                    held.value() != bytes && decode(held.value()).is_ok_and(is_valid)
                });
                if differs {
                    return Ok(Some(LoggedKey(key.0, key.1, key.2).to_string()));
                }
            }
            Ok(None)
        })?;
        conflict.map_or(Ok(()), |key| Err(StoreError::Conflict(key)))
    }

    /// Reads the changes in these ranges, in batches of at most [`MAX_BATCH`] bytes. Changes that cannot be decoded are
    /// logged and left out.
    pub fn replay(&self, ranges: &[ChangeRange]) -> Result<Vec<Vec<SignedChange>>, StoreError> {
        self.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let mut batches = vec![Vec::new()];
            let mut size = 0;
            for range in ranges {
                let document = document_key(range.document);
                let (from, to) = match &range.actor {
                    Some(actor) => (actor.as_bytes(), actor.as_bytes()),
                    None => (&[][..], &[0xff; 32][..]),
                };
                let keys =
                    (document.as_slice(), from, range.from)..=(document.as_slice(), to, range.to);
                for row in changes.range(keys)? {
                    let (key, value) = row?;
                    let (document, actor, seq) = key.value();
                    // With any actor, the key range also covers other sequence numbers.
                    if seq < range.from || seq > range.to {
                        continue;
                    }
                    let key = LoggedKey(document, actor, seq);
                    let Some(change) = read_change(key, value.value()) else { continue };
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

    /// Replaces the bytes of a stored change, as a disk does that damages them without being noticed.
    #[cfg(any(test, feature = "memory"))]
    pub fn damage(
        &self,
        (document, actor, seq): (DocumentId, Actor, u64),
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let document = document_key(document);
        self.write(|transaction| {
            let key = (document.as_slice(), actor.as_bytes(), seq);
            transaction.open_table(CHANGES)?.insert(key, bytes)?;
            Ok(())
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
            .and_then(|database| caught(|| f(database)))
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: redb::Error) -> StoreError {
        let path = self.path.clone();
        match source {
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                StoreError::Full(path)
            }
            source => StoreError::Redb { path, source: Box::new(source) },
        }
    }
}

/// Decodes a stored change; logs the key of one that cannot be decoded.
fn read_change(key: LoggedKey<'_>, bytes: &[u8]) -> Option<SignedChange> {
    match decode(bytes) {
        Ok(change) => Some(change),
        Err(error) => {
            tracing::error!(%key, %error, "stored change cannot be decoded: ignored, kept on disk");
            None
        }
    }
}

/// Encodes a document id so that the cluster document sorts first, then node documents by node, each by generation.
fn document_key(document: DocumentId) -> Vec<u8> {
    match document {
        DocumentId::Cluster { generation } => [&[0], &generation.to_be_bytes()[..]].concat(),
        DocumentId::Node { node, generation } => {
            let mut key = vec![1];
            key.extend(node.peer_id().to_bytes());
            key.extend(generation.to_be_bytes());
            key
        }
    }
}

#[cfg(test)]
mod power_loss_tests;
#[cfg(test)]
mod tests;
