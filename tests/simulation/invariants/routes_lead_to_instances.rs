//! At rest all nodes have the same routes: to every available instance, and to running instances only.

use vc_engine::routes::Routes;

use crate::check::{Check, Violation};
use crate::world::World;

/// Checks the routes of all running nodes that read all documents.
pub fn check(world: &World) -> Check {
    let tables: Vec<Routes> =
        world.acting().into_iter().map(|index| Routes::of(&world.engine(index).view())).collect();
    let Some(first) = tables.first() else { return Ok(()) };
    if tables.iter().any(|table| table != first) {
        return Err(Violation("two nodes have different routes".to_owned()));
    }
    for endpoint in first.services.values().flat_map(|routes| &routes.endpoints) {
        let containers = &world.nodes[world.node_of(endpoint.node)].runtime.containers;
        if !containers.get(&endpoint.instance).is_some_and(|it| it.runs()) {
            return Err(Violation(format!(
                "{} is in the routes and does not run",
                endpoint.instance
            )));
        }
    }
    let Some(&index) = world.acting().first() else { return Ok(()) };
    let view = world.engine(index).view();
    for slot in view.plan.placements.keys() {
        let available = |(_, _, claim): (_, _, &vc_protocol::instance::Claim)| {
            claim.available && claim.state.is_running()
        };
        let mut endpoints =
            first.services.get(&slot.service).into_iter().flat_map(|it| &it.endpoints);
        if view.claims_on(slot).any(available) && !endpoints.any(|it| it.instance.slot == *slot) {
            let claims: Vec<_> = view.claims_on(slot).collect();
            return Err(Violation(format!(
                "the routes lack {slot}, which is available: {claims:?}"
            )));
        }
    }
    Ok(())
}
