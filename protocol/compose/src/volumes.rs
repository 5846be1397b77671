//! Volumes, bind mounts and tmpfs.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::directories::{self, Kind};
use super::files::MissingContent;
use super::model::Service;
use super::names;
use super::problem::Problem;
use super::target::{Targets, absolute};
use super::top::Top;
use super::walk::At;
use super::yaml::Node;
use vc_protocol::spec::{FileMount, Mount};
use vc_protocol::volume::VolumeSpec;
use vc_protocol::{Name, parse_memory};

/// Which paths of a service are those of the node that runs it.
pub(super) struct HostPaths<'a> {
    /// Whether the service runs on one node only, so that all absolute paths are.
    pub(super) pinned: bool,
    /// `x-vc.host_paths`.
    pub(super) own: &'a [String],
}

/// Reads the mounts of one service.
pub(super) struct Reader<'r, 'a> {
    /// What the file declares.
    pub(super) top: &'r Top<'a>,
    pub(super) hosts: HostPaths<'r>,
    /// The targets in use.
    pub(super) targets: &'r mut Targets,
    /// The mounts read so far.
    pub(super) mounts: Vec<Mount>,
    /// The shipped files read so far.
    pub(super) shipped: Vec<FileMount>,
    /// The paths of the node that are made if they are missing.
    pub(super) created: BTreeSet<String>,
}

/// How a path or a volume is mounted.
#[derive(Default)]
struct Options<'a> {
    read_only: bool,
    nocopy: bool,
    subpath: Option<String>,
    /// `bind.create_host_path`.
    create: Option<bool>,
    /// `x-vc` of the mount.
    extension: Option<At<'a>>,
}

/// Directories and files that every Linux host has for itself.
const OF_HOST: [&str; 13] = [
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
    "/tmp",
];

/// Directories that are of a host as a whole, and below which anything may be.
const ROOTS: [&str; 12] = [
    "/", "/etc", "/var", "/var/lib", "/home", "/root", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
    "/opt",
];

/// Returns whether a path is one that every host has for itself.
pub(super) fn is_of_host(path: &str) -> bool {
    let path = directories::normal(path);
    ROOTS.contains(&path.as_str()) || OF_HOST.iter().any(|of| is_in(&path, of))
}

/// Returns whether a path is `root` or below it.
fn is_in(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Writes how the volumes of each service are kept into its spec, as far as the file says it.
pub(super) fn say_how_kept(services: &mut [Service], top: &Top<'_>) {
    for Service { deployment, .. } in services {
        let names: BTreeSet<Name> = deployment.spec.volumes().cloned().collect();
        let spec =
            |name: &Name| top.volumes.get(name).cloned().or_else(|| top.directories.spec(name));
        let said = names.into_iter().filter_map(|name| {
            let spec = spec(&name).filter(|spec| *spec != VolumeSpec::default())?;
            Some((name, spec))
        });
        deployment.spec.volumes = said.collect();
    }
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
        let Some(options) = self.short_options(at, options) else { return };
        let Some(target) = absolute(target, None).map_err(|why| at.invalid(why)).ok() else {
            return;
        };
        match source {
            None => self.add(at, Mount::Anonymous { target }),
            Some("") => at.invalid(format!("'{text}' has no source: name a volume or a path")),
            Some(path) if path.starts_with(['.', '/', '~']) => self.bind(at, path, target, options),
            Some(name) if name.contains('/') => {
                at.invalid(format!("'{name}' is not a volume: write ./{name} for a path"));
            }
            Some(name) => self.volume(at, name, target, options),
        }
    }

    /// Parses the options of a short item.
    fn short_options<'a>(&self, at: &At<'a>, text: &str) -> Option<Options<'a>> {
        let mut options = Options::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => options.read_only = true,
                // The default of Docker, and what has no effect on Linux.
                "rw" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
                "slave" | "rslave" => at.walk.warn(PROPAGATION.to_owned()),
                "nocopy" => options.nocopy = true,
                "z" | "Z" => at.walk.warn(SELINUX.to_owned()),
                _ => {
                    at.invalid(format!("'{option}' is not supported: write ro or rw"));
                    return None;
                }
            }
        }
        Some(options)
    }

    fn long(&mut self, at: &At<'_>) {
        let mut fields = at.fields();
        let [kind, source, target, read_only, extension] =
            ["type", "source", "target", "read_only", "x-vc"].map(|key| fields.take(key));
        // Without effect in Docker on Linux.
        fields.take("consistency");
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
        if let Some(at) = extension.as_ref().filter(|_| kind != "bind") {
            at.refuse("is of a directory: write it at the volume's declaration");
        }
        let Some(target) = target else {
            return at.refuse("has no target: name the path inside");
        };
        let Some(target) = target.read(|text| absolute(text, None)) else { return };
        let source = source.and_then(|at| at.text().map(|text| (at, text)));
        let options = Options { read_only, extension, ..Options::default() };
        match (kind, source) {
            ("tmpfs", None) if !read_only => {
                let bytes = tmpfs.map(|at| size(&at)).unwrap_or_default();
                self.add(at, Mount::Tmpfs { target, bytes });
            }
            ("tmpfs", None) => at.refuse("is memory that cannot be written: leave read_only out"),
            ("tmpfs", Some((at, _))) => at.refuse("is not supported: memory has no source"),
            ("volume", source) => {
                let options = volume.map_or(options, |at| volume_options(&at));
                let options = Options { read_only, ..options };
                let is_plain = !read_only && !options.nocopy && options.subpath.is_none();
                match source {
                    Some((source, name)) => self.volume(&source, name, target, options),
                    None if is_plain => self.add(at, Mount::Anonymous { target }),
                    None => at.refuse("has no source: name the volume"),
                }
            }
            (_, Some((_, path))) => {
                let create = bind.and_then(|at| bind_options(&at));
                self.bind(at, path, target, Options { create, ..options });
            }
            (_, None) => at.refuse("has no source: name the path"),
        }
    }

    fn volume(&mut self, at: &At<'_>, name: &str, target: String, options: Options<'_>) {
        match names::parse(name) {
            Ok(name) if self.top.volumes.contains_key(&name) => {
                let Options { read_only, nocopy, subpath, .. } = options;
                self.add(at, Mount::Volume { name, target, read_only, nocopy, subpath });
            }
            Ok(name) => at.refuse(format!(
                "names the volume '{name}', which is not declared: write volumes: {{{name}: }} at the top"
            )),
            Err(why) => at.invalid(why),
        }
    }

    /// Reads a path. A regular file of the operator's computer is shipped. Paths of the system, such as a socket in `/run`, and those
    /// that the service names are those of the node that runs the instance. Any other is a directory, which is a volume.
    fn bind(&mut self, at: &At<'_>, path: &str, target: String, options: Options<'_>) {
        let is_absolute = path.starts_with('/');
        let normal = directories::normal(path);
        let is_own = self.hosts.own.iter().any(|own| is_in(&normal, own));
        if is_absolute && (self.hosts.pinned || is_own) {
            // A file that is missing is not made a directory, nor what every host has.
            let is_made = self.hosts.pinned && options.create != Some(false);
            if is_made && !looks_like_file(&normal) && !is_of_host(path) {
                self.created.insert(path.to_owned());
            }
            return self.host_path(at, path, target, &options);
        }
        match self.top.files.ship(path, &target) {
            Ok(mount) => {
                if let Some(at) = options.extension {
                    at.refuse("is of a directory, and this is a file: leave it out");
                }
                self.targets.take(at, &mount.target);
                self.shipped.push(mount);
            }
            // Each node has its own.
            Err(
                MissingContent::Directory | MissingContent::Other | MissingContent::Unreadable(_),
            ) if is_of_host(path) => self.host_path(at, path, target, &options),
            // What a volume begins with.
            Err(MissingContent::TooLarge) if !is_absolute => {
                self.path_volume(at, path, Kind::File, target, &options);
            }
            // The nodes may have it as well.
            Err(why @ MissingContent::TooLarge) => at.invalid(format!(
                "{}: write the path relative to the Compose file, or, for that of the nodes, x-vc: {{host_paths: [{path}]}}",
                why.of(path)
            )),
            Err(why @ MissingContent::NoHome) => at.invalid(why.of(path)),
            Err(MissingContent::Unreadable(error))
                if !is_absolute
                    && error.kind() == ErrorKind::NotFound
                    && options.create != Some(false) =>
            {
                if looks_like_file(&normal) {
                    at.warn(format!("mounts '{path}', which does not exist here: as with Compose it becomes a directory"));
                }
                self.directory(at, path, target, &options);
            }
            Err(why @ MissingContent::Other) if !is_absolute => at.invalid(format!(
                "{}: name the path of the nodes, from / on, also in x-vc: {{host_paths: [/PATH]}}",
                why.of(path)
            )),
            Err(why @ MissingContent::Unreadable(_)) if !is_absolute => at.invalid(why.of(path)),
            // What is at an absolute path only the nodes know.
            Err(_) => self.directory(at, path, target, &options),
        }
    }

    /// Mounts a path of the node that runs the instance.
    fn host_path(&mut self, at: &At<'_>, path: &str, target: String, options: &Options<'_>) {
        if let Some(at) = &options.extension {
            at.refuse("is of a directory that is a volume, and this is the path of the node: leave it out");
        }
        let source = path.to_owned();
        self.add(at, Mount::Bind { source, target, read_only: options.read_only });
    }

    /// Mounts a directory, which is a volume. As in Docker, it does not get what the image has there.
    fn directory(&mut self, at: &At<'_>, path: &str, target: String, options: &Options<'_>) {
        let kind = Kind::Directory { must_exist: options.create == Some(false) };
        self.path_volume(at, path, kind, target, options);
    }

    /// Mounts the volume that begins with what is at a path: a directory, or a file that is too large for a config.
    fn path_volume(
        &mut self,
        at: &At<'_>,
        path: &str,
        kind: Kind,
        target: String,
        options: &Options<'_>,
    ) {
        let (extension, declared) = (options.extension.as_ref(), &self.top.volumes);
        let name = self.top.directories.volume(at, path, extension, kind, declared);
        let subpath = match kind {
            Kind::Directory { .. } => None,
            Kind::File => directories::normal(path).rsplit('/').next().map(str::to_owned),
        };
        if let Some(name) = name {
            let read_only = options.read_only;
            self.add(at, Mount::Volume { name, target, read_only, nocopy: true, subpath });
        }
    }

    fn add(&mut self, at: &At<'_>, mount: Mount) {
        self.targets.take(at, mount.target());
        self.mounts.push(mount);
    }
}

const PROPAGATION: &str = "the propagation slave of mounts has no effect: what a host mounts later is not seen in containers that run";
const SELINUX: &str =
    "the options z and Z of volumes have no effect: nodes do not label files for SELinux";

/// Returns whether a path names a file rather than a directory, as people name them: with an extension.
fn looks_like_file(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.trim_start_matches('.').contains('.'))
}

/// Reads `volume: {nocopy, subpath}` of a long item.
fn volume_options<'a>(at: &At<'a>) -> Options<'a> {
    let mut fields = at.fields();
    let nocopy = fields.take("nocopy").and_then(|at| at.bool()).unwrap_or_default();
    let subpath = fields.take("subpath").and_then(|at| at.read(inside));
    fields.finish(&[]);
    Options { nocopy, subpath, ..Options::default() }
}

/// Parses a path inside a volume.
fn inside(text: &str) -> Result<String, Problem> {
    if text.starts_with('/') {
        return Err(Problem::new(format!(
            "'{text}' is relative to the volume: begin it without /"
        )));
    }
    Ok(absolute(text, Some(""))?.trim_start_matches('/').to_owned())
}

/// Reads `bind: {create_host_path, propagation, selinux}` of a long item. Returns the first.
fn bind_options(at: &At<'_>) -> Option<bool> {
    let mut fields = at.fields();
    let create = fields.take("create_host_path").and_then(|at| at.bool());
    if let Some(at) = fields.take("propagation") {
        match at.text() {
            None | Some("private" | "rprivate") => {}
            Some("slave" | "rslave") => at.walk.warn(PROPAGATION.to_owned()),
            Some(other) => at.invalid(format!(
                "'{other}' is not supported: mounts stay in the container; leave it out"
            )),
        }
    }
    if fields.take("selinux").is_some() {
        at.walk.warn(SELINUX.to_owned());
    }
    fields.finish(&[]);
    create
}

/// Reads `tmpfs: {size}` of a long item, bytes.
fn size(at: &At<'_>) -> u64 {
    let mut fields = at.fields();
    let size = fields.take("size").and_then(|at| at.read(parse_memory));
    fields.finish(&[("mode", " is not supported: the mode is always 1777")]);
    size.unwrap_or_default()
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
