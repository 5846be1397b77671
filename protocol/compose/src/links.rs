//! `links` of a service, from before there were networks: another name for a service, and a dependency on it.

use super::model::Service;
use super::names;
use super::networks::{self, alias};
use super::problem::Problem;
use super::walk::{At, Walk};
use vc_protocol::Name;
use vc_protocol::spec::Dependency;

/// A link to a service of the same file.
pub(super) struct Link {
    to: Name,
    /// The other name, if it has one.
    alias: Option<String>,
    /// The path of the entry in the file.
    path: String,
}

/// Reads `links`: `SERVICE` or `SERVICE:ALIAS`.
pub(super) fn read(at: &At<'_>) -> Vec<Link> {
    let link = |item: At<'_>| {
        item.read(|text| {
            let (to, name) = text.split_once(':').unwrap_or((text, text));
            let to = names::parse(to).map_err(|why| Problem::new(why.to_string()))?;
            let alias = Some(alias(name)?).filter(|alias| *alias != to.as_str());
            Ok::<_, Problem>(Link { to, alias, path: item.path.clone() })
        })
    };
    at.items().into_iter().filter_map(link).collect()
}

/// Gives the services that are linked to their other names, and lets those that link wait for them.
pub(super) fn apply(services: &mut [Service], walk: &Walk<'_>) {
    for index in 0..services.len() {
        for Link { to, alias, path } in std::mem::take(&mut services[index].links) {
            let is_it = |it: &&mut Service| it.deployment.service.service == to;
            let Some(linked) = services.iter_mut().find(is_it) else {
                walk.refuse(&path, " names no service of the file that is deployed");
                continue;
            };
            if let Some(alias) = alias {
                networks::add_alias(&mut linked.deployment.spec.container, &alias);
            }
            let depends_on = &mut services[index].deployment.spec.depends_on;
            depends_on.entry(to).or_insert(Dependency::ServiceStarted);
        }
    }
}
