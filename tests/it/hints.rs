//! Hints are commands that work: each is printed by the situation that it is for, and followed
//! there as a user would, and that helps.

mod backups;
mod complete;
mod config;
mod datastore;
mod escrow;
mod etcd;
mod files;
mod machines;
mod nats;
mod objects;
mod remote;
mod rights;
mod rotation;
mod selection;
mod unreadable;
mod writing;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::bin::Done;

/// A hint, by a piece of its text as the source has it: `{…}` stands for anything. Each piece in
/// these files is a row of the table that `complete` compares with the texts in `src/cli`.
#[derive(Clone, Copy)]
pub struct Says(&'static str);

pub fn says(piece: &'static str) -> Says {
    Says(piece)
}

impl Says {
    /// The hint that `printed` has on stderr, whole.
    #[track_caller]
    fn of(self, printed: &Done) -> String {
        let hint = printed.stderr.lines().find_map(|l| l.strip_prefix("hint: "));
        let hint = hint.unwrap_or_else(|| panic!("no hint {:?}: {printed}", self.0));
        assert!(fits(self.0, hint), "no hint {:?}: {printed}", self.0);
        hint.to_owned()
    }

    /// `printed` has the hint, and what it says to do helps: what was to be done is done (exit 0).
    #[track_caller]
    pub fn helps(self, printed: &Done, follow: impl FnOnce(&str) -> Done) {
        self.leads_to(0, printed, follow);
    }

    /// As [`Says::helps`], where another exit code is the right answer in the end.
    #[track_caller]
    pub fn leads_to(self, code: i32, printed: &Done, follow: impl FnOnce(&str) -> Done) {
        assert!(matches!(printed.code, Some(1 | 2 | 4)), "nothing was wrong: {printed}");
        let done = follow(&self.of(printed));
        assert_eq!(done.code, Some(code), "{:?} does not help: {done}", self.0);
    }
}

/// Whether `text` has what stands between the `{…}` of a piece, in this order.
fn fits(piece: &str, text: &str) -> bool {
    let mut rest = text;
    let mut between = piece.split('{').map(|part| part.split_once('}').map_or(part, |(_, t)| t));
    between.all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// A file that only its owner can read, as a configuration should be.
fn private(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    private_at(&path, text);
    path
}

fn private_at(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn private_copy(of: &Path) -> tempfile::NamedTempFile {
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(copy.path(), std::fs::read(of).unwrap()).unwrap();
    copy
}

/// A configuration that encrypts none of these.
fn identity(resources: &str) -> String {
    providers(resources, "identity: {}")
}

/// A configuration with these providers, each from a line.
fn providers(resources: &str, providers: &str) -> String {
    let providers: Vec<_> = providers.lines().map(|p| format!("  - {p}")).collect();
    let providers = providers.join("\n");
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [{resources}]\n  providers:\n{providers}\n"
    )
}
