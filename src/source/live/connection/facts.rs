//! What a connection shows, remembered for when it fails.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustls_pki_types::CertificateDer;

/// What a connection showed about itself; read when a request on it fails.
#[derive(Debug, Default)]
pub(super) struct Facts {
    inner: Mutex<Inner>,
    /// Bytes received so far.
    received: AtomicU64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    /// The first bytes received, at most eight.
    pub first: Vec<u8>,
    /// The TLS error that ended the connection.
    pub tls: Option<rustls::Error>,
    /// The operating system's error that ended the connection.
    pub io: Option<io::ErrorKind>,
    /// The server closed the connection.
    pub closed: bool,
    /// The certificate that the server has shown.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Facts {
    /// What is known so far.
    pub fn get(&self) -> Inner {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// So many bytes came.
    pub fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The server closed the connection.
    pub fn closed(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The server shows this certificate.
    pub fn shown(&self, certificate: CertificateDer<'static>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.certificate = Some(certificate);
    }

    /// The first bytes came.
    pub fn begun(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let room = 8usize.saturating_sub(inner.first.len());
        inner.first.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The connection failed.
    pub fn failed(&self, error: &io::Error) {
        let tls = tls_error(error).cloned();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tls = inner.tls.take().or(tls);
        inner.io = Some(error.kind());
    }
}

/// The TLS error inside an I/O error.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
