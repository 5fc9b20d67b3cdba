//! Requests and responses of etcd as bytes (etcd `api/etcdserverpb/rpc.proto`). Responses are read
//! in place: what can hold values is never copied into messages that nobody wipes.

pub(super) mod kv;
pub(super) mod said;
pub(super) mod status;
pub(super) mod txn;
pub(super) mod watch;

use bytes::{Buf, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::proto::{Field, Fields, Malformed};

/// The store's revision in an `etcdserverpb.ResponseHeader`.
fn header_revision(header: Field<'_>) -> Result<i64, Malformed> {
    let mut revision = 0;
    for field in Fields::new(header.bytes().unwrap_or_default()) {
        let field = field?;
        if field.number == 3 {
            revision = field.int64().unwrap_or_default();
        }
    }
    Ok(revision)
}

/// Passes messages through as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
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

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(dst, item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = src.remaining();
        Ok(Some(src.copy_to_bytes(len)))
    }
}
