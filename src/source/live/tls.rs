//! Certificates and keys → a rustls configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::LiveOptions;
use super::der::Validity;
use crate::source::SourceError;

/// Where distributions keep the system's certificate authorities (Go `crypto/x509/root_linux.go`
/// lists the same places).
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What TLS connections are made with.
pub(super) struct Tls {
    /// Protocol configuration, client certificate included.
    pub config: Arc<ClientConfig>,
    /// The client certificate's file and validity, if one is given.
    pub client: Option<(PathBuf, Option<Validity>)>,
    /// The file that servers are verified against, if one is given.
    pub ca: Option<PathBuf>,
}

impl Tls {
    /// Reads the files that `options` name.
    pub fn new(options: &LiveOptions) -> Result<Self, SourceError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| SourceError::new("TLS cannot be set up").because(e))?;
        let builder = if options.insecure_skip_tls_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnything::new(&provider)))
        } else {
            builder.with_root_certificates(roots(options.cacert.as_deref())?)
        };
        let (mut config, client) = match (&options.cert, &options.key) {
            (None, None) => (builder.with_no_client_auth(), None),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert, "the client certificate")?;
                let validity = chain.first().and_then(|c| Validity::of(c));
                let config = builder.with_client_auth_cert(chain, private_key(key)?).map_err(
                    |e| match e {
                        rustls::Error::InconsistentKeys(_) => SourceError::new(format!(
                            "the client key {} does not belong to the certificate {}",
                            key.display(),
                            cert.display()
                        ))
                        .hint("give --cert and --key of the same pair"),
                        e => SourceError::new(format!(
                            "the client certificate {} and key {} cannot be used",
                            cert.display(),
                            key.display()
                        ))
                        .because(e)
                        .hint("supported are RSA, ECDSA P-256 and P-384, and Ed25519 keys"),
                    },
                )?;
                (config, Some((cert.clone(), validity)))
            }
            (Some(_), None) => {
                return Err(SourceError::new("--cert is given without --key")
                    .hint("a client certificate is used together with its private key"));
            }
            (None, Some(_)) => {
                return Err(SourceError::new("--key is given without --cert")
                    .hint("a client key is used together with its certificate"));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config), client, ca: options.cacert.clone() })
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, SourceError> {
    std::fs::read(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "run as a user who may read it, usually root".to_owned()
            }
            std::io::ErrorKind::NotFound => "check the path".to_owned(),
            _ => "it must be a readable PEM file".to_owned(),
        };
        SourceError::new(format!("cannot read {what} {}", path.display())).because(e).hint(hint)
    })
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let bytes = read(path, what)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| {
            SourceError::new(format!("{what} {} is damaged PEM", path.display()))
                .hint("a certificate begins with -----BEGIN CERTIFICATE-----")
        })?;
    if chain.is_empty() {
        return Err(SourceError::new(format!("{what} {} holds no certificate", path.display()))
            .hint("a PEM file with -----BEGIN CERTIFICATE----- is needed"));
    }
    Ok(chain)
}

/// PKCS#8, PKCS#1 and SEC1 are told apart by their PEM labels.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SourceError> {
    let bytes = zeroize::Zeroizing::new(read(path, "the client key")?);
    let encrypted = |needle: &[u8]| memchr::memmem::find(&bytes, needle).is_some();
    if encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") || encrypted(b"Proc-Type: 4,ENCRYPTED") {
        return Err(SourceError::new(format!(
            "the client key {} is protected by a passphrase",
            path.display()
        ))
        .hint("etcd clients need an unprotected key; openssl pkey removes the passphrase"));
    }
    // The parser's own error may quote the file, so it is not passed on.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        SourceError::new(format!("the client key {} holds no private key", path.display()))
            .hint("a PEM file in PKCS#8, PKCS#1 or SEC1 form is needed")
    })
}

fn roots(cacert: Option<&Path>) -> Result<RootCertStore, SourceError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = cacert {
        let (added, _) = store.add_parsable_certificates(certificates(path, "the CA bundle")?);
        if added == 0 {
            return Err(SourceError::new(format!(
                "the CA bundle {} holds no usable certificate",
                path.display()
            ))
            .hint("give the CA that signed the etcd server's certificate"));
        }
        return Ok(store);
    }
    if let Some(bytes) = SYSTEM_ROOTS.iter().find_map(|p| std::fs::read(p).ok()) {
        store.add_parsable_certificates(
            CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok),
        );
    }
    Ok(store)
}

/// `--insecure-skip-tls-verify`: any certificate will do, but the server must hold its key.
#[derive(Debug)]
struct AcceptAnything(WebPkiSupportedAlgorithms);

impl AcceptAnything {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
