use std::io::Write as _;

use super::snapshot::{Snapshot, SnapshotOptions};
use super::tests::{assert_corpus, corpus, open};
use super::*;

const STRICT: SnapshotOptions = SnapshotOptions { skip_hash_check: false, salvage: false };

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, content) in members {
        zip.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn error(bytes: &[u8]) -> SourceError {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("backup");
    std::fs::write(&path, bytes).unwrap();
    Snapshot::open(&path, &STRICT).unwrap_err()
}

#[test]
fn every_form_is_read_whatever_its_name() {
    let db = corpus("p6-mixed.db.zst");
    let state = b"{\"desiredState\":{}}".as_slice();
    let members = [("backup/name", db.as_slice()), ("backup/name.rkestate", state)];
    let archive = tar(&members);
    let mut skippable = vec![0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 7, 7];
    skippable.extend(zstd(&db));
    for (form, bytes) in [
        ("gzip", gzip(&db)),
        ("two gzip members", [gzip(&db[..5000]), gzip(&db[5000..])].concat()),
        ("zlib", zlib(&db)),
        ("zstd", zstd(&db)),
        ("zstd behind a skippable frame", skippable),
        ("xz", xz(&db)),
        ("zip", zip(&[("name", &db)])),
        ("zip with a state file", zip(&members)),
        ("tar", archive.clone()),
        ("tar.gz", gzip(&archive)),
        ("tar.zst", zstd(&archive)),
        ("tar.xz", xz(&archive)),
        ("gzip in tar.gz", gzip(&tar(&[("log.gz", &gzip(b"hello")), ("s.db.gz", &gzip(&db))]))),
    ] {
        let (entries, visit) = open(&bytes, STRICT).unwrap_or_else(|e| panic!("{form}: {e}"));
        assert_corpus("p6-mixed", &entries, &visit);
    }
}

#[test]
fn what_is_not_one_database_is_named() {
    let db = corpus("p6-mixed.db.zst");
    let two = tar(&[("a.db", &db), ("b.db", &db)]);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    for (bytes, words) in [
        (gzip(&two), "holds 2 etcd databases"),
        (gzip(b"hello"), "holds no etcd database"),
        (tar(&[("a", b"x"), ("b", b"y")]), "in its 2 members"),
        (cut(gzip(&db)), "cannot unpack"),
        (cut(zstd(&db)), "cannot unpack"),
        (cut(xz(&db)), "cannot unpack"),
        (cut(zip(&[("a", &db)])), "cannot unpack"),
        (cut(gzip(&tar(&[("a", &db)]))), "cannot unpack"),
        (gzip(&tar(&[("resources/secrets/namespaces/a/b.json", b"{}")])), "a Velero backup"),
        (gzip(&tar(&[("secrets.#v1/a/b.json", b"\"\"")])), "a rancher-backup archive"),
    ] {
        let e = error(&bytes);
        assert!(e.to_string().contains(words), "{words}: {e}");
        assert!(crate::cli::failure::Failure::from(e).hint.is_some(), "{words}");
    }
    // Packed in itself without end.
    let nested = (0..8).fold(db, |bytes, _| gzip(&bytes));
    assert!(error(&nested).to_string().contains("holds no etcd database"));
}
