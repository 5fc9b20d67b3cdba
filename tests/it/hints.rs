//! Hints are commands that work: each is followed in the situation that prints it.

use std::path::Path;

use crate::support::{bin, corpus};

/// Runs `words` on a source, sees the hint, and does what it says.
fn follow(words: &str, (option, source): (&str, &Path), hint: &str, then: &str, with: &str) {
    let run = |words: &str, option: &str| bin().words(words).arg(option).arg(source).run();
    let done = run(words, option);
    let said = done.stderr.lines().find(|l| l.starts_with("hint: ") && l.contains(hint));
    assert!(said.is_some(), "no hint {hint:?}: {done}");
    run(then, with).ok();
}

#[test]
fn what_hints_name_helps() {
    let db = corpus::db("p1-secretbox");
    let snapshot = ("--snapshot", db.as_path());
    let config = corpus::private_config("p1-secretbox");
    let with_config = format!("scan --fail-on unreadable --encryption-config {}", config.display());
    for (words, hint, then) in [
        ("scan --fail-on unreadable", "--encryption-config", with_config.as_str()),
        ("scan --resource secret", "--resource secrets", "scan --resource secrets"),
        ("scan -n defualt", "-n default", "scan -n default"),
        ("scan -n defualt", "--allow-empty", "scan -n defualt --allow-empty"),
        ("scan --prefix /none", "--prefix /registry/", "scan --prefix /registry/"),
        ("scan --prefix /none", "--allow-empty", "scan --prefix /none --allow-empty"),
    ] {
        follow(words, snapshot, hint, then, "--snapshot");
    }
    let dir = corpus::data_dir();
    follow("scan", ("--snapshot", dir.path()), "--data-dir", "scan", "--data-dir");
    follow("scan", ("--data-dir", &db), "--snapshot", "scan", "--snapshot");
    follow("scan", ("--kine", &db), "--snapshot", "scan", "--snapshot");

    let damaged = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = std::fs::read(&db).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(damaged.path(), bytes).unwrap();
    let source = ("--snapshot", damaged.path());
    follow("scan", source, "--skip-hash-check", "scan --skip-hash-check", "--snapshot");
}

#[test]
fn the_revisions_that_a_hint_names_can_be_read() {
    let db = corpus::db("p7-migrated-uncompacted");
    let scan =
        |revision: &str| bin().args(["scan", "--revision", revision, "--snapshot"]).arg(&db).run();
    let done = scan("99999999").fails_with_hint(1);
    let hint = done.stderr.lines().find_map(|l| l.strip_prefix("hint: --revision takes ")).unwrap();
    let newest = hint.trim_end_matches(" here").rsplit(' ').next().unwrap();
    scan(newest).ok();
}
