//! Being interrupted.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;

use crate::support::bin;

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
