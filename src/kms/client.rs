//! One plugin over its unix socket, asynchronously.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::proto::{v1beta1, v2};
use super::{KmsError, Sealed};
use crate::config::{Kms, Socket};
use crate::envelope::Version;
use crate::hex::hex;
use crate::secret::KeyMaterial;
use crate::visible::shortened;

/// Calls in flight to one plugin. An HSM behind it will not take more kindly.
const CONCURRENT: usize = 16;
/// Characters of a plugin's message that are repeated.
const MESSAGE_SHOWN: usize = 300;

/// The protocol version that v1 plugins expect and answer.
const V1BETA1: &str = "v1beta1";

/// A connected plugin that has passed its first check.
pub(super) struct Client {
    endpoint: String,
    timeout: Duration,
    channel: Channel,
    permits: Semaphore,
    /// gRPC package of a v2 plugin: `v2`, or `v2alpha1` for those of Kubernetes 1.25 and 1.26.
    alpha: bool,
    /// What the first Status of a v2 plugin said; the API server refuses a change.
    version: OnceLock<String>,
}

impl Client {
    /// Connects, and asks for the version (v1) or the status (v2) as the API server does first.
    /// The key ID is v2's.
    pub(super) async fn connect(plugin: &Kms) -> Result<(Self, Option<String>), KmsError> {
        let mut client = Self::open(plugin).await?;
        if plugin.api_version == Version::V1 {
            let answer = client.version().await?;
            client.judge_version(&answer)?;
            return Ok((client, None));
        }
        let answer = client.first_status().await?;
        client.judge_status(&answer)?;
        Ok((client, Some(answer.key_id)))
    }

    /// Connects, and asks for nothing.
    pub(super) async fn open(plugin: &Kms) -> Result<Self, KmsError> {
        let endpoint = plugin.endpoint.url.clone();
        let unreachable = |cause| KmsError::Unreachable { endpoint: endpoint.clone(), cause };
        let socket = plugin.endpoint.socket.clone();
        // The authority must be a host name: HTTP/2 servers refuse a path.
        let authority = Endpoint::from_static("http://localhost");
        let channel = authority.connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { open(&socket).await.map(TokioIo::new) }
        }));
        let channel = match tokio::time::timeout(plugin.timeout, channel).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(unreachable(deepest(&error))),
            Err(_) => return Err(unreachable("timed out".to_owned())),
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            timeout: plugin.timeout,
            channel,
            permits: Semaphore::new(CONCURRENT),
            alpha: false,
            version: OnceLock::new(),
        })
    }

    /// What a v1 plugin says of its version.
    pub(super) async fn version(&self) -> Result<v1beta1::VersionResponse, KmsError> {
        let request = v1beta1::VersionRequest { version: V1BETA1.to_owned() };
        self.call("/v1beta1.KeyManagementService/Version", request).await
    }

    /// Whether the API server would use a v1 plugin that answers so.
    pub(super) fn judge_version(&self, answer: &v1beta1::VersionResponse) -> Result<(), KmsError> {
        if answer.version == V1BETA1 {
            return Ok(());
        }
        Err(self
            .unusable(format!("it speaks version `{}`, not `{V1BETA1}`", shown(&answer.version))))
    }

    /// The first status of a v2 plugin, which decides under which name it is spoken to.
    pub(super) async fn first_status(&mut self) -> Result<v2::StatusResponse, KmsError> {
        match self.raw_status().await {
            Err(KmsError::Refused { unknown_request: true, .. }) => {
                self.alpha = true;
                self.raw_status().await
            }
            other => other,
        }
    }

    async fn raw_status(&self) -> Result<v2::StatusResponse, KmsError> {
        self.call(self.v2_path("Status"), v2::StatusRequest {}).await
    }

    /// Whether the API server would use a v2 plugin that answers so.
    pub(super) fn judge_status(&self, answer: &v2::StatusResponse) -> Result<(), KmsError> {
        if answer.healthz != "ok" {
            let healthz = shown(&answer.healthz);
            return Err(self.unusable(format!("its status is `{healthz}`, not `ok`")));
        }
        let known: &[&str] = if self.alpha { &["v2alpha1"] } else { &["v2", "v2beta1"] };
        if !known.contains(&answer.version.as_str()) {
            let version = shown(&answer.version);
            return Err(self.unusable(format!("it speaks version `{version}`, not `v2`")));
        }
        let first = self.version.get_or_init(|| answer.version.clone());
        if *first != answer.version {
            let cause = format!("its version changed from `{first}` to `{}`", answer.version);
            return Err(self.unusable(cause));
        }
        super::limits::validate_key_id(&answer.key_id).map_err(|e| self.unusable(e.to_owned()))
    }

    /// Checks the health of a v2 plugin and returns its key ID.
    pub(super) async fn status(&self) -> Result<String, KmsError> {
        let answer = self.raw_status().await?;
        self.judge_status(&answer)?;
        Ok(answer.key_id)
    }

    pub(super) async fn decrypt_v1(&self, cipher: Vec<u8>) -> Result<KeyMaterial, KmsError> {
        let request = v1beta1::DecryptRequest { version: V1BETA1.to_owned(), cipher };
        let path = "/v1beta1.KeyManagementService/Decrypt";
        let answer: v1beta1::DecryptResponse = self.call(path, request).await?;
        Ok(KeyMaterial::new(answer.plain))
    }

    pub(super) async fn encrypt_v1(&self, key: KeyMaterial) -> Result<Vec<u8>, KmsError> {
        let plain = key.expose().to_vec();
        let request = v1beta1::EncryptRequest { version: V1BETA1.to_owned(), plain };
        let path = "/v1beta1.KeyManagementService/Encrypt";
        let answer: v1beta1::EncryptResponse = self.call(path, request).await?;
        if answer.cipher.is_empty() {
            return Err(self.unusable("it returned an empty wrapped key".to_owned()));
        }
        Ok(answer.cipher)
    }

    pub(super) async fn decrypt_v2(
        &self,
        request: v2::DecryptRequest,
    ) -> Result<KeyMaterial, KmsError> {
        let answer: v2::DecryptResponse = self.call(self.v2_path("Decrypt"), request).await?;
        Ok(KeyMaterial::new(answer.plaintext))
    }

    /// Has a seed wrapped; everything that is stored from the answer is checked first.
    pub(super) async fn encrypt_v2(&self, seed: KeyMaterial) -> Result<Sealed, KmsError> {
        let request = v2::EncryptRequest { plaintext: seed.expose().to_vec(), uid: uid() };
        let answer: v2::EncryptResponse = self.call(self.v2_path("Encrypt"), request).await?;
        let annotations: Vec<_> = answer.annotations.into_iter().collect();
        let views: Vec<_> = annotations.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        super::limits::validate_key_id(&answer.key_id)
            .and_then(|()| super::limits::validate_source(&answer.ciphertext))
            .and_then(|()| super::limits::validate_annotations(&views))
            .map_err(|e| self.unusable(e.to_owned()))?;
        Ok(Sealed { seed, key_id: answer.key_id, source: answer.ciphertext, annotations })
    }

    fn v2_path(&self, method: &str) -> &'static str {
        match (self.alpha, method) {
            (false, "Status") => "/v2.KeyManagementService/Status",
            (false, "Encrypt") => "/v2.KeyManagementService/Encrypt",
            (false, _) => "/v2.KeyManagementService/Decrypt",
            (true, "Status") => "/v2alpha1.KeyManagementService/Status",
            (true, "Encrypt") => "/v2alpha1.KeyManagementService/Encrypt",
            (true, _) => "/v2alpha1.KeyManagementService/Decrypt",
        }
    }

    pub(super) fn unusable(&self, cause: String) -> KmsError {
        KmsError::Unusable { endpoint: self.endpoint.clone(), cause }
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, KmsError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let unreachable = |cause| KmsError::Unreachable { endpoint: self.endpoint.clone(), cause };
        let one = async {
            // The semaphore is never closed; were it, the call would just not be counted.
            let _permit = self.permits.acquire().await;
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|e| unreachable(deepest(&e)))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = PathAndQuery::from_static(path);
            grpc.unary(Request::new(request), path, codec).await.map_err(|s| self.refused(&s))
        };
        match tokio::time::timeout(self.timeout, one).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.timeout))),
        }
    }

    fn refused(&self, status: &Status) -> KmsError {
        let endpoint = self.endpoint.clone();
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => {
                KmsError::Unreachable { endpoint, cause: shown(status.message()) }
            }
            code => KmsError::Refused {
                endpoint,
                unknown_request: code == Code::Unimplemented,
                cause: shown(status.message()),
            },
        }
    }
}

/// Connects to where the plugin listens.
async fn open(socket: &Socket) -> io::Result<UnixStream> {
    match socket {
        Socket::Path(path) => UnixStream::connect(path as &Path).await,
        Socket::Abstract(name) => connect_abstract(name),
        Socket::Nowhere => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the endpoint names no socket (three slashes are needed: `unix:///…`)",
        )),
    }
}

#[cfg(target_os = "linux")]
fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net;
    let address = net::SocketAddr::from_abstract_name(name)?;
    let stream = net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &str) -> io::Result<UnixStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets exist on Linux only"))
}

/// Names a request in the plugin's log.
pub(super) fn uid() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let (a, b) = (RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    let all = [a.to_be_bytes(), b.to_be_bytes()].concat();
    [&all[..4], &all[4..6], &all[6..8], &all[8..10], &all[10..]].map(hex).join("-")
}

/// What the system said, below the layers of transport.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    shown(&at.to_string())
}

/// A plugin's words, fit for a line of text.
pub(super) fn shown(text: &str) -> String {
    shortened(text, MESSAGE_SHOWN)
}
