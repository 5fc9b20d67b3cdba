//! Database servers that cannot be read as they are asked.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use super::says;
use crate::support::bin::{Bin, Done};
use crate::support::database::{Kind, PASSWORD, Server};
use crate::support::{Etcd, Version, bin};

fn scan(url: &str) -> Bin {
    let patient = "--allow-empty --dial-timeout 60s --command-timeout 60s";
    bin().words("scan --kine").arg(url).words(patient)
}

#[test]
fn what_is_read_as_an_etcd() {
    let etcd = Etcd::plain(Version::V35);
    let followed =
        |_: &str| bin().words("scan --allow-empty --endpoints").arg(etcd.endpoint()).run();
    says("this is an etcd: read it with --endpoints").helps(&scan(&etcd.url()).run(), followed);
    says("serves it as an etcd, which is read with --endpoints")
        .helps(&scan("jetstream://nats.example.com").run(), followed);
}

#[test]
fn passwords_rights_and_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let file = super::private(&dir, "password", PASSWORD);
    for server in Server::all() {
        server.database("hints");
        let said = scan(&server.url("k3s:wrong", "hints")).run();
        says("give the password of the user in the address with --password-file FILE or {}, or another user with --user")
            .helps(&said, |hint| {
                let variable = hint.split_whitespace().find(|w| w.ends_with(','));
                let variable = variable.unwrap().trim_end_matches(',');
                let by_variable = scan(&server.url("k3s", "hints")).env(variable, PASSWORD);
                by_variable.run().ok();
                let other = scan(&server.url("stranger:wrong", "hints"));
                other.arg("--user").arg(format!("k3s:{PASSWORD}")).run().ok();
                let by_file = scan(&server.url("k3s:wrong", "hints"));
                by_file.arg("--password-file").arg(&file).run()
            });
        let said = scan(&server.url(&format!("stranger:{PASSWORD}"), "hints")).run();
        says("GRANT SELECT ON kine TO the user, or give another with --user").helps(&said, |_| {
            let url = server.url("stranger", "hints");
            scan(&url).arg("--user").arg(format!("k3s:{PASSWORD}")).run()
        });
        let user = format!("tlsonly:{PASSWORD}");
        let verified = |url: &str| scan(url).arg("--cacert").arg(&server.certs.ca).run();
        let url = server.bare_url(&user, "hints");
        let strict = match server.kind {
            Kind::Postgres => format!("{url}?sslmode=verify-full"),
            Kind::MariaDb => format!("{url}?tls=true"),
        };
        says("name the server's CA with --cacert, and a client certificate with --cert and --key")
            .helps(&scan(&strict).run(), |_| verified(&strict));
        if server.kind == Kind::Postgres {
            let forbidden = scan(&server.url(&user, "hints")).run();
            says("name its CA with --cacert; sslmode=disable in the address would forbid TLS")
                .helps(&forbidden, |_| verified(&url));
        }
    }
}

/// Whoever asks first gets no answer, whoever asks then that of the server.
#[test]
fn a_server_that_is_slow() {
    let Some(server) = Server::postgres() else { return };
    server.database("slow");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = server.port;
    let (hurry, wait) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        let (first, _) = listener.accept().unwrap();
        wait.recv().unwrap();
        drop(first);
        let (client, _) = listener.accept().unwrap();
        let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
        let copy = |mut from: TcpStream, mut to: TcpStream| {
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.flush();
                let _ = to.shutdown(Shutdown::Write);
            })
        };
        let there = copy(client.try_clone().unwrap(), upstream.try_clone().unwrap());
        let back = copy(upstream, client);
        there.join().unwrap();
        back.join().unwrap();
    });
    let url = format!("postgres://k3s:{PASSWORD}@127.0.0.1:{port}/slow?sslmode=disable");
    let run = |more: &str| -> Done {
        bin().words("scan --allow-empty --kine").arg(&url).words(more).run()
    };
    let said = run("--dial-timeout 200ms");
    hurry.send(()).unwrap();
    says("check host and port; --dial-timeout and --command-timeout wait longer")
        .helps(&said, |_| run("--dial-timeout 60s --command-timeout 60s"));
    serving.join().unwrap();
}
