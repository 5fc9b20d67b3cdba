//! A connection to NATS, and what its errors say.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::connection::State as Connected;
use async_nats::jetstream::context::{GetStreamErrorKind, RequestErrorKind};
use async_nats::jetstream::stream::{
    DirectGetErrorKind, LastRawMessageErrorKind, RawMessageErrorKind, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderValue, ServerAddr, ServerError,
};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::State;
use super::format::{Message, OPERATION, compact_subject};
use crate::source::DatastoreError;
use crate::source::kine::server::{Raw, Security, Target, is_tls, said, words};

/// Header of marks that a bucket itself leaves where messages are too old (nats-server
/// `server/stream.go`: `JSMarkerReason`).
const MARKER: &str = "Nats-Marker-Reason";
/// As how many bytes a file with credentials may have.
const CREDENTIALS: u64 = 1 << 20;

/// A connection, and the bucket's stream.
pub(super) struct Link {
    client: Client,
    pub stream: Stream,
    /// What the bucket's subjects begin with.
    pub prefix: String,
    /// What the server said that this user may not do.
    denied: watch::Receiver<Option<String>>,
}

impl Link {
    /// Connects, and finds the bucket.
    pub async fn open(target: &Target) -> Result<Self, DatastoreError> {
        let (deny, denied) = watch::channel(None);
        let options = options(target, deny)?;
        let servers = servers(target)?;
        let connecting = tokio::time::timeout(target.dial_timeout, options.connect(servers));
        let client = match connecting.await {
            Ok(Ok(client)) => client,
            // A server that speaks no TLS may be gone before it has said so.
            Ok(Err(_)) if target.has_files() && !offers_tls(target).await => {
                return Err(DatastoreError::TlsNotOffered { at: target.at.clone() });
            }
            Ok(Err(e)) => return Err(unreached(target, &e)),
            Err(_) => return Err(silent(target)),
        };
        let bucket = &target.address.database;
        let context = jetstream::new(client.clone());
        let asked = context.get_stream(format!("KV_{bucket}"));
        let stream = tokio::select! {
            found = asked => found.map_err(|e| match e.kind() {
                GetStreamErrorKind::JetStream(e) => refused(target, &e),
                GetStreamErrorKind::Request => requested(target, &e),
                _ => failed(target, &e),
            })?,
            e = forbidden(target, &denied) => return Err(e),
        };
        let prefix = format!("$KV.{bucket}.");
        Ok(Self { client, stream, prefix, denied })
    }

    pub fn is_open(&self) -> bool {
        self.client.connection_state() == Connected::Connected
    }

    /// Says goodbye.
    pub async fn close(&self) {
        let _ = self.client.drain().await;
    }

    /// Ends with what is awaited, or with what the server does not allow: it answers nothing then.
    pub async fn allowed<T>(
        &self,
        target: &Target,
        asked: impl Future<Output = Result<T, DatastoreError>>,
    ) -> Result<T, DatastoreError> {
        tokio::select! {
            answer = asked => answer,
            e = forbidden(target, &self.denied) => Err(e),
        }
    }

    /// What the stream is now.
    pub async fn state(&self, target: &Target) -> Result<State, DatastoreError> {
        let asked = async { self.stream.get_info().await.map_err(|e| requested(target, &e)) };
        let info = self.allowed(target, asked).await?;
        let last = i64::try_from(info.state.last_sequence).unwrap_or(i64::MAX);
        Ok(State { last, messages: info.state.messages })
    }

    /// The most bytes of a message.
    pub fn payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Calls `of` with the message of that sequence; `None` where it is gone.
    pub async fn message<T>(
        &self,
        target: &Target,
        sequence: i64,
        of: impl FnOnce(Message<'_>) -> T,
    ) -> Result<Option<T>, DatastoreError> {
        let number = u64::try_from(sequence).unwrap_or_default();
        let asked = async {
            if self.stream.cached_info().config.allow_direct {
                match self.stream.direct_get(number).await {
                    Ok(message) => return Ok(Some(message)),
                    // A replica may lag behind: the leader knows.
                    Err(e) if e.kind() == DirectGetErrorKind::NotFound => {}
                    Err(e) => return Err(requested(target, &e)),
                }
            }
            match self.stream.get_raw_message(number).await {
                Ok(message) => Ok(Some(message)),
                Err(e) => match e.kind() {
                    RawMessageErrorKind::NoMessageFound => Ok(None),
                    RawMessageErrorKind::JetStream(e) => Err(refused(target, &e)),
                    _ => Err(requested(target, &e)),
                },
            }
        };
        let found = self.allowed(target, asked).await?;
        Ok(found.map(|m| of(self.read(number, &m.subject, Some(&m.headers), &m.payload))))
    }

    /// The value of kine's own key.
    pub async fn compacted(&self, target: &Target) -> Result<Option<Raw>, DatastoreError> {
        let subject = format!("{}{}", self.prefix, compact_subject());
        let asked = async {
            match self.stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(Some(message)),
                Err(e) => match e.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(None),
                    _ => Err(requested(target, &e)),
                },
            }
        };
        let Some(m) = self.allowed(target, asked).await? else { return Ok(None) };
        let message = self.read(m.sequence, &m.subject, Some(&m.headers), &m.payload);
        let row = message.key().and_then(|key| message.row(key, true));
        let unreadable = |why| DatastoreError::Failed { at: target.at.clone(), cause: said(why) };
        row.map(Some).map_err(unreadable)
    }

    /// What a message says.
    pub fn read<'m>(
        &self,
        sequence: u64,
        subject: &'m str,
        headers: Option<&'m async_nats::HeaderMap>,
        body: &'m [u8],
    ) -> Message<'m> {
        let header = |name| headers.and_then(|all| all.get(name)).map(HeaderValue::as_str);
        let operation = header(OPERATION).filter(|o| ["DEL", "PURGE"].contains(o));
        Message {
            sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
            subject: subject.strip_prefix(&*self.prefix).unwrap_or_default(),
            is_mark: operation.or(header(MARKER)).is_some(),
            body,
        }
    }
}

/// Waits until the server says that this user may not do what it was asked for.
async fn forbidden(target: &Target, denied: &watch::Receiver<Option<String>>) -> DatastoreError {
    let mut denied = denied.clone();
    let why = denied.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    match why {
        Some(why) => DatastoreError::Forbidden { at: target.at.clone(), cause: said(&why) },
        // The connection ended, which whoever is asked says too.
        None => std::future::pending().await,
    }
}

/// Who connects, and how.
fn options(
    target: &Target,
    deny: watch::Sender<Option<String>>,
) -> Result<ConnectOptions, DatastoreError> {
    let deny = Arc::new(Mutex::new(deny));
    let mut options = ConnectOptions::new()
        .name("atrest")
        .connection_timeout(target.dial_timeout)
        .request_timeout(Some(target.silence))
        .max_reconnects(target.address.servers().count() + RETRIES)
        // The server that it was told to, by the way it was told to.
        .ignore_discovered_servers()
        .retain_servers_order()
        .event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(why)) = event
                && why.to_ascii_lowercase().contains("permissions violation")
            {
                let deny = deny.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = deny.send(Some(why));
            }
            async {}
        });
    if target.security != Security::Plain {
        let verified = target.security == Security::Full;
        // Whoever gave no files is asked for TLS by the server, if it wants that.
        options = options.require_tls(verified && target.has_files());
        options = options.tls_client_config(target.files().config(target.verify())?);
    }
    match (&target.password, target.user.as_str()) {
        (Some(token), "") => options = options.token(token.to_string()),
        (password, user) if !user.is_empty() => {
            let password = password.as_ref().map(|p| p.to_string()).unwrap_or_default();
            options = options.user_and_password(user.to_owned(), password);
        }
        _ => {}
    }
    if let Some(path) = &target.address.nats.creds {
        let text = text_of(path)?;
        // Its own error may show what the file says.
        options = options.credentials(&text).map_err(|_| unusable(path, "it is no such file"))?;
    }
    Ok(options)
}

/// Most bytes of what a server says of itself.
const GREETING: u64 = 64 << 10;
/// How often a lost connection is made again.
const RETRIES: usize = 2;

pub(super) fn unusable(path: &Path, why: impl Into<crate::source::Cause>) -> DatastoreError {
    DatastoreError::CredentialsFile { path: path.to_owned(), cause: why.into() }
}

/// What a small file says.
pub(super) fn text_of(path: &Path) -> Result<Zeroizing<String>, DatastoreError> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(|e| unusable(path, e))?;
    file.take(CREDENTIALS).read_to_string(&mut text).map_err(|e| unusable(path, e))?;
    Ok(text)
}

/// Where it listens; who connects is told otherwise.
fn servers(target: &Target) -> Result<Vec<ServerAddr>, DatastoreError> {
    let at = |(host, port): (&str, u16)| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("nats://{host}:{port}").parse::<ServerAddr>().map_err(|_| DatastoreError::Address {
            why: "a host is no name and no address".to_owned(),
        })
    };
    target.address.servers().map(at).collect()
}

/// Whether a server may speak TLS: what it says before anybody is known (nats-io/nats-server
/// `server/server.go`: `Info`). One that says nothing of the kind may.
async fn offers_tls(target: &Target) -> bool {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
    let Some((host, port)) = target.address.servers().next() else { return true };
    let asked = async {
        let stream = tokio::net::TcpStream::connect((host, port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(GREETING)).read_line(&mut line).await.ok()?;
        serde_json::from_str::<serde_json::Value>(line.strip_prefix("INFO ")?).ok()
    };
    let Ok(Some(info)) = tokio::time::timeout(target.dial_timeout, asked).await else {
        return true;
    };
    ["tls_required", "tls_available", "tls_verify"].iter().any(|name| info[*name] == true)
}

fn silent(target: &Target) -> DatastoreError {
    DatastoreError::Silent { at: target.at.clone(), within: target.dial_timeout }
}

pub(super) fn failed(target: &Target, e: &dyn std::error::Error) -> DatastoreError {
    DatastoreError::Failed { at: target.at.clone(), cause: words(e) }
}

/// Why there is no connection.
fn unreached(target: &Target, e: &async_nats::ConnectError) -> DatastoreError {
    let at = target.at.clone();
    match e.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            DatastoreError::Stranger { at, cause: words(e) }
        }
        ConnectErrorKind::TimedOut => silent(target),
        ConnectErrorKind::Tls => DatastoreError::Tls { at, cause: words(e) },
        _ if is_tls(e) => DatastoreError::Tls { at, cause: words(e) },
        ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::MaxReconnects => {
            DatastoreError::Unreachable { at, cause: words(e) }
        }
        ConnectErrorKind::ServerParse => failed(target, e),
    }
}

/// What `JetStream` says.
pub(super) fn refused(target: &Target, e: &jetstream::Error) -> DatastoreError {
    let at = target.at.clone();
    match e.error_code() {
        ErrorCode::STREAM_NOT_FOUND => DatastoreError::NoDatabase { at },
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            DatastoreError::NoJetStream { at }
        }
        _ => failed(target, e),
    }
}

/// Why a request has no answer.
pub(super) fn requested(target: &Target, e: &(dyn std::error::Error + 'static)) -> DatastoreError {
    let all = std::iter::successors(Some(e), |e| e.source());
    for e in all {
        if let Some(e) = e.downcast_ref::<async_nats::jetstream::context::RequestError>() {
            return match e.kind() {
                // Nobody listens where JetStream would.
                RequestErrorKind::NoResponders => {
                    DatastoreError::NoJetStream { at: target.at.clone() }
                }
                RequestErrorKind::TimedOut => {
                    DatastoreError::Silent { at: target.at.clone(), within: target.silence }
                }
                _ => failed(target, e),
            };
        }
        if let Some(e) = e.downcast_ref::<jetstream::Error>() {
            return refused(target, e);
        }
    }
    failed(target, e)
}
