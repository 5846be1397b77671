//! DNS and service discovery for containers: `http://api:80` reaches service `api` of the same project on whichever
//! nodes its instances run, if the client and the service share one of the project's networks.
//!
//! A service's name resolves to a *virtual IP* that only this node knows (`virtual_ips`). Docker's resolver inside a
//! container forwards other names to [`DNS_SERVER_IP`], a virtual IP too. NAT rules (`nat_rules`) redirect packets to
//! these addresses: queries to the DNS server (`resolver`), connections to the transparent proxy (`transparent_proxy`),
//! which forwards them as the ingress of published ports does, to an available instance. So health, drains and updates
//! apply to every client.
//!
//! A client is identified by its source address, which only a container of this node can have on that bridge (packets
//! with another are dropped)
//! (`container_lookup`); its networks determine the names it can resolve and the services it can reach (`table`).

mod answer;
mod container_lookup;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod nat_rules;
mod resolver;
mod server;
mod service_router;
mod table;
mod transparent_proxy;
mod upstream;
mod virtual_ips;

pub use error::NatError;
pub use server::{Config, DnsServer};
pub use service_router::{Admit, ServiceRouter};
pub use upstream::{RESOLV_CONF, container_servers};
pub use virtual_ips::{DNS_SERVER_IP, VIRTUAL_IPS};
