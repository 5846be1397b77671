//! The interface to the service proxy, which forwards connections and datagrams to the instances of a service.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::{TcpStream, UdpSocket};
use vc_protocol::ServiceKey;

/// Returns whether datagrams from an address are forwarded.
pub type Admit = Arc<dyn Fn(IpAddr) -> BoxFuture<'static, bool> + Send + Sync>;

/// Forwards connections and datagrams to the instances of a service.
pub trait ServiceRouter: Clone + Send + Sync + 'static {
    /// Forwards a connection to a port of an instance; completes when it is closed.
    fn tcp(
        &self,
        stream: TcpStream,
        service: ServiceKey,
        port: u16,
    ) -> impl Future<Output = ()> + Send;

    /// Forwards the datagrams of a socket to a port of instances, and their answers back; never completes. Datagrams
    /// from an address that is not admitted are dropped.
    fn udp(
        &self,
        socket: UdpSocket,
        service: ServiceKey,
        port: u16,
        admit: Admit,
    ) -> impl Future<Output = ()> + Send;
}
