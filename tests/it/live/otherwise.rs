//! Servers that speak etcd's protocol without being etcd.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};

use crate::support::bin;

/// What is used of `etcdserverpb.RangeRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ask {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Page {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    more: bool,
    #[prost(int64, tag = "4")]
    count: i64,
}

/// Passes messages through.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let all = from.remaining();
        Ok(Some(from.copy_to_bytes(all)))
    }
}

/// Answers range requests by a function of its own.
#[derive(Clone)]
struct Server(fn(Ask) -> Page);

impl tonic::server::NamedService for Server {
    const NAME: &'static str = "etcdserverpb.KV";
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower::Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).unary(server, request).await) })
    }
}

impl tower::Service<Request<Bytes>> for Server {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Answer<Self::Response, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let page = (self.0)(Ask::decode(request.into_inner()).unwrap());
        Box::pin(async move { Ok(Response::new(page.encode_to_vec().into())) })
    }
}

/// `127.0.0.1:PORT` of a server that answers so; it runs as long as the runtime.
pub fn serve(runtime: &tokio::runtime::Runtime, answer: fn(Ask) -> Page) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(Server(answer));
        server.serve_with_incoming(incoming).await.unwrap();
    });
    at
}

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..3000).map(|i| format!("/registry/secrets/ns-{:02}/s{i:04}", i / 100).into_bytes())
}

/// A page of those keys from `start` on that are `wanted`.
fn page(range: &Ask, wanted: impl Fn(&[u8]) -> bool) -> Page {
    let mut all: Vec<_> = keys().filter(|k| *k >= range.key && wanted(k)).collect();
    let count = all.len();
    let limit = if range.limit == 0 { count } else { usize::try_from(range.limit).unwrap() };
    all.truncate(limit);
    let kvs = all.into_iter().map(|key| KeyValue { key, mod_revision: 5, value: vec![b'v'; 8000] });
    Page {
        header: Some(Header { revision: 7 }),
        more: count > limit,
        count: count.try_into().unwrap(),
        kvs: kvs.collect(),
    }
}

#[test]
fn a_server_that_reads_ends_as_etcd_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let at = serve(&runtime, |range| page(&range, |k| k < range.range_end.as_slice()));
    let done = bin().words("scan -w json --endpoints").arg(at).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 3000);
}

/// kine takes the end of a range for the end of a prefix, whatever it is.
pub fn as_kine(range: &Ask) -> Page {
    let mut prefix = range.range_end.clone();
    *prefix.last_mut().unwrap() -= 1;
    page(range, |k| k.starts_with(&prefix))
}

#[test]
fn a_server_that_leaves_keys_out_is_found_out() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let at = serve(&runtime, |range| as_kine(&range));
    bin()
        .words("scan -w json --endpoints")
        .arg(at)
        .run()
        .fails_with_hint(1)
        .says("counts 3000 keys but sent")
        .says("--kine");
}
