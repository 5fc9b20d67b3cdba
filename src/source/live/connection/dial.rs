//! Connecting to one member.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{ListenAddress, MemberEndpoint};
use super::facts::{Facts, tls_error};
pub(super) use super::tls::Speaks;
use super::tls::Tls;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::source::live) enum DialError {
    #[error("the name cannot be resolved")]
    Resolve(#[source] io::Error),
    #[error("{}", .0)]
    Connect(io::Error),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("the TLS handshake was not answered within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("the host is no name that a certificate can have")]
    ServerName,
    #[error("{}", .0)]
    Tls(rustls::Error),
    #[error("the connection was closed during the TLS handshake")]
    Handshake(#[source] io::Error),
}

/// The last error of a chain: the one that says what happened.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// An error of the system once more: it cannot be cloned.
pub(super) fn copy(e: &io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(e.kind(), e.to_string()),
    }
}

/// Both kinds of stream.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that records facts.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    facts: Arc<Facts>,
    /// The first bytes are recorded already.
    begun: bool,
}

impl Connection {
    /// What a failed write or flush comes to. A server that ends the connection may have said why
    /// before it did (with TLS 1.3 that a client certificate is missing or wrong). Nobody would
    /// read that after an error, so the bytes are dropped and reading finds the end.
    fn unsent(&self, error: io::Error) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        if !self.begun && matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) {
            return Ok(());
        }
        self.facts.failed(&error);
        Err(error)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(())) if buf.filled().len() == before => {
                if buf.remaining() > 0 {
                    self.facts.closed();
                }
            }
            Poll::Ready(Ok(())) => {
                let bytes = &buf.filled()[before..];
                self.facts.count(bytes.len());
                if !self.begun {
                    self.begun = true;
                    self.facts.begun(bytes);
                }
            }
            Poll::Ready(Err(e)) => self.facts.failed(e),
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        match result {
            Poll::Ready(Err(e)) => Poll::Ready(self.unsent(e).map(|()| buf.len())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(self.unsent(e)),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects, TLS included, within `timeout` for each of the two steps.
pub(super) async fn dial(
    target: &MemberEndpoint,
    tls: Option<&Tls>,
    timeout: Duration,
    facts: Arc<Facts>,
    speaks: Speaks,
) -> Result<Connection, DialError> {
    let plain: Box<dyn Stream> = tokio::time::timeout(timeout, connect(&target.place))
        .await
        .map_err(|_| DialError::Timeout(timeout))??;
    let stream: Box<dyn Stream> = match tls.filter(|_| target.secure) {
        None => plain,
        Some(tls) => {
            let name = match &target.place {
                ListenAddress::Tcp(host, _) => {
                    ServerName::try_from(host.clone()).map_err(|_| DialError::ServerName)?
                }
                ListenAddress::Unix(_) => {
                    ServerName::try_from("localhost").map_err(|_| DialError::ServerName)?
                }
            };
            let connector = tokio_rustls::TlsConnector::from(tls.watched(&facts, speaks));
            let stream = tokio::time::timeout(timeout, connector.connect(name, plain))
                .await
                .map_err(|_| DialError::HandshakeTimeout(timeout))?
                .map_err(|e| match tls_error(&e) {
                    Some(tls) => DialError::Tls(tls.clone()),
                    None => DialError::Handshake(e),
                })?;
            Box::new(stream)
        }
    };
    Ok(Connection { stream, facts, begun: false })
}

async fn connect(place: &ListenAddress) -> Result<Box<dyn Stream>, DialError> {
    match place {
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(DialError::Connect)?;
            Ok(Box::new(stream))
        }
        ListenAddress::Tcp(host, port) => {
            let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), *port))
                .await
                .map_err(DialError::Resolve)?
                .collect();
            let mut last = None;
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // Requests are small and waited for.
                        stream.set_nodelay(true).map_err(DialError::Connect)?;
                        return Ok(Box::new(stream));
                    }
                    Err(e) => last = Some(e),
                }
            }
            let none = || io::Error::new(io::ErrorKind::NotFound, "no address");
            Err(last.map_or_else(|| DialError::Resolve(none()), DialError::Connect))
        }
    }
}
