//! Limits and timeouts of the proxy.

use std::time::Duration;

/// Limit of connections that this node forwards at once; those over it are reset.
pub const MAX_CONNECTIONS: usize = 16_384;
/// Limit of concurrent streams to one member, and from one.
pub const MAX_STREAMS: usize = 1280;
// Both nodes open streams for connections, and for everything else.
const _: () = assert!(2 * MAX_STREAMS + 512 <= crate::network::MAX_STREAMS);
/// How long an instance on this node may take to accept a connection. Shorter than [`MEMBER_TIMEOUT`], so that a member
/// can answer in time that its instance does not accept.
pub const INSTANCE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long another member may take to answer before the next instance is tried.
pub const MEMBER_TIMEOUT: Duration = Duration::from_millis(700);
/// How long an endpoint that did not answer is ejected: tried after all others.
pub const EJECTION_TIME: Duration = Duration::from_secs(2);
/// How long a connection is held until an instance accepts it; then it is reset.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long a connection is held in addition while a node that has an instance restarts.
pub(super) const RESTART_TIMEOUT: Duration = crate::handover::HOLD_TIMEOUT;
/// Pause between two passes over all instances of a service.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Pause after a failed `accept`, as when file descriptors run out.
pub(super) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
