//! `--canary`: API servers that do not say what they have loaded are shown a value.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};

use super::servers::{filled, lease};
use super::{migrate, state};
use crate::support::apiserver::{ApiServer, Response};
use crate::support::bin::Bin;
use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus, tools};

const APPLY: &str = "--apply --no-backup --confirm-apiserver --canary";

/// The metrics of a server that is too old to say what it has loaded, and who it is.
fn old(began: usize) -> Response {
    let text = format!(
        "kubernetes_build_info{{git_version=\"v1.29.3\"}} 1\n\
         process_start_time_seconds 1.7000000{began:02}12e+09\n"
    );
    Response::new(200, text)
}

/// Such API servers, which have loaded `config` and read objects from an etcd; behind one address
/// as many as `began` says, each connection leading to the next.
pub fn older(certs: &Certs, etcd: &Etcd, config: PathBuf, began: &'static [usize]) -> ApiServer {
    let endpoint = etcd.args();
    ApiServer::start(certs, move |request| {
        if request.path == "/metrics" {
            return old(began[request.connection % began.len()]);
        }
        let key = request.path.strip_prefix("/api/v1/namespaces/").unwrap();
        let (namespace, rest) = key.split_once('/').unwrap();
        let (resource, name) = rest.split_once('/').unwrap();
        let key = format!("/registry/{resource}/{namespace}/{name}");
        let read = bin().words("get --reveal -w json").arg(&key).args(&endpoint);
        let done = read.arg("--encryption-config").arg(&config).run();
        match done.code {
            Some(0) => Response::new(200, done.stdout),
            Some(1) => Response::status(404, "NotFound", "not found"),
            _ => {
                let message = "Internal error occurred: no matching prefix found";
                Response::status(500, "InternalError", message)
            }
        }
    })
}

fn run(etcd: &Etcd, kubeconfig: &Path, words: &str) -> Bin {
    let config = corpus::private_config("p1-secretbox");
    migrate(etcd, &[&config], &format!("{words} -w json --kubeconfig")).arg(kubeconfig)
}

fn leases(etcd: &Etcd) -> usize {
    let out = String::from_utf8(etcd.ctl(&["lease", "list"])).unwrap();
    out.lines().filter(|l| !l.contains("found")).count()
}

/// Nothing is left of a canary, and nothing else has changed.
#[track_caller]
fn untouched(etcd: &Etcd, before: &super::State) {
    assert!(state(etcd) == *before, "something was written");
    assert_eq!(leases(etcd), 0);
}

#[test]
fn older_servers_are_shown_a_value() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(3);
    // As 1.26 and later have them, whose metrics do not say which server is which.
    lease(&etcd, "cp-1", 2);
    lease(&etcd, "cp-2", 2);
    let before = state(&etcd);
    let first = older(&certs, &etcd, corpus::private_config("p1-secretbox"), &[1]);
    let second = older(&certs, &etcd, corpus::private_config("p1-secretbox"), &[2]);
    let kubeconfig = first.kubeconfig(&certs, dir.path());
    let with = |words: &str, servers: &[&ApiServer]| {
        let each: Vec<_> = servers.iter().map(|s| format!("--apiserver {}", s.url)).collect();
        run(&etcd, &kubeconfig, &format!("{words} {}", each.join(" "))).run()
    };
    // Nothing is written without the word, nor without --apply.
    let without = with("--apply --no-backup --confirm-apiserver", &[&first, &second]);
    without.fails_with_hint(1).says("does not say which configuration").says("--canary");
    let plan = with("--confirm-apiserver --canary", &[&first, &second]).ok();
    plan.says("--apply finds it out with a canary");
    with("--canary", &[]).code(2);
    with("--confirm-apiserver --canary --via-api", &[]).code(2);
    untouched(&etcd, &before);

    // One that has the old file cannot read it.
    let file = super::config(dir.path(), "old", "identity: {}");
    let old = older(&certs, &etcd, file, &[3]);
    let done = with(APPLY, &[&first, &old]).fails_with_hint(1);
    done.says("cannot read what this configuration writes: Internal error occurred: no matching");
    untouched(&etcd, &before);

    // One that reads another etcd does not find it.
    let elsewhere = filled(1);
    let other = older(&certs, &elsewhere, corpus::private_config("p1-secretbox"), &[4]);
    let done = with(APPLY, &[&first, &other]).fails_with_hint(1);
    done.says("does not find what was put into etcd: it reads another etcd");
    untouched(&etcd, &before);

    // One whose user may not read it.
    let forbids = ApiServer::start(&certs, |request| {
        if request.path == "/metrics" {
            return self::old(5);
        }
        Response::status(403, "Forbidden", "secrets is forbidden")
    });
    let done = with(APPLY, &[&first, &forbids]).fails_with_hint(1);
    done.says("answers 403 to GET /api/v1/namespaces/kube-system/secrets/atrest-canary-");
    untouched(&etcd, &before);

    let done = with(APPLY, &[&first, &second]).ok();
    let report = done.says("a canary is in etcd for a moment: /registry/secrets/").json();
    assert_eq!((&report["written"], &report["apiservers"]["confirmed"]), (&3.into(), &2.into()));
    assert_eq!(report["apiservers"]["asked"][1]["loaded"], "reads");
    assert_eq!((state(&etcd).len(), leases(&etcd)), (before.len(), 0), "it is gone");
}

/// Several at one address are told by when they began.
#[test]
fn older_servers_behind_a_load_balancer() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    for host in ["cp-1", "cp-2", "cp-3"] {
        lease(&etcd, host, 2);
    }
    let config = || corpus::private_config("p1-secretbox");
    let two = older(&certs, &etcd, config(), &[1, 2]);
    let done = run(&etcd, &two.kubeconfig(&certs, dir.path()), APPLY).run().fails_with_hint(1);
    assert!(!done.says("2 of 3 API servers").stderr.contains("for a moment"));
    let three = older(&certs, &etcd, config(), &[1, 1, 2, 3]);
    let report = run(&etcd, &three.kubeconfig(&certs, dir.path()), APPLY).run().ok().json();
    assert_eq!((&report["written"], &report["apiservers"]["confirmed"]), (&1.into(), &3.into()));
}

#[test]
fn no_canary_where_not_all_answer() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    let new = older(&certs, &etcd, corpus::private_config("p1-secretbox"), &[1]);
    let kubeconfig = new.kubeconfig(&certs, dir.path());
    lease(&etcd, "cp-1", 2);
    lease(&etcd, "cp-2", 2);
    let revision = |etcd: &Etcd| {
        let out = etcd.ctl(&["get", "x", "-w", "json"]);
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        document["header"]["revision"].clone()
    };
    let before = revision(&etcd);
    let dead = format!("--apiserver {} --apiserver https://127.0.0.1:1", new.url);
    for (words, why) in [
        ("", "1 of 2 API servers that etcd knows of were reached"),
        (&*dead, "https://127.0.0.1:1 was not asked: cannot connect"),
    ] {
        let done = run(&etcd, &kubeconfig, &format!("{APPLY} {words}")).run();
        assert!(!done.fails_with_hint(1).says(why).stderr.contains("for a moment"));
    }
    assert_eq!(revision(&etcd), before);
    // A key that no Secret and no config map shows.
    let config = super::private(
        dir.path(),
        "two",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - identity: {}\n\
         - resources: [widgets.example.com]\n  providers:\n  - secretbox: {keys: [{name: k, \
         secret: YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}\n",
    );
    let alone = filled(1);
    let before = revision(&alone);
    let words = format!("{APPLY} --kubeconfig");
    let done = migrate(&alone, &[&config], &words).arg(&kubeconfig).run().fails_with_hint(1);
    done.says("shows no key that widgets.example.com is written with");
    assert_eq!(revision(&alone), before);
}

/// However it ends, nothing stays: what is interrupted removes it, and etcd what a killed one left.
#[test]
fn whatever_ends_it_the_canary_goes() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    let before = state(&etcd);
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let (told, seen) = mpsc::channel();
        // What the server waits for: the end of this round.
        let (go, wait) = mpsc::channel::<()>();
        let (told, wait) = (Mutex::new(told), Mutex::new(wait));
        let slow = ApiServer::start(&certs, move |request| {
            if request.path == "/metrics" {
                return old(1);
            }
            told.lock().unwrap().send(()).unwrap();
            assert!(wait.lock().unwrap().recv().is_err());
            Response::status(404, "NotFound", "not found")
        });
        let kubeconfig = slow.kubeconfig(&certs, dir.path());
        let child = run(&etcd, &kubeconfig, APPLY).spawn();
        seen.recv().unwrap();
        let there = state(&etcd);
        assert_eq!(there.len(), before.len() + 1);
        let (key, canary) = there.iter().find(|(key, _)| !before.contains_key(*key)).unwrap();
        assert!(key.starts_with("/registry/secrets/kube-system/atrest-canary-"), "{key}");
        assert!(canary.lease != 0 && canary.value.starts_with(b"k8s:enc:secretbox:"));
        let pid = child.id().to_string();
        let kill = Command::new("kill").args([signal, &pid]).stdout(Stdio::null()).status();
        assert!(kill.unwrap().success());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), code, "{}", String::from_utf8_lossy(&done.stderr));
        if signal == "-INT" {
            untouched(&etcd, &before);
            drop(go);
            continue;
        }
        let id = format!("{:x}", canary.lease);
        let left = String::from_utf8(etcd.ctl(&["lease", "timetolive", &id])).unwrap();
        assert!(left.contains("granted with TTL(60s)"), "{left}");
        let new = older(&certs, &etcd, corpus::private_config("p1-secretbox"), &[1]);
        let next = run(&etcd, &new.kubeconfig(&certs, dir.path()), "--confirm-apiserver --canary");
        next.run().ok().says("a canary of another run is in etcd, and goes within 60 s").says(key);
        etcd.ctl(&["lease", "revoke", &id]);
        untouched(&etcd, &before);
        etcd.put(key, &canary.value);
        let next = run(&etcd, &new.kubeconfig(&certs, dir.path()), "--confirm-apiserver --canary");
        next.run().ok().says(&format!("`etcdctl del {key}` does"));
        drop(go);
    }
}

/// Its lease ends while servers still look for it: who finds nothing has shown nothing.
#[test]
fn a_canary_that_goes_too_early() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    let before = state(&etcd);
    let endpoint = etcd.endpoint();
    let late = ApiServer::start(&certs, move |request| {
        if request.path == "/metrics" {
            return old(1);
        }
        for id in list(&endpoint) {
            etcdctl(&endpoint, &["lease", "revoke", &id]);
        }
        Response::status(404, "NotFound", "not found")
    });
    let done = run(&etcd, &late.kubeconfig(&certs, dir.path()), APPLY).run().fails_with_hint(1);
    done.says("the canary was gone before every API server had looked for it");
    untouched(&etcd, &before);
}

/// etcd does not answer any more when it is to be removed; its lease ends it.
#[test]
fn a_canary_that_stays() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled(1);
    let before = state(&etcd);
    let pid = etcd.pid().to_string();
    let stopping = ApiServer::start(&certs, move |request| {
        if request.path == "/metrics" {
            return old(1);
        }
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        Response::status(404, "NotFound", "not found")
    });
    let words = format!("{APPLY} --command-timeout 1s");
    let done = run(&etcd, &stopping.kubeconfig(&certs, dir.path()), &words).run();
    let etcd = Etcd::builder(Version::V35).data(etcd.killed()).start();
    let done = done.fails_with_hint(1).says("could not be removed; etcd does it within 60 s");
    let there = state(&etcd);
    let key = there.keys().find(|key| !before.contains_key(*key)).unwrap();
    assert!(done.stderr.contains(key), "{done}");
    assert_eq!(there[key].lease, i64::from_str_radix(&list(&etcd.endpoint())[0], 16).unwrap());
}

/// The leases that there are.
fn list(endpoint: &str) -> Vec<String> {
    let out = etcdctl(endpoint, &["lease", "list"]);
    out.lines().filter(|l| !l.contains("found")).map(str::to_owned).collect()
}

fn etcdctl(endpoint: &str, args: &[&str]) -> String {
    let mut command = Command::new(tools::program(Version::V35, "etcdctl"));
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(args);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}
