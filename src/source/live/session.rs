//! The members of one cluster: requests with failover and authentication.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use super::dial::{DialError, Facts, copy, dial, innermost};
use super::endpoint::Target;
use super::said::{Said, is_too_large};
use super::tls::Tls;
use super::wire::{RangeRequest, RawCodec};
use super::{Credentials, LiveOptions};
use crate::source::EtcdError;

/// grpc-go never pings more often, and etcd closes connections that ping every few seconds
/// (etcd `--grpc-keepalive-min-time`, grpc-go `internal.KeepaliveMinPingTime`).
const MIN_KEEPALIVE: Duration = Duration::from_secs(10);
/// How long all members are asked again once the cluster has answered before: an election takes a
/// second or two, the restart of an etcd a few more.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause before asking all members again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before asking all members again.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Receive window of a stream, bytes: a page in flight is not slowed down by acknowledgements.
const WINDOW: u32 = 4 << 20;

/// Why one request to one member failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// No connection.
    Dial(DialError),
    /// The server or the transport answered with an error.
    Status(Box<Status>),
    /// No answer in time.
    Timeout(Duration),
    /// The token does not fit a header.
    Token,
}

impl CallError {
    /// Whether another member, or the same one later, may do better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Timeout(_) => true,
            Self::Token => false,
            Self::Status(status) => {
                is_transport(status)
                    || matches!(status.code(), Code::Unavailable)
                    || matches!(Said::of(status.message()), Said::NotLeader | Said::Busy)
            }
        }
    }
}

/// Whether a status was made by this side because the connection failed.
pub(super) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// An answer under way.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send>>;

/// Sends one request to the member with this index, with this token, without another try.
pub(super) type Ask<T> =
    dyn Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<T> + Send + Sync;

/// A request whose response stays as bytes.
fn raw(
    path: &'static str,
    body: Bytes,
    limit: usize,
) -> impl Fn(Arc<Session>, usize, Option<AsciiMetadataValue>) -> Answer<Bytes> {
    move |session, index, token| {
        let body = body.clone();
        Box::pin(async move { session.once(index, path, body, limit, token).await })
    }
}

/// Which token will do.
enum Need {
    /// Any.
    Any,
    /// Not this one: the server refuses it. Somebody may have replaced it meanwhile.
    OtherThan(Option<AsciiMetadataValue>),
}

/// One endpoint and its connection.
pub(super) struct Member {
    pub target: Target,
    channel: tokio::sync::Mutex<Option<Channel>>,
    facts: Mutex<Arc<Facts>>,
}

impl Member {
    /// What the newest connection showed.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A cluster that requests can be sent to.
pub(super) struct Session {
    pub members: Vec<Member>,
    pub current: AtomicUsize,
    pub tls: Option<Tls>,
    pub credentials: Option<Credentials>,
    token: tokio::sync::RwLock<Option<AsciiMetadataValue>>,
    dial_timeout: Duration,
    pub command_timeout: Duration,
    keepalive: (Duration, Duration),
    /// Some member has answered.
    answered: AtomicBool,
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
                target: Target::parse(text, secure)?,
                channel: tokio::sync::Mutex::new(None),
                facts: Mutex::default(),
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
            command_timeout: options.command_timeout,
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
                dial(&member.target, session.tls.as_ref(), session.dial_timeout, facts)
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

    /// One request to one member, without another try.
    async fn once(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        body: Bytes,
        limit: usize,
        token: Option<AsciiMetadataValue>,
    ) -> Result<Bytes, CallError> {
        let channel = self.channel(index).await?;
        let call = async {
            let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(limit);
            grpc.ready().await.map_err(|e| CallError::from_transport(&e))?;
            let mut request = tonic::Request::new(body);
            if let Some(token) = token {
                request.metadata_mut().insert("token", token);
            }
            grpc.unary(request, PathAndQuery::from_static(path), RawCodec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(CallError::from_status)
        };
        self.in_time(call).await
    }

    /// A call, given up after the command timeout.
    pub async fn in_time<T, E: Into<CallError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.command_timeout, call).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(CallError::Timeout(self.command_timeout)),
        }
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

    /// Asks for a new token where the session has one; whether it did.
    pub async fn renew_token(self: &Arc<Self>, index: usize) -> Result<bool, CallError> {
        let token = self.token(index, Need::Any).await?;
        if token.is_none() {
            return Ok(false);
        }
        self.token(index, Need::OtherThan(token)).await?;
        Ok(true)
    }

    /// Opens a stream at one member; the request side stays open as long as the response is read.
    pub async fn stream_once(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        body: Bytes,
    ) -> Result<tonic::Streaming<Bytes>, CallError> {
        use tokio_stream::StreamExt as _;
        let one = tokio_stream::iter([body]).chain(tokio_stream::pending());
        self.stream(index, path, one).await
    }

    /// Opens a stream at one member, in both directions.
    pub async fn stream(
        self: &Arc<Self>,
        index: usize,
        path: &'static str,
        bodies: impl tokio_stream::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<tonic::Streaming<Bytes>, CallError> {
        let token = self.token(index, Need::Any).await?;
        let channel = self.channel(index).await?;
        let call = async {
            let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
            grpc.ready().await.map_err(|e| CallError::from_transport(&e))?;
            let mut request = tonic::Request::new(bodies);
            // A member without a leader would stay silent for ever.
            request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
            if let Some(token) = token {
                request.metadata_mut().insert("token", token);
            }
            grpc.streaming(request, PathAndQuery::from_static(path), RawCodec)
                .await
                .map(tonic::Response::into_inner)
                .map_err(CallError::from_status)
        };
        self.in_time(call).await
    }

    /// One request to one member with the session's token, authenticating where needed.
    async fn authenticated<T>(
        self: &Arc<Self>,
        index: usize,
        send: &Ask<T>,
    ) -> Result<T, CallError> {
        if self.credentials.is_none() {
            return send(Arc::clone(self), index, None).await;
        }
        let mut tries = 0;
        loop {
            let token = self.token(index, Need::Any).await?;
            match send(Arc::clone(self), index, token.clone()).await {
                Err(CallError::Status(status))
                    if tries < 2 && Said::of(status.message()).wants_new_token() =>
                {
                    tries += 1;
                    self.token(index, Need::OtherThan(token)).await?;
                }
                result => return result,
            }
        }
    }

    /// The token to send, asked for where there is none that will do.
    async fn token(
        self: &Arc<Self>,
        index: usize,
        need: Need,
    ) -> Result<Option<AsciiMetadataValue>, CallError> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let usable = |token: &Option<AsciiMetadataValue>| match &need {
            Need::Any => token.is_some() || self.auth_off.load(Ordering::Relaxed),
            Need::OtherThan(refused) => token != refused,
        };
        {
            let token = self.token.read().await;
            if usable(&token) {
                return Ok(token.clone());
            }
        }
        let mut token = self.token.write().await;
        if usable(&token) {
            return Ok(token.clone());
        }
        match self.authenticate(index, credentials).await {
            Ok(text) => {
                let mut value = AsciiMetadataValue::try_from(text).map_err(|_| CallError::Token)?;
                value.set_sensitive(true);
                *token = Some(value);
                self.auth_off.store(false, Ordering::Relaxed);
            }
            // As etcdctl: credentials that nobody asks for do no harm.
            Err(CallError::Status(status)) if Said::of(status.message()) == Said::AuthOff => {
                self.auth_off.store(true, Ordering::Relaxed);
                *token = None;
            }
            Err(e) => return Err(e),
        }
        Ok(token.clone())
    }

    /// Sends a request to the current member, and to the others while it fails for a reason that
    /// is the member's own.
    pub async fn call(
        self: &Arc<Self>,
        path: &'static str,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, Refusal> {
        self.call_with(&raw(path, body, limit)).await
    }

    /// As [`Session::call`], whatever the request is made with.
    pub async fn call_with<T>(self: &Arc<Self>, send: &Ask<T>) -> Result<T, Refusal> {
        let order = self.order();
        // Before anything has answered, a failure is most likely a wrong option.
        let patience =
            if self.answered.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
        let start = tokio::time::Instant::now();
        let mut pause = PAUSE;
        loop {
            let mut failures: Vec<(usize, CallError)> = Vec::new();
            for index in order.clone() {
                match self.authenticated(index, send).await {
                    Ok(answer) => {
                        self.prefer(index);
                        return Ok(answer);
                    }
                    Err(e) if e.is_passing() => failures.push((index, e)),
                    Err(e) => return Err(Refusal { failures: vec![(index, e)] }),
                }
            }
            if start.elapsed() + pause >= patience {
                return Err(Refusal { failures });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One request to the current member, without another try.
    pub async fn call_current(
        self: &Arc<Self>,
        path: &'static str,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, CallError> {
        let index = self.current.load(Ordering::Relaxed);
        let bytes = self.authenticated(index, &raw(path, body, limit)).await?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(bytes)
    }

    /// A range request; a member that is a learner is asked for what it has.
    pub async fn range(
        self: &Arc<Self>,
        request: &RangeRequest,
        limit: usize,
    ) -> Result<Bytes, Refusal> {
        const PATH: &str = "/etcdserverpb.KV/Range";
        let mut request = request.clone();
        request.serializable = self.learner.load(Ordering::Relaxed);
        let result = self.call(PATH, request.encode_to_vec().into(), limit).await;
        match result {
            Err(refusal) if !request.serializable && refusal.said() == Some(Said::Learner) => {
                self.learner.store(true, Ordering::Relaxed);
                request.serializable = true;
                self.call(PATH, request.encode_to_vec().into(), limit).await
            }
            result => result,
        }
    }

    /// Connects to the first member that can be reached and, with credentials, authenticates.
    pub async fn open(self: &Arc<Self>) -> Result<(), Refusal> {
        let mut failures = Vec::new();
        for index in 0..self.members.len() {
            let result = match self.channel(index).await {
                Ok(_) => self.token(index, Need::Any).await.map(|_| ()),
                Err(e) => Err(e),
            };
            match result {
                Ok(()) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(());
                }
                Err(e) if e.is_passing() => failures.push((index, e)),
                Err(e) => return Err(Refusal { failures: vec![(index, e)] }),
            }
        }
        Err(Refusal { failures })
    }
}

/// Why a request failed at every member that was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Member and error, in the order of asking. Never empty.
    pub failures: Vec<(usize, CallError)>,
}

impl Refusal {
    /// The server's message, where one answered.
    pub fn message(&self) -> Option<&str> {
        self.failures.iter().find_map(|(_, e)| match e {
            CallError::Status(status) if !is_transport(status) => Some(status.message()),
            _ => None,
        })
    }

    /// What that means.
    pub fn said(&self) -> Option<Said> {
        self.message().map(Said::of)
    }

    /// Whether the response was larger than the decode limit.
    pub fn is_too_large(&self) -> bool {
        self.failures
            .iter()
            .any(|(_, e)| matches!(e, CallError::Status(status) if is_too_large(status)))
    }
}

impl CallError {
    pub fn from_status(status: Status) -> Self {
        match std::error::Error::source(&status).and_then(find_dial) {
            Some(e) => Self::Dial(e),
            None => Self::Status(Box::new(status)),
        }
    }

    pub fn from_transport(error: &tonic::transport::Error) -> Self {
        match find_dial(error) {
            Some(e) => Self::Dial(e),
            None => Self::Dial(DialError::Connect(std::io::Error::other(innermost(error)))),
        }
    }
}

/// The connector's own error, copied out of the chain that transport errors wrap it in.
fn find_dial(error: &(dyn std::error::Error + 'static)) -> Option<DialError> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(dial) = e.downcast_ref::<DialError>() {
            return Some(match dial {
                DialError::Resolve(e) => DialError::Resolve(copy(e)),
                DialError::Connect(e) => DialError::Connect(copy(e)),
                DialError::Timeout(t) => DialError::Timeout(*t),
                DialError::HandshakeTimeout(t) => DialError::HandshakeTimeout(*t),
                DialError::ServerName => DialError::ServerName,
                DialError::Tls(e) => DialError::Tls(e.clone()),
                DialError::Handshake(e) => DialError::Handshake(copy(e)),
            });
        }
        next = e.source();
    }
    None
}
