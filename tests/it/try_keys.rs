//! A right key under a wrong name, the commonest way to lose a cluster.

use std::fmt::Write as _;
use std::path::PathBuf;

use atrest::config::{ConfigSet, load};
use atrest::kms::NoPlugins;
use atrest::secret::Plaintext;
use atrest::transform::Transformers;
use base64::Engine as _;

use crate::support::bin;
use crate::support::bin::Done;
use crate::support::snapshot::Crafted;

const KEY: &str = "/registry/secrets/prod/db";

fn object() -> Vec<u8> {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "prod"},
        "data": {"password": "aHVudGVyMg=="},
    });
    atrest::storage::encode(&object).unwrap().to_vec()
}

/// `provider name=byte name=byte; …`: keys of 32 such bytes, thrown away with the test.
fn config(resources: &str, providers: &str) -> String {
    let mut text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [{resources}]\n  providers:\n"
    );
    for provider in providers.split("; ") {
        let mut words = provider.split(' ');
        writeln!(text, "  - {}:\n      keys:", words.next().unwrap()).unwrap();
        for key in words {
            let (name, byte) = key.split_once('=').unwrap();
            let secret = base64::prelude::BASE64_STANDARD.encode([byte.parse().unwrap(); 32]);
            writeln!(text, "      - {{name: {name}, secret: {secret}}}").unwrap();
        }
    }
    text
}

/// What an API server with that configuration stores.
fn stored(providers: &str) -> Vec<u8> {
    let set = ConfigSet::new(load(config("secrets", providers).as_bytes(), "x").unwrap()).unwrap();
    let transformers = Transformers::new(&set, std::sync::Arc::new(NoPlugins)).unwrap();
    let transformers = transformers.for_resource("secrets");
    transformers.write(KEY.as_bytes(), &Plaintext::new(object())).unwrap()
}

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(stored: &[u8], config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Crafted::new().put(KEY, stored).write(&dir.path().join("snapshot.db"));
        let path = dir.path().join("ec.yaml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &str) -> Done {
        let run = bin().words(words).arg("--snapshot").arg(self.path("snapshot.db"));
        run.arg("--encryption-config").arg(self.path("ec.yaml")).run()
    }
}

#[test]
fn the_secret_that_fits_is_named_and_used_when_asked_to() {
    for (written, configured, resources, words) in [
        ("secretbox key2=1", "secretbox key1=1", "secrets", "the secret of `key1` reads it"),
        ("aescbc key2=1", "aescbc other=3 key1=1", "secrets", "the secret of `key1` reads it"),
        ("aesgcm key2=1", "aesgcm key1=1", "secrets", "the secret of `key1` reads it"),
        // The key of that name is another one.
        (
            "secretbox key2=1",
            "secretbox key2=2 key1=1",
            "secrets",
            "authentication failed (another key's, or damaged); the secret of `key1` reads it",
        ),
        // It stands under another provider, where its name is even right.
        (
            "secretbox key2=1",
            "aescbc key2=1",
            "secrets",
            "the secret of aescbc key `key2` reads it",
        ),
        // It serves other resources.
        (
            "secretbox key2=1",
            "secretbox key2=1",
            "configmaps",
            "does not serve secrets; the secret of secretbox key `key2` reads it",
        ),
        // A stored name with colons.
        ("secretbox a:b:c=1", "secretbox key1=1", "secrets", "the secret of `key1` reads it"),
    ] {
        let case = Case::new(&stored(written), &config(resources, configured));
        let scan =
            |more: &str| case.run(&format!("scan -w json --resource secrets --verify {more}"));
        let done = scan("--list").code(4).says(words).says("--try-keys");
        assert_eq!(done.json()["totals"]["unreadable"], 1, "{written}: as for the API server");
        assert!(done.json()["entries"][0]["reason"].as_str().unwrap().ends_with(words));
        let report = scan("--list --try-keys").ok().json();
        assert_eq!(report["totals"]["stale"], 1, "{written}");
        assert!(report["entries"][0]["reason"].as_str().unwrap().ends_with(words));

        let get = |more: &str| case.run(&format!("get -w json --reveal {KEY} {more}"));
        get("").code(4).says(words).says("--try-keys");
        assert_eq!(get("--try-keys").ok().json()["data"]["password"], "aHVudGVyMg==");
        let export = |more: &str| case.run(&format!("export -w json --resource secrets {more}"));
        export("").code(4).says(words).says("--try-keys");
        assert_eq!(export("--try-keys").ok().json()["items"].as_array().unwrap().len(), 1);
        let decode = bin()
            .words("decode -w json --try-keys --key")
            .arg(KEY)
            .arg("--encryption-config")
            .arg(case.path("ec.yaml"))
            .stdin(stored(written))
            .run()
            .ok();
        assert_eq!(decode.json()["metadata"]["name"], "db");
    }
}

#[test]
fn where_no_secret_fits_none_is_named() {
    for (written, configured) in [
        ("secretbox key2=1", "secretbox key1=2"),
        ("aescbc key2=1", "aescbc key1=2 key2=3"),
        ("aesgcm key2=1", "secretbox key2=2; aesgcm key1=3"),
    ] {
        let case = Case::new(&stored(written), &config("secrets", configured));
        let done = case.run("scan --verify").code(4);
        assert!(!done.stderr.contains("reads it"), "{done}");
        case.run("scan --verify --try-keys").code(4);
    }
    let case = Case::new(&stored("secretbox k=1"), &config("secrets", "secretbox k=1"));
    case.run("scan --try-keys").fails(2);
}
