//! What members say about themselves, tokens and snapshots.

use prost::Message;
use zeroize::{Zeroize as _, Zeroizing};

use crate::proto::{Fields, Malformed};

/// The method that makes tokens.
pub(in crate::source::live) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// The method that tells a member's state.
pub(in crate::source::live) const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// The method that lists alarms; a request without fields asks for all.
pub(in crate::source::live) const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
/// The method that rewrites a member's database file; its request has no fields.
pub(in crate::source::live) const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
/// The method that forgets superseded revisions.
pub(in crate::source::live) const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// The method that lists the members; a request without fields asks for all.
pub(in crate::source::live) const MEMBERS: &str = "/etcdserverpb.Cluster/MemberList";
/// The method that sends a snapshot; its request has no fields.
pub(in crate::source::live) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// `etcdserverpb.AuthenticateRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Authenticate {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

impl std::fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticate(<hidden>)")
    }
}

impl Drop for Authenticate {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

/// The request for a token.
pub(in crate::source::live) fn authenticate(user: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let request = Authenticate { name: user.to_owned(), password: password.to_owned() };
    Zeroizing::new(request.encode_to_vec())
}

/// The token in an `etcdserverpb.AuthenticateResponse`.
pub(in crate::source::live) fn token(message: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut token = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 2 {
            token = field.bytes().unwrap_or_default().to_vec();
        }
    }
    Ok(token)
}

/// `etcdserverpb.StatusResponse`, as far as it is used; sizes in bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Status {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    #[prost(uint64, tag = "7")]
    pub raft_applied_index: u64,
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    #[prost(int64, tag = "9")]
    pub db_size_in_use: i64,
    #[prost(bool, tag = "10")]
    pub is_learner: bool,
    #[prost(int64, tag = "12")]
    pub db_size_quota: i64,
}

/// `etcdserverpb.ResponseHeader`, as far as it is used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Header {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

/// `etcdserverpb.CompactionRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Compaction {
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// The answer comes when the member has removed what it forgets.
    #[prost(bool, tag = "2")]
    pub physical: bool,
}

/// `etcdserverpb.Member`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Listed {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}

/// `etcdserverpb.MemberListResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Members {
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Listed>,
}

/// `etcdserverpb.AlarmMember`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Alarm {
    /// `etcdserverpb.AlarmType`: 1 is NOSPACE, 2 CORRUPT.
    #[prost(int32, tag = "2")]
    pub alarm: i32,
}

/// `etcdserverpb.AlarmResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::source::live) struct Alarms {
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<Alarm>,
}

/// The bytes of the file in an `etcdserverpb.SnapshotResponse`.
pub(in crate::source::live) fn blob(message: &[u8]) -> Result<&[u8], Malformed> {
    let mut blob: &[u8] = &[];
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 3 {
            blob = field.bytes().unwrap_or_default();
        }
    }
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_fields_of_etcd() {
        assert_eq!(*authenticate("u", "p"), [0x0a, 1, b'u', 0x12, 1, b'p']);
        assert_eq!(token(&[0x0a, 2, 0x18, 9, 0x12, 2, b't', b'1']).unwrap(), b"t1");
        let status = [
            &[0x0a, 2, 0x18, 9, 0x12, 3][..],
            b"3.6",
            &[0x18, 5, 0x42, 1, b'e', 0x48, 4, 0x60, 7, 0x6a, 0],
        ]
        .concat();
        let status = Status::decode(&*status).unwrap();
        assert_eq!(
            (status.version.as_str(), status.errors.as_slice()),
            ("3.6", &["e".to_owned()][..])
        );
        assert_eq!((status.db_size, status.db_size_in_use, status.db_size_quota), (5, 4, 7));
        let alarms = Alarms::decode(&[0x0a, 0, 0x12, 4, 0x08, 1, 0x10, 2][..]).unwrap();
        assert_eq!(alarms.alarms, [Alarm { alarm: 2 }]);
        assert_eq!(blob(&[0x0a, 0, 0x10, 3, 0x1a, 2, 1, 2]).unwrap(), [1, 2]);
        assert!(blob(&[0x1a, 2, 1]).is_err());
    }
}
