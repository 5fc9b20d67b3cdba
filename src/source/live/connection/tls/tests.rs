//! Handshakes in memory, with a server that shows a certificate of the very file that is trusted.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A certificate that is its own CA, for 127.0.0.1.
fn own(edit: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().der().clone(), key)
}

/// What a client that was `given` certificates makes of a server that shows one.
fn handshake(
    given: &[CertificateDer<'static>],
    shown: &CertificateDer<'static>,
    key: &KeyPair,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signer = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = rustls::crypto::ring::sign::any_supported_type(&signer).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        // Unlike `with_single_cert`, this asks nobody whether the key is the certificate's.
        .with_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(
            vec![shown.clone()],
            signer,
        )))));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(given.iter().cloned());
    let verifier = Arc::new(Trust {
        roots: Arc::new(roots),
        given: given.to_vec(),
        verify: Verify::Full,
        algorithms: provider.signature_verification_algorithms,
    });
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn refused(result: Result<(), rustls::Error>) -> CertificateError {
    match result {
        Err(rustls::Error::InvalidCertificate(e)) => e,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_that_is_its_own_ca_serves() {
    let (cert, key) = own(|_| {});
    handshake(std::slice::from_ref(&cert), &cert, &key).unwrap();
    let (other, _) = own(|_| {});
    handshake(&[other.clone(), cert.clone()], &cert, &key).unwrap();
    let for_servers = |p: &mut CertificateParams| {
        p.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    };
    let (cert, key) = own(for_servers);
    handshake(std::slice::from_ref(&cert), &cert, &key).unwrap();
    let any =
        |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let (cert, key) = own(any);
    handshake(std::slice::from_ref(&cert), &cert, &key).unwrap();
}

#[test]
fn nothing_weaker_does() {
    let (cert, key) = own(|_| {});
    let (twin, twins_key) = own(|_| {});
    // Another certificate of the same names.
    refused(handshake(std::slice::from_ref(&twin), &cert, &key));
    // The right one, shown by somebody who has not its key.
    let stolen = refused(handshake(std::slice::from_ref(&cert), &cert, &twins_key));
    assert_eq!(stolen, CertificateError::BadSignature);
    let times = |from, until| {
        move |p: &mut CertificateParams| {
            (p.not_before, p.not_after) =
                (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        }
    };
    let alone = |(cert, key): (CertificateDer<'static>, KeyPair)| {
        refused(handshake(std::slice::from_ref(&cert), &cert, &key))
    };
    assert_eq!(alone(own(times(2000, 2001))), CertificateError::Expired);
    assert_eq!(alone(own(times(4000, 4001))), CertificateError::NotValidYet);
    let for_clients = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_eq!(alone(own(for_clients)), CertificateError::InvalidPurpose);
    let elsewhere = |p: &mut CertificateParams| {
        p.subject_alt_names =
            CertificateParams::new(vec!["192.0.2.1".to_owned()]).unwrap().subject_alt_names;
    };
    assert!(matches!(alone(own(elsewhere)), CertificateError::NotValidForNameContext { .. }));
    let nameless = |p: &mut CertificateParams| p.subject_alt_names.clear();
    assert!(matches!(alone(own(nameless)), CertificateError::NotValidForNameContext { .. }));
}
