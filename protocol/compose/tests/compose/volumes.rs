//! `volumes` and `tmpfs`.

use vc_protocol::spec::{FileKind, Mount};

use crate::{all_refused, beside};

const TOP: &str =
    "volumes: {data: , more: {driver: local, labels: {a: b}, name: more, external: false}}";
const PIN: &str = "deploy: {placement: {constraints: [node.name == attic]}}";

fn mounts(lines: &str) -> Vec<Mount> {
    beside(TOP, lines).unwrap().services[0].spec.container.mounts.clone()
}

fn volume(name: &str, target: &str, read_only: bool) -> Mount {
    Mount::volume(name.parse().unwrap(), target, read_only)
}

#[test]
fn volumes_and_tmpfs_are_read() {
    assert_eq!(
        mounts("volumes: ['data:/a/', 'more:/b:ro', /c, 'more:/d:rw,cached']"),
        [
            volume("data", "/a", false),
            volume("more", "/b", true),
            Mount::Anonymous { target: "/c".to_owned() },
            volume("more", "/d", false),
        ]
    );
    let long = "volumes:\n  - {type: volume, source: data, target: /a, read_only: true, volume: {nocopy: false}}\n  \
                - {type: volume, target: /b}\n  - {type: tmpfs, target: /c, tmpfs: {size: 64m}}\n  - {type: tmpfs, target: /d}";
    let memory = |target: &str, bytes| Mount::Tmpfs { target: target.to_owned(), bytes };
    let anonymous = Mount::Anonymous { target: "/b".to_owned() };
    assert_eq!(
        mounts(long),
        [volume("data", "/a", true), anonymous, memory("/c", 64 << 20), memory("/d", 0)]
    );
    assert_eq!(mounts("tmpfs: /run"), [memory("/run", 0)]);
    assert_eq!(
        mounts("tmpfs: ['/run:size=1m,mode=1777,noexec', /tmp]"),
        [memory("/run", 1 << 20), memory("/tmp", 0)]
    );
}

#[test]
fn a_bind_mount_of_a_file_ships_the_file() {
    let lines = "volumes:\n  - ./a.conf:/etc/a.conf:ro\n  - ~/b.conf:/etc/b.conf\n  - {type: bind, source: c.conf, target: /etc/c.conf}\n  \
                 - ./a.conf:/etc/again.conf";
    let project = beside("", lines).unwrap();
    let container = &project.services[0].spec.container;
    assert_eq!(container.mounts, []);
    let files: Vec<_> = (container.files.iter())
        .map(|it| (it.file.name.as_str(), it.target.as_str(), it.mode, it.version.as_str()))
        .collect();
    assert_eq!(
        files,
        [
            ("./a.conf", "/etc/a.conf", 0o640, ""),
            ("~/b.conf", "/etc/b.conf", 0o640, ""),
            ("./c.conf", "/etc/c.conf", 0o640, ""),
            ("./a.conf", "/etc/again.conf", 0o640, ""),
        ]
    );
    assert!(container.files.iter().all(|it| it.file.kind == FileKind::Config));
    let contents: Vec<_> = (project.files.iter())
        .map(|it| {
            (it.file.name.as_str(), data_encoding::BASE64.decode(it.base64.as_bytes()).unwrap())
        })
        .collect();
    // The test's disk gives back the path that was opened.
    assert_eq!(
        contents,
        [
            ("./a.conf", b"./a.conf".to_vec()),
            ("./c.conf", b"c.conf".to_vec()),
            ("~/b.conf", b"/home/ann/b.conf".to_vec()),
        ],
        "each once"
    );
}

fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.to_owned(), read_only }
}

#[test]
fn the_root_of_the_host_is_mounted_as_monitoring_does_it() {
    let lines = "volumes: ['/:/host:ro,rslave', {type: bind, source: /, target: /rootfs, read_only: true, bind: {propagation: slave}}]";
    let project = beside("", lines).unwrap();
    let root = |target: &str| Mount::Bind {
        source: "/".to_owned(),
        target: target.to_owned(),
        read_only: true,
    };
    assert_eq!(project.services[0].spec.container.mounts, [root("/host"), root("/rootfs")]);
    let warning = "the propagation slave of mounts has no effect: what a host mounts later is not seen in containers that run";
    assert_eq!(project.warnings, [warning]);
    assert!(project.services[0].spec.validate().is_ok());
}

#[test]
fn a_pinned_service_may_bind_mount_host_paths() {
    let lines = "volumes:\n  - /var/run/docker.sock:/var/run/docker.sock\n  - {type: bind, source: /etc/passwd, target: /p, read_only: true, bind: {create_host_path: false}}\n  \
                 - ./a.conf:/a.conf";
    let project = beside("", &format!("{lines}\n{PIN}")).unwrap();
    let container = &project.services[0].spec.container;
    assert_eq!(
        container.mounts,
        [
            bind("/var/run/docker.sock", "/var/run/docker.sock", false),
            bind("/etc/passwd", "/p", true)
        ]
    );
    assert_eq!(container.files[0].file.name, "./a.conf", "a relative path is the operator's");
}

#[test]
fn paths_of_the_system_are_those_of_the_node_that_runs_the_service() {
    assert_eq!(
        mounts("volumes: ['/var/run/docker.sock:/s', '/proc:/host/proc:ro', '/dev/missing:/d']"),
        [
            bind("/var/run/docker.sock", "/s", false),
            bind("/proc", "/host/proc", true),
            bind("/dev/missing", "/d", false)
        ]
    );
    assert_eq!(mounts("volumes: ['/etc:/e', '/tmp/.X11-unix:/x']")[0], bind("/etc", "/e", false));
    assert!(matches!(mounts("volumes: ['/devices:/d']")[0], Mount::Volume { .. }));
}

#[test]
fn a_service_names_paths_of_the_node_that_runs_it() {
    let lines = "volumes: ['/mnt/media/films:/f:ro', '/mnt/media2:/g', '/mnt/./list.txt:/l']\nx-vc: {host_paths: [/mnt/media/, /mnt/list.txt]}";
    let mounts = mounts(lines);
    assert_eq!(mounts[0], bind("/mnt/media/films", "/f", true));
    assert!(matches!(mounts[1], Mount::Volume { .. }), "not below the other");
    assert_eq!(mounts[2], bind("/mnt/./list.txt", "/l", false), "although it is a file here");
    all_refused(&[(
        "x-vc: {host_paths: [mnt]}",
        "services.s.x-vc.host_paths[0]: 'mnt' is not an absolute path: begin it with /",
    )]);
}

#[test]
fn invalid_mounts_are_refused() {
    all_refused(&[
        (
            "volumes: ['data:/data']",
            "services.s.volumes[0] names the volume 'data', which is not declared: write volumes: {data: } at the top",
        ),
        (
            "volumes: ['a/b:/data']",
            "services.s.volumes[0]: 'a/b' is not a volume: write ./a/b for a path",
        ),
        (
            "volumes: ['$NOWHERE:/data']",
            "services.s.volumes[0]: ':/data' has no source: name a volume or a path",
        ),
        (
            "volumes: ['data:data']",
            "services.s.volumes[0]: 'data' is not an absolute path: begin it with /",
        ),
        ("volumes: ['data:/']", "services.s.volumes[0]: '/' is the root: name a path below it"),
        (
            "volumes: ['data:/a/../b']",
            "services.s.volumes[0]: '/a/../b' climbs with ..: write the path itself",
        ),
        (
            "volumes: ['a:/b:ro:x']",
            "services.s.volumes[0]: 'a:/b:ro:x' is not a mount: write source:/target or source:/target:ro",
        ),
        ("volumes: ['a:/b:rx']", "services.s.volumes[0]: 'rx' is not supported: write ro or rw"),
        (
            "volumes: [/a, /a/]",
            "services.s.volumes[1] is mounted at /a, as services.s.volumes[0] is",
        ),
        (
            "volumes: [/a]\ntmpfs: [/a]",
            "services.s.tmpfs[0] is mounted at /a, as services.s.volumes[0] is",
        ),
        (
            "volumes: [{target: /a}]",
            "services.s.volumes[0] has no type: write volume, bind or tmpfs",
        ),
        (
            "volumes: [{type: npipe, target: /a}]",
            "services.s.volumes[0].type: 'npipe' is not supported: write volume, bind or tmpfs",
        ),
        ("volumes: [{type: volume}]", "services.s.volumes[0] has no target: name the path inside"),
        (
            "volumes: [{type: bind, target: /a}]",
            "services.s.volumes[0] has no source: name the path",
        ),
        (
            "volumes: [{type: tmpfs, target: /a, volume: {nocopy: true}}]",
            "services.s.volumes[0].volume is not an option of a tmpfs",
        ),
        (
            "volumes: [{type: volume, target: /a, volume: {nocopy: true}}]",
            "services.s.volumes[0] has no source: name the volume",
        ),
        (
            "volumes: [{type: volume, source: data, target: /a, volume: {subpath: ../b}}]",
            "services.s.volumes[0].volume.subpath: '../b' climbs with ..: write the path itself; \
             services.s.volumes[0].source names the volume 'data', which is not declared: write volumes: {data: } at the top",
        ),
        (
            "volumes: [{type: bind, source: /srv/a, target: /a, bind: {propagation: rshared}}]",
            "services.s.volumes[0].bind.propagation: 'rshared' is not supported: mounts stay in the container; leave it out",
        ),
        (
            "volumes: [{type: tmpfs, target: /a, tmpfs: {mode: 0700}}]",
            "services.s.volumes[0].tmpfs.mode is not supported: the mode is always 1777",
        ),
        ("tmpfs: '/a:uid=5'", "services.s.tmpfs: 'uid=5' is not supported: write size=64m"),
    ]);
}
