//! `backups`: a directory of whole, packed, cut and foreign files.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::bin::Bin;
use crate::support::bucket::{Bucket, Shelf};
use crate::support::{bin, corpus};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn at<'v>(document: &'v Value, name: &str) -> &'v Value {
    let all = document["backups"].as_array().unwrap();
    all.iter().find(|b| b["location"].as_str().unwrap().ends_with(name)).unwrap()
}

fn fill(dir: &Path) {
    let p1 = std::fs::read(corpus::db("p1b-partial-migration")).unwrap();
    let p2 = std::fs::read(corpus::db("p2-aescbc")).unwrap();
    std::fs::create_dir(dir.join("older")).unwrap();
    std::fs::write(dir.join("etcd-snapshot-node-1767225600"), &p1).unwrap();
    std::fs::write(dir.join("older/etcd-snapshot-node-1735689600.gz"), gzip(&p1)).unwrap();
    std::fs::write(dir.join("cbc.db.zst"), zstd::encode_all(&p2[..], 1).unwrap()).unwrap();
    std::fs::write(dir.join("cut.db"), &p1[..p1.len() - 8192]).unwrap();
    std::fs::write(dir.join("notes.txt"), "no backup").unwrap();
}

#[test]
fn each_is_judged_and_each_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let done = bin()
        .words("backups -w json --encryption-config")
        .arg(corpus::private_config("p1-secretbox"))
        .arg(dir.path())
        .run()
        .code(4);
    let document = done.json();
    assert_eq!(document["schema"], "atrest.backups/v1");
    assert_eq!(document["backups"].as_array().unwrap().len(), 5);
    let whole = at(&document, "node-1767225600");
    assert_eq!((&whole["kind"], &whole["error"]), (&"snapshot".into(), &Value::Null));
    assert_eq!(whole["taken"], "2026-01-01T00:00:00Z");
    assert_eq!(whole["revision"], corpus::entries("p1b-partial-migration").revision);
    assert!(whole["totals"]["plaintext"].as_u64().unwrap() > 0);
    assert_eq!(whole["totals"]["unreadable"], 0);
    let packed = at(&document, ".gz");
    for field in ["revision", "totals", "keys", "residue"] {
        assert_eq!(packed[field], whole[field], "{field}");
    }
    assert!(at(&document, "cbc.db.zst")["totals"]["unreadable"].as_u64().unwrap() > 0);
    assert!(at(&document, "cut.db")["error"].is_string());
    assert_eq!(at(&document, "notes.txt")["kind"], "not-a-backup");
    let keys = document["keys"].as_array().unwrap();
    let first = keys.iter().find(|k| k["key"] == "secret-key-1").unwrap();
    assert_eq!(first["oldest"], "2025-01-01T00:00:00Z");
    assert!(keys.iter().any(|k| k["key"] == "cbc-2" && k["backups"] == 1));
}

fn zlibbed(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// As Go's `compress/lzw` does it.
fn lzwed(bytes: &[u8]) -> Vec<u8> {
    weezl::encode::Encoder::new(weezl::BitOrder::Lsb, 8).encode(bytes).unwrap()
}

/// Full snapshots in each of Gardener's compressions.
#[test]
fn a_full_snapshot_of_gardener_is_read_in_every_compression() {
    let dir = tempfile::tempdir().unwrap();
    let db = std::fs::read(corpus::db("p1b-partial-migration")).unwrap();
    for (end, bytes) in [(".gz", gzip(&db)), (".zlib", zlibbed(&db)), (".Z", lzwed(&db))] {
        std::fs::write(dir.path().join(format!("Full-0-335-1767225600{end}")), bytes).unwrap();
    }
    let document = bin().words("backups -w json").arg(dir.path()).run().ok().json();
    let all = document["backups"].as_array().unwrap();
    for backup in all {
        assert_eq!(backup["kind"], "gardener");
        for field in ["revision", "totals", "keys", "residue"] {
            assert_eq!(backup[field], all[0][field], "{field}");
        }
    }
    let packed = dir.path().join("Full-0-335-1767225600.Z");
    bin().words("scan --snapshot").arg(&packed).run().ok();
    let cut = lzwed(&db);
    std::fs::write(&packed, &cut[..cut.len() / 2]).unwrap();
    bin().words("scan --snapshot").arg(&packed).run().fails_with_hint(1).says("cannot unpack");
}

#[test]
fn nothing_found_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    bin().arg("backups").arg(dir.path()).run().fails_with_hint(1);
    std::fs::write(dir.path().join("notes.txt"), "no backup").unwrap();
    bin().arg("backups").arg(dir.path()).run().fails_with_hint(1).says("no backup among 1 file");
    bin().arg("backups").arg(dir.path().join("none")).run().fails_with_hint(1);
}

/// A backup in which nothing was looked at is not one that was found well.
#[test]
fn another_prefix_is_no_all_clear() {
    let done =
        bin().words("backups -w json --prefix /tenant").arg(corpus::db("p1b-partial-migration"));
    let document = done.run().code(4).json();
    let only = &document["backups"][0];
    assert_eq!(only["error"], "it holds nothing under /tenant/");
    assert_eq!(only["totals"]["entries"], 0);
}

/// Forty of a fleet: whole and cut, under several keys, packed in five ways, and three of no kind.
fn fleet(put: &mut dyn FnMut(&str, Vec<u8>)) {
    let phases = ["p1-secretbox", "p1b-partial-migration", "p2-aescbc", "p3-aesgcm", "p5-kmsv2"];
    let phases: Vec<_> = phases.iter().map(|p| std::fs::read(corpus::db(p)).unwrap()).collect();
    for n in 0..37 {
        let bytes = phases[n % phases.len()].clone();
        let (end, bytes) = match n % 6 {
            0 => ("", bytes),
            1 => (".gz", gzip(&bytes)),
            2 => (".zst", zstd::encode_all(&bytes[..], 1).unwrap()),
            3 => (".tar", tarred(&bytes)),
            4 => (".tgz", gzip(&tarred(&bytes))),
            _ => (".cut", bytes[..bytes.len() - 8192].to_vec()),
        };
        put(&format!("node{n:02}-{}{end}", 1_767_225_600 + n), bytes);
    }
    put("notes.txt", b"no backup".to_vec());
    put("empty", Vec::new());
    put("picture.png", b"\x89PNG\r\n\x1a\n".to_vec());
}

fn tarred(bytes: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, "snapshot.db", bytes).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn three_shards_of_a_bucket_add_up_to_one_run() {
    let mut objects = std::collections::BTreeMap::new();
    fleet(&mut |name, bytes| {
        objects.insert(format!("box/etcd/{name}"), bytes);
    });
    let bucket = Bucket::start(Shelf { objects, ..Shelf::default() });
    let s3 = || {
        bin()
            .env("AWS_ENDPOINT_URL", &bucket.url)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "eu-test-1")
            .env("AWS_SKIP_SIGNATURE", "true")
    };
    let config = corpus::private_config("p1-secretbox");
    let judging = || s3().words("backups -w json s3://box/etcd --encryption-config").arg(&config);
    let whole = judging().run().code(4).json();
    assert_eq!(whole["backups"].as_array().unwrap().len(), 40);
    assert!(whole["keys"].as_array().unwrap().len() >= 2, "{}", whole["keys"]);
    let into = "--results s3://box/results";
    let mut parts = Vec::new();
    for index in 0..2 {
        let done = judging().words(into).arg("--shard").arg(format!("{index}/3")).run().code(4);
        parts.extend(done.json()["backups"].as_array().unwrap().clone());
        done.says("of 40 files");
    }
    let summary = || s3().words("backups -w json --summarize s3://box/results");
    // A pod that is still to come.
    let early = summary().run().code(4).says("shard 2/3 is missing");
    assert_eq!(early.json()["backups"].as_array().unwrap().len(), parts.len());
    let pod = judging().words(into).env("JOB_COMPLETION_INDEX", "2").env("JOB_COMPLETIONS", "3");
    parts.extend(pod.run().code(4).json()["backups"].as_array().unwrap().clone());
    parts.sort_by_key(|b| b["location"].as_str().unwrap().to_owned());
    assert_eq!(Value::from(parts), whole["backups"]);
    let summed = summary().run().code(4).json();
    assert_eq!((&summed["backups"], &summed["keys"]), (&whole["backups"], &whole["keys"]));
    let page = s3().words("backups -w html --summarize s3://box/results").run().code(4);
    assert!(page.text().contains("37 backups; 6 could not be read"), "{page}");
    // A part is of all that there is, or of nothing.
    let wrong = judging().words("--shard 3/3").run().code(2);
    wrong.says("of 3 parts the last is 2");
    let other = judging().env("JOB_COMPLETION_INDEX", "2").env("JOB_COMPLETIONS", "2").run();
    other.fails_with_hint(2).says("JOB_COMPLETIONS");
    let no_store = judging().words("--results https://127.0.0.1/x").run();
    let no_store = no_store.fails_with_hint(2).says("is no object store");
    assert!(no_store.stdout.is_empty(), "{no_store}");
}

#[test]
fn reports_that_are_not_of_one_run_are_not_added_up() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = corpus::db("p1b-partial-migration");
    let report = |name: &str, words: &str| {
        let done = bin().words("backups -w json").words(words).arg(&snapshot).run();
        let path = dir.path().join(name);
        std::fs::write(&path, &done.stdout).unwrap();
        path
    };
    let add =
        |paths: &[&Path]| paths.iter().fold(bin().words("backups --summarize"), Bin::arg).run();
    let (one, half) = (report("one.json", ""), report("half.json", "--shard 0/2"));
    add(&[&one]).ok();
    add(&[&one, &one]).fails_with_hint(1).says("is in").says("one.json");
    add(&[&one, &half]).fails_with_hint(1).says("is a part of 1");
    add(&[dir.path()]).fails_with_hint(1).says("there is no report to add up");
    std::fs::write(dir.path().join("x"), "{}").unwrap();
    add(&[&dir.path().join("x")]).fails_with_hint(1).says("cannot be used");
    let with = bin().words("backups --resource configmaps --summarize").arg(&one).run();
    with.fails_with_hint(2).says("--resource changes nothing that was judged before");
}

#[test]
fn what_did_not_change_is_not_judged_again() {
    let dir = tempfile::tempdir().unwrap();
    let (files, state) = (dir.path().join("files"), dir.path().join("state.json"));
    std::fs::create_dir(&files).unwrap();
    fill(&files);
    let run = |config: &str, code: i32| {
        let judging = bin().words("backups -w json --encryption-config");
        let judging = judging.arg(corpus::private_config(config)).arg("--state").arg(&state);
        judging.arg(&files).run().code(code)
    };
    let first = run("p1-secretbox", 4);
    assert_eq!(first.json()["skipped"], 0);
    let again = run("p1-secretbox", 4).says("4 files had been judged before and did not change");
    let (first, again) = (first.json(), again.json());
    assert_eq!((&again["backups"], &again["keys"]), (&first["backups"], &first["keys"]));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&state).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // The one that was cut is whole now, and another one is gone.
    std::fs::copy(corpus::db("p2-aescbc"), files.join("cut.db")).unwrap();
    std::fs::remove_file(files.join("notes.txt")).unwrap();
    let changed = run("p1-secretbox", 4).json();
    assert_eq!((&changed["skipped"], &at(&changed, "cut.db")["error"]), (&3.into(), &Value::Null));
    std::fs::copy(corpus::db("p1b-partial-migration"), files.join("cut.db")).unwrap();
    let changed = run("p1-secretbox", 4).json();
    assert_eq!(at(&changed, "cut.db")["totals"], at(&first, "node-1767225600")["totals"]);
    // Other keys read other things.
    let other = run("p2-aescbc", 0).says("every backup is judged anew").json();
    assert_eq!(other["skipped"], 0);
    assert_eq!(at(&other, "cbc.db.zst")["totals"]["unreadable"], 0);
    std::fs::write(&state, "{}").unwrap();
    let foreign = bin().words("backups --state").arg(&state).arg(&files).run();
    foreign.fails_with_hint(1).says("cannot be used");
}

#[test]
fn the_table_has_forms_for_sheets_and_for_people() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    std::fs::write(dir.path().join("=cmd()<b>.db"), "no backup").unwrap();
    let form = |form: &str| bin().words("backups -w").arg(form).arg(dir.path()).run().code(4);
    let csv = form("csv");
    let mut rows = csv::Reader::from_reader(&csv.stdout[..]);
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    let whole = rows.iter().find(|r| r[0].ends_with("node-1767225600")).unwrap();
    let entries = corpus::entries("p1b-partial-migration");
    assert_eq!((&whole[1], &whole[3]), ("snapshot", &*entries.revision.to_string()));
    assert!(whole[13].contains("secretbox secret-key-1"), "{whole:?}");
    let page = String::from_utf8(form("html").stdout).unwrap();
    assert!(page.contains("1 could not be read") && page.contains("with plaintext"), "{page}");
    assert!(page.contains("=cmd()&lt;b&gt;.db") && !page.contains("<b>"), "{page}");
}

/// Archives of objects have neither revisions nor residue, and need keys like the others.
#[test]
fn archives_of_objects_are_judged_by_their_objects() {
    use crate::support::archives::{RIGHT, WRONG, config, gzip, rancher, tar, velero};
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (config(&dir, "aesgcm", RIGHT), config(&dir, "aesgcm", WRONG));
    let at_home = dir.path().join("backups");
    std::fs::create_dir(&at_home).unwrap();
    for (name, bytes) in [
        ("nightly-20260101.tar.gz", gzip(&velero())),
        ("rancher-1767225600.tar.gz", gzip(&rancher())),
        ("cut.tar.gz", {
            let whole = gzip(&velero());
            whole[..whole.len() - 40].to_vec()
        }),
        ("other.tar.gz", gzip(&tar(&[("a/b.json", b"{}".to_vec())]))),
    ] {
        std::fs::write(at_home.join(name), bytes).unwrap();
    }
    let judged = |config: &Path| {
        let done = bin().words("backups -w json --encryption-config").arg(config).arg(&at_home);
        done.run().code(4).json()
    };
    let document = judged(&right);
    let kinds = |name: &str| at(&document, name)["kind"].as_str().unwrap().to_owned();
    assert_eq!(kinds("other.tar.gz"), "not-a-backup");
    assert_eq!(kinds("cut.tar.gz"), "velero");
    assert!(at(&document, "cut.tar.gz")["error"].is_string());
    let velero = at(&document, "20260101.tar.gz");
    assert_eq!((&velero["kind"], &velero["error"]), (&"velero".into(), &Value::Null));
    assert_eq!((&velero["revision"], &velero["residue"]), (&Value::Null, &Value::Null));
    let totals = &velero["totals"];
    assert_eq!((&totals["entries"], &totals["plaintext"]), (&2.into(), &2.into()));
    let rancher = at(&document, "rancher-1767225600.tar.gz");
    assert_eq!((&rancher["kind"], &rancher["error"]), (&"rancher".into(), &Value::Null));
    assert_eq!(rancher["taken"], "2026-01-01T00:00:00Z");
    assert_eq!(
        (&rancher["totals"]["encrypted"], &rancher["totals"]["unreadable"]),
        (&2.into(), &0.into())
    );
    assert_eq!(document["keys"][0]["key"], "k1");
    let wrong = judged(&wrong);
    assert_eq!(at(&wrong, "rancher-1767225600.tar.gz")["totals"]["unreadable"], 2);
}

/// What Gardener's etcd-backup-restore keeps: a full snapshot, and the changes since.
#[test]
fn full_and_incremental_snapshots_of_gardener() {
    use crate::support::archives::base64;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("Backup-1767225600");
    std::fs::create_dir(&folder).unwrap();
    let full = std::fs::read(corpus::db("p1b-partial-migration")).unwrap();
    std::fs::write(folder.join("Full-00000000-00000335-1767225600.gz"), gzip(&full)).unwrap();
    let put = |key: &str, revision: i64, value: &[u8]| {
        format!(
            r#"{{"etcdEvent":{{"kv":{{"key":"{}","create_revision":1,"mod_revision":{revision},"version":1,"value":"{}"}}}},"time":"2026-01-01T00:10:00Z"}}"#,
            base64(key.as_bytes()),
            base64(value)
        )
    };
    let events = [
        put("/registry/secrets/a/b", 336, crate::support::secret("s").as_bytes()),
        put("/registry/secrets/a/c", 337, b"k8s:enc:secretbox:v1:key-of-the-past:sealed"),
        put("/registry/pods/a/p", 338, b"{}"),
        format!(
            r#"{{"etcdEvent":{{"type":1,"kv":{{"key":"{}","mod_revision":339}}}},"time":"2026-01-01T00:11:00Z"}}"#,
            base64(b"/registry/secrets/a/b")
        ),
    ];
    let list = format!("[{}]", events.join(","));
    let digest = ring::digest::digest(&ring::digest::SHA256, list.as_bytes());
    let whole = [list.as_bytes(), digest.as_ref()].concat();
    let plain = "Incr-00000336-00000339-1767226200";
    std::fs::write(folder.join(plain), &whole).unwrap();
    std::fs::write(folder.join(format!("{plain}.gz")), gzip(&whole)).unwrap();
    let zlib = folder.join(format!("{plain}.zlib"));
    std::fs::write(&zlib, zlibbed(&whole)).unwrap();
    let lzw = folder.join(format!("{plain}.Z"));
    std::fs::write(&lzw, lzwed(&whole)).unwrap();
    // Alone, its changes are of nothing.
    for alone in [&folder.join(plain), &zlib, &lzw] {
        let done = bin().words("scan --snapshot").arg(alone).run().fails_with_hint(1);
        done.says("is an incremental snapshot of Gardener's").says("atrest backups DIRECTORY");
    }
    let judged = || bin().words("backups -w json").arg(dir.path()).run();
    let document = judged().ok().json();
    let full = at(&document, "1767225600.gz");
    assert_eq!((&full["kind"], &full["revision"]), (&"gardener".into(), &335.into()));
    for end in ["", ".gz", ".zlib", ".Z"] {
        let name = format!("{plain}{end}");
        let changes = at(&document, &name);
        assert_eq!(
            (&changes["kind"], &changes["error"]),
            (&"gardener".into(), &Value::Null),
            "{name}"
        );
        assert_eq!(
            (&changes["revision"], &changes["taken"]),
            (&339.into(), &"2026-01-01T00:10:00Z".into())
        );
        let totals = &changes["totals"];
        assert_eq!((&totals["entries"], &totals["plaintext"]), (&2.into(), &1.into()));
        assert_eq!(
            (&changes["keys"][0]["key"], &changes["residue"]),
            (&"key-of-the-past".into(), &Value::Null)
        );
    }
    let past = document["keys"].as_array().unwrap().iter().find(|k| k["key"] == "key-of-the-past");
    assert_eq!(past.unwrap()["backups"], 4);
    std::fs::write(folder.join(plain), &whole[..whole.len() - 100]).unwrap();
    let cut = judged().code(4).json();
    assert!(at(&cut, plain)["error"].as_str().unwrap().contains("behind event"));
}
