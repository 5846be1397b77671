//! The command line of `vc-node`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vc_protocol::{DEFAULT_PORT, Name, parse_cpus, parse_memory};

/// Runs a node of a Virtual Cluster: one of a mesh of equal nodes that run services together
#[derive(Debug, Parser)]
#[command(
    name = "vc-node",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  vc-node init                                       create a cluster with this node
  vc token create --node                             create a join token, on a member
  vc-node join TOKEN --name attic                    join that cluster with another node
  vc-node run                                        start again after a restart
  vc-node run --data-dir ./n1 --runtime process      run child processes instead of containers"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `vc-node`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a cluster and run its first node. Writes an admin token to DIR/admin.token
    Init(Options),
    /// Join a cluster with a token from 'vc token create --node', and run
    Join {
        /// Join token, or the path of a file that holds it
        token: String,
        /// Options of the node.
        #[command(flatten)]
        options: Options,
    },
    /// Run a node that was created with init or join before
    Run(Options),
}

/// The options of all commands.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory of the node's keys and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vc", env = "VC_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Name of this node, shown in lists and usable in constraints [default: the host name]
    #[arg(long)]
    pub name: Option<Name>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub listen: IpAddr,
    /// TCP and QUIC port. The next port (UDP) is for browsers (WebRTC-direct); the one after it serves the console, on
    /// 127.0.0.1 only
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub port: u16,
    /// Address to publish to other nodes, if it differs from the one listened on
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Runtime of the services
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Docker)]
    pub runtime: RuntimeChoice,
    /// URL of the Docker engine [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    pub docker_host: Option<String>,
    /// Label for placement constraints; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// CPU cores for services, as in 1.5 [default: all]
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<u64>,
    /// Memory for services, as in 8g [default: all]
    #[arg(long, value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Do not discover members on the local network by mDNS
    #[arg(long)]
    pub no_mdns: bool,
    /// Do not serve the web console
    #[arg(long)]
    pub no_console: bool,
    /// Format of the log on stderr. VC_LOG sets the level, as in VC_LOG=debug
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The runtime of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// Containers in a Docker engine
    Docker,
    /// Plain child processes, without isolation or images
    Process,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON object per line
    Json,
}

/// An argument of `--label` that is not `key=value`.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a label: expected key=value")]
struct LabelError(String);

fn parse_label(text: &str) -> Result<(String, String), LabelError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(LabelError(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_parsed_with_their_units() {
        let line = "vc-node init --cpus 1.5 --memory 2g --label disk=ssd --label zone=a --listen 127.0.0.1";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        let Command::Init(options) = cli.command else { panic!("init") };
        assert_eq!((options.cpus, options.memory), (Some(1500), Some(2 << 30)));
        assert_eq!(options.labels.len(), 2);
        assert!(Cli::try_parse_from(["vc-node", "init", "--label", "nokey"]).is_err());
        assert!(Cli::try_parse_from(["vc-node", "init", "--name", "Not A Name"]).is_err());
    }
}
