//! Files that age encrypted: the identities that open them, and reading them as a stream.
//!
//! Source: <https://c2sp.org/age>; the format is the `age` crate's to read. Without the feature
//! `age` such files are known, and none is opened.

#[cfg(feature = "age")]
mod identities;
#[cfg(not(feature = "age"))]
mod none;
#[cfg(test)]
#[cfg(feature = "age")]
mod tests;

#[cfg(feature = "age")]
pub use identities::Identities;
#[cfg(not(feature = "age"))]
pub use none::Identities;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an age file in text begins with.
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// What an age file begins with.
const MAGIC: &[u8] = b"age-encryption.org/";

/// Whether bytes begin as an age file, binary or as text.
#[must_use]
pub fn is_age(head: &[u8]) -> bool {
    head.starts_with(MAGIC) || is_armored(head)
}

fn is_armored(head: &[u8]) -> bool {
    head.trim_ascii_start().starts_with(ARMOR)
}

/// Why a file holds no identities. Nothing of what stands there is told: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A line that is no identity.
    #[error("line {line} is no age identity: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it is.
        why: &'static str,
    },
    /// Nothing but comments.
    #[error("it holds no age identity")]
    None,
    /// A passphrase protects the identities.
    #[error("the identities are themselves encrypted")]
    Encrypted,
}

/// Why an age file is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Sealed {
    /// No identity is given.
    #[error("an identity opens it, and none is given")]
    Locked,
    /// For others.
    #[error("none of the identities opens it: it was encrypted to other recipients")]
    NotForThese,
    /// Of a person who remembers it, or not.
    #[error("it was encrypted with a passphrase, not to a recipient")]
    Passphrase,
    /// Its beginning was changed or cut short.
    #[error("it is damaged or cut short")]
    Damaged,
}

/// The identities that were given, if any, and whether one was good for something. Clones are the
/// same.
#[derive(Clone, Default)]
pub struct Unlock(Option<Arc<(Identities, AtomicBool)>>);

impl Unlock {
    /// Opens what these open.
    #[must_use]
    pub fn with(identities: Identities) -> Self {
        Self(Some(Arc::new((identities, AtomicBool::new(false)))))
    }

    /// Whether an identity was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an identity has opened a file.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.0.as_ref().is_some_and(|given| given.1.load(Ordering::Relaxed))
    }

    /// The other halves of the identities, `age1…`.
    #[cfg(feature = "age")]
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().flat_map(|given| given.0.recipients()).collect()
    }

    /// What is encrypted, as a stream. `head` is what it begins with.
    ///
    /// # Errors
    /// Why it is not opened.
    pub fn open<'r>(
        &self,
        head: &[u8],
        reader: impl Read + 'r,
    ) -> Result<Box<dyn Read + 'r>, Sealed> {
        let identities = self.0.as_ref().map(|given| &given.0);
        let opened = Identities::open(identities, is_armored(head), reader)?;
        if let Some((_, used)) = self.0.as_deref() {
            used.store(true, Ordering::Relaxed);
        }
        Ok(opened)
    }
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unlock").field("given", &self.is_given()).finish()
    }
}
