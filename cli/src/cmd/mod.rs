//! The commands, one file each. Each has its `Args`, with `run`.

pub(crate) mod completions;
pub(crate) mod console;
pub(crate) mod cp;
pub(crate) mod deploy;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod leave;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod plan;
mod project;
pub(crate) mod ps;
pub(crate) mod rebalance;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod scale;
pub(crate) mod services;
pub(crate) mod status;
mod target;
pub(crate) mod token;
pub(crate) mod volume;
mod wait;

use crate::app::App;
use crate::args::Command;

/// Does what the user asked for.
pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Deploy(args) => args.run(app).await,
        Command::Plan(args) => args.run(app).await,
        Command::Services(args) => args.run(app).await,
        Command::Ps(args) => args.run(app).await,
        Command::Nodes(args) => args.run(app).await,
        Command::Status(args) => args.run(app).await,
        Command::Scale(args) => args.run(app).await,
        Command::Rm(args) => args.run(app).await,
        Command::Logs(args) => args.run(app).await,
        Command::Events(args) => args.run(app).await,
        Command::Cp(args) => args.run(app).await,
        Command::Exec(args) => args.run(app).await,
        Command::Drain(args) => args.run(app).await,
        Command::Undrain(args) => args.run(app).await,
        Command::Leave(args) => args.run(app).await,
        Command::Rebalance(args) => args.run(app).await,
        Command::Inspect(args) => args.run(app).await,
        Command::Restart(args) => args.run(app).await,
        Command::Rollback(args) => args.run(app).await,
        Command::Volume(args) => args.run(app).await,
        Command::Image(args) => args.run(app).await,
        Command::Console(args) => args.run(app).await,
        Command::Token(args) => args.run(app).await,
        Command::Login(args) => args.run(app),
        Command::Completions(args) => args.run(),
    }
}
