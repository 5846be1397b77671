//! Forwarding of clients' connections and sockets to instances.

use tokio::net::{TcpStream, UdpSocket};
use vc_protocol::ServiceKey;
use vc_protocol::spec::ProxyProtocol;

use super::limits::MAX_CONNECTIONS;
use super::load_balancer::Scope;
use super::proxy_protocol::send_header;
use super::router::Router;
use super::splice::Direction;
use super::upstream::{self, TcpUpstream};
use super::{splice, udp};
use crate::dns::{Admit, ServiceRouter};

impl Router {
    /// Forwards a TCP connection to a port of an instance of a service; returns when it is closed. The client is reset
    /// when no instance accepts within [`CONNECT_DEADLINE`](super::CONNECT_DEADLINE).
    pub async fn serve(&self, client: TcpStream, service: ServiceKey, port: u16) {
        self.forward(client, service, port, Scope::Cluster, None).await;
    }

    /// Forwards the datagrams of a UDP socket to a port of instances of a service, and their answers back, for as long
    /// as the future is polled. A client address keeps its instance while that is available; datagrams of an address
    /// that `admit` rejects are dropped.
    pub async fn serve_udp(&self, socket: UdpSocket, service: ServiceKey, port: u16, admit: Admit) {
        udp::serve(self.clone(), socket, service, port, Scope::Cluster, Some(admit)).await;
    }

    pub(super) async fn forward(
        &self,
        client: TcpStream,
        service: ServiceKey,
        port: u16,
        scope: Scope,
        proxy_protocol: Option<ProxyProtocol>,
    ) {
        let restart = &self.inner.restart;
        let _open = restart.connection();
        let Ok(_permit) = self.inner.permits.try_acquire() else {
            tracing::debug!(%service, limit = MAX_CONNECTIONS, "connection limit reached, client reset");
            return splice::reset(client);
        };
        upstream::set_options(&client);
        // Boxed, so that the state of connecting is freed before the connection is spliced.
        let route = Box::pin(self.connect::<TcpUpstream>(&service, port, scope)).await;
        let traffic = self.inner.traffic.of(&service);
        drop(service);
        let Some(mut route) = route else { return splice::reset(client) };
        if let Some(version) = proxy_protocol
            && Box::pin(send_header(version, &client, &mut route.upstream)).await.is_err()
        {
            return splice::reset(client);
        }
        match route.upstream {
            TcpUpstream::Local(instance) => {
                let detached = splice::tcp(client, instance, restart.detaching(), traffic).await;
                if let Some(connection) = detached {
                    restart.detached(connection);
                }
            }
            TcpUpstream::Remote(stream) => {
                let _stream = restart.stream();
                let down = self.node_down(&route.endpoint);
                let (bandwidth, from) = (&self.inner.bandwidth, Direction::From);
                let traffic = Some(traffic);
                splice::records(client, stream, from, down, restart, bandwidth, traffic).await;
            }
        }
    }
}

impl ServiceRouter for Router {
    async fn tcp(&self, stream: TcpStream, service: ServiceKey, port: u16) {
        self.serve(stream, service, port).await;
    }

    async fn udp(&self, socket: UdpSocket, service: ServiceKey, port: u16, admit: Admit) {
        self.serve_udp(socket, service, port, admit).await;
    }
}
