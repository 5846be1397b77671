//! `secrets` and `configs`.

use vc_protocol::spec::FileKind;

use crate::{all_refused, beside, parse, parse_with};

const TOP: &str = "secrets: {key: {file: db/key.txt}, token: {environment: TAG}, unused: {file: missing.txt}}\n\
                   configs: {site: {content: 'tag=${TAG}'}, empty: {content: ''}, conf: {file: ./a.conf}}";

#[test]
fn declared_files_are_read_from_their_source_once() {
    let lines = "secrets: [key, {source: token, target: api/token, uid: '70', gid: 71, mode: 0400}, {source: key, target: /elsewhere}]\n\
                 configs: [site, conf, {source: empty, target: etc/empty, mode: '0o644'}]";
    let project = beside(TOP, lines).unwrap();
    let mounts: Vec<String> = (project.services[0].spec.container.files.iter())
        .map(|it| {
            format!(
                "{} {} {}:{} {:o}{}",
                it.file.name, it.target, it.uid, it.gid, it.mode, it.version
            )
        })
        .collect();
    assert_eq!(
        mounts,
        [
            "key /run/secrets/key 0:0 444",
            "token /run/secrets/api/token 70:71 400",
            "key /elsewhere 0:0 444",
            "site /site 0:0 444",
            "conf /conf 0:0 444",
            "empty /etc/empty 0:0 644",
        ]
    );
    let contents: Vec<_> = (project.files.iter())
        .map(|it| {
            let text =
                String::from_utf8(data_encoding::BASE64.decode(it.base64.as_bytes()).unwrap());
            assert_eq!(it.project, project.name);
            (it.file.kind, it.file.name.as_str(), text.unwrap())
        })
        .collect();
    let file = |kind, name, text: &str| (kind, name, text.to_owned());
    assert_eq!(
        contents,
        [
            file(FileKind::Secret, "key", "db/key.txt"),
            file(FileKind::Secret, "token", "v7"),
            file(FileKind::Config, "conf", "./a.conf"),
            file(FileKind::Config, "empty", ""),
            file(FileKind::Config, "site", "tag=v7"),
        ]
    );
    let told = format!("{project:?}");
    assert!(!told.contains(&data_encoding::BASE64.encode(b"v7")), "no content is told: {told}");
}

#[test]
fn file_references_of_services_are_checked() {
    all_refused(&[
        (
            "secrets: [key]",
            "services.s.secrets[0] names 'key', which is not declared: write secrets: {key: {file: …}} at the top",
        ),
        (
            "configs: [{target: /a}]",
            "services.s.configs[0] has no source: name what is declared at the top",
        ),
    ]);
    for (lines, refusal) in [
        (
            "secrets: [{source: key, mode: 440}]",
            "services.s.secrets[0].mode: '440' is not a mode: write it in octal, as in 0440",
        ),
        (
            "secrets: [{source: key, uid: root}]",
            "services.s.secrets[0].uid: 'root' is not an integer in range",
        ),
        (
            "secrets: [{source: key, target: ../x}]",
            "services.s.secrets[0].target: '../x' climbs with ..: write the path itself",
        ),
        (
            "secrets: [key, key]",
            "services.s.secrets[1] is mounted at /run/secrets/key, as services.s.secrets[0] is",
        ),
        ("secrets: [unused]", "secrets.unused.file: cannot read 'missing.txt': no such file"),
        (
            "secrets: [site]",
            "services.s.secrets[0] names 'site', which is not declared: write secrets: {site: {file: …}} at the top",
        ),
    ] {
        assert_eq!(beside(TOP, lines).unwrap_err(), refusal, "{lines}");
    }
}

#[test]
fn file_declarations_are_checked() {
    for (top, lines, refusal) in [
        (
            "secrets: {a: {external: true}}",
            "",
            "secrets.a.external: declare it with file: or environment:; secrets.a needs one of file: or environment:",
        ),
        (
            "secrets: {a: {content: x}}",
            "",
            "secrets.a.content is not supported: a secret comes from file: or environment:; secrets.a needs one of file: or environment:",
        ),
        ("configs: {a: {}}", "", "configs.a needs one of file:, environment: or content:"),
        (
            "configs: {a: {file: b, content: c}}",
            "",
            "configs.a needs one of file:, environment: or content:",
        ),
        (
            "configs: {a: {file: b, name: c}}",
            "",
            "configs.a.name is not supported: within the project it is 'a'",
        ),
        (
            "configs: {a/b: {file: b}}",
            "",
            "configs.a/b: 'a/b' is not a name: use 1 to 64 letters, digits, '.', '_' and '-'",
        ),
        (
            "secrets: {a: {environment: GONE}}",
            "secrets: [a]",
            "secrets.a.environment: the variable GONE is not set",
        ),
        ("secrets: {a: {file: db}}", "secrets: [a]", "secrets.a.file: 'db' is a directory"),
        (
            "configs: {a: {file: large.bin}}",
            "configs: [a]",
            "configs.a.file: it has more than 500 KiB: mount it under volumes: of the service",
        ),
        (
            "",
            "volumes: [/full/large.bin:/a]",
            "services.s.volumes[0]: '/full/large.bin' is too large for a config: write the path relative to the Compose file, or, for that of the nodes, x-vc: {host_paths: [/full/large.bin]}",
        ),
    ] {
        assert_eq!(beside(top, lines).unwrap_err(), refusal, "{top} {lines}");
    }
}

#[test]
fn the_total_size_of_a_projects_files_is_limited() {
    let many = |n: usize| {
        let secrets: String = (0..n).map(|i| format!("  s{i}: {{file: full{i}}}\n")).collect();
        let names: Vec<String> = (0..n).map(|i| format!("s{i}")).collect();
        parse(&format!(
            "services: {{a: {{image: i, secrets: [{}]}}}}\nsecrets:\n{secrets}",
            names.join(",")
        ))
    };
    assert_eq!(many(4).unwrap().files.len(), 4);
    assert_eq!(
        many(5).unwrap_err().to_string(),
        "secrets.s4.file: the files of the project have more than 2048 KiB together: mount it under volumes: of the service"
    );
}

#[test]
fn secret_contents_are_not_interpolated() {
    let text = "services: {a: {image: i, secrets: [k]}}\nsecrets: {k: {environment: PASSWORD}}";
    let project = parse_with(text, &[("PASSWORD", "a$b${c}")]).unwrap();
    assert_eq!(project.files[0].base64, data_encoding::BASE64.encode(b"a$b${c}"));
    assert_eq!(project.warnings, Vec::<String>::new());
}
