//! The command line of `vc-node`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::{Setting, Settings};

/// Runs a node of a Virtual Cluster: one of a mesh of equal nodes that run services together
#[derive(Debug, Parser)]
#[command(
    name = "vc-node",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  vc-node setup                                      become a node that systemd runs; asks what is needed
  vc-node init --label disk=ssd                      create a cluster with this node
  vc token create --node > join.token                create a join token, on a member
  vc-node join --token-file join.token --name attic  join that cluster with another node
  vc-node join --token-file join.token --role witness    only vote: the third beside two servers
  vc-node restore cluster.vcb                        found a cluster anew from a backup, when all nodes are lost
  vc-node run                                        start again after a restart, with the same settings
  vc-node run --data-dir ./n1                        with the settings that are remembered in ./n1"
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
        /// Join token, or the path of a file that holds it. A token here is visible in the process list until the node has
        /// started, and stays in the shell's history: prefer --token-file
        #[arg(required_unless_present = "token_file")]
        token: Option<String>,
        /// File that holds the join token; - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "token")]
        token_file: Option<PathBuf>,
        /// Options of the node.
        #[command(flatten)]
        options: Options,
    },
    /// Run a node that was created with init or join before, with the settings given then
    #[command(after_help = "\
Settings are remembered in DIR/node.json. An option that differs from what is remembered changes it, for later runs too. A
change that would end instances of this node is refused without --yes.

Examples:
  vc-node run                                        with the settings that are remembered
  vc-node run --memory 4g                            with less memory from now on
  vc-node run --volume-bandwidth 50MB                send copies of volumes with at most 50 MB a second
  vc-node run --resource gpu=2                       let placement count two GPUs
  vc-node run --backup-dir 's3://backups/vc?region=eu-central-1' --backup-passphrase-file /root/backup-passphrase
                                                     back the cluster up to a bucket, each day; to a directory likewise
  vc-node run --label disk=hdd --yes                 replace all labels, whatever ends by it
  vc-node run --unset cpus --unset no-mdns           return to the defaults of these")]
    Run {
        /// Options of the node.
        #[command(flatten)]
        options: Options,
        /// Return a setting to its default; may be repeated
        #[arg(long, value_enum, value_name = "SETTING")]
        unset: Vec<Setting>,
        /// Change settings also if that ends instances of this node
        #[arg(long)]
        yes: bool,
        /// Tell the guard of an upgrade, which is connected to stdin, when the node is ready
        #[arg(long, hide = true)]
        upgraded: bool,
    },
    /// Found a cluster anew from a file of 'vc backup', and run its first node
    Restore(crate::restore::Args),
    /// Make this host a node that systemd runs
    Setup(crate::setup::Args),
    /// Remove a node from this host, with all that it has here
    Uninstall(crate::uninstall::Args),
    /// Write a new admin token to DIR/admin.token, on a server whose node may run
    #[command(after_help = "\
Examples:
  vc-node admin-token                                the way back when no token of an admin is left
  vc --token /var/lib/vc/admin.token token ls        use it

The token is valid for a year and is not listed by 'vc token ls'; 'vc token revoke --user admin' revokes it.")]
    AdminToken(DataDir),
    /// Kill the instances whose lease has ended, for the node that is connected to stdin
    #[command(hide = true)]
    Watchdog(DataDir),
    /// Say what this build is, if it can run the node of the data directory
    #[command(hide = true)]
    CheckUpgrade(DataDir),
    /// Go back to this program if the node, which sends a byte on stdin then, does not become ready with another one
    #[command(hide = true)]
    GuardUpgrade(Options),
    /// Keep the sockets of a node that restarts, which it sends on stdin
    #[command(hide = true)]
    HoldSockets(Options),
    /// Write the man pages
    #[command(
        hide = true,
        after_help = "\
Examples:
  vc-node man ./man8"
    )]
    Man {
        /// Where to write a page for each command
        directory: PathBuf,
    },
}

impl Command {
    /// Returns whether this process becomes a node.
    #[cfg(feature = "otlp")]
    pub fn is_node(&self) -> bool {
        matches!(self, Self::Init(_) | Self::Join { .. } | Self::Run { .. } | Self::Restore(_))
    }

    /// Returns the format of the log.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Init(options)
            | Self::Join { options, .. }
            | Self::Run { options, .. }
            | Self::HoldSockets(options)
            | Self::GuardUpgrade(options) => options.log_format,
            Self::Restore(args) => args.options.log_format,
            Self::AdminToken(_)
            | Self::Watchdog(_)
            | Self::CheckUpgrade(_)
            | Self::Setup(_)
            | Self::Uninstall(_)
            | Self::Man { .. } => LogFormat::Text,
        }
    }
}

/// The data directory.
#[derive(Debug, Args)]
pub struct DataDir {
    /// Directory of the node's keys and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vc", env = "VC_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// The options of a node.
#[derive(Debug, Args)]
pub struct Options {
    /// Directory of the node's keys and state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vc", env = "VC_DATA_DIR")]
    pub data_dir: PathBuf,
    /// What is remembered.
    #[command(flatten)]
    pub settings: Settings,
    /// Format of the log on stderr. VC_LOG sets the level, as in VC_LOG=debug
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON object per line
    Json,
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
#[path = "../../tests/harness/documented.rs"]
mod documented;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_lines_of_the_documentation_are_accepted() {
        let all = documented::commands("vc-node");
        assert!(all.len() > 9, "{}", all.len());
        for (page, words) in all {
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{page}: {words:?}: {error}");
            }
        }
    }

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_parsed_with_their_units() {
        let line = "vc-node init --cpus 1.5 --memory 2g --label disk=ssd --label zone=a --listen 127.0.0.1";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        let Command::Init(options) = cli.command else { panic!("init") };
        let settings = options.settings;
        assert_eq!((settings.cpus, settings.memory), (Some(1500), Some(2 << 30)));
        assert_eq!(settings.labels.len(), 2);
        assert!(Cli::try_parse_from(["vc-node", "init", "--label", "nokey"]).is_err());
        assert!(Cli::try_parse_from(["vc-node", "init", "--name", "Not A Name"]).is_err());
        assert!(Cli::try_parse_from(["vc-node", "init", "--unset", "cpus"]).is_err());
        let bandwidth = |text: &str| {
            let cli = Cli::try_parse_from(["vc-node", "run", "--volume-bandwidth", text]).ok()?;
            let Command::Run { options, .. } = cli.command else { panic!("run") };
            options.settings.volume_bandwidth
        };
        assert_eq!((bandwidth("50MB"), bandwidth("1g/s")), (Some(50 << 20), Some(1 << 30)));
        assert_eq!((bandwidth("1k"), bandwidth("0"), bandwidth("fast")), (None, None, None));
        let line = "vc-node run --unset cpus --unset docker-host --yes";
        let Command::Run { unset, yes: true, .. } =
            Cli::try_parse_from(line.split(' ')).expect("parses").command
        else {
            panic!("run")
        };
        assert_eq!(unset, [Setting::Cpus, Setting::DockerHost]);
    }
}
