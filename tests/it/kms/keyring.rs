//! The data keys of a snapshot, and programs that hand them out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use atrest::jobs::kms::uses::{PluginName, State, Uses, Wrapped};
use atrest::resource::{DEFAULT_PREFIX, Scope, Selector};
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};

use crate::support::kms_plugin;

/// Every data key of the live entries of a snapshot, in files named by the digest of the wrapped
/// key. Throwaway keys of the test plugin.
pub struct Keyring {
    dir: tempfile::TempDir,
    pub keys: Vec<(PluginName, Wrapped, Vec<u8>)>,
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

impl Keyring {
    pub fn of(snapshot: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = Vec::new();
        for (name, plugin) in uses(snapshot).plugins {
            for wrapped in plugin.keys.into_keys() {
                let kek = wrapped.key_id.clone().unwrap_or_else(|| "kek-v1".to_owned());
                let key = kms_plugin::unwrap(&kek, &wrapped.source).unwrap();
                std::fs::write(dir.path().join(hex(&wrapped.digest())), &key).unwrap();
                keys.push((name.clone(), wrapped, key));
            }
        }
        Self { dir, keys }
    }

    /// How many keys a provider has.
    pub fn count(&self, provider: &str) -> usize {
        self.keys.iter().filter(|(name, ..)| name.name == provider).count()
    }

    /// A command of the shell that unwraps any of them, notes its environment and that it ran.
    pub fn command(&self) -> String {
        format!(
            "cd '{}' && env | grep ^ATREST_ >env.$$ && echo run >>runs && \
             cat \"$(sha256sum | cut -c 1-64)\"",
            self.dir.path().display()
        )
    }

    /// How often it ran.
    pub fn runs(&self) -> usize {
        let runs = std::fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
        runs.lines().count()
    }

    /// The environments that it noted.
    pub fn environments(&self) -> Vec<BTreeMap<String, String>> {
        let files = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path());
        let noted = files.filter(|p| p.file_stem().is_some_and(|name| name == "env"));
        let read = |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let split = |line: &str| {
                let (name, value) = line.split_once('=').unwrap();
                (name.to_owned(), value.to_owned())
            };
            text.lines().map(split).collect()
        };
        noted.map(read).collect()
    }

    /// Fails where a text holds one of the keys, as bytes, digits or base64.
    #[track_caller]
    pub fn assert_absent(&self, bytes: &[u8]) {
        use base64::Engine as _;
        for (_, _, key) in &self.keys {
            let base64 = base64::engine::general_purpose::STANDARD.encode(key);
            let digits = hex(key);
            for form in [&key[..], &base64.as_bytes()[..base64.len() - 4], digits.as_bytes()] {
                assert!(memchr::memmem::find(bytes, form).is_none(), "a data key is told");
            }
        }
    }
}

/// What the live entries of a snapshot name.
fn uses(snapshot: &Path) -> Uses {
    let scope = Scope::new(DEFAULT_PREFIX);
    let query = Query { ranges: scope.ranges(&[Selector::All]), revision: None, ordered: false };
    let mut uses = Uses::new(None);
    let mut source = Snapshot::open(snapshot, &SnapshotOptions::default()).unwrap();
    source
        .visit(&query, &mut |entry| {
            uses.add(&scope.locate(entry.key).resource, entry.stored(), State::Live);
            ControlFlow::Continue(())
        })
        .unwrap();
    uses
}

/// The live entries of a snapshot.
pub fn entries(snapshot: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let query = Query {
        ranges: Scope::new(DEFAULT_PREFIX).ranges(&[Selector::All]),
        revision: None,
        ordered: false,
    };
    let mut all = Vec::new();
    let mut source = Snapshot::open(snapshot, &SnapshotOptions::default()).unwrap();
    source
        .visit(&query, &mut |entry| {
            all.push((entry.key.to_vec(), entry.stored().to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}
