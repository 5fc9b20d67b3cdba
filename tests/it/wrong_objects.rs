//! Values that are read and are not what they should be: another entry's object, or none at all.

use std::path::{Path, PathBuf};

use atrest::config::{ConfigSet, load};
use atrest::kms::NoPlugins;
use atrest::secret::Plaintext;
use atrest::transform::Transformers;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::bin::Done;
use crate::support::plugs::{PHASES, Plugs};
use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus};

/// A configuration with one key, thrown away with the test.
struct Config {
    dir: tempfile::TempDir,
    transformers: Transformers,
}

impl Config {
    fn new(providers: &[&str]) -> Self {
        let secret = base64::prelude::BASE64_STANDARD.encode([7; 32]);
        let provider = |name: &&str| match *name {
            "identity" => "  - identity: {}\n".to_owned(),
            name => format!("  - {name}:\n      keys: [{{name: k, secret: {secret}}}]\n"),
        };
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: ['*.*']\n  providers:\n{}",
            providers.iter().map(provider).collect::<String>()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ec.yaml");
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let loaded = load(text.as_bytes(), "ec.yaml").unwrap();
        let set = ConfigSet::new(loaded).unwrap();
        let transformers = Transformers::new(&set, std::sync::Arc::new(NoPlugins)).unwrap();
        Self { dir, transformers }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ec.yaml")
    }

    /// What the API server would store at `key`.
    fn sealed(&self, key: &str, plain: &[u8]) -> Vec<u8> {
        let resource = if key.contains("/configmaps/") { "configmaps" } else { "secrets" };
        let transformers = self.transformers.for_resource(resource);
        transformers.write(key.as_bytes(), &Plaintext::new(plain.to_vec())).unwrap()
    }

    fn run(&self, words: &str, file: &Path) -> Done {
        let run = bin().words(words).arg("--snapshot").arg(file);
        run.arg("--encryption-config").arg(self.path()).run()
    }
}

fn object(kind: &str, namespace: &str, name: &str, uid: &str) -> Vec<u8> {
    let object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "data": {"password": "aHVudGVyMg=="},
    });
    atrest::storage::encode(&object).unwrap().to_vec()
}

fn entry<'a>(entries: &'a [Value], key: &str) -> &'a Value {
    entries.iter().find(|e| e["key"] == key).unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn nothing_that_an_api_server_wrote_is_misplaced_or_no_object() {
    for (phase, config, key_id) in PHASES {
        let plugs = Plugs::start(key_id);
        let report = bin()
            .words("scan --verify --all-resources -w json --snapshot")
            .arg(corpus::db(phase))
            .arg("--encryption-config")
            .arg(plugs.config(config))
            .run()
            .ok()
            .json();
        let totals = &report["totals"];
        assert!(totals["entries"].as_u64().unwrap() > 200, "{phase}");
        for word in ["misplaced", "unreadable", "unknown"] {
            assert_eq!(totals[word], 0, "{phase} {word}");
        }
    }
}

/// For every provider that does not authenticate the etcd key.
#[test]
fn a_copied_value_is_misplaced_and_its_origin_is_not() {
    let [from, to] = ["/registry/secrets/prod/db", "/registry/secrets/dev/app"];
    for provider in ["identity", "secretbox", "aescbc"] {
        let config = Config::new(&[provider]);
        let value = config.sealed(from, &object("Secret", "prod", "db", "uid-1"));
        let file = Crafted::new()
            .put(from, value.clone())
            .put(to, value.clone())
            .put("/registry/configmaps/prod/db", value.clone())
            .put(
                "/registry/secrets/dev/lost",
                config.sealed(from, &object("Secret", "dev", "gone", "uid-2")),
            )
            .put(
                "/registry/secrets/dev/old",
                config.sealed(from, &object("Secret", "prod", "db", "uid-0")),
            )
            .file();
        let scan = |more: &str| config.run(&format!("scan -w json {more}"), file.path());

        let done = scan("--verify --list").code(4);
        let report = done.json();
        assert_eq!(report["totals"]["misplaced"], 4, "{provider}");
        assert_eq!(report["totals"]["current"], 5, "{provider}: the API server reads them all");
        let entries = report["entries"].as_array().unwrap();
        assert!(entry(entries, from)["misplaced"].is_null(), "{provider}");
        assert!(entry(entries, from)["reason"].is_null(), "{provider}");
        let reason = |key: &str| entry(entries, key)["reason"].as_str().unwrap().to_owned();
        let here = "the object inside is Secret prod/db, UID uid-1; the same UID is at \
                    /registry/secrets/prod/db, where it belongs";
        assert_eq!(reason(to), here);
        assert_eq!(reason("/registry/configmaps/prod/db"), here, "another kind");
        assert!(reason("/registry/secrets/dev/lost").contains("nothing is at"));
        assert!(reason("/registry/secrets/dev/old").contains("an object with another UID"));
        let found = &entry(entries, to)["misplaced"];
        assert_eq!((&found["kind"], &found["namespace"]), (&"Secret".into(), &"prod".into()));
        assert_eq!((&found["at"], &found["uid"]), (&from.into(), &"uid-1".into()));
        done.says(&format!("warning: misplaced: {to}: {here}\n"));

        scan("--verify --fail-on misplaced").code(3);
        scan("--verify --fail-on stale,unreadable").code(4);
        scan("--fail-on misplaced").fails_with_hint(2);
        assert!(scan("").ok().json()["totals"]["misplaced"].is_null(), "nobody has looked");

        let get = |key: &str| config.run(&format!("get -w json {key}"), file.path()).ok();
        get(to).says(&format!("warning: misplaced: {to}: {here}"));
        assert_eq!(get(from).stderr, "");

        let out = tempfile::tempdir().unwrap();
        let export = |dir: &str, more: &str| {
            let dir = out.path().join(dir);
            let words =
                format!("export --resource secrets,configmaps --out {} {more}", dir.display());
            (config.run(&words, file.path()), dir.join("core/secrets/dev/app.yaml"))
        };
        let (done, moved) = export("without", "");
        assert!(!moved.exists());
        assert!(out.path().join("without/core/secrets/prod/db.yaml").exists());
        done.code(4).says(here).says("4 entries left out").says("--include-misplaced");
        let (done, moved) = export("with", "--include-misplaced");
        assert!(moved.exists());
        done.ok().says(here);
    }
}

/// AES-GCM authenticates the key: what is copied cannot be read, and what was encrypted for another
/// key by somebody who has the secret is misplaced all the same.
#[test]
fn a_value_that_was_encrypted_anew_for_another_key_is_misplaced() {
    let config = Config::new(&["aesgcm"]);
    let [from, to] = ["/registry/secrets/prod/db", "/registry/secrets/dev/app"];
    let plain = object("Secret", "prod", "db", "uid-1");
    let file = Crafted::new()
        .put(from, config.sealed(from, &plain))
        .put(to, config.sealed(to, &plain))
        .put("/registry/secrets/dev/copy", config.sealed(from, &plain))
        .file();
    let report = config.run("scan --verify -w json --list", file.path()).code(4).json();
    assert_eq!(report["totals"]["misplaced"], 1);
    assert_eq!(report["totals"]["unreadable"], 1);
    let entries = report["entries"].as_array().unwrap();
    assert_eq!(entry(entries, to)["misplaced"]["at"], from);
}

/// Of real clusters: one Secret's value over another's key is either found to be misplaced or,
/// where the provider authenticates the key, not readable, for every provider and never well.
#[test]
fn a_value_of_the_corpus_over_another_key_is_never_well() {
    for (phase, provider, version, authenticated) in [
        ("p0-plaintext", "identity", None, false),
        ("p1-secretbox", "secretbox", Some("v1"), false),
        ("p2-aescbc", "aescbc", Some("v1"), false),
        ("p3-aesgcm", "aesgcm", Some("v1"), true),
        ("p4-kmsv1", "kms", Some("v1"), true),
        ("p5-kmsv2", "kms", Some("v2"), true),
    ] {
        let (_, config, key_id) = PHASES.into_iter().find(|p| p.0 == phase).unwrap();
        let plugs = Plugs::start(key_id);
        let config = plugs.config(config);
        let run = |words: &str, file: &Path| {
            let run = bin().words(words).arg("--encryption-config").arg(&config);
            run.arg("--snapshot").arg(file).run()
        };
        let listed = run("scan --list -w json", &corpus::db(phase)).json();
        let of_provider = |e: &&Value| {
            e["provider"] == provider && e["version"] == json!(version) && e["namespace"] != ""
        };
        let entries = listed["entries"].as_array().unwrap();
        let keys: Vec<&str> =
            entries.iter().filter(of_provider).map(|e| e["key"].as_str().unwrap()).collect();
        let from = *keys.iter().find(|k| k.ends_with("/login2")).unwrap_or(&keys[0]);
        let over = *keys.iter().find(|k| **k != from).unwrap_or(&"/registry/secrets/a/sb-1");
        let value = value_at(&corpus::db(phase), from);
        let file = Crafted::new().put(from, value.clone()).put(over, value).file();

        let done = run("scan --verify --list -w json", file.path()).code(4);
        let report = done.json();
        let count = |word: &str| report["totals"][word].as_u64().unwrap();
        let found = (count("misplaced"), count("unreadable"));
        assert_eq!(found, if authenticated { (0, 1) } else { (1, 0) }, "{phase}: {done}");
        let word = if authenticated { "unreadable" } else { "misplaced" };
        run(&format!("scan --verify --fail-on {word}"), file.path()).code(3);
        let entries = report["entries"].as_array().unwrap();
        let origin = entry(entries, from);
        assert!(origin["misplaced"].is_null(), "{phase}: the origin is well");
        assert_ne!(origin["status"], "unreadable", "{phase}: the origin is well");
        let get = run(&format!("get {over}"), file.path());
        assert_eq!(get.code, Some(if authenticated { 4 } else { 0 }), "{phase}: {get}");
        assert!(get.stderr.contains("warning: "), "{phase}: {get}");
        let export = run("export -w json", file.path()).code(4).json();
        assert_eq!(export["items"].as_array().map_or(1, Vec::len), 1, "{phase}: it was exported");
    }
}

/// The stored bytes at a key.
fn value_at(file: &Path, key: &str) -> Vec<u8> {
    use atrest::source::{KeyRange, Query, Source as _, snapshot};
    let mut value = Vec::new();
    let ranges = vec![KeyRange::single(key.as_bytes())];
    let query = Query { ranges, revision: None, ordered: false };
    let options = snapshot::SnapshotOptions::default();
    let mut source = snapshot::Snapshot::open(file, &options).unwrap();
    let visit = source.visit(&query, &mut |e| {
        value = e.stored().to_vec();
        std::ops::ControlFlow::Continue(())
    });
    visit.unwrap();
    value
}

#[test]
fn a_value_that_is_no_object_is_named_everywhere_and_never_counted_as_good() {
    let whole = object("Secret", "a", "b", "u");
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty", b"", "the value is empty"),
        ("garbage", b"\xf3\x91\x00garbage", "its 10 bytes begin as no encoding"),
        ("cut", &whole[..whole.len() - 20], "protobuf that is damaged or cut off"),
        ("json", b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\"", "JSON that is damaged or cut off"),
        ("twice", b"k8s:enc:secretbox:v1:k:xx", "inside is another encrypted value"),
    ];
    // Both ways round: what is written is encrypted, or nothing is. AES-CBC without a tag takes
    // what is no object for another key's, which the words say as well.
    for providers in [["secretbox", "identity"], ["aesgcm", "identity"], ["identity", "aescbc"]] {
        let config = Config::new(&providers);
        let plainly = providers[0] == "identity";
        let mut crafted =
            Crafted::new().put("/registry/secrets/a/good", object("Secret", "a", "good", "v"));
        let cases: Vec<_> = cases.iter().filter(|c| !plainly || c.0 != "twice").collect();
        for (name, value, _) in &cases {
            let key = format!("/registry/secrets/a/{name}");
            let value = if plainly { value.to_vec() } else { config.sealed(&key, value) };
            crafted = crafted.put(key, value);
        }
        let file = crafted.file();
        let report = config.run("scan --verify -w json --list", file.path()).code(4).json();
        assert_eq!(report["totals"]["unreadable"], cases.len(), "{providers:?}");
        let entries = report["entries"].as_array().unwrap();
        let how = if plainly { "stored unencrypted" } else { "decrypted with" };
        for (name, _, why) in &cases {
            let key = format!("/registry/secrets/a/{name}");
            let found = entry(entries, &key);
            assert_eq!(found["status"], "unreadable", "{found}");
            let reason = found["reason"].as_str().unwrap();
            assert!(reason.starts_with(how) && reason.contains(why), "{reason}");
            assert!(reason.contains("but no Kubernetes object: "), "{reason}");
            config.run(&format!("get {key}"), file.path()).code(4).says(why);
            let history = config.run(&format!("history -w jsonl {key}"), file.path()).code(4);
            assert_eq!(history.jsonl()[0]["status"], "unreadable");
            assert_eq!(history.jsonl()[0]["reason"], found["reason"]);
            history.says(&key);
        }
        config.run("scan --verify --fail-on unreadable", file.path()).code(3);
        let export = config.run("export -w json --resource secrets", file.path()).code(4);
        assert_eq!(export.json()["items"].as_array().unwrap().len(), 1);
        for (name, ..) in &cases {
            let key = format!("/registry/secrets/a/{name}");
            assert!(export.stderr.contains(&key), "{export}");
        }
    }
}

/// `--storage-media-type=application/yaml`.
#[test]
fn objects_that_are_stored_as_yaml_are_objects() {
    let yaml = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: a\n  uid: u\n\
                data:\n  password: aHVudGVyMg==\ntype: Opaque\n";
    for provider in ["identity", "secretbox", "aescbc"] {
        let config = Config::new(&[provider]);
        let [key, other] = ["/registry/secrets/a/s", "/registry/secrets/a/t"];
        let value = config.sealed(key, yaml.as_bytes());
        let file = Crafted::new().put(key, value.clone()).put(other, value).file();
        let report = config.run("scan --verify -w json", file.path()).code(4).json();
        assert_eq!(report["totals"]["current"], 2, "{provider}");
        assert_eq!(report["totals"]["misplaced"], 1, "{provider}");
        let get = config.run(&format!("get -w json --reveal {key}"), file.path()).ok().json();
        assert_eq!(get["data"]["password"], "aHVudGVyMg==");
        assert_eq!(get["metadata"]["resourceVersion"], "2");
    }
}

/// Nobody can say whether a KMS key ID is the current one while the plugin is away.
#[test]
fn what_cannot_be_decided_is_unknown() {
    let scan = |config: &Path, more: &str| {
        let run = bin().words("scan -w json --resource secrets --snapshot");
        let run = run.arg(corpus::db("p5-kmsv2")).arg("--encryption-config").arg(config);
        run.words(more).run()
    };
    let away = corpus::config("p5-kmsv2");
    let plugs = Plugs::start("kek-2026-02");
    let there = scan(&plugs.config("p5-kmsv2"), "").ok().json();
    assert_eq!(there["totals"]["unknown"], 0);
    let done = scan(&away, "--list").ok();
    let report = done.json();
    let unknown = report["totals"]["unknown"].as_u64().unwrap();
    assert!(unknown > 10);
    assert_eq!(report["totals"]["current"], 0);
    for entry in report["entries"].as_array().unwrap() {
        let is = entry["status"] == "unknown";
        assert_eq!(is, entry["version"] == "v2", "{entry}");
        assert!(!is || entry["reason"].as_str().unwrap().contains("cannot be reached"), "{entry}");
    }
    // One cause for each key ID, one line each.
    let lines = done.stderr.lines().filter(|l| l.contains("current or stale, unknown: "));
    assert_eq!(lines.count(), 2, "{done}");
    scan(&away, "--fail-on unknown").code(3);
    scan(&away, "--fail-on stale").code(3);
    scan(&away, "--fail-on current,unreadable").ok();
}

/// A kind that is stored as protobuf and not known here, as OpenShift's are: its spec is there, and
/// nobody can say what it means.
#[test]
fn a_kind_without_a_schema_is_never_written_as_a_manifest() {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    };
    let metadata = [field(1, b"web"), field(3, b"app"), field(5, b"uid-1")].concat();
    let body = [field(1, &metadata), field(2, &field(1, b"web.example.com"))].concat();
    let types = [field(1, b"route.openshift.io/v1"), field(2, b"Route")].concat();
    let value = [&b"k8s\0"[..], &field(1, &types), &field(2, &body), &[0x1a, 0, 0x22, 0]].concat();
    let key = "/openshift.io/routes/app/web";
    let secret = object("Secret", "app", "s", "uid-2");
    let file = Crafted::new().put(key, value.clone()).put("/openshift.io/secrets/app/s", secret);
    let file = file.file();
    let run = |words: &str| {
        bin().words(words).words("--prefix /openshift.io/ --snapshot").arg(file.path()).run()
    };
    let why = "the kind Route of route.openshift.io/v1 is stored as protobuf";

    let get = run(&format!("get -w json {key}")).code(4).says(why);
    assert_eq!(get.json()["metadata"]["name"], "web");
    let export = run("export --all-resources -w json").code(4).says(why).says(key);
    let items = export.json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 1, "the Secret alone");
    assert_eq!(items[0]["kind"], "Secret");

    let out = tempfile::tempdir().unwrap();
    let words = format!("export --all-resources --out {}/x", out.path().display());
    let done = run(&words).code(4).says(why).says("1 object written").says("1 entry could not be");
    let below = out.path().join("x/route.openshift.io/routes/app");
    assert!(!below.join("web.yaml").exists(), "{done}");
    assert_eq!(std::fs::read(below.join("web.protobuf")).unwrap(), value);
    let reason = std::fs::read_to_string(below.join("web.protobuf.txt")).unwrap();
    assert!(reason.starts_with(why), "{reason}");
}
