//! What a user wants deployed, made complete before anything is changed: each secret and config is there, fits, and its
//! mounts name the version of its content.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use data_encoding::BASE64;
use vc_crdt::{FileKey, SealedFile};
use vc_protocol::spec::{Deployment, FileContent, FileId, MAX_FILE_BYTES};
use vc_protocol::{ClusterId, Name};

use crate::seal::Seal;

/// Deployments that are complete, with the files that they mount.
pub(crate) struct SealedDeployment {
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) files: BTreeMap<FileKey, SealedFile>,
}

/// Completes deployments. Errors: one line that says what to do; never what is in a file.
pub(crate) fn seal_deployment_files(
    seal: &Seal,
    cluster: ClusterId,
    mut deployments: Vec<Deployment>,
    files: &[FileContent],
) -> Result<SealedDeployment, String> {
    let contents = contents(files)?;
    let mut sealed = BTreeMap::new();
    for Deployment { service, spec, .. } in &mut deployments {
        for mount in &mut spec.container.files {
            let content = contents.get(&(&service.project, &mount.file)).ok_or_else(|| {
                format!(
                    "{service}: the content of {} did not come along: is vc older than this node?",
                    mount.file
                )
            })?;
            mount.version = seal.version(&service.project, &mount.file, content);
            let key = FileKey {
                project: service.project.clone(),
                file: mount.file.clone(),
                version: mount.version.clone(),
            };
            if let Entry::Vacant(place) = sealed.entry(key) {
                let file = seal.seal(cluster, place.key(), content);
                place.insert(file.map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(SealedDeployment { deployments, files: sealed })
}

/// What is in each file.
fn contents(files: &[FileContent]) -> Result<BTreeMap<(&Name, &FileId), Vec<u8>>, String> {
    let mut contents = BTreeMap::new();
    for FileContent { project, file, base64 } in files {
        let content = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| format!("{project}: the content of {file} is not base64"))?;
        if content.len() > MAX_FILE_BYTES {
            return Err(format!(
                "{project}: {file} has {} KiB, more than {}: put large files into the image or a volume",
                content.len().div_ceil(1024),
                MAX_FILE_BYTES / 1024
            ));
        }
        if contents.insert((project, file), content).is_some() {
            return Err(format!("{project}: {file} is there twice"));
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::spec::{FileKind, FileMount, ServiceSpec};

    use super::*;

    fn cluster() -> ClusterId {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        ClusterId::of(&key.public()).expect("ed25519")
    }

    fn file(name: &str) -> FileId {
        FileId { kind: FileKind::Secret, name: name.to_owned() }
    }

    fn content(name: &str, content: &[u8]) -> FileContent {
        let project = "shop".parse().expect("a name");
        FileContent { project, file: file(name), base64: BASE64.encode(content) }
    }

    fn mounting(name: &str) -> Deployment {
        let mut spec = ServiceSpec::default();
        spec.container.files.push(FileMount {
            file: file(name),
            version: "made up".to_owned(),
            target: "/run/secrets/db".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        });
        Deployment { service: "shop/web".parse().expect("a service"), replicas: None, spec }
    }

    fn refused(files: &[FileContent]) -> String {
        let seal = Seal::generate().expect("random numbers");
        seal_deployment_files(&seal, cluster(), vec![mounting("db")], files).err().expect("refused")
    }

    #[test]
    fn another_content_is_another_instance_and_the_same_is_not() {
        let seal = Seal::generate().expect("random numbers");
        let prepared = |text: &[u8]| {
            let files = [content("db", text), content("unused", b"x")];
            seal_deployment_files(&seal, cluster(), vec![mounting("db")], &files).expect("prepared")
        };
        let digest = |prepared: &SealedDeployment| prepared.deployments[0].spec.container.digest();
        let (first, again, other) = (prepared(b"1"), prepared(b"1"), prepared(b"2"));
        assert_eq!(digest(&first), digest(&again));
        assert_ne!(digest(&first), digest(&other));
        // Under the version that its mount names, and nothing that nobody mounts.
        let (key, sealed) = first.files.first_key_value().expect("a file");
        assert_eq!(first.files.len(), 1);
        assert_eq!(key.version, first.deployments[0].spec.container.files[0].version);
        assert_eq!(seal.open(cluster(), key, sealed).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn what_is_missing_too_large_or_doubled_is_refused_by_name() {
        assert_eq!(
            refused(&[content("other", b"1")]),
            "shop/web: the content of secret 'db' did not come along: is vc older than this node?"
        );
        assert_eq!(
            refused(&[content("db", &vec![b's'; MAX_FILE_BYTES + 1])]),
            "shop: secret 'db' has 501 KiB, more than 500: put large files into the image or a volume"
        );
        assert_eq!(
            refused(&[content("db", b"1"), content("db", b"2")]),
            "shop: secret 'db' is there twice"
        );
        let garbage = FileContent { base64: "!".to_owned(), ..content("db", b"") };
        assert_eq!(refused(&[garbage]), "shop: the content of secret 'db' is not base64");
    }
}
