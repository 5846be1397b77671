//! Makes a backup through sessions with a node.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Duration, sleep};
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::backup::{ClusterContent, MAX_CLUSTER_CONTENT};
use vc_protocol::control::{ReplicaState, Reply, Request, SnapshotKind, SnapshotRow, VolumeRow};
use vc_protocol::exec::ExecFrame;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, VolumeKey};

use crate::error::BackupError;
use crate::format::{BackupSummary, Header, Manifest, VolumeEntry, VolumeSnapshot};
use crate::passphrase::Passphrase;
use crate::target::Target;
use crate::write::Writer;

/// Chunks that wait for the disk.
const CHUNKS: usize = 8;
/// How often a snapshot is chosen, as newer ones may replace it before it is sent.
const ATTEMPTS: u32 = 5;
/// How often the node hears of a client that takes what it sends.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The volumes whose data is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The data of no volume.
    None,
    /// All that have a snapshot, or can have one.
    All,
    /// These, as `project/volume`, or their names if no other project has one of that name.
    Named(Vec<String>),
}

/// What a backup is doing.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The data of a volume follows, of about so many bytes before it is compressed.
    Volume(&'a VolumeKey, u64),
    /// So many more bytes of it have arrived.
    Bytes(u64),
}

/// Why a backup was not made. There is no file then, or it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The node cannot be reached.
    #[error("{}", .0.message)]
    Connect(ApiError),
    /// The node refused, or the connection was lost.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file cannot be written.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The file exists.
    #[error("{0} exists")]
    Exists(PathBuf),
    /// No such volume.
    #[error("no volume '{0}'")]
    NoVolume(String),
    /// Several projects have it.
    #[error("several volumes are named '{0}'")]
    Ambiguous(String),
    /// A volume whose data was asked for has none that could be read.
    #[error("volume {0} has no snapshot on a node that is up")]
    NoSnapshot(VolumeKey),
    /// What a node answers is not what this version understands.
    #[error("the node sends more of the cluster document than a backup can have")]
    TooLarge,
    /// A thread has panicked.
    #[error("the thread that writes the file has ended")]
    Thread,
}

impl From<TakeError> for ApiError {
    fn from(error: TakeError) -> Self {
        let (code, hint) = match error {
            TakeError::Connect(error) => return error,
            TakeError::Session(error) => return error.into(),
            TakeError::Backup(error) => return error.into(),
            TakeError::Exists(_) => {
                (ErrorCode::AlreadyExists, "name another file, or replace it with --force")
            }
            TakeError::NoVolume(_) => (ErrorCode::NotFound, "see 'vc volume ls'"),
            TakeError::Ambiguous(_) => (ErrorCode::InvalidArgument, "write PROJECT/NAME"),
            TakeError::NoSnapshot(_) => (
                ErrorCode::NotFound,
                "see 'vc volume ls' and 'vc nodes', or leave its data out with --volumes=NAME,…",
            ),
            TakeError::TooLarge | TakeError::Thread => (ErrorCode::Internal, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Makes a backup and writes it to `target`. It is there when it is whole and durable, and not before. `connect` opens sessions of an
/// admin.
///
/// A volume whose data cannot be read to its end, such as one whose node dies meanwhile, is left out and named in the result.
///
/// # Errors
/// See [`TakeError`]: there is none then, or it is as it was.
pub async fn take(
    connect: impl AsyncFn() -> Result<Session, ApiError>,
    selection: &Selection,
    passphrase: Passphrase,
    mut target: impl Target,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<BackupSummary, TakeError> {
    let connect = async || connect().await.map_err(TakeError::Connect);
    let content = in_session(&connect, async |session| cluster(session).await).await?;
    // A new session each: what is downloaded ends its stream.
    let (volumes, rows) =
        in_session(&connect, async |session| choose(session, selection).await).await?;
    let manifest = Manifest { header: Header::of(&content), volumes };
    let mut summary = BackupSummary::new(target.name(), 0, &manifest, &content);
    target.expect(rows.iter().map(|row| row.bytes).sum());
    let (pieces, writing) = write(target, passphrase, manifest, content);
    let sent = async {
        for row in &rows {
            progress(Progress::Volume(&row.volume, row.bytes));
            let copied = in_session(&connect, async |session| {
                volume(session, row, &pieces, &mut progress).await
            });
            let copied = copied.await;
            let Some(entry) = summary.volumes.iter_mut().find(|it| it.volume == row.volume) else {
                continue;
            };
            match copied {
                Ok(Some(snapshot)) => {
                    (entry.bytes, entry.snapshot_taken) = (snapshot.bytes, snapshot.taken);
                    entry.snapshot = Some(snapshot.snapshot);
                }
                Ok(None) => break,
                // The others are worth having: what was sent of this one does not count.
                Err(error) => {
                    let problem = ApiError::from(error).message;
                    let failed = Piece::Failed(row.volume.clone(), problem.clone());
                    if pieces.send(failed).await.is_err() {
                        break;
                    }
                    entry.fail(problem);
                }
            }
        }
        // Where it fails, the thread returns why.
        let _ = pieces.send(Piece::Whole).await;
    };
    sent.await;
    drop(pieces);
    let written = writing.await.map_err(|_| TakeError::Thread)?;
    summary.size = written?;
    Ok(summary)
}

/// Runs `body` in a session of its own, and closes that whatever the result.
async fn in_session<T>(
    connect: &impl AsyncFn() -> Result<Session, TakeError>,
    body: impl AsyncFnOnce(&mut Session) -> Result<T, TakeError>,
) -> Result<T, TakeError> {
    let mut session = connect().await?;
    let result = body(&mut session).await;
    session.close().await;
    result
}

/// A part of what the thread writes.
enum Piece {
    /// The data of a volume begins.
    Volume(VolumeKey, VolumeSnapshot),
    Bytes(Vec<u8>),
    /// The data of a volume could not be read, or not to its end, for this reason.
    Failed(VolumeKey, String),
    /// Everything was sent.
    Whole,
}

/// What receives the pieces, and the size of what comes of them.
type Writing = (mpsc::Sender<Piece>, JoinHandle<Result<u64, TakeError>>);

/// Has a thread write a backup, which is published after [`Piece::Whole`].
fn write(
    mut target: impl Target,
    passphrase: Passphrase,
    manifest: Manifest,
    content: ClusterContent,
) -> Writing {
    let (chunks, mut pending) = mpsc::channel(CHUNKS);
    let writing = spawn_blocking(move || {
        match write_all(&mut target, &passphrase, &manifest, &content, &mut pending) {
            Ok(()) => target.publish(),
            Err(error) => {
                let error = match error {
                    BackupError::Sink(source) => target.failed(source),
                    error => error,
                };
                target.discard();
                Err(error.into())
            }
        }
    });
    (chunks, writing)
}

fn write_all(
    target: &mut impl Target,
    passphrase: &Passphrase,
    manifest: &Manifest,
    content: &ClusterContent,
    pending: &mut mpsc::Receiver<Piece>,
) -> Result<(), BackupError> {
    let mut writer = Writer::begin(target, passphrase, manifest, content)?;
    let mut next = pending.blocking_recv();
    loop {
        match next {
            Some(Piece::Volume(key, snapshot)) => {
                let mut volume = writer.volume(&key, &snapshot)?;
                loop {
                    next = pending.blocking_recv();
                    let Some(Piece::Bytes(bytes)) = &next else { break };
                    volume.append(bytes)?;
                }
                if !matches!(next, Some(Piece::Failed(..))) {
                    volume.finish()?;
                }
            }
            Some(Piece::Failed(key, problem)) => {
                writer.failed(&key, &problem)?;
                next = pending.blocking_recv();
            }
            Some(Piece::Whole) => break,
            // The sender has failed and says why.
            Some(Piece::Bytes(_)) | None => {
                return Err(BackupError::Sink(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
    writer.finish().map(drop)
}

/// Asks for bytes, which follow on the stream, and passes them on up to their explicit end; until `pass` returns false.
async fn receive(
    session: &mut Session,
    request: &Request,
    mut pass: impl AsyncFnMut(Vec<u8>) -> Result<bool, TakeError>,
) -> Result<bool, TakeError> {
    session.send(request).await?;
    let Reply::Ready = session.receive_result().await? else {
        return Err(SessionError::Unexpected.into());
    };
    let (mut to, mut from) = session.split();
    let receiving = async {
        loop {
            let bytes = from.receive_bytes().await.map_err(SessionError::from)?;
            match ExecFrame::decode(&bytes) {
                Some(ExecFrame::Stdout(bytes)) if bytes.is_empty() => {}
                Some(ExecFrame::Stdout(bytes)) => {
                    if !pass(bytes).await? {
                        return Ok(false);
                    }
                }
                Some(ExecFrame::Exit(0)) => return Ok(true),
                Some(ExecFrame::Failed(error)) => return Err(SessionError::Refused(error).into()),
                _ => return Err(SessionError::Unexpected.into()),
            }
        }
    };
    let keep_alive = async {
        loop {
            sleep(KEEPALIVE_INTERVAL).await;
            if to.send_bytes(ExecFrame::Stdin(Vec::new()).encode()).await.is_err() {
                // What is received says why.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        received = receiving => received,
        () = keep_alive => Err(TakeError::Thread),
    }
}

/// Gets the cluster document with its secrets.
async fn cluster(session: &mut Session) -> Result<ClusterContent, TakeError> {
    let mut json = Vec::new();
    receive(session, &Request::Backup, async |bytes| {
        json.extend_from_slice(&bytes);
        if json.len() > MAX_CLUSTER_CONTENT { Err(TakeError::TooLarge) } else { Ok(true) }
    })
    .await?;
    let parsed = spawn_blocking(move || serde_json::from_slice(&json)).await;
    parsed.map_err(|_| TakeError::Thread)?.map_err(|_| SessionError::Unexpected.into())
}

/// Passes the data of the newest snapshot of a volume on. Returns which it was; `None` if nothing takes it any more.
async fn volume(
    session: &mut Session,
    row: &VolumeRow,
    pieces: &mpsc::Sender<Piece>,
    progress: &mut impl FnMut(Progress<'_>),
) -> Result<Option<VolumeSnapshot>, TakeError> {
    let mut attempts = ATTEMPTS;
    loop {
        let (found, id) =
            newest(session, row).await?.ok_or_else(|| TakeError::NoSnapshot(row.volume.clone()))?;
        let (volume, node) = (found.volume, found.node);
        let snapshot =
            VolumeSnapshot { snapshot: found.snapshot, taken: found.time, bytes: found.bytes };
        let request = Request::ExportVolume { volume, snapshot: id, node, path: None };
        let mut begun = false;
        let received = receive(session, &request, async |bytes| {
            if !std::mem::replace(&mut begun, true) {
                let first = Piece::Volume(row.volume.clone(), snapshot.clone());
                let _ = pieces.send(first).await;
            }
            progress(Progress::Bytes(bytes.len() as u64));
            Ok(pieces.send(Piece::Bytes(bytes)).await.is_ok())
        });
        match received.await {
            Ok(is_whole) => return Ok(is_whole.then_some(snapshot)),
            // A newer one has replaced it meanwhile.
            Err(TakeError::Session(SessionError::Refused(error)))
                if error.code == ErrorCode::NotFound && !begun && attempts > 1 =>
            {
                attempts -= 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns the volumes that there are, and the rows of those whose data is to be backed up.
async fn choose(
    session: &mut Session,
    selection: &Selection,
) -> Result<(Vec<VolumeEntry>, Vec<VolumeRow>), TakeError> {
    let mut rows = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
    rows.sort_by(|a, b| a.volume.cmp(&b.volume));
    let named: BTreeSet<VolumeKey> = match selection {
        Selection::None | Selection::All => BTreeSet::new(),
        Selection::Named(names) => {
            let of = names.iter().map(|name| Ok(named(&rows, name)?.volume.clone()));
            of.collect::<Result<_, TakeError>>()?
        }
    };
    let (mut entries, mut wanted) = (Vec::new(), Vec::new());
    for row in rows {
        let mut entry = VolumeEntry {
            volume: row.volume.clone(),
            primary: row.node_name.clone(),
            bytes: row.bytes,
            snapshot: row.snapshot.clone(),
            snapshot_taken: row.taken,
            included: false,
            problem: String::new(),
            failed: false,
        };
        if *selection == Selection::All || named.contains(&row.volume) {
            match newest(session, &row).await {
                Ok(Some(_)) => entry.included = true,
                Ok(None) if named.is_empty() => {
                    entry.fail("no node that is up has a snapshot of it".to_owned());
                }
                Ok(None) => return Err(TakeError::NoSnapshot(row.volume)),
                Err(TakeError::Session(SessionError::Refused(error))) if named.is_empty() => {
                    match error.code {
                        // It has no snapshots, such as one that was never written.
                        ErrorCode::NotFound | ErrorCode::FailedPrecondition => {
                            entry.problem = error.message;
                        }
                        _ => entry.fail(error.message),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if entry.included {
            wanted.push(row);
        }
        entries.push(entry);
    }
    Ok((entries, wanted))
}

fn named<'a>(rows: &'a [VolumeRow], name: &str) -> Result<&'a VolumeRow, TakeError> {
    let is_named =
        |row: &&VolumeRow| row.volume.to_string() == name || row.volume.volume.as_str() == name;
    let mut found = rows.iter().filter(is_named);
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row),
        (None, _) => Err(TakeError::NoVolume(name.to_owned())),
        (Some(_), Some(_)) => Err(TakeError::Ambiguous(name.to_owned())),
    }
}

/// Returns the newest snapshot of a volume that a node has which is up. Takes one if there is none, as of a volume with one copy.
async fn newest(
    session: &mut Session,
    row: &VolumeRow,
) -> Result<Option<(SnapshotRow, SnapshotId)>, TakeError> {
    let found = newest_of(session, row).await?;
    if found.is_some() || !row.up {
        return Ok(found);
    }
    session.change(&Request::SnapshotVolume { volume: row.volume.clone() }).await?;
    newest_of(session, row).await
}

async fn newest_of(
    session: &mut Session,
    row: &VolumeRow,
) -> Result<Option<(SnapshotRow, SnapshotId)>, TakeError> {
    let replicas = row.replicas.iter().filter(|it| it.state != ReplicaState::Down);
    let nodes = row.up.then_some(row.node).into_iter().chain(replicas.map(|it| it.node));
    let mut newest: Option<(SnapshotRow, SnapshotId)> = None;
    for node in nodes {
        let request = Request::Snapshots { volume: row.volume.clone(), node };
        let rows = match session.ask(&request).await {
            Ok(reply) => expect_reply!(reply, Snapshots)?,
            // Another one may have it.
            Err(SessionError::Refused(error)) if error.code == ErrorCode::Unavailable => continue,
            Err(error) => return Err(error.into()),
        };
        for row in rows.into_iter().filter(|it| it.kind == SnapshotKind::Snapshot) {
            let Ok(id) = row.snapshot.parse::<SnapshotId>() else { continue };
            if newest.as_ref().is_none_or(|(_, held)| *held < id) {
                newest = Some((row, id));
            }
        }
    }
    Ok(newest)
}
