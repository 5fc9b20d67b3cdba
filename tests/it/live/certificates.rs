//! Server certificates that are not as most are: what works with etcdctl works, and what does not
//! says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::support::bin::{Bin, Done};
use crate::support::certs::{Certs, Pair};
use crate::support::etcd::connection_args;
use crate::support::{Etcd, Version, bin};

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(line: &str, files: &[&Path]) {
    let mut command = Command::new("openssl");
    let mut files = files.iter();
    for word in line.split_whitespace() {
        command.arg(if word == "{}" { utf8(files.next().unwrap()) } else { word });
    }
    let done = command.output().expect("openssl is missing: scripts/setup installs it");
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A CA whose key lies in a file.
struct Authority {
    cert: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// `key` is what openssl calls it, as `rsa:2048`.
    fn new(dir: &Path, name: &str, key: &str) -> Self {
        let (cert, file) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        let line = format!(
            "req -x509 -newkey {key} -nodes -subj /CN={name} -days 2 -keyout {{}} -out {{}}"
        );
        openssl(&line, &[&file, &cert]);
        Self { cert, key: file }
    }

    /// A certificate for 127.0.0.1.
    fn sign(&self, name: &str, key: &str, more: &str) -> Pair {
        let dir = self.cert.parent().unwrap();
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        let pair = Pair { cert: file("crt"), key: file("key") };
        fs::write(file("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let line = format!("req -new -newkey {key} -nodes -subj /CN={name} -keyout {{}} -out {{}}");
        openssl(&line, &[&pair.key, &file("csr")]);
        let line = format!(
            "x509 -req -in {{}} -CA {{}} -CAkey {{}} -CAcreateserial -days 2 -extfile {{}} -out {{}} {more}"
        );
        openssl(&line, &[&file("csr"), &self.cert, &self.key, &file("ext"), &pair.cert]);
        pair
    }
}

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const P521: &str = "ec -pkeyopt ec_paramgen_curve:P-521";

/// An etcd that serves with this certificate and asks for a client's.
fn serving(certs: &mut Certs, pair: Pair) -> Etcd {
    certs.server = pair;
    Etcd::builder(Version::V35).tls(certs).start()
}

fn scan(etcd: &Etcd, ca: &Path, client: &Pair) -> Bin {
    bin()
        .words("scan --allow-empty --command-timeout 60s --dial-timeout 60s --endpoints")
        .arg(etcd.endpoint())
        .args(connection_args(ca, &client.cert, &client.key))
}

/// It fails with these words, and with a hint that is no way around the check.
#[track_caller]
fn fails(scan: Bin, says: &str, hint: &str) -> Done {
    let done = scan.run().fails_with_hint(1).says(says);
    let advice = done.stderr.lines().find(|l| l.starts_with("hint:")).unwrap();
    assert!(advice.contains(hint), "the hint lacks {hint:?}: {done}");
    assert!(!advice.contains("insecure"), "{done}");
    for dump in ["{", "Context", "Error", "Some("] {
        assert!(!done.stderr.contains(dump), "a dump: {done}");
    }
    done
}

/// Valid from the beginning of one year to that of another.
fn between(params: &mut CertificateParams, from: i32, until: i32) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
}

/// What rcgen makes of `edit`, signed by itself.
fn own(dir: &Path, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let pair = Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    fs::write(&pair.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}

#[test]
fn a_certificate_that_is_its_own_ca_serves() {
    let mut certs = Certs::new();
    let dir = certs.dir().to_owned();
    let self_signed = own(&dir, "own", |_| {});
    let (ca, client) = (self_signed.cert.clone(), certs.client.clone());
    let bundle = fs::read_to_string(&certs.ca).unwrap() + &fs::read_to_string(&ca).unwrap();
    fs::write(&certs.ca, bundle).unwrap();
    let etcd = serving(&mut certs, self_signed);
    // etcdctl, too, finds the server's certificate in the bundle.
    etcd.put("/registry/secrets/a/a", b"k8s\0a");
    let args = connection_args(&ca, &client.cert, &client.key);
    let done = bin().words("scan -w json --endpoints").arg(etcd.endpoint()).args(args).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 1);
    // Nothing weaker: the same names, but another certificate.
    let twin = own(&dir, "twin", |_| {});
    fails(scan(&etcd, &twin.cert, &client), "the server's certificate is", "--cacert");
    fails(
        scan(&etcd, &certs.other_ca, &client),
        "a CA's and not the one in",
        "that very certificate",
    );
}

/// A name, what makes it wrong, and the words of the error and of its hint.
type Wrong = (&'static str, fn(&mut CertificateParams), &'static str, &'static str);

#[test]
fn a_certificate_that_is_its_own_ca_is_checked_all_the_same() {
    let mut certs = Certs::new();
    let dir = certs.dir().to_owned();
    let wrong: [Wrong; 4] = [
        (
            "expired",
            |p| between(p, 2000, 2001),
            "the server's certificate has expired",
            "renew etcd's server certificate",
        ),
        ("early", |p| between(p, 4000, 4001), "the server's certificate is not valid yet", "clock"),
        (
            "elsewhere",
            |p| {
                let names = vec!["etcd.example.com".to_owned(), "192.0.2.1".to_owned()];
                p.subject_alt_names = CertificateParams::new(names).unwrap().subject_alt_names;
            },
            "not valid for this host (it is for etcd.example.com, 192.0.2.1)",
            "in the certificate",
        ),
        (
            "for-clients",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "the server's certificate is not for servers",
            "serverAuth",
        ),
    ];
    for (name, edit, says, hint) in wrong {
        let pair = own(&dir, name, edit);
        let (ca, client) = (pair.cert.clone(), certs.client.clone());
        let etcd = serving(&mut certs, pair);
        fails(scan(&etcd, &ca, &client), says, hint);
    }
}

#[test]
fn a_certificate_of_another_time() {
    let mut certs = Certs::new();
    let dir = certs.dir().to_owned();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = dir.join("times.crt");
    fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for (from, until, says) in
        [(2000, 2001, "certificate has expired"), (4000, 4001, "certificate is not valid yet")]
    {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let pair = Pair { cert: dir.join("time.crt"), key: dir.join("time.key") };
        fs::write(&pair.cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        let client = certs.client.clone();
        let etcd = serving(&mut certs, pair);
        fails(scan(&etcd, &ca, &client), says, "clock");
    }
}

#[test]
fn keys_and_signatures_that_are_not_supported() {
    let mut certs = Certs::new();
    let dir = certs.dir().to_owned();
    let client = certs.client.clone();
    let plain = Authority::new(&dir, "p256-ca", P256);
    let rsa = Authority::new(&dir, "rsa-ca", "rsa:2048");
    let short = Authority::new(&dir, "short-ca", "rsa:1024");
    let large = Authority::new(&dir, "p521-ca", P521);
    let cases = [
        (&plain, plain.sign("p521", P521, ""), "has a P-521 key", "P-384"),
        (&plain, plain.sign("short", "rsa:1024", ""), "has an RSA key of 1024 bits", "2048"),
        (&short, short.sign("by-short", P256, ""), "CA with an RSA key of 1024 bits", "2048"),
        (&large, large.sign("by-p521", P256, ""), "signed by a CA with a P-521 key", "P-384"),
        (&rsa, rsa.sign("sha1", P256, "-sha1"), "is signed with SHA-1", "SHA-256"),
        (&plain, plain.sign("ecdsa-sha1", P256, "-sha1"), "is signed with SHA-1", "SHA-256"),
    ];
    for (ca, pair, says, hint) in cases {
        let etcd = serving(&mut certs, pair);
        fails(scan(&etcd, &ca.cert, &client), says, hint);
    }
}

#[test]
fn client_keys_that_are_not_supported() {
    let mut certs = Certs::new();
    let dir = certs.dir().to_owned();
    let server = certs.server.clone();
    let ca = Authority::new(&dir, "clients", P256);
    let clients = [
        (ca.sign("p521", P521, ""), "has a P-521 key, which is not supported"),
        (ca.sign("short", "rsa:1024", ""), "has an RSA key of 1024 bits"),
    ];
    let etcd = serving(&mut certs, server);
    for (client, says) in clients {
        fails(scan(&etcd, &certs.ca, &client), says, "supported are RSA keys of 2048");
    }
}
