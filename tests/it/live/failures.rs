//! What cannot work says why and what to do, on stderr alone.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::bin::{Bin, Done};
use crate::support::certs::{Certs, Pair};
use crate::support::etcd::{connection_args, free_ports};
use crate::support::{Etcd, Version, bin};

fn scan(endpoint: &str) -> Bin {
    bin().words("scan --endpoints").arg(endpoint)
}

/// `error:` with every one of `says`, and a `hint:` with `hint`.
#[track_caller]
fn fails(scan: Bin, says: &[&str], hint: &str) -> Done {
    let done = scan.run().fails_with_hint(1);
    for text in says {
        assert!(done.stderr.contains(text), "stderr lacks {text:?}: {done}");
    }
    let advice = done.stderr.lines().find(|l| l.starts_with("hint:")).unwrap();
    assert!(advice.contains(hint), "the hint lacks {hint:?}: {done}");
    done
}

#[test]
fn certificates_that_do_not_fit() {
    let certs = Certs::new();
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::builder(version).tls(&certs).start();
        let url = etcd.url();
        let with =
            |ca: &Path, pair: &Pair| scan(&url).args(connection_args(ca, &pair.cert, &pair.key));
        fails(
            with(&certs.other_ca, &certs.client),
            &["not signed by the CA in", "other-ca.crt"],
            "--cacert",
        );
        fails(
            scan(&url).arg("--cert").arg(&certs.client.cert).arg("--key").arg(&certs.client.key),
            &["unknown CA"],
            "--cacert",
        );
        fails(with(&certs.ca, &certs.expired_client), &["expired.crt", "expired"], "renew");
        fails(with(&certs.ca, &certs.stranger), &["stranger.crt"], "--trusted-ca-file");
        fails(scan(&url).arg("--cacert").arg(&certs.ca), &["client certificate"], "--cert");
        // Plain HTTP to the TLS port.
        fails(scan(&format!("http://{}", etcd.endpoint())), &[&etcd.endpoint()], "https://");
    }
}

#[test]
fn a_certificate_for_another_host() {
    let mut certs = Certs::new();
    std::mem::swap(&mut certs.server, &mut certs.server_elsewhere);
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    let args = || connection_args(&certs.ca, &certs.client.cert, &certs.client.key);
    fails(
        scan(&etcd.url()).args(args()),
        &["not valid for this host", "etcd.example.com"],
        "in the certificate",
    );
    scan(&etcd.url()).args(args()).words("--insecure-skip-tls-verify --allow-empty").run().ok();
}

#[test]
fn tls_to_a_plain_port() {
    let certs = Certs::new();
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        let args = connection_args(&certs.ca, &certs.client.cert, &certs.client.key);
        fails(scan(&etcd.endpoint()).args(args), &["TLS"], "http://");
    }
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let certs = Certs::new();
    let url = "https://127.0.0.1:1";
    let here = |name: &str| certs.dir().join(name);
    std::fs::write(here("text"), "no certificate\n").unwrap();
    let with = |ca: &Path, cert: &Path, key: &Path| scan(url).args(connection_args(ca, cert, key));
    let (ca, cert, key) = (&certs.ca, &certs.client.cert, &certs.client.key);
    fails(with(&here("none"), cert, key), &["none", "No such file"], "path");
    fails(with(&here("text"), cert, key), &["CA bundle", "text"], "CERTIFICATE");
    fails(with(ca, &here("none"), key), &["client certificate", "none"], "path");
    fails(with(ca, &here("text"), key), &["client certificate", "text"], "CERTIFICATE");
    fails(with(ca, cert, &here("text")), &["client key", "text"], "PKCS#8");
    fails(with(ca, cert, cert), &["client key"], "PKCS#8");
    fails(with(ca, cert, &certs.stranger.key), &["does not belong"], "same pair");
    fails(scan(url).arg("--cert").arg(cert), &["--key"], "together");
    fails(scan(url).arg("--key").arg(key), &["--cert"], "together");
}

#[test]
fn nobody_there() {
    let [port] = free_ports();
    let at = format!("127.0.0.1:{port}");
    fails(scan(&at), &["cannot connect to etcd at http://", "refused"], "listens");
    let both = format!("{at},127.0.0.1:1");
    let done =
        fails(scan(&both), &["no etcd endpoint could be used", "  http://127.0.0.1:1: "], "");
    assert_eq!(done.stderr.matches("refused").count(), 2, "one cause for each: {done}");
    fails(scan("unix:///nowhere/etcd.sock"), &["does not exist"], "path");
    fails(scan("no-such-host.invalid:2379"), &["cannot be resolved"], "--endpoints");
    // The default endpoint, unless somebody runs an etcd there.
    if std::net::TcpStream::connect("127.0.0.1:2379").is_err() {
        fails(bin().arg("scan"), &["127.0.0.1:2379", "refused"], "");
    }
}

#[test]
fn somebody_who_does_not_answer() {
    let certs = Certs::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let quick = |b: Bin| b.words("--dial-timeout 300ms --command-timeout 300ms");
    let start = Instant::now();
    fails(quick(scan(&at)), &["no answer within 300ms"], "--command-timeout");
    let args = connection_args(&certs.ca, &certs.client.cert, &certs.client.key);
    fails(quick(scan(&at)).args(args), &["handshake", "300ms"], "http://");
    // An address that is reserved for documentation: dropped or refused by the network.
    fails(quick(scan("192.0.2.1:2379")), &["192.0.2.1:2379"], "");
    // Two minutes and more is how long a connection takes that nobody ends.
    assert!(start.elapsed() < Duration::from_mins(1));
}

#[test]
fn somebody_else() {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 24]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            // Closing with unread bytes would take the answer back.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    fails(scan(&at), &["does not speak gRPC"], "https://");
}

#[test]
fn a_cluster_without_a_quorum() {
    for version in [Version::V34, Version::V35] {
        let etcd = Etcd::plain(version);
        etcd.put("/registry/secrets/default/a", b"k8s\0a");
        // A second member that never comes.
        etcd.ctl(&["member", "add", "second", "--peer-urls=http://127.0.0.1:1"]);
        fails(scan(&etcd.endpoint()).words("--command-timeout 3s"), &[&etcd.endpoint()], "health");
    }
}
