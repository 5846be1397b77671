//! `vc trust`: the key that signs certificates.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use vc_client::{Session, expect_reply};
use vc_protocol::control::{NodeRow, NodeStatus, Request, TrustReport, TrustRow};

use crate::app::App;
use crate::error::Result;
use crate::render::{self, note};
use crate::terminal::confirmed;

/// Nodes that are up have their certificates within this time.
const DELIVERY: Duration = Duration::from_secs(10);
/// Pause between looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Arguments of `vc trust`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the signing key, and which nodes have its certificates
    #[command(after_help = "\
Examples:
  vc trust show
  vc trust show --output json | jq '.nodes[] | select(.certificate != \"present\").name'")]
    Show,
    /// Replace the signing key, as after the removal of a server
    Rotate(Rotate),
}

/// Arguments of `vc trust rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc node revoke attic && vc trust rotate    when attic, a server, was stolen

A server knows the key that signs the certificates of nodes: once it is removed it could still admit nodes that no user knows of. A
rotation makes a new key, gives every node that is listed a certificate of it, and ends what the old key can do. Nothing is
restarted. Tokens that present servers issued stay valid, those of removed ones do not.

Revoke nodes that you do not know first ('vc node revoke'). A node that joins while the question is open has to join again. What a
rotation cannot undo: what the server has read, and a node or client that meets the server before it learns of the rotation.")]
struct Rotate {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            None | Some(Command::Show) => {
                let report = expect_reply!(app.ask(Request::Trust).await?, Trust)?;
                app.out.show(&report, render::trust)
            }
            Some(Command::Rotate(args)) => args.run(app).await,
        }
    }
}

impl Rotate {
    async fn run(self, app: &App) -> Result {
        app.in_session(async |session| {
            let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
            let nodes: Vec<NodeRow> =
                nodes.into_iter().filter(|row| row.state != NodeStatus::Left).collect();
            if !self.yes {
                let names: Vec<&str> = nodes.iter().map(|row| row.name.as_str()).collect();
                note(&format!("these nodes get a new certificate: {}", names.join(", ")));
                if !std::io::stdin().is_terminal() {
                    note("nothing was changed: confirm with --yes");
                    return Ok(());
                }
                if !confirmed("Rotate the signing key?")? {
                    return Ok(());
                }
            }
            let members = nodes.iter().map(|row| row.id).collect();
            let changes = session.change(&Request::RotateTrust { members }).await?;
            app.out.changes(&changes)?;
            for row in &undelivered(session).await?.nodes {
                match row.certificate.as_str() {
                    "present" => {}
                    "missing" => note(&format!("{} has no certificate: it has to join again", row.name)),
                    _ => note(&format!(
                        "{} does not use its new certificate yet: it takes it when it is connected, and trusts the old key until then",
                        row.name
                    )),
                }
            }
            Ok(())
        })
        .await
    }
}

/// Returns the report once all nodes that are up use their certificates, or after [`DELIVERY`].
async fn undelivered(session: &mut Session) -> Result<TrustReport> {
    let end = Instant::now() + DELIVERY;
    let waits = |row: &TrustRow| row.up && row.certificate != "present";
    loop {
        let report = expect_reply!(session.ask(&Request::Trust).await?, Trust)?;
        if !report.nodes.iter().any(waits) || Instant::now() > end {
            return Ok(report);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
