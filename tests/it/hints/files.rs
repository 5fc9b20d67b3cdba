//! Snapshots, data directories and databases of kine that cannot be read as they are.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::says;
use crate::support::age::Pair;
use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, corpus};

const PHASE: &str = "p7-migrated-uncompacted";

fn scan(option: &str, at: &Path, more: &str) -> Done {
    bin().words("scan").arg(option).arg(at).words(more).run()
}

/// A folder, and files in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn each_source_has_its_option() {
    let folder = Folder::new();
    let db = corpus::db(PHASE);
    let dir = corpus::data_dir();
    let (kine, connection) = crate::kine::kine(folder.0.path(), "p1b-partial-migration");
    drop(connection);
    let zip = {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("s.db", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&fs::read(&db).unwrap()).unwrap();
        folder.file("s.zip", &zip.finish().unwrap().into_inner())
    };
    for (wrong, right, at, hint) in [
        (
            "--snapshot",
            "--data-dir",
            dir.path(),
            says("a member's data directory is opened with --data-dir"),
        ),
        ("--snapshot", "--kine", &kine, says("a k3s or kine database is opened with --kine")),
        ("--data-dir", "--snapshot", &db, says("copy of member/snap/db is opened with --snapshot")),
        ("--kine", "--snapshot", &db, says("this is an etcd database: open it with --snapshot")),
        ("--kine", "--snapshot", &zip, says("a compressed snapshot is opened with --snapshot")),
        (
            "--kine",
            "--data-dir",
            dir.path(),
            says("an etcd data directory is opened with --data-dir"),
        ),
    ] {
        hint.helps(&scan(wrong, at, ""), |said| {
            assert!(said.contains(right));
            scan(right, at, "")
        });
    }
    let text = folder.file("text", b"apiVersion: v1\n");
    says("--kine takes kine's database, on k3s")
        .helps(&scan("--kine", &text, ""), |_| scan("--kine", &kine, ""));
    let none = folder.file("none/member/snap/x", b"");
    let none = none.parent().unwrap().parent().unwrap().parent().unwrap();
    for (at, hint) in [
        (none, says("--data-dir takes the directory that etcd was started with")),
        (folder.0.path(), says("that etcd was started with, often /var/lib/etcd")),
    ] {
        hint.helps(&scan("--data-dir", at, ""), |_| scan("--data-dir", dir.path(), ""));
    }
}

#[test]
fn age_identities() {
    let (folder, pair, other) = (Folder::new(), Pair::new(), Pair::new());
    let db = fs::read(corpus::db(PHASE)).unwrap();
    let (age, plain) = (folder.file("db.age", &pair.seal(&db)), folder.file("db", &db));
    let with = |at: &Path, of: &Pair| {
        bin().words("scan --snapshot").arg(at).arg("--identity").arg(of.file()).run()
    };
    let opens = says("give the identity of one of its recipients with --identity FILE");
    opens.helps(&scan("--snapshot", &age, ""), |_| with(&age, &pair));
    opens.helps(&with(&age, &other), |_| with(&age, &pair));
    let whole = pair.seal(&db);
    let cut = folder.file("cut.age", &whole[..60]);
    says("take another copy").helps(&with(&cut, &pair), |_| with(&age, &pair));
    says("leave it out, or name the escrow that it opens with --kms-escrow FILE")
        .helps(&with(&plain, &pair), |_| scan("--snapshot", &plain, ""));
    let live = bin().words("scan --endpoints 127.0.0.1:1 --identity").arg(pair.file()).run();
    says("give a backup with --snapshot, or what `atrest kms escrow` wrote with --kms-escrow FILE")
        .helps(&live, |_| with(&age, &pair));
}

#[test]
fn packed_data_directories() {
    let folder = Folder::new();
    let dir = corpus::data_dir();
    let files = crate::packed_dir::files(dir.path());
    let unpacked = || scan("--data-dir", dir.path(), "");
    let mut both = files.clone();
    both.extend(files.iter().map(|(name, bytes)| (format!("b/{name}"), bytes.clone())));
    let two = crate::packed_dir::tarred("", &both).into_inner().unwrap();
    says("unpack it and give one of them, the directory with `member` in it")
        .helps(&scan("--data-dir", &folder.file("two.tar", &two), ""), |_| unpacked());
    let mut tar = crate::packed_dir::tarred("", &files);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "member/snap/x", "/etc/passwd").unwrap();
    let link = folder.file("link.tar", &tar.into_inner().unwrap());
    says("unpack it where nothing can be harmed, and give the directory")
        .helps(&scan("--data-dir", &link, ""), |_| unpacked());
}

#[test]
fn what_etcdctl_saves_is_a_snapshot() {
    let etcd = Etcd::restored(Version::V35, &corpus::db(PHASE));
    let folder = Folder::new();
    let save = |name: &str| {
        let path = folder.0.path().join(name);
        etcd.snapshot(&path);
        scan("--snapshot", &path, "")
    };
    let text = folder.file("text", b"apiVersion: v1\n");
    says("give a file that `etcdctl snapshot save` wrote")
        .helps(&scan("--snapshot", &text, ""), |_| save("a.db"));
    let empty = folder.file("empty", b"");
    says("save it anew with `etcdctl snapshot save`")
        .helps(&scan("--snapshot", &empty, ""), |_| save("b.db"));
    let running = scan("--snapshot", &etcd.data_dir().join("member/snap/db"), "");
    says("read the running etcd with --endpoints").helps(&running, |said| {
        assert!(said.contains("or take a copy with `etcdctl snapshot save`"));
        save("c.db").ok();
        bin().words("scan").args(etcd.args()).run()
    });
}

#[test]
fn damaged_snapshots() {
    let folder = Folder::new();
    let whole = corpus::bytes(&format!("{PHASE}.db"));
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let long = [&whole[..], b"x"].concat();
    for (name, bytes) in
        [("digest", &flipped[..]), ("no-digest", &whole[..whole.len() - 32]), ("size", &long)]
    {
        let at = folder.file(name, bytes);
        says("take a whole copy; --skip-hash-check reads it all the same")
            .helps(&scan("--snapshot", &at, ""), |_| scan("--snapshot", &at, "--skip-hash-check"));
    }
    // Both meta pages are gone, so nothing says where the tree begins.
    let mut headless = whole.clone();
    headless[16..80].fill(0xFF);
    headless[4096 + 16 + 4..4096 + 80].fill(0xFF);
    let at = folder.file("headless", &headless);
    says("take another copy; --salvage reads what is left").leads_to(
        4,
        &scan("--snapshot", &at, "--skip-hash-check"),
        |_| scan("--snapshot", &at, "--skip-hash-check --salvage"),
    );
    let at = folder.file("short", &whole[..whole.len() / 4096 / 2 * 4096]);
    says("take a whole copy; --salvage reads what is there").leads_to(
        4,
        &scan("--snapshot", &at, ""),
        |_| scan("--snapshot", &at, "--salvage"),
    );
}

#[test]
fn packed_and_foreign_files() {
    let folder = Folder::new();
    let (whole, cut) = (corpus::bytes(&format!("{PHASE}.db")), corpus::bytes("p0-plaintext.db"));
    let packed = folder.file("s.db.gz", &gzip(&whole));
    let no_room = |dir: &Path| bin().words("scan --snapshot").arg(&packed).env("TMPDIR", dir).run();
    says("point TMPDIR to a directory with room for it")
        .helps(&no_room(Path::new("/nonexistent")), |_| no_room(folder.0.path()));

    let value = b"k8s:enc:secretbox:v1:k:sealed";
    let archive = folder.file("velero.tar.gz", &gzip(&crate::support::archives::velero()));
    let decode = |bytes: &[u8]| bin().words("decode").stdin(bytes).run();
    let config = corpus::private_config("p1-secretbox");
    let rewritten = |at: &Path| {
        let out = tempfile::tempdir().unwrap();
        let run = bin().words("rewrite --write-config").arg(&config).arg("--out");
        let run = run.arg(out.path().join("new.db")).arg("--encryption-config").arg(&config);
        run.arg("--snapshot").arg(at).run()
    };
    says("`atrest scan --snapshot FILE` and `atrest export --snapshot FILE` read its objects")
        .helps(&rewritten(&archive), |_| {
            bin().words("export --snapshot").arg(&archive).run().ok();
            scan("--snapshot", &archive, "")
        });
    says("`atrest scan` without --revision says how its objects are stored")
        .helps(&scan("--snapshot", &archive, "--revision 5"), |_| scan("--snapshot", &archive, ""));
    says("`atrest scan --list --all-resources` shows all that the archive has").helps(
        &bin().words("get secrets/shop/none --snapshot").arg(&archive).run(),
        |_| {
            let listed = scan("--snapshot", &archive, "--list --all-resources");
            assert!(listed.text().contains("/registry/secrets/shop/db"));
            bin().words("get secrets/shop/db --snapshot").arg(&archive).run()
        },
    );
    let one = folder.file("value", value);
    says("pipe a single value into `atrest decode`").leads_to(
        4,
        &scan("--snapshot", &one, ""),
        |_| decode(value),
    );

    // As bunzip2 does, which not every machine has.
    let python = |script: &str, from: &Path, to: &Path| {
        let done =
            std::process::Command::new("python3").args(["-c", script]).arg(from).arg(to).output();
        assert!(done.unwrap().status.success());
    };
    let plain = folder.file("plain.db", &cut);
    let (bz2, unpacked) = (folder.0.path().join("s.bz2"), folder.0.path().join("unpacked.db"));
    python(
        "import bz2,sys; open(sys.argv[2],'wb').write(bz2.compress(open(sys.argv[1],'rb').read()))",
        &plain,
        &bz2,
    );
    says("unpack it with `bunzip2` first").helps(&scan("--snapshot", &bz2, ""), |_| {
        python("import bz2,sys; open(sys.argv[2],'wb').write(bz2.decompress(open(sys.argv[1],'rb').read()))", &bz2, &unpacked);
        scan("--snapshot", &unpacked, "")
    });
    // What Gardener keeps: a full snapshot, then what changed.
    let full = folder.file("Full-00000000-00000003-1767225600.gz", &gzip(&whole));
    let more = folder.file("Incr-00000004-00000004-1767225700", b"[{\"etcdEvent\": {}}]");
    let hint =
        says("judges it beside the Full-* file that it goes on from; --snapshot takes that one");
    hint.helps(&scan("--snapshot", &more, ""), |_| scan("--snapshot", &full, ""));
    let kept = Folder::new();
    let list = br#"[{"etcdEvent":{"kv":{"key":"L2E=","mod_revision":4,"value":"eA=="}}}]"#;
    let digest = ring::digest::digest(&ring::digest::SHA256, list);
    kept.file("Full-00000000-00000003-1767225600.gz", &gzip(&whole));
    kept.file("Incr-00000004-00000004-1767225700", &[&list[..], digest.as_ref()].concat());
    hint.helps(&scan("--snapshot", &more, ""), |_| bin().arg("backups").arg(kept.0.path()).run());
}

#[test]
fn parts_of_a_data_directory() {
    let dir = corpus::data_dir();
    let log = dir.path().join("member/wal/0000000000000000-0000000000000000.wal");
    let db = dir.path().join("member/snap/db");
    let data = |more: &str| scan("--data-dir", dir.path(), more);
    fs::rename(&log, dir.path().join("kept.wal")).unwrap();
    let hint = says("link it there; --snapshot");
    hint.helps(&data(""), |said| {
        assert!(said.contains(&format!("--snapshot {} reads", db.display())), "{said}");
        scan("--snapshot", &db, "")
    });
    hint.helps(&data(""), |_| {
        fs::remove_dir(log.parent().unwrap()).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(dir.path().join("kept.wal"), elsewhere.join(log.file_name().unwrap())).unwrap();
        std::os::unix::fs::symlink(elsewhere, log.parent().unwrap()).unwrap();
        data("")
    });
}

/// The log goes on far behind the database, as after an old copy was put back.
#[test]
fn a_log_that_does_not_join_its_database() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", crate::support::secret("x").as_bytes());
    let stopped = etcd.stop();
    let member = stopped.path().join("etcd/member");
    let old = fs::read(member.join("snap/db")).unwrap();
    let etcd = Etcd::builder(Version::V35).data(stopped).start();
    // A segment of the log has 64 MiB.
    let value = vec![b'v'; 1 << 20];
    for i in 0..70 {
        etcd.put(&format!("/big/{i}"), &value);
    }
    let stopped = etcd.stop();
    let member = stopped.path().join("etcd/member");
    let mut log: Vec<_> =
        fs::read_dir(member.join("wal")).unwrap().map(|e| e.unwrap().path()).collect();
    log.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    log.sort();
    assert!(log.len() > 1, "one segment only");
    fs::remove_file(&log[0]).unwrap();
    fs::write(member.join("snap/db"), old).unwrap();
    let data = |more: &str| scan("--data-dir", &stopped.path().join("etcd"), more);
    let hint = says("--snapshot with the db file reads the database alone; --salvage applies");
    hint.helps(&data(""), |_| {
        data("--salvage").code(4);
        scan("--snapshot", &member.join("snap/db"), "")
    });
}

#[test]
fn revisions_of_a_file() {
    let compacted = corpus::db("p8-compacted-not-defragged");
    let db = corpus::db(PHASE);
    for (at, wanted, hint) in [
        (&db, 99_999_999, says("--revision takes {} to {newest} here")),
        (&compacted, 2, says("--revision takes {compacted} to {newest} here")),
    ] {
        let run = |revision: &str| {
            scan("--snapshot", at, &format!("--allow-empty --revision {revision}"))
        };
        for end in [0, 1] {
            hint.helps(&run(&wanted.to_string()), |said| {
                let said = said.strip_prefix("--revision takes ").unwrap().strip_suffix(" here");
                let (oldest, newest) = said.unwrap().split_once(" to ").unwrap();
                run([oldest, newest][end])
            });
        }
    }
}

#[test]
fn a_snapshot_is_not_read_from_a_pipe() {
    let folder = Folder::new();
    let bytes = corpus::bytes(&format!("{PHASE}.db"));
    let piped = bin().words("scan --snapshot -").stdin(bytes.clone()).run();
    says("save it to a file first; the pages of a database").helps(&piped, |_| {
        let saved = folder.file("saved.db", &bytes);
        scan("--snapshot", &saved, "")
    });
}
