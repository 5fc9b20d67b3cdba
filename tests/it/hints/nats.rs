//! Buckets of NATS that cannot be read as they are asked.

use std::fs;

use super::says;
use crate::support::bin;
use crate::support::bin::Bin;
use crate::support::database::PASSWORD;
use crate::support::nats::Server;

fn scan(url: &str) -> Bin {
    let patient = "--allow-empty --dial-timeout 60s --command-timeout 60s";
    bin().words("scan --kine").arg(url).words(patient)
}

/// As somebody whose password is right.
fn scan_as(user: &str, url: &str) -> Bin {
    scan(url).arg("--user").arg(user).env("NATS_PASSWORD", PASSWORD)
}

#[test]
fn where_the_server_is() {
    let Some(server) = Server::get() else { return };
    server.bucket("reached", 10, 1);
    let good = server.url(&format!("k3s:{PASSWORD}"), "reached");
    says("give kine a server that others reach (without dontListen), and name that: nats://HOST:PORT?noEmbed")
        .helps(&scan("nats://?dontListen").run(), |_| scan(&good).run());
    // Nobody may listen there.
    says("check host and port; a server inside kine listens where its serverConfig says, else on a port of its choice: name that, nats://HOST:PORT?noEmbed")
        .helps(&scan("nats://127.0.0.1:1").run(), |_| scan(&good).run());
    says("bucket=NAME in the address names the bucket of kine; without it, it is kine")
        .helps(&scan(&good.replace("bucket=reached", "bucket=other")).run(), |_| scan(&good).run());
    let certified = scan(&good).arg("--cacert").arg(&server.certs.ca).run();
    says("give no certificates: then TLS is used where the server asks for it")
        .helps(&certified, |_| scan(&good).run());
}

#[test]
fn who_connects() {
    let Some(server) = Server::get() else { return };
    server.bucket("allowed", 10, 1);
    let dir = tempfile::tempdir().unwrap();
    let password = super::private(&dir, "password", PASSWORD);
    let url = server.url("", "allowed");
    let wrong = server.url("k3s:wrong", "allowed");
    says("give the user's password with --password-file FILE or NATS_PASSWORD, another user with --user, or credsFile=FILE in the address")
        .helps(&scan(&wrong).run(), |_| {
            scan_as("k3s", &url).run().ok();
            scan(&wrong).arg("--password-file").arg(&password).run()
        });
    says("name the server of kine, and a user of the account that has its bucket with --user")
        .helps(&scan_as("elsewhere", &url).run(), |_| scan_as("k3s", &url).run());
    says("give the user of kine, or one that may publish to $JS.API.> and subscribe to _INBOX.>, with --user")
        .helps(&scan_as("stranger", &url).run(), |_| scan_as("k3s", &url).run());
    let file = dir.path().join("context.json");
    let by_file = format!("nats://?contextFile={}&bucket=allowed", file.display());
    says("name a file that may be read: credsFile= one of `nsc generate creds`, contextFile= one of the nats program")
        .helps(&scan(&by_file).run(), |_| {
            let port = server.port;
            let url = format!("nats://k3s:{PASSWORD}@127.0.0.1:{port}");
            fs::write(&file, format!(r#"{{"url": "{url}"}}"#)).unwrap();
            scan(&by_file).run()
        });
}
