//! What can go wrong with a live etcd: the story of each member that was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::untrue::shown;
use super::{Cause, Untrue};
use crate::proto::Malformed;
use crate::range::KeyRange;

/// Why an etcd cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No member is named.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// An endpoint is none.
    #[error("endpoint {text:?} is invalid: {why}")]
    Endpoint {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates and keys that were given cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The system gives no threads or sockets.
    #[error("cannot start the network runtime")]
    Runtime(#[source] io::Error),
    /// The connection was given up.
    #[error("the connection is closed")]
    Closed,
    /// A task ended before its time.
    #[error("reading from etcd was interrupted")]
    Interrupted(#[source] Cause),
    /// The one member that was asked cannot serve the request.
    #[error("{}", .0.alone())]
    Member(MemberStory),
    /// None of the members that were asked can.
    #[error("no etcd endpoint could be used")]
    NoMember(#[source] Trials),
    /// The user lacks the right to do something.
    #[error("etcd at {member}: {} may not {wish}", who(.user.as_deref()))]
    Denied {
        /// The member that says so.
        member: String,
        /// The user; `None` for the client certificate's.
        user: Option<String>,
        /// What was asked for.
        wish: Wish,
    },
    /// A response breaks the protocol.
    #[error("etcd sent a response that cannot be read")]
    Malformed(#[from] Malformed),
    /// A member says what no etcd says.
    #[error("{}", untrue(.member, .what))]
    Untrue {
        /// The endpoint, with its scheme.
        member: String,
        /// Which guarantee is broken.
        what: Untrue,
    },
    /// The pages of one revision do not add up.
    #[error("the server counts {counted} keys but sent {sent}, so no complete result exists")]
    Incomplete {
        /// Keys by the first page.
        counted: u64,
        /// Keys in all pages.
        sent: u64,
    },
    /// The pages of one revision do not come to their end.
    #[error("{}: reading broke off after {entries} entries, at key {}", alone(.why), shown(.last))]
    BrokeOff {
        /// Entries that were read.
        entries: u64,
        /// The key of the last one.
        last: Vec<u8>,
        /// What happened then.
        #[source]
        why: Box<EtcdError>,
    },
    /// The watch is over.
    #[error("the watch of etcd ended")]
    WatchEnded,
    /// The server refuses the watch.
    #[error("etcd ended the watch: {}", .reason.escape_debug())]
    WatchCanceled {
        /// In the server's words.
        reason: String,
        /// The user lacks the right to read what is watched.
        denied: bool,
        /// All keys were watched, to read the history of some.
        all_keys: bool,
    },
    /// The history broke off.
    #[error("the history of etcd could not be read to its end")]
    HistoryCut(#[source] Box<EtcdError>),
    /// A backup cannot be written.
    #[error("cannot write the backup")]
    BackupUnwritable(#[source] io::Error),
    /// A backup is not what the server sent.
    #[error("the backup is incomplete: its SHA-256 does not fit")]
    BackupIncomplete,
    /// The server takes no request of this size, in its words.
    #[error("{0}")]
    TooLarge(String),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wish {
    /// Reading keys: those of this range among others.
    #[error("read the requested keys")]
    Read(KeyRange),
    /// Writing keys.
    #[error("write the keys")]
    Write,
    /// Saving a snapshot.
    #[error("save a snapshot")]
    Snapshot,
}

/// What happened with one member.
#[derive(Debug)]
pub struct MemberStory {
    /// The endpoint, with its scheme.
    pub member: String,
    /// What happened.
    pub story: Story,
}

impl MemberStory {
    /// In one line, as the only member that was asked.
    fn alone(&self) -> String {
        if self.story.is_connection() {
            format!("cannot connect to etcd at {}: {}", self.member, self.story)
        } else {
            format!("etcd at {}: {}", self.member, self.story)
        }
    }
}

/// Members in the order of asking; each is the cause of the one before, so that a chain of causes
/// has a line for each.
#[derive(Debug)]
pub struct Trials {
    /// This member.
    pub first: MemberStory,
    /// Those asked later.
    pub rest: Option<Box<Trials>>,
}

impl Trials {
    /// Joins them; `None` if there are none.
    pub fn new(stories: Vec<MemberStory>) -> Option<Self> {
        let mut chain = None;
        for first in stories.into_iter().rev() {
            chain = Some(Self { first, rest: chain.map(Box::new) });
        }
        chain
    }

    /// Each member, in the order of asking.
    pub fn iter(&self) -> impl Iterator<Item = &MemberStory> {
        std::iter::successors(Some(self), |t| t.rest.as_deref()).map(|t| &t.first)
    }
}

impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.first.member, self.first.story)
    }
}

impl std::error::Error for Trials {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.rest.as_deref().map(|t| t as _)
    }
}

/// What went wrong with one member.
#[derive(Debug, thiserror::Error)]
pub enum Story {
    /// It does not answer a request.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// Its answer comes too slowly.
    #[error("the answer was still coming in after {0:?}")]
    Unfinished(Duration),
    /// Its name is unknown.
    #[error("the host name cannot be resolved ({0})")]
    Resolve(io::Error),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Its socket does not exist.
    #[error("the socket does not exist")]
    NoSocket,
    /// Its socket is somebody else's.
    #[error("permission denied")]
    SocketDenied,
    /// The system cannot connect for another reason.
    #[error("{0}")]
    Connect(io::Error),
    /// The connection takes too long.
    #[error("no connection within {0:?}")]
    DialTimeout(Duration),
    /// The TLS handshake takes too long.
    #[error("the TLS handshake was not answered within {0:?}")]
    HandshakeTimeout(Duration),
    /// Its name cannot stand in a certificate.
    #[error("the host is no name that a certificate can have")]
    ServerName,
    /// It hangs up during the handshake.
    #[error("the connection was closed during the TLS handshake ({0})")]
    HandshakeClosed(io::Error),
    /// TLS fails.
    #[error(transparent)]
    Tls(TlsStory),
    /// It wants TLS and was not offered it.
    #[error("the server speaks TLS on this port")]
    SpeaksTls,
    /// It hangs up on a connection without TLS.
    #[error("the server closed the connection without an answer")]
    Mute,
    /// It is a web server of another kind.
    #[error("the server does not speak gRPC on this port")]
    NotGrpc,
    /// It hangs up after the handshake, without a client certificate.
    #[error(
        "the server closed the connection after the TLS handshake; it may demand a client certificate"
    )]
    ClosedAfterHandshake,
    /// A connection that worked is gone.
    #[error("the connection was lost ({0})")]
    Lost(String),
    /// Its token does not fit a header.
    #[error("the server sent a token that cannot be used")]
    Token,
    /// Name or password is wrong.
    #[error("wrong user name or password for user {0:?}")]
    Password(String),
    /// It wants a user and was given none.
    #[error("the server demands a user")]
    UserDemanded,
    /// The user lacks the right to read; `None` for the client certificate's.
    #[error("{} may not read the requested keys", who(.0.as_deref()))]
    Denied(Option<String>),
    /// The revision does not exist yet.
    #[error("the revision is in the future")]
    Future,
    /// A new token is refused.
    #[error("the token is refused although it is new")]
    TokenRefused,
    /// It takes no part in decisions yet.
    #[error("the member is a learner, which serves the current state only")]
    Learner,
    /// The cluster cannot decide, in the server's words.
    #[error("the cluster has no leader ({0})")]
    NoLeader(String),
    /// It knows no such request, in its words.
    #[error("this is not an etcd v3 server ({0})")]
    NotEtcd(String),
    /// Its data is not that of the others, in its words.
    #[error("{0}: the cluster has raised the CORRUPT alarm")]
    Corrupt(String),
    /// It cannot serve now, in its words.
    #[error("{0}")]
    Unhealthy(String),
    /// Anything else that it says.
    #[error("{0}")]
    Other(String),
}

impl Story {
    /// Whether there was no connection to make a request on.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Resolve(_)
            | Self::Refused
            | Self::NoSocket
            | Self::SocketDenied
            | Self::Connect(_)
            | Self::DialTimeout(_)
            | Self::HandshakeTimeout(_)
            | Self::ServerName
            | Self::HandshakeClosed(_)
            | Self::Tls(_)
            | Self::SpeaksTls
            | Self::Mute
            | Self::NotGrpc
            | Self::ClosedAfterHandshake => true,
            Self::NoAnswer(_)
            | Self::Unfinished(_)
            | Self::Lost(_)
            | Self::Token
            | Self::Password(_)
            | Self::UserDemanded
            | Self::Denied(_)
            | Self::Future
            | Self::TokenRefused
            | Self::Learner
            | Self::NoLeader(_)
            | Self::NotEtcd(_)
            | Self::Corrupt(_)
            | Self::Unhealthy(_)
            | Self::Other(_) => false,
        }
    }
}

/// Why TLS fails with one member.
#[derive(Debug, thiserror::Error)]
pub enum TlsStory {
    /// The server's certificate comes from elsewhere: than the CA in this file, if one was given.
    #[error("the server's certificate is {}", unknown_issuer(.0.as_deref()))]
    UnknownIssuer(Option<PathBuf>),
    /// The server's certificate is for other names: these, as far as is known.
    #[error("the server's certificate is not valid for this host{}", valid_for(.0))]
    WrongName(Vec<String>),
    /// The server's certificate is too old.
    #[error("the server's certificate has expired")]
    Expired,
    /// The server's certificate is too new.
    #[error("the server's certificate is not valid yet")]
    NotValidYet,
    /// The server's certificate may not serve.
    #[error("the server's certificate is not for servers: its extended key usage lacks serverAuth")]
    Purpose,
    /// The server's certificate is a CA's: not the one in this file, if one was given.
    #[error("the server's certificate is a CA's and {}", not_given(.0.as_deref()))]
    Authority(Option<PathBuf>),
    /// The server's certificate has, or was signed with, what is too weak or unknown here.
    #[error("the server's certificate {0}, which is not supported")]
    Unsupported(String),
    /// The server's certificate is wrong in another way.
    #[error("the server's certificate is not acceptable ({0})")]
    Unacceptable(String),
    /// The server ends the handshake before it shows its certificate.
    #[error("the server accepts none of the TLS versions, ciphers and signatures that are offered")]
    NoOffer,
    /// The server wants a client certificate and was given none.
    #[error("the server demands a client certificate")]
    ClientDemanded,
    /// The server ends the handshake with this alert.
    #[error("the server ended the TLS handshake ({0})")]
    Alert(String),
    /// The client certificate is of another time.
    #[error("the client certificate {} {complaint}", .path.display())]
    ClientOutdated {
        /// Its file.
        path: PathBuf,
        /// `has expired`, `is not valid yet`.
        complaint: &'static str,
    },
    /// The server does not want this client certificate.
    #[error("the server rejected the client certificate {}{reason}", .path.display())]
    ClientRejected {
        /// Its file.
        path: PathBuf,
        /// ` as expired`, or nothing where the server does not say.
        reason: &'static str,
    },
    /// The server answers in clear.
    #[error("the server does not speak TLS on this port")]
    NotSpoken,
    /// Versions or ciphers do not meet.
    #[error("no common TLS parameters: {0}")]
    NothingInCommon(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why certificates and keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are what a file is for, the file and the cause")]
pub enum TlsFileError {
    /// The TLS library cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] Cause),
    /// The system refuses.
    #[error("cannot read {what} {}", .path.display())]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It begins as PEM and goes on as something else.
    #[error("{what} {} is damaged PEM", .path.display())]
    Damaged { what: &'static str, path: PathBuf },
    /// It has no certificate.
    #[error("{what} {} holds no certificate", .path.display())]
    NoCertificate { what: &'static str, path: PathBuf },
    /// It has certificates, but none that can sign.
    #[error("the CA bundle {} holds no usable certificate", .path.display())]
    NoAuthority { path: PathBuf },
    /// It needs a passphrase.
    #[error("the client key {} is protected by a passphrase", .path.display())]
    Passphrase { path: PathBuf },
    /// It has no key.
    #[error("the client key {} holds no private key", .path.display())]
    NoKey { path: PathBuf },
    /// Certificate and key are of two pairs.
    #[error("the client key {} does not belong to the certificate {}", .key.display(), .cert.display())]
    Mismatch { key: PathBuf, cert: PathBuf },
    /// The key is of this kind.
    #[error("the client certificate {} has {kind}, which is not supported", .cert.display())]
    Unsupported { cert: PathBuf, kind: String },
    /// They cannot be used for another reason.
    #[error("the client certificate {} and key {} cannot be used", .cert.display(), .key.display())]
    Unusable {
        key: PathBuf,
        cert: PathBuf,
        #[source]
        cause: Cause,
    },
    /// A client certificate alone proves nothing.
    #[error("a client certificate is given without its key")]
    KeyMissing,
    /// A client key alone proves nothing.
    #[error("a client key is given without its certificate")]
    CertificateMissing,
}

fn untrue(member: &str, what: &Untrue) -> String {
    if what.is_clusters() {
        return what.to_string();
    }
    format!("etcd at {member} says what cannot be, so no result exists: {what}")
}

/// An error that others are told with, in one line.
fn alone(why: &EtcdError) -> String {
    match why {
        EtcdError::Member(only) => format!("etcd at {}: {}", only.member, only.story),
        why => why.to_string(),
    }
}

/// Whose rights the server looks at.
fn who(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("user {user:?}"),
        None => "the client certificate's user".to_owned(),
    }
}

fn unknown_issuer(ca: Option<&Path>) -> String {
    match ca {
        Some(ca) => format!("not signed by the CA in {}", ca.display()),
        None => "signed by an unknown CA".to_owned(),
    }
}

fn not_given(ca: Option<&Path>) -> String {
    match ca {
        Some(ca) => format!("not the one in {}", ca.display()),
        None => "signed by no other that is known".to_owned(),
    }
}

fn valid_for(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (it is for {})", names.join(", ")) }
}
