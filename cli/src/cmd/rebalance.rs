//! `vc rebalance`: evens out what machines run.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use vc_protocol::control::Request;

use crate::app::App;
use crate::client::expect_reply;
use crate::render::{self, note};

/// Arguments of `vc rebalance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rebalance                               shows what would move, and asks
  vc rebalance --yes                         moves it
  vc rebalance --output json                 what would move, for programs

Nothing moves by itself when a machine comes back or joins. Slots with named volumes stay where they are.")]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.in_session(async |session| {
            if self.yes {
                let lines = session.change(&Request::Rebalance { apply: true }).await?;
                return app.out.lines(&lines);
            }
            let reply = session.ask(&Request::Rebalance { apply: false }).await?;
            let rows = expect_reply!(reply, Moves)?;
            let nodes = expect_reply!(session.ask(&Request::Nodes).await?, Nodes)?;
            app.out.show(rows.as_slice(), |rows, style| render::moves(rows, &nodes, style))?;
            if rows.is_empty() || app.out.is_json() {
                return Ok(());
            }
            if !std::io::stdin().is_terminal() {
                note("nothing has moved: say --yes");
                return Ok(());
            }
            if confirmed()? {
                let lines = session.change(&Request::Rebalance { apply: true }).await?;
                return app.out.lines(&lines);
            }
            Ok(())
        })
        .await
    }
}

/// Whether the person at the terminal says yes.
fn confirmed() -> anyhow::Result<bool> {
    write!(std::io::stderr(), "Move them? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
