//! What can be wrong with an object elsewhere, without a credential in any word of it.

use std::error::Error;
use std::io;

use super::http::HttpError;
use crate::visible::shortened;

/// Most characters of what a server says.
const SAID: usize = 300;
/// Shortest value of a variable that is looked for in texts: anything shorter is no secret, and
/// hiding it would spoil words.
const SHORTEST: usize = 6;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are what the message shows")]
pub enum RemoteError {
    /// It is no address.
    #[error("{shown} cannot be read: {why}")]
    Address { shown: String, why: &'static str },
    /// There is no such object.
    #[error("there is no {at}")]
    NotFound { at: String, service: &'static str },
    /// The server refuses.
    #[error("{at}: access is denied: {said}")]
    Denied { at: String, service: &'static str, said: String },
    /// The server cannot be reached, or does not answer as it should.
    #[error("cannot read {at}: {said}")]
    Failed { at: String, service: &'static str, said: String },
    /// It is larger than what is fetched.
    #[error("{at} is larger than what is fetched ({most} bytes at most){}", has(*.bytes))]
    TooLarge { at: String, bytes: Option<u64>, most: u64 },
    /// It ended before its end.
    #[error("{at} was cut short: {has} of {needs} bytes came")]
    CutShort { at: String, needs: u64, has: u64 },
    /// There is no room for it.
    #[error("cannot put {at} into a temporary file")]
    NoRoom {
        at: String,
        #[source]
        cause: io::Error,
    },
    /// A listing has no end.
    #[error("there are more than {most} objects below {at}")]
    TooMany { at: String, most: usize },
    /// A server of single files.
    #[error("{at} names no file, and HTTPS has no listings")]
    NoListing { at: String },
    /// It cannot be written.
    #[error("cannot write {at}: {said}")]
    Unwritten { at: String, service: &'static str, said: String },
    /// Nothing is written there.
    #[error("nothing is written to {at}: it is no object store")]
    ReadOnly { at: String },
    /// What all need is missing.
    #[error("cannot use HTTPS: {what}")]
    Setup { what: String },
}

fn has(bytes: Option<u64>) -> String {
    bytes.map(|n| format!(": it has {n}")).unwrap_or_default()
}

/// What an error is about.
#[derive(Clone, Copy)]
pub(super) struct StoreName<'a> {
    /// The address as it is shown.
    pub at: &'a str,
    /// Whose store it is.
    pub service: &'static str,
}

/// Takes credentials out of what libraries and servers say.
pub(super) struct Scrubber {
    secrets: Vec<String>,
}

impl Scrubber {
    /// Knows the values of variables.
    pub(super) fn new(environment: &[(String, String)]) -> Self {
        const PUBLIC: [&str; 6] = ["REGION", "ENDPOINT", "ALLOW_HTTP", "URL", "BUCKET", "SKIP"];
        let secret = |(name, value): &&(String, String)| {
            value.len() >= SHORTEST && !PUBLIC.iter().any(|word| name.contains(word))
        };
        let mut secrets: Vec<_> =
            environment.iter().filter(secret).map(|(_, value)| value.clone()).collect();
        // A value that holds another is hidden first.
        secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { secrets }
    }

    /// An error of a store.
    pub(super) fn store(&self, place: StoreName<'_>, error: &object_store::Error) -> RemoteError {
        let (at, service) = (place.at.to_owned(), place.service);
        let said = self.said(error);
        match error {
            object_store::Error::NotFound { .. } => RemoteError::NotFound { at, service },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                RemoteError::Denied { at, service, said }
            }
            _ => RemoteError::Failed { at, service, said },
        }
    }

    /// An error of a store that is written to.
    pub(super) fn put(&self, place: StoreName<'_>, error: &object_store::Error) -> RemoteError {
        match self.store(place, error) {
            RemoteError::Failed { at, service, said } => {
                RemoteError::Unwritten { at, service, said }
            }
            other => other,
        }
    }

    /// An error of a single file's server.
    pub(super) fn http(&self, place: StoreName<'_>, error: &HttpError) -> RemoteError {
        let (at, service) = (place.at.to_owned(), place.service);
        match error {
            HttpError::Status(404 | 410) => RemoteError::NotFound { at, service },
            HttpError::Status(401 | 403 | 407) => {
                RemoteError::Denied { at, service, said: self.said(error) }
            }
            _ => RemoteError::Failed { at, service, said: self.said(error) },
        }
    }

    /// An answer that broke off.
    pub(super) fn broken(
        &self,
        place: StoreName<'_>,
        error: &(dyn Error + 'static),
    ) -> RemoteError {
        let (at, service) = (place.at.to_owned(), place.service);
        RemoteError::Failed { at, service, said: self.said(error) }
    }

    fn said(&self, error: &(dyn Error + 'static)) -> String {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let words = cause.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            next = cause.source();
        }
        self.clean(&text)
    }

    /// A text without credentials, answers' documents cut to what they say.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = in_words(text);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "…");
        }
        shortened(&without_queries(&text), SAID)
    }
}

/// An XML or HTML document in a text → its code and message (Amazon S3 API reference, "REST error
/// responses"; Azure's and Google's are alike). The rest of one may repeat what was signed.
fn in_words(text: &str) -> String {
    let Some(start) = text.find('<') else { return text.to_owned() };
    let document = &text[start..];
    let field = |name: &str| {
        let inner = document.split_once(&format!("<{name}>"))?.1;
        Some(inner.split('<').next()?.trim())
    };
    let words: Vec<_> = [field("Code"), field("Message")].into_iter().flatten().collect();
    format!("{}{}", &text[..start], words.join(": ")).trim_end_matches([' ', ':']).to_owned()
}

/// Addresses in a text, without their queries.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (address, tail) = after.split_at(end);
        match address.split_once('?') {
            Some((path, _)) => {
                out.push_str(path);
                out.push_str("?…");
            }
            None => out.push_str(address),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
