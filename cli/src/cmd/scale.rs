//! `vc scale`: changes the number of replicas of services.

use std::str::FromStr;

use vc_protocol::control::Request;
use vc_protocol::spec::MAX_REPLICAS;

use super::wait::{self, WaitArgs};
use crate::app::App;
use crate::error::Result;

/// Arguments of `vc scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc scale web=3
  vc scale shop/web=5 shop/db=1 --wait
  vc scale web=0                             keeps the service, stops all instances")]
pub(crate) struct Args {
    /// Services (web, or shop/web), each with its number of replicas
    #[arg(required = true, value_name = "SERVICE=N")]
    scales: Vec<Scale>,
    /// Scale up also if the image of the service is on no node and in no registry
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A service and its number of replicas, `web=3`.
#[derive(Debug, Clone)]
struct Scale {
    service: String,
    replicas: u32,
}

/// The text is not `SERVICE=N`.
#[derive(Debug, thiserror::Error)]
#[error("write a service and a number up to {MAX_REPLICAS}, as in web=3")]
struct ScaleError;

impl FromStr for Scale {
    type Err = ScaleError;

    fn from_str(text: &str) -> std::result::Result<Self, ScaleError> {
        let (service, replicas) = text.rsplit_once('=').unwrap_or((text, ""));
        let replicas = replicas.parse().ok().filter(|n| *n <= MAX_REPLICAS);
        match replicas {
            Some(replicas) if !service.is_empty() => {
                Ok(Self { service: service.to_owned(), replicas })
            }
            _ => Err(ScaleError),
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let services = self.scales.iter().map(|scale| scale.service.clone()).collect();
        let force = self.force;
        let request = |Scale { service, replicas }| Request::Scale { service, replicas, force };
        let requests = self.scales.into_iter().map(request).collect();
        wait::change(app, requests, services, self.wait).await
    }
}
