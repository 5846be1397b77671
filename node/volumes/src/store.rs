//! The volumes of a node.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use vc_protocol::VolumeKey;
use vc_protocol::volume::VolumeCopy;

use crate::error::Error;
use crate::layout::Layout;
use crate::volume::{Inner, Volume, lock};
use crate::{rsync, tree};

/// Where the store keeps what was removed. No project is called so: their names begin with a letter or digit.
pub(crate) const TRASH: &str = ".trash";

/// The volumes of a node, in a directory of their own. One process uses it.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    /// What is re-executed as the helper.
    pub(crate) program: PathBuf,
    volumes: Mutex<HashMap<VolumeKey, Volume>>,
    /// Programs that were found to be there and new enough.
    found: Mutex<HashSet<&'static str>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.0.dir).finish()
    }
}

impl Store {
    /// Opens the store in a directory, which is made if it is missing, and deletes what operations have left that were killed.
    /// Blocks. This program has to call [`crate::helper::run`].
    ///
    /// # Errors
    /// The directory could not be made or read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, Path::new("/proc/self/exe"))
    }

    /// As [`Store::open`], with the program that is re-executed as the helper.
    ///
    /// # Errors
    /// The directory could not be made or read.
    pub fn open_with(dir: &Path, program: &Path) -> Result<Self, Error> {
        tree::create(dir)?;
        if !crate::helper::can_confine() {
            tracing::warn!(
                "this kernel has no Landlock (5.19 or later): rsync is not confined to the volumes that it copies"
            );
        }
        let shared = Shared {
            dir: dir.to_owned(),
            program: program.to_owned(),
            volumes: Mutex::default(),
            found: Mutex::default(),
        };
        let this = Self(Arc::new(shared));
        for key in this.keys()? {
            let volume = this.volume(&key);
            if volume.layout().first().exists() {
                volume.clear_first()?;
            }
            // What a transfer has left helps the next one.
            volume.keep_partial()?;
            tree::remove(&volume.layout().sending())?;
        }
        this.drop_old_uploads()?;
        Ok(this)
    }

    /// Returns a volume, whether this node has a copy of it or not. Its directory is made by the first write.
    #[must_use]
    pub fn volume(&self, key: &VolumeKey) -> Volume {
        let mut volumes = lock(&self.0.volumes);
        let volume = volumes.entry(key.clone()).or_insert_with(|| {
            Volume(Arc::new(Inner {
                key: key.clone(),
                layout: Layout(self.dir_of(key)),
                shared: Arc::clone(&self.0),
                exclusive: Arc::default(),
                upload: Arc::default(),
                state: Mutex::default(),
                sending: Mutex::default(),
                standby: Mutex::default(),
                expected: Default::default(),
                distrust: Default::default(),
            }))
        });
        volume.clone()
    }

    /// Returns the copies that this node has. Blocks.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn copies(&self) -> Result<Vec<(VolumeKey, VolumeCopy)>, Error> {
        let keys = self.keys()?.into_iter();
        keys.map(|key| self.volume(&key).copy().map(|copy| (key, copy))).collect()
    }

    pub(crate) fn dir_of(&self, key: &VolumeKey) -> PathBuf {
        self.0.dir.join(key.project.as_str()).join(key.volume.as_str())
    }

    /// Returns the volumes that have a directory.
    pub(crate) fn keys(&self) -> Result<Vec<VolumeKey>, Error> {
        keys_in(&self.0.dir)
    }
}

/// Returns the volumes `PROJECT/NAME` in a directory, in their order.
pub(crate) fn keys_in(dir: &Path) -> Result<Vec<VolumeKey>, Error> {
    let mut keys = Vec::new();
    for project in tree::names(dir)? {
        let Some(project) = project.to_str().and_then(|it| it.parse().ok()) else { continue };
        let project: vc_protocol::Name = project;
        for volume in tree::names(&dir.join(project.as_str()))? {
            if let Some(volume) = volume.to_str().and_then(|it| it.parse().ok()) {
                keys.push(VolumeKey { project: project.clone(), volume });
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

impl Shared {
    /// Checks that a program is there and new enough, until it was found once. On failure, what is wrong and the version needed.
    pub(crate) async fn require(
        &self,
        program: &'static str,
    ) -> Result<(), (String, &'static str)> {
        if lock(&self.found).contains(program) {
            return Ok(());
        }
        let needed = if program == "rsync" { rsync::NEEDED_TEXT } else { "1.28" };
        let output = tokio::process::Command::new(program)
            .arg("--version")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let output = match output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(("is not installed".to_owned(), needed));
            }
            Err(error) => return Err((format!("cannot be executed: {error}"), needed)),
        };
        let first = output.lines().next().unwrap_or_default();
        let usable = match program {
            "rsync" => rsync::parse_version(&output).is_some_and(|it| it >= rsync::NEEDED),
            _ => first.contains("GNU tar"),
        };
        if !usable {
            return Err((format!("on this host is '{first}'"), needed));
        }
        lock(&self.found).insert(program);
        Ok(())
    }

    /// Forgets a volume whose directory was moved away.
    pub(crate) fn forget(&self, key: &VolumeKey) {
        lock(&self.volumes).remove(key);
    }
}
