//! Failures of connections and requests → one line, its causes and what to do.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tonic::Code;

use super::dial::DialError;
use super::session::{CallError, Refusal, Session, is_transport};
use crate::source::SourceError;

/// The last error of a chain: the one that says what happened.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// What went wrong with one member, in words.
struct Story {
    what: String,
    hint: Option<String>,
    /// The connection or the member is the problem, not the request.
    connection: bool,
}

impl Story {
    fn connection(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()), connection: true }
    }

    fn request(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: Some(hint.into()), connection: false }
    }
}

/// Why no member could serve a request.
pub(super) fn refusal(session: &Session, refusal: &Refusal) -> SourceError {
    let mut stories: Vec<(String, Story)> = refusal
        .failures
        .iter()
        .map(|(index, e)| {
            let member = session.members[*index].target.text.clone();
            (member, story(session, *index, e))
        })
        .collect();
    if stories.len() > 1 {
        let hint = stories.iter_mut().find_map(|(_, s)| s.hint.take());
        let causes: Vec<_> = stories.iter().map(|(m, s)| format!("{m}: {}", s.what)).collect();
        let mut error = SourceError::new("no etcd endpoint could be used");
        error.hint = hint;
        return error.because(Causes::new(causes));
    }
    let Some((member, story)) = stories.pop() else {
        return SourceError::new("no etcd endpoint could be used");
    };
    let message = if story.connection {
        format!("cannot connect to etcd at {member}: {}", story.what)
    } else {
        format!("etcd at {member}: {}", story.what)
    };
    let mut error = SourceError::new(message);
    error.hint = story.hint;
    error
}

/// As [`refusal`], for a request that needs more than the right to read: `wish` says what, and
/// `hint` what to do when the server denies it.
pub(super) fn refusal_to(
    session: &Session,
    refused: &Refusal,
    wish: &str,
    hint: &str,
) -> SourceError {
    // A snapshot is denied by the auth store itself (etcd `server/auth/store.go`).
    const DENIED: [&str; 2] = ["etcdserver: permission denied", "auth: permission denied"];
    match refused.failures.as_slice() {
        [(index, _)] if refused.message().is_some_and(|m| DENIED.contains(&m)) => {
            let member = &session.members[*index].target.text;
            SourceError::new(format!("etcd at {member}: {} may not {wish}", who(session)))
                .hint(hint)
        }
        _ => refusal(session, refused),
    }
}

/// Whose rights the server looks at.
fn who(session: &Session) -> String {
    match &session.credentials {
        Some(credentials) => format!("user {:?}", credentials.user()),
        None => "the client certificate's user".to_owned(),
    }
}

/// Several causes, each on its own line of a chain.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Causes {
    text: String,
    #[source]
    next: Option<Box<Causes>>,
}

impl Causes {
    fn new(texts: Vec<String>) -> Self {
        let mut chain: Option<Box<Self>> = None;
        for text in texts.into_iter().rev() {
            chain = Some(Box::new(Self { text, next: chain }));
        }
        chain.map_or_else(|| Self { text: String::new(), next: None }, |c| *c)
    }
}

fn story(session: &Session, index: usize, error: &CallError) -> Story {
    match error {
        CallError::Dial(e) => dial(session, index, e),
        CallError::Timeout(t) => Story::connection(
            format!("no answer within {t:?}"),
            "check that the member is healthy; --command-timeout gives it more time",
        ),
        CallError::Token => Story::request(
            "the server sent a token that cannot be used",
            "check the server's --auth-token setting",
        ),
        CallError::Status(s) if is_transport(s) => transport(session, index, s),
        CallError::Status(s) => status(session, s),
    }
}

fn dial(session: &Session, index: usize, error: &DialError) -> Story {
    let endpoint = &session.members[index].target;
    match error {
        DialError::Resolve(e) => Story::connection(
            format!("the host name cannot be resolved ({e})"),
            "check the spelling of --endpoints, or give an address",
        ),
        DialError::Connect(e) => connect(e),
        DialError::Timeout(t) => Story::connection(
            format!("no connection within {t:?}"),
            "check address, port and firewall; --dial-timeout gives it more time",
        ),
        DialError::HandshakeTimeout(t) => Story::connection(
            format!("the TLS handshake was not answered within {t:?}"),
            format!(
                "check that the member is healthy; if the port does not speak TLS, try {}",
                endpoint.text.replacen("https://", "http://", 1)
            ),
        ),
        DialError::ServerName => Story::connection(
            "the host is no name that a certificate can have",
            "check the spelling of --endpoints",
        ),
        DialError::Handshake(e) => Story::connection(
            format!("the connection was closed during the TLS handshake ({e})"),
            format!(
                "the port may not speak TLS: try {}",
                endpoint.text.replacen("https://", "http://", 1)
            ),
        ),
        DialError::Tls(e) => tls(session, index, e),
    }
}

fn connect(e: &io::Error) -> Story {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => Story::connection(
            "connection refused",
            "check that etcd runs and listens there (its --listen-client-urls)",
        ),
        io::ErrorKind::NotFound => {
            Story::connection("the socket does not exist", "check the path and that etcd runs")
        }
        io::ErrorKind::PermissionDenied => {
            Story::connection("permission denied", "run as a user who may use it, usually root")
        }
        _ => Story::connection(e.to_string(), "check the address and the network"),
    }
}

fn tls(session: &Session, index: usize, error: &rustls::Error) -> Story {
    use rustls::Error as E;
    let endpoint = &session.members[index].target;
    let ca = session.tls.as_ref().and_then(|t| t.ca.as_deref());
    match error {
        E::InvalidCertificate(e) => match e {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => match ca {
                Some(ca) => Story::connection(
                    format!("the server's certificate is not signed by the CA in {}", ca.display()),
                    "give etcd's CA with --cacert; kubeadm keeps it in /etc/kubernetes/pki/etcd/ca.crt",
                ),
                None => Story::connection(
                    "the server's certificate is signed by an unknown CA",
                    "give etcd's CA with --cacert; kubeadm keeps it in /etc/kubernetes/pki/etcd/ca.crt",
                ),
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Story::connection(
                    format!(
                        "the server's certificate is not valid for this host{}",
                        match e {
                            CertificateError::NotValidForNameContext { presented, .. }
                                if !presented.is_empty() =>
                                format!(" (it is for {})", presented.join(", ")),
                            _ => String::new(),
                        }
                    ),
                    "use a name or address that is in the certificate",
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Story::connection(
                    "the server's certificate has expired",
                    "renew etcd's server certificate, and check this machine's clock",
                )
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Story::connection(
                    "the server's certificate is not valid yet",
                    "check this machine's clock",
                )
            }
            e => Story::connection(
                format!("the server's certificate is not acceptable: {e}"),
                "check the certificate with openssl x509 -text; --insecure-skip-tls-verify connects regardless",
            ),
        },
        E::AlertReceived(alert) => alert_story(session, *alert),
        E::InvalidMessage(_) => Story::connection(
            "the server does not speak TLS on this port",
            format!("try {}", endpoint.text.replacen("https://", "http://", 1)),
        ),
        E::PeerIncompatible(_) => Story::connection(
            format!("no common TLS parameters: {error}"),
            "etcd's --cipher-suites and --tls-max-version must allow TLS 1.2 with ECDHE or TLS 1.3",
        ),
        e => Story::connection(e.to_string(), "check the certificates of both sides"),
    }
}

/// The server ended the handshake.
fn alert_story(session: &Session, alert: AlertDescription) -> Story {
    let client = session.tls.as_ref().and_then(|t| t.client.as_ref());
    let Some((path, validity)) = client else {
        return match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::HandshakeFailure
            | AlertDescription::AccessDenied => Story::connection(
                "the server demands a client certificate",
                "give --cert and --key; kubeadm: /etc/kubernetes/pki/apiserver-etcd-client.crt and .key",
            ),
            alert => Story::connection(
                format!("the server ended the TLS handshake ({alert:?})"),
                "the etcd log says why",
            ),
        };
    };
    if let Some(complaint) = validity.and_then(super::der::Validity::complaint) {
        return Story::connection(
            format!("the client certificate {} {complaint}", path.display()),
            "renew it (kubeadm certs renew apiserver-etcd-client), or check the clocks",
        );
    }
    let reason = match alert {
        AlertDescription::CertificateExpired => " as expired",
        AlertDescription::UnknownCA => " as signed by an unknown CA",
        AlertDescription::CertificateRevoked => " as revoked",
        _ => "",
    };
    Story::connection(
        format!("the server rejected the client certificate {}{reason}", path.display()),
        "it must be signed by the server's --trusted-ca-file and allow client authentication; the etcd log says why",
    )
}

/// The connection failed below the request: what it showed tells why.
fn transport(session: &Session, index: usize, status: &tonic::Status) -> Story {
    let member = &session.members[index];
    let facts = member.facts().get();
    if let Some(e) = &facts.tls {
        return tls(session, index, e);
    }
    if !member.target.secure {
        let https = member.target.text.replacen("http://", "https://", 1);
        // A TLS alert record, or Go's "HTTP/1.0 400 Client sent an HTTP request to an HTTPS server".
        let alert = facts.first.starts_with(&[0x15, 3]);
        let reset =
            matches!(facts.io, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        if alert || (facts.first.is_empty() && (facts.closed || reset)) {
            return Story::connection(
                if alert {
                    "the server speaks TLS on this port"
                } else {
                    "the server closed the connection without an answer"
                },
                format!("try {https} with --cacert, --cert and --key"),
            );
        }
        if facts.first.starts_with(b"HTTP/1") {
            return Story::connection(
                "the server does not speak gRPC on this port",
                format!("if it is etcd with TLS, try {https} with --cacert, --cert and --key"),
            );
        }
    } else if facts.first.is_empty()
        && session.tls.as_ref().is_some_and(|t| t.client.is_none())
        && (facts.closed || facts.io.is_some())
    {
        return Story::connection(
            "the server closed the connection after the TLS handshake; it may demand a client certificate",
            "give --cert and --key; kubeadm: /etc/kubernetes/pki/apiserver-etcd-client.crt and .key",
        );
    }
    let text = status.source().map_or_else(|| status.message().to_owned(), innermost);
    Story::connection(
        format!("the connection was lost ({text})"),
        "check that the member is healthy; further --endpoints can take over",
    )
}

/// The server answered with an error.
fn status(session: &Session, status: &tonic::Status) -> Story {
    let message = status.message();
    let text = message.strip_prefix("etcdserver: ").unwrap_or(message);
    let user = session.credentials.as_ref().map(super::Credentials::user);
    match (status.code(), text) {
        (_, "authentication failed, invalid user ID or password") => Story::request(
            format!("wrong user name or password for user {:?}", user.unwrap_or_default()),
            "check --user and --password (ETCDCTL_USER, ETCDCTL_PASSWORD)",
        ),
        (_, "user name is empty" | "user name not found") if user.is_none() => Story::request(
            "the server demands a user",
            "give --user NAME:PASSWORD, or a client certificate whose common name is an etcd user",
        ),
        (_, "permission denied") => Story::request(
            format!("{} may not read the requested keys", who(session)),
            "etcdctl role grant-permission ROLE read --prefix=true /registry/ allows it; or narrow --prefix and --resource to what is allowed",
        ),
        (_, "mvcc: required revision is a future revision") => Story::request(
            "the revision is in the future",
            "give a --revision that has been reached, or none for the newest",
        ),
        (_, "invalid auth token") => Story::request(
            "the token is refused although it is new",
            "check the server's --auth-token setting and the clocks",
        ),
        (_, "rpc not supported for learner") => Story::request(
            "the member is a learner, which serves the current state only",
            "name a voting member with --endpoints",
        ),
        (_, "no leader" | "leader changed") => Story::request(
            format!("the cluster has no leader ({text})"),
            "check the health of the members: etcdctl endpoint status --cluster",
        ),
        (Code::Unimplemented, _) => Story::request(
            format!("this is not an etcd v3 server ({text})"),
            "check the port of --endpoints",
        ),
        (Code::DataLoss, _) => Story::request(
            format!("{text}: the cluster has raised the CORRUPT alarm"),
            "see etcdctl alarm list; read a member's files with --data-dir or a --snapshot instead",
        ),
        (Code::Unavailable | Code::DeadlineExceeded, _) => Story::request(
            text.to_owned(),
            "check the health of the members: etcdctl endpoint status --cluster",
        ),
        (code, _) => Story {
            what: if text.is_empty() { format!("{code:?}") } else { text.to_owned() },
            hint: None,
            connection: false,
        },
    }
}
