//! `vc rebalance`: evens out what nodes run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use vc_protocol::Slot;
use vc_protocol::control::{MoveRow, Request};

use super::drain::told;
use super::wait::{Departure, MoveArgs, explain, until};
use crate::app::{App, Stop};
use crate::render::{self, note, print};
use vc_client::{Session, expect_reply};

/// Arguments of `vc rebalance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rebalance                               shows what would move, and asks
  vc rebalance --yes                         moves it, and returns when it has moved
  vc rebalance --yes --no-wait
  vc rebalance --output json                 what would move, for programs

Nothing moves by itself when a node comes back or joins. Slots with named volumes stay where they are.
Ctrl-C and --timeout end the wait: what was told to move moves all the same.")]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    moves: MoveArgs,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        app.in_session(async |session| {
            let reply = session.ask(&Request::Rebalance { apply: false }).await?;
            let rows = expect_reply!(reply, Moves)?;
            if self.yes {
                return self.apply(app, session, &rows).await;
            }
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
                return self.apply(app, session, &rows).await;
            }
            Ok(())
        })
        .await
    }

    /// Moves what was shown, and waits until it has moved.
    async fn apply(
        &self,
        app: &App,
        session: &mut Session,
        rows: &[MoveRow],
    ) -> anyhow::Result<()> {
        let lines = session.change(&Request::Rebalance { apply: true }).await?;
        app.out.lines(&lines)?;
        let slot = |row: &MoveRow| Slot { service: row.service.clone(), replica: row.replica };
        let slots: BTreeMap<_, _> =
            rows.iter().filter_map(|row| Some((slot(row), row.from?))).collect();
        if self.moves.no_wait || slots.is_empty() {
            return Ok(());
        }
        let services: BTreeSet<_> = slots.keys().map(|slot| slot.service.clone()).collect();
        let services = services.into_iter().collect();
        let mut departure = Departure::of_slots(slots);
        let waited = until(app, session, services, &mut departure, self.moves.timeout).await;
        let waited = waited.inspect_err(|error| {
            if let Some(Stop::Interrupted) = error.downcast_ref() {
                note("what was told to move goes on moving");
            }
        })?;
        let mut stays = departure.stays;
        if !stays.is_empty() {
            app.renew(session).await?;
            explain(session, &mut stays).await?;
        }
        if app.out.is_json() {
            return Ok(());
        }
        let stays: String = stays.iter().map(|row| told(row) + "\n").collect();
        print(&format!("{stays}{} after {:.1?}\n", waited.count, waited.took))
    }
}

/// Whether the person at the terminal says yes.
fn confirmed() -> anyhow::Result<bool> {
    write!(std::io::stderr(), "Move them? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
