//! HTTP requests and WebSockets from clients to the instances of a service: [`vc_protocol::http`].
//!
//! Each exchange has its own stream and its own connection to an instance. Connections are not pooled: opening one is cheap
//! next to the client's round trip.

mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod headers;
mod socket;

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use vc_engine::routes::Published;
use vc_protocol::ServiceKey;
use vc_protocol::spec::{Port, PortProtocol};

use crate::auth::User;
use crate::proxy::Router;
use crate::proxy::instance_stream::InstanceConnection;
use crate::snapshot::Snapshot;
use error::FetchError;

/// Longest time that an instance may take nothing of what it is sent. While bytes are pending, a client that has closed its
/// stream goes unnoticed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a write to an instance. Errors: it has not completed within `limit`.
async fn write_within<T>(limit: Duration, write: impl Future<Output = T>) -> io::Result<T> {
    timeout(limit, write).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, "the instance does not read what it is sent")
    })
}

/// Sends clients' requests to instances. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    router: Router,
    snapshot: watch::Receiver<Snapshot>,
}

impl Http {
    pub(crate) fn new(router: Router, snapshot: watch::Receiver<Snapshot>) -> Self {
        Self { router, snapshot }
    }

    /// Connects to an instance of a service at one of its published ports.
    async fn open(
        &self,
        user: &User,
        service: &str,
        port: Option<u16>,
    ) -> Result<(ServiceKey, InstanceConnection), FetchError> {
        let key = {
            let view = Arc::clone(&self.snapshot.borrow().view);
            vc_engine::find_service(&view.cluster, service)?
        };
        let published: Vec<Published> = {
            let table = self.router.table();
            let routes = table.borrow();
            let of_service = |it: &&Published| it.service == key;
            routes.ports.values().flatten().filter(of_service).cloned().collect()
        };
        let target = target(&key, &published, port)?;
        match self.router.open(&key, &target, user.ip()).await {
            Some(mut connection) => {
                // It is over values that the user may not see.
                if !user.rights.may_see_values() {
                    connection.endpoint.instance.digest.clear();
                }
                Ok((key, connection))
            }
            None => {
                let table = self.router.table();
                let is_unhealthy =
                    table.borrow().services.get(&key).is_some_and(|it| it.is_unhealthy);
                Err(match is_unhealthy {
                    true => FetchError::Unhealthy(key),
                    false => FetchError::NoInstance(key),
                })
            }
        }
    }
}

/// Returns the published port `port`, or the only one. Ports that are published on a
/// loopback address are not reachable from other hosts, and not from here either.
fn target(
    service: &ServiceKey,
    published: &[Published],
    port: Option<u16>,
) -> Result<Port, FetchError> {
    let reachable = |it: &&Published| {
        it.port.protocol == PortProtocol::Tcp
            && !it.port.host_ip.is_some_and(|ip| ip.to_canonical().is_loopback())
    };
    let ports: Vec<_> = published.iter().filter(reachable).map(|it| &it.port).collect();
    let list =
        || ports.iter().map(|port| port.published.to_string()).collect::<Vec<_>>().join(", ");
    let service = || service.clone();
    match (ports.as_slice(), port) {
        ([], _) => Err(FetchError::NoPort(service())),
        ([only], None) => Ok((*only).clone()),
        (_, None) => Err(FetchError::SeveralPorts { service: service(), ports: list() }),
        (_, Some(port)) => {
            let found = ports.iter().find(|it| it.published == port).map(|&it| it.clone());
            found.ok_or_else(|| FetchError::NotPublished {
                service: service(),
                port,
                ports: list(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::ApiError;
    use vc_protocol::spec::Publish;

    use super::*;

    fn published(number: u16, protocol: PortProtocol, host_ip: Option<&str>) -> Published {
        let port = Port {
            host_ip: host_ip.map(|ip| ip.parse().expect("an ip")),
            published: number,
            target: number - 8000,
            protocol,
            publish: Publish::default(),
            proxy_protocol: None,
        };
        Published { service: key(), port }
    }

    fn key() -> ServiceKey {
        "shop/web".parse().expect("a service")
    }

    #[test]
    fn a_published_port_maps_to_the_instances_port() {
        let ports =
            [published(8080, PortProtocol::Tcp, None), published(8443, PortProtocol::Tcp, None)];
        let target = |ports: &[Published], port| target(&key(), ports, port).map(|it| it.target);
        assert_eq!(target(&ports, Some(8443)).ok(), Some(443));
        assert_eq!(target(&ports[..1], None).ok(), Some(80));
        let refused = target(&ports, None).expect_err("several");
        let refused = ApiError::from(refused).to_string();
        assert!(refused.contains("8080, 8443"), "{refused}");
        let refused = target(&ports, Some(22)).expect_err("not published").to_string();
        assert!(refused.contains("22") && refused.contains("8080"), "{refused}");
    }

    #[test]
    fn loopback_and_udp_ports_are_not_reachable() {
        let local = published(8080, PortProtocol::Tcp, Some("127.0.0.1"));
        let mapped = published(8080, PortProtocol::Tcp, Some("::ffff:127.0.0.1"));
        let udp = published(8053, PortProtocol::Udp, None);
        for ports in [vec![], vec![local], vec![mapped], vec![udp]] {
            assert!(target(&key(), &ports, None).is_err(), "{ports:?}");
            assert!(target(&key(), &ports, Some(8080)).is_err(), "{ports:?}");
        }
    }
}
