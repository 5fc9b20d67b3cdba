//! HTTP/1.1 over TLS to one API server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::error::ApiError;
use super::kubeconfig::Access;
use super::tls;

/// Most bytes of an answer: a page of 500 objects' metadata is a few megabytes, `/metrics` of a
/// large cluster some ten.
const LIMIT: usize = 64 << 20;

/// A request.
#[derive(Clone)]
pub struct Request<'a> {
    /// `GET`, `PATCH`, …
    pub method: Method,
    /// Path and query below the server's address.
    pub path: &'a str,
    /// `Accept`.
    pub accept: &'a str,
    /// Body and its type.
    pub body: Option<(&'a str, Bytes)>,
}

/// An answer, whatever its status. Its body may hold a secret, so it is wiped.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The reason and message of a `metav1.Status`, as far as it is one.
    #[must_use]
    pub fn said(&self) -> (Option<String>, Option<String>) {
        let status: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if status["kind"] != "Status" {
            return (None, None);
        }
        let text = |name: &str| status[name].as_str().map(str::to_owned);
        (text("reason"), text("message"))
    }
}

/// Opens connections to one API server.
#[derive(Clone)]
pub struct Client {
    access: Arc<Access>,
    secure: Option<Arc<ClientConfig>>,
    host: String,
    port: u16,
    base: String,
    timeout: Duration,
}

impl Client {
    /// Prepares connections; makes none.
    ///
    /// # Errors
    /// When the address or a certificate cannot be used.
    pub fn new(access: Access, timeout: Duration) -> Result<Self, ApiError> {
        let wrong = || ApiError::Address(access.server.clone());
        let text = if access.server.contains("://") {
            access.server.clone()
        } else {
            format!("https://{}", access.server)
        };
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let secure = match uri.scheme_str() {
            Some("https") => Some(Arc::new(tls::config(&access)?)),
            Some("http") => None,
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(if secure.is_some() { 443 } else { 80 });
        Ok(Self {
            secure,
            // As an address, an IPv6 host has no brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            base: uri.path().trim_end_matches('/').to_owned(),
            timeout,
            access: Arc::new(access),
        })
    }

    /// Where it connects to.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.access.server
    }

    fn server_owned(&self) -> String {
        self.access.server.clone()
    }

    /// A new connection. Behind a load balancer each may lead to another server.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn connect(&self) -> Result<Link, ApiError> {
        let connecting = tokio::time::timeout(self.timeout, self.dial());
        let sender = connecting.await.unwrap_or_else(|_| {
            Err(ApiError::Timeout { server: self.server_owned(), time: self.timeout })
        })?;
        Ok(Link { client: self.clone(), sender })
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let cannot = |cause| ApiError::Connect { server: self.server_owned(), cause };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(cannot)?;
        stream.set_nodelay(true).map_err(cannot)?;
        let Some(config) = &self.secure else { return self.handshake(TokioIo::new(stream)).await };
        let name = self.access.server_name.as_ref().unwrap_or(&self.host);
        let name = ServerName::try_from(name.clone())
            .map_err(|_| ApiError::Address(self.server_owned()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name, stream).await.map_err(cannot)?;
        self.handshake(TokioIo::new(stream)).await
    }

    async fn handshake<I>(&self, io: I) -> Result<SendRequest<Full<Bytes>>, ApiError>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(io).await.map_err(|e| self.broken(e))?;
        // What it ends with, the request that needed it is told.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn broken(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
        ApiError::Broken { server: self.server_owned(), cause: cause.into() }
    }

    fn host_header(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// One connection: requests go one after the other. A broken one is made anew.
pub struct Link {
    client: Client,
    sender: SendRequest<Full<Bytes>>,
}

impl Link {
    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// When none comes in time. Whether a write happened is not known then.
    pub async fn send(&mut self, request: &Request<'_>) -> Result<Answer, ApiError> {
        // A server closes what has been idle.
        if self.sender.ready().await.is_err() {
            self.sender = self.client.connect().await?.sender;
        }
        let time = self.client.timeout;
        let Ok(answer) = tokio::time::timeout(time, self.exchange(request)).await else {
            // What comes late must not be taken for the answer to something else.
            self.sender = self.client.connect().await?.sender;
            return Err(ApiError::Timeout { server: self.client.server_owned(), time });
        };
        answer
    }

    async fn exchange(&mut self, request: &Request<'_>) -> Result<Answer, ApiError> {
        let client = self.client.clone();
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}{}", client.base, request.path))
            .header(header::HOST, client.host_header())
            .header(header::ACCEPT, request.accept)
            .header(header::USER_AGENT, concat!("atrest/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &client.access.token {
            let bearer = Zeroizing::new(format!("Bearer {}", token.as_str()));
            let mut value = HeaderValue::from_str(&bearer)
                .map_err(|_| ApiError::Setup("the token is no text of a header".to_owned()))?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let (kind, body) = request.body.clone().map_or((None, Bytes::new()), |(k, b)| (Some(k), b));
        if let Some(kind) = kind {
            builder = builder.header(header::CONTENT_TYPE, kind);
        }
        let message = builder.body(Full::new(body)).map_err(|e| client.broken(e))?;
        let response = self.sender.send_request(message).await.map_err(|e| client.broken(e))?;
        let status = response.status();
        let after = response.headers().get(header::RETRY_AFTER);
        let retry_after =
            after.and_then(|v| v.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        let collected = Limited::new(response.into_body(), LIMIT)
            .collect()
            .await
            .map_err(|e| client.broken(e))?;
        Ok(Answer { status, retry_after, body: Zeroizing::new(collected.to_bytes().into()) })
    }

    /// As [`Link::send`] of a `GET`, with any other status than 200 as an error.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get(&mut self, path: &str, accept: &str) -> Result<Answer, ApiError> {
        let request = Request { method: Method::GET, path, accept, body: None };
        let answer = self.send(&request).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(ApiError::Status {
            server: self.client.server_owned(),
            status: answer.status.as_u16(),
            what: format!("GET {}", path.split('?').next().unwrap_or(path)),
            message: answer.said().1,
        })
    }
}
