//! One service of a Compose file.

use std::collections::BTreeMap;
use std::io;

use super::walk::{At, Fields};
use super::yaml::Node;
use super::{deploy, duration, env_file, ports, words};
use crate::spec::{
    ContainerSpec, Dependency, Deployment, Healthcheck, MAX_SPEC_BYTES, OnPartition, ServiceSpec,
};
use crate::{Name, ServiceKey};

/// Why some keys are refused; they continue the path.
const REFUSED: [(&str, &str); 9] = [
    ("build", " is not supported: build the image first and name it with image:"),
    ("configs", " is not supported yet"),
    ("container_name", " is not supported: the cluster names the containers"),
    ("extends", " is not supported: write the service out, or use a YAML anchor"),
    ("networks", " is not supported yet"),
    ("profiles", " is not supported: keep what is deployed together in one file"),
    ("secrets", " is not supported yet"),
    ("stop_signal", " is not supported yet: instances are stopped with SIGTERM"),
    ("volumes", ": volumes are not supported yet"),
];

/// Reads the service at `at`.
pub(super) fn read(key: ServiceKey, at: &At<'_>) -> Deployment {
    let mut fields = if *at.node == Node::Null { Fields::none() } else { at.fields() };
    let image = fields.take("image");
    if image.is_none() && !fields.has("build") {
        at.refuse("has no image: name one with image:");
    }
    let deploy = deploy::take(&mut fields);
    let mut container = ContainerSpec {
        image: image.and_then(|at| at.read(reference)).unwrap_or_default(),
        command: fields.take("command").map(|at| command(&at)),
        entrypoint: fields.take("entrypoint").map(|at| command(&at)),
        environment: environment(fields.take("env_file"), fields.take("environment")),
        labels: fields.take("labels").map(|at| labels(&at)).unwrap_or_default(),
        healthcheck: fields.take("healthcheck").and_then(|at| healthcheck(&at)),
        reservation: deploy.reservation,
        limit: deploy.limit,
        platform: fields.take("platform").and_then(|at| at.read(deploy::platform)),
        restart: deploy.restart,
        working_dir: fields.take("working_dir").and_then(|at| at.text()).map(str::to_owned),
        user: fields.take("user").and_then(|at| at.text()).map(str::to_owned),
        stop_grace_ms: DEFAULT_GRACE_MS,
        ..ContainerSpec::default()
    };
    let ports = fields.take("ports").map(|at| ports::read(&at)).unwrap_or_default();
    if let Some(grace) = fields.take("stop_grace_period").and_then(|at| at.read(duration::parse)) {
        container.stop_grace_ms = grace;
    }
    let depends_on = fields.take("depends_on").map(|at| depends_on(&at)).unwrap_or_default();
    let on_partition = fields.take("x-vc").map(|at| on_partition(&at)).unwrap_or_default();
    fields.finish(&REFUSED);

    let spec = ServiceSpec {
        container,
        constraints: deploy.constraints,
        depends_on,
        on_partition,
        ports,
        ..ServiceSpec::default()
    };
    let size = serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC_BYTES {
        at.refuse(format!("has {size} bytes, more than {MAX_SPEC_BYTES}"));
    }
    Deployment { service: key, replicas: deploy.replicas, spec }
}

/// Docker's default, as in [`ContainerSpec`].
const DEFAULT_GRACE_MS: u64 = 10_000;

fn reference(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or_else(|| format!("'{text}' is no image reference"))
}

/// `command` or `entrypoint`: a list as it is, a text in words. An empty one clears what the image says.
fn command(at: &At<'_>) -> Vec<String> {
    match at.node {
        Node::Text(text) => words::split(text).map_err(|why| at.refuse(why)).unwrap_or_default(),
        _ => at.texts(),
    }
}

/// The `key: value` or `- key=value` entries at `at`; the value is `None` when only the key is there.
fn pairs<'a>(at: &At<'a>) -> Vec<(String, Option<String>, At<'a>)> {
    let mut pairs = Vec::new();
    if let Node::List(_) = at.node {
        for item in at.items() {
            let Some(text) = item.text() else { continue };
            let (key, value) = text
                .split_once('=')
                .map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
            pairs.push((key.to_owned(), value, item));
        }
    } else {
        for (key, value) in at.entries() {
            match value.node {
                Node::Text(text) => pairs.push((key.to_owned(), Some(text.clone()), value)),
                Node::Null => pairs.push((key.to_owned(), None, value)),
                Node::List(_) | Node::Map(_) => value.refuse("must be a text"),
            }
        }
    }
    pairs.retain(|(key, _, at)| {
        let fits = !(key.is_empty() || key.contains(['=', '\0']));
        if !fits {
            at.refuse("has no key: write KEY=value");
        }
        fits
    });
    pairs
}

fn environment(files: Option<At<'_>>, values: Option<At<'_>>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if let Some(at) = files {
        let items = if let Node::List(_) = at.node { at.items() } else { vec![at] };
        items.iter().for_each(|item| environment.extend(from_file(item)));
    }
    for (key, value, at) in values.map(|at| pairs(&at)).unwrap_or_default() {
        match value.or_else(|| at.walk.context.env.get(&key).cloned()) {
            Some(value) => drop(environment.insert(key, value)),
            None => drop(environment.remove(&key)),
        }
    }
    environment
}

/// The variables of an env file: a path, or `{path, required}`.
fn from_file(at: &At<'_>) -> BTreeMap<String, String> {
    let (path, required) = if let Node::Map(_) = at.node {
        let mut fields = at.fields();
        let path = fields.take("path");
        let required = fields.take("required").and_then(|at| at.bool());
        fields.finish(&[]);
        if path.is_none() {
            at.refuse("has no path");
        }
        (path.and_then(|at| at.text()), required.unwrap_or(true))
    } else {
        (at.text(), true)
    };
    let Some(path) = path else { return BTreeMap::new() };
    let text = match (at.walk.context.read)(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
            return BTreeMap::new();
        }
        Err(error) => {
            at.invalid(format!("cannot read '{path}': {error}"));
            return BTreeMap::new();
        }
    };
    match env_file::read(&text, at.walk.context.env) {
        Ok((found, unset)) => {
            at.walk.unset.borrow_mut().extend(unset);
            found
        }
        Err(why) => {
            at.invalid(format!("'{path}' {why}"));
            BTreeMap::new()
        }
    }
}

fn labels(at: &At<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value, at) in pairs(at) {
        if key.starts_with("vc.") {
            at.refuse("is reserved: labels that begin with vc. are the cluster's");
        }
        labels.insert(key, value.unwrap_or_default());
    }
    labels
}

fn healthcheck(at: &At<'_>) -> Option<Healthcheck> {
    let mut fields = at.fields();
    let (test, disable) =
        (fields.take("test"), fields.take("disable").and_then(|at| at.bool()).unwrap_or_default());
    // Docker takes zero for "as the image says".
    let mut time =
        |key| fields.take(key).and_then(|at| at.read(duration::parse)).filter(|&ms| ms > 0);
    let (interval_ms, timeout_ms, start_period_ms) =
        (time("interval"), time("timeout"), time("start_period"));
    let retries = fields.take("retries").and_then(|at| at.number()).filter(|&n| n > 0);
    fields.finish(&[("start_interval", " is not supported yet: interval counts from the start")]);
    let test = match test {
        Some(test) if disable => {
            test.refuse("and disable are both there: keep one");
            return None;
        }
        Some(test) => check(&test),
        None if disable => vec!["NONE".to_owned()],
        None => {
            at.refuse("has no test: write the command that checks");
            return None;
        }
    };
    Some(Healthcheck { test, interval_ms, timeout_ms, retries, start_period_ms })
}

/// `test`: a text for the shell, or a list that says who runs it.
fn check(at: &At<'_>) -> Vec<String> {
    if let Node::Text(_) = at.node {
        return at
            .text()
            .map(|text| vec!["CMD-SHELL".to_owned(), text.to_owned()])
            .unwrap_or_default();
    }
    let test = at.texts();
    match (test.first().map(String::as_str), test.len()) {
        (Some("NONE"), 1) | (Some("CMD-SHELL"), 2) | (Some("CMD"), 2..) => {}
        _ => at
            .refuse("must begin with CMD and a program, or be [\"CMD-SHELL\", text] or [\"NONE\"]"),
    }
    test
}

fn depends_on(at: &At<'_>) -> BTreeMap<Name, Dependency> {
    let mut found = BTreeMap::new();
    if let Node::List(_) = at.node {
        let names = at.items().into_iter().filter_map(|item| item.read(str::parse));
        return names.map(|name| (name, Dependency::ServiceStarted)).collect();
    }
    for (name, at) in at.entries() {
        let Ok(name) = name.parse().map_err(|why: crate::IdError| at.invalid(why)) else {
            continue;
        };
        let mut fields = at.fields();
        let condition = match fields.take("condition") {
            None => {
                at.refuse("has no condition: write service_started or service_healthy");
                None
            }
            Some(at) => at.read(|text| match text {
                "service_started" => Ok(Dependency::ServiceStarted),
                "service_healthy" => Ok(Dependency::ServiceHealthy),
                _ => Err(format!(
                    "'{text}' is not supported: write service_started or service_healthy"
                )),
            }),
        };
        if let Some(at) = fields.take("required").filter(|at| at.bool() == Some(false)) {
            at.invalid("false is not supported: name what must run, or leave it out");
        }
        if let Some(at) = fields.take("restart").filter(|at| at.bool() == Some(true)) {
            at.invalid("true is not supported yet");
        }
        fields.finish(&[]);
        found.insert(name, condition.unwrap_or_default());
    }
    found
}

/// `x-vc`: what Compose has no word for.
fn on_partition(at: &At<'_>) -> OnPartition {
    let mut fields = at.fields();
    if let Some(at) = fields.take("on_partition") {
        match at.text() {
            None | Some("available") => {}
            Some("exclusive") => at.invalid("exclusive is not supported yet"),
            Some(other) => at.invalid(format!("'{other}' is not known: write available")),
        }
    }
    fields.finish(&[]);
    OnPartition::Available
}
