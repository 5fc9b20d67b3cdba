//! `atrest serve` running, and clients for it: a small one for what is compared byte by byte, and
//! the real kubectl.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use super::bin::Bin;

/// A server that ends with this value.
pub struct Served {
    child: Child,
    dir: tempfile::TempDir,
    pub address: String,
    ca: CertificateDer<'static>,
    pub token: String,
    said: Arc<Mutex<String>>,
}

/// What it answered.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} and no JSON: {e}", self.head))
    }
}

impl Served {
    /// Starts `atrest … serve …` and waits until it listens.
    pub fn start(bin: Bin, options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("kubeconfig");
        let mut child = bin.words("serve --kubeconfig").arg(&config).words(options).spawn();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        loop {
            let mut line = String::new();
            assert_ne!(
                stderr.read_line(&mut line).unwrap(),
                0,
                "it ended: {}",
                said.lock().unwrap()
            );
            said.lock().unwrap().push_str(&line);
            if line.contains("kubectl --kubeconfig") {
                break;
            }
        }
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let text = std::fs::read_to_string(&config).unwrap();
        let field = |name: &str| {
            let at = text.find(name).unwrap() + name.len();
            text[at..].lines().next().unwrap().trim().to_owned()
        };
        let pem = base64::engine::general_purpose::STANDARD
            .decode(field("certificate-authority-data:"))
            .unwrap();
        Self {
            child,
            address: field("server: https://"),
            ca: CertificateDer::from_pem_slice(&pem).unwrap(),
            token: field("token:"),
            dir,
            said,
        }
    }

    /// What it has said on stderr.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// An open connection.
    pub fn connect(&self) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        rustls::StreamOwned::new(tls, stream)
    }

    /// One request with the token.
    pub fn ask(&self, method: &str, path: &str, accept: &str) -> Answer {
        let token = format!("Authorization: Bearer {}\r\n", self.token);
        self.ask_as(method, path, accept, &token)
    }

    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "application/json").json()
    }

    /// One request with these headers.
    pub fn ask_as(&self, method: &str, path: &str, accept: &str, headers: &str) -> Answer {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n{headers}Connection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut all = Vec::new();
        // Some servers end TLS without saying so.
        let _ = stream.read_to_end(&mut all);
        let split = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(all[..split].to_vec()).unwrap();
        let mut body = all[split + 4..].to_vec();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { code, head, body }
    }

    /// The real kubectl, with nothing but this server to talk to.
    pub fn kubectl(&self, line: &str) -> Output {
        let mut command = Command::new(kubectl());
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.kubeconfig())
            .args(line.split_whitespace());
        command.output().expect("kubectl starts")
    }

    /// As [`Served::kubectl`]: what it prints when all is well.
    #[track_caller]
    pub fn kubectl_ok(&self, line: &str) -> String {
        let done = self.kubectl(line);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "kubectl {line}: {stderr}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// What the system says of the running process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pieces of a chunked body, put together.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        all.extend(&body[end + 2..end + 2 + size]);
        if size == 0 {
            break;
        }
        body = &body[end + 4 + size..];
    }
    all
}

/// kubectl 1.37, which scripts/setup puts there.
pub fn kubectl() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/kubectl-1.37/kubectl");
    assert!(path.exists(), "this test needs kubectl 1.37; run scripts/setup");
    path
}
