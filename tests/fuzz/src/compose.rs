//! Compose files, as a viewer's client sends them and `vc deploy` reads them.

use std::collections::BTreeMap;
use std::io;

use vc_compose::{Context, Entry, MAX_CONTENTS_BYTES};

use crate::pieces::{Pieces, piece};

/// Runs a file: the environment, what other files contain, and the text.
pub(crate) fn run(data: &[u8]) {
    let mut pieces = Pieces(data);
    let env_file = pieces.piece().to_vec();
    let text = String::from_utf8_lossy(pieces.0);
    let mut env = BTreeMap::from([("TAG".to_owned(), "1.2".to_owned())]);
    env.extend(vc_compose::parse_env_file(&env_file, &env).unwrap_or_default());
    let open = |path: &str| match path.len() % 4 {
        0 => Err(io::ErrorKind::NotFound.into()),
        1 => Ok(Entry::Directory),
        2 => Ok(Entry::Other),
        _ => Ok(Entry::File { content: env_file.clone(), mode: 0o644 }),
    };
    let read = |path: &str| match path.len() % 3 {
        0 => Err(io::ErrorKind::NotFound.into()),
        _ => Ok(env_file.clone()),
    };
    let context = Context {
        project: None,
        node: None,
        directory: Some("Shop"),
        env: &env,
        read: &read,
        open: &open,
    };
    match vc_compose::parse(&text, &context) {
        Ok(project) => {
            let contents = project.files.iter().map(|it| it.base64.len() / 4 * 3).sum::<usize>();
            assert!(
                contents <= MAX_CONTENTS_BYTES + 4 * project.files.len(),
                "{contents} bytes of contents"
            );
            let lines = project.warnings.iter().all(|it| !it.contains(['\n', '\r']));
            assert!(lines, "{:?}", project.warnings);
            for deployment in &project.services {
                let json = serde_json::to_string(deployment).unwrap_or_default();
                let read = serde_json::from_str(&json).ok();
                assert_eq!(read.as_ref(), Some(deployment), "{json}");
            }
        }
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains(['\n', '\r']), "{line:?}");
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let fixtures = [
        include_str!("../../../protocol/compose/tests/compose/files/web-api-redis.yaml"),
        "x: &a {image: i}\nservices:\n  a: {<<: *a, ports: ['80:80/udp', '1-9:1-9']}\n",
        "services:\n  a: {extends: {service: b}, ports: !reset [], gpus: all}\n  b: {image: i, ports: ['80']}\n---\nservices: {a: !override {image: j}}\n",
        "name: shop\nservices:\n  s:\n    image: i:${TAG:-1}\n    command: sh -c 'a \"b\"'\n    env_file: [e]\n    \
         environment: [A=1, B]\n    volumes: ['data:/d', './abc:/a:ro']\n    deploy: {replicas: 3, \
         update_config: {parallelism: 1, delay: 1m30s}, resources: {reservations: {cpus: '0.5', memory: 64M}}}\n\
         volumes: {data: {}}\nsecrets: {k: {file: ./abc}}\n",
    ];
    let with_env = |text: &&str| [piece(b"A=1\nB=\"x $A\"\n"), text.as_bytes().to_vec()].concat();
    fixtures.iter().map(with_env).collect()
}
