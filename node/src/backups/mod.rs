//! Backups of the cluster to a directory of this node, or to object storage, one after each period.
//!
//! A setting of one node and no document: to have a process write to a directory of a host takes root on that host, and
//! there is one process on a data directory, so each backup is made once. The node makes them as `vc backup` does, through a session
//! with itself, with a token of its own. When the next one is due follows from what is in the directory: a restart neither repeats
//! nor forgets one, and of two nodes with one directory, such as a network file system, mostly one makes it. Object storage is used
//! with credentials of this host, which no document and no log has.

mod place;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use vc_backup::{Passphrase, Progress, Selection, is_incomplete, scheduled_name, take};
use vc_client::Candidates;
use vc_client::text::list;
use vc_protocol::node::ScheduledBackups;
use vc_protocol::token::{Issuer, Scope, UserRole};
use vc_protocol::{ApiError, ErrorCode, Millis, Multiaddr};

use crate::clock;
use crate::driver_message::DriverMessage;
use crate::identity::Membership;
use crate::settings::Settings;
use place::{Place, PlaceTarget};

/// The most volumes that are named as missing.
const MAX_NAMED: usize = 5;
/// Time between backups, and how many are kept, where nothing is said.
const DEFAULT_PERIOD: Millis = 24 * 3_600_000;
const DEFAULT_KEEP: u32 = 7;
/// The shortest pause between two backups.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause before another attempt, after one that failed.
const MAX_RETRY: Duration = Duration::from_secs(30 * 60);
/// How long a token for one session is valid: longer than a session of a large volume.
const TOKEN_TTL: Millis = 24 * 3_600_000;
/// How far a backup may be in the future: the clocks of nodes with one directory differ.
const MAX_SKEW: Millis = 60_000;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupSettingsError {
    /// There is no terminal to ask for it.
    #[error(
        "--backup-dir needs --backup-passphrase-file, a file whose first line is the passphrase of the backups"
    )]
    NoPassphrase,
    /// It has no key that signs tokens, and no secrets.
    #[error("--backup-dir needs a server, and this node is a worker: give it to another node")]
    Worker,
}

/// The schedule of this node.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    place: Place,
    /// How the log names the place.
    shown: String,
    passphrase: PathBuf,
    every: Millis,
    keep: usize,
    max_age: Option<Millis>,
    selection: Selection,
}

impl Schedule {
    /// Returns the schedule that the settings say; `None` if there is none. `data_dir` is that of this node.
    pub(crate) fn of(
        settings: &Settings,
        is_server: bool,
        data_dir: &Path,
    ) -> Result<Option<Self>, BackupSettingsError> {
        let Some(location) = settings.backup_dir.clone() else { return Ok(None) };
        if !is_server {
            return Err(BackupSettingsError::Worker);
        }
        let passphrase = settings.backup_passphrase_file.clone();
        Ok(Some(Self {
            shown: location.to_string(),
            place: Place::new(location, settings.backup_credentials_file.clone(), data_dir),
            passphrase: passphrase.ok_or(BackupSettingsError::NoPassphrase)?,
            every: settings.backup_every.unwrap_or(DEFAULT_PERIOD),
            keep: settings.backup_keep.unwrap_or(DEFAULT_KEEP).max(1) as usize,
            max_age: settings.backup_max_age,
            selection: if settings.backup_volumes { Selection::All } else { Selection::None },
        }))
    }
}

/// A backup that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    name: String,
    taken: Millis,
    size: u64,
    /// Whether it has the data of all volumes that it was to have.
    is_complete: bool,
}

impl Kept {
    fn new(name: String, taken: Millis, size: u64) -> Self {
        let is_complete = !is_incomplete(&name);
        Self { name, taken, size, is_complete }
    }

    /// Returns whether it was made by a clock that was wrong, or the present one is.
    fn is_future(&self, now: Millis) -> bool {
        self.taken > now.saturating_add(MAX_SKEW)
    }
}

/// What is known from one turn to the next.
#[derive(Debug, Default)]
struct State {
    newest: Option<Kept>,
    /// What the newest lacks, if this process made it.
    lacks: String,
    /// The names of backups that lack data and could not be renamed.
    incomplete: BTreeSet<String>,
    /// Whether the next is made although none is due, as the newest lacks data.
    is_repeated: bool,
}

/// Makes the backups of this node. [`run`](Self::run) it as a task.
#[derive(Clone)]
pub(crate) struct Backups {
    pub(crate) schedule: Schedule,
    pub(crate) membership: Arc<Membership>,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) driver: mpsc::Sender<DriverMessage>,
}

impl Backups {
    /// Makes a backup whenever one is due, for ever.
    pub(crate) async fn run(self) {
        let mut state = State::default();
        loop {
            let problem;
            let pause = match self.turn(&mut state).await {
                Ok(pause) => {
                    problem = incomplete(state.newest.as_ref(), &state.lacks);
                    pause
                }
                Err(error) => {
                    problem = error.message;
                    tracing::warn!(error = problem, "cannot back the cluster up");
                    self.retry()
                }
            };
            let (taken, size) = state.newest.as_ref().map_or((0, 0), |it| (it.taken, it.size));
            let backups = ScheduledBackups { every: self.schedule.every, taken, size, problem };
            if self.driver.send(DriverMessage::Backups(backups)).await.is_err() {
                return std::future::pending().await;
            }
            sleep(pause).await;
        }
    }

    /// Makes a backup if one is due. Returns after which time to look again.
    async fn turn(&self, state: &mut State) -> Result<Duration, ApiError> {
        let now = clock::now();
        let all = self.list(&state.incomplete).await?;
        state.newest = all.into_iter().find(|it| !it.is_future(now));
        let wait = due(state.newest.as_ref(), self.schedule.every, now);
        if let Some(wait) = wait.filter(|_| !state.is_repeated) {
            return Ok(wait);
        }
        let repeats = state.is_repeated;
        let (made, lacks) = self.make(&mut state.incomplete).await?;
        // Once: a node that has just started may not have its volumes, nor the others, yet.
        state.is_repeated = !made.is_complete && !repeats;
        (state.newest, state.lacks) = (Some(made), lacks);
        // Without a repetition also where it took longer than the period, or is taken away at once.
        Ok(if state.is_repeated { self.retry() } else { MIN_PAUSE })
    }

    /// Lists the backups of this cluster, the newest first. Those of these names lack data, too.
    async fn list(&self, incomplete: &BTreeSet<String>) -> Result<Vec<Kept>, ApiError> {
        let mut all = self.schedule.place.list(self.membership.cluster).await?;
        for kept in all.iter_mut().filter(|it| incomplete.contains(&it.name)) {
            kept.is_complete = false;
        }
        Ok(all)
    }

    fn retry(&self) -> Duration {
        Duration::from_millis(self.schedule.every / 10).clamp(Duration::from_secs(1), MAX_RETRY)
    }

    /// Makes a backup, and deletes those that are not to be kept. Returns it, and what it lacks. Adds its name to `unnamed` if it lacks
    /// data and that does not say so.
    async fn make(&self, unnamed: &mut BTreeSet<String>) -> Result<(Kept, String), ApiError> {
        let Schedule { place, passphrase, selection, keep, max_age, shown, .. } = &self.schedule;
        let file = passphrase.clone();
        let passphrase = spawn_blocking(move || Passphrase::from_file(&file)).await;
        let passphrase = passphrase.map_err(|_| stopping())??;
        let mut name = scheduled_name(clock::now());
        let target = place.begin(&name, &self.membership.node).await?;
        let (this, selection, runtime) = (self.clone(), selection.clone(), Handle::current());
        // On a thread of its own, as the future cannot move to others.
        let taking = spawn_blocking(move || {
            let connect = async || this.connect().await;
            let (selection, ignore) = (&selection, |_: Progress<'_>| {});
            runtime.block_on(async {
                match target {
                    PlaceTarget::File(file) => {
                        take(connect, selection, passphrase, file, ignore).await
                    }
                    PlaceTarget::S3(object) => {
                        take(connect, selection, passphrase, *object, ignore).await
                    }
                }
            })
        });
        let summary = taking.await.map_err(|_| stopping())??;
        let left_out = summary.volumes.iter().filter(|it| !it.problem.is_empty());
        for volume in left_out {
            tracing::warn!(volume = %volume.volume, why = volume.problem, "the backup lacks the data of a volume");
        }
        let failed: Vec<String> = summary.failed().map(|it| it.volume.to_string()).collect();
        let is_complete = failed.is_empty();
        if !is_complete {
            name = place.rename_incomplete(name).await;
            if !is_incomplete(&name) {
                unnamed.insert(name.clone());
            }
        }
        tracing::info!(path = summary.file, bytes = summary.size, "backed the cluster up");
        let all = self.list(unnamed).await?;
        let now = clock::now();
        let future = all.iter().filter(|it| it.is_future(now)).count();
        if future > 0 {
            tracing::warn!(
                dir = shown,
                "{future} backups are dated in the future: they neither count nor are deleted until then"
            );
        }
        for kept in surplus(&all, &name, *keep, *max_age, now) {
            if let Err(error) = place.delete(&kept.name).await {
                tracing::warn!(error = error.message, "cannot delete an old backup");
            }
        }
        let missing = match is_complete {
            true => String::new(),
            false => format!("it lacks the data of {}", list(failed, MAX_NAMED)),
        };
        let kept = Kept { name, taken: summary.header.taken, size: summary.size, is_complete };
        Ok((kept, missing))
    }

    /// Opens a session with this node.
    async fn connect(&self) -> Result<vc_client::Session, ApiError> {
        let Membership { cluster, key, credentials, .. } = &*self.membership;
        let certificate = credentials.certificate();
        let issuer = Issuer { cluster: *cluster, key, certificate: &certificate };
        let peers = self.membership.own_peers(&self.addresses);
        let id = getrandom::u64()
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        let (scope, now) = (Scope::User(UserRole::Admin), clock::now());
        let token = issuer
            .issue(scope, "backup", Vec::new(), id, now, TOKEN_TTL)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        let connected = vc_client::connect(*cluster, &token, Candidates::only(peers)).await;
        Ok(connected.map_err(ApiError::from)?.0)
    }
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the node is stopping")
}

/// Returns for how long the next backup is not due; `None` if it is. One from the future does not count: it would hold all others up.
fn due(newest: Option<&Kept>, every: Millis, now: Millis) -> Option<Duration> {
    let next = newest.filter(|it| !it.is_future(now))?.taken.saturating_add(every);
    next.checked_sub(now).filter(|it| *it > 0).map(Duration::from_millis)
}

/// Returns what is wrong while no backup is due: the newest lacks the data of volumes. `lacks` says of which, if that is known.
fn incomplete(newest: Option<&Kept>, lacks: &str) -> String {
    match newest {
        Some(newest) if !newest.is_complete && lacks.is_empty() => {
            "it lacks the data of volumes: 'vc backup verify' names them".to_owned()
        }
        Some(newest) if !newest.is_complete => lacks.to_owned(),
        _ => String::new(),
    }
}

/// Returns those that are not kept after `made` was made, of these, the newest first: all but the newest `keep`, and the oldest of
/// the others if it is older than `max_age`. By age it is one at a time, so that a clock that goes wrong costs one backup for each
/// that is made, and not all. The newest, `made` and those from the future stay. One that lacks data replaces no complete one: those
/// are counted apart, and go once a later one is complete.
fn surplus(
    all: &[Kept],
    made: &str,
    keep: usize,
    max_age: Option<Millis>,
    now: Millis,
) -> Vec<Kept> {
    let (past, partial): (Vec<&Kept>, Vec<&Kept>) =
        all.iter().filter(|it| !it.is_future(now)).partition(|it| it.is_complete);
    let complete = past.first().map_or(0, |it| it.taken);
    let is_partial_surplus =
        |(index, it): &(usize, &Kept)| *index >= keep.max(1) || it.taken < complete;
    let partial = partial.into_iter().enumerate().filter(is_partial_surplus);
    let partial = partial.map(|(_, it)| it).filter(|it| it.name != made);
    let (kept, rest) = past.split_at(past.len().min(keep.max(1)));
    let is_old = |it: &&Kept| max_age.is_some_and(|age| now.saturating_sub(it.taken) > age);
    let oldest = kept.iter().skip(1).rfind(|it| it.name != made).copied().filter(is_old);
    let rest = rest.iter().copied().filter(|it| it.name != made);
    oldest.into_iter().chain(rest).chain(partial).cloned().collect()
}

#[cfg(test)]
mod tests {
    use vc_backup::incomplete_name;

    use super::*;

    const HOUR: Millis = 3_600_000;

    fn kept(taken: Millis) -> Kept {
        Kept { name: scheduled_name(taken), taken, size: 1, is_complete: true }
    }

    fn partial(taken: Millis) -> Kept {
        let kept = kept(taken);
        Kept { name: incomplete_name(&kept.name), is_complete: false, ..kept }
    }

    #[test]
    fn backups_that_lack_data_replace_no_complete_ones() {
        let now = 100 * HOUR;
        let all = [
            partial(now),
            partial(now - HOUR),
            partial(now - 2 * HOUR),
            kept(now - 3 * HOUR),
            partial(now - 4 * HOUR),
        ];
        let deleted = surplus(&all, &all[0].name, 2, None, now);
        assert_eq!(hours(&deleted), [98, 96], "beyond the number, or before a complete one");
        let all = [kept(now), partial(now - HOUR), kept(now - 2 * HOUR)];
        assert_eq!(hours(&surplus(&all, &all[0].name, 2, None, now)), [99]);
    }

    #[test]
    fn a_newest_backup_that_lacks_data_is_a_problem_until_there_is_a_complete_one() {
        assert_eq!(
            incomplete(Some(&partial(1)), "it lacks the data of shop/db"),
            "it lacks the data of shop/db"
        );
        assert!(incomplete(Some(&partial(1)), "").contains("lacks"), "after a restart");
        assert_eq!(incomplete(Some(&kept(1)), "it lacks the data of shop/db"), "");
        assert_eq!(incomplete(None, ""), "");
    }

    #[test]
    fn a_backup_is_due_a_period_after_the_newest_whatever_happened_meanwhile() {
        let now = 100 * HOUR;
        assert_eq!(due(None, HOUR, now), None, "there is none");
        assert_eq!(due(Some(&kept(now - HOUR)), HOUR, now), None);
        assert_eq!(due(Some(&kept(now - 9 * HOUR)), HOUR, now), None, "the node was away");
        let half = Duration::from_millis(HOUR / 2);
        assert_eq!(due(Some(&kept(now - HOUR / 2)), HOUR, now), Some(half));
        // The clocks of two nodes differ a little.
        let ahead = Duration::from_millis(HOUR + MAX_SKEW);
        assert_eq!(due(Some(&kept(now + MAX_SKEW)), HOUR, now), Some(ahead));
    }

    #[test]
    fn a_backup_from_the_future_holds_no_other_up_and_stays() {
        let now = 100 * HOUR;
        let future = kept(now + 24 * HOUR);
        assert_eq!(due(Some(&future), HOUR, now), None);
        assert_eq!(due(Some(&kept(u64::MAX)), HOUR, now), None);

        let made = kept(now);
        let (before, oldest) = (kept(now - HOUR), kept(now - 2 * HOUR));
        let all = [future, made.clone(), before, oldest.clone()];
        assert_eq!(surplus(&all, &made.name, 2, None, now), [oldest]);
    }

    #[test]
    fn a_backup_that_was_just_made_stays_although_others_are_newer() {
        let now = 100 * HOUR;
        let (ahead, made) = (kept(now + MAX_SKEW), kept(now));
        let all = [ahead, made.clone()];
        assert_eq!(surplus(&all, &made.name, 1, None, now), []);
        assert_eq!(surplus(&all, &made.name, 2, Some(HOUR), now + 2 * HOUR), []);
    }

    #[test]
    fn the_newest_are_kept_up_to_a_number() {
        let (all, made) = history();
        let deleted = |keep| hours(&surplus(&all, &made, keep, None, 91 * HOUR));
        assert_eq!(deleted(2), [70, 60]);
        assert_eq!(deleted(0), [80, 70, 60], "the newest stays");
        assert_eq!(deleted(4), [0; 0]);
        assert_eq!(surplus(&[], &made, 1, None, 0), []);
    }

    #[test]
    fn one_backup_at_a_time_is_deleted_for_its_age() {
        let (all, made) = history();
        let deleted = |keep, age, now| hours(&surplus(&all, &made, keep, Some(age), now * HOUR));
        assert_eq!(deleted(9, 25 * HOUR, 91), [60]);
        assert_eq!(deleted(9, 31 * HOUR, 91), [0; 0]);
        assert_eq!(deleted(9, HOUR, 1000), [60], "the clock is wrong");
        assert_eq!(deleted(2, 5 * HOUR, 91), [80, 70, 60], "by number, all are");
        assert_eq!(deleted(1, HOUR, 1000), [80, 70, 60], "the newest stays");
    }

    /// Returns a history, the newest first, and the name of that.
    fn history() -> (Vec<Kept>, String) {
        let all: Vec<Kept> = [90, 80, 70, 60].map(|hours| kept(hours * HOUR)).to_vec();
        let made = all[0].name.clone();
        (all, made)
    }

    fn hours(all: &[Kept]) -> Vec<Millis> {
        all.iter().map(|it| it.taken / HOUR).collect()
    }
}
