//! Requests and responses of etcd as bytes (etcd `api/etcdserverpb/rpc.proto`). Responses are read
//! in place: what can hold values is never copied into messages that nobody wipes.

pub(super) mod guaranteed;
pub(super) mod kv;
pub(super) mod lease;
pub(super) mod said;
pub(super) mod status;
pub(super) mod txn;
pub(super) mod watch;

use bytes::{Buf, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::proto::{Field, Fields, Malformed};

/// What every answer begins with (`etcdserverpb.ResponseHeader`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// The cluster that the member belongs to.
    pub cluster: u64,
    /// The store's revision.
    pub revision: i64,
}

impl Header {
    fn read(field: Field<'_>) -> Result<Self, Malformed> {
        let mut header = Self::default();
        for field in Fields::new(field.bytes().unwrap_or_default()) {
            let field = field?;
            match field.number {
                1 => header.cluster = field.varint().unwrap_or_default(),
                3 => header.revision = field.int64().unwrap_or_default(),
                _ => {}
            }
        }
        Ok(header)
    }
}

/// The header of an answer, which is the first field of each; empty where there is none.
pub(super) fn header(message: &[u8]) -> Result<Header, Malformed> {
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 1 {
            return Header::read(field);
        }
    }
    Ok(Header::default())
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
