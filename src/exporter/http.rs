//! The socket: `/metrics`, `/healthz`, `/readyz`, over HTTP/1.1 or HTTPS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Form, Metrics};

/// Connections at once: scrapers are few, and each takes memory.
const CONNECTIONS: usize = 64;
/// How long a client may take for its handshake and for the head of its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Certificates of the socket.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// If given, clients must show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// No thread or runtime is to be had.
    #[error("cannot start the listener")]
    Start(#[source] std::io::Error),
    /// A file is missing or not PEM.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] rustls_pki_types::pem::Error),
    /// A file has no certificate in it.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not go together, or are of no use.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The client authority is of no use.
    #[error("the client certificate authority cannot be used")]
    ClientCa(#[source] rustls::server::VerifierBuilderError),
}

/// A socket that answers with the newest state.
pub struct Listener {
    address: SocketAddr,
    state: Arc<RwLock<Metrics>>,
}

impl Listener {
    /// Listens, in a thread of its own that ends with the program.
    ///
    /// # Errors
    /// When the address cannot be bound or a file cannot be used.
    pub fn start(address: SocketAddr, tls: Option<&Tls>) -> Result<Self, ListenerError> {
        let acceptor = tls.map(acceptor).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ListenerError::Start)?;
        let bind = |e| ListenerError::Bind(address, e);
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let state = Arc::new(RwLock::new(Metrics::default()));
        let shared = Arc::clone(&state);
        std::thread::Builder::new()
            .name("atrest-listen".to_owned())
            .spawn(move || runtime.block_on(accept(listener, acceptor, shared)))
            .map_err(ListenerError::Start)?;
        Ok(Self { address, state })
    }

    /// Where it listens: the port that was found, where port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this state is answered with.
    pub fn publish(&self, metrics: &Metrics) {
        metrics.clone_into(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ListenerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(ListenerError::Certificate)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(ListenerError::Certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(ListenerError::ClientCa)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|e| ListenerError::File(tls.key.clone(), e))?;
    let config = builder
        .with_single_cert(certificates(&tls.cert)?, key)
        .map_err(ListenerError::Certificate)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, ListenerError> {
    let file = |e| ListenerError::File(path.clone(), e);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<_, _>>()
        .map_err(file)?;
    if chain.is_empty() { Err(ListenerError::Empty(path.clone())) } else { Ok(chain) }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<RwLock<Metrics>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match tls {
                None => connection(stream, state).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await
                    {
                        connection(stream, state).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn connection<S>(stream: S, state: Arc<RwLock<Metrics>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &state);
        async move { Ok::<_, Infallible>(answer) }
    });
    // What a client does wrong is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, state: &RwLock<Metrics>) -> Response<Full<Bytes>> {
    let state = state.read().unwrap_or_else(PoisonError::into_inner);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let open = request
                .headers()
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .any(|v| v.contains("application/openmetrics-text"));
            let form = if open { Form::OpenMetrics } else { Form::Prometheus };
            page(StatusCode::OK, form.content_type(), state.text(form))
        }
        "/healthz" => page(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" if state.watching => page(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => page(
            StatusCode::SERVICE_UNAVAILABLE,
            PLAIN,
            "the counts are not known to be those of now\n".to_owned(),
        ),
        "/" => page(StatusCode::OK, PLAIN, "atrest exporter: /metrics\n".to_owned()),
        _ => page(StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned()),
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
