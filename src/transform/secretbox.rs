//! `secretbox`: `XSalsa20-Poly1305` in the order of `NaCl`.
//!
//! Payload: nonce (24 bytes) ‖ tag (16) ‖ ciphertext. The etcd key is not authenticated: a value
//! copied under another key decrypts there.
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/secretbox/secretbox.go`.

use dryoc::classic::crypto_secretbox as nacl;
use zeroize::Zeroizing;

use super::error::CipherError;
use crate::random;
use crate::secret::{KeyMaterial, Plaintext};

const NONCE: usize = 24;
const TAG: usize = 16;

/// One key, ready for use.
pub struct Cipher(Box<Zeroizing<nacl::Key>>);

impl Cipher {
    /// Takes a key of 32 bytes.
    ///
    /// # Errors
    /// For any other length.
    pub fn new(key: &KeyMaterial) -> Result<Self, CipherError> {
        let mut own = Box::new(Zeroizing::new([0; 32]));
        if key.len() != own.len() {
            return Err(CipherError::KeyLength(key.len()));
        }
        own.copy_from_slice(key.expose());
        Ok(Self(own))
    }

    /// Decrypts a payload.
    ///
    /// # Errors
    /// When it is too short or its tag does not match.
    pub fn open(&self, payload: &[u8]) -> Result<Plaintext, CipherError> {
        let short = CipherError::TooShort { len: payload.len(), min: NONCE + TAG };
        let Some((nonce, rest)) = payload.split_first_chunk::<NONCE>() else {
            return Err(short);
        };
        let Some((tag, ciphertext)) = rest.split_first_chunk::<TAG>() else {
            return Err(short);
        };
        let mut out = vec![0; ciphertext.len()];
        nacl::crypto_secretbox_open_detached(&mut out, ciphertext, tag, nonce, &self.0)
            .map_err(|_| CipherError::Authentication)?;
        Ok(Plaintext::new(out))
    }

    /// Encrypts under a random nonce and appends the payload to `out`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        self.seal_with(&random::bytes()?, plaintext, out)
    }

    pub(super) fn seal_with(
        &self,
        nonce: &[u8; NONCE],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CipherError> {
        out.extend_from_slice(nonce);
        let start = out.len();
        out.resize(start + TAG + plaintext.len(), 0);
        nacl::crypto_secretbox_easy(&mut out[start..], plaintext, nonce, &self.0)
            .map_err(|_| CipherError::TooLarge("the value"))
    }
}
