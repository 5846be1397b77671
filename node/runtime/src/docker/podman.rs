//! What podman has an API of its own for. It serves Docker's too, in which a network has no name for its bridge and always
//! a DNS server.

use std::collections::HashMap;

use bollard::errors::Error;
use ipnet::Ipv4Net;
use serde::Serialize;

use crate::raw_http::post;

/// podman 4.0 or later.
const CREATE_NETWORK: &str = "/v4.0.0/libpod/networks/create";

#[derive(Serialize)]
struct NetworkRequest<'a> {
    name: &'a str,
    driver: &'a str,
    network_interface: &'a str,
    subnets: [Subnet; 1],
    dns_enabled: bool,
    labels: &'a HashMap<String, String>,
}

#[derive(Serialize)]
struct Subnet {
    subnet: String,
}

/// Creates a bridge network.
pub(super) async fn create_network(
    host: &str,
    name: &str,
    bridge: &str,
    subnet: Ipv4Net,
    labels: &HashMap<String, String>,
) -> Result<(), Error> {
    let request = NetworkRequest {
        name,
        driver: "bridge",
        network_interface: bridge,
        subnets: [Subnet { subnet: subnet.to_string() }],
        dns_enabled: false,
        labels,
    };
    post(host, CREATE_NETWORK, serde_json::to_string(&request)?).await
}
