//! Data directories of released formats, made by `scripts/fixture`: every version opens them with everything in them.

use std::path::Path;

use serde_json::{Value, json};
use vc_engine::{Config, Engine, HISTORY, Timing, report};
use vc_protocol::Keypair;

use vc_store::Store;

/// Opens a copy of a fixture's data directory as a node of this version does.
fn open(fixture: &Path) -> Engine {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(fixture).expect("a fixture") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    let (membership, _) = crate::identity::load(dir.path()).expect("a member");
    let store = Store::open(dir.path()).expect("opened");
    let durable = store.load().expect("loaded");
    let loaded = vc_crdt::Replica::load(
        membership.key.clone(),
        membership.node,
        membership.cluster,
        vc_crdt::KnownVersions::default(),
        durable.certificates.clone(),
        durable.changes.clone(),
    )
    .expect("documents");
    assert_eq!((loaded.rejected, loaded.unreadable), (vec![], vec![]));
    let info = loaded.replica.nodes()[&membership.node].info.clone().expect("facts");
    let config = Config {
        key: Keypair::clone(&membership.key),
        id: membership.node,
        cluster: membership.cluster,
        info,
        nonce: 1,
        timing: Timing::default(),
        history: HISTORY,
        knows: vc_crdt::KnownVersions::default(),
        audit: true,
        deadlines: Default::default(),
    };
    Engine::new(config, durable, 0).expect("an engine")
}

/// Returns whether `found` has everything of `expected`; fields of later versions may be added.
fn includes(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| includes(found, value))),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| includes(found, expected))
        }
        _ => found == expected,
    }
}

/// Returns rows ordered by their ids, if they have some: a later version may list them in another order.
fn by_id(rows: &Value) -> Value {
    let mut rows = rows.as_array().expect("rows").clone();
    rows.sort_by_key(|row| row["id"].as_str().map(str::to_owned));
    rows.into()
}

#[test]
fn data_directories_of_released_formats_open_with_everything_in_them() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for fixture in std::fs::read_dir(fixtures).expect("fixtures") {
        let fixture = fixture.expect("an entry").path();
        let expected = std::fs::read(fixture.join("expected.json")).expect("what vc said");
        let expected: Value = serde_json::from_slice(&expected).expect("JSON");
        for node in ["h1", "h2", "h3"] {
            let engine = open(&fixture.join(node));
            let view = engine.view();
            let found = json!({
                "services": report::services(&view),
                "ps": report::instances(&view),
                "nodes": report::nodes(&view, engine.vitals()),
                "volume ls": report::volumes(&view, vc_engine::WallClocks { now: 0, vitals: engine.vitals() }),
            });
            for (what, rows) in expected.as_object().expect("an object") {
                let (found, rows) = (by_id(&found[what]), by_id(rows));
                assert!(includes(&found, &rows), "{what}: {found:#} != {rows:#}");
            }
            assert!(view.held.is_empty());
            assert!(view.plan.unplaced.is_empty(), "{:?}", view.plan.unplaced);
            // Nothing starts, moves or stops.
            assert_eq!((view.plan.placements.len(), &view.plan.moves), (4, &vec![]));
            let claims: Vec<_> = view.nodes.values().flat_map(|it| it.claims.keys()).collect();
            assert_eq!(claims.len(), 4);
            for instance in claims {
                let desired = view.desired_digest(&instance.slot.service);
                assert_eq!(desired.as_ref(), Some(&instance.digest), "{instance}");
            }
        }
    }
}
