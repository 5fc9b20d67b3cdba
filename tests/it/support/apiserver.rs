//! An HTTPS server that stands for kube-apiserver: what it answers, a test says.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certs::Certs;

/// The token that the server takes; a client certificate of the CA will do too.
pub const TOKEN: &str = "made-up-token";

/// What came.
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The number of the connection, from 0.
    pub connection: usize,
}

/// What goes back.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A `metav1.Status`, as every refusal is one.
    pub fn status(status: u16, reason: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": status,
        });
        Self::new(status, body.to_string())
    }

    pub fn with(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A running server. It ends with the test.
pub struct ApiServer {
    pub url: String,
    pub requests: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl ApiServer {
    pub fn start(
        certs: &Certs,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::started(certs, false, handler)
    }

    /// One that answers everybody.
    pub fn open(
        certs: &Certs,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::started(certs, true, handler)
    }

    fn started(
        certs: &Certs,
        open: bool,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&certs.server.cert)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(&certs.server.key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&certs.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (config, handler): (_, Arc<Handler>) = (Arc::new(config), Arc::new(handler));
        let (requests, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, over) = (Arc::clone(&requests), Arc::clone(&end));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (config, handler) = (Arc::clone(&config), Arc::clone(&handler));
                let count = Arc::clone(&count);
                // A connection that breaks is the client's trouble.
                std::thread::spawn(move || {
                    serve(stream, config, &*handler, &count, (number, open))
                });
            }
        });
        Self { url: format!("https://127.0.0.1:{}", address.port()), requests, end, address }
    }

    /// A kubeconfig for a user with the token.
    pub fn kubeconfig(&self, certs: &Certs, dir: &Path) -> PathBuf {
        self.written(certs, dir, &format!("{{token: {TOKEN}}}"))
    }

    /// A kubeconfig for a user with a client certificate.
    pub fn kubeconfig_with_certificate(&self, certs: &Certs, dir: &Path) -> PathBuf {
        let (cert, key) = (certs.client.cert.display(), certs.client.key.display());
        self.written(certs, dir, &format!("{{client-certificate: {cert}, client-key: {key}}}"))
    }

    fn written(&self, certs: &Certs, dir: &Path, user: &str) -> PathBuf {
        let path = dir.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts:\n\
             - {{name: it, context: {{cluster: it, user: it}}}}\nclusters:\n\
             - name: it\n  cluster: {{server: '{}', certificate-authority: '{}'}}\nusers:\n\
             - {{name: it, user: {user}}}\n",
            self.url,
            certs.ca.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // So that the accepting thread sees it.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    handler: &Handler,
    count: &AtomicUsize,
    (connection, open): (usize, bool),
) -> io::Result<()> {
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let known = open
            || stream.get_ref().conn.peer_certificates().is_some()
            || headers.get("authorization").is_some_and(|a| *a == format!("Bearer {TOKEN}"));
        let request = Request { method, path, headers, body, connection };
        let response = if known {
            count.fetch_add(1, Ordering::SeqCst);
            handler(&request)
        } else {
            Response::status(401, "Unauthorized", "Unauthorized")
        };
        let length = ("content-length", response.body.len().to_string());
        let headers = response.headers.iter().chain([&length]);
        let headers: Vec<String> =
            headers.map(|(name, value)| format!("{name}: {value}")).collect();
        let head = format!("HTTP/1.1 {} x\r\n{}\r\n\r\n", response.status, headers.join("\r\n"));
        let out = stream.get_mut();
        out.write_all(head.as_bytes())?;
        out.write_all(&response.body)?;
        out.flush()?;
    }
}
