//! `vc notify`: who is told of problems of the cluster.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use vc_protocol::Name;
use vc_protocol::alert::{AlertFilter, AlertFormat, AlertTarget, ProblemKind, Severity};
use vc_protocol::control::Request;

use crate::app::App;
use crate::error::{Result, SystemError};
use crate::files;
use crate::render;
use vc_client::expect_reply;

/// Longest file with a URL.
const MAX_URL_FILE: usize = 8192;

/// Arguments of `vc notify`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the receivers of alerts
    Ls(Ls),
    /// Send alerts of problems to a URL or a command
    Add(Add),
    /// Send no more alerts to a receiver
    Rm(Rm),
    /// Send a test alert to a receiver, from the node that sends alerts to it
    Test(Test),
}

/// Arguments of `vc notify ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc notify ls
  vc notify ls --output json | jq '.[] | select(.problem != \"\") | .name'")]
struct Ls {}

/// Arguments of `vc notify rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc notify rm ops")]
struct Rm {
    /// Name of the receiver
    #[arg(value_name = "RECEIVER")]
    name: Name,
}

/// Arguments of `vc notify test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc notify test ops")]
struct Test {
    /// Name of the receiver
    #[arg(value_name = "RECEIVER")]
    name: Name,
}

/// Arguments of `vc notify add`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Add {
    /// Name of the receiver
    #[arg(value_name = "NAME")]
    name: Name,
    #[command(subcommand)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Target {
    /// A POST request to an http or https URL
    Webhook(Webhook),
    /// A command on the node that sends, where its operator allows that with 'vc-node run --allow-notify-commands'
    Command(OfCommand),
}

/// Arguments of `vc notify add NAME webhook`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc notify add ops webhook http://10.0.0.9:9000/hook                    JSON as Alertmanager sends it
  vc notify add phone webhook https://ntfy.sh/my-topic --format text     a line for each alert
  vc notify add chat webhook --url-file url.txt --format slack           a URL that holds a secret
  vc notify add shop webhook http://10.0.0.9/ --project shop             problems of one project
  vc notify add disks webhook http://10.0.0.9/ --kind disk --kind volume-lag

Any server may send, so the address must be reachable from all of them. Redirects are not followed. The URL is kept like a secret
and not shown again.")]
struct Webhook {
    /// The URL, which other users of this computer can see meanwhile: with a secret in it, prefer --url-file
    #[arg(value_name = "URL", required_unless_present = "url_file")]
    url: Option<String>,
    /// File that holds the URL; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    url_file: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Arguments of `vc notify add NAME command`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc notify add pager command --severity critical -- /usr/local/bin/page ops
  vc notify add mail command --format text -- mail -s 'Virtual Cluster' root

The command runs without a shell as the user of vc-node, usually root, and gets the alerts on its standard input. Code 0 confirms them;
otherwise they are sent again.")]
struct OfCommand {
    #[command(flatten)]
    options: Options,
    /// The program with its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The form of what is sent, and which problems are.
#[derive(Debug, clap::Args)]
struct Options {
    /// Form of what is sent: json (as Alertmanager), text, slack, discord
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    format: AlertFormat,
    /// Only problems of this kind; may be repeated [default: all]
    #[arg(long, value_name = "KIND")]
    kind: Vec<ProblemKind>,
    /// Only problems of this project, and none of nodes; may be repeated [default: all]
    #[arg(long, value_name = "PROJECT")]
    project: Vec<Name>,
    /// Only problems that are at least this bad: info, warning, critical
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    severity: Severity,
}

impl Options {
    fn filter(self) -> (AlertFormat, AlertFilter) {
        let filter = AlertFilter {
            kinds: BTreeSet::from_iter(self.kind),
            projects: BTreeSet::from_iter(self.project),
            severity: self.severity,
        };
        (self.format, filter)
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            Command::Ls(Ls {}) => {
                let rows = expect_reply!(app.ask(Request::Receivers).await?, Receivers)?;
                app.out.show(rows.as_slice(), render::receivers)
            }
            Command::Add(Add { name, target }) => {
                let (target, options) = match target {
                    Target::Webhook(Webhook { url, url_file, options }) => {
                        let url = match url_file {
                            Some(path) => read_url(&path)?,
                            None => url.unwrap_or_default(),
                        };
                        (AlertTarget::Webhook { url }, options)
                    }
                    Target::Command(OfCommand { options, command }) => {
                        (AlertTarget::Command { command }, options)
                    }
                };
                let (format, filter) = options.filter();
                app.change(vec![Request::AddReceiver { name, target, format, filter }]).await
            }
            Command::Rm(Rm { name }) => app.change(vec![Request::RemoveReceiver { name }]).await,
            Command::Test(Test { name }) => app.change(vec![Request::TestReceiver { name }]).await,
        }
    }
}

/// Reads a URL from a file, without the space around it.
fn read_url(path: &Path) -> std::result::Result<String, SystemError> {
    let read = match path == Path::new("-") {
        true => files::read_from(io::stdin().lock(), MAX_URL_FILE),
        false => files::read(path, MAX_URL_FILE),
    };
    let text = read.map_err(SystemError::doing(format!("read {}", path.display())))?;
    Ok(text.trim().to_owned())
}
