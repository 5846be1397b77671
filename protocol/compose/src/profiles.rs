//! `profiles:` of a service.

use super::walk::At;
use super::yaml::Node;

/// Whether a service is enabled: it has no profiles, or `COMPOSE_PROFILES` names one of them or is `*`.
pub(super) fn is_active(service: &At<'_>) -> bool {
    let Node::Map(map) = service.node else { return true };
    let Some(node) = map.get("profiles").filter(|node| **node != Node::Null) else { return true };
    let path = At::key_path(&service.path, "profiles");
    let profiles = At { node, path, walk: service.walk }.texts();
    let on = service.walk.context.env.get("COMPOSE_PROFILES").map_or("", String::as_str);
    let on: Vec<&str> = on.split(',').map(str::trim).collect();
    profiles.is_empty() || on.iter().any(|on| *on == "*" || profiles.iter().any(|it| it == on))
}
