//! Uploads the directories and large files that volumes of a project are: those of new volumes, and with `--upload` again.

mod diff;
mod pack;
mod replace;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use vc_client::{Session, SessionError, expect_reply};
use vc_compose::Upload;
use vc_protocol::control::{
    Change, FileRow, NodeRow, NodeStatus, Reply, Request, UploadDiff, UploadTarget, VolumeRow,
};
use vc_protocol::spec::Deployment;
use vc_protocol::volume::Origin;
use vc_protocol::{ApiError, ErrorCode, Millis, NodeId, ServiceKey, VolumeKey};

use self::pack::{Format, Packing};
pub(super) use self::replace::Replacement;
use self::tree::{Entry, UploadError, list};
use crate::app::{App, now};
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{self, note};

/// The longest tick of a filesystem's clock, in milliseconds: a later change may have a time that is so much earlier.
const TICK: Millis = 20;

/// A directory or file to upload.
pub(super) struct Pending<'a> {
    upload: &'a Upload,
    entries: Vec<Entry>,
    bytes: u64,
    /// When it was listed.
    begun: Millis,
    /// What it replaces; `None` of a new volume.
    replaces: Option<Replaces>,
}

/// A volume that is there.
struct Replaces {
    node: NodeId,
    services: Vec<ServiceKey>,
    diff: UploadDiff,
}

impl std::fmt::Display for Pending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.entries.iter().filter(|it| !it.metadata.is_dir()).count();
        let (path, volume) = (&self.upload.path, &self.upload.volume);
        write!(f, "upload {path} to {volume}: {files} files, {}", render::bytes(self.bytes))?;
        match self.replaces {
            Some(_) => write!(f, ", in place of what it has"),
            None => Ok(()),
        }
    }
}

impl Pending<'_> {
    /// Returns how it differs from what it replaces, if there is something.
    pub(super) fn diff(&self) -> Option<&UploadDiff> {
        self.replaces.as_ref().map(|it| &it.diff)
    }

    /// Shows how it differs from what it replaces.
    pub(super) fn show_diff(&self) {
        for line in self.diff().into_iter().flat_map(diff::lines) {
            render::indented_note(&line);
        }
    }
}

/// Returns the directories that have files and whose volumes the cluster does not have, and those that are to be uploaded `again`, by
/// volume or directory; an empty text means all. What its volume has already is left out, with a note.
pub(super) async fn pending<'a>(
    app: &App,
    session: &mut Session,
    uploads: &'a [Upload],
    again: &[String],
) -> Result<Vec<Pending<'a>>> {
    check_named(uploads, again)?;
    let mut listed = Vec::new();
    for upload in uploads {
        let (begun, entries) = (now(), entries(upload)?);
        listed.push((upload, begun, entries));
    }
    if !listed.iter().any(|(upload, _, entries)| is_named(upload, again) || !is_empty(entries)) {
        return Ok(Vec::new());
    }
    let rows = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
    let held: BTreeMap<VolumeKey, VolumeRow> =
        rows.into_iter().map(|row| (row.volume.clone(), row)).collect();
    let mut found = Vec::new();
    for (upload, begun, entries) in listed {
        let Upload { volume, path, .. } = upload;
        let replaces = match held.get(volume) {
            Some(row) if !is_named(upload, again) => {
                let is_noted = note_unused(row);
                if let (true, false, Some(entries)) = (upload.is_file, is_noted, &entries) {
                    note_changed_file(app, session, upload, entries).await?;
                }
                continue;
            }
            Some(row) => {
                let entries = entries.as_deref().ok_or_else(|| no_directory(path))?;
                let diff = diff::with_volume(session, volume, path, entries).await?;
                if diff::is_equal(&diff) {
                    note(&format!("volume {volume} has what {path} has: nothing to upload"));
                    continue;
                }
                Some(Replaces { node: row.node, services: row.services.clone(), diff })
            }
            None if is_empty(&entries) => continue,
            None => None,
        };
        let entries = entries.unwrap_or_default();
        let files = entries.iter().filter(|it| it.metadata.is_file());
        let bytes = files.map(|it| it.metadata.len()).sum();
        found.push(Pending { upload, entries, bytes, begun, replaces });
    }
    Ok(found)
}

fn is_empty(entries: &Option<Vec<Entry>>) -> bool {
    entries.as_ref().is_none_or(Vec::is_empty)
}

/// Returns what an upload has; `None` if that does not exist.
fn entries(upload: &Upload) -> std::result::Result<Option<Vec<Entry>>, UploadError> {
    let path = Path::new(&upload.path);
    if !upload.is_file {
        return list(path, &upload.ignore);
    }
    let metadata = std::fs::metadata(path);
    let metadata =
        metadata.map_err(|source| UploadError::Read { path: path.to_owned(), source })?;
    let name = path.file_name().unwrap_or_default();
    Ok(Some(vec![Entry { path: name.into(), metadata }]))
}

/// Returns the directory that the entries of an upload are in.
fn root(upload: &Upload) -> &Path {
    let path = Path::new(&upload.path);
    match path.parent() {
        Some(directory) if upload.is_file => directory,
        _ => path,
    }
}

/// Says that a file has another content than its volume, which the deployment does not change. One that is smaller would be a config,
/// whose new content takes effect.
async fn note_changed_file(
    app: &App,
    session: &mut Session,
    upload: &Upload,
    entries: &[Entry],
) -> Result {
    let Upload { volume, path, .. } = upload;
    match diff::with_volume(session, volume, path, entries).await {
        Ok(diff) if diff::is_equal(&diff) => {}
        Ok(_) => note(&format!(
            "volume {volume} has another {path}, which stays; --upload={volume} replaces it"
        )),
        // Nobody has asked for the comparison.
        Err(Error::Failed(_)) => app.renew(session).await?,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Says that a volume which no instance has begun with is not uploaded again: the deployment after its upload may have failed. Returns
/// whether it is one.
fn note_unused(row: &VolumeRow) -> bool {
    let is_unused = row.epoch == 0 && row.services.is_empty() && row.snapshot.is_some();
    if is_unused {
        note(&format!(
            "volume {} exists, and is not uploaded again; --upload={0} replaces what it has",
            row.volume
        ));
    }
    is_unused
}

fn no_directory(path: &str) -> ApiError {
    let message = format!("there is no directory {path}, which is to replace what its volume has");
    ApiError::new(ErrorCode::InvalidArgument, message).with_hint("make it, or leave --upload out")
}

/// Returns whether an upload is to replace what its volume has.
fn is_named(upload: &Upload, again: &[String]) -> bool {
    let Upload { volume, path, .. } = upload;
    again.iter().any(|text| {
        text.is_empty()
            || *text == volume.to_string()
            || text == volume.volume.as_str()
            // The path is absolute by now.
            || Path::new(path).ends_with(text.trim_start_matches("./"))
    })
}

/// Errors: something is named that the file does not upload.
fn check_named(uploads: &[Upload], again: &[String]) -> Result {
    let is_known = |text: &String| {
        !text.is_empty()
            && !uploads.iter().any(|upload| is_named(upload, std::slice::from_ref(text)))
    };
    let Some(unknown) = again.iter().find(|text| is_known(text)) else { return Ok(()) };
    let message = format!("--upload={unknown}: the file uploads no such directory or file");
    let known: Vec<&str> = uploads.iter().map(|it| it.path.as_str()).collect();
    let hint = match known.is_empty() {
        true => "relative directories, as in ./data:/data, and large files are uploaded".to_owned(),
        false => format!("it has {}", known.join(", ")),
    };
    Err(ApiError::new(ErrorCode::InvalidArgument, message).with_hint(hint).into())
}

/// Uploads a directory or file. Of a new volume, says in the specs which node has it; what replaces another content stays staged there.
pub(super) async fn send(
    app: &App,
    session: &mut Session,
    pending: &Pending<'_>,
    deployments: &mut [Deployment],
) -> Result {
    let volume = &pending.upload.volume;
    let sent = tokio::select! {
        sent = transfer(app, session, pending) => sent,
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            note("'vc deploy' goes on with the upload within 24 hours");
            Err(Stop::Interrupted.into())
        }
    };
    let at =
        sent.map_err(|error| error.context(&format!("cannot upload {}", pending.upload.path)))?;
    let of_project = deployments.iter_mut().filter(|it| it.service.project == volume.project);
    for Deployment { spec, .. } in of_project.filter(|_| pending.replaces.is_none()) {
        let volume = spec.volumes.get_mut(&volume.volume);
        if let Some(Origin::Uploaded { node, .. }) = volume.and_then(|it| it.origin.as_mut()) {
            *node = Some(at);
        }
    }
    Ok(())
}

/// Copies a file or directory into a volume. Returns what has changed.
pub(super) async fn copy_in(
    app: &App,
    session: &mut Session,
    source: &Path,
    request: &Request,
) -> Result<Vec<Change>> {
    let read = |error| UploadError::Read { path: source.to_owned(), source: error };
    let metadata = std::fs::metadata(source).map_err(read)?;
    let entries = match metadata.is_dir() {
        true => list(source, &[])?.unwrap_or_default(),
        false => vec![Entry { path: PathBuf::new(), metadata }],
    };
    let files = entries.iter().filter(|it| it.metadata.is_file());
    let bytes = files.map(|it| it.metadata.len()).sum();
    session.send(request).await?;
    match session.receive_result().await? {
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    let bar = app.out.transfer_bar(&source.display().to_string(), Some(bytes));
    let (root, offsets) = (source.to_owned(), HashMap::new());
    let packing = Packing { root, entries, offsets, format: Format::Whole };
    let (reply, changed) = pack::send(session, packing, bar).await?;
    note_changed(&changed);
    Ok(expect_reply!(reply, Done)?)
}

fn note_changed(changed: &[PathBuf]) {
    if let Some(first) = changed.first() {
        let (count, first) = (changed.len(), first.display());
        note(&format!("{count} files changed while they were read, such as {first}"));
    }
}

/// What a node has of an upload that broke off.
struct Staged {
    node: NodeId,
    files: Vec<FileRow>,
    /// When that upload began; 0 if the node has nothing of it.
    begun: Millis,
}

async fn transfer(app: &App, session: &mut Session, pending: &Pending<'_>) -> Result<NodeId> {
    let Upload { volume, path, .. } = pending.upload;
    let directory = directory_id(Path::new(path))?;
    let staged = find(app, session, pending, &directory).await?;
    let (upload, offsets) = match &staged {
        Some(Staged { node, files, begun }) => {
            let known = if *begun == 0 { pending.begun } else { *begun };
            let offsets = continued(&pending.entries, files, *begun);
            let replace = pending.replaces.is_some();
            let bytes = pending.bytes;
            (Some(UploadTarget { node: *node, directory, begun: known, bytes, replace }), offsets)
        }
        None => (None, HashMap::new()),
    };
    let there: u64 = offsets.values().sum();
    if there > 0 {
        note(&format!("goes on after {}, which had arrived", render::bytes(there)));
    }
    let format = if upload.is_some() { Format::Whole } else { Format::Plain };
    session.send(&Request::UploadVolume { volume: volume.clone(), upload }).await?;
    match session.receive_result().await? {
        Reply::Ready => {}
        _ => return Err(SessionError::Unexpected.into()),
    }
    let bar = app.out.transfer_bar(path, Some(pending.bytes));
    let (root, entries) = (root(pending.upload).to_owned(), pending.entries.clone());
    let packing = Packing { root, entries, offsets, format };
    let (reply, changed) = pack::send(session, packing, bar).await?;
    let at = expect_reply!(reply, Uploaded)?;
    note_changed(&changed);
    Ok(at)
}

/// Returns which node gets the upload, with what it has already: that of the volume; else the one that has most, or that which this
/// session is with. `None`: the nodes are of a version that begins at zero each time, wherever that is.
async fn find(
    app: &App,
    session: &mut Session,
    pending: &Pending<'_>,
    directory: &str,
) -> Result<Option<Staged>> {
    if let Some(replaces) = &pending.replaces {
        let staged = staged(app, session, pending, replaces.node, directory).await?;
        return staged.map(Some).ok_or_else(|| {
            let message = "the node of the volume cannot replace what that has";
            ApiError::new(ErrorCode::Unimplemented, message).with_hint("upgrade it").into()
        });
    }
    let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
    let address = session.address().to_string();
    let own = |row: &NodeRow| address.ends_with(&row.id.to_string());
    let is_fit = |row: &&NodeRow| row.state == NodeStatus::Up && row.runtime.starts_with("docker");
    let mut fit: Vec<&NodeRow> = nodes.iter().filter(is_fit).collect();
    fit.sort_by_key(|row| (row.draining, !own(row)));
    let ids: Vec<NodeId> = fit.iter().map(|row| row.id).collect();
    let (mut best, mut busy) = (None::<(u64, Staged)>, None);
    for node in ids {
        let found = match staged(app, session, pending, node, directory).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // Another node begins at zero.
            Err(Error::Failed(error)) if error.code == ErrorCode::Unavailable => {
                app.renew(session).await?;
                continue;
            }
            Err(Error::Failed(error)) if error.code == ErrorCode::ResourceExhausted => {
                busy = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let bytes = found.files.iter().map(|row| row.size).sum();
        if best.as_ref().is_none_or(|(most, _)| bytes > *most) {
            best = Some((bytes, found));
        }
    }
    match (best, busy) {
        (None, Some(error)) => Err(error.into()),
        (best, _) => Ok(best.map(|(_, staged)| staged)),
    }
}

/// Asks a node what it has of an upload; `None`: it does not know the request.
async fn staged(
    app: &App,
    session: &mut Session,
    pending: &Pending<'_>,
    node: NodeId,
    directory: &str,
) -> Result<Option<Staged>> {
    let (volume, directory) = (pending.upload.volume.clone(), directory.to_owned());
    let request = Request::StagedUpload { volume, node, directory };
    match diff::files(session, &request).await {
        Ok((files, begun)) => Ok(Some(Staged { node, files, begun })),
        Err(SessionError::Refused(error)) if error.code == ErrorCode::Unimplemented => {
            app.renew(session).await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns how much of which files need not be sent. A file counts that has not changed since the upload began, and of which the node
/// has a part with its time of modification.
fn continued(entries: &[Entry], files: &[FileRow], begun: Millis) -> HashMap<PathBuf, u64> {
    let there: HashMap<&str, &FileRow> = files.iter().map(|row| (row.path.as_str(), row)).collect();
    let begun = i64::try_from(begun.saturating_sub(TICK)).unwrap_or(i64::MAX);
    let mut offsets = HashMap::new();
    for Entry { path, metadata } in entries.iter().filter(|it| it.metadata.is_file()) {
        let Some(row) = path.to_str().and_then(|path| there.get(path)) else { continue };
        let changed = metadata.ctime().saturating_mul(1000) + metadata.ctime_nsec() / 1_000_000;
        let modified = metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec();
        if changed < begun && row.modified_ns == modified && row.size <= metadata.len() {
            offsets.insert(path.clone(), row.size);
        }
    }
    offsets
}

/// Identifies a directory or file of this computer.
fn directory_id(path: &Path) -> Result<String> {
    let read = |source| UploadError::Read { path: path.to_owned(), source };
    let whole = path.canonicalize().map_err(read)?;
    let name = rustix::system::uname();
    let mut hash = Sha256::new();
    hash.update(name.nodename().to_bytes_with_nul());
    hash.update(whole.as_os_str().as_encoded_bytes());
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(path: &str) -> Upload {
        let volume = format!("shop/{}", path.trim_start_matches("./"));
        let volume = volume.parse().expect("a volume");
        Upload { volume, path: path.to_owned(), is_file: false, ignore: Vec::new() }
    }

    #[test]
    fn uploads_are_named_by_volume_or_directory() {
        let upload = upload("./app");
        for text in ["", "shop/app", "app", "./app", "./app/"] {
            assert!(is_named(&upload, &[text.to_owned()]), "{text}");
        }
        assert!(!is_named(&upload, &[]) && !is_named(&upload, &["other".to_owned()]));
        let all = [upload];
        let refused = check_named(&all, &["other".to_owned()]).expect_err("unknown");
        assert!(format!("{refused:?}").contains("--upload=other"), "{refused:?}");
        check_named(&all, &[String::new(), "app".to_owned()]).expect("known");
    }

    #[test]
    fn what_has_arrived_is_not_sent_again_unless_the_file_has_changed_since() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for path in ["whole", "part", "longer", "other"] {
            std::fs::write(root.join(path), "1234").expect("written");
        }
        let entries = list(root, &[]).expect("listed").expect("it exists");
        let row = |path: &str, size, later| {
            let metadata = std::fs::metadata(root.join(path)).expect("there");
            let modified_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() + later;
            let kind = vc_protocol::control::FileKind::File;
            FileRow { path: path.to_owned(), kind, size, modified_ns }
        };
        let rows = [row("whole", 4, 0), row("part", 3, 0), row("longer", 5, 0), row("other", 4, 1)];
        let offsets = continued(&entries, &rows, now() + 1000);
        let expected = [("whole", 4), ("part", 3)].map(|(path, at)| (PathBuf::from(path), at));
        assert_eq!(offsets, HashMap::from(expected));
        assert!(continued(&entries, &rows, now() - 1000).is_empty(), "changed since it began");
    }
}
