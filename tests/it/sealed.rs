//! Backups that age encrypted, and `--identity`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::age::{Pair, with_passphrase};
use crate::support::archives::{gzip, tar, velero};
use crate::support::bin::{Bin, Done};
use crate::support::bucket::{Bucket, Shelf};
use crate::support::{bin, corpus};

const PHASE: &str = "p1b-partial-migration";

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

fn database() -> Vec<u8> {
    std::fs::read(corpus::db(PHASE)).unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn scan(option: &str, at: &Path) -> Bin {
    bin().words("scan -w json --list --all-resources").arg(option).arg(at)
}

/// What was found, wherever it lay.
fn found(done: Done) -> Value {
    let mut document = done.ok().json();
    document["source"]["location"].take();
    document
}

#[test]
fn snapshots_are_read_through_every_order_of_layers() {
    let (pair, dir, db) = (Pair::new(), Dir::new(), database());
    let expected = found(scan("--snapshot", &corpus::db(PHASE)).run());
    let seal = |bytes: &[u8]| pair.seal(bytes);
    let zip = |bytes: &[u8]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("backup", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
        zip.finish().unwrap().into_inner()
    };
    let in_tar = tar(&[("notes", b"x".to_vec()), ("s.db.zst.age", seal(&zstd(&db)))]);
    for (name, bytes) in [
        ("db.age", seal(&db)),
        ("db.age as text", pair.seal_as_text(&db)),
        ("db.zst.age", seal(&zstd(&db))),
        ("db.gz.age as text", pair.seal_as_text(&gzip(&db))),
        ("db.age.zst", zstd(&seal(&db))),
        ("db.age.gz as text", gzip(&pair.seal_as_text(&db))),
        ("db.zip.age", seal(&zip(&db))),
        ("db.zst.age.zip", zip(&seal(&zstd(&db)))),
        ("db.gz.tar.gz.age", seal(&gzip(&tar(&[("s.db.gz", gzip(&db))])))),
        ("db.zst.age.tar.gz", gzip(&in_tar)),
        ("db.age.age", seal(&seal(&db))),
    ] {
        let at = dir.file("backup", &bytes);
        let temporary = dir.0.path().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let done = scan("--snapshot", &at).arg("--identity").arg(pair.file());
        assert_eq!(found(done.env("TMPDIR", &temporary).run()), expected, "{name}");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{name} left something");
    }
}

/// What tells a command from another one does not tell what it reads.
#[test]
fn every_offline_source_is_read() {
    let (pair, dir) = (Pair::new(), Dir::new());
    let sealed = |name: &str, bytes: &[u8]| dir.file(name, &pair.seal(bytes));
    let (kine, connection) = crate::kine::kine(dir.0.path(), PHASE);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    for (option, plain, age) in [
        ("--kine", &kine, sealed("kine.age", &zstd(&std::fs::read(&kine).unwrap()))),
        ("--snapshot", &dir.file("velero", &velero()), sealed("velero.age", &gzip(&velero()))),
    ] {
        let expected = found(scan(option, plain).run());
        let done = scan(option, &age).arg("--identity").arg(pair.file()).run();
        assert_eq!(found(done), expected, "{option}");
        scan(option, &age).run().fails_with_hint(1).says("is encrypted by age");
    }
    let age = sealed("db.age", &database());
    for words in ["keys", "residue", "history secrets", "config rotate --step retire", "posture"] {
        let done = bin()
            .words(words)
            .arg("--snapshot")
            .arg(&age)
            .arg("--identity")
            .arg(pair.file())
            .arg("--encryption-config")
            .arg(corpus::private_config("p1-secretbox"))
            .run();
        assert!(!done.stderr.contains("age"), "{done}");
    }
    let diff = || bin().arg("diff").arg(format!("snapshot:{}", age.display()));
    let plain = format!("snapshot:{}", corpus::db(PHASE).display());
    let with = |bin: Bin| {
        let bin = bin.arg("--encryption-config").arg(corpus::private_config("p1-secretbox"));
        bin.arg("--identity").arg(pair.file()).run()
    };
    with(diff().arg(&plain)).ok();
    with(bin().arg("diff").arg(&plain).arg(&plain)).fails_with_hint(2);
    let objects = [("box/db.age".to_owned(), std::fs::read(&age).unwrap())].into_iter().collect();
    let bucket = Bucket::start(Shelf { objects, ..Shelf::default() });
    let fetched = bin()
        .env("AWS_ENDPOINT_URL", &bucket.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_SKIP_SIGNATURE", "true")
        .words("scan -w json --list --all-resources --snapshot s3://box/db.age --identity")
        .arg(pair.file())
        .run();
    assert_eq!(found(fetched), found(scan("--snapshot", &corpus::db(PHASE)).run()));
}

#[test]
fn what_is_not_opened_is_named() {
    let (pair, other, dir, db) = (Pair::new(), Pair::new(), Dir::new(), database());
    let age = dir.file("db.age", &pair.seal(&zstd(&db)));
    let identity = |bin: Bin, of: &Pair| bin.arg("--identity").arg(of.file()).run();
    scan("--snapshot", &age).run().fails_with_hint(1).says("an identity opens it");
    identity(scan("--snapshot", &age), &other).fails_with_hint(1).says("other recipients");
    let passphrase = dir.file("p.age", &with_passphrase(&db));
    scan("--snapshot", &passphrase).run().fails_with_hint(1).says("with a passphrase");
    identity(scan("--snapshot", &passphrase), &pair)
        .fails(1)
        .says("hint: decrypt it with `age -d`");
    let whole = pair.seal(&db);
    for at in [60, whole.len() / 2, whole.len() - 1] {
        let cut = dir.file("cut.age", &whole[..at]);
        identity(scan("--snapshot", &cut), &pair).fails_with_hint(1);
    }
    // Beside a database, what nobody can open in an archive is as little asked for as anything.
    let beside = dir.file("a.tar", &tar(&[("keys.age", pair.seal(b"x")), ("s.db", db.clone())]));
    scan("--snapshot", &beside).run().ok();
    // An option that is not honoured is refused.
    let plain = corpus::db(PHASE);
    identity(scan("--snapshot", &plain), &pair).fails_with_hint(2).says("--identity");
    identity(bin().words("scan --endpoints 127.0.0.1:1"), &pair).fails_with_hint(2);
    let secret = std::fs::read_to_string(pair.file()).unwrap();
    let logged = identity(scan("--snapshot", &age), &other);
    assert!(!format!("{logged}").contains(&secret[20..40]));
}

#[test]
fn backups_says_which_ones_it_could_not_examine() {
    let (pair, other, dir, db) = (Pair::new(), Pair::new(), Dir::new(), database());
    dir.file("a-1767225600.db.zst.age", &pair.seal(&zstd(&db)));
    dir.file("b.db.age", &other.seal_as_text(&db));
    dir.file("c.db.age", &with_passphrase(&db));
    dir.file("d.age", &pair.seal(b"a letter"));
    dir.file("e.db", &db);
    dir.file("f.velero.age", &pair.seal(&gzip(&velero())));
    let judge = || bin().words("backups -w json").arg(dir.0.path());
    let rows = |done: &Done| done.json()["backups"].as_array().unwrap().clone();
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
    let without = judge().run().code(4).says("--identity FILE opens what age encrypted");
    let seen = rows(&without);
    let kinds: Vec<_> = seen.iter().map(|r| field(r, "kind")).collect();
    assert_eq!(kinds, ["age", "age", "age", "age", "snapshot", "age"]);
    assert_eq!(field(&seen[0], "error"), "age-encrypted: not examined");
    assert!(field(&seen[2], "error").contains("with a passphrase"));
    assert_eq!(seen[0]["totals"], Value::Null);
    let text = bin().arg("backups").arg(dir.0.path()).run().code(4);
    assert!(text.text().contains("age-encrypted: not examined"));

    // What was not opened is looked at again as soon as it can be.
    let state = dir.0.path().join("state");
    let state = || judge().arg("--state").arg(&state);
    state().run().code(4);
    let with = state().arg("--identity").arg(pair.file()).run().code(4);
    let now = rows(&with);
    let kinds: Vec<_> = now.iter().take(6).map(|r| field(r, "kind")).collect();
    assert_eq!(kinds, ["snapshot", "age", "age", "not-a-backup", "snapshot", "velero"]);
    assert!(field(&now[1], "error").contains("other recipients"));
    for name in ["revision", "totals", "keys", "residue"] {
        assert_eq!(now[0][name], now[4][name], "{name}");
    }
    assert_eq!(now[0]["taken"], "2026-01-01T00:00:00Z");
    let plain = Dir::new();
    plain.file("e.db", &db);
    let unneeded = bin().arg("backups").arg(plain.0.path()).arg("--identity").arg(pair.file());
    unneeded.run().ok().says("no --identity was needed");

    // In a bucket, nothing is fetched that cannot be opened.
    let objects = [("box/a.age".to_owned(), pair.seal(&db)), ("box/b.db".to_owned(), db)];
    let objects = objects.into_iter().collect();
    let bucket = Bucket::start(Shelf { objects, ..Shelf::default() });
    let judge = || {
        bin()
            .env("AWS_ENDPOINT_URL", &bucket.url)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_SKIP_SIGNATURE", "true")
            .words("backups -w json s3://box")
    };
    let sealed = rows(&judge().run().code(4));
    assert_eq!(field(&sealed[0], "error"), "age-encrypted: not examined");
    let opened = rows(&judge().arg("--identity").arg(pair.file()).run().ok());
    assert_eq!(opened[0]["totals"], opened[1]["totals"]);
}

#[test]
fn an_escrow_is_made_of_an_encrypted_backup() {
    let (pair, to, dir) = (Pair::new(), Pair::new(), Dir::new());
    let plugs = crate::support::plugs::Plugs::start("kek-2026-02");
    let db = std::fs::read(corpus::db("p5-kmsv2")).unwrap();
    let age = dir.file("db.age", &pair.seal(&db));
    let read = |words: &str| {
        let bin = bin().words(words).arg("--snapshot").arg(&age);
        bin.arg("--encryption-config").arg(plugs.config("p5-kmsv2"))
    };
    let escrow = dir.0.path().join("escrow.age");
    let keep = read("kms escrow").arg("--to").arg(to.public()).arg("--out").arg(&escrow);
    keep.arg("--identity").arg(pair.file()).run().ok().says("the file is not checked");
    let both = read("scan --verify -w json").arg("--kms-escrow").arg(&escrow);
    let both = both.arg("--identity").arg(pair.file()).arg("--identity").arg(to.file()).run().ok();
    assert_eq!(both.json()["totals"]["unreadable"], 0);
}
