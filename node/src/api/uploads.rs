//! Uploads of the directories that volumes are, and of files into volumes.
//!
//! An upload is staged on the node that gets it, and goes on where it broke off: the client asks what is there, and sends the rest. What
//! is whole becomes the first snapshot of a new volume, or replaces what a volume has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use vc_engine::Input;
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, FileList, FileRow, MAX_DIRECTORY_ID, Reply, UploadTarget};
use vc_protocol::{ApiError, Millis, VolumeKey};
use vc_runtime::Runtime;
use vc_runtime::docker::VolumePlace;
use vc_volumes::Uploading;

use super::ControlService;
use super::new_volumes::{FIRST_EPOCH, Mounted};
use super::service::KEEPALIVE_INTERVAL;
use super::volume_archives::{Chunks, MAX_PATH, Received, permit, receive, unreadable};
use super::volume_error::VolumeError;
use crate::auth::User;
use crate::auth::privileges::check_files;
use crate::clock;
use crate::frames::{Duplex, FrameError, Frames};

/// How long a client may send nothing of an archive, or take nothing of a list.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Lists of files between the disk and the client.
const MAX_PENDING_LISTS: usize = 2;
/// How long a volume that is to be replaced may be in use: until this node knows that its services are to stop, and until they have.
const WANTED_TIMEOUT: Duration = Duration::from_secs(15);
const USERS_TIMEOUT: Duration = Duration::from_secs(150);
const USERS_INTERVAL: Duration = Duration::from_millis(250);
/// How long the last snapshot of a volume may be waited for, once no instance uses it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The uploads that are received.
static ACTIVE: Mutex<BTreeMap<VolumeKey, Active>> = Mutex::new(BTreeMap::new());

/// An upload that is received. A client that has lost its connection continues in another session: the session before, whose stream
/// may still be open, ends.
#[derive(Clone)]
struct Active {
    directory: String,
    superseded: Arc<Notify>,
}

/// Ends with the upload.
struct Permit {
    volume: VolumeKey,
    superseded: Arc<Notify>,
}

impl Active {
    fn all() -> std::sync::MutexGuard<'static, BTreeMap<VolumeKey, Self>> {
        ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the upload of a directory. Errors: that of another one goes on.
    fn supersede(volume: &VolumeKey, directory: &str) -> Result<(), VolumeError> {
        Self::supersede_in(&Self::all(), volume, directory)
    }

    fn supersede_in(
        all: &BTreeMap<VolumeKey, Self>,
        volume: &VolumeKey,
        directory: &str,
    ) -> Result<(), VolumeError> {
        match all.get(volume) {
            Some(active) if active.directory != directory => {
                Err(VolumeError::Uploading(volume.clone()))
            }
            Some(active) => {
                active.superseded.notify_one();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn begin(volume: &VolumeKey, directory: &str) -> Result<Permit, VolumeError> {
        let mut all = Self::all();
        Self::supersede_in(&all, volume, directory)?;
        let superseded = Arc::new(Notify::new());
        let active = Self { directory: directory.to_owned(), superseded: Arc::clone(&superseded) };
        all.insert(volume.clone(), active);
        Ok(Permit { volume: volume.clone(), superseded })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = Active::all();
        if all.get(&self.volume).is_some_and(|it| Arc::ptr_eq(&it.superseded, &self.superseded)) {
            all.remove(&self.volume);
        }
    }
}

impl ControlService {
    /// Receives a directory. Without a target, from a client of an older version, that begins at zero.
    ///
    /// # Errors
    /// The stream is closed, or the archive was refused before its end: what the client still sends is no request.
    pub(super) async fn upload_volume(
        &self,
        user: &User,
        key: VolumeKey,
        target: Option<UploadTarget>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let Some(target) = target else { return self.upload_at_once(user, key, frames).await };
        let UploadTarget { directory, begun, bytes, replace, .. } = target;
        let prepared = (|| {
            check_directory(&directory)?;
            let permit = permit()?;
            match replace {
                true => drop(self.volume(&key)?),
                false => self.check_new(&key, Mounted::Yes)?,
            }
            let store = self.store()?;
            Ok::<_, VolumeError>((permit, store, Active::begin(&key, &directory)?))
        })();
        let (permit, store, active) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error.into())),
        };
        frames.send(&Reply::Ready).await?;
        let (service, user, volume) = (self.clone(), user.clone(), store.volume(&key));
        let importing = async move |reader: Chunks| {
            let _permit = permit;
            let uploading = Uploading { directory: directory.clone(), begun, bytes };
            volume.stage(uploading, reader, clock::now()).await.map_err(unreadable)?;
            let node = service.cluster.membership().node;
            if !replace {
                let made = volume.begin_with_upload(&directory, FIRST_EPOCH, clock::now()).await;
                let (manifest, from) =
                    (made.map_err(VolumeError::from)?, "an uploaded directory".to_owned());
                service.announce(&user, &store, key, from, &manifest, Mounted::Yes).await?;
            }
            Ok(Reply::Uploaded(node))
        };
        let received = tokio::select! {
            received = receive(frames, IDLE_TIMEOUT, importing) => received?,
            () = active.superseded.notified() => Received::Part(VolumeError::Superseded.into()),
        };
        finish(received, frames).await
    }

    /// Receives a directory with which a volume begins, in an archive of any kind.
    async fn upload_at_once(
        &self,
        user: &User,
        key: VolumeKey,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let prepared = (|| {
            let permit = permit()?;
            self.check_new(&key, Mounted::Yes)?;
            Ok::<_, VolumeError>((permit, self.store()?))
        })();
        let (permit, store) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error.into())),
        };
        frames.send(&Reply::Ready).await?;
        let (service, user, volume) = (self.clone(), user.clone(), store.volume(&key));
        let importing = async move |reader: Chunks| {
            let _permit = permit;
            let made = volume.import(reader, FIRST_EPOCH, clock::now()).await;
            let (manifest, from) = (made.map_err(unreadable)?, "an uploaded directory".to_owned());
            service.announce(&user, &store, key, from, &manifest, Mounted::Yes).await?;
            Ok(Reply::Uploaded(service.cluster.membership().node))
        };
        finish(receive(frames, IDLE_TIMEOUT, importing).await?, frames).await
    }

    /// Lists what is here of an upload that broke off.
    pub(super) async fn staged_upload(
        &self,
        key: VolumeKey,
        directory: String,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let prepared = (|| {
            check_directory(&directory)?;
            let permit = permit()?;
            Active::supersede(&key, &directory)?;
            Ok::<_, VolumeError>((permit, self.store()?.volume(&key)))
        })();
        let (permit, volume) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        let (to, lists) = mpsc::channel(MAX_PENDING_LISTS);
        let listing = tokio::spawn(async move {
            let _permit = permit;
            let each = move |files| to.blocking_send(files).is_ok();
            Ok(volume.list_staged(&directory, each).await?.unwrap_or(0))
        });
        send_lists(lists, listing, IDLE_TIMEOUT, frames).await
    }

    /// Lists what a volume has that this node writes, or wrote last.
    pub(super) async fn volume_files(
        &self,
        user: &User,
        key: VolumeKey,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let found = async {
            let permit = permit()?;
            let store = self.store()?;
            let Runtime::Docker(docker) = &self.runtime else { return Err(VolumeError::NoDocker) };
            let view = self.cluster.latest().view;
            check_files(&user.rights, &view, &key)?;
            if !view.input.volumes.contains_key(&key) {
                return Err(VolumeError::NoVolume(key.clone()));
            }
            let node = self.cluster.membership().node;
            let place = VolumePlace::on(node, &vc_placement::volume_spec(&view.input, &key));
            let working = docker.volume_directory(&key, &place).await?;
            Ok((permit, store.volume(&key), working))
        };
        let (permit, volume, working) = match found.await {
            Ok(found) => found,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        let (to, lists) = mpsc::channel(MAX_PENDING_LISTS);
        let listing = spawn_blocking(move || {
            let _permit = permit;
            volume.list_files(&working, |files| to.blocking_send(files).is_ok())?;
            Ok(0)
        });
        send_lists(lists, listing, IDLE_TIMEOUT, frames).await
    }

    /// Makes a volume equal to what was uploaded, once no instance uses it any more.
    pub(super) async fn replace_volume(
        &self,
        user: &User,
        key: VolumeKey,
        directory: &str,
    ) -> Result<Reply, ApiError> {
        check_directory(directory)?;
        let view = self.cluster.latest().view;
        check_files(&user.rights, &view, &key).map_err(VolumeError::from)?;
        let store = self.store()?;
        let Runtime::Docker(docker) = &self.runtime else {
            return Err(VolumeError::NoDocker.into());
        };
        let started = Instant::now();
        let mut unused_since = None;
        let place = loop {
            let (view, row) = self.volume(&key)?;
            let node = self.cluster.membership().node;
            let place = VolumePlace::on(node, &vc_placement::volume_spec(&view.input, &key));
            let wanted = row.services.iter().any(|service| view.replicas(service) > 0);
            let users = docker.volume_users(&key, &place).await.map_err(VolumeError::from)?;
            if !wanted && users == 0 {
                let unused_since = *unused_since.get_or_insert_with(Instant::now);
                // The last snapshot of what was written comes first, where the volume has one.
                let copy = self.copy(&store, &key).await?;
                let is_late = unused_since.elapsed() > CLOSE_TIMEOUT;
                if copy.closed || copy.written.is_none() || is_late {
                    break place;
                }
            } else {
                unused_since = None;
                let waited = started.elapsed();
                if waited > USERS_TIMEOUT || (wanted && waited > WANTED_TIMEOUT) {
                    let (volume, services) = (key, row.services);
                    return Err(VolumeError::InUse { volume, services }.into());
                }
            }
            sleep(USERS_INTERVAL).await;
        };
        let working = docker.volume_directory(&key, &place).await.map_err(VolumeError::from)?;
        let volume = store.volume(&key);
        let replaced = volume.replace_with_upload(directory, &working, clock::now()).await;
        let replaced = replaced.map_err(VolumeError::from)?;
        let copy = self.copy(&store, &key).await?;
        match copy.written {
            Some(_) => self.report_snapshot(&store, &key).await?,
            None => self.cluster.input(Input::Volume(key.clone(), copy)).await?,
        }
        let (before, snapshot) = (replaced.before.to_string(), replaced.manifest.id.to_string());
        let change = Change::VolumeReplaced { volume: key, before, snapshot };
        self.audit.record(AuditAction::VolumeRestored, user, None, change.to_string());
        Ok(Reply::Done(vec![change]))
    }

    /// Receives a file or directory into a volume that this node writes, or wrote last.
    ///
    /// # Errors
    /// The stream is closed, or the archive was refused before its end: what the client still sends is no request.
    pub(super) async fn copy_into_volume(
        &self,
        user: &User,
        key: VolumeKey,
        path: String,
        name: String,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let prepared = async {
            if path.len() > MAX_PATH || name.len() > MAX_PATH {
                return Err(VolumeError::LongPath.into());
            }
            let permit = permit()?;
            let store = self.store()?;
            let Runtime::Docker(docker) = &self.runtime else {
                return Err(VolumeError::NoDocker.into());
            };
            let view = self.cluster.latest().view;
            check_files(&user.rights, &view, &key).map_err(VolumeError::from)?;
            if !view.input.volumes.contains_key(&key) {
                return Err(VolumeError::NoVolume(key.clone()).into());
            }
            let node = self.cluster.membership().node;
            let place = VolumePlace::on(node, &vc_placement::volume_spec(&view.input, &key));
            let copy = self.copy(&store, &key).await?;
            let epoch = copy.written.ok_or_else(|| VolumeError::NotWritten(key.clone()))?;
            let working = docker.volume_directory(&key, &place).await.map_err(VolumeError::from)?;
            Ok::<_, ApiError>((permit, store, working, epoch, copy.closed))
        };
        let (permit, store, working, epoch, closed) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        frames.send(&Reply::Ready).await?;
        let (service, user) = (self.clone(), user.clone());
        let importing = async move |reader: Chunks| {
            let _permit = permit;
            let volume = store.volume(&key);
            let what = (path.as_str(), name.as_str());
            let copied = volume.copy_in(&working, what, reader, epoch, clock::now()).await;
            if closed {
                service.report_snapshot(&store, &key).await?;
            }
            copied.map_err(unreadable)?;
            let node_name = service.cluster.latest().view.name(service.cluster.membership().node);
            let change = Change::VolumeChanged { volume: key, path, node_name };
            service.audit.record(AuditAction::VolumeChanged, &user, None, change.to_string());
            Ok(Reply::Done(vec![change]))
        };
        finish(receive(frames, IDLE_TIMEOUT, importing).await?, frames).await
    }
}

/// Errors: the name of a directory is too long.
fn check_directory(directory: &str) -> Result<(), VolumeError> {
    match directory.len() <= MAX_DIRECTORY_ID {
        true => Ok(()),
        false => Err(VolumeError::LongDirectory),
    }
}

/// Answers a client whose archive was received. What it still sends of one that was refused is no request.
async fn finish(
    received: Received,
    frames: &mut Frames<impl Duplex>,
) -> Result<Result<Reply, ApiError>, FrameError> {
    match received {
        Received::Whole(reply) => Ok(reply),
        Received::Part(error) => {
            frames.send(&Reply::Error(error)).await?;
            Err(FrameError::Closed)
        }
    }
}

/// Sends lists of files, and the end with what the listing returns. A client that takes nothing for a time ends the listing, which
/// holds a thread.
async fn send_lists(
    mut lists: mpsc::Receiver<Vec<FileRow>>,
    listing: JoinHandle<Result<Millis, VolumeError>>,
    idle: Duration,
    frames: &mut Frames<impl Duplex>,
) -> Result<(), FrameError> {
    let mut send = async |reply| {
        let sent = timeout(idle, frames.send(&reply)).await;
        sent.unwrap_or(Err(FrameError::Closed))
    };
    loop {
        match timeout(KEEPALIVE_INTERVAL, lists.recv()).await {
            Ok(Some(files)) => {
                send(Reply::Files(FileList { files, more: true, begun: 0 })).await?;
            }
            Ok(None) => break,
            Err(_) => send(Reply::KeepAlive).await?,
        }
    }
    let reply = match listing.await {
        Ok(Ok(begun)) => Reply::Files(FileList { files: Vec::new(), more: false, begun }),
        Ok(Err(error)) => Reply::Error(error.into()),
        Err(_) => Reply::Error(VolumeError::Stopping.into()),
    };
    send(reply).await
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    use vc_protocol::control::FileKind;

    use super::*;

    fn volume(name: &str) -> VolumeKey {
        format!("uploads/{name}").parse().expect("a volume")
    }

    #[tokio::test]
    async fn an_upload_that_goes_on_ends_the_session_before_and_another_directory_waits() {
        let key = volume("one");
        let first = Active::begin(&key, "a").expect("nothing is uploaded");
        assert!(matches!(Active::begin(&key, "b"), Err(VolumeError::Uploading(_))));
        let second = Active::begin(&key, "a").expect("it goes on");
        first.superseded.notified().await;
        drop(first);
        assert!(Active::supersede(&key, "b").is_err(), "the second goes on");
        drop(second);
        Active::supersede(&key, "b").expect("nothing is uploaded");
    }
    #[test]
    fn of_directories_that_are_uploaded_at_the_same_time_one_begins() {
        let key = volume("race");
        for _ in 0..100 {
            let start = std::sync::Barrier::new(4);
            let begin = |directory: &str| {
                start.wait();
                Active::begin(&key, directory).ok()
            };
            let begun: Vec<Option<Permit>> = std::thread::scope(|scope| {
                let threads = ["a", "b", "c", "d"].map(|it| scope.spawn(move || begin(it)));
                threads.map(|it| it.join().expect("it ends")).into_iter().collect()
            });
            assert_eq!(begun.iter().flatten().count(), 1);
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_a_list_ends_it() {
        let (node, client) = tokio::io::duplex(1 << 10);
        let mut frames = Frames::new(node.compat(), 1 << 20);
        let (to, lists) = mpsc::channel(MAX_PENDING_LISTS);
        let (path, idle) = ("x".repeat(2 << 10), Duration::from_millis(1));
        let listing = tokio::spawn(async move {
            let row =
                || FileRow { path: path.clone(), kind: FileKind::File, size: 0, modified_ns: 0 };
            while to.send(vec![row()]).await.is_ok() {}
            Ok(0)
        });
        let sent = send_lists(lists, listing, idle, &mut frames).await;
        assert!(matches!(sent, Err(FrameError::Closed)), "{sent:?}");
        drop(client);
    }
}
