//! A server that speaks etcd's protocol and says what a test wants: true or not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Header {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
}

impl RangeRequest {
    /// A page that others went before.
    pub fn is_later(&self) -> bool {
        self.key.len() > PREFIX.len()
    }
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Page {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

impl Page {
    pub fn header(&mut self) -> &mut Header {
        self.header.get_or_insert_default()
    }
}

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Create {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<Create>,
}

/// `mvccpb.Event`; type 1 is a deletion.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Event {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// `etcdserverpb.WatchResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Watched {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(string, tag = "2")]
    version: String,
}

/// Under which the keys lie.
pub const PREFIX: &str = "/registry/secrets/";

/// What a server holds and says.
#[derive(Clone)]
pub struct Store {
    pub cluster: u64,
    pub revision: i64,
    pub entries: BTreeMap<Vec<u8>, KeyValue>,
}

impl Store {
    /// A store of `count` Secrets, each written in a revision of its own from 2 on.
    pub fn of(count: i64) -> Self {
        let entry = |i: i64| {
            let key = format!("{PREFIX}default/s-{i:05}").into_bytes();
            let (create_revision, mod_revision) = (i + 2, i + 2);
            let value = b"k8s:enc:aesgcm:v1:key1:not a secret".to_vec();
            (key.clone(), KeyValue { key, create_revision, mod_revision, version: 1, value })
        };
        Self { cluster: 0xC1, revision: count + 1, entries: (0..count).map(entry).collect() }
    }

    pub fn header(&self) -> Header {
        Header { cluster_id: self.cluster, revision: self.revision }
    }

    /// The true answer.
    pub fn page(&self, request: &RangeRequest) -> Page {
        let at = if request.revision > 0 { request.revision } else { self.revision };
        let wanted = |kv: &&KeyValue| {
            let beyond = match request.range_end.as_slice() {
                [] => kv.key != request.key,
                [0] => false,
                end => kv.key.as_slice() >= end,
            };
            kv.key >= request.key && !beyond && kv.mod_revision <= at
        };
        let mut kvs: Vec<_> = self.entries.values().filter(wanted).cloned().collect();
        let count = i64::try_from(kvs.len()).unwrap();
        let limit = usize::try_from(request.limit).unwrap();
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.count_only {
            kvs.clear();
        }
        Page { header: Some(self.header()), kvs, more: more && !request.count_only, count }
    }

    /// What a watch of `create` tells of the entries, in one response after the first.
    pub fn watched(&self, create: &Create) -> Vec<Watched> {
        let mut kvs: Vec<_> = self.entries.values().cloned().collect();
        kvs.retain(|kv| kv.mod_revision >= create.start_revision);
        kvs.sort_by_key(|kv| kv.mod_revision);
        let events: Vec<_> = kvs.into_iter().map(|kv| Event { kind: 0, kv: Some(kv) }).collect();
        let header = Some(self.header());
        let mut all = vec![Watched { header, created: true, ..Watched::default() }];
        if !events.is_empty() {
            all.push(Watched { header: Some(self.header()), events, ..Watched::default() });
        }
        all
    }
}

type Paging = dyn Fn(&RangeRequest, &mut Page) + Send + Sync;
type Watching = dyn Fn(&Create, &mut Vec<Watched>) + Send + Sync;

/// The server; it ends when this value goes.
pub struct FakeEtcd {
    address: SocketAddr,
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    pages: Box<Paging>,
    watches: Box<Watching>,
}

impl FakeEtcd {
    /// Says what is true.
    pub fn honest(store: Store) -> Self {
        Self::new(store, |_, _| {}, |_, _| {})
    }

    /// `lie` changes pages.
    pub fn paging(
        store: Store,
        lie: impl Fn(&RangeRequest, &mut Page) + Send + Sync + 'static,
    ) -> Self {
        Self::new(store, lie, |_, _| {})
    }

    /// `lie` changes what a watch tells.
    pub fn watching(
        store: Store,
        lie: impl Fn(&Create, &mut Vec<Watched>) + Send + Sync + 'static,
    ) -> Self {
        Self::new(store, |_, _| {}, lie)
    }

    fn new(
        store: Store,
        pages: impl Fn(&RangeRequest, &mut Page) + Send + Sync + 'static,
        watches: impl Fn(&Create, &mut Vec<Watched>) + Send + Sync + 'static,
    ) -> Self {
        let (pages, watches) = (Box::new(pages), Box::new(watches));
        let shared = Arc::new(Shared { store: Mutex::new(store), pages, watches });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let answer = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // A client that goes away is no failure of the test.
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { address, runtime: Some(runtime), shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// As in error messages.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds something else from now on.
    pub fn replace(&self, store: Store) {
        *self.shared.store.lock().unwrap() = store;
    }
}

impl Drop for FakeEtcd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A gRPC message with the five bytes before it.
fn framed(message: &impl Message) -> Frame<Bytes> {
    let body = message.encode_to_vec();
    let mut out = vec![0];
    out.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    Frame::data(out.into())
}

fn status(code: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    Frame::trailers(trailers)
}

/// The first message of a request.
async fn message(mut body: Incoming) -> (Vec<u8>, Incoming) {
    let mut all = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            all.extend_from_slice(&data);
        }
        if let Some((head, rest)) = all.split_first_chunk::<5>() {
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if rest.len() >= len {
                return (rest[..len].to_vec(), body);
            }
        }
    }
    (Vec::new(), body)
}

type Body = StreamBody<
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>,
>;

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let (message, body) = message(request.into_body()).await;
    let store = shared.store.lock().unwrap().clone();
    let (frames, open) = match path.as_str() {
        "/etcdserverpb.KV/Range" => {
            let request = RangeRequest::decode(message.as_slice()).unwrap();
            let mut page = store.page(&request);
            (shared.pages)(&request, &mut page);
            (vec![framed(&page), status("0")], None)
        }
        "/etcdserverpb.Watch/Watch" => {
            let request = WatchRequest::decode(message.as_slice()).unwrap();
            let create = request.create.unwrap_or_default();
            let mut said = store.watched(&create);
            (shared.watches)(&create, &mut said);
            (said.iter().map(framed).collect(), Some(body))
        }
        "/etcdserverpb.Maintenance/Status" => {
            let said = Status { header: Some(store.header()), version: "3.5.21".to_owned() };
            (vec![framed(&said), status("0")], None)
        }
        _ => (vec![status("12")], None),
    };
    let frames = tokio_stream::iter(frames.into_iter().map(Ok));
    let stream: std::pin::Pin<Box<dyn tokio_stream::Stream<Item = _> + Send>> = match open {
        None => Box::pin(frames),
        // A watch stays open as long as its client does.
        Some(mut body) => {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(Ok(_)) = body.frame().await {}
                drop(sender);
            });
            let rest = tokio_stream::wrappers::ReceiverStream::new(receiver);
            Box::pin(tokio_stream::StreamExt::chain(frames, rest))
        }
    };
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(StreamBody::new(stream)).unwrap())
}
