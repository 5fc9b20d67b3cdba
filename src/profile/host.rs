//! The files of a machine, or of its mounted disk.

use std::io;
use std::path::{Path, PathBuf};

use super::found::Setting;
use super::server::ManifestError;

/// Why a distribution's files do not say what is needed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file cannot be read.
    #[error("cannot read {}, which profile {profile} needs", .path.display())]
    Unreadable {
        /// Whose.
        profile: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
        /// What names another one.
        setting: Option<Setting>,
    },
    /// A file is not what it should be.
    #[error("{} does not say where the objects are", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: ManifestError,
        /// The user named the file.
        given: bool,
    },
    /// A file lies in a volume that is no directory of the host.
    #[error("{} lies in the volume `{volume}` of the API server, not on its host", .path.display())]
    Volume {
        /// In the container.
        path: PathBuf,
        /// The volume.
        volume: String,
        /// What names a copy.
        setting: Setting,
    },
    /// There is no datastore where there should be one.
    #[error("{0}")]
    NoDatastore(String),
    /// The objects are in a database that is no etcd.
    #[error("{0}")]
    External(String),
}

/// The machine that a profile is about.
#[derive(Clone, Debug)]
pub struct Host {
    /// Below this directory; `None` for the running machine itself.
    pub root: Option<PathBuf>,
    /// The profile's name, for messages.
    pub profile: &'static str,
    /// The source is to be found, too.
    pub source: bool,
    /// Settings that name files in place of the machine's: these may be out of reach.
    pub named: Vec<Setting>,
}

impl Host {
    /// An absolute path of the machine.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// As the machine itself calls a path below its root.
    #[must_use]
    pub fn own(&self, path: &Path) -> PathBuf {
        match self.root.as_ref().and_then(|root| path.strip_prefix(root).ok()) {
            Some(below) => Path::new("/").join(below),
            None => path.to_owned(),
        }
    }

    /// An error about a file.
    pub(super) fn cannot(
        &self,
        path: &Path,
        cause: io::Error,
        setting: Option<Setting>,
    ) -> ProfileError {
        ProfileError::Unreadable { profile: self.profile, path: path.to_owned(), cause, setting }
    }

    /// Reads a file that has to be there.
    pub(super) fn read(
        &self,
        path: &Path,
        setting: Option<Setting>,
    ) -> Result<String, ProfileError> {
        std::fs::read_to_string(path).map_err(|e| self.cannot(path, e, setting))
    }

    /// Reads a file that need not be there. One that may not be looked at is no "no".
    pub(super) fn read_if_there(&self, path: &Path) -> Result<Option<String>, ProfileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(self.cannot(path, e, None)),
        }
    }

    /// Files of a directory with one of these endings, by name.
    pub(super) fn files(&self, dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, ProfileError> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if is_missing(&e) => return Ok(Vec::new()),
            Err(e) => return Err(self.cannot(dir, e, None)),
        };
        let fits = |p: &PathBuf| {
            p.extension().is_some_and(|e| endings.iter().any(|known| e == *known)) && p.is_file()
        };
        let mut files: Vec<_> = entries.flatten().map(|e| e.path()).filter(fits).collect();
        files.sort();
        Ok(files)
    }

    /// Whether there is such a file. One that may not be looked at is no "no".
    pub(super) fn exists(&self, path: &Path) -> Result<bool, ProfileError> {
        path.try_exists().map_err(|e| self.cannot(path, e, None))
    }

    /// Checks that a file can be opened.
    ///
    /// # Errors
    /// When it cannot, or is no regular file.
    pub fn readable(&self, path: &Path, setting: Setting) -> Result<(), ProfileError> {
        let opened = std::fs::File::open(path).and_then(|f| f.metadata());
        match opened {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(self.cannot(path, io::Error::other("not a regular file"), Some(setting))),
            Err(e) => Err(self.cannot(path, e, Some(setting))),
        }
    }
}

/// Whether a file is missing, as opposed to hidden.
fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
