//! `scan --watch`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::bin::Bin;
use crate::support::certs::Certs;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin, corpus};

const PATIENCE: Duration = Duration::from_secs(90);

/// A watch that runs.
struct Watch {
    child: Child,
    lines: Receiver<Value>,
    stderr: thread::JoinHandle<String>,
}

fn watch(bin: Bin) -> Watch {
    let mut child = bin.spawn();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut err = child.stderr.take().unwrap();
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in stdout.lines() {
            let _ = sender.send(serde_json::from_str(&line.unwrap()).unwrap());
        }
    });
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    Watch { child, lines, stderr }
}

impl Watch {
    #[track_caller]
    fn line(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Reads lines until one fits; returns it and how many came before.
    #[track_caller]
    fn until(&self, fits: impl Fn(&Value) -> bool) -> (Value, usize) {
        let start = Instant::now();
        for before in 0.. {
            let line = self.line();
            if fits(&line) {
                return (line, before);
            }
            assert!(start.elapsed() < PATIENCE, "last: {line}");
        }
        unreachable!()
    }

    #[track_caller]
    fn quiet(&self) {
        let wait = Duration::from_millis(700);
        let next = self.lines.recv_timeout(wait);
        assert!(matches!(next, Err(RecvTimeoutError::Timeout)), "{next:?}");
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Exit code, the lines that were not read yet, and stderr.
    fn end(mut self) -> (Option<i32>, Vec<Value>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                self.child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        };
        (status.code(), self.lines.iter().collect(), self.stderr.join().unwrap())
    }
}

fn counts(line: &Value) -> (u64, u64, u64) {
    let n = |of: &str| line["totals"][of].as_u64().unwrap();
    (n("entries"), n("plaintext"), line["remaining"].as_u64().unwrap())
}

const PLAIN: &[u8] = b"k8s\0plain";
const SEALED: &[u8] = b"k8s:enc:secretbox:v1:k:sealed";

#[test]
fn counts_stay_true_and_each_change_is_a_line() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        etcd.put("/registry/secrets/a/1", PLAIN);
        etcd.put("/registry/secrets/a/2", PLAIN);
        let w = watch(bin().words("scan --watch").args(etcd.args()));
        let first = w.line();
        assert_eq!(counts(&first), (2, 2, 2));
        assert_eq!(first["schema"], "atrest.scan/v1");
        assert_eq!(first["source"]["revision"], 3);
        assert_eq!(first["groups"][0]["provider"], "identity");
        // Other resources and rewrites that count alike are no change.
        etcd.put("/registry/configmaps/a/1", PLAIN);
        etcd.put("/registry/secrets/a/1", PLAIN);
        w.quiet();
        etcd.put("/registry/secrets/a/1", SEALED);
        assert_eq!(counts(&w.line()), (2, 1, 1));
        etcd.put("/registry/secrets/a/3", PLAIN);
        assert_eq!(counts(&w.line()), (3, 2, 2));
        etcd.ctl(&["del", "/registry/secrets/a/1"]);
        let (line, _) = w.until(|l| counts(l) == (2, 2, 2));
        assert_eq!(line["groups"].as_array().unwrap().len(), 1);
        // What the watch says is what a scan says.
        let scan = bin().words("scan -w json").args(etcd.args()).run().ok().json();
        assert_eq!(line["groups"], scan["groups"]);
        assert_eq!(line["totals"], scan["totals"]);
        w.interrupt();
        let (code, rest, stderr) = w.end();
        assert_eq!((code, rest.len(), stderr.as_str()), (Some(130), 0, ""));
    }
}

#[test]
fn a_burst_is_few_lines_and_the_last_state_is_one() {
    let etcd = Etcd::plain(Version::V35);
    let name = |i| format!("/registry/secrets/a/{i:04}");
    etcd.put_many((0..1000).map(|i| (name(i), "plain".to_owned())));
    let w = watch(bin().words("scan --watch --until-done").args(etcd.args()));
    assert_eq!(counts(&w.line()), (1000, 1000, 1000));
    let start = Instant::now();
    let sealed = String::from_utf8(SEALED.to_vec()).unwrap();
    etcd.put_many((0..1000).map(|i| (name(i), sealed.clone())));
    let (code, rest, stderr) = w.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(counts(rest.last().unwrap()), (1000, 0, 0));
    let most = start.elapsed().as_millis() / 200 + 2;
    assert!(rest.len() as u128 <= most, "{} lines in {:?}", rest.len(), start.elapsed());
}

#[test]
fn until_done_ends_at_once_where_nothing_is_left() {
    let certs = Certs::new();
    let db = corpus::db("p7-migrated-uncompacted");
    let etcd = Etcd::builder(Version::V35).tls(&certs).restore(&db).start();
    // Of what this phase had migrated, only Secrets are all done.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("enc.yaml");
    let text = std::fs::read_to_string(corpus::config("p6-sb2")).unwrap();
    let first = text.split("  - resources:\n      - '*.apps'").next().unwrap();
    let lines = first.lines().filter(|l| !l.contains("'configmaps'") && !l.contains("'widgets"));
    std::fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let w = watch(
        bin()
            .words("scan --watch --until-done --resource secrets --encryption-config")
            .arg(&config)
            .args(etcd.args()),
    );
    let (code, lines, stderr) = w.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["remaining"], &lines[0]["totals"]["stale"]), (&0.into(), &0.into()));
    let scan = bin()
        .words("scan -w json --resource secrets --encryption-config")
        .arg(&config)
        .args(etcd.args())
        .run()
        .ok()
        .json();
    for part in ["config", "groups", "totals", "source"] {
        assert_eq!(lines[0][part], scan[part], "{part}");
    }
}

#[test]
fn a_watch_is_not_done_while_another_namespace_is_not() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/done/1", SEALED);
    etcd.put("/registry/secrets/other/1", PLAIN);
    let w = watch(bin().words("scan --watch --until-done -n done").args(etcd.args()));
    let first = w.line();
    assert_eq!((&first["totals"]["plaintext"], &first["remaining"]), (&0.into(), &1.into()));
    assert_eq!(first["remaining_elsewhere"], 1);
    etcd.put("/registry/secrets/other/1", SEALED);
    let (code, rest, stderr) = w.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(rest.last().unwrap()["remaining"], 0);
    assert!(stderr.contains("waits for everything"), "{stderr}");
}

#[test]
fn with_a_configuration_stale_is_what_is_left() {
    let etcd = Etcd::restored(Version::V34, &corpus::db("p1b-partial-migration"));
    let config = corpus::private_config("p1-secretbox");
    let w = watch(
        bin()
            .words("scan --watch --until-done -w jsonl --encryption-config")
            .arg(&config)
            .args(etcd.args()),
    );
    let first = w.line();
    let left = first["remaining"].as_u64().unwrap();
    assert!(left > 5 && first["totals"]["stale"] == left, "{first}");
    // All stale ones go, but one that is sealed with a key that nobody has remains.
    let list = bin()
        .words("scan -w jsonl --encryption-config")
        .arg(&config)
        .args(etcd.args())
        .run()
        .jsonl();
    etcd.put("/registry/secrets/default/lost", b"k8s:enc:secretbox:v1:lost-key:xxxx");
    for entry in list.iter().filter(|e| e["status"] == "stale") {
        etcd.ctl(&["del", entry["key"].as_str().unwrap()]);
    }
    let (code, rest, stderr) = w.end();
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("1 entry cannot be read"), "{stderr}");
    let end = rest.last().unwrap();
    assert_eq!((&end["remaining"], &end["totals"]["unreadable"]), (&0.into(), &1.into()));
}

#[test]
fn a_lost_connection_is_made_again_and_nothing_is_missed() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        for i in 0..5 {
            etcd.put(&format!("/registry/secrets/a/{i}"), PLAIN);
        }
        let (first, second) = (Proxy::new(&etcd.endpoint()), Proxy::new(&etcd.endpoint()));
        let both = format!("{},{}", first.endpoint, second.endpoint);
        let w = watch(bin().words("scan --watch --endpoints").arg(both));
        assert_eq!(counts(&w.line()), (5, 5, 5));
        first.drop_connections();
        etcd.put("/registry/secrets/a/0", SEALED);
        assert_eq!(counts(&w.until(|l| counts(l).1 == 4).0), (5, 4, 4));
        // The other member takes over.
        first.cut();
        etcd.put("/registry/secrets/a/1", SEALED);
        assert_eq!(counts(&w.until(|l| counts(l).1 == 3).0), (5, 3, 3));
        second.cut();
        etcd.put("/registry/secrets/a/2", SEALED);
        w.quiet();
        w.interrupt();
        let (code, _, stderr) = w.end();
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.contains("trying again"), "{stderr}");
    }
}

#[test]
fn a_server_that_comes_back_is_followed_on() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/1", PLAIN);
    let at = etcd.endpoint();
    let w = watch(bin().words("scan --watch --endpoints").arg(&at));
    assert_eq!(counts(&w.line()), (1, 1, 1));
    let data = etcd.stop();
    // On the same port.
    let etcd = Etcd::builder(Version::V35)
        .data(data)
        .arg(format!("--listen-client-urls=http://{at}"))
        .arg(format!("--advertise-client-urls=http://{at}"))
        .start();
    let put = crate::support::etcd::run(
        Version::V35,
        "etcdctl",
        &["--endpoints", &at, "put", "/registry/secrets/a/2", "plain"],
    );
    assert_eq!(put, b"OK\n");
    assert_eq!(counts(&w.until(|l| counts(l).0 == 2).0), (2, 2, 2));
    w.interrupt();
    let (_, _, stderr) = w.end();
    assert!(stderr.contains("trying again") && stderr.contains("connected again"), "{stderr}");
    drop(etcd);
}

#[test]
fn a_compacted_watch_leads_to_a_new_scan() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        for i in 0..5 {
            etcd.put(&format!("/registry/secrets/a/{i}"), PLAIN);
        }
        let proxy = Proxy::new(&etcd.endpoint());
        let w = watch(bin().words("scan --watch --endpoints").arg(&proxy.endpoint));
        assert_eq!(counts(&w.line()), (5, 5, 5));
        // Nothing passes while etcd moves on and forgets; then the connection is made again.
        proxy.hold_after(0);
        etcd.put("/registry/secrets/a/0", SEALED);
        etcd.ctl(&["del", "/registry/secrets/a/1"]);
        etcd.put("/registry/secrets/a/2", SEALED);
        proxy.wait_until_held();
        etcd.ctl(&["compact", "9"]);
        proxy.drop_connections();
        let (line, _) = w.until(|l| counts(l) == (4, 2, 2));
        assert_eq!(line["source"]["revision"], 9);
        etcd.put("/registry/secrets/a/3", SEALED);
        assert_eq!(counts(&w.line()), (4, 1, 1));
        w.interrupt();
        let (code, _, stderr) = w.end();
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.contains("scanning again"), "{stderr}");
    }
}

/// Part of a scan is no state of the cluster: nothing says that it is done.
#[test]
fn a_new_scan_that_is_interrupted_is_no_result() {
    let etcd = Etcd::plain(Version::V35);
    let sealed = format!("k8s:enc:secretbox:v1:k:{}", "s".repeat(10_000));
    etcd.put_many((0..300).map(|i| (format!("/registry/secrets/a/{i:03}"), sealed.clone())));
    etcd.put("/registry/secrets/b/plain", PLAIN);
    let proxy = Proxy::new(&etcd.endpoint());
    let w = watch(bin().words("scan --watch --until-done --endpoints").arg(&proxy.endpoint));
    assert_eq!(counts(&w.line()), (301, 1, 1));
    proxy.hold_after(0);
    etcd.put("/registry/secrets/c/plain", PLAIN);
    etcd.put("/registry/secrets/d/plain", PLAIN);
    proxy.wait_until_held();
    let status: Value = serde_json::from_slice(&etcd.ctl(&["get", "x", "-w", "json"])).unwrap();
    etcd.ctl(&["compact", &status["header"]["revision"].to_string()]);
    proxy.drop_connections();
    // A page of sealed values has come, what is left lies beyond.
    proxy.hold_after(1_500_000);
    proxy.wait_until_held();
    w.interrupt();
    thread::sleep(Duration::from_millis(200));
    proxy.release();
    let (code, lines, stderr) = w.end();
    assert!(stderr.contains("scanning again"), "{stderr}");
    assert_eq!((code, lines), (Some(130), vec![]), "{stderr}");
}

#[test]
fn quiet_ranges_move_on_with_the_progress_of_the_server() {
    let etcd = Etcd::builder(Version::V35)
        .arg("--experimental-watch-progress-notify-interval=200ms")
        .start();
    etcd.put("/registry/secrets/a/1", PLAIN);
    let proxy = Proxy::new(&etcd.endpoint());
    let w = watch(bin().words("scan --watch --endpoints").arg(&proxy.endpoint));
    w.line();
    for i in 0..5 {
        etcd.put(&format!("/registry/configmaps/a/{i}"), PLAIN);
    }
    thread::sleep(Duration::from_secs(1));
    etcd.ctl(&["compact", "7"]);
    proxy.drop_connections();
    etcd.put("/registry/secrets/a/2", PLAIN);
    assert_eq!(counts(&w.line()), (2, 2, 2));
    w.interrupt();
    let (_, _, stderr) = w.end();
    assert!(!stderr.contains("scanning again"), "{stderr}");
}

#[test]
fn several_resources_are_several_ranges() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/1", PLAIN);
    etcd.put("/registry/configmaps/a/1", PLAIN);
    etcd.put("/registry/leases/a/1", PLAIN);
    let words = "scan --watch --resource secrets,configmaps -n a";
    let w = watch(bin().words(words).args(etcd.args()));
    assert_eq!(counts(&w.line()), (2, 2, 2));
    etcd.put("/registry/secrets/b/1", PLAIN);
    etcd.put("/registry/leases/a/1", SEALED);
    w.quiet();
    etcd.put("/registry/configmaps/a/1", SEALED);
    assert_eq!(counts(&w.line()), (2, 1, 1));
    etcd.put("/registry/secrets/a/1", SEALED);
    assert_eq!(counts(&w.line()), (2, 0, 0));
    w.interrupt();
    assert_eq!(w.end().0, Some(130));
}

#[test]
fn sentences_where_a_table_is_asked_for() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/1", SEALED);
    let done = bin().words("scan --watch --until-done -w table").args(etcd.args()).run().ok();
    let line = done.text().trim_end();
    assert!(line.ends_with("Z revision 2: 1 entry: 0 plaintext, 1 encrypted"), "{line}");
}

#[test]
fn what_cannot_be_watched() {
    let db = corpus::db("p0-plaintext");
    bin().words("scan --watch --snapshot").arg(db).run().fails_with_hint(2);
    bin().words("scan --watch --revision 3").run().fails(2);
    bin().words("scan --watch -w csv").run().fails(2);
    bin().words("scan --watch --list").run().fails(2);
    bin().words("scan --until-done").run().fails(2);
    bin().words("scan --watch --verify").run().fails_with_hint(2);
    bin().words("scan --watch --endpoints 127.0.0.1:1").run().fails_with_hint(1);
}
