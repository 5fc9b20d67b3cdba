//! The members of one cluster, and a request to one of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

use super::call::CallError;
use super::dial::{DialError, Speaks, dial};
use super::endpoint::MemberEndpoint;
use super::facts::Facts;
use super::tls::Tls;
use super::told::Told;
use super::{Credentials, LiveOptions, Tempo};
use crate::source::EtcdError;
use crate::source::live::wire::RawCodec;
use crate::source::live::wire::kv::RANGE;
use crate::source::live::wire::txn::TXN;

/// grpc-go never pings more often, and etcd closes connections that ping every few seconds
/// (etcd `--grpc-keepalive-min-time`, grpc-go `internal.KeepaliveMinPingTime`).
const MIN_KEEPALIVE: Duration = Duration::from_secs(10);
/// Receive window of a stream, bytes: a page in flight is not slowed down by acknowledgements.
const WINDOW: u32 = 4 << 20;

/// One endpoint and its connection.
pub(super) struct Member {
    pub target: MemberEndpoint,
    channel: tokio::sync::Mutex<Option<Channel>>,
    facts: Mutex<Arc<Facts>>,
    /// It has answered a request.
    answered: AtomicBool,
}

impl Member {
    /// What the newest connection showed.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A cluster that requests can be sent to.
pub(in crate::source::live) struct Session {
    pub(super) members: Vec<Member>,
    pub current: AtomicUsize,
    pub(super) tls: Option<Tls>,
    pub(super) credentials: Option<Credentials>,
    pub(super) token: tokio::sync::RwLock<Option<AsciiMetadataValue>>,
    pub(super) dial_timeout: Duration,
    pub(super) told: Told,
    pub command_timeout: Duration,
    pub tempo: Tempo,
    keepalive: (Duration, Duration),
    /// Some member has answered.
    pub(super) answered: AtomicBool,
    /// Linearizable reads are refused: the member is a learner.
    pub learner: AtomicBool,
    /// Credentials were given, but the cluster asks for none.
    pub auth_off: AtomicBool,
}

impl Session {
    pub fn new(options: &LiveOptions) -> Result<Self, EtcdError> {
        let certificates =
            options.cacert.is_some() || options.cert.is_some() || options.key.is_some();
        let secure = certificates || !options.insecure_transport;
        let mut members = Vec::new();
        for text in options.endpoints.iter().filter(|e| !e.trim().is_empty()) {
            members.push(Member {
                target: MemberEndpoint::parse(text, secure)?,
                channel: tokio::sync::Mutex::new(None),
                facts: Mutex::default(),
                answered: AtomicBool::new(false),
            });
        }
        if members.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let tls = if members.iter().any(|m| m.target.secure) || certificates {
            Some(Tls::new(options)?)
        } else {
            None
        };
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            tls,
            credentials: options.credentials.clone(),
            token: tokio::sync::RwLock::new(None),
            dial_timeout: options.dial_timeout,
            told: Told::default(),
            command_timeout: options.command_timeout,
            tempo: options.tempo,
            keepalive: (options.keepalive_time.max(MIN_KEEPALIVE), options.keepalive_timeout),
            answered: AtomicBool::new(false),
            learner: AtomicBool::new(false),
            auth_off: AtomicBool::new(false),
        })
    }

    /// The member's connection, made if there is none. A lost one is made anew by the channel.
    pub async fn channel(self: &Arc<Self>, index: usize) -> Result<Channel, CallError> {
        let mut slot = self.members[index].channel.lock().await;
        if let Some(channel) = slot.as_ref() {
            return Ok(channel.clone());
        }
        let uri = format!("http://{}", self.members[index].target.authority());
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|_| CallError::Dial(DialError::ServerName))?
            .http2_keep_alive_interval(self.keepalive.0)
            .keep_alive_timeout(self.keepalive.1)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW);
        let session = Arc::clone(self);
        let connector = tower::service_fn(move |_: Uri| {
            let session = Arc::clone(&session);
            async move {
                let member = &session.members[index];
                let facts = Arc::new(Facts::default());
                *member.facts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&facts);
                dial(
                    &member.target,
                    session.tls.as_ref(),
                    session.dial_timeout,
                    facts,
                    Speaks::Http2,
                )
                .await
                .map(TokioIo::new)
            }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|e| CallError::from_transport(&e))?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    /// The next request to the member that is asked now goes over a new connection, and to another
    /// member where there are several.
    pub async fn connect_anew(&self) {
        let index = self.current.load(Ordering::Relaxed);
        *self.members[index].channel.lock().await = None;
        self.current.store((index + 1) % self.members.len(), Ordering::Relaxed);
    }

    /// Whether this member has answered a request.
    pub(super) fn has_answered(&self, index: usize) -> bool {
        self.members[index].answered.load(Ordering::Relaxed)
    }

    /// One request to one member, without another try.
    pub(super) async fn once(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        body: Bytes,
        limit: usize,
        token: Option<AsciiMetadataValue>,
    ) -> Result<Bytes, CallError> {
        let channel = self.channel(index).await?;
        // A learner's own state may lag behind, and what else a member says about itself.
        let linearizable = path == TXN || path == RANGE && !self.learner.load(Ordering::Relaxed);
        let newest = linearizable.then(|| self.newest());
        let call = async {
            let mut grpc = grpc(channel, limit).await?;
            let request = with(token, tonic::Request::new(body));
            grpc.unary(request, PathAndQuery::from_static(path), RawCodec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(CallError::from_status)
        };
        let answer = self.in_time(call).await?;
        self.members[index].answered.store(true, Ordering::Relaxed);
        self.heard(index, path, &answer, newest)?;
        Ok(answer)
    }

    /// Opens a stream at one member, in both directions, without another try.
    pub(super) async fn duplex(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        bodies: impl tokio_stream::Stream<Item = Bytes> + Send + 'static,
        token: Option<AsciiMetadataValue>,
    ) -> Result<tonic::Streaming<Bytes>, CallError> {
        let channel = self.channel(index).await?;
        let call = async {
            let mut grpc = grpc(channel, usize::MAX).await?;
            let mut request = with(token, tonic::Request::new(bodies));
            // A member without a leader would stay silent for ever.
            request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
            grpc.streaming(request, PathAndQuery::from_static(path), RawCodec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(CallError::from_status)
        };
        self.in_time(call).await
    }

    /// Asks one member for a stream, without another try.
    pub(super) async fn download(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        body: Bytes,
        token: Option<AsciiMetadataValue>,
    ) -> Result<tonic::Streaming<Bytes>, CallError> {
        let channel = self.channel(index).await?;
        let call = async {
            let mut grpc = grpc(channel, usize::MAX).await?;
            let request = with(token, tonic::Request::new(body));
            grpc.server_streaming(request, PathAndQuery::from_static(path), RawCodec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(CallError::from_status)
        };
        self.in_time(call).await
    }

    /// A call, given up after the command timeout.
    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        tokio::time::timeout(self.command_timeout, call)
            .await
            .unwrap_or(Err(CallError::Timeout(self.command_timeout)))
    }

    /// The endpoints, as users write them.
    pub fn location(&self) -> String {
        let endpoints: Vec<_> = self.members.iter().map(|m| m.target.text.as_str()).collect();
        endpoints.join(",")
    }

    /// One endpoint, as users write it.
    pub fn member(&self, index: usize) -> String {
        self.members[index].target.text.clone()
    }

    /// The user that requests are made as, where one was given.
    pub fn user(&self) -> Option<String> {
        self.credentials.as_ref().map(|c| c.user().to_owned())
    }

    /// Members in the order of asking.
    pub fn order(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.members.len());
        (0..count).map(move |offset| (first + offset) % count)
    }

    /// Asks this member first from now on: it works.
    pub fn prefer(&self, index: usize) {
        self.current.store(index, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
    }
}

/// A request with the token that it is made with.
fn with<T>(token: Option<AsciiMetadataValue>, mut request: tonic::Request<T>) -> tonic::Request<T> {
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

/// A connection that is ready for a request, for responses of at most `limit` bytes each.
async fn grpc(channel: Channel, limit: usize) -> Result<Grpc<Channel>, CallError> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(limit);
    grpc.ready().await.map_err(|e| CallError::from_transport(&e))?;
    Ok(grpc)
}
