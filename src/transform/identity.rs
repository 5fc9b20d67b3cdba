//! `identity`: stored as it is.
//!
//! Its only check on reading is that the value is not another provider's, which every encrypted
//! value says in its first eight bytes.
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/identity/identity.go`.

use crate::envelope::ENCRYPTED_PREFIX;
use crate::secret::Plaintext;

/// The value itself, or `None` when it is encrypted.
#[must_use]
pub fn open(value: &[u8]) -> Option<Plaintext> {
    accepts(value).then(|| Plaintext::new(value.to_vec()))
}

/// Whether the value is stored unencrypted.
#[must_use]
pub fn accepts(value: &[u8]) -> bool {
    !value.starts_with(ENCRYPTED_PREFIX)
}
