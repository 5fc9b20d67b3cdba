//! What others send and store: harmless on a terminal, in a spreadsheet, in memory and on the disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::support::bin;
use crate::support::snapshot::Crafted;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7F).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
    out.extend(bytes);
    out
}

/// A Secret as the API server stores it, with more behind its own fields.
fn secret(namespace: &str, name: &str, more: &[u8]) -> Vec<u8> {
    let metadata = [field(1, name.as_bytes()), field(3, namespace.as_bytes())].concat();
    let body = [field(1, &metadata), more.to_vec()].concat();
    let types = [field(1, b"v1"), field(2, b"Secret")].concat();
    [&b"k8s\0"[..], &field(1, &types), &field(2, &body), &[0x1a, 0, 0x22, 0]].concat()
}

fn each(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect::<Vec<_>>().concat()
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// By the etcd key as by the kind, and with copies in annotations.
#[test]
fn nothing_of_a_secret_is_shown_without_reveal() {
    let copy = r#"{"data":{"p":"aHVudGVyMg=="}}"#;
    let object = |kind: &str| {
        serde_json::json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": {"name": "b", "namespace": "a", "annotations": {
                "kapp.k14s.io/original": copy, "banzaicloud.com/last-applied": copy,
                "objectset.rio.cattle.io/applied": "H4sIhunter2"}},
            "data": {"p": "aHVudGVyMg=="}, "other": "hunter2",
        })
        .to_string()
    };
    for kind in ["Secret", "secret", "Sekret", "ConfigMap"] {
        let key = "/registry/secrets/a/b";
        let file = Crafted::new().put(key, object(kind)).file();
        for format in ["yaml", "json", "fields"] {
            let done = bin()
                .words("get -w")
                .words(format)
                .arg(key)
                .arg("--snapshot")
                .arg(file.path())
                .run()
                .ok();
            let shown = done.text();
            assert!(shown.contains("<redacted: 7 bytes>"), "{kind} {format}");
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{kind} {format}");
            let decode = bin().words("decode -w").words(format).words("--key").arg(key);
            let decoded = decode.stdin(object(kind)).run().ok();
            let shown = decoded.text();
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{kind} {format}");
        }
    }
}

/// No core dump and no tracing, before anything is read: a password may stand in the environment.
#[test]
#[cfg(target_os = "linux")]
fn the_process_is_closed_before_it_reads_anything() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_atrest"))
        .args(["decode", "--reveal"])
        .env("ETCDCTL_PASSWORD", "hunter2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let proc = format!("/proc/{}", child.id());
    let until = Instant::now() + Duration::from_secs(20);
    // It waits for stdin; core files are off as soon as the limit is.
    loop {
        let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
        let words: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        if words == ["0", "0"] {
            break;
        }
        assert!(Instant::now() < until, "{core}");
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn half_a_million_unknown_fields_are_a_line() {
    let fields = field(99, b"").repeat(450_000);
    let long = "k".repeat(1 << 20);
    let entry = [field(1, long.as_bytes()), field(9, b"").repeat(100_000)].concat();
    let file = Crafted::new()
        .put("/registry/secrets/a/fields", secret("a", "fields", &fields))
        .put("/registry/secrets/a/key", secret("a", "key", &field(2, &entry)))
        .put("/registry/secrets/a/good", secret("a", "good", b""))
        .file();
    let start = Instant::now();
    let done = bin().words("export -w json --snapshot").arg(file.path()).run().code(4);
    assert_eq!(done.json()["items"].as_array().unwrap().len(), 3);
    assert!(done.stderr.len() < 20_000, "{} bytes of warnings", done.stderr.len());
    done.says(" more");
    assert!(start.elapsed() < Duration::from_mins(1));
}

#[test]
fn names_move_no_cursor_and_are_no_formulas() {
    let names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "x\x1b[2Jy", "z\nerror: forged"];
    let mut crafted = Crafted::new();
    for name in names {
        crafted = crafted.put(format!("/registry/secrets/a/{name}"), "garbage");
        let key = format!("k8s:enc:secretbox:v1:{name}:payload");
        crafted = crafted.put(format!("/registry/secrets/{name}/a"), key);
    }
    let file = crafted.file();
    let run = |words: &str| bin().words(words).arg("--snapshot").arg(file.path()).run();
    for words in [
        "scan --list -w csv",
        "scan -w csv",
        "history -w csv secrets/",
        "keys -w csv",
        "scan --list",
        "scan -w prometheus",
        "scan --list -w html",
        "history secrets/",
        "keys",
        "export",
    ] {
        let done = run(words);
        let all = format!("{}{}", done.text(), done.stderr);
        assert!(!all.contains('\x1b'), "{words}");
        assert!(!all.lines().any(|l| l.starts_with("error: forged")), "{words}");
        if words.contains("csv") {
            for cell in done.text().lines().flat_map(|l| l.split(',')) {
                let cell = cell.trim_start_matches('"');
                assert!(!cell.starts_with(['=', '+', '-', '@']), "{words}: {cell}");
            }
        }
    }
    let exact = run("scan -w jsonl").ok().jsonl();
    for name in names {
        assert!(exact.iter().any(|e| e["name"] == name), "{name:?}");
    }
}

/// Configurations that are built to take all memory or time.
#[test]
fn hostile_configurations_end_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    let keys = |n: usize| {
        let secret = base64::prelude::BASE64_STANDARD.encode([9; 32]);
        let key = |i: usize| format!("      - {{name: k{i}, secret: {secret}}}\n");
        let keys = each(n, key);
        format!(
            "{head}resources:\n- resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n{keys}"
        )
    };
    let names = each(5000, |i| format!("r{i}.example.com,"));
    let texts = [
        ("aliases", format!("a: &a {}\nb: [{}]\n", "x".repeat(50_000), "*a,".repeat(16_000))),
        ("nested", format!("{}x{}\n", each(60, |i| format!("&a{i} [")), "]".repeat(60))),
        ("fields", each(130_000, |i| format!("f{i}: 1\n"))),
        (
            "merges",
            format!(
                "a: &a {{{}}}\nb:\n{}",
                each(3000, |i| format!("f{i}: 1,")),
                "  <<: *a\n".repeat(3000)
            ),
        ),
        ("keys", keys(2000)),
        (
            "resources",
            format!("{head}resources:\n- resources: [{names}]\n  providers:\n  - identity: {{}}\n"),
        ),
    ];
    for (name, text) in texts {
        let path = dir.path().join(name);
        private(&path, &text);
        let start = Instant::now();
        let done = bin().words("config check").arg(&path).run();
        assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", start.elapsed());
        assert!(matches!(done.code, Some(0 | 1 | 3)), "{name}: {done}");
        assert!(done.stdout.len() + done.stderr.len() < 1 << 20, "{name}");
    }
}

/// Opening a pipe waits for somebody who writes to it.
#[test]
fn pipes_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for words in [
        "scan --snapshot",
        "scan --kine",
        "scan --snapshot /dev/null --encryption-config",
        "config check",
    ] {
        bin().words(words).arg(&fifo).run().fails(1);
    }
}

/// A mapped file that becomes shorter is an error in words, not a signal.
#[test]
#[cfg(target_os = "linux")]
fn a_file_that_shrinks_while_it_is_read_is_said_so() {
    use std::process::{Command, Stdio};
    let mut crafted = Crafted::new();
    for i in 0..2000 {
        crafted =
            crafted.put(format!("/registry/secrets/a/{i:04}"), secret("a", "x", &[]).repeat(50));
    }
    // The file ends while its reader is stopped, whenever that is; before and after it is an error
    // or a result, never a signal.
    for pause in [1, 3, 10, 30] {
        let file = crafted.file();
        let child = Command::new(env!("CARGO_BIN_EXE_atrest"))
            .args(["scan", "--list", "-w", "jsonl", "--snapshot"])
            .arg(file.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        file.as_file().set_len(0).unwrap();
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code().is_some(), "killed by a signal: {stderr}");
        assert!(done.status.code() == Some(0) || stderr.starts_with("error: "), "{stderr}");
    }
}

/// Who owns a directory replaces what is in it.
#[test]
fn a_directory_of_another_user_earns_a_warning() {
    let file = Crafted::new().put("/registry/secrets/a/b", secret("a", "b", b"")).file();
    let dir = tempfile::tempdir().unwrap();
    let export = || {
        let run = bin().words("export --force --snapshot").arg(file.path()).arg("--out");
        run.arg(dir.path()).run().ok()
    };
    assert!(!export().stderr.contains("another user"));
    // Only root can give a directory away.
    if std::os::unix::fs::chown(dir.path(), Some(65534), None).is_ok() {
        export().says("belongs to another user (uid 65534)");
    }
}
