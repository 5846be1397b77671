//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vc_protocol::{DEFAULT_PORT, Name, parse_cpus, parse_memory};

/// A node of a Virtual Cluster: runs its share of the services, and needs no coordinator.
#[derive(Debug, Parser)]
#[command(
    name = "vc-node",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  vc-node init --data-dir /var/lib/vc              found a cluster on this node
  vc token create --node                        make a token for another node
  vc-node join TOKEN --data-dir /var/lib/vc        join it there
  vc-node run --data-dir /var/lib/vc               go on after a restart"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Found a cluster and run its first node. Writes an admin's token to DIR/admin.token
    Init(Options),
    /// Join a cluster with a token from 'vc token create --node', and run
    Join {
        /// The token, or a file that holds it
        token: String,
        /// The rest.
        #[command(flatten)]
        options: Options,
    },
    /// Run a node that was founded or has joined before
    Run(Options),
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the node keeps its key and its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vc", env = "VC_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Name of this node, for people and for constraints [default: its host name]
    #[arg(long)]
    pub name: Option<Name>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub listen: IpAddr,
    /// TCP and QUIC port. Browsers get in at the next one (UDP); the console is on the one after that, for this node's
    /// browsers only
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub port: u16,
    /// Address to tell others, where it is not the one listened on
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// What runs the services
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Docker)]
    pub runtime: RuntimeChoice,
    /// Where Docker answers [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    pub docker_host: Option<String>,
    /// A label for placement constraints; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Cores to give to services [default: all]
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<u64>,
    /// Memory to give to services, as in 8g [default: all]
    #[arg(long, value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Do not look for members in the same network by mDNS
    #[arg(long)]
    pub no_mdns: bool,
    /// Do not serve the console
    #[arg(long)]
    pub no_console: bool,
    /// How to write the log, to stderr. VC_LOG sets the level, as in VC_LOG=debug
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What runs the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// Containers in a Docker engine
    Docker,
    /// Plain child processes, without isolation or images
    Process,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not a label: write key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_read_with_their_units() {
        let line = "vc-node init --cpus 1.5 --memory 2g --label disk=ssd --label zone=a --listen 127.0.0.1";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        let Command::Init(options) = cli.command else { panic!("init") };
        assert_eq!((options.cpus, options.memory), (Some(1500), Some(2 << 30)));
        assert_eq!(options.labels.len(), 2);
        assert!(Cli::try_parse_from(["vc-node", "init", "--label", "nokey"]).is_err());
        assert!(Cli::try_parse_from(["vc-node", "init", "--name", "Not A Name"]).is_err());
    }
}
