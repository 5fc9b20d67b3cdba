//! What etcd says in words: its errors have texts, not numbers (etcd
//! `api/v3rpc/rpctypes/error.go`). Nothing else compares them.

use tonic::Status;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::live) enum Said {
    /// The user may not.
    Denied,
    /// The revision is no longer held.
    Compacted,
    /// The revision does not exist yet.
    Future,
    /// The server has more to do than it can.
    Busy,
    /// The database has reached its quota.
    NoSpace,
    /// The request has more bytes or more operations than the server takes.
    TooLarge,
    /// Another member decides now.
    NotLeader,
    /// Nobody decides now.
    NoLeader,
    /// A learner serves no such request.
    Learner,
    /// The token is unknown, or has expired.
    InvalidToken,
    /// Rights have changed since the token was made.
    OldToken,
    /// There is no user in the request.
    NoUser,
    /// There is no such user.
    UnknownUser,
    /// Name or password is wrong.
    WrongPassword,
    /// There are no users.
    AuthOff,
    /// Anything else.
    Other,
}

impl Said {
    /// Reads a server's message, with or without the name that most begin with.
    pub fn of(message: &str) -> Self {
        match plain(message) {
            // A snapshot is denied by the auth store itself (etcd `server/auth/store.go`).
            "permission denied" | "auth: permission denied" => Self::Denied,
            "mvcc: required revision has been compacted" => Self::Compacted,
            "mvcc: required revision is a future revision" => Self::Future,
            "too many requests" => Self::Busy,
            "mvcc: database space exceeded" => Self::NoSpace,
            "request is too large" | "too many operations in txn request" => Self::TooLarge,
            "not leader" => Self::NotLeader,
            "no leader" | "leader changed" => Self::NoLeader,
            "rpc not supported for learner" => Self::Learner,
            "invalid auth token" => Self::InvalidToken,
            "revision of auth store is old" => Self::OldToken,
            "user name is empty" => Self::NoUser,
            "user name not found" => Self::UnknownUser,
            "authentication failed, invalid user ID or password" => Self::WrongPassword,
            "authentication is not enabled" => Self::AuthOff,
            _ => Self::Other,
        }
    }

    /// The reason that a watch ends for: a sentence about it.
    pub fn of_watch(reason: &str) -> Self {
        if reason.contains("permission denied") { Self::Denied } else { Self::of(reason) }
    }

    /// Whether a new token may help.
    pub fn wants_new_token(self) -> bool {
        matches!(self, Self::InvalidToken | Self::OldToken | Self::NoUser)
    }
}

/// A message without the name that most begin with.
pub(in crate::source::live) fn plain(message: &str) -> &str {
    message.strip_prefix("etcdserver: ").unwrap_or(message)
}

/// Whether a response was larger than this side takes (tonic's own text), or a request larger
/// than gRPC does on the other (grpc-go's).
pub(in crate::source::live) fn is_too_large(status: &Status) -> bool {
    status.message().contains("message length too large")
        || status.message().contains("message larger than max")
}
