//! `vc token`: lets nodes and users in.

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, ValueEnum};
use vc_protocol::control::{Request, TokenRequest, TokenSubject};
use vc_protocol::token::{NodeRole, UserRole};
use vc_protocol::{Millis, Name};

use crate::app::App;
use crate::args::{Cli, duration};
use vc_client::expect_reply;

/// A node joins at once, or soon.
const NODE_TTL: Duration = Duration::from_secs(24 * 3600);
/// A user comes back.
const USER_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Arguments of `vc token`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token; it alone is printed
    Create(Create),
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        match self.command {
            Command::Create(args) => args.run(app).await,
        }
    }
}

/// Arguments of `vc token create`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true))]
#[command(after_help = "\
Examples:
  vc-node join $(vc token create --node)
  vc token create --node --role worker --ttl 1h
  vc token create --user ada --role deployer --ttl 7d > ada.token
  vc token create --user phone --role viewer --ttl 12h --browser > phone.token

A viewer sees everything but secrets (specifications with their environment, logs) and opens the
services that publish TCP ports, as anybody at a node could. A deployer changes services, runs commands in instances and
copies their files. An admin also makes tokens, drains nodes and takes them out.

Whoever holds a token can use it until it expires: hand it over as you would a password.")]
struct Create {
    /// For a node that joins; a name tells tokens apart in the log
    #[arg(long, group = "subject", value_name = "NAME", alias = "machine", num_args = 0..=1, default_missing_value = "node")]
    node: Option<Name>,
    /// For a user of this name
    #[arg(long, group = "subject", value_name = "NAME")]
    user: Option<Name>,
    /// For a node, server (default: it admits others too) or worker; for a user, viewer (default), deployer or admin
    #[arg(long, value_enum, hide_possible_values = true)]
    role: Option<Role>,
    /// Good for so long [default: 1d for a node, 30d for a user]
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    ttl: Option<Duration>,
    /// For a link to the console: short, with addresses for browsers alone, and of no use to this program from afar
    #[arg(long, conflicts_with = "node")]
    browser: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Server,
    Worker,
    Viewer,
    Deployer,
    Admin,
}

fn some_time(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl < Duration::from_secs(1) {
        Err("a token is good for a second at least".to_owned())
    } else {
        Ok(ttl)
    }
}

impl Create {
    async fn run(self, app: &App) -> anyhow::Result<()> {
        let ttl = self.ttl.unwrap_or(if self.node.is_some() { NODE_TTL } else { USER_TTL });
        let request = TokenRequest {
            subject: self.subject().unwrap_or_else(|why| {
                Cli::command().error(ErrorKind::ArgumentConflict, why).exit();
            }),
            ttl_ms: Millis::try_from(ttl.as_millis()).unwrap_or(Millis::MAX),
            browser: self.browser,
        };
        let token = expect_reply!(app.ask(Request::CreateToken(request)).await?, Token)?;
        app.out.show(&token, |token, _| format!("{token}\n"))
    }

    fn subject(&self) -> Result<TokenSubject, &'static str> {
        if let Some(name) = self.node.clone() {
            let role = match self.role {
                None | Some(Role::Server) => NodeRole::Server,
                Some(Role::Worker) => NodeRole::Worker,
                Some(_) => {
                    return Err("a node is server or worker; the other roles are for users");
                }
            };
            return Ok(TokenSubject::Node { name, role });
        }
        // One of the two is required.
        let name = self.user.clone().ok_or("name a node or a user")?;
        let role = match self.role {
            None | Some(Role::Viewer) => UserRole::Viewer,
            Some(Role::Deployer) => UserRole::Deployer,
            Some(Role::Admin) => UserRole::Admin,
            Some(_) => {
                return Err("a user is viewer, deployer or admin; the other roles are for nodes");
            }
        };
        Ok(TokenSubject::User { name, role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_fit_whom_they_are_for() {
        let create = |user: Option<&str>, role| Create {
            node: user.is_none().then(|| "node".parse().expect("a name")),
            user: user.map(|name| name.parse().expect("a name")),
            role,
            ttl: None,
            browser: false,
        };
        let node = |role| TokenSubject::Node { name: "node".parse().expect("a name"), role };
        assert_eq!(create(None, None).subject(), Ok(node(NodeRole::Server)));
        assert_eq!(create(None, Some(Role::Worker)).subject(), Ok(node(NodeRole::Worker)));
        assert!(create(None, Some(Role::Admin)).subject().is_err());
        let name: Name = "ada".parse().expect("a name");
        let viewer = TokenSubject::User { name: name.clone(), role: UserRole::Viewer };
        assert_eq!(create(Some("ada"), None).subject(), Ok(viewer));
        let admin = TokenSubject::User { name, role: UserRole::Admin };
        assert_eq!(create(Some("ada"), Some(Role::Admin)).subject(), Ok(admin));
        assert!(create(Some("ada"), Some(Role::Server)).subject().is_err());
    }
}
