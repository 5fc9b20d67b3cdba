//! Who this server is and who may ask it: a certificate made at start, a random token, and the
//! kubeconfig that has both.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How a kubeconfig of this program begins; one that does not is somebody's own.
const MARK: &str = "# Written by `atrest serve`";

/// Certificate, key and token of one run.
pub struct Identity {
    /// What TLS needs.
    pub tls: Arc<rustls::ServerConfig>,
    ca: String,
    token: Zeroizing<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// There are no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Why a kubeconfig cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It is somebody's.
    #[error("{0} exists and was not written by `atrest serve`")]
    Foreign(String),
    /// The system refuses.
    #[error("cannot write {0}")]
    Io(String, #[source] io::Error),
}

impl Identity {
    /// Makes a CA, a certificate of it for `names` and the loopback names, and a token. The CA's
    /// key is forgotten at once.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn new(names: &[String]) -> Result<Self, IdentityError> {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "atrest serve, made at start");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        all.extend(names.iter().cloned());
        all.sort();
        all.dedup();
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name.push(DnType::CommonName, "atrest serve");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let mut random = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *random).map_err(|_| IdentityError::Random)?;
        let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(*random));
        Ok(Self { tls: Arc::new(tls), ca: ca_pem, token })
    }

    /// Whether an `Authorization` header has the token.
    #[must_use]
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let given = authorization
            .and_then(|h| h.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, token)| token.trim().as_bytes().ct_eq(self.token.as_bytes()).into())
    }

    /// The kubeconfig for this server at `address`.
    fn kubeconfig(&self, address: &SocketAddr) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{MARK}; good until that process ends.\n\
             apiVersion: v1\nkind: Config\ncurrent-context: atrest\n\
             clusters:\n- name: atrest\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {}\n\
             users:\n- name: atrest\n  user:\n    token: {}\n\
             contexts:\n- name: atrest\n  context:\n    cluster: atrest\n    user: atrest\n",
            STANDARD.encode(&self.ca),
            *self.token,
        ))
    }

    /// Writes the kubeconfig, readable by its owner only. One of an earlier run is replaced, any
    /// other file is left alone.
    ///
    /// # Errors
    /// When there is another file, or it cannot be written.
    pub fn write_kubeconfig(
        &self,
        path: &Path,
        address: &SocketAddr,
    ) -> Result<(), KubeconfigError> {
        let name = path.display().to_string();
        let failed = |e| KubeconfigError::Io(name.clone(), e);
        match fs::read(path) {
            Ok(before) if before.starts_with(MARK.as_bytes()) || before.is_empty() => {
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(KubeconfigError::Foreign(name)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        // New: a link that was put there meanwhile is not followed.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(self.kubeconfig(address).as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_admitted() {
        let identity = Identity::new(&[]).unwrap();
        let token = identity.token.to_string();
        assert!(identity.admits(Some(&format!("Bearer {token}"))));
        assert!(identity.admits(Some(&format!("bearer {token}"))));
        for wrong in [None, Some(""), Some("Bearer "), Some(token.as_str()), Some("Basic x")] {
            assert!(!identity.admits(wrong));
        }
        assert_ne!(Identity::new(&[]).unwrap().token.to_string(), token);
    }

    #[test]
    fn somebody_elses_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let identity = Identity::new(&[]).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        identity.write_kubeconfig(&path, &address).unwrap();
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        identity.write_kubeconfig(&path, &address).unwrap();
        fs::write(&path, "apiVersion: v1\n").unwrap();
        let refused = identity.write_kubeconfig(&path, &address);
        assert!(matches!(refused, Err(KubeconfigError::Foreign(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "apiVersion: v1\n");
    }
}
