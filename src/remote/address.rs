//! `s3://bucket/key` and the like.

use std::fmt;
use std::path::Path;

use super::error::{RemoteError, StoreName};

/// How an object is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// Any server: one file, such as by a signed address.
    Https,
}

/// Where an object is. What is secret in it is in no text that it shows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    shown: String,
    pub(super) scheme: Scheme,
    /// Bucket or container.
    pub(super) bucket: String,
    /// Key in the bucket; no slash at its beginning or end.
    pub(super) key: String,
    /// The whole address, as given, of [`Scheme::Https`].
    pub(super) target: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// The address that a path stands for: `None` where it is a path.
    ///
    /// # Errors
    /// When it is an address that cannot be read.
    pub fn of(path: &Path) -> Option<Result<Self, RemoteError>> {
        Self::parse(path.to_str()?)
    }

    /// The address in a text: `None` where it has no scheme.
    ///
    /// # Errors
    /// When it is an address that cannot be read.
    pub fn parse(text: &str) -> Option<Result<Self, RemoteError>> {
        let (word, rest) = text.split_once("://")?;
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') {
            return None;
        }
        let word = word.to_ascii_lowercase();
        let wrong = |why| Err(RemoteError::Address { shown: hidden(&word, rest), why });
        let scheme = match word.as_str() {
            "s3" | "s3a" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" => Scheme::Az,
            "https" => Scheme::Https,
            "http" => return Some(wrong("a backup is not fetched without TLS: write https://")),
            _ => return Some(wrong("s3://, gs://, az:// and https:// are read")),
        };
        let shown = hidden(&word, rest);
        if scheme == Scheme::Https {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if host.rsplit('@').next().unwrap_or_default().is_empty() {
                return Some(wrong("it names no server"));
            }
            let target = format!("https://{}", rest.split('#').next().unwrap_or_default());
            let (bucket, key) = (String::new(), String::new());
            return Some(Ok(Self { shown, scheme, bucket, key, target }));
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Some(wrong("it names no bucket"));
        }
        // Keys are written as they are, as the stores' own tools take them.
        let (bucket, key) = (bucket.to_owned(), key.trim_matches('/').to_owned());
        Some(Ok(Self { shown, scheme, bucket, key, target: String::new() }))
    }

    /// The address without what is secret in it.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The last part of the key: what a file would be called.
    #[must_use]
    pub fn name(&self) -> &str {
        let path = self.shown.split('?').next().unwrap_or_default();
        path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }

    /// The address of what is called so below this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        if self.key.is_empty() {
            self.with_key(name)
        } else {
            self.with_key(&format!("{}/{name}", self.key))
        }
    }

    /// Whether objects can be written there.
    ///
    /// # Errors
    /// When it is a single file of a server.
    pub fn writable(&self) -> Result<(), RemoteError> {
        if self.scheme == Scheme::Https {
            return Err(RemoteError::ReadOnly { at: self.shown.clone() });
        }
        Ok(())
    }

    pub(super) fn is_directory(&self) -> bool {
        let path = self.shown.split('?').next().unwrap_or_default();
        path.ends_with('/') || path.matches('/').count() < 3
    }

    /// What an error about it is about.
    pub(super) fn place(&self) -> StoreName<'_> {
        StoreName { at: &self.shown, service: self.service() }
    }

    fn service(&self) -> &'static str {
        match self.scheme {
            Scheme::S3 => "S3",
            Scheme::Gs => "Google Cloud Storage",
            Scheme::Az => "Azure",
            Scheme::Https => "HTTPS",
        }
    }

    /// Another object of the same bucket.
    pub(super) fn with_key(&self, key: &str) -> Self {
        let word = match self.scheme {
            Scheme::S3 => "s3",
            Scheme::Gs => "gs",
            Scheme::Az => "az",
            Scheme::Https => "https",
        };
        let shown = format!("{word}://{}/{key}", self.bucket);
        Self { shown, key: key.to_owned(), ..self.clone() }
    }
}

/// An address with its user, its query and what follows hidden: signatures stand there.
fn hidden(word: &str, rest: &str) -> String {
    let (path, query) = match rest.split_once(['?', '#']) {
        // In a bucket these are characters of a key.
        Some((path, _)) if !matches!(word, "s3" | "s3a" | "gs") => (path, "?…"),
        _ => (rest, ""),
    };
    let (host, path) = path.split_once('/').map_or((path, None), |(h, p)| (h, Some(p)));
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, h)| format!("…@{h}"));
    let path = path.map(|p| format!("/{p}")).unwrap_or_default();
    format!("{word}://{host}{path}{query}")
}
