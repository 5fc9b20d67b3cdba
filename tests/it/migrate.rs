//! `migrate` on real etcd servers with the corpus in them.

pub mod all_objects;
pub mod canary;
pub mod confirm;
mod edges;
mod evidence;
mod no_object;
pub mod servers;
mod storage_version;
mod trouble;
mod via_api;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use atrest::config::{ConfigSet, load};
use atrest::kms::Plugins;
use atrest::resource::{DEFAULT_PREFIX, Scope};
use atrest::transform::Transformers;

use crate::support::bin::Bin;
use crate::support::certs::Certs;
use crate::support::plugs::Plugs;
use crate::support::{Etcd, Version, bin, corpus, secret};

/// One live key as a Range shows it.
#[derive(Clone, PartialEq, Eq)]
struct Row {
    create: i64,
    modified: i64,
    version: i64,
    lease: i64,
    value: Vec<u8>,
}

type State = BTreeMap<String, Row>;

fn state(etcd: &Etcd) -> State {
    let out = etcd.ctl(&["get", "--prefix", "/registry/", "-w", "json"]);
    let document: Value = serde_json::from_slice(&out).unwrap();
    let rows = document["kvs"].as_array().cloned().unwrap_or_default();
    let bytes = |v: &Value| STANDARD.decode(v.as_str().unwrap_or_default()).unwrap();
    rows.iter()
        .map(|kv| {
            let number = |name: &str| kv[name].as_i64().unwrap_or(0);
            let row = Row {
                create: number("create_revision"),
                modified: number("mod_revision"),
                version: number("version"),
                lease: number("lease"),
                value: bytes(&kv["value"]),
            };
            (String::from_utf8(bytes(&kv["key"])).unwrap(), row)
        })
        .collect()
}

/// Reads values with configurations, as `migrate` is given them.
fn transformers(configs: &[&Path]) -> Transformers {
    let load = |path: &&Path| load(&fs::read(path).unwrap(), "test").unwrap();
    let set = ConfigSet::new(configs.iter().flat_map(load).collect()).unwrap();
    Transformers::new(&set, Arc::new(Plugins::new())).unwrap()
}

/// Plaintext of the values that the configurations read, and whether they are current.
fn plain(state: &State, transformers: &Transformers) -> BTreeMap<String, (Vec<u8>, bool)> {
    let scope = Scope::new(DEFAULT_PREFIX);
    let mut all = BTreeMap::new();
    for (key, row) in state {
        let location = scope.locate(key.as_bytes());
        let t = transformers.for_resource(&location.resource);
        if let Ok(opened) = t.read(key.as_bytes(), &row.value) {
            all.insert(key.clone(), (opened.plaintext.expose().to_vec(), !opened.stale));
        }
    }
    all
}

fn migrate(etcd: &Etcd, configs: &[&Path], words: &str) -> Bin {
    let mut bin = bin().words("migrate").args(etcd.args());
    for config in configs {
        bin = bin.arg("--encryption-config").arg(config);
    }
    // Last, so that a test can add the value of the last option.
    bin.words(words)
}

fn private(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("{name}.yaml"));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A configuration with one provider first.
fn config(dir: &Path, name: &str, provider: &str) -> PathBuf {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, configmaps, widgets.example.com]\n  providers:\n  - {provider}\n"
    );
    private(dir, name, &text)
}

fn number(document: &Value, name: &str) -> u64 {
    document[name].as_u64().unwrap_or_else(|| panic!("{name} is no number"))
}

/// Applies, and checks everything that must hold afterwards; returns the report.
#[track_caller]
fn applied(etcd: &Etcd, configs: &[&Path], words: &str) -> Value {
    let transformers = transformers(configs);
    let before = state(etcd);
    let old = plain(&before, &transformers);
    let done = migrate(etcd, configs, words).words("--apply --no-backup -w json").run().ok();
    let report = done.json();
    assert_eq!(report["schema"], "atrest.migrate/v1");
    assert_eq!(report["failed"].as_array().unwrap().len(), 0, "{done}");
    assert_eq!((number(&report, "remaining"), number(&report, "conflicts")), (0, 0));
    assert_eq!(number(&report, "planned"), number(&report, "written"));
    assert_eq!(number(&report, "verified"), number(&report, "written"));
    let after = state(etcd);
    let new = plain(&after, &transformers);
    assert!(before.keys().eq(after.keys()), "keys came or went");
    let mut rewritten = 0;
    let mut revisions = BTreeSet::new();
    for (key, was) in &before {
        let is = &after[key];
        assert_eq!((was.create, was.lease), (is.create, is.lease), "{key}");
        if was == is {
            continue;
        }
        rewritten += 1;
        let new_revision = revisions.insert(is.modified);
        assert!(new_revision || words.contains("--batch"), "{key} shares its revision");
        assert!(is.modified > was.modified && is.version == was.version + 1, "{key}");
        assert!(old[key].0 == new[key].0, "{key} has another plaintext");
        assert!(!old[key].1 && new[key].1, "{key} was current, or still is not");
    }
    assert_eq!(number(&report, "written"), rewritten);
    report
}

#[test]
fn a_partial_migration_is_completed() {
    for version in [Version::V34, Version::V35] {
        completed(version);
    }
}

fn completed(version: Version) {
    let etcd = Etcd::restored(version, &corpus::db("p1b-partial-migration"));
    let config = corpus::private_config("p1-secretbox");
    let before = state(&etcd);
    let plan = migrate(&etcd, &[&config], "-w json").run().ok().says("every API server").json();
    assert_eq!(plan["applied"], false);
    let planned = number(&plan, "planned");
    assert!(planned > 0 && number(&plan, "remaining") == planned);
    assert_eq!((number(&plan, "written"), number(&plan, "verified")), (0, 0));
    let group = &plan["groups"][0];
    assert_eq!((&group["provider"], &group["entries"]), (&"identity".into(), &planned.into()));
    assert_eq!(group["to"]["key"], "secret-key-1");
    assert!(state(&etcd) == before, "a plan wrote something");

    let report = applied(&etcd, &[&config], "");
    assert_eq!(number(&report, "written"), planned);
    bin()
        .words("scan --verify --fail-on stale,plaintext,unreadable")
        .args(etcd.args())
        .arg("--encryption-config")
        .arg(&config)
        .run()
        .ok();
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 0);
}

/// What a cluster has once everything is rewritten, next to kubectl's truth from before: equal
/// but for the resource versions, which are the rewritten revisions.
#[track_caller]
fn equals_kubectls(etcd: &Etcd, configs: &[&Path], phase: &str) {
    let mut bin = bin().words("export --resource secrets --resource configmaps -w json");
    for config in configs {
        bin = bin.arg("--encryption-config").arg(config);
    }
    let ours = bin.args(etcd.args()).run().ok().json();
    let objects = |list: &Value| -> BTreeMap<String, Value> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|object| {
                let mut object = object.clone();
                let meta = object["metadata"].as_object_mut().unwrap();
                assert!(meta.remove("resourceVersion").is_some());
                let name = format!(
                    "{}/{}/{}",
                    object["kind"],
                    meta_of(&object, "namespace"),
                    meta_of(&object, "name")
                );
                (name, object)
            })
            .collect()
    };
    let (ours, theirs) = (objects(&ours), objects(&corpus::kubectl(phase)));
    assert!(ours.keys().eq(theirs.keys()), "{phase}: objects came or went");
    let different: Vec<_> =
        ours.iter().filter(|(k, v)| theirs[*k] != **v).map(|(k, _)| k).collect();
    assert!(different.is_empty(), "{phase}: {different:?}");
}

fn meta_of(object: &Value, name: &str) -> String {
    object["metadata"][name].as_str().unwrap_or_default().to_owned()
}

/// Providers to write with: name, and YAML.
fn providers(plugs: &Plugs) -> Vec<(&'static str, String)> {
    let key = |n: u8| STANDARD.encode([n; 32]);
    let kms = |version: &str| {
        let socket = plugs.dir().join(format!("{version}.sock"));
        format!(
            "kms: {{apiVersion: {version}, name: vault-{version}, endpoint: 'unix://{}'}}",
            socket.display()
        )
    };
    vec![
        ("secretbox", format!("secretbox: {{keys: [{{name: s, secret: {}}}]}}", key(1))),
        ("secretbox2", format!("secretbox: {{keys: [{{name: s2, secret: {}}}]}}", key(2))),
        ("aescbc", format!("aescbc: {{keys: [{{name: c, secret: {}}}]}}", key(3))),
        ("aesgcm", format!("aesgcm: {{keys: [{{name: g, secret: {}}}]}}", key(4))),
        ("kmsv1", kms("v1")),
        ("kmsv2", kms("v2")),
    ]
}

#[test]
fn values_go_from_every_provider_to_every_other_and_back() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p6-mixed"));
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let mut steps = providers(&plugs);
    steps.push(("identity", "identity: {}".to_owned()));
    steps.push(steps[0].clone());
    let mut previous = plugs.config("p6-sb2");
    for (name, provider) in steps {
        let next = config(dir.path(), name, &provider);
        let report = applied(&etcd, &[&next, &previous], "");
        assert!(number(&report, "written") > 10, "{name}");
        let prefix: &[u8] = if name == "identity" { b"k8s:enc:" } else { b"k8s\0" };
        let left = |(key, row): &(&String, &Row)| {
            key.starts_with("/registry/secrets/") && row.value.starts_with(prefix)
        };
        assert_eq!(state(&etcd).iter().filter(left).count(), 0, "{name}");
        equals_kubectls(&etcd, &[&next], "p6-mixed");
        if name == "kmsv2" {
            // The same configuration, but the plugin has another key now.
            assert_eq!(number(&applied(&etcd, &[&next], ""), "written"), 0);
            plugs.rotate("kek-2027-01");
            let rotated = applied(&etcd, &[&next], "");
            assert_eq!(number(&rotated, "written"), number(&report, "written"));
            let group = &rotated["groups"][0];
            assert_eq!(group["kms_key_id"], "kek-2026-02");
            assert_eq!(group["to"]["kms_key_id"], "kek-2027-01");
            equals_kubectls(&etcd, &[&next], "p6-mixed");
        }
        assert_eq!(number(&applied(&etcd, &[&next, &previous], ""), "written"), 0, "{name}");
        previous = next;
    }
}

#[test]
fn a_mixture_becomes_one_key_and_what_has_it_stays() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p6-mixed"));
    let plugs = Plugs::start("kek-2026-02");
    let config = plugs.config("p6-sb2");
    let planned = migrate(&etcd, &[&config], "-w json").run().ok().json();
    let report = applied(&etcd, &[&config], "");
    assert_eq!(planned["groups"], report["groups"]);
    assert!(number(&report, "current_before") > 0 && number(&report, "written") > 10);
    let from: BTreeSet<_> = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["provider"].as_str().unwrap())
        .collect();
    assert!(from.len() >= 5, "{from:?}");
    equals_kubectls(&etcd, &[&config], "p6-mixed");
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 0);
}

#[test]
fn plaintext_goes_to_every_provider_and_back() {
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let old = corpus::private_config("p1-secretbox");
    for (name, provider) in providers(&plugs) {
        let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
        let next = config(dir.path(), name, &format!("{provider}\n  - identity: {{}}"));
        let report = applied(&etcd, &[&next, &old], "");
        let rows = report["groups"].as_array().unwrap();
        assert!(rows.iter().any(|g| g["provider"] == "identity"), "{name}");
        // What was said about sizes is true to within padding.
        let said: u64 = rows.iter().map(|g| number(g, "bytes_after")).sum();
        let planned = number(&report, "planned");
        let rewritten = state(&etcd).into_values().filter(|r| r.value.starts_with(b"k8s:enc:"));
        let (entries, bytes) =
            rewritten.fold((0, 0), |(n, b), r| (n + 1, b + r.value.len() as u64));
        assert_eq!(entries, planned, "{name}");
        assert!(said.abs_diff(bytes) <= 8 * planned, "{name}: said {said}, was {bytes}");
        equals_kubectls(&etcd, &[&next], "p1b-partial-migration");
        let identity = config(dir.path(), "identity", "identity: {}");
        let back = applied(&etcd, &[&identity, &next], "");
        assert_eq!(number(&back, "written"), planned, "{name}");
        assert!(!state(&etcd).values().any(|r| r.value.starts_with(b"k8s:enc:")), "{name}");
        equals_kubectls(&etcd, &[&identity], "p1b-partial-migration");
    }
}

#[test]
fn leases_are_kept_over_tls_too() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    let granted = String::from_utf8(etcd.ctl(&["lease", "grant", "3600"])).unwrap();
    let lease = granted.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", "--lease", lease, "/registry/secrets/a/leased", &secret("leased")]);
    etcd.put("/registry/secrets/a/free", secret("value").as_bytes());
    let config = corpus::private_config("p1-secretbox");
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 2);
    let after = state(&etcd);
    assert_eq!(after["/registry/secrets/a/leased"].lease, i64::from_str_radix(lease, 16).unwrap());
    assert_eq!(after["/registry/secrets/a/free"].lease, 0);
}

#[test]
fn unreadable_entries_stay_and_are_reported() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/lost", b"k8s:enc:secretbox:v1:gone:xxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    etcd.put("/registry/secrets/a/plain", secret("value").as_bytes());
    let config = corpus::private_config("p1-secretbox");
    let before = state(&etcd);
    let done = migrate(&etcd, &[&config], "--apply --no-backup -w json").run();
    let report = done.code(4).says("/registry/secrets/a/lost").json();
    assert_eq!((number(&report, "written"), number(&report, "remaining")), (1, 1));
    assert_eq!(report["failed"][0]["key"], "/registry/secrets/a/lost");
    let after = state(&etcd);
    let lost = "/registry/secrets/a/lost";
    assert!(before[lost] == after[lost]);
}

#[test]
fn a_backup_comes_first_and_is_a_snapshot() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
    let config = corpus::private_config("p1-secretbox");
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup.db");
    let before = state(&etcd);
    let run = || migrate(&etcd, &[&config], "--apply --backup").arg(&backup).run();
    run().ok();
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let restored = Etcd::restored(Version::V35, &backup);
    assert!(state(&restored) == before, "the backup is not what was there before");
    // Nothing is left to do, so nothing happens to the file.
    run().ok();
    etcd.put("/registry/secrets/a/late", secret("value").as_bytes());
    run().fails_with_hint(1).says("exists already");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
    // Without a name the backup is in the working directory.
    let cwd = tempfile::tempdir().unwrap();
    let done = migrate(&etcd, &[&config], "--apply").current_dir(cwd.path()).run().ok();
    let mut names = fs::read_dir(cwd.path()).unwrap();
    let file = names.next().unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let name = file.file_name().into_string().unwrap();
    assert!(name.starts_with("atrest-backup-") && names.next().is_none(), "{name}");
    done.says(&name);
}

#[test]
fn other_masters_must_have_the_same_configuration() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", secret("value").as_bytes());
    let config = corpus::private_config("p1-secretbox");
    let other = corpus::private_config("p6-sb2");
    let run = |file: &Path| {
        migrate(&etcd, &[&config], "--apply --no-backup --confirm-config").arg(file).run()
    };
    run(&other).fails_with_hint(1).says("differs");
    assert!(etcd.get("/registry/secrets/a/plain").unwrap() == secret("value").as_bytes());
    let done = run(&corpus::config("p1-secretbox")).ok();
    assert!(!done.stderr.contains("every API server"), "{done}");
}

#[test]
fn a_plugin_that_does_not_answer_stops_everything_before_the_first_write() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", secret("value").as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let provider = format!(
        "kms: {{apiVersion: v2, name: none, endpoint: 'unix://{}'}}\n  - identity: {{}}",
        dir.path().join("none.sock").display()
    );
    let config = config(dir.path(), "none", &provider);
    migrate(&etcd, &[&config], "--apply --no-backup").run().fails(1).says("cannot be used");
    assert!(etcd.get("/registry/secrets/a/plain").unwrap() == secret("value").as_bytes());
}

#[test]
fn large_values_share_no_transaction() {
    let etcd = Etcd::plain(Version::V35);
    for i in 0..4 {
        let value = secret(&"x".repeat(900_000));
        etcd.put(&format!("/registry/secrets/a/big{i}"), value.as_bytes());
    }
    let config = corpus::private_config("p1-secretbox");
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 4);
    let modified: Vec<_> = state(&etcd).values().map(|r| r.modified).collect();
    assert_eq!(modified.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn usage_is_checked() {
    let config = corpus::private_config("p1-secretbox");
    let run = |words: &str| {
        let bin = bin().words("migrate --endpoints 127.0.0.1:1").words(words);
        bin.arg("--encryption-config").arg(&config).run()
    };
    run("--revision 5").fails(2);
    run("--apply --backup x --no-backup").code(2);
    run("--qps 0").code(2);
    run("--batch 129").code(2);
    run("--batch 2").fails_with_hint(2).says("--no-apiserver");
    bin().words("migrate --endpoints 127.0.0.1:1").run().fails_with_hint(2);
    bin()
        .words("migrate --snapshot x --encryption-config")
        .arg(&config)
        .run()
        .fails_with_hint(2)
        .says("rewrite");
    run("").fails_with_hint(1).says("cannot connect");
}
