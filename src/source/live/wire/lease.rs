//! Leases.

use crate::proto::{Fields, Malformed};

/// The method that makes one.
pub(in crate::source::live) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// The method that ends one.
pub(in crate::source::live) const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

/// `etcdserverpb.LeaseGrantRequest`; without an ID the server chooses one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Grant {
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// `etcdserverpb.LeaseRevokeRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Revoke {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// `etcdserverpb.LeaseGrantResponse`.
pub(in crate::source::live) struct Granted;

impl Granted {
    /// The lease's ID.
    pub fn id(message: &[u8]) -> Result<i64, Malformed> {
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                return field.int64().ok_or(Malformed { offset: 0 });
            }
        }
        Err(Malformed { offset: message.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_without_an_id_is_none() {
        assert_eq!(Granted::id(&[0x0a, 2, 0x18, 9, 0x10, 7, 0x18, 60]).unwrap(), 7);
        assert!(Granted::id(&[0x0a, 2, 0x18, 9, 0x18, 60]).is_err());
    }
}
