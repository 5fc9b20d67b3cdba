//! `apply.sh` with a kubectl that writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::restore;
use crate::support::corpus;

/// Puts a `kubectl` into `dir` that notes its arguments, and fails for a path with `fail`.
fn kubectl(dir: &Path, fail: &str) {
    let script = format!(
        "#!/bin/sh\necho \"${{KUBECONFIG-}} $*\" >>{log}\ncase \"$*\" in *{fail}*) exit 1;; esac\n",
        log = dir.join("log").display()
    );
    let path = dir.join("kubectl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Runs the script of an export of p0; its exit code and the calls of kubectl.
fn run(fail: &str, args: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let (dir, done) = restore(&corpus::db("p0-plaintext"), "");
    done.ok();
    kubectl(dir.path(), fail);
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let done = Command::new("sh")
        .arg("out/apply.sh")
        .args(args)
        .current_dir(dir.path())
        .env("PATH", path)
        .env("KUBECONFIG", "rel/config")
        .output()
        .unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    (done.status.code(), stderr, log.lines().map(str::to_owned).collect())
}

const STEPS: [&str; 9] = [
    "10-namespaces",
    "20-definitions",
    "30-priority-classes",
    "45-rbac",
    "50-secrets-and-configmaps",
    "60-network",
    "65-custom-resources",
    "75-workloads",
    "80-limits",
];

#[test]
fn the_steps_are_applied_in_order_and_definitions_waited_for() {
    let (code, _, log) = run("NEVER", &["--context", "a b"]);
    assert_eq!(code, Some(0));
    let applied: Vec<_> = log.iter().filter(|l| l.contains(" apply ")).collect();
    assert_eq!(applied.len(), STEPS.len());
    for (line, step) in applied.iter().zip(STEPS) {
        assert_eq!(
            **line,
            format!(
                "rel/config apply --server-side --force-conflicts --recursive -f out/{step} --context a b"
            )
        );
    }
    let wait = log.iter().position(|l| l.contains(" wait ")).unwrap();
    assert!(log[wait].contains("condition=Established") && log[wait].contains("--context a b"));
    assert!(log[wait - 1].contains("20-definitions"), "waits right after the definitions");
}

#[test]
fn a_failed_step_stops_nothing_and_is_told() {
    let (code, stderr, log) = run("45-rbac", &[]);
    assert_eq!(code, Some(1));
    assert_eq!(log.iter().filter(|l| l.contains(" apply ")).count(), STEPS.len());
    assert!(stderr.contains("failed steps: 45-rbac\n"), "{stderr}");
}

#[test]
fn a_dry_run_waits_for_nothing() {
    let (code, _, log) = run("NEVER", &["--dry-run=server"]);
    assert_eq!(code, Some(0));
    assert!(!log.iter().any(|l| l.contains(" wait ")));
}
