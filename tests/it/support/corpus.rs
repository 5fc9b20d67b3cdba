//! The reference corpus under `fixtures/corpus`, unpacked once and kept between runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Every phase, in the order of the cluster's life.
pub const PHASES: [&str; 11] = [
    "p0-plaintext",
    "p1-secretbox",
    "p1b-partial-migration",
    "p2-aescbc",
    "p3-aesgcm",
    "p4-kmsv1",
    "p5-kmsv2",
    "p6-mixed",
    "p7-migrated-uncompacted",
    "p8-compacted-not-defragged",
    "p9-defragged",
];

/// What a live Range returned for one key at the moment of the snapshot.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Expected {
    pub key: String,
    pub create_revision: i64,
    pub mod_revision: i64,
    /// Writes since the key was created.
    pub version: i64,
    pub lease: i64,
    /// Bytes of the stored value.
    pub size: u64,
    /// Lowercase hex SHA-256 of the stored value.
    pub sha256: String,
    /// `k8s:enc:…:`, or empty.
    pub prefix: String,
}

/// The keys that were live in a phase.
pub struct Entries {
    pub revision: i64,
    pub entries: Vec<Expected>,
}

/// A folder of `fixtures`.
pub fn fixtures(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(below)
}

/// The content of one compressed file of the corpus, named without `.zst`.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = fixtures("corpus").join(format!("{name}.zst"));
    let packed = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    zstd::decode_all(&packed[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The unpacked file, read-only and shared by all tests: copy it before changing anything.
///
/// It lies under cargo's folder for tests' files, beside the digest of what it was unpacked from,
/// so that a changed fixture is unpacked anew and a run leaves nothing behind elsewhere.
pub fn file(name: &str) -> PathBuf {
    let packed = fixtures("corpus").join(format!("{name}.zst"));
    let packed_bytes = fs::read(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    let digest = hex(&Sha256::digest(&packed_bytes)[..8]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus").join(digest);
    let path = folder.join(name.replace('/', "-"));
    if path.exists() {
        return path;
    }
    fs::create_dir_all(&folder).unwrap();
    // Written aside and renamed: several test processes may unpack the same file at once.
    let aside = tempfile::NamedTempFile::new_in(&folder).unwrap();
    fs::write(aside.path(), zstd::decode_all(&packed_bytes[..]).unwrap()).unwrap();
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o444)).unwrap();
    aside.persist(&path).unwrap();
    path
}

/// The snapshot taken after a phase.
pub fn db(phase: &str) -> PathBuf {
    file(&format!("{phase}.db"))
}

/// What a live Range over `/registry/` returned at that moment.
pub fn entries(phase: &str) -> Entries {
    let text = String::from_utf8(bytes(&format!("{phase}.entries.jsonl"))).unwrap();
    let mut lines = text.lines();
    let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let entries: Vec<Expected> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(head["count"].as_u64(), Some(entries.len() as u64), "{phase}");
    Entries { revision: head["revision"].as_i64().unwrap(), entries }
}

/// The encryption configuration in force in a phase; names as in `fixtures/corpus/config`.
pub fn config(name: &str) -> PathBuf {
    let path = fixtures("corpus/config").join(format!("{name}.yaml"));
    assert!(path.exists(), "{}", path.display());
    path
}

/// `kubectl get secrets,configmaps -A -o json` after a phase: the decrypted truth.
pub fn kubectl(phase: &str) -> Value {
    serde_json::from_slice(&bytes(&format!("kubectl/{phase}.secrets-configmaps.json"))).unwrap()
}

/// `kubectl get <resource> -A -o json` of every listable resource after p9, by resource.
pub fn kubectl_all() -> BTreeMap<String, Value> {
    let packed = bytes("kubectl/p9-all-resources.tar");
    let mut archive = tar::Archive::new(&packed[..]);
    let mut all = BTreeMap::new();
    for member in archive.entries().unwrap() {
        let mut member = member.unwrap();
        let path = member.path().unwrap().into_owned();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(resource) = name.strip_prefix("res.").and_then(|n| n.strip_suffix(".json")) else {
            continue;
        };
        let mut text = String::new();
        member.read_to_string(&mut text).unwrap();
        all.insert(resource.to_owned(), serde_json::from_str(&text).unwrap());
    }
    assert!(!all.is_empty());
    all
}

/// The data directory of the stopped member at p8, in a place of its own.
pub fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (snap, wal) = (dir.path().join("member/snap"), dir.path().join("member/wal"));
    fs::create_dir_all(&snap).unwrap();
    fs::create_dir_all(&wal).unwrap();
    fs::write(snap.join("db"), bytes("p8-member-snap-db")).unwrap();
    let segment = "0000000000000000-0000000000000000.wal";
    fs::write(wal.join(segment), bytes(&format!("p8-{segment}"))).unwrap();
    dir
}

pub use atrest::hex::hex;

/// A copy of a configuration that only its owner can read, as the tool wants it.
pub fn private_config(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.private.yaml"));
    let aside = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::copy(config(name), aside.path()).unwrap();
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o600)).unwrap();
    aside.persist(&path).unwrap();
    path
}
