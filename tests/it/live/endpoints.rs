//! Endpoints and environment variables as etcdctl takes them.

use crate::support::bin::{Bin, Done};
use crate::support::certs::Certs;
use crate::support::etcd::connection_args;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin, corpus};

#[track_caller]
fn entries(scan: Bin) -> u64 {
    let done: Done = scan.run().ok();
    done.json()["totals"]["entries"].as_u64().unwrap()
}

#[test]
fn every_way_to_write_an_endpoint() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/default/a", b"k8s\0a");
    let at = etcd.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.sock");
    let _unix = Proxy::unix(&at, &path);
    let v6 = Proxy::v6(&at);
    let port = at.rsplit(':').next().unwrap();
    for endpoint in [
        at.clone(),
        format!("http://{at}"),
        format!("http://{at}/"),
        format!("http://{at}/v3/"),
        format!(" {at} "),
        format!("localhost:{port}"),
        format!("http://127.0.0.1:1,http://{at}"),
        format!("http://127.0.0.1:1, http://{at},"),
        format!("http://{}", v6.endpoint),
        v6.endpoint.clone(),
        format!("unix://{}", path.display()),
        format!("unix:{}", path.display()),
    ] {
        let scan = bin().words("scan -w json --endpoints").arg(&endpoint);
        assert_eq!(entries(scan), 1, "{endpoint}");
        let scan = bin().words("scan -w json").env("ETCDCTL_ENDPOINTS", &endpoint);
        assert_eq!(entries(scan), 1, "{endpoint} in the environment");
    }
    let twice = bin().words("scan -w json --endpoints http://127.0.0.1:1 --endpoints").arg(&at);
    assert_eq!(entries(twice), 1);
    for bad in ["ftp://127.0.0.1:1", "http://", "127.0.0.1:port", ","] {
        bin().words("scan --endpoints").arg(bad).run().fails_with_hint(1);
    }
}

#[test]
fn connection_options_come_from_the_environment() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V34)
        .tls(&certs)
        .restore(corpus::db("p1b-partial-migration"))
        .start();
    let scan = |ca: &std::path::Path| {
        bin()
            .words("scan -w json")
            .env("ETCDCTL_API", "3")
            .env("ETCDCTL_ENDPOINTS", etcd.url())
            .env("ETCDCTL_CACERT", ca)
            .env("ETCDCTL_CERT", &certs.client.cert)
            .env("ETCDCTL_KEY", &certs.client.key)
            .env("ETCDCTL_DIAL_TIMEOUT", "3s")
            .env("ETCDCTL_COMMAND_TIMEOUT", "10s")
    };
    assert!(entries(scan(&certs.ca)) > 10);
    scan(&certs.other_ca).run().fails_with_hint(1);
    // An option wins.
    assert!(entries(scan(&certs.other_ca).arg("--cacert").arg(&certs.ca)) > 10);
    let skip = scan(&certs.other_ca).env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true");
    assert!(entries(skip) > 10);
    assert!(entries(scan(&certs.other_ca).arg("--insecure-skip-tls-verify")) > 10);
    let skip = scan(&certs.other_ca).env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "1");
    assert!(entries(skip) > 10);
    let verify = scan(&certs.other_ca).env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "FALSE");
    verify.run().fails_with_hint(1);
    scan(&certs.ca).env("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "maybe").run().fails(2);
    scan(&certs.ca).env("ETCDCTL_DIAL_TIMEOUT", "soon").run().fails(2);
    // What is set to nothing is not set.
    let mut empty = scan(&certs.ca);
    for name in ["USER", "PASSWORD", "INSECURE_SKIP_TLS_VERIFY", "INSECURE_TRANSPORT", "DEBUG"] {
        empty = empty.env(&format!("ETCDCTL_{name}"), "");
    }
    for name in ["DIAL_TIMEOUT", "COMMAND_TIMEOUT", "KEEPALIVE_TIME", "KEEPALIVE_TIMEOUT"] {
        empty = empty.env(&format!("ETCDCTL_{name}"), "");
    }
    assert!(entries(empty) > 10);
    let mut given = bin().words("scan -w json").args(etcd.args());
    for name in ["ENDPOINTS", "CACERT", "CERT", "KEY"] {
        given = given.env(&format!("ETCDCTL_{name}"), "");
    }
    assert!(entries(given) > 10);
}

#[test]
fn every_form_of_client_key_is_read() {
    let certs = Certs::new();
    let rsa = certs.client_rsa_pkcs1();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    etcd.put("/registry/secrets/default/a", b"k8s\0a");
    for (cert, key) in [
        (&certs.client.cert, &certs.client.key),
        (&certs.client.cert, &certs.client_key_sec1()),
        (&rsa.cert, &rsa.key),
    ] {
        let scan = bin()
            .words("scan -w json --endpoints")
            .arg(etcd.endpoint())
            .args(connection_args(&certs.ca, cert, key));
        assert_eq!(entries(scan), 1, "{}", key.display());
    }
}
