//! Copying files into and out of containers, as tar archives.

use std::io;
use std::path::{Component, Path};
use std::time::Duration;

use bollard::container::PathStatResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt as _};
use vc_protocol::{InstanceId, Slot};

use super::client::DockerClient;
use crate::docker_error;
use crate::error::RuntimeError;

/// How long an upload may take. The session that feeds it has a shorter limit without progress.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// The bits of Go's `FileMode` for directories and symbolic links, as Docker's API has them.
const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

/// A tar archive, as a stream.
pub type Archive = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// The target of an archive in a container.
pub struct Upload {
    client: bollard::Docker,
    container: String,
    slot: Slot,
    directory: String,
    /// The name that the archive's root must have.
    pub root: String,
}

impl DockerClient {
    /// Returns the file or directory at a path as an archive, whose root has the path's last name.
    pub(super) async fn copy_out(
        &self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let container = self.running(&client, instance).await?;
        if stat(&client, &container, path).await?.is_none() {
            return Err(RuntimeError::NoPath {
                path: path.to_owned(),
                slot: instance.slot.clone(),
            });
        }
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let archive = client.download_from_container(&container, Some(options));
        Ok(archive.map(|chunk| chunk.map_err(|error| RuntimeError::Docker(error.into()))).boxed())
    }

    /// Returns the target of an archive that is to be written to a path: into the directory there, under `name`; in
    /// place of the file there; or new.
    pub(super) async fn copy_in(
        &self,
        instance: &InstanceId,
        path: &str,
        name: &str,
    ) -> Result<Upload, RuntimeError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let container = self.running(&client, instance).await?;
        let mut path = path.to_owned();
        let mut found = stat(&client, &container, &path).await?;
        if let Some(link) = found.as_ref().filter(|it| it.file_mode & LINK != 0) {
            path.clone_from(&link.link_target);
            found = stat(&client, &container, &path).await?;
        }
        let is_directory = found.is_some_and(|it| it.file_mode & DIRECTORY != 0);
        let (directory, root) = if is_directory {
            (path, name.to_owned())
        } else {
            let named = Path::new(&path);
            let last = named.components().next_back();
            let (Some(Component::Normal(last)), Some(parent), false) =
                (last, named.parent(), path.ends_with('/'))
            else {
                return Err(RuntimeError::NoDirectory { path, slot: instance.slot.clone() });
            };
            (parent.display().to_string(), last.to_string_lossy().into_owned())
        };
        Ok(Upload { client, container, slot: instance.slot.clone(), directory, root })
    }
}

/// Returns what is at a path; `None` when there is nothing.
async fn stat(
    client: &bollard::Docker,
    container: &str,
    path: &str,
) -> Result<Option<PathStatResponse>, RuntimeError> {
    let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
    match client.get_container_archive_info(container, Some(options)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if docker_error::status(&error) == Some(404) => Ok(None),
        Err(error) => Err(RuntimeError::Docker(error.into())),
    }
}

impl Upload {
    /// Unpacks an archive. An error in it aborts the upload; what was unpacked before stays.
    ///
    /// # Errors
    /// The directory does not exist, the archive failed, or Docker refuses.
    pub async fn unpack(
        self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let options = UploadToContainerOptionsBuilder::default()
            .path(&self.directory)
            .no_overwrite_dir_non_dir("true")
            .build();
        let body = bollard::body_try_stream(archive);
        let client = self.client.with_timeout(UPLOAD_TIMEOUT);
        let uploaded = client.upload_to_container(&self.container, Some(options), body).await;
        uploaded.map_err(|error| match docker_error::status(&error) {
            Some(404) => RuntimeError::NoDirectory { path: self.directory, slot: self.slot },
            _ => RuntimeError::Docker(error.into()),
        })
    }
}
