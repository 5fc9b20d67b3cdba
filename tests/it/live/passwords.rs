//! Where a password comes from, and who can see it.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::auth::with_users;
use crate::support::{Version, bin};

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_password_on_the_command_line_is_warned_of() {
    let etcd = with_users(Version::V35, None, &[]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let scan = || bin().words("scan -w json").args(etcd.args());
    for line in ["--user root:toor", "--user root --password toor"] {
        let done = scan().words(line).run().ok();
        assert_eq!(done.stderr.matches("warning: every user of this machine").count(), 1, "{done}");
        let done = done.says("--password-file FILE");
        assert!(!done.stderr.contains("toor"), "{done}");
    }
    let silent = |done: crate::support::bin::Done| assert_eq!(done.stderr, "", "{done}");
    silent(scan().env("ETCDCTL_USER", "root:toor").run().ok());
    silent(scan().words("--user root").env("ETCDCTL_PASSWORD", "toor").run().ok());
    // The first line, with either end or none.
    for text in ["toor", "toor\n", "toor\r\n", "toor\nmore\n"] {
        private(&file, text);
        silent(scan().words("--user root --password-file").arg(&file).run().ok());
    }
    // The file was named here, the variable is always there.
    let both = scan().words("--user root --password-file").arg(&file);
    silent(both.env("ETCDCTL_PASSWORD", "wr0ng").run().ok());
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let done = scan().words("--user root --password-file").arg(&file).run().ok();
    done.says("warning: others may read the password file").says("(mode 644)");
}

#[test]
fn passwords_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (file, empty) = (dir.path().join("password"), dir.path().join("empty"));
    private(&file, "toor\n");
    private(&empty, "\ntoor\n");
    // Nobody is asked where nobody types.
    let done = bin().words("scan --user root").run().fails_with_hint(2);
    done.says("--user is given without a password").says("--password-file FILE");
    let done = bin().words("scan --password-file").arg(&file).run().fails(2);
    done.says("--password-file is given without --user");
    let both = bin().words("scan --user root --password toor --password-file").arg(&file);
    both.run().fails(2).says("cannot be used together with --password");
    let scan = |path: &Path| bin().words("scan --user root --password-file").arg(path).run();
    scan(&empty).fails(1).says("is empty");
    scan(&dir.path().join("none")).fails(1).says("cannot read the password file");
}

/// Runs a command line on a terminal of its own, types `keys` when it asks, and gives its exit
/// code and everything that the terminal showed.
fn typed(line: &str, keys: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .env_remove("ETCDCTL_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("script (bsdutils) starts");
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let keys = keys.to_vec();
    let reader = std::thread::spawn(move || {
        let (mut shown, mut buffer) = (Vec::new(), [0; 1024]);
        let mut asked = false;
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..n]);
            if !asked && memchr::memmem::find(&shown, b"Password: ").is_some() {
                asked = true;
                stdin.write_all(&keys).unwrap();
            }
        }
        // The terminal ends with its last program; what is typed must not end before.
        drop(stdin);
        // After the time is up nobody listens.
        let _ = sender.send(());
        String::from_utf8_lossy(&shown).into_owned()
    });
    if receiver.recv_timeout(Duration::from_mins(2)).is_err() {
        child.kill().unwrap();
        panic!("{line} did not end");
    }
    (child.wait().unwrap().code(), reader.join().unwrap())
}

#[test]
fn on_a_terminal_the_password_is_asked_for_and_not_shown() {
    let etcd = with_users(Version::V35, None, &[]);
    let program = env!("CARGO_BIN_EXE_atrest");
    let line = |command: &str| {
        format!("{program} {command} --endpoints {} --user root --no-progress", etcd.endpoint())
    };
    let (code, shown) = typed(&line("scan -w csv"), b"toor\n");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("secrets,identity"), "{shown}");
    assert!(!shown.contains("toor"), "{shown}");
    assert_eq!(shown.matches("Password: ").count(), 1, "{shown}");
    // Two sources, one question.
    let two = line("diff etcd: etcd:");
    let (code, shown) = typed(&two, b"wrong\x15toor\r");
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("Password: ").count(), 1, "{shown}");
    let (code, shown) = typed(&line("scan"), b"too\x03");
    assert_eq!(code, Some(130), "{shown}");
    assert!(!shown.contains("too"), "{shown}");
    // The terminal shows again what is typed, whatever happened.
    for keys in [&b"wr0ng\n"[..], b"too\x03"] {
        let line = format!("{}; stty", line("scan"));
        let (_, shown) = typed(&line, keys);
        assert!(!shown.contains("-echo ") && !shown.contains("-isig"), "{shown}");
    }
}

/// A role for the Secrets of one namespace is enough for what is asked of that namespace.
#[test]
fn the_right_to_one_namespace_is_enough_for_it() {
    for version in [Version::V34, Version::V35] {
        let etcd = with_users(version, None, &[]);
        let root = |words: &str| {
            let words: Vec<_> = ["--user=root:toor"].into_iter().chain(words.split(' ')).collect();
            etcd.ctl(&words);
        };
        for words in [
            "role add team",
            "role grant-permission team read --prefix=true /registry/secrets/team/",
            "user add anna:pw",
            "user grant-role anna team",
            r#"put /registry/secrets/team/a {"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"team"}}"#,
            "put /registry/secrets/team/a k8s:enc:secretbox:v1:k:sealed",
        ] {
            root(words);
        }
        let run = |words: &str| {
            let patient = bin().words(words).words("--command-timeout=60s --dial-timeout=60s");
            patient.args(etcd.args()).env("ETCDCTL_USER", "anna:pw").run()
        };
        let report = run("scan -n team -w json").ok().json();
        assert_eq!(report["totals"]["entries"], 1);
        assert_eq!(report["totals"]["encrypted"], 1);
        run("get secrets/team/a").code(4).says("encrypted by secretbox v1 key k");
        assert_eq!(run("history -n team secrets -w jsonl").ok().jsonl().len(), 2);
        assert_eq!(run("history secrets/team/a -w jsonl").ok().jsonl().len(), 2);
        // What is judged is more than what could be read, so nothing is safe or clean.
        let keys = run("keys -n team -w json").ok();
        let rows = keys.json()["keys"].as_array().unwrap().clone();
        assert_eq!(rows.iter().map(|k| k["entries"].as_u64().unwrap()).sum::<u64>(), 1, "{keys}");
        assert!(rows.iter().all(|k| k["safe_to_remove"] == false), "{keys}");
        keys.says("warning: only secrets under /registry/ in namespace team could be read");
        let residue = run("residue -n team -w json").code(4);
        assert_eq!(residue.json()["totals"]["superseded-revision"], 1, "{residue}");
        residue.says("nothing outside was searched");
        // The rest is nobody else's business.
        run("scan").fails_with_hint(1).says("\"anna\" may not read");
        run("scan -n default").fails_with_hint(1).says("\"anna\" may not read");
    }
}
