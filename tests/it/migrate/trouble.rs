//! `migrate` while others write, connections break, disks are full and programs are killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmType, Client};
use serde_json::Value;

use super::{applied, config, migrate, number, plain, state, transformers};
use crate::support::cluster::Cluster;
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin, corpus, secret, tools};

/// Plaintext of every entry.
fn values(etcd: &Etcd, config: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = plain(&state(etcd), &transformers(&[config]));
    all.into_iter().map(|(key, (value, _))| (key, value)).collect()
}

#[test]
fn what_others_write_meanwhile_is_never_overwritten() {
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..300).map(|i| (name(i), secret(&format!("plain{i}")))));
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
                    etcd.put(&key, secret(&format!("changed{n}")).as_bytes());
                    model.insert(key, Some(secret(&format!("changed{n}")).into_bytes()));
                }
                n += 1;
            }
            model
        });
        let run = migrate(&etcd, &[&config], "--apply --no-backup --qps 150 -w json");
        let done = run.run();
        stop.store(true, Ordering::Relaxed);
        for i in 0..300 {
            expected.insert(name(i), secret(&format!("plain{i}")).into_bytes());
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

/// Every value of KMS v1 costs a call: the plugin can go away between two of them.
#[test]
fn a_plugin_that_goes_away_ends_the_run_and_the_next_one_goes_on() {
    const ENCRYPTS: usize = 20;
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..60).map(|i| (name(i), secret(&format!("plain{i}")))));
    let before = state(&etcd);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v1.sock");
    let plugin = Running::start(Listen::Path(socket.clone()), Behaviour::new("kek"));
    plugin.set(|b| b.encrypts = ENCRYPTS);
    let provider = format!("kms: {{name: vault, endpoint: 'unix://{}'}}", socket.display());
    let config = config(dir.path(), "kms", &format!("{provider}\n  - identity: {{}}"));

    let done =
        migrate(&etcd, &[&config], "--apply --no-backup --no-apiserver --batch 4 -w json").run();
    let done = done.code(1).says("the vault is sealed");
    let report = done.json();
    let after = state(&etcd);
    let rewritten = after.values().filter(|r| r.value.starts_with(b"k8s:enc:kms:v1:vault:"));
    let rewritten = rewritten.count() as u64;
    assert!(rewritten <= ENCRYPTS as u64);
    assert_eq!(number(&report, "written"), rewritten);
    assert_eq!(number(&report, "remaining"), 60 - rewritten);
    for (key, row) in &before {
        let whole = after[key] == *row || after[key].value.starts_with(b"k8s:enc:kms:v1:vault:");
        assert!(whole, "{key}");
    }

    plugin.set(|b| b.encrypts = usize::MAX);
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 60 - rewritten);
}

#[test]
fn a_corrupt_cluster_is_not_written_to() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/plain", secret("value").as_bytes());
    let config = corpus::private_config("p1-secretbox");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
        let (action, alarm) = (AlarmAction::Activate, AlarmType::Corrupt);
        client.alarm(action, alarm, None).await.unwrap();
    });
    migrate(&etcd, &[&config], "").run().ok().says("alarm CORRUPT");
    let apply = migrate(&etcd, &[&config], "--apply --no-backup").run();
    apply.fails_with_hint(1).says("alarm CORRUPT");
    // What is stored can still be looked at, and is as it was.
    let scan = bin().words("scan --list -w json").args(etcd.args()).run().ok();
    assert_eq!(scan.json()["totals"]["plaintext"], 1);
}

#[test]
fn a_killed_run_is_continued() {
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..400).map(|i| (name(i), secret(&format!("plain{i}")))));
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
    let slow = || migrate(&etcd, &[&config], "--apply --no-backup --qps 40 -w json");
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
fn a_full_database_is_said_before_anything_is_tried() {
    let config = corpus::private_config("p1-secretbox");
    let small = Etcd::builder(Version::V35).arg("--quota-backend-bytes=200000").start();
    small.put("/registry/secrets/a/plain", secret("value").as_bytes());
    let big = "x".repeat(120_000);
    // etcd compares with the size at its last commit, so that some more may fit.
    let filled =
        |i: usize| !small.try_ctl(&["put", &format!("/fill/{i}")], big.as_bytes()).status.success();
    assert!((0..100).any(filled), "the database never got full");
    let alarms = String::from_utf8(small.ctl(&["alarm", "list"])).unwrap();
    assert!(alarms.contains("NOSPACE"), "{alarms}");
    migrate(&small, &[&config], "").run().ok().says("NOSPACE");
    migrate(&small, &[&config], "--apply --no-backup").run().fails_with_hint(1).says("quota");
}

#[test]
fn a_database_that_gets_full_stops_the_run_and_the_next_one_goes_on() {
    let etcd = Etcd::builder(Version::V35).arg("--quota-backend-bytes=2800000").start();
    let name = |i: usize| format!("/registry/secrets/a/s{i:02}");
    etcd.put_many((0..16).map(|i| (name(i), secret(&"x".repeat(100_000)))));
    let config = corpus::private_config("p1-secretbox");
    let before = values(&etcd, &config);

    // Told of the quota, it does not even begin.
    let told = "--apply --no-backup --quota-backend-bytes 2800000";
    migrate(&etcd, &[&config], told).run().fails_with_hint(1).says("no room under its quota of");
    // The member's metrics tell it, too.
    let done = migrate(&etcd, &[&config], "--apply --no-backup").run().fails_with_hint(1);
    done.says("no room under its quota of 2.7 MiB");
    assert!(state(&etcd).values().all(|r| r.version == 1));

    // Told of another, it does. etcd compares with the size at its last commit, ten times a second.
    let slow = "--apply --no-backup -w json --batch 1 --concurrency 1 --qps 20 \
                --quota-backend-bytes 2000000000";
    let mut stops = 0;
    let mut written = 0;
    loop {
        let done = migrate(&etcd, &[&config], slow).run();
        let report = done.json();
        written += number(&report, "written");
        assert_eq!(number(&report, "written"), number(&report, "verified"));
        assert_eq!(number(&report, "remaining"), 16 - written);
        assert!(values(&etcd, &config) == before, "a value was lost");
        if done.code == Some(0) {
            break;
        }
        done.code(1).says("quota").says("hint: ");
        stops += 1;
        assert!(number(&report, "written") > 0 && stops < 10, "no progress");
        let revision = state(&etcd).values().map(|r| r.modified).max().unwrap();
        etcd.ctl(&["compact", &revision.to_string()]);
        etcd.ctl(&["defrag"]);
        etcd.ctl(&["alarm", "disarm"]);
    }
    assert!(stops > 0, "the database never got full");
    assert!(state(&etcd).values().all(|r| r.version == 2), "written more than once");
}

#[test]
fn answers_that_never_come_are_looked_up() {
    for transactions in ["", "--no-apiserver --batch 7"] {
        looked_up(transactions);
    }
}

fn looked_up(transactions: &str) {
    const KEYS: usize = 600;
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("/registry/secrets/a/s{i:03}");
    etcd.put_many((0..KEYS).map(|i| (name(i), secret(&format!("plain{i}")))));
    let config = corpus::private_config("p1-secretbox");
    let before = values(&etcd, &config);
    let proxy = Proxy::new(&etcd.endpoint());
    let words = "migrate --apply --no-backup -w json --qps 300 --endpoints";
    let bin = bin().words(words).arg(&proxy.endpoint).words(transactions);
    let child = bin.arg("--encryption-config").arg(&config).spawn();
    while !state(&etcd).values().any(|r| r.version == 2) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The connection ends while an answer is on its way, again and again.
    for n in 0..12 {
        proxy.hold_after(1500 + n * 431);
        proxy.wait_until_held();
        proxy.drop_connections();
    }
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let numbers = ["written", "verified", "conflicts", "remaining"].map(|n| number(&report, n));
    assert_eq!(numbers, [KEYS as u64, KEYS as u64, 0, 0]);
    assert!(values(&etcd, &config) == before);
    let twice = state(&etcd).values().filter(|r| r.version != 2).count();
    assert_eq!(twice, 0, "entries were written twice, or not at all");
}

#[test]
fn a_server_that_goes_for_good_ends_the_run() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put_many((0..300).map(|i| (format!("/registry/secrets/a/s{i:03}"), secret("plain"))));
    let config = corpus::private_config("p1-secretbox");
    let proxy = Proxy::new(&etcd.endpoint());
    let words = "migrate --apply --no-backup -w json --qps 100 --command-timeout 1s --endpoints";
    let child =
        bin().words(words).arg(&proxy.endpoint).arg("--encryption-config").arg(&config).spawn();
    let start = proxy.passed();
    while proxy.passed() < start + 60_000 {
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy.cut();
    // It would wait for a while, but not for somebody who asks it to stop.
    std::thread::sleep(Duration::from_secs(1));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(applied(&etcd, &[&config], "")["remaining"], 0);
}

/// The look at what others wrote meanwhile is a part of the run: nobody interrupted it.
#[test]
fn a_server_that_goes_after_the_last_write_is_an_error() {
    let etcd = Etcd::plain(Version::V35);
    let value = secret(&"v".repeat(200_000));
    etcd.put_many((0..20).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    let config = corpus::private_config("p1-secretbox");
    let proxy = Proxy::new(&etcd.endpoint());
    // Everything is read four times: to plan, to encrypt, to verify, and to look again. A timeout
    // that a slow machine reaches would have parts of it read once more, and so would the look for
    // what is named, which reads ahead.
    proxy.hold_after(70 * value.len());
    let words =
        "migrate --apply --no-backup -w json --allow-empty --command-timeout 15s --endpoints";
    let child =
        bin().words(words).arg(&proxy.endpoint).arg("--encryption-config").arg(&config).spawn();
    proxy.wait_until_held();
    proxy.cut();
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the migration stopped"), "{stderr}");
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["interrupted"], false);
    assert_eq!(["written", "remaining"].map(|n| number(&report, n)), [20, 0]);
}

#[test]
fn members_of_a_cluster_go_and_come_and_every_entry_is_written_once() {
    let mut cluster = Cluster::start(Version::V34);
    for start in (0..1200).step_by(100) {
        let put = |i| format!("put /registry/secrets/a/s{i:04} {}\n", secret(&format!("plain{i}")));
        let puts: String = (start..start + 100).map(put).collect();
        cluster.ctl(&["txn"], &format!("\n{puts}\n\n"));
    }
    let config = corpus::private_config("p1-secretbox");
    let words = "migrate --apply --no-backup -w json --qps 150 --endpoints";
    let mut child =
        bin().words(words).arg(cluster.endpoints()).arg("--encryption-config").arg(&config).spawn();
    for member in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        // A member's start may take as long as the whole run does.
        let over = child.try_wait().unwrap().is_some();
        assert!(member > 0 || !over, "it ended before a member was killed");
        cluster.restart(member, Duration::from_millis(300));
    }
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let numbers = ["written", "verified", "conflicts", "remaining"].map(|n| number(&report, n));
    assert_eq!(numbers, [1200, 1200, 0, 0]);
    let out = cluster.ctl(&["get", "--prefix", "/registry/", "-w", "json"], "");
    let stored: Value = serde_json::from_slice(&out).unwrap();
    let rows = stored["kvs"].as_array().unwrap();
    assert!(rows.len() == 1200 && rows.iter().all(|r| r["version"] == 2));
}

/// The long version is run by hand.
#[test]
fn chaos() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/chaos.py");
    let done = Command::new("python3")
        .arg(script)
        .args(["2", "20"])
        .env("ATREST", env!("CARGO_BIN_EXE_atrest"))
        .env("ATREST_CHAOS_ETCD", tools::program(Version::V34, "etcd"))
        .output()
        .expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    assert!(out.contains("2 rounds ok"), "{out}");
}
