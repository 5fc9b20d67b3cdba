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

#[test]
fn a_closed_terminal_and_quit_end_it_as_well() {
    assert_eq!(interrupted("-HUP"), (Some(129), String::new()));
    assert_eq!(interrupted("-QUIT"), (Some(131), String::new()));
}

/// The unfinished file may hold what was decrypted. It has no name, so that not even SIGKILL, at
/// whatever moment, leaves anything of it.
#[test]
fn a_rewrite_that_is_ended_leaves_nothing_behind() {
    let mut crafted = Crafted::new();
    let value = format!(
        r#"{{"apiVersion":"v1","kind":"Secret","data":{{"a":"{}"}}}}"#,
        "hunter2".repeat(200)
    );
    for i in 0..20_000 {
        crafted = crafted.put(format!("/registry/secrets/a/s{i:05}"), value.clone());
    }
    let input = crafted.file();
    let config = corpus::private_config("p1-secretbox");
    let mut ended = 0;
    for (signal, code) in
        [("-INT", Some(130)), ("-HUP", Some(129)), ("-QUIT", Some(131)), ("-KILL", None)]
    {
        for pause in [50, 150, 400] {
            let dir = tempfile::tempdir().unwrap();
            let new = dir.path().join("new.db");
            let child = bin()
                .words("rewrite --snapshot")
                .arg(input.path())
                .arg("--write-config")
                .arg(&config)
                .arg("--out")
                .arg(&new)
                .spawn();
            std::thread::sleep(Duration::from_millis(pause));
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
            let done = child.wait_with_output().unwrap();
            let names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
            if done.status.code() == Some(0) || names == [new.clone()] {
                bin().words("scan --snapshot").arg(&new).run().ok();
                continue;
            }
            ended += 1;
            assert_eq!(names, Vec::<std::path::PathBuf>::new(), "{signal} after {pause} ms");
            assert!(done.status.code() == code || pause == 50, "{:?}", done.status);
        }
    }
    assert!(ended > 3, "it always ended before its time: {ended}");
}
