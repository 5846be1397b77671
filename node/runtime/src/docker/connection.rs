//! Staying in touch with the engine.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Engine, container};
use crate::clock::now;
use crate::reason;

/// How long a ping may take.
const PING: Duration = Duration::from_secs(5);
/// How often everything is listed, whatever the events say: a stream of events can fall silent without an end.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest pause between attempts to reach the engine.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Events are asked for from so many seconds before the list on: the engine's clock may differ from ours.
const OVERLAP: u64 = 5;
/// What may change an observation. (The health checks' own `exec_*` are far more frequent.)
const EVENTS: [&str; 6] = ["start", "die", "destroy", "health_status", "pause", "unpause"];

impl Engine {
    /// Lists and follows the engine, for ever; an outage is told once.
    pub(super) async fn watch(self) {
        let (mut pause, mut told) = (PAUSES.0, false);
        loop {
            let (connected, error) = self.session().await;
            if connected {
                // Most likely only the stream has ended: what is wrong shows when it cannot be had again.
                tracing::debug!(host = %self.host, error = reason::of(&error), "the events of Docker have ended");
                (pause, told) = (PAUSES.0, false);
            } else if !told {
                let why =
                    format!("Docker does not answer at {}: {}", self.host, reason::of(&error));
                self.reports.unavailable(why).await;
                told = true;
            }
            sleep(pause).await;
            if !connected {
                pause = PAUSES.1.min(pause * 2);
            }
        }
    }

    /// One connection to the engine, and why it ended; whether it came to a list.
    async fn session(&self) -> (bool, Error) {
        let mut connected = false;
        let error = self.follow(&mut connected).await.err();
        let ended = || Error::DockerStreamError { error: "the stream has ended".into() };
        (connected, error.unwrap_or_else(ended))
    }

    async fn follow(&self, connected: &mut bool) -> Result<(), Error> {
        let client = self.client()?;
        timeout(PING, client.ping()).await.map_err(|_| Error::RequestTimeoutError)??;
        let since = (now() / 1000).saturating_sub(OVERLAP);
        let had_files = self.files.containers();
        self.list_all(had_files).await?;
        if !*connected {
            tracing::info!(host = %self.host, "connected to Docker");
            *connected = true;
            self.connections.send_modify(|count| *count += 1);
        }
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", EVENTS.map(str::to_owned).into()),
            ("label", container::ours(&self.identity)),
        ]);
        let options =
            EventsOptionsBuilder::default().since(&since.to_string()).filters(&filters).build();
        let mut events = Box::pin(client.events(Some(options)));
        let mut timer = interval(LIST_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.tick().await; // The first is now.
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.event(event?).await,
                    None => return Ok(()),
                },
                _ = timer.tick() => self.list_all(Vec::new()).await?,
            }
        }
    }

    /// Lists everything, and removes the secrets of those containers of `had_files` that are gone.
    async fn list_all(&self, mut had_files: Vec<String>) -> Result<(), Error> {
        let since = self.reports.clock();
        let all = self.list().await?;
        had_files.retain(|name| {
            all.iter().all(|seen| container::name(&self.identity, &seen.id) != *name)
        });
        had_files.iter().for_each(|gone| self.files.remove(gone));
        self.reports.listed(since, all).await;
        if let Err(error) = self.remove_unused_networks().await {
            tracing::debug!(error = reason::of(&error), "unused networks are not removed");
        }
        Ok(())
    }

    /// An event is only a reason to look: it may be old, or doubled.
    async fn event(&self, event: EventMessage) {
        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        match container::instance(&self.identity, &attributes) {
            Some(Ok(id)) => self.reports.look(id).await,
            Some(Err(error)) => {
                tracing::debug!(%error, "an event of a container with broken labels")
            }
            None => {}
        }
    }
}
