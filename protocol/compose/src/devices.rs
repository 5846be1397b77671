//! Devices of a service: those of the host, GPUs, and what drivers give.

use std::collections::BTreeMap;

use super::environment::pairs;
use super::problem::Problem;
use super::target::absolute;
use super::walk::{At, Fields};
use super::yaml::Node;
use vc_protocol::spec::validate::{MAX_RESOURCES, is_device_rule, is_resource_kind};
use vc_protocol::spec::{CDI, DeviceRequest, GPU};

/// The devices of a service.
#[derive(Default)]
pub(super) struct Devices {
    /// Devices of the host, as Docker's `host:container:access`.
    pub(super) paths: Vec<String>,
    pub(super) requests: Vec<DeviceRequest>,
    pub(super) rules: Vec<String>,
}

/// Takes `devices`, `device_cgroup_rules` and `gpus` from a service.
pub(super) fn take(service: &mut Fields<'_>) -> Devices {
    let mut found = Devices::default();
    for item in service.take("devices").map(|at| at.items()).unwrap_or_default() {
        found.device(&item);
    }
    let rules = service.take("device_cgroup_rules").map(|at| at.items()).unwrap_or_default();
    found.rules = rules.iter().filter_map(|item| item.read(rule)).collect();
    if let Some(at) = service.take("gpus") {
        match at.node {
            Node::Text(text) if text == "all" => found.requests.push(DeviceRequest {
                count: -1,
                capabilities: vec![GPU.to_owned()],
                ..DeviceRequest::default()
            }),
            Node::List(_) => {
                found.requests.extend(at.items().iter().map(|item| request(item, true)))
            }
            _ => at.refuse("must be all, or a list of {driver, count, device_ids}"),
        }
    }
    found
}

/// Reads `deploy.resources.reservations.devices`.
pub(super) fn reserved(at: &At<'_>) -> Vec<DeviceRequest> {
    at.items().iter().map(|item| request(item, false)).collect()
}

/// Reads `deploy.resources.reservations.generic_resources`: how many of each kind.
pub(super) fn generic(at: &At<'_>) -> BTreeMap<String, u64> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for item in at.items() {
        let mut fields = item.fields();
        let resource = fields.take("discrete_resource_spec");
        fields.finish(&[]);
        let Some(at) = resource else {
            item.refuse("has no discrete_resource_spec: write {kind: gpu, value: 1}");
            continue;
        };
        let mut fields = at.fields();
        let (kind, value) = (fields.take("kind"), fields.take("value"));
        fields.finish(&[]);
        let (Some(kind), Some(value)) = (kind, value) else {
            at.refuse("needs a kind and a value: {kind: gpu, value: 1}");
            continue;
        };
        if let (Some(kind), Some(value)) = (kind.read(resource_kind), value.read(resource_count)) {
            let count = found.entry(kind).or_default();
            *count = count.saturating_add(value).min(MAX_RESOURCES);
        }
    }
    found
}

fn resource_count(text: &str) -> Result<u64, Problem> {
    let count = text.parse().ok().filter(|count| (1..=MAX_RESOURCES).contains(count));
    count.ok_or_else(|| Problem::new(format!("'{text}' is not between 1 and {MAX_RESOURCES}")))
}

fn resource_kind(text: &str) -> Result<String, Problem> {
    match is_resource_kind(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(format!(
            "'{text}' is not a kind: write at most 63 letters, digits and . _ - /"
        ))),
    }
}

fn request(at: &At<'_>, is_gpu: bool) -> DeviceRequest {
    let mut fields = at.fields();
    let count = fields.take("count").and_then(|at| {
        at.read(|text| match text {
            "all" => Ok(-1),
            _ => text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                format!("'{text}' is not a number of devices: write all, or a number from 1")
            }),
        })
    });
    let device_ids = fields.take("device_ids").map(|at| at.texts()).unwrap_or_default();
    let mut capabilities = fields.take("capabilities").map(|at| at.texts()).unwrap_or_default();
    if is_gpu && !capabilities.iter().any(|it| it == GPU) {
        capabilities.push(GPU.to_owned());
    }
    let driver = fields.take("driver").and_then(|at| at.text()).map(str::to_owned);
    let options = fields.take("options").map(|at| pairs(&at)).unwrap_or_default();
    fields.finish(&[]);
    if capabilities.is_empty() {
        at.refuse("has no capabilities: write [gpu], or what the driver knows");
    }
    if count.is_some() && !device_ids.is_empty() {
        at.refuse("has count and device_ids: keep one");
    }
    // Without either it is all of them.
    let count = if device_ids.is_empty() { count.unwrap_or(-1) } else { 0 };
    let options = options.into_iter().map(|(key, value, _)| (key, value.unwrap_or_default()));
    DeviceRequest { driver, count, device_ids, capabilities, options: options.collect() }
}

fn rule(text: &str) -> Result<String, Problem> {
    match is_device_rule(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(format!("'{text}' is not a rule: write one as in 'c 1:3 rwm'"))),
    }
}

impl Devices {
    /// Reads a device: `host[:container[:access]]`, a map, or a name of the Container Device Interface, `vendor/class=name`.
    fn device(&mut self, item: &At<'_>) {
        let (host, inside, access) = if let Node::Map(_) = item.node {
            let mut fields = item.fields();
            let mut text = |key| fields.take(key).and_then(|at| at.text());
            let parts = (text("source"), text("target"), text("permissions"));
            fields.finish(&[]);
            if parts.0.is_none() {
                item.refuse("has no source: name the device of the node");
            }
            parts
        } else {
            let Some(text) = item.text() else { return };
            let mut parts = text.splitn(3, ':');
            (parts.next(), parts.next(), parts.next())
        };
        let Some(host) = host else { return };
        if !host.starts_with('/') && host.contains('/') && host.contains('=') {
            let (driver, device_ids) = (Some(CDI.to_owned()), vec![host.to_owned()]);
            self.requests.push(DeviceRequest { driver, device_ids, ..DeviceRequest::default() });
            return;
        }
        let access = access.unwrap_or("rwm");
        let paths = absolute(host, None).and_then(|host| {
            let inside = inside.map_or_else(|| Ok(host.clone()), |path| absolute(path, None))?;
            Ok((host, inside))
        });
        match paths {
            Ok(_) if access.is_empty() || access.contains(|c| !matches!(c, 'r' | 'w' | 'm')) => {
                item.invalid(format!("'{access}' is not an access mode: write some of r, w and m"));
            }
            Ok((host, inside)) => self.paths.push(format!("{host}:{inside}:{access}")),
            Err(why) => item.invalid(why),
        }
    }
}
