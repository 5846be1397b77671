//! Looking at containers.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as State, EndpointSettings, HealthStatusEnum,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::Millis;

use super::{Engine, container};
use crate::reason;
use crate::text::{LAST_LINES, on_one_line, one_line};
use crate::{LogLine, LogQuery, LogStream};

/// How long a list may take.
const LIST: Duration = Duration::from_secs(10);
/// How long a look may take: Docker lets it wait while it starts or stops that container.
const LOOK: Duration = Duration::from_secs(60);
/// How long a list waits for the look at one container.
const LIST_LOOK: Duration = Duration::from_secs(3);
/// How long the last lines of a container may take: it shall be known to have ended without them, too.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Docker may note the start of a container so many milliseconds after its first lines.
const BEFORE_START: Millis = 200;
/// Lines and pieces of lines that are read of them.
const LAST_PIECES: usize = 8;
/// How many containers are looked at together when all are listed.
const LOOKS: usize = 8;

/// Of a container that a start left behind half way.
const NEVER_STARTED: &str = "it was created, but never started";

/// What an instance's name stands for on the engine.
pub(super) enum Found {
    /// No container.
    Nothing,
    /// One that is not ours.
    Foreign,
    /// Ours, on its way out.
    Leaving,
    /// Ours.
    Ours(Observed),
}

impl Engine {
    /// Looks at one instance.
    pub(super) async fn observe(&self, id: &InstanceId) -> Result<Observed, Error> {
        let found = self.inspect(id).await?;
        let mut observed = match found.as_ref().map(|found| self.judge(id, found)) {
            Some(Found::Ours(observed)) => observed,
            _ => Observed { id: id.clone(), phase: Phase::Gone, address: String::new() },
        };
        match (&mut observed.phase, &found) {
            (Phase::Exited { output, .. }, Some(found)) => *output = self.last_words(found).await,
            (Phase::Running { health: Some(false), said, .. }, Some(found)) => {
                let lines = [last_check(found), self.last_words(found).await];
                *said = on_one_line(lines.iter().map(String::as_str).filter(|it| !it.is_empty()));
            }
            _ => {}
        }
        Ok(observed)
    }

    /// Looks what container has the instance's name.
    pub(super) async fn find(&self, id: &InstanceId) -> Result<Found, Error> {
        let found = self.inspect(id).await?;
        Ok(found.map_or(Found::Nothing, |found| self.judge(id, &found)))
    }

    fn judge(&self, id: &InstanceId, found: &ContainerInspectResponse) -> Found {
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        let whose = labels.and_then(|labels| container::instance(&self.identity, labels));
        match whose {
            Some(Ok(whose)) if whose == *id => match phase(found) {
                Phase::Gone => Found::Leaving,
                phase => {
                    let networks = found
                        .network_settings
                        .as_ref()
                        .and_then(|settings| settings.networks.as_ref());
                    let primary = found
                        .host_config
                        .as_ref()
                        .and_then(|config| config.network_mode.as_deref());
                    Found::Ours(Observed { id: whose, phase, address: address(networks, primary) })
                }
            },
            _ => Found::Foreign,
        }
    }

    /// The last lines that a container wrote in the life that has ended, on one line.
    async fn last_words(&self, found: &ContainerInspectResponse) -> String {
        let started = found.state.as_ref().and_then(|state| state.started_at.as_deref());
        let query = LogQuery {
            digest: None,
            follow: false,
            tail: Some(LAST_LINES),
            since: started.and_then(instant).map(|it| it.saturating_sub(BEFORE_START)),
        };
        let read = async {
            let lines = self.read_logs(found.id.as_deref()?, query).ok()?;
            // Pieces of long lines are lines of their own.
            let mut last: Vec<LogLine> = lines.take(LAST_PIECES).collect().await;
            // Docker takes down the two outputs each in its own time; what was said on the second tells most.
            last.sort_by_key(|line| (line.stream == LogStream::Stderr, line.time));
            Some(on_one_line(last.iter().map(|line| line.line.as_str())))
        };
        timeout(LAST_WORDS, read).await.ok().flatten().unwrap_or_default()
    }

    /// Everything of ours.
    pub(super) async fn list(&self) -> Result<Vec<Observed>, Error> {
        let filters = HashMap::from([("label", container::ours(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client()?;
        let listed = timeout(LIST, client.list_containers(Some(options)));
        let listed = listed.await.map_err(|_| Error::RequestTimeoutError)??;
        let looks = listed.into_iter().filter_map(|mut summary| {
            match container::instance(&self.identity, &summary.labels.take().unwrap_or_default())? {
                Ok(id) => Some(self.look_listed(id, summary)),
                Err(error) => {
                    let container = summary.id.unwrap_or_default();
                    tracing::warn!(container, %error, "a container with broken labels is left alone");
                    None
                }
            }
        });
        let all: Vec<Observed> =
            futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect().await?;
        Ok(all.into_iter().filter(|seen| seen.phase != Phase::Gone).collect())
    }

    /// Only a look tells the exit code, the time of the start and the health for sure; but one container that Docker is
    /// busy with must not hold up the list.
    async fn look_listed(
        &self,
        id: InstanceId,
        summary: ContainerSummary,
    ) -> Result<Observed, Error> {
        match timeout(LIST_LOOK, self.observe(&id)).await {
            Ok(observed) => observed,
            Err(_) => Ok(summarized(id, &summary)),
        }
    }

    /// What there is under the instance's name.
    async fn inspect(&self, id: &InstanceId) -> Result<Option<ContainerInspectResponse>, Error> {
        let client = self.client()?;
        let name = container::name(&self.identity, id);
        let found = timeout(LOOK, client.inspect_container(&name, None)).await;
        match found.map_err(|_| Error::RequestTimeoutError)? {
            Err(error) if reason::status(&error) == Some(404) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// What the list says of a container.
fn summarized(id: InstanceId, summary: &ContainerSummary) -> Observed {
    let text = summary.status.as_deref().unwrap_or_default();
    let phase = match summary.state {
        Some(State::CREATED) => Phase::Failed { reason: NEVER_STARTED.to_owned() },
        Some(State::EXITED | State::DEAD) => {
            // "Exited (137) 2 minutes ago"
            let code = text.split(['(', ')']).nth(1).and_then(|code| code.parse().ok());
            Phase::Exited { code: code.unwrap_or(-1), output: String::new() }
        }
        Some(State::REMOVING) | None => Phase::Gone,
        Some(_) => {
            let health = if text.contains("(healthy)") {
                Some(true)
            } else {
                text.contains("(unhealthy)").then_some(false)
            };
            let created =
                summary.created.and_then(|seconds| Millis::try_from(seconds).ok()).unwrap_or(0);
            Phase::Running { health, started: created.saturating_mul(1000), said: String::new() }
        }
    };
    let networks =
        summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let primary = summary.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    Observed { id, phase, address: address(networks, primary) }
}

/// What the last healthcheck wrote.
fn last_check(found: &ContainerInspectResponse) -> String {
    let health = found.state.as_ref().and_then(|state| state.health.as_ref());
    let last = health.and_then(|health| health.log.as_ref()?.last()?.output.clone());
    last.map(|text| one_line(&text)).unwrap_or_default()
}

fn phase(found: &ContainerInspectResponse) -> Phase {
    let Some(state) = &found.state else { return Phase::Gone };
    match state.status {
        Some(Status::CREATED) => {
            let said = state.error.as_deref().filter(|said| !said.is_empty());
            let reason = said.map_or_else(|| NEVER_STARTED.to_owned(), one_line);
            Phase::Failed { reason }
        }
        Some(Status::EXITED | Status::DEAD) => {
            Phase::Exited { code: state.exit_code.unwrap_or(-1), output: String::new() }
        }
        Some(Status::REMOVING) | None => Phase::Gone,
        // Paused and restarting ones hold their resources as running ones do.
        Some(_) => {
            let health = match state.health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => Some(true),
                Some(HealthStatusEnum::UNHEALTHY) => Some(false),
                _ => None,
            };
            let started = state.started_at.as_deref().and_then(instant).unwrap_or(0);
            Phase::Running { health, started, said: String::new() }
        }
    }
}

/// The address of a container in its primary network, else in any; empty when it does not run, or has the host's
/// network.
fn address(networks: Option<&HashMap<String, EndpointSettings>>, primary: Option<&str>) -> String {
    let addresses = networks.into_iter().flatten().filter_map(|(name, network)| {
        let ip = network.ip_address.as_ref().filter(|ip| !ip.is_empty())?;
        Some((Some(name.as_str()) != primary, ip))
    });
    addresses.min().map(|(_, ip)| ip.clone()).unwrap_or_default()
}

/// Reads a time as Docker writes it, `2026-11-02T15:04:05.678901234Z`.
pub(super) fn instant(text: &str) -> Option<Millis> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let parts = text.split(separator).map(str::parse).collect::<Result<Vec<i64>, _>>().ok()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let millis: i64 =
        fraction.chars().chain("000".chars()).take(3).collect::<String>().parse().ok()?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + day_of_year
        - 719_468;
    Millis::try_from((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_enough_of_a_container_that_cannot_be_looked_at() {
        let id = InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: "0".to_owned() };
        for (state, status, phase) in [
            (
                State::RUNNING,
                "Up 2 minutes",
                Phase::Running { health: None, started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 2 minutes (healthy)",
                Phase::Running { health: Some(true), started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 1 second (unhealthy)",
                Phase::Running { health: Some(false), started: 5000, said: String::new() },
            ),
            (
                State::RUNNING,
                "Up 1 second (health: starting)",
                Phase::Running { health: None, started: 5000, said: String::new() },
            ),
            (
                State::EXITED,
                "Exited (137) 2 minutes ago",
                Phase::Exited { code: 137, output: String::new() },
            ),
            (State::CREATED, "Created", Phase::Failed { reason: NEVER_STARTED.to_owned() }),
            (State::REMOVING, "Removal In Progress", Phase::Gone),
        ] {
            let summary = ContainerSummary {
                created: Some(5),
                state: Some(state),
                status: Some(status.to_owned()),
                ..ContainerSummary::default()
            };
            assert_eq!(summarized(id.clone(), &summary).phase, phase, "{status}");
        }
    }

    #[test]
    fn dockers_times_are_read() {
        assert_eq!(instant("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(instant("2000-02-29T12:34:56.789123456Z"), Some(951_827_696_789));
        assert_eq!(instant("2026-11-02T15:04:05.5Z"), Some(1_793_631_845_500));
        assert_eq!(instant("2024-03-01T00:00:00Z"), Some(1_709_251_200_000));
        for never in ["0001-01-01T00:00:00Z", "", "now", "2024-13-01T00:00:00Z", "2024-03-01"] {
            assert_eq!(instant(never), None, "{never}");
        }
    }
}
