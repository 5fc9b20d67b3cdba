//! Every value that a real API server stored, read with the configuration in force at the time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::config::{ConfigSet, load};
use atrest::envelope::Provider;
use atrest::kms::{NoPlugins, Plugins, Unwrap};
use atrest::resource::{DEFAULT_PREFIX, Scope, Selector};
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};
use atrest::storage::is_kubernetes_value;
use atrest::storage::type_meta;
use atrest::transform::{Status, Transformers};

use crate::support::kms_plugin::{Behaviour, Listen, Running};

fn corpus(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(file)
}

/// The plugins of the corpus and the directory of their sockets.
struct Plugs {
    dir: tempfile::TempDir,
    _running: [Running; 2],
}

impl Plugs {
    fn start(v2_key_id: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = |name: &str| Listen::Path(dir.path().join(name));
        let v1 = Running::start(listen("v1.sock"), Behaviour::new("kek-v1"));
        let v2 = Running::start(listen("v2.sock"), Behaviour::new(v2_key_id));
        Self { dir, _running: [v1, v2] }
    }

    fn config(&self, file: &str) -> ConfigSet {
        let text = std::fs::read_to_string(corpus("config").join(file)).unwrap();
        let text = text.replace("/run/kms/", &format!("{}/", self.dir.path().display()));
        ConfigSet::new(load(text.as_bytes(), file).unwrap()).unwrap()
    }
}

/// Live entries of a snapshot: resource, etcd key, value.
fn entries(phase: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let packed = std::fs::File::open(corpus(&format!("{phase}.db.zst"))).unwrap();
    zstd::stream::copy_decode(packed, &mut file).unwrap();
    let mut source = Snapshot::open(file.path(), &SnapshotOptions::default()).unwrap();
    let scope = Scope::new(DEFAULT_PREFIX);
    let query = Query { ranges: scope.ranges(&[Selector::All]), revision: None, ordered: true };
    let (mut all, mut unleased) = (Vec::new(), 0);
    source
        .visit(&query, &mut |entry| {
            let resource = scope.locate(entry.key).resource.into_owned();
            unleased += usize::from(entry.lease == 0);
            all.push((resource, entry.key.to_vec(), entry.stored().to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    // The listing was made a moment earlier: keys with a lease may have come or gone since.
    let listing = std::fs::File::open(corpus(&format!("{phase}.entries.jsonl.zst"))).unwrap();
    let listing = String::from_utf8(zstd::stream::decode_all(listing).unwrap()).unwrap();
    let listed = listing.lines().filter(|l| l.contains("\"lease\": 0,")).count();
    assert_eq!(unleased, listed, "{phase}: as many as etcd itself listed");
    all
}

/// Reads every entry of a phase; returns how many of the encrypted resources have which status.
fn read_all(phase: &str, set: &ConfigSet, kms: Arc<dyn Unwrap>) -> BTreeMap<Status, usize> {
    let all = Transformers::new(set, kms).unwrap();
    let mut counts = BTreeMap::new();
    for (resource, key, value) in entries(phase) {
        let name = String::from_utf8_lossy(&key).into_owned();
        let t = all.for_resource(&resource);
        let opened = match t.read(&key, &value) {
            Ok(opened) => opened,
            Err(error) => panic!("{phase} {name}: {error}"),
        };
        let status = if opened.stale { Status::Stale } else { Status::Current };
        let verdict = t.classify(&value);
        assert_eq!(verdict.status, status, "{phase} {name}: the prefix says otherwise");
        assert_eq!(verdict.reason.as_deref(), opened.reason.as_deref(), "{phase} {name}");
        assert_eq!(verdict.provider, opened.used.provider);
        if key.starts_with(b"/registry/") {
            let type_meta = type_meta(opened.plaintext.expose());
            assert!(type_meta.is_ok(), "{phase} {name}: {type_meta:?}");
        }
        if verdict.provider != Provider::Identity {
            assert!(is_kubernetes_value(opened.plaintext.expose()), "{phase} {name}");
            assert_eq!(verdict.key_name.as_deref(), opened.used.key.as_deref());
            // What the write key makes of it reads the same.
            let again = t.write(&key, &opened.plaintext).unwrap();
            let reread = t.read(&key, &again).unwrap();
            assert!(reread.plaintext.same(&opened.plaintext) && !reread.stale, "{phase} {name}");
        }
        if matches!(&*resource, "secrets" | "configmaps") {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts
}

/// Phase, configuration, current and stale secrets and config maps, counted from the prefixes in
/// the corpus' own listings (and in p5 by the key ID).
const PHASES: [(&str, &str, usize, usize); 10] = [
    ("p1-secretbox", "p1-secretbox.yaml", 45, 32),
    ("p1b-partial-migration", "p1-secretbox.yaml", 53, 24),
    ("p2-aescbc", "p2-aescbc.yaml", 18, 95),
    ("p3-aesgcm", "p3-aesgcm.yaml", 18, 113),
    ("p4-kmsv1", "p4-kmsv1.yaml", 18, 131),
    ("p5-kmsv2", "p5-kmsv2.yaml", 18, 167),
    ("p6-mixed", "p6-sb2.yaml", 18, 185),
    ("p7-migrated-uncompacted", "p6-sb2.yaml", 112, 89),
    ("p8-compacted-not-defragged", "p6-sb2.yaml", 112, 89),
    ("p9-defragged", "p6-sb2.yaml", 112, 89),
];

#[test]
fn every_value_of_every_phase() {
    let plugs = Plugs::start("kek-2026-02");
    for (phase, config, current, stale) in PHASES {
        let counts = read_all(phase, &plugs.config(config), Arc::new(Plugins::new()));
        let want = BTreeMap::from([(Status::Current, current), (Status::Stale, stale)]);
        assert_eq!(counts, want, "{phase}");
    }
}

#[test]
fn no_phase_needs_more_calls_than_it_has_data_keys() {
    let plugs = Plugs::start("kek-2026-02");
    let plugins = Arc::new(Plugins::new());
    let all = Transformers::new(&plugs.config("p6-sb2.yaml"), Arc::clone(&plugins) as _).unwrap();
    let (mut v1, mut v2) = (0, std::collections::BTreeSet::new());
    for (resource, key, value) in entries("p6-mixed") {
        let opened = all.for_resource(&resource).read(&key, &value).unwrap();
        if value.starts_with(b"k8s:enc:kms:v1:") {
            v1 += 1;
        }
        v2.extend(opened.used.kms_key_id);
    }
    assert!(v1 > 0);
    assert_eq!(v2.len(), 2, "values of two key IDs");
    // One data key for each v1 value; the API server kept one seed for each key ID.
    assert_eq!(plugins.calls(), v1 + 2);
}

#[test]
fn without_the_plugins_only_their_values_are_unreadable() {
    let plugs = Plugs::start("kek-2026-02");
    let set = plugs.config("p6-sb2.yaml");
    let all = Transformers::new(&set, Arc::new(NoPlugins)).unwrap();
    for (resource, key, value) in entries("p6-mixed") {
        let read = all.for_resource(&resource).read(&key, &value);
        assert_eq!(read.is_err(), value.starts_with(b"k8s:enc:kms:"), "{}", key.escape_ascii());
    }
}

#[test]
fn a_value_moved_to_another_key_is_noticed_where_the_mode_can() {
    let plugs = Plugs::start("kek-2026-02");
    let all = Transformers::new(&plugs.config("p6-sb2.yaml"), Arc::new(Plugins::new())).unwrap();
    for (resource, _, value) in entries("p6-mixed") {
        let read = all.for_resource(&resource).read(b"/registry/secrets/x/y", &value);
        let bound = [&b"k8s:enc:aesgcm:"[..], b"k8s:enc:kms:"].iter().any(|p| value.starts_with(p));
        assert_eq!(read.is_err(), bound);
    }
}
