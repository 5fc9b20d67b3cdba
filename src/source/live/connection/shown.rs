//! The certificate that a server shows, whoever signed it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::endpoint::{ListenAddress, MemberEndpoint};

/// Keeps the first certificate, and ends the handshake there: nothing is ever sent to this server.
#[derive(Debug)]
struct Keep {
    seen: OnceLock<Vec<u8>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Keep {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.get_or_init(|| leaf.to_vec());
        Err(rustls::Error::General("it was only looked at".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("it was only looked at".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("it was only looked at".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate, in DER, that the server at `endpoint` shows within `timeout`. Its names and its
/// signature are not looked at, and no key is proved.
///
/// # Errors
/// When there is no TLS server, in words.
pub fn shown(endpoint: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let target = MemberEndpoint::parse(endpoint, true).map_err(|e| e.to_string())?;
    let ListenAddress::Tcp(host, port) = &target.place else {
        return Err("certificates of sockets are not looked at".to_owned());
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let keep = Arc::new(Keep { seen: OnceLock::new(), provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&keep) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    let mut addresses = (host.as_str(), *port).to_socket_addrs().map_err(|e| e.to_string())?;
    let address = addresses.next().ok_or("the name has no address")?;
    let stream = TcpStream::connect_timeout(&address, timeout).map_err(|e| e.to_string())?;
    let ended = handshake(session, stream, timeout);
    match (keep.seen.get(), ended) {
        (Some(leaf), _) => Ok(leaf.clone()),
        (None, Err(e)) => Err(e.to_string()),
        (None, Ok(())) => Err("it showed no certificate".to_owned()),
    }
}

fn handshake(
    mut session: ClientConnection,
    mut stream: TcpStream,
    timeout: Duration,
) -> io::Result<()> {
    let end = Instant::now() + timeout;
    while session.is_handshaking() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        while session.wants_write() {
            session.write_tls(&mut stream)?;
        }
        if session.read_tls(&mut stream)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(e) = session.process_new_packets() {
            // The alert that ends it is owed to the server.
            while session.wants_write() {
                session.write_tls(&mut stream)?;
            }
            return Err(io::Error::other(e));
        }
    }
    Ok(())
}
