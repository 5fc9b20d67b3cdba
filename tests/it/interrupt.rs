//! Being interrupted.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::support::snapshot::Crafted;
use crate::support::{bin, corpus};

/// A scan that waits for a server, and is sent `signal` while it does.
fn interrupted(signal: &str) -> (Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut child = bin().words("scan --command-timeout 60s --endpoints").arg(endpoint).spawn();
    let (mut connection, _) = listener.accept().unwrap();
    // It has sent its request, and waits.
    connection.read_exact(&mut [0; 24]).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let status = child.wait().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut output).unwrap();
    (status.code(), output)
}

#[test]
fn an_interrupt_is_exit_130_and_no_result() {
    assert_eq!(interrupted("-INT"), (Some(130), String::new()));
}

#[test]
fn termination_is_what_a_shell_makes_of_it() {
    assert_eq!(interrupted("-TERM"), (Some(143), String::new()));
}

/// The unfinished file may hold what was decrypted.
#[test]
fn an_interrupted_rewrite_leaves_nothing_behind() {
    let mut crafted = Crafted::new();
    for i in 0..20_000 {
        crafted = crafted.put(format!("/registry/secrets/a/s{i:05}"), vec![b'v'; 2000]);
    }
    let input = crafted.file();
    let dir = tempfile::tempdir().unwrap();
    let config = corpus::private_config("p1-secretbox");
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut child = bin()
        .words("rewrite --snapshot")
        .arg(input.path())
        .arg("--write-config")
        .arg(&config)
        .arg("--out")
        .arg(dir.path().join("new.db"))
        .spawn();
    while files() == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), files()), (Some(130), 0));
    assert!(done.stdout.is_empty());
}
