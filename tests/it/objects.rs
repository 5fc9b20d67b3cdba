//! Archives of objects instead of pages: Velero's and rancher-backup's.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::archives::{
    RIGHT, WRONG, aesgcm, config, gzip, rancher, secret, secretbox, stripped, tar, velero,
};
use crate::support::bin;
use crate::support::bin::Bin;
use crate::support::bucket::{Bucket, Shelf};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn of(snapshot: &Path, words: &str) -> Bin {
    bin().arg("--snapshot").arg(snapshot).words(words)
}

fn entry<'v>(document: &'v Value, key: &str) -> &'v Value {
    let entries = document["entries"].as_array().unwrap();
    entries.iter().find(|e| e["key"] == key).unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn velero_stores_secrets_as_they_are() {
    let dir = Dir::new();
    let at = dir.file("backup.tar.gz", &gzip(&velero()));
    let document = of(&at, "scan -w json --list --all-resources").run().ok().json();
    assert_eq!(document["source"]["kind"], "velero");
    assert_eq!(document["source"]["revision"], Value::Null);
    assert_eq!(
        (&document["totals"]["entries"], &document["totals"]["plaintext"]),
        (&5.into(), &5.into())
    );
    let db = entry(&document, "/registry/secrets/shop/db");
    assert_eq!((&db["provider"], &db["mod_revision"]), (&"identity".into(), &573.into()));
    entry(&document, "/registry/minions/n1");
    entry(&document, "/registry/example.com/widgets/shop/w");
    of(&at, "scan --fail-on plaintext").run().code(3);
    let said = of(&at, "scan").run().ok();
    assert!(said.text().starts_with("velero ") && !said.text().contains("revision"), "{said}");
    assert!(!of(&at, "scan -w prometheus").run().ok().text().contains("atrest_scan_revision"));
    let right = config(&dir.0, "aesgcm", RIGHT);
    of(&at, "scan --verify --fail-on stale --encryption-config").arg(&right).run().code(3);
}

#[test]
fn every_packing_and_store_holds_the_same() {
    let dir = Dir::new();
    let expected = |at: &Path| {
        let mut document = of(at, "scan -w json --list").run().ok().json();
        document["source"]["location"].take();
        document
    };
    let first = expected(&dir.file("a.tar", &velero()));
    assert_eq!(first["totals"]["entries"], 2);
    let zip = {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("backup.tar", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, &velero()).unwrap();
        zip.finish().unwrap().into_inner()
    };
    for (name, bytes) in [
        ("a.tgz", gzip(&velero())),
        ("a.tar.zst", zstd::encode_all(&velero()[..], 1).unwrap()),
        ("a.zip", zip),
    ] {
        assert_eq!(expected(&dir.file(name, &bytes)), first, "{name}");
    }
    let objects = [("box/b.tar.gz".to_owned(), gzip(&velero()))].into_iter().collect();
    let bucket = Bucket::start(Shelf { objects, ..Shelf::default() });
    let mut fetched = bin()
        .env("AWS_ENDPOINT_URL", &bucket.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_SKIP_SIGNATURE", "true")
        .words("scan -w json --list --snapshot s3://box/b.tar.gz")
        .run()
        .ok()
        .json();
    fetched["source"]["location"].take();
    assert_eq!(fetched, first);
}

#[test]
fn objects_are_shown_exported_compared_and_judged() {
    let dir = Dir::new();
    let at = dir.file("backup.tar.gz", &gzip(&velero()));
    let object = of(&at, "get secrets/shop/db --reveal -w json").run().ok().json();
    assert_eq!(object["data"]["v"], "eA==");
    assert_eq!(object["metadata"]["resourceVersion"], "573");
    of(&at, "get secrets/shop/none").run().fails_with_hint(1).says("no entry");
    let list = of(&at, "export -w json --all-resources").run().ok().json();
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["m", "w", "n1", "api", "db"].map(Value::from), "by their keys");
    let report = of(&at, "posture -w json").run().ok().json();
    assert_eq!(report["secrets"].as_array().unwrap().len(), 2);
    let other = dir.file(
        "other.tar",
        &tar(&[
            ("resources/secrets/namespaces/shop/db.json", secret("shop", "db", "z")),
            ("resources/secrets/namespaces/shop/api.json", secret("shop", "api", "y")),
        ]),
    );
    let word = |path: &Path| format!("snapshot:{}", path.display());
    bin().arg("diff").args([word(&at), word(&at)]).run().ok();
    let done = bin().words("diff -w json").args([word(&at), word(&other)]).run().code(1).json();
    assert_eq!((done["changed"].as_array().unwrap().len(), &done["equal"]), (1, &1.into()));
}

#[test]
fn what_an_archive_does_not_have_is_not_called_clean() {
    let dir = Dir::new();
    let right = config(&dir.0, "aesgcm", RIGHT);
    for archive in [velero(), rancher()] {
        let at = dir.file("backup.tar.gz", &gzip(&archive));
        for words in [
            "residue",
            "history secrets/shop/db",
            "history --lost secrets/shop/db",
            "get --revision 5 secrets/shop/db",
            "scan --revision 5",
            "export --revision 5",
        ] {
            of(&at, words).run().fails_with_hint(1).says("not examined: an archive of objects");
        }
        let done = of(&at, "keys -w json --encryption-config").arg(&right).run().ok();
        assert!(done.stderr.contains("superseded revisions were not counted"), "{done}");
        let document = done.says("need not hold all that the cluster has").json();
        for key in document["keys"].as_array().unwrap() {
            assert_eq!(
                (&key["safe_to_remove"], &key["history_entries"]),
                (&false.into(), &Value::Null)
            );
        }
        of(&at, "config rotate --step retire --key-name k1 --provider aesgcm --out")
            .arg(dir.0.path().join("retired.yaml"))
            .arg("--encryption-config")
            .arg(&right)
            .run()
            .code(1);
        assert!(!dir.0.path().join("retired.yaml").exists());
        of(&at, "rewrite --write-config")
            .arg(&right)
            .arg("--out")
            .arg(dir.0.path().join("new.db"))
            .arg("--encryption-config")
            .arg(&right)
            .run()
            .fails_with_hint(1);
    }
}

#[test]
fn rancher_authenticates_namespace_and_name() {
    let dir = Dir::new();
    let at = dir.file("backup.tar.gz", &gzip(&rancher()));
    let (right, wrong) = (config(&dir.0, "aesgcm", RIGHT), config(&dir.0, "aesgcm", WRONG));
    let verify = |at: &Path, config: &Path| {
        of(at, "scan --verify -w json --list --all-resources --encryption-config").arg(config).run()
    };
    let document = verify(&at, &right).ok().json();
    assert_eq!(document["source"]["kind"], "rancher");
    assert_eq!(document["totals"]["unreadable"], 0);
    let db = entry(&document, "/registry/secrets/shop/db");
    assert_eq!((&db["provider"], &db["status"]), (&"aesgcm".into(), &"current".into()));
    assert_eq!((&db["key_name"], &db["mod_revision"]), (&"k1".into(), &0.into()));
    let user = entry(&document, "/registry/management.cattle.io/users/u-1");
    assert_eq!((&user["status"], &user["namespace"]), (&"current".into(), &Value::Null));
    let document = verify(&at, &wrong).code(4).json();
    assert_eq!(document["totals"]["unreadable"], 2);
    let get = |config: &Path| {
        of(&at, "get secrets/shop/db --reveal -w json --encryption-config").arg(config).run()
    };
    let object = get(&right).ok().json();
    assert_eq!(object["data"]["v"], "eA==");
    assert_eq!(object["metadata"]["resourceVersion"], Value::Null);
    get(&wrong).code(4);

    // Moved to another name: one is bound to its name, of the other the object tells.
    let plain = stripped("shop", "db", "x");
    let moved = tar(&[
        ("secrets.#v1/shop/other.json", aesgcm(RIGHT, "shop#db", &plain)),
        ("secrets.#v1/shop/copy.json", secretbox(RIGHT, &plain)),
        ("secrets.#v1/shop/db.json", secretbox(RIGHT, &plain)),
    ]);
    let moved = dir.file("moved.tar.gz", &gzip(&moved));
    let document = verify(&moved, &right).code(4).json();
    let status = |name: &str| entry(&document, &format!("/registry/secrets/shop/{name}")).clone();
    assert_eq!(status("other")["status"], "unreadable");
    assert!(status("copy")["reason"].as_str().unwrap().contains("/registry/secrets/shop/db"));
    assert_eq!(document["totals"]["misplaced"], 1);
    of(&moved, "export -w json --encryption-config").arg(&right).run().code(4);
}

#[test]
fn a_damaged_archive_is_read_in_part() {
    let dir = Dir::new();
    let mut many = vec![("metadata/version".to_owned(), b"1.1.0\n".to_vec())];
    for i in 0..200 {
        let name = format!("s{i:03}");
        let path = format!("resources/secrets/namespaces/shop/{name}.json");
        many.push((path, secret("shop", &name, &format!("{:?}", i * i * 7919))));
    }
    let members: Vec<_> = many.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    let whole = tar(&members);
    let packed = gzip(&whole);
    for bytes in
        [packed[..packed.len() / 2].to_vec(), whole[..whole.len() / 2 / 1024 * 1024].to_vec()]
    {
        let at = dir.file("cut", &bytes);
        let document = of(&at, "scan -w json").run().code(4).json();
        let entries = document["totals"]["entries"].as_u64().unwrap();
        assert!(entries > 50 && entries < 150, "{entries}");
        assert_eq!(document["damage"].as_array().unwrap().len(), 1);
        of(&at, "get secrets/shop/s003").run().code(4);
    }
}

#[test]
fn names_that_lead_elsewhere_are_no_objects() {
    let dir = Dir::new();
    let bad = tar(&[
        ("resources/secrets/namespaces/shop/db.json", secret("shop", "db", "x")),
        ("resources/secrets/namespaces/../../../evil.json", secret("shop", "evil", "x")),
        ("resources/secrets/namespaces/shop/../x.json", secret("shop", "x", "x")),
    ]);
    let at = dir.file("bad.tar.gz", &gzip(&bad));
    let done = of(&at, "scan").run().code(4).says("its name is no object's");
    assert!(done.text().contains(" 1 "), "{}", done.text());
    let out = dir.0.path().join("out");
    of(&at, "export --out").arg(&out).run().code(4);
    let here: Vec<_> =
        std::fs::read_dir(dir.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(here.len(), 2, "{here:?}");
}
