//! The schema changes of both kinds of documents.
//!
//! A map that a later version adds is a new [`SchemaChange`] at the end; what is there stays as it is. In the cluster document
//! it has its bytes in `schema/`; in the node documents it has none, as each has one writer, which makes the map itself.
//! `CONTRIBUTING.md` says how.

use crate::document::{Schema, SchemaChange};

/// The cluster document.
pub(crate) const CLUSTER: Schema = Schema(&[
    SchemaChange {
        version: 1,
        maps: &["services", "scale", "drained", "left", "moves", "files", "images", "tombstones"],
        bytes: Some(include_bytes!("schema/cluster-1.change")),
    },
    SchemaChange {
        version: TOKENS,
        maps: &["tokens", "revocations"],
        bytes: Some(include_bytes!("schema/cluster-2.change")),
    },
    SchemaChange {
        version: AUTHORITY,
        maps: &["projects", "joins", "trust"],
        bytes: Some(include_bytes!("schema/cluster-3.change")),
    },
    SchemaChange {
        version: HISTORY,
        maps: &["history"],
        bytes: Some(include_bytes!("schema/cluster-4.change")),
    },
    SchemaChange {
        version: VOTERS,
        maps: &["voters"],
        bytes: Some(include_bytes!("schema/cluster-5.change")),
    },
    SchemaChange {
        version: ALERTS,
        maps: &["receivers", "alerts"],
        bytes: Some(include_bytes!("schema/cluster-6.change")),
    },
]);

/// The version that has the maps of tokens and revocations.
pub(crate) const TOKENS: u32 = 2;

/// The version that has the maps of policies of projects, of uses of join tokens, and of signing keys.
pub(crate) const AUTHORITY: u32 = 3;

/// The version that has the map of replaced versions of services.
pub(crate) const HISTORY: u32 = 4;

/// The version that has the map of the voters that grant leases.
pub(crate) const VOTERS: u32 = 5;

/// The version that has the maps of receivers of alerts, and of what was sent to them.
pub(crate) const ALERTS: u32 = 7;

/// The node documents.
pub(crate) const NODE: Schema = Schema(&[
    SchemaChange {
        version: 1,
        maps: &["self", "claims", "unreachable", "observed", "volumes", "update_results", "ports"],
        bytes: Some(include_bytes!("schema/node-1.change")),
    },
    SchemaChange { version: RUNS, maps: &["runs", "due"], bytes: None },
]);

/// The version of the node documents that has the map of runs.
pub(crate) const RUNS: u32 = 6;

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use automerge::transaction::{CommitOptions, Transactable as _};
    use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ReadDoc as _};

    use super::*;

    const FIRST: SchemaChange = SchemaChange {
        version: 1,
        maps: &["entries"],
        bytes: Some(include_bytes!("schema/test-1.change")),
    };
    const SECOND: SchemaChange = SchemaChange {
        version: 2,
        maps: &["more"],
        bytes: Some(include_bytes!("schema/test-2.change")),
    };
    /// The version of a schema that is not released.
    pub(crate) const NEXT: u32 = ALERTS + 1;

    /// A kind of document that a newer version has given a second map.
    pub(crate) const NEWER: Schema = Schema(&[FIRST, SECOND]);
    /// A kind of document with one writer, which makes the second map itself.
    pub(crate) const ONE_WRITER: Schema = Schema(&[FIRST, SchemaChange { bytes: None, ..SECOND }]);
    /// The same kind as an older version knows it.
    pub(crate) const OLDER: Schema = Schema(&[FIRST]);

    /// Returns the schema that a newer version could have, with one more map.
    pub(crate) fn with_map(schema: Schema, map: &'static str) -> Schema {
        let mut automerge = Automerge::new().with_actor(ActorId::from(b"genesis".as_slice()));
        let released = schema.0.iter().filter_map(|step| step.bytes);
        let released = released.map(|bytes| Change::from_bytes(bytes.to_vec()));
        automerge.apply_changes(released.map(|it| it.expect("a change"))).expect("applies");
        let bytes = add_maps(&mut automerge, &[map]);
        let maps: &'static [&'static str] = vec![map].leak();
        let mut steps = schema.0.to_vec();
        steps.push(SchemaChange { version: NEXT, maps, bytes: Some(bytes.leak()) });
        Schema(steps.leak())
    }

    /// Returns the bytes of the schema change that adds these maps.
    fn add_maps(automerge: &mut Automerge, maps: &[&str]) -> Vec<u8> {
        let mut transaction = automerge.transaction();
        for &map in maps {
            transaction.put_object(ROOT, map, ObjType::Map).expect("a map");
        }
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
        let change = automerge.get_change_by_hash(&hash.expect("a change"));
        change.expect("the change").raw_bytes().to_vec()
    }

    /// Documents of different versions share their maps only if the changes that make them are equal to the byte.
    /// `VC_BLESS=1` writes the files of new schema changes; those of released ones never change.
    #[test]
    fn schema_changes_are_frozen() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/schema");
        for (name, schema) in [("cluster", CLUSTER), ("node", NODE), ("test", NEWER)] {
            let mut automerge = Automerge::new().with_actor(ActorId::from(b"genesis".as_slice()));
            let frozen = schema.0.iter().filter(|step| step.bytes.is_some());
            for (step, number) in frozen.zip(1..) {
                let bytes = add_maps(&mut automerge, step.maps);
                let path = dir.join(format!("{name}-{number}.change"));
                if std::env::var_os("VC_BLESS").is_some() && step.bytes == Some(&[]) {
                    std::fs::write(&path, &bytes).expect("written");
                } else {
                    assert!(step.bytes == Some(&bytes), "{} differs", path.display());
                }
            }
        }
    }
}
