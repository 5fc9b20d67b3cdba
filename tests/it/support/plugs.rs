//! The KMS plugins of the corpus, and its configurations pointing at them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::corpus;
use super::kms_plugin::{Behaviour, Listen, Running};

/// Both plugins, running, and a directory with their sockets and the configurations.
pub struct Plugs {
    dir: tempfile::TempDir,
    v2: Running,
    _v1: Running,
}

impl Plugs {
    /// Starts them; `v2_key_id` is what the KMS v2 plugin wraps with now.
    pub fn start(v2_key_id: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = |name: &str| Listen::Path(dir.path().join(name));
        let v1 = Running::start(listen("v1.sock"), Behaviour::new("kek-v1"));
        let v2 = Running::start(listen("v2.sock"), Behaviour::new(v2_key_id));
        Self { dir, v2, _v1: v1 }
    }

    /// From now on the KMS v2 plugin wraps with another key.
    pub fn rotate(&self, v2_key_id: &str) {
        self.v2.set(|b| v2_key_id.clone_into(&mut b.key_id));
    }

    /// The folder with `v1.sock`, `v2.sock` and the configurations.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A private copy of a corpus configuration that names these sockets.
    pub fn config(&self, name: &str) -> PathBuf {
        let text = fs::read_to_string(corpus::config(name)).unwrap();
        let text = text.replace("/run/kms/", &format!("{}/", self.dir.path().display()));
        // A busy machine is no failure of the plugin's.
        let text = text.replace("timeout: 3s", "timeout: 60s");
        let path = self.dir.path().join(format!("{name}.yaml"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

/// The configuration that reads everything of a phase, and the key ID of KMS v2 then.
pub const PHASES: [(&str, &str, &str); 11] = [
    ("p0-plaintext", "p1-secretbox", "kek-2026-01"),
    ("p1-secretbox", "p1-secretbox", "kek-2026-01"),
    ("p1b-partial-migration", "p1-secretbox", "kek-2026-01"),
    ("p2-aescbc", "p2-aescbc", "kek-2026-01"),
    ("p3-aesgcm", "p3-aesgcm", "kek-2026-01"),
    ("p4-kmsv1", "p4-kmsv1", "kek-2026-01"),
    ("p5-kmsv2", "p5-kmsv2", "kek-2026-02"),
    ("p6-mixed", "p6-sb2", "kek-2026-02"),
    ("p7-migrated-uncompacted", "p6-sb2", "kek-2026-02"),
    ("p8-compacted-not-defragged", "p6-sb2", "kek-2026-02"),
    ("p9-defragged", "p6-sb2", "kek-2026-02"),
];
