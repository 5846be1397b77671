//! `build:` of a service: an image that the operator's Docker builds.

use std::collections::BTreeMap;

use super::environment::pairs;
use super::files::{Files, expand_home};
use super::model::Build;
use super::settings;
use super::walk::{At, Fields};
use super::yaml::Node;
use vc_protocol::{ServiceKey, parse_memory};

/// Reads the short form (a context) or the long form. The image is tagged `image`, or `PROJECT-SERVICE:latest` without one.
pub(super) fn read(
    service: &ServiceKey,
    image: Option<&str>,
    at: &At<'_>,
    files: &Files<'_>,
) -> Build {
    let tag = image
        .map_or_else(|| format!("{}-{}:latest", service.project, service.service), str::to_owned);
    let mut build = Build {
        service: service.clone(),
        context: ".".to_owned(),
        dockerfile: None,
        dockerfile_inline: None,
        args: BTreeMap::new(),
        target: None,
        contexts: BTreeMap::new(),
        secrets: BTreeMap::new(),
        options: Vec::new(),
        tag,
    };
    let context = if let Node::Map(_) = at.node {
        let mut fields = at.fields();
        let text = |at: At<'_>| at.text().map(str::to_owned);
        build.dockerfile = fields.take("dockerfile").and_then(text);
        if let Some(at) = fields.take("dockerfile_inline") {
            if build.dockerfile.is_some() {
                at.refuse("and dockerfile are both there: keep one");
            }
            build.dockerfile_inline = text(at);
        }
        for (key, value, at) in fields.take("args").map(|at| pairs(&at)).unwrap_or_default() {
            // Without a value anywhere, the Dockerfile's default applies.
            let value = value.or_else(|| at.walk.context.env.get(&key).cloned());
            build.args.extend(value.map(|value| (key, value)));
        }
        build.target = fields.take("target").and_then(text);
        let context = fields.take("context");
        contexts(&mut fields, &mut build);
        for item in fields.take("secrets").map(|at| at.items()).unwrap_or_default() {
            build.secrets.extend(files.build_secret(&item));
        }
        options(&mut fields, &mut build.options);
        fields.finish(&[("privileged", OWN), ("isolation", " is for Windows: leave it out")]);
        context
    } else {
        Some(at.clone())
    };
    if let Some(at) = context
        && let Some(text) = at.text()
    {
        match expand_home(text, at.walk) {
            Some(path) => build.context = path,
            None => at.invalid("the variable HOME is not set"),
        }
    }
    build
}

const OWN: &str = " is not supported: build the image with your own command, push it with 'vc image push' and write image";

/// Takes `additional_contexts`.
fn contexts(fields: &mut Fields<'_>, build: &mut Build) {
    for (name, value, at) in
        fields.take("additional_contexts").map(|at| pairs(&at)).unwrap_or_default()
    {
        match value.filter(|value| !value.is_empty()) {
            Some(value) if value.starts_with("service:") => {
                at.invalid("the image of another service is not supported: write its tag as docker-image://NAME");
            }
            Some(value) => match expand_home(&value, at.walk) {
                Some(value) => drop(build.contexts.insert(name, value)),
                None => at.invalid("the variable HOME is not set"),
            },
            None => at.refuse("has no value: write name=./path"),
        }
    }
}

/// Takes what `docker build` has options for.
fn options(fields: &mut Fields<'_>, found: &mut Vec<(&'static str, String)>) {
    for (key, option) in [("network", "network"), ("provenance", "provenance"), ("sbom", "sbom")] {
        let text = fields.take(key).and_then(|at| at.text());
        found.extend(text.map(|text| (option, text.to_owned())));
    }
    for (key, option) in [("no_cache", "no-cache"), ("pull", "pull")] {
        let is_set = fields.take(key).and_then(|at| at.bool()) == Some(true);
        found.extend(is_set.then(|| (option, "true".to_owned())));
    }
    for (key, option) in [
        ("cache_from", "cache-from"),
        ("cache_to", "cache-to"),
        ("tags", "tag"),
        ("entitlements", "allow"),
        ("no_cache_filter", "no-cache-filter"),
    ] {
        let items = fields.take(key).map(|at| at.one_or_many()).unwrap_or_default();
        found.extend(items.iter().filter_map(|at| Some((option, at.text()?.to_owned()))));
    }
    for (id, path, at) in fields.take("ssh").map(|at| pairs(&at)).unwrap_or_default() {
        match path.filter(|path| !path.is_empty()).map(|path| expand_home(&path, at.walk)) {
            None => found.push(("ssh", id)),
            Some(Some(path)) => found.push(("ssh", format!("{id}={path}"))),
            Some(None) => at.invalid("the variable HOME is not set"),
        }
    }
    let shm = fields.take("shm_size").and_then(|at| at.read(parse_memory));
    found.extend(shm.map(|bytes| ("shm-size", bytes.to_string())));
    for (key, value, _) in fields.take("labels").map(|at| pairs(&at)).unwrap_or_default() {
        found.push(("label", format!("{key}={}", value.unwrap_or_default())));
    }
    let hosts = fields.take("extra_hosts").map(|at| settings::extra_hosts(&at)).unwrap_or_default();
    found.extend(hosts.into_iter().map(|host| ("add-host", host)));
    let limits = fields.take("ulimits").map(|at| settings::ulimits(&at)).unwrap_or_default();
    found.extend(
        limits.into_iter().map(|(name, (soft, hard))| ("ulimit", format!("{name}={soft}:{hard}"))),
    );
    if let Some(at) = fields.take("platforms") {
        match &at.texts()[..] {
            [one] => found.push(("platform", one.clone())),
            _ => at.refuse("must be one: a deployment runs the image that was built here"),
        }
    }
}
