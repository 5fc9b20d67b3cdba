//! `--kms-exec`: programs in the plugins' place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use atrest::kms::{Plugins, Unwrap};
use atrest::secret::Plaintext;
use atrest::transform::Transformers;
use serde_json::Value;

use super::keyring::Keyring;
use crate::support::bin::{Bin, Done, bin};
use crate::support::corpus;
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::snapshot::Crafted;

/// Far from what a program of the shell takes on a busy machine.
pub const LONG: &str = "--kms-timeout=100s";

fn scan(db: &Path, config: &Path) -> Bin {
    bin()
        .words("scan --verify --all-resources -w json")
        .arg("--snapshot")
        .arg(db)
        .arg("--encryption-config")
        .arg(config)
        .arg(LONG)
}

/// A snapshot of one Secret under KMS, and its configuration, whose plugin is gone.
pub struct One {
    dir: tempfile::TempDir,
    pub ring: Keyring,
}

impl One {
    pub fn new(version: &str, entries: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("p.sock");
        let set = super::config(version, &format!("unix://{}", socket.display()), "60s");
        let crafted = {
            let _plugin = Running::start(Listen::Path(socket), Behaviour::new("kek-v1"));
            let plugins: std::sync::Arc<dyn Unwrap> = std::sync::Arc::new(Plugins::new());
            let secrets = Transformers::new(&set, plugins).unwrap().for_resource("secrets");
            (0..entries).fold(Crafted::new(), |crafted, i| {
                let object = format!(
                    r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"namespace":"default","name":"s{i}"}}}}"#
                );
                let key = format!("/registry/secrets/default/s{i}");
                let value =
                    secrets.write(key.as_bytes(), &Plaintext::new(object.into_bytes())).unwrap();
                crafted.put(key, value)
            })
        };
        let db = dir.path().join("s.db");
        crafted.write(&db);
        let config = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers:\n  - kms: {{apiVersion: {version}, name: p, \
             endpoint: 'unix:///nowhere/p.sock', timeout: 60s}}\n"
        );
        std::fs::write(dir.path().join("c.yaml"), config).unwrap();
        let ring = Keyring::of(&db);
        Self { dir, ring }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn scan(&self, command: &str) -> Bin {
        scan(&self.path("s.db"), &self.path("c.yaml")).arg(format!("--kms-exec=p={command}"))
    }

    /// Nothing can be read, for a reason that says `why`; keys are not told.
    #[track_caller]
    fn fails(&self, command: &str, why: &str) -> Done {
        let done = self.scan(command).arg("--list").run().code(4);
        self.ring.assert_absent(done.stderr.as_bytes());
        self.ring.assert_absent(&done.stdout);
        let document = done.json();
        for entry in document["entries"].as_array().unwrap() {
            let reason = entry["reason"].as_str().unwrap();
            assert!(reason.contains(why), "{reason}");
            assert_eq!(entry["status"], "unreadable");
        }
        done
    }
}

fn totals(done: &Done) -> Value {
    done.json()["totals"].clone()
}

#[test]
fn ten_thousand_values_with_one_data_key_run_the_program_once() {
    let one = One::new("v2", 10_000);
    let done = one.scan(&one.ring.command()).run().ok();
    let totals = totals(&done);
    assert_eq!((&totals["entries"], &totals["unreadable"]), (&10_000.into(), &0.into()));
    assert_eq!(one.ring.runs(), 1);
    one.ring.assert_absent(&done.stdout);
    one.ring.assert_absent(done.stderr.as_bytes());
}

#[test]
fn the_corpus_is_read_with_its_plugins_away() {
    for (phase, provider, more) in
        [("p4-kmsv1", "vault-v1", None), ("p5-kmsv2", "vault-v2", Some("vault-v1"))]
    {
        let (db, config) = (corpus::db(phase), corpus::private_config(phase));
        let ring = Keyring::of(&db);
        let done = scan(&db, &config);
        let exec =
            |bin: Bin, name: &str| bin.arg("--kms-exec").arg(format!("{name}={}", ring.command()));
        let done = more.iter().fold(exec(done, provider), |bin, name| exec(bin, name)).run().ok();
        assert_eq!(totals(&done)["unreadable"], 0, "{phase}");
        assert_eq!(ring.runs(), ring.keys.len(), "{phase}: once for each data key");
        assert!(ring.count(provider) > 0, "{phase}");
        for env in ring.environments() {
            let of = |name: &str| env.get(name).map(String::as_str);
            if of("ATREST_KMS_PROVIDER") == Some("vault-v1") {
                assert_eq!(of("ATREST_KMS_VERSION"), Some("v1"));
                assert_eq!(of("ATREST_KMS_KEY_ID"), None);
                assert_eq!(of("ATREST_KMS_ANNOTATIONS"), Some("{}"));
                continue;
            }
            assert_eq!(of("ATREST_KMS_PROVIDER"), Some("vault-v2"));
            assert_eq!(of("ATREST_KMS_VERSION"), Some("v2"));
            assert!(of("ATREST_KMS_KEY_ID").unwrap().starts_with("kek-2026-"), "{env:?}");
            let annotations: Value =
                serde_json::from_str(of("ATREST_KMS_ANNOTATIONS").unwrap()).unwrap();
            assert_eq!(annotations["version.example.com"], "MQ==", "{annotations}");
        }
    }
}

/// Every kind of reading, not only a scan's.
#[test]
fn every_command_that_decrypts_takes_it() {
    let one = One::new("v2", 3);
    let with = |bin: Bin| {
        bin.arg("--encryption-config")
            .arg(one.path("c.yaml"))
            .arg(format!("--kms-exec=p={}", one.ring.command()))
            .arg(LONG)
            .run()
            .ok()
    };
    let from = |words: &str| bin().words(words).arg("--snapshot").arg(one.path("s.db"));
    let got = with(from("get secrets/default/s1 -w json")).json();
    assert_eq!(got["metadata"]["name"], "s1");
    let exported = with(from("export -w json")).json();
    assert_eq!(exported["items"].as_array().unwrap().len(), 3);
    with(from("restore plan"));
    with(from("posture"));
    with(from("history secrets/default/s1"));
    let itself = format!("snapshot:{}", one.path("s.db").display());
    with(bin().words("diff").arg(&itself).arg(&itself));
    with(bin().words("backups").arg(one.path("s.db")));
    // A copy that needs the plugin no more.
    let (copy, plain) = (one.path("copy.db"), corpus::private_config("p1-secretbox"));
    with(from("rewrite").arg("--out").arg(&copy).arg("--write-config").arg(&plain));
    let read = bin().words("scan --verify -w json --snapshot").arg(&copy);
    let read = read.arg("--encryption-config").arg(&plain).run().ok();
    assert_eq!(totals(&read)["current"], 3);
}

#[test]
fn a_program_that_refuses_is_heard_once_for_each_key() {
    let one = One::new("v2", 20);
    let runs = one.path("runs");
    let command = format!(
        "echo run >>'{}'; cat >&2 </dev/null; printf 'no such \\033[31mkey' >&2; exit 3",
        runs.display()
    );
    let done = one.fails(&command, "ended with exit status 3: no such \\u{1b}[31mkey");
    assert!(!done.stderr.contains('\u{1b}'), "{done}");
    assert_eq!(std::fs::read_to_string(runs).unwrap().lines().count(), 1);
    // What is said is cut.
    let long =
        one.fails("yes 0123456789 | head -c 100000 >&2; exit 1", "exit status 1: 0123456789");
    assert!(long.stderr.len() < 4000, "{}", long.stderr.len());
    one.fails("kill -KILL $$", "was ended by signal 9");
    one.fails("no-such-program-anywhere", "ended with exit status 127");
}

#[test]
fn what_is_no_key_is_said_and_not_shown() {
    let one = One::new("v2", 2);
    let unwrap = one.ring.command();
    one.fails(&format!("{unwrap} | base64"), "with the key in base64");
    one.fails(&format!("({unwrap}; echo)"), "the last of them a line feed");
    one.fails(":", "answered with nothing");
    one.fails("yes", "answered with more than 4096 bytes");
    // Another key: the value itself does not open.
    one.fails("head -c 32 /dev/zero", "authentication failed");
}

/// Waits until no process of these has `mark` among its arguments.
fn assert_gone(pids: &str, mark: &str) {
    let lives = |pid: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        memchr::memmem::find(&line, mark.as_bytes()).is_some()
    };
    let started = Instant::now();
    while pids.lines().any(lives) {
        assert!(started.elapsed() < Duration::from_mins(1), "something outlives the program");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupt_ends_what_runs() {
    let one = One::new("v2", 1);
    let pids = one.path("pids");
    // A number that no other process has among its arguments.
    let command =
        format!("echo $$ >'{0}.new'; mv '{0}.new' '{0}'; exec sleep 3741853", pids.display());
    let mut child = one.scan(&command).spawn();
    let started = Instant::now();
    while !pids.exists() {
        assert!(started.elapsed() < Duration::from_mins(1), "it does not run");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_gone(&std::fs::read_to_string(pids).unwrap(), "3741853");
}

/// Nothing of what ran is left behind.
#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let one = One::new("v2", 50);
    let pids = one.path("pids");
    // A number that no other process has among its arguments.
    let command = format!("sleep 3741852 & echo $! >>'{0}'; echo $$ >>'{0}'; wait", pids.display());
    let done = bin()
        .words("scan --verify --list -w json --snapshot")
        .arg(one.path("s.db"))
        .arg("--encryption-config")
        .arg(one.path("c.yaml"))
        .arg(format!("--kms-exec=p={command}"))
        .arg("--kms-timeout=300ms")
        .run()
        .code(4);
    let document = done.json();
    let reason = document["entries"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("did not end within 300ms"), "{reason}");
    // Left alone after a few runs, or fifty would take fifty times as long.
    let pids = std::fs::read_to_string(pids).unwrap_or_default();
    assert!(pids.lines().count() < 50, "{pids}");
    assert_gone(&pids, "3741852");
}

#[test]
fn names_of_providers_are_checked() {
    let one = One::new("v2", 1);
    let run = |names: &[&str], config: bool| {
        let mut bin = bin().words("scan --verify --snapshot").arg(one.path("s.db"));
        if config {
            bin = bin.arg("--encryption-config").arg(one.path("c.yaml"));
        }
        names.iter().fold(bin, |bin, name| bin.arg(format!("--kms-exec={name}"))).run()
    };
    run(&["q=cat"], true).fails_with_hint(2).says("no KMS provider is called `q`");
    run(&["p=cat"], false).fails_with_hint(2).says("give a configuration");
    run(&["p=cat", "p=cat"], true).fails(2).says("given twice");
    for wrong in ["p", "p=", "=cat"] {
        let done = run(&[wrong], true).code(2);
        assert!(done.stderr.contains("NAME='command …'"), "{done}");
    }
}
