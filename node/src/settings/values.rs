//! The settings of a node and their options on the command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use vc_backup::Location;
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::spec::validate::{MAX_RESOURCES, is_resource_kind};
use vc_protocol::token::NodeRole;
use vc_protocol::{
    DEFAULT_PORT, DurationError, Multiaddr, Name, ParseResourceError, parse_cpus, parse_duration,
    parse_memory,
};
use vc_runtime::docker::NetworkPool;

/// The settings of a node. What is not said has its default, which is not remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Name of this node, shown in lists and usable in constraints [default: the host name]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Address to listen on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<IpAddr>,
    /// TCP and QUIC port [default: 4777]. The next port (UDP) is for browsers (WebRTC-direct); the one after it serves the
    /// console and metrics, on 127.0.0.1 only
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65533))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Address to publish to other nodes, if it differs from the one listened on
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<IpAddr>,
    /// What this node does [default: server or worker, as the join token says]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleChoice>,
    /// Runtime of the services [default: docker]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeChoice>,
    /// URL of the Docker engine [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_host: Option<String>,
    /// Range of IPv4 addresses for the networks of projects, of which each takes a /25 [default: what is free of 10.208.0.0/12,
    /// 172.24.0.0/13, 192.168.192.0/18]. Networks that exist stay as they are
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Option::is_none", with = "as_text")]
    pub network_pool: Option<NetworkPool>,
    /// Label for placement constraints; may be repeated. With run: replaces all labels
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    #[serde(serialize_with = "write_pairs", deserialize_with = "read_pairs")]
    pub labels: Vec<(String, String)>,
    /// How many this node has of a resource that placement counts, as in gpu=2; may be repeated. With run: replaces all
    #[arg(long = "resource", value_name = "KIND=N", value_parser = parse_resource)]
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "write_pairs",
        deserialize_with = "read_pairs"
    )]
    pub resources: Vec<(String, u64)>,
    /// CPU cores for services, as in 1.5 [default: all]
    #[arg(long, value_parser = parse_cpus)]
    #[serde(rename = "cpu_millis", skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// Memory for services, as in 8g [default: all]
    #[arg(long, value_parser = parse_memory)]
    #[serde(rename = "memory_bytes", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes per second that volumes may send to other nodes, as in 50MB; services, which come first, use the same [default: no
    /// bound]
    #[arg(long, value_name = "SIZE", value_parser = parse_bandwidth)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_bandwidth: Option<u64>,
    /// Serve metrics to other hosts at this address, as in 0.0.0.0:9477, to clients that send the token in DIR/metrics.token
    #[arg(long, value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Back the cluster up to this directory, or bucket of S3, which has to exist, again and again; needs
    /// --backup-passphrase-file. A bucket is s3://BUCKET/PREFIX?endpoint=URL&region=NAME, without endpoint at AWS
    #[arg(long, value_name = "DIR|s3://…", value_parser = parse_location)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_dir: Option<Location>,
    /// File with the credentials of that bucket, as 'aws configure' writes it [default: $AWS_ACCESS_KEY_ID and
    /// $AWS_SECRET_ACCESS_KEY, else ~/.aws/credentials]
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_credentials_file: Option<PathBuf>,
    /// File whose first line is the passphrase of these backups
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_passphrase_file: Option<PathBuf>,
    /// Time between two of them, as in 12h or 7d [default: 1d]
    #[arg(long, value_name = "DURATION", value_parser = parse_period)]
    #[serde(rename = "backup_every_ms", skip_serializing_if = "Option::is_none")]
    pub backup_every: Option<u64>,
    /// How many of them to keep [default: 7]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_keep: Option<u32>,
    /// Keep none that is older, but the newest, as in 90d [default: no bound]
    #[arg(long, value_name = "DURATION", value_parser = parse_period)]
    #[serde(rename = "backup_max_age_ms", skip_serializing_if = "Option::is_none")]
    pub backup_max_age: Option<u64>,
    /// Back up the data of all volumes, too
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub backup_volumes: bool,
    /// Let this node run the commands of receivers of alerts, as its own user. Admins of the cluster choose them, with 'vc notify
    /// add NAME command'
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_notify_commands: bool,
    /// Let admins of the cluster not replace the program of this node with 'vc upgrade'
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_remote_upgrade: bool,
    /// Do not discover members on the local network by mDNS
    #[arg(long)]
    pub no_mdns: bool,
    /// Do not serve the web console, nor metrics to this host
    #[arg(long)]
    pub no_console: bool,
    /// Fields of a later version, written back as they were read.
    #[arg(skip)]
    #[serde(flatten)]
    pub(super) unknown: serde_json::Map<String, serde_json::Value>,
}

/// The name of a setting, as its option has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "they are documented as fields of Settings")]
pub enum Setting {
    Name,
    Listen,
    Port,
    Advertise,
    Role,
    Runtime,
    DockerHost,
    NetworkPool,
    Label,
    Resource,
    Cpus,
    Memory,
    VolumeBandwidth,
    Metrics,
    BackupDir,
    BackupCredentialsFile,
    BackupPassphraseFile,
    BackupEvery,
    BackupKeep,
    BackupMaxAge,
    BackupVolumes,
    AllowNotifyCommands,
    NoRemoteUpgrade,
    NoMdns,
    NoConsole,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleChoice {
    /// Runs services, changes the cluster document, may grant leases
    Server,
    /// Runs services
    Worker,
    /// A server that runs no services, publishes no ports and needs no Docker: it grants leases, as the third beside two others
    Witness,
}

/// The role of a node is not that of its certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    /// It has to be a server for it.
    #[error(
        "--role {0} needs the token of a server, and this one makes a worker: make another with 'vc token create --node'"
    )]
    NeedsServer(&'static str),
    /// It is a server.
    #[error(
        "--role worker needs the token of a worker, and this node is a server: make one with 'vc token create --node --worker'"
    )]
    NeedsWorker,
}

/// The runtime of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// Containers in a Docker engine
    Docker,
    /// Plain child processes, without isolation or images
    Process,
}

/// Why an argument of `--label` is not a label.
#[derive(Debug, thiserror::Error)]
enum LabelError {
    #[error("'{0}' is not a label: expected key=value")]
    NoKey(String),
    #[error("{0:?} is not a label: it has control characters")]
    ControlCharacters(String),
}

fn parse_label(text: &str) -> Result<(String, String), LabelError> {
    if text.contains(char::is_control) {
        return Err(LabelError::ControlCharacters(text.to_owned()));
    }
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(LabelError::NoKey(text.to_owned())),
    }
}

/// The least bandwidth of volumes, in bytes per second: less would let transfers time out.
const MIN_BANDWIDTH: u64 = 64 << 10;

/// Why an argument of `--volume-bandwidth` is not a bandwidth.
#[derive(Debug, thiserror::Error)]
enum BandwidthError {
    #[error(transparent)]
    Size(#[from] ParseResourceError),
    #[error("'{0}' is too little: transfers would time out; give at least 64k")]
    TooLittle(String),
}

fn parse_bandwidth(text: &str) -> Result<u64, BandwidthError> {
    match parse_memory(text.strip_suffix("/s").unwrap_or(text))? {
        bytes if bytes < MIN_BANDWIDTH => Err(BandwidthError::TooLittle(text.to_owned())),
        bytes => Ok(bytes),
    }
}

/// Returns a path that means the same in another working directory: it is remembered.
fn parse_path(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

/// Why an argument is no place of backups.
#[derive(Debug, thiserror::Error)]
enum LocationError {
    #[error(transparent)]
    Address(#[from] vc_s3::AddressError),
    #[error(transparent)]
    Path(#[from] std::io::Error),
}

fn parse_location(text: &str) -> Result<Location, LocationError> {
    Ok(text.parse::<Location>()?.absolute()?)
}

/// The least time between two backups, in milliseconds.
const MIN_PERIOD: u64 = 1000;

/// Why an argument is no period of backups.
#[derive(Debug, thiserror::Error)]
enum PeriodError {
    #[error(transparent)]
    Duration(#[from] DurationError),
    #[error("'{0}' is too little: give at least 1s")]
    TooLittle(String),
}

fn parse_period(text: &str) -> Result<u64, PeriodError> {
    match parse_duration(text)? {
        millis if millis < MIN_PERIOD => Err(PeriodError::TooLittle(text.to_owned())),
        millis => Ok(millis),
    }
}

/// Why an argument of `--resource` says no number of a resource.
#[derive(Debug, thiserror::Error)]
enum ResourceError {
    #[error(
        "{0:?} is not a resource: write its kind and how many there are, as in gpu=2; a kind has at most 63 letters, digits and . _ - /"
    )]
    Form(String),
    #[error("'{0}' is not between 1 and {MAX_RESOURCES}")]
    Count(String),
}

fn parse_resource(text: &str) -> Result<(String, u64), ResourceError> {
    let (kind, count) = text
        .split_once('=')
        .filter(|(kind, _)| is_resource_kind(kind))
        .ok_or_else(|| ResourceError::Form(text.to_owned()))?;
    let number = count.parse().ok().filter(|count| (1..=MAX_RESOURCES).contains(count));
    let number = number.ok_or_else(|| ResourceError::Count(count.escape_debug().to_string()))?;
    Ok((kind.to_owned(), number))
}

fn write_pairs<V: Clone + Serialize, S: serde::Serializer>(
    pairs: &[(String, V)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    pairs.iter().cloned().collect::<BTreeMap<_, _>>().serialize(serializer)
}

fn read_pairs<'de, V: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, V)>, D::Error> {
    Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
}

/// Optional values as the text that they are displayed as.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

impl Settings {
    /// Returns the settings that a node's document shows. What it does not show has its default.
    pub(crate) fn shown_in(info: &NodeInfo) -> Self {
        Self {
            name: Some(info.name.clone()),
            role: info.witness.then_some(RoleChoice::Witness),
            runtime: Some(match info.runtime {
                RuntimeKind::Docker => RuntimeChoice::Docker,
                RuntimeKind::Process => RuntimeChoice::Process,
            }),
            labels: info.labels.clone().into_iter().collect(),
            resources: info.generic_resources.clone().into_iter().collect(),
            ..Self::default()
        }
    }

    /// Returns the settings with their names in `unset` at their defaults, and then with what is `given`.
    pub(crate) fn updated(self, unset: &[Setting], given: Self) -> Self {
        let mut kept = self;
        for setting in unset {
            match setting {
                Setting::Name => kept.name = None,
                Setting::Listen => kept.listen = None,
                Setting::Port => kept.port = None,
                Setting::Advertise => kept.advertise = None,
                Setting::Role => kept.role = None,
                Setting::Runtime => kept.runtime = None,
                Setting::DockerHost => kept.docker_host = None,
                Setting::NetworkPool => kept.network_pool = None,
                Setting::Label => kept.labels.clear(),
                Setting::Resource => kept.resources.clear(),
                Setting::Cpus => kept.cpus = None,
                Setting::Memory => kept.memory = None,
                Setting::VolumeBandwidth => kept.volume_bandwidth = None,
                Setting::Metrics => kept.metrics = None,
                Setting::BackupDir => kept.backup_dir = None,
                Setting::BackupCredentialsFile => kept.backup_credentials_file = None,
                Setting::BackupPassphraseFile => kept.backup_passphrase_file = None,
                Setting::BackupEvery => kept.backup_every = None,
                Setting::BackupKeep => kept.backup_keep = None,
                Setting::BackupMaxAge => kept.backup_max_age = None,
                Setting::BackupVolumes => kept.backup_volumes = false,
                Setting::AllowNotifyCommands => kept.allow_notify_commands = false,
                Setting::NoRemoteUpgrade => kept.no_remote_upgrade = false,
                Setting::NoMdns => kept.no_mdns = false,
                Setting::NoConsole => kept.no_console = false,
            }
        }
        Self {
            name: given.name.or(kept.name),
            listen: given.listen.or(kept.listen),
            port: given.port.or(kept.port),
            advertise: given.advertise.or(kept.advertise),
            role: given.role.or(kept.role),
            runtime: given.runtime.or(kept.runtime),
            docker_host: given.docker_host.or(kept.docker_host),
            network_pool: given.network_pool.or(kept.network_pool),
            labels: if given.labels.is_empty() { kept.labels } else { given.labels },
            resources: if given.resources.is_empty() { kept.resources } else { given.resources },
            cpus: given.cpus.or(kept.cpus),
            memory: given.memory.or(kept.memory),
            volume_bandwidth: given.volume_bandwidth.or(kept.volume_bandwidth),
            metrics: given.metrics.or(kept.metrics),
            backup_dir: given.backup_dir.or(kept.backup_dir),
            backup_credentials_file: given.backup_credentials_file.or(kept.backup_credentials_file),
            backup_passphrase_file: given.backup_passphrase_file.or(kept.backup_passphrase_file),
            backup_every: given.backup_every.or(kept.backup_every),
            backup_keep: given.backup_keep.or(kept.backup_keep),
            backup_max_age: given.backup_max_age.or(kept.backup_max_age),
            backup_volumes: given.backup_volumes || kept.backup_volumes,
            allow_notify_commands: given.allow_notify_commands || kept.allow_notify_commands,
            no_remote_upgrade: given.no_remote_upgrade || kept.no_remote_upgrade,
            no_mdns: given.no_mdns || kept.no_mdns,
            no_console: given.no_console || kept.no_console,
            unknown: kept.unknown,
        }
    }

    /// Returns the address to listen on.
    pub(crate) fn listen(&self) -> IpAddr {
        self.listen.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    /// Returns the TCP and QUIC port.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }

    /// Returns the addresses at which clients on this host and elsewhere reach the node, as far as the settings say them.
    pub(crate) fn own_addresses(&self) -> Vec<Multiaddr> {
        let listen = match self.listen() {
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        let ips = self.advertise.into_iter().chain([listen]);
        ips.map(|ip| Multiaddr::from(ip).with(Protocol::Tcp(self.port()))).collect()
    }

    /// Returns the runtime of the services; a witness, which runs none, needs no Docker.
    pub(crate) fn runtime(&self) -> RuntimeChoice {
        match self.is_witness() {
            true => RuntimeChoice::Process,
            false => self.runtime.unwrap_or(RuntimeChoice::Docker),
        }
    }

    /// Returns whether the node votes and runs nothing.
    pub(crate) fn is_witness(&self) -> bool {
        self.role == Some(RoleChoice::Witness)
    }

    /// Checks that a node with this certificate, or with the one that a token gives it, can have the role.
    pub(crate) fn check_role(&self, of: NodeRole) -> Result<(), RoleError> {
        match (self.role, of) {
            (Some(RoleChoice::Witness), NodeRole::Worker) => Err(RoleError::NeedsServer("witness")),
            (Some(RoleChoice::Server), NodeRole::Worker) => Err(RoleError::NeedsServer("server")),
            (Some(RoleChoice::Worker), NodeRole::Server) => Err(RoleError::NeedsWorker),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &[&str]) -> Vec<(String, String)> {
        text.iter().map(|text| parse_label(text).expect("a label")).collect()
    }

    #[test]
    fn labels_with_control_characters_are_refused() {
        for text in ["a\nb=c", "a=b\u{1b}[2J", "a=\u{9b}2J", "a=b\r"] {
            let refused = parse_label(text).expect_err("a control character").to_string();
            assert!(!refused.contains(char::is_control), "{refused:?}");
        }
    }

    #[test]
    fn resources_have_a_kind_and_a_number() {
        assert_eq!(parse_resource("nvidia.com/gpu=2").ok(), Some(("nvidia.com/gpu".into(), 2)));
        for text in ["gpu", "=1", "gpu=", "gpu=0", "gpu=-1", "a b=1", "gpu=1000001", "g\n=1"] {
            let refused = parse_resource(text).expect_err(text).to_string();
            assert!(!refused.contains(char::is_control), "{refused:?}");
        }
    }

    #[test]
    fn what_is_given_replaces_what_is_remembered_and_the_rest_stays() {
        let remembered = Settings {
            port: Some(5000),
            cpus: Some(1500),
            labels: labels(&["disk=ssd", "zone=a"]),
            no_mdns: true,
            ..Settings::default()
        };
        assert_eq!(remembered.clone().updated(&[], Settings::default()), remembered);
        let given =
            Settings { port: Some(6000), labels: labels(&["zone=b"]), ..Settings::default() };
        let unset = [Setting::Cpus, Setting::NoMdns];
        let expected =
            Settings { port: Some(6000), labels: labels(&["zone=b"]), ..Settings::default() };
        assert_eq!(remembered.updated(&unset, given), expected);
    }
}
