//! Writes an object whose size is not known.

use std::path::{Path, PathBuf};

use object_store::multipart::{MultipartStore as _, PartId};
use object_store::{ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::error::{Cause, S3Error};

/// The most parts of an object.
pub const MAX_PARTS: usize = 10_000;
/// How large a part is, but the last: some servers want all of one size, AWS at least 5 MiB.
const MIN_PART: u64 = 8 << 20;
/// Two of these are in memory.
const MAX_PART: u64 = 64 << 20;
/// An estimate may be too low by a fourth.
const ESTIMATED_PARTS: u64 = 8000;

/// Returns the size of the parts of an object of about so many bytes. Of the largest, an object has 625 GiB.
pub fn part_size(estimate: u64) -> usize {
    let size = estimate.div_ceil(ESTIMATED_PARTS).next_multiple_of(1 << 20);
    usize::try_from(size.clamp(MIN_PART, MAX_PART)).unwrap_or(usize::MAX)
}

/// An upload in parts that a process has begun, and may not have ended. Kept in a file, so that the next process aborts it.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    /// The address of the object.
    address: String,
    name: String,
    id: String,
}

/// An object that is being written. It is there when [`Upload::finish`] has returned, and not before; at most two parts are in memory.
pub struct Upload {
    bucket: Bucket,
    name: String,
    part_size: usize,
    /// Where a begun upload is noted.
    note: PathBuf,
    buffer: Vec<u8>,
    /// The upload in parts, from the first whole part on.
    id: Option<String>,
    parts: Vec<PartId>,
    sending: Option<JoinHandle<object_store::Result<PartId>>>,
    size: u64,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("name", &self.name).field("size", &self.size).finish()
    }
}

impl Upload {
    /// Begins an object, and sends nothing yet. `note` is a file for what [`abort_unfinished`] needs, which one upload at a time uses.
    pub fn new(bucket: Bucket, name: &str, part_size: usize, note: &Path) -> Self {
        Self {
            bucket,
            name: name.to_owned(),
            part_size: part_size.max(1),
            note: note.to_owned(),
            buffer: Vec::new(),
            id: None,
            parts: Vec::new(),
            sending: None,
            size: 0,
        }
    }

    /// Appends bytes. Waits while two parts are in memory.
    ///
    /// # Errors
    /// The server refuses or cannot be reached, or the object is too large. Nothing can be appended then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), S3Error> {
        while !bytes.is_empty() {
            let room = self.part_size - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            self.size += now.len() as u64;
            bytes = later;
            if self.buffer.len() == self.part_size {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Makes the object visible. Returns its size.
    ///
    /// # Errors
    /// The server refuses or cannot be reached. The object is not there then, or whole.
    pub async fn finish(mut self) -> Result<u64, S3Error> {
        let finished = self.finish_here().await;
        match finished {
            Ok(()) => {
                let _ = std::fs::remove_file(&self.note);
                Ok(self.size)
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn finish_here(&mut self) -> Result<(), S3Error> {
        let path = self.bucket.path(&self.name);
        if self.id.is_none() {
            let all = PutPayload::from(std::mem::take(&mut self.buffer));
            let put = self.bucket.store.put(&path, all).await;
            return put.map(drop).map_err(|error| self.failed(&error));
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        self.await_part().await?;
        let Some(id) = self.id.clone() else { return Ok(()) };
        let parts = std::mem::take(&mut self.parts);
        let completed = self.bucket.store.complete_multipart(&path, &id, parts).await;
        completed.map(drop).map_err(|error| self.failed(&error))
    }

    /// Removes what was sent. Where that fails, [`abort_unfinished`] does it later.
    pub async fn abort(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
            let _ = sending.await;
        }
        // By the id, as the note may not have been written.
        if let Some(id) = &self.id
            && abort_parts(&self.bucket, &self.name, id).await
        {
            let _ = std::fs::remove_file(&self.note);
        }
    }

    fn failed(&self, error: &object_store::Error) -> S3Error {
        self.bucket.failed("write to", error)
    }

    /// Sends what is in the buffer as the next part, after the one before has arrived.
    async fn send_part(&mut self) -> Result<(), S3Error> {
        self.await_part().await?;
        let path = self.bucket.path(&self.name);
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let begun = self.bucket.store.create_multipart(&path).await;
                let id = begun.map_err(|error| self.failed(&error))?;
                self.id = Some(id.clone());
                self.note(&id);
                id
            }
        };
        let number = self.parts.len();
        if number == MAX_PARTS {
            let cause = Cause::TooLarge(MAX_PARTS, self.part_size >> 20);
            let address = self.bucket.address().to_string();
            return Err(S3Error { doing: "write to", address, cause });
        }
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(self.part_size));
        let store = self.bucket.store.clone();
        let sent = async move { store.put_part(&path, &id, number, part.into()).await };
        self.sending = Some(tokio::spawn(sent));
        Ok(())
    }

    async fn await_part(&mut self) -> Result<(), S3Error> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        let sent = sending.await.unwrap_or_else(|error| Err(error.into()));
        self.parts.push(sent.map_err(|error| self.failed(&error))?);
        Ok(())
    }

    /// Notes an upload. Without a note, a process that is killed leaves its parts to the rules of the bucket.
    fn note(&self, id: &str) {
        let address = self.bucket.address().to_string();
        let begun = Begun { address, name: self.name.clone(), id: id.to_owned() };
        let written = serde_json::to_vec(&begun).map_err(std::io::Error::from);
        let written = written.and_then(|text| std::fs::write(&self.note, text));
        if let Err(error) = written {
            tracing::warn!(%error, path = %self.note.display(), "cannot note an upload: if this process is killed, its parts stay");
        }
    }
}

/// Removes the parts of an upload. Returns whether there are none any more; logs why there may be.
async fn abort_parts(bucket: &Bucket, name: &str, id: &str) -> bool {
    let aborted = bucket.store.abort_multipart(&bucket.path(name), &id.to_owned()).await;
    let Err(error) = aborted.map_err(|error| bucket.failed("write to", &error)) else {
        return true;
    };
    let is_gone = matches!(&error.cause, Cause::NotFound | Cause::NoBucket(_))
        || error.to_string().contains("NoSuchUpload");
    if !is_gone {
        tracing::warn!(%error, "cannot remove the parts of an upload of {name} that was not finished");
    }
    is_gone
}

/// Removes what an upload has sent that was not finished, if `note` names one to this address.
pub async fn abort_unfinished(bucket: &Bucket, note: &Path) {
    let Ok(text) = std::fs::read(note) else { return };
    let begun: Option<Begun> = serde_json::from_slice(&text).ok();
    if let Some(Begun { address, name, id }) = begun {
        if address != bucket.address().to_string() {
            tracing::warn!(
                "an upload of {name} to {address} was not finished: delete it there, as its parts take space"
            );
        } else if !abort_parts(bucket, &name, &id).await {
            return;
        }
    }
    let _ = std::fs::remove_file(note);
}
