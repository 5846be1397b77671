//! `vc token`: creates, lists and revokes tokens for nodes and users.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use vc_protocol::control::{Request, TokenRequest, TokenSubject};
use vc_protocol::token::{NodeRole, UserLimits, UserRole};
use vc_protocol::{DurationError, Millis, Name};

use crate::app::App;
use crate::args::duration;
use crate::error::{Error, Result};
use crate::render;
use vc_client::expect_reply;

/// Lifetime of a token for a node that joins.
const NODE_TTL: Duration = Duration::from_secs(3600);
/// Lifetime of a user token.
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
    /// Create a token and print it
    Create(Create),
    /// List the tokens that were created and have not expired
    Ls(Ls),
    /// Revoke tokens before they expire
    Revoke(Revoke),
}

/// Arguments of `vc token ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc token ls
  vc token ls --output json | jq '.[] | select(.name == \"ada\") | .id'

The token that 'vc-node init' writes is not listed; 'vc token revoke --user admin' revokes it.")]
struct Ls {}

/// Arguments of `vc token revoke`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
#[command(after_help = "\
Examples:
  vc token revoke 1f0c5ab7e1d2c3b4           this token
  vc token revoke --user ada                 all tokens that ada has so far

Every node that is connected refuses the token at once, and closes the sessions that use it; one that is cut off does when it
is back. Nodes that have joined with a token stay members.

Without any token of an admin, root on a server gets a new one: 'vc-node admin-token --data-dir DIR'.")]
struct Revoke {
    /// Ids of tokens, as 'vc token ls' shows them
    #[arg(value_name = "TOKEN", group = "what")]
    tokens: Vec<String>,
    /// All tokens of the user with this name
    #[arg(long, value_name = "USER", group = "what")]
    user: Option<String>,
    /// Also if the token that vc uses is among them and no other token of an admin is listed
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    async fn run(self, app: &App) -> Result {
        let force = self.yes;
        let user = self.user.into_iter().map(|user| Request::RevokeUser { user, force });
        let tokens = self.tokens.into_iter().map(|token| Request::RevokeToken { token, force });
        app.change(user.chain(tokens).collect()).await
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Create(args) => args.run(app).await,
            Command::Ls(Ls {}) => {
                let rows = expect_reply!(app.ask(Request::Tokens).await?, Tokens)?;
                app.out.show(rows.as_slice(), render::tokens)
            }
            Command::Revoke(args) => args.run(app).await,
        }
    }
}

/// Arguments of `vc token create`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true))]
#[command(after_help = "\
Examples:
  vc token create --node | vc-node join --token-file -
  vc token create --node --worker
  vc token create --node --uses 5 --ttl 1d   for five nodes
  vc token create --user ada --role deployer --ttl 7d > ada.token
  vc token create --user ann --role deployer --project shop --project blog > ann.token
  vc token create --user eve --role viewer --logs > eve.token
  vc token create --user phone --role viewer --ttl 12h --browser > phone.token

A viewer reads everything except secrets, the values of environment variables and, without --logs, logs, and opens services
that publish TCP ports. A deployer also changes services, runs commands in instances and copies their files. An admin also
creates tokens, drains and removes nodes, and says what projects may use of their hosts.

A token with --project sees the nodes and these projects only, and changes nothing else.

A token is valid for anyone who has it until it expires: treat it like a password. One for nodes lets a single node join,
within an hour; a node that repeats its join does not use it again. Where a cluster is cut in two, each side counts for itself.")]
struct Create {
    /// For a node that joins; the name distinguishes tokens in the log
    #[arg(long, group = "subject", value_name = "NAME", alias = "machine", num_args = 0..=1, default_missing_value = "node")]
    node: Option<Name>,
    /// For a user of this name
    #[arg(long, group = "subject", value_name = "NAME")]
    user: Option<Name>,
    /// For a node, server (default: it admits others too) or worker; for a user, viewer (default), deployer or admin
    #[arg(long, value_enum, hide_possible_values = true)]
    role: Option<Role>,
    /// For a user, only this project; may be repeated [default: all projects]
    #[arg(long = "project", value_name = "PROJECT", conflicts_with = "node")]
    projects: Vec<Name>,
    /// For a viewer, also the logs of services; a deployer may read them in any case
    #[arg(long, conflicts_with = "node")]
    logs: bool,
    /// The same as --role worker: for a node that is trusted less, and admits no others
    #[arg(long, conflicts_with_all = ["role", "user"])]
    worker: bool,
    /// How many nodes may join with it [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "user", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Lifetime [default: 1h for a node, 30d for a user]
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    ttl: Option<Duration>,
    /// For a link to the console: short, with addresses for browsers only; vc can use it on the local network only
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

/// The text is not a lifetime of a token.
#[derive(Debug, thiserror::Error)]
enum LifetimeError {
    #[error(transparent)]
    Duration(#[from] DurationError),
    #[error("the lifetime of a token is at least 1s")]
    TooShort,
}

fn lifetime(text: &str) -> std::result::Result<Duration, LifetimeError> {
    let ttl = duration(text)?;
    if ttl < Duration::from_secs(1) { Err(LifetimeError::TooShort) } else { Ok(ttl) }
}

impl Create {
    async fn run(self, app: &App) -> Result {
        let ttl = self.ttl.unwrap_or(if self.node.is_some() { NODE_TTL } else { USER_TTL });
        let request = TokenRequest {
            subject: self.subject().map_err(Error::Usage)?,
            ttl_ms: Millis::try_from(ttl.as_millis()).unwrap_or(Millis::MAX),
            browser: self.browser,
            uses: self.uses,
        };
        let token = expect_reply!(app.ask(Request::CreateToken(request)).await?, Token)?;
        app.out.show(&token, |token, _| format!("{token}\n"))
    }

    fn subject(&self) -> std::result::Result<TokenSubject, &'static str> {
        if let Some(name) = self.node.clone() {
            let role = match self.role {
                _ if self.worker => NodeRole::Worker,
                None | Some(Role::Server) => NodeRole::Server,
                Some(Role::Worker) => NodeRole::Worker,
                Some(_) => {
                    return Err("the role of a node is server or worker");
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
                return Err("the role of a user is viewer, deployer or admin");
            }
        };
        if role == UserRole::Admin && !self.projects.is_empty() {
            return Err(
                "an admin changes nodes and tokens, which belong to no project: leave --project out",
            );
        }
        let projects = Some(self.projects.iter().cloned().collect());
        let projects = projects.filter(|it: &BTreeSet<Name>| !it.is_empty());
        let limits = UserLimits { projects, logs: self.logs };
        Ok(TokenSubject::User { name, role, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_nodes_and_users_are_not_mixed() {
        let create = |user: Option<&str>, role| Create {
            projects: Vec::new(),
            logs: false,
            node: user.is_none().then(|| "node".parse().expect("a name")),
            user: user.map(|name| name.parse().expect("a name")),
            role,
            ttl: None,
            browser: false,
            worker: false,
            uses: None,
        };
        let node = |role| TokenSubject::Node { name: "node".parse().expect("a name"), role };
        assert_eq!(create(None, None).subject(), Ok(node(NodeRole::Server)));
        assert_eq!(create(None, Some(Role::Worker)).subject(), Ok(node(NodeRole::Worker)));
        assert!(create(None, Some(Role::Admin)).subject().is_err());
        let name: Name = "ada".parse().expect("a name");
        let viewer = TokenSubject::User {
            name: name.clone(),
            role: UserRole::Viewer,
            limits: UserLimits::default(),
        };
        assert_eq!(create(Some("ada"), None).subject(), Ok(viewer));
        let admin =
            TokenSubject::User { name, role: UserRole::Admin, limits: UserLimits::default() };
        assert_eq!(create(Some("ada"), Some(Role::Admin)).subject(), Ok(admin));
        assert!(create(Some("ada"), Some(Role::Server)).subject().is_err());
        let limited = |role| Create {
            projects: vec!["shop".parse().expect("a name")],
            ..create(Some("ada"), Some(role))
        };
        assert!(limited(Role::Admin).subject().is_err());
        let subject = limited(Role::Deployer).subject().expect("a user");
        let json = serde_json::to_value(&subject).expect("plain data");
        let expected = serde_json::json!({"name": "ada", "role": "deployer", "projects": ["shop"]});
        assert_eq!(json["user"], expected);
    }
}
