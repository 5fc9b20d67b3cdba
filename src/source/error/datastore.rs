//! What can go wrong with a database server that has kine's table. None of the messages has a
//! password: servers are named without, and their own words have none.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Cause, TlsFileError};

/// Why a database server cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "`at` is the server and its database, the rest what is shown")]
pub enum DatastoreError {
    /// The address is none.
    #[error("the address of the database is invalid: {why}")]
    Address { why: String },
    /// It is of a system that is not read.
    #[error("kine's table in {scheme} is not read")]
    Scheme { scheme: String },
    /// The address asks for something that is not honoured.
    #[error("the parameter `{name}` of the database's address is not honoured")]
    Parameter { name: String },
    /// The server is kine's own, and nobody else reaches it.
    #[error("the server of this address is a part of kine, and listens nowhere (dontListen)")]
    Embedded,
    /// A file that says who connects cannot be used.
    #[error("cannot use {path}", path = path.display())]
    CredentialsFile {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    /// The server has no `JetStream`.
    #[error("the server of {at} has no JetStream for this user")]
    NoJetStream { at: String },
    /// The certificates and keys that were given cannot be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// The system gives no threads or sockets.
    #[error("cannot start the network runtime")]
    Runtime(#[source] io::Error),
    /// Nobody answers there.
    #[error("cannot connect to {at}")]
    Unreachable {
        at: String,
        #[source]
        cause: Cause,
    },
    /// It does not answer in time.
    #[error("{at} does not answer within {within:?}")]
    Silent { at: String, within: Duration },
    /// It speaks no TLS, which was asked for.
    #[error("the server of {at} does not offer TLS")]
    TlsNotOffered { at: String },
    /// It takes nobody without TLS.
    #[error("the server of {at} demands TLS")]
    TlsDemanded {
        at: String,
        #[source]
        cause: Cause,
    },
    /// TLS fails.
    #[error("no TLS connection to {at} can be made")]
    Tls {
        at: String,
        #[source]
        cause: Cause,
    },
    /// Name, password or certificate are wrong.
    #[error("{at} refuses the user {user:?}")]
    Refused {
        at: String,
        user: String,
        #[source]
        cause: Cause,
    },
    /// Who connects to NATS is none that it knows.
    #[error("{at} refuses the user, token or credentials that were given")]
    Stranger {
        at: String,
        #[source]
        cause: Cause,
    },
    /// Who connects to NATS may not read the bucket.
    #[error("the bucket of {at} may not be read by this user")]
    Forbidden {
        at: String,
        #[source]
        cause: Cause,
    },
    /// There is no such database.
    #[error("{at} does not exist")]
    NoDatabase { at: String },
    /// The user may not read the table.
    #[error("the user {user:?} may not read the table `kine` of {at}")]
    Denied {
        at: String,
        user: String,
        #[source]
        cause: Cause,
    },
    /// The table is missing, or hidden from the user.
    #[error("{at} has no table `kine`")]
    NoTable { at: String },
    /// The table is not kine's.
    #[error("the table `kine` of {at} is not kine's: it has no column `{column}`")]
    NoColumn { at: String, column: &'static str },
    /// Anything else.
    #[error("cannot read {at}")]
    Failed {
        at: String,
        #[source]
        cause: Cause,
    },
}
