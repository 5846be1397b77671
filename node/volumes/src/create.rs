//! Volumes that begin with data: the first snapshot. Its number is the time, in seconds, so that two nodes which begin a volume
//! of one name while they are cut off from each other do not take the one snapshot for the other.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use vc_protocol::Millis;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::child::Hold;
use crate::error::{Context as _, Error};
use crate::layout;
use crate::listing;
use crate::manifest::Manifest;
use crate::rsync::{Copy, Pass};
use crate::tree;
use crate::volume::{Volume, read_manifest};

impl Volume {
    /// Makes the first snapshot of this volume, which has none, of a snapshot of another one on this node. The files are links:
    /// nothing is copied.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Exists`], [`Error::Fenced`], and what else may go wrong. The volume has nothing then.
    pub async fn link_from(
        &self,
        other: &Self,
        id: SnapshotId,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error> {
        // Keeps it while it is read.
        let _sending = other.sending(id)?;
        let from = other.layout().snapshot(id);
        let hold = self.begin_first(epoch).await?;
        let read = self.blocking(Arc::new(()), move |_| read_manifest(&from)).await;
        let (taken, filled) = match read {
            Ok(Some(manifest)) => {
                let data = other.layout().data(id);
                let copied = self.fill(&data, Some(&data), &hold).await;
                (manifest.taken, copied)
            }
            Ok(None) => (0, Err(other.missing(format!("snapshot {id}")))),
            Err(error) => (0, Err(error)),
        };
        self.end_first(filled, first(epoch, now), taken, hold).await
    }

    /// Makes the first snapshot of this volume, which has none, a copy of a directory, which stays as it is. Nothing may write it.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Fenced`], [`Error::NoSpace`] and what else may go wrong. The volume has nothing then.
    pub async fn copy_from(
        &self,
        directory: &Path,
        epoch: Epoch,
        now: Millis,
    ) -> Result<Manifest, Error> {
        let hold = self.begin_first(epoch).await?;
        let source = directory.to_owned();
        let room = self.blocking(Arc::clone(&hold), move |this| {
            this.require_room(tree::allocated_below(&source)?)
        });
        let filled = match room.await {
            Ok(()) => self.fill(directory, None, &hold).await,
            Err(error) => Err(error),
        };
        self.end_first(filled, first(epoch, now), now, hold).await
    }

    /// Copies a directory to where the first snapshot is made.
    async fn fill(&self, from: &Path, link: Option<&Path>, hold: &Hold) -> Result<(), Error> {
        let to = layout::data(&self.layout().incoming());
        let copy = Copy { from, to: &to, list: None, link, pass: Pass::Still, nice: true };
        self.rsync(copy, Arc::clone(hold)).await
    }

    /// Prepares the directory of the first snapshot.
    pub(crate) async fn begin_first(&self, epoch: Epoch) -> Result<Hold, Error> {
        let hold = self.lock().await;
        let state = self.state().await?;
        self.blocking(Arc::clone(&hold), move |this| {
            let is_new = this.ids()?.is_empty() && this.conflicts()?.is_empty();
            if !is_new || state.written.is_some() || state.base.is_some() {
                return Err(Error::Exists { volume: this.key().to_string() });
            }
            this.check_fence(&state, epoch)?;
            this.prepare_staging()?;
            let mark = this.layout().first();
            std::fs::write(&mark, b"").context("write", &mark)?;
            let data = layout::data(&this.layout().incoming());
            tree::create(&data)?;
            // As Docker makes a volume, unless what fills it says otherwise: instances may not be root.
            let mode = Permissions::from_mode(0o755);
            std::fs::set_permissions(&data, mode).context("set the permissions of", &data)
        })
        .await?;
        Ok(hold)
    }

    /// Publishes the first snapshot if its directory was filled. If not, nothing is left of it.
    pub(crate) async fn end_first(
        &self,
        filled: Result<(), Error>,
        id: SnapshotId,
        taken: Millis,
        hold: Hold,
    ) -> Result<Manifest, Error> {
        let committed = match filled {
            Ok(()) => {
                self.blocking(Arc::clone(&hold), move |this| {
                    let data = layout::data(&this.layout().incoming());
                    tree::sync(&data)?;
                    let listing = listing::read(&data)?;
                    let manifest = Manifest::new(id, None, Vec::new(), taken, listing);
                    this.commit(&manifest, |_| Ok(()))?;
                    Ok(manifest)
                })
                .await
            }
            Err(error) => Err(error),
        };
        self.blocking(hold, Self::clear_first).await?;
        committed
    }

    /// Removes what is left of a first snapshot that was not made. Blocks.
    pub(crate) fn clear_first(&self) -> Result<(), Error> {
        self.clear_staging()?;
        // Only if it is empty: a copy without a snapshot is none.
        let _ = std::fs::remove_dir(self.dir());
        Ok(())
    }
}

/// Returns the id of a first snapshot.
pub(crate) fn first(epoch: Epoch, now: Millis) -> SnapshotId {
    // Zero is none, and a clock may begin in 1970.
    SnapshotId { epoch, number: (now / 1000).max(1) }
}
