//! Watching the Docker engine: the connection, lists and events.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::DockerClient;
use super::labels;
use crate::clock::now;
use crate::docker_error::{self, UnsupportedEngine};
use crate::engine_info::{EngineInfo, EngineInfoCache};

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the engine is pinged while its events are followed: one that hangs ends no stream.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How often all containers are listed, since an event stream can stop without an end.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest time between attempts to reach the engine.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How many seconds before the list events are requested from, since the engine's clock may differ from the node's.
const EVENT_OVERLAP: u64 = 5;
/// The events that may change an observation. The `exec_*` events of healthchecks are far more frequent.
/// podman has names of its own for two of them.
const EVENTS: [&str; 8] =
    ["start", "die", "died", "destroy", "remove", "health_status", "pause", "unpause"];
/// Those of them after which an address may be another container's.
const CHANGES: [&str; 5] = ["start", "die", "died", "destroy", "remove"];

/// Why a connection to the engine ended.
#[derive(Debug, thiserror::Error)]
enum Disconnected {
    #[error("{}", docker_error::message(.0))]
    Engine(#[from] Error),
    #[error(transparent)]
    Unsupported(#[from] UnsupportedEngine),
}

/// Checks that a node can use the engine at `host`, if it answers.
///
/// # Errors
/// It cannot; why, and what to do.
pub async fn check_engine(host: &str) -> Result<(), UnsupportedEngine> {
    let Ok(client) = bollard::Docker::connect_with_host(host) else { return Ok(()) };
    match timeout(PING_TIMEOUT, EngineInfoCache::default().get(&client, host)).await {
        Ok(Ok(info)) => check(host, &info),
        _ => Ok(()),
    }
}

fn check(host: &str, info: &EngineInfo) -> Result<(), UnsupportedEngine> {
    if info.rootless { Err(UnsupportedEngine::Rootless(host.to_owned())) } else { Ok(()) }
}

impl DockerClient {
    /// Lists containers and follows events, forever; an outage is reported once.
    pub(super) async fn watch(self) {
        // What was reported: whether the engine hung.
        let (mut pause, mut reported) = (RETRY_INTERVAL.0, None);
        let mut first = true;
        loop {
            let (connected, error) = self.session(&mut first).await;
            if connected {
                // Usually only the stream ended. An outage shows when the engine cannot be reached again.
                tracing::debug!(host = %self.host, %error, "the event stream of Docker ended; reconnecting");
                (pause, reported) = (RETRY_INTERVAL.0, None);
            } else {
                let hung = matches!(error, Disconnected::Engine(Error::RequestTimeoutError));
                if reported != Some(hung) {
                    self.reporter.unavailable(self.reason(error, hung), hung).await;
                    reported = Some(hung);
                }
            }
            sleep(pause).await;
            if !connected {
                pause = RETRY_INTERVAL.1.min(pause * 2);
            }
        }
    }

    fn reason(&self, error: Disconnected, hung: bool) -> String {
        match error {
            Disconnected::Unsupported(error) => error.to_string(),
            Disconnected::Engine(_) if hung => format!(
                "Docker at {} hangs: what it runs is left as it is and started nowhere else; restart Docker",
                self.host
            ),
            error => format!("Docker at {} does not answer: {error}", self.host),
        }
    }

    /// Runs one connection to the engine; returns whether it got as far as a list, and why it ended. `first`: there was no
    /// list since the start of the node.
    async fn session(&self, first: &mut bool) -> (bool, Disconnected) {
        let mut connected = false;
        let error = self.follow(&mut connected, first).await.err();
        let ended = || Error::DockerStreamError { error: "the event stream ended".into() };
        (connected, error.unwrap_or_else(|| ended().into()))
    }

    async fn follow(&self, connected: &mut bool, first: &mut bool) -> Result<(), Disconnected> {
        let client = self.client()?;
        self.ping(&client).await?;
        check(&self.host, &self.info.get(&client, &self.host).await?)?;
        let since = (now() / 1000).saturating_sub(EVENT_OVERLAP);
        // Of those that were removed while the node was down. Later, a container that is about to be created has files too.
        let with_files = if *first { self.files.containers() } else { Vec::new() };
        if *first {
            self.resume_all().await?;
            if self.is_local() {
                let subpaths = self.subpaths.clone();
                let _ = tokio::task::spawn_blocking(move || subpaths.sweep()).await;
            }
        }
        self.list_all(with_files).await?;
        *first = false;
        if !*connected {
            tracing::info!(host = %self.host, "connected to Docker");
            *connected = true;
            self.connections.send_modify(|count| *count += 1);
        }
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", EVENTS.map(str::to_owned).into()),
            ("label", labels::filters(&self.identity)),
        ]);
        let options =
            EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
        let mut events = Box::pin(client.events(Some(options)));
        let mut timer = interval(LIST_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.tick().await; // the first tick is immediate
        pings.tick().await;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.event(event?).await,
                    None => return Ok(()),
                },
                _ = timer.tick() => self.list_all(Vec::new()).await?,
                _ = pings.tick() => self.ping(&client).await?,
            }
        }
    }

    async fn ping(&self, client: &bollard::Docker) -> Result<(), Error> {
        let answer = timeout(PING_TIMEOUT, client.ping()).await;
        answer.map_err(|_| Error::RequestTimeoutError)?.map(drop)
    }

    /// Lists all containers, and removes the files of those in `with_files` that no longer exist.
    async fn list_all(&self, mut with_files: Vec<String>) -> Result<(), Error> {
        let since = self.reporter.clock();
        let all = self.list().await?;
        self.running.changed();
        with_files.retain(|name| {
            all.iter().all(|seen| labels::container_name(&self.identity, &seen.id) != *name)
        });
        with_files.iter().for_each(|gone| self.files.remove(gone));
        self.reporter.listed(since, all).await;
        if let Err(error) = self.report_orphans().await {
            tracing::debug!(error = docker_error::message(&error), "cannot look for orphans");
        }
        if let Err(error) = self.remove_unused_networks().await {
            tracing::debug!(error = docker_error::message(&error), "cannot remove unused networks");
        }
        Ok(())
    }

    /// Handles an event. It may be old or repeated, so it only triggers an inspection.
    async fn event(&self, event: EventMessage) {
        if event.action.as_deref().is_some_and(|action| CHANGES.contains(&action)) {
            self.running.changed();
        }
        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        match labels::instance(&self.identity, &attributes) {
            Some(Ok(id)) => self.reporter.inspect(id).await,
            Some(Err(error)) => {
                tracing::debug!(%error, "ignoring an event of a container with malformed labels")
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const DOCKER: &str = r#"{"Components": [{"Name": "Engine", "Version": "20.10.24"}]}"#;
    const PODMAN: &str = r#"{"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}"#;

    /// Answers requests as an engine with these versions and `docker info`; podman's own says that it is rootless. Returns
    /// its address.
    async fn engine(version: &'static str, info: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let body = match &request[..length] {
                    it if it.starts_with(b"GET /info") => info,
                    it if it.starts_with(b"GET /version") => version,
                    _ => r#"{"host": {"security": {"rootless": true}}}"#,
                };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        host
    }

    #[tokio::test]
    async fn a_rootless_engine_is_refused_and_one_that_does_not_answer_is_waited_for() {
        let seccomp = r#"{"SecurityOptions": ["name=seccomp,profile=default"]}"#;
        let rootless = r#"{"SecurityOptions": ["name=seccomp", "name=rootless"]}"#;
        assert_eq!(check_engine(&engine(DOCKER, seccomp).await).await, Ok(()));
        for host in [engine(DOCKER, rootless).await, engine(PODMAN, seccomp).await] {
            let refused = check_engine(&host).await.unwrap_err();
            assert!(refused.to_string().contains("--docker-host"), "{refused}");
        }
        assert_eq!(check_engine("unix:///nowhere/docker.sock").await, Ok(()));
    }
}
