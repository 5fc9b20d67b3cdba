//! A real KMS plugin over gRPC, for tests only: its keys are the hashes of their names.
//!
//! It wraps a data key as `nonce (12 bytes) ‖ AES-256-GCM(SHA-256(key ID), data key)` without
//! associated data, like the plugins behind the corpus. Also built as an example program, so that
//! scripts can run it.

// Test code: a panic is a failed test. The example uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1beta1 {
    include!(concat!(env!("OUT_DIR"), "/server/v1beta1.rs"));
}

#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v2 {
    include!(concat!(env!("OUT_DIR"), "/server/v2.rs"));
}

/// The annotation that the plugin returns and wants back.
const ANNOTATION: (&str, &[u8]) = ("version.example.com", b"1");

/// What the plugin says; tests change it while it runs.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Key that wraps: v2's key ID; v1's only key.
    pub key_id: String,
    /// v2: the key ID that Encrypt claims, where it differs from Status.
    pub encrypt_key_id: Option<String>,
    /// v2: healthz of Status.
    pub healthz: String,
    /// Version of Status (v2).
    pub v2_version: String,
    /// Answer of Version (v1).
    pub v1_version: String,
    /// How long each call takes.
    pub delay: Duration,
    /// Encrypt refuses everything after so many calls.
    pub encrypts: usize,
    /// v2: key IDs that Decrypt has no more.
    pub destroyed: Vec<String>,
    /// v2: serve the package name of Kubernetes 1.25 instead.
    pub alpha: bool,
}

impl Behaviour {
    /// A healthy plugin.
    pub fn new(key_id: &str) -> Self {
        Self {
            key_id: key_id.to_owned(),
            encrypt_key_id: None,
            healthz: "ok".to_owned(),
            v2_version: "v2".to_owned(),
            v1_version: "v1beta1".to_owned(),
            delay: Duration::ZERO,
            encrypts: usize::MAX,
            destroyed: Vec::new(),
            alpha: false,
        }
    }
}

/// What the plugin was asked.
#[derive(Debug, Default)]
pub struct Counts {
    pub status: AtomicUsize,
    pub encrypt: AtomicUsize,
    pub decrypt: AtomicUsize,
    in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
}

/// The service behind both versions.
#[derive(Clone, Debug)]
pub struct Service {
    pub behaviour: Arc<Mutex<Behaviour>>,
    pub counts: Arc<Counts>,
}

fn cipher(key_id: &str) -> Aes256Gcm {
    Aes256Gcm::new(&Sha256::digest(key_id))
}

/// Wraps a data key under a key ID.
pub fn wrap(key_id: &str, data_key: &[u8]) -> Vec<u8> {
    // A counter is random enough for keys that are public.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut nonce = [0; 12];
    let count = NEXT.fetch_add(1, Ordering::Relaxed) as u64;
    nonce[..8].copy_from_slice(&count.to_be_bytes());
    let mut out = nonce.to_vec();
    out.extend(cipher(key_id).encrypt(&Nonce::from(nonce), data_key).unwrap());
    out
}

/// Unwraps a data key.
pub fn unwrap(key_id: &str, wrapped: &[u8]) -> Result<Vec<u8>, Status> {
    let (nonce, sealed) =
        wrapped.split_first_chunk::<12>().ok_or_else(|| Status::invalid_argument("too short"))?;
    cipher(key_id)
        .decrypt(&Nonce::from(*nonce), sealed)
        .map_err(|_| Status::invalid_argument("not wrapped with this key"))
}

impl Service {
    pub fn new(behaviour: Behaviour) -> Self {
        Self { behaviour: Arc::new(Mutex::new(behaviour)), counts: Arc::default() }
    }

    fn now(&self) -> Behaviour {
        self.behaviour.lock().unwrap().clone()
    }

    /// Counts a call of Encrypt, and refuses it when there were enough.
    fn encrypting(&self) -> Result<(), Status> {
        let before = self.counts.encrypt.fetch_add(1, Ordering::SeqCst);
        let enough = before >= self.now().encrypts;
        if enough { Err(Status::unavailable("the vault is sealed")) } else { Ok(()) }
    }

    async fn work<T>(&self, answer: impl FnOnce(&Behaviour) -> T) -> T {
        let behaviour = self.now();
        let counts = &self.counts;
        let running = counts.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most_in_flight.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(behaviour.delay).await;
        counts.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer(&behaviour)
    }
}

#[tonic::async_trait]
impl v1beta1::key_management_service_server::KeyManagementService for Service {
    async fn version(
        &self,
        _: Request<v1beta1::VersionRequest>,
    ) -> Result<Response<v1beta1::VersionResponse>, Status> {
        let version = self.now().v1_version;
        Ok(Response::new(v1beta1::VersionResponse {
            version,
            runtime_name: "atrest-test-plugin".to_owned(),
            runtime_version: "0".to_owned(),
        }))
    }

    async fn decrypt(
        &self,
        request: Request<v1beta1::DecryptRequest>,
    ) -> Result<Response<v1beta1::DecryptResponse>, Status> {
        self.counts.decrypt.fetch_add(1, Ordering::SeqCst);
        let cipher = request.into_inner().cipher;
        let plain = self.work(|b| unwrap(&b.key_id, &cipher)).await?;
        Ok(Response::new(v1beta1::DecryptResponse { plain }))
    }

    async fn encrypt(
        &self,
        request: Request<v1beta1::EncryptRequest>,
    ) -> Result<Response<v1beta1::EncryptResponse>, Status> {
        self.encrypting()?;
        let plain = request.into_inner().plain;
        let cipher = self.work(|b| wrap(&b.key_id, &plain)).await;
        Ok(Response::new(v1beta1::EncryptResponse { cipher }))
    }
}

#[tonic::async_trait]
impl v2::key_management_service_server::KeyManagementService for Service {
    async fn status(
        &self,
        _: Request<v2::StatusRequest>,
    ) -> Result<Response<v2::StatusResponse>, Status> {
        self.counts.status.fetch_add(1, Ordering::SeqCst);
        let Behaviour { key_id, healthz, v2_version: version, .. } = self.now();
        Ok(Response::new(v2::StatusResponse { version, healthz, key_id }))
    }

    async fn decrypt(
        &self,
        request: Request<v2::DecryptRequest>,
    ) -> Result<Response<v2::DecryptResponse>, Status> {
        self.counts.decrypt.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        if request.uid.is_empty() {
            return Err(Status::invalid_argument("no uid"));
        }
        if request.annotations.get(ANNOTATION.0).map(Vec::as_slice) != Some(ANNOTATION.1) {
            return Err(Status::invalid_argument("the annotation is missing"));
        }
        if self.now().destroyed.contains(&request.key_id) {
            return Err(Status::failed_precondition("the key version has been destroyed"));
        }
        let plaintext = self.work(|_| unwrap(&request.key_id, &request.ciphertext)).await?;
        Ok(Response::new(v2::DecryptResponse { plaintext }))
    }

    async fn encrypt(
        &self,
        request: Request<v2::EncryptRequest>,
    ) -> Result<Response<v2::EncryptResponse>, Status> {
        self.encrypting()?;
        let plaintext = request.into_inner().plaintext;
        let (key_id, ciphertext) = self
            .work(|b| {
                let key_id = b.encrypt_key_id.clone().unwrap_or_else(|| b.key_id.clone());
                let ciphertext = wrap(&key_id, &plaintext);
                (key_id, ciphertext)
            })
            .await;
        let annotations = HashMap::from([(ANNOTATION.0.to_owned(), ANNOTATION.1.to_vec())]);
        Ok(Response::new(v2::EncryptResponse { ciphertext, key_id, annotations }))
    }
}

/// Where to listen.
#[derive(Clone, Debug)]
pub enum Listen {
    Path(PathBuf),
    /// A Linux abstract socket.
    Abstract(String),
}

impl Listen {
    fn bind(&self) -> io::Result<UnixListener> {
        match self {
            Self::Path(path) => UnixListener::bind(path),
            Self::Abstract(name) => {
                use std::os::linux::net::SocketAddrExt as _;
                use std::os::unix::net;
                let address = net::SocketAddr::from_abstract_name(name)?;
                let listener = net::UnixListener::bind_addr(&address)?;
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)
            }
        }
    }
}

/// Serves both versions until `stop` ends.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(
    listen: Listen,
    service: Service,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let listener = listen.bind()?;
    ready();
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<DuplexStream>>(8);
    let accept = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (inside, outside) = tokio::io::duplex(64 * 1024);
            tokio::spawn(relay(stream, outside));
            if sender.send(Ok(inside)).await.is_err() {
                break;
            }
        }
    });
    let alpha = Arc::clone(&service.behaviour);
    let rename = tower::util::MapRequestLayer::new(move |mut request: http::Request<_>| {
        if alpha.lock().unwrap().alpha {
            let path = request.uri().path();
            let renamed = match path.strip_prefix("/v2alpha1.") {
                Some(method) => format!("/v2.{method}"),
                None => path.replace("/v2.", "/none."),
            };
            *request.uri_mut() = renamed.parse().unwrap();
        }
        request
    });
    let done = tonic::transport::Server::builder()
        .layer(rename)
        .add_service(v1beta1::key_management_service_server::KeyManagementServiceServer::new(
            service.clone(),
        ))
        .add_service(v2::key_management_service_server::KeyManagementServiceServer::new(service))
        .serve_with_incoming_shutdown(ReceiverStream::new(receiver), stop)
        .await;
    accept.abort();
    done.map_err(io::Error::other)
}

/// Passes a connection on, with every `:authority` made a valid one: API servers send v1 plugins
/// the path of the socket there, which the HTTP/2 implementation behind this refuses.
async fn relay(client: UnixStream, server: DuplexStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let answers = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let requests = async {
        let mut preface = [0; 24];
        from_client.read_exact(&mut preface).await?;
        to_server.write_all(&preface).await?;
        loop {
            let mut frame = vec![0; 9];
            from_client.read_exact(&mut frame).await?;
            let len = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
            frame.resize(9 + len, 0);
            from_client.read_exact(&mut frame[9..]).await?;
            if frame[3] == 1 {
                let flags = frame[4];
                let padded = usize::from(flags & 0x8 != 0);
                let priority = if flags & 0x20 == 0 { 0 } else { 5 };
                fix_authority(&mut frame[9 + padded + priority..]);
            }
            to_server.write_all(&frame).await?;
        }
    };
    let end: io::Result<()> = requests.await;
    drop(end);
    let _ = to_server.shutdown().await;
    let _ = answers.await;
}

/// Overwrites the value of `:authority` (entry 1 of HPACK's static table) in a header block, in
/// place and in the same length, so that nothing else moves.
fn fix_authority(block: &mut [u8]) {
    let mut at = 0;
    while at < block.len() {
        let byte = block[at];
        let (index, prefix) = match byte {
            0x80.. => (false, 7),
            0x40..=0x7F => (true, 6),
            0x20..=0x3F => (false, 5),
            _ => (true, 4),
        };
        let Some(number) = hpack_int(block, &mut at, prefix) else { return };
        if !index {
            continue;
        }
        if number == 0 && skip_string(block, &mut at).is_none() {
            return;
        }
        let value = at;
        let Some(bytes) = skip_string(block, &mut at) else { return };
        if number == 1 {
            // Plain instead of Huffman; the length stays.
            block[value] &= 0x7F;
            block[bytes..at].fill(b'a');
        }
    }
}

/// Skips a string; returns where its bytes begin.
fn skip_string(block: &[u8], at: &mut usize) -> Option<usize> {
    let len = hpack_int(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(len).filter(|end| *end <= block.len())?;
    Some(start)
}

fn hpack_int(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// A plugin running in a thread of this process until dropped.
pub struct Running {
    pub service: Service,
    pub listen: Listen,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts a plugin and waits until it listens.
    pub fn start(listen: Listen, behaviour: Behaviour) -> Self {
        let service = Service::new(behaviour);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (own, at) = (service.clone(), listen.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let stop = async {
                let _ = stopped.await;
            };
            runtime.unwrap().block_on(serve(at, own, || ready.send(()).unwrap(), stop)).unwrap();
        });
        is_ready.recv().expect("the plugin listens");
        Self { service, listen, stop: Some(stop), thread: Some(thread) }
    }

    /// Changes what the plugin says.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.service.behaviour.lock().unwrap());
    }

    /// What it was asked.
    pub fn counts(&self) -> &Counts {
        &self.service.counts
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Open connections may keep the server from ending; the process does not wait for them.
        drop(self.thread.take());
        if let Listen::Path(path) = &self.listen {
            let _ = std::fs::remove_file(path);
        }
    }
}
