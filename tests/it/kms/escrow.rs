//! `kms escrow`, and reading with what it wrote.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::exec::{LONG, One};
use super::keyring::Keyring;
use crate::support::bin::{Bin, Done, bin};
use crate::support::corpus;
use crate::support::etcd::{Etcd, Version};
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::plugs::Plugs;

/// A throwaway key pair of age.
struct Pair {
    dir: tempfile::TempDir,
    public: String,
    secret: String,
}

impl Pair {
    fn new() -> Self {
        use age::secrecy::ExposeSecret as _;
        let dir = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let secret = identity.to_string().expose_secret().to_owned();
        let public = identity.to_public().to_string();
        let pair = Self { dir, public, secret };
        private(&pair.file(), &format!("# a throwaway key\n{}\n", pair.secret));
        pair
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("identity.txt")
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Keeps the data keys of `one`, which a program unwraps.
fn keep(one: &One, to: &Pair, out: &Path) -> Bin {
    config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), one)
        .arg(format!("--kms-exec=p={}", one.ring.command()))
        .arg(LONG)
        .args(["--to", &to.public])
        .arg("--out")
        .arg(out)
}

fn config(bin: Bin, one: &One) -> Bin {
    bin.arg("--encryption-config").arg(one.path("c.yaml"))
}

fn with(bin: Bin, escrow: &Path, identity: &Path) -> Bin {
    bin.arg("--kms-escrow").arg(escrow).arg("--identity").arg(identity)
}

fn scan(db: &Path, config: &Path) -> Bin {
    bin()
        .words("scan --verify --all-resources --list -w json --snapshot")
        .arg(db)
        .arg("--encryption-config")
        .arg(config)
}

/// An escrow of `entries` Secrets, and its key pair.
fn kept(version: &str, entries: usize) -> (One, Pair, PathBuf) {
    let (one, pair) = (One::new(version, entries), Pair::new());
    let file = one.path("escrow.age");
    keep(&one, &pair, &file).run().ok();
    (one, pair, file)
}

/// Entries of a scan, without what only the plugin can say: whether its key is the current one.
fn judged(done: &Done) -> Vec<Value> {
    let mut entries = done.json()["entries"].as_array().unwrap().clone();
    for entry in &mut entries {
        if entry["version"] == "v2"
            && matches!(entry["status"].as_str(), Some("unknown" | "current" | "stale"))
        {
            entry["status"] = "readable".into();
            entry["reason"] = Value::Null;
        }
    }
    entries
}

#[test]
fn the_corpus_is_read_when_the_plugins_are_gone() {
    let pair = Pair::new();
    let dir = tempfile::tempdir().unwrap();
    for phase in ["p4-kmsv1", "p5-kmsv2", "p6-mixed"] {
        let plugs = Plugs::start("kek-2026-02");
        let name = if phase == "p6-mixed" { "p6-sb2" } else { phase };
        let (db, asking) = (corpus::db(phase), plugs.config(name));
        let file = dir.path().join(phase);
        let done = bin()
            .words("kms escrow -w json --to")
            .arg(&pair.public)
            .arg("--out")
            .arg(&file)
            .arg("--snapshot")
            .arg(&db)
            .arg("--encryption-config")
            .arg(&asking)
            .arg("--identity")
            .arg(pair.file())
            .run()
            .ok();
        let report = done.json();
        assert_eq!((&report["checked"], &report["recipients"]), (&true.into(), &1.into()));
        let ring = Keyring::of(&db);
        for (keys, bytes) in [(&ring, &done.stdout), (&ring, &std::fs::read(&file).unwrap())] {
            keys.assert_absent(bytes);
        }
        ring.assert_absent(done.stderr.as_bytes());
        let asked = scan(&db, &asking).run().ok();
        // With both, nothing differs.
        let both = with(scan(&db, &asking), &file, &pair.file()).run().ok();
        assert_eq!(both.json(), asked.json(), "{phase}");
        drop(plugs);
        let gone = with(scan(&db, &corpus::private_config(name)), &file, &pair.file()).run().ok();
        assert_eq!(gone.json()["totals"]["unreadable"], 0, "{phase}");
        assert_eq!(judged(&gone), judged(&asked), "{phase}");
    }
}

/// No superseded revision is forgotten.
#[test]
fn history_is_kept_too() {
    let (pair, plugs) = (Pair::new(), Plugs::start("kek-2026-02"));
    let db = corpus::db("p7-migrated-uncompacted");
    let file = plugs.dir().join("escrow.age");
    let keep = bin()
        .words("kms escrow -w json --to")
        .arg(&pair.public)
        .arg("--out")
        .arg(&file)
        .arg("--snapshot")
        .arg(&db)
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"));
    let report = keep.run().ok().json();
    let needs = bin().words("kms needs -w json --snapshot").arg(&db).run().ok().json();
    let mut total = 0;
    for needed in needs["providers"].as_array().unwrap() {
        let all = report["providers"].as_array().unwrap();
        let told = all.iter().find(|p| p["name"] == needed["name"]).unwrap();
        let of = |count: &str| {
            needed["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|k| k[count].as_u64().unwrap())
                .sum::<u64>()
        };
        assert_eq!(told["kept"]["data_keys"], of("data_keys"));
        assert_eq!(told["kept"]["history_entries"], of("history_entries"));
        total += of("history_entries");
    }
    assert!(total > 0);
}

#[test]
fn nobody_else_is_asked() {
    let one = One::new("v2", 20);
    let (pair, file) = (Pair::new(), one.path("escrow.age"));
    keep(&one, &pair, &file).run().ok();
    let runs = one.ring.runs();
    let read = with(scan(&one.path("s.db"), &one.path("c.yaml")), &file, &pair.file())
        .arg(format!("--kms-exec=p={}", one.ring.command()))
        .arg(LONG)
        .run()
        .ok();
    assert_eq!(read.json()["totals"]["unreadable"], 0);
    assert_eq!(one.ring.runs(), runs, "the program has nothing to do");
    one.ring.assert_absent(&read.stdout);
    one.ring.assert_absent(read.stderr.as_bytes());
    assert!(!read.stderr.contains("AGE-SECRET"), "{read}");
}

#[test]
fn every_command_that_decrypts_takes_it() {
    let (one, pair, file) = kept("v2", 3);
    let run = |bin: Bin| with(config(bin, &one), &file, &pair.file()).run().ok();
    let from = |words: &str| bin().words(words).arg("--snapshot").arg(one.path("s.db"));
    assert_eq!(run(from("get secrets/default/s1 -w json")).json()["metadata"]["name"], "s1");
    let exported = run(from("export -w json")).json();
    assert_eq!(exported["items"].as_array().unwrap().len(), 3);
    run(from("restore plan"));
    run(from("posture"));
    run(from("history secrets/default/s1"));
    let itself = format!("snapshot:{}", one.path("s.db").display());
    run(bin().words("diff").arg(&itself).arg(&itself));
    run(bin().words("backups").arg(one.path("s.db")));
    // A copy that needs the KMS no more.
    let (copy, plain) = (one.path("copy.db"), corpus::private_config("p1-secretbox"));
    run(from("rewrite").arg("--out").arg(&copy).arg("--write-config").arg(&plain));
    let read = scan(&copy, &plain).run().ok();
    assert_eq!(read.json()["totals"]["current"], 3);
}

/// The way out of a KMS that is gone.
#[test]
fn a_live_etcd_is_migrated_away_from_it() {
    let (one, pair, file) = kept("v2", 3);
    let etcd = Etcd::plain(Version::V35);
    for (key, value) in super::keyring::entries(&one.path("s.db")) {
        etcd.put(std::str::from_utf8(&key).unwrap(), &value);
    }
    let plain = corpus::private_config("p1-secretbox");
    let migrate = |words: &str| {
        let bin =
            bin().words("migrate -w json").words(words).arg("--endpoints").arg(etcd.endpoint());
        let bin = bin.arg("--encryption-config").arg(&plain);
        with(config(bin, &one), &file, &pair.file()).run().ok().json()
    };
    assert_eq!(migrate("")["planned"], 3);
    assert_eq!(migrate("--apply --no-backup")["written"], 3);
    let read = bin()
        .words("scan --verify -w json --endpoints")
        .arg(etcd.endpoint())
        .arg("--encryption-config")
        .arg(&plain)
        .run()
        .ok();
    assert_eq!(read.json()["totals"]["current"], 3);
}

#[test]
fn the_file_is_its_owners_and_useless_without_an_identity() {
    for version in ["v1", "v2"] {
        let (one, pair, file) = kept(version, 4);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = std::fs::read(&file).unwrap();
        one.ring.assert_absent(&bytes);
        let read = || scan(&one.path("s.db"), &one.path("c.yaml"));
        let none = read().arg("--kms-escrow").arg(&file).run().code(2);
        assert!(none.stderr.contains("--identity"), "{none}");
        let other = Pair::new();
        with(read(), &file, &other.file()).run().fails_with_hint(1).says("other recipients");
        // The other half of the pair is no identity.
        private(&other.file(), &pair.public);
        with(read(), &file, &other.file()).run().fails(1).says("the public half");
        // Its own among others.
        let both = format!("{}\n{}\n", Pair::new().secret, pair.secret);
        private(&other.file(), &both);
        with(read(), &file, &other.file()).run().ok();
        for (damaged, says) in [
            (bytes[..bytes.len() - 1].to_vec(), "damaged or cut short"),
            (bytes[..bytes.len() / 2].to_vec(), "damaged or cut short"),
            (
                {
                    let mut b = bytes.clone();
                    let at = b.len() - 40;
                    b[at] ^= 1;
                    b
                },
                "damaged or cut short",
            ),
            (b"anything".to_vec(), "no age file"),
            (Vec::new(), "no age file"),
        ] {
            std::fs::write(one.path("damaged"), damaged).unwrap();
            with(read(), &one.path("damaged"), &pair.file()).run().fails(1).says(says);
        }
    }
}

#[test]
fn text_goes_anywhere_and_the_rest_not_to_a_terminal() {
    let (one, pair) = (One::new("v2", 2), Pair::new());
    let keep = || {
        config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one)
            .arg(format!("--kms-exec=p={}", one.ring.command()))
            .arg(LONG)
            .args(["--to", &pair.public, "--to", &Pair::new().public])
    };
    for bin in [keep(), keep().arg("--armor"), keep().words("--out -")] {
        let done = bin.arg("--identity").arg(pair.file()).run().ok();
        assert!(done.stderr.contains("guard the identity as the keys themselves"), "{done}");
        one.ring.assert_absent(&done.stdout);
        std::fs::write(one.path("copy"), &done.stdout).unwrap();
        let read =
            with(scan(&one.path("s.db"), &one.path("c.yaml")), &one.path("copy"), &pair.file());
        assert_eq!(read.run().ok().json()["totals"]["unreadable"], 0);
    }
    let shown = keep().on_a_terminal();
    assert_eq!(shown.code, Some(2), "{shown}");
    assert!(shown.stderr.contains("stdout is a terminal"), "{shown}");
    assert!(
        keep().arg("--armor").on_a_terminal().stderr.contains("-----BEGIN AGE ENCRYPTED FILE-----")
    );
}

#[test]
fn what_cannot_be_kept_is_told() {
    let one = One::new("v1", 5);
    let (pair, file) = (Pair::new(), one.path("escrow.age"));
    // One of five is refused.
    let (_, refused, _) = &one.ring.keys[2];
    let command = format!(
        "cat >'{0}'.$$; sha256sum <'{0}'.$$ | grep -q {1} && {{ echo 'no such key' >&2; exit 9; }}; \
         ( {2} ) <'{0}'.$$",
        one.path("in").display(),
        super::keyring::hex(&refused.digest()),
        one.ring.command()
    );
    let done = config(bin().words("kms escrow -w json --snapshot").arg(one.path("s.db")), &one)
        .arg(format!("--kms-exec=p={command}"))
        .arg(LONG)
        .args(["--to", &pair.public])
        .arg("--out")
        .arg(&file)
        .run()
        .code(4)
        .says("1 data key of `p`, which 1 live entry and 0 superseded revisions need, is not kept")
        .says("no such key");
    let report = done.json();
    assert_eq!(report["providers"][0]["kept"]["data_keys"], 4);
    assert_eq!(report["providers"][0]["missing"][0]["data_keys"], 1);
    let read = || with(scan(&one.path("s.db"), &one.path("c.yaml")), &file, &pair.file());
    let done = read().run().code(4).says("1 data key could not be kept");
    let document = done.json();
    assert_eq!(document["totals"]["unreadable"], 1);
    let entries = document["entries"].as_array().unwrap();
    let reason = entries
        .iter()
        .find_map(|e| (e["status"] == "unreadable").then(|| e["reason"].as_str().unwrap()));
    let reason = reason.unwrap();
    assert!(
        reason.contains("the escrow does not hold this data key, and the KMS plugin at"),
        "{reason}"
    );
    // Whoever is configured is asked for the rest.
    read().arg(format!("--kms-exec=p={}", one.ring.command())).arg(LONG).run().ok();
    // None at all: no file.
    let none = config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one)
        .args(["--kms-exec=p=exit 9", LONG, "--to", &pair.public, "--out"])
        .arg(one.path("none"))
        .run()
        .fails_with_hint(1)
        .says("none of the data keys could be unwrapped");
    assert!(!one.path("none").exists(), "{none}");
}

/// What unwraps to something else is not kept as if it were the key.
#[test]
fn a_key_that_opens_nothing_is_not_kept() {
    let one = One::new("v2", 2);
    let pair = Pair::new();
    config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one)
        .args(["--kms-exec=p=head -c 32 /dev/zero", LONG, "--to", &pair.public, "--out"])
        .arg(one.path("none"))
        .run()
        .fails(1)
        .says("what was unwrapped opens no value");
    assert!(!one.path("none").exists());
}

#[test]
fn an_escrow_is_made_anew_for_others() {
    let (one, pair, file) = kept("v2", 3);
    let (other, second) = (Pair::new(), one.path("second.age"));
    let keep = |out: &Path| {
        let keep = config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one)
            .args(["--to", &other.public])
            .arg("--out")
            .arg(out);
        with(keep, &file, &pair.file())
    };
    keep(&second).run().ok().says("the file is not checked");
    let read = || scan(&one.path("s.db"), &one.path("c.yaml"));
    with(read(), &second, &other.file()).run().ok();
    with(read(), &second, &pair.file()).run().fails(1);
    // Nothing is replaced unless asked for.
    keep(&second).run().fails_with_hint(1).says("exists already");
    keep(&second).arg("--force").run().ok();
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_read() {
    let (one, pair) = (One::new("v2", 1), Pair::new());
    let run = |words: &[&str]| {
        config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one).args(words).run()
    };
    run(&[]).code(2).says("--to <RECIPIENT>");
    run(&["--to", "bob"]).fails_with_hint(2).says("`bob` is no age recipient");
    let secret = run(&["--to", &pair.secret]).fails_with_hint(2).says("the secret half");
    assert!(!secret.stderr.contains(&pair.secret[20..]), "an identity is told");
    let other = Pair::new();
    let identity = other.file();
    run(&["--to", &pair.public, "--identity", identity.to_str().unwrap()])
        .fails_with_hint(2)
        .says("no --identity is of one of the recipients");
    let nothing = bin()
        .words("kms escrow --to")
        .arg(&pair.public)
        .arg("--snapshot")
        .arg(corpus::db("p1-secretbox"))
        .arg("--encryption-config")
        .arg(one.path("c.yaml"));
    nothing.run().fails(1).says("nothing here depends on a KMS data key");
    let scan = || bin().words("scan --snapshot").arg(one.path("s.db"));
    scan().arg("--identity").arg(pair.file()).run().fails_with_hint(2).says("is not encrypted");
    let (_one, pair, file) = kept("v2", 1);
    with(scan(), &file, &pair.file()).run().fails_with_hint(2).says("no configuration has a KMS");
    with(scan(), &file, &pair.file())
        .arg("--encryption-config")
        .arg(corpus::private_config("p5-kmsv2"))
        .run()
        .says("the escrow has data keys of p");
}

/// The plugin itself unwraps them as well as a program.
#[test]
fn a_destroyed_key_is_told_with_the_plugin_running() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("p.sock");
    let plugin = Running::start(Listen::Path(socket.clone()), Behaviour::new("kek-v1"));
    let (one, pair) = (One::new("v2", 1), Pair::new());
    let text = std::fs::read_to_string(one.path("c.yaml")).unwrap();
    private(&one.path("c.yaml"), &text.replace("/nowhere/p.sock", socket.to_str().unwrap()));
    let keep = |out: &str| {
        config(bin().words("kms escrow --snapshot").arg(one.path("s.db")), &one)
            .args(["--to", &pair.public])
            .arg("--out")
            .arg(one.path(out))
            .run()
    };
    keep("a").ok();
    plugin.set(|b| b.destroyed.push("kek-v1".to_owned()));
    keep("b").fails_with_hint(1).says("the key version has been destroyed");
    with(scan(&one.path("s.db"), &one.path("c.yaml")), &one.path("a"), &pair.file()).run().ok();
}
