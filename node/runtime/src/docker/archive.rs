//! Files of containers, as tar archives.

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
use vc_protocol::InstanceId;

use super::Engine;
use crate::RuntimeError;
use crate::reason;

/// A large archive takes its time; that somebody still feeds it is seen to elsewhere.
const UPLOAD: Duration = Duration::from_secs(24 * 3600);
/// How Docker (Go's `FileMode`) marks directories and links.
const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

/// A tar archive on its way.
pub type Archive = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// Where an archive goes in a container.
pub struct Upload {
    client: bollard::Docker,
    container: String,
    directory: String,
    /// How its root must be called.
    pub root: String,
}

impl Engine {
    /// What is at a path, as an archive whose root has the path's last name.
    pub(super) async fn copy_out(
        &self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        let client = self.client().map_err(|error| self.refused(&error))?;
        let container = self.running(&client, instance).await?;
        if stat(&client, &container, path).await?.is_none() {
            let told = format!("there is no {path} in {}", instance.slot);
            return Err(RuntimeError::Refused(told));
        }
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let archive = client.download_from_container(&container, Some(options));
        Ok(archive.map(|piece| piece.map_err(|it| RuntimeError::Refused(reason::of(&it)))).boxed())
    }

    /// Where an archive goes that is to be put at a path: into the directory that is there, under its own name, or in
    /// place of what is there, or new.
    pub(super) async fn copy_in(
        &self,
        instance: &InstanceId,
        path: &str,
        name: &str,
    ) -> Result<Upload, RuntimeError> {
        let client = self.client().map_err(|error| self.refused(&error))?;
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
            let refused = || {
                let told = format!("there is no directory {path} in {}", instance.slot);
                RuntimeError::Refused(told)
            };
            let named = Path::new(&path);
            let last = named.components().next_back();
            let (Some(Component::Normal(last)), Some(parent), false) =
                (last, named.parent(), path.ends_with('/'))
            else {
                return Err(refused());
            };
            (parent.display().to_string(), last.to_string_lossy().into_owned())
        };
        Ok(Upload { client, container, directory, root })
    }
}

/// What is at a path; `None`: nothing.
async fn stat(
    client: &bollard::Docker,
    container: &str,
    path: &str,
) -> Result<Option<PathStatResponse>, RuntimeError> {
    let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
    match client.get_container_archive_info(container, Some(options)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if reason::status(&error) == Some(404) => Ok(None),
        Err(error) => Err(RuntimeError::Refused(reason::of(&error))),
    }
}

impl Upload {
    /// Unpacks an archive there. An error in it breaks it off; what was unpacked stays.
    pub async fn unpack(
        self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let options = UploadToContainerOptionsBuilder::default()
            .path(&self.directory)
            .no_overwrite_dir_non_dir("true")
            .build();
        let body = bollard::body_try_stream(archive);
        let client = self.client.with_timeout(UPLOAD);
        let uploaded = client.upload_to_container(&self.container, Some(options), body).await;
        uploaded.map_err(|error| match reason::status(&error) {
            Some(404) => RuntimeError::Refused(format!("there is no directory {}", self.directory)),
            _ => RuntimeError::Refused(reason::of(&error)),
        })
    }
}
