//! The network side: one port, TLS, a token, and answers that are sent while they are made.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WARNING, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{Answer, Api, Chunks, Listing, Watch};
use super::identity::Identity;
use super::request::Request;
use super::status::Status;

/// What a client may send along, bytes: reviews are small, and nothing else is read.
const MAX_BODY: usize = 1 << 20;
/// What is gathered of a list before its head is sent: as long as it lasts, a failure can still
/// be told properly, and what is left out be named in the head.
const GATHERED: usize = 4 << 20;
/// Pieces that wait for a slow client.
const WAITING: usize = 2;
/// Pieces of a long answer, bytes.
const PIECE: usize = 256 << 10;
/// Most entries that one head names as left out.
const MAX_WARNINGS: usize = 20;
/// Time between two bookmarks of a watch.
const BOOKMARKS: Duration = Duration::from_mins(1);
/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, std::io::Error>;

/// Is told what the server's operator must know, such as entries that cannot be read.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Threads cannot be started.
    #[error("cannot start the network runtime")]
    Runtime(#[source] std::io::Error),
}

/// A server that listens.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    address: SocketAddr,
}

struct Shared {
    api: Api,
    identity: Identity,
    address: String,
    tell: Tell,
}

impl Server {
    /// Listens on an address; port 0 is one that is free.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("atrest-serve")
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let listen = |e| ServeError::Listen(address, e);
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { runtime, listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until the process ends.
    pub fn run(self, api: Api, identity: Identity, tell: Tell) {
        let Self { runtime, listener, address } = self;
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.tls));
        let shared = Arc::new(Shared { api, identity, address: address.to_string(), tell });
        runtime.block_on(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(connection(stream, acceptor.clone(), Arc::clone(&shared)));
                    }
                    // Out of files, or a client that is gone already: the next may do better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    // Whatever ends a connection, the client knows.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(request, shared).await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(request: http::Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if !shared.identity.admits(header(AUTHORIZATION)) {
        let mut refused = refusal(&Status::unauthorized());
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    let mut asked = Request::new(
        head.method.as_str(),
        head.uri.path(),
        head.uri.query().unwrap_or_default(),
        header(ACCEPT).unwrap_or("*/*"),
    );
    if asked.method == "POST" {
        match Limited::new(body, MAX_BODY).collect().await {
            Ok(all) => asked.body = all.to_bytes().to_vec(),
            Err(_) => return refusal(&Status::bad_request("the body cannot be read")),
        }
    }
    let (sender, receiver) = oneshot::channel();
    // Reading and decrypting block.
    tokio::task::spawn_blocking(move || work(&shared, &asked, sender));
    match receiver.await {
        Ok(response) => response,
        Err(_) => refusal(&Status::internal("the answer could not be made")),
    }
}

/// Makes the answer, on a thread of its own.
fn work(shared: &Arc<Shared>, asked: &Request, sender: oneshot::Sender<Response<Body>>) {
    let response = match shared.api.answer(asked, &shared.address) {
        Err(status) => refusal(&status),
        Ok(Answer::Whole(code, media, body)) => {
            let mut response = Response::new(full(body));
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
            response
        }
        Ok(Answer::List(listing)) => return list(shared, &listing, sender),
        Ok(Answer::Watch(watch)) => return watched(shared, watch, sender),
    };
    // A client that is gone needs none.
    drop(sender.send(response));
}

fn list(shared: &Arc<Shared>, listing: &Listing, sender: oneshot::Sender<Response<Body>>) {
    let mut reply = Reply::new(sender, false);
    let mut warnings = Vec::new();
    let done = shared.api.list(listing, &mut |piece| reply.write(&piece), &mut |warning| {
        (shared.tell)(&warning);
        warnings.push(warning);
    });
    reply.end(done, &warnings);
}

fn watched(shared: &Arc<Shared>, watch: Watch, sender: oneshot::Sender<Response<Body>>) {
    let mut reply = Reply::new(sender, true);
    let tell = &shared.tell;
    let begun = if watch.initial {
        let out: &mut Chunks<'_> = &mut |piece| reply.write(&piece);
        shared.api.added(&watch.listing, out, &mut |warning| tell(&warning))
    } else {
        shared.api.current_revision().map_err(|e| Status::internal(e.to_string()))
    };
    let revision = match begun {
        Ok(revision) => revision,
        Err(status) => return reply.end(Err(status), &[]),
    };
    if watch.marked && reply.write(&watch.bookmark(revision, true)).is_break() {
        return;
    }
    let Some(sender) = reply.open() else { return };
    // Nothing changes from here on; no thread is needed for that.
    tokio::spawn(async move {
        let end = tokio::time::sleep(Duration::from_secs(watch.seconds));
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(BOOKMARKS) => {
                    let line = watch.bookmark(revision, false).into();
                    if watch.bookmarks && sender.send(Ok(line)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
}

/// An answer under way: gathered until it is too long for that, then sent as it comes.
struct Reply {
    head: Option<oneshot::Sender<Response<Body>>>,
    gathered: Vec<u8>,
    sender: Option<mpsc::Sender<Result<Bytes, std::io::Error>>>,
    /// Sent as it comes from the first piece on.
    at_once: bool,
}

impl Reply {
    fn new(head: oneshot::Sender<Response<Body>>, at_once: bool) -> Self {
        Self { head: Some(head), gathered: Vec::new(), sender: None, at_once }
    }

    fn write(&mut self, piece: &[u8]) -> ControlFlow<()> {
        self.gathered.extend(piece);
        let enough = match (&self.sender, self.at_once) {
            (Some(_), false) | (None, true) => PIECE,
            (Some(_), true) => 1,
            (None, false) => GATHERED,
        };
        if self.gathered.len() < enough { ControlFlow::Continue(()) } else { self.flush() }
    }

    /// Sends what is gathered, and the head before it.
    fn flush(&mut self) -> ControlFlow<()> {
        if let Some(head) = self.head.take() {
            let (sender, receiver) = mpsc::channel(WAITING);
            let frames =
                ReceiverStream::new(receiver).map(|piece: Result<Bytes, _>| piece.map(Frame::data));
            let response = json(BoxBody::new(StreamBody::new(frames)));
            if head.send(response).is_err() {
                return ControlFlow::Break(());
            }
            self.sender = Some(sender);
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        match &self.sender {
            Some(_) if piece.is_empty() => ControlFlow::Continue(()),
            Some(sender) if sender.blocking_send(Ok(piece)).is_ok() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    /// Ends the answer.
    fn end(mut self, done: Result<(), Status>, warnings: &[String]) {
        match (done, self.head.take()) {
            (Err(status), Some(head)) => drop(head.send(refusal(&status))),
            (Ok(()), Some(head)) => {
                let mut response = json(full(self.gathered));
                warn(&mut response, warnings);
                drop(head.send(response));
            }
            (Ok(()), None) => {
                let _ = self.flush();
            }
            // The head is gone: breaking off is all that can tell it.
            (Err(status), None) => {
                if let Some(sender) = &self.sender {
                    drop(sender.blocking_send(Err(std::io::Error::other(status.message))));
                }
            }
        }
    }

    /// Sends what is gathered and keeps the answer open.
    fn open(mut self) -> Option<mpsc::Sender<Result<Bytes, std::io::Error>>> {
        let _ = self.flush();
        self.sender
    }
}

fn full(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed()
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Names what was left out in the head, where clients show it (RFC 7234, 5.5; client-go
/// `rest/warnings.go`).
fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    let rest = (more > 0).then(|| format!("{more} more entries cannot be shown"));
    for text in warnings.iter().take(MAX_WARNINGS).chain(&rest) {
        let text: String = text
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn refusal(status: &Status) -> Response<Body> {
    let mut response = json(full(status.json().to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or_default();
    response
}
