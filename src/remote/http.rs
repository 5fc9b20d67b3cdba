//! The one HTTP client: HTTP/1.1 over rustls, one connection a request, bounded in the time that
//! nothing comes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use zeroize::Zeroizing;

/// How long a connection may take to be made.
const DIAL: Duration = Duration::from_secs(20);
/// The same for a machine's own metadata service, which most machines do not have.
const DIAL_METADATA: Duration = Duration::from_secs(1);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_mins(1);
/// Redirections that are followed for one file.
const REDIRECTS: usize = 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("it is no address of a server")]
    Address,
    #[error("without TLS it is not asked")]
    Plain,
    #[error("nothing came within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the server's certificate cannot be trusted")]
    Certificate(#[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("the server answers with status {0}")]
    Status(u16),
    #[error("it redirects more than {REDIRECTS} times, or to where nothing is fetched from")]
    Redirects,
}

impl HttpError {
    fn kind(&self) -> HttpErrorKind {
        match self {
            Self::Timeout(_) => HttpErrorKind::Timeout,
            Self::Connect(_) => HttpErrorKind::Connect,
            Self::Broken(_) => HttpErrorKind::Interrupted,
            // Trying again would change nothing.
            _ => HttpErrorKind::Unknown,
        }
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    secure: Arc<ClientConfig>,
    allow_plain: bool,
    dial: Duration,
}

impl Client {
    /// Trusts these authorities (PEM), or else the system's.
    pub(super) fn new(roots: Option<&[u8]>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        let system = || crate::source::live::system_roots().unwrap_or_default();
        let pem = roots.map_or_else(system, <[u8]>::to_vec);
        let (added, _) = store
            .add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        if roots.is_some() && added == 0 {
            return Err("the file of certificate authorities holds no certificate".to_owned());
        }
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self { secure: Arc::new(config), allow_plain: false, dial: DIAL })
    }

    /// Sends a request, and waits for the beginning of its answer.
    async fn send<B>(&self, request: Request<B>) -> Result<Response<Patient>, HttpError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let uri = request.uri().clone();
        let host = uri.host().ok_or(HttpError::Address)?.trim_matches(['[', ']']).to_owned();
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if self.allow_plain => true,
            Some("http") => return Err(HttpError::Plain),
            _ => return Err(HttpError::Address),
        };
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let dialing = TcpStream::connect((host.as_str(), port));
        let stream = tokio::time::timeout(self.dial, dialing).await;
        let stream = stream
            .map_err(|_| HttpError::Timeout(self.dial))?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(HttpError::Connect)?;
        if plain {
            return exchange(TokioIo::new(stream), request, &uri).await;
        }
        let name = ServerName::try_from(host).map_err(|_| HttpError::Address)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.secure));
        let shaking = tokio::time::timeout(self.dial, connector.connect(name, stream)).await;
        let stream = shaking.map_err(|_| HttpError::Timeout(self.dial))?.map_err(|e| {
            let of_tls =
                e.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some());
            if of_tls { HttpError::Certificate(e) } else { HttpError::Connect(e) }
        })?;
        exchange(TokioIo::new(stream), request, &uri).await
    }

    /// Asks for one file: its size, if the server says it, and its bytes.
    pub(super) async fn get(&self, target: &str) -> Result<(Option<u64>, Parts), HttpError> {
        let (mut uri, mut user) = split_user(target)?;
        for _ in 0..=REDIRECTS {
            let mut request = Request::get(uri.clone()).body(Empty::new()).map_err(|_| {
                // All that could be wrong with it is its address.
                HttpError::Address
            })?;
            if let Some(user) = &user {
                request.headers_mut().insert(header::AUTHORIZATION, user.clone());
            }
            let answer = self.send(request).await?;
            if answer.status().is_redirection() {
                let to = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                let next = to.and_then(|to| joined(&uri, to)).ok_or(HttpError::Redirects)?;
                if next.authority() != uri.authority() {
                    user = None;
                }
                uri = next;
                continue;
            }
            if !answer.status().is_success() {
                return Err(HttpError::Status(answer.status().as_u16()));
            }
            let size = answer.body().size_hint().exact();
            return Ok((size, Parts(answer.into_body())));
        }
        Err(HttpError::Redirects)
    }
}

/// `https://user:password@host/…` → the address without its user, and what says who asks.
fn split_user(target: &str) -> Result<(Uri, Option<HeaderValue>), HttpError> {
    let rest = target.strip_prefix("https://").ok_or(HttpError::Address)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let uri = format!("https://{host}{slash}{path}").parse().map_err(|_| HttpError::Address)?;
    let user = user.map(|user| {
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(user)));
        let mut value = HeaderValue::from_str(&basic).map_err(|_| HttpError::Address)?;
        value.set_sensitive(true);
        Ok(value)
    });
    Ok((uri, user.transpose()?))
}

/// Where a redirection leads: to TLS only.
fn joined(from: &Uri, to: &str) -> Option<Uri> {
    let uri: Uri = if to.starts_with('/') && !to.starts_with("//") {
        format!("https://{}{to}", from.authority()?).parse().ok()?
    } else {
        to.parse().ok()?
    };
    (uri.scheme_str() == Some("https")).then_some(uri)
}

async fn exchange<I, B>(
    io: I,
    request: Request<B>,
    uri: &Uri,
) -> Result<Response<Patient>, HttpError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut sender, connection) = http1::handshake(io).await.map_err(HttpError::Broken)?;
    // What it ends with, the request is told.
    tokio::spawn(async move { drop(connection.await) });
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(header::HOST)
        && let Some(host) = uri.authority()
        && let Ok(value) = HeaderValue::from_str(host.as_str())
    {
        parts.headers.insert(header::HOST, value);
    }
    if !parts.headers.contains_key(header::USER_AGENT) {
        let own = HeaderValue::from_static(concat!("atrest/", env!("CARGO_PKG_VERSION")));
        parts.headers.insert(header::USER_AGENT, own);
    }
    // A server is sent the path alone (RFC 9112 §3.2.1).
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse().map_err(|_| HttpError::Address)?;
    let answer =
        tokio::time::timeout(SILENCE, sender.send_request(Request::from_parts(parts, body)))
            .await
            .map_err(|_| HttpError::Timeout(SILENCE))?
            .map_err(HttpError::Broken)?;
    Ok(answer.map(|body| Patient { body, silence: Box::pin(tokio::time::sleep(SILENCE)) }))
}

/// A body that fails when nothing comes for long.
pub(super) struct Patient {
    body: Incoming,
    silence: Pin<Box<Sleep>>,
}

impl Body for Patient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            return Poll::Ready(frame.map(|f| f.map_err(HttpError::Broken)));
        }
        self.silence.as_mut().poll(context).map(|()| Some(Err(HttpError::Timeout(SILENCE))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The data of a body, part by part.
pub(super) struct Parts(Patient);

impl Stream for Parts {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.0).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                // What is not data are trailers, which say nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}

fn told(e: HttpError) -> object_store::client::HttpError {
    object_store::client::HttpError::new(e.kind(), e)
}

impl HttpService for Client {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<
        Box<
            dyn Future<Output = Result<HttpResponse, object_store::client::HttpError>>
                + Send
                + 'async_trait,
        >,
    >
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let answer = self.send(request).await.map_err(told)?;
            Ok(answer.map(|body| HttpResponseBody::new(body.map_err(told))))
        })
    }
}

impl HttpConnector for Client {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let says = |key| options.get_config_value(&key);
        let allow_plain = says(ClientConfigKey::AllowHttp).as_deref() == Some("true");
        // Only the metadata services of the clouds are asked with so little patience.
        let metadata = says(ClientConfigKey::ConnectTimeout).is_some_and(|t| t == "1s");
        let dial = if metadata { DIAL_METADATA } else { DIAL };
        Ok(HttpClient::new(Self { allow_plain, dial, ..self.clone() }))
    }
}
