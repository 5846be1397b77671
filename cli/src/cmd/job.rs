//! `vc job`: lists jobs and their runs, begins and stops runs.

use vc_client::expect_reply;
use vc_protocol::control::{Request, RunRow, RunState};
use vc_protocol::{ApiError, ErrorCode};

use super::logs;
use super::target::Target;
use crate::app::App;
use crate::error::Result;
use crate::render;

/// Arguments of `vc job`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List jobs, with their next and last runs
    #[command(after_help = "\
Examples:
  vc job ls
  vc job ls --output json | jq -r '.[] | select(.last.state == \"failed\") | .service'")]
    Ls,
    /// Begin a run now
    #[command(after_help = "\
Examples:
  vc job run backup                          beside the times of its schedule
  vc job run shop/import                     runs a job without a schedule anew, all of it")]
    Run {
        /// Job: backup, or shop/backup
        #[arg(value_name = "JOB")]
        service: String,
    },
    /// Show the log of the last run
    #[command(after_help = "\
Examples:
  vc job logs backup
  vc job logs backup --run 1767225600 -t     of one run, as 'vc job history' numbers them
  vc job logs -f backup                      follows it

The containers of runs that are remembered keep their logs, on the nodes that ran them.")]
    Logs {
        /// Job: backup, or shop/backup
        #[arg(value_name = "JOB")]
        service: String,
        /// The run, as 'vc job history' numbers them
        #[arg(long, value_name = "RUN", value_parser = clap::value_parser!(u32).range(1..))]
        run: Option<u32>,
        /// Print new lines as they are written, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// Print the time of each line
        #[arg(short, long)]
        timestamps: bool,
    },
    /// Stop the runs of a scheduled service that are under way
    #[command(after_help = "\
Examples:
  vc job stop backup
  vc job stop backup --run 1767225600        one of several
  vc scale backup=0                          rests the schedule too")]
    Stop {
        /// Job: backup, or shop/backup
        #[arg(value_name = "JOB")]
        service: String,
        /// The run, as 'vc job history' numbers them
        #[arg(long, value_name = "RUN", value_parser = clap::value_parser!(u32).range(1..))]
        run: Option<u32>,
    },
    /// List the runs of a job, newest first
    #[command(after_help = "\
Examples:
  vc job history backup
  vc job history backup --output json | jq '.[] | {run, node_name, exit_code}'")]
    History {
        /// Job: backup, or shop/backup
        #[arg(value_name = "JOB")]
        service: String,
    },
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Ls => {
                let reply = app.ask(Request::Jobs).await?;
                app.out.show(expect_reply!(reply, Jobs)?.as_slice(), render::jobs)
            }
            Command::Run { service } => app.change(vec![Request::RunJob { service }]).await,
            Command::Stop { service, run } => {
                app.change(vec![Request::StopRun { service, run }]).await
            }
            Command::History { service } => {
                let reply = app.ask(Request::Runs { service }).await?;
                app.out.show(expect_reply!(reply, Runs)?.as_slice(), render::runs)
            }
            Command::Logs { service, run, follow, timestamps } => {
                let run = match run {
                    Some(run) => run,
                    None => last_run(app, &service).await?,
                };
                let target = Target { service, replica: Some(run) };
                logs::Args::of(target, follow, timestamps).run(app).await
            }
        }
    }
}

/// Returns the number of the run that began last.
async fn last_run(app: &App, service: &str) -> Result<u32> {
    let reply = app.ask(Request::Runs { service: service.to_owned() }).await?;
    let rows = expect_reply!(reply, Runs)?;
    let has_begun = |row: &&RunRow| {
        matches!(
            row.state,
            RunState::Running | RunState::Succeeded | RunState::Failed | RunState::Unknown
        )
    };
    let none = || {
        ApiError::new(ErrorCode::NotFound, format!("no run of {service} has begun"))
            .with_hint(format!("see 'vc job history {service}'"))
    };
    Ok(rows.iter().find(has_begun).ok_or_else(none)?.run)
}
