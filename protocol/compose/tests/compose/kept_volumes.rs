//! How volumes are kept, and the directories that are volumes.

use serde_json::{Value, json};
use vc_compose::Upload;
use vc_protocol::spec::Mount;

use crate::{all_refused, beside, parse};

const MOUNT: &str = "volumes: ['v:/data']";

/// Returns `volumes` of the spec of the service that mounts the volume `v`, declared like this.
fn kept(declaration: &str) -> Value {
    let project =
        beside(&format!("volumes: {{v: {declaration}, other: {{x-vc: {{replicas: 3}}}}}}"), MOUNT);
    let spec = project.unwrap().services.remove(0).spec;
    serde_json::to_value(&spec.volumes).unwrap()
}

#[test]
fn what_a_declaration_says_of_a_volume_is_in_each_service_that_mounts_it() {
    let all = "{x-vc: {replicas: 3, size: 20G, on_loss: wait, lost_after: 1h, keep: {last: 5, daily: 0}, hooks: {before: [sh, -c, sync], after: echo a 'b c'}}}";
    let expected = json!({"v": {
        "replicas": 3, "size_bytes": 20_u64 << 30, "on_loss": "wait", "lost_after_ms": 3_600_000, "keep": {"last": 5, "hourly": 24, "daily": 0},
        "hooks": {"before": ["sh", "-c", "sync"], "after": ["echo", "a", "b c"]}
    }});
    assert_eq!(kept(all), expected);
    // A member of before reads the spec of such a service.
    for nothing in [
        "",
        "{}",
        "{driver: local, labels: [a=b], x-vc: {}}",
        "{driver_opts: {}}",
        "{x-vc: {on_loss: latest}}",
    ] {
        assert_eq!(kept(nothing), json!({}), "{nothing}");
    }
    let text = "services: {a: {image: i, volumes: ['v:/a']}, b: {image: i, volumes: ['v:/b:ro']}, c: {image: i}}\nvolumes: {v: {x-vc: {size: 1G}}}";
    let sizes: Vec<usize> =
        parse(text).unwrap().services.iter().map(|it| it.spec.volumes.len()).collect();
    assert_eq!(sizes, [1, 1, 0]);
}

#[test]
fn network_file_systems_are_passed_on() {
    assert_eq!(
        kept(
            "{driver: local, driver_opts: {type: nfs, o: 'addr=10.0.0.5,rw', device: ':/export'}}"
        ),
        json!({"v": {"driver": {"type": "nfs", "device": ":/export", "options": "addr=10.0.0.5,rw"}}})
    );
    assert_eq!(
        kept("{driver_opts: {type: none, o: bind, device: /srv//app/}}"),
        json!({"v": {"origin": {"directory": {"path": "/srv/app", "must_exist": true}}}})
    );
}

#[test]
fn declarations_that_cannot_be_kept_are_refused() {
    for (declaration, refusal) in [
        (
            "{x-vc: {replicas: 0}}",
            "volumes.v.x-vc.replicas: '0' is not a number of copies from 1 to 7",
        ),
        (
            "{x-vc: {replicas: 8}}",
            "volumes.v.x-vc.replicas: '8' is not a number of copies from 1 to 7",
        ),
        (
            "{x-vc: {size: big}}",
            "volumes.v.x-vc.size: 'big' is not a size: write 20G, 512M or bytes",
        ),
        ("{x-vc: {size: 0}}", "volumes.v.x-vc.size: '0' is not a size: write 20G, 512M or bytes"),
        (
            "{x-vc: {on_loss: cry}}",
            "volumes.v.x-vc.on_loss: 'cry' is not known: write latest or wait",
        ),
        (
            "{x-vc: {keep: {last: -1}}}",
            "volumes.v.x-vc.keep.last: '-1' is not a number of snapshots up to 1000",
        ),
        ("{x-vc: {keep: {weekly: 1}}}", "volumes.v.x-vc.keep.weekly is not supported"),
        (
            "{x-vc: {replica: 2}}",
            "volumes.v.x-vc.replica is not supported: did you mean 'replicas'?",
        ),
        (
            "{driver: vieux/sshfs}",
            "volumes.v.driver: 'vieux/sshfs' is not supported: leave it out, or mount a network file system with driver: local \
             and driver_opts",
        ),
        (
            "{driver_opts: {type: ext4, device: /dev/sda1}}",
            "volumes.v.driver_opts: the type 'ext4' is not supported: write one of nfs, nfs4, cifs, smb3, tmpfs, or type: none with \
             o: bind for a directory",
        ),
        (
            "{driver_opts: {type: none, o: bind, device: /etc}}",
            "volumes.v.driver_opts.device: '/etc' is of each host: mount the path in the services",
        ),
        (
            "{driver_opts: {type: nfs, o: addr=a, device: /export}}",
            "services.s: volumes.v: '/export' is not what such a file system mounts: ':/export', '//server/share'",
        ),
        (
            "{driver_opts: {type: nfs, o: 'addr=a, remount', device: ':/e'}}",
            "services.s: volumes.v: 'addr=a, remount' mounts a directory of the host instead of the file system",
        ),
        (
            "{driver_opts: {type: nfs, o: addr=a, device: ':/e'}, x-vc: {replicas: 2}}",
            "volumes.v has x-vc, but a network file system is not copied: leave x-vc out",
        ),
    ] {
        let refused = beside(&format!("volumes: {{v: {declaration}}}"), MOUNT).unwrap_err();
        assert_eq!(refused, refusal);
    }
}

#[test]
fn a_volume_of_elsewhere_is_warned_of() {
    let warnings = |declaration: &str| {
        beside(&format!("volumes: {{v: {declaration}}}"), MOUNT).unwrap().warnings
    };
    let external = warnings("{external: true, name: portainer_data}");
    assert!(
        external[0].contains("What Docker has as 'portainer_data' stays there"),
        "{external:?}"
    );
    assert_eq!(
        warnings("{name: other}"),
        [
            "volumes.v has the name 'v' in the project: services of other projects that write 'other' do not share it"
        ]
    );
}

/// Returns the mounts and `volumes` of the service, each as text, and the uploads.
fn directories(lines: &str) -> (Vec<String>, Value, Vec<Upload>) {
    let mut project = beside("", lines).unwrap();
    let spec = project.services.remove(0).spec;
    let mount = |mount: &Mount| match mount {
        Mount::Volume { name, target, read_only, nocopy: true, subpath: None } => {
            format!("{name}:{target}{}", if *read_only { ":ro" } else { "" })
        }
        other => format!("{other:?}"),
    };
    let mounts = spec.container.mounts.iter().map(mount).collect();
    (mounts, serde_json::to_value(&spec.volumes).unwrap(), project.uploads)
}

#[test]
fn directories_are_volumes_named_after_their_paths() {
    let (mounts, volumes, uploads) = directories(
        "volumes: ['./src:/src', '/srv/app/:/app:ro', '/srv//app:/again', '~/films:/films', {type: bind, source: gone, target: /gone}]",
    );
    let [src, app, films, gone] =
        ["src-41f0756e", "srv-app-e15c8eb9", "films-273b2ee0", "gone-6cc17b58"];
    assert_eq!(
        mounts,
        [
            format!("{src}:/src"),
            format!("{app}:/app:ro"),
            format!("{app}:/again"),
            format!("{films}:/films"),
            format!("{gone}:/gone")
        ]
    );
    assert_eq!(
        volumes,
        json!({
            src: {"origin": {"uploaded": {"path": "./src"}}},
            app: {"origin": {"directory": {"path": "/srv/app"}}},
            films: {"origin": {"uploaded": {"path": "~/films"}}},
            gone: {"origin": {"uploaded": {"path": "./gone"}}},
        })
    );
    let paths: Vec<(&str, String)> =
        uploads.iter().map(|it| (it.path.as_str(), it.volume.to_string())).collect();
    assert_eq!(
        paths,
        [
            ("~/films", format!("my_app2/{films}")),
            ("./gone", format!("my_app2/{gone}")),
            ("./src", format!("my_app2/{src}"))
        ]
    );
}

#[test]
fn a_directory_says_how_it_is_kept_where_it_is_mounted() {
    let lines = "volumes:\n  - {type: bind, source: ./src, target: /a, x-vc: {replicas: 3, ignore: [node_modules, '*.log']}}\n  \
                 - ./src:/b:ro\n  - {type: bind, source: /srv/x, target: /x, bind: {create_host_path: false}}";
    let (_, volumes, uploads) = directories(lines);
    assert_eq!(volumes["src-41f0756e"]["replicas"], 3);
    assert_eq!(volumes["srv-x-c449c377"]["origin"]["directory"]["must_exist"], true);
    assert_eq!(uploads[0].ignore, ["node_modules", "*.log"]);
    all_refused(&[
        (
            "volumes: [{type: bind, source: ./a, target: /a, x-vc: {replicas: 1}}, {type: bind, source: a, target: /b, x-vc: {replicas: 2}}]",
            "services.s.volumes[1] has another x-vc than services.s.volumes[0] for the same directory",
        ),
        (
            "volumes: [{type: bind, source: /srv/a, target: /a, x-vc: {ignore: [b]}}]",
            "services.s.volumes[0] has x-vc.ignore, but a directory of the nodes is not uploaded",
        ),
        (
            "volumes: [{type: bind, source: ./a.conf, target: /a, x-vc: {replicas: 1}}]",
            "services.s.volumes[0].x-vc is of a directory, and this is a file: leave it out",
        ),
        (
            "volumes: [{type: bind, source: /proc, target: /a, x-vc: {replicas: 1}}]",
            "services.s.volumes[0].x-vc is of a directory that is a volume, and this is the path of the node: leave it out",
        ),
        (
            "volumes: [{type: volume, source: v, target: /a, x-vc: {replicas: 1}}]",
            "services.s.volumes[0].x-vc is of a directory: write it at the volume's declaration; services.s.volumes[0].source names \
             the volume 'v', which is not declared: write volumes: {v: } at the top",
        ),
    ]);
}

#[test]
fn a_file_that_is_too_large_for_a_config_is_what_a_volume_begins_with() {
    let (mounts, volumes, uploads) = directories(
        "volumes: [{type: bind, source: large.bin, target: /a, x-vc: {replicas: 3}}, './/large.bin:/b:ro', './full.txt:/c']",
    );
    let name = "large-bin-201b0c0c";
    let mount = |target: &str, read_only| Mount::Volume {
        name: name.parse().unwrap(),
        target: target.to_owned(),
        read_only,
        nocopy: true,
        subpath: Some("large.bin".to_owned()),
    };
    assert_eq!(mounts, [mount("/a", false), mount("/b", true)].map(|it| format!("{it:?}")));
    assert_eq!(
        volumes,
        json!({name: {"replicas": 3, "origin": {"uploaded": {"path": "./large.bin"}}}})
    );
    let uploads: Vec<_> = uploads.iter().map(|it| (it.path.as_str(), it.is_file)).collect();
    assert_eq!(uploads, [("./large.bin", true)]);

    let (mounts, _, uploads) =
        directories("volumes: [./full1:/1, ./full2:/2, ./full3:/3, ./full4:/4, ./full5:/5]");
    assert_eq!(mounts.len(), 1, "each fits into a config, all together do not");
    assert_eq!(uploads[0].path, "./full5");
}

#[test]
fn what_does_not_exist_becomes_a_directory_unless_the_file_says_otherwise() {
    let project = beside("", "volumes: ['./missing.txt:/a']").unwrap();
    assert_eq!(
        project.warnings,
        [
            "services.s.volumes[0] mounts './missing.txt', which does not exist here: as with Compose it becomes a directory"
        ]
    );
    let strict = "volumes: [{type: bind, source: ./missing.txt, target: /a, bind: {create_host_path: false}}]";
    all_refused(&[
        (strict, "services.s.volumes[0]: cannot read './missing.txt': no such file"),
        (
            "volumes: ['./sock:/a']",
            "services.s.volumes[0]: './sock' is not a regular file: name the path of the nodes, from / on, also in x-vc: \
             {host_paths: [/PATH]}",
        ),
    ]);
}

#[test]
fn a_pinned_service_uploads_relative_directories_and_mounts_absolute_ones_of_its_node() {
    let lines = "volumes: ['./src:/src', '/srv/app:/app']\ndeploy: {placement: {constraints: [node.name == attic]}}";
    let (mounts, volumes, _) = directories(lines);
    assert!(mounts[1].starts_with("Bind"), "{mounts:?}");
    assert_eq!(volumes.as_object().unwrap().len(), 1);
}
