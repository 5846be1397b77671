//! HTTP and WebSockets between a user and the instances of a service: [`vc_protocol::http`].
//!
//! One exchange a stream, and one connection to an instance an exchange: what opening one costs is little beside the way
//! that the user's bytes have to go, and nothing has to be pooled.

mod fetch;
mod headers;
mod socket;

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use vc_engine::routes::Published;
use vc_protocol::ServiceKey;
use vc_protocol::spec::PortProtocol;

use crate::proxy::Router;
use crate::proxy::instance_stream::InstanceConnection;
use crate::snapshot::Snapshot;

/// An instance that takes nothing of what it is sent for so long is given up, as proxies do: whether the user is still there
/// cannot be seen before what he has sent is taken.
const STUCK: Duration = Duration::from_secs(60);

/// Sends something to an instance. Errors: it takes nothing for so long.
async fn given<T>(patience: Duration, sending: impl Future<Output = T>) -> io::Result<T> {
    timeout(patience, sending).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, "the instance does not take what it is sent")
    })
}

/// Talks to instances for users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    router: Router,
    snapshot: watch::Receiver<Snapshot>,
}

impl Http {
    pub(crate) fn new(router: Router, snapshot: watch::Receiver<Snapshot>) -> Self {
        Self { router, snapshot }
    }

    /// Connects to an instance that answers at a published port. Errors: one line for the user.
    async fn open(
        &self,
        service: &str,
        port: Option<u16>,
    ) -> Result<(ServiceKey, InstanceConnection), String> {
        let key = {
            let view = Arc::clone(&self.snapshot.borrow().view);
            vc_engine::find_service(&view.cluster, service)?
        };
        let published: Vec<Published> = {
            let table = self.router.table();
            let routes = table.borrow();
            let of = |it: &&Published| it.service == key;
            routes.ports.values().flatten().filter(of).cloned().collect()
        };
        let target = target(&key, &published, port)?;
        match self.router.open(&key, target).await {
            Some(opened) => Ok((key, opened)),
            None => Err(format!("no instance of {key} takes a connection; see 'vc ps {key}'")),
        }
    }
}

/// The instances' port behind a published one, or behind the only one.
fn target(service: &ServiceKey, published: &[Published], port: Option<u16>) -> Result<u16, String> {
    let open = |it: &&Published| {
        it.port.protocol == PortProtocol::Tcp
            && !it.port.host_ip.is_some_and(|ip| ip.to_canonical().is_loopback())
    };
    let ports: Vec<_> = published.iter().filter(open).map(|it| &it.port).collect();
    let numbers =
        || ports.iter().map(|port| port.published.to_string()).collect::<Vec<_>>().join(", ");
    match (ports.as_slice(), port) {
        ([], _) => Err(format!(
            "{service} publishes no TCP port to others: give it one with 'ports:' in its Compose file"
        )),
        ([only], None) => Ok(only.target),
        (_, None) => Err(format!("{service} publishes several ports: name one of {}", numbers())),
        (_, Some(port)) => {
            let found = ports.iter().find(|it| it.published == port).map(|it| it.target);
            found
                .ok_or_else(|| format!("{service} does not publish port {port}, but {}", numbers()))
        }
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{Port, Publish};

    use super::*;

    fn published(number: u16, protocol: PortProtocol, host_ip: Option<&str>) -> Published {
        let port = Port {
            host_ip: host_ip.map(|ip| ip.parse().expect("an ip")),
            published: number,
            target: number - 8000,
            protocol,
            publish: Publish::default(),
        };
        Published { service: key(), port }
    }

    fn key() -> ServiceKey {
        "shop/web".parse().expect("a service")
    }

    #[test]
    fn a_published_port_leads_to_that_of_the_instances() {
        let ports =
            [published(8080, PortProtocol::Tcp, None), published(8443, PortProtocol::Tcp, None)];
        assert_eq!(target(&key(), &ports, Some(8443)), Ok(443));
        assert_eq!(target(&key(), &ports[..1], None), Ok(80));
        let refused = target(&key(), &ports, None).expect_err("which?");
        assert!(refused.contains("8080, 8443"), "{refused}");
        let refused = target(&key(), &ports, Some(22)).expect_err("not published");
        assert!(refused.contains("22") && refused.contains("8080"), "{refused}");
    }

    #[test]
    fn what_others_cannot_reach_at_a_node_cannot_be_reached_here_either() {
        let local = published(8080, PortProtocol::Tcp, Some("127.0.0.1"));
        let mapped = published(8080, PortProtocol::Tcp, Some("::ffff:127.0.0.1"));
        let udp = published(8053, PortProtocol::Udp, None);
        for ports in [vec![], vec![local], vec![mapped], vec![udp]] {
            assert!(target(&key(), &ports, None).is_err(), "{ports:?}");
            assert!(target(&key(), &ports, Some(8080)).is_err(), "{ports:?}");
        }
    }
}
