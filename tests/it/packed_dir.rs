//! `--data-dir FILE`: a data directory that is packed in an archive.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::age::Pair;
use crate::support::archives::gzip;
use crate::support::bin::Bin;
use crate::support::{bin, corpus};

/// Every file below a directory, by its path from there.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// As `tar` writes it, below `base`.
pub fn tarred(base: &str, files: &[(String, Vec<u8>)]) -> tar::Builder<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, format!("{base}{name}"), &bytes[..]).unwrap();
    }
    tar
}

fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

struct Rig {
    dir: tempfile::TempDir,
    temporary: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Rig {
    fn new() -> Self {
        let mut files = files(corpus::data_dir().path());
        // A leftover with plaintext, and what has nothing to do with etcd.
        let secret = files.iter().find(|(name, _)| name.ends_with("snap/db")).unwrap().1.clone();
        files.push(("member/snap/db.tmp.1".to_owned(), secret));
        files.push(("notes.txt".to_owned(), b"notes".to_vec()));
        Self { dir: tempfile::tempdir().unwrap(), temporary: tempfile::tempdir().unwrap(), files }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn unpacked(&self) -> PathBuf {
        let to = self.dir.path().join("unpacked");
        for (name, bytes) in &self.files {
            let path = to.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        to
    }

    fn run(&self, words: &str, at: &Path) -> Bin {
        bin().env("TMPDIR", self.temporary.path()).words(words).arg("--data-dir").arg(at)
    }

    fn tar(&self) -> Vec<u8> {
        tarred("var/lib/etcd/", &self.files).into_inner().unwrap()
    }
}

const COMMANDS: [&str; 3] = [
    "scan -w json --list --all-resources",
    "residue -w json --resource secrets",
    "history -w jsonl secrets",
];

/// Without where it lies.
fn found(mut document: Value) -> Value {
    document["source"]["location"].take();
    document
}

#[test]
fn it_is_read_as_the_directory_that_it_was() {
    let (rig, pair) = (Rig::new(), Pair::new());
    let plain = rig.unpacked();
    let results = |at: &Path, more: &[&std::ffi::OsStr]| {
        COMMANDS.map(|words| {
            let done = rig.run(words, at).args(more).run();
            assert!(matches!(done.code, Some(0 | 4)), "{done}");
            let all = if words.contains("jsonl") { done.jsonl() } else { vec![done.json()] };
            all.into_iter().map(found).collect::<Vec<_>>()
        })
    };
    let expected = results(&plain, &[]);
    assert!(expected[1][0]["totals"]["leftover-file"].as_u64().unwrap() > 0);
    let identity = pair.file();
    let identity = ["--identity".as_ref(), identity.as_os_str()];
    let tar = rig.tar();
    for (name, bytes, more) in [
        ("a.tar", tar.clone(), &[][..]),
        ("a.tar.gz", gzip(&tar), &[]),
        ("a.tar.zst", zstd::encode_all(&tar[..], 1).unwrap(), &[]),
        ("a.zip", zip(&rig.files), &[]),
        ("a.tar.gz.age", pair.seal(&gzip(&tar)), &identity),
    ] {
        assert_eq!(results(&rig.file(name, &bytes), more), expected, "{name}");
        assert_eq!(std::fs::read_dir(rig.temporary.path()).unwrap().count(), 0, "{name}");
    }
    let packed = rig.file("a.tar", &tar);
    let mut alone = rig.files.clone();
    alone.retain(|(name, _)| !name.contains("db.tmp"));
    let alone = rig.file("alone.tar", &tarred("", &alone).into_inner().unwrap());
    let snapshot = bin().words("scan --snapshot").arg(&alone).run();
    snapshot.says("a write-ahead log lies beside the database");
    let words = "backups -w json --all-resources";
    let judged = bin().words(words).arg(&packed).arg(&alone).arg(&plain).run().json();
    let all = judged["backups"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    for one in all {
        for field in ["revision", "totals", "keys", "error"] {
            assert_eq!(one[field], all[2][field], "{field}");
        }
        assert_eq!(one["kind"], "data-dir");
    }
}

#[test]
fn links_devices_and_ways_out_are_refused() {
    let rig = Rig::new();
    let special = |kind, name: &str| {
        let mut tar = tarred("", &rig.files);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, "/etc/passwd").unwrap();
        tar.into_inner().unwrap()
    };
    let mut outside = tarred("", &rig.files).into_inner().unwrap();
    // The builder refuses such names, so one is written over another.
    let at = memchr::memmem::find(&outside, b"member/snap/db").unwrap();
    let header = &mut outside[at..at + 512];
    header[..18].copy_from_slice(b"../member/snap/db\0");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (name, bytes, says) in [
        ("symlink", special(tar::EntryType::Symlink, "member/snap/db"), "a link or a device"),
        ("hard link", special(tar::EntryType::Link, "member/wal/x"), "a link or a device"),
        ("device", special(tar::EntryType::Char, "member/wal/x"), "a link or a device"),
        ("outside", outside, "leads out of the archive"),
    ] {
        let at = rig.file("bad.tar", &gzip(&bytes));
        let done = rig.run("scan", &at).run().fails_with_hint(1);
        assert!(done.stderr.contains(says), "{name}: {done}");
    }
    // Of a link elsewhere, nothing is read.
    let beside = special(tar::EntryType::Symlink, "etc/link");
    let done = rig.run("scan --all-resources", &rig.file("a.tar", &beside)).run();
    assert!(matches!(done.code, Some(0 | 4)), "{done}");
    let whole = gzip(&rig.tar());
    let cut = rig.file("cut.tgz", &whole[..whole.len() / 2]);
    rig.run("scan", &cut).run().fails_with_hint(1).says("cannot unpack");
    let mut without = rig.files.clone();
    without.retain(|(name, _)| !name.contains("/wal/"));
    let without = tarred("", &without).into_inner().unwrap();
    rig.run("scan", &rig.file("b.tar", &without)).run().fails_with_hint(1).says("write-ahead log");
    let notes = tarred("", &[("notes".to_owned(), b"x".to_vec())]).into_inner().unwrap();
    rig.run("scan", &rig.file("c.tar", &notes)).run().fails_with_hint(1).says("no etcd data dir");
    rig.run("scan", &corpus::db("p1-secretbox")).run().fails_with_hint(1).says("not a data dir");
    assert_eq!(std::fs::read_dir(rig.temporary.path()).unwrap().count(), 0);
}
