//! Pushes the rows of some services to a client as they change.

use std::collections::BTreeSet;

use tokio::time::Instant;
use vc_compose::MAX_SERVICES;
use vc_protocol::control::Reply;
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use super::ControlService;
use super::live::next_update;
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};

impl ControlService {
    /// Sends the rows of these services and their instances, of all of the user's when none is named, and again whenever they change,
    /// until the client closes the stream.
    pub(super) async fn watch(
        &self,
        user: &User,
        services: Vec<ServiceKey>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        if services.len() > MAX_SERVICES {
            let message = format!(
                "{} services are more than one watch may name ({MAX_SERVICES})",
                services.len()
            );
            let error = ApiError::new(ErrorCode::InvalidArgument, message)
                .with_hint("name fewer, or none to watch all");
            return frames.send(&Reply::Error(error)).await;
        }
        let services: BTreeSet<ServiceKey> = services.into_iter().collect();
        let watched = |key: &ServiceKey| services.is_empty() || services.contains(key);
        let mut snapshot = self.cluster.snapshots().clone();
        let mut sent = None;
        let mut changed = true;
        loop {
            let at = Instant::now();
            if changed {
                let latest = self.latest_reports(user, &mut snapshot);
                let services = latest.services.iter().flatten();
                let instances = latest.instances.iter().flatten();
                let rows = Reply::Watched {
                    services: services.filter(|row| watched(&row.service)).cloned().collect(),
                    instances: instances.filter(|row| watched(&row.service)).cloned().collect(),
                };
                if sent.as_ref() != Some(&rows) {
                    frames.send(&rows).await?;
                    sent = Some(rows);
                }
            }
            tokio::select! {
                next = next_update(&mut snapshot, at) => match next {
                    Some(is_new) => changed = is_new,
                    None => return frames.send(&Reply::End).await,
                },
                // A client that watches sends nothing: any frame, or the end of the stream, ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }
}
