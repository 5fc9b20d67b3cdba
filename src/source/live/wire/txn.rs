//! Transactions.

use super::Header;
use super::kv::RangeRequest;
use crate::proto::{Fields, Malformed};

/// The method of transactions.
pub(in crate::source::live) const TXN: &str = "/etcdserverpb.KV/Txn";

/// One conditional write.
pub struct Put<'a> {
    /// The etcd key.
    pub key: &'a [u8],
    /// Written only if this is still the key's newest revision.
    pub mod_revision: i64,
    /// The new value.
    pub value: &'a [u8],
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(in crate::source::live) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub lease: i64,
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

impl std::fmt::Debug for PutRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PutRequest(<{} bytes>)", self.value.len())
    }
}

impl Drop for PutRequest {
    fn drop(&mut self) {
        // Going back to identity, this is a plaintext secret.
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

/// `etcdserverpb.Compare` of a mod revision: result EQUAL is 0.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Compare {
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub mod_revision: i64,
}

/// `etcdserverpb.Compare.CompareTarget.MOD`.
const MOD: i32 = 2;

/// `etcdserverpb.DeleteRangeRequest` of one key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

/// `etcdserverpb.RequestOp`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct RequestOp {
    #[prost(message, optional, tag = "1")]
    pub range: Option<RangeRequest>,
    #[prost(message, optional, tag = "2")]
    pub put: Option<PutRequest>,
    #[prost(message, optional, tag = "3")]
    pub delete: Option<DeleteRequest>,
}

/// `etcdserverpb.TxnRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// What a key's revision is.
fn revision(key: &[u8]) -> RequestOp {
    let range = RangeRequest { key: key.to_vec(), keys_only: true, ..RangeRequest::default() };
    RequestOp { range: Some(range), put: None, delete: None }
}

/// That a key's newest revision is still this.
fn unchanged(key: &[u8], mod_revision: i64) -> Compare {
    Compare { target: MOD, key: key.to_vec(), mod_revision }
}

impl TxnRequest {
    /// Deletes a key if it has not changed, else says what its revision is.
    pub fn delete(key: &[u8], mod_revision: i64) -> Self {
        let delete = Some(DeleteRequest { key: key.to_vec() });
        Self {
            compare: vec![unchanged(key, mod_revision)],
            success: vec![RequestOp { range: None, put: None, delete }],
            failure: vec![revision(key)],
        }
    }

    /// Writes a key that is not there under a lease, else says what its revision is.
    pub fn create(new: &Put<'_>, lease: i64) -> Self {
        let (key, value) = (new.key.to_vec(), new.value.to_vec());
        let put = Some(PutRequest { key, value, lease, ignore_lease: false });
        Self {
            compare: vec![unchanged(new.key, 0)],
            success: vec![RequestOp { range: None, put, delete: None }],
            failure: vec![revision(new.key)],
        }
    }

    /// Writes everything if nothing has changed, else says what the revisions are.
    pub fn write(puts: &[Put<'_>]) -> Self {
        let compare = |p: &Put<'_>| unchanged(p.key, p.mod_revision);
        let put = |p: &Put<'_>| RequestOp {
            range: None,
            delete: None,
            put: Some(PutRequest {
                key: p.key.to_vec(),
                value: p.value.to_vec(),
                lease: 0,
                ignore_lease: true,
            }),
        };
        Self {
            compare: puts.iter().map(compare).collect(),
            success: puts.iter().map(put).collect(),
            failure: puts.iter().map(|p| revision(p.key)).collect(),
        }
    }
}

/// `etcdserverpb.TxnResponse`, its ranges still as bytes.
pub(in crate::source::live) struct Response<'a> {
    /// The store's revision after the transaction.
    pub revision: i64,
    /// Every comparison held.
    pub succeeded: bool,
    /// `RangeResponse` of each range, in order.
    pub ranges: Vec<&'a [u8]>,
}

impl<'a> Response<'a> {
    /// Reads the frame.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut response = Self { revision: 0, succeeded: false, ranges: Vec::new() };
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => response.revision = Header::read(field)?.revision,
                2 => response.succeeded = field.varint().is_some_and(|v| v != 0),
                3 => {
                    for op in Fields::new(field.bytes().unwrap_or_default()) {
                        let op = op?;
                        if op.number == 1 {
                            response.ranges.push(op.bytes().unwrap_or_default());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn writes_are_conditional_and_keep_leases() {
        let request = TxnRequest::write(&[Put { key: b"k", mod_revision: 7, value: b"v" }]);
        let expected = [
            &[0x0a, 7, 0x10, 2, 0x1a, 1, b'k', 0x30, 7][..],
            &[0x12, 10, 0x12, 8, 0x0a, 1, b'k', 0x12, 1, b'v', 0x30, 1],
            &[0x1a, 7, 0x0a, 5, 0x0a, 1, b'k', 0x40, 1],
        ]
        .concat();
        assert_eq!(request.encode_to_vec(), expected);
        assert!(!format!("{request:?}").contains("118"), "values stay out of Debug");
    }

    #[test]
    fn responses_keep_their_order() {
        let message = [0x0a, 2, 0x18, 9, 0x10, 1, 0x1a, 4, 0x0a, 2, 0x20, 1, 0x1a, 2, 0x0a, 0];
        let response = Response::read(&message).unwrap();
        assert_eq!((response.revision, response.succeeded), (9, true));
        assert_eq!(response.ranges, [&[0x20, 1][..], &[]]);
        assert!(Response::read(&message[..5]).is_err());
    }
}
