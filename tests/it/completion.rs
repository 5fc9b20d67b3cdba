//! What a shell offers, asked as bash asks: by the function of the script that `completion` writes.

use std::path::Path;
use std::process::Command;

use crate::support::{Etcd, Version, bin, corpus};

/// What bash has for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = bin().words("completion bash").run().ok().text().to_owned();
    let ask = r#"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
_clap_complete_atrest atrest "${*: -1}" ""
printf '%s\n' "${COMPREPLY[@]}""#;
    let program = Path::new(env!("CARGO_BIN_EXE_atrest")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let done = Command::new("bash")
        .args(["--norc", "-c", &(script + ask), "bash", "atrest"])
        .args(words)
        .env("PATH", format!("{}:{path}", program.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(said, "", "{words:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn commands_options_and_files() {
    assert_eq!(offered(&["sc"]), ["scan", "scrub"]);
    assert_eq!(offered(&["scan", "--encr"]), ["--encryption-config"]);
    assert!(offered(&["scan", "-w", "pro"]).contains(&"prometheus".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("backup.db"), "x").unwrap();
    let file = dir.path().join("ba").display().to_string();
    assert_eq!(offered(&["scan", "--snapshot", &file]), [file + "ckup.db"]);
}

#[test]
fn names_of_the_source_that_is_given() {
    let db = corpus::db("p1b-partial-migration").display().to_string();
    let of = |words: &[&str]| offered(&[&words[..1], &["--snapshot", &db], &words[1..]].concat());
    assert_eq!(of(&["scan", "--resource", "conf"]), ["configmaps"]);
    assert_eq!(of(&["scan", "-n", "team"]), ["team-a", "team-b"]);
    assert_eq!(of(&["get", "sec"]), ["secrets/"]);
    assert_eq!(of(&["get", "secrets/team-"]), ["secrets/team-a/", "secrets/team-b/"]);
    assert_eq!(
        of(&["get", "secrets/default/lo"]),
        ["secrets/default/login1", "secrets/default/login2"]
    );
    // Options may stand before the command.
    let before = offered(&["--snapshot", &db, "history", "secrets/default/login"]);
    assert_eq!(before.len(), 2);
    let etcd = Etcd::restored(Version::V35, Path::new(&db));
    let args: Vec<String> = etcd.args().into_iter().map(|arg| arg.into_string().unwrap()).collect();
    let mut words = vec!["export"];
    words.extend(args.iter().map(String::as_str));
    words.extend(["-n", "team"]);
    assert_eq!(offered(&words), ["team-a", "team-b"]);
}

/// Nothing is printed into a line that is being written, whatever is wrong with it.
#[test]
fn what_cannot_be_read_offers_nothing() {
    assert_eq!(offered(&["scan", "--snapshot", "/nowhere", "-n", "x"]), [""; 1]);
    assert_eq!(offered(&["scan", "--snapshot", "s3://bucket/x.db", "-n", "x"]), [""; 1]);
    assert_eq!(offered(&["scan", "--user", "root", "-n", "x"]), [""; 1]);
    assert_eq!(offered(&["get", "--snapshot", "/nowhere", "--nonsense", "x/y/z"]), [""; 1]);
}
