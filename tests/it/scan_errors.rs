//! `scan`: wrong usage, bad input, and output that nobody takes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::{Etcd, Version, bin, corpus};

#[test]
fn wrong_usage_is_exit_2_with_a_reason() {
    let db = corpus::db("p1-secretbox");
    for (options, says) in [
        ("--fail-on stale", "says nothing without a configuration"),
        ("--fail-on current", "says nothing without a configuration"),
        ("--fail-on plaintext,unreadable", "says nothing without a configuration"),
        ("--verify", "needs keys"),
        ("-w yaml", "[possible values: table, json, jsonl, csv, prometheus, html]"),
        ("-w nonsense", "invalid value 'nonsense'"),
        ("--resource *secrets", "is not a resource"),
        ("--resource a/b", "is not a resource"),
        ("--endpoints https://127.0.0.1:1", "cannot be used together"),
    ] {
        bin().arg("scan").arg("--snapshot").arg(&db).words(options).run().fails(2).says(says);
    }
    for options in [
        "--fail-on nonsense",
        "--revision 0",
        "--revision -1",
        "--revision x",
        "--all-resources --resource secrets",
        "--color sometimes",
        "--data-dir /tmp",
        "--no-such-option",
        "extra",
    ] {
        let done = bin().arg("scan").arg("--snapshot").arg(&db).words(options).run().code(2);
        assert!(done.stdout.is_empty() && done.stderr.starts_with("error: "), "{done}");
    }
}

#[test]
fn fail_on_every_status() {
    let run = |phase: &str, config: Option<&str>, words: &str| {
        let mut run = bin().words("scan --snapshot").arg(corpus::db(phase));
        if let Some(config) = config {
            run = run.arg("--encryption-config").arg(corpus::config(config));
        }
        run.words(words).run()
    };
    let (half, done) = ("p1b-partial-migration", "p9-defragged");
    let (sb1, sb2) = (Some("p1-secretbox"), Some("p6-sb2"));
    for (phase, config, words, code) in [
        (half, None, "--fail-on plaintext", 3),
        (half, None, "--fail-on encrypted", 3),
        (half, None, "--fail-on plaintext -n team-a", 0),
        (half, sb1, "--fail-on stale", 3),
        (half, sb1, "--fail-on current", 3),
        (half, sb1, "--fail-on unreadable", 0),
        (half, sb1, "--fail-on unreadable --fail-on plaintext", 3),
        (half, sb1, "--fail-on unreadable,plaintext", 3),
        (half, sb1, "--fail-on stale -n team-a", 0),
        (half, sb1, "--fail-on stale -n team-a --verify", 0),
        (done, sb2, "--resource secrets --fail-on stale,unreadable,plaintext --verify", 0),
        (done, sb2, "--resource secrets --fail-on current", 3),
        // Another cluster's keys: unreadable with or without being asked about.
        (done, sb1, "--fail-on unreadable", 3),
        (done, sb1, "--fail-on plaintext", 4),
        (done, sb1, "", 4),
        (done, None, "--fail-on plaintext", 0),
    ] {
        let done = run(phase, config, words);
        assert_eq!(done.code, Some(code), "{phase} {config:?} {words}: {done}");
        assert!(!done.stdout.is_empty(), "the result is printed whatever the status");
    }
}

#[test]
fn unreadable_entries_are_named_and_counted() {
    let run = |list: &str| {
        bin()
            .words("scan -w json --snapshot")
            .arg(corpus::db("p9-defragged"))
            .arg("--encryption-config")
            .arg(corpus::config("p1-secretbox"))
            .words(list)
            .run()
            .code(4)
    };
    let done = run("--list");
    let short = run("").stderr.replace("; --list names each", "");
    assert_eq!(done.stderr, short);
    let unreadable = done.json()["totals"]["unreadable"].as_u64().unwrap();
    assert!(unreadable > 20);
    // One line for each cause, with the first of its entries by key, so that two runs say the same.
    let all = done.json();
    let mut causes: std::collections::BTreeMap<&str, Vec<&str>> =
        std::collections::BTreeMap::default();
    for entry in all["entries"].as_array().unwrap() {
        if entry["status"] == "unreadable" {
            let [key, reason] = ["key", "reason"].map(|n| entry[n].as_str().unwrap());
            causes.entry(reason).or_default().push(key);
        }
    }
    let lines = done.stderr.lines().filter(|l| l.starts_with("warning: unreadable: "));
    assert_eq!(lines.count(), causes.len());
    let several = causes.iter().max_by_key(|(_, keys)| keys.len()).unwrap();
    let (reason, keys) = several;
    let line = format!(
        "warning: unreadable: {} entries: {reason}: {} and {} more",
        keys.len(),
        keys[..3].join(", "),
        keys.len() - 3
    );
    done.says(&line);
}

#[test]
fn files_that_are_no_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = corpus::bytes("p0-plaintext.db");
    let mut flipped = whole.clone();
    flipped[100_000] ^= 1;
    for path in [
        file("empty", b""),
        file("text", b"apiVersion: v1\nkind: Secret\n"),
        file("zeros", &vec![0; 65536]),
        file("flipped", &flipped),
        file("no-trailer", &whole[..whole.len() - 33]),
        file("json", br#"{"kind":"List"}"#),
        dir.path().to_path_buf(),
        dir.path().join("missing"),
    ] {
        let done = bin().words("scan --snapshot").arg(&path).run().fails_with_hint(1);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        done.says(&name);
    }
    // A database cannot be read from a pipe: wrong usage.
    bin().words("scan --snapshot -").run().fails_with_hint(2);
}

#[test]
fn a_snapshot_cut_at_any_length_is_an_error() {
    let whole = corpus::bytes("p0-plaintext.db");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.db");
    let mut lengths: Vec<usize> = (0..whole.len()).step_by(whole.len() / 60).collect();
    lengths.extend([1, 15, 16, 31, 32, 33, 80, 4095, 4096, 4097, 8191, 8192, 8193, 12_288]);
    lengths.extend((1..34).map(|n| whole.len() - n));
    for len in lengths {
        fs::write(&path, &whole[..len]).unwrap();
        bin().words("scan --all-resources --snapshot").arg(&path).run().fails_with_hint(1);
    }
    // A snapshot that lost exactly its trailer is known from a copy of a member's database.
    fs::write(&path, &whole[..whole.len() - 32]).unwrap();
    let cut = bin().words("scan --all-resources --snapshot").arg(&path);
    cut.run().fails_with_hint(1).says("without its SHA-256");
    let bare = corpus::file("p8-member-snap-db");
    bin().words("scan --all-resources --snapshot").arg(bare).run().ok();
}

#[test]
fn a_hash_that_does_not_match_can_be_overridden() {
    let mut bytes = corpus::bytes("p0-plaintext.db");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let run = || bin().words("scan -w json --snapshot").arg(file.path());
    run().run().fails_with_hint(1).says("--skip-hash-check");
    let report = run().arg("--skip-hash-check").run().ok().json();
    let whole =
        bin().words("scan -w json --snapshot").arg(corpus::db("p0-plaintext")).run().ok().json();
    assert_eq!(report["groups"], whole["groups"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    use std::os::unix::process::CommandExt as _;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("snapshot.db");
    fs::write(&path, corpus::bytes("p0-plaintext.db")).unwrap();
    let db = dir.path().join("etcd/member/snap/db");
    fs::create_dir_all(db.parent().unwrap()).unwrap();
    fs::copy(&path, &db).unwrap();
    fs::create_dir_all(dir.path().join("etcd/member/wal")).unwrap();
    for path in [&path, &db] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Modes do not bind root, who runs it as somebody else then, from where anyone may. `cp`
    // copies it: a process that a test beside this one starts would inherit what is open for
    // writing here, and nothing runs a program that is ("text file busy").
    let program = dir.path().join("atrest");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_atrest")).arg(&program).status();
    assert!(copied.unwrap().success());
    let as_root = File::open(&path).is_ok();
    for (option, given) in [("--snapshot", &path), ("--data-dir", &dir.path().join("etcd"))] {
        let mut command = Command::new(&program);
        command.env_clear().args(["scan", option]).arg(given);
        if as_root {
            command.uid(65534).gid(65534);
        }
        let done = command.output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{option}: {stderr}");
        assert!(done.stdout.is_empty(), "{option}");
        assert!(stderr.starts_with("error: cannot read "), "{option}: {stderr}");
        assert!(stderr.contains("ermission denied"), "{option}: {stderr}");
        assert!(stderr.lines().any(|l| l.starts_with("hint: run as a user")), "{stderr}");
    }
}

#[test]
fn files_of_a_running_etcd() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        let dir = etcd.data_dir();
        for (option, path) in
            [("--snapshot", dir.join("member/snap/db")), ("--data-dir", dir.clone())]
        {
            let run = bin().arg("scan").arg(option).arg(path).run();
            run.fails_with_hint(1).says("in use by a running etcd");
        }
        etcd.put("/registry/secrets/default/s", b"still writable");
    }
}

#[test]
fn a_data_directory_that_is_none_or_damaged() {
    let dir = corpus::data_dir();
    let scan =
        |path: &std::path::Path| bin().words("scan --all-resources --data-dir").arg(path).run();
    let db = dir.path().join("member/snap/db");
    let whole = fs::read(&db).unwrap();
    for len in [0, 1, 79, 4096, 8192, 12_288, 100_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&db, &whole[..len]).unwrap();
        scan(dir.path()).fails_with_hint(1);
    }
    fs::write(&db, "apiVersion: v1\n").unwrap();
    scan(dir.path()).fails_with_hint(1).says("is not an etcd");
    scan(&db).fails_with_hint(1).says("not a data directory");
    fs::remove_file(&db).unwrap();
    scan(dir.path()).fails_with_hint(1).says("has no database");
    scan(&dir.path().join("member/wal")).fails_with_hint(1);
    scan(&dir.path().join("nowhere")).fails_with_hint(1);
    // A raft log that is some other file altogether: what the database has, and exit 4.
    let dir = corpus::data_dir();
    let log = dir.path().join("member/wal/0000000000000000-0000000000000000.wal");
    scan(dir.path()).ok();
    fs::write(&log, "no log\n".repeat(1000)).unwrap();
    scan(dir.path()).code(4).says("warning: cannot read 0000000000000000-0000000000000000.wal");
}

#[test]
fn bad_configurations_are_exit_1() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(corpus::config("p1-secretbox")).unwrap();
    for (name, text) in [
        ("empty.yaml", String::new()),
        ("misspelt.yaml", good.replace("secretbox", "secretsbox")),
        ("kind.yaml", good.replace("EncryptionConfiguration", "Secret")),
        ("binary.yaml", "\u{0}\u{1}".to_owned()),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let run = bin().words("scan --snapshot").arg(corpus::db("p1-secretbox"));
        run.arg("--encryption-config").arg(&path).run().fails(1).says(name);
    }
    let run = bin().words("scan --snapshot").arg(corpus::db("p1-secretbox"));
    run.words("--encryption-config /nonexistent.yaml").run().fails(1);
}

/// As `atrest … | head -1`: whatever it was still to write, it ends without a panic.
#[test]
fn a_closed_pipe_is_no_panic() {
    for format in ["table", "json", "jsonl", "csv", "prometheus", "html"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atrest"))
            .args(["scan", "--list", "--all-resources", "-w", format, "--snapshot"])
            .arg(corpus::db("p9-defragged"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        assert!(!stderr.contains("panicked"), "{format}: {stderr}");
        assert_ne!(status.code(), Some(101), "{format}");
        assert!(!status.success(), "{format}: a result nobody took is no success");
    }
}

#[test]
fn a_full_disk_is_exit_1() {
    for format in ["table", "json", "jsonl", "csv", "prometheus", "html"] {
        for list in [false, true] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_atrest"));
            command.args(["scan", "-w", format, "--snapshot"]).arg(corpus::db("p1-secretbox"));
            if list {
                command.arg("--list");
            }
            let full = File::options().write(true).open("/dev/full").unwrap();
            let done = command.stdout(full).output().unwrap();
            let stderr = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(1), "{format}: {stderr}");
            assert!(stderr.starts_with("error: cannot write the result"), "{format}: {stderr}");
        }
    }
    for words in [&["completion", "bash"][..], &["man"], &["--help"], &["config", "new", "--help"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_atrest"));
        let done = command.args(words).stdout(full).output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
        assert_eq!(done.status.code(), Some(1), "{words:?}: {stderr}");
    }
}
