//! `vc upgrade`: replaces the program of the nodes, one after the other.

mod error;
mod file;
mod health;
mod link;
mod plan;
mod rolling;

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use vc_client::expect_reply;
use vc_client::text::one_line;
use vc_protocol::control::{NodeRow, NodeStatus, Request};

use self::error::{NoProgram, UpgradeError};
use self::file::ProgramFile;
use self::link::Link;
use self::plan::{Candidate, Decision, Goal, Planned, plan};
use self::rolling::Upgrade;
use super::drain::names;
use crate::app::App;
use crate::args::duration;
use crate::error::{Result, SystemError};
use crate::render::note;
use crate::terminal::{Confirmation, confirmed};

/// Arguments of `vc upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc upgrade vc-node_0.2.0_amd64.deb         all nodes, one after the other; shows the plan and asks
  vc upgrade ./vc-node --dry-run             show the plan
  vc upgrade ./vc-node --node attic          only this node
  vc upgrade ./vc-node -y --pause 10m --output json
  vc upgrade --back --node attic             return to the program that it ran before

The first node is looked at for longer, before the others follow. Instances keep running, and connections are handed over. A node
on which the program does not become ready goes back by itself. When that happens, or something is wrong that was not wrong before,
the upgrade stops; run it again to go on. Ctrl-C stops after the node that is being upgraded. Needs a token of an admin.")]
pub(crate) struct Args {
    /// A vc-node binary, or the Debian package that has it
    #[arg(required_unless_present = "back", conflicts_with = "back")]
    file: Option<PathBuf>,
    /// Only this node, by its name or id; may be repeated: they are upgraded in this order
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Return these nodes to the programs that they ran before
    #[arg(long, requires = "nodes")]
    back: bool,
    /// How long the first node has to run without trouble before the others follow
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pause: Duration,
    /// Stop if a node, or the cluster, is not well this long after its restart
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let file = match self.file.clone() {
            Some(path) => {
                let opened = spawn_blocking(move || ProgramFile::open(&path)).await;
                Some(
                    opened
                        .map_err(|error| SystemError::doing("read the program")(error.into()))??,
                )
            }
            None => None,
        };
        let mut link = Link::new(app);
        let goal = match &file {
            Some(file) => Goal::Program {
                id: file.id.clone(),
                version: file.version.clone(),
                arch: file.arch.to_owned(),
            },
            None => Goal::Previous,
        };
        let planned = self.plan(&mut link, &goal).await?;
        let mut upgrade = Upgrade { app, link, goal, file: file.map(|it| it.file), planned };
        upgrade.show_plan()?;
        self.check_named(&upgrade.planned)?;
        let count = upgrade.steps().len();
        if self.dry_run || count == 0 {
            return Ok(());
        }
        if self.confirmation.is_needed() {
            let what = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            if !confirmed(&format!("Upgrade {what}, one after the other?"))? {
                note("nothing was changed");
                return Ok(());
            }
        }
        let result = upgrade.run(self.pause, self.timeout).await;
        upgrade.link.close().await;
        result
    }

    /// Asks the nodes what they run, and decides about each.
    async fn plan(&self, link: &mut Link<'_>, goal: &Goal) -> Result<Vec<Planned>> {
        let nodes = expect_reply!(link.ask(&Request::Nodes).await?, Nodes)?;
        let attached = expect_reply!(link.ask(&Request::Status).await?, Status)?.node;
        if !link.can_upgrade(attached).await? {
            let name = nodes.iter().find(|row| row.id == attached).map(|row| one_line(&row.name));
            return Err(UpgradeError::AttachedIsOld(name.unwrap_or_default()).into());
        }
        let mut candidates = Vec::new();
        for row in self.choose(nodes)? {
            let program = match row.state {
                NodeStatus::Up => link.program(row.id).await,
                _ => Err(NoProgram::NotUp),
            };
            candidates.push(Candidate { row, program });
        }
        Ok(plan(candidates, goal, attached, !self.nodes.is_empty()))
    }

    /// Returns the nodes that were named; all members if none were.
    fn choose(&self, mut nodes: Vec<NodeRow>) -> std::result::Result<Vec<NodeRow>, UpgradeError> {
        nodes.retain(|row| row.state != NodeStatus::Left);
        if self.nodes.is_empty() {
            return Ok(nodes);
        }
        let mut chosen: Vec<NodeRow> = Vec::new();
        for name in &self.nodes {
            let mut found: Vec<&NodeRow> = nodes.iter().filter(|row| names(name, row)).collect();
            let Some(row) = found.pop() else { return Err(UpgradeError::NoNode(name.clone())) };
            if !found.is_empty() {
                let (name, count) = (name.clone(), found.len() + 1);
                return Err(UpgradeError::Ambiguous { name, count });
            }
            if chosen.iter().all(|it| it.id != row.id) {
                chosen.push(row.clone());
            }
        }
        Ok(chosen)
    }

    /// Errors: a node that was named cannot be upgraded.
    fn check_named(&self, planned: &[Planned]) -> std::result::Result<(), UpgradeError> {
        let mut left_out = planned.iter().filter(|_| !self.nodes.is_empty());
        left_out.try_for_each(|it| match &it.decision {
            Decision::Skip(reason) => {
                Err(UpgradeError::LeftOut { node: one_line(it.name()), reason: reason.clone() })
            }
            Decision::Upgrade(_) | Decision::Done => Ok(()),
        })
    }
}
