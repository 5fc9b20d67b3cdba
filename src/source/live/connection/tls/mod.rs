//! Certificates and keys → a rustls configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::LiveOptions;
use super::facts::Facts;
use super::usable::unusable;
use crate::certificate::Certificate;
use crate::source::TlsFileError;

/// Where distributions keep the system's certificate authorities (Go `crypto/x509/root_linux.go`
/// lists the same places).
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// gRPC's.
    Http2,
    /// What a member's metrics are told in.
    Http1,
}

/// What TLS connections are made with.
pub(super) struct Tls {
    /// Protocol configuration, client certificate included.
    config: ClientConfig,
    verifier: Arc<dyn ServerCertVerifier>,
    /// The certificates that servers are verified against, if a file is given.
    pub given: Vec<CertificateDer<'static>>,
    /// The client certificate's file, if one is given, and what it holds.
    pub client: Option<(PathBuf, Option<Certificate>)>,
    /// The file that servers are verified against, if one is given.
    pub ca: Option<PathBuf>,
}

impl Tls {
    /// Reads the files that `options` name.
    pub fn new(options: &LiveOptions) -> Result<Self, TlsFileError> {
        let verify = if options.insecure_skip_tls_verify { Verify::Nothing } else { Verify::Full };
        let files = TlsFiles {
            cacert: options.cacert.as_deref(),
            cert: options.cert.as_deref(),
            key: options.key.as_deref(),
        };
        Self::of(files, verify)
    }

    /// Reads these files.
    pub fn of(files: TlsFiles<'_>, verify: Verify) -> Result<Self, TlsFileError> {
        let (given, chain) = (files.given()?, files.chain()?);
        let verifier = files.verifier(verify, &given)?;
        let config = files.with(Arc::clone(&verifier), &chain)?;
        let first = chain.first().and_then(|c| Certificate::from_der(c));
        let client = files.cert.map(|cert| (cert.to_owned(), first));
        Ok(Self { config, verifier, given, client, ca: files.cacert.map(Path::to_owned) })
    }

    /// The configuration for one connection, whose facts learn which certificate the server shows.
    pub fn watched(&self, facts: &Arc<Facts>, speaks: Speaks) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        config.alpn_protocols = match speaks {
            Speaks::Http2 => vec![b"h2".to_vec()],
            Speaks::Http1 => Vec::new(),
        };
        let (verifier, facts) = (Arc::clone(&self.verifier), Arc::clone(facts));
        config.dangerous().set_certificate_verifier(Arc::new(Witness { verifier, facts }));
        Arc::new(config)
    }
}

/// Files that TLS connections are made with.
#[derive(Clone, Copy, Default)]
pub(crate) struct TlsFiles<'f> {
    /// PEM bundle that servers are verified against; the system's if none.
    pub cacert: Option<&'f Path>,
    /// PEM client certificate.
    pub cert: Option<&'f Path>,
    /// PEM client key.
    pub key: Option<&'f Path>,
}

/// What of a server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// That the server has its key.
    Nothing,
    /// That it is of a known authority, whatever name it has.
    #[cfg_attr(not(feature = "datastore"), allow(dead_code))]
    Authority,
    /// That it is of a known authority and of this host.
    Full,
}

impl TlsFiles<'_> {
    /// Reads them.
    #[cfg(feature = "datastore")]
    pub fn config(self, verify: Verify) -> Result<ClientConfig, TlsFileError> {
        let verifier = self.verifier(verify, &self.given()?)?;
        self.with(verifier, &self.chain()?)
    }

    /// The certificates that servers are verified against, if a file is given.
    fn given(self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        self.cacert.map_or_else(|| Ok(Vec::new()), |path| certificates(path, "the CA bundle"))
    }

    /// The client's certificate and what leads from it to its authority.
    fn chain(self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        match (self.cert, self.key) {
            (None, None) => Ok(Vec::new()),
            (Some(cert), Some(_)) => certificates(cert, "the client certificate"),
            (Some(_), None) => Err(TlsFileError::KeyMissing),
            (None, Some(_)) => Err(TlsFileError::CertificateMissing),
        }
    }

    fn verifier(
        self,
        verify: Verify,
        given: &[CertificateDer<'static>],
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsFileError> {
        if verify == Verify::Nothing {
            return Ok(Arc::new(Trust::anybody()));
        }
        let roots = Arc::new(roots(self.cacert, given)?);
        Ok(Arc::new(Trust { verify, roots, given: given.to_vec(), ..Trust::anybody() }))
    }

    fn with(
        self,
        verifier: Arc<dyn ServerCertVerifier>,
        chain: &[CertificateDer<'static>],
    ) -> Result<ClientConfig, TlsFileError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsFileError::Setup(e.into()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (Some(cert), Some(key)) = (self.cert, self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let kind = chain.first().and_then(|c| unusable(&Certificate::from_der(c)?));
        builder.with_client_auth_cert(chain.to_vec(), private_key(key)?).map_err(|e| {
            let (key, cert) = (key.to_owned(), cert.to_owned());
            match e {
                rustls::Error::InconsistentKeys(_) => TlsFileError::Mismatch { key, cert },
                e => match kind {
                    Some(kind) => TlsFileError::Unsupported { cert, kind },
                    None => TlsFileError::Unusable { key, cert, cause: e.into() },
                },
            }
        })
    }

    /// The authorities that servers are verified against, those alone that can be used.
    #[cfg(feature = "datastore")]
    pub fn authorities(self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let usable = |c: &CertificateDer<'static>| RootCertStore::empty().add(c.clone()).is_ok();
        let Some(path) = self.cacert else {
            let system = system_roots().unwrap_or_default();
            let all = CertificateDer::pem_slice_iter(&system).filter_map(Result::ok);
            return Ok(all.filter(usable).collect());
        };
        let mut all = self.given()?;
        all.retain(usable);
        if all.is_empty() {
            return Err(TlsFileError::NoAuthority { path: path.to_owned() });
        }
        Ok(all)
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|cause| TlsFileError::Unreadable {
        what,
        path: path.to_owned(),
        cause,
    })
}

fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let bytes = read(path, what)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsFileError::Damaged { what, path: path.to_owned() })?;
    if chain.is_empty() {
        return Err(TlsFileError::NoCertificate { what, path: path.to_owned() });
    }
    Ok(chain)
}

/// PKCS#8, PKCS#1 and SEC1 are told apart by their PEM labels.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    let bytes = zeroize::Zeroizing::new(read(path, "the client key")?);
    let encrypted = |needle: &[u8]| memchr::memmem::find(&bytes, needle).is_some();
    if encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") || encrypted(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsFileError::Passphrase { path: path.to_owned() });
    }
    // The parser's own error may quote the file, so it is not passed on.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsFileError::NoKey { path: path.to_owned() })
}

fn roots(
    cacert: Option<&Path>,
    given: &[CertificateDer<'static>],
) -> Result<RootCertStore, TlsFileError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = cacert {
        let (added, _) = store.add_parsable_certificates(given.iter().cloned());
        if added == 0 {
            return Err(TlsFileError::NoAuthority { path: path.to_owned() });
        }
        return Ok(store);
    }
    if let Some(bytes) = system_roots() {
        store.add_parsable_certificates(
            CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok),
        );
    }
    Ok(store)
}

/// The system's certificate authorities, as PEM.
pub(crate) fn system_roots() -> Option<Vec<u8>> {
    SYSTEM_ROOTS.iter().find_map(|p| std::fs::read(p).ok())
}

/// Verifies servers as rustls does, and as Go does where a server shows one of the very
/// certificates that are given: that one needs no signature of another (Go `crypto/x509/verify.go`:
/// `Verify`). So a certificate that is its own CA serves, which webpki refuses. Whatever else is
/// verified, the server must hold its key.
#[derive(Debug)]
pub(crate) struct Trust {
    verify: Verify,
    roots: Arc<RootCertStore>,
    given: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    /// Any certificate will do.
    pub(crate) fn anybody() -> Self {
        let provider = rustls::crypto::ring::default_provider();
        Self {
            verify: Verify::Nothing,
            roots: Arc::new(RootCertStore::empty()),
            given: Vec::new(),
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

/// Whether a certificate that is trusted by itself may serve now.
fn may_serve(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let read = Certificate::from_der(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < read.starts.as_second() {
        return Err(CertificateError::NotValidYet);
    }
    if now > read.ends.as_second() {
        return Err(CertificateError::Expired);
    }
    match read.is_for_servers() {
        Some(true) => Ok(()),
        Some(false) => Err(CertificateError::InvalidPurpose),
        None => Err(CertificateError::BadEncoding),
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.verify == Verify::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        // Refuses what is not of version 3, and extensions that must be known and are not.
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.given.contains(end_entity) {
            may_serve(end_entity, now)?;
        } else {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if self.verify == Verify::Full {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Remembers the certificate that a server shows, and leaves the rest to another.
#[derive(Debug)]
struct Witness {
    verifier: Arc<dyn ServerCertVerifier>,
    facts: Arc<Facts>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.facts.shown(end_entity.clone().into_owned());
        let verifier = &self.verifier;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
