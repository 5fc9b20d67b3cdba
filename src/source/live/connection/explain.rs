//! Failures of connections and requests → the story of each member.

use std::error::Error as _;
use std::io;

use tonic::Code;

use super::call::{CallError, Refusal, is_transport};
use super::dial::{DialError, innermost};
use super::session::Session;
use crate::source::live::wire::said::{Said, plain};
use crate::source::{EtcdError, MemberStory, Story, TlsStory, Trials, Wish};

/// Why no member could serve a request.
pub(in crate::source::live) fn refusal(session: &Session, refusal: &Refusal) -> EtcdError {
    match refusal.flaw() {
        Some((index, CallError::Untrue(what))) => {
            return EtcdError::Untrue { member: session.member(index), what: (**what).clone() };
        }
        Some((_, CallError::Malformed(e))) => return EtcdError::Malformed(*e),
        _ => {}
    }
    let mut stories: Vec<_> = refusal
        .failures
        .iter()
        .map(|(index, e)| MemberStory {
            member: session.members[*index].target.text.clone(),
            story: story(session, *index, e),
        })
        .collect();
    if stories.len() == 1
        && let Some(only) = stories.pop()
    {
        return EtcdError::Member(only);
    }
    Trials::new(stories).map_or(EtcdError::NoEndpoint, EtcdError::NoMember)
}

/// As [`refusal`], for a request that needs a right.
pub(in crate::source::live) fn refusal_to(
    session: &Session,
    refused: &Refusal,
    wish: Wish,
) -> EtcdError {
    match refused.failures.last() {
        Some((index, _)) if refused.said() == Some(Said::Denied) => EtcdError::Denied {
            member: session.members[*index].target.text.clone(),
            user: session.user(),
            wish,
        },
        _ => refusal(session, refused),
    }
}

fn story(session: &Session, index: usize, error: &CallError) -> Story {
    match error {
        CallError::Dial(e) => dial(session, index, e),
        CallError::Timeout(t) => Story::NoAnswer(*t),
        CallError::Slow(t) => Story::Unfinished(*t),
        CallError::Token => Story::Token,
        // Told above, whatever else went wrong.
        CallError::Malformed(e) => Story::Other(e.to_string()),
        CallError::Untrue(e) => Story::Other(e.to_string()),
        CallError::Status(s) if is_transport(s) => transport(session, index, s),
        CallError::Status(s) => status(session, s),
    }
}

fn dial(session: &Session, index: usize, error: &DialError) -> Story {
    match error {
        DialError::Resolve(e) => Story::Resolve(super::dial::copy(e)),
        DialError::Connect(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused => Story::Refused,
            io::ErrorKind::NotFound => Story::NoSocket,
            io::ErrorKind::PermissionDenied => Story::SocketDenied,
            _ => Story::Connect(super::dial::copy(e)),
        },
        DialError::Timeout(t) => Story::DialTimeout(*t),
        DialError::HandshakeTimeout(t) => Story::HandshakeTimeout(*t),
        DialError::ServerName => Story::ServerName,
        // It has spoken TLS before.
        DialError::Handshake(e) if session.has_answered(index) => Story::Lost(e.to_string()),
        DialError::Handshake(e) => Story::HandshakeClosed(super::dial::copy(e)),
        DialError::Tls(e) => Story::Tls(tls(session, index, e)),
    }
}

fn tls(session: &Session, index: usize, error: &rustls::Error) -> TlsStory {
    let shown = session.members[index].facts().get().certificate;
    super::handshake::story(session.tls.as_ref(), shown.as_ref(), error)
}

/// The connection failed below the request: what it showed tells why.
fn transport(session: &Session, index: usize, status: &tonic::Status) -> Story {
    let member = &session.members[index];
    let facts = member.facts().get();
    if let Some(e) = &facts.tls {
        return Story::Tls(tls(session, index, e));
    }
    // What a member that has answered means by hanging up, is no question of TLS.
    if session.has_answered(index) {
        return lost(status);
    }
    if !member.target.secure {
        // A TLS alert record, or Go's "HTTP/1.0 400 Client sent an HTTP request to an HTTPS server".
        if facts.first.starts_with(&[0x15, 3]) {
            return Story::SpeaksTls;
        }
        let reset =
            matches!(facts.io, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
        if facts.first.is_empty() && (facts.closed || reset) {
            return Story::Mute;
        }
        if facts.first.starts_with(b"HTTP/1") {
            return Story::NotGrpc;
        }
    } else if facts.first.is_empty()
        && session.tls.as_ref().is_some_and(|t| t.client.is_none())
        && (facts.closed || facts.io.is_some())
    {
        return Story::ClosedAfterHandshake;
    }
    lost(status)
}

fn lost(status: &tonic::Status) -> Story {
    Story::Lost(status.source().map_or_else(|| status.message().to_owned(), innermost))
}

/// The server answered with an error.
fn status(session: &Session, status: &tonic::Status) -> Story {
    let text = plain(status.message()).to_owned();
    let user = session.user();
    match (status.code(), Said::of(status.message())) {
        (_, Said::WrongPassword) => Story::Password(user.unwrap_or_default()),
        (_, Said::NoUser | Said::UnknownUser) if user.is_none() => Story::UserDemanded,
        (_, Said::Denied) => Story::Denied(user),
        (_, Said::Future) => Story::Future,
        (_, Said::InvalidToken) => Story::TokenRefused,
        (_, Said::Learner) => Story::Learner,
        (_, Said::NoLeader) => Story::NoLeader(text),
        (Code::Unimplemented, _) => Story::NotEtcd(text),
        (Code::DataLoss, _) => Story::Corrupt(text),
        (Code::Unavailable | Code::DeadlineExceeded, _) => Story::Unhealthy(text),
        (code, _) if text.is_empty() => Story::Other(format!("{code:?}")),
        _ => Story::Other(text),
    }
}
