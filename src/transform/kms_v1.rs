//! `kms` v1: a fresh data key for each value, wrapped by a plugin.
//!
//! Payload: length (2 bytes, big endian) ‖ wrapped data key ‖ body. The body has no marker of its
//! own: since Kubernetes 1.25 it is AES-GCM's, before it was AES-CBC's, and one that needs the
//! latter is stale.
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/envelope/envelope.go`,
//! `pkg/server/options/encryptionconfig/config.go`.

use super::error::CipherError;
use super::value::is_plausible_object;
use super::{aescbc, aesgcm};
use crate::random;
use crate::secret::{KeyMaterial, Plaintext};

/// A payload taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The data key, as the plugin wrapped it.
    pub wrapped: &'a [u8],
    /// What the data key encrypts.
    pub body: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Takes a payload apart.
    ///
    /// # Errors
    /// When the length does not fit, or no key or body is there.
    pub fn parse(payload: &'a [u8]) -> Result<Self, CipherError> {
        let Some((len, rest)) = payload.split_first_chunk::<2>() else {
            return Err(CipherError::TooShort { len: payload.len(), min: 2 });
        };
        let len = usize::from(u16::from_be_bytes(*len));
        if len == 0 {
            return Err(CipherError::Malformed("the wrapped data key is empty"));
        }
        let Some((wrapped, body)) = rest.split_at_checked(len) else {
            return Err(CipherError::Malformed("the wrapped data key is longer than the value"));
        };
        let min = aesgcm::NONCE + aesgcm::TAG;
        if body.len() < min {
            return Err(CipherError::TooShort { len: body.len(), min });
        }
        Ok(Self { wrapped, body })
    }

    /// Decrypts the body with the unwrapped data key: AES-GCM, then AES-CBC. The second result
    /// says whether the API server would rewrite the value because of the mode.
    ///
    /// # Errors
    /// When neither mode opens it.
    pub fn open(
        &self,
        data_key: &KeyMaterial,
        etcd_key: &[u8],
    ) -> Result<(Plaintext, bool), CipherError> {
        let failed = match aesgcm::Cipher::new(data_key)?.open(etcd_key, self.body) {
            Ok(plaintext) => return Ok((plaintext, false)),
            Err(error) => error,
        };
        match aescbc::Cipher::new(data_key)?.open(self.body) {
            Ok(plaintext) if is_plausible_object(plaintext.expose()) => Ok((plaintext, true)),
            _ => Err(failed),
        }
    }
}

/// Encrypts under a data key that the plugin wrapped as `wrapped`, and appends the payload to
/// `out`.
///
/// # Errors
/// When the wrapped key is longer than its length field can say, or random bytes fail.
pub fn seal(
    data_key: &KeyMaterial,
    wrapped: &[u8],
    etcd_key: &[u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CipherError> {
    seal_with(random::bytes()?, data_key, wrapped, etcd_key, plaintext, out)
}

pub(super) fn seal_with(
    nonce: [u8; aesgcm::NONCE],
    data_key: &KeyMaterial,
    wrapped: &[u8],
    etcd_key: &[u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CipherError> {
    let len = u16::try_from(wrapped.len())
        .map_err(|_| CipherError::TooLarge("the wrapped data key is over 65535 bytes"))?;
    let cipher = aesgcm::Cipher::new(data_key)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(wrapped);
    cipher.seal_with(nonce, etcd_key, plaintext, out)
}
