//! Offline sources against the reference corpus and against damage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use super::data_dir::{DataDir, leftovers};
use super::snapshot::{Snapshot, SnapshotOptions};
use super::*;
use crate::cli::failure::hint;
use crate::entry::Entry;
use crate::hex::hex;

const STRICT: SnapshotOptions = SnapshotOptions { skip_hash_check: false, salvage: false };
const SKIP: SnapshotOptions = SnapshotOptions { skip_hash_check: true, salvage: false };
const SALVAGE: SnapshotOptions = SnapshotOptions { skip_hash_check: false, salvage: true };

pub(super) fn corpus(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(name);
    zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()
}

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn query(prefix: &str, revision: Option<i64>) -> Query {
    Query { ranges: vec![KeyRange::prefix(prefix.as_bytes())], revision, ordered: true }
}

fn all(source: &mut dyn Source, query: &Query) -> Result<(Vec<Entry>, Visit), SourceError> {
    let mut entries = Vec::new();
    let visit = source.visit(query, &mut |e| {
        entries.push(e.to_entry());
        ControlFlow::Continue(())
    })?;
    assert!(entries.is_sorted_by(|a, b| a.key < b.key));
    Ok((entries, visit))
}

pub(super) fn open(
    bytes: &[u8],
    options: SnapshotOptions,
) -> Result<(Vec<Entry>, Visit), SourceError> {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "s.db", bytes);
    all(&mut Snapshot::open(&path, &options)?, &query("/registry/", None))
}

fn error(bytes: &[u8], options: SnapshotOptions) -> SourceError {
    match open(bytes, options) {
        Ok((entries, _)) => panic!("read {} entries", entries.len()),
        Err(e) => e,
    }
}

/// Compares with what a live read returned when the corpus was captured.
pub(super) fn assert_corpus(phase: &str, entries: &[Entry], visit: &Visit) {
    let expected = String::from_utf8(corpus(&format!("{phase}.entries.jsonl.zst"))).unwrap();
    let mut lines = expected.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let head = lines.next().unwrap();
    // Here and there the API server renewed a lease between the snapshot and the read.
    let behind = head["revision"].as_i64().unwrap() - visit.revision;
    assert!((0..=1).contains(&behind), "{phase} {behind}");
    assert_eq!(visit.damage, [], "{phase}");
    let (lines, later): (Vec<_>, Vec<_>) =
        lines.partition(|l| l["mod_revision"].as_i64().unwrap() <= visit.revision);
    assert_eq!(i64::try_from(later.len()).unwrap(), behind);
    let is_later =
        |e: &&Entry| !later.iter().any(|l| l["key"].as_str().unwrap().as_bytes() == e.key);
    let entries: Vec<_> = entries.iter().filter(is_later).collect();
    assert_eq!(lines.len(), entries.len(), "{phase}");
    for (line, entry) in lines.iter().zip(entries) {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        assert_eq!(line["key"], key.as_str());
        let numbers = [
            ("create_revision", entry.create_revision),
            ("mod_revision", entry.mod_revision),
            ("version", entry.version),
            ("lease", entry.lease),
            ("size", i64::try_from(entry.value.len()).unwrap()),
        ];
        for (field, value) in numbers {
            assert_eq!(line[field].as_i64().unwrap_or(0), value, "{phase} {key} {field}");
        }
        let hash = hex(digest(&SHA256, &entry.value).as_ref());
        assert_eq!(line["sha256"], hash.as_str(), "{phase} {key}");
    }
}

#[test]
fn every_phase_of_the_corpus() {
    let phases = [
        "p0-plaintext",
        "p1-secretbox",
        "p1b-partial-migration",
        "p2-aescbc",
        "p3-aesgcm",
        "p4-kmsv1",
        "p5-kmsv2",
        "p6-mixed",
        "p7-migrated-uncompacted",
        "p8-compacted-not-defragged",
        "p9-defragged",
    ];
    for phase in phases {
        let (entries, visit) = open(&corpus(&format!("{phase}.db.zst")), STRICT).unwrap();
        assert_corpus(phase, &entries, &visit);
        assert!(visit.notes.is_empty(), "{phase}: {:?}", visit.notes);
    }
}

fn data_dir(db: &[u8], wal: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir, "member/snap/db", db);
    write(&dir, "member/wal/0000000000000000-0000000000000000.wal", wal);
    dir
}

#[test]
fn a_data_directory_of_the_corpus() {
    let wal = corpus("p8-0000000000000000-0000000000000000.wal.zst");
    let dir = data_dir(&corpus("p8-member-snap-db.zst"), &wal);
    for path in [dir.path().to_owned(), dir.path().join("member")] {
        let mut source = DataDir::open(&path, &STRICT).unwrap();
        let (entries, visit) = all(&mut source, &query("/registry/", None)).unwrap();
        assert_corpus("p8-compacted-not-defragged", &entries, &visit);
    }
    // An older database with the same log: the log has everything since.
    for phase in ["p0-plaintext", "p4-kmsv1", "p7-migrated-uncompacted"] {
        let mut db = corpus(&format!("{phase}.db.zst"));
        db.truncate(db.len() - 32);
        let dir = data_dir(&db, &wal);
        let mut source = DataDir::open(dir.path(), &STRICT).unwrap();
        let (entries, visit) = all(&mut source, &query("/registry/", None)).unwrap();
        assert_corpus("p8-compacted-not-defragged", &entries, &visit);
        let has_all = phase == "p7-migrated-uncompacted";
        assert_eq!(visit.notes.iter().any(|n| n.contains("write-ahead log")), !has_all);
        // An earlier state, part of it from the log. Revision 1 and what is compacted are gone.
        let newest = visit.revision;
        let earlier = all(&mut source, &query("/registry/", Some(newest))).unwrap();
        assert_eq!(earlier.0, entries);
        assert!(all(&mut source, &query("/registry/", Some(newest + 1))).is_err());
        assert!(all(&mut source, &query("/registry/", Some(1))).is_err());
    }
}

#[test]
fn the_log_alone_holds_the_whole_history() {
    // From an empty database on, as after a crash before the first commit.
    let mut db = std::io::Cursor::new(Vec::new());
    let mut w = crate::bolt::write::Writer::new(&mut db, 4096).unwrap();
    w.bucket(b"key").finish().unwrap();
    w.bucket(b"meta").finish().unwrap();
    w.finish(1).unwrap();
    let wal = corpus("p8-0000000000000000-0000000000000000.wal.zst");
    let dir = data_dir(db.get_ref(), &wal);
    let mut source = DataDir::open(dir.path(), &STRICT).unwrap();
    let (entries, visit) = all(&mut source, &query("/registry/", None)).unwrap();
    assert_corpus("p8-compacted-not-defragged", &entries, &visit);
    let (mut puts, mut last) = (0, 0);
    let everything = query("", None);
    source
        .history(&everything, &mut |record| {
            let revision = match record {
                Record::Put(e) => e.mod_revision,
                Record::Delete { revision, .. } => revision,
            };
            assert!(revision >= last);
            last = revision;
            puts += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(last, visit.revision);
    assert!(puts > entries.len());
}

#[test]
fn data_directories_that_are_none() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| DataDir::open(path, &STRICT).unwrap_err();
    assert!(open(&dir.path().join("nowhere")).to_string().contains("cannot read"));
    assert!(open(dir.path()).to_string().contains("no etcd data directory"));
    let file = write(&dir, "a-file", b"x");
    assert!(hint(&open(&file)).unwrap().contains("--snapshot"));
    std::fs::create_dir_all(dir.path().join("d/member/wal")).unwrap();
    assert!(open(&dir.path().join("d")).to_string().contains("no database"));
    let db = corpus("p8-member-snap-db.zst");
    let held = write(&dir, "e/member/snap/db", &db);
    let no_log = open(&dir.path().join("e"));
    assert!(no_log.to_string().contains("no write-ahead log"), "{no_log}");
    assert!(hint(&no_log).unwrap().contains("--snapshot"));
    DataDir::open(&dir.path().join("e"), &SALVAGE).unwrap();
    // etcd holds its database with an exclusive lock.
    write(&dir, "e/member/wal/0000000000000000-0000000000000000.wal", &[0; 64]);
    let lock = std::fs::File::open(held).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let used = open(&dir.path().join("e"));
    assert!(used.to_string().contains("running etcd"), "{used}");
    DataDir::open(&dir.path().join("e"), &SALVAGE).unwrap();
    drop(lock);
    // A log that goes on far behind the database.
    let wal = corpus("p8-0000000000000000-0000000000000000.wal.zst");
    DataDir::open(&dir.path().join("e"), &STRICT).unwrap();
    write(&dir, "e/member/wal/0000000000000000-0000000000000000.wal", &wal[..4096]);
    DataDir::open(&dir.path().join("e"), &STRICT).unwrap();
}

#[test]
fn leftovers_are_listed() {
    let dir = TempDir::new().unwrap();
    for name in [
        "snap/db",
        "snap/db.tmp.123",
        "snap/0000000000000003.snap.db",
        "snap/0000000000000001-0000000000000003.snap",
        "wal/0000000000000000-0000000000000000.wal",
        "wal/0000000000000000-0000000000000000.wal.broken",
        "wal/0.tmp",
        "wal/wal.broken.20260101/0000000000000000-0000000000000000.wal",
    ] {
        write(&dir, name, b"x");
    }
    let found = leftovers(dir.path()).unwrap();
    let names: Vec<_> =
        found.iter().map(|l| l.path.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "snap/0000000000000001-0000000000000003.snap",
            "snap/0000000000000003.snap.db",
            "snap/db.tmp.123",
            "wal/0.tmp",
            "wal/0000000000000000-0000000000000000.wal.broken",
            "wal/wal.broken.20260101/0000000000000000-0000000000000000.wal",
        ]
    );
}

#[test]
fn a_cut_snapshot_is_never_whole() {
    let good = corpus("p0-plaintext.db.zst");
    let mut lengths: Vec<_> = (0..good.len()).step_by(99_991).collect();
    lengths.extend(good.len() - 70..good.len());
    lengths.extend((1..40).map(|n| n * 512 + 32));
    lengths.extend((1..700).step_by(13).map(|n| n * 4096));
    for len in lengths {
        let e = error(&good[..len], STRICT);
        assert!(hint(&e).is_some(), "{len}: {e}");
    }
}

#[test]
fn a_snapshot_that_was_changed_or_has_no_hash() {
    let good = corpus("p6-mixed.db.zst");
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let e = error(&bad, STRICT);
    assert!(e.to_string().contains("SHA-256"), "{e}");
    assert!(hint(&e).unwrap().contains("--skip-hash-check"));
    let (entries, visit) = open(&bad, SKIP).unwrap();
    assert_corpus("p6-mixed", &entries, &visit);
    assert_eq!(visit.notes.len(), 1);
    // Without its hash it is known as a snapshot by its metas; a member's own file has none.
    let e = error(&good[..good.len() - 32], STRICT);
    assert!(e.to_string().contains("without its SHA-256"), "{e}");
    let (entries, visit) = open(&corpus("p8-member-snap-db.zst"), STRICT).unwrap();
    assert_corpus("p8-compacted-not-defragged", &entries, &visit);
    assert!(visit.notes[0].contains("no SHA-256"));
    // Bytes too many.
    let mut long = good;
    long.push(0);
    assert!(error(&long, STRICT).to_string().contains("neither whole pages"));
    assert!(open(&long, SKIP).is_ok());
}

#[test]
fn files_that_are_something_else() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "is empty"),
        (b"apiVersion: v1\nkind: Secret\n", "not an etcd snapshot"),
        (&[b'x'; 9_000], "not an etcd snapshot"),
        (b"SQLite format 3\0and so on", "SQLite"),
        (b"\x1f\x8b\x08\0", "unpack"),
        (b"BZh91AY", "bzip2"),
        (b"age-encryption.org/v1\n", "encrypted by age"),
        (b"[{\"etcdEvent\": {}}]", "an incremental snapshot of Gardener"),
        (b"k8s:enc:aescbc:v1:k:", "a stored value"),
        (b"PK\x03\x04 cut short", "unpack"),
    ];
    for (bytes, words) in cases {
        for options in [STRICT, SKIP, SALVAGE] {
            let e = error(bytes, options);
            assert!(e.to_string().contains(words), "{e}");
        }
    }
    let dir = TempDir::new().unwrap();
    let e = Snapshot::open(dir.path(), &STRICT).unwrap_err();
    assert!(e.to_string().contains("is a directory") && hint(&e).unwrap().contains("--data-dir"));
    assert!(hint(&Snapshot::open(&dir.path().join("none"), &STRICT).unwrap_err()).is_some());
}

#[test]
fn a_zipped_snapshot() {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("etcd-snapshot-k3s-1700000000", options).unwrap();
    zip.write_all(&corpus("p6-mixed.db.zst")).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let (entries, visit) = open(&bytes, STRICT).unwrap();
    assert_corpus("p6-mixed", &entries, &visit);
}

#[test]
fn an_earlier_revision() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "s.db", &corpus("p7-migrated-uncompacted.db.zst"));
    let compacted = write(&dir, "c.db", &corpus("p8-compacted-not-defragged.db.zst"));
    let mut compacted = Snapshot::open(&compacted, &STRICT).unwrap();
    let mut source = Snapshot::open(&path, &STRICT).unwrap();
    // Revisions of earlier phases are still held, deletions in between included.
    let (_, p6) = open(&corpus("p6-mixed.db.zst"), STRICT).unwrap();
    let (entries, visit) = all(&mut source, &query("/registry/", Some(p6.revision))).unwrap();
    assert_corpus("p6-mixed", &entries, &visit);
    for (revision, words) in [(p6.revision, "compacted"), (i64::MAX, "future")] {
        let e = all(&mut compacted, &query("/registry/", Some(revision))).unwrap_err();
        assert!(e.to_string().contains(words) && hint(&e).is_some(), "{e}");
    }
    // As in etcd, 0 is the newest.
    let newest = all(&mut source, &query("/registry/", Some(0))).unwrap();
    assert_eq!(newest.0, all(&mut source, &query("/registry/", None)).unwrap().0);
}

fn by_key(entries: Vec<Entry>) -> BTreeMap<Vec<u8>, Entry> {
    entries.into_iter().map(|e| (e.key.clone(), e)).collect()
}

#[test]
fn salvage_without_metas() {
    let good = corpus("p9-defragged.db.zst");
    let mut bad = good.clone();
    bad[..8192].fill(0);
    assert!(error(&bad, SKIP).to_string().contains("not an etcd snapshot"));
    let (entries, visit) = open(&bad, SALVAGE).unwrap();
    assert!(!visit.damage.is_empty());
    assert!(visit.notes.iter().any(|n| n.contains("estimate")));
    // Nothing free in a defragmented file: the sweep finds exactly what was there.
    assert_eq!(entries, open(&good, STRICT).unwrap().0);
    // In one with history, the newest revision of each key still wins; what was deleted and
    // compacted may come back.
    let good = corpus("p8-compacted-not-defragged.db.zst");
    let mut bad = good.clone();
    bad[..8192].fill(0xFF);
    let found = by_key(open(&bad, SALVAGE).unwrap().0);
    for entry in open(&good, STRICT).unwrap().0 {
        assert_eq!(found.get(&entry.key), Some(&entry));
    }
}

#[test]
fn salvage_fills_only_what_the_tree_lost() {
    let good = corpus("p8-compacted-not-defragged.db.zst");
    let expected = by_key(open(&good, STRICT).unwrap().0);
    let db = crate::bolt::Db::open(&good).unwrap();
    let store = crate::mvcc::Store::open(db);
    let mut pages = Vec::new();
    store.records(&mut |r| pages.push(r.page));
    pages.dedup();
    // A branch page whose children are whole: everything is found again.
    let branch = (2..store.db().meta().high_water_mark).find(|p| {
        let page = store.db().page(*p);
        store.reachable().contains(*p)
            && page.is_ok_and(|p| p.kind == crate::bolt::PageKind::Branch)
    });
    let branch = usize::try_from(branch.unwrap()).unwrap();
    let mut bad = good.clone();
    bad[branch * 4096..(branch + 1) * 4096].fill(0);
    let (entries, visit) = open(&bad, SALVAGE).unwrap();
    assert!(!visit.damage.is_empty());
    let found = by_key(entries);
    for (key, entry) in &expected {
        assert_eq!(found.get(key), Some(entry));
    }
    // A leaf: only its own entries may be missing, and no entry of the others changes.
    let leaf = usize::try_from(pages[pages.len() / 2]).unwrap();
    let mut bad = good.clone();
    bad[leaf * 4096..(leaf + 1) * 4096].fill(0);
    let lost = expected.len() - by_key(open(&bad, SKIP).unwrap().0).len();
    assert!(lost > 0);
    let found = by_key(open(&bad, SALVAGE).unwrap().0);
    let changed = expected.iter().filter(|(k, e)| found.get(*k) != Some(e)).count();
    assert!(changed <= lost, "{changed} of {lost}");
}

proptest! {
    #![proptest_config(crate::testing::cases(40))]

    /// Wherever a snapshot is damaged: an answer, never a panic, and salvage finds no less.
    #[test]
    fn damage_anywhere(page in 0usize..731, from in 0usize..4096, len in 1usize..9000, byte in any::<u8>()) {
        let mut data = corpus("p0-plaintext.db.zst");
        let at = page * 4096 + from;
        let end = (at + len).min(data.len());
        data[at..end].fill(byte);
        let plain = open(&data, SKIP);
        let salvaged = open(&data, SALVAGE);
        if let Ok((entries, _)) = plain {
            prop_assert!(salvaged.unwrap().0.len() >= entries.len());
        }
    }
}
