//! Looking at containers.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, HealthStatusEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::Millis;

use super::{Engine, container, reason};
use crate::runtime::one_line;

/// How long a list or a look may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How many containers are looked at together when all are listed.
const LOOKS: usize = 8;

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
        Ok(match self.find(id).await? {
            Found::Ours(observed) => observed,
            Found::Nothing | Found::Foreign | Found::Leaving => {
                Observed { id: id.clone(), phase: Phase::Gone, address: String::new() }
            }
        })
    }

    /// Looks what container has the instance's name.
    pub(super) async fn find(&self, id: &InstanceId) -> Result<Found, Error> {
        let name = container::name(&self.identity, id);
        let found = match self.inspect(&name).await {
            Ok(found) => found,
            Err(error) if reason::status(&error) == Some(404) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        let whose = labels.and_then(|labels| container::instance(&self.identity, labels));
        Ok(match whose {
            Some(Ok(whose)) if whose == *id => match phase(&found) {
                Phase::Gone => Found::Leaving,
                phase => Found::Ours(Observed { id: whose, phase, address: address(&found) }),
            },
            _ => Found::Foreign,
        })
    }

    /// Everything of ours.
    pub(super) async fn list(&self) -> Result<Vec<Observed>, Error> {
        let filters = HashMap::from([("label", container::ours(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client()?;
        let listed = timeout(ANSWER, client.list_containers(Some(options)));
        let listed = listed.await.map_err(|_| Error::RequestTimeoutError)??;
        let mut ids = Vec::with_capacity(listed.len());
        for summary in listed {
            let container = summary.id.unwrap_or_default();
            match container::instance(&self.identity, &summary.labels.unwrap_or_default()) {
                Some(Ok(id)) => ids.push(id),
                Some(Err(error)) => tracing::warn!(container, %error, "a container with broken labels is left alone"),
                None => {}
            }
        }
        // Only a closer look tells the exit code, the time of the start and the health.
        let looks = ids.into_iter().map(|id| async move { self.observe(&id).await });
        let all: Vec<Observed> = futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect().await?;
        Ok(all.into_iter().filter(|seen| seen.phase != Phase::Gone).collect())
    }

    async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Error> {
        let client = self.client()?;
        timeout(ANSWER, client.inspect_container(name, None)).await.map_err(|_| Error::RequestTimeoutError)?
    }
}

fn phase(found: &ContainerInspectResponse) -> Phase {
    let Some(state) = &found.state else { return Phase::Gone };
    match state.status {
        Some(Status::CREATED) => {
            let said = state.error.as_deref().filter(|said| !said.is_empty());
            let reason = said.map_or_else(|| "it was created, but never started".to_owned(), one_line);
            Phase::Failed { reason }
        }
        Some(Status::EXITED | Status::DEAD) => Phase::Exited { code: state.exit_code.unwrap_or(-1) },
        Some(Status::REMOVING) | None => Phase::Gone,
        // Paused and restarting ones hold their resources as running ones do.
        Some(_) => {
            let health = match state.health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => Some(true),
                Some(HealthStatusEnum::UNHEALTHY) => Some(false),
                _ => None,
            };
            let started = state.started_at.as_deref().and_then(instant).unwrap_or(0);
            Phase::Running { health, started }
        }
    }
}

/// The first address of the container in any network; empty when it does not run, or has the host's network.
fn address(found: &ContainerInspectResponse) -> String {
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut all: Vec<&String> =
        networks.into_iter().flat_map(HashMap::values).filter_map(|network| network.ip_address.as_ref()).collect();
    all.sort();
    all.into_iter().find(|ip| !ip.is_empty()).cloned().unwrap_or_default()
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
    let millis: i64 = fraction.chars().chain("000".chars()).take(3).collect::<String>().parse().ok()?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Millis::try_from((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
