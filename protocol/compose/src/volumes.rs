//! Volumes, bind mounts and tmpfs.

use std::collections::BTreeSet;

use super::files::{Files, MissingContent};
use super::problem::Problem;
use super::target::{Targets, absolute};
use super::walk::At;
use super::yaml::Node;
use vc_protocol::spec::{FileMount, Mount};
use vc_protocol::{Name, parse_memory};

/// How to make a path of a node's host usable.
const PIN: &str = "pin the service to the node that has it with deploy.placement.constraints: [node.name == NAME]";

/// Reads `volumes:` at the top.
pub(super) fn declared(at: Option<&At<'_>>) -> BTreeSet<Name> {
    super::declared::declared(
        at,
        &["local"],
        "volumes are on the node that runs the service: leave it out",
        &[
            ("external", ": a volume is the project's own: declare it without"),
            ("driver_opts", " is not supported: a volume is a directory of its node"),
        ],
    )
}

/// Reads the mounts of one service.
pub(super) struct Reader<'r, 'a> {
    /// The volumes of the project.
    pub(super) declared: &'r BTreeSet<Name>,
    /// The files of the project.
    pub(super) files: &'r Files<'a>,
    /// Whether the service runs on one node only.
    pub(super) pinned: bool,
    /// The targets in use.
    pub(super) targets: &'r mut Targets,
    /// The mounts read so far.
    pub(super) mounts: Vec<Mount>,
    /// The shipped files read so far.
    pub(super) shipped: Vec<FileMount>,
}

/// Directories and files that every Linux host has for itself.
const OF_HOST: [&str; 12] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/etc/localtime",
    "/etc/timezone",
    "/lib/modules",
    "/usr",
    "/boot",
    "/var/log",
    "/var/lib/docker",
];

/// Returns whether a path is one of [`OF_HOST`], or in one.
fn is_of_host(path: &str) -> bool {
    let under = |of: &str| {
        path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    OF_HOST.iter().any(|of| under(of))
}

impl Reader<'_, '_> {
    /// Reads `volumes:` of the service.
    pub(super) fn volumes(&mut self, at: &At<'_>) {
        for item in at.items() {
            match item.node {
                Node::Map(_) => self.long(&item),
                _ => self.short(&item),
            }
        }
    }

    /// Reads `tmpfs:` of the service.
    pub(super) fn tmpfs(&mut self, at: &At<'_>) {
        for item in at.one_or_many() {
            let read = item.read(|text| {
                let (target, options) = text.split_once(':').unwrap_or((text, ""));
                Ok::<_, Problem>((absolute(target, None)?, tmpfs_bytes(options)?))
            });
            if let Some((target, bytes)) = read {
                self.add(&item, Mount::Tmpfs { target, bytes });
            }
        }
    }

    /// Reads `TARGET`, `SOURCE:TARGET` or `SOURCE:TARGET:OPTIONS`.
    fn short(&mut self, at: &At<'_>) {
        let Some(text) = at.text() else { return };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => {
                return at.invalid(format!(
                    "'{text}' is not a mount: write source:/target or source:/target:ro"
                ));
            }
        };
        let Some(read_only) = access(options).map_err(|why| at.invalid(why)).ok() else { return };
        let Some(target) = absolute(target, None).map_err(|why| at.invalid(why)).ok() else {
            return;
        };
        match source {
            None => self.add(at, Mount::Anonymous { target }),
            Some("") => at.invalid(format!("'{text}' has no source: name a volume or a path")),
            Some(path) if path.starts_with(['.', '/', '~']) => {
                self.bind(at, path, target, read_only);
            }
            Some(name) if name.contains('/') => {
                at.invalid(format!("'{name}' is not a volume: write ./{name} for a path"));
            }
            Some(name) => self.volume(at, name, target, read_only),
        }
    }

    fn long(&mut self, at: &At<'_>) {
        let mut fields = at.fields();
        let [kind, source, target, read_only] =
            ["type", "source", "target", "read_only"].map(|key| fields.take(key));
        let [bind, volume, tmpfs] = ["bind", "volume", "tmpfs"].map(|key| fields.take(key));
        fields.finish(&[]);
        let read_only = read_only.as_ref().and_then(At::bool).unwrap_or_default();
        let kind = kind.as_ref().map(|at| (at, at.text().unwrap_or_default()));
        let kind = match kind {
            Some((_, kind @ ("volume" | "bind" | "tmpfs"))) => kind,
            Some((at, other)) => {
                return at
                    .invalid(format!("'{other}' is not supported: write volume, bind or tmpfs"));
            }
            None => return at.refuse("has no type: write volume, bind or tmpfs"),
        };
        for (options, of) in [(&bind, "bind"), (&volume, "volume"), (&tmpfs, "tmpfs")] {
            if let Some(options) = options.as_ref().filter(|_| kind != of) {
                options.refuse(format!("is not an option of a {kind}"));
            }
        }
        let Some(target) = target else {
            return at.refuse("has no target: name the path inside");
        };
        let Some(target) = target.read(|text| absolute(text, None)) else { return };
        let source = source.and_then(|at| at.text().map(|text| (at, text)));
        match (kind, source) {
            ("tmpfs", None) if !read_only => {
                let bytes = tmpfs.map(|at| size(&at)).unwrap_or_default();
                self.add(at, Mount::Tmpfs { target, bytes });
            }
            ("tmpfs", None) => at.refuse("is memory that cannot be written: leave read_only out"),
            ("tmpfs", Some((at, _))) => at.refuse("is not supported: memory has no source"),
            ("volume", source) => {
                refuse_true(volume, &["nocopy"]);
                match source {
                    Some((source, name)) => self.volume(&source, name, target, read_only),
                    None if read_only => at.refuse("has no source: name the volume"),
                    None => self.add(at, Mount::Anonymous { target }),
                }
            }
            (_, Some((_, path))) => {
                refuse_true(bind, &["create_host_path"]);
                self.bind(at, path, target, read_only);
            }
            (_, None) => at.refuse("has no source: name the path"),
        }
    }

    fn volume(&mut self, at: &At<'_>, name: &str, target: String, read_only: bool) {
        match name.parse::<Name>() {
            Ok(name) if self.declared.contains(&name) => {
                self.add(at, Mount::Volume { name, target, read_only });
            }
            Ok(name) => at.refuse(format!(
                "names the volume '{name}', which is not declared: write volumes: {{{name}: }} at the top"
            )),
            Err(why) => at.invalid(why),
        }
    }

    /// Reads a path: on the one host that the service is pinned to, or on the operator's, whose files are shipped. Paths of the
    /// system, such as a socket in `/run`, are those of the node that runs the instance.
    fn bind(&mut self, at: &At<'_>, path: &str, target: String, read_only: bool) {
        if self.pinned && path.starts_with('/') {
            let source = path.to_owned();
            return self.add(at, Mount::Bind { source, target, read_only });
        }
        match self.files.ship(path, &target) {
            Ok(mount) => {
                self.targets.take(at, &mount.target);
                self.shipped.push(mount);
            }
            // Each node has its own.
            Err(
                MissingContent::Directory | MissingContent::Other | MissingContent::Unreadable(_),
            ) if is_of_host(path) => {
                let source = path.to_owned();
                self.add(at, Mount::Bind { source, target, read_only });
            }
            Err(why @ (MissingContent::TooLarge(_) | MissingContent::NoHome)) => {
                at.invalid(why.of(path))
            }
            Err(why) if self.pinned => {
                at.invalid(format!("{}: name the node's path, from / on", why.of(path)));
            }
            Err(why @ MissingContent::Directory) => {
                at.invalid(format!("{}: write a named volume, or {PIN}", why.of(path)));
            }
            Err(why) => at.invalid(format!("{}: {PIN}", why.of(path))),
        }
    }

    fn add(&mut self, at: &At<'_>, mount: Mount) {
        let (Mount::Volume { target, .. }
        | Mount::Anonymous { target }
        | Mount::Bind { target, .. }
        | Mount::Tmpfs { target, .. }) = &mount;
        self.targets.take(at, target);
        self.mounts.push(mount);
    }
}

/// Refuses options that are `true`, and unknown ones.
fn refuse_true(options: Option<At<'_>>, keys: &[&'static str]) {
    let Some(mut fields) = options.map(|at| at.fields()) else { return };
    for key in keys {
        if let Some(at) = fields.take(key).filter(|at| at.bool() == Some(true)) {
            at.invalid(match *key {
                "create_host_path" => {
                    "true is not supported: make the directory on the node ('mkdir -p'), or mount a named volume"
                }
                _ => "true is not supported",
            });
        }
    }
    fields.finish(&[]);
}

/// Reads `tmpfs: {size}` of a long item, bytes.
fn size(at: &At<'_>) -> u64 {
    let mut fields = at.fields();
    let size = fields.take("size").and_then(|at| at.read(parse_memory));
    fields.finish(&[("mode", " is not supported: the mode is always 1777")]);
    size.unwrap_or_default()
}

/// Whether the options of a short item make it read-only.
fn access(options: &str) -> Result<bool, Problem> {
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // The last three have no effect in Docker on Linux.
            "rw" | "cached" | "delegated" | "consistent" => {}
            "z" | "Z" => {
                return Err(Problem::new(format!(
                    "'{option}' is not supported: nothing relabels files for SELinux"
                )));
            }
            _ => return Err(Problem::new(format!("'{option}' is not supported: write ro or rw"))),
        }
    }
    Ok(read_only)
}

/// Returns the size among the options of a short `tmpfs`, bytes; 0: none.
fn tmpfs_bytes(options: &str) -> Result<u64, Problem> {
    let mut bytes = 0;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => bytes = parse_memory(size).map_err(|why| why.to_string())?,
            // Docker's defaults.
            Some(("mode", "1777" | "01777")) => {}
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(Problem::new(format!("'{option}' is not supported: write size=64m"))),
        }
    }
    Ok(bytes)
}
