//! `residue`: what is found agrees with a search for the plaintext itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use memchr::memmem::Finder;
use serde_json::Value;

use crate::support::{Etcd, Version, bin, corpus};

/// Values shorter than this occur by chance.
const SHORTEST: usize = 6;
/// The corpus was written with pages of this size.
const PAGE: usize = 4096;

/// Every distinct value of the Secrets while nothing was encrypted.
fn secret_values() -> BTreeSet<Vec<u8>> {
    let list = corpus::kubectl("p0-plaintext");
    let mut values = BTreeSet::new();
    for item in list["items"].as_array().unwrap().iter().filter(|i| i["kind"] == "Secret") {
        for value in item["data"].as_object().into_iter().flatten() {
            let text = value.1.as_str().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            // The large one is all zeros, as is everything that was never written.
            let something = bytes.iter().any(|b| *b != bytes[0]);
            if bytes.len() >= SHORTEST && something {
                values.insert(bytes);
            }
        }
    }
    assert!(values.len() > 40, "the corpus has secrets");
    values
}

/// Offset and length of every occurrence of every value.
fn occurrences(data: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for value in secret_values() {
        found.extend(Finder::new(&value).find_iter(data).map(|at| (at, value.len())));
    }
    found
}

fn residue(args: &[&str], path: &Path) -> Value {
    let done = bin().words("residue -w json").args(args).arg(path).run().ok();
    let document = done.json();
    assert_eq!(document["schema"], "atrest.residue/v1");
    document
}

fn findings(document: &Value) -> &Vec<Value> {
    document["findings"].as_array().unwrap()
}

fn total(document: &Value, place: &str) -> u64 {
    document["totals"][place].as_u64().unwrap()
}

/// Offset of a finding in its file.
fn offset(finding: &Value) -> usize {
    let words: Vec<_> = finding["location"].as_str().unwrap().split(' ').collect();
    let number = |name: &str| {
        let at = words.iter().position(|w| *w == name)?;
        words[at + 1].parse::<usize>().ok()
    };
    number("page").unwrap_or(0) * PAGE + number("offset").unwrap()
}

/// Every occurrence lies in a finding, and every finding but empty ones holds one.
fn agree(data: &[u8], findings: &[&Value]) {
    // From the record's beginning: its key and revisions come before the value.
    const HEAD: usize = 400;
    let found = occurrences(data);
    let spans: Vec<_> = findings
        .iter()
        .map(|f| {
            (offset(f), offset(f) + HEAD + usize::try_from(f["size"].as_u64().unwrap()).unwrap())
        })
        .collect();
    let missed = found
        .iter()
        .filter(|(at, len)| !spans.iter().any(|(from, to)| from <= at && at + len <= *to))
        .count();
    assert_eq!(missed, 0, "of {} occurrences", found.len());
    for (finding, (from, to)) in findings.iter().zip(&spans) {
        let name = finding["key"].as_str().unwrap_or("(lost)");
        // Without data, with zeros only, or in parts that need not hold a whole value.
        let hollow =
            name.ends_with("/empty") || name.ends_with("/big-900k") || finding["partial"] == true;
        let holds = found.iter().any(|(at, _)| (from..to).contains(&at));
        assert!(hollow || holds, "{name} at {} holds no secret", finding["location"]);
    }
}

#[test]
fn every_plaintext_of_a_snapshot_is_found_and_nothing_else() {
    for (phase, superseded, free) in [
        ("p7-migrated-uncompacted", 32, 4),
        ("p8-compacted-not-defragged", 0, 36),
        ("p9-defragged", 0, 0),
    ] {
        let path = corpus::db(phase);
        let document = residue(&["--snapshot"], &path);
        assert_eq!(total(&document, "superseded-revision"), superseded, "{phase}");
        assert_eq!(total(&document, "free-page"), free, "{phase}");
        assert_eq!(total(&document, "page-slack"), 0, "{phase}");
        assert_eq!(document["head"]["plaintext"], 0, "{phase}");
        let clean = superseded + free == 0;
        assert_eq!(document["verdict"], if clean { "clean" } else { "residue" });
        assert_eq!(document["remedy"].as_array().unwrap().is_empty(), clean);
        agree(&fs::read(&path).unwrap(), &findings(&document).iter().collect::<Vec<_>>());
    }
    assert!(occurrences(&fs::read(corpus::db("p9-defragged")).unwrap()).is_empty());
}

#[test]
fn plaintext_that_is_live_is_not_residue() {
    let document = residue(&["--snapshot"], &corpus::db("p0-plaintext"));
    let live = corpus::entries("p0-plaintext");
    let secrets = live.entries.iter().filter(|e| e.key.starts_with("/registry/secrets/")).count();
    assert_eq!(document["head"]["plaintext"], secrets as u64);
    assert_eq!(total(&document, "superseded-revision"), 0);
    assert!(document["remedy"][0].as_str().unwrap().contains("migrate"));
}

#[test]
fn a_data_directory_is_searched_with_its_log() {
    let dir = corpus::data_dir();
    let document = residue(&["--data-dir"], dir.path());
    assert_eq!((total(&document, "free-page"), total(&document, "wal")), (36, 32));
    let (log, pages): (Vec<_>, Vec<_>) =
        findings(&document).iter().partition(|f| f["where"] == "wal");
    let db = dir.path().join("member/snap/db");
    agree(&fs::read(db).unwrap(), &pages);
    let wal = dir.path().join("member/wal/0000000000000000-0000000000000000.wal");
    agree(&fs::read(wal).unwrap(), &log);
    // The log is whole from the beginning, so it tells when each object was written.
    let revisions: std::collections::BTreeMap<_, _> = corpus::entries("p0-plaintext")
        .entries
        .into_iter()
        .map(|e| (e.key, e.mod_revision))
        .collect();
    for f in &log {
        assert_eq!(f["revision"], revisions[f["key"].as_str().unwrap()], "{f}");
    }
    let remedy: Vec<_> =
        document["remedy"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    let words: Vec<_> = remedy.iter().map(|s| s.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["defragment", "wait", "replace"]);
}

#[test]
fn leftover_files_are_searched() {
    let dir = corpus::data_dir();
    let member = dir.path().join("member");
    fs::copy(corpus::db("p7-migrated-uncompacted"), member.join("snap/db.tmp.123456")).unwrap();
    fs::copy(corpus::db("p9-defragged"), member.join("snap/00000000000002b0.snap.db")).unwrap();
    let wal = fs::read(member.join("wal/0000000000000000-0000000000000000.wal")).unwrap();
    fs::write(member.join("wal/0000000000000000-0000000000000000.wal.broken"), &wal).unwrap();
    fs::write(member.join("wal/0.tmp"), vec![0; 100_000]).unwrap();
    fs::write(member.join("wal/1.tmp"), b"").unwrap();
    let document = residue(&["--data-dir"], dir.path());
    assert_eq!((total(&document, "free-page"), total(&document, "wal")), (36, 32), "as without");
    let of = |name: &str| -> Vec<_> {
        let own = |f: &&Value| f["location"].as_str().unwrap().starts_with(name);
        findings(&document).iter().filter(|f| f["where"] == "leftover-file").filter(own).collect()
    };
    agree(&fs::read(corpus::db("p7-migrated-uncompacted")).unwrap(), &of("snap/db.tmp.123456"));
    agree(&wal, &of("wal/0000000000000000-0000000000000000.wal.broken"));
    assert_eq!(of("snap/00000000000002b0.snap.db").len(), 0);
    let sum = of("snap/").len() + of("wal/").len();
    assert_eq!(total(&document, "leftover-file"), sum as u64);
    let remedy = document["remedy"].to_string();
    assert!(remedy.contains("delete the leftover files"), "{remedy}");
}

#[test]
fn gates_tell_live_from_left_behind() {
    let run = |phase: &str, fail_on: &str| {
        let done = bin()
            .words("residue --fail-on")
            .arg(fail_on)
            .arg("--snapshot")
            .arg(corpus::db(phase))
            .run();
        done.code
    };
    assert_eq!(run("p7-migrated-uncompacted", "plaintext"), Some(3));
    assert_eq!(run("p8-compacted-not-defragged", "plaintext"), Some(3));
    assert_eq!(run("p9-defragged", "plaintext"), Some(0));
    assert_eq!(run("p0-plaintext", "plaintext"), Some(3));
    assert_eq!(run("p9-defragged", "residue"), Some(0));
}

/// What is recovered is what the API server served before anything was encrypted.
#[test]
fn objects_are_recovered_from_free_pages() {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("recovered");
    let done = bin()
        .words("residue -w json --recover")
        .arg(&to)
        .arg("--snapshot")
        .arg(corpus::db("p8-compacted-not-defragged"))
        .run()
        .ok();
    done.says("32 different objects");
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&to), 0o700);
    let kubectl = corpus::kubectl("p0-plaintext");
    let mut checked = 0;
    for item in kubectl["items"].as_array().unwrap().iter().filter(|i| i["kind"] == "Secret") {
        let meta = &item["metadata"];
        let word = |name: &str| meta[name].as_str().unwrap();
        let path = to.join(format!(
            "core/secrets/{}/{}_r{}.yaml",
            word("namespace"),
            word("name"),
            word("resourceVersion")
        ));
        let Ok(text) = fs::read_to_string(&path) else { continue };
        assert_eq!(mode(&path), 0o600);
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        for field in ["data", "type", "immutable"] {
            assert!(object[field] == item[field], "{field} of {}", path.display());
        }
        checked += 1;
    }
    assert_eq!(checked, 32);
    // A second run does not overwrite.
    let again = bin()
        .words("residue -w json --recover")
        .arg(&to)
        .arg("--snapshot")
        .arg(corpus::db("p8-compacted-not-defragged"))
        .run();
    again.fails_with_hint(1);
}

/// Only ciphertext was ever written: nothing is found, however much was rewritten and deleted.
#[test]
fn a_database_of_encrypted_secrets_is_clean() {
    let etcd = Etcd::plain(Version::V35);
    for round in 0..3 {
        for i in 0..40 {
            let value = format!("k8s:enc:secretbox:v1:key1:{round}-{}", "x".repeat(50 * i));
            etcd.put(&format!("/registry/secrets/ns/s{i}"), value.as_bytes());
        }
        etcd.put("/registry/configmaps/ns/c", b"k8s\0 plaintext of a resource not asked for");
    }
    etcd.ctl(&["del", "/registry/secrets/ns/s1", "--prefix"]);
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("s.db");
    etcd.snapshot(&file);
    assert_eq!(residue(&["--snapshot"], &file)["verdict"], "clean");
    let dir = etcd.stop();
    let document = residue(&["--data-dir"], &dir.path().join("etcd"));
    assert_eq!(document["verdict"], "clean", "{document}");
    let done = bin()
        .words("residue -w json --recover")
        .arg(out.path().join("recovered"))
        .arg("--data-dir")
        .arg(dir.path().join("etcd"))
        .run();
    done.code(4).says("not recovered: ").says("no --encryption-config was given");
}

#[test]
fn plaintext_beyond_the_high_water_mark_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("db");
    let mut bytes = corpus::bytes("p9-defragged.db");
    // As a member's own file: without digest, and longer than what is in use.
    bytes.truncate(bytes.len() - 32);
    let pages = bytes.len() / PAGE;
    let mut page = vec![0xAA; PAGE];
    let record = b"\x0a\x18/registry/secrets/ns/old\x10\x05\x18\x05\x20\x01\x2a\x09k8s\0hello";
    page[100..100 + record.len()].copy_from_slice(record);
    bytes.extend(&page);
    fs::write(&copy, &bytes).unwrap();
    let document = residue(&["--snapshot"], &copy);
    let found = findings(&document);
    assert_eq!(found.len(), 1, "{document}");
    assert_eq!(found[0]["key"], "/registry/secrets/ns/old");
    assert_eq!(found[0]["location"], format!("page {pages} offset 100"));
    assert_eq!((&found[0]["where"], &found[0]["revision"]), (&"free-page".into(), &5.into()));
}

/// `residue` of a snapshot from which 60 encrypted Secrets were deleted and compacted away. The
/// key is a throwaway.
fn lost(config: Option<&Path>, out: &Path) -> crate::support::bin::Done {
    let mut command = bin().words("residue -w json --resource secrets --snapshot");
    command = command.arg(corpus::fixtures("lost/after.db.gz"));
    if let Some(config) = config {
        command = command.words("--encryption-config").arg(config);
    }
    command.words("--recover").arg(out).run()
}

#[test]
fn encrypted_secrets_are_recovered_from_free_pages() {
    let out = tempfile::tempdir().unwrap();
    let config = corpus::fixtures("lost/enc.yaml");
    let to = out.path().join("right");
    let done = lost(Some(&config), &to).ok();
    done.says("60 encrypted records from free-page decrypted with secretbox key `key1`");
    let files: Vec<_> =
        fs::read_dir(to.join("core/secrets/default")).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 60);
    for file in files {
        let object: Value = serde_saphyr::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        assert!(object["kind"] == "Secret" && stem.starts_with(&format!("{name}_r")), "{stem}");
        assert!(object["data"].as_object().is_some_and(|data| !data.is_empty()), "{stem}");
    }
}

/// They are no residue, and that nothing of them lives is no error: they can be examined.
#[test]
fn lost_encrypted_secrets_are_told_without_recovering_them() {
    let done = bin()
        .words("residue -w json --resource secrets --snapshot")
        .arg(corpus::fixtures("lost/after.db.gz"))
        .run()
        .ok();
    let done = done.says("60 encrypted records of what is no longer live");
    assert_eq!(done.json()["verdict"], "clean");
    let misspelt = bin()
        .words("residue --resource secretz --snapshot")
        .arg(corpus::fixtures("lost/after.db.gz"))
        .run();
    misspelt.fails_with_hint(1);
}

#[test]
fn what_no_key_reads_is_named_and_partial() {
    let out = tempfile::tempdir().unwrap();
    let done = lost(None, &out.path().join("none"));
    done.code(4).says("not recovered: 60 entries").says("no --encryption-config was given");
    let text = fs::read_to_string(corpus::fixtures("lost/enc.yaml")).unwrap();
    let secret = text.lines().find(|l| l.contains("secret:")).unwrap();
    let other = format!("        secret: {}=", "A".repeat(43));
    let config = out.path().join("other.yaml");
    fs::write(&config, text.replace(secret, &other)).unwrap();
    let done = lost(Some(&config), &out.path().join("wrong"));
    done.code(4).says("not recovered: 60 entries").says("key1");
}

/// A copy of what is live is nothing lost, wherever it lies.
#[test]
fn copies_of_live_values_are_not_recovered() {
    const KEY: &str = "/registry/secrets/ns/a";
    let etcd = Etcd::plain(Version::V35);
    for n in [1, 2, 1] {
        etcd.put(KEY, format!("k8s:enc:secretbox:v1:key1:{n}").as_bytes());
    }
    let out = tempfile::tempdir().unwrap();
    let recovers_one = |source: &str, at: &std::ffi::OsStr| {
        let to = tempfile::tempdir_in(out.path()).unwrap();
        let done =
            bin().words("residue -w json --recover").arg(to.path()).arg(source).arg(at).run();
        done.code(4).says(&format!("not recovered: {KEY}: encrypted"));
    };
    recovers_one("--endpoints", etcd.endpoint().as_ref());
    let file = out.path().join("s.db");
    etcd.snapshot(&file);
    recovers_one("--snapshot", file.as_ref());
    let dir = etcd.stop();
    recovers_one("--data-dir", dir.path().join("etcd").as_ref());
}

/// What could not be read changes no word of the verdict: it is said beside it.
#[test]
fn a_verdict_of_what_could_be_read_says_so() {
    let mut crafted = crate::support::snapshot::Crafted::new();
    for i in 0..200 {
        let value = format!("k8s:enc:secretbox:v1:key1:{}", "x".repeat(200));
        crafted = crafted.put(format!("/registry/secrets/ns/s{i}"), value);
    }
    let file = crafted.file();
    let mut bytes = fs::read(file.path()).unwrap();
    // The first leaf page with more than a bucket's name (etcd-io/bbolt `internal/common/page.go`).
    let is_leaf = |page: &&mut [u8]| page[8..10] == [2, 0] && page[10] > 4;
    let leaf = bytes.chunks_exact_mut(PAGE).find(is_leaf).unwrap();
    leaf[16..].fill(0xFF);
    fs::write(file.path(), &bytes).unwrap();
    let run = |format: &str| {
        bin().words("residue --salvage -w").arg(format).arg("--snapshot").arg(file.path()).run()
    };
    let document = run("json").code(4).json();
    assert_eq!(document["verdict"], "clean");
    assert!(!document["damage"].as_array().unwrap().is_empty());
    assert!(!document["not_examined"].as_array().unwrap().is_empty());
    let table = run("table").code(4).says("cannot read page ");
    assert!(table.text().contains("verdict: clean; nothing is known of "), "{table}");
}
