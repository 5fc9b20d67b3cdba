//! `migrate` on real etcd servers with the corpus in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use atrest::config::{ConfigSet, load};
use atrest::kms::Plugins;
use atrest::resource::{DEFAULT_PREFIX, Scope};
use atrest::transform::Transformers;

use crate::support::bin::Bin;
use crate::support::plugs::Plugs;
use crate::support::{Etcd, Version, bin, corpus};

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
    for (key, was) in &before {
        let is = &after[key];
        assert_eq!((was.create, was.lease), (is.create, is.lease), "{key}");
        if was == is {
            continue;
        }
        rewritten += 1;
        assert!(is.modified > was.modified && is.version == was.version + 1, "{key}");
        assert!(old[key].0 == new[key].0, "{key} has another plaintext");
        assert!(!old[key].1 && new[key].1, "{key} was current, or still is not");
    }
    assert_eq!(number(&report, "written"), rewritten);
    report
}

#[test]
fn a_partial_migration_is_completed() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
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

#[test]
fn values_go_from_every_provider_to_every_other_and_back() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p6-mixed"));
    let plugs = Plugs::start("kek-2026-02");
    let dir = tempfile::tempdir().unwrap();
    let key = |n: u8| STANDARD.encode([n; 32]);
    let kms = |version: &str| {
        let socket = dir_of(&plugs).join(format!("{version}.sock"));
        format!(
            "kms: {{apiVersion: {version}, name: vault-{version}, endpoint: 'unix://{}'}}",
            socket.display()
        )
    };
    let steps = [
        ("secretbox", format!("secretbox: {{keys: [{{name: s, secret: {}}}]}}", key(1))),
        ("secretbox2", format!("secretbox: {{keys: [{{name: s2, secret: {}}}]}}", key(2))),
        ("aescbc", format!("aescbc: {{keys: [{{name: c, secret: {}}}]}}", key(3))),
        ("aesgcm", format!("aesgcm: {{keys: [{{name: g, secret: {}}}]}}", key(4))),
        ("kmsv1", kms("v1")),
        ("kmsv2", kms("v2")),
        ("identity", "identity: {}".to_owned()),
        ("secretbox3", format!("secretbox: {{keys: [{{name: s3, secret: {}}}]}}", key(5))),
    ];
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
        previous = next;
    }
}

/// Where the plugins' sockets are.
fn dir_of(plugs: &Plugs) -> PathBuf {
    plugs.config("p6-sb2").parent().unwrap().to_owned()
}

#[test]
fn leases_are_kept() {
    let etcd = Etcd::plain(Version::V35);
    let granted = String::from_utf8(etcd.ctl(&["lease", "grant", "3600"])).unwrap();
    let lease = granted.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", "--lease", lease, "/registry/secrets/a/leased", "k8s"]);
    etcd.put("/registry/secrets/a/free", b"k8s\0value");
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
    etcd.put("/registry/secrets/a/plain", b"k8s\0value");
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
    etcd.put("/registry/secrets/a/late", b"k8s\0value");
    run().fails_with_hint(1).says("exists already");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left behind");
    // Without a name the backup is in the working directory.
    let cwd = tempfile::tempdir().unwrap();
    let done = migrate(&etcd, &[&config], "--apply").current_dir(cwd.path()).run().ok();
    let mut names = fs::read_dir(cwd.path()).unwrap();
    let name = names.next().unwrap().unwrap().file_name().into_string().unwrap();
    assert!(name.starts_with("atrest-backup-") && names.next().is_none(), "{name}");
    done.says(&name);
}

#[test]
fn other_masters_must_have_the_same_configuration() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", b"k8s\0value");
    let config = corpus::private_config("p1-secretbox");
    let other = corpus::private_config("p6-sb2");
    let run = |file: &Path| {
        migrate(&etcd, &[&config], "--apply --no-backup --confirm-config").arg(file).run()
    };
    run(&other).fails_with_hint(1).says("differs");
    assert!(etcd.get("/registry/secrets/a/plain").unwrap() == b"k8s\0value");
    let done = run(&corpus::config("p1-secretbox")).ok();
    assert!(!done.stderr.contains("every API server"), "{done}");
}

#[test]
fn a_plugin_that_does_not_answer_stops_everything_before_the_first_write() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", b"k8s\0value");
    let dir = tempfile::tempdir().unwrap();
    let provider = format!(
        "kms: {{apiVersion: v2, name: none, endpoint: 'unix://{}'}}\n  - identity: {{}}",
        dir.path().join("none.sock").display()
    );
    let config = config(dir.path(), "none", &provider);
    migrate(&etcd, &[&config], "--apply --no-backup").run().fails(1).says("cannot be used");
    assert!(etcd.get("/registry/secrets/a/plain").unwrap() == b"k8s\0value");
}

#[test]
fn a_full_database_is_said_before_anything_is_tried() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", b"k8s\0value");
    let config = corpus::private_config("p1-secretbox");
    let small = Etcd::builder(Version::V35).arg("--quota-backend-bytes=200000").start();
    small.put("/registry/secrets/a/plain", b"k8s\0value");
    let big = "x".repeat(120_000);
    for i in 0..8 {
        small.try_ctl(&["put", &format!("/fill/{i}")], big.as_bytes());
    }
    let alarms = String::from_utf8(small.ctl(&["alarm", "list"])).unwrap();
    assert!(alarms.contains("NOSPACE"), "{alarms}");
    migrate(&small, &[&config], "").run().ok().says("NOSPACE");
    migrate(&small, &[&config], "--apply --no-backup").run().fails_with_hint(1).says("quota");
    drop(etcd);
}

/// The plain values that the writer of [`under_change`] leaves.
fn values(etcd: &Etcd, config: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = plain(&state(etcd), &transformers(&[config]));
    all.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

#[test]
fn what_others_write_meanwhile_is_never_overwritten() {
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..300).map(|i| (name(i), format!("plain{i}"))));
    let config = corpus::private_config("p1-secretbox");
    let stop = AtomicBool::new(false);
    let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let report = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut model, mut n) = (BTreeMap::new(), 0usize);
            while !stop.load(Ordering::Relaxed) {
                let key = name(n * 37 % 300);
                if n % 5 == 4 {
                    etcd.ctl(&["del", &key]);
                    model.insert(key, None);
                } else {
                    etcd.put(&key, format!("changed{n}").as_bytes());
                    model.insert(key, Some(format!("changed{n}").into_bytes()));
                }
                n += 1;
            }
            model
        });
        let run = migrate(&etcd, &[&config], "--apply --no-backup --qps 150 --batch 16 -w json");
        let done = run.run();
        stop.store(true, Ordering::Relaxed);
        for i in 0..300 {
            expected.insert(name(i), format!("plain{i}").into_bytes());
        }
        for (key, value) in writer.join().unwrap() {
            match value {
                Some(value) => expected.insert(key, value),
                None => expected.remove(&key),
            };
        }
        assert!(matches!(done.code, Some(0 | 4)), "{done}");
        done.json()
    });
    assert!(number(&report, "written") > 0);
    // What was written in plaintext at the very end is for the next run.
    migrate(&etcd, &[&config], "--apply --no-backup").run().ok();
    assert!(values(&etcd, &config) == expected, "an update was lost, or a key came back");
}

#[test]
fn a_killed_run_is_continued() {
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..400).map(|i| (name(i), format!("plain{i}"))));
    let before = state(&etcd);
    let config = corpus::private_config("p1-secretbox");
    let encrypted = || {
        let state = state(&etcd);
        state.values().filter(|r| r.value.starts_with(b"k8s:enc:")).count() as u64
    };
    let wait = |least: u64| {
        while encrypted() < least {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let slow = || migrate(&etcd, &[&config], "--apply --no-backup --qps 100 -w json");
    let mut child = slow().spawn();
    wait(20);
    child.kill().unwrap();
    child.wait().unwrap();
    let first = encrypted();
    assert!(first < 400, "the run was too fast to be killed");

    // An interrupt ends what is in flight and says what was done.
    let child = slow().spawn();
    wait(first + 20);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    let second = encrypted();
    assert_eq!(number(&report, "written"), second - first);
    assert_eq!(number(&report, "verified"), number(&report, "written"));
    assert_eq!(number(&report, "remaining"), 400 - second);

    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 400 - second);
    let after = state(&etcd);
    for (key, row) in &before {
        // Every entry was rewritten exactly once.
        assert_eq!(after[key].version, row.version + 1, "{key}");
    }
    let expected: BTreeMap<_, _> = before.into_iter().map(|(k, r)| (k, r.value)).collect();
    assert!(values(&etcd, &config) == expected);
}

#[test]
fn large_values_share_no_transaction() {
    let etcd = Etcd::plain(Version::V35);
    for i in 0..4 {
        let mut value = b"k8s\0".to_vec();
        value.resize(900_000, b'x');
        etcd.put(&format!("/registry/secrets/a/big{i}"), &value);
    }
    let config = corpus::private_config("p1-secretbox");
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 4);
    let modified: Vec<_> = state(&etcd).values().map(|r| r.modified).collect();
    assert_eq!(modified.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
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
    bin().words("migrate --endpoints 127.0.0.1:1").run().fails_with_hint(2);
    bin()
        .words("migrate --snapshot x --encryption-config")
        .arg(&config)
        .run()
        .fails_with_hint(2)
        .says("rewrite");
    run("").fails_with_hint(1).says("cannot connect");
}
