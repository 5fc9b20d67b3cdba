//! What etcd and this machine show of API servers that nobody asks.

use std::fs;
use std::process::{Command, Stdio};

use super::{applied, migrate};
use crate::support::{Etcd, Version, bin, corpus, secret};

/// An entry that is written otherwise after the configuration was in use.
#[test]
fn a_later_write_under_another_key_is_told() {
    let etcd = Etcd::plain(Version::V35);
    let put = |name: &str| {
        etcd.put(&format!("/registry/secrets/a/{name}"), secret(name).as_bytes());
    };
    put("one");
    put("two");
    let config = corpus::private_config("p1-secretbox");
    let plan = || migrate(&etcd, &[&config], "").run();
    let silent = plan().ok();
    assert!(!silent.to_string().contains("the newest entry"), "{silent}");
    applied(&etcd, &[&config], "");
    assert!(!plan().ok().to_string().contains("the newest entry"));
    // As an API server does that was not restarted.
    put("three");
    plan().ok().says(
        "secrets: the newest entry, of revision 6, is stored under identity, although revision 5",
    );
}

/// A process of the name, with these flags, that ends with its stdin.
fn server(flags: &[String]) -> std::process::Child {
    let server = Command::new("bash")
        .args(["-c", "exec -a kube-apiserver sh -c 'read x' -- \"$@\"", "bash"])
        .args(flags)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let name = format!("/proc/{}/cmdline", server.id());
    // It is what it will be once the shell has become it.
    while !fs::read(&name).unwrap().starts_with(b"kube-apiserver\0") {
        std::thread::yield_now();
    }
    server
}

/// An API server on this machine that was started with another file, or before it was changed.
#[test]
fn what_the_api_server_here_was_started_with_is_told() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/one", secret("one").as_bytes());
    let ours = corpus::private_config("p1-secretbox");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("enc.yaml");
    let servers = format!("--etcd-servers={}", etcd.url());
    let of = |file: &std::path::Path| format!("--encryption-provider-config={}", file.display());
    let told = |flags: &[String], wanted: &str| {
        let mut server = server(flags);
        let who = format!("kube-apiserver (process {} of this machine) {wanted}", server.id());
        let scan = bin().words("scan --encryption-config").arg(&ours).args(etcd.args());
        for done in [migrate(&etcd, &[&ours], "").run().ok(), scan.run().ok()] {
            assert_eq!(!wanted.is_empty(), done.to_string().contains(&who), "{done}");
        }
        drop(server.stdin.take());
        server.wait().unwrap();
    };
    told(std::slice::from_ref(&servers), "runs without --encryption-provider-config");
    fs::copy(corpus::config("p2-aescbc"), &file).unwrap();
    told(&[servers.clone(), of(&file)], "uses ");
    fs::copy(&ours, &file).unwrap();
    let time = std::time::SystemTime::now() + std::time::Duration::from_mins(1);
    fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    told(&[servers.clone(), of(&file)], "was started before ");
    let time = time - std::time::Duration::from_hours(1);
    fs::File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
    let quiet = |flags: &[String]| {
        let mut server = server(flags);
        let done = migrate(&etcd, &[&ours], "").run().ok();
        assert!(!done.to_string().contains("of this machine"), "{done}");
        drop(server.stdin.take());
        server.wait().unwrap();
    };
    quiet(&[servers, of(&file)]);
    // Of another cluster.
    quiet(&["--etcd-servers=http://127.0.0.1:1".to_owned()]);
}
