//! `rotate` on a real etcd, with API servers that say what they have loaded.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::migrate::canary::older;
use crate::migrate::confirm::metrics;
use crate::migrate::servers::lease;
use crate::support::apiserver::{ApiServer, Response};
use crate::support::bin::{Bin, Done};
use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus, secret};

/// A cluster with two API servers and some Secrets under the old key.
struct Cluster {
    etcd: Etcd,
    certs: Certs,
    dir: tempfile::TempDir,
    servers: Vec<ApiServer>,
    /// What each API server has loaded.
    loaded: Arc<Mutex<Vec<Vec<u8>>>>,
}

const HOSTS: [&str; 2] = ["cp-1", "cp-2"];

impl Cluster {
    fn new() -> Self {
        let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
        let config = dir.path().join("encryption.yaml");
        fs::copy(corpus::config("p1-secretbox"), &config).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let etcd = Etcd::plain(Version::V35);
        etcd.put_many((0..20).map(|i| (format!("/registry/secrets/a/s{i:04}"), secret("x"))));
        let migrate = bin().words("migrate --apply --no-backup --encryption-config").arg(&config);
        migrate.args(etcd.args()).run().ok();
        for host in HOSTS {
            lease(&etcd, host, 1);
        }
        let loaded = Arc::new(Mutex::new(vec![fs::read(&config).unwrap(); 2]));
        let servers = (0..2).map(|i| {
            let loaded = Arc::clone(&loaded);
            ApiServer::start(&certs, move |_| {
                Response::new(200, metrics(HOSTS[i], &loaded.lock().unwrap()[i]))
            })
        });
        let servers = servers.collect();
        Self { etcd, certs, dir, servers, loaded }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a person does: the file goes to a machine, whose API server reads it.
    fn load(&self, host: usize, name: &str) {
        self.loaded.lock().unwrap()[host] = fs::read(self.path(name)).unwrap();
    }

    fn load_all(&self, name: &str) {
        (0..2).for_each(|host| self.load(host, name));
        fs::copy(self.path(name), self.path("encryption.yaml")).unwrap();
    }

    fn rotate(&self, words: &str) -> Bin {
        let bin = bin().words("rotate --no-backup --state").arg(self.path("rotation.json"));
        let bin = bin.arg("--encryption-config").arg(self.path("encryption.yaml"));
        bin.args(self.etcd.args()).words(words)
    }

    /// As [`Cluster::rotate`], with the API servers asked.
    fn asking(&self, words: &str) -> Bin {
        let kubeconfig = self.servers[0].kubeconfig(&self.certs, self.dir.path());
        let bin = self.rotate("--confirm-apiserver --kubeconfig").arg(kubeconfig);
        let each = self.servers.iter().fold(bin, |bin, s| bin.arg("--apiserver").arg(&s.url));
        each.words(words)
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with("rotation"))
            .collect();
        names.sort();
        names
    }

    /// Entries under each key.
    fn keys(&self, config: &str) -> Vec<(String, u64)> {
        let done = bin()
            .words("keys -w json --encryption-config")
            .arg(self.path(config))
            .args(self.etcd.args())
            .run()
            .ok();
        let document = done.json();
        let rows = document["keys"].as_array().unwrap();
        let name = |row: &Value| row["key"].as_str().unwrap_or("identity").to_owned();
        rows.iter().map(|row| (name(row), row["entries"].as_u64().unwrap())).collect()
    }
}

fn status(document: &Value, step: &str) -> String {
    let steps = document["steps"].as_array().unwrap();
    let found = steps.iter().find(|s| s["step"] == step).unwrap();
    found["status"].as_str().unwrap().to_owned()
}

fn commands(document: &Value, step: &str) -> String {
    let steps = document["steps"].as_array().unwrap();
    let found = steps.iter().find(|s| s["step"] == step).unwrap();
    let all = found["commands"].as_array().unwrap();
    all.iter().map(|c| c.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn next(done: &Done, step: &str) -> Value {
    let document = done.json();
    assert_eq!(document["schema"], "atrest.rotate/v1");
    assert_eq!(document["next"], step, "{document:#}");
    document
}

const APPLY: &str = "--apply -w json";
const ADDED: &str = "rotation-1-added.yaml";
const PROMOTED: &str = "rotation-2-promoted.yaml";
const RETIRED: &str = "rotation-3-retired.yaml";

#[test]
fn from_one_key_to_the_next() {
    let cluster = Cluster::new();
    let plan = cluster.asking("-w json --key-name key-2").run().ok();
    assert_eq!(status(&next(&plan, "add"), "migrate"), "later");
    assert_eq!(cluster.files(), [""; 0], "a plan wrote something");

    let begun = cluster.asking(&format!("{APPLY} --key-name key-2")).run().ok();
    let begun = next(&begun, "load-added");
    assert_eq!(cluster.files(), [ADDED, "rotation.json"]);
    for name in cluster.files() {
        let mode = fs::metadata(cluster.path(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let commands = commands(&begun, "load-added");
    for host in HOSTS {
        assert!(commands.contains(&format!("{ADDED} root@{host}:")), "{commands}");
    }
    // One of the two has it.
    cluster.load(1, ADDED);
    let waiting = cluster.asking(APPLY).run().ok();
    assert!(next(&waiting, "load-added").to_string().contains("cp-1 has loaded the start file"));
    assert_eq!(cluster.files(), [ADDED, "rotation.json"]);

    cluster.load_all(ADDED);
    next(&cluster.asking(APPLY).run().ok(), "load-promoted");
    assert!(cluster.keys(PROMOTED).contains(&("secret-key-1".to_owned(), 20)), "it migrated");
    cluster.load(0, PROMOTED);
    next(&cluster.asking(APPLY).run().ok(), "load-promoted");
    assert!(cluster.keys(PROMOTED).contains(&("secret-key-1".to_owned(), 20)), "it migrated");

    cluster.load_all(PROMOTED);
    let rewritten = next(&cluster.asking(APPLY).run().ok(), "load-retired");
    assert!(cluster.keys(PROMOTED).contains(&("key-2".to_owned(), 20)));
    assert_eq!(
        (&rewritten["stored"]["new"], &rewritten["stored"]["stale"]),
        (&20.into(), &0.into())
    );
    assert_eq!(rewritten["verified"]["read"], 20);
    assert!(rewritten["verified"]["history"].as_u64().unwrap() >= 20);
    let retired = fs::read_to_string(cluster.path(RETIRED)).unwrap();
    assert!(!retired.contains("secret-key-1") && retired.contains("key-2"));

    cluster.load_all(RETIRED);
    let done = cluster.asking(APPLY).run().ok().json();
    assert_eq!((&done["done"], &done["next"]), (&true.into(), &Value::Null));
    let text = cluster.asking("").run().ok();
    assert!(text.text().contains("the rotation is done"), "{text}");

    // No key got anywhere but into the configurations.
    let state = fs::read_to_string(cluster.path("rotation.json")).unwrap();
    let secrets = fs::read_to_string(cluster.path(PROMOTED)).unwrap();
    let secrets: Vec<_> = secrets.lines().filter_map(|l| l.split_once("secret: ")).collect();
    assert_eq!(secrets.len(), 2);
    for (_, secret) in secrets {
        let secret = secret.trim_matches(|c| "'\"} ".contains(c));
        assert!(secret.len() >= 43 && !state.contains(secret));
    }
}

#[test]
fn what_nobody_saw_is_not_done() {
    let mut cluster = Cluster::new();
    // The file in its place is still the old one, which is known.
    next(&cluster.rotate(APPLY).run().ok(), "load-added");
    let encryption = cluster.path("encryption.yaml");
    let start = fs::read(&encryption).unwrap();
    fs::copy(cluster.path(ADDED), &encryption).unwrap();
    let blind = cluster.rotate(APPLY).run().code(4);
    assert!(next(&blind, "load-added").to_string().contains("none was asked"));
    let hash = blind.json()["files"][1]["sha256"].as_str().unwrap().to_owned();
    for word in ["sha256:0123456789abcdef", &hash[..14]] {
        cluster
            .rotate("--apply --loaded")
            .arg(word)
            .run()
            .fails_with_hint(2)
            .says("no file of this");
    }
    // Somebody says so, and a file says otherwise.
    fs::write(&encryption, start).unwrap();
    let said = cluster.rotate(APPLY).arg("--loaded").arg(&hash).run().ok();
    next(&said, "load-added");
    fs::copy(cluster.path(ADDED), &encryption).unwrap();
    let said = cluster.rotate(APPLY).run().ok();
    let said = next(&said, "load-promoted");
    assert_eq!(status(&said, "load-added"), "done");
    // The word was about the other file.
    let asked = cluster.asking("-w json").run().ok();
    assert_eq!(status(&next(&asked, "load-added"), "promote"), "done");
    cluster.load_all(PROMOTED);
    // A server that does not answer may have anything.
    let bin = cluster.asking(APPLY).words("--apiserver https://127.0.0.1:1");
    assert!(next(&bin.run().code(4), "load-promoted").to_string().contains("was not asked"));
    // One that etcd knows of and nobody asked, too.
    lease(&cluster.etcd, "cp-3", 1);
    let missing = cluster.asking(APPLY).run().code(4);
    assert!(next(&missing, "load-promoted").to_string().contains("cp-3"));
    // Without etcd nobody knows how many there are.
    cluster.etcd.kill();
    let away = cluster.asking(APPLY).run().code(4).says("etcd was not looked at");
    assert!(next(&away, "load-promoted").to_string().contains("how many API servers there are"));
}

#[test]
fn a_file_of_somebody_else_stops_it() {
    let cluster = Cluster::new();
    next(&cluster.asking(APPLY).run().ok(), "load-added");
    cluster.load_all(ADDED);
    let added = fs::read_to_string(cluster.path(ADDED)).unwrap();
    fs::write(cluster.path("other.yaml"), format!("{added}# changed\n")).unwrap();
    cluster.load(1, "other.yaml");
    let done = cluster.asking(APPLY).run().code(1).says("error: ").says("hint: ");
    let document = next(&done, "load-added");
    assert!(document.to_string().contains("none of this rotation's files"));
    cluster.load_all(ADDED);
    fs::copy(cluster.path("other.yaml"), cluster.path("encryption.yaml")).unwrap();
    cluster.asking(APPLY).run().code(1).says("none of this rotation's files");
    next(&cluster.asking("-w json").run().code(4), "load-added");
    assert_eq!(cluster.files(), [ADDED, "rotation.json"]);
}

#[test]
fn ended_between_file_and_memory_it_goes_on() {
    let cluster = Cluster::new();
    let key = "--key-name key-2";
    next(&cluster.asking(&format!("{APPLY} {key}")).run().ok(), "load-added");
    let added = fs::read(cluster.path(ADDED)).unwrap();
    fs::remove_file(cluster.path("rotation.json")).unwrap();
    // The same key, not another one of the same name.
    next(&cluster.asking(APPLY).run().ok(), "load-added");
    assert!(fs::read(cluster.path(ADDED)).unwrap() == added);
    let other = cluster.asking(&format!("{APPLY} --key-name key-3")).run();
    other.fails_with_hint(2).says("--key-name is not that of the rotation");

    cluster.load_all(ADDED);
    let before = fs::read(cluster.path("rotation.json")).unwrap();
    next(&cluster.asking(APPLY).run().ok(), "load-promoted");
    fs::write(cluster.path("rotation.json"), before).unwrap();
    next(&cluster.asking(APPLY).run().ok(), "load-promoted");
    fs::write(cluster.path(PROMOTED), "something else").unwrap();
    next(&cluster.asking("-w json").run().ok(), "load-promoted");

    // The key is nowhere else.
    fs::remove_file(cluster.path(ADDED)).unwrap();
    cluster.load_all("rotation.json");
    cluster.asking(APPLY).run().fails_with_hint(1).says("rotation-1-added.yaml is not there");
    fs::write(cluster.path("encryption.yaml"), &added).unwrap();
    cluster.asking("").run().code(4);
    fs::write(cluster.path("rotation.json"), "{}").unwrap();
    cluster.asking("").run().fails_with_hint(1).says("cannot be used");
}

#[test]
fn an_entry_that_no_key_reads_keeps_the_old_one() {
    let cluster = Cluster::new();
    next(&cluster.asking(APPLY).run().ok(), "load-added");
    cluster.load_all(ADDED);
    next(&cluster.asking(APPLY).run().ok(), "load-promoted");
    cluster.load_all(PROMOTED);
    cluster.etcd.put("/registry/secrets/a/torn", b"k8s:enc:secretbox:v1:secret-key-1:torn");
    let stuck = cluster.asking(APPLY).run().code(4).says("/registry/secrets/a/torn");
    next(&stuck, "migrate");
    assert!(!cluster.path(RETIRED).exists());
    // The others are rewritten, and it is not tried for ever.
    assert_eq!(stuck.json()["stored"]["new"], 20);
    cluster.etcd.ctl(&["del", "/registry/secrets/a/torn"]);
    next(&cluster.asking(APPLY).run().ok(), "load-retired");
}

#[test]
fn it_waits_for_servers_and_one_run_at_a_time() {
    let cluster = Cluster::new();
    next(&cluster.asking(APPLY).run().ok(), "load-added");
    let file = fs::read(cluster.path(ADDED)).unwrap();
    let start = fs::read(cluster.path("encryption.yaml")).unwrap();
    // Loads it between the first look and the next.
    let slow = ApiServer::start(&cluster.certs, move |request| {
        let file = if request.connection < 1 { &start } else { &file };
        Response::new(200, metrics("cp-1", file))
    });
    cluster.load(1, ADDED);
    let kubeconfig = slow.kubeconfig(&cluster.certs, cluster.dir.path());
    let bin = cluster.rotate("--confirm-apiserver --kubeconfig").arg(kubeconfig);
    let bin = bin.args(["--apiserver", &slow.url, "--apiserver", &cluster.servers[1].url]);
    next(&bin.words("--wait 3s").words(APPLY).run().ok(), "load-promoted");

    let dir = fs::File::open(cluster.dir.path()).unwrap();
    rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).unwrap();
    cluster.asking(APPLY).run().fails_with_hint(1).says("is at work");
    cluster.load_all(ADDED);
    next(&cluster.asking("-w json").run().ok(), "load-promoted");
}

#[test]
fn the_whole_of_it_beforehand() {
    let cluster = Cluster::new();
    let text = cluster.asking("--dry-run --key-name key-2").run().ok();
    let text = text.text();
    for step in ["add", "load-added", "promote", "load-promoted", "migrate", "verify", "retire"] {
        assert!(text.lines().any(|l| l.starts_with(&format!("{step}, by"))), "{step}: {text}");
    }
    assert!(text.contains("rotation-3-retired.yaml") && text.contains("--apply"), "{text}");
    assert_eq!(cluster.files(), [""; 0]);
    // From plaintext, and what cannot be done.
    let plain = cluster.path("plain.yaml");
    let identity = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                    resources:\n- resources: [secrets]\n  providers:\n  - identity: {}\n";
    fs::write(&plain, identity).unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
    let begin = |words: &str, config: &Path| {
        bin()
            .words("rotate --state")
            .arg(cluster.path("plain.json"))
            .arg("--encryption-config")
            .arg(config)
            .args(cluster.etcd.args())
            .words(words)
            .run()
    };
    begin("", &plain).fails(2).says("--provider says which");
    let first = begin("--provider secretbox -w json", &plain).ok();
    assert_eq!(first.json()["old"]["provider"], "identity");
    bin().words("rotate --state x").run().fails_with_hint(2).says("begins with the file");
}

/// Servers before 1.34 do not say what they have loaded: they show that they have the new key.
#[test]
fn older_servers_are_shown_the_new_key() {
    let cluster = Cluster::new();
    let encryption = cluster.path("encryption.yaml");
    let servers = [1, 2].map(|i| {
        let began: &'static [usize] = if i == 1 { &[1] } else { &[2] };
        older(&cluster.certs, &cluster.etcd, encryption.clone(), began)
    });
    let kubeconfig = servers[0].kubeconfig(&cluster.certs, cluster.dir.path());
    let asking = |words: &str| {
        let bin = cluster.rotate("--confirm-apiserver --canary --kubeconfig").arg(&kubeconfig);
        servers.iter().fold(bin, |bin, s| bin.arg("--apiserver").arg(&s.url)).words(words)
    };
    let canaries = || {
        let keys = cluster.etcd.ctl(&["get", "--prefix", "/registry/secrets/kube-system/"]);
        assert!(keys.is_empty(), "a canary is left");
    };
    // Nobody can have a file that was not there before.
    let begun = asking(APPLY).run().ok();
    next(&begun, "load-added");
    assert!(!begun.stderr.contains("for a moment"), "{begun}");
    let plan = asking("-w json").run().ok().says("--apply finds out by a canary");
    next(&plan, "load-added");
    // None has it yet.
    let none = asking(APPLY).run().ok().says("a canary is in etcd for a moment");
    assert!(next(&none, "load-added").to_string().contains("cannot read what the new key writes"));
    canaries();
    fs::copy(cluster.path(ADDED), &encryption).unwrap();
    let shown = asking(APPLY).run().ok().says("a canary is in etcd for a moment");
    let shown = next(&shown, "load-promoted");
    assert_eq!(
        (status(&shown, "load-added"), status(&shown, "promote")),
        ("done".into(), "done".into())
    );
    canaries();
    // Whether one writes with it, reading does not show.
    fs::copy(cluster.path(PROMOTED), &encryption).unwrap();
    let blind = asking(APPLY).run().code(4);
    assert!(next(&blind, "load-promoted").to_string().contains("does not say which"));
    assert!(!blind.stderr.contains("for a moment"), "{blind}");
    let hash = blind.json()["files"][2]["sha256"].as_str().unwrap().to_owned();
    let said = asking(APPLY).arg("--loaded").arg(&hash).run();
    next(&said, "load-retired");
    assert!(cluster.path(RETIRED).exists());
    // Without servers to ask there is nobody to show it to.
    cluster.rotate("--canary").run().code(2);
}

/// What ends the canary ends the run, and the next one goes on.
#[test]
fn a_canary_that_fails_stops_the_rotation() {
    let cluster = Cluster::new();
    let pid = cluster.etcd.pid().to_string();
    let kill = move |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    let stop = kill.clone();
    let stopping = ApiServer::start(&cluster.certs, move |request| {
        if request.path == "/metrics" {
            return Response::new(200, "process_start_time_seconds 1.700000001e+09\n".to_owned());
        }
        stop("-STOP");
        Response::status(404, "NotFound", "not found")
    });
    let kubeconfig = stopping.kubeconfig(&cluster.certs, cluster.dir.path());
    let run = || {
        let bin = cluster.rotate("--confirm-apiserver --canary --kubeconfig").arg(&kubeconfig);
        // Two servers, as etcd knows: both at this address began at once, and count once.
        bin.arg("--apiserver").arg(&stopping.url).words("--apply --command-timeout 1s")
    };
    cluster.etcd.ctl(&["del", "--prefix", "/registry/leases/kube-system/"]);
    lease(&cluster.etcd, "cp-1", 1);
    run().run();
    assert_eq!(cluster.files(), [ADDED, "rotation.json"]);
    let done = run().run();
    kill("-CONT");
    done.fails_with_hint(1).says("could not be removed; etcd does it within 60 s");
    assert_eq!(cluster.files(), [ADDED, "rotation.json"]);
}
