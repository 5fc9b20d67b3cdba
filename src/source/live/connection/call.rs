//! Why requests fail.

use std::time::Duration;

use tonic::{Code, Status};

use super::dial::{DialError, copy, innermost};
use crate::proto::Malformed;
use crate::source::Untrue;
use crate::source::live::wire::said::{Said, is_too_large};

/// Why one request to one member failed.
#[derive(Debug)]
pub(in crate::source::live) enum CallError {
    /// No connection.
    Dial(DialError),
    /// The server or the transport answered with an error.
    Status(Box<Status>),
    /// No answer in time.
    Timeout(Duration),
    /// An answer that was still coming in when its time was up.
    Slow(Duration),
    /// The token does not fit a header.
    Token,
    /// The answer breaks the protocol.
    Malformed(Malformed),
    /// The answer is one that no etcd gives.
    Untrue(Box<Untrue>),
}

impl CallError {
    /// Whether another member, or the same one later, may do better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Timeout(_) => true,
            // Where an answer is slow, another is no faster: less has to be asked for.
            Self::Slow(_) | Self::Token | Self::Malformed(_) | Self::Untrue(_) => false,
            Self::Status(status) => {
                is_transport(status)
                    || matches!(status.code(), Code::Unavailable)
                    || matches!(Said::of(status.message()), Said::NotLeader | Said::Busy)
            }
        }
    }
}

/// Whether a status was made by this side because the connection failed.
pub(in crate::source::live) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Why a request failed at every member that was asked.
#[derive(Debug)]
pub(in crate::source::live) struct Refusal {
    /// Member and error, in the order of asking. Never empty.
    pub failures: Vec<(usize, CallError)>,
}

impl Refusal {
    /// The member whose answer is not taken, and why; other members make it no better.
    pub fn flaw(&self) -> Option<(usize, &CallError)> {
        let flawed = |e: &CallError| matches!(e, CallError::Untrue(_) | CallError::Malformed(_));
        self.failures.iter().find(|(_, e)| flawed(e)).map(|(index, e)| (*index, e))
    }

    /// The server's message, where one answered.
    pub fn message(&self) -> Option<&str> {
        self.failures.iter().find_map(|(_, e)| match e {
            CallError::Status(status) if !is_transport(status) => Some(status.message()),
            _ => None,
        })
    }

    /// What that means.
    pub fn said(&self) -> Option<Said> {
        self.message().map(Said::of)
    }

    /// Whether the answer was still coming in when its time was up.
    pub fn is_slow(&self) -> bool {
        self.failures.iter().any(|(_, e)| matches!(e, CallError::Slow(_)))
    }

    /// Whether a member stayed silent.
    pub fn is_silence(&self) -> bool {
        self.failures.iter().any(|(_, e)| matches!(e, CallError::Timeout(_)))
    }

    /// Whether the response was larger than the decode limit.
    pub fn is_too_large(&self) -> bool {
        self.failures
            .iter()
            .any(|(_, e)| matches!(e, CallError::Status(status) if is_too_large(status)))
    }
}

impl CallError {
    pub fn from_status(status: Status) -> Self {
        match std::error::Error::source(&status).and_then(find_dial) {
            Some(e) => Self::Dial(e),
            None => Self::Status(Box::new(status)),
        }
    }

    pub fn from_transport(error: &tonic::transport::Error) -> Self {
        match find_dial(error) {
            Some(e) => Self::Dial(e),
            None => Self::Dial(DialError::Connect(std::io::Error::other(innermost(error)))),
        }
    }
}

/// The connector's own error, copied out of the chain that transport errors wrap it in.
fn find_dial(error: &(dyn std::error::Error + 'static)) -> Option<DialError> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(dial) = e.downcast_ref::<DialError>() {
            return Some(match dial {
                DialError::Resolve(e) => DialError::Resolve(copy(e)),
                DialError::Connect(e) => DialError::Connect(copy(e)),
                DialError::Timeout(t) => DialError::Timeout(*t),
                DialError::HandshakeTimeout(t) => DialError::HandshakeTimeout(*t),
                DialError::ServerName => DialError::ServerName,
                DialError::Tls(e) => DialError::Tls(e.clone()),
                DialError::Handshake(e) => DialError::Handshake(copy(e)),
            });
        }
        next = e.source();
    }
    None
}
