//! Throwaway certificates: a CA, what it signed, and a stranger's CA.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    /// PKCS#8.
    pub key: PathBuf,
}

/// One CA and everything that it signed. The files go when this value goes.
pub struct Certs {
    dir: TempDir,
    pub ca: PathBuf,
    /// For `localhost` and 127.0.0.1; also good as a client, as etcd's peers need.
    pub server: Pair,
    /// For a name and an address that no server of the tests has.
    pub server_elsewhere: Pair,
    /// Common name `root`.
    pub client: Pair,
    /// As `client`, but it ended in 2001.
    pub expired_client: Pair,
    /// A CA that signed none of these but the next.
    pub other_ca: PathBuf,
    /// Signed by the other CA.
    pub stranger: Pair,
}

enum Use {
    Server,
    Client,
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

impl Ca {
    fn sign(
        &self,
        dir: &Path,
        file: &str,
        names: &[&str],
        common_name: &str,
        usage: &Use,
        expired: bool,
    ) -> Pair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Use::Server => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        if expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let pair =
            Pair { cert: dir.join(format!("{file}.crt")), key: dir.join(format!("{file}.key")) };
        fs::write(&pair.cert, cert.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

impl Certs {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let (ours, theirs) = (ca("atrest test CA"), ca("another CA"));
        let (ca, other_ca) = (path.join("ca.crt"), path.join("other-ca.crt"));
        fs::write(&ca, &ours.pem).unwrap();
        fs::write(&other_ca, &theirs.pem).unwrap();
        let here = ["localhost", "127.0.0.1"];
        let away = ["etcd.example.com", "192.0.2.1"];
        Self {
            server: ours.sign(path, "server", &here, "etcd", &Use::Server, false),
            server_elsewhere: ours.sign(path, "elsewhere", &away, "etcd", &Use::Server, false),
            client: ours.sign(path, "client", &[], "root", &Use::Client, false),
            expired_client: ours.sign(path, "expired", &[], "root", &Use::Client, true),
            stranger: theirs.sign(path, "stranger", &[], "root", &Use::Client, false),
            ca,
            other_ca,
            dir,
        }
    }

    /// Where the files are, for tests that add their own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The client's key in SEC1 form (`BEGIN EC PRIVATE KEY`), as openssl writes it.
    pub fn client_key_sec1(&self) -> PathBuf {
        let out = self.dir().join("client-sec1.key");
        openssl(&["ec", "-in", utf8(&self.client.key), "-out", utf8(&out)]);
        assert!(fs::read_to_string(&out).unwrap().contains("BEGIN EC PRIVATE KEY"));
        out
    }

    /// An RSA client certificate for the same CA, its key in PKCS#1 form (`BEGIN RSA PRIVATE KEY`).
    ///
    /// The CA's key never leaves memory, so the request is signed here and only the key is made by
    /// openssl.
    pub fn client_rsa_pkcs1(&self) -> Pair {
        let ca = ca("RSA clients' CA");
        let pkcs8 = self.dir().join("rsa-pkcs8.key");
        let key = self.dir().join("rsa-pkcs1.key");
        let bits = "rsa_keygen_bits:2048";
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits, "-out", utf8(&pkcs8)]);
        openssl(&["rsa", "-traditional", "-in", utf8(&pkcs8), "-out", utf8(&key)]);
        assert!(fs::read_to_string(&key).unwrap().contains("BEGIN RSA PRIVATE KEY"));
        let pair = KeyPair::from_pem(&fs::read_to_string(&pkcs8).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = self.dir().join("rsa.crt");
        fs::write(&cert, params.signed_by(&pair, &ca.issuer).unwrap().pem()).unwrap();
        let bundle = fs::read_to_string(&self.ca).unwrap() + &ca.pem;
        fs::write(&self.ca, bundle).unwrap();
        Pair { cert, key }
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(args: &[&str]) {
    let done = Command::new("openssl")
        .args(args)
        .output()
        .expect("openssl is missing: scripts/setup installs it");
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
