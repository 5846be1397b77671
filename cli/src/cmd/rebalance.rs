//! `vc rebalance`: spreads instances evenly over the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;

use vc_protocol::control::{MoveRow, Request};
use vc_protocol::{NodeId, Slot};

use super::drain::describe_stay;
use super::wait::{Departure, MoveArgs, explain, until};
use crate::app::App;
use crate::error::{Error, Result, Stop};
use crate::render::{self, note, print};
use crate::terminal::confirmed;
use vc_client::{Session, expect_reply};

/// Arguments of `vc rebalance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc rebalance                               shows the moves and asks
  vc rebalance --yes                         moves, and returns when it is done
  vc rebalance --yes --no-wait               returns at once
  vc rebalance --output json                 prints the moves, and changes nothing

Instances do not move by themselves when a node joins or returns. Instances with named volumes stay where they are.
Ctrl-C and --timeout end the wait, not the moves.")]
pub(crate) struct Args {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    moves: MoveArgs,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
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
                note("nothing was moved: confirm with --yes");
                return Ok(());
            }
            if confirmed("Move them?")? {
                return self.apply(app, session, &rows).await;
            }
            Ok(())
        })
        .await
    }

    /// Orders the moves, and waits until they are done.
    async fn apply(&self, app: &App, session: &mut Session, rows: &[MoveRow]) -> Result {
        let changes = session.change(&Request::Rebalance { apply: true }).await?;
        if changes.is_empty() && !app.out.is_json() {
            print("nothing to move\n")?;
        } else {
            app.out.changes(&changes)?;
        }
        let slot = |row: &MoveRow| Slot { service: row.service.clone(), replica: row.replica };
        let slots = rows.iter().filter_map(|row| Some((slot(row), row.from?))).collect();
        await_moves(app, session, slots, &self.moves).await
    }
}

/// Waits, with progress, until these slots have left the given nodes and run elsewhere, unless told not to. Says for how long each was
/// down.
pub(super) async fn await_moves(
    app: &App,
    session: &mut Session,
    slots: BTreeMap<Slot, NodeId>,
    moves: &MoveArgs,
) -> Result {
    if moves.no_wait || slots.is_empty() {
        return Ok(());
    }
    let services: BTreeSet<_> = slots.keys().map(|slot| slot.service.clone()).collect();
    let services = services.into_iter().collect();
    let mut departure = Departure::of_slots(slots);
    let waited = until(app, session, services, &mut departure, moves.timeout).await;
    let waited = waited.inspect_err(|error| {
        if let Error::Stop(Stop::Interrupted) = error {
            note("the moves continue");
        }
    })?;
    let downtimes: Vec<String> = departure
        .downtimes()
        .map(|(slot, downtime)| format!("{slot} was down for {downtime:.1?}\n"))
        .collect();
    let mut stays = departure.stays;
    if !stays.is_empty() {
        app.renew(session).await?;
        explain(session, &mut stays).await?;
    }
    if app.out.is_json() {
        return Ok(());
    }
    let stays: String = stays.iter().map(|row| describe_stay(row) + "\n").collect();
    let downtimes = downtimes.concat();
    print(&format!("{downtimes}{stays}{} after {:.1?}\n", waited.count, waited.took))
}
