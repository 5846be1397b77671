//! Sealing the secrets and configs of a deployment, before anything is changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use data_encoding::BASE64;
use vc_crdt::{FileKey, SealedFile};
use vc_protocol::spec::{Deployment, FileContent, FileId, MAX_FILE_BYTES};
use vc_protocol::{ApiError, ClusterId, ErrorCode, Name, ServiceKey};

use crate::seal::{FileKeys, SealError};

/// Why the files of a deployment were not sealed. Never holds their content; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// A service mounts a file that the request does not carry.
    #[error("{service}: the request lacks the content of {file}")]
    Missing {
        /// The service that mounts it.
        service: ServiceKey,
        /// The file.
        file: FileId,
    },
    /// The content of a file is not base64.
    #[error("{project}: the content of {file} is not base64")]
    NotBase64 {
        /// The file's project.
        project: Name,
        /// The file.
        file: FileId,
    },
    /// A file is larger than [`MAX_FILE_BYTES`].
    #[error("{project}: {file} has {} KiB, the limit is {} KiB", .bytes.div_ceil(1024), MAX_FILE_BYTES / 1024)]
    TooLarge {
        /// The file's project.
        project: Name,
        /// The file.
        file: FileId,
        /// Its size in bytes.
        bytes: usize,
    },
    /// The request carries a file more than once.
    #[error("{project}: {file} is in the request twice")]
    Duplicate {
        /// The file's project.
        project: Name,
        /// The file.
        file: FileId,
    },
    /// This node is a worker.
    #[error("this node is a worker, which has no key to encrypt {0} with")]
    NoKey(FileId),
    /// The signing key was rotated a moment ago, and this server has not got it yet.
    #[error("this server has not got the new key to encrypt {0} with yet")]
    NoSigningKey(FileId),
    /// A file could not be encrypted.
    #[error("cannot seal {file}: {source}")]
    Seal {
        /// The file.
        file: FileId,
        /// The cause.
        source: SealError,
    },
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        let (code, hint) = match &error {
            SecretsError::Missing { .. } => {
                (ErrorCode::InvalidArgument, "upgrade vc to the version of the node")
            }
            SecretsError::TooLarge { .. } => {
                (ErrorCode::InvalidArgument, "put large files into the image or a volume")
            }
            SecretsError::NotBase64 { .. } | SecretsError::Duplicate { .. } => {
                (ErrorCode::InvalidArgument, "")
            }
            SecretsError::NoSigningKey(_) => (ErrorCode::Unavailable, "try again"),
            SecretsError::NoKey(_) => (ErrorCode::FailedPrecondition, "use a server with --peer"),
            SecretsError::Seal { .. } => (ErrorCode::Internal, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Deployments whose file mounts name the version of their content, and the encrypted files that they mount.
pub(crate) struct SealedDeployment {
    /// The deployments, with the versions filled in.
    pub(crate) deployments: Vec<Deployment>,
    /// The files that are mounted; others in the request are left out.
    pub(crate) files: BTreeMap<FileKey, SealedFile>,
}

/// Encrypts the files that deployments mount, and writes the version of each content into its mounts.
pub(crate) fn seal_deployment_files(
    keys: Option<&FileKeys>,
    cluster: ClusterId,
    held: &BTreeMap<FileKey, SealedFile>,
    mut deployments: Vec<Deployment>,
    files: &[FileContent],
) -> Result<SealedDeployment, SecretsError> {
    let contents = contents(files)?;
    let mut sealed = BTreeMap::new();
    for Deployment { service, spec, .. } in &mut deployments {
        for mount in &mut spec.container.files {
            let content = contents.get(&(&service.project, &mount.file)).ok_or_else(|| {
                SecretsError::Missing { service: service.clone(), file: mount.file.clone() }
            })?;
            let keys = keys.ok_or_else(|| SecretsError::NoKey(mount.file.clone()))?;
            let seal = keys.present.as_ref();
            let seal = seal.ok_or_else(|| SecretsError::NoSigningKey(mount.file.clone()))?;
            let place = (&service.project, &mount.file);
            mount.version = keys.version(seal, cluster, held, place, content);
            let key = FileKey {
                project: service.project.clone(),
                file: mount.file.clone(),
                version: mount.version.clone(),
            };
            if let Entry::Vacant(entry) = sealed.entry(key) {
                let file = seal
                    .seal(cluster, entry.key(), content)
                    .map_err(|source| SecretsError::Seal { file: mount.file.clone(), source })?;
                entry.insert(file);
            }
        }
    }
    Ok(SealedDeployment { deployments, files: sealed })
}

/// Decodes the files of a request.
fn contents(files: &[FileContent]) -> Result<BTreeMap<(&Name, &FileId), Vec<u8>>, SecretsError> {
    let mut contents = BTreeMap::new();
    for FileContent { project, file, base64 } in files {
        let name = || (project.clone(), file.clone());
        let content = BASE64.decode(base64.as_bytes()).map_err(|_| {
            let (project, file) = name();
            SecretsError::NotBase64 { project, file }
        })?;
        let bytes = content.len();
        if bytes > MAX_FILE_BYTES {
            let (project, file) = name();
            return Err(SecretsError::TooLarge { project, file, bytes });
        }
        if contents.insert((project, file), content).is_some() {
            let (project, file) = name();
            return Err(SecretsError::Duplicate { project, file });
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::spec::{FileKind, FileMount, ServiceSpec};

    use super::*;
    use crate::seal::Seal;

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
        Deployment {
            service: "shop/web".parse().expect("a service"),
            replicas: None,
            spec: spec.into(),
        }
    }

    fn keys(seal: Seal) -> FileKeys {
        FileKeys { present: Some(seal), earlier: Vec::new() }
    }

    fn refused(files: &[FileContent]) -> String {
        let seal = Seal::generate().expect("random numbers");
        let sealed = seal_deployment_files(
            Some(&keys(seal)),
            cluster(),
            &BTreeMap::new(),
            vec![mounting("db")],
            files,
        );
        ApiError::from(sealed.err().expect("refused")).to_string()
    }

    #[test]
    fn a_changed_file_changes_the_instance_digest() {
        let seal = Seal::generate().expect("random numbers");
        let prepared = |text: &[u8]| {
            let files = [content("db", text), content("unused", b"x")];
            let (keys, none) = (keys(seal.clone()), BTreeMap::new());
            seal_deployment_files(Some(&keys), cluster(), &none, vec![mounting("db")], &files)
                .expect("prepared")
        };
        let digest = |prepared: &SealedDeployment| prepared.deployments[0].spec.container.digest();
        let (first, again, other) = (prepared(b"1"), prepared(b"1"), prepared(b"2"));
        assert_eq!(digest(&first), digest(&again));
        assert_ne!(digest(&first), digest(&other));
        // Under the version that its mount names; unused files are left out.
        let (key, sealed) = first.files.first_key_value().expect("a file");
        assert_eq!(first.files.len(), 1);
        assert_eq!(key.version, first.deployments[0].spec.container.files[0].version);
        assert_eq!(seal.open(cluster(), key, sealed).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn missing_large_duplicate_and_malformed_files_are_refused_by_name() {
        assert_eq!(
            refused(&[content("other", b"1")]),
            "shop/web: the request lacks the content of secret 'db': upgrade vc to the version of the node"
        );
        assert_eq!(
            refused(&[content("db", &vec![b's'; MAX_FILE_BYTES + 1])]),
            "shop: secret 'db' has 501 KiB, the limit is 500 KiB: put large files into the image or a volume"
        );
        assert_eq!(
            refused(&[content("db", b"1"), content("db", b"2")]),
            "shop: secret 'db' is in the request twice"
        );
        let garbage = FileContent { base64: "!".to_owned(), ..content("db", b"") };
        assert_eq!(refused(&[garbage]), "shop: the content of secret 'db' is not base64");
    }
}
