//! Why a mutation is refused.

use vc_crdt::{DocumentError, FileKey};
use vc_protocol::lease::MAX_VOTERS;
use vc_protocol::spec::{MAX_REPLICAS, MAX_SPEC_BYTES, PolicyError};
use vc_protocol::{ApiError, ErrorCode, Name, ServiceKey, VolumeKey};

use super::files::MAX_DEPLOY_BYTES;
use super::find::FindError;
use super::receivers::MAX_RECEIVERS;

/// Why a mutation is refused; the documents have not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MutationError {
    /// A name matches nothing, or several things.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The deployment has no services.
    #[error("nothing to deploy: the file has no services")]
    NothingToDeploy,
    /// The spec is larger than [`MAX_SPEC_BYTES`].
    #[error("the spec of {service} is larger than {MAX_SPEC_BYTES} bytes")]
    SpecTooLarge {
        /// The service.
        service: ServiceKey,
    },
    /// The deployment, with its secrets and configs, does not fit into one change.
    #[error(
        "the deployment has {} KiB with its secrets and configs, more than {}",
        .bytes / 1024,
        MAX_DEPLOY_BYTES / 1024
    )]
    DeploymentTooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The spec mounts a secret or config that is neither in the cluster nor in the request.
    #[error("{service}: the request lacks the content of {}", .file.file)]
    MissingFile {
        /// The service.
        service: ServiceKey,
        /// The secret or config; boxed to keep the type small.
        file: Box<FileKey>,
    },
    /// More replicas than [`MAX_REPLICAS`].
    #[error("{service}: {replicas} replicas are more than {MAX_REPLICAS}")]
    TooManyReplicas {
        /// The service.
        service: ServiceKey,
        /// The number asked for.
        replicas: u32,
    },
    /// Another service publishes the port.
    #[error("port {port} is published by {} already", .by.as_ref().map_or("a service of another project".to_owned(), ToString::to_string))]
    PortTaken {
        /// The port, as `8080/tcp`.
        port: String,
        /// The service that publishes it; `None` if it is of another project, which the user may not see.
        by: Option<ServiceKey>,
        /// The service that asks for it.
        service: ServiceKey,
    },
    /// All nodes have the port for multicast DNS.
    #[error("the nodes have port {port} themselves, for mDNS")]
    PortOfMdns {
        /// The port, as `5353/udp`.
        port: String,
    },
    /// Another node has the name of one that wants to join.
    #[error("the cluster has a node called {name} already: {id}, which is {}", if *.is_up { "up" } else { "down" })]
    NodeNameTaken {
        /// The name.
        name: Name,
        /// The short id of that node.
        id: String,
        /// Whether it is up.
        is_up: bool,
    },
    /// No version before the one in effect did not fail.
    #[error("{service} has no earlier version that did not fail")]
    NoPreviousVersion {
        /// The service.
        service: ServiceKey,
    },
    /// The history has no version with this number.
    #[error("{service} has no version {version}")]
    NoVersion {
        /// The service.
        service: ServiceKey,
        /// The number.
        version: u32,
    },
    /// The version is in effect already.
    #[error("{service} runs version {version} already")]
    VersionInEffect {
        /// The service.
        service: ServiceKey,
        /// The number.
        version: u32,
    },
    /// The cluster does not keep a secret or config that the version mounts.
    #[error("version {version} of {service} cannot run: the content of its {} is no longer kept", .file.file)]
    VersionLacksFile {
        /// The service.
        service: ServiceKey,
        /// Number of the version.
        version: u32,
        /// The secret or config; boxed to keep the type small.
        file: Box<FileKey>,
    },
    /// The node still runs instances.
    #[error("{node} has {}", if *.instances == 1 { "1 instance".to_owned() } else { format!("{} instances", .instances) })]
    NodeHasInstances {
        /// The node's name.
        node: String,
        /// How many it runs.
        instances: usize,
    },
    /// The node holds the data of a volume that a service mounts.
    #[error("{node} holds the data of volume {volume}, which {service} uses")]
    NodeHoldsVolume {
        /// The node's name.
        node: String,
        /// The volume.
        volume: VolumeKey,
        /// A service that mounts it.
        service: ServiceKey,
    },
    /// No node holds data of this volume.
    #[error("no volume '{0}'")]
    NoVolume(VolumeKey),
    /// The volume cannot move to this node.
    #[error("volume {volume} stays where it is: {node} {reason}")]
    VolumeStays {
        /// The volume.
        volume: VolumeKey,
        /// The node's name.
        node: String,
        /// Why, with the node as the subject.
        reason: &'static str,
    },
    /// Services mount the volume.
    #[error("volume {volume} is mounted by {}", .services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    VolumeInUse {
        /// The volume.
        volume: VolumeKey,
        /// The services that mount it, now or after a rollback; at least one.
        services: Vec<ServiceKey>,
    },
    /// No token with this id is listed.
    #[error("no token '{0}'")]
    NoToken(String),
    /// As many nodes have joined with the token as may.
    #[error(
        "the token has been used: it lets {} join",
        if *.uses == 1 { "1 node".to_owned() } else { format!("{} nodes", .uses) }
    )]
    TokenUsed {
        /// How many may.
        uses: u32,
    },
    /// The policy names something that cannot be allowed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy of the project does not allow what is to be denied.
    #[error("{project} is not allowed {words}")]
    NotAllowed {
        /// The project.
        project: Name,
        /// What was to be denied.
        words: String,
    },
    /// No image was pushed under this reference.
    #[error("no image was pushed as {reference}")]
    NoImage {
        /// The canonical reference.
        reference: String,
    },
    /// A service needs the image, or a version that it can return to.
    #[error(
        "the image {reference} is needed by a service, or by an earlier version that it can return to"
    )]
    ImageInUse {
        /// The canonical reference.
        reference: String,
    },
    /// A receiver of alerts has this name.
    #[error("there is a receiver {name} already")]
    ReceiverExists {
        /// Its name.
        name: Name,
    },
    /// No receiver of alerts has this name.
    #[error("there is no receiver {name}")]
    NoReceiver {
        /// The name.
        name: Name,
    },
    /// There are [`MAX_RECEIVERS`].
    #[error("there are {MAX_RECEIVERS} receivers of alerts, and no more are possible")]
    TooManyReceivers,
    /// The revocation would take the last token of an admin that is known.
    #[error("it is the token of this request, and the list has no other token of an admin")]
    LastAdmin,
    /// Not all members know what the change needs.
    #[error("members of an older version of vc-node cannot {0}")]
    OlderMembers(&'static str),
    /// A member would not know where the data of the service is, which slots it has, or where it runs.
    #[error("{service} {what}, and vc-node on {node} does not know that")]
    OlderNode {
        /// The service.
        service: ServiceKey,
        /// What of it; continues its name.
        what: &'static str,
        /// The name of the node.
        node: String,
    },
    /// The service is no job.
    #[error("{service} is no job")]
    NoJob {
        /// The service.
        service: ServiceKey,
    },
    /// The service is no job with a schedule.
    #[error("{service} has no schedule")]
    NoSchedule {
        /// The service.
        service: ServiceKey,
    },
    /// The schedule rests.
    #[error("{service} is scaled to 0")]
    Suspended {
        /// The service.
        service: ServiceKey,
    },
    /// A run is under way, and the service forbids another one beside it.
    #[error("a run of {service} is under way, and it says overlap: forbid")]
    RunUnderWay {
        /// The service.
        service: ServiceKey,
    },
    /// No such run is under way.
    #[error("no such run of {service} is under way")]
    NoRun {
        /// The service.
        service: ServiceKey,
    },
    /// This node may not write its document yet.
    #[error("this node has just started and does not know the cluster yet")]
    NotReady,
    /// The service has a slot for each node.
    #[error("{service} runs on each node that it suits: it cannot be scaled")]
    OnEachNode {
        /// The service.
        service: ServiceKey,
    },
    /// Only servers are voters.
    #[error("{node} is a worker: only servers and witnesses can be voters")]
    CannotVote {
        /// The node's name.
        node: String,
    },
    /// No other server could be a voter.
    #[error("{node} is the last voter, and no other server that is up may be one")]
    LastVoter {
        /// The node's name.
        node: String,
    },
    /// The node is a voter.
    #[error("{node} is a voter")]
    NodeVotes {
        /// The node's name.
        node: String,
    },
    /// More than [`MAX_VOTERS`].
    #[error("a cluster has at most {MAX_VOTERS} voters")]
    TooManyVoters,
    /// No voter is named.
    #[error("no node is named: a cluster has at least one voter")]
    NoVoters,
    /// No majority of the voters that are named is up.
    #[error("{node} is down: of these voters {needed} have to be up")]
    VotersDown {
        /// The name of one that is down.
        node: String,
        /// How many make a majority.
        needed: usize,
    },
    /// Another server has rotated the signing key in the meantime.
    #[error("the signing key was rotated by another server at the same time")]
    RotatedMeanwhile,
    /// This node was removed: what it writes reaches no other node.
    #[error("this node was removed from the cluster")]
    NodeLeft,
    /// Without a certificate of the signing key, no other node would accept what this one writes.
    #[error("this server has no certificate of the present signing key")]
    NotCertified,
    /// The certificates do not fit into one change.
    #[error("the cluster has {nodes} nodes with those that left, too many for one rotation")]
    TooManyNodes {
        /// How many certificates there are.
        nodes: usize,
    },
    /// A newer version wrote the service.
    #[error("{service} {reason}")]
    Held {
        /// The service.
        service: ServiceKey,
        /// What this version does not know.
        reason: String,
    },
    /// The cluster document cannot take the change.
    #[error("cannot write the change into the cluster document: {0}")]
    Document(#[from] DocumentError),
}

impl MutationError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Find(_)
            | Self::NoVolume(_)
            | Self::NoToken(_)
            | Self::NoReceiver { .. }
            | Self::NoImage { .. }
            | Self::NoVersion { .. } => ErrorCode::NotFound,
            Self::NothingToDeploy
            | Self::SpecTooLarge { .. }
            | Self::DeploymentTooLarge { .. }
            | Self::MissingFile { .. }
            | Self::Policy(_)
            | Self::NoVoters
            | Self::TooManyVoters
            | Self::TooManyReplicas { .. } => ErrorCode::InvalidArgument,
            Self::PortTaken { .. }
            | Self::PortOfMdns { .. }
            | Self::NodeNameTaken { .. }
            | Self::NoPreviousVersion { .. }
            | Self::VersionInEffect { .. }
            | Self::VersionLacksFile { .. }
            | Self::NodeHasInstances { .. }
            | Self::NodeHoldsVolume { .. }
            | Self::VolumeInUse { .. }
            | Self::VolumeStays { .. }
            | Self::TokenUsed { .. }
            | Self::NotAllowed { .. }
            | Self::ImageInUse { .. }
            | Self::ReceiverExists { .. }
            | Self::TooManyReceivers
            | Self::LastAdmin
            | Self::CannotVote { .. }
            | Self::LastVoter { .. }
            | Self::NodeVotes { .. }
            | Self::VotersDown { .. }
            | Self::OlderMembers(_)
            | Self::OlderNode { .. }
            | Self::OnEachNode { .. }
            | Self::NoJob { .. }
            | Self::NoSchedule { .. }
            | Self::Suspended { .. }
            | Self::RunUnderWay { .. }
            | Self::NoRun { .. }
            | Self::TooManyNodes { .. } => ErrorCode::FailedPrecondition,
            Self::RotatedMeanwhile => ErrorCode::Aborted,
            Self::NotCertified | Self::NodeLeft | Self::NotReady => ErrorCode::Unavailable,
            Self::Held { .. }
            | Self::Document(DocumentError::Held | DocumentError::Unreadable { .. }) => {
                ErrorCode::FailedPrecondition
            }
            Self::Document(_) => ErrorCode::Internal,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Find(_) | Self::NothingToDeploy | Self::Document(_) | Self::Policy(_) => {
                String::new()
            }
            Self::LastAdmin => "create another with 'vc token create --role admin', or repeat it with --yes: 'vc-node admin-token' on a server writes a new one".to_owned(),
            Self::CannotVote { .. } | Self::TooManyVoters | Self::NoVoters => {
                "see 'vc voters'".to_owned()
            }
            Self::LastVoter { .. } => {
                "add another server or a witness first: 'vc token create --node' makes a token for it".to_owned()
            }
            Self::NodeVotes { node } => format!("run 'vc voters remove {node}' first"),
            Self::VotersDown { .. } => "name nodes that are up; see 'vc voters'".to_owned(),
            Self::NotAllowed { .. } => "see 'vc project ls'".to_owned(),
            Self::NoImage { .. } => "see 'vc image ls'".to_owned(),
            Self::ImageInUse { .. } => {
                "see 'vc image ls' and 'vc history SERVICE'; remove the service first with 'vc rm'".to_owned()
            }
            Self::NoReceiver { .. } => "see 'vc notify ls'".to_owned(),
            Self::ReceiverExists { name } => {
                format!("take another name, or remove it first with 'vc notify rm {name}'")
            }
            Self::TooManyReceivers => "remove one with 'vc notify rm'".to_owned(),
            Self::Held { .. } => {
                "upgrade vc-node on this node, or use a newer node with --peer".to_owned()
            }
            Self::SpecTooLarge { .. } => "move large values into the image".to_owned(),
            Self::DeploymentTooLarge { .. } => "deploy a part of the services first".to_owned(),
            Self::MissingFile { .. } => "deploy it again".to_owned(),
            Self::TooManyReplicas { .. } => format!("ask for at most {MAX_REPLICAS}"),
            Self::PortTaken { service, .. } => format!("publish another port in {service}"),
            Self::PortOfMdns { .. } => {
                "publish another port, or run the nodes with --no-mdns".to_owned()
            }
            Self::NodeNameTaken { id, is_up: false, .. } => format!(
                "join with another --name or, if that one is gone for good, remove it first: 'vc leave {id} --force'"
            ),
            Self::NodeNameTaken { .. } => "join with another --name".to_owned(),
            Self::NoPreviousVersion { service } => {
                format!("see 'vc history {service}', and name a version with --to")
            }
            Self::NoVersion { service, .. } | Self::VersionInEffect { service, .. } => {
                format!("see 'vc history {service}'")
            }
            Self::VersionLacksFile { .. } => "deploy its file again".to_owned(),
            Self::NodeHasInstances { node, .. } => {
                format!("run 'vc drain {node}' first, or leave them behind with --force")
            }
            Self::NodeHoldsVolume { service, .. } => {
                format!("remove {service} first, or lose the data with --force")
            }
            Self::NoVolume(_) | Self::VolumeStays { .. } => "see 'vc volume ls'".to_owned(),
            Self::NoToken(_) => "see 'vc token ls'".to_owned(),
            Self::TokenUsed { .. } => {
                "ask for another, which 'vc token create --node' makes, or for one with --uses"
                    .to_owned()
            }
            Self::OlderMembers(_) => "upgrade vc-node on all nodes; see 'vc nodes'".to_owned(),
            Self::OlderNode { node, .. } => format!("upgrade vc-node on {node}"),
            Self::NoJob { .. } => "see 'vc job ls'".to_owned(),
            Self::NoSchedule { service } => format!("'vc scale {service}=0' stops it"),
            Self::Suspended { service } => format!("'vc scale {service}=1' lets it run"),
            Self::RunUnderWay { service } => format!("see 'vc job history {service}'; 'vc job stop {service}' ends it"),
            Self::NoRun { service } => format!("see 'vc job history {service}'"),
            Self::NotReady => "try again, or use another server with --peer".to_owned(),
            Self::OnEachNode { .. } => "say on which nodes with deploy.placement.constraints, or write mode: replicated".to_owned(),
            Self::RotatedMeanwhile => "see 'vc trust show', and try again".to_owned(),
            Self::NodeLeft => "use another server with --peer".to_owned(),
            Self::NotCertified => "use another server with --peer; see 'vc trust show'".to_owned(),
            Self::TooManyNodes { .. } => String::new(),
            Self::VolumeInUse { services, .. } => match services.first() {
                Some(service) => format!("run 'vc rm {service}' first"),
                None => String::new(),
            },
        }
    }
}

impl From<MutationError> for ApiError {
    fn from(error: MutationError) -> Self {
        match error {
            MutationError::Find(error) => error.into(),
            error => Self::new(error.code(), error.to_string()).with_hint(error.hint()),
        }
    }
}
