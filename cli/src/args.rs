//! Options and value parsers that commands share.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use libp2p::Multiaddr;
use vc_client::address::{self, AddressError};
use vc_protocol::{DurationError, parse_duration};

/// The options of every command.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// User token, or a file that contains it [default: the one stored by 'vc login']
    #[arg(
        long,
        global = true,
        env = "VC_TOKEN",
        hide_env_values = true,
        value_name = "FILE|TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Connect to this node only: /ip4/10.0.0.1/tcp/4777, 10.0.0.1 or 10.0.0.1:4777; may be repeated
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

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

/// Parses a duration, as in `90s`, `1h30m` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_option_may_hold_several_addresses() {
        let list: PeerList = "10.0.0.1, 10.0.0.2".parse().expect("two");
        assert_eq!(list.0.len(), 2);
        assert!("".parse::<PeerList>().expect("none").0.is_empty());
    }

    #[test]
    fn durations_are_parsed() {
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
