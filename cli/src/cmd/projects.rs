//! `vc project`: lists projects, and says what their services may use of the hosts.

use vc_protocol::Name;
use vc_protocol::control::Request;
use vc_protocol::spec::{PolicyError, ProjectPolicy};

use crate::app::App;
use crate::error::Result;
use crate::render;
use vc_client::expect_reply;

/// Arguments of `vc project`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List projects with what their services may use of the hosts
    Ls(Ls),
    /// Let deployers give the services of a project more of the hosts, and shared networks
    Allow(Allow),
    /// Take that away; what runs stays
    Deny(Deny),
}

/// Arguments of `vc project ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc project ls
  vc project ls --output json | jq '.[] | select(.allowed != []) | .project'")]
struct Ls {}

/// Arguments of `vc project allow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc project allow shop host-paths=/srv/data,/srv/x   these paths of every host, with what is below them
  vc project allow shop devices capabilities          devices, and capabilities beyond Docker's own
  vc project allow shop security-options              security options, as apparmor=unconfined
  vc project allow shop host-network                  network_mode: host
  vc project allow shop privileged                    all of these
  vc project allow shop networks=proxy                the network proxy, which projects share

Each of these but the last gives the project's deployers the host, or may. Mounts stay below the allowed paths also where a symbolic link
leads elsewhere.")]
struct Allow {
    /// Name of the project
    #[arg(value_name = "PROJECT")]
    project: Name,
    /// What its services may use
    #[arg(required = true, value_name = "PRIVILEGE", value_parser = privilege)]
    privileges: Vec<ProjectPolicy>,
}

/// Arguments of `vc project deny`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc project deny shop privileged
  vc project deny shop host-paths=/srv/data    this path, and those below it
  vc project deny shop host-paths=/            all paths

What runs stays, also when it is scaled or moves to another node; end it with 'vc rm' or deploy it anew.")]
struct Deny {
    /// Name of the project
    #[arg(value_name = "PROJECT")]
    project: Name,
    /// What its services may no longer use
    #[arg(required = true, value_name = "PRIVILEGE", value_parser = privilege)]
    privileges: Vec<ProjectPolicy>,
}

fn privilege(word: &str) -> std::result::Result<ProjectPolicy, PolicyError> {
    ProjectPolicy::parse([word])
}

/// Returns the policy that allows all of these.
fn all(policies: &[ProjectPolicy]) -> ProjectPolicy {
    policies.iter().fold(ProjectPolicy::default(), |all, policy| all.with(policy))
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Ls(Ls {}) => {
                let rows = expect_reply!(app.ask(Request::Projects).await?, Projects)?;
                app.out.show(rows.as_slice(), render::projects)
            }
            Command::Allow(Allow { project, privileges }) => {
                let policy = all(&privileges);
                app.change(vec![Request::AllowProject { project, policy }]).await
            }
            Command::Deny(Deny { project, privileges }) => {
                let policy = all(&privileges);
                app.change(vec![Request::DenyProject { project, policy }]).await
            }
        }
    }
}
