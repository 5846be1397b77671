//! How volumes are kept: `volumes:` at the top of a file, and `x-vc` of a volume or of a directory that is one.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::target::absolute;
use super::volumes::is_of_host;
use super::walk::{At, Fields};
use super::yaml::Node;
use super::{declared, duration, environment, names, networks, service};
use vc_protocol::spec::validate::{FILE_SYSTEMS, MAX_KEPT};
use vc_protocol::volume::{DriverOptions, Hooks, Keep, MAX_REPLICAS, OnLoss, Origin, VolumeSpec};
use vc_protocol::{Name, parse_memory};

/// Reads `volumes:` at the top.
pub(super) fn declared(at: Option<&At<'_>>) -> BTreeMap<Name, VolumeSpec> {
    let mut found = BTreeMap::new();
    for (key, at) in at.map(At::entries).unwrap_or_default() {
        let name = names::parse(key).map_err(|why| at.invalid(why)).ok();
        if name.as_ref().is_some_and(|name| found.contains_key(name)) {
            at.refuse(networks::TWICE);
        }
        let spec = if *at.node == Node::Null { VolumeSpec::default() } else { volume(key, &at) };
        found.extend(name.map(|name| (name, spec)));
    }
    found
}

fn volume(key: &str, at: &At<'_>) -> VolumeSpec {
    let mut fields = at.fields();
    if let Some(at) = fields.take("driver")
        && let Some(other) = at.text().filter(|it| *it != "local")
    {
        at.invalid(format!(
            "'{other}' is not supported: leave it out, or mount a network file system with driver: local and driver_opts"
        ));
    }
    let named = fields.take("name").and_then(|at| at.text());
    // Labels are checked and otherwise unused.
    fields.take("labels").map(|at| environment::labels(&at));
    let (external, old_name) = declared::external(&mut fields);
    let name = named.or_else(|| old_name?.text()).unwrap_or(key);
    if external {
        at.warn(format!(
            "is not looked for in Docker: a volume is the project's own, and empty at first. What Docker has as '{name}' stays there: \
             copy it into an instance with 'vc cp'"
        ));
    } else if name != key {
        at.warn(format!(
            "has the name '{key}' in the project: services of other projects that write '{name}' do not share it"
        ));
    }
    let options = fields.take("driver_opts").and_then(|at| driver_options(&at));
    let mut spec = fields.take("x-vc").map(|at| read(at.fields())).unwrap_or_default();
    fields.finish(&[]);
    match options {
        Some(Options::Directory(path)) => {
            spec.origin = Some(Origin::Directory { path, node: None, must_exist: true });
        }
        Some(Options::FileSystem(options)) => {
            if spec != VolumeSpec::default() {
                at.refuse("has x-vc, but a network file system is not copied: leave x-vc out");
            }
            spec.driver = Some(options);
        }
        None => {}
    }
    spec
}

/// What the options of Docker's `local` driver mount.
enum Options {
    /// A directory of the host.
    Directory(String),
    FileSystem(DriverOptions),
}

/// Reads `driver_opts`. Docker takes them without a type for a plain volume.
fn driver_options(at: &At<'_>) -> Option<Options> {
    let mut fields = at.fields();
    let [kind, options, device] = ["type", "o", "device"].map(|key| fields.take(key));
    fields.finish(&[("size", " is not supported: write x-vc: {size: 20G}")]);
    let text =
        |at: Option<At<'_>>| at.and_then(|at| at.text().map(str::to_owned)).unwrap_or_default();
    let (kind, options) = (text(kind), text(options));
    if kind.is_empty() && device.is_none() {
        return None;
    }
    let Some(device) = device else {
        at.refuse("has no device: write what to mount, as in ':/export'");
        return None;
    };
    if options.split(',').any(|it| matches!(it, "bind" | "rbind")) {
        if device.text()?.starts_with('.') {
            device.invalid("is relative: mount the directory in the services, as in ./data:/data");
            return None;
        }
        let path = device.read(|text| absolute(text, None))?;
        if is_of_host(&path) {
            device.invalid(format!("'{path}' is of each host: mount the path in the services"));
        }
        return Some(Options::Directory(path));
    }
    if !FILE_SYSTEMS.contains(&kind.as_str()) {
        at.invalid(format!(
            "the type '{kind}' is not supported: write one of {}, or type: none with o: bind for a directory",
            FILE_SYSTEMS.join(", ")
        ));
        return None;
    }
    let device = device.text()?.to_owned();
    Some(Options::FileSystem(DriverOptions { kind, device, options }))
}

/// Reads `x-vc` of a volume.
pub(super) fn read(mut fields: Fields<'_>) -> VolumeSpec {
    let spec = VolumeSpec {
        replicas: fields.take("replicas").and_then(|at| at.read(replicas)),
        size_bytes: fields.take("size").and_then(|at| at.read(size)).unwrap_or_default(),
        on_loss: fields.take("on_loss").and_then(|at| at.read(on_loss)).unwrap_or_default(),
        lost_after_ms: fields
            .take("lost_after")
            .and_then(|at| at.read(duration::parse))
            .unwrap_or_default(),
        keep: fields.take("keep").map(|at| keep(&at)).unwrap_or_default(),
        hooks: fields.take("hooks").map(|at| hooks(&at)).unwrap_or_default(),
        ..VolumeSpec::default()
    };
    fields.finish(&[]);
    spec
}

fn replicas(text: &str) -> Result<u32, Problem> {
    let count = text.parse().ok().filter(|count| (1..=MAX_REPLICAS).contains(count));
    count.ok_or_else(|| {
        Problem::new(format!("'{text}' is not a number of copies from 1 to {MAX_REPLICAS}"))
    })
}

fn size(text: &str) -> Result<u64, Problem> {
    let bytes = parse_memory(text).ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| Problem::new(format!("'{text}' is not a size: write 20G, 512M or bytes")))
}

fn on_loss(text: &str) -> Result<OnLoss, Problem> {
    match text {
        "latest" => Ok(OnLoss::Latest),
        "wait" => Ok(OnLoss::Wait),
        _ => Err(Problem::new(format!("'{text}' is not known: write latest or wait"))),
    }
}

fn keep(at: &At<'_>) -> Keep {
    let mut fields = at.fields();
    let mut keep = Keep::default();
    for (key, count) in
        [("last", &mut keep.last), ("hourly", &mut keep.hourly), ("daily", &mut keep.daily)]
    {
        let read = fields.take(key).and_then(|at| {
            at.read(|text| {
                let count = text.parse().ok().filter(|count| *count <= MAX_KEPT);
                count.ok_or_else(|| {
                    format!("'{text}' is not a number of snapshots up to {MAX_KEPT}")
                })
            })
        });
        *count = read.unwrap_or(*count);
    }
    fields.finish(&[]);
    keep
}

fn hooks(at: &At<'_>) -> Hooks {
    let mut fields = at.fields();
    let mut command = |key| fields.take(key).map(|at| service::command(&at)).unwrap_or_default();
    let hooks = Hooks { before: command("before"), after: command("after") };
    fields.finish(&[]);
    hooks
}
