//! `scrub` on real clusters of one and three members.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use atrest::forensics::Targets;
use atrest::jobs::Silent;
use atrest::jobs::scrub::{Options, Progress, Stop, run};
use atrest::resource::{Scope, Selector};
use atrest::source::live::LiveOptions;

use crate::support::bin::{Bin, Done};
use crate::support::cluster::Cluster;
use crate::support::{Etcd, Version, bin, corpus};

/// In every Secret, before it was encrypted.
const MARKER: &str = "throwaway-marker";

/// Secrets of about a page each, as requests of etcdctl's.
fn secrets() -> Vec<String> {
    let value = |i| {
        let filler = format!("{MARKER}-{i}-").repeat(150);
        format!(r#"{{"apiVersion":"v1","kind":"Secret","stringData":{{"v":"{filler}"}}}}"#)
    };
    let put = |i: usize| format!("put /registry/secrets/a/s{i:04} {}\n", value(i));
    (0..4).map(|part| (0..50).map(|i| put(50 * part + i)).collect::<String>()).collect()
}

fn encrypt(endpoints: &str) {
    let config = corpus::private_config("p1-secretbox");
    let bin = bin().words("migrate --apply --no-backup --encryption-config").arg(&config);
    bin.args(["--endpoints", endpoints]).run().ok();
}

/// Three members whose Secrets were plaintext once.
fn filled() -> Cluster {
    let cluster = Cluster::start(Version::V35);
    for part in secrets() {
        cluster.ctl(&["txn"], &format!("\n{part}\n\n"));
    }
    encrypt(&cluster.endpoints());
    cluster
}

fn scrub(endpoints: &str, words: &str) -> Bin {
    let config = corpus::private_config("p1-secretbox");
    let bin = bin().words("scrub --encryption-config").arg(&config);
    bin.args(["--endpoints", endpoints]).words(words)
}

const ROOM: &str = "--free-disk m0=1000000000000 --free-disk m1=1000000000000 --free-disk m2=1000000000000 \
                    --free-disk default=1000000000000";

fn applied(endpoints: &str, receipts: &Path, words: &str) -> Bin {
    scrub(endpoints, &format!("--apply -w json {ROOM} {words} --receipts")).arg(receipts)
}

fn members(document: &Value) -> Vec<(String, u64, Option<u64>)> {
    let sum = |found: &Value| {
        found["totals"].as_object().map(|t| t.values().filter_map(Value::as_u64).sum::<u64>())
    };
    let row = |m: &Value| {
        let before = sum(&m["before"]).unwrap_or_default();
        (m["status"].as_str().unwrap().to_owned(), before, sum(&m["after"]))
    };
    document["members"].as_array().unwrap().iter().map(row).collect()
}

#[track_caller]
fn cleaned(done: &Done) {
    let document = done.json();
    assert_eq!(
        (&document["schema"], &document["verdict"]),
        (&"atrest.scrub/v1".into(), &"clean".into())
    );
    assert_eq!(document["stopped"], Value::Null, "{done}");
}

/// What a snapshot of a member still has, looked at by other means.
fn is_gone(snapshot: &Path) {
    let bytes = std::fs::read(snapshot).unwrap();
    assert!(memchr::memmem::find(&bytes, MARKER.as_bytes()).is_none(), "{}", snapshot.display());
    bin().words("residue --fail-on plaintext --snapshot").arg(snapshot).run().ok();
}

#[test]
fn every_member_is_cleaned() {
    let cluster = filled();
    let dir = tempfile::tempdir().unwrap();
    let plan = scrub(&cluster.endpoints(), "-w json").run().ok().json();
    assert_eq!(plan["applied"], false);
    assert!(plan["compaction"]["needed"].as_i64().unwrap() > 200);
    let found = members(&plan);
    assert!(found.len() == 3 && found.iter().all(|m| m.0 == "pending" && m.1 >= 200), "{found:?}");
    let steps = plan["steps"].as_array().unwrap();
    assert!(steps.len() == 4 && steps[3].to_string().contains("the leader, last"), "{steps:?}");

    // Nobody said how much room there is.
    let refused = scrub(&cluster.endpoints(), "--apply -w json --receipts").arg(dir.path());
    refused.run().code(1).says("how much room the disk of").says("hint: ");
    let full = scrub(
        &cluster.endpoints(),
        "--apply --free-disk m0=9 --free-disk m1=9 --free-disk m2=9 --receipts",
    );
    full.arg(dir.path()).run().code(1).says("a new file needs");
    assert_eq!(members(&scrub(&cluster.endpoints(), "-w json").run().ok().json()), found);

    let done = applied(&cluster.endpoints(), dir.path(), "").run().ok();
    cleaned(&done);
    let after = members(&done.json());
    assert!(after.iter().all(|m| m.0 == "scrubbed" && m.2 == Some(0)), "{after:?}");
    assert_eq!(done.json()["wal"].as_array().unwrap().len(), 3);
    let names = || std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let of = |extension: &str| names().filter(|p| p.extension().unwrap() == extension).count();
    assert_eq!((of("json"), of("html")), (3, 3));
    for path in names().filter(|p| p.extension().unwrap() == "json") {
        let receipt: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(receipt["schema"], "atrest.scrub-receipt/v1");
        assert!(receipt["member"]["before"]["totals"]["superseded-revision"].as_u64() >= Some(200));
        assert_eq!(receipt["member"]["after"]["findings"].as_array().unwrap().len(), 0);
    }
    for i in 0..3 {
        let snapshot = dir.path().join(format!("m{i}.db"));
        cluster.ctl_at(i, &["snapshot", "save", snapshot.to_str().unwrap()]);
        is_gone(&snapshot);
    }
    // What is clean is left alone.
    let again = applied(&cluster.endpoints(), &dir.path().join("again"), "").run().ok();
    cleaned(&again);
    assert!(!again.stderr.contains("defragmenting"), "{again}");
    let entries = bin()
        .words("scan -w json --fail-on plaintext")
        .arg("--endpoints")
        .arg(cluster.endpoints())
        .run()
        .ok();
    assert_eq!(entries.json()["totals"]["entries"], 200);
}

#[test]
fn one_member_and_what_must_be_done_before() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        for part in secrets() {
            assert!(etcd.try_ctl(&["txn"], format!("\n{part}\n\n").as_bytes()).status.success());
        }
        let dir = tempfile::tempdir().unwrap();
        let run = |words: &str| applied(&etcd.endpoint(), dir.path(), words).run();
        run("").code(1).says("200 live entries are stored unencrypted").says("atrest migrate");
        encrypt(&etcd.endpoint());
        // An API server forgets by itself, a little later.
        etcd.put("compact_rev_key", b"1");
        run("").code(1).says("the API server's compactor has not come to revision");
        let plan = scrub(&etcd.endpoint(), "-w json").run().ok().json();
        assert_eq!(plan["compaction"]["apiserver_compacts"], true);
        let here = format!("--member-data-dir default={}", etcd.data_dir().display());
        cleaned(&run(&format!("--compact-now {here}")).ok());
        let snapshot = dir.path().join("after.db");
        etcd.snapshot(&snapshot);
        is_gone(&snapshot);
    }
}

#[test]
fn nothing_is_touched_while_a_member_is_away() {
    let mut cluster = filled();
    let dir = tempfile::tempdir().unwrap();
    cluster.kill(2);
    let done = applied(&cluster.endpoints(), dir.path(), "--settle 1s").run().code(1);
    let done =
        done.says("the member m2 (").says("is not healthy").says("hint: bring the member back");
    assert!(!done.stderr.contains("defragmenting") && !done.stderr.contains("compacted"), "{done}");
    let found = members(&done.json());
    assert!(found.iter().filter(|m| m.0 == "pending").count() == 2, "{found:?}");
    scrub(&cluster.endpoints(), "--settle 1s").run().code(4).says("--apply would refuse");
}

#[test]
fn a_member_that_is_lost_in_the_middle_ends_it() {
    let cluster = RefCell::new(filled());
    let endpoints = cluster.borrow().endpoints();
    let targets = Targets::new(
        Scope::new("/registry/"),
        vec![Selector::parse("secrets").unwrap()],
        Vec::new(),
    );
    let stop = AtomicBool::new(false);
    let options = Options {
        connection: connection(&endpoints),
        targets: &targets,
        apply: true,
        compact_now: false,
        free: (0..3).map(|i| (format!("m{i}"), u64::MAX)).collect(),
        data_dirs: BTreeMap::new(),
        settle: Duration::from_mins(1),
        stop: &stop,
    };
    let mut lost: Option<usize> = None;
    let mut first = String::new();
    let outcome = run(&options, &mut Silent, &mut |member| {
        if lost.is_none() {
            // Another one than this.
            let index = (0..3).find(|i| format!("m{i}") != member.name).unwrap();
            cluster.borrow_mut().kill(index);
            lost = Some(index);
            first.clone_from(&member.name);
        }
    });
    let outcome = outcome.unwrap();
    let lost = lost.unwrap();
    match outcome.stop {
        Some(Stop::Unhealthy { member, .. }) => assert!(member.starts_with(&format!("m{lost} ("))),
        other => panic!("{other:?}"),
    }
    for member in &outcome.members {
        let expected = if member.name == first { Progress::Scrubbed } else { Progress::Pending };
        assert_eq!(member.progress, expected, "{}", member.name);
    }
    // The third one was not touched: what was forgotten lies in its free pages.
    let third = (0..3).find(|i| *i != lost && format!("m{i}") != first).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("third.db");
    cluster.borrow().ctl_at(third, &["snapshot", "save", snapshot.to_str().unwrap()]);
    bin().words("residue --fail-on residue --snapshot").arg(&snapshot).run().code(3);

    cluster.borrow_mut().restart(lost, Duration::ZERO);
    let done = applied(&endpoints, dir.path(), "").run().ok();
    cleaned(&done);
    let clean = members(&done.json()).iter().filter(|m| m.0 == "clean").count();
    assert_eq!(clean, 1, "the first one was cleaned twice");
}

fn connection(endpoints: &str) -> LiveOptions {
    LiveOptions {
        endpoints: endpoints.split(',').map(str::to_owned).collect(),
        cacert: None,
        cert: None,
        key: None,
        credentials: None,
        insecure_skip_tls_verify: false,
        insecure_transport: true,
        dial_timeout: Duration::from_secs(10),
        command_timeout: Duration::from_secs(20),
        keepalive_time: Duration::from_secs(2),
        keepalive_timeout: Duration::from_secs(6),
        tempo: atrest::source::live::Tempo::default(),
    }
}
