//! What a container's query reaches, without sockets: for fuzz targets.

use std::collections::BTreeMap;

use hickory_proto::op::ResponseCode;
use vc_engine::routes::{Routes, ServiceRoutes};
use vc_protocol::{Name, NetworkKey};

use super::answer::{self, Response};
use super::table::{Querier, Table};

/// Returns the answer to a query of a container in a project with one service, `api` with the alias `store.internal`.
///
/// # Panics
/// A query is treated in two ways.
#[expect(clippy::expect_used, reason = "a fuzz target")]
pub fn answer_query(query: &[u8]) -> Option<Vec<u8>> {
    let name = |text: &str| text.parse::<Name>().expect("a name");
    let network = |project| NetworkKey::Project(name(project), name("default"));
    let mut routes = Routes::default();
    for (project, service) in [("shop", "shop/api"), ("blog", "blog/wiki")] {
        let networks = BTreeMap::from([(network(project), ["store.internal".to_owned()].into())]);
        let service_routes = ServiceRoutes { networks, ..ServiceRoutes::default() };
        routes.services.insert(service.parse().expect("a service"), service_routes);
    }
    let querier =
        Querier { networks: [network("shop")].into(), is_isolated: false, dns: Vec::new() };
    let table = Table::default().next(&routes);
    answer::is_single_label(query);
    let refused = answer::refuse(query, ResponseCode::ServFail);
    match answer::answer(query, &querier, &table) {
        Response::Answer(answer) => {
            // Of a query that cannot be parsed, the answer is a header with FORMERR.
            assert!(refused.is_some() || (answer.len(), answer[3]) == (12, 1));
            Some(answer)
        }
        Response::Forward => {
            assert!(refused.is_some());
            None
        }
        Response::Ignore => None,
    }
}
