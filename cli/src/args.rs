//! The command line.

use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use libp2p::Multiaddr;
use vc_client::address::{self, AddressError};

use crate::cmd;

const EXAMPLES: &str = "\
Examples:
  vc --token /var/lib/vc/admin.token nodes   use a token that a node wrote
  vc login admin.token                       keep it; from now on --token is not needed
  vc deploy compose.yaml --wait              put services in place
  vc ps                                      where they run
  vc --peer 10.0.0.1 status                  ask this node

A token names nodes to try; the CLI also remembers those it has seen, and asks the local network last.";

/// Drive a Virtual Cluster from any node.
#[derive(Debug, Parser)]
#[command(name = "vc", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// User token, or a file that holds it; else the one kept by 'vc login'
    #[arg(
        long,
        global = true,
        env = "VC_TOKEN",
        hide_env_values = true,
        value_name = "FILE|TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Ask this node and no other: /ip4/10.0.0.1/tcp/4777, or 10.0.0.1[:4777]; may be repeated
    #[arg(long = "peer", global = true, env = "VC_PEER", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<PeerList>,
    /// How to print results
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// The addresses in one `--peer`; VC_PEER may hold several, separated by commas or white space, or none.
#[derive(Debug, Clone)]
pub(crate) struct PeerList(pub(crate) Vec<Multiaddr>);

impl FromStr for PeerList {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parts =
            text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
        parts.map(address::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put the services of a Compose file in place
    Deploy(cmd::deploy::Args),
    /// Say where the services of a Compose file would go, and why
    Plan(cmd::plan::Args),
    /// List services
    Services(cmd::services::Args),
    /// List instances
    Ps(cmd::ps::Args),
    /// List nodes
    Nodes(cmd::nodes::Args),
    /// The cluster at a glance
    Status(cmd::status::Args),
    /// Everything about a service
    Inspect(cmd::inspect::Args),
    /// Replace the instances of services by new ones
    Restart(cmd::restart::RestartArgs),
    /// Go back to the version of a service before
    Rollback(cmd::restart::RollbackArgs),
    /// Change how many instances services have
    Scale(cmd::scale::Args),
    /// Remove services
    Rm(cmd::rm::Args),
    /// What the instances of a service wrote
    Logs(cmd::logs::Args),
    /// What happened in the cluster
    Events(cmd::events::Args),
    /// Run a command in an instance
    Exec(cmd::exec::Args),
    /// Copy files into an instance, or out of it
    Cp(cmd::cp::Args),
    /// Move instances off a node and keep it free
    Drain(cmd::drain::DrainArgs),
    /// Let instances come back to a node
    Undrain(cmd::drain::UndrainArgs),
    /// Even out what nodes run
    Rebalance(cmd::rebalance::Args),
    /// Take a node out of the cluster for good
    Leave(cmd::leave::Args),
    /// Named volumes, and where their data is
    Volume(cmd::volume::Args),
    /// Hand images to the mesh, and list them
    Image(cmd::image::Args),
    /// Open the console in a browser
    Console(cmd::console::Args),
    /// Make tokens for nodes and users
    Token(cmd::token::Args),
    /// Keep a token for later commands
    Login(cmd::login::Args),
    /// Print completions for a shell
    Completions(cmd::completions::Args),
}

/// A length of time as people write it: `90s`, `1h30m`, `7d`. Units: ms, s, m, h, d, w.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration: write 90s, 1h30m or 7d");
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        millis =
            number.checked_mul(factor).and_then(|part| millis.checked_add(part)).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_manual_shows_is_understood() {
        for line in [
            "vc --token t nodes",
            "vc nodes --token t --output json",
            "vc --peer /ip4/10.0.0.1/tcp/4777 --peer 10.0.0.2 ps shop/web",
            "vc deploy compose.yaml -p shop --wait --timeout 90s",
            "vc deploy -",
            "vc deploy compose.yaml --dry-run --output json",
            "vc deploy compose.yaml --diff --wait",
            "vc plan compose.yaml --output json",
            "vc scale web=3 shop/db=1 --wait",
            "vc rm web shop/",
            "vc logs -f --tail 10 --since 1h30m web --replica 2",
            "vc exec web -- ls -l --output",
            "vc exec web ls -l",
            "vc exec -it shop/web.2 -- sh",
            "vc exec -i --replica 2 -e A=b=c -u 0:0 -w / web -- env",
            "vc cp web:/etc/hosts .",
            "vc cp ./site shop/web.2:/srv",
            "vc logs -t --no-prefix web.2",
            "vc drain attic",
            "vc drain attic --timeout 1h",
            "vc drain attic --no-wait",
            "vc undrain attic",
            "vc leave attic --timeout 1h",
            "vc leave attic --force",
            "vc rebalance --yes --no-wait",
            "vc inspect shop/web",
            "vc restart web api --wait",
            "vc rollback web --wait --timeout 1m",
            "vc volume ls",
            "vc volume rm shop/data",
            "vc token create --node",
            "vc token create --node attic",
            "vc token create --node --role worker --ttl 1h",
            "vc token create --user ada --role admin --ttl 7d",
            "vc token create --user phone --ttl 12h --browser",
            "vc console",
            "vc console --listen [::1]:8080 --no-open",
            "vc console --url https://console.example/ --qr",
            "vc nodes --addresses",
            "vc events",
            "vc events -f --output json",
            "vc login admin.token",
            "vc completions zsh",
            "vc status",
            "vc image push web:1 worker:1 --docker-host unix:///run/docker.sock",
            "vc image ls",
            "vc services",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn misuse_is_a_usage_error() {
        for line in [
            "vc",
            "vc frobnicate",
            "vc cp web:/a",
            "vc cp web:a .",
            "vc exec web",
            "vc exec web --",
            "vc exec web.0 -- sh",
            "vc exec -e =x web -- sh",
            "vc deploy",
            "vc deploy f --timeout 10s",
            "vc deploy f --dry-run --wait",
            "vc drain attic --no-wait --timeout 10s",
            "vc restart web --timeout 10s",
            "vc scale web",
            "vc scale web=-1",
            "vc scale web=1001",
            "vc scale =3",
            "vc rm",
            "vc restart",
            "vc rollback web api",
            "vc volume rm data",
            "vc logs",
            "vc image",
            "vc image push",
            "vc logs web --replica 0",
            "vc token create",
            "vc token create --node --user ada",
            "vc token create --node --browser",
            "vc token create --user Ada",
            "vc token create --user ada --role king",
            "vc token create --node --ttl 0s",
            "vc console --listen 0.0.0.0:80",
            "vc console --url http://console.example/",
            "vc console --url https://console.example/ --listen 127.0.0.1:1",
            "vc --output yaml ps",
            "vc --peer /ip4/10.0.0.1/sctp/1 ps",
            "vc --peer not:a:peer ps",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line} was accepted"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_has_a_help_with_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                assert!(sub.get_about().is_some(), "{path} has no description");
                if sub.has_subcommands() {
                    check(sub, &path);
                } else {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains(&path[..]), "{path} has no example");
                }
            }
        }
        check(&Cli::command(), "vc");
    }

    #[test]
    fn one_peer_option_may_hold_several_addresses() {
        let list: PeerList = "10.0.0.1, 10.0.0.2".parse().expect("two");
        assert_eq!(list.0.len(), 2);
        assert!("".parse::<PeerList>().expect("none").0.is_empty());
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("0s", 0),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("5ms", 5),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "1.5h",
            "5y",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
