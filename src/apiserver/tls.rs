//! An [`Access`]'s certificates → a rustls configuration.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::ApiError;
use super::kubeconfig::Access;
use crate::source::live::{Trust, system_roots};

pub(super) fn config(access: &Access) -> Result<ClientConfig, ApiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ApiError::Setup(e.to_string()))?;
    let builder = if access.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trust::anybody()))
    } else {
        let mut roots = RootCertStore::empty();
        match &access.ca {
            Some(pem) => {
                let (added, _) = roots.add_parsable_certificates(certificates(pem));
                if added == 0 {
                    return Err(ApiError::Setup("the CA bundle holds no certificate".to_owned()));
                }
            }
            None => {
                roots.add_parsable_certificates(certificates(&system_roots().unwrap_or_default()));
            }
        }
        builder.with_root_certificates(roots)
    };
    let Some((cert, key)) = &access.client else { return Ok(builder.with_no_client_auth()) };
    let chain: Vec<_> = certificates(cert).collect();
    // The parser's own error may quote the key, so it is not passed on.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| ApiError::Setup("the client key is no PEM private key".to_owned()))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| ApiError::Setup(format!("the client certificate cannot be used: {e}")))
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> + '_ {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok)
}
